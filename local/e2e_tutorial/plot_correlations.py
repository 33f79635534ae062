#!/usr/bin/env python3
"""Draw how trials are correlated by what they share, as estimate-trial-correlations measured it.

<list> has a line `<name of the system> <score or loss> <file of correlations>` for each file.

Usage: plot_correlations.py <list> <table> <picture>
e.g.: plot_correlations.py exp/correlations/list 06_correlations.tsv 06_correlations.svg
See also: estimate-trial-correlations, egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import json

from voxark.errors import VoxarkError
from voxark.io.streams import open_input
from voxark.report.drawing import COMPONENTS, MUTED, picture
from voxark.report.rows import write_rows

KINDS = {
    "c1": ("target", "speaker,\nutterance"), "c2": ("target", "speaker"),
    "c_us": ("nontarget", "both sp.,\nutterance"), "c_ss": ("nontarget", "both\nspeakers"),
    "c_u": ("nontarget", "speaker,\nutterance"), "c_s": ("nontarget", "speaker"),
}  # fmt: skip


def read_list(name):
    """[(system, "score" or "loss", content of the file)]."""
    with open_input(name) as source:
        lines = [line.split() for line in source.read_all().decode().splitlines()]
    found = []
    for number, fields in enumerate(lines, 1):
        if len(fields) != 3 or fields[1] not in ("score", "loss"):
            raise VoxarkError(f"{name}:{number}: expected <system> score|loss <file>")
        with open_input(fields[2]) as source:
            found.append((fields[0], fields[1], json.loads(source.read_all())))
    if not found:
        raise VoxarkError(f"{name}: the list is empty")
    return found


def draw(axes, measured, names, title):
    """Bars of all kinds, with two standard errors, for each system."""
    width = 0.8 / len(names)
    for place, (name, color) in enumerate(zip(names, COMPONENTS)):
        at = [k + (place - (len(names) - 1) / 2) * width for k in range(len(KINDS))]
        rows = [measured[name][kind] for kind in KINDS]
        axes.bar(at, [value for value, _ in rows], width * 0.92, color=color, label=name)
        axes.errorbar(
            at,
            [value for value, _ in rows],
            [2 * (error or 0.0) for _, error in rows],
            fmt="none",
            ecolor=MUTED,
            capsize=2,
            elinewidth=1.2,
        )
    axes.axvline(1.5, color=MUTED, linewidth=1.0, linestyle=":")
    axes.set(xticks=range(len(KINDS)), ylim=(0, None))
    for at, kind in ((0.5, "targets"), (3.5, "nontargets")):
        axes.text(at, 0.985, kind, transform=axes.get_xaxis_transform(), ha="center", va="top", color=MUTED)
    axes.set_xticklabels([label for _, label in KINDS.values()], fontsize=8.5)
    axes.set_title(title)


@cli.program
def main(list_file: str, table: str, picture_file: str) -> int:
    measured, rows = {"score": {}, "loss": {}}, []
    for name, on, content in read_list(list_file):
        of_name = measured[on].setdefault(name, {})
        for kind, (which, _) in KINDS.items():
            found = content[which]
            error = (found.get("errors") or {}).get(kind)
            of_name[kind] = found["correlations"][kind], error
            rows.append(
                {
                    "system": name,
                    "on": on,
                    "class": which,
                    "kind": kind,
                    "correlation": of_name[kind][0],
                    "error": error,
                    "pairs": found["counts"][kind],
                }
            )
    write_rows(table, rows)
    with picture(picture_file, 1, 2, size=(11.0, 4.3), sharey=True) as (figure, plots):
        for axes, (on, of_names) in zip(plots, measured.items()):
            draw(axes, of_names, list(of_names), {"score": "scores", "loss": "losses"}[on])
            axes.set_ylim(0, 1)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    counts = cli.Counts("systems")
    counts.done(len(measured["score"]))
    return counts.finish()


if __name__ == "__main__":
    main()
