"""From the plan of a batch to its features: read, repeat, normalise, mask."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.checks import check_finite
from voxark.e2e.spec_augment import SpecAugmentOptions, mask_features
from voxark.errors import VoxarkError
from voxark.feat.cmvn import SlidingCmvnOptions, sliding_windows
from voxark.options import option
from voxark.random_numbers import seeded_rng


@dataclass
class NormalizeOptions:
    """How features are normalised on their way to the network."""

    cmn: Literal["chunk", "sliding", "none"] = option(
        "chunk",
        "Subtract the mean: of the chunk (of the utterance, where it is taken whole), of a sliding window of "
        "--cmn-window frames around each frame, or none",
    )
    cmn_window: int = option(300, "Width of the sliding window in frames")

    def check(self):
        """VoxarkError for a window that is none."""
        if self.cmn_window < 1:
            raise VoxarkError(f"--cmn-window={self.cmn_window}: must be at least 1")


class FeatureReader:
    """Reads stretches of utterances, normalised: ``read(number, first, last)``.

    ``source`` is a FeatureIndex, or what has its ``keys``, ``lengths``, ``dim`` and ``read``. Threads may
    read at once. ``read`` raises VoxarkError naming the key, also for values that are not finite.
    """

    def __init__(self, source, options=None):
        self.source, self.options = source, options or NormalizeOptions()
        self.options.check()
        self._window = SlidingCmvnOptions(cmn_window=self.options.cmn_window, center=True)

    def read(self, number, first=0, last=None, draw=None):
        """Frames first ... last - 1 (default: all) of utterance ``number``: (last - first, dim) float32.

        ``draw`` (words) is given to a source that augments: it decides, with the key, what is added.
        """
        length = int(self.source.lengths[number])
        last = length if last is None else last
        if self.options.cmn == "sliding":
            return self._sliding(number, first, last, length, draw)
        x = self._read(number, first, last, draw)
        if first == last:
            return x
        mean = x.mean(axis=0, dtype=np.float64)
        self._check(x, mean, number)
        if self.options.cmn == "chunk":
            x -= mean.astype(np.float32)
        return x

    def _read(self, number, first, last, draw):
        if draw is None:
            return self.source.read(number, first, last)
        return self.source.read(number, first, last, draw=draw)

    def _check(self, x, sums, number):
        """Raise VoxarkError naming the value that makes ``sums`` over the columns of x infinite, or NaN."""
        if np.isfinite(sums).all():
            return
        try:
            check_finite(x, "feature")
        except VoxarkError as error:
            raise VoxarkError(f"{self.source.keys[number]}: {error}") from None

    def _sliding(self, number, first, last, length, draw):
        """As apply-cmvn-sliding --center=true does with the whole utterance."""
        if first == last:
            return self._read(number, first, last, draw)
        starts, ends = (a[first:last] for a in sliding_windows(length, self._window))
        low, high = int(starts[0]), int(ends[-1])
        x = self._read(number, low, high, draw)
        sums = np.zeros((len(x) + 1, x.shape[1]))
        np.cumsum(x, axis=0, dtype=np.float64, out=sums[1:])
        self._check(x, sums[-1], number)
        means = (sums[ends - low] - sums[starts - low]) / (ends - starts)[:, None]
        return (x[first - low : last - low] - means).astype(np.float32)


class Batch:
    """A plan and its chunks: ``chunks[i]`` (T_i, dim) float32 is row i, or None where another worker has it.

    ``keys`` are the utterances' keys, one a row.
    """

    def __init__(self, plan, chunks, keys):
        self.plan, self.chunks, self.keys = plan, chunks, keys

    def __len__(self):
        return len(self.chunks)

    @property
    def num_bytes(self):
        """Bytes of the chunks."""
        return sum(x.nbytes for x in self.chunks if x is not None)


class BatchReader:
    """Builds batches: ``reader(epoch, number)``; this is what a voxark.nnet.loader.BatchLoader calls.

    ``sampler`` is a BatchSampler, ``features`` a FeatureReader, ``masks`` SpecAugmentOptions or None.
    ``augments``: the features' source takes ``draw`` (see voxark.e2e.waveforms). ``rows_of`` maps a plan to
    the rows that this worker reads (default: all). All that is random depends on the seed, the key, and the
    place of the chunk in the training.
    """

    def __init__(self, sampler, features, masks=None, augments=False, srand=0, rows_of=None):
        self.sampler, self.features, self.srand = sampler, features, srand
        self.masks, self.augments, self.rows_of = masks or SpecAugmentOptions(), augments, rows_of
        self.masks.check()

    def __call__(self, epoch, number):
        """The Batch of a place."""
        plan = self.sampler.plan(epoch, number)
        chunks = [None] * plan.num_rows
        for row in range(plan.num_rows) if self.rows_of is None else self.rows_of(plan):
            chunks[row] = self.chunk(plan, int(row))
        return Batch(plan, chunks, [self.features.source.keys[int(number)] for number in plan.utterances])

    def chunk(self, plan, row):
        """Features (size, dim) of a row of a plan."""
        number, first = int(plan.utterances[row]), int(plan.first[row])
        draw = (plan.epoch, plan.number, row)
        x = self.features.read(number, first, first + int(plan.frames[row]), draw if self.augments else None)
        size = int(plan.size[row])
        if size > len(x):
            x = np.take(x, np.arange(size) % len(x), axis=0)
        if self.masks.any():
            rng = seeded_rng(self.srand, "masks", self.features.source.keys[number], *draw)
            mask_features(x, self.masks, rng)
        return x
