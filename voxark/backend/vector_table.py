"""A table of vectors as one matrix, for training and scoring, which need all of them at once."""

from typing import NamedTuple

import numpy as np

from voxark.checks import SameDimension
from voxark.errors import VoxarkError


class VectorTable(NamedTuple):
    """keys: list of N; x (N,D), float32 unless a vector was read in double precision."""

    keys: list
    x: np.ndarray

    def rows_of(self, keys):
        """Row numbers (len(keys),) int64 of the keys, -1 where there is none."""
        rows = {key: row for row, key in enumerate(self.keys)}
        return np.fromiter((rows.get(key, -1) for key in keys), np.int64, len(keys))


def collect_vectors(entries, wanted=None):
    """Collect (key, vector) entries into a VectorTable.

    Only the keys ``wanted`` (anything with ``in``) are kept, if given. Raises VoxarkError naming the key for
    a vector of another dimension than the first, or with a NaN or an infinity in it.
    """
    keys, vectors, same = [], [], SameDimension()
    for key, vector in entries:
        if wanted is not None and key not in wanted:
            continue
        same.require(key, len(vector))
        keys.append(key)
        vectors.append(vector)
    if not keys:
        return VectorTable([], np.zeros((0, 0), np.float32))
    x = np.stack(vectors)
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise VoxarkError(
            f"{keys[bad[0]]}: the vector holds NaN or infinite values ({len(bad)} of {len(keys)} vectors do)"
        )
    return VectorTable(keys, x)


def number_labels(labels):
    """Number labels as they first appear: (indices (N,) int64, list of the distinct labels)."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.fromiter(map(numbers.__getitem__, labels), np.int64, len(labels)), list(numbers)
