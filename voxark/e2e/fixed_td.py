"""Text-dependent verification of a fixed phrase: a fixed number of frames, no pooling over time."""

import torch.nn.functional as F
from torch import nn

from voxark.e2e.extractors import Extractor
from voxark.errors import VoxarkError
from voxark.nnet.layers import FrozenNorm, make_norm, pad_by_repetition

NUM_LAYERS = 4


class FixedTdExtractor(Extractor):
    """All frames side by side, four affine/ReLU layers, an affine one to the embedding, which gets length 1.

    The order of words and phones is kept, since each frame has weights of its own. Time is never stretched:
    an input of another length is an error, or, by option, lengthened by its first and last frame on both
    sides, or cut to its middle.
    """

    def __init__(self, options):
        least = options.frames if options.short_input == "error" else 1
        super().__init__("fixed-td", options, options.input_dim, options.embedding_dim, least)
        self.frames = options.frames
        self.max_frames = options.frames if options.long_input == "error" else None
        widths = [options.frames * options.input_dim] + [options.channels] * NUM_LAYERS
        self.input_norm = FrozenNorm(options.input_dim)
        self.affines = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(make_norm(options.norm, dim, axes=0) for dim in widths[1:])
        self.embedding = nn.Linear(options.channels, options.embedding_dim)

    def check_length(self, length):
        """Raise VoxarkError for a number of frames that the options refuse."""
        super().check_length(length)
        if length < self.min_frames:
            raise VoxarkError(f"{length} frames, but this model takes {self.frames} (train it with "
                              "--short-input=pad to have shorter utterances lengthened)")
        if self.max_frames is not None and length > self.max_frames:
            raise VoxarkError(f"{length} frames, but this model takes {self.frames} (train it with "
                              "--long-input=crop to have the middle of longer utterances taken)")

    def embed(self, x):
        """Embeddings (B, d), of length 1, of x (B, T, F)."""
        first = max(0, x.shape[1] - self.frames) // 2
        x = pad_by_repetition(x, self.frames)[:, first : first + self.frames]
        y = self.input_norm(x.transpose(1, 2)).flatten(1)
        for affine, norm in zip(self.affines, self.norms):
            y = norm(F.relu(affine(y)))
        return F.normalize(self.embedding(y), dim=1)
