"""What calibration and fusion read and write: options, lists joined into columns of numbers, lists mapped."""

import logging
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.trials.joining import check_weights, read_joined
from voxark.trials.lists import ListWriter, TrialList, TrialReader, find_pairs
from voxark.metrics.operating_points import point
from voxark.calibration.quality import check_terms, split_names

logger = logging.getLogger(__name__)

_OVERLAP_TRIALS = 1 << 17


@dataclass
class ModelOptions:
    """Where the model comes from: a file, or training on a labelled list."""

    model: str = option("", "Model to apply, written by --write-model")
    train_trials: str = option("", "Train on this trial list with labels, and apply what was trained")
    train_scores: str = option(
        "",
        "Scores of the trials to train on, one file a system, separated by commas (default: the scores to "
        "be mapped themselves)",
    )
    write_model: str = option("", "Write the trained model to this file")
    cross_validate: int = option(
        0,
        "Deal the speakers of --utt2spk into so many groups (at least 3, say 5) and map each trial by a "
        "model trained on --train-trials without its speakers (0: no cross-validation)",
    )
    srand: int = option(0, "Seed of the random numbers that deal speakers into groups")

    def check(self, inputs, utt2spk, trains_as_default=True):
        """Refuse options that contradict each other, before anything is read.

        ``inputs``: the score lists that are to be mapped; ``trains_as_default``: whether nothing is said of
        how to train, which a model that is trained already has no use for.
        """
        has_input = bool(inputs)
        if bool(self.model) == bool(self.train_trials):
            raise VoxarkError("give either --model=FILE, to apply it, or --train-trials=LIST, to train")
        if self.model and (self.train_scores or self.write_model or self.cross_validate):
            raise VoxarkError(
                "--train-scores, --write-model and --cross-validate train: --model=FILE is trained already"
            )
        if self.model and not trains_as_default:
            raise VoxarkError(
                "--method, --p-target, --c-miss, --c-fa and --weights are for training: --model=FILE is "
                "trained already"
            )
        read = [self.train_trials, *self.train_scores.split(","), *inputs]
        if self.write_model and self.write_model != "-" and self.write_model in read:
            raise VoxarkError(f"{self.write_model}: is an input, and --write-model would replace it")
        if not has_input and not (self.train_scores and self.write_model):
            raise VoxarkError("to train only, give --train-trials, --train-scores and --write-model")
        if not self.cross_validate:
            return
        if self.cross_validate < 3:
            raise VoxarkError(
                f"--cross-validate={self.cross_validate}: at least 3 groups of speakers are needed"
            )
        if not utt2spk:
            raise VoxarkError("--cross-validate needs --utt2spk=ark:<table>, the speaker of each utterance")
        if self.train_scores or not has_input:
            raise VoxarkError("--cross-validate trains on the scores that it maps: leave --train-scores away")

    def training_scores(self, inputs):
        """The score lists to train on, given those that are to be mapped."""
        names = split_names(self.train_scores) if self.train_scores else list(inputs)
        if inputs and len(names) != len(inputs):
            raise VoxarkError(f"--train-scores has {len(names)} lists, but {len(inputs)} are to be mapped")
        if not self.train_scores and not self.cross_validate:
            if any(name.strip() == "-" for name in inputs):
                raise VoxarkError(
                    "standard input can be read only once: save it to a file, or give --train-scores"
                )
        return names


@dataclass
class FitOptions:
    """What training minimises."""

    p_target: float = option(
        0.5, "Prior of a target, with the costs the operating point that training aims at"
    )
    c_miss: float = option(1.0, "Cost of a miss")
    c_fa: float = option(1.0, "Cost of a false alarm")
    weights: str = option(
        "", "List `<enroll-id> <test-id> <weight>`: relative weights of the trials to train on"
    )
    clip: float = option(0.0, "Take scores beyond -CLIP and CLIP for these, infinite ones too (0: no limit)")

    def is_default(self):
        """Whether nothing is said of how to train; ``clip`` serves the trials to be mapped as well."""
        return replace(self, clip=0.0) == FitOptions()

    def point(self):
        """The checked OperatingPoint."""
        if not (self.clip >= 0.0 and np.isfinite(self.clip)):
            raise VoxarkError(f"--clip={self.clip:g}: a positive limit is expected, or 0 for none")
        return point(self.p_target, self.c_miss, self.c_fa)


class TrainingSet(NamedTuple):
    """What training reads: trials, columns (N,S+Q), weights (N,) or None; ``systems``, ``quality``: names."""

    trials: TrialList
    columns: np.ndarray
    weights: np.ndarray | None
    systems: list
    quality: list


# ---------------------------------------------------------------------------------------------------- reading


def read_training(trials_rxfilename, scores_rxfilenames, fitting, quality, joining, counts=None):
    """Read and join what to train on: a TrainingSet. ``quality``: QualityTables, ``joining``: JoinOptions."""
    lists = [*scores_rxfilenames, fitting.weights] if fitting.weights else scores_rxfilenames
    trials, scores = read_joined(trials_rxfilename, lists, joining, counts)
    weights = None
    if fitting.weights:
        scores, weights = scores[:, :-1], scores[:, -1]
        check_weights(trials, weights, fitting.weights)
    columns = make_columns(trials, scores, quality, fitting.clip)
    return TrainingSet(trials, columns, weights, system_names(scores_rxfilenames), quality.terms)


def make_columns(trials, scores, quality, clip):
    """Columns (N,S+Q) of scores (N,S), clipped, and quality measures; infinite scores need ``clip``."""
    if clip:
        num_clipped = np.count_nonzero(np.abs(scores) > clip)
        if num_clipped:
            logger.info("%s: %d scores beyond %g are taken for it", trials.name, num_clipped, clip)
            scores = np.clip(scores, -clip, clip)
    finite = np.isfinite(scores)
    if not finite.all():
        bad = ~finite.all(axis=1)
        raise VoxarkError(
            f"{trials.name}: the score of {trials.pair(np.argmax(bad))} is infinite, as those of {bad.sum()} "
            "trials: --clip=X takes scores beyond -X and X for these"
        )
    return np.hstack((scores, quality.columns(trials))) if quality.terms else scores


def beside(first, others):
    """The scores (N,) of a system and those (N,S-1) of others as one array (N,S)."""
    return np.column_stack((first, others))


def system_names(rxfilenames):
    """Short names of score lists: the parts of their paths in which they differ; of one, its last part."""
    parts = [name.strip().rstrip("|").strip().split("/") for name in rxfilenames]
    if len(parts) == 1 or any("|" in name for name in rxfilenames):
        return [path[-1] for path in parts]
    while all(len(path) > 1 for path in parts) and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    while all(len(path) > 1 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return ["/".join(path) for path in parts]


# --------------------------------------------------------------------------------------------------- applying


def check_model(model, name, scores_rxfilenames, quality):
    """Refuse a model that was trained on other systems or quality measures than are given."""
    if len(model.systems) != len(scores_rxfilenames):
        raise VoxarkError(
            f"{name}: the model is of {len(model.systems)} systems ({', '.join(model.systems)}), given are "
            f"{len(scores_rxfilenames)}"
        )
    given = system_names(scores_rxfilenames)
    if given != model.systems and sorted(given) == sorted(model.systems):
        raise VoxarkError(
            f"{name}: the systems are in the order {' '.join(model.systems)}, given as {' '.join(given)}"
        )
    check_terms(model.quality, quality.terms)


def apply_to_stream(model, scores_rxfilename, quality, out, clip=0.0, trained_on=None):
    """Map one score list of any length, in blocks, to ``out``, which takes bytes; returns how many trials.

    ``quality``: QualityTables; ``clip``: in place of the model's, if not 0. ``trained_on``: the TrialList of
    training, which is looked at for the first trials of the list, and warned of; or None.
    """
    number, writer = 0, ListWriter(out)
    with TrialReader(scores_rxfilename, "score") as reader:
        for block in reader:
            if number == 0 and trained_on is not None:
                warn_of_overlap(block.select(slice(0, _OVERLAP_TRIALS)), trained_on)
            writer.write_scores(
                block, model.apply(make_columns(block, block.scores[:, None], quality, clip or model.clip))
            )
            number += len(block)
    return number


def warn_of_overlap(trials, trained_on):
    """Warn where trials to be mapped were trained on."""
    known = int(np.count_nonzero(find_pairs(trials, trained_on) >= 0))
    if known:
        logger.warning(
            "%s: %d of %d trials were trained on: figures of them are too good (--cross-validate)",
            trials.name,
            known,
            len(trials),
        )
