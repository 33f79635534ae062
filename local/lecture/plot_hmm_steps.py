#!/usr/bin/env python3
"""Draw EM for an HMM step by step: the states' Gaussians and, for one sequence, the posteriors of the states.

<dir> holds the models N.hmm and the posteriors N.post of score-hmm's --write-post under each. Dashed are the
Gaussians that the data were drawn from, and the strip below has that sequence's true states.

Usage: plot_hmm_steps.py [options] <feats-archive> <labels-archive> <true-hmm> <dir> <picture>
e.g.: plot_hmm_steps.py --show=0,1,3,8 feats labels true.hmm exp/hmm 13_hmm_em.svg
See also: egs/lecture/run.sh, train-hmm-em, score-hmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

import numpy as np

from models import RANGE_HMM
from reading import choose_sequence, iterations, read_table
from voxark.hmm.model import read_hmm
from voxark.report.drawing import COMPONENTS, PAPER, picture, state_strip


def draw_densities(axes, hmm, truth):
    """The Gaussians of the states."""
    x = np.linspace(*RANGE_HMM, 300)[:, None]
    for s in range(hmm.num_states):
        axes.plot(
            x[:, 0],
            np.exp(truth.pdfs[truth.pdf_of[s]].log_likelihood(x)),
            color=COMPONENTS[s],
            linestyle=(0, (4, 3)),
            linewidth=1.2,
        )
        axes.plot(
            x[:, 0],
            np.exp(hmm.pdfs[hmm.pdf_of[s]].log_likelihood(x)),
            color=COMPONENTS[s],
            linewidth=2.2,
            label=f"state {s + 1}",
        )
    axes.set(xlim=RANGE_HMM, ylim=(0, 0.75), xlabel="$x$")


def draw_posteriors(axes, gamma):
    """The posteriors of the states over time, one upon the other."""
    frames = np.arange(1, len(gamma) + 1)
    bands = axes.stackplot(frames, gamma.T, colors=COMPONENTS[: gamma.shape[1]], alpha=0.85)
    for band in bands:
        band.set(edgecolor=PAPER, linewidth=0.6)
    axes.set(xlim=(0.5, len(gamma) + 0.5), ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelbottom=False)


@cli.program
def main(
    feats_archive: str,
    labels_archive: str,
    true_hmm: str,
    directory: str,
    picture_file: str,
    *,
    show: Annotated[str, "The models to show, with commas; 0 is the start."] = "0,1,3,8",
    utt: Annotated[str, "The sequence to show; default: the first of 30 to 45 observations."] = "",
) -> int:
    shown, folder, truth = iterations(show), Path(directory), read_hmm(true_hmm)
    key = choose_sequence(read_table("mat", feats_archive), utt)
    labels = read_table("ivec", labels_archive)[key]
    options = {"sharey": "row", "squeeze": False, "height_ratios": [1.5, 1.0, 0.22]}
    with picture(picture_file, 3, len(shown), size=(2.75 * len(shown) + 0.4, 4.7), **options) as (
        figure,
        axes,
    ):
        for column, step in enumerate(shown):
            top, middle, bottom = axes[:, column]
            draw_densities(top, read_hmm(str(folder / f"{step}.hmm")), truth)
            draw_posteriors(middle, read_table("mat", folder / f"{step}.post")[key])
            state_strip(bottom, labels)
            bottom.set(xlim=middle.get_xlim(), xlabel="$t$")
            top.set_title("start" if step == 0 else f"after iteration {step}")
        axes[0, 0].set_ylabel("$p(x|s)$")
        axes[1, 0].set_ylabel(r"$\gamma_s(t)$")
        axes[2, 0].set_ylabel("true", rotation=0, ha="right", va="center")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
