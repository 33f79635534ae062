"""ln p = Q + H + KL of mixture training: terms by hand, the identity, what rises, Viterbi, the table."""

import io
import math

import numpy as np
import pytest

from helpers import run
from voxark import tables
from voxark.em_report import EmReport, EmTerms
from voxark.errors import VoxarkError
from voxark.gmm import report
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import EmOptions, e_step, m_step, train_gmm
from voxark.gmm.full import FullGmm
from voxark.gmm.init import InitOptions


def data_sets():
    """Three kinds of data: heavy tails, correlated dimensions far from 0, clusters."""
    rng = np.random.default_rng(1)
    centres = 5 * rng.standard_normal((5, 2))
    return {"heavy tails": rng.standard_t(2, size=(900, 4)),
            "correlated": rng.standard_normal((900, 3)) @ rng.standard_normal((3, 3)) + 100,
            "clusters": centres[rng.integers(0, 5, 900)] + rng.standard_normal((900, 2))}


def as_utterances(x, length=150):
    return [(f"utt{i}", x[i : i + length].astype(np.float32)) for i in range(0, len(x), length)]


class Kept:
    """Takes the place of an EmReport and keeps the terms."""

    def __init__(self):
        self.lines = []

    def add(self, iteration, step, terms):
        self.lines.append((iteration, step, terms))


def by_loops(old, new, x, hard):
    """Q, H, KL and ln p of q under ``old`` and the parameters of ``new``, number by number."""
    q_total, h_total, kl_total, log_p = 0.0, 0.0, 0.0, 0.0
    for frame in x:
        joint = old.component_log_likelihoods(frame[None])[0].tolist()
        if hard:
            q = [float(c == max(range(len(joint)), key=lambda i: (joint[i], -i))) for c in range(len(joint))]
        else:
            total = math.fsum(map(math.exp, joint))
            q = [math.exp(value) / total for value in joint]
        joint = new.component_log_likelihoods(frame[None])[0].tolist()
        evidence = math.log(math.fsum(map(math.exp, joint)))
        log_p += evidence
        for share, value in zip(q, joint):
            if share > 0:
                q_total += share * value
                h_total -= share * math.log(share)
                kl_total += share * (math.log(share) - (value - evidence))
    return log_p, q_total, h_total, kl_total, len(x)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_terms_equal_the_definition(kind, hard, monkeypatch):
    monkeypatch.setattr(report, "MAX_CELLS", 120)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((130, 2))
    old = DiagGmm([0.3, 0.3, 0.4], rng.standard_normal((3, 2)), 0.5 + rng.random((3, 2)))
    new = DiagGmm([0.5, 0.3, 0.2], rng.standard_normal((3, 2)), 0.5 + rng.random((3, 2)))
    if kind == "full":
        old, new = old.to_full(), new.to_full()
    features = [("a", x[:90]), ("b", x[90:])]
    after_e, after_m = report.iteration_terms(old, new, features, hard)
    np.testing.assert_allclose(after_e, by_loops(old, old, x, hard), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(after_m, by_loops(old, new, x, hard), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", ["em", "viterbi"])
@pytest.mark.parametrize("covariance", ["diag", "full"])
@pytest.mark.parametrize("name", ["heavy tails", "correlated", "clusters"])
def test_identity_and_what_rises(name, covariance, training):
    x = data_sets()[name]
    kept = Kept()
    options = EmOptions(covariance=covariance, training=training, num_iters=8, double=True,
                        var_floor_factor=1e-4, min_gaussian_occupancy=5)
    initial = DiagGmm(np.full(3, 1 / 3), x[[10, 20, 30]].astype(np.float32), np.tile(x.var(axis=0), (3, 1)))
    train_gmm(as_utterances(x), InitOptions(), options, initial, kept)
    assert [(i, step) for i, step, _ in kept.lines] == [(i, s) for i in range(1, 9) for s in "EM"]
    terms = [terms for _, _, terms in kept.lines]
    for term in terms:
        assert abs(term.gap) <= 1e-9 * max(1.0, abs(term.log_likelihood)) and term.num == 900
        assert term.kl >= -1e-9 * 900
        assert (term.h == 0) if training == "viterbi" else term.h > 0
    for after_e, after_m in zip(terms[::2], terms[1::2]):
        assert after_m.h == after_e.h and after_m.q >= after_e.q - 1e-9 * abs(after_e.q)
        if training == "em":
            assert abs(after_e.kl) < 1e-9 * 900
            rise = after_m.log_likelihood - after_e.log_likelihood
            assert np.isclose(rise, after_m.q - after_e.q + after_m.kl, atol=1e-6) and rise >= -1e-6
        else:
            assert after_e.kl > 0
    assert terms[-1].log_likelihood > terms[0].log_likelihood
    for after_m, after_e in zip(terms[1::2], terms[2::2]):  # the model did not change in between
        assert np.isclose(after_m.log_likelihood, after_e.log_likelihood, rtol=1e-12)
        assert after_e.q + after_e.h >= after_m.q + after_m.h - 1e-6 or training == "viterbi"
    if training == "viterbi":
        q = [term.q for term in terms]
        assert (np.diff(q) >= -1e-9 * np.abs(q[1:])).all()  # Q of the best path never falls


def test_viterbi_training_can_lower_the_likelihood():
    """Two overlapping components on one Gaussian's data: the hard assignment cuts the data in two."""
    x = np.random.default_rng(3).standard_normal((1000, 1)).astype(np.float32)
    for start in (DiagGmm([0.5, 0.5], [[-0.1], [0.1]], [[1.0], [1.0]]),
                  FullGmm([0.5, 0.5], [[-0.1], [0.1]], [[[1.0]], [[1.0]]])):
        accs = e_step(start, [("a", x)], hard=True, double=True)
        assert np.isclose(accs.log_likelihood, start.component_log_likelihoods(x).max(axis=1).sum())
        after = m_step(start, accs, EmOptions(), np.full(1, 1e-3))
        best = lambda gmm: gmm.component_log_likelihoods(x).max(axis=1).sum()  # noqa: E731
        assert best(after) > best(start) + 100
        assert after.log_likelihood(x).sum() < start.log_likelihood(x).sum() - 10
        right = x[:, 0] > 0
        np.testing.assert_allclose(after.means[1], x[right].mean(), rtol=1e-5)
        np.testing.assert_allclose(after.weights, [1 - right.mean(), right.mean()])


def test_starved_components_leave_after_the_m_step():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((400, 1)).astype(np.float32)
    initial = DiagGmm([0.4, 0.4, 0.2], [[-1.0], [1.0], [50.0]], np.ones((3, 1)))
    kept = Kept()
    for rescue in (False, True):
        train_gmm([("a", x)], InitOptions(), EmOptions(num_iters=3, rescue=rescue), initial, kept)
    table = io.StringIO()
    train_gmm([("a", x)], InitOptions(), EmOptions(num_iters=3), initial, EmReport(table))
    assert len(kept.lines) == 12 and all(np.isfinite(terms).all() for _, _, terms in kept.lines)
    assert len(table.getvalue().splitlines()) == 7


def test_wrong_terms_are_refused():
    good = EmTerms(-10.0, -12.0, 1.5, 0.5, 4)
    EmReport().add(1, "E", good)
    for wrong in (good._replace(q=-11.0), good._replace(q=-10.0, kl=-1.5), good._replace(q=math.nan)):
        with pytest.raises(VoxarkError, match="iteration 1"):
            EmReport().add(1, "M", wrong)


@pytest.mark.parametrize("options", [(), ("--covariance=full",), ("--training=viterbi", "--max-memory=0"),
                                     ("--device=torch",)])
def test_the_program_reports(tmp_path, options):
    if "--device=torch" in options:
        pytest.importorskip("torch")
    with tables.open_writer("mat", f"ark:{tmp_path}/feats.ark") as out:
        for key, x in as_utterances(data_sets()["clusters"]):
            out[key] = x
    arguments = ("--num-gauss=3", "--num-iters=3", "--init=kmeans++", *options)
    plain = run("train-gmm-em", *arguments, f"ark:{tmp_path}/feats.ark", tmp_path / "plain")
    done = run("train-gmm-em", *arguments, "--report", f"--report-file={tmp_path}/report",
               f"ark:{tmp_path}/feats.ark", tmp_path / "gmm")
    assert (tmp_path / "gmm").read_bytes() == (tmp_path / "plain").read_bytes()
    assert "after M: ln p" not in plain.stderr and done.stderr.count("after E: ln p") == 3
    header, *lines = [line.split("\t") for line in (tmp_path / "report").read_text().splitlines()]
    assert header == ["iteration", "step", "lnp", "Q", "H", "KL", "num"] and len(lines) == 6
    for i, (iteration, step, *numbers) in enumerate(lines):
        log_p, q, h, kl, num = map(float, numbers)
        assert (int(iteration), step) == (i // 2 + 1, "EM"[i % 2]) and num == 900
        assert abs(log_p - (q + h + kl)) < 1e-8 * abs(log_p) and kl >= -1e-6
    logged = [line for line in done.stderr.splitlines() if "log-likelihood per frame" in line]
    values = [float(line.split("per frame ")[1].split()[0]) for line in logged]
    column = 3 if "--training=viterbi" in options else 2  # its criterion is Q
    expected = [float(line[column]) / 900 for line in lines if line[1] == "E"]
    np.testing.assert_allclose(values, expected, atol=2e-3)
