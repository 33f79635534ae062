"""What mixtures with diagonal and with full covariances share: checks, moments, splitting."""

import heapq

import abc

import numpy as np

from voxark.errors import VoxarkError

LOG_2PI = float(np.log(2.0 * np.pi))


def log_sum_exp(a, axis):
    """Return ln sum exp(a) along ``axis`` without overflow; a line of -inf alone gives -inf, never NaN."""
    peak = a.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(a - peak).sum(axis=axis)) + peak.squeeze(axis)


class Mixture(abc.ABC):
    """Base of DiagGmm and FullGmm, frozen dataclasses of weights (C,), means (C,D) and what ``SPREAD`` names.

    ``SPREAD`` is the attribute that holds the variances (C,D) or covariances (C,D,D).
    """

    SPREAD = None

    def _check(self, spread_shape):
        """Make all parameters float64; VoxarkError for shapes that disagree and for impossible values."""
        for name in ("weights", "means", self.SPREAD):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.means.ndim != 2 or self.means.size == 0:
            raise VoxarkError(f"GMM has means of shape {self.means.shape}, expected (components, dimension)")
        spread = getattr(self, self.SPREAD)
        if spread.shape != spread_shape(*self.means.shape) or self.weights.shape != self.means.shape[:1]:
            raise VoxarkError(
                f"GMM has {self.weights.shape} weights, {self.means.shape} means and "
                f"{spread.shape} {self.SPREAD}: the shapes disagree"
            )
        if not (np.isfinite(self.weights).all() and self.weights.min() >= 0 and self.weights.max() > 0):
            raise VoxarkError("GMM has a weight that is negative or not a number, or no weight above zero")
        if not np.isfinite(self.means).all():
            raise VoxarkError("GMM has a mean that is not a finite number")

    @property
    def num_gauss(self):
        """Number of components C."""
        return len(self.weights)

    @property
    def dim(self):
        """Dimension D of the features."""
        return self.means.shape[1]

    def mean(self):
        """Return the mean (D,) of the whole mixture."""
        return self.weights @ self.means / self.weights.sum()

    @abc.abstractmethod
    def component_log_likelihoods(self, x):
        """Return ln(weight_c N(x_n; component c)) as (N,C) float64 for frames x (N,D)."""

    @abc.abstractmethod
    def _deviation(self, component, draw):
        """Scale a standard normal ``draw`` (D,) as the component is."""

    def check_features(self, x):
        """Return x as an array; VoxarkError unless it is (N,D)."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise VoxarkError(f"features have shape {x.shape}, the GMM has dimension {self.dim}")
        return x

    def log_likelihood(self, x):
        """Return ln p(x_n) as (N,) float64 for frames x (N,D)."""
        return log_sum_exp(self.component_log_likelihoods(x), axis=1)

    def split(self, target, rng, perturb=0.1):
        """Return a model of ``target`` components made by halving the heaviest one again and again [K].

        The two halves (first on ties) get the means +-perturb * deviation, a draw of ``rng.standard_normal``
        scaled as the component is.
        """
        weights, means = list(self.weights), list(self.means)
        queue = [(-weight, c) for c, weight in enumerate(weights)]
        heapq.heapify(queue)
        source = list(range(self.num_gauss))  # the component whose spread each one has
        while len(weights) < target:
            heaviest = queue[0][1]
            step = perturb * self._deviation(source[heaviest], rng.standard_normal(self.dim))
            weights[heaviest] /= 2.0
            weights.append(weights[heaviest])
            means.append(means[heaviest] + step)
            means[heaviest] = means[heaviest] - step
            source.append(source[heaviest])
            heapq.heapreplace(queue, (-weights[heaviest], heaviest))
            heapq.heappush(queue, (-weights[-1], len(weights) - 1))
        return type(self)(np.array(weights), np.array(means), getattr(self, self.SPREAD)[source])

    def keep(self, chosen):
        """Return the model of the components ``chosen`` (indices or booleans), weights scaled to sum 1."""
        weights = self.weights[chosen]
        return type(self)(weights / weights.sum(), self.means[chosen], getattr(self, self.SPREAD)[chosen])
