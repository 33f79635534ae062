"""PLDA against Kaldi's files, brute-force joint Gaussians, and the formulas written out as loops."""

import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark, write_lines
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from voxark import tables
from voxark.backend.class_stats import ClassStats, accumulate
from voxark.backend.plda import Plda, PldaScoringOptions
from voxark.backend.plda_em import (
    PldaTrainingOptions,
    SpeakerGroups,
    TwoCovariance,
    e_step,
    m_step,
    start_kaldi,
    start_moments,
    train_plda,
)
from voxark.errors import VoxarkError


def random_model(dim=3, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, dim, dim + 2))
    return TwoCovariance(rng.standard_normal(dim), a @ a.T / dim, b @ b.T / dim)


def sample(model, counts, seed=0):
    """Vectors (N,D) and labels drawn from a TwoCovariance."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    z = rng.multivariate_normal(model.mean, model.between, len(counts))
    return z[labels] + rng.multivariate_normal(np.zeros(len(model.mean)), model.within, len(labels)), labels


def joint(model, n):
    """Mean and covariance of n stacked vectors of one speaker."""
    covariance = np.kron(np.eye(n), model.within) + np.kron(np.ones((n, n)), model.between)
    return np.tile(model.mean, n), covariance


def log_density(model, x):
    """ln p of the vectors x (n,D) of one speaker, by the joint Gaussian."""
    mean, covariance = joint(model, len(x))
    return multivariate_normal.logpdf(x.ravel(), mean, covariance)


# ---------------------------------------------------------------------------------------------- Kaldi's files


@needs_golden
def test_kaldi_compat_gives_kaldis_model(tmp_path):
    run(
        "train-plda",
        "--kaldi-compat",
        f"ark:{golden('model/train.spk2utt')}",
        f"ark:{golden('model/dvec_train.norm.ark')}",
        tmp_path / "plda",
    )
    ours = tables.read_object("plda", str(tmp_path / "plda"))
    kaldi = tables.read_object("plda", str(golden("model/plda")))
    np.testing.assert_allclose(ours.psi, kaldi.psi, rtol=1e-11)
    np.testing.assert_allclose(ours.mean, kaldi.mean, atol=1e-13)
    signs = np.sign(np.sum(ours.transform * kaldi.transform, axis=1))
    np.testing.assert_allclose(ours.transform * signs[:, None], kaldi.transform, atol=1e-11)


@needs_golden
def test_smoothing_is_kaldis():
    smoothed = Plda.from_params(tables.read_object("plda", str(golden("model/plda")))).smoothed(0.1)
    kaldi = tables.read_object("plda", str(golden("model/plda_smooth.txt")))
    np.testing.assert_allclose(smoothed.psi, kaldi.psi, rtol=1e-6)
    np.testing.assert_allclose(smoothed.transform, kaldi.transform, rtol=1e-6, atol=1e-7)


@needs_golden
def test_default_and_kaldis_estimator_agree_where_all_counts_are_equal(tmp_path):
    arguments = f"ark:{golden('model/train.spk2utt')}", f"ark:{golden('model/dvec_train.norm.ark')}"
    run("train-plda", *arguments, tmp_path / "ours")
    ours, kaldi = (
        tables.read_object("plda", str(name)) for name in (tmp_path / "ours", golden("model/plda"))
    )
    np.testing.assert_allclose(ours.psi, kaldi.psi, rtol=1e-6)


# ------------------------------------------------------------------------------------------- the model's form


def test_diagonalises_both_covariances():
    model = random_model(5)
    plda = Plda.from_covariances(*model)
    np.testing.assert_allclose(plda.transform @ model.within @ plda.transform.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(
        plda.transform @ model.between @ plda.transform.T, np.diag(plda.psi), atol=1e-12
    )
    assert (np.diff(plda.psi) <= 0).all()
    within, between = plda.covariances()
    np.testing.assert_allclose(within, model.within, atol=1e-12)
    np.testing.assert_allclose(between, model.between, atol=1e-12)


def test_smoothing_adds_to_the_within_covariance():
    model = random_model(4)
    within, between = Plda.from_covariances(*model).smoothed(0.3).covariances()
    np.testing.assert_allclose(within, model.within + 0.3 * model.between, atol=1e-12)
    np.testing.assert_allclose(between, model.between, atol=1e-12)


def test_parameters_go_to_a_file_and_back(tmp_path):
    plda = Plda.from_covariances(*random_model(4))
    for binary in (True, False):
        tables.write_object("plda", str(tmp_path / "p"), plda.to_params(), binary=binary)
        back = Plda.from_params(tables.read_object("plda", str(tmp_path / "p")))
        np.testing.assert_allclose(
            back.transform, plda.transform, rtol=0 if binary else 1e-6, atol=0 if binary else 1e-6
        )


def test_models_that_are_none_are_refused():
    with pytest.raises(VoxarkError, match="not positive definite .smallest eigenvalue -1"):
        Plda.from_covariances(np.zeros(2), np.diag([1.0, -1.0]), np.eye(2))
    plda = Plda.from_covariances(*random_model(2))
    with pytest.raises(VoxarkError, match="not finite"):
        Plda.from_params(plda.to_params()._replace(mean=np.array([0.0, np.nan])))
    with pytest.raises(VoxarkError, match="negative"):
        Plda.from_params(plda.to_params()._replace(psi=np.array([1.0, -0.1])))
    with pytest.raises(VoxarkError, match="dimension 3, the PLDA model 2"):
        plda.project(np.zeros((1, 3)))
    with pytest.raises(VoxarkError, match="--smoothing=2"):
        plda.smoothed(2.0)


@pytest.mark.parametrize("simple", [False, True])
def test_length_normalisation_by_its_definition(simple):
    plda = Plda.from_covariances(*random_model(4))
    x = np.random.default_rng(0).standard_normal((5, 4))
    counts = np.array([1, 2, 3, 4, 5])
    u = plda.transform_vectors(x, counts, PldaScoringOptions(simple_length_normalization=simple))
    for row, n, vector in zip(u, counts, x):
        raw = plda.transform @ (vector - plda.mean)
        factor = (
            np.sqrt(4) / np.linalg.norm(raw) if simple else np.sqrt(4 / np.sum(raw**2 / (plda.psi + 1 / n)))
        )
        np.testing.assert_allclose(row, raw * factor, rtol=1e-12)


def test_a_zero_vector_keeps_its_length():
    plda = Plda.from_covariances(*random_model(4))
    assert (plda.transform_vectors(plda.mean[None]) == 0).all()


# ------------------------------------------------------------------------------------------ likelihood ratios


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_llr_is_that_of_the_joint_gaussians(n, m):
    model = random_model(3, seed=n)
    plda = Plda.from_covariances(*model)
    x = np.random.default_rng(m).standard_normal((n + m, 3)) * 2
    expected = log_density(model, x) - log_density(model, x[:n]) - log_density(model, x[n:])
    e, t = plda.project(x[:n]).mean(axis=0), plda.project(x[n:]).mean(axis=0)
    cross, row, column, constant = plda.llr_terms(n, m)
    assert np.sum(cross * e * t + row * e**2 + column * t**2) + constant == pytest.approx(expected, rel=1e-9)


def test_matrix_of_scores_equals_a_loop_over_pairs_and_counts():
    plda = Plda.from_covariances(*random_model(5))
    rng = np.random.default_rng(0)
    enroll, test, n = (
        rng.standard_normal((7, 5)),
        rng.standard_normal((4, 5)),
        np.array([3, 1, 1, 2, 3, 8, 1]),
    )

    def ell(count, total):
        return np.sum(
            -0.5 * np.log(1 + count * plda.psi) + 0.5 * plda.psi * total**2 / (1 + count * plda.psi)
        )

    loop = [[ell(k + 1, k * e + t) - ell(k, k * e) - ell(1, t) for t in test] for k, e in zip(n, enroll)]
    np.testing.assert_allclose(plda.llr(enroll, test, n), loop, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        plda.llr(enroll[2:4], test, 2), plda.llr(enroll, test, np.full(7, 2))[2:4], rtol=1e-12
    )


def test_one_against_one_is_symmetric_and_the_quadratic_form():
    model = random_model(4)
    plda = Plda.from_covariances(*model)
    x = np.random.default_rng(0).standard_normal((6, 4))
    scores = plda.llr(plda.project(x), plda.project(x))
    np.testing.assert_allclose(scores, scores.T, rtol=1e-10)
    total = model.within + model.between
    rest = total - model.between @ np.linalg.solve(total, model.between)
    p = np.linalg.solve(total, model.between) @ np.linalg.inv(rest)
    q = np.linalg.inv(total) - np.linalg.inv(rest)
    centred = x - model.mean
    quadratic = 0.5 * np.einsum("id,de,ie->i", centred, q, centred)
    expected = (
        quadratic[:, None]
        + quadratic
        + centred @ p @ centred.T
        + 0.5 * (np.linalg.slogdet(total)[1] - np.linalg.slogdet(rest)[1])
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-10)


def test_llr_of_the_true_model_is_calibrated():
    from voxark.metrics import Roc

    psi, num = np.array([0.5, 0.4, 0.3, 0.2, 0.1]), 40000
    plda = Plda(np.zeros(5), np.eye(5), psi)
    rng = np.random.default_rng(0)

    def draw(same):  # independent trials, so that the standard errors below hold
        z = rng.standard_normal((num, 5)) * np.sqrt(psi)
        y = z if same else rng.standard_normal((num, 5)) * np.sqrt(psi)
        cross, row, column, constant = plda.llr_terms(1)
        e, t = z + rng.standard_normal((num, 5)), y + rng.standard_normal((num, 5))
        return (cross * e * t + row * e**2 + column * t**2).sum(axis=1) + constant

    tar, non = draw(True), draw(False)
    assert np.exp(-tar).mean() == pytest.approx(1, abs=3 * np.exp(-tar).std() / np.sqrt(num))
    design = np.column_stack((np.concatenate((tar, non)), np.ones(2 * num)))
    truth, weights = np.repeat([1.0, 0.0], num), np.zeros(2)
    for _ in range(20):  # logistic regression by Newton's method
        p = 1 / (1 + np.exp(-design @ weights))
        information = (design * (p * (1 - p))[:, None]).T @ design
        weights += np.linalg.solve(information, design.T @ (truth - p))
    errors = np.sqrt(np.linalg.inv(information).diagonal())
    assert (np.abs(weights - [1, 0]) < 3 * errors).all()
    roc = Roc(tar, non)
    assert 0 <= roc.cllr() - roc.min_cllr() < 0.01


# ------------------------------------------------------------------------------------------ statistics and EM


def test_statistics_equal_a_loop_over_speakers():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(9), rng.integers(1, 6, 9)))
    x = (rng.standard_normal((len(labels), 4)) + 1000).astype(np.float32)
    stats = accumulate(x, labels)
    scatter = np.zeros((4, 4))
    for s in range(9):
        mine = x[labels == s].astype(np.float64)
        assert stats.counts[s] == len(mine)
        np.testing.assert_allclose(stats.means[s], mine.mean(axis=0), rtol=1e-12)
        scatter += (mine - mine.mean(axis=0)).T @ (mine - mine.mean(axis=0))
    np.testing.assert_allclose(stats.scatter, scatter, rtol=1e-9, atol=1e-9)


def test_likelihood_is_that_of_the_joint_gaussians():
    model = random_model(3)
    x, labels = sample(random_model(3, seed=5), [1, 2, 4, 1, 3, 2])
    expected = sum(log_density(model, x[labels == s]) for s in range(6))
    assert e_step(SpeakerGroups.of(accumulate(x, labels)), model).log_likelihood == pytest.approx(
        expected, rel=1e-10
    )


@pytest.mark.parametrize("fixed_mean", [False, True])
def test_an_iteration_equals_the_formulas_with_inverses(fixed_mean):
    model = random_model(3)
    x, labels = sample(random_model(3, seed=5), [1, 2, 4, 1, 3, 2])
    stats = accumulate(x, labels)
    z, covariances = [], []
    for n, mean in zip(stats.counts, stats.means):
        c = np.linalg.inv(np.linalg.inv(model.between) + n * np.linalg.inv(model.within))
        z.append(c @ (np.linalg.solve(model.between, model.mean) + n * np.linalg.solve(model.within, mean)))
        covariances.append(c)
    mu = model.mean if fixed_mean else np.mean(z, axis=0)
    between = np.mean([c + np.outer(zs - mu, zs - mu) for c, zs in zip(covariances, z)], axis=0)
    within = stats.scatter + sum(
        n * (c + np.outer(xs - zs, xs - zs))
        for n, c, xs, zs in zip(stats.counts, covariances, stats.means, z)
    )
    groups = SpeakerGroups.of(stats)
    updated = m_step(groups, model, e_step(groups, model), fixed_mean)
    np.testing.assert_allclose(updated.mean, mu, rtol=1e-9)
    np.testing.assert_allclose(updated.between, between, rtol=1e-9)
    np.testing.assert_allclose(updated.within, within / stats.num_vectors, rtol=1e-9)


@given(
    counts=st.lists(st.integers(1, 6), min_size=3, max_size=20),
    seed=st.integers(0, 1000),
    kaldi=st.booleans(),
)
def test_likelihood_never_falls(counts, seed, kaldi):
    counts = counts + [5, 4]  # enough degrees of freedom within speakers
    stats = accumulate(*sample(random_model(3, seed), counts, seed))
    model = start_kaldi(stats) if kaldi else start_moments(stats)
    previous, groups = -np.inf, SpeakerGroups.of(stats)
    for _ in range(8):
        expectations = e_step(groups, model)
        assert expectations.log_likelihood >= previous - 1e-9 * abs(previous)
        previous, model = expectations.log_likelihood, m_step(groups, model, expectations, kaldi)


@pytest.mark.parametrize("kaldi", [False, True])
def test_terms_of_em_are_those_of_the_definitions(kaldi):
    # Q, H and KL of each speaker by matrices and scipy's densities, for the model after the M-step
    from voxark.backend.plda_report import em_terms

    x, labels = sample(random_model(3, seed=5), [1, 2, 4, 1, 3, 2, 2, 2, 2, 2, 2])
    stats = accumulate(x, labels)
    groups = SpeakerGroups.of(stats)
    assert len(groups.rows) < stats.num_classes  # the speakers with two vectors are more than the dimensions
    old = random_model(3)
    before = e_step(groups, old)
    new = m_step(groups, old, before, kaldi)
    after = e_step(groups, new)

    def posterior(model, mine):
        precision = np.linalg.inv(model.between) + len(mine) * np.linalg.inv(model.within)
        c = np.linalg.inv(precision)
        return c @ (
            np.linalg.solve(model.between, model.mean) + np.linalg.solve(model.within, mine.sum(axis=0))
        ), c

    for model, expectations in ((old, before), (new, after)):
        q = h = kl = 0.0
        for s in range(stats.num_classes):
            mine = x[labels == s]
            (a, big_a), (b, big_b) = posterior(old, mine), posterior(model, mine)
            precision = np.linalg.inv(model.within)
            q += multivariate_normal.logpdf(a, model.mean, model.between)
            q -= 0.5 * np.trace(np.linalg.solve(model.between, big_a))
            q += multivariate_normal.logpdf(mine, a, model.within).sum() - 0.5 * len(mine) * np.trace(
                precision @ big_a
            )
            h += multivariate_normal.entropy(a, big_a)
            ratio = np.linalg.solve(big_b, big_a)
            kl += 0.5 * (
                np.trace(ratio) - 3 - np.linalg.slogdet(ratio)[1] + (a - b) @ np.linalg.solve(big_b, a - b)
            )
        terms = em_terms(groups, old, before, model, expectations)
        assert terms.q == pytest.approx(q, rel=1e-10) and terms.h == pytest.approx(h, rel=1e-10)
        assert terms.kl == pytest.approx(kl, rel=1e-8, abs=1e-9)
        log_p = sum(log_density(model, x[labels == s]) for s in range(stats.num_classes))
        assert terms.log_likelihood == pytest.approx(log_p, rel=1e-10)
        assert abs(terms.gap) < 1e-9 * abs(log_p)
    assert terms.kl > 0.01


def test_terms_are_refused_where_they_are_infinite():
    from voxark.backend.plda_report import em_terms

    groups = SpeakerGroups.of(accumulate(*sample(random_model(2), [3] * 5)))
    flat = TwoCovariance(np.zeros(2), np.eye(2), np.diag([1.0, 0.0]))
    expectations = e_step(groups, flat)
    with pytest.raises(VoxarkError, match="lost rank"):
        em_terms(groups, flat, expectations, flat, expectations)


def test_equal_counts_start_at_the_answer():
    stats = accumulate(*sample(random_model(3), [6] * 200))
    start = start_moments(stats)
    groups = SpeakerGroups.of(stats)
    after = m_step(groups, start, e_step(groups, start))
    for before, then in zip(start, after):
        np.testing.assert_allclose(then, before, rtol=1e-9, atol=1e-12)


def test_the_mean_is_the_maximum_likelihood_one():
    stats = accumulate(*sample(random_model(3), [1] * 20 + [10] * 20 + [40] * 20))
    plda = train_plda(stats, PldaTrainingOptions(num_em_iters=300))
    within, between = plda.covariances()
    precisions = [np.linalg.inv(between + within / n) for n in stats.counts]
    expected = np.linalg.solve(sum(precisions), sum(p @ m for p, m in zip(precisions, stats.means)))
    np.testing.assert_allclose(plda.mean, expected, rtol=1e-6)
    kaldi = train_plda(stats, PldaTrainingOptions(kaldi_compat=True))
    np.testing.assert_allclose(kaldi.mean, stats.means.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("kaldi", [False, True])
def test_simulated_parameters_are_recovered(kaldi):
    # 500 speakers seen without noise give a covariance C to sqrt((1 + tr(C)^2/|C|^2)/500), 15 % where all ten
    # variances are equal: the spectra fall, so that this bound is 7 %
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 10)))[0]
    within, between = (
        (rotation * spectrum) @ rotation.T for spectrum in (0.7 ** np.arange(10), 3 * 0.25 ** np.arange(10))
    )
    model = TwoCovariance(np.arange(10.0), within, between)
    counts = np.random.default_rng(1).integers(1, 11, 500)
    plda = train_plda(accumulate(*sample(model, counts, seed=2)), PldaTrainingOptions(kaldi_compat=kaldi))
    for estimate, truth in zip(plda.covariances(), (within, between)):
        assert np.linalg.norm(estimate - truth) < 0.1 * np.linalg.norm(truth)
    assert np.linalg.norm(plda.mean - model.mean) < 0.2


def test_scores_do_not_change_under_an_affine_map_and_a_new_training():
    rng = np.random.default_rng(0)
    x, labels = sample(random_model(4), rng.integers(1, 8, 60))
    probes, _ = sample(random_model(4), [3] * 5, seed=9)
    a, b = rng.standard_normal((4, 4)) * [1, 10, 100, 0.01], rng.standard_normal(4)
    scores = []
    for mapped, mapped_probes in ((x, probes), (x @ a + b, probes @ a + b)):
        plda = train_plda(accumulate(mapped, labels))
        u = plda.transform_vectors(mapped_probes)
        scores.append(plda.llr(u, u, 3))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-7, atol=1e-8)


def test_shrinkage_acts_on_the_scatter_and_ends_at_a_multiple_of_the_identity():
    stats = accumulate(*sample(random_model(4), [5] * 300))
    within = train_plda(stats, PldaTrainingOptions(shrinkage=1.0)).covariances()[0]
    np.testing.assert_allclose(within, np.eye(4) * np.trace(stats.scatter) / 4 / 1200, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "counts, message",
    [
        ([2, 2, 1], "fewer vectors (5) than dimensions (6)"),
        ([2] * 5, "10 vectors of 5 speakers leave 5 degrees of freedom"),
        ([1] * 20, "no speaker has two vectors (20 speakers)"),
        ([20], "one speaker only"),
    ],
)
def test_refuses_data_that_cannot_support_the_model(counts, message):
    labels = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(0).standard_normal((len(labels), 6))
    for kaldi in (False, True):
        with pytest.raises(VoxarkError) as error:
            train_plda(accumulate(x, labels), PldaTrainingOptions(kaldi_compat=kaldi))
        assert message in str(error.value)


def test_refuses_vectors_without_full_rank_whatever_their_scale():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    x = rng.standard_normal((100, 4)) * [1, 1e-8, 1e8, 1]
    train_plda(accumulate(x, labels))  # badly scaled, not singular
    x[:, 3] = x[:, 0] - 2 * x[:, 1]  # of which x[:, 1] is beyond float64's digits
    with pytest.raises(
        VoxarkError, match="has rank 3 of 4.*dimension 0, 3: use --dim=3 or less, or --shrinkage"
    ):
        train_plda(accumulate(x, labels))
    x = rng.standard_normal((100, 7))
    x[:, 5] = x[:, 2] + 3 * x[:, 6]
    with pytest.raises(VoxarkError, match="has rank 6 of 7.*dimension 5, 6, 2: use --dim=6 or less"):
        train_plda(accumulate(x, labels))
    x = np.column_stack((rng.standard_normal((100, 3)), labels))
    alone = "1 of 4 dimensions do not vary within speakers .dimension 3.: leave them out, or use --shrinkage"
    with pytest.raises(VoxarkError, match=alone):  # --dim would keep that dimension, so it is no way out
        train_plda(accumulate(x, labels))
    assert train_plda(accumulate(x, labels), PldaTrainingOptions(shrinkage=0.1)).psi[0] > 1


def test_refuses_identical_vectors_and_bad_options():
    same = ClassStats(np.array([2, 2]), np.eye(2), np.zeros((2, 2)))
    with pytest.raises(VoxarkError, match="identical"):
        train_plda(same)
    with pytest.raises(VoxarkError, match="--num-em-iters"):
        train_plda(same, PldaTrainingOptions(num_em_iters=-1))
    with pytest.raises(VoxarkError, match="--shrinkage"):
        train_plda(same, PldaTrainingOptions(shrinkage=-0.1))


def test_training_on_principal_directions(tmp_path):
    # what --dim promises: the model of the vectors that the written matrix transforms
    rng = np.random.default_rng(0)
    x, labels = sample(random_model(3), [4] * 9)
    x = (x @ rng.standard_normal((3, 5))).astype(np.float32) + 1e-7 * rng.standard_normal((36, 5)).astype(
        np.float32
    )
    lines = [f"s{s} " + " ".join(f"u{i:02d}" for i in np.flatnonzero(labels == s)) for s in range(9)]
    spk2utt = write_lines(tmp_path / "spk2utt", *lines)
    vectors = save_ark(tmp_path / "v.ark", {f"u{i:02d}": row for i, row in enumerate(x)})
    done = run("train-plda", spk2utt, vectors, tmp_path / "plda", check=False)
    assert done.returncode == 1 and "use --dim=3 or less, or --shrinkage" in done.stderr
    run("train-plda", "--shrinkage=0.1", spk2utt, vectors, tmp_path / "plda")
    assert tables.read_object("plda", str(tmp_path / "plda")).transform.shape == (5, 5)
    run("train-plda", "--dim=3", f"--write-transform={tmp_path}/a", spk2utt, vectors, tmp_path / "plda3")
    matrix = tables.read_object("mat", str(tmp_path / "a"))
    _, _, principal = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(matrix * principal[:3], axis=1)), 1, atol=1e-5)
    ours = Plda.from_params(tables.read_object("plda", str(tmp_path / "plda3")))
    expected = train_plda(accumulate(x @ matrix.T, labels))
    np.testing.assert_allclose(ours.psi, expected.psi, rtol=1e-6)
    for arguments, message in (
        (["--dim=3"], "--dim=3 needs --write-transform"),
        (["--write-transform=x"], "--write-transform needs --dim"),
        (["--dim=6", f"--write-transform={tmp_path}/b"], "--dim=6: the vectors have dimension 5"),
    ):
        done = run("train-plda", *arguments, spk2utt, vectors, tmp_path / "no", check=False)
        assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "no").exists() and not (tmp_path / "b").exists()


def test_program_reports_the_terms_of_em(tmp_path):
    _, _, lines = write_inputs(tmp_path)
    arguments = write_lines(tmp_path / "spk2utt", *lines), f"ark:{tmp_path}/vec.ark", tmp_path / "plda"
    done = run("train-plda", "--num-em-iters=3", f"--report-file={tmp_path}/terms", *arguments)
    assert done.stderr.count("= Q ") == 6
    with_report = (tmp_path / "plda").read_bytes()
    rows = [line.split("\t") for line in (tmp_path / "terms").read_text().splitlines()]
    assert rows[0] == ["iteration", "step", "lnp", "Q", "H", "KL", "num"] and len(rows) == 7
    values = np.array([row[2:] for row in rows[1:]], float)
    log_p, q, h, kl, num = values.T
    np.testing.assert_allclose(log_p, q + h + kl, rtol=1e-9)
    assert (np.abs(kl[::2]) < 1e-8).all() and (kl[1::2] > 0).all() and (num == 24).all()
    assert (q[1::2] >= q[::2]).all() and (np.diff(log_p) >= -1e-8).all()
    np.testing.assert_allclose(h[1::2], h[::2], rtol=1e-12)
    np.testing.assert_allclose(log_p[2::2], log_p[1:-1:2], rtol=1e-12)
    run("train-plda", "--num-em-iters=3", *arguments)
    assert (tmp_path / "plda").read_bytes() == with_report


def write_inputs(tmp_path, seed=0):
    x, labels = sample(random_model(3), [4] * 6, seed)
    with tables.open_writer("vec", f"ark:{tmp_path}/vec.ark") as out:
        for i, vector in enumerate(x):
            out[f"u{i:02d}"] = vector.astype(np.float32)
    lines = [f"s{s} " + " ".join(f"u{i:02d}" for i in np.flatnonzero(labels == s)) for s in range(6)]
    return x.astype(np.float32), labels, lines


def test_program_logs_the_likelihood_and_counts(tmp_path):
    x, labels, lines = write_inputs(tmp_path)
    lines[2] += " absent"
    (tmp_path / "spk2utt").write_text("\n".join(lines) + "\n")
    done = run(
        "train-plda",
        "--num-em-iters=3",
        "--binary=false",
        f"ark:{tmp_path}/spk2utt",
        f"ark:{tmp_path}/vec.ark",
        tmp_path / "plda",
    )
    assert "done 24, failed 1" in done.stderr and "absent: utterance of s2 has no vector" in done.stderr
    assert done.stderr.count("ln p per vector") == 4
    assert (tmp_path / "plda").read_bytes().startswith(b"<Plda>  [ ")
    expected = train_plda(accumulate(x, labels), PldaTrainingOptions(num_em_iters=3))
    np.testing.assert_allclose(
        tables.read_object("plda", str(tmp_path / "plda")).psi, expected.psi, rtol=1e-6
    )


def test_program_refuses_in_one_line(tmp_path):
    _, _, lines = write_inputs(tmp_path)
    (tmp_path / "spk2utt").write_text("\n".join(lines) + "\ns9 u03\n")
    done = run(
        "train-plda", f"ark:{tmp_path}/spk2utt", f"ark:{tmp_path}/vec.ark", tmp_path / "plda", check=False
    )
    assert done.returncode == 1 and "utterance u03 belongs to s0 and to s9" in done.stderr
    (tmp_path / "spk2utt").write_text("".join(f"s{i} u{i:02d}\n" for i in range(24)))
    done = run(
        "train-plda", f"ark:{tmp_path}/spk2utt", f"ark:{tmp_path}/vec.ark", tmp_path / "plda", check=False
    )
    assert done.returncode == 1 and "ERROR (train-plda) no speaker has two vectors" in done.stderr
    assert not (tmp_path / "plda").exists()
