"""Gaussian posteriors and Gaussian selections as Kaldi writes them: flat arrays, and lists made of them.

In binary every number, integer or float, is a unit of five bytes: a size mark (4) and the value. Posteriors
are the number of frames and for each frame the number of its entries, then index and probability of each; a
selection holds indices alone. A whole utterance is thus one array of units, and only the places of the counts
must be found one after the other.
"""

import struct
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.array_files import parse_integers
from voxark.io.basic_types import parse_float, parse_int, read_int, read_text_line, write_int

_UNIT = np.dtype([("size", "i1"), ("value", "<i4")])
_COUNT = struct.Struct("<bi")


class Posteriors(NamedTuple):
    """Sparse posteriors of T frames, of K = counts.sum() entries, frames in order.

    counts (T,) int32 entries of each frame; index (K,) int32; value (K,) float32.
    """

    counts: np.ndarray
    index: np.ndarray
    value: np.ndarray


class GaussSelection(NamedTuple):
    """Lists of integers, one a frame: counts (T,) int32, index (K,) int32, K = counts.sum()."""

    counts: np.ndarray
    index: np.ndarray


# ----------------------------------------------------------------------------------------------------- binary


def _read_frames(source, width, frames_word, entries_word):
    """Read counts (T,) and all other values (K*width,) int32 of T frames with entries of ``width`` units."""
    number = read_int(source, True)
    if number < 0:
        raise source.error(f"corrupt: {number} {frames_word}")
    start = source.position
    data, counts = _walk(source, number, 5 * width, entries_word)
    units = np.frombuffer(data, _UNIT)
    wrong = units["size"] != 4
    if wrong.any():
        what = "pairs of an integer and a float were" if width == 2 else "an integer of 4 bytes was"
        raise source.error(f"corrupt: {what} expected", start + 5 * int(wrong.argmax()))
    counts = np.array(counts, np.int32)
    return counts, units["value"][_entry_units(counts, width)]


def _walk(source, number, entry_bytes, entries_word):
    """Read ``number`` frames; return their bytes and the list of their numbers of entries.

    Each count says where the next one stands, so this is a loop. Never more is asked for than must be there
    (the counts of the frames to come): a pipe is not read beyond the value, and a corrupt number takes no
    memory.
    """
    start, data, counts, at = source.position, bytearray(), [], 0
    unpack = _COUNT.unpack_from
    while (surely := at + 5 * (number - len(counts)) - len(data)) > 0:
        data += source.read(surely)
        last = len(data) - 5
        while at <= last and len(counts) < number:
            size, count = unpack(data, at)
            if size != 4:
                raise source.error(f"an integer of 4 bytes was expected, the size mark is {size}", start + at)
            if count < 0:
                raise source.error(f"corrupt: {count} {entries_word}", start + at)
            counts.append(count)
            at += 5 + entry_bytes * count
    return data, counts


def _entry_units(counts, width):
    """Mask of the units that are not counts."""
    chosen = np.ones(len(counts) + width * int(counts.sum(dtype=np.int64)), bool)
    chosen[_count_units(counts, width)] = False
    return chosen


def _count_units(counts, width):
    """Places (T,) of the counts among the units."""
    return np.arange(len(counts)) + width * (np.cumsum(counts, dtype=np.int64) - counts)


def _pack_frames(counts, entries):
    """The bytes behind the number of frames, from counts (T,) and entries (K, width), all int32."""
    width = entries.shape[1]
    chosen = _entry_units(counts, width)
    values = np.empty(len(chosen), "<i4")
    values[_count_units(counts, width)] = counts
    values[chosen] = entries.ravel()
    units = np.empty(len(chosen), _UNIT)
    units["size"], units["value"] = 4, values
    return units.tobytes()


def _checked_frames(frames):
    """The arrays of Posteriors or GaussSelection in their types; VoxarkError if they do not fit together."""
    counts, index, *value = map(np.asarray, frames)
    counts, index = _as_int32(counts), _as_int32(index)
    if counts.size and counts.min() < 0:
        raise VoxarkError(f"a frame has {counts.min()} entries")
    total = int(counts.sum(dtype=np.int64))
    if any(array.shape != (total,) for array in (index, *value)):
        shapes = ", ".join(str(array.shape) for array in (index, *value))
        raise VoxarkError(f"the frames have {total} entries, the arrays of the entries have shapes {shapes}")
    return counts, index, *(array.astype(np.float32, copy=False) for array in value)


def _as_int32(array):
    fits = not array.size or (array.dtype.kind in "iu" and -2**31 <= array.min() and array.max() < 2**31)
    if array.ndim != 1 or not fits:
        raise VoxarkError("integers of 32 bits were expected")
    return array.astype(np.int32, copy=False)


# ---------------------------------------------------------------------------------------------------- arrays


def read_posterior_arrays(source, binary):
    """Read posteriors into :class:`Posteriors`."""
    if not binary:
        counts, index, value = _read_text_posteriors(source)
        with np.errstate(over="ignore"):
            return Posteriors(counts, index, value.astype(np.float32))
    counts, values = _read_frames(source, 2, "frames", "posteriors")
    return Posteriors(counts, values[::2].copy(), values[1::2].copy().view("<f4"))


def write_posterior_arrays(out, posteriors, binary):
    """Write :class:`Posteriors`; VoxarkError if the arrays do not belong together."""
    counts, index, value = _checked_frames(posteriors)
    if binary:
        entries = np.stack((index, value.view(np.int32)), axis=1)
        write_int(out, len(counts), True)
        out.write(_pack_frames(counts, entries))
        return
    texts = [b"%d %.7g " % pair for pair in zip(index.tolist(), value.tolist(), strict=True)]
    out.write(b"".join(b"[ " + b"".join(frame) + b"] " for frame in split_frames(counts, texts)) + b"\n")


def read_selection_arrays(source, binary):
    """Read a Gaussian selection (a list of integer lists) into :class:`GaussSelection`."""
    if binary:
        return GaussSelection(*_read_frames(source, 1, "lists", "integers"))
    at = source.position
    *lists, rest = read_text_line(source).split(b";")
    if rest.strip():
        raise source.bad("a list of integers does not end in ';'", at)
    words = [part.split() for part in lists]
    index = parse_integers(source, [word for part in words for word in part], at)
    return GaussSelection(np.array(list(map(len, words)), np.int32), np.array(index, np.int32))


def write_selection_arrays(out, selection, binary):
    """Write :class:`GaussSelection`; VoxarkError if the arrays do not belong together."""
    counts, index = _checked_frames(selection)
    if binary:
        write_int(out, len(counts), True)
        out.write(_pack_frames(counts, index[:, None]))
        return
    texts = [b"%d " % number for number in index.tolist()]
    out.write(b"".join(b"".join(frame) + b"; " for frame in split_frames(counts, texts)) + b"\n")


def split_frames(counts, entries):
    """Cut a list of entries into one list for each frame."""
    ends = np.cumsum(counts).tolist()
    return [entries[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _read_text_posteriors(source):
    """A line of frames, each between brackets: counts, indices and float64 values."""
    at = source.position
    words = read_text_line(source).split()
    opens = [place for place, word in enumerate(words) if word == b"["]
    closes = [place for place, word in enumerate(words) if word == b"]"]
    expected = [0, *(place + 1 for place in closes)]  # each '[' stands right behind the ']' before it
    if opens != expected[:-1] or expected[-1] != len(words):
        found = [words[place] for place in expected if place < len(words) and words[place] != b"["]
        if not found:
            raise source.bad("']' was expected", at)
        word = found[0][:20].decode("utf-8", "replace")
        raise source.bad(f"'[' was expected, {word!r} was found", at)
    lengths = np.array(closes, np.int64) - np.array(opens, np.int64) - 1
    if (lengths % 2).any():
        raise source.bad("a number was expected, ']' was found", at)
    entries = [word for word in words if word not in (b"[", b"]")]
    try:
        index, value = list(map(parse_int, entries[::2])), list(map(parse_float, entries[1::2]))
    except ValueError:
        raise source.bad("pairs of an integer and a number were expected", at) from None
    return (lengths // 2).astype(np.int32), np.array(index, np.int32), np.array(value, np.float64)


# ------------------------------------------------------------------------------------------------------ lists


def read_posterior(source, binary):
    """Read posteriors: for each frame a list of (index, probability)."""
    counts, index, value = read_posterior_arrays(source, True) if binary else _read_text_posteriors(source)
    return split_frames(counts, list(zip(index.tolist(), value.tolist(), strict=True)))


def write_posterior(out, frames, binary):
    """Write posteriors given as a list of (index, probability) for each frame."""
    pairs = [pair for frame in frames for pair in frame]
    try:
        index = np.array([int(i) for i, _ in pairs], np.int32)
        value = np.array([v for _, v in pairs], np.float32)
        if any(i != pair[0] for i, pair in zip(index.tolist(), pairs, strict=True)):
            raise ValueError("an index is no integer")
    except (OverflowError, ValueError, TypeError, IndexError) as error:
        raise VoxarkError(f"pairs of an integer of 32 bits and a number were expected ({error})") from None
    write_posterior_arrays(out, Posteriors(_lengths(frames), index, value), binary)


def read_int_lists(source, binary):
    """Read a list of integer lists (Gaussian selection)."""
    counts, index = read_selection_arrays(source, binary)
    return split_frames(counts, index.tolist())


def write_int_lists(out, lists, binary):
    """Write a list of integer lists."""
    index = np.array([number for part in lists for number in part])
    write_selection_arrays(out, GaussSelection(_lengths(lists), index), binary)


def _lengths(lists):
    return np.array([len(part) for part in lists], np.int32)
