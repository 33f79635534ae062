"""Statistics of labelled vectors that LDA and PLDA are trained from, and the checks both share.

Only the number of vectors of each speaker, the speakers' means and the pooled within-speaker scatter are
needed, however many vectors there are.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

_BLOCK_ROWS = 1024  # of the scatter: one block in float64 stays in the second-level cache
_SUM_ROWS = 128  # of the sums, which cost a product of this many rows by as many speakers at most
# The within-speaker correlation matrix of data with no redundant direction is far from this; a direction that
# is a sum of others leaves the rounding noise of float32 vectors, far below it.
RANK_TOLERANCE = 1e-10
_LEAST_SHARE = 1e-3  # of within-speaker variance in the total, in a direction that training could use
_MOST_NAMED = 5


class ClassStats(NamedTuple):
    """counts (S,) int64; means (S,D) float64; scatter (D,D) float64: sum of (x-mean_s)(x-mean_s)'."""

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

    @property
    def mean(self):
        """The mean (D,) of all vectors."""
        return self.counts @ self.means / self.num_vectors

    def between_scatter(self):
        """Sum over speakers of n (mean_s - mean)(mean_s - mean)', (D,D): total scatter less scatter."""
        centred = (self.means - self.mean) * np.sqrt(self.counts)[:, None]
        return centred.T @ centred

    def projected(self, matrix):
        """The statistics of the vectors A x, for A = ``matrix`` (d,D)."""
        return ClassStats(self.counts, self.means @ matrix.T, symmetric(matrix @ self.scatter @ matrix.T))


@np.errstate(over="ignore", invalid="ignore")  # check_stats says it in words
def accumulate(x, labels):
    """Return the ClassStats of vectors x (N,D) with speaker indices labels (N,) from 0 to S-1, each in use.

    Sums are float64 and taken about the speakers' own means, so that a large mean costs no digits.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    if (np.diff(labels) < 0).any():
        x = x[np.argsort(labels, kind="stable")]
    rows = np.repeat(np.arange(len(counts)), counts)
    means = _sums(x, rows, len(counts)) / counts[:, None]
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for begin in range(0, len(x), _BLOCK_ROWS):
        block = slice(begin, begin + _BLOCK_ROWS)
        centred = means[rows[block]]
        np.subtract(x[block], centred, out=centred)
        scatter += centred.T @ centred
    return ClassStats(counts, means, scatter)


def _sums(x, rows, number):
    """Sums (number,D) float64 of the rows of x (N,D) whose index in ``rows`` (N,), ascending, is the same."""
    sums = np.zeros((number, x.shape[1]))
    for begin in range(0, len(x), _SUM_ROWS):
        mine = rows[begin : begin + _SUM_ROWS]
        here = np.arange(mine[0], mine[-1] + 1)
        indicator = (here[:, None] == mine).astype(np.float64)
        sums[mine[0] : mine[-1] + 1] += indicator @ x[begin : begin + _SUM_ROWS].astype(np.float64)
    return sums


def principal_directions(stats, dim):
    """Return A (dim,D), orthonormal rows: the leading principal directions of all vectors, about their mean.

    Raises VoxarkError unless 1 <= dim <= D.
    """
    if not 1 <= dim <= stats.dim:
        raise VoxarkError(
            f"{dim} principal directions: the vectors have dimension {stats.dim}, so 1 to {stats.dim}"
        )
    _, vectors = np.linalg.eigh(stats.scatter + stats.between_scatter())
    return fix_signs(vectors[:, ::-1][:, :dim].T)


# ---------------------------------------------------------------------------------------------- checks


def check_stats(stats, shrinkage=0.0, reduce_option="--dim"):
    """Raise VoxarkError if no within-speaker covariance of full rank can be estimated from ``stats``.

    Names the check that failed and the ways out, of which ``reduce_option`` makes the vectors shorter. With
    ``shrinkage`` > 0 the rank is not asked for.
    """
    num_vectors, num_classes, dim = stats.num_vectors, stats.num_classes, stats.dim
    if num_classes < 2:
        raise VoxarkError("the vectors are of one speaker only: at least two are needed")
    if num_vectors <= num_classes:
        raise VoxarkError(
            f"no speaker has two vectors ({num_classes} speakers): within-speaker variability is unknown; "
            "give more vectors of the same speakers"
        )
    if not np.isfinite(stats.scatter).all():
        raise VoxarkError("the vectors hold values so large that their variances are not finite: scale them")
    if not np.any(stats.scatter.diagonal() > 0):
        raise VoxarkError("all vectors of each speaker are identical: within-speaker variability is zero")
    if shrinkage > 0:
        return
    most = num_vectors - num_classes
    ways_out = f"give more vectors, use {reduce_option}={most} or less, or --shrinkage (0.1, say)"
    if num_vectors < dim:
        raise VoxarkError(f"fewer vectors ({num_vectors}) than dimensions ({dim}): {ways_out}")
    if most < dim:
        raise VoxarkError(
            f"rank-deficient: {num_vectors} vectors of {num_classes} speakers leave "
            f"{most} degrees of freedom within speakers, fewer than dimensions ({dim}): {ways_out}"
        )


def check_rank(stats, dimension="dimension"):
    """Raise VoxarkError if the within-speaker scatter is singular, naming the dimensions that make it so.

    The correlation matrix is examined, so the answer does not depend on the scale of single dimensions. Where
    dimensions depend on each other, those with the largest weight in the directions without variability are
    named; ``dimension`` is what the coordinates are called.
    """
    variances = stats.scatter.diagonal()
    constant = np.flatnonzero(variances <= _rounding(stats))
    if len(constant):
        raise VoxarkError(
            f"rank-deficient: {len(constant)} of {stats.dim} dimensions do not vary within speakers "
            f"({_listed(constant, dimension)}): leave them out, or "
            f"{_ways_out(stats, stats.dim - len(constant))}"
        )
    eigenvalues, vectors = _correlation_spectrum(stats.scatter)
    rank = int(np.sum(eigenvalues > RANK_TOLERANCE * eigenvalues[-1]))
    if rank < stats.dim:
        weights = np.square(vectors[:, : stats.dim - rank]).sum(axis=1)
        order = np.argsort(-weights, kind="stable")
        involved = order[weights[order] > 0.05 * weights.max()]
        raise VoxarkError(
            f"rank-deficient: within-speaker variability has rank {rank} of {stats.dim} "
            f"(smallest eigenvalue of its correlation matrix {eigenvalues[0]:.3g}); dimensions that "
            f"depend on others, most involved first: {_listed(involved, dimension)}: {_ways_out(stats, rank)}"
        )


def _rounding(stats):
    """What rounding alone may leave of the scatter's diagonal (D,) where values do not vary."""
    unit = 16 * np.finfo(np.float64).eps * np.abs(stats.means).max(axis=0)
    return stats.num_vectors * np.square(unit)


def _correlation_spectrum(scatter):
    scale = 1.0 / np.sqrt(scatter.diagonal())
    return np.linalg.eigh(scale[:, None] * scatter * scale)


def _ways_out(stats, rank):
    """Advice that holds: --dim is named only if speakers vary in all of that many principal directions."""
    if rank > 0:
        reduced = stats.projected(principal_directions(stats, rank))
        whiten = np.sqrt((reduced.scatter + reduced.between_scatter()).diagonal())  # uncorrelated: diagonal
        if whiten.min() > 0:
            share = np.linalg.eigvalsh(reduced.scatter / whiten / whiten[:, None])[0]
            if share > _LEAST_SHARE:
                return f"use --dim={rank} or less, or --shrinkage (0.1, say)"
    return "use --shrinkage (0.1, say)"


def _listed(numbers, dimension):
    named = ", ".join(str(number) for number in numbers[:_MOST_NAMED])
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    return f"{dimension} {named}{more}"


def check_shrinkage(shrinkage):
    """Raise VoxarkError unless 0 <= shrinkage <= 1."""
    if not 0.0 <= shrinkage <= 1.0:
        raise VoxarkError(f"--shrinkage={shrinkage:g}: a number from 0 to 1 is expected")


# ---------------------------------------------------------------------------------------------- matrices


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
