"""egs/mini/speechocean762_fhvae.sh on a corpus of tones: systems, lists, gains, tables; what is done stays."""

import csv
import subprocess

import pytest
from helpers import ROOT, environment, forked_environment, write_lines
from test_speechocean_e2e_recipe import make_corpus

pytest.importorskip("torch")
pytest.importorskip("sklearn")
TINY = ("--arch=fc --hidden-dim=8 --z1-dim=4 --z2-dim=4 --sequence-batch-size=20 --segment-batch-size=32 --num-steps=4 "
        "--steps-per-epoch=2 --dev-share=0.2")


def recipe(*words):
    return subprocess.run([str(ROOT / "egs/mini/speechocean762_fhvae.sh"), *map(str, words)],
                          capture_output=True, text=True, env=forked_environment(with_torch=True), timeout=300)


def rows_of(name):
    with name.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def run_twice(tmp_path_factory):
    """(folder of results, first run, second run, the models after the first)."""
    folder = tmp_path_factory.mktemp("recipe")
    data = folder / "data"
    make_corpus(data / "speechocean762", "train", 8, 0)
    make_corpus(data / "speechocean762", "test", 6, 8)
    make_corpus(data / "librispeech_mini", "test_other", 3, 14)
    make_corpus(data / "timit_sample", "all", 6, 17)
    test, timit = data / "speechocean762/test", data / "timit_sample/all"
    speakers = sorted({line.split()[1] for line in (test / "utt2spk").open()})
    write_lines(test / "spk2gender", *(f"{speaker} {'fm'[n % 2]}" for n, speaker in enumerate(speakers)))
    keys = [line.split()[0] for line in (timit / "utt2spk").open()]
    write_lines(timit / "phones.ctm", *(f"{key} 1 {start:.1f} 0.3 {phone}" for key in keys
                                        for start, phone in ((0.0, "aa"), (0.3, "s"), (0.6, "sil"), (0.9, "iy"))))
    words = ("--seeds", 3, "--nj", 1, "--num-threads", 1, "--systems", "hierarchical flat alpha0", "--lda-dim", 3,
             "--train-opts", TINY, data, folder / "exp")
    first = recipe(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    models = {path: path.read_bytes() for path in (folder / "exp").glob("seed*/*/final.pt")}
    rows = rows_of(folder / "exp/results.csv"), rows_of(folder / "exp/disentanglement.csv")
    return folder / "exp", first, rows, recipe("--systems", "flat", *words[:6], *words[8:]), models


def test_all_systems_on_all_lists(run_twice):
    _, first, (rates, gains), _, _ = run_twice
    systems = ("hierarchical", "flat", "alpha0")
    assert {(row["system"], row["list"]) for row in rates} == {
        (f"{system} {mu}{lda}", name) for system in systems for mu in ("mu1", "mu2") for lda in ("", " LDA-3")
        for name in ("speechocean762", "samegroup", "librispeech_mini", "timit_sample")}
    assert all(0 <= float(row["eer"]) <= 0.7 and 0 <= float(row["min_cllr"]) <= 1.01 for row in rates)
    assert {(row["system"], row["list"], row["factor"], row["latent"]) for row in gains} == {
        (system, *place, latent) for system in systems for latent in ("z1", "z2")
        for place in (("speechocean762", "speaker"), ("speechocean762", "gender"), ("timit_sample", "speaker"),
                      ("timit_sample", "61 phones"), ("timit_sample", "3 classes"))}
    lines = first.stdout.splitlines()
    assert lines[0].split()[:3] == ["system", "trials", "seeds"]
    assert sum(line.startswith("hierarchical") for line in lines) == 16 + 5


def test_what_is_done_is_not_done_again(run_twice):
    exp, first, _, second, models = run_twice
    assert second.returncode == 0, second.stderr
    assert second.stdout == (exp / "results.txt").read_text() and "hierarchical" not in second.stdout
    assert len(models) == 3 and {path: path.read_bytes() for path in models} == models
    known = {" ".join(line.split()) for line in first.stdout.splitlines()}
    assert all(" ".join(line.split()) in known for line in second.stdout.splitlines())


def test_unknown_systems_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    done = subprocess.run([str(ROOT / "egs/mini/speechocean762_fhvae.sh"), "--systems", "other", str(tmp_path / "data"),
                           str(tmp_path / "exp")], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1 and "other: expected hierarchical" in done.stderr
