"""The i-vector extractor: one linear Gaussian model of all components' means, in two equivalent forms.

An utterance's mean of component c is M_c = m_c + T_c w with w ~ N(p, I_R), p = (offset, 0, ..., 0). In the
standard centred form the offset is 0. In Kaldi's form m_c = 0 and the offset is not: the first column of T_c
is m_c / offset, so the first dimension of w carries the mean [K].
"""

from dataclasses import dataclass, replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.kaldi_files import IvectorExtractorParams
from voxark.options import option
from voxark.packed import pack_lower, unpack_lower
from voxark.random_numbers import seeded_rng

# The centred form in Kaldi's file: a first column m_c / CENTRED_OFFSET in front of T_c. Its dimension of w
# moves features by |m_c| / CENTRED_OFFSET, which is nothing, so Kaldi's programs give a first component of
# zero and our i-vector behind it. The offset is a power of two, which makes the division exact, and has seven
# digits, which text keeps; no training of Kaldi's ends in just this number.
CENTRED_OFFSET = 8388608.0
KALDI_OFFSET = 100.0  # what Kaldi starts from [K]


@dataclass
class ExtractorOptions:
    """Size, form and random start of an i-vector extractor, named as Kaldi names them."""

    ivector_dim: int = option(400, "Dimension of the i-vectors")
    srand: int = option(0, "Seed of the random start")
    kaldi_compat: bool = option(
        False, "If true, Kaldi's model (the mean is the first dimension's, with an offset) and its estimator")


@dataclass(frozen=True)
class IvectorExtractor:
    """weights (C,), means m (C,D), t (C,D,R), sigma_inv (C,D,D), float64, and the offset of the prior's mean.

    The weights do not touch the i-vector; they scale the evidence and the average that orders dimensions [K].
    """

    weights: np.ndarray
    means: np.ndarray
    t: np.ndarray
    sigma_inv: np.ndarray
    offset: float = 0.0

    @property
    def num_gauss(self):
        """C, the number of Gaussians."""
        return self.t.shape[0]

    @property
    def dim(self):
        """D, the dimension of the features."""
        return self.t.shape[1]

    @property
    def ivector_dim(self):
        """R, the dimension of the i-vectors."""
        return self.t.shape[2]

    @property
    def is_centred(self):
        """True for the standard form, false for Kaldi's."""
        return self.offset == 0.0

    @classmethod
    def from_params(cls, params):
        """Make a model from voxark.kaldi_files.IvectorExtractorParams, in the form that the file has.

        Raises VoxarkError for shapes that disagree, for values that are not finite, for a Sigma^-1 that is
        not positive definite, and for weights that depend on the i-vector.
        """
        m = np.asarray(params.m, np.float64)
        num_gauss, dim, ivector_dim = m.shape
        if np.size(params.w):
            raise VoxarkError(
                "the weights of this extractor depend on the i-vector (Kaldi's --use-weights=true), which is "
                "not supported: train it with --use-weights=false, as Kaldi's recipes do")
        if len(params.w_vec) != num_gauss or params.sigma_inv.shape != (num_gauss, dim * (dim + 1) // 2):
            raise VoxarkError(f"the extractor has {len(params.w_vec)} weights, M {m.shape} and Sigma^-1 "
                              f"{params.sigma_inv.shape}: the shapes disagree")
        for name in ("w_vec", "m", "sigma_inv", "offset"):
            if not np.isfinite(getattr(params, name)).all():
                raise VoxarkError(f"the extractor holds a value that is not finite in {name}")
        sigma_inv = unpack_lower(np.asarray(params.sigma_inv, np.float64), dim)
        weights = np.asarray(params.w_vec, np.float64)
        if params.offset == CENTRED_OFFSET and ivector_dim > 1:
            model = cls(weights, CENTRED_OFFSET * m[:, :, 0], m[:, :, 1:], sigma_inv)
        else:
            model = cls(weights, np.zeros((num_gauss, dim)), m, sigma_inv, float(params.offset))
        model.log_determinants()
        return model

    def to_params(self):
        """Return voxark.kaldi_files.IvectorExtractorParams; the centred form gets a column more (above)."""
        m, offset = self.t, self.offset
        if self.is_centred:
            offset = CENTRED_OFFSET
            m = np.concatenate((self.means[:, :, None] / offset, self.t), axis=2)
        empty = np.zeros((0, 0))
        return IvectorExtractorParams(empty, self.weights, m, pack_lower(self.sigma_inv), offset)

    def centred(self):
        """The same model in centred form: its w is that of Kaldi's form less the offset."""
        if self.is_centred:
            return self
        return replace(self, means=self.means + self.offset * self.t[:, :, 0], offset=0.0)

    def prior_mean(self):
        """p (R,): (offset, 0, ..., 0)."""
        mean = np.zeros(self.ivector_dim)
        mean[0] = self.offset
        return mean

    def log_determinants(self):
        """ln|Sigma_c| (C,); VoxarkError names the component whose Sigma^-1 is not positive definite."""
        try:
            factors = np.linalg.cholesky(self.sigma_inv)
        except np.linalg.LinAlgError:
            smallest = np.linalg.eigvalsh(self.sigma_inv)[:, 0]
            worst = int(np.argmin(smallest))
            raise VoxarkError(f"the inverse covariance of component {worst} is not positive definite "
                              f"(smallest eigenvalue {smallest[worst]:.3g})") from None
        return -2.0 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)

    def projections(self):
        """Sigma_c^-1 T_c (C,D,R)."""
        return self.sigma_inv @ self.t

    def variance_shares(self):
        """Traces, weighted over components, of T_c T_c' and Sigma_c: what i-vectors explain, and the rest."""
        t = self.t if self.is_centred else self.t[:, :, 1:]
        residual = np.trace(np.linalg.inv(self.sigma_inv), axis1=1, axis2=2)
        return float(self.weights @ np.square(t).sum(axis=(1, 2))), float(self.weights @ residual)


def initial_extractor(gmm, options):
    """Return the model that EM starts from, of a FullGmm and ExtractorOptions.

    Centred: m_c is the GMM's mean, and T_c = L_c G / sqrt(R), Sigma_c = L_c L_c', G of independent standard
    normal numbers, so that utterances differ as much as frames do. Kaldi's [K]: M_c of standard normal
    numbers, its first column the mean over the offset 100. Each component draws from its own seed.
    """
    ivector_dim = options.ivector_dim
    least = 2 if options.kaldi_compat else 1
    if ivector_dim < least:
        raise VoxarkError(f"--ivector-dim={ivector_dim}: at least {least} is expected")
    rngs = (seeded_rng(options.srand, "ivector-extractor", c) for c in range(gmm.num_gauss))
    noise = np.stack([rng.standard_normal((gmm.dim, ivector_dim)) for rng in rngs])
    sigma_inv = np.linalg.inv(gmm.covars)
    sigma_inv = 0.5 * (sigma_inv + np.swapaxes(sigma_inv, 1, 2))
    if options.kaldi_compat:
        noise[:, :, 0] = gmm.means / KALDI_OFFSET
        return IvectorExtractor(gmm.weights, np.zeros_like(gmm.means), noise, sigma_inv, KALDI_OFFSET)
    t = np.linalg.cholesky(gmm.covars) @ noise / np.sqrt(ivector_dim)
    return IvectorExtractor(gmm.weights, gmm.means.copy(), t, sigma_inv)
