"""The Gaussian mixture with diagonal covariances: parameters, Kaldi's form of them, likelihoods, splitting.

p(x) = sum_c weights[c] N(x; means[c], diag(variances[c])), c = 0..C-1, x of dimension D.
"""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.mixture import LOG_2PI, Mixture
from voxark.kaldi_files import DiagGmmParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiagGmm(Mixture):
    """A mixture of C Gaussians with diagonal covariances over D dimensions, in float64.

    weights (C,) sum to 1 in a model of ours (files of others are taken as they are; 0 is allowed),
    means (C,D), variances (C,D) > 0. Raises VoxarkError for shapes that disagree and for impossible values.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    SPREAD = "variances"

    def __post_init__(self):
        self._check(lambda num_gauss, dim: (num_gauss, dim))
        if not (np.isfinite(self.variances).all() and self.variances.min() > 0):
            raise VoxarkError("GMM has a variance that is not a positive number")

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

    def total_variance(self):
        """Return the variance (D,) of the whole mixture: within the components plus between them."""
        spread = self.variances + np.square(self.means - self.mean())
        return self.weights @ spread / self.weights.sum()

    def component_log_likelihoods(self, x):
        """Return ln(weight_c N(x_n; mean_c, var_c)) as (N,C) float64 for frames x (N,D), by a matrix product.

        Raises VoxarkError when the dimension is not the model's.
        """
        x = self.check_features(x)
        offset = self.mean()
        g, w = self.exponential_form(offset)
        z = np.empty((len(x), 2 * self.dim))
        np.subtract(x, offset, out=z[:, : self.dim])
        np.square(z[:, : self.dim], out=z[:, self.dim :])
        return z @ w.T + g

    def _deviation(self, component, draw):
        return draw * np.sqrt(self.variances[component])

    def to_full(self):
        """Return the FullGmm of the same weights, means and variances [K: gmm-global-to-fgmm]."""
        from voxark.gmm.full import FullGmm

        return FullGmm(self.weights, self.means, self.variances[:, :, None] * np.eye(self.dim))
