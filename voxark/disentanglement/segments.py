"""Latents of all segments of a set of utterances as matrices, read from two tables that go together."""

from dataclasses import dataclass

import numpy as np

from voxark import tables
from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError


@dataclass
class Segments:
    """N segments of U utterances.

    ``keys``: list of U; ``utterance``, ``index`` (N,): whose segment, and the how-manieth of it; ``z1``
    (N,D1), ``z2`` (N,D2) float32: posterior means; ``z1_var``, ``z2_var``: variances, or None.
    """

    keys: list
    utterance: np.ndarray
    index: np.ndarray
    z1: np.ndarray
    z2: np.ndarray
    z1_var: np.ndarray | None = None
    z2_var: np.ndarray | None = None


def read_segments(z1, z2, counts, z1_var="", z2_var="", progress=lambda entries: entries):
    """Read tables of matrices (segments x dimensions), z1 in its order and the others by key.

    Utterances come out by key, so that nothing that is drawn later depends on the order of the tables.
    Utterances that another table lacks, of different numbers of segments, or with values that are not finite
    are counted as failed; ``counts`` is a voxark.cli.Counts. Variances must be positive. VoxarkError where
    nothing is left, or the dimension changes.
    """
    tables_of = {"z1": z1, "z2": z2, "z1_var": z1_var, "z2_var": z2_var}
    names = {name: table for name, table in tables_of.items() if table}
    others = {name: tables.open_random("mat", table) for name, table in names.items() if name != "z1"}
    same, parts, keys = {name: SameDimension() for name in names}, {name: [] for name in names}, []
    with tables.open_reader("mat", z1) as reader:
        for key, value in progress(reader):
            try:
                found = _matrices(key, value, others)
            except VoxarkError as error:
                counts.fail(key, str(error).removeprefix(f"{key}: "))  # tables name it, too
                continue
            for name, matrix in found.items():
                same[name].require(f"{key}: {name}", matrix.shape[1])
                parts[name].append(matrix)
            keys.append(key)
            counts.done()
    counts.leave_out(len(reader.skipped), reader.skipped)
    if not keys:
        raise VoxarkError(f"{z1}: no utterance has both latents")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    keys, parts = [keys[n] for n in order], {name: [part[n] for n in order] for name, part in parts.items()}
    lengths = np.array([len(part) for part in parts["z1"]])
    index = np.concatenate([np.arange(length) for length in lengths.tolist()])
    _check_pair(same, "z1"), _check_pair(same, "z2")
    return Segments(keys, np.repeat(np.arange(len(keys)), lengths), index,
                    **{name: np.concatenate(part) for name, part in parts.items()})


def _matrices(key, z1, others):
    """{name: (n,D) float32} of an utterance."""
    found = {"z1": z1}
    for name, table in others.items():
        if key not in table:
            raise VoxarkError(f"is not in {table.name}")
        found[name] = table[key]
    for name, matrix in found.items():
        if len(matrix) != len(z1) or len(matrix) == 0:
            raise VoxarkError(f"{len(matrix)} segments of {name}, {len(z1)} of z1")
        check_finite(matrix, name)
        if name.endswith("_var") and not (matrix > 0).all():
            raise VoxarkError(f"{name} holds values that are not positive: are they logarithms?")
    return {name: np.asarray(matrix, np.float32) for name, matrix in found.items()}


def _check_pair(same, name):
    variance = same.get(f"{name}_var")
    if variance is not None and variance.dim != same[name].dim:
        raise VoxarkError(f"{name} has {same[name].dim} dimensions, its variances have {variance.dim}")
