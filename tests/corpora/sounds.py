"""Synthetic voices with numpy alone, and audio files as publishers of corpora write them."""

import struct
import zlib

import numpy as np
from scipy.signal import lfilter

RATE = 16000
# Formants in Hz; of phones of noise the band, of silences nothing.
VOWELS = {
    "iy": (300, 2300, 3000),
    "eh": (550, 1800, 2500),
    "ae": (660, 1700, 2400),
    "aa": (720, 1100, 2450),
    "ao": (570, 850, 2400),
    "uw": (320, 900, 2250),
    "er": (490, 1350, 1700),
    "n": (280, 1300, 2300),
}
NOISES = {"s": (4500, 7500), "sh": (2200, 6000), "f": (1500, 7000), "t": (3000, 6500)}
WORDS = "she had your dark suit in greasy wash water all year never gave them milk for tea".split()


def seeded(*words):
    """A random generator that depends on words alone."""
    return np.random.default_rng(zlib.crc32("\0".join(map(str, words)).encode()))


def _resonate(signal, frequency, bandwidth):
    radius = np.exp(-np.pi * bandwidth / RATE)
    return lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], signal)


class Voice:
    """A speaker: a pitch and a length of the vocal tract drawn from the name; men begin with m."""

    def __init__(self, name):
        rng = seeded("voice", name)
        man = not name.startswith("f")
        self.pitch = rng.uniform(85, 140) if man else rng.uniform(170, 250)
        self.tract = rng.uniform(0.88, 1.0) if man else rng.uniform(1.05, 1.2)
        self.tilt = rng.uniform(0.75, 0.97)

    def _phone(self, phone, number, rng):
        if phone in NOISES:
            low, high = (frequency * self.tract for frequency in NOISES[phone])
            return 0.25 * _resonate(rng.standard_normal(number), (low + high) / 2, (high - low) / 2)
        if phone not in VOWELS:
            return np.zeros(number)
        pitch = self.pitch * rng.uniform(0.92, 1.08)
        phase = np.cumsum(np.full(number, pitch / RATE)) % 1.0
        source = lfilter([1], [1, -self.tilt], (np.diff(phase, prepend=1.0) < 0).astype(float))
        return (
            sum(_resonate(source, f * self.tract, 80 + 0.03 * f) for f in VOWELS[phone])
            * np.hanning(number) ** 0.3
        )

    def say(self, *words, seconds=2.0):
        """(samples (n,) int16, [(first sample, sample behind the last, phone)]), drawn by the words alone."""
        rng = seeded(*words)
        end, place, phones, parts = int(seconds * RATE), 0, [], []
        names = sorted(VOWELS) + sorted(NOISES)
        while place < end:
            last = end - place < min(0.17, 0.4 * seconds) * RATE
            name = "h#" if place == 0 or last else str(rng.choice(names))
            length = min(0.1, 0.2 * seconds) if place == 0 else rng.uniform(0.06, 0.16)
            number = end - place if last else min(int(RATE * length), end - place)
            parts.append(self._phone(name, number, rng))
            phones.append((place, place + number, name))
            place += number
        samples = np.concatenate(parts)
        samples = 8000 * samples / np.abs(samples).max() + 12 * rng.standard_normal(end)
        return np.clip(np.round(samples), -32768, 32767).astype(np.int16), phones


def sphere(samples, coding="", count=None, big_endian=False):
    """A NIST SPHERE file of samples (n,) int16; ``coding``, as of shorten, is in the header only."""
    fields = {
        "channel_count -i": 1,
        "sample_count -i": len(samples) if count is None else count,
        "sample_rate -i": RATE,
        "sample_n_bytes -i": 2,
        "sample_byte_format -s2": "10" if big_endian else "01",
        "sample_sig_bits -i": 16,
    }
    if coding:
        fields[f"sample_coding -s{len(coding)}"] = coding
    lines = ["NIST_1A", "   1024", *(f"{name} {value}" for name, value in fields.items()), "end_head"]
    header = "".join(f"{line}\n" for line in lines).encode().ljust(1024)
    return header + samples.astype(">i2" if big_endian else "<i2").tobytes()


def wav(samples):
    """A RIFF wav file of samples (n,) int16."""
    data = samples.astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    first = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16)
    return first + form + struct.pack("<4sI", b"data", len(data)) + data
