"""Choosing frames: the voiced ones, every n-th one."""

import numpy as np

from voxark.errors import VoxarkError


def select_voiced(x, voiced):
    """Return the rows of features x (T,D) whose decision in ``voiced`` (T,) is 1, dtype kept.

    Raises VoxarkError when the lengths differ or a decision is neither 0 nor 1. No voiced frame: no rows.
    """
    voiced = np.asarray(voiced)
    if len(x) != len(voiced):
        raise VoxarkError(f"features have {len(x)} frames, the voice activity decisions {len(voiced)}")
    chosen = voiced == 1
    other = np.flatnonzero(~chosen & (voiced != 0))
    if len(other):
        raise VoxarkError(f"decision of frame {other[0]} is {voiced[other[0]]}: must be 0 or 1")
    return x[chosen]


def check_subsampling(n, offset):
    """Raise VoxarkError for n = 0, a negative offset, and an offset together with repetition."""
    if n == 0:
        raise VoxarkError("--n=0: take every n-th frame with n > 0, or repeat frames with n < 0")
    if offset < 0 or (n < 0 and offset != 0):
        raise VoxarkError(f"--offset={offset}: must not be negative, and must be 0 with negative --n")


def subsample(x, n=1, offset=0):
    """Return the rows offset, offset + n, ... of features x (T,D), or with n < 0 each row -n times [K].

    Fewer than offset + 1 frames give no rows. Raises VoxarkError as check_subsampling.
    """
    check_subsampling(n, offset)
    return x[offset::n] if n > 0 else np.repeat(x, -n, axis=0)
