#!/usr/bin/env python3
"""Peak memory and time of a step on all pairs of N chunks: exact gradients in two passes, the plain way.

A TDNN with statistics pooling, DPLDA scores and the verification loss in float64; N chunks of a fixed length,
made when they are asked for, so that features take no memory. Every row is a process of its own, whose peak
is VmHWM less that of a process that has imported torch. The plain way is left out where twice its last peak
is above the limit.

Usage: python tests/bench/bench_exact_gradient.py [--sizes=64,128,...,4096] [--frames=200] [--limit=6000]
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
DIM = 40


def peak_mib():
    """Largest resident size so far of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    sys.exit("/proc/self/status has no VmHWM: this needs Linux")


class Chunks:
    """N chunks (T,40) of noise, made when they are asked for."""

    def __init__(self, size, frames):
        self.size, self.frames = size, frames

    def __getitem__(self, index):
        import torch

        return torch.randn(self.frames, DIM, generator=torch.Generator().manual_seed(index))


def one_step(way, size, frames):
    """Take one step; print its peak (MiB), that before it, seconds, and a digest of the gradient."""
    import torch
    from torch import nn

    from voxark.e2e.exact_gradient import exact_step, plain_step
    from voxark.e2e.losses import all_pairs, verification_loss
    from voxark.e2e.scorers import DpldaScorer
    from voxark.nnet.layers import StatisticsPooling, TdnnLayer

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                TdnnLayer(DIM, 128, (-2, -1, 0, 1, 2)),
                TdnnLayer(128, 128, (-2, 0, 2)),
                TdnnLayer(128, 384),
                StatisticsPooling(),
                nn.Linear(768, 128),
            )

        def forward(self, x):
            return self.layers(x.transpose(1, 2))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, scorer = Network(), DpldaScorer(128)
    target, mask = all_pairs(torch.arange(size) % (size // 8))
    one_pass = torch.randn(2, frames, DIM)
    network(one_pass).sum().backward()  # what the libraries take the first time
    network.zero_grad()
    before, started = peak_mib(), time.perf_counter()
    step = {"exact": exact_step, "plain": plain_step}[way]
    step(
        network,
        Chunks(size, frames),
        lambda x: verification_loss(scorer(x), target, mask=mask),
        lengths=[frames] * size,
        outer=list(scorer.parameters()),
        max_frames=6400,
    )
    seconds = time.perf_counter() - started
    norm = sum(float(p.grad.double().square().sum()) for p in network.parameters()) ** 0.5
    print(peak_mib() - before, seconds, norm)


def child(way, size, frames):
    """Run one_step in a process of its own; returns (MiB, seconds, norm of the gradient)."""
    command = [sys.executable, __file__, "--child", way, f"--sizes={size}", f"--frames={frames}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} with N={size} ended with status {done.returncode}:\n{done.stderr}")
    return [float(field) for field in done.stdout.split()]


def main():
    """Print a table, a row for each N."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="64,128,256,512,1024,2048,4096")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--limit", type=float, default=6000.0, help="MiB that the plain way may take")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.child:
        return one_step(options.child, sizes[0], options.frames)
    print(f"{'N':>6} {'trials':>9}   exact: MiB       s   plain: MiB       s   gradients' norms differ by")
    last = None
    for size in sizes:
        memory, seconds, norm = child("exact", size, options.frames)
        line = f"{size:6d} {size * (size - 1) // 2:9d} {memory:12.0f} {seconds:7.1f}"
        if last is None or last[1] * (size / last[0]) <= options.limit:
            peak, plain_seconds, plain_norm = child("plain", size, options.frames)
            last = size, peak
            line += f" {peak:12.0f} {plain_seconds:7.1f}   {abs(norm - plain_norm) / plain_norm:.1e}"
        else:
            line += f"   more than {options.limit:.0f}, not run"
        print(line, flush=True)
    return None


if __name__ == "__main__":
    main()
