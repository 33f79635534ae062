#!/usr/bin/env python3
"""Draw systems trained from scratch with one loss, with both, and with both on a schedule.

Usage: plot_schedule.py <systems> <table> <picture>
e.g.: plot_schedule.py exp/systems.tsv 09_schedule.tsv 09_schedule.svg
See also: evaluate.py, egs/e2e_tutorial/run.sh, train-e2e-verif --loss-schedule
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from spread import by_seed, difference
from system_plots import MEASURES, column, mark_truth, true_value
from voxark.report.drawing import COMPONENTS, picture
from voxark.report.rows import read_rows, write_rows

SYSTEMS = {
    "identification": "identification\nalone",
    "verification": "verification\nalone",
    "constant": "both,\nconstant",
    "linear": "both,\nscheduled",
}


@cli.program
def main(systems: str, table: str, picture_file: str) -> int:
    rows, summary = read_rows(systems), []
    with picture(picture_file, 1, 2, size=(9.4, 4.2)) as (figure, plots):
        for axes, (name, (label, scale)) in zip(plots, MEASURES.items()):
            values = {system: by_seed(rows, name, experiment="schedule", system=system) for system in SYSTEMS}
            for place, (system, color) in enumerate(zip(SYSTEMS, COMPONENTS)):
                mean = column(axes, place, values[system], color, scale)
                compared = difference(values[system], values["constant"])
                summary.append(
                    {
                        "measure": name,
                        "system": system,
                        "mean": mean.value,
                        "error": mean.error,
                        "minus_constant": compared.value,
                        "minus_constant_error": compared.error,
                        "seeds": len(values[system]),
                    }
                )
            mark_truth(axes, scale * true_value(rows, name))
            axes.set(xticks=range(len(SYSTEMS)), xticklabels=SYSTEMS.values(), xlim=(-0.5, 3.5))
            axes.set_title(label)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center")
    write_rows(table, summary)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
