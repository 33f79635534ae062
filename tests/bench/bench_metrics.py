#!/usr/bin/env python3
"""Time the error rates of many scores in memory and in a file on one core, against scikit-learn and sorting.

Usage: python tests/bench/bench_metrics.py [--num-scores=25000000] [--eer=0.05] [--repeats=3]
           [--num-spilled=0] [--skip-peer]

Scores are normal, a tenth of them targets. Prints wall-clock and processor seconds of the best repeat and
peak memory, each in a process of its own: the EER alone, all measures, 1,000 bootstrap replicates of 50,000
trials, with --num-spilled all measures of so many scores by way of a temporary file, two sorts by numpy,
scikit-learn's roc_curve; and the ratios to the last. It judges nothing.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark.metrics import Roc  # noqa: E402
from voxark.metrics.selection import ScoreSpill  # noqa: E402


def make_scores(number, eer, dtype=np.float64):
    """Normal scores of both classes whose equal error rate is ``eer``."""
    rng = np.random.default_rng(0)
    shift = -2.0 * statistics.NormalDist().inv_cdf(eer)
    target = rng.standard_normal(number // 10, dtype) + dtype(shift)
    return target, rng.standard_normal(number - number // 10, dtype)


def all_measures(roc):
    return roc.eer()[0], roc.min_dcf()[0], roc.act_dcf(), roc.cllr(), roc.min_cllr()


def eer_alone(arguments, dtype=np.float64):
    scores = make_scores(arguments.num_scores, arguments.eer, dtype)
    return lambda: Roc(*scores).eer()


def everything(arguments):
    scores = make_scores(arguments.num_scores, arguments.eer)
    return lambda: all_measures(Roc(*scores))


def bootstrap(arguments):
    rng, roc = np.random.default_rng(1), Roc(*make_scores(50_000, arguments.eer))
    weights = [(rng.poisson(1, 5_000), rng.poisson(1, 45_000)) for _ in range(100)]

    def run():
        for replicate in range(1000):
            of_trials = roc.reweighted(*weights[replicate % 100])
            of_trials.eer(), of_trials.min_dcf(), of_trials.act_dcf()

    return run


def spilled(arguments):
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal(1_000_000) for _ in range(8)]
    target = rng.random(1_000_000) < 0.1

    def run():
        with ScoreSpill() as spill:
            for number in range(arguments.num_spilled // 1_000_000):
                spill.add(blocks[number % 8] + 3.3 * target + 1e-6 * number, target)
            return all_measures(spill.measures())

    return run


def two_sorts(arguments):
    scores = make_scores(arguments.num_scores, arguments.eer)
    return lambda: [np.sort(side) for side in scores]


def scikit_learn(arguments):
    from sklearn.metrics import roc_curve

    scores = make_scores(arguments.num_scores, arguments.eer)
    truth = np.repeat(np.array([1, 0], np.int8), list(map(len, scores)))
    pooled = np.concatenate(scores)
    return lambda: roc_curve(truth, pooled, drop_intermediate=False)[0][0]


WORK = {
    "EER alone": eer_alone,
    "EER alone, float32": lambda arguments: eer_alone(arguments, np.float32),
    "EER, minDCF, actDCF, Cllr, minCllr": everything,
    "1,000 replicates of 50,000 trials": bootstrap,
    "all measures through a file": spilled,
    "two numpy sorts": two_sorts,
    "scikit-learn's roc_curve": scikit_learn,
}


def measure(name, arguments):
    """Time one piece of work in this process: prints wall-clock, processor seconds and peak megabytes."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work, times = WORK[name](arguments), []
    for _ in range(arguments.repeats):
        start = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    print(*min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    """Run each piece of work in a process of its own, so that its peak memory is its own."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--num-scores", type=int, default=25_000_000)
    parser.add_argument("--eer", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--num-spilled", type=int, default=0)
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        measure(arguments.only, arguments)
        return
    found = {}
    for name in WORK:
        if (name == "scikit-learn's roc_curve" and arguments.skip_peer) or (
            WORK[name] is spilled and not arguments.num_spilled
        ):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        wall, processor, peak = found[name] = tuple(map(float, answer.stdout.split()))
        print(f"{name:36s} {wall:7.3f} s, processor {processor:7.3f} s, peak {peak:6.0f} MB", flush=True)
    peer = found.get("scikit-learn's roc_curve")
    if peer:
        for name in ("EER alone", "EER alone, float32", "EER, minDCF, actDCF, Cllr, minCllr"):
            print(f"{name}: {found[name][1] / peer[1]:.4f} x scikit-learn's processor time")


if __name__ == "__main__":
    main()
