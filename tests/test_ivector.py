"""The i-vector model: posteriors, evidence, EM, minimum divergence, Kaldi's form and Kaldi's golden files."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from helpers import golden, needs_golden

from voxark import tables
from voxark.arrays import Device
from voxark.errors import VoxarkError
from voxark.gmm.full import FullGmm
from voxark.io.posteriors import Posteriors
from voxark.ivector.baum_welch import (
    BLOCK_BYTES, Blocks, Scatter, StatisticsStore, baum_welch, block_bytes, check_posteriors)
from voxark.ivector.e_step import EStep, IvectorStats, accumulate
from voxark.ivector.extractor import (
    CENTRED_OFFSET, ExtractorOptions, IvectorExtractor, initial_extractor)
from voxark.ivector.m_step import EstimationOptions, m_step, reflection, update_prior
from voxark.ivector.train import EvidenceCheck, TrainingOptions, plan_memory, train
from voxark.kaldi_files import IvectorExtractorParams
from voxark.packed import pack_lower, unpack_lower

C, D, R = 4, 3, 2


def covariances(rng, number, dim):
    """Random positive definite matrices (number,dim,dim)."""
    root = rng.standard_normal((number, dim, dim)) / np.sqrt(dim)
    return 0.5 * np.eye(dim) + root @ np.swapaxes(root, 1, 2)


def random_model(seed=0, num_gauss=C, dim=D, ivector_dim=R, offset=0.0):
    """A random extractor; with an offset it has Kaldi's form."""
    rng = np.random.default_rng(seed)
    means = 3.0 * rng.standard_normal((num_gauss, dim))
    t = 0.7 * rng.standard_normal((num_gauss, dim, ivector_dim))
    if offset:
        t[:, :, 0], means = means / offset, np.zeros_like(means)
    weights = rng.dirichlet(np.full(num_gauss, 5.0))
    return IvectorExtractor(weights, means, t, np.linalg.inv(covariances(rng, num_gauss, dim)), offset)


def sample(model, num_utts, num_frames, seed=1):
    """Draw utterances from a model: lists of x (T,D) float32 and of one-hot Posteriors."""
    rng = np.random.default_rng(seed)
    model = model.centred()
    roots = np.linalg.cholesky(np.linalg.inv(model.sigma_inv))
    features, posteriors = [], []
    for _ in range(num_utts):
        w = rng.standard_normal(model.ivector_dim)
        component = rng.choice(model.num_gauss, size=num_frames, p=model.weights)
        noise = np.einsum("tde,te->td", roots[component], rng.standard_normal((num_frames, model.dim)))
        x = (model.means + model.t @ w)[component] + noise
        features.append(x.astype(np.float32))
        posteriors.append(Posteriors(np.ones(num_frames, np.int32), component.astype(np.int32),
                                     np.ones(num_frames, np.float32)))
    return features, posteriors


def soft_posteriors(rng, num_frames, num_gauss):
    """Random sparse posteriors, zero to three entries a frame."""
    counts = rng.integers(0, 4, num_frames).astype(np.int32)
    index = [rng.choice(num_gauss, size=count, replace=False) for count in counts]
    value = [rng.dirichlet(np.ones(count)) if count else np.zeros(0) for count in counts]
    index, value = np.concatenate(index).astype(np.int32), np.concatenate(value).astype(np.float32)
    return Posteriors(counts, index, value)


def statistics(model, features, posteriors):
    """(n, f) of all utterances as one block, and their Scatter."""
    scatter = Scatter.zeros(model.num_gauss, model.dim)
    return baum_welch(features, posteriors, model.num_gauss, None, scatter), scatter


def joint_gaussian(model, x, component):
    """w|X and ln p(X) of frames x (T,D) of known components, by conditioning one large Gaussian.

    X, all frames in a row, is N(stacked M(p), T T' + diag(Sigma)); nothing of the E-step's formulas is used.
    """
    centred = model.centred()
    t = np.concatenate(centred.t[component])
    mean = np.concatenate(centred.means[component])
    noise = np.zeros((len(mean), len(mean)))
    for i, c in enumerate(component):
        place = slice(i * model.dim, (i + 1) * model.dim)
        noise[place, place] = np.linalg.inv(model.sigma_inv[c])
    cov, centred_x = t @ t.T + noise, np.ravel(x).astype(float) - mean
    gain = t.T @ np.linalg.inv(cov)
    sign, log_det = np.linalg.slogdet(2 * np.pi * cov)
    assert sign == 1
    log_likelihood = -0.5 * (log_det + centred_x @ np.linalg.solve(cov, centred_x))
    w = gain @ centred_x + model.prior_mean()
    return w, np.eye(model.ivector_dim) - gain @ t, log_likelihood + np.log(model.weights)[component].sum()


# ------------------------------------------------------------------------------------------------- statistics


def test_statistics_are_the_sums_over_frames():
    rng = np.random.default_rng(3)
    features = [rng.standard_normal((t, D)).astype(np.float32) for t in (7, 2, 30)]
    posteriors = [soft_posteriors(rng, len(x), C) for x in features]
    scales = [1.0, 0.5, 2.0]
    scatter = Scatter.zeros(C, D)
    n, f = baum_welch(features, posteriors, C, scales, scatter)
    expected_n, expected_f, expected_s = np.zeros((3, C)), np.zeros((3, C, D)), np.zeros((C, D, D))
    for u, (x, post, scale) in enumerate(zip(features, posteriors, scales)):
        entry = 0
        for t, count in enumerate(post.counts):
            for _ in range(count):
                c, value = post.index[entry], scale * float(post.value[entry])
                expected_n[u, c] += value
                expected_f[u, c] += value * x[t]
                expected_s[c] += value * np.outer(x[t].astype(float), x[t].astype(float))
                entry += 1
    for result, expected in ((n, expected_n), (f, expected_f), (scatter.n, expected_n.sum(0)),
                             (scatter.f, expected_f.sum(0)), (scatter.s, expected_s)):
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-12)


def test_scatter_around_means_is_that_of_shifted_frames():
    rng = np.random.default_rng(4)
    means = rng.standard_normal((C, D))
    x, post = rng.standard_normal((50, D)).astype(np.float32), soft_posteriors(rng, 50, C)
    scatter = Scatter.zeros(C, D)
    baum_welch([x], [post], C, None, scatter)
    frame = np.repeat(np.arange(50), post.counts)
    expected = np.zeros((C, D, D))
    for t, c, value in zip(frame, post.index, post.value):
        expected[c] += float(value) * np.outer(x[t] - means[c], x[t] - means[c])
    np.testing.assert_allclose(scatter.around(means), expected, rtol=1e-9, atol=1e-9)


def test_blocks_do_not_change_the_statistics(monkeypatch):
    model = random_model()
    features, posteriors = sample(model, 9, 20)
    (n, f), scatter = statistics(model, features, posteriors)
    monkeypatch.setattr("voxark.ivector.baum_welch.BLOCK_FRAMES", 45)
    utterances = [(f"u{i}", x, post, 1.0) for i, (x, post) in enumerate(zip(features, posteriors))]
    total = Scatter.zeros(C, D)
    blocks = list(Blocks(utterances, model, total))
    assert [len(keys) for keys, _, _ in blocks] == [2, 2, 2, 2, 1]
    assert [key for keys, _, _ in blocks for key in keys] == [f"u{i}" for i in range(9)]
    np.testing.assert_array_equal(np.concatenate([n for _, n, _ in blocks]), n)
    np.testing.assert_array_equal(np.concatenate([f for _, _, f in blocks]), f)
    np.testing.assert_allclose(total.s, scatter.s, rtol=1e-12)


def test_store_gives_the_same_blocks_from_memory_and_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    blocks = [(rng.random((u, C)), rng.random((u, C, D))) for u in (3, 1, 4)]
    with StatisticsStore(1e9) as held, StatisticsStore(3 * 8 * C * (D + 1)) as spilled:
        for block in blocks:
            held.add(*block)
            spilled.add(*block)
        assert held.in_memory and not spilled.in_memory
        for _ in range(2):  # as often as asked
            for store in (held, spilled):
                for (n, f), (n2, f2) in zip(blocks, store, strict=True):
                    np.testing.assert_array_equal(n, n2)
                    np.testing.assert_array_equal(f, f2)
        assert held.num_utts == spilled.num_utts == 8
    assert not list(tmp_path.iterdir())


def test_store_without_a_place_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with StatisticsStore(10) as store, pytest.raises(VoxarkError, match="No such file.*TMPDIR names another"):
        store.add(np.zeros((1, C)), np.zeros((1, C, D)))


@pytest.mark.parametrize("change, message", [
    ({"counts": np.ones(4, np.int32)}, "5 frames of features, but posteriors of 4 frames"),
    ({"index": np.full(5, 4, np.int32)}, "the model has 4"),
    ({"index": np.full(5, -1, np.int32)}, "the model has 4"),
    ({"value": np.full(5, -0.1, np.float32)}, "negative"),
    ({"value": np.full(5, np.nan, np.float32)}, "not a number"),
    ({"value": np.full(5, np.inf, np.float32)}, "posterior"),
])
def test_posteriors_of_something_else_are_refused(change, message):
    post = Posteriors(np.ones(5, np.int32), np.zeros(5, np.int32), np.ones(5, np.float32))
    x = np.zeros((5, D), np.float32)
    check_posteriors(x, post, C, D)
    with pytest.raises(VoxarkError, match=message):
        check_posteriors(x, post._replace(**change), C, D)


def test_features_are_checked():
    post = Posteriors(np.ones(5, np.int32), np.zeros(5, np.int32), np.ones(5, np.float32))
    with pytest.raises(VoxarkError, match="dimension 3"):
        check_posteriors(np.zeros((5, D + 1), np.float32), post, C, D)
    x = np.zeros((5, D), np.float32)
    x[2, 1] = np.nan
    with pytest.raises(VoxarkError, match="frame 2, column 1"):
        check_posteriors(x, post, C, D)


# ------------------------------------------------------------------------------------------------- posteriors


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_posterior_and_evidence_are_those_of_the_joint_gaussian(offset):
    """T4.1, and the whole of ln p(X) against a density of all frames at once."""
    model = random_model(5, offset=offset)
    features, posteriors = sample(model, 3, 12)
    (n, f), scatter = statistics(model, features, posteriors)
    w, cov, _ = EStep(model).posteriors(n, f)
    evidence = 0.0
    for u, (x, post) in enumerate(zip(features, posteriors)):
        expected_w, expected_cov, log_likelihood = joint_gaussian(model, x, post.index)
        np.testing.assert_allclose(w[u], expected_w, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(cov[u], expected_cov, rtol=1e-8, atol=1e-8)
        evidence += log_likelihood
    stats = accumulate(model, [(n, f)], scatter)
    assert stats.log_evidence == pytest.approx(evidence, rel=1e-9)
    np.testing.assert_allclose(EStep(model).means(n, f), w - model.prior_mean(), atol=1e-9)


def test_posterior_of_soft_counts_is_the_regression_over_frames():
    """T4.1 with sparse posteriors: a weighted ridge regression, frame by frame."""
    rng = np.random.default_rng(6)
    model = random_model(6)
    x, post = rng.standard_normal((40, D)).astype(np.float32), soft_posteriors(rng, 40, C)
    precision, linear = np.eye(R), np.zeros(R)
    for t, c, value in zip(np.repeat(np.arange(40), post.counts), post.index, post.value.astype(float)):
        precision += value * model.t[c].T @ model.sigma_inv[c] @ model.t[c]
        linear += value * model.t[c].T @ model.sigma_inv[c] @ (x[t] - model.means[c])
    n, f = baum_welch([x], [post], C)
    w, cov, _ = EStep(model).posteriors(n, f)
    np.testing.assert_allclose(w[0], np.linalg.solve(precision, linear), rtol=1e-9)
    np.testing.assert_allclose(cov[0], np.linalg.inv(precision), rtol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_without_frames_the_posterior_is_the_prior(offset):
    """T4.3."""
    model = random_model(7, offset=offset)
    step = EStep(model)
    w, cov, _ = step.posteriors(np.zeros((2, C)), np.zeros((2, C, D)))
    np.testing.assert_array_equal(w, np.tile(model.prior_mean(), (2, 1)))
    np.testing.assert_array_equal(cov, np.tile(np.eye(R), (2, 1, 1)))
    np.testing.assert_array_equal(step.means(np.zeros((2, C)), np.zeros((2, C, D))), np.zeros((2, R)))


def test_large_quadratic_terms_are_inverted_by_halves():
    rng = np.random.default_rng(8)
    model = random_model(8, num_gauss=3, dim=5, ivector_dim=75)
    n, f = 50 * rng.random((2, 3)), rng.standard_normal((2, 3, 5))
    _, cov, evidence = EStep(model).posteriors(n, f)
    for u in range(2):
        precision = np.eye(75) + np.einsum("c,cdr,cde,ces->rs", n[u], model.t, model.sigma_inv, model.t)
        np.testing.assert_allclose(cov[u], np.linalg.inv(precision), rtol=1e-8, atol=1e-10)
        linear = np.einsum("cdr,cde,ce->r", model.t, model.sigma_inv, f[u] - n[u][:, None] * model.means)
        expected = 0.5 * linear @ np.linalg.solve(precision, linear) - 0.5 * np.linalg.slogdet(precision)[1]
        assert evidence[u] == pytest.approx(expected, rel=1e-9)


def test_torch_computes_the_same():
    pytest.importorskip("torch")
    model = random_model(9, ivector_dim=40)
    features, posteriors = sample(model, 6, 30)
    (n, f), scatter = statistics(model, features, posteriors)
    ours = accumulate(model, [(n, f)], scatter)
    theirs = accumulate(model, [(n[:2], f[:2]), (n[2:], f[2:])], scatter, Device("torch"))
    for name in ("n", "b", "a", "s", "w_sum", "w_scatter", "num_utts", "log_evidence"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-9, atol=1e-9)
    vectors = EStep(model, Device("torch")).means(n, f)
    np.testing.assert_allclose(vectors, EStep(model).means(n, f), atol=1e-10)


def test_statistics_of_jobs_add_up():
    model = random_model(10)
    features, posteriors = sample(model, 11, 25)
    (n, f), scatter = statistics(model, features, posteriors)
    whole = accumulate(model, [(n, f)], scatter)
    total = None
    for part in (slice(0, 3), slice(3, 4), slice(4, 11)):
        (n, f), scatter = statistics(model, features[part], posteriors[part])
        stats = accumulate(model, [(n, f)], scatter)
        total = IvectorStats.from_params(stats.to_params()) if total is None else total.__iadd__(stats)
    for name in ("n", "b", "a", "s", "w_sum", "w_scatter", "num_utts", "log_evidence"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name), rtol=1e-10, atol=1e-9)
    one, _ = m_step(model, whole, EstimationOptions(gaussian_min_count=1))
    other, _ = m_step(model, total, EstimationOptions(gaussian_min_count=1))
    np.testing.assert_allclose(other.t, one.t, rtol=1e-8, atol=1e-10)


def test_statistics_add_up_in_place():
    model = random_model(10)
    (n, f), scatter = statistics(model, *sample(model, 5, 25))
    stats = accumulate(model, [(n, f)], scatter)
    stats.a.flags.writeable = False  # as from a file
    total = stats.zeros()
    place = total.a
    total += stats
    total += stats
    assert total.a is place
    for name in ("n", "b", "a", "s", "w_sum", "w_scatter", "num_utts", "log_evidence"):
        np.testing.assert_array_equal(getattr(total, name), 2 * getattr(stats, name))
    first_order = replace(stats, s=None)
    assert first_order.zeros().s is None and first_order.zeros().num_utts == 0.0


def test_statistics_of_different_models_do_not_add_up():
    stats = {}
    for dim, packed in ((2, 3), (3, 6)):
        stats[dim] = IvectorStats(np.zeros(C), np.zeros((C, D, dim)), np.zeros((C, packed)), None,
                                  np.zeros(dim), np.zeros(packed))
    with pytest.raises(VoxarkError, match="different models"):
        stats[2] += stats[3]


def test_statistics_that_are_not_finite_are_refused():
    params = IvectorStats(np.zeros(C), np.zeros((C, D, 2)), np.zeros((C, 3)), None, np.zeros(2),
                          np.zeros(3)).to_params()
    assert IvectorStats.from_params(params).s is None
    for name in ("auxf", "gamma", "y", "r", "ivector_sum"):
        with pytest.raises(VoxarkError, match="not finite"):
            IvectorStats.from_params(params._replace(**{name: getattr(params, name) + np.nan}))


# ---------------------------------------------------------------------------------------------------- M-step


def regression_case(seed=11, num_utts=40):
    """Utterances whose w is known exactly: model, features, posteriors, w (U,R), statistics of the E-step."""
    rng = np.random.default_rng(seed)
    model = random_model(seed)
    features, posteriors = sample(model, num_utts, 60, seed)
    (n, f), scatter = statistics(model, features, posteriors)
    w = rng.standard_normal((num_utts, R)) + 0.3
    second = pack_lower(w[:, :, None] * w[:, None, :])
    centred = f - n[:, :, None] * model.means
    stats = IvectorStats(n.sum(0), np.einsum("ucd,ur->cdr", centred, w), n.T @ second,
                         scatter.around(model.means), w.sum(0), second.sum(0), float(num_utts))
    return model, features, posteriors, w, stats


def test_m_step_is_the_regression_of_frames_on_known_ivectors():
    """With E[ww'] = ww' the M-step is least squares; here by lstsq on the frames themselves."""
    model, features, posteriors, w, stats = regression_case()
    options = EstimationOptions(gaussian_min_count=1, min_divergence=False, diagonalize=False,
                                variance_floor_factor=1e-6)
    updated, num_floored = m_step(model, stats, options)
    assert num_floored == 0
    owner = np.repeat(np.arange(len(w)), 60)
    x, component = np.concatenate(features).astype(float), np.concatenate([p.index for p in posteriors])
    for c in range(C):
        mine = component == c
        y, regressor = x[mine] - model.means[c], w[owner[mine]]
        t = np.linalg.lstsq(regressor, y, rcond=None)[0].T
        residual = y - regressor @ t.T
        np.testing.assert_allclose(updated.t[c], t, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(np.linalg.inv(updated.sigma_inv[c]), residual.T @ residual / mine.sum(),
                                   rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(updated.means, model.means)


def test_minimum_divergence_keeps_the_distribution_of_supervectors():
    model, _, _, w, stats = regression_case(12)
    updated = update_prior(model, stats, EstimationOptions())
    mean, cov = w.mean(0), np.cov(w.T, bias=True)
    np.testing.assert_allclose(updated.means, model.means + model.t @ mean, rtol=1e-9)
    old, new = model.t.reshape(-1, R), updated.t.reshape(-1, R)
    np.testing.assert_allclose(new @ new.T, old @ cov @ old.T, rtol=1e-8, atol=1e-10)
    quadratic = np.einsum("c,cdr,cde,ces->rs", updated.weights, updated.t, updated.sigma_inv, updated.t)
    np.testing.assert_allclose(quadratic - np.diag(np.diag(quadratic)), 0, atol=1e-9)
    assert np.all(np.diff(np.diag(quadratic)) <= 0)


def test_kaldis_prior_update_keeps_the_distribution_of_supervectors():
    rng = np.random.default_rng(13)
    model = random_model(13, ivector_dim=4, offset=30.0)
    w = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 4)) + [31.0, 0.5, -1.0, 2.0]
    second = pack_lower(w[:, :, None] * w[:, None, :]).sum(0)
    stats = IvectorStats(np.ones(C), np.zeros_like(model.t), np.zeros((C, 10)), None, w.sum(0), second, 30.0)
    for diagonalize in (False, True):
        updated = update_prior(model, stats, EstimationOptions(diagonalize=diagonalize))
        old, new = model.t.reshape(-1, 4), updated.t.reshape(-1, 4)
        np.testing.assert_allclose(updated.offset * new[:, 0], old @ w.mean(0), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(new @ new.T, old @ np.cov(w.T, bias=True) @ old.T, rtol=1e-7, atol=1e-9)
        assert updated.offset > 0


@pytest.mark.parametrize("x", [[3, 4, 0], [1, 1e-9, 0], [2, 0, 0], [-1, 0, 0], [-3, 1, 2]])
def test_reflection_sends_the_mean_to_the_first_axis(x):
    h = reflection(np.array(x, float))
    np.testing.assert_allclose(h @ h.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(h @ x, [np.linalg.norm(x), 0, 0], atol=1e-14)


def test_variances_are_floored_relative_to_the_average():
    model, _, _, _, stats = regression_case(14)
    raw, _ = m_step(model, stats, EstimationOptions(gaussian_min_count=1, variance_floor_factor=1e-9))
    floored, number = m_step(model, stats, EstimationOptions(gaussian_min_count=1, variance_floor_factor=0.8))
    raw_covs, covs = np.linalg.inv(raw.sigma_inv), np.linalg.inv(floored.sigma_inv)
    floor = 0.8 * np.tensordot(stats.n / stats.n.sum(), raw_covs, 1)
    least = [np.linalg.eigvals(np.linalg.solve(floor, cov)).real.min() for cov in covs]
    assert min(least) > 1 - 1e-9
    expected = sum(int((np.linalg.eigvals(np.linalg.solve(floor, cov)).real < 1).sum()) for cov in raw_covs)
    assert number == expected > 0
    free = [c for c in range(C) if np.linalg.eigvals(np.linalg.solve(floor, raw_covs[c])).real.min() > 1]
    np.testing.assert_allclose(covs[free], raw_covs[free], rtol=1e-8)


def test_starved_gaussians_keep_their_parameters(caplog):
    model, _, _, _, stats = regression_case(15)
    count = np.sort(stats.n)[1] + 1e-6
    options = EstimationOptions(gaussian_min_count=count, min_divergence=False, diagonalize=False)
    with caplog.at_level(logging.WARNING):
        updated, _ = m_step(model, stats, options)
    starved = stats.n < count
    assert starved.sum() == 2 and "2 of 4 Gaussians have fewer" in caplog.text
    np.testing.assert_array_equal(updated.t[starved], model.t[starved])
    np.testing.assert_array_equal(updated.sigma_inv[starved], model.sigma_inv[starved])
    assert not np.isclose(updated.t[~starved], model.t[~starved]).any()
    with pytest.raises(VoxarkError, match="no Gaussian has --gaussian-min-count=1e"):
        m_step(model, stats, EstimationOptions(gaussian_min_count=1e9))


def test_m_step_refuses_statistics_of_another_model():
    model, _, _, _, stats = regression_case(16)
    with pytest.raises(VoxarkError, match="another model"):
        m_step(random_model(0, ivector_dim=R + 1), stats, EstimationOptions())
    with pytest.raises(VoxarkError, match="no utterances"):
        m_step(model, replace(stats, num_utts=0.0), EstimationOptions())


def test_variances_stay_without_second_order_statistics():
    model, _, _, _, stats = regression_case(17)
    for options, given in ((EstimationOptions(gaussian_min_count=1), replace(stats, s=None)),
                           (EstimationOptions(gaussian_min_count=1, update_variances=False), stats)):
        np.testing.assert_array_equal(m_step(model, given, options)[0].sigma_inv, model.sigma_inv)


@pytest.mark.parametrize("options", [
    {"variance_floor_factor": 0.0}, {"variance_floor_factor": 1.5}, {"gaussian_min_count": -1.0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(VoxarkError, match="--"):
        EstimationOptions(**options).check()


# -------------------------------------------------------------------------------------------------- training


def trained(kaldi_compat, ivector_dim, num_iters=8, num_utts=120, caplog=None):
    """A model trained on draws from a random one: (truth, result, log text)."""
    truth = random_model(20, num_gauss=3, dim=6, ivector_dim=2)
    features, posteriors = sample(truth, num_utts, 80)
    utterances = ((f"u{i}", x, post, 1.0) for i, (x, post) in enumerate(zip(features, posteriors)))
    gmm = FullGmm(truth.weights, truth.means + 0.1, np.linalg.inv(truth.sigma_inv) * 1.5)
    start = initial_extractor(gmm, ExtractorOptions(ivector_dim=ivector_dim, kaldi_compat=kaldi_compat))
    estimation = EstimationOptions(variance_floor_factor=1e-3, gaussian_min_count=1)
    with caplog.at_level(logging.INFO):
        result, number = train(utterances, start, estimation, TrainingOptions(num_iters=num_iters))
    assert number == num_utts
    return truth, result, [record.getMessage() for record in caplog.records]


def evidences(log):
    """ln p a frame before each iteration."""
    return [float(line.split("ln p ")[1].split()[3]) for line in log if line.startswith("iteration ")]


@pytest.mark.parametrize("kaldi_compat, ivector_dim", [(False, 2), (True, 3)])
def test_training_raises_the_evidence_and_finds_the_subspace(kaldi_compat, ivector_dim, caplog):
    """T4.2: ln p of the data never falls; and the model that drew the data is found."""
    truth, result, log = trained(kaldi_compat, ivector_dim, caplog=caplog)
    evidence = evidences(log)
    assert len(evidence) == 8 and evidence[-1] > evidence[0] + 0.5
    assert np.diff(evidence).min() >= 0  # to the six decimals of the log; train() checks 1e-9 of it
    means = result.centred().means
    np.testing.assert_allclose(means, truth.means, atol=0.5)  # 120 draws of w: the mean is known to 0.1 |T|
    t = result.t if not kaldi_compat else result.t[:, :, 1:]
    basis, _ = np.linalg.qr(truth.t.reshape(-1, 2))
    found, _ = np.linalg.qr(t.reshape(-1, 2))
    assert np.linalg.svd(basis.T @ found, compute_uv=False).min() > 0.98
    np.testing.assert_allclose(np.linalg.inv(result.sigma_inv), np.linalg.inv(truth.sigma_inv), atol=0.15)


def test_evidence_of_both_forms_approaches_that_of_the_truth(caplog):
    """Kaldi's model of one dimension more can do what the centred one does, and little else."""
    last = []
    for kaldi_compat, ivector_dim in ((False, 2), (True, 3)):
        caplog.clear()
        log = trained(kaldi_compat, ivector_dim, num_iters=12, caplog=caplog)[2]
        last.append(evidences(log)[-1])
    assert len(last) == 2
    assert 0 <= last[1] - last[0] < 0.03


def test_fall_of_the_evidence_is_an_error_unless_variances_were_floored(caplog):
    check = EvidenceCheck(10, 1000.0)
    check.add(1, -5000.0)
    check.add(2, -5000.0 * (1 + 1e-12))
    check.num_floored = 3
    with caplog.at_level(logging.WARNING):
        check.add(3, -5001.0)
    assert "3 eigenvalues" in caplog.text
    check.num_floored = 0
    with pytest.raises(VoxarkError, match="ln p fell from -5001 to -5002 at iteration 4"):
        check.add(4, -5002.0)
    with pytest.raises(VoxarkError, match="nan"):
        EvidenceCheck(10, 1000.0).add(1, float("nan"))


def test_sums_do_not_depend_on_the_slices_that_they_are_added_in(monkeypatch):
    model = random_model(3, ivector_dim=4)
    (n, f), scatter = statistics(model, *sample(model, 12, 30))
    whole = accumulate(model, [(n, f)], scatter)
    monkeypatch.setattr("voxark.ivector.e_step.SLICE_BYTES", 3 * 8 * C)  # of ten columns: 3, 3, 3, 1
    sliced = accumulate(model, [(n, f)], scatter)
    np.testing.assert_allclose(sliced.a, whole.a, rtol=1e-13)
    assert np.abs(whole.a).min(axis=0).all()  # each column has something that a lost slice would miss


def test_a_large_model_takes_more_utterances_at_a_time():
    # Each block reads all quadratic terms: 1.3 GB of them for ten utterances were most of the work.
    class Shape:
        t, num_gauss = np.broadcast_to(0.0, (2048, 60, 400)), 2048

    x, post = np.zeros((1000, 60), np.float32), soft_posteriors(np.random.default_rng(0), 1000, 4)
    blocks = Blocks(((f"u{i}", x, post, 1.0) for i in range(60)), Shape)
    keys, n, f = next(iter(blocks))
    assert 20 <= len(keys) == len(n) <= 40
    assert block_bytes(64, 50) == block_bytes(512, 100) == BLOCK_BYTES


def test_memory_is_said_and_bounded(caplog):
    with caplog.at_level(logging.INFO):
        left = plan_memory((2048, 60, 400), 5000.0)
    assert 0 < left < 1e9 and "--max-memory=5000" in caplog.text and "999.4 kB an utterance" in caplog.text
    with pytest.raises(VoxarkError, match="raise it"):
        plan_memory((2048, 60, 400), 1000.0)


def test_training_on_nothing_is_refused():
    with pytest.raises(VoxarkError, match="no utterance"):
        train([], random_model(), EstimationOptions(), TrainingOptions(num_iters=1))


def test_start_depends_on_the_seed_only():
    rng = np.random.default_rng(0)
    gmm = FullGmm(np.full(C, 1 / C), np.arange(C * D).reshape(C, D), covariances(rng, C, D))
    one, same, other = (initial_extractor(gmm, ExtractorOptions(ivector_dim=R, srand=i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one.t, same.t)
    assert not np.isclose(one.t, other.t).any()
    np.testing.assert_array_equal(one.means, gmm.means)
    kaldi = initial_extractor(gmm, ExtractorOptions(ivector_dim=R, kaldi_compat=True))
    assert kaldi.offset == 100.0
    np.testing.assert_allclose(kaldi.centred().means, gmm.means, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- Kaldi's form


def kaldi_ivectors(params, n, f):
    """What Kaldi's ivector-extract computes from a file's fields, spelled out: no mean, an offset [K]."""
    dim, ivector_dim = params.m.shape[1:]
    result = []
    for n_u, f_u in zip(n, f):
        linear, quadratic = np.zeros(ivector_dim), np.eye(ivector_dim)
        linear[0] = params.offset
        for c, m in enumerate(params.m):
            sigma_inv = unpack_lower(params.sigma_inv[c], dim)
            linear += m.T @ sigma_inv @ f_u[c]
            quadratic += n_u[c] * (m.T @ sigma_inv @ m)
        ivector = np.linalg.inv(quadratic) @ linear
        ivector[0] -= params.offset
        result.append(ivector)
    return np.array(result)


def test_kaldis_form_and_the_centred_form_are_the_same_model():
    """T4.4, from Kaldi's form: same i-vectors, same evidence."""
    model = random_model(30, ivector_dim=4, offset=57.0)
    features, posteriors = sample(model, 5, 30)
    (n, f), scatter = statistics(model, features, posteriors)
    expected = kaldi_ivectors(model.to_params(), n, f)
    centred = model.centred()
    assert centred.is_centred and not model.is_centred
    np.testing.assert_allclose(EStep(model).means(n, f), expected, atol=1e-8)
    np.testing.assert_allclose(EStep(centred).means(n, f), expected, atol=1e-8)
    evidence = [accumulate(m, [(n, f)], scatter).log_evidence for m in (model, centred)]
    assert evidence[0] == pytest.approx(evidence[1], rel=1e-10)


@pytest.mark.parametrize("num_frames", [20, 20000])
def test_kaldi_gives_our_ivectors_of_a_centred_model_behind_a_zero(num_frames):
    """T4.4, to Kaldi's form: the file of a centred model, through Kaldi's formulas."""
    model = random_model(31, ivector_dim=3)
    features, posteriors = sample(model, 4, num_frames)
    (n, f), _ = statistics(model, features, posteriors)
    params = model.to_params()
    assert params.m.shape == (C, D, 4) and params.offset == CENTRED_OFFSET
    ivectors = kaldi_ivectors(params, n, f)
    np.testing.assert_allclose(ivectors[:, 0], 0, atol=1e-4)
    np.testing.assert_allclose(ivectors[:, 1:], EStep(model).means(n, f), atol=1e-6)


def test_a_centred_model_survives_its_file():
    model = random_model(32, ivector_dim=3)
    again = IvectorExtractor.from_params(model.to_params())
    assert again.is_centred
    for name in ("weights", "means", "t"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    np.testing.assert_array_equal(pack_lower(again.sigma_inv), pack_lower(model.sigma_inv))


def test_files_that_cannot_be_used_are_refused():
    params = random_model(33, offset=100.0).to_params()
    for change, message in (
        ({"w": np.zeros((C, R))}, "use-weights=false"),
        ({"w_vec": np.ones(C + 1)}, "shapes disagree"),
        ({"m": np.full_like(params.m, np.nan)}, "not finite in m"),
        ({"offset": np.inf}, "not finite in offset"),
        ({"sigma_inv": -params.sigma_inv}, "component . is not positive definite"),
    ):
        with pytest.raises(VoxarkError, match=message):
            IvectorExtractor.from_params(params._replace(**change))


# ---------------------------------------------------------------------------------------------- golden files


def golden_case():
    """Features and posteriors of the golden files, 8 Gaussians, 20 dimensions: keys, n, f, Scatter."""
    posts = dict(tables.open_reader("post-arrays", f"ark:{golden('model/post.ark')}"))
    feats = dict(tables.open_reader("mat", f"ark:{golden('model/feats.ark')}"))
    scatter = Scatter.zeros(8, 20)
    n, f = baum_welch(list(feats.values()), [posts[key] for key in feats], 8, None, scatter)
    return list(feats), n, f, scatter


def golden_extractor(name):
    return IvectorExtractor.from_params(tables.read_object("ivector-extractor", str(golden(f"model/{name}"))))


@needs_golden
def test_statistics_of_kaldi():
    """iv.0.acc; <R> is float32 in Kaldi's file. The log says -73.5626 for the evidence of a frame."""
    _, n, f, scatter = golden_case()
    stats = accumulate(golden_extractor("iv.0.ie"), [(n, f)], scatter)
    theirs = tables.read_object("ivector-stats", str(golden("model/iv.0.acc")))
    for name, mine in stats.to_params()._asdict().items():
        tolerance = 1e-6 if name == "r" else 1e-9
        np.testing.assert_allclose(mine, getattr(theirs, name), rtol=tolerance, atol=1e-6)
    assert stats.log_evidence / stats.n.sum() == pytest.approx(-73.5626, abs=5e-5)


def same_up_to_signs(mine, theirs, tolerance):
    """Compare extractors; the signs of all dimensions but the first are free."""
    signs = np.sign(np.sum(mine.t * theirs.t, axis=(0, 1)))
    assert signs[0] == 1
    assert np.abs(mine.t * signs - theirs.t).max() < tolerance * np.abs(theirs.t).max()
    assert np.abs(mine.sigma_inv - theirs.sigma_inv).max() < tolerance * np.abs(theirs.sigma_inv).max()
    assert mine.offset == pytest.approx(theirs.offset, rel=tolerance)


@needs_golden
def test_estimate_of_kaldi():
    """iv.1.ie from iv.0.ie: from Kaldi's accumulator, and from the features. Kaldi floored 19 eigenvalues."""
    start, theirs = golden_extractor("iv.0.ie"), golden_extractor("iv.1.ie")
    options = EstimationOptions(gaussian_min_count=20)
    stats = IvectorStats.from_params(tables.read_object("ivector-stats", str(golden("model/iv.0.acc"))))
    mine, num_floored = m_step(start, stats, options)
    assert num_floored == 19
    same_up_to_signs(mine, theirs, 1e-9)
    _, n, f, scatter = golden_case()
    mine, _ = m_step(start, accumulate(start, [(n, f)], scatter), options)
    same_up_to_signs(mine, theirs, 1e-5)


@needs_golden
def test_ivectors_of_kaldi():
    """ivectors.ark, float32, from iv.1.ie in Kaldi's form and in the centred one."""
    keys, n, f, _ = golden_case()
    theirs = dict(tables.open_reader("vec", f"ark:{golden('model/ivectors.ark')}"))
    expected = np.array([theirs[key] for key in keys])
    model = golden_extractor("iv.1.ie")
    for form in (model, model.centred()):
        np.testing.assert_allclose(EStep(form).means(n, f), expected, atol=2e-6)


@needs_golden
def test_start_of_kaldi():
    """iv.0.ie is the full GMM's: mean over 100 in the first column, its weights and inverse covariances."""
    gmm = FullGmm.from_params(tables.read_object("full-gmm", str(golden("model/full.1.gmm"))))
    mine = initial_extractor(gmm, ExtractorOptions(ivector_dim=5, kaldi_compat=True)).to_params()
    theirs = tables.read_object("ivector-extractor", str(golden("model/iv.0.ie")))
    assert isinstance(theirs, IvectorExtractorParams) and mine.m.shape == theirs.m.shape
    assert mine.offset == theirs.offset
    np.testing.assert_allclose(mine.w_vec, theirs.w_vec, rtol=1e-6)
    np.testing.assert_allclose(mine.m[:, :, 0], theirs.m[:, :, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mine.sigma_inv, theirs.sigma_inv, rtol=1e-3, atol=1e-5)
    assert abs(theirs.m[:, :, 1:].std() - mine.m[:, :, 1:].std()) < 0.15  # standard normal, both
