"""Relevance MAP adaptation of a diagonal mixture: a speaker's model from the UBM and little data.

Reynolds, Quatieri and Dunn's GMM-UBM adapts the means alone with relevance factor 16, which is the default
here (Kaldi's gmm-adapt-map: all parameters, --mean-tau=10). The rules are those of Kaldi's MapDiagGmmUpdate.
"""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.options import option


@dataclass
class MapOptions:
    """Which parameters to adapt, and how many frames' worth the prior counts."""

    update_flags: str = option("m", "What to adapt: any of m (means), v (variances), w (weights); Kaldi: mvw")
    mean_tau: float = option(16.0, "Relevance factor of the means: frames the UBM counts for (Kaldi: 10)")
    variance_tau: float = option(50.0, "Relevance factor of the variances")
    weight_tau: float = option(10.0, "Relevance factor of the weights, against the number of all frames")

    def check(self):
        """Raise VoxarkError for unknown flags and for negative factors."""
        if not self.update_flags or set(self.update_flags) - set("mvw"):
            raise VoxarkError(f"--update-flags={self.update_flags}: expected letters out of m, v, w")
        taus = self.mean_tau, self.variance_tau, self.weight_tau
        if min(taus) < 0 or max(taus) == np.inf:
            raise VoxarkError("--mean-tau, --variance-tau and --weight-tau must not be negative or infinite")


def map_adapt(ubm, accs, options):
    """Return the DiagGmm that ``ubm`` becomes after MAP adaptation to ``accs`` (DiagAccs under the UBM).

    mean = (f + tau m)/(n + tau) for the components with n > 0; var = [n E(x - mean)^2 + tau v]/(n + tau)
    around the adapted mean; weight = (n + tau w)/(N + tau) [K]. Components with n = 0 keep mean and variance.
    """
    n = accs.n[:, None]
    seen = n > 0
    first = np.divide(accs.f, n, out=np.zeros_like(accs.f), where=seen)  # E(z), z = x - offset
    second = np.divide(accs.s, n, out=np.zeros_like(accs.s), where=seen)  # E(z*z)
    means, variances, weights = ubm.means, ubm.variances, ubm.weights
    if "m" in options.update_flags:
        adapted = means + (first + accs.offset - means) * _share(n, options.mean_tau)
        means = np.where(seen, adapted, means)
    if "v" in options.update_flags:
        centre = means - accs.offset
        around = second - 2.0 * centre * first + np.square(centre)
        adapted = variances + (around - variances) * _share(n, options.variance_tau)
        # With tau = 0 a single frame leaves no variance; the tiny floor keeps the density finite.
        variances = np.where(seen, np.maximum(adapted, 1e-6 * ubm.variances), variances)
    if "w" in options.update_flags and accs.n.sum() + options.weight_tau > 0:
        weights = (accs.n + options.weight_tau * weights) / (accs.n.sum() + options.weight_tau)
    return DiagGmm(weights, means, variances)


def _share(n, tau):
    """alpha = n/(n + tau): what the data count for; 0 where n = 0."""
    return np.divide(n, n + tau, out=np.zeros_like(n), where=n > 0)
