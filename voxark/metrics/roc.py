"""The receiver operating characteristic of scores in memory, with weights or without, exact with ties.

Both classes are sorted once; everything else is read off the counts, in O(N) memory. A threshold between a
target score and the next lower one only gains by rising to the target score, so minima and the convex hull
need the operating points at the distinct target scores alone, and the end (1,0).
"""

from functools import cached_property

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics.hull import hull_vertices
from voxark.metrics.measures import Hull, Measures, first_true
from voxark.metrics.narrowing import near_crossing

_BLOCK = 1 << 17  # target scores whose operating points are held at a time
_NARROW_FROM = 1 << 20  # scores from which on it pays to look for the crossing before sorting
_CHUNK = 1 << 14  # scores whose logarithms stay in cache


class SortedScores:
    """Ascending scores of one class, sorted when first asked for, and the order that sorts them."""

    def __init__(self, scores, what):
        self.given, self.what = as_scores(scores, what), what

    def __len__(self):
        return len(self.given)

    @cached_property
    def order(self):
        """(N,) places of the scores in the order given, ascending in score; tied scores keep their order."""
        return np.argsort(self.given, kind="stable")

    @cached_property
    def scores(self):
        """(N,) scores, ascending."""
        return self.given[self.order] if "order" in self.__dict__ else np.sort(self.given)

    def place(self, score, side):
        """The number of scores below a number ("left"), or not above it ("right")."""
        return int(np.searchsorted(self.scores, to_precision(score, self.scores.dtype, side), side))


def as_scores(scores, what):
    """Scores as a flat array, float32 if they are that and float64 otherwise; none, or NaN, is an error."""
    scores = np.asarray(scores)
    scores = scores.ravel() if scores.dtype == np.float32 else scores.ravel().astype(np.float64, copy=False)
    if len(scores) == 0:
        raise VoxarkError(f"no {what} trials: error rates need both classes")
    if np.isnan(scores.min()):
        raise VoxarkError(f"{int(np.isnan(scores).sum())} of {len(scores)} {what} scores are NaN")
    return scores


def to_precision(score, dtype, side):
    """A number of the type that has the same scores of that type below it (or not above it) as ``score``."""
    if dtype == np.float64:
        return score
    with np.errstate(over="ignore"):
        rounded = np.float32(score)
    if side == "left" and float(rounded) < score:
        return np.nextafter(rounded, np.float32(np.inf))
    if side == "right" and float(rounded) > score:
        return np.nextafter(rounded, np.float32(-np.inf))
    return rounded


class Roc(Measures):
    """The operating points of target and non-target scores (any shape, infinities allowed, NaN refused).

    ``target_weights``, ``nontarget_weights``: of the trials, in the order of the scores, not negative; all 1
    if not given. Pmiss and Pfa are weighted fractions: an integer weight is that many trials, a weight of
    zero no trial. ``target``, ``nontarget``: the scores, sorted when first needed; until then the arrays
    given must not change.
    """

    def __init__(self, target, nontarget, target_weights=None, nontarget_weights=None):
        self._start(SortedScores(target, "target"), SortedScores(nontarget, "nontarget"), {})
        self._weigh(target_weights, nontarget_weights)

    def reweighted(self, target_weights, nontarget_weights):
        """The Roc of the same trials with other weights, in the order of the scores given.

        Nothing is sorted again, which bootstrap and jackknife replicates need. None stands for weights of 1.
        """
        other = object.__new__(Roc)
        other._start(self._target, self._nontarget, self._shared)
        other._weigh(target_weights, nontarget_weights)
        return other

    def given_scores(self):
        """(target, nontarget) scores in the order given, that of the weights of :meth:`reweighted`."""
        return self._target.given, self._nontarget.given

    def _start(self, target, nontarget, shared):
        self._target, self._nontarget, self._shared = target, nontarget, shared

    def _weigh(self, target_weights, nontarget_weights):
        """``_weights``: sorted weights of either class; ``_sums``: their sums from the side of its errors."""
        self._weights, sums = [], []
        for side, weights in ((self._target, target_weights), (self._nontarget, nontarget_weights)):
            self._weights.append(None if weights is None else _checked_weights(weights, side)[side.order])
        for weights, from_end in zip(self._weights, (False, True)):
            sums.append(None if weights is None else _running_sums(weights, from_end))
        self._sums = sums
        self._totals = (
            len(self._target) if sums[0] is None else sums[0][-1].item(),
            len(self._nontarget) if sums[1] is None else sums[1][0].item(),
        )

    @property
    def _is_weighted(self):
        return any(weights is not None for weights in self._weights)

    @property
    def target(self):
        """Target scores, ascending."""
        return self._target.scores

    @property
    def nontarget(self):
        """Non-target scores, ascending."""
        return self._nontarget.scores

    @cached_property
    def num_target(self):
        """The number of target trials of positive weight."""
        return len(self._target) if self._weights[0] is None else int(np.count_nonzero(self._weights[0]))

    @cached_property
    def num_nontarget(self):
        """The number of non-target trials of positive weight."""
        return len(self._nontarget) if self._weights[1] is None else int(np.count_nonzero(self._weights[1]))

    # ----------------------------------------------------------------------------------- errors at thresholds

    def _misses_before(self, places):
        return places if self._sums[0] is None else self._sums[0][places]

    def _false_alarms_from(self, places):
        return len(self._nontarget) - places if self._sums[1] is None else self._sums[1][places]

    def _errors(self, score, side):
        return (
            self._misses_before(self._target.place(score, side)),
            self._false_alarms_from(self._nontarget.place(score, side)),
        )

    def _num_errors(self, score):
        below, above = self._target.place(score, "left"), self._nontarget.place(score, "left")
        misses = below if self._weights[0] is None else int(np.count_nonzero(self._weights[0][:below]))
        if self._weights[1] is None:
            return misses, len(self._nontarget) - above
        return misses, int(np.count_nonzero(self._weights[1][above:]))

    def _neighbour(self, value, direction):
        """The next distinct score above (+1) or below (-1) a value, of either class; infinite if none."""
        found = [direction * np.inf]
        for number, side in enumerate((self._target, self._nontarget)):
            place = side.place(value, "right" if direction > 0 else "left")
            place = self._next_place(number, place, direction)
            if 0 <= place < len(side):
                found.append(side.scores[place].item())
        return min(found) if direction > 0 else max(found)

    def _next_place(self, number, place, direction):
        """The place of the first trial of positive weight from a place on, or of the last one before it."""
        weights = self._weights[number]
        if direction > 0:
            while weights is not None and place < len(weights) and weights[place] == 0:
                place += 1
            return place
        place -= 1
        while weights is not None and place >= 0 and weights[place] == 0:
            place -= 1
        return place

    # -------------------------------------------------------------------------------------- operating points

    def _blocks(self):
        """(first, below) of blocks of targets: places of the distinct scores, and nontargets below each."""
        if "blocks" in self._shared:
            return self._shared["blocks"]
        if len(self._target) > _BLOCK:
            return self._new_blocks()
        return self._shared.setdefault("blocks", list(self._new_blocks()))

    def _new_blocks(self):
        target, nontarget = self.target, self.nontarget
        for start in range(0, len(target), _BLOCK):
            block = target[start : start + _BLOCK]
            new = np.ones(len(block), bool)
            np.not_equal(block[1:], block[:-1], out=new[1:])
            new[0] = start == 0 or block[0] != target[start - 1]
            first = np.flatnonzero(new)
            low, high = np.searchsorted(nontarget, block[[0, -1]], "left")
            yield first + start, low + np.searchsorted(nontarget[low:high], block[first], "left")

    def points(self):
        """Operating points at the distinct target scores, in blocks of (misses, false alarms, score) (K,).

        Scores ascend; the threshold of a point accepts the score and rejects what lies below it.
        """
        for first, below in self._blocks():
            misses = self._misses_before(first)
            if self._weights[0] is not None:  # targets of no weight are absent
                present = np.append(misses[1:], self._misses_through(first)) > misses
                first, below, misses = first[present], below[present], misses[present]
            yield misses, self._false_alarms_from(below), self.target[first]

    def _misses_through(self, first):
        """What has been missed when the last distinct score of a block is rejected too."""
        last = self._target.place(self.target[first[-1]], "right") if len(first) else 0
        return self._misses_before(last)

    @cached_property
    def _nearby(self):
        """The scores near the crossing, where that saves sorting all; None otherwise."""
        few = len(self._target) + len(self._nontarget) < _NARROW_FROM
        if few or self._is_weighted or "scores" in self._nontarget.__dict__:
            return None
        return near_crossing(self._target.given, self._nontarget.given)

    def eer(self, method="rocch"):
        if method in ("rocch", "interp") and self._nearby is not None:
            return self._nearby.eer(method)
        return super().eer(method)

    eer.__doc__ = Measures.eer.__doc__

    @cached_property
    def _hull(self):
        return merged_hull(self.points(), *self._totals)

    def _crossing_score(self):
        target, nontarget = self.target, self.nontarget
        place = first_true(lambda p: self._crossed(target[p]), 0, len(target))
        low = 0 if place == 0 else self._nontarget.place(target[place - 1], "right")
        high = len(nontarget) if place == len(target) else self._nontarget.place(target[place], "left")
        other = first_true(lambda p: self._crossed(nontarget[p]), low, high)
        return float(nontarget[other] if other < high else target[place])

    def _kaldi_eer(self):
        if self._is_weighted:
            raise VoxarkError("Kaldi's equal error rate knows no weights: choose rocch or interp")
        target, nontarget = self.target, self.nontarget
        num_target, num_nontarget = len(target), len(nontarget)

        def stops(position):
            allowed = int(num_nontarget * position * 1.0 / num_target)
            return nontarget[max(0, num_nontarget - 1 - allowed)] < target[position]

        position = min(first_true(stops, 0, num_target), num_target - 1)
        return position / num_target, float(target[position])

    # ------------------------------------------------------------------------------------------------- sums

    def _log_costs(self, offset):
        return self._log_cost(0, offset), self._log_cost(1, offset)

    def _log_cost(self, number, offset):
        """The cost of one class; replicates of the same scores share that of each trial."""
        side, sign, weights = (self._target, self._nontarget)[number], (-1, +1)[number], self._weights[number]
        if weights is None or offset != 0.0 or len(side) > _NARROW_FROM:
            return sum_softplus(side.scores, sign, offset, weights)
        if ("costs", number) not in self._shared:
            costs = softplus(sign * side.scores.astype(np.float64))
            self._shared["costs", number] = costs, bool(np.isinf(costs).any())
        costs, some_infinite = self._shared["costs", number]
        if some_infinite:  # what has no weight is absent, an infinite cost too
            costs = np.where(weights > 0, costs, 0.0)
        return float(weights.astype(np.float64, copy=False) @ costs)

    def _pairs_in_order(self):
        total = 0.0
        for start in range(0, len(self._target), _BLOCK):
            block = self.target[start : start + _BLOCK]
            places = [np.searchsorted(self.nontarget, block, side) for side in ("left", "right")]
            at_or_above, above = map(self._false_alarms_from, places)
            below = self._totals[1] - 0.5 * (at_or_above + above)
            weights = self._weights[0]
            total += below.sum() if weights is None else below @ weights[start : start + _BLOCK]
        return total


def distinct_places(scores):
    """Places of the first of each run of equal scores in a sorted array."""
    if len(scores) == 0:
        return np.empty(0, np.int64)
    return np.append(0, np.flatnonzero(scores[1:] != scores[:-1]) + 1)


def merged_hull(blocks, num_target, num_nontarget):
    """The Hull of operating points that come in ascending blocks: (misses, false alarms, score), each (K,).

    Vertices of the whole are vertices of their block, so that only those of the blocks are kept.
    """
    chosen = [[np.array([value])] for value in (0, num_nontarget, -np.inf)]
    for block in blocks:
        place = hull_vertices(block[0], block[1])
        for kept, values in zip(chosen, block):
            kept.append(values[place])
    for kept, value in zip(chosen, (num_target, 0, np.inf)):
        kept.append(np.array([value]))
    misses, false_alarms, scores = map(np.concatenate, chosen)
    place = hull_vertices(misses, false_alarms)
    return Hull(misses[place], false_alarms[place], scores[place])


def softplus(x):
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), in place of x."""
    tail = np.abs(x)
    np.negative(tail, out=tail)
    np.log1p(np.exp(tail, out=tail), out=tail)
    np.maximum(x, 0.0, out=x)
    x += tail
    return x


def sum_softplus(scores, sign, offset, weights=None):
    """Sum of w ln(1 + e^(sign (s + offset))), by chunks."""
    total = 0.0
    for start in range(0, len(scores), _CHUNK):
        costs = softplus(sign * (scores[start : start + _CHUNK].astype(np.float64) + offset))
        if weights is not None:  # what has no weight is absent, an infinite cost too
            of_chunk = weights[start : start + _CHUNK]
            costs = np.where(of_chunk > 0, costs, 0.0) * of_chunk
        total += costs.sum()
    return total


def _checked_weights(weights, side):
    """Weights (N,) as int64 where they are whole numbers, which sums keep exact, else float64."""
    weights = np.asarray(weights).ravel()
    if len(weights) != len(side):
        raise VoxarkError(f"{len(weights)} weights for {len(side)} {side.what} scores")
    if weights.dtype.kind not in "iub":
        weights = weights.astype(np.float64, copy=False)
        num_bad = int(np.sum(~np.isfinite(weights)))
        if num_bad:
            raise VoxarkError(f"{num_bad} of {len(weights)} {side.what} weights are infinite or NaN")
        # beyond these limits products of sums would leave int64
        if weights.sum() < 2.0**31 and (weights == np.floor(weights)).all():
            weights = weights.astype(np.int64)
    elif weights.dtype != np.int64:
        weights = weights.astype(np.int64)
    if weights.dtype == np.int64 and weights.sum() >= 2**31:
        weights = weights.astype(np.float64)
    if weights.min() < 0:
        raise VoxarkError(
            f"{int(np.sum(weights < 0))} of {len(weights)} {side.what} weights are negative: "
            "error rates would not be monotone in the threshold (clip the weights at zero)"
        )
    if weights.max() == 0:
        raise VoxarkError(f"all {side.what} weights are zero: error rates need both classes")
    return weights


def _running_sums(weights, from_end):
    """(N+1,) sums of the weights before each place, or from each place on; of floats with little rounding.

    Floats are summed by rows of a table, so that an error grows with the length of a row, not of the list.
    """
    sums = np.zeros(len(weights) + 1, weights.dtype)
    inner = sums[:-1][::-1] if from_end else sums[1:]
    weights = weights[::-1] if from_end else weights
    if weights.dtype == np.int64 or len(weights) < 1024:
        np.cumsum(weights, out=inner)
        return sums
    length = int(np.sqrt(len(weights)))
    whole = len(weights) // length * length
    rows = np.cumsum(weights[:whole].reshape(-1, length), axis=1)
    ends = np.cumsum(rows[:, -1])
    rows[1:] += ends[:-1, None]
    inner[:whole] = rows.ravel()
    inner[whole:] = ends[-1] + np.cumsum(weights[whole:])
    return sums
