"""The recipe of egs/e2e_tutorial: its numbers against closed forms and brute force, pictures, page."""

import ast
import csv
import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import ROOT, environment, forked_environment

pytest.importorskip("matplotlib")
pytest.importorskip("torch")
RUN, LOCAL = ROOT / "egs/e2e_tutorial/run.sh", ROOT / "local/e2e_tutorial"
PICTURES = [
    "01_densities",
    "02_triplets",
    "03_weights",
    "04_variance",
    "05_batches",
    "06_correlations",
    "07_batch_size",
    "08_two_by_two",
    "09_schedule",
    "10_trial_weights",
    "11_tnorm",
    "12_calibration",
]
NUM_STAGES = 15


def load(name):
    """A module of local/e2e_tutorial."""
    if str(LOCAL) not in sys.path:
        sys.path.append(str(LOCAL))
    return importlib.import_module(name)


def recipe(*options, check=True):
    done = subprocess.run(
        [str(RUN), *map(str, options)], capture_output=True, text=True, env=forked_environment(with_torch=True), timeout=600
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def local(program, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, str(LOCAL / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done


def write_scored(folder):
    """A list for --scored, without a newline at its end, of one system, whose scores are the speakers' alone."""
    folder.mkdir()
    utts = [(f"s{s:02d}-{u}", s) for s in range(30) for u in range(4)]
    effects = np.random.default_rng(5).standard_normal(30)
    (folder / "utt2spk").write_text("".join(f"{utt} s{s:02d}\n" for utt, s in utts))
    pairs = [(a, b, s == t, effects[s] if s == t else effects[s] + effects[t]) for a, s in utts for b, t in utts if a < b]
    (folder / "trials").write_text("".join(f"{a} {b} {'target' if same else 'nontarget'}\n" for a, b, same, _ in pairs))
    (folder / "scores").write_text("".join(f"{a} {b} {score:.6f}\n" for a, b, _, score in pairs))
    (folder / "list").write_text(f"own {folder}/trials {folder}/scores {folder}/utt2spk")
    return folder / "list"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, output) of a quick run."""
    folder = tmp_path_factory.mktemp("e2e_tutorial") / "exp"
    done = recipe("--quick", "true", "--dir", folder, "--scored", write_scored(folder.parent / "scored"))
    assert "ERROR" not in done.stderr, done.stderr
    return folder, done.stdout


def rows(finished, name):
    with open(finished[0] / "pictures" / f"{name}.tsv", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


# ----------------------------------------------------------------------------------------- toy demonstrations


def test_the_densities_have_the_errors_of_the_tutorial(finished):
    found = rows(finished, "01_densities")
    wanted = [(12.2, 14.0), (13.7, 13.5), (0.0, 16.7)]
    for row, (identification, verification) in zip(found, wanted, strict=True):
        assert 100 * float(row["identification"]) == pytest.approx(identification, abs=0.06)
        assert 100 * float(row["verification"]) == pytest.approx(verification, abs=0.06)
        for kind in ("identification", "verification"):
            assert abs(float(row[kind]) - float(row[f"drawn_{kind}"])) < 0.002


def test_the_flat_density_by_hand_and_the_others_by_draws():
    """Differences of two U(-b, b) are triangular: both errors are integrals of lines; d = 2b."""
    toy = load("toy_densities")
    flat = toy.DENSITIES[2]
    assert flat.half_width == pytest.approx(np.sqrt(3)) and toy.identification_error(flat) == 0.0
    d = toy.DISTANCE
    t = np.linspace(0, d, 200001)
    # P(|difference| > t) = (1 - t/d)^2, and P(|d + difference| <= t) = t^2 / (2 d^2) for 0 <= t <= d
    by_hand = 0.5 * (1 - t / d) ** 2 + 0.5 * t**2 / (2 * d * d)
    error, threshold = toy.verification_error(flat)
    assert error == pytest.approx(by_hand.min(), abs=1e-4) and threshold == pytest.approx(
        t[by_hand.argmin()], abs=0.02
    )
    rng = np.random.default_rng(3)
    for density in toy.DENSITIES[:2]:
        x = density.draw(200_000, rng)
        assert x.var() == pytest.approx(1.0, abs=0.02)
        places = np.linspace(-2.5, 2.5, 11)
        np.testing.assert_allclose(
            (x[:, None] <= places).mean(axis=0), density.distribution(places), atol=0.005
        )
        error, threshold = toy.verification_error(density)
        target = np.abs(density.draw(200_000, rng) - x)
        nontarget = np.abs(d + density.draw(200_000, rng) - x)
        drawn = [
            0.5 * np.mean(target > at) + 0.5 * np.mean(nontarget <= at) for at in np.linspace(0.5, 4.5, 81)
        ]
        assert min(drawn) == pytest.approx(error, abs=0.003)  # no other threshold does better
        assert 0.5 * np.mean(target > threshold) + 0.5 * np.mean(nontarget <= threshold) == pytest.approx(
            error, abs=0.003
        )


def test_triplets_are_satisfied_and_verification_errs(finished):
    (row,) = rows(finished, "02_triplets")
    assert int(row["violations"]) == 0 and float(row["worst"]) < 0
    assert 100 * float(row["min_error"]) == pytest.approx(5.9, abs=0.2)
    assert 100 * float(row["eer"]) == pytest.approx(7.8, abs=0.2)
    toy = load("toy_triplets")
    # by brute force over points on the rims, where the worst triplets are
    angle = np.linspace(0, 2 * np.pi, 181)[:-1]
    rims = [c + r * np.stack([np.cos(angle), np.sin(angle)], 1) for c, r in zip(toy.CENTRES, toy.RADII)]
    for s in range(3):
        others = np.concatenate([rims[o] for o in range(3) if o != s])
        positive = np.linalg.norm(rims[s][:, None] - rims[s], axis=2).max(axis=1)
        negative = np.linalg.norm(rims[s][:, None] - others, axis=2).min(axis=1)
        assert (positive - negative).max() + toy.MARGIN <= toy.worst_triplet(s) + 1e-9


# ---------------------------------------------------------------------------------------------------- weights


def test_the_weights_are_those_of_the_formula(finished):
    found = rows(finished, "03_weights")
    assert len(found) == 5 * 19
    for row in found:
        c, n = float(row["c"]), int(row["n"])
        r = 1 + 2 * (n - 2) * c + (n - 2) * (n - 3) * c * c / 2
        assert float(row["weight"]) == pytest.approx(1 / r, rel=1e-8) == float(row["explicit"])
        assert float(row["total"]) == pytest.approx(n * (n - 1) / 2 / r, rel=1e-8)
        assert float(row["total"]) < 1 / c**2


def test_the_variances_are_as_predicted_and_blue_is_lower(finished):
    found = rows(finished, "04_variance")
    assert len(found) == 10
    for row in found:
        row = {name: value if name == "kind" else float(value) for name, value in row.items()}
        for name in ("uniform", "blue"):
            assert abs(row[name] - row[f"{name}_predicted"]) < 4.5 * row[f"{name}_error"]
            assert row[f"{name}_error"] == pytest.approx(
                row[name] * np.sqrt(2 / row["repetitions"]), rel=0.25
            )
        assert row["blue_predicted"] < row["uniform_predicted"]
        if row["c"] >= 0.3:
            assert row["ratio"] + 4 * row["ratio_error"] < 1


def test_drawn_losses_have_the_correlations_that_were_asked_for():
    losses = load("simulated_losses")
    from voxark.trials.correlations import NontargetComponents, TargetComponents

    rng = np.random.default_rng(0)
    for is_target, components in (
        (True, TargetComponents.of_chain(0.5)),
        (False, NontargetComponents.of_chain(0.5)),
    ):
        trials = losses.TrialsOfCounts.of(np.array([3, 2, 4]), is_target)
        drawn = trials.draw(components, 40_000, rng)
        found = np.corrcoef(drawn.T)
        pairs = np.stack((trials.first, trials.second), 1)
        for i, one in enumerate(pairs):
            for j, other in enumerate(pairs[:i]):
                utterance = bool(set(one) & set(other))
                speakers = len(set(trials.speaker[one]) & set(trials.speaker[other]))
                if is_target:
                    wanted = 0.0 if not speakers else components.correlations["c1" if utterance else "c2"]
                else:
                    kind = (
                        ("c_us" if utterance else "c_ss")
                        if speakers == 2
                        else ("c_u" if utterance else "c_s")
                    )
                    wanted = components.correlations[kind] if speakers else 0.0
                assert found[i, j] == pytest.approx(wanted, abs=0.03)
        assert np.allclose(drawn.var(axis=0), 1, atol=0.05)


def test_mini_batches_average_to_the_objective_only_with_their_weights(finished):
    found = rows(finished, "05_batches")
    assert {(r["class"], r["batch"], r["weights"]) for r in found} == {
        (c, b, w) for c in ("target", "nontarget") for b in "AB" for w in ("weighted", "plain")
    }
    for row in found:
        deviations = (float(row["mean"]) - float(row["objective"])) / float(row["error"])
        assert deviations == pytest.approx(float(row["deviations"]), rel=1e-4)
        if row["weights"] == "weighted":
            assert abs(deviations) < 4
    assert max(abs(float(row["deviations"])) for row in found if row["weights"] == "plain") > 8


# -------------------------------------------------------------------------------------------------- the world


def test_the_world_can_be_inverted_and_its_truth_is_the_likelihood_ratio_of_all_frames():
    world = load("world").make_world()
    rng = np.random.default_rng(5)
    y = world.recordings(world.speakers(2, rng), 3, rng)
    np.testing.assert_allclose(world.hidden(world.seen(y)), y, atol=1e-10)
    between, recording, frame = (root @ root.T for root in (world.speaker, world.recording, world.frame))
    frames = 3

    def log_density(x, same):
        """Of the frames of two recordings, stacked, as one Gaussian."""
        one = np.kron(np.ones((frames, frames)), recording + between) + np.kron(np.eye(frames), frame)
        cross = np.kron(np.ones((frames, frames)), between) if same else np.zeros_like(one)
        covariance = np.block([[one, cross], [cross, one]])
        return -0.5 * (np.linalg.slogdet(covariance)[1] + x @ np.linalg.solve(covariance, x))

    x = y.reshape(-1)
    truth = world.truth(frames)
    u = truth.project(y.mean(axis=1))
    assert truth.llr(u[:1], u[1:])[0, 0] == pytest.approx(
        log_density(x, True) - log_density(x, False), rel=1e-8
    )


def test_what_is_measured_of_scores():
    measuring, world = load("measuring"), load("world").make_world()
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(400), 3)
    y = world.recordings(world.speakers(400, rng)[labels], 20, rng).mean(axis=1)
    trials = measuring.TestTrials.of(world.truth(20), y, labels)
    true = trials.measures(trials.true)
    assert true["slope"] == pytest.approx(1, abs=0.1) and true["offset"] == pytest.approx(0, abs=0.2)
    assert (
        true["cllr"] - true["min_cllr"] < 0.01
        and true["rms"] == 0
        and true["correlation"] == pytest.approx(1)
    )
    other = trials.measures(2 * trials.true - 1)
    assert other["slope"] == pytest.approx(true["slope"] / 2, rel=1e-6)
    assert other["offset"] == pytest.approx(true["offset"] + true["slope"] / 2, abs=1e-6)
    assert other["eer"] == pytest.approx(true["eer"]) and other["cllr"] > true["cllr"]


# --------------------------------------------------------------------------------------------------- networks


def test_every_network_was_measured_and_none_beats_the_truth(finished):
    with open(finished[0] / "systems.tsv", newline="") as table:
        found = list(csv.DictReader(table, delimiter="\t"))
    *systems, truth = found
    assert truth["system"] == "true" and len(systems) == len(
        (finished[0] / "systems").read_text().splitlines()
    )
    names = {(row["experiment"], row["system"]) for row in systems}
    assert (
        len({name for name in names if name[0] == "2x2"}) == 4
        and len({n for n in names if n[0] == "schedule"}) == 4
    )
    assert {n for e, n in names if e == "weights"} == {"uniform", "blue", "meta"}
    for row in systems:
        assert 0.8 * float(truth["eer"]) < float(row["eer"]) < 0.45
        assert float(truth["min_cllr"]) * 0.95 < float(row["min_cllr"]) <= float(row["cllr"]) + 1e-9


def test_systems_of_ones_own_stand_beside_the_recipes(finished):
    found = {(row["system"], row["on"], row["kind"]): row for row in rows(finished, "06_correlations")}
    assert {system for system, _, _ in found} == {"PLDA", "DPLDA", "network", "own"}
    for kind, wanted in {"c1": 1, "c2": 1, "c_us": 1, "c_ss": 1, "c_u": 0.5, "c_s": 0.5}.items():
        assert float(found["own", "score", kind]["correlation"]) == pytest.approx(wanted, abs=1e-3), kind
    assert "own" in (finished[0] / "index.html").read_text()


def test_the_two_by_two_effects_are_differences_of_its_cells(finished):
    found = {(row["measure"], row["what"]): float(row["mean"]) for row in rows(finished, "08_two_by_two")}
    for measure in ("eer", "cllr"):
        cells = {
            key: found[measure, f"{key[0]}, {key[1]}"]
            for key in [
                (t, loss) for t in ("joint", "back-end only") for loss in ("identification", "verification")
            ]
        }
        for loss in ("identification", "verification"):
            assert found[measure, f"joint - back-end only, {loss}"] == pytest.approx(
                cells["joint", loss] - cells["back-end only", loss], abs=1e-7
            )


def test_t_norm_takes_away_shift_and_scale_of_each_test():
    evaluate, measuring = load("evaluate"), load("measuring")
    rng = np.random.default_rng(2)
    scores, cohort = rng.standard_normal((5, 5)), rng.standard_normal((5, 30))
    first, second = np.triu_indices(5, 1)
    trials = measuring.TestTrials(first, second, first == 0, np.zeros(10))
    plain = evaluate.t_normalised(scores[first, second], cohort, trials)
    scale, shift = rng.uniform(1, 3, 5), rng.standard_normal(5)
    moved = evaluate.t_normalised(
        (scores * scale + shift)[first, second], cohort * scale[:, None] + shift[:, None], trials
    )
    np.testing.assert_allclose(moved, plain, atol=1e-10)


# ---------------------------------------------------------------------------------- pictures, page, recipe


def test_no_picture_is_empty(finished):
    pictures = sorted((finished[0] / "pictures").glob("*.svg"))
    assert [p.stem for p in pictures] == PICTURES
    for path in pictures:
        root = ElementTree.parse(path).getroot()
        drawn = [e for e in root.iter() if e.tag.endswith(("}path", "}use"))]
        assert len(drawn) > 60, path
        assert not [e.get("d") for e in drawn if re.search("nan|inf", e.get("d", "") + e.get("x", ""))], path
    assert len({path.read_bytes() for path in pictures}) == len(PICTURES)


class Captions(HTMLParser):
    """The articles' ids and the text of their captions, without what is code."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.texts, self.inside, self.code = [], [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "article":
            self.ids.append(dict(attributes)["id"])
        if tag == "figcaption":
            self.inside = True
            self.texts.append("")
        self.code = tag == "code"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "figcaption"
        self.code = False

    def handle_data(self, data):
        if self.inside and not self.code:
            self.texts[-1] += data


def test_the_page_has_all_pictures_and_says_what_their_tables_say(finished):
    text = (finished[0] / "index.html").read_text()
    page = Captions(text)
    assert page.ids == PICTURES and text.count("<svg") == len(PICTURES)
    assert not re.search("<script|<link|<iframe", text)
    for caption in page.texts:
        said = caption.rpartition("Made by")[0].strip()
        assert len(re.findall(r"[.?:](?=\s+[A-Z0-9]|$)", said)) >= 2 and "nan" not in said, said
    by_name = dict(zip(page.ids, page.texts))
    assert "12.2 % and 14.0 %" in by_name["01_densities"] and "13.7 % and 13.5 %" in by_name["01_densities"]
    (triplets,) = rows(finished, "02_triplets")
    assert f"EER {100 * float(triplets['eer']):.1f} %" in by_name["02_triplets"]
    schedule = {r["system"]: r for r in rows(finished, "09_schedule") if r["measure"] == "eer"}
    assert f"{100 * float(schedule['linear']['mean']):.2f} % with the schedule" in by_name["09_schedule"]


def test_the_second_run_does_nothing_and_other_options_ask_for_earlier_stages(finished):
    folder, said = finished
    assert len(re.findall(r"stage \d+: .*: done in", said)) == NUM_STAGES
    scored = folder.parent / "scored"
    again = recipe("--quick", "true", "--dir", folder, "--scored", scored / "list").stdout
    assert again.count("finished before, skipped") == NUM_STAGES and ": done in" not in again
    assert not list(folder.rglob("*.partial*"))
    other = recipe("--quick", "true", "--dir", folder, "--seed", "1", "--stage", "8", check=False)
    assert other.returncode == 1 and "start from it: --stage 1" in other.stderr
    other = recipe("--quick", "true", "--dir", folder, "--stage", "14", check=False)
    assert other.returncode == 1 and "start from it: --stage 10" in other.stderr
    with open(scored / "scores", "a") as scores:
        scores.write("\n")  # scores that have changed are measured again
    other = recipe("--quick", "true", "--dir", folder, "--scored", scored / "list", "--stage", "14", check=False)
    assert other.returncode == 1 and "start from it: --stage 10" in other.stderr


@pytest.mark.parametrize("options, said", [
    (("--format", "gif"), "expected svg or png"),
    (("--few-speakers", "a"), "expected numbers with commas"),
    (("--num-seeds", "0"), "--num-seeds 0: at least 1"),
    (("--network-conf", "nosuch"), "no such file"),
    (("folder",), "unexpected argument 'folder'"),
])  # fmt: skip
def test_wrong_options_are_refused(tmp_path, options, said):
    done = recipe("--dir", tmp_path / "exp", *options, check=False)
    assert done.returncode == 1 and said in done.stderr


@pytest.mark.parametrize("text, said", [
    ("a x\nb x y", "list:1: four words were expected"),
    ("a {0} {0} {0}\nb {0} {0}", "list:2: four words were expected"),
    ("a {0} {0} {0} {0}\n", "list:1: four words were expected"),
    ("a {0} {0} nosuch\n", "list:1: nosuch: no such file"),
    ("a/b {0} {0} {0}\n", "list:1: 'a/b' cannot be"),
    ("a {0} {0} {0}\na {0} {0} {0}\n", "list:2: there is another system called a"),
    ("DPLDA {0} {0} {0}\n", "another system called DPLDA"),
])  # fmt: skip
def test_bad_lists_of_scored_systems_are_refused(tmp_path, text, said):
    (tmp_path / "list").write_text(text.format(tmp_path / "list"))
    done = recipe("--dir", tmp_path / "exp", "--scored", tmp_path / "list", check=False)
    assert done.returncode == 1 and said in done.stderr and not (tmp_path / "exp").exists()


def test_bad_tables_are_refused(tmp_path):
    table = tmp_path / "x.tsv"
    table.write_text("experiment\tsystem\tseed\n")
    done = local("plot_schedule.py", table, tmp_path / "t.tsv", tmp_path / "p.svg", check=False)
    assert done.returncode == 1 and "has no rows" in done.stderr
    table.write_text("experiment\tsystem\tseed\tspeakers\teer\tcllr\nother\ta\t1\t3\t0.1\t0.2\n")
    done = local("plot_schedule.py", table, tmp_path / "t.tsv", tmp_path / "p.svg", check=False)
    assert done.returncode == 1 and "no row with" in done.stderr and not (tmp_path / "p.svg").exists()
    done = local("make_page.py", tmp_path, tmp_path / "page.html", check=False)
    assert done.returncode == 1 and "no such table" in done.stderr


@pytest.mark.parametrize("program", sorted(p.name for p in LOCAL.glob("*.py") if p.stat().st_mode & 0o100))
def test_every_program_explains_itself(program):
    text = ast.get_docstring(ast.parse((LOCAL / program).read_text()))
    assert all(part in text for part in (f"Usage: {program} ", f"e.g.: {program} ", "See also: "))
