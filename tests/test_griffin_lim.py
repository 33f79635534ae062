"""Waveforms from features: mel inversion, least squares over frames, features of the result, odd input."""

import numpy as np
import pytest

from helpers import needs_data, shared_data
from voxark.audio import read_audio
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions, fbank
from voxark.feat.frames import num_frames
from voxark.feat.griffin_lim import (
    FrameSum, GriffinLimOptions, WaveformComputer, griffin_lim, mel_to_power, undo_preemphasis)
from voxark.feat.mel import mel_weights


def options(rate=16000, bins=80, **others):
    return FbankOptions(sample_frequency=float(rate), num_mel_bins=bins, dither=0.0, **others)


def voiced(seconds=1.0, rate=16000, seed=0):
    """Harmonics of a gliding pitch under moving formants, with a pause and noise: a made-up utterance."""
    rng, n = np.random.default_rng(seed), int(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120.0 + 40.0 * np.sin(2.0 * np.pi * t)
    phase = 2.0 * np.pi * np.cumsum(pitch) / rate
    x = np.zeros(n)
    for harmonic in range(1, int(0.45 * rate / 160.0)):
        formants = 600.0 + 200.0 * np.cos(7 * t), 2300.0
        height = sum(np.exp(-(((harmonic * pitch - formant) / 250.0) ** 2)) for formant in formants)
        x += (height + 0.01) * np.sin(harmonic * phase)
    envelope = np.where(np.sin(2.0 * np.pi * 3.0 * t) > -0.7, 1.0, 0.02)
    return (2000.0 * x * envelope + 20.0 * rng.standard_normal(n)).astype(np.float32)


def there_and_back(samples, opts, iterations=60, key="a"):
    feats = fbank(samples, opts.sample_frequency, opts)
    wave = WaveformComputer(opts, GriffinLimOptions(wav_iterations=iterations))(feats, key)
    return feats, wave, fbank(wave, opts.sample_frequency, opts)


def energy_in_db(wave, samples):
    x = samples[: len(wave)].astype(np.float64)
    return 10.0 * np.log10(np.sum(wave.astype(np.float64) ** 2) / np.sum((x - x.mean()) ** 2))


# ----------------------------------------------------------------------------------------------------- pieces


def test_the_mel_inversion_is_not_negative_and_gives_the_mel_energies_again():
    opts = options()
    weights = mel_weights(opts)
    mel = np.exp(fbank(voiced(), 16000, opts).astype(np.float64))
    power = mel_to_power(mel, weights, 200)
    assert power.min() >= 0.0 and np.all(power[:, weights.sum(axis=0) == 0] == 0.0)
    error = np.abs(np.log(power @ weights.T) - np.log(mel))
    assert np.mean(error) < 0.02

    def divergence(updates):
        model = mel_to_power(mel, weights, updates) @ weights.T
        return np.sum(mel * np.log(mel / model) - mel + model)

    values = [divergence(n) for n in (0, 1, 2, 5, 20)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.1 * values[0]


def test_mel_energies_of_zero_stay_zero():
    power = mel_to_power(np.zeros((3, 80)), mel_weights(options()))
    assert power.shape == (3, 256) and not power.any()


def test_overlap_add_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    window, shift, number = np.hanning(12)[1:-1], 4, 6
    frames = FrameSum(window, shift, number)
    given = rng.standard_normal((number, 10)).astype(np.float32)
    matrix = np.zeros((number * 10, frames.num_samples))
    for t in range(number):
        matrix[t * 10 + np.arange(10), t * shift + np.arange(10)] = window
    wanted = np.linalg.lstsq(matrix, given.ravel(), rcond=None)[0]
    inner = slice(2, -2)  # the ends are faded
    np.testing.assert_allclose(frames.join(given)[inner], wanted[inner], atol=1e-5)
    signal = rng.standard_normal(frames.num_samples).astype(np.float32)
    np.testing.assert_allclose(frames.cut(signal), (matrix @ signal).reshape(number, 10), atol=1e-6)
    np.testing.assert_allclose(frames.join(frames.cut(signal))[inner], signal[inner], atol=1e-5)


def test_more_iterations_come_nearer_to_the_magnitudes():
    window = np.hanning(402)[1:-1]
    frames = FrameSum(window, 160, 60)
    signal = voiced(seconds=1.0)[: frames.num_samples]
    magnitude = np.abs(np.fft.rfft(frames.cut(signal), 512, axis=1)).astype(np.float32)

    def distance(iterations, momentum=0.99):
        _, power = griffin_lim(magnitude, window, 160, np.random.default_rng(2), iterations, momentum)
        return np.linalg.norm(np.sqrt(power) - magnitude) / np.linalg.norm(magnitude)

    first, plain, fast = distance(1), distance(50, 0.0), distance(50)
    assert first > plain > fast and fast < 0.2


def test_preemphasis_is_undone():
    x = np.random.default_rng(0).standard_normal(3000)
    for a in (0.0, 0.5, 0.97):
        y = np.concatenate((x[:1], x[1:] - a * x[:-1]))
        back = undo_preemphasis(y, a, 16000, 0.0)
        error = back - x
        assert len(back) == len(x) and np.abs(error - error.mean()).max() < 1e-9  # a constant is left open


def test_what_lies_below_the_mel_bins_is_left_out():
    t = np.arange(16000) / 16000
    slow, fast = np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 500 * t)
    window = np.hanning(16000)
    left = undo_preemphasis((slow + fast) * window, 0.0, 16000, 20.0)
    np.testing.assert_allclose(left, fast * window, atol=1e-3)


# ------------------------------------------------------------------------------------------- whole utterances


@pytest.mark.parametrize("rate, bins", [(16000, 80), (8000, 40)])
def test_features_of_the_waveform_are_the_features(rate, bins):
    samples = voiced(rate=rate)
    feats, wave, again = there_and_back(samples, options(rate, bins))
    assert again.shape == feats.shape and wave.dtype == np.float32
    difference = np.abs(again - feats)
    assert difference.mean() < 0.15 and np.quantile(difference, 0.9) < 0.4
    assert abs(energy_in_db(wave, samples)) < 0.5


@pytest.mark.parametrize("others", [
    {"use_power": False}, {"preemphasis_coefficient": 0.0}, {"preemphasis_coefficient": 1.0},
    {"window_type": "hamming"}, {"snip_edges": False}, {"use_energy": True},
    {"use_energy": True, "htk_compat": True}, {"use_log_fbank": False}, {"round_to_power_of_two": False},
    {"frame_length": 32.0, "frame_shift": 8.0}, {"low_freq": 0.0, "remove_dc_offset": False},
    {"high_freq": -400.0},
])  # fmt: skip
def test_options_of_the_features_are_undone(others):
    samples = voiced(seconds=0.6)
    opts = options(bins=60, **others)
    feats, wave, again = there_and_back(samples, opts)
    assert again.shape == feats.shape
    if not opts.use_log_fbank:
        feats, again = np.log(feats), np.log(again)
    assert np.abs(again - feats).mean() < 0.2
    assert abs(energy_in_db(wave, samples)) < 0.7


@needs_data("timit_sample")
def test_recorded_speech():
    name = shared_data("timit_sample/wav/faem0/faem0-sa1.flac")
    rate, samples = read_audio(name.read_bytes(), str(name))
    feats, wave, again = there_and_back(samples, options(rate), iterations=100)
    difference = np.abs(again - feats)
    assert difference.mean() < 0.12 and np.median(difference) < 0.02
    assert abs(energy_in_db(wave, samples)) < 0.2


def test_the_same_key_and_seed_give_the_same_bytes_and_others_do_not():
    opts = options()
    feats = fbank(voiced(0.3), 16000, opts)
    computer = WaveformComputer(opts, GriffinLimOptions(wav_iterations=10))
    first = computer(feats, "a").tobytes()
    assert computer(feats, "a").tobytes() == first
    assert computer(feats, "b").tobytes() != first
    other_seed = WaveformComputer(opts, GriffinLimOptions(wav_iterations=10, wav_seed=1))
    assert other_seed(feats, "a").tobytes() != first


@pytest.mark.filterwarnings("error")
def test_silence_stays_silent():
    feats, wave, again = there_and_back(np.zeros(8000, np.float32), options(), 10)
    assert np.abs(wave).max() < 0.01
    assert np.all(np.isfinite(again))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("snip_edges", [True, False])
def test_very_short_features(number, snip_edges):
    opts = options(snip_edges=snip_edges)
    feats = fbank(voiced(0.3), 16000, opts)[5 : 5 + number]
    wave = WaveformComputer(opts, GriffinLimOptions(wav_iterations=20))(feats)
    assert num_frames(len(wave), opts) == number and np.all(np.isfinite(wave)) and wave.any()


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("feats, message", [
    (np.zeros((5, 40)), "features of 40 dimensions"),
    (np.zeros((0, 80)), "no frames"),
    (np.full((5, 80), np.nan), "features"),
    (np.full((5, 80), 90.0), "log mel energy of 90"),
])  # fmt: skip
def test_what_cannot_be_features_is_refused(feats, message):
    with pytest.raises(VoxarkError, match=message):
        WaveformComputer(options())(feats)


@pytest.mark.parametrize("wrong", [{"wav_iterations": 0}, {"wav_momentum": 1.0}, {"wav_momentum": -0.1}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(VoxarkError, match="--wav-(iterations|momentum)="):
        WaveformComputer(options(), GriffinLimOptions(**wrong))
