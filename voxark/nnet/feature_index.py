"""Features by number and frame: stretches of utterances, read from archives by offset when they are wanted.

Nothing is prepared on disk and no feature is kept in memory (save what comes through a pipe): an index holds
for every utterance its key, file, offset and length, some 50 bytes beside the key. Numbers of frames come
from the headers of the matrices, or from utt2num_frames.
"""

import itertools
import logging
import threading
from collections import OrderedDict

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.matrix_rows import HEADER_BYTES, SharedFile, StoredMatrix, parse_headers
from voxark.io.specifiers import apply_range, script_lines
from voxark.io.streams import open_input
from voxark.nnet.feature_entries import Entries

logger = logging.getLogger(__name__)

MAX_HELD = 1 << 31  # bytes of features from streams
MAX_OPEN = 32  # files
_AT_ONCE = 1 << 14  # headers


class FeatureIndex:
    """Random access to a table of features.

    ``keys`` is a sequence of str (a voxark.nnet.key_list.KeyList); ``lengths`` (N,) int32 has the frames of
    each utterance, ``dim`` the columns of all. Utterances are known by their number, 0 to N - 1, in the order
    of the table. ``skipped`` lists (key, reason) of what the flag ``p`` passed over; of these a script's have
    length 0.

    ``rspecifier``: a script is best; an archive that is a file is looked through once; what comes from a
    pipe, or is text, is held in memory up to ``max_held`` bytes. ``utt2num_frames`` (a file or an rspecifier)
    spares the headers: lengths are then checked when an utterance is read. Threads may read at once; at most
    ``max_open`` files are kept open. Raises VoxarkError, naming key, file and byte, for what cannot be read,
    for features of different dimension, and for a table without entries.
    """

    def __init__(self, rspecifier, utt2num_frames="", max_held=MAX_HELD, max_open=MAX_OPEN):
        self.name, self._open = rspecifier, _OpenFiles(max_open)
        self._entries = entries = Entries(rspecifier, max_held)
        self.keys, self.skipped = entries.keys, entries.skipped
        known = np.full(len(self.keys), -1, np.int64)
        if utt2num_frames:
            known = self._given_lengths(utt2num_frames)
        self.lengths = known.astype(np.int32)
        dims = np.full(len(self.keys), -1, np.int32)
        self._measure_held(dims)
        places = np.flatnonzero((entries.file >= 0) & (known < 0))
        if (known > 0).any():
            places = np.append(places, np.argmax(known > 0))  # one header at least, for the dimension
        self._measure_files(places, dims)
        if not len(self.keys):
            raise VoxarkError(f"{rspecifier}: the table is empty")
        self.dim = self._one_dimension(dims)

    def __len__(self):
        return len(self.keys)

    # ---------------------------------------------------------------------------------------- reading

    def read(self, number, first=0, last=None):
        """Frames first ... last - 1 (default: all) of utterance ``number``: (last - first, dim) float32.

        Only their bytes are read. Raises VoxarkError, naming key, file and byte.
        """
        length = int(self.lengths[number])
        last = length if last is None else last
        if not 0 <= first <= last <= length:
            raise VoxarkError(f"{self.keys[number]}: {self.name}: frames {first} to {last - 1} of {length}")
        held = self._entries.held.get(number)
        if held is not None:
            return held[first:last].copy()
        try:
            return self._read_stored(number, first, last, length)
        except VoxarkError as error:
            raise VoxarkError(f"{self.keys[number]}: {error}") from None

    def _read_stored(self, number, first, last, length):
        entries = self._entries
        stored = StoredMatrix(self._open.get(entries.path(number)), int(entries.offset[number]))
        start, rows, columns = 0, stored.rows, slice(None)
        if entries.last is not None and entries.last[number] >= 0:
            start = int(entries.first[number])
            rows = min(int(entries.last[number]) + 1, rows) - start
        elif (text := entries.ranges.get(number)) is not None:
            start, rows, columns = _apply(text, stored.rows, stored.cols, entries.path(number))
        cols = len(range(*columns.indices(stored.cols)))
        if rows != length or (cols != self.dim and rows):
            where = f"{entries.path(number)}: the matrix at byte {stored.at}"
            raise VoxarkError(
                f"{where} has {rows} rows and {cols} columns, but {length} and {self.dim} were "
                "expected: another utt2num_frames, or the file has changed"
            )
        return np.ascontiguousarray(stored.read(start + first, start + last)[:, columns])

    # ---------------------------------------------------------------------------------------- measuring

    def _given_lengths(self, name):
        """Lengths (N,) int64 by a table, a rspecifier or the name of a text file; -1 where it has none."""
        known, next_one = np.full(len(self.keys), -1, np.int64), 0
        for keys, values in _blocks(_read_counts(name)):
            if keys == self.keys[next_one : next_one + len(keys)]:  # mostly in the same order
                numbers = np.arange(next_one, next_one + len(keys))
            else:
                numbers = self.keys.numbers(keys)
            values = np.array(values, np.int64)
            if (values < 0).any():
                raise VoxarkError(f"{name}: {keys[int(np.argmax(values < 0))]}: a negative number of frames")
            known[numbers[numbers >= 0]] = values[numbers >= 0]
            next_one += len(keys)
        return known

    def _measure_held(self, dims):
        for number, value in self._entries.held.items():
            self.lengths[number], dims[number] = value.shape if len(value) else (0, -1)

    def _measure_files(self, places, dims):
        """Read the headers at ``places``, file by file, and set lengths and dims there."""
        entries = self._entries
        order = places[np.lexsort((entries.offset[places], entries.file[places]))]
        for first in range(0, len(order), _AT_ONCE):
            numbers = order[first : first + _AT_ONCE]
            rows, cols, good = self._headers(numbers)
            if entries.last is not None:
                cut = entries.last[numbers] >= 0
                last, start = entries.last[numbers], entries.first[numbers]
                good &= ~cut | (start <= last) & (last < rows)
                rows = np.where(cut, last + 1 - start, rows)
            if entries.ranges:
                good &= ~np.isin(numbers, np.fromiter(entries.ranges, np.int64))
            done = numbers[good]
            self.lengths[done] = np.where(self.lengths[done] < 0, rows[good], self.lengths[done])
            dims[done] = np.where(rows[good] > 0, cols[good], -1)
            for number in numbers[~good].tolist():
                self._measure_one(number, dims)

    def _headers(self, numbers):
        """Rows and columns (n,) by the headers of entries, and whether the values lie whole in the files."""
        entries, raws, limits, now, file = self._entries, [], [], -1, None
        for file_number, offset in zip(
            entries.file[numbers].tolist(), entries.offset[numbers].tolist(), strict=True
        ):
            if file_number != now:
                now, file, limit = file_number, None, -1
                try:
                    file = self._open.get(entries.files[now])
                    limit = file.size
                except VoxarkError:
                    pass  # told of each key by _measure_one
            limits.append(limit)
            raws.append(
                file.peek(HEADER_BYTES, offset).ljust(HEADER_BYTES, b"\0")
                if limit > 0
                else bytes(HEADER_BYTES)
            )
        rows, cols, sizes = parse_headers(np.frombuffer(b"".join(raws), np.uint8).reshape(-1, HEADER_BYTES))
        return rows, cols, (sizes >= 0) & (entries.offset[numbers] + sizes <= np.array(limits))

    def _measure_one(self, number, dims):
        """Measure an entry that is out of the ordinary: a strange range, text, or an error to be told."""
        key = self.keys[number]
        try:
            self.lengths[number], dims[number] = self._unusual_shape(number, key)
        except VoxarkError as error:
            if not self._entries.permissive:
                raise VoxarkError(f"{key}: {error}") from None
            logger.warning("%s: skipped: %s", key, error)
            self.skipped.append((key, str(error)))
            self.lengths[number] = 0

    def _unusual_shape(self, number, key):
        entries = self._entries
        path, offset = entries.path(number), int(entries.offset[number])
        text = entries.ranges.get(number)
        if entries.last is not None and entries.last[number] >= 0:
            text = f"{entries.first[number]}:{entries.last[number]}"
        file = self._open.get(path)
        rows, cols, size = (
            int(a[0])
            for a in parse_headers(
                np.frombuffer(file.peek(HEADER_BYTES, offset).ljust(HEADER_BYTES, b"\0"), np.uint8)[None]
            )
        )
        if size < 0:  # text, what kaldiio wrote by numpy, or nothing of the kind: read whole
            value = tables.read_object("mat", f"{path}:{offset}" + (f"[{text}]" if text else ""))
            entries.keep(number, key, value)
            return value.shape
        if offset + size > file.size:
            raise VoxarkError(
                f"{path}: truncated: the matrix at byte {offset} takes {size} bytes, "
                f"{max(0, file.size - offset)} are left"
            )
        if text is None:
            return rows, cols
        _, rows, columns = _apply(text, rows, cols, f"{path}:{offset}")
        return rows, len(range(*columns.indices(cols)))

    def _one_dimension(self, dims):
        found = np.flatnonzero(dims >= 0)
        if not len(found):
            raise VoxarkError(f"{self.name}: all utterances are empty")
        other = found[dims[found] != dims[found[0]]]
        if len(other):
            raise VoxarkError(
                f"{self.keys[int(other[0])]}: {self.name}: features of dimension {dims[other[0]]}, but "
                f"{self.keys[int(found[0])]} has {dims[found[0]]}: mixed kinds of features"
            )
        return int(dims[found[0]])


def _apply(text, rows, cols, name):
    """First row, number of rows and slice of columns that a range leaves of a matrix."""
    row = apply_range(np.broadcast_to(np.arange(rows)[:, None], (rows, cols)), text, name)
    column = apply_range(np.broadcast_to(np.arange(cols), (rows, cols)), text, name)
    return int(row[0, 0]), len(row), slice(int(column[0, 0]), int(column[0, -1]) + 1)


def _read_counts(name):
    """Yield (key, number) of utt2num_frames."""
    if tables.is_specifier(name):
        with tables.open_reader("int", name) as reader:
            yield from reader
        return
    with open_input(name) as source:
        for key, text in script_lines(source):
            if not (text.isascii() and text.isdigit()) or len(text) > 9:
                raise VoxarkError(f"{name}: {key}: a number of frames was expected, found {text[:40]!r}")
            yield key, int(text)


def _blocks(pairs):
    """Yield (list of keys, list of values) of up to _AT_ONCE pairs."""
    while block := list(itertools.islice(pairs, _AT_ONCE)):
        yield tuple(map(list, zip(*block, strict=True)))


class _OpenFiles:
    """The files that were used last, open. One that is forgotten closes when the last reader is done."""

    def __init__(self, most):
        self._most, self._files, self._lock = most, OrderedDict(), threading.Lock()

    def get(self, path):
        """Return the SharedFile of a path."""
        with self._lock:
            file = self._files.get(path)
            if file is not None:
                self._files.move_to_end(path)
                return file
        file = SharedFile(path)
        with self._lock:
            self._files[path] = file
            while len(self._files) > self._most:
                self._files.popitem(last=False)
        return file
