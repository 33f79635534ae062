"""Weighted error rates: integer weights are repeated trials, floats equal brute force over thresholds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.metrics import Roc

METHODS = ("rocch", "interp")
values = st.sampled_from([-np.inf, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, np.inf])
counts = st.integers(0, 3)
numbers = st.one_of(st.just(0.0), st.floats(0.001, 9.0))


def weighted(numbers):
    """Strategy: (scores, weights) of one class, not all weights zero."""
    pairs = st.lists(st.tuples(values, numbers), min_size=1, max_size=20)
    return pairs.filter(lambda found: any(w > 0 for _, w in found)).map(
        lambda found: (np.array([s for s, _ in found]), np.array([w for _, w in found]))
    )


def all_measures(roc, cost=(0.1, 2.0, 1.0)):
    """The measures that follow from counts alone, and those that are sums."""
    counted = [roc.eer(method) for method in METHODS]
    counted += [roc.min_dcf(*cost), roc.act_dcf(*cost), roc.dcf(0.3, *cost), roc.min_dcf(0.001)]
    counted += [roc.min_cllr(), roc.min_ece(0.1), *map(list, roc.hull()), *map(list, roc.pav_llrs())]
    return counted, [roc.cllr(), roc.ece(0.1), roc.auc()]


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], rel=1e-13, abs=1e-13)


@given(weighted(counts), weighted(counts))
def test_integer_weights_are_repeated_trials(target, nontarget):
    expected = all_measures(Roc(np.repeat(*target), np.repeat(*nontarget)))
    roc = Roc(target[0], nontarget[0], target[1], nontarget[1])
    assert_same(all_measures(roc), expected)
    as_floats = Roc(target[0], nontarget[0], target[1].astype(float), nontarget[1].astype(np.float32))
    assert_same(all_measures(as_floats), expected)
    again = Roc(target[0], nontarget[0]).reweighted(target[1], nontarget[1])
    assert_same(all_measures(again), expected)
    assert roc.num_target == np.count_nonzero(target[1])
    assert roc.rule_of_30(0.3)[:2] == (
        np.count_nonzero(target[1][target[0] < 0.3]),
        np.count_nonzero(nontarget[1][nontarget[0] >= 0.3]),
    )


def points(target, nontarget):
    """All (Pmiss, Pfa) by summing weights: before any score, and after rejecting each and all below it."""
    (tar, v), (non, w) = target, nontarget
    present = np.concatenate((tar[v > 0], non[w > 0]))
    rejected = [(0.0, 1.0)]
    for value in np.unique(present):
        rejected.append(
            (math.fsum(v[tar <= value]) / math.fsum(v), math.fsum(w[non > value]) / math.fsum(w))
        )
    return rejected


@given(weighted(numbers), weighted(numbers), st.sampled_from([0.001, 0.3, 0.9]))
def test_float_weights_equal_brute_force(target, nontarget, prior):
    (tar, v), (non, w) = target, nontarget
    roc, found = Roc(tar, non, v, w), points(target, nontarget)
    costs = [(prior * m + (1 - prior) * f) / min(prior, 1 - prior) for m, f in found]
    value, threshold = roc.min_dcf(prior)
    assert value == pytest.approx(min(costs), rel=1e-12, abs=1e-12)
    if np.isfinite(threshold):
        assert roc.dcf(threshold, prior) == pytest.approx(value, rel=1e-12, abs=1e-12)
    for (m0, f0), (m1, f1) in zip(found, found[1:]):
        if m1 >= f1:
            crossing = m0 + (m1 - m0) * (f0 - m0) / ((f0 - m0) + (m1 - f1))
            break
    assert roc.eer("interp")[0] == pytest.approx(crossing, abs=1e-12)
    priors = np.linspace(0, 1, 101)  # the hull's EER is the largest Bayes error over all priors
    bayes = [min(p * m + (1 - p) * f for m, f in found) for p in priors]
    assert roc.eer()[0] >= max(bayes) - 1e-12
    p_miss, p_fa = roc.hull()
    assert roc.eer()[0] <= min(max(m, f) for m, f in found) + 1e-12
    for m, f in found:  # no point lies below the hull
        assert f >= np.interp(m, p_miss, p_fa) - 1e-12 or m in p_miss
    expected = sum(a * b * ((s > t) + 0.5 * (s == t)) for s, a in zip(tar, v) for t, b in zip(non, w))
    assert roc.auc() == pytest.approx(expected / v.sum() / w.sum(), rel=1e-12)


@given(weighted(numbers), weighted(numbers))
def test_float_weights_in_the_logarithmic_cost(target, nontarget):
    (tar, v), (non, w) = ((s[a > 0], a[a > 0]) for s, a in (target, nontarget))
    with np.errstate(over="ignore"):
        expected = 0.5 * (v @ np.log2(1 + np.exp(-tar)) / v.sum() + w @ np.log2(1 + np.exp(non)) / w.sum())
    roc = Roc(*target[:1], *nontarget[:1], target[1], nontarget[1])
    assert roc.cllr() == pytest.approx(expected, rel=1e-12)
    assert roc.min_cllr() <= min(1.0, roc.cllr()) + 1e-12
    llr, targets, nontargets = roc.pav_llrs()
    assert (np.diff(llr) > 0).all()
    assert targets.sum() == pytest.approx(v.sum()) and nontargets.sum() == pytest.approx(w.sum())


@given(weighted(numbers), weighted(numbers), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_common_factor_of_the_weights_changes_nothing(target, nontarget, a, b):
    one = Roc(target[0], nontarget[0], target[1], nontarget[1])
    other = Roc(target[0], nontarget[0], a * target[1], b * nontarget[1])
    for method in METHODS:
        assert one.eer(method)[0] == pytest.approx(other.eer(method)[0], abs=1e-12)
    assert one.min_dcf(0.1)[0] == pytest.approx(other.min_dcf(0.1)[0], abs=1e-12)
    assert one.min_cllr() == pytest.approx(other.min_cllr(), abs=1e-12)


def test_weights_belong_to_the_scores_in_the_order_given():
    rng = np.random.default_rng(0)
    tar, non = rng.standard_normal(300) + 1, rng.standard_normal(500)
    v, w = rng.exponential(size=300), rng.exponential(size=500)
    before = Roc(tar, non, v, w)
    i, j = rng.permutation(300), rng.permutation(500)
    after = Roc(tar[i], non[j], v[i], w[j])
    assert before.eer() == after.eer() and before.min_dcf() == after.min_dcf()
    assert before.given_scores()[0] is not None and (before.given_scores()[1] == non).all()


def test_sums_of_many_float_weights_lose_little():
    rng = np.random.default_rng(0)
    scores, w = rng.standard_normal(200_001), rng.exponential(size=200_001) ** 4
    roc = Roc(scores, scores, w, w)
    for threshold in (-3.0, 0.0, 2.0):
        p_miss, p_fa = roc.error_rates(threshold)
        assert p_miss == pytest.approx(math.fsum(w[scores < threshold]) / math.fsum(w), rel=1e-13)
        assert p_fa == pytest.approx(math.fsum(w[scores >= threshold]) / math.fsum(w), rel=1e-13)


def test_many_trials_of_integer_weights_equal_repeated_ones():
    """Beyond a block of the hull's points, and beyond the number from which costs are not kept."""
    rng = np.random.default_rng(0)
    tar, non = np.round(rng.standard_normal(150_000) + 1, 4), np.round(rng.standard_normal(50_000), 4)
    v, w = rng.poisson(1.0, 150_000), rng.poisson(1.0, 50_000)
    expected = all_measures(Roc(np.repeat(tar, v), np.repeat(non, w)))
    assert_same(all_measures(Roc(tar, non, v, w)), expected)


def test_replicates_leave_their_source_alone():
    roc = Roc([3.0, 1.0, 2.0], [0.0, 2.5])
    before = all_measures(roc)
    replicate = roc.reweighted([0, 5, 1], [1, 1])
    assert all_measures(replicate)[0] == all_measures(Roc([1.0] * 5 + [2.0], [0.0, 2.5]))[0]
    assert all_measures(replicate.reweighted(None, None)) == before == all_measures(roc)


def test_refusals():
    with pytest.raises(VoxarkError, match="1 of 2 target weights are negative"):
        Roc([0.0, 1.0], [0.0], [1.0, -0.5])
    with pytest.raises(VoxarkError, match="all nontarget weights are zero"):
        Roc([0.0, 1.0], [0.0], None, [0])
    with pytest.raises(VoxarkError, match="1 of 1 nontarget weights are infinite or NaN"):
        Roc([0.0, 1.0], [0.0], None, [np.nan])
    with pytest.raises(VoxarkError, match="3 weights for 2 target scores"):
        Roc([0.0, 1.0], [0.0], [1, 1, 1])
    with pytest.raises(VoxarkError, match="Kaldi's equal error rate knows no weights"):
        Roc([0.0, 1.0], [0.0], [1, 1]).eer("kaldi")


def test_weights_beyond_whole_numbers_of_the_hull_are_still_right():
    huge = Roc([0.0, 1.0, 2.0], [0.5, -1.0], 10**12 * np.array([1, 1, 2]), 10**12 * np.array([1, 1]))
    assert huge.eer() == Roc([0.0, 1.0, 2.0, 2.0], [0.5, -1.0]).eer()
    assert huge.min_cllr() == pytest.approx(Roc([0.0, 1.0, 2.0, 2.0], [0.5, -1.0]).min_cllr(), rel=1e-12)
