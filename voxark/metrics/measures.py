"""Measures of detection scores, in terms of counts or weights of errors: EER, DCF, Cllr and their minima.

A trial is accepted when its score s >= t. Thresholds lie between distinct scores, or at the ends, so tied
scores move together and (Pmiss, Pfa) runs from (0,1) to (1,0). What a class of this interface must give is
listed in :class:`Measures`; scores in memory (roc.py) and scores in a file (selection.py) do.
"""

import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics.operating_points import OperatingPoint, check_cost

RULE_OF_30 = 30


class Hull(NamedTuple):
    """Vertices of the ROC's convex hull, from accepting everything to rejecting everything.

    ``misses``, ``false_alarms`` (H,): what the threshold rejects of the targets and accepts of the
    nontargets; ``scores`` (H,): the smallest accepted target score; -inf and +inf at the ends.
    """

    misses: np.ndarray
    false_alarms: np.ndarray
    scores: np.ndarray


class Crossing(NamedTuple):
    """Where the ROC crosses Pmiss = Pfa: the rates before and after rejecting the score that crosses it."""

    before: tuple
    after: tuple
    threshold: float


class ErrorCounts(NamedTuple):
    """Numbers of trials in error at a threshold; ``enough``: both are at least 30 (Doddington's rule)."""

    misses: int
    false_alarms: int
    enough: bool


class Measures:
    """What follows from the counts of misses and false alarms at every threshold.

    A subclass gives ``num_target``, ``num_nontarget`` (trials), ``_totals`` (weights of the classes, integers
    where trials are counted), ``_hull``, ``_errors(score, side)`` (misses, false alarms with the
    threshold just below ("left") or above ("right") a score), ``_num_errors(score)`` (numbers of trials),
    ``_neighbour(score, direction)``, ``_log_costs(offset)`` (sums of ln(1+e^-(s+offset)) over targets and
    ln(1+e^(s+offset)) over nontargets), ``_pairs_in_order()`` (target above nontarget, ties half) and
    ``_kaldi_eer()``.
    """

    # --------------------------------------------------------------------------------------- equal error rate

    def eer(self, method="rocch"):
        """Equal error rate, 0 to 1, and a threshold: (eer, threshold).

        "rocch": where the convex hull of the ROC meets Pmiss = Pfa. "interp": where the ROC's points, joined
        by straight lines, meet it. The threshold is, for both, the one at which |Pmiss - Pfa| is smallest.
        "kaldi": compute-eer's value [K], a multiple of 1/#targets, biased for small sets and odd with ties;
        its threshold is a target score.
        """
        if method == "kaldi":
            return self._kaldi_eer()
        if method == "interp":
            return _equal_error(*self._crossing.before, *self._crossing.after), self._crossing.threshold
        if method == "rocch":
            return self._hull_eer(), self._crossing.threshold
        raise VoxarkError(f"unknown method {method!r} of the equal error rate: rocch, interp or kaldi")

    def _hull_eer(self):
        return hull_equal_error(*self.hull())

    @cached_property
    def _crossing(self):
        """Where the ROC crosses Pmiss = Pfa: at the smallest score with whose rejection Pmiss >= Pfa."""
        value = self._crossing_score()
        before, after = self._rates(value, "left"), self._rates(value, "right")
        if abs(after[0] - after[1]) < abs(before[0] - before[1]):
            threshold = midpoint(value, self._neighbour(value, +1))
        else:
            threshold = midpoint(self._neighbour(value, -1), value)
        return Crossing(before, after, threshold)

    def _crossing_score(self):
        return first_score(self._crossed)

    def _crossed(self, score):
        p_miss, p_fa = self._rates(score, "right")
        return p_miss >= p_fa

    def _rates(self, score, side):
        misses, false_alarms = self._errors(score, side)
        return misses / self._totals[0], false_alarms / self._totals[1]

    # ---------------------------------------------------------------------------------------- detection costs

    def error_rates(self, threshold):
        """(Pmiss, Pfa) at a threshold: of targets below it, and of nontargets not below it."""
        return self._rates(threshold, "left")

    def dcf(self, threshold, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Detection cost at a threshold over that of the better of accepting and rejecting everything."""
        return float(normalised_cost(*self.error_rates(threshold), p_target, c_miss, c_fa))

    def min_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Smallest normalised detection cost, at most 1, and its threshold: (dcf, threshold).

        The threshold is inf where rejecting everything is best, infinite scores included.
        """
        check_cost(p_target, c_miss, c_fa)
        costs = normalised_cost(*self.hull(), p_target, c_miss, c_fa)
        best = int(np.argmin(costs))
        if best == 0:
            return float(costs[0]), -np.inf
        if best == len(costs) - 1:
            return float(costs[-1]), np.inf
        score = self._hull.scores[best]
        below = self._neighbour(score, -1)
        if score == np.inf:  # which as a threshold rejects all: the largest number accepts infinite scores
            return float(costs[best]), float(max(np.finfo(np.float64).max, below))
        return float(costs[best]), midpoint(below, score)

    def act_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Normalised detection cost of LLRs, at the Bayes threshold ln(C_fa (1-P)/(C_miss P))."""
        check_cost(p_target, c_miss, c_fa)
        threshold = OperatingPoint("", p_target, c_miss, c_fa).threshold
        return self.dcf(threshold, p_target, c_miss, c_fa)

    def mean_min_dcf(self, points):
        """Mean of min_dcf over OperatingPoints, as evaluations that average several points report it."""
        return float(np.mean([self.min_dcf(*point.cost)[0] for point in points]))

    def mean_act_dcf(self, points):
        """Mean of act_dcf over OperatingPoints."""
        return float(np.mean([self.act_dcf(*point.cost) for point in points]))

    def rule_of_30(self, threshold):
        """ErrorCounts at a threshold, a number or an OperatingPoint (its Bayes threshold).

        With 30 errors the true rate is within 30 % of the measured one with 90 % confidence, if trials are
        independent (Doddington et al. 2000); with fewer, a measure that rests on them is not to be trusted.
        """
        misses, false_alarms = self._num_errors(getattr(threshold, "threshold", threshold))
        return ErrorCounts(misses, false_alarms, min(misses, false_alarms) >= RULE_OF_30)

    # ------------------------------------------------------------------------------------------ information

    def cllr(self):
        """Cllr in bits: (mean over targets of log2(1+e^-s) + mean over non-targets of log2(1+e^s)) / 2."""
        return self.ece(0.5)

    def ece(self, p_target):
        """Empirical cross-entropy in bits of LLRs at a prior; Cllr at 0.5.

        P mean_targets log2(1+e^-(s+logit P)) + (1-P) mean_nontargets log2(1+e^(s+logit P)) (Ramos 2007). Over
        :func:`prior_entropy` it is the normalised cross-entropy, 1 for scores that say nothing.
        """
        check_cost(p_target, 1.0, 1.0)
        targets, nontargets = self._log_costs(np.log(p_target) - np.log1p(-p_target))
        mean_target, mean_nontarget = targets / self._totals[0], nontargets / self._totals[1]
        return float((p_target * mean_target + (1.0 - p_target) * mean_nontarget) / np.log(2.0))

    def min_cllr(self):
        """Cllr after the best monotone calibration (PAV), whose blocks are the edges of the convex hull."""
        return self.min_ece(0.5)

    def min_ece(self, p_target):
        """Empirical cross-entropy at a prior after the best monotone calibration (PAV)."""
        check_cost(p_target, 1.0, 1.0)
        targets, nontargets = self._pav_blocks()
        mixed = (targets > 0) & (nontargets > 0)  # others have an infinite LLR of the right sign: no cost
        p = p_target * targets[mixed] / self._totals[0]
        q = (1.0 - p_target) * nontargets[mixed] / self._totals[1]
        return float((p * np.log2(1.0 + q / p) + q * np.log2(1.0 + p / q)).sum())

    def pav_llrs(self):
        """Optimally calibrated LLR of each block of pooled scores: (llr, targets, nontargets), each (B,).

        llr = ln(T_b/N_b) - ln(T/N), -inf and +inf allowed at the ends; blocks ascend in score.
        """
        targets, nontargets = self._pav_blocks()
        with np.errstate(divide="ignore"):
            llr = np.log(targets / self._totals[0]) - np.log(nontargets / self._totals[1])
        return llr, targets, nontargets

    def _pav_blocks(self):
        return np.diff(self._hull.misses), -np.diff(self._hull.false_alarms)

    def hull(self):
        """The convex hull of the ROC: (Pmiss, Pfa), each (H,), from (0,1) to (1,0)."""
        return self._hull.misses / self._totals[0], self._hull.false_alarms / self._totals[1]

    def auc(self):
        """Probability that a target scores above a non-target, ties counting half: the area under the ROC."""
        return float(self._pairs_in_order() / self._totals[0] / self._totals[1])


def prior_entropy(p_target):
    """Entropy in bits of the label at a prior: the cross-entropy of scores that are all zero."""
    return float(-(p_target * np.log2(p_target) + (1.0 - p_target) * np.log2(1.0 - p_target)))


def normalised_cost(p_miss, p_fa, p_target, c_miss, c_fa):
    """Detection cost over that of the better of accepting everything and rejecting everything."""
    miss_weight, fa_weight = p_target * c_miss, (1.0 - p_target) * c_fa
    return (miss_weight * p_miss + fa_weight * p_fa) / min(miss_weight, fa_weight)


def midpoint(low, high):
    """A threshold t with low < t <= high: halfway where that is a number, else ``high``."""
    low, high = float(low), float(high)
    middle = 0.5 * low + 0.5 * high if np.isfinite(low) and np.isfinite(high) else high
    return middle if low < middle else high


def hull_equal_error(p_miss, p_fa):
    """Where a descending chain of points from (0,1) to (1,0) meets Pmiss = Pfa."""
    place = max(1, int(np.argmax(p_miss >= p_fa)))
    return _equal_error(p_miss[place - 1], p_fa[place - 1], p_miss[place], p_fa[place])


def _equal_error(miss_a, fa_a, miss_b, fa_b):
    """Where the line from point a (Pmiss < Pfa) to point b (Pmiss >= Pfa) meets Pmiss = Pfa."""
    gap_a, gap_b = miss_a - fa_a, miss_b - fa_b
    return float(miss_a + (miss_b - miss_a) * gap_a / (gap_a - gap_b))


def first_true(predicate, low, high):
    """The smallest low <= p < high with predicate(p), which must be monotone; ``high`` if there is none."""
    while low < high:
        middle = (low + high) // 2
        if predicate(middle):
            high = middle
        else:
            low = middle + 1
    return low


def first_score(predicate):
    """The smallest float64 for which a predicate holds that is monotone and holds at infinity."""
    infinity = _as_ordered(np.inf)
    return _as_float(first_true(lambda number: predicate(_as_float(number)), -infinity, infinity))


def _as_ordered(number):
    """An integer for each float64, in the order of the numbers; 0 for both zeros."""
    bits = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits if bits >= 0 else -(bits & 0x7FFFFFFFFFFFFFFF)


def _as_float(ordered):
    """The float64 of :func:`_as_ordered`."""
    magnitude = struct.unpack("<d", struct.pack("<q", abs(ordered)))[0]
    return magnitude if ordered >= 0 else -magnitude
