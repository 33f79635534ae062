#!/usr/bin/env python3
"""The mean log of the sum of N(zbar2; mu2_j, sigma^2 I) over M sequences of other utterances, M = 10, 100, ...

What plot-fhvae histogram draws has each segment's own sequence among the M, which outweighs all others while they are
few. Here no piece of the segment's own utterance is among them: keys are those of encode_pieces.py,
<utterance>-<number>. With more and more sequences the mean moves by ln 10 for each factor of ten.

Usage: other_sequences.py [options] <z2-rspecifier> <mu2-rspecifier> <table>
e.g.: other_sequences.py ark:z2.ark ark:mu2.ark others.tsv
See also: egs/fhvae_scaling/run.sh, encode_pieces.py, plot-fhvae
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng
from voxark.report.fhvae_histogram import HistogramOptions
from voxark.report.rows import write_rows

AT_ONCE = 50  # segments


def log_sums(z2, own, mu2, owners, sizes, variance):
    """ln sum of N(z2; mu2_j, variance I) over the first M of mu2 (J,D) whose owner is another: (sizes, N).

    z2 (N,D), own (N,) and owners (J,): numbers of utterances.
    """
    found = np.empty((len(sizes), len(z2)))
    constant = -0.5 * z2.shape[1] * np.log(2.0 * np.pi * variance)
    for first in range(0, len(z2), AT_ONCE):
        x, part = z2[first : first + AT_ONCE], slice(first, first + AT_ONCE)
        squares = (x**2).sum(1)[:, None] + (mu2**2).sum(1) - 2.0 * x @ mu2.T
        logs = constant - squares / (2.0 * variance)
        for row, values, utterance in zip(range(first, first + len(x)), logs, own[part], strict=True):
            others = values[owners != utterance]
            found[:, row] = [np.logaddexp.reduce(others[:size]) for size in sizes]
    return found


@cli.program
def main(
    z2_rspecifier: str,
    mu2_rspecifier: str,
    table: str,
    *,
    variance: Annotated[float, "Variance sigma^2 of the prior of z2 given mu2"] = 0.25,
    max_points: Annotated[int, "Segments, a random choice of all"] = 1000,
    srand: Annotated[int, "Seed of the choice, and of the order of the sequences"] = 0,
) -> int:
    rng, counts = seeded_rng(srand, "others"), cli.Counts("segments")
    if max_points < 1:
        raise VoxarkError("--max-points is at least 1")
    centres = tables.read_table("vec", mu2_rspecifier)
    with tables.open_reader("mat", z2_rspecifier) as reader:
        z2 = [(key, row) for key, value in reader for row in value]
    names = {name: number for number, name in enumerate(dict.fromkeys(key.rpartition("-")[0] for key in centres))}
    if len(names) < 2 or not z2:
        raise VoxarkError(f"{mu2_rspecifier}: pieces of two utterances at least are needed")
    keys = list(centres)
    order = rng.permutation(len(keys))
    mu2 = np.array([centres[keys[place]] for place in order], np.float64)
    owners = np.array([names[keys[place].rpartition("-")[0]] for place in order])
    chosen = rng.choice(len(z2), min(max_points, len(z2)), replace=False)
    own = np.array([names.get(z2[place][0].rpartition("-")[0], -1) for place in chosen])
    sizes = HistogramOptions().sizes(int(len(keys) - np.bincount(owners).max()))
    points = np.array([z2[place][1] for place in chosen], np.float64)
    means = log_sums(points, own, mu2, owners, sizes, variance).mean(1)
    shifts = [None, *(np.diff(means) / np.diff(np.log10(sizes))).tolist()]
    write_rows(table, [{"M": size, "mean": float(mean), "shift_per_decade": shift}
                       for size, mean, shift in zip(sizes, means, shifts, strict=True)])  # fmt: skip
    counts.done(len(chosen))
    return counts.finish()


if __name__ == "__main__":
    main()
