#!/usr/bin/env python3
"""Add to each recording a stretch of one of the noises, at a given signal-to-noise ratio.

Noise and stretch are drawn by --srand and the recording's key. The ratio is that of the mean squares of the
whole recording, pauses included, and of the stretch; a noise that is too short is repeated. A sum that would
clip is made softer as a whole. Noises are held in memory.

Usage: add_noise.py [options] <wav-rspecifier> <noise-rspecifier> <wav-wspecifier>
e.g.: add_noise.py --snr=10 scp:wav.scp scp:noise.scp ark,scp:noisy.ark,noisy.scp
See also: egs/timit_phones/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from voxark import tables
from voxark.audio import select_channel
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng

NUM_TRIES = 20


def draw_stretch(noises, length, rng):
    """Return (name, samples (length,)) of a stretch that is at most 20 dB below the mean of its recording."""
    for _ in range(NUM_TRIES):
        name, noise = noises[rng.integers(len(noises))]
        start = rng.integers(len(noise))
        stretch = np.take(noise, np.arange(start, start + length), mode="wrap")
        if np.mean(np.square(stretch)) > 0.01 * np.mean(np.square(noise)):
            return name, stretch
    raise VoxarkError(f"{NUM_TRIES} stretches of noise in a row were silent")


def add_noise(samples, stretch, snr):
    """Return samples (N,) + gain * stretch (N,), at ``snr`` dB, within 16 bits."""
    power = np.mean(np.square(samples))
    mixed = samples + stretch * np.sqrt(power / np.mean(np.square(stretch)) * 10.0 ** (-snr / 10.0))
    return mixed * min(1.0, 32000.0 / max(np.abs(mixed).max(), 1.0))


@cli.program
def main(
    wav_rspecifier: str,
    noise_rspecifier: str,
    wav_wspecifier: str,
    *,
    snr: Annotated[float, "Signal-to-noise ratio in dB"] = 10.0,
    srand: Annotated[int, "Seed of the random numbers"] = 0,
) -> int:
    counts = cli.Counts("recordings")
    with tables.open_reader("wav", noise_rspecifier) as reader:
        found = [(name, rate, select_channel(wave).astype(np.float64)) for name, (rate, wave) in reader]
    if not found:
        raise VoxarkError(f"{noise_rspecifier}: no noises")
    with (
        tables.open_writer("wav", wav_wspecifier) as out,
        tables.open_reader("wav", wav_rspecifier) as recordings,
    ):
        for key, (rate, wave) in cli.progress(recordings):
            noises = [(name, noise) for name, noise_rate, noise in found if noise_rate == rate]
            if not noises:
                counts.fail(key, f"no noise has its sampling rate, {rate} Hz")
                continue
            samples = select_channel(wave).astype(np.float64)
            name, stretch = draw_stretch(noises, len(samples), seeded_rng(srand, "noise", key))
            cli.logger.debug("%s: %s", key, name)
            out[key] = (rate, np.rint(add_noise(samples, stretch, snr)).astype(np.int16))
            counts.done()
    return counts.finish(recordings)


if __name__ == "__main__":
    main()
