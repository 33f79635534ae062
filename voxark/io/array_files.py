"""Vectors, matrices, packed matrices and vectors of integers as Kaldi writes them, in binary and text.

Each codec is a pair of functions: ``read_x(source, binary)`` takes a :class:`voxark.io.streams.Source` that
stands behind the ``\\0B`` mark (binary) or at the text; ``write_x(out, value, binary)`` takes anything with a
``write(bytes)`` method. Numbers in text have seven significant digits, as Kaldi writes them.
"""

import struct

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.basic_types import (pack_sized_ints, parse_float, parse_int, read_int, read_sized_ints,
                                   read_text_line, read_token, skip_white, write_token)
from voxark.packed import packed_dim

_DIMENSIONS = {1: struct.Struct("<bi"), 2: struct.Struct("<bibi")}  # each with its size mark
_CODES = {"F": np.dtype("<f4"), "D": np.dtype("<f8")}


# ------------------------------------------------------------------------------------------ vectors, matrices


def _read_dimensions(source, count):
    numbers = _DIMENSIONS[count].unpack(source.read(5 * count))
    if numbers[::2] != (4,) * count:
        raise source.error("corrupt: an integer of 4 bytes was expected", source.position - 5 * count)
    if min(numbers) < 0:
        raise source.error(f"corrupt: dimension {min(numbers)}", source.position - 5 * count)
    return numbers[1::2]


def read_matrix(source, binary, text_dtype=np.float32):
    """Read a matrix, compressed or not: (rows, cols) float32 or float64 as stored (or ``text_dtype``)."""
    if not binary:
        return _read_text_array(source, 2).astype(text_dtype)
    at = source.position
    token = read_token(source, True)
    if token in ("FM", "DM"):
        rows, cols = _read_dimensions(source, 2)
        return source.read_array(_CODES[token[0]], rows * cols).reshape(rows, cols)
    if token in ("CM", "CM2", "CM3"):
        from voxark.io.compression import read_compressed

        return read_compressed(source, token)
    if token in ("FV", "DV"):
        raise source.error("a matrix was expected, a vector was found", at)
    raise source.error(f"a matrix was expected, {token[:20]!r} was found", at)


def read_vector(source, binary, text_dtype=np.float32):
    """Read a vector: (dim,) float32 or float64 as stored (``text_dtype`` from text)."""
    if not binary:
        with np.errstate(over="ignore"):  # beyond single precision: infinite, to be judged by the user
            return _read_text_array(source, 1).astype(text_dtype)
    at = source.position
    token = read_token(source, True)
    if token not in ("FV", "DV"):
        raise source.error(f"a vector was expected, {token[:20]!r} was found", at)
    return source.read_array(_CODES[token[0]], _read_dimensions(source, 1)[0])


def read_packed(source, binary, text_dtype=np.float32):
    """Read a symmetric or triangular matrix in packed form: (dim*(dim+1)/2,), lower triangle row by row."""
    at = source.position
    if not binary:
        values = np.concatenate(_text_rows(source) or [np.zeros(0)]).astype(text_dtype)
        try:
            packed_dim(len(values))
        except VoxarkError as error:
            raise source.bad(str(error), at) from None
        return values
    token = read_token(source, True)
    if token not in ("FP", "DP"):
        raise source.error(f"a packed matrix was expected, {token[:20]!r} was found", at)
    dim = _read_dimensions(source, 1)[0]
    return source.read_array(_CODES[token[0]], dim * (dim + 1) // 2)


def _text_rows(source):
    """Text between brackets as one float array for each line that holds numbers."""
    skip_white(source)
    at = source.position
    if (opening := source.peek(1)) != b"[":
        raise source.error("'[' was expected", at) if opening else source.truncated("'[' was expected")
    source.read(1)
    body = source.read_until(b"]\0")
    if body.endswith(b"\0"):
        raise source.error("binary data where the text of a matrix or vector was expected", at)
    if not body.endswith(b"]"):
        raise source.truncated("']' was expected")
    end_of_line = source.peek(2)
    source.read(2 if end_of_line == b"\r\n" else 1 if end_of_line[:1] == b"\n" else 0)
    rows = [row for line in body[:-1].replace(b";", b"\n").split(b"\n") if (row := line.split())]
    parse = float if b"_" not in body else parse_float  # underscores between digits are Python's own
    try:
        return [np.array(list(map(parse, row))) for row in rows]
    except ValueError as error:
        raise source.bad(f"a number was expected: {error}", at) from None


def _read_text_array(source, ndim):
    at = source.position
    rows = _text_rows(source)
    if ndim == 1:
        if len(rows) > 1:
            raise source.bad("a vector was expected, a matrix was found", at)
        return rows[0] if rows else np.zeros(0)
    if not rows:
        return np.zeros((0, 0))
    if len({len(row) for row in rows}) > 1:
        raise source.bad("the rows of a text matrix differ in length", at)
    return np.stack(rows)


def _header(letter, array, *dimensions):
    code = next((code for code, dtype in _CODES.items() if dtype == array.dtype), None)
    if code is None:
        raise VoxarkError(f"an array of type {array.dtype} cannot be written: float32 or float64 is expected")
    sizes = [part for dimension in dimensions for part in (4, dimension)]
    return code.encode() + letter + b" " + _DIMENSIONS[len(dimensions)].pack(*sizes)


def write_matrix(out, matrix, binary, compression_method=0):
    """Write a (rows, cols) float32 or float64 array; methods 1 to 7 compress as Kaldi's copy-feats does."""
    if matrix.ndim != 2:
        raise VoxarkError(f"a matrix was expected, an array of {matrix.ndim} dimensions was given")
    rows, cols = matrix.shape if matrix.size else (0, 0)
    if not binary:
        lines = [b"\n  " + _join(row) for row in matrix[:rows].tolist()]
        out.write(b" [" + b"".join(lines) + (b"]\n" if rows else b" ]\n"))
    elif compression_method and rows:
        from voxark.io.compression import write_compressed

        write_compressed(out, matrix, compression_method)
    else:
        out.write(_header(b"M", matrix, rows, cols))
        out.write(np.ascontiguousarray(matrix).data.cast("B") if rows else b"")


def _join(values):
    return b"%.7g " * len(values) % tuple(values)


def write_vector(out, vector, binary):
    """Write a (dim,) float32 or float64 array."""
    if vector.ndim != 1:
        raise VoxarkError(f"a vector was expected, an array of {vector.ndim} dimensions was given")
    if binary:
        out.write(_header(b"V", vector, len(vector)))
        out.write(np.ascontiguousarray(vector).tobytes())
    else:
        out.write(b" [ " + _join(vector.tolist()) + b"]\n")


def write_packed(out, values, binary):
    """Write a symmetric or triangular matrix given in packed form (dim*(dim+1)/2,), float32 or float64."""
    if values.ndim != 1:
        raise VoxarkError(f"a packed matrix was expected, an array of {values.ndim} dimensions was given")
    dim = packed_dim(len(values))
    if binary:
        out.write(_header(b"P", values, dim))
        out.write(np.ascontiguousarray(values).tobytes())
        return
    numbers, ends = values.tolist(), [row * (row + 1) // 2 for row in range(dim + 1)]
    rows = [_join(numbers[start:end]) for start, end in zip(ends, ends[1:], strict=False)]
    out.write(b"[\n" + b"\n".join(rows) + b"]\n" if rows else b"[ ]\n")


# -------------------------------------------------------------------------------------------- lists of arrays


def read_stack(source, binary, read, number, text_dtype):
    """Read ``number`` arrays that must agree in shape: one array with the list in front."""
    if number <= 0:
        raise source.error(f"corrupt: {number} components")
    arrays = []  # not one array at once: the number may be corrupt
    for _ in range(number):
        at = source.position
        arrays.append(read(source, binary, text_dtype))
        if arrays[-1].shape != arrays[0].shape:
            shapes = f"{arrays[-1].shape} behind one of {arrays[0].shape}"
            raise source.error(f"corrupt: an array of shape {shapes}", at)
    stack = np.empty((number, *arrays[0].shape), np.result_type(*{array.dtype for array in arrays}))
    for index in range(number):
        stack[index], arrays[index] = arrays[index], None  # freed at once: extractors are large
    return stack


def write_stack(out, arrays, write, binary):
    """Write the arrays that the first axis of ``arrays`` lists, each by ``write``."""
    for array in arrays:
        write(out, array, binary)


def write_fields(out, binary, *fields):
    """Write pairs of a token and a vector or a matrix."""
    for token, array in fields:
        write_token(out, token, binary)
        (write_vector if array.ndim == 1 else write_matrix)(out, array, binary)


def empty_matrix(dtype):
    """Return what Kaldi writes in place of a matrix that is not there."""
    return np.zeros((0, 0), dtype)


# --------------------------------------------------------------------------------------------------- integers


def read_int_vector(source, binary):
    """Read a vector of int32: (number,); in text it is the rest of the line (in brackets: kaldiio's)."""
    if binary:
        return read_sized_ints(source, read_int(source, True))
    at = source.position
    words = read_text_line(source).split()
    if words[:1] == [b"["] and words[-1] == b"]":
        words = words[1:-1]
    return np.array(parse_integers(source, words, at), np.int32)


def parse_integers(source, words, at):
    """Return the int32 of words of text that began at byte ``at``, as a list."""
    try:
        return [parse_int(word) for word in words]
    except ValueError as error:
        raise source.bad(f"integers were expected ({error})", at) from None


def write_int_vector(out, values, binary):
    """Write a vector of int32."""
    packed = pack_sized_ints(values)
    out.write(packed if binary else b"".join(b"%d " % value for value in values) + b"\n")
