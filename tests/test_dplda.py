"""Discriminative PLDA: its scores against PLDA's and its definition, its file, the programs that take it."""

import numpy as np
import pytest
from helpers import run, save_ark, write_lines
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.backend.dplda import Dplda
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.packed import pack_lower
from voxark.scoring.backends import BackendOptions, dplda_terms, open_backend
from voxark.scoring.enrolment import Enrolment
from voxark.trials.lists import read_scores


BY_HAND = """<Dplda> <Lambda> [
1
0.5 2 ]
<Gamma> [
-1
0 -2 ]
<Offset>  [ 0.1 0.2 ]
<Constant> 3 </Dplda>
"""


def random_plda(dim, seed=0):
    rng = np.random.default_rng(seed)
    transform = rng.standard_normal((dim, dim)) + 2 * np.eye(dim)
    return Plda(rng.standard_normal(dim), transform, np.sort(rng.gamma(1.0, 2.0, dim))[::-1])


def random_dplda(dim, seed=0):
    rng = np.random.default_rng(seed)
    lam, gamma = (a + a.T for a in rng.standard_normal((2, dim, dim)))
    return Dplda(lam, gamma, rng.standard_normal(dim), float(rng.standard_normal()))


# ---------------------------------------------------------------------------------------------- scores


@given(dim=st.integers(1, 12), seed=st.integers(0, 50))
def test_scores_are_those_of_plda_one_against_one(dim, seed):
    plda, rng = random_plda(dim, seed), np.random.default_rng(seed)
    x, y = rng.standard_normal((5, dim)), rng.standard_normal((4, dim))
    expected = plda.llr(plda.project(x), plda.project(y))
    np.testing.assert_allclose(Dplda.from_plda(plda).scores(x, y), expected, rtol=1e-9, atol=1e-9)


def test_the_coefficients_are_those_of_the_covariances():
    plda = random_plda(5)
    within, between = plda.covariances()
    total = within + between
    rest = np.linalg.inv(total - between @ np.linalg.solve(total, between))
    p, q = np.linalg.solve(total, between) @ rest, np.linalg.inv(total) - rest
    form = Dplda.from_plda(plda)
    np.testing.assert_allclose(form.lam, p / 2, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(form.gamma, q / 2, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(form.c, -(p + q) @ plda.mean, rtol=1e-8, atol=1e-10)
    half_log_ratio = 0.5 * (np.linalg.slogdet(total)[1] + np.linalg.slogdet(rest)[1])
    np.testing.assert_allclose(form.k, plda.mean @ (p + q) @ plda.mean + half_log_ratio, rtol=1e-8)
    assert (form.lam == form.lam.T).all() and (form.gamma == form.gamma.T).all()


def by_definition(model, x, y):
    return 2 * x @ model.lam @ y + x @ model.gamma @ x + y @ model.gamma @ y + (x + y) @ model.c + model.k


def test_scores_by_their_definition_and_symmetry():
    model, rng = random_dplda(4), np.random.default_rng(1)
    x, y = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)
    expected = [[by_definition(model, a.astype(float), b.astype(float)) for b in y] for a in x]
    np.testing.assert_allclose(model.scores(x, y), expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(model.scores(x, x), model.scores(x, x).T, rtol=1e-11, atol=1e-12)


def test_several_sessions():
    model, rng = random_dplda(4), np.random.default_rng(1)
    x, tests, sessions = rng.standard_normal((6, 4)), rng.standard_normal((3, 4)), [[0], [1, 2, 3], [4, 5]]
    enrolment = Enrolment.of_sessions(x, sessions)
    means = np.stack([x[rows].mean(axis=0) for rows in sessions])
    of_means = dplda_terms(model, enrolment, tests).dense()
    np.testing.assert_allclose(of_means, model.scores(means, tests), rtol=1e-10, atol=1e-12)
    averaged = [model.scores(x[rows], tests).mean(axis=0) for rows in sessions]
    np.testing.assert_allclose(
        dplda_terms(model, enrolment, tests, "score-mean").dense(), averaged, rtol=1e-10, atol=1e-12
    )
    with pytest.raises(VoxarkError, match="--enroll=book needs --backend=plda: dplda does not know"):
        dplda_terms(model, enrolment, tests, "book")
    with pytest.raises(VoxarkError, match="the test vectors have dimension 3, the DPLDA model 4"):
        dplda_terms(model, enrolment, tests[:, :3])


# ---------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("binary", [True, False])
def test_the_file_both_ways(tmp_path, binary):
    model = random_dplda(3)
    tables.write_object("dplda", str(tmp_path / "a"), model.to_params(), binary=binary)
    again = tables.read_model("dplda", str(tmp_path / "a"), Dplda.from_params)
    tolerance = 0 if binary else 1e-6
    for name in ("lam", "gamma", "c", "k"):
        np.testing.assert_allclose(getattr(again, name), getattr(model, name), rtol=tolerance)
    data = (tmp_path / "a").read_bytes()
    tables.write_object("dplda", str(tmp_path / "b"), again.to_params(), binary=binary)
    assert (tmp_path / "b").read_bytes() == data
    if binary:  # the layout that the module states, put together from Kaldi's conventions
        def double(letter, values):
            return b"D" + letter + b" \4\3\0\0\0" + values.tobytes()

        assert data == b"".join((
            b"\0B<Dplda> <Lambda> ", double(b"P", pack_lower(model.lam)), b"<Gamma> ",
            double(b"P", pack_lower(model.gamma)), b"<Offset> ", double(b"V", model.c), b"<Constant> \x08",
            np.float64(model.k).tobytes(), b"</Dplda> "))


def test_a_text_file_as_written_by_hand(tmp_path):
    (tmp_path / "d").write_text(BY_HAND)
    model = tables.read_model("dplda", str(tmp_path / "d"), Dplda.from_params)
    assert model.lam.tolist() == [[1, 0.5], [0.5, 2]] and model.gamma.tolist() == [[-1, 0], [0, -2]]
    assert model.c.tolist() == [0.1, 0.2] and model.k == 3.0
    np.testing.assert_allclose(model.scores(np.array([[1.0, 2]]), np.array([[3.0, -1]])),
                               2 * (3 + 0.5 * (-1 + 6) - 4) + (-1 - 8) + (-9 - 2) + 0.4 + 0.2 + 3)


def test_single_precision_is_read(tmp_path):
    model = random_dplda(3)
    params = model.to_params()
    single = params._replace(lam=params.lam.astype(np.float32), gamma=params.gamma.astype(np.float32),
                             offset=params.offset.astype(np.float32))
    tables.write_object("dplda", str(tmp_path / "a"), single)
    again = tables.read_model("dplda", str(tmp_path / "a"), Dplda.from_params)
    assert again.lam.dtype == np.float64
    np.testing.assert_allclose(again.lam, model.lam, rtol=1e-6)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[ 0.1 0.2 ]", "[ 0.1 ]", "Lambda of dimension 2, Gamma 2, offset 1"),
        ("[\n-1\n0 -2 ]", "[\n-1 ]", "Lambda of dimension 2, Gamma 1, offset 2"),
        ("[\n-1\n0 -2 ]", "[\n-1\n0 ]", "2 numbers are no triangle"),
        ("[ 0.1 0.2 ]", "[ 0.1 nan ]", "not finite"),
        ("<Constant> 3", "<Constant> inf", "not finite"),
        ("<Gamma>", "<Gama>", "<Gamma> was expected"),
        ("<Dplda>", "<Plda>", "<Dplda> was expected"),
        ("3 </Dplda>\n", "3", "</Dplda>|token"),
    ],
)
def test_a_corrupt_file_is_refused_with_its_name(tmp_path, old, new, message):
    assert old in BY_HAND
    (tmp_path / "d").write_text(BY_HAND.replace(old, new, 1))
    with pytest.raises(VoxarkError, match=message) as error:
        tables.read_model("dplda", str(tmp_path / "d"), Dplda.from_params)
    assert str(tmp_path / "d") in str(error.value)


def test_a_model_without_dimensions_is_refused():
    empty = np.zeros(0)
    with pytest.raises(VoxarkError, match="dimension 0"):
        Dplda.from_params(Dplda(np.zeros((0, 0)), np.zeros((0, 0)), empty, 0.0).to_params())


# ---------------------------------------------------------------------------------------------- the programs


def test_plda_copy_makes_the_model_that_score_trials_scores_like_plda(tmp_path):
    plda, rng = random_plda(6), np.random.default_rng(0)
    tables.write_object("plda", str(tmp_path / "plda"), plda.to_params())
    run("plda-copy", "--to=dplda", "--smoothing=0.2", tmp_path / "plda", tmp_path / "dplda")
    x = rng.standard_normal((8, 6)).astype(np.float32)
    table = save_ark(tmp_path / "v.ark", {f"u{i}": x[i] for i in range(8)})
    sessions = write_lines(tmp_path / "map", "m u0 u1", "n u2")
    (tmp_path / "trials").write_text("".join(f"{model} u{i}\n" for model in "mn" for i in range(3, 8)))
    scores = {}
    for name, more in (("plda", ["--smoothing=0.2", "--normalize-length=false"]), ("dplda", [])):
        for mode in ("mean", "score-mean"):
            run("score-trials", f"--backend={name}", f"--model={tmp_path / name}", f"--enroll-map={sessions}",
                f"--enroll={mode}", *more, tmp_path / "trials", table, table, tmp_path / "s")
            scores[name, mode] = read_scores(str(tmp_path / "s")).scores
    for mode in ("mean", "score-mean"):
        np.testing.assert_allclose(scores["dplda", mode], scores["plda", mode], rtol=1e-6, atol=1e-6)
    assert np.abs(scores["dplda", "mean"] - scores["dplda", "score-mean"])[:5].min() > 1e-3
    command = ["score-trials", "--backend=dplda", f"--model={tmp_path / 'dplda'}", "--enroll=book",
               f"--enroll-map={sessions}", tmp_path / "trials", table, table, tmp_path / "t"]
    done = run(*command, check=False)
    assert done.returncode == 1 and "--enroll=book needs --backend=plda" in done.stderr


def test_the_wrong_model_is_refused(tmp_path):
    tables.write_object("plda", str(tmp_path / "plda"), random_plda(3).to_params())
    with pytest.raises(VoxarkError, match="<Dplda> was expected, '<Plda>' was found"):
        open_backend(BackendOptions(backend="dplda", model=str(tmp_path / "plda")))
