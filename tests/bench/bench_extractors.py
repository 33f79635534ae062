"""Time extractors: forward and backward of ours against speechbrain's published model code, in the same run.

Usage: python tests/bench/bench_extractors.py [--frames=300] [--batch=16] [--repeats=5] [--threads=1]
           [--archs=xvector,ecapa,resnet] [--device=cpu]

Prints examples a second of both and their ratio (above 1: ours is faster), and the sizes, which must agree to
2 %. x-vector and ECAPA-TDNN are compared with speechbrain where it can be imported, and always with the same
network written here in torch's plain layers; ResNet34 with the latter alone (speechbrain's has other widths).
Peers normalise over the batch, as published; ours once with frozen constants, its default, once over the
batch too, and once with products in bfloat16 (--precision=bf16 of train-e2e-verif). Models take turns, and the
fastest of the repeats counts.
"""

import os
import sys

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import importlib.machinery
import importlib.util
import time
import types
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark.e2e.extractors import build_extractor  # noqa: E402

INPUT_DIM = {"xvector": 24, "ecapa": 80, "resnet": 80}


def speechbrain_models():
    """Makers of speechbrain's models by architecture; {} where it is not installed."""
    if importlib.util.find_spec("speechbrain") is None:
        return {}
    if importlib.util.find_spec("torchaudio") is None:  # imported, though these models use none of it
        stub = types.ModuleType("torchaudio")
        stub.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        stub.__version__, stub.list_audio_backends = "2.1.0", lambda: ["none"]
        sys.modules["torchaudio"] = stub
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.lobes.models.Xvector import Xvector

    return {
        "xvector": lambda: Xvector(device="cpu", in_channels=24, lin_neurons=512),
        "ecapa": lambda: ECAPA_TDNN(80, channels=[512] * 4 + [1536], lin_neurons=192),
    }


class PlainXvector(nn.Module):
    """The x-vector network in nn.Conv1d and nn.BatchNorm1d."""

    def __init__(self):
        super().__init__()
        layers, dim = [], 24
        for width, dilation, out in ((5, 1, 512), (3, 2, 512), (3, 3, 512), (1, 1, 512), (1, 1, 1500)):
            layers += [nn.Conv1d(dim, out, width, dilation=dilation), nn.ReLU(), nn.BatchNorm1d(out)]
            dim = out
        self.frames, self.last = nn.Sequential(*layers), nn.Linear(3000, 512)

    def forward(self, x):
        y = self.frames(x.transpose(1, 2))
        return self.last(torch.cat([y.mean(dim=2), y.std(dim=2)], dim=1))


def _conv(dim, out, width=1, dilation=1):
    padding = dilation * (width // 2)
    return nn.Sequential(nn.Conv1d(dim, out, width, dilation=dilation, padding=padding), nn.ReLU(),
                         nn.BatchNorm1d(out))


class PlainSeRes2(nn.Module):
    """ECAPA's block in nn.Conv1d."""

    def __init__(self, dim, dilation):
        super().__init__()
        self.first, self.last = _conv(dim, dim), _conv(dim, dim)
        self.middle = nn.ModuleList(_conv(dim // 8, dim // 8, 3, dilation) for _ in range(7))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Conv1d(dim, 128, 1), nn.ReLU(),
                                  nn.Conv1d(128, dim, 1), nn.Sigmoid())

    def forward(self, x):
        parts = self.first(x).chunk(8, dim=1)
        outputs = [self.middle[0](parts[0])]
        for part, layer in zip(parts[1:7], self.middle[1:]):
            outputs.append(layer(part + outputs[-1]))
        y = self.last(torch.cat([*outputs, parts[7]], dim=1))
        return x + y * self.gate(y)


class PlainEcapa(nn.Module):
    """ECAPA-TDNN of 512 channels in nn.Conv1d, the context of the attention repeated for every frame."""

    def __init__(self):
        super().__init__()
        self.first = _conv(80, 512, 5)
        self.blocks = nn.ModuleList(PlainSeRes2(512, dilation) for dilation in (2, 3, 4))
        self.join = nn.Sequential(nn.Conv1d(1536, 1536, 1), nn.ReLU())
        self.attention = nn.Sequential(nn.Conv1d(4608, 128, 1), nn.Tanh(), nn.Conv1d(128, 1536, 1),
                                       nn.Softmax(dim=2))
        self.last = nn.Sequential(nn.BatchNorm1d(3072), nn.Linear(3072, 192))

    def forward(self, x):
        y, outputs = self.first(x.transpose(1, 2)), []
        for block in self.blocks:
            y = block(y)
            outputs.append(y)
        y = self.join(torch.cat(outputs, dim=1))
        context = [s[:, :, None].expand_as(y) for s in (y.mean(dim=2), y.std(dim=2))]
        alpha = self.attention(torch.cat([y, *context], dim=1))
        mean = (alpha * y).sum(dim=2)
        deviation = ((alpha * y * y).sum(dim=2) - mean * mean).clamp(min=1e-7).sqrt()
        return self.last(torch.cat([mean, deviation], dim=1))


class PlainBlock(nn.Module):
    """ResNet's basic block."""

    def __init__(self, dim, out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out))
        same = stride == 1 and dim == out
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(dim, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class PlainResnet(nn.Module):
    """ResNet34 of 32 to 256 channels."""

    def __init__(self):
        super().__init__()
        layers, dim = [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()], 32
        for out, count in ((32, 3), (64, 4), (128, 6), (256, 3)):
            for number in range(count):
                layers.append(PlainBlock(dim, out, 2 if number == 0 and out > 32 else 1))
                dim = out
        self.frames, self.last = nn.Sequential(*layers), nn.Linear(5120, 256)

    def forward(self, x):
        y = self.frames(x.transpose(1, 2)[:, None]).flatten(1, 2)
        return self.last(torch.cat([y.mean(dim=2), y.std(dim=2)], dim=1))


PLAIN = {"xvector": PlainXvector, "ecapa": PlainEcapa, "resnet": PlainResnet}


def models_of(arch, speechbrain):
    """Name -> model in training mode; ours are first and the peers behind them."""
    dim = INPUT_DIM[arch]
    models = {f"voxark, {norm} norm": build_extractor(arch, {"input_dim": dim, "norm": norm})
              for norm in ("frozen", "batch")}
    models["voxark, frozen norm, bf16"] = half = build_extractor(arch, {"input_dim": dim})
    half.half_products = True
    if arch in speechbrain:
        models["speechbrain"] = speechbrain[arch]()
    models["plain torch"] = PLAIN[arch]()
    return models


def step_time(model, x, device):
    """Seconds of a forward and a backward pass."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    model.zero_grad(set_to_none=True)
    model(x).square().sum().backward()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def check_sizes(arch, models):
    """The models compared must have the same number of parameters, within 2 %."""
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    print(f"{arch}: parameters " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    assert max(sizes.values()) < 1.02 * min(sizes.values()), sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--archs", default="xvector,ecapa,resnet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    speechbrain = speechbrain_models()
    if not speechbrain:
        print("speechbrain cannot be imported: plain torch is the only peer")
    for arch in args.archs.split(","):
        models = {name: model.to(args.device).train() for name, model in models_of(arch, speechbrain).items()}
        check_sizes(arch, models)
        x = torch.randn(args.batch, args.frames, INPUT_DIM[arch], device=args.device)
        best = dict.fromkeys(models, float("inf"))
        for repeat in range(args.repeats + 1):  # the first round warms up
            for name, model in models.items():
                seconds = step_time(model, x, args.device)
                best[name] = min(best[name], seconds) if repeat else best[name]
        ours = args.batch / best["voxark, frozen norm"]
        for name, seconds in best.items():
            rate = args.batch / seconds
            print(f"{arch}: {name}: {rate:.2f} examples/s" + (f"; ours is {ours / rate:.2f} times as fast"
                                                               if not name.startswith("voxark") else ""))


if __name__ == "__main__":
    main()
