"""Calibration by pool adjacent violators: the monotone map from score to LLR that fits labelled trials best.

Equal scores are pooled first, then neighbours out of order; a block with weights T_b of targets and N_b of
non-targets has LLR ln(T_b/N_b) - ln(T/N). So that no LLR is infinite, pseudo-trials, a target and a
non-target, stand below the lowest and above the highest score (Laplace's rule of succession), as if there
were one more of either at each end. The map does not depend on any prior.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.calibration.logistic import trial_weights


class PavMap(NamedTuple):
    """The map: LLRs (K,), rising, at the scores (K,), which rise strictly: both ends of each block.

    Between two blocks the LLR goes in a straight line from one to the other; beyond the first and the last
    score it stays what it is there.
    """

    scores: np.ndarray
    llrs: np.ndarray

    def apply(self, scores):
        """LLRs of scores of any shape; infinite scores have the LLR of their end."""
        return np.interp(scores, self.scores, self.llrs)


def fit_pav(scores, target, weights=None, pseudo_trials=1.0):
    """Train a PavMap on scores (N,), target (N,) bool; weights (N,) >= 0 or None.

    ``pseudo_trials``: how many targets and non-targets, of mean weight, are added at each end; positive.
    Where all scores are equal, or point the wrong way, they say nothing, and every LLR is 0.
    VoxarkError: scores that are not finite, a class that is empty or has no weight.
    """
    if not np.isfinite(scores).all():
        raise VoxarkError("PAV needs finite scores to train on")
    if not (pseudo_trials > 0 and np.isfinite(pseudo_trials)):
        raise VoxarkError(f"{pseudo_trials:g} pseudo-trials: a positive number is needed to keep LLRs finite")
    trial_weights(target, 0.5, weights)  # for its checks
    weights = np.ones(len(scores)) if weights is None else weights
    if not weights.all():  # what has no weight is no trial
        scores, target, weights = scores[weights > 0], target[weights > 0], weights[weights > 0]
    values, group = np.unique(scores, return_inverse=True)
    shares = []
    for chosen in (target, ~target):
        sums, number = np.bincount(group, weights * chosen, len(values)), np.count_nonzero(chosen)
        end = [pseudo_trials * sums.sum() / number]
        shares.append(np.concatenate((end, sums, end)) / sums.sum())
    return _knots(values, *_pool(*shares))


def _pool(targets, nontargets):
    """Pool shares (G,) of both classes by rising score: first group of each block and G (B+1,), LLRs (B,)."""
    from scipy.optimize import isotonic_regression

    both = targets + nontargets
    first = isotonic_regression(targets / both, weights=both).blocks
    target_share = np.add.reduceat(targets, first[:-1])
    nontarget_share = np.add.reduceat(nontargets, first[:-1])
    return first, np.log(target_share) - np.log(nontarget_share)


def _knots(values, first, llrs):
    """The PavMap of blocks: group g + 1 is the distinct score values[g], first and last group are pseudo."""
    low = np.maximum(first[:-1] - 1, 0)
    high = np.minimum(first[1:] - 2, len(values) - 1)
    real = low <= high  # a pseudo-trial may be a block of its own
    low, high, llrs = values[low[real]], values[high[real]], llrs[real]
    if len(llrs) == 1:  # all trials: whatever the pseudo-trials made of it
        llrs = np.zeros(1)
    scores = np.stack((low, high), axis=1).ravel()
    llrs = np.maximum.accumulate(np.repeat(llrs, 2))  # rounding must not break what the pooling made rise
    distinct = np.append(True, scores[1:] > scores[:-1])
    return PavMap(scores[distinct], llrs[distinct])
