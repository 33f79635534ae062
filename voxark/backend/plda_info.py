"""What a PLDA model expects of speakers and trials: spectrum, effective dimension, separation, error rate.

All of it follows from psi alone, if vectors come as the model says and are scored with it, one against one.
"""

from typing import NamedTuple

import numpy as np

_MOST_TERMS = 1 << 22
_BLOCK_TERMS = 1 << 9  # of the first block; each is twice the last
_TAIL = 1e-9  # of the probability that is neglected


class LlrMoments(NamedTuple):
    """Mean and variance of the LLR of target and non-target trials, by direction, (D,) each."""

    target_mean: np.ndarray
    nontarget_mean: np.ndarray
    target_variance: np.ndarray
    nontarget_variance: np.ndarray

    def separation(self):
        """d' (D,) of each direction alone: difference of the means by the root of the mean variance."""
        return _separation(*self)

    def total_separation(self):
        """d' of the sum over directions, the LLR itself: means and variances add up."""
        return float(_separation(*(part.sum() for part in self)))


def _separation(target_mean, nontarget_mean, target_variance, nontarget_variance):
    spread = np.sqrt(0.5 * (target_variance + nontarget_variance))
    return (target_mean - nontarget_mean) / np.where(spread > 0, spread, 1.0)


def llr_forms(psi):
    """The LLR as a sum of weighted independent chi-squares of one degree: weights of targets (2D,) and of
    non-targets (2D,), and the constants k (D,).

    With p = (e+t)/sqrt(2) and q = (e-t)/sqrt(2), a e t + r (e^2 + t^2) = (r + a/2) p^2 + (r - a/2) q^2; p and
    q are independent, of variances 1 + 2 psi and 1 for targets, 1 + psi for non-targets.
    """
    cross = psi / (1.0 + 2.0 * psi)
    square = 0.5 * psi * (1.0 / (1.0 + 2.0 * psi) - 1.0 / (1.0 + psi))
    of_p, of_q = square + 0.5 * cross, square - 0.5 * cross
    constant = 0.5 * np.log(np.square(1.0 + psi) / (1.0 + 2.0 * psi))
    target = np.concatenate((of_p * (1.0 + 2.0 * psi), of_q))
    return target, np.concatenate((of_p, of_q)) * np.tile(1.0 + psi, 2), constant


def llr_moments(psi):
    """LlrMoments of psi (D,)."""
    target, nontarget, constant = llr_forms(np.asarray(psi, np.float64))
    means, variances = [], []
    for weights in (target, nontarget):
        of_direction = weights.reshape(2, -1)
        means.append(of_direction.sum(axis=0) + constant)
        variances.append(2.0 * np.square(of_direction).sum(axis=0))
    return LlrMoments(*means, *variances)


def probability_below(x, weights, constant=0.0):
    """P(sum_j w_j chi2_j + constant < x) for independent chi-squares of one degree, weights (J,) of any sign.

    By inversion of the characteristic function [Davies 1973]: a sum over frequencies whose step keeps what
    aliases below _TAIL (a bound by Chernoff) and which ends where the terms are negligible.
    """
    weights = weights[np.abs(weights) > 1e-12 * np.abs(weights).max()]
    x = x - constant
    mean, deviation = weights.sum(), np.sqrt(2.0 * np.square(weights).sum())
    reach = _reach(weights) + abs(x - mean)
    step = 2.0 * np.pi / (reach + deviation)
    total, begin, block = 0.0, 0, _BLOCK_TERMS
    while begin < _MOST_TERMS:
        number = np.arange(begin, begin + block) + 0.5
        frequency = number * step
        log_size, phase = np.zeros(block), -frequency * x
        for weight in weights.tolist():
            log_size -= 0.25 * np.log1p(np.square(2.0 * weight * frequency))
            phase += 0.5 * np.arctan(2.0 * weight * frequency)
        size = np.exp(log_size) / number
        total += np.sum(size * np.sin(phase))
        if size[-1] < 0.1 * _TAIL:  # the terms oscillate: their rest is of the order of the last
            break
        begin, block = begin + block, min(2 * block, 1 << 16)
    return float(np.clip(0.5 - total / np.pi, 0.0, 1.0))


def _reach(weights):
    """A distance from the mean that weighted chi-squares exceed with a probability below _TAIL."""
    return max(_upper_reach(weights), _upper_reach(-weights))


def _upper_reach(weights):
    """Chernoff: P(X - mean > c) <= exp(-s c - sum_j (s w_j + ln(1 - 2 s w_j)/2)), the best of some s."""
    largest = max(weights.max(), 0.0)
    deviation = np.sqrt(2.0 * np.square(weights).sum())
    s = np.linspace(0.01, 0.99, 99) * (0.5 / largest if largest > 0 else 10.0 / deviation)
    bounds = -np.sum(s * weights[:, None] + 0.5 * np.log1p(-2.0 * s * weights[:, None]), axis=0)
    return float(np.min((bounds - np.log(_TAIL)) / s))


def expected_eer(psi):
    """(equal error rate, its threshold) of trials of one vector against one, as the model has them.

    Exact but for rounding and the neglected tail. None for psi of zero throughout: all scores are equal.
    """
    psi = np.asarray(psi, np.float64)
    psi = psi[psi > 1e-10 * max(psi.max(), 1e-300)]
    if not len(psi) or psi.max() <= 0:
        return None
    target, nontarget, constant = llr_forms(psi)
    shift, moments = constant.sum(), [part.sum() for part in llr_moments(psi)]
    low, high = moments[1] - 2.0 * np.sqrt(moments[3]), moments[0] + 2.0 * np.sqrt(moments[2])
    excess = {}
    for bound in (low, high):
        excess[bound] = _miss_and_false_alarm(bound, target, nontarget, shift)
    while True:
        # secant on the difference of the rates, which is nearly straight here, kept inside the bracket
        at_low, at_high = (miss - false_alarm for miss, false_alarm in (excess[low], excess[high]))
        threshold = low - at_low * (high - low) / (at_high - at_low)
        margin = 0.02 * (high - low)
        threshold = min(max(threshold, low + margin), high - margin)
        miss, false_alarm = excess[threshold] = _miss_and_false_alarm(threshold, target, nontarget, shift)
        if abs(miss - false_alarm) < 1e-8 or high - low < 1e-9:
            return 0.5 * (miss + false_alarm), float(threshold)
        low, high = (threshold, high) if miss < false_alarm else (low, threshold)


def _miss_and_false_alarm(threshold, target, nontarget, shift):
    return probability_below(threshold, target, shift), 1.0 - probability_below(threshold, nontarget, shift)


def describe(plda):
    """A dict of what can be said of a Plda: numbers and lists of numbers, ready for JSON."""
    psi, (within, between) = plda.psi, plda.covariances()
    moments, eer = llr_moments(psi), expected_eer(psi)
    traces = float(np.trace(within)), float(np.trace(between))
    squares = float(np.square(psi).sum())
    return {
        "dim": plda.dim,
        "psi_sum": float(psi.sum()),
        "psi_largest": float(psi.max()),
        "psi_smallest": float(psi.min()),
        "speaker_dim": float(np.sum(psi / (1.0 + psi))),
        "participation_ratio": float(psi.sum() ** 2 / squares) if squares > 0 else 0.0,
        "trace_within": traces[0],
        "trace_between": traces[1],
        "between_share": traces[1] / (traces[0] + traces[1]),
        "mean_length": float(np.linalg.norm(plda.mean)),
        "separation": moments.total_separation(),
        "expected_eer": None if eer is None else eer[0],
        "expected_eer_threshold": None if eer is None else eer[1],
        "direction": [{"number": number, "psi": of, "separation": separation} for number, (of, separation)
                      in enumerate(zip(psi.tolist(), moments.separation().tolist()))],
    }
