"""Trial lists and score lists as columns: distinct ids, index arrays, labels, scores.

A trials line is `<enroll-id> <test-id>` or `<enroll-id> <test-id> target|nontarget`, a scores line is
`<enroll-id> <test-id> <score>`. Text is read and written in blocks by :mod:`voxark.trials.columns`, never
line by line. Memory of a whole list: ids once, 9 bytes a trial (17 with scores); :class:`TrialReader` and
:class:`ListWriter` need that for a block only.
"""

from dataclasses import dataclass, replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.streams import open_input
from voxark.trials.columns import IdColumn, IdNumbers, columns_as_text, read_columns, single_precision

_BLOCK_TRIALS = 1 << 20
_WRITE_LINES = 1 << 16
# A table of all pairs of ids is used where it has at most so many entries a trial; else trials are sorted.
_TABLE_PER_TRIAL = 4
_LAYOUTS = {
    "label": {3: ("id", "id", "label")},
    "label?": {2: ("id", "id"), 3: ("id", "id", "label")},
    "score": {3: ("id", "id", "score")},
}
_LABELLED_SCORES = {2: ("score", "label")}


@dataclass(frozen=True)
class TrialList:
    """N trials: pair p is enroll_ids[enroll[p]] against test_ids[test[p]].

    enroll, test (N,) int32; ids are distinct, in the order of their first appearance; ``target`` (N,) bool or
    None where the list has no labels; ``scores`` (N,) float64 or None. ``name`` is the file's, for messages.
    """

    name: str
    enroll_ids: list
    test_ids: list
    enroll: np.ndarray
    test: np.ndarray
    target: np.ndarray | None = None
    scores: np.ndarray | None = None

    def __len__(self):
        return len(self.enroll)

    def codes(self):
        """One int64 for each pair (N,), different for different pairs."""
        codes = self.enroll.astype(np.int64)
        codes *= len(self.test_ids)
        codes += self.test
        return codes

    def pair(self, p):
        """The two ids of pair p, for messages."""
        return f"{self.enroll_ids[self.enroll[p]]} {self.test_ids[self.test[p]]}"

    def select(self, chosen):
        """The trials at ``chosen`` (indices, or a mask (N,)); the ids stay."""

        def pick(column):
            return None if column is None else column[chosen]

        return replace(
            self,
            enroll=pick(self.enroll),
            test=pick(self.test),
            target=pick(self.target),
            scores=pick(self.scores),
        )


# --------------------------------------------------------------------------------------------------- reading


class TrialReader:
    """Reads a list block by block in memory that does not grow with the number of its lines.

    ``third`` says what the third column is: "label", "score", or "label?" where it may be absent. Iterating
    yields TrialLists of about a million lines, whose numbers index ``enroll_ids`` and ``test_ids``: lists
    that grow from block to block, with one numbering for all. A pair that stands twice is not noticed. Use
    it in a ``with`` statement; VoxarkError names file and line of what is wrong.
    """

    def __init__(self, rxfilename, third="label?"):
        self._layouts, self._third = _LAYOUTS[third], "scores" if third == "score" else "target"
        self._enroll, self._test = IdNumbers(), IdNumbers()
        self.enroll_ids, self.test_ids = self._enroll.ids, self._test.ids
        self._source = open_input(rxfilename)
        self.name = self._source.name

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self._source.close(failed=kind is not None)

    def __iter__(self):
        """Yield the blocks, once."""
        parts, number = [], 0
        for part in self.parts():
            parts.append(part)
            number += len(part[0])
            if number >= _BLOCK_TRIALS:
                yield self.as_list(parts)
                parts, number = [], 0
        if parts:
            yield self.as_list(parts)

    def parts(self):
        """Yield [enroll, test] or [enroll, test, third] arrays of the lines as they are read, once."""
        for (enroll, enroll_words), (test, test_words), *third in read_columns(self._source, self._layouts):
            yield [self._enroll.renumber(enroll, enroll_words), self._test.renumber(test, test_words), *third]

    def as_list(self, parts):
        """The TrialList of consecutive parts, which are emptied on the way to save memory."""
        columns = _concatenated(parts)
        more = {self._third: columns[2]} if len(columns) == 3 else {}
        return TrialList(self.name, self.enroll_ids, self.test_ids, columns[0], columns[1], **more)


def _concatenated(parts):
    """The columns of a list of parts, each a list of arrays (n,), which are let go as they are copied."""
    columns = []
    for place in reversed(range(len(parts[0]))):
        columns.append(np.concatenate([part.pop() for part in parts]))
    return columns[::-1]


def _read_list(rxfilename, third):
    with TrialReader(rxfilename, third) as reader:
        whole = reader.as_list(list(reader.parts()))
    check_distinct(whole)
    return whole


def read_trials(rxfilename):
    """Read a trial list with or without labels; VoxarkError names file and line of what is wrong.

    A pair that stands twice is refused.
    """
    return _read_list(rxfilename, "label?")


def read_scores(rxfilename):
    """Read a score list; VoxarkError names file and line of what is wrong, NaN and a pair twice included."""
    return _read_list(rxfilename, "score")


def read_labelled_blocks(rxfilename):
    """Yield (scores (n,) float64, target (n,) bool) blocks of Kaldi's lines `<score> target|nontarget`."""
    with open_input(rxfilename) as source:
        for scores, target in read_columns(source, _LABELLED_SCORES):
            yield scores, target


def read_labelled_scores(rxfilename):
    """Read Kaldi's lines `<score> target|nontarget`; returns scores (N,) float64 and target (N,) bool."""
    return tuple(_concatenated([list(block) for block in read_labelled_blocks(rxfilename)]))


def check_distinct(pairs):
    """Raise VoxarkError for a list in which a pair stands twice, naming both lines (counted from 1)."""
    codes, number = pairs.codes(), len(pairs)
    if (codes[1:] > codes[:-1]).all():
        return
    num_pairs = len(pairs.enroll_ids) * len(pairs.test_ids)
    if num_pairs <= _TABLE_PER_TRIAL * number:
        seen = np.zeros(num_pairs, bool)
        seen[codes] = True
        num_repeated = number - int(np.count_nonzero(seen))
    else:
        ordered = np.sort(codes)
        num_repeated = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
    if num_repeated == 0:
        return
    is_first = np.zeros(number, bool)
    is_first[np.unique(codes, return_index=True)[1]] = True
    second = int(np.argmin(is_first))
    first = int(np.argmax(codes == codes[second]))
    raise VoxarkError(
        f"{pairs.name}:{second + 1}: the pair {pairs.pair(second)!r} stands already on line {first + 1} "
        f"({num_repeated} repeated lines in all)"
    )


# --------------------------------------------------------------------------------------------------- writing


class ListWriter:
    """Appends lists to ``out``, which takes bytes, block after block; ids are encoded once.

    Blocks may share lists of ids that grow (those of a TrialReader).
    """

    def __init__(self, out):
        self._out = out
        self._enroll, self._test = IdColumn(), IdColumn()

    def write_scores(self, trials, scores):
        """Write lines `<enroll-id> <test-id> <score>` of trials with scores (N,).

        A score has the fewest digits that give the same single-precision number, at most nine significant
        ones, as score files need no more (beyond single precision's range: the same double). VoxarkError
        names the first pair whose score is not finite.
        """
        scores = np.asarray(scores)
        bad = ~np.isfinite(scores)
        if bad.any():
            first = int(np.argmax(bad))
            value = "NaN" if np.isnan(scores[first]) else "infinite"
            raise VoxarkError(
                f"{trials.name}: the score of {trials.pair(first)} is {value}: look at its vectors"
            )
        self._write(trials, lambda lines: [single_precision(scores[lines])])

    def write_trials(self, trials):
        """Write lines `<enroll-id> <test-id> target|nontarget`, or pairs alone where there are no labels."""
        words = IdColumn().encode(["nontarget", "target"])
        has_labels = trials.target is not None
        self._write(trials, lambda lines: [(trials.target[lines].view(np.int8), words)] if has_labels else [])

    def _write(self, trials, third):
        enroll_words = self._enroll.encode(trials.enroll_ids)
        test_words = self._test.encode(trials.test_ids)
        is_plain = self._enroll.is_plain and self._test.is_plain
        for begin in range(0, len(trials), _WRITE_LINES):
            lines = slice(begin, begin + _WRITE_LINES)
            ids = [(trials.enroll[lines], enroll_words), (trials.test[lines], test_words)]
            self._out.write(columns_as_text(ids + third(lines), is_plain))


def write_scores(out, trials, scores):
    """Write lines `<enroll-id> <test-id> <score>` to ``out``; see :meth:`ListWriter.write_scores`."""
    ListWriter(out).write_scores(trials, scores)


def write_trials(out, trials):
    """Write lines `<enroll-id> <test-id> target|nontarget` to ``out``, which takes bytes."""
    ListWriter(out).write_trials(trials)


# --------------------------------------------------------------------------------------------- joining by key


def find_pairs(trials, scored):
    """For each trial the place of its pair in the list ``scored``, or -1: (N,) int64. Joined by key.

    25 million pairs take a tenth of a second in the same order, one to four in another.
    """
    same_ids = trials.enroll_ids == scored.enroll_ids and trials.test_ids == scored.test_ids
    if same_ids and np.array_equal(trials.enroll, scored.enroll) and np.array_equal(trials.test, scored.test):
        return np.arange(len(trials))
    if len(scored) == 0:
        return np.full(len(trials), -1)
    wanted, codes = _codes_in(trials, scored), scored.codes()
    if np.array_equal(wanted, codes):
        return np.arange(len(trials))
    num_pairs = len(scored.enroll_ids) * len(scored.test_ids)
    if num_pairs <= _TABLE_PER_TRIAL * len(codes):
        table = np.full(num_pairs + 1, -1, np.int32 if len(codes) < 2**31 else np.int64)
        table[codes] = np.arange(len(codes), dtype=table.dtype)
        return table[wanted].astype(np.int64)  # -1, an unknown pair, takes the last entry
    codes, order = _sorted_with_order(codes, num_pairs)
    wanted, order_wanted = _sorted_with_order(wanted, num_pairs)
    place = np.searchsorted(codes, wanted)  # ascending: it walks through memory in place of jumping about
    place[place == len(codes)] = 0
    found = codes[place] == wanted
    places = np.full(len(wanted), -1)
    places[order_wanted[found]] = order[place[found]]
    return places


def _sorted_with_order(codes, limit):
    """The codes (N,) int64 >= -1 and < limit in ascending order, and the place that each had: both (N,)."""
    bits = len(codes).bit_length()
    if limit >> (62 - bits):
        order = np.argsort(codes, kind="stable")
        return codes[order], order
    # Code and place in one number: to sort plain numbers takes a third of the time of an argsort.
    both = codes << bits
    both |= np.arange(len(codes))
    both.sort()
    return both >> bits, both & ((1 << bits) - 1)


def _codes_in(trials, scored):
    """The codes (N,) int64 that the pairs of trials have in ``scored``, -1 where it does not know an id."""

    def renumber(ids, others):
        index = {key: number for number, key in enumerate(others)}
        return np.fromiter((index.get(key, -1) for key in ids), np.int64, len(ids))

    enroll = renumber(trials.enroll_ids, scored.enroll_ids)
    test = renumber(trials.test_ids, scored.test_ids)
    # An unknown id makes the code negative, whatever the other id is.
    unknown = -len(scored.test_ids) - 1
    codes = np.where(enroll < 0, unknown, enroll * len(scored.test_ids))[trials.enroll]
    codes += np.where(test < 0, np.iinfo(np.int64).min // 2, test)[trials.test]
    return np.maximum(codes, -1, out=codes)
