#!/usr/bin/env python3
"""Draw what is gained by training jointly, and what by the verification loss: two by two, from one start.

The start is an extractor trained to identify. "Back-end only" keeps it: with a PLDA estimated on its
embeddings (identification), or with the back-end trained for verification. "Joint" goes on with the whole
network.

Usage: plot_two_by_two.py <systems> <table> <picture>
e.g.: plot_two_by_two.py exp/systems.tsv 08_two_by_two.tsv 08_two_by_two.svg
See also: evaluate.py, egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from spread import Mean, by_seed, difference
from system_plots import MEASURES, column, mark_truth, true_value
from voxark.report.drawing import BLUE, ORANGE, picture
from voxark.report.rows import read_rows, write_rows

SYSTEMS = {  # (what is trained, loss): system
    ("back-end only", "identification"): "start",
    ("joint", "identification"): "joint-identification",
    ("back-end only", "verification"): "backend-verification",
    ("joint", "verification"): "joint-verification",
}
COLORS = {"back-end only": ORANGE, "joint": BLUE}
LOSSES = ("identification", "verification")


def effects(values):
    """{what: Mean} of the differences within seeds, from {(trained, loss): {seed: number}}."""
    found = {}
    for loss in LOSSES:
        found[f"joint - back-end only, {loss}"] = difference(
            values["joint", loss], values["back-end only", loss]
        )
    for trained in COLORS:
        found[f"verification - identification, {trained}"] = difference(
            values[trained, "verification"], values[trained, "identification"]
        )
    return found


@cli.program
def main(systems: str, table: str, picture_file: str) -> int:
    rows, summary = read_rows(systems), []
    with picture(picture_file, 1, 2, size=(9.0, 4.2)) as (figure, plots):
        for axes, (name, (label, scale)) in zip(plots, MEASURES.items()):
            values = {cell: by_seed(rows, name, experiment="2x2", system=of) for cell, of in SYSTEMS.items()}
            for (trained, loss), of_seed in values.items():
                place = LOSSES.index(loss) + (0.17 if trained == "joint" else -0.17)
                column(
                    axes, place, of_seed, COLORS[trained], scale, label=trained if loss == LOSSES[0] else None
                )
                mean = Mean.of(list(of_seed.values()))
                summary.append(
                    {
                        "measure": name,
                        "what": f"{trained}, {loss}",
                        "mean": mean.value,
                        "error": mean.error,
                        "seeds": len(of_seed),
                    }
                )
            for what, mean in effects(values).items():
                summary.append(
                    {
                        "measure": name,
                        "what": what,
                        "mean": mean.value,
                        "error": mean.error,
                        "seeds": len(values["joint", LOSSES[0]]),
                    }
                )
            mark_truth(axes, scale * true_value(rows, name))
            axes.set(
                xticks=range(2),
                xticklabels=[f"{loss} loss" for loss in LOSSES],
                xlim=(-0.5, 1.5),
            )
            axes.set_title(label)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    write_rows(table, summary)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
