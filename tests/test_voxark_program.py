"""The program voxark: overviews, doctor, and completion in real shells."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, environment, run, shell
from test_programs import loaded_modules

from voxark import cli, command_help, completion, overview
from voxark.completion.commands import options_of
from voxark.doctor import findings, machine, packages, selftest, tools

PROGRAM = ROOT / "bin" / "voxark"
PROGRAMS = sorted(path.name for path in (ROOT / "bin").iterdir() if path.is_file())


def by_name(found):
    """name -> Finding."""
    return {finding.name: finding for finding in found}


def executable(path, text):
    """Write a script that can be run; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


# -------------------------------------------------------------------------------------------------- overviews


def test_every_program_stands_in_one_family():
    placed = [name for names in overview.FAMILIES.values() for name in names]
    assert sorted(placed) == PROGRAMS, "voxark/overview.py: FAMILIES"


def test_overview_has_the_first_sentence_of_every_help_and_loads_little():
    done, modules = loaded_modules("voxark")
    assert done.returncode == 0 and not modules & {"numpy", "torch", "scipy", "typer"}
    lines = dict(line.split(None, 1) for line in done.stdout.decode().splitlines() if line.startswith("  "))
    assert sorted(lines) == PROGRAMS
    for name in ("compute-eer", "train-fhvae", "voxark"):
        text = run(name, "--help").stdout.decode().replace("\n", " ")
        assert lines[name].endswith(".") and text.startswith(lines[name])
    assert run("voxark", "programs").stdout == done.stdout


@pytest.mark.parametrize(
    "what, pattern", [("steps", "steps/*"), ("utils", "utils/*"), ("recipes", "egs/*/*.sh")]
)
def test_scripts_of_the_checkout_are_listed_with_a_sentence(what, pattern):
    lines = run("voxark", what).stdout.decode().splitlines()
    entries = dict(line.split(None, 1) for line in lines if line.startswith("  "))
    wanted = [path for path in ROOT.glob(pattern) if path.is_file() and os.access(path, os.X_OK)]
    names = [str(path.relative_to(ROOT)) if what == "recipes" else path.name for path in wanted]
    assert names and sorted(entries) == sorted(names)
    assert all(len(sentence) > 10 and sentence[-1] in ".?" for sentence in entries.values()), entries


def test_first_sentences():
    assert (
        command_help.first_sentence("Add a, b (as e.g. c does) to\nd. More\nof it.")
        == "Add a, b (as e.g. c does) to d."
    )
    assert command_help.first_sentence("Keep lines.\n\nUsage: x") == "Keep lines."
    assert command_help.first_sentence("Check it; --help says more.") == "Check it."
    assert (
        command_help.introduction("#!/bin/bash\n# shellcheck shell=bash\n# One\n# two.\nset -e\n# not\n")
        == "One\ntwo."
    )


@pytest.mark.parametrize("width", [30, 59, 60, 80, 130])
def test_lines_fit_the_terminal(width):
    text = overview.overview("programs", PROGRAM, width)
    assert max(map(len, text.splitlines())) <= max(width, len("  estimate-trial-correlations"))
    assert text.split() == overview.overview("programs", PROGRAM).split()
    assert ("\n  compute-fbank\n    Compute log mel" in text) == (width < 60)


def terminal_output(command, columns):
    """What a command prints to a terminal of so many columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment(COLUMNS=str(columns), TERM="xterm", NO_COLOR=""))
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.waitpid(pid, 0)
    os.close(terminal)
    return text.decode().replace("\r\n", "\n")


def test_terminals_get_bold_titles_and_pipes_plain_text():
    text = terminal_output([sys.executable, str(PROGRAM)], 50)
    assert "\033[1mFeatures\033[0m\n  compute-fbank\n" in text
    assert max(len(line) for line in re.sub(r"\033\[\d*m", "", text).splitlines()) <= 50
    assert b"\033" not in run("voxark").stdout


def test_programs_that_pip_installed(tmp_path):
    """Only voxark's programs are listed there, also one that no family knows; there are no steps."""
    (tmp_path / "bin").mkdir()
    for name in ("voxark", "compute-eer"):
        shutil.copy(ROOT / "bin" / name, tmp_path / "bin" / name)
    executable(
        tmp_path / "bin/new-program",
        '#!/usr/bin/python3\n"""Do something new. And more."""\nfrom voxark import cli\n',
    )
    executable(tmp_path / "bin/pip", "#!/usr/bin/python3\nimport pip\n")
    (tmp_path / "bin/python").write_bytes(b"\x7fELF\0\xff")
    installed = [sys.executable, str(tmp_path / "bin/voxark")]
    text = subprocess.run(installed, capture_output=True, env=environment(), check=True).stdout.decode()
    assert re.findall(r"^  (\S+)", text, re.MULTILINE) == ["compute-eer", "voxark", "new-program"]
    assert "Other programs\n  new-program  Do something new.\n" in text
    for command, folder in (("steps", "steps/"), ("utils", "utils/"), ("recipes", "egs/")):
        done = subprocess.run([*installed, command], capture_output=True, env=environment(), text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            "installed by pip" in done.stderr
            and f" {folder}:" in done.stderr
            and done.stderr.count("\n") == 1
        )
    assert (
        f"programs in {tmp_path}/bin"
        in subprocess.run([*installed, "version"], capture_output=True, env=environment(), text=True).stdout
    )


def test_version_names_the_revision():
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    text = run("voxark", "version").stdout.decode()
    revision = re.fullmatch(
        rf"voxark \d+\.\d+\.\d+ \((?:no git revision|git (\S+?)(?:, with changes)?), checkout {ROOT}\)\n",
        text,
    )
    assert revision, text
    assert (revision[1] is None) == (head.returncode != 0)
    if revision[1]:
        assert head.stdout.startswith(revision[1].split("-g")[-1]) or "-" not in revision[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nonsense"], "unknown command 'nonsense': expected one of programs, steps,"),
        (["completion"], "completion: which shell? Expected one of bash, zsh, fish"),
        (["completion", "csh"], "completion: which shell? Expected one of bash, zsh, fish"),
        (["doctor", "bash"], "doctor takes no argument, but 'bash' is given"),
        (["doctor", "--format=xml"], "xml"),
    ],
)
def test_wrong_usage(arguments, message):
    done = run("voxark", *arguments, check=False)
    assert done.returncode == 1 and done.stdout == b""
    assert (
        done.stderr.splitlines()[-1].startswith("ERROR (voxark) ") and message in done.stderr.splitlines()[-1]
    )


def test_closed_standard_output_is_one_line():
    done = shell("voxark >&-", check=False)
    assert done.returncode == 1 and done.stderr == "ERROR (voxark) standard output is closed\n"


# ----------------------------------------------------------------------------------------------------- doctor


def test_doctor_here():
    done = run("voxark", "doctor", "--format=json", check=False)
    report = json.loads(done.stdout)
    found = by_name(findings.Finding(**fields) for fields in report["findings"])
    assert done.returncode == (0 if report["healthy"] else 1)
    assert all(finding.status in ("OK", "WARNING", "MISSING") for finding in found.values())
    assert all(bool(finding.advice) == (finding.status != "OK") for finding in found.values()), found
    names = "python numpy scipy kaldiio soundfile bash archives pipes"
    assert all(found[name].status == "OK" and found[name].essential for name in names.split())
    assert found["linear algebra"].status == found["features"].status == "OK"
    assert found["numpy"].value == np.__version__ and not found["sph2pipe"].essential
    assert {"torch", "GPUs", "memory", "TMPDIR", "sort order", "threads", "open files", "qsub"} <= set(found)


def test_doctor_works_where_nothing_is_installed(tmp_path):
    """Without path.sh and without any package: one line each, status 1, no traceback."""
    bare = [sys.executable, "-I", "-S", str(PROGRAM)]
    done = subprocess.run(
        [*bare, "doctor"], capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 1 and done.stderr == ""
    assert re.search(
        r"^  MISSING  numpy  .* -> .*(pip install 'numpy>=2.0'|path\.sh)", done.stdout, re.MULTILINE
    )
    assert re.search(r"^  WARNING  PATH  .* -> `\. .*/path\.sh`$", done.stdout, re.MULTILINE)
    assert re.search(r"^Essential and wrong: numpy, .*, features\. \d+ OK, ", done.stdout.splitlines()[-1])
    assert subprocess.run(bare, capture_output=True, text=True).stdout.startswith("voxark ")


def test_every_requirement_has_a_purpose():
    wanted = packages.packages(str(ROOT))
    assert {package.name for package in wanted if package.extra != "test"} == set(packages.PURPOSES)
    for package in wanted:
        assert package.version() or not package.is_for_this_python() or package.extra, package


def distribution(folder, name, version, source):
    """A package as pip leaves it."""
    (folder / f"{name}.py").write_text(source)
    (folder / f"{name}-{version}.dist-info").mkdir()
    (folder / f"{name}-{version}.dist-info/METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )


def test_packages_that_are_broken_old_or_absent(tmp_path, monkeypatch):
    distribution(
        tmp_path, "vxbroken", "2.1", "raise ImportError('libvx.so: cannot open shared object file')\n"
    )
    distribution(tmp_path, "vxold", "1.9.7", "")
    distribution(tmp_path, "vxgood", "1.10", "")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = ["vxbroken>=2", "vxold>=1.10", "vxgood>=1.9.9", "vxabsent>=3"]
    extras = [
        ("vxabsentextra>=1", "fast"),
        ("vxold>=1.10", "plot"),
        ("vxnever; python_version < '3.2'", "test"),
    ]
    listed = [*map(packages.Package, wanted), *(packages.Package(*extra) for extra in extras)]
    monkeypatch.setattr(packages, "packages", lambda root: listed)
    found = list(packages.examine(str(PROGRAM)))
    states = [
        (finding.name, finding.status, finding.essential) for finding in found if finding.name != "BLAS"
    ]
    assert states == [
        ("vxbroken", "WARNING", True), ("vxold", "WARNING", True), ("vxgood", "OK", True),
        ("vxabsent", "MISSING", True),
        ("vxabsentextra", "MISSING", False), ("vxold", "WARNING", False), ("test", "OK", False),
    ]  # fmt: skip
    assert "libvx.so: cannot open" in found[0].value and found[1].value == "1.9.7 is too old"
    assert found[3].advice.endswith("-m pip install 'vxabsent>=3'") or "path.sh" in found[3].advice


def test_requirements_that_cannot_be_read(monkeypatch, tmp_path):
    (tmp_path / "path.sh").touch()
    (finding,) = packages.examine(str(tmp_path / "bin/voxark"))
    assert finding.status == "WARNING" and finding.essential and "pyproject.toml" in finding.value


def torch_finding(monkeypatch, source):
    monkeypatch.setattr(packages, "_TORCH", source)
    monkeypatch.setattr(packages.Package, "version", lambda package: "9.9")
    return packages._torch(packages.Package("torch>=2.4", "neural"), str(ROOT))


def test_torch_and_gpus(monkeypatch, tmp_path):
    facts = {"version": "9.9+cpu", "built": None, "devices": [], "bf16": False}
    finding = torch_finding(monkeypatch, "raise OSError('libcudart.so.99: cannot open')")
    assert finding.status == "WARNING" and "libcudart.so.99" in finding.value and not finding.essential
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100, 81559 MiB'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = torch_finding(monkeypatch, f"print('''{json.dumps(facts)}''')")
    assert finding.status == "WARNING" and finding.advice == "install its CUDA build"
    facts = {"version": "9.9", "built": "13.0", "devices": ["NVIDIA H100, 80 GiB"], "bf16": True}
    finding = torch_finding(monkeypatch, f"print('''{json.dumps(facts)}''')")
    assert (finding.status, finding.value) == ("OK", "9.9; NVIDIA H100, 80 GiB; bf16")
    assert "NVIDIA H100" in machine._gpus().value
    executable(
        tmp_path / "nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed to talk to the driver'\nexit 9\n"
    )
    assert machine._gpus().status == "WARNING" and "has failed" in machine._gpus().value


def test_settings_that_do_harm(monkeypatch, tmp_path):
    executable(tmp_path / "sort", "#!/bin/sh\nprintf 'a\\nA_c\\nb\\n'\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setenv("VOXARK_ALLOW_PIPES", "0")
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (64, 4096))
    found = by_name(machine.examine(str(PROGRAM)))
    wrong = {name for name, finding in found.items() if finding.status != "OK"}
    assert wrong - {"memory", "cores", "current folder"} == {
        "TMPDIR",
        "PATH",
        "sort order",
        "threads",
        "pipes allowed",
        "open files",
    }
    assert [name for name in wrong if found[name].essential] == ["TMPDIR"]
    assert "LC_ALL=de_DE.UTF-8" in found["sort order"].value and "LC_ALL=C" in found["sort order"].advice
    assert found["open files"].advice == "ulimit -n 256"
    assert by_name(selftest.examine(""))["pipes"].status == "WARNING"


def test_limits_of_a_container(monkeypatch):
    files = {"/proc/self/cgroup": "0::/slurm/job_7\n", "/sys/fs/cgroup/slurm/job_7/cpu.max": "max 100000\n",
             "/sys/fs/cgroup/slurm/cpu.max": "150000 100000\n",
             "/sys/fs/cgroup/slurm/job_7/memory.max": f"{2**30}\n",
             "/sys/fs/cgroup/slurm/job_7/memory.current": f"{2**29}\n",
             "/proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n"}  # fmt: skip
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    assert machine._cores().status == "WARNING" and machine._cores().advice == "take --nj 1"
    memory = machine._memory()
    assert memory.status == "WARNING" and memory.value.startswith(
        "32.0 GiB of 64.0 available; the container may use 1.0,"
    )


def test_tools_that_are_absent_or_old(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(tools.examine(""))
    assert {finding.status for finding in found.values()} == {"MISSING"}
    assert [name for name, finding in found.items() if finding.essential] == ["bash"]
    executable(tmp_path / "bash", "#!/bin/sh\necho '3.2.57(1)-release'\n")
    executable(tmp_path / "google-chrome", "#!/bin/sh\n")
    executable(tmp_path / "curl", "#!/bin/sh\necho 'curl 8.5.0 (x86_64)'\n")
    found = by_name(tools.examine(""))
    assert found["bash"].status == "WARNING" and found["google-chrome"].status == "OK"
    assert found["curl"].value.startswith("8.5.0, ")


def test_stored_features_are_those_of_another_implementation():
    native = pytest.importorskip("kaldi_native_fbank")
    options = native.FbankOptions()
    options.frame_opts.dither, options.mel_opts.num_bins, options.mel_opts.low_freq = (
        0,
        len(selftest.FBANK),
        20,
    )
    computer = native.OnlineFbank(options)
    computer.accept_waveform(16000, [float(x) for x in selftest.noise(400)])
    computer.input_finished()
    np.testing.assert_allclose(computer.get_frame(0), selftest.FBANK, atol=1e-4)


def test_trials_notice_what_is_wrong(monkeypatch, tmp_path):
    assert all(finding.status == "OK" for finding in selftest.examine(""))
    executable(tmp_path / "cat", "#!/bin/sh\nexit 3\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(np.fft, "rfft", lambda x: np.zeros(17))
    monkeypatch.setattr(selftest, "FBANK", tuple(x + 0.01 for x in selftest.FBANK))
    found = by_name(selftest.examine(""))
    wrong = {name for name, finding in found.items() if finding.status == "WARNING" and finding.essential}
    assert wrong == {"pipes", "linear algebra", "features"}
    assert "FFT" in found["linear algebra"].value and "products" not in found["linear algebra"].value


def test_text_of_findings():
    found = [
        findings.Finding("One", "a", "OK", "fine"),
        findings.Finding("One", "b", "MISSING", "for x", "get it", True),
        findings.guarded("Two", "c", lambda: 1 / 0),
    ]
    text = findings.as_text(found)
    assert text.splitlines()[:3] == [
        "One",
        f"  OK       {'a':<18}  fine",
        f"  MISSING  {'b':<18}  for x -> get it",
    ]
    assert "WARNING  c" in text and "ZeroDivisionError: division by zero" in text
    assert text.splitlines()[-1] == "Essential and wrong: b. 1 OK, 1 WARNING, 1 MISSING."
    for width in (30, 45, 70, 100):
        assert max(map(len, findings.as_text(found, width).splitlines())) <= width
        assert findings.as_text(found, width).split() == text.split()
    assert re.sub(r"\033\[\d*m", "", findings.as_text(found, None, True)) == text
    assert not findings.is_healthy(found) and findings.is_healthy(found[:1])


# ------------------------------------------------------------------------------------------------- completion


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """shell -> file with its completion."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("bash", "zsh", "fish"):
        (folder / name).write_bytes(run("voxark", "completion", name).stdout)
    return folder


def words_of(script, key):
    """The options that a bash script completes for a program or script."""
    return re.search(rf"^    {re.escape(key)}\) _voxark_words='?([^'\n]*)'? ;;$", script, re.MULTILINE)[
        1
    ].split()


def test_all_options_of_all_programs_are_completed(scripts):
    text = (scripts / "bash").read_text()
    shared = set(re.search(r"^_voxark_standard='(.*)'$", text, re.MULTILINE)[1].split())
    for program in PROGRAMS:
        options = cli.declaration(str(ROOT / "bin" / program)).options.values()
        words = {word.partition("=")[0].removeprefix("--") for word in {*words_of(text, program), *shared}}
        assert words == {option.name for option in options}
    described = re.findall(r"^  --(\S+) +:", run("score-trials", "--help").stdout.decode(), re.MULTILINE)
    assert {word.partition("=")[0] for word in {*words_of(text, "score-trials"), *shared}} == {
        f"--{x}" for x in described
    }


def test_scripts_are_completed_as_their_help_says(scripts):
    text = (scripts / "bash").read_text()
    keys = re.findall(r"^    ((?:steps|utils|egs)/\S+)\) ", text, re.MULTILINE)
    assert {"steps/make_mfcc.sh", "steps/train_plda.sh", "utils/run.py", "egs/mini/run.sh"} <= set(keys)
    for key in keys:
        done = subprocess.run(
            [str(ROOT / key), "--help"], capture_output=True, text=True, env=environment(COLUMNS="200")
        )
        assert done.returncode == 0, key
        shown = [f"--{option.name}" for option in options_of(done.stdout)]
        assert [word.partition("=")[0] for word in words_of(text, key)] == [*shown, "--help"], key


def test_options_in_help_texts():
    text = r"""e.g.: x --size tiny \\
        --not FILE
  --size tiny|small   of \`it\` (default: $size)
  --stage N, --stop-stage N first and last
  --train DIR --test DIR    whose
  --one, --two <n>    (default: 4)
  --gpu <true|false>    a GPU
  --systems \"NAME ...\"      which
  --force
  --words 'A ...'  some
  --- no option
  -h, --help  show this"""
    found = {option.name: option for option in options_of(text)}
    assert list(found) == "size stage stop-stage train test one two gpu systems force words".split()
    assert [name for name, option in found.items() if not option.takes_value] == ["force"]
    assert found["size"].choices == ("tiny", "small") and found["gpu"].choices == ("true", "false")
    assert (
        found["size"].help == "of `it`" and found["test"].help == "whose" and found["systems"].choices == ()
    )


_CALL = """
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_voxark_complete "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}
"""


def bash_replies(script, *words, cwd=ROOT):
    """What bash offers for the last of some words, which are cut as bash cuts them: at blanks, = and :."""
    command = ["bash", "-u", "-c", _CALL, "bash", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=cwd)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "words, replies",
    [
        ("compute-fbank --num-m", "--num-mel-bins="),
        ("compute-fbank --num_mel", "--num-mel-bins="),
        ("compute-fbank --num-", "--num-mel-bins= --num-threads="),
        ("bin/compute-fbank --no-use-e", "--no-use-energy"),
        ("compute-fbank --use-energy =", "true false"),
        ("compute-fbank --use-energy = f", "false"),
        ("compute-fbank --use_energy=f", "--use_energy=false"),
        ("compute-fbank --use-energy |", ""),
        ("compute-fbank --window-type ha", "hamming hanning"),
        ("score-trials --backend = pl", "plda"),
        ("score-trials --hel", "--help"),
        ("copy-feats --config=conf/fba", "--config=conf/fbank.conf"),
        ("copy-feats --config = conf/fba", ""),
        ("copy-feats scp : READ", ""),
        ("copy-feats ark,scp : a.ark,READ", "a.ark,README.md"),
        ("voxark |", "programs steps utils recipes doctor completion version"),
        ("voxark d", "doctor"),
        ("voxark completion |", "bash zsh fish"),
        ("voxark completion bash |", ""),
        ("voxark doctor --format = |", "text json"),
        ("make_mfcc.sh --compress |", "true false"),
        ("steps/make_mfcc.sh --mfcc", "--mfcc-config="),
        ("run.py --pi", "--pick="),
        ("egs/mini/run.sh --size s", "small"),
        ("egs/mini/run.sh --dry", "--dry-run"),
        ("validate_data_dir.sh --no-f", "--no-feats"),
        ("subset_data_dir.sh --per", "--per-spk"),
        ("/nonexistent/run.sh --", ""),
        ("nosuchprogram --", ""),
    ],
)  # fmt: skip
def test_bash_completes(scripts, words, replies):
    given = [word if word != "|" else "" for word in words.split(" ")]
    assert bash_replies(scripts / "bash", *given) == replies.split()


def test_scripts_of_the_same_name_are_told_apart(scripts, tmp_path):
    executable(tmp_path / "run.sh", "#!/bin/bash\n")
    assert "--preset=" in bash_replies(scripts / "bash", "./run.sh", "--p", cwd=ROOT / "egs/timit")
    assert bash_replies(scripts / "bash", "./run.sh", "--p", cwd=ROOT / "egs/lecture") == []
    assert "--format=" in bash_replies(scripts / "bash", "../lecture/run.sh", "--f", cwd=ROOT / "egs/mini")
    assert bash_replies(scripts / "bash", "./run.sh", "--", cwd=tmp_path) == []


def test_bash_knows_all_commands_and_the_script_is_clean(scripts):
    script = scripts / "bash"
    listed = subprocess.run(
        ["bash", "-c", '. "$1" && complete -p', "bash", str(script)], capture_output=True, text=True
    )
    known = set(re.findall(r"-F _voxark_complete (\S+)$", listed.stdout, re.MULTILINE))
    assert {*PROGRAMS, "run.sh", "run.py", "make_fbank.sh"} <= known and listed.stderr == ""
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "--shell=bash", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_odd_names_of_checkouts(tmp_path):
    """The checkout's folder has a blank and a quote in its name, and a help text has quotes and brackets."""
    root = tmp_path / "my 'own' $checkout"
    help_message = 'Usage\n  --level low|high   of [it]: the user\'s `a` \\"b\\"'
    executable(root / "steps/go.sh", f'#!/bin/bash\n# Goes.\nhelp_message="{help_message}"\n')
    programs = [cli.declaration(str(ROOT / "bin/copy-feats"))]
    for name in ("bash", "zsh", "fish"):
        file = tmp_path / name
        file.write_text(
            completion.script(name, programs, {"": ("doctor",), "completion": ("bash",)}, str(root))
        )
        if shutil.which(name):
            assert subprocess.run([name, "-n", str(file)], capture_output=True).stderr == b""
    assert bash_replies(tmp_path / "bash", f"{root}/steps/go.sh", "--level", "h") == ["high"]
    if shutil.which("fish"):
        assert fish_replies(tmp_path / "fish", "./go.sh --level ", root / "steps") == ["high", "low"]


def fish_replies(script, line, cwd=ROOT):
    """What fish offers for a command line."""
    command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
    env = environment(HOME=str(script.parent))
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    assert done.stderr == ""
    return [reply.split("\t")[0] for reply in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    "line, replies",
    [
        ("compute-fbank --num-m", "--num-mel-bins"),
        ("compute-fbank --use-energy=", "--use-energy=false --use-energy=true"),
        ("compute-fbank --print-a", "--print-args"),
        ("score-trials --backend p", "plda"),
        ("copy-feats scp:READ", "scp:README.md"),
        ("voxark ", "completion doctor programs recipes steps utils version"),
        ("voxark completion ", "bash fish zsh"),
        ("egs/mini/run.sh --size ", "large small tiny"),
        ("make_mfcc.sh --mfcc", "--mfcc-config"),
    ],
)
def test_fish_completes(scripts, line, replies):
    assert fish_replies(scripts / "fish", line) == replies.split()


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes(scripts, tmp_path):
    """In a real zsh on a terminal: lines with a TAB, and what they become."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(
            "zsh",
            ["zsh", "-f", "-i"],
            environment(TERM="dumb", ZDOTDIR=str(tmp_path), PS1="$ ", COLUMNS="200"),
        )
    try:
        start = f"autoload -Uz compinit; compinit -u -D; . {scripts}/zsh"
        await_text(terminal, f"{start}; echo read''y\n", "ready")
        for line, becomes in (
            ("compute-fbank --num-m", "--num-mel-bins="),
            ("compute-fbank --use-energy=f", "--use-energy=false"),
            ("score-trials --backend pl", "--backend plda"),
            ("voxark comp", "voxark completion"),
            ("voxark completion f", "completion fish"),
            ("egs/mini/run.sh --size s", "--size small"),
            ("copy-feats scp:READ", "scp:README.md"),
            ("copy-feats ark,scp:a,READ", "ark,scp:a,README.md"),
        ):
            await_text(terminal, f"{line}\t", becomes)
            await_text(terminal, "\025\n", "$ ")  # Ctrl-U
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def await_text(terminal, keys, text):
    """Send keys to a terminal and wait until it shows a text."""
    os.write(terminal, keys.encode())
    shown, deadline = "", time.monotonic() + 20
    while text not in shown:
        assert time.monotonic() < deadline, (keys, text, shown)
        if select.select([terminal], [], [], 0.5)[0]:
            shown += re.sub(
                r"\033\[[0-9;?]*[A-Za-z]|[\r\b]", "", os.read(terminal, 65536).decode("utf-8", "replace")
            )
