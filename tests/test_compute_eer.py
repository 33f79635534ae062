"""compute-eer: joining by key, in memory and in step, groups, formats, what Kaldi prints, and bad input."""

import csv
import io
import json
import random

import numpy as np
import pytest
from helpers import golden, needs_data, needs_golden, run, shared_data, shell

from voxark.errors import VoxarkError
from voxark.metrics.error_report import MeasureOptions, few_errors, measure_functions
from voxark.metrics.groups import GroupOptions, parse_bounds, read_groups
from voxark.metrics.intervals import IntervalOptions, confidence, effective_trials
from voxark.trials.joining import JoinOptions, read_joined, stream_joined
from voxark.trials.lists import read_trials
from voxark.metrics import Roc, operating_points
from voxark.metrics.paired import paired_difference
from voxark.trials.speakers import TrialSpeakers

TRIALS = "a x target\na y nontarget\nb x nontarget\nb y target\n"
SCORES = "b y 3\na y 0\na x 1\nb x 2\n"


def write_lists(folder, trials, *scores):
    names = [folder / "trials", *(folder / f"scores{number or ''}" for number in range(len(scores)))]
    for name, text in zip(names, (trials, *scores)):
        name.write_text(text)
    return names


def simulated(num_speakers=8, num_utterances=4, seed=0, systems=1, shift=2.0):
    """Lines of trials, and of the scores of each system, between all utterances of some speakers."""
    rng = np.random.default_rng(seed)
    utterances = [f"s{s}-u{u}" for s in range(num_speakers) for u in range(num_utterances)]
    pairs = [(a, b) for a in utterances for b in utterances if a < b]
    target = np.array([a.split("-")[0] == b.split("-")[0] for a, b in pairs])
    scores = [np.round(rng.standard_normal(len(pairs)) + shift * target, 2) for _ in range(systems)]
    lines = [f"{a} {b} {'target' if t else 'nontarget'}\n" for (a, b), t in zip(pairs, target)]
    scored = [[f"{a} {b} {s:.7g}\n" for (a, b), s in zip(pairs, of)] for of in scores]
    return lines, scored, target, scores


def tables(folder, num_speakers=8, num_utterances=4):
    """utt2spk and utt2gender of what simulated() makes."""
    utterances = [(s, f"s{s}-u{u}") for s in range(num_speakers) for u in range(num_utterances)]
    (folder / "utt2spk").write_text("".join(f"{key} s{s}\n" for s, key in utterances))
    (folder / "utt2gender").write_text("".join(f"{key} {'fm'[s % 2]}\n" for s, key in utterances))
    (folder / "spk2gender").write_text("".join(f"s{s} {'fm'[s % 2]}\n" for s in range(num_speakers)))
    (folder / "utt2dur").write_text(
        "".join(f"{key} {1 + n % 4}.5\n" for n, (_, key) in enumerate(utterances))
    )


# ------------------------------------------------------------------------------------------------- like Kaldi


@needs_golden
def test_prints_what_kaldi_prints():
    kaldi = golden("model/plda.eer").read_bytes()
    done = run("compute-eer", golden("model/plda.labelled"))
    assert done.stdout + b"LOG" == kaldi[: len(done.stdout) + 3] and done.stdout == b"8"
    assert (
        "equal error rate is 8%, at threshold -39.4146" in done.stderr and b"at threshold -39.4146" in kaldi
    )
    assert "ROC convex hull: 7.867 %" in done.stderr
    assert run("compute-eer", "-", stdin=golden("model/plda.labelled").read_bytes()).stdout == b"8"


@pytest.mark.parametrize(
    "num_target, position, printed",
    [
        (3, 1, b"33.33"),
        (6, 1, b"16.67"),
        (16, 1, b"6.25"),
        (700, 1, b"0.1429"),
        (2, 0, b"0"),
        (7000, 1, b"0.01429"),
    ],
)
def test_prints_four_significant_digits(num_target, position, printed):
    # the first `position` targets lie below all non-targets, of which there are as many again
    lines = [f"{-1 if i < position else 1} target\n" for i in range(num_target)]
    lines += [f"{0 if i else 2 * position} nontarget\n" for i in range(num_target)]
    done = run("compute-eer", "-", stdin="".join(lines).encode())
    assert done.stdout == printed


def test_labelled_lists_are_compared_in_single_precision_as_kaldi_does():
    # in single precision the lower target ties with the upper nontarget, and is no longer above it
    text = b"1.000000001 target\n2 target\n1 nontarget\n0 nontarget\n"
    assert run("compute-eer", "-", stdin=text).stdout == b"50"
    exact = json.loads(run("compute-eer", "--format=json", "-", stdin=text).stdout)["rows"][0]["measures"]
    assert exact["eer"]["estimate"] == 0


def test_labelled_lists_are_checked():
    for text, message in (
        (b"1 target\n", "no nontarget trials"),
        (b"1 target 2\n", ":1: 2 columns were expected"),
        (b"1 target\nx nontarget\n", ":2: a score was expected"),
        (b"1 target\nnan nontarget\n", ":2: a score was expected, found 'nan'"),
        (b"", "the list is empty"),
    ):
        for output_format in ("text", "csv"):
            done = run("compute-eer", f"--format={output_format}", "-", stdin=text, check=False)
            assert done.returncode == 1 and message in done.stderr and done.stdout == b""
    for option in ("--ci=jackknife", "--by=x", "--weights=x"):
        assert "need the ids" in run("compute-eer", option, "-", check=False).stderr.splitlines()[-1]


# ----------------------------------------------------------------------------------------------- text


def test_the_two_lines_of_one_system(tmp_path):
    # targets 1 and 3, nontargets 0 and 2: the hull's corner is (0,.5), (.5,0), so the EER 25 %; ties none
    files = write_lists(tmp_path, TRIALS, SCORES)
    first, second = run("compute-eer", "--p-target=0.5", *files).stdout.decode().splitlines()
    assert first == "EER 25.00 % (rocch) at threshold 1.5; minDCF(p=0.5) 0.500; 2 target, 2 nontarget"
    # Cllr: (log2(1+1/e) + log2(1+1/e^3) + log2 2 + log2(1+e^2)) / 4 = 1.1477
    assert second == "scores as log-likelihood ratios: actDCF(p=0.5) 1.000; Cllr 1.148, minCllr 0.500"
    assert run("compute-eer", "--method=interp", *files).stdout.startswith(b"EER 50.00 % (interp)")
    assert run("compute-eer", "--method=kaldi", *files).stdout.startswith(
        b"EER 50.00 % (kaldi) at threshold 3;"
    )
    both = run("compute-eer", "--p-target=0.5,0.01", "--auc", *files).stdout.decode().splitlines()
    assert "minDCF(p=0.5) 0.500, minDCF(p=0.01) 0.500; 2 target" in both[0]
    assert "actDCF(p=0.5) 1.000, actDCF(p=0.01) 1.000; Cllr" in both[1] and both[1].endswith("AUC 0.7500")


def test_systems_side_by_side(tmp_path):
    files = write_lists(tmp_path, TRIALS, SCORES, "a x 4\na y 0\nb x 2\nb y 3\n")
    done = run("compute-eer", "--p-target=0.5", *(file.name for file in files), cwd=tmp_path)
    assert done.stdout.decode() == (
        "system   target  nontarget  EER %  threshold  minDCF(p=0.5)  actDCF(p=0.5)   Cllr  minCllr\n"
        "scores        2          2  25.00        1.5          0.500          1.000  1.148    0.500\n"
        "scores1       2          2   0.00        2.5          0.000          1.000  1.041    0.000\n"
        "EER by rocch\n"
    )


def test_a_preset_gives_its_points_and_their_mean(tmp_path):
    lines, (scored,), target, (scores,) = simulated()
    files = write_lists(tmp_path, "".join(lines), "".join(scored))
    done = run("compute-eer", "--preset=sre16", "--format=json", *files)
    measures = json.loads(done.stdout)["rows"][0]["measures"]
    roc, points = Roc(scores[target], scores[~target]), operating_points(preset="sre16")
    assert measures["mean_min_dcf"]["estimate"] == np.mean([roc.min_dcf(*point.cost)[0] for point in points])
    assert measures["mean_act_dcf"]["estimate"] == np.mean([roc.act_dcf(*point.cost) for point in points])
    for point in points:
        assert measures[f"min_dcf({point.name})"]["estimate"] == roc.min_dcf(*point.cost)[0]
    assert "mean minDCF" in run("compute-eer", "--preset=sre16", *files).stdout.decode()
    for bad in (
        "--preset=sre99",
        "--p-target=2",
        "--p-target=a",
        "--c-miss=0",
        "--c-fa=1,2 --p-target=0.1,0.2,0.3",
    ):
        done = run("compute-eer", *bad.split(), *files, check=False)
        assert (
            done.returncode == 1 and bad.split("=")[0] in done.stderr.splitlines()[-1] and done.stdout == b""
        )


# ------------------------------------------------------------------------------------------- for programs


def library_measures(scores, target, method="rocch"):
    roc = Roc(scores[target], scores[~target])
    return {
        "eer": roc.eer(method)[0],
        "eer_threshold": roc.eer(method)[1],
        "min_dcf(p=0.01)": roc.min_dcf()[0],
        "act_dcf(p=0.01)": roc.act_dcf(),
        "cllr": roc.cllr(),
        "min_cllr": roc.min_cllr(),
        "auc": roc.auc(),
    }


def test_json_and_csv_are_what_the_library_gives(tmp_path):
    lines, scored, target, scores = simulated(systems=2)
    files = write_lists(tmp_path, "".join(lines), *map("".join, scored))
    for chosen in (files[:2], files):
        rows = json.loads(run("compute-eer", "--auc", "--format=json", *chosen).stdout)["rows"]
        table = run("compute-eer", "--auc", "--format=csv", *chosen).stdout.decode()
        lines_of_csv = list(csv.DictReader(io.StringIO(table)))
        assert len(rows) == len(lines_of_csv) == len(chosen) - 1
        for row, line, of_system, file in zip(rows, lines_of_csv, scores, chosen[1:]):
            expected = library_measures(of_system, target)
            assert (row["system"], row["group"], line["system"], line["group"]) == (
                str(file),
                "",
                str(file),
                "",
            )
            assert row["num_target"] == int(line["num_target"]) == target.sum()
            assert row["num_nontarget"] == int(line["num_nontarget"]) == np.sum(~target)
            assert row["measures"].keys() == expected.keys()
            for name, value in expected.items():
                assert row["measures"][name] == {"estimate": value}
                assert float(line[name]) == value


def test_infinities_and_what_is_undefined_are_valid_json(tmp_path):
    files = write_lists(tmp_path, TRIALS, "b y inf\na y -inf\na x -inf\nb x 2\n")

    def refuse(constant):
        raise AssertionError(constant)

    done = run("compute-eer", "--format=json", *files)
    measures = json.loads(done.stdout, parse_constant=refuse)["rows"][0]["measures"]
    assert measures["cllr"]["estimate"] == "inf"
    (line,) = csv.DictReader(io.StringIO(run("compute-eer", "--format=csv", *files).stdout.decode()))
    assert float(line["cllr"]) == np.inf and line["note"] == ""
    assert "Cllr inf" in run("compute-eer", *files).stdout.decode()


def test_labelled_scores_for_programs():
    text = b"1 target\n3 target\n0 nontarget\n2 nontarget\n"
    done = run("compute-eer", "--format=json", "--p-target=0.5", "-", stdin=text)
    report = json.loads(done.stdout)
    (row,) = report["rows"]
    assert (row["num_target"], row["num_nontarget"], row["system"]) == (2, 2, "-")
    assert row["measures"]["eer"]["estimate"] == 0.25 and row["measures"]["min_dcf(p=0.5)"]["estimate"] == 0.5
    assert (report["eer_method"], report["ci"], report["ci_level"]) == ("rocch", "none", 0.95)


# ------------------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize(
    "targets, nontargets, eer, min_dcf",
    [
        ([1.5] * 3, [1.5] * 5, 0.5, 1.0),  # all equal
        ([2, 3], [0, 1], 0.0, 0.0),  # perfect separation
        ([0, 1], [2, 3], 0.5, 1.0),  # the wrong way round
        ([1], [0, 0.5, 2, 3], 1 / 3, 0.5),  # one target
        ([1, 1, 2], [1, 0, 0], 2 / 9, 1 / 3),  # ties: the hull goes from (0,1/3) to (2/3,0)
        ([np.inf, 1], [-np.inf, 0], 0.0, 0.0),  # infinities
    ],
)
def test_edge_cases_have_a_stated_answer(tmp_path, targets, nontargets, eer, min_dcf):
    labelled = [(s, "target") for s in targets] + [(s, "nontarget") for s in nontargets]
    files = write_lists(
        tmp_path,
        "".join(f"m{i} t {label}\n" for i, (_, label) in enumerate(labelled)),
        "".join(f"m{i} t {score}\n" for i, (score, _) in enumerate(labelled)),
    )
    done = run("compute-eer", "--format=json", "--p-target=0.5", *files)
    measures = json.loads(done.stdout)["rows"][0]["measures"]
    assert measures["eer"]["estimate"] == pytest.approx(eer, abs=1e-12)
    assert measures["min_dcf(p=0.5)"]["estimate"] == pytest.approx(min_dcf, abs=1e-12)


@pytest.mark.parametrize(
    "trials, scores, message",
    [
        ("a x\nb y\n", "a x 1\nb y 2\n", "has no third column target|nontarget"),
        ("a x target\n", "a x 1\n", "trials: no nontarget trials among the 1 that have a score"),
        ("a x nontarget\n", "a x 1\n", "trials: no target trials among the 1 that have a score"),
        ("a x maybe\n", "a x 1\n", "'target' or 'nontarget' was expected"),
        (TRIALS, "a x 1\na y nan\nb x 2\nb y 3\n", "scores:2: a score was expected, found 'nan'"),
        (TRIALS, "a x 1\na x 2\nb x 2\nb y 3\n", "scores:2: the pair 'a x' stands already on line 1"),
        (TRIALS + "a x target\n", SCORES, "trials:5: the pair 'a x' stands already on line 1"),
        ("a x target\na x target\n", "a x 1\na x 1\n", "trials:2: the pair 'a x' stands already on line 1"),
        (TRIALS, "", "scores: the list is empty"),
        ("", SCORES, "trials: the list is empty"),
        (TRIALS, "q r 1\n", "of 4 trials have no score"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path, trials, scores, message):
    files = write_lists(tmp_path, trials, scores)
    (tmp_path / "utt2x").write_text("x 1\ny 1\n")
    for arguments in (
        files,
        [f"--by={tmp_path}/utt2x", *files],
        [*files, files[1]],
    ):  # in step, and in memory
        done = run("compute-eer", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


def test_order_of_lines_does_not_matter(tmp_path):
    lines, scored, _, _ = simulated(systems=2)
    tables(tmp_path)
    files = write_lists(tmp_path, "".join(lines), *map("".join, scored))
    commands = [
        files[:2],
        files,
        [f"--by={tmp_path}/utt2gender", "--format=csv", *files],
        ["--ci=jackknife", f"--utt2spk=ark:{tmp_path}/utt2spk", "--format=json", *files],
        ["--ci=bootstrap", "--ci-replicates=20", f"--utt2spk=ark:{tmp_path}/utt2spk", *files],
    ]
    before = [run("compute-eer", *command).stdout for command in commands]
    random.seed(1)
    for group in (lines, *scored):
        random.shuffle(group)
    write_lists(tmp_path, "".join(lines), *map("".join, scored))
    assert [run("compute-eer", *command).stdout for command in commands] == before


# ------------------------------------------------------------------------------------------------- joining


def test_missing_and_extra_scores_are_errors_unless_allowed(tmp_path):
    files = write_lists(tmp_path, TRIALS, "b y 3\na x 1\nb x 2\nc x 9\n")
    for allowed, message in (
        ((), "1 of 4 trials have no score, the first is 'a y'"),
        (("--allow-missing",), "1 of 4 scores are of no trial, the first is 'c x'"),
        (("--allow-extra",), "1 of 4 trials have no score"),
    ):
        done = run("compute-eer", *allowed, *files, check=False)
        assert done.returncode == 1 and message in done.stderr and done.stdout == b""
    done = run("compute-eer", "--allow-missing", "--allow-extra", f"--failed-list={tmp_path}/failed", *files)
    assert b"2 target, 1 nontarget" in done.stdout and "done 3, failed 1" in done.stderr
    assert (tmp_path / "failed").read_text() == f"a y has no score in {files[1]}\n"


def test_the_list_of_missing_pairs_is_written_where_they_are_an_error_too(tmp_path):
    lines, (scored,), _, _ = simulated()
    files = write_lists(tmp_path, "".join(lines), "".join(scored[:40] + scored[90:]))
    done = run("compute-eer", f"--failed-list={tmp_path}/failed", *files, check=False)
    assert done.returncode == 1 and f"50 of {len(lines)} trials have no score" in done.stderr
    named = [line.split()[:2] for line in (tmp_path / "failed").read_text().splitlines()]
    assert named == [line.split()[:2] for line in lines[40:90]]


def test_trials_that_one_system_lacks_are_left_out_for_all(tmp_path):
    files = write_lists(tmp_path, TRIALS, SCORES, "a x 1\na y 0\nb x 2\n", "b y 3\na y 0\na x 1\n")
    with pytest.raises(VoxarkError, match="scores1: 1 of 4 trials have no score.*scores2: 1 of 4 trials"):
        read_joined(str(files[0]), list(map(str, files[1:])), JoinOptions())
    joined = read_joined(str(files[0]), list(map(str, files[1:])), JoinOptions(allow_missing=True))
    assert [joined.trials.pair(p) for p in range(len(joined.trials))] == ["a x", "a y"]
    assert joined.scores.tolist() == [[1, 1, 1], [0, 0, 0]] and joined.trials.target.tolist() == [True, False]
    done = run("compute-eer", "--allow-missing", f"--failed-list={tmp_path}/failed", *files)
    assert "done 2, failed 2" in done.stderr  # each trial counts once, whatever lacks it
    assert len((tmp_path / "failed").read_text().splitlines()) == 2
    with pytest.raises(VoxarkError, match="only one of the inputs can be standard input"):
        read_joined("-", ["-"], JoinOptions())


def blocks_of(folder, lines, scored, monkeypatch, block=7, **options):
    """What stream_joined yields for lists that are read in blocks of a few lines, as one array a column."""
    monkeypatch.setattr("voxark.trials.lists._BLOCK_TRIALS", block)
    monkeypatch.setattr("voxark.trials.columns.BLOCK_BYTES", 300)
    files = write_lists(folder, "".join(lines), "".join(scored))
    options = {"options": JoinOptions(), **options}
    blocks = list(stream_joined(*map(str, files), **options))
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks]), blocks


def test_lists_in_step_stream(tmp_path, monkeypatch):
    lines, (scored,), target, (scores,) = simulated()
    found, labels, blocks = blocks_of(tmp_path, lines, scored, monkeypatch, max_in_memory=10)
    assert len(blocks) > 10 and found.tolist() == scores.tolist() and labels.tolist() == target.tolist()
    # other ids under the same numbers are no step
    renamed = [line.replace("s3-u1", "x3-u1") for line in scored]
    with pytest.raises(VoxarkError, match="trials have no score.*scores are of no trial"):
        blocks_of(tmp_path, lines, renamed, monkeypatch)


def test_lists_with_gaps_stream_too(tmp_path, monkeypatch):
    lines, (scored,), target, (scores,) = simulated()
    kept = np.random.default_rng(0).random((2, len(lines))) < 0.97
    lists = ([text for text, keep in zip(column, of) if keep] for column, of in zip((lines, scored), kept))
    options = JoinOptions(allow_missing=True, allow_extra=True)
    found, labels, blocks = blocks_of(tmp_path, *lists, monkeypatch, max_in_memory=100, options=options)
    both = kept.all(axis=0)
    assert both.sum() < len(lines) - 20 and len(blocks) > 10
    assert sorted(zip(found, labels)) == sorted(zip(scores[both], target[both]))


def test_lists_in_other_order_wait_in_memory_and_are_refused_beyond_it(tmp_path, monkeypatch):
    lines, (scored,), target, (scores,) = simulated()
    order = np.random.default_rng(0).permutation(len(lines))
    for mixed in (scored[:-100] + scored[-100:][::-1], [scored[place] for place in order]):
        found, labels, _ = blocks_of(tmp_path, lines, mixed, monkeypatch)
        assert sorted(zip(found, labels)) == sorted(zip(scores, target))
        with pytest.raises(VoxarkError, match="in different order: more than 50 lines wait.*sort both"):
            blocks_of(tmp_path, lines, mixed, monkeypatch, max_in_memory=50)


@pytest.mark.parametrize("allowed", [False, True])
def test_streams_report_missing_and_unknown_trials(tmp_path, monkeypatch, allowed, caplog):
    lines, (scored,), _, (scores,) = simulated()
    options = JoinOptions(allow_missing=allowed, allow_extra=allowed)
    for text, message, number in (
        (
            scored[:-3],
            f"3 of {len(lines)} trials have no score, the first is '{' '.join(lines[-3].split()[:2])}'",
            -3,
        ),
        (scored[:200] + scored[201:], f"1 of {len(lines)} trials have no score", -1),
        (scored + ["q r 1\n"], f"1 of {len(lines) + 1} scores are of no trial, the first is 'q r'", 0),
    ):
        caplog.clear()
        if allowed:
            found, _, _ = blocks_of(tmp_path, lines, text, monkeypatch, options=options)
            assert len(found) == len(lines) + number
        else:
            with pytest.raises(VoxarkError):
                blocks_of(tmp_path, lines, text, monkeypatch, options=options)
        assert message in caplog.text


def test_pairs_that_stand_twice_are_found_in_streams(tmp_path, monkeypatch, caplog):
    lines, (scored,), _, _ = simulated()
    twice = lines[:50] + [lines[20]] + lines[50:], scored[:50] + [scored[20]] + scored[50:]
    with pytest.raises(VoxarkError, match="trials:51: the pair .* stands already on line 21"):
        blocks_of(tmp_path, *twice, monkeypatch)
    with pytest.raises(VoxarkError, match="scores:51: the pair .* stands already on line 21"):
        blocks_of(tmp_path, lines, twice[1], monkeypatch)
    assert len(blocks_of(tmp_path, *twice, monkeypatch, max_in_memory=60)[0]) == len(lines) + 1
    assert "pairs that stand twice are not looked for" in caplog.text


def test_long_lists_go_to_disk_and_give_the_same(tmp_path):
    lines, (scored,), _, _ = simulated(12, 6)
    files = write_lists(tmp_path, "".join(lines), "".join(scored))
    expected = run("compute-eer", "--format=json", "--auc", *files).stdout
    small = run("compute-eer", "--format=json", "--auc", "--max-memory=1e-5", *files)
    assert "pairs that stand twice are not looked for" in small.stderr
    assert_alike(json.loads(small.stdout), json.loads(expected))


def assert_alike(found, expected):
    """Equal reports; sums may be taken in another order."""
    for ours, theirs in zip(found["rows"], expected["rows"], strict=True):
        for name, measure in theirs["measures"].items():
            assert ours["measures"][name]["estimate"] == pytest.approx(measure["estimate"], rel=1e-12), name
        assert ours["num_target"] == theirs["num_target"]


# ------------------------------------------------------------------------------------------- groups, weights


def test_groups_are_what_selected_lists_give(tmp_path):
    lines, (scored,), target, (scores,) = simulated()
    tables(tmp_path)
    files = write_lists(tmp_path, "".join(lines), "".join(scored))
    gender = np.array([["fm"[int(word[1]) % 2] for word in line.split()[:2]] for line in lines])
    duration = np.array([[int(word[-1]) + 1.5 for word in line.split()[:2]] for line in lines])
    cases = {
        "": {"f": gender[:, 1] == "f", "m": gender[:, 1] == "m"},
        "--by-side=enroll": {"f": gender[:, 0] == "f", "m": gender[:, 0] == "m"},
        "--by-side=both": {f"{a}/{b}": (gender == [a, b]).all(axis=1) for a in "fm" for b in "fm"},
    }
    for option, groups in cases.items():
        check_groups(tmp_path, ["--by=utt2gender", *option.split()], files, groups, scores, target)
    check_groups(tmp_path, ["--by=ark:spk2gender", "--utt2spk=ark:utt2spk"], files, cases[""], scores, target)
    bins = {
        "<2": duration[:, 1] < 2,
        "2-4.5": (duration[:, 1] >= 2) & (duration[:, 1] < 4.5),
        ">=4.5": duration[:, 1] >= 4.5,
    }
    check_groups(tmp_path, ["--by=utt2dur", "--by-bins=2,4.5"], files, bins, scores, target)
    each = {f"{d}.5": duration[:, 1] == d + 0.5 for d in (1, 2, 3, 4)}
    check_groups(tmp_path, ["--by=utt2dur"], files, each, scores, target)


def check_groups(folder, options, files, groups, scores, target):
    """The groups of the report against error rates of the trials chosen by a mask."""
    rows = json.loads(run("compute-eer", "--format=json", "--auc", *options, *files, cwd=folder).stdout)[
        "rows"
    ]
    assert [row["group"] for row in rows] == ["", *groups]
    for row, chosen in zip(rows, (np.ones(len(target), bool), *groups.values())):
        assert row["num_target"] == np.sum(target & chosen) and row["num_nontarget"] == np.sum(
            ~target & chosen
        )
        if 0 in (row["num_target"], row["num_nontarget"]):
            assert row["measures"] == {} and row["note"]
        else:
            expected = library_measures(scores[chosen], target[chosen])
            assert {name: m["estimate"] for name, m in row["measures"].items()} == expected


def test_groups_that_lack_a_class_say_so(tmp_path):
    files = write_lists(tmp_path, TRIALS + "a z nontarget\n", SCORES + "a z 1\n")
    (tmp_path / "utt2noise").write_text("x clean\ny clean\nz street\n")
    text = run("compute-eer", "--by=utt2noise", *files, cwd=tmp_path).stdout.decode().splitlines()
    assert text[0].split()[:3] == ["group", "target", "nontarget"] and text[1].split()[:4] == [
        "all",
        "2",
        "3",
        "28.57",
    ]
    assert text[2].split()[:4] == ["clean", "2", "2", "25.00"]
    assert text[3].split()[:4] == ["street", "0", "1", "-"] and text[3].endswith("no target trials")
    (tmp_path / "utt2dur").write_text("x 1\ny 1\nz 9\n")
    done = run("compute-eer", "--by=utt2dur", "--by-bins=2,4", "--format=csv", *files, cwd=tmp_path)
    lines = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [line["group"] for line in lines] == ["", "<2", "2-4", ">=4"]
    assert [line["note"] for line in lines] == [
        "",
        "",
        "no target and no nontarget trials",
        "no target trials",
    ]
    assert lines[2]["eer"] == "" and float(lines[1]["eer"]) == 0.25


@pytest.mark.parametrize(
    "table, options, message",
    [
        ("x clean\n", [], "y: has no label in utt2x (1 of 2 ids have none)"),
        ("x 1\ny soft\n", ["--by-bins=1,2"], "'soft' is none"),
        ("x 1\ny nan\n", ["--by-bins=1,2"], "'nan' is none"),
        ("x 1\ny 2\n", ["--by-bins=2,1"], "--by-bins=2,1: rising numbers"),
        ("x 1\ny 2\n", ["--by-bins=a"], "--by-bins=a: rising numbers"),
        ("x\ny 2\n", [], "utt2x"),
    ],
)
def test_bad_groups_are_refused(tmp_path, table, options, message):
    files = write_lists(tmp_path, TRIALS, SCORES)
    (tmp_path / "utt2x").write_text(table)
    done = run("compute-eer", "--by=utt2x", *options, *files, cwd=tmp_path, check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


def test_bounds_and_bins(tmp_path):
    assert parse_bounds("2, 4.50")[0] == ["2", "4.50"]
    files = write_lists(tmp_path, "m a target\nm b target\nm c target\nm d nontarget\n", "")
    (tmp_path / "utt2dur").write_text("a 1.99\nb 2\nc 3.99\nd 4\nunused soft\n")
    groups = read_groups(read_trials(str(files[0])), GroupOptions(f"ark:{tmp_path}/utt2dur", "test", "2,4"))
    assert groups.names == ["<2", "2-4", ">=4"] and groups.number.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "weights, message",
    [
        ("1 -1 1 1", "weights: the weight of a y is -1: it must be finite and not negative"),
        ("1 1 inf 1", "weights: the weight of b x is inf"),
        ("0 1 1 0", "weights: no target trials with a weight"),
    ],
)
def test_bad_weights_are_named(tmp_path, weights, message):
    files = write_lists(tmp_path, TRIALS, SCORES)
    pairs = [" ".join(line.split()[:2]) for line in TRIALS.splitlines()]
    lines = [f"{pair} {weight}\n" for pair, weight in zip(pairs, weights.split())]
    (tmp_path / "weights").write_text("".join(lines))
    done = run("compute-eer", f"--weights={tmp_path}/weights", *files, check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


def test_a_full_standard_output_is_named(tmp_path):
    files = write_lists(tmp_path, TRIALS, SCORES)
    for output_format in ("text", "csv", "json"):
        done = shell(f"compute-eer --format={output_format} {files[0]} {files[1]} >/dev/full", check=False)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and "standard output: cannot be written: No space left on device" in last


def test_weights_count_as_repeated_trials(tmp_path):
    lines, (scored,), target, (scores,) = simulated()
    weights = np.random.default_rng(1).integers(0, 4, len(lines))
    weighted = [f"{' '.join(line.split()[:2])} {w}\n" for line, w in zip(lines, weights)]
    files = write_lists(tmp_path, "".join(lines), "".join(scored), "".join(weighted[::-1]))
    done = run("compute-eer", f"--weights={files[2]}", "--format=json", "--auc", *files[:2])
    (row,) = json.loads(done.stdout)["rows"]
    expected = library_measures(np.repeat(scores, weights), np.repeat(target, weights))
    for name, value in expected.items():
        assert row["measures"][name]["estimate"] == pytest.approx(value, rel=1e-12), name
    files[2].write_text("".join(weighted[1:]))
    done = run("compute-eer", f"--weights={files[2]}", *files[:2], check=False)
    assert (
        done.returncode == 1 and f"scores1: 1 of {len(lines)} trials have no" in done.stderr.splitlines()[-1]
    )
    files[2].write_text("".join(weighted[1:]) + weighted[0].rsplit(" ", 1)[0] + " -1\n")
    done = run("compute-eer", f"--weights={files[2]}", *files[:2], check=False)
    assert done.returncode == 1 and "negative" in done.stderr.splitlines()[-1]


# ------------------------------------------------------------------------------------------------- intervals


def or_null(values):
    """Numbers as JSON has them: null for NaN."""
    return [None if np.isnan(value) else value for value in values]


@pytest.mark.parametrize("method", ["jackknife", "bootstrap", "naive"])
def test_intervals_and_differences_are_the_librarys(tmp_path, method):
    lines, scored, target, scores = simulated(systems=2)
    tables(tmp_path)
    files = write_lists(tmp_path, "".join(lines), *map("".join, scored))
    options = IntervalOptions(ci=method, ci_level=0.9, ci_replicates=50, srand=3)
    command = [f"--ci={method}", "--ci-level=0.9", "--ci-replicates=50", "--srand=3"]
    order, speakers = np.lexsort(np.array([line.split()[1::-1] for line in lines]).T), None
    if method != "naive":
        command.append(f"--utt2spk=ark:{tmp_path}/utt2spk")
        speakers = TrialSpeakers.of_names(*np.array([[w[:2] for w in line.split()[:2]] for line in lines]).T)
        speakers = speakers.select(order)
    target, (first, second) = target[order], (system[order] for system in scores)
    rocs = [Roc(system[target], system[~target]) for system in (first, second)]
    functions = measure_functions(operating_points(), MeasureOptions())
    rows = json.loads(run("compute-eer", *command, "--format=json", *files).stdout)["rows"]
    for row, roc, of_system in zip(rows, rocs, (first, second), strict=True):
        for name, interval in confidence(roc, target, speakers, functions, options).items():
            given = row["measures"][name]
            assert [given[field] for field in ("estimate", "low", "high", "error")] == or_null(interval)
        if speakers is None:
            assert row["effective_target"] is None
        else:
            expected = effective_trials(of_system, target, speakers, roc.eer()[1])
            assert [row["effective_target"], row["effective_nontarget"]] == or_null(expected)
    assert "difference" not in rows[0]["measures"]["eer"]
    for name, of in paired_difference(rocs[1], rocs[0], target, speakers, functions, options).items():
        given = rows[1]["measures"][name]
        found = given["difference"], given["difference_low"], given["difference_high"], given["p"]
        assert list(found) == or_null((of.difference, of.low, of.high, of.p_value))
    text = run("compute-eer", *command, *files).stdout.decode().splitlines()
    eer = rows[0]["measures"]["eer"]
    assert text[1].split() == [
        "EER",
        "%",
        files[1].name,
        *(f"{100 * eer[key]:.2f}" for key in ("estimate", "low", "high")),
    ]
    assert text[-1] == f"90 % intervals by {method}; EER by rocch"
    (line, _) = csv.DictReader(
        io.StringIO(run("compute-eer", *command, "--format=csv", *files).stdout.decode())
    )
    assert [float(line[f"eer{field}"]) for field in ("", "_low", "_high")] == [
        eer["estimate"],
        eer["low"],
        eer["high"],
    ]
    assert line["eer_difference"] == ""


def test_intervals_of_groups_and_of_groups_with_too_few_speakers(tmp_path):
    lines, (scored,), _, _ = simulated()
    tables(tmp_path)
    (tmp_path / "utt2one").write_text(
        "".join(f"s{s}-u{u} {'many' if s else 'one'}\n" for s in range(8) for u in range(4))
    )
    files = write_lists(tmp_path, "".join(lines), "".join(scored))
    command = ["--ci=jackknife", "--utt2spk=ark:utt2spk", "--by=utt2one", "--by-side=both"]
    done = run("compute-eer", *command, "--format=json", *files, cwd=tmp_path)
    rows = {row["group"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows.keys() == {"", "many/many", "one/many", "one/one"}
    assert "low" in rows["many/many"]["measures"]["eer"] and rows["many/many"]["note"] == ""
    assert rows["one/many"]["note"] == "no target trials" and rows["one/one"]["note"] == "no nontarget trials"
    # a group of two speakers has error rates, but the jackknife has nothing to leave out
    (tmp_path / "utt2two").write_text(
        "".join(f"s{s}-u{u} {'many' if s > 1 else 'two'}\n" for s in range(8) for u in range(4))
    )
    done = run(
        "compute-eer", *command[:2], "--by=utt2two", "--by-side=both", "--format=json", *files, cwd=tmp_path
    )
    rows = {row["group"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["two/two"]["measures"]["eer"].keys() == {"estimate"} and "speaker" in rows["two/two"]["note"]
    text = run(
        "compute-eer", *command[:2], "--by=utt2two", "--by-side=both", *files, cwd=tmp_path
    ).stdout.decode()
    assert rows["two/two"]["note"] in text


def test_options_that_cannot_be_are_refused(tmp_path):
    files = write_lists(tmp_path, TRIALS, SCORES)
    for options, message in (
        (["--ci=jackknife"], "--utt2spk"),
        (["--ci=naive", "--ci-level=1"], "--ci-level=1"),
        (["--ci=other"], "other"),
        (["--ci=naive", "--method=kaldi"], "--method=kaldi is not defined"),
        (["--by-bins=2"], "--by, which is missing"),
        (["--max-memory=0"], "--max-memory=0"),
        (["--max-memory=inf"], "--max-memory=inf"),
    ):
        done = run("compute-eer", *options, *files, check=False)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


# ------------------------------------------------------------------------------------------- the rule of 30


def test_few_errors_are_named_with_their_counts(tmp_path):
    files = write_lists(tmp_path, TRIALS, SCORES)
    done = run("compute-eer", "--p-target=0.5", *files)
    assert "rule of 30: 1 misses and 1 false alarms at EER" in done.stderr
    rng = np.random.default_rng(0)
    options, points = MeasureOptions(), operating_points("0.5,0.001")
    roc = Roc(rng.standard_normal(400) + 2, rng.standard_normal(40000))
    threshold = roc.min_dcf(0.001)[1]
    number = int(np.sum(roc.nontarget >= threshold))
    assert number < 30 < np.sum(roc.target < threshold)
    assert few_errors(roc, points, options) == [f"{number} false alarms at minDCF(p=0.001)"]
    assert measure_functions(points, options).keys() == {
        "eer",
        "eer_threshold",
        "min_dcf(p=0.5)",
        "min_dcf(p=0.001)",
        "act_dcf(p=0.5)",
        "act_dcf(p=0.001)",
        "cllr",
        "min_cllr",
    }


# ------------------------------------------------------------------------------------------------ real scores


@needs_data("embeddings")
def test_real_scores_give_the_error_rates_that_are_known_of_them(tmp_path):
    # cosine scores of a public encoder, said to have 7.0 % EER on this list and 8.0 % on its harder part
    corpus = shared_data("speechocean762/test")
    vectors = np.load(shared_data("embeddings/ge2e_dvectors/so762_dev_test.npz"))
    x = dict(zip(vectors["utts"], vectors["x"] / np.linalg.norm(vectors["x"], axis=1, keepdims=True)))
    pairs = [line.split()[:2] for line in (corpus / "trials").read_text().splitlines()]
    (tmp_path / "scores").write_text("".join(f"{a} {b} {x[a] @ x[b]:.7g}\n" for a, b in pairs))
    options = "--ci=jackknife --utt2spk=ark:{0}/utt2spk --by={0}/spk2gender --format=json".format(corpus)
    done = shell(f"compute-eer {options} {corpus}/trials - < {tmp_path}/scores")
    rows = json.loads(done.stdout)["rows"]
    assert [row["group"] for row in rows] == ["", "f", "m"]
    eer = rows[0]["measures"]["eer"]
    assert eer["estimate"] == pytest.approx(0.070, abs=0.003) and eer["low"] < 0.07 < eer["high"]
    assert rows[0]["num_target"] == 1050 == rows[1]["num_target"] + rows[2]["num_target"]
    assert 50 < rows[0]["effective_target"] < 1050 and 50 < rows[0]["effective_nontarget"] < 20000
    hard = run(
        "compute-eer", "--allow-extra", "--format=json", corpus / "trials_samegroup", tmp_path / "scores"
    )
    (row,) = json.loads(hard.stdout)["rows"]
    assert row["measures"]["eer"]["estimate"] == pytest.approx(0.080, abs=0.003)
    paste = f"paste -d' ' <(cut -d' ' -f3 {tmp_path}/scores) <(cut -d' ' -f3 {corpus}/trials) | compute-eer -"
    kaldi = Roc(*split_by_label(corpus / "trials", tmp_path / "scores")).eer("kaldi")[0]
    assert shell(paste).stdout.decode() == f"{100 * kaldi:.4g}"


def split_by_label(trials, scores):
    """Scores of the targets and of the nontargets of two lists in the same order."""
    values = np.array([float(line.split()[2]) for line in scores.read_text().splitlines()])
    target = np.array([line.split()[2] == "target" for line in trials.read_text().splitlines()])
    return values[target], values[~target]


def test_systems_have_the_names_that_are_given_or_what_differs_between_files(tmp_path):
    lines = ["a x target\n", "a y nontarget\n", "b x nontarget\n"]
    (tmp_path / "trials").write_text("".join(lines))
    for number, system in enumerate(("one", "two")):
        (tmp_path / system).mkdir()
        scores = "".join(f"{' '.join(line.split()[:2])} {number - place}\n" for place, line in enumerate(lines))
        (tmp_path / system / "scores").write_text(scores)
    files = [tmp_path / system / "scores" for system in ("one", "two")]
    command = ["compute-eer", tmp_path / "trials", *files]
    assert [line.split()[0] for line in run(*command).stdout.decode().splitlines()[1:3]] == ["one", "two"]
    named = run(*command, "--labels=A,B", "--format=json").stdout
    assert [row["system"] for row in json.loads(named)["rows"]] == ["A", "B"]
    assert [row["system"] for row in json.loads(run(*command, "--format=json").stdout)["rows"]] == [str(f) for f in files]
    for labels, message in (("A", "1 names for 2 lists"), ("A,A", "two systems have the same name")):
        assert message in run(*command, f"--labels={labels}", check=False).stderr
