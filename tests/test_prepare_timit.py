"""local/timit/prepare_data.py on trees in the layouts in which TIMIT is found: whole, partial and broken."""

import contextlib
import os
import sys

import numpy as np
import pytest
from corpora import aurora4, sounds, timit
from corpora.preparing import Preparation, contents, table
from helpers import ROOT, needs_data, shared_data, shell

from voxark import audio, datadir, datadir_check, tables

sys.path.insert(0, str(ROOT / "local" / "timit_phones"))
import phones as timit_phones  # noqa: E402

PROGRAM = ROOT / "local/timit/prepare_data.py"
CORE = sorted(name for names in timit.CORE_TEST.values() for name in names)
DEV = sorted(name for names in timit.DEV.values() for name in names)
prepare, refuse = Preparation(PROGRAM).run, Preparation(PROGRAM).refuse


def samples_of(entry):
    return audio.read_audio(open(entry, "rb").read(), entry)[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small tree of synthetic voices, which no test changes."""
    return timit.build(tmp_path_factory.mktemp("timit") / "small", source=False)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The tree of full size, which every test leaves as it was."""
    return timit.build_full(tmp_path_factory.mktemp("timit") / "full")


@pytest.fixture(scope="module")
def whole(full, tmp_path_factory):
    """What is prepared of it."""
    out = tmp_path_factory.mktemp("timit") / "whole"
    done = prepare(full, out)
    assert "WARNING" not in done.stderr
    assert "done 4288, failed 0" in done.stderr.splitlines()[-1]
    return out


@contextlib.contextmanager
def absent(path):
    """The tree without a file or folder."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@pytest.fixture
def tree(tmp_path):
    """A tree of three speakers with two sentences each, to be broken."""
    return timit.build(tmp_path / "tree", False, num_train=1, num_dev=0, num_test=2, sentences=2)


def place(folder, pattern):
    """The one file or folder that fits a pattern."""
    (found,) = folder.glob(pattern)
    return found


# ------------------------------------------------------------------------------------------- the whole corpus


def test_the_whole_corpus_has_the_published_counts(whole):
    speakers = {}
    for part, numbers in {"train": (462, 3696), "dev": (50, 400), "test": (24, 192)}.items():
        folder = whole / part
        assert not datadir_check.check(str(folder), need_feats=False)
        utt2spk = table(folder / "utt2spk")
        speakers[part] = sorted(set(utt2spk.values()))
        assert (len(speakers[part]), len(utt2spk)) == numbers
        assert all("_sa" not in key and key.startswith(f"{speaker}_") for key, speaker in utt2spk.items())
        assert table(folder / "spk2gender") == {speaker: speaker[0] for speaker in speakers[part]}
        assert len(table(folder / "dropped.prepare")) == 2 * numbers[0]
    assert speakers["test"] == CORE and speakers["dev"] == DEV
    dialects = table(whole / "test/utt2dialect")
    assert all(key[:5] in timit.CORE_TEST[dialect] for key, dialect in dialects.items())


def test_trials_are_all_pairs(whole):
    trials = datadir.read_trials(whole / "trials")
    utt2spk = table(whole / "test/utt2spk")
    assert len(trials) == 18336 == 192 * 191 // 2
    assert sum(trial.label == "target" for trial in trials) == 672 == 24 * 8 * 7 // 2
    assert len({frozenset(trial[:2]) for trial in trials}) == 18336
    assert all((utt2spk[t.enroll] == utt2spk[t.test]) == (t.label == "target") for t in trials)
    models = table(whole / "enroll_map")
    assert models.keys() == {trial.enroll for trial in trials}
    assert all(key == value for key, value in models.items())


def test_what_lacks_is_named(full, tmp_path):
    core, speaker = full / "TIMIT/TEST/DR3/MJMP0", full / "TIMIT/TRAIN/DR2"
    speaker = sorted(speaker.iterdir())[0]
    sentence = sorted((full / "TIMIT/TEST/DR8/FMLD0").glob("SX*.WAV"))[0]
    with absent(core), absent(speaker), absent(sentence), absent(sentence.with_suffix(".PHN")):
        with absent(sentence.with_suffix(".WRD")):
            message = refuse(full, tmp_path / "data")
    assert (
        "461 train speakers, expected 462" in message and "3,688 train utterances, expected 3,696" in message
    )
    assert "183 test utterances, expected 192" in message and "dev speakers" not in message
    assert "test/dr3/mjmp0" in message and "train/dr2 has 75 of 76 speakers" in message
    assert "test/dr8/fmld0 has 4 of 5 sx sentences" in message and "--partial=true" in message
    with absent(core):
        done = prepare(full, tmp_path / "data", "--partial=true")
    assert "WARNING" in done.stderr and "test/dr3/mjmp0" in done.stderr
    assert len(table(tmp_path / "data/test/spk2utt")) == 23


@pytest.mark.parametrize("kind, message", [
    (".WAV", "is missing, though"), (".PHN", "no .phn file beside it"), (".WRD", "no .wrd or .txt file"),
])  # fmt: skip
def test_a_missing_file_beside_others_is_named(tree, tmp_path, kind, message):
    path = place(tree, f"TIMIT/TRAIN/DR?/*/SI651{kind}")
    with absent(path), absent(path.with_suffix(".TXT")):
        error = refuse(tree, tmp_path / "data")
    assert message in error and str(path.with_suffix("")) in error


# --------------------------------------------------------------------------------------------------- layouts


def test_all_layouts_give_the_same_data(small, tmp_path):
    prepare(small, tmp_path / "ldc", "--partial=true")
    expected = contents(tmp_path / "ldc", without=("wav.scp",))
    entries = table(tmp_path / "ldc/test/wav.scp")
    assert expected.keys() >= {
        f"{p}/{f}" for p in ("train", "dev", "test") for f in ("phones.ctm", "text", "utt2dur")
    }
    for layout in timit.LAYOUTS:
        tree = timit.build(tmp_path / "corpora" / layout, source=False, layout=layout)
        prepare(tree, tmp_path / layout, "--partial=true")
        assert contents(tmp_path / layout, without=("wav.scp",)) == expected, layout
        for key, entry in table(tmp_path / layout / "test/wav.scp").items():
            assert entry.startswith(f"{tmp_path}/corpora/{layout}")
            assert np.array_equal(samples_of(entry), samples_of(entries[key]))
    assert table(tmp_path / "lower/test/wav.scp")["felc0_si640"].endswith("/timit/test/dr1/felc0/si640.wav")
    assert table(tmp_path / "double/test/wav.scp")["felc0_si640"].endswith(
        "/data/TEST/DR1/FELC0/SI640.WAV.wav"
    )


def test_labels_are_those_of_the_files(small, tmp_path):
    prepare(small / "TIMIT", tmp_path, "--partial=true")
    sentence = timit.synthetic_speakers(2, 2)["fsya1"]["si640"]().cut(3.0)  # whom the builder makes felc0
    assert np.array_equal(samples_of(table(tmp_path / "test/wav.scp")["felc0_si640"]), sentence.samples)
    rows = [row for row in datadir.read_ctm(tmp_path / "test/phones.ctm") if row.key == "felc0_si640"]
    written = (small / "TIMIT/TEST/DR1/FELC0/SI640.PHN").read_text().split()
    assert [row.label for row in rows] == written[2::3]
    assert [round(16000 * row.start) for row in rows] == [int(word) for word in written[0::3]]
    assert [round(16000 * (row.start + row.duration)) for row in rows] == [
        int(word) for word in written[1::3]
    ]
    words = (small / "TIMIT/TEST/DR1/FELC0/SI640.WRD").read_text().split()[2::3]
    assert table(tmp_path / "test/text")["felc0_si640"].split() == words
    assert float(table(tmp_path / "test/utt2dur")["felc0_si640"]) == pytest.approx(
        int(written[-2]) / 16000, rel=1e-5
    )
    assert table(tmp_path / "test/utt2dialect")["felc0_si640"] == "dr1"


def test_mixed_cases_links_and_stray_files(small, tmp_path):
    for name in ("Train", "TEST"):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / name).symlink_to(small / "TIMIT" / name.upper(), target_is_directory=True)
    for name in (".DS_Store", "README", "SPKRINFO.TXT"):
        (tmp_path / "tree" / name).write_text("not TIMIT's")
    done = prepare(tmp_path / "tree", tmp_path / "data", "--partial=true")
    assert "3 other files are ignored" in done.stderr
    prepare(small, tmp_path / "other", "--partial=true")
    assert contents(tmp_path / "data", ["wav.scp"]) == contents(tmp_path / "other", ["wav.scp"])


def test_words_come_from_the_txt_file_where_there_is_no_wrd(tree, tmp_path):
    for path in tree.rglob("*.WRD"):
        path.unlink()
    path = place(tree, "TIMIT/TEST/DR1/FELC0/SI640.TXT")
    path.write_text('0 33600 Don\'t they, "milk" -- a well-known cow?\r\n')
    prepare(tree, tmp_path / "data", "--partial=true")
    assert table(tmp_path / "data/test/text")["felc0_si640"] == "don't they milk a well-known cow"


@needs_data("timit_sample")
def test_recorded_speech_keeps_its_hand_labels(tmp_path):
    source = shared_data("timit_sample")
    tree = timit.build(tmp_path / "tree", source, num_train=2, num_dev=0, num_test=2, max_seconds=99)
    prepare(tree, tmp_path / "data", "--partial=true")
    names = table(tmp_path / "data/train/spk2utt")
    assert names.keys() <= table(source / "all/spk2gender").keys()
    expected = {}
    for row in datadir.read_ctm(source / "all/phones.ctm"):
        expected.setdefault(row.key.replace("-", "_"), []).append(row)
    found = {}
    for row in datadir.read_ctm(tmp_path / "data/train/phones.ctm"):
        found.setdefault(row.key, []).append(row)
    for key, rows in found.items():
        assert [row.label for row in rows] == [row.label for row in expected[key]]
        np.testing.assert_allclose(
            [row.start for row in rows], [row.start for row in expected[key]], atol=1e-4
        )
        assert table(tmp_path / "data/train/text")[key] == table(source / "all/text")[key.replace("_", "-")]


# ---------------------------------------------------------------------------------------------- broken trees


@pytest.mark.parametrize("line, message", [
    ("1000 2000", "expected `start end phone`"), ("a b h#", "expected `start end phone`"),
    ("-5 2000 h#", "expected `start end phone`"), ("0 2000 xx", "'xx' is none of TIMIT's 61 phones"),
    ("2000 1000 h#", "a phone from sample 2000 to 1000"), ("99999999 99999999999 aa", "in a recording of"),
])  # fmt: skip
def test_a_bad_line_of_phones_is_named(tree, tmp_path, line, message):
    path = place(tree, "TIMIT/TEST/DR1/FELC0/SI640.PHN")
    path.write_text(f"0 1600 h#\n{line}\n")
    error = refuse(tree, tmp_path / "data")
    assert f"{path}:2: " in error and message in error and "--partial=true leaves it out" in error
    done = prepare(tree, tmp_path / "data", "--partial=true")
    assert f"left out: {path}:2: " in done.stderr
    assert f"{path}:2: " in table(tmp_path / "data/test/dropped.prepare")["felc0_si640"]
    assert "felc0_si640" not in table(tmp_path / "data/test/wav.scp")


def test_phones_beyond_the_recording_are_cut_and_empty_ones_left_out(tree, tmp_path):
    path = place(tree, "TIMIT/TEST/DR1/FELC0/SI640.PHN")
    end = int(path.read_text().split()[-2])
    path.write_text(f"0 1600 h#\n1600 1600 epi\n1600 {end + 50} AA\n")
    prepare(tree, tmp_path / "data", "--partial=true")
    rows = [row for row in datadir.read_ctm(tmp_path / "data/test/phones.ctm") if row.key == "felc0_si640"]
    assert [row.label for row in rows] == ["h#", "aa"]
    assert rows[1].start + rows[1].duration == pytest.approx(end / 16000, abs=1e-5)


@pytest.mark.parametrize("data, message", [
    (sounds.sphere(np.zeros(16000, np.int16))[:-100], "truncated SPHERE: its header announces 32000 bytes"),
    (sounds.wav(np.zeros(16000, np.int16))[:-100], "truncated wav: its header announces 32000 bytes"),
    (sounds.sphere(np.zeros(0, np.int16)), "holds no samples"),
    (sounds.sphere(np.zeros(500, np.int16))[:700].replace(b"end_head", b"        "), "no end_head"),
    (sounds.sphere(np.zeros(500, np.int16)).replace(b"rate -i 16000", b"rate -i 8000 "), "8000 Hz"),
    (b"", "the audio file is empty"), (b"<html>not found", "not an audio file"), (None, "no such file"),
])  # fmt: skip
def test_a_broken_recording_is_named(tree, tmp_path, data, message):
    path = place(tree, "TIMIT/TRAIN/DR?/*/SI651.WAV")
    timit.replace(path, data)
    if data is None:
        path.symlink_to(tmp_path / "nowhere")
    error = refuse(tree, tmp_path / "data")
    assert f"{path}: " in error and message in error
    done = prepare(tree, tmp_path / "data", "--partial=true")
    assert f"left out: {path}: " in done.stderr
    (dropped,) = (
        why for why in table(tmp_path / "data/train/dropped.prepare").values() if "sa sentence" not in why
    )
    assert message in dropped


def test_several_broken_files_are_counted(tree, tmp_path):
    for path in tree.glob("TIMIT/TEST/*/*/SI*.WAV"):
        timit.replace(path, b"")
    assert "(and 3 more broken files)" in refuse(tree, tmp_path / "data")


def test_an_unreadable_file_and_folder_are_named(tree, tmp_path):
    path = place(tree, "TIMIT/TRAIN/DR?/*/SI651.WAV")
    for broken in (path, path.parent):
        broken.chmod(0)
        try:
            if (
                os.geteuid() == 0
            ):  # who may read everything: try it as somebody else, who finds the folders closed
                from voxark import corpora
                from voxark.errors import VoxarkError

                look = (
                    corpora.inspect_audio
                    if broken == path
                    else lambda folder: corpora.find_files(folder, bool)
                )
                os.seteuid(65534)
                try:
                    with pytest.raises(VoxarkError) as caught:
                        look(broken)
                finally:
                    os.seteuid(0)
                assert str(broken) in str(caught.value) and "ermission denied" in str(caught.value)
            else:
                error = refuse(tree, tmp_path / "data")
                assert str(broken) in error and "ermission denied" in error
        finally:
            broken.chmod(0o755)


def test_two_of_a_kind_are_refused(tree, tmp_path):
    path = place(tree, "TIMIT/TEST/DR1/FELC0/SI640.WAV")
    twin = path.with_name("si640.wav")
    twin.write_bytes(path.read_bytes())
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert str(path) in error and str(twin) in error and "differ in capital letters only" in error
    twin.unlink()
    copy = tree / "copy/test/dr1/felc0/si640.wav"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert "felc0_si640 is there twice" in error and str(copy) in error and str(path) in error


def test_a_test_speaker_in_train_is_refused(tree, tmp_path):
    wrong = place(tree, "TIMIT/TRAIN/DR?") / "FELC0"
    place(tree, "TIMIT/TEST/DR1/FELC0").rename(wrong)
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert str(wrong) in error and "felc0 is a speaker of TEST" in error


def test_folders_that_hold_no_timit(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no TIMIT in this folder" in refuse(tmp_path / "empty", tmp_path / "data")
    assert f"{tmp_path}/nowhere: no such folder" in refuse(tmp_path / "nowhere", tmp_path / "data")
    (tmp_path / "file").write_text("x")
    assert "not a folder" in refuse(tmp_path / "file", tmp_path / "data")


# -------------------------------------------------------------------------------------------------- the rest


def test_a_partial_tree_without_core_speakers_is_tested_on_the_others(tree, tmp_path):
    for number, path in enumerate(sorted(tree.glob("TIMIT/TEST/*/*"))):
        path.rename(path.with_name(f"{'FM'[number]}XYZ{number}"))
    prepare(tree, tmp_path, "--partial=true")
    assert sorted(table(tmp_path / "test/spk2utt")) == ["fxyz0", "mxyz1"]
    assert not (tmp_path / "dev").exists()
    shell_path = place(tree, "TIMIT/TEST/*/MXYZ1")
    shell(f"rm -r '{shell_path}'")
    assert (
        "1 test speakers, 2 at least are needed"
        in prepare(tree, tmp_path, "--partial=true", check=False).stderr
    )


def test_a_second_run_replaces_the_first_or_leaves_it(small, tree, tmp_path):
    out = tmp_path / "data"
    prepare(small, out, "--partial=true")
    first = contents(out)
    prepare(small, out, "--partial=true")
    assert contents(out) == first
    assert prepare(tree, out, check=False).returncode == 1
    assert contents(out) == first
    (out / "train/feats.scp").write_text("of an older run\n")
    (out / "mine").write_text("of the user\n")
    prepare(tree, out, "--partial=true")
    assert not (out / "train/feats.scp").exists() and not (out / "dev").exists() and (out / "mine").exists()
    assert len(table(out / "test/spk2utt")) == 2 and not list(out.glob(".prepare*"))


def test_compressed_recordings_go_through_sph2pipe(tree, tmp_path):
    path = place(tree, "TIMIT/TRAIN/DR?/*/SI651.WAV")
    samples = samples_of(path)
    timit.replace(path, sounds.sphere(samples, aurora4.SHORTEN))
    error = refuse(tree, tmp_path / "data", "--partial=true", "--sph2pipe=no-such-program")
    assert str(path) in error and "'no-such-program' is needed" in error
    program = aurora4.fake_sph2pipe(tmp_path / "bin")
    prepare(tree, tmp_path / "data", "--partial=true", f"--sph2pipe={program}")
    scp = tmp_path / "data/train/wav.scp"
    (key,) = (key for key, entry in table(scp).items() if entry == f"{program} -f wav -p {path} |")
    with tables.open_reader("wav", f"scp:{scp}") as waves:
        found = dict(waves)
    assert np.array_equal(np.ravel(found[key][1]), samples)


def test_the_lists_of_speakers():
    for dialect, names in timit.CORE_TEST.items():
        assert sorted(name[0] for name in names) == ["f", "m", "m"], dialect
    alphabetical = """fdhc0 felc0 fjlm0 fmgd0 fmld0 fnlp0 fpas0 fpkt0 mbpm0 mcmj0 mdab0 mgrt0
        mjdh0 mjln0 mjmp0 mklt0 mlll0 mlnt0 mnjm0 mpam0 mtas1 mtls0 mwbt0 mwew0"""
    assert CORE == alphabetical.split()
    assert len(CORE) == 24 and len(set(DEV)) == 50 and not set(CORE) & set(DEV)
    assert sum(timit.NUM_TRAIN.values()) == 462 and sum(timit.NUM_TEST.values()) == 168


def test_the_maps_of_phones_are_those_of_the_one_folding():
    for number, name in ((39, "timit_phones_39.map"), (3, "timit_phones_3.map")):
        classes = table(ROOT / "conf" / name)
        folded = {phone: timit_phones.fold(phone, number) for phone in timit_phones.PHONES}
        assert classes == {phone: label for phone, label in folded.items() if label}
        assert len(set(classes.values())) == number
