#!/usr/bin/env python3
"""Do the losses of mini-batches average to the objective over all trials? Batches A and B, weighted and not.

The losses of all trials of a training set with unequal numbers of utterances are drawn once, larger for
speakers with many utterances; the objective is their BLUE-weighted average. Batches A hold all utterances of
some speakers, batches B two of each. With weights over inclusion probabilities (Horvitz and Thompson) the
batches' sums average to the objective; plain averages within batches do not.

Usage: batch_estimates.py [options] <table> <picture>
e.g.: batch_estimates.py --num-batches=20000 05_batches.tsv 05_batches.svg
See also: egs/e2e_tutorial/run.sh, train-e2e-verif
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from simulated_losses import TrialsOfCounts
from spread import Mean
from voxark.e2e.batch_weights import SpeakerDraw, batch_weights
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng
from voxark.report.drawing import BLUE, COMPONENTS, INK, MUTED, ORANGE, picture
from voxark.report.rows import write_rows
from voxark.trials.blue import nontarget_classes, target_classes
from voxark.trials.correlations import Correlations
from world import draw_counts

CAP = {"A": 0, "B": 2}
CLASSES = ("target", "nontarget")


def draw_losses(counts, correlations, srand):
    """Losses (N,N) of all pairs of utterances, symmetric, and the speaker (N,) of each utterance."""
    losses = np.zeros((counts.sum(), counts.sum()))
    for kind in CLASSES:
        trials = TrialsOfCounts.of(counts, kind == "target")
        x = 1.0 + 0.3 * trials.draw(getattr(correlations, kind), 1, seeded_rng(srand, "losses", kind))[0]
        x += (
            0.05 * counts[trials.speaker[trials.first]]
        )  # who speaks more is harder to tell: so that weights matter
        losses[trials.first, trials.second] = losses[trials.second, trials.first] = x
    return losses, trials.speaker


def objectives(losses, speaker, counts, correlations):
    """{class: BLUE-weighted average of all trials}."""
    n = counts[speaker]
    same = speaker[:, None] == speaker
    targets, nontargets = (
        target_classes(counts, correlations.target),
        nontarget_classes(counts, correlations.nontarget),
    )
    place = np.searchsorted(targets.n, n)
    of_target = np.where(same, targets.weight[place][:, None], 0.0)
    place = np.searchsorted(nontargets.n, n)
    of_nontarget = np.where(same, 0.0, nontargets.weight[place[:, None], place])
    return {
        kind: float(np.sum(np.triu(losses * w, 1))) for kind, w in zip(CLASSES, (of_target, of_nontarget))
    }


def batch_values(kind_of_batch, losses, counts, correlations, num_speakers, number, rng):
    """{(class, "weighted" or "plain"): (number,) values of batches}."""
    drawing = SpeakerDraw.uniform(len(counts), num_speakers)
    cap = CAP[kind_of_batch]
    weights = batch_weights(counts, correlations, drawing, cap)
    firsts = np.cumsum(counts) - counts
    found = {(kind, how): np.empty(number) for kind in CLASSES for how in ("weighted", "plain")}
    for step in range(number):
        speakers = drawing.draw(rng)
        taken = [
            firsts[s] + (rng.choice(counts[s], cap, replace=False) if cap else np.arange(counts[s]))
            for s in speakers
        ]
        owner = np.repeat(speakers, [len(t) for t in taken])
        utterances = np.concatenate(taken)
        loss = losses[np.ix_(utterances, utterances)]
        same = np.triu(owner[:, None] == owner, 1)
        other = np.triu(owner[:, None] != owner, 1)
        weighted = weights.of_pairs(owner) * loss
        for kind, mask in zip(CLASSES, (same, other)):
            found[kind, "weighted"][step] = weighted[mask].sum()
            found[kind, "plain"][step] = loss[mask].mean()
    return found


def draw(axes, values, objective, kind):
    """Running means of the four ways with a band of two standard errors."""
    number = len(next(iter(values.values())))
    at = np.unique(np.geomspace(20, number, 80).astype(int))
    styles = {
        ("A", "weighted"): BLUE,
        ("B", "weighted"): COMPONENTS[2],
        ("A", "plain"): ORANGE,
        ("B", "plain"): COMPONENTS[1],
    }
    for (batch, how), color in styles.items():
        x = values[batch, how]
        mean = np.cumsum(x)[at - 1] / at
        error = np.sqrt(np.maximum(np.cumsum(x**2)[at - 1] / at - mean**2, 0) / at)
        label = f"{batch}, " + ("weights over inclusion" if how == "weighted" else "plain average")
        axes.plot(at, mean, color=color, label=label, linestyle="-" if how == "weighted" else "--")
        axes.fill_between(at, mean - 2 * error, mean + 2 * error, color=color, alpha=0.15, linewidth=0)
    axes.axhline(objective, color=INK, linewidth=1.2, linestyle=":", label="objective")
    axes.set(xscale="log", xlabel="batches", xlim=(20, number))
    axes.set_title(f"mean of {kind} losses")
    axes.tick_params(color=MUTED)


@cli.program
def main(
    table: str,
    picture_file: str,
    *,
    num_speakers: Annotated[int, "Number of speakers"] = 30,
    batch_speakers: Annotated[int, "Speakers of a batch"] = 6,
    num_batches: Annotated[int, "Batches of each kind"] = 20_000,
    c: Annotated[float, "Correlation of the chains (c, c^2) and (c, c^2, c^2, c^3)"] = 0.3,
    srand: Annotated[int, "Seed of losses and batches"] = 0,
) -> int:
    if num_batches < 100:
        raise VoxarkError(f"--num-batches={num_batches}: at least 100 are expected")
    correlations = Correlations.of_chain(c)
    counts = draw_counts(num_speakers, 2, 12, seeded_rng(srand, "counts"))
    losses, speaker = draw_losses(counts, correlations, srand)
    objective = objectives(losses, speaker, counts, correlations)
    values = {kind: {} for kind in CLASSES}
    for batch in CAP:
        rng = seeded_rng(srand, "batches", batch)
        found = batch_values(batch, losses, counts, correlations, batch_speakers, num_batches, rng)
        for (kind, how), x in found.items():
            values[kind][batch, how] = x
    rows, progress = [], cli.Counts("estimates")
    for kind in CLASSES:
        for (batch, how), x in values[kind].items():
            mean = Mean.of(x)
            rows.append(
                {
                    "class": kind,
                    "batch": batch,
                    "weights": how,
                    "objective": objective[kind],
                    "mean": mean.value,
                    "error": mean.error,
                    "deviations": (mean.value - objective[kind]) / mean.error,
                    "batches": num_batches,
                }
            )
            progress.done()
    write_rows(table, rows)
    with picture(picture_file, 1, 2, size=(9.4, 4.4)) as (figure, plots):
        for axes, kind in zip(plots, CLASSES):
            draw(axes, values[kind], objective[kind], kind)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return progress.finish()


if __name__ == "__main__":
    main()
