"""Gaussian selection and posteriors: which components of a mixture matter for a frame, and how much.

The likeliest components of a frame are found under a diagonal mixture by one matrix product; a mixture with
full covariances is then evaluated only for those. Its (frame, component) pairs are ordered by component, so
that each component's whitening is one product with the frames that chose it.
"""

import logging
import math
from typing import NamedTuple

import numpy as np

from voxark.arrays import Device
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import FLOAT32_TOLERANCE, float32_error
from voxark.gmm.pools import pooled
from voxark.io.posteriors import GaussSelection, Posteriors

logger = logging.getLogger(__name__)

BLOCK = 4096  # frames of a block on the CPU: enough for efficient products of single components
MAX_CELLS = 1 << 23  # (frame, component) cells of a block: 32 MiB in float32
SMALLEST = 2.0**-26  # a float32 posterior below this does not count: less than the rounding of 1


def full_float32_error(gmm, offset):
    """Estimate the rounding error, in nats, of a float32 log-likelihood of a FullGmm around ``offset`` (D,).

    The whitened frame is a sum of products of the sizes |whitening| and |x - offset|; each of its D elements
    is about 1 under the component that explains the frame, and twice its error goes into the distance.
    """
    sizes = np.sqrt(np.diagonal(gmm.covars, axis1=1, axis2=2) + np.square(gmm.means - offset))
    sums = np.matmul(np.abs(gmm.whitening), sizes[:, :, None])
    return 2.0**-24 * float(sums.sum(axis=(1, 2)).max())


class Block(NamedTuple):
    """Posteriors of B frames under the C components, on the kernel's device.

    selected (C,B) tells which components are; gamma (C,B) sums to 1 over those of each frame and is 0
    elsewhere; log_likelihoods (B,) numpy float64, ln of the sum over the selected components; order (B,C) is
    larger for what stands earlier among a frame's posteriors; z holds [x - offset, (x - offset)^2] (B,2D) for
    a diagonal mixture, [x - offset, 1] (B,D+1) for a full one.
    """

    selected: object
    gamma: object
    log_likelihoods: np.ndarray
    order: object
    z: object


class PosteriorKernel:
    """Selects components of ``gmm`` (DiagGmm or FullGmm) and computes the posteriors of those, in blocks.

    ``num_selected`` components of each frame are chosen by the likelihood under the diagonal mixture (0:
    all). Products are float32 where the error estimates allow it and ``double`` is not asked for. It holds
    buffers of about 5 x block x C numbers. ``device`` is a voxark.arrays.Device.
    """

    def __init__(self, gmm, num_selected=0, double=False, device=None):
        self.gmm, self.dev = gmm, device or Device()
        self.num_selected = min(num_selected or gmm.num_gauss, gmm.num_gauss)
        self.is_full = not isinstance(gmm, DiagGmm)
        diag = gmm.to_diag() if self.is_full else gmm
        self.offset = diag.mean().astype(np.float32).astype(np.float64)  # x - offset is then exact in float32
        estimate = full_float32_error if self.is_full else float32_error
        error = estimate(gmm, self.offset)
        self.dtype = "float64" if double or error > FLOAT32_TOLERANCE else "float32"
        logger.debug("posteriors in %s (estimated error of float32: %.1e nats)", self.dtype, error)
        scale = 1 if self.dev.is_numpy else 8  # a GPU has no use for blocks that fit a cache
        self.block = max(64, min(scale * BLOCK, scale * MAX_CELLS // gmm.num_gauss))
        # Blocks of a diagonal mixture never cross an utterance: rounding does not depend on the neighbours.
        self.pool_size = self.block if self.is_full or not self.dev.is_numpy else 1
        self._device_arrays(diag)
        self._buffers = {}

    def _device_arrays(self, diag):
        def as_device(a):
            return self.dev.asarray(a, self.dtype)

        g, w = diag.exponential_form(self.offset)
        self._offset, self._g, self._w = as_device(self.offset), as_device(g), as_device(w.T)
        if self.is_full:
            # y = [x - offset, 1] @ whitener is the whitened distance from the mean
            shifts = -np.matmul(self.gmm.whitening, (self.gmm.means - self.offset)[:, :, None])
            whiteners = np.concatenate((self.gmm.whitening, shifts), axis=2).swapaxes(1, 2)
            self._whiteners, self._peaks = as_device(whiteners), as_device(self.gmm.log_peaks())

    def _buffer(self, name, shape, dtype=None):
        """An array of ``shape`` that is kept: fresh ones cost more than what is written to them."""
        size = math.prod(shape)
        kept = self._buffers.get(name)
        if kept is None or kept.shape[0] < size:
            kept = self._buffers[name] = self.dev.empty((size,), dtype or self.dtype)
        return self.dev.xp.reshape(kept[:size], shape)

    # ------------------------------------------------------------------------------------ likelihoods, choice

    def _log_likelihoods(self, x):
        """Return (z (B,2D), ln(weight_c N(x; mean_c, variance_c)) (B,C)) under the diagonal mixture."""
        xp, dim = self.dev.xp, self.gmm.dim
        z = self._buffer("z", (len(x), 2 * dim))
        xp.subtract(self.dev.asarray(x, self.dtype), self._offset, out=z[:, :dim])
        xp.multiply(z[:, :dim], z[:, :dim], out=z[:, dim:])
        lls = self._buffer("lls", (len(x), self.gmm.num_gauss))
        xp.matmul(z, self._w, out=lls)
        lls += self._g
        return z, lls

    def _likeliest(self, lls):
        """Return a mask (B,C): the ``num_selected`` largest of each row, of equal ones the later [K]."""
        xp, num = self.dev.xp, self.num_selected
        mask = self._buffer("mask", lls.shape, "bool")
        if num == lls.shape[1]:
            mask[...] = True
            return mask
        ordered = self._buffer("ordered", lls.shape)
        ordered[...] = lls
        if self.dev.is_numpy:
            ordered.sort(axis=1)
        else:
            ordered = xp.sort(ordered, axis=1)
        threshold = ordered[:, lls.shape[1] - num]
        xp.greater_equal(lls, threshold[:, None], out=mask)
        if int(xp.count_nonzero(mask)) != num * len(lls):
            self._settle_ties(lls, mask)
        return mask

    def _settle_ties(self, lls, mask):
        """Drop the first ones where equal likelihoods make too many, and choose any where there is NaN."""
        numbers = self.dev.to_numpy(self.dev.xp.sum(mask, axis=1, dtype=self.dev.xp.int32))
        for frame in np.flatnonzero(numbers != self.num_selected).tolist():
            order = np.argsort(self.dev.to_numpy(lls[frame]), kind="stable")
            mask[frame, :] = True
            for c in order[: lls.shape[1] - self.num_selected].tolist():
                mask[frame, c] = False

    def _given(self, selection):
        """Return (order (B,C), mask (B,C)) of a GaussSelection of the block: earlier entries order higher."""
        counts = selection.counts.astype(np.int64)
        frames = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(frames)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.full((len(counts), self.gmm.num_gauss), -np.inf, self.dtype)
        order[frames, selection.index] = -places
        order = self.dev.asarray(order)
        return order, order > -math.inf

    # --------------------------------------------------------------------------------------------- posteriors

    def posteriors(self, x, selection=None):
        """Return the Block of the frames x (B,D), B <= ``block``; its arrays are valid until the next call.

        With ``selection``, a GaussSelection of these frames, its components take the place of the likeliest.
        A frame without likelihood has the log-likelihood -inf or NaN; its gamma means nothing.
        """
        xp = self.dev.xp
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # such frames are the caller's
            z, lls = self._log_likelihoods(x)
            if selection is not None:
                order, mask = self._given(selection)
                order = order if self.is_full else lls
            else:
                order, mask = lls, self._likeliest(lls)
            by_component = self._buffer("mask_t", (self.gmm.num_gauss, len(x)), "bool")
            by_component[...] = mask.T
            gamma = self._buffer("gamma", by_component.shape)
            if self.is_full:
                z = self._full_log_likelihoods(z, by_component, gamma)
            else:
                gamma[...] = lls.T
                if self.num_selected < self.gmm.num_gauss or selection is not None:
                    gamma[~by_component] = -math.inf
            peak = xp.max(gamma, axis=0)
            gamma -= peak
            xp.exp(gamma, out=gamma)
            total = xp.sum(gamma, axis=0)
            gamma *= 1.0 / total
            log_likelihoods = self.dev.to_numpy(xp.log(total) + peak).astype(np.float64)
        return Block(by_component, gamma, log_likelihoods, order, z)

    def _full_log_likelihoods(self, z, chosen, lls):
        """Write ln(weight_c N(x; mean_c, covar_c)) to ``lls`` (C,B) where ``chosen`` (C,B), -inf elsewhere.

        Returns [x - offset, 1] (B,D+1).
        """
        xp, num_frames = self.dev.xp, chosen.shape[1]
        frames = self._buffer("frames", (num_frames, self.gmm.dim + 1))
        frames[:, :-1], frames[:, -1] = z[:, : self.gmm.dim], 1.0
        pairs = xp.nonzero(xp.reshape(chosen, (-1,)))[0]  # component by component
        edges = np.searchsorted(self.dev.to_numpy(pairs), num_frames * np.arange(self.gmm.num_gauss + 1))
        distances = self._buffer("distances", (len(pairs),))
        for c, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist())):
            if first == last:
                continue
            own = xp.take(frames, pairs[first:last] - c * num_frames, axis=0)
            y = xp.matmul(own, self._whiteners[c])
            distances[first:last] = -0.5 * xp.einsum("nd,nd->n", y, y) + self._peaks[c]
        lls[...] = -math.inf
        xp.reshape(lls, (-1,))[pairs] = distances
        return frames

    def sparse(self, block, min_post):
        """Return the Posteriors of a Block, those below ``min_post`` pruned and the rest scaled to sum 1 [K].

        Diagonal, as gmm-global-get-post: what is below min_post times the largest does not count at all, then
        what is below min_post of the remaining sum is left out; entries by falling posterior. Full, as
        fgmm-global-gselect-to-post: what is below min_post; entries in the order of the selection. The
        largest always stays.
        """
        xp, gamma = self.dev.xp, block.gamma
        num_gauss, num_frames = gamma.shape
        if min_post <= 0:
            keep = gamma > 0 if self.is_full else block.selected
        elif self.is_full:
            keep = gamma >= min_post
        else:
            keep = gamma > min_post * xp.max(gamma, axis=0)
            keep &= gamma >= min_post * xp.sum(gamma * keep, axis=0)
        if not bool(xp.all(xp.any(keep, axis=0))):  # the largest one may be below a high limit
            keep |= gamma >= xp.max(gamma, axis=0)
        by_frame = self._buffer("mask", (num_frames, num_gauss), "bool")
        by_frame[...] = keep.T
        flat = xp.nonzero(xp.reshape(by_frame, (-1,)))[0]
        order = self.dev.to_numpy(xp.reshape(block.order, (-1,))[flat])
        frames, index = flat // num_gauss, flat % num_gauss
        value = self.dev.to_numpy(xp.reshape(gamma, (-1,))[index * num_frames + frames])
        frames, index = self.dev.to_numpy(frames), self.dev.to_numpy(index)
        arranged = np.lexsort((-order, frames))
        counts = np.bincount(frames, minlength=num_frames).astype(np.int32)
        sums = np.bincount(frames, value, num_frames)
        value = (value[arranged] / np.repeat(sums, counts)).astype(np.float32)
        return Posteriors(counts, index[arranged].astype(np.int32), value)

    def likeliest(self, x, selection=None):
        """Return the GaussSelection of the frames x (B,D), by falling likelihood, and ln of their sums (B,).

        Under a full mixture the likelihoods are those of its diagonal. ``selection`` limits the choice. Of
        equally likely components the later comes first [K].
        """
        num_gauss, num = self.gmm.num_gauss, self.num_selected
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            lls = self._log_likelihoods(x)[1]
            counts = np.full(len(x), num, np.int32)
            if selection is not None:
                allowed = self._given(selection)[1]
                lls[~allowed] = -math.inf
                numbers = self.dev.to_numpy(self.dev.xp.sum(allowed, axis=1, dtype=self.dev.xp.int32))
                counts = np.minimum(numbers, num)
            flat = self.dev.xp.nonzero(self.dev.xp.reshape(self._likeliest(lls), (-1,)))[0]
            value = self.dev.to_numpy(self.dev.xp.reshape(lls, (-1,))[flat]).reshape(-1, num)
            index = self.dev.to_numpy(flat).reshape(-1, num) % num_gauss
            order = np.argsort(value, axis=1, kind="stable")[:, ::-1]
            peak = value.max(axis=1)
            sums = np.log(np.exp(value - peak[:, None]).sum(axis=1)) + peak
        index = np.take_along_axis(index, order, axis=1).astype(np.int32)
        if selection is not None:
            index = index[np.arange(num) < counts[:, None]]
        return GaussSelection(counts, index.ravel()), sums.astype(np.float64)


# ---------------------------------------------------------------------------------------------- utterances


def each_posteriors(kernel, utterances, min_post, fail):
    """Yield (key, Posteriors, sum of log-likelihoods) of ``utterances`` (see pooled) under ``kernel``."""
    return _each(kernel, utterances, fail, lambda x, selection: _pruned(kernel, x, selection, min_post))


def _pruned(kernel, x, selection, min_post):
    block = kernel.posteriors(x, selection)
    return kernel.sparse(block, min_post), block.log_likelihoods


def each_selection(kernel, utterances, fail):
    """Yield (key, GaussSelection, sum of log-likelihoods) of ``utterances`` (see pooled) under ``kernel``."""
    return _each(kernel, utterances, fail, kernel.likeliest)


def each_log_likelihoods(kernel, utterances, fail):
    """Yield (key, ln p(x_t) (T,) float64) of ``utterances``, (key, x) pairs, under ``kernel``."""
    for pool in pooled(utterances, kernel.pool_size, kernel.gmm, fail):
        parts = pool.blocks(kernel.block)
        lls = np.concatenate([kernel.posteriors(part.x).log_likelihoods for part in parts])
        edges = np.append(0, np.cumsum(pool.lengths))
        for place in pool.check(lls, fail):
            yield pool.keys[place], lls[edges[place] : edges[place + 1]]


def _each(kernel, utterances, fail, work):
    """Yield (key, sparse result, sum of log-likelihoods); ``work(x, selection)`` gives both for a block."""
    for pool in pooled(utterances, kernel.pool_size, kernel.gmm, fail):
        results, lls = zip(*(work(part.x, part.selection) for part in pool.blocks(kernel.block)))
        lls = np.concatenate(lls)
        kind = type(results[0])
        counts, *entries = (np.concatenate(arrays) for arrays in zip(*results))
        edges = np.append(0, np.cumsum(pool.lengths))
        ends = np.append(0, np.cumsum(counts, dtype=np.int64))[edges]
        for place in pool.check(lls, fail):
            frames, own = slice(edges[place], edges[place + 1]), slice(ends[place], ends[place + 1])
            yield pool.keys[place], kind(counts[frames], *(a[own] for a in entries)), float(lls[frames].sum())
