#!/usr/bin/env python3
"""Draw EM in one dimension: p(x) after some iterations, its components, and their responsibilities.

<dir> holds the models N.gmm and the posteriors N.post of the grid's points, which gmm-get-post found. The
mixture that the data were drawn from is dashed.

Usage: plot_densities.py [options] <feats-archive> <grid-archive> <true-gmm> <dir> <picture>
e.g.: plot_densities.py --show=0,1,2,3,5,10 feats grid true.gmm exp/em1d 06_em_density.svg
See also: egs/lecture/run.sh, train-gmm-em, gmm-get-post
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

import numpy as np

from models import RANGE_1D
from reading import iterations, read_gmms, read_posteriors, read_stacked
from voxark.report.drawing import COMPONENTS, INK, MUTED, PAPER, SKY, picture

COLUMNS = 3


def draw_model(upper, lower, x, grid, gmm, truth, gamma):
    """The densities of one model above, the responsibilities of its components below."""
    upper.hist(x, bins=48, range=RANGE_1D, density=True, color=SKY, alpha=0.3, label="data")
    for c, part in enumerate(np.exp(gmm.component_log_likelihoods(grid)).T):
        upper.plot(grid[:, 0], part, color=COMPONENTS[c], linewidth=1.5, zorder=3, label=f"component {c + 1}")
    upper.plot(
        grid[:, 0],
        np.exp(truth.log_likelihood(grid)),
        color=MUTED,
        linestyle=(0, (4, 2)),
        linewidth=1.5,
        label="$p(x)$ to be learned",
    )
    upper.plot(
        grid[:, 0], np.exp(gmm.log_likelihood(grid)), color=INK, linewidth=3.0, label="$p(x)$ of the model"
    )
    bands = lower.stackplot(grid[:, 0], gamma.T, colors=COMPONENTS[: gmm.num_gauss], alpha=0.8)
    for band in bands:
        band.set(edgecolor=PAPER, linewidth=0.6)
    lower.set(ylim=(0, 1), yticks=(0, 1))


@cli.program
def main(
    feats_archive: str,
    grid_archive: str,
    true_gmm: str,
    directory: str,
    picture_file: str,
    *,
    show: Annotated[str, "The models to show, with commas; 0 is the start."] = "0,1,2,3,5,10",
) -> int:
    shown, folder = iterations(show), Path(directory)
    x, grid = read_stacked("mat", feats_archive)[:, 0], read_stacked("mat", grid_archive)
    (truth,) = read_gmms([true_gmm])
    rows = -(-len(shown) // COLUMNS)
    options = {"sharex": True, "sharey": "row", "squeeze": False, "height_ratios": [2.4, 1.0] * rows}
    with picture(picture_file, 2 * rows, COLUMNS, size=(9.0, 3.1 * rows), **options) as (figure, axes):
        for unused in axes.T.reshape(-1, 2)[len(shown) :].ravel() if len(shown) % COLUMNS else ():
            unused.set_visible(False)
        for place, step in enumerate(shown):
            row, column = 2 * (place // COLUMNS), place % COLUMNS
            (gmm,) = read_gmms([folder / f"{step}.gmm"])
            upper, lower = axes[row : row + 2, column]
            draw_model(
                upper, lower, x, grid, gmm, truth, read_posteriors(folder / f"{step}.post", gmm.num_gauss)
            )
            upper.set(xlim=RANGE_1D, ylim=(0, 0.3), xticks=range(-6, 7, 3), ylabel="density")
            upper.set_title("start" if step == 0 else f"after iteration {step}")
            lower.set(xlabel="$x$" if row == 2 * rows - 2 else "", ylabel=r"$\gamma_c(x)$")
            for panel in (upper, lower) if column else ():
                panel.set_ylabel("")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=6,
            columnspacing=1.2,
            handlelength=1.6,
        )
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
