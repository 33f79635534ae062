"""Losses of trials, correlated by what they share: sums of effects of speakers, utterances and pairs."""

from typing import NamedTuple

import numpy as np

from voxark.trials.sharing import Sharing
from spread import all_pairs


class TrialsOfCounts(NamedTuple):
    """All trials of one class of speakers with given numbers of utterances.

    speaker (N,) of each utterance; first, second (T,): utterances of each trial.
    """

    speaker: np.ndarray
    first: np.ndarray
    second: np.ndarray
    is_target: bool

    @classmethod
    def of(cls, counts, is_target):
        """Of speakers with ``counts`` (S,) utterances."""
        speaker = np.repeat(np.arange(len(counts)), counts)
        first, second, same = all_pairs(speaker)
        chosen = same == is_target
        return cls(speaker, first[chosen], second[chosen], is_target)

    def sharing(self):
        """The Sharing of voxark.trials of these trials."""
        pairs = np.stack((self.first, self.second))
        if self.is_target:
            return Sharing.of_targets(pairs, self.speaker[self.first])
        return Sharing.of_nontargets(pairs, self.speaker[pairs])

    def draw(self, components, number, rng):
        """Losses (number,T) of mean 0 and variance 1, of repetitions with new effects each."""
        num_utts, num_speakers = len(self.speaker), int(self.speaker.max()) + 1
        u, v = components.u**0.5, components.v**0.5
        of_speaker = u * rng.standard_normal((number, num_speakers))
        of_utterance = v * rng.standard_normal((number, num_utts))
        a, b = self.speaker[self.first], self.speaker[self.second]
        x = components.e**0.5 * rng.standard_normal((number, len(self.first)))
        x += of_utterance[:, self.first] + of_utterance[:, self.second] + of_speaker[:, a]
        if self.is_target:
            return x
        x += of_speaker[:, b]
        pair = rng.standard_normal((number, num_speakers, num_speakers)) * components.p**0.5
        x += pair[:, np.minimum(a, b), np.maximum(a, b)]
        own = rng.standard_normal((number, num_utts, num_speakers)) * components.q**0.5
        return x + own[:, self.first, b] + own[:, self.second, a]
