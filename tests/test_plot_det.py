"""Pictures of scores: curves against brute force, what is drawn, degenerate scores, the program."""

import builtins
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from helpers import needs_data, run, shared_data
from voxark.errors import VoxarkError
from voxark.report import curves
from voxark.report.det import MOST_SYSTEMS, System, color_of, marker_of, shortened
from voxark.report.drawing import check_picture, picture_format
from voxark.report.score_picture import PANELS, PictureOptions, draw_scores
from voxark.trials.system_names import distinct_names
from voxark.metrics import Roc, operating_points

SCORES = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=30)
ANY = st.lists(
    st.one_of(st.integers(-6, 6).map(float), st.sampled_from([np.inf, -np.inf])), min_size=1, max_size=20
)


def normal(num_target=300, num_nontarget=4000, separation=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return Roc(rng.normal(separation, 1.5, num_target), rng.normal(-separation, 1.5, num_nontarget))


def all_vertices(target, nontarget):
    """The path of (Pmiss, Pfa), by counting, with thresholds just below and just above each score."""
    path = [(0.0, 1.0)]
    for score in sorted(set(target) | set(nontarget)):
        path.append((np.mean(target < score), np.mean(nontarget >= score)))
        path.append((np.mean(target <= score), np.mean(nontarget > score)))
    return np.array(path)


def distance_to_path(x, y, path_x, path_y):
    """Largest distance, along the farther axis, of points (x, y) from a path, by its nearest segment."""
    ax, ay, bx, by = path_x[:-1], path_y[:-1], path_x[1:], path_y[1:]
    worst = 0.0
    for px, py in zip(x, y):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(
            ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / np.where(length > 0, length, 1.0), 0.0, 1.0
        )
        worst = max(worst, np.min(np.maximum(abs(ax + t * (bx - ax) - px), abs(ay + t * (by - ay) - py))))
    return worst


# ----------------------------------------------------------------------------------------------------- curves


@settings(max_examples=150, deadline=None)
@given(ANY, ANY)
def test_a_small_det_curve_has_every_corner(target, nontarget):
    target, nontarget = np.array(target), np.array(nontarget)
    x, y = curves.det_curve(Roc(target, nontarget))
    assert (x[0], y[0]) == (0.0, 1.0) and (x[-1], y[-1]) == (1.0, 0.0)
    assert np.all(np.diff(x) >= 0) and np.all(np.diff(y) <= 0)
    wanted = all_vertices(target, nontarget)
    given_points = {(round(a, 12), round(b, 12)) for a, b in zip(x, y)}
    assert given_points <= {(round(a, 12), round(b, 12)) for a, b in wanted}
    assert distance_to_path(wanted[:, 0], wanted[:, 1], x, y) < 1e-12


def test_a_thinned_det_curve_stays_within_a_step_of_every_corner():
    rng = np.random.default_rng(3)
    target, nontarget = rng.normal(1.5, 1, 20_000), np.round(rng.normal(-1.5, 1, 40_000), 3)
    x, y = curves.det_curve(Roc(target, nontarget))
    assert len(x) < 6000
    scores = np.unique(np.concatenate((target, nontarget)))
    sorted_target, sorted_nontarget = np.sort(target), np.sort(nontarget)
    p_miss = np.searchsorted(sorted_target, scores, "right") / len(target)
    p_fa = 1.0 - np.searchsorted(sorted_nontarget, scores, "right") / len(nontarget)
    wanted = np.stack([p_miss, p_fa], axis=1)
    wanted = wanted[rng.choice(len(wanted), 4000, replace=False)]
    low_x, low_y = curves.rate_limits(len(target)), curves.rate_limits(len(nontarget))
    worst = distance_to_path(norm.ppf(np.clip(wanted[:, 0], *low_x)), norm.ppf(np.clip(wanted[:, 1], *low_y)),
                             norm.ppf(np.clip(x, *low_x)), norm.ppf(np.clip(y, *low_y)))  # fmt: skip
    assert worst < 1.01 * curves.PROBIT_STEP


def test_gaussian_scores_give_a_straight_line_on_probit_axes():
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    x, y = curves.det_curve(Roc(quantiles + 2.0, quantiles))
    inside = (x > 0.001) & (y > 0.001)
    assert np.abs(norm.ppf(x[inside]) + norm.ppf(y[inside]) + 2.0).max() < 0.02


@settings(max_examples=100, deadline=None)
@given(ANY, ANY)
def test_the_hull_lies_on_or_below_the_curve_and_on_the_hull_of_the_roc(target, nontarget):
    roc = Roc(np.array(target), np.array(nontarget))
    x, y = curves.hull_curve(roc)
    vertices = np.stack(roc.hull(), axis=1)
    assert distance_to_path(x, y, *vertices.T) < 1e-9
    assert distance_to_path(*vertices.T, x, y) < 1e-9
    assert np.all(np.diff(x) >= 0) and np.all(np.diff(y) <= 1e-12)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_histograms_count_every_score_in_range(target, nontarget):
    roc = Roc(np.array(target), np.array(nontarget))
    bins = curves.histogram(roc)
    for density, scores in ((bins.target, target), (bins.nontarget, nontarget)):
        counts, _ = np.histogram(scores, bins.edges)
        np.testing.assert_allclose(density * np.diff(bins.edges) * len(scores), counts, atol=1e-9)
    assert bins.outside == pytest.approx(0.0, abs=1e-12)


def test_far_and_infinite_scores_are_outside_of_the_histogram():
    rng = np.random.default_rng(0)
    roc = Roc(np.append(rng.normal(2, 1, 2000), -500.0), np.append(rng.normal(-2, 1, 7997), [900.0, np.inf]))
    low, high = curves.score_range([roc])
    assert -8 < low < -3 and 3 < high < 8
    bins = curves.histogram(roc)
    assert bins.outside * 10_000 == pytest.approx(3.0, rel=1e-6)
    low, high = curves.score_range([Roc([np.inf], [-np.inf])])
    assert low < 0 < high
    low, high = curves.score_range([Roc([7.0], [7.0])])
    assert low < 7 < high


@settings(max_examples=100, deadline=None)
@given(ANY)
def test_proportions_of_few_scores_are_exact(scores):
    scores = np.sort(np.array(scores))
    x, proportion = curves.proportion_above(scores)
    for at, above in zip(x[0::2], proportion[0::2]):
        assert above == pytest.approx(np.mean(scores >= at))
    for at, above in zip(x[1::2], proportion[1::2]):
        assert above == pytest.approx(np.mean(scores > at))
    assert set(x) == set(scores)


def test_proportions_of_many_scores_are_exact_where_they_are_kept():
    scores = np.sort(np.random.default_rng(0).normal(size=50_000))
    x, proportion = curves.proportion_above(scores)
    assert len(x) <= 2004 and np.abs(np.diff(proportion)).max() <= 0.00102
    assert proportion[::2] == pytest.approx(1.0 - np.searchsorted(scores, x[::2]) / 50_000)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_reliability_is_isotonic_regression(target, nontarget):
    """By scikit-learn's isotonic regression of the labels on the scores."""
    from sklearn.isotonic import IsotonicRegression

    scores = np.array(target + nontarget)
    labels = np.repeat([1.0, 0.0], (len(target), len(nontarget)))
    fitted = IsotonicRegression().fit_transform(scores, labels)
    with np.errstate(divide="ignore"):
        wanted = np.log(fitted) - np.log1p(-fitted) - np.log(len(target) / len(nontarget))
    x, llr = curves.pav_curve(Roc(np.array(target), np.array(nontarget)))
    assert np.all(np.diff(x) >= 0) and x[0] == scores.min() and x[-1] == scores.max()
    for score, value in zip(scores, wanted):
        place = next(b for b in range(0, len(x), 2) if x[b] <= score <= x[b + 1])
        assert llr[place] == pytest.approx(value, abs=1e-9)


def test_reliability_of_infinite_scores():
    x, llr = curves.pav_curve(Roc([np.inf, np.inf], [-np.inf]))
    assert x.tolist() == [-np.inf, 0.0, 0.0, np.inf] and llr.tolist() == [-np.inf, -np.inf, np.inf, np.inf]
    x, llr = curves.pav_curve(Roc([2.0, 3.0], [-np.inf, -np.inf]))
    assert x.tolist() == [-np.inf, 2.0, 2.0, 3.0]


def test_cross_entropies_of_pooled_scores_are_those_of_all():
    rng = np.random.default_rng(5)
    target = np.concatenate((rng.normal(3, 3, 60_000), [250.0, -130.0, np.inf]))
    nontarget = np.concatenate((rng.normal(-3, 3, 60_000), [-np.inf, -300.0, 101.0]))
    roc, log_odds = Roc(target, nontarget), np.array([-7.0, -1.0, 0.0, 0.3, 6.0])
    actual, least, default = curves.cross_entropies(roc, log_odds)
    priors = 1 / (1 + np.exp(-log_odds))
    for p, theta, ours in zip(priors, log_odds, actual):
        costs = (
            p * np.logaddexp(0, -target - theta).mean() + (1 - p) * np.logaddexp(0, nontarget + theta).mean()
        )
        assert ours == pytest.approx(costs / np.log(2), abs=3e-6)
    np.testing.assert_allclose(default, -(priors * np.log2(priors) + (1 - priors) * np.log2(1 - priors)))
    assert least[2] == pytest.approx(roc.min_cllr(), rel=1e-12)
    assert np.all(least <= actual + 3e-6) and np.all(least <= default + 1e-12)


def test_cross_entropy_is_infinite_where_a_sure_score_is_wrong():
    actual, least, _ = curves.cross_entropies(Roc([-np.inf, 1.0], [0.0, -1.0]), np.array([0.0]))
    assert actual[0] == np.inf and np.isfinite(least[0])


# --------------------------------------------------------------------------------------------------- pictures


def drawn(path):
    """The ids that the picture's lines were given, with the number of points of each path."""
    found = {}
    for group in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}g"):
        plain = r"(axes|figure|patch|text|legend|xtick|ytick|matplotlib|line2d)"
        if "id" in group.attrib and not re.match(plain, group.get("id")):
            paths = [e.get("d", "") for e in group.iter("{http://www.w3.org/2000/svg}path")]
            found.setdefault(group.get("id"), []).append(sum(len(re.findall("[ML]", d)) for d in paths))
    return found


def draw(path, rocs, plots="all", points="0.01", labels=None, **options):
    systems = [System(label, roc) for label, roc in zip(labels or "abcdefghijkl", rocs)]
    draw_scores(str(path), systems, operating_points(points), PictureOptions(plots=plots, **options))
    return path


def test_what_is_drawn(tmp_path):
    rocs = [normal(), normal(separation=2.0, seed=1)]
    ids = drawn(draw(tmp_path / "all.svg", rocs, points="0.01,0.05", rocch=True))
    for number in (1, 2):
        for name in ("det", "hull", "target", "nontarget", "pav", "actual", "pav-entropy", "tippett-target",
                     "tippett-nontarget"):  # fmt: skip
            assert f"{name}-{number}" in ids, (name, number)
        assert all(f"min-{number}-{place}" in ids for place in (1, 2))
        assert ids[f"det-{number}"][0] > 20
    assert "equal-error" in ids and "default" in ids and len(ids["rule-of-30"]) == 2
    assert "det-3" not in ids
    ids = drawn(draw(tmp_path / "det.svg", rocs[:1], "det", rule_of_30=False))
    assert "det-1" in ids and not {"hull-1", "rule-of-30", "pav-1", "target-1"} & set(ids)


def test_the_same_scores_give_the_same_bytes(tmp_path):
    for ending in ("svg", "png", "pdf"):
        first, second = (
            draw(tmp_path / f"{n}.{ending}", [normal(50, 200)], "det,ape").read_bytes() for n in (1, 2)
        )
        assert first == second
    text = (tmp_path / "1.svg").read_text()
    assert "<dc:date>" not in text and not re.search(
        r"nan|inf\b", re.sub("<metadata>.*</metadata>", "", text, flags=re.S)
    )


DEGENERATE = {
    "perfect separation": ([5.0, 6.0, 7.0], [-1.0, -2.0, -4.0]),
    "all equal": ([1.0] * 10, [1.0] * 50),
    "one of each": ([1.0], [0.0]),
    "one target": ([1.2], np.linspace(-3, 3, 100)),
    "infinities": ([np.inf, 2.0, 3.0, -np.inf], [-np.inf, 0.5, 2.5, np.inf]),
    "nothing finite": ([np.inf] * 3, [-np.inf] * 4),
    "reversed": (np.linspace(-3, 0, 30), np.linspace(1, 4, 30)),
    "huge": ([1e300, 1e-300], [-1e300, 0.0]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_scores_are_drawn(name, tmp_path):
    target, nontarget = map(np.array, DEGENERATE[name])
    ids = drawn(draw(tmp_path / "x.svg", [Roc(target, nontarget)], rocch=True, hist_scale="log"))
    assert {"det-1", "pav-1", "tippett-target-1", "actual-1"} <= set(ids)
    assert ids["det-1"][0] >= 1


@pytest.mark.parametrize("plots", ["hist", "calibration", "tippett"])
def test_scores_at_the_end_of_float64_cannot_be_drawn(tmp_path, plots):
    with pytest.raises(VoxarkError, match="scores as large as 1e\\+308 cannot be drawn"):
        draw(tmp_path / "x.svg", [Roc(np.array([1e308, 1.0]), np.array([-1e300, 0.0]))], plots)


@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are_and_long_ones_are_cut(tmp_path):
    labels = ["_hidden", "$x^2$ 50%", "x" * 200]
    draw(tmp_path / "x.svg", [normal(20, 100)] * 3, "det,hist", labels=labels)
    text = (tmp_path / "x.svg").read_text()
    assert "<!-- _hidden: EER" in text and "<!-- $x^2$ 50%: EER" in text
    assert f"<!-- {'x' * 200}" not in text
    assert shortened("abcdefgh", 6) == "...fgh" and shortened("abc", 6) == "abc"


def test_systems_look_different():
    assert len({(color_of(n), marker_of(n)) for n in range(MOST_SYSTEMS)}) == MOST_SYSTEMS
    with pytest.raises(VoxarkError, match="13 systems"):
        draw_scores("x.svg", [System("a", normal(5, 5))] * 13, [], PictureOptions())


def test_names_of_systems_are_what_differs_between_files():
    assert distinct_names(["exp/a/scores", "exp/b/scores"]) == ["a", "b"]
    assert distinct_names(["exp/a/scores", "exp/b/other"]) == ["a/scores", "b/other"]
    assert distinct_names(["x", "x/y"]) == ["x", "x/y"]
    assert distinct_names(["exp/plda/scores"]) == ["scores"]


def test_many_scores_give_a_small_picture(tmp_path):
    path = draw(tmp_path / "x.svg", [normal(300_000, 700_000, 1.0)])
    assert path.stat().st_size < 400_000


# ---------------------------------------------------------------------------------------------------- program


@pytest.fixture
def lists(tmp_path):
    rng = np.random.default_rng(0)
    target = rng.random(500) < 0.2
    pairs = [f"e{i % 25} t{i}" for i in range(500)]
    (tmp_path / "trials").write_text("".join(
        f"{pair} {'target' if y else 'nontarget'}\n" for pair, y in zip(pairs, target)))  # fmt: skip
    for name in ("a", "b"):
        scores = np.where(target, 2.0, -2.0) + rng.normal(0, 1.5, 500)
        lines = [f"{pair} {score:.5g}\n" for pair, score in zip(pairs, scores)]
        (tmp_path / name).write_text("".join(rng.permutation(lines)))
    return tmp_path


def test_the_program_draws_what_the_library_draws_whatever_the_order_of_lines(lists):
    done = run(
        "plot-det",
        "--plots=all",
        "--labels=one,two",
        lists / "trials",
        lists / "x.svg",
        lists / "a",
        lists / "b",
    )
    assert "done 500, failed 0" in done.stderr and len(drawn(lists / "x.svg")) > 15
    for name in ("a", "b"):
        (lists / name).write_text("".join(sorted((lists / name).read_text().splitlines(keepends=True))))
    run(
        "plot-det",
        "--plots=all",
        "--labels=one,two",
        lists / "trials",
        lists / "y.svg",
        lists / "a",
        lists / "b",
    )
    assert (lists / "x.svg").read_bytes() == (lists / "y.svg").read_bytes()
    run("plot-det", lists / "trials", lists / "x.png", lists / "a")
    assert (lists / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("arguments, said", [
    (["trials", "x.gif", "a"], "ends in .svg, .png or .pdf"),
    (["trials", "no/x.svg", "a"], "no directory"),
    (["--plots=det,roc", "trials", "x.svg", "a"], "'roc' is unknown"),
    (["--plots=det,det", "trials", "x.svg", "a"], "asked for twice"),
    (["--labels=one", "trials", "x.svg", "a", "b"], "1 names for 2 lists"),
    (["--p-target=2", "trials", "x.svg", "a"], "--p-target=2"),
    (["trials", "x.svg", "none"], "none"),
    (["unlabelled", "x.svg", "a"], "no third column"),
    (["trials", "x.svg", "nan"], "nan"),
    (["targets", "x.svg", "first"], "no nontarget trials"),
    (["trials", "x.svg", "first"], "have no score"),
    (["targets", "x.svg", "a"], "--allow-extra"),
    (["trials", "x.svg"], "wrong number of arguments"),
])  # fmt: skip
def test_errors_say_what_is_wrong_and_leave_no_picture(lists, arguments, said):
    lines = (lists / "trials").read_text().splitlines()
    (lists / "unlabelled").write_text("".join(" ".join(line.split()[:2]) + "\n" for line in lines))
    targets = [line for line in lines if line.endswith(" target")]
    (lists / "targets").write_text("\n".join(targets) + "\n")
    (lists / "first").write_text("".join(line.replace("target", "1") + "\n" for line in targets))
    (lists / "nan").write_text("".join(" ".join(line.split()[:2]) + " nan\n" for line in lines))
    words = [word if word.startswith("--") else lists / word for word in arguments]
    done = run("plot-det", *words, check=False)
    assert done.returncode == 1 and said in done.stderr
    assert not list(lists.glob("x.*")) and not list(lists.glob(".*"))


def test_missing_scores_may_be_left_out(lists):
    (lists / "b").write_text("".join((lists / "b").read_text().splitlines(keepends=True)[:400]))
    done = run("plot-det", "--allow-missing", lists / "trials", lists / "x.svg", lists / "a", lists / "b")
    assert "done 400, failed 100" in done.stderr


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    def refuse(name, *arguments, real=builtins.__import__, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *arguments, **keywords)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(VoxarkError, match=r"pip install 'voxark\[plot\]'"):
        check_picture("x.svg")
    assert picture_format("x.SVG") == "svg"


def test_panels_are_named_in_the_help():
    text = run("plot-det", "--help").stdout.decode()
    assert all(name in text for name in PANELS)


@needs_data("embeddings")
@needs_data("speechocean762")
def test_real_scores(tmp_path):
    """Cosines of real d-vectors, on all trials and on those between speakers alike."""
    table = np.load(shared_data("embeddings/ge2e_dvectors/so762_dev_test.npz"))
    place = {str(utt): row for row, utt in enumerate(table["utts"])}
    x = table["x"] / np.linalg.norm(table["x"], axis=1, keepdims=True)
    for name, eer in (("trials", "6.8"), ("trials_samegroup", "7.9")):
        trials = shared_data(f"speechocean762/test/{name}")
        pairs = [line.split()[:2] for line in trials.read_text().splitlines()]
        scores = np.einsum("nd,nd->n", *(x[[place[pair[side]] for pair in pairs]] for side in (0, 1)))
        (tmp_path / name).write_text("".join(f"{a} {b} {s:.7g}\n" for (a, b), s in zip(pairs, scores)))
        run("plot-det", "--plots=all", trials, tmp_path / f"{name}.svg", tmp_path / name)
        assert re.search(rf"<!-- {name}: EER {eer}\d %", (tmp_path / f"{name}.svg").read_text())
