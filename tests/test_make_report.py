"""The page of an experiment: what is read, grouped and drawn; the whole page, in text and in a browser."""

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import wave
from html.parser import HTMLParser

import numpy as np
import pytest

from helpers import run
from voxark.errors import VoxarkError
from voxark.metrics import Roc, operating_points
from voxark.metrics.report_formats import shown
from voxark.report.experiment import (
    fhvae,
    folder,
    funnel,
    groups,
    making,
    plots,
    render,
    results_section,
    scores,
    training,
)
from voxark.report.experiment.build import PageOptions, build_page
from voxark.report.experiment.curves_section import det_figure
from voxark.trials.lists import TrialList

pytest.importorskip("plotly", reason="plotly is absent: pip install 'voxark[report]'")
pytest.importorskip("jinja2", reason="Jinja2 is absent: pip install 'voxark[report]'")

UPDATE = "LOG (est-gmm) log-likelihood per frame of the model before the update {} over 90 frames\n"
EVIL = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> & %{x} "q"'
SVG = ('<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40" viewBox="0 0 80 40">'
       '<script>window.parent.hacked = 3</script><rect width="80" height="40"/></svg>')  # fmt: skip
DISENTANGLEMENT = """\
120 segments of 12 utterances

factor   apart      latent  accuracy   gain  ratio of gains
speaker  utterance      z1     0.240  0.190
                        z2     0.592  0.565     z2/z1 2.971
MI: of held-out segments

latent  active
z1          32
z2          31
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def launcher_log(command, body="", started="Sat Nov 21 19:44:56 UTC 2026", seconds=3):
    ended = f"# Accounting: time={seconds} threads=1\n# Ended (code 0) at {started}, elapsed time 3 seconds\n"
    return f"# {command}\n# Running on vm\n# Started at {started}\n#\n{body}{ended}"


def make_data(data, rng):
    """Data directories of 8 speakers with 5 utterances each, trials of all pairs; returns the trials."""
    keys = [f"s{speaker}-{number}" for speaker in range(8) for number in range(5)]
    utt2spk = "".join(f"{key} {key[:2]}\n" for key in keys)
    for name in ("train", "test"):
        write(data / name / "utt2spk", utt2spk)
        write(data / name / "utt2dur", "".join(f"{key} {2 + int(key[-1]) + 0.5:.2f}\n" for key in keys))
        write(data / name / ".done.fbank", "feats.scp 0123 2\n")
    write(data / "test" / "spk2gender", "".join(f"s{n} {'fm'[n % 2]}\n" for n in range(8)))
    write(
        data / "test" / "utt2noise", "".join(f"{key} {'car' if key[-1] < '2' else 'clean'}\n" for key in keys)
    )
    write(
        data / "train" / "dropped.prepare",
        f"x1 no audio file /a/x1.wav\nx2 no audio file /a/x2.wav\nx3 {EVIL}\n",
    )
    write(data / "train" / "dropped.fbank", "s0-0 5 frames are too few\n")
    pairs = [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]
    trials = [(a, b, a[:2] == b[:2]) for a, b in pairs]
    write(data / "trials", "".join(f"{a} {b} {'target' if t else 'nontarget'}\n" for a, b, t in trials))
    return trials


def make_scores(path, trials, rng, separation, leave_out=0):
    lines = [f"{a} {b} {rng.normal(separation * t, 1.0):.4f}\n" for a, b, t in trials]
    write(path / "scores", "".join(lines[leave_out:]))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A folder as a recipe leaves it, small, with texts of ill will."""
    exp = tmp_path_factory.mktemp("exp") / "small"
    rng = np.random.default_rng(5)
    trials = make_data(exp / "data", rng)
    for name, separation, leave_out in (("zeta", 3.0, 0), ("alpha", 1.5, 10), ("other", 2.0, 0)):
        make_scores(exp / f"scores_{name}", trials, rng, separation, leave_out)
    write(exp / "systems", f"zeta best {EVIL}\nalpha worse\nnever not run\n")
    write(exp / "scores_alpha" / "dropped", "s0-1 no vector\n")
    write(exp / "experiment", f"title A {EVIL}\ncommand run.sh --x '<b>'\ncorpus made up\n"
          "started 2026-11-21 19:00\n"
          "seed 7\npreset small\ntrials /nowhere/trials\nnumpy 1.2.3\n")  # fmt: skip
    write(
        exp / ".stages" / "journal",
        "1\tdata\tcorpus\t12\t2026-11-21T19:01:00\n2\tgmm\tGMM\t3.5\t2026-11-21T19:02:00\n",
    )
    body = "".join(
        f"LOG (train-gmm-em) iteration {i}: log-likelihood per frame {-60 + i:.4f} over 90 frames\n"
        for i in (1, 2, 3)
    )
    write(exp / "ubm" / "log" / "init.log", launcher_log("train-gmm-em --srand=7 a b", body))
    for number in range(3):
        write(
            exp / "ubm" / "log" / f"update.{number}.log", launcher_log("est-gmm", UPDATE.format(-56 + number))
        )
    metrics = [{"epoch": n, "dev_bound": -9.0 + n, "dev_disc": -1.0, "train_bound": n - 9.5 if n else None,
                "best_epoch": 2} for n in range(3)]  # fmt: skip
    write(exp / "fhvae" / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics))
    write(exp / "fhvae" / "config.json", '{"arch": "lstm"}\n')
    write(exp / "fhvae_segments" / "disentanglement.txt", DISENTANGLEMENT)
    write(exp / "fhvae_figures" / "tsne.svg", SVG)
    (exp / "fhvae_converted").mkdir()
    with wave.open(str(exp / "fhvae_converted" / "a-to-b.wav"), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(8000)
        out.writeframes(struct.pack("<800h", *range(800)))
    return exp


@pytest.fixture(scope="module")
def page(experiment):
    """(the page's text, the log of the program)."""
    done = run("make-report", experiment)
    return (experiment / "report.html").read_text(encoding="utf-8"), done.stderr


@pytest.fixture(scope="module")
def built(experiment):
    """The Page before it becomes HTML."""
    return build_page(folder.read_experiment(experiment), PageOptions(), operating_points("0.01,0.05"))


def section(built, name):
    return next(section for section in built.sections if section.name == name)


def parts(built, name, kind):
    return [part for part in section(built, name).parts if part.kind == kind]


# ---------------------------------------------------------------------------------------------------- reading


def test_systems_come_in_their_order_and_then_by_name(experiment):
    found, unscored = folder.find_systems(experiment)
    assert [system.name for system in found] == ["zeta", "alpha", "other"]
    assert [system.title for system in found] == [f"best {EVIL}", "worse", "other"] and unscored == [
        "not run"
    ]


def test_what_the_file_says_and_what_the_command_line_says(experiment, tmp_path):
    found = folder.read_experiment(experiment)
    assert found.trials == experiment / "data" / "trials"  # /nowhere/trials is not there
    assert [path.name for path in found.labels] == ["test", "train"]
    assert [stage.seconds for stage in found.stages] == [12.0, 3.5]
    assert folder.read_experiment(experiment, title="mine").title == "mine"
    write(tmp_path / "list", "a b target\n")
    assert folder.read_experiment(experiment, trials=tmp_path / "list").trials == tmp_path / "list"


def test_the_last_run_of_a_stage_counts(tmp_path):
    write(tmp_path / "journal", "2\tb\tB\t5\tx\n1\ta\tA\t1\tx\n2\tb\tB\t7\ty\n\n")
    assert [(s.name, s.seconds) for s in folder.read_journal(tmp_path / "journal")] == [
        ("a", 1.0),
        ("b", 7.0),
    ]
    write(tmp_path / "journal", "1\ta\tA\tsoon\tx\n")
    with pytest.raises(VoxarkError, match=r"journal:1: .*seconds"):
        folder.read_journal(tmp_path / "journal")
    write(tmp_path / "journal", "1\ta\tA\t1\tx\n2\tb")  # while it is being written
    assert [stage.name for stage in folder.read_journal(tmp_path / "journal")] == ["a"]


def test_a_named_pipe_among_the_logs_is_not_read(tmp_path):
    write(tmp_path / "a.log", "x\n")
    os.mkfifo(tmp_path / "b.log")
    assert [path.name for path in folder.log_files(tmp_path)] == ["a.log"]


def test_long_titles_keep_their_end():
    first, second = (results_section._short("i-vectors of 400 dimensions, LDA, " + name, 34)
                     for name in ("cosine", "PLDA"))
    assert first.endswith(", LDA, cosine") and second.endswith(", LDA, PLDA") and len(first) <= 34
    assert results_section._short("cosine", 34) == "cosine"


def test_parts_that_jobs_work_on_are_no_data_directories(tmp_path):
    for name in ("train", "test/split2utt/1", "split3/1", "corpus/dev", "ihm/log", ".old"):
        write(tmp_path / name / "utt2spk", "a a\n")
    found = [str(path.relative_to(tmp_path)) for path in folder.find_data_dirs(tmp_path)]
    assert found == ["corpus/dev", "train"]


# ----------------------------------------------------------------------------------------------------- funnel


def test_reasons_that_differ_in_names_and_numbers_are_one():
    reasons = ["no file /a/b.wav", "no file /c/d.wav", "7 frames", "9 frames", "2 frames", "silent", ""]
    assert list(funnel.group_reasons(reasons).items()) == [
        ("… frames", 3),
        ("no file …", 2),
        ("silent", 1),
        ("no reason given", 1),
    ]
    assert funnel.group_reasons(["no file /a/b.wav"]) == {"no file /a/b.wav": 1}


def test_the_funnel_counts_back_to_the_corpus():
    made = funnel.make_funnel(
        "train",
        {"a": "s", "b": "s", "c": "t"},
        {"a": 1.0, "b": 2.0, "c": 4.0},
        False,
        [("prepare", [("x", "no file"), ("y", "no text")]), ("fbank", [("c", "too short")]), ("vad", [])],
    )
    assert (made.num_speakers, made.num_utterances, made.seconds) == (2, 3, 7.0)
    assert [(step.name, step.num_in, step.num_dropped) for step in made.steps] == [
        ("prepare", 5, 2),
        ("fbank", 3, 1),
        ("vad", 2, 0),
    ]
    assert funnel.make_funnel("train", {"a": "s", "b": "s"}, {"a": 1.0}, False, []).seconds is None


def test_the_funnel_of_the_page(built):
    table = parts(built, "data", "table")[0]
    rows = [[cell.text for cell in row] for row in table.cells() if row[0].text == "train"]
    assert [row[3:6] for row in rows] == [
        ["in the corpus", "", "43"],
        ["prepare", "3", "40"],
        ["fbank", "1", "39"],
    ]
    assert "2 × no audio file …" in rows[1][6] and rows[0][2] == f"{40 * 4.5 / 3600:.2f}"
    figure = parts(built, "data", "figure")[0]
    assert {trace["name"]: trace["x"] for trace in figure.data} == {
        "left": [39, 40],
        "dropped by prepare": [3, 0],
        "dropped by fbank": [1, 0],
    } and figure.data[0]["y"] == ["test", "train"][::-1]
    left_out = parts(built, "data", "table")[1]
    assert [row[:2] for row in [[c.text for c in row] for row in left_out.cells()]] == [
        ["scores_alpha", "1"],
        ["scores_alpha: trials", "10"],
    ]


# ----------------------------------------------------------------------------------------------------- groups


def test_groups_by_gender_measure_cross_gender_against_all_targets():
    enroll, test = list("ffmm") + [None, "f"], list("fmfm") + ["f", "f"]
    found = groups.gender_groups(trial_list(["-"] * 6, range(6)), enroll, test)
    assert found.names == ["f / f", "m / m", "cross-gender", "not known"]
    assert found.number.tolist() == [0, 2, 2, 1, 3, 0]
    target = np.array([True, False, False, True, False, False])
    assert found.trials_of("cross-gender", target).tolist() == [True, True, True, True, False, False]
    assert found.trials_of("f / f", target).tolist() == [True, False, False, False, False, True]
    assert groups.gender_groups(trial_list(["-"] * 3, range(3)), ["f", None, None], ["f", "f", "f"]) is None


def trial_list(test_ids, test):
    number = np.arange(len(test), dtype=np.int32)
    return TrialList(
        "list", [f"m{n}" for n in number], test_ids, number, np.array(test, np.int32), number % 2 == 0
    )


def test_groups_by_duration_hold_about_as_many_test_utterances():
    ids = [f"u{n}" for n in range(100)]
    seconds = {key: 1.0 + 0.1 * n for n, key in enumerate(ids)}
    found = groups.duration_groups(trial_list(ids, range(100)), seconds)
    assert np.bincount(found.number).tolist() == [25, 25, 25, 25]
    assert found.names[0].startswith("< 3.4") and found.names[-1].startswith("≥ 8.4")
    bounds = [float(word) for word in re.findall(r"[\d.]+", " ".join(found.names[1:-1]))]
    assert bounds == sorted(bounds)
    assert groups.duration_groups(trial_list(ids, range(100)), {"u0": 1.0}) is None
    assert groups.duration_groups(trial_list(ids, range(100)), dict.fromkeys(ids, 3.0)) is None


def test_groups_by_labels():
    found = groups.label_groups(
        trial_list(["a", "b", "c"], [2, 0, 1, 2]), {"a": "car", "b": "clean", "c": "car"}
    )
    assert found.names == ["car", "clean"] and found.number.tolist() == [0, 0, 1, 0]
    assert groups.label_groups(trial_list(["a", "b"], [0, 1]), {"a": "car"}) is None
    assert groups.label_groups(trial_list(["a", "b"], [0, 1]), {"a": "car", "b": "car"}) is None


def test_speakers_of_models_come_from_their_utterances():
    found = scores.enrolled_speakers(
        {"m1": ["a", "b"], "m2": ["a", "c"], "m3": ["z"]}, {"a": "s", "b": "s", "c": "t"}
    )
    assert found == {"m1": "s"}


# ------------------------------------------------------------------------------------------- measures, curves


def test_error_rates_agree_with_compute_eer(experiment, built):
    for row, name in zip(parts(built, "results", "table")[0].cells(), ("zeta", "alpha", "other")):
        done = run("compute-eer", "--allow-missing", "--ci=jackknife",
                   f"--utt2spk={experiment}/data/test/utt2spk", "--p-target=0.01,0.05", "--format=csv",
                   experiment / "data" / "trials", experiment / f"scores_{name}" / "scores")  # fmt: skip
        head, values = (line.split(",") for line in done.stdout.decode().splitlines()[:2])
        wanted = dict(zip(head, values))
        shown_names = [
            "eer",
            "min_dcf(p=0.01)",
            "min_dcf(p=0.05)",
            "act_dcf(p=0.01)",
            "act_dcf(p=0.05)",
            "cllr",
            "min_cllr",
        ]
        for cell, measure in zip(row[1:], shown_names):
            assert cell.text.removesuffix(" *") == shown(measure, float(wanted[measure]))
            low, high = (shown(measure, float(wanted[f"{measure}_{end}"])) for end in ("low", "high"))
            assert cell.small == f"{low} to {high}"
        assert [cell.value for cell in row[-3:]] == [
            int(wanted["num_target"]),
            int(wanted["num_nontarget"]),
            10 if name == "alpha" else 0,
        ]


def test_error_rates_of_a_group_agree_with_compute_eer(experiment, built):
    done = run(
        "compute-eer",
        f"--by={experiment}/data/test/utt2noise",
        "--format=csv",
        experiment / "data" / "trials",
        experiment / "scores_zeta" / "scores",
    )
    rows = [line.split(",") for line in done.stdout.decode().splitlines()]
    wanted = {row[1]: shown("eer", float(row[rows[0].index("eer")])) for row in rows[1:]}
    table = next(part for part in parts(built, "groups", "table") if "noise" in part.caption)
    first = table.cells()[0]
    assert table.columns[1:] == ["#car", "#clean"]
    assert [cell.text.removesuffix(" *") for cell in first[1:]] == [wanted["car"], wanted["clean"]]


def test_few_speakers_leave_no_intervals(experiment, tmp_path):
    exp = tmp_path / "exp"
    trials = [("a1", "a2", True), ("a1", "b1", False), ("b1", "b2", True), ("b2", "a2", False)]
    make_scores(exp / "scores_x", trials, np.random.default_rng(0), 2.0)
    write(
        exp / "data" / "trials", "".join(f"{a} {b} {'target' if t else 'nontarget'}\n" for a, b, t in trials)
    )
    built = build_page(folder.read_experiment(exp), PageOptions(), operating_points())
    assert not parts(built, "results", "table")[0].cells()[0][1].small
    assert any("does not name the speaker of a1" in part.text for part in parts(built, "results", "text"))
    for name, says in (("data", "No data directories"), ("training", "metrics.jsonl"),
                       ("fhvae", "convert-fhvae"), ("groups", "spk2gender"),
                       ("making", ".stages/journal")):  # fmt: skip
        assert any(says in sentence for sentence in section(built, name).missing), name
    assert all(len(page_section.missing) <= 6 for page_section in built.sections)


CASES = {
    "equal": lambda target, rng: np.zeros(len(target)),
    "perfect": lambda target, rng: np.where(target, 5.0, -5.0),
    "reversed": lambda target, rng: np.where(target, -5.0, 5.0) + rng.normal(size=len(target)),
    "infinite": lambda target, rng: np.where(target, np.inf, rng.choice([-np.inf, 1.0], len(target))),
    "all infinite": lambda target, rng: np.where(target, np.inf, -np.inf),
    "huge": lambda target, rng: 1e299 * rng.normal(size=len(target)),
    "one target": lambda target, rng: np.where(target & (np.cumsum(target) > 1), np.nan, 1.0 * target),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # costs of huge scores overflow
@pytest.mark.parametrize("case", CASES)
def test_odd_scores_make_a_page(experiment, tmp_path, case):
    trials = [line.split() for line in (experiment / "data" / "trials").read_text().splitlines()]
    values = CASES[case](np.array([label == "target" for _, _, label in trials]), np.random.default_rng(1))
    lines = [f"{a} {b} {value}\n" for (a, b, _), value in zip(trials, values) if not np.isnan(value)]
    write(tmp_path / "exp" / "scores_x" / "scores", "".join(lines))
    found = folder.read_experiment(tmp_path / "exp", data=experiment / "data")
    built = build_page(found, PageOptions(), operating_points())
    text = render.render(built)
    assert "NaN" not in render.figures_json(built) and "<html" in text
    assert [part.name for part in parts(built, "det", "figure")] == ["det"]
    cells = parts(built, "results", "table")[0].cells()[0]
    assert all(len(cell.text) <= 12 for cell in cells[1:])
    assert len(lines) + cells[-1].value == len(trials)


def test_intervals_that_would_take_long_are_left_out(experiment, monkeypatch):
    def page_with(most_work):
        monkeypatch.setattr("voxark.report.experiment.build._MOST_WORK", most_work)
        return build_page(folder.read_experiment(experiment), PageOptions(), operating_points())

    work = scores.work(780, 8, 3)
    built = page_with(0.9 * work)
    assert not parts(built, "results", "table")[0].cells()[0][1].small
    assert any("would take long" in part.text for part in parts(built, "results", "text"))
    built = page_with(2.0 * work)
    assert parts(built, "results", "table")[0].cells()[0][1].small
    assert not parts(built, "groups", "table")[0].cells()[0][1].small
    assert any("no intervals" in sentence for sentence in section(built, "groups").missing)


def test_thinned_paths_stay_close():
    rng = np.random.default_rng(1)
    x, y = np.cumsum(rng.exponential(0.001, 5000)), -np.cumsum(rng.exponential(0.001, 5000))
    x[3000:] += 2.0  # a jump, both ends of which must stay
    keep = plots.thinned(x, y, 0.01)
    assert keep[0] == 0 and keep[-1] == 4999 and {2999, 3000} <= set(keep.tolist()) and len(keep) < 1500
    assert np.abs(np.interp(x, x[keep], y[keep]) - y).max() < 0.02
    assert plots.thinned([1.0], [2.0], 0.1).tolist() == [0]


def test_many_scores_give_a_page_of_bounded_size():
    sizes = []
    for number in (2000, 400_000):
        rng = np.random.default_rng(2)
        roc = Roc(rng.normal(2, 1, number), rng.normal(-2, 1, number))
        row = scores.Row("x", "", number, number, {"eer": 0.02, "eer_threshold": 0.0})
        system = folder.System("x", "x", None, None)
        figure = det_figure([scores.Result(system, row, scores.curves_of(roc, operating_points()), 0)])
        sizes.append(len(json.dumps([figure.data, figure.layout])))
    assert sizes[0] < sizes[1] < 60_000


def test_det_table_reads_misses_at_false_alarm_rates():
    roc = Roc(np.array([0.0, 2.0, 3.0, 4.0]), np.arange(-9.5, 0.6, 1.0)[:10])
    row = scores.Row("x", "", 4, 10, {"eer": 0.1, "eer_threshold": 0.0})
    figure = det_figure(
        [
            scores.Result(
                folder.System("x", "x", None, None), row, scores.curves_of(roc, operating_points()), 0
            )
        ]
    )
    assert figure.table.columns[1:] == ["#10 %", "#20 %", "#50 %"]
    assert [cell.text for cell in figure.table.rows[0][1:]] == ["0.00", "0.00", "0.00"]


def test_every_figure_is_one_that_plotly_knows(built):
    from plotly import graph_objects

    figures = render.figures_of(built)
    assert len(figures) > 12
    for figure in figures:
        graph_objects.Figure({"data": figure.data, "layout": figure.layout})  # ValueError for a wrong setting
        assert figure.alt and figure.title and 1 <= figure.aspect <= 5
        assert not any(
            isinstance(v, float) and not math.isfinite(v) for t in figure.data for v in t.get("y", [])
        )


# --------------------------------------------------------------------------------------------------- training


def test_likelihoods_are_found_in_the_logs_of_each_program():
    frame = "ln p per frame"
    cases = (
        (
            "(train-gmm-em) iteration 2: log-likelihood per frame -161.7059 over 118058 frames",
            frame,
            -161.7059,
        ),
        (
            "(train-hmm-em) iteration 2: log-likelihood per frame of the path -1e-05 over 7 frames",
            frame,
            -1e-5,
        ),
        (
            "(train-ivector-extractor) iteration 2: ln p -409 an utterance, -138.8 a frame, change +4",
            frame,
            -138.8,
        ),
        (
            "(train-plda) iteration 2: ln p per vector -17.548755 (change -2e-15), trace",
            "ln p per vector",
            -17.548755,
        ),
        ("(train-dplda) iteration 2: loss 0.123456, penalty 0", "loss", 0.123456),
    )
    for line, what, value in cases:
        assert training.parse_iterations(f"x\nLOG {line}\n") == (what, {2: value})
    assert training.parse_iterations("LOG (est-gmm) nothing\n") == ("", {})
    logs = {f"update.{number}.log": UPDATE.format(-0.5 - number) for number in (0, 1, 10)}
    assert training.parse_updates(logs) == [("update", "ln p per frame", {0: -0.5, 1: -1.5, 10: -10.5})]


def test_the_curves_of_training(built):
    titles = [figure.title for figure in render.figures_of(built)]
    assert {"ubm, init", "ubm, update", "Lower bound, nats a segment"} <= set(titles)
    figure = next(f for f in render.figures_of(built) if f.title == "Lower bound, nats a segment")
    assert [(trace["x"], trace["y"]) for trace in figure.data] == [
        ([1, 2], [-8.5, -7.5]),
        ([0, 1, 2], [-9, -8, -7]),
    ]


def test_damaged_metrics_are_named_and_left_out():
    assert training.parse_metrics('{"epoch": 1}\n{"epoch"\n') is None
    assert training.parse_metrics('{"epoch": 1}\n{"epoch"\n{"epoch": 2}') is None
    assert training.parse_metrics('{"epoch": 1}\n{"epoch"') == [{"epoch": 1}]  # while it is being written
    assert training.parse_metrics("[1]\n") is None and training.parse_metrics("") is None
    assert training.parse_metrics('{"epoch": 1, "x": NaN}\n') is not None


def test_numbers_that_are_not_finite_leave_a_gap():
    lines = training.parse_metrics(
        '{"epoch": 0, "eer": NaN}\n{"epoch": 1, "eer": 0.5}\n{"epoch": 2, "eer": Infinity}\n'
    )
    figures = training.training_figures("e2e", lines)
    assert figures[0].data[0]["y"] == [None, 50.0, None] and "range" not in figures[0].layout["yaxis"]


# ------------------------------------------------------------------------------------------------------ FHVAE


def test_the_disentanglement_report_becomes_tables():
    (_, _, head), (columns, rows, notes), (more, counts, _) = fhvae.parse_tables(DISENTANGLEMENT)
    assert head == ["120 segments of 12 utterances"] and notes == ["MI: of held-out segments"]
    assert columns == ["factor", "apart", "latent", "accuracy", "gain", "ratio of gains"]
    assert rows == [["speaker", "utterance", "z1", "0.240", "0.190", ""],
                    ["speaker", "utterance", "z2", "0.592", "0.565", "z2/z1 2.971"]]  # fmt: skip
    assert more == ["latent", "active"] and counts == [["z1", "32"], ["z2", "31"]]


def test_a_report_by_measure_disentanglement_is_taken_apart_whole():
    from voxark.disentanglement.report import _aligned

    lines = [["factor", "classes", "of gains"], ["phone class", "3", "-"], ["", "12345678", "z1/z2 0.123"]]
    columns, rows, notes = fhvae.parse_tables("\n".join(_aligned(lines, 1)))[0]
    assert columns == lines[0] and notes == []
    assert rows == [["phone class", "3", "-"], ["phone class", "12345678", "z1/z2 0.123"]]


def test_pictures_and_sounds_stay_within_their_bound(tmp_path):
    for name, size in (("a.wav", 600), ("b.wav", 600), ("c.wav", 300)):
        (tmp_path / name).write_bytes(bytes(size))
    budget = fhvae.Budget(0.001)
    found = fhvae.sounds_of(sorted(tmp_path.iterdir()), lambda path: path.name, budget).entries
    assert [bool(data) for _, _, data, _ in found] == [True, False, True]
    assert "--max-media" in found[1][3] and found[0][2].startswith("data:audio/wav;base64,")


# -------------------------------------------------------------------------------------------- how it was made


def test_logs_of_jobs_are_read_and_grouped(tmp_path):
    write(tmp_path / "ubm" / "log" / "acc.1.2.log", launcher_log("set -e; acc-gmm-stats a | b", seconds=4))
    write(tmp_path / "ubm" / "log" / "acc.1.1.log", launcher_log("acc-gmm-stats a", seconds=3))
    write(tmp_path / "ubm" / "log" / "note.log", "LOG (compute-eer) something\n")
    logs = [making.read_log(path) for path in sorted((tmp_path / "ubm" / "log").iterdir())]
    assert logs[2] is None and [log.seconds for log in logs[:2]] == [3.0, 4.0]
    assert (
        logs[0].host == "vm" and logs[0].started.isoformat() == "2026-11-21T19:44:56" and logs[0].code == "0"
    )
    (group,) = making.group_logs(logs[:2], lambda path: path.name)
    assert (group.folder, group.name, group.seconds, len(group.logs)) == ("ubm", "acc", 7.0, 2)
    assert making.commands_parts([group])[1].rows[0][2] == "acc-gmm-stats"
    assert making.parse_date("yesterday") is None


def test_versions_say_as_of_when(built):
    rows = {row[0]: row[1:] for row in parts(built, "making", "table")[1].rows}
    assert rows["numpy"] == ["1.2.3", "run"] and rows["scipy"][1] == "now"
    seeds = next(part for part in parts(built, "making", "table") if part.caption == "Seeds")
    assert seeds.rows == [["experiment", "7"], ["ubm, init", "7"]]


# --------------------------------------------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Collects what a page would load, and its elements."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.ids, self.without_text = [], {}, [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.loads += [
            (tag, attrs[name])
            for name in ("src", "href", "srcset", "poster", "data", "action")
            if name in attrs
        ]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if (
            tag == "img"
            and not attrs.get("alt")
            or attrs.get("role") in ("img", "group")
            and not attrs.get("aria-label")
        ):
            self.without_text.append((tag, attrs))


def test_the_page_is_whole_and_loads_nothing(page):
    text, log = page
    reader = Reader()
    reader.feed(text)
    assert all(value.startswith("data:") if tag in ("img", "audio") else tag == "a" and value[0] == "#"
               for tag, value in reader.loads), reader.loads  # fmt: skip
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert reader.tags["script"] == 3 and reader.tags["img"] == 1 and reader.tags["audio"] == 1
    assert len(reader.ids) == len(set(reader.ids)) and not reader.without_text
    assert {value[1:] for tag, value in reader.loads if tag == "a"} <= set(reader.ids)
    assert "3 systems" in log and "default-src 'none'" in text


def test_texts_are_escaped(page):
    text, _ = page
    assert "<script>window.hacked" not in text and "<img src=x" not in text
    assert "&lt;script&gt;window.hacked" in text
    figures = text[text.index('id="figures">') :]
    assert "<" not in figures[len('id="figures">') : figures.index("</script>")]


def test_the_same_input_gives_the_same_bytes(experiment, page, tmp_path):
    run("make-report", experiment, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page[0]
    assert "2026-11-21 19:00" in page[0]


def failing(*arguments):
    done = run("make-report", "--print-args=false", *arguments, check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("WARNING", "LOG"))]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_what_is_wrong_is_said_in_one_line(experiment, tmp_path):
    assert "no such folder" in failing(tmp_path / "nowhere")
    assert "no scores" in failing(tmp_path)
    write(tmp_path / "bad" / "scores_x" / "scores", "s0-0 s0-1 1.5\ns0-0 s0-2 high\n")
    assert "no such list of trials" in failing(tmp_path / "bad")
    error = failing(f"--trials={experiment}/data/trials", tmp_path / "bad")
    assert "scores_x/scores:2: a score was expected, found 'high'" in error
    assert not (tmp_path / "bad" / "report.html").exists()


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(VoxarkError, match=r"pip install 'voxark\[report\]'"):
        render.require_report()


# ----------------------------------------------------------------------------------------------- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WATCH = """<script>
window.errors = [];
addEventListener("error", (event) => errors.push(String(event.message || event.target.src)), true);
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => errors.push("policy: " + event.violatedDirective));
</script>"""
LOOK = """<script>
addEventListener("load", () => setTimeout(() => {
  const size = (of) => { const box = of.getBoundingClientRect(); return [box.width, box.height]; };
  const table = document.querySelector("#results table");
  const column = (number) => [...table.tBodies[0].rows].map((row) =>
    row.cells[number].firstChild.textContent.trim());
  const seen = { before: column(1), width: innerWidth, page: document.documentElement.scrollWidth };
  const sort = table.querySelectorAll("button.sort");
  sort[1].click();
  seen.up = column(1); seen.order = sort[1].closest("th").getAttribute("aria-sort");
  sort[1].click();
  seen.down = column(1); seen.reversed = sort[1].closest("th").getAttribute("aria-sort");
  sort[0].click();
  seen.names = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  seen.figures = [...document.querySelectorAll(".plotly-figure")].map((figure) => [figure.id, ...size(figure),
    ...size(figure.querySelector("svg.main-svg")), figure.querySelectorAll(".plot path").length]);
  seen.pictures = [...document.images].map((image) => [image.naturalWidth, ...size(image)]);
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 40));
  const det = document.getElementById("figure-det");
  Plotly.Fx.hover(det, [{ curveNumber: 1, pointNumber: 5 }]);
  seen.hover = [...det.querySelectorAll(".hoverlayer text")].map((text) => text.textContent).join(" ");
  document.querySelector(".chooser input").click();
  seen.hidden = det.data.filter((trace) => trace.meta === 0).map((trace) => trace.visible);
  seen.shown = det.data.filter((trace) => trace.meta === 1).map((trace) => trace.visible ?? true);
  const paper = () => getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  seen.light = paper();
  document.getElementById("theme").click();
  seen.dark = paper();
  seen.ink = getComputedStyle(det.querySelector(".xtick text")).fill;
  seen.errors = errors; seen.hacked = window.hacked ?? null;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = "SEEN" + encodeURIComponent(JSON.stringify(seen)) + "SEEN";
  document.body.append(out);
}, 500));
</script>"""


@pytest.fixture(scope="module", params=[500, 1280])
def seen(request, page, tmp_path_factory):
    """What a script saw in the page in a browser whose window is so wide."""
    if CHROMIUM is None:
        pytest.skip("chromium is absent")
    from urllib.parse import unquote

    folder_ = tmp_path_factory.mktemp("browser")
    text = page[0].replace("<head>", "<head>" + WATCH, 1)
    (folder_ / "page.html").write_text(text.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder_ / 'profile'}",
        f"--window-size={request.param},900",
        "--virtual-time-budget=10000",
        "--dump-dom",
        f"file://{folder_ / 'page.html'}",
    ]
    done = subprocess.run(command, capture_output=True, timeout=120)
    found = re.search(r'<pre id="seen">SEEN(.*?)SEEN', done.stdout.decode("utf-8", "replace"))
    assert found, done.stderr.decode("utf-8", "replace")[-2000:]
    return json.loads(unquote(found[1]))


def test_in_a_browser_nothing_fails_and_nothing_is_fetched(seen):
    assert seen["errors"] == [] and seen["hacked"] is None
    assert all(name.startswith(("data:", "blob:")) for name in seen["loaded"]), seen["loaded"]


def test_in_a_browser_every_picture_has_its_size(seen):
    assert len(seen["figures"]) > 12
    for name, width, height, svg_width, svg_height, num_paths in seen["figures"]:
        assert width > 150 and height > 100 and num_paths > 0, name
        assert abs(svg_width - width) < 2 and abs(svg_height - height) < 2, name
    assert seen["pictures"] and all(natural == 80 and width > 20 for natural, width, _ in seen["pictures"])
    assert seen["page"] <= seen["width"]  # nothing makes the whole page wider than the window


def test_in_a_browser_tables_sort_by_number_and_by_name(seen):
    before, up, down = (
        [float(text.removesuffix(" *")) for text in seen[name]] for name in ("before", "up", "down")
    )
    assert before != sorted(before) and up == sorted(before) and down == up[::-1]
    assert (seen["order"], seen["reversed"]) == ("ascending", "descending")
    assert seen["names"] == [f"best {EVIL}", "other", "worse"]


def test_in_a_browser_curves_show_their_values(seen):
    assert (
        re.search(r"misses [\d.]+ %, false alarms [\d.e+-]+ %", seen["hover"])
        and "best <script>" in seen["hover"]
    )


def test_in_a_browser_systems_can_be_chosen_and_colours_switched(seen):
    assert seen["hidden"] and not any(seen["hidden"]) and seen["shown"] and all(seen["shown"])
    light, dark = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("light", "dark"))
    assert light > 700 and dark < 120
    assert sum(map(int, re.findall(r"\d+", seen["ink"])[:3])) > 600  # the figures' text follows
