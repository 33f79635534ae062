"""The models that the lecture's data are drawn from, and where training starts: what is to be learned."""

from dataclasses import dataclass

import numpy as np

from voxark.backend.plda import Plda
from voxark.gmm.diag import DiagGmm
from voxark.gmm.full import FullGmm
from voxark.hmm.model import Hmm

# What pictures show of each plane: (lowest, highest) of each axis.
RANGE_1D = (-6.5, 7.5)
RANGES_2D = ((-5.8, 5.8), (-4.6, 4.6))
RANGES_PLDA = ((-6.5, 6.5), (-5.2, 5.2))

GMM_1D = DiagGmm(
    np.array([0.45, 0.2, 0.35]),
    np.array([[-2.6], [0.4], [3.0]]),
    np.square([[0.9], [0.45], [1.2]]),
)
GMM_1D_START = DiagGmm(np.full(3, 1 / 3), np.array([[-1.0], [0.8], [2.0]]), np.full((3, 1), 1.0))


def covariance(std_major, std_minor, degrees):
    """Return the covariance (2,2) of an ellipse of these standard deviations, turned to the left."""
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (axes * np.square([std_major, std_minor])) @ axes.T


GMM_2D = FullGmm(
    np.array([0.4, 0.35, 0.25]),
    np.array([[-2.1, -0.9], [2.0, -1.0], [0.8, 2.3]]),
    np.stack([covariance(1.4, 0.6, 60), covariance(1.3, 0.6, -30), covariance(1.4, 0.5, -5)]),
)
GMM_2D_START = DiagGmm(
    np.full(3, 1 / 3), np.array([[-1.0, -2.5], [3.5, 0.5], [-1.5, 2.5]]), np.full((3, 2), 1.2)
)


def left_to_right(stay, means, stds):
    """Return a left-to-right Hmm with one Gaussian a state, which it leaves from the last one."""
    stay = np.asarray(stay)
    transitions = np.diag(stay) + np.diag(1.0 - stay[:-1], 1)
    pdfs = [DiagGmm([1.0], [[mean]], [[std**2]]) for mean, std in zip(means, stds)]
    ends = np.eye(len(stay))
    return Hmm(ends[0], transitions, (1.0 - stay) * ends[-1], pdfs, ending="prob")


RANGE_HMM = (-4.0, 5.5)
HMM = left_to_right([0.85, 0.8, 0.9, 0.85], [-1.4, 1.2, -0.3, 2.4], [0.8, 0.8, 0.7, 0.9])
HMM_START = left_to_right([0.9] * 4, [-0.3, 0.1, 0.5, 0.9], [1.5] * 4)


@dataclass(frozen=True)
class TwoCovariances:
    """z ~ N(mean, across), x ~ N(z, within) in the plane; ``enrolled`` (2,2) are vectors to score with."""

    mean: np.ndarray
    across: np.ndarray
    within: np.ndarray
    enrolled: np.ndarray

    def model(self):
        """Return it as a Plda."""
        return Plda.from_covariances(self.mean, self.within, self.across)


PLDA = TwoCovariances(
    np.array([0.3, 0.2]),
    covariance(2.2, 1.1, 25),
    covariance(1.0, 0.55, 115),
    np.array([[3.0, 1.5], [0.3, 0.2]]),
)
