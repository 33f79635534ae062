#!/usr/bin/env python3
"""Draw what weights of trials change: of a DPLDA with BLUE weights, of networks with BLUE and meta ones.

Usage: plot_trial_weights.py <weights-of-dplda> <systems> <table> <picture>
e.g.: plot_trial_weights.py exp/weights.tsv exp/systems.tsv 10_trial_weights.tsv 10_trial_weights.svg
See also: weights_of_dplda.py, evaluate.py, egs/e2e_tutorial/run.sh, train-e2e-verif --trial-weights
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from spread import Mean, by_seed, number_of
from system_plots import column
from voxark.report.drawing import BLUE, COMPONENTS, MUTED, picture
from voxark.report.rows import read_rows, write_rows

WEIGHTS = ("uniform", "blue", "meta")


def dplda_differences(rows):
    """{c: Mean of Cllr with BLUE weights of c less Cllr with uniform ones}, and {c: the differences (R,)}."""
    uniform = {row["repetition"]: number_of(row, "cllr") for row in rows if float(row["c"]) == 0.0}
    found = {}
    for row in rows:
        if float(row["c"]):
            found.setdefault(float(row["c"]), []).append(number_of(row, "cllr") - uniform[row["repetition"]])
    return {c: Mean.of(values) for c, values in found.items()}, found


@cli.program
def main(weights: str, systems: str, table: str, picture_file: str) -> int:
    means, differences = dplda_differences(read_rows(weights, ("repetition", "c", "cllr")))
    values = {
        name: by_seed(read_rows(systems), "cllr", experiment="weights", system=name) for name in WEIGHTS
    }
    summary = [
        {
            "system": "dplda",
            "weights": f"blue, c={c:g}",
            "cllr_minus_uniform": mean.value,
            "error": mean.error,
            "repetitions": len(differences[c]),
        }
        for c, mean in means.items()
    ]
    with picture(picture_file, 1, 2, size=(9.4, 4.2), width_ratios=[1.4, 1.0]) as (_, (left, right)):
        for c, of_c in differences.items():
            left.plot([c] * len(of_c), of_c, "o", color=BLUE, markersize=4, alpha=0.35)
        left.errorbar(
            list(means),
            [m.value for m in means.values()],
            [m.half_width for m in means.values()],
            color=BLUE,
            capsize=4,
        )
        left.axhline(0.0, color=MUTED, linestyle="--", linewidth=1.3)
        left.set(xlabel="correlation $c$ of the BLUE weights", ylabel="Cllr less that of uniform weights")
        left.set_title("DPLDA, new training speakers each time")
        right.axhline(0.0, color=MUTED, linestyle="--", linewidth=1.3)
        for place, (name, color) in enumerate(zip(WEIGHTS[1:], COMPONENTS[1:])):
            paired = {seed: value - values["uniform"][seed] for seed, value in values[name].items()}
            mean = column(right, place, paired, color)
            summary.append(
                {
                    "system": "network",
                    "weights": name,
                    "cllr_minus_uniform": mean.value,
                    "error": mean.error,
                    "repetitions": mean.number,
                }
            )
        right.set(xticks=range(2), xticklabels=["BLUE", "meta"], xlim=(-0.5, 1.5))
        right.set_title("networks, the same")
    write_rows(table, summary)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
