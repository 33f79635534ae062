"""Utterance vectors: pooling, means, transforms, length normalisation."""

import kaldiio
import numpy as np
import pytest
from helpers import golden, load_ark, needs_golden, run, save_ark, shell, write_lines
from hypothesis import given
from hypothesis import strategies as st

from voxark.backend.vectors import VectorMean, centre, length_normalize, length_ratio, pool_frames, transform
from voxark.errors import VoxarkError

MODEL = golden("model")


def random_features(num_frames, dim=3, seed=0):
    return np.random.default_rng(seed).normal(4, 2, (num_frames, dim)).astype(np.float32)


def random_vectors(number, dim=4, seed=0):
    return {f"u{i}": v for i, v in enumerate(random_features(number, dim, seed))}


# ------------------------------------------------------------------------------------------------ functions


def test_pooling_is_mean_and_standard_deviation():
    x = random_features(50)
    v = pool_frames(x)
    assert v.dtype == np.float32 and v.shape == (6,)
    np.testing.assert_allclose(v, np.concatenate([x.mean(axis=0), x.std(axis=0)]), rtol=1e-5)
    assert np.array_equal(pool_frames(x, "mean"), v[:3])


def test_pooling_of_constant_and_far_away_features():
    assert pool_frames(np.full((9, 1), 7, np.float32), variance_floor=0.25).tolist() == [7.0, 0.5]
    assert pool_frames(np.float32([[3]]), variance_floor=0.0).tolist() == [3.0, 0.0]
    x = random_features(1000, 1) + np.float32(1e5)  # sums of squares would lose the deviation in float32
    np.testing.assert_allclose(pool_frames(x)[1], x.astype(np.float64).std(), rtol=1e-6)


def test_pooling_refuses_nothing_and_not_a_number():
    with pytest.raises(VoxarkError, match="no frames"):
        pool_frames(np.zeros((0, 3), np.float32))
    with pytest.raises(VoxarkError, match="frame 1, column 0 is nan"):
        pool_frames(np.float32([[1], [np.nan]]))


@given(st.integers(1, 30))
def test_mean_of_a_stream(number):
    vectors = random_features(number)
    mean = VectorMean()
    for v in vectors:
        mean.add(v)
    assert mean.count == number
    np.testing.assert_allclose(mean.mean, vectors.astype(np.float64).mean(axis=0), rtol=1e-14)
    with pytest.raises(VoxarkError, match="no vectors"):
        VectorMean().mean  # noqa: B018 - the property raises


def test_transform_is_linear_or_affine_by_the_dimension():
    matrix = np.float32([[1, 2, 10], [0, -1, 20]])
    assert transform(np.float32([3, 4]), matrix).tolist() == [21.0, 16.0]
    assert transform(np.float32([3, 4, 0.5]), matrix).tolist() == [16.0, 6.0]
    assert transform(np.float32([[3, 4], [0, 0]]), matrix).tolist() == [[21.0, 16.0], [10.0, 20.0]]
    with pytest.raises(
        VoxarkError, match="dimension 4, the transform is 2 x 3: it takes 3, or 2 with an offset"
    ):
        transform(np.ones(4), matrix)


def test_centring_checks_the_dimension():
    assert centre(np.float32([3, 4]), np.array([1.0, 1.0])).tolist() == [2.0, 3.0]
    with pytest.raises(VoxarkError, match="dimension 2, the mean 3"):
        centre(np.ones(2), np.ones(3))


def test_length_becomes_the_root_of_the_dimension():
    x = random_features(20, 5)
    np.testing.assert_allclose(np.linalg.norm(length_normalize(x), axis=1), np.sqrt(5), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(length_normalize(x, scaleup=False), axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(length_normalize(x[3]), length_normalize(x)[3], rtol=1e-14)
    np.testing.assert_allclose(length_ratio(np.ones(9) * 2), 2)
    with_zero = np.vstack([x[:1], np.zeros((1, 5))])
    assert np.array_equal(length_normalize(with_zero)[1], np.zeros(5))
    assert np.array_equal(length_normalize(np.zeros(5)), np.zeros(5))


# ------------------------------------------------------------------------------------------- Kaldi's output


@needs_golden
def test_mean_is_kaldis_text(tmp_path):
    run("compute-vec-mean", f"ark:{MODEL}/dvec_train.ark", tmp_path / "mean.vec")
    assert (tmp_path / "mean.vec").read_bytes() == (MODEL / "mean.vec").read_bytes()


@needs_golden
@pytest.mark.parametrize(
    "arguments, source, name",
    [
        ([f"--mean={MODEL}/mean.vec"], "dvec_train", "dvec_train.centred"),
        ([f"--mean={MODEL}/mean.vec", MODEL / "lda.mat"], "dvec_train", "dvec_train.lda"),
        (["--normalize-length"], "dvec_train.lda", "dvec_train.norm"),
        (
            [f"--mean={MODEL}/mean.vec", "--normalize-length=true", MODEL / "lda.mat"],
            "dvec_test",
            "dvec_test.norm",
        ),
    ],
)
def test_vectors_equal_kaldis(arguments, source, name, tmp_path):
    run("transform-vec", *arguments, f"ark:{MODEL}/{source}.ark", f"ark:{tmp_path}/out.ark")
    ours, kaldis = load_ark(tmp_path / "out.ark"), load_ark(MODEL / f"{name}.ark")
    assert list(ours) == list(kaldis)
    assert all(v.dtype == np.float32 for v in ours.values())
    np.testing.assert_allclose(
        np.array(list(ours.values())), np.array(list(kaldis.values())), rtol=1e-5, atol=1e-5
    )


@needs_golden
def test_enrolment_equals_kaldis(tmp_path):
    shell(
        f"compute-vec-mean ark:{MODEL}/enroll.spk2utt ark:{MODEL}/dvec_test.norm.ark ark:- "
        f"ark,t:{tmp_path}/num | transform-vec --normalize-length ark:- ark:{tmp_path}/enroll.ark"
    )
    assert (tmp_path / "num").read_bytes() == (MODEL / "enroll.num_utts").read_bytes()
    ours, kaldis = load_ark(tmp_path / "enroll.ark"), load_ark(MODEL / "enroll.ark")
    assert list(ours) == list(kaldis)
    np.testing.assert_allclose(
        np.array(list(ours.values())), np.array(list(kaldis.values())), rtol=1e-5, atol=1e-6
    )


# ------------------------------------------------------------------------------------------------- programs


def test_pool_program(tmp_path):
    bad = random_features(9)
    bad[4, 0] = np.nan
    table = {
        "a": random_features(30),
        "b": np.zeros((0, 0), np.float32),
        "c": bad,
        "d": random_features(5, 2),
    }
    done = run("pool-feats", save_ark(tmp_path / "f.ark", table), f"ark:{tmp_path}/v.ark")
    vectors = load_ark(tmp_path / "v.ark")
    assert list(vectors) == ["a"] and np.array_equal(vectors["a"], pool_frames(table["a"]))
    for text in (
        "b: no frames",
        "c: feature at frame 4, column 0 is nan",
        "d: dimension 2, but a has 3",
        "done 1, failed 3",
    ):
        assert text in done.stderr
    run("pool-feats", "--pooling=mean", f"ark:{tmp_path}/f.ark", f"ark:{tmp_path}/m.ark")
    assert np.array_equal(load_ark(tmp_path / "m.ark")["a"], pool_frames(table["a"], "mean"))
    assert run("pool-feats", "--pooling=max", f"ark:{tmp_path}/f.ark", "ark:-", check=False).returncode == 1
    assert (
        run("pool-feats", "--variance-floor=-1", f"ark:{tmp_path}/f.ark", "ark:-", check=False).returncode
        == 1
    )


@needs_golden
def test_pool_program_in_a_pipe(tmp_path):
    feats = f"ark:{golden('feat/mfcc20_30.ark')}"
    shell(
        f"compute-vad {feats} ark:- | select-voiced-frames {feats} ark:- ark:- "
        f"| pool-feats ark:- ark:{tmp_path}/v.ark"
    )
    vectors = load_ark(tmp_path / "v.ark")
    assert vectors and all(v.shape == (40,) and np.isfinite(v).all() for v in vectors.values())


def test_global_mean_program(tmp_path):
    vectors = random_vectors(10)
    mean = np.mean(np.array(list(vectors.values()), dtype=np.float64), axis=0)
    vectors["bad"] = np.float32([1, np.nan, 0, 0])
    source = save_ark(tmp_path / "v.ark", vectors)
    done = run("compute-vec-mean", "--binary=true", source, tmp_path / "mean.vec")
    assert "bad: value at element 1 is nan" in done.stderr and "done 10, failed 1" in done.stderr
    data = (tmp_path / "mean.vec").read_bytes()
    assert data[:5] == b"\0BDV " and len(data) == 10 + 8 * 4
    np.testing.assert_allclose(np.frombuffer(data[10:]), mean, rtol=1e-15)
    done = run("compute-vec-mean", source, "-")
    assert done.stdout.startswith(b" [ ") and done.stdout.endswith(b" ]\n")
    np.testing.assert_allclose(np.array(done.stdout.split()[1:-1], float), mean, rtol=1e-6)


def test_mixed_or_no_vectors_give_no_mean(tmp_path):
    mixed = save_ark(tmp_path / "v.ark", {"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)})
    done = run("compute-vec-mean", mixed, tmp_path / "mean.vec", check=False)
    assert done.returncode == 1 and "b: dimension 4, but a has 3" in done.stderr
    (tmp_path / "e.ark").write_bytes(b"")
    assert (
        run("compute-vec-mean", f"ark:{tmp_path}/e.ark", tmp_path / "mean.vec", check=False).returncode == 1
    )
    assert not (tmp_path / "mean.vec").exists()


def test_speaker_means_program(tmp_path):
    vectors = random_vectors(5)
    spk2utt = write_lines(tmp_path / "spk2utt", "A u0 u1 gone u4", "B nobody", "C u2")
    done = run(
        "compute-vec-mean",
        spk2utt,
        save_ark(tmp_path / "v.ark", vectors),
        f"ark:{tmp_path}/s.ark",
        f"ark,t:{tmp_path}/num",
    )
    means = load_ark(tmp_path / "s.ark")
    assert list(means) == ["A", "C"] and means["A"].dtype == np.float32
    np.testing.assert_allclose(means["A"], (vectors["u0"] + vectors["u1"] + vectors["u4"]) / 3, rtol=1e-6)
    assert np.array_equal(means["C"], vectors["u2"])
    assert (tmp_path / "num").read_text() == "A 3 \nC 1 \n"
    for text in (
        "gone: utterance of speaker A has no vector",
        "nobody: utterance of speaker B has no vector",
        "speaker B is left out",
        "done 4, failed 2",
    ):
        assert text in done.stderr
    run("compute-vec-mean", spk2utt, f"ark:{tmp_path}/v.ark", f"ark:{tmp_path}/t.ark")
    assert (tmp_path / "t.ark").read_bytes() == (tmp_path / "s.ark").read_bytes()


def test_transform_program(tmp_path):
    vectors = random_vectors(6)
    vectors["zero"] = np.float32([1, 1, 1, 1])  # zero once the mean is taken off
    vectors["short"], vectors["bad"] = np.ones(3, np.float32), np.float32([1, 2, np.inf, 0])
    source = save_ark(tmp_path / "v.ark", vectors)
    kaldiio.save_mat(str(tmp_path / "mean.vec"), np.ones(4, np.float32))
    matrix = random_features(2, 4, seed=5)
    kaldiio.save_mat(str(tmp_path / "lda.mat"), matrix)
    done = run(
        "transform-vec",
        f"--mean={tmp_path}/mean.vec",
        "--normalize-length",
        "--scaleup=false",
        tmp_path / "lda.mat",
        source,
        f"ark:{tmp_path}/o.ark",
    )
    out = load_ark(tmp_path / "o.ark")
    assert list(out) == [f"u{i}" for i in range(6)] + ["zero"]
    y = matrix.astype(np.float64) @ (vectors["u3"].astype(np.float64) - 1)
    np.testing.assert_allclose(out["u3"], y / np.linalg.norm(y), rtol=1e-6)
    assert np.array_equal(out["zero"], np.zeros(2))
    for text in (
        "zero: zero vector",
        "short: dimension 3, but u0 has 4",
        "bad: value at element 2 is inf",
        "done 7, failed 2",
    ):
        assert text in done.stderr


def test_transform_program_names_what_does_not_fit(tmp_path):
    source = save_ark(tmp_path / "v.ark", random_vectors(2))
    kaldiio.save_mat(str(tmp_path / "mean.vec"), np.ones(5, np.float32))
    kaldiio.save_mat(str(tmp_path / "lda.mat"), np.ones((2, 7), np.float32))
    done = run("transform-vec", f"--mean={tmp_path}/mean.vec", source, "ark:-", check=False)
    assert done.returncode == 1 and "u0: vector has dimension 4, the mean 5" in done.stderr
    done = run("transform-vec", tmp_path / "lda.mat", source, "ark:-", check=False)
    assert done.returncode == 1 and "it takes 7, or 6 with an offset" in done.stderr
    done = run("transform-vec", f"--mean={tmp_path}/absent.vec", source, "ark:-", check=False)
    assert done.returncode == 1 and "absent.vec" in done.stderr


def test_without_options_vectors_are_copied(tmp_path):
    source = save_ark(tmp_path / "v.ark", random_vectors(3))
    run("transform-vec", source, f"ark:{tmp_path}/o.ark")
    assert (tmp_path / "o.ark").read_bytes() == (tmp_path / "v.ark").read_bytes()
