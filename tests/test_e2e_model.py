"""Folders of end-to-end models, and extract-embeddings, e2e-info and average-checkpoints on them."""

import json
import os
import re

import numpy as np
import pytest
from helpers import load_ark, run, save_ark, shell, write_lines

torch = pytest.importorskip("torch")

from voxark.e2e.extractors import embed, initialise_norms  # noqa: E402
from voxark.e2e.model import E2eModel, SegmentHead, load_model, model_config  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.nnet.checkpoint import save_state  # noqa: E402
from voxark.nnet.model_folder import (  # noqa: E402
    ParameterMean, read_config, read_parameters, save_model, write_config, write_parameters)

torch.set_num_threads(1)

OPTIONS = {
    "xvector": {"input_dim": 6, "channels": 8, "embedding_dim": 5},
    "ecapa": {"input_dim": 6, "channels": 8, "embedding_dim": 5, "bottleneck": 4},
    "resnet": {"input_dim": 6, "channels": 2, "embedding_dim": 5, "blocks": "1,1,1,1"},
    "fixed-td": {"input_dim": 6, "frames": 20, "channels": 8, "embedding_dim": 5},
    "waveform": {"num_filters": 8, "backbone_options": {"channels": 8, "embedding_dim": 5}},
}


def make_model(arch="xvector", seed=0, cmn="none", **more):
    torch.manual_seed(seed)
    head = {"kind": "aam", "num_speakers": 4, "hidden_dim": 3}
    scorer = {"kind": "dplda", "front_dim": 4}
    model = E2eModel(model_config(arch, {**OPTIONS[arch], **more}, cmn, head, scorer))
    length, dim = (4000, 1) if arch == "waveform" else (20, 6)
    initialise_norms(model.extractor, [100 * torch.randn(10, length, dim)])
    return model.eval()


def features(lengths=(40, 20, 7, 40), dim=6, seed=0):
    rng = np.random.default_rng(seed)
    return {f"u{i}": (rng.standard_normal((n, dim)) + 3).astype(np.float32) for i, n in enumerate(lengths)}


# ------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("arch", list(OPTIONS))
def test_saved_and_loaded_gives_the_same_bits(tmp_path, arch):
    model = make_model(arch)
    save_model(tmp_path / "m", model)
    state = torch.random.get_rng_state()
    again = load_model(tmp_path / "m")
    assert torch.equal(state, torch.random.get_rng_state())
    assert not again.training and again.config == model.config
    x = torch.randn(3, 4000, 1) if arch == "waveform" else torch.randn(3, 20, 6)
    e = model(x)
    assert torch.equal(again(x), e)
    assert torch.equal(again.head(e), model.head(e)) and again.head(e).shape == (3, 4)
    assert torch.equal(again.scorer(e), model.scorer(e)) and again.scorer(e).shape == (3, 3)
    first = (tmp_path / "m/final.pt").read_bytes()
    save_model(tmp_path / "n", again)
    assert (tmp_path / "n/final.pt").read_bytes() == first
    assert (tmp_path / "n/config.json").read_text() == (tmp_path / "m/config.json").read_text()
    assert json.loads(json.dumps(model.config)) == model.config


def test_parts_may_be_missing(tmp_path):
    model = E2eModel(model_config("xvector", OPTIONS["xvector"]))
    assert model.head is None and model.scorer is None and list(model.parameters_by_part()) == ["extractor"]
    save_model(tmp_path / "m", model)
    assert load_model(tmp_path / "m").head is None


def test_the_classifiers_segment_layer():
    head = SegmentHead(5, 4, "softmax", hidden_dim=3)
    x = torch.randn(6, 5)
    hidden = torch.relu(x) @ head.segment[2].weight.T + head.segment[2].bias
    torch.testing.assert_close(head(x), torch.relu(hidden) @ head.weight.T + head.bias)
    assert initialise_norms(head, [torch.randn(50, 5)]) == 2
    plain = SegmentHead(5, 4, "am")
    cosines = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(plain.weight).T
    torch.testing.assert_close(plain(x), cosines)


def test_foreign_and_damaged_folders(tmp_path):
    model = make_model()
    save_model(tmp_path / "m", model)
    config, parameters = tmp_path / "m/config.json", tmp_path / "m/final.pt"
    text, data = config.read_text(), parameters.read_bytes()

    def refused(message):
        with pytest.raises(VoxarkError, match=message) as error:
            load_model(tmp_path / "m")
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        config.write_text(text)
        parameters.write_bytes(data)

    for damaged in (b"", b"PK\3\4", data[: len(data) // 2], b"\x80\2c__builtin__\nexec\n."):
        parameters.write_bytes(damaged)
        refused("final.pt.*(damaged|checkpoint)")
    spoilt = bytearray(data)
    at = data.find(model.extractor.embedding.weight.detach().numpy().tobytes())
    assert at > 0
    spoilt[at + 5] ^= 0x40
    parameters.write_bytes(spoilt)
    refused("damaged")
    save_state(parameters, {"model": {"a": 3}})
    refused("holds no parameters")
    save_state(parameters, dict(make_model(channels=16).state_dict()))
    refused("extractor.frames.0.weight has shape .16, 6, 5., but config.json asks for .8, 6, 5.")
    write_parameters(parameters, make_model("ecapa").state_dict())
    refused("extractor.frames.0.weight is missing")
    write_parameters(parameters, {**model.state_dict(), "more": torch.zeros(1)})
    refused("more is none of this model's")
    os.unlink(parameters)
    refused("final.pt")
    settings = json.loads(text)
    for change, message in (
        ({"format": "other"}, "no configuration"),
        ({"version": 99}, "version is 99"),
        ({"arch": "nosuch"}, "expected one of"),
        ({"arch": 3}, "no proper 'arch'"),
        ({"arch_options": {"channels": -1}}, "channels is -1"),
        ({"arch_options": [1]}, "no proper 'arch_options'"),
        ({"features": {"cmn": "maybe"}}, "cmn is 'maybe'"),
        ({"features": {"cmn": "sliding", "cmn_window": "x"}}, "cmn_window is 'x'"),
        ({"head": {"kind": "aam", "speakers": 3}}, "configuration of the head"),
        ({"head": {"kind": "aam", "num_speakers": "3"}}, "configuration of the head"),
        ({"scorer": {"kind": "nosuch"}}, "back-end 'nosuch'"),
        ({"scorer": {"front_dim": 3}}, "configuration of the scorer"),
        ({"scorer": 3}, "no proper 'scorer'"),
    ):
        config.write_text(json.dumps({**settings, **change}))
        refused(message)
    config.write_text("{")
    refused("no JSON")
    config.write_text("[1]")
    refused("no configuration")
    with pytest.raises(VoxarkError, match="nosuch/config.json: is not there"):
        load_model(tmp_path / "nosuch")


# ----------------------------------------------------------------------------------------- extract-embeddings


def test_extraction_equals_the_network(tmp_path):
    model = make_model("ecapa", cmn="utterance")
    save_model(tmp_path / "m", model)
    x = features()
    feats = save_ark(tmp_path / "f.ark", x)
    done = run("extract-embeddings", tmp_path / "m", feats, f"ark:{tmp_path}/e.ark")
    assert "done 4, failed 0 (utterances)" in done.stderr
    e = load_ark(tmp_path / "e.ark")
    for key, value in x.items():
        centred = torch.tensor(value - value.mean(axis=0))[None]
        with torch.no_grad():
            np.testing.assert_allclose(e[key], model(centred)[0], rtol=1e-3, atol=1e-4)
    reversed_feats = save_ark(tmp_path / "r.ark", dict(reversed(x.items())))
    run("extract-embeddings", tmp_path / "m", reversed_feats, f"ark:{tmp_path}/r")
    again = load_ark(tmp_path / "r")
    assert all(np.array_equal(again[key], e[key]) for key in x)  # no companion matters


def test_chunks_short_utterances_and_bad_ones(tmp_path):
    model = make_model(cmn="chunk")
    save_model(tmp_path / "m", model)
    x = features((50, 20, 7))
    bad = {**x, "wide": np.ones((20, 7), np.float32), "nan": np.full((20, 6), np.nan, np.float32),
           "empty": np.zeros((0, 6), np.float32)}
    feats = save_ark(tmp_path / "f.ark", bad)
    done = run("extract-embeddings", "--chunk-frames=20", "--min-frames=8", tmp_path / "m", feats,
               f"ark:{tmp_path}/e.ark", f"--failed-list={tmp_path}/failed")
    assert "done 2, failed 4 (utterances)" in done.stderr
    failed = dict(line.split(" ", 1) for line in (tmp_path / "failed").read_text().splitlines())
    assert failed["u2"] == "7 frames, fewer than 8"
    assert "dimension 7, the model takes 6" in failed["wide"] and "finite" in failed["nan"]
    assert set(failed) == {"u2", "wide", "nan", "empty"}
    chunks = [x["u0"][s : s + 20] for s in (0, 15, 30)]
    expected = embed(model, [c - c.mean(axis=0) for c in chunks]).mean(axis=0)
    np.testing.assert_allclose(load_ark(tmp_path / "e.ark")["u0"], expected, rtol=1e-3, atol=1e-4)
    done = run("extract-embeddings", "--chunk-frames=9", tmp_path / "m", feats, "ark:-", check=False)
    assert done.returncode == 1 and "--chunk-frames=9" in done.stderr
    done = run("extract-embeddings", "--device=tpu", tmp_path / "m", feats, "ark:-", check=False)
    assert done.returncode == 1 and "expected cpu, cuda" in done.stderr


def test_extraction_with_a_fixed_duration(tmp_path):
    save_model(tmp_path / "m", make_model("fixed-td"))
    feats = save_ark(tmp_path / "f.ark", features((20, 19, 21)))
    done = run("extract-embeddings", tmp_path / "m", feats, f"ark:{tmp_path}/e.ark")
    assert "done 1, failed 2" in done.stderr and "19 frames, but this model takes 20" in done.stderr
    assert np.linalg.norm(load_ark(tmp_path / "e.ark")["u0"]) == pytest.approx(1.0, abs=1e-5)


def test_extraction_from_waveforms(tmp_path):
    import soundfile

    model = make_model("waveform")
    save_model(tmp_path / "m", model)
    rng = np.random.default_rng(0)
    samples = (1000 * rng.standard_normal(8000)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    soundfile.write(tmp_path / "b.wav", samples, 8000)
    write_lines(tmp_path / "wav.scp", f"a {tmp_path}/a.wav", f"b {tmp_path}/b.wav")
    done = run("extract-embeddings", tmp_path / "m", f"scp:{tmp_path}/wav.scp", f"ark:{tmp_path}/e.ark")
    assert "done 1, failed 1" in done.stderr
    assert "8000 samples per second, the model takes 16000" in done.stderr
    expected = embed(model, [samples[:, None].astype(np.float32)])[0]
    np.testing.assert_allclose(load_ark(tmp_path / "e.ark")["a"], expected, rtol=1e-3, atol=1e-4)


def test_extraction_as_text_and_wrong_use(tmp_path):
    save_model(tmp_path / "m", make_model())
    feats = save_ark(tmp_path / "f.ark", features((30,)))
    done = shell(f"extract-embeddings {tmp_path}/m {feats} ark,t:- | wc -w")
    assert done.stdout.split() == [b"8"]  # key, brackets, 5 numbers
    done = run("extract-embeddings", tmp_path, feats, "ark:-", check=False)
    assert done.returncode == 1 and "config.json: is not there" in done.stderr


@pytest.mark.parametrize("program", ["extract-embeddings", "e2e-info", "average-checkpoints"])
def test_help_needs_no_torch(tmp_path, program):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is absent')\n")
    path = f"PYTHONPATH={tmp_path}:$PYTHONPATH"
    assert b"Usage: " + program.encode() in shell(f"{path} {program} --help").stdout
    words = {"extract-embeddings": "m ark:f ark:-", "e2e-info": "m", "average-checkpoints": "m n"}[program]
    done = shell(f"{path} {program} {words}", check=False)
    assert done.returncode == 1 and "pip install 'voxark[neural]'" in done.stderr
    assert "wrong number of arguments" in run(program, check=False).stderr


# --------------------------------------------------------------------------- e2e-info and average-checkpoints


def test_info(tmp_path):
    model = make_model(cmn="sliding")
    save_model(tmp_path / "m", model)
    (tmp_path / "m/metrics.jsonl").write_text('{"epoch": 1, "eer": 0.5}\n{"epoch": 2, "eer": 0.25}\n{"epo')
    lines = run("e2e-info", tmp_path / "m").stdout.decode().splitlines()
    about = dict(line.split(" ", 1) for line in lines if not line.startswith(("option", "last-epoch")))
    total = sum(p.numel() for p in model.parameters())
    assert int(about["parameters"]) == total
    assert sum(int(about[f"{part}-parameters"]) for part in ("extractor", "head", "scorer")) == total
    assert about["arch"] == "xvector" and about["embedding-dim"] == "5" and about["min-frames"] == "15"
    assert about["norm-layers"] == about["norm-layers-estimated"] == "7"
    assert about["speakers"] == "4" and about["backend"] == "dplda" and about["cmn-window"] == "300"
    assert "option channels 8" in lines and "last-epoch eer 0.25" in lines and about["epochs"] == "2"
    save_model(tmp_path / "n", E2eModel(model_config("ecapa", OPTIONS["ecapa"])))
    both = json.loads(run("e2e-info", "--format=json", tmp_path / "m", tmp_path / "n").stdout)
    assert [d["arch"] for d in both] == ["xvector", "ecapa"]
    assert both[1]["norm_layers_estimated"] == 0 and "epochs" not in both[1]


def test_mean_of_parameters():
    mean = ParameterMean()
    for value in (1.0, 2.0, 6.0):
        w, n, b = torch.full((2,), value), torch.tensor(int(value)), torch.tensor(value > 1)
        mean.add({"w": w, "n": n, "b": b}, "x")
    result = mean.result()
    assert result["w"].tolist() == [3.0, 3.0] and result["w"].dtype == torch.float32
    assert int(result["n"]) == 6 and bool(result["b"])
    with pytest.raises(VoxarkError, match="y: w has shape .3,., but in x it has .2,."):
        mean.add({"w": torch.zeros(3), "n": torch.tensor(1), "b": torch.tensor(True)}, "y")
    with pytest.raises(VoxarkError, match="y: b is missing, which x has"):
        mean.add({"w": torch.zeros(2), "n": torch.tensor(1)}, "y")
    with pytest.raises(VoxarkError, match="x: c is missing, which y has"):
        mean.add({**result, "c": torch.zeros(1)}, "y")


def test_average_of_checkpoints(tmp_path):
    folder = tmp_path / "exp"
    models = [make_model(seed=seed) for seed in range(3)]
    save_model(folder, models[0])
    os.mkdir(folder / "checkpoints")
    for i, model in enumerate(models):
        save_state(folder / f"checkpoints/epoch-{i}.pt", dict(model.state_dict()))
    names = [folder / f"checkpoints/epoch-{i}.pt" for i in range(3)]
    done = run("average-checkpoints", tmp_path / "mean", *names)
    assert "done 3, failed 0 (checkpoints)" in done.stderr
    mean, states = load_model(tmp_path / "mean").state_dict(), [model.state_dict() for model in models]
    for name, value in mean.items():
        if value.is_floating_point():
            expected = torch.stack([s[name].double() for s in states]).mean(dim=0)
            torch.testing.assert_close(value, expected.float())
        else:
            assert torch.equal(value, states[2][name])
    assert load_model(tmp_path / "mean").config == models[0].config
    run("average-checkpoints", tmp_path / "one.pt", folder)  # a folder; a single one is a copy
    assert read_parameters(tmp_path / "one.pt").keys() == mean.keys()
    assert all(torch.equal(v, states[0][k]) for k, v in read_parameters(tmp_path / "one.pt").items())
    save_state(folder / "state.pt", {"model": dict(states[1]), "epoch": 3})  # a training's state
    run("average-checkpoints", tmp_path / "two.pt", folder / "state.pt")
    assert (tmp_path / "two.pt").exists()


def test_refusals_of_averaging(tmp_path):
    save_model(tmp_path / "a", make_model())
    save_model(tmp_path / "b", make_model(channels=16))
    write_parameters(tmp_path / "alone.pt", make_model().state_dict())
    for words, message in (
        (("out", "a", "b"), r"b/final.pt: extractor.frames.0.weight has shape \(16, 6, 5\)"),
        (("out", "alone.pt"), "no config.json beside it"),
        (("out", "nosuch.pt"), "nosuch.pt"),
    ):
        done = run("average-checkpoints", *(tmp_path / word for word in words), check=False)
        assert done.returncode == 1
        assert re.search(message, done.stderr), done.stderr
        assert not (tmp_path / "out").exists()


def test_what_a_training_adds_to_the_config_is_kept(tmp_path):
    write_config(str(tmp_path / "config.json"), model_config("xvector", OPTIONS["xvector"], epoch=3))
    assert read_config(str(tmp_path / "config.json"), E2eModel)["epoch"] == 3
