"""Weights of the trials of mini-batches that add up to the weights of all trials of the training set.

A batch holds some speakers and some utterances of each, and all pairs of these are its trials. Trial t is in
a batch with probability pi_t; with the weight v_t = w_t / pi_t, taken as it is and not normalised in the
batch, the batch's sum of v_t l_t is an unbiased estimate of the objective sum_t w_t l_t over all trials
(Horvitz and Thompson). The objective's weights are uniform or those of least variance,
:mod:`voxark.trials.blue`.

Batches A hold all utterances of their speakers, or at most ``cap`` at random; batches B two of each (cap 2).
numpy only.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.trials.blue import nontarget_classes, target_classes, target_row_sum

_ODDS_ITERS = 200


class SpeakerDraw:
    """Draws B of S speakers without replacement, with known probabilities.

    ``inclusion`` (S,): that a speaker is drawn; :meth:`joint`: that two are. Made by :meth:`uniform` or
    :meth:`proportional`.
    """

    def __init__(self, number, group, single, pair, odds=None):
        # odds (G,) by group of speakers; infinite for those who are always drawn; None: all alike
        self.number, self._group, self._single, self._pair, self._odds = number, group, single, pair, odds

    @classmethod
    def uniform(cls, num_speakers, number):
        """Every set of ``number`` speakers alike: B/S and B(B-1) / (S(S-1))."""
        _check_number(num_speakers, number)
        joint = number * (number - 1) / (num_speakers * (num_speakers - 1))
        single = np.array([number / num_speakers])
        return cls(number, np.zeros(num_speakers, np.int64), single, np.array([[joint]]))

    @classmethod
    def proportional(cls, sizes, number):
        """Speakers by ``sizes`` (S,) > 0: drawn with probabilities proportional to them, but at most 1.

        Of all such designs the one of the largest entropy (conditional Poisson sampling): independent draws
        of all speakers, given that ``number`` are drawn. Sizes within 1e-6 of each other count as equal.
        """
        sizes = np.asarray(sizes, np.float64)
        _check_number(len(sizes), number)
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            raise VoxarkError("speakers can only be drawn by sizes that are positive and finite")
        values, group, counts = np.unique(np.round(np.log(sizes), 6), return_inverse=True, return_counts=True)
        single = _limited(np.exp(values - values.max()), counts, number)
        if number - counts[single == 1.0].sum() == 1 and counts[single < 1.0].sum() > 1:
            raise VoxarkError(
                f"{number - 1} of the {number} speakers of a batch would be the same in all batches, so that "
                "most pairs of speakers never meet: draw more speakers, or by sizes that differ less"
            )
        odds = _odds_of(single, counts, number)
        return cls(number, group, single, _joint(single, odds, counts, number), odds)

    @property
    def inclusion(self):
        """(S,) probabilities of the speakers."""
        return self._single[self._group]

    def joint(self, first, second):
        """Probabilities that both of two different speakers are drawn, of arrays of their numbers."""
        return self._pair[self._group[first], self._group[second]]

    def draw(self, rng):
        """Numbers (B,) of the speakers of a batch, rising; ``rng``: a numpy Generator."""
        num_speakers = len(self._group)
        if self._odds is None:
            return np.sort(rng.choice(num_speakers, self.number, replace=False))
        chance = _chances(self._odds)[self._group]
        while True:  # the number that is wanted is the mean, so that one draw in some tens has it
            chosen = rng.random(num_speakers) < chance
            if np.count_nonzero(chosen) == self.number:
                return np.flatnonzero(chosen)


def _check_number(num_speakers, number):
    if not 2 <= number <= num_speakers:
        raise VoxarkError(f"a batch of {number} speakers cannot be drawn from {num_speakers}: at least 2")


def _limited(sizes, counts, number):
    """Probabilities (G,) proportional to sizes (G,), at most 1, whose sum over all speakers is ``number``."""
    always = np.zeros(len(sizes), bool)
    while True:
        left = number - counts[always].sum()
        if left <= 0 or always.all():
            return always.astype(np.float64)
        single = np.where(always, 1.0, sizes * (left / (counts * sizes)[~always].sum()))
        beyond = ~always & (single >= 1.0 - 1e-12)
        if not beyond.any():
            return single
        always |= beyond


def _odds_of(single, counts, number):
    """Odds (G,) of independent draws that have probabilities ``single``, given that ``number`` are drawn."""
    free = single < 1.0
    odds = np.where(free, single / np.where(free, 1.0 - single, 1.0), np.inf)
    if not free.any():
        return odds
    wanted, left = single[free], number - int(counts[~free].sum())
    for _ in range(_ODDS_ITERS):
        found = _inclusion(odds[free], counts[free], left)
        if np.abs(found / wanted - 1.0).max() < 1e-12:
            break
        odds[free] *= wanted * (1.0 - found) / (found * (1.0 - wanted))
    # the same for any multiple of the odds: take the one whose expected number is right
    odds[free] *= _scale_to(odds[free], counts[free], left)
    return odds


def _scale_to(odds, counts, number):
    """The factor of the odds (G,) at which independent draws have the expected ``number``, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        scaled = odds * np.exp(middle)
        low, high = (middle, high) if counts @ (scaled / (1.0 + scaled)) < number else (low, middle)
    return np.exp(0.5 * (low + high))


def _chances(odds):
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(odds), 1.0, odds / (1.0 + odds))


def _inclusion(odds, counts, number):
    """Probabilities (G,) of one of each group, independent draws having ``number`` in all."""
    chance = odds / (1.0 + odds)
    before = [np.ones(1)]
    for of_group in zip(counts, chance):
        before.append(np.convolve(before[-1], _binomial(*of_group, number))[: number + 1])
    after, found = np.ones(1), np.empty(len(odds))
    for place in reversed(range(len(odds))):
        others = np.convolve(before[place], after)[: number + 1]
        without = np.convolve(others, _binomial(counts[place] - 1, chance[place], number))
        found[place] = chance[place] * without[number - 1] / before[-1][number]
        after = np.convolve(after, _binomial(counts[place], chance[place], number))[: number + 1]
    return found


def _binomial(count, chance, limit):
    """Probabilities (limit + 1,) of 0 to ``limit`` successes in ``count`` draws."""
    k = np.arange(1, limit + 1)
    steps = np.maximum(count - k + 1, 0) / k * (chance / (1.0 - chance))
    with np.errstate(divide="ignore"):
        logs = np.concatenate(([0.0], np.cumsum(np.log(steps)))) + count * np.log1p(-chance)
    return np.exp(logs)


def _joint(single, odds, counts, number):
    """Probabilities (G,G) that one of each group, or two of one group, are drawn.

    With odds o: pi_ij = (o_j pi_i - o_i pi_j) / (o_j - o_i), and the sum over j is (number - 1) pi_i, which
    gives what is left for the own group.
    """
    always = np.isinf(odds)
    finite = np.where(always, 1.0, odds)
    difference = finite - finite[:, None]
    difference[difference == 0.0] = 1.0  # of a group with itself, or of two that are always drawn
    pair = (finite * single[:, None] - finite[:, None] * single) / difference
    pair = np.where(always[:, None] | always, np.outer(single, single), pair)
    np.fill_diagonal(pair, 0.0)
    rest = (number - 1) * single - pair @ counts
    np.fill_diagonal(pair, np.where(counts > 1, rest / np.maximum(counts - 1, 1), 0.0))
    return pair


# ---------------------------------------------------------------------------------------------------- weights


class BatchWeights(NamedTuple):
    """Weights of the trials of batches for S speakers.

    ``draw``: the SpeakerDraw of the batches; ``num_drawn`` (S,): utterances of a speaker in a batch;
    ``target`` (S,): weight of a target trial of each speaker (0 where he has none); ``nontarget`` (P,P),
    ``row`` (S,): a nontarget trial of speakers a, b has the weight nontarget[row[a], row[b]] over the
    probability that both are drawn.
    """

    draw: SpeakerDraw
    num_drawn: np.ndarray
    target: np.ndarray
    nontarget: np.ndarray
    row: np.ndarray

    def of_pairs(self, speakers):
        """Weights (N,N) of all pairs of the N utterances of a batch, given the numbers of their speakers.

        The diagonal is no trial, and 0.
        """
        speakers = np.asarray(speakers)
        rows = self.row[speakers]
        same = speakers[:, None] == speakers
        weights = np.where(same, self.target[speakers], self._across(speakers, rows))
        np.fill_diagonal(weights, 0.0)
        return weights

    def _across(self, speakers, rows):
        joint = self.draw.joint(speakers[:, None], speakers)
        return self.nontarget[rows[:, None], rows] / np.where(joint > 0.0, joint, 1.0)


def speaker_sizes(counts, components):
    """Sizes (S,) N(n) / r(n) to draw speakers by: the weight of all target trials of a speaker [tutorial].

    Target trials of batches B then have equal weights. Speakers of one utterance, who have none, get the size
    of two, for they have nontarget trials.
    """
    n = np.maximum(np.asarray(counts), 2)
    return 0.5 * n * (n - 1) / target_row_sum(n, components)


def batch_weights(counts, correlations, draw, cap=0):
    """BatchWeights of S speakers with ``counts`` (S,) utterances.

    correlations: Correlations of both classes, or None for an objective of uniform weights. draw:
    SpeakerDraw; cap: utterances of a speaker in a batch, drawn uniformly (B: 2), or 0 for all of them (A).
    VoxarkError for a cap of 1, which leaves no target trial.
    """
    counts = np.asarray(counts)
    if cap == 1 or cap < 0:
        raise VoxarkError(f"{cap} utterances a speaker give no target trials: at least 2, or 0 for all")
    num_drawn = np.minimum(counts, cap) if cap else counts
    share = num_drawn / np.maximum(counts, 1)
    pairs = num_drawn * (num_drawn - 1) / np.maximum(counts * (counts - 1), 1)  # of a speaker's own pairs
    of_targets, of_nontargets = _objective(counts, correlations)
    inclusion = draw.inclusion * pairs
    target = np.where(inclusion > 0.0, of_targets / np.where(inclusion > 0.0, inclusion, 1.0), 0.0)
    n, row = np.unique(counts, return_inverse=True)
    of_count = np.zeros(len(n))
    of_count[row] = share
    shares = np.outer(of_count, of_count)
    nontarget = np.where(shares > 0.0, of_nontargets / np.where(shares > 0.0, shares, 1.0), 0.0)
    return BatchWeights(draw, num_drawn, target, nontarget, row)


def _objective(counts, correlations):
    """The objective's weights: of a target trial by speaker (S,), of a nontarget one by counts (P,P)."""
    n, row, num_speakers = np.unique(counts, return_inverse=True, return_counts=True)
    if correlations is None:
        targets = np.sum(counts * (counts - 1) // 2)
        nontargets = (int(counts.sum()) ** 2 - int((counts**2).sum())) // 2
        if not targets or not nontargets:
            raise VoxarkError("the training set has no target or no nontarget trials")
        return np.where(counts >= 2, 1.0 / targets, 0.0), np.full((len(n), len(n)), 1.0 / nontargets)
    targets = target_classes(counts, correlations.target)
    of_targets = np.zeros(len(n))
    of_targets[np.searchsorted(n, targets.n)] = targets.weight
    nontargets = nontarget_classes(counts, correlations.nontarget)
    of_nontargets = np.zeros((len(n), len(n)))
    where = np.searchsorted(n, nontargets.n)
    of_nontargets[np.ix_(where, where)] = nontargets.weight
    return of_targets[row], of_nontargets


def own_weights(speakers, correlations):
    """Weights (N,N) of least variance for the pairs of one batch alone, by its own counts; the diagonal is 0.

    speakers (N,) of its utterances. They sum to 1 over the pairs i < j of either class, and serve who wants
    the variance of a single step small; the objective that they lead to is that of the batches.
    """
    _, place, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    of_targets, of_nontargets = _objective(counts, correlations)
    row = np.unique(counts, return_inverse=True)[1][place]
    weights = np.where(place[:, None] == place, of_targets[place], of_nontargets[row[:, None], row])
    np.fill_diagonal(weights, 0.0)
    return weights
