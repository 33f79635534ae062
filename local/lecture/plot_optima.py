#!/usr/bin/env python3
"""Draw where EM ends from different starts: ln p over the iterations, the best and the worst ends.

<dir> holds SEED.gmm and SEED.tsv (--report-file) of the trainings with --srand=SEED, from 1.

Usage: plot_optima.py <feats-archive> <dir> <picture>
e.g.: plot_optima.py feats exp/seeds 10_optima.svg
See also: egs/lecture/run.sh, train-gmm-em
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path

import numpy as np

from models import RANGES_2D
from reading import covariances, read_gmms, read_stacked, read_terms
from voxark.errors import VoxarkError
from voxark.report.drawing import COMPONENTS, BLUE, MUTED, VERMILLION, density_plane, ellipse, number, picture


def read_runs(folder):
    """Return {seed: ln p after each M-step (K,)}."""
    seeds = sorted(int(path.stem) for path in folder.glob("*.tsv") if path.stem.isdigit())
    if len(seeds) < 2:
        raise VoxarkError(f"{folder}: tables of two seeds at least (1.tsv, 2.tsv, ...) are expected")
    return {
        seed: np.array([t.lnp for t in read_terms(folder / f"{seed}.tsv") if t.step == "M"]) for seed in seeds
    }


def draw_curves(axes, runs, best, worst):
    """All curves, the best and the worst in colour."""
    for seed, curve in runs.items():
        color = {best: BLUE, worst: VERMILLION}.get(seed, MUTED)
        chosen = seed in (best, worst)
        axes.plot(
            np.arange(1, len(curve) + 1),
            curve,
            color=color,
            linewidth=2.4 if chosen else 1.1,
            zorder=3 if chosen else 2,
            alpha=1.0 if chosen else 0.7,
        )
    lowest = np.quantile([curve[len(curve) // 10] for curve in runs.values()], 0.25)
    highest = max(curve[-1] for curve in runs.values())
    axes.set(xlabel="iteration", ylabel=r"$\ln p$, nats per observation")
    axes.set(ylim=(lowest, highest + 0.08 * (highest - lowest)))
    axes.set_title(f"{len(runs)} random starts")


def draw_end(axes, x, gmm, title):
    """The components where a training ended."""
    axes.plot(x[:, 0], x[:, 1], ".", color=MUTED, markersize=3, alpha=0.45)
    for c, covariance in enumerate(covariances(gmm)):
        color = COMPONENTS[c % len(COMPONENTS)]
        ellipse(axes, gmm.means[c], covariance, color)
        number(axes, gmm.means[c], str(c + 1), color)
    density_plane(axes, RANGES_2D)
    axes.set_title(title)


@cli.program
def main(feats_archive: str, directory: str, picture_file: str) -> int:
    folder, x = Path(directory), read_stacked("mat", feats_archive)
    runs = read_runs(folder)
    best, worst = (choose(runs, key=lambda seed: runs[seed][-1]) for choose in (max, min))
    with picture(picture_file, 1, 3, size=(10.6, 3.6), width_ratios=[1.15, 1.0, 1.0]) as (_, axes):
        draw_curves(axes[0], runs, best, worst)
        for panel, seed, name in zip(axes[1:], (best, worst), ("best", "worst")):
            (gmm,) = read_gmms([folder / f"{seed}.gmm"])
            draw_end(panel, x, gmm, rf"{name}: $\ln p$ = {runs[seed][-1]:.3f}".replace("-", "\N{MINUS SIGN}"))
        axes[2].set_ylabel("")
        axes[2].tick_params(labelleft=False)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
