"""Bad input and bad luck: cut, corrupt, missing or unsorted data, failing commands, full disks, signals.

The rule that every test checks: a clean error with name, key and offset, or the right result; never a
traceback, a hang, a half file, or a wrong result with status 0.
"""

import contextlib
import logging
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time

import kaldiio
import numpy as np
import pytest
from helpers import ROOT, environment, run, shell
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark import tables
from voxark.errors import VoxarkError
from voxark.kaldi_files import DiagGmmParams, PldaParams
from voxark.io.kinds import KINDS

MATRIX = np.arange(6, dtype="f4").reshape(3, 2) - 2.5
GMM = DiagGmmParams(np.ones(2, "f4"), np.full(2, 0.5, "f4"), MATRIX[:2], np.ones((2, 2), "f4"))
VALUES = {
    "mat": [MATRIX, np.zeros((0, 0), "f4"), MATRIX.astype("f8")],
    "vec": [MATRIX[0], np.zeros(0, "f4"), MATRIX[:, 0].astype("f8")],
    "ivec": [[1, -2], [], [32, 10]],
    "iivec": [[[1, 2], []], [], [[7]]],
    "post": [[[(1, 0.5), (2, 0.25)], []], [], [[(10, 1.0)]]],
    "float": [0.5, -1.25, 32.0],
    "int": [5, -77, 10],
    "token": ["word", "x", "ab"],
    "tokens": [["a", "bc"], [], ["d"]],
    "diag-gmm": [GMM, GMM._replace(gconsts=None)],
    "plda": [PldaParams(np.ones(2), np.eye(2), np.ones(2))],
    "wav": [(16000, np.arange(5, dtype=np.int16)), (8000, np.zeros((2, 2), np.int16))],
}
FORMS = [
    (kind, form)
    for kind in VALUES
    for form in ("binary", "text")
    if not (form == "binary" and KINDS[kind].line and kind != "wav")
    and not (form == "text" and kind == "wav")
]
FORMS += [("mat", f"compressed{method}") for method in (2, 3, 5)] + [("mat", "numpy"), ("vec", "numpy")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_archive(path, kind, form):
    """Write the small archive of a kind; return its bytes."""
    if form == "numpy":
        with kaldiio.WriteHelper(f"ark:{path}", write_function="numpy") as out:
            for i, value in enumerate(VALUES[kind]):
                out(f"key{i}", value)
    else:
        method = int(form[-1]) if form.startswith("compressed") else 0
        flag = ",t" if form == "text" else ""
        with tables.open_writer(kind, f"ark{flag}:{path}", method) as out:
            for i, value in enumerate(VALUES[kind]):
                out[f"key{i}"] = value
    return path.read_bytes()


def read(kind, rspecifier):
    with tables.open_reader(kind, rspecifier) as entries:
        return list(entries), entries.skipped


def read_partly(kind, rspecifier):
    """The entries before the first error, and the error or None."""
    entries = []
    try:
        with tables.open_reader(kind, rspecifier) as reader:
            entries.extend(reader)
    except VoxarkError as error:
        return entries, error
    return entries, None


def show(value):
    """A value in a form that can be compared, NaN and types included."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(show, value))
    return repr(value)


def shown(entries):
    return [(key, show(value)) for key, value in entries]


def boundaries(path, kind, data):
    """Ends of the entries of an archive: where the reader stands after each, found with the full archive."""
    ends = [0]
    with tables.open_reader(kind, f"ark:{path}") as reader:
        for _ in reader:
            ends.append(reader.source.position)
    assert data[ends[-1] :].strip() == b""
    return ends


# ------------------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("kind, form", FORMS)
def test_an_archive_cut_at_every_byte(kind, form, folder):
    data = write_archive(folder / "whole", kind, form)
    whole, _ = read(kind, "ark:whole")
    ends = boundaries("whole", kind, data)
    if form == "text" and kind in (
        "mat",
        "vec",
        "diag-gmm",
        "plda",
    ):  # these have an end of their own before the line's
        ends = [len(data[:end].rstrip()) for end in ends]
    for cut in range(len(data)):
        (folder / "cut").write_bytes(data[:cut])
        entries, error = read_partly(kind, "ark:cut")
        complete = sum(end <= cut for end in ends) - 1
        assert shown(entries) == shown(whole)[:complete], cut
        rest = data[ends[complete] : cut].strip(b" \n")
        assert (error is None) == (rest == b""), (cut, data[:cut])
        if error is not None:
            assert re.search(r"cut: .* at byte \d+", str(error)), str(error)
            assert str(error).startswith(f"key{complete}: ") == (b" " in data[ends[complete] : cut].lstrip())


@pytest.mark.parametrize(
    "kind, form", [("mat", "binary"), ("post", "binary"), ("diag-gmm", "text"), ("ivec", "text")]
)
def test_a_cut_archive_under_p_is_counted(kind, form, folder):
    data = write_archive(folder / "whole", kind, form)
    for cut in range(0, len(data), 3):
        (folder / "cut").write_bytes(data[:cut])
        entries, error = read_partly(kind, "ark:cut")
        tolerated, skipped = read(kind, "ark,p:cut")
        assert shown(tolerated) == shown(entries)
        assert len(skipped) == (error is not None)


def test_an_archive_cut_on_its_way_through_a_pipe(folder):
    data = write_archive(folder / "whole", "mat", "binary")
    ends = boundaries("whole", "mat", data)
    for cut in range(0, len(data), 5):
        entries, error = read_partly("mat", f"ark:head -c {cut} whole |")
        assert (error is None) == (cut in ends)
        assert error is None or f"head -c {cut} whole |: " in str(error)


def test_a_script_cut_at_every_byte(folder):
    with tables.open_writer("vec", "ark,scp:a.ark,a.scp") as out:
        for i in range(120):  # so that offsets have up to four digits, and short ones are offsets of others
            out[f"k{i:03d}"] = np.full(3, i, "f4")
    lines = (folder / "a.scp").read_bytes()
    whole, _ = read("vec", "scp:a.scp")
    for cut in range(len(lines) - 200, len(lines)):
        (folder / "cut.scp").write_bytes(lines[:cut])
        entries, error = read_partly("vec", "scp:cut.scp")
        complete = lines[:cut].count(b"\n")
        assert shown(entries) == shown(whole)[:complete]
        assert (error is None) == (lines[cut - 1 : cut] == b"\n")


def test_a_script_of_paths_may_lack_its_last_newline(folder, caplog):
    tables.write_object("vec", "a.vec", MATRIX[0])
    (folder / "a.scp").write_bytes(b"a a.vec\nb a.vec")
    assert len(read("vec", "scp:a.scp")[0]) == 2
    assert "a.scp:2: the last line does not end in a newline" in caplog.text


# ------------------------------------------------------------------------------------------------- corruption


def binary_archive(kind):
    """A binary archive made by hand, and for each byte whether it belongs to the structure.

    Keys are short: a changed length that happens to end inside a later key cannot be noticed, by nobody.
    """

    def number(value, code="i"):
        return [(b"\4", True), (struct.pack("<" + code, value), False)]

    def size(value):
        return [(b"\4" + struct.pack("<i", value), True)]

    parts = []
    for i in range(3):
        parts += [(b"abc"[i : i + 1], False), (b" \0B", True)]
        if kind == "mat":
            parts += [(b"FM ", True), *size(2), *size(3), (np.arange(6, dtype="f4").tobytes(), False)]
        elif kind == "vec":
            parts += [(b"DV ", True), *size(4), (np.arange(4, dtype="f8").tobytes(), False)]
        elif kind == "ivec":
            parts += [*size(2), *number(i), *number(77)]
        elif kind == "iivec":
            parts += [*size(2), *size(1), *number(50), *size(1), *number(51 + i)]
        else:
            parts += [*size(2), *size(1), *number(5), *number(0.5, "f"), *size(0)]
    return b"".join(part for part, _ in parts), [known for part, known in parts for _ in part]


@pytest.mark.parametrize("kind", ["mat", "vec", "ivec", "iivec", "post"])
def test_no_changed_byte_of_the_structure_goes_unnoticed(kind, folder):
    data, structural = binary_archive(kind)
    (folder / "whole").write_bytes(data)
    whole = shown(read(kind, "ark:whole")[0])
    assert len(whole) == 3
    unnoticed = []
    for at in np.flatnonzero(structural):
        for value in {data[at] ^ (1 << bit) for bit in range(8)} | {
            0,
            10,
            32,
            127,
            255,
            data[at] + 1 & 255,
            data[at] - 1 & 255,
        }:
            if value == data[at]:
                continue
            (folder / "bad").write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            entries, error = read_partly(kind, "ark:bad")
            if error is None and shown(entries) != whole:
                unnoticed.append((int(at), data[at], value))
    assert unnoticed == []


def test_corrupt_lengths_take_no_memory(folder):
    """Every length field set to its maximum, from a file and from a pipe, in half a gigabyte of memory."""
    names = []
    for kind, form in FORMS:
        data = write_archive(folder / "whole", kind, form)
        for at in (
            [match.start() for match in re.finditer(rb"\x04...\0", data, re.DOTALL)] if form != "text" else []
        ):
            names.append((kind, f"{kind}.{form}.{at}"))
            (folder / names[-1][1]).write_bytes(data[: at + 1] + b"\xff\xff\xff\x7f" + data[at + 5 :])
    assert len(names) > 50
    code = (
        f"import resource, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from voxark import tables, audio; from voxark.errors import VoxarkError\n"
        "import kaldiio.matio, voxark.io.compression\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29),) * 2)\n"
        f"for number, (kind, name) in enumerate({names!r}):\n"
        "    for rspecifier in ['ark:' + name] + ['ark:cat %s |' % name] * (number % 5 == 0):\n"
        "        try:\n"
        "            with tables.open_reader(kind, rspecifier) as reader: list(reader)\n"
        "        except VoxarkError as error:\n"
        "            assert 'emory' not in str(error) and 'allocate' not in str(error), (name, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind, form", FORMS)
def test_mutated_archives_give_errors_or_values(kind, form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    data = write_archive(folder / "whole", kind, form)
    place = st.integers(0, len(data))
    edit = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("set"), place, st.integers(0, 255)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=6)),
        st.tuples(st.just("delete"), place, st.integers(1, 9)),
        st.tuples(st.just("cut"), place, st.none()),
        st.tuples(st.just("move"), place, place),
    )

    @settings(max_examples=80)
    @given(st.lists(edit, min_size=1, max_size=3), st.sampled_from(["", ",p", ",s", ",bg"]), st.booleans())
    def check(edits, flags, by_key):
        bad = bytearray(data)
        for what, at, value in edits:
            if what == "flip" and at < len(bad):
                bad[at] ^= 1 << value
            elif what == "set" and at < len(bad):
                bad[at] = value
            elif what == "insert":
                bad[at:at] = value
            elif what == "delete":
                del bad[at : at + value]
            elif what == "cut":
                del bad[at:]
            elif what == "move":
                bad[at : at + 8] = bad[value : value + 8]
        (folder / "bad").write_bytes(bad)
        try:
            if by_key:
                with tables.open_random(kind, f"ark{flags}:{folder}/bad") as table:
                    for key in ("key1", "key2", "nokey"):
                        if key in table:
                            table[key]
            else:
                read(kind, f"ark{flags}:{folder}/bad")
        except VoxarkError as error:
            assert "bad" in str(error)

    with confined(folder):
        check()


SCRIPT_PARTS = b"a,b , ,\n,\r\n,\t,\0,whole,:,5,999,[0:1],[0:,],|,-,\xff".split(b",")


@contextlib.contextmanager
def confined(folder):
    """In a folder, without pipes (a text made by chance is no command to run) and without log."""
    before = os.getcwd()
    os.chdir(folder)
    os.environ["VOXARK_ALLOW_PIPES"] = "0"
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        del os.environ["VOXARK_ALLOW_PIPES"]
        os.chdir(before)


def try_all(*uses):
    for use in uses:
        with contextlib.suppress(VoxarkError):
            use()


@settings(max_examples=150)
@given(st.binary(max_size=60) | st.lists(st.sampled_from(SCRIPT_PARTS), max_size=12).map(b"".join))
def test_any_bytes_as_a_script(tmp_path_factory, script):
    folder = tmp_path_factory.mktemp("script")
    write_archive(folder / "whole", "mat", "binary")
    (folder / "bad.scp").write_bytes(script)
    with confined(folder):
        try_all(
            lambda: read("mat", "scp:bad.scp"),
            lambda: read("mat", "scp,p:bad.scp"),
            lambda: tables.open_random("mat", "scp:bad.scp").__exit__(None, None, None),
            lambda: tables.open_writer("mat", "scp:bad.scp").__exit__(None, None, None),
        )


@settings(max_examples=200)
@given(st.text(st.sampled_from("arkscpt,:b o|x[]0 .\0\udc80é/"), max_size=14))
def test_any_text_as_a_specifier(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("spec")
    output = text.replace("/", "_")
    with confined(folder):
        tables.is_specifier(text)
        try_all(
            lambda: read("mat", text),
            lambda: tables.read_object("mat", text),
            lambda: tables.open_writer("mat", output).__exit__(KeyError, None, None),
            lambda: tables.write_object("mat", output, MATRIX),
        )
        assert not [name for name in os.listdir(folder) if ".tmp" in name]


@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind not in ("tokens", "token")])
def test_the_wrong_kind_is_an_error(kind, folder):
    """Each archive read as each other kind: an error, unless the values mean the same."""
    alike = {
        ("vec", "mat", "text"),
        ("mat", "vec", "text"),
        ("int", "float", "text"),
        ("float", "int", "binary"),
        ("int", "float", "binary"),
        ("int", "ivec", "text"),
        ("ivec", "iivec", "text"),
        ("iivec", "post", "text"),
    }
    for form in ("binary", "text"):
        if (kind, form) not in FORMS:
            continue
        write_archive(folder / "a", kind, form)
        for other in VALUES:
            if (
                other != kind
                and (kind, other, form) not in alike
                and not (KINDS[other].line and form == "text")
            ):
                assert read_partly(other, "ark:a")[1] is not None, (other, form)


def test_a_binary_file_is_no_script_and_no_list_of_words(folder):
    write_archive(folder / "a", "mat", "binary")
    with pytest.raises(VoxarkError, match="a:1: a line `key file` was expected"):
        read("mat", "scp:a")
    with pytest.raises(VoxarkError, match="binary data where a line of text"):
        read("tokens", "ark:a")


# ---------------------------------------------------------------------------------- missing, unsorted, double


@pytest.mark.parametrize(
    "rspecifier, message",
    [
        ("ark:missing", "missing: No such file"),
        ("scp:missing", "missing: No such file"),
        ("ark:.", ".: is a directory|Is a dir"),
        ("scp:one.scp", "utt: missing.ark: No such file"),
        ("scp:offset.scp", "utt: whole: offset 99999 is beyond its end"),
        ("scp:middle.scp", "utt: whole: '\\[' was expected at byte 1"),
        ("scp:half.scp", "half.scp:2: a line `key file` was expected"),
        ("scp:gap.scp", "gap.scp:2: a line `key file`"),
        ("ark:text", "text: '\\[' was expected|a key was expected"),
    ],
)
def test_input_that_is_not_there(rspecifier, message, folder):
    write_archive(folder / "whole", "mat", "binary")
    for name, text in (
        ("one.scp", "utt missing.ark:5\n"),
        ("offset.scp", "utt whole:99999\n"),
        ("middle.scp", "utt whole:1\n"),
        ("half.scp", "key0 whole:5\nkey1\n"),
        ("gap.scp", "key0 whole:5\n\nkey1 whole:5\n"),
        ("text", "this is a text\n"),
    ):
        (folder / name).write_text(text)
    entries, error = read_partly("mat", rspecifier)
    assert re.search(message, str(error)), str(error)
    for key in ("utt", "key1", "this"):
        with pytest.raises(VoxarkError):
            with tables.open_random("mat", rspecifier) as table:
                table[key]


def test_empty_input(folder):
    (folder / "empty").write_bytes(b"")
    for rspecifier in ("ark:empty", "scp:empty", "ark:true |", "ark:/dev/null"):
        assert read("mat", rspecifier) == ([], [])
    with pytest.raises(VoxarkError, match="empty: truncated: a value was expected, the input ends at byte 0"):
        tables.read_object("mat", "empty")


@pytest.mark.parametrize("kind", ["ark", "scp"])
def test_keys_that_occur_twice(kind, folder):
    for order, at in (("a b b c", 2), ("c a b a", 3), ("a a", 1), ("b c a d a", 4)):
        keys = order.split()
        (folder / "x.ark").write_text("".join(f"{key} {i} \n" for i, key in enumerate(keys)))
        for i in range(len(keys)):
            (folder / f"{i}.num").write_text(f"{i}\n")
        (folder / "x.scp").write_text("".join(f"{key} {i}.num\n" for i, key in enumerate(keys)))
        entries, error = read_partly("int", f"{kind}:x.{kind}")
        assert len(entries) == at and f"x.{kind}: key {keys[at]!r} occurs twice" in str(error)
        with pytest.raises(VoxarkError, match="occurs twice"):
            with tables.open_random("int", f"{kind}:x.{kind}") as table:
                "zzz" in table
        entries, skipped = read("int", f"{kind},p:x.{kind}")
        assert len(entries) == len(keys) - 1 and len(skipped) == 1
        assert all(int(value) == keys.index(key) for key, value in entries)  # the first one counts


@pytest.mark.parametrize("kind", ["ark", "scp"])
def test_the_flag_s_is_held_against_the_data(kind, folder):
    (folder / "x.ark").write_text("a 1 \nc 2 \nb 3 \n")
    (folder / "one").write_text("1\n")
    (folder / "x.scp").write_text("a one\nc one\nb one\n")
    entries, error = read_partly("int", f"{kind},s:x.{kind}")
    assert len(entries) == 2 and f"x.{kind}: key 'b' stands after 'c', but the flag s" in str(error)
    assert len(read("int", f"{kind}:x.{kind}")[0]) == 3
    with pytest.raises(VoxarkError, match="flag s"):
        with tables.open_random("int", f"{kind},s,cs:x.{kind}") as table:
            "zz" in table


def test_keys_sort_as_bytes(folder):
    keys = ["B", "a", "a-b", "a1", "aB", "é", "\u3000", "\U0001f600"]
    assert sorted(keys, key=str.encode) == keys
    (folder / "x").write_text("".join(f"{key} 1 \n" for key in keys))
    assert len(read("int", "ark,s:x")[0]) == len(keys)


# ----------------------------------------------------------------------------------------- permissive reading


def test_p_skips_bad_entries_of_a_script(folder):
    write_archive(folder / "whole", "mat", "binary")
    (folder / "x.scp").write_text(
        "a whole:5\nb missing.ark\nc whole:6\nd false |\ne whole:5[0:9]\nf whole:5[0:1]\n"
    )
    entries, skipped = read("mat", "scp,p:x.scp")
    assert [key for key, _ in entries] == ["a", "f"] and [key for key, _ in skipped] == ["b", "c", "d", "e"]
    with tables.open_random("mat", "scp,p:x.scp") as table:
        assert [key for key in "abcdefg" if key in table] == ["a", "f"]
        assert [key for key, _ in table.skipped] == ["b", "c", "d", "e"]
    with tables.open_random("mat", "scp:x.scp") as table:
        assert "b" in table and "g" not in table  # without p nothing is promised about the file
        with pytest.raises(VoxarkError, match="^b: missing.ark: No such file"):
            table["b"]


@pytest.mark.parametrize(
    "kind, lines, good",
    [
        ("mat", "a [ 1 2\n 3 4 ]\nb [ 1 2\n 3 ]\nc [ 1 x ]\nd [ 5 ]\n", "ad"),
        ("vec", "a [ 1 ]\nb [ x ]\nc [ 1\n 2 ]\nd [ ]\n", "ad"),
        ("ivec", "a 1 2\nb 1 x\nc 3\n", "ac"),
        ("iivec", "a 1 ; \nb 1\nc ;\n", "ac"),
        ("post", "a [ 1 1 ]\nb [ 1\nc \n", "ac"),
        ("float", "a 1\nb x\nc 2\n", "ac"),
        ("int", "a 1\nb 1.5\nc\nd 2\n", "ad"),
        ("token", "a x\nb x y\nc\nd y\n", "ad"),
    ],
)
def test_p_skips_bad_entries_of_a_text_archive(kind, lines, good, folder):
    (folder / "x").write_text(lines)
    entries, skipped = read(kind, "ark,p:x")
    assert "".join(key for key, _ in entries) == good
    assert sorted("".join(key for key, _ in entries + skipped)) == sorted(
        set(re.findall(r"^(\w)\b", lines, re.MULTILINE))
    )
    with tables.open_random(kind, "ark,p:x") as table:
        assert good[-1] in table and len(table.skipped) == len(skipped)


def test_p_reads_a_broken_archive_as_far_as_it_can(folder):
    data = write_archive(folder / "whole", "mat", "binary")
    (folder / "cut").write_bytes(data[:-1])
    done = run("copy-feats", "ark,p:cut", "ark,t:-", "--failed-list=failed")
    assert "LOG (copy-feats) done 2, failed 1" in done.stderr
    assert "WARNING (copy-feats) key2: skipped: cut: truncated" in done.stderr
    assert (folder / "failed").read_text().startswith("key2 cut: truncated: ")
    assert done.stdout.startswith(b"key0  [") and b"key1  [ ]\n" in done.stdout
    (folder / "x.scp").write_text("a whole:5\nb missing\nc whole:5\n")
    assert "done 2, failed 1" in run("copy-feats", "scp,p:x.scp", "ark:/dev/null").stderr
    done = run("copy-feats", "scp:x.scp", "ark:out", check=False)
    assert done.returncode == 1 and "ERROR (copy-feats) b: missing: No such file or directory" in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "name, relative",
    [
        ("wav/missing", True),
        ("wav/missing:17", True),
        ("missing[0:3]", True),
        ("{here}/missing", False),  # where it is looked for is plain
        ("whole:99999", False),  # it is there
        ("ark:missing", False),  # no path at all
        ("cat missing |", False),
        ("| cat", False),
    ],
)
def test_what_relative_paths_of_a_script_count_from(name, relative, folder):
    write_archive(folder / "whole", "mat", "binary")
    (folder / "x.scp").write_text(f"a {name.format(here=folder)}\n")
    hint = f"No such file or directory (relative paths count from the current folder, {folder})"
    _, error = read_partly("mat", "scp:x.scp")
    with tables.open_random("mat", "scp:x.scp") as table, pytest.raises(VoxarkError) as found:
        table["a"]
    assert str(error) == str(found.value) and str(error).startswith("a: ")
    assert str(error).endswith(hint) == relative and ("relative paths" in str(error)) == relative
    with pytest.raises(VoxarkError, match="No such file or directory$"):
        tables.read_object("mat", "missing")  # an argument of a program


# ------------------------------------------------------------------------------------ programs and the system


def fails(*arguments, message, program="copy-feats", **options):
    """The program ends with status 1 and one ERROR line that says the message."""
    done = run(program, *arguments, check=False, **options)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert re.search(message, errors[0]), errors[0]
    return done


@pytest.fixture
def archive(folder):
    """The archive "a" with 40 matrices, in an empty current directory."""
    with tables.open_writer("mat", "ark,scp:a,a.scp") as out:
        for i in range(40):
            out[f"utt{i:02d}"] = np.full((50, 20), i, "f4")
    return folder


def test_nan_is_copied_but_not_compressed(folder):
    tables.write_object("mat", "nan", np.full((9, 2), np.nan, "f4"))
    run("copy-feats", "nan", "copy")
    assert (folder / "copy").read_bytes() == (folder / "nan").read_bytes()
    with tables.open_writer("mat", "ark:nan.ark") as out:
        out["utt"] = np.full((9, 2), np.nan, "f4")
    fails(
        "--compress=true",
        "ark:nan.ark",
        "ark:small",
        message="utt: a matrix with NaN or infinite values cannot be compressed",
    )
    assert sorted(os.listdir(folder)) == ["copy", "nan", "nan.ark"]


@pytest.mark.parametrize(
    "rspecifier, message",
    [
        ("ark:nosuchprogram |", "nosuchprogram |: the command ended with status 127 .no such program"),
        ("ark:nosuchprogram | cat |", "ended with status 127"),
        ("ark:cat a | false |", "ended with status 1"),
        ("ark:cat a; exit 3 |", "cat a; exit 3 |: the command ended with status 3"),
        ("ark:false | cat a |", "status 1"),
        (
            "ark:head -c 9999 a; exit 5 |",
            "utt02: .*truncated: 4000 bytes expected, .*; the command ended with status 5",
        ),
        ("ark:cat a; kill -TERM $$ |", "signal 15|status 143"),
        ("scp:cat a.scp; exit 4 |", "status 4"),
        ("ark,bg:cat a; exit 3 |", "status 3"),
        ("scp:failing.scp", "utt: false .: the command ended with status 1|truncated"),
    ],
)
def test_a_failing_input_command_leaves_no_output(rspecifier, message, archive):
    (archive / "failing.scp").write_text("utt false |\n")
    fails(rspecifier, "ark,scp:b,b.scp", message=message)
    assert not (archive / "b").exists() and not (archive / "b.scp").exists()


@pytest.mark.parametrize(
    "wspecifier, message",
    [
        ("ark:| false", "| false: the command (ended with status 1|stopped reading)"),
        ("ark:| nosuchprogram", "status 127|stopped"),
        ("ark:| cat > /dev/null; exit 3", "status 3"),
        ("ark:| false | cat > /dev/null", "status 1|stopped reading"),
        ("ark:no/b", "no/b: cannot be written: there is no directory"),
        ("ark:.", ".: is a directory"),
        ("ark:/proc/b", "/proc/b: cannot"),
        ("ark:/dev/full", "/dev/full: cannot be written: No space left on device"),
        ("ark,scp:b,/dev/full", "/dev/full: .*No space"),
        ("ark,scp:-,b", "an scp points into an archive that is a file"),
        ("ark,scp:b,b", "two outputs"),
        ("scp:missing", "missing: No"),
        ("ark:b:5", "offset was given for an output"),
        ("ark:", "empty file name"),
    ],
)
def test_output_that_cannot_be_written(wspecifier, message, archive):
    fails("ark:a", wspecifier, message=message)
    assert sorted(os.listdir(archive)) == ["a", "a.scp"]


def test_output_through_a_command(archive):
    run("copy-feats", "ark:a", "ark:| gzip -c > b.gz")
    assert shell("gunzip -c b.gz | cmp - a").returncode == 0


def test_pipes_can_be_forbidden_everywhere(archive):
    (archive / "pipes.scp").write_text("utt00 cat a |\n")
    (archive / "out.scp").write_text("utt00 | cat > b\n")
    for arguments in (
        ("ark:cat a |", "ark:b"),
        ("ark:a", "ark:| cat > b"),
        ("scp:cat a.scp |", "ark:b"),
        ("scp:pipes.scp", "ark:b"),
        ("ark:a", "scp:out.scp"),
        ("ark:a", "ark,scp:b,| cat > c"),
        ("cat a |", "b"),
    ):
        message = "pipes are forbidden here .--allow-pipes=false or VOXARK_ALLOW_PIPES=0"
        fails("--allow-pipes=false", *arguments, message=message)
        fails(*arguments, message=message, env=environment(VOXARK_ALLOW_PIPES="0"))
    assert not (archive / "b").exists()


def test_a_closed_reader_is_no_news(archive):
    program = f"{sys.executable} {ROOT}/bin/copy-feats --print-args=false --verbose=-1"
    done = shell(f"{program} ark:a ark:- | head -c 10; echo ${{PIPESTATUS[0]}}", cwd=archive)
    assert done.stdout == b"utt00 \0BFM141\n" and done.stderr == ""
    done = shell(
        f"{program} --help | head -n 1; {program} 'ark:{program} ark:a ark:- |' ark,t:- | head -c 5",
        cwd=archive,
        check=False,
    )
    assert done.stdout.endswith(b"utt00") and done.stderr == ""


def test_a_full_standard_output(archive):
    done = shell(f"{sys.executable} {ROOT}/bin/copy-feats ark:a ark:- > /dev/full", cwd=archive, check=False)
    assert done.returncode == 1 and done.stderr.count("ERROR") == 1
    assert "ERROR (copy-feats) standard output: cannot be written: No space left on device" in done.stderr


def test_a_full_disk(archive):
    disk = archive / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        (disk / "b").write_bytes(b"old")
        fails(
            "ark:a", "ark,scp:disk/b,disk/b.scp", message="disk/b: cannot be written: No space left on device"
        )
        fails(
            "--failed-list=disk/failed",
            "ark:a",
            "ark:disk/b",
            message="disk/b: cannot be written: No space left on device",
        )
        assert sorted(os.listdir(disk)) == ["b", "failed"] and (disk / "b").read_bytes() == b"old"
        run(
            "copy-feats",
            "--failed-list=disk/failed",
            "ark:a",
            "ark:| head -c 30000 > disk/b; cat > /dev/null",
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def hear_interrupts():
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a job in the background of a script ignores it, tests and all


def start(*arguments, **options):
    with open(
        "messages", "wb"
    ) as messages:  # not a pipe: commands that outlive a killed program would hold it open
        return subprocess.Popen(
            [sys.executable, str(ROOT / "bin/copy-feats"), *arguments],
            env=environment(),
            stderr=messages,
            stdin=subprocess.DEVNULL,
            preexec_fn=hear_interrupts,
            **options,
        )


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_a_signal_while_writing(name, archive):
    (archive / "b").write_bytes(b"old")
    process = start("ark:cat a; touch reading; sleep 20 |", "ark,scp,f:b,b.scp")
    wait_for((archive / "reading").exists)
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=30) == -getattr(signal, name)
    messages = (archive / "messages").read_text()
    assert "Traceback" not in messages
    assert (archive / "b").read_bytes() == b"old" and not (archive / "b.scp").exists()
    if name != "SIGKILL":
        assert f"ERROR (copy-feats) stopped by {name}" in messages
        assert sorted(os.listdir(archive)) == ["a", "a.scp", "b", "messages", "reading"]


def test_a_signal_reaches_a_thread_that_reads_ahead_and_all_of_a_pipe(archive):
    process = start("ark,bg:echo $$ > pid; cat a; sleep 60 | cat |", "ark:b")
    wait_for(lambda: (archive / "pid").exists() and (archive / "pid").read_text().endswith("\n"))
    time.sleep(0.3)
    process.terminate()
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert "Traceback" not in (archive / "messages").read_text()
    group = int((archive / "pid").read_text())
    wait_for(lambda: not _is_alive(group))
    assert not (archive / "b").exists()


def _is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_closed_standard_streams(archive):
    program = f"{sys.executable} {ROOT}/bin/copy-feats"
    shell(f"{program} ark:a ark:b <&- >&- 2>&-; cmp a b", cwd=archive)
    shell(f"{program} ark:a ark:- 2>&- | cmp - a", cwd=archive)
    for command, message in (
        (f"{program} ark:a ark:- >&-", "standard output"),
        (f"{program} ark:- ark:b2 <&-", "standard input"),
    ):
        done = shell(command, check=False, cwd=archive)
        assert done.returncode == 1 and "ERROR" in done.stderr and message in done.stderr
    assert not (archive / "b2").exists()
    assert (
        shell(f"{program} ark:a ark,t:- 2> /dev/full | head -c 5", check=False, cwd=archive).stdout
        == b"utt00"
    )


def test_named_pipes_and_substitutions(archive):
    shell(
        f"{sys.executable} {ROOT}/bin/copy-feats ark:<(cat a) ark:>(cat > b); sleep 0.2; cmp a b", cwd=archive
    )
    shell(
        f"{sys.executable} {ROOT}/bin/copy-feats ark:/dev/stdin ark:/dev/stdout < a > b; cmp a b", cwd=archive
    )
    os.symlink("target", "link")
    run("copy-feats", "ark:a", "ark,scp:link,link.scp")
    assert os.path.islink("link") and (archive / "target").read_bytes() == (archive / "a").read_bytes()
    assert shell("cut -d' ' -f2 link.scp | cut -d: -f1 | sort -u", cwd=archive).stdout == b"link\n"


def test_output_may_be_input(archive):
    before = (archive / "a").read_bytes()
    run("copy-feats", "scp:a.scp", "ark,scp:a,a.scp")
    run("copy-feats", "ark:a", "ark:a")
    assert (archive / "a").read_bytes() == before


def test_memory_stays_flat(folder):
    """Sequential reading and writing of 60 MB in far less."""
    with tables.open_writer("mat", "ark:big") as out:
        for i in range(60):
            out[f"utt{i:02d}"] = np.full((2500, 100), i, "f4")
    code = (
        f"import resource, sys; sys.path.insert(0, {str(ROOT)!r})\nfrom voxark import tables\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with tables.open_reader('mat', sys.argv[1]) as r, tables.open_writer('mat', 'ark:copy') as w:\n"
        "    for key, value in r: w[key] = value\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)\n"
    )
    for rspecifier in ("ark:big", "ark:cat big |"):
        done = subprocess.run(
            [sys.executable, "-c", code, rspecifier], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) * 1024 < 12e6, rspecifier
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
