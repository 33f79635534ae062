#!/usr/bin/env python3
"""How near the scores of PLDA and discriminative PLDA come to true LLRs, by training speakers.

Vectors are drawn from a two-covariance model, so that the true ratios are known. For each number of speakers,
both back-ends are trained several times on new speakers and score all pairs of the same test vectors.

Usage: calibration_of_plda.py [options] <table>
e.g.: calibration_of_plda.py --speakers=25,100,400 calibration.tsv
See also: plot_calibration.py, egs/e2e_tutorial/run.sh, train-dplda, train-plda
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
from world import DIM, make_world

FRAMES = 100


def draw_vectors(number, utterances, rng):
    """(x (N,D), labels (N,)) of ``number`` speakers with some recordings each."""
    world, labels = make_world(), np.repeat(np.arange(number), utterances)
    within = np.linalg.cholesky(world.truth(FRAMES).covariances()[0])
    return world.speakers(number, rng)[labels] + rng.standard_normal((len(labels), DIM)) @ within.T, labels


def numbers_of(text):
    """The numbers of "25,100"."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 5:
        raise VoxarkError(f"--speakers={text}: numbers of at least 5, with commas, are expected")
    return numbers


@cli.program
def main(
    table: str,
    *,
    speakers: Annotated[str, "Numbers of training speakers"] = "25,50,100,200,400",
    utts: Annotated[int, "Vectors of a speaker"] = 5,
    num_repetitions: Annotated[int, "Trainings for each number of speakers"] = 10,
    regularize: Annotated[float, "Regularisation of the discriminative PLDA"] = 0.1,
    num_test_speakers: Annotated[int, "Test speakers, of four vectors each"] = 200,
    srand: Annotated[int, "Seed of all vectors"] = 0,
) -> int:
    if utts < 2 or num_repetitions < 1 or num_test_speakers < 5:
        raise VoxarkError("at least 2 vectors of a speaker, 1 repetition and 5 test speakers are expected")
    x, labels = draw_vectors(num_test_speakers, 4, seeded_rng(srand, "test"))
    trials = TestTrials.of(make_world().truth(FRAMES), x, labels)
    rows = [{"speakers": None, "repetition": 0, "system": "true", **trials.measures(trials.true)}]
    counts, numbers = cli.Counts("trainings"), numbers_of(speakers)
    for number, repetition in cli.progress([(n, r) for n in numbers for r in range(num_repetitions)]):
        known, owner = draw_vectors(number, utts, seeded_rng(srand, "train", number, repetition))
        plda = train_plda(accumulate(known, owner), PldaTrainingOptions(num_em_iters=20))
        options = DpldaTrainingOptions(regularize=str(regularize), max_iters=100, tolerance=1e-5)
        dplda = train_dplda(known, owner, start_from(plda, "plda", known, False), options)
        for system, model in (("PLDA", plda), ("DPLDA", dplda)):
            scores = pair_scores(model, x)[trials.first, trials.second]
            rows.append(
                {"speakers": number, "repetition": repetition, "system": system, **trials.measures(scores)}
            )
        counts.done()
    write_rows(table, rows)
    return counts.finish()


if __name__ == "__main__":
    main()
