"""The normaliser of the discriminative term against the number of sequences (figure 1 of Hsu and Glass 2018).

The term's denominator is the sum over sequences j of N(z2; mu2_j, sigma^2 I). It grows with their number M,
and its logarithm by ln 10 = 2.30 for each factor of ten as soon as other sequences outweigh the segment's
own one: a weight alpha that was right for one number of sequences is not for another.
"""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.report.drawing import picture

_STYLES = ("-", "--", ":", "-.")
_BLOCK = 4_000_000  # numbers of a block of distances


@dataclass
class HistogramOptions:
    """What the histogram of normalisers is about."""

    variance: float = option(0.25, "histogram: variance sigma^2 of the prior of z2 given mu2")
    num_sequences: str = option("", "histogram: numbers M of sequences, with commas (empty: 10, 100, ...)")

    def sizes(self, most):
        """The numbers of sequences, ascending: those asked for, or powers of ten up to ``most``, and ``most``
        itself where that is more than 1.5 times the last one."""
        if not self.variance > 0:
            raise VoxarkError(f"--variance={self.variance:g} must be above 0")
        if not self.num_sequences:
            sizes = [10**k for k in range(1, 10) if 10**k <= most]
            return sizes + [most] * (not sizes or most > 1.5 * sizes[-1])
        try:
            sizes = sorted({int(word) for word in self.num_sequences.split(",")})
        except ValueError:
            raise VoxarkError(f"--num-sequences={self.num_sequences}: expected numbers with commas") from None
        if not 1 <= sizes[0] <= sizes[-1] <= most:
            raise VoxarkError(f"--num-sequences={self.num_sequences}: there are {most} sequences")
        return sizes


def log_density_sums(z2, own, mu2, sizes, variance, rng):
    """ln sum_j N(z2; mu2_j, variance I) over M sequences: (len(sizes), N) for M of ascending ``sizes``.

    ``z2`` (N,D) are posterior means of segments, ``own`` (N,) the row of mu2 (J,D) of their own sequences.
    The M sequences are the own one and the first M-1 others of a random order, the same one for all
    segments.
    """
    order = rng.permutation(len(mu2))
    rank = np.empty(len(mu2), np.int64)
    rank[order] = np.arange(len(mu2))
    z2, mu2 = np.asarray(z2, np.float64), np.asarray(mu2, np.float64)
    constant = -0.5 * z2.shape[1] * np.log(2.0 * np.pi * variance)
    own_logs = constant - 0.5 * np.sum((z2 - mu2[own]) ** 2, axis=1) / variance
    others = mu2[order[: sizes[-1]]]
    squares, rows = 0.5 * np.sum(others**2, axis=1), max(1, _BLOCK // len(others))
    result = np.empty((len(sizes), len(z2)))
    for first in range(0, len(z2), rows):
        part = slice(first, first + rows)
        x = z2[part]
        logs = constant + (x @ others.T - squares - 0.5 * np.sum(x**2, axis=1)[:, None]) / variance
        result[:, part] = _sums_at(sizes, logs, rank[own[part]], own_logs[part])
    return result


def _sums_at(sizes, logs, place, own_logs):
    """Log-sums (len(sizes), n) of own_logs (n,) and the first M-1 others of logs (n, M); own at ``place``."""
    inside = np.flatnonzero(place < logs.shape[1])
    logs[inside, place[inside]] = -np.inf
    total, done, sums = own_logs.copy(), 0, []
    for size in sizes:
        if size - 1 > done:
            total = np.logaddexp(total, np.logaddexp.reduce(logs[:, done : size - 1], axis=1))
            done = size - 1
        # where the own sequence is among the first M-1, one more of the others makes up for it
        sums.append(np.where(place < size - 1, np.logaddexp(total, logs[:, size - 1]), total))
    return np.array(sums)


def shifts_per_decade(sizes, means):
    """How far the mean moves from each number of sequences to the next, for a factor of ten between them."""
    return np.diff(means) / np.diff(np.log10(sizes))


def draw_histogram(path, sizes, sums, variance):
    """Draw the densities of log-sums (len(sizes), N) in one panel."""
    with picture(path, size=(7.6, 4.4)) as (figure, axes):
        from matplotlib import colormaps

        low, high = np.quantile(sums, (0.001, 0.999))
        bins = int(np.clip(np.sqrt(sums.shape[1]), 10, 60))
        edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
        for number, (size, values) in enumerate(zip(sizes, sums)):
            color = colormaps["viridis"](0.88 * number / max(1, len(sizes) - 1))
            density, _ = np.histogram(values, edges, density=True)
            label = f"M = {size:,} (mean {values.mean():.1f})".replace(",", " ")
            style = {"color": color, "linewidth": 1.8, "linestyle": _STYLES[number % len(_STYLES)]}
            axes.stairs(density, edges, baseline=None, label=label, gid=f"sequences-{number + 1}", **style)
            axes.stairs(density, edges, fill=True, color=color, alpha=0.12, linewidth=0)
            axes.axvline(values.mean(), color=color, linewidth=0.9, linestyle=":")
        name = r"$\log\;\sum_{j=1}^{M}\;\mathcal{N}(\bar{z}_2;\,\mu_{2,j},\,\sigma^2 I)$"
        axes.set(xlabel=name + f",  $\\sigma^2$ = {variance:g}", ylabel="density", ylim=(0, None),
                 title="Normaliser of the discriminative term")  # fmt: skip
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="sequences", alignment="left")
