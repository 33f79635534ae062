"""The recipes of corpora, from a small tree in the publisher's layout to the page; egs/own; wrong use of them."""

import os
import re
import shutil
import subprocess

import pytest
from corpora import ami, aurora4, librispeech, timit
from helpers import ROOT, forked_environment

pytest.importorskip("torch")
pytest.importorskip("plotly")

BUILDERS = {
    "timit": lambda folder: timit.build(folder, layout="lower", num_test=4, sentences=4),
    "aurora4": lambda folder: aurora4.build(folder, num_train=4, num_test=2, sentences=3, seconds=1.2),
    "ami": lambda folder: ami.build(folder, num_turns=2),
    "librispeech": lambda folder: librispeech.build(folder, num_utterances=5),
}
OPTIONS = {"aurora4": ("--data-opts", "--targets-per-pair=3 --nontargets-per-pair=6"),
           "ami": ("--data-opts", "--trial-min-seconds=1 --trial-max-overlap=1"),
           "librispeech": ("--test-parts", "test-clean", "--dev-parts", "dev-clean")}  # fmt: skip
FACTORS = {"timit": ["speaker", "phone", "phone class"], "aurora4": ["speaker", "noise", "mic"],
           "ami": ["speaker", "mic"], "librispeech": ["speaker"]}  # fmt: skip
NUM_STAGES, NUM_SYSTEMS = 14, 11


def recipe(name, *options, check=True):
    done = subprocess.run([str(ROOT / f"egs/{name}/run.sh"), *map(str, options)], capture_output=True, text=True,
                          env=forked_environment(with_torch=True), timeout=400)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def stages_that(text, state):
    return {int(number) for number in re.findall(rf"^stage (\d+): .*: {state}", text, re.MULTILINE)}


def options_of(name, corpus, folder):
    return ("--corpus", corpus, "--partial", "--dir", folder, "--config", ROOT / "tests/corpora/tiny.conf",
            *OPTIONS.get(name, ()))  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_from_the_corpus_to_the_page(name, tmp_path):
    corpus = BUILDERS[name](tmp_path / "corpus")
    options = options_of(name, corpus, tmp_path / "exp")
    planned = recipe(name, *options, "--dry-run").stdout
    assert stages_that(planned, "would run") == set(range(1, NUM_STAGES + 1)) and not (tmp_path / "exp").exists()
    said = recipe(name, *options).stdout
    assert stages_that(said, "done in") == set(range(1, NUM_STAGES + 1))
    table = (tmp_path / "exp/results.txt").read_text()
    systems, rows = table.split("What z1 and z2 of the FHVAE know")
    assert table in said and len(re.findall(r"^\S.* {2,}[\d.]+ +[01]\.\d{3}$", systems, re.MULTILINE)) == NUM_SYSTEMS
    rows = rows.splitlines()
    assert [line.split("  ")[0] for line in rows if " z1 " in line] == FACTORS[name]
    page = (tmp_path / "exp/report.html").read_text()
    for text in ("s-vectors (FHVAE), LDA-2, cosine", "GMM-UBM, MAP", str(corpus), "data:audio/", f"egs/{name}/run.sh"):
        assert text in page, text
    again = recipe(name, *options).stdout
    assert again.count("finished before, skipped") == NUM_STAGES and table in again


def test_an_incomplete_corpus_is_refused_unless_partial(tmp_path):
    corpus = BUILDERS["timit"](tmp_path / "corpus")
    done = recipe("timit", "--corpus", corpus, "--dir", tmp_path / "exp", check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and "stage 1 (data directories) failed" in lines[-1]
    assert re.search(r"train.*462|462.*train", lines[-2]), lines


def test_a_file_that_changed_in_the_corpus_makes_the_recipe_look_again(tmp_path):
    corpus = BUILDERS["librispeech"](tmp_path / "corpus")
    options = (*options_of("librispeech", corpus, tmp_path / "exp"), "--stop-stage", "3")
    assert stages_that(recipe("librispeech", *options).stdout, "done in") == {1, 2, 3}
    assert stages_that(recipe("librispeech", *options).stdout, "done in") == set()
    flac = next(corpus.rglob("*.flac"))
    os.utime(flac, (1e9, 1e9))
    assert stages_that(recipe("librispeech", *options).stdout, "done in") == {1, 2, 3}
    flac.write_bytes(flac.read_bytes()[:-200])
    done = recipe("librispeech", *options, check=False)
    assert flac.name in done.stderr, done.stderr


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A folder of speech as egs/own takes it."""
    folder = tmp_path_factory.mktemp("own")
    tree = BUILDERS["timit"](folder / "timit")
    for part in ("train", "test"):
        for wav in sorted(tree.rglob(f"{part}/**/*.wav")):
            target = folder / "voices" / part / wav.parent.name / wav.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(wav, target)
    return folder / "voices"


def own(corpus, folder, *options, check=True):
    return recipe("own", "--corpus", corpus, "--dir", folder, "--systems", "pooled",
                  "--config", ROOT / "tests/corpora/tiny.conf", *options, check=check)  # fmt: skip


def rows(done):
    return re.findall(r"^pooled .* {2,}[\d.]+ +[01]\.\d{3}$", done.stdout, re.MULTILINE)


def test_the_smallest_recipe_takes_a_folder_of_speech(voices, tmp_path):
    done = own(voices, tmp_path / "exp")
    assert stages_that(done.stdout, "done in") == {1, 2, 3, 4, 6, 8, 12, 13, 14}
    assert len(rows(done)) == 4 and "are in the training part" not in done.stdout
    (tmp_path / "exp/scores_mfcc_cosine/scores").unlink()
    again = own(voices, tmp_path / "exp")
    assert stages_that(again.stdout, "done in") == {12, 13, 14} and rows(again) == rows(done)
    said = own(voices, tmp_path / "exp", "--stage", "12", "--lda-dim", "2", "--dry-run").stdout
    assert stages_that(said, "not asked for, but it has not finished") == {8}


def test_a_folder_of_speech_may_change(voices, tmp_path):
    corpus = shutil.copytree(voices, tmp_path / "voices")
    options = corpus, corpus / "exp", "--stop-stage", "13"  # --dir in the corpus: not a part of it
    before = rows(own(*options))
    assert stages_that(own(*options).stdout, "done in") == set()
    speaker = sorted((corpus / "train").iterdir())[0]
    added = shutil.copy(sorted(speaker.iterdir())[0], speaker / "new.WAV")
    assert stages_that(own(*options).stdout, "done in") == {1, 2, 3, 4, 6, 8, 12, 13}
    added.unlink()
    assert rows(own(*options)) == before
    test_speaker = sorted((corpus / "test").iterdir())[0]
    shutil.copytree(test_speaker, corpus / "train" / test_speaker.name)
    (corpus / "test" / test_speaker.name / "notes.mp3").write_bytes(b"x")
    done = own(*options)
    assert f"test speakers are in the training part, too, the first is {test_speaker.name}" in done.stdout
    assert "1 other files than wav and flac are ignored" in done.stderr


@pytest.mark.parametrize("harm, message", [
    (lambda corpus: (corpus / "train/a b").mkdir() or (corpus / "train/a b/1.wav").write_bytes(b""),
     "a b/1.wav: expected SPEAKER/UTTERANCE.wav or .flac, without blanks"),
    (lambda corpus: (corpus / "train/deep/er").mkdir(parents=True) or (corpus / "train/deep/er/1.wav").touch(),
     "deep/er/1.wav: expected SPEAKER/UTTERANCE.wav"),
    (lambda corpus: shutil.rmtree(corpus / "test") or (corpus / "test").mkdir(), "test: no SPEAKER/UTTERANCE.wav"),
    (lambda corpus: [shutil.rmtree(path) for path in sorted((corpus / "test").iterdir())[1:]],
     "and 0 nontarget trials; both are needed"),
])  # fmt: skip
def test_a_wrong_folder_of_speech_is_refused_before_the_work(voices, tmp_path, harm, message):
    corpus = shutil.copytree(voices, tmp_path / "voices")
    harm(corpus)
    done = own(corpus, tmp_path / "exp", check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-2], done.stderr
    assert stages_that(done.stdout, "done in") <= {1}


def test_a_file_that_cannot_be_read_is_dropped_and_the_recipe_goes_on(voices, tmp_path):
    corpus = shutil.copytree(voices, tmp_path / "voices")
    (sorted((corpus / "train").iterdir())[0] / "empty.wav").touch()
    assert len(rows(own(corpus, tmp_path / "exp", "--stop-stage", "13"))) == 4
    assert "empty.wav: the audio file is empty" in (tmp_path / "exp/data/train/dropped.mfcc").read_text()


@pytest.mark.parametrize("options, message", [
    (("--dir", "a*b"), "a*b': characters of the shell"),
    (("--dir", "a,b"), "a,b': characters of the shell"),
    (("--systems", " "), "--systems names no system"),
    (("--seed", "x"), "--seed"),
    (("--preset", "paper"), "unknown option --preset"),
])  # fmt: skip
def test_wrong_options_are_refused_at_once(voices, tmp_path, options, message):
    done = recipe("own", "--corpus", voices, "--dir", tmp_path / "exp", *options, check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("name", BUILDERS)
def test_recipes_explain_their_stages_and_refuse_wrong_use(name, tmp_path):
    said = recipe(name, "--help").stdout
    assert [int(number) for number in re.findall(r"^  (\d+) [a-zA-Z]", said, re.MULTILINE)] == list(range(1, 15))
    for options, message in (
        ((), "--corpus is needed"),
        (("--corpus", tmp_path / "nothing"), "nothing: no such folder"),
        (("--corpus", tmp_path, "--preset", "huge"), "--preset huge: expected one of paper small"),
        (("--corpus", tmp_path, "surplus"), "unexpected argument 'surplus'"),
        (("--corpus", tmp_path, "--dir", tmp_path / "JOB"), "the word JOB stands for a number in jobs"),
        (("--corpus", tmp_path, "--dir", tmp_path / "exp"), "stage 1 (data directories) failed"),
    ):
        done = recipe(name, *options, check=False)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr


def test_a_dry_run_needs_no_corpus(tmp_path):
    said = recipe("ami", "--corpus", tmp_path / "nothing", "--dir", tmp_path / "exp", "--dry-run").stdout
    assert stages_that(said, "would run") == set(range(1, NUM_STAGES + 1)) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("preset", ["paper", "small"])
def test_presets_name_files_that_are_there(name, preset, tmp_path):
    said = recipe(name, "--corpus", tmp_path, "--dir", tmp_path / "exp", "--preset", preset, "--dry-run").stdout
    fhvae = said.split(": FHVAE: ")[1].split("latent space")[0]
    expected = {"small": "fhvae_lstm.conf", "paper": {"timit": "fhvae.conf", "aurora4": "fhvae.conf"}.get(
        name, "fhvae_large.conf")}[preset]  # fmt: skip
    assert f"/{expected} (4.0K)" in fhvae and not (tmp_path / "exp").exists()
