#!/usr/bin/env python3
"""Compare compute-fbank with kaldi-native-fbank's Python loop: whole processes, one core, the same files.

Makes a wav.scp of 16-bit wav files in a temporary folder (4 s, 16 kHz), runs both in turn, 80 bins, dither 0,
into `ark,scp:`, and prints the medians and the ratio. It judges nothing: time on a shared machine is noise.

Usage: python tests/bench/bench_fbank.py [--files 500] [--repeats 7] [--program compute-fbank|compute-mfcc]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def make_files(folder, number, seconds=4.0, rate=16000):
    """Write ``number`` wav files of shaped noise and their wav.scp."""
    import numpy as np

    from voxark.audio import write_wav

    random = np.random.default_rng(0)
    with open(folder / "wav.scp", "w") as script:
        for i in range(number):
            noise = random.standard_normal(int(seconds * rate), dtype=np.float32)
            signal = 1000.0 * noise * np.abs(np.sin(np.arange(len(noise)) * (8.0 / rate)))
            (folder / f"utt{i:05d}.wav").write_bytes(write_wav(rate, signal))
            script.write(f"utt{i:05d} {folder}/utt{i:05d}.wav\n")


def peer(script, output, program):
    """The loop that a user of kaldi-native-fbank writes: kaldiio in, features frame by frame, kaldiio out."""
    import kaldi_native_fbank as knf
    import numpy as np
    from kaldiio import ReadHelper, WriteHelper

    mfcc = program == "compute-mfcc"
    opts = knf.MfccOptions() if mfcc else knf.FbankOptions()
    opts.frame_opts.dither = 0.0
    opts.mel_opts.num_bins = 23 if mfcc else 80
    with WriteHelper(f"ark,scp:{output}.ark,{output}.scp") as writer, ReadHelper(f"scp:{script}") as reader:
        for key, (rate, samples) in reader:
            computer = knf.OnlineMfcc(opts) if mfcc else knf.OnlineFbank(opts)
            computer.accept_waveform(rate, samples.astype(np.float32))
            computer.input_finished()
            writer[key] = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def run(command, environment):
    """Wall-clock seconds, processor seconds and peak memory (MiB) of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(folder, repeats, program):
    """Run both programs in turn; return their measurements."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C"}
    results = {"kaldi-native-fbank": [], program: []}
    for i in range(repeats + 1):  # the first round warms the page cache and does not count
        for name in results:
            output = folder / f"out-{name}"
            if name == program:
                bins = [] if program == "compute-mfcc" else ["--num-mel-bins=80"]
                command = [
                    sys.executable,
                    str(ROOT / "bin" / program),
                    *bins,
                    "--dither=0",
                    f"scp:{folder}/wav.scp",
                    f"ark,scp:{output}.ark,{output}.scp",
                ]
            else:
                command = [sys.executable, __file__, "--peer", f"{folder}/wav.scp", str(output), program]
            measured = run(command, environment)
            if i:
                results[name].append(measured)
            for suffix in (".ark", ".scp"):  # so that nobody pays for freeing an earlier round's output
                os.unlink(f"{output}{suffix}")
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--program", choices=["compute-fbank", "compute-mfcc"], default="compute-fbank")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(*args.peer)
    sys.path.insert(0, str(ROOT))
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name), args.files)
        results = compare(Path(name), args.repeats, args.program)
    for name, measured in results.items():
        wall, processor, memory = (statistics.median(column) for column in zip(*measured))
        print(f"{name:<20} {wall:7.3f} s wall  {processor:7.3f} s processor  {memory:6.1f} MiB")
    peer_wall, own_wall = (statistics.median(column[0] for column in rows) for rows in results.values())
    print(
        f"{'ratio':<20} {own_wall / peer_wall:7.3f}   ({args.files} files, medians of {args.repeats}, one core)"
    )


if __name__ == "__main__":
    main()
