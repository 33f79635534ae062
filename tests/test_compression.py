"""Kaldi's compressed matrices: its files byte for byte, and what each method promises about the error."""

import io

import numpy as np
import pytest
from helpers import golden, needs_golden
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.io.compression import read_compressed, write_compressed
from voxark.errors import VoxarkError
from voxark.io.streams import Source


def compress(matrix, method):
    out = io.BytesIO()
    write_compressed(out, np.asarray(matrix), method)
    return out.getvalue()


def decompress(data):
    token, _, rest = data.partition(b" ")
    return read_compressed(Source(io.BytesIO(rest), "data"), token.decode())


@needs_golden
@pytest.mark.parametrize("method", range(1, 8))
def test_kaldi_byte_for_byte(method, tmp_path):
    with (
        tables.open_reader("mat", f"ark:{golden('feat/mfcc_default.ark')}") as feats,
        tables.open_writer("mat", f"ark:{tmp_path}/small", method) as out,
    ):
        for key, matrix in feats:
            out[key] = matrix
    assert (tmp_path / "small").read_bytes() == golden(f"feat/compressed{method}.ark").read_bytes()
    with (
        tables.open_reader("mat", f"ark:{golden(f'feat/compressed{method}.ark')}") as feats,
        tables.open_writer("mat", f"ark:{tmp_path}/large") as out,
    ):
        for key, matrix in feats:
            out[key] = matrix
    assert (tmp_path / "large").read_bytes() == golden(f"feat/uncompressed{method}.ark").read_bytes()


SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 5))


@st.composite
def matrices(draw, low=-1e4, high=1e4):
    rows, cols = draw(SHAPES)
    values = draw(st.lists(st.floats(low, high, width=32), min_size=rows * cols, max_size=rows * cols))
    return np.array(values, np.float32).reshape(rows, cols)


@given(matrices())
def test_linear_methods_are_right_to_half_a_step(matrix):
    span = float(matrix.max()) - float(matrix.min()) or 1.0 + abs(float(matrix.min()))
    for method, levels, token in ((3, 65535, b"CM2 "), (5, 255, b"CM3 ")):
        data = compress(matrix, method)
        assert data.startswith(token)
        back = decompress(data)
        assert back.shape == matrix.shape and back.dtype == np.float32
        # 0.502 of a step, for Kaldi adds 0.499, and rounding in float32
        assert np.abs(back - matrix).max() <= 0.502 * span / levels + 4e-7 * np.abs(matrix).max()


@given(matrices(0, 1))
def test_fixed_ranges(matrix):
    assert np.abs(decompress(compress(matrix, 7)) - matrix).max() <= 0.502 / 255 + 1e-7
    np.testing.assert_array_equal(decompress(compress(np.round(matrix * 255), 6)), np.round(matrix * 255))
    whole = np.round(matrix * 65535 - 32768)
    assert np.abs(decompress(compress(whole, 4)) - whole).max() <= 0.51
    np.testing.assert_array_equal(
        decompress(compress(matrix + 1000, 6)), np.full_like(matrix, 255)
    )  # clipped


@given(matrices())
def test_percentile_method_keeps_each_column_between_its_percentiles(matrix):
    """A value lies in one of three stretches of its column; the error is at most a step of the widest one."""
    data = compress(matrix, 2)
    assert data.startswith(b"CM ") and len(data) == 3 + 16 + 8 * matrix.shape[1] + matrix.size
    span = float(matrix.max()) - float(matrix.min()) or 1.0 + abs(float(matrix.min()))
    ordered = np.sort(matrix, axis=0)
    rows = len(matrix)
    places = [0, rows // 4, 3 * (rows // 4), rows - 1]
    widest = np.diff(ordered[places], axis=0).max(axis=0) if rows >= 5 else np.ptp(ordered, axis=0)
    allowed = 0.51 * (widest + 4 * span / 65535) / 63 + 4 * span / 65535 + 1e-6 * np.abs(matrix).max()
    assert (np.abs(decompress(data) - matrix) <= allowed).all()


@pytest.mark.parametrize("method", range(1, 8))
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9])
def test_few_rows_and_constant_matrices(method, rows):
    for matrix in (np.zeros((rows, 3)), np.ones((rows, 1)), np.tile(np.arange(3.0), (rows, 1))):
        back = decompress(compress(matrix.astype(np.float32), method))
        assert back.shape == matrix.shape
        if method != 7:
            assert np.abs(back - matrix).max() <= 0.52 * 2 / 255 + 0.51 * (method == 4)


def test_automatic_method_depends_on_the_rows():
    assert compress(np.eye(9, dtype="f4"), 1).startswith(b"CM ")
    assert compress(np.eye(8, dtype="f4"), 1).startswith(b"CM2 ")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.parametrize("method", range(1, 8))
def test_values_that_no_level_can_stand_for_are_refused(method, bad):
    matrix = np.full((9, 2), -3.4e38, np.float32)
    matrix[4, 1] = bad
    with pytest.raises(VoxarkError, match="cannot be compressed"):
        compress(matrix, method)


def test_a_matrix_without_rows_is_written_uncompressed(tmp_path):
    tables.write_object("mat", f"{tmp_path}/x", np.zeros((0, 3), np.float32), compression_method=2)
    assert (tmp_path / "x").read_bytes() == b"\0BFM \4\0\0\0\0\4\0\0\0\0"
    header = np.zeros(4, "<f4").tobytes()
    assert decompress(b"CM " + header).shape == (0, 0)


@pytest.mark.parametrize(
    "floats, integers, message",
    [
        ((0, 1), (-1, 1), "compressed matrix of -1 x 1"),
        ((np.nan, 1), (1, 1), "without a finite range"),
        ((0, np.inf), (1, 1), "without a finite range"),
        ((0, 1), (2**31 - 1, 2**31 - 1), "truncated"),
    ],
)
def test_corrupt_headers(floats, integers, message):
    data = np.array(floats, "<f4").tobytes() + np.array(integers, "<i4").tobytes()
    for token in (b"CM ", b"CM2 ", b"CM3 "):
        with pytest.raises(VoxarkError, match=message):
            decompress(token + data)


def test_compression_methods_that_do_not_exist(tmp_path):
    for method in (-1, 8):
        with pytest.raises(VoxarkError, match=f"compression method {method}"):
            tables.open_writer("mat", f"ark:{tmp_path}/x", method)
    assert list(tmp_path.iterdir()) == []


def test_a_script_of_outputs_is_compressed_too(tmp_path):
    (tmp_path / "scp").write_text(f"a {tmp_path}/a\n")
    matrix = np.arange(40, dtype="f4").reshape(20, 2)
    with tables.open_writer("mat", f"scp:{tmp_path}/scp", 2) as out:
        out["a"] = matrix
    assert (tmp_path / "a").read_bytes() == b"\0B" + compress(matrix, 2)
