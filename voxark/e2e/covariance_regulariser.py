"""A penalty on the covariances of target scores that are in the wrong order [tutorial].

Scores of target trials that share an utterance (C_u) should vary together more than those that share the
speaker alone (C_s), and these more than those that share nothing (C_0), which should be 0:

    R = max(0, C_s - C_u + m) + max(0, C_0 - C_s + m) + C_0^2.

The covariances are averages over all pairs of the trials of a batch, by sums over groups: O(N^2) for N
utterances. The order of C_u and C_s takes speakers of at least four utterances to be seen.
"""

from typing import NamedTuple

import torch


class TargetCovariances(NamedTuple):
    """Mean products of deviations of target scores, float64 scalars with gradients, and numbers of pairs.

    shared: trials of one speaker that share an utterance (C_u); same: that do not (C_s); between: means of
    two speakers (C_0). A covariance without pairs is 0. ``num_shared``, ``num_same``: ordered pairs of
    trials; ``num_between``: ordered pairs of speakers.
    """

    shared: torch.Tensor
    same: torch.Tensor
    between: torch.Tensor
    num_shared: int
    num_same: int
    num_between: int


def target_covariances(scores, speakers, mask=None, mean=None):
    """TargetCovariances of the target trials i < j of a batch.

    scores (N,N), of which the part above the diagonal counts; speakers (N,) integers; mask (N,N) bool: pairs
    that are trials (default: all). ``mean``: what the scores deviate from; by default their mean in
    the batch, which makes C_0 of few speakers negative: about -1/S of the variance of their S means.
    """
    number, names = _renumbered(speakers)
    targets = (number[:, None] == number).triu(1)
    if mask is not None:
        targets = targets & mask
    ones = targets.to(torch.float64)
    num_trials = ones.sum()
    if num_trials == 0:
        zero = scores.new_zeros((), dtype=torch.float64)
        return TargetCovariances(zero, zero, zero, 0, 0, 0)
    x = torch.where(targets, scores.to(torch.float64), 0.0)
    centre = x.sum() / num_trials if mean is None else mean
    x = torch.where(targets, x - centre, 0.0)
    sums, trials = _group_sums(x, number, names), _group_sums(ones, number, names)
    products, counts = _pair_products(x, *sums), _pair_products(ones, *trials)
    present = trials[1] > 0
    means = sums[1][present] / trials[1][present]
    num_between = len(means) * (len(means) - 1)
    between = (means.sum() ** 2 - (means**2).sum()) / max(num_between, 1)
    num_shared, num_same = (int(count) for count in counts)
    shared, same = products[0] / max(num_shared, 1), products[1] / max(num_same, 1)
    return TargetCovariances(shared, same, between, num_shared, num_same, num_between)


def _renumbered(speakers):
    """Speakers numbered from 0 (N,), and how many there are."""
    names, number = torch.unique(speakers, return_inverse=True)
    return number, len(names)


def _group_sums(x, number, num_speakers):
    """Sums over the trials of each utterance (N,) and each speaker (S,) of x (N,N), 0 where is no target."""
    of_utterance = x.sum(0) + x.sum(1)
    of_speaker = x.new_zeros(num_speakers).index_add(0, number, x.sum(1))
    return of_utterance, of_speaker


def _pair_products(x, of_utterance, of_speaker):
    """Sums of products over ordered pairs of different trials that share an utterance, only the speaker."""
    itself, utterance, speaker = (x**2).sum(), (of_utterance**2).sum(), (of_speaker**2).sum()
    return utterance - 2.0 * itself, speaker - utterance + itself


def covariance_regulariser(scores, speakers, mask=None, mean=None, margin=0.0):
    """The penalty R (float64 scalar); arguments as of :func:`target_covariances`, ``margin``: m >= 0.

    A term is left out where a covariance of it has no pairs in the batch.
    """
    found = target_covariances(scores, speakers, mask, mean)
    penalty = found.shared.new_zeros(())
    if found.num_shared and found.num_same:
        penalty = penalty + torch.relu(found.same - found.shared + margin)
    if found.num_same and found.num_between:
        penalty = penalty + torch.relu(found.between - found.same + margin)
    if found.num_between:
        penalty = penalty + found.between**2
    return penalty
