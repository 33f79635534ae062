"""End-to-end training: it learns, goes on to the same bits, refuses what cannot go on; all parts fit."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import ROOT, environment, load_ark, run, save_ark, shell, write_lines

torch = pytest.importorskip("torch")

from voxark.e2e import options as groups  # noqa: E402
from voxark.e2e.architectures import ExtractorOptions  # noqa: E402
from voxark.e2e.backend_start import BackendStartOptions  # noqa: E402
from voxark.e2e.batches import BatchOptions  # noqa: E402
from voxark.e2e.chunks import NormalizeOptions  # noqa: E402
from voxark.command_line import read_options  # noqa: E402
from voxark.e2e.inputs import InputOptions  # noqa: E402
from voxark.feat.fbank import FbankOptions  # noqa: E402
from voxark.e2e.model import load_model  # noqa: E402
from voxark.e2e.run_folder import E2eRunFolder  # noqa: E402
from voxark.e2e.spec_augment import SpecAugmentOptions  # noqa: E402
from voxark.e2e.speakers import (  # noqa: E402
    DevOptions,
    Labelled,
    all_pairs,
    hold_utterances_out,
    label,
    place_trials,
    split_speakers,
)
from voxark.e2e.training import open_training  # noqa: E402
from voxark.e2e.validation import drawn_utterances, score_trials, verification_figures  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.nnet.checkpoint import load_state  # noqa: E402
from voxark.nnet.model_folder import read_parameters  # noqa: E402
from voxark.nnet.run_folder import check_same  # noqa: E402
from voxark.nnet.stop_request import StopRequest  # noqa: E402

GROUPS = {
    "extractor": ExtractorOptions,
    "backend": BackendStartOptions,
    "loss": groups.LossOptions,
    "weights": groups.TrialWeightOptions,
    "batches": BatchOptions,
    "normalize": NormalizeOptions,
    "inputs": InputOptions,
    "masks": SpecAugmentOptions,
    "optimizer": groups.OptimizerOptions,
    "gradient": groups.GradientOptions,
    "dev": DevOptions,
    "run": groups.E2eRunOptions,
}
SMALL = {
    "channels": 16,
    "embedding_dim": 16,
    "batch_speakers": 8,
    "min_chunk": 20,
    "max_chunk": 30,
    "batches_per_epoch": 6,
    "num_epochs": 2,
    "dev_share": 0.3,
    "cmn": "none",
    "init_batches": 2,
    "loader_threads": 1,
    "lr": 0.002,
}
NUM_SPEAKERS, NUM_UTTERANCES = 24, 5


def all_options(**values):
    """Options with SMALL and ``values`` in place of the defaults."""
    values = {**SMALL, **values}
    found = {
        name: kind(
            **{
                field.name: values.pop(field.name)
                for field in dataclasses.fields(kind)
                if field.name in values
            }
        )
        for name, kind in GROUPS.items()
    }
    assert not values, values
    return groups.Options(**found)


def words(**values):
    """The same as a command line."""
    values = {**SMALL, **values}
    return [
        f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in values.items()
    ]


def synthetic(folder, num_speakers, seed=0, dim=10):
    """Features of speakers whose voice is a mean in half of the directions; sessions differ in the others."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    features, lines = {}, []
    for speaker in range(num_speakers):
        voice = np.append(rng.standard_normal(dim // 2), np.zeros(dim - dim // 2))
        for number in range(NUM_UTTERANCES):
            session = np.append(
                0.2 * rng.standard_normal(dim // 2), 2.0 * rng.standard_normal(dim - dim // 2)
            )
            frames = voice + session + rng.standard_normal((int(rng.integers(25, 45)), dim))
            key = f"spk{speaker:02d}-utt{number}"
            features[key] = (frames @ rotation).astype(np.float32)
            lines.append(f"{key} spk{speaker:02d}")
    folder.mkdir(exist_ok=True)
    return save_ark(folder / "feats.ark", features), write_lines(folder / "utt2spk", *lines)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(feats-rspecifier, utt2spk-rspecifier) of a small training set."""
    return synthetic(tmp_path_factory.mktemp("data"), NUM_SPEAKERS)


def train(data, folder, stop_at=None, **values):
    """Train in this process; returns the Trainer. With ``stop_at`` a signal comes before that batch."""
    options = all_options(**values)
    options.inputs.fbank = read_options(FbankOptions, options.inputs.fbank_config)
    trainer = open_training(*data, str(folder), options, lambda key, reason: None)
    if stop_at is not None:
        following = trainer.source.next

        def next_batch():
            if trainer.batch == stop_at:
                os.kill(os.getpid(), signal.SIGUSR1)
            return following()

        trainer.source.next = next_batch
    trainer.outcome = trainer.run()
    trainer.source.close()
    trainer.folder.close()
    return trainer


def history(folder):
    """The lines of metrics.jsonl without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


def same_parameters(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -------------------------------------------------------------------------------------------------- it learns


def test_learns_and_the_programs_use_it(tmp_path):
    feats, utt2spk = synthetic(tmp_path / "train", 40)
    other = synthetic(tmp_path / "test", 15, seed=0)  # the same rotation, and the first speakers' voices
    model = tmp_path / "model"
    trainer = train(
        (feats, utt2spk), model, batches_per_epoch=30, num_epochs=3, batch_speakers=16, channels=32
    )
    figures = trainer.history
    assert figures[0]["eer"] > 0.3 and figures[-1]["eer"] < 0.75 * figures[0]["eer"]
    assert figures[-1]["train_ver"] < figures[1]["train_ver"] < 1.0
    assert [line["epoch"] for line in figures] == [0, 1, 2, 3] == [line["epoch"] for line in history(model)]
    assert {
        "config.json",
        "final.pt",
        "state.pt",
        "dev_utt2spk",
        "dev_trials",
        "dplda",
        "front.mat",
        "skipped",
        "speakers",
    } <= set(os.listdir(model))

    run("extract-embeddings", "--device=cpu", model, other[0], f"ark:{tmp_path}/e.ark")
    keys = sorted(load_ark(tmp_path / "e.ark"))
    pairs = list(itertools.combinations(keys, 2))[:300]
    write_lines(tmp_path / "trials", *(f"{a} {b}" for a, b in pairs))
    vectors = f"ark:{tmp_path}/e.ark"
    run(
        "score-trials",
        "--backend=e2e",
        f"--model={model}",
        tmp_path / "trials",
        vectors,
        vectors,
        tmp_path / "s1",
    )
    run("transform-vec", "--normalize-length", model / "front.mat", vectors, f"ark:{tmp_path}/t.ark")
    vectors = f"ark:{tmp_path}/t.ark"
    run(
        "score-trials",
        "--backend=dplda",
        f"--model={model}/dplda",
        tmp_path / "trials",
        vectors,
        vectors,
        tmp_path / "s2",
    )
    scores = [
        np.array([float(line.split()[2]) for line in (tmp_path / name).read_text().splitlines()])
        for name in ("s1", "s2")
    ]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)
    embeddings = load_ark(tmp_path / "e.ark")
    whole = load_model(str(model)).scorer.score_numpy(np.array([embeddings[key] for key in keys]))
    place = {key: number for number, key in enumerate(keys)}
    np.testing.assert_allclose(scores[0], [whole[place[a], place[b]] for a, b in pairs], rtol=1e-4, atol=1e-4)


def test_the_best_model_is_calibrated(data, tmp_path):
    trainer = train(data, tmp_path / "m", batches_per_epoch=20, lr=0.01, calibrate=True)
    model, judge = load_model(str(tmp_path / "m")), trainer.judge
    scores = score_trials(model.scorer, judge.utterances.embed(model), judge.trials)
    found = verification_figures(scores, judge.trials.target, 0.5)
    best = trainer.history[trainer.best_epoch]
    assert found["min_cllr"] == pytest.approx(best["min_cllr"], abs=1e-5)
    assert found["cllr"] < min(best["cllr"], 1.1 * found["min_cllr"] + 0.1)


def test_figures():
    rng = np.random.default_rng(0)
    target = rng.random(500) < 0.3
    scores = rng.standard_normal(500) + 2.0 * target
    found = verification_figures(scores, target, 0.2)
    tau = np.log(0.2 / 0.8)
    loss = 0.2 * np.mean(np.logaddexp(0, -(scores[target] + tau))) + 0.8 * np.mean(
        np.logaddexp(0, scores[~target] + tau)
    )
    assert found["dev_ver"] == pytest.approx(loss / -(0.2 * np.log(0.2) + 0.8 * np.log(0.8)), rel=1e-9)
    assert verification_figures(0 * scores, target, 0.2)["dev_ver"] == pytest.approx(1.0)
    assert np.isnan(verification_figures(np.append(scores[1:], np.nan), target, 0.2)["eer"])


# -------------------------------------------------------------------------------- every part with every other


COMBINATIONS = [
    ("xvector", "joint", "dplda", "B", {}),
    ("xvector", "identification", "cosine", "identification", {"head": "aam"}),
    ("xvector", "verification", "snyder", "A", {"utts_per_speaker": 4, "cov_weight": 0.1}),
    ("xvector", "triplet", "diagonal", "two-chunks", {"min_chunk": 10, "max_chunk": 14}),
    (
        "xvector",
        "joint",
        "dplda",
        "A",
        {"max_enroll": 2, "loss_schedule": "linear", "ramp_epochs": 1, "head_dim": 12},
    ),
    (
        "xvector",
        "joint",
        "diagonal",
        "B",
        {"trial_weights": "blue", "c": 0.1, "optimizer": "sgd", "clip": 0.5},
    ),
    ("xvector", "verification", "dplda", "A", {"trial_weights": "meta", "meta_interval": 1, "front_dim": 8}),
    (
        "xvector",
        "joint",
        "cosine",
        "A",
        {"trial_weights": "meta", "c": 0.2, "optimizer": "sgd", "max_enroll": 0},
    ),
    ("xvector", "joint", "dplda", "B", {"norm": "batch", "short_utterances": "repeat", "relu_repair": 1e-4}),
    (
        "xvector",
        "joint",
        "snyder",
        "B",
        {"norm": "group", "cmn": "sliding", "freq_masks": 1, "time_masks": 1},
    ),
    ("ecapa", "joint", "cosine", "two-chunks", {"head": "am", "min_chunk": 10, "max_chunk": 14}),
    ("ecapa", "verification", "diagonal", "B", {"optimizer": "adamw", "weight_decay": 0.1, "warmup": 5}),
    ("ecapa", "identification", "dplda", "A", {"relu_repair": 1e-4, "best": "eer"}),
    ("ecapa", "triplet", "snyder", "identification", {"triplet_mining": "hardest"}),
    ("resnet", "joint", "dplda", "B", {"channels": 2, "best": "loss"}),
    ("resnet", "verification", "cosine", "identification", {"channels": 2, "best": "cllr", "exact": True}),
    ("fixed-td", "joint", "dplda", "B", {"fixed_frames": 20, "short_input": "pad", "long_input": "crop"}),
    ("fixed-td", "triplet", "cosine", "A", {"fixed_frames": 20, "short_input": "pad", "long_input": "crop"}),
]


@pytest.mark.parametrize("arch, loss, backend, batches, more", COMBINATIONS)
def test_combinations_take_steps(arch, loss, backend, batches, more, data, tmp_path):
    trainer = train(
        data,
        tmp_path / "m",
        arch=arch,
        loss=loss,
        backend=backend,
        batches=batches,
        **{"batches_per_epoch": 2, "num_epochs": 1, **more},
    )
    line = trainer.history[-1]
    assert trainer.batch == 2 and np.isfinite([line["train_loss"], line["dev_loss"], line["eer"]]).all()
    model = load_model(str(tmp_path / "m"))
    assert model.config["arch"] == arch and model.config["scorer"]["kind"] == backend
    assert (model.head is not None) == (loss in ("joint", "identification"))
    before, now = load_state(str(tmp_path / "m/state.pt"))["model"], trainer.model.state_dict()
    assert same_parameters(before, now)


def test_exact_gradients_are_those_of_the_plain_way(data, tmp_path, caplog):
    with caplog.at_level("INFO", logger="voxark"):
        plain = train(data, tmp_path / "a", verify_grad=True, num_epochs=1)
    exact = train(data, tmp_path / "b", exact=True, micro_batch=3, num_epochs=1)
    said = [
        record.getMessage() for record in caplog.records if "differ from the plain" in record.getMessage()
    ]
    assert len(said) == 1 and float(said[0].split(" by ")[1].split()[0]) < 1e-4
    for one, other in zip(plain.model.parameters(), exact.model.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_start_from_a_model_and_train_the_back_end_alone(data, tmp_path):
    train(data, tmp_path / "first", loss="identification", num_epochs=1)
    second = train(
        data,
        tmp_path / "second",
        loss="joint",
        num_epochs=1,
        init_model=str(tmp_path / "first"),
        freeze_extractor=True,
    )
    old = load_model(str(tmp_path / "first"))
    assert same_parameters(old.extractor.state_dict(), second.model.extractor.state_dict())
    assert not same_parameters(old.scorer.state_dict(), second.model.scorer.state_dict())
    assert not torch.equal(old.head.weight, second.model.head.weight)
    for change, text in (({"cmn": "chunk"}, "--cmn=none"), ({"init_model": ""}, "needs --init-model")):
        with pytest.raises(VoxarkError, match=text):
            train(
                data,
                tmp_path / "third",
                freeze_extractor=True,
                **{"init_model": str(tmp_path / "first"), **change},
            )


def test_a_strong_anchor_keeps_the_parameters_where_they_were(data, tmp_path):
    found = []
    for anchor in (0.0, 100.0):
        start = train(
            data, tmp_path / f"s{anchor}", num_epochs=0, anchor=anchor, optimizer="sgd"
        ).model.state_dict()
        model = train(data, tmp_path / f"m{anchor}", anchor=anchor, optimizer="sgd", momentum=0, clip=0).model
        found.append(
            sum(
                float((model.state_dict()[name] - start[name]).square().sum())
                for name in start
                if start[name].is_floating_point()
            )
        )
    assert 0.0 < found[1] < 0.3 * found[0]


def test_starts_from_files_of_a_recipe(data, tmp_path):
    train(data, tmp_path / "a", num_epochs=0)
    run("extract-embeddings", "--device=cpu", tmp_path / "a", data[0], f"ark:{tmp_path}/e.ark")
    vectors = f"ark:{tmp_path}/e.ark"
    run("compute-vec-mean", vectors, tmp_path / "mean.vec")
    run(
        "train-lda",
        "--dim=6",
        f"ark:transform-vec --mean={tmp_path}/mean.vec {vectors} ark:- |",
        data[1],
        tmp_path / "lda.mat",
        env=environment(),
    )
    spk2utt = write_lines(
        tmp_path / "spk2utt",
        *(
            " ".join([f"spk{s:02d}", *(f"spk{s:02d}-utt{n}" for n in range(NUM_UTTERANCES))])
            for s in range(NUM_SPEAKERS)
        ),
    )
    chain = f"transform-vec --mean={tmp_path}/mean.vec --normalize-length {tmp_path}/lda.mat"
    front = f"ark:{chain} {vectors} ark:- |"
    run("train-plda", spk2utt, front, tmp_path / "plda", env=environment())
    files = {
        "init_mean": f"{tmp_path}/mean.vec",
        "init_lda": f"{tmp_path}/lda.mat",
        "init_plda": f"{tmp_path}/plda",
    }
    trainer = train(data, tmp_path / "b", num_epochs=0, calibrate=False, **files)
    lda, mean = (
        trainer.model.scorer.front.weight.detach().numpy(),
        trainer.model.scorer.front.bias.detach().numpy(),
    )
    assert lda.shape == (6, 16) and np.isfinite(mean).all()
    # the affine map of the calibration is all that the scores of the files' chain and of the scorer differ by
    run(
        "score-trials",
        "--backend=plda",
        "--normalize-length=false",
        f"--model={tmp_path}/plda",
        tmp_path / "b/dev_trials",
        front,
        front,
        tmp_path / "s",
        env=environment(),
    )
    of_chain = np.array([float(line.split()[2]) for line in (tmp_path / "s").read_text().splitlines()])
    model, judge = trainer.model, trainer.judge
    own = score_trials(model.scorer, judge.utterances.embed(model), judge.trials)
    assert abs(np.corrcoef(of_chain, own)[0, 1]) > 0.999999
    with pytest.raises(VoxarkError, match="front-dim"):
        train(data, tmp_path / "c", num_epochs=0, front_dim=5, **files)


# -------------------------------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize(
    "stop_at, more",
    [
        (3, {}),
        (6, {"trial_weights": "meta", "meta_interval": 2, "batches": "A", "anchor": 0.1}),
        (7, {"relu_repair": 1e-3, "arch": "ecapa"}),
        (10, {"optimizer": "sgd", "exact": True, "micro_batch": 5, "loss": "identification", "head": "am"}),
    ],
)
def test_goes_on_to_the_same_bits(stop_at, more, data, tmp_path):
    whole = train(data, tmp_path / "whole", **more)
    stopped = train(data, tmp_path / "parts", stop_at=stop_at, **more)
    assert stopped.outcome.signum == signal.SIGUSR1 and stopped.batch == stop_at + 1 and not stopped.finished
    resumed = train(data, tmp_path / "parts", resume=True, **more)
    assert (
        resumed.outcome.signum is None
        and resumed.outcome.chunks_here < resumed.outcome.chunks == whole.outcome.chunks
    )
    assert same_parameters(whole.model.state_dict(), resumed.model.state_dict())
    for name in ("final.pt", "config.json", "dplda"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    again = train(data, tmp_path / "parts", resume=True, **more)
    assert again.outcome.chunks_here == 0 and again.finished
    longer = train(data, tmp_path / "parts", resume=True, num_epochs=3, **more)
    assert longer.epoch == 3 and history(tmp_path / "parts")[:3] == history(tmp_path / "whole")


def kill_when_saved(command, path, signum, delay):
    """Start a program, and send it a signal ``delay`` seconds after it has written ``path`` anew."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if path.exists() and path.stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signum)
    said = process.communicate(timeout=60)[1].decode()
    return process.returncode, said


def test_killed_programs_leave_a_state_to_go_on_from(data, tmp_path):
    arguments = words(batches_per_epoch=15, save_interval=1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(data, whole, batches_per_epoch=15, save_interval=1)
    command = [sys.executable, str(ROOT / "bin/train-e2e-verif"), *arguments, "--resume", *data, str(parts)]
    rng = np.random.default_rng()
    for signum in (signal.SIGKILL, signal.SIGTERM):
        status, said = kill_when_saved(command, parts / "state.pt", signum, rng.uniform(0.0, 0.1))
        assert status in (-signum, 0), said
        if status == -signal.SIGTERM:
            assert "--resume continues" in said
        assert load_state(str(parts / "state.pt"))["batch"] > 0 or signum == signal.SIGKILL
        assert read_parameters(str(parts / "final.pt"))
    done = run("train-e2e-verif", *arguments, "--resume", *data, parts)
    assert "chunks in" in done.stderr or "finished run" in done.stderr
    assert (whole / "final.pt").read_bytes() == (parts / "final.pt").read_bytes()
    assert history(whole) == history(parts)
    assert sorted(os.listdir(whole)) == sorted(os.listdir(parts))  # nothing unfinished is left
    assert "holds a finished run" in run("train-e2e-verif", *arguments, "--resume", *data, parts).stderr


def test_what_cannot_go_on_is_refused(data, tmp_path):
    folder = tmp_path / "m"
    train(data, folder, stop_at=2)
    with pytest.raises(VoxarkError, match="--resume goes on with it"):
        train(data, folder)
    for change, option in (
        ({"lr": 0.003}, "--lr=0.003"),
        ({"batch_speakers": 7}, "--batch-speakers=7"),
        ({"srand": 1}, "--srand=1"),
        ({"arch": "ecapa"}, "--arch=ecapa"),
    ):
        with pytest.raises(VoxarkError, match=option):
            train(data, folder, resume=True, **change)
    fewer = write_lines(tmp_path / "utt2spk", *open(data[1][4:]).read().splitlines()[:-NUM_UTTERANCES])
    before = (folder / "dev_utt2spk").read_bytes()
    with pytest.raises(VoxarkError, match="the data are not those"):
        train((data[0], fewer), folder, resume=True)
    assert (folder / "dev_utt2spk").read_bytes() == before
    state = bytearray((folder / "state.pt").read_bytes())
    (folder / "state.pt").write_bytes(state[: len(state) // 2])
    with pytest.raises(VoxarkError, match="state.pt"):
        train(data, folder, resume=True)


def test_two_runs_cannot_share_a_folder(tmp_path):
    held = E2eRunFolder(str(tmp_path / "m"))
    with pytest.raises(VoxarkError, match="another process"):
        E2eRunFolder(str(tmp_path / "m"))
    held.close()
    E2eRunFolder(str(tmp_path / "m")).close()


def test_check_same_and_second_signals():
    check_same({"lr": 1, "num_epochs": 3}, {"lr": 1, "num_epochs": 4})
    with pytest.raises(VoxarkError, match="--min-chunk=2 now, but --min-chunk=1"):
        check_same({"min_chunk": 1}, {"min_chunk": 2})
    # a shell starts what runs in the background with SIGINT ignored, and the class leaves such signals alone
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# -------------------------------------------------------------------------------------------- what goes wrong


def test_losses_that_are_not_finite(data, tmp_path):
    trainer = open_training(*data, str(tmp_path / "m"), all_options(), lambda key, reason: None)
    take, broken = trainer.steps.take, {3}
    trainer.steps.take = lambda batch, number, lr: None if number in broken else take(batch, number, lr)
    trainer.run()
    assert trainer.num_broken == 1 and trainer.history[-1]["lr"] == pytest.approx(0.001)
    trainer.source.close()
    trainer.folder.close()
    trainer = open_training(*data, str(tmp_path / "n"), all_options(), lambda key, reason: None)
    trainer.steps.take = lambda batch, number, lr: None
    with pytest.raises(VoxarkError, match="second time.*spk"):
        trainer.run()
    trainer.source.close()
    trainer.folder.close()


def test_a_run_that_diverges_ends_with_status_1(data, tmp_path):
    done = run(
        "train-e2e-verif", *words(optimizer="sgd", lr=1e30, clip=0), *data, tmp_path / "m", check=False
    )
    assert done.returncode == 1 and "not finite for the second time" in done.stderr
    assert "its utterances: spk" in done.stderr
    assert load_model(str(tmp_path / "m")).config["epoch"] == 0


def test_errors_of_the_program(data, tmp_path):
    assert "wrong number of arguments" in run("train-e2e-verif", check=False).stderr
    done = run("train-e2e-verif", "--arch=nosuch", *data, tmp_path / "m", check=False)
    assert done.returncode == 1 and "--arch=nosuch" in done.stderr
    done = run("train-e2e-verif", f"ark:{tmp_path}/none.ark", data[1], tmp_path / "m", check=False)
    assert done.returncode == 1 and "none.ark" in done.stderr


@pytest.mark.parametrize(
    "change, text",
    [
        ({"audio": False, "noise_dir": "noises"}, "--noise-dir"),
        ({"arch": "waveform"}, "--audio"),
        ({"p_target": 1.0}, "--p-target"),
        ({"dev_feats": "ark:x"}, "--dev-utt2spk"),
        ({"dev_share": 0.99}, "too few"),
        ({"c": 0.3}, "--trial-weights"),
        ({"trial_weights": "meta", "loss": "triplet"}, "--loss"),
        ({"trial_weights": "blue", "c": 0.1, "max_enroll": 2}, "--max-enroll"),
        ({"tensorboard": True}, "tensorboard"),
        ({"norm": "batch", "exact": True}, "--norm=batch"),
        ({"cov_weight": 0.1, "max_enroll": 2}, "--cov-weight"),
        ({"trial_weights": "blue"}, "needs the correlations"),
        ({"min_chunk": 50, "max_chunk": 40}, "--min-chunk=50"),
        ({"init_plda": "p", "backend": "cosine"}, "--init-plda"),
        ({"id_weight": 0.0, "ver_weight": 0.0}, "--id-weight"),
        ({"device": "nosuch"}, "--device"),
    ],
)
def test_options_that_contradict(change, text, data, tmp_path):
    if "tensorboard" in change and __import__("importlib.util").util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(VoxarkError, match=text):
        train(data, tmp_path / "m", **change)


def test_utterances_that_take_no_part(data, tmp_path):
    features = dict(load_ark(data[0][4:]))
    features["extra"] = features["spk00-utt0"]
    features["spk00-utt1"] = np.zeros((0, 10), np.float32)
    del features["spk01-utt0"]
    feats = save_ark(tmp_path / "f.ark", features)
    done = run("train-e2e-verif", *words(num_epochs=0), feats, data[1], tmp_path / "m")
    assert "failed 3" in done.stderr
    skipped = dict(line.split(" ", 1) for line in (tmp_path / "m/skipped").read_text().splitlines())
    assert sorted(skipped) == ["extra", "spk00-utt1", "spk01-utt0"] and "too short" in skipped["spk00-utt1"]


# ------------------------------------------------------------------------------------------- splits, dev sets


class Index:
    """What label() asks of an index."""

    def __init__(self, keys):
        self.keys, self.lengths = keys, np.full(len(keys), 30)


def test_splits_depend_on_names_alone():
    utt2spk = {f"s{s}-u{n}": f"s{s}" for s in range(20) for n in range(1 + s % 6)}
    keys, options = sorted(utt2spk), DevOptions(heldout_share=0.5)
    found = []
    for order in (keys, keys[::-1]):
        everyone = label(Index(order), utt2spk, 1, None)
        rest, dev = split_speakers(everyone, 0.2, 7)
        held = hold_utterances_out(rest, order, options, 7)
        counts = np.bincount(rest.speaker[~held], minlength=len(rest.names))
        assert (counts >= np.minimum(2, np.bincount(rest.speaker))).all() and held.any()
        assert len(dev.names) == 4 and not set(dev.names) & set(rest.names)
        assert (np.bincount(dev.speaker) >= 2).all()
        found.append((dev.names, {order[n] for n in rest.numbers[held]}))
    assert found[0] == found[1]
    assert split_speakers(everyone, 0.2, 8)[1].names != found[0][0]


def test_all_pairs_are_drawn_down_to_the_limit():
    utt2spk = {f"s{s}-u{n}": f"s{s}" for s in range(6) for n in range(5)}
    trials = all_pairs(utt2spk, DevOptions(), 0)
    assert len(trials) == 30 * 29 // 2 and trials.target.sum() == 6 * 10
    few = all_pairs(utt2spk, DevOptions(dev_max_trials=20), 0)
    assert few.target.sum() == 20 and len(few) == 40
    placed = place_trials(few, Index(sorted(utt2spk)))
    keys = sorted(utt2spk)
    for e, t, is_target in zip(placed.enroll, placed.test, placed.target):
        assert (utt2spk[keys[placed.numbers[e]]] == utt2spk[keys[placed.numbers[t]]]) == is_target
    with pytest.raises(VoxarkError, match="have no features"):
        place_trials(few, Index(keys[:3]))


def test_drawn_utterances_come_speaker_by_speaker():
    rng = np.random.default_rng(0)
    labelled = Labelled(np.arange(60), np.repeat(np.arange(4), 15), ["a", "b", "c", "d"])
    rows = drawn_utterances(labelled, rng.random(60), 25)
    assert sorted(np.bincount(labelled.speaker[rows], minlength=4)) == [0, 5, 10, 10]
    assert len(drawn_utterances(labelled, rng.random(60), 1000)) == 40


def test_development_set_of_its_own(data, tmp_path):
    feats, utt2spk = synthetic(tmp_path / "dev", 6, seed=3)
    dev = {"dev_feats": feats, "dev_utt2spk": utt2spk}
    trainer = train(data, tmp_path / "a", num_epochs=1, **dev)
    assert (
        len(trainer.judge.trials.numbers) == 30
        and len(trainer.source) + 4 >= NUM_SPEAKERS * NUM_UTTERANCES * 0.9
    )
    assert not (tmp_path / "a/dev_trials").exists()
    run("make-trials", utt2spk[4:], tmp_path / "trials")
    other = train(data, tmp_path / "b", num_epochs=1, dev_feats=feats, dev_trials=str(tmp_path / "trials"))
    assert [line["eer"] for line in other.history] == [line["eer"] for line in trainer.history]


def test_fbank_options(tmp_path):
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=17  # few\n--dither=0\n")
    found = read_options(FbankOptions, str(tmp_path / "fbank.conf"))
    assert found.num_mel_bins == 17 and found.dither == 0
    (tmp_path / "fbank.conf").write_text("--num-mel-bins=many\n")
    with pytest.raises(VoxarkError, match="num-mel-bins"):
        read_options(FbankOptions, str(tmp_path / "fbank.conf"))
    assert read_options(FbankOptions, "").num_mel_bins == 23


def write_audio(folder):
    """A wav.scp and utt2spk of noises, with a resonance for each of 8 speakers; also a data directory."""
    import wave

    rng, scp, lines = np.random.default_rng(0), [], []
    folder.mkdir()
    for speaker, number in itertools.product(range(8), range(3)):
        x = np.convolve(rng.standard_normal(6000), np.cos(0.1 * (speaker + 2) * np.arange(60)), "same")
        key = f"s{speaker}-u{number}"
        with wave.open(str(folder / f"{key}.wav"), "wb") as out:
            out.setnchannels(1), out.setsampwidth(2), out.setframerate(8000)
            out.writeframes((1000 * x / x.std()).astype("<i2").tobytes())
        scp.append(f"{key} {folder}/{key}.wav")
        lines.append(f"{key} s{speaker}")
    write_lines(folder / "wav.scp", *scp)
    write_lines(folder / "fbank.conf", "--sample-frequency=8000", "--num-mel-bins=12", "--dither=0")
    return f"scp:{folder}/wav.scp", write_lines(folder / "utt2spk", *lines)


def test_trains_on_audio(tmp_path):
    audio = write_audio(tmp_path / "audio")
    small = {"audio": True, "num_epochs": 1, "batches_per_epoch": 2, "batch_speakers": 4}
    trainer = train(
        audio,
        tmp_path / "a",
        fbank_config=str(tmp_path / "audio/fbank.conf"),
        noise_dir=str(tmp_path / "audio"),
        speed_perturb="0.9",
        **small,
    )
    names = [line.split()[0] for line in (tmp_path / "a/speakers").read_text().splitlines()]
    dev = {line.split()[1] for line in (tmp_path / "a/dev_utt2spk").read_text().splitlines()}
    assert len(dev) == 2 and not dev & {name.removeprefix("sp0.9-") for name in names} and len(names) == 12
    assert np.isfinite(trainer.history[-1]["train_loss"])
    train(audio, tmp_path / "w", arch="waveform", sample_frequency=8000, num_filters=8, **small)
    done = run("extract-embeddings", "--device=cpu", tmp_path / "w", audio[0], f"ark:{tmp_path}/w.ark")
    assert "done 24, failed 0" in done.stderr


# --------------------------------------------------------------------------------------------- workers, steps


def test_two_workers_give_the_same_model(data, tmp_path):
    more = words(num_epochs=1, exact=True, micro_batch=4)
    one = train(data, tmp_path / "one", num_epochs=1, exact=True, micro_batch=4)
    done = shell(
        f"torchrun --standalone --nproc-per-node=2 {ROOT}/bin/train-e2e-verif {' '.join(more)} "
        f"{' '.join(data)} {tmp_path}/two"
    )
    assert done.stderr.count("epoch 1:") == 1  # one worker speaks
    two = load_state(str(tmp_path / "two/state.pt"))["model"]
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_steps(tmp_path, data):
    folder = tmp_path / "train"
    folder.mkdir()
    features = dict(load_ark(data[0][4:]))
    for key in features:
        features[key] = np.tile(features[key], (2, 1))
    save_ark(folder / "f.ark", features)
    run("copy-feats", f"ark:{folder}/f.ark", f"ark,scp:{folder}/g.ark,{folder}/feats.scp")
    save_ark(folder / "v.ark", {key: np.ones(len(x), np.float32) for key, x in features.items()})
    run("copy-vector", f"ark:{folder}/v.ark", f"ark,scp:{folder}/w.ark,{folder}/vad.scp")
    (folder / "utt2spk").write_text(open(data[1][4:]).read())
    shell(f"utt2spk_to_spk2utt {folder}/utt2spk > {folder}/spk2utt")
    opts = " ".join(word for word in words(num_epochs=1) if not word.startswith("--cmn"))
    done = shell(f"train_e2e.sh --nj 2 --train-opts '{opts}' {folder} {tmp_path}/m")
    assert b"epoch 1:" in done.stdout and not list((tmp_path / "m").glob("voiced.*"))
    assert b"up to date" in shell(f"train_e2e.sh --nj 2 --train-opts '{opts}' {folder} {tmp_path}/m").stdout
    train = f"train_e2e.sh --nj 2 --train-opts '{opts} --dropout=0.1'"
    done = shell(f"{train} {folder} {tmp_path}/m", check=False)
    assert done.returncode == 1 and "go on with the same options" in (tmp_path / "m/log/train.log").read_text()
    assert b"starts anew" in shell(f"{train} --restart true {folder} {tmp_path}/m").stdout
    assert json.loads((tmp_path / "m/config.json").read_text())["arch_options"]["dropout"] == 0.1
    run("copy-feats", f"ark:{folder}/f.ark", f"ark,scp:{folder}/h.ark,{folder}/feats.scp")
    done = shell(f"{train} {folder} {tmp_path}/m", check=False)
    assert done.returncode == 1 and "was trained on other features" in done.stderr
    assert (tmp_path / "m/final.pt").exists()
    shell(f"extract_embeddings.sh --nj 2 {tmp_path}/m {folder} {tmp_path}/e")
    assert len((tmp_path / "e/vectors.scp").read_text().splitlines()) == len(features)
    for step in ("train_e2e.sh", "extract_embeddings.sh"):
        assert "Usage" in shell(step, check=False).stderr
    done = shell(f"extract_embeddings.sh {folder} {folder} {tmp_path}/x", check=False)
    assert done.returncode == 1 and "is it a folder of train_e2e.sh" in done.stderr
