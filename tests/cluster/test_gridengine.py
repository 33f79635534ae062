"""queue.py with a real GridEngine: a host that is lost, time limits."""

import re

import pytest
from gridengine_daemons import GridEngine
from launching import launch, launched, started

pytest.importorskip("torch")

import slow_training  # noqa: E402


def test_a_lost_host(tmp_path):
    """What ran on it runs again when there is a host; what had ended does not."""
    with started(GridEngine, slots=4) as cluster:
        line = "echo run >> on.JOB && while [ JOB != 3 -a ! -e go ]; do sleep 0.2; done; echo JOB > out.JOB"
        with launched(cluster, "JOB=1:3", "l.JOB.log", *line.split(), cwd=tmp_path) as process:
            cluster.wait(lambda: len(list(tmp_path.glob("on.*"))) == 3, "the members do not run")
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
    words = ["--retries", 2, "a.log", *"echo run >> ran && sleep 300".split()]
    done = launch(gridengine, "--time", "0:00:03", *words, cwd=tmp_path, check=False)
    assert done.returncode == 1 and re.search("job failed.*, log is in a.log", done.stderr), done.stderr
    assert "time limit" in done.stderr and (tmp_path / "ran").read_text() == "run\n", done.stderr


@pytest.fixture(scope="module", autouse=True)
def begun(gridengine, tmp_path_factory):
    """(launcher, folder, ...) of a training that is told to save 25 seconds after each start."""
    folder = tmp_path_factory.mktemp("training")
    slow, fast = slow_training.write(folder, num_epochs=20, pause=0.05)
    options = ["--time", "0:02:00", "--save-seconds", 95, "--requeue", "true", "--retries", 0]
    words = [*options, "train.log", slow_training.PROGRAM, "--resume", *slow, "parts"]
    with launched(gridengine, *words, cwd=folder) as process:
        yield process, folder, fast


def test_a_training_that_reaches_its_time_limit(begun):
    """It saves, and goes on in another job, to the same bits."""
    launcher, folder, fast = begun
    said = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == 0 and "train.log: job" in said, said
    assert "# Ended (code 0)" in (folder / "train.log").read_text()
    slow_training.check(folder, fast)
