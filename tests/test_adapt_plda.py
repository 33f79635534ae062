"""Adaptation of PLDA models: Kaldi's file, the formulas as they stand in Kaldi's source, interpolation."""

import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark

from voxark import tables
from voxark.backend.plda import Plda
from voxark.backend.plda_adapt import AdaptationOptions, InterpolationOptions, adapt_unsupervised, interpolate
from voxark.errors import VoxarkError


def random_model(dim=4, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, dim, dim + 2))
    return Plda.from_covariances(rng.standard_normal(dim), a @ a.T / dim, b @ b.T / dim)


def whitened_to(covariance, mean, number, seed=0):
    """Vectors whose mean and covariance are these to rounding."""
    x = np.random.default_rng(seed).standard_normal((number, len(mean)))
    x -= x.mean(axis=0)
    x = np.linalg.solve(np.linalg.cholesky(x.T @ x / number), x.T).T
    return x @ np.linalg.cholesky(covariance).T + mean


def assert_same(one, other, **tolerance):
    np.testing.assert_allclose(one.psi, other.psi, **tolerance)
    np.testing.assert_allclose(one.mean, other.mean, **tolerance)
    signs = np.sign(np.sum(one.transform * other.transform, axis=1))
    np.testing.assert_allclose(one.transform * signs[:, None], other.transform, **tolerance)


@needs_golden
def test_equals_kaldis_file(tmp_path):
    done = run(
        "adapt-plda",
        "--within-covar-scale=0.75",
        "--between-covar-scale=0.25",
        golden("model/plda"),
        f"ark:{golden('model/dvec_test.norm.ark')}",
        tmp_path / "plda",
    )
    assert "done 500, failed 0" in done.stderr
    ours = Plda.from_params(tables.read_object("plda", str(tmp_path / "plda")))
    kaldi = Plda.from_params(tables.read_object("plda", str(golden("model/plda_adapted.txt"))))
    assert_same(ours, kaldi, rtol=1e-6, atol=1e-6)


def test_defaults_are_kaldis():
    assert AdaptationOptions() == AdaptationOptions(1.0, 0.3, 0.7)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formulas_in_the_rotated_space(seed):
    plda, rng = random_model(seed=seed), np.random.default_rng(seed)
    x = rng.standard_normal((50, 4)) * [3, 0.1, 1, 2] + 1
    options = AdaptationOptions(0.5, 0.2, 0.6)
    mean = x.mean(axis=0)
    covariance = np.cov(x.T, bias=True) + 0.5 * np.outer(mean - plda.mean, mean - plda.mean)
    unit = plda.transform / np.sqrt(1 + plda.psi)[:, None]
    s, p = np.linalg.eigh(unit @ covariance @ unit.T)
    assert (s > 1).any() and (s < 1).any()
    within = p.T @ np.diag(1 / (1 + plda.psi)) @ p + np.diag(0.2 * np.maximum(s - 1, 0))
    between = p.T @ np.diag(plda.psi / (1 + plda.psi)) @ p + np.diag(0.6 * np.maximum(s - 1, 0))
    back = np.linalg.inv(p.T @ unit)
    expected = Plda.from_covariances(mean, back @ within @ back.T, back @ between @ back.T)
    assert_same(adapt_unsupervised(plda, x, options), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_vectors_that_vary_no_more_than_the_model_change_nothing(scale):
    plda = random_model()
    total = sum(plda.covariances())
    # a hair less than the model's variance, so that rounding leaves no eigenvalue above 1
    x = whitened_to(scale * (1 - 1e-12) * total, plda.mean, 200)
    assert_same(adapt_unsupervised(plda, x), plda, rtol=1e-9, atol=1e-10)


def test_total_covariance_becomes_that_of_the_vectors_where_shares_sum_to_one():
    plda = random_model()
    total = 2.5 * sum(plda.covariances())
    adapted = adapt_unsupervised(plda, whitened_to(total, plda.mean, 300), AdaptationOptions(1.0, 0.3, 0.7))
    np.testing.assert_allclose(sum(adapted.covariances()), total, rtol=1e-8, atol=1e-10)


def test_a_shift_of_the_mean_counts_as_variance():
    plda = random_model()
    x = whitened_to(0.5 * sum(plda.covariances()), plda.mean + 5, 100)
    without = adapt_unsupervised(plda, x, AdaptationOptions(mean_diff_scale=0.0))
    np.testing.assert_allclose(without.psi, plda.psi, rtol=1e-9)
    np.testing.assert_allclose(without.mean, plda.mean + 5, rtol=1e-9)
    assert (
        sum(map(np.trace, adapt_unsupervised(plda, x).covariances()))
        > sum(map(np.trace, plda.covariances())) + 10
    )


# ---------------------------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_interpolation_is_that_of_mean_and_covariances(weight):
    one, other = random_model(seed=1), random_model(seed=2)
    mixed = interpolate(one, other, InterpolationOptions(weight))
    for ours, a, b in zip(mixed.covariances(), one.covariances(), other.covariances()):
        np.testing.assert_allclose(ours, (1 - weight) * a + weight * b, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mixed.mean, (1 - weight) * one.mean + weight * other.mean, rtol=1e-12)
    in_domain_mean = interpolate(one, other, InterpolationOptions(weight, mean_weight=1.0))
    np.testing.assert_array_equal(in_domain_mean.mean, other.mean)
    np.testing.assert_allclose(in_domain_mean.psi, mixed.psi)


def test_program_interpolates(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        tables.write_object("plda", str(tmp_path / name), random_model(seed=seed).to_params())
    run("adapt-plda", f"--in-domain={tmp_path}/b", "--weight=0.25", tmp_path / "a", tmp_path / "out")
    expected = interpolate(random_model(seed=1), random_model(seed=2), InterpolationOptions(0.25))
    np.testing.assert_allclose(tables.read_object("plda", str(tmp_path / "out")).psi, expected.psi, rtol=1e-9)


def test_refusals(tmp_path):
    plda = random_model()
    with pytest.raises(VoxarkError, match="at least two"):
        adapt_unsupervised(plda, np.zeros((1, 4)))
    with pytest.raises(VoxarkError, match="dimension 3, the PLDA model 4"):
        adapt_unsupervised(plda, np.zeros((9, 3)))
    with pytest.raises(VoxarkError, match="0 vectors to adapt to"):
        adapt_unsupervised(plda, np.zeros((0, 0)))
    with pytest.raises(VoxarkError, match="so large that their variances are not finite"):
        adapt_unsupervised(plda, 1e200 * np.eye(4))
    with pytest.raises(VoxarkError, match="transform is singular"):
        adapt_unsupervised(Plda(plda.mean, np.zeros((4, 4)), plda.psi), np.eye(4))
    with pytest.raises(VoxarkError, match="dimensions 4 and 3"):
        interpolate(plda, random_model(3))
    tables.write_object("plda", str(tmp_path / "a"), plda.to_params())
    tables.write_object("plda", str(tmp_path / "bad"), plda.to_params()._replace(psi=plda.psi - 100))
    vectors = save_ark(tmp_path / "v.ark", {"u": np.full(4, np.inf, np.float32), "v": np.ones(4, np.float32)})
    for arguments, message in (
        ([tmp_path / "a", vectors, tmp_path / "o"], "u: the vector holds NaN or infinite values"),
        ([tmp_path / "a", tmp_path / "o"], "<plda>, <vector-rspecifier> and <out> are expected"),
        (
            [f"--in-domain={tmp_path}/a", tmp_path / "a", vectors, tmp_path / "o"],
            "with --in-domain, <plda> and <out>",
        ),
        ([f"--in-domain={tmp_path}/a", "--weight=1.5", tmp_path / "a", tmp_path / "o"], "--weight=1.5"),
        (["--within-covar-scale=-1", tmp_path / "a", vectors, tmp_path / "o"], "--within-covar-scale=-1"),
        (["--weight=0.3", tmp_path / "a", vectors, tmp_path / "o"], "--weight and --mean-weight are for"),
        (
            [f"--in-domain={tmp_path}/a", "--mean-diff-scale=0", tmp_path / "a", tmp_path / "o"],
            "the scales are for vectors",
        ),
        ([f"--in-domain={tmp_path}/bad", tmp_path / "a", tmp_path / "o"], "bad: the PLDA model has a neg"),
    ):
        done = run("adapt-plda", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr and not (tmp_path / "o").exists()
