"""The conventions of every program, tried on a small program that is declared here."""

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from helpers import Result, environment
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark import command_line
from voxark.command_line import UsageError
from voxark.errors import VoxarkError
from voxark.options import option

PROGRAM = '''#!/usr/bin/env python3
"""Try the conventions.

Usage: try-it [options] <first> [<second>]
e.g.: try-it --n=4 a b
See also: nothing
"""
from voxark import cli
import dataclasses, json, logging, os, sys, time
from typing import Annotated
from voxark.errors import VoxarkError
from test_cli import Window

@cli.program
def main(first: str, second: str | None = None, *, window: Window, n: Annotated[int, "A number."] = 3,
         word: Annotated[str, "A word."] = "", deep: Annotated[bool, "Dig deep."] = False) -> int:
    counts = cli.Counts("tries")
    if first == "error":
        raise VoxarkError("utt1: file: what is wrong\\nand more")
    if first == "defect":
        return {}["missing"]
    if first == "missing":
        open("/nonexistent/file")
    if first == "memory":
        raise MemoryError("2 GiB")
    if first == "wait":
        open(second, "w").close()
        time.sleep(60)
    if first == "counts":
        counts.done(int(second))
        counts.fail("utt2", "too short")
        counts.fail("utt3", "a\\nb")
        class Reader:
            skipped = [("utt4", "corrupt")]
        return counts.finish(Reader())
    if first == "forget":
        from voxark.io.outputs import Output
        Output(second).write(b"half")
        return 0
    if first == "status":
        return int(second) if second else None
    if first == "talk":
        for level in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger("voxark.part"), level)("this is %s", level)
        return 0
    loaded = sorted(module for module in ("numpy", "typer") if module in sys.modules)
    print(json.dumps([first, second, dataclasses.asdict(window), n, word, deep,
                      os.environ["OPENBLAS_NUM_THREADS"], os.environ.get("VOXARK_ALLOW_PIPES"), loaded]))

if __name__ == "__main__":
    main()
'''


@dataclass
class Window:
    """Options of a method, as the library declares them."""

    frame_length: float = option(25.0, "Frame length in ms")
    window_type: Literal["povey", "hann"] = option("povey", "Type of window")
    snip_edges: bool = option(True, "If true, end effects are cut")


def declared(
    first: str,
    second: str | None = None,
    *,
    window: Window,
    n: Annotated[int, "A number."] = 3,
    word: Annotated[str, "A word."] = "",
    deep: Annotated[bool, "Dig deep."] = False,
):
    """The same declaration, to be parsed in this process."""


DECLARED = command_line.declare(declared)


def parse(*words):
    positionals, values = command_line.parse(DECLARED, list(words))
    return positionals, command_line.arguments(DECLARED.keywords, values), values


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "try-it"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def try_it(program, tmp_path):
    """Run the program; returns a helpers.Result."""

    def run(*words, cwd=tmp_path, **variables):
        path = os.pathsep.join([environment()["PYTHONPATH"], str(Path(__file__).parent)])
        plain = {name: value for name, value in environment().items() if not name.endswith("_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, str(program), *words],
            capture_output=True,
            cwd=cwd,
            timeout=60,
            env={**plain, "PYTHONPATH": path, **variables},
        )
        return Result(done)

    return run


# -------------------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize(
    "words",
    [
        ["--frame-length=20"],
        ["--frame_length=20"],
        ["--frame-length", "20"],
        ["--frame_length", "20.0"],
        ["--frame-length=2e1"],
        ["--frame-length=99", "--frame-length=20"],
    ],
)
def test_an_option_in_all_spellings(words):
    for arguments in ([*words, "a"], ["a", *words]):
        positionals, keywords, _ = parse(*arguments)
        assert positionals == ["a"]
        assert keywords == {"window": Window(frame_length=20.0), "n": 3, "word": "", "deep": False}
        assert type(keywords["window"].frame_length) is float


@pytest.mark.parametrize(
    "words, value",
    [
        ([], True),
        (["--snip-edges=false"], False),
        (["--snip_edges=False"], False),
        (["--snip-edges", "false"], False),
        (["--no-snip-edges"], False),
        (["--no_snip_edges"], False),
        (["--snip-edges=f"], False),
        (["--snip-edges=0"], False),
        (["--snip-edges"], True),
        (["--snip-edges=true"], True),
        (["--snip-edges", "True"], True),
        (["--snip-edges=1"], True),
        (["--no-snip-edges", "--snip-edges=T"], True),
    ],
)
def test_a_boolean_in_all_spellings(words, value):
    positionals, keywords, _ = parse(*words, "a")
    assert positionals == ["a"] and keywords["window"].snip_edges is value


@pytest.mark.parametrize(
    "words, positionals, n",
    [
        (["--n=-4", "-"], ["-"], -4),
        (["--n", "-4", "-"], ["-"], -4),
        (["-", "-5"], ["-", "-5"], 3),
        (["--", "--n=5"], ["--n=5"], 3),
        (["--n=5", "a", "--", "-h"], ["a", "-h"], 5),
        (["ark:cat a |", "ark,t:-"], ["ark:cat a |", "ark,t:-"], 3),
        (["", "a"], ["", "a"], 3),
    ],
)
def test_positional_arguments_and_numbers(words, positionals, n):
    got, keywords, _ = parse(*words)
    assert (got, keywords["n"]) == (positionals, n)


@pytest.mark.parametrize(
    "word", ["--word=", "--word=a b", "--word=--x", "--word==", "--word=é\udcff", "--word=a=b", "--word=-"]
)
def test_values_arrive_as_they_are(word):
    assert parse(word, "a")[1]["word"] == word.partition("=")[2]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--frame-lenth=20", "a"], r"unknown option --frame-lenth \(did you mean --frame-length\?\)"),
        (["--qqq", "a"], "unknown option --qqq$"),
        (["--n"], "--n needs a value"),
        (["a", "--n", "--deep"], "--n needs a value"),
        (["--n=x", "a"], "'--n'.*valid int"),
        (["--n=1.5", "a"], "'--n'"),
        (["--n=", "a"], "'--n'"),
        (["--num-threads=0", "a"], "--num-threads=0: at least one thread"),
        (["--num_threads", "-2", "a"], "--num-threads=-2: at least one thread"),
        (["--frame-length=x", "a"], "'--frame-length'.*valid"),
        (["--frame-length=nan", "a"], "--frame-length=nan: not a number"),
        (["--window-type=x", "a"], "'--window-type'.*'x' is not one of"),
        (["--deep=maybe", "a"], "--deep=maybe: expected true or false"),
        (["--deep=", "a"], "expected true or false"),
        (["--no-deep=true", "a"], "--no-deep takes no value"),
        (["--no-n", "a"], "unknown option --no-n"),
        (["-x", "a"], "two dashes"),
        (["-n", "4", "a"], "two dashes"),
        ([], "wrong number of arguments: 1 to 2 expected, 0 given"),
        (["a", "b", "c"], "3 given: a b c"),
    ],
)
def test_wrong_command_lines(words, message):
    with pytest.raises(UsageError, match=message):
        parse(*words)


def test_help_wins_over_everything_else():
    for words in (["--help"], ["-h"], ["--nonsense", "--help"], ["a", "b", "c", "--help", "--n=x"]):
        assert command_line.parse(DECLARED, words) == ([], {"help": True})


def test_an_option_declared_twice_is_a_defect():
    def twice(*, window: Window, snip_edges: bool = True):
        pass

    with pytest.raises(AssertionError, match="--snip-edges is declared twice"):
        command_line.declare(twice)


WORDS = [
    "--",
    "--n",
    "--n=",
    "--n=4",
    "-4",
    "--deep",
    "--no-deep",
    "--deep=false",
    "false",
    "true",
    "--word",
    "--config=x",
    "--config",
    "--=",
    "--=x",
    "---",
    "-",
    "",
    "--window-type",
    "povey",
    "--frame_length=1e999",
    "--help=false",
    "--verbose=1",
    "--print-args",
    "=",
    "--n=99999999999999999999",
    "--n=0x10",
    "--frame-length=-inf",
    "\udcff",
    "--\udcff",
    "--word=\0",
    "a b",
    "--no-",
    "--no-no-deep",
    "ark:-",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS) | st.text(st.sampled_from("-=no dep\n\0é"), max_size=6), max_size=6))
def test_any_list_of_words(words):
    try:
        positionals, keywords, values = parse(*words)
    except (UsageError, VoxarkError) as error:
        assert str(error)
    except KeyError:
        assert "--help" in words  # parse() of this file asks for more than the help
    else:
        assert 1 <= len(positionals) <= 2 and type(keywords["n"]) is int and type(keywords["word"]) is str
        assert type(keywords["window"].frame_length) is float and type(values["verbose"]) is int


# ---------------------------------------------------------------------------------------- configuration files


def test_configuration_files(tmp_path):
    (tmp_path / "a.conf").write_text(
        "# comment\n--frame-length=20   # in ms\n\n  --no_snip-edges\r\n--n = 7\n--deep\n--word=a b\n"
    )
    (tmp_path / "b.conf").write_bytes(b"\xef\xbb\xbf--n=8\n--deep=false\n")
    _, keywords, _ = parse(f"--config={tmp_path}/a.conf", "x")
    assert keywords == {"window": Window(20.0, "povey", False), "n": 7, "word": "a b", "deep": True}
    _, keywords, _ = parse("--n=9", "--config", f"{tmp_path}/a.conf", "x", "--snip-edges")
    assert keywords["n"] == 9 and keywords["window"] == Window(
        20.0, "povey", True
    )  # the command line wins, wherever it says so
    _, keywords, _ = parse(f"--config={tmp_path}/a.conf", f"--config={tmp_path}/b.conf", "x")
    assert keywords["n"] == 8 and keywords["deep"] is False and keywords["window"].frame_length == 20
    assert parse("--config=", "x")[1]["n"] == 3


@pytest.mark.parametrize(
    "line, message",
    [
        ("frame-length=20", "a.conf:2: expected --name=value, found 'frame-length=20'"),
        ("--nonsense=1", "a.conf:2: unknown option --nonsense"),
        ("--n", "a.conf:2: --n needs a value"),
        ("--", "a.conf:2: expected"),
        ("--deep=maybe", "a.conf:2: --deep=maybe: expected true"),
        ("x", "a.conf:2: expected"),
        ("--n 4", "a.conf:2: unknown option --n 4"),
        ("--config=other", "a.conf:2: --config belongs on the"),
        ("--help", "a.conf:2: --help belongs"),
        ("--num-threads=4", "a.conf:2: --num-threads belongs"),
        ("\udcff", "not a text file"),
    ],
)
def test_wrong_configuration_files(line, message, tmp_path):
    (tmp_path / "a.conf").write_text(f"--n=4\n{line}\n", errors="surrogateescape")
    with pytest.raises(VoxarkError, match=message):
        parse(f"--config={tmp_path}/a.conf", "x")


def test_configuration_files_that_cannot_be_read(tmp_path):
    for name, message in (("missing", "No such file"), ("", "Is a directory"), ("a\0b", "not a text file")):
        with pytest.raises(VoxarkError, match=f"--config=.*{message}"):
            parse(f"--config={tmp_path}/{name}", "x")


# ------------------------------------------------------------------------------------- the program as a whole


def test_a_run(try_it):
    done = try_it("--n=4", "--word=a b", "x", "it's")
    assert done.returncode == 0
    assert json.loads(done.stdout) == [
        "x",
        "it's",
        {"frame_length": 25.0, "window_type": "povey", "snip_edges": True},
        4,
        "a b",
        False,
        "1",
        None,
        ["typer"],
    ]
    assert shlex.split(done.stderr.splitlines()[0]) == ["try-it", "--n=4", "--word=a b", "x", "it's"]
    assert len(done.stderr.splitlines()) == 1


def test_what_is_not_needed_is_not_imported(try_it):
    assert json.loads(try_it("x").stdout)[-1] == []


def test_help(try_it):
    done = try_it("--help")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "Try the conventions.\n\nUsage: try-it [options]",
        "e.g.: ",
        "See also: ",
        "Options:\n",
        "Standard options:\n",
        "  --n            : A number. (int, default = 3)\n",
        "  --deep         : Dig deep. (bool, default = false)\n",
        "  --frame-length : Frame length in ms (float, default = 25.0)\n",
        '  --word         : A word. (string, default = "")\n',
        "  --window-type  : Type of window (povey|hann, default = povey)\n",
        "  --verbose     : ",
    ):
        assert part in text, part


def test_wrong_usage_ends_with_usage_command_line_and_reason(try_it):
    done = try_it("--nonsense", "a b")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith("Try the conventions.\n\nUsage: ")
    assert done.stderr.splitlines()[-2:] == [
        "try-it --nonsense 'a b'",
        "ERROR (try-it) unknown option --nonsense",
    ]
    assert (
        try_it().stderr.splitlines()[-1]
        == "ERROR (try-it) wrong number of arguments: 1 to 2 expected, 0 given"
    )


@pytest.mark.parametrize(
    "what, message",
    [
        ("error", r"utt1: file: what is wrong\nand more"),
        ("missing", "/nonexistent/file: No such file or directory"),
        ("memory", "out of memory: 2 GiB"),
        ("defect", "internal error: KeyError: 'missing' (--verbose=2 shows where)"),
    ],
)
def test_every_error_is_one_line(what, message, try_it):
    done = try_it("--print-args=false", what)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", f"ERROR (try-it) {message}\n")
    for verbose in (["--verbose=2"], ["--verbose", "2"], ["--verbose=3"]):
        done = try_it(*verbose, what)
        assert done.returncode == 1 and "Traceback" in done.stderr and "in main" in done.stderr
    assert "Traceback" not in try_it("--verbose=1", what, "--verbose=2x").stderr


def test_verbose(try_it):
    lines = {
        "debug": "VLOG (try-it) this is debug",
        "info": "LOG (try-it) this is info",
        "warning": "WARNING (try-it) this is warning",
        "error": "ERROR (try-it) this is error",
    }
    for verbose, first in (("-1", 2), ("0", 1), ("1", 0), ("2", 0)):
        done = try_it("--print-args=false", f"--verbose={verbose}", "talk")
        assert done.stderr.splitlines() == list(lines.values())[first:]


def test_counts_and_failed_list(try_it, tmp_path):
    done = try_it("--failed-list=failed", "--print_args=false", "counts", "5")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "WARNING (try-it) utt2: too short",
        r"WARNING (try-it) utt3: a\nb",
        "LOG (try-it) done 5, failed 3 (tries)",
    ]
    assert (tmp_path / "failed").read_text() == "utt2 too short\nutt3 a\\nb\nutt4 corrupt\n"
    done = try_it("--failed-list=-", "counts", "0")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "LOG (try-it) done 0, failed 3 (tries)"
    assert "WARNING (try-it) nothing was done" in done.stderr and done.stdout.startswith(b"utt2 too short\n")
    assert try_it("--failed-list=fine", "x").returncode == 0 and (tmp_path / "fine").read_text() == ""


def test_a_failed_list_that_cannot_be_written(try_it):
    done = try_it("--failed-list=no/failed", "--print-args=false", "x")
    assert done.returncode == 1 and done.stderr.startswith("ERROR (try-it) no/failed: cannot be written")
    done = try_it(
        "--failed-list=no/failed", "--print-args=false", "error"
    )  # the first error is the one that counts
    assert "WARNING (try-it) no/failed" in done.stderr and done.stderr.splitlines()[-1].startswith(
        "ERROR (try-it) utt1: file"
    )


def test_exit_status(try_it):
    assert [try_it("status", *word).returncode for word in ([], ["0"], ["1"], ["7"])] == [0, 0, 1, 7]


def test_an_output_that_is_never_finished_is_a_defect(try_it, tmp_path):
    done = try_it("--print-args=false", "forget", "out")
    assert (done.returncode, done.stderr) == (
        1,
        "ERROR (try-it) internal error: outputs were never finished: out\n",
    )
    assert os.listdir(tmp_path) == []


def test_threads_and_pipes(try_it):
    assert json.loads(try_it("--num-threads=3", "x").stdout)[6] == "3"
    assert json.loads(try_it("--num_threads", "2", "x").stdout)[6] == "2"
    assert json.loads(try_it("x", OPENBLAS_NUM_THREADS="5").stdout)[6] == "5"
    assert json.loads(try_it("--allow-pipes=false", "x").stdout)[7] == "0"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_the_program_by_themselves(name, program, tmp_path):
    path = os.pathsep.join([environment()["PYTHONPATH"], str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, str(program), "wait", str(tmp_path / "ready")],
        stderr=subprocess.PIPE,
        env={**environment(), "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # heard in background jobs too
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    messages = process.communicate(timeout=30)[1].decode()
    assert process.returncode == -getattr(signal, name)
    assert messages.splitlines()[1:] == [f"ERROR (try-it) stopped by {name}; unfinished outputs are removed"]


def test_interrupted_while_loading():
    done = subprocess.run(
        [sys.executable, "-c", "from voxark import cli\nraise KeyboardInterrupt"],
        capture_output=True,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_hangup_stays_ignored_under_nohup():
    code = (
        "import signal\nfrom voxark import cli\ncli._catch_signals()\n"
        "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)\n"
        "print(signal.getsignal(signal.SIGTERM) == cli._on_stop)"
    )
    command = f"trap '' HUP; exec {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment())
    assert done.stdout == b"True\nTrue\n"


def test_a_progress_bar_only_on_a_terminal(program):
    import fcntl
    import pty
    import termios

    code = (
        "from voxark import cli\nimport time\ncli._set_up_logging('bar', 0)\n"
        "for i in cli.progress(range(3), description='working'):\n"
        "    cli.logger.info('step %d', i)\n    time.sleep(0.6)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.replace("0.6", "0")], capture_output=True, env=environment()
    )
    assert done.stderr == b"LOG (bar) step 0\nLOG (bar) step 1\nLOG (bar) step 2\n"
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=end, env=environment())
    process.wait(timeout=60)
    os.close(end)
    shown = os.read(main, 100000).decode()
    os.close(main)
    assert "working" in shown and "LOG (bar) step 2" in shown and "Traceback" not in shown
