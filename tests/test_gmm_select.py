"""Gaussian selection, posteriors and frame likelihoods: against the definition, frame by frame, and Kaldi."""

import numpy as np
import pytest
from helpers import golden, load_ark, needs_golden, run, save_ark

from voxark import tables
from voxark.arrays import Device
from voxark.errors import VoxarkError
from voxark.gmm import pools, select
from voxark.gmm.diag import DiagGmm
from voxark.gmm.full import FullGmm
from voxark.gmm.model import read_gmm, write_gmm
from voxark.gmm.select import PosteriorKernel, each_log_likelihoods, each_posteriors, each_selection
from voxark.io.posteriors import GaussSelection


def diag_gmm(rng, num_gauss=9, dim=4, spread=1.5):
    return DiagGmm(rng.dirichlet(np.full(num_gauss, 3.0)), spread * rng.standard_normal((num_gauss, dim)),
                   0.3 + rng.random((num_gauss, dim)))


def full_gmm(rng, num_gauss=9, dim=4, spread=1.5):
    a = rng.standard_normal((num_gauss, dim, dim))
    return FullGmm(rng.dirichlet(np.full(num_gauss, 3.0)), spread * rng.standard_normal((num_gauss, dim)),
                   np.matmul(a, a.swapaxes(1, 2)) / dim + 0.2 * np.eye(dim))


MAKE = {"diag": diag_gmm, "full": full_gmm}


def utterances(rng, lengths=(30, 1, 75), dim=4, offset=0.0):
    return [(f"u{i}", (2 * rng.standard_normal((n, dim)) + offset).astype(np.float32))
            for i, n in enumerate(lengths)]


def log_likelihoods(gmm, x):
    """ln(w_c N(x)) from the definition, (T,C)."""
    covars = gmm.covars if isinstance(gmm, FullGmm) else [np.diag(v) for v in gmm.variances]
    result = np.empty((len(x), gmm.num_gauss))
    for c, (weight, mean, covar) in enumerate(zip(gmm.weights, gmm.means, covars)):
        z = x.astype(np.float64) - mean
        distance = np.einsum("td,de,te->t", z, np.linalg.inv(covar), z)
        with np.errstate(divide="ignore"):
            result[:, c] = np.log(weight) - 0.5 * (distance + np.linalg.slogdet(2 * np.pi * covar)[1])
    return result


def kaldi_diagonal_rule(lls, chosen, n, min_post):
    """VectorToPosteriorEntry [K]: limit relative to the largest, the top n, limit relative to their sum."""
    peak = max(lls[c] for c in chosen)
    entries = [(c, np.exp(lls[c] - peak)) for c in chosen]
    entries = [(c, p) for c, p in entries if min_post == 0 or p > min_post]
    entries = sorted(entries, key=lambda entry: -entry[1])[:n]
    cutoff = min_post * sum(value for _, value in entries)
    while len(entries) > 1 and entries[-1][1] < cutoff:
        entries.pop()
    total = sum(value for _, value in entries)
    return [(c, value / total) for c, value in entries]


def kaldi_full_rule(lls, chosen, min_post):
    """fgmm-global-gselect-to-post [K]: softmax over the selection, limit, order of the selection."""
    posteriors = np.exp(lls[chosen] - np.max(lls[chosen]))
    posteriors /= posteriors.sum()
    kept = posteriors >= min_post
    if not kept.any():
        kept = np.arange(len(chosen)) == np.argmax(posteriors)
    total = posteriors[kept].sum()
    return [(c, p / total) for c, p, k in zip(chosen, posteriors, kept) if k]


def no_failure(key, reason):
    raise AssertionError(f"{key}: {reason}")


def as_lists(posteriors):
    ends = np.cumsum(posteriors.counts)
    pairs = list(zip(posteriors.index.tolist(), posteriors.value.tolist()))
    return [pairs[end - count : end] for end, count in zip(ends, posteriors.counts)]


def check_same(found, expected):
    assert [[c for c, _ in frame] for frame in found] == [[c for c, _ in frame] for frame in expected]
    found, expected = ([p for frame in frames for _, p in frame] for frames in (found, expected))
    np.testing.assert_allclose(found, expected, atol=2e-6)


# ------------------------------------------------------------------------------------------- the definitions


@pytest.mark.parametrize("kind", ["diag", "full"])
@pytest.mark.parametrize("n, min_post", [(1, 0.0), (4, 0.025), (4, 0.0), (9, 0.1), (50, 0.02), (6, 0.6)])
def test_posteriors_by_the_rules_frame_by_frame(kind, n, min_post):
    rng = np.random.default_rng(1)
    gmm, data = MAKE[kind](rng), utterances(rng)
    found = list(each_posteriors(PosteriorKernel(gmm, n), data, min_post, no_failure))
    assert [key for key, _, _ in found] == [key for key, _ in data]
    for (_, posteriors, total), (_, x) in zip(found, data):
        lls, order = log_likelihoods(gmm, x), log_likelihoods(gmm.to_diag() if kind == "full" else gmm, x)
        top = [np.argsort(-row)[:n] for row in order]
        if kind == "full":
            expected = [kaldi_full_rule(row, chosen, min_post) for row, chosen in zip(lls, top)]
        else:
            expected = [kaldi_diagonal_rule(row, range(9), n, min_post) for row in lls]
        check_same(as_lists(posteriors), expected)
        sums = [np.log(np.exp(row[chosen]).sum()) for row, chosen in zip(lls, top)]
        assert total == pytest.approx(sum(sums), rel=1e-5)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_a_given_selection_takes_the_place_of_the_likeliest(kind):
    rng = np.random.default_rng(2)
    gmm, data = MAKE[kind](rng), utterances(rng)
    given, lists = [], []
    for key, x in data:
        frames = [rng.permutation(9)[: rng.integers(1, 6)] for _ in x]
        lists.append(frames)
        counts = np.array([len(frame) for frame in frames], np.int32)
        given.append((key, x, GaussSelection(counts, np.concatenate(frames).astype(np.int32))))
    found = each_posteriors(PosteriorKernel(gmm, 2), given, 0.05, no_failure)
    for (_, posteriors, _), (_, x), frames in zip(found, data, lists):
        lls = log_likelihoods(gmm, x)
        if kind == "full":
            expected = [kaldi_full_rule(row, chosen, 0.05) for row, chosen in zip(lls, frames)]
        else:
            expected = [kaldi_diagonal_rule(row, chosen, 99, 0.05) for row, chosen in zip(lls, frames)]
        check_same(as_lists(posteriors), expected)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_selection_is_by_falling_likelihood(n):
    rng = np.random.default_rng(3)
    gmm, data = diag_gmm(rng), utterances(rng)
    for (_, selection, total), (_, x) in zip(each_selection(PosteriorKernel(gmm, n), data, no_failure), data):
        lls = log_likelihoods(gmm, x)
        np.testing.assert_array_equal(selection.index.reshape(-1, n), np.argsort(-lls, axis=1)[:, :n])
        assert selection.counts.tolist() == [n] * len(x) and selection.index.dtype == np.int32
        top = -np.sort(-lls, axis=1)[:, :n]
        assert total == pytest.approx(np.log(np.exp(top).sum(axis=1)).sum(), rel=1e-5)


def test_selection_out_of_a_selection():
    rng = np.random.default_rng(12)
    gmm, x = diag_gmm(rng), utterances(rng)[2][1]
    counts = rng.integers(1, 6, len(x)).astype(np.int32)
    lists = [np.sort(rng.permutation(9)[:count]) for count in counts]
    utterance = ("a", x, GaussSelection(counts, np.concatenate(lists).astype(np.int32)))
    (_, found, _), = each_selection(PosteriorKernel(gmm, 3), [utterance], no_failure)
    expected = [chosen[np.argsort(-row[chosen])][:3] for row, chosen in zip(log_likelihoods(gmm, x), lists)]
    assert found.counts.tolist() == list(map(len, expected))
    np.testing.assert_array_equal(found.index, np.concatenate(expected))


def test_of_equally_likely_components_the_later_comes_first():
    """Kaldi sorts (likelihood, index) pairs; four of the components are one and the same."""
    rng = np.random.default_rng(4)
    gmm = diag_gmm(rng, 3)
    copies = [0, 1, 0, 0, 2, 0]
    twins = DiagGmm(gmm.weights[copies], gmm.means[copies], gmm.variances[copies])
    x = np.tile(gmm.means[0].astype(np.float32), (5, 1))
    (_, selection, _), = each_selection(PosteriorKernel(twins, 3), [("a", x)], no_failure)
    assert selection.index.reshape(-1, 3).tolist() == [[5, 3, 2]] * 5
    (_, posteriors, _), = each_posteriors(PosteriorKernel(twins, 3), [("a", x)], 0.0, no_failure)
    assert posteriors.counts.tolist() == [3] * 5 and set(posteriors.index.tolist()) == {2, 3, 5}
    np.testing.assert_allclose(posteriors.value, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_weight_zero_never_has_a_posterior(kind):
    rng = np.random.default_rng(5)
    gmm, data = MAKE[kind](rng), utterances(rng)
    object.__setattr__(gmm, "weights", np.where(np.arange(9) == 3, 0.0, gmm.weights))
    for key, posteriors, total in each_posteriors(PosteriorKernel(gmm), data, 1e-4, no_failure):
        assert 3 not in posteriors.index and np.isfinite(total)
    for (_, lls), (_, x) in zip(each_log_likelihoods(PosteriorKernel(gmm), data, no_failure), data):
        np.testing.assert_allclose(lls, np.log(np.exp(log_likelihoods(gmm, x)).sum(axis=1)), rtol=1e-5)


# ------------------------------------------------------------------------------- blocks, precision, devices


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_blocks_and_neighbours_change_nothing(kind, monkeypatch):
    """Utterances longer and shorter than a block, alone and together."""
    rng = np.random.default_rng(6)
    gmm, data = MAKE[kind](rng), utterances(rng, (400, 3, 1, 64, 65, 130, 2))
    whole = list(each_posteriors(PosteriorKernel(gmm, 4), data, 0.02, no_failure))
    monkeypatch.setattr(select, "MAX_CELLS", 64 * 9)
    kernel = PosteriorKernel(gmm, 4)
    assert kernel.block == 64
    for parts in (each_posteriors(kernel, data, 0.02, no_failure),
                  (next(each_posteriors(kernel, [pair], 0.02, no_failure)) for pair in data)):
        for (key, one, total), (_, other, other_total) in zip(whole, parts, strict=True):
            check_same(as_lists(other), as_lists(one))
            assert other_total == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_double_precision_is_chosen_where_float32_is_too_coarse(kind):
    rng = np.random.default_rng(7)
    gmm = MAKE[kind](rng, 9, 4, 1e4)  # components far apart compared with their widths
    x = (gmm.means[rng.integers(0, 9, 50)] + 0.5 * rng.standard_normal((50, 4))).astype(np.float32)
    assert PosteriorKernel(gmm).dtype == "float64" and PosteriorKernel(MAKE[kind](rng)).dtype == "float32"
    (_, lls), = each_log_likelihoods(PosteriorKernel(gmm), [("a", x)], no_failure)
    np.testing.assert_allclose(lls, np.log(np.exp(log_likelihoods(gmm, x)).sum(axis=1)), atol=1e-6)


def test_estimated_error_of_full_likelihoods_bounds_the_real_one():
    rng = np.random.default_rng(8)
    for spread in (1.0, 10.0, 100.0):
        gmm = full_gmm(rng, 5, 20, spread)
        x = (gmm.means[rng.integers(0, 5, 300)] + rng.standard_normal((300, 20))).astype(np.float32)
        kernel = PosteriorKernel(gmm)
        estimate = select.full_float32_error(gmm, kernel.offset)
        if kernel.dtype == "float32":
            (_, lls), = each_log_likelihoods(kernel, [("a", x)], no_failure)
            assert np.abs(lls - gmm.log_likelihood(x)).mean() < 3 * estimate + 1e-6
        assert (estimate > 1e-4) == (spread >= 100.0)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_torch_gives_the_same(kind):
    pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    rng = np.random.default_rng(9)
    gmm, data = MAKE[kind](rng), utterances(rng)
    device = Device("torch")
    ours, theirs = PosteriorKernel(gmm, 4), PosteriorKernel(gmm, 4, device=device)
    both = (each_posteriors(kernel, data, 0.02, no_failure) for kernel in (ours, theirs))
    for one, other in zip(*both):
        check_same(as_lists(other[1]), as_lists(one[1]))
    for one, other in zip(each_selection(ours, data, no_failure), each_selection(theirs, data, no_failure)):
        np.testing.assert_array_equal(one[1].index, other[1].index)
    twins = DiagGmm(np.full(4, 0.25), np.zeros((4, 4)), np.ones((4, 4)))
    (_, selection, _), = each_selection(PosteriorKernel(twins, 2, device=device), data[:1], no_failure)
    assert selection.index.reshape(-1, 2).tolist() == [[3, 2]] * 30


# -------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_bad_utterances_fail_and_leave_the_others_alone(kind):
    rng = np.random.default_rng(10)
    gmm, data = MAKE[kind](rng), utterances(rng, (20,) * 6)
    kernel = PosteriorKernel(gmm, 4)
    expected = {key: as_lists(p) for key, p, _ in each_posteriors(kernel, data, 0.02, no_failure)}
    data[1][1][3, 2] = np.nan
    data[2] = ("u2", data[2][1][:0])
    data[3] = ("u3", data[3][1][:, :3])
    data[4][1][7] = 1e30
    failed = {}
    found = list(each_posteriors(kernel, data, 0.02, failed.__setitem__))
    assert [key for key, _, _ in found] == ["u0", "u5"]
    for key, posteriors, _ in found:
        check_same(as_lists(posteriors), expected[key])
    assert [key for key, _, _ in each_selection(kernel, data, failed.__setitem__)] == ["u0", "u5"]
    assert "frame 3, column 2 is nan" in failed["u1"] and failed["u2"] == "no frames"
    assert "dimension 3, the GMM 4" in failed["u3"]
    assert "frame 7 is so far from every Gaussian" in failed["u4"]


@pytest.mark.parametrize("counts, index, message", [
    ([1, 1], [0, 0], "2 frames, the features have 3"), ([1, 0, 1], [0, 0], "frame 1 is empty"),
    ([1, 1, 1], [0, 9, 0], "Gaussian 9, the GMM has 9"), ([1, 1, 1], [5, -1, 0], "Gaussian -1, the GMM"),
])
def test_selections_that_do_not_fit(counts, index, message):
    with pytest.raises(VoxarkError, match=message):
        pools.check_selection(GaussSelection(np.array(counts), np.array(index)), 3, 9)


# -------------------------------------------------------------------------------------------------- programs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A diagonal and a full model and features as files, in ``folder``."""
    folder = tmp_path_factory.mktemp("select")
    rng = np.random.default_rng(11)
    for kind in MAKE:
        write_gmm(str(folder / kind), MAKE[kind](rng))
    data = utterances(rng, (12, 40, 5))
    save_ark(folder / "feats.ark", dict(data))
    return folder, data


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_programs_are_the_library(kind, files):
    folder, data = files
    gmm, feats = read_gmm(str(folder / kind)), f"ark:{folder}/feats.ark"
    run("gmm-get-post", "--n=4", "--min-post=0.02", folder / kind, feats, f"ark:{folder}/post")
    run("gmm-gselect", "--n=4", folder / kind, feats, f"ark,t:{folder}/gselect")
    done = run("gmm-get-post", "--min-post=0.02", f"--gselect=ark:{folder}/gselect", folder / kind, feats,
               f"ark:{folder}/post2")
    assert "done 3, failed 0" in done.stderr
    if kind == "full":
        assert (folder / "post").read_bytes() == (folder / "post2").read_bytes()
    with tables.open_reader("post-arrays", f"ark:{folder}/post") as reader:
        found = dict(reader)
    for key, posteriors, _ in each_posteriors(PosteriorKernel(gmm, 4), data, 0.02, no_failure):
        check_same(as_lists(found[key]), as_lists(posteriors))
    run("score-gmm", folder / kind, feats, f"ark:{folder}/likes")
    run("score-gmm", "--average", folder / kind, feats, f"ark,t:{folder}/average")
    averages = dict(line.split() for line in (folder / "average").read_text().splitlines())
    for key, likes in load_ark(folder / "likes").items():
        np.testing.assert_allclose(likes, gmm.log_likelihood(dict(data)[key]), rtol=1e-5)
        assert float(averages[key]) == pytest.approx(likes.mean(), rel=1e-5)


def test_programs_count_what_fails(files, tmp_path):
    folder, data = files
    bad = dict(data)
    bad["u1"] = np.full((4, 4), np.nan, np.float32)
    feats = save_ark(tmp_path / "bad.ark", bad)
    for program in ("gmm-gselect", "gmm-get-post", "score-gmm"):
        done = run(program, f"--failed-list={tmp_path}/failed", folder / "full", feats, f"ark:{tmp_path}/out")
        assert "done 2, failed 1" in done.stderr
        assert (tmp_path / "failed").read_text().startswith("u1 feature at frame 0, column 0 is nan")
    with tables.open_writer("gselect-arrays", f"ark:{tmp_path}/gs") as out:
        out["u0"] = GaussSelection(np.ones(12, np.int32), np.zeros(12, np.int32))
    done = run("gmm-get-post", f"--gselect=ark:{tmp_path}/gs", folder / "full", f"ark:{folder}/feats.ark",
               f"ark,t:{tmp_path}/post")
    assert "done 1, failed 2" in done.stderr and "u1: no Gaussian selection" in done.stderr
    assert (tmp_path / "post").read_text() == "u0 " + "[ 0 1 ] " * 12 + "\n"


@pytest.mark.parametrize("program, option", [("gmm-gselect", "--n=0"), ("gmm-get-post", "--n=0"),
                                             ("gmm-get-post", "--min-post=1"),
                                             ("score-gmm", "--device=nowhere")])
def test_wrong_options(program, option, files):
    folder, _ = files
    done = run(program, option, folder / "diag", f"ark:{folder}/feats.ark", f"ark:{folder}/none", check=False)
    assert done.returncode == 1 and option.split("=")[0] in done.stderr and not (folder / "none").exists()


# ------------------------------------------------------------------------------------------ what Kaldi gives


@needs_golden
def test_selection_equals_kaldi(tmp_path):
    feats = f"ark:{golden('model/feats.ark')}"
    run("gmm-gselect", "--n=3", golden("model/diag.1.gmm"), feats, f"ark,t:{tmp_path}/gselect")
    assert (tmp_path / "gselect").read_bytes() == golden("model/diag.1.gselect3.txt").read_bytes()


@needs_golden
@pytest.mark.parametrize("model, name", [("diag.1.gmm", "diag.1.post5.ark"), ("full.1.gmm", "post.ark")])
def test_posteriors_equal_kaldi(model, name, tmp_path):
    """post.ark is of gmm-gselect under full.1.diag.gmm, which is the diagonal of full.1.gmm."""
    feats = f"ark:{golden('model/feats.ark')}"
    run("gmm-get-post", "--n=5", "--min-post=0.025", golden(f"model/{model}"), feats, f"ark:{tmp_path}/post")
    with (tables.open_reader("post-arrays", f"ark:{tmp_path}/post") as ours,
          tables.open_reader("post-arrays", f"ark:{golden('model')}/{name}") as theirs):
        found, expected = dict(ours), dict(theirs)
    assert list(found) == list(expected) and len(found) == 6
    for key in expected:
        np.testing.assert_array_equal(found[key].counts, expected[key].counts)
        np.testing.assert_array_equal(found[key].index, expected[key].index)
        np.testing.assert_allclose(found[key].value, expected[key].value, atol=2e-4)


@needs_golden
@pytest.mark.parametrize("name", ["diag.1", "full.1"])
def test_frame_likelihoods_equal_kaldi(name, tmp_path):
    run("score-gmm", golden(f"model/{name}.gmm"), f"ark:{golden('model/feats.ark')}", f"ark:{tmp_path}/likes")
    found, expected = load_ark(tmp_path / "likes"), load_ark(golden(f"model/{name}.likes.ark"))
    assert list(found) == list(expected)
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=2e-3)


@needs_golden
def test_average_likelihoods_equal_kaldi():
    feats = f"ark:{golden('model/feats.ark')}"
    done = run("score-gmm", "--average=true", golden("model/diag.1.gmm"), feats, "ark,t:-")
    found = dict(line.split() for line in done.stdout.decode().splitlines())
    expected = dict(line.split() for line in golden("model/diag.1.avglikes.txt").read_text().splitlines())
    assert list(found) == list(expected)
    assert all(abs(float(found[key]) - float(expected[key])) < 1e-3 for key in expected)
