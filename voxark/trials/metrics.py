"""Error rates and costs of detection scores: EER, DCF, Cllr and their minima, exact with ties.

A trial is accepted when its score s >= t. Thresholds lie between distinct scores, or at the ends, so tied
scores move together and (Pmiss, Pfa) runs from (0,1) to (1,0). Both classes are sorted once; everything else
is read off the counts, in O(N) memory.

A threshold between a target score and the next lower one only gains by rising to the target score, so minima
and the convex hull need the operating points at the distinct target scores alone, and the end (1,0).
"""

from functools import cached_property

import numpy as np

from voxark.errors import VoxarkError


def _sorted_scores(scores, what):
    scores = np.sort(np.asarray(scores, np.float64).ravel())
    if len(scores) == 0:
        raise VoxarkError(f"no {what} trials: error rates need both classes")
    num_nan = int(np.isnan(scores).sum())
    if num_nan:
        raise VoxarkError(f"{num_nan} of {len(scores)} {what} scores are NaN")
    return scores


def check_cost(p_target, c_miss, c_fa):
    """Raise VoxarkError unless 0 < p_target < 1 and both costs are positive and finite."""
    if not 0.0 < p_target < 1.0:
        raise VoxarkError(f"--p-target={p_target:g}: a probability between 0 and 1 is expected")
    for name, cost in (("c-miss", c_miss), ("c-fa", c_fa)):
        if not (cost > 0.0 and np.isfinite(cost)):
            raise VoxarkError(f"--{name}={cost:g}: a positive cost is expected")


class Roc:
    """The operating points of target and non-target scores (any shape, infinities allowed, NaN refused).

    ``target``, ``nontarget``: the scores, sorted; ``misses``, ``false_alarms`` (K,) integers: the counts at
    thresholds t = -inf, each distinct target score, and beyond the largest score.
    """

    def __init__(self, target, nontarget):
        self.target = _sorted_scores(target, "target")
        self.nontarget = _sorted_scores(nontarget, "nontarget")
        first = np.flatnonzero(np.concatenate(([True], self.target[1:] != self.target[:-1])))
        self._thresholds = self.target[first]
        below = np.searchsorted(self.nontarget, self._thresholds, side="left")
        num_target, num_nontarget = len(self.target), len(self.nontarget)
        self.misses = np.concatenate(([0], first, [num_target]))
        self.false_alarms = np.concatenate(([num_nontarget], num_nontarget - below, [0]))

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
        before, after, threshold = self._crossing()
        if method == "interp":
            return _equal_error(*before, *after), threshold
        if method == "rocch":
            misses, false_alarms = self._hull[0] / len(self.target), self._hull[1] / len(self.nontarget)
            place = max(1, int(np.argmax(misses >= false_alarms)))
            return (
                _equal_error(misses[place - 1], false_alarms[place - 1], misses[place], false_alarms[place]),
                threshold,
            )
        raise VoxarkError(f"unknown method {method!r} of the equal error rate: rocch, interp or kaldi")

    def _rates(self, score, side):
        """(Pmiss, Pfa) with the threshold just below (side "left") or just above ("right") a score."""
        num_nontarget = len(self.nontarget)
        return (
            np.searchsorted(self.target, score, side) / len(self.target),
            (num_nontarget - np.searchsorted(self.nontarget, score, side)) / num_nontarget,
        )

    def _crossing(self):
        """The points of the ROC on both sides of Pmiss = Pfa, and the threshold of the nearer one.

        They are the rates before and after rejecting the smallest score with which Pmiss >= Pfa.
        """

        def crossed(score):
            p_miss, p_fa = self._rates(score, "right")
            return p_miss >= p_fa

        value = min(
            scores[place]
            for scores in (self.target, self.nontarget)
            if (place := _first_true(lambda p, s=scores: crossed(s[p]), len(scores))) < len(scores)
        )
        before, after = self._rates(value, "left"), self._rates(value, "right")
        if abs(after[0] - after[1]) < abs(before[0] - before[1]):
            threshold = self._midpoint(value, self._neighbour(value, +1))
        else:
            threshold = self._midpoint(self._neighbour(value, -1), value)
        return before, after, float(threshold)

    def _neighbour(self, value, direction):
        """The next distinct score above (+1) or below (-1) a value, of either class; infinite if none."""
        found = [direction * np.inf]
        for scores in (self.target, self.nontarget):
            above = np.searchsorted(scores, value, "right")
            place = above if direction > 0 else np.searchsorted(scores, value, "left") - 1
            if 0 <= place < len(scores):
                found.append(scores[place])
        return min(found) if direction > 0 else max(found)

    @staticmethod
    def _midpoint(low, high):
        """A threshold t with low < t <= high: halfway where that is a number, else ``high``."""
        middle = 0.5 * low + 0.5 * high if np.isfinite(low) and np.isfinite(high) else high
        return middle if low < middle else high

    def _kaldi_eer(self):
        num_target, num_nontarget = len(self.target), len(self.nontarget)

        def stops(position):
            allowed = int(num_nontarget * position * 1.0 / num_target)
            return self.nontarget[max(0, num_nontarget - 1 - allowed)] < self.target[position]

        position = min(_first_true(stops, num_target), num_target - 1)
        return position / num_target, float(self.target[position])

    # ---------------------------------------------------------------------------------------- detection costs

    def dcf(self, threshold, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Detection cost at a threshold over that of the better of accepting and rejecting everything."""
        p_miss, p_fa = self._rates(threshold, "left")
        return float(_cost(p_miss, p_fa, p_target, c_miss, c_fa))

    def min_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Smallest normalised detection cost, at most 1, and its threshold: (dcf, threshold).

        The threshold is inf where rejecting everything is best, infinite scores included.
        """
        check_cost(p_target, c_miss, c_fa)
        costs = _cost(
            self.misses / len(self.target), self.false_alarms / len(self.nontarget), p_target, c_miss, c_fa
        )
        best = int(np.argmin(costs))
        if best == 0:
            return float(costs[0]), -np.inf
        if best == len(costs) - 1:
            return float(costs[-1]), np.inf
        score = self._thresholds[best - 1]
        if score == np.inf:  # inf as a threshold rejects everything: the largest number accepts the infinite scores
            return float(costs[best]), float(max(np.finfo(np.float64).max, self._neighbour(score, -1)))
        return float(costs[best]), float(self._midpoint(self._neighbour(score, -1), score))

    def act_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """Normalised detection cost of LLRs, at the Bayes threshold ln(C_fa (1-P)/(C_miss P))."""
        check_cost(p_target, c_miss, c_fa)
        return self.dcf(np.log(c_fa * (1.0 - p_target) / (c_miss * p_target)), p_target, c_miss, c_fa)

    # ------------------------------------------------------------------------------------------ information

    def cllr(self):
        """Cllr in bits: (mean over targets of log2(1+e^-s) + mean over non-targets of log2(1+e^s)) / 2."""
        return float(
            0.5
            * (np.logaddexp(0.0, -self.target).mean() + np.logaddexp(0.0, self.nontarget).mean())
            / np.log(2.0)
        )

    def min_cllr(self):
        """Cllr after the best monotone calibration (PAV), whose blocks are the edges of the convex hull."""
        targets, nontargets = self._pav_blocks()
        p_target, p_nontarget = targets / len(self.target), nontargets / len(self.nontarget)
        mixed = (targets > 0) & (nontargets > 0)  # others have an infinite LLR of the right sign: no cost
        p, q = p_target[mixed], p_nontarget[mixed]
        return float(0.5 * (p * np.log2(1.0 + q / p) + q * np.log2(1.0 + p / q)).sum())

    def pav_llrs(self):
        """Optimally calibrated LLR of each block of pooled scores: (llr, targets, nontargets), each (B,).

        llr = ln(T_b/N_b) - ln(T/N), -inf and +inf allowed at the ends; blocks ascend in score.
        """
        targets, nontargets = self._pav_blocks()
        with np.errstate(divide="ignore"):
            llr = np.log(targets / len(self.target)) - np.log(nontargets / len(self.nontarget))
        return llr, targets, nontargets

    def _pav_blocks(self):
        misses, false_alarms = self._hull
        return np.diff(misses), -np.diff(false_alarms)

    @cached_property
    def _hull(self):
        """Vertices (misses, false_alarms), integers, of the ROC's convex hull from (0, all) to (all, 0)."""
        return lower_hull(self.misses, self.false_alarms)

    def hull(self):
        """The convex hull of the ROC: (Pmiss, Pfa), each (H,), from (0,1) to (1,0)."""
        return self._hull[0] / len(self.target), self._hull[1] / len(self.nontarget)

    def auc(self):
        """Probability that a target scores above a non-target, ties counting half: the area under the ROC."""
        below = np.searchsorted(self.nontarget, self.target, "left").sum(dtype=np.float64)
        not_above = np.searchsorted(self.nontarget, self.target, "right").sum(dtype=np.float64)
        return float(0.5 * (below + not_above) / len(self.target) / len(self.nontarget))


def _cost(p_miss, p_fa, p_target, c_miss, c_fa):
    miss_weight, fa_weight = p_target * c_miss, (1.0 - p_target) * c_fa
    return (miss_weight * p_miss + fa_weight * p_fa) / min(miss_weight, fa_weight)


def _first_true(predicate, number):
    """The smallest p < number with predicate(p), which must be monotone; ``number`` if there is none."""
    low, high = 0, number
    while low < high:
        middle = (low + high) // 2
        if predicate(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _equal_error(miss_a, fa_a, miss_b, fa_b):
    """Where the line from point a (Pmiss < Pfa) to point b (Pmiss >= Pfa) meets Pmiss = Pfa."""
    gap_a, gap_b = miss_a - fa_a, miss_b - fa_b
    return float(miss_a + (miss_b - miss_a) * gap_a / (gap_a - gap_b))


def lower_hull(x, y):
    """Vertices of the lower left convex hull of integer points with x rising and y falling (weakly): (x, y).

    A point on or above the line between its neighbours is no vertex, so all such points can go at once;
    passes that remove little are left to the classical scan. Exact for counts up to 2^31.
    """
    x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
    distinct = np.concatenate(([True], (np.diff(x) != 0) | (np.diff(y) != 0)))
    x, y = x[distinct], y[distinct]
    while len(x) > 2:
        dx, dy = np.diff(x), np.diff(y)
        convex = dx[:-1] * dy[1:] - dy[:-1] * dx[1:] > 0
        if convex.all():
            break
        keep = np.concatenate(([True], convex, [True]))
        x, y = x[keep], y[keep]
        if len(x) > 0.9 * len(keep):
            return _scan_hull(x.tolist(), y.tolist())
    return x, y


def _scan_hull(x, y):
    """Andrew's monotone chain over what the passes of :func:`lower_hull` left."""
    hull = []
    for px, py in zip(x, y):
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2], hull[-1]
            if (bx - ax) * (py - by) - (by - ay) * (px - bx) > 0:
                break
            hull.pop()
        hull.append((px, py))
    return np.array([p[0] for p in hull]), np.array([p[1] for p in hull])
