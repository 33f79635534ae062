"""Set-up: what pyproject.toml, the constraints, path.sh and pip give."""

import os
import re
import subprocess
import sys
import tomllib

from helpers import ROOT, environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _programs():
    return sorted(path.name for path in (ROOT / "bin").iterdir() if path.is_file())


def test_pip_installs_every_program():
    listed = sorted(os.path.basename(name) for name in PROJECT["tool"]["setuptools"]["script-files"])
    assert listed == _programs()


def test_every_dependency_is_locked():
    lock = (ROOT / "conf/constraints.txt").read_text().lower().replace("_", "-")
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in PROJECT["project"]["dependencies"] + [item for items in extras.values() for item in items]:
        name = re.split(r"[<>=\[]", requirement)[0].lower()
        assert re.search(rf"^{re.escape(name)}==", lock, re.M) or name == "setuptools", f"{name} is not locked"


def test_every_dependency_is_explained_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in PROJECT["project"]["dependencies"] + [item for items in extras.values() for item in items]:
        assert re.split(r"[<>=\[]", requirement)[0] in readme


def test_installed_programs_run_outside_the_checkout(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
                    "--target", str(tmp_path / "site"), str(ROOT)], check=True, capture_output=True)
    program = tmp_path / "site" / "bin" / "copy-vector"
    assert program.read_text().splitlines()[0] == f"#!{sys.executable}"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PYTHONPATH"] = str(tmp_path / "site")
    done = subprocess.run([str(program), "ark,t:-", "ark,t:-"], input=b"a [ 1 2 ]\n", capture_output=True, env=env,
                          cwd=tmp_path)
    assert done.stdout == b"a  [ 1 2 ]\n", done.stderr.decode()


def test_path_sh_twice_changes_nothing():
    script = '. ./path.sh && before=$PATH:$PYTHONPATH && . ./path.sh && [ "$before" = "$PATH:$PYTHONPATH" ] && command -v compute-eer'
    env = environment(VOXARK_VENV=os.path.dirname(os.path.dirname(sys.executable)))
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "bin" / "compute-eer")
