"""egs/mini/vectors.sh on vectors drawn from the PLDA model, imported from npz files."""

import csv
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from helpers import ROOT, shell


def draw_npz(path, rng, speakers, per_speaker=6, dim=8, noise=0.5):
    centres = rng.normal(size=(len(speakers), dim))
    x = centres.repeat(per_speaker, 0) + noise * rng.normal(size=(len(speakers) * per_speaker, dim))
    spks = np.repeat(speakers, per_speaker)
    utts = np.array([f"{spk}-{number}" for number, spk in enumerate(spks)])
    order = rng.permutation(len(x))
    np.savez(path, utts=utts[order], spks=spks[order], x=x[order].astype(np.float32))
    return utts, spks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two systems' folders (the second without a cohort), trials, and the finished recipe's folder."""
    tmp = tmp_path_factory.mktemp("vectors")
    for number, system in enumerate(("a", "b")):
        rng = np.random.default_rng(number)
        parts = {"train": [f"s{i:02d}" for i in range(24)], "test": [f"t{i:02d}" for i in range(8)]}
        if system == "a":
            parts["cohort"] = [f"c{i:02d}" for i in range(12)]
        for part, speakers in parts.items():
            utts, _ = draw_npz(tmp / f"{system}.{part}.npz", rng, speakers)
            prefix = "--spk-prefix=other-" if part == "cohort" else ""
            shell(f"{ROOT}/local/mini/import_vectors.py {prefix} {tmp}/{system}.{part}.npz {tmp}/{system}/{part}")
    shell(f"make-trials {tmp}/a/test/utt2spk {tmp}/trials; awk 'NR % 2' {tmp}/trials >{tmp}/half")
    shell(f"awk '{{ print $1, substr($1, 3, 1) % 2 ? \"odd\" : \"even\" }}' {tmp}/a/test/utt2spk >{tmp}/utt2label")
    done = shell(f"{ROOT}/egs/mini/vectors.sh --trials {tmp}/trials --more-trials {tmp}/half --lda-dim 4 --by {tmp}/utt2label "
                 f"{tmp}/exp a={tmp}/a b={tmp}/b", timeout=300)
    return tmp, done.stdout.decode()


def test_every_system_is_reported_on_every_list(made):
    tmp, printed = made
    assert printed.startswith((tmp / "exp/results.txt").read_text())
    kinds = [f"{kind}.{what}" for kind in ("cosine", "lda", "plda") for what in ("raw", "norm")]
    names = [f"{system}.{kind}" for system in "ab" for kind in kinds] + ["fused"]
    with open(tmp / "exp/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == names
    for row in rows:
        assert 0.0 <= float(row["eer_low"]) <= float(row["eer"]) <= float(row["eer_high"]) < 0.6
        assert float(row["min_cllr"]) <= float(row["cllr"])
    text = (tmp / "exp/results.txt").read_text()
    assert f"{tmp}/half" in text and "even" in text and "odd" in text
    eer = {row["system"]: float(row["eer"]) for row in rows}
    assert eer["fused"] < max(eer["a.plda.raw"], eer["b.plda.raw"])  # two independent draws are better than one


def test_held_out_trials_never_meet_a_back_end_that_was_trained_on_their_speakers(made):
    tmp, _ = made
    for fold in (1, 2, 3):
        trained = {line.split()[1] for line in (tmp / f"exp/a/fold{fold}/train/utt2spk").read_text().splitlines()}
        tested = {line.split()[1] for line in (tmp / f"exp/a/fold{fold}/test/utt2spk").read_text().splitlines()}
        assert trained and tested and not trained & tested
        in_trials = {word for line in (tmp / f"exp/a/fold{fold}/trials").read_text().splitlines() for word in line.split()[:2]}
        assert {word.split("-")[0] for word in in_trials} == tested


def test_the_picture_is_drawn(made):
    tmp, printed = made
    pytest.importorskip("matplotlib")
    assert (tmp / "exp/scores.svg").read_text().startswith("<?xml") and "scores.svg" in printed


@pytest.mark.parametrize(("arguments", "message"), [
    ("--trials nothing exp a=x", "no such list"),
    ("--trials {tmp}/trials exp x", "<name>=<vectors-dir> was expected"),
    ("--trials {tmp}/trials exp a={tmp}/exp", "missing or empty"),
    ("--trials {tmp}/trials {tmp} a={tmp}/a", "results of a go, which are removed first"),
    ("--trials {tmp}/trials {tmp}/a train={tmp}/a", "results of train go, which are removed first"),
    ("--trials {tmp}/trials {tmp} c={tmp}/b b={tmp}/a", "results of b go, which are removed first"),
    ("--trials {tmp}/exp/a/held_out.trials {tmp}/exp a={tmp}/a", "results of a go, which are removed first"),
    ("--trials {tmp}/trials --by {tmp}/a/test/utt2spk {tmp} a={tmp}/b", "results of a go, which are removed first"),
    ("--trials {tmp}/trials --lda-dim 4,5,6 exp a={tmp}/a b={tmp}/b", "'4,5,6': 2 values, or one, were expected"),
    ("--trials {tmp}/trials exp ={tmp}/a", "name is made of letters"),
    ("--trials {tmp}/trials exp ../a={tmp}/a", "name is made of letters"),
    ("--trials {tmp}/trials exp a={tmp}/a a={tmp}/b", "two systems have the name a"),
    ("--trials {tmp}/trials --num-folds 1 exp a={tmp}/a", "at least 2 parts"),
    ("--trials {tmp}/trials --num-folds x exp a={tmp}/a", "a positive number"),
    ("--trials {tmp}/trials --fuse all exp a={tmp}/a", "--fuse all"),
    ("--trials {tmp}/trials --by nothing exp a={tmp}/a", "no such table"),
])
def test_wrong_arguments_are_named(made, arguments, message):
    tmp, _ = made
    done = shell(f"{ROOT}/egs/mini/vectors.sh {arguments.format(tmp=tmp)}", check=False, cwd=tmp)
    assert done.returncode == 1 and message in done.stderr
    assert (tmp / "a/train/vectors.scp").exists() and (tmp / "a/test/utt2spk").exists()
    assert (tmp / "b/train/vectors.scp").exists() and (tmp / "exp/results.csv").exists()


def test_results_of_an_earlier_run_do_not_pass_for_those_of_one_that_fails(made, tmp_path):
    tmp, _ = made
    shutil.copytree(tmp / "exp", tmp_path / "exp")
    done = shell(f"{ROOT}/egs/mini/vectors.sh --cmd false --trials {tmp}/trials {tmp_path}/exp a={tmp}/a b={tmp}/b", check=False)
    assert done.returncode == 1 and "train_plda.sh failed" in done.stderr
    left = {str(path.relative_to(tmp_path / "exp")) for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    assert not [name for name in left if name.startswith(("results", "scores", "fusion", "b/"))]
    assert not [name for name in left if os.path.basename(name).startswith(("scores", "calibration"))]


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed")
def test_two_runs_at_once_do_not_share_a_folder(made):
    tmp, _ = made
    before = (tmp / "exp/results.csv").read_bytes()
    with subprocess.Popen(["flock", str(tmp / "exp/.lock"), "-c", "echo held; sleep 60"], stdout=subprocess.PIPE,
                          start_new_session=True) as other:
        other.stdout.readline()
        done = shell(f"{ROOT}/egs/mini/vectors.sh --trials {tmp}/trials {tmp}/exp a={tmp}/a", check=False)
        os.killpg(other.pid, signal.SIGKILL)
    assert done.returncode == 1 and "another run" in done.stderr and str(tmp / "exp") in done.stderr
    assert (tmp / "exp/results.csv").read_bytes() == before and (tmp / "exp/a/scores.cosine.raw").exists()


@pytest.mark.parametrize(("arrays", "message"), [
    ({"x": np.zeros((2, 3))}, "arrays utts, spks and x"),
    ({"utts": ["a", "a"], "spks": ["s", "s"], "x": np.zeros((2, 3))}, "holds a name twice"),
    ({"utts": ["a", "b c"], "spks": ["s", "s"], "x": np.zeros((2, 3))}, "'b c' is no name"),
    ({"utts": ["a", "b"], "spks": ["s", "s"], "x": np.array([[0.0], [np.nan]])}, "b: NaN"),
    ({"utts": ["a"], "spks": ["s", "s"], "x": np.zeros((2, 3))}, "do not belong together"),
])
def test_import_names_what_is_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    done = shell(f"{ROOT}/local/mini/import_vectors.py {tmp_path}/x.npz {tmp_path}/out", check=False)
    assert done.returncode == 1 and message in done.stderr
