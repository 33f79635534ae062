"""Training of calibration and fusion on lists, and what is said of how good it is."""

import logging
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.calibration.logistic import fit_logistic
from voxark.calibration.model_file import CalibrationModel, read_calibration, write_calibration
from voxark.calibration.training_lists import TrainingSet, check_model, read_training
from voxark.calibration.cross_validation import cross_validate
from voxark.metrics import Roc
from voxark.calibration.pav import fit_pav
from voxark.trials.speakers import speakers_of

logger = logging.getLogger(__name__)


class Trainer:
    """Trains CalibrationModels: ``method`` "logistic" at an OperatingPoint, or "pav"."""

    def __init__(self, point, systems, quality, clip=0.0, method="logistic", pseudo_trials=1.0):
        if method == "pav" and (len(systems) > 1 or quality):
            raise VoxarkError("--method=pav maps the scores of one system, without quality measures")
        self.point, self.systems, self.quality, self.clip = point, systems, quality, clip
        self.method, self.pseudo_trials = method, pseudo_trials

    def fit(self, columns, target, weights=None):
        """(CalibrationModel, LogisticFit or PavMap) of columns (N,S+Q), target (N,) bool, weights or None."""
        model = CalibrationModel(self.method, self.systems, self.quality, self.clip)
        if self.method == "pav":
            model.pav = found = fit_pav(columns[:, 0], target, weights, self.pseudo_trials)
        else:
            found = fit_logistic(columns, target, self.point.effective_prior, weights)
            model.weights, model.offset = found.weights, found.offset
        return model, found


def figures(llrs, target, weights, point):
    """Cllr, minCllr, actDCF and minDCF at an OperatingPoint, as a dict."""
    classes = (target, ~target)
    roc = Roc(
        *(llrs[chosen] for chosen in classes), *(() if weights is None else (weights[c] for c in classes))
    )
    cost = point.p_target, point.c_miss, point.c_fa
    return {
        "cllr": roc.cllr(),
        "min_cllr": roc.min_cllr(),
        "act_dcf": roc.act_dcf(*cost),
        "min_dcf": roc.min_dcf(*cost)[0],
    }


def describe(measures, point):
    """The figures for the log."""
    return (
        f"Cllr {measures['cllr']:.4f}, minCllr {measures['min_cllr']:.4f}; at {point.name} actDCF "
        f"{measures['act_dcf']:.4f}, minDCF {measures['min_dcf']:.4f}"
    )


def train(data, trainer, names):
    """Train on a TrainingSet, say how it went; returns the CalibrationModel. ``names`` of the columns."""
    target = data.trials.target
    model, found = trainer.fit(data.columns, target, data.weights)
    numbers = int(np.count_nonzero(target)), int(np.count_nonzero(~target))
    logger.info("%s: %d target and %d nontarget trials to train on", data.trials.name, *numbers)
    if trainer.method == "pav":
        logger.info(
            "PAV: %d scores and LLRs, from %.4g to %.4g", len(found.llrs), found.llrs[0], found.llrs[-1]
        )
        if found.llrs[0] == found.llrs[-1]:
            logger.warning("%s: every LLR is 0: the scores are all equal, or point the wrong way", names[0])
    else:
        warn_of(found, names, len(trainer.systems))
        terms = ", ".join(f"{name} {weight:.6g}" for name, weight in zip(names, found.weights))
        logger.info("weights: %s; offset %.6g (%d iterations)", terms, found.offset, found.num_iters)
    before = [
        figures(data.columns[:, n], target, data.weights, trainer.point) for n in range(len(trainer.systems))
    ]
    for system, measures in zip(trainer.systems, before):
        logger.info("%s before: %s", system, describe(measures, trainer.point))
    after = figures(model.apply(data.columns), target, data.weights, trainer.point)
    logger.info("after, on the trials trained on: %s", describe(after, trainer.point))
    model.training = {
        "p_target": trainer.point.p_target,
        "c_miss": trainer.point.c_miss,
        "c_fa": trainer.point.c_fa,
        "effective_prior": trainer.point.effective_prior,
        "targets": numbers[0],
        "nontargets": numbers[1],
        "ridge": 0.0 if trainer.method == "pav" else found.ridge,
        "before": before,
        "after": after,
    }
    return model


def warn_of(found, names, num_systems):
    """Warn of what is odd about a LogisticFit; ``names`` of its columns, systems first."""
    for name, is_constant in zip(names, found.constant):
        if is_constant:
            logger.warning("%s: all values are equal: it has no weight", name)
    if found.constant.all():
        logger.warning("there is nothing to tell trials by: every LLR is 0")
    if found.separable:
        logger.warning(
            "the classes can be separated without an error, so that no finite weights are best: a ridge of "
            "%g limits them; LLRs of so few or so easy trials are guesses",
            found.ridge,
        )
    if found.collinear:
        logger.warning(
            "scores or quality measures depend on each other linearly: a ridge of %g decides", found.ridge
        )
    if found.num_iters and not found.gradient < 1e-8:
        logger.warning("training has not converged: the gradient is %.2g", found.gradient)
    for name, weight in list(zip(names, found.weights))[:num_systems]:
        if weight < 0 and num_systems == 1:
            logger.warning("%s: the weight is negative: the scores point the wrong way (distances?)", name)
        elif weight < 0:
            logger.warning(
                "%s: the weight is negative: it corrects the others, or points the wrong way", name
            )


def cross_validated(data, trainer, names, options, speaker_options):
    """LLRs (N,) of a TrainingSet, each from a model of other speakers; says how good they are."""
    speakers = speakers_of(data.trials, speaker_options)
    llrs, details = cross_validate(
        trainer.fit,
        data.columns,
        data.trials.target,
        data.weights,
        speakers,
        options.cross_validate,
        options.srand,
    )
    if trainer.method == "logistic":
        odd = sum(found.separable or found.collinear or bool(found.constant.any()) for found in details)
        if odd:
            logger.warning(
                "%d of %d models of the cross-validation needed a ridge, or lack a column", odd, len(details)
            )
        for place, name in enumerate(names):
            weights = [found.weights[place] for found in details]
            logger.info(
                "%s: weights from %.6g to %.6g in %d models", name, min(weights), max(weights), len(details)
            )
    measures = figures(llrs, data.trials.target, data.weights, trainer.point)
    logger.info("after, by models of other speakers: %s", describe(measures, trainer.point))
    return llrs


class Obtained(NamedTuple):
    """A CalibrationModel, its TrainingSet if trained now, LLRs (N,) of that by cross-validation, or None."""

    model: CalibrationModel
    data: TrainingSet | None
    llrs: np.ndarray | None


def obtain(
    options, fitting, inputs, quality, joining, speakers, counts, method="logistic", pseudo_trials=1.0
):
    """Read the model to apply to the score lists ``inputs``, or train and write it: Obtained.

    ``options``: ModelOptions, ``fitting``: FitOptions, ``quality``: QualityTables, ``joining``: JoinOptions,
    ``speakers``: SpeakerOptions; ``counts`` is told of the trials trained on where they are what is done.
    """
    operating_point = fitting.point()
    if options.model:
        model = read_calibration(options.model)
        check_model(model, options.model, inputs, quality)
        return Obtained(model, None, None)
    names = options.training_scores(inputs)
    used = counts if options.cross_validate or not inputs else None
    data = read_training(options.train_trials, names, fitting, quality, joining, used)
    trainer = Trainer(operating_point, data.systems, data.quality, fitting.clip, method, pseudo_trials)
    columns = data.systems + quality.names()
    model = train(data, trainer, columns)
    if options.write_model:
        write_calibration(options.write_model, model)
    llrs = cross_validated(data, trainer, columns, options, speakers) if options.cross_validate else None
    return Obtained(model, data, llrs)
