"""The i-vector programs and steps: files in, files out, refusals, jobs, restarts, Kaldi's golden files."""

import os
import re
import shutil

import numpy as np
import pytest
from helpers import ROOT, environment, golden, load_ark, needs_golden, run, save_ark, shell

from voxark import tables
from voxark.gmm.full import FullGmm
from voxark.io.posteriors import Posteriors
from voxark.ivector.extractor import IvectorExtractor

C, D = 4, 6
KEYS = [f"utt{u:02d}" for u in range(30)]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A folder with ubm, feats.ark and post.ark of utterances that differ in the means of their Gaussians."""
    folder = tmp_path_factory.mktemp("ivector")
    rng = np.random.default_rng(0)
    means = 4.0 * rng.standard_normal((C, D))
    gmm = FullGmm(np.full(C, 1.0 / C), means, np.tile(np.eye(D), (C, 1, 1)))
    tables.write_object("full-gmm", str(folder / "ubm"), gmm.to_params())
    t = rng.standard_normal((C, D, 2))
    with (tables.open_writer("mat", f"ark:{folder / 'feats.ark'}") as feats,
          tables.open_writer("post-arrays", f"ark:{folder / 'post.ark'}") as posts):
        for u, key in enumerate(KEYS):
            num_frames = 40 + u
            component = rng.integers(C, size=num_frames)
            x = (means + t @ rng.standard_normal(2))[component] + rng.standard_normal((num_frames, D))
            feats[key] = x.astype(np.float32)
            ones = np.ones(num_frames, np.int32)
            posts[key] = Posteriors(ones, component.astype(np.int32), ones.astype(np.float32))
    return folder


def inputs(folder):
    """The rspecifiers of features and posteriors."""
    return f"ark:{folder / 'feats.ark'}", f"ark:{folder / 'post.ark'}"


def train(case, out, *options, **keywords):
    return run("train-ivector-extractor", "--ivector-dim=2", "--num-iters=3", "--gaussian-min-count=10",
               *options, case / "ubm", *inputs(case), out, **keywords)


def extract(case, extractor, out, *options, **keywords):
    return run("extract-ivectors", *options, extractor, *inputs(case), f"ark:{out}", **keywords)


def read(name):
    return tables.read_object("ivector-extractor", str(name))


def same(one, other, tolerance=1e-10):
    """Compare the fields of two extractor files, relative to the largest of each."""
    for name in ("w_vec", "m", "sigma_inv", "offset"):
        a, b = (np.asarray(getattr(read(file), name)) for file in (one, other))
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max(), name


def evidences(log):
    """ln p a frame of each iteration."""
    return [float(value) for value in re.findall(r"utterance, (-?[0-9.]+) a frame", log)]


# ----------------------------------------------------------------------------------------- one process, jobs


@pytest.mark.parametrize("form", ["--kaldi-compat=false", "--kaldi-compat=true"])
def test_jobs_give_the_model_of_one_process(case, tmp_path, form):
    whole = train(case, tmp_path / "whole.ie", form)
    assert "done 30, failed 0" in whole.stderr and "--max-memory=5000" in whole.stderr
    assert len(evidences(whole.stderr)) == 3 and np.diff(evidences(whole.stderr)).min() > 0
    run("train-ivector-extractor", "--ivector-dim=2", "--num-iters=0", form, case / "ubm", "ark:none",
        "ark:none", tmp_path / "0.ie")
    feats = tables.open_reader("mat", f"ark:{case / 'feats.ark'}")
    parts = [{}, {}]
    for i, (key, x) in enumerate(feats):
        parts[i > 7][key] = x
    for job, part in enumerate(parts):
        save_ark(tmp_path / f"{job}.ark", part)
    logged = []
    for i in range(3):
        for job in range(2):
            run("acc-ivector-stats", tmp_path / f"{i}.ie", f"ark:{tmp_path / f'{job}.ark'}",
                f"ark:{case / 'post.ark'}", tmp_path / f"{job}.acc")
        run("sum-ivector-stats", tmp_path / "acc", *(tmp_path / f"{job}.acc" for job in range(2)))
        done = run("est-ivector-extractor", "--gaussian-min-count=10", tmp_path / f"{i}.ie", tmp_path / "acc",
                   tmp_path / f"{i + 1}.ie")
        logged += evidences(done.stderr)
    assert logged == evidences(whole.stderr)
    same(tmp_path / "whole.ie", tmp_path / "3.ie")


def test_extracted_vectors_follow_the_forms(case, tmp_path):
    """The default file has a column more than --ivector-dim, for Kaldi's programs; ours do not see it."""
    train(case, tmp_path / "ours.ie")
    train(case, tmp_path / "kaldi.ie", "--kaldi-compat")
    assert read(tmp_path / "ours.ie").m.shape == (C, D, 3)
    assert read(tmp_path / "kaldi.ie").m.shape == (C, D, 2)
    for name in ("ours", "kaldi"):
        done = extract(case, tmp_path / f"{name}.ie", tmp_path / name)
        assert "done 30, failed 0" in done.stderr
        vectors = load_ark(tmp_path / name)
        x = np.array(list(vectors.values()))
        assert x.shape == (len(KEYS), 2) and x.dtype == np.float32
        np.testing.assert_allclose(x.mean(0), 0, atol=0.3)
    info = run("ivector-info", tmp_path / "ours.ie", tmp_path / "kaldi.ie").stdout.decode().splitlines()
    assert [line for line in info if line.startswith("form ")] == ["form centred", "form kaldi"]
    for line in ("ivector-dim 2", "num-gauss 4", "dim 6"):
        assert info.count(line) == 2
    shares = [float(line.split()[1]) for line in info if line.startswith("share-explained ")]
    assert 0.1 < shares[0] < 0.9


def test_text_form_is_the_same_model(case, tmp_path):
    train(case, tmp_path / "binary.ie")
    train(case, tmp_path / "text.ie", "--binary=false")
    assert (tmp_path / "text.ie").read_bytes().startswith(b"<IvectorExtractor> <w>  [ ]")
    for name in ("binary", "text"):
        extract(case, tmp_path / f"{name}.ie", tmp_path / name)
    ours, text = load_ark(tmp_path / "binary"), load_ark(tmp_path / "text")
    np.testing.assert_allclose([text[key] for key in ours], list(ours.values()), atol=1e-4)


def test_statistics_beyond_the_memory_go_to_disk(case, tmp_path):
    train(case, tmp_path / "memory.ie")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = environment(TMPDIR=str(scratch))
    # 128.009 MB are needed whatever the data; the statistics would take 0.0067
    done = train(case, tmp_path / "disk.ie", "--max-memory=128.01", env=env)
    assert f"in a file in {scratch}" in done.stderr.split("their statistics take")[1].splitlines()[0]
    assert read(tmp_path / "disk.ie").m.tobytes() == read(tmp_path / "memory.ie").m.tobytes()
    assert not list(scratch.iterdir())
    refused = train(case, tmp_path / "none.ie", "--max-memory=50", check=False)
    assert refused.returncode == 1 and "need 128 MB, --max-memory=50 allows less" in refused.stderr
    assert not (tmp_path / "none.ie").exists()


def test_torch_gives_the_same_vectors(case, tmp_path):
    pytest.importorskip("torch")
    vectors = []
    for device in ("cpu", "torch"):
        train(case, tmp_path / f"{device}.ie", f"--device={device}")
        extract(case, tmp_path / "cpu.ie", tmp_path / device, f"--device={device}")
        vectors.append(np.array(list(load_ark(tmp_path / device).values())))
    same(tmp_path / "cpu.ie", tmp_path / "torch.ie", 1e-8)
    np.testing.assert_allclose(*vectors, atol=1e-6)


def test_seed_and_order_of_files(case, tmp_path):
    """Same seed, same bytes; another seed, another model; the order of utterances does not matter."""
    for name, options in (("a", []), ("b", []), ("c", ["--srand=1"])):
        train(case, tmp_path / name, *options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    feats = dict(tables.open_reader("mat", f"ark:{case / 'feats.ark'}"))
    save_ark(tmp_path / "turned.ark", dict(reversed(feats.items())))
    run("train-ivector-extractor", "--ivector-dim=2", "--num-iters=3", "--gaussian-min-count=10",
        case / "ubm", f"ark:{tmp_path / 'turned.ark'}", f"ark:{case / 'post.ark'}", tmp_path / "d")
    same(tmp_path / "a", tmp_path / "d")


# ----------------------------------------------------------------------------------------- input at its worst


def test_bad_utterances_are_counted_by_name(case, tmp_path):
    train(case, tmp_path / "ie")
    feats = dict(tables.open_reader("mat", f"ark:{case / 'feats.ark'}"))
    posts = dict(tables.open_reader("post-arrays", f"ark:{case / 'post.ark'}"))
    keys = list(feats)
    feats[keys[1]] = feats[keys[1]][:-2]
    feats[keys[2]] = np.zeros((0, D), np.float32)
    feats[keys[3]] = feats[keys[3]][:, :-1]
    feats[keys[4]] = np.full_like(feats[keys[4]], np.nan)
    posts[keys[5]] = posts[keys[5]]._replace(index=posts[keys[5]].index + 1)
    posts[keys[6]] = posts[keys[6]]._replace(value=posts[keys[6]].value * 0)
    posts[keys[2]] = Posteriors(*(array[:0] for array in posts[keys[2]]))
    del posts[keys[0]]
    with (tables.open_writer("mat", f"ark:{tmp_path / 'feats.ark'}") as out,
          tables.open_writer("post-arrays", f"ark:{tmp_path / 'post.ark'}") as out_post):
        for key, x in feats.items():
            out[key] = x
        for key, post in posts.items():
            out_post[key] = post
    reasons = {keys[0]: "no posteriors", keys[1]: "39 frames of features, but posteriors of 41 frames",
               keys[2]: "no frames", keys[3]: "the model has dimension 6",
               keys[4]: "feature at frame 0, column 0", keys[5]: "they come from another model",
               keys[6]: "no posteriors above zero"}
    for program, first, out in (("extract-ivectors", tmp_path / "ie", f"ark:{tmp_path / 'iv'}"),
                                ("acc-ivector-stats", tmp_path / "ie", tmp_path / "acc"),
                                ("train-ivector-extractor", case / "ubm", tmp_path / "ie2")):
        options = ["--ivector-dim=2", "--num-iters=1"] if program.startswith("train") else []
        done = run(program, *options, f"--failed-list={tmp_path / 'failed'}", first, *inputs(tmp_path), out)
        assert "done 23, failed 7" in done.stderr
        failed = dict(line.split(" ", 1) for line in (tmp_path / "failed").read_text().splitlines())
        assert set(failed) == set(reasons)
        for key, reason in reasons.items():
            assert reason in failed[key]


def test_nothing_usable_is_a_failure(case, tmp_path):
    train(case, tmp_path / "ie")
    save_ark(tmp_path / "empty.ark", {})
    for program, first, out in (("extract-ivectors", tmp_path / "ie", f"ark:{tmp_path / 'iv'}"),
                                ("train-ivector-extractor", case / "ubm", tmp_path / "ie2")):
        feats = f"ark:{tmp_path / 'empty.ark'}"
        done = run(program, first, feats, f"ark:{case / 'post.ark'}", out, check=False)
        assert done.returncode == 1
    assert not (tmp_path / "ie2").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--ivector-dim=0"], "--ivector-dim=0"),
    (["--ivector-dim=1", "--kaldi-compat"], "at least 2"),
    (["--num-iters=-1"], "--num-iters=-1"),
    (["--acoustic-weight=0"], "--acoustic-weight=0"),
    (["--variance-floor-factor=2"], "--variance-floor-factor=2"),
    (["--gaussian-min-count=100000"], "no Gaussian has"),
    (["--device=tpu"], "--device=tpu"),
    (["--ivector-dim=200000", "--max-memory=100"], "--max-memory=100 allows less"),  # before 77 MB of a start
])
def test_options_that_make_no_sense_are_refused(case, tmp_path, arguments, message):
    done = train(case, tmp_path / "ie", *arguments, check=False)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "ie").exists()


def test_what_cannot_be_written_is_said_before_the_training(case, tmp_path):
    done = train(case, tmp_path / "none/ie", check=False)
    assert done.returncode == 1 and "there is no directory" in done.stderr and "memory:" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_more_dimensions_than_utterances_are_warned_about(case, tmp_path):
    assert "utterances for i-vectors" not in train(case, tmp_path / "ie").stderr
    log = train(case, tmp_path / "ie", "--ivector-dim=31", "--num-iters=1").stderr
    assert "WARNING (train-ivector-extractor) 30 utterances for i-vectors of dimension 31" in log


def test_limits_below_zero_are_refused(case, tmp_path):
    train(case, tmp_path / "ie")
    done = extract(case, tmp_path / "ie", tmp_path / "iv", "--max-count=-1", check=False)
    assert done.returncode == 1 and "--max-count=-1" in done.stderr and not (tmp_path / "iv").exists()


def test_errors_name_the_file_once(case, tmp_path):
    run("train-ivector-extractor", "--ivector-dim=2", "--num-iters=0", case / "ubm", "ark:none", "ark:none",
        tmp_path / "ie")
    params = read(tmp_path / "ie")
    tables.write_object("ivector-extractor", str(tmp_path / "bad"), params._replace(m=params.m * np.nan))
    for command in (["ivector-info", tmp_path / "bad"],
                    ["extract-ivectors", tmp_path / "bad", *inputs(case), "ark:-"],
                    ["acc-ivector-stats", tmp_path / "bad", *inputs(case), tmp_path / "acc"]):
        done = run(*command, check=False)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].count("bad: ") == 1
    done = run("sum-ivector-stats", tmp_path / "sum", tmp_path / "absent", check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].count("absent") == 1
    run("acc-ivector-stats", tmp_path / "ie", *inputs(case), tmp_path / "acc")
    done = run("sum-ivector-stats", tmp_path / "sum", tmp_path / "acc", tmp_path / "acc")
    assert "acc is given 2 times" in done.stderr


def test_statistics_of_another_model_are_refused(case, tmp_path):
    for dim in (2, 3):
        run("train-ivector-extractor", f"--ivector-dim={dim}", "--num-iters=0", case / "ubm", "ark:none",
            "ark:none", tmp_path / f"{dim}.ie")
        run("acc-ivector-stats", tmp_path / f"{dim}.ie", *inputs(case), tmp_path / f"{dim}.acc")
    done = run("sum-ivector-stats", tmp_path / "sum", tmp_path / "2.acc", tmp_path / "3.acc", check=False)
    assert done.returncode == 1 and "3.acc: statistics of" in done.stderr and not (tmp_path / "sum").exists()
    done = run("est-ivector-extractor", tmp_path / "2.ie", tmp_path / "3.acc", tmp_path / "out", check=False)
    assert done.returncode == 1 and "another model" in done.stderr


def test_weights_that_depend_on_the_ivector_are_named(case, tmp_path):
    """Kaldi's --use-weights=true leaves <w_vec> empty; such an extractor can be looked at, but not used."""
    train(case, tmp_path / "ie", "--kaldi-compat")
    params = read(tmp_path / "ie")._replace(w=np.zeros((C, 2)), w_vec=np.zeros(0))
    tables.write_object("ivector-extractor", str(tmp_path / "weights.ie"), params)
    assert b"weights-depend-on-ivector true" in run("ivector-info", tmp_path / "weights.ie").stdout
    done = extract(case, tmp_path / "weights.ie", tmp_path / "iv", check=False)
    assert done.returncode == 1 and "--use-weights=false" in done.stderr and not (tmp_path / "iv").exists()


def test_weight_and_limit_of_frames(case, tmp_path):
    """--max-count scales an utterance's posteriors down to a sum, as --acoustic-weight does by a factor."""
    train(case, tmp_path / "ie")
    model = IvectorExtractor.from_params(read(tmp_path / "ie"))
    full, weighted, limited = (tmp_path / name for name in ("full", "weighted", "limited"))
    extract(case, tmp_path / "ie", full)
    extract(case, tmp_path / "ie", weighted, "--acoustic-weight=0.1")
    extract(case, tmp_path / "ie", limited, "--acoustic-weight=0.1", "--max-count=2.0")
    posts = dict(tables.open_reader("post-arrays", f"ark:{case / 'post.ark'}"))
    feats = dict(tables.open_reader("mat", f"ark:{case / 'feats.ark'}"))
    for name, scale in ((weighted, lambda count: 0.1), (limited, lambda count: min(0.1, 2.0 / count))):
        for key, ivector in load_ark(name).items():
            index, x = posts[key].index, feats[key].astype(float)
            a = scale(len(x))
            precision, linear = np.eye(2), np.zeros(2)
            for c, frame in zip(index, x):
                precision += a * model.t[c].T @ model.sigma_inv[c] @ model.t[c]
                linear += a * model.t[c].T @ model.sigma_inv[c] @ (frame - model.means[c])
            np.testing.assert_allclose(ivector, np.linalg.solve(precision, linear), atol=1e-5)
    shrunk = [np.linalg.norm(list(load_ark(name).values())) for name in (full, weighted, limited)]
    assert shrunk[0] > shrunk[1] > shrunk[2]


def test_posteriors_may_come_in_any_order(case, tmp_path):
    train(case, tmp_path / "ie")
    extract(case, tmp_path / "ie", tmp_path / "one")
    posts = dict(tables.open_reader("post-arrays", f"ark:{case / 'post.ark'}"))
    with tables.open_writer("post-arrays", f"ark,scp:{tmp_path / 'p.ark'},{tmp_path / 'p.scp'}") as out:
        for key in reversed(posts):
            out[key] = posts[key]
    for i, rspecifier in enumerate((f"ark:{tmp_path / 'p.ark'}", f"scp:{tmp_path / 'p.scp'}",
                                    f"ark,s,cs:{case / 'post.ark'}", f"ark,o:cat {case / 'post.ark'} |")):
        run("extract-ivectors", tmp_path / "ie", inputs(case)[0], rspecifier, f"ark:{tmp_path / str(i)}")
        assert (tmp_path / str(i)).read_bytes() == (tmp_path / "one").read_bytes()


# ---------------------------------------------------------------------------------------------- golden files


@needs_golden
def test_golden_files_through_the_programs(tmp_path):
    """iv.0.ie -> iv.0.acc -> iv.1.ie -> ivectors.ark, as Kaldi's programs made them."""
    source = inputs(golden("model"))
    run("acc-ivector-stats", golden("model/iv.0.ie"), *source, tmp_path / "acc")
    done = run("est-ivector-extractor", "--gaussian-min-count=20", golden("model/iv.0.ie"), tmp_path / "acc",
               tmp_path / "1.ie")
    assert evidences(done.stderr) == pytest.approx([-73.5626], abs=5e-5)  # Kaldi's log
    assert "floored 19 eigenvalues of covariances, 11.88 %" in done.stderr  # 11.875 there
    assert "eigenvalues from 0.005798 to 0.7684" in done.stderr
    run("extract-ivectors", golden("model/iv.1.ie"), *source, f"ark:{tmp_path / 'theirs'}")
    run("extract-ivectors", tmp_path / "1.ie", *source, f"ark:{tmp_path / 'ours'}")
    expected = load_ark(golden("model/ivectors.ark"))
    theirs, ours = load_ark(tmp_path / "theirs"), load_ark(tmp_path / "ours")
    assert list(theirs) == list(ours) == list(expected)
    e, t, o = (np.array([table[key] for key in expected]) for table in (expected, theirs, ours))
    np.testing.assert_allclose(t, e, atol=1e-5)
    signs = np.sign(np.sum(o * e, axis=0))  # of our own estimate's dimensions: free
    np.testing.assert_allclose(o * signs, e, atol=1e-4)
    info = run("ivector-info", golden("model/iv.1.ie")).stdout.decode()
    assert "offset 178.05" in info and "form kaldi" in info


# ------------------------------------------------------------------------------------------------------ steps

RUN_THAT_FAILS = """#!/usr/bin/env bash
# A launcher that fails the command whose log has a given name.
for word; do if [[ $word == *"$FAIL"* ]]; then echo "failing $word" >&2; exit 1; fi; done
exec "$LAUNCHER" "$@"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data directories train and test with features and decisions on voice, and a UBM of full covariances."""
    folder = tmp_path_factory.mktemp("steps")
    rng = np.random.default_rng(5)
    means = 5.0 * rng.standard_normal((3, 3))
    for name, number in (("train", 21), ("test", 5)):
        data = folder / name
        data.mkdir()
        with (tables.open_writer("mat", f"ark,scp:{data / 'feats.ark'},{data / 'feats.scp'}") as feats,
              tables.open_writer("vec", f"ark,scp:{data / 'vad.ark'},{data / 'vad.scp'}") as vad):
            for u in range(number):
                x = (means + 0.5 * rng.standard_normal(3))[rng.integers(3, size=90)]
                x += rng.standard_normal((90, 3))
                feats[f"{name}{u:02d}"] = x.astype(np.float32)
                voiced = (rng.random(90) < 0.8).astype(np.float32)
                vad[f"{name}{u:02d}"] = voiced * 0 if (name, u) == ("train", 7) else voiced
        keys = [f"{name}{u:02d}" for u in range(number)]
        (data / "utt2spk").write_text("".join(f"{key} {key}\n" for key in keys))
        (data / "spk2utt").write_text("".join(f"{key} {key}\n" for key in keys))
    ubm = folder / "ubm"
    ubm.mkdir()
    (ubm / "delta_order").write_text("1\n")
    shutil.copy(ROOT / "conf/sliding_cmvn.conf", ubm)
    shell(f"feats=$(gmm_features.sh {ubm} {folder}/train); "
          f"train-gmm-em --num-gauss=3 --num-iters=4 \"$feats\" {ubm}/diag; "
          f"gmm-copy --to=full {ubm}/diag {ubm}/final.ubm")
    launcher = folder / "run_that_fails"
    launcher.write_text(RUN_THAT_FAILS)
    launcher.chmod(0o755)
    return folder


def step(folder, options, out, check=True, fail=""):
    """Run train_ivector_extractor.sh; a command whose log's name has the word ``fail`` is to fail."""
    command = (f"LAUNCHER={ROOT}/utils/run.py FAIL='{fail or 'never such a log'}' train_ivector_extractor.sh "
               f"--cmd {folder}/run_that_fails --ivector-dim 2 --num-iters 2 --gaussian-min-count 20 "
               f"{options} {folder}/train {folder}/ubm {folder}/{out}")
    return shell(command, check=check)


def test_steps_give_one_model_and_vectors_at_any_number_of_jobs(folder):
    step(folder, "--nj 1", "one")
    assert sorted(os.listdir(folder / "one")) == [
        ".fingerprint", "delta_order", "dropped", "final.ie", "final.ubm", "ivector.conf", "log", "post.conf",
        "sliding_cmvn.conf"]
    ledger = (folder / "one/dropped").read_text().splitlines()
    assert len(ledger) == 1 and ledger[0].startswith("train07 ")
    before = (folder / "one/final.ie").stat().st_mtime_ns
    assert "is up to date" in step(folder, "--nj 2", "one").stdout.decode()
    assert (folder / "one/final.ie").stat().st_mtime_ns == before
    for nj in (1, 2):
        shell(f"extract_ivectors.sh --nj {nj} {folder}/one {folder}/test {folder}/iv{nj}")
    one, two = (dict(tables.open_reader("vec", f"scp:{folder}/iv{nj}/vectors.scp")) for nj in (1, 2))
    assert list(one) == list(two) == [f"test{u:02d}" for u in range(5)]
    np.testing.assert_array_equal(list(one.values()), list(two.values()))
    assert (folder / "iv2/ivector.scp").read_text() == (folder / "iv2/vectors.scp").read_text()
    assert (folder / "iv2/dropped").read_text() == ""


def test_statistics_beyond_the_memory_are_left_to_jobs(folder):
    if not (folder / "one/final.ie").exists():
        step(folder, "--nj 1", "one")
    assert (folder / "one/log/train.log").exists()
    step(folder, "--nj 2 --max-memory 0", "jobs")  # one process would refuse
    logs = os.listdir(folder / "jobs/log")
    assert "train.log" not in logs and {"acc.0.1.log", "acc.0.2.log", "update.1.log"} <= set(logs)
    same(folder / "jobs/final.ie", folder / "one/final.ie")
    refused = step(folder, "--nj 2 --one-process maybe", "jobs", check=False)
    assert "--one-process maybe: expected auto, true or false" in str(refused.stderr)


def test_a_failed_iteration_is_where_the_next_run_goes_on(folder):
    if not (folder / "one/final.ie").exists():
        step(folder, "--nj 1", "one")
    failed = step(folder, "--nj 2 --one-process false", "again", check=False, fail="update.1.log")
    assert failed.returncode != 0 and not (folder / "again/final.ie").exists()
    kept = {name: (folder / "again" / name).stat().st_mtime_ns for name in ("0.ie", "1.ie", "post.1.ark")}
    assert not (folder / "again/2.ie").exists()
    step(folder, "--nj 2 --one-process false --cleanup false", "again")
    assert kept == {name: (folder / "again" / name).stat().st_mtime_ns for name in kept}
    same(folder / "again/final.ie", folder / "one/final.ie")
    assert (folder / "again/dropped").read_text() == (folder / "one/dropped").read_text()
    changed = step(folder, "--nj 2 --srand 1 --cleanup false", "again")  # other options: from the start
    assert "going on" not in changed.stdout.decode() and "computing posteriors" in changed.stdout.decode()
    assert (folder / "again/post.1.ark").stat().st_mtime_ns > kept["post.1.ark"]
    assert not np.allclose(read(folder / "again/final.ie").m, read(folder / "one/final.ie").m, atol=1e-3)


def test_posteriors_that_failed_leave_no_model(folder):
    (folder / "post").mkdir()
    (folder / "post/final.ie").write_text("of an earlier run")
    failed = step(folder, "--nj 2", "post", check=False, fail="post.JOB.log")
    assert failed.returncode != 0 and not (folder / "post/final.ie").exists()
    assert (folder / "post/.fingerprint").exists() and not (folder / "post/post.done").exists()


def test_steps_name_what_is_missing(folder):
    done = shell(f"train_ivector_extractor.sh {folder}/train {folder}/test {folder}/none", check=False)
    assert done.returncode == 1 and "final.ubm is missing" in done.stderr
    done = shell(f"extract_ivectors.sh {folder}/ubm {folder}/test {folder}/none", check=False)
    assert done.returncode == 1 and "final.ie is missing" in done.stderr
    done = shell(f"train_ivector_extractor.sh --ivector-dim x {folder}/train {folder}/ubm {folder}/none",
                 check=False)
    assert done.returncode == 1 and "--ivector-dim x: expected a number" in done.stderr
    assert not (folder / "none").exists()
    for name in ("train_ivector_extractor.sh", "extract_ivectors.sh"):
        done = shell(name, check=False)
        assert done.returncode == 1 and "Usage: " in done.stderr
