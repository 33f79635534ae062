"""The recipe of egs/fhvae_scaling, its programs, and the discriminative term's own gradient."""

import csv
import importlib
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import ROOT, forked_environment, load_ark, run_script, save_ark

torch = pytest.importorskip("torch")

from voxark.fhvae.inference import encode  # noqa: E402
from voxark.fhvae.model import FhvaeModel, model_config  # noqa: E402
from voxark.fhvae.objective import sequence_log_posterior  # noqa: E402
from voxark.fhvae.options import ModelOptions  # noqa: E402
from voxark.fhvae.sequences import hold_out  # noqa: E402
from voxark.nnet.model_folder import save_model  # noqa: E402
from voxark.random_numbers import draw, draws  # noqa: E402

LOCAL = ROOT / "local/fhvae_scaling"
TINY = ["--arch=fc", "--hidden-dim=8", "--num-layers=1", "--print-args=false"]


def load(name):
    """A module of local/fhvae_scaling."""
    if str(LOCAL) not in sys.path:
        sys.path.append(str(LOCAL))
    return importlib.import_module(name)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def local(program, *arguments, **options):
    return run_script(LOCAL / program, *arguments, **options)


# ---------------------------------------------------------------------------------------------- the term


def test_gradient_of_the_posterior_is_that_of_its_differences():
    """By finite differences, with two segments of one sequence."""
    rng = torch.Generator().manual_seed(0)
    zbar2 = torch.randn(5, 3, dtype=torch.double, generator=rng, requires_grad=True)
    mu2 = torch.randn(7, 3, dtype=torch.double, generator=rng, requires_grad=True)
    rows = torch.tensor([0, 6, 2, 2, 3])
    assert torch.autograd.gradcheck(lambda z, m: sequence_log_posterior(z, m, 0.25, rows), (zbar2, mu2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_posterior_is_the_naive_one(scale):
    """At entries near each other, and so far apart that all posteriors but one underflow."""
    rng = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 500, (40,), generator=rng)
    mu2 = scale * torch.randn(500, 8, generator=rng)
    zbar2 = mu2[rows] + 0.5 * torch.randn(40, 8, generator=rng)
    found = []
    for dtype, form in ((torch.float32, sequence_log_posterior), (torch.float64, load("forms").form_of("naive"))):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in (zbar2, mu2)]
        value = form(*leaves, 0.25, rows)
        (value * torch.arange(1.0, 41.0)).sum().backward()  # segments count differently
        found.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*found, strict=True):
        assert (ours.double() - expected).norm() <= 2e-5 * scale * expected.norm() + 1e-4


def test_gradients_hold_no_denormal_numbers():
    """They are what makes processors slow: at entries far apart nearly all posteriors would be such."""
    mu2 = torch.arange(400.0)[:, None].repeat(1, 4).div(20).requires_grad_()
    sequence_log_posterior(mu2.detach()[:30], mu2, 0.25, torch.arange(30)).mean().backward()
    size = mu2.grad.abs()
    assert not ((size > 0) & (size < torch.finfo(torch.float32).tiny)).any()


def test_what_is_not_finite_is_told():
    """Training goes back where a loss is not finite; the bounds on the logits must not hide that."""
    zbar2 = torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [float("inf"), 0.0]])
    found = sequence_log_posterior(zbar2, torch.eye(2), 0.25, torch.tensor([0, 1, 1]))
    assert torch.isfinite(found).tolist() == [True, False, False]


def test_numbers_of_many_keys_are_those_of_each():
    keys = ["a", "b c", "\udce9", "ü", ""]
    assert draws(3, "dev", keys=iter(keys)).tolist() == [draw(3, "dev", key) for key in keys]


def test_held_out_are_the_smallest_draws_of_those_that_take_part():
    index = types.SimpleNamespace(keys=[f"u{n}" for n in range(50)], name="t")
    numbers = np.arange(0, 50, 2, dtype=np.int32)
    rest, held = hold_out(index, numbers, 0.2, 100, 7)
    expected = sorted(numbers.tolist(), key=lambda n: draw(7, "dev", f"u{n}"))[:5]
    assert held.tolist() == sorted(expected) and sorted([*rest, *held]) == numbers.tolist()


# ---------------------------------------------------------------------------------------------- the programs


def test_keys_share_the_places_of_utterances(tmp_path):
    local("make_sequences.py", "--num-utts=3", "--num-keys=8", "--dim=5", "--max-frames=70", tmp_path)
    feats = load_ark(tmp_path / "feats.ark")
    assert [x.shape[1] for x in feats.values()] == [5] * 3 and all(60 <= len(x) <= 70 for x in feats.values())
    places = dict(line.split() for line in (tmp_path / "feats.scp").read_text().splitlines())
    keys = [line.split() for line in (tmp_path / "keys.scp").read_text().splitlines()]
    assert [place for _, place in keys] == [places[f"u{n % 3:07d}"] for n in range(8)]
    assert len({key for key, _ in keys}) == 8
    assert "at most --max-frames" in local("make_sequences.py", "--min-frames=10", tmp_path, check=False).stderr


def test_step_times_takes_turns_and_leaves_out_what_is_too_large(tmp_path):
    done = local("step_times.py", *TINY, "--segment-batch-size=16", "--sizes=5,40,9000", "--forms=product,naive",
                 "--num-rounds=5", "--max-memory=20", tmp_path / "t.tsv")
    rows = rows_of(tmp_path / "t.tsv")
    assert [(row["form"], row["K"], row["steps"]) for row in rows] == [
        ("product", "5", "5"), ("product", "40", "5"), ("product", "9000", "5"), ("naive", "5", "2"),
        ("naive", "40", "2")]
    assert "K = 9000, naive: left out" in done.stderr
    assert all(0 < float(row["least_ms"]) <= float(row["step_ms"]) for row in rows)
    assert [float(row["ratio"]) for row in rows if row["K"] == "5"] == [1.0, 1.0]
    for wrong, message in (("--forms=quick", "is no form"), ("--sizes=1,x", "expected numbers"),
                           ("--num-rounds=0", "at least 1")):
        failed = local("step_times.py", *TINY, wrong, tmp_path / "u.tsv", check=False)
        assert failed.returncode == 1 and message in failed.stderr and not (tmp_path / "u.tsv").exists()


def test_memory_that_does_not_do_is_told(tmp_path):
    """Flat training by differences on 40,000 sequences wants 1.3 GiB for one array."""
    local("make_sequences.py", "--num-utts=20", "--num-keys=40000", "--dim=8", tmp_path)
    common = [*TINY, "--dev-share=0.5", "--max-dev=10", "--num-steps=2", "--sequence-batch-size=30",
              f"scp:{tmp_path}/keys.scp"]
    figures = {}
    for name, options in {"naive": ["--sampling=flat", "--form=naive"], "hierarchical": []}.items():
        done = local("measure_training.py", "--max-memory=1000", *options, *common, tmp_path / name)
        figures[name] = json.loads(done.stdout)
    assert figures["naive"]["fits"] is False
    assert figures["hierarchical"]["fits"] and figures["hierarchical"]["sequences"] == 39990
    assert figures["hierarchical"]["idle_mib"] <= figures["hierarchical"]["peak_mib"] < 1000


def test_pieces_are_consecutive_segments(tmp_path):
    options = ModelOptions(arch="fc", hidden_dim=8, z1_dim=2, z2_dim=3, segment_length=6)
    torch.manual_seed(0)
    model = FhvaeModel(model_config(options, 4)).eval()
    save_model(tmp_path / "model", model)
    feats = {key: np.random.default_rng(len(key)).standard_normal((size, 4)).astype(np.float32)
             for key, size in (("a", 31), ("bb", 9), ("ccc", 20))}
    specifier = save_ark(tmp_path / "feats.ark", feats)
    done = local("encode_pieces.py", "--segment-shift=5", "--num-segments=2", "--max-pieces=4", tmp_path / "model",
                 specifier, f"ark:{tmp_path}/z2.ark", f"ark:{tmp_path}/mu2.ark")
    assert "bb: left out" in done.stderr
    z2, mu2 = load_ark(tmp_path / "z2.ark"), load_ark(tmp_path / "mu2.ark")
    assert list(z2) == list(mu2) == ["a-0000", "a-0001", "a-0002", "ccc-0000"]
    for key, place in (("a-0001", 2), ("ccc-0000", 0)):
        expected = encode(model, feats[key.partition("-")[0]], 5).z2_mean[place : place + 2]
        np.testing.assert_allclose(z2[key], expected, atol=1e-5)
        np.testing.assert_allclose(mu2[key], expected.sum(0) / 2.25, atol=1e-5)


def test_sums_over_other_utterances_alone(tmp_path):
    """Against densities by scipy."""
    from scipy import special, stats

    module, rng = load("other_sequences"), np.random.default_rng(0)
    z2, mu2 = rng.standard_normal((6, 3)), rng.standard_normal((40, 3))
    own, owners = np.arange(6) % 3, rng.integers(0, 3, 40)
    found = module.log_sums(z2, own, mu2, owners, [4, 20], 0.25)
    for row in range(6):
        others = mu2[owners != own[row]]
        for place, size in enumerate((4, 20)):
            expected = special.logsumexp(stats.norm.logpdf(z2[row], others[:size], 0.5).sum(1))
            assert abs(found[place, row] - expected) < 1e-9
    pieces = {f"u{n // 5}-{n % 5:04d}": mu2[n].astype(np.float32) for n in range(40)}
    save_ark(tmp_path / "mu2.ark", pieces)
    save_ark(tmp_path / "z2.ark", {key: x[None] for key, x in pieces.items()})
    local("other_sequences.py", f"ark:{tmp_path}/z2.ark", f"ark:{tmp_path}/mu2.ark", tmp_path / "t.tsv")
    rows = rows_of(tmp_path / "t.tsv")
    assert [row["M"] for row in rows] == ["10", "35"] and float(rows[1]["mean"]) > float(rows[0]["mean"])


def test_a_kind_of_training_ends_when_it_is_too_slow_or_too_large(tmp_path):
    """The rule, on figures that are given."""
    module = load("measure_scaling")
    row = module.row_of(100, "flat", "product", {"fits": True, "step_s": 0.5}, 0.1, 10.0)
    assert row["ratio"] == 5.0 and row["end"] is None
    assert module.row_of(100, "flat", "product", {"fits": True, "step_s": 1.0}, 0.1, 10.0)["end"] == "time"
    row = module.row_of(100, "flat", "naive", {"fits": False}, 0.1, 10.0)
    assert row["end"] == "memory" and row["ratio"] is None and row["step_s"] is None
    with pytest.raises(Exception, match="2 keys, but 3 are needed"):
        (tmp_path / "keys.scp").write_text("a f:1\nb f:2\n")
        module.write_keys(tmp_path, 3, tmp_path / "out")


# ---------------------------------------------------------------------------------------------- the recipe


def test_recipe(tmp_path):
    """Tiny: every stage, the results, pictures; a second run does nothing; nonsense is told."""
    pytest.importorskip("matplotlib")
    command = [str(ROOT / "egs/fhvae_scaling/run.sh"), "--dir", str(tmp_path / "exp"), "--size", "tiny"]
    environment = forked_environment(with_torch=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    place = tmp_path / "exp"
    for name in ("table2.svg", "scaling.svg", "figure1.svg"):
        assert (place / name).read_text().rstrip().endswith("</svg>")
    with open(place / "results.csv", encoding="utf-8", newline="") as table:
        found = {(row["experiment"], row["setting"], row["name"]): row["value"] for row in csv.DictReader(table)}
    assert float(found["table2", "product K=300", "step_ms"]) > 0
    assert float(found["table2", "naive K=10", "ratio"]) == 1.0
    scaling = {row["sequences"]: row for row in rows_of(place / "scaling.tsv") if row["sampling"] == "hierarchical"}
    assert sorted(scaling, key=int) == ["100", "1000"]
    assert "figure1" in {experiment for experiment, _, _ in found}
    text = (place / "results.txt").read_text()
    words = {tuple(line.split()[:2]): line.split()[4:] for line in text.splitlines()}
    assert words["10", "product"] == ["84", "1.00"] and not words["300", "product"]  # what is published, and no more
    before = (place / "results.csv").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert again.returncode == 0 and again.stdout.count("skipped") == 8
    assert (place / "results.csv").stat().st_mtime_ns == before
    for wrong, message in ((["--size", "huge"], "expected tiny or default"), (["--model", str(place)], "go together"),
                           (["--max-sequences", "5"], "expected 100, 1000")):
        failed = subprocess.run([*command, *wrong], capture_output=True, text=True, env=environment, timeout=60)
        assert failed.returncode == 1 and message in failed.stderr
