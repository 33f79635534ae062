"""Latent variables of whole utterances, and features from latent variables, on numpy arrays."""

from typing import NamedTuple

import numpy as np
import torch

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.fhvae.objective import Bound, map_mu2

AT_ONCE = 1024  # segments that go through the networks together


def segment_starts(num_frames, length, shift, cover=False):
    """First frames (N,) int64 of segments of ``length`` frames: 0, shift, 2 shift, ... as far as they fit.

    With ``cover`` a last one ends with the last frame, where frames would be left over.
    """
    starts = np.arange(0, num_frames - length + 1, shift, dtype=np.int64)
    if cover and len(starts) and starts[-1] + length < num_frames:
        starts = np.append(starts, num_frames - length)
    return starts


class Encoded(NamedTuple):
    """The latent variables of an utterance of N segments, float32."""

    starts: np.ndarray  # (N,): first frames
    z1_mean: np.ndarray  # (N,D1)
    z1_logvar: np.ndarray
    z2_mean: np.ndarray  # (N,D2)
    z2_logvar: np.ndarray
    z2: np.ndarray  # (N,D2): what z1 was inferred with: the mean, or a sample
    mu1: np.ndarray  # (D1,): sum of z1 over N + pz2_var / pmu2_var
    mu2: np.ndarray  # (D2,): the s-vector, the MAP estimate of mu2


def check_features(model, feats):
    """Features (T,F) float32; VoxarkError for another dimension, too few frames, values that are not finite."""
    feats = np.asarray(feats, np.float32)
    if feats.ndim != 2 or feats.shape[1] != model.input_dim:
        raise VoxarkError(f"features of shape {feats.shape}, but the model takes dimension {model.input_dim}")
    if len(feats) < model.segment_length:
        raise VoxarkError(f"{len(feats)} frames, fewer than a segment's {model.segment_length}")
    check_finite(feats, "feature")
    return feats


def segments(model, feats, starts):
    """Normalised segments (L,N,F) of features (T,F), on the model's device."""
    frames = torch.from_numpy(np.ascontiguousarray(feats)).to(model.feat_mean.device)
    rows = torch.from_numpy(starts).to(frames.device) + torch.arange(model.segment_length,
                                                                     device=frames.device)[:, None]
    return model.normalise(frames)[rows]


def _numpy(tensor):
    return tensor.float().cpu().numpy()


@torch.no_grad()
def encode(model, feats, shift=20, cover=False, sample_rng=None):
    """The latent variables of an utterance, features (T,F) as they are in archives: Encoded.

    Segments begin every ``shift`` frames (see segment_starts). z1 is inferred given the mean of z2, or given
    a sample of it with ``sample_rng``, a numpy generator. Raises VoxarkError as check_features does.
    """
    feats = check_features(model, feats)
    starts = segment_starts(len(feats), model.segment_length, shift, cover)
    parts = []
    for first in range(0, len(starts), AT_ONCE):
        x = segments(model, feats, starts[first : first + AT_ONCE])
        q2 = model.encode_z2(x)
        z2 = q2.mean
        if sample_rng is not None:
            noise = sample_rng.standard_normal(z2.shape, np.float32)
            z2 = q2.sample(torch.from_numpy(noise).to(z2.device))
        q1 = model.encode_z1(x, z2)
        parts.append(tuple(map(_numpy, (*q1, *q2, z2))))
    z1_mean, z1_logvar, z2_mean, z2_logvar, z2 = map(np.concatenate, zip(*parts, strict=True))
    return Encoded(starts, z1_mean, z1_logvar, z2_mean, z2_logvar, z2,
                   utterance_mean(model, z1_mean), utterance_mean(model, z2_mean))


def utterance_mean(model, z):
    """MAP estimate (D,) of what the segments' z (N,D) have in common: sum / (N + pz2_var / pmu2_var)."""
    sums = torch.from_numpy(z.sum(0, dtype=np.float64))
    return map_mu2(sums, torch.tensor(float(len(z))), model.pz2_var, model.pmu2_var).float().numpy()


@torch.no_grad()
def decode(model, z1, z2):
    """(mean, logvar), each (N,L,F) float32 in the units of the features, of z1 (N,D1) and z2 (N,D2)."""
    means, logvars = [], []
    device = model.feat_mean.device
    for first in range(0, len(z1), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        z = [torch.from_numpy(np.ascontiguousarray(z[part], np.float32)).to(device) for z in (z1, z2)]
        px = model.decode(*z)
        means.append(_numpy((px.mean * model.feat_std + model.feat_mean).transpose(0, 1)))
        logvars.append(_numpy((px.logvar + 2 * model.feat_std.log()).transpose(0, 1)))
    shape = (0, model.segment_length, model.input_dim)
    empty = np.zeros(shape, np.float32)
    return np.concatenate([empty, *means]), np.concatenate([empty, *logvars])


@torch.no_grad()
def utterance_bound(model, feats, shift=20, noise_rng=None):
    """Terms of the bound of an utterance's segments: a Bound of arrays (N,), with mu2 estimated from them.

    z1 and z2 are sampled with ``noise_rng``, a numpy generator, or are the means. In units of the features as
    they are: the density takes the normalisation into account.
    """
    feats = check_features(model, feats)
    starts = segment_starts(len(feats), model.segment_length, shift)
    mu2 = torch.from_numpy(encode(model, feats, shift).mu2).to(model.feat_mean.device)
    terms = []
    for first in range(0, len(starts), AT_ONCE):
        x = segments(model, feats, starts[first : first + AT_ONCE])
        count = x.shape[1]
        noise = None
        if noise_rng is not None:
            draws = (noise_rng.standard_normal((count, dim), np.float32) for dim in (model.z1_dim, model.z2_dim))
            noise = [torch.from_numpy(draw).to(x.device) for draw in draws]
        num = torch.full((count,), float(len(starts)), device=x.device)
        terms.append([_numpy(term) for term in model(x, mu2.expand(count, -1), num, noise).bound])
    log_px, *rest = map(np.concatenate, zip(*terms, strict=True))
    scale = model.segment_length * float(model.feat_std.double().log().sum())
    return Bound(log_px - scale, *rest)
