"""Kaldi's compressed matrices, digit for digit [K: matrix/compressed-matrix].

Three layouts: ``CM`` (one byte a value, four percentiles a column), ``CM2`` (two bytes) and ``CM3`` (one
byte), the last two linear between a minimum and a maximum. Kaldi computes in float32 with a few float64
constants in between; the casts below repeat that, because one rounding more or less changes bytes. (kaldiio
reads and writes these layouts too, but neither to the same values as Kaldi.)
"""

import numpy as np

from voxark.errors import VoxarkError

_HEADER = np.dtype([("min_value", "<f4"), ("range", "<f4"), ("rows", "<i4"), ("cols", "<i4")])
_LEVELS = {"CM": 65535, "CM2": 65535, "CM3": 255}
_FIXED = {4: (-32768.0, 65535.0), 6: (0.0, 255.0), 7: (0.0, 1.0)}  # method -> minimum, range


def read_compressed(source, token):
    """Read what stands behind the token ``CM``, ``CM2`` or ``CM3``: (rows, cols) float32."""
    at = source.position
    header = source.read_array(_HEADER, 1)[0]
    rows, cols = int(header["rows"]), int(header["cols"])
    if rows < 0 or cols < 0:
        raise source.error(f"corrupt: compressed matrix of {rows} x {cols}", at)
    if not abs(float(header["min_value"])) + abs(float(header["range"])) < 3.4e38:  # NaN included
        raise source.error("corrupt: compressed matrix without a finite range of values", at)
    if rows * cols == 0:
        return np.zeros((0, 0), np.float32)
    if token == "CM":
        percentiles = source.read_array(np.dtype("<u2"), 4 * cols).reshape(cols, 4)
        codes = source.read_array(np.dtype("u1"), rows * cols).reshape(cols, rows)
        return _decode_columns(codes, _level_values(header, percentiles))
    dtype = np.dtype("<u2" if token == "CM2" else "u1")
    codes = source.read_array(dtype, rows * cols).reshape(rows, cols)
    increment = np.float32(np.float64(header["range"]) * (1.0 / _LEVELS[token]))
    return header["min_value"] + codes.astype(np.float32) * increment


def _level_values(header, levels):
    """uint16 levels -> float32 values."""
    increment = header["range"] * np.float32(1.52590218966964e-05)  # 1 / 65535
    return header["min_value"] + increment * levels.astype(np.float32)


def _decode_columns(codes, percentiles):
    """Codes (cols, rows) -> (rows, cols) float32, by a table of the 256 values of each column."""
    p0, p25, p75, p100 = (percentiles[:, i: i + 1] for i in range(4))
    values, code = np.empty((len(codes), 256), np.float32), np.arange(256, dtype=np.uint8)
    for low, high, first, last in ((p0, p25, 0, 64), (p25, p75, 64, 192), (p75, p100, 192, 255)):
        start = first + (first > 0)  # the code at a joint belongs to the piece below
        steps = (high - low) * (code[start: last + 1] - np.float32(first))
        values[:, start: last + 1] = low.astype(np.float64) + steps.astype(np.float64) * (1.0 / (last - first))
    places = codes.T + np.arange(0, 256 * len(codes), 256)
    return values.reshape(-1).take(places)


def write_compressed(out, matrix, method):
    """Write a matrix with one of Kaldi's compression methods 1 (automatic) to 7."""
    with np.errstate(all="ignore"):  # what goes wrong here is refused below
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        low, high = matrix.min(), matrix.max()
        if high == low:
            high = np.float32(low + (1.0 + abs(float(low))))
        span = high - low
    if not np.isfinite(span):
        raise VoxarkError("a matrix with NaN or infinite values cannot be compressed (nor one whose values "
                          "span more than a float32 can hold)")
    if method == 1:
        method = 2 if matrix.shape[0] > 8 else 3
    token = {2: "CM", 3: "CM2", 4: "CM2"}.get(method, "CM3")
    header = np.zeros((), _HEADER)
    header["rows"], header["cols"] = matrix.shape
    header["min_value"], header["range"] = _FIXED.get(method, (low, span))
    out.write(token.encode() + b" " + header.tobytes())
    if token == "CM":
        percentiles = _column_percentiles(header, matrix)
        out.write(percentiles.astype("<u2").tobytes())
        out.write(_encode_columns(matrix.T, _level_values(header, percentiles)).tobytes())
    else:
        out.write(_levels(header, matrix, _LEVELS[token]).astype("<u2" if token == "CM2" else "u1").tobytes())


def _levels(header, values, highest):
    """float32 values -> integer levels, rounded as Kaldi rounds."""
    fraction = np.clip((values - header["min_value"]) / header["range"], np.float32(0), np.float32(1))
    return ((fraction * np.float32(highest)).astype(np.float64) + 0.499).astype(np.int64)


def _column_percentiles(header, matrix):
    """The 0, 25, 75 and 100 % points of each column as strictly increasing levels: (cols, 4)."""
    rows = len(matrix)
    ordered = np.sort(matrix, axis=0)
    quarter = rows // 4
    places = [0, quarter, 3 * quarter, rows - 1] if rows >= 5 else list(range(min(rows, 4)))
    levels = _levels(header, ordered[places], 65535)
    columns = np.zeros((4, matrix.shape[1]), np.int64)
    columns[: len(places)] = levels
    columns[0] = np.minimum(columns[0], 65532)
    for i, ceiling in ((1, 65533), (2, 65534), (3, 65535)):
        columns[i] = np.minimum(np.maximum(columns[i], columns[i - 1] + 1), ceiling)
    return columns.T


def _encode_columns(columns, percentiles):
    p0, p25, p75, p100 = (percentiles[:, i: i + 1] for i in range(4))

    def line(low, high, first, width):
        fraction = (columns - low) / (high - low)
        steps = ((fraction * np.float32(width)).astype(np.float64) + 0.5).astype(np.int64)
        return np.clip(first + steps, first, first + width)

    upper = np.where(columns < p75, line(p25, p75, 64, 128), line(p75, p100, 192, 63))
    return np.where(columns < p25, line(p0, p25, 0, 64), upper).astype(np.uint8)
