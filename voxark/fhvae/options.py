"""Options of FHVAE training, declared once; nothing here needs torch: programs can show help."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from voxark.errors import VoxarkError
from voxark.nnet.run_options import RunOptions, settings_of
from voxark.options import option

MAX_SIZE = 2**31 - 1  # torch counts with 64 bits, and sizes are multiplied


@dataclass
class ModelOptions:
    """Networks and latent variables."""

    arch: Literal["lstm", "fc"] = option(
        "lstm", "Encoders and decoder: stacked LSTMs (the paper's), or fully connected layers")
    num_layers: int = option(2, "Layers of each network")
    hidden_dim: int = option(256, "Cells (lstm) or units (fc) of each layer")
    z1_dim: int = option(32, "Dimension of the latent segment variable z1")
    z2_dim: int = option(32, "Dimension of the latent sequence variable z2, and of the s-vector mu2")
    pz1_var: float = option(1.0, "Variance of z1's prior, whose mean is 0")
    pz2_var: float = option(0.25, "Variance of z2's prior, whose mean is the sequence's mu2")
    pmu2_var: float = option(1.0, "Variance of mu2's prior, whose mean is 0")
    segment_length: int = option(20, "Frames of a segment")
    logvar_clamp: float = option(
        10.0, "Logarithms of variances that the networks give are kept within -X and X (0: as they come)")
    normalize: Literal["global", "none"] = option(
        "global", "Features less their mean, over their deviation, by dimension, both of training frames; or "
                  "as they are")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if min(self.num_layers, self.hidden_dim, self.z1_dim, self.z2_dim, self.segment_length) < 1:
            raise VoxarkError("--num-layers, --hidden-dim, --z1-dim, --z2-dim and --segment-length are at least 1")
        if max(self.hidden_dim, self.z1_dim, self.z2_dim, self.segment_length) > MAX_SIZE or self.num_layers > 100:
            raise VoxarkError(f"--hidden-dim, --z1-dim, --z2-dim and --segment-length are at most {MAX_SIZE}, "
                              "--num-layers at most 100")
        if not min(self.pz1_var, self.pz2_var, self.pmu2_var) > 0:
            raise VoxarkError("--pz1-var, --pz2-var and --pmu2-var are above 0")
        if self.logvar_clamp < 0:
            raise VoxarkError("--logvar-clamp is at least 0")


@dataclass
class SamplingOptions:
    """Which segments a step sees, and with which sequences they are compared."""

    sampling: Literal["hierarchical", "flat"] = option(
        "hierarchical", "Sequences first, then segments of them (Algorithm 1): any number of sequences will "
                        "do; or segments of all, with a table of all mu2 (the original)")
    sequence_batch_size: int = option(2000, "K: sequences sampled together, the entries of the cache of mu2")
    segment_batch_size: int = option(256, "Segments in a step")
    num_segment_batches: int = option(
        0, "B_seg: batches of segments for a batch of sequences (0: one pass over their segments)")
    segment_shift: int = option(
        8, "A sequence of T frames counts as floor((T - length) / shift) + 1 segments: so many are sampled in "
           "a pass, from anywhere, and cover it evenly when its mu2 is estimated")
    cache_opt: Literal["reset", "keep"] = option(
        "reset", "What becomes of Adam's moments of the cache when it is reset: forgotten with it, or kept "
                 "though they belong to other sequences")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if min(self.sequence_batch_size, self.segment_batch_size, self.segment_shift) < 1:
            raise VoxarkError("--sequence-batch-size, --segment-batch-size and --segment-shift are at least 1")
        if self.num_segment_batches < 0:
            raise VoxarkError("--num-segment-batches is at least 0")


@dataclass
class DevOptions:
    """What the bound is validated on."""

    dev_feats: str = option("", "Features of held-out sequences (default: a share of the training ones)")
    dev_share: float = option(0.05, "Share of the sequences held out, if --dev-feats gives none")
    max_dev: int = option(1000, "Hold out no more sequences than this")
    dev_segment_shift: int = option(20, "Frames from one segment to the next in validation")
    exact_bound: bool = option(
        False, "Report the bound with the exact posterior covariance of mu2, sigma^2 / (N + sigma^2), in "
               "place of the paper's objective")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not 0 < self.dev_share < 1 or self.max_dev < 1 or self.dev_segment_shift < 1:
            raise VoxarkError("--dev-share is between 0 and 1, --max-dev and --dev-segment-shift are at least 1")


@dataclass
class OptimizerOptions:
    """Objective, steps, and when they end."""

    alpha: float = option(10.0, "Weight of the discriminative term")
    lr: float = option(0.001, "Learning rate of Adam")
    beta1: float = option(0.95, "Adam: decay of the mean of gradients")
    beta2: float = option(0.999, "Adam: decay of the mean of squared gradients")
    adam_epsilon: float = option(1e-8, "Adam: what is added to the deviation of gradients")
    weight_decay: float = option(0.0, "L2 penalty on the networks' parameters")
    clip: float = option(0.0, "Gradients of the networks of a larger norm are scaled down to it (0: never)")
    num_steps: int = option(500_000, "Most steps")
    steps_per_epoch: int = option(5000, "Steps from one validation to the next")
    patience_steps: int = option(50_000, "End when the validation bound has not improved for so many steps")
    precision: Literal["float32", "bf16"] = option(
        "float32", "Products of the networks in training: bf16 is several times as fast on processors and "
                   "GPUs that have it (AMX, tensor cores); objective, parameters and extraction stay float32")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not self.lr > 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1 or not self.adam_epsilon > 0:
            raise VoxarkError("--lr and --adam-epsilon are above 0, --beta1 and --beta2 from 0 to below 1")
        if min(self.alpha, self.weight_decay, self.clip, self.num_steps) < 0:
            raise VoxarkError("--alpha, --weight-decay, --clip and --num-steps are at least 0")
        if min(self.steps_per_epoch, self.patience_steps) < 1:
            raise VoxarkError("--steps-per-epoch and --patience-steps are at least 1")


@dataclass
class InputOptions:
    """How features come in."""

    utt2num_frames: str = option("", "Frames of each utterance: spares looking into the archives at the start")
    max_held: int = option(2048, "Most MiB of features that are held in memory where they come from a pipe")
    stats_sequences: int = option(
        2000, "--normalize=global: mean and deviation are those of so many sequences (0: of all)")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if self.max_held < 1 or self.stats_sequences < 0:
            raise VoxarkError("--max-held is at least 1, --stats-sequences at least 0")


class Options(NamedTuple):
    """All options of a training, by group."""

    model: ModelOptions
    sampling: SamplingOptions
    dev: DevOptions
    optimizer: OptimizerOptions
    inputs: InputOptions
    run: RunOptions

    def check(self):
        """VoxarkError for values that make no sense."""
        self.settings()
        for group in self:
            group.check()

    def settings(self):
        """One dict of all values by name: what a run must be resumed with."""
        return settings_of(self)
