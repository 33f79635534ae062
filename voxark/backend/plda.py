"""Two-covariance PLDA: the model in Kaldi's diagonal form, and its log-likelihood ratios.

z_s ~ N(mu, Sac), x_si | z_s ~ N(z_s, Swc) [lecture]. V makes V Swc V' = I and V Sac V' = diag(psi), psi
falling, so that in u = V (x - mu) every dimension is a scalar model of its own. Training is in plda_em.py.
"""

from dataclasses import dataclass

import numpy as np

from voxark.backend.class_stats import fix_signs, symmetric
from voxark.backend.pair_terms import PairTerms
from voxark.backend.vectors import length_ratio, transform
from voxark.errors import VoxarkError
from voxark.kaldi_files import PldaParams
from voxark.options import option


@dataclass
class PldaScoringOptions:
    """How vectors are brought into PLDA's space, named as Kaldi names it."""

    normalize_length: bool = option(
        True, "PLDA: normalise the length of the vectors in PLDA's space, as Kaldi does"
    )
    simple_length_normalization: bool = option(
        False,
        "PLDA: normalise the length to sqrt(dim), not to what the model and the number of sessions expect",
    )
    smoothing: float = option(
        0.0,
        "PLDA: add this multiple of the between-speaker covariance to the within-speaker covariance (0 to 1)",
    )


@dataclass(frozen=True)
class Plda:
    """mean (D,), transform V (D,D), psi (D,), float64: the fields of Kaldi's <Plda> [K]."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray

    @classmethod
    def from_params(cls, params):
        """Make a model of PldaParams (voxark.kaldi_files); VoxarkError if empty, not finite or psi < 0."""
        fields = [np.asarray(field, np.float64) for field in params]
        if not fields[2].size:
            raise VoxarkError("the PLDA model has dimension 0")
        if not all(np.isfinite(field).all() for field in fields):
            raise VoxarkError("the PLDA model holds values that are not finite")
        if (fields[2] < 0).any():
            raise VoxarkError(f"the PLDA model has a negative between-speaker variance ({fields[2].min():g})")
        return cls(*fields)

    def to_params(self):
        """Return voxark.kaldi_files.PldaParams for writing."""
        return PldaParams(self.mean, self.transform, self.psi)

    @classmethod
    def from_covariances(cls, mean, within, between):
        """Diagonalise: within = LL' (D,D), eig of L^-1 between L^-T = U psi U' (falling), V = U'L^-1."""
        psi, transform = diagonalise(within, between)
        return cls(np.asarray(mean, np.float64), transform, psi)

    @property
    def dim(self):
        """D, the dimension."""
        return len(self.mean)

    def covariances(self):
        """Return (within, between), both (D,D): V^-1 V^-T and V^-1 diag(psi) V^-T.

        VoxarkError if V has no inverse.
        """
        if _is_singular(self.transform):
            raise VoxarkError("the PLDA model's transform is singular, so that it has no covariances")
        inverse = np.linalg.inv(self.transform)
        return symmetric(inverse @ inverse.T), symmetric((inverse * self.psi) @ inverse.T)

    def smoothed(self, factor):
        """Return the model with within + factor * between as its within covariance [K]; 0 <= factor <= 1."""
        if not 0.0 <= factor <= 1.0:
            raise VoxarkError(f"--smoothing={factor:g}: a number from 0 to 1 is expected")
        scale = 1.0 + factor * self.psi
        return Plda(self.mean, self.transform / np.sqrt(scale)[:, None], self.psi / scale)

    def mapped(self, matrix):
        """The model of vectors A x, or A x + b, for ``matrix`` A (d,D) or [A b] (d,D+1) [K: ApplyTransform].

        A must be finite and have full row rank, d <= D; VoxarkError otherwise.
        """
        rows, columns = matrix.shape
        if columns not in (self.dim, self.dim + 1) or not rows:
            raise VoxarkError(
                f"the transform is {rows} x {columns}, the PLDA model has dimension {self.dim}: "
                f"{self.dim} columns are expected, or {self.dim + 1} with an offset"
            )
        if not np.isfinite(matrix).all():
            raise VoxarkError("the transform holds values that are not finite")
        mean = transform(self.mean, matrix)
        linear = np.asarray(matrix, np.float64)[:, : self.dim]
        rank = np.linalg.matrix_rank(linear)
        if rank < len(linear):
            raise VoxarkError(
                f"the transform of {len(linear)} rows has rank {rank}: its rows depend on each other, so "
                "there is no model of the transformed vectors"
            )
        within, between = (symmetric(linear @ covariance @ linear.T) for covariance in self.covariances())
        return Plda.from_covariances(mean, within, between)

    def leading(self, dim):
        """(model of A x, A): A (dim,D) has the rows of V with the largest psi, which tell speakers apart."""
        if not 1 <= dim <= self.dim:
            raise VoxarkError(
                f"--dim={dim}: the PLDA model has dimension {self.dim}, so 1 to {self.dim} can be kept"
            )
        order = np.sort(np.argsort(-self.psi, kind="stable")[:dim])
        matrix = self.transform[order]
        return Plda(matrix @ self.mean, np.eye(dim), self.psi[order]), matrix

    # ----------------------------------------------------------------------------------------- into its space

    def project(self, x):
        """Return u = V (x - mean) (N,D) float64 for vectors x (N,D)."""
        if x.shape[1] != self.dim:
            raise VoxarkError(f"the vectors have dimension {x.shape[1]}, the PLDA model {self.dim}")
        return (np.asarray(x, np.float64) - self.mean) @ self.transform.T

    def length_factors(self, u, num_sessions=1, simple=False):
        """Factors (N,) that normalise the length of u (N,D), means of ``num_sessions`` (or (N,)) vectors.

        [K]: sqrt(D / sum_d u^2/(psi + 1/n)), what the model expects of such a mean; simple: sqrt(D)/|u|.
        A zero vector keeps its length.
        """
        if simple:
            ratio = length_ratio(u)
        else:
            expected = self.psi + 1.0 / np.atleast_1d(num_sessions)[:, None]
            ratio = length_ratio(u / np.sqrt(expected))
        return 1.0 / np.where(ratio == 0, 1.0, ratio)

    def transform_vectors(self, x, num_sessions=1, options=None):
        """Project x (N,D), means of ``num_sessions`` (or (N,)) vectors, and normalise as the options say."""
        options = options or PldaScoringOptions()
        u = self.project(x)
        if options.normalize_length:
            u *= self.length_factors(u, num_sessions, options.simple_length_normalization)[:, None]
        return u

    # ------------------------------------------------------------------------------------------ scores

    def llr_terms(self, n, m=1):
        """Coefficients (a, r, c, k) of the LLR of a model of n sessions against a test of m sessions.

        For means e, t (D,) in PLDA's space, LLR = sum_d (a e t + r e^2 + c t^2) + k, which is by the book
        sum_d l(n+m, ne+mt) - l(n, ne) - l(m, mt) with l(n, s) = -ln(1+n psi)/2 + psi s^2/(1+n psi)/2.
        """
        psi = self.psi
        joint, of_n, of_m = 1.0 + (n + m) * psi, 1.0 + n * psi, 1.0 + m * psi
        cross = n * m * psi / joint
        row = 0.5 * n * n * psi * (1.0 / joint - 1.0 / of_n)
        column = 0.5 * m * m * psi * (1.0 / joint - 1.0 / of_m)
        return cross, row, column, 0.5 * np.sum(np.log(of_n * of_m / joint))

    def pair_terms(self, enroll, n, test):
        """Prepare scores of models enroll (M,D) of n (M,) sessions against test (T,D), all in PLDA's space.

        Returns PairTerms; models are grouped by their number of sessions.
        """
        counts, group = np.unique(np.broadcast_to(n, len(enroll)), return_inverse=True)
        left, row = np.empty_like(enroll), np.empty(len(enroll))
        column = np.empty((len(counts), len(test)))
        squares = np.square(test)
        for g, count in enumerate(counts.tolist()):
            cross, r, c, k = self.llr_terms(count)
            mine = group == g
            left[mine] = enroll[mine] * cross
            row[mine] = np.square(enroll[mine]) @ r + k
            column[g] = squares @ c
        return PairTerms(left, test, row, column, group)

    def llr(self, enroll, test, n=1):
        """Log-likelihood ratios (M,T) of models enroll (M,D) of n (or (M,)) sessions against test (T,D)."""
        return self.pair_terms(enroll, n, test).dense()


def _is_singular(matrix):
    """Whether the rank of a square matrix is not full, whatever the units of its columns and rows are."""
    for axis in (0, 1):
        largest = np.abs(matrix).max(axis=axis, keepdims=True)
        if not largest.all():
            return True
        matrix = matrix / largest
    return np.linalg.matrix_rank(matrix) < len(matrix)


def diagonalise(within, between):
    """Return psi (D,) falling and V (D,D) with V within V' = I, V between V' = diag(psi); signs are fixed.

    Raises VoxarkError, naming the smallest eigenvalue, if ``within`` is not positive definite.
    """
    return diagonal_form(within, between)[:2]


def diagonal_form(within, between):
    """Return psi (D,), V (D,D) and V^-1 (D,D): what diagonalise gives, and the inverse, cheap here."""
    try:
        cholesky = np.linalg.cholesky(within)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(within)[0]
        raise VoxarkError(
            f"the within-speaker covariance is not positive definite (smallest eigenvalue {smallest:.3g}): "
            "use --shrinkage or vectors of lower dimension"
        ) from None
    whiten = np.linalg.inv(cholesky)
    psi, rotation = np.linalg.eigh(symmetric(whiten @ between @ whiten.T))
    rotation = rotation[:, ::-1]
    rows = rotation.T @ whiten
    fixed = fix_signs(rows)
    signs = np.where(np.einsum("ij,ij->i", rows, fixed) < 0, -1.0, 1.0)
    return np.maximum(psi[::-1], 0.0), fixed, cholesky @ (rotation * signs)
