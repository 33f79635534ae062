"""The equal error rate of many unsorted scores: only those near the crossing are sorted, provably enough.

A sample says between which scores to look. Exact counts at the edges of narrow bins then bound the ROC from
both sides: each bin's points lie in the box between its edges' rates. By these bounds a bin either cannot
hold an end of the hull's edge that meets Pmiss = Pfa, or its scores are looked at. What the sample proposes
is never trusted: if the bounds ask for scores outside, there is no answer here and all are to be sorted.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from voxark.metrics.hull import hull_vertices
from voxark.metrics.measures import Hull, Measures, first_score, hull_equal_error

_CHUNK = 1 << 15  # scores whose temporaries stay in cache
_SLACK = 1e-12  # far above the rounding of the bounds on rates


class _Part(NamedTuple):
    """The scores low <= s < high of both classes; targets missed below, nontargets accepted above; totals."""

    target: np.ndarray
    nontarget: np.ndarray
    missed: int
    accepted: int
    totals: tuple

    def __len__(self):
        return len(self.target) + len(self.nontarget)

    def between(self, low, high):
        """The part of it with scores low <= s < high; an infinite ``high`` excludes nothing."""
        target, below, _ = _between(self.target, low, high)
        nontarget, _, above = _between(self.nontarget, low, high)
        return _Part(target, nontarget, self.missed + below, self.accepted + above, self.totals)


class PartialRoc(Measures):
    """Sorted scores around the crossing of a ROC: its EER and threshold are those of all scores.

    ``part``: the _Part; ``everything``: (target, nontarget), all scores, in any order.
    """

    def __init__(self, part, everything):
        self.target, self.nontarget = np.sort(part.target), np.sort(part.nontarget)
        self._missed, self._accepted, self._totals = part.missed, part.accepted, part.totals
        self._everything = everything

    def _errors(self, score, side):
        return (
            self._missed + int(np.searchsorted(self.target, score, side)),
            self._accepted + len(self.nontarget) - int(np.searchsorted(self.nontarget, score, side)),
        )

    @cached_property
    def _hull(self):
        """Of the points of the part alone, both its ends among them."""
        number = len(self.nontarget)
        first = np.flatnonzero(np.append(True, self.target[1:] != self.target[:-1])[: len(self.target)])
        scores = self.target[first]
        misses = self._missed + np.concatenate(([0], first, [len(self.target)]))
        accepted = number - np.searchsorted(self.nontarget, scores, "left")
        false_alarms = self._accepted + np.concatenate(([number], accepted, [0]))
        place = hull_vertices(misses, false_alarms)
        return Hull(misses[place], false_alarms[place], np.concatenate(([-np.inf], scores, [np.inf]))[place])

    def _neighbour(self, value, direction):
        """The next distinct score, in the part or, where it has none there, among all scores."""
        for classes in ((self.target, self.nontarget), self._everything):
            found = [
                float(beyond.min() if direction > 0 else beyond.max())
                for scores in classes
                if len(beyond := scores[scores > value if direction > 0 else scores < value])
            ]
            if found:
                return min(found) if direction > 0 else max(found)
        return direction * np.inf


def near_crossing(target, nontarget, num_bins=4096, num_sampled=1 << 14, enough=1 << 17):
    """A PartialRoc of unsorted scores without NaN, or None where narrowing does not help.

    ``num_bins``: of one round; ``num_sampled``: scores of either class that propose where to look;
    ``enough``: so many scores are sorted without a further round.
    """
    everything = (target, nontarget)
    whole = _Part(target, nontarget, 0, 0, (len(target), len(nontarget)))
    low, high = _propose(*(_sample(scores, num_sampled) for scores in everything))
    part = whole.between(low, high)
    outside = low > -np.inf, high < np.inf  # may hold what matters, until bounds say no
    while True:
        cut = _cut(part, (low, high), outside, num_bins, num_sampled)
        if cut is None:
            return None
        (low, high), outside, size = cut, (False, False), len(part)
        part = part.between(low, high)
        if not enough < len(part) <= 0.5 * size:
            return PartialRoc(part, everything)


def _sample(scores, number):
    return np.sort(scores[:: max(1, len(scores) // number)].astype(np.float64))


def _propose(target, nontarget):
    """Scores low, high, of either class, such that the crossing edge of the whole should lie between them.

    The edge's line P Pmiss + (1-P) Pfa = EER must pass below (0, Pfa(low)) and (Pmiss(high), 0).
    """
    roc = PartialRoc(_Part(target, nontarget, 0, 0, (len(target), len(nontarget))), (target, nontarget))
    eer, _ = roc.eer()
    p_miss, p_fa = roc.hull()
    place = max(1, int(np.argmax(p_miss >= p_fa)))
    step_miss, step_fa = p_miss[place] - p_miss[place - 1], p_fa[place - 1] - p_fa[place]
    prior = min(0.9, max(0.1, step_fa / (step_miss + step_fa)))

    def margin(rate, number):
        return 1.2 * rate + 5.0 * np.sqrt((rate + 10.0 / number) / number)

    p_fa_low, p_miss_high = margin(eer / (1.0 - prior), len(nontarget)), margin(eer / prior, len(target))
    low = -np.inf if p_fa_low >= 1.0 else float(nontarget[int(len(nontarget) * (1.0 - p_fa_low))])
    high = np.inf if p_miss_high >= 1.0 else float(target[int(len(target) * p_miss_high)])
    return (low, high) if low < high else (-np.inf, np.inf)


def _between(scores, low, high):
    """(float64 scores with low <= s < high, the number below, the number above); high=inf keeps inf."""
    kept, above = [np.empty(0)], 0
    low, high = scores.dtype.type(low), scores.dtype.type(high)
    for start in range(0, len(scores), _CHUNK):
        chunk = scores[start : start + _CHUNK]
        if low > -np.inf:
            chunk = chunk[np.flatnonzero(chunk >= low)]
        if high < np.inf:
            inside = np.flatnonzero(chunk < high)
            above += len(chunk) - len(inside)
            chunk = chunk[inside] if len(inside) < len(chunk) else chunk
        kept.append(chunk)
    kept = np.concatenate(kept)
    return kept, len(scores) - len(kept) - above, above


def _bins(scores, low, scale, num_bins):
    """The bin of each score, a rising function of it."""
    place = np.clip((np.maximum(scores, low) - low) * scale, 0.0, num_bins - 1)
    return place.astype(np.int64)


def _counts(scores, low, scale, num_bins):
    counts = np.zeros(num_bins, np.int64)
    for start in range(0, len(scores), _CHUNK):
        places = _bins(scores[start : start + _CHUNK], low, scale, num_bins)
        counts += np.bincount(places, minlength=num_bins)
    return counts


def _cut(part, limits, outside, num_bins, num_sampled):
    """The narrower range (low, high) that bins say to look at; None where it is elsewhere or has no width."""
    sample = np.concatenate([_sample(scores, num_sampled) for scores in part[:2] if len(scores)] or [[0.0]])
    if not np.isfinite(sample[[0, -1]]).all():
        sample = sample[np.isfinite(sample)]
    bottom, width = float(sample.min(initial=np.inf)), float(np.ptp(sample)) if len(sample) else 0.0
    if not (0.0 < width < np.inf and np.isfinite(num_bins / width)):
        return None
    binning = bottom, num_bins / width, num_bins
    missed = part.missed + np.cumsum(_counts(part.target, *binning))
    rejected = np.cumsum(_counts(part.nontarget, *binning))
    p_miss = np.append(part.missed, missed) / part.totals[0]
    p_fa = (part.accepted + len(part.nontarget) - np.append(0, rejected)) / part.totals[1]
    needed = _needed(p_miss, p_fa, outside)
    if needed is None:
        return None

    def edge(number):
        return first_score(lambda score: _bins(np.array([score]), *binning)[0] >= number)

    first, last = needed
    return limits[0] if first == 0 else edge(first), limits[1] if last == num_bins - 1 else edge(last + 1)


def _needed(p_miss, p_fa, outside):
    """(first, last) of the bins between edges with these rates (B+1,) that may hold what the EER depends on.

    ``outside``: whether it may also lie below the first edge, above the last; None if so. The hull's edge
    through (e, e), e the EER, lies on a line P Pmiss + (1-P) Pfa = e with no point of the ROC below it. e is
    between the EERs of the hulls of the boxes' lower left corners and of the known points; no known point
    below the line bounds P; a bin may have a point on the line only if its corner is not above it, at one end
    of P's range at least.
    """
    corner_miss, corner_fa = p_miss[:-1], p_fa[1:]
    below, above = [(0.0, p_fa[0])] if outside[0] else [], [(p_miss[-1], 0.0)] if outside[1] else []
    lowest = _hull_eer(*zip(*below, *zip(corner_miss, corner_fa), *above)) - _SLACK
    highest = _hull_eer(p_miss, p_fa) + _SLACK
    known_miss, known_fa = np.concatenate(([0.0], p_miss, [1.0])), np.concatenate(([1.0], p_fa, [0.0]))
    gap = known_miss - known_fa
    priors = (
        np.max((lowest - known_fa[gap > 0]) / gap[gap > 0]) - _SLACK,
        np.min((lowest - known_fa[gap < 0]) / gap[gap < 0]) + _SLACK,
    )

    def near(miss, fa):
        return np.logical_or(*(prior * miss + (1.0 - prior) * fa <= highest for prior in priors))

    # the ROC itself crosses in a bin; the threshold may need its neighbours
    crossing = int(np.argmax(p_miss >= p_fa)) - 1
    if crossing < 0 or any(near(*corner) for corner in below + above):
        return None
    places = np.append(np.flatnonzero(near(corner_miss, corner_fa)), crossing)
    return max(0, min(places.min(), crossing - 1)), min(len(corner_miss) - 1, max(places.max(), crossing + 1))


def _hull_eer(p_miss, p_fa):
    """EER of the hull of points with rising Pmiss and falling Pfa, and of (0,1) and (1,0)."""
    p_miss, p_fa = np.concatenate(([0.0], p_miss, [1.0])), np.concatenate(([1.0], p_fa, [0.0]))
    place = hull_vertices(p_miss, p_fa)
    return hull_equal_error(p_miss[place], p_fa[place])
