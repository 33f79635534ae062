"""Segments drawn at random from archives of latent variables, each with its labels."""

import logging
from typing import NamedTuple

import numpy as np

from voxark.checks import SameDimension, check_finite
from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)


class Points(NamedTuple):
    """Segments: z1 (N,D1), z2 (N,D2), and for each factor the labels (N,) of the segments."""

    z1: np.ndarray
    z2: np.ndarray
    labels: list


class Sample:
    """Keeps ``number`` rows of all that are offered, each with the same chance, in the order of arrival.

    Each row draws a number, and those of the smallest ones stay: memory does not grow with what is offered.
    """

    def __init__(self, number, rng):
        self.number, self._rng = number, rng
        self.offered, self._draws, self._rows = 0, [], []

    def offer(self, *columns):
        """Offer rows: arrays or lists of one length, whose n-th members make a row."""
        draws = self._rng.random(len(columns[0]))
        self.offered += len(draws)
        self._draws.extend(draws)
        self._rows.extend(zip(*columns))
        if len(self._rows) > 2 * self.number + 1000:
            self._prune()

    def _prune(self):
        keep = np.sort(np.argsort(self._draws, kind="stable")[: self.number])
        self._draws = [self._draws[k] for k in keep]
        self._rows = [self._rows[k] for k in keep]

    def columns(self):
        """The columns of the rows that are kept; nothing if there are none."""
        self._prune()
        return list(zip(*self._rows))


def sample_points(z1_reader, z2_reader, factors, number, seed):
    """Points of up to ``number`` segments that have a label of every factor.

    ``z1_reader`` gives (key, z1 (N,D1)) and ``z2_reader`` is a mapping from keys to z2 (N,D2). Raises
    VoxarkError for an utterance without z2, another number of segments, and where no segment is labelled.
    """
    sample, segments = Sample(number, np.random.default_rng(seed)), 0
    same = SameDimension(), SameDimension()
    for key, z1 in z1_reader:
        if key not in z2_reader:
            raise VoxarkError(f"{key}: it is in the archive of z1 but not in that of z2")
        z2 = z2_reader[key]
        if len(z1) != len(z2):
            raise VoxarkError(f"{key}: {len(z1)} segments of z1, but {len(z2)} of z2: are they of one model?")
        for one, z, name in zip(same, (z1, z2), ("z1", "z2")):
            check_finite(z, f"{key}: {name}")
            one.require(f"{key}: {name}", z.shape[1])
        labels = [factor.of(key, len(z1)) for factor in factors]
        there = [n for n in range(len(z1)) if all(column[n] is not None for column in labels)]
        segments += len(z1)
        if there:
            sample.offer(z1[there], z2[there], *([column[n] for n in there] for column in labels))
    if not sample.offered:
        raise VoxarkError(f"none of {segments} segments has a label of every factor: are the keys the same?")
    if sample.offered < segments:
        logger.info("%d of %d segments have a label of every factor", sample.offered, segments)
    z1, z2, *labels = sample.columns()
    return Points(np.array(z1, np.float64), np.array(z2, np.float64), [list(column) for column in labels])
