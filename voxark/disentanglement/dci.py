"""Disentanglement, completeness and informativeness of a code (Eastwood and Williams, ICLR 2018)."""

from typing import NamedTuple

import numpy as np


class Dci(NamedTuple):
    """Of a code of D dimensions and K factors.

    ``disentanglement``: mean over the dimensions, weighted by their importance, of how much each belongs to a
    single factor (NaN for K = 1); ``completeness`` (K,): how much each factor is in a single dimension (NaN
    for D = 1); ``share`` (D,K): the importances, of sum 1 for each factor.
    """

    disentanglement: float
    completeness: np.ndarray
    share: np.ndarray


def importances(weights):
    """Importances (D,) of the inputs of a probe with weights (K,D): mean |weight| over its classes."""
    return np.abs(np.asarray(weights, np.float64)).mean(axis=0)


def dci(table):
    """The Dci of importances (D,K), not negative: one column a factor.

    Columns are scaled to sum 1, so that every factor counts alike; a column of zeros counts for nothing.
    """
    table = np.asarray(table, np.float64)
    num_codes, num_factors = table.shape
    share = _normalised(table, axis=0)
    of_code = share.sum(axis=1)
    weight = of_code / of_code.sum() if of_code.sum() > 0 else of_code
    per_code = 1.0 - _entropy(_normalised(share, axis=1), axis=1, base=num_factors)
    completeness = 1.0 - _entropy(share, axis=0, base=num_codes)
    return Dci(float(weight @ per_code), completeness, share)


def _normalised(table, axis):
    total = table.sum(axis=axis, keepdims=True)
    return np.divide(table, total, out=np.zeros_like(table), where=total > 0)


def _entropy(p, axis, base):
    """Entropy with logarithms to a base, along an axis; NaN for base 1."""
    if base < 2:
        return np.full(p.shape[1 - axis], np.nan)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=axis) / np.log(base)
