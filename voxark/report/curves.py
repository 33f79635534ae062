"""Curves of detection scores as arrays: DET, its convex hull, densities, Tippett, reliability, cross-entropy.

Every function takes a Roc (scores of both classes, sorted) and gives a few thousand points at most, whatever
the number of trials: ranks of scores are chosen so that what lies between two neighbours is smaller than a
dot of the picture, and the curve at the chosen ones is exact.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics import Roc, prior_entropy

PROBIT_STEP = 0.005  # largest step along the axes of a DET curve between corners, in standard deviations
_PROPORTIONS = 1000  # steps of a cumulative proportion
_CELL = 0.01  # width, in nats, of the cells into which many LLRs are pooled for their cross-entropy
_MANY = 100_000
_LARGEST = 1e306
_FAR = 100.0  # beyond it ln(1+e^x) is x or 0 in float64


class Histogram(NamedTuple):
    """Densities of both classes over common bins: ``edges`` (B+1,), ``target`` and ``nontarget`` (B,).

    ``outside`` is the fraction of all trials whose scores lie outside of the edges.
    """

    edges: np.ndarray
    target: np.ndarray
    nontarget: np.ndarray
    outside: float


def probit(p):
    """The standard normal's inverse distribution function: the scale of the axes of a DET curve."""
    from scipy.special import ndtri

    return ndtri(p)


def rate_limits(number):
    """(low, high): rates of N trials are clipped to 1/(2N) and 1-1/(2N), as 0 and 1 have no probits."""
    return 0.5 / number, 1.0 - 0.5 / number


def _probit_grid(number, step=PROBIT_STEP):
    """Rates (n,) between the limits of ``number`` trials, equally far apart on a probit axis."""
    from scipy.special import ndtr

    low, high = probit(np.array(rate_limits(number)))
    return ndtr(np.linspace(low, high, int((high - low) / step) + 2))


def _places(scores, values, side):
    """The number of ascending scores (N,) below (``left``) or not above (``right``) each value."""
    return np.searchsorted(scores, values.astype(scores.dtype), side)


def det_curve(roc):
    """Vertices of the DET curve: (Pmiss, Pfa), each (P,), from (0,1) to (1,0), not clipped.

    It is the path of the rates as the threshold rises: level or upright where only one class has scores,
    slanting where both have the same one. Where steps are small, only some are kept: no vertex that is left
    out is farther than PROBIT_STEP from the path along either probit axis.
    """
    values = []
    for scores in (roc.target, roc.nontarget):
        ranks = np.unique((_probit_grid(len(scores)) * len(scores)).astype(np.int64))
        values.append(scores[np.concatenate(([0], ranks, [len(scores) - 1]))])
    values = np.unique(np.concatenate(values))
    path = []
    for scores in (roc.target, roc.nontarget):
        below = np.stack([_places(scores, values, side) for side in ("left", "right")], axis=1).ravel()
        path.append(below / len(scores))
    return _corners(path[0], 1.0 - path[1])


def _corners(x, y):
    """The path without points that repeat their neighbour or lie in the middle of a level or upright line."""
    keep = np.ones(len(x), bool)
    keep[1:] = (np.diff(x) != 0) | (np.diff(y) != 0)
    x, y = x[keep], y[keep]
    keep = np.ones(len(x), bool)
    keep[1:-1] = ~((x[2:] == x[:-2]) | (y[2:] == y[:-2]))
    return x[keep], y[keep]


def hull_curve(roc):
    """The ROC's convex hull: (Pmiss, Pfa), each (P,), dense enough for its lines to bend on probit axes."""
    p_miss, p_fa = roc.hull()
    misses, false_alarms = (_probit_grid(n, 0.02) for n in (roc.num_target, roc.num_nontarget))
    x = np.concatenate((p_miss, misses, np.interp(false_alarms, p_fa[::-1], p_miss[::-1])))
    y = np.concatenate((p_fa, np.interp(misses, p_miss, p_fa), false_alarms))
    order = np.lexsort((-y, x))
    return x[order], y[order]


def _finite(scores):
    """The finite ones of ascending scores."""
    return scores[np.searchsorted(scores, -np.inf, "right") : np.searchsorted(scores, np.inf, "left")]


def score_range(rocs):
    """(low, high) of the finite scores of Rocs.

    Of each class, up to a thousandth of the scores at an end are left outside if they would take more room
    than all the rest. A range of no width is widened. VoxarkError for scores too large to be drawn.
    """
    lows, highs = [], []
    for finite in [_finite(scores) for roc in rocs for scores in (roc.target, roc.nontarget)]:
        if len(finite):
            few = len(finite) // 1000
            lowest, low, high, highest = finite[[0, few, -1 - few, -1]].astype(np.float64).tolist()
            lows.append(lowest if low - lowest <= high - low else low)
            highs.append(highest if highest - high <= high - low else high)
    low, high = (min(lows), max(highs)) if lows else (0.0, 0.0)
    if max(abs(low), abs(high)) > _LARGEST:
        raise VoxarkError(
            f"scores as large as {max(abs(low), abs(high)):g} cannot be drawn: is this the score file?"
        )
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    margin = 0.5 * max(abs(low), 1.0)
    return low - margin, high + margin


def histogram(roc, most_bins=80):
    """The Histogram of both classes, in bins of equal width whose number grows with the smaller class."""
    low, high = score_range([roc])
    fewest = min(len(roc.target), len(roc.nontarget))
    number = int(np.clip(3.0 * np.cbrt(fewest), 10, most_bins))
    edges = np.linspace(low, high, number + 1)
    counts = []
    for scores in (roc.target, roc.nontarget):
        places = _places(scores, edges, "left")
        places[-1] = _places(scores, edges[-1:], "right")[0]  # the last bin holds its upper edge
        counts.append(np.diff(places))
    densities = [c / (len(s) * np.diff(edges)) for c, s in zip(counts, (roc.target, roc.nontarget))]
    number = len(roc.target) + len(roc.nontarget)
    return Histogram(edges, *densities, 1.0 - float(counts[0].sum() + counts[1].sum()) / number)


def proportion_above(scores):
    """The steps of the proportion of ascending scores (N,) that are at least x: (x, proportion), each (P,).

    Of many, only some are kept: none that is left out is farther than a thousandth from the path.
    """
    ranks = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), _PROPORTIONS + 1)).astype(np.int64))
    values = np.unique(scores[ranks])
    below = np.stack([np.searchsorted(scores, values, side) for side in ("left", "right")], axis=1).ravel()
    return np.repeat(values, 2).astype(np.float64), 1.0 - below / len(scores)


def pav_curve(roc):
    """Reliability: the LLR that the labels bear out (PAV), by score: (score, LLR), each (2B,).

    The two ends of each of the B blocks; between the scores of two blocks they meet half way, or at the
    finite one of two scores. The LLR is -inf in a block without targets, +inf in one without nontargets.
    """
    llr, targets, nontargets = roc.pav_llrs()
    low, high = np.full(len(llr), np.inf), np.full(len(llr), -np.inf)
    for scores, numbers in ((roc.target, targets), (roc.nontarget, nontargets)):
        last, some = np.cumsum(numbers), numbers > 0
        low[some] = np.minimum(low[some], scores[last[some] - numbers[some]])
        high[some] = np.maximum(high[some], scores[last[some] - 1])
    before, after = high[:-1], low[1:]
    with np.errstate(invalid="ignore"):
        between = 0.5 * before + 0.5 * after
    between = np.where(np.isnan(between), 0.0, between)  # between -inf and +inf
    between = np.where(np.isinf(between), np.where(np.isfinite(before), before, after), between)
    edges = np.concatenate((low[:1], between, high[-1:]))
    return np.stack((edges[:-1], edges[1:]), axis=1).ravel(), np.repeat(llr, 2)


def cross_entropies(roc, log_odds):
    """Empirical cross-entropy in bits at priors of log odds (K,): (the scores' as LLRs, PAV's, default).

    The default is that of scores that say nothing. Of more than 100,000 trials, LLRs within a hundredth are
    pooled; the error is below 2e-6 bits.
    """
    priors = 1.0 / (1.0 + np.exp(-np.asarray(log_odds, np.float64)))
    pooled = _pooled(roc) if len(roc.target) + len(roc.nontarget) > _MANY else roc
    measures = (pooled.ece, roc.min_ece, prior_entropy)
    return tuple(np.array([measure(p) for p in priors.tolist()]) for measure in measures)


def _pooled(roc):
    """A Roc of the mean scores of narrow cells, weighted by their numbers; infinite scores stay apart."""
    edges = np.arange(-_FAR, _FAR + _CELL, _CELL)
    edges = np.concatenate(([-np.finfo(np.float64).max], edges, [np.inf]))
    means, numbers = [], []
    for scores in (roc.target, roc.nontarget):
        first = np.unique(np.concatenate(([0], np.searchsorted(scores, edges))))
        first = first[first < len(scores)]
        numbers.append(np.diff(first, append=len(scores)))
        means.append(np.add.reduceat(scores, first, dtype=np.float64) / numbers[-1])
    return Roc(*means, *numbers)
