#!/usr/bin/env python3
"""Draw the EER of both losses against the number of training speakers, with t-norm and without.

Usage: plot_tnorm.py <systems> <table> <picture>
e.g.: plot_tnorm.py exp/systems.tsv 11_tnorm.tsv 11_tnorm.svg
See also: evaluate.py, egs/e2e_tutorial/run.sh, normalize-scores --method=t
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from spread import Mean, by_seed, difference
from system_plots import mark_truth, true_value
from voxark.report.drawing import BLUE, GREEN, MUTED, ORANGE, picture
from voxark.report.rows import read_rows, write_rows

LOSSES = {"identification": (ORANGE, "s"), "verification": (BLUE, "o")}
NORMS = {"eer": ("-", "no normalisation"), "tnorm_eer": ("--", "t-norm")}


@cli.program
def main(systems: str, table: str, picture_file: str) -> int:
    rows, summary = read_rows(systems), []
    sizes = sorted({int(row["speakers"]) for row in rows if row["experiment"] == "speakers"})
    with picture(picture_file, 1, 2, size=(9.4, 4.3)) as (figure, (left, right)):
        for name, (line, how) in NORMS.items():
            gaps = []
            for loss, (color, marker) in LOSSES.items():
                of_size = [by_seed(rows, name, experiment="speakers", system=loss, speakers=n) for n in sizes]
                means = [Mean.of(list(values.values())) for values in of_size]
                errors = [100 * m.half_width for m in means]
                left.errorbar(
                    sizes,
                    [100 * m.value for m in means],
                    errors,
                    color=color,
                    fmt=marker + line,
                    capsize=3,
                    markersize=5,
                    label=f"{loss}, {how}",
                )
                summary += [
                    {
                        "speakers": n,
                        "loss": loss,
                        "scores": how,
                        "eer": m.value,
                        "error": m.error,
                        "seeds": len(values),
                    }
                    for n, m, values in zip(sizes, means, of_size)
                ]
                gaps.append(of_size)
            found = [difference(one, other) for one, other in zip(*gaps)]
            errors = [100 * m.half_width for m in found]
            right.errorbar(
                sizes,
                [100 * m.value for m in found],
                errors,
                color=GREEN,
                fmt="D" + line,
                capsize=3,
                markersize=5,
                label=how,
            )
            summary += [
                {
                    "speakers": n,
                    "loss": "identification - verification",
                    "scores": how,
                    "eer": m.value,
                    "error": m.error,
                    "seeds": len(values),
                }
                for n, m, values in zip(sizes, found, gaps[0])
            ]
        mark_truth(left, 100 * true_value(rows, "eer"))
        right.axhline(0.0, color=MUTED, linewidth=1.2)
        for axes in (left, right):
            axes.set(xscale="log", xlabel="training speakers", xticks=sizes, xticklabels=sizes)
            axes.minorticks_off()
        left.set_title("EER (%)")
        right.set_title("EER of identification less verification (%)")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        right.legend()
    write_rows(table, summary)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
