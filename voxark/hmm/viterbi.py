"""The best path through an HMM, for many utterances at once: max-plus over the transitions, and back."""

import numpy as np

from voxark.hmm.model import safe_log
from voxark.hmm.packing import Packing, last_rows


def viterbi(hmm, b, lengths):
    """Return (scores (B,), paths (N,) int32) of joined utterances: max over z of ln p(X,z), and that z.

    b (N,S) = ln p(x|s); lengths (B,) >= 1. Paths end in a state that may be final; the lowest state wins
    ties. An utterance without any path has score -inf and its states are -1.
    """
    lengths = np.asarray(lengths)
    packing = Packing(lengths)
    best, back = _forward(hmm, b[packing.rows], packing)
    scores = np.empty(len(b))
    states = np.empty(len(b), np.int32)
    log_final = safe_log(hmm.final)
    for going_on, ending, following in packing.steps_back():
        ends = best[ending] + log_final
        states[ending] = ends.argmax(axis=1)
        scores[ending] = ends.max(axis=1, initial=-np.inf)
        scores[going_on] = scores[following]
        states[going_on] = np.take_along_axis(back[following], states[following][:, None], axis=1)[:, 0]
    scores, states = packing.joined(scores), packing.joined(states)
    states[np.isneginf(scores)] = -1
    return scores[last_rows(lengths)], states


def _forward(hmm, b, packing):
    """The best score that ends in each state (N,S), packed, and its predecessor (N,S) int32."""
    best, back = np.empty_like(b), np.zeros(b.shape, np.int32)
    best[: packing.counts[0]] = safe_log(hmm.initial) + b[: packing.counts[0]]
    num_arcs = len(hmm.arcs.source)
    if not num_arcs:
        best[packing.counts[0] :] = -np.inf
        return best, back
    step = _dense_step(hmm) if 4 * num_arcs > hmm.num_states**2 else _sparse_step(hmm)
    for before, now in packing.steps():
        step(best[before], best[now], back[now])
        best[now] += b[now]
    return best, back


def _dense_step(hmm):
    """Return the function that fills best and back (n,S) from the best before, over all pairs of states."""
    into = safe_log(np.ascontiguousarray(hmm.transitions.T))

    def step(before, best, back):
        terms = before[:, None, :] + into
        chosen = terms.argmax(axis=2)
        back[...] = chosen
        best[...] = np.take_along_axis(terms, chosen[:, :, None], axis=2)[:, :, 0]

    return step


def _sparse_step(hmm):
    """The same over the transitions above zero alone."""
    arcs = hmm.arcs
    source = arcs.source.astype(np.int32)

    def step(before, best, back):
        terms = before[:, source] + arcs.log_prob
        peak = np.maximum.reduceat(terms, arcs.starts, axis=1)
        candidates = np.where(terms == peak[:, arcs.segment], source, hmm.num_states)
        best[...] = -np.inf
        best[:, arcs.targets] = peak
        back[:, arcs.targets] = np.minimum.reduceat(candidates, arcs.starts, axis=1)

    return step


def path_score(hmm, b, lengths, states):
    """Return ln p(X,z) (B,) of the paths ``states`` (N,) of joined utterances; -inf for impossible ones."""
    lengths, rows = np.asarray(lengths), np.arange(len(states))
    steps = b[rows, states]
    first = np.cumsum(lengths) - lengths
    steps[first] += safe_log(hmm.initial)[states[first]]
    inner = np.delete(rows, first)
    steps[inner] += safe_log(hmm.transitions)[states[inner - 1], states[inner]]
    return np.add.reduceat(steps, first) + safe_log(hmm.final)[states[last_rows(lengths)]]
