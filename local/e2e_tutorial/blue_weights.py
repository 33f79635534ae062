#!/usr/bin/env python3
"""Best linear unbiased weight of a target trial, and of all trials of a speaker, against his utterances.

Two trials of a speaker are correlated by c if they share an utterance and by c^2 if not. The closed form,
w(n) in proportion to 1 / r(n), is compared with S^-1 1 for the covariance written out trial by trial.

Usage: blue_weights.py [options] <table> <picture>
e.g.: blue_weights.py --max-utts=20 03_weights.tsv 03_weights.svg
See also: egs/e2e_tutorial/run.sh, compute-trial-weights
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from itertools import combinations
from typing import Annotated

import numpy as np

from voxark.errors import VoxarkError
from voxark.report.drawing import COMPONENTS, INK, MARKERS, MUTED, PAPER, picture
from voxark.report.rows import write_rows
from voxark.trials.blue import target_classes
from voxark.trials.correlations import TargetComponents

CORRELATIONS = (0.05, 0.1, 0.3, 0.5, 0.8)


def explicit_weight(n, c):
    """Weight of a trial of n utterances by S^-1 1, 1 for n = 2; S is told by what two trials share."""
    pairs = [set(pair) for pair in combinations(range(n), 2)]
    by_shared = (c * c, c, 1.0)
    covariance = np.array([[by_shared[len(a & b)] for b in pairs] for a in pairs])
    weights = np.linalg.solve(covariance, np.ones(len(pairs)))
    if np.ptp(weights) > 1e-8 * abs(weights[0]):
        raise VoxarkError(f"the weights of the trials of {n} utterances differ at c={c}")
    return float(weights.mean())


def weights_of(c, most):
    """Rows of the table for one c and 2 to ``most`` utterances; the weight of n = 2 is 1."""
    counts = np.arange(2, most + 1)
    found = target_classes(counts, TargetComponents.of_chain(c))
    relative = found.weight / found.weight[0]
    rows = []
    for n, trials, weight in zip(found.n, found.num_trials, relative):
        explicit = explicit_weight(int(n), c)
        if abs(explicit - weight) > 1e-9:
            raise VoxarkError(
                f"c={c}, n={n}: the closed form gives {weight:.12g}, S^-1 1 gives {explicit:.12g}"
            )
        rows.append(
            {
                "c": c,
                "n": int(n),
                "weight": float(weight),
                "total": float(trials * weight),
                "explicit": explicit,
            }
        )
    return rows


@cli.program
def main(
    table: str,
    picture_file: str,
    *,
    max_utts: Annotated[int, "Most utterances of a speaker"] = 20,
) -> int:
    if max_utts < 3:
        raise VoxarkError(f"--max-utts={max_utts}: at least 3 are expected")
    counts, rows = cli.Counts("correlations"), []
    with picture(picture_file, 1, 2, size=(9.4, 4.2)) as (figure, (left, right)):
        for c, color, marker in zip(CORRELATIONS, COMPONENTS, MARKERS):
            of_c = weights_of(c, max_utts)
            n = [row["n"] for row in of_c]
            style = {"color": color, "marker": marker, "markersize": 4.5, "markeredgecolor": PAPER}
            left.plot(n, [row["weight"] for row in of_c], label=f"$c$ = {c:g}", **style)
            right.plot(n, [row["total"] for row in of_c], **style)
            right.axhline(1.0 / c**2, xmin=0.97, color=color, linewidth=2.5)
            rows += of_c
            counts.done()
        n = np.arange(2, max_utts + 1)
        left.axhline(1.0, color=MUTED, linestyle="--", linewidth=1.4, label="uniform")
        right.plot(n, n * (n - 1) / 2, color=MUTED, linestyle="--", linewidth=1.4)
        left.set(ylim=(0, 1.06), xlabel="utterances of the speaker, $n$")
        left.set_title("weight of a trial, $w(n)/w(2)$")
        right.set(yscale="log", xlabel="utterances of the speaker, $n$")
        right.set_title("weight of all the speaker's trials, $N(n)\\,w(n)/w(2)$")
        for axes in (left, right):
            axes.set_xticks(range(2, max_utts + 1, 2 if max_utts > 8 else 1))
            axes.tick_params(color=INK)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    write_rows(table, rows)
    return counts.finish()


if __name__ == "__main__":
    main()
