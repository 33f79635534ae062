"""Energy-based voice activity detection: borderline decisions, Kaldi's own output, and the program."""

import kaldiio
import numpy as np
import pytest
from helpers import ROOT, golden, needs_golden, run, save_ark
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.feat.vad import VadOptions, energy_vad


def column(energies):
    """Features whose column 0 is the energy; the other column must not matter."""
    return np.array([[e, 1e9] for e in energies], dtype=np.float32).reshape(-1, 2)


def vad_by_definition(x, o):
    f = np.float32
    energy = x[:, 0].astype(f)
    threshold = f(o.vad_energy_threshold)
    threshold += f(o.vad_energy_mean_scale) * f(np.sum(energy, dtype=np.float64)) / f(len(energy))
    decisions = []
    for t in range(len(energy)):
        window = [
            u for u in range(t - o.vad_frames_context, t + o.vad_frames_context + 1) if 0 <= u < len(energy)
        ]
        count = sum(energy[u] > threshold for u in window)
        decisions.append(float(f(count) >= f(len(window)) * f(o.vad_proportion_threshold)))
    return decisions


@given(
    energies=st.lists(st.integers(-4, 4), min_size=1, max_size=25),
    context=st.integers(0, 5),
    proportion=st.sampled_from([0.05, 0.12, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95]),
    scale=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_equals_the_definition(energies, context, proportion, scale):
    options = VadOptions(0.0, scale, context, proportion)
    x = column(energies)
    assert energy_vad(x, options).tolist() == vad_by_definition(x, options)


def test_energy_must_exceed_the_threshold_strictly():
    options = VadOptions(vad_energy_threshold=5.5, vad_energy_mean_scale=0.0)
    just_above = np.nextafter(np.float32(5.5), np.float32(6))
    assert energy_vad(column([5.5, just_above]), options).tolist() == [0.0, 1.0]


def test_proportion_may_be_met_exactly():
    # 3 of 5 frames against 0.6: in float32 5 * 0.6 is 3 exactly, in float64 with float32's 0.6 it is above 3
    options = VadOptions(0.0, 0.0, 2, 0.6)
    energies = [1, -1, 1, -1, 1]
    assert float(np.float32(0.6)) * 5 > 3
    assert energy_vad(column(energies), options)[2] == 1.0
    assert energy_vad(column([1, -1, -1, -1, 1]), options)[2] == 0.0


def test_the_mean_counts_all_frames():
    # mean 4, threshold 5 + 0.5 * 4 = 7
    assert energy_vad(column([7, 0, 0, 9])).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_window_is_cut_at_the_edges():
    options = VadOptions(0.0, 0.0, 3, 0.5)
    assert energy_vad(column([1, 1, -1, -1, -1, -1, -1]), options).tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_no_frames_and_not_a_number():
    assert energy_vad(np.zeros((0, 0), np.float32)).shape == (0,)
    with pytest.raises(VoxarkError, match="frame 1, column 0 is nan"):
        energy_vad(column([1, np.nan, 2]))
    with pytest.raises(VoxarkError, match="frame 2, column 0 is -inf"):
        energy_vad(column([1, 3, -np.inf]))


@pytest.mark.parametrize(
    "options",
    [
        {"vad_energy_mean_scale": -0.1},
        {"vad_frames_context": -1},
        {"vad_proportion_threshold": 0.0},
        {"vad_proportion_threshold": 1.0},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(VoxarkError, match="--vad-"):
        VadOptions(**options)


@needs_golden
@pytest.mark.parametrize(
    "name, feats, options",
    [
        ("vad_default.ark", "mfcc_default", []),
        ("vad_sre.ark", "mfcc20_30", [f"--config={ROOT}/conf/vad.conf"]),
        (
            "vad_sre.ark",
            "mfcc20_30",
            [
                "--vad-energy-threshold=5.5",
                "--vad-energy-mean-scale=0.5",
                "--vad-proportion-threshold=0.12",
                "--vad-frames-context=2",
            ],
        ),
    ],
)
def test_program_writes_kaldis_bytes(name, feats, options, tmp_path):
    run("compute-vad", *options, f"ark:{golden(f'feat/{feats}.ark')}", f"ark:{tmp_path}/vad.ark")
    assert (tmp_path / "vad.ark").read_bytes() == golden(f"feat/{name}").read_bytes()


@needs_golden
def test_program_writes_kaldis_text():
    done = run("compute-vad", f"ark:{golden('feat/mfcc_default.ark')}", "ark,t:-")
    assert done.stdout == golden("feat/vad_default.txt").read_bytes()


def test_program_keeps_or_omits_utterances_without_voice(tmp_path):
    table = {
        "loud": column([0, 0, 30]),
        "quiet": column([1, 1, 1]),
        "empty": np.zeros((0, 0), np.float32),
        "broken": column([1, np.inf]),
    }
    source = save_ark(tmp_path / "a.ark", table)
    kept = run("compute-vad", source, f"ark:{tmp_path}/b.ark")
    assert list(dict(kaldiio.load_ark(f"{tmp_path}/b.ark"))) == ["loud", "quiet"]
    assert "quiet: no frame was judged voiced" in kept.stderr and "done 2, failed 2" in kept.stderr
    assert "empty: no frames" in kept.stderr and "broken: energy at frame 1, column 0 is inf" in kept.stderr
    omitted = run("compute-vad", "--omit-unvoiced-utts", source, f"ark:{tmp_path}/b.ark")
    assert list(dict(kaldiio.load_ark(f"{tmp_path}/b.ark"))) == ["loud"]
    assert "done 1, failed 3" in omitted.stderr
