"""gmm-copy and gmm-info: Kaldi's copies and conversions of GMMs, and figures checked by hand."""

import json
import re

import numpy as np
import pytest
from helpers import golden, needs_golden, run

from voxark import tables
from voxark.gmm.diag import DiagGmm
from voxark.gmm.full import FullGmm
from voxark.kaldi_files import DiagGmmParams, FullGmmParams
from voxark.packed import pack_lower


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def diag_gmm():
    return DiagGmm(np.array([0.25, 0.75]), np.array([[1.0, 2], [3, -4]]), np.array([[1.0, 4], [9, 0.5]]))


# ---------------------------------------------------------------------------------------------------- copying


@needs_golden
@pytest.mark.parametrize("name, text", [("diag.1.gmm", "diag.1.txt"), ("full.1.gmm", "full.1.txt")])
def test_copies_of_kaldi(name, text, folder):
    """As gmm-global-copy and fgmm-global-copy do, byte for byte, from binary and from text."""
    kaldi, kaldi_text = golden(f"model/{name}"), golden(f"model/{text}")
    run("gmm-copy", kaldi, "copy")
    assert (folder / "copy").read_bytes() == kaldi.read_bytes()
    run("gmm-copy", "--binary=false", "copy", "text")
    assert (folder / "text").read_bytes() == kaldi_text.read_bytes()
    run("gmm-copy", "--binary=false", "text", "text2")
    assert (folder / "text2").read_bytes() == kaldi_text.read_bytes()
    for to in ("diag", "full"):
        run("gmm-copy", f"--to={to}", kaldi, f"copy.{to}")
        assert ((folder / f"copy.{to}").read_bytes() == kaldi.read_bytes()) == name.startswith(to)
    done = run("gmm-copy", f"cat {kaldi} |", "-")
    assert done.stdout == kaldi.read_bytes()


@needs_golden
def test_diag_to_full_as_kaldi(folder):
    """gmm-global-to-fgmm: the same numbers; the constants, summed in single precision there, to rounding."""
    run("gmm-copy", "--to=full", golden("model/diag.1.gmm"), "full")
    ours, kaldi = (tables.read_object("full-gmm", str(name)) for name in ("full", golden("model/full.0.gmm")))
    for name in ("weights", "means_invcovars", "inv_covars"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(kaldi, name))
    np.testing.assert_allclose(ours.gconsts, kaldi.gconsts, rtol=2e-7)


@needs_golden
def test_full_to_diag_as_kaldi(folder):
    """fgmm-global-to-gmm, whose means have the rounding of a product with a matrix in single precision."""
    run("gmm-copy", "--to=diag", golden("model/full.1.gmm"), "diag")
    names = ("diag", golden("model/full.1.diag.gmm"))
    ours, kaldi = (tables.read_object("diag-gmm", str(name)) for name in names)
    np.testing.assert_array_equal(ours.weights, kaldi.weights)
    np.testing.assert_allclose(ours.inv_vars, kaldi.inv_vars, rtol=2e-7)
    deviation = np.abs(ours.means_invvars - kaldi.means_invvars) / np.sqrt(kaldi.inv_vars)
    assert deviation.max() < 1e-5  # of a standard deviation
    np.testing.assert_allclose(ours.gconsts, kaldi.gconsts, rtol=5e-7)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-7), (np.float64, 1e-14)])
def test_there_and_back(dtype, tolerance, folder):
    """diag -> full -> diag loses nothing but rounding, and keeps the precision of the file."""
    tables.write_object("gmm", "diag", diag_gmm().to_params(dtype))
    run("gmm-copy", "--to=full", "diag", "full")
    run("gmm-copy", "--to=diag", "full", "back")
    before, after = tables.read_object("gmm", "diag"), tables.read_object("gmm", "back")
    full = tables.read_object("gmm", "full")
    assert isinstance(full, FullGmmParams) and isinstance(after, DiagGmmParams)
    for one, other in zip(before, after, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=tolerance)
    np.testing.assert_allclose(full.inv_covars, [[1, 0, 0.25], [1 / 9, 0, 2]], rtol=tolerance)


def test_what_is_not_changed_is_not_touched(folder):
    """Wrong constants, none at all, double precision: copied as they are, also when the kind is asked for."""
    params = diag_gmm().to_params(np.float64)
    for odd in (params._replace(gconsts=np.array([7.0, 8.0])), params._replace(gconsts=None)):
        tables.write_object("gmm", "odd", odd)
        for option in ("--to=same", "--to=diag"):
            run("gmm-copy", option, "odd", "copy")
            assert (folder / "copy").read_bytes() == (folder / "odd").read_bytes()
        run("gmm-copy", "--to=full", "odd", "full")  # a new model has its own
        assert tables.read_object("gmm", "full").gconsts == pytest.approx(params.gconsts, rel=1e-12)


def test_tables_of_models(folder):
    """As adapt-gmm-map writes them; diagonal and full models may stand side by side."""
    params = diag_gmm().to_params()
    with tables.open_writer("gmm", "ark,scp:a.ark,a.scp") as out:
        out["spk1"], out["spk2"] = params, FullGmm.from_params(diag_gmm().to_full().to_params()).to_params()
    done = run("gmm-copy", "ark:a.ark", "ark:b.ark")
    assert "done 2, failed 0 (models)" in done.stderr
    assert (folder / "b.ark").read_bytes() == (folder / "a.ark").read_bytes()
    run("gmm-copy", "scp:a.scp", "ark,t:t.ark")
    assert (folder / "t.ark").read_bytes().startswith(b"spk1 <DiagGMM> \n<GCONSTS>  [ ")
    run("gmm-copy", "--to=diag", "ark:t.ark", "ark:c.ark")
    with tables.open_reader("diag-gmm", "ark:c.ark") as models:
        for (_, one), key in zip(models, ("spk1", "spk2"), strict=True):
            np.testing.assert_allclose(one.inv_vars, params.inv_vars, rtol=1e-6, err_msg=key)


def test_bad_models_and_arguments(folder):
    params = diag_gmm().to_params()
    broken = params._replace(inv_vars=params.inv_vars * np.float32(-1))
    with tables.open_writer("gmm", "ark:a.ark") as out:
        out["good"], out["bad"] = params, broken
    done = run("gmm-copy", "--to=full", "ark:a.ark", "ark:b.ark")
    assert "bad: GMM has a parameter that is not a number, or a negative" in done.stderr
    assert "done 1, failed 1 (models)" in done.stderr
    tables.write_object("gmm", "bad", broken)
    for arguments, message in (
        (("--to=full", "bad", "out"), "ERROR (gmm-copy) bad: GMM has a parameter that is not a number"),
        (("ark:a.ark", "out"), "both arguments must be table specifiers, or both file names"),
        (("--to=half", "bad", "out"), "half"),
        (("missing", "out"), "missing: No such file"),
    ):
        done = run("gmm-copy", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert not (folder / "out").exists()


# ------------------------------------------------------------------------------------------------ description


def info(*arguments):
    return json.loads(run("gmm-info", "--format=json", *arguments).stdout)


def test_figures_of_a_model_by_hand(folder):
    tables.write_object("gmm", "diag", diag_gmm().to_params(np.float64))
    (found,) = info("diag")
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    expected = {"model": "diag", "covariance": "diag", "precision": "float64", "num_gauss": 2,
                "dim": 2, "num_parameters": 9, "weight_sum": 1,
                "weight_smallest": 0.25, "weight_largest": 0.75, "weight_entropy": entropy,
                "effective_num_gauss": np.exp(entropy), "variance_smallest": 0.5,
                "variance_largest": 9, "condition_largest": 18, "condition_worst_gauss": 1}
    assert list(found) == list(expected)
    assert {key: found[key] for key in found if isinstance(found[key], str)} == {
        key: value for key, value in expected.items() if isinstance(value, str)}
    for key, value in expected.items():
        assert isinstance(value, str) or found[key] == pytest.approx(value, rel=1e-12), key


def test_eigenvalues_of_a_full_model(folder):
    """Covariances built from known eigenvalues, rotated; a weight of 0 is no component that has an effect."""
    eigenvalues = np.array([[1, 10, 100.0], [2, 3, 4], [5, 5, 6]])
    rotations = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3, 3)))[0]
    precisions = np.einsum("cik,ck,cjk->cij", rotations, 1 / eigenvalues, rotations)
    params = FullGmmParams(None, np.array([0.5, 0.5, 0]), np.zeros((3, 3)), pack_lower(precisions))
    tables.write_object("gmm", "full", params)
    (found,) = info("full")
    assert found["covariance"] == "full" and found["num_parameters"] == 2 + 3 * (3 + 6)
    assert found["effective_num_gauss"] == pytest.approx(2) and found["weight_smallest"] == 0
    assert found["variance_smallest"] == pytest.approx(1) and found["variance_largest"] == pytest.approx(100)
    assert found["condition_largest"] == pytest.approx(100)
    assert found["condition_worst_gauss"] == 0


@needs_golden
def test_text_for_many_models(folder):
    """Lines that scripts find with grep and awk '{print $NF}', as those of Kaldi's fgmm-global-info."""
    with tables.open_writer("gmm", "ark:a.ark") as out:
        out["spk"] = diag_gmm().to_params()
    lines = run("gmm-info", golden("model/full.1.gmm"), "ark:a.ark").stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("num-gauss ")] == ["8", "2"]
    assert [line.split()[-1] for line in lines if line.startswith("dim")] == ["20", "2"]
    models = [line for line in lines if line.startswith("model")]
    assert models == [f"model {golden('model/full.1.gmm')}", "model spk"]
    assert "weight-largest 0.302424" in lines


def test_bad_models_are_named(folder):
    params = diag_gmm().to_full().to_params()
    inv_covars = params.inv_covars.copy()
    inv_covars[1] = [1, 3, 1]  # not positive definite
    tables.write_object("gmm", "bad", params._replace(inv_covars=inv_covars))
    for arguments, message in ((("bad",), r"bad: GMM .*not positive definite: component 1 has"),
                               (("none",), "none: No such file"), ((), "wrong number of arguments")):
        done = run("gmm-info", *arguments, check=False)
        assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
        assert done.stdout == b""
    (folder / "empty.ark").write_bytes(b"")
    done = run("gmm-info", "ark:empty.ark", check=False)
    assert done.returncode == 1 and "WARNING (gmm-info) nothing was done" in done.stderr


def test_one_gaussian_has_entropy_zero(folder):
    tables.write_object("gmm", "one", DiagGmm([1.0], [[0.0]], [[2.0]]).to_params())
    assert b"weight-entropy 0\n" in run("gmm-info", "one").stdout
