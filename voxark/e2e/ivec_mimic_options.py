"""Options of the network that is built like an i-vector system, without torch; importing it registers it."""

from dataclasses import dataclass
from typing import Literal

from voxark.e2e.architectures import register
from voxark.options import option


@dataclass
class IvecMimicOptions:
    """Frames to posteriors and statistics (f2s), statistics to a vector (s2i), as i-vector systems have them.

    The published layer sizes are not reproduced: these are ours.
    """

    input_dim: int = option(60, "Features per frame")
    num_gauss: int = option(512, "Components whose posteriors are predicted")
    embedding_dim: int = option(200, "Dimension of the embedding: of the i-vector (exact), of what LDA makes "
                                     "of it (mimic)")
    form: Literal["exact", "mimic"] = option("mimic", "The i-vector's own formulas as layers (exact), or "
                                                      "layers that learn to imitate them")
    channels: int = option(512, "mimic: width of the hidden layers")
    context: int = option(0, "mimic: frames on each side that a posterior is predicted from")
    pca_dim: int = option(500, "mimic: dimensions that the statistics are reduced to")
    relevance: float = option(1.0, "mimic: statistics are divided by their counts plus this")
    acoustic_weight: float = option(1.0, "Weight of the posteriors")
    max_count: float = option(0.0, "Posteriors of an utterance are scaled down to this sum at most (0: none)")


register("ivec-mimic", "voxark.e2e.ivec_mimic", IvecMimicOptions, "IvecMimicExtractor")
