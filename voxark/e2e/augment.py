"""Noise, reverberation and speed on waveforms, drawn for each chunk by seed, key and place in the training.

A stretch of an utterance sounds as it would in the whole utterance: reverberation takes in what came before,
and the noise runs along with the utterance's clock.
"""

import functools
import math
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.e2e.audio_table import AudioTable
from voxark.errors import VoxarkError
from voxark.feat.resample import NUM_ZEROS, resample
from voxark.options import option
from voxark.random_numbers import seeded_rng

EARLY_BEFORE, EARLY_BEHIND = (
    0.001,
    0.05,
)  # seconds round the direct sound that count as early [K: wav-reverberate]
_MAX_RESPONSES = 256  # impulse responses kept in memory


@dataclass
class AugmentOptions:
    """What is done to the waveforms of training chunks."""

    noise_dir: str = option("", "Data directory of noises (its wav.scp): added to training chunks")
    noise_prob: float = option(0.5, "Probability that a chunk gets noise")
    min_snr: float = option(
        5.0, "Least signal-to-noise ratio in dB; each chunk draws its own between the two"
    )
    max_snr: float = option(20.0, "Largest signal-to-noise ratio in dB")
    rir_dir: str = option("", "Data directory of room impulse responses (its wav.scp)")
    rir_prob: float = option(0.5, "Probability that a chunk is reverberated")
    speed_perturb: str = option("", "Speeds of further copies of the training utterances, such as 0.9,1.1")
    speed_speakers: Literal["new", "same"] = option(
        "new", "The copies' speakers: new ones (voices of another pitch), or the same"
    )

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not (0.0 <= self.noise_prob <= 1.0 and 0.0 <= self.rir_prob <= 1.0):
            raise VoxarkError("--noise-prob and --rir-prob must be from 0 to 1")
        if not -100.0 <= self.min_snr <= self.max_snr <= 200.0:
            raise VoxarkError(f"--min-snr={self.min_snr:g} must not be above --max-snr={self.max_snr:g}")
        self.speeds()

    def speeds(self):
        """The speeds of the copies, as floats."""
        try:
            speeds = [float(word) for word in self.speed_perturb.split(",") if word.strip()]
        except ValueError:
            speeds = [math.nan]
        if not all(0.5 <= speed <= 2.0 and speed != 1.0 for speed in speeds) or len(set(speeds)) < len(
            speeds
        ):
            raise VoxarkError(
                f"--speed-perturb={self.speed_perturb}: different numbers from 0.5 to 2, other than 1, "
                "are expected, as in 0.9,1.1"
            )
        return speeds


# ----------------------------------------------------------------------------------------------------- speed


def speed_rates(rate, speed):
    """The rates (Hz, whole) between which resampling makes speech ``speed`` times as fast."""
    return round(rate * speed), int(rate)


def speed_length(length, rate, speed):
    """Samples of a signal of ``length`` samples at another speed."""
    rate_in, rate_out = speed_rates(rate, speed)
    return -(-length * rate_out // rate_in)


def read_at_speed(read, length, first, last, rate, speed):
    """Samples first ... last - 1 of a signal played ``speed`` times as fast: (last - first,) float32.

    ``read(first, last)`` gives the signal's own samples, of which there are ``length``; only those in reach
    of the filter are asked for. Pitch changes, too, as sox's `speed` does.
    """
    rate_in, rate_out = speed_rates(rate, speed)
    common = math.gcd(rate_in, rate_out)
    step_in, step_out = rate_in // common, rate_out // common
    reach = math.ceil(NUM_ZEROS * rate_in / (0.99 * min(rate_in, rate_out))) + 1
    unit = max(0, first // step_out - -(-reach // step_in))  # whole units keep the phases of the filter
    end = min(length, -(-last * step_in // step_out) + reach + step_in)
    if last <= first:
        return np.zeros(0, np.float32)
    start = first - unit * step_out
    return resample(read(unit * step_in, end), rate_in, rate_out)[start : start + last - first]


# --------------------------------------------------------------------------------------------- reverberation


def normalize_response(samples):
    """An impulse response of unit energy, and the place of its direct sound, its peak: (h (L,), int).

    Raises VoxarkError for silence. Zeros at the end are cut off.
    """
    h = np.asarray(samples, np.float64)
    used = np.flatnonzero(h)
    if not len(used):
        raise VoxarkError("an impulse response of zeros")
    h = h[: used[-1] + 1]
    return (h / np.sqrt(h @ h)).astype(np.float32), int(np.argmax(np.abs(h)))


def convolve(x, h, peak, before):
    """Samples ``before`` ... of x (N,) through responses h (..., L), by FFT: (..., N - before - peak).

    The direct sound at h[peak] stays where it was: y_t = sum_j h_j x_{t + peak - j}. float32 stays float32.
    """
    from scipy import fft

    size = fft.next_fast_len(len(x) + h.shape[-1] - 1, real=True)
    y = fft.irfft(fft.rfft(x, size) * fft.rfft(h, size), size)
    return y[..., before + peak : len(x)]


def early_part(h, peak, rate):
    """h with all but the early part set to zero: 1 ms before the direct sound to 50 ms behind it [K]."""
    early = np.zeros_like(h)
    part = slice(max(0, peak - int(EARLY_BEFORE * rate)), peak + int(EARLY_BEHIND * rate))
    early[part] = h[part]
    return early


# ----------------------------------------------------------------------------------------------- all together


def open_collection(folder, rate):
    """The AudioTable of a data directory; relative paths count from here, from it, or from its parent."""
    path = os.path.join(folder, "wav.scp")
    if not os.path.isfile(path):
        raise VoxarkError(f"{folder}: a data directory with a wav.scp is expected")
    return AudioTable(path, rate=rate, folders=(folder, os.path.join(folder, os.pardir)))


class Augmenter:
    """Adds noise and reverberation to stretches of utterances, drawn by ``srand``, key and draw alone."""

    def __init__(self, options, rate, srand=0):
        options.check()
        self.options, self.rate, self.srand = options, int(rate), srand
        self.noises = open_collection(options.noise_dir, self.rate) if options.noise_dir else None
        self.rirs = open_collection(options.rir_dir, self.rate) if options.rir_dir else None
        self._response = functools.lru_cache(_MAX_RESPONSES)(self._read_response)
        if self.noises is not None and (self.noises.lengths < 1).any():
            raise VoxarkError(
                f"{options.noise_dir}: {self.noises.keys[int(np.argmin(self.noises.lengths))]} is empty"
            )

    def any(self):
        """True where anything is done at all."""
        return self.noises is not None or self.rirs is not None

    def _read_response(self, number):
        try:
            return normalize_response(self.rirs.read(number))
        except VoxarkError as error:
            raise VoxarkError(f"{self.rirs.keys[number]}: {error}") from None

    def __call__(self, key, draw, read, length, first, last):
        """Samples first ... last - 1 of an utterance of ``length`` samples, augmented: (last - first,).

        ``read(first, last)`` gives its own samples. They come back as they are where nothing was drawn, else
        as float32; nothing is clipped.
        """
        rng = seeded_rng(self.srand, "augment", key, *draw)
        u = rng.random(6)  # all at once: noises do not move the reverberation, nor the other way round
        options, response = self.options, None
        if self.rirs is not None and u[0] < options.rir_prob:
            response = self._response(int(u[1] * len(self.rirs)))
        with_noise = self.noises is not None and u[2] < options.noise_prob
        samples, power = self._reverberate(read, length, first, last, response, with_noise)
        if not with_noise or last <= first:
            return samples
        snr = options.min_snr + u[5] * (options.max_snr - options.min_snr)
        noise = self._noise(int(u[3] * len(self.noises)), u[4], first, last)
        noise_power = np.mean(np.square(noise))
        if power > 0.0 and noise_power > 0.0:
            samples = samples + noise * np.float32(math.sqrt(power / noise_power * 10.0 ** (-snr / 10.0)))
        return samples

    def _reverberate(self, read, length, first, last, response, with_power):
        """The stretch, and the power that the noise is measured against: of the early sound alone [K]."""
        if response is None:
            samples = read(first, last)
            return samples, float(
                np.mean(np.square(samples, dtype=np.float64))
            ) if with_power and last > first else 0.0
        h, peak = response
        start, end = max(0, first - len(h) + 1 + peak), min(length, last + peak)
        x = np.zeros(last + peak - start, np.float32)
        x[: end - start] = read(start, end)
        if not with_power or last <= first:
            return convolve(x, h, peak, first - start), 0.0
        y, early = convolve(x, np.stack([h, early_part(h, peak, self.rate)]), peak, first - start)
        return y, float(np.mean(np.square(early, dtype=np.float64)))

    def _noise(self, number, place, first, last):
        """The part of a noise, repeated without end, that runs along samples first ... last - 1: float32."""
        length = int(self.noises.lengths[number])
        at, parts, missing = (int(place * length) + first) % length, [], last - first
        if missing >= length:
            whole = self.noises.read(number).astype(np.float32)
            return np.take(whole, np.arange(at, at + missing), mode="wrap")
        while missing:
            end = min(length, at + missing)
            parts.append(self.noises.read(number, at, end))
            missing -= end - at
            at = 0
        return np.concatenate(parts).astype(np.float32)
