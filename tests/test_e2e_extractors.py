"""Extractors: published sizes, what a frame sees, independence of the batch, norms, the learned filters."""

import numpy as np
import pytest
from helpers import needs_data, shared_data

torch = pytest.importorskip("torch")

from voxark.e2e.architectures import ExtractorOptions, XvectorOptions, arch_options  # noqa: E402
from voxark.e2e.extractors import (  # noqa: E402
    batches_by_length, build_extractor, chunk_starts, embed, embed_in_chunks, initialise_norms, normalised)
from voxark.e2e.waveform import FilterBank  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.feat.fbank import FbankOptions, fbank  # noqa: E402
from voxark.nnet.init_norms import _limited  # noqa: E402
from voxark.nnet.layers import (  # noqa: E402
    AttentiveStatisticsPooling, FrozenNorm, Res2Conv, StatisticsPooling, TdnnLayer, make_norm,
    pad_by_repetition)

torch.set_num_threads(1)

SMALL = {
    "xvector": {"input_dim": 12, "channels": 16, "embedding_dim": 8},
    "ecapa": {"input_dim": 12, "channels": 16, "embedding_dim": 8, "bottleneck": 4},
    "resnet": {"input_dim": 12, "channels": 4, "embedding_dim": 8, "blocks": "1,1,1,1"},
    "fixed-td": {"input_dim": 12, "frames": 30, "channels": 16, "embedding_dim": 8},
}
ARCHS = list(SMALL)


def small(arch, **more):
    torch.manual_seed(0)
    return build_extractor(arch, {**SMALL[arch], **more})


def noise(*shape, seed=0, offset=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + offset


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


# ------------------------------------------------------------------------------------------- published sizes


@pytest.mark.parametrize("arch, options, millions", [
    ("ecapa", {}, 6.19),
    ("ecapa", {"channels": 1024}, 14.66),
    ("resnet", {}, 6.63),
])
def test_parameters_are_the_published_number(arch, options, millions):
    model = build_extractor(arch, options)
    assert num_parameters(model) / 1e6 == pytest.approx(millions, abs=0.006)
    assert model.embedding_dim == {"ecapa": 192, "resnet": 256}[arch]


def test_parameters_of_xvector_by_hand():
    model = build_extractor("xvector", {"input_dim": 24, "norm": "batch"})
    frames = [(24 * 5, 512), (512 * 3, 512), (512 * 3, 512), (512, 512), (512, 1500)]
    affine = sum(dim * out + out for dim, out in frames) + 3000 * 512 + 512
    assert num_parameters(model) == affine + 2 * (4 * 512 + 1500)
    assert model.min_frames == 15 and model.embedding_dim == 512


def test_xvector_that_pools_the_input_too():
    features = noise(3, 40, 12, seed=1)
    extractor = small("xvector", pool_input=True).eval()
    initialise_norms(extractor, [features])
    with torch.no_grad():
        seen = extractor.input_norm(features.transpose(1, 2))
        pooled = torch.cat([extractor.pooling(extractor.frames(seen)), extractor.pooling(seen)], dim=1)
        torch.testing.assert_close(
            extractor(features), extractor.embedding(extractor.pooled_norm(pooled)), rtol=1e-5, atol=1e-6)
    assert num_parameters(extractor) == num_parameters(small("xvector")) + 2 * 12 * 8


def test_dropout_of_statistics_is_for_training_alone():
    features, plain = noise(3, 40, 12, seed=1), small("xvector").eval()
    dropping = small("xvector", dropout=0.5)
    assert torch.equal(dropping.eval()(features), plain(features))
    dropping.train()
    assert not torch.equal(dropping(features), dropping(features))
    with pytest.raises(VoxarkError, match="--dropout=1"):
        small("xvector", dropout=1.0)


@pytest.mark.parametrize("arch", ARCHS)
def test_norms_have_the_same_parameters(arch):
    assert len({num_parameters(small(arch, norm=norm)) for norm in ("frozen", "group", "batch")}) == 1
    assert small(arch, norm="batch").mixes_examples
    assert not small(arch).mixes_examples and not small(arch, norm="group").mixes_examples


def test_options():
    assert build_extractor("xvector", XvectorOptions(input_dim=5, channels=8)).options.channels == 8
    cli = ExtractorOptions(arch="ecapa", channels=64, embedding_dim=24)
    assert cli.resolve(30) == {"input_dim": 30, "channels": 64, "embedding_dim": 24, "norm": "frozen"}
    assert arch_options("resnet", ExtractorOptions(arch="resnet").resolve(80)).channels == 32
    wave = ExtractorOptions(arch="waveform", channels=16, embedding_dim=4).resolve(1)
    assert build_extractor("waveform", wave).embedding_dim == 4
    for arch, options, message in (
        ("nosuch", {}, "expected one of xvector"),
        ("xvector", {"chanels": 3}, "no option chanels"),
        ("xvector", {"channels": 0}, "option channels is 0"),
        ("xvector", {"channels": "8"}, "option channels is '8'"),
        ("xvector", {"channels": True}, "option channels is True"),
        ("xvector", {"norm": "layer"}, "expected frozen or group or batch"),
        ("ecapa", {"channels": 20}, "multiple of 8"),
        ("resnet", {"blocks": "3,4,6"}, "four numbers"),
        ("waveform", {"backbone": "waveform"}, "choose what stands behind"),
        ("waveform", {"sample_frequency": 44100}, "multiple of"),
    ):
        with pytest.raises(VoxarkError, match=message):
            build_extractor(arch, options)


def test_registered_architectures(monkeypatch):
    from voxark.e2e import architectures

    monkeypatch.setattr(architectures, "_ARCHITECTURES", dict(architectures._ARCHITECTURES))
    architectures.register("another", "voxark.e2e.xvector", XvectorOptions, "XvectorExtractor")
    assert build_extractor("another", {"input_dim": 5, "channels": 8}).input_dim == 5
    with pytest.raises(AssertionError):
        architectures.register("xvector", "voxark.e2e.xvector", XvectorOptions, "XvectorExtractor")


# ---------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("context", [(-2, -1, 0, 1, 2), (-3, 0, 3), (0,), (-3, -1, 2), (1, 2)])
def test_tdnn_layer_is_its_formula(context):
    layer, x = TdnnLayer(3, 4, context, norm="none", relu=False), noise(2, 3, 11)
    y = layer(x)
    first, last = -context[0], 11 - context[-1]
    assert y.shape == (2, 4, last - first)
    for t in range(first, last):
        by_hand = layer.bias + sum(x[:, :, t + c] @ layer.weight[:, :, k].T for k, c in enumerate(context))
        torch.testing.assert_close(y[:, :, t - first], by_hand)


def test_poolings():
    x = noise(2, 5, 7).double()
    pooled = StatisticsPooling()(x)
    np.testing.assert_allclose(pooled[:, :5], x.numpy().mean(axis=2), rtol=1e-12)
    np.testing.assert_allclose(pooled[:, 5:], x.numpy().std(axis=2), rtol=1e-9)
    constant = StatisticsPooling()(torch.full((1, 5, 7), 3.0))
    np.testing.assert_allclose(constant[0, 5:], 1e-5, rtol=1e-6)
    layer = AttentiveStatisticsPooling(5, 3).double()
    context = StatisticsPooling()(x)[:, :, None].expand(-1, -1, 7)
    inner = torch.einsum("hc,bct->bht", layer.inner.weight, torch.cat([x, context], dim=1))
    inner = inner + layer.inner.bias[:, None]
    scores = torch.einsum("ch,bht->bct", layer.outer.weight, torch.tanh(inner)) + layer.outer.bias[:, None]
    alpha = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
    torch.testing.assert_close(layer.weights(x), alpha)
    mean = (alpha * x).sum(dim=2)
    deviation = ((alpha * x**2).sum(dim=2) - mean**2).sqrt()
    torch.testing.assert_close(layer(x), torch.cat([mean, deviation], dim=1), rtol=1e-7, atol=1e-9)
    with torch.no_grad():
        layer.outer.weight.zero_()  # attention that prefers nothing is plain statistics
    torch.testing.assert_close(layer(x), StatisticsPooling()(x), rtol=1e-7, atol=1e-9)


def test_res2_passes_the_last_group_and_adds_the_one_before():
    layer, x = Res2Conv(8, 3, 2, 4, norm="none"), noise(1, 8, 9)
    y = layer(x)
    assert torch.equal(y[:, 6:], x[:, 6:])
    torch.testing.assert_close(y[:, 2:4], layer.layers[1](x[:, 2:4] + layer.layers[0](x[:, :2])))


def test_padding_is_on_both_sides():
    x = torch.arange(3.0)[None, :, None]
    assert pad_by_repetition(x, 6)[0, :, 0].tolist() == [0, 0, 1, 2, 2, 2]
    assert pad_by_repetition(x, 2) is x


# ------------------------------------------------------------------------------------------------ extractors


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("arch", ARCHS)
def test_companions_in_the_batch_do_not_matter(arch, norm):
    model, x = small(arch, norm=norm), noise(5, 30, 12)
    assert model.training
    together = model(x)
    assert together.shape == (5, 8)
    for i in range(5):
        torch.testing.assert_close(model(x[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["frozen", "group", "batch"])
@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_reach_all_parameters(arch, norm):
    model = small(arch, norm=norm)
    initialise_norms(model, [noise(8, 30, 12)])
    e = model(noise(8, 30, 12, seed=1))
    (e * noise(8, 8, seed=2)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    names = {name for name, _ in model.named_parameters()}
    assert not any(name.endswith((".mean", ".scale")) for name in names)


@pytest.mark.parametrize("arch", ARCHS)
def test_gradient_against_finite_differences(arch):
    model, x = small(arch).double(), noise(2, 30, 12).double()
    initialise_norms(model, [noise(40, 30, 12, seed=7).double()])
    direction, weights = noise(2, 30, 12, seed=3).double(), noise(2, 8, seed=4).double()
    x.requires_grad_(True)
    (model(x) * weights).sum().backward()
    with torch.no_grad():
        h = 1e-6
        difference = ((model(x + h * direction) - model(x - h * direction)) * weights).sum() / (2 * h)
    assert float((x.grad * direction).sum()) == pytest.approx(float(difference), rel=1e-4, abs=1e-7)


def test_frames_that_xvector_sees():
    # the embedding of 15 frames moves with each of them; one of 16 is made of two such windows alone
    model = small("xvector").eval()
    x = noise(1, 15, 12).requires_grad_(True)
    model.frames(x.transpose(1, 2)).square().sum().backward()
    assert (x.grad.abs().amax(dim=(0, 2)) > 0).all()
    assert model.frames(x.transpose(1, 2)).shape[2] == 1
    wide = noise(1, 16, 12)
    both = torch.cat([model.frames(wide[:, i : i + 15].transpose(1, 2)) for i in (0, 1)], dim=2)
    torch.testing.assert_close(model.frames(wide.transpose(1, 2)), both)


def test_short_inputs_are_lengthened():
    for arch in ("xvector", "ecapa", "resnet"):
        model, x = small(arch).eval(), noise(1, 4, 12)
        assert torch.equal(model(x), model(pad_by_repetition(x, model.min_frames)))
        assert torch.isfinite(model(x[:, :1])).all()


def test_time_shift():
    # what repeats with a period has the same statistics wherever one starts; fixed-td keeps the order
    period = noise(1, 10, 12)
    x, shifted = period.repeat(1, 5, 1), period.roll(3, dims=1).repeat(1, 5, 1)
    model = small("xvector").eval()
    frames = 50 - 14
    pooled = [model.frames(v.transpose(1, 2))[:, :, : frames - frames % 10] for v in (x, shifted)]
    torch.testing.assert_close(model.pooling(pooled[0]), model.pooling(pooled[1]), rtol=1e-4, atol=1e-5)
    model = small("fixed-td").eval()
    assert not torch.allclose(model(x[:, :30]), model(shifted[:, :30]), rtol=0.01, atol=0.01)


def test_order_of_frames_counts_without_pooling_alone():
    # with frame layers that see one frame each, statistics forget the order
    x = noise(1, 30, 12)
    permuted = x[:, torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    pooling = StatisticsPooling()
    torch.testing.assert_close(pooling(x.transpose(1, 2)), pooling(permuted.transpose(1, 2)))
    model = small("fixed-td").eval()
    assert not torch.allclose(model(x), model(permuted), atol=0.01)


def test_fixed_duration():
    model, x = small("fixed-td").eval(), noise(2, 30, 12)
    np.testing.assert_allclose(model(x).norm(dim=1).detach(), 1.0, rtol=1e-5)
    for wrong in (29, 31):
        with pytest.raises(VoxarkError, match=f"{wrong} frames, but this model takes 30"):
            model(noise(1, wrong, 12))
    loose = small("fixed-td", short_input="pad", long_input="crop").eval()
    loose.load_state_dict(model.state_dict())
    assert torch.equal(loose(x), model(x))
    assert torch.equal(loose(x[:, :20]), model(pad_by_repetition(x[:, :20], 30)))
    long = noise(2, 35, 12)
    assert torch.equal(loose(long), model(long[:, 2:32]))


def test_wrong_inputs():
    model = small("xvector")
    for shape in ((2, 20, 11), (20, 12), (2, 0, 12)):
        with pytest.raises(VoxarkError):
            model(torch.zeros(shape))


# ----------------------------------------------------------------------------------------------------- norms


def normalised_moments(model, batches):
    """(mean, deviation) of what leaves each FrozenNorm without its own affine map, over all batches."""
    seen = {}

    def look(layer, inputs, output):
        if layer.weight is not None:
            output = (output - layer.bias.view(-1, *[1] * (output.ndim - 2))) / layer.weight.view(
                -1, *[1] * (output.ndim - 2))
        seen.setdefault(layer, []).append(output.detach().double().transpose(0, 1).flatten(1))

    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, FrozenNorm)]
    for x in batches:
        model(x)
    for hook in hooks:
        hook.remove()
    return [(torch.cat(v, dim=1).mean(dim=1), torch.cat(v, dim=1).std(dim=1, correction=0), layer)
            for layer, v in seen.items()]


@pytest.mark.parametrize("arch", ARCHS)
def test_norms_give_mean_0_and_variance_1_and_stay(arch):
    lengths = (30, 30) if arch == "fixed-td" else (30, 45)
    batches = [noise(20, length, 12, seed=i, offset=4.0) * 3 for i, length in enumerate(lengths)]
    model = small(arch)
    number = sum(isinstance(m, FrozenNorm) for m in model.modules())
    assert initialise_norms(model, batches) == number > 3
    assert model.training and all(p.grad is None for p in model.parameters())
    moments = normalised_moments(model, batches)
    assert len(moments) == number
    for mean, deviation, layer in moments:
        assert bool(layer.estimated)
        varies = layer.scale > 1e-2 * layer.scale.median()  # dead units are floored
        np.testing.assert_allclose(mean[varies], 0.0, atol=2e-3)
        np.testing.assert_allclose(deviation[varies], 1.0, atol=2e-3)
    before = [b.clone() for b in model.buffers()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        model(noise(6, 30, 12, seed=seed)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers()))


def test_norms_are_estimated_layer_by_layer():
    # the threads' way equals estimating one layer after the other with whole forward passes
    batches = [noise(4, 30, 12, seed=i) for i in range(3)]
    model, other = small("xvector"), small("xvector")
    initialise_norms(model, batches)
    layers = [m for m in other.modules() if isinstance(m, FrozenNorm)]
    for layer in layers:
        inputs = []
        hook = layer.register_forward_pre_hook(lambda _, x, inputs=inputs: inputs.append(x[0]))
        with torch.no_grad():
            for x in batches:
                other(x)
        hook.remove()
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], dim=1).double()
        layer.set_moments(values.mean(dim=1), values.var(dim=1, correction=0))
    for one, two in zip(model.state_dict().values(), other.state_dict().values()):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_norms_from_given_moments():
    layer = FrozenNorm(4)
    layer.set_moments(torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 4.0, 0.0, 1.0]))
    np.testing.assert_allclose(layer.scale, [2, 2, 2e-3, 1])
    x = noise(3, 4, 5)
    expected = (x - torch.tensor([1.0, 2, 3, 4])[:, None]) / layer.scale[:, None]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    affine = FrozenNorm(4, affine=True)
    affine.set_moments(layer.mean, layer.scale.double() ** 2)
    with torch.no_grad():
        affine.weight.copy_(torch.tensor([1.0, 2, 3, 4]))
        affine.bias.fill_(0.5)
    torch.testing.assert_close(affine(x), layer(x) * affine.weight[:, None] + 0.5, rtol=1e-4, atol=1e-4)
    layer.set_moments(torch.zeros(4), torch.zeros(4))
    assert torch.equal(layer.scale, torch.ones(4))
    with pytest.raises(VoxarkError, match="not finite"):
        layer.set_moments(torch.tensor([np.nan, 0, 0, 0]), torch.ones(4))
    with pytest.raises(VoxarkError, match="--norm=layer"):
        make_norm("layer", 4)


def test_failures_of_estimation_leave_no_threads():
    import threading

    model, number = small("xvector"), threading.active_count()
    with pytest.raises(VoxarkError, match="not finite"):
        initialise_norms(model, [noise(2, 30, 12), torch.full((2, 30, 12), np.inf)])
    with pytest.raises(VoxarkError, match="12 dimensions"):
        initialise_norms(model, [noise(2, 30, 12), noise(2, 30, 11)])
    with pytest.raises(VoxarkError, match="no data"):
        initialise_norms(model, [])
    assert threading.active_count() == number and model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_most_frames_of_estimation():
    kept = _limited([torch.zeros(10, 100, 3), torch.zeros(10, 50, 3)], 300)
    assert [len(x) for x in kept] == [2, 2]
    assert [len(x) for x in _limited([torch.zeros(10, 100)], 300)] == [10]  # embeddings: rows count


# ------------------------------------------------------------------------------- utterances of any length


def test_embedding_of_mixed_lengths_is_that_of_each_alone():
    model = small("ecapa")
    utterances = [noise(length, 12, seed=i).numpy() for i, length in enumerate((40, 22, 40, 3, 22, 40))]
    e = embed(model, utterances, max_frames_per_batch=80)
    assert e.dtype == np.float32 and model.training
    with torch.no_grad():
        for row, x in zip(e, utterances):
            np.testing.assert_allclose(row, model(torch.from_numpy(x)[None])[0], rtol=1e-4, atol=1e-6)
    assert embed(model, []).shape == (0, 8)


def test_batches_by_length():
    lengths = np.array([40, 22, 40, 3, 22, 40, 40])
    batches = batches_by_length(lengths, 80)
    assert [list(b) for b in batches] == [[3], [1, 4], [0, 2], [5, 6]]
    assert all(len(set(lengths[b])) == 1 for b in batches)
    assert [len(b) for b in batches_by_length([500, 500], 80)] == [1, 1]


def test_chunks_cover_the_utterance():
    for length in (5, 10, 11, 29, 30, 31, 1000):
        starts = chunk_starts(length, 10)
        assert len(starts) == -(-length // 10) and starts[0] == 0
        if length >= 10:
            covered = np.zeros(length, bool)
            for s in starts:
                assert 0 <= s <= length - 10
                covered[s : s + 10] = True
            assert covered.all()


def test_mean_of_chunks_and_mean_subtraction():
    model, x = small("xvector").eval(), noise(47, 12, offset=2.0).numpy()
    plain = embed(model, [x[:20], x[14:34], x[27:]])
    starts = chunk_starts(47, 20)
    assert starts == [0, 14, 27]
    np.testing.assert_allclose(embed_in_chunks(model, x, 20), plain.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embed_in_chunks(model, x, 47), embed(model, [x])[0], rtol=1e-5, atol=1e-6)
    for cmn, expected in (
        ("utterance", embed(model, [(x - x.mean(axis=0))[s : s + 20] for s in starts])),
        ("chunk", embed(model, [x[s : s + 20] - x[s : s + 20].mean(axis=0) for s in starts])),
    ):
        got = embed_in_chunks(model, x, 20, cmn)
        np.testing.assert_allclose(got, expected.mean(axis=0), rtol=1e-4, atol=1e-5)
        shifted = embed_in_chunks(model, x + 7.0, 20, cmn)
        np.testing.assert_allclose(got, shifted, rtol=1e-3, atol=1e-4)
    window = normalised(x, "sliding", 10)
    np.testing.assert_allclose(window[20], x[20] - x[15:25].mean(axis=0), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- waveforms


def speech_like(num_samples=24000, seed=0):
    """Harmonics of a moving pitch and noise bands, each with an envelope of its own, at 16-bit scale."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.3 * t)) / 16000
    x = 20 * rng.standard_normal(num_samples)
    for harmonic in range(1, 50):
        points = rng.standard_normal(num_samples // 800 + 2)
        envelope = np.exp(np.interp(np.arange(num_samples), 800 * np.arange(len(points)), points))
        x += 800 / harmonic**0.5 * envelope * np.sin(harmonic * phase + 6.28 * rng.random())
    return x.astype(np.float32)


def correlations(samples, num_filters, filters="gabor"):
    expected = fbank(samples, 16000, FbankOptions(num_mel_bins=num_filters, dither=0.0))
    with torch.no_grad():
        x = torch.tensor(np.asarray(samples, np.float32))[None]
        got = FilterBank(16000, num_filters, filters)(x)[0].numpy()
    assert got.shape == expected.shape
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(expected.T, got.T)])


@pytest.mark.parametrize("filters", ["gabor", "free"])
def test_filter_bank_starts_as_log_mel_features(filters):
    r = correlations(speech_like(), 23, filters)
    assert r.mean() > 0.95 and r.min() > 0.8


@needs_data("speechocean762")
def test_filter_bank_on_recorded_speech():
    import soundfile

    name = sorted(shared_data("speechocean762").rglob("*.flac"))[0]
    samples, rate = soundfile.read(name, dtype="int16")
    assert rate == 16000
    for num_filters in (23, 40, 80):
        r = correlations(samples, num_filters)
        assert r.mean() > 0.97 and np.sort(r)[3] > 0.9


def test_filter_bank_has_fbanks_frames():
    bank = FilterBank(16000, 23)
    for n in (400, 559, 560, 4000, 4159):
        expected = len(fbank(np.zeros(n), 16000, FbankOptions(dither=0.0)))
        assert bank.num_frames(n) == expected
        assert bank(torch.zeros(1, n)).shape == (1, expected, 23)
    click = torch.zeros(1, 4000)
    click[0, 2000] = 20000.0  # the middle of frame (2000 - 200) / 160 = 11.25
    level = bank(click)[0].detach().mean(dim=1)
    assert int(level.argmax()) == 11
    assert 0.5 * float(level[11] + level[12]) > float(level[[8, 15]].max()) + 1.0


@pytest.mark.parametrize("filters", ["gabor", "free"])
@pytest.mark.parametrize("backbone", ["xvector", "ecapa"])
def test_waveform_trains(backbone, filters):
    torch.manual_seed(0)
    model = build_extractor("waveform", {
        "num_filters": 12, "filters": filters, "backbone": backbone,
        "backbone_options": {k: v for k, v in SMALL[backbone].items() if k != "input_dim"}})
    assert model.takes_samples and model.input_dim == 1
    # two "speakers": the same noise through a low and a high resonance
    rng = np.random.default_rng(0)
    x, labels = [], np.arange(12) % 2
    for label in labels:
        t = np.arange(6000) / 16000
        tone = np.sin(2 * np.pi * (500, 2500)[label] * t) * (1 + 0.5 * rng.standard_normal())
        x.append(1000 * tone + 1000 * rng.standard_normal(6000))
    x, labels = torch.tensor(np.array(x), dtype=torch.float32), torch.tensor(labels)
    initialise_norms(model, [x[:, :, None]])
    head = torch.nn.Linear(8, 2)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=3e-3)
    start = {name: p.detach().clone() for name, p in model.filters.named_parameters() if p.requires_grad}
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(model(x)), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for name, old in start.items():
        assert not torch.equal(old, dict(model.filters.named_parameters())[name]), name
    assert torch.equal(model(x), model(x[:, :, None]))
    assert torch.isfinite(model(x[:, :100])).all()  # shorter than a frame


def test_waveform_of_fixed_duration():
    options = {"num_filters": 12, "backbone": "fixed-td", "backbone_options": {"frames": 20, "channels": 8}}
    model = build_extractor("waveform", options)
    assert model(noise(2, 400 + 19 * 160)).shape == (2, 256)
    with pytest.raises(VoxarkError, match="22 frames"):
        model(noise(2, 400 + 21 * 160))
