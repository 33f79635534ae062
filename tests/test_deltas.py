"""Deltas: the kernels, the edges, Kaldi's own output, and the program."""

import numpy as np
import pytest
from helpers import golden, load_ark, needs_golden, run, save_ark, shell
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.feat.deltas import DeltaOptions, add_deltas, delta_kernels


def random_features(num_frames, dim, seed=0):
    return np.random.default_rng(seed).normal(0, 5, (num_frames, dim)).astype(np.float32)


def deltas_by_definition(x, order, window):
    """Frame by frame, tap by tap, with the kernel of order i written as i nested sums of slopes."""
    num_frames = len(x)
    norm = sum(j * j for j in range(-window, window + 1))

    def value(t, i):
        if i == 0:
            return x[min(max(t, 0), num_frames - 1)].astype(np.float64)
        return sum(j * value(t + j, i - 1) for j in range(-window, window + 1)) / norm

    return np.array([np.concatenate([value(t, i) for i in range(order + 1)]) for t in range(num_frames)])


def test_kernel_of_the_default_window():
    base, first, second = delta_kernels(2, 2)
    assert base.tolist() == [1.0]
    np.testing.assert_allclose(first, [-0.2, -0.1, 0.0, 0.1, 0.2], rtol=1e-15)
    np.testing.assert_allclose(second * 100, [4, 4, 1, -4, -10, -4, 1, 4, 4], atol=1e-12)


@given(
    num_frames=st.integers(1, 12), window=st.integers(1, 4), order=st.integers(0, 3), seed=st.integers(0, 99)
)
def test_equals_the_definition_also_when_shorter_than_the_window(num_frames, window, order, seed):
    x = random_features(num_frames, 3, seed)
    y = add_deltas(x, DeltaOptions(delta_order=order, delta_window=window))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, deltas_by_definition(x, order, window), rtol=1e-5, atol=1e-5)


def test_slope_and_curvature_of_a_parabola():
    t = np.arange(30.0)
    y = add_deltas((0.5 * t**2 - 3 * t + 7)[:, None].astype(np.float32))
    np.testing.assert_allclose(y[4:-4, 1], t[4:-4] - 3, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y[4:-4, 2], 1.0, rtol=1e-4)


def test_second_order_uses_the_repeated_base_features_at_the_edges():
    x = random_features(20, 2)
    once = add_deltas(x, DeltaOptions(delta_order=1))[:, 2:]
    twice = add_deltas(once, DeltaOptions(delta_order=1))[:, 2:]
    second = add_deltas(x)[:, 4:]
    np.testing.assert_allclose(second[4:-4], twice[4:-4], atol=1e-5)
    assert np.abs(second[:2] - twice[:2]).max() > 1e-2


def test_one_frame_has_no_slope_and_no_frames_give_none():
    x = random_features(1, 4)
    np.testing.assert_allclose(add_deltas(x), np.hstack([x, np.zeros((1, 8))]), rtol=1e-7, atol=1e-12)
    assert add_deltas(np.zeros((0, 4), np.float32)).shape == (0, 12)


@pytest.mark.parametrize("options", [{"delta_order": -1}, {"delta_order": 1000}, {"delta_window": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(VoxarkError, match="delta-"):
        DeltaOptions(**options)


@needs_golden
@pytest.mark.parametrize(
    "name, options", [("deltas", []), ("deltas_w3o1", ["--delta-window=3", "--delta-order=1"])]
)
def test_program_equals_kaldi(name, options, tmp_path):
    run("add-deltas", *options, f"ark:{golden('feat/mfcc_default.ark')}", f"ark:{tmp_path}/d.ark")
    ours, kaldis = load_ark(tmp_path / "d.ark"), load_ark(golden(f"feat/{name}.ark"))
    assert list(ours) == list(kaldis)
    for key in kaldis:
        assert ours[key].dtype == np.float32
        np.testing.assert_allclose(ours[key], kaldis[key], rtol=1e-5, atol=2e-5, err_msg=key)


def test_program_truncates_first(tmp_path):
    x = random_features(15, 5)
    run("add-deltas", "--truncate=2", save_ark(tmp_path / "a.ark", {"u": x}), f"ark:{tmp_path}/b.ark")
    assert np.array_equal(load_ark(tmp_path / "b.ark")["u"], add_deltas(x[:, :2]))
    refused = run("add-deltas", "--truncate=6", f"ark:{tmp_path}/a.ark", f"ark:{tmp_path}/c.ark", check=False)
    assert refused.returncode == 1 and "--truncate=6" in refused.stderr and "dimension is 5" in refused.stderr
    assert not (tmp_path / "c.ark").exists()


def test_program_fails_empty_utterances_and_another_dimension(tmp_path):
    table = {"a": random_features(5, 3), "b": np.zeros((0, 0), np.float32), "c": random_features(5, 4)}
    done = run(
        "add-deltas",
        f"--failed-list={tmp_path}/failed",
        save_ark(tmp_path / "a.ark", table),
        f"ark:{tmp_path}/b.ark",
    )
    assert "WARNING (add-deltas) b: no frames" in done.stderr and "done 1, failed 2" in done.stderr
    assert "c: dimension 4, but a has 3" in done.stderr
    assert list(load_ark(tmp_path / "b.ark")) == ["a"]
    assert [line.split()[0] for line in (tmp_path / "failed").read_text().splitlines()] == ["b", "c"]


def test_program_in_a_pipe_and_before_head(tmp_path):
    table = {f"u{i:03d}": random_features(50, 13, i) for i in range(100)}
    source = save_ark(tmp_path / "a.ark", table)
    shell(f"add-deltas {source} ark:- | subsample-feats --n=2 ark:- ark:{tmp_path}/b.ark")
    assert np.array_equal(load_ark(tmp_path / "b.ark")["u007"], add_deltas(table["u007"])[::2])
    cut = shell(f"add-deltas {source} ark,t:- | head -n 1", check=False)
    assert cut.stdout.startswith(b"u000  [") and cut.stdout.count(b"\n") == 1
    assert "ERROR" not in cut.stderr and "Broken" not in cut.stderr
