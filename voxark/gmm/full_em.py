"""E-step, statistics and M-step of mixtures with full covariances.

Frames are whitened by the mixture's total covariance before their products are formed: z = basis^-1
(x - offset) with basis basis' the total covariance. The numbers of a quadratic form are then as small as the
mixture allows, which is what makes float32 products accurate enough. The products z_i z_j are packed (i >= j;
off-diagonal weights are doubled), so a frame costs C D (D+1) multiplications twice.
"""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.estep import EStep, add_statistics, updated_weights
from voxark.gmm.full import FullGmm
from voxark.packed import pack_lower, packed_indices, unpack_lower

logger = logging.getLogger(__name__)

BLOCK = 512  # frames of an E-step block


@dataclass
class FullAccs:
    """Statistics of a full-covariance mixture: they add up over frames, utterances and jobs.

    n (C,) = sum gamma, f (C,D) = sum gamma z, s (C,P) = sum gamma zz' packed, with z = basis^-1 (x - offset),
    offset (D,), basis (D,D) lower triangular, all float64; log_likelihood = sum ln p(x) (Viterbi training:
    sum max_c ln p(x, c)), num_frames.
    """

    offset: np.ndarray
    basis: np.ndarray
    n: np.ndarray
    f: np.ndarray
    s: np.ndarray
    log_likelihood: float = 0.0
    num_frames: int = 0

    @classmethod
    def zeros(cls, num_gauss, offset, basis=None):
        """Return empty statistics of ``num_gauss`` components around ``offset`` (D,) in ``basis`` (D,D)."""
        dim = len(offset)
        basis = np.eye(dim) if basis is None else basis
        first, second = np.zeros((num_gauss, dim)), np.zeros((num_gauss, dim * (dim + 1) // 2))
        return cls(offset, basis, np.zeros(num_gauss), first, second)

    def __iadd__(self, other):
        return add_statistics(self, other, ("offset", "basis"))

    def centred(self):
        """Return (sum gamma y (C,D), sum gamma yy' (C,D,D)) with y = x - offset, not whitened."""
        second = np.matmul(np.matmul(self.basis, unpack_lower(self.s)), self.basis.T)
        return self.f @ self.basis.T, second

    def uncentred(self):
        """Return (n (C,), sum gamma x (C,D), packed sum gamma xx' (C,P)): the sums around 0."""
        first, second = self.centred()
        shift = self.n[:, None] * self.offset
        cross = (first + 0.5 * shift)[:, :, None] * self.offset
        return self.n, first + shift, pack_lower(second + cross + cross.swapaxes(1, 2))

    def total_variance(self):
        """Return the variance (D,) of the data that the statistics are of."""
        total = self.n.sum()
        mean = self.f.sum(axis=0) / total
        covar = unpack_lower(self.s.sum(axis=0)) / total - np.outer(mean, mean)
        return np.maximum(np.einsum("ij,jk,ik->i", self.basis, covar, self.basis), 0.0)

    def maximise(self, gmm, options, floor=None):
        """Return (the FullGmm that maximises the expected log-likelihood, enough (C,) booleans).

        weight = n/N, mean = f/n, covar = S/n - mean mean' with its eigenvalues floored (floored_covars), as
        --update-flags says; components without ``enough`` data keep mean and covariance. ``floor`` is that of
        diagonal models and not used.
        """
        weights, enough = updated_weights(gmm, self.n, options, "full")
        means, covars = gmm.means.copy(), gmm.covars.copy()
        first, second = self.centred()
        n = self.n[enough]
        first, second = first[enough] / n[:, None], second[enough] / n[:, None, None]
        centre = first if "m" in options.update_flags else gmm.means[enough] - self.offset
        if "m" in options.update_flags:
            means[enough] = first + self.offset
        if "v" in options.update_flags and len(n):
            cross = (first - 0.5 * centre)[:, :, None] * centre[:, None, :]
            covars[enough] = floored_covars(second - cross - cross.swapaxes(1, 2), options)
        return FullGmm(weights, means, covars), enough


def floored_covars(covars, options):
    """Return covars (C,D,D), symmetric, with eigenvalues of at least the floor of each one [K].

    The floor is the larger of --min-variance and the largest eigenvalue over --max-condition.
    """
    covars = 0.5 * (covars + covars.swapaxes(1, 2))
    values = np.linalg.eigvalsh(covars)
    floors = np.maximum(options.min_variance, np.abs(values).max(axis=1) / options.max_condition)
    low = np.flatnonzero(values[:, 0] < floors)
    if len(low):
        num_floored = int((values < floors[:, None]).sum())
        logger.debug("floored %d eigenvalues in %d of %d covariances", num_floored, len(low), len(covars))
        values, vectors = np.linalg.eigh(covars[low])
        values = np.maximum(values, floors[low, None])
        floored = np.matmul(vectors * values[:, None, :], vectors.swapaxes(1, 2))
        covars[low] = 0.5 * (floored + floored.swapaxes(1, 2))
    return covars


def exponential_form(gmm, offset, basis):
    """Return w (C,1+D+P): ln(weight_c N(x)) = w [1, z, packed zz'] with z = basis^-1 (x - offset).

    covar_c = L L' becomes (basis^-1 L)(basis^-1 L)', whose inverse factor is L^-1 basis: no covariance is
    inverted. w holds precision times mean, and -1/2 the precision with its off-diagonals doubled.
    """
    factors = np.matmul(gmm.whitening, basis)  # L^-1 basis
    whitened = np.matmul(gmm.whitening, (gmm.means - offset)[:, :, None])  # L^-1 (mean - offset)
    precisions = np.matmul(factors.swapaxes(1, 2), factors)
    linear = np.matmul(factors.swapaxes(1, 2), whitened)[:, :, 0]
    rows, columns = packed_indices(gmm.dim)
    quadratic = pack_lower(precisions) * np.where(rows == columns, -0.5, -1.0)
    g = gmm.log_peaks() - 0.5 * np.square(whitened[:, :, 0]).sum(axis=1)
    return np.concatenate((g[:, None], linear, quadratic), axis=1)


def float32_error(gmm, offset, basis, w):
    """Estimate the rounding error, in nats, of a float32 log-likelihood in the exponential form w.

    Each term w_k phi_k carries the roundings of w_k, of phi_k and of its sum: a few units of 2^-24 times its
    size, which by chance cancel in part. For frames that component c explains, E|z_i| <= s_i and
    E|z_i z_j| <= s_i s_j, where s_i^2 = mean_i^2 + covar_ii in the coordinates of z (Cauchy and Schwarz). So
    the sum of sizes is at most |g| + sum |linear| s + sum |quadratic| s s'; twice the unit roundoff times
    that is the estimate, as for diagonal mixtures. The sums of gamma zz' err by no more, relatively.
    """
    inverse = np.linalg.inv(basis)
    means = (gmm.means - offset) @ inverse.T
    scaled = np.matmul(inverse, gmm.cholesky)
    s = np.sqrt(np.square(means) + np.square(scaled).sum(axis=2))
    rows, columns = packed_indices(gmm.dim)
    used = gmm.weights > 0
    phi = np.concatenate((np.ones_like(s[:, :1]), s, s[:, rows] * s[:, columns]), axis=1)[used]
    sizes = np.einsum("ck,ck->c", np.abs(w[used]), phi)
    return 2.0 * 2.0**-24 * float(sizes.max())


class FullEStep(EStep):
    """The E-step of a FullGmm around ``offset`` (D,), by default its mean: phi = [1, z, packed zz'].

    See EStep for ``double``, ``hard`` and ``device``. Utterances are whitened in float64.
    """

    def __init__(self, gmm, offset=None, double=False, hard=False, device=None):
        self.offset = gmm.mean() if offset is None else np.asarray(offset, dtype=np.float64)
        try:
            self.basis = np.linalg.cholesky(gmm.total_covariance())
        except np.linalg.LinAlgError:
            raise VoxarkError("the total covariance of the GMM is not positive definite") from None
        w = exponential_form(gmm, self.offset, self.basis)
        error = float32_error(gmm, self.offset, self.basis, w)
        super().__init__(gmm, w, error, BLOCK, double, hard, device)
        self._inverse_basis = self._device.asarray(np.linalg.inv(self.basis))

    def zeros(self):
        """Return empty statistics for this step."""
        return FullAccs.zeros(self.gmm.num_gauss, self.offset, self.basis)

    def _features(self, x):
        """The rows of phi' (F,B) are products of whole rows, which is quick for any B."""
        xp, dim = self._device.xp, self.gmm.dim
        size = 1 + dim + dim * (dim + 1) // 2
        rows = self._phi[: size * len(x)].reshape(size, len(x))
        centred = self._device.asarray(x - self.offset)
        rows[0] = 1.0
        z = rows[1 : 1 + dim]
        z[...] = xp.matmul(self._inverse_basis, centred.T)
        start = 1 + dim
        for i in range(dim):
            xp.multiply(z[: i + 1], z[i], out=rows[start : start + i + 1])
            start += i + 1
        return rows.T
