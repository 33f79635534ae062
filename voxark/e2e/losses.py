"""Losses of speaker verification and identification, each normalised: an uninformed system costs 1.

Verification losses take scores (any shape), ``target`` (bool, the same shape), and the effective prior P of
the operating point; trials have weights within their class, and a class without trials costs 0 and is
counted. tau = ln(P/(1-P)); h(P) = -P ln P - (1-P) ln(1-P).

The kinds of weights: by default they are relative, their sum in a batch is made 1 in each class. Weights that
estimate a sum over all trials of the training set (an objective's weight over the probability that a batch
holds the trial) must be taken as they are: ``normalize=False``.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from voxark.calibration.logistic import log_odds
from voxark.errors import VoxarkError


@dataclass
class EmptyClasses:
    """How many batches had no target trials, no nontarget trials, no triplets, no known speakers."""

    targets: int = 0
    nontargets: int = 0
    triplets: int = 0
    speakers: int = 0


# ------------------------------------------------------------------------------------------ verification


def all_pairs(speakers, recordings=None):
    """(target, mask), bool (N,N): of one speaker; is a trial. For scores that are symmetric.

    speakers (N,) integers. Trials are the pairs i < j, without pairs cut from the same recording where
    ``recordings`` (N,) numbers them.
    """
    target = speakers[:, None] == speakers
    mask = torch.ones_like(target).triu_(1)
    if recordings is not None:
        mask &= recordings[:, None] != recordings
    return target, mask


def trial_losses(scores, target, p_target=0.5):
    """Logistic loss of each trial, shaped as scores: softplus(-(s+tau)) of targets, else softplus(s+tau)."""
    shifted = scores + log_odds(p_target)
    return -F.logsigmoid(torch.where(target, shifted, -shifted))


def verification_loss(scores, target, p_target=0.5, weights=None, mask=None, normalize=True, counts=None):
    """Prior-weighted cross-entropy of scores as log-likelihood ratios, over h(P): 1 for scores of 0.

    [P sum_tar w softplus(-(s+tau)) + (1-P) sum_non w softplus(s+tau)] / h(P). ``mask`` (bool) says which
    entries are trials; ``weights`` as the module says; ``counts`` is an EmptyClasses.
    """
    tau = _tau(p_target)
    entropy = -p_target * math.log(p_target) - (1.0 - p_target) * math.log1p(-p_target)
    factors = _class_factors(target, p_target, weights, mask, normalize, counts) / entropy
    return _SumOverTrials.apply(scores, target, weights, mask, factors, tau, None)


def detection_cost(
    scores, target, p_target=0.5, weights=None, mask=None, slope=1.0, normalize=True, counts=None
):
    """Soft detection cost at the Bayes threshold -tau, over that of scores of 0, so that these cost 1.

    [P sum_tar w sigmoid(-a(s+tau)) + (1-P) sum_non w sigmoid(a(s+tau))] / [P sigmoid(-a tau) + (1-P)
    sigmoid(a tau)], a = ``slope``: as it grows the errors become counts, and the divisor min(P, 1-P).
    """
    tau = _tau(p_target)
    reject = 1.0 / (1.0 + math.exp(min(slope * tau, 700.0)))
    uninformed = p_target * reject + (1.0 - p_target) * (1.0 - reject)
    factors = _class_factors(target, p_target, weights, mask, normalize, counts) / uninformed
    return _SumOverTrials.apply(scores, target, weights, mask, factors, tau, slope)


def _tau(p_target):
    if not 0.0 < p_target < 1.0:
        raise VoxarkError(f"--p-target={p_target:g}: a probability between 0 and 1 is expected")
    return log_odds(p_target)


def _class_factors(target, p_target, weights, mask, normalize, counts):
    """(P / sum_tar w, (1-P) / sum_non w), float64, 0 for a class without weight; without sums as they are."""
    totals = torch.zeros(2, dtype=torch.float64, device=target.device)
    for part, w, m in _blocks(target, weights, mask):
        for i, members in enumerate((part, ~part)):
            members = members if m is None else members & m
            totals[i] += members.sum() if w is None else torch.where(members, w, 0).sum(dtype=torch.float64)
    if counts is not None:
        empty = (totals == 0).tolist()
        counts.targets += empty[0]
        counts.nontargets += empty[1]
    divisors = torch.where(totals == 0, 1, totals) if normalize else torch.ones_like(totals)
    return torch.where(totals == 0, 0, totals.new_tensor([p_target, 1.0 - p_target]) / divisors)


_BLOCK = 1 << 20  # trials at a time


def _blocks(*arrays):
    """Tuples of blocks of the flattened arrays, which may be None."""
    flat = [None if x is None else x.detach().reshape(-1) for x in arrays]
    for begin in range(0, len(flat[0]), _BLOCK):
        yield tuple(None if x is None else x[begin : begin + _BLOCK] for x in flat)


class _SumOverTrials(torch.autograd.Function):
    """sum of f_class w cost(s), cost logistic or (``slope``) a sigmoid; the gradient is found on the way.

    Of all the trials only their gradient is kept, and everything else is made a block at a time: for all
    pairs of 4,096 embeddings the plain expression holds ten times as much. Weights get no gradient.
    """

    @staticmethod
    def forward(ctx, scores, target, weights, mask, factors, tau, slope):
        gradient = torch.empty_like(scores, memory_format=torch.contiguous_format)
        total = scores.new_zeros((), dtype=torch.float64)
        for s, t, w, m, g in _blocks(scores, target, weights, mask, gradient):
            share = torch.where(t, factors[0], factors[1])
            if w is not None:
                share = share * w
            if m is not None:
                share, s = share * m, torch.where(m, s, 0)
            margin = torch.where(t, s + tau, -s - tau).to(torch.float64)
            if slope is None:
                cost, fall = -F.logsigmoid(margin), torch.sigmoid(-margin)
            else:
                cost = torch.sigmoid(-slope * margin)
                fall = slope * cost * (1.0 - cost)
            total += share @ cost
            g.copy_(torch.where(t, -1.0, 1.0) * share * fall)
        ctx.save_for_backward(gradient)
        return total.to(scores.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, outer):
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None, None, None, None, None


# ------------------------------------------------------------------------------------------ identification


class IdentificationHead(nn.Module):
    """Classifier of the training speakers: logits for kind "softmax", cosines for "am" and "aam".

    forward: embeddings (N,D) to (N,S), in their precision.
    """

    def __init__(self, dim, num_speakers, kind="softmax"):
        super().__init__()
        if kind not in ("softmax", "am", "aam"):
            raise VoxarkError(f"identification loss {kind!r}: softmax, am or aam is expected")
        if num_speakers < 2:
            raise VoxarkError(f"{num_speakers} training speakers: identification needs at least two")
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(num_speakers, dim))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(num_speakers)) if kind == "softmax" else None

    def forward(self, x):
        """What identification_loss takes, (N,S)."""
        weight = self.weight.to(x.dtype)
        if self.bias is not None:
            return F.linear(x, weight, self.bias.to(x.dtype))
        return F.normalize(x, dim=1) @ F.normalize(weight, dim=1).T

    def loss(self, x, speakers, scale=30.0, margin=0.2, counts=None):
        """identification_loss of embeddings x (N,D) of speakers (N,)."""
        return identification_loss(self(x), speakers, self.kind, scale, margin, counts)


def identification_loss(outputs, speakers, kind="softmax", scale=30.0, margin=0.2, counts=None):
    """Mean cross-entropy over ln S: 1 for a uniform posterior.

    outputs (N,S): logits ("softmax") or cosines, whose entry at the speaker becomes cos(theta) - m ("am") or
    cos(theta + m) ("aam"; where theta > pi - m, cos(theta) - m sin m, which goes on falling), all times
    ``scale``. speakers (N,) in 0 to S-1; -1 marks one that is not among them, whose rows do not count.
    """
    if outputs.shape[1] < 2:
        raise VoxarkError("identification needs at least two speakers")
    known = speakers >= 0
    index = speakers.clamp_min(0)[:, None]
    if kind != "softmax":
        cosine = outputs.gather(1, index)
        outputs = scale * outputs.scatter(1, index, _with_margin(cosine, kind, margin))
    losses = F.cross_entropy(outputs, index[:, 0], reduction="none")
    num_known = known.sum()
    if counts is not None:
        counts.speakers += int(num_known == 0)
    return torch.where(known, losses, 0).sum() / num_known.clamp_min(1) / math.log(outputs.shape[1])


def _with_margin(cosine, kind, margin):
    """The speaker's cosine, made smaller by a margin."""
    if kind == "am":
        return cosine - margin
    if kind != "aam":
        raise VoxarkError(f"identification loss {kind!r}: softmax, am or aam is expected")
    square = (1.0 - cosine.square()).clamp_min(
        10 * torch.finfo(cosine.dtype).eps
    )  # finite slope at theta = 0
    rotated = cosine * math.cos(margin) - square.sqrt() * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), rotated, cosine - margin * math.sin(margin))


def ramped(margin, step, start=0, end=0):
    """The margin at a step: 0 up to ``start``, then growing linearly to the whole of it at ``end``."""
    if step >= end:
        return margin
    return margin * max(step - start, 0) / (end - start)


# ------------------------------------------------------------------------------------------ triplets


def triplet_loss(x, speakers, margin=0.3, mining="all", counts=None, recordings=None):
    """Mean of max(0, d(a,p) - d(a,n) + m) over triplets, over m: 1 where all distances are equal.

    d is the Euclidean distance of the embeddings x (N,D) scaled to unit length. ``mining`` "all": every
    triplet of the batch, at the cost of sorting N rows, N^2 memory; "hardest": per anchor its farthest
    embedding of the same speaker and its nearest of another. Without triplets 0, counted. Two of one
    recording, where ``recordings`` (N,) numbers them, are neither positive nor negative.
    """
    if not margin > 0.0:
        raise VoxarkError(f"the margin of triplets must be positive, not {margin:g}")
    same = speakers[:, None] == speakers
    usable = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    if recordings is not None:
        usable &= recordings[:, None] != recordings
    distance = _distances(F.normalize(x, dim=1))
    if mining == "hardest":
        total, number = _hardest_triplets(distance, same & usable, ~same & usable, margin)
    elif mining == "all":
        total, number = _all_triplets(distance, same & usable, ~same & usable, margin)
    else:
        raise VoxarkError(f"mining of triplets {mining!r}: all or hardest is expected")
    if counts is not None:
        counts.triplets += int(number == 0)
    return total / number.clamp_min(1) / margin


def _distances(x):
    """Euclidean distances (N,N) of unit vectors; equal vectors have distance and gradient 0."""
    square = (2.0 - 2.0 * (x @ x.T)).clamp_min(0.0)
    positive = square > 10 * torch.finfo(x.dtype).eps
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _hardest_triplets(distance, positive, negative, margin):
    """(sum of hinges, number of anchors that have both)."""
    farthest = torch.where(positive, distance, -torch.inf).amax(dim=1)
    nearest = torch.where(negative, distance, torch.inf).amin(dim=1)
    anchors = positive.any(dim=1) & negative.any(dim=1)
    return F.relu(farthest[anchors] - nearest[anchors] + margin).sum(), anchors.sum()


def _all_triplets(distance, positive, negative, margin):
    """(sum of hinges, number of triplets): of each pair (a,p) in one step over its sorted negatives.

    With the k nearest negatives of the anchor closer than d(a,p) + m, the hinges of the pair add up to
    k (d(a,p) + m) minus the sum of those k distances.
    """
    ordered = torch.where(negative, distance, torch.inf).sort(dim=1).values
    reach = distance + margin
    k = torch.searchsorted(ordered.detach(), reach.detach())
    sums = F.pad(torch.where(ordered.isinf(), 0.0, ordered).cumsum(dim=1), (1, 0))
    hinges = torch.where(positive, k * reach - sums.gather(1, k), 0.0)
    return hinges.sum(), (positive.sum(dim=1) * negative.sum(dim=1)).sum()


# ------------------------------------------------------------------------------------------ both


JOINT = {"constant": ((0.25, 0.75), (0.25, 0.75)), "linear": ((1.0, 0.0), (0.1, 0.9))}


def joint_weights(schedule, progress):
    """(lambda_id, lambda_ver) of L = lambda_id L_id + lambda_ver L_ver at ``progress``, 0 to 1, of training.

    "constant" .25 and .75; "linear" from identification alone to .1 and .9. Also a pair of numbers, or a pair
    of pairs (at the start, at the end).
    """
    if isinstance(schedule, str):
        if schedule not in JOINT:
            raise VoxarkError(f"schedule of the losses {schedule!r}: expected {' or '.join(JOINT)}")
        schedule = JOINT[schedule]
    start, end = schedule if isinstance(schedule[0], (tuple, list)) else (schedule, schedule)
    progress = min(max(float(progress), 0.0), 1.0)
    return tuple((1.0 - progress) * a + progress * b for a, b in zip(start, end))


def joint_loss(identification, verification, weights):
    """lambda_id L_id + lambda_ver L_ver, for weights of joint_weights; a loss of weight 0 may be None."""
    terms = [w * loss for w, loss in zip(weights, (identification, verification)) if w and loss is not None]
    if not terms:
        raise VoxarkError("the joint loss has no term: both weights are 0")
    return sum(terms)
