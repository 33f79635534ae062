"""Programs that the tests fork have all that a process has which is started."""

import json
import os
import re
import subprocess
import sys
import time

import forking
import pytest
from helpers import environment, run_script

PROGRAM = """
import json, os, signal, sys
kind = sys.argv[1]
if kind == "about":
    json.dump({"argv": sys.argv, "cwd": os.getcwd(), "name": __name__, "path": sys.path[0], "session": os.getsid(0),
               "variables": dict(os.environ), "handled": str(signal.getsignal(signal.SIGINT))[:20], "utf8": sys.flags.utf8_mode,
               "encodings": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors],
               "seekable": [stream.seekable() for stream in (sys.stdin, sys.stdout, sys.stderr)],
               "terminal": sys.stdout.isatty(),
               "files": [str(type(stream.buffer)) for stream in (sys.stdin, sys.stdout, sys.stderr)],
               "lines": [stream.line_buffering for stream in (sys.stdin, sys.stdout, sys.stderr)],
               "open": sorted(map(int, os.listdir("/dev/fd")))}, sys.stdout)
elif kind == "echo":
    data = sys.stdin.buffer.read()
    sys.stdout.buffer.write(data[::-1])
    print("read", len(data), file=sys.stderr)
elif kind == "exit":
    sys.exit(eval(sys.argv[2]))
elif kind == "leave":
    print("said")
    sys.stdout.flush()
    os._exit(int(sys.argv[2]))
elif kind == "kill":
    os.kill(os.getpid(), int(sys.argv[2]))
elif kind == "sleep":
    import time
    time.sleep(60)
elif kind == "hash":
    print(hash("word"))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("forking") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def server():
    server = forking.ForkServer("test", "json")
    yield server
    server.close()


@pytest.fixture
def both(program, server, tmp_path):
    """Start a program and fork it; returns the two CompletedProcesses."""

    def run(*words, stdin=b"", env=None):
        command, env = [str(program), *words], env or environment()
        forked = server.run(command, stdin, tmp_path, env, 20)
        started = subprocess.run(
            [sys.executable, *command], input=stdin, cwd=tmp_path, env=env, capture_output=True, timeout=20
        )
        return started, forked

    return run


def same(both, *words, **options):
    """What the two gave, which is the same."""
    started, forked = both(*words, **options)
    assert started.stdout == forked.stdout
    assert (started.returncode, started.stderr) == (forked.returncode, forked.stderr)
    return forked


def test_the_process_is_like_one_that_is_started(both):
    started, forked = both("about", "a b", "\u00e9", env=environment(VOXARK_WORD="x=1\n\udcff"))
    about = json.loads(forked.stdout)
    assert about == json.loads(started.stdout)
    assert about["name"] == "__main__" and about["open"] == [0, 1, 2, 3]  # the fourth lists them
    assert about["variables"]["VOXARK_WORD"] == "x=1\n\udcff" and not any(about["seekable"])


def test_streams_carry_more_than_pipes_hold(both):
    data = bytes(range(256)) * 4096
    done = same(both, "echo", stdin=data)
    assert done.stdout == data[::-1] and done.stderr == b"read 1048576\n"
    assert same(both, "leave", "0", stdin=data).stdout == b"said\n"


@pytest.mark.parametrize("status", ["0", "3", "-1", "None", "'words'", "[]"])
def test_exit_statuses(both, status):
    same(both, "exit", status)
    same(both, "leave", "7")


@pytest.mark.parametrize("signum", [2, 9, 11, 15])
def test_signals_end_it(both, signum):
    started, forked = both("kill", str(signum))
    assert started.returncode == forked.returncode
    assert started.returncode == -signum or signum == 2  # which is ignored in what a shell runs in the background


def test_exceptions(both):
    started, forked = both("exit", "1/0")
    assert started.returncode == forked.returncode == 1
    for done in (started, forked):
        assert done.stderr.startswith(b"Traceback") and done.stderr.endswith(b"ZeroDivisionError: division by zero\n")


def test_what_takes_too_long_is_killed(program, server, tmp_path):
    with pytest.raises(TimeoutError):
        server.run([str(program), "sleep"], b"", tmp_path, environment(), 0.5)
    assert server.run([str(program), "exit", "5"], b"", tmp_path, environment(), 20).returncode == 5


def test_a_server_that_cannot_start_says_why(program, tmp_path):
    with pytest.raises(RuntimeError, match="nosuchmodule"):
        forking.ForkServer("broken", "nosuchmodule").run([str(program), "exit"], b"", tmp_path, environment(), 20)


def test_which_runs_are_forked(monkeypatch):
    usual = environment()
    assert forking.server_for(["one"], usual, usual) is None  # its first run
    assert forking.server_for(["one", "--num-jobs=2"], usual, usual) == "plain0"
    assert forking.server_for(["one"], usual, environment(TMPDIR="x")) == "plain1"
    assert forking.server_for(["one", "--backend=e2e"], usual, usual) == "torch0"
    assert forking.server_for(["two"], usual, usual) is None
    for words in (["--num-threads=2"], ["--num_threads", "2"], ["ark:/dev/fd/63"]):
        assert forking.server_for(["one", *words], usual, usual) is None
    for name in ("PYTHONPATH", "OMP_NUM_THREADS", "LD_PRELOAD"):
        assert forking.server_for(["one"], usual, environment(**{name: "2"})) is None
    monkeypatch.setenv("VOXARK_TEST_FORKS", "0")
    assert forking.server_for(["one"], usual, usual) is None


def test_the_hashes_of_words_differ_from_run_to_run(program):
    hashes = [run_script(program, "hash").stdout for _ in range(4)]
    assert len(set(hashes)) == 3 and hashes[1] == hashes[3]  # one that is started, and the two servers in turn


def test_a_recipes_programs_are_forked(tmp_path):
    """All but the first run; with streams and statuses of their own, in pipes, and in the background."""
    env = forking.forked_environment(environment())
    script = """
    set -o pipefail
    for n in 1 2; do gmm-info --print-args=false nosuch; echo $?; done
    for n in 15 9 15; do copy-vector "ark:kill -$n \\$PPID; sleep 1 |" ark:out >/dev/null 2>&1; echo $?; done
    printf 'a [ 1 2 ]\\n' >in
    for n in 1 2; do cat in | copy-feats ark,t:- ark:- | copy-feats ark:- ark,t:- 2>log; echo $?; done
    copy-feats ark,t:in ark,t:out & wait $!; cat out
    python3 -c 'print(1)'; echo 'print(2)' | python3 -
    for n in 1 2; do compute-vec-mean 'ark,t:cat /proc/$PPID/status >>status; echo "a [ 1 ]" |' mean; done
    """
    done = subprocess.run(["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n1\n143\n137\n143\n" + 2 * "a  [\n  1 2 ]\n0\n" + "a  [\n  1 2 ]\n" + "1\n2\n"
    assert done.stderr.count("ERROR (gmm-info) nosuch: No such file or directory") == 2
    parents = re.findall(r"PPid:\s+(\d+)", (tmp_path / "status").read_text())
    assert int(parents[1]) in forking.server_pids()  # the first may be forked, too: other tests run the program


def test_a_program_dies_with_the_one_that_stands_for_it(tmp_path):
    env = forking.forked_environment(environment())
    mean, number = ["compute-vec-mean", "--print-args=false"], tmp_path / "number"
    subprocess.run([*mean, "ark,t:echo 'a [ 1 ]' |", "mean"], env=env, cwd=tmp_path, check=True)  # it may be the first
    command = [*mean, f"ark,t:echo $PPID >{number}; exec sleep 20 |", "mean"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not (number.exists() and number.read_text().endswith("\n")):
            time.sleep(0.01)
        program = int(number.read_text())
        assert program != process.pid
        os.kill(program, 0)  # it is there
        process.kill()
    with pytest.raises(ProcessLookupError):
        for _ in range(1000):
            os.kill(program, 0)
            time.sleep(0.01)
