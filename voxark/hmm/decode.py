"""Alignment and scores of utterances under an HMM, batch by batch, in the order they come."""

import numpy as np

from voxark.hmm.batches import Usable, batches
from voxark.hmm.em import NO_PATH, HmmEStep
from voxark.hmm.forward_backward import forward_backward
from voxark.hmm.viterbi import viterbi


def _split(values, lengths):
    return np.split(values, np.cumsum(lengths)[:-1])


def _decode(hmm, features, fail, compute):
    """Yield (key, score, frames' values) where there is a path; fail(key, reason) hears of others."""
    offset = np.mean([pdf.mean() for pdf in hmm.pdfs], axis=0)
    step = HmmEStep(hmm, offset)
    usable = Usable(features, fail, hmm.dim, hmm.shortest_path)
    for batch in batches(usable, hmm.num_states):
        scores, values = compute(hmm, step.state_log_likelihoods(batch.x), batch.lengths)
        for key, score, value in zip(batch.keys, scores.tolist(), _split(values, batch.lengths)):
            if np.isfinite(score):
                yield key, score, value
            else:
                usable.drop(key, NO_PATH)


def align(hmm, features, fail):
    """Yield (key, ln p(X,z) of the best path z, z (T,) int32) for (key, x (T,D)) pairs, in their order."""
    return _decode(hmm, features, fail, viterbi)


def score(hmm, features, fail):
    """Yield (key, ln p(X), gamma (T,S) float64) for (key, x (T,D)) pairs, in their order."""
    return _decode(hmm, features, fail, lambda *arguments: forward_backward(*arguments)[:2])
