"""Utterances that are worked on together: blocks of frames large enough for efficient products.

An utterance that does not fit a mixture is left out, and its reason is handed on.
"""

from typing import NamedTuple

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.io.posteriors import GaussSelection


def check_frames(x, dim):
    """Raise VoxarkError where x (T,D) has no frames, another dimension than ``dim``, or NaN or infinity."""
    if len(x) == 0:
        raise VoxarkError("no frames")
    if x.shape[1] != dim:
        raise VoxarkError(f"features have dimension {x.shape[1]}, the GMM {dim}")
    check_finite(x, "feature")


def check_selection(selection, num_frames, num_gauss):
    """Raise VoxarkError where a GaussSelection does not fit an utterance and a mixture."""
    if len(selection.counts) != num_frames:
        raise VoxarkError(
            f"the selection has {len(selection.counts)} frames, the features have {num_frames}")
    if selection.counts.size and selection.counts.min() < 1:
        raise VoxarkError(f"the selection of frame {int(selection.counts.argmin())} is empty")
    index = selection.index
    if index.size and not 0 <= index.min() <= index.max() < num_gauss:
        wrong = int(index.min() if index.min() < 0 else index.max())
        raise VoxarkError(f"the selection names Gaussian {wrong}, the GMM has {num_gauss} (from 0)")


class Utterance(NamedTuple):
    """Frames x (T,D) of an utterance, with a GaussSelection and weights (T,) of them, or None."""

    key: str
    x: np.ndarray
    selection: GaussSelection | None = None
    weights: np.ndarray | None = None

    def check(self, gmm):
        """Raise VoxarkError where it does not fit the mixture ``gmm``."""
        check_frames(self.x, gmm.dim)
        if self.selection is not None:
            check_selection(self.selection, len(self.x), gmm.num_gauss)
        if self.weights is not None:
            if len(self.weights) != len(self.x):
                raise VoxarkError(f"{len(self.weights)} weights for {len(self.x)} frames")
            check_finite(self.weights, "weight")


def matched(features, fail, selections=None, weights=None):
    """Yield Utterances of (key, x) pairs with what random readers of selections and weights have for them.

    ``fail(key, reason)`` hears of the utterances that a reader (None: there is none) has nothing for.
    """
    readers = [(selections, "no Gaussian selection"), (weights, "no weights")]
    for key, x in features:
        missing = [reason for reader, reason in readers if reader is not None and key not in reader]
        if missing:
            fail(key, missing[0] if len(x) else "no frames")
        else:
            yield Utterance(key, x, *(None if reader is None else reader[key] for reader, _ in readers))


class Pool(NamedTuple):
    """Whole utterances: their keys, numbers of frames, and frames one after the other."""

    keys: list
    lengths: list
    frames: Utterance

    @classmethod
    def of(cls, utterances):
        """Join Utterances."""
        keys, xs, selections, weights = zip(*utterances)
        if len(keys) == 1:
            return cls([keys[0]], [len(xs[0])], utterances[0])
        selection = None
        if selections[0] is not None:
            selection = GaussSelection(*(np.concatenate(arrays) for arrays in zip(*selections)))
        weights = None if weights[0] is None else np.concatenate(weights)
        joined = Utterance(f"{keys[0]} to {keys[-1]}", np.concatenate(xs), selection, weights)
        return cls(list(keys), list(map(len, xs)), joined)

    def blocks(self, size):
        """Yield parts, as Utterances, of at most ``size`` frames."""
        _, x, selection, weights = self.frames
        num_parts = -(-len(x) // size)
        edges = [part * len(x) // num_parts for part in range(num_parts + 1)]
        if selection is not None:
            ends = np.append(0, np.cumsum(selection.counts, dtype=np.int64))
        for start, end in zip(edges, edges[1:]):
            chosen = weighted = None
            if selection is not None:
                index = selection.index[ends[start] : ends[end]]
                chosen = GaussSelection(selection.counts[start:end], index)
            if weights is not None:
                weighted = weights[start:end]
            yield Utterance(self.frames.key, x[start:end], chosen, weighted)

    def check(self, log_likelihoods, fail):
        """Return the places of the utterances whose frames all have a likelihood; ``fail`` the others."""
        edges = np.append(0, np.cumsum(self.lengths))
        good = []
        for place, (key, start, end) in enumerate(zip(self.keys, edges, edges[1:])):
            finite = np.isfinite(log_likelihoods[start:end])
            if finite.all():
                good.append(place)
            else:
                frame = int(finite.argmin())
                fail(key, f"frame {frame} is so far from every Gaussian that it has no likelihood")
        return good


def pooled(utterances, size, gmm, fail):
    """Collect Utterances (or tuples of their first fields) into Pools of at most ``size`` frames.

    A longer utterance is a pool of its own. ``fail(key, reason)`` hears of utterances that do not fit the
    mixture, which are left out.
    """
    held, num_held = [], 0
    for utterance in utterances:
        utterance = Utterance(*utterance)
        try:
            utterance.check(gmm)
        except VoxarkError as error:
            fail(utterance.key, str(error))
            continue
        if held and num_held + len(utterance.x) > size:
            yield Pool.of(held)
            held, num_held = [], 0
        held.append(utterance)
        num_held += len(utterance.x)
    if held:
        yield Pool.of(held)
