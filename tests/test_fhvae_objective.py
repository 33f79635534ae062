"""The terms of an FHVAE's bound against scipy, closed forms and Monte Carlo; its networks and its folder."""

import dataclasses
import json
import types

import numpy as np
import pytest
from scipy import optimize, stats

torch = pytest.importorskip("torch")

from voxark.errors import VoxarkError  # noqa: E402
from voxark.fhvae.model import FhvaeModel, load_model, model_config  # noqa: E402
from voxark.fhvae.objective import (  # noqa: E402
    Gaussian,
    exact_bound_terms,
    kl_by_dimension,
    log_posterior_of_sequence,
    map_mu2,
    naive_sequence_logits,
    segment_bound,
    sequence_logits,
)
from voxark.fhvae.options import ModelOptions  # noqa: E402
from voxark.nnet.model_folder import save_model  # noqa: E402

torch.set_num_threads(1)
VARIANCES = types.SimpleNamespace(pz1_var=1.5, pz2_var=0.25, pmu2_var=2.0)


def doubles(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def gaussian(*shape, seed=0):
    return Gaussian(doubles(*shape, seed=seed), 0.5 * doubles(*shape, seed=seed + 1))


def density(x, g):
    return stats.norm.logpdf(np.asarray(x), np.asarray(g.mean), np.exp(0.5 * np.asarray(g.logvar)))


# ---------------------------------------------------------------------------------------------- the terms


def test_terms_against_scipy():
    """T6.1: densities by scipy; divergences by their definition, integrated numerically per dimension."""
    x, px, q1, q2 = doubles(4, 3, 5), gaussian(4, 3, 5, seed=3), gaussian(3, 2, seed=5), gaussian(3, 6, seed=7)
    mu2, num = doubles(3, 6, seed=9), torch.tensor([1.0, 7.0, 30.0])
    bound = segment_bound(x, px, q1, q2, mu2, num, VARIANCES)
    np.testing.assert_allclose(bound.log_px, density(x, px).sum((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(
        bound.log_pmu2, stats.norm.logpdf(mu2.numpy(), 0, np.sqrt(2.0)).sum(1) / num.numpy(), rtol=1e-6)
    for found, q, prior, var in ((bound.kl_z1, q1, np.zeros((3, 2)), 1.5), (bound.kl_z2, q2, mu2.numpy(), 0.25)):
        grid = np.linspace(-12, 12, 40001)
        expected = np.zeros(q.mean.shape)
        for place in np.ndindex(*q.mean.shape):
            mean, std = float(q.mean[place]), float(torch.exp(0.5 * q.logvar[place]))
            log_q, log_p = stats.norm.logpdf(grid, mean, std), stats.norm.logpdf(grid, prior[place], np.sqrt(var))
            expected[place] = np.trapezoid(np.exp(log_q) * (log_q - log_p), grid)
        np.testing.assert_allclose(found, expected.sum(1), rtol=1e-7)
    total = bound.log_px - bound.kl_z1 - bound.kl_z2 + bound.log_pmu2
    assert torch.equal(bound.total, total)


def test_samples_have_the_moments():
    q = gaussian(2, 3)
    draws = torch.stack([q.sample(noise) for noise in doubles(20000, 2, 3, seed=4)])
    np.testing.assert_allclose(draws.mean(0), q.mean, atol=0.04)
    np.testing.assert_allclose(draws.var(0), torch.exp(q.logvar), rtol=0.06)


@pytest.mark.parametrize("pmu2_var", [1.0, 2.0])
def test_map_estimate_is_the_maximum(pmu2_var):
    """T6.2: of log p(mu2) + sum log p(z2 | mu2) over mu2, found numerically."""
    z2 = doubles(7, 3).numpy()

    def loss(m):
        return -(stats.norm.logpdf(m, 0, np.sqrt(pmu2_var)).sum() + stats.norm.logpdf(z2, m, 0.5).sum())

    found = map_mu2(torch.from_numpy(z2.sum(0)), torch.tensor(7.0), 0.25, pmu2_var)
    np.testing.assert_allclose(found, optimize.minimize(loss, np.zeros(3), tol=1e-12).x, atol=1e-6)


def test_logits_by_one_product_are_the_naive_ones():
    """T6.3: up to a constant of the row, so that posteriors agree; with the full densities they do, too."""
    zbar2, mu2, rows = doubles(6, 4), doubles(9, 4, seed=2), torch.tensor([0, 8, 3, 3, 1, 5])
    fast = log_posterior_of_sequence(sequence_logits(zbar2, mu2, 0.25), rows)
    slow = log_posterior_of_sequence(naive_sequence_logits(zbar2, mu2, 0.25), rows)
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    full = np.array([stats.norm.logpdf(z, mu2.numpy(), 0.5).sum(1) for z in zbar2.numpy()])
    own = full[np.arange(6), rows] - np.logaddexp.reduce(full, axis=1)
    np.testing.assert_allclose(fast, own, atol=1e-12)
    one = log_posterior_of_sequence(sequence_logits(zbar2, mu2[:1], 0.25), torch.zeros(6, dtype=torch.long))
    assert torch.equal(one, torch.zeros(6, dtype=one.dtype))  # K = 1


def test_logits_survive_in_single_precision():
    """Entries far from each other, as at K = 20,000 of a trained model: the gradients agree as well."""
    zbar2, mu2 = 3 * doubles(5, 32), 3 * doubles(2000, 32, seed=1)
    rows = torch.arange(5)
    gradients = []
    for dtype, logits in ((torch.float32, sequence_logits), (torch.float64, naive_sequence_logits)):
        table = mu2.to(dtype).requires_grad_()
        log_posterior_of_sequence(logits(zbar2.to(dtype), table, 0.25), rows).sum().backward()
        gradients.append(table.grad.double())
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@pytest.mark.parametrize("num_segments", [1, 4, 50])
def test_exact_bound_by_monte_carlo(num_segments):
    """T6.4: the sequence's part of the bound with q(mu2) = N(m, s^2 I) integrated by sampling mu2."""
    rng, dim, pz2_var, pmu2_var = np.random.default_rng(0), 3, 0.25, 1.0
    q2 = gaussian(num_segments, dim)
    m = map_mu2(q2.mean.sum(0), torch.tensor(float(num_segments)), pz2_var, pmu2_var)
    std = (num_segments / pz2_var + 1 / pmu2_var) ** -0.5
    mu2 = m.numpy() + std * rng.standard_normal((20000, dim))
    kl = np.mean([float(kl_by_dimension(q2, torch.from_numpy(x), pz2_var).sum()) for x in mu2[:4000]])
    log_ratio = stats.norm.logpdf(mu2, 0, 1).sum(1) - stats.norm.logpdf(mu2, m.numpy(), std).sum(1)
    at_mean = float(kl_by_dimension(q2, m, pz2_var).sum())
    log_p = stats.norm.logpdf(m.numpy(), 0, 1).sum()
    expected = (-kl + log_ratio.mean()) - (-at_mean + log_p)
    found = num_segments * exact_bound_terms(torch.tensor(float(num_segments)), m, pz2_var, pmu2_var)
    np.testing.assert_allclose(float(found), expected, atol=0.06 * abs(expected) + 0.05)


def test_exact_bound_constant_of_the_paper():
    """Covariance I in place of the exact one adds D / (2 sigma^2): 64 nats a segment at D = 32."""
    q2, mu2 = gaussian(1, 32), doubles(32, seed=1)
    rng = np.random.default_rng(0)
    kls = [float(kl_by_dimension(q2, mu2 + torch.from_numpy(rng.standard_normal(32)), 0.25).sum())
           for _ in range(4000)]
    assert abs(np.mean(kls) - float(kl_by_dimension(q2, mu2, 0.25).sum()) - 64) < 2


@pytest.mark.parametrize("logvar", [-30.0, 30.0, -100.0])
def test_gradients_at_extreme_variances_are_finite(logvar):
    """T6.8: with the clamp, whatever the heads say."""
    options = dataclasses.replace(ModelOptions(), arch="fc", hidden_dim=8, z1_dim=2, z2_dim=3, segment_length=4)
    model = FhvaeModel(model_config(options, 5))
    for head in (model.z1_encoder.head, model.z2_encoder.head, model.decoder.head):
        torch.nn.init.constant_(head.logvar.bias, logvar)
    passed = model(3 * torch.randn(4, 6, 5), torch.zeros(6, 3), torch.ones(6),
                   [torch.randn(6, 2), torch.randn(6, 3)])
    passed.bound.total.mean().backward()
    assert torch.isfinite(passed.bound.total).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_gradient_of_the_objective_by_differences():
    """The whole discriminative bound, in double precision, through both encoders, the decoder and the cache."""
    options = dataclasses.replace(ModelOptions(), hidden_dim=3, num_layers=2, z1_dim=2, z2_dim=2, segment_length=3)
    torch.manual_seed(0)
    model = FhvaeModel(model_config(options, 2)).double()
    x, mu2 = doubles(3, 4, 2), doubles(5, 2, seed=1).requires_grad_()
    rows, num, noise = torch.tensor([0, 2, 2, 4]), torch.tensor([3.0, 1, 5, 2]), (doubles(4, 2), doubles(4, 2, seed=3))
    for network in (model.z1_encoder, model.z2_encoder, model.decoder):  # heads say float32 otherwise
        network.head.forward = types.MethodType(
            lambda self, h: Gaussian(self.mean(h), self.logvar(h).clamp(-10, 10)), network.head)

    def loss():
        passed = model(x, mu2[rows], num, noise)
        disc = log_posterior_of_sequence(sequence_logits(passed.q2.mean, mu2, 0.25), rows)
        return -(passed.bound.total + 10 * disc).mean()

    loss().backward()
    rng = np.random.default_rng(0)
    for p in [mu2, *(p for p in model.parameters() if p.requires_grad)]:
        place = tuple(rng.integers(0, size) for size in p.shape)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                p[place] += step
                values.append(float(loss()))
                p[place] -= step
        np.testing.assert_allclose(float(p.grad[place]), (values[0] - values[1]) / 2e-5, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------------------------------------- the networks


def test_published_sizes():
    """2 x 256 cells in all three networks, 32 dimensions, 80 features: counted by hand."""
    model = FhvaeModel(model_config(ModelOptions(), 80))

    def lstm(inputs):
        return sum(4 * 256 * (n + 256 + 1) for n in (inputs, 256))

    expected = {"z2_encoder": lstm(80) + 2 * 32 * 513, "z1_encoder": lstm(112) + 2 * 32 * 513,
                "decoder": lstm(64) + 2 * 80 * 257}
    assert model.parameters_by_part() == expected


def test_lstm_starts_as_the_reference_does():
    """Forget biases 1, the others 0; torch's second bias is not trained."""
    for network in (FhvaeModel(model_config(ModelOptions(), 8)).decoder,):
        for name, value in network.lstm.named_parameters():
            if name.startswith("bias"):
                forget = 1.0 if "ih" in name else 0.0
                assert value[256:512].eq(forget).all() and value[:256].eq(0).all() and value[512:].eq(0).all()
                assert value.requires_grad == ("ih" in name)


def test_encoders_see_the_last_outputs_of_all_layers():
    """By torch's LSTM cells, step by step; the decoder has z at every frame."""
    options = dataclasses.replace(ModelOptions(), hidden_dim=4, z1_dim=2, z2_dim=3, segment_length=5)
    model = FhvaeModel(model_config(options, 6)).eval()
    x, z2 = torch.randn(5, 7, 6), torch.randn(7, 3)

    def layers(lstm, frames):
        last = []
        for layer in range(2):
            cell = torch.nn.LSTMCell(frames[0].shape[1], 4)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(cell, name).data.copy_(getattr(lstm, f"{name}_l{layer}"))
            state, outputs = None, []
            for frame in frames:
                state = cell(frame, state)
                outputs.append(state[0])
            frames = outputs
            last.append(outputs[-1])
        return torch.cat(last, 1), frames

    with torch.no_grad():
        encoder = model.z1_encoder
        joint, _ = layers(encoder.lstm, [torch.cat([frame, z2], 1) for frame in x])
        found = model.encode_z1(x, z2)
        torch.testing.assert_close(found.mean, encoder.head.mean(joint), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.logvar, encoder.head.logvar(joint), atol=1e-5, rtol=1e-5)
        z = torch.cat([torch.randn(7, 2), z2], 1)
        _, frames = layers(model.decoder.lstm, [z] * 5)
        px = model.decode(z[:, :2], z2)
        torch.testing.assert_close(px.mean, model.decoder.head.mean(torch.stack(frames)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ["lstm", "fc"])
def test_folder(arch, tmp_path):
    options = dataclasses.replace(ModelOptions(), arch=arch, hidden_dim=8, z1_dim=2, z2_dim=3, segment_length=4)
    model = FhvaeModel(model_config(options, 5)).eval()
    save_model(tmp_path / "m", model)
    again = load_model(tmp_path / "m")
    x, z = torch.randn(4, 3, 5), (torch.randn(3, 2), torch.randn(3, 3))
    assert torch.equal(again.decode(*z).mean, model.decode(*z).mean)
    assert torch.equal(again.encode_z2(x).logvar, model.encode_z2(x).logvar)
    assert model.decode(*z).mean.shape == (4, 3, 5)


@pytest.mark.parametrize("change, message", [
    ({"format": "voxark-e2e"}, "no configuration of an FHVAE"), ({"version": 9}, "version is 9"),
    ({"input_dim": 0}, "input_dim is 0"), ({"options": {}}, "options are not those"),
    ({"arch": "cnn"}, "arch is 'cnn'"), ({"z1_dim": "x"}, "z1_dim is 'x'"), ({"pz2_var": 0.0}, "--pz2-var"),
    ({"hidden_dim": 9}, "has shape"),
])
def test_folders_that_are_none(change, message, tmp_path):
    options = dataclasses.replace(ModelOptions(), arch="fc", hidden_dim=8, segment_length=4)
    save_model(tmp_path, FhvaeModel(model_config(options, 5)))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        (config if name in config else config["options"])[name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(VoxarkError, match=message):
        load_model(tmp_path)
