#!/usr/bin/env python3
"""Draw a left-to-right HMM: its states and transitions, its Gaussians, and one sequence with its states.

Solid: the model; dashed: the one that the data were drawn from. The sequence shows the best path of
align-hmm in colour and as a line of means, and the states it was drawn from as a strip below.

Usage: plot_hmm.py [options] <hmm-rxfilename> <true-hmm> <feats> <labels> <ali-archive> <picture>
e.g.: plot_hmm.py final.hmm true.hmm feats labels ali 11_hmm.svg
See also: egs/lecture/run.sh, train-hmm-em, align-hmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from models import RANGE_HMM
from reading import choose_sequence, read_table
from voxark.hmm.model import read_hmm
from voxark.report.drawing import COMPONENTS, INK, MARKERS, MUTED, picture, state_strip


def draw_states(axes, hmm, truth):
    """The states in a row, with the probabilities of staying and going on; those of ``truth`` in brackets."""
    from matplotlib.patches import Circle

    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}

    def label(value, true):
        return f"{value:.2f} ({true:.2f})"

    for s in range(hmm.num_states):
        axes.add_patch(Circle((2.0 * s, 0.0), 0.42, facecolor=COMPONENTS[s], edgecolor="none"))
        axes.text(2.0 * s, 0.0, str(s + 1), ha="center", va="center", color="white", fontweight="bold")
        loop = {**arrow, "connectionstyle": "arc3,rad=-1.7"}
        axes.annotate("", (2.0 * s + 0.24, 0.38), (2.0 * s - 0.24, 0.38), arrowprops=loop)
        axes.text(
            2.0 * s, 1.02, label(hmm.transitions[s, s], truth.transitions[s, s]), ha="center", fontsize=9.5
        )
        axes.annotate("", (2.0 * s + 1.54, 0.0), (2.0 * s + 0.46, 0.0), arrowprops=arrow)
        last = s + 1 == hmm.num_states
        going = (m.final[s] if last else m.transitions[s, s + 1] for m in (hmm, truth))
        axes.text(2.0 * s + 1.0, -0.32, label(*going), ha="center", fontsize=9.5)
    axes.annotate("", (-0.46, 0.0), (-1.3, 0.0), arrowprops=arrow)
    axes.set(xlim=(-1.4, 2.0 * hmm.num_states - 0.3), ylim=(-0.75, 1.35), aspect="equal")
    axes.axis("off")
    axes.set_title("states and transitions: learned (true)")


def draw_densities(axes, hmm, truth):
    """The Gaussians of the states over x, which runs upwards as in the picture of the sequence."""
    x = np.linspace(*RANGE_HMM, 300)[:, None]
    for s in range(hmm.num_states):
        axes.plot(np.exp(hmm.pdfs[hmm.pdf_of[s]].log_likelihood(x)), x[:, 0], color=COMPONENTS[s])
        axes.plot(
            np.exp(truth.pdfs[truth.pdf_of[s]].log_likelihood(x)),
            x[:, 0],
            color=COMPONENTS[s],
            linestyle=(0, (4, 3)),
            linewidth=1.2,
        )
    axes.set(ylim=RANGE_HMM, xlim=(0, None), xlabel="$p(x|s)$")
    axes.set_title("emissions")


def draw_sequence(axes, hmm, x, path):
    """The observations by the state of the best path, with that state's mean and two deviations."""
    frames = np.arange(1, len(x) + 1)
    for s in range(hmm.num_states):
        mine = path == s
        pdf = hmm.pdfs[hmm.pdf_of[s]]
        mean, width = pdf.means[0, 0], 2.0 * np.sqrt(pdf.variances[0, 0])
        axes.fill_between(
            frames,
            mean - width,
            mean + width,
            where=mine,
            step="mid",
            color=COMPONENTS[s],
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            frames[mine], x[mine], MARKERS[s], color=COMPONENTS[s], markersize=5, label=f"state {s + 1}"
        )
    axes.plot(frames, x, color=MUTED, linewidth=0.8, zorder=1)
    axes.set(ylim=RANGE_HMM, xlim=(0.5, len(x) + 0.5), ylabel="$x_t$")
    axes.set_title("one sequence, states of the best path")
    axes.legend(loc="upper left", ncols=4, columnspacing=1.0, handletextpad=0.2)
    axes.tick_params(labelbottom=False)


@cli.program
def main(
    hmm_rxfilename: str,
    true_hmm: str,
    feats_archive: str,
    labels_archive: str,
    ali_archive: str,
    picture_file: str,
    *,
    utt: Annotated[str, "The sequence to show; default: the first of 30 to 45 observations."] = "",
) -> int:
    hmm, truth = read_hmm(hmm_rxfilename), read_hmm(true_hmm)
    feats = read_table("mat", feats_archive)
    key = choose_sequence(feats, utt)
    with picture(picture_file, size=(9.4, 6.0)) as (figure, whole):
        whole.remove()
        grid = figure.add_gridspec(3, 2, height_ratios=[1.45, 2.6, 0.3], width_ratios=[3.2, 1.0])
        draw_states(figure.add_subplot(grid[0, :]), hmm, truth)
        sequence = figure.add_subplot(grid[1, 0])
        path = read_table("ivec", ali_archive)[key]
        draw_sequence(sequence, hmm, feats[key][:, 0], path)
        draw_densities(figure.add_subplot(grid[1, 1], sharey=sequence), hmm, truth)
        strip = figure.add_subplot(grid[2, 0], sharex=sequence)
        state_strip(strip, read_table("ivec", labels_archive)[key])
        strip.set(xlabel="$t$")
        strip.set_ylabel("true", rotation=0, ha="right", va="center")
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
