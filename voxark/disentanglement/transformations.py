"""Known changes of a waveform that keep what is said (gain, microphone, noise, speed) or go to another part.

After the definition of disentanglement by transformations: with G = G_sequence x G_segment, the latent of the
sequence should answer to the first factor alone, that of the segment to the second alone.
"""

from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np

from voxark import tables
from voxark.audio import select_channel
from voxark.errors import VoxarkError
from voxark.feat.resample import resample
from voxark.options import option
from voxark.random_numbers import seeded_rng


class Transformation(NamedTuple):
    """One change.

    ``kind``: "sequence" or "segment". For a sequence ``wave(samples, key)`` gives the changed samples, and
    ``speed`` how much faster they run. For a segment ``shift`` is a number of frames, or None for another
    segment of the same utterance.
    """

    name: str
    kind: str
    wave: Callable | None = None
    speed: float = 1.0
    shift: int | None = None


@dataclass
class TransformationOptions:
    """What is done to the audio."""

    gains: str = option("-10,10", "Gains in dB")
    filter: str = option("100:-20,300:-5,1000:0,3000:8,5000:0,7000:-15",
                         "A microphone: its response in dB at frequencies in Hz")
    snrs: str = option("10", "Signal-to-noise ratios in dB")
    noise: str = option(
        "", "Noises (wav-rspecifier), one drawn for each utterance (without: pink noise)"
    )
    speeds: str = option("0.9,1.1", "Speeds, by which pitch changes, too")
    shifts: str = option("5,10", "Shifts of all segments, in frames")
    max_wavs: int = option(100, "Utterances that are drawn for the transformations")


def numbers(text, name, low, high, kind=float):
    """The numbers of a comma-separated list; VoxarkError for one that is none, or not from low to high."""
    found = []
    for word in filter(None, text.split(",")):
        try:
            value = kind(word)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise VoxarkError(f"--{name}={text}: numbers from {low:g} to {high:g} are expected, not {word!r}")
        found.append(value)
    return found


def transformations(options, rate, srand=0):
    """The list of Transformations of options for audio of ``rate`` Hz, drawn by ``srand`` and the keys."""
    found = []
    for gain in numbers(options.gains, "gains", -60, 60):
        factor = np.float32(10.0 ** (gain / 20.0))
        found.append(Transformation(f"gain {gain:+g} dB", "sequence", lambda x, key, f=factor: x * f))
    if options.filter:
        curve = parse_response(options.filter)
        found.append(Transformation("microphone", "sequence", lambda x, key: filtered(x, rate, curve)))
    noises = read_noises(options.noise, rate) if options.noise else []
    for snr in numbers(options.snrs, "snrs", -50, 100):
        def noisy(x, key, snr=snr):
            rng = seeded_rng(srand, "noise", key)
            return add_noise(x, drawn_noise(noises, len(x), rng), snr)

        found.append(Transformation(f"noise {snr:g} dB", "sequence", noisy))
    for speed in numbers(options.speeds, "speeds", 0.5, 2.0):
        found.append(Transformation(f"speed {speed:g}", "sequence",
                                    lambda x, key, s=speed: resample(x, round(rate * s), rate), speed))
    for shift in numbers(options.shifts, "shifts", 1, 1000, int):
        found.append(Transformation(f"shift {shift} frames", "segment", shift=shift))
    return [*found, Transformation("another segment", "segment")]


# ------------------------------------------------------------------------------------------------ microphone


def parse_response(text):
    """(frequencies (n,) Hz, gains (n,) dB) of `frequency:gain,...`, ascending; VoxarkError for others."""
    try:
        pairs = [tuple(map(float, word.split(":"))) for word in text.split(",")]
        frequencies, gains = map(np.array, zip(*pairs, strict=True))
    except ValueError:
        frequencies = np.zeros(0)
    if not (len(frequencies) and (frequencies > 0).all() and (np.diff(frequencies) > 0).all()
            and np.isfinite(frequencies).all() and (np.abs(gains) <= 100).all()):
        raise VoxarkError(f"--filter={text}: frequency:gain,... is expected, in Hz and dB, by frequency")
    return frequencies, gains


def filtered(x, rate, curve):
    """x (N,) with a response in dB, linear in the logarithm of the frequency, without delay: (N,) float32."""
    from scipy import fft

    size = fft.next_fast_len(len(x) + int(rate) // 10, real=True)
    frequencies = np.maximum(np.fft.rfftfreq(size, 1.0 / rate), 1.0)
    response = 10.0 ** (np.interp(np.log(frequencies), np.log(curve[0]), curve[1]) / 20.0)
    return fft.irfft(fft.rfft(np.asarray(x, np.float64), size) * response, size)[: len(x)].astype(np.float32)


# ----------------------------------------------------------------------------------------------------- noise


def add_noise(x, noise, snr):
    """x (N,) plus noise (N,) at a ratio of mean powers in dB: float32. Silence, of either, stays as it is."""
    x, noise = np.asarray(x, np.float64), np.asarray(noise, np.float64)
    power, of_noise = np.mean(x * x), np.mean(noise * noise)
    if power > 0 and of_noise > 0:
        x = x + noise * np.sqrt(power / of_noise * 10.0 ** (-snr / 10.0))
    return x.astype(np.float32)


def drawn_noise(noises, length, rng):
    """``length`` samples from a random place of a random one of ``noises``, repeated; pink noise of none."""
    if not noises:
        spectrum = np.fft.rfft(rng.standard_normal(max(length, 2)))
        spectrum[0] = 0.0
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        return np.fft.irfft(spectrum, max(length, 2))[:length]
    noise = noises[int(rng.integers(len(noises)))]
    return np.take(noise, np.arange(length) + int(rng.integers(len(noise))), mode="wrap")


def read_noises(rspecifier, rate):
    """The recordings of a wav-rspecifier, as a list; VoxarkError for none, or another rate."""
    noises = []
    with tables.open_reader("wav", rspecifier) as reader:
        for key, (found, samples) in reader:
            if found != rate:
                raise VoxarkError(f"{key}: the noise has {found} Hz, the speech {rate:g}")
            samples = select_channel(samples)
            if len(samples) == 0:
                raise VoxarkError(f"{key}: the noise is empty")
            noises.append(samples)
    if not noises:
        raise VoxarkError(f"{rspecifier}: there is no noise")
    return noises
