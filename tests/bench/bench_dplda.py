"""Time the DPLDA loss and gradient of all pairs: ours against torch autograd and a loop, in the same run.

Usage: python tests/bench/bench_dplda.py [--sizes=825x40,5000x40,5000x200] [--repeats=3] [--peer-memory=6]

For N vectors of D dimensions: seconds of one evaluation of loss and gradient in float64, one thread, and the
peak memory that it adds. torch's is the plain way, N x N scores at once with
signs and weights made beforehand, left out where they would take more
than --peer-memory gigabytes; the loop goes over single pairs, timed on some rows and scaled. All must agree.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from timing import best_time

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark.backend.dplda import Dplda  # noqa: E402
from voxark.backend.dplda_objective import Pairs, verification_loss  # noqa: E402

VECTORS_PER_SPEAKER = 11
LOOP_ROWS = 10


def torch_step(model, x, labels):
    """A function that returns (loss, gradient of Lambda) by autograd on all scores at once."""
    import torch

    torch.set_num_threads(1)
    e, numbers = torch.from_numpy(x), torch.from_numpy(labels)
    target = numbers[:, None] == numbers
    of_target, of_other = (
        0.5 / np.log(2.0) / int(number) for number in (target.sum() - len(e), (~target).sum())
    )
    weight = torch.full(target.shape, of_other, dtype=torch.float64).masked_fill_(target, of_target)
    weight.fill_diagonal_(0.0)
    sign = torch.where(target, -1.0, 1.0).double()
    parts = [torch.tensor(np.asarray(part)) for part in (model.lam, model.gamma, model.c, model.k)]

    def step():
        lam, gamma, c, k = (part.requires_grad_() for part in parts)
        for part in parts:
            part.grad = None
        g = ((e @ gamma) * e).sum(1) + e @ c
        s = 2 * (e @ lam) @ e.T + g[:, None] + g + k
        loss = (weight * torch.nn.functional.softplus(sign * s)).sum()
        loss.backward()
        return loss.item(), (lam.grad + lam.grad.T).numpy() / 2

    return step


def loop_seconds(model, x, labels):
    """Seconds of a loop over all pairs, from some rows: score, cost and gradient of Lambda."""
    gradient, start = np.zeros_like(model.lam), time.perf_counter()
    for i in range(LOOP_ROWS):
        for j in range(len(x)):
            s = 2 * x[i] @ model.lam @ x[j] + x[i] @ model.gamma @ x[i] + x[j] @ model.gamma @ x[j]
            s += (x[i] + x[j]) @ model.c + model.k
            sign = -1.0 if labels[i] == labels[j] else 1.0
            gradient += sign / (1.0 + np.exp(-sign * s)) * np.outer(x[i], x[j])
    return (time.perf_counter() - start) * len(x) / 2 / LOOP_ROWS


def peak_bytes(step):
    """Peak of the memory that numpy takes in a call."""
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def compare(number, dim, repeats, peer_memory):
    """Print the lines of one size."""
    rng = np.random.default_rng(0)
    labels = np.arange(number) // VECTORS_PER_SPEAKER
    x = rng.standard_normal((labels[-1] + 1, dim))[labels] + rng.standard_normal((number, dim))
    unit = np.eye(dim) / dim
    model = Dplda(2 * unit, -unit, rng.standard_normal(dim) / dim, 0.5)
    pairs = Pairs.of_speakers(labels)
    seconds, (value, gradient) = best_time(lambda: verification_loss(model, pairs, x), repeats)
    memory = peak_bytes(lambda: verification_loss(model, pairs, x))
    print(f"N = {number}, D = {dim}: ours {seconds:.4f} s, {memory / 2**20:.0f} MiB", flush=True)
    loop = loop_seconds(model, x, labels)
    print(f"  loop over pairs        {loop:10.1f} s, ours is {loop / seconds:.0f} times as fast")
    needed = 10 * 8 * number**2 / 2**30  # autograd keeps about so many arrays of all scores
    if needed > peer_memory:
        print(f"  torch, all at once: left out, it would take about {needed:.0f} GiB")
        return
    torch_seconds, (torch_value, torch_gradient) = best_time(torch_step(model, x, labels), repeats)
    assert abs(value - torch_value) < 1e-10 * value, (value, torch_value)
    np.testing.assert_allclose(gradient.lam, torch_gradient, rtol=1e-8, atol=1e-12)
    print(
        f"  torch, all at once   {torch_seconds:12.4f} s, ours is {torch_seconds / seconds:.1f} times as fast"
    )


def main():
    """Run the sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="825x40,825x200,5000x40,5000x200,20000x40,20000x200")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-memory", type=float, default=6.0)
    options = parser.parse_args()
    for size in options.sizes.split(","):
        compare(*map(int, size.split("x")), options.repeats, options.peer_memory)


if __name__ == "__main__":
    main()
