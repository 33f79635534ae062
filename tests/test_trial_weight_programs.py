"""estimate-trial-correlations and compute-trial-weights on lists, and the programs that take the weights."""

import json

import numpy as np
import pytest
from helpers import needs_data, run, shared_data, write_lines
from test_blue import MIXED, all_pairs, covariance
from test_dependence import simulate

from voxark.trials.correlations import (
    Correlations, NontargetComponents, TargetComponents, read_correlations, write_correlations)
from voxark.trials.lists import read_scores, read_trials
from voxark.errors import VoxarkError

TARGET = TargetComponents.of_components(0.25, 0.15)
NONTARGET = NontargetComponents.of_components(0.08, 0.06, 0.1, 0.05)


@pytest.fixture
def lists(tmp_path):
    """Trials of 20 speakers of 2 to 5 utterances, 70 % of all pairs, in random order, with simulated scores."""
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 6, 20)
    targets, nontargets, speaker = all_pairs(counts)
    values = np.concatenate((simulate(rng, TARGET, targets, speaker) + 2.0,
                             simulate(rng, NONTARGET, nontargets, speaker) - 2.0))  # fmt: skip
    pairs = np.concatenate((targets, nontargets), axis=1)
    order = rng.permutation(pairs.shape[1])[: int(0.7 * pairs.shape[1])]
    lines, scores = [], []
    for t in order.tolist():
        a, b = pairs[:, t].tolist()
        label = "target" if speaker[a] == speaker[b] else "nontarget"
        lines.append(f"u{a:03d} u{b:03d} {label}")
        scores.append(f"u{a:03d} u{b:03d} {values[t]:.6f}")
    write_lines(tmp_path / "utt2spk", *(f"u{n:03d} s{s:02d}" for n, s in enumerate(speaker.tolist())))
    write_lines(tmp_path / "trials", *lines)
    write_lines(tmp_path / "scores", *scores[::-1])
    return tmp_path


def estimate(lists, *options):
    return run("estimate-trial-correlations", f"--utt2spk=ark:{lists}/utt2spk", *options, lists / "trials",
               lists / "scores", lists / "correlations.json")  # fmt: skip


def test_from_scores_to_weights_to_error_rates(lists):
    done = estimate(lists, "--on=score")
    table = done.stdout.decode().splitlines()
    assert len(table) == 7 and table[0].split()[0] == "class" and "done" in done.stderr
    content = json.loads((lists / "correlations.json").read_text())
    assert content["on"] == "score"
    trials = read_trials(str(lists / "trials"))
    assert content["target"]["num_trials"] == trials.target.sum()
    found = read_correlations(str(lists / "correlations.json"))
    np.testing.assert_allclose(found.target, TARGET, atol=0.25)
    assert abs(found.target.u + found.target.v - content["target"]["correlations"]["c1"]) < 1e-12

    run("compute-trial-weights", f"--correlations={lists}/correlations.json", lists / "utt2spk", lists / "trials",
        lists / "weights")  # fmt: skip
    weighted = read_scores(str(lists / "weights"))
    assert [weighted.pair(p) for p in range(len(weighted))] == [trials.pair(p) for p in range(len(trials))]
    speaker = dict(line.split() for line in (lists / "utt2spk").read_text().splitlines())
    names = sorted(set(speaker.values()))
    for is_target, components in ((True, found.target), (False, found.nontarget)):
        chosen = np.flatnonzero(trials.target == is_target)
        of_class = weighted.scores[chosen]
        assert of_class.mean() == pytest.approx(1.0, abs=1e-6) and of_class.std() > 0.01
        if is_target:
            ids = sorted(speaker)
            pairs = np.array([[ids.index(word) for word in trials.pair(p).split()] for p in chosen]).T
            of_utterance = np.array([names.index(speaker[key]) for key in ids])
            best = np.linalg.solve(covariance(pairs, of_utterance, components.correlations), np.ones(len(chosen)))
            np.testing.assert_allclose(of_class, best / best.mean(), rtol=1e-5)

    plain = run("compute-eer", "--format=json", lists / "trials", lists / "scores").stdout
    rates = run("compute-eer", "--format=json", f"--weights={lists}/weights", lists / "trials",
                lists / "scores").stdout  # fmt: skip
    measures = [json.loads(text)["rows"][0]["measures"] for text in (plain, rates)]
    eer, weighted_eer = (each["eer"]["estimate"] for each in measures)
    assert 0 < weighted_eer < 0.3 and weighted_eer != eer
    run("calibrate-scores", f"--train-trials={lists}/trials", f"--weights={lists}/weights", lists / "scores",
        lists / "llrs")  # fmt: skip
    done = estimate(lists, "--p-target=0.1", "--num-groups=0")
    assert " - " in done.stdout.decode()
    assert json.loads((lists / "correlations.json").read_text())["p_target"] == 0.1


def test_the_order_of_the_lines_does_not_matter(lists):
    estimate(lists, "--on=score")
    first = (lists / "correlations.json").read_text()
    lines = (lists / "trials").read_text().splitlines()
    write_lines(lists / "trials", *sorted(lines))
    estimate(lists, "--on=score")
    assert (lists / "correlations.json").read_text() == first


def test_equal_numbers_and_correlations_by_option(tmp_path):
    targets, nontargets, speaker = all_pairs(np.full(4, 3))
    pairs = np.concatenate((targets, nontargets), axis=1).T.tolist()
    write_lines(tmp_path / "utt2spk", *(f"u{n:02d} s{s}" for n, s in enumerate(speaker.tolist())))
    write_lines(tmp_path / "trials", *(f"u{a:02d} u{b:02d}" for a, b in pairs))  # labels follow from the speakers
    for options in (["--c=0.3"], ["--c=0.7", "--nontarget-correlations=0.3,0.2,0.1,0.05"],
                    ["--target-components=0.1,0.2", "--nontarget-components=0.1,0.1,0,0.1"]):  # fmt: skip
        run("compute-trial-weights", *options, f"ark:{tmp_path}/utt2spk", tmp_path / "trials", tmp_path / "weights")
        assert read_scores(str(tmp_path / "weights")).scores.tolist() == [1.0] * len(pairs)


def test_the_table_has_the_closed_form_beside_the_list(tmp_path):
    targets, nontargets, speaker = all_pairs(MIXED)
    pairs = np.concatenate((targets, nontargets), axis=1).T.tolist()
    write_lines(tmp_path / "utt2spk", *(f"u{n:02d} s{s}" for n, s in enumerate(speaker.tolist())))
    write_lines(tmp_path / "trials", *(f"u{a:02d} u{b:02d}" for a, b in pairs))
    done = run("compute-trial-weights", "--c=0.4", "--table=-", tmp_path / "utt2spk", tmp_path / "trials",
               tmp_path / "weights")  # fmt: skip
    rows = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    assert len(rows) == 4 + 12  # n of 2 to 5; pairs of 1 to 5, of which 1, 4 and 5 have one speaker each
    for row in rows:
        left, right = (side.split() for side in row.split("|"))
        assert float(left[-2]) == pytest.approx(float(right[0]), abs=2e-5), row
        assert float(left[-1]) == pytest.approx(float(right[1]), abs=2e-4), row


def test_negative_weights_are_told_of_and_clipped(tmp_path):
    """Many trials of one utterance, and few of another."""
    rng = np.random.default_rng(1)
    lines = {(0, 1)} | {(0, n) for n in range(2, 30)} | {(1, n) for n in range(30, 32)}
    write_lines(tmp_path / "utt2spk", *(f"u{n:02d} s{n:02d}" for n in range(40)))
    lines |= {tuple(sorted(rng.choice(40, 2, replace=False).tolist())) for _ in range(10)}
    write_lines(tmp_path / "trials", *(f"u{a:02d} u{b:02d} nontarget" for a, b in sorted(lines)))
    arguments = ("--nontarget-components=0.0,0.49,0,0", *(tmp_path / name for name in ("utt2spk", "trials", "weights")))
    done = run("compute-trial-weights", *arguments)
    assert "weights are negative" in done.stderr and read_scores(str(tmp_path / "weights")).scores.min() < 0
    done = run("compute-trial-weights", "--clip", *arguments)
    weights = read_scores(str(tmp_path / "weights")).scores
    assert "set to 0" in done.stderr and weights.min() == 0 and weights.mean() == pytest.approx(1.0, abs=1e-6)


def test_enrolment_ids_of_several_utterances_count_as_one(tmp_path):
    write_lines(tmp_path / "utt2spk", *(f"u{n} s{n // 3}" for n in range(9)))
    write_lines(tmp_path / "trials", *(f"s{m} u{n} {'target' if n // 3 == m else 'nontarget'}"
                                       for m in range(3) for n in range(9) if (m, n) != (0, 4)))  # fmt: skip
    run("compute-trial-weights", "--c=0.3", tmp_path / "utt2spk", tmp_path / "trials", tmp_path / "weights")
    weights = read_scores(str(tmp_path / "weights")).scores
    assert len(weights) == 26 and weights.std() > 0


@pytest.mark.parametrize("options, message", [
    ([], "no correlations are given"),
    (["--c=0.7"], "0 <= c <= 0.5"),
    (["--c=0.3", "--correlations=x"], "not both"),
    (["--target-components=0.1,0.1"], "correlations of nontarget trials are not given"),
    (["--c=0.3", "--target-correlations=0.5"], "2 numbers"),
    (["--c=0.3", "--target-correlations=0.2,0.3"], "c1 >= c2"),
    (["--correlations=trials"], "no file of trial correlations"),
    (["--correlations=missing"], "missing"),
])  # fmt: skip
def test_wrong_correlations_are_one_line(lists, options, message):
    done = run("compute-trial-weights", *options, "utt2spk", "trials", "weights", cwd=lists, check=False)
    assert done.returncode == 1 and not (lists / "weights").exists()
    assert message in done.stderr.splitlines()[-1] and done.stderr.splitlines()[-1].startswith("ERROR")


def test_wrong_lists_are_one_line(lists):
    done = run("estimate-trial-correlations", lists / "trials", lists / "scores", lists / "x", check=False)
    assert done.returncode == 1 and "--utt2spk" in done.stderr.splitlines()[-1]
    with open(lists / "trials", "a") as out:
        out.write("u000 u000 target\n")
    for program, arguments in (
        ("compute-trial-weights", ["--c=0.2", lists / "utt2spk", lists / "trials"]),
        ("estimate-trial-correlations",
         ["--allow-missing", f"--utt2spk=ark:{lists}/utt2spk", lists / "trials", lists / "scores"]),
    ):  # fmt: skip
        if program.startswith("estimate"):
            with open(lists / "scores", "a") as out:
                out.write("u000 u000 1\n")
        done = run(program, *arguments, lists / "x", check=False)
        assert done.returncode == 1 and "with itself" in done.stderr.splitlines()[-1]
        assert not (lists / "x").exists()


def test_the_file_of_correlations_is_read_strictly(tmp_path):
    path = str(tmp_path / "correlations")
    write_correlations(path, {"on": "loss", "target": {"components": TARGET._asdict()}, "nontarget": None})
    assert read_correlations(path) == Correlations(TARGET, None)
    content = json.loads((tmp_path / "correlations").read_text())
    for change, message in (({"version": 9}, "version 9"), ({"format": "x"}, "is missing"),
                            ({"target": {"components": {"u": 1}}}, "u, v, e"),
                            ({"target": {"components": {"u": 0.1, "v": 0.1, "e": 0.9}}}, "leave e = 0.7"),
                            ({"target": {"components": {"u": -1, "v": 0.1, "e": 0.9}}}, "u >= 0")):  # fmt: skip
        (tmp_path / "changed").write_text(json.dumps({**content, **change}))
        with pytest.raises(VoxarkError, match=message):
            read_correlations(str(tmp_path / "changed"))


@needs_data("speechocean762")
def test_recorded_speech_errs_together(tmp_path):
    """Scores of d-vectors: the more two trials share, the higher their correlation, by far beyond its error."""
    vectors = np.load(shared_data("embeddings/ge2e_dvectors/so762_dev_test.npz"))
    place = {key: number for number, key in enumerate(vectors["utts"].tolist())}
    x = vectors["x"] / np.linalg.norm(vectors["x"], axis=1, keepdims=True)
    corpus = shared_data("speechocean762/test")
    trials = [line.split()[:2] for line in (corpus / "trials").read_text().splitlines()]
    write_lines(tmp_path / "scores", *(f"{a} {b} {x[place[a]] @ x[place[b]]:.6f}" for a, b in trials))
    run("estimate-trial-correlations", "--on=score", f"--utt2spk=ark:{corpus}/utt2spk", corpus / "trials",
        tmp_path / "scores", tmp_path / "correlations")  # fmt: skip
    content = json.loads((tmp_path / "correlations").read_text())
    for name, order in (("target", ["c1", "c2"]), ("nontarget", ["c_us", "c_ss", "c_u", "c_s"])):
        values, errors = content[name]["correlations"], content[name]["errors"]
        assert [values[kind] for kind in order] == sorted(values.values(), reverse=True)
        assert all(values[kind] > 3 * errors[kind] for kind in order)
