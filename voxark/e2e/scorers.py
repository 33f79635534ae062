"""Scorers: embeddings in, log-likelihood ratios of all pairs out; the last module of an end-to-end system.

Four forms: DpldaScorer, DiagonalScorer (NPLDA), CosineScorer, SnyderScorer. Each follows a Front (centring
and LDA as one affine map, length normalisation) and ends in an affine map of the score, part of its
parameters, that calibrate_ sets. All four are quadratic in the vectors that the front gives, so that to_dplda
writes any of them as a <Dplda>, which score-trials takes.

Parameters may be in single precision: scores are computed in the precision of the embeddings.
"""

import logging
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from voxark.backend.class_stats import symmetric
from voxark.backend.dplda import Dplda
from voxark.backend.dplda_form import substituted
from voxark.backend.plda import Plda
from voxark.backend.vectors import length_normalize, transform
from voxark.calibration.logistic import fit_logistic
from voxark.e2e.front import Front, as_numpy, scaled_to_length
from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

CALIBRATION_RIDGE = 1e-2  # holds the scale of scores that separate a small batch; without effect on others


class Exported(NamedTuple):
    """A scorer for programs without torch: an affine map or None, then length normalisation, then a form.

    transform (d,D+1) float64, offset in the last column, or None; length_norm: whether vectors are scaled to
    length sqrt(d) after it; dplda: the voxark.backend.dplda.Dplda of dimension d that scores them.
    """

    transform: np.ndarray
    length_norm: bool
    dplda: Dplda

    def vectors(self, x):
        """The vectors (N,d) float64 that the form scores, of embeddings x (N,D)."""
        x = np.asarray(x, np.float64) if self.transform is None else transform(x, self.transform)
        return length_normalize(x) if self.length_norm else x

    def pair_terms(self, enroll, test):
        """PairTerms of embeddings enroll (M,D) against test (T,D)."""
        return self.dplda.pair_terms(self.vectors(enroll), self.vectors(test))


def session_mean(rows, model, num_models=None, weights=None):
    """Means (M,K) of the rows (P,K) of each model: ``model`` (P,) has the number, 0 to M-1, of each row's.

    Of embeddings, before their length is normalised, it is multi-session enrolment; of scores (P,T) it is
    averaging the sessions' scores. ``weights`` (P,) >= 0 are relative within a model. Every model needs a
    row.
    """
    num_models = int(model.max()) + 1 if num_models is None else num_models
    weights = rows.new_ones(len(rows)) if weights is None else weights.to(rows.dtype)
    total = rows.new_zeros(num_models).index_add(0, model, weights)
    share = weights / total[model]
    return rows.new_zeros(num_models, rows.shape[1]).index_add(0, model, rows * share[:, None])


# ------------------------------------------------------------------------------------------ the scorers


class Scorer(nn.Module):
    """A front and a score of pairs; what the forms share.

    A form defines pair_scores(x, y) for vectors that left the front, form(), the same as a Dplda over these
    vectors, and _affine_(w, b).
    """

    def __init__(self, dim, front_dim=0, length_norm=True):
        super().__init__()
        self.front = Front(dim, front_dim, length_norm)
        self.dim = self.front.out_dim

    def forward(self, enroll, test=None, sessions=None, mode="mean", weights=None):
        """Scores (N,M) of embeddings enroll (N,D) against test (M,D), by default against themselves.

        With ``sessions`` (N,), the model's number of each row of enroll, they are (models,M): of the mean of
        a model's embeddings (``mode`` "mean") or the mean of its sessions' scores ("score-mean"); ``weights``
        (N,) as in session_mean.
        """
        if sessions is not None:
            if test is None:
                raise VoxarkError("models of several sessions need test embeddings of their own")
            if mode == "score-mean":
                return session_mean(self(enroll, test), sessions, weights=weights)
            if mode != "mean":
                raise VoxarkError(f"enrolment {mode!r}: mean or score-mean is expected")
            enroll = session_mean(enroll, sessions, weights=weights)
        x = self.front(enroll)
        return self.pair_scores(x, x if test is None else self.front(test))

    @torch.no_grad()
    def calibrate_(self, scores, target, p_target=0.5, weights=None):
        """Set the affine map, s becomes w s + b, by logistic regression on scores that this scorer gave.

        scores and target (bool) of one shape, arrays or tensors; trials of weight 0 do not count, as the
        diagonal of all pairs. Returns the LogisticFit. Scores that are lower for targets (a bad start) become
        small ones that rise, so that training begins near an uninformed system; VoxarkError without both
        classes.
        """
        scores, target = _flat(scores, np.float64), _flat(target, bool)
        fit = fit_logistic(
            scores,
            target,
            p_target,
            None if weights is None else _flat(weights, np.float64),
            ridge=CALIBRATION_RIDGE,
        )
        w, b = float(fit.weights[0]), fit.offset
        if not w > 0.0:
            mean = float(np.mean(scores))
            w = 0.01 / max(float(np.std(scores)), 0.001 * abs(mean), 0.001)
            b = -w * mean
            logger.warning("targets do not score higher than nontargets: the scores are made small, %g s %+g",
                           w, b)
        self._affine_(w, b)
        return fit

    def score_numpy(self, enroll, test=None):
        """Scores (N,M) float64, numpy in and out, without a graph; see forward."""
        tensors = [
            None if x is None else torch.as_tensor(np.asarray(x, np.float64), device=self.front.bias.device)
            for x in (enroll, test)
        ]
        with torch.no_grad():
            return self(*tensors).cpu().numpy()

    def to_dplda(self):
        """The scorer as Exported; without length normalisation the map of the front goes into the form."""
        form, matrix, normalised = self.form(), self.front.matrix(), self.front.length_norm or self.normalises
        if not normalised and matrix is not None:
            return Exported(None, False, substituted(form, matrix[:, :-1], matrix[:, -1]))
        return Exported(matrix, normalised, form)

    def to_terms(self, enroll, test):
        """voxark.backend.pair_terms.PairTerms of numpy embeddings (M,D) against (T,D): scoring in blocks."""
        return self.to_dplda().pair_terms(enroll, test)

    normalises = False  # whether the form itself takes the length out of the vectors


class DpldaScorer(Scorer):
    """s(x, y) = 2 x'Lambda y + x'Gamma x + y'Gamma y + (x + y)'c + k; Lambda and Gamma are made symmetric.

    It starts as the PLDA with unit within- and between-speaker covariance.
    """

    def __init__(self, dim, front_dim=0, length_norm=True):
        super().__init__(dim, front_dim, length_norm)
        self.lam = nn.Parameter(torch.empty(self.dim, self.dim))
        self.gamma = nn.Parameter(torch.empty(self.dim, self.dim))
        self.c = nn.Parameter(torch.empty(self.dim))
        self.k = nn.Parameter(torch.empty(()))
        self.init_from_plda_(_unit_plda(self.dim))

    @torch.no_grad()
    def init_from_plda_(self, plda):
        """Start from a voxark.backend.plda.Plda of vectors as the front gives them (Dplda.from_plda)."""
        form = Dplda.from_plda(_of_dimension(plda, self.dim))
        for name in ("lam", "gamma", "c"):
            getattr(self, name).copy_(torch.from_numpy(getattr(form, name)))
        self.k.fill_(form.k)
        return self

    def form(self):
        """The Dplda."""
        return Dplda(
            symmetric(as_numpy(self.lam)), symmetric(as_numpy(self.gamma)), as_numpy(self.c), self.k.item()
        )

    def pair_scores(self, x, y):
        """S = 2 X Lambda Y' + g_x 1' + 1 g_y' + k, g = rowsum((X Gamma) o X) + X c; x (N,d), y (M,d)."""
        lam, gamma, c, k = (part.to(x.dtype) for part in (self.lam, self.gamma, self.c, self.k))
        lam, gamma = 0.5 * (lam + lam.T), 0.5 * (gamma + gamma.T)
        g_x = ((x @ gamma + c) * x).sum(dim=1)
        g_y = g_x if y is x else ((y @ gamma + c) * y).sum(dim=1)
        return _sums(2.0 * (x @ lam) @ y.T, g_x + k, g_y)

    def _affine_(self, w, b):
        for part in (self.lam, self.gamma, self.c, self.k):
            part.mul_(w)
        self.k.add_(b)


class DiagonalScorer(Scorer):
    """NPLDA: the form with Lambda = diag(p^2), Gamma = diag(q), of u = V x + v where ``rotate`` asks for it.

    A PLDA is diagonal only in its own space, which comes after the normalisation of length: V, v lead there.
    """

    def __init__(self, dim, front_dim=0, length_norm=True, rotate=True):
        super().__init__(dim, front_dim, length_norm)
        self.rotation = nn.Parameter(torch.eye(self.dim)) if rotate else None
        self.shift = nn.Parameter(torch.zeros(self.dim)) if rotate else None
        self.p, self.q, self.c = (nn.Parameter(torch.zeros(self.dim)) for _ in range(3))
        self.k = nn.Parameter(torch.zeros(()))
        self.init_from_plda_(_unit_plda(self.dim))

    @torch.no_grad()
    def init_from_plda_(self, plda):
        """Start from a voxark.backend.plda.Plda of vectors as the front gives them.

        VoxarkError without ``rotate`` if the Plda is not diagonal as it is.
        """
        cross, square, _, constant = _of_dimension(plda, self.dim).llr_terms(1)
        if self.rotation is not None:
            self.rotation.copy_(torch.from_numpy(plda.transform))
            self.shift.copy_(torch.from_numpy(-plda.transform @ plda.mean))
            linear = np.zeros(self.dim)
        else:
            scale = np.diag(plda.transform)
            if not np.allclose(plda.transform, np.diag(scale)):
                raise VoxarkError(
                    "the PLDA model is not diagonal in the space of the vectors: rotate=True is needed"
                )
            cross, square = cross * scale**2, square * scale**2
            linear = -(cross + 2.0 * square) * plda.mean
            constant = constant - float(linear @ plda.mean)
        for part, value in ((self.p, np.sqrt(0.5 * cross)), (self.q, square), (self.c, linear)):
            part.copy_(torch.from_numpy(value))
        self.k.fill_(constant)
        return self

    def form(self):
        """The Dplda, diagonal without a rotation."""
        form = Dplda(
            np.diag(as_numpy(self.p) ** 2), np.diag(as_numpy(self.q)), as_numpy(self.c), self.k.item()
        )
        if self.rotation is None:
            return form
        return substituted(form, as_numpy(self.rotation), as_numpy(self.shift))

    def pair_scores(self, x, y):
        """Scores (N,M) of vectors x (N,d), y (M,d) that left the front."""
        p, q, c, k = (part.to(x.dtype) for part in (self.p.square(), self.q, self.c, self.k))
        u, v = self._rotated(x), None if y is x else self._rotated(y)
        v = u if v is None else v
        g_u, g_v = ((z * (q * z + c)).sum(dim=1) for z in (u, v))
        return _sums(2.0 * p * u @ v.T, g_u + k, g_v)

    def _rotated(self, x):
        if self.rotation is None:
            return x
        return torch.addmm(self.shift.to(x.dtype), x, self.rotation.to(x.dtype).T)

    def _affine_(self, w, b):
        self.p.mul_(math.sqrt(w))
        for part in (self.q, self.c, self.k):
            part.mul_(w)
        self.k.add_(b)


class CosineScorer(Scorer):
    """s = a cos(x, y) + b with a = softplus(raw_a) > 0."""

    normalises = True

    def __init__(self, dim, front_dim=0, length_norm=False, scale=10.0, offset=-5.0):
        super().__init__(dim, front_dim, length_norm)
        self.raw_a = nn.Parameter(torch.tensor(_inverse_softplus(scale)))
        self.b = nn.Parameter(torch.tensor(float(offset)))

    def form(self):
        """The Dplda of vectors of length sqrt(d): Lambda = a I / (2d), k = b."""
        zero = np.zeros((self.dim, self.dim))
        return Dplda(
            _softplus(self.raw_a.item()) / (2 * self.dim) * np.eye(self.dim), zero, zero[0], self.b.item()
        )

    def pair_scores(self, x, y):
        """Scores (N,M) of vectors x (N,d), y (M,d) that left the front."""
        unit_x = scaled_to_length(x)
        unit_y = unit_x if y is x else scaled_to_length(y)
        a = nn.functional.softplus(self.raw_a.to(x.dtype))
        return torch.addmm(self.b.to(x.dtype), a * unit_x, unit_y.T)

    def _affine_(self, w, b):
        a = w * _softplus(self.raw_a.item())
        self.raw_a.fill_(_inverse_softplus(a))
        self.b.mul_(w).add_(b)


class SnyderScorer(Scorer):
    """s = a (x'y - x'S x - y'S y) + b with a = softplus(raw_a), 1 at first; S is made symmetric.

    The score of the first end-to-end networks for speaker verification, with its scale set free.
    """

    def __init__(self, dim, front_dim=0, length_norm=False):
        super().__init__(dim, front_dim, length_norm)
        self.S = nn.Parameter(0.5 * torch.eye(self.dim))  # minus half the squared distance
        self.raw_a = nn.Parameter(torch.tensor(_inverse_softplus(1.0)))
        self.b = nn.Parameter(torch.zeros(()))

    def form(self):
        """The Dplda: Lambda = a I / 2, Gamma = -a S, c = 0, k = b."""
        a = _softplus(self.raw_a.item())
        return Dplda(
            0.5 * a * np.eye(self.dim), -a * symmetric(as_numpy(self.S)), np.zeros(self.dim), self.b.item()
        )

    def pair_scores(self, x, y):
        """Scores (N,M) of vectors x (N,d), y (M,d) that left the front."""
        half = 0.5 * (self.S + self.S.T).to(x.dtype)
        a = nn.functional.softplus(self.raw_a.to(x.dtype))
        g_x, g_y = (((z @ half) * z).sum(dim=1) for z in (x, y))
        return _sums(a * x @ y.T, self.b.to(x.dtype) - a * g_x, -a * g_y)

    def _affine_(self, w, b):
        self.raw_a.fill_(_inverse_softplus(w * _softplus(self.raw_a.item())))
        self.b.mul_(w).add_(b)


SCORERS = {"dplda": DpldaScorer, "diagonal": DiagonalScorer, "cosine": CosineScorer, "snyder": SnyderScorer}


def build_scorer(kind, dim, **options):
    """Make a scorer by its name; ``options`` as its class takes them (front_dim, length_norm, ...)."""
    if kind not in SCORERS:
        raise VoxarkError(f"back-end {kind!r}: expected one of {', '.join(SCORERS)}")
    return SCORERS[kind](dim, **options)


# ------------------------------------------------------------------------------------------ details


def _sums(products, row, column):
    """products (N,M) + row 1' + 1 column', in place: all pairs are much memory."""
    return products.add_(row[:, None]).add_(column)


def _unit_plda(dim):
    return Plda(np.zeros(dim), np.eye(dim), np.ones(dim))


def _of_dimension(plda, dim):
    if plda.dim != dim:
        raise VoxarkError(f"the PLDA model has dimension {plda.dim}, the vectors that are scored {dim}")
    return plda


def _flat(x, dtype):
    x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    return x.reshape(-1).astype(dtype)


def _softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _inverse_softplus(y):
    """x with softplus(x) = y > 0: ln(e^y - 1), without overflow and without losing small y."""
    y = max(y, 1e-12)
    return y + math.log(-math.expm1(-y))
