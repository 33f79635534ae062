"""Which utterances, and which frames of them, make a batch.

Four kinds of batches: ``A``, some speakers with all of their utterances (or up to a cap); ``B``, many
speakers with a few utterances each, two by default; ``two-chunks``, one utterance of each of many speakers,
cut twice; ``identification``, utterances at random. [tutorial; methods: Batches]

A plan is a pure function of --srand, epoch and number in the epoch: it is the same in every worker, for any
number of loader threads, and after a training is resumed. Draws are by the order in which the utterances are
given: give them sorted by key, and they are independent of the order of files.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.e2e.batch_plan import BatchPlan
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)

_DEFAULT_UTTERANCES = {"A": 0, "B": 2, "two-chunks": 1, "identification": 0}


@dataclass
class BatchOptions:
    """What a batch holds."""

    batches: Literal["A", "B", "two-chunks", "identification"] = option(
        "B",
        "Kind of batches: A, speakers with all utterances; B, many speakers with a few utterances each; "
        "two-chunks, one utterance of each speaker cut twice; identification, utterances at random",
    )
    batch_speakers: int = option(64, "Speakers of a batch (of kind identification: half of its utterances)")
    utts_per_speaker: int = option(
        -1,
        "At most so many utterances of each speaker of a batch, 0: all (-1: all in A; "
        "in B 2, or one more than --max-enroll)",
    )
    batches_per_epoch: int = option(500, "Batches of an epoch")
    min_chunk: int = option(200, "Shortest chunk, in frames; shorter utterances are repeated to this length")
    max_chunk: int = option(400, "Longest chunk; each batch draws its length between the two")
    short_utterances: Literal["whole", "repeat"] = option(
        "whole",
        "Utterances shorter than the batch's chunks: whole (lengths differ), or repeated to that length",
    )
    max_enroll: int = option(
        0,
        "Models are enrolled with 1 up to so many utterances, drawn for each model; the others "
        "of its speaker are test utterances (0: trials of two utterances)",
    )

    def check(self):
        """VoxarkError for values that make no batch."""
        if self.batch_speakers < (1 if self.batches == "identification" else 2) or self.batches_per_epoch < 1:
            raise VoxarkError("--batch-speakers must be at least 2 and --batches-per-epoch at least 1")
        if not 1 <= self.min_chunk <= self.max_chunk:
            raise VoxarkError(
                f"--min-chunk={self.min_chunk} and --max-chunk={self.max_chunk}: expected 1 or more, "
                "and the first not above the second"
            )
        if self.utts_per_speaker < -1 or self.max_enroll < 0:
            raise VoxarkError("--utts-per-speaker is at least -1, --max-enroll at least 0")
        if self.max_enroll and self.batches not in "AB":
            raise VoxarkError(f"--max-enroll needs --batches=A or B, not {self.batches}")
        if self.max_enroll and 0 < self.utts_per_speaker < 2:
            raise VoxarkError(
                "--max-enroll needs two utterances of a speaker or more: --utts-per-speaker=1 has no test"
            )

    def cap(self):
        """Utterances of a speaker in a batch at most; 0 for all."""
        if self.utts_per_speaker >= 0:
            return self.utts_per_speaker
        if self.batches == "B" and self.max_enroll:
            return self.max_enroll + 1
        return _DEFAULT_UTTERANCES[self.batches]


class TrainingSet:
    """Utterances with speakers, grouped by speaker.

    ``numbers`` (N,): into an index of features; ``speakers`` (N,): 0 to S - 1, every one with an utterance;
    ``lengths`` (N,): frames; ``recordings`` (N,): equal for those cut from the same one (None: all differ).
    Raises VoxarkError for an empty utterance, and for speakers that are not contiguous.
    """

    def __init__(self, numbers, speakers, lengths, recordings=None):
        order = np.argsort(speakers, kind="stable")
        self.numbers, self.speakers = (
            np.asarray(numbers, np.int64)[order],
            np.asarray(speakers, np.int64)[order],
        )
        self.lengths = np.asarray(lengths, np.int64)[order]
        self.recordings = self.numbers if recordings is None else np.asarray(recordings, np.int64)[order]
        self.counts = np.bincount(self.speakers)  # raises for negative ones
        if not len(order) or (self.counts == 0).any():
            raise VoxarkError("speakers must be numbered from 0 without gaps, and there must be one at least")
        if (self.lengths < 1).any():
            raise VoxarkError(
                f"utterance {self.numbers[np.argmin(self.lengths)]} has no frames: leave it out"
            )
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.num_speakers = len(self.counts)

    def __len__(self):
        return len(self.numbers)

    def select(self, chosen):
        """The TrainingSet of the utterances of a mask (N,), and the numbers here of its speakers."""
        present, speakers = np.unique(self.speakers[chosen], return_inverse=True)
        chosen_set = TrainingSet(
            self.numbers[chosen], speakers, self.lengths[chosen], self.recordings[chosen]
        )
        return chosen_set, present

    def fingerprint(self):
        """A word that changes with the data."""
        digest = hashlib.blake2b(digest_size=8)
        for values in (self.numbers, self.speakers, self.lengths, self.recordings):
            digest.update(values.tobytes())
        return digest.hexdigest()


def number_recordings(keys, utt2rec):
    """Numbers (N,) of the recordings of N utterances by a dict; an utterance without one is its own."""
    known = {}
    return np.array(
        [
            known.setdefault(("rec", utt2rec[key]) if key in utt2rec else ("utt", key), len(known))
            for key in keys
        ],
        np.int64,
    )


class BatchSampler:
    """Plans the batches of a TrainingSet: ``plan(epoch, number)``.

    Speakers with a single utterance take part: they are classes for identification and give non-target
    trials. A batch has no speaker twice, and no utterance twice (but the chunks of two-chunks, which are
    disjoint parts of utterances of at least twice --min-chunk).
    """

    def __init__(self, data, options, srand=0):
        options.check()
        self.options, self.srand, self._fingerprint = options, srand, data.fingerprint()
        self._names = None
        if options.batches == "two-chunks":
            long_enough = data.lengths >= 2 * options.min_chunk
            if not long_enough.any():
                raise VoxarkError(
                    f"--batches=two-chunks: no utterance has two chunks of --min-chunk={options.min_chunk}"
                )
            data, self._names = data.select(long_enough)
        self.data = data
        if data.num_speakers < 2 and options.batches != "identification":
            raise VoxarkError(f"batches of kind {options.batches} need two speakers or more, there is one")
        self.batch_speakers = min(options.batch_speakers, data.num_speakers)
        self.batch_utterances = min(2 * options.batch_speakers, len(data))
        if self.batch_speakers < options.batch_speakers and options.batches != "identification":
            logger.info("--batch-speakers=%d: there are %d", options.batch_speakers, data.num_speakers)

    def recordings_of(self, utterances):
        """Recordings (n,) of utterances (n,) of the training set, also where a plan says otherwise."""
        order = np.argsort(self.data.numbers, kind="stable")
        return self.data.recordings[order[np.searchsorted(self.data.numbers, utterances, sorter=order)]]

    def state_dict(self):
        """What the plans depend on, beside epoch and number: to be saved with a training."""
        return {"srand": self.srand, "data": self._fingerprint, "options": vars(self.options).copy()}

    def load_state_dict(self, state):
        """Check that a saved training goes on with the same plans. Raises VoxarkError naming what differs."""
        mine = self.state_dict()
        for name in ("data", "srand"):
            if state[name] != mine[name]:
                raise VoxarkError(
                    f"the batches cannot go on: {name} was {state[name]}, now it is {mine[name]}"
                )
        for name, value in mine["options"].items():
            if state["options"].get(name) != value:
                raise VoxarkError(
                    f"the batches cannot go on: --{name.replace('_', '-')} was "
                    f"{state['options'].get(name)}, now it is {value}"
                )

    def plan(self, epoch, number):
        """The BatchPlan of a place; it depends on --srand, epoch, number and the data alone."""
        rng = seeded_rng(self.srand, "batch", epoch, number)
        data, options = self.data, self.options
        length = int(rng.integers(options.min_chunk, options.max_chunk, endpoint=True))
        rows, shares = (
            self._any_rows(rng) if options.batches == "identification" else self._rows_of_speakers(rng)
        )
        group = np.full(len(rows), -1, np.int64)
        if options.max_enroll:
            group = _enrol(rng, data.speakers[rows], options.max_enroll)
        recordings = data.recordings[rows]
        if options.batches == "two-chunks":
            rows, group = np.repeat(rows, 2), np.repeat(group, 2)
            recordings = np.arange(len(rows))  # they are there to be compared
            shares = tuple(np.repeat(share, 2) if np.ndim(share) else share for share in shares)
            first, frames = _two_chunks(rng, data.lengths[rows[::2]], length)
        else:
            frames = np.minimum(data.lengths[rows], length)
            first = rng.integers(0, data.lengths[rows] - frames, endpoint=True)
        size = np.maximum(frames, options.min_chunk) if options.short_utterances == "whole" else length
        speakers = data.speakers[rows]
        return BatchPlan(
            epoch,
            number,
            length,
            data.numbers[rows],
            first,
            frames,
            np.broadcast_to(size, len(rows)),
            speakers if self._names is None else self._names[speakers],
            recordings,
            group,
            *shares,
        )

    def _any_rows(self, rng):
        """Utterances at random: all are equally likely, and so are all pairs."""
        total, number = len(self.data), self.batch_utterances
        rows = rng.choice(total, number, replace=False)
        one, two = number / total, number * (number - 1) / max(1, total * (total - 1))
        return rows, (np.full(number, one), np.full(number, two), 1.0, two / one**2)

    def _rows_of_speakers(self, rng):
        """Speakers at random, and up to the cap of utterances of each, in random order."""
        data, cap = self.data, self.options.cap()
        speakers = rng.choice(data.num_speakers, self.batch_speakers, replace=False)
        counts = data.counts[speakers]
        rows = _ranges(data.starts[speakers], counts)
        owner = np.repeat(np.arange(len(speakers)), counts)
        order = np.lexsort((rng.random(len(rows)), owner))  # owner is sorted already: this shuffles within it
        rank = _ranges(np.zeros_like(counts), counts)
        rows = rows[order[rank < cap]] if cap else rows[order]
        n = data.counts[data.speakers[rows]]
        m = np.minimum(n, cap) if cap else n
        if self.options.batches == "two-chunks":
            pair_share = 1.0 / n  # its two chunks
        else:
            pair_share = m * (m - 1) / np.maximum(1, n * (n - 1))
        chosen, total = self.batch_speakers, data.num_speakers
        return rows, (m / n, pair_share, chosen / total, chosen * (chosen - 1) / max(1, total * (total - 1)))


def _ranges(starts, counts):
    """starts[i] ... starts[i] + counts[i] - 1 for each i, joined."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) + np.repeat(starts - (ends - counts), counts)


def _enrol(rng, speakers, most):
    """Number of the model that each row enrols, -1 for test rows; ``speakers`` (M,) come in runs.

    A speaker of m >= 2 rows gives a model of k rows, k drawn from 1 to min(most, m - 1); the rest are tests.
    """
    starts = np.flatnonzero(np.append(True, speakers[1:] != speakers[:-1]))
    counts = np.diff(np.append(starts, len(speakers)))
    sizes = 1 + np.floor(rng.random(len(starts)) * np.minimum(most, counts - 1)).astype(np.int64)
    sizes[counts < 2] = 0
    models = np.where(sizes > 0, np.cumsum(sizes > 0) - 1, -1)
    rank = _ranges(np.zeros_like(counts), counts)
    return np.where(rank < np.repeat(sizes, counts), np.repeat(models, counts), -1)


def _two_chunks(rng, lengths, length):
    """First frames and frames (2n,) of two disjoint chunks of each utterance, in random order."""
    frames = np.minimum(lengths // 2, length)
    places = np.sort(
        rng.integers(0, (lengths - 2 * frames)[:, None], size=(len(lengths), 2), endpoint=True), axis=1
    )
    places[:, 1] += frames
    swap = rng.random(len(lengths)) < 0.5
    places[swap] = places[swap, ::-1]
    return places.reshape(-1), np.repeat(frames, 2)
