"""Statistics of labelled vectors that LDA and PLDA are trained from, and the checks both share.

Only the number of vectors of each speaker, the speakers' means and the pooled within-speaker scatter are
needed, however many vectors there are.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

_BLOCK_ROWS = 4096
# The within-speaker correlation matrix of data with no redundant direction is far from this; a direction that
# is a sum of others leaves the rounding noise of float32 vectors, far below it.
RANK_TOLERANCE = 1e-10


class ClassStats(NamedTuple):
    """counts (S,) int64; means (S,D) float64; scatter (D,D) float64: sum over speakers of (x-mean)(x-mean)'.
    """

    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray

    @property
    def num_vectors(self):
        """N, the number of vectors."""
        return int(self.counts.sum())

    @property
    def num_classes(self):
        """S, the number of speakers."""
        return len(self.counts)

    @property
    def dim(self):
        """D, the dimension of the vectors."""
        return self.means.shape[1]


def accumulate(x, labels):
    """Return the ClassStats of vectors x (N,D) with speaker indices labels (N,) from 0 to S-1, each in use.

    Sums are float64 and taken about the speakers' own means, so that a large mean costs no digits.
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    x = x if np.array_equal(order, np.arange(len(labels))) else x[order]
    means = np.add.reduceat(x, starts, axis=0, dtype=np.float64) / counts[:, None]
    scatter = np.zeros((x.shape[1], x.shape[1]))
    rows = np.repeat(np.arange(len(counts)), counts)
    for begin in range(0, len(x), _BLOCK_ROWS):
        block = slice(begin, begin + _BLOCK_ROWS)
        centred = x[block] - means[rows[block]]
        scatter += centred.T @ centred
    return ClassStats(counts, means, scatter)


def check_stats(stats, shrinkage=0.0):
    """Raise VoxarkError if no within-speaker covariance of full rank can be estimated from ``stats``.

    Names the check that failed and the ways out. With ``shrinkage`` > 0 the rank is not asked for.
    """
    num_vectors, num_classes, dim = stats.num_vectors, stats.num_classes, stats.dim
    if num_classes < 2:
        raise VoxarkError("the vectors are of one speaker only: at least two are needed")
    if num_vectors <= num_classes:
        raise VoxarkError(
            f"no speaker has two vectors ({num_classes} speakers): within-speaker variability is unknown"
        )
    if not np.any(stats.scatter.diagonal() > 0):
        raise VoxarkError("all vectors of each speaker are identical: within-speaker variability is zero")
    if shrinkage > 0:
        return
    ways_out = "give more vectors, reduce their dimension (train-lda --dim), or use --shrinkage (0.1, say)"
    if num_vectors < dim:
        raise VoxarkError(f"fewer vectors ({num_vectors}) than dimensions ({dim}): {ways_out}")
    if num_vectors - num_classes < dim:
        raise VoxarkError(
            f"rank-deficient: {num_vectors} vectors of {num_classes} speakers leave "
            f"{num_vectors - num_classes} degrees of freedom within speakers, fewer than dimensions ({dim}): "
            f"{ways_out}"
        )


def check_rank(stats):
    """Raise VoxarkError if the within-speaker scatter is singular, naming dimensions that are constant.

    The correlation matrix is examined, so the answer does not depend on the scale of single dimensions.
    """
    variances = stats.scatter.diagonal()
    constant = np.flatnonzero(variances <= 0)
    way_out = "drop such directions (train-lda --dim) or use --shrinkage (0.1, say)"
    if len(constant):
        raise VoxarkError(
            f"rank-deficient: {len(constant)} of {stats.dim} dimensions do not vary within speakers "
            f"(the first is dimension {constant[0]}): {way_out}"
        )
    scale = 1.0 / np.sqrt(variances)
    eigenvalues = np.linalg.eigvalsh(scale[:, None] * stats.scatter * scale)
    rank = int(np.sum(eigenvalues > RANK_TOLERANCE * eigenvalues[-1]))
    if rank < stats.dim:
        raise VoxarkError(
            f"rank-deficient: within-speaker variability has rank {rank} of {stats.dim} "
            f"(smallest eigenvalue of its correlation matrix {eigenvalues[0]:.3g}): {way_out}"
        )


def check_shrinkage(shrinkage):
    """Raise VoxarkError unless 0 <= shrinkage <= 1."""
    if not 0.0 <= shrinkage <= 1.0:
        raise VoxarkError(f"--shrinkage={shrinkage:g}: a number from 0 to 1 is expected")


def shrink(covariance, shrinkage):
    """Return (1-a) C + a tr(C)/D I for a covariance or scatter C (D,D) and a = ``shrinkage``."""
    target = np.trace(covariance) / len(covariance)
    return (1.0 - shrinkage) * covariance + shrinkage * target * np.eye(len(covariance))


def symmetric(matrix):
    """Return (A+A')/2."""
    return 0.5 * (matrix + matrix.T)


def fix_signs(rows):
    """Flip rows of a (d,D) transform, whose signs are arbitrary: the entry of largest size is positive."""
    largest = np.take_along_axis(rows, np.argmax(np.abs(rows), axis=1)[:, None], axis=1)
    return np.where(largest < 0, -rows, rows)
