#!/usr/bin/env python3
"""Draw the lecture's data from models that are known: GMMs in one and two dimensions, an HMM, a PLDA model.

Writes text archives and models in Kaldi's formats below <dir>: gmm1d, gmm2d and hmm have feats (the
observations), labels (the latent variable of each: component or state, from 0) and true.*, the model that
they were drawn from; the GMMs have start.gmm, a model to start training from, and grid, points in a raster
to evaluate a density at. plda has vectors, spk2utt, true.plda, a grid, and trials of two enrolment vectors
against the grid and of all vectors against each other. The same seed gives the same bytes.

Usage: make_data.py [options] <dir>
e.g.: make_data.py --seed=0 egs/lecture/data
See also: egs/lecture/run.sh, train-gmm-em, train-hmm-em, train-plda
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np

from models import (
    GMM_1D,
    GMM_1D_START,
    GMM_2D,
    GMM_2D_START,
    HMM,
    HMM_START,
    PLDA,
    RANGE_1D,
    RANGE_HMM,
    RANGES_2D,
    RANGES_PLDA,
)
from reading import covariances
from voxark import tables
from voxark.gmm.full import FullGmm
from voxark.hmm.model import write_hmm
from voxark.io.streams import open_text_output
from voxark.random_numbers import seeded_rng

FRAMES = 50  # of an utterance of the GMM data
GRID_1D, GRID_2D, GRID_PLDA = 241, (81, 61), (73, 61)


def write_table(kind, path, table):
    """Write {key: value} as a text archive."""
    with tables.open_writer(kind, f"ark,t:{path}") as writer:
        for key, value in table.items():
            writer[key] = value


def write_mixture(out, name, truth, start, num, grid, seed):
    """Draw ``num`` observations of the mixture ``truth``: first the component, then the observation."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = seeded_rng(seed, "lecture", name)
    labels = rng.choice(truth.num_gauss, size=num, p=truth.weights)
    factors = np.linalg.cholesky(covariances(truth))
    x = np.stack([truth.means[c] + factors[c] @ rng.standard_normal(truth.dim) for c in labels])
    keys = [f"{name}-{first:04d}" for first in range(0, num, FRAMES)]
    parts = [slice(first, first + FRAMES) for first in range(0, num, FRAMES)]
    write_table("mat", folder / "feats", {k: x[p].astype(np.float32) for k, p in zip(keys, parts)})
    write_table("ivec", folder / "labels", {k: labels[p].astype(np.int32) for k, p in zip(keys, parts)})
    write_table("mat", folder / "grid", {"grid": grid.astype(np.float32)})
    for model, file in ((truth, "true.gmm"), (start, "start.gmm")):
        kind = "full-gmm" if isinstance(model, FullGmm) else "diag-gmm"
        tables.write_object(kind, str(folder / file), model.to_params(np.float64), binary=False)


def raster(ranges, shape):
    """Points (N,2) of a raster, rows by the second axis: what reshape(shape[::-1]) puts into a picture."""
    columns, rows = np.meshgrid(*(np.linspace(*r, n) for r, n in zip(ranges, shape)))
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


def sample_states(hmm, rng):
    """Draw the states (T,) of one sequence: it ends by the exit probability of the state that it is in."""
    states = [rng.choice(hmm.num_states, p=hmm.initial)]
    while rng.random() >= hmm.final[states[-1]]:
        row = hmm.transitions[states[-1]]
        states.append(rng.choice(hmm.num_states, p=row / row.sum()))
    return np.array(states, np.int32)


def write_chain(out, num_sequences, seed):
    """Draw sequences of the left-to-right HMM."""
    folder = out / "hmm"
    folder.mkdir(parents=True, exist_ok=True)
    means, variances = (
        np.array([getattr(pdf, name)[0, 0] for pdf in HMM.pdfs]) for name in ("means", "variances")
    )
    feats, labels = {}, {}
    for index in range(num_sequences):
        key = f"hmm-{index:03d}"
        rng = seeded_rng(seed, "lecture", key)
        states = labels[key] = sample_states(HMM, rng)
        x = means[states] + np.sqrt(variances[states]) * rng.standard_normal(len(states))
        feats[key] = x[:, None].astype(np.float32)
    write_table("mat", folder / "feats", feats)
    write_table("ivec", folder / "labels", labels)
    write_table("mat", folder / "grid", {"grid": np.linspace(*RANGE_HMM, GRID_1D, dtype=np.float32)[:, None]})
    for model, file in ((HMM, "true.hmm"), (HMM_START, "start.hmm")):
        write_hmm(str(folder / file), model, binary=False)


def write_speakers(out, num_speakers, seed):
    """Draw speakers' means, then their vectors; one to ten of each, so that the counts are unequal."""
    folder = out / "plda"
    folder.mkdir(parents=True, exist_ok=True)
    rng = seeded_rng(seed, "lecture", "plda")
    within, across = np.linalg.cholesky(PLDA.within), np.linalg.cholesky(PLDA.across)
    vectors, spk2utt, means = {}, {}, {}
    for index in range(num_speakers):
        speaker = f"s{index:03d}"
        means[speaker] = (PLDA.mean + across @ rng.standard_normal(2)).astype(np.float32)
        spk2utt[speaker] = [f"{speaker}-{i:02d}" for i in range(1 + index % 10)]
        for key in spk2utt[speaker]:
            vectors[key] = (means[speaker] + within @ rng.standard_normal(2)).astype(np.float32)
    write_table("vec", folder / "vectors", vectors)
    write_table("vec", folder / "means", means)
    write_table("tokens", folder / "spk2utt", spk2utt)
    tables.write_object("plda", str(folder / "true.plda"), PLDA.model().to_params(), binary=False)
    grid = raster(RANGES_PLDA, GRID_PLDA)
    write_table("vec", folder / "grid", {f"g{i:05d}": x for i, x in enumerate(grid.astype(np.float32))})
    write_table("vec", folder / "enroll", {f"e{i}": np.float32(x) for i, x in enumerate(PLDA.enrolled)})
    with open_text_output(str(folder / "trials_grid")) as trials:
        for model in range(len(PLDA.enrolled)):
            trials.write("".join(f"e{model} g{i:05d}\n" for i in range(len(grid))))
    with open_text_output(str(folder / "trials_all")) as trials:
        for a, b in combinations(vectors, 2):
            trials.write(f"{a} {b} {'target' if a.split('-')[0] == b.split('-')[0] else 'nontarget'}\n")


@cli.program
def main(
    directory: str,
    *,
    seed: Annotated[int, "Seed of every random choice."] = 0,
    num_frames: Annotated[int, "Number of observations of each GMM."] = 600,
    num_sequences: Annotated[int, "Number of sequences of the HMM."] = 40,
    num_speakers: Annotated[int, "Number of speakers of PLDA."] = 80,
) -> int:
    out = Path(directory)
    write_mixture(
        out, "gmm1d", GMM_1D, GMM_1D_START, num_frames, np.linspace(*RANGE_1D, GRID_1D)[:, None], seed
    )
    write_mixture(out, "gmm2d", GMM_2D, GMM_2D_START, num_frames, raster(RANGES_2D, GRID_2D), seed)
    write_chain(out, num_sequences, seed)
    write_speakers(out, num_speakers, seed)
    counts = cli.Counts("data sets")
    counts.done(4)
    return counts.finish()


if __name__ == "__main__":
    main()
