"""Time PLDA training: ours against the same EM written speaker by speaker with numpy, in the same run.

Usage: python tests/bench/bench_plda.py [--dim=200] [--num-speakers=2000] [--vectors=20] [--repeats=3]

Prints seconds and ratios to the peer: our statistics and iterations, the reading of the archive, and the
whole process train-plda from start to exit (goal: 0.65 of Kaldi's, which took 0.78 s where speechbrain's loop
took 8 s). Both run the same number of iterations from the same start and must reach the same likelihood. One
thread; the best of the repeats counts. A second case has unequal numbers of vectors.
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
from voxark.backend.class_stats import accumulate  # noqa: E402
from voxark.backend.plda_em import SpeakerGroups, e_step, m_step, start_kaldi  # noqa: E402
from voxark.backend.vector_table import collect_vectors  # noqa: E402

ITERATIONS = 10


def peer_training(x, labels):
    """EM as the formulas stand, a loop over speakers with an inverse for each number of vectors; ln p."""
    x, dim = x.astype(np.float64), x.shape[1]
    members = np.split(x, np.flatnonzero(np.diff(labels)) + 1)
    means = [mine.mean(axis=0) for mine in members]
    scatter = sum((mine - mean).T @ (mine - mean) for mine, mean in zip(members, means))
    counts = [len(mine) for mine in members]
    mean, within, between = np.mean(means, axis=0), np.eye(dim), np.eye(dim)
    for _ in range(ITERATIONS):
        precision, of_speakers = np.linalg.inv(within), np.linalg.inv(between)
        covariances = {n: np.linalg.inv(of_speakers + n * precision) for n in set(counts)}
        new_within, new_between = scatter.copy(), np.zeros((dim, dim))
        for n, of_mean in zip(counts, means):
            z = covariances[n] @ (n * (precision @ (of_mean - mean)))
            new_between += covariances[n] + np.outer(z, z)
            residual = of_mean - mean - z
            new_within += n * (covariances[n] + np.outer(residual, residual))
        within, between = new_within / len(x), new_between / len(means)
    log_p = -0.5 * np.trace(np.linalg.solve(within, scatter))
    for n, of_mean in zip(counts, means):
        total = within / n + between
        log_p -= 0.5 * (of_mean - mean) @ np.linalg.solve(total, of_mean - mean)
        log_p -= 0.5 * (np.linalg.slogdet(total)[1] + dim * np.log(n))
    log_p -= 0.5 * (len(x) - len(means)) * np.linalg.slogdet(within)[1] + 0.5 * len(x) * dim * np.log(
        2 * np.pi
    )
    return log_p


def our_training(x, labels):
    """Statistics and iterations of ours from the same start; returns ln p."""
    stats = accumulate(x, labels)
    groups, model = SpeakerGroups.of(stats), start_kaldi(stats)
    for _ in range(ITERATIONS):
        model = m_step(groups, model, e_step(groups, model), fixed_mean=True)
    return e_step(groups, model).log_likelihood


def draw(rng, counts, dim):
    """Vectors (N,D) float32 and labels of a model with a falling spectrum."""
    labels = np.repeat(np.arange(len(counts)), counts)
    mix = rng.standard_normal((dim, dim)) / np.sqrt(dim)
    z = rng.standard_normal((len(counts), dim)) * np.sqrt(3 * 0.97 ** np.arange(dim))
    return ((z[labels] + rng.standard_normal((len(labels), dim))) @ mix).astype(np.float32), labels


def process_times(x, labels, repeats):
    """Seconds of reading the archive, and of train-plda as a process."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"s{label:05d}-u{number:06d}" for number, label in enumerate(labels)]
        with tables.open_writer("vec", f"ark:{folder}/v.ark") as out:
            for key, vector in zip(keys, x):
                out[key] = vector
        with open(f"{folder}/spk2utt", "w") as out:
            for mine in np.split(np.array(keys), np.flatnonzero(np.diff(labels)) + 1):
                out.write(f"{mine[0][:6]} {' '.join(mine)}\n")

        def read():
            with tables.open_reader("vec", f"ark:{folder}/v.ark") as reader:
                return collect_vectors(reader)

        command = [
            sys.executable,
            str(ROOT / "bin/train-plda"),
            "--verbose=-1",
            f"--num-em-iters={ITERATIONS}",
            f"ark:{folder}/spk2utt",
            f"ark:{folder}/v.ark",
            f"{folder}/plda",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        train = lambda: subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)  # noqa: E731
        return best_time(read, repeats)[0], best_time(train, repeats)[0]


def compare(name, counts, dim, repeats):
    """Print the lines of one case."""
    x, labels = draw(np.random.default_rng(0), counts, dim)
    seconds, log_p = best_time(lambda: our_training(x, labels), repeats)
    peer, peer_log_p = best_time(lambda: peer_training(x, labels), 1)
    assert abs(log_p - peer_log_p) < 1e-9 * abs(peer_log_p), (log_p, peer_log_p)
    statistics = best_time(lambda: accumulate(x, labels), repeats)[0]
    reading, process = process_times(x, labels, repeats)
    print(f"{name}: {len(counts)} speakers, {len(x)} vectors of dimension {dim}, {ITERATIONS} iterations")
    for what, value in (
        ("loop over speakers", peer),
        ("ours, compute", seconds),
        ("  statistics of it", statistics),
        ("reading the archive", reading),
        ("train-plda, process", process),
    ):
        print(f"  {what:20s} {value:7.3f} s, ratio {value / peer:6.4f}", flush=True)


def main():
    """Run both cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=200)
    parser.add_argument("--num-speakers", type=int, default=2000)
    parser.add_argument("--vectors", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    compare("equal counts", np.full(options.num_speakers, options.vectors), options.dim, options.repeats)
    unequal = np.random.default_rng(1).integers(1, 2 * options.vectors, options.num_speakers)
    compare("unequal counts", unequal, options.dim, options.repeats)


if __name__ == "__main__":
    main()
