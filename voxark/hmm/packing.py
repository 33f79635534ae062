"""Utterances side by side: the rows of a batch ordered by time, so that one step serves them all.

Frames of utterance 0, 1, ... in a row ("joined") become frame 0 of all utterances, frame 1 of all that have
one, and so on, the longest utterance first: at each time the utterances that still run are the first rows, no
row is padding, and a recursion over time is a loop over slices.
"""

import numpy as np


class Packing:
    """How joined utterances of ``lengths`` (B,) >= 1 are ordered by time; N = lengths.sum().

    counts[t] is the number of utterances longer than t and starts[t] (T+1,) the row where time t begins;
    rows (N,) is the joined frame that stands in each packed row: packed = joined[rows].
    """

    def __init__(self, lengths):
        lengths = np.asarray(lengths)
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        self.num_steps = int(ordered[0])
        self.counts = np.searchsorted(-ordered, -np.arange(self.num_steps), side="left")
        self.starts = np.concatenate(([0], np.cumsum(self.counts)))
        time = np.repeat(np.arange(self.num_steps), self.counts)
        place = np.arange(self.starts[-1]) - self.starts[time]
        self.rows = (np.cumsum(lengths) - lengths)[order][place] + time

    def before(self):
        """Return, for each row of t = 1, 2, ..., the row of the same utterance's frame at t - 1."""
        now = np.arange(self.counts[0], self.starts[-1])
        return now - np.repeat(self.counts[:-1], self.counts[1:])

    def steps(self):
        """Yield (slice of the rows at t - 1 that go on, slice of the rows at t) for t = 1, 2, ..."""
        counts, starts = self.counts.tolist(), self.starts.tolist()
        for t in range(1, self.num_steps):
            yield slice(starts[t - 1], starts[t - 1] + counts[t]), slice(starts[t], starts[t + 1])

    def steps_back(self):
        """Yield (rows at t that go on, rows at t that end, rows at t + 1) for t = T - 1, ..., 0."""
        counts, starts = self.counts.tolist() + [0], self.starts.tolist()
        for t in reversed(range(self.num_steps)):
            edge = starts[t] + counts[t + 1]
            following = slice(starts[t + 1], starts[t + 1] + counts[t + 1])
            yield slice(starts[t], edge), slice(edge, starts[t + 1]), following

    def joined(self, packed):
        """Return packed rows (N,...) in the order of the joined utterances."""
        out = np.empty_like(packed)
        out[self.rows] = packed
        return out


def first_rows(lengths):
    """The row (B,) where each of the joined utterances begins."""
    return np.cumsum(lengths) - lengths


def last_rows(lengths):
    """The row (B,) where each of the joined utterances ends."""
    return np.cumsum(lengths) - 1


def sum_by_utterance(values, lengths):
    """Sum values (N,...) of joined frames over each utterance of ``lengths`` (B,) >= 1."""
    return np.add.reduceat(values, first_rows(lengths), axis=0)
