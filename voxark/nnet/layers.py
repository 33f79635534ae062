"""Layers of networks on speech: TDNN, normalisation with frozen constants, statistics poolings.

Sequences are (B, C, T): examples, channels, frames. No layer mixes the examples of a batch, save batch
normalisation, which is offered for plain training only: the gradient of a loss over all pairs is put together
from parts of the batch, and a part must give what the whole would (see :func:`mixes_examples`).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from voxark.errors import VoxarkError

VARIANCE_FLOOR = 1e-10


# ------------------------------------------------------------------------------------------- normalisation


class FrozenNorm(nn.Module):
    """y = (x - m) / s for each channel, m and s constants; with ``affine`` then times gamma plus beta.

    m and s are estimated once, on the first data of a training (:mod:`voxark.nnet.init_norms`), and are
    buffers from then on: no gradient, no update, the same in training and extraction [tutorial]. Until then
    the layer is the identity and ``estimated`` is false. Input (B, C), (B, C, T) or (B, C, H, T).
    """

    def __init__(self, dim, affine=False):
        super().__init__()
        self.dim = dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("estimated", torch.tensor(False))
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x):
        """Normalise x, whose channels are on axis 1."""
        if self.weight is None:
            shape = [-1] + [1] * (x.ndim - 2)
            inverse = 1.0 / self.scale
            return torch.addcmul((-self.mean * inverse).view(shape), x, inverse.view(shape))
        variance = self.scale * self.scale
        return F.batch_norm(x, self.mean, variance, self.weight, self.bias, training=False, eps=0.0)

    @torch.no_grad()
    def set_moments(self, mean, variance):
        """Freeze m and s from means and variances (dim,); s is floored at 1e-3 of its median.

        A channel that never changes would otherwise be blown up. Raises VoxarkError if they are not finite.
        """
        mean, scale = mean.double(), variance.double().clamp(min=0).sqrt()
        if not (torch.isfinite(mean).all() and torch.isfinite(scale).all()):
            raise VoxarkError("a normalisation layer sees values that are not finite: check the features")
        varying = scale[scale > 0]
        floor = 1e-3 * float(varying.median()) if len(varying) else 1.0
        self.mean.copy_(mean)
        self.scale.copy_(scale.clamp(min=floor))
        self.estimated.fill_(True)

    def extra_repr(self):
        """What print shows."""
        return f"{self.dim}, affine={self.weight is not None}, estimated={bool(self.estimated)}"


def _groups(dim, axes, most=16, least_channels=4):
    """Number of groups; one where there is no time: a group of a single value would lose it."""
    if axes == 0:
        return 1
    return max(n for n in range(1, most + 1) if dim % n == 0 and (n == 1 or dim // n >= least_channels))


def make_norm(kind, dim, axes=1, affine=True):
    """A normalisation layer of ``dim`` channels, for inputs with ``axes`` axes behind them (0, 1 or 2).

    ``kind``: frozen (constants estimated once), group (each example by itself, at most 16 groups of at least
    4 channels), batch (over the batch: plain training only), none. Raises VoxarkError for another kind.
    """
    if kind == "frozen":
        return FrozenNorm(dim, affine)
    if kind == "group":
        return nn.GroupNorm(_groups(dim, axes), dim, affine=affine)
    if kind == "batch":
        return (nn.BatchNorm2d if axes == 2 else nn.BatchNorm1d)(dim, affine=affine)
    if kind == "none":
        return nn.Identity()
    raise VoxarkError(f"--norm={kind}: expected frozen, group, batch or none")


def make_pooled_norm(kind, dim, affine=True):
    """The norm of pooled statistics (B, dim): frozen where ``kind`` is group.

    What matters there is the mean over examples: statistics behind a ReLU have one part in common, beside
    which the speakers' differences are small.
    """
    return make_norm("frozen" if kind == "group" else kind, dim, axes=0, affine=affine)


def mixes_examples(module):
    """True if an example's output depends, in training, on the rest of its batch (batch normalisation)."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


# --------------------------------------------------------------------------------------------------- frames


class PointwiseLinear(nn.Linear):
    """An affine map of each frame: (B, C, T) to (B, out, T)."""

    def forward(self, x):
        """Apply it as one product; torch's convolution of width 1 takes twice the time on a CPU."""
        y = torch.matmul(self.weight, x)
        return y if self.bias is None else y + self.bias[:, None]


class TdnnLayer(nn.Module):
    """A time-delay layer: y_t = norm(relu(sum_k W_k x_{t + context_k} + b)), frames that exist only.

    ``context`` lists the offsets in rising order, such as (-2, 0, 2); the output is shorter by its span. The
    output's first frame stands at the input's frame -context[0]. Raises VoxarkError for a bad context.
    """

    def __init__(self, dim, out_dim, context=(0,), norm="frozen", relu=True):
        super().__init__()
        self.context = tuple(context)
        if not self.context or list(self.context) != sorted(set(self.context)):
            raise VoxarkError(f"a TDNN context must list offsets in rising order, not {self.context}")
        self.weight = nn.Parameter(torch.empty(out_dim, dim, len(self.context)))
        self.bias = nn.Parameter(torch.empty(out_dim))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(dim * len(self.context))
        nn.init.uniform_(self.bias, -bound, bound)
        self.relu = relu
        self.norm = make_norm(norm, out_dim)
        steps = {b - a for a, b in zip(self.context, self.context[1:])}
        self._dilation = steps.pop() if len(steps) == 1 else 0

    @property
    def span(self):
        """Number of frames that the output lacks."""
        return self.context[-1] - self.context[0]

    def _affine(self, x):
        if len(self.context) == 1:
            return torch.matmul(self.weight[:, :, 0], x) + self.bias[:, None]
        if self._dilation:
            return F.conv1d(x, self.weight, self.bias, dilation=self._dilation)
        length = x.shape[2] - self.span
        first = self.context[0]
        shifted = torch.cat([x[:, :, c - first : c - first + length] for c in self.context], dim=1)
        weight = self.weight.transpose(1, 2).flatten(1)
        return torch.matmul(weight, shifted) + self.bias[:, None]

    def forward(self, x):
        """(B, dim, T) to (B, out_dim, T - span)."""
        y = self._affine(x)
        return self.norm(F.relu(y, inplace=True) if self.relu else y)


class ConvReluNorm(nn.Module):
    """Convolution over time (zeros beyond the ends), ReLU, norm: (B, C, T) to (B, out, T)."""

    def __init__(self, dim, out_dim, width=1, dilation=1, norm="frozen"):
        super().__init__()
        self.conv = (PointwiseLinear(dim, out_dim) if width == 1 else
                     nn.Conv1d(dim, out_dim, width, dilation=dilation, padding=dilation * (width - 1) // 2))
        self.norm = make_norm(norm, out_dim)

    def forward(self, x):
        """Convolve, rectify, normalise."""
        return self.norm(F.relu(self.conv(x), inplace=True))


class Res2Conv(nn.Module):
    """Res2Net's convolution: of ``scale`` groups of channels, each is convolved after adding the one before.

    The last group passes as it is. (B, C, T) to (B, C, T). Raises VoxarkError if C is no multiple of scale.
    """

    def __init__(self, dim, width, dilation, scale, norm="frozen"):
        super().__init__()
        if scale < 2 or dim % scale:
            raise VoxarkError(f"{dim} channels cannot be split in {scale} groups: take a multiple of {scale}")
        self.part = dim // scale
        self.layers = nn.ModuleList(
            ConvReluNorm(self.part, self.part, width, dilation, norm) for _ in range(scale - 1))

    def forward(self, x):
        """Convolve the groups one after the other."""
        parts = torch.split(x, self.part, dim=1)
        outputs, y = [], None
        for part, layer in zip(parts, self.layers):
            y = layer(part if y is None else y + part)
            outputs.append(y)
        return torch.cat([*outputs, parts[-1]], dim=1)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) that sees the mean over time of all: (B, C, T) to (B, C, T)."""

    def __init__(self, dim, bottleneck):
        super().__init__()
        self.down = nn.Linear(dim, bottleneck)
        self.up = nn.Linear(bottleneck, dim)

    def forward(self, x):
        """Gate the channels."""
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=2)))))
        return x * gate[:, :, None]


class SeRes2Block(nn.Module):
    """ECAPA's block: affine, Res2 convolution, affine, squeeze-excitation, and the input added."""

    def __init__(self, dim, width, dilation, scale, bottleneck, norm="frozen"):
        super().__init__()
        self.body = nn.Sequential(
            ConvReluNorm(dim, dim, norm=norm),
            Res2Conv(dim, width, dilation, scale, norm),
            ConvReluNorm(dim, dim, norm=norm),
            SqueezeExcitation(dim, bottleneck))

    def forward(self, x):
        """(B, C, T) to (B, C, T)."""
        return x + self.body(x)


class ResidualBlock2d(nn.Module):
    """ResNet's basic block on (B, C, H, T): two 3x3 convolutions, a shortcut that fits them, ReLU behind.

    Where stride or channels change, the shortcut is a 1x1 convolution with a norm. The second norm multiplies
    by ``gain`` at the start.
    """

    def __init__(self, dim, out_dim, stride=1, norm="frozen", gain=1.0):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, out_dim, 3, stride, 1, bias=False)
        self.norm1 = make_norm(norm, out_dim, axes=2)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, 1, 1, bias=False)
        self.norm2 = make_norm(norm, out_dim, axes=2)
        nn.init.constant_(self.norm2.weight, gain)
        self.shortcut = nn.Identity()
        if stride != 1 or dim != out_dim:
            self.shortcut = nn.Sequential(
                nn.Conv2d(dim, out_dim, 1, stride, bias=False), make_norm(norm, out_dim, axes=2))

    def forward(self, x):
        """(B, dim, H, T) to (B, out_dim, H / stride, T / stride), rounded up."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


# ------------------------------------------------------------------------------------------------- poolings


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time: (B, C, T) to (B, 2C) [mean, sqrt(max(var, 1e-10))].

    The variance is the population's (divided by T), so that one frame has a deviation too, the floor's.
    """

    def forward(self, x):
        """Pool over the last axis, in float32 at least."""
        x = x.float() if x.dtype == torch.bfloat16 else x
        mean = x.mean(dim=-1, keepdim=True)
        variance = (x - mean).square().mean(dim=-1)  # torch.var_mean takes 2.5 times as long
        return torch.cat([mean.squeeze(-1), variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation over time, weights for each channel: (B, C, T) to (B, 2C).

    alpha = softmax over t of V tanh(W [x_t; mean; deviation] + b) + k, where mean and deviation of the whole
    utterance are ECAPA's global context. Their part of the product is the same for all frames and is
    computed once for each utterance. ``weights`` gives alpha itself.
    """

    def __init__(self, dim, bottleneck=128):
        super().__init__()
        self.dim = dim
        self.statistics = StatisticsPooling()
        self.inner = nn.Linear(3 * dim, bottleneck)
        self.outer = PointwiseLinear(bottleneck, dim)

    def weights(self, x):
        """Weights (B, C, T), which sum to 1 over time."""
        of_frames, of_context = self.inner.weight.split([self.dim, 2 * self.dim], dim=1)
        context = F.linear(self.statistics(x), of_context, self.inner.bias)
        hidden = torch.tanh(torch.matmul(of_frames, x) + context[:, :, None])
        return torch.softmax(self.outer(hidden), dim=2)

    def forward(self, x):
        """Pool over time, in float32 at least."""
        alpha = self.weights(x)
        if x.dtype == torch.bfloat16:
            alpha, x = alpha.float(), x.float()
        mean = (alpha * x).sum(dim=2)
        variance = (alpha * (x - mean[:, :, None]) ** 2).sum(dim=2)
        return torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1)


def pad_by_repetition(x, length):
    """Lengthen x (B, T, F) to ``length`` frames by its first and last one, the same number on both sides."""
    missing = length - x.shape[1]
    if missing <= 0:
        return x
    before = missing // 2
    return torch.cat([x[:, :1].expand(-1, before, -1), x, x[:, -1:].expand(-1, missing - before, -1)], dim=1)
