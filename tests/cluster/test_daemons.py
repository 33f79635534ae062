"""The harness itself: it leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from daemons import missing, processes_with, wait_until
from gridengine_daemons import GridEngine
from launching import environment_in
from slurm_daemons import Slurm

HERE = Path(__file__).resolve().parent
CASES = [(Slurm, "with_slurm.sh", "SLURM_CONF"), (GridEngine, "with_gridengine.sh", "SGE_ROOT")]


@pytest.mark.parametrize("kind,script,variable", CASES)
@pytest.mark.parametrize("number,status", [(None, 7), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left(kind, script, variable, number, status, tmp_path):
    """After the command's end, Ctrl-C, and when the harness itself is killed."""
    if kind.obstacle():
        pytest.skip(f"{kind.title}: {kind.obstacle()}")
    command = f"echo ${variable} > mark; mv mark name; {'exit 7' if number is None else 'exec sleep 100'}"
    process = subprocess.Popen([HERE / script, "bash", "-c", command], cwd=tmp_path, env=environment_in(None))
    wait_until((tmp_path / "name").exists, "the command does not run", 60)
    place = Path((tmp_path / "name").read_text().strip())
    folder = place if place.is_dir() else place.parent
    if number is not None:
        process.send_signal(number)
    assert process.wait(timeout=30) == status
    if number == signal.SIGKILL:  # the daemons see that it has gone; the command goes on
        time.sleep(1)
        for pid in processes_with(str(folder)):
            if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_with(str(folder)), "daemons are left", 15)
    assert folder.exists() == (number == signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_nothing_is_installed_twice():
    if missing([*Slurm.programs, *GridEngine.programs]):
        pytest.skip("Slurm or GridEngine is not installed")
    done = subprocess.run([HERE / "install.sh"], capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout == done.stderr == ""
