"""Plans of batches: what is drawn, how often, from where; masks, models, inclusion probabilities, purity."""

import numpy as np
import pytest

from voxark.e2e.batches import BatchOptions, BatchSampler, TrainingSet, number_recordings
from voxark.errors import VoxarkError

COUNTS = [1, 2, 3, 5, 8, 4, 2, 1, 6, 3]
SPEAKERS = np.repeat(np.arange(len(COUNTS)), COUNTS)
LENGTHS = np.random.default_rng(0).integers(30, 500, len(SPEAKERS))


def training_set(recordings=None, lengths=LENGTHS):
    return TrainingSet(100 + np.arange(len(SPEAKERS)), SPEAKERS, lengths, recordings)


def sampler(srand=0, data=None, **options):
    options = {"batch_speakers": 4, "min_chunk": 20, "max_chunk": 60, **options}
    return BatchSampler(data or training_set(), BatchOptions(**options), srand)


def plans(which, number=2000):
    return [which.plan(n // 500, n % 500) for n in range(number)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["A", "B", "two-chunks", "identification"])
def test_a_plan_is_a_function_of_seed_epoch_and_number(kind):
    one, other = sampler(3, batches=kind), sampler(3, batches=kind)
    forward = [one.plan(epoch, number) for epoch in range(3) for number in range(5)]
    backward = [other.plan(epoch, number) for epoch in reversed(range(3)) for number in reversed(range(5))]
    assert all(same(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not any(same(a[2:], b[2:]) for n, a in enumerate(forward) for b in forward[:n])
    assert not same(forward[0], sampler(4, batches=kind).plan(0, 0))


@pytest.mark.parametrize(("kind", "cap"), [("A", 0), ("A", 3), ("B", 2), ("B", 4)])
def test_speakers_and_utterances_of_a_batch(kind, cap):
    for plan in plans(sampler(batches=kind, utts_per_speaker=cap if (kind, cap) != ("B", 2) else -1), 200):
        speakers, counts = np.unique(plan.speakers, return_counts=True)
        full = np.array(COUNTS)[speakers]
        assert len(speakers) == 4
        assert counts.tolist() == (np.minimum(full, cap) if cap else full).tolist()
        assert len(set(plan.utterances.tolist())) == plan.num_rows
        assert np.array_equal(SPEAKERS[plan.utterances - 100], plan.speakers)


def test_chunks_lie_in_their_utterances_with_uniform_lengths_and_starts():
    lengths, starts, most = [], [], 0
    for plan in plans(sampler()):
        total = LENGTHS[plan.utterances - 100]
        assert (plan.frames == np.minimum(total, plan.length)).all() and (
            plan.size == np.maximum(plan.frames, 20)
        ).all()
        assert (plan.first >= 0).all() and (plan.first + plan.frames <= total).all()
        lengths.append(plan.length)
        room = total - plan.frames
        starts += ((plan.first + 0.5) / (room + 1))[room > 50].tolist()
        most = max(most, int((plan.first == room).sum()))
    counts = np.bincount(lengths, minlength=61)[20:]
    assert counts.min() > 20 and counts.sum() == 2000  # 2000 / 41 = 49 each
    assert abs(np.mean(starts) - 0.5) < 0.01 and abs(np.std(starts) - 12**-0.5) < 0.01
    assert most > 0


def test_short_utterances_are_whole_or_repeated():
    short = training_set(lengths=np.where(np.arange(len(SPEAKERS)) % 2, 35, 9))
    for plan in plans(sampler(data=short), 50):
        total = np.where((plan.utterances - 100) % 2, 35, 9)
        assert (plan.frames == np.minimum(total, plan.length)).all() and (
            plan.size == np.maximum(plan.frames, 20)
        ).all()
    for plan in plans(sampler(data=short, short_utterances="repeat"), 50):
        assert (plan.size == plan.length).all() and (plan.frames <= plan.size).all()


@pytest.mark.parametrize(("kind", "cap"), [("A", 0), ("A", 3), ("B", 2), ("identification", 0)])
def test_inclusion_probabilities_are_those_of_the_draws(kind, cap):
    which = sampler(batches=kind, utts_per_speaker=cap)
    number, rows = 4000, len(SPEAKERS)
    utterances, trials = np.zeros(rows), np.zeros((rows, rows))
    stated = np.full((rows, rows), np.nan)
    for plan in plans(which, number):
        drawn = plan.utterances - 100
        utterances[drawn] += 1
        trials[np.ix_(drawn, drawn)] += 1
        stated[np.ix_(drawn, drawn)] = plan.pair_probabilities()
        stated[drawn, drawn] = plan.row_probabilities()
    assert not np.isnan(stated[trials > 0]).any()
    np.fill_diagonal(trials, utterances)
    expected = np.where(trials > 0, stated, 0.0)
    error = (trials / number - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-3) / number)
    assert np.abs(error).max() < 5
    assert (trials[~np.isnan(stated)] > 0).all()
    if (
        kind == "B"
    ):  # (B/S) / N(n) for targets, B(B-1)/S(S-1) 4/(n n') for non-targets with two utterances or more
        assert np.isclose(stated[11, 12], 4 / 10 / (8 * 7 / 2)) and np.isclose(
            stated[11, 20], 12 / 90 * 4 / (8 * 4)
        )


def test_horvitz_thompson_sums_are_unbiased():
    losses = np.random.default_rng(5).random((len(SPEAKERS),) * 2)
    losses += losses.T
    upper = np.triu(np.ones_like(losses, bool), 1)
    match = SPEAKERS[:, None] == SPEAKERS[None]
    for kind in ("A", "B"):
        sums = []
        for plan in plans(sampler(batches=kind), 4000):
            drawn = plan.utterances - 100
            part, probabilities = losses[np.ix_(drawn, drawn)], plan.pair_probabilities()
            sums.append([(part[mask] / probabilities[mask]).sum() for mask in plan.pair_masks()])
        for values, mask in zip(np.transpose(sums), (match, ~match), strict=True):
            error = (values.mean() - losses[upper & mask].sum()) / (values.std() / len(values) ** 0.5)
            assert abs(error) < 4


def test_pairs_of_one_recording_are_no_trials():
    recordings = np.arange(len(SPEAKERS)) // 2  # also across speakers
    for plan in plans(sampler(data=training_set(recordings), batches="A"), 20):
        target, nontarget = plan.pair_masks()
        for i in range(plan.num_rows):
            for j in range(plan.num_rows):
                usable = (
                    i < j and recordings[plan.utterances[i] - 100] != recordings[plan.utterances[j] - 100]
                )
                match = plan.speakers[i] == plan.speakers[j]
                assert target[i, j] == (usable and match) and nontarget[i, j] == (usable and not match)


def test_recordings_are_numbered_by_utt2rec():
    numbers = number_recordings(["a1", "a2", "b", "c"], {"a1": "A", "a2": "A", "c": "b"})
    assert numbers[0] == numbers[1] and len(set(numbers.tolist())) == 3


@pytest.mark.parametrize("kind", ["A", "B"])
def test_models_of_several_utterances_and_disjoint_tests(kind):
    recordings = np.arange(len(SPEAKERS)) // 2
    which = sampler(batches=kind, max_enroll=3, data=training_set(recordings), batch_speakers=6)
    sizes = []
    for plan in plans(which, 300):
        weights, (target, nontarget) = plan.enrolment(), plan.model_masks()
        assert weights.shape == target.shape == (plan.num_models, plan.num_rows)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        for model in range(plan.num_models):
            rows = np.flatnonzero(plan.enrol_group == model)
            speaker = set(plan.speakers[rows].tolist())
            assert len(speaker) == 1 and 1 <= len(rows) <= 3
            tests = np.flatnonzero((plan.enrol_group < 0) & (plan.speakers == plan.speakers[rows[0]]))
            assert len(tests) >= 1
            if COUNTS[speaker.pop()] >= 4:
                sizes.append(len(rows))
            for row in range(plan.num_rows):
                usable = plan.enrol_group[row] < 0 and not set(plan.recordings[rows]) & {plan.recordings[row]}
                match = plan.speakers[row] == plan.speakers[rows[0]]
                assert target[model, row] == (usable and match) and nontarget[model, row] == (
                    usable and not match
                )
        singles = np.isin(plan.speakers, [0, 7])
        assert (plan.enrol_group[singles] < 0).all()
    counts = np.bincount(sizes, minlength=4)[1:]
    assert counts.min() > 0.25 * counts.sum()  # k is uniform


def test_two_chunks_are_disjoint_parts_of_one_utterance():
    seen = set()
    for plan in plans(sampler(batches="two-chunks"), 300):
        first, second = slice(0, None, 2), slice(1, None, 2)
        assert np.array_equal(plan.utterances[first], plan.utterances[second]) and plan.num_rows == 8
        assert len(set(plan.utterances.tolist())) == 4 and (plan.frames >= 20).all()
        ends = plan.first + plan.frames
        assert ((ends[first] <= plan.first[second]) | (ends[second] <= plan.first[first])).all()
        assert (ends <= LENGTHS[plan.utterances - 100]).all()
        target, nontarget = plan.pair_masks()
        assert target.sum() == 4 and target[0, 1] and nontarget.sum() == 24
        assert np.array_equal(SPEAKERS[plan.utterances - 100], plan.speakers)
        seen.add(bool(plan.first[0] < plan.first[1]))
    assert seen == {True, False}
    short = training_set(lengths=np.where(SPEAKERS == 4, 100, 39))
    with pytest.raises(VoxarkError, match="two speakers"):
        sampler(data=short, batches="two-chunks")
    with pytest.raises(VoxarkError, match="no utterance has two chunks"):
        sampler(data=training_set(lengths=np.full(len(SPEAKERS), 39)), batches="two-chunks")


def test_identification_batches_draw_utterances_evenly():
    counts = np.zeros(len(SPEAKERS))
    for plan in plans(sampler(batches="identification"), 4000):
        assert plan.num_rows == 8 == len(set(plan.utterances.tolist()))
        counts[plan.utterances - 100] += 1
    expected = 4000 * 8 / len(SPEAKERS)
    assert np.abs(counts / expected - 1).max() < 0.15


def test_a_saved_training_goes_on_only_with_the_same_plans():
    state = sampler(3).state_dict()
    sampler(3).load_state_dict(state)
    for other, name in (
        (sampler(4), "srand"),
        (sampler(3, max_chunk=61), "--max-chunk"),
        (sampler(3, data=training_set(lengths=LENGTHS + 1)), "data"),
    ):
        with pytest.raises(VoxarkError, match=f"cannot go on: {name} was"):
            other.load_state_dict(state)


def test_wrong_options_and_data_are_refused():
    for options in (
        {"min_chunk": 0},
        {"min_chunk": 61},
        {"batch_speakers": 1},
        {"batches_per_epoch": 0},
        {"utts_per_speaker": -2},
        {"max_enroll": 2, "batches": "two-chunks"},
        {"max_enroll": 2, "utts_per_speaker": 1},
    ):
        with pytest.raises(VoxarkError, match="--"):
            sampler(**options)
    with pytest.raises(VoxarkError, match="without gaps"):
        TrainingSet([0, 1], [0, 2], [5, 5])
    with pytest.raises(VoxarkError, match="utterance 1 has no frames"):
        TrainingSet([0, 1], [0, 1], [5, 0])
    assert sampler(batch_speakers=99).plan(0, 0).num_rows == np.minimum(COUNTS, 2).sum()
