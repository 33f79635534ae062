"""Discriminatively trained PLDA: the PLDA score as a quadratic form whose coefficients are free.

s(x, y) = 2 x' Lambda y + x' Gamma x + y' Gamma y + (x + y)' c + k for two vectors as they are: there is no
length normalisation inside. Generative PLDA gives such a form (Dplda.from_plda), from which training starts;
training then moves Lambda, Gamma, c and k to separate trials. With diagonal Lambda and Gamma it is NPLDA.

The file, binary or text, in the style of Kaldi's models:

    <Dplda> <Lambda> P <Gamma> P <Offset> V <Constant> d </Dplda>

P is a packed matrix of Kaldi's (SpMatrix: the lower triangle row by row; "FP" or "DP" in binary), V a vector
(c), d a number (k; 4 or 8 bytes in binary). Binary files are written in double precision, text with Kaldi's
seven digits. All dimensions agree; diagonal matrices are stored as packed ones whose other numbers are zero.
"""

from dataclasses import dataclass

import numpy as np

from voxark.backend.class_stats import symmetric
from voxark.backend.pair_terms import PairTerms
from voxark.errors import VoxarkError
from voxark.kaldi_files import DpldaParams
from voxark.packed import pack_lower, unpack_lower


@dataclass(frozen=True)
class Dplda:
    """lam, gamma (D,D) symmetric; c (D,); k: float64."""

    lam: np.ndarray
    gamma: np.ndarray
    c: np.ndarray
    k: float

    @classmethod
    def from_params(cls, params):
        """Make a model of DpldaParams (voxark.kaldi_files); VoxarkError if empty or not finite."""
        lam, gamma, c = (np.asarray(field, np.float64) for field in params[:3])
        if not c.size:
            raise VoxarkError("the DPLDA model has dimension 0")
        if not all(np.isfinite(field).all() for field in (lam, gamma, c, params.constant)):
            raise VoxarkError("the DPLDA model holds values that are not finite")
        return cls(unpack_lower(lam, len(c)), unpack_lower(gamma, len(c)), c, float(params.constant))

    def to_params(self):
        """Return voxark.kaldi_files.DpldaParams for writing."""
        return DpldaParams(pack_lower(self.lam), pack_lower(self.gamma), self.c, self.k)

    @classmethod
    def from_plda(cls, plda):
        """The form of a Plda's LLR of one vector against one, without length normalisation.

        In PLDA's space it is diagonal (Plda.llr_terms), so Lambda = V' diag(a) V / 2, Gamma = V' diag(r) V:
        P/2 and Q/2 of P = T^-1 Sac Sc^-1, Q = T^-1 - Sc^-1, T = Sac + Swc, Sc = T - Sac T^-1 Sac.
        """
        cross, square, _, constant = plda.llr_terms(1)
        lam = symmetric(plda.transform.T * (0.5 * cross) @ plda.transform)
        gamma = symmetric(plda.transform.T * square @ plda.transform)
        linear = -2.0 * (lam + gamma) @ plda.mean
        return cls(lam, gamma, linear, constant - float(linear @ plda.mean))

    @property
    def dim(self):
        """D, the dimension."""
        return len(self.c)

    def of_one(self, x):
        """What each vector of x (N,D) adds to its scores: x' Gamma x + x' c, (N,) float64."""
        return np.einsum("nd,nd->n", x @ self.gamma + self.c, x)

    def pair_terms(self, enroll, test):
        """PairTerms of models enroll (M,D) against tests (T,D): 2 E Lambda T' + g_e 1' + 1 g_t' + k."""
        enroll, test = np.asarray(enroll, np.float64), np.asarray(test, np.float64)
        group = np.zeros(len(enroll), np.intp)
        return PairTerms(
            2.0 * (enroll @ self.lam), test, self.of_one(enroll) + self.k, self.of_one(test)[None], group
        )

    def scores(self, x, y):
        """Scores (M,T) float64 of vectors x (M,D) against y (T,D)."""
        return self.pair_terms(x, y).dense()
