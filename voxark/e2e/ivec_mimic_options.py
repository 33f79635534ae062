"""Options of the network that is built like an i-vector system, without torch; importing it registers it."""

from dataclasses import dataclass
from typing import Literal

from voxark.e2e.architectures import register
from voxark.errors import VoxarkError
from voxark.ivector.utterances import ExtractionOptions
from voxark.options import option


@dataclass
class LayerOptions:
    """Sizes of layers that imitate an i-vector system. The published ones are not claimed: these are ours."""

    channels: int = option(512, "mimic: width of the hidden layers")
    context: int = option(0, "mimic: frames on each side that a posterior is predicted from")
    pca_dim: int = option(500, "mimic: dimensions that the statistics are reduced to")
    relevance: float = option(1.0, "mimic: statistics are divided by their counts plus this")

    def check(self):
        """VoxarkError for sizes that make no sense."""
        if min(self.channels, self.pca_dim) < 1 or self.context < 0 or not self.relevance > 0:
            raise VoxarkError("--channels and --pca-dim are at least 1, --context at least 0, --relevance "
                              "above 0")


@dataclass
class IvecMimicOptions(LayerOptions, ExtractionOptions):
    """Frames to posteriors and statistics (f2s), statistics to a vector (s2i), as in i-vector systems."""

    input_dim: int = option(60, "Features per frame")
    num_gauss: int = option(512, "Components whose posteriors are predicted")
    embedding_dim: int = option(200, "Dimension of the embedding: of the i-vector (exact), of what LDA makes "
                                     "of it (mimic)")
    form: Literal["exact", "mimic"] = option("mimic", "The i-vector's own formulas as layers (exact), or "
                                                      "layers that learn to imitate them")


@dataclass
class MimicOptions:
    """How the layers learn to imitate an i-vector system, each by itself, before joint training."""

    max_utts: int = option(
        5000, "mimic: utterances that are used at most, a random choice; their statistics lie in memory")
    num_cuts: int = option(2, "mimic: random cuts of each utterance that s2i learns from besides the whole")
    heldout_share: float = option(0.1, "mimic: share of the utterances that the imitation is judged on")
    num_f2s_steps: int = option(2000, "mimic: batches that the posteriors are learned on")
    num_s2i_epochs: int = option(50, "mimic: passes over the statistics that the vectors are learned in")
    mimic_lr: float = option(0.002, "mimic: learning rate at the start; it falls linearly to 0")
    mimic_batch: int = option(32, "mimic: utterances of a batch")
    mimic_frames: int = option(200, "mimic: frames of an utterance in a batch of f2s, and of a cut at least")
    srand: int = option(0, "Seed of random numbers")
    num_threads: int = option(1, "Threads of the networks")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        least = {"max_utts": 4, "num_cuts": 0, "num_f2s_steps": 0, "num_s2i_epochs": 0, "mimic_batch": 1,
                 "mimic_frames": 1, "num_threads": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise VoxarkError(f"--{name.replace('_', '-')}={getattr(self, name)}: at least {number}")
        if not 0.0 < self.heldout_share < 1.0 or not self.mimic_lr > 0:
            raise VoxarkError("--heldout-share lies between 0 and 1, --mimic-lr above 0")


register("ivec-mimic", "voxark.e2e.ivec_mimic", IvecMimicOptions, "IvecMimicExtractor")
