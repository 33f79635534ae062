"""measure-disentanglement: what it prints, what it refuses, and models on changed audio."""

import csv
import io
import json
import math

import numpy as np
import pytest

from helpers import run, save_ark, write_lines
from test_disentanglement import NUM_SPEAKERS, made_segments
from test_programs import loaded_modules

from voxark.audio import write_wav

PROGRAM = "measure-disentanglement"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of z1, z2, their variances, labels and trials; z1 knows phones, z2 speakers."""
    folder = tmp_path_factory.mktemp("latents")
    segments, speakers, phones = made_segments()
    tables = {"z1": segments.z1, "z2": segments.z2, "z1_var": np.full_like(segments.z1, 0.1),
              "z2_var": np.full_like(segments.z2, 0.2)}
    for name, x in tables.items():
        by_key = {key: x[segments.utterance == u] for u, key in enumerate(segments.keys)}
        save_ark(folder / f"{name}.ark", by_key)
        save_ark(folder / f"{name}_reversed.ark", dict(reversed(by_key.items())))
    write_lines(folder / "utt2spk", *(f"{key} spk{s}" for key, s in zip(segments.keys, speakers)))
    write_lines(folder / "spk2gender", *(f"spk{s} {'mf'[s % 2]}" for s in range(NUM_SPEAKERS)))
    write_lines(folder / "ctm", *(f"{segments.keys[u]} 1 {0.2 * n:.3f} 0.2 p{p}"
                                  for u, n, p in zip(segments.utterance, segments.index, phones)))
    lines = [f"{a} {b} {'target' if s == t else 'nontarget'}" for a, s in zip(segments.keys, speakers)
             for b, t in zip(segments.keys, speakers) if a < b]
    write_lines(folder / "trials", *lines)
    return folder


def arguments(data, *more, z1="z1", z2="z2"):
    labels = [f"--utt2spk={data}/utt2spk", f"--factors=gender={data}/spk2gender", f"--ctm=phone={data}/ctm"]
    return [*labels, *more, f"ark:{data}/{z1}.ark", f"ark:{data}/{z2}.ark"]


def measured(data, *more, **tables):
    return json.loads(run(PROGRAM, "--format=json", *arguments(data, *more, **tables)).stdout)


def test_all_measures_as_json(data):
    found = measured(data, f"--trials={data}/trials", f"--z1-var=ark:{data}/z1_var.ark",
                     f"--z2-var=ark:{data}/z2_var.ark", "--speaker-disjoint=gender")
    speaker, gender, phone = found["factors"]
    assert [of["name"] for of in found["factors"]] == ["speaker", "gender", "phone"]
    assert speaker["z2"]["gain"] > 0.97 and phone["z1"]["gain"] > 0.97
    assert max(abs(speaker["z1"]["gain"]), abs(phone["z2"]["gain"])) < 0.15
    assert speaker["share_z2"] > 0.7 and phone["share_z2"] < 0.3
    assert speaker["both"]["accuracy"] > 0.97 and phone["disjoint"] == gender["disjoint"] == "speaker"
    assert 0.0 < found["dci"]["disentanglement"] < 1.0
    assert speaker["z2"]["entropy"] == pytest.approx(math.log(NUM_SPEAKERS), abs=1e-6)
    z1, z2 = found["latents"]
    assert (z1["num_active"], z2["num_active"]) == (6, 6) and len(z1["kl_per_dim"]) == 6
    assert z1["kl"] == pytest.approx(sum(z1["kl_per_dim"]))
    eer = {of["vectors"]: of["eer"] for of in found["eer"]}
    assert eer["mu2"] < 0.02 < 0.3 < eer["mu1"] and eer["mean z2"] == eer["mu2"]
    assert found["transformations"] == [] and found["num_segments"] == 48 * 12


def test_the_order_of_the_tables_does_not_matter_and_the_seed_does(data):
    first = run(PROGRAM, "--format=json", *arguments(data)).stdout
    assert run(PROGRAM, "--format=json", *arguments(data, z1="z1_reversed")).stdout == first
    assert run(PROGRAM, "--format=json", *arguments(data, "--srand=1")).stdout != first


def test_csv_has_every_number_of_json(data):
    options = [f"--trials={data}/trials", f"--z1-var=ark:{data}/z1_var.ark", "--max-segments=300"]
    found = measured(data, *options)
    text = run(PROGRAM, "--format=csv", *arguments(data, *options)).stdout.decode()
    rows = {tuple(row[:4]): row[4] for row in csv.reader(io.StringIO(text))}
    assert rows[("table", "name", "latent", "measure")] == "value"
    assert float(rows["factor", "phone", "z2", "information"]) == found["factors"][2]["z2"]["information"]
    assert float(rows["factor", "speaker", "", "gain_ratio"]) == float(found["factors"][0]["gain_ratio"])
    assert float(rows["latent", "3", "z1", "kl"]) == found["latents"][0]["kl_per_dim"][3]
    assert rows["latent", "", "z2", "kl"] == "" and found["latents"][1]["kl"] is None
    assert float(rows["eer", "", "mu1", "eer"]) == found["eer"][1]["eer"]
    assert sum(int(rows["factor", "speaker", "", name]) for name in ("num_train", "num_test")) == 300


def test_the_text_is_a_table_for_people(data):
    lines = run(PROGRAM, *arguments(data, f"--trials={data}/trials")).stdout.decode().splitlines()
    assert lines[0] == "576 segments of 48 utterances"
    header, first, second = lines[2:5]
    assert header.split()[:7] == ["factor", "apart", "classes", "train", "test", "latent", "accuracy"]
    assert first.split()[:6] == ["speaker", "utterance", "8", "384", "192", "z1"]
    assert second.split()[0] == "z2" and "z2/z1" in second
    assert any(line.startswith("phone ") and " speaker " in line for line in lines)
    assert any(line.startswith("disentanglement 0.") for line in lines)
    eer = next(line for line in lines if line.startswith("mu1 "))
    assert eer.split()[2:] == ["120", "1008"]


def test_vectors_that_are_given_are_taken(data, tmp_path):
    segments, speakers, _ = made_segments()
    rng = np.random.default_rng(0)
    drawn = {key: rng.standard_normal(6).astype(np.float32) for key in segments.keys}
    noise = save_ark(tmp_path / "mu", drawn)
    perfect = save_ark(tmp_path / "mu1", {key: np.eye(8, dtype=np.float32)[s]
                                          for key, s in zip(segments.keys, speakers)})
    found = measured(data, f"--trials={data}/trials", f"--mu2={noise}", f"--mu1={perfect}")
    eer = {of["vectors"]: of["eer"] for of in found["eer"]}
    assert eer["mu1"] == 0.0 and eer["mu2"] > 0.3 and eer["mean z2"] < 0.02
    fewer = save_ark(tmp_path / "few", {key: np.ones(6, np.float32) for key in segments.keys[1:]})
    done = run(PROGRAM, *arguments(data, f"--mu2={fewer}"), check=False)
    assert done.returncode == 1 and "utt000: " in done.stderr and "has no mu2 of it" in done.stderr


@pytest.mark.parametrize("more, message", [
    (["--test-share=1"], "--test-share is between 0 and 1"),
    (["--pz2-var=0"], "must be positive"),
    (["--wav=scp:x"], "--model and --wav are needed together"),
    (["--ctm-map=phone"], "phone: "),
    (["--trials=nosuchfile"], "nosuchfile"),
    (["--format=xml"], "'xml' is not one of"),
])
def test_wrong_options_are_one_line(data, more, message):
    done = run(PROGRAM, *arguments(data, *more), check=False)
    assert done.returncode == 1 and done.stdout == b"" and message in done.stderr.splitlines()[-1]


def test_one_table_is_too_few(data):
    done = run(PROGRAM, f"ark:{data}/z1.ark", check=False)
    assert done.returncode == 1 and "wrong number of arguments: 2 expected" in done.stderr


def test_factors_that_cannot_be_split_are_warned_of_and_left_out(data, tmp_path):
    segments, _, _ = made_segments()
    write_lines(tmp_path / "utt2odd", *(f"{key} {key}" for key in segments.keys))
    done = run(PROGRAM, "--format=json", f"--factors=odd={tmp_path}/utt2odd", f"ark:{data}/z1.ark",
               f"ark:{data}/z2.ark")
    found = json.loads(done.stdout)
    assert found["factors"] == [] and found["dci"] is None and len(found["latents"]) == 2
    assert "WARNING (measure-disentanglement) factor odd: 0 of 48 classes have segments enough" in done.stderr


def test_bad_utterances_are_counted_and_the_rest_is_measured(data, tmp_path):
    from helpers import load_ark

    z1 = load_ark(data / "z1.ark")
    z1 = {key: x.copy() for key, x in z1.items()}
    z1["utt003"][2, 1] = np.nan
    z1["stranger"] = z1["utt001"]
    done = run(PROGRAM, f"--utt2spk={data}/utt2spk", save_ark(tmp_path / "z1", z1), f"ark:{data}/z2.ark")
    assert "done 47, failed 2 (utterances)" in done.stderr
    assert "utt003: z1 at frame 2, column 1 is nan" in done.stderr and "stranger: is not in" in done.stderr


def test_neither_torch_nor_sklearn_is_loaded_without_need(data):
    tables = f"ark:{data}/z1.ark", f"ark:{data}/z2.ark"
    done, modules = loaded_modules(PROGRAM, f"--trials={data}/trials", *tables)
    assert done.returncode == 0 and not modules & {"torch", "sklearn", "matplotlib"}
    done, modules = loaded_modules(PROGRAM, *arguments(data))
    assert done.returncode == 0 and "sklearn" in modules and "torch" not in modules


# ------------------------------------------------------------------------------------------------ with models


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """(folder of a small untrained FHVAE, wav-rspecifier, name of the options of its features)."""
    torch = pytest.importorskip("torch")
    model_of = pytest.importorskip("voxark.fhvae.model")
    from voxark.fhvae.options import ModelOptions
    from voxark.nnet.model_folder import save_model

    folder = tmp_path_factory.mktemp("speech")
    torch.manual_seed(0)
    options = ModelOptions(arch="fc", num_layers=1, hidden_dim=16, z1_dim=4, z2_dim=3, segment_length=10)
    model = model_of.FhvaeModel(model_of.model_config(options, 12))
    model.feat_mean[:], model.feat_std[:] = 8.0, 3.0
    save_model(str(folder / "model"), model.eval())
    rng, lines = np.random.default_rng(0), []
    for number in range(5):
        pitch = np.sin(2 * np.pi * (100 + 40 * number) * np.cumsum(1 + 0.3 * rng.random(12000)) / 16000)
        x = 3000 * pitch * np.repeat(rng.random(12), 1000) + 20 * rng.standard_normal(12000)
        (folder / f"{number}.wav").write_bytes(write_wav(16000, x))
        lines.append(f"u{number} {folder}/{number}.wav")
    write_lines(folder / "wav.scp", *lines)
    (folder / "fbank.conf").write_text("--num-mel-bins=12\n")
    return [f"--model={folder}/model", f"--wav=scp:{folder}/wav.scp", f"--fbank-config={folder}/fbank.conf"]


def test_a_model_is_measured_alone(speech):
    options = ["--format=json", "--segment-shift=10", "--segment-length=10", *speech]
    found = json.loads(run(PROGRAM, *options).stdout)
    assert found["factors"] == [] and found["num_waves"] == 5
    names = [of["name"] for of in found["transformations"]]
    assert names == ["gain -10 dB", "gain +10 dB", "microphone", "noise 10 dB", "speed 0.9", "speed 1.1",
                     "shift 5 frames", "shift 10 frames", "another segment"]
    for of in found["transformations"]:
        assert all(0.0 < of[name] < 20.0 for name in ("input", "z1", "z2", "mu2", "ratio"))
        expected = of["z2"] / of["z1"] if of["kind"] == "sequence" else of["z1"] / of["z2"]
        assert of["ratio"] == expected and 0 < of["num_segments"] <= 5 * 7
    text = run(PROGRAM, "--segment-shift=10", *speech).stdout
    header = text.decode().splitlines()[0]
    assert header.split() == ["transformation", "of", "the", "segments", "input", "z1", "z2", "mu2", "ratio"]
    assert run(PROGRAM, *options).stdout == run(PROGRAM, *options).stdout


def test_movements_are_those_of_the_encoder(speech, tmp_path):
    """The gain's row against features and latents computed here."""
    from voxark import tables
    from voxark.command_line import read_options
    from voxark.disentanglement.movement import distance
    from voxark.feat.fbank import FbankComputer, FbankOptions
    from voxark.fhvae.inference import encode
    from voxark.fhvae.model import load_model

    model_dir, wav, config = (word.partition("=")[2] for word in speech)
    model, computer = load_model(model_dir), FbankComputer(read_options(FbankOptions, config))
    sides = [[], []]
    with tables.open_reader("wav", wav) as waves:
        for key, (_, x) in waves:
            for side, factor in zip(sides, (1.0, 0.1)):
                side.append(encode(model, computer(np.float32(factor) * x, key=key), shift=10))
    options = ["--format=json", "--segment-shift=10", "--gains=-20", *speech]
    found = json.loads(run(PROGRAM, *options).stdout)["transformations"][0]
    moved = [distance(*(np.concatenate([getattr(of, name) for of in side]) for side in sides))
             for name in ("z1_mean", "z2_mean")]
    means = [np.concatenate([getattr(of, name) for of in sides[0]]) for name in ("z1_mean", "z2_mean")]
    utterance = np.repeat(np.arange(5), [len(of.starts) for of in sides[0]])
    apart = utterance[:, None] != utterance
    for name, value, z in zip(("z1", "z2"), moved, means):
        exact = np.sqrt(np.sum((z[:, None].astype(np.float64) - z) ** 2, axis=2)[apart].mean())
        assert found[name] == pytest.approx(value / exact, rel=0.03)


def test_a_model_and_tables_go_together(speech, data):
    found = json.loads(run(PROGRAM, "--format=json", *speech, f"--utt2spk={data}/utt2spk", "--max-wavs=3",
                           f"ark:{data}/z1.ark", f"ark:{data}/z2.ark").stdout)
    assert len(found["factors"]) == 1 and len(found["transformations"]) == 9 and found["num_waves"] == 3


def test_noises_and_what_models_refuse(speech, data, tmp_path):
    def last_line(*options):
        done = run(PROGRAM, *options, check=False)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    noise = write_wav(16000, np.random.default_rng(1).standard_normal(4000) * 100)
    (tmp_path / "noise.wav").write_bytes(noise)
    write_lines(tmp_path / "noise.scp", f"n {tmp_path}/noise.wav")
    real = run(PROGRAM, "--format=csv", *speech, f"--noise=scp:{tmp_path}/noise.scp").stdout.decode()
    pink = run(PROGRAM, "--format=csv", *speech).stdout.decode()
    differ = {a.split(",")[1] for a, b in zip(real.splitlines(), pink.splitlines()) if a != b}
    assert differ == {"noise 10 dB"}
    (tmp_path / "slow.wav").write_bytes(write_wav(8000, np.ones(100)))
    write_lines(tmp_path / "slow.scp", f"n {tmp_path}/slow.wav")
    slow = f"--noise=scp:{tmp_path}/slow.scp"
    assert "n: the noise has 8000 Hz, the speech 16000" in last_line(*speech, slow)
    assert "the model has 12 features, --fbank-config makes 23" in last_line(*speech[:2])
    assert "config.json: is not there" in last_line(f"--model={data}", *speech[1:])
    assert "--max-wavs=1: two" in last_line(*speech, "--max-wavs=1")
    assert "--speeds=3" in last_line(*speech, "--speeds=3")
