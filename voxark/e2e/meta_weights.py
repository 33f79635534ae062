"""Weights of training trials that are learned on a development set [tutorial].

Trials fall into bins k by the numbers of utterances of their speakers; in each class (targets, nontargets)
w_t = exp(phi_k(t)) / sum. A step theta' = theta - eta D grad sum_t c_t w_t l_t of the training (c_t: factor
of the class, D: the optimizer's preconditioner, held constant) changes the loss L on development speakers by

    dL(theta') / dw_t = -eta c_t (D grad L(theta')) . grad l_t(theta),

which one forward-mode product of all trial losses along D grad L gives for every t at once. phi is pulled
towards phi_0, that of the BLUE weights, by strength |phi - phi_0|^2.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from voxark.errors import VoxarkError

_SMALLEST = 1e-3  # of the mean weight: what a weight that is not positive counts for as a start


# ------------------------------------------------------------------------------------------------------- bins


class CountBins:
    """Bins of trials by the numbers of utterances of S speakers, and by how many of them enrol.

    ``edges`` (P-1,): a speaker with n utterances is in the bin searchsorted(edges, n, "right"); with at most
    ``max_bins`` distinct counts each has its own, else they hold about as many speakers each.
    """

    def __init__(self, counts, max_bins=8, max_enroll=1):
        counts = np.asarray(counts)
        distinct = np.unique(counts)
        if len(distinct) > max_bins:
            quantiles = np.quantile(counts, np.arange(1, max_bins) / max_bins, method="higher")
            self.edges = np.unique(quantiles[quantiles > distinct[0]])
        else:
            self.edges = distinct[1:]
        self.max_enroll = max_enroll
        self.speakers = torch.as_tensor(np.searchsorted(self.edges, counts, "right"))
        self.per_side = len(self.edges) + 1
        self.num_target = self.per_side * max_enroll
        self.num_nontarget = self.per_side * (self.per_side + 1) // 2 * max_enroll

    def of_trials(self, first, second, num_enroll=1):
        """Bins (T,) of trials, given numbers of speakers (T,): targets where they agree, else nontargets.

        ``num_enroll``: enrolment utterances of the trials, or (T,) of each, from 1 to ``max_enroll``.
        """
        a, b = self.speakers[first], self.speakers[second]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        triangle = high * (high + 1) // 2 + low
        enroll = torch.as_tensor(num_enroll) - 1
        width = self.per_side * (self.per_side + 1) // 2
        return torch.where(first == second, enroll * self.per_side + a, enroll * width + triangle)


class MetaWeights(nn.Module):
    """phi of the bins of both classes, float64: ``target`` and ``nontarget`` (K,), which start at phi_0."""

    def __init__(self, target_start, nontarget_start, strength=1e-3):
        super().__init__()
        for name, start in (("target", target_start), ("nontarget", nontarget_start)):
            start = torch.as_tensor(start, dtype=torch.float64)
            self.register_buffer(f"{name}_start", start.clone())
            setattr(self, name, nn.Parameter(start.clone()))
        self.strength = strength

    def forward(self, bins, target):
        """Weights (T,) of trials with ``bins`` (T,) and ``target`` (T,) bool, summing to 1 in each class."""
        logs = self.logs(bins, target)
        weights = torch.empty_like(logs)
        for chosen in (target, ~target):
            weights[chosen] = torch.softmax(logs[chosen], 0)
        return weights

    def logs(self, bins, target):
        """phi (T,) of each trial."""
        of_targets = self.target[torch.where(target, bins, 0)]
        return torch.where(target, of_targets, self.nontarget[torch.where(target, 0, bins)])

    def prior(self):
        """strength |phi - phi_0|^2."""
        pairs = (self.target, self.target_start), (self.nontarget, self.nontarget_start)
        return self.strength * sum(((phi - start) ** 2).sum() for phi, start in pairs)


def start_from_weights(weights, bins, num_bins):
    """phi_0 (K,): logarithms of mean weights of trials (T,) with ``bins`` (T,), relative to the mean of all.

    A bin without trials, or of a mean weight that is not positive, starts at a thousandth.
    """
    weights, bins = np.asarray(weights, np.float64), np.asarray(bins)
    sizes = np.bincount(bins, minlength=num_bins)
    means = np.bincount(bins, weights, num_bins) / np.maximum(sizes, 1) / weights.mean()
    return np.log(np.maximum(np.where(sizes > 0, means, 1.0), _SMALLEST))


# ------------------------------------------------------------------------------------------------------- step


class Update(NamedTuple):
    """theta' = theta - shift - scale * gradient, elementwise; dicts of tensors by name of the parameter."""

    scale: dict
    shift: dict

    def apply(self, parameters, gradient):
        """theta' of parameters and gradients, dicts by name."""
        return {
            name: (value - self.shift[name] - self.scale[name] * gradient[name]).detach()
            for name, value in parameters.items()
        }


def update_of(optimizer, parameters, gradient):
    """The Update that a torch.optim SGD, Adam or AdamW would make of ``parameters`` with this gradient.

    parameters, gradient: dicts by name of the tensors that the optimizer holds and of gradients. The
    optimizer is not changed. What the preconditioner takes from the gradient is a constant of the result.
    """
    kinds = {torch.optim.SGD: _sgd_update, torch.optim.Adam: _adam_update, torch.optim.AdamW: _adam_update}
    if type(optimizer) not in kinds:
        raise VoxarkError(f"weights cannot be learned with {type(optimizer).__name__}: SGD, Adam, AdamW do")
    group_of = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    scale, shift = {}, {}
    with torch.no_grad():
        for name, value in parameters.items():
            if id(value) not in group_of:
                raise VoxarkError(f"{name}: the optimizer does not hold this parameter")
            state = optimizer.state.get(value, {})
            scale[name], shift[name] = kinds[type(optimizer)](
                group_of[id(value)], state, value, gradient[name], type(optimizer) is torch.optim.AdamW
            )
    return Update(scale, shift)


def _sgd_update(group, state, value, gradient, _):
    _refuse(group, "nesterov", "maximize")
    lr, momentum = group["lr"], group["momentum"]
    before = state.get("momentum_buffer")
    fresh = 1.0 if before is None else 1.0 - group["dampening"]
    scale = torch.full_like(value, lr * fresh)
    shift = scale * group["weight_decay"] * value
    return scale, shift if before is None else shift + lr * momentum * before


def _adam_update(group, state, value, gradient, decoupled):
    _refuse(group, "amsgrad", "maximize")
    decay, (beta1, beta2), lr = group["weight_decay"], group["betas"], group["lr"]
    if not (decoupled or group.get("decoupled_weight_decay", False)):
        gradient, coupled, direct = gradient + decay * value, decay, 0.0
    else:
        coupled, direct = 0.0, lr * decay
    step = float(state.get("step", 0)) + 1.0
    first, second = (state.get(name, torch.zeros_like(value)) for name in ("exp_avg", "exp_avg_sq"))
    second = beta2 * second + (1.0 - beta2) * gradient**2
    rate = lr / (1.0 - beta1**step) / ((second / (1.0 - beta2**step)).sqrt() + group["eps"])
    scale = rate * (1.0 - beta1)
    return scale, rate * beta1 * first + scale * coupled * value + direct * value


def _refuse(group, *names):
    for name in names:
        if group.get(name):
            raise VoxarkError(f"weights cannot be learned with an optimizer that has {name}")


class MetaStep(NamedTuple):
    """What a look ahead found: gradients of the development loss with respect to phi, without the prior.

    ``dev_loss``: L(theta'); ``sensitivity`` (T,): dL(theta') / dw_t, as though all weights were free;
    ``target``, ``nontarget`` (K,): dL(theta') / dphi.
    """

    dev_loss: float
    sensitivity: torch.Tensor
    target: torch.Tensor
    nontarget: torch.Tensor


def meta_gradient(trial_losses, dev_loss, parameters, meta, bins, target, factors, update, method="forward"):
    """MetaStep of one training step.

    trial_losses(parameters) -> (T,) and dev_loss(parameters) -> scalar take a dict of tensors by name
    (torch.func.functional_call) and must be the same function at each call: dropout off, or its random state
    replayed. meta: MetaWeights; bins, target, factors (T,): of the trials, c_t being the class's factor of
    the objective sum_t c_t w_t l_t. update(gradient) -> Update for the gradient of that objective. method:
    "forward", one product in forward mode, or "difference", central differences along the direction, for
    models that forward mode does not know.
    """
    parameters = {name: value.detach() for name, value in parameters.items()}
    with torch.no_grad():
        weights = meta(bins, target)
    shares = weights * factors
    shares = shares.to(_dtype(parameters))
    gradient = _gradient(lambda values: (shares * trial_losses(values)).sum(), parameters)[1]
    ahead = update(gradient)
    loss, of_dev = _gradient(dev_loss, ahead.apply(parameters, gradient))
    direction = {name: ahead.scale[name] * value for name, value in of_dev.items()}
    along = {"forward": _forward, "difference": _difference}[method](trial_losses, parameters, direction)
    sensitivity = -factors * along.to(torch.float64)
    grads = {"target": torch.zeros_like(meta.target), "nontarget": torch.zeros_like(meta.nontarget)}
    for name, chosen in (("target", target), ("nontarget", ~target)):
        w, d = weights[chosen], sensitivity[chosen]
        grads[name] = grads[name].detach().index_add(0, bins[chosen], w * (d - (w * d).sum()))
    return MetaStep(float(loss), sensitivity, grads["target"], grads["nontarget"])


def _dtype(values):
    return next(iter(values.values())).dtype


def _gradient(function, parameters):
    """(value, gradients by name) of a scalar function of parameters."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    value = function(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found)
    }
    return value.detach(), gradients


def _forward(function, parameters, direction):
    """The derivative (T,) of the function's values along a direction in the parameters."""
    with torch.no_grad():
        return torch.func.jvp(function, (parameters,), (direction,))[1]


def _difference(function, parameters, direction):
    """The same by central differences, with the step that balances rounding and curvature."""
    norms = [
        torch.sqrt(sum((value.double() ** 2).sum() for value in values.values())).item()
        for values in (direction, parameters)
    ]
    if norms[0] == 0.0:
        with torch.no_grad():
            return torch.zeros_like(function(parameters))
    step = torch.finfo(_dtype(parameters)).eps ** (1.0 / 3.0) * (1.0 + norms[1]) / norms[0]
    with torch.no_grad():
        above, below = (
            function({name: value + sign * step * direction[name] for name, value in parameters.items()})
            for sign in (1.0, -1.0)
        )
    return (above - below) / (2.0 * step)


class MetaLearner:
    """Steps of phi by Adam; ``meta``: MetaWeights, ``lr``: of phi."""

    def __init__(self, meta, lr=1e-2):
        self.meta, self.optimizer = meta, torch.optim.Adam(meta.parameters(), lr=lr)

    def step(self, trial_losses, dev_loss, model, optimizer, bins, target, factors, method="forward"):
        """Move phi by one look ahead of ``optimizer`` on the nn.Module ``model``; returns the MetaStep.

        trial_losses, dev_loss, bins, target, factors, method as of :func:`meta_gradient`. The model and its
        optimizer are not changed.
        """
        own = {name: value for name, value in model.named_parameters() if value.requires_grad}
        found = meta_gradient(
            trial_losses, dev_loss, own, self.meta, bins, target, factors,
            lambda gradient: update_of(optimizer, own, gradient), method)  # fmt: skip
        self.optimizer.zero_grad()
        self.meta.prior().backward()
        self.meta.target.grad += found.target
        self.meta.nontarget.grad += found.nontarget
        self.optimizer.step()
        return found

    def state_dict(self):
        """What :meth:`load_state_dict` takes to go on from here."""
        return {"meta": self.meta.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        """Go on from a state_dict."""
        self.meta.load_state_dict(state["meta"])
        self.optimizer.load_state_dict(state["optimizer"])
