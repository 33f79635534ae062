"""Options of end-to-end training, declared once; nothing here needs torch: programs can show help."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from voxark.errors import VoxarkError
from voxark.nnet.run_options import RunOptions, settings_of
from voxark.options import option
from voxark.trials.correlations import CorrelationOptions


@dataclass
class LossOptions:
    """What is minimised: losses of identification and of verification, each 1 for an uninformed system."""

    loss: Literal["identification", "verification", "triplet", "joint"] = option(
        "joint", "Who speaks (multi-class), is it the same speaker (all pairs of a batch), distances of "
                 "triplets, or the first two together")
    head: Literal["softmax", "am", "aam"] = option(
        "softmax", "Identification: plain, or with an additive margin of the cosine (am) or the angle (aam)")
    head_dim: int = option(
        0, "Width of a hidden layer between embedding and classifier, as the x-vector has (0: none)")
    margin: float = option(0.2, "Margin of am and aam")
    scale: float = option(30.0, "Scale of the cosines of am and aam")
    margin_ramp: int = option(1000, "The margin grows from 0 over so many first batches")
    loss_schedule: Literal["constant", "linear"] = option(
        "constant", "joint: weights .25 and .75 of identification and verification all the time, or from "
                    "identification alone to .1 and .9")
    ramp_epochs: int = option(10, "--loss-schedule=linear: epochs until the last weights are reached")
    id_weight: float = option(
        -1.0, "joint: weight of identification, at the end if linear (-1: that of the schedule)")
    ver_weight: float = option(
        -1.0, "joint: weight of verification, at the end if linear (-1: that of the schedule)")
    p_target: float = option(0.5, "Effective prior of targets in the verification loss")
    triplet_margin: float = option(0.3, "Margin of triplets, of distances between embeddings of unit length")
    triplet_mining: Literal["all", "hardest"] = option(
        "all", "Triplets of a batch: all, or the hardest of each anchor")
    cov_weight: float = option(
        0.0, "Weight of the regulariser that orders the covariances of target scores (batches with 4 "
             "utterances of a speaker; 0: none; 0.1 is usual)")
    cov_margin: float = option(0.0, "Margin of this regulariser")

    @property
    def identifies(self):
        """Whether there is a classifier of the training speakers."""
        return self.loss in ("identification", "joint")

    @property
    def verifies(self):
        """Whether the scorer is trained by a loss of its own."""
        return self.loss in ("verification", "joint")

    def schedule(self):
        """What losses.joint_weights takes: ((id, ver) at the start, (id, ver) at the end)."""
        if self.loss == "identification":
            return (1.0, 0.0), (1.0, 0.0)
        if self.loss == "verification":
            return (0.0, 1.0), (0.0, 1.0)
        constant = self.loss_schedule == "constant"
        default = (0.25, 0.75) if constant else (0.1, 0.9)
        given = (self.id_weight, self.ver_weight)
        end = tuple(value if value >= 0 else usual for value, usual in zip(given, default))
        return (end, end) if constant else ((1.0, 0.0), end)

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not 0.0 < self.p_target < 1.0:
            raise VoxarkError(f"--p-target={self.p_target:g}: a probability between 0 and 1 is expected")
        if self.ramp_epochs < 1 or self.margin_ramp < 0:
            raise VoxarkError("--ramp-epochs is at least 1, --margin-ramp at least 0")
        if self.margin < 0 or self.scale <= 0 or self.triplet_margin <= 0 or self.cov_weight < 0:
            raise VoxarkError("--margin and --cov-weight are at least 0, "
                              "--scale and --triplet-margin above 0")
        if self.loss == "joint" and sum(self.schedule()[1]) <= 0:
            raise VoxarkError("--id-weight and --ver-weight are both 0: there is no loss")
        if self.cov_weight > 0 and not self.verifies:
            raise VoxarkError(f"--cov-weight needs scores: --loss=verification or joint, not {self.loss}")


@dataclass
class TrialWeightOptions(CorrelationOptions):
    """How the trials of a batch are weighted."""

    trial_weights: Literal["uniform", "blue", "meta"] = option(
        "uniform", "Weights of trials within targets and nontargets: equal; best linear unbiased ones, under "
                   "the correlations of trials that share speakers or utterances; or learned on the "
                   "development trials' loss")
    meta_lr: float = option(0.01, "meta: step of the weights")
    meta_interval: int = option(10, "meta: the weights take a step every so many batches")
    meta_utterances: int = option(64, "meta: development utterances that a step looks at")

    @property
    def correlates(self):
        """Whether correlations are given."""
        return any((self.correlations, self.c != -1.0, self.target_correlations, self.nontarget_correlations,
                    self.target_components, self.nontarget_components))

    def check(self):
        """VoxarkError for options that contradict, or make no sense."""
        if self.trial_weights == "uniform" and self.correlates:
            raise VoxarkError("--correlations, --c and the like need --trial-weights=blue or meta")
        if self.trial_weights == "blue" and not self.correlates:
            raise VoxarkError("--trial-weights=blue needs the correlations of trials: --correlations=FILE "
                              "(estimate-trial-correlations), or --c=0.1, say")
        if self.meta_lr <= 0 or self.meta_interval < 1 or self.meta_utterances < 2:
            raise VoxarkError("--meta-lr is above 0, --meta-interval at least 1, "
                              "--meta-utterances at least 2")


@dataclass
class OptimizerOptions:
    """Steps, their schedule, and the mechanics of gradients."""

    optimizer: Literal["sgd", "adam", "adamw"] = option("adam", "How gradients become steps")
    lr: float = option(0.001, "Learning rate at the start")
    momentum: float = option(0.9, "Momentum of sgd")
    weight_decay: float = option(0.0, "Weight decay of extractor and classifier (not of the back-end)")
    init_penalty: str = option(
        "", "Weight of the squared distance from the model that training starts from: a number for extractor "
            "and back-end, or a list by block such as f2s=0.01,s2i=0.1,backend=1")
    backend_lr_factor: float = option(
        1.0, "Learning rate of the back-end relative to that of the rest; its matrices of D columns have a "
             "D-th of it (0: the back-end stays as it is)")
    warmup: int = option(0, "The learning rate grows linearly over so many first batches")
    clip: float = option(5.0, "Gradients of a larger norm are scaled down to it (0: never)")
    num_epochs: int = option(20, "Most epochs")
    patience: int = option(
        2, "Epochs without a better figure that are waited for before it goes back to the best model, and "
           "the learning rate is multiplied by --lr-factor")
    lr_factor: float = option(0.5, "What the learning rate is multiplied with then")
    min_lr: float = option(0.0, "Training ends when the learning rate is below this (0: a 64th of --lr)")
    best: Literal["min-cllr", "eer", "cllr", "loss"] = option(
        "min-cllr", "Figure of the development set that the schedule follows, and that chooses the best "
                    "model: Cllr at the best calibration, EER, Cllr, or the loss that is trained "
                    "(identification on held-out utterances)")
    relu_repair: float = option(
        0.0, "Strength of the push on rectified units that are dead or always on (0: none; 1e-5 is usual)")
    anchor: float = option(
        0.0, "Pull towards the parameters at the start: their squared distance times this is added to the "
             "loss")
    freeze_extractor: bool = option(False, "Train the back-end (and the classifier) alone")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not self.lr > 0 or self.min_lr < 0 or not 0 < self.lr_factor < 1:
            raise VoxarkError("--lr is above 0, --min-lr at least 0, --lr-factor between 0 and 1")
        if self.num_epochs < 0 or self.patience < 0 or self.warmup < 0:
            raise VoxarkError("--num-epochs, --patience and --warmup are at least 0")
        least = min(self.clip, self.weight_decay, self.anchor, self.relu_repair)
        if not least >= 0 or not 0 <= self.momentum < 1:
            raise VoxarkError("--clip, --weight-decay, --anchor and --relu-repair are at least 0, "
                              "--momentum from 0 to below 1")
        if self.backend_lr_factor < 0:
            raise VoxarkError("--backend-lr-factor is at least 0")


@dataclass
class GradientOptions:
    """Gradients of the loss over all pairs of a batch."""

    exact: bool = option(
        False, "Gradients in memory that does not grow with the batch, exact: embed all, then recompute part "
               "by part (always so for batches above --micro-batch)")
    micro_batch: int = option(128, "Utterances embedded at a time then")
    precision: Literal["float32", "bf16"] = option(
        "float32", "Products of the extractor in training: bf16 is several times as fast on processors and "
                   "GPUs that have it (AMX, tensor cores); sums, parameters and extraction stay float32")
    verify_grad: bool = option(
        False, "Log how much the gradient of the first batch differs from the plain way's, and go on")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if self.micro_batch < 1:
            raise VoxarkError("--micro-batch is at least 1")


@dataclass
class E2eRunOptions(RunOptions):
    """The run: start, saving, going on."""

    init_model: str = option("", "Folder of a trained model to start from; its extractor, and what else fits")
    calibrate: bool = option(True, "Calibrate the scores of the best model on the development trials")
    init_batches: int = option(
        10, "Batches that normalisation layers and the back-end are estimated on at the start")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        super().check()
        if self.init_batches < 1:
            raise VoxarkError("--init-batches is at least 1")


class Options(NamedTuple):
    """All options of a training, by group."""

    extractor: object
    backend: object
    loss: LossOptions
    weights: TrialWeightOptions
    batches: object
    normalize: object
    inputs: object
    masks: object
    optimizer: OptimizerOptions
    gradient: GradientOptions
    dev: object
    run: E2eRunOptions

    def check(self):
        """VoxarkError for values that make no sense, alone or together."""
        self.settings()
        for group in self:
            if hasattr(group, "check"):
                group.check()
        self._check_trials()
        self._check_extractor()

    def _check_trials(self):
        """Weights and regulariser need scores, of trials that they know."""
        kind = self.weights.trial_weights
        if kind != "uniform" and not self.loss.verifies:
            raise VoxarkError(f"--trial-weights={kind} needs --loss=verification or joint")
        if kind == "blue" and (self.batches.batches not in "AB" or self.batches.max_enroll):
            raise VoxarkError("--trial-weights=blue needs --batches=A or B, and pairs of utterances "
                              "(--max-enroll=0): for other trials learn the weights (meta)")
        if self.loss.cov_weight and self.batches.max_enroll:
            raise VoxarkError("--cov-weight needs trials of two utterances: --max-enroll=0")

    def _check_extractor(self):
        """What the extractor's gradients need."""
        mixes = self.extractor.norm == "batch"
        if mixes and (self.gradient.exact or self.batches.short_utterances != "repeat"):
            raise VoxarkError("--norm=batch mixes the utterances of a batch: it needs --exact=false and "
                              "--short-utterances=repeat; --norm=frozen has no such limits")
        if self.optimizer.freeze_extractor and not self.run.init_model:
            raise VoxarkError("--freeze-extractor needs --init-model: a random extractor would stay random")

    def settings(self):
        """One dict of all values by name: what a run must be resumed with."""
        return settings_of(self)
