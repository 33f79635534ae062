"""calibrate-scores and fuse-scores as programs: lists, pipes, models, quality measures, edge cases."""

import json

import numpy as np
import pytest
from helpers import needs_data, run, shared_data, shell

from voxark.calibration.logistic import fit_logistic, prior_weighted_loss
from voxark.trials.lists import read_scores, read_trials
from voxark.metrics import Roc
from voxark.calibration.pav import fit_pav

SPEAKERS, PER_SPEAKER = 12, 4


def write_list(path, pairs, values):
    path.write_text("".join(f"{a} {b} {value}\n" for (a, b), value in zip(pairs, values)))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Simulated utterances, all pairs: dev/ and eval/ with trials, a, b (shuffled), utt2spk, utt2dur."""
    root = tmp_path_factory.mktemp("lists")
    for seed, name in enumerate(("dev", "eval")):
        folder, rng = root / name, np.random.default_rng(seed)
        folder.mkdir()
        speaker = np.repeat(np.arange(SPEAKERS), PER_SPEAKER)
        utterances = [f"{name}-s{s:02d}-{u}" for u, s in enumerate(speaker)]
        first, second = np.triu_indices(len(speaker), 1)
        target = speaker[first] == speaker[second]
        pairs = [(utterances[i], utterances[j]) for i, j in zip(first, second)]
        seconds = rng.uniform(0.5, 12, len(utterances))
        a = np.where(target, 2.0, 0.0) + rng.standard_normal(len(pairs)) - 0.3 * np.log(seconds[first])
        b = 10 * (np.where(target, 1.5, 0.0) + rng.standard_normal(len(pairs))) + 5
        write_list(folder / "trials", pairs, np.where(target, "target", "nontarget"))
        write_list(folder / "a", pairs, a)
        order = rng.permutation(len(pairs))
        write_list(folder / "b", [pairs[p] for p in order], b[order])
        (folder / "utt2spk").write_text("".join(f"{u} s{s}\n" for u, s in zip(utterances, speaker)))
        (folder / "utt2dur").write_text("".join(f"{u} {d}\n" for u, d in zip(utterances, seconds)))
    return root


def columns(folder, *systems):
    """Scores (N,S) of the systems and labels (N,) in the order of the trials, joined by a dict."""
    trials = read_trials(str(folder / "trials"))
    found = []
    for system in systems:
        lines = [line.split() for line in (folder / system).read_text().splitlines()]
        table = {(a, b): float(score) for a, b, score in lines}
        found.append([table[tuple(trials.pair(p).split())] for p in range(len(trials))])
    return np.array(found).T, trials.target


def scores_of(path):
    return read_scores(str(path)).scores


# ------------------------------------------------------------------------------------------- calibrate-scores


def test_training_and_mapping(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    done = run(
        "calibrate-scores",
        "--p-target=0.01",
        "--c-miss=10",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a",
        f"--write-model={tmp_path}/m",
        test / "a",
        tmp_path / "llrs",
    )
    x, target = columns(dev, "a")
    fit = fit_logistic(x, target, 10 * 0.01 / (10 * 0.01 + 0.99))
    expected = scores_of(test / "a") * fit.weights[0] + fit.offset
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-6, atol=1e-7)
    lines = [line.split()[:2] for line in (test / "a").read_text().splitlines()]
    assert [line.split()[:2] for line in (tmp_path / "llrs").read_text().splitlines()] == lines
    model = json.loads((tmp_path / "m").read_text())
    assert model["weights"] == pytest.approx(fit.weights) and model["systems"] == ["a"]
    before, after = model["training"]["before"][0], model["training"]["after"]
    llrs = x[:, 0] * fit.weights[0] + fit.offset
    assert after["cllr"] == pytest.approx(prior_weighted_loss(llrs, target))
    roc = Roc(x[target, 0], x[~target, 0])
    assert before["act_dcf"] == pytest.approx(roc.act_dcf(0.01, 10, 1)) and after["cllr"] < before["cllr"]
    assert f"Cllr {after['cllr']:.4f}, minCllr {after['min_cllr']:.4f}" in done.stderr
    assert "trained on: figures" not in done.stderr and done.stderr.endswith("done 1128, failed 0 (trials)\n")


def test_a_model_is_trained_once_and_applied_elsewhere(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    trained = run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a",
        f"--write-model={tmp_path}/m",
    )
    assert trained.stdout == b"" and "done 1128, failed 0" in trained.stderr
    applied = run("calibrate-scores", f"--model={tmp_path}/m", test / "a", "-")
    at_once = run(
        "calibrate-scores", f"--train-trials={dev}/trials", f"--train-scores={dev}/a", test / "a", "-"
    )
    assert applied.stdout == at_once.stdout and applied.stdout.count(b"\n") == 1128


def test_pipes_and_standard_streams(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    run(
        "calibrate-scores",
        f"--train-trials=cat {dev}/trials |",
        f"--train-scores=sort -r {dev}/a |",
        f"--write-model=| cat > {tmp_path}/m",
    )
    plain = run("calibrate-scores", f"--model={tmp_path}/m", test / "a", "-").stdout
    output = tmp_path / "z"
    piped = shell(
        f"cat {test}/a | calibrate-scores --model={tmp_path}/m - '| gzip -c > {output}'; zcat {output}"
    )
    assert piped.stdout == plain
    done = run("calibrate-scores", f"--model={tmp_path}/m", "false |", tmp_path / "none", check=False)
    assert done.returncode == 1 and not (tmp_path / "none").exists()
    done = run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        "-",
        "-",
        stdin=(dev / "a").read_bytes(),
        check=False,
    )
    assert done.returncode == 1 and "read only once" in done.stderr and done.stdout == b""
    done = run("calibrate-scores", "--train-trials=-", "--train-scores=-", test / "a", "-", check=False)
    assert done.returncode == 1 and "standard input" in done.stderr


def test_lines_in_another_order_give_the_same_map(corpus, tmp_path):
    dev = corpus / "dev"
    options = [f"--train-trials={dev}/trials", f"--write-model={tmp_path}/m"]
    run("calibrate-scores", *options, f"--train-scores={dev}/b")
    first = json.loads((tmp_path / "m").read_text())
    run("calibrate-scores", *options, f"--train-scores=sort {dev}/b |")
    second = json.loads((tmp_path / "m").read_text())
    assert first["weights"] == second["weights"] and first["offset"] == second["offset"]


def test_training_on_what_is_mapped_is_warned_of(corpus, tmp_path):
    dev = corpus / "dev"
    done = run("calibrate-scores", f"--train-trials={dev}/trials", dev / "a", tmp_path / "llrs")
    assert "1128 of 1128 trials were trained on" in done.stderr
    x, target = columns(dev, "a")
    fit = fit_logistic(x, target)
    np.testing.assert_allclose(
        scores_of(tmp_path / "llrs"), x[:, 0] * fit.weights[0] + fit.offset, rtol=1e-5, atol=1e-6
    )


def test_pav(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    run(
        "calibrate-scores",
        "--method=pav",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a",
        f"--write-model={tmp_path}/m",
        test / "a",
        tmp_path / "llrs",
    )
    x, target = columns(dev, "a")
    expected = fit_pav(x[:, 0], target).apply(scores_of(test / "a"))
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-6)
    again = run("calibrate-scores", f"--model={tmp_path}/m", test / "a", "-")
    assert again.stdout == (tmp_path / "llrs").read_bytes()
    done = run(
        "calibrate-scores",
        "--method=pav",
        f"--train-trials={dev}/trials",
        f"--log-quality={dev}/utt2dur",
        dev / "a",
        "-",
        check=False,
    )
    assert done.returncode == 1 and "without quality measures" in done.stderr


def test_cross_validation(corpus, tmp_path):
    dev = corpus / "dev"
    options = [f"--train-trials={dev}/trials", "--cross-validate=4", f"--utt2spk=ark:{dev}/utt2spk"]
    done = run("calibrate-scores", *options, dev / "a", tmp_path / "llrs")
    assert "trained on: figures" not in done.stderr and "by models of other speakers: Cllr" in done.stderr
    assert "in 10 models" in done.stderr
    found = scores_of(tmp_path / "llrs")
    x, target = columns(dev, "a")
    slopes = np.diff(found[target]) / np.diff(x[target, 0])
    assert len(set(np.round(slopes, 3))) > 3  # several models
    assert Roc(found[target], found[~target]).cllr() < Roc(x[target, 0], x[~target, 0]).cllr()
    piped = run("calibrate-scores", *options, "-", "-", stdin=(dev / "a").read_bytes())
    assert piped.stdout == (tmp_path / "llrs").read_bytes()
    other = run("calibrate-scores", *options, "--srand=1", dev / "a", "-")
    assert other.stdout != piped.stdout


@pytest.mark.parametrize(
    "options, message",
    [
        (["--cross-validate=4"], "needs --utt2spk"),
        (["--cross-validate=2", "--utt2spk=ark:U"], "at least 3"),
        (["--cross-validate=-1", "--utt2spk=ark:U"], "at least 3"),
        (["--cross-validate=13", "--utt2spk=ark:U"], "12 speakers cannot"),
        (["--cross-validate=4", "--utt2spk=ark:U", "--train-scores=A"], "leave --train-scores away"),
        (["--model=m"], "either --model"),
        (["--train-scores=A,A"], "fuse-scores takes several"),
        (["--p-target=1"], "--p-target"),
        (["--c-fa=0"], "--c-fa"),
        (["--clip=-1"], "--clip"),
        (["--pav-pseudo-trials=0", "--method=pav"], "pseudo-trials"),
        (["--weights=A"], "finite and not negative"),
        (["--quality=none-there"], "No such file"),
    ],
)
def test_options_that_make_no_sense(corpus, tmp_path, options, message):
    dev = corpus / "dev"
    options = [
        option.replace("=A", f"={dev}/a").replace(",A", f",{dev}/a").replace(":U", f":{dev}/utt2spk")
        for option in options
    ]
    done = run(
        "calibrate-scores", f"--train-trials={dev}/trials", *options, dev / "a", tmp_path / "out", check=False
    )
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--method=pav", "--p-target=0.1", "--c-miss=10", "--c-fa=2", "--weights=w"])
def test_a_trained_model_has_no_use_for_options_of_training(corpus, tmp_path, option):
    files, model = toy(tmp_path, [1, 2, 1.5, 3], [0, 0, 1, 1]), tmp_path / "m"
    run("calibrate-scores", files[0], f"--train-scores={files[1]}", f"--write-model={model}")
    done = run("calibrate-scores", f"--model={model}", option, files[1], tmp_path / "x", check=False)
    assert done.returncode == 1 and "are for training" in done.stderr.splitlines()[-1]
    run("calibrate-scores", f"--model={model}", "--clip=2", files[1], tmp_path / "x")


def test_a_model_replaces_neither_inputs_nor_outputs(tmp_path):
    files = toy(tmp_path, [1, 2, 1.5, 3], [0, 0, 1, 1])
    before = files[1].read_bytes()
    for model, output, message in (
        (files[1], tmp_path / "x", "is an input"),
        (tmp_path / "x", tmp_path / "x", "two outputs"),
        ("-", "-", "two outputs"),
    ):
        done = run("calibrate-scores", f"--write-model={model}", *files, output, check=False)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""
    assert files[1].read_bytes() == before and not (tmp_path / "x").exists()


def test_numbers_of_arguments(corpus, tmp_path):
    dev = corpus / "dev"
    train = [f"--train-trials={dev}/trials", f"--train-scores={dev}/a"]
    for program, arguments in (
        ("calibrate-scores", [dev / "a"]),
        ("calibrate-scores", [*train]),
        ("calibrate-scores", [*train, dev / "a"]),
        ("fuse-scores", [tmp_path / "out"]),
        ("fuse-scores", [*train, f"--write-model={tmp_path}/m", tmp_path / "out"]),
    ):
        done = run(program, *arguments, check=False)
        assert done.returncode == 1 and "wrong number of arguments" in done.stderr.splitlines()[-1], arguments
    done = run("calibrate-scores", dev / "a", "-", check=False)
    assert "either --model" in done.stderr
    done = run("calibrate-scores", f"--train-trials={dev}/trials", f"--write-model={tmp_path}/m", check=False)
    assert "to train only" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- quality, weights


def quality_columns(folder):
    duration = dict(line.split() for line in (folder / "utt2dur").read_text().splitlines())
    trials = read_trials(str(folder / "trials"))
    pairs = [trials.pair(p).split() for p in range(len(trials))]
    return np.log([[float(duration[a]), float(duration[b])] for a, b in pairs])


def test_quality_measures_of_utterances(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a",
        f"--log-quality={dev}/utt2dur",
        f"--write-model={tmp_path}/m",
    )
    x, target = columns(dev, "a")
    fit = fit_logistic(np.hstack((x, quality_columns(dev))), target)
    assert fit.weights[1] > 3 * abs(fit.weights[2])  # only the enrolment's duration moves the scores
    run(
        "calibrate-scores",
        f"--model={tmp_path}/m",
        f"--log-quality=ark:{test}/utt2dur",
        test / "a",
        tmp_path / "llrs",
    )
    test_x, test_target = columns(test, "a")
    expected = np.hstack((test_x, quality_columns(test))) @ fit.weights + fit.offset
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-5, atol=1e-6)
    plain = fit_logistic(x, target)
    without = prior_weighted_loss(test_x @ plain.weights + plain.offset, test_target)
    assert prior_weighted_loss(expected, test_target) < without
    for options, message in (
        (
            [],
            "trained with the quality measures: log utt2dur (enrolment), log utt2dur (test); given are: none",
        ),
        ([f"--quality={test}/utt2dur"], "given are: utt2dur (enrolment), utt2dur (test)"),
        ([f"--log-quality={test}/utt2dur,{test}/utt2dur"], "given are"),
    ):
        done = run("calibrate-scores", f"--model={tmp_path}/m", *options, test / "a", "-", check=False)
        assert done.returncode == 1 and message in done.stderr and done.stdout == b""


def test_quality_measures_of_trials(corpus, tmp_path):
    dev = corpus / "dev"
    x, target = columns(dev, "a")
    quality = quality_columns(dev)
    pairs = [line.split()[:2] for line in (dev / "trials").read_text().splitlines()]
    lines = [f"{a} {b} {q[0]!r} {q[1]!r}\n" for (a, b), q in zip(pairs, quality.tolist())]
    (tmp_path / "quality").write_text("".join(reversed(lines)))
    run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--trial-quality={tmp_path}/quality",
        dev / "a",
        f"--write-model={tmp_path}/m",
        tmp_path / "llrs",
    )
    fit = fit_logistic(np.hstack((x, quality)), target)
    expected = np.hstack((x, quality)) @ fit.weights + fit.offset
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-5, atol=1e-6)
    model = json.loads((tmp_path / "m").read_text())
    assert model["quality"] == [{"name": "quality", "per": "trial", "function": "identity", "columns": 2}]
    (tmp_path / "quality").write_text("".join(lines[1:]))
    done = run(
        "calibrate-scores",
        f"--model={tmp_path}/m",
        f"--trial-quality={tmp_path}/quality",
        dev / "a",
        "-",
        check=False,
    )
    assert done.returncode == 1 and f"{' '.join(pairs[0])}: has no quality measure" in done.stderr


@pytest.mark.parametrize(
    "line, option, message",
    [
        ("", "--quality", "dev-s00-0: has no quality measure"),
        ("dev-s00-0 nan\n", "--quality", "a finite number is needed"),
        ("dev-s00-0 0\n", "--log-quality", "no logarithm"),
        ("dev-s00-0 long\n", "--quality", "dev-s00-0"),
    ],
)
def test_bad_quality_is_named(corpus, tmp_path, line, option, message):
    dev = corpus / "dev"
    rest = (dev / "utt2dur").read_text().splitlines(keepends=True)[1:]
    (tmp_path / "q").write_text("".join([line, *rest]))
    done = run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"{option}={tmp_path}/q",
        dev / "a",
        "-",
        check=False,
    )
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stdout == b""


def test_weights(corpus, tmp_path):
    dev = corpus / "dev"
    x, target = columns(dev, "a")
    weights = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    pairs = [line.split()[:2] for line in (dev / "trials").read_text().splitlines()]
    write_list(tmp_path / "w", pairs[::-1], weights[::-1])
    run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--weights={tmp_path}/w",
        f"--write-model={tmp_path}/m",
        dev / "a",
        tmp_path / "llrs",
    )
    fit = fit_logistic(x, target, 0.5, weights)
    model = json.loads((tmp_path / "m").read_text())
    assert model["weights"] == pytest.approx(fit.weights) and model["offset"] == pytest.approx(fit.offset)
    llrs = x[:, 0] * fit.weights[0] + fit.offset
    assert model["training"]["after"]["cllr"] == pytest.approx(
        prior_weighted_loss(llrs, target, 0.5, weights)
    )
    write_list(tmp_path / "w", pairs[1:], weights[1:])
    done = run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--weights={tmp_path}/w",
        dev / "a",
        "-",
        check=False,
    )
    assert done.returncode == 1 and "1 of 1128 trials have no score" in done.stderr


# ------------------------------------------------------------------------------------------------- edge cases


def toy(tmp_path, scores, labels):
    """Lists of a few trials of their own: train options, the scores' name."""
    pairs = [(f"e{p}", f"t{p}") for p in range(len(scores))]
    write_list(tmp_path / "trials", pairs, ["target" if label else "nontarget" for label in labels])
    write_list(tmp_path / "scores", pairs, scores)
    return [f"--train-trials={tmp_path}/trials", tmp_path / "scores"]


@pytest.mark.parametrize("method", ["logistic", "pav"])
@pytest.mark.parametrize(
    "scores, labels, warning",
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], "can be separated"),
        ([1, 2, 2, 4], [0, 0, 1, 1], "can be separated"),
        ([1, 1, 1, 1], [0, 0, 1, 1], "all"),
        ([4, 2, 3, 1], [0, 0, 1, 1], "the scores point the wrong way"),
        ([1, 5, 3, 4], [0, 0, 1, 0], ""),
    ],
)
def test_odd_lists_give_finite_llrs(tmp_path, method, scores, labels, warning):
    done = run("calibrate-scores", f"--method={method}", *toy(tmp_path, scores, labels), tmp_path / "llrs")
    llrs = scores_of(tmp_path / "llrs")
    assert np.isfinite(llrs).all()
    if method == "logistic":
        assert warning in done.stderr
    if scores == [1, 1, 1, 1]:
        assert (llrs == 0).all() and "every LLR is 0" in done.stderr
    if warning == "can be separated":
        assert llrs[0] < 0 < llrs[3]


def test_pav_of_scores_the_wrong_way_says_so(tmp_path):
    done = run(
        "calibrate-scores", "--method=pav", *toy(tmp_path, [4, 2, 3, 1], [0, 0, 1, 1]), tmp_path / "llrs"
    )
    assert "every LLR is 0" in done.stderr and "wrong way" in done.stderr


@pytest.mark.parametrize(
    "scores, labels, message",
    [
        ([1, "inf", 3, 4], [0, 0, 1, 1], "the score of e1 t1 is infinite, as those of 1 trials: --clip"),
        ([1, "nan", 3, 4], [0, 0, 1, 1], "scores:2"),
        ([1, 2, 3, 4], [0, 0, 0, 0], "no target trials"),
        ([1, 2, 3, 4], [1, 1, 1, 1], "no nontarget trials"),
    ],
)
def test_what_cannot_be_calibrated(tmp_path, scores, labels, message):
    for method in ("logistic", "pav"):
        done = run(
            "calibrate-scores",
            f"--method={method}",
            *toy(tmp_path, scores, labels),
            tmp_path / "x",
            check=False,
        )
        assert (
            done.returncode == 1 and message in done.stderr.splitlines()[-1] and not (tmp_path / "x").exists()
        )


def test_clip(tmp_path):
    arguments = toy(tmp_path, ["-inf", 2, 1, 4, "inf", -3], [0, 0, 1, 1, 1, 0])
    run("calibrate-scores", "--clip=5", f"--write-model={tmp_path}/m", *arguments, tmp_path / "llrs")
    target = np.array([0, 0, 1, 1, 1, 0], bool)
    fit = fit_logistic(np.array([-5.0, 2, 1, 4, 5, -3]), target)
    expected = np.array([-5.0, 2, 1, 4, 5, -3]) * fit.weights[0] + fit.offset
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-5)
    applied = run(
        "calibrate-scores", f"--model={tmp_path}/m", tmp_path / "scores", "-"
    )  # the model keeps the limit
    assert applied.stdout == (tmp_path / "llrs").read_bytes()


def test_missing_and_unknown_trials(corpus, tmp_path):
    dev = corpus / "dev"
    lines = (dev / "a").read_text().splitlines(keepends=True)
    (tmp_path / "short").write_text("".join(lines[2:]))
    (tmp_path / "long").write_text("".join(lines) + "x y 1\n")
    train = [f"--train-trials={dev}/trials", f"--write-model={tmp_path}/m"]
    for name, option, message in (
        ("short", "--allow-missing", "2 of 1128 trials"),
        ("long", "--allow-extra", "x y"),
    ):
        done = run("calibrate-scores", *train, f"--train-scores={tmp_path}/{name}", check=False)
        assert done.returncode == 1 and message in done.stderr and option in done.stderr
        assert not (tmp_path / "m").exists()
        run("calibrate-scores", *train, f"--train-scores={tmp_path}/{name}", option)
        (tmp_path / "m").unlink()
    (tmp_path / "twice").write_text("".join(lines) + lines[0])
    done = run("calibrate-scores", *train, f"--train-scores={tmp_path}/twice", check=False)
    assert done.returncode == 1 and "stands already on line 1" in done.stderr


def test_a_damaged_model_and_an_empty_list(corpus, tmp_path):
    (tmp_path / "m").write_text('{"format": ')
    done = run("calibrate-scores", f"--model={tmp_path}/m", corpus / "dev/a", tmp_path / "out", check=False)
    assert done.returncode == 1 and "not a calibration model" in done.stderr.splitlines()[-1]
    dev = corpus / "dev"
    run(
        "calibrate-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a",
        f"--write-model={tmp_path}/m",
    )
    (tmp_path / "empty").write_text("")
    done = run("calibrate-scores", f"--model={tmp_path}/m", tmp_path / "empty", tmp_path / "out", check=False)
    assert done.returncode == 1 and "empty" in done.stderr and not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_found_before_training(corpus, tmp_path):
    dev = corpus / "dev"
    for arguments in ([f"--write-model={tmp_path}/no/m"], [dev / "a", tmp_path / "no/out"]):
        done = run(
            "calibrate-scores",
            f"--train-trials={dev}/trials",
            f"--train-scores={dev}/a",
            *arguments,
            check=False,
        )
        assert (
            done.returncode == 1
            and "/no/" in done.stderr.splitlines()[-1]
            and "to train on" not in done.stderr
        )


# ------------------------------------------------------------------------------------------------ fuse-scores


def test_fusion(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    done = run(
        "fuse-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a,{dev}/b",
        f"--write-model={tmp_path}/m",
        tmp_path / "llrs",
        test / "a",
        test / "b",
    )
    x, target = columns(dev, "a", "b")
    fit = fit_logistic(x, target)
    test_x, test_target = columns(test, "a", "b")
    expected = test_x @ fit.weights + fit.offset
    np.testing.assert_allclose(scores_of(tmp_path / "llrs"), expected, rtol=1e-5, atol=1e-6)
    fused = Roc(expected[test_target], expected[~test_target])
    for place in range(2):
        assert fused.eer()[0] < Roc(test_x[test_target, place], test_x[~test_target, place]).eer()[0]
    assert "a before: Cllr" in done.stderr and "b before: Cllr" in done.stderr
    assert json.loads((tmp_path / "m").read_text())["systems"] == ["a", "b"]
    applied = run("fuse-scores", f"--model={tmp_path}/m", "-", test / "a", test / "b")
    assert applied.stdout == (tmp_path / "llrs").read_bytes()
    for given, message in (
        (["b", "a"], "in the order a b, given as b a"),
        (["a"], "of 2 systems (a, b), given are 1"),
    ):
        done = run("fuse-scores", f"--model={tmp_path}/m", "-", *(test / name for name in given), check=False)
        assert done.returncode == 1 and message in done.stderr


def test_fusion_trains_alone_and_by_cross_validation(corpus, tmp_path):
    dev = corpus / "dev"
    run(
        "fuse-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a,{dev}/b",
        f"--write-model={tmp_path}/m",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    done = run(
        "fuse-scores",
        f"--train-trials={dev}/trials",
        "--cross-validate=5",
        f"--utt2spk=ark:{dev}/utt2spk",
        f"--quality={dev}/utt2dur",
        tmp_path / "llrs",
        dev / "a",
        dev / "b",
    )
    assert "in 15 models" in done.stderr and len(scores_of(tmp_path / "llrs")) == 1128


def test_fusion_of_a_system_with_itself_and_with_noise(corpus, tmp_path):
    dev = corpus / "dev"
    done = run("fuse-scores", f"--train-trials={dev}/trials", tmp_path / "twice", dev / "a", dev / "a")
    assert "depend on each other linearly" in done.stderr
    run("calibrate-scores", f"--train-trials={dev}/trials", dev / "a", tmp_path / "once")
    np.testing.assert_allclose(scores_of(tmp_path / "twice"), scores_of(tmp_path / "once"), atol=1e-3)


def test_fusion_of_lists_that_differ(corpus, tmp_path):
    dev, test = corpus / "dev", corpus / "eval"
    run(
        "fuse-scores",
        f"--train-trials={dev}/trials",
        f"--train-scores={dev}/a,{dev}/b",
        f"--write-model={tmp_path}/m",
    )
    lines = (test / "b").read_text().splitlines(keepends=True)
    (tmp_path / "b").write_text("".join(lines[3:]))
    model = [f"--model={tmp_path}/m"]
    done = run("fuse-scores", *model, tmp_path / "out", test / "a", tmp_path / "b", check=False)
    assert (
        done.returncode == 1
        and "3 of 1128 trials have no score" in done.stderr
        and not (tmp_path / "out").exists()
    )
    done = run("fuse-scores", *model, "--allow-missing", tmp_path / "out", test / "a", tmp_path / "b")
    assert "done 1125, failed 3" in done.stderr
    some = (test / "trials").read_text().splitlines(keepends=True)[10:20]
    (tmp_path / "some").write_text("".join(some))
    run(
        "fuse-scores",
        *model,
        f"--trials={tmp_path}/some",
        "--allow-extra",
        tmp_path / "out",
        test / "a",
        test / "b",
    )
    found = [line.split()[:2] for line in (tmp_path / "out").read_text().splitlines()]
    assert found == [line.split()[:2] for line in some]


# -------------------------------------------------------------------------------------------------- real data


@needs_data("embeddings/ge2e_dvectors")
@needs_data("speechocean762")
def test_cosine_scores_of_real_vectors_become_llrs(tmp_path):
    """Trained on other speakers, calibration brings Cllr from far above 1 near its minimum."""
    trials = read_trials(str(shared_data("speechocean762/test/trials")))
    lists = {}
    for part in ("train", "test"):
        data = np.load(shared_data(f"embeddings/ge2e_dvectors/so762_dev_{part}.npz"))
        x = data["x"] / np.linalg.norm(data["x"], axis=1, keepdims=True)
        lists[part] = ([str(utt) for utt in data["utts"]], np.array([str(s) for s in data["spks"]]), x)
    utts, speakers, x = lists["train"]
    first, second = np.triu_indices(len(utts), 1)
    pairs = [(utts[i], utts[j]) for i, j in zip(first, second)]
    labels = np.where(speakers[first] == speakers[second], "target", "nontarget")
    write_list(tmp_path / "trials", pairs, labels)
    write_list(tmp_path / "dev", pairs, (x @ x.T)[first, second])
    utts, _, x = lists["test"]
    row = {utt: place for place, utt in enumerate(utts)}
    pairs = [tuple(trials.pair(p).split()) for p in range(len(trials))]
    scores = np.array([x[row[a]] @ x[row[b]] for a, b in pairs])
    write_list(tmp_path / "eval", pairs, scores)
    run(
        "calibrate-scores",
        f"--train-trials={tmp_path}/trials",
        f"--train-scores={tmp_path}/dev",
        tmp_path / "eval",
        tmp_path / "llrs",
    )
    llrs = scores_of(tmp_path / "llrs")
    before, after = (Roc(s[trials.target], s[~trials.target]) for s in (scores, llrs))
    assert before.cllr() > 0.9 and after.cllr() - after.min_cllr() < 0.05
    assert after.min_cllr() == pytest.approx(before.min_cllr(), abs=1e-3)  # text rounds
    assert after.act_dcf(0.5) - after.min_dcf(0.5)[0] < 0.05
