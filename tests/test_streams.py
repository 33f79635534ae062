"""Extended file names: strict reading, atomic writing, commands whose status counts."""

import io
import os
import random
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import environment

from voxark.io import outputs, streams
from voxark.errors import VoxarkError
from voxark.io.outputs import check_outputs
from voxark.io.specifiers import output_files
from voxark.io.streams import Output, Source, open_input, open_text_output, split_offset


def make_source(data, **keywords):
    return Source(io.BytesIO(data), "data", **keywords)


class Dribble(io.RawIOBase):
    """A stream that gives between 1 and 700 bytes a call, as a slow pipe does."""

    def __init__(self, data, seed=0):
        self.data, self.at, self.random = data, 0, random.Random(seed)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.data[self.at : self.at + min(len(buffer), self.random.randint(1, 700))]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)


# ----------------------------------------------------------------------------------------------------- Source


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_reads_gives_the_same_bytes(seed):
    rng = random.Random(seed)
    data = bytes(rng.choice(b"ab \n\0") for _ in range(rng.choice([0, 1, 1000, 70000, 200000])))
    source = Source(Dribble(data, seed), "data") if seed % 2 else make_source(data)
    at = 0
    while at < len(data):
        action, number = rng.randrange(6), rng.choice([0, 1, 5, 100, 3000, 70000])
        left = len(data) - at
        if action == 0:
            assert source.peek(number) == data[at : at + number]
            continue
        if action == 1:
            got = source.read(min(number, left))
        elif action == 2:
            got = source.read_some(number)
            assert len(got) == min(number, left)
        elif action == 3:
            got = source.read_line()
            assert got == data[at : data.find(b"\n", at) + 1 or len(data)]
        elif action == 4:
            got = source.read_until(b"\0 ")
            ends = [place for mark in (b"\0", b" ") if (place := data.find(mark, at)) >= 0]
            assert got == data[at : min(ends) + 1 if ends else len(data)]
        else:
            got = source.read_array(np.dtype("u1"), min(number, left)).tobytes()
        assert got == data[at : at + len(got)]
        at += len(got)
        assert source.position == at
    assert source.peek(1) == source.read_some(9) == source.read_line() == source.read_all() == b""


def test_short_reads_are_errors_with_name_and_offset():
    source = make_source(b"abcdef")
    source.read(4)
    with pytest.raises(VoxarkError, match="data: truncated: 3 bytes expected, 2 left at byte 4"):
        source.read(3)


def test_read_until_stops_at_its_limit():
    assert make_source(b"x" * 200000).read_until(b" ", limit=4096) == b"x" * 4096


def test_an_array_read_is_writable_and_its_own():
    for number in (3, 50000):
        source = make_source(np.arange(number, dtype="<f4").tobytes())
        array = source.read_array(np.dtype("<f4"), number)
        array[0] = 5
        assert array.flags.owndata or array.base is not None
        np.testing.assert_array_equal(array[1:], np.arange(1, number))


def test_a_corrupt_length_takes_no_memory(tmp_path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "small").write_bytes(b"x" * 100)
    for name in (str(tmp_path / "small"), f"cat {tmp_path}/small |"):
        for read in (lambda s: s.read(1 << 40), lambda s: s.read_array(np.dtype("<f8"), 1 << 37)):
            with open_input(name) as source:
                with pytest.raises(VoxarkError, match="truncated"):
                    read(source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_seek_goes_forth_and_back_and_sees_a_grown_file(tmp_path):
    path = tmp_path / "file"
    data = bytes(range(256)) * 1000
    path.write_bytes(data)
    with open_input(str(path)) as source:
        for place in (0, 100, 50, 200000, 3, 255999, 65536, 256000):
            source.seek(place)
            assert source.position == place
            assert source.read_some(10) == data[place : place + 10]
        with pytest.raises(VoxarkError, match="offset 256001 is beyond its end at byte 256000"):
            source.seek(256001)
        with open(path, "ab") as more:
            more.write(b"more")
        source.seek(256000)
        assert source.read(4) == b"more"


def test_split_offset():
    assert split_offset("a/b.ark:123") == ("a/b.ark", 123)
    for name in ("a.ark", "a:", ":5", "a:5x", "a:-5", "a:٣", "a:" + "9" * 30):
        assert split_offset(name) == (name, 0)


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "empty file name"),
        (" ", "empty file name"),
        ("/nonexistent/x", "No such file or directory$"),
        ("ark:/nonexistent/x", "No such file.*a file name is expected here, not a table"),
        ("/", "is a directory|Is a dir"),
        ("| cat", "output pipe was given as input"),
        ("|", "no command"),
        ("  |", "no command"),
        ("a\0b", "not a file name"),
        ("\ud800", "not a file name"),
        ("cat \0 |", "cannot be started"),
        ("/etc/passwd:999999999", "beyond its end"),
        ("/dev/null:5", "beyond its end"),
    ],
)
def test_names_that_cannot_be_read(name, message):
    with pytest.raises(VoxarkError, match=message):
        with open_input(name) as source:
            source.read(1)


def test_a_nonblocking_input_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write():
        for part in (b"12", b"34"):
            time.sleep(0.1)
            os.write(writing, part)
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        assert Source(stream, "slow").read_all() == b"1234"
    thread.join()


def test_standard_input_is_shared_in_turn_and_never_at_once():
    code = (
        "from voxark.io.streams import open_input\n"
        "with open_input('-') as a:\n"
        "    print(a.read_line())\n"
        "    try: open_input('-')\n"
        "    except Exception as error: print(error)\n"
        "with open_input('-') as b: print(b.read_all(), b.position)\n"
        "try: open_input('-')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"first\nsecond\nthird", capture_output=True, env=environment()
    )
    lines = done.stdout.decode().splitlines()
    assert [lines[0], lines[2]] == [r"b'first\n'", r"b'second\nthird' 18"]
    assert "two inputs at once" in lines[1] and "the first took it all" in lines[3]


# --------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "command, message",
    [
        ("nosuchprogram_x", "status 127 .no such program"),
        ("exit 3", "status 3"),
        ("false | cat", "status 1"),
        ("cat /dev/null; exit 7", "status 7"),
        ("kill -9 $$", "signal 9|status 137"),
    ],
)
def test_a_failing_command_is_an_error(command, message):
    with pytest.raises(VoxarkError, match=message):
        with open_input(command + " |") as source:
            assert source.read_all() == b""


def test_a_command_that_is_not_read_to_its_end_may_die_of_sigpipe():
    with open_input("yes |") as source:
        assert source.read(4) == b"y\ny\n"
    with open_input("yes | head -n 2 |") as source:
        assert source.read_all() == b"y\ny\n"


def test_what_was_read_before_a_failure_is_no_excuse():
    with pytest.raises(VoxarkError, match="status 3"):
        with open_input("echo abc; exit 3 |") as source:
            assert source.read(4) == b"abc\n"


def test_a_truncation_names_the_command_that_caused_it():
    with pytest.raises(
        VoxarkError, match="10 bytes expected, 4 left at byte 0; the command ended with status 3"
    ):
        with open_input("echo abc; exit 3 |") as source:
            source.read(10)


def test_a_command_gets_no_standard_input_of_ours():
    code = (
        "from voxark.io.streams import open_input\n"
        "for name in ('cat |', '-'):\n"
        "    with open_input(name) as source: print(source.read_all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"script", capture_output=True, env=environment())
    assert done.stdout == b"b''\nb'script'\n"


def test_a_command_is_ended_when_the_reader_fails():
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        with open_input("trap '' TERM; echo $$; sleep 600 |") as source:
            pid = int(source.read_line())
            raise ZeroDivisionError
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


@pytest.mark.parametrize("value", ["0", "false", "False"])
def test_pipes_can_be_forbidden(monkeypatch, value):
    monkeypatch.setenv("VOXARK_ALLOW_PIPES", value)
    for open_pipe in (lambda: open_input("echo |"), lambda: Output("| cat")):
        with pytest.raises(VoxarkError, match="pipes are forbidden here"):
            open_pipe()


def test_an_output_command(tmp_path):
    with Output(f"| gzip -c > {tmp_path}/x.gz") as out:
        out.write(b"abc" * 100000)
    with open_input(f"gunzip -c {tmp_path}/x.gz |") as source:
        assert source.read_all() == b"abc" * 100000


@pytest.mark.parametrize(
    "command, message",
    [
        ("| false", "status 1|stopped reading"),
        ("| nosuchprogram_x", "status 127|stopped reading"),
        ("| cat > /dev/null; exit 3", "status 3"),
        ("| cat > /nonexistent/x", "status 1|stopped reading"),
        ("| head -c 5 > /dev/null", "stopped reading|signal|status 141"),
    ],
)
def test_a_failing_output_command_is_an_error(command, message):
    with pytest.raises(VoxarkError, match=message):
        with Output(command) as out:
            for _ in range(100):
                out.write(b"x" * 10000)


# ----------------------------------------------------------------------------------------------------- Output


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    with Output(str(path)) as out:
        out.write(b"123")
        out.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == 1
    assert path.read_bytes() == b"123" and names(tmp_path) == ["x"]
    with pytest.raises(ZeroDivisionError):
        with Output(str(path)) as out:
            out.write(b"456")
            raise ZeroDivisionError
    assert path.read_bytes() == b"123" and names(tmp_path) == ["x"]


def test_a_link_stays_a_link_and_a_mode_stays_a_mode(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("target")
    with Output(str(link)) as out:
        out.write(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling"
    dangling.symlink_to("later")
    with Output(str(dangling)) as out:
        out.write(b"there")
    assert dangling.is_symlink() and (tmp_path / "later").read_bytes() == b"there"


def test_names_as_long_as_the_system_allows(tmp_path):
    names_of_255 = [tmp_path / ("é" * 127 + letter) for letter in "ab"]
    with Output(str(names_of_255[0])) as first, Output(str(names_of_255[1])) as second:
        first.write(b"1")
        second.write(b"2")
    assert [path.read_bytes() for path in names_of_255] == [b"1", b"2"]


def test_two_outputs_to_one_file(tmp_path):
    with Output(str(tmp_path / "x")) as out:
        out.write(b"whole")
        with pytest.raises(VoxarkError, match="two outputs"):
            Output(f"{tmp_path}/../{tmp_path.name}/x")
    assert (tmp_path / "x").read_bytes() == b"whole"
    with Output(str(tmp_path / "x")) as out:  # one after the other is well
        out.write(b"again")
    assert (tmp_path / "x").read_bytes() == b"again" and names(tmp_path) == ["x"]


@pytest.mark.parametrize(
    "outputs, where",
    [
        (("x", "./x"), "./x"),
        (("ark:x", "x"), "x"),
        (("ark,scp:a,x", "y", "x"), "x"),
        (("-", "ark,t:-"), "standard output"),
    ],
)
def test_outputs_that_would_replace_each_other_are_refused_beforehand(tmp_path, monkeypatch, outputs, where):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VoxarkError, match=f"^{where}: two outputs"):
        check_outputs(*(name for output in outputs for name in output_files(output)))
    check_outputs("x", "other", "", "", "/dev/null", "/dev/null", "| cat", "| cat")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "empty file name"),
        ("{d}/no/x", "there is no directory .*/no"),
        ("{d}", "is a directory"),
        ("{d}/new/", "is a dir"),
        ("{d}/file/x", "no directory|Not a directory"),
        ("cat |", "input pipe was given as output"),
        ("|", "no command"),
        ("{d}/x:12", "an offset was given for an output"),
        ("ark:{d}/x", "a table was given where a file name"),
        ("ark,scp:{d}/x,{d}/y", "a table was given"),
        ("t,ark:{d}/x", "a table was given"),
        ("a\0b", "not a file name"),
        ("\ud800", "not a file name"),
        ("/proc/x", "cannot be written"),
        ("{d}/" + "n" * 300, "cannot be written: File name too long"),
    ],
)
def test_names_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VoxarkError, match=message):
        with Output(name.format(d=tmp_path)) as out:
            out.write(b"x")
    assert names(tmp_path) == ["file"] and not outputs._unfinished


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"precious")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(VoxarkError, match="write-protected"):
        Output(str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"precious" and names(tmp_path) == ["x"]


def test_devices_and_named_pipes_are_written_in_place(tmp_path):
    with Output("/dev/null") as out:
        out.write(b"gone")
        assert not out.is_file
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE)
    with Output(str(fifo)) as out:
        out.write(b"through")
    assert reader.communicate()[0] == b"through"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_full_device_is_an_error():
    for size in (10, 10_000_000):
        with pytest.raises(VoxarkError, match="/dev/full: cannot be written: No space left on device"):
            with Output("/dev/full") as out:
                out.write(b"x" * size)


def test_standard_output_serves_one_output_at_a_time(capfdbinary):
    with Output("-") as out:
        out.write(b"data")
        with pytest.raises(VoxarkError, match="two outputs"):
            open_text_output("-")
    with open_text_output("-") as out:
        out.write("téxt \udcff\n")
    assert capfdbinary.readouterr().out == "datatéxt ".encode() + b"\xff\n"


def test_unfinished_outputs_are_removed(tmp_path):
    out = Output(str(tmp_path / "x"))
    out.write(b"half")
    outputs.remove_unfinished()
    assert names(tmp_path) == [] and not outputs._unfinished


def test_streams_keeps_its_interface():
    assert streams.Output is outputs.Output and streams.open_text_output is outputs.open_text_output
