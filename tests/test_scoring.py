"""Trial and score lists, enrolment, scoring in blocks, and score-trials against Kaldi's scores."""

import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.backend.cosine import cosine_terms
from voxark.backend.pair_terms import PairTerms
from voxark.backend.plda import Plda, PldaScoringOptions
from voxark.errors import VoxarkError
from voxark.trials import lists, score
from voxark.trials.enrolment import Enrolment
from voxark.trials.lists import (
    TrialList,
    find_pairs,
    read_labelled_scores,
    read_scores,
    read_trials,
    write_scores,
)


class Sink:
    """Collects what is written."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


# --------------------------------------------------------------------------------------------- Kaldi's scores


@needs_golden
@pytest.mark.parametrize(
    "name, enroll, trials, options",
    [
        ("plda.scores", "dvec_test.norm.ark", "trials.keys", []),
        ("plda_nonorm.scores", "dvec_test.norm.ark", "trials.keys", ["--normalize-length=false"]),
        ("plda_simple.scores", "dvec_test.norm.ark", "trials.keys", ["--simple-length-normalization"]),
        (
            "plda_multi.scores",
            "enroll.ark",
            "trials_multi.keys",
            ["--num-utts=ark:" + str(golden("model/enroll.num_utts"))],
        ),
    ],
)
def test_plda_scores_are_kaldis(tmp_path, name, enroll, trials, options):
    run(
        "score-trials",
        "--backend=plda",
        f"--model={golden('model/plda')}",
        *options,
        golden("model/" + trials),
        f"ark:{golden('model/' + enroll)}",
        f"ark:{golden('model/dvec_test.norm.ark')}",
        tmp_path / "scores",
    )
    ours, kaldi = (
        [line.split() for line in path.read_text().splitlines()]
        for path in (tmp_path / "scores", golden("model/" + name))
    )
    assert [line[:2] for line in ours] == [line[:2] for line in kaldi]
    difference = np.array([float(a[2]) - float(b[2]) for a, b in zip(ours, kaldi)])
    assert np.abs(difference).max() < 2e-4


@needs_golden
def test_smoothing_scores_as_kaldis_smoothed_model(tmp_path):
    arguments = (golden("model/trials.keys"), *[f"ark:{golden('model/dvec_test.norm.ark')}"] * 2)
    run(
        "score-trials",
        "--backend=plda",
        f"--model={golden('model/plda')}",
        "--smoothing=0.1",
        *arguments,
        tmp_path / "a",
    )
    run(
        "score-trials",
        "--backend=plda",
        f"--model={golden('model/plda_smooth.txt')}",
        *arguments,
        tmp_path / "b",
    )
    a, b = read_scores(str(tmp_path / "a")).scores, read_scores(str(tmp_path / "b")).scores
    assert np.abs(a - b).max() < 1e-3


@needs_golden
def test_numbers_are_written_with_kaldis_digits():
    scored = read_scores(str(golden("model/plda.scores")))
    out = Sink()
    write_scores(out, scored, scored.scores)
    assert out.data == golden("model/plda.scores").read_bytes()


# ---------------------------------------------------------------------------------------------- lists


def listed(tmp_path, text):
    path = tmp_path / "list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_columns_of_a_trial_list(tmp_path):
    trials = read_trials(listed(tmp_path, "b x target\na\ty  nontarget\r\nb y target"))
    assert (trials.enroll_ids, trials.test_ids) == (["b", "a"], ["x", "y"])
    assert trials.enroll.tolist() == [0, 1, 0] and trials.test.tolist() == [0, 1, 1]
    assert trials.target.tolist() == [True, False, True] and trials.scores is None
    assert read_trials(listed(tmp_path, "a b\nb a\n")).target is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("a b target\na c\n", ":2: 3 columns were expected, found 2: 'a c'"),
        ("a b\na c target\nd e\n", ":2: 2 columns were expected, found 3"),
        ("a b c target\n", ":1: 2 or 3 columns were expected, found 4"),
        ("a\nb c d\n", ":1: 2 or 3 columns were expected, found 1"),
        ("a b target\na c\nd e f target\n", ":2: 3 columns were expected, found 2"),
        ("a b target\n\na c target\n", ":2: 3 columns were expected, found 0"),
        ("a b target\na c Target\n", ":2: 'target' or 'nontarget' was expected, found 'Target'"),
        ("a b\na c\nb c\na c\n", ":4: the pair 'a c' stands already on line 2 (1 repeated lines in all)"),
        ("b x\na x\na x\nb x\n", ":3: the pair 'a x' stands already on line 2 (2 repeated lines in all)"),
        ("", "the list is empty"),
    ],
)
@pytest.mark.parametrize("block", [7, 1 << 23])
def test_malformed_trials_name_file_and_line(tmp_path, monkeypatch, text, message, block):
    monkeypatch.setattr(lists, "_BLOCK_BYTES", block)
    path = listed(tmp_path, text)
    with pytest.raises(VoxarkError) as error:
        read_trials(path)
    assert str(error.value).startswith(path) and message in str(error.value)


@pytest.mark.parametrize("word", ["nan", "x", "1_000", "1,5", "-"])
def test_malformed_scores_name_file_and_line(tmp_path, word):
    with pytest.raises(VoxarkError, match=f":2: a score was expected, found '{word}'"):
        read_scores(listed(tmp_path, f"a_1 b 1\na_1 c {word}\n"))
    with pytest.raises(VoxarkError, match=f":2: a score was expected, found '{word}'"):
        read_labelled_scores(listed(tmp_path, f"1 target\n{word} nontarget\n"))


def test_numbers_as_kaldi_writes_them(tmp_path):
    numbers = read_scores(listed(tmp_path, "a_ b 1e-05\na_ c -inf\na_ d inf\na_ e -3.25\n")).scores
    assert numbers.tolist() == [1e-5, -np.inf, np.inf, -3.25]


words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Z", "C"]),
    min_size=1,
    max_size=5,
)


@given(
    pairs=st.lists(st.tuples(words, words), min_size=1, max_size=20, unique=True),
    block=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_what_is_written_is_read_back_in_any_blocks(tmp_path_factory, pairs, block, seed):
    path = tmp_path_factory.mktemp("lists") / "scores"
    values = np.random.default_rng(seed).standard_normal(len(pairs)) * 100
    path.write_text("".join(f"{a} {b} {v:.7g}\n" for (a, b), v in zip(pairs, values)), encoding="utf-8")
    old, lists._BLOCK_BYTES = lists._BLOCK_BYTES, block
    try:
        scored = read_scores(str(path))
    finally:
        lists._BLOCK_BYTES = old
    assert [(scored.enroll_ids[e], scored.test_ids[t]) for e, t in zip(scored.enroll, scored.test)] == pairs
    out = Sink()
    write_scores(out, scored, scored.scores)
    assert out.data == path.read_bytes()


fragments = st.lists(st.sampled_from([b" ", b"\t", b"\n", b"\r", b"a", b"b", b"1", b"-", b"target", b"\0", b"\xff"]))


@given(fragments.map(b"".join), st.sampled_from([read_trials, read_scores, read_labelled_scores]), st.integers(1, 9))
def test_any_bytes_give_a_list_or_one_clear_error(tmp_path_factory, text, read, block):
    path = tmp_path_factory.mktemp("fuzz") / "list"
    path.write_bytes(text)
    old, lists._BLOCK_BYTES = lists._BLOCK_BYTES, block
    try:
        found = read(str(path))
        number = len(found[0]) if read is read_labelled_scores else len(found)
        assert number == text.count(b"\n") + (not text.endswith(b"\n"))
    except VoxarkError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        lists._BLOCK_BYTES = old


def test_ids_that_are_not_utf8_pass_through(tmp_path):
    scored = read_scores(listed(tmp_path, b"a\xff \xe9b 1\n"))
    out = Sink()
    write_scores(out, scored, scored.scores)
    assert out.data == b"a\xff \xe9b 1\n"


@pytest.mark.parametrize("value, word", [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_a_score_that_is_not_finite_is_not_written(tmp_path, value, word):
    trials = read_trials(listed(tmp_path, "a b\na c\n"))
    with pytest.raises(VoxarkError, match=f"the score of a c is {word}"):
        write_scores(Sink(), trials, np.array([1.0, value]))


@given(seed=st.integers(0, 200), drop=st.integers(0, 10))
def test_joining_finds_each_pair_wherever_it_stands(seed, drop):
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(35)[:20]
    trials = TrialList(
        "t",
        [f"e{i}" for i in range(5)],
        [f"t{i}" for i in range(7)],
        (chosen // 7).astype(np.int32),
        (chosen % 7).astype(np.int32),
    )
    others, tests = rng.permutation(6), rng.permutation(9)  # numbered otherwise, with ids that no trial has
    wanted = rng.permutation(54)[: 54 - drop]
    scored = TrialList(
        "s",
        [f"e{i}" for i in others],
        [f"t{i}" for i in tests],
        (wanted // 9).astype(np.int32),
        (wanted % 9).astype(np.int32),
    )
    places = {scored.pair(p): p for p in range(len(scored))}
    assert find_pairs(trials, scored).tolist() == [places.get(trials.pair(p), -1) for p in range(len(trials))]


# ---------------------------------------------------------------------------------------------- scoring


def random_terms(models=13, tests=17, dim=4, groups=3, seed=0):
    rng = np.random.default_rng(seed)
    return PairTerms(
        rng.standard_normal((models, dim)),
        rng.standard_normal((tests, dim)),
        rng.standard_normal(models),
        rng.standard_normal((groups, tests)),
        rng.integers(0, groups, models),
    )


@pytest.mark.parametrize("pair_cost", [0, 32, 10**9])
@pytest.mark.parametrize("ordered", [True, False])
def test_blocks_equal_a_loop(monkeypatch, pair_cost, ordered):
    monkeypatch.setattr(score, "_PAIR_COST", pair_cost)  # 0: pairs only, 10^9: matrix products only
    monkeypatch.setattr(score, "_BLOCK_SCORES", 40)
    monkeypatch.setattr(score, "_BLOCK_VALUES", 20)
    terms, rng = random_terms(), np.random.default_rng(1)
    pairs = rng.permutation(13 * 17)[:90]
    pairs = np.sort(pairs) if ordered else pairs
    enroll, test = (pairs // 17).astype(np.int32), (pairs % 17).astype(np.int32)
    loop = [
        terms.left[i] @ terms.right[j] + terms.row[i] + terms.column[terms.group[i], j]
        for i, j in zip(enroll, test)
    ]
    np.testing.assert_allclose(score.score_pairs(terms, enroll, test), loop, rtol=1e-12, atol=1e-12)


def test_dense_scores_equal_pairs():
    terms = random_terms()
    enroll, test = np.divmod(np.arange(13 * 17), 17)
    np.testing.assert_allclose(terms.dense().ravel(), terms.pairs(enroll, test), rtol=1e-12, atol=1e-12)


def test_cosine_is_scikit_learns_and_zero_vectors_score_zero():
    from sklearn.metrics.pairwise import cosine_similarity

    rng = np.random.default_rng(0)
    enroll, test = rng.standard_normal((5, 6)), rng.standard_normal((4, 6))
    enroll[2] = 0
    np.testing.assert_allclose(
        cosine_terms(enroll, test).dense(), cosine_similarity(enroll, test), atol=1e-14
    )
    assert (cosine_terms(enroll, test).dense()[2] == 0).all()


def sessions_and_tests(dim=5):
    rng = np.random.default_rng(0)
    plda = Plda(
        rng.standard_normal(dim), rng.standard_normal((dim, dim)), np.array([5.0, 3.0, 1.0, 0.5, 0.0])
    )
    sessions = [[0], [1, 2, 3], [4, 5]]
    return plda, rng.standard_normal((6, dim)), sessions, rng.standard_normal((4, dim))


@pytest.mark.parametrize("mode", ["mean", "book", "score-mean"])
@pytest.mark.parametrize("after_norm", [False, True])
def test_sessions_by_their_definitions_plda(mode, after_norm):
    plda, x, sessions, tests = sessions_and_tests()
    terms = score.plda_terms(
        plda, Enrolment.of_sessions(x, sessions), tests, mode, PldaScoringOptions(), after_norm
    )
    t = plda.transform_vectors(tests)
    for rows, scores in zip(sessions, terms.dense()):
        n = len(rows) if mode == "book" else 1
        if mode == "score-mean":
            expected = plda.llr(plda.transform_vectors(x[rows]), t).mean(axis=0)
        elif after_norm:
            expected = plda.llr(plda.transform_vectors(x[rows]).mean(axis=0)[None], t, n)[0]
        else:
            expected = plda.llr(plda.transform_vectors(x[rows].mean(axis=0)[None], n), t, n)[0]
        np.testing.assert_allclose(scores, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["cosine", "dot"])
@pytest.mark.parametrize("mode", ["mean", "score-mean"])
def test_sessions_by_their_definitions_cosine_and_dot(backend, mode):
    _, x, sessions, tests = sessions_and_tests()

    def scores(a, b):
        product = a @ b.T
        return (
            product / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
            if backend == "cosine"
            else product
        )

    terms = score.similarity_terms(backend, Enrolment.of_sessions(x, sessions), tests, mode)
    for rows, row in zip(sessions, terms.dense()):
        expected = (
            scores(x[rows].mean(axis=0)[None], tests)
            if mode == "mean"
            else scores(x[rows], tests).mean(axis=0)
        )
        np.testing.assert_allclose(row, np.ravel(expected), rtol=1e-12, atol=1e-14)


def test_cosine_of_normalised_sessions():
    _, x, sessions, tests = sessions_and_tests()
    terms = score.similarity_terms(
        "cosine", Enrolment.of_sessions(x, sessions), tests, average_after_norm=True
    )
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    means = np.stack([unit[rows].mean(axis=0) for rows in sessions])
    np.testing.assert_allclose(terms.dense(), cosine_terms(means, tests).dense(), rtol=1e-12)
    with pytest.raises(VoxarkError, match="--enroll=book needs --backend=plda"):
        score.similarity_terms("cosine", Enrolment.of_vectors(x), tests, "book")
    with pytest.raises(VoxarkError, match="enrolment vectors have dimension 5, test vectors 4"):
        score.similarity_terms("cosine", Enrolment.of_vectors(x), tests[:, :4])


# ---------------------------------------------------------------------------------------------- the program


@pytest.fixture
def corpus(tmp_path):
    """Six vectors u0 to u5, a trial list of models m1, m2 and utterances, a map, and their PLDA."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3)).astype(np.float32)
    with tables.open_writer("vec", f"ark,scp:{tmp_path}/v.ark,{tmp_path}/v.scp") as out:
        for i in range(6):
            out[f"u{i}"] = x[i]
    (tmp_path / "map").write_text("m1 u0 u1\nm2 u2\n")
    (tmp_path / "trials").write_text("m1 u3 target\nm2 u3 nontarget\nm1 u4 nontarget\nm2 u5 target\n")
    plda = Plda(np.zeros(3), np.eye(3), np.array([4.0, 1.0, 0.5]))
    tables.write_object("plda", str(tmp_path / "plda"), plda.to_params())
    return tmp_path, x, plda


def test_enrolment_map_modes_through_the_program(corpus):
    folder, x, plda = corpus
    for mode, expected in (("mean", None), ("book", None), ("score-mean", None)):
        done = run(
            "score-trials",
            "--backend=plda",
            f"--model={folder}/plda",
            f"--enroll-map=ark:{folder}/map",
            f"--enroll={mode}",
            folder / "trials",
            f"scp:{folder}/v.scp",
            f"scp:{folder}/v.scp",
            "-",
        )
        models = Enrolment.of_sessions(x, [[0, 1], [2]])
        expected = score.plda_terms(plda, models, x[3:6], mode).dense()[[0, 1, 0, 1], [0, 0, 1, 2]]
        lines = [line.split() for line in done.stdout.decode().splitlines()]
        assert [line[:2] for line in lines] == [["m1", "u3"], ["m2", "u3"], ["m1", "u4"], ["m2", "u5"]]
        np.testing.assert_allclose([float(line[2]) for line in lines], expected, rtol=1e-6)


def test_trials_come_from_standard_input_and_need_no_label(corpus):
    folder, x, _ = corpus
    done = run(
        "score-trials",
        "--backend=dot",
        "-",
        f"ark:{folder}/v.ark",
        f"ark:{folder}/v.ark",
        "-",
        stdin=b"u1 u0\n",
    )
    assert done.stdout == b"u1 u0 %.7g\n" % float(x[1].astype(float) @ x[0].astype(float))
    assert "done 1, failed 0" in done.stderr


def test_missing_vectors_are_named_and_refused_unless_allowed(corpus):
    folder, _, _ = corpus
    (folder / "map").write_text("m1 u0 u9\nm3 u1\n")
    command = [
        "score-trials",
        f"--enroll-map=ark:{folder}/map",
        f"--failed-list={folder}/failed",
        folder / "trials",
        f"ark:{folder}/v.ark",
        f"ark:{folder}/v.ark",
        folder / "scores",
    ]
    done = run(*command, check=False)
    assert done.returncode == 1 and not (folder / "scores").exists()
    assert "2 of 4 trials lack a side" in done.stderr and "--allow-missing" in done.stderr
    assert (
        folder / "failed"
    ).read_text() == "u9 enrolment utterance of m1 has no vector\nm2 has no enrolment utterance\n"
    done = run(*command, "--allow-missing")
    assert [line.split()[:2] for line in (folder / "scores").read_text().splitlines()] == [
        ["m1", "u3"],
        ["m1", "u4"],
    ]
    assert "done 2, failed 2" in done.stderr


def test_a_missing_session_is_said_though_no_trial_is_lost(corpus):
    folder, _, _ = corpus
    (folder / "map").write_text("m1 u0 u9\nm2 u2\n")
    command = ["score-trials", f"--enroll-map=ark:{folder}/map", folder / "trials", f"ark:{folder}/v.ark",
               f"ark:{folder}/v.ark", folder / "scores"]
    done = run(*command, check=False)
    assert done.returncode == 1 and not (folder / "scores").exists()
    assert "missing, as named above: 1; 0 of 4 trials lack a side" in done.stderr.splitlines()[-1]
    assert "done 4, failed 1" in run(*command, "--allow-missing").stderr


def test_the_side_of_another_dimension_is_named(corpus):
    folder, _, _ = corpus
    (folder / "trials").write_text("u0 u1\n")
    whole = f"ark:{folder}/v.ark"
    short = save_ark(folder / "short.ark", {key: np.ones(2, np.float32) for key in ("u0", "u1")})
    for enroll, test, side in ((short, whole, "enrolment"), (whole, short, "test")):
        done = run("score-trials", "--backend=plda", f"--model={folder}/plda", folder / "trials", enroll, test,
                   folder / "scores", check=False)
        assert done.returncode == 1
        assert f"the {side} vectors have dimension 2, the PLDA model 3" in done.stderr


def test_nothing_left_is_an_error(corpus):
    folder, _, _ = corpus
    done = run(
        "score-trials",
        "--allow-missing",
        folder / "trials",
        f"ark:{folder}/v.ark",
        f"ark:{folder}/v.ark",
        folder / "scores",
        check=False,
    )
    assert (
        done.returncode == 1
        and "4 of 4 trials lack a side" in done.stderr
        and not (folder / "scores").exists()
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (["--backend=plda"], "--backend=plda needs --model=FILE"),
        (["--backend=gmm"], "--backend=gmm needs --model=FILE"),
        (["--model={}/plda"], "--backend=cosine has no use for --model"),
        (["--backend=plda", "--model={}/v.ark"], "v.ark"),
        (["--enroll=book"], "--enroll=book needs --backend=plda"),
        (["--num-utts=ark:{}/map", "--enroll-map=ark:{}/map"], "exclude each other"),
        (["--num-utts=ark:{}/map", "--enroll=score-mean"], "needs the sessions"),
        (["--backend=gmm", "--model=x", "--enroll-map=ark:{}/map"], "for vectors"),
        (["--backend=other"], "other"),
    ],
)
def test_options_that_cannot_be_are_refused(corpus, options, message):
    folder, _, _ = corpus
    (folder / "trials").write_text("u0 u1\n")
    done = run(
        "score-trials",
        *[option.format(folder) for option in options],
        folder / "trials",
        f"ark:{folder}/v.ark",
        f"ark:{folder}/v.ark",
        folder / "scores",
        check=False,
    )
    assert (
        done.returncode == 1 and message in done.stderr.splitlines()[-1] and not (folder / "scores").exists()
    )


def test_numbers_of_utterances_must_be_known_and_positive(corpus):
    folder, x, plda = corpus
    (folder / "trials").write_text("u0 u1\nu2 u1\nu3 u1\n")
    (folder / "n").write_text("u0 2\nu3 4\n")
    command = [
        "score-trials",
        "--backend=plda",
        f"--model={folder}/plda",
        f"--num-utts=ark:{folder}/n",
        folder / "trials",
        f"ark:{folder}/v.ark",
        f"ark:{folder}/v.ark",
        folder / "scores",
    ]
    done = run(*command, check=False)
    assert done.returncode == 1 and "u2: has no number of utterances" in done.stderr
    run(*command, "--allow-missing")
    n = np.array([2, 4])
    expected = plda.llr(plda.transform_vectors(x[[0, 3]], n), plda.transform_vectors(x[1:2]), n)[:, 0]
    np.testing.assert_allclose(read_scores(str(folder / "scores")).scores, expected, rtol=1e-6)
    (folder / "n").write_text("u0 2\nu2 0\nu3 1\n")
    assert "u2: its number of utterances is 0" in run(*command, check=False).stderr


def test_gmm_scores_are_those_of_the_library(tmp_path):
    from voxark.gmm.diag import DiagGmm
    from voxark.gmm.score import gmm_llr

    rng = np.random.default_rng(0)
    ubm = DiagGmm(np.full(4, 0.25), rng.standard_normal((4, 3)), np.ones((4, 3)))
    speakers = {
        key: DiagGmm(ubm.weights, ubm.means + 0.3 * rng.standard_normal((4, 3)), ubm.variances)
        for key in "ab"
    }
    features = {key: rng.standard_normal((20, 3)).astype(np.float32) for key in ("x", "y", "z")}
    tables.write_object("diag-gmm", f"{tmp_path}/ubm", ubm.to_params())
    with tables.open_writer("diag-gmm", f"ark:{tmp_path}/gmms") as out:
        for key, gmm in speakers.items():
            out[key] = gmm.to_params()
    with tables.open_writer("mat", f"ark:{tmp_path}/feats") as out:
        for key, x in features.items():
            out[key] = x
    (tmp_path / "trials").write_text("a x\nb z\nb x\nc x\na w\n")
    command = [
        "score-trials",
        "--backend=gmm",
        f"--model={tmp_path}/ubm",
        "--top-gauss=2",
        tmp_path / "trials",
        f"ark:{tmp_path}/gmms",
        f"ark:{tmp_path}/feats",
        tmp_path / "scores",
    ]
    done = run(*command, check=False)
    assert (
        done.returncode == 1
        and "c: has no GMM" in done.stderr
        and "w: is missing among the tests" in done.stderr
    )
    run(*command, "--allow-missing")
    scored = read_scores(str(tmp_path / "scores"))
    assert [scored.pair(p) for p in range(3)] == ["a x", "b z", "b x"]
    expected = [gmm_llr(ubm, [speakers[m]], features[t], 2)[0] for m, t in ("ax", "bz", "bx")]
    np.testing.assert_allclose(scored.scores, expected, rtol=1e-4, atol=1e-6)


def test_a_list_that_stands_twice_in_a_file_is_refused_at_once(tmp_path):
    text = "".join(f"m{i % 500} t{i // 500}\n" for i in range(200000))
    with pytest.raises(VoxarkError, match=r":200001: the pair 'm0 t0' stands already on line 1 \(200000"):
        read_trials(listed(tmp_path, text + text))
