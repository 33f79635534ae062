"""E-step and M-step of an HMM: statistics of states, transitions and Gaussians that add up, and their update.

The hidden variables are the path and the component in each frame: gamma_t(s,k) = gamma_t(s) times the
responsibility of component k within the state's mixture [lecture].
"""

import logging
from dataclasses import dataclass, fields, replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.em import DiagAccs, m_step
from voxark.hmm.emissions import Emissions
from voxark.hmm.forward_backward import StatePosteriors, forward_backward
from voxark.hmm.model import Hmm
from voxark.hmm.packing import first_rows, last_rows
from voxark.hmm.viterbi import path_score, viterbi
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)

UNVISITED = 1e-8  # frames: a state with less was never visited
NO_PATH = "no path through the model"


@dataclass
class HmmAccs:
    """Statistics of an HMM, float64, additive over utterances and jobs.

    initial (S,) = sum of gamma_1, transitions (S,S) = sum of xi, final (S,) = sum of gamma_T, gauss: DiagAccs
    of all Gaussians of all pdfs side by side; log_likelihood = sum of ln p(X) (of ln p(X,z) where a path z is
    given), num_frames, num_utterances.
    """

    initial: np.ndarray
    transitions: np.ndarray
    final: np.ndarray
    gauss: DiagAccs
    log_likelihood: float = 0.0
    num_frames: int = 0
    num_utterances: int = 0

    def __iadd__(self, other):
        for field in fields(self):
            value = getattr(self, field.name)
            value += getattr(other, field.name)
            setattr(self, field.name, value)
        return self


def path_posteriors(hmm, b, lengths, states):
    """Return the StatePosteriors of given paths ``states`` (N,): gamma is one-hot, ln p is that of X and z.

    Impossible paths have ln p -inf and gamma 0; their transitions are not counted.
    """
    scores = path_score(hmm, b, lengths, states)
    possible = np.repeat(np.isfinite(scores), lengths)
    gamma = np.zeros(b.shape)
    gamma[possible, states[possible]] = 1.0
    sums = np.zeros_like(hmm.transitions)
    inner = np.delete(np.arange(len(states)), first_rows(lengths))
    inner = inner[possible[inner]]
    np.add.at(sums, (states[inner - 1], states[inner]), 1.0)
    return StatePosteriors(scores, gamma, sums)


class HmmEStep:
    """The E-step under one model. ``training``: "em" (all paths), "viterbi" (the best path alone) or "fixed"
    (the path of the batch's labels); the components within a state have soft responsibilities in each."""

    def __init__(self, hmm, offset, training="em"):
        self.hmm, self.training = hmm, training
        self.emissions = Emissions(hmm.pdfs, offset)
        identity = np.array_equal(hmm.pdf_of, np.arange(len(hmm.pdfs)))
        self._to_pdfs = None if identity else np.eye(len(hmm.pdfs))[hmm.pdf_of]

    def zeros(self):
        """Return empty statistics."""
        size = self.hmm.num_states
        return HmmAccs(np.zeros(size), np.zeros((size, size)), np.zeros(size), self.emissions.zeros())

    def state_log_likelihoods(self, x):
        """Return b = ln p(x|s) (N,S) of frames x (N,D)."""
        lls = self.emissions.log_likelihoods(x)
        return lls if self._to_pdfs is None else lls[:, self.hmm.pdf_of]

    def pdf_posteriors(self, gamma):
        """Return the posteriors (N,P) of the pdfs from those of the states (N,S)."""
        return gamma if self._to_pdfs is None else gamma @ self._to_pdfs

    def posteriors(self, batch):
        """Return the StatePosteriors of a Batch."""
        b = self.state_log_likelihoods(batch.x)
        if self.training == "em":
            return forward_backward(self.hmm, b, batch.lengths)
        states = viterbi(self.hmm, b, batch.lengths)[1] if self.training == "viterbi" else batch.states
        return path_posteriors(self.hmm, b, batch.lengths, states)

    def accumulate(self, batch, accs):
        """Add the statistics of a Batch to ``accs``; return which utterances (B,) had a path."""
        posteriors = self.posteriors(batch)
        usable = np.isfinite(posteriors.log_likelihood)
        accs.initial += posteriors.gamma[first_rows(batch.lengths)].sum(axis=0)
        accs.final += posteriors.gamma[last_rows(batch.lengths)].sum(axis=0)
        accs.transitions += posteriors.transition_sums
        self.emissions.accumulate(batch.x, self.pdf_posteriors(posteriors.gamma), accs.gauss)
        accs.log_likelihood += float(posteriors.log_likelihood[usable].sum())
        accs.num_frames += int(batch.lengths[usable].sum())
        accs.num_utterances += int(usable.sum())
        return usable


def hmm_m_step(hmm, accs, options, floor, place=("rescue",), warn=True):
    """Return the Hmm that maximises the expected log-likelihood given ``accs``.

    pi = sum gamma_1 / U; a_ij = sum xi_ij / (sum_j sum xi_ij), with the ending "prob" over that plus sum
    gamma_T(i), whose share is the exit probability. Zeros stay zero. States that were never visited keep
    their parameters, with a warning. Mixtures as in voxark.gmm.em.m_step with variances of at least ``floor``
    (D,). ``options`` has the fields of TrainingOptions; ``place`` seeds the random numbers of --rescue.
    """
    if accs.num_utterances == 0:
        raise VoxarkError("no utterance has a path through the model: there is nothing to train on")
    pdfs, emissions = [], Emissions(hmm.pdfs, accs.gauss.offset)
    counts = np.add.reduceat(accs.gauss.n, emissions.starts)
    for i, (pdf, start, size) in enumerate(zip(hmm.pdfs, emissions.starts, emissions.sizes)):
        rows = slice(start, start + size)
        part = DiagAccs(accs.gauss.offset, accs.gauss.n[rows], accs.gauss.f[rows], accs.gauss.s[rows])
        rng = seeded_rng(options.srand, *place, i)
        pdfs.append(m_step(pdf, part, options, floor, rng) if counts[i] > UNVISITED else pdf)
    unvisited = np.flatnonzero(counts[hmm.pdf_of] <= UNVISITED)
    if warn and len(unvisited):
        listed = ", ".join(map(str, unvisited[:10])) + (" and more" if len(unvisited) > 10 else "")
        logger.warning("%d of %d states were never visited and keep their parameters: %s", len(unvisited),
                       hmm.num_states, listed)
    updated = replace(hmm, pdfs=tuple(pdfs))
    return _with_transitions(updated, accs) if options.update_transitions else updated


def _with_transitions(hmm, accs):
    """The HMM with initial, transition and (ending "prob") exit probabilities re-estimated."""
    sums = np.where(hmm.transitions > 0, accs.transitions, 0.0)
    ends = np.where(hmm.final > 0, accs.final, 0.0) if hmm.ending == "prob" else np.zeros_like(hmm.final)
    total = sums.sum(axis=1) + ends
    seen = total > UNVISITED
    safe = np.where(seen, total, 1.0)
    transitions = np.where(seen[:, None], sums / safe[:, None], hmm.transitions)
    final = np.where(seen, ends / safe, hmm.final) if hmm.ending == "prob" else hmm.final
    return Hmm(accs.initial / accs.initial.sum(), transitions, final, hmm.pdfs, hmm.pdf_of, hmm.ending)
