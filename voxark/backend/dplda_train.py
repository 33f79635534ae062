"""Training of a DPLDA: calibrate the start, then minimise the verification loss plus the distance to it.

    theta* = argmin L(theta) + sum over blocks of lambda |theta - theta_init|^2

over Lambda, Gamma, c and k in the space of voxark.backend.dplda_form. The problem is convex: L-BFGS over all
pairs finds the one minimum; Adam on mini-batches comes near it where all pairs are too many. Given
development data, the parameters with the smallest loss there are kept, which may be those of the start.
"""

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from voxark.backend.dplda_batches import Batches, draw_sessions
from voxark.backend.dplda_form import BLOCKS, Form
from voxark.backend.dplda_objective import Pairs, verification_loss
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)

_CALIBRATION_VECTORS = 4000  # vectors that the start is calibrated on, at most; two numbers need no more
_SMALLEST_RATE = 1.0 / 64.0  # of the first learning rate: where the schedule of Adam ends


@dataclass
class DpldaTrainingOptions:
    """How a DPLDA is trained."""

    p_target: float = option(0.5, "Prior of a target, with the costs in it, at which the loss is measured")
    diagonal: bool = option(False, "Keep Lambda and Gamma diagonal in PLDA's space (NPLDA)")
    regularize: str = option(
        "0.1",
        "Factor of the squared distance to the start; of several (0.1,0.01) the best on development data",
    )
    regularize_blocks: str = option(
        "1,1,1,0", "Factors of that for Lambda, Gamma, the offset and the constant"
    )
    calibrate: bool = option(True, "Scale and shift the scores of the start to the smallest loss first")
    max_enroll: int = option(1, "Train on models that are means of 1 to so many vectors (lbfgs)")
    optimizer: Literal["lbfgs", "adam"] = option("lbfgs", "All pairs at each step, or mini-batches")
    max_iters: int = option(200, "Most iterations of lbfgs, or epochs of adam")
    tolerance: float = option(1e-6, "lbfgs: the largest element of the gradient at which to end")
    batch: Literal["A", "B"] = option("A", "adam: all vectors of some speakers, or two of each of many")
    batch_speakers: int = option(50, "adam: speakers of a batch")
    batch_cap: int = option(0, "adam: most vectors of a speaker in a batch A (0: all)")
    batches_per_epoch: int = option(100, "adam: batches between two looks at the development data")
    learning_rate: float = option(0.01, "adam: first learning rate; halved when patience is at its end")
    patience: int = option(
        5, "Iterations without a smaller loss on development data before going back to the best"
    )
    srand: int = option(0, "Seed of the batches, of the models and of the speakers held out")

    def check(self):
        """Raise VoxarkError for values that make no sense."""
        if not 0.0 < self.p_target < 1.0:
            raise VoxarkError(f"--p-target={self.p_target:g}: a probability between 0 and 1 is expected")
        self.strengths(), self.block_factors()
        for name in ("max_enroll", "batches_per_epoch", "patience"):
            if getattr(self, name) < 1:
                raise VoxarkError(f"--{name.replace('_', '-')}={getattr(self, name)}: at least 1 is expected")
        if self.max_iters < 0 or self.batch_cap < 0 or self.batch_cap == 1:
            raise VoxarkError("--max-iters and --batch-cap: 0 or more are expected, and no cap of 1")
        if not (self.learning_rate > 0 and self.tolerance > 0):
            raise VoxarkError("--learning-rate and --tolerance: positive numbers are expected")
        if self.max_enroll > 1 and self.optimizer != "lbfgs":
            raise VoxarkError("--max-enroll needs --optimizer=lbfgs")

    def strengths(self):
        """The values of --regularize."""
        return numbers("regularize", self.regularize)

    def block_factors(self):
        """The four values of --regularize-blocks."""
        factors = numbers("regularize-blocks", self.regularize_blocks)
        if len(factors) != len(BLOCKS):
            raise VoxarkError(
                f"--regularize-blocks={self.regularize_blocks}: four numbers are expected, for "
                f"{', '.join(BLOCKS)}"
            )
        return factors


def numbers(name, text):
    """The numbers, 0 or more, of a list with commas between them."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = [np.nan]
    if not all(np.isfinite(value) and value >= 0 for value in values):
        raise VoxarkError(f"--{name}={text}: numbers of 0 or more, with commas between them, are expected")
    return values


class Trials(NamedTuple):
    """What the loss is over: x (N,D) in the space of training; ``pairs``; ``models`` (M,D) or None."""

    x: np.ndarray
    pairs: object
    models: np.ndarray | None = None

    def loss(self, form, theta):
        """(L, gradient (P,)) at theta (P,)."""
        value, gradient = verification_loss(form.model(theta), self.pairs, self.x, self.models)
        return value, form.vector(gradient)


class Penalty(NamedTuple):
    """sum of weight (P,) (theta - start)^2."""

    start: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, form, start, strength, factors):
        """With ``strength`` times the factor of its block as the weight of each parameter."""
        weight = np.empty(form.size)
        for block, factor in zip(form.blocks, factors):
            weight[block] = strength * factor
        return cls(start, weight)

    def __call__(self, theta):
        """(value, gradient (P,))."""
        moved = theta - self.start
        return float(self.weight @ moved**2), 2.0 * self.weight * moved


class Step(NamedTuple):
    """A point of the training; ``development``: figures (voxark.trials.development) or None."""

    iteration: int
    theta: np.ndarray
    loss: float
    penalty: float
    gradient: float
    development: object


class Watch:
    """Reports each step, and keeps the best: by the loss on development data, else by loss and penalty."""

    def __init__(self, form, development, table=None, label=""):
        self.form, self.development, self.table, self.label = form, development, table, label
        self.best, self.best_value = None, np.inf

    def look(self, iteration, theta, loss, penalty, gradient):
        """Report; return whether this step is the best so far. VoxarkError for a loss that is not finite."""
        if not np.isfinite(loss):
            raise VoxarkError(f"the loss is {loss} at iteration {iteration}: are there huge vectors?")
        figures = None if self.development is None else self.development.figures(self.form.model(theta))
        step = Step(iteration, theta.copy(), loss, penalty, gradient, figures)
        self._report(step)
        value = loss + penalty if figures is None else figures.loss
        if value < self.best_value:
            self.best, self.best_value = step, value
            return True
        return False

    def _report(self, step):
        text = "iteration %d: loss %.6f, penalty %.3g, largest gradient %.2g"
        values = [step.iteration, step.loss, step.penalty, step.gradient]
        if step.development is not None:
            text += "; development: loss %.6f, EER %.2f %%, Cllr %.4f"
            values += [step.development.loss, 100.0 * step.development.eer, step.development.cllr]
        logger.info(text, *values)
        if self.table is not None:
            figures = (
                ("", "", "") if step.development is None else tuple(f"{v:.12g}" for v in step.development)
            )
            numbers_of = [f"{value:.12g}" for value in (step.loss, step.penalty, step.gradient)]
            self.table.write("\t".join((self.label, str(step.iteration), *numbers_of, *figures)) + "\n")


REPORT_COLUMNS = ("regularize", "iteration", "loss", "penalty", "gradient", "dev_loss", "dev_eer", "dev_cllr")


# -------------------------------------------------------------------------------------------------- training


def calibrated(form, trials, theta):
    """theta of the scores a s + b with the smallest loss: (theta (P,), a, b). Scores are linear in theta."""
    from scipy.optimize import minimize

    def of_affine(affine):
        moved = affine[0] * theta
        moved[-1] += affine[1]
        value, gradient = trials.loss(form, moved)
        return value, np.array([gradient @ theta, gradient[-1]])

    found = minimize(
        of_affine, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8, "maxiter": 100}
    )
    scale, offset = found.x
    if scale <= 0:
        logger.warning(
            "the scores of the start are higher for different speakers (scale %g): they are taken as "
            "they are; do the vectors belong to this model?",
            scale,
        )
        return theta, 1.0, 0.0
    moved = scale * theta
    moved[-1] += offset
    return moved, float(scale), float(offset)


class Regularised:
    """Loss and penalty as one function of theta, which remembers its last value in parts."""

    def __init__(self, form, trials, penalty):
        self.form, self.trials, self.penalty = form, trials, penalty
        self.theta = self.loss = self.distance = self.gradient = None

    def __call__(self, theta):
        """(loss + penalty, gradient (P,))."""
        self.theta = theta.copy()
        self.loss, gradient = self.trials.loss(self.form, theta)
        self.distance, pull = self.penalty(theta)
        self.gradient = gradient + pull
        return self.loss + self.distance, self.gradient

    def report(self, watch, iteration, theta):
        """Have a Watch look at theta; whether it is the best so far."""
        if self.theta is None or not np.array_equal(theta, self.theta):
            self(theta)
        return watch.look(iteration, theta, self.loss, self.distance, float(np.abs(self.gradient).max()))


def lbfgs(form, trials, penalty, options, watch):
    """Minimise loss and penalty from penalty.start over all pairs, until it or the patience ends."""
    from scipy.optimize import Bounds, minimize

    objective, waited, iteration = Regularised(form, trials, penalty), 0, 0

    def after_iteration(intermediate_result):
        nonlocal waited, iteration
        iteration += 1
        waited = 0 if objective.report(watch, iteration, intermediate_result.x) else waited + 1
        if watch.development is not None and waited >= options.patience:
            raise StopIteration

    objective.report(watch, 0, penalty.start)
    if options.max_iters:
        limits = {"maxiter": options.max_iters, "maxfun": 10**9, "ftol": 1e-14, "gtol": options.tolerance}
        minimize(
            objective,
            penalty.start,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(form.bounds()),
            callback=after_iteration,
            options={**limits, "maxcor": 20},
        )


class Adam:
    """Adam's steps for parameters (P,), kept at or above ``lowest`` (P,)."""

    def __init__(self, size, rate, lowest):
        self.rate, self.lowest, self.number = rate, lowest, 0
        self.mean, self.square = np.zeros(size), np.zeros(size)

    def step(self, theta, gradient):
        """The next theta."""
        self.number += 1
        self.mean += 0.1 * (gradient - self.mean)
        self.square += 0.001 * (gradient**2 - self.square)
        mean, square = self.mean / (1.0 - 0.9**self.number), self.square / (1.0 - 0.999**self.number)
        return np.maximum(theta - self.rate * mean / (np.sqrt(square) + 1e-8), self.lowest)


def adam(form, trials, penalty, options, watch):
    """Minimise by mini-batches; an epoch's end is judged on development data, or on all pairs without any.

    After ``patience`` epochs without a smaller loss: back to the best, at half the learning rate.
    """
    batches = Batches(
        trials.pairs,
        options.batch_speakers,
        2 if options.batch == "B" else options.batch_cap,
        seeded_rng(options.srand, "batches"),
    )
    theta, rate, waited = penalty.start, options.learning_rate, 0
    optimizer = Adam(form.size, rate, form.bounds())

    whole = Regularised(form, trials, penalty)
    whole.report(watch, 0, theta)
    for epoch in range(1, options.max_iters + 1):
        for _ in range(options.batches_per_epoch):
            rows, pairs = batches.draw()
            _, gradient = Trials(trials.x[rows], pairs).loss(form, theta)
            theta = optimizer.step(theta, gradient + penalty(theta)[1])
        waited = 0 if whole.report(watch, epoch, theta) else waited + 1
        if waited >= options.patience:
            rate, theta, waited = rate / 2.0, watch.best.theta, 0
            optimizer = Adam(form.size, rate, form.bounds())
            if rate < options.learning_rate * _SMALLEST_RATE:
                break
            logger.info("back to iteration %d, learning rate %g", watch.best.iteration, rate)
    if batches.without_target:
        logger.warning("%d batches had no target trial", batches.without_target)


def train_dplda(
    x, labels, start, options, development=None, table=None, weights=None, same=None, listed=None
):
    """Train a Dplda on vectors x (N,D) of speakers labels (N,), which are ascending from 0.

    ``start``: (Space, Dplda in it) of dplda_form.start_from; ``development``: what gives figures(Dplda) with
    a ``loss`` for Dpldas of x, or None; ``table``: a text stream for a line a step, or None; ``weights``,
    ``same`` and ``listed``: of Pairs. Returns a Dplda of x. VoxarkError when there is nothing to train on.
    """
    space, model = start
    form, u = Form(len(model.c), options.diagonal), space.to(x)
    if (largest := float(np.abs(u).max())) > 1e50:
        raise VoxarkError(f"the vectors hold values that are too large ({largest:g} in the model's space)")
    development = None if development is None else development.mapped(space)
    trials = _trials(u, labels, options, weights, same, listed)
    theta = form.vector(model)
    if options.calibrate:
        theta, scale, offset = calibrated(form, _calibration_part(trials, options), theta)
        logger.info("start: scores times %.4g plus %.4g have the smallest loss", scale, offset)
    strengths = options.strengths()
    if len(strengths) > 1 and development is None:
        raise VoxarkError("--regularize: several values need development data to choose by")
    if table is not None:
        table.write("\t".join(REPORT_COLUMNS) + "\n")
    best = None
    for strength in strengths:
        watch = Watch(form, development, table, f"{strength:g}")
        penalty = Penalty.of(form, theta, strength, options.block_factors())
        logger.info("regularisation %g", strength)
        (lbfgs if options.optimizer == "lbfgs" else adam)(form, trials, penalty, options, watch)
        if best is None or watch.best_value < best[1].best_value:
            best = strength, watch
    logger.info(
        "best: regularisation %g, iteration %d: loss %.6f%s",
        best[0],
        best[1].best.iteration,
        best[1].best.loss,
        "" if development is None else f", on development data {best[1].best_value:.6f}",
    )
    return space.model_from(form.model(best[1].best.theta))


def _trials(u, labels, options, weights, same, listed):
    if options.max_enroll == 1:
        return Trials(u, Pairs.of_speakers(labels, options.p_target, weights, same, listed))
    if weights is not None or listed is not None:
        raise VoxarkError("--trial-weights are for single vectors, not for --max-enroll")
    rng = seeded_rng(options.srand, "sessions")
    models, pairs = draw_sessions(u, labels, options.max_enroll, rng, options.p_target, same)
    return Trials(u, pairs, models)


def _calibration_part(trials, options):
    """Trials of every n-th speaker where there are very many vectors."""
    labels, every = trials.pairs.labels, -(-len(trials.x) // _CALIBRATION_VECTORS)
    if every == 1 or trials.models is not None:
        return trials
    batches = Batches(
        trials.pairs, max(2, len(np.unique(labels)) // every), 0, seeded_rng(options.srand, "calibration")
    )
    rows, pairs = batches.draw()
    return Trials(trials.x[rows], pairs.normalised(options.p_target))
