#!/usr/bin/env python3
"""Draw how near trained log-likelihood ratios come to the true ones: calibration loss, slope, distance.

Usage: plot_calibration.py <calibration-of-plda> <systems> <table> <picture>
e.g.: plot_calibration.py exp/calibration.tsv exp/systems.tsv 12_calibration.tsv 12_calibration.svg
See also: calibration_of_plda.py, evaluate.py, egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from spread import Mean, number_of
from voxark.report.drawing import BLUE, GREEN, INK, ORANGE, picture
from voxark.report.rows import read_rows, write_rows

MEASURES = {
    "loss": "calibration loss, Cllr $-$ minCllr",
    "slope": "slope that calibration asks for",
    "offset": "offset that calibration asks for",
    "rms": "rms distance from the true LLR",
}
STYLES = {"PLDA": (ORANGE, "s"), "DPLDA": (BLUE, "o"), "network": (GREEN, "D")}


def value_of(row, measure):
    """A measure of a row; "loss" is Cllr - minCllr."""
    return (
        number_of(row, "cllr") - number_of(row, "min_cllr") if measure == "loss" else number_of(row, measure)
    )


def curves(plda, systems):
    """{system: {number of speakers: rows}}."""
    found = {name: {} for name in STYLES}
    for row in plda:
        if row["system"] in found:
            found[row["system"]].setdefault(int(row["speakers"]), []).append(row)
    for row in systems:
        if row["experiment"] == "calibration" or (row["experiment"], row["system"]) == (
            "schedule",
            "verification",
        ):
            found["network"].setdefault(int(row["speakers"]), []).append(row)
    return found


@cli.program
def main(calibration: str, systems: str, table: str, picture_file: str) -> int:
    plda, trained = read_rows(calibration), read_rows(systems)
    truth = {
        name: next(row for row in rows if row["system"] == "true")
        for name, rows in (("PLDA", plda), ("network", trained))
    }
    found, summary = curves(plda, trained), []
    with picture(picture_file, 1, 4, size=(12.4, 4.0)) as (figure, plots):
        for axes, (measure, title) in zip(plots, MEASURES.items()):
            for name, (color, marker) in STYLES.items():
                sizes = sorted(found[name])
                means = [Mean.of([value_of(row, measure) for row in found[name][n]]) for n in sizes]
                errors = [m.half_width for m in means]
                axes.errorbar(
                    sizes,
                    [m.value for m in means],
                    errors,
                    color=color,
                    fmt=marker + "-",
                    capsize=3,
                    markersize=5,
                    label=name,
                )
                summary += [
                    {
                        "system": name,
                        "speakers": n,
                        "measure": measure,
                        "mean": m.value,
                        "error": m.error,
                        "trainings": len(found[name][n]),
                    }
                    for n, m in zip(sizes, means)
                ]
            of_true = value_of(truth["PLDA"], measure)
            axes.axhline(of_true, color=INK, linestyle=":", linewidth=1.3, label="true LLRs")
            summary += [
                {
                    "system": f"true, beside {name}",
                    "speakers": None,
                    "measure": measure,
                    "mean": value_of(row, measure),
                    "error": None,
                    "trainings": None,
                }
                for name, row in truth.items()
            ]
            axes.set(xscale="log", xlabel="training speakers", xticks=sorted(found["PLDA"]))
            axes.set_xticklabels(sorted(found["PLDA"]))
            axes.minorticks_off()
            axes.set_title(title, fontsize=10)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    write_rows(table, summary)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
