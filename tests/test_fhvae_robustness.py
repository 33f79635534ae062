"""FHVAE programs and folders meet bad input, and what end-to-end models and FHVAE share."""

import json
import os

import numpy as np
import pytest
from helpers import load_ark, run, save_ark

torch = pytest.importorskip("torch")

from voxark.errors import VoxarkError  # noqa: E402
from voxark.fhvae.model import FhvaeModel, load_model, model_config  # noqa: E402
from voxark.fhvae.options import ModelOptions  # noqa: E402
from voxark.nnet.checkpoint import save_state  # noqa: E402
from voxark.nnet.model_folder import save_model, write_parameters  # noqa: E402

SMALL = "--arch=fc --num-layers=1 --hidden-dim=8 --z1-dim=2 --z2-dim=2 --num-steps=2 --steps-per-epoch=2".split()


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with several."""
    torch.set_num_threads(1)


def make_model(seed=0, hidden_dim=8):
    """A small FhvaeModel on features of dimension 3, with random parameters."""
    torch.manual_seed(seed)
    options = ModelOptions(arch="fc", num_layers=1, hidden_dim=hidden_dim, z1_dim=2, z2_dim=2)
    return FhvaeModel(model_config(options, 3))


def refused(message, *words, **options):
    """Assert that a program ends with status 1 and a last line that has ``message``."""
    done = run(*words, check=False, **options)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
    assert "internal error" not in done.stderr


# -------------------------------------------------------------------------------------------------- averaging


def test_average_of_checkpoints(tmp_path):
    models = [make_model(seed) for seed in range(3)]
    models[0].config["epoch"] = 2
    save_model(tmp_path / "exp", models[0])
    os.mkdir(tmp_path / "exp/checkpoints")
    names = [tmp_path / f"exp/checkpoints/epoch-{number}.pt" for number in range(3)]
    for name, model in zip(names, models, strict=True):
        write_parameters(name, model.state_dict())
    done = run("average-checkpoints", tmp_path / "mean", *names)
    assert "done 3, failed 0 (checkpoints)" in done.stderr
    mean = load_model(tmp_path / "mean")
    assert mean.config == models[0].config
    for name, value in mean.state_dict().items():
        expected = sum(model.state_dict()[name].double() for model in models) / 3
        torch.testing.assert_close(value, expected.float(), rtol=0, atol=0)
    feats = save_ark(tmp_path / "f.ark", {"u": np.random.default_rng(0).standard_normal((45, 3)).astype("f4")})
    run("extract-fhvae", tmp_path / "mean", feats, f"ark:{tmp_path}/mu2.ark")
    assert load_ark(tmp_path / "mu2.ark")["u"].shape == (2,)


def test_refusals_of_averaging(tmp_path):
    save_model(tmp_path / "a", make_model())
    save_model(tmp_path / "b", make_model(hidden_dim=9))
    save_model(tmp_path / "c", make_model())
    refused("has shape", "average-checkpoints", tmp_path / "out", tmp_path / "a", tmp_path / "b")
    for config in ({"format": "voxark-other"}, {"format": ["x"]}, ["voxark-fhvae"], {}):
        (tmp_path / "c/config.json").write_text(json.dumps(config))
        refused("c/config.json: this is no configuration of a model of voxark", "average-checkpoints",
                tmp_path / "out", tmp_path / "c")
    (tmp_path / "c/config.json").write_text('{"format": "voxark-e2e"}')  # the kinds are not mixed up
    refused("c/config.json: ", "average-checkpoints", tmp_path / "out", tmp_path / "a", tmp_path / "c")
    save_state(tmp_path / "a/other.pt", {"x": torch.zeros(2)})
    refused("is missing", "average-checkpoints", tmp_path / "out", tmp_path / "a/other.pt")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("shape, message", [
    ((30, 0), "f.ark: features of dimension 0"),
    ((12, 3), "f.ark: no sequence has the 20 frames of a segment: give longer ones"),
])
def test_tables_without_anything_to_train_on(tmp_path, shape, message):
    feats = save_ark(tmp_path / "f.ark", {f"u{n}": np.ones(shape, np.float32) for n in range(4)})
    refused(message, "train-fhvae", *SMALL, feats, tmp_path / "m")
    assert not (tmp_path / "m/final.pt").exists()


def test_networks_too_large_are_refused(tmp_path):
    feats = save_ark(tmp_path / "f.ark", {f"u{n}": np.ones((30, 3), np.float32) for n in range(4)})
    refused("networks described there cannot be made", "train-fhvae", *SMALL, "--hidden-dim=2000000000", feats,
            tmp_path / "m")
    for words in ("--hidden-dim=99999999999", "--num-layers=2000000000"):
        refused("at most", "train-fhvae", *SMALL, words, feats, tmp_path / "m")


def test_held_out_features_beyond_all_bounds_are_named(tmp_path):
    rng = np.random.default_rng(0)
    values = {f"u{n}": rng.standard_normal((30, 3)).astype("f4") for n in range(4)}
    feats = save_ark(tmp_path / "f.ark", values)
    values["u2"][3, 1] = 1e30
    dev = save_ark(tmp_path / "dev.ark", values)
    refused("with u2: look at its features", "train-fhvae", *SMALL, f"--dev-feats={dev}", feats, tmp_path / "m")


# ------------------------------------------------------------------------------------------- folders, extraction


@pytest.mark.parametrize("name, value", [
    ("z1_dim", True), ("hidden_dim", 10**23), ("segment_length", 2**31), ("num_layers", 2 * 10**9),
    ("pz2_var", float("nan")), ("pz1_var", float("inf")), ("pz2_var", True), ("logvar_clamp", "10"),
    ("normalize", "both"), ("arch", "cnn"), ("input_dim", True), ("input_dim", 10**23),
])
def test_configs_that_make_no_sense(tmp_path, name, value):
    save_model(tmp_path / "m", make_model())
    config = json.loads((tmp_path / "m/config.json").read_text())
    (config if name == "input_dim" else config["options"])[name] = value
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(VoxarkError, match=f"m/config.json: .*{name.replace('_', '.')}") as error:
        load_model(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_what_is_not_finite_is_not_written(tmp_path):
    save_model(tmp_path / "m", make_model())
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal((45, 3)).astype("f4") for name in ("good", "large")}
    values["large"][3] = 1e30
    feats = save_ark(tmp_path / "f.ark", values)
    done = run("extract-fhvae", f"--bound=ark,t:{tmp_path}/bound", tmp_path / "m", feats, check=False)
    assert "large: bound is not finite" in done.stderr and "done 1, failed 1" in done.stderr
    lines = (tmp_path / "bound").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["good"] and "inf" not in lines[0]


def test_pictures_name_the_key_of_bad_features(tmp_path):
    pytest.importorskip("matplotlib")
    save_model(tmp_path / "m", make_model())
    for value, dim, message in ((np.nan, 3, "u2: feature at frame 4, column 1 is nan"), (1.0, 4, "takes dimension 3")):
        values = {f"u{n}": np.ones((45, dim), np.float32) for n in range(3)}
        values["u2"][4, 1] = value
        feats = save_ark(tmp_path / "f.ark", values)
        refused(message, "plot-fhvae", "--num-a=2", "--num-b=1", "recombination", tmp_path / "p.svg", tmp_path / "m",
                feats)
        assert not (tmp_path / "p.svg").exists()


def test_an_empty_table_of_speakers_is_no_wish_for_none(tmp_path):
    pytest.importorskip("sklearn")
    feats = save_ark(tmp_path / "z.ark", {f"u{n}": np.ones((3, 2), np.float32) for n in range(3)})
    (tmp_path / "utt2spk").write_text("")
    refused("utt2spk: the table is empty", "measure-disentanglement", f"--utt2spk={tmp_path}/utt2spk", feats, feats)
