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


def collect_vectors(entries, wanted=None, leave_out=None, unusable=None):
    """Collect a reader of vectors (voxark.tables), or (key, vector) pairs, into a VectorTable.

    Only the keys ``wanted`` (anything with ``in``) are kept, if given; ``leave_out(key)`` is told the others.
    Raises VoxarkError naming the key for a vector of another dimension than the first, or that is empty or
    holds a NaN or an infinity; ``unusable(key, reason)``, where given, is told of the latter, left out then.
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
        if unusable is not None and x.shape[1] == 0:
            for key in keys:
                unusable(key, "is an empty vector")
            continue
        same.require(keys[0], x.shape[1])
        all_keys += keys
        parts.append(x)
    if not all_keys:
        return VectorTable([], np.zeros((0, 0), np.float32))
    x = np.concatenate(parts)
    bad = _not_finite(x)
    if len(bad) == 0:
        return VectorTable(all_keys, x)
    if unusable is None:
        raise VoxarkError(
            f"{all_keys[bad[0]]}: the vector holds NaN or infinite values ({len(bad)} of {len(x)} vectors do)"
        )
    for row in bad.tolist():
        unusable(all_keys[row], "holds NaN or infinite values")
    keep = np.ones(len(x), bool)
    keep[bad] = False
    return VectorTable([key for key, good in zip(all_keys, keep.tolist()) if good], x[keep])


def _not_finite(x):
    """Numbers of the rows of x (N,D) that hold NaN or infinities."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(x.sum(dtype=np.float64)):  # one pass; where it fails, the rows that are bad are found
            return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isfinite(x).all(axis=1))


def number_labels(labels):
    """Number labels as they first appear: (indices (N,) int64, list of the distinct labels)."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.fromiter(map(numbers.__getitem__, labels), np.int64, len(labels)), list(numbers)
