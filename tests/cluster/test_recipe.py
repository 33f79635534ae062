"""The recipe of egs/mini through the clusters: the numbers of run.py."""

import subprocess

import pytest
from helpers import ROOT, forked_environment
from launching import QUICK, environment_in, name_of
from test_mini_recipe import needs_espeak

RUN = ROOT / "egs/mini/run.sh"
# Every kind of job, as small as it can be. The latent space is left out: its jobs are those of the FHVAE before it, and
# the probes and pictures, which no launcher sees, take as long as all the rest.
SMALL = ("--nj", "2", "--num-gauss", "8", "--num-iters", "3", "--ivector-dim", "8", "--e2e-opts",
         "--num-epochs=1 --batches-per-epoch=3", "--fhvae-opts", "--num-steps=10 --steps-per-epoch=5")
STAGES = (("--stop-stage", "10"), ("--systems", "gmm pooled ivector e2e", "--stop-stage", "13"))


def recipe(folder, cluster, corpus):
    """Run the recipe; return the numbers of its table, and the PLDA of the FHVAE's vectors."""
    launcher = " ".join([name_of(cluster), *(QUICK if cluster else ())])
    env = environment_in(cluster) if cluster else forked_environment(with_torch=True)
    parts = ["--train", corpus / "train", "--test", corpus / "test", "--trials", corpus / "test/trials"]
    for stages in STAGES:
        done = subprocess.run([RUN, *parts, "--dir", folder, "--cmd", launcher, *SMALL, *stages], env=env,
                              capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return (folder / "results.txt").read_text().split("\nData:")[0], (folder / "plda_fhvae/plda").read_bytes()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The tiny corpus, made once."""
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run([ROOT / "local/mini/make_corpus.py", "--size=tiny", "--nj=2", folder], env=environment_in(None),
                   check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """The folder of run.py and what :func:`recipe` finds there."""
    folder = tmp_path_factory.mktemp("here")
    return folder, recipe(folder, None, corpus)


@needs_espeak
def test_the_mini_recipe(cluster, corpus, expected, tmp_path):
    where, found = expected
    assert recipe(tmp_path, cluster, corpus) == found and found[0].count("\n") > 8
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*.log")) for folder in (where, tmp_path)]
    assert names[0] == names[1] and len(names[0]) > 50  # every job has left its log, in the same place
