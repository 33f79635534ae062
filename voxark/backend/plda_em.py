"""Training of two-covariance PLDA: exact EM with unequal numbers of vectors, and Kaldi's estimator.

Every iteration works in the space where the within-speaker covariance is unit and the between-speaker
covariance diagonal: there the posterior of a speaker with n vectors has the diagonal covariance psi/(1 + n
psi), so one Cholesky and one eigenvalue decomposition serve all numbers of vectors, and a between-speaker
covariance of any rank needs no inverse.

All that EM asks of the speakers with n vectors are sums over them of their means and of squares of these, so
their means are replaced by as many rows as the vectors have dimensions, where there are more speakers.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import (
    check_rank,
    check_shrinkage,
    check_stats,
    principal_directions,
    shrink,
    symmetric,
)
from voxark.backend.plda import Plda, diagonal_form
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

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if self.num_em_iters < 0:
            raise VoxarkError(f"--num-em-iters={self.num_em_iters}: a number from 0 is expected")
        check_shrinkage(self.shrinkage)


@dataclass
class ReductionOptions:
    """Training on the leading principal directions of the vectors, for data too few for all of them."""

    dim: int = option(
        0, "Train on the leading principal directions of the vectors, so many (0: on the vectors themselves)"
    )
    write_transform: str = option(
        "",
        "With --dim: file to write the matrix to that transform-vec takes vectors to the model's space with",
    )

    def check(self):
        """Raise VoxarkError where one option is given without the other."""
        if self.dim < 0:
            raise VoxarkError(f"--dim={self.dim}: a number from 0 is expected")
        if self.dim and not self.write_transform:
            raise VoxarkError(
                f"--dim={self.dim} needs --write-transform=FILE: the model applies to vectors transformed by "
                "that matrix (transform-vec)"
            )
        if self.write_transform and not self.dim:
            raise VoxarkError(
                "--write-transform needs --dim=N: without it the model takes vectors as they are"
            )


class TwoCovariance(NamedTuple):
    """mean (D,), within (D,D), between (D,D): the parameters as the lecture writes them (mu, Swc, Sac)."""

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray


class SpeakerGroups(NamedTuple):
    """ClassStats as EM needs them: the speakers grouped by their number of vectors, G groups.

    sizes (G,): vectors of each speaker of the group; speakers (G,): how many there are; means (G,D): the mean
    of their means; rows (R,D): for each group rows r, together worth the squares of its speakers' means,
    sum of r r' = sum over speakers of (xbar - mean)(xbar - mean)'; group (R,): whose they are; scatter (D,D).
    """

    sizes: np.ndarray
    speakers: np.ndarray
    means: np.ndarray
    rows: np.ndarray
    group: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, stats):
        """Group ClassStats; groups of more speakers than dimensions shrink to the triangle of a QR."""
        sizes, group, speakers = np.unique(stats.counts, return_inverse=True, return_counts=True)
        order = np.argsort(group, kind="stable")
        means, rows = [], []
        for members in np.split(stats.means[order], np.cumsum(speakers)[:-1]):
            means.append(members.mean(axis=0))
            centred = members - means[-1]
            rows.append(np.linalg.qr(centred, mode="r") if len(centred) > stats.dim else centred)
        of_rows = np.repeat(np.arange(len(sizes)), [len(part) for part in rows])
        return cls(sizes, speakers, np.array(means), np.concatenate(rows), of_rows, stats.scatter)

    @property
    def num_vectors(self):
        """N, the number of vectors."""
        return int(self.sizes @ self.speakers)

    @property
    def num_classes(self):
        """S, the number of speakers."""
        return int(self.speakers.sum())

    @property
    def dim(self):
        """D, the dimension of the vectors."""
        return self.means.shape[1]

    def about(self, mean):
        """Rows (G+R,D) worth the squares of all speakers' means about ``mean`` (D,).

        The first G are the groups' own means times the root of their number of speakers.
        """
        return np.concatenate((self.weighted(self.means - mean), self.rows))

    def weighted(self, of_groups):
        """``of_groups`` (G,D) or (D,) times the root of the groups' numbers of speakers, (G,D)."""
        return np.sqrt(self.speakers)[:, None] * of_groups

    def of_row(self, of_groups):
        """Values (G,...) of groups for each of the rows that ``about`` gives, (G+R,...)."""
        return np.concatenate((of_groups, of_groups[self.group]))


class Expectations(NamedTuple):
    """What an E-step leaves, in the space u = V(x - mean), x = mean + V^-1 u; ``log_likelihood`` is ln p(X).

    transform, inverse (D,D): V and V^-1; u (G+R,D): the rows of SpeakerGroups.about(mean); posterior (G+R,D):
    the same rows of E[z_s] - mean, which is linear in u; variance (G,D): C_n, diagonal here.
    """

    transform: np.ndarray
    inverse: np.ndarray
    u: np.ndarray
    posterior: np.ndarray
    variance: np.ndarray
    log_likelihood: float


def train_plda(stats, options=None, report=None):
    """Train a Plda on ClassStats; logs ln p of the data at the start and after each iteration.

    By default mu is estimated inside EM by maximum likelihood [lecture] and EM starts at the estimate by
    moments, which is the answer itself where all speakers have equally many vectors and that covariance is
    positive definite. With ``kaldi_compat`` it is Kaldi's estimator [K]. Shrinkage acts on the pooled
    scatter, once, so EM stays exact on what it is given. ``report``: a voxark.em_report.EmReport or None.
    Raises VoxarkError with the reason when the data cannot support the model.
    """
    options = options or PldaTrainingOptions()
    options.check()
    check_stats(stats, options.shrinkage)
    if options.shrinkage > 0:
        stats = stats._replace(scatter=shrink(stats.scatter, options.shrinkage))
    check_rank(stats)
    model = start_kaldi(stats) if options.kaldi_compat else start_moments(stats)
    groups = SpeakerGroups.of(stats)
    expectations = e_step(groups, model)
    _log(0, expectations.log_likelihood, None, groups, model)
    for iteration in range(1, options.num_em_iters + 1):
        before = model, expectations
        model = m_step(groups, model, expectations, fixed_mean=options.kaldi_compat)
        expectations = e_step(groups, model)
        _log(iteration, expectations.log_likelihood, before[1].log_likelihood, groups, model)
        if report is not None:
            from voxark.backend.plda_report import em_terms

            report.add(iteration, "E", em_terms(groups, *before, *before))
            report.add(iteration, "M", em_terms(groups, *before, model, expectations))
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


def train_reduced(stats, options, reduction, report=None):
    """train_plda on the leading principal directions: (Plda, A (dim,D)); (Plda, None) without reduction."""
    reduction.check()
    if not reduction.dim:
        return train_plda(stats, options, report), None
    if reduction.dim > stats.dim:
        raise VoxarkError(
            f"--dim={reduction.dim}: the vectors have dimension {stats.dim}, so 1 to {stats.dim}"
        )
    matrix = principal_directions(stats, reduction.dim)
    return train_plda(stats.projected(matrix), options, report), matrix


def _log(iteration, log_likelihood, previous, groups, model):
    """Log one iteration; a fall of ln p beyond rounding cannot come from EM and ends the training."""
    change = "" if previous is None else f" (change {(log_likelihood - previous) / groups.num_vectors:+.3g})"
    logger.info(
        "iteration %d: ln p per vector %.6f%s, trace within %.6g, between %.6g",
        iteration,
        log_likelihood / groups.num_vectors,
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
    spread, _, inverse = diagonal_form(within, symmetric(of_means))
    noise = np.mean(1.0 / stats.counts)
    between = (inverse * np.maximum(spread - noise, 0.1 * noise)) @ inverse.T
    return TwoCovariance(mean, symmetric(within), symmetric(between))


def e_step(groups, model):
    """Posteriors of the speakers' variables z_s and ln p(X) under a TwoCovariance, from SpeakerGroups.

    In u: C_n = psi/(1+n psi), E[z_s] = n psi/(1+n psi) u_s, and
    ln p = -1/2 sum_s [n D ln 2pi + n ln|Swc| + sum_d ln(1+n psi) + tr(Swc^-1 W_s) + n sum_d u^2/(1+n psi)].
    """
    psi, transform, inverse = diagonal_form(model.within, model.between)
    u = groups.about(model.mean) @ transform.T
    growth = 1.0 + groups.sizes[:, None] * psi  # (G, D)
    variance = psi / growth
    posterior = groups.of_row(groups.sizes[:, None] * variance) * u
    log_det_within = -2.0 * np.linalg.slogdet(transform)[1]
    whitened_scatter = np.sum((transform @ groups.scatter) * transform)
    # u^2/(1+n psi) = u (u - E[z]), as E[z] = n psi/(1+n psi) u
    means_term = groups.of_row(groups.sizes) @ np.einsum("rd,rd->r", u, u - posterior)
    log_likelihood = -0.5 * (
        groups.num_vectors * (groups.dim * np.log(2 * np.pi) + log_det_within)
        + groups.speakers @ np.log(growth).sum(axis=1)
        + whitened_scatter
        + means_term
    )
    return Expectations(transform, inverse, u, posterior, variance, float(log_likelihood))


def m_step(groups, model, expectations, fixed_mean=False):
    """Maximise over mu (unless ``fixed_mean``), Swc and Sac; returns a TwoCovariance.

    Sac = 1/S sum_s [C_n + (E[z]-mu)(E[z]-mu)'], Swc = 1/N sum_s [W_s + n (xbar-E[z])(xbar-E[z])' + n C_n].
    """
    _, inverse, u, posterior, variance, _ = expectations
    num_groups = len(groups.sizes)
    centred, shift = posterior.copy(), np.zeros(groups.dim)
    if not fixed_mean:
        shift = np.sqrt(groups.speakers) @ posterior[:num_groups] / groups.num_classes
        centred[:num_groups] -= groups.weighted(shift)
    between = centred.T @ centred + np.diag(groups.speakers @ variance)
    residual = (u - posterior) * np.sqrt(groups.of_row(groups.sizes))[:, None]
    within = residual.T @ residual + np.diag((groups.speakers * groups.sizes) @ variance)
    return TwoCovariance(
        model.mean + inverse @ shift,
        symmetric(groups.scatter + inverse @ within @ inverse.T) / groups.num_vectors,
        symmetric(inverse @ between @ inverse.T) / groups.num_classes,
    )
