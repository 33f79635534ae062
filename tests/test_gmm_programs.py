"""train-gmm-em and adapt-gmm-map as programs: streams, memory, seeds, bad input, what they write and say."""

import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT, environment, golden, needs_golden, run, shell
from voxark import tables
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import e_step
from voxark.gmm.full import FullGmm
from voxark.gmm.map import MapOptions, map_adapt
from voxark.gmm.model import read_gmm as read_model
from voxark.gmm.model import write_gmm

NUM_UTTERANCES = 12


def write_features(path, features):
    with tables.open_writer("mat", f"ark:{path}") as out:
        for key, x in features:
            out[key] = x


def make_features(seed=0, number=NUM_UTTERANCES, length=80, dim=4):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((3, dim))
    return [(f"utt{i:03d}", (centres[rng.integers(0, 3, length)] + rng.standard_normal((length, dim)))
             .astype(np.float32)) for i in range(number)]


@pytest.fixture
def feats(tmp_path):
    """An archive of features and its path."""
    write_features(tmp_path / "feats.ark", make_features())
    return tmp_path / "feats.ark"


def read_gmm(path):
    return DiagGmm.from_params(tables.read_object("diag-gmm", str(path)))


def train(rspecifier, output, *options, **keywords):
    return run("train-gmm-em", "--num-gauss=6", "--num-iters=4", *options, rspecifier, output, **keywords)


# ----------------------------------------------------------------------------- train-gmm-em


def test_iterations_are_logged_and_the_model_is_written(feats, tmp_path):
    done = train(f"ark:{feats}", tmp_path / "gmm", "--binary=false")
    text = (tmp_path / "gmm").read_text()
    assert text.startswith("<DiagGMM>") and read_gmm(tmp_path / "gmm").num_gauss == 6
    lines = [line for line in done.stderr.splitlines() if "log-likelihood per frame" in line]
    assert len(lines) == 4 and "LOG (train-gmm-em) iteration 3: log-likelihood per frame -" in lines[2]
    assert lines[0].endswith("over 960 frames")
    assert "done 12, failed 0" in done.stderr.splitlines()[-1]


def test_every_way_in_gives_the_same_bytes(feats, tmp_path):
    train(f"ark:{feats}", tmp_path / "gmm")
    expected = (tmp_path / "gmm").read_bytes()
    tables_text = tmp_path / "feats.scp"
    with tables.open_writer("mat", f"ark,scp:{tmp_path}/again.ark,{tables_text}") as out:
        for key, x in make_features():
            out[key] = x
    ways = {
        "twice": (f"ark:{feats}", {}),
        "script": (f"scp:{tables_text}", {}),
        "standard input": ("ark:-", {"stdin": feats.read_bytes()}),
        "script on standard input": ("scp:-", {"stdin": tables_text.read_bytes()}),
        "command": (f"ark:cat {feats} |", {}),
    }
    for name, (rspecifier, keywords) in ways.items():
        for memory in ("0", "500"):
            train(rspecifier, tmp_path / "other", f"--max-memory={memory}", **keywords)
            assert (tmp_path / "other").read_bytes() == expected, (name, memory)
    train(f"ark:{feats}", tmp_path / "other", "--num-threads=2")
    assert (tmp_path / "other").read_bytes() == expected
    train(f"ark:{feats}", tmp_path / "other", "--srand=1")
    assert (tmp_path / "other").read_bytes() != expected


def test_process_substitution_and_pipe_out(feats, tmp_path):
    train(f"ark:{feats}", tmp_path / "gmm")
    shell(f"train-gmm-em --max-memory=0 --num-gauss=6 --num-iters=4 ark:<(cat {feats}) - > {tmp_path}/other")
    assert (tmp_path / "other").read_bytes() == (tmp_path / "gmm").read_bytes()


def test_the_copy_of_standard_input_is_removed(feats, tmp_path):
    (tmp_path / "tmp").mkdir()
    env = environment(TMPDIR=str(tmp_path / "tmp"))
    train("ark:-", tmp_path / "gmm", stdin=feats.read_bytes(), env=env)
    train("ark:-", tmp_path / "none", stdin=feats.read_bytes()[:-3], env=env, check=False)
    assert list((tmp_path / "tmp").iterdir()) == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("start", ["random-frames", "kmeans++"])
def test_other_starts(feats, tmp_path, start):
    train(f"ark:{feats}", tmp_path / "gmm", f"--init={start}", "--num-frames=200")
    assert read_gmm(tmp_path / "gmm").num_gauss == 6


@needs_golden
def test_one_iteration_of_a_kaldi_model(tmp_path):
    model = golden("model")
    options = ("--num-iters=1", f"--initial-model={model}/diag.0.gmm", "--remove-low-count-gaussians=false")
    done = run("train-gmm-em", *options, f"ark:{model}/feats.ark", tmp_path / "gmm")
    ours, kaldi = read_gmm(tmp_path / "gmm"), read_gmm(model / "diag.1.gmm")
    np.testing.assert_allclose(ours.weights, kaldi.weights, rtol=2e-4)
    np.testing.assert_allclose(ours.variances, kaldi.variances, rtol=5e-4)
    assert "log-likelihood per frame -77.47" in done.stderr


@needs_golden
def test_one_iteration_of_a_kaldi_model_with_full_covariances(tmp_path):
    model = golden("model")
    options = ("--num-iters=1", "--remove-low-count-gaussians=false", "--min-gaussian-occupancy=50")
    kaldi = read_model(str(model / "full.1.gmm"))
    for name, more in (("full.0.gmm", ()), ("diag.1.gmm", ("--covariance=full",))):  # diagonal is made full
        done = run("train-gmm-em", *options, *more, f"--initial-model={model}/{name}",
                   f"ark:{model}/feats.ark", tmp_path / "gmm")
        ours = read_model(str(tmp_path / "gmm"))
        np.testing.assert_allclose(ours.weights, kaldi.weights, rtol=2e-4)
        np.testing.assert_allclose(ours.covars, kaldi.covars, atol=2e-5 * kaldi.covars.max())
        assert "log-likelihood per frame -77.18" in done.stderr
    done = run("train-gmm-em", "--covariance=diag", f"--initial-model={model}/full.0.gmm",
               f"ark:{model}/feats.ark", tmp_path / "none", check=False)
    assert done.returncode == 1 and "gmm-copy --to=diag" in done.stderr and not (tmp_path / "none").exists()


def test_full_covariances_from_the_start_and_viterbi(feats, tmp_path):
    full = ("--covariance=full", "--min-gaussian-occupancy=20")
    subset = "training on 700 frames chosen out of 960"
    ways = (("--init=random-frames",), ("--init=kmeans++", "--training=viterbi"), ("--train-frames=700",))
    for options in ways:
        done = train(f"ark:{feats}", tmp_path / "gmm", *full, *options)
        gmm = read_model(str(tmp_path / "gmm"))
        assert isinstance(gmm, FullGmm) and 4 <= gmm.num_gauss <= 6
        assert ("Viterbi log-likelihood per frame" in done.stderr) == ("--training=viterbi" in options)
        assert (subset in done.stderr) == ("--train-frames=700" in options)
    first = (tmp_path / "gmm").read_bytes()
    train("ark:-", tmp_path / "gmm", *full, "--train-frames=700", "--max-memory=0", stdin=feats.read_bytes())
    assert (tmp_path / "gmm").read_bytes() == first
    assert "done 12, failed 0" in done.stderr.splitlines()[-1]


def test_a_device_that_is_not_there(feats, tmp_path):
    done = train(f"ark:{feats}", tmp_path / "gmm", "--device=tpu", check=False)
    assert done.returncode == 1 and "--device=tpu" in done.stderr


def test_starved_gaussians_are_reported(feats, tmp_path):
    initial = DiagGmm(np.full(3, 1 / 3), [[0.0] * 4, [1.0] * 4, [900.0] * 4], np.ones((3, 4)))
    tables.write_object("diag-gmm", str(tmp_path / "init"), initial.to_params())
    for options, number in (((), 2), (("--rescue",), 3), (("--remove-low-count-gaussians=false",), 3)):
        done = train(f"ark:{feats}", tmp_path / "gmm", f"--initial-model={tmp_path}/init", *options)
        assert "WARNING (train-gmm-em) too little data for Gaussian 2" in done.stderr
        assert read_gmm(tmp_path / "gmm").num_gauss == number


def with_nan(features):
    features[5][1][7, 2] = np.nan
    return features


def with_another_dimension(features):
    features[5] = (features[5][0], features[5][1][:, :3])
    return features


@pytest.mark.parametrize("spoil, message", [
    (with_nan, "utt005: .*frame 7, column 2 is nan"),
    (with_another_dimension, "utt005: .*dimension 3.* utt000 has 4"),
    (lambda features: features[:0], "no frames"),
    (lambda features: [(key, x[:0]) for key, x in features], "no frames"),
    (lambda features: [(key, x[:1]) for key, x in features], "12 frames are too few for 6 .*--num-gauss=1"),
])
def test_bad_features_end_in_one_line(tmp_path, spoil, message):
    import re

    write_features(tmp_path / "feats.ark", spoil(make_features()))
    done = train(f"ark:{tmp_path}/feats.ark", tmp_path / "gmm", check=False)
    assert done.returncode == 1 and not (tmp_path / "gmm").exists()
    assert re.search(rf"^ERROR \(train-gmm-em\) .*{message}", done.stderr, re.M), done.stderr


def test_utterances_without_frames_are_counted_once(tmp_path):
    features = make_features()
    features.insert(3, ("empty", np.zeros((0, 0), np.float32)))
    write_features(tmp_path / "feats.ark", features)
    options = ("--max-memory=0", f"--failed-list={tmp_path}/failed")
    done = train(f"ark:{tmp_path}/feats.ark", tmp_path / "gmm", *options)
    assert "done 12, failed 1" in done.stderr and done.stderr.count("empty: no frames") == 1
    assert (tmp_path / "failed").read_text() == "empty no frames\n"


def test_failures_of_input_and_output(feats, tmp_path):
    assert train("ark:false |", tmp_path / "gmm", check=False).returncode == 1
    assert train(f"ark:cat {feats}; false |", tmp_path / "gmm", check=False).returncode == 1
    assert train(f"ark:{tmp_path}/none.ark", tmp_path / "gmm", check=False).returncode == 1
    for name, message in ((tmp_path / "none/gmm", "no directory"), ("ark:gmm", "a table was given")):
        done = train(f"ark:{feats}", name, check=False)  # found before the work
        assert done.returncode == 1 and message in done.stderr and "iteration" not in done.stderr
    done = train(f"ark:{feats}", tmp_path / "gmm", "--num-gauss=0", check=False)
    assert done.returncode == 1 and "--num-gauss" in done.stderr
    (tmp_path / "bad").write_bytes(b"\0B<DiagGMM> ")
    done = train(f"ark:{feats}", tmp_path / "gmm", f"--initial-model={tmp_path}/bad", check=False)
    assert done.returncode == 1 and "bad" in done.stderr
    assert not (tmp_path / "gmm").exists()


def peak_memory(*arguments):
    """Peak resident memory of a program, in megabytes."""
    code = ("import resource, subprocess, sys;"
            "subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)")
    command = [sys.executable, "-c", code, sys.executable, *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, check=True, env=environment()).stdout)


@pytest.mark.parametrize("start", ["global-split", "random-frames"])
@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_memory_does_not_grow_with_the_data(tmp_path, covariance, start):
    features = make_features(number=20, length=1000, dim=40)
    write_features(tmp_path / "part.ark", features)
    peaks = []
    for copies in (1, 12):  # 3.2 and 38 MB of features
        many = tmp_path / f"{copies}.ark"
        write_features(many, [(f"{i:02d}-{key}", x) for i in range(copies) for key, x in features])
        options = ("--num-gauss=4", "--num-iters=2", "--max-memory=2", "--num-frames=5000", f"--init={start}",
                   f"--covariance={covariance}")
        peaks.append(peak_memory(ROOT / "bin/train-gmm-em", *options, f"ark:{many}", tmp_path / "gmm"))
    assert peaks[1] < peaks[0] + 8, peaks


# ----------------------------------------------------------------------------- adapt-gmm-map


@pytest.fixture
def ubm(feats, tmp_path):
    train(f"ark:{feats}", tmp_path / "ubm")
    return tmp_path / "ubm"


def adapt(ubm, spk2utt, feats, output, *options, **keywords):
    (ubm.parent / "spk2utt").write_text(spk2utt)
    spk2utt = f"ark:{ubm.parent}/spk2utt"
    return run("adapt-gmm-map", *options, ubm, spk2utt, f"ark:{feats}", output, **keywords)


@pytest.mark.parametrize("options, rules", [
    ((), MapOptions()), (("--update-flags=mvw", "--mean-tau=10"), MapOptions("mvw", 10.0))])
def test_models_equal_the_library(ubm, feats, tmp_path, options, rules):
    adapt(ubm, "spk1 utt000 utt001\nspk2 utt005\n", feats, f"ark:{tmp_path}/spk.gmm", *options)
    with tables.open_reader("diag-gmm", f"ark:{tmp_path}/spk.gmm") as reader:
        models = {key: DiagGmm.from_params(params) for key, params in reader}
    assert list(models) == ["spk1", "spk2"]
    prior, features = read_gmm(ubm), make_features()
    for speaker, chosen in (("spk1", features[:2]), ("spk2", features[5:6])):
        expected = map_adapt(prior, e_step(prior, chosen), rules)
        np.testing.assert_allclose(models[speaker].means, expected.means, rtol=1e-5)
        np.testing.assert_allclose(models[speaker].variances, expected.variances, rtol=1e-5)
        np.testing.assert_allclose(models[speaker].weights, expected.weights, rtol=1e-5)


def test_missing_utterances_are_counted_and_empty_speakers_fail(ubm, feats, tmp_path):
    spk2utt = "spk1 utt000 gone1\nspk2 gone2 gone3\nspk3 utt002\n"
    done = adapt(ubm, spk2utt, feats, f"ark,t:{tmp_path}/spk.gmm")
    assert "WARNING (adapt-gmm-map) spk1: no features for 1 of its 2 utterances: gone1" in done.stderr
    assert "spk2: none of its utterances has any frames" in done.stderr
    assert "3 utterances of the speakers had no features" in done.stderr and "done 2, failed 1" in done.stderr
    assert (tmp_path / "spk.gmm").read_text().count("<DiagGMM>") == 2
    done = adapt(ubm, "spk2 gone2\n", feats, f"ark:{tmp_path}/none.gmm", check=False)
    assert done.returncode == 1 and "done 0, failed 1" in done.stderr


def test_features_that_can_be_asked_for_once(ubm, feats, tmp_path):
    (tmp_path / "spk2utt").write_text("spk1 utt000 utt001\nspk2 utt005\n")
    for flags in ("ark,o", "ark,s,cs"):
        output = f"ark:{tmp_path}/{flags}.gmm"
        run("adapt-gmm-map", ubm, f"ark:{tmp_path}/spk2utt", f"{flags}:{feats}", output)
    assert (tmp_path / "ark,o.gmm").read_bytes() == (tmp_path / "ark,s,cs.gmm").read_bytes()


def test_bad_features_fail_their_speaker_only(ubm, tmp_path):
    write_features(tmp_path / "bad.ark", with_nan(make_features()))
    done = adapt(ubm, "spk1 utt004 utt005\nspk2 utt006\n", tmp_path / "bad.ark", f"ark:{tmp_path}/spk.gmm")
    assert "spk1: utt005: " in done.stderr and "frame 7, column 2 is nan" in done.stderr
    assert "done 1, failed 1" in done.stderr


def test_wrong_options_and_models(ubm, feats, tmp_path):
    spk2utt = "spk1 utt000\n"
    write_gmm(str(tmp_path / "full"), read_gmm(ubm).to_full())
    done = adapt(tmp_path / "full", spk2utt, feats, "ark:/dev/null", check=False)
    assert done.returncode == 1 and "full: MAP adaptation is for diagonal covariances" in done.stderr
    done = adapt(ubm, spk2utt, feats, "ark:/dev/null", "--update-flags=x", check=False)
    assert done.returncode == 1 and "--update-flags=x" in done.stderr
    write_features(tmp_path / "wide.ark", make_features(dim=5))
    done = adapt(ubm, spk2utt, tmp_path / "wide.ark", "ark:/dev/null", check=False)
    assert done.returncode == 1 and "utt000: features have dimension 5, the GMM 4" in done.stderr


@pytest.mark.parametrize("program", ["train-gmm-em", "adapt-gmm-map"])
def test_only_numpy_is_imported(feats, ubm, tmp_path, program):
    (tmp_path / "spk2utt").write_text("spk1 utt000\n")
    arguments = {"train-gmm-em": ["--num-gauss=2", "--init=kmeans++", "--covariance=full", "--report",
                                  f"ark:{feats}", tmp_path / "gmm"],
                 "adapt-gmm-map": [ubm, f"ark:{tmp_path}/spk2utt", f"ark:{feats}", f"ark:{tmp_path}/spk.gmm"]}
    done = run(program, *arguments[program], env=environment(PYTHONPROFILEIMPORTTIME="1"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "numpy" in imported
    assert not imported & {"torch", "scipy", "sklearn", "soundfile", "kaldiio", "tqdm"}
