"""plda-copy and plda-info, PLDA and cosine scores on a device, and vectors read in runs."""

import json

import kaldiio
import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark, shell, write_lines

from voxark import tables
from voxark.arrays import Device
from voxark.backend.plda import Plda
from voxark.backend.plda_info import describe, expected_eer, llr_moments, probability_below
from voxark.backend.vector_table import collect_vectors
from voxark.errors import VoxarkError
from voxark.scoring.backends import plda_terms, similarity_terms
from voxark.scoring.enrolment import Enrolment
from voxark.scoring.pairs import score_pairs


def random_model(dim=4, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, dim, dim + 2))
    return Plda.from_covariances(rng.standard_normal(dim), a @ a.T / dim, b @ b.T / dim)


# ---------------------------------------------------------------------------------------------- plda-copy


@needs_golden
def test_copies_of_kaldis_files_are_the_same_bytes(tmp_path):
    binary, text = golden("model/plda"), golden("model/plda.txt")
    for source, options, expected in (
        (binary, [], binary),
        (binary, ["--binary=false"], text),
        (text, ["--binary=false"], text),
    ):
        run("plda-copy", *options, source, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == expected.read_bytes()
    done = run("plda-copy", "--binary=false", binary, "-")
    assert done.stdout == text.read_bytes()


@needs_golden
def test_smoothing_is_kaldis(tmp_path):
    run("plda-copy", "--smoothing=0.1", golden("model/plda"), tmp_path / "out")
    ours, kaldi = (
        tables.read_object("plda", str(name)) for name in (tmp_path / "out", golden("model/plda_smooth.txt"))
    )
    for one, other in zip(ours, kaldi):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_model_of_transformed_vectors(tmp_path):
    # scores on A x + b equal those of the old model for invertible A, and the covariances are A C A'
    plda, rng = random_model(), np.random.default_rng(1)
    x, a, b = rng.standard_normal((6, 4)), rng.standard_normal((4, 4)), rng.standard_normal(4)
    mapped = plda.mapped(np.column_stack((a, b)))
    scores = [
        model.llr(model.project(y), model.project(y)) for model, y in ((plda, x), (mapped, x @ a.T + b))
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-8, atol=1e-9)
    tables.write_object("plda", str(tmp_path / "p"), plda.to_params())
    tables.write_object("mat", str(tmp_path / "a"), a[:2])
    run("plda-copy", f"--transform={tmp_path}/a", tmp_path / "p", tmp_path / "q")
    small = Plda.from_params(tables.read_object("plda", str(tmp_path / "q")))
    for ours, whole in zip(small.covariances(), plda.covariances()):
        np.testing.assert_allclose(ours, a[:2] @ whole @ a[:2].T, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(small.mean, a[:2] @ plda.mean, rtol=1e-12)


def test_leading_directions(tmp_path):
    plda = random_model(5)
    tables.write_object("plda", str(tmp_path / "p"), plda.to_params())
    run("plda-copy", "--dim=2", f"--write-transform={tmp_path}/a", tmp_path / "p", tmp_path / "q")
    small = Plda.from_params(tables.read_object("plda", str(tmp_path / "q")))
    matrix = tables.read_object("mat", str(tmp_path / "a"))
    np.testing.assert_array_equal(small.psi, plda.psi[:2])
    x = np.random.default_rng(0).standard_normal((7, 5))
    np.testing.assert_allclose(small.project(x @ matrix.T), plda.project(x)[:, :2], rtol=1e-9, atol=1e-12)
    assert sorted(small.psi) == pytest.approx(sorted(plda.mapped(matrix).psi), rel=1e-9)


def test_refusals_of_copy(tmp_path):
    tables.write_object("plda", str(tmp_path / "p"), random_model().to_params())
    tables.write_object("mat", str(tmp_path / "flat"), np.ones((2, 4)))
    tables.write_object("mat", str(tmp_path / "wide"), np.ones((2, 7)))
    tables.write_object("mat", str(tmp_path / "nan"), np.full((2, 4), np.nan))
    write = f"--write-transform={tmp_path}/a"
    for options, message in (
        (["--dim=2"], "--dim and --write-transform=FILE go together"),
        (["--dim=5", write], "--dim=5: the PLDA model has dimension 4"),
        (["--dim=-1", write], "--dim=-1"),
        (["--dim=2", write, f"--transform={tmp_path}/flat"], "exclude each other"),
        ([f"--transform={tmp_path}/flat"], "has rank 1"),
        ([f"--transform={tmp_path}/wide"], "wide: the transform is 2 x 7, the PLDA model has dimension 4"),
        ([f"--transform={tmp_path}/nan"], "nan: the transform holds values that are not finite"),
        (["--smoothing=2"], "--smoothing=2"),
    ):
        done = run("plda-copy", *options, tmp_path / "p", tmp_path / "q", check=False)
        assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "q").exists() and not (tmp_path / "a").exists()


def test_models_that_cannot_be_are_refused_by_name(tmp_path):
    params = random_model().to_params()
    flat, twice = params.transform.copy(), params.transform.copy()
    flat[1], twice[1] = 0, twice[2]
    singular = "the PLDA model's transform is singular"
    nothing = params._replace(mean=params.mean[:0], transform=np.zeros((0, 0)), psi=params.psi[:0])
    for name, changed, message in (
        ("flat", params._replace(transform=flat), singular),
        ("twice", params._replace(transform=twice), singular),
        ("nan", params._replace(mean=params.mean * np.nan), "values that are not finite"),
        ("none", nothing, "has dimension 0"),
    ):
        tables.write_object("plda", str(tmp_path / name), changed)
        done = run("plda-info", tmp_path / name, check=False)
        assert done.returncode == 1 and f"{name}: the PLDA model" in done.stderr and message in done.stderr
    # units that differ by 24 orders of magnitude make no model singular
    units = 10.0 ** np.array([12, -12, 0, 5])
    model = random_model()
    scaled = Plda(model.mean / units, model.transform * units, model.psi)
    for one, other in zip(scaled.covariances(), model.covariances()):
        np.testing.assert_allclose(one * np.outer(units, units), other, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------------------------------- plda-info


def simulated_scores(psi, number, seed=0):
    """LLRs of target and of non-target trials drawn from the model, one vector against one."""
    plda = Plda(np.zeros(len(psi)), np.eye(len(psi)), psi)
    rng = np.random.default_rng(seed)
    cross, row, column, constant = plda.llr_terms(1)
    scores = []
    for same in (True, False):
        z = rng.standard_normal((number, len(psi))) * np.sqrt(psi)
        y = z if same else rng.standard_normal((number, len(psi))) * np.sqrt(psi)
        e, t = z + rng.standard_normal(z.shape), y + rng.standard_normal(z.shape)
        scores.append(cross * e * t + row * e**2 + column * t**2)
    return *scores, constant


def test_moments_of_the_llr_are_those_of_simulated_trials():
    psi, number = np.array([2.0, 0.5, 0.1]), 200000
    target, nontarget, _ = simulated_scores(psi, number)
    moments = llr_moments(psi)
    for ours, scores in ((moments.target_variance, target), (moments.nontarget_variance, nontarget)):
        np.testing.assert_allclose(ours, scores.var(axis=0), rtol=0.05)
    gap = target.mean(axis=0) - nontarget.mean(axis=0)
    np.testing.assert_allclose(
        moments.target_mean - moments.nontarget_mean, gap, atol=4 * 2 / np.sqrt(number)
    )
    expected = gap / np.sqrt(0.5 * (target.var(axis=0) + nontarget.var(axis=0)))
    np.testing.assert_allclose(moments.separation(), expected, atol=0.01)


@pytest.mark.parametrize(
    "psi", [[3.0], [1e-3], [100.0, 5.0], [2.0, 1.0, 0.5, 0.25], list(0.9 ** np.arange(60))]
)
def test_expected_eer_is_that_of_simulated_trials(psi):
    psi, number = np.array(psi), 100000
    eer, threshold = expected_eer(psi)
    target, nontarget, constant = simulated_scores(psi, number)
    error = 4 * np.sqrt(eer * (1 - eer) / number)
    assert np.mean(target.sum(axis=1) + constant < threshold) == pytest.approx(eer, abs=error)
    assert np.mean(nontarget.sum(axis=1) + constant >= threshold) == pytest.approx(eer, abs=error)


def test_distribution_of_weighted_chi_squares():
    from scipy.stats import chi2

    for x in (0.1, 1.0, 5.0, 20.0):
        assert probability_below(x, np.full(4, 2.0)) == pytest.approx(chi2.cdf(x / 2, 4), abs=1e-7)
        assert probability_below(-x, np.full(4, -2.0)) == pytest.approx(chi2.sf(x / 2, 4), abs=1e-7)
    # of opposite weights: the product of two normals, symmetric about zero
    assert probability_below(0.0, np.array([0.5, -0.5])) == pytest.approx(0.5, abs=1e-9)


def test_models_without_speakers_have_no_error_rate():
    info = describe(Plda(np.zeros(2), np.eye(2), np.zeros(2)))
    assert info["expected_eer"] is None and info["speaker_dim"] == 0 and info["participation_ratio"] == 0


def test_program_describes(tmp_path):
    psi = np.array([4.0, 1.0, 1.0, 0.0])
    tables.write_object(
        "plda", str(tmp_path / "p"), Plda(np.array([3.0, 4, 0, 0]), 2 * np.eye(4), psi).to_params()
    )
    (info,) = json.loads(run("plda-info", "--format=json", tmp_path / "p").stdout)
    assert [row["psi"] for row in info["direction"]] == psi.tolist() and info["dim"] == 4
    assert info["mean_length"] == pytest.approx(5)
    assert info["speaker_dim"] == pytest.approx(0.8 + 0.5 + 0.5) and info[
        "participation_ratio"
    ] == pytest.approx(2)
    assert info["trace_within"] == pytest.approx(1) and info["trace_between"] == pytest.approx(1.5)
    assert info["between_share"] == pytest.approx(0.6)
    separation = [row["separation"] for row in info["direction"]]
    assert separation[0] > separation[1] > separation[3] == 0
    lines = run("plda-info", tmp_path / "p").stdout.decode().splitlines()
    assert "speaker-dim 1.8" in lines and lines[-1] == "direction 3 0 0" and len(lines) == 14 + 4
    assert f"expected-eer {info['expected_eer']:.6g}" in lines


# ---------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("device", ["torch", "cuda"])
@pytest.mark.parametrize("mode", ["mean", "book", "score-mean"])
@pytest.mark.parametrize("dense", [True, False])
def test_scores_on_a_device_are_those_of_numpy(device, mode, dense):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(0)
    x, test = rng.standard_normal((30, 6)).astype(np.float32), rng.standard_normal((40, 6)).astype(np.float32)
    sessions = [list(rng.integers(0, 30, n)) for n in (1, 3, 2, 2, 5)]
    enrolment = Enrolment.of_sessions(x, sessions)
    number = 180 if dense else 4
    pairs = rng.integers(0, 5, number), rng.integers(0, 40, number)
    all_terms = [plda_terms(random_model(6), enrolment, test, mode)]
    if mode != "book":
        all_terms += [similarity_terms(name, enrolment, test, mode) for name in ("cosine", "dot")]
    for terms in all_terms:
        ours, expected = score_pairs(terms, *pairs, Device(device)), score_pairs(terms, *pairs)
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(expected, terms.dense()[pairs], rtol=1e-10, atol=1e-12)


@needs_golden
def test_program_scores_on_torch(tmp_path):
    pytest.importorskip("torch")
    vectors = f"ark:{golden('model/dvec_test.norm.ark')}"
    for device in ("cpu", "torch"):
        run(
            "score-trials",
            "--backend=plda",
            f"--model={golden('model/plda')}",
            f"--device={device}",
            golden("model/trials.keys"),
            vectors,
            vectors,
            tmp_path / device,
        )
    assert len(set((tmp_path / "cpu").read_text().split())) > 100
    ours, expected = (
        np.array([line.split()[2] for line in (tmp_path / name).read_text().splitlines()], float)
        for name in ("torch", "cpu")
    )
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-5)  # the text has seven digits


def test_devices_that_are_none_are_refused(tmp_path):
    done = run(
        "score-trials",
        "--backend=gmm",
        "--model=x",
        "--device=torch",
        "a",
        "b",
        "c",
        tmp_path / "s",
        check=False,
    )
    assert done.returncode == 1 and "--device are for vectors" in done.stderr
    done = run("score-trials", "--device=tpu", "a", "ark:b", "ark:c", tmp_path / "s", check=False)
    assert done.returncode == 1 and "--device=tpu" in done.stderr


# --------------------------------------------------------------------------------------- runs of vectors


def collected(rspecifier, **options):
    with tables.open_reader("vec", rspecifier) as reader:
        table = collect_vectors(reader, **options)
    return table, reader.skipped


def test_runs_are_what_single_entries_are(tmp_path):
    rng = np.random.default_rng(0)
    values = {f"u{i}": rng.standard_normal(300).astype(np.float32) for i in range(4000)}  # several runs
    rspecifier = save_ark(tmp_path / "v.ark", values)
    with tables.open_reader("vec", rspecifier) as reader:
        runs = list(reader.runs())
    assert len(runs) < 10 and sum(len(keys) for keys, _ in runs) == 4000
    table, _ = collected(rspecifier)
    assert table.keys == list(values) and table.x.dtype == np.float32
    np.testing.assert_array_equal(table.x, list(values.values()))
    for same in (f"ark:cat {tmp_path}/v.ark |", f"ark,bg:{tmp_path}/v.ark"):
        np.testing.assert_array_equal(collected(same)[0].x, table.x)
    with tables.open_writer("vec", f"ark,scp:{tmp_path}/w.ark,{tmp_path}/w.scp") as out:
        for key, value in values.items():
            out[key] = value
    np.testing.assert_array_equal(collected(f"scp:{tmp_path}/w.scp")[0].x, table.x)
    left = []
    table, _ = collected(rspecifier, wanted={"u7", "u3999"}, leave_out=left.append)
    assert table.keys == ["u7", "u3999"] and len(left) == 3998
    np.testing.assert_array_equal(table.x, [values["u7"], values["u3999"]])


def test_mixed_archives_are_read_in_order(tmp_path):
    # text, double precision and keys of any language between runs of float32
    parts, expected = [], {}
    for number in range(60):
        value = np.arange(3, dtype=np.float64 if number % 7 == 0 else np.float32) + number
        key = f"młody-{number}" if number % 5 == 0 else f"u{number}"
        name = tmp_path / "part.ark"
        kaldiio.save_ark(str(name), {key: value}, text=number % 11 == 0)
        parts.append(name.read_bytes())
        expected[key] = value
    (tmp_path / "v.ark").write_bytes(b"".join(parts))
    table, _ = collected(f"ark:{tmp_path}/v.ark")
    assert table.keys == list(expected)
    np.testing.assert_array_equal(table.x, np.array(list(expected.values())))


def test_bad_entries_between_runs(tmp_path):
    values = {f"u{i}": np.full(2, i, np.float32) for i in range(20)}
    save_ark(tmp_path / "v.ark", values)
    data = (tmp_path / "v.ark").read_bytes()
    (tmp_path / "twice.ark").write_bytes(data + data[:100])
    with pytest.raises(VoxarkError, match="'u0' occurs twice"):
        collected(f"ark:{tmp_path}/twice.ark")
    (tmp_path / "twice.ark").write_bytes(
        data + b"u5 \0BFV \4\2\0\0\0" + bytes(8) + b"x \0BFV \4\2\0\0\0" + bytes(8)
    )
    table, skipped = collected(f"ark,p:{tmp_path}/twice.ark")
    assert table.keys == [*values, "x"] and [key for key, _ in skipped] == ["u5"]
    (tmp_path / "cut.ark").write_bytes(data[:-3])
    with pytest.raises(VoxarkError, match="u19: .*truncated"):
        collected(f"ark:{tmp_path}/cut.ark")
    assert collected(f"ark,p:{tmp_path}/cut.ark")[0].keys == list(values)[:-1]
    (tmp_path / "key.ark").write_bytes(data + b"a\1b \0BFV \4\2\0\0\0" + bytes(8))
    with pytest.raises(VoxarkError, match="a key was expected"):
        collected(f"ark:{tmp_path}/key.ark")
    (tmp_path / "dims.ark").write_bytes(data + b"z \0BFV \4\3\0\0\0" + bytes(12))
    with pytest.raises(VoxarkError, match="z: dimension 3, but u0 has 2"):
        collected(f"ark:{tmp_path}/dims.ark")
    with pytest.raises(VoxarkError, match="'u10' stands after 'u9'"):
        collected(f"ark,s:{tmp_path}/v.ark")


def test_cosine_scores_over_runs_in_a_pipe(tmp_path):
    values = {f"u{i}": np.random.default_rng(i).standard_normal(5).astype(np.float32) for i in range(6)}
    save_ark(tmp_path / "v.ark", values)
    write_lines(tmp_path / "trials", "u1 u2", "u3 u4")
    done = shell(f"score-trials {tmp_path}/trials 'ark:cat {tmp_path}/v.ark |' ark:{tmp_path}/v.ark -")
    scores = [float(line.split()[2]) for line in done.stdout.decode().splitlines()]
    for score, (a, b) in zip(scores, (("u1", "u2"), ("u3", "u4"))):
        cosine = values[a] @ values[b] / np.linalg.norm(values[a]) / np.linalg.norm(values[b])
        assert score == pytest.approx(cosine, abs=1e-5)
