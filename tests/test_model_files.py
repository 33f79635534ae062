"""Kaldi's models, statistics and posteriors: from files that Kaldi wrote, by hand, at random, and damaged."""

import io
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers import environment, golden, needs_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.kinds import KINDS, read_value, value_parts
from voxark.io.streams import Source
from voxark.kaldi_files import (
    DiagGmmParams, FullGmmParams, GaussSelection, GmmAccsParams, IvectorExtractorParams, IvectorStatsParams,
    Posteriors)
from voxark.packed import pack_lower, unpack_lower


def read(kind, data):
    """Read one value of a kind from bytes; all of them must be used."""
    source = Source(io.BytesIO(data), "data")
    value = read_value(KINDS[kind], source)
    assert source.read_all() in (b"", b"\n")  # Kaldi ends a GMM in text so, and the readers of tables skip it
    return value


def write(kind, value, binary=True):
    return b"".join(value_parts(KINDS[kind], value, binary))


def same(one, other, rtol=0.0):
    """Two values of one kind have the same fields, within ``rtol``; with 0 the types of numbers too."""
    assert type(one) is type(other)
    for a, b in zip(one, other, strict=True):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            assert a.shape == b.shape and (rtol or a.dtype == b.dtype)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-40 if rtol else 0)
        elif isinstance(a, float) and isinstance(b, float):
            assert a == pytest.approx(b, rel=rtol, abs=0)
        else:
            assert a is None and b is None or a == b
    return True


# ------------------------------------------------------------------------------------------- what Kaldi wrote


@needs_golden
@pytest.mark.parametrize(
    "kind, name, binary",
    [
        ("gmm", "diag.0.gmm", True),
        ("gmm", "diag.1.gmm", True),
        ("gmm", "diag.1.txt", False),
        ("gmm", "full.0.gmm", True),
        ("gmm", "full.1.gmm", True),
        ("gmm", "full.1.txt", False),
        ("gmm", "full.1.diag.gmm", True),
        ("full-gmm", "full.1.gmm", True),
        ("full-gmm", "full.1.txt", False),
        ("gmm-accs", "diag.0.acc", True),
        ("gmm-accs", "full.0.acc", True),
        ("ivector-extractor", "iv.0.ie", True),
        ("ivector-extractor", "iv.1.ie", True),
        ("ivector-extractor", "iv.1.txt", False),
        ("ivector-stats", "iv.0.acc", True),
    ],
)
def test_objects_of_kaldi_byte_for_byte(kind, name, binary, tmp_path):
    kaldi = golden(f"model/{name}")
    tables.write_object(kind, f"{tmp_path}/copy", tables.read_object(kind, str(kaldi)), binary)
    assert (tmp_path / "copy").read_bytes() == kaldi.read_bytes()


@needs_golden
@pytest.mark.parametrize(
    "kind, binary_name, text_name",
    [("gmm", "full.1.gmm", "full.1.txt"), ("gmm", "diag.1.gmm", "diag.1.txt"),
     ("ivector-extractor", "iv.1.ie", "iv.1.txt")],
)
def test_models_from_binary_to_text(kind, binary_name, text_name, tmp_path):
    value = tables.read_object(kind, str(golden(f"model/{binary_name}")))
    tables.write_object(kind, f"{tmp_path}/text", value, binary=False)
    assert (tmp_path / "text").read_bytes() == golden(f"model/{text_name}").read_bytes()
    same(tables.read_object(kind, f"{tmp_path}/text"), value, rtol=6e-7)


@needs_golden
@pytest.mark.parametrize("kind, name", [("post", "post.ark"), ("post", "diag.1.post5.ark"),
                                        ("gselect", "diag.1.gselect3.txt")])
def test_frames_of_kaldi_byte_for_byte_and_as_lists(kind, name, tmp_path):
    """Read as arrays and written they are the file; what they hold is what the kind of lists gives."""
    flag = ",t" if name.endswith("txt") else ""
    lists_kind = {"post": "post", "gselect": "iivec"}[kind]
    with (tables.open_reader(f"{kind}-arrays", f"ark:{golden('model')}/{name}") as entries,
          tables.open_reader(lists_kind, f"ark:{golden('model')}/{name}") as lists,
          tables.open_writer(f"{kind}-arrays", f"ark{flag}:{tmp_path}/copy") as out):
        number = 0
        for (key, frames), (other_key, expected) in zip(entries, lists, strict=True):
            out[key] = frames
            assert key == other_key and frames.counts.tolist() == list(map(len, expected))
            flat = [entry for frame in expected for entry in frame]
            if kind == "post":
                assert list(zip(frames.index.tolist(), frames.value.tolist(), strict=True)) == flat
            else:
                assert frames.index.tolist() == flat
            number += len(flat)
    assert number > 1000
    assert (tmp_path / "copy").read_bytes() == golden(f"model/{name}").read_bytes()


def features():
    """The frames of all golden utterances, in the order of the keys of Kaldi's posteriors."""
    with tables.open_reader("mat", f"ark:{golden('model/feats.ark')}") as feats:
        return {key: x.astype(np.float64) for key, x in feats}


def densities(params, x):
    """ln(w N(x)) (N,C), straight from the definition."""
    weights, inverses = params.weights.astype(float), None
    if isinstance(params, FullGmmParams):
        inverses = unpack_lower(params.inv_covars.astype(float))
        pairs = zip(inverses, params.means_invcovars, strict=True)
        means = np.stack([np.linalg.solve(inverse, linear) for inverse, linear in pairs])
    else:
        inverses = np.stack([np.diag(p) for p in params.inv_vars.astype(float)])
        means = params.means_invvars.astype(float) / params.inv_vars
    result = np.empty((len(x), len(weights)))
    for c, (weight, mean, inverse) in enumerate(zip(weights, means, inverses, strict=True)):
        distance = np.einsum("nd,de,ne->n", x - mean, inverse, x - mean)
        constant = np.log(weight) + 0.5 * np.linalg.slogdet(inverse / (2 * np.pi))[1]
        result[:, c] = constant - 0.5 * distance
    return result


@needs_golden
@pytest.mark.parametrize("name", ["diag", "full"])
def test_accumulators_of_kaldi_are_the_sums_that_they_are_said_to_be(name):
    """Posteriors by the definition, then plain sums: un-centred, also where the file holds centred ones."""
    params = tables.read_object("gmm", str(golden(f"model/{name}.0.gmm")))
    accs = tables.read_object("gmm-accs", str(golden(f"model/{name}.0.acc")))
    x = np.concatenate(list(features().values()))
    ln = densities(params, x)
    gamma = np.exp(ln - ln.max(axis=1, keepdims=True))
    gamma /= gamma.sum(axis=1, keepdims=True)
    assert (accs.flags, accs.dim, accs.log_likelihood, accs.num_frames) == (7, x.shape[1], None, None)
    np.testing.assert_allclose(accs.occupancy, gamma.sum(axis=0), rtol=2e-5)
    np.testing.assert_allclose(accs.means, gamma.T @ x, rtol=1e-4, atol=0.05)
    if name == "diag":
        assert accs.full_vars is None and not accs.full
        np.testing.assert_allclose(accs.diag_vars, gamma.T @ (x * x), rtol=1e-4)
        return
    sums, means = np.einsum("nc,nd,ne->cde", gamma, x, x, optimize=True), accs.means.astype(float)
    centre = pack_lower(means[:, :, None] * means[:, None, :] / accs.occupancy[:, None, None])
    scale = np.abs(sums).max(axis=(1, 2))[:, None]
    assert accs.diag_vars is None and accs.full
    np.testing.assert_allclose((accs.full_vars + centre) / scale, pack_lower(sums) / scale, atol=2e-5)
    assert np.abs(accs.full_vars - pack_lower(sums)).max() > 0.5 * np.abs(sums).max()  # the file is centred


@needs_golden
def test_extractor_statistics_of_kaldi_are_those_of_its_posteriors():
    """Counts and second-order sums by plain sums over the posteriors that Kaldi's program was given."""
    stats = tables.read_object("ivector-stats", str(golden("model/iv.0.acc")))
    x, number = features(), len(stats.gamma)
    gamma, s = np.zeros(number), np.zeros((number, *2 * (stats.y.shape[1],)))
    with tables.open_reader("post-arrays", f"ark:{golden('model/post.ark')}") as posts:
        for key, post in posts:
            frame = np.repeat(np.arange(len(post.counts)), post.counts)
            np.add.at(gamma, post.index, post.value)
            for c in range(number):
                chosen = post.index == c
                frames = x[key][frame[chosen]]
                s[c] += (frames * post.value[chosen][:, None]).T @ frames
    np.testing.assert_allclose(stats.gamma, gamma, rtol=1e-6)
    np.testing.assert_allclose(stats.s, pack_lower(s), rtol=1e-5, atol=1e-5 * np.abs(s).max())
    assert stats.num_ivectors == len(x)


@needs_golden
def test_types_of_numbers():
    for name, dtype in (("full.1.gmm", "f4"), ("full.1.txt", "f4"), ("diag.1.gmm", "f4")):
        params = tables.read_object("gmm", str(golden(f"model/{name}")))
        assert {part.dtype for part in params} == {np.dtype(dtype)}
    for name in ("iv.1.ie", "iv.1.txt"):
        extractor = tables.read_object("ivector-extractor", str(golden(f"model/{name}")))
        assert {part.dtype for part in extractor[:-1]} == {np.dtype("f8")}


# ---------------------------------------------------------------------------------------------- forms by hand
# Expected bytes follow Kaldi's definitions of each format; they were made by hand, not by this code.


def numbers(values, code):
    return np.array(values, {"F": "<f4", "D": "<f8"}[code]).tobytes()


def vector(*values, code="F"):
    return (code + "V ").encode() + struct.pack("<bi", 4, len(values)) + numbers(values, code)


def matrix(*rows, code="F"):
    cols = len(rows[0]) if rows else 0
    return (code + "M ").encode() + struct.pack("<bibi", 4, len(rows), 4, cols) + numbers(rows, code)


def packed(dim, *values, code="F"):
    return (code + "P ").encode() + struct.pack("<bi", 4, dim) + numbers(values, code)


def f4(*values):
    return np.array(values, "f4")


def f8(*values):
    return np.array(values, "f8")


FULL = FullGmmParams(f4(-2.5), f4(1), f4([0.5, 1]), f4([2, 0.5, 1]))
DIAG = DiagGmmParams(None, f4(1), f4([0.5, 1]), f4([2, 1]))
DIAG_ACCS = GmmAccsParams(7, f4(3), f4([1, 2]), f4([4, 5]), None, None, None, 2, False)
FULL_ACCS = GmmAccsParams(7, f8(3), f8([1, 2]), None, f8([4, 0, 5]), None, None, 2, True)
TOTALS = FULL_ACCS._replace(log_likelihood=-12.5, num_frames=3.0)
WEIGHTS_ONLY = GmmAccsParams(4, f4(3), None, None, None, None, None, 2, False)
FULL_WEIGHTS_ONLY = WEIGHTS_ONLY._replace(full=True)
ACC_HEAD = b"\0B<GMMACCS> <VECSIZE> \4\2\0\0\0<NUMCOMPONENTS> \4\1\0\0\0<FLAGS> \xfe"
EXTRACTOR = IvectorExtractorParams(np.zeros((0, 0)), f8(1), f8([[1, 2], [3, 4]]), f8([5, 0, 6]), 100.0)
WEIGHTED = EXTRACTOR._replace(w=f8([0.5, -1]))
STATS = IvectorStatsParams(-1.5, f8(2), f8([[1, 2], [3, 4]]), f4([1, 0, 2]), np.zeros((0, 0), "f4"),
                           np.zeros((0, 0)), f8([7, 8, 9]), 3.0, f8(1, 2), f8(4, 5, 6))
FORMS = [
    ("gmm", FULL,
     b"\0B<FullGMM> <GCONSTS> " + vector(-2.5) + b"<WEIGHTS> " + vector(1) + b"<MEANS_INVCOVARS> "
     + matrix([0.5, 1]) + b"<INV_COVARS> " + packed(2, 2, 0.5, 1) + b"</FullGMM> ",
     b"<FullGMM> \n<GCONSTS>  [ -2.5 ]\n<WEIGHTS>  [ 1 ]\n<MEANS_INVCOVARS>  [\n  0.5 1 ]\n"
     b"<INV_COVARS> [\n2 \n0.5 1 ]\n</FullGMM> \n"),
    ("gmm", DIAG,
     b"\0B<DiagGMM> <WEIGHTS> " + vector(1) + b"<MEANS_INVVARS> " + matrix([0.5, 1]) + b"<INV_VARS> "
     + matrix([2, 1]) + b"</DiagGMM> ",
     b"<DiagGMM> \n<WEIGHTS>  [ 1 ]\n<MEANS_INVVARS>  [\n  0.5 1 ]\n<INV_VARS>  [\n  2 1 ]\n</DiagGMM> \n"),
    ("gmm-accs", DIAG_ACCS,
     ACC_HEAD + b"\7\0<OCCUPANCY> " + vector(3) + b"<MEANACCS> " + matrix([1, 2]) + b"<DIAGVARACCS> "
     + matrix([4, 5]) + b"</GMMACCS> ",
     b"<GMMACCS> <VECSIZE> 2 <NUMCOMPONENTS> 1 <FLAGS> 7 <OCCUPANCY>  [ 3 ]\n<MEANACCS>  [\n  1 2 ]\n"
     b"<DIAGVARACCS>  [\n  4 5 ]\n</GMMACCS> "),
    ("gmm-accs", TOTALS,
     ACC_HEAD + b"\7\0<OCCUPANCY> " + vector(3, code="D") + b"<MEANACCS> " + matrix([1, 2], code="D")
     + b"<FULLVARACCS> " + packed(2, 4, 0, 5, code="D") + b"</GMMACCS> <VOXARK_TOTALS> \x08"
     + struct.pack("<d", -12.5) + b"\x08" + struct.pack("<d", 3) + b"</VOXARK_TOTALS> ",
     b"<GMMACCS> <VECSIZE> 2 <NUMCOMPONENTS> 1 <FLAGS> 7 <OCCUPANCY>  [ 3 ]\n<MEANACCS>  [\n  1 2 ]\n"
     b"<FULLVARACCS> [\n4 \n0 5 ]\n</GMMACCS> <VOXARK_TOTALS> -12.5 3 </VOXARK_TOTALS> "),
    ("gmm-accs", WEIGHTS_ONLY,
     ACC_HEAD + b"\4\0<OCCUPANCY> " + vector(3) + b"<MEANACCS> " + matrix() + b"<DIAGVARACCS> " + matrix()
     + b"</GMMACCS> ",
     b"<GMMACCS> <VECSIZE> 2 <NUMCOMPONENTS> 1 <FLAGS> 4 <OCCUPANCY>  [ 3 ]\n<MEANACCS>  [ ]\n"
     b"<DIAGVARACCS>  [ ]\n</GMMACCS> "),
    ("gmm-accs", FULL_WEIGHTS_ONLY,
     ACC_HEAD + b"\4\0<OCCUPANCY> " + vector(3) + b"<MEANACCS> " + matrix() + b"</GMMACCS> ",
     b"<GMMACCS> <VECSIZE> 2 <NUMCOMPONENTS> 1 <FLAGS> 4 <OCCUPANCY>  [ 3 ]\n<MEANACCS>  [ ]\n</GMMACCS> "),
    ("ivector-extractor", EXTRACTOR,
     b"\0B<IvectorExtractor> <w> " + matrix(code="D") + b"<w_vec> " + vector(1, code="D")
     + b"<M> \4\1\0\0\0" + matrix([1, 2], [3, 4], code="D") + b"<SigmaInv> " + packed(2, 5, 0, 6, code="D")
     + b"<IvectorOffset> \x08" + struct.pack("<d", 100) + b"</IvectorExtractor> ",
     b"<IvectorExtractor> <w>  [ ]\n<w_vec>  [ 1 ]\n<M> 1  [\n  1 2 \n  3 4 ]\n<SigmaInv> [\n5 \n0 6 ]\n"
     b"<IvectorOffset> 100 </IvectorExtractor> "),
    ("ivector-extractor", WEIGHTED,
     b"\0B<IvectorExtractor> <w> " + matrix([0.5, -1], code="D") + b"<w_vec> " + vector(1, code="D")
     + b"<M> \4\1\0\0\0" + matrix([1, 2], [3, 4], code="D") + b"<SigmaInv> " + packed(2, 5, 0, 6, code="D")
     + b"<IvectorOffset> \x08" + struct.pack("<d", 100) + b"</IvectorExtractor> ",
     b"<IvectorExtractor> <w>  [\n  0.5 -1 ]\n<w_vec>  [ 1 ]\n<M> 1  [\n  1 2 \n  3 4 ]\n"
     b"<SigmaInv> [\n5 \n0 6 ]\n<IvectorOffset> 100 </IvectorExtractor> "),
    ("ivector-stats", STATS,
     b"\0B<IvectorExtractorStats> <TotAuxf> \x08" + struct.pack("<d", -1.5)
     + b"<gamma> " + vector(2, code="D") + b"<Y> \4\1\0\0\0" + matrix([1, 2], [3, 4], code="D")
     + b"<R> " + matrix([1, 0, 2]) + b"<Q> " + matrix()
     + b"<G> " + matrix(code="D") + b"<S> \4\1\0\0\0" + packed(2, 7, 8, 9, code="D") + b"<NumIvectors> \x08"
     + struct.pack("<d", 3) + b"<IvectorSum> " + vector(1, 2, code="D") + b"<IvectorScatter> "
     + packed(2, 4, 5, 6, code="D") + b"</IvectorExtractorStats> ",
     b"<IvectorExtractorStats> <TotAuxf> -1.5 <gamma>  [ 2 ]\n<Y> 1  [\n  1 2 \n  3 4 ]\n<R>  [\n  1 0 2 ]\n"
     b"<Q>  [ ]\n<G>  [ ]\n<S> 1 [\n7 \n8 9 ]\n<NumIvectors> 3 <IvectorSum>  [ 1 2 ]\n"
     b"<IvectorScatter> [\n4 \n5 6 ]\n</IvectorExtractorStats> "),
    ("post-arrays", Posteriors(np.array([1, 0], "i4"), np.array([3], "i4"), f4(0.5)),
     b"\0B\4\2\0\0\0\4\1\0\0\0\4\3\0\0\0\4\0\0\0?\4\0\0\0\0", b"[ 3 0.5 ] [ ] \n"),
    ("gselect-arrays", GaussSelection(np.array([2, 0], "i4"), np.array([1, 2], "i4")),
     b"\0B\4\2\0\0\0\4\2\0\0\0\4\1\0\0\0\4\2\0\0\0\4\0\0\0\0", b"1 2 ; ; \n"),
    ("post-arrays", Posteriors(np.zeros(0, "i4"), np.zeros(0, "i4"), f4()), b"\0B\4\0\0\0\0", b"\n"),
    ("gselect-arrays", GaussSelection(np.zeros(0, "i4"), np.zeros(0, "i4")), b"\0B\4\0\0\0\0", b"\n"),
]


@pytest.mark.parametrize("kind, value, binary, text", FORMS)
def test_forms_made_by_hand(kind, value, binary, text):
    assert write(kind, value) == binary and write(kind, value, False) == text
    same(read(kind, binary), value)
    same(read(kind, text), value, rtol=1e-7)


def test_old_tokens_and_any_order_are_accepted():
    """Kaldi's readers know the tokens of old files, and take the fields of accumulators in any order [K]."""
    full, diag = FORMS[0][2], FORMS[1][2]
    old = full.replace(b"<FullGMM>", b"<FullGMMBegin>").replace(b"</FullGMM>", b"<FullGMMEnd>")
    same(read("gmm", old), FULL)
    same(read("full-gmm", old), FULL)
    old = diag.replace(b"<DiagGMM>", b"<DiagGMMBegin>").replace(b"</DiagGMM>", b"<DiagGMMEnd>")
    same(read("gmm", old), DIAG)
    swapped = (ACC_HEAD + b"\7\0<MEANACCS> " + matrix([1, 2]) + b"<DIAGVARACCS> " + matrix([4, 5])
               + b"<OCCUPANCY> " + vector(3) + b"</GMMACCS> ")
    same(read("gmm-accs", swapped), DIAG_ACCS)
    assert read("gmm", full.replace(b"<GCONSTS> " + vector(-2.5), b"")).gconsts is None


def test_packed_text_may_stand_in_one_row():
    text = FORMS[0][3].replace(b"2 \n0.5 1 ]", b" 2 0.5 1 ]")
    same(read("gmm", text), FULL)


def test_constants_and_weights_are_not_touched():
    """A model whose constants are wrong is copied as it is: nobody asked for new ones."""
    odd = FULL._replace(gconsts=f4(np.nan), weights=f4(3))
    assert write("gmm", read("gmm", write("gmm", odd))) == write("gmm", odd)


def test_a_kind_writes_its_own_model_only():
    with pytest.raises(VoxarkError, match="<DiagGMM> or <DiagGMMBegin> was expected, '<FullGMM>' was found"):
        read("diag-gmm", FORMS[0][2])
    with pytest.raises(VoxarkError, match="<FullGMM> or <FullGMMBegin> was expected, '<DiagGMM>' was found"):
        read("full-gmm", FORMS[1][2])


# -------------------------------------------------------------------------------------------------- at random

NUMBERS = st.floats(-2.0**99, 2.0**99, width=32)


def arrays(dtype, *shape):
    size = int(np.prod(shape))
    return st.lists(NUMBERS, min_size=size, max_size=size).map(
        lambda values: np.array(values, dtype).reshape(shape))


@st.composite
def models(draw):
    """(kind, value) of any kind of model with random shapes and types of numbers."""
    number, dim, rank = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    triangle, dtype = dim * (dim + 1) // 2, draw(st.sampled_from(["f4", "f8"]))
    kind = draw(st.sampled_from(["diag-gmm", "full-gmm", "gmm-accs", "ivector-extractor", "ivector-stats"]))

    def some(*shape):
        return draw(arrays(dtype, *shape))

    gconsts = some(number) if draw(st.booleans()) else None
    if kind == "diag-gmm":
        return kind, DiagGmmParams(gconsts, some(number), some(number, dim), some(number, dim))
    if kind == "full-gmm":
        return kind, FullGmmParams(gconsts, some(number), some(number, dim), some(number, triangle))
    if kind == "gmm-accs":
        totals = (draw(NUMBERS), draw(NUMBERS)) if draw(st.booleans()) else (None, None)
        full, flags = draw(st.booleans()), draw(st.integers(0, 65535))
        variances = (None, some(number, triangle)) if full else (some(number, dim), None)
        return kind, GmmAccsParams(flags, some(number), some(number, dim), *variances, *totals, dim, full)
    w = some(number, rank) if draw(st.booleans()) else np.zeros((0, 0), dtype)
    if kind == "ivector-extractor":
        return kind, IvectorExtractorParams(w, some(number), some(number, dim, rank), some(number, triangle),
                                            draw(NUMBERS))
    pairs = rank * (rank + 1) // 2
    s = some(number, triangle) if draw(st.booleans()) else np.zeros((0, 0))
    return kind, IvectorStatsParams(draw(NUMBERS), some(number), some(number, dim, rank), some(number, pairs),
                                    np.zeros((0, 0), dtype), w, s, draw(NUMBERS), some(rank), some(pairs))


@given(models())
def test_whatever_model_is_written_is_read(model):
    kind, value = model
    same(read(kind, write(kind, value)), value)
    text = write(kind, value, False)
    back = read(kind, text)
    same(back, value, rtol=6e-7)
    if not kind.endswith("gmm"):
        assert write(kind, back, False) == text
    else:
        if value.weights.dtype == np.float32:  # text of a GMM is read in single precision, as by Kaldi
            assert write(kind, back, False) == text
        assert write("gmm", read("gmm", write(kind, value))) == write(kind, value)


@st.composite
def frames(draw):
    counts = draw(st.lists(st.integers(0, 4), max_size=6))
    size = sum(counts)
    index = draw(st.lists(st.integers(-2**31, 2**31 - 1), min_size=size, max_size=size))
    value = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=size, max_size=size))
    return Posteriors(np.array(counts, "i4"), np.array(index, "i4"), np.array(value, "f4"))


@given(frames())
def test_arrays_and_lists_are_the_same_files(post):
    selection = GaussSelection(*post[:2])
    ends = np.cumsum(post.counts)
    pairs = list(zip(post.index.tolist(), post.value.tolist(), strict=True))
    post_lists = [pairs[end - count: end] for count, end in zip(post.counts, ends, strict=True)]
    index_lists = [[i for i, _ in frame] for frame in post_lists]
    for binary in (True, False):
        data = write("post-arrays", post, binary)
        assert data == write("post", post_lists, binary)
        same(read("post-arrays", data), post, rtol=0.0 if binary else 6e-7)
        assert [len(frame) for frame in read("post", data)] == post.counts.tolist()
        assert not binary or read("post", data) == post_lists
        data = write("gselect-arrays", selection, binary)
        assert data == write("iivec", index_lists, binary) and read("iivec", data) == index_lists
        same(read("gselect-arrays", data), selection)


@pytest.mark.parametrize("kind, value", [
    ("gmm", FULL), ("gmm-accs", TOTALS), ("gmm-accs", DIAG_ACCS), ("ivector-extractor", EXTRACTOR),
    ("post-arrays", FORMS[9][1]), ("gselect-arrays", FORMS[10][1])])
@pytest.mark.parametrize("flag", ["", ",t"])
def test_tables_of_them_also_through_pipes(kind, value, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tables.open_writer(kind, f"ark{flag},scp:a.ark,a.scp") as out:
        for key in ("<a", "b", "c"):
            out[key] = value
    for rspecifier in ("ark:a.ark", "scp:a.scp", "ark:cat a.ark |", "ark,bg:a.ark"):
        with tables.open_reader(kind, rspecifier) as entries:
            got = dict(entries)
        assert list(got) == ["<a", "b", "c"]
        assert all(same(back, value, rtol=1e-7) for back in got.values())


def test_a_long_table_of_posteriors_from_a_slow_pipe(tmp_path):
    """Frames longer than any buffer, and a pipe that gives a few bytes at a time."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 9, 30000).astype("i4")
    counts[123] = 100000
    post = Posteriors(counts, rng.integers(0, 99, counts.sum()).astype("i4"), rng.random(counts.sum(), "f4"))
    with tables.open_writer("post-arrays", f"ark:{tmp_path}/a.ark") as out:
        out["a"] = out["b"] = post
    for rspecifier in (f"ark:{tmp_path}/a.ark", f"ark:dd if={tmp_path}/a.ark bs=977 2>/dev/null |"):
        with tables.open_reader("post-arrays", rspecifier) as entries:
            assert [key for key, back in entries if same(back, post)] == ["a", "b"]


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "kind, data, message",
    [
        ("gmm", b"<Model> ", "'<Model>' was found at byte 0"),
        ("gmm", b"\0B<FullGMM> <X> ", "<GCONSTS> or <WEIGHTS> was expected, '<X>' was found at byte 12"),
        ("gmm", FORMS[0][2].replace(b"FP", b"FM"), "a packed matrix was expected, 'FM' was found"),
        ("gmm", FORMS[0][2].replace(matrix([0.5, 1]), matrix([0.5, 1, 2])), "covariances of dimension 2"),
        ("gmm", FORMS[0][2].replace(vector(-2.5), vector(1, 2)), "2 constants, 1 weights"),
        ("gmm", FORMS[0][2].replace(b"<WEIGHTS> " + vector(1), b"<WEIGHTS> " + vector()), "1 constants, 0 w"),
        ("gmm", FORMS[0][3].replace(b"0.5 1 ]\n</", b"0.5 ]\n</"), "2 numbers are no triangle"),
        ("full-gmm", b"\0B<FullGMM> <WEIGHTS> " + vector(0.5, 0.5) + b"<MEANS_INVCOVARS> "
         + matrix([1, 1], [1, 1]) + b"<INV_COVARS> " + packed(2, 1, 0, 1) + packed(1, 1),
         r"an array of shape \(1,\) behind one of \(3,\)"),
        ("gmm-accs", FORMS[2][2].replace(b"\xfe", b"\2"), "unsigned 2-byte integer"),
        ("gmm-accs", FORMS[2][3].replace(b"<FLAGS> 7", b"<FLAGS> 65536"), "unsigned integer of 16 bits"),
        ("gmm-accs", FORMS[2][2].replace(b"SIZE> \4\2", b"SIZE> \4\3"), r"shape \(1, 2\), \(1, 3\) was"),
        ("gmm-accs", FORMS[2][2].replace(b"<VECSIZE> \4\2", b"<VECSIZE> \4\0"), "of dimension 0"),
        ("gmm-accs", ACC_HEAD + b"\7\0</GMMACCS> ", "without <OCCUPANCY>"),
        ("gmm-accs", ACC_HEAD + b"\7\0" + 2 * (b"<OCCUPANCY> " + vector(3)), "two <OCCUPANCY>"),
        ("gmm-accs", ACC_HEAD + b"\7\0<SUM> ", "'<SUM>' was found"),
        ("gmm-accs", FORMS[3][2][:-37], "<VOXARK_TOTALS> was expected"),
        ("ivector-extractor", FORMS[6][2].replace(b"<M> \4\1", b"<M> \4\0"), "corrupt: 0 components"),
        ("ivector-extractor", FORMS[6][2].replace(b"M> \4\1\0\0\0", b"M> \4\xff\xff\xff\xff"), "-1 compo"),
        ("ivector-extractor", FORMS[6][2].replace(b"<M> \4\1", b"<M> \4\2"), "expected"),
        ("ivector-extractor", FORMS[7][2].replace(matrix([0.5, -1], code="D"), matrix([0.5], code="D")),
         r"weights \(1, 1\) and 1"),
        ("ivector-stats", FORMS[8][2].replace(matrix([1, 0, 2]), matrix([1, 0])), r"r has shape \(1, 2\)"),
        ("post-arrays", b"\0B\4\xff\xff\xff\xff", "-1 frames"),
        ("post-arrays", b"\0B\4\1\0\0\0\4\xff\xff\xff\xff", "-1 posteriors at byte 7"),
        ("post-arrays", b"\0B\4\1\0\0\0\4\1\0\0\0\4\1\0\0\0\3aaaa", "pairs of an integer .* at byte 17"),
        ("post-arrays", b"\0B\4\2\0\0\0\5\0\0\0\0\4\0\0\0\0", "size mark is 5 at byte 7"),
        ("post-arrays", b"\0B\4\1\0\0\0\4\xff\xff\xff\x7f", "truncated"),
        ("post-arrays", b"[ 1 0.5\n", "']' was expected"),
        ("post-arrays", b"[ 1 [ 2 0.5 ]\n", "']' was expected"),
        ("post-arrays", b"[ 1 0.5 ] ]\n", "'\\[' was expected, ']' was found"),
        ("post-arrays", b"[ 1 0.5 ] 7 [ ]\n", "'\\[' was expected, '7' was found"),
        ("post-arrays", b"[ 1 ]\n", "a number was expected, ']' was found"),
        ("post-arrays", b"[ 1 x ]\n", "pairs of an integer and a number"),
        ("gselect-arrays", b"\0B\4\xfe\xff\xff\xff", "-2 lists"),
        ("gselect-arrays", b"\0B\4\1\0\0\0\4\1\0\0\0\3aaaa", "4 bytes was expected at byte 12"),
        ("gselect-arrays", b"1 ; x ;\n", "'x' is not an integer"),
        ("gselect-arrays", b"1 ; 2\n", "does not end in ';'"),
    ],
)
def test_what_is_wrong_is_said(kind, data, message):
    with pytest.raises(VoxarkError, match=message) as caught:
        read(kind, data)
    assert str(caught.value).startswith("data: ") and re.search(r" at byte \d+", str(caught.value))


COUNTS, INDEX = np.array([1], "i4"), np.array([5], "i4")


@pytest.mark.parametrize(
    "kind, value",
    [
        ("gmm", FULL._replace(inv_covars=f4([2, 0.5]))),
        ("gmm", FULL._replace(weights=np.array([1]))),
        ("gmm-accs", DIAG_ACCS._replace(full_vars=f4([1, 0, 1]))),
        ("gmm-accs", DIAG_ACCS._replace(flags=1 << 16)),
        ("post-arrays", Posteriors(COUNTS, INDEX, f4(1, 2))),
        ("post-arrays", Posteriors(np.array([2], "i4"), INDEX, f4(1))),
        ("post-arrays", Posteriors(np.array([-1, 2], "i4"), INDEX, f4(1))),
        ("post-arrays", Posteriors(COUNTS, np.array([1 << 31]), f4(1))),
        ("gselect-arrays", GaussSelection(COUNTS, np.array([0.5]))),
        ("gselect-arrays", GaussSelection(np.array([[1]]), INDEX)),
    ],
)
def test_what_cannot_be_written_is_refused(kind, value):
    with pytest.raises(VoxarkError):
        write(kind, value)


@pytest.mark.parametrize("kind, value, binary, text", FORMS[:11])
def test_files_cut_at_every_byte(kind, value, binary, text):
    """No part is a value, but for blanks at the end of a text, and for Kaldi's form without our totals."""
    for data in (binary, text):
        ends = [len(data), data.find(b"<VOXARK_TOTALS>")]
        if data is text and not kind.endswith("arrays"):
            ends += [len(data[:end].rstrip()) for end in ends]
            ends.append(len(data) - 1)
        for cut in range(1, len(data)):
            if cut in ends:
                read(kind, data[:cut])
                continue
            with pytest.raises(VoxarkError, match=r"data: .* at byte \d+"):
                read(kind, data[:cut])


@pytest.mark.parametrize("kind, value, binary, text", FORMS)
def test_changed_bytes_give_errors_or_values(kind, value, binary, text):
    @settings(max_examples=150)
    @given(st.sampled_from([binary, text]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)),
                                                     min_size=1, max_size=4))
    def check(data, edits):
        bad = bytearray(data)
        for at, byte in edits:
            bad[at % len(bad)] = byte
        try:
            read_value(KINDS[kind], Source(io.BytesIO(bytes(bad)), "data"))
        except VoxarkError as error:
            assert str(error).startswith("data: ")

    check()


def test_corrupt_lengths_take_no_memory(tmp_path):
    """Every length set to its maximum, from a file and from a pipe, in a quarter of a gigabyte."""
    names = []
    for number, (kind, _, data, _) in enumerate(FORMS):
        for match in re.finditer(rb"\x04...\0", data, re.DOTALL):
            names.append((kind, f"{number}.{match.start()}"))
            bad = data[: match.start() + 1] + b"\xff\xff\xff\x7f" + data[match.end():]
            (tmp_path / names[-1][1]).write_bytes(bad)
    assert len(names) > 40
    code = (
        "import resource\nfrom voxark import tables\nfrom voxark.errors import VoxarkError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28),) * 2)\n"
        f"for number, (kind, name) in enumerate({names!r}):\n"
        "    for rxfilename in [name] + ['cat %s |' % name] * (number % 4 == 0):\n"
        "        try: tables.read_object(kind, rxfilename)\n"
        "        except VoxarkError as error:\n"
        "            assert 'emory' not in str(error) and 'allocate' not in str(error), (name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
