"""Processor time and memory of the steps of a recipe on parts of real speech, extrapolated to large corpora.

Usage: python tests/bench/bench_steps.py [--train=DIR --test=DIR --trials=FILE] [--shares=0.25,1] [--dir=DIR]
           [--num-gauss=2048] [--ivector-dim=400] [--jobs=32] [--networks]

Runs the steps of the GMM and i-vector systems, one job each, on two parts of the training data (whole
speakers), with the sizes of egs/librispeech/paper.conf, and reads processor seconds and memory of the largest
process from the logs (`# Accounting`). Two sizes give a constant part and a slope by hour, utterance or
trial; LDA and PLDA are given random vectors, as many as they need. Prints what was measured, then LibriSpeech
(960 h) and VoxCeleb2's development part (2,360 h) by the straight line: an extrapolation, no measurement.
--networks also trains an FHVAE and an x-vector network for a few steps, for their memory. --dir keeps
everything, and a second call goes on there. The default data are ../shared/data/speechocean762.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voxark import tables  # noqa: E402

SHARED = Path(os.environ.get("VOXARK_SHARED", ROOT.parent / "shared")) / "data/speechocean762"
ACCOUNTING = re.compile(r"^# Accounting: .* cpu=([\d.]+) mem=(\d+)M", re.MULTILINE)
SAMPLE, SAMPLE_ITERATIONS = 50_000, 4  # of the UBM's start here; the step's own are 500,000 and 20
VECTORS = 20_000, 80_000  # random ones for LDA and PLDA, of so many utterances a speaker:
VECTORS_A_SPEAKER = 120
PLACES = [*(str(ROOT / part) for part in ("bin", "steps", "utils")), str(Path(sys.executable).parent),
          os.environ["PATH"]]
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join(PLACES), "PYTHONPATH": str(ROOT), "LC_ALL": "C"}


class Size(NamedTuple):
    """How large a corpus, or a part, is."""

    hours: float
    utterances: int
    speakers: int = 0


CORPORA = {"LibriSpeech": Size(960, 281_241, 2_338), "VoxCeleb2": Size(2_360, 1_092_009, 5_994)}


class Kind(NamedTuple):
    """A kind of job: its logs, what its cost follows, how often a recipe runs it, whether N jobs share it.

    A unit "fixed" is the cost of the model alone. ``hourly``: kinds by the hour that are a part of one by the
    utterance: elsewhere utterances are longer.
    ``holds``: everything is in memory, which grows with the unit.
    """

    name: str
    logs: str
    unit: str = "hours"
    times: int = 1
    split: bool = True
    hourly: tuple = ()
    holds: bool = False


class Line(NamedTuple):
    """A kind of job, by a straight line through two sizes."""

    kind: Kind
    constant: float  # processor seconds
    slope: float  # processor seconds a unit
    memory: tuple  # MiB at both sizes
    amounts: tuple  # units of both sizes

    def memory_of(self, amount):
        """MiB for an amount of the unit: as measured, or growing with it."""
        first, last = self.memory
        if not self.kind.holds:
            return max(first, last)
        return last + (last - first) / (self.amounts[1] - self.amounts[0]) * (amount - self.amounts[1])


START, POSTERIORS = "diagonal UBM: start, a pass over the features", "extractor: posteriors"
KINDS = [
    Kind("MFCC", "train/log/make_mfcc_*.log"),
    Kind("filter banks", "train_fbank/log/make_fbank_*.log"),
    Kind("voice activity", "train/log/compute_vad_*.log"),
    Kind("CMVN statistics of filter banks", "train_fbank/log/compute_cmvn_*.log"),
    Kind("pooled vectors", "pooled/log/pool.*.log"),
    Kind(START, "ubm/log/init.log", split=False),
    Kind("diagonal UBM: an iteration", "ubm/log/acc.*.log", times=4),
    Kind("diagonal UBM: its update", "ubm/log/update.*.log", "fixed", 4, split=False),
    Kind("full UBM: selection of Gaussians", "full_ubm/log/gselect.*.log"),
    Kind("full UBM: an iteration", "full_ubm/log/acc.*.log", times=4),
    Kind("full UBM: its update", "full_ubm/log/update.*.log", "fixed", 4, split=False),
    Kind(POSTERIORS, "extractor/log/post.*.log"),
    Kind("extractor: an iteration", "extractor/log/acc.*.log", "utterances", 5, hourly=(START,)),
    Kind("extractor: its update", "extractor/log/update.*.log", "fixed", 5, split=False),
    Kind("i-vectors", "ivectors/log/extract.*.log", "utterances", hourly=(START, POSTERIORS)),
]
TRIALS = [
    Kind("MAP models", "gmm_map/log/adapt.*.log", "models"),
    Kind("GMM scores", "scores/log/score.*.log", "trials"),
]
BACKEND = [
    Kind("mean of the vectors", "plda/log/mean.log", "utterances", split=False),
    Kind("LDA", "plda/log/lda.log", "utterances", split=False, holds=True),
    Kind("PLDA", "plda/log/plda.log", "utterances", split=False, holds=True),
]


def run(folder, name, *command):
    """Run a step in ``folder``, unless an earlier call has: its name is kept there."""
    done = folder / f".{name}.done"
    if done.exists():
        return
    print(f"  {folder.name}: {name}", file=sys.stderr, flush=True)
    ran = subprocess.run(list(map(str, command)), cwd=folder, env=ENVIRONMENT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode:
        sys.exit(f"{name} failed in {folder}:\n{ran.stdout[-2000:]}")
    done.touch()


def features(folder, name):
    """MFCC and voice activity of a data directory of ``folder``."""
    run(folder, f"mfcc_{name}", "make_mfcc.sh", "--nj", 1, "--mfcc-config", ROOT / "conf/mfcc.conf", name)
    run(folder, f"vad_{name}", "compute_vad.sh", "--nj", 1, "--vad-config", ROOT / "conf/vad.conf", name)


def train_ubm(folder, num_gauss):
    """The jobs of train_diag_ubm.sh, but no Gaussian is removed: so little data would leave too few."""
    ubm = folder / "ubm"
    ubm.mkdir(exist_ok=True)
    (ubm / "delta_order").write_text("2\n")
    (ubm / "sliding_cmvn.conf").write_bytes((ROOT / "conf/sliding_cmvn.conf").read_bytes())
    feats = subprocess.run([ROOT / "steps/gmm_features.sh", "ubm", "train"], cwd=folder, env=ENVIRONMENT,
                           text=True, stdout=subprocess.PIPE, check=True).stdout.strip()
    keep = ["--remove-low-count-gaussians=false", "--min-gaussian-weight=0"]
    run(folder, "ubm_start", "run.py", "ubm/log/init.log", "train-gmm-em", *keep, f"--num-gauss={num_gauss}",
        f"--num-gauss-init={num_gauss // 2}", "--init=random-frames", f"--num-frames={SAMPLE}",
        f"--train-frames={SAMPLE}", f"--num-iters={SAMPLE_ITERATIONS}", feats, "ubm/0.dubm")
    run(folder, "ubm_pass", "run.py", "ubm/log/acc.0.1.log", "acc-gmm-stats", "ubm/0.dubm", feats,
        "ubm/0.1.acc")
    run(folder, "ubm_update", "run.py", "ubm/log/update.0.log", "est-gmm", *keep, "ubm/0.dubm",
        "sum-gmm-stats - ubm/0.1.acc |", "ubm/final.dubm")
    (ubm / "final.gmm").write_bytes((ubm / "final.dubm").read_bytes())


def train_models(folder, options):
    """All steps of both systems on folder/train; no Gaussian may go, so that the work is known."""
    one = ["--nj", 1, "--num-iters", 1]
    keep = ["--remove-low-count-gaussians", "false", "--min-gaussian-weight", 0,
            "--min-gaussian-occupancy", 1]
    extractor = [*one, "--ivector-dim", options.ivector_dim, "--gaussian-min-count", 1]
    run(folder, "copy", "copy_data_dir.sh", "train", "train_fbank")
    features(folder, "train")
    run(folder, "fbank", "make_fbank.sh", "--nj", 1, "--fbank-config", ROOT / "conf/fbank.conf",
        "train_fbank")
    run(folder, "cmvn", "compute_cmvn_stats.sh", "--nj", 1, "train_fbank")
    run(folder, "pool", "pool_feats.sh", "--nj", 1, "train", "pooled")
    train_ubm(folder, options.num_gauss)
    run(folder, "full_ubm", "train_full_ubm.sh", *one, *keep, "train", "ubm", "full_ubm")
    run(folder, "extractor", "train_ivector_extractor.sh", *extractor, "--one-process", "false",
        "--cleanup", "false", "train", "full_ubm", "extractor")
    run(folder, "ivectors", "extract_ivectors.sh", "--nj", 1, "extractor", "train", "ivectors")


def train_in_one_process(folder, options):
    """Print what --one-process takes on the small part: memory, and the statistics of an utterance."""
    run(folder, "extractor_one", "train_ivector_extractor.sh", "--nj", 1, "--num-iters", 1, "--ivector-dim",
        options.ivector_dim, "--gaussian-min-count", 1, "--one-process", "true", "train", "full_ubm",
        "extractor_one")
    seconds, memory = used(folder, "extractor_one/log/train.log")
    said = (folder / "extractor_one/log/train.log").read_text()
    each = float(re.search(r"statistics, ([\d.]+) kB an utterance", said)[1])
    sizes = ", ".join(f"{name} {1e-6 * each * corpus.utterances:.0f} GB" for name, corpus in CORPORA.items())
    print(f"extractor in one process: {seconds:.0f} s, {memory:.0f} MiB; the utterances' statistics: {sizes}")


def score_trials(folder, data, share):
    """MAP models and GMM scores of a share of the models of the trials."""
    models = (data / "enroll_map").read_text().splitlines()
    models = models[: max(1, round(share * len(models)))]
    (folder / "enroll_map").write_text("".join(f"{line}\n" for line in models))
    names = {line.split()[0] for line in models}
    trials = [line for line in (data / "trials").read_text().splitlines() if line.split()[0] in names]
    (folder / "trials").write_text("".join(f"{line}\n" for line in trials))
    run(folder, "gmm_map", "adapt_gmm.sh", "--nj", 1, data / "test", "enroll_map", "ubm", "gmm_map")
    run(folder, "scores", "score.sh", "--nj", 1, "--backend", "gmm", "trials", "gmm_map", data / "test",
        "scores")
    return {"models": len(models), "trials": len(trials)}


def train_backend(folder, number, dim):
    """LDA to 150 dimensions and PLDA on random vectors of ``number`` utterances."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "vectors.scp").exists():
        rng = np.random.default_rng(0)
        speakers = rng.standard_normal((number // VECTORS_A_SPEAKER + 1, dim))
        names = [f"speaker{row // VECTORS_A_SPEAKER:05d}-{row:07d}" for row in range(number)]
        (folder / "utt2spk").write_text("".join(f"{name} {name[:12]}\n" for name in names))
        with tables.open_writer("vec", f"ark,scp:{folder}/vectors.ark,{folder}/vectors.scp") as out:
            for row, name in enumerate(names):
                out[name] = (speakers[row // VECTORS_A_SPEAKER] + rng.standard_normal(dim)).astype(np.float32)
    lda_dim = min(150, dim // 2)
    run(folder, "plda", "train_plda.sh", "--lda-dim", lda_dim, ".", "vectors.scp", "plda")


def sum_statistics(folder, jobs):
    """The Line of sum-ivector-stats over the files of ``jobs`` jobs, from what each further file costs."""
    stats = folder / "extractor/0.1.acc"
    for number in (1, 3):
        for copy in range(number):
            (folder / f"stats.{copy}").unlink(missing_ok=True)
            (folder / f"stats.{copy}").symlink_to(stats)
        run(folder, f"sum_{number}", "run.py", f"sum.{number}.log", "sum-ivector-stats", "sum.acc",
            *(f"stats.{copy}" for copy in range(number)))
    (folder / "sum.acc").unlink(missing_ok=True)
    first, last = used(folder, "sum.1.log"), used(folder, "sum.3.log")
    kind = Kind(f"extractor: the sum over {jobs} jobs", "", "fixed", 5, split=False)
    return Line(kind, jobs * (last[0] - first[0]) / 2, 0.0, (first[1], last[1]), (0, 0))


def train_networks(folder):
    """Print the memory of a few steps of both networks, and what extraction with them takes."""
    run(folder, "fhvae", "train_fhvae.sh", "--train-config", ROOT / "conf/fhvae_large.conf", "--train-opts",
        "--num-steps=20 --steps-per-epoch=20", "train_fbank", "fhvae")
    (folder / "train_fbank/vad.scp").write_bytes((folder / "train/vad.scp").read_bytes())
    run(folder, "e2e", "train_e2e.sh", "--nj", 1, "--train-config", ROOT / "conf/e2e_xvector.conf",
        "--train-opts", "--batches-per-epoch=10 --num-epochs=1", "train_fbank", "e2e")
    run(folder, "fhvae_extract", "extract_fhvae.sh", "--nj", 1, "--what", "mu2 mu1", "fhvae", "train_fbank",
        "fhvae_train")
    run(folder, "e2e_extract", "extract_embeddings.sh", "--nj", 1, "e2e", "train_fbank", "e2e_train")
    for name in ("fhvae", "e2e"):
        seconds, memory = used(folder, f"{name}/log/train.log")
        print(f"{name}, training: {memory:.0f} MiB, {seconds:.0f} s with its start and its validation")
        seconds, memory = used(folder, f"{name}_train/log/extract.*.log")
        hourly = seconds / size_of(folder / "train").hours
        print(f"{name}, extraction: {memory:.0f} MiB, {hourly:.0f} s an hour")


def used(folder, logs):
    """(mean processor seconds, largest MiB) of the jobs whose logs match."""
    texts = [path.read_text(errors="replace") for path in sorted(folder.glob(logs))]
    found = [ACCOUNTING.findall(text) for text in texts]
    if not found or not all(found):
        sys.exit(f"{folder / logs}: no log with a line `# Accounting: ... cpu=... mem=...`")
    return np.mean([float(last[-1][0]) for last in found]), max(float(last[-1][1]) for last in found)


def fit(kind, folders, amounts):
    """The Line of a kind; amounts are those of its unit in the two folders."""
    (small, memory), (large, more) = (used(folder, kind.logs) for folder in folders)
    if kind.unit == "fixed":
        return Line(kind, max(small, large), 0.0, (memory, more), (0, 0))
    slope = max(0.0, (large - small) / (amounts[1] - amounts[0]))
    return Line(kind, max(0.0, small - slope * amounts[0]), slope, (memory, more), tuple(amounts))


SCALE = {"hours": (1, "an hour"), "utterances": (1000, "1,000 utterances"), "models": (1, "a model"),
         "trials": (1e6, "a million trials"), "fixed": (1, "")}


def print_measured(lines, amounts):
    """One row a kind: constant, slope, memory at both sizes."""
    print(f"\n| step | s at the start | s | by | MiB, small part | MiB, large part |\n{'|---' * 6}|")
    for line in lines:
        scale, words = SCALE[line.kind.unit]
        print(f"| {line.kind.name} | {line.constant:.2f} | {line.slope * scale:.3g} | {words} | "
              f"{line.memory[0]:.0f} | {line.memory[1]:.0f} |")
    print(f"\nsmall and large part: {amounts[0]}, {amounts[1]}")


def start_seconds(line):
    """Constant part of a kind; that of the UBM's start with the sample and the iterations of the step."""
    if line.kind.name == START:
        return line.constant * (500_000 * 20) / (SAMPLE * SAMPLE_ITERATIONS)
    return line.constant


def extrapolated(line, slopes, corpus, part):
    """Processor seconds of a kind for a corpus, less its constant part; ``part`` is what was measured."""
    hourly = sum(slopes[name] for name in line.kind.hourly)
    longer = corpus.hours - corpus.utterances * part.hours / part.utterances
    return line.slope * getattr(corpus, line.kind.unit, 0) + hourly * longer


def print_extrapolated(lines, jobs, part):
    """One row a kind: processor hours in all, minutes of a job, MiB of its largest process; each corpus."""
    heads = " | ".join(f"{name}, CPU h in all | minutes of a job | MiB" for name in CORPORA)
    print(f"\n| step | times | jobs | {heads} |\n{'|---' * (3 + 3 * len(CORPORA))}|")
    totals, slopes = dict.fromkeys(CORPORA, 0.0), {line.kind.name: line.slope for line in lines}
    for line in lines:
        kind, cells, number = line.kind, [], jobs if line.kind.split else 1
        for name, corpus in CORPORA.items():
            seconds, start = extrapolated(line, slopes, corpus, part), start_seconds(line)
            total = kind.times * (number * start + seconds) / 3600
            totals[name] += total
            memory = line.memory_of(getattr(corpus, kind.unit, 0))
            cells.append(f"{total:.3g} | {(start + seconds / number) / 60:.3g} | {memory:.0f}")
        print(f"| {kind.name} | {kind.times} | {number} | {' | '.join(cells)} |")
    print("in all: " + ", ".join(f"{name} {total:.0f} CPU hours" for name, total in totals.items()))


def size_of(data):
    """Size of a data directory that has features."""
    frames = sum(int(line.split()[1]) for line in (data / "utt2num_frames").read_text().splitlines())
    utterances = len((data / "utt2spk").read_text().splitlines())
    return Size(round(frames / 360_000, 4), utterances, len((data / "spk2utt").read_text().splitlines()))


def measure(folder, options):
    """Run everything in ``folder`` and print the tables."""
    data, shares = folder / "data", [float(share) for share in options.shares.split(",")]
    run(folder, "data", sys.executable, ROOT / "local/mini/import_data.py", options.train, options.test,
        options.trials, data)
    features(data, "test")
    number = len((data / "train/utt2spk").read_text().splitlines())
    parts, counts = [folder / f"part{share:g}" for share in shares], []
    for part, share in zip(parts, shares):
        part.mkdir(exist_ok=True)
        run(part, "subset", "subset_data_dir.sh", "--speakers", data / "train", round(share * number),
            "train")
        train_models(part, options)
        counts.append(score_trials(part, data, share))
    backends = [folder / f"vectors{number}" for number in VECTORS]
    for backend, number in zip(backends, VECTORS):
        train_backend(backend, number, options.ivector_dim)
    sizes = [size_of(part / "train") for part in parts]
    lines = [fit(kind, parts, [getattr(size, kind.unit, 0) for size in sizes]) for kind in KINDS]
    scoring = [fit(kind, parts, [count[kind.unit] for count in counts]) for kind in TRIALS]
    backend = [fit(kind, backends, VECTORS) for kind in BACKEND]
    lines.append(sum_statistics(parts[0], options.jobs))
    print_measured([*lines, *scoring, *backend], sizes)
    print_extrapolated([*lines, *backend], options.jobs, sizes[-1])
    train_in_one_process(parts[0], options)
    if options.networks:
        train_networks(parts[-1])


def main():
    """Run it in --dir, or in a folder that goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", default=SHARED / "train")
    parser.add_argument("--test", default=SHARED / "test")
    parser.add_argument("--trials", default=SHARED / "test/trials")
    parser.add_argument("--shares", default="0.25,1", help="two parts of the training data")
    parser.add_argument("--num-gauss", type=int, default=2048)
    parser.add_argument("--ivector-dim", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=32, help="into how many jobs a step is split")
    parser.add_argument("--networks", action="store_true", help="short trainings of the networks, too")
    parser.add_argument("--dir", type=Path, help="where everything goes and stays")
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
        measure(options.dir.resolve(), options)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


if __name__ == "__main__":
    main()
