"""Cepstral mean and variance normalisation: statistics, application, sliding window [K].

Statistics are Kaldi's matrix of 2 rows and D+1 columns in float64: the sums of the features and the count of
frames, the sums of their squares and 0. Statistics of two sets of frames add up to those of their union.
"""

from dataclasses import dataclass

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.options import option

VARIANCE_FLOOR = 1e-20  # of apply_cmvn [K]
SLIDING_VARIANCE_FLOOR = 1e-10  # of apply_sliding_cmvn [K]


def cmvn_stats(x, weights=None):
    """Return the statistics (2, D+1) float64 of features x (T,D), each frame counted ``weights`` (T,) times.

    Sums and squares are taken in float64 (Kaldi rounds each square to float32). Raises VoxarkError for a NaN
    or an infinity, naming frame and column, and for weights of another length.
    """
    x = np.asarray(x)
    check_finite(x, "feature")
    stats = np.zeros((2, x.shape[1] + 1))
    if weights is None:
        x = x.astype(np.float64)
        stats[0, :-1] = x.sum(axis=0)
        stats[0, -1] = len(x)
        stats[1, :-1] = np.einsum("td,td->d", x, x)
        return stats
    weights = np.asarray(weights, dtype=np.float64)
    if len(weights) != len(x):
        raise VoxarkError(f"features have {len(x)} frames, the weights {len(weights)}")
    check_finite(weights, "weight")
    x = x.astype(np.float64)
    stats[0, :-1] = weights @ x
    stats[0, -1] = weights.sum()
    stats[1, :-1] = weights @ (x * x)
    return stats


def neutral_stats(stats, dims):
    """Return statistics that leave the columns ``dims`` as they are: mean 0, variance 1 (--skip-dims) [K].

    Raises VoxarkError for a column that the statistics do not have.
    """
    stats = np.array(stats, dtype=np.float64)
    num_dims = stats.shape[1] - 1
    wrong = [d for d in dims if not 0 <= d < num_dims]
    if wrong:
        raise VoxarkError(f"--skip-dims names column {wrong[0]}, the statistics have dimension {num_dims}")
    stats[0, dims] = 0.0
    if len(stats) > 1:
        stats[1, dims] = stats[0, -1]
    return stats


def mean_deviation(stats, norm_vars=False):
    """Return mean (D,), deviation (D,) or None, and the number of floored columns, of statistics (2, D+1).

    Variances below 1e-20 are floored and counted. Raises VoxarkError when the count is below 1, when sums of
    squares are needed and absent (statistics of one row), and for a NaN or an infinity.
    """
    stats = np.asarray(stats, dtype=np.float64)
    if stats.ndim != 2 or len(stats) not in (1, 2) or stats.shape[1] < 2:
        raise VoxarkError(f"normalisation statistics have shape {stats.shape}, expected 2 x (dimension + 1)")
    count = stats[0, -1]
    if not count >= 1:
        raise VoxarkError(f"normalisation statistics have count {count:g}: at least one frame is needed")
    check_finite(stats.ravel(), "statistic")
    mean = stats[0, :-1] / count
    if not norm_vars:
        return mean, None, 0
    if len(stats) == 1:
        raise VoxarkError("variance normalisation is asked for, but the statistics hold no sums of squares")
    variance = stats[1, :-1] / count - mean**2
    num_floored = int(np.sum(variance < VARIANCE_FLOOR))
    return mean, np.sqrt(np.maximum(variance, VARIANCE_FLOOR)), num_floored


def normalize(x, mean, deviation=None, reverse=False):
    """Return (x - mean) / deviation for x (T,D), or with ``reverse`` x * deviation + mean: (T,D) float32.

    ``deviation`` None counts as 1. The mean goes first, in float64, so that a constant column gives zeros.
    Raises VoxarkError naming both dimensions when they differ.
    """
    if x.shape[1] != len(mean):
        raise VoxarkError(f"features have dimension {x.shape[1]}, the normalisation statistics {len(mean)}")
    x = np.asarray(x, dtype=np.float64)
    if reverse:
        return ((x if deviation is None else x * deviation) + mean).astype(np.float32)
    x = x - mean
    return (x if deviation is None else x / deviation).astype(np.float32)


def apply_cmvn(x, stats, norm_vars=False, reverse=False):
    """Return x (T,D) normalised with ``stats`` (2, D+1) to zero mean, and unit variance if asked; float32.

    ``reverse`` undoes it [K]. Raises VoxarkError as mean_deviation and normalize do.
    """
    mean, deviation, _ = mean_deviation(stats, norm_vars)
    return normalize(x, mean, deviation, reverse)


@dataclass
class SlidingCmvnOptions:
    """The window of sliding normalisation; the names are those of Kaldi's apply-cmvn-sliding."""

    cmn_window: int = option(600, "Window in frames for running average CMN computation")
    min_cmn_window: int = option(
        100,
        "Minimum CMN window used at the start of the utterance. Only applicable if --center=false",
    )
    max_warnings: int = option(5, "Maximum warnings to report per utterance. 0 to disable, -1 to show all")
    norm_vars: bool = option(False, "If true, normalize variance to one")
    center: bool = option(
        False,
        "If true, use a window centered on the current frame (to the extent possible, modulo end effects). "
        "If false, window is to the left",
    )

    def __post_init__(self):
        if self.cmn_window < 1:
            raise VoxarkError(f"--cmn-window={self.cmn_window}: must be at least 1")


def sliding_windows(num_frames, options):
    """Return (first, end): frame t is normalised by frames first[t]..end[t]-1; both (T,) int64 [K].

    Centred: W frames from t - W//2 on, shifted to lie inside the utterance (W frames wherever T >= W).
    Else: frames t-W..t, at the start at least ``min_cmn_window`` frames, as far as the utterance has them.
    """
    t = np.arange(num_frames)
    if options.center:
        first = t - options.cmn_window // 2
        end = np.maximum(first, 0) + options.cmn_window
    else:
        first = t - options.cmn_window
        end = np.maximum(t + 1, options.min_cmn_window)
    beyond = np.maximum(end - num_frames, 0)
    return np.maximum(np.maximum(first, 0) - beyond, 0), end - beyond


def apply_sliding_cmvn(x, options=None):
    """Normalise each frame of x (T,D) by the frames in its window: (y (T,D) float32, floored (T,) int).

    floored[t] counts the variances of frame t's window that were raised to 1e-10. With variance
    normalisation a window of one frame gives 0 [K]. Window sums are differences of cumulative sums in float64
    of the features less their overall mean (which cancels, and keeps the sums small, hence exact).
    Raises VoxarkError for a NaN or an infinity, naming frame and column.
    """
    options = options or SlidingCmvnOptions()
    x = np.asarray(x)
    num_frames, dim = x.shape
    if num_frames == 0:
        return x.astype(np.float32), np.zeros(0, dtype=int)
    check_finite(x, "feature")
    first, end = sliding_windows(num_frames, options)
    size = (end - first)[:, None]
    x = x.astype(np.float64)
    x -= x.mean(axis=0)
    mean = _window_sums(x, first, end) / size
    y = x - mean
    if not options.norm_vars:
        return y.astype(np.float32), np.zeros(num_frames, dtype=int)
    variance = _window_sums(x * x, first, end) / size - mean**2
    floored = np.sum((variance < SLIDING_VARIANCE_FLOOR) & (size > 1), axis=1)
    y /= np.sqrt(np.maximum(variance, SLIDING_VARIANCE_FLOOR))
    y[size[:, 0] == 1] = 0.0
    return y.astype(np.float32), floored


def _window_sums(x, first, end):
    """Sum rows first[t]..end[t]-1 of x (T,D) for every t, in time that does not depend on the window."""
    before = np.zeros((len(x) + 1, x.shape[1]))
    np.cumsum(x, axis=0, out=before[1:])
    return before[end] - before[first]
