"""The terms of ln p = Q + H + KL of an iteration of mixture training, computed independently, in float64.

With q_nc the posterior (EM) or one-hot (Viterbi) under the old model, and p(x_n, c) under the model at hand
[lecture]: Q = sum q ln p(x, c), H = -sum q ln q, KL = sum q (ln q - ln p(c|x)), ln p = sum ln sum_c p(x, c).
"""

import numpy as np

from voxark.em_report import EmTerms
from voxark.gmm.mixture import log_sum_exp

MAX_CELLS = 1 << 20  # posteriors at a time: 8 MiB


def responsibilities(joint, hard=False):
    """Return q (N,C) of joint = ln p(x_n, c) (N,C): the posterior, or 1 for the first best one (``hard``)."""
    if hard:
        return (np.arange(joint.shape[1]) == joint.argmax(axis=1)[:, None]).astype(np.float64)
    return np.exp(joint - log_sum_exp(joint, axis=1)[:, None])


def em_terms(q, joint):
    """Return the EmTerms of q (N,C) and joint = ln p(x_n, c) (N,C); what has q = 0 counts 0."""
    frames, components = np.nonzero(q)
    weights, logs = q[frames, components], joint[frames, components]
    log_q = np.log(weights)
    log_likelihoods = log_sum_exp(joint, axis=1)
    log_posteriors = logs - log_likelihoods[frames]
    return EmTerms(float(log_likelihoods.sum()), float(weights @ logs), -float(weights @ log_q),
                   float(weights @ (log_q - log_posteriors)), len(q))


def iteration_terms(old, new, features, hard=False):
    """Return the EmTerms after the E-step (q and model of ``old``) and after the M-step (q of old, ``new``).

    ``old`` and ``new`` are mixtures of the same components, ``features`` an iterable of (key, x (T,D)).
    """
    after_e, after_m = np.zeros(5), np.zeros(5)
    size = max(1, MAX_CELLS // old.num_gauss)
    for _, x in features:
        for start in range(0, len(x), size):
            block = x[start : start + size]
            joint = old.component_log_likelihoods(block)
            q = responsibilities(joint, hard)
            after_e += em_terms(q, joint)
            after_m += em_terms(q, new.component_log_likelihoods(block))
    return EmTerms(*after_e), EmTerms(*after_m)


def report_iteration(report, iteration, old, new, features, hard=False):
    """Tell ``report`` (EmReport) the terms of an iteration that made ``new`` of ``old``, in one pass.

    ``new`` is the M-step's own: components are removed, rescued and split after it.
    """
    after_e, after_m = iteration_terms(old, new, features, hard)
    report.add(iteration, "E", after_e)
    report.add(iteration, "M", after_m)
