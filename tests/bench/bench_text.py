"""Time trial and score lists as text: ours against loops over lines as evaluation scripts have them.

Usage: python tests/bench/bench_text.py [--num-models=1000] [--num-tests=1000] [--num-scores=5000000]
                                        [--repeats=3]

Prints seconds, nanoseconds a line, the ratio to the loop in the same run, and the peak memory of the processes:
reading a trial list and a score list, joining the two by key (in the same order and shuffled), writing scores,
reading lines `<score> <label>`, and the programs score-trials (PLDA, 200 dimensions; goal 0.78 s for a million
lines, Kaldi's took 9.8 s) and compute-eer (25 million labelled scores: goal a quarter of Kaldi's 15.9 s, within
2 GiB; --num-scores=25000000), whose times include 0.03 s of a process around them. Both sides must give the
same values. One thread; the best of the repeats counts.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import best_time

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402
from voxark.backend.plda import Plda  # noqa: E402
from voxark.trials import lists  # noqa: E402

DIM = 200
PEER_LINES = 1_000_000  # the loop over labelled scores stops there: it is linear


# ---------------------------------------------------------------------------------------------------- the peer


def loop_read_trials(path):
    """{(enrol, test): label} of a list, line by line."""
    trials = {}
    with open(path) as file:
        for line in file:
            enroll, test, label = line.split()
            trials[enroll, test] = label == "target"
    return trials


def loop_read_scores(path):
    """{(enrol, test): score} of a list, line by line."""
    scores = {}
    with open(path) as file:
        for line in file:
            enroll, test, score = line.split()
            scores[enroll, test] = float(score)
    return scores


def loop_write_scores(path, pairs, scores):
    """Write a score list, line by line."""
    with open(path, "w") as file:
        for (enroll, test), score in zip(pairs, scores):
            file.write(f"{enroll} {test} {score:.7g}\n")


def loop_read_labelled(path, limit):
    """Scores and labels of the first lines `<score> <label>`, line by line."""
    scores, target = [], []
    with open(path) as file:
        for _, line in zip(range(limit), file):
            score, label = line.split()
            scores.append(float(score))
            target.append(label == "target")
    return np.array(scores), np.array(target)


# ------------------------------------------------------------------------------------------------------- cases


def report(what, lines, seconds, peer=None, peer_lines=None, peak=None):
    """One line of figures."""
    text = f"  {what:28s} {seconds:7.3f} s, {1e9 * seconds / lines:6.0f} ns a line"
    if peer is not None:
        text += f", loop {1e9 * peer / peer_lines:6.0f}, ratio {seconds / lines / peer * peer_lines:6.4f}"
    print(text + (f", peak {peak:.0f} MiB" if peak else ""), flush=True)


def make_lists(folder, num_models, num_tests, rng):
    """Write trials, scores and shuffled scores; return (trials, scores)."""
    enroll, test = np.divmod(np.arange(num_models * num_tests, dtype=np.int32), np.int32(num_tests))
    trials = lists.TrialList(
        "trials",
        [f"id{number:05d}-model" for number in range(num_models)],
        [f"id{number // 10:05d}-utt{number % 10}" for number in range(num_tests)],
        enroll,
        test,
        enroll == test // 10,
    )
    scores = (20 * rng.standard_normal(len(trials))).astype(np.float32)
    shuffled = rng.permutation(len(trials))
    with open(f"{folder}/trials", "wb") as out:
        lists.write_trials(out, trials)
    for name, order in (("scores", slice(None)), ("shuffled", shuffled)):
        with open(f"{folder}/{name}", "wb") as out:
            lists.write_scores(out, trials.select(order), scores[order])
    return trials, scores


def compare_lists(folder, num_models, num_tests, repeats, rng):
    """Print the lines of reading, joining and writing lists of pairs."""
    trials, scores = make_lists(folder, num_models, num_tests, rng)
    number = len(trials)
    print(f"lists of {number} lines, {os.path.getsize(f'{folder}/trials') / 1e6:.0f} MB of trials")

    def compare(what, ours, loop):
        seconds, found = best_time(ours, repeats)
        peer, expected = best_time(loop, 1)
        report(what, number, seconds, peer, number)
        return found, expected

    read, labels = compare(
        "read trials", lambda: lists.read_trials(f"{folder}/trials"), lambda: loop_read_trials(f"{folder}/trials")
    )
    assert np.array_equal(read.target, list(labels.values()))
    scored, by_pair = compare(
        "read scores", lambda: lists.read_scores(f"{folder}/scores"), lambda: loop_read_scores(f"{folder}/scores")
    )
    assert np.array_equal(scored.scores, list(by_pair.values()))
    assert np.array_equal(scored.scores.astype(np.float32), scores)
    found, _ = compare(
        "join, same order", lambda: lists.find_pairs(read, scored), lambda: [by_pair[pair] for pair in labels]
    )
    assert np.array_equal(found, np.arange(number))
    shuffled, by_pair = lists.read_scores(f"{folder}/shuffled"), loop_read_scores(f"{folder}/shuffled")
    found, expected = compare(
        "join, shuffled", lambda: lists.find_pairs(read, shuffled), lambda: [by_pair[pair] for pair in labels]
    )
    assert np.array_equal(shuffled.scores[found], expected)
    pairs = list(labels)
    compare(
        "write scores",
        lambda: lists.write_scores(io.BytesIO(), trials, scores),
        lambda: loop_write_scores("/dev/null", pairs, scores),
    )


def compare_labelled(folder, number, repeats, rng):
    """Print the lines of reading scores with labels; leave the file for compute-eer."""
    path = f"{folder}/labelled"
    with open(path, "wb") as out:
        for begin in range(0, number, 1 << 20):
            size = min(1 << 20, number - begin)
            target = rng.random(size) < 0.1
            scores = (5 * rng.standard_normal(size) + 5 * target).tolist()
            words = map((b"nontarget", b"target").__getitem__, target.tolist())
            out.write(b"".join(b"%.6g %b\n" % line for line in zip(scores, words)))
    seconds, (scores, target) = best_time(lambda: lists.read_labelled_scores(path), repeats)
    peer_lines = min(number, PEER_LINES)
    peer, (peer_scores, peer_target) = best_time(lambda: loop_read_labelled(path, peer_lines), 1)
    assert np.array_equal(scores[:peer_lines], peer_scores) and np.array_equal(target[:peer_lines], peer_target)
    print(f"{number} labelled scores, {os.path.getsize(path) / 1e6:.0f} MB")
    report("read labelled scores", number, seconds, peer, peer_lines)


# Runs a command and prints its peak memory in KiB. A process in between, since the peak of a process that is
# started by a large one counts that one's memory.
_MEASURE = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
)


def run_program(name, *arguments):
    """Peak memory in MiB of one run of a program, whose output is dropped."""
    command = [sys.executable, str(ROOT / "bin" / name), "--verbose=-1", "--print-args=false", *arguments]
    done = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with status {done.returncode}:\n{done.stderr.decode()}")
    return int(done.stdout) / 1024


def time_programs(folder, num_models, num_tests, num_scores, repeats, rng):
    """Print the lines of the whole processes."""
    for name, number, key in (
        ("models", num_models, "id{0:05d}-model"),
        ("tests", num_tests, "id{1:05d}-utt{2}"),
    ):
        vectors = rng.standard_normal((number, DIM)).astype(np.float32)
        with tables.open_writer("vec", f"ark:{folder}/{name}.ark") as out:
            for place, vector in enumerate(vectors):
                out[key.format(place, place // 10, place % 10)] = vector
    plda = Plda(np.zeros(DIM), np.eye(DIM), np.linspace(5, 0.1, DIM))
    tables.write_object("plda", f"{folder}/plda", plda.to_params())
    score = [
        "--backend=plda",
        f"--model={folder}/plda",
        f"{folder}/trials",
        f"ark:{folder}/models.ark",
        f"ark:{folder}/tests.ark",
        f"{folder}/plda_scores",
    ]
    print("whole processes")
    for name, arguments, lines, what in (
        ("score-trials", score, num_models * num_tests, "score-trials, PLDA"),
        ("compute-eer", [f"{folder}/trials", f"{folder}/scores"], num_models * num_tests, "compute-eer, two lists"),
        ("compute-eer", [f"{folder}/trials", f"{folder}/shuffled"], num_models * num_tests, "compute-eer, shuffled"),
        ("compute-eer", [f"{folder}/labelled"], num_scores, "compute-eer, labelled scores"),
    ):
        seconds, peak = best_time(lambda: run_program(name, *arguments), repeats)
        report(what, lines, seconds, peak=peak)


def main():
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-models", type=int, default=1000)
    parser.add_argument("--num-tests", type=int, default=1000)
    parser.add_argument("--num-scores", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        compare_lists(folder, options.num_models, options.num_tests, options.repeats, rng)
        compare_labelled(folder, options.num_scores, options.repeats, rng)
        time_programs(folder, options.num_models, options.num_tests, options.num_scores, options.repeats, rng)


if __name__ == "__main__":
    main()
