"""What every program of bin/ keeps: its usage, its size, and that it loads nothing that it does not use."""

import ast
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT, environment, run

PROGRAMS = sorted(path.name for path in (ROOT / "bin").iterdir() if path.is_file())
WITH_TORCH = ("nnet", "e2e", "fhvae")  # the only folders of voxark/ that may import torch
HEAVY = ("torch", "scipy", "soundfile", "kaldiio", "typer", "tqdm", "matplotlib", "sklearn")

_LOADED = """
import runpy, sys, os, atexit
def report(status):
    sys.stdout.flush()
    os.write(2, ("LOADED " + " ".join(sorted(sys.modules)) + "\\n").encode())
    leave(status)
leave, os._exit = os._exit, report
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def loaded_modules(program, *arguments, **options):
    """Run a program of bin/; return the finished process and the top-level modules that it had loaded."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(ROOT / "bin" / program), *arguments],
        capture_output=True,
        env=environment(),
        **options,
    )
    modules = re.search(r"^LOADED (.*)$", done.stderr.decode(), re.MULTILINE).group(1).split()
    return done, {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_what_is_needed_and_loads_little(program):
    done, modules = loaded_modules(program, "--help")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert [line for line in done.stderr.decode().splitlines() if not line.startswith("LOADED ")] == []
    first, empty, *rest = text.split("\n")
    assert first and (empty == "" or "\n\n" in text)
    assert re.search(rf"^Usage: {program} ", text, re.MULTILINE), "Usage:"
    assert re.search(rf"^e\.g\.: .*\b{program} ", text, re.MULTILINE), "e.g.:"
    see_also = re.search(r"^See also: (.*(?:\n +.*)*)", text, re.MULTILINE)
    assert see_also, "See also:"
    for option in re.findall(r"^  --(\S+) +: (.*)$", text, re.MULTILINE):
        assert re.search(r"\S.* \(.*, default = .+\)$", option[1]), option
    assert not modules & set(HEAVY)


def test_see_also_names_programs_that_exist():
    known = set(PROGRAMS) | {path.name for folder in ("steps", "utils") for path in (ROOT / folder).glob("*")}
    for program in PROGRAMS:
        doc = ast.get_docstring(ast.parse((ROOT / "bin" / program).read_text()))
        named = re.search(r"^See also: (.*(?:\n +.*)*)", doc, re.MULTILINE).group(1)
        names = re.split(r"[,\s]+", re.sub(r"\(.*?\)|--\S+", "", named).strip())
        assert {os.path.basename(name) for name in names} <= known, program


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "voxark"])  # that one needs none
def test_no_arguments_give_the_usage_and_status_1(program):
    done = run(program, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"Usage: {program} " in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"ERROR ({program}) wrong number of arguments: ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_unknown_options_are_refused(program):
    done = run(program, "--no-such-option=1", "x", check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        f"ERROR ({program}) unknown option --no-such-option"
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_input_is_one_line(program, tmp_path):
    """Every number of arguments that the program takes, all of them missing: no traceback, no output."""
    for number in range(1, 5):
        arguments = [f"ark:{tmp_path}/missing{i}" for i in range(number)]
        done = run(program, "--print-args=false", *arguments, check=False)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        assert len(errors) == 1 and "internal error" not in errors[0], done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_are_thin_and_executable(program):
    path = ROOT / "bin" / program
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert text.startswith("#!/usr/bin/env python3\n")
    assert len(text.splitlines()) <= 140
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert ast.unparse(imports[0]).startswith(
        "from voxark import cli"
    ), "cli comes first: it sets the BLAS threads"


def test_the_library_knows_no_command_line():
    for path in (ROOT / "voxark").rglob("*.py"):
        if path.name not in ("cli.py", "command_line.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import | ast.ImportFrom)
                    else []
                )
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names + modules + [f"{module}.{name}" for module in modules for name in names]:
                    assert name not in ("typer", "voxark.cli", "voxark.command_line"), (path, name)


def test_torch_stays_where_networks_are():
    for path in [*(ROOT / "voxark").rglob("*.py"), *(ROOT / "bin" / program for program in PROGRAMS)]:
        if not set(path.parts) & set(WITH_TORCH) and path.name != "arrays.py":  # imports it for --device only
            assert not re.search(r"^\s*(import|from) torch\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("program, kind", [("copy-feats", "mat"), ("copy-vector", "vec")])
def test_a_run_loads_nothing_that_it_does_not_use(program, kind, tmp_path):
    import numpy as np

    from voxark import tables

    with tables.open_writer(kind, f"ark:{tmp_path}/a") as out:
        out["utt"] = np.ones((2, 3) if kind == "mat" else 3, np.float32)
    done, modules = loaded_modules(program, f"ark:{tmp_path}/a", f"ark:{tmp_path}/b")
    assert done.returncode == 0 and (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert not modules & set(HEAVY)
