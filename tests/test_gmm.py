"""Diagonal mixtures: model, EM, start, MAP adaptation and scores, against independent computations."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import golden, needs_golden
from voxark import tables
from voxark.errors import VoxarkError
from voxark.gmm import diag_em, em, estep, init
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import EmOptions, e_step, m_step, train_gmm
from voxark.gmm.init import InitOptions
from voxark.gmm.map import MapOptions, map_adapt
from voxark.gmm.mixture import log_sum_exp
from voxark.gmm.score import GmmScorer, gmm_llr
from voxark.kaldi_files import DiagGmmParams


def random_gmm(rng, num_gauss=4, dim=3, spread=2.0):
    """A mixture with unequal weights."""
    weights = rng.dirichlet(np.full(num_gauss, 3.0))
    means = spread * rng.standard_normal((num_gauss, dim))
    return DiagGmm(weights, means, 0.3 + rng.random((num_gauss, dim)))


def draw(gmm, number, rng):
    """Frames (number,D) float32 from a mixture."""
    c = rng.choice(gmm.num_gauss, size=number, p=gmm.weights / gmm.weights.sum())
    x = gmm.means[c] + np.sqrt(gmm.variances[c]) * rng.standard_normal((number, gmm.dim))
    return x.astype(np.float32)


def as_utterances(x, length):
    """The frames cut into utterances of one length."""
    return [(f"utt{i // length:04d}", x[i : i + length]) for i in range(0, len(x), length)]


def brute_log_likelihoods(gmm, x):
    """ln(w_c N(x_n; m_c, v_c)) straight from the definition, in float64."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.array([[np.log(gmm.weights[c]) - 0.5 * np.sum(
            np.log(2 * np.pi * gmm.variances[c]) + (frame - gmm.means[c]) ** 2 / gmm.variances[c])
            for c in range(gmm.num_gauss)] for frame in x])


def golden_features():
    with tables.open_reader("mat", f"ark:{golden('model/feats.ark')}") as reader:
        return list(reader)


def golden_gmm(name):
    return DiagGmm.from_params(tables.read_object("diag-gmm", str(golden(f"model/{name}"))))


# ---------------------------------------------------------------------- the model


def test_log_likelihoods_equal_the_definition():
    rng = np.random.default_rng(1)
    gmm = random_gmm(rng, 5, 4)
    x = draw(gmm, 20, rng)
    expected = brute_log_likelihoods(gmm, x)
    np.testing.assert_allclose(gmm.component_log_likelihoods(x), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gmm.log_likelihood(x), np.log(np.exp(expected).sum(axis=1)), rtol=1e-10)


def test_weight_zero_gives_minus_infinity_and_no_nan():
    gmm = DiagGmm([0.0, 1.0], [[0.0], [1.0]], [[1.0], [1.0]])
    lls = gmm.component_log_likelihoods(np.zeros((3, 1), np.float32))
    assert np.isneginf(lls[:, 0]).all() and np.isfinite(lls[:, 1]).all()
    np.testing.assert_allclose(gmm.log_likelihood(np.zeros((1, 1))), -0.5 * np.log(2 * np.pi) - 0.5)
    accs = e_step(gmm, [("a", np.ones((20, 1), np.float32))])
    assert accs.n[0] == 0 and np.isclose(accs.n[1], 20)


def test_log_sum_exp_of_nothing_but_minus_infinity():
    a = np.array([[-np.inf, -np.inf], [-np.inf, 3.0], [1000.0, 1000.0]])
    np.testing.assert_allclose(log_sum_exp(a, 1), [-np.inf, 3.0, 1000 + np.log(2)])


def test_large_common_mean_costs_no_digits():
    rng = np.random.default_rng(2)
    gmm = DiagGmm([0.4, 0.6], [[9998.0, 1e4], [10003.0, 1e4]], [[1.0, 2.0], [0.5, 1.0]])
    x = draw(gmm, 50, rng)
    np.testing.assert_allclose(gmm.component_log_likelihoods(x), brute_log_likelihoods(gmm, x), rtol=1e-9)


@pytest.mark.parametrize("change, message", [
    (dict(weights=[0.5, np.nan]), "weight"), (dict(weights=[-0.1, 1.1]), "weight"),
    (dict(weights=[0.0, 0.0]), "weight"),
    (dict(means=[[0.0], [np.inf]]), "mean"), (dict(variances=[[0.0], [1.0]]), "variance"),
    (dict(weights=[1.0]), "shapes disagree"), (dict(means=np.zeros((0, 0))), "shape"),
])
def test_impossible_parameters_are_refused(change, message):
    good = dict(weights=[0.5, 0.5], means=[[0.0], [1.0]], variances=[[1.0], [1.0]])
    DiagGmm(**good)
    with pytest.raises(VoxarkError, match=message):
        DiagGmm(**{**good, **change})


def test_wrong_dimension_is_refused():
    gmm = random_gmm(np.random.default_rng(0))
    with pytest.raises(VoxarkError, match="dimension 3"):
        gmm.log_likelihood(np.zeros((5, 2)))


def test_kaldi_parameters_both_ways():
    rng = np.random.default_rng(3)
    gmm = random_gmm(rng, 6, 5)
    params = gmm.to_params()
    assert all(a.dtype == np.float32 for a in params)
    again = DiagGmm.from_params(params)
    for first, second in zip(params, again.to_params()):
        np.testing.assert_array_equal(first, second)
    wrong = params._replace(gconsts=np.zeros(6, np.float32))  # what the file says of them is not believed
    np.testing.assert_array_equal(DiagGmm.from_params(wrong).to_params().gconsts, params.gconsts)
    np.testing.assert_allclose(DiagGmm.from_params(gmm.to_params(np.float64)).means, gmm.means, rtol=1e-14)


def test_component_without_finite_density_gets_weight_zero(caplog):
    params = DiagGmmParams(None, np.array([0.5, 0.5]), np.array([[1.0], [1.0]]), np.array([[np.inf], [1.0]]))
    with caplog.at_level(logging.WARNING):
        gmm = DiagGmm.from_params(params)
    assert gmm.weights.tolist() == [0.0, 0.5] and "1 of 2 components" in caplog.text
    assert np.isfinite(gmm.log_likelihood(np.zeros((1, 1)))).all()
    with pytest.raises(VoxarkError, match="not a number"):
        DiagGmm.from_params(params._replace(weights=np.array([np.nan, 1.0])))


def test_split_halves_the_heaviest_and_keeps_the_mean():
    rng = np.random.default_rng(4)
    gmm = DiagGmm([0.2, 0.5, 0.3], rng.standard_normal((3, 2)), np.ones((3, 2)))
    two = gmm.split(4, np.random.default_rng(0))
    np.testing.assert_allclose(two.weights, [0.2, 0.25, 0.3, 0.25])
    np.testing.assert_allclose(two.means[[1, 3]].mean(axis=0), gmm.means[1])
    step = 0.1 * np.random.default_rng(0).standard_normal(2)
    np.testing.assert_allclose(two.means[3] - gmm.means[1], step)
    many = gmm.split(16, rng)
    assert many.num_gauss == 16 and np.isclose(many.weights.sum(), 1)
    np.testing.assert_allclose(many.mean(), gmm.mean())
    weights = [0.2, 0.5, 0.3]
    while len(weights) < 16:
        heaviest = weights.index(max(weights))  # the first on ties
        weights[heaviest] /= 2
        weights.append(weights[heaviest])
    np.testing.assert_array_equal(many.weights, weights)


def test_mixture_moments():
    gmm = DiagGmm([0.25, 0.75], [[0.0], [4.0]], [[1.0], [2.0]])
    assert np.isclose(gmm.mean(), 3.0) and np.isclose(gmm.total_variance(), 1.75 + 0.25 * 9 + 0.75 * 1)


# ---------------------------------------------------------------------- E-step and M-step


def exact_statistics(gmm, x):
    """Responsibilities by the definition, then n, f, s around 0, in float64."""
    x = np.asarray(x, dtype=np.float64)
    joint = brute_log_likelihoods(gmm, x)
    total = log_sum_exp(joint, 1)
    gamma = np.exp(joint - total[:, None])
    return gamma.sum(axis=0), gamma.T @ x, gamma.T @ x**2, total.sum()


@pytest.mark.parametrize("double, rtol", [(True, 1e-11), (False, 2e-5)])
def test_statistics_equal_the_definition(double, rtol):
    rng = np.random.default_rng(5)
    gmm = random_gmm(rng, 5, 4)
    x = draw(gmm, 400, rng)
    n, f, s, log_likelihood = exact_statistics(gmm, x)
    accs = e_step(gmm, as_utterances(x, 130), double=double)
    offset = accs.offset
    np.testing.assert_allclose(accs.n, n, rtol=rtol)
    np.testing.assert_allclose(accs.f + n[:, None] * offset, f, rtol=rtol, atol=rtol * 100)
    np.testing.assert_allclose(accs.s + 2 * offset * accs.f + n[:, None] * offset**2, s, rtol=rtol)
    np.testing.assert_allclose(accs.log_likelihood, log_likelihood, rtol=rtol)
    assert accs.num_frames == 400


@pytest.mark.parametrize("double, rtol", [(True, 1e-12), (False, 1e-6)])
def test_utterances_of_any_length_and_any_jobs_give_the_same(double, rtol):
    rng = np.random.default_rng(6)
    gmm = random_gmm(rng, 6, 5)
    x = draw(gmm, 3000, rng)
    whole = e_step(gmm, [("a", x)], double=double)  # crosses the block size
    parts = e_step(gmm, as_utterances(x, 7), double=double)
    for name in ("n", "f", "s", "log_likelihood"):
        scale = np.abs(getattr(whole, name)).max()
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=rtol, atol=rtol * scale)
    utterances = as_utterances(x, 300)
    jobs = [e_step(gmm, utterances[job::7], double=double) for job in range(7)]
    summed = jobs[0]
    for other in jobs[1:]:
        summed += other
    together = e_step(gmm, utterances, double=double)
    for name in ("n", "f", "s", "log_likelihood"):
        np.testing.assert_allclose(getattr(summed, name), getattr(together, name), rtol=1e-12, atol=1e-9)
    assert summed.num_frames == together.num_frames == 3000


def test_statistics_around_different_offsets_do_not_add():
    gmm = random_gmm(np.random.default_rng(0))
    with pytest.raises(VoxarkError, match="offsets"):
        accs = diag_em.DiagAccs.zeros(4, np.zeros(3))
        accs += diag_em.DiagAccs.zeros(4, np.ones(3))
    assert gmm.num_gauss == 4


def test_mean_ten_thousand_variance_one():
    rng = np.random.default_rng(7)
    gmm = DiagGmm([0.5, 0.5], [[9998.0, 10000.0], [10002.0, 10001.0]], [[1.0, 1.0], [1.0, 1.0]])
    x = draw(gmm, 5000, rng)
    n, f, s, _ = exact_statistics(gmm, np.asarray(x, np.float64))
    centre = np.array([1e4, 1e4])
    assert diag_em.DiagEStep(gmm, gmm.mean()).dtype == np.float32
    assert diag_em.DiagEStep(gmm, np.zeros(2)).dtype == np.float64  # products around 0 would lose everything
    exact = m_step(gmm, exact_accs(gmm, x, centre), EmOptions(), np.full(2, 1e-3))
    for double in (False, True):
        ours = m_step(gmm, e_step(gmm, [("a", x)], double=double), EmOptions(), np.full(2, 1e-3))
        np.testing.assert_allclose(ours.weights, n / 5000, rtol=1e-4)
        np.testing.assert_allclose(ours.means - 1e4, exact.means - 1e4, atol=1e-4)
        np.testing.assert_allclose(ours.variances, exact.variances, rtol=1e-4)


def exact_accs(gmm, x, offset):
    """DiagAccs by the definition around an offset."""
    shifted = DiagGmm(gmm.weights, gmm.means - offset, gmm.variances)
    n, f, s, log_likelihood = exact_statistics(shifted, np.asarray(x, np.float64) - offset)
    return diag_em.DiagAccs(np.asarray(offset), n, f, s, log_likelihood, len(x))


def test_float32_error_bounds_the_error_and_tight_mixtures_take_float64():
    rng = np.random.default_rng(8)
    for scale in (1.0, 0.1, 0.03):
        gmm = DiagGmm(np.full(8, 1 / 8), rng.standard_normal((8, 20)), np.full((8, 20), scale**2))
        x = draw(gmm, 200, rng)
        step = diag_em.DiagEStep(gmm, np.zeros(20))
        bound = diag_em.float32_error(gmm, np.zeros(20))
        g, w = gmm.exponential_form()
        z = np.concatenate((x, x * x), axis=1)
        single = z @ w.T.astype(np.float32) + g.astype(np.float32)
        joint = brute_log_likelihoods(gmm, x)
        best = joint.argmax(axis=1)[:, None]
        error = np.abs(np.take_along_axis(single, best, 1) - np.take_along_axis(joint, best, 1)).max()
        assert error < 4 * bound
        assert (step.dtype == np.float64) == (bound > estep.FLOAT32_TOLERANCE)
    assert step.dtype == np.float64


def test_one_iteration_equals_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(9)
    gmm = random_gmm(rng, 4, 3)
    x = draw(random_gmm(rng, 4, 3), 2000, rng).astype(np.float64)
    peer = mixture.GaussianMixture(4, covariance_type="diag", reg_covar=0.0)
    peer.weights_, peer.means_, peer.covariances_ = gmm.weights, gmm.means, gmm.variances
    peer.precisions_cholesky_ = 1 / np.sqrt(gmm.variances)
    mean_log_likelihood, log_gamma = peer._e_step(x)
    peer._m_step(x, log_gamma)
    accs = e_step(gmm, as_utterances(x, 333), double=True)
    ours = m_step(gmm, accs, EmOptions(min_gaussian_occupancy=0, min_gaussian_weight=0), np.full(3, 1e-6))
    assert np.isclose(accs.log_likelihood / 2000, mean_log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(ours.weights, peer.weights_, rtol=1e-9)
    np.testing.assert_allclose(ours.means, peer.means_, rtol=1e-9)
    np.testing.assert_allclose(ours.variances, peer.covariances_, rtol=1e-9)


def test_one_gaussian_is_the_closed_form():
    rng = np.random.default_rng(10)
    x = rng.standard_normal((500, 3)).astype(np.float32) * [1, 2, 3] + 5
    gmm = train_gmm([("a", x)], InitOptions(num_gauss=1), EmOptions(num_iters=1, double=True))
    np.testing.assert_allclose(gmm.means[0], x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(gmm.variances[0], x.var(axis=0), rtol=1e-9)
    expected = -0.5 * np.sum(np.log(2 * np.pi * x.var(axis=0)) + 1)
    assert np.isclose(gmm.log_likelihood(x).mean(), expected, rtol=1e-9)


def test_bad_frames_are_named():
    gmm = random_gmm(np.random.default_rng(0))
    x = np.zeros((30, 3), np.float32)
    x[17, 1] = np.nan
    with pytest.raises(VoxarkError, match="^utt7: .*frame 17, column 1 is nan"):
        e_step(gmm, [("utt7", x)])
    with pytest.raises(VoxarkError, match="^utt8: .*dimension 2, the GMM 3"):
        e_step(gmm, [("utt8", np.zeros((30, 2), np.float32))])
    with pytest.raises(VoxarkError, match="^utt9: .*no likelihood"):
        e_step(gmm, [("utt9", np.full((3, 3), 1e30, np.float32))])


# ---------------------------------------------------------------------- EM as a whole


def history_of(gmm, features, options, floor):
    """Log-likelihoods of plain iterations from a model, exact, the last one after the last M-step."""
    history = []
    for _ in range(options.num_iters):
        accs = e_step(gmm, features, double=True)
        history.append(accs.log_likelihood)
        gmm = m_step(gmm, accs, options, floor)
    return history + [e_step(gmm, features, double=True).log_likelihood]


def monotone_sets():
    rng = np.random.default_rng(11)
    heavy_tails = rng.standard_t(2, size=(800, 4))
    correlated = rng.standard_normal((600, 3)) @ rng.standard_normal((3, 3)) + 100
    clusters = draw(random_gmm(rng, 5, 2, spread=5.0), 700, rng)
    return [heavy_tails, correlated, clusters]


@pytest.mark.parametrize("x", monotone_sets(), ids=["heavy tails", "correlated", "clusters"])
def test_likelihood_never_falls(x):
    rng = np.random.default_rng(12)
    features = as_utterances(x.astype(np.float32), 100)
    floor = em.variance_floor(x.var(axis=0), EmOptions())
    chosen = rng.choice(len(x), 6, replace=False)
    start = DiagGmm(np.full(6, 1 / 6), x[chosen], np.tile(x.var(axis=0), (6, 1)))
    history = history_of(start, features, EmOptions(num_iters=15, remove_low_count_gaussians=False), floor)
    assert (np.diff(history) >= -1e-8 * np.abs(history[1:])).all()
    assert history[-1] > history[0] + 1


def test_the_floor_keeps_em_monotone_only_if_the_start_respects_it():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((600, 2)) * 0.1
    x[300:] += 3
    features, floor = as_utterances(x, 100), np.full(2, 0.25)
    options = EmOptions(num_iters=8)
    wide = DiagGmm([0.5, 0.5], [[-1.0, 0.0], [2.0, 1.0]], np.ones((2, 2)))
    assert (np.diff(history_of(wide, features, options, floor)) >= -1e-9).all()
    narrow = DiagGmm([0.5, 0.5], [[0.0, 0.0], [3.0, 3.0]], np.full((2, 2), 0.01))
    history = history_of(narrow, features, options, floor)
    assert history[1] < history[0]  # the floor lifts the variances above their optimum
    assert (np.diff(history[1:]) >= -1e-9).all()


@pytest.mark.parametrize("start", ["global-split", "random-frames", "kmeans++"])
def test_well_separated_mixture_is_found(start):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(14)
    means, variances = [[-8.0, 0.0], [8.0, 1.0], [0.0, 9.0]], [[1.0, 0.5], [0.7, 1.0], [1.5, 1.0]]
    truth = DiagGmm([0.2, 0.3, 0.5], means, variances)
    features = as_utterances(draw(truth, 4000, rng), 250)
    found = train_gmm(features, InitOptions(num_gauss=3, init=start, srand=2), EmOptions(num_iters=30))
    distances = np.square(truth.means[:, None] - found.means[None]).sum(axis=2)
    order = linear_sum_assignment(distances)[1]
    np.testing.assert_allclose(found.weights[order], truth.weights, atol=0.03)
    np.testing.assert_allclose(found.means[order], truth.means, atol=0.15)
    np.testing.assert_allclose(found.variances[order], truth.variances, rtol=0.15)


@pytest.mark.parametrize("start", ["global-split", "random-frames", "kmeans++"])
def test_constant_dimension_is_floored(start):
    rng = np.random.default_rng(15)
    x = rng.standard_normal((600, 3)).astype(np.float32)
    x[:, 1] = 7.0
    gmm = train_gmm([("a", x)], InitOptions(num_gauss=4, init=start), EmOptions(num_iters=4))
    np.testing.assert_allclose(gmm.variances[:, 1], 0.001)
    np.testing.assert_allclose(gmm.means[:, 1], 7.0, rtol=1e-6)
    assert (gmm.variances[:, [0, 2]] >= 0.0099 * x[:, [0, 2]].var(axis=0)).all()


def starving():
    """A model whose third component explains nothing, and the statistics of data under it."""
    rng = np.random.default_rng(16)
    gmm = DiagGmm([0.45, 0.45, 0.1], [[-2.0], [2.0], [500.0]], np.ones((3, 1)))
    x = draw(gmm.keep([0, 1]), 500, rng)
    return gmm, e_step(gmm, [("a", x)])


def test_starved_component_is_removed(caplog):
    gmm, accs = starving()
    with caplog.at_level(logging.WARNING):
        updated = m_step(gmm, accs, EmOptions(), np.full(1, 1e-3))
    assert updated.num_gauss == 2 and np.isclose(updated.weights.sum(), 1)
    assert "Gaussian 2" in caplog.text and "removed" in caplog.text


def test_starved_component_is_kept_where_asked():
    gmm, accs = starving()
    options = EmOptions(remove_low_count_gaussians=False)
    updated = m_step(gmm, accs, options, np.full(1, 1e-3))
    assert updated.means[2, 0] == 500 and updated.variances[2, 0] == 1
    assert np.isclose(updated.weights[2], 1e-5) and np.isclose(updated.weights.sum(), 1)


def test_starved_component_is_rescued(caplog):
    gmm, accs = starving()
    with caplog.at_level(logging.WARNING):
        updated = m_step(gmm, accs, EmOptions(rescue=True), np.full(1, 1e-3), np.random.default_rng(0))
    assert updated.num_gauss == 3 and np.isclose(updated.weights.sum(), 1)
    assert (np.abs(updated.means) < 4).all() and "split" in caplog.text
    assert np.isclose(np.sort(updated.weights)[0], np.sort(updated.weights)[1])


def test_one_component_always_stays():
    gmm = DiagGmm([0.3, 0.7], [[0.0], [1.0]], np.ones((2, 1)))
    accs = e_step(gmm, [("a", np.zeros((5, 1), np.float32))])  # 5 frames: too few for either
    assert m_step(gmm, accs, EmOptions(), np.full(1, 1e-3)).num_gauss == 1
    alone = DiagGmm([1.0], [[0.0]], [[1.0]])
    accs = e_step(alone, [("a", np.zeros((5, 1)))])
    assert m_step(alone, accs, EmOptions(), np.full(1, 1e-3)).num_gauss == 1


def test_removed_components_are_not_split_back_after_the_growth():
    rng = np.random.default_rng(17)
    x = draw(DiagGmm([1.0], np.zeros((1, 2)), np.ones((1, 2))), 400, rng)
    start = DiagGmm(np.full(3, 1 / 3), [[0.0, 0.0], [1.0, 1.0], [900.0, 900.0]], np.ones((3, 2)))
    trained = train_gmm([("a", x)], InitOptions(num_gauss=3), EmOptions(num_iters=4), initial=start)
    assert trained.num_gauss == 2


def test_too_few_frames_say_what_to_do():
    x = np.random.default_rng(0).standard_normal((79, 2)).astype(np.float32)
    with pytest.raises(VoxarkError, match="79 frames are too few for 8 Gaussians.*80.*--num-gauss=7"):
        train_gmm([("a", x)], InitOptions(num_gauss=8), EmOptions())
    with pytest.raises(VoxarkError, match="too few"):
        initial = random_gmm(np.random.default_rng(0), 8, 2)
        train_gmm([("a", x)], InitOptions(), EmOptions(), initial=initial)
    with pytest.raises(VoxarkError, match="no frames"):
        train_gmm([], InitOptions(num_gauss=8), EmOptions())
    with pytest.raises(VoxarkError, match="5 frames are too few for 2 Gaussians.* at least 20$"):
        train_gmm([("a", x[:5])], InitOptions(num_gauss=2), EmOptions())
    few = EmOptions(num_iters=1, min_gaussian_occupancy=2)
    assert train_gmm([("a", x[:5])], InitOptions(num_gauss=2), few).num_gauss <= 2


def test_full_covariances_need_as_many_frames_as_their_update():
    """Else every component would be removed as starved, and a mixture asked for would be one Gaussian."""
    x = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    message = "300 frames are too few for 4 Gaussians: each needs 100 .*400, or take --num-gauss=3"
    with pytest.raises(VoxarkError, match=message):
        train_gmm([("a", x)], InitOptions(num_gauss=4), EmOptions(covariance="full"))
    options = EmOptions(covariance="full", num_iters=4, min_gaussian_occupancy=10)
    assert train_gmm([("a", x)], InitOptions(num_gauss=4), options).num_gauss == 4


@pytest.mark.parametrize("wrong", [
    dict(num_iters=0), dict(min_variance=0.0), dict(min_variance=np.inf), dict(var_floor_factor=1.0),
    dict(min_gaussian_weight=1.0)])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(VoxarkError, match="--"):
        train_gmm([("a", np.ones((20, 1)))], InitOptions(num_gauss=1), EmOptions(**wrong))


@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 25))
def test_growth_reaches_the_target_at_half_of_the_iterations(num_start, more, num_iters):
    added = em.growth_schedule(num_start, num_start + more, num_iters)
    assert len(added) == num_iters and min(added) >= 0
    assert sum(added[: -(-num_iters // 2)]) == more and not any(added[-(-num_iters // 2) :])


@pytest.mark.parametrize("start", ["global-split", "random-frames", "kmeans++"])
def test_same_seed_same_model_in_any_order_of_utterances(start):
    rng = np.random.default_rng(18)
    features = as_utterances(draw(random_gmm(rng, 5, 3), 1500, rng), 60)
    em_options = EmOptions(num_iters=6, double=True)
    options = InitOptions(num_gauss=5, init=start, srand=3, num_frames=300), em_options
    first = train_gmm(features, *options)
    second = train_gmm(features, *options)
    np.testing.assert_array_equal(first.means, second.means)
    reversed_order = train_gmm(features[::-1], *options)
    np.testing.assert_allclose(reversed_order.means, first.means, rtol=1e-6, atol=1e-6)
    other_seed = InitOptions(num_gauss=5, init=start, srand=4, num_frames=300)
    other = train_gmm(features, other_seed, em_options)
    assert not np.allclose(other.means, first.means)


# ---------------------------------------------------------------------- the start


def test_summary_moments_and_errors():
    rng = np.random.default_rng(19)
    x = rng.standard_normal((1000, 3)) + [1e6, 0, -5]
    summary = init.summarise(as_utterances(x, 90), 0, 0)
    assert summary.num_frames == 1000 and summary.sample is None
    np.testing.assert_allclose(summary.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(summary.variance, x.var(axis=0), rtol=1e-9)
    with pytest.raises(VoxarkError, match="^b: .*dimension 2.* a has 3"):
        init.summarise([("a", np.zeros((5, 3))), ("b", np.zeros((5, 2)))], 0, 0)
    with pytest.raises(VoxarkError, match="^a: .*frame 3, column 2 is inf"):
        bad = np.zeros((5, 3), np.float32)
        bad[3, 2] = np.inf
        init.summarise([("a", bad)], 0, 0)
    with pytest.raises(VoxarkError, match="^b: .*too large"):  # and no warning of numpy's
        init.summarise([("a", np.zeros((5, 3))), ("b", np.full((5, 3), 1e200))], 0, 0)


def test_reservoir_is_a_uniform_sample_whatever_the_order():
    x = np.arange(1000, dtype=np.float32)[:, None]
    utterances = as_utterances(x, 37)

    def sample(order, seed):
        reservoir = init.Reservoir(100, seed)
        for key, frames in order:
            reservoir.add(key, frames)
        return reservoir.frames()[:, 0]

    first = sample(utterances, 0)
    assert len(first) == 100 and len(set(first.tolist())) == 100
    np.testing.assert_array_equal(first, sample(utterances[::-1], 0))
    assert set(first.tolist()) != set(sample(utterances, 1).tolist())
    hits = np.zeros(1000)
    for seed in range(300):
        hits[sample(utterances, seed).astype(int)] += 1
    # each frame is chosen Binomial(300, 0.1) times; sampling without replacement lowers the sum by 0.9
    chi_square = np.sum((hits - 30) ** 2) / 30 / 0.9
    assert 850 < chi_square < 1150
    assert hits.min() > 5
    small = init.Reservoir(100, 0)
    small.add("a", x[:30])
    assert sorted(small.frames()[:, 0].tolist()) == list(range(30))


def test_random_frames_are_distinct_and_copies_are_moved(caplog):
    rng = np.random.default_rng(20)
    sample = np.repeat(rng.standard_normal((10, 2)).astype(np.float32), 8, axis=0)
    frames = init.distinct_frames(sample, 10, np.ones(2), rng)
    assert len(np.unique(frames, axis=0)) == 10
    with caplog.at_level(logging.WARNING):
        frames = init.distinct_frames(sample, 14, np.ones(2), rng)
    assert len(np.unique(frames, axis=0)) == 14 and "only 10 different frames" in caplog.text


def test_kmeans_is_as_good_as_scikit_learn_and_finds_clusters():
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(21)
    z = draw(random_gmm(rng, 12, 4, spread=3.0), 3000, rng)

    def inertia(labels):
        means = init.cluster_moments(z, labels, 12)[1]
        return np.square(z - means[labels]).sum()

    ours = np.median([inertia(init.kmeans(z, 12, np.random.default_rng(seed))) for seed in range(5)])
    peers = [cluster.KMeans(12, n_init=1, max_iter=20, random_state=seed).fit(z) for seed in range(5)]
    peer = np.median([p.inertia_ for p in peers])
    assert ours < 1.05 * peer
    far = np.repeat(np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]]), 25, axis=0)
    labels = init.kmeans((far + rng.standard_normal((100, 2))).astype(np.float32), 4, rng)
    assert [len(set(labels[i : i + 25].tolist())) for i in range(0, 100, 25)] == [1, 1, 1, 1]
    assert len(set(labels.tolist())) == 4


def test_kmeans_with_fewer_different_frames_than_clusters(caplog):
    z = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], np.float32), 20, axis=0)
    with caplog.at_level(logging.WARNING):
        labels = init.kmeans(z, 5, np.random.default_rng(0))
    assert "only 3 different frames" in caplog.text and labels.max() < 5
    gmm = train_gmm([("a", z)], InitOptions(num_gauss=5, init="kmeans++"), EmOptions(num_iters=3))
    assert np.isfinite(gmm.log_likelihood(z)).all()


def test_empty_clusters_take_the_farthest_frames():
    labels = init._fill_empty(np.array([0, 0, 0, 1]), np.array([0.0, 1.0, 5.0, 9.0]), 3)
    assert labels.tolist() == [0, 0, 2, 1]  # frame 3 is farther, but alone in its cluster


def test_cluster_moments_by_loops():
    rng = np.random.default_rng(22)
    z, labels = rng.standard_normal((50, 2)), rng.integers(0, 4, 50)
    weights, means, variances = init.cluster_moments(z, labels, 5)
    for c in range(4):
        np.testing.assert_allclose(means[c], z[labels == c].mean(axis=0))
        np.testing.assert_allclose(variances[c], z[labels == c].var(axis=0))
        assert np.isclose(weights[c], np.mean(labels == c))
    assert weights[4] == 0


# ---------------------------------------------------------------------- what Kaldi gives


@needs_golden
def test_one_iteration_equals_kaldi():
    features = golden_features()
    before, after = golden_gmm("diag.0.gmm"), golden_gmm("diag.1.gmm")
    accs = e_step(before, features)
    assert abs(accs.log_likelihood / accs.num_frames - -77.4771) < 3e-4  # model/LOG, gmm-global-acc-stats
    options = EmOptions(remove_low_count_gaussians=False)
    ours = m_step(before, accs, options, em.variance_floor(before.total_variance(), options))
    np.testing.assert_allclose(ours.weights, after.weights, rtol=2e-4)
    np.testing.assert_allclose(ours.variances, after.variances, rtol=5e-4)
    np.testing.assert_allclose(ours.means, after.means, atol=5e-4 * np.sqrt(after.variances).min())


@needs_golden
def test_frame_likelihoods_equal_kaldi():
    gmm = golden_gmm("diag.1.gmm")
    with tables.open_reader("vec", f"ark:{golden('model/diag.1.likes.ark')}") as reader:
        expected = dict(reader)
    with tables.open_reader("float", f"ark:{golden('model/diag.1.avglikes.txt')}") as reader:
        averages = dict(reader)
    features = golden_features()
    assert len(features) == len(expected) == len(averages) == 6
    for key, x in features:
        np.testing.assert_allclose(gmm.log_likelihood(x), expected[key], atol=2e-3)
        assert abs(gmm.log_likelihood(x).mean() - averages[key]) < 1e-3


@needs_golden
@pytest.mark.parametrize("name, binary", [("diag.0.gmm", True), ("diag.1.gmm", True), ("diag.1.txt", False),
                                          ("full.1.diag.gmm", True)])
def test_model_files_are_written_byte_for_byte(name, binary, tmp_path):
    source = golden(f"model/{name}")
    params = tables.read_object("diag-gmm", str(source))
    tables.write_object("diag-gmm", str(tmp_path / "copy"), params, binary=binary)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_files_of_both_precisions(tmp_path, dtype, binary):
    params = random_gmm(np.random.default_rng(25), 5, 3).to_params(dtype)
    tables.write_object("diag-gmm", str(tmp_path / "one"), params, binary=binary)
    again = tables.read_object("diag-gmm", str(tmp_path / "one"))
    tables.write_object("diag-gmm", str(tmp_path / "two"), again, binary=binary)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    if binary:
        assert all(a.dtype == dtype for a in again)
        np.testing.assert_array_equal(again.means_invvars, params.means_invvars)


@needs_golden
def test_recomputed_gconsts_equal_kaldi():
    params = tables.read_object("diag-gmm", str(golden("model/diag.1.gmm")))
    ours = DiagGmm.from_params(params).to_params()
    np.testing.assert_allclose(ours.gconsts, params.gconsts, rtol=2e-6)
    for name in ("weights", "means_invvars", "inv_vars"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(params, name))


# ---------------------------------------------------------------------- MAP adaptation


def adaptation_case():
    rng = np.random.default_rng(23)
    ubm = DiagGmm([0.3, 0.5, 0.2], [[0.0, 0.0], [4.0, 1.0], [300.0, 300.0]], 0.5 + rng.random((3, 2)))
    x = draw(ubm.keep([0, 1]), 200, rng) + np.float32(0.5)
    return ubm, x, e_step(ubm, [("a", x)], double=True)


@pytest.mark.parametrize("flags", ["m", "mvw", "v", "w", "mv"])
def test_map_equals_the_rules_by_loops(flags):
    ubm, x, accs = adaptation_case()
    adapted = map_adapt(ubm, accs, MapOptions(flags, mean_tau=12.0, variance_tau=40.0, weight_tau=9.0))
    joint = brute_log_likelihoods(ubm, x)
    gamma = np.exp(joint - log_sum_exp(joint, 1)[:, None])
    x = np.asarray(x, np.float64)
    for c in range(2):
        n = gamma[:, c].sum()
        mean = (gamma[:, c] @ x + 12.0 * ubm.means[c]) / (n + 12.0) if "m" in flags else ubm.means[c]
        spread = gamma[:, c] @ (x - mean) ** 2
        variance = (spread + 40.0 * ubm.variances[c]) / (n + 40.0) if "v" in flags else ubm.variances[c]
        weight = (n + 9.0 * ubm.weights[c]) / (200 + 9.0) if "w" in flags else ubm.weights[c]
        np.testing.assert_allclose(adapted.means[c], mean, rtol=1e-9)
        np.testing.assert_allclose(adapted.variances[c], variance, rtol=1e-9)
        np.testing.assert_allclose(adapted.weights[c], weight, rtol=1e-9)
    np.testing.assert_array_equal(adapted.means[2], ubm.means[2])  # n = 0: unchanged
    np.testing.assert_array_equal(adapted.variances[2], ubm.variances[2])
    assert np.isclose(adapted.weights.sum(), 1)


def test_map_limits():
    ubm, x, accs = adaptation_case()
    most_likely = m_step(ubm, accs, EmOptions(remove_low_count_gaussians=False), np.full(2, 1e-6))
    free = map_adapt(ubm, accs, MapOptions("mvw", 0.0, 0.0, 0.0))
    np.testing.assert_allclose(free.means[:2], most_likely.means[:2], rtol=1e-9)
    np.testing.assert_allclose(free.variances[:2], most_likely.variances[:2], rtol=1e-9)
    np.testing.assert_allclose(free.weights[:2], accs.n[:2] / 200)
    bound = map_adapt(ubm, accs, MapOptions("mvw", 1e12, 1e12, 1e12))
    np.testing.assert_allclose(bound.means, ubm.means, atol=1e-8)
    np.testing.assert_allclose(bound.variances, ubm.variances, rtol=1e-8)
    np.testing.assert_allclose(bound.weights, ubm.weights, rtol=1e-8)


def test_map_defaults_are_means_with_sixteen():
    ubm, _, accs = adaptation_case()
    adapted = map_adapt(ubm, accs, MapOptions())
    np.testing.assert_array_equal(adapted.variances, ubm.variances)
    np.testing.assert_array_equal(adapted.weights, ubm.weights)
    n = accs.n[0]
    most_likely = accs.f[0] / n + accs.offset
    np.testing.assert_allclose(adapted.means[0], (n * most_likely + 16 * ubm.means[0]) / (n + 16), rtol=1e-12)


@pytest.mark.parametrize("wrong", [dict(update_flags=""), dict(update_flags="mt"), dict(mean_tau=-1.0),
                                   dict(weight_tau=np.inf)])
def test_map_options_are_checked(wrong):
    with pytest.raises(VoxarkError, match="--"):
        MapOptions(**wrong).check()


# ---------------------------------------------------------------------- scores


def brute_score(ubm, model, x, top):
    """Frame by frame, component by component."""
    ubm_lls, model_lls = brute_log_likelihoods(ubm, x), brute_log_likelihoods(model, x)
    ratios = []
    for u, m in zip(ubm_lls, model_lls):
        chosen = np.argsort(-u)[:top]
        ratios.append(np.log(np.exp(m[chosen]).sum()) - np.log(np.exp(u[chosen]).sum()))
    return np.mean(ratios)


def score_case(flags="m", num_models=4):
    rng = np.random.default_rng(24)
    ubm = random_gmm(rng, 16, 5, spread=1.0)
    models = []
    for _ in range(num_models):
        x = draw(ubm, 150, rng) + rng.standard_normal(5).astype(np.float32)
        models.append(map_adapt(ubm, e_step(ubm, [("a", x)]), MapOptions(flags)))
    return ubm, models, draw(models[0], 40, rng)


@pytest.mark.parametrize("flags", ["m", "mvw"])
@pytest.mark.parametrize("top", [0, 1, 3, 10, 16, 99])
def test_scores_equal_the_definition(flags, top):
    ubm, models, x = score_case(flags)
    expected = [brute_score(ubm, model, x, min(top or 16, 16)) for model in models]
    scores = gmm_llr(ubm, models, x, top)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose([gmm_llr(ubm, [model], x, top)[0] for model in models], scores, rtol=1e-12)


def test_exact_score_is_the_difference_of_log_likelihoods():
    ubm, models, x = score_case("mvw")
    exact = [np.mean(model.log_likelihood(x) - ubm.log_likelihood(x)) for model in models]
    np.testing.assert_allclose(gmm_llr(ubm, models, x, 0), exact, rtol=1e-9)
    assert np.argmax(exact) == 0  # the model that the frames came from
    np.testing.assert_allclose(gmm_llr(ubm, [ubm], x, 5), 0.0, atol=1e-12)


def test_scorer_takes_a_choice_of_models_and_long_utterances(monkeypatch):
    from voxark.gmm import score

    ubm, models, x = score_case()
    scorer = GmmScorer(ubm, iter(models), 4)
    whole = scorer.scores(x)
    np.testing.assert_allclose(scorer.scores(x, [2, 0]), whole[[2, 0]], rtol=1e-12)
    mixed = GmmScorer(ubm, [models[0], score_case("mvw")[1][1]], 4)  # one with adapted variances, one without
    np.testing.assert_allclose(mixed.scores(x)[0], whole[0], rtol=1e-12)
    monkeypatch.setattr(score, "MAX_CELLS", 100)  # many blocks of a few frames
    np.testing.assert_allclose(scorer.scores(x), whole, rtol=1e-12)


def test_scores_with_weight_zero_in_the_ubm():
    ubm, models, x = score_case()
    weights = ubm.weights.copy()
    weights[3] = 0.0
    dead = DiagGmm(weights, ubm.means, ubm.variances)
    model = DiagGmm(weights, models[0].means, models[0].variances)
    exact = np.mean(model.log_likelihood(x) - dead.log_likelihood(x))
    np.testing.assert_allclose(gmm_llr(dead, [model], x, 0), [exact], rtol=1e-9)


def test_score_errors():
    ubm, models, x = score_case()
    with pytest.raises(VoxarkError, match="no frames"):
        gmm_llr(ubm, models, x[:0])
    with pytest.raises(VoxarkError, match="model 1 has 3 components"):
        gmm_llr(ubm, [models[0], models[1].keep([0, 1, 2])], x)
    with pytest.raises(VoxarkError, match="frame 2, column 0"):
        x[2, 0] = np.nan
        gmm_llr(ubm, models, x)
    with pytest.raises(VoxarkError, match="--top-gauss"):
        GmmScorer(ubm, models, -1)
    assert gmm_llr(ubm, [], x[5:]).shape == (0,)
