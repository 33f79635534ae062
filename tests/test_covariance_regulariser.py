"""The covariance regulariser of target scores, against the sums over groups of numpy and autograd."""

import numpy as np
import pytest
from test_blue import all_pairs, sharing_of

torch = pytest.importorskip("torch")

from voxark.e2e.covariance_regulariser import covariance_regulariser, target_covariances  # noqa: E402

COUNTS = np.array([4, 5, 2, 1, 6])


def batch(seed, counts=COUNTS):
    """Symmetric scores (N,N) and speakers (N,)."""
    speaker = np.repeat(np.arange(len(counts)) * 3 + 5, counts)
    x = np.random.default_rng(seed).normal(size=(len(speaker), len(speaker)))
    return torch.tensor(x + x.T), torch.tensor(speaker)


@pytest.mark.parametrize("masked", [False, True])
def test_covariances_are_the_numpy_moments(masked):
    scores, speakers = batch(0)
    pairs = all_pairs(COUNTS)[0]
    order = torch.ones_like(scores, dtype=torch.bool)
    if masked:
        kept = np.random.default_rng(1).random(pairs.shape[1]) < 0.7
        order[tuple(torch.tensor(pairs[:, ~kept]))] = False
        pairs = pairs[:, kept]
    x = scores.numpy()[tuple(pairs)]
    x = x - x.mean()
    speaker = np.repeat(np.arange(len(COUNTS)), COUNTS)
    sharing = sharing_of(pairs, speaker)
    sums, counts = sharing.pair_sums(x), sharing.pair_counts()
    found = target_covariances(scores, speakers, order)
    assert (found.num_shared, found.num_same) == (counts["c1"], counts["c2"])
    assert float(found.shared) == pytest.approx(sums["c1"] / counts["c1"], rel=1e-12)
    assert float(found.same) == pytest.approx(sums["c2"] / counts["c2"], rel=1e-12)
    means = [x[speaker[pairs[0]] == s].mean() for s in np.unique(speaker[pairs[0]])]
    between = [a * b for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
    assert float(found.between) == pytest.approx(np.mean(between), rel=1e-12)
    assert found.num_between == len(between)


def test_the_order_of_utterances_and_float32_scores_do_not_matter():
    scores, speakers = batch(2)
    order = torch.randperm(len(speakers), generator=torch.Generator().manual_seed(0))
    value = covariance_regulariser(scores, speakers, margin=0.3)
    assert value.dtype == torch.float64
    moved = covariance_regulariser(scores[order][:, order].float(), speakers[order], margin=0.3)
    assert float(moved) == pytest.approx(float(value), rel=1e-5)


def test_gradients_are_those_of_finite_differences():
    scores, speakers = batch(3)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: covariance_regulariser(s, speakers, margin=2.0), scores)
    covariance_regulariser(scores, speakers, margin=2.0).backward()
    same = (speakers[:, None] == speakers).triu(1)
    assert (scores.grad[same] != 0).any() and (scores.grad[~same] == 0).all()


def test_the_terms_and_when_they_are_left_out():
    scores, speakers = batch(4)
    found = target_covariances(scores, speakers)
    expected = (
        max(0.0, float(found.same - found.shared) + 0.5)
        + max(0.0, float(found.between - found.same) + 0.5)
        + float(found.between) ** 2
    )
    assert float(covariance_regulariser(scores, speakers, margin=0.5)) == pytest.approx(expected)
    three = batch(4, np.array([3, 3, 3]))  # no two trials of a speaker without a common utterance
    found = target_covariances(*three)
    assert found.num_same == 0
    assert float(covariance_regulariser(*three, margin=5.0)) == pytest.approx(float(found.between) ** 2)
    alone = batch(4, np.array([1, 1, 1]))
    assert float(covariance_regulariser(*alone, margin=5.0)) == 0.0


def test_descent_puts_the_covariances_in_order():
    """Scores whose trials without a common utterance vary together the most: the penalty turns that round."""
    scores, speakers = batch(5, np.array([6, 6, 6, 6]))
    scores = (0.1 * scores).requires_grad_()
    optimizer = torch.optim.SGD([scores], lr=5.0)
    for _ in range(300):
        optimizer.zero_grad()
        covariance_regulariser(scores, speakers, margin=0.05).backward()
        optimizer.step()
    found = target_covariances(scores.detach(), speakers)
    assert found.shared > found.same + 0.045 and found.same > found.between + 0.045


def test_a_mean_from_outside_makes_speakers_that_differ_visible():
    scores, speakers = batch(6, np.array([4, 4]))
    scores = torch.ones_like(scores) * 2.0
    assert float(target_covariances(scores, speakers).between) == 0.0
    assert float(target_covariances(scores, speakers, mean=0.5).between) == pytest.approx(2.25)
