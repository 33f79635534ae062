"""train_diag_ubm.sh and train_full_ubm.sh on small features: models, restarts, numbers of jobs, ledgers."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import ROOT, environment, forked_environment

from voxark import tables
from voxark.gmm.em import UpdateOptions, e_step, m_step
from voxark.gmm.model import read_gmm

DIAG = "train_diag_ubm.sh --nj 2 --num-iters 2 --num-iters-init 2 --delta-order 1"
FULL = "train_full_ubm.sh --nj 2 --num-iters 2 --num-gselect 3 --min-gaussian-occupancy 5"
MODELS = ("0.dubm", "1.dubm", "2.dubm", "final.dubm")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder for PATH with a gmm_features.sh that takes features as they are: three programs less a job."""
    folder = tmp_path_factory.mktemp("plain")
    program = folder / "gmm_features.sh"
    program.write_text('#!/bin/sh\nfor data in "$@"; do :; done\necho "scp:$data/feats.scp"\n')
    program.chmod(0o755)
    return folder


def step(command, cwd, plain=None, check=True):
    env = forked_environment(OPENBLAS_NUM_THREADS="1")
    if plain:
        env["PATH"] = f"{plain}:{env['PATH']}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=cwd, env=env,
                          timeout=100)
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def make(folder, num_utterances=9, empty=()):
    """A data directory with features of two kinds of frames; the keys ``empty`` have no frames."""
    rng = np.random.default_rng(0)
    data = folder / "d"
    data.mkdir(parents=True)
    keys = [f"s{i // 3}-{i:02d}" for i in range(num_utterances)]
    files = f"ark,scp:{data}/feats.ark,{data}/feats.scp", f"ark,scp:{data}/vad.ark,{data}/vad.scp"
    with tables.open_writer("mat", files[0]) as feats, tables.open_writer("vec", files[1]) as vad:
        for key in keys:
            num_frames = 0 if key in empty else int(rng.integers(70, 110))
            kind = rng.integers(0, 2, (num_frames, 1))
            x = rng.standard_normal((num_frames, 3)) * (1 + kind) + 4 * kind
            x += np.linspace(0, 2, num_frames)[:, None]
            x[:, 1] += 0.7 * x[:, 0]
            feats[key] = x.astype(np.float32)
            vad[key] = np.float32(rng.random(num_frames) < 0.9)
    (data / "utt2spk").write_text("".join(f"{key} {key[:2]}\n" for key in keys))
    speakers = {s: " ".join(key for key in keys if key[:2] == s) for s in sorted({key[:2] for key in keys})}
    (data / "spk2utt").write_text("".join(f"{s} {own}\n" for s, own in speakers.items()))
    return data


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plain):
    """A folder where both steps have run once, with everything kept."""
    folder = tmp_path_factory.mktemp("trained")
    make(folder)
    step(f"{DIAG} --cleanup false d 4 diag && {FULL} --cleanup false d diag full", folder, plain)
    return folder


def features(folder):
    with tables.open_reader("mat", f"scp:{folder}/d/feats.scp") as reader:
        return list(reader)


def stacked(folder):
    return np.concatenate([x for _, x in features(folder)])


def check_iteration(before, after, x, last=False):
    """One EM iteration in float64 leads from one model to the other."""
    options = UpdateOptions(min_gaussian_weight=1e-4, remove_low_count_gaussians=last)
    expected = m_step(before, e_step(before, x, double=True), options)
    np.testing.assert_allclose(after.weights, expected.weights, rtol=1e-4)
    np.testing.assert_allclose(after.means, expected.means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.variances, expected.variances, rtol=1e-4)


# ------------------------------------------------------------------------------------------ what is trained


def test_each_iteration_is_one_of_em(trained):
    models = [read_gmm(f"{trained}/diag/{i}.dubm") for i in range(3)]
    for number in range(2):
        check_iteration(*models[number : number + 2], features(trained), number == 1)
    assert (trained / "diag/final.gmm").read_bytes() == (trained / "diag/2.dubm").read_bytes()
    assert np.all(np.diff([gmm.log_likelihood(stacked(trained)).mean() for gmm in models]) > 0)


def test_features_of_the_gmm_systems(tmp_path):
    """Deltas, sliding mean, voiced frames, and every second of them are what the model is trained on."""
    make(tmp_path)
    step(f"{DIAG} --nj 1 --num-iters 1 --subsample 2 --cleanup false d 2 diag", tmp_path)
    pipe = step("gmm_features.sh diag d", tmp_path).stdout.strip()
    step(f"copy-feats '{pipe} subsample-feats --n=2 ark:- ark:- |' ark:all.ark", tmp_path)
    with tables.open_reader("mat", f"ark:{tmp_path}/all.ark") as reader:
        x = list(reader)
    assert x[0][1].shape[1] == 6
    check_iteration(read_gmm(f"{tmp_path}/diag/0.dubm"), read_gmm(f"{tmp_path}/diag/1.dubm"), x, True)


def test_features_without_mean_normalisation(tmp_path):
    make(tmp_path)
    step(f"{DIAG} --nj 1 --num-iters 1 --cmvn-config {ROOT}/conf/no_cmvn.conf d 2 diag", tmp_path)
    pipe = step("gmm_features.sh diag d", tmp_path).stdout.strip()
    step(f"copy-feats '{pipe}' ark:all.ark; add-deltas --delta-order=1 scp:d/feats.scp ark:- |"
         " select-voiced-frames ark:- scp:d/vad.scp ark:plain.ark", tmp_path)
    assert "cmvn" not in pipe and (tmp_path / "all.ark").read_bytes() == (tmp_path / "plain.ark").read_bytes()


def test_full_model_starts_from_the_diagonal_one_and_is_better(trained):
    x = stacked(trained)
    first, diag, full = (read_gmm(f"{trained}/{name}") for name in
                         ("full/0.ubm", "diag/final.dubm", "full/final.ubm"))
    np.testing.assert_allclose(first.to_diag().variances, diag.variances, rtol=1e-5)
    assert full.log_likelihood(x).mean() > diag.log_likelihood(x).mean() + 0.05
    assert (trained / "full/delta_order").read_text() == "1\n"
    assert (trained / "full/sliding_cmvn.conf").exists()
    assert (trained / "full/dropped").read_text() == "" == (trained / "diag/dropped").read_text()


def test_a_full_model_can_be_trained_further(trained, plain):
    step(f"{FULL} d full full2", trained, plain)
    after, before = (read_gmm(f"{trained}/{name}/final.ubm") for name in ("full2", "full"))
    assert after.log_likelihood(stacked(trained)).mean() > before.log_likelihood(stacked(trained)).mean()
    assert sorted(p.name for p in (trained / "full2").iterdir()) == [
        ".fingerprint", "delta_order", "dropped", "final.ubm", "log", "sliding_cmvn.conf"]  # --cleanup


def check_same(first, second):
    """The same model up to the float32 of its file."""
    for a, b in zip(*(tables.read_object("gmm", str(name)) for name in (first, second))):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * np.abs(b).max())


def test_any_number_of_jobs_gives_the_same_model(trained, plain, tmp_path):
    (tmp_path / "d").symlink_to(trained / "d")
    step(f"{DIAG} --nj 1 d 4 diag && {FULL} --nj 1 d diag full", tmp_path, plain)
    for name in ("diag/final.dubm", "full/final.ubm"):
        check_same(tmp_path / name, trained / name)


# -------------------------------------------------------------------------------------------------- restarts


def stop_at(command, folder, log, plain):
    """Start a step, stop it with Ctrl-C when a job's log appears, and return what is there then."""
    slow = folder / "slow"
    slow.mkdir(exist_ok=True)
    for program in ("acc-gmm-stats", "est-gmm"):  # so that there is time to stop it
        (slow / program).write_text(f"#!/bin/sh\nsleep 0.4\nexec {ROOT}/bin/{program} \"$@\"\n")
        (slow / program).chmod(0o755)
    job = subprocess.Popen(["bash", "-c", f"PATH={slow}:{plain}:$PATH; {command}"], cwd=folder,
                           start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env=environment(OPENBLAS_NUM_THREADS="1"))
    deadline = time.time() + 60
    while not (folder / log).exists() and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGINT)
    assert job.wait(20) != 0


@pytest.mark.parametrize("log", ["acc.1.2.log", "update.1.log"])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(log, trained, plain, tmp_path):
    (tmp_path / "d").symlink_to(trained / "d")
    command = f"{DIAG} --cleanup false d 4 diag"
    stop_at(command, tmp_path, f"diag/log/{log}", plain)
    assert (tmp_path / "diag/1.dubm").exists() and not (tmp_path / "diag/2.dubm").exists()
    assert not (tmp_path / "diag/final.dubm").exists()
    done = step(command, tmp_path, plain)
    assert "going on behind diag/1.dubm" in done.stdout and "in memory" not in done.stdout
    for name in MODELS:
        assert (tmp_path / "diag" / name).read_bytes() == (trained / "diag" / name).read_bytes()
    ours, theirs = (sorted(p.name for p in (folder / "diag").iterdir()) for folder in (tmp_path, trained))
    assert ours == theirs


def test_a_stopped_full_run_keeps_its_selection(trained, plain, tmp_path):
    for name in ("d", "diag"):
        (tmp_path / name).symlink_to(trained / name)
    command = f"{FULL} --cleanup false d diag full"
    stop_at(command, tmp_path, "full/log/update.1.log", plain)
    selections = [(p, p.stat().st_mtime_ns) for p in (tmp_path / "full").glob("gselect.*")]
    assert len(selections) == 3
    done = step(command, tmp_path, plain)
    assert "going on behind full/1.ubm" in done.stdout and "selecting" not in done.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in selections)
    for name in ("1.ubm", "2.ubm", "final.ubm"):
        assert (tmp_path / "full" / name).read_bytes() == (trained / "full" / name).read_bytes()


def test_a_job_that_is_killed_is_named_and_repaired(trained, plain, tmp_path):
    (tmp_path / "d").symlink_to(trained / "d")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/acc-gmm-stats"
    killed = 'case "$*" in *1.2.acc*) kill -9 $$ ;; esac'
    program.write_text(f'#!/bin/sh\n{killed}\nexec {ROOT}/bin/acc-gmm-stats "$@"\n')
    program.chmod(0o755)
    command = f"{DIAG} d 4 diag"
    done = step(f"PATH=$PWD/bin:$PATH; {command}", tmp_path, plain, check=False)
    assert done.returncode == 1 and "job 2 of 2 has failed; see diag/log/acc.1.2.log" in done.stderr
    assert not (tmp_path / "diag/final.dubm").exists() and (tmp_path / "diag/1.dubm").exists()
    step(command, tmp_path, plain)
    assert (tmp_path / "diag/final.dubm").read_bytes() == (trained / "diag/final.dubm").read_bytes()


def test_second_runs_do_nothing_and_changes_start_anew(plain, tmp_path):
    make(tmp_path)
    step(f"{DIAG} --num-iters 1 --nj 1 d 2 diag", tmp_path, plain)
    old = (tmp_path / "diag/final.dubm").read_bytes()
    assert "up to date" in step(f"{DIAG} --num-iters 1 --nj 2 d 2 diag", tmp_path, plain).stdout
    assert (tmp_path / "diag/final.dubm").read_bytes() == old
    command = f"{DIAG} --srand 1 --num-iters 1 --nj 1 d 2 diag"
    assert "in memory" in step(command, tmp_path, plain).stdout
    assert (tmp_path / "diag/final.dubm").read_bytes() != old
    os.utime(tmp_path / "d/feats.ark")  # the features were made again under the same names
    assert "in memory" in step(command, tmp_path, plain).stdout


# -------------------------------------------------------------------------------------------- what goes wrong


def test_a_dropped_utterance_is_named_whatever_the_jobs(plain, trained, tmp_path):
    """A job all of whose utterances are bad ends with status 1; that is no reason to lose the others."""
    make(tmp_path, 20, empty=("s1-04",))
    (tmp_path / "diag").symlink_to(trained / "diag")
    for nj in (1, 30):
        done = step(f"{FULL} --num-iters 1 --nj {nj} d diag full{nj}", tmp_path, plain)
        assert ("reducing the number of jobs from 30 to 20" in done.stdout) == (nj == 30)
        assert (tmp_path / f"full{nj}/dropped").read_text() == "s1-04 no frames\n"
    check_same(tmp_path / "full30/final.ubm", tmp_path / "full1/final.ubm")


def test_too_many_dropped_end_it_early(plain, tmp_path):
    make(tmp_path, 20, empty=("s1-04", "s2-06"))
    done = step(f"{DIAG} d 2 diag", tmp_path, plain, check=False)
    assert done.returncode == 1 and "more than 5 %" in done.stderr
    assert not (tmp_path / "diag/final.dubm").exists() and not (tmp_path / "diag/1.dubm").exists()


def test_no_usable_utterance_is_told_with_the_reason(plain, trained, tmp_path):
    keys = [f"s{i // 3}-{i:02d}" for i in range(6)]
    make(tmp_path, 6, empty=keys)
    (tmp_path / "diag").symlink_to(trained / "diag")
    done = step(f"{FULL} d diag full", tmp_path, plain, check=False)
    assert done.returncode == 1 and "no utterance of d could be used, e.g. s0-00 no frames" in done.stderr
    assert not (tmp_path / "full/final.ubm").exists()


def test_a_call_that_is_refused_changes_nothing(plain, trained, tmp_path):
    """The options of the features belong to the model that is there."""
    for name in ("d", "diag"):
        (tmp_path / name).mkdir()
        step(f"cp -r {trained}/{name}/. {name}", tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "diag").iterdir() if path.is_file()}
    for command in (f"{DIAG} --delta-order 2 none 4 diag", f"{DIAG} --delta-order 2 --num-iters 0 d 4 diag"):
        done = step(command, tmp_path, plain, check=False)
        assert done.returncode == 1 and "ERROR" in done.stderr
    step(f"{DIAG} d 4 'a dir'", tmp_path, plain, check=False)
    assert not (tmp_path / "a dir").exists() and before["delta_order"] == b"1\n"
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "diag").iterdir() if path.is_file()}


@pytest.mark.parametrize("arguments, message", [
    ("d 0 diag", "<num-gauss> is 0"), ("--nj 0 d 2 diag", "--nj 0"),
    ("--num-iters 0 d 2 diag", "--num-iters 0"),
    ("d/none 2 diag", "d/none/feats.scp is missing"), ("d 2", "Usage"), ("d 2 'a dir'", "a path with blanks"),
    ("d 2000 diag", "are too few for 2000 Gaussians"),
])
def test_wrong_use_of_the_diagonal_step(arguments, message, trained, plain, tmp_path):
    (tmp_path / "d").symlink_to(trained / "d")
    done = step(f"{DIAG} {arguments}", tmp_path, plain, check=False)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "diag/final.dubm").exists()


def test_wrong_use_of_the_full_step(trained, tmp_path):
    for name in ("d", "diag"):
        (tmp_path / name).symlink_to(trained / name)
    for arguments, message in (("d nothing full", "nothing/final.dubm is missing"),
                               ("d diag diag", "choose another"), ("d diag", "Usage")):
        done = step(f"{FULL} {arguments}", tmp_path, check=False)
        assert done.returncode == 1 and message in done.stderr


@pytest.mark.parametrize("name", ["train_diag_ubm.sh", "train_full_ubm.sh"])
def test_help(name, tmp_path):
    done = step(f"{name} --help", tmp_path)
    assert done.stdout.startswith("Usage: ") and "--nj" in done.stdout
