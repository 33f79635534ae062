"""The E-step of the i-vector model: posteriors of many utterances at once, by matrix products.

For an utterance with n_c and f_c: L = I + sum_c n_c T_c'Sigma_c^-1 T_c,
l = p + sum_c T_c'Sigma_c^-1 (f_c - n_c m_c), w|X ~ N(L^-1 l, L^-1). The quadratic terms of all components are
packed (C,R(R+1)/2), so the L of a batch are one product; so are its l, and the sums that EM needs.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from voxark.arrays import Device
from voxark.errors import VoxarkError
from voxark.kaldi_files import IvectorStatsParams
from voxark.packed import pack_lower, packed_indices, unpack_lower

LOG_2PI = math.log(2.0 * math.pi)
SLICE_BYTES = 16e6  # of the product that is added to A at a time: the whole would take as much memory as A


@dataclass
class IvectorStats:
    """What an M-step needs, summed over utterances around the model's means m_c; P = R(R+1)/2, all float64.

    n (C,) = sum n_c; b (C,D,R) = sum (f_c - n_c m_c) E[w]'; a (C,P) = sum n_c E[ww'], packed; s (C,D,D), or
    None, = the scatter around m_c; w_sum (R,) = sum E[w], w_scatter (P,) = sum E[ww'], packed; num_utts; and
    the sum of ln p(X), 0 where it was not computed. These are Kaldi's accumulators (m_c = 0 in its form) [K].
    """

    n: np.ndarray
    b: np.ndarray
    a: np.ndarray
    s: np.ndarray | None
    w_sum: np.ndarray
    w_scatter: np.ndarray
    num_utts: float = 0.0
    log_evidence: float = 0.0

    @classmethod
    def from_params(cls, params):
        """Take the sums from voxark.kaldi_files.IvectorStatsParams.

        VoxarkError for those of weights, and for values that are not finite.
        """
        if params.q.size or params.g.size:
            raise VoxarkError("these statistics are of an extractor whose weights depend on the i-vector "
                              "(Kaldi's --use-weights=true), which is not supported")
        if not all(np.isfinite(field).all() for field in params):
            raise VoxarkError("the i-vector statistics hold values that are not finite")
        b, a = np.asarray(params.y, np.float64), np.asarray(params.r, np.float64)
        s = unpack_lower(np.asarray(params.s, np.float64), b.shape[1]) if params.s.size else None
        n, w_sum, w_scatter = (np.asarray(value, np.float64) for value in (
            params.gamma, params.ivector_sum, params.ivector_scatter))
        return cls(n, b, a, s, w_sum, w_scatter, float(params.num_ivectors), float(params.auxf))

    def zeros(self):
        """The same sums over no utterances, to add to in place: arrays that were read may be read-only."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return IvectorStats(**{name: np.zeros_like(value) if isinstance(value, np.ndarray) else value and 0.0
                               for name, value in values.items()})

    def to_params(self):
        """Return voxark.kaldi_files.IvectorStatsParams for writing, all float64."""
        empty = np.zeros((0, 0))
        s = empty if self.s is None else pack_lower(self.s)
        return IvectorStatsParams(self.log_evidence, self.n, self.b, self.a, empty, empty, s, self.num_utts,
                                  self.w_sum, self.w_scatter)

    def __iadd__(self, other):
        if self.b.shape != other.b.shape or (self.s is None) != (other.s is None):
            raise VoxarkError(
                f"statistics of (Gaussians, features, i-vector) {self.b.shape} and {other.b.shape}, or with "
                "and without second-order statistics, do not add up: they belong to different models")
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, np.ndarray) and mine.flags.writeable:
                mine += theirs  # in place: there may be gigabytes of them
            elif mine is not None:
                setattr(self, field.name, mine + theirs)
        return self


class EStep:
    """The E-step under one IvectorExtractor, on a Device: what depends on the model is computed once."""

    def __init__(self, extractor, device=None):
        self.extractor = extractor
        self.device = device or Device()
        dev, ivector_dim = self.device, extractor.ivector_dim
        projections = extractor.projections()
        self._projection = dev.asarray(projections.reshape(-1, ivector_dim))
        self._shift = dev.asarray(np.einsum("cd,cdr->cr", extractor.means, projections))
        self._quadratic = dev.asarray(np.stack([
            pack_lower(t.T @ projection) for t, projection in zip(extractor.t, projections)]))
        self._prior = dev.asarray(extractor.prior_mean())
        rows, columns = packed_indices(ivector_dim)
        place = np.empty((ivector_dim, ivector_dim), np.int64)
        place[rows, columns] = place[columns, rows] = np.arange(len(rows))
        self._unpack = dev.asarray(place.reshape(-1))
        self._pack = dev.asarray(rows.astype(np.int64) * ivector_dim + columns)
        self._unit = dev.asarray(pack_lower(np.eye(ivector_dim)))

    def _terms(self, n, f):
        """L (U,R,R) and l (U,R) of statistics on the device."""
        xp, ivector_dim = self.device.xp, self.extractor.ivector_dim
        linear = f.reshape(len(f), -1) @ self._projection - n @ self._shift + self._prior
        quadratic = xp.take(n @ self._quadratic + self._unit, self._unpack, axis=1)
        return quadratic.reshape(len(n), ivector_dim, ivector_dim), linear

    def means(self, n, f):
        """E[w] - p (U,R) of utterances with n (U,C) and f (U,C,D): the i-vectors, numpy float64."""
        dev = self.device
        quadratic, linear = self._terms(dev.asarray(n), dev.asarray(f))
        w = dev.xp.linalg.solve(quadratic, linear[:, :, None])[:, :, 0] - self._prior
        return dev.to_numpy(w)

    def posteriors(self, n, f):
        """E[w] (U,R), Cov[w] (U,R,R) and ln p(X) (U,) but for the terms that :meth:`constant` sums; numpy."""
        w, cov, evidence = self._posteriors(self.device.asarray(n), self.device.asarray(f))
        return tuple(map(self.device.to_numpy, (w, cov, evidence)))

    def _posteriors(self, n, f):
        """As posteriors, on the device: w = L^-1 l, ln p = l'w/2 - p'p/2 - ln|L|/2 + constants."""
        xp = self.device.xp
        quadratic, linear = self._terms(n, f)
        factor = xp.linalg.cholesky(quadratic)
        half_log_det = xp.sum(xp.log(xp.linalg.diagonal(factor)), axis=-1)
        cov = self._inverse(factor)
        w = (cov @ linear[:, :, None])[:, :, 0]
        prior = self.extractor.offset**2
        return w, cov, 0.5 * xp.sum(linear * w, axis=-1) - half_log_det - 0.5 * prior

    def _inverse(self, factor):
        """(G G')^-1 of lower triangular factors G (U,R,R), by halves: products do nearly all of the work."""
        inverse = self._invert_lower(factor)
        return self.device.xp.matrix_transpose(inverse) @ inverse

    def _invert_lower(self, g):
        size, xp = g.shape[-1], self.device.xp
        if size <= 32:
            return xp.linalg.inv(g)
        half = size // 2
        out = xp.zeros_like(g)
        first, last = self._invert_lower(g[:, :half, :half]), self._invert_lower(g[:, half:, half:])
        out[:, :half, :half], out[:, half:, half:] = first, last
        out[:, half:, :half] = -(last @ (g[:, half:, :half] @ first))
        return out

    def accumulate(self, n, f, sums):
        """Add a batch of utterances, n (U,C) and f (U,C,D), to ``sums`` (see :meth:`zeros`)."""
        dev = self.device
        xp, n, f = dev.xp, dev.asarray(n), dev.asarray(f)
        w, cov, evidence = self._posteriors(n, f)
        cov += w[:, :, None] * w[:, None, :]
        second = xp.take(cov.reshape(len(n), -1), self._pack, axis=1)
        sums["n"] += xp.sum(n, axis=0)
        sums["b"] += f.reshape(len(n), -1).T @ w
        sums["nw"] += n.T @ w
        columns = max(1, int(SLICE_BYTES / (8 * n.shape[1])))
        for first in range(0, second.shape[1], columns):
            part = slice(first, first + columns)
            sums["a"][:, part] += n.T @ second[:, part]
        sums["w_sum"] += xp.sum(w, axis=0)
        sums["w_scatter"] += xp.sum(second, axis=0)
        sums["evidence"] += xp.sum(evidence)
        sums["num_utts"] += len(n)

    def zeros(self):
        """Empty sums on the device, for :meth:`accumulate`; :meth:`finish` makes IvectorStats of them."""
        num_gauss, dim, ivector_dim = self.extractor.t.shape
        packed = ivector_dim * (ivector_dim + 1) // 2
        shapes = {"n": (num_gauss,), "b": (num_gauss * dim, ivector_dim), "nw": (num_gauss, ivector_dim),
                  "a": (num_gauss, packed), "w_sum": (ivector_dim,), "w_scatter": (packed,), "evidence": (1,)}
        sums = {name: self.device.asarray(np.zeros(shape)) for name, shape in shapes.items()}
        return {**sums, "num_utts": 0}

    def finish(self, sums, scatter=None):
        """Return IvectorStats of ``sums``; the utterances' Scatter brings second order and evidence."""
        model, to_numpy = self.extractor, self.device.to_numpy
        values = {name: to_numpy(value) for name, value in sums.items() if name != "num_utts"}
        shift = model.means[:, :, None] * values["nw"][:, None, :]
        s, evidence = None, 0.0
        if scatter is not None:
            s = scatter.around(model.means)
            evidence = float(values["evidence"][0]) + self.constant(values["n"], s)
        b = values["b"].reshape(model.t.shape) - shift
        return IvectorStats(values["n"], b, values["a"], s, values["w_sum"], values["w_scatter"],
                            float(sums["num_utts"]), evidence)

    def constant(self, n, s):
        """The terms of ln p(X) that w does not touch, of the sums n (C,) and s (C,D,D) around m_c.

        sum_c [n_c ln weight_c - n_c/2 ln|2 pi Sigma_c| - tr(Sigma_c^-1 S_c)/2]; the weights are in it as in
        Kaldi's auxiliary function [K].
        """
        model = self.extractor
        log_norms = -0.5 * (model.dim * LOG_2PI + model.log_determinants())
        with np.errstate(divide="ignore"):
            log_norms += np.where(n > 0, np.log(model.weights), 0.0)
        return float(n @ log_norms - 0.5 * np.sum(model.sigma_inv * s))


def accumulate(extractor, blocks, scatter=None, device=None):
    """Return IvectorStats of ``blocks``, an iterable of (n (U,C), f (U,C,D)), under ``extractor``.

    ``scatter`` is the utterances' Scatter (complete when the blocks end), or None.
    """
    step = EStep(extractor, device)
    sums = step.zeros()
    for n, f in blocks:
        step.accumulate(n, f, sums)
    return step.finish(sums, scatter)
