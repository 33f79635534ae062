"""HMM algorithms on arrays against enumeration of all paths, closed forms, GMMs and hmmlearn."""

import itertools
import logging

import numpy as np
import pytest

from voxark.em_report import EmReport
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import e_step
from voxark.gmm.em import m_step as gmm_m_step
from voxark.hmm.batches import Batch, batches
from voxark.hmm.decode import align, score
from voxark.hmm.em import HmmEStep, hmm_m_step
from voxark.hmm.emissions import Emissions
from voxark.hmm.forward_backward import LogTrellis, forward_backward, scaled_forward_backward
from voxark.hmm.model import Hmm
from voxark.hmm.packing import Packing
from voxark.hmm.topology import named_topology, read_topology
from voxark.hmm.train import HmmTrainer, TopologyOptions, TrainingOptions
from voxark.hmm.viterbi import _dense_step, _sparse_step, path_score, viterbi

EXACT = TrainingOptions(
    min_gaussian_occupancy=0.0, min_gaussian_weight=0.0, var_floor_factor=0.0, min_variance=1e-6
)


def random_hmm(rng, num_states, dim=2, num_gauss=2, ending="set", density=0.7, spread=2.0):
    """A model with some zero probabilities; with "prob" each row and its final sum to 1."""
    pdfs = [DiagGmm(rng.dirichlet(np.ones(num_gauss)), spread * rng.standard_normal((num_gauss, dim)),
                    0.5 + rng.random((num_gauss, dim))) for _ in range(num_states)]
    transitions = rng.random((num_states, num_states)) * (rng.random((num_states, num_states)) < density)
    initial = rng.random(num_states) * (rng.random(num_states) < density)
    initial[rng.integers(num_states)] += 0.5
    final = (rng.random(num_states) < 0.6).astype(float)
    final[rng.integers(num_states)] = 1.0
    if ending == "prob":
        final *= rng.random(num_states)
    total = transitions.sum(axis=1) + (final if ending == "prob" else 0.0)
    safe = np.where(total > 0, total, 1.0)
    transitions /= safe[:, None]
    final = final / safe if ending == "prob" else final
    return Hmm(initial / initial.sum(), transitions, final, pdfs, None, ending)


def joined_frames(rng, lengths, dim=2, spread=2.0):
    return spread * rng.standard_normal((sum(lengths), dim))


def draw(hmm, length, rng):
    """Frames (T,D) float32 and states (T,) of one utterance of a model with the ending "set"."""
    states = [rng.choice(hmm.num_states, p=hmm.initial)]
    while len(states) < length:
        states.append(rng.choice(hmm.num_states, p=hmm.transitions[states[-1]]))
    pdfs = [hmm.pdfs[hmm.pdf_of[state]] for state in states]
    means = np.array([pdf.means[rng.choice(pdf.num_gauss, p=pdf.weights)] for pdf in pdfs])
    return (means + rng.standard_normal(means.shape)).astype(np.float32), np.array(states, np.int32)


def enumerate_paths(hmm, b):
    """(ln p, gamma (T,S), xi sums (S,S), ln p of the best path, all best paths), from every path."""
    length, size = b.shape
    gamma, xi, total, scores = np.zeros(b.shape), np.zeros((size, size)), 0.0, {}
    for path in itertools.product(range(size), repeat=length):
        p = hmm.initial[path[0]] * np.exp(b[0, path[0]]) * hmm.final[path[-1]]
        for t in range(1, length):
            p *= hmm.transitions[path[t - 1], path[t]] * np.exp(b[t, path[t]])
        total += p
        scores[path] = p
        for t in range(length):
            gamma[t, path[t]] += p
            if t:
                xi[path[t - 1], path[t]] += p
    if total == 0:
        return -np.inf, gamma, xi, -np.inf, []
    best = max(scores.values())
    winners = [path for path, p in scores.items() if p > best * (1 - 1e-12)]
    return np.log(total), gamma / total, xi / total, np.log(best), winners


# ---------------------------------------------------------------------- T2.1: enumeration


@pytest.mark.parametrize("ending", ["set", "prob"])
@pytest.mark.parametrize("seed", range(12))
def test_everything_equals_the_sum_over_all_paths(ending, seed):
    rng = np.random.default_rng(seed)
    hmm = random_hmm(rng, int(rng.integers(1, 4)), ending=ending)
    lengths = rng.integers(1, 7, size=6)
    x = joined_frames(rng, lengths)
    b = Emissions(hmm.pdfs).log_likelihoods(x)
    ends = np.cumsum(lengths)
    parts = [slice(end - length, end) for end, length in zip(ends, lengths)]
    expected = [enumerate_paths(hmm, b[part]) for part in parts]
    scores, paths = viterbi(hmm, b, lengths)
    for found in (forward_backward(hmm, b, lengths), LogTrellis(hmm, b, lengths).posteriors()):
        np.testing.assert_allclose(found.log_likelihood, [e[0] for e in expected], rtol=1e-9)
        np.testing.assert_allclose(found.gamma, np.concatenate([e[1] for e in expected]), atol=1e-9)
        np.testing.assert_allclose(found.transition_sums, sum(e[2] for e in expected), atol=1e-9)
    np.testing.assert_allclose(scores, [e[3] for e in expected], rtol=1e-9)
    for part, (*_, winners) in zip(parts, expected):
        assert tuple(paths[part]) in winners if winners else (paths[part] == -1).all()
    reachable = np.isfinite(scores)
    inside = np.repeat(reachable, lengths)
    np.testing.assert_allclose(
        path_score(hmm, b[inside], lengths[reachable], paths[inside]), scores[reachable]
    )


def test_the_lowest_state_wins_ties():
    same = DiagGmm([1.0], [[0.0]], [[1.0]])
    hmm = Hmm(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), np.ones(3), [same] * 3)
    assert (viterbi(hmm, np.zeros((5, 3)), [5])[1] == 0).all()
    hmm = Hmm([0, 0.5, 0.5], [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], [1, 0, 0], [same] * 3)
    assert viterbi(hmm, np.zeros((3, 3)), [3])[1].tolist() == [
        1,
        0,
        0,
    ]  # from 1 and 2 alike, 0 and 1 alike after it


@pytest.mark.parametrize("density", [0.05, 0.2, 0.9])
def test_sparse_and_dense_steps_find_the_same_path(density):
    rng = np.random.default_rng(4)
    hmm = random_hmm(rng, 12, density=density)
    lengths = rng.integers(1, 40, size=20)
    b = np.round(Emissions(hmm.pdfs).log_likelihoods(joined_frames(rng, lengths)))  # ties do occur
    packing = Packing(lengths)
    found = []
    for make_step in (_dense_step, _sparse_step):
        best, back, step = np.empty_like(b), np.zeros(b.shape, np.int32), make_step(hmm)
        best[: packing.counts[0]] = 0.0
        for before, now in packing.steps():
            step(best[before], best[now], back[now])
            best[now] += b[packing.rows][now]
        found.append((best, np.where(np.isfinite(best), back, -1)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    scores, paths = viterbi(hmm, b, lengths)
    possible = np.isfinite(scores)
    inside = np.repeat(possible, lengths)
    np.testing.assert_allclose(path_score(hmm, b[inside], lengths[possible], paths[inside]), scores[possible])


def test_emissions_equal_the_mixtures_own():
    rng = np.random.default_rng(0)
    pdfs = random_hmm(rng, 3).pdfs + random_hmm(rng, 2, num_gauss=4).pdfs
    x = joined_frames(rng, [70]) + 1e4
    pdfs = [DiagGmm(p.weights, p.means + 1e4, p.variances) for p in pdfs]
    expected = np.stack([pdf.log_likelihood(x) for pdf in pdfs], axis=1)
    np.testing.assert_allclose(Emissions(pdfs).log_likelihoods(x), expected, rtol=1e-9, atol=1e-9)


def test_packing_orders_by_time_without_padding():
    packing = Packing([2, 4, 1])
    assert packing.rows.tolist() == [2, 0, 6, 3, 1, 4, 5]  # longest first at each time
    assert packing.counts.tolist() == [3, 2, 1, 1]
    np.testing.assert_array_equal(packing.joined(packing.rows), np.arange(7))
    assert packing.before().tolist() == [0, 1, 3, 5]


# ---------------------------------------------------------------------- T2.2 and the scaled variant


@pytest.mark.parametrize("ending", ["set", "prob"])
def test_no_underflow_in_5000_frames(ending):
    rng = np.random.default_rng(3)
    hmm = random_hmm(rng, 3, ending=ending, density=1.0)
    x = joined_frames(rng, [5000, 3])
    b = Emissions(hmm.pdfs).log_likelihoods(x) - 50.0  # e^-250000
    scaled, certain = scaled_forward_backward(hmm, b, [5000, 3])
    exact = LogTrellis(hmm, b, [5000, 3]).posteriors()
    assert certain.all() and scaled.log_likelihood[0] < -250000
    np.testing.assert_allclose(scaled.log_likelihood, exact.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(scaled.gamma, exact.gamma, atol=1e-10)
    np.testing.assert_allclose(scaled.transition_sums, exact.transition_sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaled.gamma.sum(axis=1), 1.0, rtol=1e-12)


def test_what_scaling_would_lose_is_found_in_the_log_domain():
    """State 1 looks hopeless for 20 frames (2000 nats) and wins in the end: its alpha underflows."""
    pdf = DiagGmm([1.0], [[0.0]], [[1.0]])
    hmm = Hmm([0.5, 0.5], np.eye(2), [1, 1], [pdf, pdf])
    b = np.zeros((60, 2))
    b[:20, 1], b[20:40, 0], b[40:, 1] = -100.0, -300.0, -100.0
    lengths = np.array([60])
    assert not scaled_forward_backward(hmm, b, lengths)[1].any()
    found = forward_backward(hmm, b, lengths)
    np.testing.assert_allclose(found.log_likelihood, np.log(0.5) - 4000.0, rtol=1e-12)
    np.testing.assert_allclose(found.gamma[:, 1], 1.0)
    easy = np.zeros(
        (10, 2)
    )  # its neighbours in a batch stay with the fast variant, and everything is put together
    both = forward_backward(hmm, np.concatenate((easy, b, easy)), [10, 60, 10])
    np.testing.assert_allclose(both.log_likelihood, [0.0, np.log(0.5) - 4000.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(both.transition_sums, [[9.0, 0.0], [0.0, 68.0]], atol=1e-9)
    np.testing.assert_allclose(both.gamma[[0, 30, 75]], [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])


@pytest.mark.parametrize("seed", range(5))
def test_scaled_results_are_right_wherever_they_are_called_certain(seed):
    rng = np.random.default_rng(seed)
    hmm = random_hmm(rng, 5, density=0.5, spread=1.0)
    lengths = rng.integers(1, 60, size=20)
    b = Emissions(hmm.pdfs).log_likelihoods(joined_frames(rng, lengths)) * rng.choice([1.0, 20.0, 200.0])
    found, certain = scaled_forward_backward(hmm, b, lengths)
    exact = LogTrellis(hmm, b, lengths).posteriors()
    frames = np.repeat(certain, lengths)
    np.testing.assert_allclose(found.log_likelihood[certain], exact.log_likelihood[certain], rtol=1e-11)
    np.testing.assert_allclose(found.gamma[frames], exact.gamma[frames], atol=1e-9)


def test_long_left_to_right_chains_take_the_sparse_way_and_agree():
    rng = np.random.default_rng(0)
    pdfs = random_hmm(rng, 4, num_gauss=1).pdfs
    hmm = Hmm(*named_topology("left-to-right", 80, "prob"), [pdfs[i % 4] for i in range(80)], None, "prob")
    b = Emissions(pdfs).log_likelihoods(joined_frames(rng, [150, 120]))[:, np.arange(80) % 4]
    sparse = forward_backward(hmm, b, [150, 120])
    dense, certain = scaled_forward_backward(hmm, b, [150, 120])
    assert certain.all()
    np.testing.assert_allclose(sparse.log_likelihood, dense.log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(sparse.gamma, dense.gamma, atol=1e-9)


# ---------------------------------------------------------------------- T2.3: EM


def train(features, topology, options, alignments=None, report=None, initial=None):
    trainer = HmmTrainer(features, topology, options, alignments, report=report)
    return trainer.train(initial)


def utterances(seed, number=12, low=15, high=60):
    rng = np.random.default_rng(seed)
    hmm = Hmm([0.6, 0.3, 0.1], [[0.9, 0.1, 0], [0, 0.85, 0.15], [0.2, 0, 0.8]], [1, 1, 1],
              [DiagGmm([0.5, 0.5], [[c, 0.0], [c, 3.0]], np.ones((2, 2))) for c in (0.0, 3.0, 6.0)])
    drawn = [draw(hmm, int(rng.integers(low, high)), rng) for _ in range(number)]
    features = [(f"utt{i:02d}", x) for i, (x, _) in enumerate(drawn)]
    return features, {f"utt{i:02d}": states for i, (_, states) in enumerate(drawn)}, hmm


class Terms:
    """Collects what an EmReport is told, after it has checked it."""

    def __init__(self):
        self.report, self.lines = EmReport(), []

    def add(self, iteration, step, terms):
        self.report.add(iteration, step, terms)
        self.lines.append((step, terms))


@pytest.mark.parametrize("topo, final, num_gauss", [
    ("left-to-right", "prob", 2), ("left-to-right", "set", 1), ("ergodic", "set", 2), ("ergodic", "prob", 1)])
def test_em_is_monotone_and_ln_p_is_the_sum_of_three_terms(topo, final, num_gauss):
    features, _, _ = utterances(1)
    terms = Terms()
    start = train(features, TopologyOptions(3, topo, final), TrainingOptions(num_gauss=num_gauss, num_iters=2,
                                                                            min_gaussian_occupancy=0.0))
    options = TrainingOptions(
        num_iters=5, min_gaussian_occupancy=0.0, min_gaussian_weight=0.0, var_floor_factor=0.0
    )
    train(features, None, options, report=terms, initial=start)
    assert [step for step, _ in terms.lines] == ["E", "M"] * 5
    for (_, before), (_, after) in zip(terms.lines[::2], terms.lines[1::2]):
        assert abs(before.gap) < 1e-8 and abs(after.gap) < 1e-8  # EmReport has checked them, too
        assert abs(before.kl) < 1e-8 and after.kl >= -1e-9
        assert after.h == pytest.approx(before.h, rel=1e-12) and after.q >= before.q - 1e-9
        assert after.log_likelihood >= before.log_likelihood - 1e-8
    for (_, after), (_, following) in zip(terms.lines[1::2], terms.lines[2::2]):
        assert following.log_likelihood == pytest.approx(after.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("training", ["viterbi", "fixed"])
def test_viterbi_and_fixed_training_raise_q_of_their_path(training):
    features, labels, _ = utterances(2)
    terms = Terms()
    options = TrainingOptions(
        training=training, num_iters=4, min_gaussian_occupancy=0.0, min_gaussian_weight=0.0, num_gauss=1
    )
    train(features, TopologyOptions(3, "ergodic"), options, labels if training == "fixed" else None, terms)
    of_q = [terms.q + terms.h for _, terms in terms.lines]
    assert all(later >= earlier - 1e-8 for earlier, later in zip(of_q, of_q[1:]))
    assert all(terms.h == 0.0 and terms.kl > 0 for _, terms in terms.lines)  # one path, one Gaussian a state


def test_a_wrong_term_is_noticed():
    features, _, hmm = utterances(3, 3)
    from voxark.hmm.report import HmmReporter

    (batch,) = batches(features, 3)
    terms = HmmReporter(hmm, np.zeros(2), "em").terms([batch], hmm)
    with pytest.raises(VoxarkError, match="not Q"):
        EmReport().add(1, "E", terms._replace(q=terms.q + 1e-3))


# ---------------------------------------------------------------------- T2.4: special cases


def test_one_state_is_a_gaussian():
    features, _, _ = utterances(4)
    hmm = train(features, TopologyOptions(1), TrainingOptions(num_iters=2, var_floor_factor=0.0))
    x = np.concatenate([x for _, x in features]).astype(np.float64)
    np.testing.assert_allclose(hmm.pdfs[0].means[0], x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(hmm.pdfs[0].variances[0], x.var(axis=0), rtol=1e-9)
    total = sum(value for _, value, _ in score(hmm, features, None))
    assert total == pytest.approx(hmm.pdfs[0].log_likelihood(x).sum(), rel=1e-10)


def test_equal_rows_are_a_gmm():
    features, _, hmm = utterances(5)
    weights = np.array([0.2, 0.3, 0.5])
    pdfs = [DiagGmm([1.0], pdf.means[:1], pdf.variances[:1]) for pdf in hmm.pdfs]
    hmm = Hmm(weights, np.tile(weights, (3, 1)), np.ones(3), pdfs)
    gmm = DiagGmm(
        weights, *(np.concatenate([getattr(pdf, name) for pdf in pdfs]) for name in ("means", "variances"))
    )
    for (_, x), (_, value, gamma) in zip(features, score(hmm, features, None)):
        lls = gmm.component_log_likelihoods(x)
        assert value == pytest.approx(gmm.log_likelihood(x).sum(), rel=1e-10)
        np.testing.assert_allclose(gamma, np.exp(lls - gmm.log_likelihood(x)[:, None]), atol=1e-9)
    step = HmmEStep(hmm, np.zeros(2))
    accs = step.zeros()
    for batch in batches(features, 3):
        step.accumulate(batch, accs)
    updated = hmm_m_step(hmm, accs, EXACT, np.full(2, 1e-6))
    expected = gmm_m_step(gmm, e_step(gmm, features, double=True), EXACT, np.full(2, 1e-6))
    np.testing.assert_allclose([pdf.means[0] for pdf in updated.pdfs], expected.means, rtol=1e-8)
    np.testing.assert_allclose([pdf.variances[0] for pdf in updated.pdfs], expected.variances, rtol=1e-8)


def test_tied_states_are_trained_together():
    features, _, hmm = utterances(6)
    tied = Hmm(*named_topology("left-to-right", 4, "prob"), hmm.pdfs[:2], [0, 1, 0, 1], "prob")
    step = HmmEStep(tied, np.zeros(2))
    accs = step.zeros()
    (batch,) = batches(features, 4)
    step.accumulate(batch, accs)
    updated = hmm_m_step(tied, accs, EXACT, np.full(2, 1e-6))
    assert len(updated.pdfs) == 2 and updated.pdf_of.tolist() == [0, 1, 0, 1]
    gamma = step.posteriors(batch).gamma
    weights = gamma[:, 0] + gamma[:, 2]
    resp = np.exp(
        tied.pdfs[0].component_log_likelihoods(batch.x) - tied.pdfs[0].log_likelihood(batch.x)[:, None]
    )
    expected = (weights[:, None] * resp).T @ batch.x / (weights @ resp)[:, None]
    np.testing.assert_allclose(updated.pdfs[0].means, expected, rtol=1e-9)


# ---------------------------------------------------------------------- T2.5: no path


def test_unreachable_ends_and_short_utterances_fail_and_are_never_nan():
    pdf = DiagGmm([1.0], [[0.0]], [[1.0]])
    island = Hmm([1, 0], np.eye(2), [0, 1], [pdf, pdf])
    assert island.shortest_path == float("inf")
    b = np.zeros((4, 2))
    found = forward_backward(island, b, [4])
    assert np.isneginf(found.log_likelihood[0]) and not found.gamma.any() and not found.transition_sums.any()
    scores, path = viterbi(island, b, [4])
    assert np.isneginf(scores[0]) and (path == -1).all()
    chain = Hmm(*named_topology("left-to-right", 5, "set"), [pdf] * 5)
    failed = {}
    features = [("short", np.zeros((4, 1), np.float32)), ("ok", np.zeros((5, 1), np.float32)),
                ("empty", np.zeros((0, 0), np.float32)), ("bad", np.full((9, 1), np.nan, np.float32)),
                ("wide", np.zeros((9, 2), np.float32))]
    assert [key for key, _, _ in align(chain, features, failed.__setitem__)] == ["ok"]
    assert "shortest path" in failed["short"] and failed["empty"] == "no frames"
    assert "not a finite number" in failed["bad"] and "dimension 2" in failed["wide"]
    assert [key for key, value, _ in score(chain, features, lambda *_: None) if np.isfinite(value)] == ["ok"]


def test_a_parity_without_path_is_found_by_the_recursion():
    """Two states in turn, to end in the second: odd lengths have no path although they are long enough."""
    pdf = DiagGmm([1.0], [[0.0]], [[1.0]])
    hmm = Hmm([1, 0], [[0, 1], [1, 0]], [0, 1], [pdf, pdf])
    features = [(str(t), np.zeros((t, 1), np.float32)) for t in (2, 3, 4, 5)]
    failed = {}
    assert [key for key, _, _ in align(hmm, features, failed.__setitem__)] == ["2", "4"]
    assert failed == {"3": "no path through the model", "5": "no path through the model"}
    trainer = HmmTrainer(features, None, TrainingOptions(num_iters=2), fail=failed.__setitem__)
    trained = trainer.train(hmm)
    assert trainer.num_utterances == 2 and np.isfinite(trained.transitions).all()
    with pytest.raises(VoxarkError, match="no utterance has a path"):
        HmmTrainer(features[1:2], None, TrainingOptions(), fail=failed.__setitem__).train(hmm)


def test_zero_transitions_stay_zero_and_unvisited_states_keep_their_parameters(caplog):
    features, _, _ = utterances(7)
    pdfs = [DiagGmm([1.0], [[float(c), 0.0]], [[1.0, 1.0]]) for c in (0, 3, 6)]
    hmm = Hmm([1, 0, 0], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.3, 0.3, 0.4]], [1, 1, 1], pdfs)
    voxark_logger = logging.getLogger("voxark")
    propagate, voxark_logger.propagate = voxark_logger.propagate, True
    try:
        trained = train(features, None, TrainingOptions(num_iters=3), initial=hmm)
    finally:
        voxark_logger.propagate = propagate
    assert "1 of 3 states were never visited and keep their parameters: 2" in caplog.text
    np.testing.assert_array_equal(trained.transitions[:, 2], [0, 0, 0.4])
    np.testing.assert_array_equal(trained.transitions[2], [0.3, 0.3, 0.4])
    np.testing.assert_array_equal(trained.pdfs[2].means, pdfs[2].means)
    np.testing.assert_allclose(trained.transitions.sum(axis=1), 1.0)
    assert not np.allclose(trained.pdfs[0].means, pdfs[0].means)


# ---------------------------------------------------------------------- T2.6: recovery


def test_parameters_are_recovered_from_drawn_data():
    rng = np.random.default_rng(11)
    truth = Hmm([0.5, 0.3, 0.2], [[0.9, 0.08, 0.02], [0.05, 0.8, 0.15], [0.2, 0.1, 0.7]], np.ones(3),
                [DiagGmm([1.0], [[m, -m]], [[1.0, 1.0]]) for m in (0.0, 2.0, 4.0)])
    features = [(f"u{i}", draw(truth, 100, rng)[0]) for i in range(150)]
    found = train(features, TopologyOptions(3, "ergodic"), TrainingOptions(num_iters=25))
    order = np.argsort([pdf.means[0, 0] for pdf in found.pdfs])
    np.testing.assert_allclose(found.transitions[np.ix_(order, order)], truth.transitions, atol=0.03)
    np.testing.assert_allclose(found.initial[order], truth.initial, atol=0.12)
    for place, pdf in zip(order, truth.pdfs):
        np.testing.assert_allclose(found.pdfs[place].means, pdf.means, atol=0.08)
        np.testing.assert_allclose(found.pdfs[place].variances, pdf.variances, atol=0.1)


def test_exit_probabilities_are_recovered():
    """Geometric durations of a one-state model: the exit probability is utterances over frames."""
    rng = np.random.default_rng(1)
    features = [(f"u{i}", rng.standard_normal((rng.geometric(0.1), 1)).astype(np.float32)) for i in range(60)]
    hmm = train(features, TopologyOptions(1, "left-to-right", "prob"), TrainingOptions(num_iters=1))
    frames = sum(len(x) for _, x in features)
    np.testing.assert_allclose(hmm.final, 60 / frames, rtol=1e-12)
    np.testing.assert_allclose(hmm.transitions + hmm.final, 1.0, rtol=1e-12)


# ---------------------------------------------------------------------- labels, sums of parts, topologies


def test_labels_give_the_counted_model():
    features, labels, _ = utterances(8)
    hmm = train(
        features, TopologyOptions(3, "ergodic"), TrainingOptions(num_iters=0, var_floor_factor=0.0), labels
    )
    x, z = np.concatenate([x for _, x in features]), np.concatenate([labels[key] for key, _ in features])
    counts = np.zeros((3, 3))
    for key, _ in features:
        np.add.at(counts, (labels[key][:-1], labels[key][1:]), 1)
    np.testing.assert_allclose(hmm.transitions, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        hmm.initial, np.bincount([labels[key][0] for key in labels], minlength=3) / len(labels)
    )
    for state in range(3):
        np.testing.assert_allclose(
            hmm.pdfs[state].means[0], x[z == state].mean(axis=0, dtype=float), rtol=1e-6
        )


def test_statistics_add_up_over_parts_and_orders():
    features, _, hmm = utterances(9)
    step = HmmEStep(hmm, np.zeros(2))
    whole, parts = step.zeros(), [step.zeros(), step.zeros()]
    for batch in batches(features, 3):
        step.accumulate(batch, whole)
    for i, utterance in enumerate(reversed(features)):
        for batch in batches([utterance], 3):
            step.accumulate(batch, parts[i % 2])
    parts[0] += parts[1]
    for name in ("initial", "transitions", "final", "log_likelihood", "num_frames", "num_utterances"):
        np.testing.assert_allclose(getattr(parts[0], name), getattr(whole, name), rtol=1e-10, atol=1e-12)
    for name in ("n", "f", "s"):
        np.testing.assert_allclose(
            getattr(parts[0].gauss, name), getattr(whole.gauss, name), rtol=1e-9, atol=1e-9
        )


def test_batches_are_bounded_and_keep_the_order():
    features = [(str(i), np.zeros((30000, 1), np.float32)) for i in range(5)]
    found = list(batches(iter(features), 2))
    assert [batch.keys for batch in found] == [["0", "1"], ["2", "3"], ["4"]]
    assert [len(batch.keys) for batch in batches(features, 1000)] == [1] * 5  # a million frames times states
    assert isinstance(found[0], Batch) and found[0].lengths.tolist() == [30000, 30000]


@pytest.mark.parametrize("name", ["left-to-right", "ergodic"])
@pytest.mark.parametrize("ending", ["set", "prob"])
@pytest.mark.parametrize("size", [1, 4])
def test_named_topologies_are_distributions(name, ending, size):
    initial, transitions, final = named_topology(name, size, ending)
    assert initial.sum() == pytest.approx(1.0)
    total = transitions.sum(axis=1) + (final if ending == "prob" else 0.0)
    np.testing.assert_allclose(total, 1.0)
    if name == "left-to-right":
        assert not np.tril(transitions, -1).any() and not np.triu(transitions, 2).any()
        assert np.flatnonzero(final).tolist() == [size - 1]


def test_topologies_from_text(tmp_path):
    file = tmp_path / "topo"
    file.write_text("# skips\ninitial 0 0.5\ninitial 1\n0 0 0.6\n0 1\n0 2\n1 1 0.5\n1 2\n2 2\n")
    initial, transitions, final = read_topology(str(file), "set")
    np.testing.assert_allclose(initial, [0.5, 0.5, 0])
    np.testing.assert_allclose(transitions, [[0.6, 0.2, 0.2], [0, 0.5, 0.5], [0, 0, 1]])
    assert final.tolist() == [0, 0, 1]
    _, transitions, final = read_topology(str(file), "prob")
    np.testing.assert_allclose([transitions[2, 2], final[2]], 0.5)
    for text, message in (
        ("0 1 x\n", "line 1"),
        ("0 0 0.5\n0 0 0.5\n", "twice"),
        ("0 0 0.7\n0 1 0.7\n1 1\n", "state 0"),
        ("0 1\n", None),
        ("1 2 3 4\n", "line 1"),
        ("", "no transitions"),
        ("0 0 -1\n", "probability"),
    ):
        file.write_text(text)
        if message is None:
            assert read_topology(str(file), "set")[1].tolist() == [[0, 1], [0, 0]]
            continue
        with pytest.raises(VoxarkError, match=message):
            read_topology(str(file), "set")


@pytest.mark.parametrize("change, message", [
    (dict(transitions=np.ones((2, 3))), "shapes"), (dict(initial=[np.nan, 1]), "negative or not a number"),
    (dict(final=[0, 0]), "none to end in"), (dict(pdf_of=[0, 2]), "pdfs"), (dict(ending="x"), "ending")])
def test_impossible_models_are_refused(change, message):
    pdf = DiagGmm([1.0], [[0.0]], [[1.0]])
    fields = dict(initial=[1, 0], transitions=np.eye(2), final=[1, 1], pdfs=[pdf, pdf])
    with pytest.raises(VoxarkError, match=message):
        Hmm(**{**fields, **change})


# ---------------------------------------------------------------------- peer


@pytest.mark.parametrize("num_gauss", [1, 3])
def test_hmmlearn_agrees(num_gauss):
    peer_module = pytest.importorskip("hmmlearn.hmm")
    rng = np.random.default_rng(num_gauss)
    hmm = random_hmm(rng, 4, dim=3, num_gauss=num_gauss, density=1.0)
    hmm = Hmm(hmm.initial, hmm.transitions, np.ones(4), hmm.pdfs)
    if num_gauss == 1:
        peer = peer_module.GaussianHMM(4, covariance_type="diag")
        peer.means_ = np.concatenate([pdf.means for pdf in hmm.pdfs])
        peer.covars_ = np.concatenate([pdf.variances for pdf in hmm.pdfs])
    else:
        peer = peer_module.GMMHMM(4, n_mix=num_gauss, covariance_type="diag")
        peer.weights_ = np.array([pdf.weights for pdf in hmm.pdfs])
        peer.means_ = np.array([pdf.means for pdf in hmm.pdfs])
        peer.covars_ = np.array([pdf.variances for pdf in hmm.pdfs])
    peer.n_features = 3
    peer.startprob_, peer.transmat_ = hmm.initial, hmm.transitions
    features = [
        (str(i), joined_frames(rng, [length], 3).astype(np.float32)) for i, length in enumerate((7, 40, 200))
    ]
    for (_, x), (_, value, gamma), (_, best, path) in zip(
        features, score(hmm, features, None), align(hmm, features, None)
    ):
        expected, posteriors = peer.score_samples(x.astype(np.float64))
        assert value == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(gamma, posteriors, atol=1e-7)
        expected, states = peer.decode(x.astype(np.float64))
        assert best == pytest.approx(expected, rel=1e-9)
        np.testing.assert_array_equal(path, states)
