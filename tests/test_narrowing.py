"""The equal error rate without sorting is that of all scores sorted, or there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxark.metrics import roc as roc_module
from voxark.metrics import Roc
from voxark.metrics.narrowing import near_crossing

METHODS = ("rocch", "interp")


@st.composite
def score_sets(draw):
    """Target and non-target scores of many shapes: ties, infinities, heavy tails, humps, sorted or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sides = []
    for _ in range(2):
        scores = rng.standard_normal(draw(st.integers(1, 400))) * draw(st.sampled_from([1.0, 3.0]))
        scores += draw(st.sampled_from([0.0, 0.5, 2.0, 10.0]))
        shape = draw(st.sampled_from(["plain", "tied", "constant", "tails", "humps", "infinite", "sorted"]))
        if shape == "tied":
            scores = np.round(scores, 1)
        elif shape == "constant":
            scores[:] = 1.0
        elif shape == "tails":
            scores = np.exp(3 * scores)
        elif shape == "humps":
            scores -= 4 * (rng.random(len(scores)) < 0.5)
        elif shape == "infinite":
            scores[rng.random(len(scores)) < 0.2] = np.inf
            scores[rng.random(len(scores)) < 0.2] = -np.inf
        elif shape == "sorted":
            scores.sort()
        sides.append(scores.astype(draw(st.sampled_from([np.float32, np.float64]))))
    return sides


@given(score_sets(), st.sampled_from([2, 8, 64]), st.sampled_from([4, 16, 100]), st.sampled_from([2, 20]))
def test_a_narrow_range_gives_the_whole_ones_eer(scores, num_bins, num_sampled, enough):
    near = near_crossing(*scores, num_bins, num_sampled, enough)
    if near is not None:
        whole = Roc(*scores)
        for method in METHODS:
            assert near.eer(method) == whole.eer(method)


@pytest.mark.parametrize("shift", [0.5, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ordinary_scores_are_narrowed_to_few(monkeypatch, shift, dtype):
    rng = np.random.default_rng(0)
    target = (rng.standard_normal(30_000) + shift).astype(dtype)
    nontarget = rng.standard_normal(300_000).astype(dtype)
    near = near_crossing(target, nontarget, num_sampled=1 << 12, enough=1 << 12)
    assert near is not None and len(near.target) + len(near.nontarget) < 33_000
    whole = Roc(target, nontarget)
    whole.target, whole.nontarget  # noqa: B018 - sorts
    monkeypatch.setattr(roc_module, "_NARROW_FROM", 1000)
    lazy = Roc(target, nontarget)
    for method in METHODS:
        assert near.eer(method) == whole.eer(method) == lazy.eer(method)
    assert "scores" not in vars(lazy._nontarget)  # nothing was sorted
    assert lazy.min_dcf() == whole.min_dcf() and lazy.eer("kaldi") == whole.eer("kaldi")


def test_a_misleading_sample_is_found_out():
    """The sample sees every hundredth score; all others of the non-targets lie where the targets are."""
    rng = np.random.default_rng(0)
    target, nontarget = rng.standard_normal(20_000) + 3, rng.standard_normal(200_000) + 3
    nontarget[::100] -= 9
    near = near_crossing(target, nontarget, num_sampled=2000, enough=1000)
    assert near is None or near.eer() == Roc(target, nontarget).eer()


def test_constant_scores_are_left_to_sorting(monkeypatch):
    monkeypatch.setattr(roc_module, "_NARROW_FROM", 10)
    assert Roc(np.ones(1000), np.ones(2000)).eer() == (0.5, 1.0)
    separate = Roc(np.ones(1000), np.zeros(2000))
    assert separate.eer() == (0.0, 0.5)
