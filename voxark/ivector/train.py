"""Training of an i-vector extractor in one process: one pass over the features, then EM on the statistics."""

import logging
import math
from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.ivector.baum_welch import Blocks, Scatter, StatisticsStore, block_bytes, utterance_bytes
from voxark.ivector.e_step import accumulate
from voxark.ivector.m_step import m_step
from voxark.options import option

logger = logging.getLogger(__name__)

FALL = 1e-9  # relative fall of ln p that rounding explains


@dataclass
class TrainingOptions:
    """Iterations and memory."""

    num_iters: int = option(10, "Number of EM iterations; 0 writes the start, and reads no features")
    max_memory: float = option(
        5000.0, "Megabytes that may be used; statistics beyond them lie in a file in $TMPDIR")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        if self.num_iters < 0:
            raise VoxarkError(f"--num-iters={self.num_iters}: must not be negative")


def fixed_bytes(num_gauss, dim, ivector_dim):
    """What training takes whatever the number of utterances: model, sums, and one block of utterances."""
    packed = ivector_dim * (ivector_dim + 1) // 2
    block = 2 * max(block_bytes(num_gauss, ivector_dim), utterance_bytes(num_gauss, dim, ivector_dim))
    return 8 * num_gauss * (4 * dim * ivector_dim + 2 * packed + 6 * dim * dim) + block


def memory_left(shape, max_memory):
    """Return the bytes of ``max_memory`` megabytes that an extractor of ``shape`` (C,D,R) leaves to statistics.

    Raises VoxarkError if even the fixed part is more than that.
    """
    left = 1e6 * max_memory - fixed_bytes(*shape)
    if left < 0:
        raise VoxarkError(f"{shape[0]} Gaussians of dimension {shape[1]} and i-vectors of {shape[2]} need "
                          f"{fixed_bytes(*shape) / 1e6:.0f} MB, --max-memory={max_memory:g} allows less: raise "
                          "it, or take fewer Gaussians or a smaller --ivector-dim")
    return left


def plan_memory(shape, max_memory):
    """Log what training an extractor of ``shape`` (C,D,R) takes; return memory_left of it."""
    fixed, left = fixed_bytes(*shape), memory_left(shape, max_memory)
    logger.info("memory: %.0f MB for the model, its sums and a block of utterances; statistics, %.1f kB an "
                "utterance, in memory up to %.0f MB, beyond that in a file in $TMPDIR (--max-memory=%g)",
                fixed / 1e6, 8e-3 * shape[0] * (shape[1] + 1), left / 1e6, max_memory)
    return left


def train(utterances, extractor, estimation, training, device=None):
    """Return (IvectorExtractor, number of utterances) trained on ``utterances``, from model ``extractor``.

    ``utterances`` iterates (key, x (T,D), Posteriors, scale), once: frame posteriors are fixed, so their
    statistics serve all iterations. Each iteration logs ln p of the data, which must not fall but by
    flooring.
    """
    estimation.check()
    training.check()
    limit = plan_memory(extractor.t.shape, training.max_memory)
    scatter = Scatter.zeros(extractor.num_gauss, extractor.dim)
    with StatisticsStore(limit) as store:
        for _, n, f in Blocks(utterances, extractor, scatter):
            store.add(n, f)
        if not store.num_utts:
            raise VoxarkError("no utterance has features and posteriors: nothing to train on")
        num_frames = scatter.n.sum()
        logger.info("%d utterances, %.0f frames; their statistics take %.1f MB, %s",
                    store.num_utts, num_frames, store.num_bytes / 1e6, store.place)
        if store.num_utts < extractor.ivector_dim:
            logger.warning("%d utterances for i-vectors of dimension %d: give more, or a smaller "
                           "--ivector-dim", store.num_utts, extractor.ivector_dim)
        check = EvidenceCheck(store.num_utts, num_frames)
        for iteration in range(1, training.num_iters + 1):
            stats = accumulate(extractor, store, scatter, device)
            check.add(iteration, stats.log_evidence)
            extractor, check.num_floored = m_step(extractor, stats, estimation)
        return extractor, store.num_utts


class EvidenceCheck:
    """Logs ln p of the data for each iteration and sees that it does not fall.

    ``num_floored`` is the number of eigenvalues of covariances that the last M-step floored: what a floor
    that rises can cost is a warning, any other fall an error.
    """

    def __init__(self, num_utts, num_frames):
        self._num_utts, self._num_frames = num_utts, num_frames
        self._previous = None
        self.num_floored = 0

    def add(self, iteration, evidence):
        """Take ln p before the M-step of an iteration."""
        change = ""
        if self._previous is not None:
            change = f", change {(evidence - self._previous) / self._num_frames:+.4g}"
        logger.info("iteration %d: ln p %.6g an utterance, %.6f a frame%s",
                    iteration, evidence / self._num_utts, evidence / self._num_frames, change)
        if not math.isfinite(evidence):
            raise VoxarkError(f"ln p is {evidence} at iteration {iteration}: the model has degenerated")
        if self._previous is not None and evidence < self._previous - FALL * abs(self._previous):
            message = f"ln p fell from {self._previous:.9g} to {evidence:.9g} at iteration {iteration}"
            if not self.num_floored:
                raise VoxarkError(f"{message}: the statistics are too ill-conditioned; use fewer Gaussians, "
                                  "a smaller --ivector-dim or a higher --gaussian-min-count")
            logger.warning("%s: %d eigenvalues of covariances were floored", message, self.num_floored)
        self._previous = evidence
