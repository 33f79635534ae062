#!/usr/bin/env python3
"""Draw the mixture to be learned, in one or two dimensions: the data, p(x), and the components that it sums.

In one dimension p(x) is drawn as a sum of weighted Gaussians over a histogram of the data; in two as lines of
equal density and the components' ellipses over the data. p(x) at the points of the grid comes from score-gmm.

Usage: plot_mixture.py <gmm-rxfilename> <feats-archive> <grid-archive> <likes-archive> <picture>
e.g.: plot_mixture.py true.gmm feats grid likes 02_mixture.svg
See also: egs/lecture/run.sh, score-gmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from models import RANGE_1D, RANGES_2D
from reading import covariances, read_gmms, read_stacked
from voxark.report.drawing import COMPONENTS, INK, MUTED, SKY, density_plane, ellipse, number, picture


def draw_line(path, gmm, x, grid, likes):
    """The density in one dimension: weighted components, their sum, and the data below."""
    with picture(path, size=(9.0, 4.4)) as (_, axes):
        axes.hist(
            x[:, 0], bins=56, range=RANGE_1D, density=True, color=SKY, alpha=0.35, label="data, histogram"
        )
        parts = np.exp(gmm.component_log_likelihoods(grid))
        for c, part in enumerate(parts.T):
            axes.plot(
                grid[:, 0],
                part,
                color=COMPONENTS[c],
                zorder=3,
                label=rf"$\pi_{c + 1}\,\mathcal{{N}}(x;\mu_{c + 1},\sigma^2_{c + 1})$",
            )
        axes.plot(grid[:, 0], np.exp(likes), color=INK, linewidth=3.6, label="$p(x)$, their sum")
        low = -0.045 * axes.get_ylim()[1]
        axes.plot(x[:, 0], np.full(len(x), low), "|", color=MUTED, markersize=7, alpha=0.6, label="data")
        axes.set(xlim=RANGE_1D, ylim=(2 * low, None), xlabel="$x$", ylabel="density")
        axes.legend(loc="upper right")


def draw_plane(path, gmm, x, grid, likes):
    """The density in two dimensions: data and lines of equal density, then the components."""
    shape = (len(np.unique(grid[:, 1])), -1)
    with picture(path, 1, 2, size=(9.0, 4.3), sharey=True) as (_, (left, right)):
        left.plot(x[:, 0], x[:, 1], ".", color=MUTED, markersize=4, alpha=0.7)
        right.plot(x[:, 0], x[:, 1], ".", color=MUTED, markersize=3, alpha=0.35)
        columns, rows, density = (a.reshape(shape) for a in (grid[:, 0], grid[:, 1], np.exp(likes)))
        levels = density.max() * np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8])
        right.contour(columns, rows, density, levels, colors=MUTED, linewidths=0.8)
        for c, covariance in enumerate(covariances(gmm)):
            ellipse(right, gmm.means[c], covariance, COMPONENTS[c])
            number(right, gmm.means[c], str(c + 1), COMPONENTS[c])
        left.set_title("what training sees: the data")
        right.set_title("what is to be learned: components, $p(\\mathbf{x})$")
        for axes in (left, right):
            density_plane(axes, RANGES_2D)
        right.set_ylabel("")


@cli.program
def main(
    gmm_rxfilename: str, feats_archive: str, grid_archive: str, likes_archive: str, picture_file: str
) -> int:
    (gmm,) = read_gmms([gmm_rxfilename])
    x, grid, likes = (
        read_stacked(*each)
        for each in (("mat", feats_archive), ("mat", grid_archive), ("vec", likes_archive))
    )
    (draw_line if gmm.dim == 1 else draw_plane)(picture_file, gmm, x, grid, likes)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
