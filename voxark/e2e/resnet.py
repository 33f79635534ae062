"""ResNet34 on features as a picture, as in today's speaker toolkits."""

import torch.nn.functional as F
from torch import nn

from voxark.e2e.architectures import block_counts
from voxark.e2e.extractors import Extractor
from voxark.nnet.layers import FrozenNorm, ResidualBlock2d, StatisticsPooling, make_norm


class ResnetExtractor(Extractor):
    """Four stages of basic blocks, the last three halve time and frequency; statistics over time; affine.

    Without batch normalisation the statistics are normalised by constants, which the affine layer behind them
    could hold as well. Many layers deep, frozen norms want a smaller learning rate than batch norms (Adam:
    below 1e-3).
    """

    def __init__(self, options):
        super().__init__("resnet", options, options.input_dim, options.embedding_dim, 16)
        self.input_norm = FrozenNorm(options.input_dim)
        self.first = nn.Conv2d(1, options.channels, 3, padding=1, bias=False)
        self.first_norm = make_norm(options.norm, options.channels, axes=2)
        blocks, dim, height = [], options.channels, options.input_dim
        counts = block_counts(options.blocks)
        # without norms that follow, a sum of many branches grows as they train: let them start small
        gain = 1.0 if options.norm == "batch" else sum(counts) ** -0.5
        for stage, count in enumerate(counts):
            out_dim, stride = options.channels << stage, 2 if stage else 1
            height = -(-height // stride)
            for number in range(count):
                blocks.append(ResidualBlock2d(dim, out_dim, 1 if number else stride, options.norm, gain))
                dim = out_dim
        self.blocks = nn.Sequential(*blocks)
        self.pooling = StatisticsPooling()
        self.pooled_norm = nn.Identity() if options.norm == "batch" else FrozenNorm(2 * dim * height)
        self.embedding = nn.Linear(2 * dim * height, options.embedding_dim)

    def embed(self, x):
        """Embeddings (B, d) of x (B, T, F), T >= 16."""
        picture = self.input_norm(x.transpose(1, 2))[:, None]
        y = self.blocks(F.relu(self.first_norm(self.first(picture)), inplace=True))
        return self.embedding(self.pooled_norm(self.pooling(y.flatten(1, 2))))
