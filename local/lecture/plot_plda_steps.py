#!/usr/bin/env python3
"""Draw EM for PLDA step by step: the two covariances after some iterations, dashed those to be learned.

<dir> holds the models N.plda after N iterations.

Usage: plot_plda_steps.py [options] <true-plda> <means-archive> <dir> <picture>
e.g.: plot_plda_steps.py --show=0,1,2,10 true.plda means exp/plda 17_plda_em.svg
See also: egs/lecture/run.sh, train-plda, local/lecture/plot_plda.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

from models import RANGES_PLDA
from plot_plda import draw_models
from reading import iterations, read_plda, read_table
from voxark.report.drawing import density_plane, picture


@cli.program
def main(
    true_plda: str,
    means_archive: str,
    directory: str,
    picture_file: str,
    *,
    show: Annotated[str, "The models to show, with commas; 0 is the start."] = "0,1,2,10",
) -> int:
    shown, folder = iterations(show), Path(directory)
    truth, means = read_plda(true_plda), read_table("vec", means_archive)
    with picture(
        picture_file, 1, len(shown), size=(2.75 * len(shown) + 0.4, 3.4), sharey=True, squeeze=False
    ) as (figure, axes):
        for panel, step in zip(axes[0], shown):
            draw_models(panel, means, read_plda(folder / f"{step}.plda"), truth)
            density_plane(panel, RANGES_PLDA)
            panel.label_outer()
            panel.set_title("start" if step == 0 else f"after iteration {step}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
