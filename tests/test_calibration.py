"""Logistic regression and PAV against scikit-learn, scipy, closed forms and data whose true LLR is known."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.calibration import model_file as calibration_file
from voxark.calibration.logistic import Objective, fit_logistic, log_odds, prior_weighted_loss, trial_weights
from voxark.calibration.model_file import CalibrationModel, QualityTerm, read_calibration, write_calibration
from voxark.calibration.cross_validation import cross_validate, partitions, speaker_groups
from voxark.metrics import Roc
from voxark.calibration.pav import PavMap, fit_pav
from voxark.trials.speakers import TrialSpeakers

PRIORS = [0.01, 0.5, 0.9]


def some_scores(seed=0, number=2000, columns=2):
    """Overlapping classes: columns (N,D), target (N,) and weights (N,)."""
    rng = np.random.default_rng(seed)
    target = rng.random(number) < 0.2
    x = (
        np.where(target, 1.0, -0.5)[:, None] * np.arange(1, columns + 1)
        + rng.standard_normal((number, columns)) * 2
    )
    return x, target, rng.uniform(0.1, 3.0, number)


def gaussian_llrs(rng, mean, number, target):
    """LLRs that are true: N(mean, 2 mean) of targets, N(-mean, 2 mean) of non-targets."""
    return np.where(target, mean, -mean) + np.sqrt(2 * mean) * rng.standard_normal(number)


def standard_errors(x, target, prior, fit):
    """Of weights and offset, by the sandwich of independent trials: H^-1 (sum v^2 r^2 x x') H^-1."""
    full = np.column_stack((x, np.ones(len(x))))
    shares = trial_weights(target, prior)
    posterior = 1 / (1 + np.exp(-(full @ np.append(fit.weights, fit.offset) + log_odds(prior))))
    hessian = (full * (shares * posterior * (1 - posterior))[:, None]).T @ full
    middle = full * (shares * (posterior - target))[:, None]
    inverse = np.linalg.inv(hessian)
    return np.sqrt(np.diag(inverse @ (middle.T @ middle) @ inverse))


# ---------------------------------------------------------------------------------------- logistic regression


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fit_is_scikit_learns(prior, weighted):
    from sklearn.linear_model import LogisticRegression

    x, target, weights = some_scores()
    weights = weights if weighted else None
    shares = trial_weights(target, prior, weights)
    peer = LogisticRegression(C=1e12, tol=1e-12, max_iter=2000, solver="newton-cholesky")
    peer.fit(x, target, sample_weight=shares * len(x))
    fit = fit_logistic(x, target, prior, weights)
    np.testing.assert_allclose(fit.weights, peer.coef_[0], rtol=1e-6)
    # its offset is of the posterior, ours of the LLR
    np.testing.assert_allclose(fit.offset + log_odds(prior), peer.intercept_[0], rtol=1e-6)
    assert fit.gradient < 1e-10 and fit.ridge == 0.0 and not fit.separable and not fit.collinear


@pytest.mark.parametrize("prior", PRIORS)
def test_the_minimum_is_scipys(prior):
    from scipy.optimize import minimize

    x, target, weights = some_scores(3)

    def loss(parameters):
        return prior_weighted_loss(x @ parameters[:-1] + parameters[-1], target, prior, weights)

    found = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    fit = fit_logistic(x, target, prior, weights)
    entropy = -(prior * np.log(prior) + (1 - prior) * np.log(1 - prior))
    assert fit.objective / entropy == pytest.approx(found.fun, rel=1e-10)
    np.testing.assert_allclose(np.append(fit.weights, fit.offset), found.x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_gradient_and_hessian_are_finite_differences(ridge):
    x, target, weights = some_scores(1, number=200, columns=3)
    objective = Objective(
        x, target, trial_weights(target, 0.1, weights), log_odds(0.1), x.mean(0), x.std(0), ridge
    )
    at, step = np.array([0.3, -0.7, 1.1, 0.2]), 1e-5
    _, gradient, hessian = objective(at)
    for place, move in enumerate(step * np.eye(4)):
        up, down = objective(at + move), objective(at - move)
        assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient[place], rel=1e-7, abs=1e-9)
        np.testing.assert_allclose((up[1] - down[1]) / (2 * step), hessian[place], rtol=1e-6, atol=1e-9)


def test_blocks_do_not_matter():
    x, target, weights = some_scores(2, number=40000)
    at = np.array([0.3, -0.7, 0.2])
    shares, z = trial_weights(target, 0.2, weights), x @ at[:2] + at[2] + log_odds(0.2)
    value, gradient, _ = Objective(x, target, shares, log_odds(0.2), np.zeros(2), np.ones(2))(at)
    assert value == pytest.approx(shares @ np.logaddexp(0, np.where(target, -z, z)), rel=1e-12)
    np.testing.assert_allclose(gradient[2], shares @ (1 / (1 + np.exp(-z)) - target), rtol=1e-10)


def test_extreme_scores_do_not_overflow():
    """One outlier of 1e6 must not stop the iteration."""
    x, target, _ = some_scores(4, columns=1)
    x[0, 0], target[0] = 1e6, True
    with np.errstate(all="raise", under="ignore"):
        fit = fit_logistic(x, target)
    assert fit.gradient < 1e-10 and fit.weights[0] > 0
    for size in (1e200, 1e-200):  # whose squares are no numbers, or zero: not to be taken for equal
        with pytest.raises(VoxarkError, match=re.escape(f"scores from 0 to {size:g} cannot be calibrated")):
            fit_logistic(size * np.array([1.0, 0.0, 0.5]), np.array([True, False, True]))
    constant = fit_logistic(np.full((3, 1), 1e200), np.array([True, False, True]))
    assert constant.constant.all() and constant.weights[0] == constant.offset == 0.0


@pytest.mark.parametrize("prior", PRIORS)
def test_loss_of_zeros_is_one_and_cllr_is_the_loss_at_one_half(prior):
    x, target, _ = some_scores()
    assert prior_weighted_loss(np.zeros(len(x)), target, prior) == pytest.approx(1.0, rel=1e-12)
    assert prior_weighted_loss(x[:, 0], target) == pytest.approx(
        Roc(x[target, 0], x[~target, 0]).cllr(), rel=1e-12
    )


@pytest.mark.parametrize("prior", PRIORS)
def test_gaussian_llrs_that_are_true_are_left_alone(prior):
    rng = np.random.default_rng(5)
    target = rng.random(20000) < 0.1
    llrs = gaussian_llrs(rng, 2.0, len(target), target)
    fit = fit_logistic(llrs, target, prior)
    errors = standard_errors(llrs[:, None], target, prior, fit)
    assert abs(fit.weights[0] - 1) < 3 * errors[0] and abs(fit.offset) < 3 * errors[1]
    assert errors.max() < 0.2


def test_llrs_of_the_true_plda_are_calibrated():
    """T3.6: on independent pairs of the model's own data, slope 1 and offset 0 within 3 standard errors."""
    from voxark.scoring.backends import plda_terms
    from voxark.backend.plda import PldaScoringOptions
    from voxark.scoring.enrolment import Enrolment

    rng, dim, number = np.random.default_rng(6), 6, 4000
    psi = np.linspace(0.5, 0.05, dim) * 4
    target = np.arange(number) < number // 2
    first = rng.standard_normal((number, dim)) * np.sqrt(psi)
    second = np.where(target[:, None], first, rng.standard_normal((number, dim)) * np.sqrt(psi))
    enroll, test = (means + rng.standard_normal((number, dim)) for means in (first, second))
    plda = Plda(np.zeros(dim), np.eye(dim), psi)
    terms = plda_terms(
        plda, Enrolment.of_vectors(enroll), test, "mean", PldaScoringOptions(normalize_length=False)
    )
    llrs = np.array([terms.dense(slice(p, p + 1))[0, p] for p in range(number)])
    fit = fit_logistic(llrs, target)
    errors = standard_errors(llrs[:, None], target, 0.5, fit)
    assert abs(fit.weights[0] - 1) < 3 * errors[0] and abs(fit.offset) < 3 * errors[1]
    roc = Roc(llrs[target], llrs[~target])
    assert roc.cllr() - roc.min_cllr() < 0.01


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_units_of_the_scores_do_not_matter(scale, shift, seed):
    x, target, _ = some_scores(seed, number=300, columns=1)
    plain, moved = fit_logistic(x, target, 0.1), fit_logistic(scale * x + shift, target, 0.1)
    llrs = x @ plain.weights + plain.offset
    np.testing.assert_allclose((scale * x + shift) @ moved.weights + moved.offset, llrs, atol=1e-6)


def test_units_do_not_matter_with_a_ridge():
    scores, target = np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True])
    plain, moved = fit_logistic(scores, target), fit_logistic(1000 * scores - 7, target)
    np.testing.assert_allclose(
        (1000 * scores - 7) * moved.weights[0] + moved.offset,
        scores * plain.weights[0] + plain.offset,
        rtol=1e-8,
    )


def test_fusion_with_noise_leaves_the_noise_out():
    rng = np.random.default_rng(7)
    target = rng.random(20000) < 0.3
    x = np.column_stack((gaussian_llrs(rng, 1.5, len(target), target), rng.standard_normal(len(target))))
    fit = fit_logistic(x, target)
    errors = standard_errors(x, target, 0.5, fit)
    assert abs(fit.weights[1]) < 3 * errors[1] and errors[1] < 0.05
    assert abs(fit.weights[0] - 1) < 3 * errors[0]


def test_fusion_of_independent_systems_adds_their_llrs():
    rng = np.random.default_rng(8)
    target = rng.random(20000) < 0.3
    x = np.column_stack([gaussian_llrs(rng, mean, len(target), target) for mean in (0.7, 1.5)])
    x[:, 1] = 3 * x[:, 1] - 2
    fit = fit_logistic(x, target)
    np.testing.assert_allclose(fit.weights, [1, 1 / 3], atol=0.08)


def test_fusion_with_itself_is_the_single_system():
    x, target, _ = some_scores(9, columns=1)
    single, twice = fit_logistic(x, target), fit_logistic(np.hstack((x, 2 * x + 1)), target)
    assert twice.collinear and twice.ridge == 1e-6 and not single.collinear
    np.testing.assert_allclose(
        np.hstack((x, 2 * x + 1)) @ twice.weights + twice.offset,
        x @ single.weights + single.offset,
        atol=1e-4,
    )


# ---------------------------------------------------------------------------------- where there is no minimum


@pytest.mark.parametrize(
    "scores, labels, separable",
    [
        ([0, 1, 2, 3], [0, 0, 1, 1], True),
        ([0, 1, 1, 2], [0, 0, 1, 1], True),  # a tie where the classes meet
        ([3, 2, 1, 0], [0, 0, 1, 1], True),  # distances
        ([0, 1, 1, 1, 2], [0, 0, 1, 0, 1], True),
        ([0, 2, 1, 3], [0, 0, 1, 1], False),
        ([0, 0, 1, 1], [0, 1, 0, 1], False),
    ],
)
def test_separable_scores_get_a_ridge(scores, labels, separable):
    target = np.array(labels, bool)
    fit = fit_logistic(np.array(scores, float), target)
    assert fit.separable is separable and fit.ridge == (1e-6 if separable else 0.0)
    assert np.isfinite(fit.weights).all() and np.isfinite(fit.offset) and fit.gradient < 1e-10
    assert fit.num_iters < 30  # rounding of the objective does not keep it from ending
    if separable:
        assert abs(fit.weights[0]) > 3 and np.sign(fit.weights[0]) == (-1 if scores[0] == 3 else 1)


@pytest.mark.parametrize("prior", PRIORS)
def test_separability_of_several_systems(prior):
    rng = np.random.default_rng(10)
    x = rng.standard_normal((300, 3))
    margin = x @ [1.0, 2.0, -1.0] + 0.3
    assert fit_logistic(x, margin > 0, prior).separable
    one_wrong = (margin > 0) & (np.arange(300) != np.argmax(margin))
    assert not fit_logistic(x, one_wrong, prior).separable
    # on the plane x1 = 0 both classes, elsewhere separated: the minimum is at infinity too
    on_plane = rng.standard_normal((100, 2)) * [0.0, 1.0]
    off_plane = rng.standard_normal((100, 2))
    both = np.vstack((on_plane, off_plane))
    target = np.concatenate((on_plane[:, 1] + rng.standard_normal(100) > 0, off_plane[:, 0] > 0))
    assert fit_logistic(both, target, prior).separable
    twice = fit_logistic(np.repeat(x, 2, axis=1), margin > 0, prior)
    assert twice.separable and twice.collinear
    assert not fit_logistic(np.repeat(x, 2, axis=1), one_wrong, prior).separable


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_separability_is_what_linear_programming_says(data):
    """w, b with y (w'x + b) >= 0 everywhere and not 0 everywhere (few values, so that ties abound)."""
    from scipy.optimize import linprog

    points = data.draw(st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=6, max_size=14))
    x, labels = np.array([p[:2] for p in points], float), np.array([p[2] > 0 for p in points])
    if labels.all() or not labels.any():
        return
    sign = np.where(labels, 1.0, -1.0)
    rows = sign[:, None] * np.column_stack((x, np.ones(len(x))))
    # in the span of what varies: maximise the sum of margins of a bounded direction
    best = linprog(-rows.sum(0), A_ub=-rows, b_ub=np.zeros(len(x)), bounds=[(-1, 1)] * 3)
    fit = fit_logistic(x, labels)
    varies = np.linalg.matrix_rank(np.column_stack((x, np.ones(len(x))))) == 3
    if varies:
        assert fit.separable is bool(-best.fun > 1e-9)
    assert np.isfinite(fit.weights).all() and fit.gradient < 1e-8


def test_constant_scores_give_llrs_of_zero():
    target = np.array([True, False, False, False])
    for prior in PRIORS:
        fit = fit_logistic(np.full(4, 7.0), target, prior)
        assert fit.constant.all() and fit.weights[0] == 0.0 and abs(fit.offset) < 1e-9
    x, target, _ = some_scores(11, columns=1)
    beside = fit_logistic(np.hstack((x, np.ones_like(x))), target)
    alone = fit_logistic(x, target)
    assert beside.constant.tolist() == [False, True] and beside.weights[1] == 0.0
    np.testing.assert_allclose(
        [beside.weights[0], beside.offset], [alone.weights[0], alone.offset], rtol=1e-9
    )


def test_one_target_is_enough():
    x, target, _ = some_scores(12, columns=1)
    target[:] = False
    target[np.argsort(x[:, 0])[len(x) // 2]] = True
    fit = fit_logistic(x, target)
    assert np.isfinite(fit.weights).all() and not fit.separable and fit.gradient < 1e-10


def test_what_cannot_be_trained_on_is_refused():
    x, target, weights = some_scores(13, columns=1)
    for bad in (np.nan, np.inf):
        with pytest.raises(VoxarkError, match="finite"):
            fit_logistic(np.where(np.arange(len(x)) == 3, bad, x[:, 0]), target)
    with pytest.raises(VoxarkError, match="no target"):
        fit_logistic(x, np.zeros(len(x), bool))
    with pytest.raises(VoxarkError, match="no nontarget"):
        fit_logistic(x, np.ones(len(x), bool))
    with pytest.raises(VoxarkError, match="no target trials with a weight"):
        fit_logistic(x, target, weights=np.where(target, 0.0, 1.0))
    with pytest.raises(VoxarkError, match="not negative"):
        fit_logistic(x, target, weights=-weights)


def test_an_integer_weight_is_a_repeated_trial():
    x, target, _ = some_scores(14)
    counts = np.random.default_rng(1).integers(0, 4, len(x))
    weighted = fit_logistic(x, target, 0.1, counts.astype(float))
    repeated = fit_logistic(np.repeat(x, counts, axis=0), np.repeat(target, counts), 0.1)
    np.testing.assert_allclose(weighted.weights, repeated.weights, rtol=1e-9)
    assert weighted.offset == pytest.approx(repeated.offset, rel=1e-9)


# -------------------------------------------------------------------------------------------------------- PAV


def llrs_by_isotonic_regression(scores, target, weights, pseudo):
    """The same map at the scores by scikit-learn, pseudo-trials as trials of their own."""
    from sklearn.isotonic import IsotonicRegression

    mean = [weights[target].mean() * pseudo, weights[~target].mean() * pseudo]
    below, above = scores.min() - 1, scores.max() + 1
    all_scores = np.concatenate((scores, [below, below, above, above]))
    labels = np.concatenate((target, [True, False, True, False]))
    mass = np.concatenate((weights, mean * 2))
    posterior = IsotonicRegression().fit(all_scores, labels.astype(float), mass).predict(scores)
    return np.log(posterior / (1 - posterior)) - np.log(weights[target].sum() / weights[~target].sum())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.integers(1, 3)), min_size=3, max_size=40),
    st.sampled_from([0.1, 1.0, 5.0]),
)
def test_pav_is_scikit_learns(trials, pseudo):
    scores, target, weights = (np.array(column) for column in zip(*trials))
    scores, weights = scores.astype(float), weights.astype(float)
    if target.all() or not target.any() or len(set(scores)) == 1:
        return
    found = fit_pav(scores, target, weights, pseudo)
    assert (np.diff(found.scores) > 0).all() and (np.diff(found.llrs) >= 0).all()
    expected = llrs_by_isotonic_regression(scores, target, weights, pseudo)
    if np.ptp(expected) < 1e-9:
        expected = np.zeros(len(scores))  # ours: one block of all trials says nothing
    np.testing.assert_allclose(found.apply(scores), expected, atol=1e-9)


def test_pav_on_its_own_trials_attains_min_cllr():
    x, target, _ = some_scores(15, number=5000, columns=1)
    found = fit_pav(x[:, 0], target, pseudo_trials=1e-9)
    llrs = found.apply(x[:, 0])
    roc = Roc(x[target, 0], x[~target, 0])
    assert prior_weighted_loss(llrs, target) == pytest.approx(roc.min_cllr(), abs=1e-6)
    assert Roc(llrs[target], llrs[~target]).eer()[0] == pytest.approx(roc.eer()[0], abs=1e-12)


def test_pav_between_and_beyond_its_blocks():
    scores, target = np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True])
    found = fit_pav(scores, target)
    # the ends hold 2 of one class and a pseudo-trial of each
    np.testing.assert_allclose(found.apply(scores), np.log([1 / 3, 1 / 3, 3, 3]))
    assert found.apply(1.5) == pytest.approx(0.0, abs=1e-12)
    assert found.apply(1.25) == pytest.approx(0.5 * found.apply(1.0))
    np.testing.assert_allclose(found.apply(np.array([-np.inf, -9, 9, np.inf])), np.log([1 / 3, 1 / 3, 3, 3]))


@pytest.mark.parametrize("labels", [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
def test_pav_of_equal_scores_is_zero(labels):
    found = fit_pav(np.full(3, 2.0), np.array(labels, bool))
    assert found.apply(np.array([-5.0, 2.0, 9.0])).tolist() == [0.0, 0.0, 0.0]


def test_pav_of_scores_that_point_the_wrong_way_is_flat():
    found = fit_pav(np.array([0.0, 1.0, 2.0, 3.0]), np.array([True, False, False, False]))
    assert found.llrs.tolist() == [0.0, 0.0]


def test_pav_refuses():
    scores, target = np.array([0.0, 1.0]), np.array([False, True])
    for bad in (np.nan, np.inf):
        with pytest.raises(VoxarkError, match="finite"):
            fit_pav(np.array([0.0, bad]), target)
    for pseudo in (0.0, -1.0, np.inf):
        with pytest.raises(VoxarkError, match="pseudo-trials"):
            fit_pav(scores, target, pseudo_trials=pseudo)
    with pytest.raises(VoxarkError, match="no target"):
        fit_pav(scores, ~(target | True))
    with pytest.raises(VoxarkError, match="no target trials with a weight"):
        fit_pav(scores, target, np.array([1.0, 0.0]))


def test_a_trial_without_weight_is_no_trial():
    rng = np.random.default_rng(16)
    scores, target = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    weights = rng.integers(0, 2, 60).astype(float)
    kept = weights > 0
    found, other = fit_pav(scores, target, weights), fit_pav(scores[kept], target[kept])
    np.testing.assert_array_equal(found.scores, other.scores)
    np.testing.assert_array_equal(found.llrs, other.llrs)


# ------------------------------------------------------------------------------------------- cross-validation


def all_pairs(num_speakers, per_speaker):
    speakers = [f"s{p // per_speaker}" for p in range(num_speakers * per_speaker)]
    first, second = np.triu_indices(len(speakers), 1)
    names = np.array(speakers)
    return TrialSpeakers.of_names(names[first], names[second])


@pytest.mark.parametrize("num_groups", [3, 5, 12])
def test_folds_share_no_speaker(num_groups):
    speakers = all_pairs(12, 3)
    calibrated = np.zeros(len(speakers.enroll), int)
    for train, held_out in partitions(speakers, num_groups, srand=1):
        taught = set(speakers.enroll[train]) | set(speakers.test[train])
        assert not taught & (set(speakers.enroll[held_out]) | set(speakers.test[held_out]))
        calibrated[held_out] += 1
    assert (calibrated == 1).all()


def test_groups_are_even_and_do_not_depend_on_the_order():
    names = [f"speaker{n}" for n in range(23)]
    groups = speaker_groups(names, 5, srand=3)
    assert sorted(np.bincount(groups)) == [4, 4, 5, 5, 5]
    assert speaker_groups(names[::-1], 5, srand=3)[::-1].tolist() == groups.tolist()
    assert speaker_groups(names, 5, srand=4).tolist() != groups.tolist()
    for number in (2, 24):
        with pytest.raises(VoxarkError, match="groups"):
            speaker_groups(names, number, srand=0)


def test_a_held_out_trial_gets_the_model_of_the_others():
    speakers = all_pairs(6, 3)
    target = speakers.enroll == speakers.test
    columns = np.random.default_rng(2).standard_normal((len(target), 1)) + target[:, None]

    class Mean:
        def __init__(self, columns):
            self.value = columns.mean()

        def apply(self, columns):
            return np.full(len(columns), self.value)

    llrs, details = cross_validate(lambda x, t, w: (Mean(x), len(x)), columns, target, None, speakers, 3, 0)
    assert len(details) == 6
    groups = speaker_groups(speakers.names, 3, 0)
    p = int(np.flatnonzero(target)[0])
    others = (groups[speakers.enroll] != groups[speakers.enroll[p]]) & (
        groups[speakers.test] != groups[speakers.test[p]]
    )
    assert llrs[p] == pytest.approx(columns[others].mean())


def test_a_part_without_targets_is_refused():
    speakers = all_pairs(4, 1)
    with pytest.raises(VoxarkError, match="no target are left"):
        cross_validate(None, np.zeros((6, 1)), np.zeros(6, bool), None, speakers, 3, 0)


# ------------------------------------------------------------------------------------------------- model file


def logistic_model():
    return CalibrationModel(
        "logistic",
        ["a b", "caf\u00e9\udcff"],
        [QualityTerm("utt2dur", "utterance", "log", 2), QualityTerm("snr", "trial", "identity", 1)],
        clip=30.0,
        weights=np.array([1 / 3, -2e-300, 1e17, 0.1, 5.0]),
        offset=-np.pi,
        training={"targets": 3},
    )


def test_models_come_back_bit_for_bit(tmp_path):
    model, path = logistic_model(), tmp_path / "m"
    write_calibration(str(path), model)
    back = read_calibration(str(path))
    np.testing.assert_array_equal(back.weights, model.weights)
    assert (back.kind, back.systems, back.quality, back.clip, back.offset, back.training) == (
        "logistic",
        model.systems,
        model.quality,
        30.0,
        -np.pi,
        {"targets": 3},
    )
    pav = CalibrationModel("pav", ["x"], pav=PavMap(np.array([0.1, 0.7, 2.0]), np.array([-1.0, -1.0, 3.3])))
    write_calibration(str(path), pav)
    back = read_calibration(str(path))
    np.testing.assert_array_equal(back.pav.scores, pav.pav.scores)
    np.testing.assert_array_equal(back.pav.llrs, pav.pav.llrs)
    assert back.apply(np.array([[0.7], [9.0]])).tolist() == [-1.0, 3.3]


def change(**entries):
    def apply(content):
        return {**content, **entries}

    return apply


def without(name):
    return lambda content: {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: [content], "format"),
        (lambda content: None, "format"),
        (change(format="x"), "format"),
        (change(version=2), "version 2"),
        (change(version=True), "version True"),
        (change(kind="tree"), "unknown kind"),
        (change(kind="pav"), "lacks llrs, scores"),
        (without("offset"), "lacks offset"),
        (change(more=1), "unknown entries more"),
        (change(systems=[]), "systems"),
        (change(systems=["x"]), "5 weights, 4 are needed"),
        (change(systems="ab"), "systems"),
        (change(weights=[1, 2, 3, 4, "5"]), "weights must be numbers"),
        (change(weights=[1, 2, 3, 4, True]), "weights must be numbers"),
        (change(weights=[1, 2, 3, 4, 10**400]), "weights must be finite"),
        (change(weights=None), "weights must be numbers"),
        (change(offset=None), "offset must be numbers"),
        (change(clip=-1), "clip is negative"),
        (change(training=3), "training"),
        (change(quality=3), "quality"),
        (change(quality=[{"name": "x"}]), "bad quality measure"),
        (
            change(quality=[{"name": "x", "per": "utterance", "function": "exp", "columns": 2}]),
            "bad quality measure",
        ),
        (
            change(quality=[{"name": "x", "per": "utterance", "function": "log", "columns": 1}]),
            "bad quality measure",
        ),
    ],
)
def test_a_model_that_is_not_sound_is_refused(tmp_path, damage, message):
    path = tmp_path / "m"
    write_calibration(str(path), logistic_model())
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(VoxarkError, match=message) as error:
        read_calibration(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "scores, llrs, message",
    [
        ([], [], "0 scores"),
        ([1.0], [1.0, 2.0], "1 scores, 2 llrs"),
        ([1.0, 1.0], [1.0, 2.0], "must rise"),
        ([1.0, 2.0], [2.0, 1.0], "must not fall"),
    ],
)
def test_a_pav_model_that_is_not_sound_is_refused(tmp_path, scores, llrs, message):
    path = tmp_path / "m"
    write_calibration(str(path), CalibrationModel("pav", ["x"], pav=PavMap(np.array(scores), np.array(llrs))))
    with pytest.raises(VoxarkError, match=message):
        read_calibration(str(path))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff\xfe",
        b"{",
        b"[" * 100000,
        b'{"format": "voxark calibration", "format": "x"}',
        b'{"format": "voxark calibration", "version": 1, "kind": "logistic", "offset": NaN}',
        b'{"offset": 1e400}',
        b"\\x80\\x04cos\\nsystem\\n",
    ],
)
def test_what_is_no_model_is_one_line(tmp_path, text):
    path = tmp_path / "m"
    path.write_bytes(text)
    with pytest.raises(VoxarkError, match="not a") as error:
        read_calibration(str(path))
    assert "\n" not in str(error.value)


def test_every_cut_of_a_model_is_refused(tmp_path):
    path = tmp_path / "m"
    write_calibration(str(path), logistic_model())
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(VoxarkError):
            read_calibration(str(path))


def test_the_file_says_what_it_is(tmp_path):
    write_calibration(str(tmp_path / "m"), logistic_model())
    content = json.loads((tmp_path / "m").read_text())
    assert (content["format"], content["version"]) == (calibration_file.FORMAT, calibration_file.VERSION)
