"""Training sequences: which utterances take part, how they are normalised and read, and segments drawn from them."""

import itertools
import logging

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.random_numbers import draws, seeded_rng

logger = logging.getLogger(__name__)

STD_FLOOR = 1e-5


class Sequences:
    """M utterances of a table that have a segment's frames at least, by position 0 to M - 1.

    ``index``: a FeatureIndex; ``numbers`` (M,): the utterances' numbers in it; ``lengths`` (M,): their frames.
    """

    def __init__(self, index, numbers):
        self.index, self.numbers = index, numbers
        self.lengths = index.lengths[numbers]
        self.mean = self.std = None

    def __len__(self):
        return len(self.numbers)

    def key(self, position):
        """The key of the utterance at a position."""
        return self.index.keys[int(self.numbers[position])]

    def read(self, position, first=0, last=None):
        """Frames first ... last - 1 (default: all), normalised: float32. Threads may read at once.

        Raises VoxarkError naming the key, also for values that are not finite.
        """
        x = self.index.read(int(self.numbers[position]), first, last)
        if not np.isfinite(x.sum()):
            try:
                check_finite(x, "feature")
            except VoxarkError as error:
                raise VoxarkError(f"{self.key(position)}: {self.index.name}: {error}") from None
        if self.mean is not None:
            x -= self.mean
            x /= self.std
        return x

    def moments(self, most, srand):
        """(mean, deviation) (F,) float64 of the frames of ``most`` sequences drawn at random (0: of all)."""
        chosen = np.arange(len(self))
        if 0 < most < len(self):
            chosen = np.sort(seeded_rng(srand, "moments").choice(len(self), most, replace=False, shuffle=False))
        count, total, squares, offset = 0, 0.0, 0.0, None
        for position in chosen.tolist():
            x = self.read(position).astype(np.float64)
            offset = x.mean(0) if offset is None else offset  # against cancellation in the squares
            x -= offset
            count, total, squares = count + len(x), total + x.sum(0), squares + np.einsum("tf,tf->f", x, x)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        if (std < STD_FLOOR).any():
            logger.warning("features %s hardly vary: they are not scaled",
                           " ".join(map(str, np.flatnonzero(std < STD_FLOOR).tolist())))
        return mean + offset, np.where(std < STD_FLOOR, 1.0, std)


def long_enough(index, least):
    """(numbers (M,) of the utterances with ``least`` frames at least, numbers of the others)."""
    fits = index.lengths >= least
    return np.flatnonzero(fits).astype(np.int32), np.flatnonzero(~fits)


def hold_out(index, numbers, share, most, srand):
    """(rest, held out) of the utterances ``numbers``, ascending; the second have the smallest draws by key.

    A split stays when tables come in another order. VoxarkError where nothing would be left.
    """
    count = min(max(1, round(share * len(numbers))), most)
    if count >= len(numbers):
        raise VoxarkError(f"{index.name}: {len(numbers)} sequences are too few to hold some out: give others "
                          "with --dev-feats")
    taking_part = np.zeros(len(index.keys), bool)
    taking_part[numbers] = True
    places = draws(srand, "dev", keys=itertools.compress(index.keys, taking_part))
    held = np.zeros(len(numbers), bool)
    held[np.argpartition(places, count - 1)[:count]] = True
    return numbers[~held], numbers[held]


def count_segments(lengths, segment_length, shift):
    """N: floor((T - L) / shift) + 1 of sequences of T frames."""
    return (lengths - segment_length) // shift + 1


def draw_segments(rng, lengths, segment_length, shift):
    """Segments at random from anywhere in sequences of ``lengths`` (K,): (rows (S,), starts (S,)), shuffled.

    Every sequence gives as many as count_segments says; one may come twice.
    """
    rows = np.repeat(np.arange(len(lengths), dtype=np.int32), count_segments(lengths, segment_length, shift))
    starts = (rng.random(len(rows)) * (lengths[rows] - segment_length + 1)).astype(np.int32)
    order = rng.permutation(len(rows))
    return rows[order], starts[order]


def even_segments(lengths, segment_length, shift):
    """Segments that cover sequences of ``lengths`` (K,) evenly: (rows (S,), starts (S,)), in order.

    As many as draw_segments draws; the first begins with the sequence, and they are ``shift`` apart.
    """
    counts = count_segments(lengths, segment_length, shift)
    rows = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return rows, ((np.arange(len(rows)) - first) * shift).astype(np.int32)
