"""How the tests call a launcher in a cluster, and read what it leaves."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, environment

LAUNCHERS = {"Slurm": "slurm.py", "GridEngine": "queue.py"}


def started(kind, **settings):
    """A cluster, not started yet; the test is skipped, and the reason said, where its daemons are not installed."""
    if kind.obstacle():
        pytest.skip(f"{kind.title}: {kind.obstacle()}")
    return kind(**settings)


def name_of(cluster):
    """The launcher of a cluster; of None that of this machine."""
    return LAUNCHERS[cluster.title] if cluster else "run.py"


def environment_in(cluster, **extra):
    """The environment of path.sh, in which the cluster's programs are found, too."""
    env = environment(**extra)
    if cluster:
        inside = cluster.env()
        own = {name: inside[name] for name in cluster.environment}
        env = {**env, **own, "PATH": os.pathsep.join([env["PATH"], inside["PATH"]])}
    return env


# A scheduler of our own may be asked often, and its file system is not slow.
QUICK = ("--query-seconds", "2", "--lost-wait", "5")


def _command(cluster, words):
    return [sys.executable, str(ROOT / "utils" / name_of(cluster)), *(QUICK if cluster else ()), *map(str, words)]


def launch(cluster, *words, cwd, check=True, timeout=120, **variables):
    """Run the cluster's launcher to its end; with ``check`` it must succeed."""
    done = subprocess.run(_command(cluster, words), cwd=cwd, env=environment_in(cluster, **variables),
                          capture_output=True, text=True, timeout=timeout, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


@contextlib.contextmanager
def launched(cluster, *words, cwd, **variables):
    """The launcher as a process that runs; it is ended with the block."""
    env = environment_in(cluster, **variables)
    with subprocess.Popen(_command(cluster, words), cwd=cwd, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def counters(folder, *programs, cluster):
    """A PATH on which calls of the programs are noted in ``folder``/calls, a line each."""
    folder.mkdir(exist_ok=True)
    for name in programs:
        real = shutil.which(name, path=environment_in(cluster)["PATH"])
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(folder))}/calls\nexec {real} "$@"\n')
        script.chmod(0o755)
    return os.pathsep.join([str(folder), environment_in(cluster)["PATH"]])


def log_lines(path):
    """The lines of a log without times and places: what must be the same with every launcher."""
    text = re.sub(r" at \w{3} \w{3} .*| (time|cpu|mem)=\S+|; elapsed.*", "", path.read_text())
    return [line for line in text.splitlines() if not line.startswith(("# Running on ", "# Started"))]
