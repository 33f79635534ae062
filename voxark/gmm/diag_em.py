"""E-step, statistics and M-step of mixtures with diagonal covariances."""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.gmm.diag import DiagGmm
from voxark.gmm.estep import EStep, add_statistics, updated_weights

logger = logging.getLogger(__name__)

BLOCK = 1024  # frames of an E-step block: its arrays stay in the second-level cache


@dataclass
class DiagAccs:
    """Statistics of a diagonal mixture around ``offset`` (D,): they add up over frames, utterances and jobs.

    n (C,) = sum gamma, f (C,D) = sum gamma z, s (C,D) = sum gamma z*z with z = x - offset, all float64;
    log_likelihood = sum ln p(x) (Viterbi training: sum max_c ln p(x, c)), num_frames.
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
        return add_statistics(self, other, ("offset",))

    def uncentred(self):
        """Return (n (C,), sum gamma x (C,D), sum gamma x*x (C,D)) around 0, as Kaldi's <GMMACCS> [K]."""
        shift = self.n[:, None] * self.offset
        return self.n, self.f + shift, self.s + self.offset * (2.0 * self.f + shift)

    def total_variance(self):
        """Return the variance (D,) of the data that the statistics are of."""
        total = self.n.sum()
        return np.maximum(self.s.sum(axis=0) / total - np.square(self.f.sum(axis=0) / total), 0.0)

    def maximise(self, gmm, options, floor):
        """Return (the DiagGmm that maximises the expected log-likelihood, enough (C,) booleans).

        weight = n/N, mean = f/n, var = max(s/n - mean^2, ``floor`` (D,)), as --update-flags says. Components
        without ``enough`` data keep mean and variance.
        """
        weights, enough = updated_weights(gmm, self.n, options, "diag")
        n = np.where(enough, self.n, 1.0)[:, None]
        centred, centre = self.f / n, gmm.means - self.offset
        if "m" in options.update_flags:
            centre = np.where(enough[:, None], centred, centre)
        variances = gmm.variances
        if "v" in options.update_flags:
            around = self.s / n - centre * (2.0 * centred - centre)
            num_floored = int((around < floor)[enough].sum())
            if num_floored:
                logger.debug("floored %d variances of %d", num_floored, enough.sum() * gmm.dim)
            variances = np.where(enough[:, None], np.maximum(around, floor), variances)
        changed = enough[:, None] & ("m" in options.update_flags)
        means = np.where(changed, centre + self.offset, gmm.means)
        return DiagGmm(weights, means, variances), enough


def float32_error(gmm, offset):
    """Estimate the rounding error, in nats, of a float32 log-likelihood of ``gmm`` around ``offset`` (D,).

    A frame that component c explains has terms of the sizes (mean - offset)^2 / var and 1 in each dimension;
    float32 sums of them lose about twice the unit roundoff times their sum.
    """
    sizes = np.square(gmm.means - offset) / gmm.variances + 1.0
    return 2.0 * 2.0**-24 * float(sizes.sum(axis=1).max())


class DiagEStep(EStep):
    """The E-step of a DiagGmm around ``offset`` (D,), near the data's mean: phi = [1, z, z*z].

    See EStep for ``double``, ``hard`` and ``device``.
    """

    def __init__(self, gmm, offset, double=False, hard=False, device=None):
        # Rounded to float32, x - offset of float32 features near it is exact.
        self.offset = np.asarray(offset, dtype=np.float32).astype(np.float64)
        g, w = gmm.exponential_form(self.offset)
        w = np.concatenate((g[:, None], w), axis=1)
        super().__init__(gmm, w, float32_error(gmm, self.offset), BLOCK, double, hard, device)
        self._offset = self.offset.astype(self.dtype)

    def zeros(self):
        """Return empty statistics for this step."""
        return DiagAccs.zeros(self.gmm.num_gauss, self.offset)

    def _features(self, x):
        dim = self.gmm.dim
        phi = self._phi[: len(x) * (1 + 2 * dim)].reshape(len(x), 1 + 2 * dim)
        phi[:, 0] = 1.0
        z = phi[:, 1 : 1 + dim]
        if self._device.is_numpy:
            np.subtract(x, self._offset, out=z, casting="same_kind")
        else:
            z[...] = self._device.asarray(x - self._offset, self.dtype.name)
        self._device.xp.multiply(z, z, out=phi[:, 1 + dim :])
        return phi
