#!/usr/bin/env python3
"""Put the recipe's measurements together: a text to read, and a table with a line for each number.

<histogram-log> is what plot-fhvae histogram said, <others> the table of other_sequences.py.

Usage: summarise.py <step-times> <scaling> <histogram-log> <others> <text> <csv>
e.g.: summarise.py table2.tsv scaling.tsv figure1.log others.tsv results.txt results.csv
See also: egs/fhvae_scaling/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import math
import re

from published import STEP_MS
from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output
from voxark.report.rows import read_rows

ENDS = {"memory": "does not fit the memory limit", "time": "so many times the hierarchical step: ended"}


def step_lines(rows, values):
    """Lines on table 2; ``values`` gets (experiment, setting, name, value)."""
    yield "Table 2: an optimiser step against the entries K of the cache (over the smallest K)"
    yield f"{'K':>8} {'form':<8} {'ms':>9} {'over':>6}   published ms, over"
    for row in rows:
        size = int(row["K"])
        ms = STEP_MS.get(size)
        quoted = f"   {ms:4d} {ms / STEP_MS[10]:6.2f}" if ms else ""
        yield f"{size:8d} {row['form']:<8} {float(row['step_ms']):9.1f} {float(row['ratio']):6.2f}{quoted}"
        for name in ("step_ms", "ratio"):
            values.append(("table2", f"{row['form']} K={size}", name, row[name]))


def scaling_lines(rows, values):
    """Lines on memory and time against the number of sequences."""
    yield "Memory and time against the number M of training sequences (a small network; processor time)"
    yield f"{'M':>8} {'training':<21} {'start s':>8} {'first s':>8} {'step ms':>9} {'over':>6} {'MiB':>7}"
    for row in rows:
        kind = f"{row['sampling']}, {row['form']}"
        end = f"   {ENDS[row['end']]}" if row["end"] else ""
        if row["step_s"]:
            figures = [float(row[name]) for name in ("start_s", "first_s", "step_s", "ratio", "peak_mib")]
            figures[2] *= 1000
            numbers = "{:8.2f} {:8.2f} {:9.1f} {:6.2f} {:7.0f}".format(*figures)
        else:
            numbers = " " * 42
        yield f"{int(row['sequences']):8d} {kind:<21} {numbers}{end}".rstrip()
        for name in ("start_s", "first_s", "step_s", "ratio", "peak_mib", "end"):
            if row[name]:
                values.append(("scaling", f"{kind} M={row['sequences']}", name, row[name]))


def histogram_lines(text, values):
    """Lines on figure 1; VoxarkError where the log has no means."""
    means = re.findall(r"M = (\d+): mean (-?[\d.]+) over (\d+) segments", text)
    shifts = re.findall(r"from M = (\d+) to (\d+): mean shift per decade (-?[\d.]+)", text)
    if not means:
        raise VoxarkError("the log of plot-fhvae histogram has no means of log-sums")
    yield f"Figure 1: log of the sum of densities over M sequences, mean of {means[0][2]} segments"
    before = {there: (here, shift) for here, there, shift in shifts}
    for size, mean, _ in means:
        here, shift = before.get(size, ("", ""))
        tail = f"   {float(shift):+.3f} a decade from M = {here} (ln 10 = {math.log(10):.3f})" if shift else ""
        yield f"{int(size):8d} {float(mean):9.3f}{tail}"
        values.append(("figure1", f"M={size}", "mean", mean))
        if shift:
            values.append(("figure1", f"M={size}", "shift_per_decade", shift))


def other_lines(rows, values):
    """Lines on the same without the segment's own utterance."""
    yield "The same over sequences of other utterances alone"
    for row in rows:
        tail = f"   {float(row['shift_per_decade']):+.3f} a decade" if row["shift_per_decade"] else ""
        yield f"{int(row['M']):8d} {float(row['mean']):9.3f}{tail}"
        for name in ("mean", "shift_per_decade"):
            if row[name]:
                values.append(("figure1", f"others M={row['M']}", name, row[name]))


@cli.program
def main(step_times: str, scaling: str, histogram_log: str, others: str, text: str, csv: str) -> int:
    values, counts = [], cli.Counts("numbers")
    with open(histogram_log, encoding="utf-8") as log:
        said = log.read()
    parts = [
        list(step_lines(read_rows(step_times, ("form", "K", "step_ms", "ratio")), values)),
        list(scaling_lines(read_rows(scaling, ("sequences", "sampling", "form", "end")), values)),
        list(histogram_lines(said, values)),
        list(other_lines(read_rows(others, ("M", "mean", "shift_per_decade")), values)),
    ]
    with open_text_output(csv) as out:
        out.write("experiment,setting,name,value\n")
        out.write("".join(f'{experiment},"{setting}",{name},{value}\n' for experiment, setting, name, value in values))
    with open_text_output(text) as out:
        out.write("\n\n".join("\n".join(lines) for lines in parts) + "\n")
    counts.done(len(values))
    return counts.finish()


if __name__ == "__main__":
    main()
