#!/usr/bin/env python3
"""Measure trained systems on all pairs of the test recordings, whose true log-likelihood ratios are known.

<systems> has a line `<experiment> <system> <number of speakers> <seed> <model-dir> <training data>` for each
system; <test-data> and the training data come from make_data.py. Each system scores with its own back-end;
its embeddings are also scored by a PLDA that is estimated on those of the training data, and t-normalised
with an utterance of each training speaker (<= 200). The last lines are the true log-likelihood ratios.

Usage: evaluate.py [options] <systems> <test-data> <table>
e.g.: evaluate.py exp/systems exp/data/test exp/systems.tsv
See also: egs/e2e_tutorial/run.sh, train-e2e-verif, score-trials, normalize-scores
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from measuring import TestTrials, pair_scores, read_labels
from voxark import tables
from voxark.backend.class_stats import accumulate
from voxark.backend.plda_em import PldaTrainingOptions, train_plda
from voxark.errors import VoxarkError
from voxark.io.streams import open_input
from voxark.nnet.needs import require_torch
from voxark.report.rows import write_rows

COLUMNS = ("experiment", "system", "speakers", "seed")
COHORT = 200
BLOCK = 200  # recordings that are embedded together


def read_systems(name):
    """[(experiment, system, speakers, seed, model folder, data folder)] of a list of systems."""
    with open_input(name) as source:
        lines = source.read_all().decode().splitlines()
    systems = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if len(fields) != 6 or not fields[2].isdigit():
            raise VoxarkError(
                f"{name}:{number}: expected <experiment> <system> <speakers> <seed> <model> <data>"
            )
        systems.append((fields[0], fields[1], int(fields[2]), *fields[3:]))
    if not systems:
        raise VoxarkError(f"{name}: there are no systems in it")
    return systems


def read_feats(folder, most_speakers=None):
    """(keys, labels (N,), x (N,T,F) float32) of a folder's recordings, of its first speakers."""
    feats = tables.read_table("mat", f"scp:{folder}/feats.scp")
    keys = sorted(feats)
    labels = read_labels(folder, keys)
    if most_speakers is not None:
        keys = [key for key, label in zip(keys, labels) if label < most_speakers]
        labels = labels[: len(keys)]
    return keys, labels, np.stack([feats[key] for key in keys]).astype(np.float32)


def embed(model, x):
    """Embeddings (N,d) float64 of recordings x (N,T,F)."""
    import torch

    with torch.no_grad():
        parts = [model(torch.from_numpy(x[at : at + BLOCK])).numpy() for at in range(0, len(x), BLOCK)]
    return np.concatenate(parts).astype(np.float64)


def t_normalised(scores, cohort, trials):
    """Scores (T,) of trials, less mean and over deviation of the test's scores (N,C) with a cohort."""
    mean, deviation = cohort.mean(axis=1), np.maximum(cohort.std(axis=1), 1e-6)
    return (scores - mean[trials.second]) / deviation[trials.second]


def measure(model, trials, test, training):
    """{name: number} of one model; ``test`` x (N,T,F), ``training`` (labels, x)."""
    labels, x = training
    e, known = embed(model, test), embed(model, x)
    scores = model.scorer.score_numpy(e)[trials.first, trials.second]
    row = trials.measures(scores)
    plda = train_plda(accumulate(known, labels), PldaTrainingOptions(num_em_iters=5, shrinkage=0.1))
    row["plda_eer"] = trials.eer(pair_scores(plda, e)[trials.first, trials.second])
    cohort = known[np.unique(labels, return_index=True)[1][:COHORT]]
    row["tnorm_eer"] = trials.eer(t_normalised(scores, model.scorer.score_numpy(e, cohort), trials))
    return row


@cli.program
def main(systems_file: str, test_dir: str, table: str) -> int:
    require_torch()
    from voxark.e2e.model import load_model

    counts, rows, training = cli.Counts("systems"), [], {}
    _, trials = TestTrials.read(test_dir)
    _, _, test = read_feats(test_dir)
    for *names, folder, data in cli.progress(read_systems(systems_file)):
        place = (data, names[2])
        if place not in training:
            training = {place: read_feats(data, names[2])[1:]}
        rows.append(
            {**dict(zip(COLUMNS, names)), **measure(load_model(folder), trials, test, training[place])}
        )
        counts.done()
    truth = trials.measures(trials.true)
    rows.append({**dict.fromkeys(COLUMNS, "true"), **truth, "plda_eer": None, "tnorm_eer": None})
    write_rows(table, rows)
    return counts.finish()


if __name__ == "__main__":
    main()
