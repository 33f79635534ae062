"""Kaldi's objects: byte for byte against files that Kaldi wrote, and what its readers accept."""

import io

import numpy as np
import pytest
from helpers import golden, needs_golden

from voxark import kaldi_files, tables
from voxark.errors import VoxarkError
from voxark.kaldi_files import PldaParams
from voxark.io.kinds import KINDS, read_value, value_parts
from voxark.io.streams import BadValue, Source


def read(kind, data):
    """Read one value of a kind from bytes; all of them must be used."""
    source = Source(io.BytesIO(data), "data")
    value = read_value(KINDS[kind], source)
    assert source.read_all() == b""
    return value


def write(kind, value, binary=True, **options):
    return b"".join(value_parts(KINDS[kind], value, binary, **options))


# ------------------------------------------------------------------------------------------- what Kaldi wrote

ARCHIVES = [("mat", name) for name in ("fbank80", "mfcc_default", "deltas", "cmvn_spk", "cmvn_utt", "voiced")]
ARCHIVES += [("vec", "vad_default"), ("vec", "vad_sre")]


@needs_golden
@pytest.mark.parametrize(
    "kind, name",
    [
        *((kind, f"feat/{name}.ark") for kind, name in ARCHIVES),
        ("vec", "model/diag.1.likes.ark"),
        ("vec", "model/ivectors.ark"),
        ("vec", "model/enroll.ark"),
        ("post", "model/diag.1.post5.ark"),
        ("post", "model/post.ark"),
    ],
)
def test_binary_archives_of_kaldi_byte_for_byte(kind, name, tmp_path):
    with (
        tables.open_reader(kind, f"ark:{golden(name)}") as entries,
        tables.open_writer(kind, f"ark:{tmp_path}/copy") as out,
    ):
        for key, value in entries:
            out[key] = value
    assert (tmp_path / "copy").read_bytes() == golden(name).read_bytes()


@needs_golden
@pytest.mark.parametrize(
    "kind, name",
    [
        ("mat", "feat/mfcc13_htk.txt"),
        ("vec", "feat/vad_default.txt"),
        ("int", "feat/len.txt"),
        ("float", "model/diag.1.avglikes.txt"),
        ("iivec", "model/diag.1.gselect3.txt"),
        ("int", "model/enroll.num_utts"),
        ("tokens", "model/train.spk2utt"),
        ("token", "model/train.utt2spk"),
    ],
)
def test_text_archives_of_kaldi_byte_for_byte(kind, name, tmp_path):
    """Through our binary form, so that this keeps everything too."""
    line = KINDS[kind].line
    with (
        tables.open_reader(kind, f"ark:{golden(name)}") as entries,
        tables.open_writer(kind, f"ark:{tmp_path}/binary") as out,
    ):
        for key, value in entries:
            out[key] = value
    with (
        tables.open_reader(kind, f"ark:{tmp_path}/binary") as entries,
        tables.open_writer(kind, f"ark,t:{tmp_path}/text") as out,
    ):
        for key, value in entries:
            out[key] = value
    kaldi = golden(name).read_bytes()
    if (
        kind == "tokens"
    ):  # a list of words that Kaldi wrote has a blank at the end of each line, this one was made by hand
        kaldi = kaldi.replace(b"\n", b" \n")
    assert (tmp_path / "text").read_bytes() == kaldi
    assert line or (tmp_path / "binary").read_bytes().count(b"\0B") >= kaldi.count(b"\n") // 500


@needs_golden
def test_text_of_kaldi_is_what_its_binary_says():
    with (
        tables.open_random("mat", f"ark:{golden('feat/mfcc13_htk.ark')}") as binary,
        tables.open_reader("mat", f"ark:{golden('feat/mfcc13_htk.txt')}") as text,
    ):
        for key, value in text:
            np.testing.assert_allclose(value, binary[key], rtol=6e-7, atol=1e-12)
    with (
        tables.open_random("vec", f"ark:{golden('feat/vad_default.ark')}") as binary,
        tables.open_reader("vec", f"ark:{golden('feat/vad_default.txt')}") as text,
    ):
        for key, value in text:
            np.testing.assert_array_equal(value, binary[key])


@needs_golden
@pytest.mark.parametrize(
    "kind, name, binary",
    [
        ("mat", "model/lda.mat", True),
        ("mat", "feat/cmvn_global.mat", True),
        ("vec", "model/mean.vec", False),
        ("diag-gmm", "model/diag.0.gmm", True),
        ("diag-gmm", "model/diag.1.gmm", True),
        ("diag-gmm", "model/diag.1.txt", False),
        ("diag-gmm", "model/full.1.diag.gmm", True),
        ("plda", "model/plda", True),
        ("plda", "model/plda.txt", False),
        ("plda", "model/plda_smooth.txt", False),
        ("plda", "model/plda_adapted.txt", False),
    ],
)
def test_objects_of_kaldi_byte_for_byte(kind, name, binary, tmp_path):
    value = tables.read_object(kind, str(golden(name)))
    tables.write_object(kind, f"{tmp_path}/copy", value, binary)
    assert (tmp_path / "copy").read_bytes() == golden(name).read_bytes()


@needs_golden
@pytest.mark.parametrize(
    "binary_name, text_name", [("model/diag.1.gmm", "model/diag.1.txt"), ("model/plda", "model/plda.txt")]
)
def test_models_from_binary_to_text(binary_name, text_name, tmp_path):
    kind = "plda" if "plda" in text_name else "diag-gmm"
    tables.write_object(
        kind, f"{tmp_path}/text", tables.read_object(kind, str(golden(binary_name))), binary=False
    )
    assert (tmp_path / "text").read_bytes() == golden(text_name).read_bytes()


@needs_golden
def test_types_of_numbers_are_kept():
    with tables.open_reader("mat", f"ark:{golden('feat/cmvn_spk.ark')}") as stats:
        assert {value.dtype for _, value in stats} == {np.dtype("f8")}
    assert tables.read_object("mat", str(golden("feat/cmvn_global.mat"))).dtype == np.float32
    assert {part.dtype for part in tables.read_object("plda", str(golden("model/plda.txt")))} == {
        np.dtype("f8")
    }


# ---------------------------------------------------------------------------------------------- forms by hand
# Expected bytes follow Kaldi's definitions of each format; they were made by hand, not by this code.


@pytest.mark.parametrize(
    "kind, value, binary, text",
    [
        (
            "mat",
            np.array([[1, -2.5]], "f4"),
            b"\0BFM \4\1\0\0\0\4\2\0\0\0\0\0\x80?\0\0 \xc0",
            b" [\n  1 -2.5 ]\n",
        ),
        (
            "mat",
            np.array([[0.1], [1e-5]], "f8"),
            b"\0BDM \4\2\0\0\0\4\1\0\0\0\x9a\x99\x99\x99\x99\x99\xb9?\xf1h\xe3\x88\xb5\xf8\xe4>",
            b" [\n  0.1 \n  1e-05 ]\n",
        ),
        ("mat", np.zeros((0, 0), "f4"), b"\0BFM \4\0\0\0\0\4\0\0\0\0", b" [ ]\n"),
        ("vec", np.array([1, 1234567.8], "f4"), b"\0BFV \4\2\0\0\0\0\0\x80?>\xb4\x96I", b" [ 1 1234568 ]\n"),
        ("vec", np.zeros(0, "f8"), b"\0BDV \4\0\0\0\0", b" [ ]\n"),
        ("ivec", [5, -1], b"\0B\4\2\0\0\0\4\5\0\0\0\4\xff\xff\xff\xff", b"5 -1 \n"),
        ("ivec", [], b"\0B\4\0\0\0\0", b"\n"),
        ("iivec", [[1, 2], []], b"\0B\4\2\0\0\0\4\2\0\0\0\4\1\0\0\0\4\2\0\0\0\4\0\0\0\0", b"1 2 ; ; \n"),
        ("iivec", [], b"\0B\4\0\0\0\0", b"\n"),
        (
            "post",
            [[(3, 0.5)], []],
            b"\0B\4\2\0\0\0\4\1\0\0\0\4\3\0\0\0\4\0\0\0?\4\0\0\0\0",
            b"[ 3 0.5 ] [ ] \n",
        ),
        ("post", [], b"\0B\4\0\0\0\0", b"\n"),
        ("float", 0.5, b"\0B\4\0\0\0?", b"0.5 \n"),
        ("int", -2, b"\0B\4\xfe\xff\xff\xff", b"-2 \n"),
        ("token", "word", b"word\n", b"word\n"),
        ("tokens", ["a", "b"], b"a b \n", b"a b \n"),
        ("tokens", [], b"\n", b"\n"),
        (
            "plda",
            PldaParams(np.ones(1), np.ones((1, 1)), np.ones(1)),
            b"\0B<Plda> DV \4\1\0\0\0"
            + b"\0\0\0\0\0\0\xf0?"
            + b"DM \4\1\0\0\0\4\1\0\0\0"
            + b"\0\0\0\0\0\0\xf0?"
            + b"DV \4\1\0\0\0"
            + b"\0\0\0\0\0\0\xf0?"
            + b"</Plda> ",
            b"<Plda>  [ 1 ]\n [\n  1 ]\n [ 1 ]\n</Plda> ",
        ),
    ],
)
def test_forms_made_by_hand(kind, value, binary, text):
    for form, data in ((True, binary), (False, text)):
        assert write(kind, value, form) == data
        back = read(kind, data)
        if kind in ("mat", "vec", "plda"):
            for part, expected in zip(
                back if kind == "plda" else [back], value if kind == "plda" else [value], strict=True
            ):
                assert part.shape == expected.shape
                np.testing.assert_allclose(part, expected, rtol=1e-6 if not form else 0)
        elif kind == "ivec":
            assert back.tolist() == value and back.dtype == np.int32
        else:
            assert back == value


@pytest.mark.parametrize(
    "kind, data, expected",
    [
        ("mat", b" [\r\n 1 2\r\n 3 4 ]\r\n", [[1, 2], [3, 4]]),
        ("mat", b"[ 1 2 ; 3 4 ]\n", [[1, 2], [3, 4]]),
        ("mat", b"[]\n", np.zeros((0, 0))),
        ("mat", b"\n\n [ 1\n\n 2 ]\n", [[1], [2]]),
        ("vec", b"[1]", [1]),
        ("vec", b" [ nan inf -inf -1e-3 ]\n", [np.nan, np.inf, -np.inf, -1e-3]),
        ("vec", b"[]\n", []),
        ("ivec", b" 1  2\r\n", [1, 2]),
        ("iivec", b"1;2 3;\n", [[1], [2, 3]]),
        ("float", b"1.5\r\n", 1.5),
        ("float", b"2\n", 2.0),
        ("tokens", "日本\u3000語 x\n".encode(), ["日本\u3000語", "x"]),
        ("token", b"w\xff\r\n", "w\udcff"),
        ("mat", b"\0BFM \4\0\0\0\0\4\5\0\0\0", np.zeros((0, 5))),
    ],
)
def test_what_kaldi_accepts_is_accepted(kind, data, expected):
    value = read(kind, data)
    if isinstance(value, np.ndarray):
        np.testing.assert_allclose(value, expected)
    else:
        assert value == expected


@pytest.mark.parametrize(
    "kind, data, message",
    [
        ("mat", b"\0BFV \4\1\0\0\0aaaa", "a matrix was expected, a vector was found at byte 2"),
        ("mat", b"\0BXY \4", "a matrix was expected, 'XY' was found at byte 2"),
        ("mat", b"\0BFM \4\xff\xff\xff\xff\4\1\0\0\0", "dimension -1"),
        ("mat", b"\0BFM \5\1\0\0\0\4\1\0\0\0", "4 bytes"),
        (
            "mat",
            b"\0BFM \4\xff\xff\xff\x7f\4\xff\xff\xff\x7f",
            "truncated: 18446744056529682436 bytes expected, 0 left",
        ),
        ("mat", b"\0X", "neither binary"),
        ("mat", b"", "the input ends"),
        ("mat", b"[ 1 2\n 3 ]\n", "differ in length"),
        ("mat", b"[ 1 2_0 ]\n", "a number was expected: '2_0'"),
        ("mat", b"[ 1 x ]\n", "'x'"),
        ("mat", b"[ 1 2", "']'"),
        ("mat", b"[ 1 \0\0 ]", "binary data"),
        ("mat", b"hello ]", "'\\[' was expected"),
        ("mat", b"PKL\x05", "could run code"),
        ("vec", b"\0BFM \4\1\0\0\0\4\1\0\0\0aaaa", "a vector was expected, 'FM' was found"),
        ("vec", b"[ 1\n 2 ]\n", "a vector was expected, a matrix was found"),
        ("ivec", b"1 x\n", "'x' is not an integer"),
        ("ivec", b"1 2_0\n", "2_0"),
        ("ivec", b"3000000000\n", "32 bits"),
        ("ivec", b"\0B\4\xff\xff\xff\xff", "-1 integers"),
        ("ivec", b"\0B\4\1\0\0\0\3\1\0\0\0", "4 bytes was expected at byte 7"),
        ("ivec", b"1 2", "does not end in a newline"),
        ("iivec", b"1 ; 2\n", "does not end in ';'"),
        ("iivec", b"\0B\4\xfe\xff\xff\xff", "-2 lists"),
        ("post", b"[ 1 0.5\n", "']' was expected"),
        ("post", b"[ 1 ]\n", "']'|'\\['"),
        ("post", b"1\n", "'\\[' was expected"),
        ("post", b"[ 1.5 2 ]\n", "pairs"),
        ("post", b"\0B\4\1\0\0\0\4\1\0\0\0\4\1\0\0\0\3aaaa", "pairs"),
        ("post", b"\0B\4\xff\xff\xff\xff", "-1 frames"),
        ("post", b"\0B\4\1\0\0\0\4\xff\xff\xff\xff", "-1 posteriors"),
        ("float", b"abc\n", "one number was expected on the line, found 'abc'"),
        ("float", b"1 2\n", "found '1 2'"),
        ("float", b"\0B\5aaaa", "size mark is 5"),
        ("int", b"1.5\n", "one integer"),
        ("int", b"\n", "one integer"),
        ("int", b"1" * 5000 + b"\n", "one integer"),
        ("token", b"a b\n", "one word was expected"),
        ("token", b"\n", "one word"),
        ("token", b"a", "newline"),
        ("diag-gmm", b"<DiagGMM> <X> ", "<GCONSTS> or <WEIGHTS> was expected, '<X>' was found"),
        ("diag-gmm", b"<DiagGMM>", "a token was expected"),
        ("plda", b"<Plda>  [ 1 2 ]\n [\n 1 ]\n [ 1 ]\n</Plda> ", "corrupt: mean 2"),
        ("mat", b"NPY\x02aaaa", "truncated|corrupt numpy"),
        ("diag-gmm", b"NPY\1\5aaaaa", "corrupt numpy value"),
    ],
)
def test_what_is_wrong_is_said(kind, data, message):
    with pytest.raises(VoxarkError, match=message) as caught:
        read(kind, data)
    assert str(caught.value).startswith("data: ") and " at byte " in str(caught.value)


@pytest.mark.parametrize(
    "kind, value",
    [
        ("mat", np.zeros((2, 2), "i4")),
        ("mat", np.zeros((2, 2), "f2")),
        ("mat", np.zeros(3, "f4")),
        ("mat", np.zeros((2, 2), ">f4")),
        ("vec", np.zeros((1, 1), "f4")),
        ("vec", np.zeros(1, "i8")),
        ("ivec", [1 << 31]),
        ("ivec", [0.5]),
        ("ivec", np.array([1 << 40])),
        ("iivec", [[1], [1 << 31]]),
        ("post", [[(1 << 31, 0.5)]]),
        ("post", [[(1,)]]),
        ("float", 1e300),
        ("int", 1 << 31),
        ("token", "a b"),
        ("token", ""),
        ("tokens", ["a", ""]),
        ("tokens", ["a\nb"]),
    ],
)
def test_what_cannot_be_written_is_refused(kind, value):
    with pytest.raises(VoxarkError):
        write(kind, value)


def test_a_bad_part_of_a_model_is_no_bad_entry():
    """Behind a bad value of a table stands the next entry; behind a bad part of a model, another part."""
    with pytest.raises(BadValue):
        read("vec", b"[ 1 x ]\n")
    with pytest.raises(VoxarkError) as caught:
        read("plda", b"<Plda>  [ 1 x ]\n [\n 1 ]\n [ 1 ]\n</Plda> ")
    assert not isinstance(caught.value, BadValue)


def test_noncontiguous_arrays_are_written_as_they_look():
    matrix = np.arange(24, dtype="f4").reshape(4, 6)
    for view in (matrix.T, matrix[::2, 1::2], matrix[::-1]):
        np.testing.assert_array_equal(read("mat", write("mat", view)), view)
    np.testing.assert_array_equal(read("vec", write("vec", matrix[0, ::3])), matrix[0, ::3])


def test_basic_types_for_the_models_to_come():
    """Tokens, integers, floats and bit fields in both forms, as models are made of them."""
    for binary in (True, False):
        out = io.BytesIO()
        kaldi_files.write_token(out, "<T>", binary)
        kaldi_files.write_int(out, -7, binary)
        kaldi_files.write_float(out, 0.25, binary)
        source = Source(io.BytesIO(out.getvalue()), "data")
        assert kaldi_files.expect_token(source, binary, "<S>", "<T>") == "<T>"
        assert (kaldi_files.read_int(source, binary), kaldi_files.read_float(source, binary)) == (-7, 0.25)
        with pytest.raises(VoxarkError):
            kaldi_files.read_int(source, binary)
    assert (
        kaldi_files.read_float(Source(io.BytesIO(b"\x08" + np.float64(0.1).tobytes()), "data"), True) == 0.1
    )
    assert kaldi_files.read_flags(Source(io.BytesIO(b"\xfe\x0f\x01"), "data"), True) == 0x10F
    packed = Source(io.BytesIO(b"FP \4\2\0\0\0" + np.arange(3, dtype="f4").tobytes()), "data")
    np.testing.assert_array_equal(kaldi_files.read_packed(packed, True), [0, 1, 2])
    np.testing.assert_array_equal(
        kaldi_files.read_packed(Source(io.BytesIO(b"[\n 0\n 1 2 ]\n"), "data"), False), [0, 1, 2]
    )
