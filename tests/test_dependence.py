"""Correlations of trials from sums over groups, against loops over pairs of trials, blocks and simulation."""

import itertools
import math

import numpy as np
import pytest
from test_blue import MIXED, all_pairs, random_components, sharing_of

from voxark.errors import VoxarkError
from voxark.trials.correlations import NontargetComponents, TargetComponents
from voxark.trials.dependence import DependenceOptions, estimate, expected_sums, fit_components, trial_losses


def kind_of(one, other, speaker):
    """What two different trials share, or None."""
    utterances = len(set(one) & set(other))
    speakers = len({speaker[a] for a in one} & {speaker[a] for a in other})
    if speaker[one[0]] == speaker[one[1]]:
        return None if not speakers else "c1" if utterances else "c2"
    names = {(2, 1): "c_us", (2, 0): "c_ss", (1, 1): "c_u", (1, 0): "c_s"}
    return names.get((speakers, utterances))


def loops(pairs, speaker, x):
    """Sums of products and numbers of ordered pairs of trials by kind, pair by pair."""
    trials = [tuple(pair) for pair in pairs.T.tolist()]
    sums, counts = {"same": float(x @ x)}, {"same": len(x)}
    for i, j in itertools.permutations(range(len(trials)), 2):
        kind = kind_of(trials[i], trials[j], speaker)
        if kind:
            sums[kind] = sums.get(kind, 0.0) + x[i] * x[j]
            counts[kind] = counts.get(kind, 0) + 1
    return sums, counts


@pytest.mark.parametrize("is_target", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_sums_over_groups_are_those_of_all_pairs_of_trials(is_target, share):
    rng = np.random.default_rng(4)
    targets, nontargets, speaker = all_pairs(MIXED)
    pairs = targets if is_target else nontargets
    pairs = pairs[:, rng.random(pairs.shape[1]) < share]
    x = rng.normal(size=pairs.shape[1])
    sharing = sharing_of(pairs, speaker)
    sums, counts = loops(pairs, speaker, x)
    assert sharing.pair_counts() == counts
    found = sharing.pair_sums(x)
    assert found.keys() == sums.keys()
    for kind in sums:
        assert found[kind] == pytest.approx(sums[kind], abs=1e-10), kind


def test_sums_of_a_speaker_block_and_of_a_pair_of_speakers():
    """The block formulas: row sums of a symmetric block, row and column sums of a rectangular one."""
    rng = np.random.default_rng(5)
    n = 6
    targets, _, speaker = all_pairs([n])
    block = np.zeros((n, n))
    block[tuple(targets)] = block[tuple(targets[::-1])] = x = rng.normal(size=targets.shape[1])
    rows, total, squares = block.sum(axis=1), x.sum(), x @ x
    sums, counts = sharing_of(targets, speaker).pair_sums(x), sharing_of(targets, speaker).pair_counts()
    assert sums["c1"] == pytest.approx(rows @ rows - 2 * squares)
    assert sums["c2"] == pytest.approx(total**2 - rows @ rows + squares)
    assert (counts["c1"], counts["c2"]) == (n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3) // 4)

    _, nontargets, speaker = all_pairs([4, 3])
    block = rng.normal(size=(4, 3))
    x = block[nontargets[0], nontargets[1] - 4]
    rows, columns, squares = block.sum(axis=1), block.sum(axis=0), np.sum(block**2)
    sums = sharing_of(nontargets, speaker).pair_sums(x)
    assert sums["c_us"] == pytest.approx(rows @ rows + columns @ columns - 2 * squares)
    assert sums["c_ss"] == pytest.approx(block.sum() ** 2 - rows @ rows - columns @ columns + squares)
    assert sums["c_u"] == pytest.approx(0, abs=1e-12) and sums["c_s"] == pytest.approx(0, abs=1e-12)


def simulate(rng, components, pairs, speaker, gaussian=True):
    """Values (T,) of trials with the covariance of the components."""
    def draw(*shape):
        return rng.standard_normal(shape) if gaussian else rng.exponential(size=shape) - 1.0

    size = int(speaker.max()) + 1
    deviations = np.sqrt(components)
    a, b = pairs
    of_speaker, of_utterance = draw(size) * deviations[0], draw(len(speaker)) * deviations[1]
    x = of_utterance[a] + of_utterance[b] + of_speaker[speaker[a]] + draw(len(a)) * deviations[-1]
    if len(components) == 5:
        low, high = np.minimum(*speaker[pairs]), np.maximum(*speaker[pairs])
        of_pair, of_cross = draw(size, size) * deviations[2], draw(len(speaker), size) * deviations[3]
        x += of_speaker[speaker[b]] + of_pair[low, high] + of_cross[a, speaker[b]] + of_cross[b, speaker[a]]
    return x


@pytest.mark.parametrize("is_target", [True, False])
def test_simulated_components_are_recovered(is_target):
    rng = np.random.default_rng(6)
    counts = rng.integers(2, 8 if is_target else 5, 2000 if is_target else 300)
    speaker = np.repeat(np.arange(len(counts)), counts)
    if is_target:
        first = np.concatenate(([0], np.cumsum(counts)[:-1]))
        pairs = np.concatenate([f + np.stack(np.triu_indices(n, 1)) for f, n in zip(first, counts)], axis=1)
        truth = TargetComponents.of_components(0.25, 0.2)
    else:
        pairs = np.stack(np.triu_indices(len(speaker), 1))
        pairs = pairs[:, speaker[pairs[0]] != speaker[pairs[1]]]
        truth = NontargetComponents.of_components(0.1, 0.1, 0.15, 0.1)
    x = 3.0 + 2.0 * simulate(rng, truth, pairs, speaker, gaussian=not is_target)
    found = estimate(sharing_of(pairs, speaker), x, speaker[pairs], 20)
    assert found.variance == pytest.approx(4.0, rel=0.2)
    np.testing.assert_allclose(found.components, truth, atol=0.03)
    for kind, value in truth.correlations.items():
        assert abs(found.correlations[kind] - value) < 4 * found.errors[kind], kind
        assert 0 < found.errors[kind] < 0.1


def test_the_estimated_mean_is_allowed_for():
    """Means over simulations with seven speakers: plain averages are biased, what is fitted is not."""
    rng = np.random.default_rng(8)
    _, pairs, speaker = all_pairs(MIXED)
    truth = NontargetComponents.of_components(0.2, 0.1, 0.1, 0.05)
    sharing = sharing_of(pairs, speaker)
    counts = sharing.pair_counts()
    expected, kinds = expected_sums(sharing, counts)
    total, number = np.zeros(len(kinds)), 4000
    for _ in range(number):
        x = simulate(rng, truth, pairs, speaker)
        sums = sharing.pair_sums(x - x.mean())
        total += [sums[kind] for kind in kinds]
    sizes = np.array([counts[kind] for kind in kinds])
    np.testing.assert_allclose(total / number / sizes, expected @ np.array(truth) / sizes, atol=0.01)
    plain = dict(zip(kinds, total / number / sizes))
    assert plain["c_s"] < truth.correlations["c_s"] - 0.05
    again = fit_components(sharing, dict(zip(kinds, expected @ np.array(truth))), counts)
    np.testing.assert_allclose(again, truth, atol=1e-9)


def test_negative_components_are_projected_away():
    """Trials that repel each other: the fit stays within what is valid for any list."""
    targets, _, speaker = all_pairs(np.full(40, 4))
    rng = np.random.default_rng(9)
    x = rng.normal(size=targets.shape[1])
    sums = np.bincount(speaker[targets[0]], x)
    x -= sums[speaker[targets[0]]] / 6  # each speaker's trials sum to 0: their correlations are below 0
    found = estimate(sharing_of(targets, speaker), x)
    assert found.measured["c1"] < 0 and min(found.components) >= 0
    assert found.components.u == 0.0


def test_kinds_that_do_not_occur_are_said_to_be_absent():
    """One utterance a speaker: nothing tells the pair of speakers from the trial alone."""
    rng = np.random.default_rng(10)
    _, pairs, speaker = all_pairs(np.ones(30, int))
    truth = NontargetComponents.of_components(0.1, 0.2, 0.0, 0.0)
    found = estimate(sharing_of(pairs, speaker), simulate(rng, truth, pairs, speaker))
    assert found.counts == {"c_us": 0, "c_ss": 0, "c_u": 30 * 29 * 28 // 2, "c_s": 0}
    assert found.measured["c_ss"] is None and (found.components.u, found.components.p, found.components.q) == (0, 0, 0)
    assert 0.1 < found.components.v < 0.5


def test_standard_errors_are_the_spread_over_simulations():
    rng = np.random.default_rng(11)
    targets, _, speaker = all_pairs(np.full(60, 4))
    truth, sharing = TargetComponents.of_components(0.3, 0.2), sharing_of(targets, speaker)
    found, errors = [], []
    for number in range(120):
        x = simulate(rng, truth, targets, speaker)
        dependence = estimate(sharing, x, speaker[targets], 60 if number < 30 else 0)
        found.append(list(dependence.correlations.values()))
        if dependence.errors:
            errors.append(list(dependence.errors.values()))
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(found, axis=0), rtol=0.3)


def test_losses_and_scores():
    scores = np.array([-2.0, 0.5, 800.0])
    for is_target in (True, False):
        sign = -1.0 if is_target else 1.0
        offset = math.log(0.1 / 0.9)
        exact = [sign * (s + offset) for s in scores]
        expected = [math.log1p(math.exp(x)) if x < 700 else x for x in exact]
        np.testing.assert_allclose(trial_losses(scores, is_target, 0.1), expected, rtol=1e-12, atol=1e-300)
        assert DependenceOptions(on="score").values(scores, is_target).tolist() == scores.tolist()


def test_nothing_is_said_of_constants_or_of_one_trial():
    targets, _, speaker = all_pairs([4, 4])
    with pytest.raises(VoxarkError, match="the same"):
        estimate(sharing_of(targets, speaker), np.full(12, 0.1))
    with pytest.raises(VoxarkError, match="more than 1"):
        estimate(sharing_of(targets[:, :1], speaker), np.ones(1))
    for options in (DependenceOptions(p_target=1.0), DependenceOptions(num_groups=1)):
        with pytest.raises(VoxarkError):
            options.check()


def test_random_components_are_used_fully():
    """Guards the tests above: what they draw has no component that is nearly 0."""
    assert min(random_components(np.random.default_rng(4), NontargetComponents)) > 1e-3
