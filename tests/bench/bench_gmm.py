"""Time an EM iteration of diagonal and full-covariance mixtures: ours and scikit-learn's, in the same run.

Usage: python tests/bench/bench_gmm.py [--diag=64,512] [--full=128] [--num-frames=100000]
           [--full-frames=20000] [--dim=60] [--repeats=3]

Prints one line a case: microseconds a frame, the ratio to scikit-learn's float32, and the GFLOP/s of our
matrix products beside those of a large float32 product (goals: at most 0.45 at 64 diagonal Gaussians; of
full ones 0.35 of Kaldi, which the last line gives an absolute figure for). One thread each; the best of the
repeats counts. Utterances have 300 frames, and our blocks never cross one.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from timing import best_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from voxark.gmm.diag import DiagGmm  # noqa: E402
from voxark.gmm.em import EmOptions, e_step, m_step  # noqa: E402
from voxark.gmm.full import FullGmm  # noqa: E402

KALDI_FRAMES = 275570  # of Kaldi's full accumulation that took 16.5 s (128 Gaussians, 60 dimensions)


def peer_iteration(x, gmm):
    """Return a function for one iteration of scikit-learn's mixture from ``gmm``, in x's precision."""
    from sklearn.mixture import GaussianMixture

    kind = "diag" if isinstance(gmm, DiagGmm) else "full"
    peer = GaussianMixture(gmm.num_gauss, covariance_type=kind, max_iter=1, reg_covar=1e-6)
    precisions = 1.0 / np.sqrt(gmm.variances) if kind == "diag" else gmm.whitening.swapaxes(1, 2)
    start = [a.astype(x.dtype) for a in (gmm.weights, gmm.means, precisions)]

    def iterate():
        peer.weights_, peer.means_, peer.precisions_cholesky_ = start
        mean_log_likelihood, log_responsibilities = peer._e_step(x)
        peer._m_step(x, log_responsibilities)
        return float(mean_log_likelihood)

    return iterate


def our_iteration(x, gmm, double):
    """Return a function that does one of our iterations from ``gmm``."""
    utterances = [(f"utt{i}", x[i : i + 300]) for i in range(0, len(x), 300)]
    offset = x.mean(axis=0, dtype=np.float64)

    def iterate():
        accs = e_step(gmm, utterances, offset, double)
        m_step(gmm, accs, EmOptions(), np.full(x.shape[1], 1e-3))
        return accs.log_likelihood / accs.num_frames

    return iterate


def product_speed():
    """GFLOP/s of a large float32 matrix product on one thread."""
    a = np.ones((1500, 1500), np.float32)
    return 2e-9 * 1500**3 / best_time(lambda: a @ a, 5)[0]


def diag_case(rng, num_gauss, dim, num_frames):
    """A diagonal mixture and frames of it."""
    means = 0.7 * rng.standard_normal((num_gauss, dim))
    gmm = DiagGmm(np.full(num_gauss, 1.0 / num_gauss), means, 0.5 + rng.random(means.shape))
    x = means[rng.integers(num_gauss, size=num_frames)].astype(np.float32)
    return gmm, x + rng.standard_normal(x.shape, dtype=np.float32)


def full_case(rng, num_gauss, dim, num_frames):
    """A mixture with full covariances and frames of it."""
    factors = np.eye(dim) + 0.3 * np.tril(rng.standard_normal((num_gauss, dim, dim)), -1) / np.sqrt(dim)
    covars = factors @ factors.swapaxes(1, 2)
    gmm = FullGmm(np.full(num_gauss, 1.0 / num_gauss), 0.7 * rng.standard_normal((num_gauss, dim)), covars)
    chosen = np.sort(rng.integers(num_gauss, size=num_frames))
    x = rng.standard_normal((num_frames, dim))
    edges = np.searchsorted(chosen, np.arange(num_gauss + 1))
    for c, (start, end) in enumerate(zip(edges, edges[1:])):
        x[start:end] = x[start:end] @ factors[c].T + gmm.means[c]
    return gmm, x[rng.permutation(num_frames)].astype(np.float32)


def compare(name, gmm, x, repeats, num_features):
    """Print a line for each way to do an iteration; return our float32 seconds."""
    iterations = {
        "float32": our_iteration(x, gmm, False), "float64": our_iteration(x, gmm, True),
        "scikit-learn float32": peer_iteration(x, gmm),
        "scikit-learn float64": peer_iteration(x.astype(np.float64), gmm)}
    results = {way: best_time(iterate, repeats) for way, iterate in iterations.items()}
    peer = results["scikit-learn float32"][0]
    gflop = 4e-9 * len(x) * gmm.num_gauss * num_features
    for way, (seconds, log_likelihood) in results.items():
        reached = "" if way.startswith("scikit") else f", {gflop / seconds:5.1f} GFLOP/s"
        print(f"{name}: {way:21s} {seconds / len(x) * 1e6:7.3f} us a frame, ratio {seconds / peer:5.3f} "
              f"(log-likelihood per frame {log_likelihood:.4f}{reached})", flush=True)
    return results["float32"][0]


def main():
    """Run the comparison for each kind of covariance and number of Gaussians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--diag", default="64,512", help="numbers of Gaussians with diagonal covariances")
    parser.add_argument("--full", default="128", help="numbers of Gaussians with full covariances")
    parser.add_argument("--num-frames", type=int, default=100000)
    parser.add_argument("--full-frames", type=int, default=20000)
    parser.add_argument("--dim", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    dim = options.dim
    print(f"a large float32 product: {product_speed():.1f} GFLOP/s")
    for num_gauss in map(int, filter(None, options.diag.split(","))):
        gmm, x = diag_case(rng, num_gauss, dim, options.num_frames)
        compare(f"diag {num_gauss:4d} x {dim}", gmm, x, options.repeats, 1 + 2 * dim)
    for num_gauss in map(int, filter(None, options.full.split(","))):
        gmm, x = full_case(rng, num_gauss, dim, options.full_frames)
        name = f"full {num_gauss:4d} x {dim}"
        seconds = compare(name, gmm, x, options.repeats, 1 + dim + dim * (dim + 1) // 2)
        print(f"{name}: {KALDI_FRAMES} frames would take {seconds / len(x) * KALDI_FRAMES:.2f} s")


if __name__ == "__main__":
    main()
