"""The recipe of egs/mini from nothing to its table, its restarts and skips, one's own data, and its steps."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, environment, forked_environment, shell

sys.path.insert(0, str(ROOT / "local" / "mini"))
import espeak  # noqa: E402

needs_espeak = pytest.mark.skipif(not espeak.is_installed(), reason="espeakng-loader is not installed")
RUN = ROOT / "egs/mini/run.sh"
SYSTEMS = ["GMM-UBM, MAP", "pooled MFCC, cosine", "pooled MFCC, LDA, cosine", "pooled MFCC, LDA, PLDA",
           "pooled fbank, LDA, PLDA", "i-vectors, LDA, PLDA"]  # fmt: skip
HAVE_TORCH = importlib.util.find_spec("torch") is not None
NETWORKS = ["x-vector, end to end", "s-vectors (FHVAE), cosine", "s-vectors (FHVAE), LDA, PLDA",
            "mean of z1 (FHVAE), cosine"] if HAVE_TORCH else []  # fmt: skip
TINY = ("--size", "tiny", "--e2e-opts", "--num-epochs=1 --batches-per-epoch=5",  # networks that are hardly trained
        "--fhvae-opts", "--num-steps=20 --steps-per-epoch=10")


def recipe(*options, check=True, cwd=None, **variables):
    done = subprocess.run(
        [str(RUN), *map(str, options)],
        capture_output=True,
        text=True,
        env=forked_environment(with_torch=True, **variables),
        cwd=cwd,
        timeout=200,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def table(text):
    """{system: EER in percent} of the recipe's table."""
    found = {}
    for line in text.split("What z1 and z2")[0].splitlines():
        match = re.match(r"(.+?)\s{2,}([0-9.]+)\s+([0-9.]+)$", line)
        if match and not line.startswith("System"):
            assert 0 < float(match[3]) <= 1
            found[match[1]] = float(match[2])
    return found


def stages_that(text, state):
    return {int(number) for number in re.findall(rf"stage (\d+): .*: {state}", text)}


def stages_run(text):
    return {int(number) for number in re.findall(r"stage (\d+): .*: done in", text)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run that was killed in the middle and started again: (folder, output of the second run)."""
    folder = tmp_path_factory.mktemp("recipe") / "exp"
    command = [str(RUN), *TINY, "--dir", str(folder)]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("stage 4:"):
            time.sleep(0.4)
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (folder / "results.txt").exists()
    return folder, recipe(*TINY, "--dir", folder).stdout


@needs_espeak
def test_a_killed_run_goes_on_where_it_was(finished):
    folder, said = finished
    assert stages_run(said) >= set(range(4, 15)) and not stages_run(said) & {1, 2, 3}
    assert not list(folder.rglob("*.partial*"))


@needs_espeak
def test_the_table_has_every_system_and_they_differ(finished):
    folder, said = finished
    found = table(said)
    assert list(found) == SYSTEMS + NETWORKS
    assert 5 <= found["pooled MFCC, LDA, PLDA"] <= 25
    assert found["pooled MFCC, LDA, PLDA"] < found["pooled MFCC, cosine"] < 40
    assert (folder / "results.txt").read_text() in said
    for name in (
        "train/feats.scp",
        "train_fbank/feats.scp",
        "test/vad.scp",
        "test/cmvn.scp",
        "corpus/test/phones.ctm",
    ):
        assert (folder / "data" / name).stat().st_size > 0
    assert str(folder / "results.txt") in said


@needs_espeak
def test_the_second_run_does_nothing_at_once(finished):
    folder, said = finished
    before = (folder / "results.txt").stat().st_mtime_ns
    start = time.time()
    again = recipe(*TINY, "--dir", folder).stdout
    assert time.time() - start < 5
    assert not stages_run(again) and again.count("finished before, skipped") == 14
    assert table(again) == table(said) and (folder / "results.txt").stat().st_mtime_ns == before


@needs_espeak
def test_a_changed_option_runs_what_depends_on_it(finished, tmp_path):
    folder, _ = finished
    changed = tmp_path / "exp"
    shutil.copytree(folder, changed)
    assert stages_run(
        recipe("--size", "tiny", "--dir", changed, "--lda-dim", "6", "--stop-stage", "8").stdout
    ) == {8}
    (changed / "data/test/vad.scp").unlink()
    assert stages_run(
        recipe("--size", "tiny", "--dir", changed, "--lda-dim", "6", "--stop-stage", "4").stdout
    ) == {4}


@needs_espeak
def test_a_dry_run_says_what_would_be_done_and_makes_nothing(finished, tmp_path):
    folder, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    said = recipe(*TINY, "--dir", folder, "--lda-dim", "6", "--dry-run").stdout
    assert stages_that(said, "finished before") == {1, 2, 3, 4, 5, 6, 7, 9} and stages_that(said, "would run") >= {8, 10, 12, 14}
    assert re.search(r"train/feats.scp \([\d.]+K, its archives [\d.]+[KM]\)", said)
    assert before == sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    said = recipe("--size", "tiny", "--dir", tmp_path / "new", "--dry-run", "--stop-stage", "3").stdout
    assert stages_that(said, "would run") == {1, 2, 3} and stages_that(said, "not asked for") == set(range(4, 15))
    assert "(not there yet)" in said and not list(tmp_path.iterdir())


@needs_espeak
def test_systems_that_are_not_asked_for_are_left_out(finished, tmp_path):
    folder, said = finished
    copy = tmp_path / "exp"
    shutil.copytree(folder, copy)
    done = recipe(*TINY, "--dir", copy, "--systems", "pooled")
    assert stages_that(done.stdout, "left out: not asked for") == {5, 7, 9, 10, 11}
    assert table(done.stdout) == {name: table(said)[name] for name in SYSTEMS if name.startswith("pooled")}
    wrong = recipe(*TINY, "--dir", copy, "--systems", "pooled xvector", check=False)
    assert wrong.returncode == 1 and "--systems: xvector: expected gmm, pooled" in wrong.stderr


@needs_espeak
def test_the_journal_has_a_line_for_each_stage(finished):
    folder, _ = finished
    lines = [line.split("\t") for line in (folder / ".stages/journal").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == list(range(1, 15)) and all(len(line) == 5 for line in lines)
    assert lines[4][1:3] == ["ubm", "GMM-UBM, MAP"] and int(lines[4][3]) >= 0


@needs_espeak
def test_voices_are_exchanged(finished):
    folder, _ = finished
    if HAVE_TORCH:
        speaker = dict(line.split() for line in (folder / "data/test/utt2spk").read_text().splitlines())
        pairs = [path.stem.split("-to-") for path in (folder / "fhvae_converted").glob("*.wav")]
        assert len(pairs) == 8 and sum(source == target for source, target in pairs) == 4
        assert len({speaker[source] for source, _ in pairs}) == 4 == len({speaker[target] for _, target in pairs})
        assert all(speaker[a] != speaker[b] for a, b in pairs if a != b)


@needs_espeak
def test_without_torch_the_other_systems_come_out(finished, tmp_path):
    folder, said = finished
    if not HAVE_TORCH:
        pytest.skip("torch is not installed")
    copy = tmp_path / "exp"
    shutil.copytree(folder, copy)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = recipe(*TINY, "--dir", copy, "--stage", "9", PYTHONPATH=f"{ROOT}:{tmp_path}")
    left_out = "needs torch: pip install 'voxark[neural]'"
    assert left_out in done.stderr and table(done.stdout) == {name: table(said)[name] for name in SYSTEMS}
    text = (copy / "results.txt").read_text()
    assert left_out in text and "What z1 and z2" not in text
    assert not list(copy.glob("scores_e2e")) and not list(copy.glob("scores_fhvae*"))
    again = recipe(*TINY, "--dir", copy)  # the networks are still there
    assert stages_run(again.stdout) == {12, 13, 14} and table(again.stdout) == table(said)


@needs_espeak
def test_latent_variables_are_compared_by_all_labels(finished):
    folder, said = finished
    pytest.importorskip("sklearn")
    rows = said.split("What z1 and z2 of the FHVAE know")[1].splitlines()
    factors = [line.split("  ")[0] for line in rows if " z1 " in line]
    assert factors == ["speaker", "noise", "mic", "phone", "phone class"]
    assert (folder / "fhvae_segments/tsne.svg").read_text().count("phone class") >= 2


@needs_espeak
def test_ones_own_data_with_relative_paths_and_models_of_several_utterances(finished, tmp_path):
    folder, said = finished
    corpus = tmp_path / "mine"
    shutil.copytree(folder / "data/corpus", corpus)
    for part in ("train", "test"):
        scp = corpus / part / "wav.scp"
        scp.write_text(scp.read_text().replace(str(folder / "data/corpus") + "/", ""))
        (corpus / part / "spk2utt").unlink()
    spk_of = dict(line.split() for line in (corpus / "test/utt2spk").read_text().splitlines())
    models = {spk: [utt for utt in spk_of if spk_of[utt] == spk][:3] for spk in set(spk_of.values())}
    (corpus / "map").write_text("".join(f"{spk} {' '.join(utts)}\n" for spk, utts in models.items()))
    (corpus / "trials").write_text(
        "".join(
            f"{spk} {utt} {'target' if spk_of[utt] == spk else 'nontarget'}\n"
            for spk, utts in models.items()
            for utt in spk_of
            if utt not in utts
        )
    )
    done = recipe(
        "--train",
        "mine/train",
        "--test",
        "mine/test",
        "--trials",
        "mine/trials",
        "--enroll-map",
        "mine/map",
        "--dir",
        "exp",
        "--num-gauss",
        "8",
        "--num-iters",
        "4",
        *TINY[2:],
        cwd=tmp_path,
    )
    assert "relative paths, found in" in done.stderr
    found = table(done.stdout)
    assert list(found) == SYSTEMS + NETWORKS and "10 models, 570 trials of which 30 target" in done.stdout
    # Three utterances tell more of a voice than one.
    assert found["pooled MFCC, LDA, PLDA"] < table(said)["pooled MFCC, LDA, PLDA"]


@needs_espeak
def test_scores_of_any_number_of_jobs_are_the_same(finished, tmp_path):
    folder, _ = finished
    for nj in (1, 3):
        shell(
            f"score.sh --backend gmm --nj {nj} {folder}/data/trials {folder}/gmm_map {folder}/data/test "
            f"{tmp_path}/{nj}"
        )
    first, second = (sorted((tmp_path / str(nj) / "scores").read_text().splitlines()) for nj in (1, 3))
    assert first == second == sorted((folder / "scores_gmm_map/scores").read_text().splitlines())


@needs_espeak
def test_a_step_names_what_it_dropped_and_fails_above_5_percent(finished, tmp_path):
    folder, _ = finished
    lines = (folder / "pooled_mfcc_test/vectors.scp").read_text().splitlines(keepends=True)
    for missing, status in ((1, 0), (8, 1)):
        (tmp_path / "few.scp").write_text("".join(lines[missing:]))
        done = shell(
            f"score.sh {folder}/data/trials {folder}/plda_mfcc {tmp_path}/few.scp {tmp_path}/exp", check=False
        )
        assert done.returncode == status, done.stderr
        dropped = (tmp_path / "exp/dropped").read_text().splitlines()
        assert [line.split()[0] for line in dropped] == [line.split()[0] for line in lines[:missing]]
        assert all(len(line.split()) > 2 for line in dropped)
    assert "more than 5 %" in done.stderr


# ---------------------------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(("options", "message"), [
    (["--size", "huge"], "expected tiny, small or large"),
    (["--train", "x", "--dir", "y"], "need all of --train, --test, --trials and --dir"),
    (["--nj", "many"], "expected a number"),
    (["--dir", "a b"], "paths with blanks"),
    (["surplus"], "unexpected argument 'surplus'"),
    (["--no-such-option", "1"], "no-such-option"),
    (["--stage", "5", "--dir", "empty"], "has not finished"),
    (["--train", "x", "--test", "x", "--trials", "x", "--dir", "y"], "no such data directory"),
])  # fmt: skip
def test_wrong_use_ends_in_a_clear_line(options, message, tmp_path):
    done = recipe(*options, check=False, cwd=tmp_path)
    assert done.returncode == 1 and any(message in line for line in done.stderr.splitlines()[-2:]), (
        done.stderr
    )


@pytest.mark.parametrize(
    "step", ["train_diag_ubm", "train_full_ubm", "train_ivector_extractor", "extract_ivectors", "adapt_gmm",
             "pool_feats", "train_plda", "score", "gmm_features", "collect_dropped"]
)
def test_steps_explain_themselves(step):
    explained = shell(f"{step}.sh --help").stdout.decode()
    assert explained.startswith("Usage:") and "e.g.:" in explained
    wrong = shell(f"{step}.sh", check=False)
    assert wrong.returncode == 1 and "e.g.:" in wrong.stderr


@pytest.mark.parametrize(
    "step, option",
    [
        ("train_e2e.sh", "subsample"),
        ("train_e2e.sh", "num-iters"),
        ("extract_embeddings.sh", "subsample"),
        ("extract_embeddings.sh", "num-iters"),
        ("extract_ivectors.sh", "num-iters"),
    ],
)
def test_what_steps_share_is_no_option_of_all(step, option, tmp_path):
    done = shell(f"{step} --{option} 2 a b c", cwd=tmp_path, check=False)
    assert done.returncode == 1 and f"unknown option --{option}" in done.stderr


@pytest.mark.parametrize("folder, reason", [("'a b'", "blanks"), ("JOB", "the word JOB"), ("'a;b'", "the shell")])
def test_score_refuses_paths_that_jobs_cannot_have(folder, reason, tmp_path):
    (tmp_path / "trials").write_text("a b target\n")
    done = shell(f"score.sh trials model test.scp {folder}", check=False, cwd=tmp_path)
    assert done.returncode == 1 and reason in done.stderr and not list(tmp_path.glob("*b")), done.stderr


# ---------------------------------------------------------------------------------------- data directories


@pytest.fixture
def data(tmp_path):
    """Two data directories without audio worth the name, trials, and the folder they lie in."""
    (tmp_path / "wav").mkdir()
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        utts = [f"{part}{s}-{u}" for s in "ba" for u in "12"]
        for utt in utts:
            (tmp_path / "wav" / f"{utt}.wav").write_bytes(b"")
        (tmp_path / part / "wav.scp").write_text("".join(f"{utt} wav/{utt}.wav\n" for utt in utts))
        (tmp_path / part / "utt2spk").write_text("".join(f"{utt} {utt[:-2]}\n" for utt in utts))
    (tmp_path / "trials").write_text("testa-1 testa-2 target\ntesta-1 testb-1 nontarget\n")
    return tmp_path


def import_data(data, *options):
    program = ROOT / "local/mini/import_data.py"
    arguments = f"{data}/train {data}/test {data}/trials {data}/out"
    return shell(f"{program} {' '.join(options)} {arguments}", check=False)


def test_import_sorts_and_makes_paths_absolute(data):
    with open(data / "test" / "wav.scp", "a") as scp:
        scp.write("testc-1 cat wav/x.wav |\ntestc-2 /somewhere/y.wav\n")
    with open(data / "test" / "utt2spk", "a") as utt2spk:
        utt2spk.write("testc-1 testc\ntestc-2 testc\nunused-1 unused\n")
    (data / "test" / "text").write_text("".join(f"{utt} HELLO\n" for utt in [
        "testb-1", "testc-2", "testa-2", "unused-1", "testa-1", "testb-2", "testc-1"]))
    (data / "test" / "utt2dur").write_text("testb-1 2.0\n")
    done = import_data(data)
    assert done.returncode == 0, done.stderr
    scp = (data / "out/test/wav.scp").read_text().splitlines()
    assert scp[0] == f"testa-1 {data}/wav/testa-1.wav" and scp == sorted(scp)
    assert scp[4:] == ["testc-1 cat wav/x.wav |", "testc-2 /somewhere/y.wav"]
    assert (data / "out/test/spk2utt").read_text().splitlines()[0] == "testa testa-1 testa-2"
    words = [line.split()[0] for line in (data / "out/test/text").read_text().splitlines()]
    assert words == ["testa-1", "testa-2", "testb-1", "testb-2", "testc-1", "testc-2"]
    assert not (data / "out/test/utt2dur").exists() and "utt2dur lacks 5 of 6 keys: left out" in done.stderr
    assert (data / "out/enroll_map").read_text() == "testa-1 testa-1\n"
    assert f"4 relative paths, found in {data}" in done.stderr


def damage_missing_audio(data):
    (data / "wav/trainb-1.wav").unlink()
    return "'trainb-1': no file wav/trainb-1.wav"


def damage_twice(data):
    with open(data / "train/utt2spk", "a") as utt2spk:
        utt2spk.write("traina-1 traina\n")
    return "utt2spk:5: 'traina-1' is there twice"


def damage_no_speaker(data):
    (data / "test/utt2spk").write_text("testa-1 testa\n")
    return "3 utterances are missing, the first is 'testa-2'"


def damage_trials(data):
    (data / "trials").write_text("testa-1 testa-2 target\ntesta-1 testb-1 maybe\n")
    return "trials:2: expected `enroll-id test-id target|nontarget`"


def damage_trial_twice(data):
    (data / "trials").write_text("testa-1 testa-2 target\ntesta-1 testb-1 nontarget\ntesta-1 testa-2 nontarget\n")
    return "trials:3: the trial 'testa-1 testa-2' is there twice, first in line 1"


def damage_unknown_test(data):
    (data / "trials").write_text("testa-1 testa-2 target\ntesta-1 stranger nontarget\n")
    return "test id 'stranger'"


def damage_one_kind(data):
    (data / "trials").write_text("testa-1 testa-2 target\n")
    return "0 nontarget trials; both are needed"


def damage_map(data):
    (data / "test/enroll.spk2utt").write_text("testa-1 testa-1 elsewhere\n")
    return "utterance 'elsewhere'"


@pytest.mark.parametrize("damage", [damage_missing_audio, damage_twice, damage_no_speaker, damage_trials, damage_trial_twice,
                                    damage_unknown_test, damage_one_kind, damage_map])  # fmt: skip
def test_import_names_what_is_wrong(data, damage):
    message = damage(data)
    done = import_data(data)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def test_import_takes_trials_of_other_systems(data):
    """Line ends of Windows and tabs; what follows compares words and cuts lines at blanks."""
    (data / "trials").write_bytes(b"testa-1\ttesta-2 target\r\ntesta-1 testb-1  nontarget\r\n")
    import_data(data)
    assert (data / "out/trials").read_text() == "testa-1 testa-2 target\ntesta-1 testb-1 nontarget\n"


def test_import_warns_of_speakers_in_both_sets(data):
    (data / "test/utt2spk").write_text((data / "test/utt2spk").read_text().replace(" testb", " trainb"))
    assert "1 speakers are in both sets, the first is 'trainb'" in import_data(data).stderr


# ---------------------------------------------------------------------------------------------- stages


STAGES = """
set -euo pipefail
. {root}/utils/stages.sh
stage_one() {{ echo one >>ran; {one} cat input >a; }}
stage_two() {{ echo two >>ran; cat a >b; }}
stages_begin stamps {first} {last} {force} results
run_stage one --options "{options}" --reads input --makes a
run_stage two --title "the second" --after one --makes b
"""


@pytest.fixture
def stages(tmp_path):
    (tmp_path / "input").write_text("hello\n")

    def run(one="", first=1, last=9, force="false", options="", check=True):
        (tmp_path / "ran").unlink(missing_ok=True)
        script = STAGES.format(root=ROOT, one=one, first=first, last=last, force=force, options=options)
        done = shell(script, cwd=tmp_path, check=check)
        ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
        return (ran, done) if not check else ran

    run.folder = tmp_path
    return run


def test_stages_run_once(stages):
    assert stages() == ["one", "two"]
    assert stages() == []
    assert stages(force="true") == ["one", "two"]


def test_stages_run_again_when_something_changed(stages):
    stages()
    assert stages(options="x") == ["one", "two"]
    assert stages(options="x", one="true;") == ["one", "two"]  # the stage's own text
    (stages.folder / "input").write_text("other\n")
    assert stages(options="x", one="true;") == ["one", "two"]
    (stages.folder / "b").unlink()
    assert stages(options="x", one="true;") == ["two"]
    assert (stages.folder / "b").read_text() == "other\n"


def test_a_failed_stage_is_named_and_runs_again(stages):
    ran, done = stages(one="false;", check=False)
    assert ran == ["one"] and done.returncode == 1 and "stage 1 (one) failed" in done.stderr
    ran, done = stages(one="kill -9 $$;", check=False)
    assert ran == ["one"] and done.returncode != 0
    assert stages() == ["one", "two"]


def test_results_of_an_earlier_run_go_when_a_stage_runs(stages):
    results = stages.folder / "results"
    stages()
    results.write_text("old\n")
    assert stages() == [] and results.read_text() == "old\n"
    ran, _ = stages(one="false;", check=False)
    assert ran == ["one"] and not results.exists()
    assert stages() == ["one"]
    results.write_text("old\n")
    assert stages(first=2, force="true") == ["two"] and not results.exists()


@pytest.mark.parametrize(
    "recipe, results",
    [("utils/recipe_lib.sh", "results.txt"), ("egs/timit_phones/run.sh", "results.txt"),
     ("egs/e2e_tutorial/run.sh", "index.html"), ("egs/lecture/run.sh", "index.html")],
)
def test_recipes_remove_what_they_print_the_path_of(recipe, results):
    text = (ROOT / recipe).read_text()
    (begin,) = re.findall(r"^ *stages_begin .*", text, re.MULTILINE)
    assert f' "$dir/{results}"' in begin and f'--makes "$dir/{results}"' in text


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed")
def test_two_runs_at_once_do_not_share_a_folder(stages):
    lock = stages.folder / "stamps" / "lock"
    lock.parent.mkdir(exist_ok=True)
    with subprocess.Popen(["flock", str(lock), "-c", "echo held; sleep 30"], stdout=subprocess.PIPE,
                          start_new_session=True) as other:
        other.stdout.readline()
        ran, done = stages(check=False)
        os.killpg(other.pid, signal.SIGKILL)
    assert ran == [] and done.returncode == 1 and "another run" in done.stderr
    assert stages() == ["one", "two"]


def test_first_and_last_stage(stages):
    ran, done = stages(first=2, check=False)
    assert ran == [] and done.returncode == 1 and "stage 1 (one) has not finished" in done.stderr
    assert stages(last=1) == ["one"]
    assert stages(first=2) == ["two"]
