"""Baum-Welch statistics of utterances: n_c = sum_t gamma_tc, f_c = sum_t gamma_tc x_t, and the scatter S_c.

Frames are taken together in blocks of utterances and gathered Gaussian by Gaussian, so that the work grows
with the number of posteriors, not with the number of Gaussians. Everything is float64.
"""

import tempfile
from dataclasses import dataclass

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError

BLOCK_FRAMES = 16384  # frames of a block, for each 512 Gaussians: a Gaussian's share of them stays in the cache
BLOCK_BYTES = 64e6  # of the statistics of a block's utterances, at least


def check_posteriors(x, post, num_gauss, dim):
    """Raise VoxarkError unless Posteriors ``post`` fit the frames x (T,D) and a model of this size."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise VoxarkError(f"features have shape {x.shape}, the model has dimension {dim}")
    if len(post.counts) != len(x):
        raise VoxarkError(f"{len(x)} frames of features, but posteriors of {len(post.counts)} frames")
    if len(post.index) and not 0 <= post.index.min() <= post.index.max() < num_gauss:
        raise VoxarkError(f"posteriors of Gaussians {post.index.min()} to {post.index.max()}, the model has "
                          f"{num_gauss}: they come from another model")
    if len(post.value) and not post.value.min() >= 0:
        raise VoxarkError("a posterior is negative or not a number")
    check_finite(post.value, "posterior")
    check_finite(x, "feature")


@dataclass
class Scatter:
    """Sums over utterances, which add up over blocks: n (C,), f (C,D), s (C,D,D) = sum gamma x x'."""

    n: np.ndarray
    f: np.ndarray
    s: np.ndarray

    @classmethod
    def zeros(cls, num_gauss, dim):
        """Nothing yet."""
        return cls(np.zeros(num_gauss), np.zeros((num_gauss, dim)), np.zeros((num_gauss, dim, dim)))

    def around(self, means):
        """The scatter around ``means`` (C,D): S_c - f_c m_c' - m_c f_c' + n_c m_c m_c', (C,D,D)."""
        cross = self.f[:, :, None] * means[:, None, :]
        square = (self.n[:, None] * means)[:, :, None] * means[:, None, :]
        return self.s - cross - np.swapaxes(cross, 1, 2) + square


def baum_welch(features, posteriors, num_gauss, scales=None, scatter=None):
    """Return n (U,C) and f (U,C,D), float64, of U utterances, given as lists of x (T,D) and Posteriors.

    ``scales`` (U,) multiply the posteriors of an utterance; sums over the utterances are added to ``scatter``
    where it is given. What is wrong with the input is for check_posteriors to find.
    """
    num_utts, dim = len(features), features[0].shape[1]
    x = np.concatenate(features)
    index = np.concatenate([post.index for post in posteriors])
    frame = np.repeat(np.arange(len(x)), np.concatenate([post.counts for post in posteriors]))
    utt = np.repeat(np.arange(num_utts), [len(post.index) for post in posteriors])
    value = np.concatenate([post.value for post in posteriors]).astype(np.float64)
    if scales is not None:
        value *= np.asarray(scales, np.float64)[utt]
    n = np.bincount(utt * num_gauss + index, value, num_utts * num_gauss).reshape(num_utts, num_gauss)
    f = np.zeros((num_utts, num_gauss, dim))
    # Sixteen bits sort four times faster; a stable order keeps the utterances of a Gaussian together.
    order = np.argsort(index.astype(np.uint16) if num_gauss <= 1 << 16 else index, kind="stable")
    frame, utt, value = frame[order], utt[order], value[order]
    edges = np.searchsorted(index[order], np.arange(num_gauss + 1)).tolist()
    for c, (first, last) in enumerate(zip(edges, edges[1:])):
        if first == last:
            continue
        rows = x.take(frame[first:last], axis=0).astype(np.float64)
        weighted = rows * value[first:last, None]
        owners = utt[first:last]
        starts = np.concatenate(((0,), np.flatnonzero(owners[1:] != owners[:-1]) + 1))
        f[owners[starts], c] = np.add.reduceat(weighted, starts, axis=0)
        if scatter is not None:
            scatter.s[c] += weighted.T @ rows
    if scatter is not None:
        scatter.n += n.sum(axis=0)
        scatter.f += f.sum(axis=0)
    return n, f


def utterance_bytes(num_gauss, dim, ivector_dim):
    """What an utterance of a block takes: n, f, and a few matrices of the posterior."""
    return 8 * (num_gauss * (dim + 1) + 4 * ivector_dim**2)


def block_bytes(num_gauss, ivector_dim):
    """What the utterances of a block may take: each block reads all quadratic terms, so an eighth of theirs."""
    return max(BLOCK_BYTES, num_gauss * ivector_dim * (ivector_dim + 1) / 2)


class Blocks:
    """Groups checked utterances into blocks and yields (keys, n, f) of each; see :func:`baum_welch`.

    ``utterances`` iterates (key, x, Posteriors, scale). Memory is bounded: a block has at most BLOCK_FRAMES
    frames for each 512 Gaussians, and what is computed for its utterances takes at most :func:`block_bytes`; it
    may be one utterance that is longer.
    """

    def __init__(self, utterances, extractor, scatter=None):
        self._utterances, self._num_gauss, self._scatter = utterances, extractor.num_gauss, scatter
        num_gauss, _, ivector_dim = extractor.t.shape
        self._most = max(1, int(block_bytes(num_gauss, ivector_dim) / utterance_bytes(*extractor.t.shape)))
        self._most_frames = BLOCK_FRAMES * max(1, num_gauss // 512)

    def __iter__(self):
        waiting, num_frames = [], 0
        for utterance in self._utterances:
            if waiting and (num_frames + len(utterance[1]) > self._most_frames or len(waiting) == self._most):
                yield self._statistics(waiting)
                waiting, num_frames = [], 0
            waiting.append(utterance)
            num_frames += len(utterance[1])
        if waiting:
            yield self._statistics(waiting)

    def _statistics(self, waiting):
        keys, features, posteriors, scales = zip(*waiting)
        return keys, *baum_welch(features, posteriors, self._num_gauss, scales, self._scatter)


class StatisticsStore:
    """Keeps blocks of (n (U,C), f (U,C,D)) for the iterations of EM: in memory up to ``limit`` bytes, then
    all of them in a file in $TMPDIR, read block by block. Use it in a ``with`` statement.
    """

    def __init__(self, limit):
        self._limit = limit
        self._blocks, self._shapes, self._file = [], [], None
        self.num_bytes = self.num_utts = 0

    @property
    def in_memory(self):
        """True until the limit has been passed."""
        return self._file is None

    @property
    def place(self):
        """Where they are, in words."""
        return "in memory" if self.in_memory else f"in a file in {tempfile.gettempdir()}"

    def add(self, n, f):
        """Keep one block."""
        self.num_bytes += n.nbytes + f.nbytes
        self.num_utts += len(n)
        self._shapes.append(f.shape)
        if self._file is None and self.num_bytes > self._limit:
            try:
                self._file = tempfile.TemporaryFile(prefix="voxark-")
            except OSError as error:
                raise VoxarkError("statistics beyond --max-memory need a file: "
                                  f"{error.strerror or error} (TMPDIR names another place)") from None
            for block in self._blocks:
                self._write(*block)
            self._blocks = None
        if self._file is None:
            self._blocks.append((n, f))
        else:
            self._write(n, f)

    def _write(self, n, f):
        try:
            self._file.write(n.tobytes())
            self._file.write(f.tobytes())
        except OSError as error:
            raise VoxarkError(f"statistics beyond --max-memory cannot be written to {tempfile.gettempdir()}: "
                              f"{error.strerror} (TMPDIR names another place)") from None

    def __iter__(self):
        if self._file is None:
            yield from self._blocks
            return
        self._file.seek(0)
        for shape in self._shapes:
            n = np.frombuffer(self._file.read(8 * shape[0] * shape[1])).reshape(shape[:2])
            yield n, np.frombuffer(self._file.read(8 * int(np.prod(shape)))).reshape(shape)
        self._file.seek(0, 2)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self._file is not None:
            self._file.close()
