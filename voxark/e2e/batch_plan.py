"""What a batch holds: utterances and frames, who speaks, which pairs of rows are trials, how likely."""

from typing import NamedTuple

import numpy as np


class BatchPlan(NamedTuple):
    """M rows, each a chunk of an utterance; ``length`` is the chunks' length in frames.

    utterances (M,): numbers in the index of features; first, frames (M,): the frames to read; size (M,): the
    frames that the row has in the batch, above ``frames`` where the utterance is too short and is repeated.
    speakers (M,): classes; recordings (M,): equal where two rows were cut from the same recording.
    enrol_group (M,): number of the model that the row enrols, -1 for a test row; all -1 where trials are
    pairs of rows.

    Inclusion probabilities [methods: Mini-batches]: ``row_share`` (M,), of the row's utterance, and
    ``pair_share`` (M,), of two given utterances of its speaker, where the speaker takes part;
    ``speaker_share``, of a speaker, and ``two_speakers_share``, of two given speakers.
    """

    epoch: int
    number: int
    length: int
    utterances: np.ndarray
    first: np.ndarray
    frames: np.ndarray
    size: np.ndarray
    speakers: np.ndarray
    recordings: np.ndarray
    enrol_group: np.ndarray
    row_share: np.ndarray
    pair_share: np.ndarray
    speaker_share: float
    two_speakers_share: float

    @property
    def num_rows(self):
        """M."""
        return len(self.utterances)

    # ---- pairs of rows

    def pair_masks(self):
        """Target and non-target trials among pairs of rows i < j: two masks (M,M).

        Pairs cut from the same recording are neither: they would teach the channel.
        """
        same = self.speakers[:, None] == self.speakers[None]
        usable = np.triu(self.recordings[:, None] != self.recordings[None], 1)
        return usable & same, usable & ~same

    def pair_probabilities(self):
        """Probability (M,M) that a batch holds the trial of two rows' utterances.

        Horvitz and Thompson: what is divided by it adds up, on average over batches, to the sum over all
        trials of the training set. Of a target trial it is (B/S) m(m-1) / (n(n-1)) with B of S speakers and m
        of the speaker's n utterances in a batch; of a non-target trial B(B-1) / (S(S-1)) (m/n) (m'/n').
        """
        same = self.speakers[:, None] == self.speakers[None]
        apart = self.two_speakers_share * np.outer(self.row_share, self.row_share)
        return np.where(same, self.speaker_share * self.pair_share[:, None], apart)

    def row_probabilities(self):
        """Probability (M,) that a batch holds the row's utterance."""
        return self.speaker_share * self.row_share

    # ---- models of several utterances

    @property
    def num_models(self):
        """K, the number of models that rows enrol; 0 where trials are pairs of rows."""
        return int(self.enrol_group.max(initial=-1)) + 1

    def enrolment(self):
        """Weights (K,M) float64 that average the rows of each model: 1 / its number of rows."""
        members = self.enrol_group[None] == np.arange(self.num_models)[:, None]
        return members / members.sum(axis=1, keepdims=True)

    def model_masks(self):
        """Target and non-target trials of models against test rows: two masks (K,M).

        A test row enrols no model, and shares no recording with one of the model's rows.
        """
        members = self.enrol_group[None] == np.arange(self.num_models)[:, None]
        shared = members.astype(np.float32) @ (self.recordings[:, None] == self.recordings[None]) > 0
        usable = ~shared & (self.enrol_group < 0)[None]
        same = self.speakers[members.argmax(axis=1)][:, None] == self.speakers[None]
        return usable & same, usable & ~same
