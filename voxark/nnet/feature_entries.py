"""Where the matrices of a table are: the entries of a script, or of an archive, in compact arrays."""

import re
from array import array

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.matrix_rows import HEADER_BYTES, LAYOUTS, SharedFile, parse_headers
from voxark.io.specifiers import script_lines, split_range
from voxark.io.streams import open_input, split_offset
from voxark.nnet.key_list import KeyList

_LONGEST_KEY = 4096
_ROWS = re.compile("([0-9]{1,9}):([0-9]{1,9})(?:,:)?")


class Entries:
    """The entries of a table of matrices.

    ``keys`` (KeyList); ``files``: paths; ``file`` (N,) int32 into them, -1 for what is held in memory;
    ``offset`` (N,) int64: the byte of the value; ``first``, ``last`` (N,) int32: the rows that a script's
    ``[first:last]`` names, last included and -1 for all (both None without such ranges); ``ranges``:
    {number: text} of the ranges that name columns, too; ``held``: {number: matrix (T,F) float32}.
    ``max_held`` limits the bytes of those.
    """

    def __init__(self, rspecifier, max_held):
        self.name, self.max_held = rspecifier, max_held
        self.files, self._numbers = [], {}
        self.file, self.offset = array("i"), array("q")
        self.first, self.last, self.ranges = array("i"), array("i"), {}
        self.held, self.held_bytes, self.skipped = {}, 0, []
        spec = tables.parse_rspecifier(rspecifier)
        self.permissive = "p" in spec.flags
        self.keys = KeyList(
            self._script(spec.scp) if spec.scp is not None else self._archive(spec.ark), rspecifier
        )
        self.file, self.offset = np.frombuffer(self.file, "i4"), np.frombuffer(self.offset, "i8")
        if self.last:
            self._pad_rows(len(self.keys))
        self.first, self.last = (np.frombuffer(a, "i4") if a else None for a in (self.first, self.last))

    def path(self, number):
        """The path of the file that holds entry ``number``."""
        return self.files[self.file[number]]

    def keep(self, number, key, value):
        """Hold the matrix of an entry in memory. Raises VoxarkError where that gets too much."""
        self.held_bytes += value.size * 4
        if self.held_bytes > self.max_held:
            raise VoxarkError(
                f"{key}: {self.name}: more than {self.max_held / 2**20:.0f} MiB of features that are no "
                "binary archive on disk are too much to hold in memory: write them with copy-feats to "
                "ark,scp:feats.ark,feats.scp and give scp:feats.scp"
            )
        self.held[number] = np.array(value, np.float32)

    def _add(self, file, offset):
        self.file.append(file)
        self.offset.append(offset)

    def _number_of(self, path):
        number = self._numbers.setdefault(path, len(self.files))
        if number == len(self.files):
            self.files.append(path)
        return number

    # ---- a script

    def _script(self, rxfilename):
        """Yield the keys of a script."""
        last_path = last_number = None
        with open_input(rxfilename) as source:
            for key, name in script_lines(source):
                path, colon, digits = name.rpartition(":")
                if path == last_path and digits.isdigit() and digits.isascii() and len(digits) <= 18:
                    self._add(last_number, int(digits))  # nearly every line
                elif name.endswith("|") or name == "-":
                    self._keep_object(key, name)
                else:
                    whole, cut = split_range(name)
                    path, offset = split_offset(whole)
                    if cut is not None:
                        self._note_range(len(self.file), cut)
                    if path != last_path:
                        last_path, last_number = path, self._number_of(path)
                    self._add(last_number, offset)
                yield key

    def _keep_object(self, key, name):
        try:
            value = tables.read_object("mat", name)
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None
        self.keep(len(self.file), key, value)
        self._add(-1, 0)

    def _pad_rows(self, number):
        missing = number - len(self.first)
        self.first.extend([0] * missing)
        self.last.extend([-1] * missing)

    def _note_range(self, number, text):
        found = _ROWS.fullmatch(text)
        if found is None:
            self.ranges[number] = text
            return
        self._pad_rows(number)
        self.first.append(int(found[1]))
        self.last.append(int(found[2]))

    # ---- an archive

    def _archive(self, rxfilename):
        """Yield the keys of an archive: walked through if it is a file of binary matrices, else held."""
        if rxfilename != "-" and not rxfilename.endswith("|"):
            file = SharedFile(rxfilename)
            if file.is_regular and _begins_binary(file):
                yield from self._walk(file)
                return
        with tables.open_reader("mat", self.name) as reader:
            for key, value in reader:
                self.keep(len(self.file), key, value)
                self._add(-1, 0)
                yield key
            self.skipped += reader.skipped

    def _walk(self, file):
        """Yield the keys of an archive of binary matrices, stepping over the values."""
        number, at, size = self._number_of(file.path), 0, file.size
        while at < size:
            start = file.peek(256, at)
            if b" " not in start:
                start = file.peek(_LONGEST_KEY, at)
            key, blank, _ = start.partition(b" ")
            if not blank or not key or any(byte < 0x21 or byte == 0x7F for byte in key):
                raise VoxarkError(f"{file.path}: a key was expected at byte {at} (is this a Kaldi archive?)")
            key, at = key.decode("utf-8", "surrogateescape"), at + len(key) + 1
            raw = np.frombuffer(file.peek(HEADER_BYTES, at).ljust(HEADER_BYTES, b"\0"), np.uint8)
            length = int(parse_headers(raw[None])[2][0])
            if length < 0:
                raise VoxarkError(f"{key}: {file.path}: a binary matrix was expected at byte {at}")
            self._add(number, at)
            yield key
            at += length


def _begins_binary(file):
    key, blank, value = file.peek(_LONGEST_KEY + HEADER_BYTES, 0).partition(b" ")
    return bool(blank) and value[:5] in LAYOUTS
