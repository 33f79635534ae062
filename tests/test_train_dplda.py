"""Training of discriminative PLDA: the loss of all pairs, its gradient, batches, and the program."""

import itertools

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.sparse import csr_array

import voxark.backend.dplda_objective as objective
from helpers import load_ark, run, save_ark, shell, write_lines
from voxark import tables
from voxark.backend.dplda import Dplda
from voxark.backend.dplda_batches import Batches, draw_sessions
from voxark.backend.dplda_form import Form, Space, start_from, substituted
from voxark.backend.dplda_objective import CountWeights, Pairs, SessionPairs, verification_loss
from voxark.backend.dplda_train import (
    Adam,
    DpldaTrainingOptions,
    Penalty,
    Trials,
    calibrated,
    train_dplda,
)
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.calibration.logistic import fit_logistic, prior_weighted_loss
from voxark.trials.development import LabelledVectors, all_pairs, hold_out
from voxark.trials.lists import read_scores
from voxark.metrics import Roc

COUNTS = (1, 4, 2, 3, 4, 1, 2)


def random_dplda(dim, seed=0, scale=0.3):
    rng = np.random.default_rng(seed)
    lam, gamma = (scale * rng.standard_normal((dim, dim)) for _ in range(2))
    return Dplda(lam + lam.T, gamma + gamma.T, rng.standard_normal(dim), 0.7)


def vectors(counts=COUNTS, dim=3, seed=1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return rng.standard_normal((len(labels), dim)), labels


def loop(model, x, labels, p_target=0.5, weight=lambda i, j: 1.0):
    """The loss as methods state it: a loop over pairs."""
    tau, totals, costs = np.log(p_target / (1 - p_target)), [0.0, 0.0], [0.0, 0.0]
    for i, j in itertools.combinations(range(len(x)), 2):
        s = 2 * x[i] @ model.lam @ x[j] + x[i] @ model.gamma @ x[i] + x[j] @ model.gamma @ x[j]
        s += (x[i] + x[j]) @ model.c + model.k
        is_target, w = int(labels[i] == labels[j]), weight(i, j)
        totals[is_target] += w
        costs[is_target] += w * np.logaddexp(0.0, -(s + tau) if is_target else s + tau)
    entropy = -p_target * np.log(p_target) - (1 - p_target) * np.log(1 - p_target)
    return (p_target * costs[1] / totals[1] + (1 - p_target) * costs[0] / totals[0]) / entropy


def simulate(num_speakers, per_speaker, dim=6, seed=0, psi=1.5):
    """A Plda that is true, the same for all seeds, and vectors drawn from it: (plda, x, labels)."""
    rng = np.random.default_rng(dim)
    mix = rng.standard_normal((dim, dim)) / np.sqrt(dim) + np.eye(dim)
    mean, spread = rng.standard_normal(dim), psi * 0.8 ** np.arange(dim)
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_speakers), per_speaker)
    u = (np.sqrt(spread) * rng.standard_normal((num_speakers, dim)))[labels]
    u += rng.standard_normal(u.shape)
    plda = Plda.from_covariances(mean, mix @ mix.T, (mix * spread) @ mix.T)
    return plda, u @ mix.T + mean, labels


# ------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("p_target", [0.5, 0.02])
def test_the_loss_is_that_of_a_loop_over_pairs(p_target):
    x, labels = vectors()
    model = random_dplda(3)
    value, _ = verification_loss(model, Pairs.of_speakers(labels, p_target), x)
    np.testing.assert_allclose(value, loop(model, x, labels, p_target), rtol=1e-12)


def test_scores_of_zero_cost_exactly_one():
    x, labels = vectors()
    zero = Dplda(np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3), 0.0)
    for p_target in (0.5, 0.01, 0.9):
        value, gradient = verification_loss(zero, Pairs.of_speakers(labels, p_target), x)
        np.testing.assert_allclose(value, 1.0, rtol=1e-13)
        assert abs(gradient.k) < 1e-13  # no constant is better than the prior


def test_it_is_the_loss_of_calibration():
    x, labels = vectors()
    model = random_dplda(3)
    i, j = np.triu_indices(len(x), 1)
    expected = prior_weighted_loss(model.scores(x, x)[i, j], labels[i] == labels[j], 0.1)
    np.testing.assert_allclose(
        verification_loss(model, Pairs.of_speakers(labels, 0.1), x)[0], expected, rtol=1e-12
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_gradient_by_finite_differences(diagonal):
    x, labels = vectors()
    form, pairs = Form(3, diagonal), Pairs.of_speakers(labels, 0.2)
    theta = form.vector(random_dplda(3))
    trials = Trials(x, pairs)
    numeric = [
        (trials.loss(form, theta + step)[0] - trials.loss(form, theta - step)[0]) / 2e-5
        for step in 1e-5 * np.eye(form.size)
    ]
    np.testing.assert_allclose(trials.loss(form, theta)[1], numeric, rtol=1e-7, atol=1e-9)


def test_gradient_by_automatic_differentiation():
    torch = pytest.importorskip("torch")
    x, labels = vectors((5, 9, 3, 8), dim=4)
    model = random_dplda(4)
    lam, gamma, c, k = (
        torch.tensor(np.asarray(part), dtype=torch.float64, requires_grad=True)
        for part in (model.lam, model.gamma, model.c, model.k)
    )
    e = torch.from_numpy(x)
    g = ((e @ gamma) * e).sum(1) + e @ c
    i, j = np.triu_indices(len(x), 1)
    s = (2 * e @ lam @ e.T + g[:, None] + g + k)[i, j] + np.log(0.1 / 0.9)
    target = torch.from_numpy(labels[i] == labels[j])
    softplus = torch.nn.functional.softplus
    entropy = -0.1 * np.log(0.1) - 0.9 * np.log(0.9)
    loss = (0.1 * softplus(-s[target]).mean() + 0.9 * softplus(s[~target]).mean()) / entropy
    loss.backward()
    value, gradient = verification_loss(model, Pairs.of_speakers(labels, 0.1), x)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    for ours, theirs in ((gradient.lam, lam), (gradient.gamma, gamma), (gradient.c, c), (gradient.k, k)):
        theirs = theirs.grad.numpy()
        np.testing.assert_allclose(ours, (theirs + theirs.T) / 2, rtol=1e-10, atol=1e-13)


def test_tiles_give_what_the_whole_gives(monkeypatch):
    x, labels = vectors((9, 1, 30, 2, 17, 11), dim=3)
    same, model = np.arange(len(x)) // 2 % 9, random_dplda(3)
    results = []
    for tile in ((256, 512), (7, 13), (4, 4), (1, 50)):
        monkeypatch.setattr(objective, "TILE", tile)
        value, gradient = verification_loss(model, Pairs.of_speakers(labels, 0.3, same=same), x)
        results.append(
            np.concatenate([[value, gradient.k], gradient.c, gradient.lam.ravel(), gradient.gamma.ravel()])
        )
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-11, atol=1e-14)


def test_huge_scores_do_not_overflow():
    x, labels = vectors()
    model = Dplda(1e5 * np.eye(3), np.zeros((3, 3)), np.zeros(3), 0.0)
    value, gradient = verification_loss(model, Pairs.of_speakers(labels), x)
    assert np.isfinite(value) and np.isfinite(gradient.lam).all() and value > 1e3


def test_softplus_keeps_its_digits():
    z = np.array([-745.0, -40.0, -1e-9, 0.0, 3.0, 50.0, 1e6])
    slope = z.copy()
    np.testing.assert_allclose(objective.softplus_and_slope(slope), np.logaddexp(0.0, z), rtol=1e-14)
    expected = [1.0 / (1.0 + np.exp(-value)) if value > -700 else np.exp(value) for value in z]
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


# ---------------------------------------------------------------------------------- which pairs, what weight


def test_weights_by_numbers_of_vectors():
    x, labels = vectors()
    counts, model = np.bincount(labels), random_dplda(3)
    weights = CountWeights(
        {2: 3.0, 3: 0.5, 4: 0.25}, {(a, b): 1.0 / (a + 2 * b) for a in range(1, 5) for b in range(a, 5)}
    )

    def weight(i, j):
        a, b = sorted((int(counts[labels[i]]), int(counts[labels[j]])))
        return weights.target[a] if labels[i] == labels[j] else weights.nontarget[a, b]

    value, _ = verification_loss(model, Pairs.of_speakers(labels, 0.3, weights), x)
    np.testing.assert_allclose(value, loop(model, x, labels, 0.3, weight), rtol=1e-12)
    with pytest.raises(VoxarkError, match="none for target trials of speakers with 4 vectors"):
        Pairs.of_speakers(labels, 0.3, CountWeights({}, weights.nontarget))
    del weights.nontarget[1, 4]
    with pytest.raises(VoxarkError, match="none for nontarget trials of speakers with 1 and 4 vectors"):
        Pairs.of_speakers(labels, 0.3, weights)


@pytest.mark.parametrize("crossing", [False, True])  # whether a recording has two speakers
def test_pairs_of_one_recording_do_not_count(crossing):
    x, labels = vectors()
    same = np.arange(len(x)) // 2 if crossing else 10 * labels + np.arange(len(x)) % 2
    model = random_dplda(3)
    value, _ = verification_loss(model, Pairs.of_speakers(labels, 0.3, same=same), x)
    expected = loop(model, x, labels, 0.3, lambda i, j: float(same[i] != same[j]))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    with pytest.raises(VoxarkError, match="no target trial"):
        Pairs.of_speakers(labels, same=labels)


def test_listed_pairs():
    x, labels = vectors()
    rng, model = np.random.default_rng(0), random_dplda(3)
    dense = np.triu(rng.random((len(x), len(x))) * (rng.random((len(x), len(x))) < 0.6), 1)
    value, _ = verification_loss(model, Pairs.of_speakers(labels, 0.3, listed=csr_array(dense)), x)
    np.testing.assert_allclose(value, loop(model, x, labels, 0.3, lambda i, j: dense[i, j]), rtol=1e-12)


def test_one_speaker_has_no_trials():
    with pytest.raises(VoxarkError, match="no nontarget trial"):
        Pairs.of_speakers(np.zeros(3, int))
    with pytest.raises(VoxarkError, match="no target trial"):
        Pairs.of_speakers(np.arange(3))


@pytest.mark.parametrize("same", [False, True])
def test_models_of_several_sessions(same):
    x, labels = vectors()
    recording = np.arange(len(x)) // 2 if same else None
    models, pairs = draw_sessions(x, labels, 3, np.random.default_rng(0), 0.3, recording)
    model = random_dplda(3)
    barred = pairs.barred.toarray() != 0
    members = draw_sessions(x, labels, 3, np.random.default_rng(0), 0.3)[1].barred.toarray() != 0
    sizes = members.sum(axis=1)
    assert set(sizes) == {1, 2, 3} and (sizes <= np.maximum(np.bincount(labels)[labels] - 1, 1)).all()
    for m, row in enumerate(members):
        assert (labels[row] == labels[m]).all()
        np.testing.assert_allclose(models[m], x[row].mean(axis=0))
        expected = row if recording is None else np.isin(recording, recording[row])
        assert (barred[m] == expected).all()
    s, target = model.scores(models, x)[~barred], (labels[:, None] == labels)[~barred]
    value, gradient = verification_loss(model, pairs, x, models)
    np.testing.assert_allclose(value, prior_weighted_loss(s, target, 0.3), rtol=1e-12)
    form = Form(3)
    trials, theta = Trials(x, pairs, models), form.vector(model)
    numeric = [
        (trials.loss(form, theta + step)[0] - trials.loss(form, theta - step)[0]) / 2e-5
        for step in 1e-5 * np.eye(form.size)
    ]
    np.testing.assert_allclose(form.vector(gradient), numeric, rtol=1e-7, atol=1e-9)


def test_models_of_one_session_are_all_pairs():
    x, labels = vectors((2, 4, 3))
    models, pairs = draw_sessions(x, labels, 1, np.random.default_rng(0), 0.5)
    value, gradient = verification_loss(random_dplda(3), pairs, x, models)
    plain, plain_gradient = verification_loss(random_dplda(3), Pairs.of_speakers(labels), x)
    order = np.concatenate([np.flatnonzero(row)[:1] for row in pairs.barred.toarray()])
    if sorted(order) == list(range(len(x))):  # each vector is a model once: both orders of each pair
        np.testing.assert_allclose(value, plain, rtol=1e-12)
        np.testing.assert_allclose(gradient.lam, plain_gradient.lam, rtol=1e-10, atol=1e-14)
    everyone = SessionPairs(labels, labels, csr_array(np.eye(len(x))))
    value, gradient = verification_loss(random_dplda(3), everyone, x, x)
    np.testing.assert_allclose(value, plain, rtol=1e-12)
    np.testing.assert_allclose(gradient.gamma, plain_gradient.gamma, rtol=1e-10, atol=1e-14)
    with pytest.raises(VoxarkError, match="no speaker has a vector beside"):
        SessionPairs(np.arange(2), np.arange(2), csr_array(np.eye(2)))


# ---------------------------------------------------------------------------------------------- mini-batches


def every_batch(batches, counts):
    """All batches with their probabilities: every set of speakers, every choice of vectors of each."""
    firsts = np.cumsum(counts) - counts
    sets = list(itertools.combinations(range(len(counts)), batches.num_speakers))
    for speakers in sets:
        choices = [
            list(itertools.combinations(range(firsts[s], firsts[s] + counts[s]), batches.taken[s]))
            for s in speakers
        ]
        of_set = list(itertools.product(*choices))
        for chosen in of_set:
            yield np.concatenate([np.array(rows) for rows in chosen]), 1.0 / len(sets) / len(of_set)


@pytest.mark.parametrize("cap", [0, 2, 3])  # batch A, batch B, and A with a cap
@pytest.mark.parametrize("weighting", ["uniform", "counts", "listed"])
def test_batches_are_unbiased(cap, weighting):
    x, labels = vectors((1, 3, 2, 4))
    counts, more = np.bincount(labels), {"same": np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, 7])}
    if weighting == "counts":
        more["weights"] = CountWeights(
            {2: 3.0, 3: 0.5, 4: 0.25}, {(a, b): 1.0 / (a + 2 * b) for a in range(1, 5) for b in range(a, 5)}
        )
    if weighting == "listed":
        more["listed"] = csr_array(np.triu(np.random.default_rng(0).random((10, 10)), 1))
    pairs, model, form = Pairs.of_speakers(labels, 0.2, **more), random_dplda(3), Form(3)
    batches = Batches(pairs, 3, cap, np.random.default_rng(0))
    mean, total = np.zeros(form.size + 1), 0.0
    for rows, probability in every_batch(batches, counts):
        value, gradient = verification_loss(model, batches.pairs_of(rows), x[rows])
        mean += probability * np.append(form.vector(gradient), value)
        total += probability
    assert abs(total - 1.0) < 1e-12
    value, gradient = verification_loss(model, pairs, x)
    np.testing.assert_allclose(mean, np.append(form.vector(gradient), value), rtol=1e-10, atol=1e-13)


def test_batches_are_drawn_with_equal_probabilities():
    _, labels = vectors((1, 3, 2, 4))
    batches = Batches(Pairs.of_speakers(labels), 3, 2, np.random.default_rng(0))
    seen = {}
    for _ in range(4000):
        rows, pairs = batches.draw()
        assert (np.diff(rows) > 0).all() and len(np.unique(labels[rows])) == 3
        assert (pairs.labels == np.unique(labels[rows], return_inverse=True)[1]).all()
        seen[tuple(rows)] = seen.get(tuple(rows), 0) + 1
    expected = {tuple(rows): p for rows, p in every_batch(batches, np.bincount(labels))}
    assert seen.keys() <= expected.keys()
    excess = [(seen.get(rows, 0) - 4000 * p) ** 2 / (4000 * p) for rows, p in expected.items()]
    assert sum(excess) < len(expected) + 5 * np.sqrt(2 * len(expected))


def test_batches_without_targets_are_counted():
    _, labels = vectors((1, 1, 1, 4))
    batches = Batches(Pairs.of_speakers(labels), 2, 0, np.random.default_rng(0))
    without = sum(3 not in labels[batches.draw()[0]] for _ in range(50))
    assert batches.without_target == without > 0
    with pytest.raises(VoxarkError, match="--batch-speakers=1: at least two"):
        Batches(Pairs.of_speakers(labels), 1, 0, None)


# ------------------------------------------------------------------------------------------ space, parameters


def test_a_space_and_back():
    plda, x, _ = simulate(20, 5)
    model = Dplda.from_plda(plda)
    for space in (Space.of_plda(plda), Space.of_vectors(x)):
        moved = space.model_to(model)
        np.testing.assert_allclose(
            moved.scores(space.to(x), space.to(x)), model.scores(x, x), rtol=1e-8, atol=1e-9
        )
        back = space.model_from(moved)
        for name in ("lam", "gamma", "c", "k"):
            np.testing.assert_allclose(getattr(back, name), getattr(model, name), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(np.cov(Space.of_vectors(x).to(x).T, bias=True), np.eye(6), atol=1e-10)
    assert np.abs(moved.lam).max() < 10
    in_plda = Space.of_plda(plda).model_to(model)
    np.testing.assert_allclose(in_plda.lam, np.diag(in_plda.lam.diagonal()), atol=1e-10)
    np.testing.assert_allclose(in_plda.c, 0, atol=1e-9)


def test_substitution():
    model, rng = random_dplda(3), np.random.default_rng(0)
    a, b = rng.standard_normal((3, 2)), rng.standard_normal(3)
    u, v = rng.standard_normal((4, 2)), rng.standard_normal((5, 2))
    np.testing.assert_allclose(
        substituted(model, a, b).scores(u, v), model.scores(u @ a.T + b, v @ a.T + b), rtol=1e-9
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_parameters_are_isometric(diagonal):
    form, model = Form(4, diagonal), random_dplda(4)
    if diagonal:
        model = Dplda(np.diag(model.lam.diagonal()), np.diag(model.gamma.diagonal()), model.c, model.k)
    theta = form.vector(model)
    squares = sum(np.sum(np.square(part)) for part in (model.lam, model.gamma, model.c, model.k))
    np.testing.assert_allclose(theta @ theta, squares)
    back = form.model(theta)
    np.testing.assert_allclose(back.lam, model.lam, atol=1e-15)
    np.testing.assert_allclose(back.gamma, model.gamma, atol=1e-15)
    assert len(theta) == form.size == sum(block.stop - block.start for block in form.blocks)


def test_starts():
    plda, x, _ = simulate(10, 4)
    space, zero = start_from(None, "zero", x, False)
    assert not zero.scores(space.to(x), space.to(x)).any()
    space, dots = start_from(None, "identity", x, False)
    np.testing.assert_allclose(dots.scores(space.to(x), space.to(x)), space.to(x) @ space.to(x).T, atol=1e-12)
    with pytest.raises(VoxarkError, match="--diagonal needs the space of a PLDA"):
        start_from(Dplda.from_plda(plda), "", x, True)
    with pytest.raises(VoxarkError, match="the vectors have dimension 5, the model to start from 6"):
        start_from(plda, "", x[:, :5], False)
    with pytest.raises(VoxarkError, match="all vectors are equal"):
        start_from(None, "zero", np.ones((4, 2)), False)


# -------------------------------------------------------------------------------------------------- training


def trained(x, labels, start, development=None, **options):
    space_and_model = start_from(start, "identity", x, options.get("diagonal", False))
    return train_dplda(x, labels, space_and_model, DpldaTrainingOptions(**options), development)


def loss_of(model, x, labels):
    return verification_loss(model, Pairs.of_speakers(labels), x)[0]


def test_calibration_is_logistic_regression():
    plda, x, labels = simulate(30, 4)
    model = Dplda.from_plda(plda)
    model = Dplda(3 * model.lam, 3 * model.gamma, 3 * model.c, 3 * model.k - 4)
    form, i = Form(6), np.triu_indices(len(x), 1)
    _, scale, offset = calibrated(form, Trials(x, Pairs.of_speakers(labels)), form.vector(model))
    fit = fit_logistic(model.scores(x, x)[i], labels[i[0]] == labels[i[1]])
    np.testing.assert_allclose([scale, offset], [fit.weights[0], fit.offset], rtol=1e-4)


def test_the_minimum_is_reached_from_anywhere():
    _, x, labels = simulate(25, 4, dim=3)
    options = {"regularize": "0", "max_iters": 500, "tolerance": 1e-9}
    from_plda = trained(x, labels, simulate(1, 1, dim=3)[0], **options)
    from_identity = trained(x, labels, None, **options)
    np.testing.assert_allclose(loss_of(from_plda, x, labels), loss_of(from_identity, x, labels), rtol=1e-9)
    np.testing.assert_allclose(from_plda.scores(x, x), from_identity.scores(x, x), rtol=1e-3, atol=1e-3)


def test_the_loss_and_penalty_never_rise(tmp_path):
    plda, x, labels = simulate(20, 4)
    with open(tmp_path / "steps", "w") as table:
        options = DpldaTrainingOptions(regularize="0.01")
        train_dplda(x, labels, start_from(plda, "", x, False), options, None, table)
    header, *lines = (line.split("\t") for line in (tmp_path / "steps").read_text().splitlines())
    total = [float(line[header.index("loss")]) + float(line[header.index("penalty")]) for line in lines]
    assert len(total) > 5 and (np.diff(total) <= 1e-11).all() and total[-1] < total[0]


def test_the_true_model_is_hardly_bettered_and_stays_calibrated():
    plda, x, labels = simulate(300, 5, dim=4)
    model = trained(x, labels, plda, regularize="0")
    true = Dplda.from_plda(plda)
    assert 0 <= loss_of(true, x, labels) - loss_of(model, x, labels) < 0.01
    _, others, other_labels = simulate(300, 5, dim=4, seed=1)
    i = np.triu_indices(len(others), 1)
    target = other_labels[i[0]] == other_labels[i[1]]
    ours, theirs = (Roc(s[target], s[~target]) for s in (m.scores(others, others)[i] for m in (model, true)))
    assert ours.cllr() < theirs.cllr() + 0.01 and ours.cllr() - ours.min_cllr() < 0.02


def test_training_does_not_depend_on_the_coordinates():
    plda, x, labels = simulate(20, 4)
    a, b = np.random.default_rng(5).standard_normal((6, 6)) + 2 * np.eye(6), np.arange(6.0)
    moved = x @ a.T + b
    model = trained(x, labels, plda, regularize="0.01", max_iters=30)
    other = trained(moved, labels, plda.mapped(np.column_stack([a, b])), regularize="0.01", max_iters=30)
    np.testing.assert_allclose(other.scores(moved, moved), model.scores(x, x), rtol=1e-5, atol=1e-5)


def test_a_strong_regularisation_stays_at_the_start():
    plda, x, labels = simulate(20, 4)
    start = Dplda.from_plda(plda)
    near, far = (
        trained(x, labels, plda, regularize=value, calibrate=False, regularize_blocks="1,1,1,1")
        for value in ("1e6", "0")
    )
    np.testing.assert_allclose(near.scores(x, x), start.scores(x, x), atol=1e-4)
    assert np.abs(far.scores(x, x) - start.scores(x, x)).max() > 0.1
    only_constant = trained(x, labels, plda, regularize="1e8", calibrate=False)
    np.testing.assert_allclose(np.ptp(only_constant.scores(x, x) - start.scores(x, x)), 0, atol=1e-4)


def test_penalty_gradient():
    form, rng = Form(2), np.random.default_rng(0)
    penalty = Penalty.of(form, rng.standard_normal(form.size), 0.3, [1.0, 2.0, 0.5, 0.0])
    theta = rng.standard_normal(form.size)
    numeric = approx_fprime(theta, lambda t: penalty(t)[0], 1e-7)
    np.testing.assert_allclose(penalty(theta)[1], numeric, atol=1e-5)
    assert penalty(theta)[1][-1] == 0 and penalty(penalty.start)[0] == 0


def test_diagonal_models_stay_diagonal():
    plda, x, labels = simulate(20, 4)
    model = trained(x, labels, plda, diagonal=True, regularize="0")
    inside = Space.of_plda(plda).model_to(model)
    for matrix in (inside.lam, inside.gamma):
        np.testing.assert_allclose(matrix, np.diag(matrix.diagonal()), atol=1e-8)
    assert (inside.lam.diagonal() >= -1e-10).all()
    full = trained(x, labels, plda, regularize="0")
    assert loss_of(full, x, labels) < loss_of(model, x, labels) < loss_of(Dplda.from_plda(plda), x, labels)


@pytest.mark.parametrize("batch", ["A", "B"])
def test_mini_batches_come_near_the_minimum(batch):
    plda, x, labels = simulate(60, 4, dim=3)
    best = loss_of(trained(x, labels, plda, regularize="0"), x, labels)
    model = trained(
        x,
        labels,
        None,
        optimizer="adam",
        batch=batch,
        batch_speakers=30,
        regularize="0",
        max_iters=30,
        batches_per_epoch=20,
        learning_rate=0.03,
        patience=2,
    )
    assert best - 1e-9 < loss_of(model, x, labels) < best + 0.01
    again = trained(
        x,
        labels,
        None,
        optimizer="adam",
        batch=batch,
        batch_speakers=30,
        regularize="0",
        max_iters=30,
        batches_per_epoch=20,
        learning_rate=0.03,
        patience=2,
    )
    assert (again.lam == model.lam).all()


def test_adam_against_its_definition():
    optimizer, theta = Adam(2, 0.1, np.array([-np.inf, 0.0])), np.array([1.0, 0.05])
    theta = optimizer.step(theta, np.array([2.0, 3.0]))
    np.testing.assert_allclose(theta, [0.9, 0.0])  # the first step is the rate, whatever the gradient
    theta = optimizer.step(theta, np.array([-1.0, 0.0]))
    mean, square = (0.9 * 0.1 * 2 - 0.1) / (1 - 0.81), (0.999 * 0.001 * 4 + 0.001) / (1 - 0.999**2)
    np.testing.assert_allclose(theta[0], 0.9 - 0.1 * mean / np.sqrt(square), rtol=1e-7)


def test_the_best_on_development_data_is_kept(tmp_path):
    plda, x, labels = simulate(8, 3, dim=10, seed=3)  # far too few speakers: it overfits
    _, others, other_labels = simulate(100, 3, dim=10, seed=3)
    development = all_pairs(LabelledVectors([""] * 300, others, other_labels, [""] * 100), 0.5)
    with open(tmp_path / "steps", "w") as table:
        options = DpldaTrainingOptions(regularize="1,0.01,0", patience=3)
        model = train_dplda(x, labels, start_from(plda, "", x, False), options, development, table)
    header, *lines = (line.split("\t") for line in (tmp_path / "steps").read_text().splitlines())
    losses = [float(line[header.index("dev_loss")]) for line in lines]
    assert {line[0] for line in lines} == {"1", "0.01", "0"}
    np.testing.assert_allclose(development.figures(model).loss, min(losses), rtol=1e-8)
    assert min(losses) < losses[-1] - 1e-4  # the last value, without regularisation, is not the best
    to_the_end = trained(x, labels, plda, regularize="0")
    assert development.figures(model).loss < development.figures(to_the_end).loss
    with pytest.raises(VoxarkError, match="several values need development data"):
        trained(x, labels, plda, regularize="1,0")


def test_development_figures_and_samples(monkeypatch):
    plda, x, labels = simulate(12, 4)
    data = LabelledVectors([str(i) for i in range(48)], x, labels, [str(i) for i in range(12)])
    whole, model = all_pairs(data, 0.1), Dplda.from_plda(plda)
    i = np.triu_indices(48, 1)
    s, target = model.scores(x, x)[i], labels[i[0]] == labels[i[1]]
    figures = whole.figures(model)
    roc = Roc(s[target], s[~target])
    np.testing.assert_allclose(
        figures, [prior_weighted_loss(s, target, 0.1), roc.eer()[0], roc.cllr()], rtol=1e-9
    )
    from voxark.trials import development

    monkeypatch.setattr(development, "_DENSE", 0)
    np.testing.assert_allclose(whole.figures(model), figures, rtol=1e-9)
    monkeypatch.setattr(development, "MAX_TRIALS", 300)
    sample = all_pairs(data, 0.1)
    assert sample.target.sum() == 72 and 150 < (~sample.target).sum() <= 300
    assert ((labels[sample.enroll] == labels[sample.test]) == sample.target).all()
    assert (sample.enroll < sample.test).all()


def test_holding_out_speakers():
    _, x, labels = simulate(20, 3)
    names = [f"s{label}" for label in labels]
    data = LabelledVectors.of([f"u{i}" for i in range(60)], x, names)
    train, development = hold_out(data, 0.2, 0.5)
    assert len(train.speakers) == 16 and len(development.x) == 12
    order = np.random.default_rng(0).permutation(60)
    again = LabelledVectors.of([f"u{i}" for i in order], x[order], [names[i] for i in order])
    assert again.keys == data.keys and (hold_out(again, 0.2, 0.5)[0].x == train.x).all()
    assert hold_out(data, 0.2, 0.5, srand=1)[0].speakers != train.speakers
    few = data.of_speakers(np.arange(20) < 3)
    assert hold_out(few, 0.5, 0.5) == (few, None)
    assert hold_out(data, 0.0, 0.5) == (data, None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"p_target": 1.0}, "--p-target=1"),
        ({"regularize": "a"}, "--regularize=a"),
        ({"regularize": "-1"}, "0 or more"),
        ({"regularize_blocks": "1,1"}, "four numbers"),
        ({"patience": 0}, "--patience=0"),
        ({"batch_cap": 1}, "cap"),
        ({"max_enroll": 2, "optimizer": "adam"}, "--max-enroll needs"),
        ({"learning_rate": 0.0}, "--learning-rate"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(VoxarkError, match=message):
        DpldaTrainingOptions(**options).check()


# ----------------------------------------------------------------------------------------------- the program


@pytest.fixture
def data(tmp_path):
    """Vectors of 14 speakers as files: (vectors, utt2spk, init) and a shuffled copy in the folder."""
    plda, x, labels = simulate(14, 5, seed=2)
    tables.write_object("plda", str(tmp_path / "plda"), plda.to_params())
    keys = [f"s{label:02d}-{place}" for place, label in enumerate(labels)]
    table = {key: vector.astype(np.float32) for key, vector in zip(keys, x)}
    vectors_ark = save_ark(tmp_path / "v.ark", table)
    lines = [f"{key} s{label:02d}" for key, label in zip(keys, labels)]
    utt2spk = write_lines(tmp_path / "utt2spk", *lines)
    order = np.random.default_rng(0).permutation(len(keys)).tolist()
    save_ark(tmp_path / "shuffled.ark", {keys[i]: table[keys[i]] for i in order})
    write_lines(tmp_path / "shuffled", *(lines[i] for i in order[::-1]))
    return vectors_ark, utt2spk, f"--init={tmp_path / 'plda'}"


def test_the_program_and_scoring_with_its_model(tmp_path, data):
    vectors_ark, utt2spk, init = data
    done = run(
        "train-dplda",
        init,
        "--regularize=0.1,0.001",
        f"--report-file={tmp_path / 'steps'}",
        vectors_ark,
        utt2spk,
        tmp_path / "dplda",
    )
    assert "held out as development data: s" in done.stderr and "; development: loss" in done.stderr
    assert (tmp_path / "steps").read_text().startswith("regularize\titeration\tloss")
    model = tables.read_model("dplda", str(tmp_path / "dplda"), Dplda.from_params)
    x = load_ark(tmp_path / "v.ark")
    (tmp_path / "trials").write_text("".join(f"s00-0 {key}\n" for key in list(x)[1:]))
    run(
        "score-trials",
        "--backend=dplda",
        f"--model={tmp_path / 'dplda'}",
        tmp_path / "trials",
        vectors_ark,
        vectors_ark,
        tmp_path / "scores",
    )
    expected = model.scores(x["s00-0"][None], np.stack(list(x.values())[1:]))[0]
    np.testing.assert_allclose(read_scores(str(tmp_path / "scores")).scores, expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_lines_does_not_matter(tmp_path, data):
    vectors_ark, utt2spk, init = data
    run("train-dplda", init, vectors_ark, utt2spk, tmp_path / "a")
    run(
        "train-dplda",
        init,
        f"ark:{tmp_path / 'shuffled.ark'}",
        f"ark:{tmp_path / 'shuffled'}",
        tmp_path / "b",
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_starts_and_development_data_of_the_program(tmp_path, data):
    vectors_ark, utt2spk, init = data
    dev = [f"--dev-vectors={vectors_ark}", f"--dev-utt2spk={utt2spk}"]
    done = run("train-dplda", "--start=plda", *dev, vectors_ark, utt2spk, tmp_path / "a")
    assert (
        "14 speakers are in both training and development data" in done.stderr
        and "held out" not in done.stderr
    )
    run(
        "train-dplda",
        "--start=identity",
        "--optimizer=adam",
        "--max-iters=2",
        "--batch=B",
        vectors_ark,
        utt2spk,
        tmp_path / "b",
    )
    run(
        "train-dplda",
        f"--init={tmp_path / 'b'}",
        "--dev-share=0",
        "--max-enroll=3",
        vectors_ark,
        utt2spk,
        tmp_path / "c",
    )
    run(
        "train-dplda",
        init,
        "--diagonal",
        "--dev-share=0",
        f"--exclude-same={utt2spk}",
        vectors_ark,
        utt2spk,
        tmp_path / "d",
        check=False,
    )
    keys = list(load_ark(tmp_path / "v.ark"))
    (tmp_path / "trials").write_text(f"{keys[0]} {keys[1]} target\n{keys[0]} {keys[9]} nontarget\n")
    run(
        "train-dplda",
        init,
        dev[0],
        f"--dev-trials={tmp_path / 'trials'}",
        vectors_ark,
        utt2spk,
        tmp_path / "e",
    )
    (tmp_path / "trials").write_text(f"{keys[0]} {keys[1]} target\n")
    for trials, message in ((tmp_path / "trials", "all of one kind"), (tmp_path / "none", "none")):
        done = run(
            "train-dplda",
            init,
            dev[0],
            f"--dev-trials={trials}",
            vectors_ark,
            utt2spk,
            tmp_path / "f",
            check=False,
        )
        assert done.returncode == 1 and message in done.stderr and not (tmp_path / "f").exists()


def test_weights_from_files(tmp_path, data):
    vectors_ark, utt2spk, init = data
    keys = list(load_ark(tmp_path / "v.ark"))
    pairs = list(itertools.combinations(keys, 2))
    (tmp_path / "list").write_text(
        "".join(f"{a} {b} {1 if i % 2 else 2}\n" for i, (a, b) in enumerate(pairs)) + "x y 1\n"
    )
    common = [init, "--dev-share=0", vectors_ark, utt2spk]
    done = run("train-dplda", f"--trial-weights={tmp_path / 'list'}", *common, tmp_path / "a")
    assert f"{len(pairs)} of {len(pairs) + 1} pairs are of vectors to train on" in done.stderr
    (tmp_path / "equal").write_text("".join(f"{b} {a} 7\n" for a, b in pairs))
    run("train-dplda", f"--trial-weights={tmp_path / 'equal'}", *common, tmp_path / "b")
    (tmp_path / "counts").write_text("target 5 0.1\nnontarget 5 5 3\n")
    run("train-dplda", f"--count-weights={tmp_path / 'counts'}", *common, tmp_path / "c")
    run("train-dplda", *common, tmp_path / "d")
    model = {name: tables.read_model("dplda", str(tmp_path / name), Dplda.from_params) for name in "abcd"}
    for name in "bc":  # weights that are equal within each class change nothing
        np.testing.assert_allclose(model[name].lam, model["d"].lam, rtol=1e-4, atol=1e-6)
    assert np.abs(model["a"].lam - model["d"].lam).max() > 1e-4
    (tmp_path / "counts").write_text("target 5 0.1\nnontarget 5 3\n")
    done = run("train-dplda", f"--count-weights={tmp_path / 'counts'}", *common, tmp_path / "e", check=False)
    assert done.returncode == 1 and f"{tmp_path / 'counts'}:2: expected" in done.stderr


def test_bad_input(tmp_path, data):
    vectors_ark, utt2spk, init = data
    table = load_ark(tmp_path / "v.ark")
    keys = list(table)
    one = write_lines(tmp_path / "one", *(f"{key} s" for key in keys))
    each = write_lines(tmp_path / "each", *(f"{key} {key}" for key in keys))
    none = write_lines(tmp_path / "none", "x s")
    nan = save_ark(tmp_path / "nan.ark", {**table, keys[3]: np.full(6, np.nan, np.float32)})
    short = save_ark(tmp_path / "short.ark", {key: x[:4] for key, x in table.items()})
    cases = [
        ((init, vectors_ark, one), "of one speaker only (s)"),
        ((init, vectors_ark, each), "no speaker has two vectors (70 speakers)"),
        ((init, vectors_ark, none), "no vector of an utterance that"),
        ((init, nan, utt2spk), f"{keys[3]}: the vector holds NaN"),
        ((init, short, utt2spk), "the vectors have dimension 4, the model to start from 6"),
        ((f"--init={tmp_path / 'utt2spk'}", vectors_ark, utt2spk), "utt2spk"),
        ((init, "--start=zero", vectors_ark, utt2spk), "are for training without --init"),
        ((init, "--dev-utt2spk=ark:x", vectors_ark, utt2spk), "--dev-vectors and --dev-utt2spk"),
        (
            (init, f"--dev-vectors={short}", f"--dev-utt2spk={utt2spk}", vectors_ark, utt2spk),
            "have dimension 4",
        ),
        ((init, f"--exclude-same={none}", vectors_ark, utt2spk), "has no label of it"),
        (("--start=zero", "--diagonal", vectors_ark, utt2spk), "--diagonal needs the space of a PLDA"),
    ]
    for arguments, message in cases:
        done = run("train-dplda", *arguments, tmp_path / "out", check=False)
        assert done.returncode == 1 and message in done.stderr, (arguments, done.stderr)
        assert not (tmp_path / "out").exists()
    done = run("train-dplda", check=False)
    assert done.returncode == 1 and "wrong number of arguments" in done.stderr


def test_blue_weights_are_those_of_the_covariance_of_all_trials(tmp_path, data):
    from voxark.trials.blue import list_weights
    from voxark.trials.correlations import Correlations
    from voxark.trials.dplda_inputs import blue_weights
    from voxark.trials.lists import TrialList
    from voxark.trials.sharing import classes_of_list
    from voxark.trials.speakers import TrialSpeakers

    counts, correlations = np.array([1, 3, 2, 3]), Correlations.of_chain(0.4)
    labels = np.repeat(np.arange(4), counts)
    i, j = np.triu_indices(len(labels), 1)
    keys = [str(place) for place in range(len(labels))]
    trials = TrialList("", keys, keys, i.astype(np.int32), j.astype(np.int32), labels[i] == labels[j])
    speakers = TrialSpeakers.of_names(labels[i].astype(str), labels[j].astype(str))
    found = blue_weights(counts, correlations)
    of_class = dict(zip(("target", "nontarget"), zip(classes_of_list(trials, speakers), correlations)))
    for name, (of_list, components) in of_class.items():
        expected = of_list.spread(list_weights(of_list.sharing, components).weight)
        sizes = [
            tuple(sorted((int(counts[labels[a]]), int(counts[labels[b]]))))
            for a, b in zip(i[of_list.places], j[of_list.places])
        ]
        ours = np.array([found.target[n] if name == "target" else found.nontarget[n, m] for n, m in sizes])
        np.testing.assert_allclose(ours / ours.sum(), expected / expected.sum(), rtol=1e-6)
    vectors_ark, utt2spk, init = data
    run(
        "train-dplda",
        init,
        "--trial-weights=blue",
        "--c=0.3",
        "--dev-share=0",
        vectors_ark,
        utt2spk,
        tmp_path / "a",
    )
    run("train-dplda", init, "--dev-share=0", vectors_ark, utt2spk, tmp_path / "b")
    first, second = (tables.read_model("dplda", str(tmp_path / name), Dplda.from_params) for name in "ab")
    np.testing.assert_allclose(first.lam, second.lam, rtol=1e-6, atol=1e-9)  # equal numbers: equal weights
    done = run("train-dplda", init, "--trial-weights=blue", vectors_ark, utt2spk, tmp_path / "c", check=False)
    assert done.returncode == 1 and "--trial-weights=blue and the correlations" in done.stderr


def test_the_step(tmp_path, data):
    for name in ("v", "dev"):
        done = shell(
            f"copy-vector --print-args=false ark:{tmp_path}/v.ark "
            f"ark,scp:{tmp_path}/{name}2.ark,{tmp_path}/{name}.scp"
        )
    done = shell("train_dplda.sh --nosuch", check=False)
    assert done.returncode == 1
    done = shell(f"train_dplda.sh {tmp_path} {tmp_path}/v.scp {tmp_path}/exp", check=False)
    assert done.returncode == 1 and "exp/mean.vec is missing" in done.stderr
    shell(f"train_plda.sh --lda-dim 5 {tmp_path} {tmp_path}/v.scp {tmp_path}/exp")
    step = f"train_dplda.sh --dplda-opts=--regularize=1,0.1 {tmp_path} {tmp_path}/v.scp {tmp_path}/exp"
    shell(step)
    assert (tmp_path / "exp" / "dplda_steps").read_text().startswith("regularize")
    shell(
        step.replace(
            "train_dplda.sh",
            f"train_dplda.sh --dev-vectors {tmp_path}/dev.scp --dev-utt2spk {tmp_path}/utt2spk",
        )
    )
    done = shell(
        step.replace("train_dplda.sh", f"train_dplda.sh --dev-vectors {tmp_path}/dev.scp"), check=False
    )
    assert done.returncode == 1 and "go together" in done.stderr
    keys = list(load_ark(tmp_path / "v.ark"))
    (tmp_path / "trials").write_text(f"{keys[0]} {keys[1]} target\n{keys[0]} {keys[9]} nontarget\n")
    shell(f"score.sh --backend dplda {tmp_path}/trials {tmp_path}/exp {tmp_path}/v.scp {tmp_path}/scored")
    assert "EER" in (tmp_path / "scored" / "eer").read_text()
