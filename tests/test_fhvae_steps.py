"""steps/train_fhvae.sh and extract_fhvae.sh: going on, what is refused, workers, jobs, dropped utterances."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import environment, forked_environment, run, save_ark, shell, write_lines

torch = pytest.importorskip("torch")

from voxark import tables  # noqa: E402
from voxark.nnet.checkpoint import load_state  # noqa: E402

SMALL = ("--segment-length=10 --arch=fc --hidden-dim=16 --z1-dim=3 --z2-dim=4 --sequence-batch-size=12 "
         "--segment-batch-size=16 --segment-shift=4 --dev-segment-shift=5 --steps-per-epoch=10 --dev-share=0.2")
NUM = 24


def step(command, check=True):
    """Run a step; its programs are forked."""
    return shell(command, check=check, env=forked_environment(with_torch=True))


def make_data(folder, num=NUM, short=0):
    """A data directory of random features; the first ``short`` utterances have fewer frames than a segment."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    feats = {}
    for n in range(num):
        frames = 6 if n < short else 20 + n
        feats[f"s{n // 4}-u{n:02d}"] = (rng.standard_normal((frames, 5)) + n % 3).astype(np.float32)
    save_ark(folder / "f.ark", feats)
    run("copy-feats", f"ark:{folder}/f.ark", f"ark,scp:{folder}/g.ark,{folder}/feats.scp")
    write_lines(folder / "utt2spk", *(f"{key} {key[:2]}" for key in feats))
    write_lines(folder / "utt2num_frames", *(f"{key} {len(value)}" for key, value in feats.items()))
    shell(f"utt2spk_to_spk2utt {folder}/utt2spk > {folder}/spk2utt")
    return folder


def parameters(folder):
    return load_state(str(folder / "state.pt"))["model"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("fhvae") / "train", short=1)


@pytest.fixture(scope="module")
def model(data):
    """A folder that train_fhvae.sh has made, and what it printed."""
    folder = data.parent / "m"
    done = step(f"train_fhvae.sh --train-opts '{SMALL} --num-steps=20' {data} {folder}")
    return folder, done


def test_trains(data, model):
    folder, done = model
    assert b"epoch 2, step 20" in done.stdout
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert (folder / "dropped").read_text() == "s0-u00 shorter than a segment\n"
    assert "1 of 24 utterances dropped" in done.stderr
    assert f"--utt2num-frames={data}/utt2num_frames" in (folder / "log/train.log").read_text()


def test_a_rerun_does_nothing(data, model):
    folder, _ = model
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = step(f"train_fhvae.sh --train-opts '{SMALL} --num-steps=20' {data} {folder}")
    assert b"is up to date" in done.stdout and b"epoch" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_other_options_are_refused_or_start_anew(data, tmp_path):
    config, folder = tmp_path / "fhvae.conf", tmp_path / "m"

    def train(num_steps, restart="", check=True):
        opts = f"--train-config {config} --train-opts '{SMALL} --num-steps={num_steps}'"
        return step(f"train_fhvae.sh {restart} {opts} {data} {folder}", check=check)

    write_lines(config, "--alpha=3")
    train(10)
    first = parameters(folder)
    assert b"epoch 2, step 20" in train(20).stdout  # more of the same
    write_lines(config, "--alpha=4")
    assert train(20, check=False).returncode == 1
    assert "--alpha=4.0 now, but --alpha=3.0 in the saved run" in (folder / "log/train.log").read_text()
    assert (folder / "final.pt").exists()
    again = train(10, "--restart true")
    assert b"it starts anew" in again.stdout and b"epoch 1, step 10" in again.stdout
    assert not same(parameters(folder), first)
    write_lines(config, "--alpha=3")
    train(10, "--restart true")
    assert same(parameters(folder), first)


def test_other_features_are_refused_or_start_anew(tmp_path):
    data, folder = make_data(tmp_path / "data"), tmp_path / "m"
    train = f"train_fhvae.sh --train-opts '{SMALL} --num-steps=10' {data} {folder}"
    step(train)
    kept = (folder / "final.pt").read_bytes()
    run("copy-feats", f"ark:{data}/f.ark", f"ark,scp:{data}/h.ark,{data}/feats.scp")
    refused = step(train, check=False)
    assert refused.returncode == 1 and "was trained on other features" in refused.stderr
    assert (folder / "final.pt").read_bytes() == kept
    assert b"it starts anew" in step(train.replace("sh ", "sh --restart true ", 1)).stdout


def test_a_killed_training_goes_on_to_the_same_model(data, tmp_path):
    train = f"train_fhvae.sh --train-opts '{SMALL} --save-interval=7 --num-steps={{}}' {data} {{}}"
    step(train.format(150, tmp_path / "whole"))
    command = train.format(150, tmp_path / "killed")
    launcher, pid = tmp_path / "launch.sh", tmp_path / "pid"
    launcher.write_text(f'#!/bin/bash\nlog=$1; shift; echo $$ >{pid}; exec "$@" >"$log" 2>&1\n')
    launcher.chmod(0o755)
    process = subprocess.Popen(["bash", "-c", command.replace("sh ", f"sh --train-cmd {launcher} ", 1)],
                               env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "killed/metrics.jsonl"
    try:
        limit = time.monotonic() + 60
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert process.wait() == 137
    assert not (tmp_path / "killed/train.done").exists()
    assert load_state(str(tmp_path / "killed/state.pt"))["step"] < 150
    assert b"step 150" in step(command).stdout
    assert same(parameters(tmp_path / "whole"), parameters(tmp_path / "killed"))


def test_two_workers(data, tmp_path):
    train = f"train_fhvae.sh --train-opts '{SMALL} --num-steps=10' --num-workers 2 {data} {tmp_path}/m"
    shell(train)
    log = (tmp_path / "m/log/train.log").read_text()
    assert log.count("epoch 1, step 10") == 1
    assert load_state(str(tmp_path / "m/state.pt"))["settings"]["world_size"] == 2
    assert b"up to date" in step(train).stdout
    again = step(train.replace("--num-workers 2", "--restart true"))
    assert b"it starts anew" in again.stdout


def test_any_number_of_jobs_extracts_the_same(data, model, tmp_path):
    names = {"mu2": "vectors", "mu1": "mu1", "z1": "z1", "z2": "z2", "z1_var": "z1_var", "z2_var": "z2_var"}
    made = {}
    for nj in (1, 3, 50):
        out = tmp_path / str(nj)
        what = f"--segment-shift 5 --what '{' '.join(names)}'"
        done = step(f"extract_fhvae.sh --nj {nj} {what} {model[0]} {data} {out}")
        assert (out / "dropped").read_text().startswith("s0-u00 ") and "1 of 24" in done.stderr
        for name, table in names.items():
            keys = [line.split()[0] for line in (out / f"{table}.scp").read_text().splitlines()]
            assert keys == sorted(keys) and len(keys) == NUM - 1
            kind = "vec" if name in ("mu2", "mu1") else "mat"
            with tables.open_reader(kind, f"scp:{out}/{table}.scp") as reader:
                made.setdefault(name, []).append(dict(reader))
    for name, (one, *others) in made.items():
        for other in others:
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=f"{name} {key}")
    frames = dict(line.split() for line in (data / "utt2num_frames").read_text().splitlines())
    dims = json.loads((model[0] / "config.json").read_text())
    for key, value in made["z1"][0].items():
        assert value.shape == ((int(frames[key]) - 10) // 5 + 1, 3)
    assert made["mu2"][0]["s1-u04"].shape == (4,) and dims
    assert all((value > 0).all() for value in made["z2_var"][0].values())


def test_only_what_is_asked_for(data, model, tmp_path):
    step(f"extract_fhvae.sh --nj 2 --what 'mu2 z1' {model[0]} {data} {tmp_path}/e")
    step(f"extract_fhvae.sh --nj 1 --what mu1 {model[0]} {data} {tmp_path}/e")
    assert sorted(path.name for path in (tmp_path / "e").glob("*.scp")) == ["mu1.1.scp", "mu1.scp"]


def test_many_dropped_utterances_are_an_error(model, tmp_path):
    data = make_data(tmp_path / "data", num=8, short=4)
    failed = step(f"extract_fhvae.sh --nj 4 {model[0]} {data} {tmp_path}/e", check=False)
    assert failed.returncode == 1 and "more than 5 %" in failed.stderr
    assert len((tmp_path / "e/dropped").read_text().splitlines()) == 4
    assert not (tmp_path / "e/vectors.scp").exists()


@pytest.mark.parametrize("command, message", [
    ("train_fhvae.sh {data}", "Usage"),
    ("extract_fhvae.sh {model} {data}", "Usage"),
    ("train_fhvae.sh --use-vad true {data} {out}", "use-vad"),
    ("train_fhvae.sh --nj 2 {data} {out}", "nj"),
    ("extract_fhvae.sh --subsample 2 {model} {data} {out}", "subsample"),
    ("train_fhvae.sh --num-workers 0 {data} {out}", "--num-workers 0: expected a number above zero"),
    ("train_fhvae.sh --train-config none.conf {data} {out}", "none.conf: no such file"),
    ("train_fhvae.sh {out} {out}", "feats.scp is missing or empty"),
    ("extract_fhvae.sh {data} {data} {out}", "is it a folder of train_fhvae.sh?"),
    ("extract_fhvae.sh {model} {data} {model}", "holds the model"),
    ("extract_fhvae.sh {model} {data} {data}", "holds the data"),
    ("extract_fhvae.sh --what 'mu2 mu3' {model} {data} {out}", "--what: mu3: expected mu2, mu1,"),
    ("extract_fhvae.sh --what 'z1 z1' {model} {data} {out}", "z1 is there twice"),
    ("extract_fhvae.sh --what ' ' {model} {data} {out}", "nothing to write is asked for"),
    ("extract_fhvae.sh --segment-shift 0 {model} {data} {out}", "--segment-shift 0"),
    ("extract_fhvae.sh --nj x {model} {data} {out}", "--nj x"),
])
def test_wrong_arguments(command, message, data, model, tmp_path):
    done = step(command.format(data=data, model=model[0], out=tmp_path / "out"), check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert (model[0] / "final.pt").exists()


def test_a_damaged_model_is_named_in_the_log(data, model, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_bytes((model[0] / "config.json").read_bytes())
    (tmp_path / "m/final.pt").write_bytes((model[0] / "final.pt").read_bytes()[:100])
    done = step(f"extract_fhvae.sh --nj 2 {tmp_path}/m {data} {tmp_path}/e", check=False)
    assert done.returncode == 1 and "has failed; see" in done.stderr
    assert "final.pt" in (tmp_path / "e/log/extract.1.log").read_text()
