"""The Gaussian mixture with full covariances: parameters, Kaldi's form of them, likelihoods, splitting.

p(x) = sum_c weights[c] N(x; means[c], covars[c]), c = 0..C-1, x of dimension D. The methods are those of
voxark.gmm.diag.DiagGmm.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.mixture import LOG_2PI, Mixture
from voxark.kaldi_files import FullGmmParams
from voxark.packed import pack_lower, unpack_lower

MAX_CELLS = 1 << 20  # numbers of a block of component_log_likelihoods: 8 MiB


@dataclass(frozen=True)
class FullGmm(Mixture):
    """A mixture of C Gaussians with full covariances over D dimensions, in float64.

    weights (C,) sum to 1 in a model of ours (files of others are taken as they are; 0 is allowed),
    means (C,D), covars (C,D,D) symmetric and positive definite. Raises VoxarkError for shapes that disagree
    and for impossible values; a covariance that is not positive definite is named with its least eigenvalue.
    """

    weights: np.ndarray
    means: np.ndarray
    covars: np.ndarray

    SPREAD = "covars"

    def __post_init__(self):
        self._check(lambda num_gauss, dim: (num_gauss, dim, dim))
        object.__setattr__(self, "cholesky", cholesky_factors(self.covars, "covariance"))

    @classmethod
    def from_params(cls, params):
        """Build the model from Kaldi's file contents (FullGmmParams); the stored gconsts are not used [K].

        Raises VoxarkError for NaN and for an inverse covariance that is not positive definite.
        """
        weights, means_invcovars, packed = (np.asarray(a, dtype=np.float64) for a in params[1:])
        factors = cholesky_factors(unpack_lower(packed, means_invcovars.shape[1]), "inverse covariance")
        inverse_factors = np.linalg.inv(factors)
        covars = np.matmul(inverse_factors.swapaxes(1, 2), inverse_factors)
        return cls(weights, np.matmul(covars, means_invcovars[:, :, None])[:, :, 0], covars)

    def to_params(self, dtype=np.float32):
        """Return Kaldi's <FullGMM>: gconsts, weights, means_invcovars and packed inv_covars as ``dtype``.

        The constants are those of the rounded parameters, as a reader of the file computes them.
        """
        precisions = self.precisions()
        linear = np.matmul(precisions, self.means[:, :, None])[:, :, 0]
        natural = (self.weights, linear, pack_lower(precisions))
        rounded = FullGmmParams(None, *(a.astype(dtype) for a in natural))
        return rounded._replace(gconsts=self.from_params(rounded).log_constants().astype(dtype))

    @cached_property
    def whitening(self):
        """The inverses (C,D,D) of the Cholesky factors: |whitening (x - mean)|^2 is Mahalanobis' distance."""
        return np.linalg.inv(self.cholesky)

    def precisions(self):
        """Return the inverse covariances (C,D,D)."""
        return np.matmul(self.whitening.swapaxes(1, 2), self.whitening)

    def log_peaks(self):
        """Return ln(weight_c N(mean_c; mean_c, covar_c)) as (C,); weight 0 gives -inf."""
        with np.errstate(divide="ignore"):
            peaks = np.log(self.weights) - 0.5 * self.dim * LOG_2PI
        return peaks - np.log(np.diagonal(self.cholesky, axis1=1, axis2=2)).sum(axis=1)

    def log_constants(self, offset=0.0):
        """Return g (C,): what ln(weight * density) has besides the terms in x - offset; weight 0 gives -inf.

        g_c = ln w_c - D/2 ln 2pi - 1/2 ln det covar_c - 1/2 (mean_c - o)' covar_c^-1 (mean_c - o) [K].
        """
        whitened = np.matmul(self.whitening, (self.means - offset)[:, :, None])[:, :, 0]
        return self.log_peaks() - 0.5 * np.square(whitened).sum(axis=1)

    def total_covariance(self):
        """Return the covariance (D,D) of the whole mixture: within the components plus between them."""
        share = self.weights / self.weights.sum()
        centred = self.means - self.mean()
        return np.tensordot(share, self.covars, 1) + (centred.T * share) @ centred

    def total_variance(self):
        """Return the variance (D,) of the whole mixture, the diagonal of its covariance."""
        return self.total_covariance().diagonal().copy()

    def component_log_likelihoods(self, x):
        """Return ln(weight_c N(x_n; mean_c, covar_c)) as (N,C) float64 for frames x (N,D).

        The distances are |L_c^-1 (x - mean_c)|^2 with covar_c = L_c L_c'; all components are one product a
        block. Raises VoxarkError when the dimension is not the model's.
        """
        x = self.check_features(x)
        offset = self.mean()
        stacked = self.whitening.reshape(-1, self.dim).T
        means = np.matmul(self.whitening, (self.means - offset)[:, :, None]).reshape(-1)
        lls = np.empty((len(x), self.num_gauss))
        block = max(1, MAX_CELLS // len(means))
        for start in range(0, len(x), block):
            y = (x[start : start + block] - offset) @ stacked
            y -= means
            y = np.square(y, out=y).reshape(-1, self.num_gauss, self.dim)
            y.sum(axis=2, out=lls[start : start + block])
        lls *= -0.5
        lls += self.log_peaks()
        return lls

    def _deviation(self, component, draw):
        return self.cholesky[component] @ draw

    def to_diag(self):
        """Return the DiagGmm of the same weights, means and variances [K: fgmm-global-to-gmm]."""
        return DiagGmm(self.weights, self.means, np.diagonal(self.covars, axis1=1, axis2=2).copy())


def cholesky_factors(matrices, what):
    """Return the lower Cholesky factors (C,D,D); VoxarkError naming the first one that has none.

    ``what`` names the matrices in the message.
    """
    if not np.isfinite(matrices).all():
        raise VoxarkError(f"GMM has a {what} with an element that is not a finite number")
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(matrices)[:, 0]
        worst = int(np.argmin(least))
        raise VoxarkError(f"GMM has a {what} that is not positive definite: component {worst} has the "
                          f"eigenvalue {least[worst]:.3g}") from None
