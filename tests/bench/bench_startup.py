"""Time whole runs of programs on one short utterance against `python -c 'import numpy, typer'`.

Usage: python tests/bench/bench_startup.py [--repeats=11]

Prints one line a command: the best and the median of the repeats in seconds, and what the median adds to the
baseline (the goal is at most 0.15 s). The commands take turns: a busy machine is equally busy for all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402

BASELINE = "import numpy, typer"
COMMANDS = [
    ["copy-feats", "--help"],
    ["copy-feats", "ark:feats.ark", "ark:/dev/null"],
    ["copy-feats", "--verbose=1", "ark:feats.ark", "ark:/dev/null"],
    ["copy-vector", "ark:vector.ark", "ark,t:/dev/null"],
    ["compute-vad", "--vad-energy-threshold=5.5", "ark:feats.ark", "ark:/dev/null"],
    ["add-deltas", "ark:feats.ark", "ark:/dev/null"],
    ["apply-cmvn-sliding", "ark:feats.ark", "ark:/dev/null"],
    ["pool-feats", "ark:feats.ark", "ark:/dev/null"],
    ["compute-fbank", "--dither=0", "scp:wav.scp", "ark:/dev/null"],
    ["compute-mfcc", "--dither=0", "scp:wav.scp", "ark:/dev/null"],
]


def make_input(folder):
    """One utterance of a second: features, a vector, and audio."""
    rng = np.random.default_rng(0)
    for kind, name, value in (
        ("mat", "feats", rng.standard_normal((98, 20)).astype("f4") + 10),
        ("vec", "vector", rng.standard_normal(200).astype("f4")),
        ("wav", "wav", (16000, (1000 * rng.standard_normal(16000)).astype(np.int16))),
    ):
        with tables.open_writer(kind, f"ark,scp:{folder}/{name}.ark,{folder}/{name}.scp") as out:
            out["utt"] = value


def seconds(command, folder, environment):
    """Wall time of a command, which must succeed."""
    start = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "OPENBLAS_NUM_THREADS": "1"}
    commands = {f"python -c '{BASELINE}'": [sys.executable, "-c", BASELINE]}
    commands.update(
        (" ".join(words), [sys.executable, str(ROOT / "bin" / words[0]), *words[1:]])
        for words in COMMANDS
        if (ROOT / "bin" / words[0]).exists()
    )
    times = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        make_input(folder)
        for _ in range(repeats):
            for name, command in commands.items():
                times[name].append(seconds(command, folder, environment))
    baseline = statistics.median(next(iter(times.values())))
    print(f"{'best':>7} {'median':>7} {'added':>7}  command")
    for name, values in times.items():
        print(
            f"{min(values):7.3f} {statistics.median(values):7.3f} "
            f"{statistics.median(values) - baseline:+7.3f}  {name}"
        )


if __name__ == "__main__":
    main()
