"""Error rates and costs against brute force over all thresholds, scikit-learn, hand-worked cases and Kaldi.
"""

import math

import numpy as np
import pytest
from helpers import golden, needs_golden, run
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.trials import metrics
from voxark.trials.metrics import Roc, lower_hull

# few distinct values, so that ties within and between the classes are the rule
tied = st.lists(
    st.sampled_from([-np.inf, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, np.inf]), min_size=1, max_size=25
)
finite = st.lists(st.floats(-20, 20).map(lambda value: round(value, 1)), min_size=1, max_size=30)
classes = st.one_of(st.tuples(tied, tied), st.tuples(finite, finite))
costs = st.tuples(
    st.sampled_from([0.001, 0.01, 0.3, 0.5, 0.9]), st.sampled_from([1.0, 10.0]), st.sampled_from([1.0, 5.0])
)


def points(tar, non):
    """All (Pmiss, Pfa), by counting: accept everything, then reject each distinct score and all below it."""
    tar, non = np.array(tar), np.array(non)
    found = [(0.0, 1.0)]
    for value in np.unique(np.concatenate((tar, non))):
        found.append((np.mean(tar <= value), np.mean(non > value)))
    return found


def brute_min_dcf(tar, non, p, c_miss, c_fa):
    return min(p * c_miss * m + (1 - p) * c_fa * f for m, f in points(tar, non)) / min(
        p * c_miss, (1 - p) * c_fa
    )


def brute_interp(tar, non):
    found = points(tar, non)
    for (m0, f0), (m1, f1) in zip(found, found[1:]):
        if m1 >= f1:
            share = (f0 - m0) / ((f0 - m0) + (m1 - f1))
            return m0 + share * (m1 - m0)


def brute_rocch(tar, non):
    """The convex hull's EER is the largest Bayes error over all priors: max_P min_t P Pmiss + (1-P) Pfa."""
    found = np.array(points(tar, non))
    slopes, offsets = found[:, 0] - found[:, 1], found[:, 1]  # error of each threshold as a line in P
    priors = [0.0, 1.0]
    for i in range(len(found)):
        for j in range(i):
            if slopes[i] != slopes[j]:
                priors.append(min(1.0, max(0.0, (offsets[j] - offsets[i]) / (slopes[i] - slopes[j]))))
    return max(np.min(slopes * p + offsets) for p in priors)


def naive_pav(tar, non):
    """Blocks [targets, non-targets] of pooled scores, ascending, by the textbook's algorithm on tied groups.
    """
    blocks = []
    for value in np.unique(np.concatenate((tar, non))):
        blocks.append([np.sum(np.array(tar) == value), np.sum(np.array(non) == value)])
        while len(blocks) > 1 and blocks[-2][0] * sum(blocks[-1]) >= blocks[-1][0] * sum(blocks[-2]):
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    return blocks


def brute_min_cllr(tar, non):
    total = 0.0
    for targets, nontargets in naive_pav(tar, non):
        if targets and nontargets:
            llr = math.log(targets / nontargets) - math.log(len(tar) / len(non))
            total += targets / len(tar) * math.log2(1 + math.exp(-llr)) + nontargets / len(non) * math.log2(
                1 + math.exp(llr)
            )
    return total / 2


def naive_kaldi(tar, non):
    tar, non = sorted(tar), sorted(non)
    for position in range(len(tar)):
        allowed = int(len(non) * position / len(tar))
        if position == len(tar) - 1 or non[max(0, len(non) - 1 - allowed)] < tar[position]:
            return position / len(tar), tar[position]


# ---------------------------------------------------------------------------------------------- brute force


@given(classes, costs)
def test_everything_equals_brute_force(scores, cost):
    tar, non = scores
    roc = Roc(tar, non)
    assert roc.min_dcf(*cost)[0] == pytest.approx(brute_min_dcf(tar, non, *cost), abs=1e-12)
    assert roc.eer("interp")[0] == pytest.approx(brute_interp(tar, non), abs=1e-12)
    assert roc.eer("rocch")[0] == pytest.approx(brute_rocch(tar, non), abs=1e-9)
    assert roc.min_cllr() == pytest.approx(brute_min_cllr(tar, non), abs=1e-9)
    assert roc.eer("kaldi") == naive_kaldi(tar, non)
    assert roc.auc() == pytest.approx(
        np.mean([(t > n) + 0.5 * (t == n) for t in tar for n in non]), abs=1e-12
    )


@given(classes, costs)
def test_thresholds_give_the_costs_they_are_said_to_give(scores, cost):
    tar, non = map(np.array, scores)
    roc = Roc(tar, non)
    value, threshold = roc.min_dcf(*cost)
    p, c_miss, c_fa = cost
    accept = [side >= threshold if threshold < np.inf else np.zeros(len(side), bool) for side in (tar, non)]
    by_hand = p * c_miss * np.mean(~accept[0]) + (1 - p) * c_fa * np.mean(accept[1])
    assert value == pytest.approx(by_hand / min(p * c_miss, (1 - p) * c_fa), rel=1e-12)
    if np.isfinite(threshold):
        assert roc.dcf(threshold, *cost) == pytest.approx(value, rel=1e-12)
    _, threshold = roc.eer()
    gap = abs(np.mean(tar < threshold) - np.mean(non >= threshold))
    if threshold < np.inf:
        assert gap <= min(abs(m - f) for m, f in points(tar, non)) + 1e-12


@given(classes)
def test_actual_cost_and_cllr_by_their_formulas(scores):
    tar, non = map(np.array, scores)
    t = math.log(5.0 * 0.9 / (2.0 * 0.1))
    expected = (0.1 * 2.0 * np.mean(tar < t) + 0.9 * 5.0 * np.mean(non >= t)) / (0.1 * 2.0)
    assert Roc(tar, non).act_dcf(0.1, 2.0, 5.0) == pytest.approx(expected, rel=1e-12)
    with np.errstate(over="ignore"):
        expected = 0.5 * (np.mean(np.log2(1 + np.exp(-tar))) + np.mean(np.log2(1 + np.exp(non))))
    assert Roc(tar, non).cllr() == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------------------------- properties


@given(classes, costs, st.randoms(use_true_random=False))
def test_order_of_the_trials_does_not_matter(scores, cost, random):
    tar, non = ([*side] for side in scores)
    before = Roc(tar, non)
    random.shuffle(tar)
    random.shuffle(non)
    after = Roc(tar, non)
    for method in ("rocch", "interp", "kaldi"):
        assert before.eer(method) == after.eer(method)
    assert before.min_dcf(*cost) == after.min_dcf(*cost)
    assert (before.cllr(), before.min_cllr()) == (after.cllr(), after.min_cllr())


@given(classes, costs)
def test_a_rising_map_of_the_scores_changes_no_minimum(scores, cost):
    values = np.unique(np.concatenate(scores))
    ranks = [np.searchsorted(values, side) ** 3.0 - 7 for side in scores]
    before, after = Roc(*scores), Roc(*ranks)
    for method in ("rocch", "interp", "kaldi"):
        assert before.eer(method)[0] == after.eer(method)[0]
    assert before.min_dcf(*cost)[0] == after.min_dcf(*cost)[0]
    assert before.min_cllr() == after.min_cllr() and before.auc() == after.auc()


@given(classes, costs)
def test_order_among_the_measures(scores, cost):
    roc = Roc(*scores)
    assert 0 <= roc.min_dcf(*cost)[0] <= min(1, roc.act_dcf(*cost))
    assert 0 <= roc.min_cllr() <= min(1, roc.cllr()) + 1e-12
    assert 0 <= roc.eer()[0] <= min(0.5, roc.eer("interp")[0]) + 1e-12


@given(classes)
def test_negated_scores_swap_the_roles(scores):
    tar, non = map(np.array, scores)
    before, after = Roc(tar, non), Roc(-non, -tar)
    assert before.eer()[0] == pytest.approx(after.eer()[0], abs=1e-12)
    assert before.eer("interp")[0] == pytest.approx(after.eer("interp")[0], abs=1e-12)
    assert before.cllr() == pytest.approx(after.cllr()) and before.auc() == pytest.approx(after.auc())
    assert before.min_cllr() == pytest.approx(after.min_cllr(), abs=1e-12)


@given(finite, finite)
def test_pav_llrs_are_calibrated_already(tar, non):
    llr, targets, nontargets = Roc(tar, non).pav_llrs()
    assert (np.diff(llr) > 0).all() and targets.sum() == len(tar) and nontargets.sum() == len(non)
    again = Roc(np.repeat(llr, targets), np.repeat(llr, nontargets))
    assert again.cllr() == pytest.approx(Roc(tar, non).min_cllr(), abs=1e-12)
    assert again.min_cllr() == pytest.approx(again.cllr(), abs=1e-12)


# ------------------------------------------------------------------------------------------ hand-worked cases


def test_all_scores_equal():
    roc = Roc([1.5] * 50, [1.5] * 70)
    assert roc.eer() == (0.5, 1.5) and roc.eer("interp") == (0.5, 1.5)
    assert roc.min_dcf()[0] == 1 and roc.min_dcf(0.5)[0] == 1 and roc.auc() == 0.5
    assert roc.min_cllr() == pytest.approx(1)
    assert Roc([0.0] * 3, [0.0] * 5).cllr() == pytest.approx(1)
    assert roc.cllr() == pytest.approx(0.5 * (math.log2(1 + math.exp(-1.5)) + math.log2(1 + math.exp(1.5))))
    assert Roc([1.0] * 50, [1.0] * 50).eer("kaldi")[0] == 0.98  # Kaldi's own answer


def test_perfect_separation():
    roc = Roc([2.0, 3.0], [0.0, 1.0])
    for method in ("rocch", "interp", "kaldi"):
        assert roc.eer(method)[0] == 0
    assert roc.eer() == (0, 1.5) and roc.min_dcf() == (0, 1.5) and roc.min_cllr() == 0 and roc.auc() == 1
    wrong = Roc([0.0, 1.0], [2.0, 3.0])
    assert (
        wrong.eer("interp")[0] == 1 and wrong.eer()[0] == 0.5 and wrong.min_dcf()[0] == 1 and wrong.auc() == 0
    )


def test_one_target():
    roc = Roc([1.0], [0.0, 0.5, 2.0, 3.0])
    # points: (0,1) ... (0,.5) then (1,.5): the hull goes (0,1) (0,.5) (1,0), which meets Pmiss = Pfa at 1/3
    assert roc.eer()[0] == pytest.approx(1 / 3)
    assert roc.eer("interp")[0] == 0.5
    assert roc.min_dcf(0.5)[0] == 0.5 and roc.auc() == 0.5
    assert roc.min_dcf(0.01)[0] == 1


def test_a_worked_example():
    # one target below one non-target: (0,1) (0,.5) (.5,.5) (.5,0) (1,0)
    roc = Roc([1.0, 3.0], [0.0, 2.0])
    assert roc.eer("interp")[0] == 0.5 and roc.eer()[0] == 0.25 and roc.auc() == 0.75
    assert roc.min_dcf(0.5)[0] == 0.5
    assert list(zip(*roc.hull())) == [(0, 1), (0, 0.5), (0.5, 0), (1, 0)]
    assert roc.min_cllr() == pytest.approx(
        0.5
    )  # the middle block has one of each: a bit for half of either class


def test_infinite_scores():
    roc = Roc([np.inf, 1.0], [-np.inf, 0.0])
    assert roc.eer()[0] == 0 and roc.min_dcf() == (0, 0.5) and roc.cllr() < 1
    assert Roc([-np.inf], [0.0]).cllr() == np.inf and Roc([0.0], [np.inf]).cllr() == np.inf
    assert Roc([0.0], [np.inf]).min_cllr() == 1
    assert Roc([np.inf], [np.inf]).eer() == (0.5, np.inf)


def test_nan_and_empty_classes_are_errors_with_counts():
    with pytest.raises(VoxarkError, match="1 of 2 target scores are NaN"):
        Roc([np.nan, 1.0], [0.0])
    with pytest.raises(VoxarkError, match="no nontarget trials"):
        Roc([1.0], [])
    with pytest.raises(VoxarkError, match="no target trials"):
        Roc([], [1.0])
    for bad in ((0.0, 1, 1), (1.0, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (0.5, np.inf, 1)):
        with pytest.raises(VoxarkError, match="--(p-target|c-miss|c-fa)="):
            Roc([1.0], [0.0]).min_dcf(*bad)
    with pytest.raises(VoxarkError, match="unknown method"):
        Roc([1.0], [0.0]).eer("best")


# ---------------------------------------------------------------------------------------------- peers


@pytest.mark.parametrize("step", [None, 0.5, 1.0])
def test_equals_scikit_learn(step):
    from scipy.optimize import brentq
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    tar, non = rng.standard_normal(200) + 2, rng.standard_normal(2000)
    if step:
        tar, non = np.round(tar / step) * step, np.round(non / step) * step
    truth, scores = np.repeat([1, 0], [200, 2000]), np.concatenate((tar, non))
    roc = Roc(tar, non)
    assert roc.auc() == pytest.approx(roc_auc_score(truth, scores), rel=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    crossing = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1, xtol=1e-14)
    assert roc.eer("interp")[0] == pytest.approx(crossing, abs=1e-9)
    posterior = IsotonicRegression().fit_transform(scores, truth)
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log(1 - posterior) - np.log(200 / 2000)
    assert Roc(llr[:200], llr[200:]).cllr() == pytest.approx(roc.min_cllr(), rel=1e-9)


def test_hull_keeps_its_vertices_in_every_shape():
    rng = np.random.default_rng(0)
    shapes = []
    for number in (1, 2, 3, 50, 400):
        steps = rng.integers(0, 4, (number, 2))
        shapes.append((np.append(0, np.cumsum(steps[:, 0])), np.append(0, np.cumsum(steps[:, 1]))[::-1]))
    x = np.arange(300)
    convex = (300 - x) ** 2
    shapes.append((x, convex))
    shapes.append((np.append(x, 300), np.append(convex, 0) * 0 + np.append(convex, 0)))
    outlier = convex.copy()
    outlier[20:] = 0  # one deep step: the passes remove the arc before it point by point
    shapes.append((x, outlier))
    for x, y in shapes:
        hx, hy = lower_hull(x, y)
        expected = metrics._scan_hull(*map(list, zip(*dict.fromkeys(zip(x.tolist(), y.tolist())))))
        assert hx.tolist() == expected[0].tolist() and hy.tolist() == expected[1].tolist()
        assert (np.interp(x, *strictly(hx, hy)) <= y + 1e-9)[np.diff(x, prepend=-1) > 0].all()


def strictly(x, y):
    """The hull as a function: of points with one x the lowest, which is the last."""
    last = np.append(np.diff(x) > 0, True)
    return x[last], y[last]


# ---------------------------------------------------------------------------------------------- the program


@needs_golden
def test_prints_what_kaldi_prints(tmp_path):
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


def write_lists(folder, trials, scores):
    (folder / "trials").write_text(trials)
    (folder / "scores").write_text(scores)
    return folder / "trials", folder / "scores"


TRIALS = "a x target\na y nontarget\nb x nontarget\nb y target\n"


def test_joins_by_key_in_any_order(tmp_path):
    files = write_lists(tmp_path, TRIALS, "b y 3\na y 0\na x 1\nb x 2\n")
    first, second = run("compute-eer", "--p-target=0.5", *files).stdout.decode().splitlines()
    assert first.startswith(
        "EER 25.00 % (rocch) at threshold 1.5; minDCF(p=0.5) 0.500; 2 target, 2 nontarget"
    )
    assert second == (
        "scores as log-likelihood ratios: actDCF(p=0.5) 1.000; Cllr %.3f, minCllr 0.500"
        % Roc([1, 3], [0, 2]).cllr()
    )
    assert run("compute-eer", "--method=interp", *files).stdout.startswith(b"EER 50.00 % (interp)")
    assert run("compute-eer", "--method=kaldi", *files).stdout.startswith(
        b"EER 50.00 % (kaldi) at threshold 3;"
    )


def test_missing_and_extra_scores_are_errors_unless_allowed(tmp_path):
    files = write_lists(tmp_path, TRIALS, "b y 3\na x 1\nb x 2\nc x 9\n")
    for allowed, message in (
        ((), "1 of 4 trials have no score, the first is 'a y'"),
        (("--allow-missing",), "1 of 4 scores are of no trial, the first is 'c x'"),
        (("--allow-extra",), "1 of 4 trials have no score"),
    ):
        done = run("compute-eer", *allowed, *files, check=False)
        assert done.returncode == 1 and message in done.stderr and done.stdout == b""
    done = run("compute-eer", "--allow-missing", "--allow-extra", *files)
    assert b"2 target, 1 nontarget" in done.stdout and "done 3, failed 1" in done.stderr


@pytest.mark.parametrize(
    "trials, scores, message",
    [
        ("a x\nb y\n", "a x 1\nb y 2\n", "has no third column target|nontarget"),
        ("a x target\n", "a x 1\n", "no nontarget trials"),
        (TRIALS, "a x 1\na y nan\nb x 2\nb y 3\n", "scores:2: a score was expected, found 'nan'"),
        (TRIALS, "a x 1\na x 2\nb x 2\nb y 3\n", "scores:2: the pair 'a x' stands already on line 1"),
        (TRIALS, "", "the list is empty"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path, trials, scores, message):
    done = run("compute-eer", *write_lists(tmp_path, trials, scores), check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


def test_labelled_lists_are_checked_too():
    for text, message in (
        (b"1 target\n", "no nontarget trials"),
        (b"1 target 2\n", ":1: 2 columns were expected"),
        (b"1 target\nx nontarget\n", ":2: a score was expected"),
        (b"", "the list is empty"),
    ):
        done = run("compute-eer", "-", stdin=text, check=False)
        assert done.returncode == 1 and message in done.stderr and done.stdout == b""
    done = run("compute-eer", "--p-target=2", "-", check=False)
    assert done.returncode == 1 and "--p-target=2" in done.stderr
