"""Adaptation of a PLDA model to another domain: to unlabelled vectors [K], or towards another model."""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.backend.class_stats import symmetric
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class AdaptationOptions:
    """Unsupervised adaptation, named as Kaldi names it."""

    mean_diff_scale: float = option(
        1.0, "Scale with which the difference of the means counts as variance of the vectors adapted to"
    )
    within_covar_scale: float = option(
        0.3, "Share of the variance in excess of the model's that the within-speaker covariance takes"
    )
    between_covar_scale: float = option(
        0.7, "Share of the variance in excess of the model's that the between-speaker covariance takes"
    )

    def check(self):
        """Raise VoxarkError for a negative scale."""
        for name in ("mean_diff_scale", "within_covar_scale", "between_covar_scale"):
            if getattr(self, name) < 0:
                raise VoxarkError(
                    f"--{name.replace('_', '-')}={getattr(self, name):g}: a number from 0 is expected"
                )


@dataclass
class InterpolationOptions:
    """Interpolation of two models."""

    weight: float = option(
        0.5,
        "With --in-domain: weight of the in-domain covariances, 0 (the model as it is) to 1 (in-domain only)",
    )
    mean_weight: float = option(
        -1.0, "With --in-domain: weight of the in-domain mean (below 0: that of the covariances)"
    )

    def check(self):
        """Raise VoxarkError for weights that are none."""
        if not 0.0 <= self.weight <= 1.0:
            raise VoxarkError(f"--weight={self.weight:g}: a number from 0 to 1 is expected")
        if self.mean_weight > 1.0:
            raise VoxarkError(f"--mean-weight={self.mean_weight:g}: at most 1 is expected")


def adapt_unsupervised(plda, x, options=None):
    """Adapt a Plda to unlabelled vectors x (N,D) as Kaldi's ivector-adapt-plda does [K].

    The mean becomes that of x. In the space where the model's total covariance is unit, each principal
    direction of x whose variance s exceeds 1 adds (s-1) to the within- and between-speaker variances there,
    in the shares of the options; directions with s <= 1 leave the model as it is. VoxarkError for fewer than
    two vectors and another dimension.
    """
    options = options or AdaptationOptions()
    options.check()
    if len(x) < 2:
        raise VoxarkError(f"{len(x)} vectors to adapt to: at least two are needed")
    if x.shape[1] != plda.dim:
        raise VoxarkError(f"the vectors have dimension {x.shape[1]}, the PLDA model {plda.dim}")
    within, between = plda.covariances()
    mean, covariance = _moments(x)
    if not np.isfinite(covariance).all():
        raise VoxarkError("the vectors hold values so large that their variances are not finite: scale them")
    difference = mean - plda.mean
    covariance += options.mean_diff_scale * np.outer(difference, difference)
    to_unit = plda.transform / np.sqrt(1.0 + plda.psi)[:, None]
    s, directions = np.linalg.eigh(symmetric(to_unit @ covariance @ to_unit.T))
    excess = np.maximum(s - 1.0, 0.0)
    logger.info(
        "variance of %d vectors relative to the model's: from %.4g to %.4g; %d of %d directions exceed "
        "it, by %.4g in sum",
        len(x),
        s[0],
        s[-1],
        int(np.sum(excess > 0)),
        plda.dim,
        excess.sum(),
    )
    back = np.linalg.inv(directions.T @ to_unit)
    of_directions = back * np.sqrt(excess)
    added = of_directions @ of_directions.T
    return Plda.from_covariances(
        mean,
        symmetric(within + options.within_covar_scale * added),
        symmetric(between + options.between_covar_scale * added),
    )


@np.errstate(over="ignore", invalid="ignore")  # the caller looks whether they are finite
def _moments(x, block=4096):
    """Mean (D,) and covariance (D,D), divided by N, of x (N,D); float64, taken about the mean."""
    mean = x.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for begin in range(0, len(x), block):
        centred = x[begin : begin + block] - mean
        scatter += centred.T @ centred
    return mean, scatter / len(x)


def interpolate(plda, in_domain, options=None):
    """Interpolate two Plda models: (1-w) of ``plda`` plus w of ``in_domain``, for mean and covariances.

    The supervised adaptation of models trained on much data of another domain and little of the one in use.
    """
    options = options or InterpolationOptions()
    options.check()
    if plda.dim != in_domain.dim:
        raise VoxarkError(f"the PLDA models have dimensions {plda.dim} and {in_domain.dim}: they do not mix")
    weight = options.weight
    of_mean = weight if options.mean_weight < 0 else options.mean_weight
    mean = (1.0 - of_mean) * plda.mean + of_mean * in_domain.mean
    covariances = zip(plda.covariances(), in_domain.covariances())
    return Plda.from_covariances(mean, *(symmetric((1.0 - weight) * a + weight * b) for a, b in covariances))
