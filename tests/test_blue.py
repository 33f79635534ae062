"""Best linear unbiased weights of dependent trials, against covariance matrices written out and simulation."""

import numpy as np
import pytest

from voxark.errors import VoxarkError
from voxark.trials import blue
from voxark.trials.correlations import Correlations, NontargetComponents, TargetComponents
from voxark.trials.lists import TrialList
from voxark.trials.sharing import Sharing, classes_of_list
from voxark.trials.speakers import TrialSpeakers

MIXED = np.array([2, 3, 3, 5, 1, 4, 2])


def all_pairs(counts):
    """Targets (2,T) and nontargets (2,T) of all pairs of utterances, and the speaker of each utterance."""
    speaker = np.repeat(np.arange(len(counts)), counts)
    pairs = np.stack(np.triu_indices(len(speaker), 1))
    same = speaker[pairs[0]] == speaker[pairs[1]]
    return pairs[:, same], pairs[:, ~same], speaker


def correlation(one, other, speaker, correlations):
    """The correlation of two trials by what they share, told by sets: no components, no sums over groups."""
    utterances = set(one) & set(other)
    speakers = {speaker[a] for a in one} & {speaker[a] for a in other}
    if len(utterances) == 2:
        return 1.0
    if "c1" in correlations:
        return 0.0 if not speakers else correlations["c1" if utterances else "c2"]
    if len(speakers) == 2:
        return correlations["c_us" if utterances else "c_ss"]
    return 0.0 if not speakers else correlations["c_u" if utterances else "c_s"]


def covariance(pairs, speaker, correlations):
    """The matrix S of the trials (2,T), entry by entry."""
    trials = [tuple(pair) for pair in pairs.T.tolist()]
    return np.array([[correlation(a, b, speaker, correlations) for b in trials] for a in trials])


def sharing_of(pairs, speaker):
    """The Sharing of trials (2,T) of one class."""
    if speaker[pairs[0, 0]] == speaker[pairs[1, 0]]:
        return Sharing.of_targets(pairs, speaker[pairs[0]])
    return Sharing.of_nontargets(pairs, speaker[pairs])


def random_components(rng, cls):
    """Random valid components."""
    shares = rng.dirichlet(np.ones(len(cls._fields)))
    multiples = {"u": 2, "v": 2, "p": 1, "q": 2} if cls is NontargetComponents else {"u": 1, "v": 2}
    return cls.of_components(*(share / multiples[name] for name, share in zip(cls._fields[:-1], shares)))


@pytest.mark.parametrize("seed", range(6))
def test_closed_forms_and_any_list_are_the_inverse_of_the_covariance(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 7, 6)
    counts[0] = 3
    targets, nontargets, speaker = all_pairs(counts)
    for pairs, cls, classes in (
        (targets, TargetComponents, blue.target_classes),
        (nontargets, NontargetComponents, blue.nontarget_classes),
    ):
        components = random_components(rng, cls)
        matrix = covariance(pairs, speaker, components.correlations)
        best = np.linalg.solve(matrix, np.ones(len(matrix)))
        variance, uniform = 1.0 / best.sum(), matrix.mean()
        best *= variance
        found = classes(counts, components)
        place = np.searchsorted(found.n, counts[speaker[pairs]])
        closed = found.weight[tuple(place)] if cls is NontargetComponents else found.weight[place[0]]
        np.testing.assert_allclose(closed, best, rtol=1e-9)
        np.testing.assert_allclose([found.variance, found.uniform_variance], [variance, uniform], rtol=1e-9)
        of_list = blue.list_weights(sharing_of(pairs, speaker), components, tolerance=1e-12)
        np.testing.assert_allclose(of_list.weight, best, rtol=1e-8)
        np.testing.assert_allclose([of_list.variance, of_list.uniform_variance], [variance, uniform], rtol=1e-9)
        assert of_list.weight.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("is_target", [True, False])
def test_weights_of_a_list_with_holes(is_target):
    rng = np.random.default_rng(3)
    pairs, speaker = all_pairs(MIXED)[0 if is_target else 1], all_pairs(MIXED)[2]
    pairs = pairs[:, rng.random(pairs.shape[1]) < 0.6]
    components = random_components(rng, TargetComponents if is_target else NontargetComponents)
    matrix = covariance(pairs, speaker, components.correlations)
    sharing, w = sharing_of(pairs, speaker), rng.normal(size=pairs.shape[1])
    np.testing.assert_allclose(sharing.apply(w, components), matrix @ w, atol=1e-12)
    best = np.linalg.solve(matrix, np.ones(len(matrix)))
    found = blue.list_weights(sharing, components, tolerance=1e-12)
    np.testing.assert_allclose(found.weight, best / best.sum(), rtol=1e-7)
    assert found.weight.std() > 0.01 * found.weight.mean() and found.variance < found.uniform_variance


@pytest.mark.parametrize("c", [0.05, 0.2, 0.5])
def test_the_system_of_nontarget_classes_is_that_of_all_pairs_of_counts(c):
    """The P (P + 1) / 2 equations for w(n,m) themselves, of any size, solved by elimination."""
    counts = np.concatenate([np.full(k % 3 + 1, n) for k, n in enumerate(range(1, 13))])
    found = blue.nontarget_classes(counts, NontargetComponents.of_chain(c))
    c_us, c_ss, c_u, c_s = c, c * c, c * c, c**3
    n, size = found.n.tolist(), dict(zip(found.n.tolist(), found.num_speakers.tolist()))
    classes = [(a, b) for i, a in enumerate(n) for b in n[i:] if a != b or size[a] > 1]
    place = {pair: row for row, pair in enumerate(classes)}
    system = np.zeros((len(classes), len(classes)))
    for row, (a, b) in enumerate(classes):
        system[row, row] += 1 + (a + b - 2) * c_us + (a - 1) * (b - 1) * c_ss
        for p in n:
            others = (size[p] - (p == a) - (p == b)) * p
            for one in (a, b):
                if others:
                    system[row, place[min(one, p), max(one, p)]] += others * (c_u + (one - 1) * c_s)
    weights = np.linalg.solve(system, np.ones(len(classes)))
    trials = [size[a] * (size[a] - 1) // 2 * a * a if a == b else size[a] * size[b] * a * b for a, b in classes]
    weights /= np.dot(trials, weights)
    where = np.searchsorted(found.n, np.array(classes).T)
    np.testing.assert_allclose(found.weight[tuple(where)], weights, rtol=1e-9)
    assert np.triu(found.num_trials).sum() == sum(trials)


def test_without_correlation_across_pairs_of_speakers_the_weight_is_one_over_the_sum_of_a_row():
    components = NontargetComponents.of_components(0.0, 0.0, 0.2, 0.1)
    found = blue.nontarget_classes(MIXED, components)
    n, m = np.meshgrid(found.n, found.n)
    c = components.correlations
    expected = 1.0 / (1.0 + (n + m - 2) * c["c_us"] + (n - 1) * (m - 1) * c["c_ss"])
    there = found.num_trials > 0
    np.testing.assert_allclose((found.weight / expected)[there], (found.weight / expected)[there][0])


def test_equal_numbers_of_utterances_make_all_weights_equal():
    targets, nontargets, speaker = all_pairs(np.full(5, 4))
    for pairs, components in zip((targets, nontargets), Correlations.of_chain(0.4)):
        found = blue.list_weights(sharing_of(pairs, speaker), components)
        np.testing.assert_allclose(found.relative, 1.0, rtol=1e-12)
        assert found.variance == pytest.approx(found.uniform_variance, rel=1e-12)


def test_a_speaker_weight_grows_no_more_when_his_trials_are_correlated():
    components = TargetComponents.of_chain(0.3)
    n = np.array([2, 10, 1000, 100000])
    totals = n * (n - 1) / 2 / blue.target_row_sum(n, components)
    assert (np.diff(totals) > 0).all() and totals[-1] == pytest.approx(1 / 0.09, rel=1e-3)
    one = TargetComponents.of_correlations(1.0, 1.0)
    np.testing.assert_allclose(n * (n - 1) / 2 / blue.target_row_sum(n, one), 1.0)


def test_one_utterance_gives_no_target_trial():
    alone = blue.target_classes(np.array([1, 3, 1, 5]), TargetComponents.of_chain(0.2))
    np.testing.assert_allclose(alone.weight, blue.target_classes([3, 5], TargetComponents.of_chain(0.2)).weight)
    with pytest.raises(VoxarkError, match="two utterances"):
        blue.target_classes([1, 1], TargetComponents.of_chain(0.2))
    with pytest.raises(VoxarkError, match="two speakers"):
        blue.nontarget_classes([4], NontargetComponents.of_chain(0.2))


# ----------------------------------------------------------------------------------- valid correlations, and not


@pytest.mark.parametrize("make, condition", [
    (lambda: TargetComponents.of_correlations(0.3, -0.1), "c2 >= 0"),
    (lambda: TargetComponents.of_correlations(0.1, 0.2), "c1 >= c2"),
    (lambda: TargetComponents.of_correlations(0.8, 0.3), "1 - 2 c1 \\+ c2 >= 0"),
    (lambda: NontargetComponents.of_correlations(0.7, 0.49, 0.49, 0.343), "c_ss >= 2 c_s"),
    (lambda: NontargetComponents.of_correlations(0.3, 0.2, 0.05, 0.1), "c_u >= c_s"),
    (lambda: NontargetComponents.of_correlations(0.1, 0.2, 0.1, 0.1), "c_us \\+ c_s >= c_u \\+ c_ss"),
    (lambda: NontargetComponents.of_correlations(0.9, 0.5, 0.1, 0.1), "1 - 2 c_us \\+ c_ss >= 0"),
    (lambda: NontargetComponents.of_correlations(0.9, 0.5, 0.1, -0.1), "c_s >= 0"),
    (lambda: NontargetComponents.of_components(0.3, 0.3, 0.0, 0.0), "2u \\+ 2v"),
    (lambda: Correlations.of_chain(0.7), "c <= 0.5"),
    (lambda: TargetComponents.of_chain(1.2), "0 <= c <= 1"),
])  # fmt: skip
def test_correlations_of_no_covariance_are_refused_by_the_condition_they_break(make, condition):
    with pytest.raises(VoxarkError, match=condition):
        make()


def test_what_is_refused_is_indefinite_for_some_list_and_what_is_accepted_is_not():
    """The chain of nontargets at c = 0.7; and at 0.5, its limit, on the same lists."""
    nontargets, speaker = all_pairs(np.full(6, 4))[1:]
    for c, is_valid in ((0.7, False), (0.5, True)):
        values = {"c_us": c, "c_ss": c * c, "c_u": c * c, "c_s": c**3}
        smallest = np.linalg.eigvalsh(covariance(nontargets, speaker, values))[0]
        assert (smallest > -1e-10) == is_valid, (c, smallest)
    targets, _, speaker = all_pairs(np.full(2, 9))
    for c1, c2 in ((0.1, -0.2), (0.05, 0.3), (0.8, 0.3)):
        assert np.linalg.eigvalsh(covariance(targets, speaker, {"c1": c1, "c2": c2}))[0] < -0.01


def test_components_and_correlations_are_the_same_thing():
    for cls in (TargetComponents, NontargetComponents):
        components = random_components(np.random.default_rng(1), cls)
        np.testing.assert_allclose(cls.of_correlations(**components.correlations), components, atol=1e-12)


def test_a_covariance_without_a_part_for_the_single_trial():
    """S is singular, but the vector of ones is in its range: the list has weights, the classes refuse."""
    _, nontargets, speaker = all_pairs(MIXED)
    additive = NontargetComponents.of_components(0.25, 0.25, 0.0, 0.0)
    some = nontargets[:, ::3]
    found = blue.list_weights(sharing_of(some, speaker), additive, tolerance=1e-11)
    matrix = covariance(some, speaker, additive.correlations)
    assert found.variance == pytest.approx(1.0 / np.linalg.pinv(matrix, 1e-10).sum(), rel=1e-8)
    assert found.weight @ matrix @ found.weight == pytest.approx(found.variance, rel=1e-8)
    with pytest.raises(VoxarkError, match="p = q = e = 0"):
        blue.nontarget_classes(MIXED, additive)


def test_iterations_that_do_not_suffice_are_an_error():
    _, nontargets, speaker = all_pairs(MIXED)
    with pytest.raises(VoxarkError, match="no solution after 2 iterations .*larger part"):
        blue.list_weights(sharing_of(nontargets, speaker), NontargetComponents.of_chain(0.4), max_iters=2)


# ---------------------------------------------------------------------------------------------------- simulation


def test_the_variance_of_the_weighted_average_is_as_predicted_and_below_the_plain_one():
    rng = np.random.default_rng(7)
    counts, num_draws = np.array([2, 2, 3, 2, 12, 3, 20, 2]), 40000
    targets, nontargets, speaker = all_pairs(counts)
    keep = rng.permutation(nontargets.shape[1])[:150]
    for pairs, components in (
        (targets, TargetComponents.of_components(0.3, 0.2)),
        (nontargets[:, keep], NontargetComponents.of_components(0.1, 0.08, 0.2, 0.05)),
    ):
        a, b = pairs
        draw = rng.standard_normal
        variances = np.sqrt(components)
        of_utterance = draw((num_draws, len(speaker))) * variances[1]
        of_speaker = draw((num_draws, len(counts))) * variances[0]
        x = of_utterance[:, a] + of_utterance[:, b] + of_speaker[:, speaker[a]]
        if len(components) == 5:
            x += of_speaker[:, speaker[b]]
            of_pair, of_cross = (draw((num_draws, size, len(counts))) for size in (len(counts), len(speaker)))
            low, high = np.minimum(*speaker[pairs]), np.maximum(*speaker[pairs])
            x += of_pair[:, low, high] * variances[2]
            x += (of_cross[:, a, speaker[b]] + of_cross[:, b, speaker[a]]) * variances[3]
        x += draw(x.shape) * variances[-1]
        found = blue.list_weights(sharing_of(pairs, speaker), components)
        best, plain = np.mean((x @ found.weight) ** 2), np.mean(x.mean(axis=1) ** 2)
        assert best < 0.9 * plain
        assert best == pytest.approx(found.variance, rel=0.05)
        assert plain == pytest.approx(found.uniform_variance, rel=0.05)


# ---------------------------------------------------------------------------------------------------------- lists


def trial_list(pairs, speaker, swap=()):
    """A TrialList and its TrialSpeakers of trials (2,T); the trials at ``swap`` have their sides exchanged."""
    enroll, test = (side.copy() for side in pairs)
    swap = list(swap)
    enroll[swap], test[swap] = test[swap], enroll[swap]
    ids = [f"u{number}" for number in range(len(speaker))]
    trials = TrialList("trials", ids, ids[::-1], enroll.astype(np.int32), (len(ids) - 1 - test).astype(np.int32))
    return trials, TrialSpeakers(speaker[enroll], speaker[test], [f"s{n}" for n in range(speaker.max() + 1)])


def test_sides_and_numbering_do_not_matter_and_mirror_images_share_a_weight():
    targets, nontargets, speaker = all_pairs(MIXED)
    pairs = np.concatenate((nontargets[:, ::2], targets), axis=1)
    plain = classes_of_list(*trial_list(pairs, speaker))
    twice = np.concatenate((pairs, pairs[::-1, :40]), axis=1)
    mirrored = classes_of_list(*trial_list(twice, speaker, swap=range(0, 30, 3)))
    for one, other, components in zip(plain, mirrored, Correlations.of_chain(0.3)):
        weights = blue.list_weights(one.sharing, components, tolerance=1e-11)
        others = blue.list_weights(other.sharing, components, tolerance=1e-11)
        assert others.variance == pytest.approx(weights.variance, rel=1e-9)
        of_list = np.zeros(twice.shape[1])
        of_list[other.places] = other.spread(others.weight)
        folded = of_list[: pairs.shape[1]].copy()
        folded[:40] += of_list[pairs.shape[1] :]
        expected = np.zeros(pairs.shape[1])
        expected[one.places] = one.spread(weights.weight)
        np.testing.assert_allclose(folded[one.places], expected[one.places], rtol=1e-7)
        both = np.intersect1d(one.places, np.arange(40))
        np.testing.assert_allclose(of_list[both], of_list[both + pairs.shape[1]])


def test_a_trial_of_an_utterance_with_itself_is_refused():
    with pytest.raises(VoxarkError, match="'u3 u3'"):
        classes_of_list(*trial_list(np.array([[1, 3], [2, 3]]), np.array([0, 0, 0, 1])))


def test_negative_weights_can_be_clipped():
    weights, number = blue.clip(np.array([0.5, -0.25, 0.75]))
    assert number == 1 and weights.tolist() == pytest.approx([0.4, 0.0, 0.6])
    assert blue.clip(np.array([0.25, 0.75]))[1] == 0
