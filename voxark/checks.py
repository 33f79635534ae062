"""Checks of input arrays that several programs share: finite values, one dimension throughout a table."""

import numpy as np

from voxark.errors import VoxarkError


def check_finite(x, what="value"):
    """Raise VoxarkError naming the first NaN or infinity of x: (T,D) by frame and column, (D,) by element.

    ``what`` names the values in the message. The sum decides in the usual case: summing float32 numbers in
    float64 cannot overflow, so the slower search runs only where there is something to find.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(x.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(x))
    if len(bad) == 0:
        return
    place = bad[0].tolist()
    where = f"frame {place[0]}, column {place[1]}" if x.ndim == 2 else f"element {place[0]}"
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise VoxarkError(f"{what} at {where} is {x[tuple(place)]}{more}: not a finite number")


class SameDimension:
    """Remembers the dimension of the first array of a table and refuses an array that has another.

    Rows that are to be pooled, averaged or stacked must agree; a table whose dimension changes halfway was
    made from two kinds of features.
    """

    def __init__(self):
        self.first_key = None
        self.dim = None

    def check(self, key, dim):
        """Accept ``dim`` of ``key``, or raise VoxarkError naming both dimensions and the first key.

        The message leaves ``key`` to the caller, which counts that key as failed.
        """
        if dim == 0:
            raise VoxarkError("dimension 0: there are no values")
        if self.dim is None:
            self.first_key, self.dim = key, dim
        elif dim != self.dim:
            raise VoxarkError(f"dimension {dim}, but {self.first_key} has {self.dim}: mixed kinds of input")

    def require(self, key, dim):
        """Like check, with ``key`` in the message: for programs that add up all keys and so must give up."""
        try:
            self.check(key, dim)
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None
