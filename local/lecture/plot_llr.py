#!/usr/bin/env python3
"""Draw PLDA's log-likelihood ratio: over the plane of test vectors, and of all trials of the data.

The maps are scores of score-trials for the points of a grid: positive where the same speaker is likelier.
The histogram is of trials between the vectors of the data, by the same or by different speakers.

Usage: plot_llr.py <enroll-archive> <grid-archive> <grid-scores> <trials> <scores> <picture>
e.g.: plot_llr.py enroll grid scores_grid trials_all scores_all 16_llr.svg
See also: egs/lecture/run.sh, score-trials
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from models import RANGES_PLDA
from reading import read_table
from voxark.errors import VoxarkError
from voxark.report.drawing import BLUE, INK, PAPER, VERMILLION, density_plane, picture

LIMITS = -20.0, 4.0  # of the maps' colours, in nats
LOWEST = -12  # of the histogram


def read_scores(path):
    """Return {(enroll, test): score}."""
    with open(path, encoding="utf-8") as lines:
        words = [line.split() for line in lines]
    return {(enroll, test): float(score) for enroll, test, score in words}


def draw_map(axes, grid, llr, place):
    """The ratio over the plane, its zero line, and the enrolment vector."""
    from matplotlib.colors import TwoSlopeNorm

    shape = (len(np.unique(grid[:, 1])), -1)
    columns, rows, values = (a.reshape(shape) for a in (grid[:, 0], grid[:, 1], llr))
    norm = TwoSlopeNorm(0.0, *LIMITS)
    image = axes.imshow(
        values,
        origin="lower",
        cmap="RdBu",
        norm=norm,
        interpolation="bilinear",
        extent=(*RANGES_PLDA[0], *RANGES_PLDA[1]),
    )
    axes.contour(columns, rows, values, [0.0], colors="#101010", linewidths=1.8)
    axes.plot(*place, "P", color="#101010", markeredgecolor=PAPER, markersize=11)
    density_plane(axes, RANGES_PLDA)
    return image


def draw_histogram(axes, trials, scores):
    """Scores of trials of the same and of different speakers."""
    with open(trials, encoding="utf-8") as lines:
        labels = {tuple(line.split()[:2]): line.split()[2] for line in lines}
    if labels.keys() != scores.keys():
        raise VoxarkError(f"{trials}: the scores are of other trials")
    for label, color, name in (
        ("target", BLUE, "same speaker"),
        ("nontarget", VERMILLION, "different speakers"),
    ):
        values = np.array([score for trial, score in scores.items() if labels[trial] == label])
        axes.hist(values, bins=np.arange(LOWEST, 7, 0.5), density=True, color=color, alpha=0.6, label=name)
    axes.axvline(0.0, color=INK, linewidth=1.2)
    axes.set(xlabel=f"LLR above {LOWEST}, nats".replace("-", "\N{MINUS SIGN}"), ylabel="density")
    axes.legend(loc="upper left")
    axes.set_title("all trials of the data")


@cli.program
def main(
    enroll_archive: str, grid_archive: str, grid_scores: str, trials: str, scores: str, picture_file: str
) -> int:
    enrolled, grid, of_grid = (
        read_table("vec", enroll_archive),
        read_table("vec", grid_archive),
        read_scores(grid_scores),
    )
    points = np.stack(list(grid.values())).astype(np.float64)
    with picture(
        picture_file, 1, len(enrolled) + 1, size=(11.4, 3.7), width_ratios=[1.0] * len(enrolled) + [1.05]
    ) as (figure, axes):
        for panel, (key, place) in zip(axes, enrolled.items()):
            image = draw_map(panel, points, np.array([of_grid[key, test] for test in grid]), place)
            panel.set_title(f"enrolled at ({place[0]:g}, {place[1]:g})")
        for panel in axes[1:-1]:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
        bar = figure.colorbar(
            image, ax=list(axes[:-1]), shrink=0.8, pad=0.02, ticks=[-20, -15, -10, -5, 0, 2, 4]
        )
        bar.ax.set_title("LLR", fontsize=10.5)
        draw_histogram(axes[-1], trials, read_scores(scores))
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
