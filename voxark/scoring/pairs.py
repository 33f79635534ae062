"""Scores of pairs: a back-end's terms scored in blocks of bounded memory; features scored as they stream."""

import numpy as np

from voxark.arrays import Device
from voxark.errors import VoxarkError

# Pairs are taken by tiles of models x tests, whose scores (4 MiB) stay in the cache while pairs are picked.
_TILE_MODELS, _TILE_TESTS = 512, 1024
_PAIRS_AT_ONCE = 1 << 22  # sorted by tile together: 16 bytes each
_BLOCK_VALUES = 1 << 18  # vector elements gathered at once for single pairs: 2 MiB a side
# A pair gathered by itself costs about as much as this many scores of a matrix product (measured, 40 to 512
# dimensions: 27 to 49).
_PAIR_COST = 32


def score_pairs(terms, enroll, test, device=None):
    """Scores (N,) float64 of the pairs of models enroll[p] and tests test[p]; see :class:`PairScorer`."""
    return PairScorer(terms, device).pairs(enroll, test)


class PairScorer:
    """Scores of chosen pairs, or of whole rows, of PairTerms; memory beyond the terms is bounded.

    ``device``: a voxark.arrays.Device, where the terms are kept and scores come about (by default numpy's).
    """

    def __init__(self, terms, device=None):
        self.device = device or Device()
        self.num_models, self.num_tests, self.dim = len(terms.left), len(terms.right), terms.left.shape[1]
        self._terms = terms.on(self.device)

    def pairs(self, enroll, test):
        """Scores (N,) float64 of the pairs of models enroll[p] and tests test[p], integer arrays (N,).

        A tile of models x tests of which many pairs are asked for is scored by a matrix product, and the
        pairs picked from it; where few are asked for, their vectors are gathered.
        """
        scores = np.empty(len(enroll))
        for begin in range(0, len(enroll), _PAIRS_AT_ONCE):
            part = slice(begin, begin + _PAIRS_AT_ONCE)
            self._by_tiles(enroll[part], test[part], scores[part])
        return scores

    def _by_tiles(self, enroll, test, scores):
        """Put the scores of pairs into ``scores``."""
        columns = -(-self.num_tests // _TILE_TESTS)
        tile = enroll // _TILE_MODELS * np.int64(columns) + test // _TILE_TESTS
        if -(-self.num_models // _TILE_MODELS) * columns <= 1 << 16:
            tile = tile.astype(np.uint16)  # sorted by radix, ten times as fast
        order = np.argsort(tile, kind="stable")
        tile = tile[order]
        begins = np.append(0, np.flatnonzero(tile[1:] != tile[:-1]) + 1)
        ends = np.append(begins[1:], len(tile))
        row, column = np.divmod(tile[begins].astype(np.int64), columns)
        first_model, first_test = row * _TILE_MODELS, column * _TILE_TESTS
        sizes = (np.minimum(first_model + _TILE_MODELS, self.num_models) - first_model) * (
            np.minimum(first_test + _TILE_TESTS, self.num_tests) - first_test)
        dense = (ends - begins) * _PAIR_COST >= sizes
        for number in np.flatnonzero(dense).tolist():
            chosen = order[begins[number] : ends[number]]
            m, t = int(first_model[number]), int(first_test[number])
            block = self._terms.dense(slice(m, m + _TILE_MODELS), slice(t, t + _TILE_TESTS))
            picked = block[self.device.asarray(enroll[chosen] - m), self.device.asarray(test[chosen] - t)]
            scores[chosen] = self.device.to_numpy(picked)
        self._gather(enroll, test, scores, order[np.repeat(~dense, ends - begins)])

    def _gather(self, enroll, test, scores, chosen):
        step = max(1, _BLOCK_VALUES // max(1, self.dim))
        for begin in range(0, len(chosen), step):
            part = chosen[begin : begin + step]
            pairs = self._terms.pairs(self.device.asarray(enroll[part]), self.device.asarray(test[part]),
                                      self.device.xp)
            scores[part] = self.device.to_numpy(pairs)

    def tiles(self, begin, end):
        """Yield (slice of models, slice of tests, their scores) of models begin to end against all tests."""
        for m in range(begin, end, _TILE_MODELS):
            models = slice(m, min(m + _TILE_MODELS, end))
            for t in range(0, self.num_tests, _TILE_TESTS):
                tests = slice(t, min(t + _TILE_TESTS, self.num_tests))
                yield models, tests, self.device.to_numpy(self._terms.dense(models, tests))


def trials_by_test(trials):
    """Yield (test number, indices of its trials) of every test that has trials, for tests that stream by."""
    order = np.argsort(trials.test, kind="stable")
    bounds = np.flatnonzero(np.diff(trials.test[order], prepend=-1))
    for begin, end in zip(bounds, np.append(bounds[1:], len(order))):
        yield int(trials.test[order[begin]]), order[begin:end]


def score_streamed(trials, entries, enroll_place, score, fail):
    """Score trials test by test as the tests stream by: scores (N,) float64, NaN where a side is missing.

    ``entries``: (test key, value) pairs; ``score(value, models)`` returns the scores of the models with the
    numbers ``models``; ``enroll_place`` gives each enrolment id its number, -1 where there is no model.
    ``fail(key, reason)`` is told of each test that does not come or cannot be scored.
    """
    waiting = {trials.test_ids[test]: chosen for test, chosen in trials_by_test(trials)}
    scores = np.full(len(trials), np.nan)
    for key, value in entries:
        chosen = waiting.pop(key, None)
        if chosen is None:
            continue
        models = enroll_place[trials.enroll[chosen]]
        try:
            scores[chosen[models >= 0]] = score(value, models[models >= 0])
        except VoxarkError as error:
            fail(key, str(error))
    for key in waiting:
        fail(key, "is missing among the tests")
    return scores
