"""Kaldi's objects in binary and text, both ways, byte for byte.

A codec of this module is a pair of functions: ``read_x(source, binary)`` takes a :class:`voxark.streams.Source`
that stands behind the ``\\0B`` mark (binary) or at the text; ``write_x(out, value, binary)`` takes anything with
a ``write(bytes)`` method. Numbers in text have seven significant digits, as Kaldi writes them.
"""

import struct
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

_INT32 = struct.Struct("<i")
_SIZED_INT = np.dtype([("size", "i1"), ("value", "<i4")])
_POSTERIOR_PAIR = np.dtype([("s1", "i1"), ("index", "<i4"), ("s2", "i1"), ("value", "<f4")])
_WHITE = b" \t\n\r"


class DiagGmmParams(NamedTuple):
    """Fields of ``<DiagGMM>`` as they stand in the file: gconsts (C,) or None, weights (C,), then (C,D) twice."""

    gconsts: np.ndarray | None
    weights: np.ndarray
    means_invvars: np.ndarray
    inv_vars: np.ndarray


class PldaParams(NamedTuple):
    """Fields of ``<Plda>``: mean (D,), transform (D,D), psi (D,), float64."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray


# ---------------------------------------------------------------------------------------------- basic types


def read_token(source, binary):
    """Read one token and the white space behind it."""
    if not binary:
        _skip_white(source)
    word = source.read_until(_WHITE, limit=4096)
    if not word or word[-1:] not in (b" ", b"\n", b"\t", b"\r"):
        raise source.error("a token was expected")
    return word[:-1].decode("utf-8", "surrogateescape")


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


def _skip_white(source):
    while (byte := source.peek(1)) and byte in _WHITE:
        source.read(1)


def _read_word(source):
    """Text mode: one white-space delimited word."""
    _skip_white(source)
    word = source.read_until(_WHITE, limit=4096).strip()
    if not word:
        raise source.error("a value was expected, the input ends")
    return word


def read_int(source, binary):
    """Read an int32 (4-byte size mark in binary)."""
    if binary:
        data = source.read(5)
        if data[0] != 4:
            raise source.error(f"an integer of 4 bytes was expected, the size mark is {data[0]}", source.position - 5)
        return _INT32.unpack_from(data, 1)[0]
    return _parse(source, int, _read_word(source), "an integer")


def write_int(out, value, binary):
    """Write an int32."""
    out.write(b"\4" + _INT32.pack(value) if binary else b"%d " % value)


def read_float(source, binary):
    """Read a float (float32 or float64 in binary) as a Python float."""
    if binary:
        size = source.read(1)[0]
        if size not in (4, 8):
            raise source.error(f"a float was expected, the size mark is {size}", source.position - 1)
        return struct.unpack("<f" if size == 4 else "<d", source.read(size))[0]
    return _parse(source, float, _read_word(source), "a number")


def write_float(out, value, binary):
    """Write a float32."""
    out.write(b"\4" + struct.pack("<f", value) if binary else b"%s " % _digits(value))


def read_flags(source, binary):
    """Read a uint16 bit field (size mark 0xFE in binary)."""
    if not binary:
        return _parse(source, int, _read_word(source), "an integer")
    data = source.read(3)
    if data[0] != 0xFE:
        raise source.error("an unsigned 2-byte integer was expected", source.position - 3)
    return struct.unpack_from("<H", data, 1)[0]


def _parse(source, kind, word, what):
    try:
        return kind(word)
    except ValueError:
        raise source.error(f"{what} was expected, {word[:40].decode('utf-8', 'replace')!r} was found") from None


def _digits(value):
    return b"%.7g" % value


# ---------------------------------------------------------------------------------------------- vectors, matrices


def _read_dimensions(source, count):
    dimensions = [read_int(source, True) for _ in range(count)]
    if min(dimensions) < 0:
        raise source.error(f"corrupt: dimension {min(dimensions)}")
    return dimensions


def _read_body(source, code, number):
    dtype = np.dtype("<f4" if code == "F" else "<f8")
    # a copy, so that the array is writable and owns its memory
    return np.frombuffer(source.read(number * dtype.itemsize), dtype).copy()


def read_matrix(source, binary, text_dtype=np.float32):
    """Read a matrix, compressed or not: (rows, cols) float32 or float64 as stored (``text_dtype`` from text)."""
    if not binary:
        return _read_text_array(source, 2).astype(text_dtype)
    at = source.position
    token = read_token(source, True)
    if token in ("FM", "DM"):
        rows, cols = _read_dimensions(source, 2)
        return _read_body(source, token[0], rows * cols).reshape(rows, cols)
    if token in ("CM", "CM2", "CM3"):
        from voxark.compression import read_compressed

        return read_compressed(source, token)
    if token in ("FV", "DV"):
        raise source.error("a matrix was expected, a vector was found", at)
    raise source.error(f"a matrix was expected, {token[:20]!r} was found", at)


def read_vector(source, binary, text_dtype=np.float32):
    """Read a vector: (dim,) float32 or float64 as stored (``text_dtype`` from text)."""
    if not binary:
        return _read_text_array(source, 1).astype(text_dtype)
    at = source.position
    token = read_token(source, True)
    if token not in ("FV", "DV"):
        raise source.error(f"a vector was expected, {token[:20]!r} was found", at)
    return _read_body(source, token[0], _read_dimensions(source, 1)[0])


def read_packed(source, binary):
    """Read a symmetric or triangular matrix in packed form: (dim*(dim+1)/2,), lower triangle row by row."""
    if not binary:
        return np.concatenate(_text_rows(source) or [np.zeros(0)])
    at = source.position
    token = read_token(source, True)
    if token not in ("FP", "DP"):
        raise source.error(f"a packed matrix was expected, {token[:20]!r} was found", at)
    dim = _read_dimensions(source, 1)[0]
    return _read_body(source, token[0], dim * (dim + 1) // 2)


def _text_rows(source):
    """Text between brackets as one float array for each line that holds numbers."""
    _skip_white(source)
    at = source.position
    if source.read_until(b"[", limit=1) != b"[":
        raise source.error("'[' was expected", at)
    body = source.read_until(b"]")
    if not body.endswith(b"]"):
        raise source.error("truncated: ']' was expected, the input ends")
    if source.peek(2) == b"\r\n":
        source.read(2)
    elif source.peek(1) == b"\n":
        source.read(1)
    rows = [row for line in body[:-1].split(b"\n") if (row := line.split())]
    try:
        return [np.array([float(word) for word in row]) for row in rows]
    except ValueError as error:
        raise source.error(f"a number was expected in the text that begins there: {error}", at) from None


def _read_text_array(source, ndim):
    at = source.position
    rows = _text_rows(source)
    if ndim == 1:
        if len(rows) > 1:
            raise source.error("a vector was expected, a matrix was found", at)
        return rows[0] if rows else np.zeros(0)
    if not rows:
        return np.zeros((0, 0))
    if len({len(row) for row in rows}) > 1:
        raise source.error("the rows of a text matrix differ in length", at)
    return np.stack(rows)


def _header(letter, array, *dimensions):
    code = {"f4": b"F", "f8": b"D"}.get(array.dtype.str[1:])
    if code is None:
        raise VoxarkError(f"an array of type {array.dtype} cannot be written: float32 or float64 is expected")
    return code + letter + b" " + b"".join(b"\4" + _INT32.pack(dimension) for dimension in dimensions)


def write_matrix(out, matrix, binary, compression_method=0):
    """Write a (rows, cols) float32 or float64 array; methods 1 to 7 compress as Kaldi's copy-feats does."""
    if matrix.ndim != 2:
        raise VoxarkError(f"a matrix was expected, an array of {matrix.ndim} dimensions was given")
    rows, cols = matrix.shape if matrix.size else (0, 0)
    if not binary:
        out.write(b" [" + b"".join(b"\n  " + _join(row) for row in matrix[:rows].tolist()) + (b"]\n" if rows else b" ]\n"))
    elif compression_method and rows:
        from voxark.compression import write_compressed

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


# ---------------------------------------------------------------------------------------------- integers, posteriors


def read_int_vector(source, binary):
    """Read a vector of int32; in text it is the rest of the line."""
    if binary:
        number = read_int(source, True)
        if number < 0:
            raise source.error(f"corrupt: {number} integers")
        return _sized_ints(source, number)
    words = source.read_line().split()
    return np.array([_parse(source, int, word, "an integer") for word in words], np.int32)


def _sized_ints(source, number):
    items = np.frombuffer(source.read(number * 5), _SIZED_INT)
    if (items["size"] != 4).any():
        raise source.error("corrupt: an integer of 4 bytes was expected")
    return items["value"].astype(np.int32)


def write_int_vector(out, values, binary):
    """Write a vector of int32."""
    if binary:
        out.write(b"\4" + _INT32.pack(len(values)) + _pack_ints(values))
    else:
        out.write(b"".join(b"%d " % value for value in values) + b"\n")


def _pack_ints(values):
    items = np.empty(len(values), _SIZED_INT)
    items["size"], items["value"] = 4, values
    return items.tobytes()


def read_int_lists(source, binary):
    """Read a list of integer lists (Gaussian selection)."""
    if binary:
        number = read_int(source, True)
        if number < 0:
            raise source.error(f"corrupt: {number} lists")
        return [read_int_vector(source, True).tolist() for _ in range(number)]
    *lists, rest = source.read_line().split(b";")
    if rest.strip():
        raise source.error("a list of integers does not end in ';'")
    return [[_parse(source, int, word, "an integer") for word in part.split()] for part in lists]


def write_int_lists(out, lists, binary):
    """Write a list of integer lists."""
    if binary:
        out.write(b"\4" + _INT32.pack(len(lists))
                  + b"".join(b"\4" + _INT32.pack(len(part)) + _pack_ints(part) for part in lists))
    else:
        out.write(b"".join(b"".join(b"%d " % value for value in part) + b"; " for part in lists) + b"\n")


def read_posterior(source, binary):
    """Read posteriors: for each frame a list of (index, probability)."""
    if not binary:
        return _read_text_posterior(source)
    frames = []
    number = read_int(source, True)
    if number < 0:
        raise source.error(f"corrupt: {number} frames")
    for _ in range(number):
        pairs = read_int(source, True)
        if pairs < 0:
            raise source.error(f"corrupt: {pairs} posteriors")
        items = np.frombuffer(source.read(pairs * _POSTERIOR_PAIR.itemsize), _POSTERIOR_PAIR)
        if (items["s1"] != 4).any() or (items["s2"] != 4).any():
            raise source.error("corrupt: pairs of an integer and a float were expected")
        frames.append(list(zip(items["index"].tolist(), items["value"].tolist(), strict=True)))
    return frames


def _read_text_posterior(source):
    frames, current = [], None
    for word in source.read_line().split():
        if word == b"[" and current is None:
            current = []
        elif word == b"]" and current is not None and len(current) % 2 == 0:
            frames.append([(_parse(source, int, i, "an integer"), _parse(source, float, p, "a number"))
                           for i, p in zip(current[::2], current[1::2], strict=True)])
            current = None
        elif current is not None:
            current.append(word)
        else:
            raise source.error(f"'[' was expected, {word[:20].decode('utf-8', 'replace')!r} was found")
    if current is not None:
        raise source.error("truncated: ']' was expected, the line ends")
    return frames


def write_posterior(out, frames, binary):
    """Write posteriors, float32."""
    if not binary:
        out.write(b"".join(b"[ " + b"".join(b"%d %.7g " % pair for pair in frame) + b"] " for frame in frames) + b"\n")
        return
    parts = [b"\4" + _INT32.pack(len(frames))]
    for frame in frames:
        items = np.empty(len(frame), _POSTERIOR_PAIR)
        items["s1"] = items["s2"] = 4
        items["index"], items["value"] = [pair[0] for pair in frame], [pair[1] for pair in frame]
        parts.append(b"\4" + _INT32.pack(len(frame)) + items.tobytes())
    out.write(b"".join(parts))


# ---------------------------------------------------------------------------------------------- models


def read_diag_gmm(source, binary):
    """Read ``<DiagGMM>`` (or the old ``<DiagGMMBegin>``) into :class:`DiagGmmParams`."""
    at = source.position
    expect_token(source, binary, "<DiagGMM>", "<DiagGMMBegin>")
    gconsts = None
    token = expect_token(source, binary, "<GCONSTS>", "<WEIGHTS>")
    if token == "<GCONSTS>":
        gconsts = read_vector(source, binary)
        expect_token(source, binary, "<WEIGHTS>")
    weights = read_vector(source, binary)
    expect_token(source, binary, "<MEANS_INVVARS>")
    means_invvars = read_matrix(source, binary)
    expect_token(source, binary, "<INV_VARS>")
    inv_vars = read_matrix(source, binary)
    expect_token(source, binary, "</DiagGMM>", "<DiagGMMEnd>")
    if means_invvars.shape != inv_vars.shape or len(weights) != len(inv_vars):
        raise source.error(f"corrupt: {len(weights)} weights, means {means_invvars.shape}, variances {inv_vars.shape}", at)
    return DiagGmmParams(gconsts, weights, means_invvars, inv_vars)


def write_diag_gmm(out, gmm, binary):
    """Write ``<DiagGMM>`` from :class:`DiagGmmParams`."""
    write_token(out, "<DiagGMM>", binary)
    if not binary:
        out.write(b"\n")
    if gmm.gconsts is not None:
        write_token(out, "<GCONSTS>", binary)
        write_vector(out, gmm.gconsts, binary)
    write_token(out, "<WEIGHTS>", binary)
    write_vector(out, gmm.weights, binary)
    write_token(out, "<MEANS_INVVARS>", binary)
    write_matrix(out, gmm.means_invvars, binary)
    write_token(out, "<INV_VARS>", binary)
    write_matrix(out, gmm.inv_vars, binary)
    write_token(out, "</DiagGMM>", binary)
    if not binary:
        out.write(b"\n")


def read_plda(source, binary):
    """Read ``<Plda>`` into :class:`PldaParams`."""
    at = source.position
    expect_token(source, binary, "<Plda>")
    mean = read_vector(source, binary, np.float64)
    transform = read_matrix(source, binary, np.float64)
    psi = read_vector(source, binary, np.float64)
    expect_token(source, binary, "</Plda>")
    if transform.shape != (len(mean), len(mean)) or len(psi) != len(mean):
        raise source.error(f"corrupt: mean {len(mean)}, transform {transform.shape}, psi {len(psi)}", at)
    return PldaParams(*(array.astype(np.float64) for array in (mean, transform, psi)))


def write_plda(out, plda, binary):
    """Write ``<Plda>`` from :class:`PldaParams`."""
    write_token(out, "<Plda>", binary)
    write_vector(out, plda.mean, binary)
    write_matrix(out, plda.transform, binary)
    write_vector(out, plda.psi, binary)
    write_token(out, "</Plda>", binary)
