"""Time optimiser steps of an FHVAE: ours, in float32 and bf16, against a plain peer in torch, in the same run.

Usage: python tests/bench/bench_fhvae.py [--sequences=1000] [--rounds=9] [--threads=1] [--device=cpu]
           [--hidden-dim=256]

256 segments of 20 frames x 80 features, two LSTMs of 256 cells in all three networks. The peer is written as such
models usually are in torch: an nn.LSTM for each network with a zero-initialised second bias that is trained too,
the latent variables repeated for every frame, differences of segments and sequences as one (256, K, 32) tensor,
torch's Adam as it comes. It is also timed with a matrix product in place of the differences. Ours is the training's
own step, clipping and the test for finite values included. Models take turns; the median counts, of processor time
on a CPU (all threads) and of seconds by the clock on a GPU. Last, ours at K = 20,000 over K = 10.
"""

import os
import sys

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import math
import statistics
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "local/fhvae_scaling")]

from step_times import Case, clock_of  # noqa: E402
from voxark.fhvae.model import FhvaeModel, model_config  # noqa: E402
from voxark.fhvae.options import (  # noqa: E402
    DevOptions,
    InputOptions,
    ModelOptions,
    OptimizerOptions,
    Options,
    RunOptions,
    SamplingOptions,
)
from voxark.nnet import distributed  # noqa: E402

FRAMES, FEATURES, SEGMENTS, LATENT = 20, 80, 256, 32


class PlainNetwork(nn.Module):
    """LSTMs, and two affine layers for mean and logarithm of the variance."""

    def __init__(self, dim, hidden, out, all_frames):
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, 2, batch_first=True)
        self.all_frames = all_frames
        size = hidden if all_frames else 2 * hidden
        self.mean, self.logvar = nn.Linear(size, out), nn.Linear(size, out)

    def forward(self, x):
        y, (last, _) = self.lstm(x)
        y = y if self.all_frames else last.transpose(0, 1).flatten(1)
        return self.mean(y), self.logvar(y)


class Plain(nn.Module):
    """The peer: everything of a step in one module; ``by_product``: logits by a matrix product."""

    def __init__(self, num_sequences, hidden, by_product):
        super().__init__()
        self.z2 = PlainNetwork(FEATURES, hidden, LATENT, False)
        self.z1 = PlainNetwork(FEATURES + LATENT, hidden, LATENT, False)
        self.x = PlainNetwork(2 * LATENT, hidden, FEATURES, True)
        self.table = nn.Embedding(num_sequences, LATENT)
        self.by_product = by_product

    @staticmethod
    def _sample(mean, logvar):
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    @staticmethod
    def _kl(mean, logvar, prior, var):
        return 0.5 * (math.log(var) - logvar + (logvar.exp() + (mean - prior) ** 2) / var - 1).sum(1)

    def _logits(self, z):
        mu = self.table.weight
        if self.by_product:
            return (z @ mu.t() - 0.5 * (mu**2).sum(1)) / 0.25
        return -((z.unsqueeze(1) - mu.unsqueeze(0)) ** 2).sum(2) / (2 * 0.25)

    def forward(self, x, rows, num_segments):
        """The loss of segments x (B,L,F)."""
        mu2 = self.table(rows)
        q2 = self.z2(x)
        z2 = self._sample(*q2)
        q1 = self.z1(torch.cat([x, z2.unsqueeze(1).expand(-1, FRAMES, -1)], 2))
        z1 = self._sample(*q1)
        mean, logvar = self.x(torch.cat([z1, z2], 1).unsqueeze(1).expand(-1, FRAMES, -1))
        log_px = -0.5 * (math.log(2 * math.pi) + logvar + (x - mean) ** 2 / logvar.exp()).sum((1, 2))
        log_pmu2 = -0.5 * (math.log(2 * math.pi) + mu2**2).sum(1)
        bound = log_px - self._kl(*q1, 0.0, 1.0) - self._kl(*q2, mu2, 0.25) + log_pmu2 / num_segments
        return -bound.mean() + 10 * nn.functional.cross_entropy(self._logits(q2[0]), rows)


class PlainCase:
    """Steps of the peer, with ``times`` as Case has them."""

    def __init__(self, size, hidden, by_product, device):
        torch.manual_seed(0)
        self.model, self.times = Plain(size, hidden, by_product).to(device), []
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, betas=(0.95, 0.999))
        self.rows = torch.randint(0, size, (SEGMENTS,), generator=torch.Generator().manual_seed(1)).to(device)

    def step(self, x, clock):
        x = x.transpose(0, 1).contiguous()
        began = clock()
        self.optimizer.zero_grad()
        self.model(x, self.rows, torch.full((SEGMENTS,), 10.0, device=x.device)).backward()
        self.optimizer.step()
        return clock() - began


def ours(size, hidden, precision, workers):
    """Steps of voxark's training with K = size."""
    options = Options(ModelOptions(hidden_dim=hidden), SamplingOptions(segment_batch_size=SEGMENTS), DevOptions(),
                      OptimizerOptions(precision=precision), InputOptions(), RunOptions())
    torch.manual_seed(0)
    model = FhvaeModel(model_config(options.model, FEATURES)).to(workers.device)
    return Case("product", size, model, options, workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden-dim", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    workers, size, hidden = distributed.init(args.device), args.sequences, args.hidden_dim
    cases = {
        f"voxark, float32, K = {size}": ours(size, hidden, "float32", workers),
        f"voxark, bf16, K = {size}": ours(size, hidden, "bf16", workers),
        f"plain torch, differences, K = {size}": PlainCase(size, hidden, False, workers.device),
        f"plain torch, matrix product, K = {size}": PlainCase(size, hidden, True, workers.device),
        "voxark, float32, K = 10": ours(10, hidden, "float32", workers),
        "voxark, float32, K = 20000": ours(20000, hidden, "float32", workers),
    }
    x = torch.randn(FRAMES, SEGMENTS, FEATURES, device=workers.device)
    for number in range(args.rounds + 1):  # the first round warms up
        for case in cases.values():
            seconds = case.step(x, clock_of(workers.device))
            if number:
                case.times.append(seconds)
    reference, *_ = cases.values()
    for name, case in cases.items():
        ratio = statistics.median(a / b for a, b in zip(case.times, reference.times, strict=True))
        print(f"{name}: {1000 * statistics.median(case.times):.0f} ms a step, {ratio:.2f} of ours in float32")
    small, large = list(cases.values())[-2:]
    ratio = statistics.median(a / b for a, b in zip(large.times, small.times, strict=True))
    print(f"K = 20000 over K = 10: {ratio:.3f}")


if __name__ == "__main__":
    main()
