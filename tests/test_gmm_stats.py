"""acc-gmm-stats, sum-gmm-stats and est-gmm: against the definition, each other, one process, and Kaldi."""

import functools

import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark, write_lines

from voxark import tables
from voxark.errors import VoxarkError
from voxark.gmm import stats
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import UpdateOptions, e_step, m_step
from voxark.gmm.full import FullGmm
from voxark.gmm.model import read_gmm, write_gmm
from voxark.gmm.pools import pooled
from voxark.gmm.select import PosteriorKernel, each_selection
from voxark.io.posteriors import GaussSelection

KINDS = ["diag", "full"]


def make_gmm(kind, rng, num_gauss=5, dim=3, centre=0.0):
    weights = rng.dirichlet(np.full(num_gauss, 4.0))
    means = 2 * rng.standard_normal((num_gauss, dim)) + centre
    if kind == "diag":
        return DiagGmm(weights, means, 0.4 + rng.random((num_gauss, dim)))
    a = rng.standard_normal((num_gauss, dim, dim))
    return FullGmm(weights, means, np.matmul(a, a.swapaxes(1, 2)) / dim + 0.3 * np.eye(dim))


def make_data(rng, lengths=(50, 1, 120, 33, 70, 15, 90), dim=3, centre=0.0):
    return [(f"u{i}", (2 * rng.standard_normal((n, dim)) + centre).astype(np.float32))
            for i, n in enumerate(lengths)]


def brute(gmm, x, weights=None, chosen=None):
    """(n, sum gamma x, sum gamma xx' (C,D,D), sum ln p); ``chosen`` (T,C) limits the components."""
    x = np.asarray(x, np.float64)
    lls = gmm.component_log_likelihoods(x)
    if chosen is not None:
        lls = np.where(chosen, lls, -np.inf)
    total = np.log(np.exp(lls).sum(axis=1))
    weights = np.ones(len(x)) if weights is None else weights
    gamma = np.exp(lls - total[:, None]) * weights[:, None]
    return gamma.sum(axis=0), gamma.T @ x, np.einsum("tc,td,te->cde", gamma, x, x), weights @ total


def second_moments(params):
    """The un-centred second moments of GmmAccsParams: (C,D) or (C,D,D)."""
    if params.diag_vars is not None:
        return params.diag_vars
    dim = params.means.shape[1]
    result = np.zeros((len(params.means), dim, dim))
    rows, columns = np.tril_indices(dim)
    result[:, rows, columns] = result[:, columns, rows] = params.full_vars
    safe = np.maximum(params.occupancy, 1e-300)[:, None, None]
    return result + params.means[:, :, None] * params.means[:, None, :] / safe


def check_statistics(params, expected, rtol):
    n, first, second, log_likelihood = expected
    if params.diag_vars is not None:
        second = np.einsum("cdd->cd", second)
    np.testing.assert_allclose(params.occupancy, n, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(params.means, first, rtol=rtol, atol=rtol * np.abs(first).max())
    np.testing.assert_allclose(second_moments(params), second, rtol=rtol, atol=rtol * np.abs(second).max())
    assert params.log_likelihood == pytest.approx(log_likelihood, rel=rtol)


def write_accs(path, accs):
    tables.write_object("gmm-accs", str(path), stats.to_params(accs))


def read_accs(path):
    return tables.read_object("gmm-accs", str(path))


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    """(kind, model as read from its file, utterances, their rspecifier, folder)."""
    rng = np.random.default_rng(1)
    write_gmm(str(tmp_path / "gmm"), make_gmm(request.param, rng))
    data = make_data(rng)
    feats = save_ark(tmp_path / "feats.ark", dict(data))
    return request.param, read_gmm(str(tmp_path / "gmm")), data, feats, tmp_path


# ---------------------------------------------------------------------------------------- accumulation, sums


@pytest.mark.parametrize("double, rtol", [("--double", 1e-10), ("--double=false", 1e-5)])
def test_statistics_equal_the_definition(double, rtol, case):
    kind, gmm, data, feats, folder = case
    done = run("acc-gmm-stats", double, folder / "gmm", feats, folder / "acc")
    assert "done 7, failed 0" in done.stderr
    accs = read_accs(folder / "acc")
    assert accs.flags == 7 and accs.num_frames == 379 and accs.occupancy.dtype == np.float64
    check_statistics(accs, brute(gmm, np.concatenate([x for _, x in data])), rtol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double, rtol", [(True, 1e-10), (False, 1e-6)])
@pytest.mark.parametrize("selected", [False, True])
def test_seven_jobs_give_the_statistics_of_one(kind, double, rtol, selected):
    rng = np.random.default_rng(9)
    gmm, data = make_gmm(kind, rng), make_data(rng)
    selections = {key: selection for key, selection, _ in each_selection(PosteriorKernel(gmm, 3), data, None)}

    def job(utterances):
        if not selected:
            return stats.to_params(e_step(gmm, utterances, double=double))
        step = stats.SelectedEStep(gmm, double)
        triples = [(key, x, selections[key]) for key, x in utterances]
        for pool in pooled(triples, step.kernel.pool_size, gmm, None):
            step.add(*pool.frames[1:])
        return stats.to_params(step.result())

    one = job(data)
    seven = functools.reduce(stats.add_params, [job([pair]) for pair in data])
    assert seven.num_frames == one.num_frames == 379 and seven.flags == one.flags
    assert seven.log_likelihood == pytest.approx(one.log_likelihood, rel=rtol)
    for first, second in zip(one[1:5], seven[1:5]):
        if first is not None:
            np.testing.assert_allclose(second, first, rtol=rtol, atol=rtol * np.abs(first).max())


def test_sum_gmm_stats_adds_up_files(case):
    kind, gmm, data, feats, folder = case
    for i in range(2):
        write_accs(folder / f"{i}.acc", e_step(gmm, data[3 * i : 3 * i + 3], double=True))
    done = run("sum-gmm-stats", folder / "sum.acc", folder / "0.acc", folder / "1.acc")
    assert "done 2, failed 0 (files)" in done.stderr
    expected = brute(gmm, np.concatenate([x for _, x in data[:6]]))
    check_statistics(read_accs(folder / "sum.acc"), expected, 1e-10)


@pytest.mark.parametrize("double, rtol", [("--double", 1e-10), ("--double=false", 1e-5)])
def test_selections_limit_the_components(double, rtol, case):
    kind, gmm, data, feats, folder = case
    rng = np.random.default_rng(2)
    with tables.open_writer("gselect-arrays", f"ark,t:{folder}/gselect") as out:
        chosen = []
        for key, x in data:
            mask = rng.random((len(x), 5)) < 0.5
            mask[np.arange(len(x)), rng.integers(0, 5, len(x))] = True
            out[key] = GaussSelection(mask.sum(axis=1).astype(np.int32), np.nonzero(mask)[1].astype(np.int32))
            chosen.append(mask)
    run("acc-gmm-stats", double, f"--gselect=ark:{folder}/gselect", folder / "gmm", feats, folder / "acc")
    expected = brute(gmm, np.concatenate([x for _, x in data]), chosen=np.concatenate(chosen))
    check_statistics(read_accs(folder / "acc"), expected, rtol)


@pytest.mark.parametrize("selected", [False, True])
def test_weights_of_frames(selected, case):
    kind, gmm, data, feats, folder = case
    rng = np.random.default_rng(3)
    weights = {key: np.round(2 * rng.random(len(x)), 1).astype(np.float32) for key, x in data}
    options = [f"--weights={save_ark(folder / 'weights', weights)}", "--double"]
    if selected:
        run("gmm-gselect", "--n=5", folder / "gmm", feats, f"ark:{folder}/gselect")
        options.append(f"--gselect=ark:{folder}/gselect")
    run("acc-gmm-stats", *options, folder / "gmm", feats, folder / "acc")
    joined = np.concatenate([weights[key] for key, _ in data]).astype(np.float64)
    accs = read_accs(folder / "acc")
    check_statistics(accs, brute(gmm, np.concatenate([x for _, x in data]), joined), 1e-9)
    assert accs.num_frames == pytest.approx(joined.sum())


def test_a_large_common_mean_costs_few_digits(case):
    """Sums around 0 of features around 1e4 (Kaldi's file is so): jobs add up, and the model comes out."""
    kind, _, _, _, folder = case
    rng = np.random.default_rng(4)
    write_gmm(str(folder / "far"), make_gmm(kind, rng, centre=1e4))
    data = make_data(rng, (300, 400, 500), centre=1e4)
    for i, pair in enumerate(data):
        write_accs(folder / f"{i}.acc", e_step(read_gmm(str(folder / "far")), [pair], double=True))
    pipe = f"sum-gmm-stats - {folder}/0.acc {folder}/1.acc {folder}/2.acc |"
    run("est-gmm", folder / "far", pipe, folder / "new")
    gmm, found = read_gmm(str(folder / "far")), read_gmm(str(folder / "new"))
    expected = m_step(gmm, e_step(gmm, data, double=True), UpdateOptions())
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-6)
    spread = "variances" if kind == "diag" else "covars"
    np.testing.assert_allclose(getattr(found, spread), getattr(expected, spread), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_file_fields_and_statistics_are_each_others_inverse(kind):
    rng = np.random.default_rng(5)
    gmm = make_gmm(kind, rng)
    accs = e_step(gmm, make_data(rng), double=True)
    accs.n[2] = accs.f[2] = accs.s[2] = 0.0  # a component that saw nothing
    again = stats.from_params(stats.to_params(accs))
    assert again.log_likelihood == accs.log_likelihood and again.num_frames == accs.num_frames
    for first, second in zip(stats.to_params(accs)[1:5], stats.to_params(again)[1:5]):
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_allclose(second, first, rtol=1e-10, atol=1e-9)
    options = UpdateOptions(min_gaussian_occupancy=5, remove_low_count_gaussians=False)
    one, two = m_step(gmm, accs, options), m_step(gmm, again, options)
    np.testing.assert_allclose(one.means, two.means, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("letters, flags, present", [("mvw", 7, (1, 1)), ("v", 7, (1, 1)), ("m", 5, (1, 0)),
                                                     ("mw", 5, (1, 0)), ("w", 4, (0, 0))])
def test_update_flags_leave_out_what_is_not_updated(letters, flags, present, case):
    kind, gmm, _, feats, folder = case
    run("acc-gmm-stats", f"--update-flags={letters}", folder / "gmm", feats, folder / "acc")
    accs = read_accs(folder / "acc")
    spread = accs.diag_vars if kind == "diag" else accs.full_vars
    assert accs.flags == flags and (accs.means is not None, spread is not None) == present
    run("sum-gmm-stats", "--binary=false", folder / "sum", folder / "acc", folder / "acc")
    np.testing.assert_allclose(read_accs(folder / "sum").occupancy, 2 * accs.occupancy, rtol=1e-5)
    run("est-gmm", f"--update-flags={letters}", "--min-gaussian-occupancy=1", folder / "gmm", folder / "acc",
        folder / "new")
    if flags != 7:
        done = run("est-gmm", folder / "gmm", folder / "acc", folder / "none", check=False)
        assert done.returncode == 1 and "nothing to update" in done.stderr and not (folder / "none").exists()


def test_torch_gives_the_same_statistics():
    pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    from voxark.arrays import Device

    rng = np.random.default_rng(6)
    for kind in KINDS:
        gmm, data = make_gmm(kind, rng), make_data(rng)
        results = []
        for device in (Device(), Device("torch")):
            step = stats.SelectedEStep(gmm, device=device)
            for key, selection, _ in each_selection(PosteriorKernel(
                    gmm if kind == "diag" else gmm.to_diag(), 3), data, None):
                step.add(dict(data)[key], selection)
            results.append(step.result())
        for name in ("n", "f", "s"):
            first, second = (getattr(result, name) for result in results)
            np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-4)
        assert results[1].log_likelihood == pytest.approx(results[0].log_likelihood, rel=1e-6)


# ----------------------------------------------------------------------------------------------------- update


def test_the_three_programs_are_one_iteration_of_training(case):
    kind, gmm, data, feats, folder = case
    options = ["--min-gaussian-occupancy=5", "--var-floor-factor=0.001"]
    run("acc-gmm-stats", "--double", folder / "gmm", feats, folder / "acc")
    done = run("est-gmm", *options, folder / "gmm", folder / "acc", folder / "new")
    update = UpdateOptions(min_gaussian_occupancy=5, var_floor_factor=0.001)
    write_gmm(str(folder / "expected"), m_step(gmm, e_step(gmm, data, double=True), update))
    found, expected = (tables.read_object("gmm", str(folder / name)) for name in ("new", "expected"))
    for found, expected in zip(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    x = np.concatenate([x for _, x in data])
    before, after = gmm.log_likelihood(x).mean(), read_gmm(str(folder / "new")).log_likelihood(x).mean()
    assert f"before the update {before:.4f}"[:-1] in done.stderr
    gain = float(done.stderr.split("EM raises, ")[1].split()[0])
    assert 0 < gain <= after - before + 1e-6  # ln p rises by at least what the bound rises


@pytest.mark.parametrize("kind", KINDS)
def test_expected_log_likelihood_by_loops(kind):
    rng = np.random.default_rng(7)
    gmm, other, data = make_gmm(kind, rng), make_gmm(kind, rng, centre=0.5), make_data(rng)
    accs = e_step(gmm, data, double=True)
    x = np.concatenate([x for _, x in data]).astype(np.float64)
    lls = gmm.component_log_likelihoods(x)
    gamma = np.exp(lls - np.log(np.exp(lls).sum(axis=1))[:, None])
    for model in (gmm, other):
        expected = np.sum(gamma * model.component_log_likelihoods(x))
        assert stats.expected_log_likelihood(model, accs) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("options, num_gauss, message", [
    ([], 4, "removed, 4 left"), (["--remove-low-count-gaussians=false"], 5, "kept"),
    (["--rescue"], 5, "the heaviest split in its place"), (["--mix-up=8"], 8, "split to 8"),
    (["--mix-up=2"], 4, "removed"),
])
def test_starved_components_and_mixing_up(options, num_gauss, message, case):
    kind, gmm, data, feats, folder = case
    far = gmm.means.copy()
    far[1] = 500.0
    model = type(gmm)(gmm.weights, far, gmm.variances if kind == "diag" else gmm.covars)
    write_gmm(str(folder / "starved"), model)
    write_accs(folder / "acc", e_step(model, data))
    common = ["--min-gaussian-occupancy=1", *options, folder / "starved", folder / "acc"]
    done = run("est-gmm", *common, folder / "new")
    found = read_gmm(str(folder / "new"))
    assert found.num_gauss == num_gauss and message in done.stderr
    run("est-gmm", *common, folder / "again")
    assert (folder / "new").read_bytes() == (folder / "again").read_bytes()
    if "--mix-up=8" in options:
        run("est-gmm", "--srand=1", *common, folder / "other")
        run("est-gmm", "--perturb-factor=0", *common, folder / "still")
        assert (folder / "other").read_bytes() != (folder / "new").read_bytes()
        still = read_gmm(str(folder / "still"))
        numbers = [len(np.unique(model.means.round(3), axis=0)) for model in (still, found)]
        assert numbers[0] == 4 and numbers[1] > 4


# -------------------------------------------------------------------------------------------- what goes wrong


def test_statistics_of_another_shape_are_refused_and_named(case):
    kind, gmm, data, feats, folder = case
    rng = np.random.default_rng(8)
    other = "full" if kind == "diag" else "diag"
    for name, model, x in (("small", make_gmm(kind, rng, 4), data), ("other", make_gmm(other, rng), data),
                           ("wide", make_gmm(kind, rng, 5, 4), make_data(rng, dim=4))):
        write_gmm(str(folder / name), model)
        write_accs(folder / f"{name}.acc", e_step(model, x))
    write_accs(folder / "good.acc", e_step(gmm, data))
    run("acc-gmm-stats", "--update-flags=m", folder / "gmm", feats, folder / "flags.acc")
    for name in ("small", "other", "wide", "flags"):
        done = run("sum-gmm-stats", folder / "sum", folder / "good.acc", folder / f"{name}.acc", check=False)
        assert done.returncode == 1 and f"{name}.acc: statistics of " in done.stderr
        assert not (folder / "sum").exists()
        if name != "flags":
            done = run("est-gmm", folder / "gmm", folder / f"{name}.acc", folder / "new", check=False)
            assert done.returncode == 1 and f"{name}.acc: statistics of " in done.stderr


def test_bad_utterances_are_counted_and_left_out(case):
    kind, gmm, data, feats, folder = case
    bad = dict(data)
    bad["u1"], bad["u3"] = np.full((9, 3), np.nan, np.float32), bad["u3"][:, :2]
    run("gmm-gselect", "--n=5", folder / "gmm", feats, f"ark:{folder}/gselect")
    good = np.concatenate([x for key, x in data if key not in ("u1", "u3")])
    for options in ([], [f"--gselect=ark:{folder}/gselect"]):
        done = run("acc-gmm-stats", "--double", *options, f"--failed-list={folder}/failed", folder / "gmm",
                   save_ark(folder / "bad.ark", bad), folder / "acc")
        assert "done 5, failed 2" in done.stderr
        failed = dict(line.split(" ", 1) for line in (folder / "failed").read_text().splitlines())
        assert set(failed) == {"u1", "u3"} and "nan" in failed["u1"]
        check_statistics(read_accs(folder / "acc"), brute(gmm, good), 1e-9)
    bad["u1"] = np.full((9, 3), 1e30, np.float32)
    for options in ([], ["--gselect=ark:" + str(folder / "gselect"), "--failed-list="]):
        done = run("acc-gmm-stats", folder / "gmm", save_ark(folder / "bad.ark", {"u1": bad["u1"][:1]}),
                   folder / "none", check=False)
        assert done.returncode == 1 and "u1: " in done.stderr and "no likelihood" in done.stderr
        assert not (folder / "none").exists()


def test_nothing_accumulated_is_a_failure_without_a_file(case):
    kind, gmm, data, feats, folder = case
    write_lines(folder / "nothing")
    done = run("acc-gmm-stats", folder / "gmm", f"ark:{folder}/nothing", folder / "acc", check=False)
    assert done.returncode == 1 and not (folder / "acc").exists()
    rest = [folder / "gmm", feats, folder / "acc"]
    done = run("acc-gmm-stats", f"--weights=ark:{folder}/nothing", *rest, check=False)
    assert done.returncode == 1 and "u0: no weights" in done.stderr and not (folder / "acc").exists()
    assert run("sum-gmm-stats", folder / "sum", check=False).returncode == 1
    assert run("acc-gmm-stats", "--update-flags=x", *rest, check=False).returncode == 1


def test_wrong_numbers_are_refused():
    for n in ([np.nan, 1.0], [-1.0, 2.0]):
        params = stats.GmmAccsParams(7, np.array(n), np.zeros((2, 3)), np.zeros((2, 3)), dim=3)
        with pytest.raises(VoxarkError, match="occupancy"):
            stats.from_params(params)


# ------------------------------------------------------------------------------------------ what Kaldi gives


@needs_golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selected", [False, True])
def test_statistics_equal_kaldi(kind, selected, tmp_path):
    model, feats = golden(f"model/{kind}.0.gmm"), f"ark:{golden('model/feats.ark')}"
    options = []
    if selected:  # all eight of them
        run("gmm-gselect", "--n=8", model, feats, f"ark:{tmp_path}/gselect")
        options = [f"--gselect=ark:{tmp_path}/gselect"]
    done = run("acc-gmm-stats", *options, model, feats, tmp_path / "acc")
    expected_log_likelihood = {"diag": -77.4771, "full": -77.1818}[kind]  # model/LOG
    assert abs(float(done.stderr.split("per frame ")[1].split()[0]) - expected_log_likelihood) < 3e-4
    found, expected = read_accs(tmp_path / "acc"), read_accs(golden(f"model/{kind}.0.acc"))
    assert found.flags == expected.flags and expected.log_likelihood is None
    for ours, theirs in zip(found[1:5], expected[1:5]):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5 * np.abs(theirs).max())


@needs_golden
@pytest.mark.parametrize("kind, options, improvement", [
    ("diag", [], 0.184172), ("full", ["--min-gaussian-occupancy=50"], 3.40619)])
def test_update_from_kaldis_statistics_equals_kaldi(kind, options, improvement, tmp_path):
    done = run("est-gmm", "--remove-low-count-gaussians=false", *options, golden(f"model/{kind}.0.gmm"),
               golden(f"model/{kind}.0.acc"), tmp_path / "gmm")
    assert abs(float(done.stderr.split("EM raises, ")[1].split()[0]) - improvement) < 1e-4  # model/LOG
    assert "before the update" not in done.stderr  # Kaldi's file does not say
    for ours, theirs in zip(*(tables.read_object("gmm", str(name)) for name in
                              (tmp_path / "gmm", golden(f"model/{kind}.1.gmm")))):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6 * np.abs(theirs).max())
