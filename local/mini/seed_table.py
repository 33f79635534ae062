#!/usr/bin/env python3
"""Print mean and standard deviation over seeds of the error rates of systems, as a table.

<results> is a file of comma-separated values with the columns system, seed, list, eer, min_dcf, act_dcf, cllr
and min_cllr; a line each system, seed and list of trials. EER in percent; the deviation (n - 1) stands behind
the mean where there are several seeds.

Usage: seed_table.py [options] <results>
e.g.: seed_table.py exp/speechocean762_e2e/results.csv
See also: egs/mini/speechocean762_e2e.sh, compute-eer
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import csv

import numpy as np

from voxark.errors import VoxarkError

FIGURES = {"eer": ("EER %", 100.0, 2), "min_dcf": ("minDCF", 1.0, 3), "act_dcf": ("actDCF", 1.0, 3),
           "cllr": ("Cllr", 1.0, 3), "min_cllr": ("minCllr", 1.0, 3)}


def read_results(name):
    """{(system, list): {figure: values}} in the order of the file; VoxarkError names a line that does not fit."""
    found = {}
    with open(name, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = {"system", "list", *FIGURES} - set(reader.fieldnames or ())
        if missing:
            raise VoxarkError(f"{name}: there is no column {sorted(missing)[0]}")
        for number, row in enumerate(reader, 2):
            values = found.setdefault((row["system"], row["list"]), {figure: [] for figure in FIGURES})
            for figure in FIGURES:
                try:
                    values[figure].append(float(row[figure]))
                except (TypeError, ValueError):
                    raise VoxarkError(f"{name}: line {number}: {figure} is no number: {row[figure]!r}") from None
    if not found:
        raise VoxarkError(f"{name}: there are no results")
    return found


def cell(values, factor, digits):
    """Mean, and deviation where there are several values, as text."""
    values = factor * np.array(values)
    text = f"{values.mean():.{digits}f}"
    return f"{text} ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else text


@cli.program
def main(results: str) -> int:
    rows = [["system", "trials", "seeds", *(title for title, _, _ in FIGURES.values())]]
    for (system, trials), values in read_results(results).items():
        rows.append([system, trials, str(len(values["eer"])),
                     *(cell(values[name], factor, digits) for name, (_, factor, digits) in FIGURES.items())])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    return 0


if __name__ == "__main__":
    main()
