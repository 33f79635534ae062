"""The launcher on this machine: quoting, logs, failures, --pick, signals."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, environment

sys.path.insert(0, str(ROOT / "utils"))
import launcher  # noqa: E402

RUN = [sys.executable, str(ROOT / "utils" / "run.py")]


def run(*words, cwd, check=True, env=None):
    done = subprocess.run(
        [*RUN, *words], capture_output=True, text=True, cwd=cwd, env=env or environment(), timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done


def said(log):
    """What the command itself wrote into a log."""
    return [line for line in log.read_text().splitlines() if not line.startswith("#")]


# -------------------------------------------------------------------------------------------- traps of run.pl


@pytest.mark.parametrize(
    "command",
    [
        ["false", "|", "cat"],
        ["exit 3", "|", "cat"],
        ["false", ";", "true"],
        ["cat", "/no/such/file", "|", "sort", "|", "head"],
        ["nosuchprogram", "|", "cat"],
    ],
)
def test_a_failing_member_of_a_pipe_fails_the_job(command, tmp_path):
    done = run("a.log", *command, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "job failed, log is in a.log" in done.stderr
    assert "# Ended (code 0)" not in (tmp_path / "a.log").read_text()


def test_head_does_not_fail_a_pipe_that_has_ended(tmp_path):
    run("a.log", "echo", "x", "|", "head", "-n", "1", cwd=tmp_path)


def test_only_the_whole_word_job_is_replaced(tmp_path):
    run(
        "JOB=1:2",
        "l/x.JOB.log",
        "echo",
        "JOB",
        "file_JOBNAME.JOB",
        "MYJOB",
        "split2/JOB/wav.scp",
        "JOB_1",
        "a,JOB,b",
        "JOBS",
        "a-JOB",
        "a b.JOB c",
        cwd=tmp_path,
    )
    assert said(tmp_path / "l/x.2.log") == [
        "2 file_JOBNAME.2 MYJOB split2/2/wav.scp JOB_1 a,2,b JOBS a-2 a b.2 c"
    ]


def test_another_name_than_job(tmp_path):
    run("N=3:4", "N.log", "echo", "N", "JOB", cwd=tmp_path)
    assert said(tmp_path / "3.log") == ["3 JOB"] and said(tmp_path / "4.log") == ["4 JOB"]


def test_file_names_are_not_expanded(tmp_path):
    (tmp_path / "x1").touch()
    run("a.log", "echo", "*", "x?", "[a-z]1", "feats.ark[0:3,:]", "{a,b}", "a *", cwd=tmp_path)
    assert said(tmp_path / "a.log") == ["* x? [a-z]1 feats.ark[0:3,:] {a,b} a *"]


# ------------------------------------------------------------------------------------------- Kaldi's contract


@pytest.mark.parametrize(
    "words,line",
    [
        (["a", "|", "b", ">", "c", "2>&1", "&&", "d"], "a | b > c 2>&1 && d"),
        (["--opt=foo bar", "ark:gunzip -c x.gz |"], '"--opt=foo bar" "ark:gunzip -c x.gz |"'),
        (["it's so", 'say "hi" now'], '"it\'s so" \'say "hi" now\''),
        (["", "--n=$[3+1]", r"a\ b"], '"" --n=$[3+1] "a\\ b"'),
        (
            ["don't", "#5", 'a"b', "\\"],
            "'don'\"'\"'t' '#5' 'a\"b' '\\'",
        ),  # bash could not read these by themselves
        (['it\'s "so"'], "'it'\"'\"'s \"so\"'"),
    ],
)
def test_quoting(words, line):
    assert launcher.command_line(words) == line


@pytest.mark.parametrize(
    "word",
    [
        "a b",
        " lead",
        "tab\tin",
        "it's so",
        'say "x y"',
        'it\'s "x y"',
        "new\nline",
        "#c d",
        "don't",
        "#x",
        "",
        "a  b ",
        "x y\\",
    ],
)
def test_words_reach_the_program_whole(word, tmp_path):
    run("a.log", sys.executable, "show.py", word, cwd=tmp_path, check=False)
    (tmp_path / "show.py").write_text("import sys; print(repr(sys.argv[1:]))")
    run("a.log", sys.executable, "show.py", word, "end", cwd=tmp_path)
    assert said(tmp_path / "a.log") == [repr([word, "end"])]


def test_shell_syntax_works_unquoted(tmp_path):
    run(
        "JOB=1:2",
        "l.JOB",
        "echo",
        "$[JOB+10]",
        "|",
        "sed",
        "s/1/x/",
        ">",
        "out.JOB",
        "&&",
        "echo",
        "err",
        ">&2",
        cwd=tmp_path,
    )
    assert (tmp_path / "out.2").read_text() == "x2\n" and said(tmp_path / "l.2") == ["err"]


def test_log(tmp_path):
    run("--num-threads", "2", "deep/er/a.log", "echo", "some words", "|", "cat", cwd=tmp_path)
    lines = (tmp_path / "deep/er/a.log").read_text().splitlines()
    assert (
        lines[0] == '# echo "some words" | cat' and lines[1].startswith("# Running on ") and lines[3] == "#"
    )
    assert re.fullmatch(r"# Started at \w{3} \w{3} .\d \d\d:\d\d:\d\d \S+ \d{4}", lines[2])
    assert lines[4] == "some words" and re.fullmatch(
        r"# Accounting: time=\d+ threads=2 cpu=\d+\.\d mem=\d+M", lines[5])
    assert (
        re.fullmatch(r"# Ended \(code 0\) at \w{3} \w{3} .*, elapsed time \d+ seconds", lines[6])
        and len(lines) == 7
    )


def test_a_command_of_several_lines_is_a_comment_as_a_whole(tmp_path):
    run("a.log", "echo", "one\ntwo", cwd=tmp_path)
    assert (tmp_path / "a.log").read_text().startswith('# echo "one\n# two"\n# Running')
    assert said(tmp_path / "a.log") == ["one", "two"]


def test_failure_messages(tmp_path):
    done = run(
        "JOB=1:4", "l/a.JOB.log", "echo", "ERROR of JOB", ";", "exit", "$[JOB%2*5]", cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "run.py: 2 / 4 failed, log is in l/a.*.log",
        "run.py: l/a.1.log says: ERROR of 1",
    ]
    assert "# Ended (code 5) at" in (tmp_path / "l/a.3.log").read_text()
    done = run("JOB=2", "l/a.JOB.log", "false", cwd=tmp_path, check=False)
    assert done.stderr.startswith("run.py: job failed, log is in l/a.2.log\n")


def test_a_failed_pipe_is_told_by_its_cause(tmp_path):
    broken = "echo 'ERROR (b) cat x | : the command ended with status 1'; false"
    for before, message in (("ERROR (a) no such file", "ERROR (a) no such file"),
                            ("WARNING (a) nothing was done", "WARNING (a) nothing was done"),
                            ("done", "ERROR (b) cat x | : the command ended with status 1")):
        done = run("a.log", "echo", before, ";", "bash", "-c", broken, cwd=tmp_path, check=False)
        assert done.stderr.endswith(f"run.py: a.log says: {message}\n"), done.stderr


def test_a_job_killed_by_a_signal_says_so(tmp_path):
    run("a.log", "kill", "-9", "$$", cwd=tmp_path, check=False)
    assert "# Ended (code 137; signal 9) at" in (tmp_path / "a.log").read_text()


def test_of_a_job_that_wrote_nothing_its_end_is_told(tmp_path):
    done = run("a.log", "exit", "3", cwd=tmp_path, check=False)
    assert done.stderr.endswith("run.py: a.log says: (nothing; code 3)\n")


def test_a_wrong_option_is_not_lost_in_the_help(tmp_path):
    done = run("--num-threads", "two", "a.log", "true", cwd=tmp_path, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) < 10
    assert done.stderr.startswith("Usage: ") and "(run.py --help says more)" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["log"],
        ["JOB=1:4", "one.log", "true"],
        ["JOB=1:4", "JOBNAME.log", "true"],
        ["JOB=0:3", "JOB.log", "true"],
        ["JOB=3:2", "JOB.log", "true"],
        ["JOB=1:", "JOB.log", "true"],
        ["JOB=1:x", "JOB.log", "true"],
        ["--max-jobs-run", "0", "l", "true"],
        ["--max-jobs-run", "x", "l", "true"],
        ["--num-threads", "0", "l", "true"],
        ["--pick", "some", "l", "true"],
        ["--mem", "--gpu", "l", "true"],
        ["--gpu", "x", "l", "true"],
        ["--mem"],
    ],
)
def test_wrong_use(words, tmp_path):
    done = run(*words, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "run.py: ERROR: " in done.stderr and os.listdir(tmp_path) == []


def test_options_of_clusters_are_accepted(tmp_path):
    run(
        "--mem",
        "4G",
        "--time",
        "4:00:00",
        "-V",
        "-pe",
        "smp",
        "2",
        "--config",
        "conf/slurm.conf",
        "JOB=1:2",
        "-l",
        "x=1",
        "--mem=2G",
        "a.JOB.log",
        "echo",
        "$OMP_NUM_THREADS",
        cwd=tmp_path,
        env=without("OMP_NUM_THREADS"),
    )
    assert said(tmp_path / "a.2.log") == ["2"]


def without(*names, **extra):
    env = environment(**extra)
    for name in names:
        env.pop(name, None)
    return env


def test_threads(tmp_path):
    words = ["a.log", "echo", "$OMP_NUM_THREADS", "$OPENBLAS_NUM_THREADS"]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    run("--num-threads", "3", *words, cwd=tmp_path, env=without(*names))
    assert said(tmp_path / "a.log") == ["3 3"]
    run(*words, cwd=tmp_path, env=without(*names))
    assert said(tmp_path / "a.log") == ["1 1"]
    run("--num-threads", "3", *words, cwd=tmp_path, env=without("OMP_NUM_THREADS", OPENBLAS_NUM_THREADS="7"))
    assert said(tmp_path / "a.log") == ["3 7"]


def test_gpus_are_handed_out(tmp_path):
    run(
        "--gpu",
        "1",
        "JOB=1:2",
        "a.JOB.log",
        "echo",
        "$CUDA_VISIBLE_DEVICES",
        "&&",
        "sleep",
        "0.3",
        cwd=tmp_path,
        env=environment(CUDA_VISIBLE_DEVICES="3,5"),
    )
    assert sorted(said(tmp_path / "a.1.log") + said(tmp_path / "a.2.log")) == ["3", "5"]
    done = run(
        "--gpu",
        "1",
        "a.log",
        "echo",
        "x$CUDA_VISIBLE_DEVICES",
        cwd=tmp_path,
        env=environment(CUDA_VISIBLE_DEVICES=""),
    )
    assert "WARNING: 0 GPUs found" in done.stderr and said(tmp_path / "a.log") == ["x"]


def test_standard_input_is_empty_and_the_folder_is_the_callers(tmp_path):
    done = subprocess.run(
        [*RUN, "a.log", "cat", "&&", "pwd"], input="data", text=True, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0 and said(tmp_path / "a.log") == [str(tmp_path)]


def test_max_jobs_run(tmp_path):
    """Never more than two at a time; all run."""
    run(
        "--max-jobs-run",
        "2",
        "JOB=1:5",
        "l.JOB",
        "touch",
        "on.JOB",
        "&&",
        "ls",
        "&&",
        "sleep",
        "0.15",
        "&&",
        "rm",
        "on.JOB",
        cwd=tmp_path,
    )
    at_once = [sum(line.startswith("on.") for line in said(tmp_path / f"l.{job}")) for job in range(1, 6)]
    assert max(at_once) == 2 and min(at_once) >= 1


def test_the_log_grows_as_the_job_runs(tmp_path):
    job = subprocess.Popen(
        [*RUN, "a.log", "echo", "early", "&&", "sleep", "5"], cwd=tmp_path, env=environment()
    )
    try:
        wait_for(lambda: (tmp_path / "a.log").exists() and said(tmp_path / "a.log") == ["early"])
        assert job.poll() is None
    finally:
        job.terminate()
        job.wait()


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    done = run("JOB=1:2", "file/x.JOB.log", "touch", "ran", cwd=tmp_path, check=False)
    assert (
        done.returncode == 1
        and "cannot start the job of file/x.1.log" in done.stderr
        and not (tmp_path / "ran").exists()
    )


# ----------------------------------------------------------------------------------------------------- --pick


def test_pick(tmp_path):
    count = ["JOB=1:4", "l.JOB.log", "echo", "JOB", ">>", "ran", "&&", "test", "-e", "ok.JOB"]
    for name in ("ok.1", "ok.3"):
        (tmp_path / name).touch()
    assert run(*count, cwd=tmp_path, check=False).returncode == 1
    (tmp_path / "l.3.log").write_text(
        "\n".join((tmp_path / "l.3.log").read_text().splitlines()[:5])
    )  # cut off: no end
    (tmp_path / "ok.2").touch()

    def ran(pick):
        (tmp_path / "ran").write_text("")
        done = run("--pick", pick, *count, cwd=tmp_path, check=False)
        return sorted((tmp_path / "ran").read_text().split()), done.returncode, done.stderr.splitlines()[:1]

    assert ran("incomplete") == (["3"], 1, ["run.py: 2 / 4 failed, log is in l.*.log"])
    assert ran("failed") == (["2", "4"], 1, ["run.py: 1 / 4 failed, log is in l.*.log"])
    (tmp_path / "ok.4").touch()
    assert ran("failed") == (["4"], 0, [])
    assert ran("failed") == ([], 0, []) and ran("incomplete") == ([], 0, [])
    (tmp_path / "l.2.log").unlink()
    assert ran("incomplete") == (["2"], 0, [])
    assert ran("all") == (["1", "2", "3", "4"], 0, [])


def test_pick_does_not_trust_the_log_of_another_command(tmp_path):
    run("a.log", "echo", "one", cwd=tmp_path)
    run("--pick", "failed", "a.log", "echo", "two", cwd=tmp_path)
    assert said(tmp_path / "a.log") == ["two"]


@pytest.mark.parametrize(
    "end,state",
    [
        ("# Ended (code 0) at X, elapsed time 1 seconds", "done"),
        ("# Ended (code 1) at X", "failed"),
        ("# Ended (code 0; signal 9) at X", "failed"),
        ("# Accounting: time=1", "incomplete"),
        ("", "incomplete"),
    ],
)
def test_logs_of_run_pl_are_understood(end, state, tmp_path):
    log = tmp_path / "x.log"
    log.write_text(
        f"# prog a | b \n# Started at X\n#\n# Ended well\noutput\n{end}\n"
    )  # run.pl leaves a blank at the end
    assert launcher.log_state(log, "prog a | b") == state
    assert (
        launcher.log_state(log, "prog a") == "incomplete"
        and launcher.log_state(tmp_path / "none", "x") == "incomplete"
    )


# ---------------------------------------------------------------------------------------------------- signals


def wait_for(condition, seconds=10):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid):
    """True if a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see the processes of the jobs")
@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_the_jobs_with_their_children(number, status, tmp_path):
    script = "echo $$ > pid.JOB.a; sleep 100 & echo $! > pid.JOB.b; wait"
    (tmp_path / "job.sh").write_text(script.replace("JOB", "$1"))
    job = subprocess.Popen(
        [*RUN, "--max-jobs-run", "2", "JOB=1:4", "l.JOB", "bash", "job.sh", "JOB", "|", "cat"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len([path for path in tmp_path.glob("pid.*") if path.read_text().strip()]) == 4)
    pids = [int(path.read_text()) for path in tmp_path.glob("pid.*")]
    assert all(map(alive, pids))
    job.send_signal(number)
    error = job.communicate(timeout=30)[1]
    assert job.returncode == status and "Traceback" not in error and "ending 2 jobs" in error
    wait_for(lambda: not any(map(alive, pids)))
    for log in (tmp_path / "l.1", tmp_path / "l.2"):
        assert "# Killed at" in log.read_text() and signal.Signals(number).name in log.read_text()
        assert "# Ended" not in log.read_text()  # so that --pick incomplete runs it again
    assert not (tmp_path / "l.3").exists()


def test_a_second_signal_kills_at_once(tmp_path):
    (tmp_path / "deaf.sh").write_text("trap '' TERM; echo $$ > pid; while :; do sleep 1; done")
    job = subprocess.Popen(
        [*RUN, "a.log", "bash", "deaf.sh"], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    start = time.time()
    job.send_signal(signal.SIGINT)
    time.sleep(0.3)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=8) == 130 and time.time() - start < 5
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_jobs_that_end_do_not_count_as_killed(tmp_path):
    """A signal that arrives as the jobs end finds nothing to kill."""
    job = subprocess.Popen(
        [*RUN, "a.log", "echo", "x"], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    assert job.wait(timeout=20) == 0 and "Killed" not in (tmp_path / "a.log").read_text()
