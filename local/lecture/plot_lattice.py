#!/usr/bin/env python3
"""Draw forward-backward over one sequence: alpha, beta and gamma over states and time, and the best path.

alpha and beta come from voxark.hmm.forward_backward (no program writes them), gamma from score-hmm's
--write-post, the path from align-hmm. A lattice shows ln alpha and ln beta less the greatest of each
frame; blank is impossible.

Usage: plot_lattice.py [options] <hmm-rxfilename> <feats-archive> <post-archive> <ali-archive> <picture>
e.g.: plot_lattice.py final.hmm feats post ali 12_lattice.svg
See also: egs/lecture/run.sh, score-hmm, align-hmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from reading import choose_sequence, read_table
from voxark.errors import VoxarkError
from voxark.hmm.emissions import Emissions
from voxark.hmm.forward_backward import LogTrellis
from voxark.hmm.model import read_hmm
from voxark.report.drawing import INK, PAPER, picture

DEPTH = 25.0  # nats below the likeliest state that a lattice shows


def trellis(hmm, x):
    """Return the LogTrellis of one sequence x (T,D)."""
    of_pdfs = Emissions(hmm.pdfs).log_likelihoods(np.asarray(x, np.float64))
    return LogTrellis(hmm, of_pdfs[:, hmm.pdf_of], np.array([len(x)]))


def draw_lattice(figure, axes, values, low, label, path):
    """States upwards, time to the right; the best path on top."""
    from matplotlib import colormaps

    num_frames, num_states = values.shape
    colors = colormaps["cividis"].with_extremes(bad=(0, 0, 0, 0))
    image = axes.imshow(
        np.ma.masked_invalid(values.T),
        origin="lower",
        aspect="auto",
        cmap=colors,
        vmin=low,
        vmax=values[np.isfinite(values)].max(),
        extent=(0.5, num_frames + 0.5, 0.5, num_states + 0.5),
        interpolation="nearest",
    )
    frames = np.arange(1, num_frames + 1)
    for color, width in ((INK, 3.6), (PAPER, 1.8)):
        axes.plot(frames, path + 1, color=color, linewidth=width, drawstyle="steps-mid")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=8)
    axes.set(yticks=range(1, num_states + 1), ylabel="state $s$")
    axes.set_title(label)


@cli.program
def main(
    hmm_rxfilename: str,
    feats_archive: str,
    post_archive: str,
    ali_archive: str,
    picture_file: str,
    *,
    utt: Annotated[str, "The sequence to show; default: the first of 30 to 45 observations."] = "",
) -> int:
    hmm, feats = read_hmm(hmm_rxfilename), read_table("mat", feats_archive)
    key = choose_sequence(feats, utt)
    gamma, path = read_table("mat", post_archive)[key], read_table("ivec", ali_archive)[key]
    found = trellis(hmm, feats[key])
    if np.abs(np.exp(found.log_gamma()) - gamma).max() > 1e-4:
        raise VoxarkError(f"{post_archive}: the posteriors of {key} are not those of {hmm_rxfilename}")
    alpha, beta = (
        np.maximum(a - a.max(axis=1, keepdims=True), np.where(np.isfinite(a), -DEPTH, -np.inf))
        for a in (found.log_alpha, found.log_beta)
    )
    with picture(picture_file, 3, 1, size=(9.4, 6.2), sharex=True) as (figure, axes):
        draw_lattice(
            figure, axes[0], alpha, -DEPTH, r"forward: $\ln\alpha(t,s)$, less the greatest at each $t$", path
        )
        draw_lattice(
            figure, axes[1], beta, -DEPTH, r"backward: $\ln\beta(t,s)$, less the greatest at each $t$", path
        )
        draw_lattice(
            figure,
            axes[2],
            gamma,
            0.0,
            r"both: $\gamma_s(t)=\alpha(t,s)\,\beta(t,s)\,/\,p(\mathbf{X})$",
            path,
        )
        axes[2].set(xlabel="$t$; line: the best path")
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
