#!/usr/bin/env python3
"""Uniform against BLUE weights in the training of a discriminative PLDA, with unequal numbers of utterances.

Each repetition draws training speakers with few to many vectors, and trains with every choice of weights on
the same vectors; development loss is that of all pairs of the same, other vectors. What is compared are
differences within repetitions.

Usage: weights_of_dplda.py [options] <table>
e.g.: weights_of_dplda.py --num-repetitions=20 weights.tsv
See also: plot_trial_weights.py, egs/e2e_tutorial/run.sh, train-dplda --trial-weights=blue
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from measuring import TestTrials, pair_scores
from voxark.backend.class_stats import accumulate
from voxark.backend.dplda_form import start_from
from voxark.backend.dplda_train import DpldaTrainingOptions, train_dplda
from voxark.backend.plda_em import PldaTrainingOptions, train_plda
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng
from voxark.report.rows import write_rows
from voxark.trials.correlations import Correlations
from voxark.trials.dplda_inputs import blue_weights
from world import draw_counts, make_world

CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)  # 0: uniform
FRAMES = 60


def draw_vectors(world, counts, rng):
    """(x (N,2D), hidden means (N,D), labels (N,)): mean and deviation of what is seen of recordings."""
    labels = np.repeat(np.arange(len(counts)), counts)
    y = world.recordings(world.speakers(len(counts), rng)[labels], FRAMES, rng)
    x = world.seen(y)
    return np.concatenate((x.mean(axis=1), x.std(axis=1)), axis=1), y.mean(axis=1), labels


@cli.program
def main(
    table: str,
    *,
    num_speakers: Annotated[int, "Training speakers"] = 80,
    most_utts: Annotated[int, "They have 2 to so many vectors, few for most"] = 20,
    num_repetitions: Annotated[int, "Training sets"] = 20,
    regularize: Annotated[float, "Regularisation of the discriminative PLDA"] = 0.1,
    num_test_speakers: Annotated[int, "Test speakers, of four vectors each"] = 200,
    srand: Annotated[int, "Seed of all vectors"] = 0,
) -> int:
    if num_speakers < 20 or most_utts < 2 or num_repetitions < 1 or num_test_speakers < 5:
        raise VoxarkError("at least 20 speakers, 2 vectors, 1 repetition and 5 test speakers are expected")
    world, rows, progress = make_world(), [], cli.Counts("trainings")
    x, hidden, labels = draw_vectors(world, np.full(num_test_speakers, 4), seeded_rng(srand, "test"))
    trials = TestTrials.of(world.truth(FRAMES), hidden, labels)
    options = DpldaTrainingOptions(regularize=str(regularize), max_iters=60, tolerance=1e-5)
    for repetition in cli.progress(range(num_repetitions)):
        rng = seeded_rng(srand, "train", repetition)
        counts = draw_counts(num_speakers, 2, most_utts, rng)
        known, _, owner = draw_vectors(world, counts, rng)
        plda = train_plda(accumulate(known, owner), PldaTrainingOptions(num_em_iters=10, shrinkage=0.2))
        for c in CORRELATIONS:
            weights = blue_weights(counts, Correlations.of_chain(c)) if c else None
            begin = start_from(plda, "plda", known, False)
            dplda = train_dplda(known, owner, begin, options, weights=weights)
            scores = pair_scores(dplda, x)[trials.first, trials.second]
            rows.append({"repetition": repetition, "c": c, **trials.measures(scores)})
            progress.done()
    write_rows(table, rows)
    return progress.finish()


if __name__ == "__main__":
    main()
