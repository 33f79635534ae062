#!/usr/bin/env python3
"""Draw EM's convergence beside Viterbi training's: ln p and the bound Q + H after each step.

The tables are those of --report-file. After an E-step EM's bound is ln p itself; Viterbi training's, of
one hard choice for each point, stays below it, so that ln p may fall while the bound rises. The dashed line
is ln p of the model that the data were drawn from.

Usage: plot_convergence.py <em-table> <viterbi-table> <true-likes-archive> <picture>
e.g.: plot_convergence.py em/report.tsv viterbi/report.tsv likes 09_convergence.svg
See also: egs/lecture/run.sh, train-gmm-em, score-gmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from reading import read_stacked, read_terms
from voxark.report.drawing import BLUE, MUTED, VERMILLION, picture


def steps(terms):
    """Return when (N,) each step was made, in iterations: an E-step half way, an M-step at the end."""
    return np.array([line.iteration - (0.5 if line.step == "E" else 0.0) for line in terms])


def draw(axes, terms, color, name):
    """ln p after the M-steps, and the bound after every step."""
    after = [line for line in terms if line.step == "M"]
    axes.plot(
        steps(after), [line.lnp for line in after], "o-", color=color, markersize=4, label=rf"{name}: $\ln p$"
    )
    axes.plot(
        steps(terms),
        [line.q + line.h for line in terms],
        ":",
        color=color,
        linewidth=1.8,
        label=rf"{name}: $\mathcal{{L}}=Q+H$",
    )


@cli.program
def main(em_table: str, viterbi_table: str, true_likes_archive: str, picture_file: str) -> int:
    curves = {"EM": (read_terms(em_table), BLUE), "Viterbi": (read_terms(viterbi_table), VERMILLION)}
    truth = read_stacked("vec", true_likes_archive).mean()
    ends = [terms[-1].lnp for terms, _ in curves.values()] + [truth]
    bounds = [line.q + line.h for terms, _ in curves.values() for line in terms[-1:]]
    with picture(picture_file, 1, 2, size=(9.4, 4.2)) as (figure, (left, right)):
        for axes in (left, right):
            for name, (terms, color) in curves.items():
                draw(axes, terms, color, name)
            axes.axhline(
                truth, color=MUTED, linestyle=(0, (5, 3)), linewidth=1.4, label=r"true model: $\ln p$"
            )
            axes.set(xlabel="iteration (E-step at the half)")
            axes.xaxis.get_major_locator().set_params(integer=True)
        left.set(ylabel="nats per observation")
        left.set_title("all iterations")
        low, high = min(ends + bounds), max(ends)
        right.set(ylim=(low - 2.0 * (high - low), high + 0.5 * (high - low)), xlim=(2, None))
        right.set_title("the top, enlarged")
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.4
        )
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
