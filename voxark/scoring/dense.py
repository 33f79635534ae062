"""Scores of every model against every test: a Kaldi matrix archive of row blocks, and two lists of keys.

The archive holds float32 matrices of a column for each test, in the order of the list of test keys; their
rows, one matrix after the other, are the models in the order of the list of enrolment keys. A matrix holds as
many rows as fit 256 MiB, so that most archives hold one.
"""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.streams import open_input, open_text_output
from voxark.options import option

_BLOCK_BYTES = 1 << 28
_LARGEST_SQUARE = float(np.finfo(np.float32).max) ** 2


@dataclass
class DenseOptions:
    """Every pair in place of a list of trials."""

    dense: bool = option(False, "Score every pair of models and tests, and write a matrix")
    enroll_list: str = option("", "With --dense: list of the models to score, one a line, in its order")
    test_list: str = option("", "With --dense: list of the tests to score, one a line, in its order")

    def check(self):
        """Raise VoxarkError for a list of keys without --dense."""
        if (self.enroll_list or self.test_list) and not self.dense:
            raise VoxarkError("--enroll-list and --test-list go with --dense; a list of trials names them")



def score_dense(scorer, summary):
    """Yield the blocks (rows,T) float32 of all scores of a voxark.scoring.pairs.PairScorer.

    They come about in float64, a tile at a time, which ``summary`` (voxark.scoring.run.Summary) is told.
    VoxarkError for a score that is not finite in float32.
    """
    step = max(1, _BLOCK_BYTES // (4 * max(1, scorer.num_tests)))
    for begin in range(0, scorer.num_models, step):
        end = min(begin + step, scorer.num_models)
        block = np.empty((end - begin, scorer.num_tests), np.float32)
        for models, tests, scores in scorer.tiles(begin, end):
            if not summary.add(scores) < _LARGEST_SQUARE:
                raise VoxarkError("a score is NaN, infinite or beyond single precision: look at the vectors")
            block[models.start - begin : models.stop - begin, tests] = scores
        yield block


def write_dense(matrix_wspecifier, blocks):
    """Write blocks (rows,T) float32 as the matrices of an archive; returns the number of rows written."""
    from voxark import tables

    rows = 0
    with tables.open_writer("mat", matrix_wspecifier) as out:
        for number, block in enumerate(blocks, 1):
            out[f"rows{number:06d}"] = block
            rows += len(block)
    return rows


def read_dense(matrix_rspecifier, enroll_keys_rxfilename, test_keys_rxfilename):
    """Yield (keys of its rows, keys of its columns, block (rows,T)) of every matrix of the archive.

    VoxarkError where the matrices and the lists of keys do not agree, and for scores that are not finite.
    """
    from voxark import tables

    enroll_keys, test_keys = read_keys(enroll_keys_rxfilename), read_keys(test_keys_rxfilename)
    done = 0
    with tables.open_reader("mat", matrix_rspecifier) as reader:
        for name, block in reader:
            if block.shape[1] != len(test_keys):
                raise VoxarkError(f"{matrix_rspecifier}: {name} has {block.shape[1]} columns, "
                                  f"{test_keys_rxfilename} has {len(test_keys)} keys")
            if not np.isfinite(block.sum(dtype=np.float64)) and not np.isfinite(block).all():
                raise VoxarkError(f"{matrix_rspecifier}: {name} holds scores that are not finite")
            keys = enroll_keys[done : done + len(block)]
            done += len(block)
            if done <= len(enroll_keys):
                yield keys, test_keys, block
    if done != len(enroll_keys):
        raise VoxarkError(f"{matrix_rspecifier}: has {done} rows, {enroll_keys_rxfilename} has "
                          f"{len(enroll_keys)} keys")


def read_keys(rxfilename):
    """Read a list of keys, one a line; VoxarkError for other than one word on a line, and for repeats."""
    with open_input(rxfilename) as source:
        data = source.read_all()
        name = source.name
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    if lines[-1] == "":
        lines.pop()
    keys = [line.strip() for line in lines]
    for number, key in enumerate(keys, 1):
        if len(key.split()) != 1:
            raise VoxarkError(f"{name}:{number}: one key was expected on the line, found {key[:60]!r}")
    if not keys:
        raise VoxarkError(f"{name}: the list is empty")
    if len(set(keys)) < len(keys):
        first = {}
        for number, key in enumerate(keys, 1):
            if first.setdefault(key, number) != number:
                raise VoxarkError(f"{name}:{number}: {key} stands already on line {first[key]}")
    return keys


def write_keys(wxfilename, keys):
    """Write a list of keys, one a line."""
    with open_text_output(wxfilename) as out:
        out.write("".join(f"{key}\n" for key in keys))
