"""Symmetric matrices in Kaldi's packed form: the lower triangle row by row, P = D(D+1)/2 numbers."""

import functools

import numpy as np

from voxark.errors import VoxarkError


@functools.lru_cache(maxsize=16)
def packed_indices(dim):
    """Return (rows (P,), columns (P,)): where the numbers of a packed matrix of ``dim`` rows come from."""
    rows, columns = np.tril_indices(dim)
    rows.setflags(write=False)
    columns.setflags(write=False)
    return rows, columns


def packed_dim(size):
    """Return D of D(D+1)/2 = ``size``; VoxarkError where there is none."""
    dim = int(np.sqrt(2.0 * size))
    if dim * (dim + 1) != 2 * size:
        raise VoxarkError(f"{size} numbers are no triangle of a matrix: expected D(D+1)/2 of them")
    return dim


def pack_lower(a):
    """Return the lower triangles (...,P) of matrices a (...,D,D), row by row."""
    rows, columns = packed_indices(a.shape[-1])
    return np.asarray(a)[..., rows, columns]


def unpack_lower(p, dim=None):
    """Return the symmetric matrices (...,D,D) of packed lower triangles p (...,P).

    Raises VoxarkError when P is not D(D+1)/2 (of ``dim``, where given).
    """
    p = np.asarray(p)
    found = packed_dim(p.shape[-1])
    if dim is not None and found != dim:
        raise VoxarkError(f"a packed matrix of {found} rows was found, {dim} are expected")
    rows, columns = packed_indices(found)
    a = np.empty((*p.shape[:-1], found, found), p.dtype)
    a[..., rows, columns] = p
    a[..., columns, rows] = p
    return a
