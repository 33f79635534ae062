"""The file of PLDA statistics, in the style of Kaldi's models: what acc-plda-stats writes and est-plda reads.

``<PldaStats>``, the number of speakers and their keys, the number of vectors of each, the speakers' means and
the pooled scatter within speakers. Binary and text both keep every digit.
"""

from typing import NamedTuple

import numpy as np

from voxark.io.array_files import (
    read_int_vector,
    read_matrix,
    read_packed,
    write_int_vector,
    write_matrix,
    write_packed,
)
from voxark.io.basic_types import expect_token, read_int, read_token, write_int, write_token
from voxark.packed import packed_dim


class PldaStatsParams(NamedTuple):
    """speakers: list of S keys; counts (S,) int32; means (S,D) and packed scatter (D(D+1)/2,) float64."""

    speakers: list
    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray


def read_plda_stats(source, binary):
    """Read ``<PldaStats>`` into :class:`PldaStatsParams`."""
    at = source.position
    expect_token(source, binary, "<PldaStats>")
    expect_token(source, binary, "<Speakers>")
    number = read_int(source, binary)
    if number < 0:
        raise source.error(f"corrupt: {number} speakers")
    speakers = [read_token(source, binary) for _ in range(number)]
    expect_token(source, binary, "<Counts>")
    counts = read_int_vector(source, binary)
    expect_token(source, binary, "<Means>")
    means = read_matrix(source, binary, np.float64)
    expect_token(source, binary, "<Scatter>")
    scatter = read_packed(source, binary, np.float64)
    expect_token(source, binary, "</PldaStats>")
    if not len(speakers) == len(counts) == len(means) or packed_dim(len(scatter)) != means.shape[1]:
        raise source.error(
            f"corrupt: {len(speakers)} speakers, {len(counts)} counts, means {means.shape}, "
            f"scatter of {len(scatter)} numbers",
            at,
        )
    if len(set(speakers)) < len(speakers) or (counts < 1).any():
        raise source.error("corrupt: a speaker stands twice or has no vector", at)
    return PldaStatsParams(speakers, counts, means.astype(np.float64), scatter.astype(np.float64))


def write_plda_stats(out, stats, binary):
    """Write ``<PldaStats>`` from :class:`PldaStatsParams`."""
    write_token(out, "<PldaStats>", binary)
    write_token(out, "<Speakers>", binary)
    write_int(out, len(stats.speakers), binary)
    for speaker in stats.speakers:
        out.write(speaker.encode("utf-8", "surrogateescape") + b" ")
    out.write(b"" if binary else b"\n")
    write_token(out, "<Counts>", binary)
    write_int_vector(out, stats.counts, binary)
    write_token(out, "<Means>", binary)
    if binary:
        write_matrix(out, stats.means, True)
    else:
        out.write(b" [" + b"".join(b"\n  " + _digits(row) for row in stats.means.tolist()) + b"]\n")
    write_token(out, "<Scatter>", binary)
    if binary:
        write_packed(out, stats.scatter, True)
    else:
        numbers, ends = (
            stats.scatter.tolist(),
            [row * (row + 1) // 2 for row in range(stats.means.shape[1] + 1)],
        )
        out.write(b"[\n" + b"\n".join(_digits(numbers[a:b]) for a, b in zip(ends, ends[1:])) + b"]\n")
    write_token(out, "</PldaStats>", binary)
    out.write(b"" if binary else b"\n")


def _digits(values):
    """All digits: sums of sums are made of these, where Kaldi's seven would cost most of them."""
    return b"%.17g " * len(values) % tuple(values)
