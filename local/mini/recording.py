"""What lies between a mouth and a file: room, noise and microphone of one recording, drawn at random.

Every array is mono at ``RATE`` Hz. Each function takes its random numbers from the generator it is given.
"""

from dataclasses import dataclass

import numpy as np

RATE = 16000
NOISES = ("clean", "white", "pink", "babble", "hum", "car")
MICS = ("studio", "headset", "laptop", "handset")
ROOMS = ("dry", "booth", "office", "hall")

_SNR_RANGE_DB = (10.0, 27.0)
_SENSOR_SNR_DB = (
    45.0  # a clean recording still has the microphone's own noise, so that no frame is exactly zero
)
_NUM_BABBLERS = 6
# (shortest, longest) time to decay by 60 dB in s, (least, most) direct-to-reverberant ratio in dB
_REVERBERATION = {
    "booth": ((0.08, 0.15), (12.0, 18.0)),
    "office": ((0.25, 0.45), (4.0, 10.0)),
    "hall": ((0.6, 1.0), (1.0, 6.0)),
}


@dataclass
class Conditions:
    """The true labels of one recording; snr_db is speech against noise, before the microphone."""

    mic: str
    room: str
    noise: str
    snr_db: float
    level_db: float


def draw_conditions(rng):
    """Draw microphone, room, noise type, signal-to-noise ratio and level of one recording, independently."""
    mic, room, noise = (str(rng.choice(names)) for names in (MICS, ROOMS, NOISES))
    snr = _SENSOR_SNR_DB if noise == "clean" else float(rng.uniform(*_SNR_RANGE_DB))
    return Conditions(mic, room, noise, round(snr, 1), round(float(rng.uniform(-27.0, -23.0)), 1))


def record(speech, active, conditions, babblers, rng):
    """Pass dry speech (N,) through the conditions: int16 (N,).

    active: (N,) bool, the samples where somebody speaks; levels are measured there alone. babblers: arrays of
    other people's speech. The direct sound keeps its place in time, so labels of the dry speech stay true.
    """
    wet = _reverberate(speech, conditions.room, rng)
    noise = _make_noise(len(speech), conditions.noise, babblers, rng)
    gain = _rms(wet[active]) / _rms(noise) * 10 ** (-conditions.snr_db / 20)
    heard = _through_microphone(wet + gain * noise, conditions.mic, rng)
    scale = 10 ** (conditions.level_db / 20) / _rms(heard[active])
    scale = min(scale, 0.98 / np.abs(heard).max())  # never clip
    return np.round(32767 * scale * heard).astype(np.int16)


def _rms(x):
    return np.sqrt(np.mean(np.square(x))) + 1e-12


def _reverberate(speech, room, rng):
    """Convolve with a direct path and an exponentially decaying tail of Gaussian noise."""
    if room == "dry":
        return speech
    from scipy.signal import oaconvolve

    decay_times, ratios = _REVERBERATION[room]
    decay_time, ratio_db = rng.uniform(*decay_times), rng.uniform(*ratios)
    time = np.arange(int(RATE * decay_time)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3.0 * time / decay_time)  # 60 dB down at decay_time
    tail[: int(RATE * rng.uniform(0.002, 0.008))] = 0.0  # nothing comes back before the first wall
    tail *= 10 ** (-ratio_db / 20) / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1.0
    return oaconvolve(speech, tail)[: len(speech)]


def _shaped_noise(length, exponent, rng):
    """Gaussian noise whose power falls as frequency ** -exponent above 60 Hz and is flat below."""
    fast_length = 1 << (length - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(fast_length))
    frequency = np.maximum(np.fft.rfftfreq(fast_length, 1 / RATE), 60.0)
    return np.fft.irfft(spectrum * frequency ** (-exponent / 2), fast_length)[:length]


def _make_noise(length, name, babblers, rng):
    """Noise of one type, (length,), at any level."""
    if name in ("clean", "white"):
        return rng.standard_normal(length)
    if name == "pink":
        return _shaped_noise(length, 1.0, rng)
    if name == "car":
        return _shaped_noise(length, 2.0, rng)
    if name == "hum":
        base = float(rng.choice([50.0, 60.0])) * rng.uniform(0.998, 1.002)
        harmonics = np.arange(1, 20)
        phases = (
            2
            * np.pi
            * (np.outer(np.arange(length) / RATE, base * harmonics) + rng.uniform(size=len(harmonics)))
        )
        tone = np.sin(phases) @ (rng.uniform(0.3, 1.0, len(harmonics)) / np.sqrt(harmonics))
        return tone + 0.05 * rng.standard_normal(length)
    if name == "babble":
        crowd = rng.choice(len(babblers), _NUM_BABBLERS, replace=len(babblers) < _NUM_BABBLERS)
        voices = [np.roll(babblers[i], -int(rng.integers(len(babblers[i])))) for i in crowd]
        return sum(np.resize(v, length) / _rms(v) * 10 ** (rng.uniform(-6, 0) / 20) for v in voices)
    raise ValueError(f"no noise is called {name}")


def _peak(frequency, gain_db, quality):
    """Second-order section of a peaking equaliser (R. Bristow-Johnson's audio cookbook)."""
    a, w = 10 ** (gain_db / 40), 2 * np.pi * frequency / RATE
    alpha = np.sin(w) / (2 * quality)
    numerator = np.array([1 + alpha * a, -2 * np.cos(w), 1 - alpha * a])
    denominator = np.array([1 + alpha / a, -2 * np.cos(w), 1 - alpha / a])
    return np.concatenate([numerator, denominator])[np.newaxis] / denominator[0]


def _through_microphone(x, name, rng):
    """Filter by one of four microphones; each recording's corner frequencies lie within 8 % of the type's."""
    from scipy.signal import butter, sosfilt

    def near(frequency):
        return frequency * rng.uniform(0.92, 1.08)

    if name == "studio":
        sections = [butter(2, near(60), "highpass", fs=RATE, output="sos")]
    elif name == "headset":
        sections = [butter(2, near(130), "highpass", fs=RATE, output="sos"), _peak(near(3000), 4.0, 1.0)]
    elif name == "laptop":
        sections = [
            butter(2, near(220), "highpass", fs=RATE, output="sos"),
            _peak(near(1100), 4.0, 1.5),
            butter(2, near(6000), "lowpass", fs=RATE, output="sos"),
        ]
    elif name == "handset":
        sections = [butter(1, [near(300), near(3400)], "bandpass", fs=RATE, output="sos")]
    else:
        raise ValueError(f"no microphone is called {name}")
    return sosfilt(np.concatenate(sections), x)
