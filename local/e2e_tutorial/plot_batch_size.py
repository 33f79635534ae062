#!/usr/bin/env python3
"""Draw the development loss of DPLDA against the size of mini-batches A and B, and with all pairs.

<folder> holds the tables that train-dplda wrote with --report-file: lbfgs.tsv, and
<kind>.<speakers>.<seed>.tsv, where a batch of <kind> A has all vectors of so many speakers and one of B two
of each.

Usage: plot_batch_size.py [options] <folder> <table> <picture>
e.g.: plot_batch_size.py --utts=5 exp/dplda 07_batch_size.tsv 07_batch_size.svg
See also: egs/e2e_tutorial/run.sh, train-dplda
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

import numpy as np

from spread import Mean, half_width, number_of
from voxark.errors import VoxarkError
from voxark.report.drawing import BLUE, COMPONENTS, INK, ORANGE, picture
from voxark.report.rows import read_rows, write_rows


def read_runs(folder, utts):
    """{(kind, vectors of a batch): [(R,) development losses by epoch, a seed each]}."""
    runs = {}
    for path in sorted(Path(folder).glob("[AB].*.*.tsv")):
        kind, speakers, _, _ = path.name.split(".")
        losses = [number_of(row, "dev_loss") for row in read_rows(path)]
        runs.setdefault((kind, int(speakers) * (utts if kind == "A" else 2)), []).append(np.array(losses))
    if not runs:
        raise VoxarkError(f"{folder}: holds no tables of mini-batch runs")
    return dict(sorted(runs.items()))


def draw_curves(axes, runs, reference):
    """The first seed's development loss over the epochs of batches B."""
    chosen = [(size, seeds[0]) for (kind, size), seeds in runs.items() if kind == "B"]
    for (size, losses), color in zip(chosen, COMPONENTS):
        axes.plot(losses, color=color, label=f"{size} vectors")
    axes.axhline(reference, color=INK, linestyle="--", linewidth=1.4, label="all pairs, L-BFGS")
    top = max(np.median(losses) for _, losses in chosen)
    axes.set(xlabel="epochs of so many batches", ylim=(0.95 * reference, max(1.6 * reference, 1.05 * top)))
    axes.set_title("development loss, batches B")
    axes.legend()


def draw_sizes(axes, summary, reference):
    """The last development loss against the size of batches."""
    for kind, color, marker in (("A", ORANGE, "s"), ("B", BLUE, "o")):
        rows = [row for row in summary if row["batch"] == kind]
        errors = [half_width(row["error"], row["seeds"]) for row in rows]
        axes.errorbar(
            [row["vectors"] for row in rows],
            [row["last"] for row in rows],
            errors,
            color=color,
            fmt=marker + "-",
            capsize=3,
            markersize=5,
            label=f"batches {kind}",
        )
    axes.axhline(reference, color=INK, linestyle="--", linewidth=1.4, label="all pairs, L-BFGS")
    axes.set(xscale="log", xlabel="vectors of a batch")
    axes.set_title("development loss at the end")
    axes.legend()


@cli.program
def main(
    folder: str,
    table: str,
    picture_file: str,
    *,
    utts: Annotated[int, "Vectors of each speaker in the training data"] = 5,
) -> int:
    runs = read_runs(folder, utts)
    reference = number_of(read_rows(Path(folder) / "lbfgs.tsv")[-1], "dev_loss")
    summary, counts = [], cli.Counts("runs")
    for (kind, size), seeds in runs.items():
        last, best = (Mean.of([choose(losses) for losses in seeds]) for choose in (lambda x: x[-1], np.min))
        summary.append(
            {
                "batch": kind,
                "vectors": size,
                "last": last.value,
                "error": last.error,
                "best": best.value,
                "best_error": best.error,
                "lbfgs": reference,
                "seeds": len(seeds),
            }
        )
        counts.done(len(seeds))
    write_rows(table, summary)
    with picture(picture_file, 1, 2, size=(9.6, 4.2)) as (_, (left, right)):
        draw_curves(left, runs, reference)
        draw_sizes(right, summary, reference)
    return counts.finish()


if __name__ == "__main__":
    main()
