"""queue.py with a real GridEngine: a host that is lost, time limits."""

import re

import pytest
from gridengine_daemons import GridEngine
from helpers import run, save_ark
from launching import launch, launched, started

torch = pytest.importorskip("torch")

import test_train_fhvae  # noqa: E402
from voxark.nnet.checkpoint import load_state  # noqa: E402


def test_a_lost_host(tmp_path):
    """What ran on it runs again when there is a host; what had ended does not."""
    with started(GridEngine, slots=4) as cluster:
        line = ["JOB=1:3", "l.JOB.log", "echo", "run", ">>", "on.JOB", "&&", "while", "[", "JOB", "!=", "3", "-a", "!", "-e",
                "go", "];", "do", "sleep", "0.2;", "done;", "echo", "JOB", ">", "out.JOB"]  # fmt: skip
        with launched(cluster, *line, cwd=tmp_path) as process:
            cluster.wait(lambda: len(list(tmp_path.glob("on.*"))) == 3 and (tmp_path / "out.3").exists(), "they do not run")
            cluster.wait(lambda: len(cluster.jobs()) == 2, "the third is still there")
            cluster.crash_host()
            cluster.wait(lambda: "u" in cluster.states()[0], "the host is not missed", 60)
            (tmp_path / "go").touch()
            cluster.start_host()
            said = process.communicate(timeout=90)[1]
    assert process.returncode == 0 and "Traceback" not in said, said
    assert [(tmp_path / f"on.{job}").read_text().count("run") for job in "123"] == [2, 2, 1]
    assert all((tmp_path / f"out.{job}").read_text() == f"{job}\n" for job in "123")
    assert "l.1.log" in said and "l.2.log" in said and "l.3.log" not in said


def test_a_job_over_its_time(gridengine, tmp_path):
    """It is ended, the reason is named, and it is not tried again."""
    done = launch(gridengine, "--time", "0:00:03", "--retries", 2, "a.log", "echo", "run", ">>", "ran", "&&", "sleep", "300",
                  cwd=tmp_path, check=False)
    assert done.returncode == 1 and re.search("job failed.*, log is in a.log", done.stderr), done.stderr
    assert "time limit" in done.stderr and (tmp_path / "ran").read_text() == "run\n", done.stderr


def test_a_training_that_reaches_its_time_limit(gridengine, tmp_path):
    """It is told to save four seconds after each start, and goes on in another job, to the same bits."""
    save_ark(tmp_path / "raw.ark", test_train_fhvae.synthetic()[0])
    run("copy-feats", f"ark:{tmp_path}/raw.ark", f"ark,scp:{tmp_path}/f.ark,{tmp_path}/feats.scp")
    small = [word for word in test_train_fhvae.SMALL if "steps" not in word]
    arguments = [*small, "--num-steps=2000", "--steps-per-epoch=500", f"scp:{tmp_path}/feats.scp"]
    run("train-fhvae", *arguments, tmp_path / "whole")
    done = launch(gridengine, "--time", "0:01:00", "--save-seconds", 56, "--requeue", "true", "--retries", 0, "train.log",
                  "train-fhvae", "--resume", *arguments, "parts", cwd=tmp_path)
    assert "train.log" in done.stderr and "# Ended (code 0)" in (tmp_path / "train.log").read_text()
    whole, parts = (load_state(str(tmp_path / name / "state.pt"))["model"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
