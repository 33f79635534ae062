"""Best linear unbiased weights of dependent trials.

The average loss of the trials of a class, sum_t w_t l_t with sum_t w_t = 1, has the variance w'Sw, S being
the covariance of the losses. It is least for w = S^-1 1 / (1'S^-1 1), and then 1 / (1'S^-1 1) [tutorial].
Losses are taken to have one variance, so that S holds the correlations of :mod:`voxark.trials.correlations`;
variances below are fractions of it, so that their reciprocals count trials: independent ones that would say
as much. Targets and nontargets are weighted each for themselves.

:func:`list_weights` is exact for any list; :func:`target_classes` and :func:`nontarget_classes` are the
closed forms where every pair of utterances is one trial, and the weight follows from how many utterances the
speakers have.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

# ------------------------------------------------------------------------------ all pairs of some utterances


class TargetClasses(NamedTuple):
    """Weights of all pairs of one speaker's utterances, by how many he has.

    n (P,): distinct numbers of utterances >= 2, rising; num_speakers (P,); weight (P,): of a trial, summing
    to 1 over all trials; variance: of the weighted average, uniform_variance: of the plain one.
    """

    n: np.ndarray
    num_speakers: np.ndarray
    weight: np.ndarray
    variance: float
    uniform_variance: float

    @property
    def num_trials(self):
        """(P,) trials of each speaker, N(n) = n (n - 1) / 2."""
        return self.n * (self.n - 1) // 2

    @property
    def relative(self):
        """The weights (P,) scaled so that their mean over all trials is 1."""
        return self.weight * (self.num_trials @ self.num_speakers)


class NontargetClasses(NamedTuple):
    """Weights of all pairs of utterances of two speakers, by how many utterances the two have.

    n, num_speakers (P,) as of TargetClasses, n >= 1; num_trials, weight (P,P) symmetric: the trials of each
    pair of numbers, n against m and m against n being the same trials, and the weight of one; weight is 0
    where there are none. variance, uniform_variance as of TargetClasses.
    """

    n: np.ndarray
    num_speakers: np.ndarray
    num_trials: np.ndarray
    weight: np.ndarray
    variance: float
    uniform_variance: float

    @property
    def relative(self):
        """The weights (P,P) scaled so that their mean over all trials is 1."""
        return self.weight * _total(self.num_trials)


def target_row_sum(n, components):
    """r(n) = 1 + 2 (n - 2) c1 + (n - 2) (n - 3) c2 / 2, the sum of a row of S; n: number or array."""
    c1, c2 = components.u + components.v, components.u
    return 1.0 + 2.0 * (n - 2) * c1 + 0.5 * (n - 2) * (n - 3) * c2


def target_classes(counts, components):
    """TargetClasses of speakers with ``counts`` (S,) utterances: w(n) = (1 / r(n)) / sum_s N(n_s) / r(n_s).

    Speakers with fewer than two utterances have no part. VoxarkError if none has two.
    """
    counts = np.asarray(counts)
    n, num_speakers = np.unique(counts[counts >= 2], return_counts=True)
    if not len(n):
        raise VoxarkError("no speaker has two utterances, so there is no target trial to weight")
    rows = target_row_sum(n, components)
    trials = num_speakers * (n * (n - 1) // 2)
    total = float(np.sum(trials / rows))
    uniform = float(trials @ rows) / float(trials.sum()) ** 2
    return TargetClasses(n, num_speakers, 1.0 / (rows * total), 1.0 / total, uniform)


def nontarget_classes(counts, components):
    """NontargetClasses of speakers with ``counts`` (S,) utterances.

    With R(n) the weight that an utterance of a speaker of n gets from all trials, and f(n) = v + n u, the row
    of S for a trial of speakers with n and m utterances sums to

        (n m p + (n + m) q + e) w(n,m) + f(n) R(n) + f(m) R(m) = 1,    R(n) = sum_p (K_p - [p = n]) p w(n,p),

    so that w(n,m) follows from R, and R from P linear equations, P being the number of distinct counts:
    exact, where the system for the w(n,m) themselves has P (P + 1) / 2. VoxarkError for fewer than two
    speakers, and where p = q = e = 0.
    """
    counts = np.asarray(counts)
    n, num_speakers = np.unique(counts[counts >= 1], return_counts=True)
    if num_speakers.sum() < 2:
        raise VoxarkError("there are fewer than two speakers, so there is no nontarget trial to weight")
    u, v, p, q, e = components
    own = np.outer(n, n) * p + np.add.outer(n, n) * q + e
    if p + q + e <= 1e-12:
        raise VoxarkError(
            "p = q = e = 0: speakers and utterances alone cannot make nontarget trials; give p, q or e a part"
        )
    shared = v + n * u  # f(n)
    # others[n,p] = (K_p - [p = n]) p / own(n,p), and R = others 1 - (row sums of others) f R - others (f R)
    others = (num_speakers - np.eye(len(n))) * n / own
    system = np.eye(len(n)) + np.diag(others.sum(axis=1) * shared) + others * shared
    received = np.linalg.solve(system, others.sum(axis=1))
    weight = (1.0 - np.add.outer(shared * received, shared * received)) / own
    trials = np.outer(num_speakers * n, num_speakers * n)
    np.fill_diagonal(trials, num_speakers * (num_speakers - 1) // 2 * n * n)
    weight[trials == 0] = 0.0
    total = _total(trials * weight)
    uniform = _uniform_variance(n, num_speakers, trials, own, shared)
    return NontargetClasses(n, num_speakers, trials, weight / total, 1.0 / total, uniform)


def _total(values):
    """The sum over unordered pairs of classes of a symmetric matrix."""
    return float(np.sum(np.triu(values)))


def _uniform_variance(n, num_speakers, trials, own, shared):
    """1'S1 / N^2 of all nontarget pairs."""
    received = num_speakers @ n - n  # R(n) for weights of 1
    rows = own + np.add.outer(shared * received, shared * received)
    return _total(trials * rows) / _total(trials) ** 2


# ------------------------------------------------------------------------------------------------- any list


class ListWeights(NamedTuple):
    """Weights (N,) of the trials of a list, summing to 1, with the variances of TargetClasses.

    num_iters: conjugate gradient iterations that were needed.
    """

    weight: np.ndarray
    variance: float
    uniform_variance: float
    num_iters: int

    @property
    def relative(self):
        """The weights (N,) scaled so that their mean is 1."""
        return self.weight * len(self.weight)


def list_weights(sharing, components, tolerance=1e-8, max_iters=5000, progress=iter):
    """ListWeights of N trials of one class, whatever the list: S x = 1 by conjugate gradients.

    ``sharing``: Sharing of the trials; a product with S costs O(N) and no matrix is formed. ``tolerance``:
    root of the mean square of 1 - S x at which to stop. ``progress`` wraps the range of iterations.
    VoxarkError where the tolerance is not reached, as for an S that is (nearly) singular.
    """
    number = len(sharing)
    ones = np.ones(number)
    first = sharing.apply(ones, components)
    uniform = float(first.sum()) / number**2
    scale = number / float(first.sum())  # the best multiple of 1 to begin with
    x, residual = scale * ones, ones - scale * first
    direction, error = residual.copy(), float(residual @ residual)
    for num_iters in progress(range(max_iters + 1)):
        if error <= tolerance**2 * number:
            total = float(x.sum())
            return ListWeights(x / total, 1.0 / total, uniform, num_iters)
        product = sharing.apply(direction, components)
        curvature = float(direction @ product)
        if curvature <= 0.0:
            break
        step = error / curvature
        x += step * direction
        residual -= step * product
        previous, error = error, float(residual @ residual)
        direction *= error / previous
        direction += residual
    raise VoxarkError(
        f"weights of {number} trials: no solution after {num_iters} iterations (residual "
        f"{np.sqrt(error / number):.2g}), the covariance of the trials is nearly singular: give the single "
        "trial, e, a larger part"
    )


def clip(weights):
    """(weights (N,) with those below 0 set to 0 and the sum kept, how many these were)."""
    negative = weights < 0
    number = int(np.count_nonzero(negative))
    if not number:
        return weights, 0
    clipped = np.where(negative, 0.0, weights)
    return clipped * (weights.sum() / clipped.sum()), number
