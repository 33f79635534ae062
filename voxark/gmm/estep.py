"""The E-step of mixtures in blocks of frames: what diagonal and full covariances share.

A Gaussian's log-likelihood is linear in the features phi = [1, z, products of z] of a frame (the exponential
family), so a block of frames is two matrix products: ln p(z, c) = w phi' and sum gamma phi [lecture; K].
"""

import abc
import logging
import math

import numpy as np

from voxark.arrays import Device
from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

FLOAT32_TOLERANCE = 1e-3  # largest accepted rounding error of a float32 log-likelihood, in nats
# Posteriors this far below the best one become 0: products of denormal numbers are twenty times slower.
NEGLIGIBLE = {"float32": 2.0**-80, "float64": 2.0**-700}
LEAST_OCCUPANCY = {"diag": 10.0, "full": 100.0}  # frames of a Gaussian that is updated [K]
DEVICE_BLOCK = 8192  # frames of a block where it need not fit a cache: longer sums in float32 lose digits


class EStep(abc.ABC):
    """The E-step under one model: adds the statistics of utterances, in blocks that never cross an utterance.

    A subclass gives w (C,F), the rounding error of float32 products in nats, the frames ``block``
    that stay in the cache, and _features(x). Products are float32 with float64 sums over blocks where the
    error is at most FLOAT32_TOLERANCE and ``double`` is not asked for, else float64. So a model's statistics
    do not depend on how utterances are shared among jobs. With ``hard``, each frame counts for its likeliest
    component alone (Viterbi training), the first one on ties. ``device`` is where products run.
    """

    def __init__(self, gmm, w, error, block, double=False, hard=False, device=None):
        self.gmm, self.hard = gmm, hard
        self._device = device or Device()
        exact = double or error > FLOAT32_TOLERANCE
        self.dtype = np.dtype(np.float64 if exact else np.float32)
        self.block = block if self._device.is_numpy else DEVICE_BLOCK
        logger.debug("E-step in %s (estimated error of float32: %.1e nats), blocks of %d frames on %s",
                     self.dtype.name, error, self.block, self._device.name)
        self._w = self._device.asarray(w, self.dtype.name)
        self._phi = self._device.empty((self.block * w.shape[1],), self.dtype.name)
        self._gamma = self._device.empty((self.block * len(w),), self.dtype.name)
        self._products = self._device.empty(w.shape, self.dtype.name)
        self._zero = self._device.asarray(0.0, self.dtype.name)
        self._components = self._device.asarray(np.arange(len(w))[:, None])

    @abc.abstractmethod
    def zeros(self):
        """Return empty statistics for this step."""

    @abc.abstractmethod
    def _features(self, x):
        """Return phi (B,F) of the frames x (B,D), on the device, in self._phi."""

    def accumulate(self, key, x, accs):
        """Add the statistics of the frames x (T,D) of utterance ``key`` to ``accs``.

        Raises VoxarkError naming the key for another dimension than the model's, for NaN or infinite
        features, and for a frame that has no likelihood under any component.
        """
        if x.shape[1] != self.gmm.dim:
            raise VoxarkError(f"{key}: features have dimension {x.shape[1]}, the GMM {self.gmm.dim}")
        before = accs.log_likelihood
        num_blocks = -(-len(x) // self.block)
        edges = [part * len(x) // num_blocks for part in range(num_blocks + 1)]
        with np.errstate(over="ignore", invalid="ignore"):  # what these flag is found below
            for start, end in zip(edges, edges[1:]):
                self._add_block(x[start:end], accs)
        accs.num_frames += len(x)
        if not math.isfinite(accs.log_likelihood - before):
            try:
                check_finite(x, "feature")
            except VoxarkError as error:
                raise VoxarkError(f"{key}: {error}") from None
            raise VoxarkError(f"{key}: a frame is so far from every Gaussian that it has no likelihood")

    def _add_block(self, x, accs):
        """One block: gamma (C,B), all in buffers that stay; components by rows, so that maxima and sums over
        components run along whole rows of frames."""
        xp, dim = self._device.xp, self.gmm.dim
        phi = self._features(x)
        gamma = self._gamma[: self.gmm.num_gauss * len(x)].reshape(self.gmm.num_gauss, len(x))
        xp.matmul(self._w, phi.T, out=gamma)
        peak = xp.max(gamma, axis=0)
        if self.hard:
            log_likelihoods = peak
            gamma[...] = self._components == xp.argmax(gamma, axis=0)
        else:
            gamma -= peak
            xp.exp(gamma, out=gamma)
            gamma -= NEGLIGIBLE[self.dtype.name]
            xp.maximum(gamma, self._zero, out=gamma)
            total = xp.sum(gamma, axis=0)
            log_likelihoods = xp.log(total) + peak
            gamma *= 1.0 / total
        xp.matmul(gamma, phi, out=self._products)
        accs.log_likelihood += float(xp.sum(log_likelihoods, dtype=xp.float64))
        products = self._device.to_numpy(self._products)
        accs.n += products[:, 0]
        accs.f += products[:, 1 : 1 + dim]
        accs.s += products[:, 1 + dim :]

    def groups(self, features):
        """Iterate (key, x) over ``features``: as they are on the CPU, else utterances joined to whole blocks.

        A GPU needs large products. Utterances are checked here, because a group cannot name the bad one.
        """
        if self._device.is_numpy:
            yield from features
            return
        same, keys, held, number = SameDimension(), [], [], 0
        for key, x in features:
            try:
                same.check(key, x.shape[1])
                check_finite(x, "feature")
            except VoxarkError as error:
                raise VoxarkError(f"{key}: {error}") from None
            keys.append(key)
            held.append(x)
            number += len(x)
            if number >= self.block:
                yield f"{keys[0]} to {key}", np.concatenate(held)
                keys, held, number = [], [], 0
        if held:
            yield f"{keys[0]} to {keys[-1]}", np.concatenate(held)


def add_statistics(accs, other, same):
    """Add the statistics ``other`` to ``accs``, which must agree in the arrays named ``same`` and in size."""
    if len(accs.n) != len(other.n) or not all(
            np.array_equal(getattr(accs, name), getattr(other, name)) for name in same):
        raise VoxarkError("statistics of different models or around different offsets do not add up")
    for name in ("n", "f", "s", "log_likelihood", "num_frames"):
        setattr(accs, name, getattr(accs, name) + getattr(other, name))
    return accs


def least_occupancy(options, kind):
    """Return the frames that a Gaussian must have more than: --min-gaussian-occupancy, or that of ``kind``."""
    given = options.min_gaussian_occupancy
    return given if given >= 0 else LEAST_OCCUPANCY[kind]


def updated_weights(gmm, n, options, kind):
    """Return (weights (C,), enough (C,)): Kaldi's rule for n (C,) frames a component [K].

    ``enough`` is true of components with more frames than least_occupancy for covariances of ``kind``, diag
    or full, and more than --min-gaussian-weight of the weight; the weights n/N of the others are floored.
    """
    if not n.sum() > 0:
        raise VoxarkError("the statistics hold no frames: there is nothing to update the GMM from")
    share = n / n.sum()
    enough = (n > least_occupancy(options, kind)) & (share > options.min_gaussian_weight)
    if "w" not in options.update_flags:
        return gmm.weights, enough
    weights = np.where(enough, share, np.maximum(share, options.min_gaussian_weight))
    return weights / weights.sum(), enough
