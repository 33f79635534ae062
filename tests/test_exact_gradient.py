"""Exact gradients in bounded memory: against the plain way, with dropout, mixed lengths, several workers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exact_gradient_workers import DIM, NUM_SPEAKERS, LazyBatch, Network  # noqa: E402
from helpers import environment  # noqa: E402
from torch import nn  # noqa: E402

from voxark.e2e.exact_gradient import assign_chunks, exact_step, plain_step, plan_chunks, verify  # noqa: E402
from voxark.e2e.losses import triplet_loss  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402
from voxark.nnet import distributed  # noqa: E402

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
LENGTHS = [9, 12, 9, 30, 12, 9, 17, 9, 12, 30, 9]


def network(dtype=torch.float64, dropout=0.0, **options):
    torch.manual_seed(0)
    return Network(dropout, **options).to(dtype)


def batch(dtype=torch.float64, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(length, DIM, generator=generator, dtype=torch.float64).to(dtype) for length in lengths]
    return x, torch.arange(len(x)) % NUM_SPEAKERS


def gradients(model):
    found = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


def largest_difference(found, expected):
    """Relative to a parameter's largest; some are 0 but for rounding, where only differences are scored."""
    floor = 1e-3 * max(float(b.abs().max()) for b in expected)
    return max(float((a - b).abs().max()) / max(float(b.abs().max()), floor) for a, b in zip(found, expected))


# ------------------------------------------------------------------------------------------ one worker


@pytest.mark.parametrize(
    "kind, head", [("dplda", "softmax"), ("diagonal", "am"), ("cosine", "aam"), ("snyder", "aam")]
)
def test_gradients_are_those_of_one_graph_made_by_hand(kind, head):
    model = network(kind=kind, head=head)
    x, speakers = batch()
    step = exact_step(model, x, model.loss_of(speakers), max_frames=30)
    found = gradients(model)
    embeddings = torch.cat(
        [model.extractor(one[None]) for one in x]
    )  # each utterance by itself, all in one graph
    loss, identification = model.loss_of(speakers)(embeddings)
    loss.backward()
    assert largest_difference(found, gradients(model)) < 1e-12
    assert step.num_chunks > 4 and step.finite and abs(step.loss - loss.item()) < 1e-14
    assert abs(step.extra - identification) < 1e-14
    torch.testing.assert_close(step.embeddings, embeddings.detach(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_dropout_is_replayed(dtype, bound, seed):
    model = network(dtype, dropout=0.3)
    x, speakers = batch(dtype)
    torch.manual_seed(5)
    assert verify(model, x, model.loss_of(speakers), max_frames=40, seed=seed) < bound
    loss = model.loss_of(speakers)
    outcomes = []
    for step in (exact_step, plain_step):
        torch.manual_seed(5)
        value = step(model, x, loss, max_frames=40, seed=seed).loss
        outcomes.append((value, torch.rand(1).item(), gradients(model)))
    assert outcomes[0][:2] == outcomes[1][:2]  # the random numbers that follow are the same too
    other = exact_step(model, x, loss, max_frames=40, seed=None if seed is None else 8).loss
    assert other != outcomes[0][0] and gradients(model)[0] is not None


def test_random_numbers_of_a_seed_come_from_it_and_the_keys_alone():
    model = network(dropout=0.3)
    x, speakers = batch()
    values = []
    for state, keys in ((1, None), (2, None), (1, "abcdefghijk"), (1, "abcdefghijl")):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        values.append(exact_step(model, x, model.loss_of(speakers), seed=3, keys=keys, max_frames=40).loss)
        assert torch.equal(before, torch.get_rng_state())
    assert values[0] == values[1] and len(set(values)) == 3


def test_gradients_are_added_and_verify_leaves_everything():
    model = network(dropout=0.3)
    x, speakers = batch()
    loss = model.loss_of(speakers)
    exact_step(model, x, loss, seed=1, max_frames=40)
    once = [p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    assert 0.0 <= verify(model, x, loss, seed=1, max_frames=40) < 1e-12
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), once))
    exact_step(model, x, loss, seed=1, max_frames=40)
    assert largest_difference(gradients(model), [2 * g for g in once]) < 1e-13


def test_verify_sees_a_wrong_gradient(monkeypatch):
    from voxark.e2e import exact_gradient

    model, (x, speakers) = network(), batch()
    correct = exact_gradient._second_pass
    monkeypatch.setattr(exact_gradient, "_second_pass", lambda b, mine, e, g: correct(b, mine, e, g * 1.01))
    assert 0.009 < verify(model, x, model.loss_of(speakers), max_frames=30) < 0.011


def test_a_tensor_of_one_length_and_losses_with_an_extractor_alone():
    model = network()
    x, speakers = batch(lengths=[15] * 10)
    x = torch.stack(x)
    assert verify(model, x, model.loss_of(speakers), max_examples=3) < 1e-12
    assert verify(model.extractor, x, lambda e: triplet_loss(e, speakers), max_examples=3) < 1e-12
    step = exact_step(model, x, model.loss_of(speakers))
    assert step.num_chunks == 1  # one pass
    scorer = list(model.scorer.parameters())
    target = speakers[:, None] == speakers
    assert (
        verify(
            model.extractor,
            x,
            lambda e: torch.where(target, -1.0, 1.0).mul(model.scorer(e)).sum(),
            outer=scorer,
            max_examples=3,
        )
        < 1e-12
    )


def test_a_frozen_extractor_trains_the_rest():
    model = network()
    model.extractor.requires_grad_(False)
    x, speakers = batch()
    assert verify(model, x, model.loss_of(speakers), max_frames=30) < 1e-12
    exact_step(model, x, model.loss_of(speakers), max_frames=30)
    assert all(p.grad is None for p in model.extractor.parameters())
    assert all(p.grad is not None for p in model.scorer.parameters())


def test_a_loss_on_the_parameters_themselves_counts_once():
    model = network()
    x, speakers = batch()
    first, weight = model.loss_of(speakers), model.extractor[-1].weight
    assert verify(model, x, lambda e: first(e)[0] + 0.1 * weight.square().sum(), max_frames=30) < 1e-12


def test_an_infinite_loss_leaves_gradients_alone():
    model = network()
    x, speakers = batch()
    x[3][4, 2] = np.inf
    step = exact_step(model, x, model.loss_of(speakers), max_frames=30)
    assert not step.finite and all(p.grad is None for p in model.parameters())
    with pytest.raises(VoxarkError, match="not finite"):
        verify(model, x, model.loss_of(speakers), max_frames=30)


def test_what_mixes_utterances_or_changes_is_refused():
    x, speakers = batch()
    model = network()
    model.extractor.insert(5, nn.BatchNorm1d(32).double())
    with pytest.raises(VoxarkError, match="^5: batch normalisation in training mode mixes the utterances"):
        exact_step(model, x, model.loss_of(speakers))
    model.eval()
    assert verify(model, x, model.loss_of(speakers), max_frames=30) < 1e-12
    model.extractor[5] = nn.BatchNorm1d(32, track_running_stats=False).double().eval()
    with pytest.raises(VoxarkError, match="batch normalisation"):
        exact_step(model, x, model.loss_of(speakers))

    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.from_numpy(np.random.default_rng().standard_normal(x.shape))

    model = network()
    model.extractor.insert(5, Noise())
    with pytest.raises(VoxarkError, match="embeddings differ by .* when they are computed again"):
        exact_step(model, x, model.loss_of(speakers), max_frames=30)
    with pytest.raises(VoxarkError, match="a batch of 11 utterances with 2 keys"):
        exact_step(network(), x, model.loss_of(speakers), keys=["a", "b"])


class Saved:
    """A tensor that a graph holds, counted while it does."""

    now = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Saved.now += tensor.nbytes
        Saved.peak = max(Saved.peak, Saved.now)

    def __del__(self):
        Saved.now -= self.tensor.nbytes


def peak_of_graphs(step, num_utts):
    model, x = network(), torch.randn(num_utts, 50, DIM, dtype=torch.float64)
    Saved.now = Saved.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        step(model, x, lambda e: e.square().sum(), max_examples=4)
    return Saved.peak


def test_graphs_do_not_grow_with_the_number_of_utterances():
    exact = [peak_of_graphs(exact_step, number) for number in (8, 64)]
    plain = [peak_of_graphs(plain_step, number) for number in (8, 64)]
    assert plain[1] > 7 * plain[0] and exact[1] < 1.1 * exact[0] and exact[0] < 0.6 * plain[0]


def test_plans():
    chunks = plan_chunks(LENGTHS, 30, 3)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(LENGTHS)))
    assert chunks == [[0, 2, 5], [7, 10], [1, 4], [8], [3], [9], [6]]
    assert plan_chunks([500, 500], 30) == [[0], [1]] and plan_chunks([10] * 5, 1000, 2) == [
        [0, 1],
        [2, 3],
        [4],
    ]
    owner = assign_chunks(chunks, LENGTHS, 3)
    frames = [
        sum(LENGTHS[i] for c, chunk in enumerate(chunks) if owner[c] == w for i in chunk) for w in range(3)
    ]
    assert sum(frames) == sum(LENGTHS) and max(frames) - min(frames) <= 30
    assert assign_chunks(chunks, LENGTHS, 1) == [0] * len(chunks)
    assert set(assign_chunks(chunks[:2], LENGTHS, 4)) == {0, 1}  # two workers have nothing to do


def test_a_lazy_batch_is_read_twice_and_no_more():
    model = network(torch.float32)
    lazy = LazyBatch(0)
    asked = []
    read, lazy_type = lazy.__getitem__, type(lazy)

    class Counting(lazy_type):
        def __getitem__(self, u):
            asked.append(u)
            return read(u)

    counting = Counting(0)
    exact_step(model, counting, model.loss_of(lazy.speakers), lengths=lazy.lengths, max_frames=40)
    assert sorted(asked) == sorted(2 * list(range(24)))


# ------------------------------------------------------------------------------------------ several workers


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What 1, 2 (by torchrun) and 4 workers made of the same training."""
    out = str(tmp_path_factory.mktemp("workers") / "out")
    script, port = str(HERE / "exact_gradient_workers.py"), str(free_port())
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-addr=127.0.0.1",
        f"--master-port={free_port()}",
    ]
    env = environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        env.pop(variable, None)
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in ([sys.executable, script, out, port], [*launch, script, out])
    ]
    for process in processes:
        output = process.communicate(timeout=120)[0].decode()
        assert process.returncode == 0, output
    return {size: torch.load(f"{out}-{size}.pt", weights_only=True) for size in (1, 2, 4)}


def difference(a, b):
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_any_number_of_workers_gives_the_same_parameters(trained):
    torch.manual_seed(0)
    start = Network().state_dict()
    one = trained[1]["parameters"]
    assert difference(one, start) > 0.01  # twenty steps of Adam
    for size in (2, 4):
        assert difference(one, trained[size]["parameters"]) < 1e-5
        np.testing.assert_allclose(trained[size]["losses"], trained[1]["losses"], rtol=1e-4)
        assert trained[size]["pushed"] == trained[1]["pushed"]
    assert trained[1]["pushed"] > 0 and trained[1]["losses"][-1] < 0.9 * trained[1]["losses"][0]


def test_each_worker_reads_its_own_utterances_alone(trained):
    assert trained[1]["asked"] == trained[2]["total"] == trained[4]["total"] == 20 * 24
    for size in (2, 4):
        assert 0.7 * 480 / size < trained[size]["asked"] < 1.3 * 480 / size


def test_one_worker_needs_no_torchrun_and_a_wrong_environment_is_explained(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.init() == (0, 1, torch.device("cpu"))
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.any_worker(True) and not distributed.any_worker(False)
    assert distributed.largest(3) == distributed.total(3) == 3
    rows = torch.randn(2, 3)
    torch.testing.assert_close(distributed.gather_rows(rows, torch.tensor([2, 0]), 3)[[2, 0]], rows)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        VoxarkError, match="WORLD_SIZE=2, but RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"
    ):
        distributed.init()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(VoxarkError, match="WORLD_SIZE='two' in the environment: a number is expected"):
        distributed.init()
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(VoxarkError, match="expected cpu, cuda or cuda:N"):
        distributed.init("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(VoxarkError, match="finds no CUDA device here"):
            distributed.init("cuda")
    assert os.environ.get("RANK") is None
