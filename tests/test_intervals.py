"""Intervals over speakers: closed forms, scipy's bootstrap, variances of dyads by simulation, coverage, programs."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, environment, needs_data, run, shared_data, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.metrics.intervals import (
    IntervalOptions,
    bounds_if_constant,
    confidence,
    effective_trials,
    interval_of,
    variance_over_speakers,
    warn_of_few_speakers,
)
from voxark.metrics.paired import paired_difference
from voxark.metrics.replicates import SpeakerWeights, Spread, jackknife_variance, replicate
from voxark.random_numbers import seeded_rng
from voxark.trials.lists import TrialList
from voxark.trials.speakers import SpeakerOptions, TrialSpeakers, speakers_of

MEASURES = {
    "eer": lambda roc: roc.eer()[0],
    "eer_threshold": lambda roc: roc.eer()[1],
    "min_dcf(0.1)": lambda roc: roc.min_dcf(0.1)[0],
    "act_dcf(0.1)": lambda roc: roc.act_dcf(0.1),
    "cllr": lambda roc: roc.cllr(),
    "min_cllr": lambda roc: roc.min_cllr(),
    "auc": lambda roc: roc.auc(),
}
SPEAKER_METHODS = ("jackknife", "bootstrap")


def all_pairs(num_speakers, num_utts=2):
    """Enrolled and tested speakers (N,) of one utterance of each speaker against num_utts of each."""
    enroll = np.repeat(np.arange(num_speakers), num_speakers * num_utts)
    return enroll, np.tile(np.repeat(np.arange(num_speakers), num_utts), num_speakers)


def data(num_speakers=12, num_utts=2, seed=0, spread=2.0):
    """(scores, target, TrialSpeakers) with effects of speakers."""
    rng = np.random.default_rng(seed)
    enroll, test = all_pairs(num_speakers, num_utts)
    target = enroll == test
    effects = rng.normal(size=num_speakers)
    scores = np.where(target, 2.5, -2.5) + effects[enroll] + effects[test] + spread * rng.normal(size=len(enroll))
    return scores, target, TrialSpeakers(enroll, test, [f"s{n:03d}" for n in range(num_speakers)])


def roc_of(scores, target):
    return Roc(scores[target], scores[~target])


class MeanScores:
    """What has a Roc's `reweighted`, of which measures are weighted means: closed forms are known."""

    def __init__(self, target, nontarget, weights=(None, None)):
        self.scores, self.weights = (target, nontarget), weights

    def reweighted(self, *weights):
        return MeanScores(*self.scores, weights)

    def given_scores(self):
        return self.scores

    def mean(self, of_class):
        return np.average(self.scores[of_class], weights=self.weights[of_class])


MEANS = {"eer_threshold": lambda roc: roc.mean(0), "auc": lambda roc: roc.mean(1)}


# ----------------------------------------------------------------------------------------------- closed forms


def test_jackknife_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(1)
    enroll, test = all_pairs(9, 1)
    target = enroll == test
    values = rng.normal(size=9)
    means = MeanScores(values, rng.random(72))
    speakers = TrialSpeakers(enroll, test, list("abcdefghi"))
    spread = replicate([means], target, speakers, MEANS, IntervalOptions(ci="jackknife"))
    assert spread._replace(pairs=None).error()[0, 0] == pytest.approx(values.std(ddof=1) / 3.0)
    assert spread.error()[0, 0] == pytest.approx(values.std(ddof=1) / 3.0)  # leaving out pairs moves no target
    assert spread.bias(np.array([[values.mean(), 0.0]]))[0, 0] == pytest.approx(0.0, abs=1e-12)
    interval = interval_of("eer_threshold", values.mean(), spread.map(lambda v: v[:, 0, 0]), 0.95)
    reach = 2.306004135 * values.std(ddof=1) / 3.0  # Student's t, 8 degrees of freedom
    assert interval.low == pytest.approx(values.mean() - reach)
    assert interval.high == pytest.approx(values.mean() + reach)


def test_jackknife_leaves_out_a_speaker_on_either_side():
    scores, target, speakers = data(6)
    roc = roc_of(scores, target)
    spread = replicate([roc], target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    for speaker in range(6):
        kept = (speakers.enroll != speaker) & (speakers.test != speaker)
        alone = roc_of(scores[kept], target[kept])
        expected = [measure(alone) for measure in MEASURES.values()]
        np.testing.assert_allclose(spread.values[speaker, 0], expected, rtol=1e-12)


def test_bootstrap_replicates_repeat_trials():
    scores, target, speakers = data(5)
    roc = roc_of(scores, target)
    options = IntervalOptions(ci="bootstrap", ci_replicates=25, srand=3)
    spread = replicate([roc], target, speakers, MEASURES, options)
    rng = seeded_rng(3, "speaker bootstrap")
    for values in spread.values[:, 0]:
        m = np.bincount(rng.integers(0, 5, 5), minlength=5)
        while np.count_nonzero(m) < 2:
            m = np.bincount(rng.integers(0, 5, 5), minlength=5)
        times = np.where(target, m[speakers.enroll], m[speakers.enroll] * m[speakers.test])
        repeated = roc_of(np.repeat(scores, times), np.repeat(target, times))
        np.testing.assert_allclose(values, [measure(repeated) for measure in MEASURES.values()], rtol=1e-9)


def test_pairs_left_out_share_no_speaker_and_go_once():
    for size in (2, 3, 6, 7):
        enroll, test = all_pairs(size)
        target = enroll == test
        of_speakers = SpeakerWeights(target, TrialSpeakers(enroll, test, list("abcdefg"[:size])))
        first, second = enroll[~target], test[~target]
        gone = np.zeros(len(first), int)
        for of_target, of_nontarget in of_speakers.pair_jackknife():
            assert (of_target == 1).all()
            out = of_nontarget == 0
            gone += out
            pairs = {tuple(sorted(pair)) for pair in zip(first[out].tolist(), second[out].tolist())}
            members = [speaker for pair in pairs for speaker in pair]
            assert len(members) == len(set(members))
        assert (gone == (1 if size > 2 else 0)).all()  # of two speakers there is one pair, which must stay


@pytest.mark.parametrize("method", SPEAKER_METHODS)
def test_variance_of_a_mean_over_pairs_of_speakers(method):
    """y_ab = u_a + u_b + e_ab: Var = 4 u/S + 2 e/(S(S-1)), which estimates hit on average; the bootstrap has
    3 e in place of e [Owen 2007]."""
    size, of_speaker, of_pair, found = 12, 0.5, 2.0, []
    rng = np.random.default_rng(5)
    enroll, test = all_pairs(size, 1)
    target = enroll == test
    speakers = TrialSpeakers(enroll, test, [f"{n:02d}" for n in range(size)])
    for _ in range(150):
        u, e = rng.normal(size=size) * of_speaker**0.5, rng.normal(size=(size, size)) * of_pair**0.5
        y = u[:, None] + u + np.triu(e) + np.triu(e, 1).T
        means = MeanScores(np.zeros(size), y.ravel()[~target])
        spread = replicate([means], target, speakers, MEANS, IntervalOptions(ci=method, ci_replicates=100))
        found.append(spread.map(lambda values: values[:, 0, 1]).error() ** 2)
    counted = 1.0 if method == "jackknife" else 3.0
    expected = 4.0 * of_speaker / size + counted * 2.0 * of_pair / (size * (size - 1))
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_one_trial_a_speaker_agrees_with_scipy():
    """Targets alone vary, one of each speaker: the bootstrap of speakers is scipy's bootstrap of a sample."""
    from scipy import stats

    rng = np.random.default_rng(2)
    values = rng.gamma(2.0, size=40)
    enroll, test = all_pairs(40, 1)
    target = enroll == test
    speakers = TrialSpeakers(enroll, test, [f"{n:02d}" for n in range(40)])
    means = MeanScores(values, np.ones(np.sum(~target)))
    options = IntervalOptions(ci="bootstrap", ci_replicates=3000)
    spread = replicate([means], target, speakers, MEANS, options).map(lambda v: v[:, 0, 0])
    theirs = stats.bootstrap((values,), np.mean, n_resamples=3000, method="percentile", rng=rng)
    assert spread.error() == pytest.approx(theirs.standard_error, rel=0.06)
    ours = np.quantile(spread.values, (0.025, 0.975))
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.15 * theirs.standard_error)


def test_naive_replicates_are_of_independent_trials():
    scores, target, _ = data(10)
    options = IntervalOptions(ci="naive", ci_replicates=400)
    spread = replicate([MeanScores(scores[target], scores[~target])], target, None, MEANS, options)
    for number, of_class in enumerate((scores[target], scores[~target])):
        expected = of_class.std() / len(of_class) ** 0.5
        assert spread.error()[0, number] == pytest.approx(expected, rel=0.12)


# ---------------------------------------------------------------------------------------- what intervals depend on


@pytest.mark.parametrize("method", ("jackknife", "bootstrap", "naive"))
def test_order_of_trials_does_not_matter(method):
    scores, target, speakers = data(8)
    options = IntervalOptions(ci=method, ci_replicates=40)
    weights = np.random.default_rng(7).random(len(scores))
    first = confidence(Roc(scores[target], scores[~target], weights[target], weights[~target]), target, speakers,
                       MEASURES, options, weights)
    order = np.random.default_rng(3).permutation(len(scores))
    names = np.array(speakers.names)
    shuffled = TrialSpeakers.of_names(names[speakers.enroll[order]], names[speakers.test[order]])
    s, t, w = scores[order], target[order], weights[order]
    again = confidence(Roc(s[t], s[~t], w[t], w[~t]), t, shuffled, MEASURES, options, w)
    for name in MEASURES:
        np.testing.assert_allclose(first[name], again[name], rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(("jackknife", "bootstrap", "naive")))
def test_intervals_lie_in_their_range_and_grow_with_the_level(seed, method):
    scores, target, speakers = data(6, seed=seed, spread=1.0)
    scores = np.round(scores)  # ties
    roc = roc_of(scores, target)
    wide, narrow = (
        confidence(roc, target, speakers, MEASURES, IntervalOptions(ci=method, ci_level=level, ci_replicates=20))
        for level in (0.95, 0.8)
    )
    for name, interval in wide.items():
        assert interval.low <= narrow[name].low <= narrow[name].high <= interval.high
        if name != "eer_threshold":
            assert interval.low >= 0.0 and interval.low <= interval.estimate
        if name not in ("eer_threshold", "cllr", "act_dcf(0.1)"):
            assert interval.high <= 1.0


def test_weights_of_trials_are_kept():
    """Integer weights are repeated trials."""
    scores, target, speakers = data(7)
    times = np.random.default_rng(0).integers(1, 4, len(scores))
    weighted = confidence(Roc(scores[target], scores[~target], times[target], times[~target]), target, speakers,
                          MEASURES, IntervalOptions(ci="jackknife"), times)
    s, t = np.repeat(scores, times), np.repeat(target, times)
    repeated = TrialSpeakers(np.repeat(speakers.enroll, times), np.repeat(speakers.test, times), speakers.names)
    expected = confidence(roc_of(s, t), t, repeated, MEASURES, IntervalOptions(ci="jackknife"))
    for name in MEASURES:
        np.testing.assert_allclose(weighted[name], expected[name], rtol=1e-9)


# -------------------------------------------------------------------------------------------- degenerate input


def test_perfect_separation_has_a_bound(caplog):
    scores, target, speakers = data(10)
    scores = np.where(target, 5.0, -5.0) + 0.01 * scores
    found = confidence(roc_of(scores, target), target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    share = 1.0 - 0.05**0.1  # rule of three for 10 speakers
    assert found["eer"].low == 0.0 and found["eer"].high == pytest.approx(share / (1.0 + share))
    assert found["min_dcf(0.1)"].high == 1.0  # false alarms of that share cost more than rejecting everything
    assert found["auc"].high == 1.0 and found["auc"].low == pytest.approx(1.0 - share)
    assert np.isnan(found["eer"].standard_error)
    assert "eer, min_dcf(0.1), act_dcf(0.1), min_cllr, auc: the same in all replicates" in caplog.text
    assert found["cllr"].low < found["cllr"].estimate < found["cllr"].high
    naive = confidence(roc_of(scores, target), target, None, MEASURES, IntervalOptions(ci="naive", ci_replicates=20))
    share = 1.0 - 0.05 ** (1.0 / target.sum())
    assert naive["eer"].high == pytest.approx(share / (1.0 + share))


def test_bounds_without_errors_hold():
    """Independent trials, one a speaker: no error is seen with a rate above the bound in 5 % of all cases."""
    size = 30
    roc = Roc(np.ones(size), -np.ones(size * (size - 1)))
    enroll, test = all_pairs(size, 1)
    speakers = TrialSpeakers(enroll, test, [str(n) for n in range(size)])

    def p_miss(roc):
        return roc.dcf(0.0, 0.5) - roc.error_rates(0.0)[1]

    low, high = bounds_if_constant(roc, enroll == test, speakers, p_miss, 0.95)
    assert low == 0.0 and (1.0 - high) ** size == pytest.approx(0.05)


def test_errors_of_one_speaker_alone():
    """Without that speaker there is no error at all: the interval is wide, finite and not empty."""
    scores, target, speakers = data(10)
    scores = np.where(target, 5.0, -5.0) + 0.01 * scores
    scores[target & (speakers.enroll == 3)] = -9.0
    for method in SPEAKER_METHODS:
        options = IntervalOptions(ci=method, ci_replicates=50)
        interval = confidence(roc_of(scores, target), target, speakers, MEASURES, options)["eer"]
        assert 0.0 < interval.low < 0.3 * interval.estimate and 2.0 * interval.estimate < interval.high <= 1.0


def test_all_scores_equal_and_infinite_scores():
    _, target, speakers = data(6)
    found = confidence(roc_of(np.zeros(len(target)), target), target, speakers, MEASURES,
                       IntervalOptions(ci="jackknife"))
    assert found["eer"].estimate == found["auc"].estimate == 0.5 and found["min_dcf(0.1)"].high == 1.0
    share = 1.0 - 0.05 ** (1.0 / 6.0)  # so many of 6 speakers may be told apart all the same
    assert found["eer"].low == pytest.approx((1.0 - share) / (2.0 - share)) and found["auc"].high < 1.0
    np.testing.assert_allclose(found["cllr"][:3], 1.0)
    scores = np.where(target, -np.inf, 0.0)
    found = confidence(roc_of(scores, target), target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    assert found["cllr"].estimate == np.inf and np.isnan(found["cllr"].low)


def test_everything_rejected_is_not_certain():
    """All scores are below the Bayes threshold: the cost is 1 in all replicates, and the interval is not [1,1]."""
    scores, target, speakers = data(10)
    found = confidence(roc_of(scores - 50.0, target), target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    interval = found["act_dcf(0.1)"]
    share = 1.0 - 0.05**0.1
    assert interval[:3] == pytest.approx((1.0, 1.0 - share, 1.0 + 9.0 * share)) and np.isnan(interval.standard_error)


def test_too_few_speakers_and_bad_options():
    scores, target, speakers = data(2)
    with pytest.raises(VoxarkError, match="without the speaker s000"):
        confidence(roc_of(scores, target), target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    one = TrialSpeakers(np.zeros(4, int), np.array([0, 0, 1, 2]), ["a", "b", "c"])
    mask = np.array([True, True, False, False])
    with pytest.raises(VoxarkError, match="at least 2 speakers.*found 1"):
        confidence(roc_of(np.arange(4.0), mask), mask, one, MEASURES, IntervalOptions(ci="bootstrap"))
    with pytest.raises(VoxarkError, match="--utt2spk"):
        confidence(roc_of(scores, target), target, None, MEASURES, IntervalOptions(ci="jackknife"))
    for bad in ({"ci_level": 1.0}, {"ci_level": 0.0}, {"ci_replicates": 5}):
        with pytest.raises(VoxarkError, match="--ci-"):
            confidence(roc_of(scores, target), target, speakers, MEASURES, IntervalOptions(ci="bootstrap", **bad))


# ------------------------------------------------------------------------------------------- effective trials


def test_variance_over_speakers_is_that_of_dyads():
    """On average over simulations it is the variance that the mean has, and a plain jackknife's is more."""
    size, means, found, plain = 15, [], [], []
    rng = np.random.default_rng(4)
    enroll, test = all_pairs(size, 2)
    apart = enroll != test
    first, second = enroll[apart], test[apart]
    for _ in range(400):
        u, e = rng.normal(size=size) * 0.4, rng.normal(size=(size, size))
        y = u[first] + u[second] + e[first, second] + rng.normal(size=len(first))
        means.append(y.mean())
        found.append(variance_over_speakers(y, first, second))
        without = np.array([y[(first != s) & (second != s)].mean() for s in range(size)])
        plain.append(jackknife_variance(without))
    assert np.mean(found) == pytest.approx(np.var(means), rel=0.15)
    assert np.mean(plain) > np.mean(found)


def test_variance_over_speakers_of_targets_is_the_jackknife():
    rng = np.random.default_rng(6)
    speaker = np.repeat(np.arange(8), rng.integers(1, 5, 8))
    y, weights = rng.normal(size=len(speaker)), rng.random(len(speaker))
    for w in (None, weights):
        without = np.array([np.average(y[speaker != s], weights=None if w is None else w[speaker != s])
                            for s in range(8)])
        expected = jackknife_variance(without)
        assert variance_over_speakers(y, speaker, speaker, w) == pytest.approx(expected)


def test_effective_trials():
    """Trials of a speaker that are copies of one count as one; independent ones count all; no error, no count."""
    rng = np.random.default_rng(8)
    size, copies = 200, 5
    speaker = np.repeat(np.arange(size), copies)
    names = [f"{n:03d}" for n in range(size)]
    missed = rng.random(size) < 0.3
    impostor = (speaker + 1 + np.arange(len(speaker)) % copies) % size
    enroll, test = np.concatenate((speaker, speaker)), np.concatenate((speaker, impostor))
    target = np.arange(2 * len(speaker)) < len(speaker)
    accepted = np.concatenate((~missed[speaker], rng.random(len(speaker)) < 0.3))
    found = effective_trials(np.where(accepted, 1.0, -1.0), target, TrialSpeakers(enroll, test, names), 0.0)
    assert found[0] == pytest.approx(size, rel=0.01)
    assert 0.7 * len(speaker) < found[1] <= len(speaker)
    nothing = effective_trials(np.where(target, 1.0, -1.0), target, TrialSpeakers(enroll, test, names), 0.0)
    assert np.isnan(nothing).all()


# --------------------------------------------------------------------------------------------------- coverage


def test_coverage():
    """95 % intervals over speakers cover the true Pmiss of scores with large effects of speakers, naive ones do not."""
    rng = np.random.default_rng(9)
    enroll, test = all_pairs(20, 4)
    target = enroll == test
    speakers = TrialSpeakers(enroll, test, [f"{n:02d}" for n in range(20)])
    covered = {"jackknife": [], "bootstrap": [], "naive": []}
    for _ in range(80):
        u, v = rng.normal(size=(2, 20))
        common = np.where(target, v[enroll], (u[enroll] + u[test]) / np.sqrt(2.0))
        scores = np.where(target, 1.0, -1.0) + np.sqrt(0.6) * common + np.sqrt(0.4) * rng.normal(size=len(target))
        roc = roc_of(scores, target)
        for method, hits in covered.items():
            options = IntervalOptions(ci=method, ci_replicates=40)
            interval = confidence(roc, target, speakers, {"eer": MEASURES["eer"]}, options)["eer"]
            hits.append(interval.low <= 0.15865525 <= interval.high)  # of normal scores one deviation apart
    assert 0.87 <= np.mean(covered["jackknife"]) <= 1.0
    assert 0.87 <= np.mean(covered["bootstrap"]) <= 1.0
    assert np.mean(covered["naive"]) < 0.8


# ---------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize("method", ("jackknife", "bootstrap", "naive"))
def test_equal_and_different_systems(method):
    scores, target, speakers = data(12)
    options = IntervalOptions(ci=method, ci_replicates=60)
    roc = roc_of(scores, target)
    for difference in paired_difference(roc, roc_of(scores.copy(), target), target, speakers, MEASURES,
                                        options).values():
        assert difference[2:] == (0.0, 0.0, 0.0, 0.0, 1.0)
    worse = roc_of(scores + 5.0 * np.random.default_rng(0).normal(size=len(scores)), target)
    there = paired_difference(roc, worse, target, speakers, MEASURES, options)
    back = paired_difference(worse, roc, target, speakers, MEASURES, options)
    for name in ("cllr", "min_cllr", "eer"):
        assert there[name].p_value < 0.05 and there[name].high < 0.0 and there[name].difference < 0.0
        assert back[name].difference == -there[name].difference
        if method != "naive":  # which numbers trials by the scores of the first system
            assert back[name].p_value == pytest.approx(there[name].p_value, rel=1e-6)


def test_p_value_agrees_with_the_interval():
    spread = Spread(np.random.default_rng(1).normal(size=(30, 1))[:, 0], None, False, 9.0)
    t = spread.quantile(0.9)
    assert spread.p_value(t) == pytest.approx(0.1) and spread.p_value(-t) == pytest.approx(0.1)
    assert spread._replace(degrees=np.inf).p_value(1.959963985) == pytest.approx(0.05)


def test_size_of_the_paired_test():
    """Two systems that are equally good differ with p < 0.1 in about 10 % of all cases, not in many more."""
    rng, found = np.random.default_rng(10), []
    enroll, test = all_pairs(16, 3)
    target = enroll == test
    speakers = TrialSpeakers(enroll, test, [f"{n:02d}" for n in range(16)])
    for _ in range(100):
        rocs = []
        shared = rng.normal(size=len(target))
        for _ in range(2):
            u, v = rng.normal(size=(2, 16))
            common = np.where(target, v[enroll], u[enroll])
            rocs.append(roc_of(np.where(target, 1.0, -1.0) + common + shared + rng.normal(size=len(target)), target))
        measures = {"eer": MEASURES["eer"]}
        found.append(paired_difference(*rocs, target, speakers, measures, IntervalOptions(ci="jackknife"))["eer"].p_value)
    assert 0.02 <= np.mean(np.array(found) < 0.1) <= 0.17
    assert 0.3 <= np.mean(np.array(found) < 0.5) <= 0.62


# ----------------------------------------------------------------------------------------- speakers of the trials


def trial_list(*lines):
    """A TrialList of `<enroll> <test> <label>` lines."""
    enroll, test, label = zip(*(line.split() for line in lines))
    enroll_ids, test_ids = list(dict.fromkeys(enroll)), list(dict.fromkeys(test))
    return TrialList("trials", enroll_ids, test_ids, np.array([enroll_ids.index(word) for word in enroll], np.int32),
                     np.array([test_ids.index(word) for word in test], np.int32),
                     np.array([word == "target" for word in label]))


def names_of(speakers):
    return ([speakers.names[n] for n in speakers.enroll], [speakers.names[n] for n in speakers.test])


def test_speakers_of_utterances_and_of_names(tmp_path, caplog):
    table = write_lines(tmp_path / "utt2spk", "a1 A", "b1 B", "b2 B", "z1 Z")
    trials = trial_list("B b2 target", "a1 b2 nontarget", "b1 b2 target", "A b2 nontarget")
    speakers = speakers_of(trials, SpeakerOptions(table))
    assert names_of(speakers) == (["B", "A", "B", "A"], ["B", "B", "B", "B"])
    assert speakers.names == ["A", "B"]  # of these trials alone
    warn_of_few_speakers(speakers)
    assert "only 2 speakers" in caplog.text
    chosen = speakers.select(np.array([True, False, True, False]))
    assert chosen.names == ["B"] and chosen.enroll.tolist() == chosen.test.tolist() == [0, 0]


def test_speakers_of_models_by_their_own_table(tmp_path):
    table = write_lines(tmp_path / "utt2spk", "a1 A", "b1 B")
    models = write_lines(tmp_path / "models", "m A", "n B")
    speakers = speakers_of(trial_list("m a1 target", "n a1 nontarget"), SpeakerOptions(table, models))
    assert names_of(speakers) == (["A", "B"], ["A", "A"])


@pytest.mark.parametrize(
    "lines, message",
    [
        (["x a1 target"], r"x: enrolment id of trials without a speaker; --utt2spk \(or --enroll-utt2spk\).*1 of 1"),
        (["a1 x target", "a1 a1 target"], r"x: test id of trials without a speaker; --utt2spk .*1 of 2 test ids"),
        (["a1 A target"], r"A: test id"),
        (["a1 b1 target", "a1 a1 target", "b1 a1 target"], r"2 target trials are of two speakers.*'a1 b1' of A and B"),
        (["a1 b1 nontarget", "A a1 nontarget"], r"1 nontarget trials are of one speaker.*'A a1' of A"),
    ],
)
def test_bad_speakers(tmp_path, lines, message):
    table = write_lines(tmp_path / "utt2spk", "a1 A", "b1 B")
    with pytest.raises(VoxarkError, match=message):
        speakers_of(trial_list(*lines), SpeakerOptions(table))


def test_bad_speaker_tables(tmp_path):
    trials = trial_list("a1 a1 target")
    with pytest.raises(VoxarkError, match="--utt2spk=<table>"):
        speakers_of(trials, SpeakerOptions())
    twice = write_lines(tmp_path / "twice", "a1 A", "a1 B")
    with pytest.raises(VoxarkError, match="a1.* occurs twice"):
        speakers_of(trials, SpeakerOptions(twice))
    table = write_lines(tmp_path / "utt2spk", "a1 A")
    with pytest.raises(VoxarkError, match=r"m: enrolment id .*--enroll-utt2spk must"):
        speakers_of(trial_list("m a1 target"), SpeakerOptions(table, table))


# ---------------------------------------------------------------------------------------------------- programs


def test_compute_eer_with_intervals(tmp_path):
    scores, target, speakers = data(8)
    ids = [(f"{speakers.names[e]}-e", f"{speakers.names[t]}-{n}")
           for n, (e, t) in enumerate(zip(speakers.enroll, speakers.test))]
    labels = ["target" if is_target else "nontarget" for is_target in target]
    lines = [f"{e} {t} {label}" for (e, t), label in zip(ids, labels)]
    scored = [f"{e} {t} {score:.6f}" for (e, t), score in zip(ids, scores)]
    names = {word: word.partition("-")[0] for pair in ids for word in pair}
    table = write_lines(tmp_path / "utt2spk", *(f"{word} {name}" for word, name in sorted(names.items())))
    outputs = []
    for order in (1, -1):
        write_lines(tmp_path / "trials", *lines[::order])
        write_lines(tmp_path / "scores", *scored[:: -order])
        outputs.append(run("compute-eer", "--ci=jackknife", f"--utt2spk={table}", "--format=csv",
                           tmp_path / "trials", tmp_path / "scores").stdout)
    assert outputs[0] == outputs[1]
    rounded = np.round(scores, 6)
    expected = confidence(roc_of(rounded, target), target, speakers, MEASURES, IntervalOptions(ci="jackknife"))
    header, row = (line.split(",") for line in outputs[0].decode().splitlines())
    assert float(row[header.index("eer_low")]) == pytest.approx(expected["eer"].low, rel=1e-5)
    assert float(row[header.index("eer_high")]) == pytest.approx(expected["eer"].high, rel=1e-5)
    failed = run("compute-eer", "--ci=jackknife", tmp_path / "trials", tmp_path / "scores", check=False)
    assert failed.returncode == 1 and "--utt2spk" in failed.stderr


@needs_data("speechocean762")
def test_speakers_of_recorded_speech():
    from voxark.trials.lists import read_trials

    folder = shared_data("speechocean762/test")
    trials = read_trials(str(folder / "trials"))
    speakers = speakers_of(trials, SpeakerOptions(f"ark:{folder / 'utt2spk'}"))
    assert len(speakers.names) == 50
    assert ((speakers.enroll == speakers.test) == trials.target).all()


def test_interval_coverage_script():
    script = [sys.executable, str(ROOT / "local/mini/interval_coverage.py"), "--num-speakers=6", "--ci-replicates=20"]
    done = subprocess.run([*script, "--num-simulations=2", "--unequal=true"], capture_output=True, text=True,
                          env=environment(), check=True)
    table = [line.split("|")[1:-1] for line in done.stdout.splitlines()]
    assert [row[1].strip() for row in table[3:]] == ["naive", "percentile", "bootstrap", "jackknife"]
    true = dict(zip((word.strip() for word in table[0][2:]), map(float, table[2][2:])))
    assert true["min_dcf(0.01)"] == true["act_dcf(0.01)"] and true["eer"] == pytest.approx(0.0671, abs=2e-4)
    done = subprocess.run([*script, "--methods=nothing"], capture_output=True, text=True, env=environment())
    assert done.returncode == 1 and "nothing" in done.stderr and "Traceback" not in done.stderr


def test_the_coverage_recipe_leaves_nothing_of_an_earlier_run_when_it_fails(tmp_path):
    (tmp_path / "results.md").write_text("of an earlier run\n")
    recipe = [str(ROOT / "egs/mini/interval_coverage.sh"), "--num-simulations", "2", "--num-speakers", "6"]
    done = subprocess.run([*recipe, "--models", "nothing", str(tmp_path)], capture_output=True, text=True,
                          env=environment())
    assert done.returncode == 1 and "nothing" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
