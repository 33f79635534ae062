#!/usr/bin/env python3
"""The variance of the average loss with BLUE and with uniform weights: predicted, and of draws.

All trials of speakers with unequal numbers of utterances get losses that are sums of independent effects
of speakers, utterances and pairs, so that their correlations are known. Each repetition draws all effects
anew.

Usage: blue_variance.py [options] <table> <picture>
e.g.: blue_variance.py --num-repetitions=4000 04_variance.tsv 04_variance.svg
See also: egs/e2e_tutorial/run.sh, compute-trial-weights
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from simulated_losses import TrialsOfCounts
from spread import variance_with_error
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng
from voxark.report.drawing import BLUE, MUTED, ORANGE, picture
from voxark.report.rows import write_rows
from voxark.trials.blue import list_weights
from voxark.trials.correlations import NontargetComponents, TargetComponents
from world import draw_counts

CORRELATIONS = {"target": (0.05, 0.1, 0.3, 0.5, 0.8), "nontarget": (0.05, 0.1, 0.2, 0.35, 0.5)}
COMPONENTS_OF = {"target": TargetComponents, "nontarget": NontargetComponents}
BLOCK = 50  # repetitions at a time


def estimates(trials, components, weights, number, rng):
    """Weighted averages (W,number) of ``number`` draws of losses, by weights (W,T)."""
    parts = []
    for begin in range(0, number, BLOCK):
        parts.append(weights @ trials.draw(components, min(BLOCK, number - begin), rng).T)
    return np.concatenate(parts, axis=1)


def row_of(kind, c, counts, number, srand):
    """A row of the table."""
    trials, components = TrialsOfCounts.of(counts, kind == "target"), COMPONENTS_OF[kind].of_chain(c)
    best = list_weights(trials.sharing(), components)
    uniform = np.full_like(best.weight, 1.0 / len(best.weight))
    found = estimates(
        trials, components, np.stack((uniform, best.weight)), number, seeded_rng(srand, kind, c)
    )
    row = {"kind": kind, "c": c, "trials": len(best.weight), "repetitions": number}
    for name, values, predicted in zip(("uniform", "blue"), found, (best.uniform_variance, best.variance)):
        variance = variance_with_error(values)
        row |= {f"{name}_predicted": predicted, name: variance.value, f"{name}_error": variance.error}
    # both averages are of the same losses: the error of their ratio is that of what differs
    differences = found[1] ** 2 - row["blue"] / row["uniform"] * found[0] ** 2
    row["ratio"] = row["blue"] / row["uniform"]
    row["ratio_error"] = float(np.std(differences) / np.sqrt(number) / row["uniform"])
    return row


def draw(axes, rows, title):
    """Predicted curves, and dots with two standard errors."""
    c = [row["c"] for row in rows]
    for name, color, marker in (("uniform", ORANGE, "s"), ("blue", BLUE, "o")):
        axes.plot(c, [row[f"{name}_predicted"] for row in rows], color=color)
        axes.errorbar(
            c,
            [row[name] for row in rows],
            [2 * row[f"{name}_error"] for row in rows],
            color=color,
            fmt=marker,
            markersize=5,
            capsize=3,
            label="BLUE" if name == "blue" else name,
        )
    for row in rows:
        axes.annotate(
            f"{row['ratio']:.2f}",
            (row["c"], row["blue_predicted"]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=MUTED,
        )
    low = min(row["blue_predicted"] for row in rows)
    axes.set(yscale="log", xlabel="correlation $c$", ylim=(0.55 * low, None))
    axes.set_title(title)


@cli.program
def main(
    table: str,
    picture_file: str,
    *,
    num_speakers: Annotated[int, "Number of speakers"] = 20,
    most_utts: Annotated[int, "They have 2 to so many utterances, few for most"] = 20,
    num_repetitions: Annotated[int, "Draws of all losses"] = 4000,
    srand: Annotated[int, "Seed of numbers of utterances and losses"] = 0,
) -> int:
    if num_repetitions < 10 or num_speakers < 2 or most_utts < 2:
        raise VoxarkError("at least 10 repetitions, 2 speakers and 2 utterances are expected")
    counts = draw_counts(num_speakers, 2, most_utts, seeded_rng(srand, "counts"))
    progress, rows = cli.Counts("variances"), []
    for kind, correlations in CORRELATIONS.items():
        for c in cli.progress(correlations):
            rows.append(row_of(kind, c, counts, num_repetitions, srand))
            progress.done()
    write_rows(table, rows)
    with picture(picture_file, 1, 2, size=(9.4, 4.2)) as (_, plots):
        for axes, kind in zip(plots, CORRELATIONS):
            of_kind = [row for row in rows if row["kind"] == kind]
            draw(axes, of_kind, f"{of_kind[0]['trials']:,} {kind} trials of {num_speakers} speakers")
        plots[0].set_ylabel("variance of the average loss")
        plots[0].legend()
    return progress.finish()


if __name__ == "__main__":
    main()
