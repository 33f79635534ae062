"""Measures of more scores than memory holds, by sorted runs in a file: exact.

Scores come in blocks. While they fit, they stay in memory; beyond that, each memoryful is sorted and appended
to a file without a name, which no signal can leave behind. Then value ranges that fit in memory are merged in
ascending order, and what the convex hull and the sums need is kept of each.
"""

import os
import tempfile
from functools import cached_property

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics.measures import Measures, first_score, first_true
from voxark.metrics.roc import Roc, distinct_places, merged_hull, sum_softplus

_ITEM = 8  # bytes of a score in the file
_PAGE = 512  # scores of a last read in a search
_MANY, _SMALL = 64, 1 << 17  # after so many runs a buffer of fewer scores doubles: time is quadratic in runs


class ScoreSpill:
    """Collects scores of any number, and gives their measures.

    ``max_scores_in_memory``: scores held at a time, 8 bytes each; ``measures`` takes as much again, or twice.
    Where that is less than a MiB and would cut the scores into very many runs, it grows to a MiB at most.
    ``directory``: of the temporary file, by default $TMPDIR or /tmp. A context manager: it closes the file.
    """

    def __init__(self, max_scores_in_memory=1 << 24, directory=None):
        self.max_scores = max(2, int(max_scores_in_memory))
        self.directory = directory
        self._buffer = np.empty(self.max_scores)  # targets from the left, nontargets from the right
        self._held = [0, 0]
        self._counts, self._nans = [0, 0], [0, 0]
        self._file, self._runs, self._num_spills = None, ([], []), 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Close the temporary file: its space is free again, measures of it can be asked no more."""
        if self._file is not None:
            self._file.close()

    def add(self, scores, target):
        """Take scores (N,) with the mask (N,) of the targets among them; NaN is refused in the end."""
        scores, target = np.asarray(scores).ravel(), np.asarray(target, bool).ravel()
        if len(scores) != len(target):
            raise VoxarkError(f"{len(scores)} scores for {len(target)} labels")
        nan = np.isnan(scores)
        for number, mask in enumerate((target, ~target)):
            self._counts[number] += int(np.count_nonzero(mask))
        if nan.any():
            self._nans[0] += int(np.count_nonzero(nan & target))
            self._nans[1] += int(np.count_nonzero(nan & ~target))
            scores, target = scores[~nan], target[~nan]
        start = 0
        while start < len(scores):
            if sum(self._held) == self.max_scores:
                self._spill()
            stop = start + self.max_scores - sum(self._held)
            self._hold(scores[start:stop], target[start:stop])
            start = stop

    def _hold(self, scores, target):
        targets, nontargets = scores[target], scores[~target]
        low, high = self._held[0], self.max_scores - self._held[1]
        self._buffer[low : low + len(targets)] = targets
        self._buffer[high - len(nontargets) : high] = nontargets
        self._held = [low + len(targets), self._held[1] + len(nontargets)]

    def _classes(self):
        return self._buffer[: self._held[0]], self._buffer[self.max_scores - self._held[1] :]

    def _spill(self):
        """Append what is held, sorted, to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.directory, buffering=0, prefix="voxark-scores-")
            for runs, scores in zip(self._runs, self._classes()):
                if len(scores):
                    scores.sort()
                    runs.append((self._file.tell() // _ITEM, len(scores)))
                    _write_all(self._file, scores)
        except OSError as error:
            where = self.directory or tempfile.gettempdir()
            raise VoxarkError(
                f"{where}: no room for {_ITEM * sum(self._counts)} bytes of scores to be sorted: "
                f"{error.strerror}; point $TMPDIR to a folder that has it"
            ) from None
        self._held = [0, 0]
        self._num_spills += 1
        if self._num_spills % _MANY == 0 and self.max_scores < _SMALL:
            self.max_scores = min(2 * self.max_scores, _SMALL)
            self._buffer = np.empty(self.max_scores)

    def measures(self):
        """The scores' measures, with the methods of Roc (EER, DCF, Cllr, minima, AUC, hull)."""
        for what, count, nans in zip(("target", "nontarget"), self._counts, self._nans):
            if count == 0:
                raise VoxarkError(f"no {what} trials: error rates need both classes")
            if nans:
                raise VoxarkError(f"{nans} of {count} {what} scores are NaN")
        if self._file is None:
            return Roc(*(scores.copy() for scores in self._classes()))
        self._spill()
        return SpilledRoc(self._file, self._runs, self.max_scores // 2)


def _write_all(file, scores):
    data = memoryview(scores).cast("B")
    while len(data):
        data = data[file.write(data) :]


class SpilledRoc(Measures):
    """Measures of the sorted runs of a file.

    ``runs``: of targets and of nontargets, lists of (first place, number), in scores of 8 bytes; ``limit``:
    scores that a value range may hold in memory.
    """

    def __init__(self, file, runs, limit):
        self._file, self._limit = file, max(2, limit)
        self._runs = [(start, length, kind) for kind in (0, 1) for start, length in runs[kind]]
        self.num_target, self.num_nontarget = (sum(length for _, length in runs[kind]) for kind in (0, 1))
        self._totals = (self.num_target, self.num_nontarget)

    # ------------------------------------------------------------------------------------------- the file

    def _read(self, place, number, out=None):
        """Scores from a place in the file on."""
        out = np.empty(number) if out is None else out
        data, offset = memoryview(out).cast("B"), place * _ITEM
        while len(data):
            taken = os.preadv(self._file.fileno(), [data], offset)
            if taken == 0:
                raise VoxarkError("the temporary file of scores was cut short")
            data, offset = data[taken:], offset + taken
        return out

    def _value(self, place):
        return float(self._read(place, 1)[0])

    def _find(self, start, low, high, score, side):
        """The place among a run's sorted scores low..high where a number would stand."""
        while high - low > _PAGE:
            middle = (low + high) // 2
            value = self._value(start + middle)
            if value < score or (side == "right" and value == score):
                low = middle + 1
            else:
                high = middle
        return low + int(np.searchsorted(self._read(start + low, high - low), score, side))

    def _errors(self, score, side):
        below = [0, 0]
        for start, length, kind in self._runs:
            below[kind] += self._find(start, 0, length, score, side)
        return below[0], self.num_nontarget - below[1]

    def _num_errors(self, score):
        return self._errors(score, "left")

    def _neighbour(self, value, direction):
        found = [direction * np.inf]
        for start, length, _ in self._runs:
            place = self._find(start, 0, length, value, "right" if direction > 0 else "left")
            place -= direction < 0
            if 0 <= place < length:
                found.append(self._value(start + place))
        return min(found) if direction > 0 else max(found)

    # --------------------------------------------------------------------------------------- value ranges

    def _ranges(self):
        """(targets, nontargets, times) in ascending ranges of values, sorted; no value is in two of them.

        A value with more copies than a range may hold comes alone, with ``times`` its counts in the two
        classes; in all other ranges ``times`` is None.
        """
        pending = [[(0, length) for _, length, _ in self._runs]]
        while pending:
            piece = pending.pop()
            if sum(high - low for low, high in piece) <= self._limit:
                yield *self._load(piece), None
                continue
            lowest, highest = self._extremes(piece)
            if lowest == highest:
                times = [0, 0]
                for (low, high), (_, _, kind) in zip(piece, self._runs):
                    times[kind] += high - low
                yield np.array([lowest]), np.array([lowest]), times
                continue
            pending.extend(self._halves(piece, lowest))

    def _extremes(self, piece):
        ends = [(run[0] + low, run[0] + high) for (low, high), run in zip(piece, self._runs)]
        filled = [(first, end - 1) for first, end in ends if first < end]
        return min(self._value(first) for first, _ in filled), max(self._value(last) for _, last in filled)

    def _halves(self, piece, lowest):
        """A piece cut in two (upper part first) at the weighted median of the middles of its runs."""
        filled = [(low, high, run[0]) for (low, high), run in zip(piece, self._runs) if low < high]
        middles = np.array([self._value(start + (low + high) // 2) for low, high, start in filled])
        order = np.argsort(middles)
        weight = np.cumsum(np.array([high - low for low, high, _ in filled])[order])
        pivot = float(middles[order[np.searchsorted(weight, weight[-1] / 2)]])
        side = "right" if pivot == lowest else "left"  # neither part is empty
        cuts = [self._find(run[0], low, high, pivot, side) for (low, high), run in zip(piece, self._runs)]
        return (
            [(cut, high) for cut, (_, high) in zip(cuts, piece)],
            [(low, cut) for cut, (low, _) in zip(cuts, piece)],
        )

    def _load(self, piece):
        """Sorted scores of both classes of a piece."""
        merged = []
        for kind in (0, 1):
            of_class = [(limits, run[0]) for limits, run in zip(piece, self._runs) if run[2] == kind]
            parts = [(start + low, high - low) for (low, high), start in of_class]
            scores, filled = np.empty(sum(number for _, number in parts)), 0
            for place, number in parts:
                self._read(place, number, scores[filled : filled + number])
                filled += number
            scores.sort()
            merged.append(scores)
        return merged

    # -------------------------------------------------------------------------------------------- one sweep

    @cached_property
    def _summary(self):
        """(hull, log costs of both classes at offset 0, target-nontarget pairs in order), of one pass."""
        sums = {"costs": np.zeros(2), "pairs": 0.0}
        return merged_hull(self._points(sums), *self._totals), sums["costs"], sums["pairs"]

    def _points(self, sums):
        misses, rejected = 0, 0
        for target, nontarget, times in self._ranges():
            counts = times or (len(target), len(nontarget))
            sums["costs"] += _range_costs(target, nontarget, times, 0.0)
            first = distinct_places(target if counts[0] else target[:0])
            if times:
                below, pairs = np.zeros(len(first), int), 0.5 * times[0] * times[1]
            else:
                below = np.searchsorted(nontarget, target[first], "left")
                through = np.searchsorted(nontarget, target[first], "right")
                pairs = 0.5 * float((below + through) @ np.diff(np.append(first, len(target))))
            sums["pairs"] += pairs + float(counts[0]) * rejected
            yield misses + first, self.num_nontarget - rejected - below, target[first]
            misses, rejected = misses + counts[0], rejected + counts[1]

    @property
    def _hull(self):
        return self._summary[0]

    def _log_costs(self, offset):
        if offset == 0.0:
            return self._summary[1]
        return sum(_range_costs(*part, offset) for part in self._ranges())

    def _pairs_in_order(self):
        return self._summary[2]

    def _score_at(self, kind, place):
        """The score of a class at a place in ascending order."""

        def reached(score):
            misses, false_alarms = self._errors(score, "right")
            return (misses, self.num_nontarget - false_alarms)[kind] > place

        return first_score(reached)

    def _kaldi_eer(self):
        def stops(position):
            allowed = int(self.num_nontarget * position * 1.0 / self.num_target)
            nontarget = self._score_at(1, max(0, self.num_nontarget - 1 - allowed))
            return nontarget < self._score_at(0, position)

        position = min(first_true(stops, 0, self.num_target), self.num_target - 1)
        return position / self.num_target, self._score_at(0, position)


def _range_costs(target, nontarget, times, offset):
    costs = np.array([sum_softplus(target, -1, offset), sum_softplus(nontarget, +1, offset)])
    if not times:
        return costs
    return np.array([count * cost if count else 0.0 for count, cost in zip(times, costs)])
