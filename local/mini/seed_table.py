#!/usr/bin/env python3
"""Print mean and standard deviation over seeds of the error rates of systems, or of gains, as a table.

<results> is a file of comma-separated values with the columns system, seed, list, and some of eer, min_dcf,
act_dcf, cllr and min_cllr; a line each system, seed and list of trials. EER in percent; the deviation (n - 1)
stands behind the mean where there are several seeds. For --gains the columns are system, seed, list, factor,
latent and gain, of latent variables z1 and z2; ratio is that of the means, larger over smaller.

Usage: seed_table.py [options] <results>
e.g.: seed_table.py exp/speechocean762_e2e/results.csv
See also: egs/mini/speechocean762_e2e.sh, compute-eer
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import csv
from typing import Annotated

import numpy as np

from voxark.errors import VoxarkError

FIGURES = {"eer": ("EER %", 100.0, 2), "min_dcf": ("minDCF", 1.0, 3), "act_dcf": ("actDCF", 1.0, 3),
           "cllr": ("Cllr", 1.0, 3), "min_cllr": ("minCllr", 1.0, 3)}


def read_results(name, keys, figures):
    """({values of keys: {figure: values}} in the order of the file, the figures that it has).

    VoxarkError names a column that is missing, and a line that does not fit.
    """
    found = {}
    with open(name, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or ()
        present = [figure for figure in figures if figure in columns]
        missing = {*keys, figures[0]} - set(columns)
        if missing:
            raise VoxarkError(f"{name}: there is no column {sorted(missing)[0]}")
        for number, row in enumerate(reader, 2):
            values = found.setdefault(tuple(row[key] for key in keys), {figure: [] for figure in present})
            for figure in present:
                try:
                    values[figure].append(float(row[figure]))
                except (TypeError, ValueError):
                    raise VoxarkError(f"{name}: line {number}: {figure} is no number: {row[figure]!r}") from None
    if not found:
        raise VoxarkError(f"{name}: there are no results")
    return found, present


def cell(values, factor, digits):
    """Mean, and deviation where there are several values, as text."""
    values = factor * np.array(values)
    text = f"{values.mean():.{digits}f}"
    return f"{text} ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else text


def rate_rows(name):
    """Rows of text: error rates of systems on lists of trials."""
    found, present = read_results(name, ("system", "list"), tuple(FIGURES))
    rows = [["system", "trials", "seeds", *(FIGURES[figure][0] for figure in present)]]
    for (system, trials), values in found.items():
        rows.append([system, trials, str(len(values["eer"])),
                     *(cell(values[figure], *FIGURES[figure][1:]) for figure in present)])
    return rows


def gain_rows(name):
    """Rows of text: gains of z1 and z2 for each factor, and their ratio."""
    found, _ = read_results(name, ("system", "list", "factor", "latent"), ("gain",))
    rows = [["system", "data", "factor", "seeds", "gain of z1", "gain of z2", "ratio"]]
    for system, data, factor in dict.fromkeys(key[:3] for key in found):
        gains = [found[system, data, factor, latent]["gain"] for latent in ("z1", "z2")]
        small, large = sorted(map(np.mean, gains))
        order = "z2/z1" if np.mean(gains[1]) >= np.mean(gains[0]) else "z1/z2"
        rows.append([system, data, factor, str(len(gains[0])), *(cell(values, 1.0, 3) for values in gains),
                     f"{order} {large / small:.2f}" if small > 0 else "-"])
    return rows


@cli.program
def main(results: str, *, gains: Annotated[bool, "The results are gains of probes, in place of error rates"] = False
         ) -> int:
    rows = gain_rows(results) if gains else rate_rows(results)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    return 0


if __name__ == "__main__":
    main()
