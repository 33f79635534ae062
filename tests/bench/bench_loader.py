"""Time the loading of training batches, and how long training waits for them.

Usage: python tests/bench/bench_loader.py [--utterances=N] [--batches=60] [--compute-ms=200] [--keys=1000000]

Features of 80 dimensions and 300 to 900 frames, plain and compressed; batches of 128 chunks of 200 to 400.
The peer reads whole utterances through kaldiio.load_scp in a loop, and cuts and normalises them likewise. The
computation beside which batches are loaded is a stand-in: matrix products on one core for --compute-ms. Then
features computed from waveforms as they are wanted, on one thread, and the opening of an index of many keys.
Rates are by processor time: the files lie in the page cache, and a busy machine does not count.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from voxark import tables  # noqa: E402
from voxark.audio import write_wav  # noqa: E402
from voxark.e2e.augment import AugmentOptions, Augmenter  # noqa: E402
from voxark.e2e.batches import BatchOptions, BatchSampler, TrainingSet  # noqa: E402
from voxark.e2e.chunks import BatchReader, FeatureReader, NormalizeOptions  # noqa: E402
from voxark.e2e.spec_augment import SpecAugmentOptions  # noqa: E402
from voxark.e2e.waveforms import WaveformFeatures, Waveforms  # noqa: E402
from voxark.feat.fbank import FbankOptions  # noqa: E402
from voxark.nnet.feature_index import FeatureIndex  # noqa: E402
from voxark.nnet.loader import BatchLoader  # noqa: E402


def write_features(folder, number):
    """Archives of the same features, plain and compressed, and their script files."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2000, 80)).astype("f4")
    for name, method in (("plain", 0), ("compressed", 2)):
        with tables.open_writer("mat", f"ark,scp:{folder}/{name}.ark,{folder}/{name}.scp", method) as out:
            for n in range(number):
                first, length = int(rng.integers(0, 1000)), int(rng.integers(300, 901))
                out[f"utt{n:06d}"] = noise[first : first + length]


def batches_of(source, augments=False, masks=None):
    """A BatchReader over a source, 10 utterances a speaker."""
    data = TrainingSet(np.arange(len(source)), np.arange(len(source)) // 10, source.lengths)
    sampler = BatchSampler(data, BatchOptions(batch_speakers=64))
    return BatchReader(sampler, FeatureReader(source, NormalizeOptions()), masks, augments)


def peer(reader, scp):
    """A function like ``reader`` that reads through kaldiio's dictionary of a script."""
    import kaldiio

    table = kaldiio.load_scp(scp)

    def build(epoch, number):
        plan = reader.sampler.plan(epoch, number)
        chunks = []
        for key, first, frames in zip(
            (reader.features.source.keys[n] for n in plan.utterances), plan.first, plan.frames, strict=True
        ):
            x = table[key][first : first + frames]
            chunks.append(x - x.mean(axis=0))
        return chunks

    return build


def rate(build, number):
    """Chunks and megabytes a second of processor time, of calls of ``build``, after one that warms up."""
    build(9, 0)
    start, chunks, size = time.process_time(), 0, 0
    for n in range(number):
        batch = getattr(batch := build(0, n), "chunks", batch)
        chunks, size = chunks + len(batch), size + sum(x.nbytes for x in batch)
    seconds = time.process_time() - start
    return chunks / seconds, size / seconds / 1e6


def compute(matrix, seconds):
    """The stand-in for a training step: matrix products."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix @ matrix


def waiting(build, number, seconds, num_threads):
    """Share of the time that a training waits, and milliseconds a batch."""
    matrix = np.random.default_rng(0).standard_normal((1000, 1000)).astype("f4")
    with BatchLoader(build, 10**6, num_threads=num_threads) as loader:
        next(loader)
        compute(matrix, seconds)
        before, start = loader.waited_s, time.perf_counter()
        for _ in range(number):
            next(loader)
            compute(matrix, seconds)
        total = time.perf_counter() - start
        return (loader.waited_s - before) / total, 1000 * (loader.waited_s - before) / number


def write_audio(folder):
    """200 utterances of 4 to 8 s, 20 noises of 10 s, 10 responses of 0.5 s; return the three directories."""
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(8000) / 1500.0)
    for name, number, low, high in (
        ("speech", 200, 64000, 128000),
        ("noise", 20, 160000, 160001),
        ("rir", 10, 8000, 8001),
    ):
        os.mkdir(f"{folder}/{name}")
        with open(f"{folder}/{name}/wav.scp", "w") as scp:
            for n in range(number):
                samples = 3000 * rng.standard_normal(int(rng.integers(low, high)))
                samples = samples * decay if name == "rir" else samples
                Path(f"{folder}/{name}/{n:03d}.wav").write_bytes(write_wav(16000, samples.astype(np.int16)))
                scp.write(f"{name}{n:03d} {folder}/{name}/{n:03d}.wav\n")
    return (f"{folder}/{name}" for name in ("speech", "noise", "rir"))


def audio_rates(folder, number):
    """Print chunks a second of features from waveforms, one thread."""
    speech, noise, rir = write_audio(folder)
    fbank = FbankOptions(num_mel_bins=80, dither=0.0)
    for title, options, speeds in (
        ("waveforms: fbank", None, ()),
        ("... + noise", AugmentOptions(noise_dir=noise, noise_prob=1.0), ()),
        ("... + rooms", AugmentOptions(rir_dir=rir, rir_prob=1.0), ()),
        ("... + both, each of half", AugmentOptions(noise_dir=noise, rir_dir=rir), ()),
        ("... + speeds 0.9, 1.1", None, (0.9, 1.1)),
    ):
        augmenter = Augmenter(options, 16000) if options else None
        features = WaveformFeatures(Waveforms(f"{speech}/wav.scp", speeds=speeds, augmenter=augmenter), fbank)
        chunks, _ = rate(batches_of(features, augments=True), max(1, number // 10))
        print(f"{title:<34} {chunks:8.0f} chunks/s  {3 * chunks:8.0f} times real time")


def many_keys(folder, number):
    """Print time and memory of opening an index of ``number`` keys."""
    places = [line.split()[1] for line in open(f"{folder}/plain.scp")]
    with open(f"{folder}/many.scp", "w") as out:
        out.writelines(
            f"speaker{n // 50:05d}-utterance{n:07d} {places[n % len(places)]}\n" for n in range(number)
        )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    index = FeatureIndex(f"scp:{folder}/many.scp")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"index of {len(index)} keys: {seconds:.2f} s of processor time, peak {1024 * peak / number:.0f} bytes a key")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--compute-ms", type=float, default=200)
    parser.add_argument("--keys", type=int, default=10**6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_features(folder, args.utterances)
        many_keys(folder, args.keys)
        for name in ("plain", "compressed"):
            reader = batches_of(FeatureIndex(f"scp:{folder}/{name}.scp"))
            masked = batches_of(reader.features.source, masks=SpecAugmentOptions(time_masks=2, freq_masks=2))
            for title, build in (
                (f"{name}", reader),
                (f"{name}, with masks", masked),
                (f"{name}, kaldiio.load_scp loop", peer(reader, f"{folder}/{name}.scp")),
            ):
                print("{:<34} {:8.0f} chunks/s  {:8.0f} MB/s".format(title, *rate(build, args.batches)))
            for num_threads in (1, 2):
                share, wait = waiting(reader, args.batches // 2, args.compute_ms / 1000, num_threads)
                print(
                    f"{name}, {num_threads} threads beside computation: waits {100 * share:.2f} % "
                    f"({wait:.2f} ms a batch)"
                )
        audio_rates(folder, args.batches)


if __name__ == "__main__":
    main()
