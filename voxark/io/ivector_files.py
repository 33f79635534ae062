"""Kaldi's i-vector extractors and the statistics they are trained from.

The fields of each class are what stands in the file, in the precision read; text is read in double precision.
"""

from typing import NamedTuple

import numpy as np

from voxark.io.array_files import (
    empty_matrix, read_matrix, read_packed, read_stack, read_vector, write_fields, write_matrix, write_packed,
    write_stack)
from voxark.io.basic_types import expect_token, read_float, read_int, write_double, write_int, write_token
from voxark.packed import packed_dim


class IvectorExtractorParams(NamedTuple):
    """Fields of ``<IvectorExtractor>`` [K].

    w (C,R), or (0,0) without weights that depend on the i-vector; w_vec (C,) mixture weights; m (C,D,R)
    projections; sigma_inv (C,D(D+1)/2) packed inverse covariances; offset, the prior mean of the i-vector's
    first dimension.
    """

    w: np.ndarray
    w_vec: np.ndarray
    m: np.ndarray
    sigma_inv: np.ndarray
    offset: float


class IvectorStatsParams(NamedTuple):
    """Fields of ``<IvectorExtractorStats>``, one row a Gaussian [K].

    auxf; gamma (C,) counts; y (C,D,R) sums of x w'; r (C,R(R+1)/2) packed sums of n E[w w']; q (C,R(R+1)/2)
    and g (C,R), (0,0) without weights that depend on the i-vector; s (C,D(D+1)/2) packed sums of x x', (0,0)
    without variances; then over the i-vectors: their number, sum (R,) and packed scatter (R(R+1)/2,).
    """

    auxf: float
    gamma: np.ndarray
    y: np.ndarray
    r: np.ndarray
    q: np.ndarray
    g: np.ndarray
    s: np.ndarray
    num_ivectors: float
    ivector_sum: np.ndarray
    ivector_scatter: np.ndarray


def read_ivector_extractor(source, binary):
    """Read ``<IvectorExtractor>`` into :class:`IvectorExtractorParams`."""
    at = source.position
    expect_token(source, binary, "<IvectorExtractor>")
    expect_token(source, binary, "<w>")
    w = read_matrix(source, binary, np.float64)
    expect_token(source, binary, "<w_vec>")
    w_vec = read_vector(source, binary, np.float64)
    expect_token(source, binary, "<M>")
    m = read_stack(source, binary, read_matrix, number := read_int(source, binary), np.float64)
    expect_token(source, binary, "<SigmaInv>")
    sigma_inv = read_stack(source, binary, read_packed, number, np.float64)
    expect_token(source, binary, "<IvectorOffset>")
    offset = read_float(source, binary)
    expect_token(source, binary, "</IvectorExtractor>")
    dim = packed_dim(sigma_inv.shape[1])
    # With weights that depend on the i-vector Kaldi writes an empty w_vec.
    if (m.shape[1] != dim or w.shape not in ((0, 0), (number, m.shape[2]))
            or len(w_vec) not in ((0, number) if w.size else (number,))):
        raise source.error(f"corrupt: weights {w.shape} and {len(w_vec)}, projections {m.shape}, "
                           f"covariances of dimension {dim}", at)
    return IvectorExtractorParams(w, w_vec, m, sigma_inv, offset)


def write_ivector_extractor(out, extractor, binary):
    """Write ``<IvectorExtractor>`` from :class:`IvectorExtractorParams`."""
    write_token(out, "<IvectorExtractor>", binary)
    write_fields(out, binary, ("<w>", extractor.w), ("<w_vec>", extractor.w_vec))
    write_token(out, "<M>", binary)
    write_int(out, len(extractor.m), binary)
    write_stack(out, extractor.m, write_matrix, binary)
    write_token(out, "<SigmaInv>", binary)
    write_stack(out, extractor.sigma_inv, write_packed, binary)
    write_token(out, "<IvectorOffset>", binary)
    write_double(out, extractor.offset, binary)
    write_token(out, "</IvectorExtractor>", binary)


def read_ivector_stats(source, binary):
    """Read ``<IvectorExtractorStats>`` into :class:`IvectorStatsParams`."""
    at = source.position
    expect_token(source, binary, "<IvectorExtractorStats>")
    expect_token(source, binary, "<TotAuxf>")
    auxf = read_float(source, binary)
    expect_token(source, binary, "<gamma>")
    gamma = read_vector(source, binary, np.float64)
    expect_token(source, binary, "<Y>")
    y = read_stack(source, binary, read_matrix, read_int(source, binary), np.float64)
    matrices = []
    for token in ("<R>", "<Q>", "<G>"):
        expect_token(source, binary, token)
        matrices.append(read_matrix(source, binary, np.float64))
    expect_token(source, binary, "<S>")
    number = read_int(source, binary)
    s = read_stack(source, binary, read_packed, number, np.float64) if number else empty_matrix(np.float64)
    expect_token(source, binary, "<NumIvectors>")
    num_ivectors = read_float(source, binary)
    expect_token(source, binary, "<IvectorSum>")
    ivector_sum = read_vector(source, binary, np.float64)
    expect_token(source, binary, "<IvectorScatter>")
    scatter = read_packed(source, binary, np.float64)
    expect_token(source, binary, "</IvectorExtractorStats>")
    stats = IvectorStatsParams(auxf, gamma, y, *matrices, s, num_ivectors, ivector_sum, scatter)
    _check_ivector_stats(source, stats, at)
    return stats


def _check_ivector_stats(source, stats, at):
    number, dim, rank = stats.y.shape
    packed = rank * (rank + 1) // 2
    shapes = {"gamma": [(number,)], "r": [(number, packed)], "q": [(0, 0), (number, packed)],
              "g": [(0, 0), (number, rank)], "s": [(0, 0), (number, dim * (dim + 1) // 2)],
              "ivector_sum": [(rank,)], "ivector_scatter": [(packed,)]}
    for name, expected in shapes.items():
        if (shape := getattr(stats, name).shape) not in expected:
            raise source.error(f"corrupt: {name} has shape {shape}, {expected[-1]} was expected", at)


def write_ivector_stats(out, stats, binary):
    """Write ``<IvectorExtractorStats>`` from :class:`IvectorStatsParams`."""
    write_token(out, "<IvectorExtractorStats>", binary)
    write_token(out, "<TotAuxf>", binary)
    write_double(out, stats.auxf, binary)
    write_fields(out, binary, ("<gamma>", stats.gamma))
    write_token(out, "<Y>", binary)
    write_int(out, len(stats.y), binary)
    write_stack(out, stats.y, write_matrix, binary)
    write_fields(out, binary, ("<R>", stats.r), ("<Q>", stats.q), ("<G>", stats.g))
    write_token(out, "<S>", binary)
    write_int(out, len(stats.s), binary)
    write_stack(out, stats.s, write_packed, binary)
    write_token(out, "<NumIvectors>", binary)
    write_double(out, stats.num_ivectors, binary)
    write_fields(out, binary, ("<IvectorSum>", stats.ivector_sum))
    write_token(out, "<IvectorScatter>", binary)
    write_packed(out, stats.ivector_scatter, binary)
    write_token(out, "</IvectorExtractorStats>", binary)
