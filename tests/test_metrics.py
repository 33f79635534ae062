"""Error rates and costs against brute force over all thresholds, scikit-learn, hand-worked cases and Kaldi.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.metrics.hull import hull_vertices
from voxark.metrics import Roc, lower_hull, normalised_cost, prior_entropy

# few distinct values, so that ties within and between the classes are the rule
tied = st.lists(
    st.sampled_from([-np.inf, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, np.inf]), min_size=1, max_size=25
)
finite = st.lists(st.floats(-20, 20).map(lambda value: round(value, 1)), min_size=1, max_size=30)
classes = st.one_of(st.tuples(tied, tied), st.tuples(finite, finite))
costs = st.tuples(
    st.sampled_from([0.001, 0.01, 0.3, 0.5, 0.9]), st.sampled_from([1.0, 10.0]), st.sampled_from([1.0, 5.0])
)


def points(tar, non):
    """All (Pmiss, Pfa), by counting: accept everything, then reject each distinct score and all below it."""
    tar, non = np.array(tar), np.array(non)
    found = [(0.0, 1.0)]
    for value in np.unique(np.concatenate((tar, non))):
        found.append((np.mean(tar <= value), np.mean(non > value)))
    return found


def brute_min_dcf(tar, non, p, c_miss, c_fa):
    return min(p * c_miss * m + (1 - p) * c_fa * f for m, f in points(tar, non)) / min(
        p * c_miss, (1 - p) * c_fa
    )


def brute_interp(tar, non):
    found = points(tar, non)
    for (m0, f0), (m1, f1) in zip(found, found[1:]):
        if m1 >= f1:
            share = (f0 - m0) / ((f0 - m0) + (m1 - f1))
            return m0 + share * (m1 - m0)


def brute_rocch(tar, non):
    """The convex hull's EER is the largest Bayes error over all priors: max_P min_t P Pmiss + (1-P) Pfa."""
    found = np.array(points(tar, non))
    slopes, offsets = found[:, 0] - found[:, 1], found[:, 1]  # error of each threshold as a line in P
    priors = [0.0, 1.0]
    for i in range(len(found)):
        for j in range(i):
            if slopes[i] != slopes[j]:
                priors.append(min(1.0, max(0.0, (offsets[j] - offsets[i]) / (slopes[i] - slopes[j]))))
    return max(np.min(slopes * p + offsets) for p in priors)


def naive_pav(tar, non):
    """Blocks [targets, non-targets] of pooled scores, ascending, by the textbook's algorithm on tied groups.
    """
    blocks = []
    for value in np.unique(np.concatenate((tar, non))):
        blocks.append([np.sum(np.array(tar) == value), np.sum(np.array(non) == value)])
        while len(blocks) > 1 and blocks[-2][0] * sum(blocks[-1]) >= blocks[-1][0] * sum(blocks[-2]):
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    return blocks


def brute_min_cllr(tar, non):
    total = 0.0
    for targets, nontargets in naive_pav(tar, non):
        if targets and nontargets:
            llr = math.log(targets / nontargets) - math.log(len(tar) / len(non))
            total += targets / len(tar) * math.log2(1 + math.exp(-llr)) + nontargets / len(non) * math.log2(
                1 + math.exp(llr)
            )
    return total / 2


def naive_kaldi(tar, non):
    tar, non = sorted(tar), sorted(non)
    for position in range(len(tar)):
        allowed = int(len(non) * position / len(tar))
        if position == len(tar) - 1 or non[max(0, len(non) - 1 - allowed)] < tar[position]:
            return position / len(tar), tar[position]


# ---------------------------------------------------------------------------------------------- brute force


@given(classes, costs)
def test_everything_equals_brute_force(scores, cost):
    tar, non = scores
    roc = Roc(tar, non)
    assert roc.min_dcf(*cost)[0] == pytest.approx(brute_min_dcf(tar, non, *cost), abs=1e-12)
    assert roc.eer("interp")[0] == pytest.approx(brute_interp(tar, non), abs=1e-12)
    assert roc.eer("rocch")[0] == pytest.approx(brute_rocch(tar, non), abs=1e-9)
    assert roc.min_cllr() == pytest.approx(brute_min_cllr(tar, non), abs=1e-9)
    assert roc.eer("kaldi") == naive_kaldi(tar, non)
    assert roc.auc() == pytest.approx(
        np.mean([(t > n) + 0.5 * (t == n) for t in tar for n in non]), abs=1e-12
    )


@given(classes, costs)
def test_thresholds_give_the_costs_they_are_said_to_give(scores, cost):
    tar, non = map(np.array, scores)
    roc = Roc(tar, non)
    value, threshold = roc.min_dcf(*cost)
    p, c_miss, c_fa = cost
    accept = [side >= threshold if threshold < np.inf else np.zeros(len(side), bool) for side in (tar, non)]
    by_hand = p * c_miss * np.mean(~accept[0]) + (1 - p) * c_fa * np.mean(accept[1])
    assert value == pytest.approx(by_hand / min(p * c_miss, (1 - p) * c_fa), rel=1e-12)
    if np.isfinite(threshold):
        assert roc.dcf(threshold, *cost) == pytest.approx(value, rel=1e-12)
    _, threshold = roc.eer()
    gap = abs(np.mean(tar < threshold) - np.mean(non >= threshold))
    if threshold < np.inf:
        assert gap <= min(abs(m - f) for m, f in points(tar, non)) + 1e-12


@given(classes)
def test_actual_cost_and_cllr_by_their_formulas(scores):
    tar, non = map(np.array, scores)
    t = math.log(5.0 * 0.9 / (2.0 * 0.1))
    expected = (0.1 * 2.0 * np.mean(tar < t) + 0.9 * 5.0 * np.mean(non >= t)) / (0.1 * 2.0)
    assert Roc(tar, non).act_dcf(0.1, 2.0, 5.0) == pytest.approx(expected, rel=1e-12)
    with np.errstate(over="ignore"):
        expected = 0.5 * (np.mean(np.log2(1 + np.exp(-tar))) + np.mean(np.log2(1 + np.exp(non))))
    assert Roc(tar, non).cllr() == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------------------------- properties


@given(classes, costs, st.randoms(use_true_random=False))
def test_order_of_the_trials_does_not_matter(scores, cost, random):
    tar, non = ([*side] for side in scores)
    before = Roc(tar, non)
    random.shuffle(tar)
    random.shuffle(non)
    after = Roc(tar, non)
    for method in ("rocch", "interp", "kaldi"):
        assert before.eer(method) == after.eer(method)
    assert before.min_dcf(*cost) == after.min_dcf(*cost)
    assert (before.cllr(), before.min_cllr()) == (after.cllr(), after.min_cllr())


@given(classes, costs)
def test_a_rising_map_of_the_scores_changes_no_minimum(scores, cost):
    values = np.unique(np.concatenate(scores))
    ranks = [np.searchsorted(values, side) ** 3.0 - 7 for side in scores]
    before, after = Roc(*scores), Roc(*ranks)
    for method in ("rocch", "interp", "kaldi"):
        assert before.eer(method)[0] == after.eer(method)[0]
    assert before.min_dcf(*cost)[0] == after.min_dcf(*cost)[0]
    assert before.min_cllr() == after.min_cllr() and before.auc() == after.auc()


@given(classes, costs)
def test_order_among_the_measures(scores, cost):
    roc = Roc(*scores)
    assert 0 <= roc.min_dcf(*cost)[0] <= min(1, roc.act_dcf(*cost))
    assert 0 <= roc.min_cllr() <= min(1, roc.cllr()) + 1e-12
    assert 0 <= roc.eer()[0] <= min(0.5, roc.eer("interp")[0]) + 1e-12


@given(classes)
def test_negated_scores_swap_the_roles(scores):
    tar, non = map(np.array, scores)
    before, after = Roc(tar, non), Roc(-non, -tar)
    assert before.eer()[0] == pytest.approx(after.eer()[0], abs=1e-12)
    assert before.eer("interp")[0] == pytest.approx(after.eer("interp")[0], abs=1e-12)
    assert before.cllr() == pytest.approx(after.cllr()) and before.auc() == pytest.approx(after.auc())
    assert before.min_cllr() == pytest.approx(after.min_cllr(), abs=1e-12)


@given(finite, finite)
def test_pav_llrs_are_calibrated_already(tar, non):
    llr, targets, nontargets = Roc(tar, non).pav_llrs()
    assert (np.diff(llr) > 0).all() and targets.sum() == len(tar) and nontargets.sum() == len(non)
    again = Roc(np.repeat(llr, targets), np.repeat(llr, nontargets))
    assert again.cllr() == pytest.approx(Roc(tar, non).min_cllr(), abs=1e-12)
    assert again.min_cllr() == pytest.approx(again.cllr(), abs=1e-12)


# ------------------------------------------------------------------------------------------ hand-worked cases


def test_all_scores_equal():
    roc = Roc([1.5] * 50, [1.5] * 70)
    assert roc.eer() == (0.5, 1.5) and roc.eer("interp") == (0.5, 1.5)
    assert roc.min_dcf()[0] == 1 and roc.min_dcf(0.5)[0] == 1 and roc.auc() == 0.5
    assert roc.min_cllr() == pytest.approx(1)
    assert Roc([0.0] * 3, [0.0] * 5).cllr() == pytest.approx(1)
    assert roc.cllr() == pytest.approx(0.5 * (math.log2(1 + math.exp(-1.5)) + math.log2(1 + math.exp(1.5))))
    assert Roc([1.0] * 50, [1.0] * 50).eer("kaldi")[0] == 0.98  # Kaldi's own answer


def test_perfect_separation():
    roc = Roc([2.0, 3.0], [0.0, 1.0])
    for method in ("rocch", "interp", "kaldi"):
        assert roc.eer(method)[0] == 0
    assert roc.eer() == (0, 1.5) and roc.min_dcf() == (0, 1.5) and roc.min_cllr() == 0 and roc.auc() == 1
    wrong = Roc([0.0, 1.0], [2.0, 3.0])
    assert (
        wrong.eer("interp")[0] == 1 and wrong.eer()[0] == 0.5 and wrong.min_dcf()[0] == 1 and wrong.auc() == 0
    )


def test_one_target():
    roc = Roc([1.0], [0.0, 0.5, 2.0, 3.0])
    # points: (0,1) ... (0,.5) then (1,.5): the hull goes (0,1) (0,.5) (1,0), which meets Pmiss = Pfa at 1/3
    assert roc.eer()[0] == pytest.approx(1 / 3)
    assert roc.eer("interp")[0] == 0.5
    assert roc.min_dcf(0.5)[0] == 0.5 and roc.auc() == 0.5
    assert roc.min_dcf(0.01)[0] == 1


def test_a_worked_example():
    # one target below one non-target: (0,1) (0,.5) (.5,.5) (.5,0) (1,0)
    roc = Roc([1.0, 3.0], [0.0, 2.0])
    assert roc.eer("interp")[0] == 0.5 and roc.eer()[0] == 0.25 and roc.auc() == 0.75
    assert roc.min_dcf(0.5)[0] == 0.5
    assert list(zip(*roc.hull())) == [(0, 1), (0, 0.5), (0.5, 0), (1, 0)]
    assert roc.min_cllr() == pytest.approx(
        0.5
    )  # the middle block has one of each: a bit for half of either class


def test_infinite_scores():
    roc = Roc([np.inf, 1.0], [-np.inf, 0.0])
    assert roc.eer()[0] == 0 and roc.min_dcf() == (0, 0.5) and roc.cllr() < 1
    assert Roc([-np.inf], [0.0]).cllr() == np.inf and Roc([0.0], [np.inf]).cllr() == np.inf
    assert Roc([0.0], [np.inf]).min_cllr() == 1
    assert Roc([np.inf], [np.inf]).eer() == (0.5, np.inf)


def test_nan_and_empty_classes_are_errors_with_counts():
    with pytest.raises(VoxarkError, match="1 of 2 target scores are NaN"):
        Roc([np.nan, 1.0], [0.0])
    with pytest.raises(VoxarkError, match="no nontarget trials"):
        Roc([1.0], [])
    with pytest.raises(VoxarkError, match="no target trials"):
        Roc([], [1.0])
    for bad in ((0.0, 1, 1), (1.0, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (0.5, np.inf, 1)):
        with pytest.raises(VoxarkError, match="--(p-target|c-miss|c-fa)="):
            Roc([1.0], [0.0]).min_dcf(*bad)
    with pytest.raises(VoxarkError, match="unknown method"):
        Roc([1.0], [0.0]).eer("best")


# ---------------------------------------------------------------------------------------------- peers


@pytest.mark.parametrize("step", [None, 0.5, 1.0])
def test_equals_scikit_learn(step):
    from scipy.optimize import brentq
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    tar, non = rng.standard_normal(200) + 2, rng.standard_normal(2000)
    if step:
        tar, non = np.round(tar / step) * step, np.round(non / step) * step
    truth, scores = np.repeat([1, 0], [200, 2000]), np.concatenate((tar, non))
    roc = Roc(tar, non)
    assert roc.auc() == pytest.approx(roc_auc_score(truth, scores), rel=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    crossing = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1, xtol=1e-14)
    assert roc.eer("interp")[0] == pytest.approx(crossing, abs=1e-9)
    posterior = IsotonicRegression().fit_transform(scores, truth)
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log(1 - posterior) - np.log(200 / 2000)
    assert Roc(llr[:200], llr[200:]).cllr() == pytest.approx(roc.min_cllr(), rel=1e-9)


def scanned_hull(x, y):
    """Places of the hull's vertices by Andrew's monotone chain on Python's integers."""
    hull = []
    for i in range(len(x)):
        if hull and (x[hull[-1]], y[hull[-1]]) == (x[i], y[i]):
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (x[b] - x[a]) * (y[i] - y[b]) - (y[b] - y[a]) * (x[i] - x[b]) > 0:
                break
            hull.pop()
        hull.append(i)
    return hull


def hull_shapes():
    rng = np.random.default_rng(0)
    for number in (1, 2, 3, 5, 50, 400, 3000):
        for most in (2, 4, 50):
            steps = rng.integers(0, most, (number, 2))
            yield np.append(0, np.cumsum(steps[:, 0])), np.append(0, np.cumsum(steps[:, 1]))[::-1].copy()
    x = np.arange(300)
    yield x, (300 - x) ** 2  # every point is a vertex
    yield np.append(x, 300), np.append((300 - x) ** 2, 0)
    outlier = (300 - x) ** 2
    outlier[20:] = 0  # one deep step takes away the arc before it, point by point
    yield x, outlier
    yield x, 3 * (299 - x)  # all on one line
    rates = np.linspace(-4, 4, 5000)
    yield (1e9 / (1 + np.exp(-rates - 1))).astype(int), (1e9 / (1 + np.exp(rates - 1))).astype(int)


def test_hull_keeps_its_vertices_in_every_shape():
    for x, y in hull_shapes():
        expected = scanned_hull(x.tolist(), y.tolist())
        assert hull_vertices(x, y).tolist() == expected
        hx, hy = lower_hull(x, y)
        assert hx.tolist() == x[expected].tolist() and hy.tolist() == y[expected].tolist()
        assert (np.interp(x, *strictly(hx, hy)) <= y * (1 + 1e-12) + 1e-9)[np.diff(x, prepend=-1) > 0].all()


def test_hull_of_floats_is_that_of_counts_but_for_rounding():
    for x, y in hull_shapes():
        of_counts, of_floats = strictly(*lower_hull(x, y)), strictly(*lower_hull(x * 0.1, y * 0.3))
        found = np.interp(x * 0.1, *of_floats) / 0.3
        np.testing.assert_allclose(found, np.interp(x, *of_counts), rtol=1e-12, atol=2e-14 * y.max(initial=1))


def strictly(x, y):
    """The hull as a function: of points with one x the lowest, which is the last."""
    last = np.append(np.diff(x) > 0, True)
    return x[last], y[last]


def test_equals_scikit_learns_curves():
    from sklearn.metrics import det_curve, roc_curve

    rng = np.random.default_rng(1)
    tar, non = np.round(rng.standard_normal(300) + 1, 1), np.round(rng.standard_normal(500), 1)
    truth, scores = np.repeat([1, 0], [300, 500]), np.concatenate((tar, non))
    roc = Roc(tar, non)
    for fpr, fnr, thresholds in (
        det_curve(truth, scores),
        (lambda fpr, tpr, t: (fpr, 1 - tpr, t))(*roc_curve(truth, scores, drop_intermediate=False)),
    ):
        inside = np.isfinite(thresholds)
        rates = np.array([roc.error_rates(t) for t in thresholds[inside]])
        np.testing.assert_allclose(rates, np.column_stack((fnr, fpr))[inside], atol=1e-12)
        costs = normalised_cost(fnr, fpr, 0.1, 1.0, 1.0)
        assert roc.min_dcf(0.1)[0] == pytest.approx(min(1.0, costs.min()), abs=1e-12)


# ------------------------------------------------------------------------------- cross-entropy, few errors


@given(classes, st.sampled_from([0.01, 0.3, 0.5, 0.9]))
def test_cross_entropy_by_its_formula_and_its_minimum(scores, prior):
    tar, non = map(np.array, scores)
    roc, shift = Roc(tar, non), math.log(prior / (1 - prior))
    with np.errstate(over="ignore"):
        expected = prior * np.mean(np.log2(1 + np.exp(-tar - shift)))
        expected += (1 - prior) * np.mean(np.log2(1 + np.exp(non + shift)))
    assert roc.ece(prior) == pytest.approx(expected, rel=1e-12)
    assert roc.ece(0.5) == roc.cllr() and roc.min_ece(0.5) == roc.min_cllr()
    assert roc.min_ece(prior) <= min(prior_entropy(prior), roc.ece(prior)) + 1e-12
    llr, targets, nontargets = roc.pav_llrs()
    finite = np.isfinite(llr)
    if finite.all():  # the minimum is the cross-entropy of the calibrated scores
        again = Roc(llr, llr, targets, nontargets)
        assert again.ece(prior) == pytest.approx(roc.min_ece(prior), abs=1e-12)


def test_scores_that_say_nothing_have_the_priors_entropy():
    for prior in (0.01, 0.5, 0.8):
        assert Roc([0.0] * 3, [0.0] * 4).ece(prior) == pytest.approx(prior_entropy(prior), rel=1e-14)
    assert prior_entropy(0.5) == 1


def test_rule_of_30_counts_trials_in_error():
    tar, non = np.arange(100.0), np.arange(-900.0, 100.0)
    roc = Roc(tar, non)
    assert roc.rule_of_30(30.0) == (30, 70, True)
    assert roc.rule_of_30(29.5) == (30, 70, True)
    assert roc.rule_of_30(29.0) == (29, 71, False) and not roc.rule_of_30(71.0).enough
    assert roc.rule_of_30(np.inf) == (100, 0, False)
    weighted = Roc(tar, non, np.where(tar < 50, 0.0, 2.5), None)  # weights do not multiply evidence
    assert weighted.rule_of_30(60.0) == (10, 40, False)


# ------------------------------------------------------------------------------------------ single precision


@given(classes, costs)
def test_scores_in_single_precision_are_compared_exactly(scores, cost):
    tar, non = (np.array(side, np.float32) for side in scores)
    single, double = Roc(tar, non), Roc(tar.astype(np.float64), non.astype(np.float64))
    for method in ("rocch", "interp", "kaldi"):
        assert single.eer(method) == double.eer(method)
    assert single.min_dcf(*cost) == double.min_dcf(*cost)
    assert single.act_dcf(*cost) == double.act_dcf(*cost)
    assert single.cllr() == double.cllr() and single.min_cllr() == double.min_cllr()
    for threshold in (0.1, np.nextafter(0.25, 1), np.nextafter(0.25, 0), 1e300, -1e300, np.inf, -np.inf):
        assert single.error_rates(threshold) == double.error_rates(threshold)
