"""Meta-learned trial weights: gradients against finite differences of the whole look ahead, in float64."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.func import functional_call  # noqa: E402

from voxark.e2e.meta_weights import (  # noqa: E402
    CountBins, MetaLearner, MetaWeights, meta_gradient, start_from_weights, update_of)
from voxark.errors import VoxarkError  # noqa: E402

COUNTS = np.array([2, 3, 3, 5, 2, 4])


class Problem:
    """A small network that scores all pairs of the training utterances, and of others for development."""

    def __init__(self, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).to(dtype)
        with torch.no_grad():
            for value in self.model.parameters():
                value.copy_(0.5 * normal(*value.shape))
        self.speakers = torch.as_tensor(np.repeat(np.arange(6), COUNTS))
        self.x, self.dev = normal(len(self.speakers), 5), normal(8, 5)
        self.dev_speakers = torch.arange(8) // 2
        first, second = torch.triu_indices(len(self.speakers), len(self.speakers), 1)
        self.first, self.second = first, second
        self.target = self.speakers[first] == self.speakers[second]
        self.count_bins = CountBins(COUNTS)
        self.bins = self.count_bins.of_trials(self.speakers[first], self.speakers[second])
        self.factors = torch.where(self.target, 0.3, 0.7).double()
        starts = (normal(self.count_bins.num_target), normal(self.count_bins.num_nontarget))
        self.meta = MetaWeights(*starts, strength=0.1)
        self.parameters = dict(self.model.named_parameters())

    def _losses(self, parameters, x, first, second, target):
        embeddings = functional_call(self.model, parameters, (x,))
        scores = (embeddings[first] * embeddings[second]).sum(1)
        return torch.nn.functional.softplus(torch.where(target, -scores, scores))

    def trial_losses(self, parameters):
        return self._losses(parameters, self.x, self.first, self.second, self.target)

    def dev_loss(self, parameters):
        first, second = torch.triu_indices(8, 8, 1)
        target = self.dev_speakers[first] == self.dev_speakers[second]
        losses = self._losses(parameters, self.dev, first, second, target)
        return losses[target].mean() + losses[~target].mean()

    def gradient(self, weights):
        """Of the training objective with these weights."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in self.parameters.items()}
        objective = (weights * self.factors * self.trial_losses(leaves)).sum()
        return dict(zip(leaves, torch.autograd.grad(objective, list(leaves.values()))))

    def step(self, update, **options):
        return meta_gradient(
            self.trial_losses, self.dev_loss, self.parameters, self.meta, self.bins, self.target, self.factors,
            update, **options)  # fmt: skip


def optimizers(problem):
    """Optimizers with a past: their state is not that of a first step."""
    values = list(problem.parameters.values())
    made = {
        "sgd": torch.optim.SGD(values, lr=0.3),
        "momentum": torch.optim.SGD(values, lr=0.1, momentum=0.8, weight_decay=0.01, dampening=0.1),
        "adam": torch.optim.Adam(values, lr=0.02, weight_decay=0.01),
        "adamw": torch.optim.AdamW(values, lr=0.02),
    }
    return made


def warm(problem, optimizer, steps):
    for number in range(steps):
        weights = torch.softmax(torch.arange(len(problem.bins), dtype=torch.float64) / (10.0 + number), 0)
        for name, grad in problem.gradient(weights).items():
            problem.parameters[name].grad = grad
        optimizer.step()


@pytest.mark.parametrize("method", ["forward", "difference"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_gradients_are_those_of_finite_differences(name, method):
    problem = Problem()
    optimizer = optimizers(problem)[name]
    warm(problem, optimizer, 3)
    made = []
    found = problem.step(lambda gradient: made.append(update_of(optimizer, problem.parameters, gradient)) or made[-1],
                         method=method)  # fmt: skip

    def after(weights):
        return float(problem.dev_loss(made[0].apply(problem.parameters, problem.gradient(weights.detach()))).detach())

    weights = problem.meta(problem.bins, problem.target).detach()
    assert found.dev_loss == pytest.approx(after(weights), rel=1e-12)
    step, tolerance = 1e-4, 1e-6 if method == "forward" else 1e-5
    for trial in (0, 3, 17, len(weights) - 1):
        moved = [weights.clone(), weights.clone()]
        moved[0][trial] += step
        moved[1][trial] -= step
        expected = (after(moved[0]) - after(moved[1])) / (2 * step)
        assert float(found.sensitivity[trial]) == pytest.approx(expected, rel=tolerance, abs=1e-9)
    for kind, gradients in (("target", found.target), ("nontarget", found.nontarget)):
        phi = getattr(problem.meta, kind)
        expected = torch.zeros_like(gradients)
        for k in range(len(phi)):
            values = []
            for sign in (1.0, -1.0):
                phi.data[k] += sign * step
                values.append(after(problem.meta(problem.bins, problem.target)))
                phi.data[k] -= sign * step
            expected[k] = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-8)
        assert expected.abs().max() > 1e-5


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("steps", [0, 3])
def test_the_look_ahead_is_the_step_of_the_optimizer(name, steps):
    problem = Problem(1)
    optimizer = optimizers(problem)[name]
    warm(problem, optimizer, steps)
    gradient = problem.gradient(problem.meta(problem.bins, problem.target).detach())
    ahead = update_of(optimizer, problem.parameters, gradient).apply(problem.parameters, gradient)
    for key, value in problem.parameters.items():
        value.grad = gradient[key].clone()
    optimizer.step()
    for key, value in problem.parameters.items():
        torch.testing.assert_close(ahead[key], value.detach(), rtol=1e-12, atol=1e-14)


def test_weights_sum_to_one_in_each_class_and_follow_the_bins():
    problem = Problem(2)
    weights = problem.meta(problem.bins, problem.target)
    for chosen, phi in ((problem.target, problem.meta.target), (~problem.target, problem.meta.nontarget)):
        assert float(weights[chosen].detach().sum()) == pytest.approx(1.0)
        ratio = weights[chosen] / phi[problem.bins[chosen]].exp()
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))


def test_a_step_of_the_learner_leaves_the_model_alone_and_lowers_the_loss_ahead():
    problem = Problem(3)
    optimizer = optimizers(problem)["adam"]
    warm(problem, optimizer, 2)
    before = {name: value.detach().clone() for name, value in problem.model.named_parameters()}
    problem.meta.strength = 0.0
    learner = MetaLearner(problem.meta, lr=0.05)
    losses = [
        learner.step(problem.trial_losses, problem.dev_loss, problem.model, optimizer, problem.bins, problem.target,
                     problem.factors).dev_loss
        for _ in range(30)
    ]  # fmt: skip
    assert losses[-1] < losses[0]
    for name, value in problem.model.named_parameters():
        assert torch.equal(value, before[name])
    again = MetaLearner(MetaWeights(problem.meta.target_start, problem.meta.nontarget_start), lr=0.05)
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    arguments = (problem.trial_losses, problem.dev_loss, problem.model, optimizer, problem.bins, problem.target,
                 problem.factors)  # fmt: skip
    again.meta.strength = 0.0
    learner.step(*arguments)
    again.step(*arguments)
    assert torch.equal(again.meta.target, learner.meta.target)


def test_the_prior_pulls_back_to_the_start():
    problem = Problem(4)
    start = problem.meta.target_start.clone()
    with torch.no_grad():
        problem.meta.target += 2.0
    problem.meta.strength = 1e6
    learner = MetaLearner(problem.meta, lr=0.05)
    optimizer = optimizers(problem)["sgd"]
    for _ in range(200):
        learner.step(problem.trial_losses, problem.dev_loss, problem.model, optimizer, problem.bins, problem.target,
                     problem.factors)  # fmt: skip
    torch.testing.assert_close(problem.meta.target.detach(), start, atol=0.02, rtol=0)


def test_bins_by_counts_and_by_number_of_enrolment_utterances():
    bins = CountBins([2, 5, 2, 9], max_enroll=3)
    assert (bins.per_side, bins.num_target, bins.num_nontarget) == (3, 9, 18)
    a, b = torch.tensor([0, 1, 3, 0, 2, 1, 3]), torch.tensor([0, 1, 3, 1, 1, 2, 0])
    assert bins.of_trials(a, b).tolist() == [0, 1, 2, 1, 1, 1, 3]
    assert bins.of_trials(a, b, torch.tensor([3, 1, 2, 3, 1, 1, 2])).tolist() == [6, 1, 5, 13, 1, 1, 9]
    many = CountBins(np.arange(1, 101), max_bins=4)
    sizes = np.bincount(many.speakers.numpy())
    assert many.per_side == 4 and sizes.min() >= 20
    assert CountBins([4, 4]).num_target == 1
    most_alike = CountBins([1] * 90 + list(range(2, 12)), max_bins=4)
    assert most_alike.per_side >= 1 and most_alike.speakers[0] == 0


def test_the_start_is_the_logarithm_of_the_mean_weight():
    start = start_from_weights([1.0, 3.0, 2.0, -2.0, 6.0], [0, 0, 1, 2, 3], 5)
    np.testing.assert_allclose(start, np.log([1.0, 1.0, 1e-3, 3.0, 1.0]))


def test_other_optimizers_are_refused():
    problem = Problem()
    values = list(problem.parameters.values())
    gradient = problem.gradient(torch.ones(len(problem.bins), dtype=torch.float64))
    for optimizer in (torch.optim.Adagrad(values), torch.optim.SGD(values, lr=1, momentum=0.5, nesterov=True),
                      torch.optim.Adam(values, amsgrad=True), torch.optim.SGD(values[:1], lr=1.0)):  # fmt: skip
        with pytest.raises(VoxarkError):
            update_of(optimizer, problem.parameters, gradient)
