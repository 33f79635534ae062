"""End-to-end training meets bad input, stops half-way, runs in half precision; who may train on what."""

import dataclasses
import pickle
import zipfile

import numpy as np
import pytest

from helpers import ROOT, load_ark, run, save_ark, shell, write_lines

torch = pytest.importorskip("torch")

from test_train_e2e import (  # noqa: E402
    NUM_SPEAKERS, all_options, history, same_parameters, synthetic, train, words, write_audio)

from voxark.e2e import start as starting  # noqa: E402
from voxark.e2e.architectures import ExtractorOptions, WaveformOptions  # noqa: E402
from voxark.e2e.batches import BatchOptions, BatchSampler, TrainingSet  # noqa: E402
from voxark.e2e.chunks import FeatureReader  # noqa: E402
from voxark.e2e.exact_gradient import exact_step, plain_step, verify  # noqa: E402
from voxark.e2e.extractors import build_extractor, embed_in_chunks, initialise_norms  # noqa: E402
from voxark.e2e.losses import triplet_loss  # noqa: E402
from voxark.e2e.model import E2eModel, load_model  # noqa: E402
from voxark.e2e.options import TrialWeightOptions  # noqa: E402
from voxark.e2e.run_folder import E2eRunFolder  # noqa: E402
from voxark.e2e.scorers import build_scorer  # noqa: E402
from voxark.e2e.speakers import DevOptions, DevTrials, all_pairs  # noqa: E402
from voxark.e2e.training import open_training  # noqa: E402
from voxark.e2e.trial_weights import dev_drawer  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.nnet.board import open_board  # noqa: E402
from voxark.nnet.checkpoint import load_state, save_state  # noqa: E402
from voxark.nnet.model_folder import read_config, write_config  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with several."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(feats-rspecifier, utt2spk-rspecifier) of a small training set."""
    return synthetic(tmp_path_factory.mktemp("data"), NUM_SPEAKERS)


def refused(text, data, folder, **values):
    """Assert that a training is refused by one line that has ``text``."""
    with pytest.raises(VoxarkError, match=text) as error:
        train(data, folder, **values)
    assert "\n" not in str(error.value)


def with_features(data, path, change):
    """(feats, utt2spk) where ``change`` has changed the dict of features."""
    features = dict(load_ark(data[0][4:]))
    change(features)
    return save_ark(path, features), data[1]


# -------------------------------------------------------------------------------------------- half precision


EXTRACTORS = {
    "xvector": {"channels": 32, "pool_input": True},
    "ecapa": {"channels": 32, "bottleneck": 8},
    "resnet": {"channels": 4},
    "fixed-td": {"channels": 32, "frames": 40},
}


def started(arch, dim=20, **options):
    """(extractor with estimated norms, features (6,40,dim))."""
    torch.manual_seed(1)
    x = torch.randn(6, 40, dim) * 3.0 + 5.0 + torch.randn(6, 1, dim)
    extractor = build_extractor(arch, {"input_dim": dim, "embedding_dim": 16, **options})
    initialise_norms(extractor, [x])
    return extractor, x


@pytest.mark.parametrize("arch", EXTRACTORS)
def test_half_products_are_for_training_alone(arch):
    extractor, x = started(arch, **EXTRACTORS[arch])
    found = {}
    with torch.no_grad():
        for half, training in ((False, True), (True, True), (False, False), (True, False)):
            extractor.half_products = half
            found[half, training] = extractor.train(training)(x)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found[True, False], found[False, False])  # evaluation knows nothing of it
    assert torch.equal(found[False, True], found[False, False])
    difference = (found[True, True] - found[False, True]).norm() / found[False, True].norm()
    assert 1e-5 < difference < 0.1


@pytest.mark.parametrize("arch", ["xvector", "ecapa"])
def test_half_products_have_exact_gradients_to_their_accuracy(arch):
    extractor, x = started(arch, **EXTRACTORS[arch])
    extractor.train()
    directions = torch.randn(16, 3, dtype=torch.float64)

    def loss(embeddings):
        scores = embeddings @ directions
        return torch.logsumexp(scores @ scores.T / 30.0, dim=1).mean()

    def gradient(step, half, **options):
        extractor.half_products = half
        extractor.zero_grad()
        step(extractor, x, loss, **options)
        return torch.cat([p.grad.flatten() for p in extractor.parameters()])

    whole, half = gradient(plain_step, False), gradient(plain_step, True)
    exact = gradient(exact_step, True, max_examples=2)
    assert half.dtype == torch.float32 and (exact - half).norm() < 0.01 * half.norm()
    # units near 0 fall to the other side of their ReLU, one in some hundred: that is most of the difference
    assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.97 and not torch.equal(half, whole)
    assert verify(extractor, x, loss, max_examples=2) < 0.1


def test_half_products_learn(tmp_path):
    data = synthetic(tmp_path / "train", 40)
    size = {"batches_per_epoch": 30, "batch_speakers": 16, "channels": 32}
    figures = train(data, tmp_path / "m", precision="bf16", num_epochs=2, **size).history
    assert figures[0]["eer"] > 0.3 and figures[-1]["eer"] < 0.75 * figures[0]["eer"]
    assert figures[-1]["train_ver"] < figures[1]["train_ver"] < 1.0
    assert {value.dtype for value in load_model(str(tmp_path / "m")).state_dict().values()
            if value.is_floating_point()} == {torch.float32}


def test_half_products_go_on_to_the_same_bits(data, tmp_path):
    more = {"precision": "bf16", "dropout": 0.2, "relu_repair": 1e-3}
    whole = train(data, tmp_path / "whole", **more)
    train(data, tmp_path / "parts", stop_at=4, **more)
    refused("--precision=float32", data, tmp_path / "parts", resume=True, **{**more, "precision": "float32"})
    resumed = train(data, tmp_path / "parts", resume=True, **more)
    assert same_parameters(whole.model.state_dict(), resumed.model.state_dict())
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    for name in ("final.pt", "dplda", "front.mat", "checkpoints/epoch-2.pt"):
        if (tmp_path / "whole" / name).exists():
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    plain = train(data, tmp_path / "plain", **{**more, "precision": "float32"}).model.state_dict()
    assert not same_parameters(whole.model.state_dict(), plain)


def test_what_half_products_would_spoil_is_refused(data, tmp_path):
    more = {"arch": "ivec-mimic", "precision": "bf16"}
    refused("--precision=bf16 would spoil ivec-mimic", data, tmp_path / "m", **more)
    inner = {"num_gauss": 4, "channels": 8}
    options = WaveformOptions(8000, 8, backbone="ivec-mimic", backbone_options=inner)
    assert not build_extractor("waveform", options).allows_half_products


def test_the_filters_of_a_waveform_stay_in_single_precision():
    torch.manual_seed(0)
    options = WaveformOptions(8000, 8, backbone_options={"channels": 16, "embedding_dim": 8})
    extractor, samples = build_extractor("waveform", options), 1000.0 * torch.randn(2, 4000)
    seen = []
    extractor.filters.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    extractor.train().half_products = True
    half = extractor(samples)
    half.sum().backward()
    with torch.no_grad():
        plain = extractor.eval()(samples)
    assert torch.equal(*seen) and seen[0].dtype == torch.float32
    assert not torch.equal(half, plain)
    assert all(p.grad.isfinite().all() for p in extractor.filters.parameters())


# ---------------------------------------------------------------------------------------- who trains on what


def copies(data, folder):
    """A copy of every utterance, of new speakers, goes along: ((feats, utt2spk), utt2rec)."""
    folder.mkdir()
    features, lines = dict(load_ark(data[0][4:])), open(data[1][4:]).read().splitlines()
    recordings = [f"{key} {key}" for key in features] + [f"sp0.9-{key} {key}" for key in features]
    features.update({f"sp0.9-{key}": x[::-1].copy() for key, x in list(features.items())})
    lines += [f"sp0.9-{key} sp0.9-{speaker}" for key, speaker in (line.split() for line in lines)]
    utt2rec = write_lines(folder / "utt2rec", *recordings)
    return (save_ark(folder / "f.ark", features), write_lines(folder / "utt2spk", *lines)), utt2rec


def test_copies_of_a_recording_are_no_trials_of_the_start(data, tmp_path, monkeypatch, caplog):
    both, utt2rec = copies(data, tmp_path / "copies")
    seen, begin = [], starting.start_scorer

    def start_scorer(scorer, x, labels, recordings, *rest):
        seen.append((labels, recordings))
        return begin(scorer, x, labels, recordings, *rest)

    monkeypatch.setattr(starting, "start_scorer", start_scorer)
    monkeypatch.setattr("voxark.e2e.validation.start_scorer", start_scorer)
    with caplog.at_level("WARNING", logger="voxark"):
        trainer = train(both, tmp_path / "m", utt2rec=utt2rec, num_epochs=0, loss="identification",
                        init_batches=4)
    assert "are of recordings that development speakers have, too" in caplog.text
    keys = np.array(list(trainer.source._reader.features.source.keys))
    for labels, recordings in seen:  # at the start, and for the back-end that no loss trains
        assert len(labels) == len(set(zip(labels.tolist(), recordings.tolist())))
        assert len(set(recordings.tolist())) < len(recordings)
    chosen = trainer.judge.refit.utterances.numbers
    originals = [key.removeprefix("sp0.9-") for key in keys[chosen]]
    same = np.equal.outer(originals, originals)
    assert (same == np.equal.outer(*[trainer.judge.refit.recordings] * 2)).all() and same.sum() > len(chosen)


def test_recordings_of_a_plan_of_two_chunks():
    numbers, recordings = np.arange(10, 18), np.array([0, 0, 1, 2, 3, 3, 4, 5])
    data = TrainingSet(numbers, np.repeat(np.arange(4), 2), np.full(8, 100), recordings)
    options = BatchOptions(batches="two-chunks", batch_speakers=4, min_chunk=20, max_chunk=30)
    sampler = BatchSampler(data, options)
    plan = sampler.plan(0, 0)
    assert len(set(plan.recordings.tolist())) == plan.num_rows  # chunks are there to be compared
    wanted = dict(zip(numbers.tolist(), recordings.tolist()))
    assert sampler.recordings_of(plan.utterances).tolist() == [wanted[n] for n in plan.utterances.tolist()]


def test_triplets_of_one_recording_do_not_count():
    torch.manual_seed(0)
    x, speakers = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    kept = [0, 1, 3, 4]  # the last of each speaker is another cut of the first
    recordings = torch.tensor([0, 1, 0, 3, 4, 3])
    for mining in ("all", "hardest"):

        def loss(rows, numbers=None, mining=mining):
            return float(triplet_loss(x[rows], speakers[rows], 0.3, mining, None, numbers))

        everyone = list(range(6))
        assert loss(kept, recordings[kept]) == loss(kept) > 0.0
        assert loss(everyone, recordings) not in (0.0, loss(everyone))
        assert loss(everyone, torch.tensor([0, 0, 0, 3, 3, 3])) == 0.0


def test_development_trials_of_one_recording_are_left_out(caplog):
    utt2spk = {f"s{s}-u{n}": f"s{s}" for s in range(4) for n in range(4)}
    pairs = all_pairs(utt2spk, DevOptions(), 0, {key: key[:4] + str(int(key[-1]) // 2) for key in utt2spk})
    assert pairs.target.sum() == 4 * 4 and (~pairs.target).sum() == 6 * 16
    for enroll, test in (pairs.pair(p).split() for p in np.flatnonzero(pairs.target)):
        assert int(enroll[-1]) // 2 != int(test[-1]) // 2
    with caplog.at_level("WARNING", logger="voxark"):
        kept = all_pairs(utt2spk, DevOptions(), 0, {key: key[:2] for key in utt2spk})
    assert kept.target.sum() == 4 * 6
    assert "no speaker of the development set has two recordings" in caplog.text


def test_speakers_who_train_and_judge_are_warned_of(data, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="voxark"):
        train(data, tmp_path / "m", num_epochs=0, dev_feats=data[0], dev_utt2spk=data[1])
    assert f"{NUM_SPEAKERS} speakers of {data[1]}, such as spk00, train, too" in caplog.text


def test_copies_of_development_speakers_never_train(tmp_path):
    audio = write_audio(tmp_path / "audio")
    trainer = train(audio, tmp_path / "m", audio=True, speed_perturb="0.9,1.1", num_epochs=0,
                    heldout_share=0.5, fbank_config=str(tmp_path / "audio/fbank.conf"), batch_speakers=20,
                    utts_per_speaker=3)
    keys, sampler = trainer.source._reader.features.source.keys, trainer.source._reader.sampler
    originals = [key.removeprefix("sp0.9-").removeprefix("sp1.1-") for key in keys]
    trained = {originals[n] for n in sampler.data.numbers}
    judging = {line.split()[0] for line in (tmp_path / "m/dev_utt2spk").read_text().splitlines()}
    held = {keys[n] for n in trainer.judge.heldout.numbers}
    assert len(judging) == 6 and held and not trained & judging and not trained & held
    assert sorted(trained | judging | held) == sorted(key for key in keys if not key.startswith("sp"))
    targets = 0
    for number in range(20):
        plan = sampler.plan(0, number)
        own = np.array([originals[n] for n in plan.utterances])
        together = np.equal.outer(own, own)
        masks = plan.pair_masks()
        assert not (together & (masks[0] | masks[1])).any()
        targets += masks[0].sum()
    assert targets


# ------------------------------------------------------------------------------------------------- bad input


def test_speakers_of_one_utterance_give_no_target_trial(data, tmp_path):
    lines = open(data[1][4:]).read().splitlines()
    first = write_lines(tmp_path / "first", *(line for line in lines if "utt0" in line))
    other = write_lines(tmp_path / "other", *(line for line in lines if "utt0" not in line))
    dev = {"dev_feats": data[0], "dev_utt2spk": other, "num_epochs": 1, "batches_per_epoch": 1}
    for loss in ("verification", "joint", "triplet"):
        text = f"--loss={loss}: no training speaker has two"
        refused(text, (data[0], first), tmp_path / "m", loss=loss, **dev)
    one = write_lines(tmp_path / "utt2rec", *(f"{line.split()[0]} {line.split()[1]}" for line in lines))
    refused("no target trial", (data[0], data[1]), tmp_path / "m", utt2rec=one, **dev)
    train((data[0], first), tmp_path / "a", loss="identification", **dev)
    train((data[0], first), tmp_path / "b", batches="two-chunks", min_chunk=10, max_chunk=14, **dev)


def test_lengths_that_the_network_refuses_are_named_at_once(data, tmp_path):
    fixed = {"arch": "fixed-td", "fixed_frames": 25, "num_epochs": 0}
    refused("--min-chunk and --max-chunk give chunks of 20 frames, but this model takes 25.*--short-input",
            data, tmp_path / "m", **fixed)
    refused("^spk[0-9]*-utt[0-9]: [0-9]* frames.*--long-input=crop", data, tmp_path / "m", min_chunk=25,
            max_chunk=25, **fixed)
    train(data, tmp_path / "m", short_input="pad", long_input="crop", **fixed)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"lr": float("inf")}, "--lr=inf: a finite number"),
        ({"margin": float("nan")}, "--margin=nan"),
        ({"front_dim": 17}, "--front-dim=17: the embeddings have only 16 dimensions"),
        ({"arch": "nosuch"}, "expected one of xvector.*ivec-mimic"),
        ({"init_penalty": "nosuch=1"}, "blocks among extractor"),
        ({"audio": True, "utt2rec": "x"}, "--utt2rec is for features"),
    ],
)
def test_options_that_make_no_sense(change, text, data, tmp_path):
    refused(text, data, tmp_path / "m", **change)


def test_development_sets_that_judge_nothing(data, tmp_path):
    lines = open(data[1][4:]).read().splitlines()
    one = write_lines(tmp_path / "one", *(line for line in lines if "utt0" in line))
    refused("all pairs of the development set: .* all of one kind", data, tmp_path / "m", dev_feats=data[0],
            dev_utt2spk=one)
    none = write_lines(tmp_path / "none", "a b", "c b")
    refused("none of its utterances is in --dev-feats", data, tmp_path / "m", dev_feats=data[0],
            dev_utt2spk=none)

    def empty(features):
        features["spk00-utt0"] = features["spk00-utt0"][:0]

    feats = with_features(data, tmp_path / "f.ark", empty)[0]
    write_lines(tmp_path / "trials", "spk00-utt0 spk00-utt1 target", "spk00-utt0 spk01-utt1 nontarget")
    refused("spk00-utt0 has no frames", data, tmp_path / "m", dev_feats=feats,
            dev_trials=f"{tmp_path}/trials")
    trainer = train(data, tmp_path / "m", dev_feats=feats, dev_utt2spk=data[1], num_epochs=0)
    assert len(trainer.judge.trials.numbers) == len(lines) - 1


def test_what_cannot_be_read_is_counted_once(data, tmp_path):
    run("copy-feats", data[0], f"ark,scp:{tmp_path}/g.ark,{tmp_path}/g.scp")
    lines = (tmp_path / "g.scp").read_text().splitlines()
    lines[3] = lines[3].rpartition(":")[0] + ":99999999"
    write_lines(tmp_path / "bad.scp", *lines)
    refused(r"spk00-utt3: .*offset 99999999", (f"scp:{tmp_path}/bad.scp", data[1]), tmp_path / "m")
    failed = []
    trainer = open_training(f"scp,p:{tmp_path}/bad.scp", data[1], str(tmp_path / "n"),
                            all_options(num_epochs=0), lambda key, reason: failed.append(key))
    trainer.folder.close()
    skipped = (tmp_path / "n/skipped").read_text().splitlines()
    assert failed == ["spk00-utt3"] and len(skipped) == 1
    assert skipped[0].startswith("spk00-utt3 ") and "99999999" in skipped[0]


def test_a_relative_path_that_is_not_there(tmp_path):
    write_lines(tmp_path / "wav.scp", "a-1 wav/nosuch.wav", "a-2 wav/nosuch.wav")
    utt2spk = write_lines(tmp_path / "utt2spk", "a-1 a", "a-2 a")
    refused("a-1: wav/nosuch.wav: No such file.*relative paths count from the current folder, /",
            (f"{tmp_path}/wav.scp", utt2spk), tmp_path / "m", audio=True)


def test_an_embedding_that_is_not_finite_is_an_error():
    extractor = started("xvector", channels=8)[0]
    torch.nn.init.constant_(extractor.embedding.bias, float("inf"))
    with pytest.raises(VoxarkError, match="not finite"):
        embed_in_chunks(extractor, np.zeros((40, 20), np.float32))


def test_equal_scores_are_made_small_ones():
    scorer = build_scorer("cosine", 4)
    scores, target = np.full(20, 2.5), np.arange(20) < 5
    scorer.calibrate_(scores, target)
    x = np.random.default_rng(0).standard_normal((6, 4))
    assert abs(scorer.score_numpy(x)).max() < 100.0


# ------------------------------------------------------------------------------------------ files and folders


def test_a_model_without_a_state_is_not_written_over(data, tmp_path):
    folder = tmp_path / "m"
    train(data, folder, num_epochs=1)
    config = read_config(str(folder / "config.json"), E2eModel)
    (folder / "state.pt").unlink()
    write_config(str(folder / "config.json"), {**config, "epoch": 1})
    before = (folder / "final.pt").read_bytes()
    for resume in (False, True):
        refused("holds a model, but no state", data, folder, resume=resume, init_model=str(folder))
    assert (folder / "final.pt").read_bytes() == before
    write_config(str(folder / "config.json"), {**config, "epoch": 0})  # so a kill may leave it
    train(data, folder, num_epochs=0, resume=True)


def test_checkpoints_of_another_kind(data, tmp_path):
    folder = tmp_path / "m"
    train(data, folder, num_epochs=0)
    state = load_state(str(folder / "state.pt"))
    for wrong in ({"model": state["model"]}, {"settings": 3}):
        save_state(str(folder / "state.pt"), wrong)
        refused("not the state of a training", data, folder, num_epochs=0, resume=True)
    torch.save({"format": "voxark-checkpoint", "version": 1, "state": pickle.Pickler}, tmp_path / "x.pt")
    with pytest.raises(VoxarkError, match="more than tensors and plain values"):
        load_state(str(tmp_path / "x.pt"))
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        out.writestr("a", "b")
    with pytest.raises(VoxarkError, match="no checkpoint, or a damaged one"):
        load_state(str(tmp_path / "x.pt"))
    config = read_config(str(folder / "config.json"), E2eModel)
    config["arch_options"]["channels"] = 1 << 30
    write_config(str(folder / "config.json"), config)
    with pytest.raises(VoxarkError, match="config.json: the networks described there cannot be made"):
        load_model(str(folder))


def test_mended_features_go_on_from_where_they_failed(data, tmp_path):
    def spoil(features):
        features["spk05-utt2"] = features["spk05-utt2"].copy()
        features["spk05-utt2"][3, 4] = np.nan

    options = {"dev_feats": data[0], "dev_utt2spk": data[1], "loss": "verification", "init_batches": 1,
               "min_chunk": 45, "max_chunk": 45, "batch_speakers": 3, "batches_per_epoch": 20}
    train(data, tmp_path / "whole", **options)
    bad = with_features(data, tmp_path / "f.ark", spoil)
    trainer = open_training(*bad, str(tmp_path / "parts"), all_options(**options), lambda key, reason: None)
    with pytest.raises(VoxarkError, match="spk05-utt2: feature at frame 3, column 4 is nan"):
        trainer.run()
    trainer.folder.close()
    place = load_state(str(tmp_path / "parts/state.pt"))["batch"]
    assert 0 < place < 40 and place % 20  # within an epoch, where it failed
    train(data, tmp_path / "parts", resume=True, **options)
    assert (tmp_path / "whole/final.pt").read_bytes() == (tmp_path / "parts/final.pt").read_bytes()
    assert history(tmp_path / "whole") == history(tmp_path / "parts")


def test_a_full_disk_loses_nothing(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(data, whole)
    train(data, parts, stop_at=2)
    before = (parts / "state.pt").read_bytes()
    program = f"{ROOT}/bin/train-e2e-verif {' '.join(words())} --resume {' '.join(data)} {parts}"
    done = shell(f"ulimit -f {len(before) // 2048}; exec {program}", check=False)  # blocks of 1024 bytes
    assert done.returncode == 1 and done.stderr.count("ERROR") == 1
    assert "cannot be written: File too" in done.stderr
    assert (parts / "state.pt").read_bytes() == before
    train(data, parts, resume=True)
    assert (whole / "final.pt").read_bytes() == (parts / "final.pt").read_bytes()
    assert not list(parts.glob(".*.tmp*"))


def test_programs_refuse_pipes_and_take_files_of_options(data, tmp_path):
    done = run("train-e2e-verif", "--allow-pipes=false", f"ark:cat {data[0][4:]} |", data[1], tmp_path / "m",
               check=False)
    assert done.returncode == 1 and "pipes are forbidden" in done.stderr
    lines = ["--channels=24  # wide", *words(num_epochs=0)[1:]]
    (tmp_path / "conf").write_text("\n".join(lines))
    run("train-e2e-verif", f"--config={tmp_path}/conf", "--embedding-dim=12", *data, tmp_path / "n")
    found = read_config(str(tmp_path / "n/config.json"), E2eModel)["arch_options"]
    assert (found["channels"], found["embedding_dim"]) == (24, 12)


# ------------------------------------------------------------------------------------------------- the rest


def test_development_chunks_of_meta_weights():
    class Source:
        keys, lengths, dim = ["a", "b", "c", "d", "e"], np.array([9, 30, 12, 40, 25]), 3

        def read(self, number, first, last):
            return np.full((last - first, 3), number, np.float32)

    pairs = np.array([0, 3, 1]), np.array([1, 2, 2]), np.array([True, True, False])
    trials = DevTrials(np.array([0, 2, 3, 4]), *pairs)
    labels = {(0, 1): True, (2, 3): True, (1, 2): False}
    options = BatchOptions(min_chunk=10, max_chunk=14), TrialWeightOptions(meta_utterances=3)
    draw = dev_drawer(FeatureReader(Source(), all_options(cmn="none").normalize), trials, options, 5)
    seen = set()
    for number in range(12):
        x, target, mask = draw(number)
        rows = np.searchsorted(trials.numbers, x[:, 0, 0])
        assert len(x) == 3 and 10 <= x.shape[1] <= 14 and (x == x[:, :1, :1]).all()
        for i in range(3):
            for j in range(3):
                known = labels.get(tuple(sorted((rows[i], rows[j])))) if i < j else None
                assert mask[i, j] == (known is not None) and target[i, j] == bool(known)
                seen.add(known)
    assert seen == {True, False, None}


def test_boards_go_on_behind_a_kill(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = E2eRunFolder(str(tmp_path / "m"))
    add = open_board(folder, True)
    for epoch in range(3):
        add({"epoch": epoch, "eer": 0.5 - 0.1 * epoch, "verdict": "best"})
    add({"epoch": 3, "eer": 0.9})  # of a process that is killed before its state is written
    add = open_board(folder, True, 3)
    for epoch in (3, 4):
        add({"epoch": epoch, "eer": 0.5 - 0.1 * epoch, "verdict": "wait"})
    folder.close()
    events = accumulator.EventAccumulator(str(tmp_path / "m/tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["eer"]
    found = [(event.step, round(event.value, 6)) for event in events.Scalars("eer")]
    assert found == [(epoch, round(0.5 - 0.1 * epoch, 6)) for epoch in range(5)]


def test_options_of_the_help_are_those_of_the_groups():
    text = run("train-e2e-verif", "--help").stdout.decode()
    for group in (ExtractorOptions, DevOptions, *(type(part) for part in all_options())):
        for field in dataclasses.fields(group):
            assert f"--{field.name.replace('_', '-')} " in text, field.name
