"""Conversion of whole utterances by exchanging what an FHVAE has inferred of them.

z1 holds what changes from segment to segment, z2 what the segments of a sequence share. An utterance that is
decoded from its own z1 and another z2 keeps its words and takes over the other's speaker, noise or channel.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class ConvertOptions:
    """How utterances are converted."""

    mode: Literal["replace", "recombine", "reconstruct"] = option(
        "replace", "replace: shift z2 by the difference of the s-vectors; recombine: take the target's z2; "
                   "reconstruct: change nothing")  # fmt: skip
    amount: float = option(1.0, "How far z2 moves: 0 reconstructs, 1 goes all the way, beyond 1 exaggerates")
    target_z2: Literal["segments", "mean"] = option(
        "segments", "recombine: take the z2 of the target's segments in turn, over and over, or their mean")
    segment_shift: int = option(
        0, "Frames between segments, which overlap if it is below their length (0: their length)")

    def check(self, length):
        """Raise VoxarkError for values that a model with segments of ``length`` frames cannot follow."""
        if not np.isfinite(self.amount):
            raise VoxarkError(f"--amount={self.amount}: not a finite number")
        if not 0 <= self.segment_shift <= length:
            raise VoxarkError(f"--segment-shift={self.segment_shift}: segments have {length} frames, and "
                              "there must be no gap between them")


def joined(starts, segments, num_frames):
    """Features (T,F) float32 of segments (N,L,F) that begin at frames ``starts`` (N,) and cover all T frames.

    Where segments overlap, a frame is their weighted mean, with weights that fall off linearly from the
    middle of a segment to its ends. Raises VoxarkError if a frame is in no segment.
    """
    length, dim = segments.shape[1:]
    ramp = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    total, weight = np.zeros((num_frames, dim)), np.zeros(num_frames)
    for start, segment in zip(starts, segments):
        weight[start : start + length] += ramp
        total[start : start + length] += ramp[:, None] * segment
    if not weight.all():
        raise VoxarkError(f"frame {np.flatnonzero(weight == 0)[0]} of {num_frames} is in no segment")
    return (total / weight[:, None]).astype(np.float32)


def moved(z2, target, amount=1.0):
    """z2 (N,D) moved towards ``target`` (N,D) or (D,): z2 + amount (target - z2)."""
    return (z2 + amount * (target - z2)).astype(np.float32)


def shifted(z2, mu2, target_mu2, amount=1.0):
    """z2 (N,D) with another s-vector in place of mu2 (D,): z2 + amount (mu2_target - mu2)."""
    return (z2 + amount * (target_mu2 - mu2)).astype(np.float32)


def in_turn(z2, number):
    """The first ``number`` rows of z2 (N,D) repeated over and over."""
    return z2[np.arange(number) % len(z2)]


class Target:
    """What an utterance is converted to: an s-vector (D2,), and z2 (N,D2) of segments where there are any."""

    def __init__(self, mu2, z2=None):
        self.mu2, self.z2 = mu2, z2

    @classmethod
    def of_utterance(cls, encoded):
        """The target that an utterance's Encoded makes."""
        return cls(encoded.mu2, encoded.z2_mean)


def converted_z2(source, target, options):
    """z2 (N,D2) of a source's Encoded with a Target, as ConvertOptions say."""
    z2 = source.z2_mean
    if options.mode == "reconstruct":
        return z2
    if target.mu2.shape != source.mu2.shape:
        raise VoxarkError(f"a target vector of dimension {len(target.mu2)}, but the model's z2 has "
                          f"{len(source.mu2)}")
    if options.mode == "replace":
        return shifted(z2, source.mu2, target.mu2, options.amount)
    if target.z2 is None:
        return moved(z2, target.mu2, options.amount)
    wanted = target.z2.mean(axis=0) if options.target_z2 == "mean" else in_turn(target.z2, len(z2))
    return moved(z2, wanted, options.amount)


def encode_whole(model, feats, options=None):
    """Encoded of an utterance (T,F) whose segments cover all of its frames."""
    from voxark.fhvae.inference import encode  # here: it needs torch, which the options above do not

    shift = options.segment_shift if options is not None and options.segment_shift else model.segment_length
    return encode(model, feats, shift, cover=True)


def convert(model, feats, target=None, options=None):
    """Features (T,F) float32 of an utterance (T,F) converted to a Target (None: reconstructed).

    Raises VoxarkError for features that the model does not take and for a target of another dimension.
    """
    options = ConvertOptions() if options is None else options
    options.check(model.segment_length)
    return convert_encoded(model, encode_whole(model, feats, options), len(feats), target, options)


def convert_encoded(model, source, num_frames, target, options):
    """The same of a source's Encoded over ``num_frames`` frames."""
    from voxark.fhvae.inference import decode

    z2 = source.z2_mean if target is None else converted_z2(source, target, options)
    mean, _ = decode(model, source.z1_mean, z2)
    if not np.isfinite(mean).all():
        raise VoxarkError("the decoder gives numbers that are not finite: is "
                          f"--amount={options.amount:g} too large?")
    return joined(source.starts, mean, num_frames)
