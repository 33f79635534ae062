"""Conversion with an FHVAE: joining segments, exchanging latent variables, the program, its waveforms."""

import re

import numpy as np
import pytest

from helpers import load_ark, run, save_ark, write_lines
from voxark.audio import read_audio
from voxark.command_line import read_options
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions, fbank
from voxark.fhvae.convert import (
    ConvertOptions, Target, convert, converted_z2, encode_whole, in_turn, joined, moved, shifted)
from voxark.fhvae.convert_tables import FeatureConfig, fbank_options

torch = pytest.importorskip("torch")

LENGTH, DIM = 20, 12


def random_model(dim=DIM, seed=0):
    """A small model with random parameters, which depends on z1 and z2 strongly enough to be measured."""
    from voxark.fhvae.model import FhvaeModel, model_config
    from voxark.fhvae.options import ModelOptions

    torch.manual_seed(seed)
    options = ModelOptions(arch="fc", num_layers=1, hidden_dim=16, z1_dim=3, z2_dim=4)
    model = FhvaeModel(model_config(options, dim)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.feat_mean.fill_(2.0)
        model.feat_std.fill_(1.5)
    return model


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def feats():
    rng = np.random.default_rng(0)
    return {key: (rng.standard_normal((number, DIM)) + rng.standard_normal(DIM)).astype(np.float32)
            for key, number in (("a", 63), ("b", 40), ("c", 20), ("d", 101))}


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    from voxark.nnet.model_folder import write_config, write_parameters

    path = tmp_path_factory.mktemp("model")
    write_parameters(str(path / "final.pt"), model.state_dict())
    write_config(str(path / "config.json"), model.config)
    return path


# ---------------------------------------------------------------------------------------------------- joining


def test_consecutive_segments_are_put_side_by_side():
    segments = np.random.default_rng(0).standard_normal((3, 5, 2))
    np.testing.assert_allclose(joined([0, 5, 10], segments, 15), segments.reshape(15, 2), atol=1e-7)


def test_where_segments_overlap_frames_are_weighted_means():
    segments = np.stack([np.zeros((4, 1)), np.ones((4, 1))])
    # weights 1 2 2 1 of both, two frames apart
    np.testing.assert_allclose(joined([0, 2], segments, 6)[:, 0], [0, 0, 1 / 3, 2 / 3, 1, 1], atol=1e-7)
    same = np.arange(6.0)[:, None]
    np.testing.assert_allclose(joined([0, 2], np.stack([same[:4], same[2:]]), 6), same, atol=1e-6)


def test_a_frame_in_no_segment_is_an_error():
    with pytest.raises(VoxarkError, match="frame 4 of 5 is in no segment"):
        joined([0], np.zeros((1, 4, 2)), 5)


# --------------------------------------------------------------------------------------------------- z2 moved


def test_the_arithmetic_of_z2():
    z2, mu2 = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1.0, 1.0])
    np.testing.assert_allclose(shifted(z2, mu2, np.array([2.0, 4.0]), 0.5), [[1.5, 3.5], [3.5, 1.5]])
    np.testing.assert_allclose(moved(z2, np.array([5.0, 5.0]), 0.25), [[2.0, 2.75], [3.5, 1.25]])
    np.testing.assert_allclose(moved(z2, z2[::-1], 1.0), z2[::-1])
    assert in_turn(np.arange(3)[:, None], 7)[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]


def z2_of(model, feats, source, target, **options):
    options = ConvertOptions(**options)
    source, target = (encode_whole(model, feats[key], options) for key in (source, target))
    return converted_z2(source, Target.of_utterance(target), options), source, target


def test_what_the_modes_do_to_z2(model, feats):
    z2, a, b = z2_of(model, feats, "a", "b")
    assert len(a.z2_mean) == 4 and len(b.z2_mean) == 2  # the last segment of a overlaps
    np.testing.assert_allclose(z2, a.z2_mean + (b.mu2 - a.mu2), atol=1e-6)
    np.testing.assert_allclose(z2.mean(0) - a.z2_mean.mean(0), b.mu2 - a.mu2, atol=1e-6)
    z2, a, b = z2_of(model, feats, "a", "b", mode="recombine")
    np.testing.assert_allclose(z2, b.z2_mean[[0, 1, 0, 1]], atol=1e-6)
    z2, a, b = z2_of(model, feats, "a", "b", mode="recombine", target_z2="mean")
    np.testing.assert_allclose(z2, np.tile(b.z2_mean.mean(0), (4, 1)), atol=1e-6)
    z2, a, b = z2_of(model, feats, "a", "b", mode="reconstruct")
    np.testing.assert_array_equal(z2, a.z2_mean)


@pytest.mark.parametrize("mode", ["replace", "recombine"])
def test_an_utterance_converted_to_itself_is_its_reconstruction(model, feats, mode):
    """T6.11: to the last bit."""
    for key, x in feats.items():
        plain = convert(model, x)
        options = ConvertOptions(mode=mode)
        own = Target.of_utterance(encode_whole(model, x))
        np.testing.assert_array_equal(convert(model, x, own, options), plain)
        assert plain.shape == x.shape and plain.dtype == np.float32, key


@pytest.mark.parametrize("mode", ["replace", "recombine"])
def test_the_amount_goes_from_reconstruction_to_conversion_and_beyond(model, feats, mode):
    plain = convert(model, feats["a"])
    target = Target.of_utterance(encode_whole(model, feats["b"]))

    def by(amount):
        return convert(model, feats["a"], target, ConvertOptions(mode=mode, amount=amount))

    np.testing.assert_array_equal(by(0.0), plain)
    distances = [np.linalg.norm(by(amount) - plain) for amount in (0.0, 0.5, 1.0, 1.5)]
    assert distances == sorted(distances) and distances[1] > 0.01
    assert np.abs(by(-1.0) - by(1.0)).max() > 0.01


def test_segments_of_recombination_are_decoded_from_z1_of_one_and_z2_of_the_other(model, feats):
    from voxark.fhvae.inference import decode

    a, b = (encode_whole(model, feats[key]) for key in "ab")
    wanted, _ = decode(model, a.z1_mean, b.z2_mean[[0, 1, 0, 1]])
    got = convert(model, feats["a"], Target.of_utterance(b), ConvertOptions(mode="recombine"))
    np.testing.assert_allclose(got[:40], wanted[:2].reshape(40, DIM), atol=1e-5)
    np.testing.assert_allclose(got[60:], wanted[3, -3:], atol=1e-5)


def test_a_smaller_shift_joins_more_segments(model, feats):
    options = ConvertOptions(segment_shift=5)
    encoded = encode_whole(model, feats["a"], options)
    assert encoded.starts.tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40, 43]
    assert convert(model, feats["a"], None, options).shape == feats["a"].shape


@pytest.mark.parametrize("wrong, message", [
    ({"amount": np.inf}, "--amount=inf"), ({"segment_shift": 21}, "--segment-shift=21"),
    ({"segment_shift": -1}, "--segment-shift=-1"),
])  # fmt: skip
def test_wrong_options_are_refused(model, feats, wrong, message):
    with pytest.raises(VoxarkError, match=message):
        convert(model, feats["a"], None, ConvertOptions(**wrong))


def test_a_target_of_another_dimension_is_refused(model, feats):
    with pytest.raises(VoxarkError, match="a target vector of dimension 3, but the model's z2 has 4"):
        convert(model, feats["a"], Target(np.zeros(3, np.float32)), ConvertOptions())


# ---------------------------------------------------------------------------------------------------- program


def test_the_program_converts_as_the_library_does(model, feats, folder, tmp_path):
    pairs = write_lines(tmp_path / "utt2utt", "a b d", "d c")
    run("convert-fhvae", folder, save_ark(tmp_path / "f.ark", feats), pairs, f"ark:{tmp_path / 'out.ark'}")
    out = load_ark(tmp_path / "out.ark")
    assert list(out) == ["a-to-b", "a-to-d", "d-to-c"]
    for key, x in out.items():
        source, target = key.split("-to-")
        wanted = convert(model, feats[source], Target.of_utterance(encode_whole(model, feats[target])))
        np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-5)


def test_swap_back_and_reconstruction(feats, folder, tmp_path):
    table = save_ark(tmp_path / "f.ark", feats)
    run("convert-fhvae", "--mode=reconstruct", folder, table, f"ark:{tmp_path / 'plain.ark'}")
    plain = load_ark(tmp_path / "plain.ark")
    assert {key: len(x) for key, x in plain.items()} == {key: len(x) for key, x in feats.items()}
    for mode in ("replace", "recombine"):
        pairs = write_lines(tmp_path / "same", *(f"{key} {key}" for key in feats))
        run("convert-fhvae", f"--mode={mode}", "--output-key=source", folder, table, pairs,
            f"ark:{tmp_path / 'own.ark'}")
        own = load_ark(tmp_path / "own.ark")
        assert all(np.array_equal(own[key], plain[key]) for key in feats)


@pytest.mark.parametrize("mode", ["replace", "recombine"])
def test_targets_that_are_vectors(model, feats, folder, tmp_path, mode):
    vector = np.array([1.0, -1.0, 0.5, 2.0], np.float32)
    vectors = save_ark(tmp_path / "v.ark", {"spk": vector})
    run("convert-fhvae", f"--mode={mode}", f"--target-vectors={vectors}", folder,
        save_ark(tmp_path / "f.ark", feats), write_lines(tmp_path / "utt2spk", "a spk", "c nobody"),
        f"ark:{tmp_path / 'out.ark'}")  # fmt: skip
    out = load_ark(tmp_path / "out.ark")
    assert list(out) == ["a-to-spk"]
    wanted = convert(model, feats["a"], Target(vector), ConvertOptions(mode=mode))
    np.testing.assert_allclose(out["a-to-spk"], wanted, rtol=1e-5, atol=1e-5)


def test_pairs_that_cannot_be_converted_are_counted(feats, folder, tmp_path):
    bad = {**feats, "short": feats["a"][:19], "wide": np.zeros((30, DIM + 1), np.float32)}
    bad["nan"] = np.full((30, DIM), np.nan, np.float32)
    lines = ["a short", "a nobody", "nobody a", "wide a", "nan b", "a c"]
    done = run("convert-fhvae", folder, save_ark(tmp_path / "f.ark", bad),
               write_lines(tmp_path / "pairs", *(sorted(f"{line}" for line in lines if line[0] != "a")),
                           "a short nobody c"), f"ark:{tmp_path / 'out.ark'}")  # fmt: skip
    assert list(load_ark(tmp_path / "out.ark")) == ["a-to-c"]
    assert re.search(r"done 1, failed 5", done.stderr)
    assert "short: 19 frames, fewer than a segment's 20" in done.stderr
    assert "no features of nobody in" in done.stderr


@pytest.mark.parametrize("arguments, message", [
    (["M", "F", "O"], "takes no utt2utt"),
    (["--mode=reconstruct", "M", "F", "P", "O"], "takes no utt2utt"),
    (["--mode=reconstruct", "--target-vectors=ark:x", "M", "F", "O"], "--target-vectors has no place"),
    (["--mode=other", "M", "F", "P", "O"], "other"),
    (["--segment-shift=40", "M", "F", "P", "O"], "--segment-shift=40"),
    (["--amount=nan", "M", "F", "P", "O"], "not a number"),
    (["nowhere", "F", "P", "O"], "config.json"),
    (["--wav=W", "--fbank-config=C", "M", "F", "P", "O"], "23 dimensions, but the model's have 12"),
])  # fmt: skip
def test_wrong_command_lines_leave_nothing_behind(feats, folder, tmp_path, arguments, message):
    (tmp_path / "config").write_text("--num-mel-bins=23\n")
    place = {"M": folder, "F": save_ark(tmp_path / "f.ark", feats), "O": f"ark:{tmp_path / 'out.ark'}",
             "P": write_lines(tmp_path / "pairs", "a b")}  # fmt: skip
    words = [str(place.get(word, word)) for word in arguments]
    words = [word.replace("=W", f"={tmp_path}/wav").replace("=C", f"={tmp_path}/config") for word in words]
    done = run("convert-fhvae", *words, check=False)
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "out.ark").exists()


# -------------------------------------------------------------------------------------------------- waveforms


def test_waveforms_are_those_of_the_features(tmp_path):
    """A model that knows nothing of speech: the waveform's features are still those that it decoded."""
    from voxark.nnet.model_folder import write_config, write_parameters

    opts = FbankOptions(sample_frequency=8000.0, num_mel_bins=DIM, dither=0.0)
    rng = np.random.default_rng(0)
    speech = {key: fbank(1000.0 * rng.standard_normal(16000, np.float32), 8000, opts) for key in "xy"}
    model = random_model()
    with torch.no_grad():
        model.feat_mean.fill_(float(speech["x"].mean()))
        model.feat_std.fill_(0.3)
    write_parameters(str(tmp_path / "final.pt"), model.state_dict())
    write_config(str(tmp_path / "config.json"), model.config)
    (tmp_path / "fbank.conf").write_text(f"--sample-frequency=8000\n--num-mel-bins={DIM}\n--dither=0\n")
    table, pairs = save_ark(tmp_path / "f.ark", speech), write_lines(tmp_path / "pairs", "x y", "y x")
    arguments = [f"--wav={tmp_path}/wav", f"--fbank-config={tmp_path}/fbank.conf", tmp_path, table, pairs,
                 f"ark:{tmp_path}/out.ark"]  # fmt: skip
    run("convert-fhvae", *arguments)
    out = load_ark(tmp_path / "out.ark")
    script = dict(line.split() for line in (tmp_path / "wav" / "wav.scp").read_text().splitlines())
    assert list(script) == ["x-to-y", "y-to-x"]
    before = {}
    for key, name in script.items():
        with open(name, "rb") as source:
            before[key] = source.read()
        rate, samples = read_audio(before[key], name)
        assert rate == 8000 and samples.dtype == np.int16
        again = fbank(samples, rate, opts)
        assert again.shape == out[key].shape and np.abs(again - out[key]).mean() < 0.3
    run("convert-fhvae", *arguments)
    assert all(open(name, "rb").read() == before[key] for key, name in script.items())
    pairs = write_lines(tmp_path / "more", "x y")
    done = run("convert-fhvae", "--wav-seed=1", *arguments[:4], pairs, arguments[5])
    assert (tmp_path / "wav" / "x-to-y.wav").read_bytes() != before["x-to-y"] and "done 1" in done.stderr


def test_a_key_that_is_no_file_name_fails_alone(feats, folder, tmp_path):
    feats = {"a": feats["a"], "b/c": feats["b"]}
    done = run("convert-fhvae", "--mode=reconstruct", f"--wav={tmp_path / 'wav'}", folder,
               save_ark(tmp_path / "f.ark", feats), f"ark:{tmp_path / 'out.ark'}")  # fmt: skip
    assert "b/c: this key cannot be the name of a file" in done.stderr and "done 1, failed 1" in done.stderr
    assert sorted(p.name for p in (tmp_path / "wav").iterdir()) == ["a.wav", "wav.scp"]


def test_configurations_of_features(tmp_path):
    path = tmp_path / "fbank.conf"

    def options_of(text, dimension=31):
        path.write_text(text)
        return fbank_options(read_options(FeatureConfig, str(path)), str(path), dimension)

    config = "--num-mel-bins=30\n--use-energy=true\n--window-type=hamming\n--compress=true\n"
    assert options_of(config).window_type == "hamming"
    assert fbank_options(None, "", 17).num_mel_bins == 17
    for text, message in (("--subtract-mean=true", "--subtract-mean"), ("--num-mel-bins=30", "30 dimensions"),
                          ("--no-such=1", "no-such")):  # fmt: skip
        with pytest.raises(VoxarkError, match=message):
            options_of(text + "\n")


def test_help_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    from helpers import ROOT, environment

    env = environment(PYTHONPATH=f"{tmp_path}:{ROOT}")
    done = run("convert-fhvae", "--help", env=env)
    assert b"Usage: convert-fhvae" in done.stdout
