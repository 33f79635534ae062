"""The three terms of ln p = Q + H + KL for an HMM, each from its definition, in the log domain [lecture].

q(z,k) is a distribution over paths and components: gamma_1, xi, and the responsibilities r. With q(z) as a
Markov chain, q(z_t+1=j|z_t=i) = xi_t(i,j) / gamma_t(i):
    Q  = sum gamma_1 ln pi + sum xi ln a + sum gamma_T ln final + sum gamma r ln(w N)
    H  = -sum gamma_1 ln gamma_1 - sum xi ln(xi/gamma) - sum gamma r ln r
    KL = sum gamma_1 ln(gamma_1/gamma*_1) + sum xi ln[(xi/gamma)/(xi*/gamma*)] + sum gamma r ln(r/r*)
where * is the posterior under the parameters that Q is of. ln p comes from the forward recursion alone.
"""

import numpy as np

from voxark.em_report import EmTerms
from voxark.hmm.em import HmmEStep
from voxark.hmm.forward_backward import LogTrellis
from voxark.hmm.model import safe_log
from voxark.hmm.packing import first_rows, last_rows
from voxark.hmm.viterbi import viterbi

NEGLIGIBLE = 1e-290  # posteriors below it count as 0 (0 ln 0 = 0)


def _dot(weights, *logs):
    """Return sum weights * (logs[0] - logs[1] ...) over the weights that are not negligible."""
    used = weights > NEGLIGIBLE
    value = logs[0][used]
    for other in logs[1:]:
        value = value - other[used]
    return float(weights[used] @ value)


class _PathTrellis:
    """A given path for q: the methods of LogTrellis that q needs."""

    def __init__(self, trellis, states):
        self._trellis, self._states = trellis, states
        self.row_blocks = trellis.row_blocks

    def log_gamma(self):
        return safe_log(np.eye(self._trellis.hmm.num_states)[self._states])

    def log_xi(self, rows, arcs):
        on_path = (arcs.source == self._states[rows - 1, None]) & (arcs.target == self._states[rows, None])
        return safe_log(on_path.astype(float))


class HmmReporter:
    """Computes EmTerms for q = the posterior under the Hmm ``old``, or its best path, or a given one.

    ``training`` as in HmmEStep. Utterances without a path are left out.
    """

    def __init__(self, old, offset, training):
        self._step, self._training = HmmEStep(old, offset, training), training
        self._offset = offset

    def terms(self, batches, new):
        """Return the EmTerms of q and the Hmm ``new``, which has as many components as the old one."""
        fresh = HmmEStep(new, self._offset)
        total = np.zeros(5)
        for batch in batches:
            b = self._step.state_log_likelihoods(batch.x)
            trellis = LogTrellis(self._step.hmm, b, batch.lengths)
            q = self._distribution(batch, b, trellis)
            other = LogTrellis(new, fresh.state_log_likelihoods(batch.x), batch.lengths)
            total += self._chain_terms(q, other, batch.lengths)
            total += self._component_terms(q, fresh, batch)
        return EmTerms(*total.tolist())

    def _distribution(self, batch, b, trellis):
        if self._training == "em":
            return trellis
        states = viterbi(self._step.hmm, b, batch.lengths)[1] if self._training == "viterbi" else batch.states
        return _PathTrellis(trellis, states)

    def _chain_terms(self, q, other, lengths):
        """ln p, Q, H, KL of the paths without the densities, and the number of frames."""
        first, last, arcs = first_rows(lengths), last_rows(lengths), self._step.hmm.arcs
        new, log_q, log_p = other.hmm, q.log_gamma(), other.log_gamma()
        gamma = np.exp(log_q)
        start = safe_log(np.broadcast_to(new.initial, gamma[first].shape))
        end = safe_log(np.broadcast_to(new.final, gamma[last].shape))
        q_term = _dot(gamma[first], start) + _dot(gamma[last], end)
        h, kl = -_dot(gamma[first], log_q[first]), _dot(gamma[first], log_q[first], log_p[first])
        log_a = safe_log(new.transitions[arcs.source, arcs.target])
        for rows in q.row_blocks():
            log_xi = q.log_xi(rows, arcs)
            xi = np.exp(log_xi)
            before, before_new = log_q[rows - 1][:, arcs.source], log_p[rows - 1][:, arcs.source]
            q_term += _dot(xi, np.broadcast_to(log_a, xi.shape))
            h -= _dot(xi, log_xi, before)
            with np.errstate(invalid="ignore"):  # -inf - -inf where xi is 0
                kl += _dot(xi, log_xi - before, other.log_xi(rows, arcs) - before_new)
        return np.array([other.log_likelihood.sum(), q_term, h, kl, float(lengths.sum())])

    def _component_terms(self, q, fresh, batch):
        """Q, H, KL of the densities and of the components within the states."""
        gamma = self._step.pdf_posteriors(np.exp(q.log_gamma()))
        gamma = gamma[:, self._step.emissions.pdf_of_gauss]
        total = np.zeros(5)
        old_blocks, new_blocks = self._step.emissions.components(batch.x), fresh.emissions.components(batch.x)
        for (rows, _, log_r), (_, lls, log_r_new) in zip(old_blocks, new_blocks):
            weights = gamma[rows] * np.exp(log_r)
            total += (0.0, _dot(weights, lls), -_dot(weights, log_r), _dot(weights, log_r, log_r_new), 0.0)
        return total
