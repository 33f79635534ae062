"""A world of simulated speakers whose true log-likelihood ratios are known, whatever a network makes of it.

Frames y_t = z_s + r_u + n_t add a speaker's, a recording's and a frame's part, all Gaussian; what systems get
to see is x_t = B2 g(B1 y_t), with orthogonal B and g bent at zero: an invertible map, which leaves likelihood
ratios as they are. Of y, all that a recording of T frames tells about its speaker is in the mean of its
frames,

    ybar ~ N(z_s, recording + frame / T),   z_s ~ N(0, speaker),

a two-covariance PLDA with known covariances; its score is the true LLR. The mean of the x_t is not
sufficient, nor Gaussian: there is something to gain for a system that learns its features.
"""

from typing import NamedTuple

import numpy as np

from voxark.backend.plda import Plda
from voxark.random_numbers import seeded_rng

DIM = 12
SPEAKER_DIM = 8
SLOPE = 0.2  # of g for negative arguments
WORLD_SEED = 20  # of the world itself; --srand draws the speakers in it


class World(NamedTuple):
    """Square roots (D,D) of the three covariances, and the maps b1, b2 (D,D) of what is seen."""

    speaker: np.ndarray
    recording: np.ndarray
    frame: np.ndarray
    b1: np.ndarray
    b2: np.ndarray

    def truth(self, num_frames):
        """The Plda of the means (D,) of recordings of so many frames."""
        within = self.recording @ self.recording.T + self.frame @ self.frame.T / num_frames
        return Plda.from_covariances(np.zeros(DIM), within, self.speaker @ self.speaker.T)

    def seen(self, y):
        """x (...,D) of y (...,D)."""
        a = y @ self.b1.T
        return np.where(a > 0, a, SLOPE * a) @ self.b2.T

    def hidden(self, x):
        """y (...,D) of x (...,D), the inverse of :meth:`seen`."""
        a = x @ self.b2
        return np.where(a > 0, a, a / SLOPE) @ self.b1

    def speakers(self, number, rng):
        """z (S,D)."""
        return rng.standard_normal((number, DIM)) @ self.speaker.T

    def recordings(self, z, num_frames, rng):
        """Frames y (n,T,D) of n recordings of the speakers z (n,D)."""
        r = z + rng.standard_normal((len(z), DIM)) @ self.recording.T
        return r[:, None] + rng.standard_normal((len(z), num_frames, DIM)) @ self.frame.T


def make_world():
    """The world of all experiments."""
    rng = seeded_rng(WORLD_SEED, "world")
    turn = [np.linalg.qr(rng.standard_normal((DIM, DIM)))[0] for _ in range(5)]
    speaker = np.concatenate([np.geomspace(1.5, 0.5, SPEAKER_DIM), np.full(DIM - SPEAKER_DIM, 0.02)])
    recording = np.geomspace(1.0, 0.35, DIM)
    frame = np.geomspace(2.5, 1.2, DIM)
    roots = [t * scale for t, scale in zip(turn[:3], (speaker, recording, frame))]
    return World(*roots, turn[3], turn[4])


def draw_counts(number, least, most, rng):
    """Numbers of recordings (S,) of speakers, from ``least`` to ``most``, few for most and many for some."""
    if least == most:
        return np.full(number, least)
    values = np.arange(least, most + 1)
    chances = 1.0 / values**1.5
    return rng.choice(values, number, p=chances / chances.sum())
