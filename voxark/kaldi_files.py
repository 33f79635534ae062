"""Kaldi's objects in binary and text, both ways, byte for byte.

A codec of this module is a pair of functions: ``read_x(source, binary)`` takes a
:class:`voxark.io.streams.Source` that stands behind the ``\\0B`` mark (binary) or at the text;
``write_x(out, value, binary)`` takes anything with a ``write(bytes)`` method. Numbers in text have seven
significant digits, as Kaldi writes them.
"""

import struct
from typing import NamedTuple

import numpy as np

from voxark.io.basic_types import (  # noqa: F401 - the basic types are part of this interface
    expect_token, pack_sized_ints, parse_float, parse_int, read_flags, read_float, read_int, read_sized_ints,
    read_text_line, read_token, skip_white, write_float, write_int, write_token)
from voxark.errors import VoxarkError

_DIMENSIONS = {1: struct.Struct("<bi"), 2: struct.Struct("<bibi")}  # each with its size mark
_CODES = {"F": np.dtype("<f4"), "D": np.dtype("<f8")}
_POSTERIOR_PAIR = np.dtype([("s1", "i1"), ("index", "<i4"), ("s2", "i1"), ("value", "<f4")])


class DiagGmmParams(NamedTuple):
    """Fields of ``<DiagGMM>`` as they stand in the file: gconsts (C,) or None, weights (C,), (C,D) twice."""

    gconsts: np.ndarray | None
    weights: np.ndarray
    means_invvars: np.ndarray
    inv_vars: np.ndarray


class PldaParams(NamedTuple):
    """Fields of ``<Plda>``: mean (D,), transform (D,D), psi (D,), float64."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray


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
        return _read_text_array(source, 1).astype(text_dtype)
    at = source.position
    token = read_token(source, True)
    if token not in ("FV", "DV"):
        raise source.error(f"a vector was expected, {token[:20]!r} was found", at)
    return source.read_array(_CODES[token[0]], _read_dimensions(source, 1)[0])


def read_packed(source, binary):
    """Read a symmetric or triangular matrix in packed form: (dim*(dim+1)/2,), lower triangle row by row."""
    if not binary:
        return np.concatenate(_text_rows(source) or [np.zeros(0)])
    at = source.position
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


# --------------------------------------------------------------------------------------- integers, posteriors


def read_int_vector(source, binary):
    """Read a vector of int32: (number,); in text it is the rest of the line (in brackets: kaldiio's)."""
    if binary:
        return read_sized_ints(source, read_int(source, True))
    at = source.position
    words = read_text_line(source).split()
    if words[:1] == [b"["] and words[-1] == b"]":
        words = words[1:-1]
    return np.array(_integers(source, words, at), np.int32)


def _integers(source, words, at):
    try:
        return [parse_int(word) for word in words]
    except ValueError as error:
        raise source.bad(f"integers were expected ({error})", at) from None


def write_int_vector(out, values, binary):
    """Write a vector of int32."""
    packed = pack_sized_ints(values)
    out.write(packed if binary else b"".join(b"%d " % value for value in values) + b"\n")


def read_int_lists(source, binary):
    """Read a list of integer lists (Gaussian selection)."""
    if binary:
        number = read_int(source, True)
        if number < 0:
            raise source.error(f"corrupt: {number} lists")
        return [read_int_vector(source, True).tolist() for _ in range(number)]
    at = source.position
    *lists, rest = read_text_line(source).split(b";")
    if rest.strip():
        raise source.bad("a list of integers does not end in ';'", at)
    return [_integers(source, part.split(), at) for part in lists]


def write_int_lists(out, lists, binary):
    """Write a list of integer lists."""
    packed = [pack_sized_ints(part) for part in lists]
    if binary:
        write_int(out, len(lists), True)
        out.write(b"".join(packed))
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
        items = source.read_array(_POSTERIOR_PAIR, pairs)
        if (items["s1"] != 4).any() or (items["s2"] != 4).any():
            raise source.error("corrupt: pairs of an integer and a float were expected")
        frames.append(list(zip(items["index"].tolist(), items["value"].tolist(), strict=True)))
    return frames


def _read_text_posterior(source):
    at = source.position
    frames, current = [], None
    for word in read_text_line(source).split():
        if word == b"[" and current is None:
            current = []
        elif word == b"]" and current is not None and len(current) % 2 == 0:
            try:
                indices, values = map(parse_int, current[::2]), map(parse_float, current[1::2])
                frames.append(list(zip(indices, values, strict=True)))
            except ValueError:
                raise source.bad("pairs of an integer and a number were expected", at) from None
            current = None
        elif current is not None and word not in b"[]":
            current.append(word)
        else:
            raise source.bad(f"'[' was expected, {word[:20].decode('utf-8', 'replace')!r} was found", at)
    if current is not None:
        raise source.bad("']' was expected, the line ends", at)
    return frames


def write_posterior(out, frames, binary):
    """Write posteriors, float32."""
    packed = [_pack_pairs(frame) for frame in frames]
    if binary:
        write_int(out, len(frames), True)
        for items in packed:
            write_int(out, len(items), True)
            out.write(items.tobytes())
    else:
        pairs = [items[["index", "value"]].tolist() for items in packed]
        texts = [b"".join(b"%d %.7g " % pair for pair in frame) for frame in pairs]
        out.write(b"".join(b"[ " + text + b"] " for text in texts) + b"\n")


def _pack_pairs(frame):
    items = np.empty(len(frame), _POSTERIOR_PAIR)
    items["s1"] = items["s2"] = 4
    try:
        items["index"], items["value"] = [pair[0] for pair in frame], [pair[1] for pair in frame]
    except (OverflowError, ValueError, TypeError, IndexError) as error:
        raise VoxarkError(f"pairs of an integer of 32 bits and a number were expected ({error})") from None
    return items


# ----------------------------------------------------------------------------------------------------- models


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
        shapes = f"means {means_invvars.shape}, variances {inv_vars.shape}"
        raise source.error(f"corrupt: {len(weights)} weights, {shapes}", at)
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
