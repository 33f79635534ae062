"""Extractors: networks from features to embeddings, and embedding of utterances of any lengths.

``build_extractor(arch, options)`` makes one; each architecture has a module of its own
(:mod:`voxark.e2e.architectures` lists them).
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from voxark.e2e.architectures import arch_options, architectures, extractor_class, register  # noqa: F401
from voxark.errors import VoxarkError
from voxark.feat.cmvn import SlidingCmvnOptions, apply_sliding_cmvn
from voxark.nnet.init_norms import initialise_norms  # noqa: F401 - part of this interface
from voxark.nnet.layers import mixes_examples, pad_by_repetition


class Extractor(nn.Module, ABC):
    """A network e = f(X) from features x (B, T, F), all of one length, to embeddings (B, d).

    ``arch``, ``options`` (its dataclass), ``input_dim`` F, ``embedding_dim`` d. Inputs shorter than
    ``min_frames`` are lengthened by repeating the first and last frame; ``max_frames`` is None where any
    length will do. ``takes_samples`` is true for waveforms: T counts samples, and F is 1 (or x is (B, T)).
    Architectures define ``embed(x)``, for x that is long enough.

    With ``half_products`` the matrix products of training take bfloat16 (and sum in float32), as processors
    with units for it do several times as fast: activations, and in the end the embeddings, are rounded to it,
    to three digits. Parameters, poolings and all of evaluation are float32. ``allows_half_products`` is false
    where that would not do.
    """

    takes_samples = False
    max_frames = None
    half_products, allows_half_products = False, True

    def __init__(self, arch, options, input_dim, embedding_dim, min_frames):
        super().__init__()
        self.arch, self.options = arch, options
        self.input_dim, self.embedding_dim, self.min_frames = input_dim, embedding_dim, min_frames

    @property
    def mixes_examples(self):
        """True where an example's embedding depends on its batch in training: no exact gradients in parts."""
        return mixes_examples(self)

    def check_length(self, length):
        """Raise VoxarkError for a number of frames, or samples, that the network refuses."""
        if length == 0:
            raise VoxarkError("an utterance without frames has no embedding")

    @abstractmethod
    def embed(self, x):
        """Embeddings (B, d) of x (B, T, F) with T >= min_frames."""

    def forward(self, x):
        """Embeddings (B, d) of x (B, T, F). Raises VoxarkError for another F and for no frames."""
        if x.ndim != 3 or x.shape[2] != self.input_dim:
            raise VoxarkError(f"the extractor takes features of {self.input_dim} dimensions, "
                              f"not an array of shape {tuple(x.shape)}")
        self.check_length(x.shape[1])
        x = pad_by_repetition(x, self.min_frames)
        if not (self.half_products and self.training):
            return self.embed(x)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.embed(x).float()


def build_extractor(arch, options):
    """Return the Extractor ``arch`` with ``options``, its dataclass or a dict of some of its fields.

    The weights are random, from torch's generator; normalisation layers wait for :func:`initialise_norms`.
    Raises VoxarkError for an unknown architecture or option.
    """
    options = arch_options(arch, options)
    return extractor_class(arch)(options)


# ------------------------------------------------------------------------------ utterances of any length


def normalised(x, cmn, window=300):
    """Features x (T, F), float32, with a mean over time subtracted.

    ``cmn``: none; utterance or chunk, the mean of all rows of x; sliding, that of ``window`` frames around
    each, as apply-cmvn-sliding --center=true.
    """
    x = np.asarray(x, dtype=np.float32)
    if cmn == "none" or not len(x):
        return x
    if cmn == "sliding":
        return apply_sliding_cmvn(x, SlidingCmvnOptions(cmn_window=window, center=True))[0]
    return x - x.mean(axis=0, dtype=np.float64).astype(np.float32)


def batches_by_length(lengths, max_frames):
    """Split the numbers 0 ... N-1 in lists of equal length each, of at most ``max_frames`` frames (or one).

    Shortest first; within a length the order stays.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        if len(run):
            size = max(1, max_frames // max(int(lengths[run[0]]), 1))
            batches += [run[first : first + size] for first in range(0, len(run), size)]
    return batches


@torch.no_grad()
def embed(model, utterances, max_frames_per_batch=20_000):
    """Embeddings (N, d) float32 of a list of arrays (T_i, F), any lengths, in evaluation mode.

    Only utterances of equal length share a batch, so that none sees padding of another. The model (an
    Extractor, or an E2eModel) runs where its parameters are; its mode is put back.
    """
    extractor = getattr(model, "extractor", model)
    parameter = next(extractor.parameters())
    was_training = extractor.training
    extractor.eval()
    result = np.empty((len(utterances), extractor.embedding_dim), np.float32)
    try:
        for batch in batches_by_length([len(x) for x in utterances], max_frames_per_batch):
            x = torch.from_numpy(np.stack([np.asarray(utterances[i]) for i in batch]))
            result[batch] = extractor(x.to(parameter.device, parameter.dtype)).float().cpu().numpy()
    finally:
        extractor.train(was_training)
    return result


def chunk_starts(length, chunk):
    """First frames of ceil(length / chunk) chunks that cover ``length`` frames at even distances."""
    number = -(-length // chunk)
    return [0] if number <= 1 else [round(i * (length - chunk) / (number - 1)) for i in range(number)]


def embed_in_chunks(model, x, chunk=0, cmn="none", cmn_window=300, max_frames_per_batch=20_000):
    """Embedding (d,) of an utterance x (T, F): the mean of those of its chunks.

    An utterance longer than ``chunk`` frames (0: no limit) is cut in ceil(T / chunk) chunks of exactly
    ``chunk`` frames, which overlap where they must; all count the same. ``cmn`` says where the mean is
    subtracted: none, utterance or sliding (before the cut), chunk. VoxarkError where it is not finite.
    """
    x = normalised(x, "none" if cmn == "chunk" else cmn, cmn_window)
    starts = chunk_starts(len(x), chunk) if chunk else [0]
    chunks = [x[first : first + chunk] for first in starts] if len(starts) > 1 else [x]
    if cmn == "chunk":
        chunks = [normalised(part, cmn) for part in chunks]
    vector = embed(model, chunks, max_frames_per_batch).mean(axis=0, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise VoxarkError("its embedding is not finite: features of another kind, or damaged parameters")
    return vector
