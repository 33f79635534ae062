"""Replicates of a set of trials, in which speakers are drawn again or left out, and what their values tell.

The trials of a speaker, on either side, go together: in a replicate speaker s counts m_s times, a target
trial of s m_s times, a non-target trial of a and b m_a m_b times.

- bootstrap: m is drawn, as speakers are with replacement (the "pigeonhole" of two-way data, Owen 2007).
- jackknife: each speaker is left out in turn. Effects of speakers are counted as they are, but the effect of
  a pair of speakers twice, once for each of the two [Efron and Stein 1981]. So more replicates each leave out
  a set of pairs in which no speaker occurs twice: effects of speakers cancel in their variance, which is that
  of pairs alone and is taken off once. (The bootstrap counts pairs three times and is left as it is.)
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng

_MOST_BIAS = 1.0  # standard errors: the bias of few speakers is itself uncertain


class SpeakerWeights:
    """Weights of the trials of a data set in which speaker s counts m_s times.

    ``target`` (N,) bool and ``speakers`` (TrialSpeakers) are of the same trials; ``weights`` (N,) of the
    trials themselves multiply with those of the speakers. ``num_speakers``: of the class that has fewer.
    """

    def __init__(self, target, speakers, weights=None):
        self.names = speakers.names
        self._of_target = speakers.enroll[target]
        self._first, self._second = speakers.enroll[~target], speakers.test[~target]
        self._base = (1, 1) if weights is None else (weights[target], weights[~target])
        of_nontarget = np.unique(np.concatenate((self._first, self._second)))
        self.num_speakers = min(len(np.unique(self._of_target)), len(of_nontarget))
        if self.num_speakers < 2:
            raise VoxarkError(
                "intervals over speakers need at least 2 speakers with target trials and with non-target "
                f"trials, found {self.num_speakers}"
            )

    def of(self, multiplicities):
        """(weights of the targets, of the non-targets) for m (S,); None if a class would be empty."""
        of_target = multiplicities[self._of_target] * self._base[0]
        of_nontarget = multiplicities[self._first] * multiplicities[self._second] * self._base[1]
        return (of_target, of_nontarget) if of_target.any() and of_nontarget.any() else None

    def bootstrap(self, num_replicates, rng):
        """Yield weights of replicates of speakers drawn with replacement; no draw leaves a class empty."""
        size, spare = len(self.names), 100 * num_replicates
        for _ in range(num_replicates):
            while (found := self.of(np.bincount(rng.integers(0, size, size), minlength=size))) is None:
                spare -= 1
                if spare < 0:
                    raise VoxarkError("too few speakers: a class of trials is empty in most draws")
            yield found

    def jackknife(self):
        """Yield weights of replicates that leave out a speaker each, with all trials of theirs."""
        for speaker, name in enumerate(self.names):
            multiplicities = np.ones(len(self.names), np.int64)
            multiplicities[speaker] = 0
            found = self.of(multiplicities)
            if found is None:
                raise VoxarkError(
                    f"without the speaker {name} there would be no target or no non-target trials: "
                    "too few speakers for the jackknife"
                )
            yield found

    def pair_jackknife(self):
        """Yield weights of replicates that each leave out pairs of speakers in which no speaker occurs twice.

        Pairs are those whose numbers add up to the same, modulo their number: a round of a tournament.
        """
        number = (self._first + self._second) % len(self.names)
        of_target = np.ones(len(self._of_target), np.int64) * self._base[0]
        of_all = np.ones(len(number), np.int64) * self._base[1]
        for left_out in np.unique(number).tolist():
            of_nontarget = np.where(number == left_out, 0, of_all)
            if of_nontarget.any():
                yield of_target, of_nontarget


def trial_bootstrap(rocs, target, weights, num_replicates, rng):
    """Yield weights of replicates in which trials of either class are drawn as if they were independent.

    Trials are numbered by their scores (of the first system, then of the next), not by their place in a list.
    """
    orders = [np.lexsort(scores[::-1]) for scores in zip(*(roc.given_scores() for roc in rocs))]
    base = (1, 1) if weights is None else (weights[target], weights[~target])
    for _ in range(num_replicates):
        found = []
        for order, of_class in zip(orders, base):
            drawn = np.empty(len(order), np.int64)
            drawn[order] = np.bincount(rng.integers(0, len(order), len(order)), minlength=len(order))
            found.append(drawn * of_class)
        yield tuple(found)


# --------------------------------------------------------------------------------------- values of replicates


class Spread(NamedTuple):
    """What replicates say of an estimate.

    ``values`` (R,...): over replicates; ``pairs`` (G,...): over those that leave out pairs, or None;
    ``is_jackknife``: the replicates leave out one part each; ``degrees``: of freedom of Student's t, inf for
    the normal distribution.
    """

    values: np.ndarray
    pairs: np.ndarray | None
    is_jackknife: bool
    degrees: float

    def map(self, function):
        """The Spread of a function of the values."""
        return self._replace(
            values=function(self.values), pairs=None if self.pairs is None else function(self.pairs)
        )

    def error(self):
        """Standard error (...)."""
        if not self.is_jackknife:
            return self.values.std(axis=0, ddof=1)
        variance = jackknife_variance(self.values)
        if self.pairs is not None and len(self.pairs) > 1:  # if all were of pairs, it would be counted twice
            variance = np.maximum(variance - jackknife_variance(self.pairs), 0.5 * variance)
        return np.sqrt(variance)

    def bias(self, estimate):
        """Bias (...) of an estimate, at most a standard error in size."""
        bias = (self.values.mean(axis=0) - estimate) * (len(self.values) - 1 if self.is_jackknife else 1)
        most = _MOST_BIAS * self.error()
        return np.clip(bias, -most, most)

    def quantile(self, level):
        """How many standard errors an interval of a level reaches to either side."""
        from scipy.special import ndtri, stdtrit

        upper = 0.5 * (1.0 + level)
        return float(stdtrit(self.degrees, upper) if np.isfinite(self.degrees) else ndtri(upper))

    def p_value(self, t):
        """Probability, two-sided, of more than t standard errors from the truth."""
        from scipy.special import ndtr, stdtr

        return float(2.0 * (stdtr(self.degrees, -abs(t)) if np.isfinite(self.degrees) else ndtr(-abs(t))))


def jackknife_variance(values):
    """(R-1)/R times the sum of squares about the mean, of values (R,...) with one of R parts left out."""
    size = len(values)
    return (size - 1) / size * np.square(values - values.mean(axis=0)).sum(axis=0)


def replicate(rocs, target, speakers, measures, options, weights=None):
    """Spread of the values (R,len(rocs),len(measures)) of measures of one or more Rocs of the same trials.

    Arguments as of :func:`voxark.metrics.intervals.confidence`. All systems get the same weights.
    """
    options.check()

    def values(of_replicates):
        found = []
        for of_classes in of_replicates:
            reweighted = [roc.reweighted(*of_classes) for roc in rocs]
            found.append([[measure(roc) for measure in measures.values()] for roc in reweighted])
        return np.array(found, np.float64)

    if options.ci == "naive":
        rng = seeded_rng(options.srand, "trial bootstrap")
        drawn = trial_bootstrap(rocs, target, weights, options.ci_replicates, rng)
        return Spread(values(drawn), None, False, np.inf)
    if speakers is None:
        raise VoxarkError(f"--ci={options.ci} needs --utt2spk=<rspecifier>, the speaker of each utterance")
    of_speakers = SpeakerWeights(target, speakers, weights)
    degrees = of_speakers.num_speakers - 1.0
    if options.ci == "jackknife":
        pairs = values(of_speakers.pair_jackknife())
        return Spread(values(of_speakers.jackknife()), pairs if len(pairs) else None, True, degrees)
    rng = seeded_rng(options.srand, "speaker bootstrap")
    return Spread(values(of_speakers.bootstrap(options.ci_replicates, rng)), None, False, degrees)
