"""Columns of text lists, taken apart and put together by pyarrow's CSV reader and writer a block at a time.

A list has one line a trial: ids, a label ("target" or "nontarget") and a score, in the order that the first
line's number of columns says, with white space between them. Text with single spaces goes straight through
the CSV reader; a block with other white space is brought into that form first; a block that the reader still
does not take (a malformed line, a number of an unusual form) is taken apart by words, which either works or
names the first bad line. pyarrow is imported where it is used: it costs 0.05 s.
"""

import numpy as np

from voxark.errors import VoxarkError

BLOCK_BYTES = 1 << 21  # stays in cache between reader, parser and converter: faster than 1 << 23
_LONGEST_LINE = 1 << 20
_LABELS = {b"target": True, b"nontarget": False}
_GZIP = b"\x1f\x8b"
_TO_SPACE = bytes.maketrans(b"\t\r\v\f", b"    ")


class _Numbers(dict):
    def __missing__(self, key):
        self[key] = number = len(self)
        return number


class IdNumbers:
    """Numbers ids in the order of their first appearance; ``ids`` is the growing list of them.

    Ids are str, with bytes that are not UTF-8 kept as Python keeps them in file names (surrogateescape).
    """

    def __init__(self):
        self.ids = []
        self._numbers = _Numbers()

    def renumber(self, numbers, words):
        """Numbers (n,) int32 of a column of ids, given as numbers (n,) of distinct words (list of bytes)."""
        keys = b"\n".join(words).decode("utf-8", "surrogateescape").split("\n")
        table = np.fromiter(map(self._numbers.__getitem__, keys), np.int32, len(keys))
        self.ids += [keys[place] for place in np.flatnonzero(table >= len(self.ids))]
        return table[numbers]


# ------------------------------------------------------------------------------------------ text into columns


def read_columns(source, layouts):
    """Yield the columns of a list, a block of lines at a time, in memory that does not grow with the list.

    ``layouts``: for each allowed number of columns the kinds of these, "id", "label" or "score"; the first
    line decides. A column of ids comes as (numbers (n,) int32, distinct words as a list of bytes), of labels
    as (n,) bool, of scores as (n,) float64, infinities included. ``source``: an open Source. VoxarkError
    names file and line of what is malformed; a command that fails is an error before its last line is
    looked at, so that it is not blamed on a line cut short.
    """
    kinds, line = None, 1
    for block in _blocks(source):
        if kinds is None:
            if block.startswith(_GZIP):
                raise VoxarkError(f"{source.name}: is compressed: read it through a pipe, 'gunzip -c FILE |'")
            words = block[: block.index(b"\n")].split()
            if len(words) not in layouts:
                raise _wrong_number(source.name, 1, block, layouts)
            kinds = layouts[len(words)]
        columns = _parse(block, kinds) or _parse(_single_spaced(block), kinds)
        if columns is None:
            columns = _parse_words(source.name, line, block, kinds)
        yield columns
        line += _length(columns[-1])
    if kinds is None:
        raise VoxarkError(f"{source.name}: the list is empty")


def _blocks(source):
    """Yield bytes of whole lines until the input ends; the last line gets its newline if it has none."""
    while block := source.read_some(BLOCK_BYTES):
        if not block.endswith(b"\n"):
            rest = source.read_until(b"\n", _LONGEST_LINE)
            if len(rest) == _LONGEST_LINE:
                raise source.error("a line is longer than a megabyte: this is no list of trials")
            block += rest
        if not block.endswith(b"\n"):
            source.finish()
            block += b"\n"
        yield block
    source.finish()


def _parse(block, kinds):
    """Columns of a block of single-spaced lines; None where it is not of that form, or a value is odd."""
    import pyarrow
    from pyarrow import csv

    if b"\r" in block or block.startswith(b"\xef\xbb\xbf"):  # would end a line, would be skipped
        return None
    types = {
        "id": pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
        "label": pyarrow.bool_(),
        "score": pyarrow.float64(),
    }
    names = [str(column) for column in range(len(kinds))]
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(block),
            csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
            csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types={name: types[kind] for name, kind in zip(names, kinds)},
                null_values=[],
                true_values=["target"],
                false_values=["nontarget"],
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    columns = [_TO_NUMPY[kind](table.column(place).chunk(0)) for place, kind in enumerate(kinds)]
    return None if any(column is None for column in columns) else columns


def _ids_to_numpy(array):
    words = array.dictionary.to_numpy(zero_copy_only=False).tolist()
    text = b"\n".join(words)
    if b"" in words or any(white in text for white in (b"\t", b"\v", b"\f")):
        return None
    return array.indices.to_numpy(), words


def _scores_to_numpy(array):
    scores = array.to_numpy().copy()  # arrow's own memory may not be written to
    return None if np.isnan(scores).any() else scores


_TO_NUMPY = {
    "id": _ids_to_numpy,
    "label": lambda array: array.to_numpy(zero_copy_only=False),
    "score": _scores_to_numpy,
}


def _single_spaced(block):
    """The lines of a block with one space between words and none around them."""
    text = block.translate(_TO_SPACE)
    data = np.frombuffer(text, np.uint8)
    space = data == 32
    after_gap = np.empty(len(data), bool)
    after_gap[0] = True
    np.logical_or(space[:-1], data[:-1] == 10, out=after_gap[1:])
    return data[~(space & after_gap)].tobytes().replace(b" \n", b"\n")


def _length(column):
    return len(column[0] if isinstance(column, tuple) else column)


# ------------------------------------------------------------------------------------------ word by word


def _parse_words(name, line, block, kinds):
    """Columns of a block whose first line has the number ``line``, by words; raises at the first bad line."""
    words = block.split()
    if not _has_columns(block, words, len(kinds)):
        raise _first_error(name, line, block, kinds)
    try:
        return [_FROM_WORDS[kind](words[place :: len(kinds)]) for place, kind in enumerate(kinds)]
    except (KeyError, ValueError):
        raise _first_error(name, line, block, kinds) from None


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


def _ids_from_words(words):
    distinct = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.fromiter(map(distinct.__getitem__, words), np.int32, len(words)), list(distinct)


def _label(word):
    return _LABELS[word]


def _score(word):
    """A score as Kaldi's text has it: Python's 1_000 is none, nor is NaN."""
    value = float("x" if b"_" in word else word)
    if value != value:
        raise ValueError("NaN")
    return value


_FROM_WORDS = {
    "id": _ids_from_words,
    "label": lambda words: np.fromiter(map(_label, words), bool, len(words)),
    "score": lambda words: np.fromiter(map(_score, words), np.float64, len(words)),
}
_CHECKS = {
    "id": (lambda word: word, ""),
    "label": (_label, "'target' or 'nontarget' was expected"),
    "score": (_score, "a score was expected"),
}


def _first_error(name, line, block, kinds):
    """The error that names the first malformed line of a block; ``line`` is the number of its first line."""
    for number, text in enumerate(block.split(b"\n")[:-1], line):
        words = text.split()
        if len(words) != len(kinds):
            return _wrong_number(name, number, text, [len(kinds)])
        for word, kind in zip(words, kinds):
            check, wanted = _CHECKS[kind]
            try:
                check(word)
            except (KeyError, ValueError):
                return VoxarkError(f"{name}:{number}: {wanted}, found {_shown(word)}")
    raise AssertionError("a block was refused that has no malformed line")


def _wrong_number(name, number, text, allowed):
    text = text[: text.find(b"\n")] if b"\n" in text else text
    wanted = " or ".join(map(str, sorted(allowed)))
    return VoxarkError(
        f"{name}:{number}: {wanted} columns were expected, found {len(text.split())}: {_shown(text)}"
    )


def _shown(text):
    """The text for a message: its beginning, on one line."""
    return repr(text[:60].decode("utf-8", "replace"))


# ------------------------------------------------------------------------------------------ columns into text


class IdColumn:
    """The ids of a column that is to be written; new ones may be appended to the list between two blocks."""

    def __init__(self):
        self._ids, self._length, self._words, self.is_plain = None, 0, None, True

    def encode(self, ids):
        """The ids (list of str) as an arrow array of bytes marked as text; only what is new is encoded."""
        import pyarrow

        if ids is not self._ids or len(ids) < self._length:
            self._ids, self._length, self._words, self.is_plain = ids, 0, None, True
        if len(ids) > self._length or self._words is None:
            words = [key.encode("utf-8", "surrogateescape") for key in ids[self._length :]]
            text = b"\n".join(words)
            if text.split() != words:
                bad = next(key for key, word in zip(ids[self._length :], words) if word.split() != [word])
                raise VoxarkError(f"the id {bad!r} cannot stand in a list: it is empty or has white space")
            self.is_plain = self.is_plain and b'"' not in text  # the writer without quoting refuses it
            # Text to arrow, though it need not be UTF-8: its writer takes text only, and does not look.
            new = pyarrow.array(words, pyarrow.binary()).view(pyarrow.string())
            self._words = new if self._words is None else pyarrow.concat_arrays([self._words, new])
            self._length = len(ids)
        return self._words


def single_precision(scores):
    """Scores (n,) as float32 where all of them fit into its range, else as float64."""
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    return single if np.isfinite(single).all() else scores.astype(np.float64)


def columns_as_text(columns, is_plain=True):
    """Lines, as bytes, of columns: (numbers (n,), arrow array of texts) pairs, and arrays (n,) of numbers.

    Numbers take the shortest digits that give the same number of their precision when they are read.
    ``is_plain``: no text holds a double quote, which arrow's writer refuses.
    """
    import pyarrow
    from pyarrow import csv

    if not is_plain:
        return _joined(columns)
    arrays = [
        pyarrow.DictionaryArray.from_arrays(*column) if isinstance(column, tuple) else pyarrow.array(column)
        for column in columns
    ]
    batch = pyarrow.RecordBatch.from_arrays(arrays, [""] * len(arrays))
    sink = pyarrow.BufferOutputStream()
    options = csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none", batch_size=1 << 16)
    csv.write_csv(batch, sink, options)
    return sink.getvalue().to_pybytes()


def _joined(columns):
    """The same lines, put together by Python from the fields of each column."""
    fields = []
    for column in columns:
        if isinstance(column, tuple):
            words = column[1].view("binary").to_numpy(zero_copy_only=False)
            fields.append(words[column[0]].tolist())
        else:
            fields.append(columns_as_text([column]).split())
    return b"".join(b" ".join(line) + b"\n" for line in zip(*fields))
