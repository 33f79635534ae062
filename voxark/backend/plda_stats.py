"""Statistics of PLDA training that say whose they are, so that those of several jobs add up exactly.

A speaker whose vectors were shared among jobs is put together from the parts: the means by their counts, and
the scatter by what the parts' means differ.
"""

from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import ClassStats, accumulate, symmetric
from voxark.errors import VoxarkError
from voxark.io.plda_stats_file import PldaStatsParams
from voxark.packed import pack_lower, unpack_lower


class SpeakerStats(NamedTuple):
    """speakers: list of S keys, sorted; classes: their ClassStats in that order."""

    speakers: list
    classes: ClassStats

    @classmethod
    def of(cls, x, labels, speakers):
        """Statistics of vectors x (N,D) with labels (N,), numbers in the list ``speakers``, each in use."""
        order = sorted(range(len(speakers)), key=speakers.__getitem__)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return cls([speakers[number] for number in order], accumulate(x, rank[labels]))

    @classmethod
    def from_params(cls, params):
        """Make them from voxark.io.plda_stats_file.PldaStatsParams; VoxarkError for what is not finite."""
        if not (np.isfinite(params.means).all() and np.isfinite(params.scatter).all()):
            raise VoxarkError("the PLDA statistics hold values that are not finite")
        dim = params.means.shape[1]
        classes = ClassStats(params.counts.astype(np.int64), params.means, unpack_lower(params.scatter, dim))
        return merge([cls(params.speakers, classes)])

    def to_params(self):
        """Return voxark.io.plda_stats_file.PldaStatsParams for writing."""
        counts, means, scatter = self.classes
        return PldaStatsParams(self.speakers, counts.astype(np.int32), means, pack_lower(scatter))


def merge(parts):
    """Return the SpeakerStats of the vectors of all ``parts``, a non-empty list of SpeakerStats.

    For a speaker in two parts, mean = (n m + n' m')/(n + n'), and the scatter grows by
    n n'/(n + n') (m - m')(m - m')'. VoxarkError when the dimensions differ.
    """
    dims = sorted({part.classes.dim for part in parts})
    if len(dims) > 1:
        raise VoxarkError(f"statistics of vectors of dimensions {' and '.join(map(str, dims))} do not add up")
    speakers = sorted(set().union(*(part.speakers for part in parts)))
    place = {speaker: row for row, speaker in enumerate(speakers)}
    counts = np.zeros(len(speakers), np.int64)
    means, scatter = np.zeros((len(speakers), dims[0])), np.zeros((dims[0], dims[0]))
    for names, classes in parts:
        rows = np.fromiter((place[name] for name in names), np.int64, len(names))
        total = counts[rows] + classes.counts
        share = classes.counts / total  # 1 for a speaker who is new: the mean is taken over as it is
        apart = classes.means - means[rows]
        scatter += classes.scatter
        known = counts[rows] > 0
        if known.any():
            weighted = apart[known] * np.sqrt(counts[rows] * share)[known, None]
            scatter += weighted.T @ weighted
        means[rows] = np.where(known[:, None], means[rows] + apart * share[:, None], classes.means)
        counts[rows] = total
    return SpeakerStats(speakers, ClassStats(counts, means, symmetric(scatter)))
