"""A Gaussian mixture model in figures, and its conversion to the other kind of covariances."""

import numpy as np

from voxark.gmm.model import gmm_from_params
from voxark.kaldi_files import FullGmmParams


def converted(params, kind):
    """Return DiagGmmParams or FullGmmParams as the ``kind`` "diag" or "full", in the precision of ``params``.

    Parameters that are of that kind already (or "same") come back untouched, their constants included. Raises
    VoxarkError for a model with impossible values.
    """
    is_full = isinstance(params, FullGmmParams)
    if kind == "same" or is_full == (kind == "full"):
        return params
    gmm = gmm_from_params(params)
    return (gmm.to_diag() if is_full else gmm.to_full()).to_params(params.weights.dtype)


def gmm_summary(params):
    """Return the figures that describe a model (DiagGmmParams or FullGmmParams): name -> text, int or float.

    Variances are the diagonal model's, or the eigenvalues of the full model's covariances; the condition
    number is the largest ratio of two of them within a component. Entropy is in nats, its exponential the
    effective number of components. Raises VoxarkError for a model with impossible values.
    """
    is_full = isinstance(params, FullGmmParams)
    gmm = gmm_from_params(params)
    variances = np.linalg.eigvalsh(gmm.covars) if is_full else gmm.variances
    conditions = variances.max(axis=1) / variances.min(axis=1)
    shares = gmm.weights[gmm.weights > 0] / gmm.weights.sum()
    entropy = abs(float((shares * np.log(shares)).sum()))
    number, dim = gmm.num_gauss, gmm.dim
    return {
        "covariance": "full" if is_full else "diag",
        "precision": str(params.weights.dtype),
        "num_gauss": number,
        "dim": dim,
        "num_parameters": number - 1 + number * (dim + (dim * (dim + 1) // 2 if is_full else dim)),
        "weight_sum": float(gmm.weights.sum()),
        "weight_smallest": float(gmm.weights.min()),
        "weight_largest": float(gmm.weights.max()),
        "weight_entropy": entropy,
        "effective_num_gauss": float(np.exp(entropy)),
        "variance_smallest": float(variances.min()),
        "variance_largest": float(variances.max()),
        "condition_largest": float(conditions.max()),
        "condition_worst_gauss": int(conditions.argmax()),
    }
