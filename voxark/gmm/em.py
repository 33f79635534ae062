"""EM of diagonal mixtures over data that stream by: E-step in blocks, additive statistics, M-step, training.

The E-step of a block of frames is two matrix products: the log-likelihoods [z, z*z] w' in the exponential
form and the sums of the responsibilities times [z, z*z], with z = x - offset [lecture; K].
"""

import logging
import math
from dataclasses import dataclass

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.init import InitOptions, initial_gmm, seeded_rng, summarise
from voxark.options import option

logger = logging.getLogger(__name__)

BLOCK = 1024  # frames of an E-step block: its arrays stay in the second-level cache
FLOAT32_TOLERANCE = 1e-3  # largest accepted rounding error of a float32 log-likelihood, in nats


@dataclass
class EmOptions:
    """Iterations of EM, and what becomes of components that hold too little data [K]."""

    num_iters: int = option(20, "Number of EM iterations")
    min_gaussian_occupancy: float = option(10.0, "Least number of frames of a Gaussian that is updated")
    min_gaussian_weight: float = option(1e-5, "Least weight of a Gaussian that is updated")
    min_variance: float = option(0.001, "Least variance, absolute")
    var_floor_factor: float = option(0.01, "Least variance as a fraction of the data's, in each dimension")
    remove_low_count_gaussians: bool = option(
        True, "If true, remove Gaussians with too little data, else keep them as they were")
    rescue: bool = option(False, "If true, replace Gaussians with too little data by halves of the heaviest")
    double: bool = option(False, "If true, all products in double precision (single needs half the time)")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if self.num_iters < 1:
            raise VoxarkError(f"--num-iters={self.num_iters}: at least 1 is needed")
        if not (self.min_variance > 0 and 0 <= self.var_floor_factor < 1):
            raise VoxarkError("--min-variance must be above 0, and --var-floor-factor between 0 and 1")


@dataclass
class DiagAccs:
    """Statistics of a diagonal mixture around ``offset`` (D,): they add up over frames, utterances and jobs.

    n (C,) = sum gamma, f (C,D) = sum gamma z, s (C,D) = sum gamma z*z with z = x - offset, all float64;
    log_likelihood = sum ln p(x), num_frames.
    """

    offset: np.ndarray
    n: np.ndarray
    f: np.ndarray
    s: np.ndarray
    log_likelihood: float = 0.0
    num_frames: int = 0

    @classmethod
    def zeros(cls, num_gauss, offset):
        """Return empty statistics of ``num_gauss`` components around ``offset`` (D,)."""
        shape = (num_gauss, len(offset))
        return cls(offset, np.zeros(num_gauss), np.zeros(shape), np.zeros(shape))

    def __iadd__(self, other):
        if not np.array_equal(self.offset, other.offset) or len(self.n) != len(other.n):
            raise VoxarkError("statistics of different models or around different offsets do not add up")
        for name in ("n", "f", "s", "log_likelihood", "num_frames"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def float32_error(gmm, offset):
    """Estimate the rounding error, in nats, of a float32 log-likelihood of ``gmm`` around ``offset`` (D,).

    A frame that component c explains has terms of the sizes (mean - offset)^2 / var and 1 in each dimension;
    float32 sums of them lose about twice the unit roundoff times their sum.
    """
    sizes = np.square(gmm.means - offset) / gmm.variances + 1.0
    return 2.0 * 2.0**-24 * float(sizes.sum(axis=1).max())


class DiagEStep:
    """The E-step under one model: adds the statistics of utterances, in blocks that never cross an utterance.

    Products are float32 with float64 sums over blocks where float32_error allows it and ``double`` is not
    asked for, else float64. So a model's statistics do not depend on how utterances are shared among jobs.
    """

    def __init__(self, gmm, offset, double=False):
        self.gmm = gmm
        # Rounded to float32, x - offset of float32 features near it is exact.
        self.offset = np.asarray(offset, dtype=np.float32).astype(np.float64)
        exact = double or float32_error(gmm, self.offset) > FLOAT32_TOLERANCE
        self.dtype = np.float64 if exact else np.float32
        self._offset = self.offset.astype(self.dtype)
        g, w = gmm.exponential_form(self.offset)
        logger.debug("E-step in %s", np.dtype(self.dtype).name)
        self._g, self._w = g[:, None].astype(self.dtype), w.astype(self.dtype)
        self._z = np.empty((BLOCK, 2 * gmm.dim), self.dtype)
        self._gamma = np.empty(BLOCK * gmm.num_gauss, self.dtype)
        self._products = np.empty_like(self._w)

    def zeros(self):
        """Return empty statistics for this step."""
        return DiagAccs.zeros(self.gmm.num_gauss, self.offset)

    def accumulate(self, key, x, accs):
        """Add the statistics of the frames x (T,D) of utterance ``key`` to ``accs``.

        Raises VoxarkError naming the key for another dimension than the model's, for NaN or infinite
        features, and for a frame that has no likelihood under any component.
        """
        if x.shape[1] != self.gmm.dim:
            raise VoxarkError(f"{key}: features have dimension {x.shape[1]}, the GMM {self.gmm.dim}")
        before = accs.log_likelihood
        num_blocks = -(-len(x) // BLOCK)
        edges = [part * len(x) // num_blocks for part in range(num_blocks + 1)]
        with np.errstate(over="ignore", invalid="ignore"):  # what these flag is found below
            for start, end in zip(edges, edges[1:]):
                self._accumulate_block(x[start:end], accs)
        accs.num_frames += len(x)
        if not math.isfinite(accs.log_likelihood - before):
            try:
                check_finite(x, "feature")
            except VoxarkError as error:
                raise VoxarkError(f"{key}: {error}") from None
            raise VoxarkError(f"{key}: a frame is so far from every Gaussian that it has no likelihood")

    def _accumulate_block(self, x, accs):
        """One block: gamma (C,B), all in buffers that stay in the cache; components by rows, so that maxima
        and sums over components run along whole rows of frames."""
        num_gauss, dim = self.gmm.means.shape
        z = self._z[: len(x)]
        np.subtract(x, self._offset, out=z[:, :dim], casting="same_kind")
        np.multiply(z[:, :dim], z[:, :dim], out=z[:, dim:])
        gamma = self._gamma[: num_gauss * len(x)].reshape(num_gauss, len(x))
        np.matmul(self._w, z.T, out=gamma)
        gamma += self._g
        peak = np.maximum.reduce(gamma, axis=0)
        gamma -= peak
        np.exp(gamma, out=gamma)
        total = np.add.reduce(gamma, axis=0)
        accs.log_likelihood += float(np.add.reduce(np.log(total) + peak, dtype=np.float64))
        gamma *= 1.0 / total
        np.matmul(gamma, z, out=self._products)
        accs.n += np.add.reduce(gamma, axis=1)
        accs.f += self._products[:, :dim]
        accs.s += self._products[:, dim:]


def e_step(gmm, features, offset=None, double=False):
    """Return the DiagAccs of ``gmm`` over ``features``, an iterable of (key, x (T,D)).

    ``offset`` (D,), by default the mixture's own mean, should be near the data's mean.
    """
    step = DiagEStep(gmm, gmm.mean() if offset is None else offset, double)
    accs = step.zeros()
    for key, x in features:
        if len(x):
            step.accumulate(key, x, accs)
    return accs


def variance_floor(variance, options):
    """Return the floor (D,): the larger of --min-variance and --var-floor-factor times ``variance`` (D,)."""
    return np.maximum(options.var_floor_factor * variance, options.min_variance)


def m_step(gmm, accs, options, floor, rng=None):
    """Return the DiagGmm that maximises the expected log-likelihood given ``accs``, as Kaldi updates it.

    weight = n/N, mean = f/n, var = max(s/n - mean^2, ``floor`` (D,)) for components with more than
    --min-gaussian-occupancy frames and --min-gaussian-weight of the weight; the others are removed, or
    replaced by halves of the heaviest (--rescue; ``rng`` draws), or keep mean and variance. One always stays.
    """
    share = accs.n / accs.n.sum()
    enough = (accs.n > options.min_gaussian_occupancy) & (share > options.min_gaussian_weight)
    n = np.where(enough, accs.n, 1.0)[:, None]
    centred = accs.f / n
    variances = accs.s / n - np.square(centred)
    num_floored = int((variances < floor)[enough].sum())
    if num_floored:
        logger.debug("floored %d variances of %d", num_floored, enough.sum() * gmm.dim)
    means = np.where(enough[:, None], centred + accs.offset, gmm.means)
    variances = np.where(enough[:, None], np.maximum(variances, floor), gmm.variances)
    weights = np.where(enough, share, np.maximum(share, options.min_gaussian_weight))
    updated = DiagGmm(weights / weights.sum(), means, variances)
    return updated if enough.all() else _treat_starved(updated, accs.n, enough, options, rng)


def _treat_starved(gmm, n, enough, options, rng):
    """Remove, rescue or keep the components that have too little data, and say so."""
    starved = np.flatnonzero(~enough)
    listed = ", ".join(f"{c} ({n[c]:.4g} frames)" for c in starved[:5])
    listed += f" and {len(starved) - 5} more" if len(starved) > 5 else ""
    if not (options.rescue or options.remove_low_count_gaussians) or gmm.num_gauss == 1:
        logger.warning("too little data for Gaussian %s: mean and variance kept", listed)
        return gmm
    if not enough.any():
        enough = np.arange(len(n)) == np.argmax(n)
    survivors = gmm.keep(enough)
    if not options.rescue:
        logger.warning("too little data for Gaussian %s: removed, %d left", listed, survivors.num_gauss)
        return survivors
    logger.warning("too little data for Gaussian %s: removed, and the heaviest split in its place", listed)
    return survivors.split(gmm.num_gauss, rng)


def growth_schedule(num_start, num_gauss, num_iters):
    """Return how many components to add before each of ``num_iters`` iterations.

    The number grows by equal factors and reaches ``num_gauss`` before iteration ceil(num_iters/2), whatever
    the numbers, so that at least half of the iterations train the whole model.
    """
    num_growing = -(-num_iters // 2)
    factor = (num_gauss / num_start) ** (1.0 / max(num_growing, 1))
    numbers = [num_start] + [round(num_start * factor ** (i + 1)) for i in range(num_growing)]
    added = [after - before for before, after in zip(numbers, numbers[1:])]
    return added + [0] * (num_iters - num_growing)


def train_diag_gmm(features, init_options, options, initial=None):
    """Train a DiagGmm by EM over ``features``, an iterable of (key, x (T,D)) that is read anew in each pass.

    Without ``initial`` a first pass finds the data's mean, variance and a random sample, from which the first
    model comes; with it (a DiagGmm) the iterations are plain, and its own mean and variance stand for the
    data's. Memory does not depend on the amount of data. VoxarkError for fewer than 10 frames a Gaussian.
    """
    init_options.check()
    options.check()
    if initial is None:
        gmm, offset, variance = _start(features, init_options, options)
        added = growth_schedule(gmm.num_gauss, init_options.num_gauss, options.num_iters)
    else:
        gmm, offset, variance = initial, initial.mean(), initial.total_variance()
        added = [0] * options.num_iters
    floor = variance_floor(variance, options)
    for iteration, num_new in enumerate(added, 1):
        gmm = gmm.split(gmm.num_gauss + num_new, seeded_rng(init_options.srand, "grow", iteration))
        accs = e_step(gmm, features, offset, options.double)
        check_amount(accs.num_frames, gmm.num_gauss)
        logger.info("iteration %d: log-likelihood per frame %.4f over %d frames",
                    iteration, accs.log_likelihood / accs.num_frames, accs.num_frames)
        gmm = m_step(gmm, accs, options, floor, seeded_rng(init_options.srand, "rescue", iteration))
    return gmm


def _start(features, init_options, options):
    """Return (initial DiagGmm, offset (D,), the data's variance (D,)) from a first pass."""
    num_sampled = 0 if init_options.init == "global-split" else init_options.num_frames
    summary = summarise(features, num_sampled, init_options.srand)
    check_amount(summary.num_frames, init_options.num_gauss)
    gmm = initial_gmm(summary, init_options, variance_floor(summary.variance, options))
    logger.info("%d frames of dimension %d; starting with %d of %d Gaussians (%s)",
                summary.num_frames, gmm.dim, gmm.num_gauss, init_options.num_gauss, init_options.init)
    return gmm, summary.mean, summary.variance


def check_amount(num_frames, num_gauss):
    """Raise VoxarkError when there are fewer than 10 frames a Gaussian."""
    if num_frames == 0:
        raise VoxarkError("the features hold no frames at all: nothing to train on")
    if num_frames < 10 * num_gauss:
        raise VoxarkError(
            f"{num_frames} frames are too few for {num_gauss} Gaussians: give at least {10 * num_gauss}, "
            f"or take --num-gauss={max(num_frames // 10, 1)} or fewer"
        )
