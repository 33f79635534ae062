"""EM and Viterbi training of Gaussian mixtures over data that stream by: options, E-step, M-step, training.

The same code trains diagonal and full covariances; voxark.gmm.diag_em and full_em have what differs.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.diag_em import DiagAccs, DiagEStep, float32_error  # noqa: F401 - part of this interface
from voxark.gmm.estep import FLOAT32_TOLERANCE, least_occupancy  # noqa: F401 - part of this interface
from voxark.gmm.init import initial_gmm, summarise
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)


@dataclass
class UpdateOptions:
    """What an M-step updates, its floors, and what becomes of components that hold too little data [K]."""

    update_flags: str = option("mvw", "What to update: any of m (means), v (variances), w (weights)")
    min_gaussian_occupancy: float = option(
        -1.0, "Least number of frames of a Gaussian that is updated (-1: 10, for full covariances 100)")
    min_gaussian_weight: float = option(1e-5, "Least weight of a Gaussian that is updated")
    min_variance: float = option(0.001, "Least variance, absolute (full covariances: least eigenvalue)")
    var_floor_factor: float = option(
        0.01, "Diagonal covariances: least variance as a fraction of the data's, in each dimension")
    max_condition: float = option(1e4, "Full covariances: largest ratio of the eigenvalues of one of them")
    remove_low_count_gaussians: bool = option(
        True, "If true, remove Gaussians with too little data, else keep them as they were")
    rescue: bool = option(False, "If true, replace Gaussians with too little data by halves of the heaviest")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if not self.update_flags or set(self.update_flags) - set("mvw"):
            raise VoxarkError(f"--update-flags={self.update_flags}: expected letters out of m, v, w")
        if not (0 < self.min_variance < np.inf and 0 <= self.var_floor_factor < 1):
            raise VoxarkError("--min-variance must be above 0, and --var-floor-factor 0 to below 1")
        if not 0 <= self.min_gaussian_weight < 1:
            raise VoxarkError(f"--min-gaussian-weight={self.min_gaussian_weight}: expected 0 to below 1")
        if not self.max_condition >= 1:
            raise VoxarkError(f"--max-condition={self.max_condition}: at least 1 is needed")


@dataclass
class EmOptions(UpdateOptions):
    """Kind of model and training, iterations of EM, and the options of each M-step."""

    covariance: Literal["auto", "diag", "full"] = option(
        "auto", "Covariances: diag, full, or auto (those of --initial-model, else diag)")
    training: Literal["em", "viterbi"] = option(
        "em", "em, or viterbi: each frame belongs to its likeliest Gaussian alone")
    num_iters: int = option(20, "Number of EM iterations")
    train_frames: int = option(
        0, "Train on this number of randomly chosen frames, held in memory (0: on all frames)")
    double: bool = option(False, "If true, all products in double precision (single needs half the time)")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        super().check()
        if self.num_iters < 1:
            raise VoxarkError(f"--num-iters={self.num_iters}: at least 1 is needed")
        if self.train_frames < 0:
            raise VoxarkError(f"--train-frames={self.train_frames}: expected 0 (all) or a number of frames")


def new_e_step(gmm, offset=None, double=False, hard=False, device=None):
    """Return the EStep of a DiagGmm or FullGmm around ``offset`` (D,), by default the mixture's own mean."""
    offset = gmm.mean() if offset is None else offset
    if isinstance(gmm, DiagGmm):
        return DiagEStep(gmm, offset, double, hard, device)
    from voxark.gmm.full_em import FullEStep

    return FullEStep(gmm, offset, double, hard, device)


def e_step(gmm, features, offset=None, double=False, hard=False, device=None):
    """Return the statistics of ``gmm`` over (key, x (T,D)) pairs ``features``: DiagAccs or FullAccs.

    ``offset`` (D,), by default the mixture's own mean, should be near the data's mean. See EStep for
    ``double``, ``hard`` (Viterbi training) and ``device``.
    """
    step = new_e_step(gmm, offset, double, hard, device)
    accs = step.zeros()
    for key, x in step.groups((key, x) for key, x in features if len(x)):
        step.accumulate(key, x, accs)
    return accs


def variance_floor(variance, options):
    """Return the floor (D,): the larger of --min-variance and --var-floor-factor times ``variance`` (D,)."""
    return np.maximum(options.var_floor_factor * variance, options.min_variance)


def m_step(gmm, accs, options, floor=None, rng=None):
    """Return the mixture that maximises the expected log-likelihood given ``accs``, as Kaldi updates it.

    weight = n/N, mean = f/n, covariance = second moment around the mean, floored (diagonal: at ``floor``
    (D,), by default variance_floor of the data's variance; full: at --min-variance and --max-condition), for
    components with more than --min-gaussian-occupancy frames and --min-gaussian-weight of the weight. The
    others are removed, or replaced by halves of the heaviest (--rescue; ``rng`` draws), or keep mean and
    covariance. One always stays.
    """
    if floor is None:
        floor = variance_floor(accs.total_variance(), options)
    updated, enough = accs.maximise(gmm, options, floor)
    return treat_starved(updated, accs.n, enough, options, rng)


def treat_starved(gmm, n, enough, options, rng):
    """Remove, rescue or keep the components with n (C,) frames that have not ``enough`` (C,), and say so."""
    if enough.all():
        return gmm
    starved = np.flatnonzero(~enough)
    listed = ", ".join(f"{c} ({n[c]:.4g} frames)" for c in starved[:5])
    listed += f" and {len(starved) - 5} more" if len(starved) > 5 else ""
    if not (options.rescue or options.remove_low_count_gaussians) or gmm.num_gauss == 1:
        logger.warning("too little data for Gaussian %s: mean and covariance kept", listed)
        return gmm
    if not enough.any():
        enough = np.arange(len(n)) == np.argmax(n)
    survivors = gmm.keep(enough)
    if not options.rescue:
        logger.warning("too little data for Gaussian %s: removed, %d left", listed, survivors.num_gauss)
        return survivors
    logger.warning("too little data for Gaussian %s: removed, and the heaviest split in its place", listed)
    return survivors.split(gmm.num_gauss, rng)


def growth_schedule(num_start, num_gauss, num_iters):
    """Return how many components to add before each of ``num_iters`` iterations.

    The number grows by equal factors and reaches ``num_gauss`` before iteration ceil(num_iters/2), whatever
    the numbers, so that at least half of the iterations train the whole model.
    """
    num_growing = -(-num_iters // 2)
    factor = (num_gauss / num_start) ** (1.0 / max(num_growing, 1))
    numbers = [num_start] + [round(num_start * factor ** (i + 1)) for i in range(num_growing)]
    added = [after - before for before, after in zip(numbers, numbers[1:])]
    return added + [0] * (num_iters - num_growing)


def train_gmm(features, init_options, options, initial=None, report=None, device=None):
    """Train a DiagGmm or FullGmm over ``features``, an iterable of (key, x (T,D)) read anew in each pass.

    Without ``initial`` a first pass finds the data's mean, variance and a random sample, from which the first
    model comes (for full covariances: a diagonal one made full); with it the iterations are plain, and its
    own mean and variance stand for the data's. ``report`` (EmReport) costs a further pass an iteration.
    Memory does not depend on the amount of data. VoxarkError for fewer frames than --min-gaussian-occupancy a
    Gaussian (with ``initial``: than 10, if that is less).
    """
    init_options.check()
    options.check()
    features, gmm, offset, variance = _start(features, init_options, options, initial)
    target = init_options.num_gauss if initial is None else gmm.num_gauss
    floor = variance_floor(variance, options)
    hard = options.training == "viterbi"
    criterion = "Viterbi log-likelihood" if hard else "log-likelihood"
    for iteration, num_new in enumerate(growth_schedule(gmm.num_gauss, target, options.num_iters), 1):
        gmm = gmm.split(gmm.num_gauss + num_new, seeded_rng(init_options.srand, "grow", iteration))
        accs = e_step(gmm, features, offset, options.double, hard, device)
        check_amount(accs.num_frames, gmm.num_gauss, min(10.0, least_occupancy(options, "diag")))
        logger.info("iteration %d: %s per frame %.4f over %d frames",
                    iteration, criterion, accs.log_likelihood / accs.num_frames, accs.num_frames)
        updated, enough = accs.maximise(gmm, options, floor)
        if report is not None:
            from voxark.gmm.report import report_iteration

            report_iteration(report, iteration, gmm, updated, features, hard)
        rng = seeded_rng(init_options.srand, "rescue", iteration)
        gmm = treat_starved(updated, accs.n, enough, options, rng)
    return gmm


def _start(features, init_options, options, initial):
    """Return (features to train on, first model, offset (D,), the data's variance (D,)) from a first pass.

    With an ``initial`` model and all frames to train on, there is no such pass.
    """
    num_sampled = options.train_frames
    if initial is None and init_options.init != "global-split":
        num_sampled = max(num_sampled, init_options.num_frames)
    if initial is not None and not options.train_frames:
        gmm, offset, variance = initial, initial.mean(), initial.total_variance()
    else:
        summary = summarise(features, num_sampled, init_options.srand)
        offset, variance = summary.mean, summary.variance
    if options.train_frames:
        chosen = summary.sample[: options.train_frames]
        features = [("the chosen frames", chosen)]
        logger.info("training on %d frames chosen out of %d", len(chosen), summary.num_frames)
    if initial is None:
        num_frames = len(chosen) if options.train_frames else summary.num_frames
        kind = "full" if options.covariance == "full" else "diag"  # auto is diag here
        check_amount(num_frames, init_options.num_gauss, least_occupancy(options, kind))
        if summary.sample is not None:
            summary.sample = summary.sample[: init_options.num_frames]
        gmm = initial_gmm(summary, init_options, variance_floor(variance, options))
        logger.info("%d frames of dimension %d; starting with %d of %d Gaussians (%s)",
                    num_frames, gmm.dim, gmm.num_gauss, init_options.num_gauss, init_options.init)
    else:
        gmm = initial
    return features, _with_covariance(gmm, options.covariance), offset, variance


def _with_covariance(gmm, covariance):
    """The model with the covariances asked for: a diagonal one can be made full."""
    is_diag = isinstance(gmm, DiagGmm)
    if covariance == "diag" and not is_diag:
        raise VoxarkError("the initial model has full covariances: train with --covariance=full, or convert "
                          "it with gmm-copy --to=diag")
    return gmm.to_full() if covariance == "full" and is_diag else gmm


def check_amount(num_frames, num_gauss, least=10.0):
    """Raise VoxarkError when there are fewer than ``least`` frames a Gaussian."""
    if num_frames == 0:
        raise VoxarkError("the features hold no frames at all: nothing to train on")
    if num_frames < least * num_gauss:
        most = int(num_frames / least)
        raise VoxarkError(
            f"{num_frames} frames are too few for {num_gauss} Gaussians: each needs {least:g} "
            f"(--min-gaussian-occupancy), so give at least {least * num_gauss:g}"
            + (f", or take --num-gauss={most} or fewer" if most else "")
        )
