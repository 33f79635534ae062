"""What training moves: a DPLDA as a vector of parameters, in a space where these are of one size.

Vectors are taken to u = W (x - m), where their total covariance is the unit matrix (by the PLDA that training
starts from: W = diag(1+psi)^-1/2 V). There, steps and the distance to the start mean the same in all
directions, and do not depend on the units or the rotation of the vectors. A matrix counts with its Frobenius
norm: its lower triangle is a part of the parameters, numbers off the diagonal times sqrt(2).
"""

from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import symmetric
from voxark.backend.dplda import Dplda
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.packed import pack_lower, unpack_lower

BLOCKS = ("Lambda", "Gamma", "offset", "constant")
_FLOOR = 1e-6  # of variances, relative to the largest, where the vectors alone give the space


def substituted(model, a, b):
    """The Dplda of vectors u (d,) with the scores that ``model`` gives to A u + b, for A (D,d), b (D,)."""
    both = model.lam + model.gamma
    linear = model.c + 2.0 * (both @ b)
    constant = model.k + 2.0 * float(b @ both @ b) + 2.0 * float(model.c @ b)
    return Dplda(symmetric(a.T @ model.lam @ a), symmetric(a.T @ model.gamma @ a), a.T @ linear, constant)


class Space(NamedTuple):
    """u = W (x - mean): ``mean`` (D,), ``matrix`` W (D,D), and ``inverse`` of W."""

    mean: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of_plda(cls, plda):
        """The space of a Plda with unit total covariance; VoxarkError if its transform is singular."""
        plda.covariances()  # refuses a singular transform
        scale = np.sqrt(1.0 + plda.psi)
        return cls(plda.mean, plda.transform / scale[:, None], np.linalg.inv(plda.transform) * scale)

    @classmethod
    def of_vectors(cls, x):
        """The space in which x (N,D) has mean 0 and unit covariance (principal axes)."""
        mean = x.mean(axis=0)
        variances, axes = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        if not variances[-1] > 0:
            raise VoxarkError("all vectors are equal: there is nothing to train on")
        scale = np.sqrt(np.maximum(variances, _FLOOR * variances[-1]))
        return cls(mean, axes.T / scale[:, None], axes * scale)

    def to(self, x):
        """u (N,D) float64 of vectors x (N,D)."""
        return (np.asarray(x, np.float64) - self.mean) @ self.matrix.T

    def model_to(self, model):
        """The Dplda of u for one of x."""
        return substituted(model, self.inverse, self.mean)

    def model_from(self, model):
        """The Dplda of x for one of u."""
        return substituted(model, self.matrix, -self.matrix @ self.mean)


class Form:
    """The parameters theta of a Dplda of dimension ``dim``: full matrices, or diagonal ones (NPLDA)."""

    def __init__(self, dim, diagonal=False):
        self.dim, self.diagonal = dim, diagonal
        size = dim if diagonal else dim * (dim + 1) // 2
        ends = np.cumsum([size, size, dim, 1])
        self.blocks = [slice(end - length, end) for end, length in zip(ends, (size, size, dim, 1))]
        self.size = int(ends[-1])
        self._units = pack_lower(np.full((dim, dim), np.sqrt(2.0)) - (np.sqrt(2.0) - 1.0) * np.eye(dim))

    def vector(self, model):
        """theta (P,) of a Dplda, and the gradient in theta for a gradient in (Lambda, Gamma, c, k)."""
        return np.concatenate([self._part(model.lam), self._part(model.gamma), model.c, [model.k]])

    def model(self, theta):
        """The Dplda of theta (P,)."""
        lam, gamma, c, k = (theta[block] for block in self.blocks)
        return Dplda(self._whole(lam), self._whole(gamma), c, float(k[0]))

    def _part(self, matrix):
        return matrix.diagonal() if self.diagonal else pack_lower(matrix) * self._units

    def _whole(self, part):
        return np.diag(part) if self.diagonal else unpack_lower(part / self._units, self.dim)

    def bounds(self):
        """Smallest values (P,): with diagonal matrices Lambda is not negative, as in NPLDA; else -inf."""
        lowest = np.full(self.size, -np.inf)
        if self.diagonal:
            lowest[self.blocks[0]] = 0.0
        return lowest


def start_from(source, kind, x, diagonal):
    """(Space, Dplda in it) that training of vectors x (N,D) starts from.

    ``source``: a Plda, a Dplda or None; then ``kind`` is "zero" (all scores 0) or "identity" (the dot product
    of the whitened vectors). VoxarkError for another dimension, or a diagonal form without a PLDA.
    """
    if source is not None and source.dim != x.shape[1]:
        raise VoxarkError(
            f"the vectors have dimension {x.shape[1]}, the model to start from {source.dim}: give "
            "the vectors that it was trained on the like of (transform-vec with the same matrix)"
        )
    if isinstance(source, Plda):
        space = Space.of_plda(source)
        return space, space.model_to(Dplda.from_plda(source))
    if diagonal:
        raise VoxarkError("--diagonal needs the space of a PLDA: --init=<plda>, or --start=plda")
    space, dim = Space.of_vectors(x.astype(np.float64)), x.shape[1]
    if source is not None:
        return space, space.model_to(source)
    unit = 0.5 * np.eye(dim) if kind == "identity" else np.zeros((dim, dim))
    return space, Dplda(unit, np.zeros((dim, dim)), np.zeros(dim), 0.0)
