"""Linear discriminant analysis as Kaldi's ivector-compute-lda defines it, with checks and shrinkage."""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.backend.class_stats import (
    accumulate,
    check_shrinkage,
    check_stats,
    fix_signs,
    principal_directions,
    shrink,
    symmetric,
)
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class LdaOptions:
    """Options of LDA training, named as Kaldi names them; shrinkage is ours."""

    dim: int = option(100, "Dimension that the transform keeps")
    pca_dim: int = option(
        0, "Take the leading principal directions of the vectors first, so many (0: all); for few vectors"
    )
    total_covariance_factor: float = option(
        0.0,
        "0: make the within-speaker covariance unit; 1: the total covariance; between: their interpolation",
    )
    covariance_floor: float = option(
        1e-6, "Floor of the eigenvalues of that covariance, relative to the largest of them"
    )
    shrinkage: float = option(
        0.0, "Shrink that covariance towards a multiple of the identity, 0 (not at all) to 1 (entirely)"
    )


def train_lda(x, labels, options=None):
    """Return the LDA transform (dim, D+1) float32 of vectors x (N,D) with labels (N,), speakers 0 to S-1.

    The last column is the offset that moves the global mean to zero. [K]: total covariance St about the
    global mean, within covariance Sw = (St - Sb) divided by N (not N-S), T normalises M = f St + (1-f) Sw
    with the eigenvalues floored, then the top eigenvectors of T Sb T'. Rows come out in the order of falling
    between-speaker variance; their signs, which are arbitrary, are fixed so that runs agree. With ``pca_dim``
    the leading principal directions are taken first, in the same matrix. Raises VoxarkError when N <= S,
    N < D or the rank cannot suffice, unless ``pca_dim`` or shrinkage mends it.
    """
    options = options or LdaOptions()
    _check_options(options, x.shape[1])
    stats = accumulate(x, labels)
    mean = stats.mean
    principal = principal_directions(stats, options.pca_dim) if options.pca_dim else None
    if principal is not None:
        stats = stats.projected(principal)
    rows = _train(stats, options)
    linear = (rows if principal is None else fix_signs(rows @ principal)).astype(np.float32)
    offset = -(linear.astype(np.float64) @ mean)
    return np.column_stack((linear, offset.astype(np.float32)))


def _train(stats, options):
    """Rows of the transform (dim,D), float64, from ClassStats; the mathematics of train_lda."""
    # f > 0 brings the between-speaker covariance in: N >= D then suffices for full rank
    interpolated = options.total_covariance_factor > 0 and stats.num_vectors >= stats.dim
    check_stats(stats, 1.0 if interpolated else options.shrinkage, "--pca-dim")
    if options.dim > stats.num_classes - 1:
        logger.warning(
            "--dim=%d, but %d speakers span %d directions only: the others carry no speaker information",
            options.dim,
            stats.num_classes,
            stats.num_classes - 1,
        )
    between = stats.between_scatter() / stats.num_vectors
    within = stats.scatter / stats.num_vectors
    matrix = options.total_covariance_factor * between + within  # f St + (1-f) Sw with St = Sw + Sb
    if options.shrinkage > 0:
        matrix = shrink(matrix, options.shrinkage)
    return _lda_rows(symmetric(matrix), symmetric(between), options)


def _check_options(options, dim):
    check_shrinkage(options.shrinkage)
    if not 0 <= options.pca_dim <= dim:
        raise VoxarkError(
            f"--pca-dim={options.pca_dim}: the vectors have dimension {dim}, so 1 to {dim} is possible"
        )
    most, whose = (options.pca_dim, "--pca-dim gives") if options.pca_dim else (dim, "the vectors have")
    if not 0 < options.dim <= most:
        raise VoxarkError(f"--dim={options.dim}: {whose} dimension {most}, so 1 to {most} can be kept")
    if not 0.0 <= options.total_covariance_factor <= 1.0:
        raise VoxarkError(
            f"--total-covariance-factor={options.total_covariance_factor:g}: 0 to 1 is expected"
        )
    if not 0.0 <= options.covariance_floor < 1.0:
        raise VoxarkError(
            f"--covariance-floor={options.covariance_floor:g}: a number from 0 to below 1 is expected"
        )


def _lda_rows(matrix, between, options):
    """Rows of the transform (dim,D): normalise ``matrix``, then diagonalise ``between`` in that space."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    floor = options.covariance_floor * eigenvalues[-1]
    num_floored = int(np.sum(eigenvalues < floor))
    if num_floored:
        logger.warning(
            "floored %d of %d eigenvalues of the covariance to %g (smallest %g): directions in which the "
            "vectors hardly vary",
            num_floored,
            len(eigenvalues),
            floor,
            eigenvalues[0],
        )
    eigenvalues = np.maximum(eigenvalues, floor)
    if eigenvalues[0] <= 0:
        raise VoxarkError(
            f"the covariance is singular (smallest eigenvalue {eigenvalues[0]:.3g}): "
            "use --covariance-floor or --shrinkage above 0"
        )
    normalise = vectors.T / np.sqrt(eigenvalues)[:, None]
    spread, rotation = np.linalg.eigh(symmetric(normalise @ between @ normalise.T))
    spread = np.maximum(spread[::-1], 0.0)
    logger.info(
        "%d directions kept, ratio of between- to within-speaker variance from %.4g to %.4g; they hold "
        "%.1f %% of its sum",
        options.dim,
        spread[0],
        spread[options.dim - 1],
        100 * spread[: options.dim].sum() / max(spread.sum(), np.finfo(float).tiny),
    )
    return fix_signs(rotation[:, ::-1][:, : options.dim].T @ normalise)
