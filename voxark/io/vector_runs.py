"""Runs of binary vectors of one type and dimension, read without a Python object for each.

Nearly every archive of utterance vectors is such a run from end to end. What is not (text, another dimension,
a strange key) is left to the reader of single entries, which also finds the words for what is wrong.
"""

import re

import numpy as np

_RUN_BYTES = 1 << 20  # looked through at once
_FIRST = re.compile(rb"[^\0-\x20\x7f]+ (\0B([FD])V \x04(....))", re.DOTALL)
_NO_KEYS = re.compile(rb"[\0-\x20\x7f]")
_LONGEST_KEY = 4094


def read_run(source):
    """Return (keys, x (n,D) float32 or float64) of the next entries of an archive, n >= 1, or None.

    None: the next entry is no binary vector of Kaldi's that lies whole in the buffer; nothing has been read.
    """
    first = _FIRST.match(source.peek(_LONGEST_KEY + 16))
    if first is None or first.start(1) > _LONGEST_KEY:
        return None
    dtype, dim = (
        np.dtype("<f4" if first[2] == b"F" else "<f8"),
        int.from_bytes(first[3], "little", signed=True),
    )
    size = dim * dtype.itemsize
    if not 0 < size < _RUN_BYTES:
        return None
    data = source.peek(_RUN_BYTES)
    keys, values, used = _split(data, b" " + first[1], size)
    good = _number_of_keys(keys)
    if good == 0:
        return None
    if good < len(keys):  # a key that is none ends the run: its entry is read, and refused, by itself
        used = sum(map(len, keys[:good])) + good * (1 + len(first[1]) + size)
        keys, values = keys[:good], values[:good]
    source.advance(used)
    x = np.frombuffer(b"".join(values), dtype).reshape(good, dim)
    return b"\n".join(keys).decode("utf-8", "surrogateescape").split("\n"), x


def _split(data, header, size):
    """Split ``data`` into keys and values for as long as ``header`` (a blank and the form) comes."""
    keys, values, at, length = [], [], 0, len(header)
    while (end := data.find(b" ", at)) >= 0:
        begin = end + length
        stop = begin + size
        if stop > len(data) or data[end:begin] != header:
            break
        keys.append(data[at:end])
        values.append(data[begin:stop])
        at = stop
    return keys, values, at


def _number_of_keys(keys):
    """How many of the first keys are keys: not empty, not too long, without white space and controls."""
    if (
        min(map(len, keys), default=0)
        and max(map(len, keys)) <= _LONGEST_KEY
        and not _NO_KEYS.search(b"".join(keys))
    ):
        return len(keys)
    bad = (n for n, key in enumerate(keys) if not 0 < len(key) <= _LONGEST_KEY or _NO_KEYS.search(key))
    return next(bad, len(keys))
