"""Some rows of a binary matrix in a file, compressed or not, by reading no more than their bytes.

Many threads may read one :class:`SharedFile` at once: every read names its place.
"""

import io
import os
import stat
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.compression import read_compressed
from voxark.io.streams import Source

HEADER_BYTES = 24  # at least the longest header
_PAGE = 4096  # gaps up to this are read over: the system reads whole pages anyway


class Layout(NamedTuple):
    """How a kind of matrix lies in a file: header, ``per_column`` bytes a column, then the items."""

    token: str
    header: np.dtype
    item: np.dtype
    per_column: int = 0


def _plain(letter):
    header = [("mark", "V5"), ("row_mark", "i1"), ("rows", "<i4"), ("col_mark", "i1"), ("cols", "<i4")]
    return Layout(letter + "M", np.dtype(header), np.dtype({"F": "<f4", "D": "<f8"}[letter]))


def _compressed(token, item, per_column=0):
    mark = ("mark", f"V{len(token) + 3}")
    header = [mark, ("low", "<f4"), ("span", "<f4"), ("rows", "<i4"), ("cols", "<i4")]
    return Layout(token, np.dtype(header), np.dtype(item), per_column)


LAYOUTS = {
    b"\0BFM ": _plain("F"),
    b"\0BDM ": _plain("D"),
    b"\0BCM ": _compressed("CM", "u1", 8),
    b"\0BCM2": _compressed("CM2", "<u2"),
    b"\0BCM3": _compressed("CM3", "u1"),
}


def parse_headers(raw):
    """Dimensions and sizes of the matrices whose first bytes, the mark included, are ``raw`` (n,24) uint8.

    Returns rows, cols (n,) int32 and sizes (n,) int64, of the whole value in bytes; all are -1 where no
    binary matrix begins. Missing bytes at the end of a file are zeros.
    """
    number = len(raw)
    rows, cols, sizes = (
        np.full(number, -1, np.int32),
        np.full(number, -1, np.int32),
        np.full(number, -1, np.int64),
    )
    marks = np.ascontiguousarray(raw[:, :5]).view("V5")[:, 0]
    for mark, layout in LAYOUTS.items():
        places = np.flatnonzero(marks == np.void(mark))
        if not len(places):
            continue
        heads = np.ascontiguousarray(raw[places, : layout.header.itemsize]).view(layout.header)[:, 0]
        good = (heads["rows"] >= 0) & (heads["cols"] >= 0)
        if "row_mark" in layout.header.names:
            good &= (heads["row_mark"] == 4) & (heads["col_mark"] == 4)
        places, heads = places[good], heads[good]
        wide = heads["cols"].astype(np.int64)
        rows[places], cols[places] = heads["rows"], heads["cols"]
        sizes[places] = (
            layout.header.itemsize + wide * layout.per_column + wide * heads["rows"] * layout.item.itemsize
        )
    return rows, cols, sizes


class SharedFile:
    """A regular file open for reading at any place by any thread; it closes with its last user."""

    def __init__(self, path):
        self.path, self._descriptor = path, -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.is_regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        except OSError as error:
            raise VoxarkError(f"{path}: {error.strerror}") from None
        except ValueError as error:  # a null byte in the name
            raise VoxarkError(f"{path!r}: not a file name ({error})") from None

    def __del__(self):
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def size(self):
        """Bytes of the file."""
        return os.fstat(self._descriptor).st_size

    def peek(self, number, at):
        """Up to ``number`` bytes from byte ``at`` on, fewer at the end of the file."""
        try:
            return os.pread(self._descriptor, number, at)
        except OSError as error:
            raise VoxarkError(f"{self.path}: cannot be read at byte {at}: {error.strerror}") from None

    def read_into(self, array, at):
        """Fill a contiguous array from byte ``at`` on; VoxarkError if the bytes are not all there."""
        view, done = memoryview(array.reshape(-1).view(np.uint8)), 0
        while done < len(view):
            try:
                number = os.preadv(self._descriptor, [view[done:]], at + done)
            except OSError as error:
                raise VoxarkError(f"{self.path}: cannot be read at byte {at}: {error.strerror}") from None
            if number <= 0:
                raise VoxarkError(
                    f"{self.path}: truncated: {len(view)} bytes expected at byte {at}, {done} found"
                )
            done += number
        return array


class StoredMatrix:
    """The binary matrix at byte ``at`` of a SharedFile: ``rows``, ``cols`` and some of its rows on demand."""

    def __init__(self, file, at):
        raw = file.peek(HEADER_BYTES, at)
        self.file, self.at, self.layout = file, at, LAYOUTS.get(raw[:5])
        if self.layout is None or len(raw) < self.layout.header.itemsize:
            raise VoxarkError(f"{file.path}: a binary matrix was expected at byte {at}")
        self._head = np.frombuffer(raw, self.layout.header, 1)[0]
        self.rows, self.cols = int(self._head["rows"]), int(self._head["cols"])
        if self.rows < 0 or self.cols < 0:
            raise VoxarkError(f"{file.path}: corrupt: a matrix of {self.rows} x {self.cols} at byte {at}")
        self._start = at + self.layout.header.itemsize + self.cols * self.layout.per_column

    def read(self, first, last):
        """Rows first ... last - 1: (last - first, cols) float32; VoxarkError naming file and byte."""
        if not 0 <= first <= last <= self.rows:
            raise VoxarkError(
                f"{self.file.path}: rows {first} to {last - 1} of {self.rows} at byte {self.at}"
            )
        if self.layout.token == "CM":
            return self._decode(self._column_codes(first, last), last - first)
        item, number = self.layout.item, last - first
        place = self._start + first * self.cols * item.itemsize
        values = self.file.read_into(np.empty((number, self.cols), item), place)
        if self.layout.token in ("FM", "DM"):
            return values.astype(np.float32, copy=False)
        return self._decode(values.tobytes(), number)

    def _column_codes(self, first, last):
        """Percentiles and codes of some rows of a matrix that is stored column by column."""
        percentiles = np.empty(self.cols * self.layout.per_column, np.uint8)
        self.file.read_into(percentiles, self._start - len(percentiles))
        number, rows = last - first, self.rows
        codes = np.empty((self.cols, number), np.uint8)
        if rows - number <= _PAGE and number:
            span = np.empty((self.cols - 1) * rows + number, np.uint8)
            self.file.read_into(span, self._start + first)
            codes[:] = np.lib.stride_tricks.as_strided(span, codes.shape, (rows, 1))
        else:
            for column in range(self.cols):
                self.file.read_into(codes[column], self._start + column * rows + first)
        return percentiles.tobytes() + codes.tobytes()

    def _decode(self, data, number):
        """Decode the codes of ``number`` rows as a matrix that has no others."""
        head = np.zeros((), np.dtype(self.layout.header.descr[1:]))
        for name in head.dtype.names:
            head[name] = self._head[name]
        head["rows"] = number
        if not number or not self.cols:
            return np.zeros((number, self.cols), np.float32)
        try:
            return read_compressed(
                Source(io.BytesIO(head.tobytes() + data), self.file.path), self.layout.token
            )
        except VoxarkError as error:
            raise VoxarkError(f"{error} of the matrix at byte {self.at}") from None
