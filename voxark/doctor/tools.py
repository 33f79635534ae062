"""External tools: what each is for; most are needed by some recipes or on some machines only."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from voxark.doctor.findings import MISSING, OK, WARNING, Finding, guarded

_SECTION = "External tools"
_OLDEST_BASH = (4, 4)


@dataclass(frozen=True)
class _Tool:
    """Commands any of which will do, what for, what to install, and the option that prints a version."""

    names: tuple
    purpose: str
    advice: str
    version: str = "--version"


_TOOLS = (
    _Tool(("gzip",), "compressed tables: ark:gunzip -c x.gz |", "install the package gzip"),
    _Tool(("awk",), "steps and recipes", "install the package gawk or mawk", "-W version"),
    _Tool(("flock",), "two recipes at a time in one folder", "install the package util-linux"),
    _Tool(("git",), "revisions in reports and in voxark version", "install the package git"),
    _Tool(("curl",), "download.sh of the free corpora", "install the package curl, or download by hand"),
    _Tool(
        ("sph2pipe",),
        "SPHERE files with shorten compression (WSJ, Aurora-4)",
        "build sph2pipe of the LDC and put it on PATH",
        "",
    ),
    _Tool(
        ("ffmpeg", "sox"),
        "audio that soundfile does not read, in pipes of wav.scp",
        "install the package ffmpeg or sox",
        "",
    ),
    _Tool(
        ("sbatch",), "Slurm clusters (--cmd slurm.py)", "nothing, unless this is a machine of such a cluster"
    ),
    _Tool(
        ("qsub",),
        "GridEngine clusters (--cmd queue.py)",
        "nothing, unless this is a machine of such a cluster",
        "",
    ),
    _Tool(("shellcheck",), "the checks of voxark's own scripts", "nothing, unless you change them"),
    _Tool(
        ("chromium", "chromium-browser", "google-chrome"),
        "the tests of the page of an experiment",
        "nothing, unless you change it",
        "",
    ),
)


def examine(program):
    """Findings on external tools."""
    yield guarded(_SECTION, "bash", _bash, essential=True, advice="install the package bash")
    for tool in _TOOLS:
        yield guarded(_SECTION, tool.names[0], lambda tool=tool: _look(tool))


def _bash():
    if not shutil.which("bash"):
        return Finding(
            _SECTION, "bash", MISSING, "pipes, steps, recipes", "install the package bash", essential=True
        )
    done = subprocess.run(["bash", "-c", "echo $BASH_VERSION"], capture_output=True, text=True, timeout=20)
    version = done.stdout.strip()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_BASH:
        return Finding(
            _SECTION,
            "bash",
            WARNING,
            f"{version or 'version unknown'}; steps and recipes need 4.4",
            "install a newer one and put it first on PATH",
            essential=True,
        )
    return Finding(_SECTION, "bash", OK, version, essential=True)


def _look(tool):
    path = next(filter(None, map(shutil.which, tool.names)), None)
    if path is None:
        return Finding(_SECTION, " or ".join(tool.names[:2]), MISSING, f"for {tool.purpose}", tool.advice)
    version = _version(path, tool.version)
    return Finding(
        _SECTION, os.path.basename(path), OK, f"{version and version + ', '}{path}; for {tool.purpose}"
    )


def _version(path, option):
    if not option:
        return ""
    done = subprocess.run(
        [path, *option.split()], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    number = re.search(r"\d+(\.\d+)+", " ".join(lines[:2]))
    return number[0] if number else ""
