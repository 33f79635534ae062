"""egs/mini/speechocean762_e2e.sh on a corpus of tones: trained systems, lists, fusion, table; what is done stays."""

import csv
import itertools
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, environment, forked_environment, write_lines
from scipy.io import wavfile

pytest.importorskip("torch")
RATE = 16000
TINY = ("--channels=8 --embedding-dim=8 --batch-speakers=4 --min-chunk=50 --max-chunk=60 --batches-per-epoch=2 "
        "--num-epochs=1 --dev-share=0.3 --speed-perturb=0.9 --init-batches=2 --loader-threads=1")


def make_corpus(folder, name, num_speakers, first_speaker):
    """A Kaldi data directory of tones, each speaker at a pitch of its own, with all pairs as trials."""
    rng = np.random.default_rng(first_speaker)
    data = folder / name
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True)
    keys, time = [], np.arange(int(1.2 * RATE)) / RATE
    for speaker, number in itertools.product(range(num_speakers), range(4)):
        key = f"s{first_speaker + speaker:02d}-u{number}"
        pitch = 90.0 + 17.0 * (first_speaker + speaker) + rng.normal()
        voice = sum(np.sin(2 * np.pi * k * pitch * time + rng.uniform(0, 6)) / k for k in range(1, 12))
        wavfile.write(folder / "wav" / f"{key}.wav", RATE,
                      (1000 * (voice + 0.3 * rng.standard_normal(len(time)))).astype(np.int16))
        keys.append(key)
    write_lines(data / "wav.scp", *(f"{key} wav/{key}.wav" for key in keys))
    write_lines(data / "utt2spk", *(f"{key} {key[:3]}" for key in keys))
    trials = [f"{a} {b} {'target' if a[:3] == b[:3] else 'nontarget'}"
              for a, b in itertools.combinations(keys, 2)]
    write_lines(data / "trials", *trials)
    write_lines(data / "trials_samegroup", *trials[::2])
    return trials


def recipe(*words):
    return subprocess.run([str(ROOT / "egs/mini/speechocean762_e2e.sh"), *map(str, words)],
                          capture_output=True, text=True, env=forked_environment(with_torch=True), timeout=300)


@pytest.fixture(scope="module")
def run_twice(tmp_path_factory):
    """(folder of results, first run, its results, second run, the models after the first)."""
    folder = tmp_path_factory.mktemp("recipe")
    make_corpus(folder / "data/speechocean762", "train", 10, 0)
    trials = make_corpus(folder / "data/speechocean762", "test", 6, 10)
    make_corpus(folder / "data/librispeech_mini", "test_other", 3, 16)
    make_corpus(folder / "data/timit_sample", "all", 3, 19)
    rng = np.random.default_rng(0)
    write_lines(folder / "other", *(f"{' '.join(line.split()[:2])} {rng.normal() + line.endswith(' target')}"
                                    for line in trials))
    words = ("--seeds", 3, "--nj", 1, "--num-threads", 1, "--train-opts", TINY, "--ivectors", folder / "other",
             folder / "data", folder / "exp")
    first = recipe(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    models = {path: path.read_bytes() for path in (folder / "exp").glob("seed*/*/final.pt")}
    with (folder / "exp/results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    second = recipe("--systems", "identification", *words)
    return folder / "exp", first, rows, second, models


def test_all_systems_on_all_lists(run_twice):
    _, first, rows, _, _ = run_twice
    found = {(row["system"], row["seed"], row["list"]) for row in rows}
    lists = ("speechocean762", "samegroup")
    mapped = [f"{system}{kind}" for system in ("identification", "joint") for kind in (" calibrated", " + i-vectors")]
    expected = {(system, "-", name) for system in ("i-vectors", "i-vectors calibrated") for name in lists}
    expected |= {(system, "3", name) for system in ("identification", "joint")
                 for name in (*lists, "librispeech_mini", "timit_sample")}
    expected |= {(system, "3", name) for system in mapped for name in lists}
    assert found == expected and len(rows) == len(expected)
    assert all(0 <= float(row["eer"]) <= 0.6 and float(row["min_dcf"]) <= 1 for row in rows)
    assert first.stdout.splitlines()[0].split()[:3] == ["system", "trials", "seeds"]
    assert len(first.stdout.splitlines()) == len(rows) + 1


def test_what_is_done_is_not_done_again(run_twice):
    exp, first, _, second, models = run_twice
    assert second.returncode == 0, second.stderr
    assert second.stdout == (exp / "results.txt").read_text() and "joint" not in second.stdout
    assert set(map(str.strip, second.stdout.splitlines()[1:])) <= set(map(str.strip, first.stdout.splitlines()))
    assert models and {path: path.read_bytes() for path in models} == models


def test_table_of_seeds(tmp_path):
    values = [[0.04, 0.5, 0.6, 0.2, 0.1], [0.05, 0.7, 0.6, 0.3, 0.1]]
    header = "system,seed,list,eer,min_dcf,act_dcf,cllr,min_cllr"
    lines = [f'"a, b",{n},x,{",".join(map(str, row))}' for n, row in enumerate(values)]
    write_lines(tmp_path / "r.csv", header, *lines, "c,-,x,.06,1,1,1,1")

    def table(name):
        return subprocess.run([sys.executable, str(ROOT / "local/mini/seed_table.py"), "--print-args=false", str(name)],
                              capture_output=True, text=True, env=environment())

    done = table(tmp_path / "r.csv").stdout.splitlines()
    assert done[0].split() == ["system", "trials", "seeds", "EER", "%", "minDCF", "actDCF", "Cllr", "minCllr"]
    deviation = np.std([4, 5], ddof=1)
    assert done[1].split()[:6] == ["a,", "b", "x", "2", "4.50", f"({deviation:.2f})"]
    assert done[2].split() == ["c", "x", "1", "6.00", "1.000", "1.000", "1.000", "1.000"]
    for content, message in ((["system,list"], "no column eer"), ([header], "no results"),
                             ([header, "a,0,x,?,1,1,1,1"], "line 2: eer is no number")):
        write_lines(tmp_path / "bad.csv", *content)
        failed = table(tmp_path / "bad.csv")
        assert failed.returncode == 1 and message in failed.stderr and "Traceback" not in failed.stderr
