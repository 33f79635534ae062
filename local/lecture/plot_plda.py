#!/usr/bin/env python3
"""Draw PLDA's model in the plane: speakers' means from one Gaussian, their vectors from others around them.

Left the data, some speakers in colour with their true means (stars) and the true ellipses of
within-speaker variability around them; right what training found, dashed what it should have. Ellipses:
two deviations.

Usage: plot_plda.py <plda-rxfilename> <true-plda> <vectors-archive> <means-archive> <picture>
e.g.: plot_plda.py final.plda true.plda vectors means 15_plda.svg
See also: egs/lecture/run.sh, train-plda
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from models import RANGES_PLDA
from reading import read_plda, read_table
from voxark.report.drawing import (
    BLUE,
    COMPONENTS,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    VERMILLION,
    density_plane,
    ellipse,
    picture,
)

SHOWN = 5  # speakers in colour, of those with most vectors


def choose(speakers, means):
    """Return the speakers to show in colour: of those with most vectors, far from each other."""
    most = max(len(x) for x in speakers.values())
    candidates = [s for s, x in speakers.items() if len(x) >= min(most, 8)]
    chosen = candidates[:1]
    while len(chosen) < min(SHOWN, len(candidates)):
        left = [s for s in candidates if s not in chosen]
        chosen.append(max(left, key=lambda s: min(np.hypot(*(means[s] - means[c])) for c in chosen)))
    return chosen


def draw_data(axes, speakers, means, truth):
    """All vectors in grey, some speakers in colour, the distribution of speakers' means."""
    within, across = truth.covariances()
    axes.plot(
        *np.concatenate(list(speakers.values())).T, ".", color=MUTED, markersize=3, alpha=0.4, label="vectors"
    )
    for c, speaker in enumerate(choose(speakers, means)):
        axes.plot(*speakers[speaker].T, MARKERS[c], color=COMPONENTS[c], markersize=4.5)
        ellipse(axes, means[speaker], within, COMPONENTS[c], linewidth=1.6)
        axes.plot(*means[speaker], "*", color=COMPONENTS[c], markersize=15, markeredgecolor=PAPER, zorder=5)
    ellipse(axes, truth.mean, across, INK, linestyle=(0, (5, 3)))
    axes.set_title(
        r"$\mathbf{z}_s\sim\mathcal{N}(\mu,\Sigma_{ac})$,  "
        r"$\mathbf{x}_{si}\sim\mathcal{N}(\mathbf{z}_s,\Sigma_{wc})$"
    )


def draw_models(axes, means, plda, truth):
    """The two covariances, learned and true, and the speakers' means, which training never sees."""
    axes.plot(
        *np.stack(list(means.values())).T,
        "*",
        color=MUTED,
        markersize=6,
        alpha=0.7,
        label="speakers' true means",
    )
    for model, style, width, what in ((truth, (0, (4, 3)), 1.5, "true"), (plda, "-", 2.4, "learned")):
        for covariance, color, name in zip(
            model.covariances(), (VERMILLION, BLUE), (r"$\Sigma_{wc}$", r"$\Sigma_{ac}$")
        ):
            ellipse(axes, model.mean, covariance, color, linestyle=style, linewidth=width)
            axes.plot([], [], color=color, linestyle=style, linewidth=width, label=f"{name} {what}")


@cli.program
def main(
    plda_rxfilename: str, true_plda: str, vectors_archive: str, means_archive: str, picture_file: str
) -> int:
    plda, truth = read_plda(plda_rxfilename), read_plda(true_plda)
    speakers = {}
    for key, x in read_table("vec", vectors_archive).items():
        speakers.setdefault(key.rpartition("-")[0], []).append(x)
    speakers, means = {s: np.stack(x) for s, x in speakers.items()}, read_table("vec", means_archive)
    with picture(picture_file, 1, 2, size=(9.6, 4.5), sharey=True) as (figure, (left, right)):
        draw_data(left, speakers, means, truth)
        draw_models(right, means, plda, truth)
        right.set_title("learned, and true (dashed)")
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        for axes in (left, right):
            density_plane(axes, RANGES_PLDA)
        right.set_ylabel("")
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
