"""Time i-vector accumulation and extraction: our programs and compute against a numpy loop over utterances.

Usage: python tests/bench/bench_ivector.py [--num-utts=825] [--num-frames=334] [--num-gauss=128]
           [--ivector-dim=100] [--dim=60] [--repeats=3]

Frames and posteriors are made up: one to four Gaussians a frame, about what --min-post=0.025 leaves. Prints
seconds of the whole programs (start-up and reading included), of the compute alone, and of the peer, the loop
that one writes first (dense posteriors, one posterior at a time), which must give the same numbers. One
thread each; the best of the repeats counts, of the peer the only one. The goals, 1.04 s to accumulate and
0.62 s to extract, are for the machine on which Kaldi takes 2.6 s and 1.24 s.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import best_time

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402
from voxark.gmm.full import FullGmm  # noqa: E402
from voxark.io.posteriors import Posteriors  # noqa: E402
from voxark.ivector.baum_welch import Blocks, Scatter  # noqa: E402
from voxark.ivector.e_step import EStep, accumulate  # noqa: E402
from voxark.ivector.extractor import ExtractorOptions, IvectorExtractor, initial_extractor  # noqa: E402
from voxark.packed import unpack_lower  # noqa: E402


def make_input(folder, options):
    """Write feats.ark, post.ark and 0.ie; return the utterances as Blocks takes them."""
    rng = np.random.default_rng(0)
    shape = options.num_gauss, options.dim
    covars = np.tile(np.eye(shape[1]), (shape[0], 1, 1))
    gmm = FullGmm(np.full(shape[0], 1 / shape[0]), 0.7 * rng.standard_normal(shape), covars)
    extractor = initial_extractor(gmm, ExtractorOptions(ivector_dim=options.ivector_dim))
    tables.write_object("ivector-extractor", f"{folder}/0.ie", extractor.to_params())
    utterances = []
    with (tables.open_writer("mat", f"ark:{folder}/feats.ark") as feats,
          tables.open_writer("post-arrays", f"ark:{folder}/post.ark") as posts):
        for u in range(options.num_utts):
            counts = rng.integers(1, 5, options.num_frames).astype(np.int32)
            first = rng.integers(0, shape[0], (options.num_frames, 1))
            index = np.sort((first + np.cumsum(rng.integers(1, 9, (options.num_frames, 4)), 1)) % shape[0], 1)
            used = np.arange(4) < counts[:, None]
            value = rng.random(index.shape) * used
            value /= value.sum(axis=1, keepdims=True)
            means = gmm.means + 0.3 * rng.standard_normal(shape[1])
            x = np.einsum("tk,tkd->td", value, means[index])
            x += rng.standard_normal(x.shape)
            post = Posteriors(counts, index[used].astype(np.int32), value[used].astype(np.float32))
            utterances.append((f"utt{u:05d}", x.astype(np.float32), post, 1.0))
            feats[utterances[-1][0]], posts[utterances[-1][0]] = utterances[-1][1], post
    return utterances


def peer(utterances, model, with_stats):
    """i-vectors (U,R), sum n_c E[ww'] (C,R,R) and the scatter (C,D,D), one utterance after the other."""
    num_gauss, dim, ivector_dim = model.t.shape
    projections = model.projections()
    quadratic = np.einsum("cdr,cds->crs", model.t, projections)
    vectors, a, b = [], np.zeros((num_gauss, ivector_dim, ivector_dim)), np.zeros(model.t.shape)
    s = np.zeros((num_gauss, dim, dim))
    for _, x, post, _ in utterances:
        gamma = np.zeros((len(x), num_gauss))
        gamma[np.repeat(np.arange(len(x)), post.counts), post.index] = post.value
        n, f = gamma.sum(axis=0), gamma.T @ x.astype(np.float64)
        f -= n[:, None] * model.means
        precision = np.eye(ivector_dim) + np.tensordot(n, quadratic, 1)
        cov = np.linalg.inv(precision)
        w = cov @ np.tensordot(projections, f, ((0, 1), (0, 1)))
        vectors.append(w)
        if with_stats:
            a += n[:, None, None] * (cov + np.outer(w, w))
            b += f[:, :, None] * w
            for c in np.flatnonzero(n):
                mine = gamma[:, c] > 0
                y = x[mine] - model.means[c]
                s[c] += (y * gamma[mine, c, None]).T @ y
    return np.array(vectors), a, s


def accumulate_ours(utterances, model):
    """IvectorStats of the utterances, as acc-ivector-stats computes them."""
    scatter = Scatter.zeros(model.num_gauss, model.dim)
    return accumulate(model, ((n, f) for _, n, f in Blocks(utterances, model, scatter)), scatter)


def extract_ours(utterances, model):
    """i-vectors (U,R), as extract-ivectors computes them."""
    step = EStep(model)
    return np.concatenate([step.means(n, f) for _, n, f in Blocks(utterances, model)])


def program(folder, name, out):
    """Return a function that runs one of our programs on the files."""
    command = [sys.executable, str(ROOT / "bin" / name), "--print-args=false", f"{folder}/0.ie",
               f"ark:{folder}/feats.ark", f"ark:{folder}/post.ark", out]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return lambda: subprocess.run(command, check=True, env=env, stderr=subprocess.DEVNULL)


def main():
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("num-utts", 825), ("num-frames", 334), ("num-gauss", 128), ("dim", 60),
                        ("ivector-dim", 100), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="voxark-") as folder:
        utterances = make_input(folder, options)
        model = IvectorExtractor.from_params(tables.read_object("ivector-extractor", f"{folder}/0.ie"))
        works = {
            "accumulate": (program(folder, "acc-ivector-stats", f"{folder}/acc"),
                           lambda: accumulate_ours(utterances, model), lambda: peer(utterances, model, True)),
            "extract": (program(folder, "extract-ivectors", f"ark:{folder}/iv"),
                        lambda: extract_ours(utterances, model), lambda: peer(utterances, model, False))}
        values = {}
        for name, (whole, compute, loop) in works.items():
            whole_time, _ = best_time(whole, options.repeats)
            compute_time, values[name] = best_time(compute, options.repeats)
            loop_time, values[name, "peer"] = best_time(loop, 1)
            size = f"{options.num_utts} x {options.num_frames} frames"
            print(f"{name:10s} {size}: program {whole_time:6.3f} s, compute {compute_time:6.3f} s, loop "
                  f"{loop_time:7.3f} s; ratios {whole_time / loop_time:.3f}, {compute_time / loop_time:.3f}")
        stats, (_, a, s) = values["accumulate"], values["accumulate", "peer"]
        errors = {"a": np.abs(unpack_lower(stats.a) - a).max() / np.abs(a).max(),
                  "s": np.abs(stats.s - s).max() / np.abs(s).max(),
                  "i-vectors": np.abs(values["extract"] - values["extract", "peer"][0]).max()}
        print("differences from it:", ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
        if max(errors.values()) > 1e-6:
            sys.exit("the results differ")


if __name__ == "__main__":
    main()
