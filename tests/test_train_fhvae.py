"""train-fhvae and extract-fhvae: sampling, the cache, going on, workers, what goes wrong, what is learnt."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, environment, load_ark, run, save_ark
from scipy import stats

torch = pytest.importorskip("torch")

from voxark.errors import VoxarkError  # noqa: E402
from voxark.fhvae.cache import Cache  # noqa: E402
from voxark.fhvae.extraction import extract, joined, reconstruct  # noqa: E402
from voxark.fhvae.inference import decode, encode, segment_starts  # noqa: E402
from voxark.fhvae.model import FhvaeModel, load_model, model_config  # noqa: E402
from voxark.fhvae.options import (  # noqa: E402
    DevOptions,
    InputOptions,
    ModelOptions,
    OptimizerOptions,
    Options,
    RunOptions,
    SamplingOptions,
)
from voxark.fhvae.sequences import count_segments, draw_segments, even_segments, hold_out  # noqa: E402
from voxark.fhvae.sources import FlatSource, HierarchicalSource  # noqa: E402
from voxark.fhvae.training import Data, open_training  # noqa: E402
from voxark.nnet.checkpoint import load_state  # noqa: E402

L, F = 10, 6
SMALL = ("--segment-length=10 --arch=fc --hidden-dim=24 --z1-dim=4 --z2-dim=4 --sequence-batch-size=12 "
         "--segment-batch-size=16 --segment-shift=4 --dev-segment-shift=5 --steps-per-epoch=10 --num-steps=30 "
         "--dev-share=0.2").split()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def synthetic(num=30, seed=0, templates=5, scale=1.5):
    """Sequences of a random offset (for z2) and stretches of random templates (for z1), with their labels."""
    rng = np.random.default_rng(seed)
    shapes = 2 * rng.standard_normal((templates, L, F))
    feats, offsets, labels = {}, [], {}
    for n in range(num):
        offset, order = scale * rng.standard_normal(F), rng.integers(0, templates, 4 + n % 4)
        x = np.concatenate([shapes[k] for k in order]) + offset
        feats[f"u{n:02d}"] = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
        offsets.append(offset)
        labels[f"u{n:02d}"] = order
    return feats, np.array(offsets), labels


@pytest.fixture(scope="module")
def feats(tmp_path_factory):
    """An scp of synthetic sequences."""
    folder = tmp_path_factory.mktemp("feats")
    save_ark(folder / "feats.ark", synthetic()[0])
    run("copy-feats", f"ark:{folder}/feats.ark", f"ark,scp:{folder}/f.ark,{folder}/feats.scp")
    return f"scp:{folder}/feats.scp"


def options(**changes):
    """Options of a small training, changed by the names of their fields."""
    small = {"segment_length": L, "arch": "fc", "hidden_dim": 24, "z1_dim": 4, "z2_dim": 4, "segment_shift": 4,
             "sequence_batch_size": 12, "segment_batch_size": 16, "dev_segment_shift": 5, "steps_per_epoch": 10,
             "num_steps": 20, "dev_share": 0.2, **changes}
    groups = []
    for kind in (ModelOptions, SamplingOptions, DevOptions, OptimizerOptions, InputOptions, RunOptions):
        names = {field.name for field in dataclasses.fields(kind)} & set(small)
        groups.append(kind(**{name: small.pop(name) for name in names}))
    assert not small
    return Options(*groups)


def train(feats, folder, **changes):
    trainer = open_training(feats, str(folder), options(**changes))
    trainer.run()
    trainer.folder.close()
    return trainer


def same_model(one, other):
    one, other = load_model(one).state_dict(), load_model(other).state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------- sampling


def test_segments_are_as_many_as_the_source_says():
    lengths = np.array([10, 13, 14, 50])
    counts = count_segments(lengths, 10, 4)
    assert counts.tolist() == [1, 1, 2, 11]
    rows, starts = draw_segments(np.random.default_rng(0), lengths, 10, 4)
    assert np.bincount(rows).tolist() == counts.tolist()
    assert (starts >= 0).all() and (starts + 10 <= lengths[rows]).all()
    many = draw_segments(np.random.default_rng(0), np.full(4000, 14), 10, 4)[1]
    assert set(many) == set(range(5))  # from anywhere: each first frame there is
    rows, starts = even_segments(lengths, 10, 4)
    assert rows.tolist() == sorted(rows) and starts[rows == 3].tolist() == list(range(0, 41, 4))
    assert starts[rows == 2].tolist() == [0, 4]


@pytest.mark.parametrize("frames, cover, expected", [
    (9, False, []), (10, True, [0]), (24, False, [0, 5, 10]), (24, True, [0, 5, 10, 14]), (25, True, [0, 5, 10, 15])])
def test_segment_starts(frames, cover, expected):
    assert segment_starts(frames, 10, 5, cover).tolist() == expected


def test_who_is_held_out_depends_on_the_key_alone(feats, tmp_path):
    index = Data(feats, options()).training.index
    numbers = np.arange(30, dtype=np.int32)
    rest, held = hold_out(index, numbers, 0.2, 100, 0)
    assert len(held) == 6 and sorted([*rest, *held]) == list(range(30))
    assert set(hold_out(index, numbers, 0.2, 100, 1)[1]) != set(held)
    assert len(hold_out(index, numbers, 0.2, 3, 0)[1]) == 3
    save_ark(tmp_path / "f.ark", dict(reversed(list(synthetic()[0].items()))))
    other = Data(f"ark:{tmp_path}/f.ark", options()).training.index
    again = hold_out(other, numbers, 0.2, 100, 0)[1]
    assert {other.keys[n] for n in again.tolist()} == {index.keys[n] for n in held.tolist()}


def test_moments_are_those_of_all_frames(feats, tmp_path):
    data = Data(feats, options())
    frames = np.concatenate([data.training.read(n) for n in range(len(data.training))]).astype(float)
    mean, std = data.training.moments(0, 0)
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-9)
    np.testing.assert_allclose(std, frames.std(0), rtol=1e-9)
    some = data.training.moments(5, 0)[0]
    assert not np.allclose(some, mean) and np.array_equal(some, data.training.moments(5, 0)[0])
    trainer = open_training(feats, str(tmp_path / "m"), options())
    x = trainer.source.next().x
    assert abs(float(x.mean())) < 0.3 and 0.7 < float(x.std()) < 1.3


def test_a_batch_of_sequences_then_the_next(feats):
    """Algorithm 1: K sequences, one pass over their segments, other sequences; rows and N belong together."""
    data = Data(feats, options())
    source = HierarchicalSource(data.training, options().sampling, 0, L, loader_threads=0)
    batches = [source.next() for _ in range(30)]
    starts = [n for n, batch in enumerate(batches) if batch.begins]
    assert starts[0] == 0 and len(starts) > 2
    chosen = [set(batches[n].positions.tolist()) for n in starts]
    assert chosen[0] != chosen[1]
    for batch in batches:
        assert batch.x.shape == (L, 16, F) and int(batch.rows.max()) < 12
        lengths = data.training.lengths[batch.positions]
        assert batch.num_segments.tolist() == count_segments(lengths, L, 4).tolist()
    batch = batches[-1]
    for column in range(16):  # each segment is somewhere in its sequence
        frames = torch.from_numpy(data.training.read(int(batch.positions[column])))
        assert any(torch.equal(frames[t : t + L], batch.x[:, column]) for t in range(len(frames) - L + 1))


def test_b_seg_batches_for_each_batch_of_sequences(feats):
    data = Data(feats, options())
    source = HierarchicalSource(data.training, options(num_segment_batches=50).sampling, 0, L, loader_threads=0)
    begins = [source.next().begins for _ in range(101)]
    assert [n for n, value in enumerate(begins) if value] == [0, 50, 100]


def test_hierarchical_without_reset_is_flat(feats, tmp_path, monkeypatch):
    """T6.5: with K = M and no reset of the cache, step for step."""
    monkeypatch.setattr(Cache, "reset", lambda self, block: None)
    flat = open_training(feats, str(tmp_path / "flat"), options(sampling="flat"))
    other = open_training(feats, str(tmp_path / "other"), options(sequence_batch_size=100))
    assert isinstance(flat.source, FlatSource) and other.cache.mu2.shape == flat.cache.mu2.shape
    other.cache.mu2.data.copy_(flat.cache.mu2.data)
    for _ in range(25):
        terms = [trainer.take(trainer.next_batch()) for trainer in (flat, other)]
        assert terms[0] == terms[1]
        flat.step += 1
        other.step += 1
    assert torch.equal(flat.cache.mu2, other.cache.mu2)


def test_the_cache_is_reset_to_map_estimates(feats, tmp_path):
    """Line 4 of Algorithm 1, and T6.6: Adam's moments of the old sequences are gone, or kept on demand."""
    for cache_opt in ("reset", "keep"):
        trainer = open_training(feats, str(tmp_path / cache_opt), options(cache_opt=cache_opt))
        for _ in range(3):
            trainer.take(trainer.source.next())
        moments = trainer.cache.optimizer.state_dict()["state"]
        assert moments[0]["step"] == 3 and moments[0]["exp_avg"].abs().sum() > 0
        block = trainer.source.block
        trainer.cache.reset(block)
        for row in (0, 5):
            x = trainer.source.sequences.read(int(block.positions[row]))
            starts = np.arange(0, len(x) - L + 1, 4)
            z2 = trainer.model.encode_z2(torch.from_numpy(x[starts + np.arange(L)[:, None]])).mean.double()
            expected = z2.sum(0) / (len(starts) + 0.25)
            np.testing.assert_allclose(trainer.cache.mu2[row].detach(), expected.detach(), atol=1e-6)
        assert bool(trainer.cache.optimizer.state_dict()["state"]) == (cache_opt == "keep")


# ---------------------------------------------------------------------------------------------- a run


@pytest.mark.parametrize("sampling", ["hierarchical", "flat"])
@pytest.mark.parametrize("stop_at", [7, 20])
def test_goes_on_to_the_same_bits(feats, tmp_path, sampling, stop_at):
    """T6.9: stopped within a batch of sequences, and at a validation."""
    whole = train(feats, tmp_path / "whole", sampling=sampling, num_steps=30)
    trainer = open_training(feats, str(tmp_path / "parts"), options(sampling=sampling, num_steps=30))
    take = trainer.take

    def stopping(batch):
        if trainer.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(batch)

    trainer.take = stopping
    assert trainer.run().signum == signal.SIGTERM and trainer.step == stop_at
    trainer.folder.close()
    again = train(feats, tmp_path / "parts", sampling=sampling, num_steps=30, resume=True)
    assert torch.equal(again.cache.mu2, whole.cache.mu2)
    assert same_model(tmp_path / "whole", tmp_path / "parts")
    assert all(torch.equal(p, q) for p, q in zip(whole.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize("loader_threads", [0, 1])
def test_threads_do_not_matter(feats, tmp_path, loader_threads):
    one = train(feats, tmp_path / "one", loader_threads=loader_threads)
    other = train(feats, tmp_path / "other", loader_threads=1)
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_killed_at_any_moment(feats, tmp_path):
    """SIGKILL: the run goes on from what was saved, to the model of the run that nobody killed."""
    command = [sys.executable, str(ROOT / "bin/train-fhvae"), *SMALL, "--save-interval=3", "--num-steps=120",
               "--resume", feats]
    subprocess.run([*command, str(tmp_path / "whole")], env=environment(), check=True, capture_output=True)
    for wait in (0.0, 0.15, 0.3):
        process = subprocess.Popen([*command, str(tmp_path / "parts")], env=environment(), stderr=subprocess.PIPE)
        deadline = time.time() + 60
        while not (tmp_path / "parts/state.pt").exists() and process.poll() is None and time.time() < deadline:
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        process.communicate()
    done = run("train-fhvae", *command[2:], tmp_path / "parts")
    assert same_model(tmp_path / "whole", tmp_path / "parts"), done.stderr
    lines = [[{k: v for k, v in json.loads(line).items() if not k.endswith("_s")}
              for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_program(feats, tmp_path):
    done = run("train-fhvae", *SMALL, "--tensorboard=false", feats, tmp_path / "m")
    assert "24 sequences" in done.stderr and "6 of" in done.stderr and "ms a step" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "m/metrics.jsonl").open()]
    assert [line["steps"] for line in lines] == [0, 10, 20, 30] and lines[-1]["sequence_batches"] > 1
    assert lines[-1]["dev_bound"] > lines[0]["dev_bound"] and lines[-1]["reset_s"] > 0
    for line in lines:
        total = line["dev_log_px"] - line["dev_kl_z1"] - line["dev_kl_z2"] + line["dev_log_pmu2"]
        assert abs(total - line["dev_bound"]) < 1e-4 and line["dev_exact_bound"] < line["dev_bound"]
    assert {"config.json", "final.pt", "state.pt", "skipped", "checkpoints"} <= set(os.listdir(tmp_path / "m"))
    again = run("train-fhvae", "--resume", *SMALL, feats, tmp_path / "m")
    assert "finished run" in again.stderr
    run("train-fhvae", *SMALL, feats, tmp_path / "m", check=False)


def test_short_sequences_take_no_part(tmp_path):
    feats = {**synthetic(12)[0], "short": np.ones((9, F), np.float32), "empty": np.ones((1, F), np.float32)}
    save_ark(tmp_path / "f.ark", feats)
    done = run("train-fhvae", *SMALL, f"ark:{tmp_path}/f.ark", tmp_path / "m")
    assert "2 shorter than a segment" in done.stderr
    assert sorted((tmp_path / "m/skipped").read_text().splitlines()) == [
        "empty shorter than a segment", "short shorter than a segment"]


def test_patience_ends_a_run(feats, tmp_path):
    trainer = train(feats, tmp_path / "m", num_steps=1000, lr=1e-12, patience_steps=20)
    assert trainer.step < 100 and trainer.finished and trainer.ended


@pytest.mark.parametrize("words, message", [
    (["--sequence-batch-size=0"], "--sequence-batch-size"), (["--pz2-var=0"], "--pz2-var"), (["--beta1=1"], "--beta1"),
    (["--lr=inf"], "finite"), (["--dev-share=1"], "--dev-share"), (["--segment-length=500"], "no sequence has"),
    (["--dev-share=0.99"], "too few to hold some out"), (["--device=tpu"], "--device"),
])
def test_bad_options_are_one_line(feats, tmp_path, words, message):
    done = run("train-fhvae", *SMALL, *words, feats, tmp_path / "m", check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]


def test_other_options_or_data_are_refused(feats, tmp_path):
    train(feats, tmp_path / "m")
    for changes, message in (({"alpha": 3.0}, "--alpha=3.0"), ({"z2_dim": 5}, "--z2-dim=5")):
        with pytest.raises(VoxarkError, match=message):
            train(feats, tmp_path / "m", resume=True, **changes)
    with pytest.raises(VoxarkError, match="--resume goes on"):
        train(feats, tmp_path / "m")
    save_ark(tmp_path / "f.ark", synthetic(20)[0])
    with pytest.raises(VoxarkError, match="the data are not those"):
        train(f"ark:{tmp_path}/f.ark", tmp_path / "m", resume=True)


def test_values_that_are_not_finite_name_the_key(tmp_path):
    feats = synthetic()[0]
    feats["u07"][30] = np.nan
    save_ark(tmp_path / "f.ark", feats)
    done = run("train-fhvae", *SMALL, f"ark:{tmp_path}/f.ark", tmp_path / "m", check=False)
    assert done.returncode == 1 and f"u07: ark:{tmp_path}/f.ark" in done.stderr.splitlines()[-1]


def test_a_loss_that_is_not_finite(feats, tmp_path):
    """Once it goes back to the best model with half the rate, then it ends with the batch's keys."""
    trainer = open_training(feats, str(tmp_path / "m"), options(num_steps=40))
    backward, broken = trainer._backward, []

    def breaking(batch):
        terms = backward(batch)
        if trainer.step in (12, 15, 18) and len(broken) < 2:
            broken.append(trainer.step)
            terms[0] = terms[0] * torch.nan
        return terms

    trainer._backward = breaking
    with pytest.raises(VoxarkError, match="second time"):
        trainer.run()
    assert broken == [12, 15] and trainer.lr == 0.0005
    assert load_state(tmp_path / "m/state.pt")["best_epoch"] == 1 and (tmp_path / "m/final.pt").exists()


def test_alarms():
    from voxark.fhvae.validation import alarms

    good = {"active_z1": 3, "active_z2": 2, "dev_seq_acc": 0.5, "dev_bound": -10.0}
    assert alarms(good, {"dev_bound": -20.0}, 10) == []
    for change, word in (({"active_z1": 0}, "z1"), ({"active_z2": 0}, "z2"), ({"dev_seq_acc": 0.1}, "tell"),
                         ({"dev_bound": -30.0}, "divergence")):
        found = alarms({**good, **change}, {"dev_bound": -20.0}, 10)
        assert len(found) == 1 and word in found[0]


@pytest.mark.parametrize("sampling", ["hierarchical", "flat"])
def test_two_workers_share_the_gradients(feats, tmp_path, sampling):
    """Their networks stay equal, and the run goes on with two; other numbers are refused."""
    words = [*SMALL, f"--sampling={sampling}", "--num-steps=12", "--steps-per-epoch=6", feats, str(tmp_path / "m")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
              str(ROOT / "bin/train-fhvae")]
    env = environment(OMP_NUM_THREADS="1")
    done = subprocess.run([*launch, *words], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    state = load_state(tmp_path / "m/state.pt")
    assert len(state["workers"]) == 2
    tables = [worker["cache"]["mu2"] for worker in state["workers"]]
    assert torch.equal(*tables) == (sampling == "flat")
    alone = run("train-fhvae", "--resume", *words, check=False)
    assert alone.returncode == 1 and "world-size" in alone.stderr
    more = [word.replace("12", "18") if word.startswith("--num-steps") else word for word in words]
    done = subprocess.run([*launch, "--resume", *more], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and load_state(tmp_path / "m/state.pt")["step"] == 18, done.stderr


def test_half_products_learn(feats, tmp_path):
    plain, half = (train(feats, tmp_path / p, precision=p, num_steps=60) for p in ("float32", "bf16"))
    bounds = [[line["dev_bound"] for line in trainer.history] for trainer in (plain, half)]
    assert bounds[1][0] == bounds[0][0]  # judged in float32
    assert abs(bounds[1][-1] - bounds[0][-1]) < 0.15 * abs(bounds[0][-1] - bounds[0][0])


# ---------------------------------------------------------------------------------------------- what is learnt


def gain(z, labels):
    """Share of correct nearest-mean decisions on every second row by the means of the others, above chance."""
    train, test = slice(0, None, 2), slice(1, None, 2)
    classes = np.unique(labels)
    means = np.array([z[train][labels[train] == c].mean(0) for c in classes])
    found = classes[((z[test][:, None] - means) ** 2).sum(2).argmin(1)]
    return (np.mean(found == labels[test]) - 1 / len(classes)) / (1 - 1 / len(classes))


def within(z, rows):
    """Share of the variance of z (N,D) that is within sequences."""
    means = np.array([z[rows == row].mean(0) for row in np.unique(rows)])
    return (z - means[np.searchsorted(np.unique(rows), rows)]).var(0).sum() / z.var(0).sum()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Models on the synthetic sequences, with and without the discriminative term, and what they encode."""
    folder = tmp_path_factory.mktemp("trained")
    feats, _, labels = synthetic(60, seed=1, templates=3, scale=0.4)
    save_ark(folder / "f.ark", feats)
    found = {}
    for alpha in (10.0, 0.0):
        torch.set_num_threads(1)
        train(f"ark:{folder}/f.ark", folder / f"m{alpha}", alpha=alpha, num_steps=1500, steps_per_epoch=500,
              hidden_dim=128, z1_dim=8, lr=3e-3, sequence_batch_size=60)
        model = load_model(folder / f"m{alpha}")
        encoded = [encode(model, x, L) for x in feats.values()]
        rows = np.repeat(np.arange(len(feats)), [len(e.starts) for e in encoded])
        found[alpha] = (model, np.concatenate([e.z1_mean for e in encoded]),
                        np.concatenate([e.z2_mean for e in encoded]), rows)
    return found, feats, np.concatenate(list(labels.values()))


def test_offsets_are_in_z2_and_templates_in_z1(trained):
    """T6.7; without the discriminative term the disentanglement is worse."""
    found, _, templates = trained
    figures = {}
    for alpha, (_, z1, z2, rows) in found.items():
        figures[alpha] = {"template in z1": gain(z1, templates), "template in z2": gain(z2, templates),
                          "sequence in z1": gain(z1, rows), "sequence in z2": gain(z2, rows)}
        figures[alpha]["within"] = within(z2, rows)
    good, bad = figures[10.0], figures[0.0]
    assert good["template in z1"] > 0.9 and good["sequence in z2"] > 0.8, figures
    assert good["sequence in z2"] > 2 * good["sequence in z1"], figures
    assert good["template in z1"] > 1.5 * good["template in z2"], figures
    assert bad["sequence in z2"] < good["sequence in z2"] and good["within"] < 0.5 * bad["within"], figures
    assert bad["template in z2"] > 1.5 * good["template in z2"], figures


def test_recombination_of_one_segment_is_its_reconstruction(trained):
    """T6.11, and segments put together cover the utterance."""
    model, feats = trained[0][10.0][0], trained[1]
    x = feats["u03"][:-3]
    encoded = encode(model, x, L, cover=True)
    assert encoded.starts.tolist()[-1] == len(x) - L
    mean, logvar = decode(model, encoded.z1_mean, encoded.z2_mean)
    whole = joined(mean, encoded.starts, len(x))
    np.testing.assert_array_equal(whole, reconstruct(model, x))
    assert np.abs(whole - x).mean() < 0.5 * np.abs(x - x.mean(0)).mean()
    z = (x - whole) / np.exp(0.5 * joined(logvar, encoded.starts, len(x)))
    assert 0.5 < z.std() < 2.0  # the variances are those of the errors


def test_extraction(trained, tmp_path):
    model, feats = trained[0][10.0][0], dict(list(trained[1].items())[:4])
    from voxark.nnet.model_folder import save_model

    save_model(tmp_path / "m", model)
    save_ark(tmp_path / "f.ark", {**feats, "short": np.ones((3, F), np.float32)})
    names = ("z1", "z2", "z1-var", "z2-var", "mu1", "reconstruction")
    done = run("extract-fhvae", *(f"--{n}=ark:{tmp_path}/{n}.ark" for n in names), f"--bound=ark,t:{tmp_path}/bound",
               "--segment-shift=5", tmp_path / "m", f"ark:{tmp_path}/f.ark", f"ark:{tmp_path}/mu2.ark")
    assert "done 4, failed 1" in done.stderr and "3 frames, fewer than a segment's 10" in done.stderr
    found = {name: load_ark(tmp_path / f"{name}.ark") for name in (*names, "mu2")}
    for key, x in feats.items():
        expected = encode(model, x, 5)
        for name, value in (("z1", expected.z1_mean), ("z2-var", np.exp(expected.z2_logvar)), ("mu2", expected.mu2),
                            ("mu1", expected.z1_mean.sum(0) / (len(expected.starts) + 0.25))):
            np.testing.assert_allclose(found[name][key], value, rtol=1e-5, atol=1e-6)
        assert found["reconstruction"][key].shape == x.shape
    line = (tmp_path / "bound").read_text().split()
    total, *terms = map(float, line[2:7])
    assert abs(total - (terms[0] - terms[1] - terms[2] + terms[3])) < 1e-2


def test_bounds_are_densities_of_the_features_as_they_are(trained):
    """log p(x) by scipy at the decoder's mean and variance in the units of the features."""
    model, x = trained[0][10.0][0], trained[1]["u05"]
    encoded = encode(model, x, 7)
    mean, logvar = decode(model, encoded.z1_mean, encoded.z2_mean)
    cut = x[encoded.starts[:, None] + np.arange(L)]
    expected = stats.norm.logpdf(cut, mean, np.exp(0.5 * logvar)).sum((1, 2)).mean()
    assert abs(extract(model, x, ("bound",), 7)["bound"][1] - expected) < 1e-3 * abs(expected) + 1e-2


def test_samples_depend_on_seed_and_key(trained):
    model, x = trained[0][10.0][0], trained[1]["u01"]
    one, again, other = (extract(model, x, ("z1", "z2"), 5, seed) for seed in ((0, "a"), (0, "a"), (0, "b")))
    assert np.array_equal(one["z1"], again["z1"]) and not np.array_equal(one["z2"], other["z2"])
    mean = encode(model, x, 5)
    draws = np.array([extract(model, x, ("z2",), 5, (n, "a"))["z2"] for n in range(300)])
    np.testing.assert_allclose(draws.mean(0), mean.z2_mean, atol=0.2)
    np.testing.assert_allclose(draws.std(0).mean(), np.exp(0.5 * mean.z2_logvar).mean(), rtol=0.05)


@pytest.mark.parametrize("words, message", [
    ([], "nothing to write"), (["--segment-shift=0", "--z1=ark:-"], "--segment-shift"),
])
def test_extraction_says_what_is_missing(trained, tmp_path, words, message):
    done = run("extract-fhvae", *words, tmp_path, "ark:-", check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]


def test_other_features_fail_by_key(trained, tmp_path):
    from voxark.nnet.model_folder import save_model

    save_model(tmp_path / "m", trained[0][10.0][0])
    save_ark(tmp_path / "f.ark", {"a": np.ones((30, F + 1), np.float32), "b": np.full((30, F), np.inf, np.float32)})
    done = run("extract-fhvae", tmp_path / "m", f"ark:{tmp_path}/f.ark", f"ark:{tmp_path}/o.ark", check=False)
    assert done.returncode == 1 and "dimension 6" in done.stderr and "done 0, failed 2" in done.stderr


def test_sizes_of_config_are_checked():
    with pytest.raises(VoxarkError, match="--num-layers"):
        FhvaeModel(model_config(dataclasses.replace(ModelOptions(), num_layers=0), 5))
