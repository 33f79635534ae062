"""slurm.py and queue.py with the real daemons: what both promise."""

import re
import signal

import pytest
from daemons import wait_until
from helpers import ROOT
from launching import counters, launch, launched, log_lines, name_of

ALL_QUOTES = ["printf", r"'%s\n'", "two words JOB", 'say "JOB" $HOME', "it's", "JOBNAME", "MY_JOB", "a.JOB.b",
              "$[JOB+1]", "#hash", "star*", "{a,b}",
              *"$(echo sub) | tr o 0 > out.JOB/x.JOB 2>&1 && echo".split(), "err JOB", "1>&2"]


def files(folder):
    """{path: content} of the outputs, {path: lines} of the logs."""
    outputs = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.glob("out.*/*"))}
    logs = {str(path.relative_to(folder)): log_lines(path) for path in sorted(folder.rglob("*.log"))}
    return outputs, logs


def test_logs_and_outputs_are_those_of_run_py(cluster, tmp_path):
    found, shipped = [], ["--config", ROOT / "conf" / name_of(cluster).replace(".py", ".conf")]
    for name, where in (("here", None), ("there", cluster)):
        folder = tmp_path / name
        for job in "123":
            (folder / f"out.{job}").mkdir(parents=True)
        launch(where, *shipped, "--mem", "300M", "JOB=1:3", "log/deep er/a.JOB.log", *ALL_QUOTES, cwd=folder)
        launch(where, "--num-threads", 2, "one.log", "echo", "no array", "$OMP_NUM_THREADS", "|", "cat", cwd=folder)
        found.append(files(folder))
    assert found[0] == found[1]
    outputs, logs = found[1]
    assert outputs["out.2/x.2"].splitlines() == [
        "tw0 w0rds 2", 'say "2" $HOME', "it's", "JOBNAME", "MY_JOB", "a.2.b", "3", "#hash", "star*", "{a,b}", "sub"]
    assert len(logs) == 4 and "err 3" in logs["log/deep er/a.3.log"]


def test_a_failed_member_and_pick(cluster, tmp_path):
    words = ["JOB=1:3", "l.JOB.log", *"echo run >> ran.JOB && echo ERROR of JOB && test -e ok.JOB | cat".split()]
    for name in ("ok.1", "ok.3"):
        (tmp_path / name).touch()
    done = launch(cluster, *words, cwd=tmp_path, check=False)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and f"{name_of(cluster)}: 1 / 3 failed, log is in l.*.log" in said
    assert f"{name_of(cluster)}: l.2.log says: ERROR of 2" in said
    assert "# Ended (code 1)" in (tmp_path / "l.2.log").read_text()
    (tmp_path / "ok.2").touch()
    launch(cluster, "--pick", "failed", *words, cwd=tmp_path)
    assert [(tmp_path / f"ran.{job}").read_text().count("run") for job in (1, 2, 3)] == [1, 2, 1]
    launch(cluster, "--pick", "failed", *words, cwd=tmp_path)  # nothing is left to do
    assert (tmp_path / "ran.2").read_text().count("run") == 2


def test_one_submission_and_few_polls(cluster, tmp_path):
    """An array of 20 members that takes at least four seconds."""
    programs = ["sbatch", "squeue", "sacct", "scontrol"] if cluster.title == "Slurm" else ["qsub", "qstat", "qacct"]
    path = counters(tmp_path / "count", *programs, cluster=cluster)
    launch(cluster, "--query-seconds", 30, "JOB=1:20", "l.JOB.log", "sleep", "4", cwd=tmp_path, PATH=path)
    calls = [line.split()[0] for line in (tmp_path / "count/calls").read_text().splitlines()]
    assert calls.count("sbatch") + calls.count("qsub") == 1
    assert len(calls) <= 2, calls  # the members' files say how they end
    assert len(list(tmp_path.glob("l.*.log"))) == 20


def running(cluster, number):
    """True if so many members run."""
    return sum("RUNNING" in line or line.split()[4:5] == ["r"] for line in cluster.jobs()) == number


def test_cancelled_from_outside(cluster, tmp_path):
    with launched(cluster, "JOB=1:3", "l.JOB.log", "sleep", "100", cwd=tmp_path) as process:
        cluster.wait(lambda: running(cluster, 3), "the members do not run")
        cluster.cancel_all()
        said = process.communicate(timeout=40)[1]
    assert process.returncode == 1 and "3 / 3 failed" in said and re.search("cancel|delete", said, re.I), said
    assert "Traceback" not in said and not cluster.jobs()


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_jobs(cluster, number, status, tmp_path):
    with launched(cluster, "JOB=1:3", "l.JOB.log", "sleep", "100", cwd=tmp_path) as process:
        cluster.wait(lambda: running(cluster, 3), "the members do not run")
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == status and "Traceback" not in said
    wait_until(lambda: not cluster.jobs(), f"jobs are left: {cluster.jobs()}", 15)
    assert all("# Ended" not in path.read_text() for path in tmp_path.glob("l.*.log"))  # --pick incomplete runs them


HOG = "import time; x = bytearray(600000000); x[::4096] = x[::4096]; time.sleep(60)"


def test_a_job_over_its_memory(cluster, tmp_path):
    """It is ended, the reason is named, and it is not tried again: it would only fail again."""
    (tmp_path / "queue.conf").write_text("command qsub -V -S /bin/bash\noption mem=* -l h_vmem=$1\n")
    limit = ["--config", "queue.conf"] if cluster.title == "GridEngine" else []
    words = ["--mem", "200M", "--retries", 2, *limit, "a.log", *"echo run >> ran && python3 -c".split(), HOG]
    done = launch(cluster, *words, cwd=tmp_path, check=False)
    assert done.returncode == 1 and re.search("job failed.*, log is in a.log", done.stderr), done.stderr
    assert re.search("memory", done.stderr, re.I), done.stderr
    assert (tmp_path / "ran").read_text() == "run\n"
    wait_until(lambda: not cluster.jobs(), "a job is left", 10)


def test_jobs_at_a_time(cluster, tmp_path):
    line = "touch on.JOB && sleep 0.3 && ls && sleep 0.3 && rm on.JOB"
    launch(cluster, "--max-jobs-run", 2, "JOB=1:5", "l.JOB", *line.split(), cwd=tmp_path)
    at_once = [sum(line.startswith("on.") for line in log_lines(tmp_path / f"l.{job}")) for job in range(1, 6)]
    assert max(at_once) == 2 and min(at_once) >= 1
