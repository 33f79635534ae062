"""Waveforms from FBANK features: mel inversion to a power spectrum, then Griffin and Lim's phases.

What compute-fbank does to a signal is undone in the reverse order. The mel energies become a power spectrum
by multiplicative updates (Lee and Seung 1999; for this divergence also known as Richardson-Lucy
deconvolution). The phases are found by alternating between spectra of these magnitudes and spectra that
belong to a signal (Griffin and Lim 1984), with momentum (Perraudin, Balazs and Sondergaard 2013). The signal
comes out of its frames by least squares: overlap-add with the window that compute-fbank used, divided by the
sum of its squares. Pre-emphasis is undone at the end.

Features hold no phases, and few lines of the spectrum have a mel bin of their own: intelligible speech comes
out, with a metallic or hoarse tone, and pitch is kept only as far as the mel bins resolve harmonics.
"""

from dataclasses import dataclass

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions
from voxark.feat.frames import (
    FLOAT_EPSILON, dither_generator, first_sample, shift_samples, transform_length, window_function)
from voxark.feat.mel import cutoff_frequencies, mel_weights
from voxark.options import option

_LARGEST_LOG = 80.0  # of a log mel energy; 16-bit audio stays below 40
_UPDATES = 30  # multiplicative updates of the mel inversion
_TINY = 1e-20


@dataclass
class GriffinLimOptions:
    """How waveforms are made out of features."""

    wav_iterations: int = option(100, "Iterations of Griffin and Lim's algorithm")
    wav_momentum: float = option(0.99, "Momentum of the iterations, from 0 (the plain algorithm) to below 1")
    wav_seed: int = option(0, "Seed of the first phases, which depend on it and on the output's key alone")

    def check(self):
        """Raise VoxarkError for values that make no sense."""
        if self.wav_iterations < 1:
            raise VoxarkError(f"--wav-iterations={self.wav_iterations}: at least one is needed")
        if not 0.0 <= self.wav_momentum < 1.0:
            raise VoxarkError(f"--wav-momentum={self.wav_momentum:g} is outside [0, 1)")


def mel_to_power(mel, weights, updates=_UPDATES, start=None):
    """Power spectra (T, N/2) >= 0 whose mel energies are close to ``mel`` (T, B) >= 0.

    ``weights`` (B, N/2) is the filter bank. Each update is P <- P * (M / (P W^T) W) / (1 W), which lowers
    the Kullback-Leibler divergence between M and P W^T. It starts from ``start`` (T, N/2), or from every
    bin's energy spread evenly over its lines; few updates keep what the bins leave open smooth. Lines in no
    bin are 0.
    """
    floor = _TINY * max(float(mel.max(initial=0.0)), 1.0)
    weights = np.asarray(weights, mel.dtype)
    coverage = weights.sum(axis=0)
    inside = coverage > 0
    back = np.where(inside, weights / np.where(inside, coverage, 1.0), 0.0)
    power = (mel / weights.sum(axis=1)) @ back if start is None else start * inside
    for _ in range(updates):
        power *= (mel / np.maximum(power @ weights.T, floor)) @ back
    return power


class FrameSum:
    """Frames of a signal and the signal of frames: the window's analysis and its least-squares inverse."""

    def __init__(self, window, shift, num_frames):
        self.shift, self.length, self.num_frames = shift, len(window), num_frames
        self.window = window.astype(np.float32)
        self._pieces = -(-self.length // shift)
        self.num_samples = (num_frames - 1) * shift + self.length
        squares = self._add(np.broadcast_to(self.window**2, (num_frames, self.length)))
        # the floor fades the first and last samples, which the window hardly shows, instead of guessing them
        self._inverse = 1.0 / np.maximum(squares, 0.1 * squares.max())

    def _add(self, frames):
        padded = np.zeros((self.num_frames, self._pieces * self.shift), np.float32)
        padded[:, : self.length] = frames
        total = np.zeros((self.num_frames + self._pieces - 1, self.shift), np.float32)
        for piece in range(self._pieces):
            total[piece : piece + self.num_frames] += padded[:, piece * self.shift : (piece + 1) * self.shift]
        return total.reshape(-1)[: self.num_samples]

    def cut(self, signal):
        """Windowed frames (T, L) of a signal (num_samples,)."""
        frames = np.lib.stride_tricks.sliding_window_view(signal, self.length)[:: self.shift]
        return frames * self.window

    def join(self, frames):
        """The signal (num_samples,) whose windowed frames are nearest to ``frames`` (T, L)."""
        return self._add(frames * self.window) * self._inverse


def griffin_lim(magnitude, window, shift, rng, iterations=100, momentum=0.99, renew=None):
    """A signal ((T-1) shift + L,) float32 whose frames have spectra of given magnitudes; and its power
    spectra.

    ``magnitude`` (T, N/2+1) belongs to the transform of length N of frames of the ``window`` (L,), L <= N.
    The first phases are drawn from ``rng``. ``renew(power)`` may give new magnitudes, out of the power
    spectra (T, N/2+1) of the signal found so far, for the second half of the iterations.
    """
    from scipy.fft import irfft, rfft

    length = 2 * (magnitude.shape[1] - 1)
    frames = FrameSum(window, shift, len(magnitude))
    magnitude = np.asarray(magnitude, np.float32)
    angle = rng.random(magnitude.shape, dtype=np.float32) * np.float32(2.0 * np.pi)
    spectrum, previous = magnitude * np.exp(1j * angle), None
    for iteration in range(iterations):
        signal = frames.join(irfft(spectrum, length, axis=1)[:, : frames.length])
        consistent = rfft(frames.cut(signal), length, axis=1)
        if renew is not None and 2 * iteration >= iterations:
            magnitude = renew(_power(consistent))
        spectrum = consistent.copy()
        if previous is not None and momentum:
            spectrum += np.float32(momentum) * (consistent - previous)
        previous = consistent
        spectrum *= magnitude / np.maximum(np.abs(spectrum), np.float32(_TINY))
    signal = frames.join(irfft(spectrum, length, axis=1)[:, : frames.length])
    return signal, _power(rfft(frames.cut(signal), length, axis=1))


def _power(spectrum):
    return spectrum.real**2 + spectrum.imag**2


def undo_preemphasis(signal, coefficient, rate, low_freq):
    """The signal (n,) whose pre-emphasis x_i - a x_{i-1} is ``signal``, without what lies below ``low_freq``.

    What lies below the lowest mel bin is not in the features; undoing pre-emphasis would make it a rumble.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    padded = next_fast_len(len(signal) + 4096, real=True)  # a^4096 < 1e-50 for a = 0.97: nothing comes round
    spectrum = rfft(signal.astype(np.float64), padded)
    frequency = np.arange(len(spectrum)) * (rate / padded)
    keep = frequency >= max(low_freq, rate / padded)
    response = 1.0 - coefficient * np.exp(-2j * np.pi * frequency / rate)
    spectrum[keep] /= response[keep]
    spectrum[~keep] = 0.0
    return irfft(spectrum, padded)[: len(signal)]


class WaveformComputer:
    """Makes waveforms out of FBANK features that were computed with FbankOptions."""

    def __init__(self, fbank=None, options=None):
        self.fbank = FbankOptions() if fbank is None else fbank
        self.options = GriffinLimOptions() if options is None else options
        self.fbank.check()
        self.options.check()
        self.weights = mel_weights(self.fbank).astype(np.float32)
        self.window = window_function(self.fbank)

    def mel_energies(self, feats):
        """Mel energies (T, B) float32 of features (T, dimension): no logarithm, no energy column."""
        opts = self.fbank
        dimension = opts.num_mel_bins + bool(opts.use_energy)
        if feats.ndim != 2 or feats.shape[1] != dimension:
            raise VoxarkError(f"features of {feats.shape[-1]} dimensions, but the options of compute-fbank "
                              f"say {dimension}: give the ones that made them")
        if len(feats) == 0:
            raise VoxarkError("features of no frames make no waveform")
        check_finite(feats, "features")
        feats = np.asarray(feats, np.float64)
        if opts.use_energy:
            feats = feats[:, :-1] if opts.htk_compat else feats[:, 1:]
        if not opts.use_log_fbank:
            return np.maximum(feats, FLOAT_EPSILON).astype(np.float32)
        if feats.max() > _LARGEST_LOG:
            raise VoxarkError(f"a log mel energy of {feats.max():.4g}: 16-bit audio stays below 40. Are "
                              "these log mel features, before any normalisation?")
        return np.exp(feats).astype(np.float32)

    def __call__(self, feats, key=""):
        """Samples (n,) float32 at 16-bit scale and --sample-frequency of features (T, dimension).

        n is the shortest length that gives T frames. The first phases depend on ``key`` and the seed alone.
        Raises VoxarkError for features of another dimension, no frames, or values that are not log mel
        energies.
        """
        mel, opts = self.mel_energies(feats), self.fbank

        def magnitudes(updates, start=None):
            spectrum = mel_to_power(mel, self.weights, updates, start)
            return np.pad(np.sqrt(spectrum) if opts.use_power else spectrum, ((0, 0), (0, 1)))

        def renew(power):
            return magnitudes(1, self._weighed(power) + np.float32(_TINY))

        rng = dither_generator(key, self.options.wav_seed)
        signal, power = griffin_lim(magnitudes(_UPDATES), self.window, shift_samples(opts), rng,
                                    self.options.wav_iterations, self.options.wav_momentum, renew)
        found = (self._weighed(power) @ self.weights.T).sum(dtype=np.float64)
        gain = mel.sum(dtype=np.float64) / max(found, 1e-30)
        return self._finish(signal * (np.sqrt(gain) if opts.use_power else gain), len(feats))

    def _weighed(self, power):
        """What the mel bins weigh: of power spectra (T, N/2+1) all but the last line, or its root."""
        power = power[:, : transform_length(self.fbank) // 2]
        return power if self.fbank.use_power else np.sqrt(power)

    def _finish(self, signal, num_frames):
        opts = self.fbank
        signal = undo_preemphasis(signal, opts.preemphasis_coefficient, opts.sample_frequency,
                                  cutoff_frequencies(opts)[0])
        if not opts.snip_edges:
            start = -first_sample(0, opts)
            signal = signal[max(start, 0) : max(start, 0) + num_frames * shift_samples(opts)]
        return signal.astype(np.float32)
