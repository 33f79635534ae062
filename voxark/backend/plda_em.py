"""Training of two-covariance PLDA: exact EM with unequal numbers of vectors, and Kaldi's estimator.

Every iteration works in the space where the within-speaker covariance is unit and the between-speaker
covariance diagonal: there the posterior of a speaker with n vectors has the diagonal covariance psi/(1 + n
psi), so one Cholesky and one eigenvalue decomposition serve all numbers of vectors, and a between-speaker
covariance of any rank needs no inverse.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import check_rank, check_shrinkage, check_stats, shrink, symmetric
from voxark.backend.plda import Plda, diagonalise
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class PldaTrainingOptions:
    """Options of PLDA training, named as Kaldi names them where it has them."""

    num_em_iters: int = option(10, "Number of EM iterations")
    kaldi_compat: bool = option(
        False, "Kaldi's estimator: the mean is the mean of the speakers' means, EM starts at unit covariances"
    )
    shrinkage: float = option(
        0.0,
        "Shrink the within-speaker scatter towards a multiple of the identity, 0 (not) to 1 (entirely)",
    )


class TwoCovariance(NamedTuple):
    """mean (D,), within (D,D), between (D,D): the parameters as the lecture writes them (mu, Swc, Sac)."""

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray


class Expectations(NamedTuple):
    """What an E-step leaves, in the space u = V(x - mean), x = mean + V^-1 u; ``log_likelihood`` is ln p(X).

    u (S,D): the speakers' means; posterior (S,D): E[z_s]; variance_sum, weighted_variance_sum (D,): the sums
    over speakers of C_n and of n C_n, which are diagonal here.
    """

    inverse: np.ndarray
    u: np.ndarray
    posterior: np.ndarray
    variance_sum: np.ndarray
    weighted_variance_sum: np.ndarray
    log_likelihood: float


def train_plda(stats, options=None):
    """Train a Plda on ClassStats; logs ln p of the data at the start and after each iteration.

    By default mu is estimated inside EM by maximum likelihood [lecture] and EM starts at the estimate by
    moments, which is the answer itself where all speakers have equally many vectors and that covariance is
    positive definite. With ``kaldi_compat`` it is Kaldi's estimator [K]. Shrinkage acts on the pooled
    scatter, once, so EM stays exact on what it is given. Raises VoxarkError with the reason when the data
    cannot support the model.
    """
    options = options or PldaTrainingOptions()
    if options.num_em_iters < 0:
        raise VoxarkError(f"--num-em-iters={options.num_em_iters}: a number from 0 is expected")
    check_shrinkage(options.shrinkage)
    check_stats(stats, options.shrinkage)
    if options.shrinkage > 0:
        stats = stats._replace(scatter=shrink(stats.scatter, options.shrinkage))
    check_rank(stats)
    model = start_kaldi(stats) if options.kaldi_compat else start_moments(stats)
    previous = None
    for iteration in range(options.num_em_iters + 1):
        expectations = e_step(stats, model)
        _log(iteration, expectations.log_likelihood, previous, stats, model)
        previous = expectations.log_likelihood
        if iteration < options.num_em_iters:
            model = m_step(stats, model, expectations, fixed_mean=options.kaldi_compat)
    plda = Plda.from_covariances(*model)
    logger.info(
        "psi from %.4g to %.4g, sum %.4g; %d of %d above 0.1",
        plda.psi[0],
        plda.psi[-1],
        plda.psi.sum(),
        int(np.sum(plda.psi > 0.1)),
        plda.dim,
    )
    return plda


def _log(iteration, log_likelihood, previous, stats, model):
    """Log one iteration; a fall of ln p beyond rounding cannot come from EM and ends the training."""
    change = "" if previous is None else f" (change {(log_likelihood - previous) / stats.num_vectors:+.3g})"
    logger.info(
        "iteration %d: ln p per vector %.6f%s, trace within %.6g, between %.6g",
        iteration,
        log_likelihood / stats.num_vectors,
        change,
        np.trace(model.within),
        np.trace(model.between),
    )
    if not np.isfinite(log_likelihood):
        raise VoxarkError(
            f"ln p is {log_likelihood} at iteration {iteration}: the covariances have degenerated"
        )
    if previous is not None and log_likelihood < previous - 1e-8 * abs(previous):
        raise VoxarkError(
            f"ln p fell from {previous:.9g} to {log_likelihood:.9g} at iteration {iteration}: the data "
            "are too ill-conditioned; use --shrinkage or vectors of lower dimension"
        )


def start_kaldi(stats):
    """Kaldi's start [K]: mean of the speakers' means, unit covariances."""
    unit = np.eye(stats.dim)
    return TwoCovariance(stats.means.mean(axis=0), unit, unit)


def start_moments(stats):
    """Start at the moments: Swc = scatter/(N-S), Sac = covariance of the speakers' means less Swc's part.

    psi stays above a tenth of the variance that a speaker's mean has from Swc: EM moves off zero but slowly.
    """
    mean = stats.means.mean(axis=0)
    centred = stats.means - mean
    within = stats.scatter / (stats.num_vectors - stats.num_classes)
    of_means = centred.T @ centred / stats.num_classes
    spread, transform = diagonalise(within, symmetric(of_means))
    noise = np.mean(1.0 / stats.counts)
    inverse = np.linalg.inv(transform)
    between = (inverse * np.maximum(spread - noise, 0.1 * noise)) @ inverse.T
    return TwoCovariance(mean, symmetric(within), symmetric(between))


def e_step(stats, model):
    """Posteriors of the speakers' variables z_s and ln p(X) under a TwoCovariance.

    In u: C_n = psi/(1+n psi), E[z_s] = n psi/(1+n psi) u_s, and
    ln p = -1/2 sum_s [n D ln 2pi + n ln|Swc| + sum_d ln(1+n psi) + tr(Swc^-1 W_s) + n sum_d u^2/(1+n psi)].
    """
    psi, transform = diagonalise(model.within, model.between)
    u = (stats.means - model.mean) @ transform.T
    sizes, group, speakers = np.unique(stats.counts, return_inverse=True, return_counts=True)
    growth = 1.0 + sizes[:, None] * psi  # (distinct n, D)
    variance = psi / growth
    posterior = (sizes[:, None] * variance)[group] * u
    log_det_within = -2.0 * np.linalg.slogdet(transform)[1]
    whitened_scatter = np.sum((transform @ stats.scatter) * transform)
    # u^2/(1+n psi) = u (u - E[z]), as E[z] = n psi/(1+n psi) u
    means_term = stats.counts @ np.einsum("sd,sd->s", u, u - posterior)
    log_likelihood = -0.5 * (
        stats.num_vectors * (stats.dim * np.log(2 * np.pi) + log_det_within)
        + speakers @ np.log(growth).sum(axis=1)
        + whitened_scatter
        + means_term
    )
    return Expectations(
        np.linalg.inv(transform),
        u,
        posterior,
        speakers @ variance,
        (speakers * sizes) @ variance,
        float(log_likelihood),
    )


def m_step(stats, model, expectations, fixed_mean=False):
    """Maximise over mu (unless ``fixed_mean``), Swc and Sac; returns a TwoCovariance.

    Sac = 1/S sum_s [C_n + (E[z]-mu)(E[z]-mu)'], Swc = 1/N sum_s [W_s + n (xbar-E[z])(xbar-E[z])' + n C_n].
    """
    inverse, u, posterior = expectations.inverse, expectations.u, expectations.posterior
    shift = np.zeros(stats.dim) if fixed_mean else posterior.mean(axis=0)
    centred = posterior - shift
    between = centred.T @ centred + np.diag(expectations.variance_sum)
    residual = (u - posterior) * np.sqrt(stats.counts)[:, None]
    within = residual.T @ residual + np.diag(expectations.weighted_variance_sum)
    return TwoCovariance(
        model.mean + inverse @ shift,
        symmetric(stats.scatter + inverse @ within @ inverse.T) / stats.num_vectors,
        symmetric(inverse @ between @ inverse.T) / stats.num_classes,
    )
