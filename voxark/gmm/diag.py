"""The Gaussian mixture with diagonal covariances: parameters, Kaldi's form of them, likelihoods, splitting.

p(x) = sum_c weights[c] N(x; means[c], diag(variances[c])), c = 0..C-1, x of dimension D.
"""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.kaldi_files import DiagGmmParams

logger = logging.getLogger(__name__)

LOG_2PI = float(np.log(2.0 * np.pi))


def log_sum_exp(a, axis):
    """Return ln sum exp(a) along ``axis`` without overflow; a line of -inf alone gives -inf, never NaN."""
    peak = a.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(a - peak).sum(axis=axis)) + peak.squeeze(axis)


@dataclass(frozen=True)
class DiagGmm:
    """A mixture of C Gaussians with diagonal covariances over D dimensions, in float64.

    weights (C,) sum to 1 in a model of ours (files of others are taken as they are; 0 is allowed),
    means (C,D), variances (C,D) > 0. Raises VoxarkError for shapes that disagree and for impossible values.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def __post_init__(self):
        for name in ("weights", "means", "variances"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.means.ndim != 2 or self.means.size == 0:
            raise VoxarkError(f"GMM has means of shape {self.means.shape}, expected (components, dimension)")
        if self.variances.shape != self.means.shape or self.weights.shape != self.means.shape[:1]:
            raise VoxarkError(
                f"GMM has {self.weights.shape} weights, {self.means.shape} means and "
                f"{self.variances.shape} variances: the shapes disagree"
            )
        if not (np.isfinite(self.weights).all() and self.weights.min() >= 0 and self.weights.max() > 0):
            raise VoxarkError("GMM has a weight that is negative or not a number, or no weight above zero")
        if not np.isfinite(self.means).all():
            raise VoxarkError("GMM has a mean that is not a finite number")
        if not (np.isfinite(self.variances).all() and self.variances.min() > 0):
            raise VoxarkError("GMM has a variance that is not a positive number")

    @property
    def num_gauss(self):
        """Number of components C."""
        return len(self.weights)

    @property
    def dim(self):
        """Dimension D of the features."""
        return self.means.shape[1]

    @classmethod
    def from_params(cls, params):
        """Build the model from Kaldi's file contents (DiagGmmParams); the stored gconsts are not used [K].

        A component whose constant would be infinite has likelihood 0 in Kaldi; here it gets weight 0 and is
        counted in a warning. Raises VoxarkError for NaN and for negative inverse variances.
        """
        weights, means_invvars, inv_vars = (np.array(a, dtype=np.float64) for a in params[1:])
        if np.isnan(weights).any() or np.isnan(means_invvars).any() or not (inv_vars >= 0).all():
            raise VoxarkError("GMM has a parameter that is not a number, or a negative inverse variance")
        with np.errstate(divide="ignore", invalid="ignore"):
            means, variances = means_invvars / inv_vars, 1.0 / inv_vars
        usable = (np.isfinite(means) & np.isfinite(variances) & (variances > 0)).all(axis=1)
        if not usable.all():
            num_bad = len(usable) - usable.sum()
            logger.warning("%d of %d components have no finite density: weight 0", num_bad, len(usable))
            weights[~usable], means[~usable], variances[~usable] = 0.0, 0.0, 1.0
        return cls(weights, means, variances)

    def to_params(self, dtype=np.float32):
        """Return Kaldi's <DiagGMM>: gconsts, weights, means_invvars and inv_vars as ``dtype``.

        The constants are those of the rounded parameters, as a reader of the file computes them.
        """
        natural = (self.weights, self.means / self.variances, 1.0 / self.variances)
        rounded = DiagGmmParams(None, *(a.astype(dtype) for a in natural))
        return rounded._replace(gconsts=self.from_params(rounded).log_constants().astype(dtype))

    def log_constants(self, offset=0.0):
        """Return g (C,): what ln(weight * density) has besides the terms in x - offset; weight 0 gives -inf.

        g_c = ln w_c - D/2 ln 2pi - 1/2 sum_d ln var_cd - 1/2 sum_d (mean_cd - offset_d)^2 / var_cd [K].
        """
        with np.errstate(divide="ignore"):
            g = np.log(self.weights) - 0.5 * self.dim * LOG_2PI
        g -= 0.5 * np.log(self.variances).sum(axis=1)
        return g - 0.5 * (np.square(self.means - offset) / self.variances).sum(axis=1)

    def exponential_form(self, offset=0.0):
        """Return (g (C,), w (C,2D)) such that the log-likelihoods of z = x - offset are g + w [z, z*z].

        This is the exponential-family form, means/var and -1/2var [K]. Around an offset near the data the
        two large terms that cancel in it stay small, which is what makes float32 products accurate enough.
        """
        w = np.concatenate(((self.means - offset) / self.variances, -0.5 / self.variances), axis=1)
        return self.log_constants(offset), w

    def mean(self):
        """Return the mean (D,) of the whole mixture."""
        return self.weights @ self.means / self.weights.sum()

    def total_variance(self):
        """Return the variance (D,) of the whole mixture: within the components plus between them."""
        spread = self.variances + np.square(self.means - self.mean())
        return self.weights @ spread / self.weights.sum()

    def component_log_likelihoods(self, x):
        """Return ln(weight_c N(x_n; mean_c, var_c)) as (N,C) float64 for frames x (N,D), by a matrix product.

        Raises VoxarkError when the dimension is not the model's.
        """
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise VoxarkError(f"features have shape {x.shape}, the GMM has dimension {self.dim}")
        offset = self.mean()
        g, w = self.exponential_form(offset)
        z = np.empty((len(x), 2 * self.dim))
        np.subtract(x, offset, out=z[:, : self.dim])
        np.square(z[:, : self.dim], out=z[:, self.dim :])
        return z @ w.T + g

    def log_likelihood(self, x):
        """Return ln p(x_n) as (N,) float64 for frames x (N,D)."""
        return log_sum_exp(self.component_log_likelihoods(x), axis=1)

    def split(self, target, rng, perturb=0.1):
        """Return a model of ``target`` components made by halving the heaviest one again and again [K].

        The two halves (first on ties) get the means +-perturb*r*std, r from ``rng.standard_normal``.
        """
        weights, means, variances = list(self.weights), list(self.means), list(self.variances)
        while len(weights) < target:
            heaviest = int(np.argmax(weights))
            step = perturb * rng.standard_normal(self.dim) * np.sqrt(variances[heaviest])
            weights[heaviest] /= 2.0
            weights.append(weights[heaviest])
            means.append(means[heaviest] + step)
            means[heaviest] = means[heaviest] - step
            variances.append(variances[heaviest])
        return DiagGmm(np.array(weights), np.array(means), np.array(variances))

    def keep(self, chosen):
        """Return the model of the components ``chosen`` (indices or booleans), weights scaled to sum 1."""
        weights = self.weights[chosen]
        return DiagGmm(weights / weights.sum(), self.means[chosen], self.variances[chosen])

    def to_full(self):
        """Return the FullGmm of the same weights, means and variances [K: gmm-global-to-fgmm]."""
        from voxark.gmm.full import FullGmm

        return FullGmm(self.weights, self.means, self.variances[:, :, None] * np.eye(self.dim))
