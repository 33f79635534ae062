"""local/librispeech: small trees in the publisher's layout to data directories, damaged trees to clear
errors."""

import hashlib
import os
import shutil
import signal
import subprocess
import tarfile

import pytest
import soundfile
from corpora import librispeech, server
from helpers import ROOT, environment, run_script, shared_data, shell

from voxark import datadir
from voxark.datadir_check import check

PREPARE = ROOT / "local" / "librispeech" / "prepare_data.py"
DOWNLOAD = ROOT / "local" / "librispeech" / "download.sh"
SMALL = ("--dev-parts=dev-clean",)


def prepare(corpus, out, *options, **more):
    return run_script(PREPARE, *SMALL, *options, corpus, out, **more)


def failed(corpus, out, *options):
    """The error of a run that must fail and leave nothing behind."""
    done = prepare(corpus, out, *options, check=False)
    assert done.returncode == 1
    assert not out.exists() or not any(out.iterdir())
    return done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small tree of synthetic voices; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("librispeech")
    librispeech.build(folder, num_train=3, num_dev=2, num_test=3, num_utterances=4)
    return folder


@pytest.fixture
def tree(original, tmp_path):
    shutil.copytree(original, tmp_path / "corpus")
    return tmp_path / "corpus"


def test_small_tree(original, tmp_path):
    done = prepare(original, tmp_path, "--partial=true")
    assert "train-clean-100: 12 utterances, expected 28,539; 3 speakers, expected 251" in done.stderr
    for name, num_speakers in (("train", 3), ("dev", 2), ("test", 3)):
        assert check(tmp_path / name, need_feats=False) == []
        utt2spk = datadir.read_table(tmp_path / name / "utt2spk")
        assert len(set(utt2spk.values())) == num_speakers and len(utt2spk) == 4 * num_speakers
        assert all(utterance.split("-")[0] == speaker for utterance, speaker in utt2spk.items())
        seconds = datadir.read_table(tmp_path / name / "utt2dur")
        for utterance, path in datadir.read_table(tmp_path / name / "wav.scp").items():
            assert path.startswith("/") and path.endswith(f"/{utterance}.flac")
            assert seconds[utterance] == pytest.approx(soundfile.info(path).duration, abs=1e-4)
        assert (tmp_path / name / "dropped.prepare").read_bytes() == b""
    part = datadir.read_table(tmp_path / "test" / "utt2part")
    assert set(part.values()) == {"test-clean", "test-other"}


def test_labels_are_those_of_the_publisher(original, tmp_path):
    prepare(original, tmp_path, "--partial=true")
    rows = [line.split("|") for line in (original / "LibriSpeech" / "SPEAKERS.TXT").read_text().splitlines()]
    sexes = {row[0].strip(): row[1].strip().lower() for row in rows if row[0].strip().isdigit()}
    words = {}
    for path in (original / "LibriSpeech" / "train-clean-100").rglob("*.trans.txt"):
        words.update(line.split(" ", 1) for line in path.read_text().splitlines())
    assert datadir.read_table(tmp_path / "train" / "text") == words
    for name in ("train", "test"):
        genders = datadir.read_table(tmp_path / name / "spk2gender")
        assert genders and all(sexes[speaker] == gender for speaker, gender in genders.items())


def read_trials(folder):
    return datadir.read_trials(folder / "trials")


def test_trials(original, tmp_path):
    prepare(original, tmp_path / "a", "--partial=true")
    speakers = datadir.read_table(tmp_path / "a" / "test" / "utt2spk")
    chapters = datadir.read_table(tmp_path / "a" / "test" / "utt2chapter")
    trials = read_trials(tmp_path / "a")
    for enroll, test, label in trials:
        assert label == ("target" if speakers[enroll] == speakers[test] else "nontarget")
        assert chapters[enroll] != chapters[test]
    # 3 speakers with 2 chapters of 2 utterances: 2 * 2 pairs each; all pairs of different speakers
    assert [trial.label for trial in trials].count("target") == 12
    assert [trial.label for trial in trials].count("nontarget") == 48
    models = datadir.read_table(tmp_path / "a" / "enroll_map", datadir.parse_word)
    assert dict(models) == {trial.enroll: trial.enroll for trial in trials}
    prepare(original, tmp_path / "b", "--partial=true", "--other-chapter=false")
    assert [trial.label for trial in read_trials(tmp_path / "b")].count("target") == 18
    prepare(original, tmp_path / "c", "--partial=true", "--same-gender=true")
    genders = datadir.read_table(tmp_path / "c" / "test" / "spk2gender")
    assert all(
        genders[speakers[trial.enroll]] == genders[speakers[trial.test]]
        for trial in read_trials(tmp_path / "c")
    )


def test_sample_of_trials_depends_on_the_seed_alone(original, tmp_path):
    options = ("--partial=true", "--targets-per-speaker=2", "--nontargets-per-speaker=5")
    lists = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(original, tmp_path / name, *options, f"--srand={seed}")
        lists.append((tmp_path / name / "trials").read_text())
    labels = [line.split()[2] for line in lists[0].splitlines()]
    assert (labels.count("target"), labels.count("nontarget")) == (6, 15)
    assert lists[0] == lists[1] != lists[2]


def test_real_speech(tmp_path):
    if not shared_data("librispeech_mini").is_dir():
        pytest.skip(f"recorded speech is absent: {shared_data('librispeech_mini')}")
    librispeech.build(tmp_path, num_train=2, num_dev=0, num_test=2, num_utterances=4, shared=shared_data())
    prepare(tmp_path, tmp_path / "out", "--partial=true", "--dev-parts=")
    assert not (tmp_path / "out" / "dev").exists()
    assert check(tmp_path / "out" / "test", need_feats=False) == []


def test_the_published_numbers(tmp_path):
    root = librispeech.build_of_size(tmp_path, {"dev-clean": (2703, 40), "test-other": (2939, 33)})
    parts = ("--train-parts=dev-clean", "--dev-parts=", "--test-parts=test-other")
    done = run_script(PREPARE, *parts, "--nontargets-per-speaker=10", tmp_path, tmp_path / "out")
    assert "train: 40 speakers, 2703 utterances, 0 left out" in done.stderr
    assert "test: 33 speakers, 2939 utterances, 0 left out" in done.stderr
    assert " 3300 target and 330 nontarget trials" in done.stderr  # 100 and 10 of each test speaker
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def error():
        done = run_script(PREPARE, *parts, tmp_path, tmp_path / "out", check=False)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    (root / "dev-clean" / "101" / "7101" / "101-7101-0003.flac").unlink()
    said = error()
    assert "2,702 utterances, expected 2,703; 1 transcripts without an audio file, expected 0;" in said
    assert "missing: audio of 101-7101-0003. --partial=true" in said
    shutil.rmtree(root / "dev-clean" / "102" / "18102")
    shutil.rmtree(root / "dev-clean" / "139")
    said = error()
    assert (
        "39 speakers, expected 40" in said
        and "missing: speaker 139, chapter 102/18102, audio of 101-7101-0003" in said
    )
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before == after  # a run that fails changes nothing


# -------------------------------------------------------------------------------------- damaged and odd trees


def some_flac(tree, part="test-clean"):
    return sorted((tree / "LibriSpeech" / part).rglob("*.flac"))[0]


def test_audio_and_transcripts_that_do_not_match(tree, tmp_path):
    lost = some_flac(tree)
    alone = some_flac(tree, "train-clean-100")
    lost.unlink()
    transcript = next(alone.parent.glob("*.trans.txt"))
    lines = transcript.read_text().splitlines(keepends=True)
    transcript.write_text("".join(line for line in lines if not line.startswith(alone.stem)))
    assert f"missing: transcript of {alone.stem}" in failed(tree, tmp_path / "out")
    prepare(tree, tmp_path / "out", "--partial=true")
    assert (tmp_path / "out" / "test" / "dropped.prepare").read_text() == f"{lost.stem} no audio file\n"
    assert (tmp_path / "out" / "train" / "dropped.prepare").read_text() == f"{alone.stem} no transcript\n"
    assert check(tmp_path / "out" / "test", need_feats=False) == []
    assert lost.stem not in (tmp_path / "out" / "test" / "utt2spk").read_text()


def test_truncated_flac(tree, tmp_path):
    path = some_flac(tree)
    path.write_bytes(path.read_bytes()[:-20])
    done = prepare(tree, tmp_path / "out", "--partial=true")
    assert f"1 damaged audio files: {path}: truncated audio" in done.stderr
    assert (tmp_path / "out" / "test" / "dropped.prepare").read_text() == f"{path.stem} damaged audio file\n"


def test_a_damaged_file_is_an_error_where_all_is_there(tmp_path):
    root = librispeech.build_of_size(tmp_path, {"dev-clean": (2703, 40)})
    path = some_flac(tmp_path, "dev-clean")
    path.unlink()
    path.write_bytes((tmp_path / "tiny.flac").read_bytes()[:-5])
    done = run_script(
        PREPARE, "--train-parts=dev-clean", "--dev-parts=", tmp_path, tmp_path / "out", check=False
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"{root}/dev-clean: 1 damaged audio files: {path}: " in last
    assert "leave them out with --partial=true" in last


def test_another_sampling_rate_is_named(tree, tmp_path):
    path = some_flac(tree)
    soundfile.write(path, soundfile.read(path, dtype="int16")[0], 8000)
    done = prepare(tree, tmp_path / "out", "--partial=true")
    assert f"{path}: a sampling rate of 8000 Hz, where this corpus has 16000 Hz" in done.stderr


def break_line(tree, old, new):
    """Change the first transcript of test-clean; its path."""
    path = sorted((tree / "LibriSpeech" / "test-clean").rglob("*.trans.txt"))[0]
    lines = path.read_text().splitlines()
    lines[old] = new(lines)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("new", "said"), [
    (lambda lines: lines[0].split()[0], ":2: expected `"),
    (lambda lines: "7-1-0001 HELLO", ":2: expected `"),
    (lambda lines: lines[0], ":2: utterance 103-1002-0000 is there twice"),
], ids=["no words", "of another chapter", "twice"])  # fmt: skip
def test_bad_transcripts(tree, tmp_path, new, said):
    path = break_line(tree, 1, new)
    assert f"{path}{said}" in failed(tree, tmp_path / "out", "--partial=true")


def test_an_empty_transcript(tree, tmp_path):
    path = sorted((tree / "LibriSpeech" / "test-clean").rglob("*.trans.txt"))[0]
    path.write_bytes(b"")
    assert f"{path}: the file is empty" in failed(tree, tmp_path / "out", "--partial=true")


def test_misplaced_audio(tree, tmp_path):
    path = some_flac(tree)
    path.rename(path.parent.parent / path.name)
    assert f"{path.parent.parent / path.name}: does not lie where its name says" in failed(
        tree, tmp_path / "out", "--partial"
    )


def test_speakers_txt(tree, tmp_path):
    table = tree / "LibriSpeech" / "SPEAKERS.TXT"
    good = table.read_text()
    number = next(n for n, line in enumerate(good.splitlines(), 1) if not line.startswith(";"))
    for old, new, said in (
        ("| M |", "| X |", f"{table}:{number}: the sex of speaker 19 is 'X', not M or F"),
        (" | M | ", " ", f"{table}:{number}: expected 5 fields"),
        ("19   |", "4711 |", "test-clean/19: SPEAKERS.TXT knows no speaker 19"),
        ("test-clean  ", "dev-clean  ", "test-clean/19: speaker 19 belongs to dev-clean, says SPEAKERS.TXT"),
    ):
        assert good.count(old)
        table.write_text(good.replace(old, new, 1))
        assert said in failed(tree, tmp_path / "out", "--partial=true")
    table.unlink()
    assert "LibriSpeech: holds no SPEAKERS.TXT" in failed(tree, tmp_path / "out", "--partial=true")


def test_other_files_are_counted_and_letters_may_be_small_or_capital(tree, tmp_path):
    prepare(tree, tmp_path / "plain", "--partial=true")
    root = tree / "LibriSpeech"
    (root / "test-clean" / ".DS_Store").write_bytes(b"x")
    (root / "test-clean" / "103").joinpath("._103-1002-0000.flac").write_bytes(b"x")
    flac = some_flac(tree, "train-clean-100")
    flac.rename(flac.with_suffix(".FLAC"))
    (root / "test-clean").rename(root / "TEST-CLEAN")
    (root / "SPEAKERS.TXT").rename(root / "speakers.txt")
    root.rename(tree / "librispeech")
    done = prepare(tree / "librispeech", tmp_path / "out", "--partial=true")
    assert "TEST-CLEAN: 2 other files are of no interest" in done.stderr
    for name in ("train", "test"):
        for table in ("utt2spk", "text", "spk2gender"):
            assert (tmp_path / "out" / name / table).read_text() == (
                tmp_path / "plain" / name / table
            ).read_text()
    assert (tmp_path / "out" / "trials").read_text() == (tmp_path / "plain" / "trials").read_text()


def test_two_files_that_differ_in_capitals_only(tree, tmp_path):
    path = some_flac(tree)
    shutil.copy(path, path.with_suffix(".FLAC"))
    assert "differ in capital letters only" in failed(tree, tmp_path / "out", "--partial=true")


def test_wrong_options(original, tmp_path):
    def said(*options):
        return failed(original, tmp_path / "out", *options)

    no_part = f"{original}/LibriSpeech: holds no part train-other-500; local/librispeech/download.sh"
    assert no_part in said("--train-parts=train-other-500")
    assert "train-other-500 can be used" in said("--train-parts=train-other-500", "--partial=true")
    assert "'train-clean-99' is no part of LibriSpeech; the" in said("--train-parts=train-clean-99")
    assert "the part test-clean is asked for twice" in said("--train-parts=train-clean-100,test-clean")
    assert "--test-parts names no part" in said("--test-parts=")
    assert "a number of targets is -1 (all) or at least 0" in said("--targets-per-speaker=-2")
    assert f"{tmp_path / 'none'}: no such folder" in failed(tmp_path / "none", tmp_path / "out")


def test_parts_that_are_not_there(original, tmp_path):
    done = prepare(original, tmp_path, "--partial=true", "--dev-parts=dev-clean dev-other")
    assert f"{original}/LibriSpeech: holds no part dev-other: left out" in done.stderr
    assert len(datadir.read_table(tmp_path / "dev" / "utt2spk")) == 8
    prepare(original, tmp_path / "out", "--partial=true", "--dev-parts=dev-other")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"enroll_map", "test", "train", "trials"}


def test_a_speaker_in_two_parts(tree, tmp_path):
    root = tree / "LibriSpeech"
    shutil.copytree(root / "test-clean" / "19", root / "train-clean-100" / "19")
    said = f"{root}/train-clean-100/19: speaker 19 belongs to test-clean, says SPEAKERS.TXT"
    assert said in failed(tree, tmp_path / "out", "--partial=true")


# --------------------------------------------------------------------------------------------------- download


@pytest.fixture
def publisher(original, tmp_path):
    """A server with the archive of test-clean, and the options of download.sh that name it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / "test-clean.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in ("SPEAKERS.TXT", "CHAPTERS.TXT", "test-clean"):
            archive.add(original / "LibriSpeech" / name, f"LibriSpeech/{name}")
    digest = hashlib.md5((folder / "test-clean.tar.gz").read_bytes()).hexdigest()
    (tmp_path / "md5sums").write_text(f"{digest}  test-clean.tar.gz\n")
    with server.serving(folder) as running:
        running.options = ["--url", running.url, "--md5sums", tmp_path / "md5sums", "--retry-delay", "0"]
        running.size = (folder / "test-clean.tar.gz").stat().st_size
        yield running


def download(publisher, out, *options, check=True):
    words = [str(DOWNLOAD), *map(str, publisher.options), *options, str(out), "test-clean"]
    return shell(" ".join(f"'{word}'" for word in words), check=check)


def is_complete(original, out):
    """Whether the part and the metadata are there, and nothing else."""
    files = [path for path in (original / "LibriSpeech" / "test-clean").rglob("*") if path.is_file()]
    assert sorted(path.name for path in out.iterdir()) == ["LibriSpeech"]
    same = [path.read_bytes() == (out / path.relative_to(original)).read_bytes() for path in files]
    return all(same) and (out / "LibriSpeech" / "SPEAKERS.TXT").is_file()


def test_download(original, publisher, tmp_path):
    out = tmp_path / "out"
    download(publisher, out)
    assert publisher.requests == [("/test-clean.tar.gz", None)] and is_complete(original, out)
    assert "test-clean: is there already" in download(publisher, out).stderr
    assert len(publisher.requests) == 1


def test_download_goes_on_after_interruptions(original, publisher, tmp_path):
    publisher.cut = [10_000, 20_000]
    download(publisher, tmp_path / "out")
    assert [wanted for _, wanted in publisher.requests] == [None, "bytes=10000-", "bytes=30000-"]
    assert is_complete(original, tmp_path / "out")


def test_download_goes_on_after_it_was_killed(original, publisher, tmp_path):
    publisher.stall = 15_000
    words = [DOWNLOAD, *publisher.options, tmp_path / "out", "test-clean"]
    process = subprocess.Popen(
        list(map(str, words)), env=environment(), start_new_session=True, stderr=subprocess.PIPE
    )
    assert publisher.stalled.wait(30)
    partial = tmp_path / "out" / "test-clean.tar.gz.partial"
    while not partial.is_file() or not partial.stat().st_size:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "LibriSpeech").exists()
    arrived = partial.stat().st_size
    assert 0 < arrived <= 15_000
    download(publisher, tmp_path / "out")
    assert publisher.requests[1][1] == f"bytes={arrived}-" and is_complete(original, tmp_path / "out")


def test_download_from_a_server_that_cannot_resume(original, publisher, tmp_path):
    publisher.cut, publisher.ranges = [10_000], False
    done = download(publisher, tmp_path / "out")
    assert "the server cannot resume; from the beginning" in done.stderr and is_complete(
        original, tmp_path / "out"
    )


def test_download_of_what_has_arrived_already(original, publisher, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copy(publisher.folder / "test-clean.tar.gz", tmp_path / "out" / "test-clean.tar.gz.partial")
    download(publisher, tmp_path / "out", "--keep-archives", "true")
    assert publisher.requests == [("/test-clean.tar.gz", f"bytes={publisher.size}-")]
    (tmp_path / "out" / "test-clean.tar.gz").unlink()
    assert is_complete(original, tmp_path / "out")


def test_a_wrong_checksum(original, publisher, tmp_path):
    out, good = tmp_path / "out", (publisher.folder / "test-clean.tar.gz").read_bytes()
    (publisher.folder / "test-clean.tar.gz").write_bytes(good[:-1] + b"x")
    done = download(publisher, out, check=False)
    assert done.returncode == 1 and "has the checksum" in done.stderr and "put aside as" in done.stderr
    assert [path.name for path in out.iterdir()] == ["test-clean.tar.gz.bad"]
    (publisher.folder / "test-clean.tar.gz").write_bytes(good)
    (out / "test-clean.tar.gz.bad").unlink()
    download(publisher, out)
    assert is_complete(original, out)


def test_downloads_that_cannot_be(publisher, tmp_path):
    (publisher.folder / "test-clean.tar.gz").unlink()
    done = download(publisher, tmp_path / "out", check=False)
    assert done.returncode == 1 and "HTTP status 404" in done.stderr and len(publisher.requests) == 1
    done = shell(f"{DOWNLOAD} --url {publisher.url} {tmp_path} test-clear", check=False)
    assert (
        done.returncode == 1
        and "'test-clear' is no part of LibriSpeech; the parts are dev-clean" in done.stderr
    )
    publisher.server_close()
    done = download(publisher, tmp_path / "out", "--retries", "1", check=False)
    assert done.returncode == 1 and done.stderr.count("interrupted (curl's status 7)") == 2


def test_the_published_checksums_are_there_for_every_part():
    lines = (ROOT / "local" / "librispeech" / "md5sums.txt").read_text().splitlines()
    parts = {
        "train-clean-100",
        "train-clean-360",
        "train-other-500",
        "dev-clean",
        "dev-other",
        "test-clean",
        "test-other",
    }
    assert {line.split()[1] for line in lines} == {f"{part}.tar.gz" for part in parts}
    assert len({line.split()[0] for line in lines}) == 7 and all(len(line.split()[0]) == 32 for line in lines)
