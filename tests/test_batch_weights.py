"""Weights of the trials of mini-batches: every batch of a tiny set is written out, and its probability."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from test_blue import all_pairs

from voxark.e2e.batch_weights import SpeakerDraw, batch_weights, own_weights, speaker_sizes
from voxark.errors import VoxarkError
from voxark.trials import blue
from voxark.trials.correlations import Correlations

COUNTS = np.array([2, 3, 1, 4, 3])
FIRST = np.concatenate(([0], np.cumsum(COUNTS)[:-1]))
SPEAKER = np.repeat(np.arange(5), COUNTS)
CORRELATIONS = Correlations.of_chain(0.3)


def speaker_sets(draw):
    """(set of speakers, probability) of all batches of speakers, from the odds, or all alike."""
    sets = list(itertools.combinations(range(len(COUNTS)), draw.number))
    if draw._odds is None:
        return [(chosen, 1.0 / len(sets)) for chosen in sets]
    odds = draw._odds[draw._group]
    always = set(np.flatnonzero(np.isinf(odds)))
    products = [
        np.prod([odds[s] for s in chosen if s not in always]) if always <= set(chosen) else 0.0 for chosen in sets
    ]
    return [(chosen, product / sum(products)) for chosen, product in zip(sets, products)]


def batches(draw, cap):
    """(utterances, probability) of every batch."""
    for chosen, probability in speaker_sets(draw):
        own = [
            list(itertools.combinations(range(FIRST[s], FIRST[s] + COUNTS[s]), min(COUNTS[s], cap or 99)))
            for s in chosen
        ]
        for utterances in itertools.product(*own):
            share = probability / np.prod([len(each) for each in own])
            yield np.concatenate(utterances).astype(int), share


def objective(correlations):
    """Weights (U,U) of all trials of the set, upper triangle, each class summing to 1."""
    wanted = np.zeros((len(SPEAKER), len(SPEAKER)))
    targets, nontargets, _ = all_pairs(COUNTS)
    if correlations is None:
        wanted[tuple(targets)], wanted[tuple(nontargets)] = 1 / targets.shape[1], 1 / nontargets.shape[1]
        return wanted
    of_targets = blue.target_classes(COUNTS, correlations.target)
    of_nontargets = blue.nontarget_classes(COUNTS, correlations.nontarget)
    counts = COUNTS[SPEAKER]
    wanted[tuple(targets)] = of_targets.weight[np.searchsorted(of_targets.n, counts[targets[0]])]
    wanted[tuple(nontargets)] = of_nontargets.weight[tuple(np.searchsorted(of_nontargets.n, counts[nontargets]))]
    return wanted


def draws():
    """Ways to draw speakers: uniform, by the weight of their target trials, and by sizes that fix some."""
    return {
        "uniform": SpeakerDraw.uniform(5, 3),
        "size": SpeakerDraw.proportional(speaker_sizes(COUNTS, CORRELATIONS.target), 3),
        "skewed": SpeakerDraw.proportional([1.0, 30.0, 2.0, 1.0, 1.5], 3),
    }


@pytest.mark.parametrize("name", ["uniform", "size", "skewed"])
@pytest.mark.parametrize("cap", [0, 2, 3])
@pytest.mark.parametrize("correlations", [None, CORRELATIONS])
def test_the_mean_over_all_batches_is_the_objective(name, cap, correlations):
    draw = draws()[name]
    weights = batch_weights(COUNTS, correlations, draw, cap)
    total, probability = np.zeros((len(SPEAKER), len(SPEAKER))), 0.0
    for utterances, share in batches(draw, cap):
        total[np.ix_(utterances, utterances)] += share * weights.of_pairs(SPEAKER[utterances])
        probability += share
    assert probability == pytest.approx(1.0)
    upper = np.triu_indices(len(SPEAKER), 1)
    np.testing.assert_allclose(total[upper], objective(correlations)[upper], rtol=1e-9)


@pytest.mark.parametrize("name", ["uniform", "size", "skewed"])
def test_speakers_are_drawn_as_said(name):
    draw = draws()[name]
    single, pair = np.zeros(5), np.zeros((5, 5))
    for chosen, share in speaker_sets(draw):
        single[list(chosen)] += share
        pair[np.ix_(chosen, chosen)] += share
    np.testing.assert_allclose(draw.inclusion, single, rtol=1e-9)
    a, b = np.triu_indices(5, 1)
    np.testing.assert_allclose(draw.joint(a, b), pair[a, b], rtol=1e-8)
    rng, found, number = np.random.default_rng(2), np.zeros((5, 5)), 20000
    for _ in range(number):
        chosen = draw.draw(rng)
        assert len(np.unique(chosen)) == 3
        found[np.ix_(chosen, chosen)] += 1 / number
    np.testing.assert_allclose(found[a, b], pair[a, b], atol=0.015)


def test_probabilities_are_proportional_to_sizes_up_to_one():
    sizes = np.array([1.0, 2.0, 3.0, 4.0, 100.0, 2.0])
    draw = SpeakerDraw.proportional(sizes, 3)
    assert draw.inclusion.sum() == pytest.approx(3.0) and draw.inclusion[4] == 1.0
    np.testing.assert_allclose(draw.inclusion[:4] / sizes[:4], 2 / 12, rtol=1e-6)
    many = np.random.default_rng(0).integers(2, 60, 2000)
    draw = SpeakerDraw.proportional(speaker_sizes(many, CORRELATIONS.target), 64)
    assert draw.inclusion.sum() == pytest.approx(64.0, rel=1e-9)
    np.testing.assert_allclose(draw.inclusion / speaker_sizes(many, CORRELATIONS.target), 64 / np.sum(
        speaker_sizes(many, CORRELATIONS.target)), rtol=2e-6)  # fmt: skip
    speakers = np.arange(2000)
    others = np.array([draw.joint(s, np.delete(speakers, s)).sum() for s in (0, 1, 500)])
    np.testing.assert_allclose(others, 63 * draw.inclusion[[0, 1, 500]], rtol=1e-8)
    assert len(draw.draw(np.random.default_rng(1))) == 64
    assert SpeakerDraw.proportional([1.0, 5.0], 2).inclusion.tolist() == [1.0, 1.0]


def test_weights_of_batches_a_are_the_objective_up_to_a_factor_and_of_b_by_number_of_trials():
    draw = SpeakerDraw.uniform(5, 3)
    of_all = batch_weights(COUNTS, CORRELATIONS, draw)
    wanted = blue.target_classes(COUNTS, CORRELATIONS.target)
    have = COUNTS >= 2
    place = np.searchsorted(wanted.n, COUNTS[have])
    np.testing.assert_allclose(of_all.target[have], wanted.weight[place] * 5 / 3)
    assert of_all.target[2] == 0.0
    two = batch_weights(COUNTS, CORRELATIONS, draw, cap=2)
    sizes = speaker_sizes(COUNTS, CORRELATIONS.target)
    np.testing.assert_allclose(two.target[have], sizes[have] / sizes[have].sum() * 5 / 3)
    one = two.of_pairs(np.array([0, 0, 3, 3, 2]))
    across = blue.nontarget_classes(COUNTS, CORRELATIONS.nontarget)
    between = across.weight[tuple(np.searchsorted(across.n, [2, 4]))]
    assert one[0, 2] == pytest.approx(between / float(Fraction(comb(3, 1), comb(5, 2))) * 2 * 4 / 4)


def test_drawing_speakers_by_size_makes_the_target_weights_of_batches_b_equal():
    counts = np.array([2, 3, 5, 8, 8, 20, 4])
    draw = SpeakerDraw.proportional(speaker_sizes(counts, CORRELATIONS.target), 3)
    weights = batch_weights(counts, CORRELATIONS, draw, cap=2)
    np.testing.assert_allclose(weights.target, 1 / 3, rtol=3e-6)


def test_uniform_weights_of_batches_b_are_the_objective_of_full_correlation():
    """c1 = c2 = 1: every speaker counts the same, whatever his number of utterances."""
    every = batch_weights(COUNTS, Correlations(type(CORRELATIONS.target).of_correlations(1.0, 1.0),
                                               CORRELATIONS.nontarget), SpeakerDraw.uniform(5, 3), cap=2)  # fmt: skip
    have = COUNTS >= 2
    np.testing.assert_allclose(every.target[have], every.target[0])


def test_own_counts_of_a_batch():
    speakers = np.array([7, 7, 9, 9, 4, 4])
    weights = own_weights(speakers, CORRELATIONS)
    upper = np.triu_indices(6, 1)
    same = (speakers[:, None] == speakers)[upper]
    np.testing.assert_allclose(weights[upper][same], 1 / 3)  # two of each speaker: all alike
    np.testing.assert_allclose(weights[upper][~same], 1 / 12)
    speakers = np.repeat([5, 1, 3], [2, 4, 3])
    weights = own_weights(speakers, CORRELATIONS)
    expected = blue.target_classes([2, 4, 3], CORRELATIONS.target)
    np.testing.assert_allclose(weights[0, 1], expected.weight[0])
    np.testing.assert_allclose(weights[2, 3], expected.weight[2])
    same = (speakers[:, None] == speakers)[upper := np.triu_indices(9, 1)]
    np.testing.assert_allclose([weights[upper][same].sum(), weights[upper][~same].sum()], 1.0)


def test_what_makes_no_batch_is_refused():
    with pytest.raises(VoxarkError, match="cannot be drawn"):
        SpeakerDraw.uniform(3, 4)
    with pytest.raises(VoxarkError, match="cannot be drawn"):
        SpeakerDraw.uniform(3, 1)
    with pytest.raises(VoxarkError, match="positive"):
        SpeakerDraw.proportional([1.0, 0.0, 2.0], 2)
    with pytest.raises(VoxarkError, match="never meet"):
        SpeakerDraw.proportional([1.0, 30.0, 2.0, 1.0], 2)
    with pytest.raises(VoxarkError, match="no target trials"):
        batch_weights(COUNTS, CORRELATIONS, SpeakerDraw.uniform(5, 3), cap=1)
    with pytest.raises(VoxarkError, match="no target"):
        batch_weights(np.ones(5, int), None, SpeakerDraw.uniform(5, 3))
