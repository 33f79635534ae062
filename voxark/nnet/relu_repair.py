"""Repair of rectified linear units that are dead (never positive) or always on (linear) [tutorial, hands-on].

Over at least 10,000 frames, p_j = fraction of frames with z_j > 0, z = W a + b. A unit with p < .05 is dead,
one with p > .95 always on (Kaldi's thresholds). Its derivative with respect to z gets delta_j, -lambda if
dead, so that descending raises z, +lambda if always on. As dL/db = sum_t dL/dz_t and dL/dW = sum_t dL/dz_t
a_t', delta_j / T in each of T frames is the same as

    grad b += delta,    grad W += delta abar',    abar the mean input of the layer,

which is what ReluRepair does: no unit but those is touched, and nothing reaches the layers below.
``repairing`` is the other way, in the back-propagation itself; it also hands W'delta on to the layers below.
"""

import logging
from dataclasses import dataclass

import torch
from torch import nn

from voxark.errors import VoxarkError
from voxark.nnet import distributed
from voxark.nnet.layers import ConvReluNorm, PointwiseLinear, TdnnLayer
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class ReluRepairOptions:
    """Which units are repaired, and how hard they are pushed."""

    scale: float = option(1e-5, "Derivative that is added, of a loss that is a mean over the batch")
    dead: float = option(0.05, "A unit that is positive in fewer frames than this fraction is dead")
    always_on: float = option(0.95, "A unit that is positive in more frames than this fraction is always on")
    min_frames: int = option(10000, "Frames that the fractions are counted over")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if not self.scale > 0 or not 0 <= self.dead < self.always_on <= 1 or self.min_frames < 1:
            raise VoxarkError(
                f"repair of units: scale {self.scale:g}, thresholds {self.dead:g} and "
                f"{self.always_on:g} over {self.min_frames} frames make no sense"
            )


_COUNTED = ("sums", "frames", "delta", "mean_input", "start", "room", "is_healthy")  # state of a _Layer


class _Layer:
    """One affine layer in front of a ReLU: its counts, and what they say about its units."""

    def __init__(self, module, affine, channel_axis):
        self.module, self.affine, self.axis = module, affine, channel_axis
        self.restart()

    def restart(self):
        """Forget everything."""
        weight = self.module.weight
        units, inputs = weight.shape[0], weight[0].numel()
        # in one tensor, which workers add up: counts of z > 0, sums of z, sums of the input, number of frames
        self.sums = torch.zeros(2 * units + inputs + 1, dtype=torch.float64, device=weight.device)
        self.frames = 0
        self.delta = self.mean_input = self.start = self.room = None
        self.is_healthy = False

    def observe(self, x):
        """Count frames of an input of the layer."""
        with torch.enable_grad():
            weight = self.module.weight.detach().requires_grad_()
            z = _functional(self.module, self.affine, weight, x.detach())
            z = z.movedim(self.axis, -1).flatten(0, -2)
            # every row of dz/dW is the layer's input, so that of unit 0 gives its sum over frames, tap by tap
            (gradient,) = torch.autograd.grad(z[:, 0].sum(), weight)
        z = z.detach()
        self.frames += len(z)
        self.sums += torch.cat(
            [
                (z > 0).sum(dim=0).double(),
                z.sum(dim=0, dtype=torch.float64),
                gradient[0].double().flatten(),
                self.sums.new_tensor([len(z)]),
            ]
        )

    def judge(self, options):
        """Set delta (J,) of every unit, and how far a repaired one may be moved: to where its mean z is 0."""
        units = self.module.weight.shape[0]
        means = self.sums[:-1] / self.sums[-1]
        fraction, mean_z, self.mean_input = means[:units], means[units : 2 * units], means[2 * units :]
        self.delta = options.scale * (
            (fraction > options.always_on).double() - (fraction < options.dead).double()
        )
        self.is_healthy = not self.delta.any()
        self.room = mean_z.abs()
        self.start = self.mean_z()

    def mean_z(self):
        """z (J,) of the mean input at the present parameters."""
        weight = self.module.weight.detach().double().flatten(1)
        z = weight @ self.mean_input
        return z if self.module.bias is None else z + self.module.bias.detach().double()

    def add(self):
        """Add to the gradients of the units that are not where they may be moved to; returns their number."""
        if self.is_healthy:
            return 0
        moved = (self.mean_z() - self.start) * -self.delta.sign()
        delta = torch.where(moved < self.room, self.delta, 0.0)
        addition = delta[:, None] * self.mean_input
        for parameter, more in ((self.module.weight, addition), (self.module.bias, delta)):
            if parameter is not None and parameter.requires_grad:
                more = more.view_as(parameter).to(parameter.dtype)
                parameter.grad = more if parameter.grad is None else parameter.grad.add_(more)
        return int((delta != 0).sum())


class ReluRepair:
    """Watches the rectified layers of a network, and adds the repair to their gradients.

    restart() at the beginning of an epoch: the forward passes that follow are counted until there are enough
    frames. Then add_gradients(), after backward and before each step of the optimizer. Within an epoch a unit
    is pushed no further than to where its mean is 0, whatever the optimizer makes of the gradients: it cannot
    cross to the other side. ``layers`` are (name, module) as relu_layers finds them.
    """

    def __init__(self, layers, options=None):
        self.options = options or ReluRepairOptions()
        self.options.check()
        self._layers = {name: _Layer(module, *_affine_of(name, module)) for name, module in layers}
        self._hooks = []
        self.restart()

    def restart(self):
        """Begin to count anew."""
        self.remove()
        for layer in self._layers.values():
            layer.restart()
            hook = layer.module.register_forward_pre_hook(self._watch(layer))
            self._hooks.append((layer, hook))

    def _watch(self, layer):
        def observe(module, inputs):
            if module.training and layer.frames < self.options.min_frames:
                layer.observe(inputs[0])

        return observe

    def remove(self):
        """Stop watching."""
        for _, hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self):
        """What has been counted and found, to be saved with a training."""
        return {
            name: {part: getattr(layer, part) for part in _COUNTED} for name, layer in self._layers.items()
        }

    def load_state_dict(self, state):
        """Take over what state_dict gave, of the same network."""
        for name, layer in self._layers.items():
            for part, value in state[name].items():
                setattr(
                    layer, part, value.to(layer.sums.device) if isinstance(value, torch.Tensor) else value
                )

    def add_gradients(self):
        """Add the repair of all layers that have seen enough frames; returns the number of units pushed.

        Several workers put their counts together, so that all add the same; each must call this.
        """
        pushed = 0
        for layer in self._layers.values():
            if (
                layer.delta is None
                and distributed.total(layer.frames, layer.sums.device) >= self.options.min_frames
            ):
                distributed.sum_tensor(layer.sums)
                layer.judge(self.options)
            if layer.delta is not None:
                pushed += layer.add()
        return pushed

    def counts(self):
        """{name: (dead, always on, units)} of the layers that have seen enough frames."""
        return {
            name: (int((layer.delta < 0).sum()), int((layer.delta > 0).sum()), len(layer.delta))
            for name, layer in self._layers.items()
            if layer.delta is not None
        }

    def log(self):
        """Log the counts of layers that have units to repair, and the total."""
        counts = self.counts()
        for name, (dead, on, units) in counts.items():
            if dead or on:
                logger.info("%s: %d of %d units dead, %d always on", name, dead, units, on)
        dead, on, units = (sum(column) for column in zip(*counts.values())) if counts else (0, 0, 0)
        logger.info("rectified units: %d, of them %d dead, %d always on", units, dead, on)


def relu_layers(network):
    """(name, module) of the affine layers of a network whose output goes straight into a ReLU.

    They are TdnnLayer with relu, the convolutions of ConvReluNorm, and in a Sequential each Linear or
    convolution without groups that nn.ReLU follows.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, TdnnLayer) and module.relu:
            found[name] = module
        elif isinstance(module, ConvReluNorm):
            found[f"{name}.conv"] = module.conv
        elif isinstance(module, nn.Sequential):
            parts = list(module.named_children())
            for (inner, affine), (_, relu) in zip(parts, parts[1:]):
                if isinstance(relu, nn.ReLU) and _is_affine(affine):
                    found[f"{name}.{inner}" if name else inner] = affine
    return list(found.items())


def repairing(z, delta):
    """z (..., J) as it is; back-propagation adds delta (J,) / T to its gradient in each of T frames."""
    return _Repairing.apply(z, delta)


class _Repairing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, delta):
        ctx.save_for_backward(delta)
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient):
        (delta,) = ctx.saved_tensors
        num_frames = gradient.numel() // gradient.shape[-1]
        return gradient + delta.to(gradient.dtype) / num_frames, None


# ------------------------------------------------------------------------------------------ details


def _is_affine(module):
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return module.groups == 1
    return isinstance(module, nn.Linear)


def _affine_of(name, module):
    """(function of the input that gives z, axis of the units in z)."""
    if isinstance(module, TdnnLayer):
        return module._affine, 1
    if not _is_affine(module):
        raise VoxarkError(f"{name}: a {type(module).__name__} is no affine layer that can be repaired")
    return module.forward, -1 if isinstance(module, nn.Linear) and not isinstance(
        module, PointwiseLinear
    ) else 1


class _Affine(nn.Module):
    """Calls a method of a module with other values of its parameters (torch.func.functional_call)."""

    def __init__(self, module, affine):
        super().__init__()
        self.module, self.method = module, affine.__name__

    def forward(self, x):
        """z of the layer's input."""
        return getattr(self.module, self.method)(x)


def _functional(module, affine, weight, x):
    """z of the input x for a weight other than the module's own."""
    return torch.func.functional_call(_Affine(module, affine), {"module.weight": weight}, (x,))
