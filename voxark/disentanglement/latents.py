"""How far the posteriors of latents depart from their priors, and how many dimensions are used."""

from typing import NamedTuple

import numpy as np

ACTIVE_VARIANCE = 0.01  # of the posterior mean over the data (Burda, Grosse and Salakhutdinov, ICLR 2016)


class Usage(NamedTuple):
    """``kl`` (D,): mean divergence of each dimension in nats, or None; ``variance`` (D,): of the means."""

    kl: np.ndarray | None
    variance: np.ndarray

    @property
    def num_active(self):
        """The number of dimensions whose posterior mean varies by more than ACTIVE_VARIANCE."""
        return int(np.sum(self.variance > ACTIVE_VARIANCE))


def gaussian_kl(mean, variance, prior_mean=0.0, prior_variance=1.0):
    """KL(N(mean, variance) || N(prior_mean, prior_variance)) of each element, in nats."""
    mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
    ratio = (variance + (mean - prior_mean) ** 2) / prior_variance
    return 0.5 * (np.log(prior_variance / variance) + ratio - 1.0)


def usage(mean, variance=None, prior_mean=0.0, prior_variance=1.0):
    """The Usage of posteriors with means and variances (N,D); ``prior_mean``: a number, (D,) or (N,D)."""
    spread = np.var(np.asarray(mean, np.float64), axis=0)
    if variance is None:
        return Usage(None, spread)
    return Usage(gaussian_kl(mean, variance, prior_mean, prior_variance).mean(axis=0), spread)


def utterance_sums(x, utterance, number):
    """Sums (U,D) float64 of x (N,D) over the segments of ``number`` = U utterances, and counts (U,)."""
    sums = np.zeros((number, x.shape[1]))
    np.add.at(sums, utterance, x.astype(np.float64))
    return sums, np.bincount(utterance, minlength=number)


def map_means(x, utterance, number, ratio):
    """MAP estimates (U,D) of utterances' means: sum / (N + ratio), ratio = var(z | mu) / var(mu) [FHVAE]."""
    sums, counts = utterance_sums(x, utterance, number)
    return sums / (counts + ratio)[:, None]
