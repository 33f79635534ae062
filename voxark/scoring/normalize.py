"""Score normalisation: a trial's score against the scores of its two sides with a cohort of other speakers.

With the mean and the standard deviation (divided by n) of the cohort's scores with the enrolment model,
m_e, s_e, and with the test, m_t, s_t:

    z    (s - m_e) / s_e
    t    (s - m_t) / s_t
    s    half the sum of z and t, both of the raw score
    zt   t of z: the score and the scores of the test with the cohort's models are z-normalised, each with its
         own model's m and s; then t
    az, at, as1   as z, t and s, over the K highest cohort scores of each side
    as2  as s, over the K members of the cohort that score highest with the other side

[Auckenthaler et al. 2000; Shum et al. 2010 for s; Matejka et al. 2017 for as1 and as2]. A standard deviation
is at least 1e-6. Scores with the cohort come in blocks of rows, of which statistics are kept, and for as2 the
numbers of the K members; as2's own statistics are of pairs, and come about as trials are normalised.
"""

import logging
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

METHODS = ("z", "t", "s", "zt", "az", "at", "as1", "as2")
STD_FLOOR = 1e-6
ADAPTIVE = {"az", "at", "as1", "as2"}
ENROLL_ONLY, TEST_ONLY = {"z", "az"}, {"t", "at"}

_BLOCK_SCORES = 1 << 19  # cohort scores at once for statistics by row: 4 MiB, which stays in the cache
_TILE_SCORES = 1 << 21  # of as2, which makes several passes over its blocks: 16 MiB
_GATHER_VALUES = 1 << 15
# A score gathered for a pair costs about as much as this many of the multiplications of a matrix product that
# takes the indicators of all members (measured, cohorts of 250 to 5,000, 200 or 300 of them taken).
_GATHER_COST = 32


# --------------------------------------------------------------------------------------- where the scores are


class ModelScores:
    """Scores of models with the cohort as tests: rows of the PairTerms of M models and C cohort vectors."""

    def __init__(self, terms, keys=None):
        self._terms, self.keys = terms, keys
        self.num_rows, self.num_cohort = len(terms.left), len(terms.right)

    def block(self, rows):
        """Scores (n,C) float64 of the models of a slice."""
        return self._terms.dense(rows)


class TestScores:
    """Scores of tests with the cohort as models: columns of the PairTerms of C cohort models and T tests."""

    __test__ = False  # no test of pytest's

    def __init__(self, terms, keys=None):
        self._terms, self.keys = terms, keys
        self.num_rows, self.num_cohort = len(terms.right), len(terms.left)

    def block(self, rows):
        """Scores (n,C) float64 of the tests of a slice."""
        left, right, row, column, group = self._terms
        scores = right[rows] @ left.T
        scores += row
        of_tests = column[:, rows].T
        scores += of_tests if len(column) == 1 else of_tests[:, group]
        return scores


class MatrixScores:
    """Scores with the cohort that are there already: an array (N,C)."""

    def __init__(self, matrix, keys=None):
        self._matrix, self.keys = np.asarray(matrix), keys
        self.num_rows, self.num_cohort = self._matrix.shape

    def block(self, rows):
        """Scores (n,C) float64 of the rows of a slice, a copy."""
        return np.array(self._matrix[rows], np.float64)


class Statistics(NamedTuple):
    """mean (N,) and std (N,) float64 of the cohort scores of each row; std before its floor."""

    mean: np.ndarray
    std: np.ndarray


# ------------------------------------------------------------------------------------------ statistics by row


def cohort_statistics(source, top_n=None, progress=iter):
    """Statistics of each row of cohort scores, over the ``top_n`` highest of it if given.

    ``progress`` wraps the iterator over blocks. VoxarkError for a cohort (or top_n) below 2, and for scores
    that are not finite, the row's key named.
    """
    found = Statistics(np.empty(source.num_rows), np.empty(source.num_rows))
    kept = _checked_top(source.num_cohort, top_n)
    for rows in progress(_blocks_of(source, _BLOCK_SCORES)):
        block = _finite_block(source, rows)
        if kept < source.num_cohort:
            block = np.partition(block, source.num_cohort - kept, axis=1)[:, source.num_cohort - kept :]
        found.mean[rows], found.std[rows] = _moments(block)
    return found


def top_members(source, top_n, progress=iter):
    """Numbers (N,K) of the K = min(top_n, C) members of the cohort that score highest, rising in each row.

    Of members with the same score those with the lower number go first. Errors as of cohort_statistics.
    """
    size = source.num_cohort
    kept = _checked_top(size, top_n)
    chosen = np.empty((source.num_rows, kept), np.uint16 if size <= 1 << 16 else np.int32)
    for rows in progress(_blocks_of(source, _BLOCK_SCORES)):
        block = _finite_block(source, rows)
        lowest = np.partition(block, size - kept, axis=1)[:, size - kept]
        among = block >= lowest[:, None]
        for row in np.flatnonzero(np.count_nonzero(among, axis=1) > kept):
            tied = np.flatnonzero(block[row] == lowest[row])
            excess = np.count_nonzero(among[row]) - kept
            among[row, tied[len(tied) - excess :]] = False
        chosen[rows] = (np.flatnonzero(among) % size).reshape(-1, kept)
    return chosen


def other_speakers_statistics(source, row_groups, column_groups, progress=iter):
    """Statistics of the rows of cohort scores over the columns that are of another group (speaker).

    row_groups (N,), column_groups (C,) integers. VoxarkError for a row with fewer than two such columns.
    """
    found = Statistics(np.empty(source.num_rows), np.empty(source.num_rows))
    for rows in progress(_blocks_of(source, _BLOCK_SCORES)):
        block = _finite_block(source, rows)
        others = row_groups[rows, None] != column_groups
        count = np.count_nonzero(others, axis=1)
        if (count < 2).any():
            row = rows.start + int(np.argmax(count < 2))
            raise VoxarkError(
                f"{_name(source, row)}: the cohort has {count.min()} members of other speakers for this one "
                "of it: zt-norm needs at least 2"
            )
        mean = np.where(others, block, 0.0).sum(axis=1) / count
        block -= mean[:, None]
        block[~others] = 0.0
        found.mean[rows], found.std[rows] = mean, np.sqrt(np.vecdot(block, block) / count)
    return found


def z_normalised_statistics(source, of_members, progress=iter):
    """Statistics of each row of scores with the cohort's models, z-normalised with those of the members."""
    found = Statistics(np.empty(source.num_rows), np.empty(source.num_rows))
    std = np.maximum(of_members.std, STD_FLOOR)
    for rows in progress(_blocks_of(source, _BLOCK_SCORES)):
        block = _finite_block(source, rows)
        block -= of_members.mean
        block /= std
        found.mean[rows], found.std[rows] = _moments(block)
    return found


def _checked_top(size, top_n):
    if size < 2:
        raise VoxarkError(
            f"the cohort has {size} member{'s' * (size != 1)}: a standard deviation needs at least 2"
        )
    if top_n is not None and top_n < 2:
        raise VoxarkError(f"--top-n={top_n}: a standard deviation needs at least 2 scores")
    return size if top_n is None else min(size, top_n)


def _blocks_of(source, scores):
    step = max(1, scores // max(1, source.num_cohort))
    return (slice(first, min(first + step, source.num_rows)) for first in range(0, source.num_rows, step))


def _name(source, row):
    return f"row {row}" if source.keys is None else source.keys[row]


def _finite_block(source, rows):
    """A block of scores, writable; VoxarkError names the first row with a score that is not finite."""
    block = source.block(rows)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = block.sum(axis=1)
    if not np.isfinite(sums).all():
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            key = _name(source, rows.start + int(np.argmax(bad)))
            raise VoxarkError(f"{key}: scores with the cohort are NaN or infinite: look at its vectors")
    return block


def _moments(block):
    """Mean and population standard deviation of each row of block (n,K)."""
    mean = block.mean(axis=1)
    centred = block - mean[:, None]
    return mean, np.sqrt(np.vecdot(centred, centred) / block.shape[1])


# ----------------------------------------------------------------------------------------- statistics by pair


def selected_statistics(source, members, rows, sets):
    """Statistics (N,) of row rows[p] of cohort scores over the members numbered members[sets[p]].

    members (S,K) integers; rows, sets (N,) integers. Pairs are taken by blocks of rows and tiles of sets:
    where most pairs of the two are asked for, sums over the members are matrix products with indicators;
    where few are, the scores are gathered. Memory beyond the result: blocks, and an order of the pairs.
    """
    found = Statistics(np.empty(len(rows)), np.empty(len(rows)))
    size, kept = source.num_cohort, members.shape[1]
    step = max(1, _TILE_SCORES // size)
    num_tiles = -(-len(members) // step)
    codes = rows // step * num_tiles + sets // step
    order = np.argsort(_short(codes, -(-source.num_rows // step) * num_tiles), kind="stable")
    ordered = codes[order]
    bounds = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1))
    at_row = None
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        row_block, tile = divmod(int(ordered[begin]), num_tiles)
        if row_block != at_row:
            at_row, squares = row_block, None
            centred, shift = _centred(source, slice(at_row * step, min((at_row + 1) * step, source.num_rows)))
        pairs = order[begin:end]
        chosen = members[tile * step : (tile + 1) * step]
        row, at = rows[pairs] - at_row * step, sets[pairs] - tile * step
        if len(pairs) * kept * _GATHER_COST < len(centred) * len(chosen) * size:
            mean, mean_square = _by_gathering(centred, chosen, row, at)
        else:
            squares = np.square(centred) if squares is None else squares
            mean, mean_square = _by_products(centred, squares, chosen, row, at)
        found.mean[pairs] = mean + shift[row]
        found.std[pairs] = np.sqrt(np.maximum(mean_square - np.square(mean), 0.0))
    return found


def _centred(source, rows):
    """A block of scores less the mean of each row, so that sums of squares lose no digits, and the means."""
    block = source.block(rows)
    shift = block.mean(axis=1)
    block -= shift[:, None]
    return block, shift


def _by_products(centred, squares, chosen, row, at):
    """Means of centred[row[p]] and squares[row[p]] over chosen[at[p]], by two products for all pairs."""
    indicator = np.zeros((len(chosen), centred.shape[1]))
    indicator[np.arange(len(chosen))[:, None], chosen] = 1.0 / chosen.shape[1]
    return (centred @ indicator.T)[row, at], (squares @ indicator.T)[row, at]


def _by_gathering(centred, chosen, row, at):
    """The same pair by pair, row after row: a row of scores comes from the cache for all of its pairs."""
    size, kept = centred.shape[1], chosen.shape[1]
    order = np.argsort(_short(row, len(centred)), kind="stable")
    mean, mean_square = np.empty(len(row)), np.empty(len(row))
    step = max(1, _GATHER_VALUES // kept)
    for begin in range(0, len(row), step):
        part = order[begin : begin + step]
        places = chosen[at[part]].astype(np.intp)
        places += (row[part].astype(np.intp) * size)[:, None]
        values = np.take(centred, places)
        mean[part], mean_square[part] = values.sum(axis=1), np.vecdot(values, values)
    return mean / kept, mean_square / kept


def _short(numbers, bound):
    """Numbers below ``bound`` in 16 bits if they fit, which numpy sorts by radix."""
    return numbers.astype(np.uint16) if bound <= 1 << 16 else numbers


# ---------------------------------------------------------------------------------------------- normalisation


class Normalizer:
    """Normalises scores of trials by one of METHODS.

    ``enroll``, ``test``: sources of the cohort scores of the M models and T tests (ModelScores, TestScores,
    MatrixScores or an array (N,C)), each None where the method has no use for it. ``top_n``: K of the
    adaptive methods; a smaller cohort is taken whole. zt needs ``of_members``: Statistics of the C models
    that the test side's columns are of. as2 needs one cohort in one order on both sides.
    """

    def __init__(self, method, enroll=None, test=None, top_n=300, of_members=None, progress=iter):
        if method not in METHODS:
            raise VoxarkError(f"method {method!r}: one of {', '.join(METHODS)} is expected")
        self.method, self.num_floored = method, 0
        self._enroll = None if method in TEST_ONLY else _as_source(enroll)
        self._test = None if method in ENROLL_ONLY else _as_source(test)
        self._top_n = top_n if method in ADAPTIVE else None
        self._of_members = self._members = None
        if method == "as2":
            self._choose_members(progress)
        else:
            self._of_enroll = self._statistics(self._enroll, "enrolment", progress)
            if method == "zt":
                self._of_test = z_normalised_statistics(self._test, of_members, progress)
                self._warn_of_constants(self._test, "test", self._of_test)
            else:
                self._of_test = self._statistics(self._test, "test", progress)

    def _statistics(self, source, side, progress):
        if source is None:
            return None
        found = cohort_statistics(source, self._top_n, progress)
        self._warn_of_constants(source, side, found)
        return found

    def _warn_of_constants(self, source, side, found):
        flat = found.std < STD_FLOOR
        if flat.any():
            logger.warning(
                "%d of %d %s ids have the same score with all of the cohort, the first is %s: the standard "
                "deviation is taken as %g",
                np.sum(flat), len(flat), side, _name(source, int(np.argmax(flat))), STD_FLOOR,
            )  # fmt: skip

    def _choose_members(self, progress):
        if self._enroll.num_cohort != self._test.num_cohort:
            raise VoxarkError(
                f"as2 needs one cohort: {self._enroll.num_cohort} members score with the enrolment side, "
                f"{self._test.num_cohort} with the tests"
            )
        self._of_enroll = self._of_test = None
        self._members = [top_members(side, self._top_n, progress) for side in (self._enroll, self._test)]

    def normalise(self, scores, enroll, test):
        """Normalised scores (N,) float64 of scores (N,) of models enroll[p] against tests test[p]."""
        scores = np.asarray(scores, np.float64)
        if self.method == "as2":
            by_enroll, by_test = self._members
            z = self._standardised(scores, selected_statistics(self._enroll, by_test, enroll, test))
            t = self._standardised(scores, selected_statistics(self._test, by_enroll, test, enroll))
            return 0.5 * (z + t)
        z = scores if self._of_enroll is None else self._standardised(scores, _at(self._of_enroll, enroll))
        if self._of_test is None:
            return z
        of_test = _at(self._of_test, test)
        if self.method in ("s", "as1"):
            return 0.5 * (z + self._standardised(scores, of_test))
        return self._standardised(z, of_test)  # zt, and t and at, whose z are the scores

    def _standardised(self, scores, found):
        self.num_floored += int(np.count_nonzero(found.std < STD_FLOOR))
        return (scores - found.mean) / np.maximum(found.std, STD_FLOOR)


def _at(found, places):
    return Statistics(found.mean[places], found.std[places])


def _as_source(scores):
    return MatrixScores(scores) if isinstance(scores, np.ndarray) else scores
