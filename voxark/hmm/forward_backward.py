"""Forward-backward [lecture] over joined utterances: scaled where provably exact, else in the log domain.

    log alpha_1 = ln pi + b_1        log alpha_t(s) = b_t(s) + lse_s'(log alpha_t-1(s') + ln a_s's)
    log beta_T = ln final            log beta_t(s)  = lse_s'(ln a_ss' + b_t+1(s') + log beta_t+1(s'))
    ln p = lse_s(log alpha_T(s) + ln final_s)
    gamma_t(s) = exp(log alpha_t(s) + log beta_t(s) - ln p)
    xi_t(i,j) = exp(log alpha_t(i) + ln a_ij + b_t+1(j) + log beta_t+1(j) - ln p)

b (N,S) = ln p(x|s) of the frames of all utterances in a row, lengths (B,) their numbers of frames, all >= 1.
"""

from typing import NamedTuple

import numpy as np

from voxark.hmm.model import safe_log
from voxark.hmm.packing import Packing, first_rows, last_rows, sum_by_utterance

FLOOR = 1e-290  # the scaled variables never fall below it, so what underflow would lose is bounded
TOLERANCE = 1e-13  # accepted bound on what the floor adds, relative to p
XI_CELLS = 1 << 20  # arcs times frames that are held at a time


class StatePosteriors(NamedTuple):
    """What the E-step needs: ln p (B,), -inf without a path; gamma (N,S); the sum of all xi (S,S).

    gamma of an utterance without a path is 0.
    """

    log_likelihood: np.ndarray
    gamma: np.ndarray
    transition_sums: np.ndarray


def forward_backward(hmm, b, lengths):
    """Return the StatePosteriors of joined utterances under an Hmm.

    The fast scaled recursions are used, and where their rounding is not bounded (utterances without a path,
    models whose states differ by hundreds of nats over a stretch) the log domain, for those utterances alone.
    """
    if hmm.num_states > 64 and 8 * len(hmm.arcs.source) < hmm.num_states**2:
        return LogTrellis(hmm, b, lengths).posteriors()  # few arcs: products with zeros would cost more
    lengths = np.asarray(lengths)
    found, certain = scaled_forward_backward(hmm, b, lengths)
    if certain.all():
        return found
    frames = np.repeat(certain, lengths)
    exact = LogTrellis(hmm, b[~frames], lengths[~certain]).posteriors()
    if not certain.any():
        return exact
    found, _ = scaled_forward_backward(hmm, b[frames], lengths[certain])
    log_likelihood, gamma = np.empty(len(lengths)), np.empty(b.shape)
    log_likelihood[certain], log_likelihood[~certain] = found.log_likelihood, exact.log_likelihood
    gamma[frames], gamma[~frames] = found.gamma, exact.gamma
    return StatePosteriors(log_likelihood, gamma, found.transition_sums + exact.transition_sums)


# ------------------------------------------------------------------------------------------------- log domain


def _lse(values):
    """Return ln sum exp over the last axis; -inf of nothing but -inf."""
    peak = values.max(axis=-1, keepdims=True)
    peak[~np.isfinite(peak)] = 0.0
    return safe_log(np.exp(values - peak).sum(axis=-1)) + peak[..., 0]


def _lse_over_arcs(values, arcs, out):
    """out (n,S) = ln of the sum of exp(values + ln a) over the arcs into each state; values (n,S)."""
    terms = values[:, arcs.source] + arcs.log_prob
    peak = np.maximum.reduceat(terms, arcs.starts, axis=1)
    peak[~np.isfinite(peak)] = 0.0
    terms -= peak[:, arcs.segment]
    total = np.add.reduceat(np.exp(terms, out=terms), arcs.starts, axis=1)
    out[...] = -np.inf
    out[:, arcs.targets] = safe_log(total) + peak


class LogTrellis:
    """Forward and backward log-probabilities of joined utterances: log_alpha, log_beta (N,S), ln p (B,).

    The reference: exact for every model. A frame costs as many exponentials as there are transitions above 0.
    """

    def __init__(self, hmm, b, lengths):
        self.hmm, self.b, self.lengths = hmm, b, np.asarray(lengths)
        packing = Packing(self.lengths)
        packed = b[packing.rows]
        self.log_alpha = packing.joined(self._forward(packed, packing))
        self.log_beta = packing.joined(self._backward(packed, packing))
        self.log_likelihood = _lse(self.log_alpha[last_rows(self.lengths)] + safe_log(hmm.final))
        self._impossible = np.repeat(~np.isfinite(self.log_likelihood), self.lengths)
        # ln p as frame t sees it: the same at each t but for rounding, which so cancels in posteriors
        self._norm = np.where(self._impossible, 0.0, _lse(self.log_alpha + self.log_beta))

    def _forward(self, b, packing):
        alpha = np.empty_like(b)
        alpha[: packing.counts[0]] = safe_log(self.hmm.initial) + b[: packing.counts[0]]
        arcs = self.hmm.arcs
        for before, now in packing.steps():
            if len(arcs.source):
                _lse_over_arcs(alpha[before], arcs, alpha[now])
                alpha[now] += b[now]
            else:
                alpha[now] = -np.inf
        return alpha

    def _backward(self, b, packing):
        beta = np.empty_like(b)
        log_final, arcs = safe_log(self.hmm.final), self.hmm.reverse_arcs
        for going_on, ending, following in packing.steps_back():
            beta[ending] = log_final
            if going_on.start != going_on.stop:
                if len(arcs.source):
                    _lse_over_arcs(b[following] + beta[following], arcs, beta[going_on])
                else:
                    beta[going_on] = -np.inf
        return beta

    def log_gamma(self):
        """Return ln gamma (N,S); -inf throughout where there is no path."""
        out = self.log_alpha + self.log_beta - self._norm[:, None]
        out[self._impossible] = -np.inf
        return out

    def log_xi(self, rows, arcs=None):
        """Return ln xi (n,E) of the transitions into the joined frames ``rows`` (n,), none a first one.

        The transitions are the model's own, or those of ``arcs``, which may have zeros in this model.
        """
        arcs = arcs or self.hmm.arcs
        log_prob = safe_log(self.hmm.transitions[arcs.source, arcs.target])
        into = self.b[rows] + self.log_beta[rows] - self._norm[rows, None]
        out = self.log_alpha[rows - 1][:, arcs.source] + log_prob + into[:, arcs.target]
        out[self._impossible[rows]] = -np.inf
        return out

    def row_blocks(self):
        """Yield the joined frames that are no utterance's first, as many at a time as memory allows."""
        rows = np.delete(np.arange(len(self.b)), first_rows(self.lengths))
        size = max(1, XI_CELLS // max(len(self.hmm.arcs.source), 1))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def posteriors(self):
        """Return the StatePosteriors."""
        arcs, sums = self.hmm.arcs, np.zeros_like(self.hmm.transitions)
        for rows in self.row_blocks():
            sums[arcs.source, arcs.target] += np.exp(self.log_xi(rows)).sum(axis=0)
        return StatePosteriors(self.log_likelihood, np.exp(self.log_gamma()), sums)


# ----------------------------------------------------------------------------------------------------- scaled


def scaled_forward_backward(hmm, b, lengths):
    """Return (StatePosteriors, certain (B,)) by recursions of matrix products, rescaled at each frame.

    alpha is scaled to sum 1 and beta to maximum 1, and neither falls below FLOOR where it should be smaller.
    So probabilities are too large, if anything: what the floor adds at time t is at most S * FLOOR times the
    scales of alpha and beta, and p is N_t = sum_s alpha_t(s) beta_t(s) times those scales. ``certain`` says
    for which utterances 2 T S FLOOR / min_t N_t is below TOLERANCE; only there the results may be used.
    """
    lengths = np.asarray(lengths)
    packing = Packing(lengths)
    peak = b.max(axis=1)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    emission = np.exp((b - shift[:, None])[packing.rows])
    alpha, scale = _scaled_forward(hmm, emission, packing)
    beta = _scaled_backward(hmm, emission, packing)
    gamma = alpha * beta
    norm = gamma.sum(axis=1)
    with np.errstate(all="ignore"):  # what overflows here is not certain
        gamma /= norm[:, None]
        gamma *= gamma > 1e-200  # no trace of the floor
        into = emission * beta / (scale * norm)[:, None]
        sums = hmm.transitions * (alpha[packing.before()].T @ into[packing.counts[0] :])
    alpha, scale, norm, gamma = map(packing.joined, (alpha, scale, norm, gamma))
    ends = alpha[last_rows(lengths)] @ hmm.final
    log_likelihood = sum_by_utterance(np.log(scale) + shift, lengths) + safe_log(ends)
    smallest = np.minimum.reduceat(np.minimum(norm, norm * scale), first_rows(lengths))
    certain = smallest > np.maximum(2 * FLOOR / TOLERANCE * lengths * hmm.num_states, 1e-250)
    return StatePosteriors(log_likelihood, gamma, sums), certain & (ends > 0)


def _scaled_forward(hmm, emission, packing):
    """alpha (N,S), packed, and its scales (N,): ln p = sum ln scale + ln of the last alpha times final."""
    alpha, scale = np.empty_like(emission), np.empty(len(emission))
    now = slice(0, packing.counts[0])
    np.multiply(emission[now], hmm.initial, out=alpha[now])
    _rescale(alpha[now], scale[now], np.add)
    for before, now in packing.steps():
        np.matmul(alpha[before], hmm.transitions, out=alpha[now])
        alpha[now] *= emission[now]
        _rescale(alpha[now], scale[now], np.add)
    return alpha, scale


def _scaled_backward(hmm, emission, packing):
    beta, unused = np.empty_like(emission), np.empty(len(emission))
    last = np.maximum(hmm.final / hmm.final.max(), FLOOR)
    back = np.ascontiguousarray(hmm.transitions.T)
    for going_on, ending, following in packing.steps_back():
        beta[ending] = last
        if going_on.start != going_on.stop:
            np.matmul(emission[following] * beta[following], back, out=beta[going_on])
            _rescale(beta[going_on], unused[going_on], np.maximum)
    return beta


def _rescale(values, scale, reduce):
    """Divide rows by their sum or maximum, which goes to ``scale``, and lift what is below the floor."""
    reduce.reduce(values, axis=1, out=scale)
    np.maximum(scale, FLOOR, out=scale)
    values /= scale[:, None]
    np.maximum(values, FLOOR, out=values)
