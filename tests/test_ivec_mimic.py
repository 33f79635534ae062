"""The network built like an i-vector system: it equals it, learns to imitate it, and stays near it."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from helpers import run, save_ark, write_lines

torch = pytest.importorskip("torch")

from voxark import tables  # noqa: E402
from voxark.backend.class_stats import accumulate as class_stats  # noqa: E402
from voxark.backend.lda import LdaOptions, train_lda  # noqa: E402
from voxark.backend.plda_em import PldaTrainingOptions, train_plda  # noqa: E402
from voxark.backend.vectors import length_normalize, transform  # noqa: E402
from voxark.e2e import options as e2e_options  # noqa: E402
from voxark.e2e.architectures import ExtractorOptions as NetworkOptions  # noqa: E402
from voxark.e2e.backend_start import BackendStartOptions  # noqa: E402
from voxark.e2e.batches import BatchOptions  # noqa: E402
from voxark.e2e.chunks import NormalizeOptions  # noqa: E402
from voxark.e2e.extractors import build_extractor, embed  # noqa: E402
from voxark.e2e.init_penalty import InitPenalty, parse_penalties  # noqa: E402
from voxark.e2e.inputs import InputOptions  # noqa: E402
from voxark.e2e.ivec_mimic_options import LayerOptions, MimicOptions  # noqa: E402
from voxark.e2e.ivec_mimic_start import System, UtteranceSample, exact_model, mimic_model  # noqa: E402
from voxark.e2e.model import load_model  # noqa: E402
from voxark.e2e.spec_augment import SpecAugmentOptions  # noqa: E402
from voxark.e2e.speakers import DevOptions  # noqa: E402
from voxark.e2e.training import open_training  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.gmm.diag import DiagGmm  # noqa: E402
from voxark.gmm.full import FullGmm  # noqa: E402
from voxark.gmm.model import write_gmm  # noqa: E402
from voxark.io.posteriors import Posteriors  # noqa: E402
from voxark.ivector.baum_welch import Scatter, baum_welch  # noqa: E402
from voxark.ivector.e_step import EStep, accumulate  # noqa: E402
from voxark.ivector.extractor import ExtractorOptions, initial_extractor  # noqa: E402
from voxark.ivector.m_step import EstimationOptions, m_step  # noqa: E402
from voxark.nnet.model_folder import save_model  # noqa: E402
from voxark.ivector.utterances import ExtractionOptions  # noqa: E402

torch.set_num_threads(1)
SPEAKERS, SESSIONS, C, D, R, LDA = 40, 5, 6, 4, 8, 5
GROUPS = {
    "extractor": NetworkOptions, "backend": BackendStartOptions, "loss": e2e_options.LossOptions,
    "weights": e2e_options.TrialWeightOptions, "batches": BatchOptions, "normalize": NormalizeOptions,
    "inputs": InputOptions, "masks": SpecAugmentOptions, "optimizer": e2e_options.OptimizerOptions,
    "gradient": e2e_options.GradientOptions, "dev": DevOptions, "run": e2e_options.E2eRunOptions}
NO_CMN = NormalizeOptions(cmn="none")


class Baseline(NamedTuple):
    """A System trained on features, its i-vectors (N,R), the vectors (N,d) that its PLDA scores."""

    system: System
    features: list
    speakers: np.ndarray
    ivectors: np.ndarray
    vectors: np.ndarray


def draw_features(rng, gmm):
    """Features whose components' means move with speaker and session: an i-vector model is true of them."""
    basis = 0.8 * rng.standard_normal((C, D, 6))
    roots = np.linalg.cholesky(gmm.covars)
    features = []
    for _ in range(SPEAKERS):
        voice = rng.standard_normal(6)
        for _ in range(SESSIONS):
            means = gmm.means + basis @ (voice + 0.5 * rng.standard_normal(6))
            component = rng.choice(C, size=int(rng.integers(60, 120)), p=gmm.weights)
            noise = np.einsum("tde,te->td", roots[component], rng.standard_normal((len(component), D)))
            features.append((means[component] + noise).astype(np.float32))
    return features, np.repeat(np.arange(SPEAKERS), SESSIONS)


def all_posteriors(gmm, x):
    """Posteriors of every component of a GMM, in double precision."""
    logs = gmm.component_log_likelihoods(x)
    post = np.exp(logs - logs.max(axis=1, keepdims=True))
    post /= post.sum(axis=1, keepdims=True)
    shape = np.full(len(x), gmm.num_gauss, np.int32)
    return Posteriors(shape, np.tile(np.arange(gmm.num_gauss, dtype=np.int32), len(x)), post.ravel())


def train_baseline(gmm, features, speakers, kaldi_compat=False):
    """Train i-vectors, LDA and PLDA with the toolkit's own functions."""
    posteriors, scatter = [all_posteriors(gmm, x) for x in features], Scatter.zeros(C, D)
    n, f = baum_welch(features, posteriors, C, None, scatter)
    full = gmm if isinstance(gmm, FullGmm) else gmm.to_full()
    extractor = initial_extractor(full, ExtractorOptions(ivector_dim=R, kaldi_compat=kaldi_compat))
    for _ in range(5):
        extractor, _ = m_step(extractor, accumulate(extractor, [(n, f)], scatter),
                              EstimationOptions(gaussian_min_count=10.0))
    ivectors = EStep(extractor).means(n, f)
    mean = ivectors.mean(axis=0)
    lda = train_lda(ivectors - mean, speakers, LdaOptions(dim=LDA))
    vectors = length_normalize(transform(ivectors - mean, lda))
    plda = train_plda(class_stats(vectors, speakers), PldaTrainingOptions(num_em_iters=5))
    return Baseline(System(gmm, extractor, plda, mean, lda), features, speakers, ivectors, vectors)


@pytest.fixture(scope="module")
def baseline():
    """A system with a full-covariance UBM, and its data: far from the origin, of unequal scales."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((C, D, D)) / 2
    covars = np.eye(D) + root @ np.swapaxes(root, 1, 2)
    gmm = FullGmm(rng.dirichlet(np.full(C, 5.0)), 4.0 * rng.standard_normal((C, D)), covars)
    features, speakers = draw_features(rng, gmm)
    scale, shift = np.array([1.0, 5.0, 0.2, 2.0]), np.array([30.0, -10.0, 3.0, 0.0])
    moved = FullGmm(gmm.weights, gmm.means * scale + shift, gmm.covars * np.multiply.outer(scale, scale))
    features = [(x * scale + shift).astype(np.float32) for x in features]
    return train_baseline(moved, features, speakers)


def plda_scores(baseline):
    """PLDA scores of all pairs of the system's vectors."""
    projected = baseline.system.plda.project(baseline.vectors)
    return baseline.system.plda.llr(projected, projected)


@pytest.mark.parametrize("kind", ["full", "diagonal", "kaldi"])
def test_exact_is_the_system(kind, baseline, tmp_path):
    if kind != "full":
        gmm = baseline.system.gmm.to_diag() if kind == "diagonal" else baseline.system.gmm
        baseline = train_baseline(gmm, baseline.features, baseline.speakers, kind == "kaldi")
        assert isinstance(baseline.system.gmm, DiagGmm) == (kind == "diagonal")
    model = exact_model(baseline.system, NO_CMN, ExtractionOptions())
    expected = plda_scores(baseline)
    with torch.no_grad():
        ivectors = torch.cat([model.extractor(torch.from_numpy(x[None]).double()) for x in baseline.features])
        scores = model.scorer(ivectors).numpy()
    assert abs(ivectors.numpy() - baseline.ivectors).max() < 1e-9
    assert abs(scores - expected).max() < 1e-9
    save_model(tmp_path / "exact", model.float())
    single = load_model(tmp_path / "exact")
    found = embed(single, baseline.features)
    assert abs(found - baseline.ivectors).max() < 1e-4
    assert abs(single.scorer.score_numpy(found) - expected).max() < 1e-4


def test_counts_are_weighted_and_limited(baseline):
    """--acoustic-weight and --max-count do to statistics what extract-ivectors does."""
    x, extraction = baseline.features[0], ExtractionOptions(acoustic_weight=0.5, max_count=20.0)
    model = exact_model(baseline.system, NO_CMN, extraction)
    post = all_posteriors(baseline.system.gmm, x)
    n, f = baum_welch([x], [post], C, [extraction.scale(post)])
    expected = EStep(baseline.system.extractor).means(n, f)
    assert n.sum() == pytest.approx(20.0)
    found = model(torch.from_numpy(x[None]).double()).detach().numpy()
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_exact_has_gradients_and_sees_its_updates(baseline):
    """Every parameter's gradient is that of finite differences; kept products follow the parameters."""
    model = exact_model(baseline.system, NO_CMN, ExtractionOptions())
    x = torch.from_numpy(np.stack([x[:30] for x in baseline.features[:3]])).double()
    weight = torch.from_numpy(np.random.default_rng(1).standard_normal((3, R)))
    with torch.no_grad():
        model(x)  # keeps products
    (model(x) * weight).sum().backward()
    for name, parameter in model.extractor.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).double()
        step, values = 1e-5, []
        for sign in (1, -2):
            with torch.no_grad():
                parameter += sign * step * direction
                values.append(float((model(x) * weight).sum()))
        with torch.no_grad():
            parameter += step * direction
        expected = (values[0] - values[1]) / (2 * step)
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-6), name


def test_sizes_that_disagree_are_refused(baseline):
    smaller = baseline.system.gmm.to_diag()
    weights = smaller.weights[:3] / smaller.weights[:3].sum()
    smaller = DiagGmm(weights, smaller.means[:3], smaller.variances[:3])
    with pytest.raises(VoxarkError, match=r"UBM has .* \(3, 4\)"):
        exact_model(baseline.system._replace(gmm=smaller), NO_CMN, ExtractionOptions())
    with pytest.raises(VoxarkError, match="PLDA model has dimension 5"):
        exact_model(baseline.system._replace(lda=None), NO_CMN, ExtractionOptions())


def test_a_component_of_weight_zero_is_never_chosen(baseline):
    gmm = baseline.system.gmm
    weights = np.append(gmm.weights[:-1] / gmm.weights[:-1].sum(), 0.0)
    model = exact_model(baseline.system._replace(gmm=FullGmm(weights, gmm.means, gmm.covars)), NO_CMN,
                        ExtractionOptions())
    with torch.no_grad():
        n, _ = model.extractor.statistics(torch.from_numpy(baseline.features[0][None]).double())
    assert n[0, -1] == 0.0 and float(n.sum()) == pytest.approx(len(baseline.features[0]))


SMALL_LAYERS = LayerOptions(channels=32, pca_dim=20)
SMALL_MIMIC = MimicOptions(num_f2s_steps=300, num_s2i_epochs=40, mimic_frames=40, mimic_lr=0.005)


def test_mimic_learns_the_system(baseline, tmp_path):
    """Stage 1 correlates with the system's vectors on held-out utterances; without training it does not."""
    teacher = exact_model(baseline.system, NO_CMN, ExtractionOptions())
    untrained = dataclasses.replace(SMALL_MIMIC, num_f2s_steps=0, num_s2i_epochs=0)
    _, before = mimic_model(teacher, baseline.system, baseline.features, SMALL_LAYERS, untrained)
    model, found = mimic_model(teacher, baseline.system, baseline.features, SMALL_LAYERS, SMALL_MIMIC)
    assert before.correlation < 0.5 and found.num_heldout == 20
    assert found.correlation >= 0.9 and found.cosine >= 0.9
    assert found.entropy <= found.cross_entropy < found.entropy + 0.2 < before.cross_entropy
    again = mimic_model(teacher, baseline.system, baseline.features, SMALL_LAYERS, untrained)[1]
    assert again == before
    save_model(tmp_path / "mimic", model)
    vectors = embed(load_model(tmp_path / "mimic"), baseline.features)
    assert np.allclose(np.linalg.norm(vectors, axis=1), np.sqrt(LDA), rtol=1e-5)
    cosines = (vectors * baseline.vectors).sum(axis=1) / LDA
    assert cosines.mean() > 0.9


def test_what_cannot_be_imitated_is_refused(baseline):
    teacher = exact_model(baseline.system, NO_CMN, ExtractionOptions())
    brief = dataclasses.replace(SMALL_MIMIC, num_f2s_steps=0, num_cuts=0)
    with pytest.raises(VoxarkError, match="smaller --pca-dim"):
        mimic_model(teacher, baseline.system, baseline.features[:20], SMALL_LAYERS, brief)
    with pytest.raises(VoxarkError, match="at least 4"):
        mimic_model(teacher, baseline.system, baseline.features[:3], SMALL_LAYERS, brief)
    unscaled = exact_model(baseline.system, NO_CMN, ExtractionOptions(), length_norm=False)
    with pytest.raises(VoxarkError, match="--length-norm=true"):
        mimic_model(unscaled, baseline.system, baseline.features, SMALL_LAYERS, brief)


def test_the_choice_of_utterances_depends_on_keys_alone(baseline):
    keys = [f"utt{i}" for i in range(30)]

    def chosen(order):
        sample = UtteranceSample(D, NormalizeOptions(cmn="chunk"), MimicOptions(max_utts=7))
        for i in order:
            sample.add(keys[i], baseline.features[i])
        return sample.utterances()

    one, other = chosen(range(30)), chosen(range(29, -1, -1))
    assert len(one) == 7 and all(np.array_equal(x, y) for x, y in zip(one, other))
    assert max(abs(x.mean(axis=0)).max() for x in one) < 1e-4
    sample = UtteranceSample(D, NO_CMN, MimicOptions())
    for bad in (np.zeros((5, D + 1)), np.zeros((0, D)), np.full((3, D), np.nan)):
        with pytest.raises(VoxarkError):
            sample.add("bad", bad)


# ------------------------------------------------------------------------------------------ stage 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_settles_at_the_minimum_of_loss_and_penalty(momentum, baseline):
    """Of a (theta - b)^2 and the penalty the minimum is at (a b + lambda theta_init) / (a + lambda)."""
    model = exact_model(baseline.system, NO_CMN, ExtractionOptions())
    parameter, free = model.extractor.s2i.means, model.extractor.f2s.linear.bias
    start, free_start = parameter.detach().clone(), free.detach().clone()
    penalty = InitPenalty(model, "s2i=0.5")
    optimizer = torch.optim.SGD([parameter, free], lr=0.05, momentum=momentum)
    for _ in range(600):
        optimizer.zero_grad()
        (1.5 * (parameter - start - 4.0).square().sum() + (free - free_start - 1.0).square().sum()).backward()
        optimizer.step()
        penalty.pull(optimizer)
    assert torch.allclose(parameter - start, torch.full_like(start, 3.0), rtol=1e-6)
    assert torch.allclose(free - free_start, torch.ones_like(free), rtol=1e-6)
    assert penalty.value() == pytest.approx(0.5 * 9.0 * start.numel())
    resumed = InitPenalty(model, "s2i=0.5")
    assert resumed.value() == 0.0
    resumed.load_state_dict(penalty.state_dict())
    assert resumed.value() == penalty.value()


def test_penalties_by_block():
    names = ("extractor", "f2s", "s2i", "backend")
    assert parse_penalties("0.1", names) == {"extractor": 0.1, "backend": 0.1}
    assert parse_penalties("f2s=1e-2,backend=inf", names) == {"f2s": 0.01, "backend": np.inf}
    for bad in ("-1", "nan", "f2s=x", "head=1", "1,2", "f2s=1,,s2i=2", "=1"):
        with pytest.raises(VoxarkError, match="--init-penalty"):
            parse_penalties(bad, names)


def write_system(folder, baseline):
    """Write a system's files and its data; returns the command line of init-ivec-mimic, and the data."""
    system = baseline.system
    names = {name: str(folder / name) for name in ("ubm", "ie", "plda", "mean", "lda")}
    write_gmm(names["ubm"], system.gmm)
    tables.write_object("ivector-extractor", names["ie"], system.extractor.to_params())
    tables.write_object("plda", names["plda"], system.plda.to_params())
    tables.write_object("vec", names["mean"], system.mean)
    tables.write_object("mat", names["lda"], system.lda)
    keys = [f"spk{s:02d}-utt{i:03d}" for i, s in enumerate(baseline.speakers)]
    feats = save_ark(folder / "feats.ark", dict(zip(keys, baseline.features)))
    utt2spk = write_lines(folder / "utt2spk", *(f"{key} {key[:5]}" for key in keys))
    return [f"--mean={names['mean']}", f"--lda={names['lda']}", names["ubm"], names["ie"], names["plda"]], (
        feats, utt2spk)


def joint_training(data, start, folder, penalty, **more):
    """Stage 2 in this process; returns the model before and after it, and the Trainer."""
    settings = {"init_model": str(start), "init_penalty": penalty, "loss": "verification", "cmn": "none",
                "front_dim": LDA, "batch_speakers": 8, "min_chunk": 40, "max_chunk": 60, "num_epochs": 2,
                "batches_per_epoch": 4, "dev_share": 0.3, "loader_threads": 0, "calibrate": False, "lr": 0.01,
                "best": "loss", **more}
    groups = {name: kind(**{field.name: settings.pop(field.name) for field in dataclasses.fields(kind)
                            if field.name in settings}) for name, kind in GROUPS.items()}
    assert not settings
    trainer = open_training(*data, str(folder), e2e_options.Options(**groups), lambda key, reason: None)
    try:
        trainer.run()
    finally:
        trainer.source.close()
        trainer.folder.close()
    return load_model(start), trainer


def moved(before, after):
    """The largest change of a parameter by block."""
    largest = {}
    for (name, one), other in zip(before.named_parameters(), after.parameters()):
        block = name.split(".")[1] if name.startswith("extractor") else "backend"
        largest[block] = max(largest.get(block, 0.0), (one - other).abs().max().item())
    return largest


def test_programs_and_joint_training(baseline, tmp_path):
    """From a recipe's files to a network with its scores; stage 2 moves what its penalty leaves free."""
    words, data = write_system(tmp_path, baseline)
    start = tmp_path / "exact"
    run("init-ivec-mimic", *words, start)
    model = load_model(start)
    scores = model.scorer.score_numpy(embed(model, baseline.features))
    assert abs(scores - plda_scores(baseline)).max() < 2e-3
    before, trainer = joint_training(data, start, tmp_path / "stay", "inf")
    assert moved(before, trainer.model) == {"f2s": 0.0, "s2i": 0.0, "backend": 0.0}
    before, trainer = joint_training(data, start, tmp_path / "part", "f2s=inf,s2i=1e-3", optimizer="sgd")
    change = moved(before, trainer.model)
    assert all(np.isfinite(list(change.values())))
    assert change["f2s"] == 0.0 and change["s2i"] > 1e-5 and change["backend"] > 1e-5
    assert trainer.history[-1]["train_init"] > 0.0
    state = trainer.steps.state_dict()["penalty"]
    assert torch.equal(state["extractor.s2i.means"], before.extractor.s2i.means)


def test_program_imitates_and_refuses(baseline, tmp_path):
    """Stage 1 by the program, then stage 2 with a back-end that stays; wrong options are told."""
    words, (feats, utt2spk) = write_system(tmp_path, baseline)
    quick = ["--channels=16", "--pca-dim=20", "--num-f2s-steps=20", "--num-s2i-epochs=5", "--mimic-frames=40"]
    done = run("init-ivec-mimic", "--init=mimic", f"--feats={feats}", *quick, *words, tmp_path / "mimic")
    figures = dict(line.split() for line in done.stdout.decode().splitlines())
    assert figures["num-heldout"] == "20" and 0.0 < float(figures["correlation"]) < 1.0
    assert load_model(tmp_path / "mimic").extractor.options.form == "mimic"
    before, trainer = joint_training((feats, utt2spk), tmp_path / "mimic", tmp_path / "joint",
                                     "extractor=1e-3,backend=inf", front_dim=0)
    change = moved(before, trainer.model)
    assert change["f2s"] > 0.0 and change["s2i"] > 0.0 and change["backend"] == 0.0
    for change, message in ((["--init=mimic"], "needs --feats"), ([f"--feats={feats}"], "needs --feats"),
                            (["--acoustic-weight=0"], "above 0")):
        done = run("init-ivec-mimic", *change, *words, tmp_path / "refused", check=False)
        assert done.returncode == 1 and message in done.stderr
    assert "wrong number of arguments" in run("init-ivec-mimic", check=False).stderr


@pytest.mark.parametrize("form", ["exact", "mimic"])
def test_random_start_and_any_length(form):
    """The architecture by its name: finite embeddings and gradients, whatever the number of frames."""
    extractor = build_extractor("ivec-mimic", {
        "form": form, "input_dim": D, "num_gauss": C, "embedding_dim": 3, "channels": 8, "pca_dim": 5,
        "context": 2})
    for num_frames in (1, 2, 30):
        found = extractor(torch.randn(2, num_frames, D))
        assert found.shape == (2, 3) and found.dtype == torch.float32
        found.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in extractor.parameters())
