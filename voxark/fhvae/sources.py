"""Batches of segments: of a batch of sequences after the other (hierarchical), or of all sequences (flat).

What a batch holds is decided by --srand and its number alone, so that training goes on from any place. Reading
runs ahead in threads. Nothing here is as large as the number of sequences, but in the flat sampling, which
draws from all of them.
"""

from typing import NamedTuple

import numpy as np
import torch

from voxark.fhvae.sequences import count_segments, draw_segments, even_segments
from voxark.nnet.loader import BatchLoader
from voxark.random_numbers import seeded_rng

_WITHOUT_END = 1 << 40


class Batch(NamedTuple):
    """Segments of a step."""

    x: torch.Tensor  # (L,B,F), normalised
    rows: torch.Tensor  # (B,) int64: rows of the cache, of the segments' sequences
    num_segments: torch.Tensor  # (B,): N of the segments' sequences
    positions: np.ndarray  # (B,): of the sequences, for messages
    begins: bool  # the first of a batch of sequences: the cache is to be reset


class Block:
    """A batch of K sequences, read whole: ``frames`` (sum T,F), and where each begins.

    ``counts`` (K,): N of each sequence.
    """

    def __init__(self, number, sequences, positions, shape):
        self.number, self.positions = number, positions
        self.length, self.shift = shape
        self.lengths = sequences.lengths[positions].astype(np.int64)
        self.begins = np.cumsum(self.lengths) - self.lengths
        frames = np.empty((int(self.lengths.sum()), sequences.index.dim), np.float32)
        for begin, length, position in zip(self.begins.tolist(), self.lengths.tolist(), positions.tolist(),
                                           strict=True):
            frames[begin : begin + length] = sequences.read(position)
        self.frames = torch.from_numpy(frames)
        self.counts = count_segments(self.lengths, self.length, self.shift)

    def segments(self, rows, starts, device):
        """Segments (L,S,F) that begin at frames starts (S,) of sequences rows (S,), on a device."""
        first = torch.from_numpy(self.begins[rows] + starts)
        return self.frames[first + torch.arange(self.length)[:, None]].to(device)

    def even(self):
        """(rows, starts) of segments that cover all sequences evenly."""
        return even_segments(self.lengths, self.length, self.shift)

    def drawn(self, srand, number_of_pass):
        """(rows, starts) of segments drawn at random for a pass, shuffled."""
        rng = seeded_rng(srand, "segments", self.number, number_of_pass)
        return draw_segments(rng, self.lengths, self.length, self.shift)


class HierarchicalSource:
    """Algorithm 1: K sequences, B_seg batches of their segments, the next K.

    ``num_rows``: K, or the number M of sequences where it is smaller. Worker ``rank`` of ``world_size`` has
    batches of sequences of its own.
    """

    def __init__(self, sequences, options, srand, segment_length, worker=(0, 1), loader_threads=1):
        self.sequences, self.options, self.srand = sequences, options, srand
        self.num_rows = min(options.sequence_batch_size, len(sequences))
        self.worker, self.loader_threads = worker, loader_threads
        self.shape = (segment_length, options.segment_shift)
        self.block, self._loader, self._next, self._step = None, None, 0, 0

    def _build(self, _, number):
        rank, world_size = self.worker
        number = number * world_size + rank
        rng = seeded_rng(self.srand, "sequences", number)
        chosen = rng.choice(len(self.sequences), self.num_rows, replace=False, shuffle=False)
        return Block(number, self.sequences, np.sort(chosen), self.shape)

    def next(self, device="cpu"):
        """The next Batch, on a device. Raises VoxarkError where features cannot be read."""
        if self.block is None or self._step == self._num_batches():
            if self.block is not None:
                self._next, self._step = self._next + 1, 0
            self._load()
        begins, self._step = self._step == 0, self._step + 1
        return self._batch(self._step - 1, begins, device)

    def _load(self):
        if self._loader is None:
            self._loader = BatchLoader(self._build, _WITHOUT_END, 0, self._next, min(1, self.loader_threads), 1)
        self.block, self._pass = None, None  # its memory is free while the next is waited for
        self.block = next(self._loader)

    def _per_pass(self):
        return max(1, int(self.block.counts.sum()) // self.options.segment_batch_size)

    def _num_batches(self):
        return self.options.num_segment_batches or self._per_pass()

    def _batch(self, step, begins, device):
        number_of_pass, place = divmod(step, self._per_pass())
        if self._pass is None or self._pass[0] != number_of_pass:
            self._pass = (number_of_pass, *self.block.drawn(self.srand, number_of_pass))
        part = slice(place * self.options.segment_batch_size, (place + 1) * self.options.segment_batch_size)
        rows, starts = (values[part] for values in self._pass[1:])
        return _batch(self.block.segments(rows, starts, device), rows, self.block.counts,
                      self.block.positions, begins)

    @property
    def num_blocks(self):
        """Batches of sequences that were begun."""
        return self._next + 1

    @property
    def waited_s(self):
        """Seconds spent waiting for features."""
        return self._loader.waited_s if self._loader else 0.0

    def state_dict(self):
        """The place of the next batch."""
        return {"block": self._next, "step": self._step}

    def load_state_dict(self, state):
        """Go on from a place; the batch of sequences is read again."""
        self._next, self._step = state["block"], state["step"]
        self._load()

    def close(self):
        """Stop reading ahead."""
        if self._loader is not None:
            self._loader.close()


def _batch(x, rows, counts, positions, begins):
    num_segments = torch.from_numpy(counts[rows].astype(np.float32)).to(x.device)
    return Batch(x, torch.from_numpy(rows.astype(np.int64)).to(x.device), num_segments, positions[rows], begins)


class FlatSource:
    """The original training: segments of all M sequences, pass after pass; the table has ``num_rows`` = M rows.

    Segments are read one by one from the archives.
    """

    def __init__(self, sequences, options, srand, segment_length, worker=(0, 1), loader_threads=1):
        self.sequences, self.options, self.srand = sequences, options, srand
        self.worker, self.loader_threads = worker, loader_threads
        self.num_rows, self.length = len(sequences), segment_length
        self.lengths = sequences.lengths.astype(np.int64)
        self.counts = count_segments(self.lengths, segment_length, options.segment_shift)
        self._per_pass = max(1, int(self.counts.sum()) // options.segment_batch_size)
        self._loader, self._pass, self._place = None, None, (0, 0)
        self.block = None

    def _build(self, number_of_pass, number):
        rank, world_size = self.worker
        if self._pass is None or self._pass[0] != number_of_pass:  # one thread alone builds
            rng = seeded_rng(self.srand, "segments", number_of_pass * world_size + rank, 0)
            drawn = draw_segments(rng, self.lengths, self.length, self.options.segment_shift)
            self._pass = (number_of_pass, *drawn)
        size = self.options.segment_batch_size
        rows, starts = (values[number * size : (number + 1) * size] for values in self._pass[1:])
        x = np.empty((self.length, len(rows), self.sequences.index.dim), np.float32)
        for column, (row, start) in enumerate(zip(rows.tolist(), starts.tolist(), strict=True)):
            x[:, column] = self.sequences.read(row, start, start + self.length)
        return x, rows

    def next(self, device="cpu"):
        """The next Batch, on a device. Raises VoxarkError where features cannot be read."""
        if self._loader is None:
            self._loader = BatchLoader(self._build, self._per_pass, *self._place, min(1, self.loader_threads), 4)
        x, rows = next(self._loader)
        self._place = tuple(self._loader.place)
        return _batch(torch.from_numpy(x).to(device), rows, self.counts, np.arange(self.num_rows), False)

    @property
    def num_blocks(self):
        """Passes over the segments that were begun."""
        return self._place[0] + 1

    @property
    def waited_s(self):
        """Seconds spent waiting for features."""
        return self._loader.waited_s if self._loader else 0.0

    def state_dict(self):
        """The place of the next batch."""
        return {"block": self._place[0], "step": self._place[1]}

    def load_state_dict(self, state):
        """Go on from a place."""
        self._place = (state["block"], state["step"])

    def close(self):
        """Stop reading ahead."""
        if self._loader is not None:
            self._loader.close()


SOURCES = {"hierarchical": HierarchicalSource, "flat": FlatSource}
