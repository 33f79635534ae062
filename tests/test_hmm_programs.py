"""train-hmm-em, align-hmm, score-hmm and compute-vad --hmm as programs: files, counts, bad input."""

import re

import numpy as np
import pytest

from helpers import environment, load_ark, run, save_ark
from test_hmm import draw, utterances
from voxark import tables
from voxark.errors import VoxarkError
from voxark.feat.vad import energy_vad
from voxark.gmm.diag import DiagGmm
from voxark.hmm.decode import align, score
from voxark.hmm.model import Hmm, read_hmm, write_hmm
from voxark.hmm.topology import named_topology
from voxark.hmm.vad import HmmVad
from voxark.hmm.vad_options import HmmVadOptions


@pytest.fixture
def data(tmp_path):
    """Features and their states as rspecifiers, and both as arrays."""
    features, labels, truth = utterances(1)
    save_ark(tmp_path / "feats.ark", dict(features))
    with tables.open_writer("ivec", f"ark:{tmp_path}/ali.ark") as out:
        for key, states in labels.items():
            out[key] = states
    return f"ark:{tmp_path}/feats.ark", f"ark:{tmp_path}/ali.ark", features, labels, truth


def train(feats, output, *options, **keywords):
    return run("train-hmm-em", "--num-iters=3", "--num-states=3", *options, feats, output, **keywords)


def small_hmm():
    pdfs = [
        DiagGmm([0.25, 0.75], [[0.5, 1.0], [2.0, 3.0]], [[1.0, 2.0], [0.5, 0.25]]),
        DiagGmm([1.0], [[1.0, 2.0]], [[1, 1]]),
    ]
    return Hmm(*named_topology("left-to-right", 3, "prob"), pdfs, [0, 1, 0], "prob")


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("binary", [True, False])
def test_files_keep_the_model(tmp_path, binary):
    hmm, path, again = small_hmm(), tmp_path / "hmm", tmp_path / "again"
    write_hmm(str(path), hmm, binary)
    found = read_hmm(str(path))
    np.testing.assert_allclose(found.transitions, hmm.transitions)
    np.testing.assert_allclose(found.pdfs[0].means, hmm.pdfs[0].means)
    assert found.ending == "prob" and found.pdf_of.tolist() == [0, 1, 0]
    write_hmm(str(again), found, binary)
    assert again.read_bytes() == path.read_bytes()
    with tables.open_writer("hmm", f"ark{'' if binary else ',t'}:{tmp_path}/two.ark") as out:
        out["a"], out["b"] = hmm.to_params(), hmm.to_params()
    with tables.open_reader("hmm", f"ark:{tmp_path}/two.ark") as reader:
        assert [Hmm.from_params(params).num_states for _, params in reader] == [3, 3]


def test_the_text_form_is_as_documented(tmp_path):
    write_hmm(str(tmp_path / "hmm"), small_hmm(), False)
    lines = (tmp_path / "hmm").read_text().splitlines()
    assert lines[:4] == [
        "<HMM> <ENDING> prob <INITIAL>  [ 1 0 0 ]",
        "<FINAL>  [ 0 0 0.25 ]",
        "<PDFS> 0 1 0 ",
        "<TO> 0 1 ",
    ]
    assert (
        lines[4] == "<PROBS>  [ 0.75 0.25 ]" and "<NUMPDFS> 2 <DiagGMM> " in lines and lines[-1] == "</HMM> "
    )


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("prob", "often", "ending"),
        ("<TO> 0 1 ", "<TO> 0 9 ", "not there"),
        ("<PDFS> 0 1 0", "<PDFS> 0 1 7", "pdfs"),
        ("[ 0.75 0.25 ]", "[ 0.75 ]", "not there"),
        ("0 0 0.25", "0 0 nan", "final"),
        ("</HMM>", "</GMM>", "</HMM>"),
    ],
)
def test_corrupt_files_are_named(tmp_path, old, new, message):
    path = tmp_path / "hmm"
    write_hmm(str(path), small_hmm(), False)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(VoxarkError, match=message) as caught:
        read_hmm(str(path))
    assert str(path) in str(caught.value)
    done = run("score-hmm", path, "ark:/dev/null", "ark:/dev/null", check=False)
    assert done.returncode == 1 and str(path) in done.stderr


def test_a_cut_file_is_an_error_at_every_byte(tmp_path):
    write_hmm(str(tmp_path / "hmm"), small_hmm())
    whole = (tmp_path / "hmm").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(VoxarkError):
            read_hmm(str(tmp_path / "cut"))


# ---------------------------------------------------------------------- train-hmm-em


def test_training_logs_reports_and_writes(data, tmp_path):
    feats = data[0]
    done = train(
        feats,
        tmp_path / "hmm",
        "--report",
        f"--report-file={tmp_path}/terms",
        "--num-gauss=2",
        "--final=prob",
    )
    lines = [line for line in done.stderr.splitlines() if "log-likelihood per frame" in line]
    values = [float(re.search(r"frame (-[0-9.]+)", line)[1]) for line in lines]
    assert len(values) == 3 and values[2] > values[0] and "done 12, failed 0" in done.stderr.splitlines()[-1]
    table = [line.split("\t") for line in (tmp_path / "terms").read_text().splitlines()]
    assert table[0][:3] == ["iteration", "step", "lnp"] and [row[1] for row in table[1:]] == ["E", "M"] * 3
    for row in table[1:]:
        lnp, q, h, kl, num = map(float, row[2:])
        assert lnp == pytest.approx(q + h + kl, rel=1e-9) and num == sum(len(x) for _, x in data[2])
        assert lnp / num == pytest.approx(values[int(row[0]) - 1], abs=1e-5) or row[1] == "M"
    hmm = read_hmm(str(tmp_path / "hmm"))
    assert hmm.ending == "prob" and [pdf.num_gauss for pdf in hmm.pdfs] == [2, 2, 2]
    assert (tmp_path / "hmm").read_bytes()[:2] == b"\0B"


def test_the_same_bytes_from_pipes_and_at_every_memory(data, tmp_path):
    feats = data[0]
    options = ("--topo=ergodic", "--num-gauss=2")
    train(feats, tmp_path / "a", *options)
    train(f"ark:cat {feats[4:]} |", tmp_path / "b", *options, "--max-memory=0")
    with open(feats[4:], "rb") as source:
        train("ark:-", tmp_path / "c", *options, stdin=source.read())
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    train(feats, tmp_path / "d", *options, "--srand=1")
    assert (tmp_path / "d").read_bytes() != (tmp_path / "a").read_bytes()


def test_going_on_from_a_model_equals_one_run(data, tmp_path):
    feats = data[0]
    train(feats, tmp_path / "start", "--num-iters=1")
    train(feats, tmp_path / "on", "--num-iters=1", f"--initial-model={tmp_path}/start")
    train(feats, tmp_path / "whole", "--num-iters=2")
    on, whole = read_hmm(str(tmp_path / "on")), read_hmm(str(tmp_path / "whole"))
    np.testing.assert_allclose(
        on.transitions, whole.transitions, atol=1e-5
    )  # densities were float32 in between
    for a, b in zip(on.pdfs, whole.pdfs):
        np.testing.assert_allclose(a.means, b.means, rtol=1e-4, atol=1e-4)


def test_labels_and_fixed_training(data, tmp_path):
    feats, ali, features, labels, _ = data
    options = ("--topo=ergodic", f"--ali={ali}", "--training=fixed")
    train(feats, tmp_path / "hmm", *options)
    hmm = read_hmm(str(tmp_path / "hmm"))
    x, z = np.concatenate([x for _, x in features]), np.concatenate([labels[key] for key, _ in features])
    for state in range(3):
        np.testing.assert_allclose(
            hmm.pdfs[state].means[0], x[z == state].mean(axis=0, dtype=float), rtol=1e-4
        )
    done = train(feats, tmp_path / "none", "--training=fixed", check=False)
    assert done.returncode == 1 and "--ali" in done.stderr


def test_utterances_that_cannot_be_used_are_counted_once(data, tmp_path):
    features = dict(data[2])
    features |= {"x-short": features["utt00"][:2], "x-empty": features["utt00"][:0]}
    feats = save_ark(tmp_path / "more.ark", features)
    done = train(feats, tmp_path / "hmm", f"--failed-list={tmp_path}/failed", "--max-memory=0")
    assert "done 12, failed 2" in done.stderr
    failed = dict(line.split(" ", 1) for line in (tmp_path / "failed").read_text().splitlines())
    assert sorted(failed) == ["x-empty", "x-short"] and "shortest path" in failed["x-short"]
    with tables.open_writer("ivec", f"ark:{tmp_path}/ali") as out:
        for key, states in data[3].items():
            out[key] = states[:-1] if key == "utt03" else states + 5 * (key == "utt04")
    done = train(feats, tmp_path / "hmm", f"--ali=ark:{tmp_path}/ali", "--topo=ergodic")
    assert "utt04: labels from" in done.stderr and "utt03: " in done.stderr and "labels for" in done.stderr
    assert "x-short: no labels" in done.stderr and "done 10, failed 4" in done.stderr
    done = train(
        data[0], tmp_path / "hmm", f"--ali={data[1]}", check=False
    )  # left-to-right, which labels are not
    assert "its labels make a step that the model does not have" in done.stderr


@pytest.mark.parametrize(
    "option, message",
    [
        ("--num-states=0", "--num-states=0"),
        ("--num-gauss=0", "--num-gauss"),
        ("--topo=no-such-file", "no-such-file"),
        ("--final=maybe", "--final"),
        ("--num-iters=-1", "--num-iters"),
        ("--initial-model=none", "none"),
    ],
)
def test_wrong_options(data, tmp_path, option, message):
    done = train(data[0], tmp_path / "hmm", option, check=False)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "hmm").exists()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x: x * np.nan, "utt05: feature at frame 0, column 0 is nan"),
        (lambda x: x[:, :1], "utt05: dimension 1"),
    ],
)
def test_bad_features_end_in_one_line(data, tmp_path, spoil, message):
    feats = save_ark(tmp_path / "bad", {key: spoil(x) if key == "utt05" else x for key, x in data[2]})
    done = train(feats, tmp_path / "hmm", check=False)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "hmm").exists()


def test_nothing_but_short_utterances_is_an_error(tmp_path):
    feats = save_ark(tmp_path / "f", {"a": np.zeros((2, 2), np.float32)})
    done = train(feats, tmp_path / "hmm", check=False)
    assert (
        done.returncode == 1 and "no utterance has a path" in done.stderr and not (tmp_path / "hmm").exists()
    )


# ---------------------------------------------------------------------- align-hmm, score-hmm


def test_alignments_and_scores_equal_the_library(data, tmp_path):
    feats, _, features, labels, truth = data
    write_hmm(str(tmp_path / "hmm"), truth)
    run(
        "align-hmm",
        f"--write-scores=ark,t:{tmp_path}/scores",
        tmp_path / "hmm",
        feats,
        f"ark,t:{tmp_path}/ali",
    )
    run("score-hmm", f"--write-post=ark:{tmp_path}/post", tmp_path / "hmm", feats, f"ark,t:{tmp_path}/likes")
    run("score-hmm", "--average", tmp_path / "hmm", feats, f"ark,t:{tmp_path}/averages")
    hmm, right = read_hmm(str(tmp_path / "hmm")), 0
    ali, posteriors = load_ark(tmp_path / "ali"), load_ark(tmp_path / "post")
    texts = [
        dict(line.split() for line in (tmp_path / name).read_text().splitlines())
        for name in ("scores", "likes", "averages")
    ]
    for (key, best, path), (_, value, gamma) in zip(align(hmm, features, None), score(hmm, features, None)):
        np.testing.assert_array_equal(ali[key], path)
        np.testing.assert_allclose(posteriors[key], gamma, atol=1e-6)
        np.testing.assert_allclose(
            [float(text[key]) for text in texts], [best, value, value / len(path)], rtol=1e-5
        )
        assert best < value
        right += (path == labels[key]).mean() / len(features)
    assert list(ali) == [key for key, _ in features] and right > 0.85


def test_each_utterance_can_have_its_own_model(data, tmp_path):
    feats, _, features, _, truth = data
    with tables.open_writer("hmm", f"ark:{tmp_path}/graphs") as out:
        for i, (key, _) in enumerate(features[1:]):  # chains of as many states as there are utterances before
            chain = named_topology("left-to-right", i + 1, "set")
            out[key] = Hmm(*chain, truth.pdfs, np.arange(i + 1) % 3).to_params()
    done = run("align-hmm", f"ark:{tmp_path}/graphs", feats, f"ark:{tmp_path}/ali")
    assert "utt00: there is no HMM for it" in done.stderr and "done 11, failed 1" in done.stderr
    for i, (key, path) in enumerate(load_ark(tmp_path / "ali").items()):
        assert (
            set(np.diff(path)) <= {0, 1} and path[0] == 0 and path[-1] == i
        )  # forced through all states in turn


def test_no_path_is_counted(data, tmp_path):
    pdf = DiagGmm([1.0], [[0.0, 0.0]], [[1.0, 1.0]])
    write_hmm(str(tmp_path / "hmm"), Hmm(*named_topology("left-to-right", 30, "set"), [pdf] * 30))
    few = sum(len(x) < 30 for _, x in data[2])
    assert 0 < few < 12
    for program in ("align-hmm", "score-hmm"):
        done = run(program, tmp_path / "hmm", data[0], "ark,t:-")
        assert f"done {12 - few}, failed {few}" in done.stderr and b"nan" not in done.stdout
    write_hmm(str(tmp_path / "hmm"), Hmm([1, 0], np.eye(2), [0, 1], [pdf, pdf]))
    done = run("align-hmm", tmp_path / "hmm", data[0], "ark:/dev/null", check=False)
    assert done.returncode == 1 and "done 0, failed 12" in done.stderr


def test_scores_of_unnormalised_graphs_come_with_a_warning(data, tmp_path):
    truth = data[4]
    write_hmm(str(tmp_path / "hmm"), Hmm(truth.initial, 0.5 * truth.transitions, truth.final, truth.pdfs))
    assert (
        "3 states' probabilities do not sum to 1"
        in run("score-hmm", tmp_path / "hmm", data[0], "ark:/dev/null").stderr
    )


@pytest.mark.parametrize("program", ["train-hmm-em", "align-hmm", "score-hmm", "compute-vad"])
def test_only_numpy_is_imported(data, tmp_path, program):
    write_hmm(str(tmp_path / "hmm"), data[4])
    arguments = {"train-hmm-em": ["--num-iters=1", "--topo=ergodic", data[0], tmp_path / "new"],
                 "compute-vad": ["--hmm", data[0], "ark:/dev/null"]}
    words = arguments.get(program, [tmp_path / "hmm", data[0], "ark:/dev/null"])
    done = run(program, *words, env=environment(PYTHONPROFILEIMPORTTIME="1"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "numpy" in imported and not imported & {
        "torch",
        "scipy",
        "sklearn",
        "soundfile",
        "kaldiio",
        "tqdm",
    }


# ---------------------------------------------------------------------- compute-vad --hmm


def noisy_speech(seed, noise=0.3):
    """Features (T,4), column 0 an energy: 60 frames of silence, 120 of speech with gaps, 60 of silence."""
    rng = np.random.default_rng(seed)
    speech = np.zeros(240, bool)
    speech[60:180] = True
    level = np.where(speech, 9.0, 4.0)
    level[100:104] = level[140:145] = 4.5  # closures
    x = rng.standard_normal((240, 4))
    x[:, 1:] += 2.0 * speech[:, None]
    x[:, 0] = level + noise * x[:, 0]
    return x.astype(np.float32), speech


def error(decisions, speech):
    return np.mean((decisions > 0) != speech)


@pytest.mark.parametrize("num_states", [2, 3])
@pytest.mark.parametrize("shift", [0.0, 9.0])
def test_an_hmm_fitted_to_the_recording_finds_the_silence_at_any_level(num_states, shift):
    x, speech = noisy_speech(1)
    x[:, 0] += shift  # a louder recording: Kaldi's threshold moves by half of it only
    detector = HmmVad(HmmVadOptions(hmm_num_states=num_states))
    decisions = detector.decide(x)
    assert decisions.dtype == np.float32 and error(decisions, speech) < 0.03
    assert decisions[95:150].all()  # gaps shorter than --hmm-min-silence are speech
    assert (error(energy_vad(x), speech) > 0.4) == (shift > 0)
    np.testing.assert_array_equal(detector.decide(x), decisions)


def test_a_trained_model_decides_by_its_probability(tmp_path):
    x, speech = noisy_speech(2)
    feats = save_ark(tmp_path / "feats", {"a": x})
    with tables.open_writer("ivec", f"ark:{tmp_path}/ali") as out:
        out["a"] = speech.astype(np.int32)
    run(
        "train-hmm-em",
        "--topo=ergodic",
        "--num-states=2",
        "--num-iters=2",
        "--training=fixed",
        f"--ali=ark:{tmp_path}/ali",
        feats,
        tmp_path / "hmm",
    )
    save_ark(tmp_path / "feats", {"b": noisy_speech(3)[0]})
    found = {}
    for threshold in (0.001, 0.5, 0.999):
        run(
            "compute-vad",
            f"--hmm-model={tmp_path}/hmm",
            f"--hmm-threshold={threshold}",
            feats,
            f"ark:{tmp_path}/vad",
        )
        found[threshold] = load_ark(tmp_path / "vad")["b"]
    assert error(found[0.5], speech) < 0.1
    assert (found[0.001] >= found[0.5]).all() and (found[0.5] >= found[0.999]).all()
    assert found[0.001].sum() > found[0.999].sum()
    run("compute-vad", f"--hmm-model={tmp_path}/hmm", "--hmm-silence-states=1", feats, f"ark:{tmp_path}/vad")
    np.testing.assert_array_equal(load_ark(tmp_path / "vad")["b"], 1.0 - found[0.5])


def test_programs_decisions_do_not_depend_on_company(tmp_path):
    features = {str(i): noisy_speech(i)[0] for i in range(3)}
    features |= {
        "constant": np.ones((50, 4), np.float32),
        "one": features["0"][:1],
        "energy": features["1"][:, :1],
    }
    feats = save_ark(tmp_path / "feats", features)
    done = run("compute-vad", "--hmm", feats, f"ark:{tmp_path}/vad")
    assert "done 6, failed 0" in done.stderr
    found = load_ark(tmp_path / "vad")
    for key, x in features.items():
        np.testing.assert_array_equal(found[key], HmmVad(HmmVadOptions()).decide(x))
        assert set(found[key]) <= {0.0, 1.0} and len(found[key]) == len(x)


def test_bad_input_of_the_detector(tmp_path):
    bad = noisy_speech(1)[0]
    bad[7, 2] = np.inf
    feats = save_ark(tmp_path / "feats", {"bad": bad, "good": noisy_speech(1)[0]})
    done = run("compute-vad", "--hmm", feats, f"ark:{tmp_path}/vad")
    assert "bad: feature at frame 7, column 2 is inf" in done.stderr and "done 1, failed 1" in done.stderr
    write_hmm(str(tmp_path / "hmm"), small_hmm())
    done = run("compute-vad", f"--hmm-model={tmp_path}/hmm", feats, "ark:/dev/null", check=False)
    assert done.returncode == 1 and "features have dimension 4, the HMM 2" in done.stderr
    for option in ("--hmm-num-states=4", "--hmm-threshold=1", "--hmm-columns=0", "--hmm-silence-states=x"):
        done = run("compute-vad", "--hmm", option, feats, "ark:/dev/null", check=False)
        assert done.returncode == 1 and option.partition("=")[0].removeprefix("--hmm-") in done.stderr
    done = run(
        "compute-vad",
        f"--hmm-model={tmp_path}/hmm",
        "--hmm-silence-states=5",
        feats,
        "ark:/dev/null",
        check=False,
    )
    assert done.returncode == 1 and "the model has 3 states" in done.stderr


def test_without_hmm_nothing_changes(tmp_path):
    x, _ = noisy_speech(4)
    feats = save_ark(tmp_path / "feats", {"a": x})
    run("compute-vad", feats, f"ark:{tmp_path}/vad")
    np.testing.assert_array_equal(load_ark(tmp_path / "vad")["a"], energy_vad(x))


def test_helpers_draw_from_the_model():
    """The drawn states have the model's transition frequencies: what the tests above rest on."""
    _, _, truth = utterances(0, 1)
    states = draw(truth, 4000, np.random.default_rng(0))[1]
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), truth.transitions, atol=0.04)
