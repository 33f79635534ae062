#!/usr/bin/env python3
"""Copy a data directory with noise and a second microphone mixed in, and the labels utt2noise and utt2mic.

Each copy of an utterance has one of the conditions {clean, a noise, another noise, ...} x {near, far}, drawn
by --srand and its key; copies of an utterance differ. A noise is one recording; --noise-begin and --noise-end
choose the part of it that is used, so that training and test can have different parts. `far` is one room
response. Noise is added behind it, at a ratio to the early part of the speech that is drawn for each copy, the
pauses included. `clean` and `near` leave the samples as they are. A sum that would clip is made softer as a whole.

Writes <out-dir>/wav.scp and wav.ark, a recording for each copy (segments are cut out), utt2spk, spk2utt,
utt2noise, utt2mic, utt2snr (of those with noise), utt2source (the utterance it is a copy of), and spk2gender if
there is one. Names of copies are <utterance>-<noise>-<microphone>.

Usage: mix_noise.py [options] <data-dir> <out-dir>
e.g.: mix_noise.py --noise-dir=noise_rir/noise --rir-dir=noise_rir/rir --noise-end=0.7 data/train data/noisy
See also: egs/mini/noise_fhvae.sh, train-e2e-verif (--noise-dir)
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from voxark import datadir, tables
from voxark.e2e.audio_table import AudioTable
from voxark.e2e.augment import AugmentOptions, Augmenter, open_collection
from voxark.errors import VoxarkError
from voxark.random_numbers import draw, seeded_rng

CLEAN, MICS = "clean", ("near", "far")
_LONGEST_SILENCE = 0.5  # seconds of zeros that a noise may have
_LOUDEST = 32000.0


class Condition(NamedTuple):
    """The labels of a copy."""

    noise: str
    mic: str


class Recording:
    """One recording in memory, read as an AudioTable of one entry is."""

    def __init__(self, name, samples):
        self.keys, self.lengths, self._samples = [name], np.array([len(samples)]), samples

    def __len__(self):
        return 1

    def read(self, number, first=0, last=None):
        """Samples first ... last - 1."""
        return self._samples[first:last]


def choose_noises(table, names, count, min_seconds, srand):
    """The names, or ``count`` drawn by ``srand`` of the recordings of ``min_seconds`` at least, sorted.

    Raises VoxarkError for names that ``table`` does not have or cannot be labels, and for too few recordings.
    """
    if names:
        if unknown := [name for name in names if name not in table.keys]:
            raise VoxarkError(f"--noises: {table.name} has no {unknown[0]}")
        if len(set(names)) < len(names) or CLEAN in names:
            raise VoxarkError(
                f"--noises={','.join(names)}: different names, none of them {CLEAN}, are expected")
        return list(names)
    long = [key for key, length in zip(table.keys, table.lengths) if length >= min_seconds * table.rate]
    if len(long) < count:
        raise VoxarkError(
            f"{table.name}: {len(long)} recordings have {min_seconds:g} s or more, {count} are needed")
    return sorted(sorted(long, key=lambda name: draw(srand, "noises", name))[:count])


def part_of_noise(table, name, begin, end):
    """The Recording of the part from ``begin`` to ``end`` (shares of its length) of an entry of ``table``.

    Raises VoxarkError where nothing is left, and for half a second of digital silence: a copy could get nothing
    else.
    """
    number = table.keys.index(name)
    length = int(table.lengths[number])
    samples = table.read(number, int(begin * length), int(end * length)).astype(np.float32)
    sounding = np.concatenate(([-1], np.flatnonzero(samples), [len(samples)]))
    if not samples.any() or np.diff(sounding).max() > _LONGEST_SILENCE * table.rate:
        raise VoxarkError(
            f"{table.name}: {name} is silent for more than {_LONGEST_SILENCE} s: choose another noise")
    return Recording(name, samples)


class Mixer:
    """Mixes an utterance with what a Condition says.

    ``noises``: {label: Recording}; ``response``: the Recording of the far microphone's impulse response. Ratios
    are drawn from ``snrs`` (least, largest) in dB.
    """

    def __init__(self, noises, response, rate, snrs, srand):
        self.srand, self.snrs, self._augmenters = srand, snrs, {}
        for noise in (CLEAN, *noises):
            for mic in MICS:
                options = AugmentOptions(noise_prob=1.0, rir_prob=1.0, min_snr=snrs[0], max_snr=snrs[1])
                augmenter = Augmenter(options, rate, srand)
                augmenter.noises = noises.get(noise)
                augmenter.rirs = response if mic == MICS[1] else None
                self._augmenters[Condition(noise, mic)] = augmenter
        self.conditions = list(self._augmenters)

    def draw(self, key, copies):
        """``copies`` different conditions for the utterance ``key``."""
        rng = seeded_rng(self.srand, "conditions", key)
        return [self.conditions[n] for n in rng.permutation(len(self.conditions))[:copies]]

    def mix(self, key, samples, condition):
        """The copy ``key`` of samples (N,): int16 (N,), and its signal-to-noise ratio in dB or None."""
        augmenter, snr = self._augmenters[condition], None
        if augmenter.noises is not None:
            least, largest = self.snrs
            snr = least + draw(self.srand, "snr", key) * (largest - least)
            augmenter.options = dataclasses.replace(augmenter.options, min_snr=snr, max_snr=snr)
        mixed = augmenter(key, (), lambda first, last: samples[first:last], len(samples), 0, len(samples))
        if mixed.dtype == np.int16:
            return mixed, snr
        softer = min(1.0, _LOUDEST / max(float(np.abs(mixed).max()), 1.0))
        return np.rint(mixed * softer).astype(np.int16), snr


def open_mixer(noise_dir, rir_dir, rate, noises, response, part, snrs, srand):
    """The Mixer of collections of noises and responses; VoxarkError for what does not fit.

    ``noises``: (names or [], how many, seconds at least); ``response``: a name, or "" to draw one.
    """
    table, rirs = open_collection(noise_dir, rate), open_collection(rir_dir, rate)
    chosen = choose_noises(table, *noises, srand)
    response = response or min(rirs.keys, key=lambda name: draw(srand, "response", name))
    if response not in rirs.keys:
        raise VoxarkError(f"--response: {rirs.name} has no {response}")
    cli.logger.info("noises: %s; far: %s", " ".join(chosen), response)
    far = Recording(response, rirs.read(rirs.keys.index(response)))
    return Mixer({name: part_of_noise(table, name, *part) for name in chosen}, far, rate, snrs, srand)


def write_copies(out, planned, audio, mixer, counts):
    """Mix and write the copies (key, utterance, its number in ``audio``, Condition).

    Returns a list of (key, utterance, Condition) of those made, and {key: ratio in dB, or None}.
    """
    made, snrs = [], {}
    with tables.open_writer("wav", f"ark,scp:{out}/wav.ark,{out}/wav.scp") as writer:
        for key, utterance, number, condition in cli.progress(planned):
            samples = audio.read(number)
            if not samples.any():
                counts.fail(key, "its utterance is silent")
                continue
            mixed, snrs[key] = mixer.mix(key, samples, condition)
            writer[key] = (audio.rate, mixed)
            made.append((key, utterance, condition))
            counts.done()
    return made, snrs


def write_labels(out, copies, snrs, data):
    """Write the tables of the copies (key, utterance, Condition) that were made; ``snrs``: {key: dB or None}."""
    utt2spk = datadir.read_table(str(data / "utt2spk"))
    speakers = {key: utt2spk[source] for key, source, _ in copies}
    labels = {"utt2spk": speakers, "utt2noise": {key: of.noise for key, _, of in copies},
              "utt2mic": {key: of.mic for key, _, of in copies},
              "utt2source": {key: utt for key, utt, _ in copies},
              "utt2snr": {key: f"{snrs[key]:.2f}" for key, *_ in copies if snrs[key] is not None},
              "spk2utt": {spk: " ".join(utts) for spk, utts in datadir.invert_utt2spk(speakers).items()}}
    for name, table in labels.items():
        rows = sorted(table.items(), key=lambda row: row[0].encode())
        datadir.write_lines(str(out / name), [f"{key} {value}" for key, value in rows])
    if (data / "spk2gender").is_file():
        shutil.copyfile(data / "spk2gender", out / "spk2gender")


@cli.program
def main(
    data_dir: str,
    out_dir: str,
    *,
    noise_dir: Annotated[str, "Data directory of noises"] = "",
    rir_dir: Annotated[str, "Data directory of room impulse responses"] = "",
    noises: Annotated[str, "Names of noises, with commas (default: drawn by --srand)"] = "",
    num_noises: Annotated[int, "How many noises are drawn"] = 6,
    min_noise_length: Annotated[float, "Seconds that a noise has at least to be drawn"] = 10.0,
    noise_begin: Annotated[float, "Begin of the part of noises that is used, a share of their length"] = 0.0,
    noise_end: Annotated[float, "Its end"] = 1.0,
    response: Annotated[str, "Impulse response of the far microphone (default: drawn by --srand)"] = "",
    copies: Annotated[int, "Copies of each utterance"] = 1,
    min_snr: Annotated[float, "Least signal-to-noise ratio in dB"] = 5.0,
    max_snr: Annotated[float, "Largest signal-to-noise ratio in dB"] = 20.0,
    srand: Annotated[int, "Seed of the random numbers"] = 0,
) -> int:
    names = [name for name in noises.split(",") if name]
    if not noise_dir or not rir_dir:
        raise VoxarkError("--noise-dir and --rir-dir are needed")
    if not 0.0 <= noise_begin < noise_end <= 1.0:
        raise VoxarkError("--noise-begin is below --noise-end, both from 0 to 1")
    if not 1 <= copies <= len(MICS) * (len(names or range(num_noises)) + 1):
        raise VoxarkError(f"--copies={copies}: from 1 to the number of conditions is expected")
    data, out = Path(data_dir), Path(out_dir)
    segments = str(data / "segments") if (data / "segments").is_file() else ""
    audio = AudioTable(str(data / "wav.scp"), segments, folders=(str(data), str(data.parent)))
    mixer = open_mixer(noise_dir, rir_dir, audio.rate, (names, num_noises, min_noise_length), response,
                       (noise_begin, noise_end), (min_snr, max_snr), srand)
    planned = sorted((f"{key}-{'-'.join(of)}", key, number, of) for number, key in enumerate(audio.keys)
                     for of in mixer.draw(key, copies))
    counts = cli.Counts("copies")
    out.mkdir(parents=True, exist_ok=True)
    made, snrs = write_copies(out, planned, audio, mixer, counts)
    write_labels(out, made, snrs, data)
    return counts.finish()


if __name__ == "__main__":
    main()
