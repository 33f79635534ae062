"""Cutting a signal into windowed frames: dither, DC offset, pre-emphasis, window, energy [K].

A frame x_0 ... x_{L-1} with mean m becomes, in this order: x_i + dither * N(0,1), drawn anew for every frame;
minus m; its log-energy, where wanted raw; x_i - a x_{i-1}, and x_0 - a x_0 for the first; times the window;
padded with zeros to the length of the transform.

Without dither the frames share samples, and pre-emphasis commutes with the cut. It is then done once on the
signal, and the mean leaves as the constant m - a m: three contiguous passes over the matrix of frames.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option

FLOAT_EPSILON = float(np.finfo(np.float32).eps)  # Kaldi's floor of energies, ln = -15.9424

WindowType = Literal["povey", "hamming", "hanning", "sine", "rectangular", "blackman"]


@dataclass
class FrameOptions:
    """How the signal is cut into frames (names and defaults are Kaldi's)."""

    sample_frequency: float = option(16000.0, "Sampling frequency that the audio must have, in Hz")
    frame_length: float = option(25.0, "Length of a frame in milliseconds")
    frame_shift: float = option(10.0, "Shift between frames in milliseconds")
    preemphasis_coefficient: float = option(0.97, "Coefficient of pre-emphasis, from 0 (none) to 1")
    remove_dc_offset: bool = option(True, "Subtract the mean of each frame")
    dither: float = option(1.0, "Standard deviation of the noise added to each frame, 16-bit scale (0: none)")
    srand: int = option(0, "Seed of the dither, which depends on it and on the utterance's key alone")
    window_type: WindowType = option("povey", "Window function; povey is (0.5 - 0.5 cos)^0.85")
    blackman_coeff: float = option(0.42, "Constant coefficient of the generalized Blackman window")
    round_to_power_of_two: bool = option(True, "Pad frames with zeros to a power of two before the transform")
    snip_edges: bool = option(True, "Output only frames that lie within the signal; if false, one frame a "
                                    "shift, the signal being mirrored at its ends")
    allow_downsample: bool = option(False, "Downsample audio of a higher rate than --sample-frequency")
    allow_upsample: bool = option(False, "Upsample audio of a lower rate than --sample-frequency")

    def check(self):
        """Raise VoxarkError for values that define no frames."""
        if not self.sample_frequency > 0:
            raise VoxarkError(f"--sample-frequency={self.sample_frequency:g} must be above 0")
        if frame_samples(self) < 2 or shift_samples(self) < 1:
            raise VoxarkError(f"--frame-length={self.frame_length:g} and --frame-shift={self.frame_shift:g} "
                              f"(in milliseconds) are too short at {self.sample_frequency:g} Hz")
        if not 0.0 <= self.preemphasis_coefficient <= 1.0:
            raise VoxarkError(f"--preemphasis-coefficient={self.preemphasis_coefficient:g} is outside [0, 1]")
        if not 0.0 <= self.dither < math.inf:
            raise VoxarkError(f"--dither={self.dither:g} must be 0 or above")
        if transform_length(self) % 2:
            raise VoxarkError(f"frames of {frame_samples(self)} samples: with --round-to-power-of-two=false "
                              "their number must be even")


def shift_samples(opts):
    """Frame shift in samples, rounded down [K]."""
    return int(opts.sample_frequency * 0.001 * opts.frame_shift)


def frame_samples(opts):
    """Frame length in samples, rounded down [K]."""
    return int(opts.sample_frequency * 0.001 * opts.frame_length)


def transform_length(opts):
    """Length of the transform in samples: the frame's, or the next power of two."""
    length = frame_samples(opts)
    return 1 << (length - 1).bit_length() if opts.round_to_power_of_two else length


def num_frames(num_samples, opts):
    """Number of frames of a signal of ``num_samples`` samples [K]."""
    length, shift = frame_samples(opts), shift_samples(opts)
    if opts.snip_edges:
        return 0 if num_samples < length else 1 + (num_samples - length) // shift
    return (num_samples + shift // 2) // shift


def first_sample(frame, opts):
    """Index of the first sample of a frame; negative at the start where edges are not snipped [K]."""
    shift = shift_samples(opts)
    if opts.snip_edges:
        return frame * shift
    return frame * shift + shift // 2 - frame_samples(opts) // 2


def window_function(opts):
    """The window (L,) float64; its denominators are L - 1 [K]."""
    length = frame_samples(opts)
    phase = 2.0 * np.pi / (length - 1) * np.arange(length)
    if opts.window_type == "povey":
        return (0.5 - 0.5 * np.cos(phase)) ** 0.85
    if opts.window_type == "hamming":
        return 0.54 - 0.46 * np.cos(phase)
    if opts.window_type == "hanning":
        return 0.5 - 0.5 * np.cos(phase)
    if opts.window_type == "sine":
        return np.sin(0.5 * phase)
    if opts.window_type == "rectangular":
        return np.ones(length)
    if opts.window_type == "blackman":
        b = opts.blackman_coeff
        return b - 0.5 * np.cos(phase) + (0.5 - b) * np.cos(2.0 * phase)
    raise VoxarkError(f"--window-type={opts.window_type} is not known")


def dither_generator(key, srand=0):
    """The generator of an utterance's dither: it depends on ``srand`` and the key alone."""
    from hashlib import blake2b

    text = f"{srand} {key}".encode("utf-8", "surrogateescape")
    return np.random.Generator(np.random.SFC64(int.from_bytes(blake2b(text, digest_size=16).digest())))


def _mirrored(samples, first, last):
    """Samples first ... last - 1 of the signal mirrored at both ends: index -1 is 0, N is N - 1 [K]."""
    index = np.arange(first, last) % (2 * len(samples))
    return samples[np.where(index < len(samples), index, 2 * len(samples) - 1 - index)]


class _GaussianNoise:
    """Draws float32 N(0,1) by Box and Muller's method, in half the time of numpy's generator of them.

    Uniform numbers of 24 bits give values up to 5.8.
    """

    def __init__(self, max_rows, length):
        half = -(-max_rows * length // 2)
        self._length = length
        self._values, self._parts = np.empty((2, 2 * half), np.float32)

    def __call__(self, generator, number, scale):
        """Return (number, length) values of standard deviation ``scale``, valid until the next call."""
        half = -(-number * self._length // 2)
        generator.random(out=self._values[: 2 * half], dtype=np.float32)
        radius, angle = self._parts[:half], self._parts[half : 2 * half]
        np.subtract(1.0, self._values[:half], out=radius)  # in (0, 1]
        np.log(radius, out=radius)
        radius *= np.float32(-2.0 * scale**2)
        np.sqrt(radius, out=radius)
        np.multiply(self._values[half : 2 * half], np.float32(2.0 * np.pi), out=angle)
        for function, part in ((np.cos, self._values[:half]), (np.sin, self._values[half : 2 * half])):
            function(angle, out=part)
            part *= radius
        return self._values[: number * self._length].reshape(number, self._length)


def _log_energy(energy):
    return np.log(np.maximum(energy, FLOAT_EPSILON))


def _check_range(samples):
    # 16-bit scale: what is far beyond it would overflow the squares, and a NaN would outlive its utterance
    peak = max(samples.max(), -samples.min()) if len(samples) and samples.dtype.kind == "f" else 0.0
    if not peak < 1e9:
        raise VoxarkError("the audio holds a NaN, an infinity or values beyond 1e9 (full scale is 32768)")


def _even_parts(total, largest):
    """Cut range(total) into ranges of nearly one size, at most ``largest``: (first, number) of each."""
    size = -(-total // max(1, -(-total // largest)))
    return [(first, min(size, total - first)) for first in range(0, total, max(1, size))]


class FrameCutter:
    """Cuts signals into blocks of windowed frames, in buffers that are allocated once.

    ``energy`` is "raw" (before pre-emphasis and window), "windowed" or "" (none). A signal is prepared in
    spans of ``max_rows * SPAN`` frames and cut in blocks of up to ``max_rows``, sizes that suit the cache.
    """

    SPAN = 4  # blocks

    def __init__(self, opts, dtype=np.float32, energy="", max_rows=100):
        opts.check()
        self.opts, self.dtype, self.energy, self.max_rows = opts, np.dtype(dtype), energy, max_rows
        self.shift, self.length = shift_samples(opts), frame_samples(opts)
        self.padded = transform_length(opts)
        self.preemphasis = self.dtype.type(opts.preemphasis_coefficient)
        window = np.zeros(self.padded)
        window[: self.length] = window_function(opts)
        # numpy spends 0.15 us on each row of a strided or broadcast operation: repeat the window instead
        self._window = np.tile(window.astype(dtype), (max_rows, 1))
        self._frames, self._offsets = np.zeros((2, max_rows, self.padded), dtype)
        num_samples = (self.SPAN * max_rows - 1) * self.shift + self.length
        self._signal, self._scaled = np.zeros((2, num_samples), dtype)
        step = self._signal.itemsize
        self._frames_view = np.lib.stride_tricks.as_strided(
            self._signal, (self.SPAN * max_rows, self.length), (self.shift * step, step))
        self._noise = _GaussianNoise(max_rows, self.length) if opts.dither else None
        # Frames overlap: the sums of pieces that tile both shift and frame are shared. Sums of up to 512
        # 16-bit integers are exact in float32, and so is then the mean of a constant frame.
        common = math.gcd(self.shift, self.length)
        self._piece = max(d for d in range(1, min(common, 512) + 1) if common % d == 0)
        self._ones = np.ones(self._piece, self.dtype)
        self._average = np.full(self.length, 1.0 / self.length, self.dtype)

    def blocks(self, samples, generator=None):
        """Yield (first frame, frames (n, padded), log-energies (n,) or None) for a signal ``samples`` (N,).

        ``generator`` draws the dither. The frames are valid until the next block is asked for, and the caller
        may change them. Raises VoxarkError for samples that are not finite or absurdly large.
        """
        _check_range(samples)
        total = num_frames(len(samples), self.opts)
        for first_of_span, span in _even_parts(total, self.SPAN * self.max_rows):
            self._load(samples, first_sample(first_of_span, self.opts), (span - 1) * self.shift + self.length)
            if not self.opts.dither:
                means, starts, log_energies = self._prepare(span)
            for first, number in _even_parts(span, self.max_rows):
                frames, part = self._frames[:number], slice(first, first + number)
                frames[:, : self.length] = self._frames_view[part]
                if self.opts.dither:
                    log_energy = self._dither(frames, generator)
                else:
                    self._correct(frames, means, starts, part)
                    log_energy = None if log_energies is None else log_energies[part]
                frames *= self._window[:number]  # clears the padding, too
                if self.energy == "windowed":
                    log_energy = _log_energy(np.einsum("ij,ij->i", frames, frames))
                yield first_of_span + first, frames, log_energy

    def _load(self, samples, start, number):
        low, high = max(start, 0), min(start + number, len(samples))
        signal = self._signal[:number]
        signal[low - start : high - start] = samples[low:high]
        if start < low:
            signal[: low - start] = _mirrored(samples, start, low)
        if high < start + number:
            signal[high - start :] = _mirrored(samples, high, start + number)

    def _frame_sums(self, piece_sums, number):
        """Sums over frames (number,) float64 from the sums over pieces."""
        running = np.zeros(len(piece_sums) + 1)
        np.cumsum(piece_sums, out=running[1:])
        step, width = self.shift // self._piece, self.length // self._piece
        return running[width::step][:number] - running[::step][:number]

    def _prepare(self, number):
        """Pre-emphasise the signal of ``number`` frames in place.

        Returns for these frames the means after pre-emphasis or None, the first samples after pre-emphasis or
        None where the window is zero there, and the log-energies or None.
        """
        x = self._signal[: (number - 1) * self.shift + self.length]
        pieces, means, starts, log_energies = x.reshape(-1, self._piece), None, None, None
        if self.opts.remove_dc_offset:
            means = self._frame_sums(pieces @ self._ones, number) / self.length
            offset = np.rint(means.sum() / number)
            if abs(offset) >= 32.0:  # a large offset goes first, exactly: further on it would cost precision
                x -= self.dtype.type(offset)
                means -= offset
        if self.energy == "raw":
            pieces = pieces.astype(np.float64)
            energies = self._frame_sums(np.einsum("ij,ij->i", pieces, pieces), number)
            log_energies = _log_energy(energies if means is None else energies - self.length * means**2)
        if means is not None:
            means = means.astype(self.dtype)
        if self.preemphasis:
            scaled = np.multiply(x, self.preemphasis, out=self._scaled[: len(x)])
            if self._window[0, 0]:
                starts = x[:: self.shift][:number] - scaled[:: self.shift][:number]
            x[1:] -= scaled[:-1]
            if means is not None:
                # by the same operations as x - a x: a constant frame leaves exact zeros
                means -= means * self.preemphasis
        return means, starts, log_energies

    def _correct(self, frames, means, starts, part):
        """Set the first samples of pre-emphasised frames and subtract their means."""
        if starts is not None:
            frames[:, 0] = starts[part]
        if means is not None:
            offsets = self._offsets[: len(frames)]
            offsets[:] = means[part, None]
            frames -= offsets

    def _dither(self, frames, generator):
        """Add noise to plain frames, remove their means and pre-emphasise; returns log-energies or None."""
        scaled, cut = self._offsets[: len(frames)], frames[:, : self.length]
        cut += self._noise(generator, len(frames), self.opts.dither)
        if self.opts.remove_dc_offset:
            cut -= (cut @ self._average)[:, None]
        log_energy = _log_energy(np.einsum("ij,ij->i", cut, cut)) if self.energy == "raw" else None
        if self.preemphasis:
            np.multiply(frames, self.preemphasis, out=scaled)
            starts = frames[:, 0] - scaled[:, 0]
            frames.reshape(-1)[1:] -= scaled.reshape(-1)[:-1]
            frames[:, 0] = starts
        return log_energy
