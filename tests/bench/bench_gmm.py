"""Time one EM iteration of a diagonal mixture: ours against scikit-learn's float32, in the same run.

Usage: python tests/bench/bench_gmm.py [--num-frames=200000] [--dim=60] [--num-gauss=64,512] [--repeats=3]

Prints one line a size: microseconds a frame and the ratio (the goal is at most 0.45 at 64 Gaussians).
One thread each; the best of the repeats counts. Utterances have 300 frames, and our blocks never cross one.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from voxark.gmm.diag import DiagGmm  # noqa: E402
from voxark.gmm.em import EmOptions, e_step, m_step  # noqa: E402


def peer_iteration(x, gmm):
    """Return a function for one iteration of scikit-learn's GaussianMixture from ``gmm``, in float32."""
    from sklearn.mixture import GaussianMixture

    peer = GaussianMixture(gmm.num_gauss, covariance_type="diag", max_iter=1, reg_covar=1e-6)
    peer.weights_, peer.means_ = (a.astype(np.float32) for a in (gmm.weights, gmm.means))
    peer.precisions_cholesky_ = (1.0 / np.sqrt(gmm.variances)).astype(np.float32)
    start = peer.weights_, peer.means_, peer.precisions_cholesky_

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


def best_time(iterate, repeats):
    """Return (seconds of the fastest of ``repeats`` calls, its value)."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = iterate()
        times.append(time.perf_counter() - start)
    return min(times), value


def main():
    """Run the comparison for each number of Gaussians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-frames", type=int, default=200000)
    parser.add_argument("--dim", type=int, default=60)
    parser.add_argument("--num-gauss", default="64,512")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    for num_gauss in map(int, options.num_gauss.split(",")):
        means = 0.7 * rng.standard_normal((num_gauss, options.dim))
        gmm = DiagGmm(np.full(num_gauss, 1.0 / num_gauss), means, 0.5 + rng.random(means.shape))
        x = means[rng.integers(num_gauss, size=options.num_frames)].astype(np.float32)
        x += rng.standard_normal(x.shape, dtype=np.float32)
        iterations = {
            "float32": our_iteration(x, gmm, False), "float64": our_iteration(x, gmm, True),
            "scikit-learn float32": peer_iteration(x, gmm)}
        results = {name: best_time(iterate, options.repeats) for name, iterate in iterations.items()}
        peer = results["scikit-learn float32"][0]
        for name, (seconds, log_likelihood) in results.items():
            print(f"{num_gauss:5d} Gaussians, {options.dim} dimensions: {name:21s} "
                  f"{seconds / options.num_frames * 1e6:7.3f} us a frame, ratio {seconds / peer:5.3f} "
                  f"(log-likelihood per frame {log_likelihood:.4f})")


if __name__ == "__main__":
    main()
