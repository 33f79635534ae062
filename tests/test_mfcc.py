"""MFCC: against real Kaldi's files, kaldi-native-fbank, a float64 computation and the definition itself."""

import kaldi_native_fbank as knf
import kaldiio
import numpy as np
import pytest
import scipy.fft
from feature_cases import (
    error_figures,
    golden_commands,
    golden_matrices,
    golden_scp,
    log_mel_by_the_book,
    parse_options,
    read_wav,
)
from helpers import ROOT, golden, needs_golden, run

from voxark.errors import VoxarkError
from voxark.feat.mfcc import MfccComputer, MfccOptions, dct_matrix, lifter, mfcc

COMMANDS = golden_commands("compute-mfcc-feats")


def options(**settings):
    return MfccOptions(**{"dither": 0.0, **settings})


def noise(number, seed=0):
    return (1000.0 * np.random.default_rng(seed).standard_normal(number)).astype(np.int16)


@needs_golden
@pytest.mark.parametrize("name", COMMANDS)
def test_program_equals_kaldi(name, tmp_path):
    run("compute-mfcc", *COMMANDS[name], f"ark:{tmp_path}/out.ark", cwd=golden())
    ours, kaldi = dict(kaldiio.load_ark(str(tmp_path / "out.ark"))), golden_matrices(name)
    assert list(ours) == list(kaldi)
    assert all(ours[key].dtype == np.float32 and ours[key].shape == kaldi[key].shape for key in kaldi)
    # the lifter multiplies the differences of log-mel by up to 12
    mean, percentile, maximum = error_figures(ours.values(), kaldi.values())
    assert mean < 1.5e-4 and percentile < 2.5e-2 and maximum < 0.15
    loud = [key for key in kaldi if key.startswith(("0036", "1092", "8584", "syn-noise", "syn-clip"))]
    mean, _, maximum = error_figures([ours[key] for key in loud], [kaldi[key] for key in loud])
    assert mean < 1e-4 and maximum < 5e-3


@needs_golden
@pytest.mark.parametrize("name", COMMANDS)
def test_closer_to_float64_than_kaldi(name):
    opts, _ = parse_options(MfccOptions, COMMANDS[name])
    ours, exact, kaldi = [], [], []
    for key, path in golden_scp("wav16.scp").items():
        samples = read_wav(path)[1]
        ours.append(MfccComputer(opts)(samples))
        exact.append(MfccComputer(opts, np.float64)(samples))
        kaldi.append(golden_matrices(name)[key])
    assert error_figures(ours, exact)[0] < error_figures(kaldi, exact)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_energy": False},
        {"cepstral_lifter": 0.0},
        {"htk_compat": True},
        {"htk_compat": True, "use_energy": False},
        {"energy_floor": 1e9},
        {"raw_energy": False},
        {"num_ceps": 1},
        {"num_ceps": 15},
    ],
)
def test_equals_definition(settings):
    opts = options(**{"num_mel_bins": 15, **settings})
    samples = noise(1500)
    mels, energies = log_mel_by_the_book(samples, opts)
    cepstra = scipy.fft.dct(np.log(mels), type=2, norm="ortho", axis=1)[:, : opts.num_ceps]
    if opts.cepstral_lifter:
        cepstra = cepstra * (1 + 11 * np.sin(np.pi * np.arange(opts.num_ceps) / 22))
    if opts.use_energy:
        cepstra[:, 0] = np.log(np.maximum(energies, opts.energy_floor))
    if opts.htk_compat:
        c0 = cepstra[:, :1] * (1 if opts.use_energy else np.sqrt(2))
        cepstra = np.hstack([cepstra[:, 1:], c0])
    np.testing.assert_allclose(MfccComputer(opts, np.float64)(samples), cepstra, rtol=0, atol=1e-8)
    np.testing.assert_allclose(MfccComputer(opts)(samples), cepstra, rtol=0, atol=2e-3)


def test_equals_kaldi_native_fbank():
    theirs = knf.MfccOptions()
    theirs.frame_opts.dither = 0.0
    samples = noise(20000)
    computer = knf.OnlineMfcc(theirs)
    computer.accept_waveform(16000, samples.astype(np.float32))
    computer.input_finished()
    expected = np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    np.testing.assert_allclose(mfcc(samples, 16000, options()), expected, rtol=0, atol=1.5e-2)


def test_transform_is_orthonormal():
    np.testing.assert_allclose(dct_matrix(30, 30) @ dct_matrix(30, 30).T, np.eye(30), atol=1e-12)
    np.testing.assert_allclose(lifter(13, 22.0)[[0, 11]], [1.0, 12.0])
    assert (lifter(13, 0.0) == 1.0).all()


def test_silence_has_floored_energy_and_flat_spectrum():
    features = mfcc(np.zeros(16000, np.int16), 16000, options())
    np.testing.assert_allclose(features[:, 0], -15.942385, atol=1e-5)
    np.testing.assert_allclose(features[:, 1:], 0.0, atol=1e-4)


def test_short_signals_give_no_frames():
    for number in (0, 1, 399):
        assert mfcc(np.zeros(number, np.int16), 16000, options()).shape == (0, 13)


@pytest.mark.parametrize("settings", [{"num_ceps": 24}, {"num_ceps": 0}])
def test_wrong_number_of_cepstra(settings):
    with pytest.raises(VoxarkError, match="--num-ceps"):
        MfccComputer(options(**settings))


@needs_golden
def test_configuration_file_and_command_line(tmp_path):
    config = ROOT / "conf" / "mfcc.conf"
    run(
        "compute-mfcc",
        f"--config={config}",
        "--dither=0",
        "scp:wav16.scp",
        f"ark:{tmp_path}/out.ark",
        cwd=golden(),
    )
    ours, kaldi = dict(kaldiio.load_ark(str(tmp_path / "out.ark"))), golden_matrices("mfcc20_30")
    assert error_figures(ours.values(), kaldi.values())[0] < 1.5e-4
