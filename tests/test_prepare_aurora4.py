"""local/aurora4/prepare_data.py on trees in ELRA's layout: whole, partial and broken."""

import itertools
import os
import sys
from collections import Counter

import numpy as np
import pytest
from corpora import aurora4, sounds
from corpora.preparing import Preparation, contents, table
from helpers import ROOT

from voxark import datadir, datadir_check, tables

sys.path.insert(0, str(ROOT / "local" / "aurora4"))
import aurora4_files  # noqa: E402
from aurora4_trials import sample_trials  # noqa: E402

PROGRAM = ROOT / "local/aurora4/prepare_data.py"
FEW = ("01", "03", "08")  # conditions of the trees that are broken
prepare, refuse = Preparation(PROGRAM).run, Preparation(PROGRAM).refuse


def waves(scp):
    """{key: samples} of a wav.scp, read as every program reads it."""
    with tables.open_reader("wav", f"scp:{scp}") as reader:
        return {key: np.ravel(samples).astype(np.int16) for key, (_, samples) in reader}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small tree of synthetic voices in all conditions, which no test changes."""
    folder = tmp_path_factory.mktemp("aurora4") / "small"
    return aurora4.build(folder, False, num_train=2, num_test=2, sentences=2, seconds=0.3, num_multi=3)


@pytest.fixture(scope="module")
def wsj0(tmp_path_factory):
    return aurora4.build_wsj0(tmp_path_factory.mktemp("aurora4") / "wsj0")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The tree of full size, which every test leaves as it was."""
    return aurora4.build_full(tmp_path_factory.mktemp("aurora4") / "full")


@pytest.fixture(scope="module")
def whole(full, tmp_path_factory):
    """What is prepared of it."""
    out = tmp_path_factory.mktemp("aurora4") / "whole"
    done = prepare(full, out)
    assert "WARNING" not in done.stderr
    assert "done 9240, failed 0" in done.stderr.splitlines()[-1]
    return out


def build(folder, **options):
    """A tree of a few files, to be broken."""
    return aurora4.build(folder, False, 1, 2, 2, conditions=FEW, seconds=0.2, **options)


@pytest.fixture
def tree(tmp_path):
    return build(tmp_path / "tree")


# ------------------------------------------------------------------------------------------- the whole corpus


def test_the_whole_corpus_has_the_published_counts(whole):
    for part, speakers in (("train", aurora4.DEV_SPEAKERS), ("test", aurora4.TEST_SPEAKERS)):
        assert not datadir_check.check(str(whole / part), need_feats=False, need_text=False)
        utt2spk, noises = table(whole / part / "utt2spk"), table(whole / part / "utt2noise")
        assert len(utt2spk) == 4620 == 330 * 14 and set(utt2spk.values()) == set(speakers)
        assert all(key.startswith(speaker) for key, speaker in utt2spk.items())
        assert set(noises.values()) == set("clean car babble restaurant street airport train".split())
        assert set(table(whole / part / "utt2mic").values()) == {"wv1", "wv2"}
        assert table(whole / part / "utt2uniq") == {key: key.split("_")[0] for key in utt2spk}
        assert set(Counter(key.split("_")[1] for key in utt2spk).values()) == {330}
        assert set(Counter(noises.values()).values()) == {660}
        assert (whole / part / "dropped.prepare").read_bytes() == b""


def test_trials_are_the_same_number_of_each_pair_of_conditions(whole):
    trials = datadir.read_trials(whole / "trials")
    utt2spk = table(whole / "test/utt2spk")
    counts, enrolled = Counter(), Counter()
    for enroll, test, label in trials:
        (one, first), (other, second) = enroll.split("_"), test.split("_")
        assert one != other and (utt2spk[enroll] == utt2spk[test]) == (label == "target")
        counts[tuple(sorted((first, second))), label] += 1
        enrolled[first < second] += first != second
    pairs = list(itertools.combinations_with_replacement(sorted(aurora4.CONDITIONS), 2))
    expected = {"target": 200, "nontarget": 2000}
    assert counts == {(pair, label): number for pair in pairs for label, number in expected.items()}
    assert len({frozenset(trial[:2]) for trial in trials}) == 231000 == len(trials)
    assert 0.48 < enrolled[True] / enrolled.total() < 0.52
    assert table(whole / "enroll_map").keys() == {trial.enroll for trial in trials}


def test_what_lacks_is_named(full, tmp_path):
    path = full / "dev0330_car/dev_0330_car_wv2/22g_16k"
    aside = path.with_name("aside")
    path.rename(aside)
    listing = full / "lists/test07_0330_16k.list"
    listing.rename(full / "aside")
    try:
        error = refuse(full, tmp_path / "data")
    finally:
        aside.rename(path)
        (full / "aside").rename(listing)
    assert (
        "4,587 train utterances, expected 4,620" in error and "4,290 test utterances, expected 4,620" in error
    )
    assert "kinds of noise in test" not in error  # train noise is there with the other microphone
    assert "the lists test07_0330_16k.list" in error
    assert (
        "lists/devtest09_0330_16k.list:265: dev_0330_car_wv2/22g_16k/22gc0000.wv2 is not on the disk" in error
    )


# ----------------------------------------------------------------------------------------- audio and layouts


def test_headerless_samples_are_read_with_a_header_before_them(small, tmp_path):
    prepare(small, tmp_path, "--partial=true")
    for part in ("train", "test"):
        found = waves(tmp_path / part / "wav.scp")
        assert len(found) == 2 * 2 * 14
        labels = table(tmp_path / part / "utt2noise"), table(tmp_path / part / "utt2mic")
        for key, samples in found.items():
            stem, condition = key.split("_")
            path = small / aurora4.path_of(part, condition, stem[:3], stem)
            assert np.array_equal(samples, np.frombuffer(path.read_bytes(), ">i2"))
            assert (labels[0][key], labels[1][key]) == aurora4.CONDITIONS[condition]
            assert float(table(tmp_path / part / "utt2dur")[key]) == pytest.approx(len(samples) / 16000)


def test_a_tree_without_lists_is_found_by_its_folders(small, tmp_path):
    prepare(small, tmp_path / "listed", "--partial=true")
    plain = tmp_path / "PLAIN"
    plain.mkdir()
    for path in small.iterdir():
        if path.name.startswith(("dev", "test")):
            (plain / path.name.upper()).symlink_to(path, target_is_directory=True)
    twin = plain / "other/test_clean_wv1/440_8k/440c0201.wv1"  # of the version at 8 kHz
    twin.parent.mkdir(parents=True)
    twin.write_bytes(b"\0" * 800)
    prepare(plain, tmp_path / "plain", "--partial=true")
    assert contents(tmp_path / "plain", ["wav.scp"]) == contents(tmp_path / "listed", ["wav.scp"])


def test_other_files_and_capitals(tree, tmp_path):
    prepare(tree, tmp_path / "one", "--partial=true")
    (tree / ".DS_Store").write_bytes(b"\0")
    twin = tree / "test_clean_wv1/440_8k/440c0201.wv1"  # the corpus has a version at 8 kHz, too
    twin.parent.mkdir()
    twin.write_bytes(b"\0" * 8000)
    path = tree / "test_clean_wv1/440_16k/440c0201.wv1"
    path.rename(path.with_name("440C0201.WV1"))
    text = (tree / "lists/test01_0330_16k.list").read_text()
    (tree / "lists/test01_0330_16k.list").write_text(f";; a comment\r\n{text.upper()}".replace("/", "\\"))
    done = prepare(tree, tmp_path / "two", "--partial=true")
    assert "2 other files are ignored" in done.stderr
    assert contents(tmp_path / "two", ["wav.scp"]) == contents(tmp_path / "one", ["wav.scp"])
    assert table(tmp_path / "two/test/wav.scp")["440c0201_01"].endswith("/440C0201.WV1 |")


def encode(part, condition, samples):
    """SPHERE as of WSJ: condition 08 compressed, the rest not, of either order of bytes; 03 as wav."""
    if condition == "08":
        return sounds.sphere(samples, aurora4.SHORTEN)
    return sounds.wav(samples) if condition == "03" else sounds.sphere(samples, big_endian=part == "test")


def test_sphere_and_wav_are_read_and_compressed_sphere_needs_sph2pipe(tmp_path):
    tree = build(tmp_path / "tree", encode=encode)
    first = tree / aurora4.path_of("train", "08", "050", "050c0201")
    error = refuse(tree, tmp_path / "data", "--partial=true", "--sph2pipe=no-such-program")
    assert f"{first}: a compressed SPHERE file" in error and "'no-such-program' is needed" in error
    program = aurora4.fake_sph2pipe(tmp_path / "bin")
    from helpers import environment

    env = environment()
    env["PATH"] = f"{program.parent}{os.pathsep}{env['PATH']}"
    prepare(tree, tmp_path / "data", "--partial=true", env=env)
    entries = table(tmp_path / "data/train/wav.scp")
    assert entries["050c0201_08"] == f"sph2pipe -f wav -p {first} |"
    assert entries["050c0201_01"] == str(tree / aurora4.path_of("train", "01", "050", "050c0201"))
    prepare(tree, tmp_path / "data", "--partial=true", f"--sph2pipe={program}")
    plain = build(tmp_path / "plain")
    for part in ("train", "test"):
        for key, samples in waves(tmp_path / "data" / part / "wav.scp").items():
            stem, condition = key.split("_")
            data = (plain / aurora4.path_of(part, condition, stem[:3], stem)).read_bytes()
            assert np.array_equal(samples, np.frombuffer(data, ">i2")), key


def test_the_order_of_bytes(tmp_path):
    tree = build(tmp_path / "tree", encode=lambda part, condition, samples: samples.astype("<i2").tobytes())
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert str(tree / "dev0330_clean") in error and "the samples look little-endian" in error
    prepare(tree, tmp_path / "data", "--partial=true", "--raw-byte-order=little")
    path = tree / aurora4.path_of("test", "03", "440", "440c0201")
    found = waves(tmp_path / "data/test/wav.scp")["440c0201_03"]
    assert np.array_equal(found, np.frombuffer(path.read_bytes(), "<i2"))
    error = refuse(build(tmp_path / "big"), tmp_path / "other", "--partial=true", "--raw-byte-order=little")
    assert "the samples look big-endian" in error


def test_names_with_blanks(tree, tmp_path):
    tree.rename(tmp_path / "a 'b' $c")
    prepare(tmp_path / "a 'b' $c", tmp_path / "out put", "--partial=true")
    assert len(waves(tmp_path / "out put/test/wav.scp")) == 12


# ----------------------------------------------------------------------------------------- WSJ's documents


def test_words_and_genders_of_wsj0(small, wsj0, tmp_path):
    done = prepare(small, tmp_path, "--partial=true", f"--wsj0={wsj0}", "--train-multi=true")
    text = table(tmp_path / "test/text")
    assert text["440c0202_07"] == "THE CHIEF EXECUTIVE OF NUMBER 2 COMMA SAID SO PERIOD"
    assert text.keys() == table(tmp_path / "test/utt2spk").keys()
    assert table(tmp_path / "train/spk2gender") == {"050": "f", "051": "m"}
    assert "train_multi: no text and no spk2gender" in done.stderr  # WSJ0 has it, this small one does not


def test_a_wsj0_without_the_transcripts_is_refused(tree, tmp_path):
    (tmp_path / "wsj0").mkdir()
    error = refuse(tree, tmp_path / "data", "--partial=true", f"--wsj0={tmp_path / 'wsj0'}")
    assert "no .dot file in it has a transcript" in error


@pytest.mark.parametrize("text, words", [
    ("[loud_breath] The 'Frisco ~ bank . said", "THE 'FRISCO BANK SAID"),
    ("\\*emph\\* *mis* <over> len:gthen st!ress", "EMPH MIS OVER LENGTHEN STRESS"),
    ('"DOUBLE-QUOTE a well-known -part part- %PERCENT', "DOUBLE-QUOTE A WELL-KNOWN PART PART PERCENT"),
])  # fmt: skip
def test_marks_of_wsj_are_taken_off(tmp_path, text, words):
    path = tmp_path / "440c0200.dot"
    path.write_text(f"{text} (440C0201)\nnot wanted (440c0202)\n")
    found = aurora4_files.read_transcripts([aurora4_files.Tree(tmp_path)], {"440c0201"})
    assert found == {"440c0201": words}


# ----------------------------------------------------------------------------------------- multi-condition


def test_the_multi_condition_training(small, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for path in small.iterdir():
        if path.name != "lists":
            (tree / path.name).symlink_to(path)
    (tree / "lists").mkdir()
    for path in (small / "lists").iterdir():
        (tree / "lists" / path.name).write_bytes(path.read_bytes())
    extra = tree / "other/011_16k/011c0201.wv2"  # the published list has a sentence with both microphones
    extra.parent.mkdir(parents=True)
    extra.write_bytes((small / "train_multi/011_16k/011c0201.wv1").read_bytes())
    with open(tree / "lists/training_multicondition_16k.list", "a") as file:
        file.write("other/011_16k/011c0201.wv2\n")
    done = prepare(tree, tmp_path / "data", "--partial=true", "--train-multi=true")
    assert "7 train_multi utterances, expected 7,138" in done.stderr
    folder = tmp_path / "data/train_multi"
    utt2spk = table(folder / "utt2spk")
    assert {"011c0201_wv1", "011c0201_wv2", "012c0202_wv1"} <= utt2spk.keys() and len(utt2spk) == 7
    assert set(utt2spk.values()) == {"011", "012", "013"}
    assert not (folder / "utt2noise").exists() and not (folder / "utt2mic").exists()
    assert not datadir_check.check(str(folder), need_feats=False, need_text=False)
    prepare(tree, tmp_path / "data", "--partial=true")
    assert not folder.exists()


def test_the_multi_condition_list_may_lack(tree, tmp_path):
    error = refuse(tree, tmp_path / "data", "--partial=true", "--train-multi=true")
    assert "no training_multicondition_16k.list" in error


# ---------------------------------------------------------------------------------------------- broken trees


BREAKS = [
    (lambda data: data[:-1], "cut within a sample"),
    (lambda data: data[: len(data) // 4 * 2], "truncated: 1600 samples, where this sentence has 3200"),
    (lambda data: b"", "the audio file is empty"),
    (lambda data: sounds.sphere(np.frombuffer(data, ">i2"))[:-400], "truncated SPHERE"),
    (lambda data: sounds.sphere(np.frombuffer(data, ">i2")).replace(b"-i 16000", b"-i 8000 "), "8000 Hz"),
]


@pytest.mark.parametrize("change, message", BREAKS)
def test_a_broken_recording_is_named(tree, tmp_path, change, message):
    path = tree / aurora4.path_of("test", "03", "441", "441c0202")
    path.write_bytes(change(path.read_bytes()))
    error = refuse(tree, tmp_path / "data")
    assert f"{path}: " in error and message in error
    prepare(tree, tmp_path / "data", "--partial=true")
    assert message in table(tmp_path / "data/test/dropped.prepare")["441c0202_03"]
    assert len(table(tmp_path / "data/test/wav.scp")) == 11


def test_a_missing_recording_is_named(tree, tmp_path):
    (tree / aurora4.path_of("train", "08", "050", "050c0201")).unlink()
    place = (
        f"{tree}/lists/devtest08_0330_16k.list:1: dev_0330_clean_wv2/050_16k/050c0201.wv2 is not on the disk"
    )
    assert place in refuse(tree, tmp_path / "data")
    prepare(tree, tmp_path / "data", "--partial=true")
    assert table(tmp_path / "data/train/dropped.prepare") == {"050c0201_08": place}


@pytest.mark.parametrize("line, message", [
    ("test_car_wv1/readme.txt", "expected a path like"), ("test_car_wv1/440c020.wv1", "expected a path like"),
    ("test_babble_wv1/440_16k/440c0201.wv1", "is there already"),
])  # fmt: skip
def test_a_bad_line_of_a_list_is_named(tree, tmp_path, line, message):
    path = tree / "lists/test03_0330_16k.list"
    path.write_text(f"{path.read_text()}{line}\n")
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert f"{path}:5: " in error and message in error


def test_two_copies_are_refused(tree, tmp_path):
    path = tree / aurora4.path_of("test", "03", "440", "440c0201")
    copy = tree / "copy" / aurora4.path_of("test", "03", "440", "440c0201")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    error = refuse(tree, tmp_path / "data", "--partial=true")
    assert "is there twice" in error and str(path) in error and str(copy) in error
    copy.unlink()
    second = tree / "copy/test03_0330_16k.list"
    second.write_text("x\n")
    assert "two lists of one name" in refuse(tree, tmp_path / "data", "--partial=true")


def test_folders_that_hold_no_aurora(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no Aurora-4 here" in refuse(tmp_path / "empty", tmp_path / "data", "--partial=true")
    assert "no such folder" in refuse(tmp_path / "nowhere", tmp_path / "data")
    assert "must be positive" in refuse(tmp_path / "empty", tmp_path / "data", "--targets-per-pair=0")


def test_a_tree_with_one_test_speaker_is_no_test(tmp_path):
    tree = aurora4.build(tmp_path / "tree", False, 1, 1, 2, conditions=FEW, seconds=0.2)
    assert "1 test speakers, 2 at least are needed" in refuse(tree, tmp_path / "data", "--partial=true")


def test_a_second_run_replaces_the_first_or_leaves_it(small, tree, tmp_path):
    out = tmp_path / "data"
    prepare(small, out, "--partial=true")
    first = contents(out)
    prepare(small, out, "--partial=true")
    assert contents(out) == first
    assert prepare(tree, out, check=False).returncode == 1
    assert contents(out) == first
    prepare(small, out, "--partial=true", "--srand=1", "--targets-per-pair=1", "--nontargets-per-pair=3")
    assert len(datadir.read_trials(out / "trials")) == 105 * 4


def test_the_numbers_of_the_conditions():
    names = "clean car babble restaurant street airport train".split()
    expected = [(noise, mic) for mic in ("wv1", "wv2") for noise in names]
    assert [aurora4.CONDITIONS[f"{number:02d}"] for number in range(1, 15)] == expected
    assert aurora4_files.LISTS == {"train": "devtest{}_0330_16k.list", "test": "test{}_0330_16k.list"}


# ------------------------------------------------------------------------------------------------- trials


def test_sampled_trials_are_admissible_and_as_many_as_there_are():
    keys, speakers, sentences, conditions = zip(*[
        (f"{s}{i}_{c}", s, f"{s}{i}", c) for s in "ab" for i in range(3) for c in ("01", "02")
    ])  # fmt: skip
    columns = [list(column) for column in (keys, speakers, sentences, conditions)]

    def pairs(*numbers, srand=0):
        trials = sample_trials(*columns, *numbers, srand)
        return trials, {frozenset((keys.index(trials.enroll_ids[e]), keys.index(trials.test_ids[t])))
                        for e, t in zip(trials.enroll, trials.test)}  # fmt: skip

    trials, found = pairs(1000, 1000)
    expected = {
        frozenset(p) for p in itertools.combinations(range(12), 2) if sentences[p[0]] != sentences[p[1]]
    }
    assert found == expected and len(trials) == len(expected) == 60
    same = [trials.enroll_ids[e][0] == trials.test_ids[t][0] for e, t in zip(trials.enroll, trials.test)]
    assert same == trials.target.tolist()
    assert trials.target.sum() == 24 and (np.diff(trials.codes()) > 0).all()
    some, chosen = pairs(2, 3)
    assert chosen < expected and len(some) == 3 * 5 and some.target.sum() == 3 * 2
    assert pairs(2, 3)[1] == chosen and pairs(2, 3, srand=1)[1] != chosen
    shuffled = np.random.default_rng(0).permutation(12)
    again = sample_trials(*[[column[i] for i in shuffled] for column in columns], 2, 3)
    assert again.enroll_ids == some.enroll_ids and np.array_equal(again.codes(), some.codes())
