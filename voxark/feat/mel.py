"""The mel filter bank, with vocal tract length normalisation (VTLN), and its fast application [K].

The triangles are linear in mel = 1127 ln(1 + f / 700), are not normalised by their area, and use the lines
0 ... N/2 - 1 of the transform. VTLN warps the frequencies of the triangles' corners piecewise linearly.
"""

import logging
from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.feat.frames import transform_length
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class MelOptions:
    """The mel filter bank (names and defaults are Kaldi's)."""

    num_mel_bins: int = option(23, "Number of triangular mel-frequency bins")
    low_freq: float = option(20.0, "Low cutoff frequency of the mel bins in Hz")
    high_freq: float = option(0.0, "High cutoff frequency of the mel bins in Hz (if <= 0, from Nyquist)")
    vtln_low: float = option(100.0, "Low inflection point of the piecewise linear VTLN warping in Hz")
    vtln_high: float = option(-500.0, "High inflection point of the VTLN warping (if < 0, from Nyquist)")
    debug_mel: bool = option(False, "Log the filter bank")


def mel_scale(frequency):
    """Mel of a frequency in Hz."""
    return 1127.0 * np.log1p(np.asarray(frequency, dtype=np.float64) / 700.0)


def inverse_mel_scale(mel):
    """Frequency in Hz of a mel."""
    return 700.0 * np.expm1(np.asarray(mel, dtype=np.float64) / 1127.0)


def cutoff_frequencies(opts):
    """Low and high cutoff (Hz) of the filter bank. Raises VoxarkError for an empty or impossible range."""
    nyquist = 0.5 * opts.sample_frequency
    low, high = opts.low_freq, opts.high_freq if opts.high_freq > 0 else nyquist + opts.high_freq
    if not 0.0 <= low < high <= nyquist:
        raise VoxarkError(f"--low-freq={opts.low_freq:g} and --high-freq={opts.high_freq:g} give the range "
                          f"{low:g} to {high:g} Hz, which is not within 0 to {nyquist:g} Hz (half of "
                          "--sample-frequency)")
    return low, high


def vtln_warp_frequency(frequency, warp, opts):
    """Warp frequencies (Hz): f / warp between two inflection points, linear to the fixed cutoffs outside [K].

    Raises VoxarkError where --vtln-low, --vtln-high and the warp factor do not fit the cutoffs.
    """
    frequency = np.asarray(frequency, dtype=np.float64)
    low, high = cutoff_frequencies(opts)
    vtln_high = opts.vtln_high if opts.vtln_high >= 0 else 0.5 * opts.sample_frequency + opts.vtln_high
    if not (warp > 0 and low < opts.vtln_low < vtln_high < high):
        raise VoxarkError("VTLN needs a warp factor above 0 and --low-freq < --vtln-low < --vtln-high < "
                          f"--high-freq; here: {warp:g}, and {low:g}, {opts.vtln_low:g}, {vtln_high:g}, "
                          f"{high:g} Hz")
    lower, upper = opts.vtln_low * max(1.0, warp), vtln_high * min(1.0, warp)
    if not low < lower < upper < high:
        raise VoxarkError(f"VTLN with warp factor {warp:g} leaves no room between --vtln-low and --vtln-high")
    left = low + (lower / warp - low) / (lower - low) * (frequency - low)
    right = high + (high - upper / warp) / (high - upper) * (frequency - high)
    inside = np.where(frequency < lower, left, np.where(frequency < upper, frequency / warp, right))
    return np.where((frequency < low) | (frequency > high), frequency, inside)


def mel_weights(opts, warp=1.0):
    """The filter bank (num_mel_bins, N/2) float64 for a transform of length N.

    Raises VoxarkError for fewer than 3 bins and for a bin that contains no line of the transform.
    """
    if opts.num_mel_bins < 3:
        raise VoxarkError(f"--num-mel-bins={opts.num_mel_bins}: at least 3 are needed")
    low, high = mel_scale(cutoff_frequencies(opts))
    corners = low + np.arange(opts.num_mel_bins + 2) * ((high - low) / (opts.num_mel_bins + 1))
    if warp != 1.0:
        corners = mel_scale(vtln_warp_frequency(inverse_mel_scale(corners), warp, opts))
    length = transform_length(opts)
    mel = mel_scale(np.arange(length // 2) * (opts.sample_frequency / length))
    left, centre, right = (corners[i : i + opts.num_mel_bins, None] for i in range(3))
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    weights = np.maximum(np.minimum(rising, falling), 0.0)
    empty = np.flatnonzero(~weights.any(axis=1))
    if len(empty):
        raise VoxarkError(f"mel bin {empty[0]} of {opts.num_mel_bins} contains no line of the {length}-point "
                          "transform: use fewer --num-mel-bins, a wider range of frequencies or a longer "
                          "--frame-length")
    if opts.debug_mel:
        for b, row in enumerate(weights):
            lines = np.flatnonzero(row)
            text = " ".join(f"{w:.6g}" for w in row[lines])
            logger.info("mel bin %d: offset %d, weights %s", b, lines[0], text)
    return weights


class BandedProduct:
    """Multiplies spectra by a filter bank in groups of bins, each over its own band of lines only.

    Every line of the filter bank is repeated ``repeat`` times: with 2, the spectra hold the squares of the
    real and imaginary parts side by side, and their addition comes free with the product.
    """

    def __init__(self, weights, dtype=np.float32, repeat=1, group=16):
        self.num_bins = len(weights)
        self._bands = []
        num_groups = -(-self.num_bins // group)
        edges = np.linspace(0, self.num_bins, num_groups + 1).round().astype(int)
        for first, last in zip(edges[:-1], edges[1:]):
            lines = np.flatnonzero(weights[first:last].any(axis=0))
            band = slice(lines[0], lines[-1] + 1)
            factors = np.repeat(weights[first:last, band].T, repeat, axis=0)
            columns = slice(band.start * repeat, band.stop * repeat)
            self._bands.append((columns, slice(first, last), np.ascontiguousarray(factors, dtype)))

    def __call__(self, spectra, out):
        """Write the product of spectra (n, at least repeat * lines) into ``out`` (n, num_bins)."""
        for columns, bins, factors in self._bands:
            np.matmul(spectra[:, columns], factors, out=out[:, bins])
