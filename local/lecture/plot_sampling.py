#!/usr/bin/env python3
"""Draw a mixture as a generative model: first the component by its probability, then the observation from it.

The last row is what training sees: the observations, and no components.

Usage: plot_sampling.py <gmm-rxfilename> <feats-archive> <labels-archive> <picture>
e.g.: plot_sampling.py true.gmm feats labels 03_sampling.svg
See also: egs/lecture/run.sh, local/lecture/make_data.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from models import RANGE_1D
from reading import read_gmms, read_stacked
from voxark.report.drawing import COMPONENTS, INK, MARKERS, MUTED, PAPER, picture

SHOWN = 60  # observations


def draw_network(axes):
    """The Bayesian network: z, which nobody sees, and x, with as many copies as there are observations."""
    from matplotlib.patches import Circle, Rectangle

    axes.add_patch(Rectangle((-0.75, -0.62), 2.5, 1.24, fill=False, edgecolor=INK, linewidth=1.2))
    axes.text(1.68, -0.52, "$N$", ha="right", va="bottom")
    for centre, name, fill in ((0.0, "$z_n$", PAPER), (1.1, "$x_n$", "#b9c0ca")):
        axes.add_patch(Circle((centre, 0.0), 0.33, facecolor=fill, edgecolor=INK, linewidth=1.4))
        axes.text(centre, 0.0, name, ha="center", va="center", color=INK if fill == PAPER else "#101010")
    axes.annotate("", (0.76, 0.0), (0.34, 0.0), arrowprops={"arrowstyle": "-|>", "color": INK})
    axes.set(xlim=(-0.85, 1.85), ylim=(-0.8, 0.8), aspect="equal")
    axes.set_title("$p(x,z)=p(x|z)\\,P(z)$")
    axes.axis("off")


def draw_weights(axes, weights):
    """The categorical distribution of the component."""
    axes.bar(np.arange(len(weights)) + 1, weights, color=COMPONENTS[: len(weights)], width=0.6)
    for c, weight in enumerate(weights):
        axes.text(c + 1, weight, f"{weight:.2f}", ha="center", va="bottom")
    axes.set(
        xticks=np.arange(len(weights)) + 1, xlabel="component $c$", ylabel="$P(z=c)=\\pi_c$", ylim=(0, 0.56)
    )
    axes.set_title("1. draw the component")


def draw_observations(axes, gmm, x, labels):
    """The Gaussians, observations coloured by the component that they came from, and the same without."""
    grid = np.linspace(*RANGE_1D, 400)[:, None]
    densities = np.exp(gmm.component_log_likelihoods(grid) - np.log(gmm.weights))
    rows = -0.1 - 0.09 * np.arange(gmm.num_gauss + 1)
    for c in range(gmm.num_gauss):
        axes.plot(grid[:, 0], densities[:, c], color=COMPONENTS[c])
        mine = x[labels == c]
        axes.plot(mine, np.full(len(mine), rows[c]), MARKERS[c], color=COMPONENTS[c], markersize=5, alpha=0.8)
        axes.text(RANGE_1D[1], rows[c], f"$z={c + 1}$", va="center", ha="right", color=INK)
    axes.plot(x, np.full(len(x), rows[-1] - 0.03), "o", color=MUTED, markersize=5, alpha=0.7)
    axes.text(RANGE_1D[1], rows[-1] - 0.03, "seen", va="center", ha="right", color=INK)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set(xlim=RANGE_1D, ylim=(rows[-1] - 0.1, None), xlabel="$x$", ylabel="$p(x|z=c)$")
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= densities.max()])
    axes.set_title("2. draw the observation from its Gaussian")


@cli.program
def main(gmm_rxfilename: str, feats_archive: str, labels_archive: str, picture_file: str) -> int:
    (gmm,) = read_gmms([gmm_rxfilename])
    x, labels = read_stacked("mat", feats_archive)[:SHOWN, 0], read_stacked("ivec", labels_archive)[:SHOWN]
    with picture(picture_file, 1, 3, size=(9.0, 3.6), width_ratios=[0.85, 0.85, 2.0]) as (_, axes):
        draw_network(axes[0])
        draw_weights(axes[1], gmm.weights)
        draw_observations(axes[2], gmm, x, labels)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
