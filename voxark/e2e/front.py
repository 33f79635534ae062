"""The front of a scorer: centring and LDA as one affine map, then the length of the vectors made equal."""

import math

import numpy as np
import torch
from torch import nn

from voxark.backend.vectors import transform
from voxark.errors import VoxarkError


class Front(nn.Module):
    """W x + b of embeddings x (N,D), then scaled to length sqrt(d): what recipes do before PLDA.

    Without ``out_dim`` there is no W, only the offset (D,): centring. A zero vector stays zero. VoxarkError
    for an ``out_dim`` above ``dim``.
    """

    def __init__(self, dim, out_dim=0, length_norm=True):
        super().__init__()
        if out_dim > dim:
            raise VoxarkError(f"--front-dim={out_dim}: the embeddings have only {dim} dimensions")
        self.in_dim, self.out_dim, self.length_norm = dim, out_dim or dim, length_norm
        self.weight = nn.Parameter(torch.eye(out_dim, dim)) if out_dim else None
        self.bias = nn.Parameter(torch.zeros(self.out_dim))

    @torch.no_grad()
    def init_(self, mean=None, lda=None):
        """Set the map from files of recipes: subtract ``mean`` (D,), apply ``lda`` (d,D) or (d,D+1).

        VoxarkError where dimensions differ, and for an ``lda`` if this front has no matrix.
        """
        mean = np.zeros(self.in_dim) if mean is None else np.asarray(mean, np.float64)
        if len(mean) != self.in_dim:
            raise VoxarkError(f"the mean has dimension {len(mean)}, the embeddings {self.in_dim}")
        if lda is None and self.weight is None:
            self.bias.copy_(torch.from_numpy(-mean))
            return self
        lda = np.eye(self.out_dim, self.in_dim) if lda is None else np.asarray(lda, np.float64)
        rows, columns = lda.shape
        if self.weight is None or rows != self.out_dim or columns not in (self.in_dim, self.in_dim + 1):
            raise VoxarkError(
                f"the LDA matrix is {rows} x {columns}, the front of the scorer takes "
                f"{self.in_dim} to {self.out_dim if self.weight is not None else 'no matrix'}"
            )
        self.weight.copy_(torch.from_numpy(lda[:, : self.in_dim]))
        self.bias.copy_(torch.from_numpy(transform(-mean, lda)))
        return self

    def forward(self, x):
        """Embeddings (N,D) to vectors (N,d), in the precision of x."""
        if x.shape[-1] != self.in_dim:
            raise VoxarkError(f"embeddings have dimension {x.shape[-1]}, the scorer takes {self.in_dim}")
        bias = self.bias.to(x.dtype)
        x = x + bias if self.weight is None else torch.addmm(bias, x, self.weight.to(x.dtype).T)
        return scaled_to_length(x, math.sqrt(self.out_dim)) if self.length_norm else x

    def matrix(self):
        """The map (d,D+1) float64 with its offset in the last column, or None if it changes nothing."""
        bias = as_numpy(self.bias)
        if self.weight is None:
            return np.column_stack((np.eye(self.in_dim), bias)) if bias.any() else None
        return np.column_stack((as_numpy(self.weight), bias))


def scaled_to_length(x, length=1.0):
    """Rows of x (N,d) scaled to a length; a zero row stays zero, and its gradient is finite."""
    square = x.square().sum(dim=-1, keepdim=True)
    return x * (length * torch.where(square == 0, torch.ones_like(square), square).rsqrt())


def as_numpy(tensor):
    """A tensor as a numpy array of float64."""
    return tensor.detach().cpu().numpy().astype(np.float64)
