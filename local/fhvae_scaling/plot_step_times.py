#!/usr/bin/env python3
"""Draw the time of an optimiser step against the size K of the cache, over that with the smallest K.

Usage: plot_step_times.py <table> <picture>
e.g.: plot_step_times.py table2.tsv table2.svg
See also: step_times.py, egs/fhvae_scaling/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from published import STEP_MS
from voxark.report.drawing import BLUE, GREEN, MUTED, ORANGE, check_picture, picture
from voxark.report.rows import read_rows

STYLES = {"product": (BLUE, "o", "one matrix product"), "plain": (GREEN, "^", "the same, torch's gradients"),
          "naive": (ORANGE, "s", "all differences written out")}  # fmt: skip


@cli.program
def main(table: str, picture_file: str) -> int:
    check_picture(picture_file)
    rows, counts = read_rows(table, ("form", "K", "ratio")), cli.Counts("curves")
    with picture(picture_file, size=(6.6, 4.2)) as (_, axes):
        for form, (color, marker, label) in STYLES.items():
            curve = [(int(row["K"]), float(row["ratio"])) for row in rows if row["form"] == form]
            if curve:
                axes.plot(*zip(*curve), marker=marker, color=color, label=label)
                counts.done()
        quoted = [(size, ms / STEP_MS[10]) for size, ms in STEP_MS.items()]
        axes.plot(*zip(*quoted), marker="x", color=MUTED, linestyle="--", label="published, another machine")
        axes.set(xscale="log", yscale="log", xlabel="entries K of the cache", ylabel="over the smallest K",
                 title="Time of an optimiser step")  # fmt: skip
        ticks = [1, 1.5, 2, 3, 5, 8]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
        axes.legend()
    return counts.finish()


if __name__ == "__main__":
    main()
