"""What EM starts from: one pass over the data (moments, a random sample of frames), then the first model.

Random numbers come from --srand and the utterance's key: the sample is the same for any order of files.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)

MAX_LLOYD_ITERS = 20
BLOCK = 4096  # frames at a time in the distance computations


@dataclass
class InitOptions:
    """How many Gaussians, and from where the first ones come."""

    num_gauss: int = option(64, "Number of Gaussians of the final model")
    num_gauss_init: int = option(
        0, "Number of Gaussians at the start; the heaviest are split, up to --num-gauss at half of the "
        "iterations (0: 1 for --init=global-split, else --num-gauss)")
    init: Literal["global-split", "random-frames", "kmeans++"] = option(
        "global-split", "Start: one Gaussian that is split, means at random frames, or means from k-means")
    num_frames: int = option(200000, "Number of randomly chosen frames for random-frames and kmeans++")
    srand: int = option(0, "Seed of the random numbers")

    def num_start(self):
        """Return the number of Gaussians to begin with."""
        if self.num_gauss_init:
            return min(self.num_gauss_init, self.num_gauss)
        return 1 if self.init == "global-split" else self.num_gauss

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if self.num_gauss < 1 or self.num_gauss_init < 0 or self.num_frames < 1:
            raise VoxarkError("--num-gauss and --num-frames must be at least 1, --num-gauss-init at least 0")


class Reservoir:
    """A uniform random sample, without replacement, of at most ``capacity`` of all the frames shown to it.

    Every frame draws a random number; the frames with the smallest numbers stay. So the sample and its order
    depend on ``srand`` and the keys only, and memory is bounded by twice the capacity.
    """

    def __init__(self, capacity, srand):
        self.capacity, self.srand = capacity, srand
        self._draws, self._frames, self._held = [], [], 0
        self._threshold = np.inf

    def add(self, key, x):
        """Show the frames x (T,D) of utterance ``key``."""
        draws = seeded_rng(self.srand, "reservoir", key).random(len(x))
        chosen = draws < self._threshold
        self._draws.append(draws[chosen])
        self._frames.append(np.asarray(x[chosen], dtype=np.float32))
        self._held += len(self._draws[-1])
        if self._held >= 2 * self.capacity:
            self._shrink()

    def _shrink(self):
        draws, frames = np.concatenate(self._draws), np.concatenate(self._frames)
        order = np.argsort(draws, kind="stable")[: self.capacity]
        self._draws, self._frames, self._held = [draws[order]], [frames[order]], len(order)
        if len(order) == self.capacity:
            self._threshold = self._draws[0][-1]

    def frames(self):
        """Return the sample (M,D) float32 in random order."""
        self._shrink()
        return self._frames[0]


@dataclass
class DataSummary:
    """What one pass over the data tells: count, mean (D,), variance (D,), a sample (M,D) or None."""

    num_frames: int
    mean: np.ndarray
    variance: np.ndarray
    sample: np.ndarray | None


def summarise(features, num_sampled, srand):
    """Read (key, x (T,D)) pairs once and return their DataSummary; ``num_sampled`` 0 keeps no sample.

    Moments are float64 sums around the first utterance's mean, so a large common offset costs no digits.
    Raises VoxarkError, naming the key, for a NaN or an infinity, for a changed dimension and for no frames.
    """
    same, offset, num_frames = SameDimension(), None, 0
    reservoir = Reservoir(num_sampled, srand) if num_sampled else None
    for key, x in features:
        if len(x) == 0:
            continue
        try:
            same.check(key, x.shape[1])
            check_finite(x, "feature")
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None
        if offset is None:
            offset = x.mean(axis=0, dtype=np.float64)
            total, total_squares = np.zeros_like(offset), np.zeros_like(offset)
        with np.errstate(over="ignore", invalid="ignore"):
            centred = x - offset
            total += centred.sum(axis=0)
            total_squares += np.einsum("td,td->d", centred, centred)
            if not np.isfinite(total_squares + np.square(total)).all():
                raise VoxarkError(f"{key}: the squares of its features are too large to add up")
        num_frames += len(x)
        if reservoir is not None:
            reservoir.add(key, x)
    if offset is None:
        raise VoxarkError("the features hold no frames at all: nothing to train on")
    variance = np.maximum(total_squares / num_frames - np.square(total / num_frames), 0.0)
    sample = None if reservoir is None else reservoir.frames()
    return DataSummary(num_frames, offset + total / num_frames, variance, sample)


def initial_gmm(summary, options, floor):
    """Return the DiagGmm that EM starts from, as ``options`` (InitOptions) say; variances >= ``floor`` (D,).

    global-split: one Gaussian, split by Kaldi's rule. random-frames: means at distinct random frames, global
    variance, equal weights [K]. kmeans++: D^2 seeding and Lloyd iterations in units of the global standard
    deviation, then weights, means and variances of the clusters.
    """
    num_gauss = options.num_start()
    rng = seeded_rng(options.srand, "init")
    variance = np.maximum(summary.variance, floor)
    if options.init == "global-split":
        return DiagGmm(np.ones(1), summary.mean[None], variance[None]).split(num_gauss, rng)
    if options.init == "random-frames":
        means = distinct_frames(summary.sample, num_gauss, np.sqrt(variance), rng)
        return DiagGmm(np.full(num_gauss, 1.0 / num_gauss), means, np.tile(variance, (num_gauss, 1)))
    scale = np.sqrt(variance)
    z = ((summary.sample - summary.mean) / scale).astype(np.float32)
    weights, means, variances = cluster_moments(z, kmeans(z, num_gauss, rng), num_gauss)
    return DiagGmm(weights, means * scale + summary.mean, np.maximum(variances * scale**2, floor))


def distinct_frames(sample, number, std, rng):
    """Return ``number`` different rows (number,D) float64 of the randomly ordered ``sample`` (M,D).

    Where it holds fewer, copies moved by 0.1 ``std`` fill the rest, with a warning.
    """
    for size in (number, 4 * number, len(sample)):
        first = np.sort(np.unique(sample[:size], axis=0, return_index=True)[1])
        if len(first) >= number:
            return sample[first[:number]].astype(np.float64)
    logger.warning("only %d different frames for %d Gaussians: the rest are moved copies", len(first), number)
    copies = sample[np.resize(first, number)].astype(np.float64)
    copies[len(first) :] += 0.1 * std * rng.standard_normal((number - len(first), len(std)))
    return copies


def kmeans(z, number, rng):
    """Cluster z (M,D) into ``number`` groups; return the labels (M,).

    Greedy D^2 seeding (Arthur and Vassilvitskii's k-means++ with 2 + ln C candidates a step), then at most 20
    Lloyd iterations; an empty cluster takes the frame that is farthest from its centre.
    """
    centres = kmeans_seeds(z, number, rng)
    labels = None
    for _ in range(MAX_LLOYD_ITERS):
        nearest, distances = _nearest(z, centres)
        nearest = _fill_empty(nearest, distances, number)
        if labels is not None and np.array_equal(nearest, labels):
            break
        labels = nearest
        centres = _centres(z, labels, number)
    return labels


def kmeans_seeds(z, number, rng):
    """Return ``number`` seeds (number,D) among the rows of z (M,D), each drawn with probability ~ D^2.

    When every frame coincides with a seed, the rest are moved copies, with a warning.
    """
    squares = np.einsum("md,md->m", z, z)
    num_candidates = 2 + int(np.log(number))
    seeds = np.empty((number, z.shape[1]), dtype=z.dtype)
    seeds[0] = z[rng.integers(len(z))]
    closest = _square_distances(z, squares, seeds[:1])[0]
    for i in range(1, number):
        cumulated = np.cumsum(closest, dtype=np.float64)
        if not cumulated[-1] > 0:
            logger.warning("only %d different frames for %d clusters: the rest are moved copies", i, number)
            seeds[i:] = seeds[np.resize(np.arange(i), number - i)]
            seeds[i:] += 0.1 * rng.standard_normal((number - i, z.shape[1]))
            break
        # `closest` is exactly 0 on the seeds, and a draw below the total never falls on a step of height 0
        drawn = np.searchsorted(cumulated, rng.random(num_candidates) * cumulated[-1], side="right")
        candidates = z[np.minimum(drawn, len(z) - 1)]
        distances = np.minimum(_square_distances(z, squares, candidates), closest)
        best = int(np.argmin(distances.sum(axis=1)))
        seeds[i], closest = candidates[best], distances[best]
    return seeds


def _square_distances(z, squares, centres):
    """|z_m - centre_k|^2 as (K,M); differences of the size of rounding are 0."""
    distances = (-2.0 * centres) @ z.T
    distances += squares
    distances += np.einsum("kd,kd->k", centres, centres)[:, None]
    distances *= distances >= 1e-5 * squares
    return distances


def _nearest(z, centres):
    """Return the index (M,) of each frame's nearest centre (lowest on ties) and the squared distance (M,)."""
    half_squares = 0.5 * np.einsum("kd,kd->k", centres, centres)
    labels, distances = np.empty(len(z), dtype=np.intp), np.empty(len(z))
    for start in range(0, len(z), BLOCK):
        block = z[start : start + BLOCK]
        nearness = block @ centres.T - half_squares
        best = nearness.argmax(axis=1)
        labels[start : start + BLOCK] = best
        peak = np.take_along_axis(nearness, best[:, None], axis=1)[:, 0]
        distances[start : start + BLOCK] = np.einsum("md,md->m", block, block) - 2.0 * peak
    return labels, distances


def _centres(z, labels, number):
    """Means (C,D) of the clusters: products with one-hot labels, block by block."""
    sums, classes = np.zeros((number, z.shape[1])), np.arange(number)[:, None]
    for start in range(0, len(z), BLOCK):
        sums += (labels[start : start + BLOCK] == classes).astype(z.dtype) @ z[start : start + BLOCK]
    counts = np.bincount(labels, minlength=number)
    return (sums / np.maximum(counts, 1)[:, None]).astype(z.dtype)  # empty: fewer frames than C


def _fill_empty(labels, distances, number):
    """Give every empty cluster the farthest frame of a cluster that has more than one."""
    counts = np.bincount(labels, minlength=number)
    if counts.all():
        return labels
    farthest = iter(np.argsort(-distances, kind="stable"))
    for empty in np.flatnonzero(counts == 0):
        for frame in farthest:
            if counts[labels[frame]] > 1:
                counts[labels[frame]] -= 1
                labels[frame] = empty
                counts[empty] = 1
                break
    return labels


def cluster_moments(z, labels, number):
    """Return float64 weights (C,), means, variances (C,D) of the clusters ``labels`` (M,) of z (M,D)."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=number)
    present = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[present]
    ordered = z[order].astype(np.float64)
    means, variances = np.zeros((number, z.shape[1])), np.ones((number, z.shape[1]))
    means[present] = np.add.reduceat(ordered, starts) / counts[present, None]
    ordered -= means[labels[order]]
    variances[present] = np.add.reduceat(np.square(ordered, out=ordered), starts) / counts[present, None]
    return counts / len(z), means, variances
