"""The x-vector network (Snyder et al. 2018): TDNN, statistics pooling, an affine layer to the embedding."""

import torch
from torch import nn

from voxark.e2e.extractors import Extractor
from voxark.errors import VoxarkError
from voxark.nnet.layers import FrozenNorm, StatisticsPooling, TdnnLayer, make_pooled_norm

CONTEXTS = ((-2, -1, 0, 1, 2), (-2, 0, 2), (-3, 0, 3), (0,), (0,))
PUBLISHED = (512, 1500)  # width of the frame layers, and of the last of them


class XvectorExtractor(Extractor):
    """Frame layers of the published contexts, [mean, deviation] over time, norm, affine to the embedding.

    The embedding is what the first segment layer gives before its nonlinearity; the second belongs to the
    classifier. Frame layers see 15 frames together; the input is normalised by constants. Behind many
    channels or few speakers two options help: ``pool_input``, statistics of the normalised features beside
    those of the last layer; ``dropout`` of statistics.
    """

    def __init__(self, options):
        context = 1 + sum(c[-1] - c[0] for c in CONTEXTS)
        super().__init__("xvector", options, options.input_dim, options.embedding_dim, context)
        channels = options.channels
        pooled = options.pooled_channels or round(channels * PUBLISHED[1] / PUBLISHED[0])
        widths = [options.input_dim, channels, channels, channels, channels, pooled]
        frame_norm = options.norm if options.frame_norm else "none"
        self.input_norm = FrozenNorm(options.input_dim)
        self.frames = nn.Sequential(*(
            TdnnLayer(dim, out_dim, context, frame_norm)
            for dim, out_dim, context in zip(widths, widths[1:], CONTEXTS)))
        self.pooling = StatisticsPooling()
        if not 0.0 <= options.dropout < 1.0:
            raise VoxarkError(f"--dropout={options.dropout:g}: expected a share from 0 to below 1")
        pooled = 2 * (pooled + (options.input_dim if options.pool_input else 0))
        self.pooled_norm = make_pooled_norm(options.norm, pooled, affine=False)
        self.dropout = nn.Dropout(options.dropout)
        self.embedding = nn.Linear(pooled, options.embedding_dim)

    def embed(self, x):
        """Embeddings (B, d) of x (B, T, F), T >= 15."""
        features = self.input_norm(x.transpose(1, 2))
        statistics = self.pooling(self.frames(features))
        if self.options.pool_input:
            statistics = torch.cat([statistics, self.pooling(features)], dim=1)
        return self.embedding(self.dropout(self.pooled_norm(statistics)))
