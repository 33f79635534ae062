#!/usr/bin/env python3
"""Time gmm-get-post, gmm-gselect and acc-gmm-stats as whole processes, pinned to one core.

Usage: python tests/bench/bench_select.py [--num-frames=275570] [--num-gauss=128] [--dim=60] [--n=20]
           [--repeats=5]

Features are drawn from the mixture, in utterances of 334 frames. Prints median wall-clock and processor
seconds of each program. Real Kaldi took 2.8 s for the selection and the full posteriors of the default sizes
(goal: half of that) where scikit-learn's float32 EM iteration (64 diagonal Gaussians, 60 dimensions) took
2.0 us a frame; that iteration is timed here too, in processor time, and the last line says what Kaldi would take
if it scaled alike. It judges nothing.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402
from voxark.gmm.full import FullGmm  # noqa: E402
from voxark.gmm.model import write_gmm  # noqa: E402

KALDI_SECONDS, KALDI_FRAMES = 2.8, 275570
KALDI_PEER = 2.0e-6  # seconds a frame of scikit-learn on the same machine
UTTERANCE = 334


def make_files(folder, arguments):
    """Write a full-covariance mixture and frames drawn from it."""
    rng = np.random.default_rng(0)
    num_gauss, dim = arguments.num_gauss, arguments.dim
    a = rng.standard_normal((num_gauss, dim, dim)) / np.sqrt(dim)
    covars = 0.5 * np.matmul(a, a.swapaxes(1, 2)) + 0.5 * np.eye(dim)
    means = 0.3 * rng.standard_normal((num_gauss, dim))
    gmm = FullGmm(rng.dirichlet(np.full(num_gauss, 5.0)), means, covars)
    write_gmm(f"{folder}/ubm", gmm)
    with tables.open_writer("mat", f"ark:{folder}/feats.ark") as out:
        for number, start in enumerate(range(0, arguments.num_frames, UTTERANCE)):
            size = min(UTTERANCE, arguments.num_frames - start)
            c = rng.choice(num_gauss, size, p=gmm.weights)
            x = means[c] + np.einsum("tij,tj->ti", gmm.cholesky[c], rng.standard_normal((size, dim)))
            out[f"utt{number:05d}"] = x.astype(np.float32)


def seconds(command, repeats):
    """Median wall-clock and processor seconds of a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    times, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with status {process.returncode}")
        times.append(time.perf_counter() - start)
        processor.append(usage.ru_utime + usage.ru_stime)
    return statistics.median(times), statistics.median(processor)


def peer_seconds_a_frame(num_frames=50000):
    """Processor seconds a frame of scikit-learn's EM iteration: float32, 64 diagonal Gaussians, 60-dim."""
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(1)
    x = rng.standard_normal((num_frames, 60)).astype(np.float32)
    peer = GaussianMixture(64, covariance_type="diag", max_iter=1)
    peer.weights_ = np.full(64, 1 / 64, np.float32)
    peer.means_ = rng.standard_normal((64, 60)).astype(np.float32)
    peer.precisions_cholesky_ = np.ones((64, 60), np.float32)
    times = []
    for _ in range(5):
        start = time.process_time()
        _, log_responsibilities = peer._e_step(x)
        peer._m_step(x, log_responsibilities)
        times.append(time.process_time() - start)
        peer.means_ = peer.means_.astype(np.float32)
    return min(times) / num_frames


def main():
    """Make the files, time the programs in turn, print a table."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--num-frames", type=int, default=KALDI_FRAMES)
    parser.add_argument("--num-gauss", type=int, default=128)
    parser.add_argument("--dim", type=int, default=60)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="voxark-bench-") as folder:
        make_files(folder, arguments)
        model, feats, program = f"{folder}/ubm", f"ark:{folder}/feats.ark", f"{ROOT}/bin/"
        chosen = f"{folder}/gselect"
        commands = {
            "gmm-gselect": ["gmm-gselect", f"--n={arguments.n}", model, feats, f"ark:{chosen}"],
            "gmm-get-post": ["gmm-get-post", f"--n={arguments.n}", "--min-post=0.025", model, feats,
                             f"ark:{folder}/post"],
            "acc-gmm-stats --gselect": ["acc-gmm-stats", f"--gselect=ark:{chosen}", model, feats,
                                        f"{folder}/acc"],
            "acc-gmm-stats": ["acc-gmm-stats", model, feats, f"{folder}/acc"],
        }
        results = {}
        for name, command in commands.items():
            elapsed, results[name] = seconds([program + command[0], *command[1:]], arguments.repeats)
            print(f"{name:26s} {elapsed:7.2f} s, processor {results[name]:7.2f} s, "
                  f"{1e6 * results[name] / arguments.num_frames:7.2f} us a frame")
    peer = peer_seconds_a_frame()
    kaldi = KALDI_SECONDS * arguments.num_frames / KALDI_FRAMES * peer / KALDI_PEER
    ratio = results["gmm-get-post"] / kaldi
    print(f"scikit-learn's iteration takes {1e6 * peer:.2f} us a frame here, {1e6 * KALDI_PEER:.2f} where Kaldi "
          f"ran;\nif it scales alike, Kaldi takes {kaldi:.2f} s here, and ours {ratio:.2f} x that")


if __name__ == "__main__":
    main()
