"""Losses of end-to-end training: uninformed systems cost 1, definitions, finite differences, counts."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from voxark.calibration.logistic import prior_weighted_loss  # noqa: E402
from voxark.e2e.losses import (  # noqa: E402
    EmptyClasses,
    IdentificationHead,
    all_pairs,
    detection_cost,
    identification_loss,
    joint_loss,
    joint_weights,
    ramped,
    trial_losses,
    triplet_loss,
    verification_loss,
)
from voxark.errors import VoxarkError  # noqa: E402
from voxark.metrics.roc import Roc  # noqa: E402

torch.set_num_threads(1)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


def speakers(n, num_speakers, seed=0):
    return torch.randint(num_speakers, (n,), generator=gen(seed))


# ------------------------------------------------------------------------------------------ uninformed is 1


@given(p=st.floats(0.001, 0.999), seed=st.integers(0, 20), weighted=st.booleans())
def test_scores_of_zero_cost_one(p, seed, weighted):
    target = torch.rand(30, generator=gen(seed)) < 0.4
    target[0], target[1] = True, False
    weights = torch.rand(30, generator=gen(seed + 1), dtype=torch.float64) + 0.1 if weighted else None
    scores = torch.zeros(30, dtype=torch.float64)
    assert abs(verification_loss(scores, target, p, weights).item() - 1.0) < 1e-12
    for slope in (0.3, 1.0, 20.0):
        assert abs(detection_cost(scores, target, p, weights, slope=slope).item() - 1.0) < 1e-12


@pytest.mark.parametrize("num_speakers", [2, 10, 1000])
def test_a_uniform_posterior_costs_one(num_speakers):
    labels = speakers(7, num_speakers)
    flat = torch.full((7, num_speakers), -3.5, dtype=torch.float64)
    assert abs(identification_loss(flat, labels).item() - 1.0) < 1e-12
    for kind in ("am", "aam"):
        assert abs(identification_loss(0 * flat, labels, kind, margin=0.0).item() - 1.0) < 1e-12


@pytest.mark.parametrize("mining", ["all", "hardest"])
def test_triplets_of_equal_embeddings_cost_one(mining):
    x = randn(1, 5).expand(8, 5).clone().requires_grad_()
    loss = triplet_loss(x, speakers(8, 3), 0.3, mining)
    loss.backward()
    assert abs(loss.item() - 1.0) < 1e-12 and (x.grad == 0).all()


# ------------------------------------------------------------------------------------------ by definition


@given(p=st.floats(0.01, 0.99), seed=st.integers(0, 20))
def test_the_verification_loss_is_that_of_the_metrics(p, seed):
    scores, target = 3 * randn(40, seed=seed), torch.rand(40, generator=gen(seed)) < 0.4
    target[0], target[1] = True, False
    weights = torch.rand(40, generator=gen(seed + 1), dtype=torch.float64)
    for w in (None, weights):
        expected = prior_weighted_loss(scores.numpy(), target.numpy(), p, None if w is None else w.numpy())
        assert abs(verification_loss(scores, target, p, w).item() - expected) < 1e-12


def test_it_is_cllr_at_one_half_and_a_steep_detection_cost_counts_errors():
    scores, target = 3 * randn(500), torch.rand(500, generator=gen(1)) < 0.4
    roc = Roc(scores[target].numpy(), scores[~target].numpy())
    assert abs(verification_loss(scores, target).item() - roc.cllr()) < 1e-10
    for p in (0.5, 0.1, 0.02):
        assert abs(detection_cost(scores, target, p, slope=1e6).item() - roc.act_dcf(p_target=p)) < 1e-9


def test_large_scores_neither_overflow_nor_lose_their_gradient():
    scores = torch.tensor([-1e4, 1e4, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([True, True, False, False])
    loss = verification_loss(scores, target)
    loss.backward()
    np.testing.assert_allclose(loss.item(), 1e4 / 2 / math.log(2), rtol=1e-12)
    np.testing.assert_allclose(scores.grad, np.array([-0.25, 0, 0.25, 0]) / math.log(2), atol=1e-12)


def test_pairs_of_a_batch():
    labels, recordings = torch.tensor([0, 0, 1, 0]), torch.tensor([5, 5, 6, 7])
    target, mask = all_pairs(labels, recordings)
    trials = {(i, j) for i, j in mask.nonzero().tolist()}
    assert trials == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}  # (0, 1) are of one recording
    assert [target[i, j].item() for i, j in sorted(trials)] == [False, True, False, True, False]
    scores = randn(4, 4)
    index = mask.nonzero().T
    one = verification_loss(scores, target, 0.2, mask=mask)
    torch.testing.assert_close(
        one, verification_loss(scores[index[0], index[1]], target[index[0], index[1]], 0.2)
    )
    weights = mask.double()
    torch.testing.assert_close(one, verification_loss(scores, target, 0.2, weights=weights))


def test_weights_as_they_are_and_negative_ones():
    scores, target = randn(6), torch.tensor([1, 1, 0, 0, 0, 1]).bool()
    weights = torch.tensor([2.0, -0.5, 1.0, 0.25, 0.0, 3.0], dtype=torch.float64)
    losses = trial_losses(scores, target, 0.3)
    entropy = -0.3 * math.log(0.3) - 0.7 * math.log(0.7)
    expected = (0.3 * (weights * losses)[target].sum() + 0.7 * (weights * losses)[~target].sum()) / entropy
    torch.testing.assert_close(verification_loss(scores, target, 0.3, weights, normalize=False), expected)
    expected = (
        0.3 * (weights * losses)[target].sum() / 4.5 + 0.7 * (weights * losses)[~target].sum() / 1.25
    ) / entropy
    torch.testing.assert_close(verification_loss(scores, target, 0.3, weights), expected)
    with pytest.raises(VoxarkError, match="a probability between 0 and 1"):
        verification_loss(scores, target, 1.0)


@pytest.mark.parametrize("loss", [verification_loss, detection_cost])
def test_blocks_of_trials_add_up(loss, monkeypatch):
    from voxark.e2e import losses

    scores, target = randn(9, 7).T.requires_grad_(), torch.rand(7, 9, generator=gen(1)) < 0.4
    weights, mask = torch.rand(7, 9, generator=gen(2)), torch.rand(7, 9, generator=gen(3)) < 0.7
    found = []
    for block in (1 << 20, 10, 1):
        monkeypatch.setattr(losses, "_BLOCK", block)
        scores.grad = None
        value = 3 * loss(scores, target, 0.2, weights, mask)
        value.backward()
        found.append((value.item(), scores.grad.clone()))
    for value, gradient in found[1:]:
        assert abs(value - found[0][0]) < 1e-14
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-13, atol=1e-16)
    assert (found[0][1][~mask] == 0).all() and (found[0][1][mask] != 0).all()
    with torch.no_grad():
        scores[~mask] = torch.nan  # what is no trial may hold anything
    assert abs(3 * loss(scores, target, 0.2, weights, mask).item() - found[0][0]) < 1e-14


@pytest.mark.parametrize("loss", [verification_loss, detection_cost])
def test_a_class_without_trials_costs_nothing_and_is_counted(loss):
    scores, counts = randn(5).requires_grad_(), EmptyClasses()
    both = torch.tensor([True, False, False, True, False])
    some = loss(scores, both, weights=(~both).double(), counts=counts)
    assert (counts.targets, counts.nontargets) == (1, 0)
    torch.testing.assert_close(some, loss(scores[~both], torch.zeros(3, dtype=torch.bool), counts=counts))
    assert (counts.targets, counts.nontargets) == (2, 0)
    value = loss(scores, torch.ones(5, dtype=torch.bool), counts=counts)
    assert value > 0 and (counts.targets, counts.nontargets) == (2, 1)
    none = loss(scores, both, mask=torch.zeros(5, dtype=torch.bool), counts=counts)
    none.backward()
    assert none.item() == 0.0 and (counts.targets, counts.nontargets) == (3, 2) and (scores.grad == 0).all()


def identification_by_hand(cosines, labels, kind, scale, margin):
    total = 0.0
    for row, y in zip(cosines.tolist(), labels.tolist()):
        theta = math.acos(row[y])
        if kind == "am":
            row[y] -= margin
        elif theta <= math.pi - margin:
            row[y] = math.cos(theta + margin)
        else:
            row[y] -= margin * math.sin(margin)
        logits = [scale * value for value in row]
        total += math.log(sum(math.exp(v - max(logits)) for v in logits)) + max(logits) - logits[y]
    return total / len(cosines) / math.log(len(cosines[0]))


@pytest.mark.parametrize("kind", ["am", "aam"])
def test_margins_by_hand(kind):
    cosines = torch.rand(9, 4, dtype=torch.float64, generator=gen(0)) * 2 - 1
    labels = speakers(9, 4)
    cosines[0, labels[0]], cosines[1, labels[1]] = -0.999, -0.97  # beyond pi - m, and before it
    for scale, margin in ((30.0, 0.2), (10.0, 0.5)):
        np.testing.assert_allclose(
            identification_loss(cosines, labels, kind, scale, margin).item(),
            identification_by_hand(cosines, labels, kind, scale, margin),
            rtol=1e-12,
        )


def test_the_margin_makes_every_cosine_smaller_and_never_rises():
    cosines = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None].repeat(1, 2)
    cosines[:, 1] = 0.0
    losses = [identification_loss(row[None], torch.tensor([0]), "aam").item() for row in cosines]
    assert (np.diff(losses) <= 1e-12).all()
    plain = [identification_loss(row[None], torch.tensor([0]), "aam", margin=0.0).item() for row in cosines]
    assert (np.array(losses) >= np.array(plain)).all()


def test_speakers_that_are_not_known_do_not_count():
    outputs, counts = randn(5, 3).requires_grad_(), EmptyClasses()
    labels = torch.tensor([0, -1, 2, -1, 1])
    known = labels >= 0
    torch.testing.assert_close(
        identification_loss(outputs, labels, counts=counts),
        identification_loss(outputs[known], labels[known]),
    )
    nothing = identification_loss(outputs, torch.full((5,), -1), counts=counts)
    nothing.backward()
    assert nothing.item() == 0 and counts.speakers == 1 and (outputs.grad == 0).all()


def triplets_by_hand(x, labels, margin, mining):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit, axis=2)
    terms = []
    for a in range(len(x)):
        p = [i for i in range(len(x)) if labels[i] == labels[a] and i != a]
        n = [i for i in range(len(x)) if labels[i] != labels[a]]
        if mining == "hardest" and p and n:
            terms.append(max(0, max(d[a, p]) - min(d[a, n]) + margin))
        elif mining == "all":
            terms += [max(0, d[a, i] - d[a, j] + margin) for i in p for j in n]
    return np.mean(terms) / margin


@pytest.mark.parametrize("mining", ["all", "hardest"])
@given(seed=st.integers(0, 30), margin=st.floats(0.05, 2.0))
def test_triplets_by_hand(mining, seed, margin):
    x, labels = randn(9, 3, seed=seed), speakers(9, 4, seed)
    labels[:3] = torch.tensor([0, 0, 1])
    np.testing.assert_allclose(
        triplet_loss(x, labels, margin, mining).item(),
        triplets_by_hand(x.numpy(), labels.tolist(), margin, mining),
        rtol=1e-10,
        atol=1e-12,
    )


def test_without_triplets():
    counts = EmptyClasses()
    for mining in ("all", "hardest"):
        x = randn(4, 3).requires_grad_()
        loss = triplet_loss(x, torch.arange(4), 0.3, mining, counts) + triplet_loss(
            x, torch.zeros(4), 0.3, mining, counts
        )
        loss.backward()
        assert loss.item() == 0 and (x.grad == 0).all()
    assert counts.triplets == 4
    with pytest.raises(VoxarkError, match="must be positive"):
        triplet_loss(x, torch.arange(4), 0.0)


# ------------------------------------------------------------------------------------------ gradients


def test_gradients_are_those_of_finite_differences():
    scores, target = randn(4, 4).requires_grad_(), torch.eye(4).bool() | torch.eye(4).roll(1, 0).bool()
    weights = torch.rand(4, 4, dtype=torch.float64, generator=gen(2))
    mask = torch.ones(4, 4).triu(1).bool()
    for p in (0.5, 0.05):
        assert torch.autograd.gradcheck(lambda s: verification_loss(s, target, p, weights, mask), scores)
        assert torch.autograd.gradcheck(
            lambda s: verification_loss(s, target, p, weights, normalize=False), scores
        )
        assert torch.autograd.gradcheck(lambda s: detection_cost(s, target, p, weights, slope=3.0), scores)
        assert torch.autograd.gradcheck(lambda s: trial_losses(s, target, p), scores)
    x, labels = randn(6, 3).requires_grad_(), torch.tensor([0, 1, 0, 2, 1, 0])
    for mining in ("all", "hardest"):
        assert torch.autograd.gradcheck(lambda x: triplet_loss(x, labels, 0.7, mining), x)


@pytest.mark.parametrize("kind", ["softmax", "am", "aam"])
def test_gradients_of_identification(kind):
    torch.manual_seed(0)
    head, x = IdentificationHead(4, 3, kind).double(), randn(5, 4).requires_grad_()
    labels, names = torch.tensor([0, 2, 1, -1, 2]), [name for name, _ in head.named_parameters()]

    def loss(x, *values):
        outputs = torch.func.functional_call(head, dict(zip(names, values)), (x,))
        return identification_loss(outputs, labels, kind, 5.0, 0.2)

    assert torch.autograd.gradcheck(loss, (x, *head.parameters()))
    torch.testing.assert_close(head.loss(x, labels, 5.0, 0.2), loss(x, *head.parameters()))


def test_the_gradient_at_angle_zero_is_finite():
    head = IdentificationHead(4, 3, "aam")
    x = head.weight.detach()[[0, 1, 2]].clone().requires_grad_()
    head.loss(x, torch.tensor([0, 1, 2])).backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(head.weight.grad).all()


# ------------------------------------------------------------------------------------------ both


def test_weights_of_the_joint_loss():
    assert joint_weights("constant", 0.7) == (0.25, 0.75)
    assert joint_weights("linear", 0.0) == (1.0, 0.0)
    np.testing.assert_allclose(joint_weights("linear", 0.5), (0.55, 0.45))
    np.testing.assert_allclose(joint_weights("linear", 2.0), (0.1, 0.9))
    assert joint_weights((0.3, 0.6), 0.2) == (0.3, 0.6) and joint_weights(((1, 0), (0, 1)), 1) == (0.0, 1.0)
    with pytest.raises(VoxarkError, match="expected constant or linear"):
        joint_weights("cosine", 0)
    a, b = torch.tensor(2.0), torch.tensor(10.0)
    assert joint_loss(a, b, (0.25, 0.75)).item() == 8.0
    assert joint_loss(a, None, (0.5, 0.0)).item() == 1.0
    with pytest.raises(VoxarkError, match="no term"):
        joint_loss(None, b, (1.0, 0.0))


def test_the_margin_ramp():
    assert [ramped(0.2, step, 10, 20) for step in (0, 10, 15, 20, 99)] == [0.0, 0.0, 0.1, 0.2, 0.2]
    assert ramped(0.2, 0) == 0.2


def test_what_is_refused():
    with pytest.raises(VoxarkError, match="softmax, am or aam"):
        IdentificationHead(3, 4, "sphere")
    with pytest.raises(VoxarkError, match="at least two"):
        IdentificationHead(3, 1)
    with pytest.raises(VoxarkError, match="all or hardest"):
        triplet_loss(randn(3, 2), torch.zeros(3), mining="semi")
