#!/usr/bin/env python3
"""Draw time of a step, memory and time of the start against the number M of training sequences.

A cross marks where a kind of training ended: its step took too long, or (a cross at the top) it did not fit.

Usage: plot_scaling.py <table> <picture>
e.g.: plot_scaling.py scaling.tsv scaling.svg
See also: measure_scaling.py, egs/fhvae_scaling/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from voxark.report.drawing import BLUE, GREEN, ORANGE, check_picture, picture
from voxark.report.rows import read_rows

KINDS = {("hierarchical", "product"): (BLUE, "o", "hierarchical"),
         ("flat", "product"): (GREEN, "^", "flat, matrix product"),
         ("flat", "naive"): (ORANGE, "s", "flat, differences")}  # fmt: skip
PANELS = (("step_s", 1000.0, "a step", "ms"), ("peak_mib", 1.0, "memory", "MiB"), ("start_s", 1.0, "start", "s"))


def draw(axes, rows, name, scale):
    """One panel."""
    for kind, (color, marker, label) in KINDS.items():
        own = [row for row in rows if (row["sampling"], row["form"]) == kind]
        points = [(int(row["sequences"]), scale * float(row[name])) for row in own if row[name]]
        if points:
            axes.plot(*zip(*points), marker=marker, color=color, label=label)
        for row in own:
            if row["end"] == "memory":
                axes.plot(int(row["sequences"]), 0.97, "X", color=color, markersize=9,
                          transform=axes.get_xaxis_transform())  # fmt: skip
            elif row["end"] == "time" and name == "step_s":
                axes.plot(int(row["sequences"]), scale * float(row[name]), "X", color=color, markersize=11)


@cli.program
def main(table: str, picture_file: str) -> int:
    check_picture(picture_file)
    rows, counts = read_rows(table, ("sequences", "sampling", "form", "end")), cli.Counts("panels")
    with picture(picture_file, 1, 3, size=(11.4, 4.0)) as (figure, plots):
        for axes, (name, scale, title, unit) in zip(plots, PANELS):
            draw(axes, rows, name, scale)
            axes.set(xscale="log", yscale="log", xlabel="training sequences M", ylabel=unit, title=title)
            counts.done()
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return counts.finish()


if __name__ == "__main__":
    main()
