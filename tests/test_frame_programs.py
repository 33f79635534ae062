"""Programs that choose or count frames: select-voiced-frames, subsample-feats, feat-to-len, feat-to-dim."""

import kaldiio
import numpy as np
import pytest
from helpers import golden, load_ark, needs_golden, run, save_ark, shell

from voxark.errors import VoxarkError
from voxark.feat.select import select_voiced, subsample

MFCC = f"ark:{golden('feat/mfcc_default.ark')}"


def random_features(num_frames, dim=3, seed=0):
    return np.random.default_rng(seed).normal(size=(num_frames, dim)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ functions


def test_select_voiced_keeps_the_marked_rows():
    x = random_features(4)
    assert np.array_equal(select_voiced(x, [0, 1, 0, 1]), x[[1, 3]])
    assert select_voiced(x, np.zeros(4)).shape == (0, 3)
    with pytest.raises(VoxarkError, match="4 frames, the voice activity decisions 3"):
        select_voiced(x, [0, 1, 0])
    with pytest.raises(VoxarkError, match="decision of frame 2 is 0.5"):
        select_voiced(x, [0, 1, 0.5, 1])
    with pytest.raises(VoxarkError, match="decision of frame 0 is nan"):
        select_voiced(x, [np.nan, 1, 0, 1])


def test_subsample_takes_or_repeats():
    x = random_features(7)
    assert np.array_equal(subsample(x, 3), x[[0, 3, 6]])
    assert np.array_equal(subsample(x, 3, 2), x[[2, 5]])
    assert np.array_equal(subsample(x, -2), x[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]])
    assert subsample(x, 2, 7).shape == (0, 3)


@pytest.mark.parametrize("n, offset", [(0, 0), (2, -1), (-2, 1)])
def test_wrong_subsampling_is_refused(n, offset):
    with pytest.raises(VoxarkError, match="--n=0" if n == 0 else "--offset"):
        subsample(random_features(3), n, offset)


# ------------------------------------------------------------------------------------- select-voiced-frames


@needs_golden
def test_selected_frames_are_kaldis_bytes(tmp_path):
    run(
        "select-voiced-frames",
        f"ark:{golden('feat/mfcc20_30.ark')}",
        f"ark:{golden('feat/vad_sre.ark')}",
        f"ark:{tmp_path}/voiced.ark",
    )
    assert (tmp_path / "voiced.ark").read_bytes() == golden("feat/voiced.ark").read_bytes()


def test_select_names_each_reason(tmp_path):
    x = random_features(4)
    feats = save_ark(
        tmp_path / "f.ark",
        {k: x for k in "abcd"} | {"e": np.zeros((0, 0), np.float32), "f": random_features(4, 2)},
    )
    vad = save_ark(
        tmp_path / "v.ark",
        {
            "a": np.float32([1, 0, 0, 1]),
            "b": np.float32([1, 0, 0]),
            "d": np.zeros(4, np.float32),
            "f": np.ones(4, np.float32),
        },
    )
    done = run("select-voiced-frames", feats, vad, f"ark:{tmp_path}/o.ark")
    assert list(load_ark(tmp_path / "o.ark")) == ["a"]
    for text in (
        "b: features have 4 frames, the voice activity decisions 3",
        "c: no voice activity decisions",
        "d: no frame was judged voiced",
        "e: no frames",
        "f: dimension 2, but a has 3",
        "done 1, failed 5",
    ):
        assert text in done.stderr


def test_nothing_selected_is_a_failure(tmp_path):
    feats = save_ark(tmp_path / "f.ark", {"a": random_features(3)})
    vad = save_ark(tmp_path / "v.ark", {"a": np.zeros(3, np.float32)})
    assert run("select-voiced-frames", feats, vad, f"ark:{tmp_path}/o.ark", check=False).returncode == 1


def test_a_truncated_table_of_decisions_ends_the_program(tmp_path):
    feats = save_ark(tmp_path / "f.ark", {"a": random_features(3), "b": random_features(3)})
    save_ark(tmp_path / "v.ark", {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)})
    (tmp_path / "v.ark").write_bytes((tmp_path / "v.ark").read_bytes()[:-2])
    done = run("select-voiced-frames", feats, f"ark:{tmp_path}/v.ark", f"ark:{tmp_path}/o.ark", check=False)
    assert done.returncode == 1 and "v.ark" in done.stderr and "truncated" in done.stderr
    assert not (tmp_path / "o.ark").exists()


# ------------------------------------------------------------------------------------------ subsample-feats


@needs_golden
def test_subsampled_frames_are_kaldis_bytes(tmp_path):
    run("subsample-feats", "--n=3", MFCC, f"ark:{tmp_path}/s.ark")
    assert (tmp_path / "s.ark").read_bytes() == golden("feat/subsampled.ark").read_bytes()


def test_subsample_program(tmp_path):
    x = random_features(5)
    source = save_ark(tmp_path / "f.ark", {"a": x, "b": x[:1], "c": np.zeros((0, 0), np.float32)})
    done = run("subsample-feats", "--n=2", "--offset=1", source, f"ark:{tmp_path}/o.ark")
    assert np.array_equal(load_ark(tmp_path / "o.ark")["a"], x[1::2])
    assert "b: 1 frames: the output would have none" in done.stderr and "done 1, failed 2" in done.stderr
    done = run("subsample-feats", "--n", "-3", source, f"ark:{tmp_path}/o.ark")
    assert np.array_equal(load_ark(tmp_path / "o.ark")["b"], x[[0, 0, 0]])
    assert "6 input frames and 18 output frames" in done.stderr
    assert run("subsample-feats", "--n=0", source, "ark:-", check=False).returncode == 1


# -------------------------------------------------------------------------------------- lengths, dimensions


@needs_golden
def test_lengths_are_kaldis_text():
    assert run("feat-to-len", MFCC, "ark,t:-").stdout == golden("feat/len.txt").read_bytes()
    total = sum(int(line.split()[1]) for line in golden("feat/len.txt").read_text().splitlines())
    assert run("feat-to-len", MFCC).stdout == f"{total}\n".encode()


def test_lengths_and_dimensions(tmp_path):
    source = save_ark(
        tmp_path / "f.ark",
        {"a": random_features(5, 3), "b": np.zeros((0, 0), np.float32), "c": random_features(2, 4)},
    )
    assert run("feat-to-len", source, "ark,t:-").stdout == b"a 5 \nb 0 \nc 2 \n"
    assert run("feat-to-len", source).stdout == b"7\n"
    assert run("feat-to-dim", source, "-").stdout == b"3\n"
    assert run("feat-to-dim", source, "ark,t:-").stdout.split() == b"a 3 b 0 c 4".split()


def test_no_input_at_all(tmp_path):
    (tmp_path / "f.ark").write_bytes(b"")
    empty = run("feat-to-dim", f"ark:{tmp_path}/f.ark", "-", check=False)
    assert empty.returncode == 1 and "no features" in empty.stderr
    assert run("feat-to-len", f"ark:{tmp_path}/f.ark", check=False).returncode == 1
    absent = run("feat-to-len", f"ark:{tmp_path}/absent.ark", check=False)
    assert absent.returncode == 1 and "absent.ark" in absent.stderr


# ---------------------------------------------------------------------------------------------------- pipes


@needs_golden
def test_programs_in_a_pipe(tmp_path):
    shell(
        f"copy-feats {MFCC} ark:- | subsample-feats --n=3 ark:- ark:- | copy-feats ark:- ark:{tmp_path}/o.ark"
    )
    assert (tmp_path / "o.ark").read_bytes() == golden("feat/subsampled.ark").read_bytes()
    counted = shell(f"compute-vad {MFCC} ark:- | select-voiced-frames {MFCC} ark:- ark:- | feat-to-len ark:-")
    voiced = kaldiio.load_ark(str(golden("feat/vad_default.ark")))
    assert int(counted.stdout) == sum(decisions.sum() for _, decisions in voiced)


@pytest.mark.parametrize(
    "command",
    [
        "subsample-feats --n=-5 {} ark,t:-",
        "feat-to-len {} ark,t:-",
        "compute-vad {} ark:- | select-voiced-frames {} ark:- ark,t:-",
    ],
)
def test_head_is_silent(command, tmp_path):
    source = save_ark(tmp_path / "f.ark", {f"u{i:05d}": 20 + 9 * random_features(2, 40, i) for i in range(4000)})
    done = shell(command.format(source, source) + " | head -n 1", check=False)
    assert done.stdout.startswith(b"u0000") and done.stdout.count(b"\n") == 1
    assert "ERROR" not in done.stderr and "Broken" not in done.stderr and "Exception" not in done.stderr


def test_the_dimension_of_the_first_of_a_long_pipe(tmp_path):
    source = save_ark(tmp_path / "f.ark", {f"u{i:05d}": random_features(50, 40, i) for i in range(200)})
    assert shell(f"feat-to-dim ark:'copy-feats {source} ark:- |' -").stdout == b"40\n"
