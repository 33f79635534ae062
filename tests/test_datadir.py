"""Data directories: reading, checking, repairing, copying, combining, choosing, splitting."""

import os
import subprocess

import pytest
from helpers import needs_data, shared_data, shell
from hypothesis import given
from hypothesis import strategies as st

from voxark import datadir, datadir_edit
from voxark.datadir_check import check
from voxark.errors import VoxarkError

GOOD = {
    "wav.scp": 'r1 /a/r1.wav\nr2 sph2pipe -f wav "/a/r 2.sph" |\n',
    "segments": "a-1 r1 0.00 1.50\na-2 r1 1.5 2.25\nb-1 r2 0.1 -1\n",
    "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
    "spk2utt": "a a-1 a-2\nb b-1\n",
    "text": "a-1 hello w\u00f6rld\na-2\nb-1 no\u00a0break\n",
    "feats.scp": "a-1 f.ark:4\na-2 f.ark:90\nb-1 f.ark:400\n",
    "vad.scp": "a-1 v.ark:4\na-2 v.ark:90\nb-1 v.ark:400\n",
    "cmvn.scp": "a c.ark:2\nb c.ark:300\n",
    "spk2gender": "a f\n",
    "reco2dur": "r1 2.0\nr2 5\n",
    "utt2dur": "a-1 1.5\na-2 0.75\nb-1 4.9\n",
    "utt2num_frames": "a-1 148\na-2 73\nb-1 488\n",
    "utt2noise": "a-2 babble\n",
    "phones.ctm": "a-1 1 0.00 0.20 h#\na-1 1 0.20 0.10 sh 0.9\nb-1 1 0 1 iy\n",
    "trials": "a-1 a-2 target\na-1 b-1 nontarget\nmodel7 b-1 target\n",
    "notes.md": "not a\r\nfile of ours",
}


def make(folder, **changes):
    """Write the good directory with some files replaced (None: absent; . and _ are alike in names)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(GOOD)
    for name, content in changes.items():
        name = {
            "wav": "wav.scp",
            "feats": "feats.scp",
            "vad": "vad.scp",
            "cmvn": "cmvn.scp",
            "ctm": "phones.ctm",
        }.get(name, name)
        files[name] = content
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name in GOOD}


# ---------------------------------------------------------------------------------------------------- reading


def test_readers_give_values(tmp_path):
    d = make(tmp_path / "d")
    segments = datadir.read_table(d / "segments")
    assert segments["a-2"] == datadir.Segment("r1", 1.5, 2.25, None) and segments["b-1"].end == -1
    assert datadir.read_table(d / "spk2utt") == {"a": ["a-1", "a-2"], "b": ["b-1"]}
    assert datadir.read_table(d / "wav.scp")["r2"] == 'sph2pipe -f wav "/a/r 2.sph" |'
    assert datadir.read_table(d / "utt2num_frames")["a-2"] == 73
    assert datadir.read_ctm(d / "phones.ctm")[1] == datadir.CtmEntry("a-1", "1", 0.2, 0.1, "sh", 0.9)
    assert datadir.read_trials(d / "trials")[1] == datadir.Trial("a-1", "b-1", "nontarget")
    assert datadir.read_table(d / "text")["b-1"] == "no\u00a0break"


def test_no_break_space_is_no_separator(tmp_path):
    (tmp_path / "utt2spk").write_text("u\u00a0x spk\u3000y\n")
    assert datadir.read_table(tmp_path / "utt2spk") == {"u\u00a0x": "spk\u3000y"}


def test_reading_runs_no_command_of_wav_scp(tmp_path):
    d = make(
        tmp_path / "d",
        wav=f"r1 touch {tmp_path}/ran |\nr2 $(touch {tmp_path}/ran) `touch {tmp_path}/ran` |\n",
    )
    for tool in ("validate_data_dir.sh --no-feats", "fix_data_dir.sh", "split_data.sh --per-utt"):
        shell(f"{tool} {d}" + (" 2" if "split" in tool else ""))
    shell(f"copy_data_dir.sh {d} {tmp_path}/copy && combine_data.sh {tmp_path}/all {d} {tmp_path}/copy")
    assert not (tmp_path / "ran").exists()


def test_order_is_that_of_bytes():
    """Python's order of strings is the order of `LC_ALL=C sort`, beyond ASCII and beyond 16 bits too."""
    words = ["a", "B", "a-1", "a1", "_", "\u00e9", "\uffee", "\U0001f600", "ab", "A", "~", "a b"]
    text = "".join(word + "\n" for word in words).encode()
    ordered = subprocess.run(
        ["sort"], input=text, capture_output=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    assert ordered.decode().splitlines() == sorted(words)


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters=" "), min_size=1, max_size=6
)


@given(st.dictionaries(names, names, min_size=1, max_size=20))
def test_utt2spk_and_spk2utt_are_inverse(utt2spk):
    spk2utt = datadir.invert_utt2spk(utt2spk)
    assert datadir.invert_spk2utt(spk2utt) == utt2spk
    assert datadir.invert_utt2spk(datadir.invert_spk2utt(spk2utt)) == spk2utt
    assert sum(map(len, spk2utt.values())) == len(utt2spk)


def test_an_utterance_of_two_speakers_is_refused():
    with pytest.raises(VoxarkError, match="'u' belongs to 'a' and again to 'b'"):
        datadir.invert_spk2utt({"a": ["u"], "b": ["v", "u"]})


@given(st.binary(max_size=60))
def test_any_bytes_give_rows_or_an_error(data):
    """No traceback, whatever is in the file."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix="utt2spk") as file:
        file.write(data)
        file.flush()
        problems = []
        for parse in (datadir.parse_word, datadir.parse_segment, datadir.parse_duration, datadir.parse_count):
            datadir.read_table(file.name, parse, problems.append, in_order=True)
        datadir.read_ctm(file.name, problems.append)
        datadir.read_trials(file.name, problems.append)
        assert all(problem.startswith(file.name) for problem in problems)


def test_write_lines_leaves_no_half_file(tmp_path):
    target = tmp_path / "x"
    target.write_text("old\n")

    def lines():
        yield "new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        datadir.write_lines(target, lines())
    assert target.read_text() == "old\n" and os.listdir(tmp_path) == ["x"]


# --------------------------------------------------------------------------------------------------- checking


def test_a_good_directory_has_no_problem(tmp_path):
    d = make(tmp_path / "d")
    assert check(d) == []
    done = shell(f"validate_data_dir.sh {d}")
    assert done.stdout.decode() == f"validate_data_dir.sh: Successfully validated data-directory {d}\n"


@needs_data("speechocean762")
def test_recorded_corpora_are_valid():
    for name in ("speechocean762/train", "speechocean762/test", "timit_sample/all"):
        assert check(shared_data(name), need_feats=False) == []


BROKEN = {  # what is wrong: (changes, the beginning of a line that names file and line, part of the rest)
    "no utt2spk": ({"utt2spk": None}, "utt2spk: ", "no such file"),
    "no spk2utt": ({"spk2utt": None}, "spk2utt: ", "no such file"),
    "no feats": ({"feats": None}, "feats.scp: ", "--no-feats"),
    "no text": ({"text": None}, "text: ", "--no-text"),
    "no wav": ({"wav": None}, "wav.scp: ", "no such file"),
    "empty file": ({"utt2spk": ""}, "utt2spk: ", "empty"),
    "malformed utt2spk": ({"utt2spk": "a-1 a\na-2 a extra\nb-1 b\n"}, "utt2spk:2: ", "found 3 fields"),
    "utt2spk without speaker": ({"utt2spk": "a-1 a\na-2\nb-1 b\n"}, "utt2spk:2: ", "found 1 fields"),
    "duplicate key": ({"utt2spk": "a-1 a\na-1 a\na-2 a\nb-1 b\n"}, "utt2spk:2: ", "already, on line 1"),
    "unsorted": ({"feats": "a-2 f:1\na-1 f:2\nb-1 f:3\n"}, "feats.scp:2: ", "not in sorted order"),
    "sorted by another locale": ({"utt2spk": "a-1 a\nb-1 b\na-2 a\n"}, "utt2spk:3: ", "not in sorted order"),
    "not UTF-8": ({"text": b"a-1 x\na-2 caf\xe9\nb-1 y\n"}, "text:2: ", "not UTF-8 (byte 0xe9)"),
    "Windows line ends": ({"utt2spk": "a-1 a\na-2 a\r\nb-1 b\n"}, "utt2spk:2: ", "carriage return"),
    "NUL bytes": ({"utt2spk": "a-1 a\na-2 a\n\0\0\0\n"}, "utt2spk:3: ", "NUL"),
    "cut off": ({"text": "a-1 x\na-2 y\nb-1 z"}, "text:3: ", "no newline"),
    "blank line": ({"text": "a-1 x\n\na-2 y\nb-1 z\n"}, "text:2: ", "blank line"),
    "key without file": ({"wav": "r1\nr2 x\n"}, "wav.scp:1: ", "no file or pipe"),
    "tilde": ({"wav": "r1 ~/x.wav\nr2 x\n"}, "wav.scp:1: ", "~"),
    "segment of no recording": (
        {"segments": "a-1 r1 0 1\na-2 r9 0 1\nb-1 r2 0 1\n"},
        "segments:2: ",
        "'r9' is not in",
    ),
    "segment runs backwards": (
        {"segments": "a-1 r1 0 1\na-2 r1 2 1.5\nb-1 r2 0 1\n"},
        "segments:2: ",
        "not after its start",
    ),
    "segment is no time": (
        {"segments": "a-1 r1 0 1\na-2 r1 0 x\nb-1 r2 0 1\n"},
        "segments:2: ",
        "not a time in seconds",
    ),
    "segment is nan": (
        {"segments": "a-1 r1 nan 1\na-2 r1 0 1\nb-1 r2 0 1\n"},
        "segments:1: ",
        "not a time in seconds",
    ),
    "segment starts before 0": (
        {"segments": "a-1 r1 -1 1\na-2 r1 0 1\nb-1 r2 0 1\n"},
        "segments:1: ",
        "not a time",
    ),
    "segment beyond the end": (
        {"segments": "a-1 r1 0 1\na-2 r1 1 2.6\nb-1 r2 0 1\n"},
        "segments:2: ",
        "reaches beyond",
    ),
    "recording without segment": (
        {"wav": "r1 x\nr2 x\nr3 x\n", "reco2dur": "r1 2\nr2 5\nr3 1\n"},
        "wav.scp:3: ",
        "no segment",
    ),
    "utterance without speaker": ({"text": "a-1 x\na-2 y\na-3 z\nb-1 z\n"}, "text:3: ", "'a-3' is not in"),
    "utterance without text": ({"text": "a-1 x\nb-1 z\n"}, "utt2spk:2: ", "'a-2' lacks a line in"),
    "utterance without vad": ({"vad": "a-1 x\nb-1 z\n"}, "utt2spk:2: ", "vad.scp"),
    "speakers disagree": ({"spk2utt": "a a-1\nb a-2 b-1\n"}, "spk2utt:2: ", "which utt2spk gives to 'a'"),
    "speaker lacks an utterance": ({"spk2utt": "a a-1\nb b-1\n"}, "utt2spk:2: ", "spk2utt"),
    "spk2utt has more": (
        {"spk2utt": "a a-1 a-2 a-3\nb b-1\n"},
        "spk2utt:1: ",
        "'a-3' of speaker 'a' is not in utt2spk",
    ),
    "spk2utt repeats": ({"spk2utt": "a a-1 a-2 a-2\nb b-1\n"}, "spk2utt:1: ", "twice"),
    "speakers out of order": (
        {
            "utt2spk": "a-1 z\na-2 z\nb-1 b\n",
            "spk2utt": "b b-1\nz a-1 a-2\n",
            "cmvn": None,
            "spk2gender": None,
        },
        "utt2spk:3: ",
        "--no-spk-sort",
    ),
    "gender": ({"spk2gender": "a female\n"}, "spk2gender:1: ", "not m or f"),
    "gender of nobody": ({"spk2gender": "c f\n"}, "spk2gender:1: ", "'c' is not in"),
    "cmvn lacks a speaker": ({"cmvn": "a c:1\n"}, "utt2spk:3: ", "cmvn.scp"),
    "duration 0": ({"utt2dur": "a-1 0\na-2 1\nb-1 1\n"}, "utt2dur:1: ", "duration is 0"),
    "fraction of a frame": (
        {"utt2num_frames": "a-1 1\na-2 1.5\nb-1 1\n"},
        "utt2num_frames:2: ",
        "whole number",
    ),
    "duration of no recording": ({"reco2dur": "r1 1\nr2 1\nr7 2\n"}, "reco2dur:3: ", "'r7'"),
    "label of nobody": ({"utt2noise": "zz babble\n"}, "utt2noise:1: ", "'zz'"),
    "ctm line": ({"ctm": "a-1 1 0.0 sh\n"}, "phones.ctm:1: ", "expected"),
    "ctm time": ({"ctm": "a-1 1 zero 0.1 sh\n"}, "phones.ctm:1: ", "not a time"),
    "ctm of nobody": ({"ctm": "zz 1 0 0.1 sh\n"}, "phones.ctm: ", "'zz'"),
    "trial label": ({"trials": "a-1 a-2 targe\n"}, "trials:1: ", "expected"),
    "trial of one": ({"trials": "a-1 a-2 target\na-1\n"}, "trials:2: ", "expected"),
    "trial twice": ({"trials": "a-1 a-2 target\na-1 a-2 nontarget\n"}, "trials:2: ", "on line 1"),
    "trial of nobody": ({"trials": "a-1 zz target\n"}, "trials: ", "'zz'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_every_kind_of_broken_directory_is_named(what, tmp_path):
    changes, where, why = BROKEN[what]
    d = make(tmp_path / "d", **changes)
    problems = check(d)
    assert any(problem.startswith(f"{d}/{where}") and why in problem for problem in problems), problems


@pytest.mark.parametrize(
    "what", ["malformed utt2spk", "duplicate key", "no spk2utt", "not UTF-8", "segment beyond the end"]
)
def test_validate_exits_1_and_names_file_and_line(what, tmp_path):
    changes, where, why = BROKEN[what]
    d = make(tmp_path / "d", **changes)
    done = shell(f"validate_data_dir.sh {d}", check=False)
    assert done.returncode == 1 and not done.stdout
    assert f"{d}/{where}" in done.stderr and why in done.stderr


def test_what_is_not_needed_may_be_absent(tmp_path):
    d = make(tmp_path / "d", feats=None, text=None, wav=None, segments=None, reco2dur=None)
    assert shell(f"validate_data_dir.sh --no-feats --no-text --no-wav {d}").returncode == 0
    assert shell(f"validate_data_dir.sh --no-feats --no-text {d}", check=False).returncode == 1


def test_problems_are_counted_beyond_a_screenful(tmp_path):
    d = make(tmp_path / "d", trials="x\n" * 50)
    done = shell(f"validate_data_dir.sh {d}", check=False)
    assert len(done.stderr.splitlines()) == 21 and "30 more problems" in done.stderr


def test_only_and_partial_serve_the_steps(tmp_path):
    d = make(tmp_path / "d", text="a-1 x\n", feats="a-1 f:1\n")
    assert check(d, only=["wav.scp", "segments"], need_feats=False, need_text=False) == []
    assert check(d, only=["feats.scp"], need_wav=False, need_text=False, partial=True) == []
    assert check(d, only=["feats.scp"], need_wav=False, need_text=False) != []


# -------------------------------------------------------------------------------------------------- repairing


REPAIRABLE = [
    "duplicate key",
    "unsorted",
    "sorted by another locale",
    "Windows line ends",
    "cut off",
    "blank line",
    "segment of no recording",
    "segment runs backwards",
    "segment beyond the end",
    "recording without segment",
    "utterance without speaker",
    "utterance without text",
    "utterance without vad",
    "no spk2utt",
    "speakers disagree",
    "speaker lacks an utterance",
    "spk2utt has more",
    "cmvn lacks a speaker",
    "gender of nobody",
    "label of nobody",
    "ctm of nobody",
    "duration of no recording",
]


@pytest.mark.parametrize("what", REPAIRABLE)
def test_fix_repairs(what, tmp_path):
    d = make(tmp_path / "d", **BROKEN[what][0])
    before = {path.name: path.read_bytes() for path in d.iterdir()}
    shell(f"fix_data_dir.sh {d}")
    assert check(d) == []
    kept = {path.name: path.read_bytes() for path in d.glob(".backup/*")}
    assert all(before[name] == old for name, old in kept.items())
    assert all((d / name).read_bytes() == before[name] for name in before if name not in kept)
    again = shell(f"fix_data_dir.sh {d}").stdout.decode()
    assert "changed" not in again and "kept all" in again


@pytest.mark.parametrize(
    "what", ["malformed utt2spk", "not UTF-8", "NUL bytes", "key without file", "gender"]
)
def test_fix_refuses_what_it_cannot_know(what, tmp_path):
    changes, where, why = BROKEN[what]
    d = make(tmp_path / "d", **changes)
    before = content(d) if what not in ("not UTF-8", "NUL bytes") else None
    done = shell(f"fix_data_dir.sh {d}", check=False)
    assert done.returncode == 1 and f"{d}/{where}" in done.stderr and why in done.stderr
    assert before is None or content(d) == before


def test_fix_refuses_two_lines_of_a_key_that_differ(tmp_path):
    d = make(tmp_path / "d", utt2spk="a-1 a\na-1 b\na-2 a\nb-1 b\n")
    done = shell(f"fix_data_dir.sh {d}", check=False)
    assert done.returncode == 1 and "utt2spk:2: 'a-1' has another line before, 'a'" in done.stderr


def test_fix_names_what_it_drops_and_why(tmp_path):
    d = make(tmp_path / "d", feats="a-1 f:1\nb-1 f:2\n")
    said = shell(f"fix_data_dir.sh {d}").stdout.decode()
    assert "kept 2 utterances out of 3" in said
    assert (d / "dropped.fix").read_text() == "a-2 utterance a-2 is not in feats.scp\n"
    assert (d / "utt2spk").read_text() == "a-1 a\nb-1 b\n" and (d / "spk2utt").read_text() == "a a-1\nb b-1\n"
    assert (d / "trials").read_text() == "a-1 b-1 nontarget\nmodel7 b-1 target\n"
    assert not (d / "utt2noise").exists()


def test_fix_changes_nothing_when_nothing_would_be_left(tmp_path):
    d = make(tmp_path / "d", feats="zz f:1\n")
    before = content(d)
    done = shell(f"fix_data_dir.sh {d}", check=False)
    assert done.returncode == 1 and "no utterance would be left" in done.stderr and content(d) == before


def test_fix_makes_utt2spk_of_spk2utt(tmp_path):
    d = make(tmp_path / "d", utt2spk=None)
    shell(f"fix_data_dir.sh {d}")
    assert (d / "utt2spk").read_text() == GOOD["utt2spk"] and check(d) == []


# ----------------------------------------------------------------------------------------- copying, combining


def test_copy_is_the_same(tmp_path):
    d = make(tmp_path / "d")
    shell(f"copy_data_dir.sh {d} {tmp_path}/new/copy")
    copy = content(tmp_path / "new" / "copy")
    assert copy == {name: text for name, text in GOOD.items() if name != "notes.md"}


def test_copy_with_new_names_and_back(tmp_path):
    d = make(tmp_path / "d")
    shell(f"copy_data_dir.sh --utt-prefix=x- --spk-prefix x- --utt-suffix=-n {d} {tmp_path}/x")
    x = tmp_path / "x"
    assert check(x) == []
    assert (x / "utt2spk").read_text() == "x-a-1-n x-a\nx-a-2-n x-a\nx-b-1-n x-b\n"
    assert (x / "segments").read_text().startswith("x-a-1-n r1 0.00 1.50\n") and content(x)[
        "wav.scp"
    ] == GOOD["wav.scp"]
    assert (
        x / "trials"
    ).read_text() == "x-a-1-n x-a-2-n target\nx-a-1-n x-b-1-n nontarget\nmodel7 x-b-1-n target\n"
    assert (x / "cmvn.scp").read_text() == "x-a c.ark:2\nx-b c.ark:300\n"
    assert (x / "phones.ctm").read_text().startswith("x-a-1-n 1 0.00 0.20 h#\n")


def test_copy_sorts_by_the_new_names(tmp_path):
    d = make(
        tmp_path / "d",
        segments=None,
        reco2dur=None,
        wav="a-1 w\na-2 w\nb-1 w\n",
        utt2spk="a-1 a\na-2 a\nb-1 b\n",
    )
    data = datadir_edit.load(d).rename({"a-1": "z", "a-2": "y", "b-1": "x"}.get, {"a": "2", "b": "1"}.get)
    data.write(tmp_path / "new")
    assert (tmp_path / "new" / "utt2spk").read_text() == "x 1\ny 2\nz 2\n"
    assert (tmp_path / "new" / "spk2utt").read_text() == "1 x\n2 y z\n"


def test_copy_makes_paths_absolute(tmp_path):
    d = make(tmp_path / "d", wav="r1 wav/r1.flac\nr2 sph2pipe x.sph |\n")
    shell(f"copy_data_dir.sh --wav-base {tmp_path}/corpus {d} {tmp_path}/copy")
    assert (
        tmp_path / "copy" / "wav.scp"
    ).read_text() == f"r1 {tmp_path}/corpus/wav/r1.flac\nr2 sph2pipe x.sph |\n"


def test_copy_leaves_nothing_of_an_older_content(tmp_path):
    d = make(tmp_path / "d")
    target = make(tmp_path / "t", utt2mic="a-1 far\n")
    (target / ".done.fbank").write_text("x\n")
    (target / "dropped.fbank").write_text("x y\n")
    shell(f"copy_data_dir.sh {d} {target}")
    assert {"utt2mic", ".done.fbank", "dropped.fbank"}.isdisjoint(os.listdir(target)) and (
        target / "notes.md"
    ).exists()


@pytest.mark.parametrize(
    "command",
    [
        "copy_data_dir.sh d d",
        "copy_data_dir.sh d d/../d",
        "combine_data.sh d d d",
        "subset_data_dir.sh d 1 ./d",
    ],
)
def test_source_and_destination_must_differ(command, tmp_path):
    d = make(tmp_path / "d")
    done = shell(command, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "same directory" in done.stderr and check(d) == []


@pytest.mark.parametrize(
    "tool",
    [
        "copy_data_dir.sh {d} {t}",
        "combine_data.sh {t} {d}",
        "subset_data_dir.sh {d} 1 {t}",
        "split_data.sh {d} 2",
    ],
)
def test_tools_refuse_a_malformed_utt2spk(tool, tmp_path):
    d = make(tmp_path / "d", utt2spk="a-1 a\na-2\nb-1 b\n")
    done = shell(tool.format(d=d, t=tmp_path / "t"), check=False)
    assert done.returncode == 1 and f"{d}/utt2spk:2: " in done.stderr
    assert not (tmp_path / "t").exists() and not (d / "split2").exists()


def test_combine_merges_and_divides_again(tmp_path):
    d = make(tmp_path / "d")
    for part, keep in (("one", "a-1\na-2\n"), ("two", "b-1\n")):
        (tmp_path / "list").write_text(keep)
        shell(f"subset_data_dir.sh --utt-list {tmp_path}/list {d} {tmp_path}/{part}")
    shell(f"combine_data.sh {tmp_path}/all {tmp_path}/one {tmp_path}/two")
    merged = content(tmp_path / "all")
    assert merged.pop("trials") == "a-1 a-2 target\nmodel7 b-1 target\n"  # the trial across the parts is gone
    assert merged == {name: text for name, text in GOOD.items() if name not in ("notes.md", "trials")}


def test_combine_leaves_out_what_only_some_have(tmp_path):
    one = make(tmp_path / "one")
    shell(f"copy_data_dir.sh --utt-prefix=x --spk-prefix=x {one} {tmp_path}/two && rm {tmp_path}/two/text")
    said = shell(f"combine_data.sh {tmp_path}/all {one} {tmp_path}/two").stdout.decode()
    assert "not combining text" in said and not (tmp_path / "all" / "text").exists()
    assert check(tmp_path / "all", need_text=False) == []
    assert len(datadir.read_table(tmp_path / "all" / "utt2spk")) == 6


def test_combine_refuses_one_name_for_two_things(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", wav="r1 other.wav\nr2 x\n")
    done = shell(f"combine_data.sh {tmp_path}/all {one} {two}", check=False)
    assert done.returncode == 1 and "'r1' has another line" in done.stderr and not (tmp_path / "all").exists()


def test_combine_drops_statistics_of_shared_speakers(tmp_path):
    one = make(tmp_path / "one")
    shell(
        f"copy_data_dir.sh --utt-suffix=x {one} {tmp_path}/two && "
        f"sed -i s/c.ark/d.ark/ {tmp_path}/two/cmvn.scp"
    )
    said = shell(f"combine_data.sh {tmp_path}/all {one} {tmp_path}/two").stdout.decode()
    assert "not combining cmvn.scp" in said and not (tmp_path / "all" / "cmvn.scp").exists()


# ---------------------------------------------------------------------------------------- choosing, splitting


def corpus(folder, speakers=6, each=5):
    """A directory of many utterances, with durations that fall with the number of the utterance."""
    keys = [(f"s{s}-{u}", f"s{s}") for s in range(speakers) for u in range(each)]
    folder.mkdir(parents=True)
    (folder / "utt2spk").write_text("".join(f"{key} {speaker}\n" for key, speaker in keys))
    (folder / "wav.scp").write_text("".join(f"{key} {key}.wav\n" for key, _ in keys))
    (folder / "utt2dur").write_text("".join(f"{key} {100 - i}.5\n" for i, (key, _) in enumerate(keys)))
    (folder / "trials").write_text("".join(f"{keys[0][0]} {key} nontarget\n" for key, _ in keys[1:]))
    shell("utt2spk_to_spk2utt utt2spk > spk2utt", cwd=folder)
    return folder


def chosen(options, source, target):
    shell(f"subset_data_dir.sh {options.format(d=source, t=target)}")
    assert check(target, need_feats=False, need_text=False) == []
    return list(datadir.read_table(target / "utt2spk"))


def test_subset_first_last_shortest(tmp_path):
    d = corpus(tmp_path / "d")
    everything = list(datadir.read_table(d / "utt2spk"))
    assert chosen("--first {d} 7 {t}", d, tmp_path / "t") == everything[:7]
    assert chosen("{d} --last 7 {t}", d, tmp_path / "t") == everything[-7:]
    assert chosen("--shortest {d} 4 {t}", d, tmp_path / "t") == everything[-4:]


def test_subset_by_speaker(tmp_path):
    d = corpus(tmp_path / "d")
    few = chosen("--per-spk {d} 2 {t}", d, tmp_path / "t")
    assert len(few) == 12 and {key[:2] for key in few} == {f"s{i}" for i in range(6)}
    assert len(chosen("--per-spk {d} 99 {t}", d, tmp_path / "t")) == 30
    whole = chosen("--speakers {d} 11 {t}", d, tmp_path / "t")
    assert len(whole) == 15 and len({key[:2] for key in whole}) == 3


def test_subset_is_seeded_and_stable(tmp_path):
    d = corpus(tmp_path / "d")
    first = chosen("{d} 10 {t}", d, tmp_path / "t")
    assert chosen("{d} 10 {t}", d, tmp_path / "t2") == first and len(set(first)) == 10
    assert chosen("--srand 1 {d} 10 {t}", d, tmp_path / "t3") != first
    assert first != list(datadir.read_table(d / "utt2spk"))[:10]
    # the draw of an utterance does not depend on the others
    rest = [key for key in datadir.read_table(d / "utt2spk") if key not in first]
    (tmp_path / "list").write_text("".join(key + "\n" for key in first + rest[:5]))
    chosen("--utt-list " + str(tmp_path / "list") + " {d} {t}", d, tmp_path / "smaller")
    assert chosen("{d} 10 {t}", tmp_path / "smaller", tmp_path / "t4") == first


def test_subset_by_lists(tmp_path):
    d = corpus(tmp_path / "d")
    (tmp_path / "list").write_text("s3 x\ns1\nnobody\n")
    assert {key[:2] for key in chosen(f"--spk-list {tmp_path}/list {{d}} {{t}}", d, tmp_path / "t")} == {
        "s1",
        "s3",
    }
    done = shell(f"subset_data_dir.sh --utt-list {tmp_path}/list {d} {tmp_path}/none", check=False)
    assert done.returncode == 1 and "names none" in done.stderr and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "wrong", ["{d} 31 {t}", "{d} 0 {t}", "{d} -1 {t}", "{d} x {t}", "{d} {t}", "--first --last {d} 3 {t}"]
)
def test_subset_refuses(wrong, tmp_path):
    d = corpus(tmp_path / "d")
    done = shell("subset_data_dir.sh " + wrong.format(d=d, t=tmp_path / "t"), check=False)
    assert done.returncode == 1 and done.stderr and not (tmp_path / "t").exists()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_split_loses_nothing_and_is_fair(sizes, data):
    utt2spk = {f"s{i:02}-{j}": f"s{i:02}" for i, size in enumerate(sizes) for j in range(size)}
    d = datadir_edit.DataDir("d", {"utt2spk": utt2spk})
    number = data.draw(st.integers(1, len(sizes)))
    parts = datadir_edit.split(d, number)
    assert [key for part in parts for key in part] == sorted(utt2spk) and len(parts) == number and all(parts)
    assert len({utt2spk[key] for key in utt2spk}) == sum(
        len({utt2spk[key] for key in part}) for part in parts
    )
    assert max(map(len, parts)) <= len(utt2spk) / number + 2 * max(sizes)
    parts = datadir_edit.split(d, number, per_utterance=True)
    assert [key for part in parts for key in part] == sorted(utt2spk)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_split_has_all_files_of_each_part(tmp_path):
    d = make(tmp_path / "d")
    shell(f"split_data.sh {d} 2 && split_data.sh --per-utt {d} 3")
    assert check(d / "split2" / "1") == [] and check(d / "split2" / "2") == []
    assert (d / "split2" / "2" / "wav.scp").read_text() == GOOD["wav.scp"].splitlines()[1] + "\n"
    assert (d / "split2" / "1" / "spk2utt").read_text() == "a a-1 a-2\n"
    assert (d / "split2" / "1" / "cmvn.scp").read_text() == "a c.ark:2\n"
    assert (d / "split3utt" / "2" / "spk2utt").read_text() == "a a-2\n"
    for name in ("feats.scp", "text", "segments", "utt2dur", "vad.scp"):
        assert "".join((d / "split2" / str(i) / name).read_text() for i in (1, 2)) == GOOD[name]
        assert "".join((d / "split3utt" / str(i) / name).read_text() for i in (1, 2, 3)) == GOOD[name]


def test_split_is_made_again_only_when_out_of_date(tmp_path):
    d = make(tmp_path / "d")
    shell(f"split_data.sh {d} 2")
    marker = d / "split2" / "1" / "marker"
    marker.touch()
    shell(f"split_data.sh {d} 2")
    assert marker.exists()
    status = os.stat(d / "text")
    (d / "text").write_text("a-1 changed\na-2 y\nb-1 z\n")
    os.utime(
        d / "text", ns=(status.st_atime_ns, status.st_mtime_ns - 10**12)
    )  # an older file counts as changed too
    shell(f"split_data.sh {d} 2")
    assert not marker.exists() and (d / "split2" / "1" / "text").read_text() == "a-1 changed\na-2 y\n"
    marker.touch()
    (d / "vad.scp").unlink()
    shell(f"split_data.sh {d} 2")
    assert not marker.exists() and not (d / "split2" / "1" / "vad.scp").exists()


def test_split_into_too_many_parts_is_refused(tmp_path):
    d = make(tmp_path / "d")
    done = shell(f"split_data.sh {d} 3", check=False)
    assert done.returncode == 1 and "cannot split 2 speakers into 3 parts; --per-utt" in done.stderr
    assert not (d / "split3").exists()
