"""Scorers of end-to-end systems: PLDA and definitions, gradients, calibration, export, sessions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers import run, save_ark  # noqa: E402

from voxark import tables  # noqa: E402
from voxark.backend.dplda import Dplda  # noqa: E402
from voxark.backend.lda import LdaOptions, train_lda  # noqa: E402
from voxark.backend.plda import Plda  # noqa: E402
from voxark.backend.vectors import length_normalize, transform  # noqa: E402
from voxark.e2e.scorers import (  # noqa: E402
    SCORERS,
    CosineScorer,
    DiagonalScorer,
    DpldaScorer,
    Front,
    SnyderScorer,
    build_scorer,
    session_mean,
)
from voxark.errors import VoxarkError  # noqa: E402
from voxark.trials.lists import read_scores  # noqa: E402

torch.set_num_threads(1)
KINDS = list(SCORERS)


def random_plda(dim, seed=0):
    rng = np.random.default_rng(seed)
    transform = rng.standard_normal((dim, dim)) + 2 * np.eye(dim)
    return Plda(rng.standard_normal(dim), transform, np.sort(rng.gamma(1.0, 2.0, dim))[::-1])


def randomised(kind, dim=5, seed=0, **options):
    """A scorer of float64 with every parameter moved from where it starts."""
    scorer = build_scorer(kind, dim, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in scorer.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return scorer


# ------------------------------------------------------------------------------------------ what they compute


@pytest.mark.parametrize("make", [DpldaScorer, DiagonalScorer])
def test_started_from_files_they_score_like_the_recipe(make):
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((60, 7)) + 2, np.arange(60) % 12
    x += 2 * rng.standard_normal((12, 7))[labels]
    mean = x.mean(axis=0)
    lda = train_lda(x - mean, labels, LdaOptions(dim=4))
    plda = random_plda(4)
    scorer = make(7, front_dim=4).double()
    scorer.front.init_(mean, lda)
    scorer.init_from_plda_(plda)
    chain = length_normalize(transform(x - mean, lda))
    expected = plda.llr(plda.project(chain), plda.project(chain))
    np.testing.assert_allclose(scorer.score_numpy(x), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scorer.score_numpy(x[:3], x[5:]), expected[:3, 5:], rtol=1e-9, atol=1e-9)


def test_a_diagonal_plda_needs_no_rotation():
    plda = random_plda(4)
    diagonal = Plda(plda.mean, np.diag([1.0, -2.0, 0.5, 3.0]), plda.psi)
    x = np.random.default_rng(0).standard_normal((6, 4))
    scorer = DiagonalScorer(4, length_norm=False, rotate=False).double().init_from_plda_(diagonal)
    projected = diagonal.project(x)
    np.testing.assert_allclose(scorer.score_numpy(x), diagonal.llr(projected, projected), rtol=1e-10)
    form = scorer.to_dplda().dplda
    assert (form.lam == np.diag(np.diag(form.lam))).all() and (
        form.gamma == np.diag(np.diag(form.gamma))
    ).all()
    with pytest.raises(VoxarkError, match="not diagonal"):
        scorer.init_from_plda_(plda)
    with pytest.raises(VoxarkError, match="the PLDA model has dimension 3, the vectors that are scored 4"):
        scorer.init_from_plda_(random_plda(3))


def test_the_forms_by_their_definition():
    x = np.random.default_rng(1).standard_normal((4, 5))
    cosine, snyder = randomised("cosine"), randomised("snyder")
    a, b = np.log1p(np.exp(cosine.raw_a.item())), cosine.b.item()
    y = x + cosine.front.bias.detach().numpy()
    expected = [[a * u @ v / np.sqrt(u @ u * (v @ v)) + b for v in y] for u in y]
    np.testing.assert_allclose(cosine.score_numpy(x), expected, rtol=1e-12)
    S = snyder.S.detach().numpy()  # not symmetric: the form uses its symmetric part
    a, b = np.log1p(np.exp(snyder.raw_a.item())), snyder.b.item()
    y = x + snyder.front.bias.detach().numpy()
    expected = [[a * (u @ v - u @ S @ u - v @ S @ v) + b for v in y] for u in y]
    np.testing.assert_allclose(snyder.score_numpy(x), expected, rtol=1e-11)
    dplda = randomised("dplda", length_norm=False)
    lam, gamma, c, k = (getattr(dplda, name).detach().numpy() for name in ("lam", "gamma", "c", "k"))
    y = x + dplda.front.bias.detach().numpy()
    expected = [
        [2 * u @ (lam + lam.T) / 2 @ v + u @ gamma @ u + v @ gamma @ v + (u + v) @ c + k for v in y]
        for u in y
    ]
    np.testing.assert_allclose(dplda.score_numpy(x), expected, rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_symmetric_and_gradients_those_of_finite_differences(kind):
    scorer = randomised(kind, front_dim=3)
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    scores = scorer(x)
    torch.testing.assert_close(scores, scores.T)
    torch.testing.assert_close(scores, scorer(x, x))
    parameters = list(scorer.parameters())
    names = [name for name, _ in scorer.named_parameters()]

    def score(x, *values):
        return torch.func.functional_call(scorer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(score, (x, *parameters), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_parameters_take_embeddings_of_any_precision(kind):
    scorer = build_scorer(kind, 6, front_dim=4)
    x = torch.randn(5, 6)
    assert scorer(x).dtype == torch.float32 and scorer(x.double()).dtype == torch.float64
    torch.testing.assert_close(scorer(x).double(), scorer(x.double()), rtol=1e-4, atol=1e-4)
    scorer(x.double()).square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in scorer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_vector_has_finite_scores_and_gradients(kind):
    scorer = build_scorer(kind, 4)
    x = torch.zeros(3, 4, requires_grad=True)
    scorer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_what_the_front_refuses():
    front = Front(5, 3)
    with pytest.raises(VoxarkError, match="the mean has dimension 4, the embeddings 5"):
        front.init_(mean=np.zeros(4))
    with pytest.raises(VoxarkError, match="the LDA matrix is 3 x 4, the front of the scorer takes 5 to 3"):
        front.init_(lda=np.ones((3, 4)))
    with pytest.raises(VoxarkError, match="takes 5 to no matrix"):
        Front(5).init_(lda=np.ones((3, 5)))
    with pytest.raises(VoxarkError, match="embeddings have dimension 4, the scorer takes 5"):
        DpldaScorer(5)(torch.zeros(2, 4))
    with pytest.raises(VoxarkError, match="back-end 'svm': expected one of dplda"):
        build_scorer("svm", 3)


# ------------------------------------------------------------------------------------------ calibration


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_sets_the_affine_map(kind):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    scorer = randomised(kind)
    x = rng.standard_normal((40, 5))
    before = scorer.score_numpy(x)
    target = rng.random((40, 40)) < 1 / (1 + np.exp(-2.0 * (before - before.mean()) / before.std()))
    fit = scorer.calibrate_(before, target, 0.5)
    after = scorer.score_numpy(x)
    np.testing.assert_allclose(after, fit.weights[0] * before + fit.offset, rtol=1e-8, atol=1e-8)
    peer = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000, class_weight="balanced")
    peer.fit(before.reshape(-1, 1), target.reshape(-1))
    np.testing.assert_allclose(
        [fit.weights[0], fit.offset], [peer.coef_[0, 0], peer.intercept_[0]], rtol=1e-3, atol=1e-4
    )
    assert abs(scorer.calibrate_(after, target).weights[0] - 1) < 1e-6  # again: nothing is left to do


def test_calibration_of_some_trials_and_of_a_bad_start(caplog):
    rng = np.random.default_rng(5)
    x, target = rng.standard_normal((30, 5)), rng.random((30, 30)) < 0.3
    upper = np.triu_indices(30, 1)
    weighted, chosen = randomised("dplda"), randomised("dplda")
    scores = weighted.score_numpy(x)
    weighted.calibrate_(scores, target, 0.1, weights=np.triu(np.ones((30, 30)), 1))
    chosen.calibrate_(torch.from_numpy(scores[upper]), torch.from_numpy(target[upper]), 0.1)
    np.testing.assert_allclose(weighted.score_numpy(x), chosen.score_numpy(x))
    bad = randomised("dplda")
    bad.calibrate_(scores, scores < scores.mean())
    now = bad.score_numpy(x)
    assert np.corrcoef(now.ravel(), scores.ravel())[0, 1] > 0.999 and abs(now.mean()) < 1e-6
    assert 0.001 < now.std() < 0.1 and "do not score higher" in caplog.text
    with pytest.raises(VoxarkError, match="no target trials"):
        bad.calibrate_(scores, np.zeros_like(target))


# ------------------------------------------------------------------------------------------ several sessions


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_several_sessions(kind):
    scorer, rng = randomised(kind, front_dim=3), np.random.default_rng(0)
    sessions, tests = (
        torch.from_numpy(rng.standard_normal((6, 5))),
        torch.from_numpy(rng.standard_normal((4, 5))),
    )
    model = torch.tensor([2, 0, 1, 0, 1, 1])
    rows = [np.flatnonzero(model.numpy() == m) for m in range(3)]
    means = np.stack([sessions.numpy()[r].mean(axis=0) for r in rows])
    np.testing.assert_allclose(
        scorer(sessions, tests, model).detach(), scorer.score_numpy(means, tests.numpy())
    )
    each = scorer.score_numpy(sessions.numpy(), tests.numpy())
    np.testing.assert_allclose(
        scorer(sessions, tests, model, "score-mean").detach(), np.stack([each[r].mean(axis=0) for r in rows])
    )
    weights = torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    weighted = session_mean(sessions, model, weights=weights).numpy()
    np.testing.assert_allclose(weighted[0], 0.75 * sessions[1].numpy() + 0.25 * sessions[3].numpy())
    np.testing.assert_allclose(weighted[1], 0.5 * (sessions[2] + sessions[5]).numpy())
    with pytest.raises(VoxarkError, match="need test embeddings"):
        scorer(sessions, sessions=model)
    with pytest.raises(VoxarkError, match="mean or score-mean"):
        scorer(sessions, tests, model, "book")


# ------------------------------------------------------------------------------------------ export


@pytest.mark.parametrize(
    "front", [{"front_dim": 3}, {}, {"front_dim": 3, "length_norm": False}, {"length_norm": False}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_form_gives_the_same_scores(kind, front):
    scorer, x = randomised(kind, **front), np.random.default_rng(0).standard_normal((6, 5))
    np.testing.assert_allclose(
        scorer.to_terms(x, x[:4]).dense(), scorer.score_numpy(x, x[:4]), rtol=1e-9, atol=1e-9
    )
    exported = scorer.to_dplda()
    if not front.get("length_norm", kind in ("dplda", "diagonal")) and kind != "cosine":
        assert exported.transform is None and exported.dplda.dim == 5  # all in one form over the embeddings
        np.testing.assert_allclose(exported.dplda.scores(x, x), scorer.score_numpy(x), rtol=1e-9, atol=1e-9)
    assert (exported.dplda.lam == exported.dplda.lam.T).all()


def test_score_trials_scores_an_exported_scorer(tmp_path):
    scorer, x = randomised("diagonal"), np.random.default_rng(0).standard_normal((6, 5))
    exported = scorer.to_dplda()
    tables.write_object("dplda", str(tmp_path / "model"), exported.dplda.to_params())
    table = save_ark(tmp_path / "v.ark", {f"u{i}": v for i, v in enumerate(exported.vectors(x))})
    (tmp_path / "trials").write_text("u0 u1\nu2 u3\nu5 u4\n")
    run(
        "score-trials",
        "--backend=dplda",
        f"--model={tmp_path / 'model'}",
        tmp_path / "trials",
        table,
        table,
        tmp_path / "scores",
    )
    expected = scorer.score_numpy(x)
    np.testing.assert_allclose(
        read_scores(str(tmp_path / "scores")).scores,
        [expected[0, 1], expected[2, 3], expected[5, 4]],
        rtol=1e-5,
    )


def test_the_dplda_scorer_is_the_dplda_of_the_backend():
    plda = random_plda(5)
    scorer = DpldaScorer(5, length_norm=False).double().init_from_plda_(plda)
    x, form = np.random.default_rng(0).standard_normal((4, 5)), Dplda.from_plda(plda)
    np.testing.assert_allclose(scorer.score_numpy(x), form.scores(x, x), rtol=1e-10)
    for kind, cls in (("cosine", CosineScorer), ("snyder", SnyderScorer)):
        assert isinstance(build_scorer(kind, 3), cls)
