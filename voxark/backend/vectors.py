"""Utterance vectors: pooling of frames, means, centring, linear transforms, length normalisation.

The front chain of a back-end is: subtract the mean, transform (LDA), normalise the length to sqrt(D).
"""

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError


def pool_frames(x, pooling="mean-std", variance_floor=1e-10):
    """Pool features x (T,D) into one vector: the mean (D,), or mean and standard deviation (2D,); float32.

    ``pooling`` is "mean" or "mean-std". The variance is that of the frames (divided by T), never below
    ``variance_floor``. Raises VoxarkError for no frames and for a NaN or an infinity.
    """
    if len(x) == 0:
        raise VoxarkError("no frames to pool")
    x = np.asarray(x)
    check_finite(x, "feature")
    mean = x.mean(axis=0, dtype=np.float64)
    if pooling == "mean":
        return mean.astype(np.float32)
    centred = x - mean
    variance = np.einsum("td,td->d", centred, centred) / len(x)
    return np.concatenate((mean, np.sqrt(np.maximum(variance, variance_floor)))).astype(np.float32)


class VectorMean:
    """Mean of vectors that arrive one at a time, accumulated in float64."""

    def __init__(self):
        self.count = 0
        self._sum = 0.0

    def add(self, x):
        """Add vector x (D,); all must have one dimension (the caller's check: it knows the keys)."""
        self._sum = self._sum + np.asarray(x, dtype=np.float64)
        self.count += 1

    @property
    def mean(self):
        """The mean (D,) float64 of the vectors added so far; VoxarkError if there are none."""
        if self.count == 0:
            raise VoxarkError("no vectors to average")
        return self._sum / self.count


def centre(x, mean):
    """Return x - mean in float64, for vectors x (D,) or (N,D); VoxarkError when the dimensions differ."""
    if x.shape[-1] != len(mean):
        raise VoxarkError(f"vector has dimension {x.shape[-1]}, the mean {len(mean)}")
    return np.asarray(x, dtype=np.float64) - mean


def transform(x, matrix):
    """Map x (D,) or (N,D) linearly by (d,D), or affinely by (d,D+1), offset in the last column; float64.

    Which of the two it is follows from the dimension of x, as Kaldi decides it; VoxarkError if neither fits.
    """
    dim, (num_rows, num_columns) = x.shape[-1], matrix.shape
    matrix = np.asarray(matrix, dtype=np.float64)
    if dim == num_columns:
        return x @ matrix.T
    if dim == num_columns - 1:
        return x @ matrix[:, :-1].T + matrix[:, -1]
    raise VoxarkError(
        f"vector has dimension {dim}, the transform is {num_rows} x {num_columns}: "
        f"it takes {num_columns}, or {num_columns - 1} with an offset"
    )


def length_ratio(x, scaleup=True):
    """Return the Euclidean length of x (D,) or of each row of x (N,D), divided by sqrt(D) if ``scaleup``."""
    length = np.sqrt(np.sum(np.square(x, dtype=np.float64), axis=-1))
    return length / np.sqrt(x.shape[-1]) if scaleup else length


def length_normalize(x, scaleup=True):
    """Scale x (D,) or each row of x (N,D) to length sqrt(D), or else to 1; zero stays zero; float64."""
    ratio = np.asarray(length_ratio(x, scaleup))[..., None]
    return np.asarray(x, dtype=np.float64) / np.where(ratio == 0, 1.0, ratio)
