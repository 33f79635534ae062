"""The keys of a large table in little memory: about 24 bytes each beside their text."""

from array import array
from collections.abc import Sequence

import numpy as np

from voxark.errors import VoxarkError

_AT_ONCE = 1 << 16


class KeyList(Sequence):
    """Keys (str) by number, and numbers by key; ``name`` is the table's, for messages.

    Raises VoxarkError for a key that occurs twice.
    """

    def __init__(self, keys, name):
        self._name, self._text = name, bytearray()
        ends, hashes = array("q", [0]), array("q")
        for key in keys:
            self._text += key.encode("utf-8", "surrogateescape")
            ends.append(len(self._text))
            hashes.append(hash(key))
        self._ends = np.frombuffer(ends, np.int64) if ends else np.zeros(0, np.int64)
        self._index(np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64))

    def _index(self, hashes):
        self._order = np.argsort(hashes, kind="stable").astype(
            np.int32 if len(hashes) < 1 << 31 else np.int64
        )
        self._hashes = hashes[self._order]
        for place in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            if self[self._order[place]] == self[self._order[place + 1]]:
                raise VoxarkError(f"{self._name}: key {self[self._order[place]]!r} occurs twice")

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, number):
        if isinstance(number, slice):
            return list(self._some(*number.indices(len(self))))
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        text = self._text[self._ends[number] : self._ends[number + 1]]
        return text.decode("utf-8", "surrogateescape")

    def _some(self, first, end, step):
        if step != 1:
            yield from (self[n] for n in range(first, end, step))
            return
        for start in range(first, end, _AT_ONCE):
            ends = self._ends[start : min(start + _AT_ONCE, end) + 1].tolist()
            for here, there in zip(ends, ends[1:], strict=False):
                yield self._text[here:there].decode("utf-8", "surrogateescape")

    def __iter__(self):
        return self._some(0, len(self), 1)

    def numbers(self, keys):
        """Return the number of each of a list of keys, -1 where it is absent: (n,) int64."""
        found = np.full(len(keys), -1, np.int64)
        if not len(self):
            return found
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        places = np.searchsorted(self._hashes, hashes)
        for n, (place, code) in enumerate(zip(places.tolist(), hashes.tolist(), strict=True)):
            while place < len(self._hashes) and self._hashes[place] == code:
                if self[self._order[place]] == keys[n]:
                    found[n] = self._order[place]
                    break
                place += 1  # two keys of one hash
        return found

    def number(self, key):
        """Return the number of a key; VoxarkError where there is none."""
        found = int(self.numbers([key])[0])
        if found < 0:
            raise VoxarkError(f"{self._name}: there is no key {key!r}")
        return found

    def __contains__(self, key):
        return isinstance(key, str) and int(self.numbers([key])[0]) >= 0

    def index(self, key):
        """As :meth:`number`, with the ValueError of lists."""
        found = int(self.numbers([key])[0])
        if found < 0:
            raise ValueError(f"{key!r} is not in {self._name}")
        return found
