"""LDA against Kaldi's matrix, scikit-learn, a generalised eigenvalue problem and its own definition."""

import numpy as np
import pytest
from helpers import golden, needs_golden, run
from scipy.linalg import eigh

from voxark import tables
from voxark.backend.lda import LdaOptions, train_lda
from voxark.backend.vectors import transform
from voxark.errors import VoxarkError


def labelled(num_speakers=12, dim=6, seed=0, low=2, high=9):
    """Vectors (N,D) of speakers with unequal counts, with a large mean and correlated dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_speakers), rng.integers(low, high, num_speakers))
    mix = rng.standard_normal((dim, dim))
    x = (
        2 * rng.standard_normal((num_speakers, dim))[labels] + rng.standard_normal((len(labels), dim))
    ) @ mix.T + 30
    return x, labels


def covariances(x, labels):
    """Total, within and between covariance, all divided by N, by loops over speakers."""
    mean = x.mean(axis=0)
    within = np.zeros((x.shape[1],) * 2)
    between = np.zeros_like(within)
    for label in np.unique(labels):
        mine = x[labels == label]
        within += (mine - mine.mean(axis=0)).T @ (mine - mine.mean(axis=0))
        between += len(mine) * np.outer(mine.mean(axis=0) - mean, mine.mean(axis=0) - mean)
    return (within + between) / len(x), within / len(x), between / len(x)


@needs_golden
def test_equals_kaldis_matrix_on_real_vectors(tmp_path):
    out = tmp_path / "lda.mat"
    done = run(
        "train-lda",
        "--dim=40",
        "--total-covariance-factor=0.1",
        f"ark:{golden('model/dvec_train.centred.ark')}",
        f"ark:{golden('model/train.utt2spk')}",
        out,
    )
    assert "floored 15 of 256 eigenvalues of the covariance to 8.29e-09" in done.stderr
    ours = tables.read_object("mat", str(out))
    kaldi = tables.read_object("mat", str(golden("model/lda.mat")))
    assert ours.shape == kaldi.shape == (40, 257) and ours.dtype == np.float32
    signs = np.sign(np.sum(ours * kaldi, axis=1))
    assert np.abs(ours * signs[:, None] - kaldi)[:, :-1].max() < 2e-6 * np.abs(kaldi).max()
    assert np.abs(ours[:, -1]).max() < 1e-4  # the input is centred: the offset vanishes


@needs_golden
def test_offset_column_centres_vectors_that_were_not_centred(tmp_path):
    out = tmp_path / "lda.mat"
    run(
        "train-lda",
        "--dim=40",
        "--total-covariance-factor=0.1",
        f"ark:{golden('model/dvec_train.ark')}",
        f"ark:{golden('model/train.utt2spk')}",
        out,
    )
    matrix = tables.read_object("mat", str(out)).astype(float)
    mean = tables.read_object("vec", str(golden("model/mean.vec")))
    assert np.abs(transform(mean.astype(float), matrix)).max() < 1e-4
    kaldi = tables.read_object("mat", str(golden("model/lda.mat")))
    signs = np.sign(np.sum(matrix * kaldi, axis=1))
    assert np.abs(matrix * signs[:, None] - kaldi)[:, :-1].max() < 1e-3 * np.abs(kaldi).max()


def test_two_speakers_give_fishers_direction():
    x, labels = labelled(num_speakers=2, low=20, high=30)
    row = train_lda(x, labels, LdaOptions(dim=1))[0, :-1].astype(float)
    fisher = np.linalg.solve(
        covariances(x, labels)[1], x[labels == 0].mean(axis=0) - x[labels == 1].mean(axis=0)
    )
    assert abs(row @ fisher) / np.linalg.norm(row) / np.linalg.norm(fisher) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_normalises_one_covariance_and_diagonalises_the_other(factor):
    x, labels = labelled()
    matrix = train_lda(x, labels, LdaOptions(dim=6, total_covariance_factor=factor))
    total, within, between = covariances(transform(x, matrix), labels)
    np.testing.assert_allclose(factor * total + (1 - factor) * within, np.eye(6), atol=1e-4)
    np.testing.assert_allclose(between, np.diag(between.diagonal()), atol=1e-4 * between.max())
    assert (np.diff(between.diagonal()) < 0).all()
    assert np.abs(transform(x, matrix).mean(axis=0)).max() < 1e-4


def test_ratios_are_the_generalised_eigenvalues():
    x, labels = labelled()
    _, within, between = covariances(x, labels)
    expected, _ = eigh(between, within)
    _, _, projected = covariances(transform(x, train_lda(x, labels, LdaOptions(dim=4))), labels)
    np.testing.assert_allclose(projected.diagonal(), expected[::-1][:4], rtol=1e-4)


def test_directions_are_those_of_scikit_learn():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, labels = labelled(seed=3)
    ours = train_lda(x, labels, LdaOptions(dim=5, covariance_floor=0.0))[:, :-1].astype(float)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, labels).scalings_[:, :5].T
    cosine = (
        np.abs(np.sum(ours * theirs, axis=1)) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    )
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_order_of_the_vectors_does_not_matter():
    x, labels = labelled()
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(
        train_lda(x[order], labels[order], LdaOptions(dim=3)),
        train_lda(x, labels, LdaOptions(dim=3)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_full_shrinkage_leaves_the_principal_directions_of_the_speaker_means():
    x, labels = labelled()
    rows = train_lda(x, labels, LdaOptions(dim=2, shrinkage=1.0))[:, :-1].astype(float)
    top = np.linalg.eigh(covariances(x, labels)[2])[1][:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(rows @ top) / np.linalg.norm(rows, axis=1), np.eye(2), atol=1e-5)


@pytest.mark.parametrize(
    "number, speakers, options, message",
    [
        (5, 2, {}, "fewer vectors (5) than dimensions (6)"),
        (8, 8, {}, "no speaker has two vectors (8 speakers)"),
        (9, 4, {}, "leave 5 degrees of freedom within speakers, fewer than dimensions (6)"),
        (30, 1, {}, "one speaker only"),
        (30, 3, {"dim": 7}, "--dim=7"),
        (30, 3, {"dim": 0}, "--dim=0"),
        (30, 3, {"dim": 4, "pca_dim": 3}, "--dim=4: --pca-dim gives dimension 3"),
        (30, 3, {"pca_dim": 7}, "--pca-dim=7"),
        (30, 3, {"shrinkage": 1.5}, "--shrinkage=1.5"),
        (30, 3, {"total_covariance_factor": -1.0}, "--total-covariance-factor=-1"),
    ],
)
def test_refuses_with_the_reason(number, speakers, options, message):
    x = np.random.default_rng(0).standard_normal((number, 6))
    with pytest.raises(VoxarkError) as error:
        train_lda(x, np.arange(number) % speakers, LdaOptions(**{"dim": 2, **options}))
    assert message in str(error.value)


def test_values_too_large_for_variances_are_named(recwarn):
    x = np.random.default_rng(0).standard_normal((30, 6)) * 1e200
    with pytest.raises(VoxarkError, match="so large that their variances are not finite"):
        train_lda(x, np.arange(30) % 3, LdaOptions(dim=2))
    assert not recwarn.list


def test_the_message_names_the_ways_out_and_they_work():
    x, labels = np.random.default_rng(0).standard_normal((9, 6)), np.arange(9) % 4
    with pytest.raises(VoxarkError, match="--pca-dim=5 or less, or --shrinkage"):
        train_lda(x, labels, LdaOptions(dim=2))
    assert np.isfinite(train_lda(x, labels, LdaOptions(dim=2, shrinkage=0.1))).all()
    assert np.isfinite(train_lda(x, labels, LdaOptions(dim=2, pca_dim=5))).all()


def test_principal_directions_come_first():
    x, labels = labelled()
    matrix = train_lda(x, labels, LdaOptions(dim=2, pca_dim=4)).astype(float)
    _, _, principal = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    in_two_steps = train_lda(x @ principal[:4].T, labels, LdaOptions(dim=2)).astype(float)
    signs = np.sign(np.sum(transform(x, matrix) * transform(x @ principal[:4].T, in_two_steps), axis=0))
    np.testing.assert_allclose(
        transform(x, matrix) * signs, transform(x @ principal[:4].T, in_two_steps), rtol=1e-4, atol=1e-4
    )
    everything = train_lda(x, labels, LdaOptions(dim=2, pca_dim=6)).astype(float)
    np.testing.assert_allclose(everything, train_lda(x, labels, LdaOptions(dim=2)), rtol=1e-4, atol=1e-5)


def test_dimensions_beyond_the_rank_are_warned_about(caplog):
    x, labels = labelled(num_speakers=3, low=10, high=12)
    train_lda(x, labels, LdaOptions(dim=5))
    assert "3 speakers span 2 directions only" in caplog.text


def write_inputs(tmp_path, x, labels, skip=()):
    keys = [f"u{i:03d}" for i in range(len(x))]
    with tables.open_writer("vec", f"ark:{tmp_path}/vec.ark") as out:
        for key, vector in zip(keys, x):
            out[key] = vector.astype(np.float32)
    (tmp_path / "utt2spk").write_text(
        "".join(f"{key} s{label}\n" for key, label in zip(keys, labels) if key not in skip)
    )
    return f"ark:{tmp_path}/vec.ark", f"ark:{tmp_path}/utt2spk"


def test_program_counts_vectors_without_a_speaker(tmp_path):
    x, labels = labelled()
    done = run(
        "train-lda",
        "--dim=2",
        "--binary=false",
        *write_inputs(tmp_path, x, labels, skip=("u003", "u007")),
        tmp_path / "m",
    )
    assert f"done {len(x) - 2}, failed 2" in done.stderr and "u007: has no speaker" in done.stderr
    assert (tmp_path / "m").read_bytes().startswith(b" [\n  ")
    rest = np.delete(np.arange(len(x)), [3, 7])
    expected = train_lda(
        x[rest].astype(np.float32), np.unique(labels[rest], return_inverse=True)[1], LdaOptions(dim=2)
    )
    np.testing.assert_allclose(tables.read_object("mat", str(tmp_path / "m")), expected, rtol=1e-5, atol=1e-6)


def test_program_names_the_key_of_a_bad_vector(tmp_path):
    x, labels = labelled()
    x[4, 2] = np.nan
    done = run("train-lda", "--dim=2", *write_inputs(tmp_path, x, labels), tmp_path / "m", check=False)
    assert done.returncode == 1 and "u004: the vector holds NaN or infinite values" in done.stderr
    assert not (tmp_path / "m").exists()


def test_program_names_the_key_of_another_dimension(tmp_path):
    (tmp_path / "v").write_text("a  [ 1 2 ]\nb  [ 1 2 3 ]\n")
    (tmp_path / "u").write_text("a s\nb s\n")
    done = run("train-lda", f"ark:{tmp_path}/v", f"ark:{tmp_path}/u", tmp_path / "m", check=False)
    assert done.returncode == 1 and "b: " in done.stderr and "dimension 3" in done.stderr
