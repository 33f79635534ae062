"""Kaldi's GMMs, their accumulators and PLDA, and DPLDA in the same style.

The fields of each class are what stands in the file, in the precision read. Codecs are pairs of functions as
in :mod:`voxark.io.array_files`; they follow the Write functions of Kaldi's classes [K].
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.array_files import (
    empty_matrix, read_matrix, read_packed, read_stack, read_vector, write_fields, write_matrix, write_packed,
    write_stack, write_vector)
from voxark.io.basic_types import (
    expect_token, read_flags, read_float, read_int, skip_white, write_double, write_flags, write_int,
    write_token)
from voxark.packed import packed_dim

FLAG_MEANS, FLAG_VARIANCES, FLAG_WEIGHTS = 1, 2, 4  # of accumulators [K]


class DiagGmmParams(NamedTuple):
    """Fields of ``<DiagGMM>`` as they stand in the file: gconsts (C,) or None, weights (C,), (C,D) twice."""

    gconsts: np.ndarray | None
    weights: np.ndarray
    means_invvars: np.ndarray
    inv_vars: np.ndarray


class FullGmmParams(NamedTuple):
    """Fields of ``<FullGMM>``: gconsts (C,) or None, weights (C,), means_invcovars (C,D), and inv_covars
    (C,D(D+1)/2), the lower triangles of the inverse covariances row by row."""

    gconsts: np.ndarray | None
    weights: np.ndarray
    means_invcovars: np.ndarray
    inv_covars: np.ndarray


class GmmAccsParams(NamedTuple):
    """Fields of ``<GMMACCS>`` as they stand in the file [K].

    flags: FLAG_MEANS | FLAG_VARIANCES | FLAG_WEIGHTS; occupancy (C,) n_c; means (C,D) sums of gamma x or
    None. diag_vars (C,D) or None: sums of gamma x*x, un-centred. full_vars (C,D(D+1)/2) or None: packed sums
    of gamma (x - m)(x - m)' around each component's own mean m = means / n_c, because Kaldi takes n_c m m'
    out of them before it writes (nothing where n_c is 0). log_likelihood and num_frames stand behind
    ``</GMMACCS>``, where Kaldi's readers do not look (None in Kaldi's own files). dim is needed where there
    are no means; full is needed where a full file has no variances.
    """

    flags: int
    occupancy: np.ndarray
    means: np.ndarray | None
    diag_vars: np.ndarray | None = None
    full_vars: np.ndarray | None = None
    log_likelihood: float | None = None
    num_frames: float | None = None
    dim: int = 0
    full: bool = False


class PldaParams(NamedTuple):
    """Fields of ``<Plda>``: mean (D,), transform (D,D), psi (D,), float64."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray


class DpldaParams(NamedTuple):
    """Fields of ``<Dplda>`` (voxark.backend.dplda): packed Lambda and Gamma (D(D+1)/2,), offset (D,), float64."""

    lam: np.ndarray
    gamma: np.ndarray
    offset: np.ndarray
    constant: float


# ------------------------------------------------------------------------------------------------------- GMMs

_DIAG, _FULL = ("<DiagGMM>", "<DiagGMMBegin>"), ("<FullGMM>", "<FullGMMBegin>")  # the second is the old form


def read_diag_gmm(source, binary):
    """Read ``<DiagGMM>`` (or the old ``<DiagGMMBegin>``) into :class:`DiagGmmParams`."""
    return _read_gmm(source, binary, *_DIAG)


def read_full_gmm(source, binary):
    """Read ``<FullGMM>`` (or the old ``<FullGMMBegin>``) into :class:`FullGmmParams`."""
    return _read_gmm(source, binary, *_FULL)


def read_gmm(source, binary):
    """Read a GMM of either kind: :class:`DiagGmmParams` or :class:`FullGmmParams`."""
    return _read_gmm(source, binary, *_DIAG, *_FULL)


def _read_gmm(source, binary, *tokens):
    at = source.position
    opening = expect_token(source, binary, *tokens)
    gconsts = None
    if expect_token(source, binary, "<GCONSTS>", "<WEIGHTS>") == "<GCONSTS>":
        gconsts = read_vector(source, binary)
        expect_token(source, binary, "<WEIGHTS>")
    weights = read_vector(source, binary)
    if gconsts is not None and gconsts.shape != weights.shape:
        raise source.error(f"corrupt: {len(gconsts)} constants, {len(weights)} weights", at)
    read = _read_diag_arrays if opening in _DIAG else _read_full_arrays
    return read(source, binary, gconsts, weights, at)


def _read_diag_arrays(source, binary, gconsts, weights, at):
    expect_token(source, binary, "<MEANS_INVVARS>")
    means_invvars = read_matrix(source, binary)
    expect_token(source, binary, "<INV_VARS>")
    inv_vars = read_matrix(source, binary)
    expect_token(source, binary, "</DiagGMM>", "<DiagGMMEnd>")
    if means_invvars.shape != inv_vars.shape or len(weights) != len(inv_vars):
        shapes = f"means {means_invvars.shape}, variances {inv_vars.shape}"
        raise source.error(f"corrupt: {len(weights)} weights, {shapes}", at)
    return DiagGmmParams(gconsts, weights, means_invvars, inv_vars)


def _read_full_arrays(source, binary, gconsts, weights, at):
    expect_token(source, binary, "<MEANS_INVCOVARS>")
    means = read_matrix(source, binary)
    expect_token(source, binary, "<INV_COVARS>")
    inv_covars = read_stack(source, binary, read_packed, len(weights), np.float32)
    expect_token(source, binary, "</FullGMM>", "<FullGMMEnd>")
    dim = packed_dim(inv_covars.shape[1])
    if means.shape != (len(weights), dim):
        shapes = f"means {means.shape}, covariances of dimension {dim}"
        raise source.error(f"corrupt: {len(weights)} weights, {shapes}", at)
    return FullGmmParams(gconsts, weights, means, inv_covars)


def write_diag_gmm(out, gmm, binary):
    """Write ``<DiagGMM>`` from :class:`DiagGmmParams`."""
    _begin_gmm(out, "<DiagGMM>", gmm, binary)
    write_fields(out, binary, ("<MEANS_INVVARS>", gmm.means_invvars), ("<INV_VARS>", gmm.inv_vars))
    _end_gmm(out, "</DiagGMM>", binary)


def write_full_gmm(out, gmm, binary):
    """Write ``<FullGMM>`` from :class:`FullGmmParams`."""
    _begin_gmm(out, "<FullGMM>", gmm, binary)
    write_fields(out, binary, ("<MEANS_INVCOVARS>", gmm.means_invcovars))
    write_token(out, "<INV_COVARS>", binary)
    write_stack(out, gmm.inv_covars, write_packed, binary)
    _end_gmm(out, "</FullGMM>", binary)


def write_gmm(out, gmm, binary):
    """Write :class:`DiagGmmParams` or :class:`FullGmmParams`, each in its form."""
    (write_full_gmm if isinstance(gmm, FullGmmParams) else write_diag_gmm)(out, gmm, binary)


def _begin_gmm(out, token, gmm, binary):
    write_token(out, token, binary)
    if not binary:
        out.write(b"\n")
    gconsts = [] if gmm.gconsts is None else [("<GCONSTS>", gmm.gconsts)]
    write_fields(out, binary, *gconsts, ("<WEIGHTS>", gmm.weights))


def _end_gmm(out, token, binary):
    write_token(out, token, binary)
    if not binary:
        out.write(b"\n")


# ----------------------------------------------------------------------------------------------- accumulators

_END_OF_ACCS = "</GMMACCS>"
_TRAILER, _END_OF_TRAILER = "<VOXARK_TOTALS>", "</VOXARK_TOTALS>"


def read_gmm_accs(source, binary):
    """Read ``<GMMACCS>``, diagonal or full, into :class:`GmmAccsParams`."""
    at = source.position
    expect_token(source, binary, "<GMMACCS>")
    expect_token(source, binary, "<VECSIZE>")
    dim = read_int(source, binary)
    expect_token(source, binary, "<NUMCOMPONENTS>")
    number = read_int(source, binary)
    if dim <= 0 or number <= 0:
        raise source.error(f"corrupt: accumulators of {number} components of dimension {dim}", at)
    expect_token(source, binary, "<FLAGS>")
    flags = read_flags(source, binary)
    fields = _read_acc_fields(source, binary, number, dim, at)
    if "<OCCUPANCY>" not in fields:
        raise source.error("corrupt: accumulators without <OCCUPANCY>", at)
    occupancy, means, diag_vars, full_vars = (
        fields.get(token) for token in ("<OCCUPANCY>", "<MEANACCS>", "<DIAGVARACCS>", "<FULLVARACCS>"))
    full = full_vars is not None or "<DIAGVARACCS>" not in fields
    totals = _read_totals(source, binary)
    return GmmAccsParams(flags, occupancy, means, diag_vars, full_vars, *totals, dim, full)


def _read_acc_fields(source, binary, number, dim, at):
    """The arrays of accumulators by token, in any order [K]; None for an empty one."""
    expected = {"<OCCUPANCY>": (number,), "<MEANACCS>": (number, dim), "<DIAGVARACCS>": (number, dim),
                "<FULLVARACCS>": (number, dim * (dim + 1) // 2)}
    fields = {}
    while (token := expect_token(source, binary, *expected, _END_OF_ACCS)) != _END_OF_ACCS:
        if token in fields:
            raise source.error(f"corrupt: accumulators with two {token}", at)
        if token == "<FULLVARACCS>":
            array = read_stack(source, binary, read_packed, number, np.float64)
        else:
            array = (read_vector if token == "<OCCUPANCY>" else read_matrix)(source, binary, np.float64)
        empty = array.size == 0 and token != "<OCCUPANCY>"  # as Kaldi writes what the flags leave out
        if not empty and array.shape != expected[token]:
            shapes = f"{array.shape}, {expected[token]} was expected"
            raise source.error(f"corrupt: {token} has shape {shapes}", at)
        fields[token] = None if empty else array
    return fields


def _read_totals(source, binary):
    """The log-likelihood and the number of frames behind ``</GMMACCS>``, or None twice."""
    if not binary:
        skip_white(source)
    token = _TRAILER.encode() + b" "
    next_bytes = source.peek(1)
    if next_bytes == token[:1]:  # else a pipe would have to bring more than its next key at once
        next_bytes = source.peek(len(token))
    if next_bytes == token:
        source.read(len(token))
        totals = read_float(source, binary), read_float(source, binary)
        expect_token(source, binary, _END_OF_TRAILER)
        return totals
    if next_bytes and token.startswith(next_bytes):
        raise source.truncated(f"{_TRAILER} was expected")
    return None, None


def write_gmm_accs(out, accs, binary):
    """Write ``<GMMACCS>`` from :class:`GmmAccsParams`."""
    if accs.diag_vars is not None and accs.full_vars is not None:
        raise VoxarkError("accumulators have both diagonal and full variances")
    dim = accs.dim if accs.means is None else accs.means.shape[1]
    write_token(out, "<GMMACCS>", binary)
    write_token(out, "<VECSIZE>", binary)
    write_int(out, dim, binary)
    write_token(out, "<NUMCOMPONENTS>", binary)
    write_int(out, len(accs.occupancy), binary)
    write_token(out, "<FLAGS>", binary)
    write_flags(out, accs.flags, binary)
    means = empty_matrix(accs.occupancy.dtype) if accs.means is None else accs.means
    write_fields(out, binary, ("<OCCUPANCY>", accs.occupancy), ("<MEANACCS>", means))
    if accs.full_vars is not None:
        write_token(out, "<FULLVARACCS>", binary)
        write_stack(out, accs.full_vars, write_packed, binary)
    elif not accs.full:
        diag_vars = empty_matrix(accs.occupancy.dtype) if accs.diag_vars is None else accs.diag_vars
        write_fields(out, binary, ("<DIAGVARACCS>", diag_vars))
    write_token(out, _END_OF_ACCS, binary)
    if accs.log_likelihood is not None and accs.num_frames is not None:
        write_token(out, _TRAILER, binary)
        write_double(out, accs.log_likelihood, binary)
        write_double(out, accs.num_frames, binary)
        write_token(out, _END_OF_TRAILER, binary)


# ------------------------------------------------------------------------------------------------------- PLDA


def read_plda(source, binary):
    """Read ``<Plda>`` into :class:`PldaParams`."""
    at = source.position
    expect_token(source, binary, "<Plda>")
    mean = read_vector(source, binary, np.float64)
    transform = read_matrix(source, binary, np.float64)
    psi = read_vector(source, binary, np.float64)
    expect_token(source, binary, "</Plda>")
    if transform.shape != (len(mean), len(mean)) or len(psi) != len(mean):
        raise source.error(f"corrupt: mean {len(mean)}, transform {transform.shape}, psi {len(psi)}", at)
    return PldaParams(*(array.astype(np.float64) for array in (mean, transform, psi)))


def write_plda(out, plda, binary):
    """Write ``<Plda>`` from :class:`PldaParams`."""
    write_token(out, "<Plda>", binary)
    write_vector(out, plda.mean, binary)
    write_matrix(out, plda.transform, binary)
    write_vector(out, plda.psi, binary)
    write_token(out, "</Plda>", binary)


def read_dplda(source, binary):
    """Read ``<Dplda>`` into :class:`DpldaParams`."""
    at = source.position
    expect_token(source, binary, "<Dplda>")
    expect_token(source, binary, "<Lambda>")
    lam = read_packed(source, binary, np.float64)
    expect_token(source, binary, "<Gamma>")
    gamma = read_packed(source, binary, np.float64)
    expect_token(source, binary, "<Offset>")
    offset = read_vector(source, binary, np.float64)
    expect_token(source, binary, "<Constant>")
    constant = read_float(source, binary)
    expect_token(source, binary, "</Dplda>")
    dims = packed_dim(len(lam)), packed_dim(len(gamma)), len(offset)
    if len(set(dims)) > 1:
        raise source.error(f"corrupt: Lambda of dimension {dims[0]}, Gamma {dims[1]}, offset {dims[2]}", at)
    return DpldaParams(*(array.astype(np.float64) for array in (lam, gamma, offset)), constant)


def write_dplda(out, dplda, binary):
    """Write ``<Dplda>`` from :class:`DpldaParams`."""
    write_token(out, "<Dplda>", binary)
    write_token(out, "<Lambda>", binary)
    write_packed(out, dplda.lam, binary)
    write_token(out, "<Gamma>", binary)
    write_packed(out, dplda.gamma, binary)
    write_fields(out, binary, ("<Offset>", dplda.offset))
    write_token(out, "<Constant>", binary)
    write_double(out, dplda.constant, binary)
    write_token(out, "</Dplda>", binary)
    if not binary:
        out.write(b"\n")
