"""What test_fbank.py and test_mfcc.py share: golden commands and results, a computation by the book."""

import dataclasses
import functools
import wave

import kaldiio
import numpy as np
from helpers import golden


def read_wav(path):
    """Rate and samples of a mono 16-bit wav, by the standard library."""
    with wave.open(str(path)) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")


def golden_commands(program):
    """{name: arguments} of the golden files that Kaldi's ``program`` made; {} where they are absent."""
    if not golden().is_dir():
        return {}
    lines = [line.split() for line in open(golden("feat/COMMANDS"))]
    return {name: arguments for name, command, *arguments in lines if command == program}


def golden_scp(name):
    """{key: path} of one of the golden lists of audio."""
    return {key: golden(path) for key, path in (line.split() for line in open(golden(name)))}


@functools.lru_cache(maxsize=None)
def golden_matrices(name):
    """{key: matrix} of a golden archive."""
    return dict(kaldiio.load_ark(str(golden(f"feat/{name}.ark"))))


def parse_options(kind, arguments):
    """Options of the dataclass ``kind`` out of ``--name=value`` words; the others as {name: text}."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    known, others = {}, {}
    for word in arguments:
        if not word.startswith("--"):
            continue
        name, value = word[2:].split("=", 1)
        name = name.replace("-", "_")
        if name not in types:
            others[name] = value
        elif types[name] is bool:
            known[name] = value == "true"
        else:
            known[name] = types[name](value) if types[name] in (int, float) else value
    return kind(**known), others


def error_figures(ours, theirs):
    """Mean, 99.99th percentile and maximum of the absolute differences of two lists of matrices."""
    difference = np.concatenate([np.abs(a.astype(np.float64) - b).ravel() for a, b in zip(ours, theirs)])
    return difference.mean(), np.quantile(difference, 0.9999), difference.max()


def log_mel_by_the_book(samples, opts):
    """Mel energies and frame energies, frame by frame in float64 as the definition reads: (T, bins), (T,)."""
    x = np.asarray(samples, np.float64)
    shift = int(opts.sample_frequency * 0.001 * opts.frame_shift)
    length = int(opts.sample_frequency * 0.001 * opts.frame_length)
    padded = 2 ** int(np.ceil(np.log2(length))) if opts.round_to_power_of_two else length
    if opts.snip_edges:
        starts = [] if len(x) < length else [t * shift for t in range(1 + (len(x) - length) // shift)]
    else:
        starts = [t * shift + shift // 2 - length // 2 for t in range((len(x) + shift // 2) // shift)]
    a = 2 * np.pi / (length - 1)
    window = {
        "povey": lambda i: (0.5 - 0.5 * np.cos(a * i)) ** 0.85,
        "hamming": lambda i: 0.54 - 0.46 * np.cos(a * i),
        "hanning": lambda i: 0.5 - 0.5 * np.cos(a * i),
        "sine": lambda i: np.sin(a * i / 2),
        "rectangular": lambda i: 1.0,
        "blackman": lambda i: 0.42 - 0.5 * np.cos(a * i) + 0.08 * np.cos(2 * a * i),
    }[opts.window_type]
    nyquist = opts.sample_frequency / 2
    mel = lambda f: 1127.0 * np.log(1 + f / 700.0)  # noqa: E731 - as short as in the book
    low, high = mel(opts.low_freq), mel(opts.high_freq if opts.high_freq > 0 else nyquist + opts.high_freq)
    delta = (high - low) / (opts.num_mel_bins + 1)
    mels, energies = np.zeros((len(starts), opts.num_mel_bins)), np.zeros(len(starts))
    for t, start in enumerate(starts):
        frame = np.zeros(length)
        for i in range(length):
            index = start + i
            while not 0 <= index < len(x):
                index = -index - 1 if index < 0 else 2 * len(x) - 1 - index
            frame[i] = x[index]
        if opts.remove_dc_offset:
            frame -= frame.mean()
        energies[t] = np.sum(frame**2)
        previous = np.concatenate([frame[:1], frame[:-1]])
        frame = (frame - opts.preemphasis_coefficient * previous) * np.array(
            [window(i) for i in range(length)]
        )
        if not opts.raw_energy:
            energies[t] = np.sum(frame**2)
        spectrum = np.abs(np.fft.rfft(frame, padded))
        power = spectrum**2 if getattr(opts, "use_power", True) else spectrum
        for b in range(opts.num_mel_bins):
            left, centre, right = low + b * delta, low + (b + 1) * delta, low + (b + 2) * delta
            for k in range(padded // 2):
                m = mel(k * opts.sample_frequency / padded)
                if left < m <= centre:
                    mels[t, b] += (m - left) / (centre - left) * power[k]
                elif centre < m < right:
                    mels[t, b] += (right - m) / (right - centre) * power[k]
    return mels, energies
