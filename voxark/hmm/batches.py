"""Utterances in batches of bounded size, in the order in which they come."""

from typing import NamedTuple

import numpy as np

from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError

MAX_FRAMES = 1 << 16
MAX_CELLS = 1 << 20  # frames times states of a batch: 8 MiB for each array of them


class Batch(NamedTuple):
    """Joined utterances: keys, lengths (B,), x (N,D), and the states (N,) of their labels, or None."""

    keys: list
    lengths: np.ndarray
    x: np.ndarray
    states: np.ndarray | None


def batches(features, num_states, alignments=None):
    """Yield Batches of (key, x (T,D)) pairs; ``alignments`` {key: states (T,)} gives labels.

    Memory is that of one batch: at most 65,536 frames and a million frames times states, or one utterance.
    """
    limit = max(1, min(MAX_FRAMES, MAX_CELLS // num_states))
    held, num_frames = [], 0
    for key, x in features:
        if held and num_frames + len(x) > limit:
            yield _batch(held, alignments)
            held, num_frames = [], 0
        held.append((key, x))
        num_frames += len(x)
    if held:
        yield _batch(held, alignments)


def _batch(held, alignments):
    keys = [key for key, _ in held]
    lengths = np.array([len(x) for _, x in held])
    states = None if alignments is None else np.concatenate([alignments[key] for key in keys])
    return Batch(keys, lengths, np.concatenate([x for _, x in held]), states)


class Usable:
    """Iterates over the (key, x (T,D)) of ``features`` that a model can be asked about.

    Passed over, with fail(key, reason): no frames, fewer frames than ``shortest``, another dimension than
    ``dim`` (0: than the first one's), NaN and infinite features; the last two are errors instead where
    ``strict`` (a model should not come from half of a table of mixed kinds). A key that has failed once is
    not offered again, so that later passes see what the first one left.
    """

    def __init__(self, features, fail, dim=0, shortest=1, strict=False):
        self._features, self._fail, self.dim, self.shortest = features, fail, dim, shortest
        self.strict, self.failed = strict, set()

    def drop(self, key, reason):
        """Count a key as failed, once."""
        if key not in self.failed:
            self.failed.add(key)
            self._fail(key, reason)

    def __iter__(self):
        same = SameDimension()
        for key, x in self._features:
            if key in self.failed:
                continue
            try:
                self._check_length(key, x)
            except VoxarkError as error:
                self.drop(key, str(error))
                continue
            try:
                self._check_values(key, x, same)
            except VoxarkError as error:
                if self.strict:
                    raise VoxarkError(f"{key}: {error}") from None
                self.drop(key, str(error))
                continue
            yield key, x

    def _check_values(self, key, x, same):
        if self.dim and x.shape[1] != self.dim:
            raise VoxarkError(f"features have dimension {x.shape[1]}, the model {self.dim}")
        same.check(key, x.shape[1])
        check_finite(x, "feature")

    def _check_length(self, key, x):
        if len(x) == 0:
            raise VoxarkError("no frames")
        if len(x) < self.shortest:
            raise VoxarkError(f"{len(x)} frames, but the shortest path through the model has {self.shortest}")
