"""The M-step of the i-vector model: T, Sigma and the prior, for the centred form and for Kaldi's [K]."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.packed import unpack_lower

logger = logging.getLogger(__name__)

CONDITION = 1e4  # Kaldi's limit of the condition of a quadratic term, after scaling its diagonal to 1 [K]
PRIOR_FLOOR = 1e-7  # least eigenvalue of the i-vectors' covariance [K]


@dataclass
class EstimationOptions:
    """Options of the M-step, named as Kaldi names them."""

    update_variances: bool = option(True, "If true, update the covariances Sigma of the Gaussians")
    variance_floor_factor: float = option(
        0.1, "Floor of each covariance, as a fraction of the average covariance (0 to 1)")
    gaussian_min_count: float = option(
        100.0, "Least count of frames of a Gaussian whose parameters are updated")
    min_divergence: bool = option(
        True, "If true, re-estimate the i-vectors' prior and absorb it into the model (minimum divergence)")
    diagonalize: bool = option(
        True, "If true, rotate the i-vectors so that their dimensions are independent, the strongest first")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if not 0 < self.variance_floor_factor <= 1:
            raise VoxarkError(f"--variance-floor-factor={self.variance_floor_factor:g}: a number above 0, at "
                              "most 1 is expected")
        if self.gaussian_min_count < 0:
            raise VoxarkError(f"--gaussian-min-count={self.gaussian_min_count:g}: must not be negative")


def m_step(extractor, stats, options):
    """Return (IvectorExtractor, number of floored eigenvalues) from IvectorStats, in ``extractor``'s form.

    T_c = B_c A_c^-1, Sigma_c = (S_c - T_c B_c' - B_c T_c' + T_c A_c T_c') / n_c, floored, then the prior.
    Gaussians of fewer than --gaussian-min-count frames keep T and Sigma. VoxarkError if all do.
    """
    if stats.b.shape != extractor.t.shape:
        raise VoxarkError(f"the statistics have (Gaussians, features, i-vector) {stats.b.shape}, the "
                          f"extractor has {extractor.t.shape}: they belong to another model")
    if stats.num_utts < 1:
        raise VoxarkError("the statistics hold no utterances")
    enough = np.flatnonzero((stats.n >= options.gaussian_min_count) & (stats.n > 0))
    if len(enough) < len(stats.n):
        logger.warning("%d of %d Gaussians have fewer than %g frames (--gaussian-min-count): they keep T and "
                       "Sigma", len(stats.n) - len(enough), len(stats.n), options.gaussian_min_count)
    if not len(enough):
        raise VoxarkError(f"no Gaussian has --gaussian-min-count={options.gaussian_min_count:g} frames: give "
                          "more data, fewer Gaussians or a lower count")
    t, sigma_inv, num_floored = extractor.t.copy(), extractor.sigma_inv, 0
    solve = solve_exactly if extractor.is_centred else solve_bounded
    for c in enough:
        t[c] = solve(unpack_lower(stats.a[c]), stats.b[c], t[c], c)
    if options.update_variances and stats.s is not None:
        sigma_inv, num_floored = update_variances(extractor, stats, t, enough, options.variance_floor_factor)
    model = replace(extractor, t=t, sigma_inv=sigma_inv)
    return update_prior(model, stats, options), num_floored


def solve_exactly(a, b, t, c):
    """T = B A^-1 (D,R) of component ``c``, by Cholesky."""
    try:
        factor = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        logger.warning("component %d: its second moment of i-vectors is singular; T is kept", c)
        return t
    return np.linalg.solve(factor.T, np.linalg.solve(factor, b.T)).T


def solve_bounded(a, b, t, c):
    """T + (B - T A) A^-1 with the condition of A bounded, as Kaldi solves for it [K].

    A is scaled to a unit diagonal, and its eigenvalues are floored at the largest over CONDITION.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(a), 1e-300))
    values, vectors = np.linalg.eigh(a * scale * scale[:, None])
    values = np.maximum(values, values[-1] / CONDITION)
    residual = (b - t @ a) * scale
    return t + ((residual @ vectors) / values) @ vectors.T * scale


def update_variances(extractor, stats, t, enough, factor):
    """Return (Sigma^-1 (C,D,D), number of floored eigenvalues) of the components ``enough`` with the new T.

    The floor F is ``factor`` times the average covariance; eigenvalues of Sigma_c relative to F are raised to
    1, which maximises the likelihood over all Sigma_c >= F.
    """
    raw = np.empty((len(enough), extractor.dim, extractor.dim))
    for i, c in enumerate(enough):
        cross = t[c] @ stats.b[c].T
        raw[i] = stats.s[c] - cross - cross.T + t[c] @ unpack_lower(stats.a[c]) @ t[c].T
    n = stats.n[enough]
    floor = factor * raw.sum(axis=0) / n.sum()
    try:
        root = np.linalg.cholesky(floor)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(floor)[0] / factor
        raise VoxarkError("the average covariance is not positive definite (smallest eigenvalue "
                          f"{least:.3g}): are some features constant or dependent?") from None
    whiten = np.linalg.inv(root)
    relative = whiten @ (raw / n[:, None, None]) @ whiten.T
    values, vectors = np.linalg.eigh(0.5 * (relative + np.swapaxes(relative, 1, 2)))
    num_floored = int((values < 1.0).sum())
    if num_floored:
        logger.info("floored %d eigenvalues of covariances, %.2f %% (--variance-floor-factor)",
                    num_floored, 100.0 * num_floored / (extractor.num_gauss * extractor.dim))
    back = np.swapaxes(vectors, 1, 2) @ whiten
    sigma_inv = extractor.sigma_inv.copy()
    sigma_inv[enough] = np.swapaxes(back, 1, 2) @ (back / np.maximum(values, 1.0)[:, :, None])
    return sigma_inv, num_floored


def update_prior(model, stats, options):
    """Make the i-vectors' covariance unit again, absorb their mean, and order their dimensions.

    w has the moments mu and K. Centred: m_c += T_c mu, T_c = T_c chol(K), then a rotation. Kaldi's form: a
    transform that makes K unit and turns mu into the first axis, whose length is the new offset [K].
    """
    mean = stats.w_sum / stats.num_utts
    cov = unpack_lower(stats.w_scatter) / stats.num_utts - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(cov)
    logger.info("the i-vectors' covariance has eigenvalues from %.4g to %.4g", values[0], values[-1])
    if not model.is_centred:
        return _update_offset(model, mean, np.maximum(values, PRIOR_FLOOR), vectors, options)
    if options.min_divergence:
        root = vectors * np.sqrt(np.maximum(values, PRIOR_FLOOR))
        model = replace(model, means=model.means + model.t @ mean, t=model.t @ root)
    if options.diagonalize:
        _, rotation = np.linalg.eigh(average_quadratic(model))
        model = replace(model, t=model.t @ fixed_signs(rotation[:, ::-1]))
    return model


def _update_offset(model, mean, values, vectors, options):
    """Kaldi's form: w -> V w with V = H diag(values)^-1/2 vectors', H a reflection [K]."""
    if not options.min_divergence:
        return model
    whiten = vectors.T / np.sqrt(values)[:, None]
    v = reflection(whiten @ mean) @ whiten
    if options.diagonalize:
        # Kaldi rotates dimensions 1.. so that they diagonalise their block of the average quadratic term.
        inverse = np.linalg.inv(v[1:, 1:])
        block = inverse.T @ average_quadratic(model)[1:, 1:] @ inverse
        _, rotation = np.linalg.eigh(0.5 * (block + block.T))
        v[1:] = fixed_signs(rotation[:, ::-1]).T @ v[1:]
    return replace(model, t=model.t @ np.linalg.inv(v), offset=float(v[0] @ mean))


def reflection(x):
    """The Householder reflection (R,R) that sends x (R,) to a positive multiple of (1, 0, ..., 0)."""
    x = x / np.linalg.norm(x)
    a = x.copy()
    a[0] = -np.sum(np.square(x[1:])) / (1.0 + x[0]) if x[0] > 0 else x[0] - 1.0  # x_0 - 1, without cancelling
    square = a @ a
    return np.eye(len(x)) - (2.0 / square) * np.outer(a, a) if square > 0 else np.eye(len(x))


def average_quadratic(model):
    """sum_c weight_c T_c'Sigma_c^-1 T_c (R,R)."""
    total = np.zeros((model.ivector_dim, model.ivector_dim))
    for weight, t, sigma_inv in zip(model.weights, model.t, model.sigma_inv):
        total += weight * (t.T @ (sigma_inv @ t))
    return total


def fixed_signs(rotation):
    """The columns of ``rotation`` with signs that make the largest element of each positive."""
    largest = rotation[np.argmax(np.abs(rotation), axis=0), np.arange(rotation.shape[1])]
    return rotation * np.where(largest < 0, -1.0, 1.0)
