"""FBANK: against real Kaldi's files, kaldi-native-fbank, a float64 computation and the definition itself."""

import kaldi_native_fbank as knf
import kaldiio
import numpy as np
import pytest
from feature_cases import (
    error_figures,
    golden_commands,
    golden_matrices,
    golden_scp,
    log_mel_by_the_book,
    parse_options,
    read_wav,
)
from helpers import golden, needs_golden, run
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankComputer, FbankOptions, fbank
from voxark.feat.frames import _GaussianNoise, dither_generator, first_sample, frame_samples, num_frames
from voxark.feat.frames import shift_samples
from voxark.feat.mel import BandedProduct, inverse_mel_scale, mel_scale, mel_weights, vtln_warp_frequency
from voxark.feat.resample import resample, to_rate

COMMANDS = golden_commands("compute-fbank-feats")
LOG_EPSILON = float(np.log(np.float32(np.finfo(np.float32).eps)))  # -15.9424
# Log-mel within 10 of the frame's maximum (within 5 for magnitudes): greatest difference from Kaldi's files
NEAR_MAXIMUM = {"fbank40_8k": 6e-4, "fbank40_down8k": 6e-4, "fbank40_submean": None}


def speech_like(number, seed=0, scale=1000.0):
    random = np.random.default_rng(seed)
    time = np.arange(number)
    return (scale * random.standard_normal(number) * (0.2 + np.abs(np.sin(time / 1500.0))) + 7.0).astype(
        np.int16
    )


def options(**settings):
    return FbankOptions(**{"dither": 0.0, **settings})


# ------------------------------------------------------------------------------------ golden files


@needs_golden
@pytest.mark.parametrize("name", COMMANDS)
def test_program_equals_kaldi(name, tmp_path):
    run("compute-fbank", *COMMANDS[name], f"ark:{tmp_path}/out.ark", cwd=golden())
    ours, kaldi = dict(kaldiio.load_ark(str(tmp_path / "out.ark"))), golden_matrices(name)
    assert list(ours) == list(kaldi)
    assert all(ours[key].dtype == np.float32 and ours[key].shape == kaldi[key].shape for key in kaldi)
    if name == "fbank40_linear":
        for key in kaldi:
            assert np.abs(ours[key] - kaldi[key]).max() <= 2e-5 * np.abs(kaldi[key]).max(), key
        return
    mean, percentile, maximum = error_figures(ours.values(), kaldi.values())
    assert mean < 5e-5 and percentile < 1.5e-2 and maximum < 0.15
    limit = NEAR_MAXIMUM.get(name, 2.5e-4)
    if limit is None:
        return
    span = 5.0 if name == "fbank40_magnitude" else 10.0
    for key in kaldi:
        near = kaldi[key] > kaldi[key].max(axis=1, keepdims=True) - span
        difference = np.abs(ours[key] - kaldi[key])[near]
        assert difference.max() < limit and difference.mean() < 1.5e-5, key


@needs_golden
@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in ("fbank40_linear", "fbank40_submean")]
)
def test_closer_to_float64_than_kaldi(name):
    opts, others = parse_options(FbankOptions, COMMANDS[name])
    warp = float(others.get("vtln_warp", 1.0))
    ours, exact, kaldi, ours_near, kaldi_near = [], [], [], [], []
    for key, path in golden_scp(COMMANDS[name][-1].removeprefix("scp:")).items():
        rate, samples = read_wav(path)
        samples = to_rate(samples, rate, opts)
        ours.append(FbankComputer(opts)(samples, warp))
        exact.append(FbankComputer(opts, np.float64)(samples, warp))
        kaldi.append(golden_matrices(name)[key])
        near = exact[-1] > exact[-1].max(axis=1, keepdims=True) - 10.0
        ours_near.append(np.abs(ours[-1] - exact[-1])[near])
        kaldi_near.append(np.abs(kaldi[-1] - exact[-1])[near])
    assert error_figures(ours, exact)[0] < error_figures(kaldi, exact)[0]
    if name != "fbank40_magnitude":  # there 10 below the maximum is as deep as 20 in power
        ours_near, kaldi_near = np.concatenate(ours_near), np.concatenate(kaldi_near)
        assert ours_near.mean() < 0.5 * kaldi_near.mean() and ours_near.max() < kaldi_near.max()
        assert ours_near.max() < 1e-4


# ------------------------------------------------------------------------------------ the definition


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"snip_edges": False},
        {"window_type": "hamming", "remove_dc_offset": False},
        {"window_type": "rectangular"},
        {"window_type": "blackman", "preemphasis_coefficient": 0.0},
        {"use_power": False, "window_type": "sine"},
        {"use_energy": True, "raw_energy": False, "window_type": "hanning"},
        {"use_energy": True, "htk_compat": True},
        {"round_to_power_of_two": False, "frame_length": 26.0, "frame_shift": 13.0},
        {"high_freq": -500.0, "low_freq": 100.0},
        {"sample_frequency": 11025.0, "frame_shift": 7.0},
        {"frame_shift": 31.0},
    ],
)
def test_equals_definition(settings):
    opts = options(num_mel_bins=15, **settings)
    samples = speech_like(1700)
    mels, energies = log_mel_by_the_book(samples, opts)
    expected = np.log(np.maximum(mels, np.finfo(np.float32).eps))
    if opts.use_energy:
        energy = np.log(energies)[:, None]
        expected = np.hstack([expected, energy] if opts.htk_compat else [energy, expected])
    assert len(expected) >= 3
    np.testing.assert_allclose(FbankComputer(opts, np.float64)(samples), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(FbankComputer(opts)(samples), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_energy": True},
        {"use_energy": True, "raw_energy": False},
        {"preemphasis_coefficient": 0.0},
        {"remove_dc_offset": False},
    ],
)
def test_dithered_path_equals_the_plain_one(settings):
    samples = speech_like(5000)
    plain = FbankComputer(options(window_type="hamming", **settings), np.float64)(samples)
    dithered = FbankComputer(options(window_type="hamming", **{**settings, "dither": 1e-30}), np.float64)(
        samples
    )
    np.testing.assert_allclose(dithered, plain, rtol=0, atol=1e-8)


def test_silence_is_the_floor_exactly():
    assert (fbank(np.zeros(16000, np.int16), 16000, options()) == np.float32(LOG_EPSILON)).all()


@pytest.mark.parametrize("level", [1, -7, 1000, 32767, -32768])
@pytest.mark.parametrize("window", ["povey", "hamming"])
def test_constant_signal_is_silence(level, window):
    features = fbank(np.full(8000, level, np.int16), 16000, options(window_type=window, use_energy=True))
    assert (features == np.float32(LOG_EPSILON)).all()


def test_constant_stretches_of_any_level_are_silence():
    samples = np.concatenate(
        [np.full(4000, 12345), speech_like(4000), np.full(4000, -777), speech_like(4000, 1)]
    )
    features = fbank(samples.astype(np.int16), 16000, options())
    assert (features[:20] == np.float32(LOG_EPSILON)).all() and (
        features[51:70] == np.float32(LOG_EPSILON)
    ).all()


def test_large_offset_costs_no_precision():
    samples = np.clip(speech_like(16000, scale=30.0), -2000, 2000)
    plain, shifted = (
        FbankComputer(options(use_energy=True))(x) for x in (samples, (samples + 30000).astype(np.int16))
    )
    np.testing.assert_allclose(shifted, plain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3, 50, 100])
@pytest.mark.parametrize("snip_edges", [True, False])
def test_blocks_do_not_show(rows, snip_edges):
    samples = speech_like(16000 * 7)
    opts = options(snip_edges=snip_edges, use_energy=True)
    whole = FbankComputer(opts, np.float64, max_rows=2000)(samples)
    np.testing.assert_allclose(
        FbankComputer(opts, np.float64, max_rows=rows)(samples), whole, rtol=0, atol=1e-9
    )


def test_both_transforms_agree():
    samples = speech_like(16000)
    for dtype, limit in ((np.float32, 2e-3), (np.float64, 1e-9)):
        a, b = (
            FbankComputer(options(num_mel_bins=80), dtype, fft=name)(samples) for name in ("ducc0", "scipy")
        )
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=limit)


def test_float_samples_and_views():
    samples = speech_like(8000)
    expected = fbank(samples, 16000, options())
    stereo = np.stack([samples, samples[::-1]], axis=1)
    assert (fbank(stereo[:, 0], 16000, options()) == expected).all()
    np.testing.assert_allclose(
        fbank(samples.astype(np.float32), 16000, options()), expected, rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(fbank(samples.tolist(), 16000, options()), expected, rtol=0, atol=1e-4)


def test_computer_can_be_used_again_after_an_error():
    computer = FbankComputer(options())
    expected = computer(speech_like(4000))
    bad = speech_like(4000).astype(np.float32)
    for value in (np.nan, np.inf, 1e30):
        bad[2000] = value
        with pytest.raises(VoxarkError, match="NaN"):
            computer(bad)
    assert (computer(speech_like(4000)) == expected).all()


# ------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize(
    "snip_edges, counts", [(True, [0, 0, 0, 1, 1, 1, 2]), (False, [0, 0, 2, 3, 3, 3, 4])]
)
def test_number_of_frames(snip_edges, counts):
    opts = options(snip_edges=snip_edges)
    for number, count in zip([0, 1, 399, 400, 401, 559, 560], counts):
        assert num_frames(number, opts) == count
        assert fbank(np.zeros(number, np.int16), 16000, opts).shape == (count, 23)


def test_lengths_in_samples_are_rounded_down():
    opts = options(sample_frequency=22050.0)
    assert (shift_samples(opts), frame_samples(opts)) == (220, 551)
    assert first_sample(0, options(snip_edges=False)) == 80 - 200


def peer_features(samples, opts):
    theirs = knf.FbankOptions()
    for name, value in (
        ("samp_freq", opts.sample_frequency),
        ("dither", 0.0),
        ("window_type", opts.window_type),
        ("snip_edges", opts.snip_edges),
    ):
        setattr(theirs.frame_opts, name, value)
    theirs.mel_opts.num_bins = opts.num_mel_bins
    computer = knf.OnlineFbank(theirs)
    computer.accept_waveform(opts.sample_frequency, samples.astype(np.float32))
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.array(frames).reshape(len(frames), opts.num_mel_bins)


@pytest.mark.parametrize("window", ["povey", "hamming", "hanning", "sine", "rectangular", "blackman"])
@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_equals_kaldi_native_fbank(window, snip_edges, rate):
    opts = options(sample_frequency=float(rate), window_type=window, snip_edges=snip_edges, num_mel_bins=40)
    samples = speech_like(2 * rate + 123)
    ours, theirs = fbank(samples, rate, opts), peer_features(samples, opts)
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs)
    assert difference.mean() < 5e-5 and difference.max() < 1.5e-2


@given(
    number=st.one_of(st.sampled_from([1, 79, 80, 399, 400, 401, 559, 560]), st.integers(1, 4000)),
    snip_edges=st.booleans(),
    rate=st.sampled_from([8000, 16000]),
)
def test_frame_counts_equal_the_peer(number, snip_edges, rate):
    opts = options(sample_frequency=float(rate), snip_edges=snip_edges)
    samples = speech_like(number)
    ours, theirs = fbank(samples, rate, opts), peer_features(samples, opts)
    assert ours.shape == theirs.shape
    if len(ours):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1.5e-2)


# ------------------------------------------------------------------------------------ mel, VTLN, rates


def test_mel_scale_inverts():
    frequencies = np.linspace(0, 8000, 50)
    np.testing.assert_allclose(inverse_mel_scale(mel_scale(frequencies)), frequencies, rtol=1e-12, atol=1e-9)
    assert mel_scale(1000.0) == pytest.approx(1127 * np.log(1 + 1000 / 700))


@pytest.mark.parametrize("warp", [0.8, 0.9, 1.0, 1.2])
def test_warp_is_continuous_monotonic_and_keeps_the_cutoffs(warp):
    opts = options(vtln_low=100.0, vtln_high=-500.0)
    frequencies = np.linspace(20, 8000, 20001)
    warped = vtln_warp_frequency(frequencies, warp, opts)
    steps = np.diff(warped)
    assert steps.min() > 0 and steps.max() < 10 * 0.4
    np.testing.assert_allclose(warped[[0, -1]], [20, 8000])
    middle = (frequencies > 100 * max(1, warp)) & (frequencies < 7500 * min(1, warp))
    np.testing.assert_allclose(warped[middle], frequencies[middle] / warp)
    assert vtln_warp_frequency(10.0, warp, opts) == 10.0


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("bins", [3, 23, 80])
def test_banded_product_equals_the_dense_one(bins, repeat):
    weights = mel_weights(options(num_mel_bins=bins))
    spectra = np.random.default_rng(0).random((7, 257 * repeat))
    out = np.empty((7, bins))
    BandedProduct(weights, np.float64, repeat)(spectra, out)
    np.testing.assert_allclose(
        out, spectra[:, : 256 * repeat] @ np.repeat(weights, repeat, axis=1).T, rtol=1e-12
    )


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_mel_bins": 2}, "at least 3"),
        ({"num_mel_bins": 200}, "contains no line"),
        ({"high_freq": 9000.0}, "half of"),
        ({"low_freq": 5000.0, "high_freq": 400.0}, "--low-freq"),
        ({"frame_shift": 0.01}, "--frame-shift"),
        ({"preemphasis_coefficient": 1.5}, "--preemphasis-coefficient"),
        ({"dither": -1.0}, "--dither"),
        ({"sample_frequency": 0.0}, "--sample-frequency"),
        ({"round_to_power_of_two": False, "frame_length": 24.95}, "even"),
    ],
)
def test_wrong_options(settings, words):
    with pytest.raises(VoxarkError, match=words):
        FbankComputer(options(**settings))


def test_wrong_warp_factor():
    with pytest.raises(VoxarkError, match="--vtln-high"):
        FbankComputer(options(vtln_low=10.0))(speech_like(4000), warp=1.1)


def test_resampling_keeps_a_tone_and_removes_what_aliases():
    time = np.arange(16000) / 16000
    low = resample(1000 * np.sin(2 * np.pi * 440 * time), 16000, 8000)
    np.testing.assert_allclose(low[50:-50], 1000 * np.sin(2 * np.pi * 440 * time[::2])[50:-50], atol=1.0)
    assert np.abs(resample(1000 * np.sin(2 * np.pi * 5000 * time), 16000, 8000)[50:-50]).max() < 20.0
    up = resample(1000 * np.sin(2 * np.pi * 440 * time[:8000]), 16000, 44100)
    expected = 1000 * np.sin(2 * np.pi * 440 * np.arange(len(up)) / 44100)
    np.testing.assert_allclose(up[100:-100], expected[100:-100], atol=1.0)


@given(
    number=st.integers(0, 300),
    rates=st.sampled_from([(16000, 8000), (8000, 16000), (44100, 16000), (16000, 11025)]),
)
def test_resampling_equals_the_sum_over_all_samples(number, rates):
    rate_in, rate_out = rates
    x = np.random.default_rng(number).standard_normal(number)
    y = resample(x, rate_in, rate_out)
    assert len(y) == -(-number * rate_out // rate_in)
    cutoff = 0.99 * 0.5 * min(rates)
    for i in range(0, len(y), 17):
        t = np.arange(number) / rate_in - i / rate_out
        window = np.where(np.abs(t) < 3 / cutoff, 0.5 + 0.5 * np.cos(2 * np.pi * cutoff * t / 6), 0)
        filtered = window * 2 * cutoff * np.sinc(2 * cutoff * t) / rate_in
        assert y[i] == pytest.approx(np.sum(filtered * x), abs=1e-5)


@pytest.mark.parametrize("rate, option", [(16000, "--allow-downsample"), (4000, "--allow-upsample")])
def test_another_rate_is_an_error_unless_allowed(rate, option):
    opts = options(sample_frequency=8000.0)
    with pytest.raises(VoxarkError, match=f"--sample-frequency.*{option}"):
        fbank(speech_like(4000), rate, opts)
    allowed = options(sample_frequency=8000.0, allow_downsample=True, allow_upsample=True)
    assert len(fbank(speech_like(rate), rate, allowed)) == 98


# ------------------------------------------------------------------------------------ dither


def test_dither_has_its_scale_and_differs_between_overlapping_frames():
    computer = FbankComputer(
        options(dither=3.0, use_energy=True, frame_length=25.0, preemphasis_coefficient=0.0)
    )
    energy = np.exp(computer(np.zeros(160000, np.int16), key="a")[:, 0])
    assert energy.mean() == pytest.approx(399 * 9.0, rel=0.01)
    # were the noise part of the signal, frames would share 240 of their 400 samples
    assert abs(np.corrcoef(energy[:-1], energy[1:])[0, 1]) < 0.15


@pytest.mark.parametrize("length", [399, 400])
def test_noise_is_gaussian_and_white(length):
    noise, generator = _GaussianNoise(50, length), dither_generator("a")
    values = np.concatenate([noise(generator, 1 + i % 50, 2.0).flatten() for i in range(200)])
    values = values.astype(np.float64) / 2.0
    assert kstest(values, "norm").pvalue > 0.01
    for lag in (1, 2, length, len(values) // 2):
        assert abs(np.mean(values[lag:] * values[:-lag])) < 4.5 / np.sqrt(len(values) - lag)


def test_dither_depends_on_key_and_seed_alone():
    samples = speech_like(160000, scale=3.0)

    def compute(key="a", srand=0):
        return FbankComputer(options(dither=1.0, srand=srand))(samples, key=key)

    first = compute()
    computer = FbankComputer(options(dither=1.0))
    computer(samples, key="z")
    assert (computer(samples, key="a") == first).all()
    assert np.abs(compute(key="b") - first).mean() > 0.01
    assert np.abs(compute(srand=1) - first).mean() > 0.01


@needs_golden
def test_program_dither_does_not_depend_on_the_order_of_files(tmp_path):
    lines = [f"{key} {path}\n" for key, path in list(golden_scp("wav16.scp").items())[:3]]
    (tmp_path / "a.scp").write_text("".join(lines))
    (tmp_path / "b.scp").write_text("".join(lines[1:]))
    for name in "ab":
        run("compute-fbank", f"scp:{tmp_path}/{name}.scp", f"ark:{tmp_path}/{name}.ark")
    a, b = (dict(kaldiio.load_ark(f"{tmp_path}/{name}.ark")) for name in "ab")
    assert len(b) == 2 and all((a[key] == b[key]).all() for key in b)


# ------------------------------------------------------------------------------------ the program


@needs_golden
def test_program_other_outputs(tmp_path):
    keys = list(golden_scp("wav8.scp"))
    run(
        "compute-fbank",
        "--sample-frequency=8000",
        "--write-utt2dur=ark,t:" + str(tmp_path / "dur"),
        "--dither=0",
        f"--write-num-frames=ark,t:{tmp_path}/frames",
        "--compress=true",
        "--compression-method=2",
        "--num-mel-bins=40",
        "scp:wav8.scp",
        f"ark:{tmp_path}/out.ark",
        cwd=golden(),
    )
    expected = golden_matrices("fbank40_8k")
    compressed = dict(kaldiio.load_ark(str(tmp_path / "out.ark")))
    durations = dict(line.split() for line in open(tmp_path / "dur"))
    frames = dict(line.split() for line in open(tmp_path / "frames"))
    for key, path in golden_scp("wav8.scp").items():
        assert int(frames[key]) == len(expected[key])
        assert float(durations[key]) == pytest.approx(len(read_wav(path)[1]) / 8000, rel=1e-6)
        assert 0 < np.abs(compressed[key] - expected[key]).max() < 0.3
    assert sorted(durations) == sorted(keys)


@needs_golden
def test_program_writes_htk(tmp_path):
    run(
        "compute-fbank",
        "--sample-frequency=8000",
        "--dither=0",
        "--num-mel-bins=40",
        "--output-format=htk",
        "scp:wav8.scp",
        f"ark:{tmp_path}/out.ark",
        cwd=golden(),
    )
    data = (tmp_path / "out.ark").read_bytes()
    for key, expected in golden_matrices("fbank40_8k").items():
        assert data.startswith(key.encode() + b" ")
        data = data[len(key) + 1 :]
        header = np.frombuffer(data[:12], ">i4,>i4,>i2,>u2")[0]
        assert header.tolist() == (len(expected), 100000, 160, 7 | 0o20000)
        values = np.frombuffer(data, ">f4", expected.size, 12).reshape(expected.shape)
        assert np.abs(values - expected).mean() < 5e-5
        data = data[12 + values.nbytes :]
    assert not data


@needs_golden
def test_program_vtln_map_by_speaker(tmp_path):
    utts = list(golden_scp("wav16.scp"))[:3]
    (tmp_path / "wav.scp").write_text("".join(f"{utt} {golden_scp('wav16.scp')[utt]}\n" for utt in utts))
    (tmp_path / "utt2spk").write_text(f"{utts[0]} A\n{utts[1]} B\n")
    (tmp_path / "warps").write_text("A 1.1\nB 1\n")
    result = run(
        "compute-fbank",
        "--dither=0",
        "--num-mel-bins=40",
        "--vtln-low=60",
        "--vtln-high=-400",
        f"--vtln-map=ark:{tmp_path}/warps",
        f"--utt2spk=ark:{tmp_path}/utt2spk",
        f"scp:{tmp_path}/wav.scp",
        f"ark:{tmp_path}/out.ark",
    )
    ours = dict(kaldiio.load_ark(str(tmp_path / "out.ark")))
    assert list(ours) == utts[:2] and "done 2, failed 1" in result.stderr and utts[2] in result.stderr
    assert np.abs(ours[utts[0]] - golden_matrices("fbank40_vtln")[utts[0]]).mean() < 5e-5
    assert np.abs(ours[utts[1]] - golden_matrices("fbank40_vtln")[utts[1]]).mean() > 1e-2
