"""Cepstral mean and variance normalisation: statistics, application, sliding window."""

import kaldiio
import numpy as np
import pytest
from helpers import golden, load_ark, needs_golden, run, save_ark, shell, write_lines
from hypothesis import given
from hypothesis import strategies as st

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.feat.cmvn import (
    SlidingCmvnOptions,
    apply_cmvn,
    apply_sliding_cmvn,
    cmvn_stats,
    mean_deviation,
    neutral_stats,
    sliding_windows,
)

MFCC = f"ark:{golden('feat/mfcc_default.ark')}"


def random_features(num_frames, dim=3, seed=0):
    return np.random.default_rng(seed).normal(4, 2, (num_frames, dim)).astype(np.float32)


# ----------------------------------------------------------------------------------------------- statistics


def test_statistics_are_sums_squares_and_count():
    x = np.array([[1, 2], [3, -4], [5, 0.5]], dtype=np.float32)
    assert cmvn_stats(x).tolist() == [[9.0, -1.5, 3.0], [35.0, 20.25, 0.0]]
    weighted = cmvn_stats(x, [0.5, 0, 2])
    assert weighted.tolist() == [[10.5, 2.0, 2.5], [50.5, 2.5, 0.0]]


@given(first=st.integers(1, 40), second=st.integers(1, 40))
def test_statistics_of_utterances_add_up(first, second):
    x = random_features(first + second)
    np.testing.assert_allclose(cmvn_stats(x[:first]) + cmvn_stats(x[first:]), cmvn_stats(x), rtol=1e-13)


def test_not_a_number_is_named_by_frame_and_column():
    x = random_features(10)
    x[7, 2] = np.nan
    with pytest.raises(VoxarkError, match="frame 7, column 2 is nan"):
        cmvn_stats(x)
    x[7, 2], x[3, 0], x[4, 1] = 0, np.inf, -np.inf  # their sum alone would be NaN
    with pytest.raises(VoxarkError, match=r"frame 3, column 0 is inf \(and 1 more\)"):
        cmvn_stats(x)
    huge = np.full((4, 1), 3e38, dtype=np.float32)  # finite, though its float32 sum is not
    assert cmvn_stats(huge)[0, 0] == pytest.approx(4 * 3e38, rel=1e-6)
    assert check_finite(np.full((4, 1), 1e308)) is None


def test_weights_of_another_length_are_refused():
    with pytest.raises(VoxarkError, match="10 frames, the weights 9"):
        cmvn_stats(random_features(10), np.ones(9))


# ---------------------------------------------------------------------------------------------- application


def test_normalised_features_have_mean_zero_and_variance_one():
    x = random_features(500)
    y = apply_cmvn(x, cmvn_stats(x))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=0), x.std(axis=0), rtol=1e-5)
    y = apply_cmvn(x, cmvn_stats(x), norm_vars=True)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("norm_vars", [False, True])
def test_reverse_undoes_it(norm_vars):
    x = random_features(50)
    stats = cmvn_stats(random_features(80, seed=1))
    y = apply_cmvn(x, stats, norm_vars)
    np.testing.assert_allclose(apply_cmvn(y, stats, norm_vars, reverse=True), x, rtol=1e-5, atol=1e-6)


def test_skipped_columns_stay_as_they_are():
    x = random_features(50)
    y = apply_cmvn(x, neutral_stats(cmvn_stats(x), [0, 2]), norm_vars=True)
    assert np.array_equal(y[:, [0, 2]], x[:, [0, 2]])
    np.testing.assert_allclose(y[:, 1].std(), 1, rtol=1e-5)
    with pytest.raises(VoxarkError, match="column 3, the statistics have dimension 3"):
        neutral_stats(cmvn_stats(x), [1, 3])


def test_a_constant_column_gives_zeros():
    x = random_features(100)
    x[:, 1] = np.float32(-15.942385)
    y = apply_cmvn(x, cmvn_stats(x), norm_vars=True)
    assert np.array_equal(y[:, 1], np.zeros(100))
    _, deviation, num_floored = mean_deviation([[0.0, 5], [0.0, 0]], norm_vars=True)
    assert num_floored == 1 and deviation[0] == pytest.approx(1e-10)


@pytest.mark.parametrize(
    "stats, norm_vars, reason",
    [
        ([[1.0, 1, 0.5], [1, 1, 0]], False, "count 0.5"),
        ([[1.0, 1, 0], [1, 1, 0]], False, "count 0"),
        ([[1.0, 1, np.nan], [1, 1, 0]], False, "count nan"),
        ([[1.0, np.inf, 3], [1, 1, 0]], False, "element 1 is inf"),
        ([[1.0, 1, 3]], True, "no sums of squares"),
        ([1.0, 1, 3], False, "shape"),
        (np.ones((3, 3)), False, "shape"),
    ],
)
def test_unusable_statistics_are_refused(stats, norm_vars, reason):
    with pytest.raises(VoxarkError, match=reason):
        mean_deviation(stats, norm_vars)


def test_statistics_of_one_row_are_enough_for_the_mean():
    assert apply_cmvn(np.float32([[1, 1]]), [[4.0, 8, 4]]).tolist() == [[0.0, -1.0]]


# ------------------------------------------------------------------------------------------- sliding window


def windows_step_by_step(num_frames, o):
    """Kaldi's rule for the window of each frame, one frame after the other."""
    for t in range(num_frames):
        if o.center:
            first = t - o.cmn_window // 2
            end = first + o.cmn_window
        else:
            first, end = t - o.cmn_window, t + 1
        if first < 0:
            first, end = 0, end - first
        if not o.center and end > t:
            end = max(t + 1, o.min_cmn_window)
        if end > num_frames:
            first, end = max(0, first - (end - num_frames)), num_frames
        yield first, end


options_of_windows = st.builds(
    SlidingCmvnOptions,
    cmn_window=st.integers(1, 30),
    min_cmn_window=st.integers(1, 40),
    norm_vars=st.booleans(),
    center=st.booleans(),
)


@given(num_frames=st.integers(1, 60), options=options_of_windows)
def test_windows_are_kaldis(num_frames, options):
    first, end = sliding_windows(num_frames, options)
    assert list(zip(first.tolist(), end.tolist())) == list(windows_step_by_step(num_frames, options))


def test_centred_windows_are_full_wherever_the_utterance_is_long_enough():
    first, end = sliding_windows(50, SlidingCmvnOptions(cmn_window=20, center=True))
    assert np.all(end - first == 20)
    first, end = sliding_windows(12, SlidingCmvnOptions(cmn_window=20, center=True))
    assert first.tolist() == [0] * 12 and end.tolist() == [12] * 12


@given(num_frames=st.integers(1, 60), options=options_of_windows, shift=st.sampled_from([0.0, 1e4]))
def test_incremental_equals_direct(num_frames, options, shift):
    x = (random_features(num_frames, seed=num_frames) + np.float32(shift)).astype(np.float32)
    y, floored = apply_sliding_cmvn(x, options)
    for t, (first, end) in enumerate(windows_step_by_step(num_frames, options)):
        window = x[first:end].astype(np.float64)
        direct = x[t] - window.mean(axis=0)
        if options.norm_vars:
            variance = window.var(axis=0)
            assert floored[t] == (np.sum(variance < 1e-10) if end - first > 1 else 0)
            direct = direct / np.sqrt(np.maximum(variance, 1e-10)) if end - first > 1 else 0 * direct
        np.testing.assert_allclose(y[t], direct, rtol=1e-5, atol=2e-6)


def test_sums_stay_exact_over_a_long_utterance():
    x = random_features(200_000, dim=2) + np.float32(
        1e5
    )  # cumulated squares of these would lose the variance
    options = SlidingCmvnOptions(cmn_window=300, center=True, norm_vars=True)
    y, _ = apply_sliding_cmvn(x, options)
    for t in (0, 100_000, 199_999):
        first, end = (part[t] for part in sliding_windows(len(x), options))
        window = x[first:end].astype(np.float64)
        np.testing.assert_allclose(
            y[t], (x[t] - window.mean(axis=0)) / window.std(axis=0), rtol=1e-6, atol=1e-7
        )


def test_a_window_of_one_frame_gives_zero():
    options = SlidingCmvnOptions(cmn_window=1, norm_vars=True, center=True)
    y, floored = apply_sliding_cmvn(random_features(2000), options)
    assert np.array_equal(y, np.zeros((2000, 3))) and not floored.any()


def test_constant_features_become_zero():
    x = np.full((40, 2), np.float32(-15.942385))
    y, floored = apply_sliding_cmvn(x, SlidingCmvnOptions(cmn_window=10, norm_vars=True, center=True))
    assert np.array_equal(y, np.zeros((40, 2))) and floored.tolist() == [2] * 40
    assert apply_sliding_cmvn(np.zeros((0, 2), np.float32))[0].shape == (0, 2)
    with pytest.raises(VoxarkError, match="cmn-window=0"):
        SlidingCmvnOptions(cmn_window=0)


# ------------------------------------------------------------------------------------------- Kaldi's output


@needs_golden
@pytest.mark.parametrize(
    "name, options", [("cmvn_utt", []), ("cmvn_spk", [f"--spk2utt=ark:{golden('spk2utt')}"])]
)
def test_statistics_equal_kaldis(name, options, tmp_path):
    run("compute-cmvn-stats", *options, MFCC, f"ark:{tmp_path}/stats.ark")
    ours, kaldis = load_ark(tmp_path / "stats.ark"), load_ark(golden(f"feat/{name}.ark"))
    assert list(ours) == list(kaldis)
    for key in kaldis:
        assert ours[key].dtype == np.float64
        np.testing.assert_allclose(ours[key][0], kaldis[key][0], rtol=1e-13, err_msg=key)
        # Kaldi rounds each square to float32 before it adds it
        np.testing.assert_allclose(ours[key][1], kaldis[key][1], rtol=6e-8, err_msg=key)


@needs_golden
def test_global_statistics_equal_kaldis(tmp_path):
    run("compute-cmvn-stats", MFCC, tmp_path / "global.mat")
    ours, kaldis = (tmp_path / "global.mat").read_bytes(), golden("feat/cmvn_global.mat").read_bytes()
    sums = 15 + 4 * 14  # the header and the first row
    assert len(ours) == len(kaldis) and ours[:sums] == kaldis[:sums]
    np.testing.assert_allclose(
        np.frombuffer(ours[sums:], "<f4"), np.frombuffer(kaldis[sums:], "<f4"), rtol=2e-7
    )
    run("compute-cmvn-stats", "--binary=false", MFCC, tmp_path / "global.txt")
    text = (tmp_path / "global.txt").read_text().replace("[", "").replace("]", "").split()
    np.testing.assert_allclose(
        np.array(text, float), kaldiio.load_mat(str(tmp_path / "global.mat")).ravel(), rtol=1e-6
    )


@needs_golden
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("applied_spk", [f"--utt2spk=ark:{golden('utt2spk')}", f"ark:{golden('feat/cmvn_spk.ark')}"]),
        (
            "applied_spk_var",
            ["--norm-vars=true", f"--utt2spk=ark:{golden('utt2spk')}", f"ark:{golden('feat/cmvn_spk.ark')}"],
        ),
        ("applied_global", [golden("feat/cmvn_global.mat")]),
    ],
)
def test_application_equals_kaldis(name, arguments, tmp_path):
    run("apply-cmvn", *arguments, MFCC, f"ark:{tmp_path}/out.ark")
    ours, kaldis = load_ark(tmp_path / "out.ark"), load_ark(golden(f"feat/{name}.ark"))
    assert list(ours) == list(kaldis)
    for key in kaldis:
        assert ours[key].dtype == np.float32
        np.testing.assert_allclose(ours[key], kaldis[key], rtol=1e-5, atol=1e-5, err_msg=key)


@needs_golden
@pytest.mark.parametrize(
    "name, options",
    [
        ("sliding", ["--norm-vars=false", "--center=true", "--cmn-window=300"]),
        (
            "sliding_causal_var",
            ["--norm-vars=true", "--center=false", "--cmn-window=100", "--min-cmn-window=50"],
        ),
    ],
)
def test_sliding_normalisation_equals_kaldis(name, options, tmp_path):
    run("apply-cmvn-sliding", *options, MFCC, f"ark:{tmp_path}/out.ark")
    ours, kaldis = load_ark(tmp_path / "out.ark"), load_ark(golden(f"feat/{name}.ark"))
    assert list(ours) == list(kaldis)
    for key in kaldis:
        np.testing.assert_allclose(ours[key], kaldis[key], rtol=1e-5, atol=1e-5, err_msg=key)


# ------------------------------------------------------------------------------------------------- programs


def test_speaker_statistics_name_missing_utterances(tmp_path):
    table = {"a1": random_features(5), "a2": random_features(7, seed=1), "b1": random_features(3)}
    table["b1"][2, 1] = np.nan
    source = save_ark(tmp_path / "f.ark", table)
    spk2utt = write_lines(tmp_path / "spk2utt", "A a1 gone a2", "B b1", "C never")
    done = run("compute-cmvn-stats", f"--spk2utt={spk2utt}", source, f"ark:{tmp_path}/s.ark")
    stats = load_ark(tmp_path / "s.ark")
    assert list(stats) == ["A"]
    np.testing.assert_allclose(stats["A"], cmvn_stats(table["a1"]) + cmvn_stats(table["a2"]), rtol=1e-14)
    for text in (
        "gone: utterance of speaker A has no features",
        "b1: feature at frame 2, column 1 is nan",
        "B: no statistics",
        "C: no statistics",
        "done 2, failed 3",
    ):
        assert text in done.stderr


def test_statistics_with_weights(tmp_path):
    x = random_features(6)
    source = save_ark(tmp_path / "f.ark", {"a": x, "b": x, "c": x})
    weights = np.float32([0, 1, 0.5, 0, 2, 1])
    table = save_ark(tmp_path / "w.ark", {"a": weights, "c": weights[:5]})
    done = run("compute-cmvn-stats", f"--weights={table}", source, f"ark:{tmp_path}/s.ark")
    stats = load_ark(tmp_path / "s.ark")
    assert list(stats) == ["a"]
    np.testing.assert_allclose(stats["a"], cmvn_stats(x, weights), rtol=1e-14)
    assert "b: no weights" in done.stderr and "c: features have 6 frames, the weights 5" in done.stderr


def test_mixed_dimensions_end_a_sum_and_fail_a_key(tmp_path):
    source = save_ark(tmp_path / "f.ark", {"a": random_features(6, 3), "b": random_features(6, 4)})
    total = run("compute-cmvn-stats", source, tmp_path / "s.mat", check=False)
    assert total.returncode == 1 and "b: dimension 4, but a has 3" in total.stderr
    assert not (tmp_path / "s.mat").exists()
    single = run("compute-cmvn-stats", source, f"ark:{tmp_path}/s.ark")
    assert "b: dimension 4, but a has 3" in single.stderr and list(load_ark(tmp_path / "s.ark")) == ["a"]
    run("compute-cmvn-stats", save_ark(tmp_path / "g.ark", {"a": random_features(6, 3)}), tmp_path / "s.mat")
    applied = run(
        "apply-cmvn",
        tmp_path / "s.mat",
        save_ark(tmp_path / "h.ark", {"b": random_features(6, 4)}),
        f"ark:{tmp_path}/o.ark",
        check=False,
    )
    assert (
        applied.returncode == 1
        and "b: features have dimension 4, the normalisation statistics 3" in applied.stderr
    )


def test_application_names_what_is_missing(tmp_path):
    x = random_features(6)
    feats = save_ark(
        tmp_path / "f.ark", {k: x for k in ("a", "b", "c", "d")} | {"e": np.zeros((0, 0), np.float32)}
    )
    few = cmvn_stats(x)
    few[0, -1] = 0.25
    stats = save_ark(tmp_path / "s.ark", {"A": cmvn_stats(x), "D": few})
    utt2spk = write_lines(tmp_path / "utt2spk", "a A", "b B", "d D", "e A")
    done = run("apply-cmvn", f"--utt2spk={utt2spk}", stats, feats, f"ark:{tmp_path}/o.ark")
    assert list(load_ark(tmp_path / "o.ark")) == ["a"]
    for text in (
        "b: no normalisation statistics for its speaker B",
        "c: no speaker in --utt2spk",
        "d: normalisation statistics have count 0.25",
        "e: no frames",
        "done 1, failed 4",
    ):
        assert text in done.stderr


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--norm-vars=true", "--norm-means=false", "ark:s.ark"], "--norm-means=true"),
        (["--utt2spk=ark:utt2spk", "s.mat"], "did you forget ark:"),
        (["--skip-dims=1:x", "ark:s.ark"], "--skip-dims=1:x"),
        (["--skip-dims=7", "s.mat"], "s.mat: --skip-dims names column 7"),
        (["absent.mat"], "absent.mat"),
    ],
)
def test_wrong_use_of_apply_cmvn(arguments, reason, tmp_path):
    x = random_features(6)
    save_ark(tmp_path / "f.ark", {"a": x})
    save_ark(tmp_path / "s.ark", {"a": cmvn_stats(x)})
    kaldiio.save_mat(str(tmp_path / "s.mat"), cmvn_stats(x))
    done = run("apply-cmvn", *arguments, "ark:f.ark", "ark:o.ark", check=False, cwd=tmp_path)
    assert done.returncode == 1 and reason in done.stderr
    assert not (tmp_path / "o.ark").exists()


def test_spk2utt_needs_a_table(tmp_path):
    done = run("compute-cmvn-stats", "--spk2utt=ark:x", "ark:y", "stats.mat", check=False, cwd=tmp_path)
    assert done.returncode == 1 and "did you forget ark:" in done.stderr


def test_options_reach_the_method(tmp_path):
    x = random_features(30)
    feats = save_ark(tmp_path / "f.ark", {"a": x})
    stats = save_ark(tmp_path / "s.ark", {"a": cmvn_stats(random_features(80, seed=3))})
    run("apply-cmvn", "--norm-vars", "--skip-dims=0:2", stats, feats, f"ark:{tmp_path}/o.ark")
    y = load_ark(tmp_path / "o.ark")["a"]
    assert np.array_equal(y[:, [0, 2]], x[:, [0, 2]]) and not np.allclose(y[:, 1], x[:, 1])
    run(
        "apply-cmvn",
        "--norm-vars",
        "--reverse=true",
        "--skip-dims=0:2",
        stats,
        f"ark:{tmp_path}/o.ark",
        f"ark:{tmp_path}/back.ark",
    )
    np.testing.assert_allclose(load_ark(tmp_path / "back.ark")["a"], x, rtol=1e-5)
    run("apply-cmvn", "--norm-means=false", stats, feats, f"ark:{tmp_path}/copy.ark")
    assert (tmp_path / "copy.ark").read_bytes() == (tmp_path / "f.ark").read_bytes()


def test_floor_warnings_are_limited(tmp_path):
    constant = np.ones((20, 2), np.float32)
    source = save_ark(tmp_path / "f.ark", {"a": constant, "b": random_features(20)})
    command = [
        "apply-cmvn-sliding",
        "--norm-vars",
        "--center",
        "--cmn-window=10",
        source,
        f"ark:{tmp_path}/o.ark",
    ]
    assert run(*command).stderr.count("floored 2 variances") == 5
    assert "a: floored variances at 15 more frames" in run(*command).stderr
    assert run(*command, "--max-warnings=-1").stderr.count("floored") == 20
    assert run(*command, "--max-warnings=0").stderr.count("floored") == 0


def test_sliding_fails_what_it_cannot_normalise(tmp_path):
    bad = random_features(20)
    bad[11, 1] = np.inf
    source = save_ark(tmp_path / "f.ark", {"a": random_features(1), "b": bad, "c": np.zeros((0, 0), np.float32)})
    done = run("apply-cmvn-sliding", "--center", source, f"ark:{tmp_path}/o.ark")
    assert "b: feature at frame 11, column 1 is inf" in done.stderr and "done 1, failed 2" in done.stderr
    assert np.array_equal(load_ark(tmp_path / "o.ark")["a"], np.zeros((1, 3)))


@needs_golden
def test_a_pipe_of_programs(tmp_path):
    shell(
        f"apply-cmvn ark:'compute-cmvn-stats {MFCC} ark:- |' {MFCC} ark:- | add-deltas ark:- ark:- "
        f"| select-voiced-frames ark:- ark:{golden('feat/vad_default.ark')} ark:{tmp_path}/o.ark"
    )
    voiced = dict(kaldiio.load_ark(str(golden("feat/vad_default.ark"))))
    ours = load_ark(tmp_path / "o.ark")
    assert len(ours) == 15  # without syn-silence, which has no voiced frame
    assert all(len(ours[key]) == voiced[key].sum() for key in ours)


def test_a_failing_pipe_leaves_no_output(tmp_path):
    save_ark(tmp_path / "f.ark", {"a": random_features(20)})
    done = run("apply-cmvn-sliding", "ark:cat f.ark; false |", "ark:o.ark", check=False, cwd=tmp_path)
    assert done.returncode == 1 and "status 1" in done.stderr
    assert not (tmp_path / "o.ark").exists()
