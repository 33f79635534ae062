"""Calibration and fusion by logistic regression: scores become log-likelihood ratios, s = w'x + b.

Trained by the prior-weighted cross-entropy at an effective prior P, tau = ln(P/(1-P)):

    P mean_tar softplus(-(s + tau)) + (1 - P) mean_non softplus(s + tau)  (+ ridge/2 |w|^2),

which has one minimum unless the classes can be separated, or the columns of x depend on each other. Columns
are centred and scaled inside, so that the ridge, and where Newton's iteration stops, do not depend on their
units. The result is a log-likelihood ratio for any prior; P only says where it is to be best.
"""

import logging
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

RIDGE = 1e-6  # on the weights of scaled columns, where the data do not determine them
MAX_ITERS = 200
GRADIENT = 1e-12  # of the objective, whose terms have total weight 1, in scaled columns
_COLLINEAR = 1e-10  # eigenvalue of the correlations below which columns depend on each other
_FLAT = 1e-6  # curvature below which the minimum in a direction may be at infinity
_ROUNDING = 2e-16  # of the objective, beside 1e-15 of its value: ln(1 + x) is not exact for small x
_BLOCK = 1 << 14  # trials at a time: all that is made of a block stays in cache


class LogisticFit(NamedTuple):
    """s = x @ weights + offset. ``objective``: its minimum; ``ridge``: what was needed, 0 as a rule.

    weights (D,); constant columns have weight 0 and are marked in ``constant`` (D,) bool.
    """

    weights: np.ndarray
    offset: float
    objective: float
    gradient: float
    num_iters: int
    ridge: float
    separable: bool
    collinear: bool
    constant: np.ndarray


def log_odds(prior):
    """tau = ln(P/(1-P)) of a prior 0 < P < 1."""
    return float(np.log(prior) - np.log1p(-prior))


def trial_weights(target, prior, weights=None):
    """Weight (N,) of each trial in the objective: P over all targets, 1-P over all non-targets.

    ``target`` (N,) bool, ``weights`` (N,) >= 0 relative weights within each class, or None. VoxarkError for a
    class that is empty or has no weight, and for weights that are negative or not finite.
    """
    if weights is None:
        totals = np.count_nonzero(target), np.count_nonzero(~target)
    else:
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise VoxarkError("weights of trials must be finite and not negative")
        totals = weights[target].sum(), weights[~target].sum()
    for total, what in zip(totals, ("target", "nontarget")):
        if not total > 0:
            raise VoxarkError(
                f"no {what} trials{'' if weights is None else ' with a weight'}: both classes are needed"
            )
    shares = np.where(target, prior / totals[0], (1.0 - prior) / totals[1])
    return shares if weights is None else shares * weights


def prior_weighted_loss(llrs, target, prior=0.5, weights=None):
    """The prior-weighted cross-entropy of LLRs over the entropy of the prior: 1 for LLRs that are all 0.

    llrs (N,), infinities allowed; target (N,) bool. At prior 0.5 this is Cllr.
    """
    shares = trial_weights(target, prior, weights)
    signed = np.where(target, llrs + log_odds(prior), -llrs - log_odds(prior))
    cost = shares @ np.logaddexp(0.0, -signed)
    return float(cost / -(prior * np.log(prior) + (1.0 - prior) * np.log1p(-prior)))


class Objective:
    """The objective over columns x (N,D), each read as (x - mean) / scale: value, gradient, curvature.

    ``shares`` (N,) are trial_weights. The parameters are (D+1,): weights of the scaled columns, the offset.
    """

    def __init__(self, x, target, shares, tau, mean, scale, ridge=0.0):
        self.x, self.target, self.shares, self.tau = x, target, shares, tau
        self.mean, self.scale, self.ridge = mean, scale, ridge

    def blocks(self):
        """Yield (scaled columns (D,n), sign of the class (n,), share (n,))."""
        mean, scale = self.mean[:, None], self.scale[:, None]
        for begin in range(0, len(self.x), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            columns = np.empty((len(mean), len(self.shares[rows])))  # a column in one piece: twice as fast
            np.subtract(self.x[rows].T, mean, out=columns)
            columns /= scale
            yield columns, 2.0 * self.target[rows] - 1.0, self.shares[rows]

    def __call__(self, parameters):
        """(value, gradient (D+1,), Hessian (D+1,D+1)), in one pass."""
        w, b = parameters[:-1], parameters[-1] + self.tau
        dim = len(w)
        value, gradient, hessian = 0.0, np.zeros(dim + 1), np.zeros((dim + 1, dim + 1))
        for x, sign, share in self.blocks():
            margin = w @ x
            margin += b
            margin *= sign
            small = np.exp(-np.abs(margin))  # softplus and sigmoid without overflow
            larger = 1.0 + small
            value += share @ np.log(larger) - share @ np.minimum(margin, 0.0)
            wrong = share / larger
            curvature = wrong * small / larger
            residual = -sign * wrong * np.where(margin >= 0, small, 1.0)
            gradient[:dim] += x @ residual
            gradient[dim] += residual.sum()
            weighted = x * curvature
            hessian[:dim, :dim] += weighted @ x.T
            hessian[dim, :dim] += weighted.sum(axis=1)
            hessian[dim, dim] += curvature.sum()
        hessian[:dim, dim] = hessian[dim, :dim]
        value += 0.5 * self.ridge * (w @ w)
        gradient[:dim] += self.ridge * w
        hessian[np.arange(dim), np.arange(dim)] += self.ridge
        return value, gradient, hessian

    def gram(self):
        """Weighted second moments of the scaled columns (D,D): their correlations."""
        return sum((share * x) @ x.T for x, _, share in self.blocks())

    def separates(self, direction):
        """Whether w'x + b puts no trial on the wrong side, and some on the right one; up to rounding."""
        lowest, highest = np.inf, 0.0
        for x, sign, _ in self.blocks():
            margin = sign * (direction[:-1] @ x + direction[-1])
            lowest, highest = min(lowest, margin.min()), max(highest, np.abs(margin).max())
        return highest > 0.0 and lowest >= -1e-8 * highest


def _newton(objective, dim):
    """Minimise, halving steps until they help: (parameters, value, largest gradient, Hessian, iterations)."""
    parameters = np.zeros(dim + 1)
    value, gradient, hessian = objective(parameters)
    for iteration in range(MAX_ITERS):
        if np.abs(gradient).max() < GRADIENT:
            return parameters, value, np.abs(gradient).max(), hessian, iteration
        step = -_solve(hessian, gradient)
        length, slope = 1.0, gradient @ step
        while length > 1e-12:
            found = objective(parameters + length * step)
            if found[0] <= value + 1e-4 * length * slope + 1e-15 * abs(value) + _ROUNDING:
                break
            length *= 0.5
        else:
            break  # rounding: no smaller value can be found
        parameters = parameters + length * step
        value, gradient, hessian = found
    return parameters, value, np.abs(gradient).max(), hessian, iteration


def _solve(hessian, gradient):
    """hessian^-1 gradient; directions without any curvature are left alone."""
    eigenvalues, vectors = np.linalg.eigh(hessian)
    usable = eigenvalues > 1e-15 * eigenvalues[-1]
    return vectors[:, usable] @ ((vectors[:, usable].T @ gradient) / eigenvalues[usable])


def _moments(x, shares):
    """Weighted mean, standard deviation and whether it is constant, each (D,), of the columns of x (N,D)."""
    low, high = x.min(axis=0), x.max(axis=0)
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, len(x), _BLOCK)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(shares[rows] @ x[rows] for rows in blocks)
        variance = sum(shares[rows] @ (x[rows] - mean) ** 2 for rows in blocks)
    constant = low == high
    bad = ~constant & ~(np.isfinite(variance) & (variance > 0.0))  # squares that overflow, or vanish
    if bad.any():
        raise VoxarkError(
            f"scores from {low[bad][0]:g} to {high[bad][0]:g} cannot be calibrated: is this the score file?"
        )
    return np.where(constant, low, mean), np.where(constant, 1.0, np.sqrt(variance)), constant


def _separable_by_one(x, target):
    """Whether a threshold on one column x (N,) separates the classes, ties at the threshold allowed."""
    a, b = x[target], x[~target]
    return bool(a.min() >= b.max() or a.max() <= b.min())


def _runs_off(objective, parameters, hessian):
    """Whether the minimum lies at infinity: then the part of the parameters in flat directions separates.

    In scaled columns the curvature at s = 0 is of size 1 in all directions that the data determine.
    """
    eigenvalues, vectors = np.linalg.eigh(hessian)
    flat = vectors[:, eigenvalues < _FLAT]
    tau = np.append(np.zeros(len(parameters) - 1), objective.tau)
    return bool(flat.shape[1] > 0 and objective.separates(flat @ (flat.T @ (parameters + tau))))


def fit_logistic(x, target, prior=0.5, weights=None, ridge=RIDGE):
    """Train a LogisticFit on columns x (N,D) or (N,), target (N,) bool, at the effective prior ``prior``.

    ``weights`` (N,): relative weights of the trials within their class, or None. ``ridge`` is used where the
    classes can be separated or columns depend on each other, and nowhere else. Constant columns have no
    weight; with no other, every LLR is 0. VoxarkError: an empty class, a column that is not finite, or whose
    squares are not, or vanish.
    """
    x = x[:, None] if x.ndim == 1 else x
    if not np.isfinite(x).all():
        raise VoxarkError("logistic regression needs finite scores")
    shares = trial_weights(target, prior, weights)
    if weights is not None and not (weights > 0).all():  # what has no weight is no trial
        x, target, shares = x[weights > 0], target[weights > 0], shares[weights > 0]
    mean, scale, constant = _moments(x, shares)
    active = ~constant
    used = x if active.all() else np.ascontiguousarray(x[:, active])
    objective = Objective(used, target, shares, log_odds(prior), mean[active], scale[active])
    dim = int(active.sum())
    collinear = dim > 1 and bool(np.linalg.eigvalsh(objective.gram())[0] < _COLLINEAR)
    separable = dim == 1 and _separable_by_one(used[:, 0], target)
    if not separable:
        found = _newton(objective, dim)
        separable = _runs_off(objective, found[0], found[3])
    if separable or collinear:
        objective.ridge = ridge
        found = _newton(objective, dim)
    parameters, value, gradient, _, num_iters = found
    full = np.zeros(x.shape[1])
    full[active] = parameters[:-1] / scale[active]
    offset = float(parameters[-1] - full @ mean)
    return LogisticFit(
        full,
        offset,
        float(value),
        float(gradient),
        num_iters,
        objective.ridge,
        separable,
        collinear,
        constant,
    )
