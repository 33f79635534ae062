#!/usr/bin/env python3
"""Draw training in the plane step by step: the data shared out among the components, and these moved.

<dir> holds the models N.gmm and the posteriors N.post that gmm-get-post found under each. An upper
picture shows model N-1 and each observation in the colours of its posteriors: that of the likeliest
component after Viterbi training's classification, a mixture of them after an E-step. The lower one shows
model N, which was estimated from that sharing; dashes are the ellipses before, arrows the moves of the
means.

Usage: plot_steps.py [options] <feats-archive> <dir> <picture>
e.g.: plot_steps.py --training=viterbi --show=1,2,4,9 feats exp/viterbi 04_viterbi.svg
See also: egs/lecture/run.sh, train-gmm-em, gmm-get-post
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from models import RANGES_2D
from reading import covariances, iterations, read_gmms, read_posteriors, read_stacked
from voxark.report.drawing import COMPONENTS, INK, MARKERS, density_plane, ellipse, mixed, number, picture

NAMES = {"viterbi": ("classify the data", "re-estimate"), "em": ("E-step", "M-step")}


def scatter(axes, x, gamma, alpha=0.9, size=13):
    """The observations, colours mixed by their posteriors, the likeliest component's marker."""
    colors, best = mixed(gamma), gamma.argmax(axis=1)
    for c in range(gamma.shape[1]):
        mine = best == c
        axes.scatter(*x[mine].T, s=size, c=colors[mine], marker=MARKERS[c], alpha=alpha, linewidths=0)


def ellipses(axes, gmm, **options):
    """The components of a mixture."""
    for c, covariance in enumerate(covariances(gmm)):
        ellipse(axes, gmm.means[c], covariance, COMPONENTS[c], **options)


def draw_step(upper, lower, x, gamma, old, new):
    """One iteration: the sharing under the old model, and the model that comes of it."""
    scatter(upper, x, gamma)
    ellipses(upper, old)
    scatter(lower, x, gamma, alpha=0.35)
    ellipses(lower, old, linestyle=(0, (4, 3)), linewidth=1.3)
    ellipses(lower, new)
    for c, (before, after) in enumerate(zip(old.means, new.means)):
        number(upper, before, str(c + 1), COMPONENTS[c])
        if np.hypot(*(after - before)) > 0.25:
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 7}
            lower.annotate("", after, before, arrowprops=arrow, zorder=5)
        number(lower, after, str(c + 1), COMPONENTS[c])


@cli.program
def main(
    feats_archive: str,
    directory: str,
    picture_file: str,
    *,
    training: Annotated[Literal["em", "viterbi"], "What the training was."] = "em",
    show: Annotated[str, "The iterations to show, with commas, from 1."] = "1,2,4,9",
) -> int:
    shown, folder = iterations(show), Path(directory)
    x = read_stacked("mat", feats_archive)
    size = (2.85 * len(shown) + 0.4, 5.3)
    with picture(picture_file, 2, len(shown), size=size, sharex=True, sharey=True, squeeze=False) as (
        _,
        axes,
    ):
        for column, step in enumerate(shown):
            old, new = read_gmms([folder / f"{step - 1}.gmm", folder / f"{step}.gmm"])
            gamma = read_posteriors(folder / f"{step - 1}.post", old.num_gauss)
            if training == "viterbi":
                gamma = np.eye(old.num_gauss)[gamma.argmax(axis=1)]
            draw_step(*axes[:, column], x, gamma, old, new)
            for panel, name in zip(axes[:, column], NAMES[training]):
                density_plane(panel, RANGES_2D)
                panel.label_outer()
                panel.set_title(f"{step}. {name}")
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
