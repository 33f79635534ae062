"""The three terms of EM for PLDA, ln p(X) = Q + H + KL [lecture], each computed without the others.

q(z_s) = N(E[z_s], C_n) is the posterior of each speaker's variable under one model; Q and KL are taken under
another one (or the same): after the E-step both are the same and KL is zero, after the M-step q is the old
model's. Q is computed in the space of the vectors from the covariances as they stand, H from the variances of
q alone, KL as that between Gaussians in the other model's space.
"""

import numpy as np

from voxark.em_report import EmTerms
from voxark.errors import VoxarkError


def em_terms(groups, model, expectations, other, other_expectations):
    """EmTerms of q, the posteriors ``expectations`` of ``model``, under the TwoCovariance ``other``.

    ``other_expectations`` are the posteriors of ``other``, whose ln p(X) stands in the terms; ``groups`` are
    the SpeakerGroups of both. VoxarkError where the between-speaker covariance has lost rank.
    """
    if expectations.variance.min() <= 0 or other_expectations.variance.min() <= 0:
        raise VoxarkError(
            "the between-speaker covariance has lost rank, so that H and KL are infinite: use vectors of "
            "lower dimension, or leave --report away"
        )
    return EmTerms(
        other_expectations.log_likelihood,
        expected_log_joint(groups, model, expectations, other),
        entropy(groups, expectations),
        divergence(groups, model, expectations, other, other_expectations),
        groups.num_vectors,
    )


def expected_log_joint(groups, model, expectations, other):
    """Q = E_q[ln p(X, Z | other)], summed over speakers.

    -1/2 [S ln|2 pi Sac| + tr(Sac^-1 sum_s (C + (E[z]-mu)(E[z]-mu)')) + N ln|2 pi Swc| +
    tr(Swc^-1 sum_s (W_s + n (xbar-E[z])(xbar-E[z])' + n C))].
    """
    inverse, num_groups = expectations.inverse, len(groups.sizes)
    of_z = expectations.posterior @ inverse.T
    residual = groups.about(model.mean) - of_z
    of_z[:num_groups] += groups.weighted(model.mean - other.mean)
    between = of_z.T @ of_z + (inverse * (groups.speakers @ expectations.variance)) @ inverse.T
    residual *= np.sqrt(groups.of_row(groups.sizes))[:, None]
    noise = (groups.speakers * groups.sizes) @ expectations.variance
    within = groups.scatter + residual.T @ residual + (inverse * noise) @ inverse.T
    return -0.5 * (
        groups.num_classes * _log_det(2 * np.pi * other.between)
        + np.trace(np.linalg.solve(other.between, between))
        + groups.num_vectors * _log_det(2 * np.pi * other.within)
        + np.trace(np.linalg.solve(other.within, within))
    )


def entropy(groups, expectations):
    """H = 1/2 sum over speakers of ln|2 pi e C_n|."""
    log_scale = np.linalg.slogdet(expectations.inverse)[1]  # from u to the space of the vectors
    of_group = 0.5 * np.log(2 * np.pi * np.e * expectations.variance).sum(axis=1) + log_scale
    return float(groups.speakers @ of_group)


def divergence(groups, model, expectations, other, other_expectations):
    """KL(q || p(Z|X, other)), that of Gaussians N(a,A) from N(b,B), summed over speakers.

    1/2 [tr(B^-1 A) - D - ln|B^-1 A| + (a-b)' B^-1 (a-b)], in the space of ``other``, where B is diagonal.
    """
    mapping = other_expectations.transform @ expectations.inverse  # from u of q to u of other
    in_other = np.einsum("ij,gj->gi", np.square(mapping), expectations.variance)  # the diagonals of A
    ratio = np.log(expectations.variance).sum(axis=1) - np.log(other_expectations.variance).sum(axis=1)
    of_group = (
        (in_other / other_expectations.variance).sum(axis=1)
        - groups.dim
        - ratio
        - 2 * np.linalg.slogdet(mapping)[1]
    )
    apart = expectations.posterior @ mapping.T - other_expectations.posterior
    apart[: len(groups.sizes)] += groups.weighted(other_expectations.transform @ (model.mean - other.mean))
    distance = np.sum(np.square(apart) / groups.of_row(other_expectations.variance))
    return float(0.5 * (groups.speakers @ of_group + distance))


def _log_det(matrix):
    return np.linalg.slogdet(matrix)[1]
