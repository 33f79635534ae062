"""The feature steps on real programs: outputs, ledgers, the 95 % guard, second runs, any --nj, Kaldi's
launchers."""

import math
import os
import random
import re
import struct
import subprocess
import time
import wave

import numpy as np
import pytest
from helpers import ROOT, environment, forked_environment

from voxark import datadir, tables
from voxark.datadir_check import check

RATE = 16000
FBANK = "--num-mel-bins=23\n--dither=0\n"
MFCC = "--num-ceps=13\n--dither=1\n"  # with dither: the noise must not depend on the split into jobs
VAD = "--vad-energy-threshold=5.5\n--vad-energy-mean-scale=0.5\n"

# The documented contract of Kaldi's run.pl, in short: its quoting, no pipefail, JOB replaced everywhere.
RUN_PL = """#!/usr/bin/env python3
import re, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    del words[:2]
name, first, last = re.fullmatch(r"(\\w+)=(\\d+):(\\d+)", words.pop(0)).groups()
quoted = [w if re.fullmatch(r"\\S+", w) else f"'{w}'" if '"' in w else f'"{w}"' for w in words[1:]]
failed = 0
for job in range(int(first), int(last) + 1):
    log, command = words[0].replace(name, str(job)), " ".join(quoted).replace(name, str(job))
    with open(log, "w") as out:
        out.write("# " + command + "\\n")
    failed += subprocess.run(["bash"], input=f"( {command}) 2>>{log} >>{log}", text=True).returncode != 0
sys.exit(1 if failed else 0)
"""


def write_wav(path, seconds, seed):
    """Noise bursts and pauses: some frames voiced, some not."""
    draw = random.Random(seed)
    samples = [
        int(draw.gauss(0, 3000 if math.sin(7 * i / RATE) > 0 else 5)) for i in range(int(seconds * RATE))
    ]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(RATE)
        out.writeframes(struct.pack(f"<{len(samples)}h", *(max(-32768, min(32767, s)) for s in samples)))


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for i in range(8):
        write_wav(folder / f"{i}.wav", 0.3 + 0.05 * i, i)
    write_wav(folder / "short.wav", 0.01, 99)
    write_wav(folder / "long.wav", 3.0, 100)
    return folder


def make(folder, audio, speakers=4, each=2, bad=()):
    """A data directory over the generated audio; the keys in ``bad`` have a file that is too short or
    absent."""
    folder.mkdir(parents=True)
    keys = [
        (f"s{s}-{u}", f"s{s}", 2 * (ord(s) - ord("a")) + u)
        for s in "abcdefghijklmnopqrstuvwxyz"[:speakers]
        for u in range(each)
    ]
    files = {"absent": "/no/such/file.wav", "short": f"{audio}/short.wav"}
    with open(folder / "wav.scp", "w") as wavs, open(folder / "utt2spk", "w") as utt2spk:
        for key, speaker, i in keys:
            wavs.write(f"{key} {files[bad[key]] if key in bad else f'{audio}/{i % 8}.wav'}\n")
            utt2spk.write(f"{key} {speaker}\n")
    spk2utt = datadir.invert_utt2spk(datadir.read_table(folder / "utt2spk"))
    datadir.write_lines(folder / "spk2utt", (" ".join([s, *us]) for s, us in spk2utt.items()))
    for name, text in (("fbank", FBANK), ("mfcc", MFCC), ("vad", VAD)):
        (folder.parent / f"{name}.conf").write_text(text)
    return folder


def step(command, cwd, check=True, **env):
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=100,
        env=forked_environment(OPENBLAS_NUM_THREADS="1", **env),
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def read(scp, kind="mat"):
    with tables.open_reader(kind, f"scp:{scp}") as table:
        return {key: np.array(value) for key, value in table}


@pytest.fixture(scope="module")
def made(tmp_path_factory, audio):
    """A directory on which all steps have run once, through run.py."""
    folder = tmp_path_factory.mktemp("made")
    make(folder / "d", audio)
    step(
        "make_mfcc.sh --nj 3 --mfcc-config mfcc.conf d && compute_vad.sh --nj 2 --vad-config vad.conf d && "
        "compute_cmvn_stats.sh --nj 2 d",
        folder,
    )
    return folder


# ---------------------------------------------------------------------------------------- what the steps make


def test_features_are_those_of_the_program(made):
    d = made / "d"
    feats = read(d / "feats.scp")
    assert list(feats) == list(datadir.read_table(d / "utt2spk"))
    step(
        f"compute-mfcc --config=mfcc.conf --compress=true scp:d/wav.scp ark,scp:{made}/x.ark,{made}/x.scp",
        made,
    )
    alone = read(made / "x.scp")
    assert all(np.array_equal(feats[key], alone[key]) for key in feats)
    assert check(d, need_text=False) == []  # sorted, complete, consistent


def test_paths_are_absolute_and_frame_counts_written(made):
    d = made / "d"
    for name in ("feats.scp", "vad.scp", "cmvn.scp"):
        assert all(entry.startswith(f"{d}/data/") for entry in datadir.read_table(d / name).values())
    lengths = {key: len(x) for key, x in read(d / "feats.scp").items()}
    assert datadir.read_table(d / "utt2num_frames") == lengths
    assert datadir.read_table(d / "utt2dur")["sa-1"] == pytest.approx(0.35)


def test_vad_and_cmvn_are_those_of_the_programs(made):
    d = made / "d"
    step(
        f"compute-vad --config=vad.conf scp:d/feats.scp ark,scp:{made}/v.ark,{made}/v.scp && "
        f"compute-cmvn-stats --spk2utt=ark:d/spk2utt scp:d/feats.scp ark,scp:{made}/c.ark,{made}/c.scp",
        made,
    )
    for name, kind in (("vad", "vec"), ("cmvn", "mat")):
        ours, alone = read(d / f"{name}.scp", kind), read(made / f"{name[0]}.scp", kind)
        assert list(ours) == list(alone) and all(np.array_equal(ours[key], alone[key]) for key in ours)
    assert (
        len(read(d / "cmvn.scp")) == 4
        and 0 < np.mean(np.concatenate(list(read(d / "vad.scp", "vec").values()))) < 1
    )


def test_no_ledger_and_no_scraps_where_nothing_was_dropped(made):
    assert not list((made / "d").glob("dropped.*")) and not list((made / "d/log").glob("failed.*"))
    assert {path.name for path in (made / "d/log").iterdir()} == {
        f"{name}_d.{job}.log"
        for name, nj in (("make_mfcc", 3), ("compute_vad", 2), ("compute_cmvn_stats", 2))
        for job in range(1, nj + 1)
    }


@pytest.mark.parametrize("nj", [1, 3, 30])
def test_any_number_of_jobs_gives_the_same(nj, made, audio, tmp_path):
    """No utterance is lost, and dither does not depend on the split."""
    d = make(tmp_path / "d", audio)
    done = step(f"make_mfcc.sh --nj {nj} --mfcc-config mfcc.conf --compress false d", tmp_path)
    step(f"compute-mfcc --config=mfcc.conf scp:d/wav.scp ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp", tmp_path)
    ours, alone = read(d / "feats.scp"), read(tmp_path / "x.scp")
    assert list(ours) == list(alone) and all(np.array_equal(ours[key], alone[key]) for key in ours)
    assert ("reducing the number of jobs from 30 to 8" in done.stdout) == (nj == 30)


def test_cmvn_by_utterance_and_few_speakers(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=2, each=3)
    step("make_fbank.sh --nj 1 --fbank-config fbank.conf d", tmp_path)
    done = step("compute_cmvn_stats.sh --nj 4 d", tmp_path)
    assert "reducing the number of jobs from 4 to 2" in done.stdout and list(read(d / "cmvn.scp")) == [
        "sa",
        "sb",
    ]
    step("compute_cmvn_stats.sh --nj 4 --per-utt true d", tmp_path)
    assert list(read(d / "cmvn.scp")) == list(read(d / "feats.scp"))


def test_segments(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=1, each=3)
    (d / "wav.scp").write_text(f"rec {audio}/long.wav\n")
    (d / "segments").write_text("sa-0 rec 0 1\nsa-1 rec 1 2.5\nsa-2 rec 2.5 -1\n")
    step("make_fbank.sh --nj 3 --fbank-config fbank.conf d", tmp_path)
    whole_seconds = datadir.read_table(d / "utt2dur")
    assert whole_seconds["sa-1"] == pytest.approx(1.5) and whole_seconds["sa-2"] == pytest.approx(0.5)
    step(
        f"compute-fbank --config=fbank.conf scp:d/wav.scp ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp", tmp_path
    )
    segment, whole = read(d / "feats.scp")["sa-1"], read(tmp_path / "x.scp")["rec"]
    assert np.abs(segment - whole[100 : 100 + len(segment)]).max() < 0.2  # compressed, hence not equal


def test_explicit_folders_and_a_folder_with_a_blank(audio, tmp_path):
    d = make(tmp_path / "my data" / "d", audio)
    step("make_mfcc.sh --nj 2 --mfcc-config mfcc.conf --write-utt2dur false d 'my logs' 'my feats'", d.parent)
    assert (d.parent / "my logs/make_mfcc_d.2.log").exists() and (
        d.parent / "my feats/raw_mfcc_d.2.ark"
    ).exists()
    assert len(read(d / "feats.scp")) == 8 and not (d / "utt2dur").exists() and not (d / "log").exists()
    step("compute_vad.sh --nj 1 --vad-config vad.conf d && compute_cmvn_stats.sh --nj 1 d", d.parent)
    assert check(d, need_text=False) == []


def test_default_configurations_are_found_from_any_folder(audio, tmp_path):
    make(tmp_path / "d", audio)
    (tmp_path / "elsewhere").mkdir()
    step("make_mfcc.sh --nj 1 ../d && compute_vad.sh --nj 1 ../d", tmp_path / "elsewhere")
    assert f"--config={ROOT}/conf/mfcc.conf" in (tmp_path / "d/log/make_mfcc_d.1.log").read_text()


@pytest.mark.parametrize("with_segments", [False, True])
def test_kaldis_run_pl_can_take_the_place_of_run_py(with_segments, audio, tmp_path):
    d = make(tmp_path / "d", audio)
    if with_segments:
        keys = list(datadir.read_table(d / "utt2spk"))
        (d / "segments").write_text("".join(f"{key} {key} 0 0.2\n" for key in keys))
    (tmp_path / "run.pl").write_text(RUN_PL)
    (tmp_path / "run.pl").chmod(0o755)
    cmd = f"--nj 2 --cmd '{tmp_path}/run.pl --mem 4G'"
    step(
        f"make_mfcc.sh {cmd} --mfcc-config mfcc.conf d && compute_vad.sh {cmd} --vad-config vad.conf d && "
        f"compute_cmvn_stats.sh {cmd} d",
        tmp_path,
    )
    assert check(d, need_text=False) == []


def test_the_head_of_a_pipe_that_dies_fails_the_step_under_run_pl_too(audio, tmp_path):
    """run.pl sets no pipefail; the one utterance that is lost would pass for a dropped one."""
    d = make(tmp_path / "d", audio, speakers=20)
    keys = list(datadir.read_table(d / "utt2spk"))
    (d / "segments").write_text("".join(f"{key} {key} 0 0.2\n" for key in keys))
    for name, text in (
        ("run.pl", RUN_PL),
        (
            "extract-segments",
            f"#!/bin/sh\nhead -n -1 $3 >$3.cut; {ROOT}/bin/extract-segments $1 $2 $3.cut $4; exit 1\n",
        ),
    ):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    done = step(
        f"PATH={tmp_path}/bin:$PATH; make_mfcc.sh --nj 1 --cmd run.pl --mfcc-config mfcc.conf d",
        tmp_path,
        check=False,
    )
    assert done.returncode == 1 and "jobs failed, and 1 of 40 utterances have no result" in done.stderr
    assert not (d / "feats.scp").exists()


# -------------------------------------------------------------------------------------------- what goes wrong


def test_dropped_utterances_are_named_with_the_reason(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=20, bad={"sd-1": "short"})
    done = step("make_fbank.sh --nj 2 --fbank-config fbank.conf d", tmp_path)
    ledger = (d / "dropped.fbank").read_text()
    assert re.fullmatch(r"sd-1 .*(short|few).*\n", ledger)
    assert "1 of 40 utterances dropped, named with the reason in d/dropped.fbank" in done.stdout
    assert len(read(d / "feats.scp")) == 39 and "sd-1" not in datadir.read_table(d / "utt2num_frames")
    # the steps that follow go on with what is there, and drop nothing more
    step("compute_vad.sh --nj 1 --vad-config vad.conf d && compute_cmvn_stats.sh --nj 1 d", tmp_path)
    assert (
        len(read(d / "vad.scp", "vec")) == 39
        and not (d / "dropped.vad").exists()
        and not (d / "dropped.cmvn").exists()
    )


@pytest.mark.parametrize(
    "nj,kind,why",
    [(1, "absent", "/no/such/file.wav"), (20, "absent", "/no/such/file.wav"), (20, "short", "too few")],
)
def test_the_number_of_jobs_decides_nothing_about_drops(nj, kind, why, audio, tmp_path):
    """A job all of whose utterances are bad ends with status 1; that is no reason to lose the others."""
    d = make(tmp_path / "d", audio, speakers=10, bad={"sc-0": kind})
    step(f"make_fbank.sh --nj {nj} --fbank-config fbank.conf d", tmp_path)
    assert len(read(d / "feats.scp")) == 19
    ledger = (d / "dropped.fbank").read_text()
    assert ledger.startswith("sc-0 ") and why in ledger and ledger.count("\n") == 1


def test_more_than_5_percent_fail(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=10, bad={"sc-0": "absent", "sc-1": "short"})
    done = step("make_fbank.sh --nj 1 --fbank-config fbank.conf d", tmp_path, check=False)
    assert done.returncode == 1 and "more than 5 % of the utterances were dropped" in done.stderr
    assert len((d / "dropped.fbank").read_text().splitlines()) == 2
    assert not (d / "feats.scp").exists() and not (d / ".done.fbank").exists()
    # cured, it runs again and the ledger goes
    (d / "wav.scp").write_text(
        (d / "wav.scp").read_text().replace("/no/such/file", f"{audio}/1").replace("short", "2")
    )
    step("make_fbank.sh --nj 1 --fbank-config fbank.conf d", tmp_path)
    assert len(read(d / "feats.scp")) == 20 and not (d / "dropped.fbank").exists()


def test_a_recording_that_cannot_be_read_drops_its_segments(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=20)
    keys = list(datadir.read_table(d / "utt2spk"))
    (d / "wav.scp").write_text(f"good {audio}/long.wav\nlost /no/such/file.wav\n")
    (d / "segments").write_text(
        "".join(
            f"{key} {'lost' if key == 'se-1' else 'good'} {i / 20} {i / 20 + 0.3}\n"
            for i, key in enumerate(keys)
        )
    )
    step("make_fbank.sh --nj 5 --fbank-config fbank.conf d", tmp_path)
    assert re.fullmatch(r"se-1 recording lost: .*/no/such/file.wav.*\n", (d / "dropped.fbank").read_text())


@pytest.mark.parametrize("program", ["exit 1", "kill -9 $$", "cat >/dev/null; exit 0"])
def test_a_program_that_dies_fails_the_step(program, audio, tmp_path):
    """Also one that writes nothing and claims success: its utterances vanished without a reason."""
    d = make(tmp_path / "d", audio)
    (tmp_path / "compute-fbank").write_text(f"#!/usr/bin/env bash\n{program}\n")
    (tmp_path / "compute-fbank").chmod(0o755)
    done = step(
        f"PATH={tmp_path}:$PATH; make_fbank.sh --fbank-config fbank.conf d </dev/null", tmp_path, check=False
    )
    assert done.returncode == 1 and not (d / "feats.scp").exists() and not (d / ".done.fbank").exists()
    assert (
        "jobs failed, and 8 of 8 utterances have no result" in done.stderr
        or "without a reason" in done.stderr
    )


def test_one_job_of_several_dies(audio, tmp_path):
    d = make(tmp_path / "d", audio)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "compute-fbank").write_text(
        f'#!/usr/bin/env bash\ncase "$*" in */3/wav.scp*) kill -9 $$ ;; esac\n'
        f'exec {ROOT}/bin/compute-fbank "$@"\n'
    )
    (tmp_path / "bin" / "compute-fbank").chmod(0o755)
    bad = f"PATH={tmp_path}/bin:$PATH; "
    command = "make_fbank.sh --nj 4 --fbank-config fbank.conf d"
    done = step(bad + command, tmp_path, check=False)
    assert (
        done.returncode == 1 and "jobs failed, and 2 of 8 utterances have no result; logs are" in done.stderr
    )
    assert not (d / "feats.scp").exists() and not (d / "data/raw_fbank_d.3.scp").exists()
    step(command, tmp_path)
    assert len(read(d / "feats.scp")) == 8


@pytest.mark.parametrize(
    "break_it,message",
    [
        ("sed -i 's/ sb$/ sb x/' d/utt2spk", "d/utt2spk:3: expected"),
        ("rm d/wav.scp", "d/wav.scp: no such file"),
        ("rm d/spk2utt", "d/spk2utt: no such file"),
        ("sed -i 2d d/wav.scp", "lacks a line in d/wav.scp"),
        ("rm fbank.conf", "fbank.conf: no such file"),
        ("echo --bogus=1 >> fbank.conf", "bogus"),
        ("rm -r d", "d: no such directory"),
    ],
)
def test_bad_input_names_the_place(break_it, message, audio, tmp_path):
    make(tmp_path / "d", audio)
    done = step(f"{break_it}; make_fbank.sh --fbank-config fbank.conf d", tmp_path, check=False)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "d/feats.scp").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "d a b c",
        "--nj 0 d",
        "--nj x d",
        "--nj 'a[$(touch HACK)]' d",
        "--bogus 1 d",
        "--nj d",
        "--compress maybe d",
        "--cmd '' d",
        "--PATH /x d",
        "d '$(touch HACK)'",
        "d 'x;touch HACK'",
        "d exp/JOB",
    ],
)
def test_wrong_use(arguments, audio, tmp_path):
    make(tmp_path / "d", audio)
    done = step(f"make_fbank.sh --nj 1 --fbank-config fbank.conf {arguments}", tmp_path, check=False)
    assert (
        done.returncode == 1
        and done.stderr
        and not (tmp_path / "HACK").exists()
        and not (tmp_path / "d/feats.scp").exists()
    )


@pytest.mark.parametrize("name", ["make_fbank.sh", "make_mfcc.sh", "compute_vad.sh", "compute_cmvn_stats.sh"])
def test_help(name, tmp_path):
    done = step(f"{name} --help", tmp_path)
    assert f"{name} [options] <data-dir>" in done.stdout and "e.g.:" in done.stdout and done.stderr == ""


def test_two_directories_of_one_name_do_not_share_archives(audio, tmp_path):
    """raw_fbank_d.1.ark of one would silently become the features of the other."""
    make(tmp_path / "a" / "d", audio), make(tmp_path / "b" / "d", audio)
    step("make_fbank.sh --nj 1 --fbank-config a/fbank.conf a/d log feats", tmp_path)
    before = read(tmp_path / "a/d/feats.scp")
    done = step("make_fbank.sh --nj 1 --fbank-config a/fbank.conf b/d log feats", tmp_path, check=False)
    assert done.returncode == 1 and "holds the fbank of" in done.stderr
    assert all(np.array_equal(x, before[key]) for key, x in read(tmp_path / "a/d/feats.scp").items())


# ------------------------------------------------------------------------------------------------ second runs

ALL = (
    "make_mfcc.sh --nj 1 --mfcc-config mfcc.conf d; compute_vad.sh --nj 1 --vad-config vad.conf d; "
    "compute_cmvn_stats.sh --nj 1 d"
)


def ran(command, cwd):
    """The names of the steps that did something."""
    done = step(f"set -e; {command}", cwd)
    done_before = set(re.findall(r"^(\S+): \S+ is up to date", done.stdout, re.M))
    return {name for name in re.findall(r"^\S*/(\S+\.sh) ", done.stdout, re.M) if name not in done_before}


def test_repaired_audio_is_read_again(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=1)
    own = tmp_path / "own.wav"
    write_wav(own, 0.5, 3)
    (d / "wav.scp").write_text(f"sa-0 {own}\nsa-1 {audio}/1.wav\n")
    make_it = "make_mfcc.sh --nj 1 --mfcc-config mfcc.conf d"
    assert ran(make_it, tmp_path) == {"make_mfcc.sh"} and ran(make_it, tmp_path) == set()
    write_wav(own, 0.8, 3)
    assert ran(make_it, tmp_path) == {"make_mfcc.sh"}
    assert datadir.read_table(d / "utt2num_frames", datadir.parse_text)["sa-0"] == "78"


STEPS = {"make_mfcc.sh", "compute_vad.sh", "compute_cmvn_stats.sh"}


def test_second_runs_do_nothing(audio, tmp_path):
    d = make(tmp_path / "d", audio, speakers=20, bad={"sc-0": "short"})
    assert ran(ALL, tmp_path) == STEPS
    stamps = {path: path.stat().st_mtime_ns for path in d.rglob("*.ark")}
    start = time.time()
    assert ran(ALL, tmp_path) == set() and time.time() - start < 3
    assert ran(ALL.replace("--nj 1", "--nj 5"), tmp_path) == set()
    # fix_data_dir.sh takes out what was dropped; that undoes nothing
    step("fix_data_dir.sh d", tmp_path)
    assert len(datadir.read_table(d / "wav.scp")) == 39 and ran(ALL, tmp_path) == set()
    assert stamps == {path: path.stat().st_mtime_ns for path in d.rglob("*.ark")}


def test_what_has_changed_is_made_again(audio, tmp_path):
    make(tmp_path / "d", audio)
    ran(ALL, tmp_path)
    for change, again in (
        ("echo --num-mel-bins=20 >> mfcc.conf", STEPS),
        (
            "echo --vad-frames-context=1 >> vad.conf; rm d/data/cmvn_d.1.ark",
            {"compute_vad.sh", "compute_cmvn_stats.sh"},
        ),
        ("rm d/vad.scp", {"compute_vad.sh"}),
        ("sed -i '1s/[0-9].wav/7.wav/' d/wav.scp", STEPS),
        ("head -n 7 d/feats.scp > x; mv x d/feats.scp", STEPS),
        ("sed -i 's/sa$/sb/' d/utt2spk; utt2spk_to_spk2utt d/utt2spk > d/spk2utt", {"compute_cmvn_stats.sh"}),
    ):
        assert ran(f"{change}; {ALL}", tmp_path) == again, change
        assert check(tmp_path / "d", need_text=False) == []
    assert ran(ALL, tmp_path) == set()


def test_other_features_take_the_place_of_the_first(audio, tmp_path):
    d = make(tmp_path / "d", audio)
    mfcc, fbank = (
        "make_mfcc.sh --nj 1 --mfcc-config mfcc.conf d",
        "make_fbank.sh --nj 1 --fbank-config fbank.conf d",
    )
    assert ran(f"{mfcc}; {fbank}", tmp_path) == {"make_mfcc.sh", "make_fbank.sh"}
    assert read(d / "feats.scp")["sa-0"].shape[1] == 23 and (d / ".backup/feats.scp").exists()
    assert ran(mfcc, tmp_path) == {"make_mfcc.sh"} and read(d / "feats.scp")["sa-0"].shape[1] == 13


def test_an_interrupted_step_leaves_nothing_that_looks_done(audio, tmp_path):
    d = make(tmp_path / "d", audio)
    (tmp_path / "compute-fbank").write_text("#!/usr/bin/env bash\necho $$ > pid; exec sleep 60\n")
    (tmp_path / "compute-fbank").chmod(0o755)
    env = environment()
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    job = subprocess.Popen(
        ["bash", "-c", "exec make_fbank.sh --nj 1 --fbank-config fbank.conf d"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 20
    while not (tmp_path / "pid").exists() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(job.pid, 2)  # Ctrl-C goes to the step and to the launcher
    assert job.wait(timeout=20) in (130, -2)
    job.stderr.close()
    time.sleep(0.3)
    pid = (tmp_path / "pid").read_text().strip()
    stat = f"/proc/{pid}/stat"
    assert not os.path.exists(stat) or open(stat).read().rpartition(")")[2].split()[0] == "Z"
    assert not (d / "feats.scp").exists() and not (d / ".done.fbank").exists()
    step("make_fbank.sh --nj 1 --fbank-config fbank.conf d", tmp_path)
    assert len(read(d / "feats.scp")) == 8
