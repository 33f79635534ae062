"""Trial lists and score lists as columns: distinct ids, index arrays, labels, scores.

A trials line is `<enroll-id> <test-id>` or `<enroll-id> <test-id> target|nontarget`, a scores line is
`<enroll-id> <test-id> <score>`. Text is taken apart a block at a time, never line by line; where a block is
malformed, its lines are looked at one by one to name the first bad one. Memory: ids once, 9 bytes a trial.
"""

from dataclasses import dataclass, replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.streams import open_input

_BLOCK_BYTES = 1 << 23
_LABELS = {b"target": True, b"nontarget": False}
_WRITE_LINES = 1 << 16


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
        return self.enroll.astype(np.int64) * len(self.test_ids) + self.test

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


class _Index(dict):
    """Numbers ids in the order of their first appearance."""

    def __missing__(self, key):
        self[key] = number = len(self)
        return number

    def numbers(self, column):
        """Numbers of the ids of a column, int32; the loop is C's."""
        return np.fromiter(map(self.__getitem__, column), np.int32, len(column))

    def keys_as_text(self):
        """The ids as str, undecodable bytes kept as Python keeps them in file names."""
        return [key.decode("utf-8", "surrogateescape") for key in self]


# ------------------------------------------------------------------------------------------ text into columns


def _blocks(source):
    """Yield (number of its first line, bytes of whole lines) until the input ends."""
    rest, line = b"", 1
    while chunk := source.read_some(_BLOCK_BYTES):
        chunk = rest + chunk
        end = chunk.rfind(b"\n") + 1
        if end:
            yield line, chunk[:end]
            line += chunk.count(b"\n", 0, end)
        rest = chunk[end:]
    if rest:
        yield line, rest + b"\n"


def _has_columns(block, words, num_columns):
    """Whether each line of the block has exactly ``num_columns`` of its words."""
    data = np.frombuffer(block, np.uint8)
    line_ends = np.flatnonzero(data == 10)
    if len(words) != num_columns * len(line_ends):
        return False
    black = (data != 32) & ((data < 9) | (data > 13))
    starts = np.flatnonzero(black & ~np.concatenate(([False], black[:-1])))
    first, last = starts[::num_columns], starts[num_columns - 1 :: num_columns]
    return bool((last < line_ends).all() and (first[1:] > line_ends[:-1]).all())


def _malformed(name, line, block, allowed):
    """The error that names the first line whose number of words is not among ``allowed``; None if all are."""
    for number, text in enumerate(block.split(b"\n")[:-1], line):
        if len(text.split()) not in allowed:
            wanted = " or ".join(map(str, sorted(allowed)))
            shown = text[:60].decode("utf-8", "replace")
            return VoxarkError(
                f"{name}:{number}: {wanted} columns were expected, found {len(text.split())}: {shown!r}"
            )
    return None


def _columns(source, allowed):
    """Yield (first line, columns of words) a block; the file's first line fixes the number of columns."""
    num_columns = None
    for line, block in _blocks(source):
        words = block.split()
        if num_columns is None:
            num_columns = len(block[: block.index(b"\n")].split())
            if num_columns not in allowed:
                raise _malformed(source.name, line, block, allowed)
        if not _has_columns(block, words, num_columns):
            raise _malformed(source.name, line, block, {num_columns})
        yield line, [words[column::num_columns] for column in range(num_columns)]


def _read_labels(name, line, words):
    """Labels (n,) bool of a column of words; an error names the line of a bad one."""
    try:
        return np.fromiter(map(_LABELS.__getitem__, words), bool, len(words))
    except KeyError:
        place = next(i for i, word in enumerate(words) if word not in _LABELS)
        raise VoxarkError(
            f"{name}:{line + place}: 'target' or 'nontarget' was expected, found "
            f"{words[place][:40].decode('utf-8', 'replace')!r}"
        ) from None


def _number(word):
    """A score as Kaldi's text has it; Python's 1_000 is none."""
    return float("x" if b"_" in word else word)


def _read_numbers(name, line, words):
    """Scores (n,) float64 of a column of words; NaN and what is no number is an error that names the line."""
    try:
        numbers = np.fromiter(map(float, words), np.float64, len(words))
        if b"_" not in b"".join(words) and not np.isnan(numbers).any():
            return numbers
    except ValueError:
        pass
    for place, word in enumerate(words, line):
        try:
            bad = np.isnan(_number(word))
        except ValueError:
            bad = True
        if bad:
            raise VoxarkError(
                f"{name}:{place}: a score was expected, found {word[:40].decode('utf-8', 'replace')!r}"
            )
    return numbers


def _read_pairs(rxfilename, allowed, read_third):
    """Read a list; returns (TrialList without third column, the third column's values or None)."""
    enroll_index, test_index = _Index(), _Index()
    enroll, test, third = [], [], []
    with open_input(rxfilename) as source:
        for line, columns in _columns(source, allowed):
            enroll.append(enroll_index.numbers(columns[0]))
            test.append(test_index.numbers(columns[1]))
            if len(columns) == 3:
                third.append(read_third(source.name, line, columns[2]))
        name = source.name
    if not enroll:
        raise VoxarkError(f"{name}: the list is empty")
    pairs = TrialList(
        name,
        enroll_index.keys_as_text(),
        test_index.keys_as_text(),
        np.concatenate(enroll),
        np.concatenate(test),
    )
    _check_distinct(pairs)
    return pairs, np.concatenate(third) if third else None


def _check_distinct(pairs):
    """Refuse a list in which a pair occurs twice, naming both lines."""
    codes = pairs.codes()
    if (np.diff(codes) > 0).all():
        return
    ordered = np.sort(codes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        return
    is_first = np.zeros(len(codes), bool)
    is_first[np.unique(codes, return_index=True)[1]] = True
    second = int(np.argmin(is_first))
    first = int(np.argmax(codes == codes[second]))
    raise VoxarkError(
        f"{pairs.name}:{second + 1}: the pair {pairs.pair(second)!r} stands already on line {first + 1} "
        f"({len(repeated)} repeated lines in all)"
    )


def read_trials(rxfilename):
    """Read a trial list with or without labels; VoxarkError names file and line of what is wrong."""
    pairs, target = _read_pairs(rxfilename, {2, 3}, _read_labels)
    return replace(pairs, target=target)


def read_scores(rxfilename):
    """Read a score list; VoxarkError names file and line of what is wrong, a NaN included."""
    pairs, scores = _read_pairs(rxfilename, {3}, _read_numbers)
    return replace(pairs, scores=scores)


def read_labelled_scores(rxfilename):
    """Read Kaldi's lines `<score> target|nontarget`; returns scores (N,) float64 and target (N,) bool."""
    scores, target = [], []
    with open_input(rxfilename) as source:
        for line, (numbers, labels) in _columns(source, {2}):
            scores.append(_read_numbers(source.name, line, numbers))
            target.append(_read_labels(source.name, line, labels))
        if not scores:
            raise VoxarkError(f"{source.name}: the list is empty")
    return np.concatenate(scores), np.concatenate(target)


# ------------------------------------------------------------------------------------------ columns into text


def write_scores(out, trials, scores):
    """Write lines `<enroll-id> <test-id> <score>` to ``out``, which takes bytes; seven significant digits.

    VoxarkError names the first pair whose score is not finite.
    """
    bad = ~np.isfinite(scores)
    if bad.any():
        first = np.argmax(bad)
        value = "NaN" if np.isnan(scores[first]) else "infinite"
        raise VoxarkError(f"{trials.name}: the score of {trials.pair(first)} is {value}: look at its vectors")
    enroll_ids = [key.encode("utf-8", "surrogateescape") for key in trials.enroll_ids]
    test_ids = [key.encode("utf-8", "surrogateescape") for key in trials.test_ids]
    for begin in range(0, len(trials), _WRITE_LINES):
        lines = slice(begin, begin + _WRITE_LINES)
        values = scores[lines].tolist()
        fields = [None] * (3 * len(values))
        fields[0::3] = map(enroll_ids.__getitem__, trials.enroll[lines].tolist())
        fields[1::3] = map(test_ids.__getitem__, trials.test[lines].tolist())
        fields[2::3] = values
        out.write(b"%b %b %.7g\n" * len(values) % tuple(fields))


# --------------------------------------------------------------------------------------------- joining by key


def find_pairs(trials, scored):
    """For each trial the place of its pair in the list ``scored``, or -1: (N,) int64. Joined by key."""

    def renumber(ids, others):
        index = {key: number for number, key in enumerate(others)}
        return np.fromiter((index.get(key, -1) for key in ids), np.int64, len(ids))

    enroll = renumber(trials.enroll_ids, scored.enroll_ids)[trials.enroll]
    test = renumber(trials.test_ids, scored.test_ids)[trials.test]
    wanted = np.where((enroll < 0) | (test < 0), -1, enroll * len(scored.test_ids) + test)
    codes = scored.codes()
    if np.array_equal(wanted, codes):
        return np.arange(len(trials))
    order = np.argsort(codes, kind="stable")
    place = np.searchsorted(codes, wanted, sorter=order)
    place = order[np.minimum(place, len(codes) - 1)]
    return np.where(codes[place] == wanted, place, -1)
