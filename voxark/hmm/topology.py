"""Which transitions an HMM has, and their probabilities before training: by name or from a small text."""

import math

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError

SELF_LOOP = 0.75  # of left-to-right states, as Kaldi's topologies have it
STAY = 0.9  # of ergodic states
LEAVE = 0.01  # exit probability of ergodic states with the ending "prob"


def named_topology(name, num_states, ending):
    """Return (initial (S,), transitions (S,S), final (S,)) of "left-to-right" or "ergodic".

    left-to-right: starts in state 0, ends in the last, each state stays or goes to the next. ergodic: starts
    and ends anywhere, every state follows every other. VoxarkError for fewer than one state.
    """
    if num_states < 1:
        raise VoxarkError(f"--num-states={num_states}: at least 1 is needed")
    if name == "left-to-right":
        initial = np.eye(num_states)[0]
        transitions = SELF_LOOP * np.eye(num_states) + (1 - SELF_LOOP) * np.eye(num_states, k=1)
        final = np.eye(num_states)[-1] * (1 - SELF_LOOP if ending == "prob" else 1.0)
        if ending == "set":
            transitions[-1, -1] = 1.0
        return initial, transitions, final
    initial = np.full(num_states, 1.0 / num_states)
    transitions = np.full((num_states, num_states), (1 - STAY) / max(num_states - 1, 1))
    np.fill_diagonal(transitions, STAY if num_states > 1 else 1.0)
    if ending == "prob":
        return initial, (1 - LEAVE) * transitions, np.full(num_states, LEAVE)
    return initial, transitions, np.ones(num_states)


def read_topology(rxfilename, ending):
    """Read (initial (S,), transitions (S,S), final (S,)) from a text of lines; # starts a comment.

        initial STATE [PROB]     where utterances begin (state 0 unless said)
        STATE STATE [PROB]       a transition
        final STATE [PROB]       where they may end (the last state unless said); PROB with the ending "prob"

    A probability left out shares evenly, with the others left out, what the state has left of 1. VoxarkError
    names the line that is wrong, or the state whose probabilities do not sum to 1.
    """
    initial, arcs, final = {}, {}, {}
    with tables.open_input(rxfilename) as source:
        text = source.read_all().decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        try:
            if words:
                _take_line(words, initial, arcs, final)
        except ValueError as error:
            raise VoxarkError(f"{rxfilename}: line {number}: {error}") from None
    states = {state for pair in arcs for state in pair} | set(initial) | set(final)
    if not states:
        raise VoxarkError(f"{rxfilename}: no transitions in it (expected lines `from to [probability]`)")
    size = max(states) + 1
    try:
        return _fill(size, initial or {0: None}, arcs, final or {size - 1: None}, ending)
    except VoxarkError as error:
        raise VoxarkError(f"{rxfilename}: {error}") from None


def _take_line(words, initial, arcs, final):
    if len(words) not in (2, 3):
        raise ValueError("expected `from to [probability]`, `initial state [probability]` or `final ...`")
    prob = float(words[2]) if len(words) == 3 else None
    if prob is not None and not 0 < prob <= 1:
        raise ValueError(f"{words[2]} is no probability above 0")
    table = {"initial": initial, "final": final}.get(words[0], arcs)
    states = [int(word) for word in (words[:2] if table is arcs else words[1:2])]
    if min(states) < 0 or max(states) > 10000:
        raise ValueError(f"{' '.join(words)}: states are numbers from 0")
    key = tuple(states) if table is arcs else states[0]
    if key in table:
        raise ValueError(f"{' '.join(words)}: stands there twice")
    table[key] = prob


def _share(probs):
    """Replace the None of a list of probabilities by even shares of what is left of 1."""
    left = 1.0 - math.fsum(p for p in probs if p is not None)
    missing = sum(p is None for p in probs)
    if missing and left <= 0:
        raise VoxarkError("nothing is left for the probabilities that are not given")
    return [left / missing if p is None else p for p in probs]


def _fill(size, initial, arcs, final, ending):
    pi, transitions, ends = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    pi[list(initial)] = _share(list(initial.values()))
    if abs(pi.sum() - 1) > 1e-4:
        raise VoxarkError(f"the initial probabilities sum to {pi.sum():.6g}, not to 1")
    for state in range(size):
        targets = [to for origin, to in arcs if origin == state]
        probs = [arcs[state, to] for to in targets]
        if ending == "prob" and state in final:
            probs.append(final[state])
        try:
            shared = _share(probs) if probs else []
        except VoxarkError as error:
            raise VoxarkError(f"state {state}: {error}") from None
        if abs(sum(shared) - 1) > 1e-4 and (probs or state not in final):
            raise VoxarkError(f"state {state}: probabilities sum to {sum(shared):.6g}, not to 1")
        transitions[state, targets] = shared[: len(targets)]
        if state in final:
            ends[state] = 1.0 if ending == "set" or not shared else shared[-1]
    return pi, transitions, ends
