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


def collect_vectors(entries, wanted=None, leave_out=None):
    """Collect a reader of vectors (voxark.tables), or (key, vector) pairs, into a VectorTable.

    Only the keys ``wanted`` (anything with ``in``) are kept, if given; ``leave_out(key)`` is told the others.
    Raises VoxarkError naming the key for a vector of another dimension than the first, or with a NaN or an
    infinity in it.
    """
    runs = entries.runs() if hasattr(entries, "runs") else (([key], vector[None]) for key, vector in entries)
    all_keys, parts, same = [], [], SameDimension()
    for keys, x in runs:
        if wanted is not None:
            kept = [key in wanted for key in keys]
            if not all(kept):
                if leave_out is not None:
                    for key, keep in zip(keys, kept):
                        if not keep:
                            leave_out(key)
                keys, x = [key for key, keep in zip(keys, kept) if keep], x[kept]
                if not keys:
                    continue
        same.require(keys[0], x.shape[1])
        all_keys += keys
        parts.append(x)
    if not all_keys:
        return VectorTable([], np.zeros((0, 0), np.float32))
    x = np.concatenate(parts)
    _check_finite(all_keys, x)
    return VectorTable(all_keys, x)


def _check_finite(keys, x):
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(x.sum(dtype=np.float64)):  # one pass; where it fails, the rows that are bad are found
            return
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise VoxarkError(
            f"{keys[bad[0]]}: the vector holds NaN or infinite values ({len(bad)} of {len(keys)} vectors do)"
        )


def number_labels(labels):
    """Number labels as they first appear: (indices (N,) int64, list of the distinct labels)."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.fromiter(map(numbers.__getitem__, labels), np.int64, len(labels)), list(numbers)
