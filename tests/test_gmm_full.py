"""Full-covariance mixtures: model, E-step, M-step, training, Kaldi's files, by independent computations."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from helpers import golden, needs_golden
from voxark import tables
from voxark.arrays import Device
from voxark.errors import VoxarkError
from voxark.gmm import estep, full_em
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import EmOptions, UpdateOptions, e_step, m_step, new_e_step, train_gmm
from voxark.gmm.full import FullGmm
from voxark.gmm.init import InitOptions
from voxark.gmm.mixture import log_sum_exp
from voxark.gmm.model import read_gmm, write_gmm
from voxark.packed import pack_lower, packed_dim, unpack_lower


def random_full(rng, num_gauss=4, dim=3, spread=2.0):
    """A mixture with unequal weights and correlated dimensions."""
    factors = rng.standard_normal((num_gauss, dim, dim))
    covars = factors @ factors.swapaxes(1, 2) / dim + 0.3 * np.eye(dim)
    weights = rng.dirichlet(np.full(num_gauss, 3.0))
    return FullGmm(weights, spread * rng.standard_normal((num_gauss, dim)), covars)


def draw(gmm, number, rng):
    """Frames (number,D) float32 from a mixture."""
    c = rng.choice(gmm.num_gauss, size=number, p=gmm.weights / gmm.weights.sum())
    x = gmm.means[c] + np.einsum("nij,nj->ni", gmm.cholesky[c], rng.standard_normal((number, gmm.dim)))
    return x.astype(np.float32)


def as_utterances(x, length):
    return [(f"utt{i // length:04d}", x[i : i + length]) for i in range(0, len(x), length)]


def brute_joint(gmm, x):
    """ln(w_c N(x_n; m_c, S_c)) by scipy's density."""
    with np.errstate(divide="ignore"):
        return np.stack([np.log(gmm.weights[c]) + multivariate_normal(gmm.means[c], gmm.covars[c]).logpdf(x)
                         for c in range(gmm.num_gauss)], axis=1).reshape(len(x), -1)


def brute_statistics(gmm, x, hard=False):
    """n, sum gamma x, sum gamma xx' (C,D,D) and the criterion, from the definition, around 0."""
    x = np.asarray(x, np.float64)
    joint = brute_joint(gmm, x)
    total = log_sum_exp(joint, 1)
    gamma = np.eye(gmm.num_gauss)[joint.argmax(axis=1)] if hard else np.exp(joint - total[:, None])
    criterion = joint.max(axis=1).sum() if hard else total.sum()
    return gamma.sum(axis=0), gamma.T @ x, np.einsum("nc,ni,nj->cij", gamma, x, x), criterion


# ---------------------------------------------------------------------- packed matrices


@given(st.integers(1, 12), st.integers(0, 3))
def test_packed_matrices_both_ways(dim, number):
    rng = np.random.default_rng(dim)
    a = rng.standard_normal((number, dim, dim))
    a += a.swapaxes(1, 2)
    packed = pack_lower(a)
    assert packed.shape == (number, dim * (dim + 1) // 2) and packed_dim(packed.shape[1]) == dim
    np.testing.assert_array_equal(unpack_lower(packed), a)
    assert pack_lower(np.arange(9).reshape(3, 3)).tolist() == [0, 3, 4, 6, 7, 8]


def test_packed_sizes_are_checked():
    with pytest.raises(VoxarkError, match="5 numbers are no triangle"):
        unpack_lower(np.zeros(5))
    with pytest.raises(VoxarkError, match="of 3 rows was found, 4 are expected"):
        unpack_lower(np.zeros(6), 4)


# ---------------------------------------------------------------------- the model


def test_log_likelihoods_equal_scipy(monkeypatch):
    rng = np.random.default_rng(1)
    gmm = random_full(rng, 5, 4)
    x = draw(gmm, 50, rng)
    expected = brute_joint(gmm, x)
    np.testing.assert_allclose(gmm.component_log_likelihoods(x), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gmm.log_likelihood(x), log_sum_exp(expected, 1), rtol=1e-10)
    monkeypatch.setattr("voxark.gmm.full.MAX_CELLS", 45)  # blocks of two frames
    np.testing.assert_allclose(gmm.component_log_likelihoods(x), expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(VoxarkError, match="dimension 4"):
        gmm.log_likelihood(x[:, :3])


def test_weight_zero_gives_minus_infinity_and_no_nan():
    gmm = FullGmm([0.0, 1.0], [[0.0, 0.0], [1.0, 1.0]], np.stack([np.eye(2)] * 2))
    lls = gmm.component_log_likelihoods(np.zeros((3, 2)))
    assert np.isneginf(lls[:, 0]).all() and np.isfinite(lls[:, 1]).all()
    accs = e_step(gmm, [("a", np.ones((20, 2), np.float32))])
    assert accs.n[0] == 0 and np.isclose(accs.n[1], 20)


@pytest.mark.parametrize("change, message", [
    (dict(weights=[0.5, np.nan]), "weight"), (dict(weights=[0.0, 0.0]), "weight"),
    (dict(means=[[0.0, 0.0], [np.inf, 0.0]]), "mean"), (dict(weights=[1.0]), "shapes disagree"),
    (dict(covars=np.stack([np.eye(2), np.diag([1.0, -2.0])])), "component 1 has the eigenvalue -2"),
    (dict(covars=np.full((2, 2, 2), np.nan)), "not a finite number"), (dict(means=np.zeros((0, 0))), "shape"),
])
def test_impossible_parameters_are_refused(change, message):
    good = dict(weights=[0.5, 0.5], means=[[0.0, 0.0], [1.0, 1.0]], covars=np.stack([np.eye(2)] * 2))
    FullGmm(**good)
    with pytest.raises(VoxarkError, match=message):
        FullGmm(**{**good, **change})


def test_mixture_moments_and_conversions():
    rng = np.random.default_rng(2)
    gmm = random_full(rng, 3, 4)
    x = draw(gmm, 200000, rng).astype(np.float64)
    np.testing.assert_allclose(gmm.mean(), x.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(gmm.total_covariance(), np.cov(x.T), atol=0.1)
    np.testing.assert_allclose(gmm.total_variance(), gmm.total_covariance().diagonal())
    diag = gmm.to_diag()
    np.testing.assert_array_equal(diag.variances, np.stack([c.diagonal() for c in gmm.covars]))
    np.testing.assert_allclose(diag.to_full().log_likelihood(x[:50]), diag.log_likelihood(x[:50]), rtol=1e-12)
    again = diag.to_full().to_diag()
    np.testing.assert_array_equal(again.variances, diag.variances)


def test_split_halves_the_heaviest_along_its_covariance():
    gmm = FullGmm([0.2, 0.8], [[0.0, 0.0], [5.0, 5.0]], [np.eye(2), [[4.0, 3.9], [3.9, 4.0]]])
    two = gmm.split(3, np.random.default_rng(0))
    np.testing.assert_allclose(two.weights, [0.2, 0.4, 0.4])
    np.testing.assert_array_equal(two.covars[2], gmm.covars[1])
    np.testing.assert_allclose(two.means[[1, 2]].mean(axis=0), gmm.means[1])
    steps = [gmm.split(3, np.random.default_rng(seed)).means[2] - gmm.means[1] for seed in range(4000)]
    np.testing.assert_allclose(np.cov(np.array(steps).T), 0.01 * gmm.covars[1], atol=0.003)
    many = gmm.split(16, np.random.default_rng(1))
    assert many.num_gauss == 16 and np.isclose(many.weights.sum(), 1)
    np.testing.assert_allclose(many.mean(), gmm.mean())
    np.testing.assert_allclose(many.keep([3, 5]).weights.sum(), 1)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_parameters_and_files_both_ways(tmp_path, dtype, rtol):
    gmm = random_full(np.random.default_rng(3), 6, 5)
    params = gmm.to_params(dtype)
    assert all(a.dtype == dtype for a in params)
    again = FullGmm.from_params(params)
    np.testing.assert_allclose(again.covars, gmm.covars, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(again.means, gmm.means, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(again.log_constants().astype(dtype), params.gconsts)
    for binary in (True, False):
        write_gmm(str(tmp_path / "full"), gmm, binary)
        write_gmm(str(tmp_path / "diag"), gmm.to_diag(), binary)
        full, diag = read_gmm(str(tmp_path / "full")), read_gmm(str(tmp_path / "diag"))
        assert isinstance(full, FullGmm) and isinstance(diag, DiagGmm)
        np.testing.assert_allclose(full.covars, gmm.covars, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(diag.means, gmm.means, rtol=1e-5)


def test_a_bad_model_file_is_named(tmp_path):
    params = random_full(np.random.default_rng(4), 3, 2).to_params()
    params.inv_covars[1] = [1.0, 5.0, 1.0]
    tables.write_object("full-gmm", str(tmp_path / "bad"), params)
    with pytest.raises(VoxarkError, match="bad: .*inverse covariance.*component 1 has the eigenvalue -4"):
        read_gmm(str(tmp_path / "bad"))


# ---------------------------------------------------------------------- E-step


def compare(accs, expected, rtol):
    n, f, s, criterion = expected
    ours = accs.uncentred()
    np.testing.assert_allclose(ours[0], n, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours[1], f, rtol=rtol, atol=rtol * np.abs(f).max())
    np.testing.assert_allclose(unpack_lower(ours[2]), s, rtol=rtol, atol=rtol * np.abs(s).max())
    np.testing.assert_allclose(accs.log_likelihood, criterion, rtol=rtol)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("double, rtol", [(True, 1e-11), (False, 1e-5)])
def test_statistics_equal_the_definition(double, rtol, hard):
    rng = np.random.default_rng(5)
    gmm = random_full(rng, 5, 4)
    x = draw(gmm, 700, rng)
    accs = e_step(gmm, as_utterances(x, 130) + [("none", x[:0])], double=double, hard=hard)
    compare(accs, brute_statistics(gmm, x, hard), rtol)
    assert accs.num_frames == 700
    if hard:
        np.testing.assert_array_equal(accs.n, np.rint(accs.n))


def test_hard_ties_go_to_the_first_component():
    gmm = FullGmm([0.5, 0.5], np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    x = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    for model in (gmm, gmm.to_diag()):
        assert e_step(model, [("a", x)], hard=True).n.tolist() == [30, 0]


@pytest.mark.parametrize("double, rtol", [(True, 1e-10), (False, 1e-6)])
def test_jobs_and_utterances_of_any_length_give_the_same(double, rtol):
    rng = np.random.default_rng(6)
    gmm = random_full(rng, 6, 5)
    x = draw(gmm, 2500, rng)
    whole = e_step(gmm, [("a", x)], double=double)  # crosses the block size
    utterances = as_utterances(x, 90)
    jobs = [e_step(gmm, utterances[job::7], double=double) for job in range(7)]
    summed = jobs[0]
    for other in jobs[1:]:
        summed += other
    together = e_step(gmm, utterances, double=double)
    for name in ("n", "f", "s", "log_likelihood"):
        expected = getattr(together, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(whole, name), expected, rtol=rtol, atol=rtol * scale)
        # blocks never cross an utterance: jobs differ by the order of float64 sums alone
        np.testing.assert_allclose(getattr(summed, name), expected, rtol=1e-12, atol=1e-12 * scale)
    assert summed.num_frames == 2500


def test_statistics_of_different_models_do_not_add():
    gmm = random_full(np.random.default_rng(0))
    accs = new_e_step(gmm).zeros()
    with pytest.raises(VoxarkError, match="do not add up"):
        accs += new_e_step(gmm, offset=np.ones(3)).zeros()


def test_statistics_know_the_variance_of_the_data():
    rng = np.random.default_rng(7)
    gmm = random_full(rng, 3, 4)
    x = draw(gmm, 800, rng)
    for model in (gmm, gmm.to_diag()):
        accs = e_step(model, [("a", x)], double=True)
        np.testing.assert_allclose(accs.total_variance(), x.astype(np.float64).var(axis=0), rtol=1e-9)


def test_mean_ten_thousand_variance_one():
    rng = np.random.default_rng(8)
    near = random_full(rng, 3, 3, spread=1.0)
    gmm = FullGmm(near.weights, near.means + 1e4, near.covars)
    x = draw(gmm, 4000, rng)
    assert new_e_step(gmm).dtype == np.float32
    n, f, s, _ = brute_statistics(near, x.astype(np.float64) - 1e4)
    means = f / n[:, None]
    covars = s / n[:, None, None] - means[:, :, None] * means[:, None, :]
    for double, rtol in ((False, 1e-4), (True, 1e-8)):
        ours = m_step(gmm, e_step(gmm, [("a", x)], double=double), UpdateOptions())
        np.testing.assert_allclose(ours.weights, n / 4000, rtol=rtol)
        np.testing.assert_allclose(ours.means - 1e4, means, atol=rtol)
        np.testing.assert_allclose(ours.covars, covars, atol=rtol)


def conditioned(rng, num_gauss, dim, condition):
    """A mixture whose covariances have eigenvalues from 1/condition to 1 in random directions."""
    covars = []
    for _ in range(num_gauss):
        q = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        covars.append((q * np.geomspace(1 / condition, 1, dim)) @ q.T)
    return FullGmm(np.full(num_gauss, 1 / num_gauss), rng.standard_normal((num_gauss, dim)), covars)


def quadratic_features(z):
    return np.concatenate((np.ones_like(z[:, :1]), z, pack_lower(z[:, :, None] * z[:, None, :])), axis=1)


def test_float32_error_bounds_the_error_and_tight_mixtures_take_float64():
    rng = np.random.default_rng(9)
    kinds = set()
    for condition in (2.0, 1e2, 1e3, 1e4, 1e5):
        gmm = conditioned(rng, 8, 20, condition)
        x = draw(gmm, 300, rng).astype(np.float64)
        step = full_em.FullEStep(gmm)
        w = full_em.exponential_form(gmm, step.offset, step.basis)
        bound = full_em.float32_error(gmm, step.offset, step.basis, w)
        z = np.linalg.solve(step.basis, (x - step.offset).T).T
        phi = quadratic_features(z)
        joint = brute_joint(gmm, x)
        np.testing.assert_allclose(phi @ w.T, joint, rtol=1e-6)
        best = joint.argmax(axis=1)[:, None]
        phi = quadratic_features(z.astype(np.float32))
        single = np.take_along_axis(phi @ w.T.astype(np.float32), best, 1)
        error = np.abs(single - np.take_along_axis(joint, best, 1)).max()
        assert error < 2 * bound
        assert (step.dtype == np.float64) == (bound > estep.FLOAT32_TOLERANCE)
        kinds.add(step.dtype.name)
    assert kinds == {"float32", "float64"}


def test_strong_correlation_of_all_dimensions_costs_no_digits():
    """Whitening takes out what the components share; products around the mean alone would not do."""
    rng = np.random.default_rng(10)
    base = random_full(rng, 4, 8)
    mixing = rng.standard_normal((8, 8)) @ np.diag(np.geomspace(1, 1e-3, 8)) @ rng.standard_normal((8, 8))
    gmm = FullGmm(base.weights, base.means @ mixing.T, mixing @ base.covars @ mixing.T)
    x = draw(base, 900, rng).astype(np.float64) @ mixing.T
    assert new_e_step(gmm).dtype == np.float32
    ours, exact = e_step(gmm, [("a", x)]), e_step(gmm, [("a", x)], double=True)
    np.testing.assert_allclose(ours.n, exact.n, rtol=1e-5)
    np.testing.assert_allclose(ours.s, exact.s, rtol=1e-4, atol=1e-5 * exact.s.max())


def test_far_apart_components_have_no_denormal_posteriors():
    gmm = FullGmm([0.5, 0.5], [[0.0], [13.5]], np.ones((2, 1, 1)))  # exp(-91) is denormal in float32
    step = new_e_step(gmm)
    accs = step.zeros()
    step.accumulate("a", np.zeros((50, 1), np.float32), accs)
    assert accs.n.tolist() == [50.0, 0.0]


def test_bad_frames_are_named():
    gmm = random_full(np.random.default_rng(0))
    x = np.zeros((30, 3), np.float32)
    x[17, 1] = np.nan
    with pytest.raises(VoxarkError, match="^utt7: .*frame 17, column 1 is nan"):
        e_step(gmm, [("utt7", x)])
    with pytest.raises(VoxarkError, match="^utt8: .*dimension 2, the GMM 3"):
        e_step(gmm, [("utt8", np.zeros((30, 2), np.float32))])
    with pytest.raises(VoxarkError, match="^utt9: .*no likelihood"):
        e_step(gmm, [("utt9", np.full((3, 3), 1e30, np.float32))])


# ---------------------------------------------------------------------- another device, the same code


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_torch_gives_what_numpy_gives(kind, double, hard):
    pytest.importorskip("torch")
    rng = np.random.default_rng(12)
    gmm = random_full(rng, 5, 4)
    utterances = as_utterances(draw(gmm, 2000, rng), 170)
    gmm = gmm if kind == "full" else gmm.to_diag()
    here = e_step(gmm, utterances, double=double, hard=hard)
    there = e_step(gmm, utterances, double=double, hard=hard, device=Device("torch"))
    for name in ("n", "f", "s", "log_likelihood"):
        a, b = getattr(here, name), getattr(there, name)
        assert isinstance(b, (float, np.ndarray))
        np.testing.assert_allclose(b, a, rtol=1e-11 if double else 1e-5,
                                   atol=(1e-11 if double else 1e-6) * np.abs(a).max())
    assert here.num_frames == there.num_frames == 2000


def test_on_a_device_the_bad_utterance_is_named_though_they_are_joined():
    pytest.importorskip("torch")
    rng = np.random.default_rng(13)
    gmm = random_full(rng)
    utterances = as_utterances(draw(gmm, 300, rng), 30)
    step = new_e_step(gmm, device=Device("torch"))
    assert [key for key, _ in step.groups(utterances)] == ["utt0000 to utt0009"]
    step.block = 70
    assert [len(x) for _, x in step.groups(utterances)] == [90, 90, 90, 30]
    utterances[4][1][3, 1] = np.inf
    with pytest.raises(VoxarkError, match="^utt0004: .*frame 3, column 1 is inf"):
        e_step(gmm, utterances, device=Device("torch"))
    with pytest.raises(VoxarkError, match="^utt0001: .*dimension 2"):
        e_step(gmm, [utterances[0], ("utt0001", np.zeros((4, 2)))], device=Device("torch"))
    with pytest.raises(VoxarkError, match="^a to b: .*no likelihood"):
        far = np.full((3, 3), 1e30, np.float32)
        e_step(gmm, [("a", far), ("b", far)], device=Device("torch"))


# ---------------------------------------------------------------------- M-step


FREE = dict(min_gaussian_occupancy=0, min_gaussian_weight=0)


def test_one_iteration_equals_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(14)
    gmm = random_full(rng, 4, 3)
    x = draw(random_full(rng, 4, 3), 2000, rng).astype(np.float64)
    peer = mixture.GaussianMixture(4, covariance_type="full", reg_covar=0.0)
    peer.weights_, peer.means_, peer.covariances_ = gmm.weights, gmm.means, gmm.covars
    peer.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(gmm.covars))  # P = L L', as sklearn has it
    mean_log_likelihood, log_gamma = peer._e_step(x)
    peer._m_step(x, log_gamma)
    accs = e_step(gmm, as_utterances(x, 333), double=True)
    ours = m_step(gmm, accs, UpdateOptions(**FREE, min_variance=1e-9))
    assert np.isclose(accs.log_likelihood / 2000, mean_log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(ours.weights, peer.weights_, rtol=1e-9)
    np.testing.assert_allclose(ours.means, peer.means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.covars, peer.covariances_, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("flags", ["m", "v", "w", "mv", "mw", "vw", "mvw"])
def test_update_flags(flags):
    rng = np.random.default_rng(15)
    full = random_full(rng, 3, 3)
    x = draw(random_full(rng, 3, 3), 900, rng).astype(np.float64)
    for gmm in (full, full.to_diag()):
        as_full = gmm if gmm is full else gmm.to_full()
        joint = brute_joint(as_full, x)
        gamma = np.exp(joint - log_sum_exp(joint, 1)[:, None])
        updated = m_step(gmm, e_step(gmm, [("a", x)], double=True),
                         UpdateOptions(update_flags=flags, **FREE), np.full(3, 1e-6))
        for c in range(3):
            mean = gamma[:, c] @ x / gamma[:, c].sum() if "m" in flags else gmm.means[c]
            around = x - mean
            covar = (gamma[:, c] * around.T) @ around / gamma[:, c].sum()
            covar = covar if "v" in flags else as_full.covars[c]
            np.testing.assert_allclose(updated.means[c], mean, rtol=1e-9, atol=1e-10)
            if gmm is full:
                np.testing.assert_allclose(updated.covars[c], covar, rtol=1e-8, atol=1e-9)
            else:
                np.testing.assert_allclose(updated.variances[c], covar.diagonal(), rtol=1e-8)
        expected = gamma.mean(axis=0) if "w" in flags else gmm.weights
        np.testing.assert_allclose(updated.weights, expected, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(1.5, 1e5))
def test_eigenvalues_are_floored(seed, dim, max_condition):
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((5, dim, max(dim - 2, 1)))  # singular from three dimensions on
    covars = factors @ factors.swapaxes(1, 2) * 10.0 ** rng.integers(-5, 3)
    floored = full_em.floored_covars(covars, UpdateOptions(max_condition=max_condition))
    before, after = np.linalg.eigvalsh(covars), np.linalg.eigvalsh(floored)
    floor = np.maximum(1e-3, np.abs(before).max(axis=1) / max_condition)[:, None]
    np.testing.assert_allclose(after, np.maximum(before, floor), rtol=1e-7, atol=1e-12 * np.abs(before).max())
    np.testing.assert_array_equal(floored, floored.swapaxes(1, 2))


def test_floors_change_nothing_but_the_eigenvalues():
    q = np.linalg.qr(np.random.default_rng(16).standard_normal((3, 3)))[0]
    covar = (q * [5.0, 1.0, 1e-7]) @ q.T
    floored = full_em.floored_covars(covar[None], UpdateOptions())[0]
    np.testing.assert_allclose(floored, (q * [5.0, 1.0, 1e-3]) @ q.T, rtol=1e-9)


def test_one_gaussian_is_the_closed_form():
    rng = np.random.default_rng(17)
    x = (rng.standard_normal((600, 3)) @ rng.standard_normal((3, 3)) + 5).astype(np.float32)
    options = EmOptions(covariance="full", num_iters=1, double=True)
    gmm = train_gmm([("a", x)], InitOptions(num_gauss=1), options)
    np.testing.assert_allclose(gmm.means[0], x.mean(axis=0, dtype=np.float64), rtol=1e-9)
    covar = np.cov(x.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(gmm.covars[0], covar, rtol=1e-8, atol=1e-9)
    expected = -0.5 * (3 * np.log(2 * np.pi) + np.linalg.slogdet(covar)[1] + 3)
    assert np.isclose(gmm.log_likelihood(x).mean(), expected, rtol=1e-9)


def starving():
    rng = np.random.default_rng(18)
    gmm = random_full(rng, 3, 2)
    gmm = FullGmm([0.45, 0.45, 0.1], [[-2.0, 0.0], [2.0, 0.0], [500.0, 0.0]], gmm.covars)
    return gmm, e_step(gmm, [("a", draw(gmm.keep([0, 1]), 600, rng))])


def test_starved_components_are_removed_kept_or_rescued(caplog):
    gmm, accs = starving()
    with caplog.at_level(logging.WARNING):
        assert m_step(gmm, accs, UpdateOptions()).num_gauss == 2
    assert "Gaussian 2 (0 frames): removed, 2 left" in caplog.text
    kept = m_step(gmm, accs, UpdateOptions(remove_low_count_gaussians=False))
    np.testing.assert_array_equal(kept.covars[2], gmm.covars[2])
    np.testing.assert_array_equal(kept.means[2], gmm.means[2])
    assert np.isclose(kept.weights[2], 1e-5)
    rescued = m_step(gmm, accs, UpdateOptions(rescue=True), rng=np.random.default_rng(0))
    assert rescued.num_gauss == 3 and (np.abs(rescued.means) < 6).all()
    few = e_step(gmm, [("a", draw(gmm.keep([0]), 99, np.random.default_rng(0)))])
    assert m_step(gmm, few, UpdateOptions()).num_gauss == 1  # fewer than 100 frames; one always stays
    assert m_step(gmm, few, UpdateOptions(min_gaussian_occupancy=10)).num_gauss >= 1


def test_no_statistics_are_refused():
    gmm = random_full(np.random.default_rng(0))
    with pytest.raises(VoxarkError, match="no frames"):
        m_step(gmm, new_e_step(gmm).zeros(), UpdateOptions(), np.ones(3))


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("start", ["global-split", "random-frames", "kmeans++"])
def test_well_separated_mixture_is_found(start):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(19)
    covars = [[[1.0, 0.8], [0.8, 1.0]], [[2.0, -1.2], [-1.2, 1.0]], [[0.5, 0.0], [0.0, 1.5]]]
    truth = FullGmm([0.2, 0.3, 0.5], [[-8.0, 0.0], [8.0, 1.0], [0.0, 9.0]], covars)
    features = as_utterances(draw(truth, 4000, rng), 250)
    options = EmOptions(covariance="full", num_iters=20)
    found = train_gmm(features, InitOptions(num_gauss=3, init=start, srand=1), options)
    assert isinstance(found, FullGmm)
    distances = np.square(truth.means[:, None] - found.means[None]).sum(axis=2)
    order = linear_sum_assignment(distances)[1]
    np.testing.assert_allclose(found.weights[order], truth.weights, atol=0.03)
    np.testing.assert_allclose(found.means[order], truth.means, atol=0.15)
    np.testing.assert_allclose(found.covars[order], truth.covars, atol=0.2)


def test_constant_dimension_is_floored():
    rng = np.random.default_rng(20)
    x = rng.standard_normal((800, 3)).astype(np.float32)
    x[:, 1] = 7.0
    options = EmOptions(covariance="full", num_iters=4)
    gmm = train_gmm([("a", x)], InitOptions(num_gauss=2), options)
    np.testing.assert_allclose(gmm.covars[:, 1, 1], 0.001, rtol=1e-6)
    np.testing.assert_allclose(gmm.means[:, 1], 7.0, rtol=1e-6)


def test_kind_of_the_initial_model():
    rng = np.random.default_rng(21)
    full = random_full(rng, 2, 2)
    features = [("a", draw(full, 500, rng))]
    train = lambda initial, covariance: train_gmm(  # noqa: E731
        features, InitOptions(), EmOptions(covariance=covariance, num_iters=2), initial)
    assert isinstance(train(full, "auto"), FullGmm) and isinstance(train(full, "full"), FullGmm)
    assert isinstance(train(full.to_diag(), "auto"), DiagGmm)
    made_full = train(full.to_diag(), "full")
    assert isinstance(made_full, FullGmm) and np.abs(made_full.covars[0, 0, 1]) > 1e-3
    with pytest.raises(VoxarkError, match="full covariances.*--to=diag"):
        train(full, "diag")


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_training_on_a_subset_in_memory(covariance):
    rng = np.random.default_rng(22)
    gmm = random_full(rng, 3, 2, spread=4.0)
    features = as_utterances(draw(gmm, 6000, rng), 100)
    passes = []

    class Counted:
        def __iter__(self):
            passes.append(1)
            return iter(features)

    start = InitOptions(num_gauss=3, init="random-frames", num_frames=500)
    options = EmOptions(covariance=covariance, num_iters=6, train_frames=2000)
    model = train_gmm(Counted(), start, options)
    assert len(passes) == 1
    again = train_gmm(features[::-1], start, options)
    np.testing.assert_allclose(again.means, model.means, rtol=1e-6, atol=1e-6)
    on_all = train_gmm(features, start, EmOptions(covariance=covariance, num_iters=6, train_frames=6000))
    assert not np.allclose(on_all.means, model.means)
    assert on_all.log_likelihood(np.concatenate([x for _, x in features])).mean() > model.log_likelihood(
        np.concatenate([x for _, x in features])).mean() - 0.05
    with pytest.raises(VoxarkError, match="20 frames are too few for 3"):
        train_gmm(features, start, EmOptions(train_frames=20))


@pytest.mark.parametrize("wrong", [dict(update_flags="x"), dict(update_flags=""), dict(max_condition=0.5),
                                   dict(train_frames=-1), dict(num_iters=0)])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(VoxarkError, match="--"):
        train_gmm([("a", np.ones((20, 1)))], InitOptions(num_gauss=1), EmOptions(**wrong))


# ---------------------------------------------------------------------- Kaldi


def golden_features():
    with tables.open_reader("mat", f"ark:{golden('model/feats.ark')}") as reader:
        return list(reader)


def golden_gmm(name):
    return read_gmm(str(golden(f"model/{name}")))


@needs_golden
@pytest.mark.parametrize("double", [True, False])
def test_statistics_equal_kaldi(double):
    kaldi = tables.read_object("gmm-accs", str(golden("model/full.0.acc")))
    n, f, s = e_step(golden_gmm("full.0.gmm"), golden_features(), double=double).uncentred()
    np.testing.assert_allclose(n, kaldi.occupancy, rtol=1e-5)
    np.testing.assert_allclose(f, kaldi.means, atol=1e-5 * np.abs(kaldi.means).max())
    means = f / n[:, None]  # Kaldi takes the means out before it writes
    centred = s - pack_lower(n[:, None, None] * means[:, :, None] * means[:, None, :])
    np.testing.assert_allclose(centred, kaldi.full_vars, atol=1e-5 * np.abs(kaldi.full_vars).max())


@needs_golden
@pytest.mark.parametrize("double", [True, False])
def test_an_iteration_equals_kaldi(double):
    start, kaldi = golden_gmm("full.0.gmm"), golden_gmm("full.1.gmm")
    accs = e_step(start, golden_features(), double=double)
    ours = m_step(start, accs, UpdateOptions(remove_low_count_gaussians=False, min_gaussian_occupancy=50))
    np.testing.assert_allclose(ours.weights, kaldi.weights, rtol=2e-4)
    np.testing.assert_allclose(ours.means, kaldi.means, atol=5e-4)
    np.testing.assert_allclose(ours.covars, kaldi.covars, atol=1e-5 * np.abs(kaldi.covars).max())
    assert np.isclose(accs.log_likelihood / accs.num_frames, -77.1818, atol=1e-3)


@needs_golden
def test_constants_likelihoods_and_diagonal_equal_kaldi():
    params = tables.read_object("full-gmm", str(golden("model/full.1.gmm")))
    gmm = FullGmm.from_params(params)
    np.testing.assert_allclose(gmm.log_constants(), params.gconsts, rtol=2e-6)
    with tables.open_reader("vec", f"ark:{golden('model/full.1.likes.ark')}") as reader:
        kaldi = dict(reader)
    for key, x in golden_features():
        np.testing.assert_allclose(gmm.log_likelihood(x), kaldi[key], atol=2e-3)
    np.testing.assert_allclose(gmm.to_diag().variances, golden_gmm("full.1.diag.gmm").variances, rtol=1e-6)
    again = golden_gmm("diag.1.gmm").to_full()
    np.testing.assert_allclose(again.covars, golden_gmm("full.0.gmm").covars, rtol=1e-6)
