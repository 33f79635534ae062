"""What the tests share: paths, the programs as subprocesses, and skips that name what is absent."""

import os
import subprocess
import sys
from pathlib import Path

import forking
import pytest

ROOT = Path(__file__).resolve().parent.parent
_SHARED = Path(os.environ.get("VOXARK_SHARED", ROOT.parent / "shared"))


def golden(name=""):
    """Path of a golden file (what real Kaldi gives)."""
    return _SHARED / "golden" / name


def shared_data(name=""):
    """Path of a corpus of recorded speech beside the checkout."""
    return _SHARED / "data" / name


needs_golden = pytest.mark.skipif(not golden().is_dir(), reason=f"golden files of Kaldi are absent: {golden()}")


def needs_data(name):
    """Skip mark for tests that need one of the corpora beside the checkout."""
    return pytest.mark.skipif(not shared_data(name).is_dir(), reason=f"recorded speech is absent: {shared_data(name)}")


def environment(**extra):
    """The environment of path.sh for a subprocess; how many threads it has is its own affair.

    Compiled modules are kept: the suite starts programs a thousand times.
    """
    path = os.pathsep.join([str(ROOT / "bin"), str(ROOT / "steps"), str(ROOT / "utils"),
                            str(Path(sys.executable).parent), os.environ["PATH"]])
    plain = {name: value for name, value in os.environ.items()
             if not name.endswith("_NUM_THREADS") and name != "PYTHONDONTWRITEBYTECODE"}
    return {**plain, "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C", **extra}


def forked_environment(with_torch=False, **extra):
    """The same for recipes, whose Python programs are forked, all but the first run of each; see forking."""
    return forking.forked_environment(environment(**extra), with_torch)


def save_ark(path, table):
    """Write arrays with kaldiio, a writer that is not ours; return the rspecifier."""
    import kaldiio  # here, because test_cli.py counts what its program imports

    kaldiio.save_ark(str(path), table)
    return f"ark:{path}"


def load_ark(path):
    """Read an archive with kaldiio, a reader that is not ours."""
    import kaldiio

    return dict(kaldiio.load_ark(str(path)))


def write_lines(path, *lines):
    """Write a text table; return the rspecifier."""
    path.write_text("".join(line + "\n" for line in lines))
    return f"ark:{path}"


class Result:
    """What a program gave: ``returncode``, ``stdout`` (bytes) and ``stderr`` (text)."""

    def __init__(self, done):
        self.returncode, self.stdout = done.returncode, done.stdout
        self.stderr = done.stderr.decode("utf-8", "replace")


def run_script(path, *arguments, check=True, stdin=b"", cwd=None, env=None, timeout=120):
    """Run a Python program in a process of its own, which is forked where it can be, as :func:`run` does."""
    command = [str(path), *map(str, arguments)]
    done = Result(forking.run(command, environment(), stdin=stdin, cwd=cwd, env=env or environment(), timeout=timeout))
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr}")
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run(program, *arguments, **options):
    """Run a program of bin/; with ``check`` a failure fails the test and shows what the program said."""
    return run_script(ROOT / "bin" / program, *arguments, **options)


def shell(command, check=True, cwd=None, env=None, timeout=120):
    """Run a bash command with the programs on PATH, as after `. ./path.sh`."""
    done = Result(subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=cwd,
                                 env=env or environment(), timeout=timeout))
    if check and done.returncode != 0:
        pytest.fail(f"{command}\nended with status {done.returncode}:\n{done.stderr}")
    return done
