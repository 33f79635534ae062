"""ECAPA-TDNN (Desplanques et al. 2020)."""

import torch
import torch.nn.functional as F
from torch import nn

from voxark.e2e.extractors import Extractor
from voxark.nnet.layers import (
    AttentiveStatisticsPooling, ConvReluNorm, FrozenNorm, PointwiseLinear, SeRes2Block, make_pooled_norm)

DILATIONS = (2, 3, 4)


class EcapaExtractor(Extractor):
    """Convolution of width 5, three SE-Res2 blocks, their outputs joined, attentive pooling, affine.

    Block i sees the sum of the first layer's and all earlier blocks' outputs as the residual path gives it.
    """

    def __init__(self, options):
        super().__init__("ecapa", options, options.input_dim, options.embedding_dim, 5)
        channels, norm = options.channels, options.norm
        joined = options.pooled_channels or min(1536, 3 * channels)
        self.input_norm = FrozenNorm(options.input_dim)
        self.first = ConvReluNorm(options.input_dim, channels, 5, norm=norm)
        self.blocks = nn.ModuleList(
            SeRes2Block(channels, 3, dilation, options.res2_scale, options.bottleneck, norm)
            for dilation in DILATIONS)
        self.join = PointwiseLinear(len(DILATIONS) * channels, joined)
        self.pooling = AttentiveStatisticsPooling(joined, options.bottleneck)
        self.pooled_norm = make_pooled_norm(norm, 2 * joined)
        self.embedding = nn.Linear(2 * joined, options.embedding_dim)

    def embed(self, x):
        """Embeddings (B, d) of x (B, T, F)."""
        y = self.first(self.input_norm(x.transpose(1, 2)))
        outputs = []
        for block in self.blocks:
            y = block(y)
            outputs.append(y)
        frames = F.relu(self.join(torch.cat(outputs, dim=1)), inplace=True)
        return self.embedding(self.pooled_norm(self.pooling(frames)))
