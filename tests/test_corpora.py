"""What the preparations of corpora share: finding files, looking into audio, counts, folders in one piece."""

import io
import logging
import sys

import numpy as np
import pytest
from corpora import sounds

from voxark import corpora
from voxark.errors import VoxarkError


def is_audio(path):
    return path.endswith(".wav")


def test_files_are_found_in_any_letters_through_links_and_loops(tmp_path):
    (tmp_path / "Data/Deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "Data/Deep/A.WAV").touch()
    (tmp_path / "Data/note.txt").touch()
    (tmp_path / "elsewhere/b.Wav").touch()
    (tmp_path / "Data/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "Data/loop").symlink_to(tmp_path / "Data", target_is_directory=True)
    found, num_others = corpora.find_files(tmp_path / "Data", is_audio)
    names = {"deep/a.wav": tmp_path / "Data/Deep/A.WAV", "link/b.wav": tmp_path / "Data/link/b.Wav"}
    assert found == names and num_others == 1
    assert corpora.find_folder(tmp_path, "DATA") == tmp_path / "Data"
    assert corpora.find_folder(tmp_path, "data2") is None
    (tmp_path / "data").mkdir()
    with pytest.raises(VoxarkError, match="Data and .*data differ in capital letters only"):
        corpora.find_folder(tmp_path, "DATA")


def test_text_files_of_any_age(tmp_path):
    path = tmp_path / "text"
    for data, lines in ((b"\xef\xbb\xbfone\r\ntwo\r\n", ["one", "two"]), (b"caf\xe9\n", ["caf\u00e9"])):
        path.write_bytes(data)
        assert corpora.read_lines(path) == lines
    path.write_bytes(b"")
    with pytest.raises(VoxarkError, match="text: the file is empty"):
        corpora.read_lines(path)
    with pytest.raises(VoxarkError, match="nowhere: no such file"):
        corpora.read_lines(tmp_path / "nowhere")


def flac(samples):
    soundfile = pytest.importorskip("soundfile")
    out = io.BytesIO()
    soundfile.write(out, samples, sounds.RATE, format="FLAC")
    return out.getvalue()


@pytest.mark.parametrize("encode", [sounds.wav, sounds.sphere, flac])
def test_audio_is_looked_into(tmp_path, encode):
    path = tmp_path / "audio"
    samples = np.random.default_rng(0).integers(-9000, 9000, 20000).astype(np.int16)
    path.write_bytes(encode(samples))
    info = corpora.inspect_audio(path)
    assert info == (16000, 1, 20000, False) and info.seconds == 1.25
    assert corpora.wav_entry(path, info) == str(path)
    path.write_bytes(encode(samples)[:-3000])
    with pytest.raises(VoxarkError, match="audio: truncated"):
        corpora.inspect_audio(path)
    path.write_bytes(encode(samples))
    with pytest.raises(
        VoxarkError, match="audio: a sampling rate of 16000 Hz, where this corpus has 8000 Hz"
    ):
        corpora.inspect_audio(path, rate=8000)


def test_sph2pipe_is_named_as_every_folder_finds_it(tmp_path, monkeypatch):
    compressed = corpora.AudioInfo(16000, 1, 100, True)
    (tmp_path / "sph2pipe").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    entry = corpora.wav_entry("a b.wv1", compressed, "./sph2pipe")
    assert entry == f"{tmp_path}/sph2pipe -f wav -p '{tmp_path}/a b.wv1' |"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert corpora.wav_entry("/c.wv1", compressed) == "sph2pipe -f wav -p /c.wv1 |"


def test_counts_are_compared(caplog, monkeypatch):
    corpora.check_counts("corpus", [("speakers", 3, 3), ("utterances", 300, range(200, sys.maxsize))])
    wrong = [("speakers", 2, 3), ("utterances", 100, range(200, sys.maxsize)), ("words", 1, 1)]
    message = "corpus: 2 speakers, expected 3; 100 utterances, expected 200 or more; missing: a, b"
    with pytest.raises(VoxarkError) as caught:
        corpora.check_counts("corpus", wrong, ["a", "b"])
    assert str(caught.value).startswith(message)
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(logging.getLogger("voxark"), "propagate", True)
        corpora.check_counts("corpus", wrong, ["a", "b"], partial=True)
    assert message in caplog.text
    assert corpora.some(range(7), 3) == "0, 1, 2 and 4 more"


def test_a_folder_changes_as_a_whole_or_not_at_all(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/old").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "mine").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        with corpora.staging(tmp_path, ["train", "gone"]) as folder:
            (folder / "train").mkdir()
            raise KeyboardInterrupt
    assert sorted(tmp_path.rglob("*")) == before
    with corpora.staging(tmp_path, ["train", "gone"]) as folder:
        (folder / "train").mkdir()
        (folder / "train/new").touch()
        (folder / "trials").touch()
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert names == {"train", "train/new", "trials", "mine"}
    with pytest.raises(VoxarkError, match="mine"):
        with corpora.staging(tmp_path / "mine"):
            pass


def test_trials_need_both_kinds(tmp_path):
    from voxark.trials.make import all_trials

    assert corpora.write_trials(tmp_path, all_trials({"a1": "a", "a2": "a", "b1": "b"})) == (1, 2)
    assert (tmp_path / "trials").read_text() == "a1 a2 target\na1 b1 nontarget\na2 b1 nontarget\n"
    assert (tmp_path / "enroll_map").read_text() == "a1 a1\na2 a2\n"
    (tmp_path / "trials").unlink()
    with pytest.raises(VoxarkError, match="0 target and 1 nontarget trials"):
        corpora.write_trials(tmp_path, all_trials({"a1": "a", "b1": "b"}))
    assert not (tmp_path / "trials").exists()
