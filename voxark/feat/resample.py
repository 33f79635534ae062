"""Resampling by a windowed sinc, Kaldi's ResampleWaveform [K]."""

import math

import numpy as np

from voxark.errors import VoxarkError

NUM_ZEROS = 6  # zeros of the sinc on each side that the window keeps


def _filter(t, cutoff):
    """Windowed sinc of cutoff c (Hz) at times t (s): 1/2 (1 + cos(2 pi c t / 6)) sin(2 pi c t) / (pi t)."""
    window = 0.5 * (1.0 + np.cos(2.0 * np.pi * cutoff / NUM_ZEROS * t))
    sinc = 2.0 * cutoff * np.sinc(2.0 * cutoff * t)
    return np.where(np.abs(t) < NUM_ZEROS / (2.0 * cutoff), window * sinc, 0.0)


def resample(samples, rate_in, rate_out):
    """Resample a signal (N,) from one rate to another (whole Hz): (ceil(N * rate_out / rate_in),) float32.

    The low-pass filter cuts off at 0.99 of the lower Nyquist frequency; beyond its ends the signal is zero.
    """
    rate_in, rate_out = int(rate_in), int(rate_out)
    cutoff = 0.99 * 0.5 * min(rate_in, rate_out)
    width = NUM_ZEROS / (2.0 * cutoff)
    common = math.gcd(rate_in, rate_out)
    step_in, step_out = rate_in // common, rate_out // common  # one unit: so many samples in, so many out
    number = -(-len(samples) * step_out // step_in)
    num_units = -(-number // step_out)
    reach = math.floor(width * rate_in) + 2
    padded = np.zeros(reach + num_units * step_in + 2 * reach + step_in)
    padded[reach : reach + len(samples)] = samples[: len(padded) - reach]
    output = np.empty((num_units, step_out), np.float32)
    for phase in range(step_out):
        time = phase / rate_out
        first, last = math.ceil((time - width) * rate_in), math.floor((time + width) * rate_in)
        weights = _filter(np.arange(first, last + 1) / rate_in - time, cutoff) / rate_in
        pieces = np.lib.stride_tricks.sliding_window_view(padded[reach + first :], len(weights))
        output[:, phase] = pieces[::step_in][:num_units] @ weights
    return output.reshape(-1)[:number]


def to_rate(samples, rate, opts):
    """Return samples at opts.sample_frequency, resampled where allow_downsample or allow_upsample permit it.

    Raises VoxarkError where the rates differ and it is not allowed, naming the options that help.
    """
    wanted = opts.sample_frequency
    if rate == wanted:
        return samples
    if rate > wanted and opts.allow_downsample or rate < wanted and opts.allow_upsample:
        if wanted != int(wanted):
            raise VoxarkError(f"--sample-frequency={wanted:g}: resampling needs a whole number")
        return resample(samples, rate, wanted)
    verb = "down" if rate > wanted else "up"
    raise VoxarkError(f"the audio has {rate} Hz, but --sample-frequency={wanted:g} (set it to {rate}, or "
                      f"convert with --allow-{verb}sample=true)")
