"""Time score-trials: a list of PLDA trials text to text, every pair as a matrix, pairs that lie far apart.

Usage: python tests/bench/bench_scores.py [--dim=200] [--repeats=3] [--stream=10]

Prints processor seconds (user and system, of the whole process where it is one), ratios to peers in the same
run, and peak memory. The peers: a Python loop over the lines of the list (on a twentieth of it, times 20);
the scores of every pair model by model, as the formula stands, and as one product of matrices; pairs gathered
in one go. Goals: a list of a million lines 0.78 s (real Kaldi: 9.8 s), a matrix of 5,000 x 5,000 0.8 s (a
loop of Kaldi's: 235 s). --stream=N scores N million trials from a pipe: its memory must not grow with N. One
thread; the best of the repeats counts.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402
from voxark.backend.pair_terms import bilinear_terms  # noqa: E402
from voxark.backend.plda import Plda  # noqa: E402
from voxark.scoring.pairs import score_pairs  # noqa: E402

MODELS = TESTS = 5000
LISTED = 1000  # models and tests of the list of a million trials


def cpu_time(function, repeats):
    """(processor seconds of the fastest of ``repeats`` calls in this process, the value of the last)."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        times.append(time.process_time() - start)
    return min(times), value


# A process begins with the peak memory of the one that starts it: this one is small.
LAUNCHER = """import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(repeats, *arguments, stdin=None):
    """(processor seconds, peak memory in MiB) of the fastest of ``repeats`` runs of score-trials."""
    command = [sys.executable, str(ROOT / "bin/score-trials"), "--verbose=-1", *arguments]
    environment, results = {**os.environ, "PYTHONPATH": str(ROOT)}, []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", LAUNCHER, *command], env=environment, stdin=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        results.append(tuple(map(float, done.stdout.split())))
    return min(results)


def report(what, seconds, peer, memory=None):
    """One line of a case."""
    more = "" if memory is None else f", peak {memory:5.0f} MiB"
    print(f"  {what:44s} {seconds:8.3f} s, ratio {seconds / peer:7.4f}{more}", flush=True)


class Corpus:
    """Vectors, their archives, a PLDA model and a list of trials in a folder."""

    def __init__(self, folder, dim):
        rng = np.random.default_rng(0)
        self.folder, self.dim = folder, dim
        rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        self.plda = Plda(0.1 * rng.standard_normal(dim), rotation, 3 * 0.97 ** np.arange(dim))
        tables.write_object("plda", f"{folder}/plda", self.plda.to_params())
        self.models = self._write("model", rng.standard_normal((MODELS, dim)).astype(np.float32))
        self.tests = self._write("test", rng.standard_normal((TESTS, dim)).astype(np.float32))
        with open(f"{folder}/trials", "w") as out:
            for model in range(LISTED):
                out.write("".join(f"model-{model:08d} test-{test:08d} nontarget\n" for test in range(LISTED)))

    def _write(self, name, x):
        with tables.open_writer("vec", f"ark:{self.folder}/{name}.ark") as out:
            for number, vector in enumerate(x):
                out[f"{name}-{number:08d}"] = vector
        return x

    @property
    def arguments(self):
        """Back-end and tables, as score-trials takes them."""
        return ["--backend=plda", f"--model={self.folder}/plda"], [
            f"ark:{self.folder}/{name}.ark" for name in ("model", "test")]

    def projected(self):
        """Both sides in PLDA's space."""
        return self.plda.transform_vectors(self.models), self.plda.transform_vectors(self.tests)


def bench_list(corpus, repeats):
    """A list of a million trials, text to text."""
    model, test = corpus.projected()
    cross, row, column, constant = corpus.plda.llr_terms(1)
    number_of = {f"{name}-{number:08d}": number for name in ("model", "test") for number in range(MODELS)}

    def loop():
        """Line by line, what a plain program does."""
        with open(f"{corpus.folder}/trials") as lines, open(os.devnull, "w") as out:
            for _, line in zip(range(LISTED * LISTED // 20), lines):
                enroll_id, test_id, _ = line.split()
                e, t = model[number_of[enroll_id]], test[number_of[test_id]]
                score = (cross * e) @ t + (row * e) @ e + (column * t) @ t + constant
                out.write(f"{enroll_id} {test_id} {score:.7g}\n")

    peer = 20 * cpu_time(loop, 1)[0]
    options, sides = corpus.arguments
    seconds, memory = run(repeats, *options, f"{corpus.folder}/trials", *sides, f"{corpus.folder}/scores")
    print(f"list of {LISTED * LISTED} PLDA trials, text to text, dimension {corpus.dim}")
    report("a Python loop over lines (a twentieth x 20)", peer, peer)
    report("score-trials, process", seconds, peer, memory)


def bench_dense(corpus, repeats):
    """Every pair as a matrix."""
    model, test = corpus.projected()
    cross, row, column, constant = corpus.plda.llr_terms(1)

    def by_model():
        return [((cross * e) * test + row * e * e + column * test * test).sum(axis=1) + constant
                for e in model[: MODELS // 20]]

    def by_product():
        return (cross * model) @ test.T + (model**2 @ row)[:, None] + test**2 @ column + constant

    peer, product = 20 * cpu_time(by_model, 1)[0], cpu_time(by_product, repeats)[0]
    options, sides = corpus.arguments
    outputs = [f"{corpus.folder}/{name}" for name in ("rows", "columns")]
    seconds, memory = run(repeats, "--dense", *options, *sides, f"ark:{corpus.folder}/m.ark", *outputs)
    with tables.open_reader("mat", f"ark:{corpus.folder}/m.ark") as reader:
        error = max(np.abs(block - by_product()).max() for _, block in reader)
    print(f"every pair of {MODELS} models and {TESTS} tests, PLDA, dimension {corpus.dim}")
    report("numpy model by model (a twentieth x 20)", peer, peer)
    report("numpy, one product, scores in memory only", product, peer)
    report("score-trials --dense, process", seconds, peer, memory)
    print(f"  largest difference from float64: {error:.2g} of scores up to {np.abs(by_product()).max():.4g}")


def bench_sparse(dim, repeats, number=100_000, pairs=1_000_000):
    """Pairs of many vectors, few of each."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((number, dim))
    enroll, test = rng.integers(0, number, (2, pairs))

    def loop():
        return [x[e] @ x[t] for e, t in zip(enroll[: pairs // 20].tolist(), test.tolist())]

    peer = 20 * cpu_time(loop, 1)[0]
    seconds, scores = cpu_time(lambda: score_pairs(bilinear_terms(x, x), enroll, test), repeats)
    np.testing.assert_allclose(scores[: pairs // 20], loop(), atol=1e-9)
    print(f"{pairs} random pairs of {number} vectors, dimension {dim}")
    report("a Python loop over pairs (a twentieth x 20)", peer, peer)
    report("score_pairs, compute", seconds, peer)


REPEATER = """import sys
data = open(sys.argv[1], "rb").read()
for _ in range(int(sys.argv[2])):
    sys.stdout.buffer.write(data)
"""


def bench_stream(corpus, millions):
    """A list that does not end soon, from a pipe into nothing."""
    options, sides = corpus.arguments
    print("lists from a pipe")
    for number in sorted({1, 5, millions}):
        source = subprocess.Popen(
            [sys.executable, "-c", REPEATER, f"{corpus.folder}/trials", str(number)], stdout=subprocess.PIPE)
        seconds, memory = run(1, *options, "-", *sides, os.devnull, stdin=source.stdout)
        print(f"  {number:4d} million trials {seconds:8.2f} s, peak {memory:5.0f} MiB", flush=True)
        source.stdout.close()
        source.wait()


def main():
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stream", type=int, default=10, help="million trials to stream, 5 or more")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(folder, options.dim)
        bench_list(corpus, options.repeats)
        bench_dense(corpus, options.repeats)
        bench_sparse(options.dim, options.repeats)
        bench_stream(corpus, options.stream)


if __name__ == "__main__":
    main()
