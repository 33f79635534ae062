"""Tokens, integers and floats as Kaldi writes them, in binary and text.

Readers take a :class:`voxark.io.streams.Source` that stands behind the ``\\0B`` mark (binary) or at the text;
writers take anything with a ``write(bytes)`` method. Numbers in text have seven significant digits, as Kaldi
writes them.
"""

import struct

import numpy as np

from voxark.errors import VoxarkError

WHITE = b" \t\n\r"
_LONGEST_WORD = 4096
_INT32 = struct.Struct("<bi")  # a size mark and the number
_FLOAT32 = struct.Struct("<bf")
_FLOAT64 = struct.Struct("<bd")
_UINT16 = struct.Struct("<BH")
_SIZED_INT = np.dtype([("size", "i1"), ("value", "<i4")])


# ----------------------------------------------------------------------------------------------------- tokens


def read_token(source, binary):
    """Read one token and the white space behind it."""
    if not binary:
        skip_white(source)
    word = source.read_until(WHITE, _LONGEST_WORD)
    token = word.rstrip(WHITE)
    if not token or (token == word and (binary or source.peek(1))):
        if not source.peek(1):
            raise source.truncated("a token was expected")
        raise source.error("a token was expected")
    return token.decode("utf-8", "surrogateescape")


def write_token(out, token, binary):
    """Write one token and a space."""
    out.write(token.encode() + b" ")


def expect_token(source, binary, *tokens):
    """Read a token that must be one of ``tokens``; return it."""
    at = source.position
    token = read_token(source, binary)
    if token not in tokens:
        raise source.error(f"{' or '.join(tokens)} was expected, {token[:40]!r} was found", at)
    return token


def skip_white(source):
    """Skip white space in text."""
    while (byte := source.peek(1)) and byte in WHITE:
        source.read(1)


def read_text_line(source):
    """Read a line of text that must end in a newline: one that does not may have been cut."""
    at = source.position
    line = source.read_line()
    if b"\0" in line:
        raise source.error("binary data where a line of text was expected", at)
    if not line.endswith(b"\n"):
        raise source.truncated("the last line does not end in a newline (add one if the text is whole)")
    return line


# --------------------------------------------------------------------------------------------- single numbers


def parse_int(word):
    """An int32 from a word of text; ValueError if it is none."""
    if b"_" not in word and len(word) < 30:  # underscores between digits are Python's own
        try:
            if -2**31 <= (number := int(word)) < 2**31:
                return number
        except ValueError:
            pass
    raise ValueError(f"{word[:40].decode('utf-8', 'replace')!r} is not an integer of 32 bits")


def parse_float(word):
    """A float from a word of text; ValueError if it is none."""
    if b"_" in word:
        raise ValueError(f"{word[:40].decode('utf-8', 'replace')!r} is not a number")
    return float(word)


def _read_word(source, parse, what):
    skip_white(source)
    word = source.read_until(WHITE, _LONGEST_WORD).strip()
    try:
        return parse(word)
    except ValueError:
        if not source.peek(1):
            raise source.truncated(f"{what} was expected") from None
        found = word[:40].decode("utf-8", "replace")
        raise source.error(f"{what} was expected, {found!r} was found") from None


def read_int(source, binary):
    """Read an int32 (4-byte size mark in binary)."""
    if not binary:
        return _read_word(source, parse_int, "an integer")
    size, number = _INT32.unpack(source.read(5))
    if size != 4:
        raise source.error(f"an integer of 4 bytes was expected, the size mark is {size}",
                           source.position - 5)
    return number


def write_int(out, value, binary):
    """Write an int32."""
    if not -2**31 <= value < 2**31:
        raise VoxarkError(f"{value} does not fit an integer of 32 bits")
    out.write(_INT32.pack(4, value) if binary else b"%d " % value)


def read_float(source, binary):
    """Read a float (float32 or float64 in binary) as a Python float."""
    if not binary:
        return _read_word(source, parse_float, "a number")
    size = source.read(1)[0]
    if size not in (4, 8):
        raise source.error(f"a float was expected, the size mark is {size}", source.position - 1)
    return struct.unpack("<f" if size == 4 else "<d", source.read(size))[0]


def write_float(out, value, binary):
    """Write a float32."""
    try:
        data = _FLOAT32.pack(4, value)
    except OverflowError:
        raise VoxarkError(f"{value} does not fit a float of 32 bits") from None
    out.write(data if binary else b"%.7g " % _FLOAT32.unpack(data)[1])


def write_double(out, value, binary):
    """Write a float64, which :func:`read_float` reads too."""
    out.write(_FLOAT64.pack(8, value) if binary else b"%.7g " % value)


def read_flags(source, binary):
    """Read a uint16 bit field (size mark 0xFE in binary: unsigned types have a negative size)."""
    if not binary:
        at = source.position
        if 0 <= (flags := _read_word(source, parse_int, "an integer")) < 1 << 16:
            return flags
        raise source.error(f"an unsigned integer of 16 bits was expected, {flags} was found", at)
    size, flags = _UINT16.unpack(source.read(3))
    if size != 0xFE:
        raise source.error("an unsigned 2-byte integer was expected", source.position - 3)
    return flags


def write_flags(out, value, binary):
    """Write a uint16 bit field."""
    if not 0 <= value < 1 << 16:
        raise VoxarkError(f"{value} does not fit an unsigned integer of 16 bits")
    out.write(_UINT16.pack(0xFE, value) if binary else b"%d " % value)


# ---------------------------------------------------------------------------------------------- many integers


def read_sized_ints(source, number):
    """Read ``number`` binary int32, each with its size mark: (number,) int32."""
    if number < 0:
        raise source.error(f"corrupt: {number} integers")
    items = source.read_array(_SIZED_INT, number)
    if (items["size"] != 4).any():
        raise source.error("corrupt: an integer of 4 bytes was expected", source.position - 5 * number)
    return items["value"].astype(np.int32)


def pack_sized_ints(values):
    """The binary form of a count and as many int32."""
    values = np.asarray(values)
    if values.size and not (values.dtype.kind in "iu" and -2**31 <= values.min() and values.max() < 2**31):
        raise VoxarkError("integers of 32 bits were expected")
    items = np.empty(len(values), _SIZED_INT)
    items["size"], items["value"] = 4, values
    return _INT32.pack(4, len(values)) + items.tobytes()
