"""Statistics of a mixture as files that jobs write and that add up: Kaldi's <GMMACCS>, both ways.

Also the E-step that is limited to a Gaussian selection or weighted by frames, for which the blocks of
voxark.gmm.select are used; the plain one is voxark.gmm.em's.
"""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import DiagAccs
from voxark.gmm.select import SMALLEST, PosteriorKernel
from voxark.kaldi_files import GmmAccsParams
from voxark.options import option
from voxark.packed import pack_lower, packed_indices

logger = logging.getLogger(__name__)

FLAG_BITS = {"m": 1, "v": 2, "w": 4}  # [K: model-common.h]


@dataclass
class MixUpOptions:
    """More components after the update."""

    mix_up: int = option(0, "Split the heaviest Gaussians until there are this many in all (0: do not)")
    perturb_factor: float = option(0.01, "Means of split Gaussians move by this times the standard deviation")
    srand: int = option(0, "Seed of the random numbers")


def flag_bits(letters):
    """Return the flags of <GMMACCS> for letters like "mvw": variances need means, and those weights [K]."""
    if not letters or set(letters) - set(FLAG_BITS):
        raise VoxarkError(f"--update-flags={letters}: expected letters out of m, v, w")
    return {"v": 7, "m": 5, "w": 4}[next(letter for letter in "vmw" if letter in letters)]


def to_params(accs, flags="mvw"):
    """Return the GmmAccsParams of DiagAccs or FullAccs: float64 sums around 0, None for what ``flags`` lack.

    The squares of full covariances are stored around each component's own mean, as Kaldi does.
    """
    bits, shift = flag_bits(flags), accs.n[:, None] * accs.offset
    totals = dict(log_likelihood=float(accs.log_likelihood), num_frames=float(accs.num_frames),
                  dim=len(accs.offset))
    if isinstance(accs, DiagAccs):
        squares = accs.s + accs.offset * (2.0 * accs.f + shift)
        means, squares = accs.f + shift if bits & 1 else None, squares if bits & 2 else None
        return GmmAccsParams(bits, accs.n, means, diag_vars=squares, **totals)
    first, second = accs.centred()
    own = _divide(first, accs.n)
    squares = pack_lower(second - first[:, :, None] * own[:, None, :])
    means = first + shift if bits & 1 else None
    return GmmAccsParams(bits, accs.n, means, full_vars=squares if bits & 2 else None, full=True, **totals)


def _divide(sums, n):
    """sums (C,D) / n (C,), 0 where n is 0."""
    return np.divide(sums, n[:, None], out=np.zeros(sums.shape), where=n[:, None] != 0)


def from_params(params):
    """Return the DiagAccs or FullAccs of GmmAccsParams, around the mean of the data; what is missing is 0."""
    n = np.asarray(params.occupancy, np.float64)
    if not (np.isfinite(n).all() and n.min() >= 0):
        raise VoxarkError("statistics with a negative occupancy, or one that is not a number")
    dim = params.dim if params.means is None else params.means.shape[1]
    sums = np.zeros((len(n), dim)) if params.means is None else params.means.astype(np.float64)
    offset = sums.sum(axis=0) / n.sum() if n.sum() > 0 else np.zeros(dim)
    shift = n[:, None] * offset
    f = sums - shift
    totals = params.log_likelihood or 0.0, n.sum() if params.num_frames is None else params.num_frames
    if not params.full and params.full_vars is None:
        squares = np.zeros_like(sums) if params.diag_vars is None else params.diag_vars.astype(np.float64)
        return DiagAccs(offset, n, f, squares - offset * (2.0 * sums - shift), *totals)
    from voxark.gmm.full_em import FullAccs

    rows, columns = packed_indices(dim)
    centred = params.full_vars
    squares = np.zeros((len(n), len(rows))) if centred is None else centred.astype(np.float64)
    return FullAccs(offset, np.eye(dim), n, f, squares + _divide(f, n)[:, rows] * f[:, columns], *totals)


def describe(params):
    """Say in words what GmmAccsParams are of, for messages."""
    dim = params.dim if params.means is None else params.means.shape[1]
    kind = "full" if params.full or params.full_vars is not None else "diagonal"
    letters = "".join(letter for letter, bit in FLAG_BITS.items() if params.flags & bit)
    return f"{len(params.occupancy)} Gaussians of dimension {dim}, {kind} covariances, flags {letters}"


def add_params(total, other):
    """Return the sum of two GmmAccsParams; VoxarkError where their shapes, kinds or flags differ.

    Centred squares add up with the spread between the two means (Chan, Golub and LeVeque), so no digits are
    lost. The log-likelihood and the number of frames are None when one of them has none (Kaldi's files).
    """
    if describe(total) != describe(other):
        raise VoxarkError(f"statistics of {describe(other)}; the ones before are of {describe(total)}")
    n, means = total.occupancy + other.occupancy.astype(np.float64), total.means
    diag_vars, full_vars = total.diag_vars, total.full_vars
    if means is not None:
        means = means + other.means.astype(np.float64)
    if diag_vars is not None:
        diag_vars = diag_vars + other.diag_vars.astype(np.float64)
    if full_vars is not None:
        rows, columns = packed_indices(means.shape[1])
        apart = _divide(total.means, total.occupancy) - _divide(other.means, other.occupancy)
        weight = _divide((total.occupancy * other.occupancy.astype(np.float64))[:, None], n)
        between = weight * apart[:, rows] * apart[:, columns]
        full_vars = full_vars + other.full_vars.astype(np.float64) + between
    lnp, frames = (None if a is None or b is None else a + b for a, b in zip(total[5:7], other[5:7]))
    return total._replace(occupancy=n, means=means, diag_vars=diag_vars, full_vars=full_vars,
                          log_likelihood=lnp, num_frames=frames)


def check_fits(params, gmm, letters):
    """Raise VoxarkError where GmmAccsParams are not of the kind of ``gmm``, or lack what ``letters`` need."""
    kind = "diagonal" if isinstance(gmm, DiagGmm) else "full"
    wanted = f"{gmm.num_gauss} Gaussians of dimension {gmm.dim}, {kind} covariances"
    if describe(params).partition(", flags")[0] != wanted:
        raise VoxarkError(f"statistics of {describe(params)}; the GMM has {wanted}")
    present = {"w": params.occupancy, "m": params.means,
               "v": params.diag_vars if kind == "diagonal" else params.full_vars}
    missing = [letter for letter in letters if present[letter] is None]
    if missing:
        raise VoxarkError(f"the statistics have nothing to update {missing[0]} from (--update-flags)")


def expected_log_likelihood(gmm, accs):
    """Return sum_nc gamma_nc ln(weight_c N(x_n; c)), EM's auxiliary function, from the statistics alone."""
    seen, centre = accs.n > 0, gmm.means - accs.offset
    if isinstance(gmm, DiagGmm):
        spread = (accs.s - 2.0 * centre * accs.f + accs.n[:, None] * np.square(centre)) / gmm.variances
        distances = spread.sum(axis=1)
        peaks = DiagGmm(gmm.weights, np.zeros_like(gmm.means), gmm.variances).log_constants()
    else:
        first, second = accs.centred()
        cross = (first - 0.5 * accs.n[:, None] * centre)[:, :, None] * centre[:, None, :]
        spread = np.matmul(gmm.whitening, second - cross - cross.swapaxes(1, 2))
        distances, peaks = np.einsum("cij,cij->c", spread, gmm.whitening), gmm.log_peaks()
    return float(accs.n[seen] @ peaks[seen] - 0.5 * distances[seen].sum())


class SelectedEStep:
    """The E-step over a selection of components, with weights of frames: sums gamma, gamma z, gamma z z'.

    With a full mixture utterances are worked on in common blocks, because the products are those of single
    components; with a diagonal one blocks never cross an utterance. Posteriors are float32 where the error
    estimates allow it and ``double`` is not asked for; the sums of full covariances are float64.
    """

    def __init__(self, gmm, double=False, device=None):
        self.kernel = PosteriorKernel(gmm, 0, double, device)
        width = (gmm.dim, gmm.dim) if self.kernel.is_full else (2 * gmm.dim,)
        self.n, self._sums = np.zeros(gmm.num_gauss), np.zeros((gmm.num_gauss, *width))
        self._firsts = np.zeros((gmm.num_gauss, gmm.dim))
        self.log_likelihood = self.num_frames = 0.0

    def add(self, x, selection=None, weights=None):
        """Add the frames x (B,D) of a block; VoxarkError where one of them has no likelihood."""
        block, dev = self.kernel.posteriors(x, selection), self.kernel.dev
        if not np.isfinite(block.log_likelihoods).all():
            raise VoxarkError("a frame is so far from every Gaussian that it has no likelihood")
        weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
        if (weights != 1.0).any():
            block.gamma[...] = block.gamma * dev.asarray(weights, self.kernel.dtype)
        self.log_likelihood += float(weights @ block.log_likelihoods)
        self.num_frames += float(weights.sum())
        self.n += dev.to_numpy(dev.xp.sum(block.gamma, axis=1, dtype=dev.xp.float64))
        if self.kernel.is_full:
            self._add_full(block)
        else:
            self._sums += dev.to_numpy(dev.xp.matmul(block.gamma, block.z))

    def _add_full(self, block):
        """Component by component, in float64: only the frames on which it has a posterior that counts."""
        dev, xp, dim = self.kernel.dev, self.kernel.dev.xp, self.kernel.gmm.dim
        counts = xp.abs(block.gamma) > (0.0 if self.kernel.dtype == "float64" else SMALLEST)
        sums = dev.empty((len(self.n), dim + 1, dim), "float64")
        for c in range(len(self.n)):
            rows = xp.nonzero(counts[c])[0]
            own = xp.astype(xp.take(block.z, rows, axis=0), xp.float64)
            gamma = xp.astype(xp.take(block.gamma[c], rows), xp.float64)
            xp.matmul((own * gamma[:, None]).T, own[:, :dim], out=sums[c])
        sums = dev.to_numpy(sums)
        self._sums += sums[:, :dim]
        self._firsts += sums[:, dim]

    def result(self):
        """Return the DiagAccs or FullAccs of everything added so far."""
        offset, dim = self.kernel.offset, self.kernel.gmm.dim
        totals = self.log_likelihood, self.num_frames
        if not self.kernel.is_full:
            return DiagAccs(offset, self.n, self._sums[:, :dim], self._sums[:, dim:], *totals)
        from voxark.gmm.full_em import FullAccs

        return FullAccs(offset, np.eye(dim), self.n, self._firsts, pack_lower(self._sums), *totals)
