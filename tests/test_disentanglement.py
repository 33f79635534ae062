"""Measures of disentanglement on arrays whose factors are known."""

import dataclasses
import math

import numpy as np
import pytest

from helpers import save_ark, write_lines

from voxark.backend.vector_table import VectorTable
from voxark.disentanglement.dci import dci, importances
from voxark.disentanglement.factors import (
    FactorOptions,
    labels_at,
    named_files,
    read_factors,
    read_labels,
    segment_middles,
    sequence_factor,
)
from voxark.disentanglement.latents import ACTIVE_VARIANCE, gaussian_kl, map_means, usage
from voxark.disentanglement.measure import MeasureOptions, gain_ratio, measure_factor, measure_segments
from voxark.disentanglement.movement import Encoder, distance, movements, places_at_speed, spread
from voxark.disentanglement.probes import measure, probe
from voxark.disentanglement.purity import knn_purity
from voxark.disentanglement.segments import Segments, read_segments
from voxark.disentanglement.splits import MIN_TEST, MIN_TRAIN, split_segments
from voxark.disentanglement.transformations import (
    TransformationOptions,
    add_noise,
    drawn_noise,
    filtered,
    parse_response,
    transformations,
)
from voxark.disentanglement.verification import cosine_eer
from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.trials.lists import TrialList

NUM_SPEAKERS, NUM_UTTERANCES, NUM_SEGMENTS, NUM_PHONES, DIM = 8, 6, 12, 4, 6


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def made_segments(seed=0, leak=0.0):
    """(Segments, speakers of utterances, phones of segments): z2 has the speaker, z1 the phone.

    ``leak``: how much of the speaker there is in z1.
    """
    rng = np.random.default_rng(seed)
    num = NUM_SPEAKERS * NUM_UTTERANCES
    utterance, index = np.repeat(np.arange(num), NUM_SEGMENTS), np.tile(np.arange(NUM_SEGMENTS), num)
    speakers, phones = np.arange(num) // NUM_UTTERANCES, rng.integers(NUM_PHONES, size=len(utterance))
    of_speaker, of_phone = rng.standard_normal((NUM_SPEAKERS, DIM)), rng.standard_normal((NUM_PHONES, DIM))
    z1 = of_phone[phones] + leak * of_speaker[speakers[utterance]]
    z1 = z1 + 0.2 * rng.standard_normal((len(utterance), DIM))
    z2 = of_speaker[speakers[utterance]] + 0.2 * rng.standard_normal((len(utterance), DIM))
    keys = [f"utt{number:03d}" for number in range(num)]
    segments = Segments(keys, utterance, index, z1.astype(np.float32), z2.astype(np.float32))
    return segments, speakers, phones


def a_split(labels, groups, rng, **options):
    names = [f"class{number}" for number in range(int(labels.max()) + 1)]
    return split_segments(labels, names, groups, rng, **options)


# --------------------------------------------------------------------------------------------------- splits


def test_a_split_of_speakers_divides_no_utterance_and_has_each_speaker_on_both_sides(rng):
    segments, speakers, _ = made_segments()
    labels = speakers[segments.utterance]
    split = a_split(labels, segments.utterance, rng)
    groups = segments.utterance[split.rows]
    assert not set(groups[split.is_test]) & set(groups[~split.is_test])
    for side in (split.is_test, ~split.is_test):
        assert set(split.labels[side]) == set(range(NUM_SPEAKERS))
    assert np.sum(split.is_test) == NUM_SPEAKERS * 2 * NUM_SEGMENTS  # a quarter of six, rounded
    np.testing.assert_array_equal(split.labels, labels[split.rows])
    for k in range(NUM_SPEAKERS):  # every class is outside of each fold, too
        assert len(set(split.fold[(split.labels == k) & ~split.is_test])) >= 2
    for group in set(groups[~split.is_test]):
        assert len(set(split.fold[groups == group])) == 1
    assert (split.fold[split.is_test] == -1).all() and (split.fold[~split.is_test] >= 0).all()


def test_a_split_of_phones_keeps_speakers_apart(rng):
    segments, speakers, phones = made_segments()
    split = a_split(phones, speakers[segments.utterance], rng)
    groups = speakers[segments.utterance][split.rows]
    assert not set(groups[split.is_test]) & set(groups[~split.is_test])
    assert len(set(groups[split.is_test])) == NUM_SPEAKERS // 4


def test_classes_with_too_little_are_left_out_and_named(rng):
    groups = np.repeat(np.arange(20), 10)
    labels = np.repeat(np.array([0] * 9 + [1] * 9 + [2] * 2), 10)
    split = a_split(labels, groups, rng)
    assert split.names == ["class0", "class1"] and set(split.labels) == {0, 1}
    assert "in 2 utterances" in split.left_out["class2"]
    labels = np.tile(np.arange(2), 100)
    labels[::70] = 2  # three segments of three groups: too few for both sides
    split = a_split(labels, groups, rng)
    assert split.names == ["class0", "class1"]
    assert f"{MIN_TRAIN} and {MIN_TEST} are needed" in split.left_out["class2"]
    assert not (labels[split.rows] == 2).any() and len(split.is_test) == len(split.rows)
    with pytest.raises(VoxarkError, match="1 of 2 classes have segments enough.*class1: in 1 utt"):
        a_split(np.repeat([0] * 9 + [1], 10), np.repeat(np.arange(10), 10), rng)


def test_segments_without_label_and_beyond_the_limit_take_no_part():
    labels, groups = np.tile([0, 1, -1], 400), np.repeat(np.arange(40), 30)
    split = a_split(labels, groups, np.random.default_rng(3), max_segments=300)
    assert len(split.rows) == 300 and (labels[split.rows] >= 0).all() and (np.diff(split.rows) > 0).all()
    few = a_split(np.arange(1200) % 10, groups, np.random.default_rng(3), max_classes=4)
    assert len(few.names) == 4 and set(few.left_out.values()) == {"not drawn"} and len(few.left_out) == 6
    again = a_split(labels, groups, np.random.default_rng(3), max_segments=300)
    for value, same in zip(split, again):
        np.testing.assert_array_equal(value, same)


# --------------------------------------------------------------------------------------------------- probes


def test_the_measures_of_a_probe_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
    labels = np.array([0, 1, 1, 2])
    found = measure(np.log(p) + 7.0, labels)
    assert (found.accuracy, found.majority, found.gain) == (0.75, 0.5, 0.5)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    cross_entropy = -np.log([0.7, 0.6, 0.4, 0.6]).mean()
    assert found.entropy == pytest.approx(entropy) and found.cross_entropy == pytest.approx(cross_entropy)
    assert found.information == pytest.approx(entropy - cross_entropy)
    huge = measure(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 1]))
    assert huge.cross_entropy == 0.0 and huge.information == pytest.approx(math.log(2))


def test_probes_find_a_factor_where_it_is_and_nowhere_else():
    segments, speakers, phones = made_segments()
    speaker = sequence_factor("speaker", [str(number) for number in speakers], segments)
    found = measure_factor(speaker, segments, MeasureOptions())
    assert found.probes["z2"].gain > 0.97 and abs(found.probes["z1"].gain) < 0.1
    assert found.probes["z2"].information > 0.9 * found.probes["z2"].entropy
    assert found.probes["z1"].information < 0.1
    assert found.purity["z2"].purity > 0.95 and found.purity["z1"].purity < 0.25
    phone = speaker._replace(name="phone", kind="segment", labels=phones, names=list("abcd"),
                             groups=speakers[segments.utterance])
    found = measure_factor(phone, segments, MeasureOptions())
    assert found.probes["z1"].gain > 0.97 and abs(found.probes["z2"].gain) < 0.15
    assert found.ratio > 5


def binary_problem(flip, rng):
    """(x (N,1), Split) of labels of 400 groups of 50, and the labels with errors of probability ``flip``."""
    groups = np.repeat(np.arange(400), 50)
    labels = rng.integers(2, size=len(groups))
    split = a_split(labels, groups, rng)
    flipped = labels ^ (rng.random(len(labels)) < flip)
    return flipped[split.rows, None].astype(np.float32), split


def test_information_of_a_binary_channel_is_that_of_its_table(rng):
    x, split = binary_problem(0.1, rng)
    found = probe(x, split, rng)
    joint = np.histogram2d(x[split.is_test, 0], split.labels[split.is_test], bins=2)[0]
    joint /= joint.sum()
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    plug_in = float(np.sum(joint * np.log(joint / outer)))
    assert plug_in == pytest.approx(math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9), abs=0.03)
    assert found.information == pytest.approx(plug_in, abs=2e-3)
    assert found.information <= plug_in + 1e-9  # of one table on both sides it is a lower bound


def test_information_of_two_gaussians_is_the_closed_form(rng):
    labels = rng.integers(2, size=20000)
    x = (2.0 * labels - 1.0 + rng.standard_normal(len(labels)))[:, None]
    split = a_split(labels, np.repeat(np.arange(400), 50), rng)
    t = np.linspace(-9.0, 9.0, 20001)
    density = np.exp(-0.5 * (t - 1.0) ** 2) / math.sqrt(2 * math.pi)
    closed = math.log(2) - float(np.sum(density * np.log1p(np.exp(-2.0 * t))) * (t[1] - t[0]))
    assert probe(x[split.rows], split, rng).information == pytest.approx(closed, abs=0.02)


def test_the_scale_of_a_latent_changes_nothing_and_a_constant_dimension_does_no_harm():
    segments, speakers, _ = made_segments(leak=0.3)
    split = a_split(speakers[segments.utterance], segments.utterance, np.random.default_rng(0))
    x = segments.z1[split.rows].astype(np.float64)
    plain = probe(x, split, np.random.default_rng(0))
    scaled = probe(np.hstack([1e3 * x + 5.0, np.full((len(x), 1), 3.0)]), split, np.random.default_rng(0))
    assert 0.1 < plain.gain < 0.95
    assert scaled.accuracy == pytest.approx(plain.accuracy, abs=0.01)
    assert scaled.cross_entropy == pytest.approx(plain.cross_entropy, abs=0.01)
    assert np.abs(scaled.weights[:, -1]).max() < 1e-6
    x[3, 1] = np.nan
    with pytest.raises(VoxarkError, match="NaN or infinite"):
        probe(x, split, np.random.default_rng(0))


def test_gain_ratios():
    assert gain_ratio(0.6, 0.3) == 2.0 and gain_ratio(0.6, 0.0) == math.inf
    assert gain_ratio(0.6, -0.1) == math.inf and math.isnan(gain_ratio(-0.1, 0.0))


# --------------------------------------------------------------------------------------- neighbours and DCI


def test_purity_by_brute_force(rng):
    segments, speakers, _ = made_segments(leak=0.2)
    split = a_split(speakers[segments.utterance], segments.utterance, rng)
    x = segments.z1[split.rows]
    found = knn_purity(x, split)
    train, test = np.flatnonzero(~split.is_test), np.flatnonzero(split.is_test)
    shares, pairs = [], 0
    for row in test:
        distances = np.sum((x[train].astype(np.float64) - x[row]) ** 2, axis=1)
        nearest = train[np.argsort(distances)[:10]]
        shares.append(np.mean(split.labels[nearest] == split.labels[row]))
        pairs += np.sum(split.labels[train] == split.labels[row])
    assert found.purity == pytest.approx(np.mean(shares), abs=1e-3)
    assert found.chance == pytest.approx(pairs / (len(train) * len(test)))
    few = split._replace(rows=split.rows[:3], labels=np.array([0, 1, 0]), is_test=np.array([0, 0, 1], bool))
    assert knn_purity(x[:3], few).purity == 0.5  # of two neighbours where there are but two


def test_dci_of_a_permutation_is_1_of_equal_importance_0():
    permutation = np.eye(4)[[2, 0, 3, 1]] * np.array([1.0, 5.0, 0.1, 2.0])
    found = dci(permutation)
    assert found.disentanglement == 1.0 and (found.completeness == 1.0).all()
    found = dci(np.ones((4, 3)))
    assert found.disentanglement == pytest.approx(0.0) and found.completeness == pytest.approx(np.zeros(3))
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0]
    assert dci(np.abs(rotation)).disentanglement < 0.3


def test_dci_by_hand():
    found = dci(np.array([[3.0, 0.0], [1.0, 2.0]]))  # columns become (3/4, 1/4), (0, 1)
    np.testing.assert_allclose(found.share, [[0.75, 0.0], [0.25, 1.0]])

    def entropy(p):
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    assert found.disentanglement == pytest.approx((0.75 * 1.0 + 1.25 * (1.0 - entropy(0.2))) / 2.0)
    np.testing.assert_allclose(found.completeness, [1.0 - entropy(0.25), 1.0])
    assert math.isnan(dci(np.ones((3, 1))).disentanglement)
    assert np.isnan(dci(np.ones((1, 2))).completeness).all()
    assert dci(np.zeros((2, 2))).disentanglement == 0.0  # nothing is important: nothing is claimed


def test_dci_by_probes_tells_a_code_of_factors_from_its_rotation(rng):
    factors = rng.integers(2, size=(4000, 4))
    code = 2.0 * factors - 1.0 + 0.3 * rng.standard_normal((4000, 4))
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]

    def disentanglement(x):
        columns = []
        for labels in factors.T:
            split = a_split(labels, np.repeat(np.arange(80), 50), np.random.default_rng(0))
            columns.append(importances(probe(x[split.rows], split, rng).weights))
        return dci(np.stack(columns, axis=1)).disentanglement

    assert disentanglement(code[:, [3, 1, 0, 2]]) > 0.7 > 0.4 > disentanglement(code @ rotation)


# -------------------------------------------------------------------------------------------------- latents


def test_divergences_are_the_integrals():
    t = np.linspace(-15, 15, 60001)

    def log_normal(mean, variance):
        return -0.5 * (np.log(2 * np.pi * variance) + (t - mean) ** 2 / variance)

    for mean, variance, prior_mean, prior_variance in ((0.7, 0.3, 0.0, 1.0), (-0.4, 0.1, 0.2, 0.25)):
        log_p, log_q = log_normal(mean, variance), log_normal(prior_mean, prior_variance)
        integral = np.sum(np.exp(log_p) * (log_p - log_q)) * (t[1] - t[0])
        found = gaussian_kl(mean, variance, prior_mean, prior_variance)
        assert found == pytest.approx(integral, rel=1e-6)
    assert gaussian_kl(0.0, 1.0) == 0.0


def test_active_units_and_divergences_of_each_dimension(rng):
    mean = rng.standard_normal((500, 3)) * np.array([1.0, 0.001, 0.2])
    variance = np.array([[0.1, 1.0, 0.9]]) * np.ones((500, 1))
    found = usage(mean, variance)
    assert found.num_active == 2 and found.kl[1] < 1e-5 < found.kl[2] < found.kl[0]
    assert (mean.var(axis=0) > ACTIVE_VARIANCE).tolist() == [True, False, True]
    np.testing.assert_allclose(found.kl, gaussian_kl(mean, variance).mean(axis=0))
    assert usage(mean).kl is None


def test_estimates_of_utterances_and_divergence_of_z2_from_its_own_prior():
    segments, _, _ = made_segments()
    expected = [segments.z2[segments.utterance == u].sum(0, dtype=np.float64) / (NUM_SEGMENTS + 0.25)
                for u in range(len(segments.keys))]
    mu2 = map_means(segments.z2, segments.utterance, len(segments.keys), 0.25)
    np.testing.assert_allclose(mu2, expected, rtol=1e-12)
    segments.z1_var, segments.z2_var = np.ones_like(segments.z1), np.full_like(segments.z2, 0.25)
    found = measure_segments(segments, [], MeasureOptions()).usage
    distances = np.mean((segments.z2 - np.array(expected)[segments.utterance]) ** 2, axis=0)
    np.testing.assert_allclose(found["z2"].kl, distances / 0.5, rtol=1e-6)
    squares = np.mean(segments.z1.astype(np.float64) ** 2, axis=0)
    np.testing.assert_allclose(found["z1"].kl, squares / 2, rtol=1e-6)
    with pytest.raises(VoxarkError, match="must be positive"):
        MeasureOptions(pz2_var=0.0).check()


def test_equal_error_rates_are_those_of_cosines(rng):
    vectors = rng.standard_normal((30, 5))
    vectors[:15, 0] += 2.0
    ids = [f"u{number}" for number in range(30)]
    enroll, test = np.triu_indices(30, 1)
    target = (enroll < 15) == (test < 15)
    trials = TrialList("trials", ids, ids, enroll.astype(np.int32), test.astype(np.int32), target)
    scores = np.array([vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
                       for a, b in zip(enroll, test)])
    found = cosine_eer(trials, VectorTable(ids, vectors))
    assert found.eer == pytest.approx(Roc(scores[target], scores[~target]).eer()[0], abs=1e-12)
    assert (found.num_target, found.num_nontarget) == (target.sum(), (~target).sum())
    shuffled = rng.permutation(30)
    assert cosine_eer(trials, VectorTable([ids[n] for n in shuffled], vectors[shuffled])) == found
    fewer = VectorTable(ids[:29], vectors[:29])
    with pytest.raises(VoxarkError, match="29 of 435 trials have no vector of a side, the first is 'u0 u29'"):
        cosine_eer(trials, fewer)
    assert cosine_eer(trials, fewer, allow_missing=True).num_target == target[test < 29].sum()
    with pytest.raises(VoxarkError, match="no nontarget trials"):
        cosine_eer(trials.select(target), VectorTable(ids, vectors))
    with pytest.raises(VoxarkError, match="third column"):
        cosine_eer(dataclasses.replace(trials, target=None), VectorTable(ids, vectors))


# ---------------------------------------------------------------------------------------------------- factors


def test_labels_stand_at_the_middle_of_a_segment(tmp_path):
    options = FactorOptions(segment_shift=10)
    np.testing.assert_allclose(segment_middles(np.arange(3), options), [0.1075, 0.2075, 0.3075])
    centred = FactorOptions(frame_length=10.0)
    np.testing.assert_allclose(segment_middles(np.arange(2), centred), [0.1, 0.3])
    write_lines(tmp_path / "ctm", "a 1 0.20 0.10 b", "a 1 0.00 0.15 x", "b 1 0 1 x", "a 1 0.3 0.01 c")
    found = read_labels(tmp_path / "ctm")
    times = [0.0, 0.149, 0.15, 0.16, 0.2, 0.299, 0.305, 0.311]
    assert labels_at(times, *found["a"]) == ["x", "x", None, None, "b", "b", "c", None]
    mapped = read_labels(tmp_path / "ctm", {"x": "X", "b": "B"})
    assert labels_at(times, *mapped["a"]) == ["X", "X", None, None, "B", "B", None, None]


def test_factors_of_tables(tmp_path):
    segments, speakers, phones = made_segments()
    write_lines(tmp_path / "utt2spk", *(f"{key} spk{s}" for key, s in zip(segments.keys, speakers)))
    write_lines(tmp_path / "spk2gender", *(f"spk{s} {'mf'[s % 2]}" for s in range(NUM_SPEAKERS)))
    write_lines(tmp_path / "ctm", *(f"{segments.keys[u]} 1 {0.2 * n:.3f} 0.2 p{p}"
                                    for u, n, p in zip(segments.utterance, segments.index, phones)))
    write_lines(tmp_path / "map", "p0 P", "p1 P", "p2 Q")
    options = FactorOptions(
        utt2spk=str(tmp_path / "utt2spk"), factors=f"gender={tmp_path}/spk2gender", speaker_disjoint="gender",
        ctm=f"phone={tmp_path}/ctm,class={tmp_path}/ctm", ctm_map=f"class={tmp_path}/map")
    speaker, gender, phone, classes = read_factors(options, segments)
    np.testing.assert_array_equal(speaker.labels, speakers[segments.utterance])
    np.testing.assert_array_equal(speaker.groups, segments.utterance)
    assert gender.names == ["f", "m"] and gender.disjoint == "speaker"
    np.testing.assert_array_equal(gender.labels, 1 - speakers[segments.utterance] % 2)
    np.testing.assert_array_equal(gender.groups, speakers[segments.utterance])
    np.testing.assert_array_equal(phone.labels, phones)
    assert (phone.kind, phone.disjoint, phone.names) == ("segment", "speaker", ["p0", "p1", "p2", "p3"])
    np.testing.assert_array_equal(classes.labels, np.array([0, 0, 1, -1])[phones])
    options.ctm_map = str(tmp_path / "map")
    assert [of.names for of in read_factors(options, segments)[2:]] == [["P", "Q"]] * 2
    alone = read_factors(FactorOptions(ctm=f"phone={tmp_path}/ctm"), segments)[0]
    assert alone.disjoint == "utterance"
    np.testing.assert_array_equal(alone.groups, segments.utterance)


def test_versions_of_an_utterance_are_kept_together(tmp_path):
    segments, speakers, _ = made_segments()
    originals = np.arange(len(speakers)) // 2  # each two utterances are one, say through two microphones
    write_lines(tmp_path / "utt2spk", *(f"{key} spk{s}" for key, s in zip(segments.keys, speakers)))
    write_lines(tmp_path / "utt2uniq", *(f"{key} o{n}" for key, n in zip(segments.keys[:-2], originals)))
    write_lines(tmp_path / "utt2mic", *(f"{key} {'ab'[n % 2]}" for n, key in enumerate(segments.keys)))
    options = FactorOptions(utt2spk=str(tmp_path / "utt2spk"), factors=f"mic={tmp_path}/utt2mic",
                            utt2uniq=str(tmp_path / "utt2uniq"))
    for factor in read_factors(options, segments):
        assert factor.disjoint == "original"
        groups = dict(zip(segments.utterance.tolist(), factor.groups.tolist()))
        for one in range(len(speakers) - 2):
            assert {n for n in groups if groups[n] == groups[one]} == set(np.flatnonzero(originals == originals[one]))
        assert groups[len(speakers) - 1] != groups[len(speakers) - 2]  # not in the table: by itself
    options.speaker_disjoint = "mic"
    assert read_factors(options, segments)[1].disjoint == "speaker"
    write_lines(tmp_path / "utt2uniq", "other o1")
    with pytest.raises(VoxarkError, match="none of the latents' utterances"):
        read_factors(options, segments)


@pytest.mark.parametrize("options, message", [
    ({"factors": "noise"}, "name=file,name=file is expected, found 'noise'"),
    ({"factors": "a=x,a=y"}, "'a' stands there twice"),
    ({"speaker_disjoint": "a"}, "'a' is none of --factors"),
    ({"factors": "a=x", "speaker_disjoint": "a"}, "needs --utt2spk"),
    ({"factors": "a=x", "ctm": "a=y"}, "'a' is there twice"),
    ({"ctm": "phone=nosuchfile"}, "nosuchfile: no such file"),
    ({"segment_shift": 0}, "must be positive"),
])
def test_wrong_factors_are_refused(options, message):
    with pytest.raises(VoxarkError, match=message):
        read_factors(FactorOptions(**options), made_segments()[0])
    assert named_files("", "ctm") == {}


def test_a_table_of_other_utterances_is_refused(tmp_path):
    write_lines(tmp_path / "utt2noise", "other car")
    with pytest.raises(VoxarkError, match="factor noise: no segment has a label"):
        read_factors(FactorOptions(factors=f"noise={tmp_path}/utt2noise"), made_segments()[0])


class _Counts:
    """What read_segments tells voxark.cli.Counts."""

    def __init__(self):
        self.failed, self.num_done = {}, 0

    def done(self, number=1):
        self.num_done += number

    def fail(self, key, reason):
        self.failed[key] = reason

    def leave_out(self, number, entries):
        assert number == len(entries)


def test_tables_are_read_together_whatever_their_order(tmp_path, rng):
    lengths = {"b": 2, "a": 3, "c": 2, "d": 2}
    z1 = {key: rng.standard_normal((n, 3)).astype(np.float32) for key, n in lengths.items()}
    z2 = {key: rng.standard_normal((len(z1[key]), 2)).astype(np.float32) for key in ("a", "b", "c")}
    z2["c"] = z2["c"][:1]
    counts = _Counts()
    found = read_segments(save_ark(tmp_path / "1", z1), save_ark(tmp_path / "2", z2), counts)
    assert found.keys == ["a", "b"] and counts.num_done == 2 and set(counts.failed) == {"c", "d"}
    assert "1 segments of z2, 2 of z1" in counts.failed["c"] and "is not in" in counts.failed["d"]
    np.testing.assert_array_equal(found.z1, np.concatenate([z1["a"], z1["b"]]))
    np.testing.assert_array_equal(found.z2, np.concatenate([z2["a"], z2["b"]]))
    assert found.utterance.tolist() == [0, 0, 0, 1, 1] and found.index.tolist() == [0, 1, 2, 0, 1]
    logarithms = save_ark(tmp_path / "v", {key: -np.ones_like(x) for key, x in z1.items()})
    with pytest.raises(VoxarkError, match="no utterance has both"):
        read_segments(f"ark:{tmp_path}/1", f"ark:{tmp_path}/2", counts, z1_var=logarithms)
    assert "are they logarithms?" in counts.failed["a"]
    z1["e"] = z1["a"][:, :2]
    z2["e"] = z2["a"]
    with pytest.raises(VoxarkError, match="e: z1: dimension 2, but b: z1 has 3"):
        read_segments(save_ark(tmp_path / "1", z1), save_ark(tmp_path / "2", z2), counts)


# -------------------------------------------------------------------------------------------- transformations

RATE = 16000


def tone(frequency, seconds=1.0):
    return (1000.0 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def by_name(**options):
    return {change.name: change for change in transformations(TransformationOptions(**options), RATE)}


def test_the_transformations_that_options_name():
    names = list(by_name(gains="-6,3", snrs="0", speeds="1.2", shifts="4"))
    assert names == ["gain -6 dB", "gain +3 dB", "microphone", "noise 0 dB", "speed 1.2", "shift 4 frames",
                     "another segment"]
    assert list(by_name(gains="", filter="", snrs="", speeds="", shifts="")) == ["another segment"]


def test_gains_filters_noise_and_speed_do_what_they_say():
    x, inner = tone(1000.0), slice(4000, 12000)
    changes = by_name(gains="-20", filter="500:0,2000:-12", snrs="10", speeds="2")
    np.testing.assert_allclose(changes["gain -20 dB"].wave(x, "u"), 0.1 * x, rtol=1e-6)
    half = changes["microphone"].wave(x, "u")
    np.testing.assert_allclose(half[inner], 10 ** (-6 / 20) * x[inner], atol=2.0)
    y = changes["noise 10 dB"].wave(x, "u")
    noise = y.astype(np.float64) - x
    ratio = np.mean(x.astype(np.float64) ** 2) / np.mean(noise**2)
    assert 10 * np.log10(ratio) == pytest.approx(10.0, abs=1e-3)
    np.testing.assert_array_equal(y, changes["noise 10 dB"].wave(x, "u"))
    assert np.abs(y - changes["noise 10 dB"].wave(x, "v")).max() > 1.0
    fast = changes["speed 2"].wave(x, "u")
    assert len(fast) == len(x) // 2 and changes["speed 2"].speed == 2.0
    np.testing.assert_allclose(fast[2000:6000], tone(2000.0)[2000:6000], atol=5.0)


def test_noise_is_pink_or_a_stretch_of_one_of_those_given(rng):
    noise = drawn_noise([], 1 << 16, rng)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[1 << n : 2 << n].sum() for n in range(6, 14)]
    assert max(octaves) < 1.6 * min(octaves)
    given = [np.arange(5.0), np.arange(100.0, 107.0)]
    for _ in range(20):
        found = drawn_noise(given, 12, rng)
        which = given[int(found[0] >= 100)]
        start = int(found[0] - which[0])
        np.testing.assert_array_equal(found, np.take(which, np.arange(start, start + 12), mode="wrap"))
    np.testing.assert_array_equal(add_noise(np.zeros(4), np.ones(4), 0.0), np.zeros(4))
    flat = filtered(tone(100.0), RATE, (np.array([10.0]), np.array([0.0])))
    np.testing.assert_allclose(flat, tone(100.0), atol=1e-3)


@pytest.mark.parametrize("options, message", [
    ({"gains": "loud"}, "--gains=loud: numbers from -60 to 60"),
    ({"speeds": "0.1"}, "--speeds=0.1: numbers from 0.5 to 2"),
    ({"shifts": "2.5"}, "--shifts=2.5: numbers from 1 to 1000"),
    ({"filter": "100"}, "frequency:gain"),
    ({"filter": "200:1,100:2"}, "by frequency"),
    ({"filter": "100:x"}, "frequency:gain"),
    ({"noise": "scp:nosuchfile"}, "nosuchfile"),
])
def test_wrong_transformations_are_refused(options, message):
    with pytest.raises(VoxarkError, match=message):
        transformations(TransformationOptions(**options), RATE)
    assert parse_response("100:-20,8000:3")[1].tolist() == [-20.0, 3.0]


# -------------------------------------------------------------------------------------------------- movements


def levels(samples, key=""):
    """Frames of one dimension, ln of the mean square of 160 samples."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(np.float64)
    return np.log(np.mean(frames**2, axis=1) + 1e-10)[:, None]


def ideal(cut):
    """z2: the mean level of a segment; z1: its first and last frame's departure from it."""
    mean = cut.mean(axis=1)
    return cut[:, [0, -1], 0] - mean, mean


def ideal_encoder():
    return Encoder(ideal, 4, 0.25, levels, 10.0, 10.0)


def made_waves(number=12):
    rng = np.random.default_rng(5)
    waves = []
    for place in range(number):
        pattern = np.exp(rng.standard_normal(24)).repeat(160)
        waves.append((f"u{place}", (np.exp(rng.standard_normal()) * pattern * rng.standard_normal(24 * 160))))
    return waves


def test_movements_of_a_perfect_encoder(rng):
    options = TransformationOptions(gains="-10", filter="", snrs="", speeds="", shifts="1")
    changes = transformations(options, RATE)
    waves = made_waves()
    gain, shift, other = movements(waves, changes, ideal_encoder(), rng, shift=4)
    z1, z2 = zip(*(ideal(levels(x).reshape(-1, 4, 1)) for _, x in waves))
    utterance = np.repeat(np.arange(len(waves)), 6)
    z1, z2 = np.concatenate(z1), np.concatenate(z2)
    apart = utterance[:, None] != utterance
    exact = [np.sqrt(np.sum((z[:, None] - z) ** 2, axis=2)[apart].mean()) for z in (z1, z2)]
    mu2 = z2.reshape(len(waves), 6).sum(axis=1) / 6.25
    of_mu2 = np.sqrt(np.mean((mu2[:, None] - mu2)[~np.eye(len(waves), dtype=bool)] ** 2))
    assert gain.z1 < 1e-6 and gain.z2 == pytest.approx(np.log(10.0) / exact[1], rel=0.03)
    assert gain.mu2 == pytest.approx(np.log(10.0) * 6 / 6.25 / of_mu2, rel=0.03)
    assert gain.num_segments == len(waves) * 6
    cuts = [np.stack([levels(x)[start : start + 4] for start in range(1, 21, 4)]) for _, x in waves]
    after = np.concatenate([ideal(cut)[0] for cut in cuts])
    moved = distance(z1.reshape(len(waves), 6, 2)[:, :5].reshape(-1, 2), after) / exact[0]
    assert shift.z1 == pytest.approx(moved, rel=0.03) and shift.num_segments == len(waves) * 5
    assert other.z1 > 0.8 and other.z2 < other.z1 and other.kind == "segment"


def test_spread_is_that_of_all_pairs_of_different_utterances(rng):
    x, utterance = rng.standard_normal((60, 3)), np.repeat(np.arange(6), 10)
    x += 3.0 * utterance[:, None]
    apart = utterance[:, None] != utterance
    exact = np.sqrt(np.sum((x[:, None] - x) ** 2, axis=2)[apart].mean())
    assert spread(x, utterance, rng) == pytest.approx(exact, rel=0.02)
    assert spread(x[:10], utterance[:10], rng) == 0.0
    assert distance(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(np.sqrt(12.5))


def test_segments_at_another_speed_have_the_same_middle():
    encoder = Encoder(None, 20, 0.25, None, 10.0, 25.0)
    starts = np.arange(0, 200, 20)
    np.testing.assert_array_equal(places_at_speed(starts, encoder, 1.0), starts)
    for speed in (0.9, 1.1):
        places = places_at_speed(starts, encoder, speed)
        middle, after = starts * 10 + 107.5, places * 10 + 107.5
        assert np.abs(after - middle / speed).max() <= 5.0 + 1e-9


def test_a_sweep_is_found_again_at_another_speed(rng):
    def ramps(samples, key):
        return np.linspace(0, len(samples) / 160, len(samples) // 160)[:, None] * samples[0]

    encoder = Encoder(lambda cut: (cut.mean(axis=1), cut.mean(axis=1)), 4, 0.25, ramps, 10.0, 10.0)
    options = TransformationOptions(gains="", filter="", snrs="", speeds="0.8", shifts="")
    slow = transformations(options, RATE)[0]
    slow = slow._replace(wave=lambda x, key: np.full(len(x) * 5 // 4, 0.8) * x[0])
    waves = [(f"u{n}", np.full(160 * 40, float(n + 1))) for n in range(4)]
    found = movements(waves, [slow], encoder, rng, shift=4)[0]
    assert found.num_segments == 40 and found.z1 < 0.03  # what was at time t is at t / 0.8, of 0.8 the level


def test_too_little_audio_is_refused_and_short_utterances_take_no_part(rng):
    options = TransformationOptions(gains="-10", filter="", snrs="", speeds="", shifts="30")
    changes = transformations(options, RATE)
    with pytest.raises(VoxarkError, match="1 utterances have 4 frames, two are needed"):
        movements(made_waves(1), changes, ideal_encoder(), rng)
    waves = [*made_waves(3), ("short", np.ones(320))]
    gain, shift, other = movements(waves, changes, ideal_encoder(), rng, shift=4)
    assert gain.num_segments == 18 and shift.num_segments == 0 and math.isnan(shift.z1)
