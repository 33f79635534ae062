"""The shell side of utils/: parse_options.sh, the text filters, and what holds for all tools."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from helpers import ROOT, environment, shell
from hypothesis import given, settings
from hypothesis import strategies as st

UTILS = ROOT / "utils"
SCRIPT = f"""#!/usr/bin/env bash
set -euo pipefail
nj=4
name=
feat_config=conf/x.conf
flag=false
cmd=run.py
declare -i number=3
declare -a list=(a)
readonly fixed=1
help_message="Usage: $0 [options] <x>\\n  100% done"
. {UTILS}/parse_options.sh
printf '%s\\n' "$nj" "$name" "$feat_config" "$flag" "$cmd" "$PATH" "$@"
"""
DEFAULTS = ["4", "", "conf/x.conf", "false", "run.py"]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("parse") / "step.sh"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def parse(script, *words, **env):
    """(status, values or None, standard error) of the script."""
    done = subprocess.run([script, *words], capture_output=True, text=True, env=environment(**env))
    if done.returncode:
        return done.returncode, None, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert lines[5] == environment()["PATH"], "PATH was changed"
    return 0, lines[:5] + lines[6:], done.stderr


def values(script, *words):
    status, result, error = parse(script, *words)
    assert status == 0, error
    return result


# ------------------------------------------------------------------------------------------- parse_options.sh


def test_defaults_and_positionals(script):
    assert values(script) == DEFAULTS
    assert values(script, "a b", "--nj", "7") == [*DEFAULTS, "a b", "--nj", "7"]


def test_options_in_both_forms(script):
    assert values(script, "--nj", "7", "--name=x", "--feat-config=a=b", "--flag", "true", "p") == [
        "7",
        "x",
        "a=b",
        "true",
        "run.py",
        "p",
    ]
    assert values(script, "--feat_config", "y", "--", "--nj", "5") == [
        "4",
        "",
        "y",
        "false",
        "run.py",
        "--nj",
        "5",
    ]
    assert values(script, "--name", "", "--name=") == DEFAULTS
    assert values(script, "--name", "-5") == ["4", "-5", *DEFAULTS[2:]]
    assert values(script, "--cmd", "run.py --mem 4G") == [*DEFAULTS[:4], "run.py --mem 4G"]
    assert (
        values(script, "--name", "--mem 4G")[1] == "--mem 4G" and values(script, "--name=--nj")[1] == "--nj"
    )


@pytest.mark.parametrize(
    "value",
    [
        "$(touch HACK)",
        "`touch HACK`",
        "x; touch HACK",
        '"; touch HACK; "',
        "$HOME",
        "a\nb",
        "*",
        "'",
        '"',
        "\\",
        "a[$(touch HACK)]",
    ],
)
def test_values_are_never_evaluated(script, value, tmp_path):
    for words in (["--name", value], [f"--name={value}"], ["--config", "c"]):
        (tmp_path / "c").write_text(f"name={value}\n" if "\n" not in value else "")
        done = subprocess.run(
            [script, *words], capture_output=True, text=True, env=environment(), cwd=tmp_path
        )
        assert not (tmp_path / "HACK").exists()
        if "c" not in words:
            assert done.stdout.startswith(f"4\n{value}\nconf/x.conf\n")


@pytest.mark.parametrize(
    "option",
    [
        "PATH",
        "path",
        "IFS",
        "BASH_ENV",
        "LD_PRELOAD",
        "HOME",
        "bogus",
        "_po_name",
        "help_me",
        "x[0]",
        "1",
        "",
        "n j",
        "number",
        "list",
        "fixed",
        "nj[$(touch HACK)]",
        "http_proxy",
    ],
)
def test_only_declared_names_can_be_set(script, option, tmp_path):
    for words in ([f"--{option}", "/x"], [f"--{option}=/x"], ["--config", "c"]):
        (tmp_path / "c").write_text(f"{option}=/x\n")
        if option == "" and words[0] == "--":
            continue
        done = subprocess.run(
            [script, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(http_proxy="there"),
        )
        assert done.returncode == 1 and done.stdout == "", (words, done.stdout)
        assert option in done.stderr and os.listdir(tmp_path) == ["c"]


def test_a_variable_of_the_script_may_come_exported_from_outside(script):
    assert parse(script, "--nj", "9", nj="2")[1][0] == "9"


def test_errors_name_the_option(script):
    for words, message in (
        (["--bogus", "3"], "unknown option --bogus"),
        (["--nj"], "--nj needs a value"),
        (["--name", "--nj", "7"], "--name needs a value, but is followed by --nj"),
        (["--flag", "yes"], "--flag expects true or false, not 'yes'"),
        (["--flag=True"], "--flag expects true or false"),
        (["--nj", "a[$(id)]"], "--nj expects a number"),
        (["--cmd", ""], "empty argument to --cmd"),
        (["--config", "/nowhere"], "--config /nowhere: no such file"),
    ):
        status, _, error = parse(script, *words)
        assert status == 1 and message in error and error.startswith(str(script)), error


def test_config_is_read_first_and_the_command_line_wins(script, tmp_path):
    config = tmp_path / "c.conf"
    config.write_text("# comment\n\nnj=9   # nine\n  --name=\"a # b\"  # c\nfeat-config='x y'\r\nflag=true")
    assert values(script, "--nj", "3", "--config", str(config), "p") == [
        "3",
        "a # b",
        "x y",
        "true",
        "run.py",
        "p",
    ]
    assert values(script, f"--config={config}")[0] == "9"


def test_config_errors_name_file_and_line(script, tmp_path):
    config = tmp_path / "c.conf"
    for text, message in (
        ("nj=1\ntouch HACK\n", f"{config}:2: expected name=value, found 'touch HACK'"),
        ("bogus=1\n", f"{config}:1: unknown option --bogus"),
        ("\nflag=maybe\n", f"{config}:2: --flag expects true or false"),
        ("config=x\n", f"{config}:1: unknown option --config"),
    ):
        config.write_text(text)
        status, _, error = parse(script, "--config", str(config))
        assert status == 1 and message in error


def test_help(script):
    for option in ("--help", "-h"):
        done = subprocess.run(
            [script, "--nj", "3", option, "--bogus"], capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0 and done.stdout == f"Usage: {script} [options] <x>\n  100% done\n"


def test_it_leaves_no_names_behind(tmp_path):
    shell(
        "nj=1; before=$(compgen -A variable; compgen -A function); set -- --nj 2 x; "
        f". {UTILS}/parse_options.sh; after=$(compgen -A variable; compgen -A function); "
        'diff <(grep -v ^_ <<<"$before") <(grep -v ^_ <<<"$after" '
        f"| grep -v ^before$); ! compgen -A function _po; ! compgen -A variable _po; [ $nj$1 = 2x ]"
    )


# ----------------------------------------------------------------------------------------------- text filters


def pipe(command, text=b"", check=True):
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], input=text, capture_output=True, env=environment()
    )
    assert not check or done.returncode == 0, done.stderr
    return done


words = st.text(
    st.characters(
        min_codepoint=33, max_codepoint=0x2FFF, blacklist_categories=("Zs", "Zl", "Zp", "Cc", "Cs", "Cn")
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12)
@given(st.dictionaries(words, words, min_size=1, max_size=12))
def test_round_trip_through_the_programs(utt2spk):
    """utt2spk -> spk2utt -> utt2spk gives the same lines; the programs agree with the library."""
    from voxark.datadir import invert_utt2spk

    text = "".join(f"{u} {s}\n" for u, s in utt2spk.items()).encode()
    spk2utt = pipe("utt2spk_to_spk2utt", text).stdout
    assert spk2utt.decode() == "".join(f"{s} {' '.join(us)}\n" for s, us in invert_utt2spk(utt2spk).items())
    assert sorted(pipe("spk2utt_to_utt2spk", spk2utt).stdout.splitlines()) == sorted(text.splitlines())


def test_converters_read_a_file_or_standard_input(tmp_path):
    (tmp_path / "utt2spk").write_text("u1 a\nu3\tb\nu2  a \n")
    expected = b"a u1 u2\nb u3\n"
    assert pipe(f"utt2spk_to_spk2utt {tmp_path}/utt2spk").stdout == expected
    assert pipe(f"cat {tmp_path}/utt2spk | utt2spk_to_spk2utt").stdout == expected
    assert pipe(f"utt2spk_to_spk2utt - <{tmp_path}/utt2spk").stdout == expected
    assert pipe("spk2utt_to_utt2spk", expected).stdout == b"u1 a\nu2 a\nu3 b\n"


@pytest.mark.parametrize(
    "program,text,message",
    [
        (
            "utt2spk_to_spk2utt",
            b"u1 a\nu2\n",
            "(standard input):2: expected '<utterance> <speaker>', found 1 fields",
        ),
        ("utt2spk_to_spk2utt", b"u1 a b\n", "(standard input):1: expected"),
        (
            "utt2spk_to_spk2utt",
            b"u1 a\nu1 b\n",
            "(standard input):2: utterance 'u1' is there already, at (standard input):1",
        ),
        ("utt2spk_to_spk2utt", b"u1 a\n\n", "(standard input):2: blank line"),
        ("utt2spk_to_spk2utt", b"u1 a\r\n", "(standard input):1: carriage return"),
        ("spk2utt_to_utt2spk", b"a u1\nb\n", "(standard input):2: speaker 'b' has no utterance"),
        ("spk2utt_to_utt2spk", b"a u1\nb u1\n", "(standard input):2: utterance 'u1' is there already"),
        ("filter_scp -f 3 /dev/fd/0 /etc/hostname", b"a\n", "there is no field 3"),
        ("filter_scp -f 0 x", b"", "-f expects a number above zero"),
        ("filter_scp --bogus x", b"", "unknown option --bogus"),
        ("filter_scp", b"", "0 arguments given"),
        ("filter_scp /no/where", b"", "/no/where: No such file"),
        ("utt2spk_to_spk2utt a b", b"", "2 arguments given"),
    ],
)
def test_filters_exit_1_and_say_why(program, text, message):
    done = pipe(program, text, check=False)
    assert done.returncode == 1 and message in done.stderr.decode() and b"Traceback" not in done.stderr


def test_filter_scp(tmp_path):
    (tmp_path / "list").write_text("b extra\nd\n")
    text = b"a 1 b\nb 2\xff\nc  3 b\nb 4"
    keep = f"filter_scp {tmp_path}/list"
    assert pipe(keep, text).stdout == b"b 2\xff\nb 4\n"
    assert pipe(f"filter_scp --exclude {tmp_path}/list", text).stdout == b"a 1 b\nc  3 b\n"
    assert pipe(f"filter_scp -f 3 {tmp_path}/list", b"a 1 b\nc 3 c\n").stdout == b"a 1 b\n"
    (tmp_path / "in").write_bytes(text)
    assert pipe(f"{keep} {tmp_path}/in").stdout == b"b 2\xff\nb 4\n"
    assert pipe(f"filter_scp - {tmp_path}/in", b"c\n").stdout == b"c  3 b\n"
    assert pipe(f"{keep}", b"").stdout == b""


def test_filters_stop_silently_when_the_reader_has_gone(tmp_path):
    (tmp_path / "list").write_text("".join(f"u{i} s\n" for i in range(100000)))
    done = subprocess.run(
        ["bash", "-c", f"filter_scp {tmp_path}/list {tmp_path}/list | head -n 1"],
        capture_output=True,
        env=environment(),
    )
    assert done.stdout == b"u0 s\n" and done.stderr == b""


# ---------------------------------------------------------------------------------------------- all the tools

TOOLS = [
    "validate_data_dir.sh",
    "fix_data_dir.sh",
    "copy_data_dir.sh",
    "combine_data.sh",
    "subset_data_dir.sh",
    "split_data.sh",
    "utt2spk_to_spk2utt",
    "spk2utt_to_utt2spk",
    "filter_scp",
    "run.py",
]


@pytest.mark.parametrize("tool", TOOLS)
def test_help_shows_an_example(tool):
    done = shell(f"{tool} --help")
    text = done.stdout.decode()
    assert "usage" in text.lower() and f"e.g.: {tool}" in text and done.stderr == ""


@pytest.mark.parametrize(
    "tool", [tool for tool in TOOLS if tool.endswith(("dir.sh", "data.sh")) or tool == "run.py"]
)
def test_wrong_use_exits_1(tool, tmp_path):
    for words in ("", "--bogus", "absent absent/either absent/too"):
        done = shell(f"{tool} {words}", check=False, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr and "Traceback" not in done.stderr


def test_tools_work_without_path_sh(tmp_path):
    """By their path alone, from any folder."""
    (tmp_path / "d").mkdir()
    for name, text in (("utt2spk", "u a\n"), ("spk2utt", "a u\n"), ("wav.scp", "u x.wav\n")):
        (tmp_path / "d" / name).write_text(text)
    env = {"PATH": os.environ["PATH"], "HOME": "/"}
    for words in (
        ["validate_data_dir.sh", "--no-text", "--no-feats", "d"],
        ["split_data.sh", "d", "1"],
        ["utt2spk_to_spk2utt", "d/utt2spk"],
    ):
        done = subprocess.run(
            [UTILS / words[0], *words[1:]], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "tool",
    [
        "validate_data_dir.sh --no-text --no-feats {d}",
        "filter_scp {d}/utt2spk {d}/utt2spk",
        "run.py {d}/log true",
    ],
)
def test_tools_start_fast(tool, tmp_path):
    """They take less than 60 ms more than an empty Python program (the best of several runs)."""
    for name, text in (("utt2spk", "u a\n"), ("spk2utt", "a u\n"), ("wav.scp", "u x.wav\n")):
        (tmp_path / name).write_text(text)

    def best(command):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        return min(times)

    words = tool.format(d=tmp_path).split()
    assert best([UTILS / words[0], *words[1:]]) < best([sys.executable, "-c", ""]) + 0.06


def test_tools_import_no_numpy(tmp_path):
    code = (
        "import sys; sys.argv = ['x']; sys.path.insert(0, 'utils'); import data_dir, run, step_outputs; "
        "sys.exit(bool({'numpy', 'scipy', 'typer', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment()).returncode == 0


def sources():
    return [
        path for folder in ("utils", "steps") for path in sorted((ROOT / folder).iterdir()) if path.is_file()
    ]


def test_no_perl_and_no_old_python():
    for path in sources():
        first, *rest = path.read_text().splitlines()
        assert not re.search(r"perl|python2|python$", first), path
        assert not any(re.search(r"^\s*perl |\| perl |python2", line) for line in rest), path


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = [str(path) for path in sources() if path.suffix == ".sh"]
    done = subprocess.run(["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_scripts_are_strict():
    for path in sources():
        if path.suffix == ".sh" and path.read_text().startswith("#!"):
            assert "\nset -euo pipefail\n" in path.read_text(), path
