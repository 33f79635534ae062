"""Enrolment, scoring in blocks, lists and matrices of scores, and score-trials against Kaldi's scores."""

import numpy as np
import pytest
from helpers import golden, load_ark, needs_data, needs_golden, run, save_ark, shared_data, shell
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.backend.cosine import cosine_terms
from voxark.backend.pair_terms import PairTerms
from voxark.backend.plda import Plda, PldaScoringOptions
from voxark.errors import VoxarkError
from voxark.scoring import pairs as score
from voxark.scoring.backends import BackendOptions, open_backend, plda_terms, similarity_terms
from voxark.scoring.dense import read_dense, read_keys, write_dense, write_keys
from voxark.scoring.enrolment import Enrolment, enrol_sessions
from voxark.trials.lists import read_scores
from voxark.scoring.run import Summary


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


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a few pairs fill many."""
    monkeypatch.setattr(score, "_TILE_MODELS", 3)
    monkeypatch.setattr(score, "_TILE_TESTS", 4)
    monkeypatch.setattr(score, "_PAIRS_AT_ONCE", 50)
    monkeypatch.setattr(score, "_BLOCK_VALUES", 20)


def loop_scores(terms, enroll, test):
    """One pair at a time."""
    return [
        terms.left[i] @ terms.right[j] + terms.row[i] + terms.column[terms.group[i], j]
        for i, j in zip(enroll, test)
    ]


@pytest.mark.parametrize("pair_cost", [0, 1.5, 10**9])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_blocks_equal_a_loop(small_blocks, monkeypatch, pair_cost, ordered, dtype):
    monkeypatch.setattr(score, "_PAIR_COST", pair_cost)  # 0: pairs only, 10^9: matrix products only
    terms, rng = random_terms(), np.random.default_rng(1)
    pairs = rng.permutation(13 * 17)[:120]
    pairs = np.sort(pairs) if ordered else pairs
    enroll, test = (pairs // 17).astype(dtype), (pairs % 17).astype(dtype)
    scores = score.score_pairs(terms, enroll, test)
    np.testing.assert_allclose(scores, loop_scores(terms, enroll, test), rtol=1e-12, atol=1e-12)


def test_pairs_may_repeat_and_models_of_one_group_may_be_chosen(small_blocks):
    terms = random_terms(groups=1)
    enroll, test = np.array([5, 5, 0, 12, 5]), np.array([3, 3, 16, 0, 3])
    scores = score.score_pairs(terms, enroll, test)
    np.testing.assert_allclose(scores, loop_scores(terms, enroll, test), rtol=1e-12)
    chosen = terms.restricted(np.array([5, 0]), np.array([16, 3]))
    np.testing.assert_allclose(
        chosen.dense().ravel(), loop_scores(terms, [5, 5, 0, 0], [16, 3, 16, 3]), rtol=1e-12
    )


def test_more_tiles_than_a_short_number_holds(monkeypatch):
    monkeypatch.setattr(score, "_TILE_MODELS", 1)
    monkeypatch.setattr(score, "_TILE_TESTS", 1)
    terms, rng = random_terms(models=300, tests=300, dim=2), np.random.default_rng(0)
    enroll, test = rng.integers(0, 300, 500), rng.integers(0, 300, 500)
    scores = score.score_pairs(terms, enroll, test)
    np.testing.assert_allclose(scores, loop_scores(terms, enroll, test), rtol=1e-12)


def test_no_pairs_give_no_scores():
    assert len(score.score_pairs(random_terms(), np.zeros(0, int), np.zeros(0, int))) == 0


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
    terms = plda_terms(
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

    terms = similarity_terms(backend, Enrolment.of_sessions(x, sessions), tests, mode)
    for rows, row in zip(sessions, terms.dense()):
        expected = (
            scores(x[rows].mean(axis=0)[None], tests)
            if mode == "mean"
            else scores(x[rows], tests).mean(axis=0)
        )
        np.testing.assert_allclose(row, np.ravel(expected), rtol=1e-12, atol=1e-14)


def test_cosine_of_normalised_sessions():
    _, x, sessions, tests = sessions_and_tests()
    terms = similarity_terms(
        "cosine", Enrolment.of_sessions(x, sessions), tests, average_after_norm=True
    )
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    means = np.stack([unit[rows].mean(axis=0) for rows in sessions])
    np.testing.assert_allclose(terms.dense(), cosine_terms(means, tests).dense(), rtol=1e-12)
    with pytest.raises(VoxarkError, match="--enroll=book needs --backend=plda"):
        similarity_terms("cosine", Enrolment.of_vectors(x), tests, "book")
    with pytest.raises(VoxarkError, match="enrolment vectors have dimension 5, test vectors 4"):
        similarity_terms("cosine", Enrolment.of_vectors(x), tests[:, :4])


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
        expected = plda_terms(plda, models, x[3:6], mode).dense()[[0, 1, 0, 1], [0, 0, 1, 2]]
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
    *pair, value = done.stdout.split()
    assert pair == [b"u1", b"u0"]
    assert np.float32(value) == np.float32(x[1].astype(float) @ x[0].astype(float))
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
        command = ["score-trials", "--backend=plda", f"--model={folder}/plda", folder / "trials"]
        done = run(*command, enroll, test, folder / "scores", check=False)
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


# ---------------------------------------------------------------------------------------------- other vectors


def put_vectors(folder, **vectors):
    return save_ark(folder / "some.ark", {key: np.array(x, np.float32) for key, x in vectors.items()})


@pytest.mark.parametrize("backend", ["cosine", "dot"])
def test_vectors_of_no_use_count_as_missing(tmp_path, backend):
    table = put_vectors(tmp_path, good=[1, 2], nan=[np.nan, 1], inf=[1, np.inf], other=[3, 4])
    with open(table[4:], "ab") as out:  # an empty vector, which kaldiio would not write
        out.write(b"empty \0BFV \4\0\0\0\0")
    keys = "nan", "inf", "empty", "other"
    (tmp_path / "trials").write_text("".join(f"good {key}\n{key} good\n" for key in keys))
    command = ["score-trials", f"--backend={backend}", tmp_path / "trials", table, table, tmp_path / "scores"]
    done = run(*command, check=False)
    assert done.returncode == 1 and not (tmp_path / "scores").exists()
    assert "6 of 8 trials lack a side" in done.stderr
    assert done.stderr.count("nan: holds NaN or infinite values") == 2
    run(*command, "--allow-missing")
    scores = read_scores(str(tmp_path / "scores"))
    expected = 11 / np.sqrt(5 * 25) if backend == "cosine" else 11
    assert [scores.pair(p) for p in range(2)] == ["good other", "other good"]
    np.testing.assert_allclose(scores.scores, expected, rtol=1e-6)
    listed = (tmp_path / "scores.missing").read_text().splitlines()
    reasons = ["nan holds NaN or infinite values", "inf holds NaN or infinite values"]
    assert sorted(listed) == sorted(2 * [*reasons, "empty is an empty vector"])


def test_vectors_of_no_use_that_no_trial_names_do_not_matter(tmp_path):
    table = put_vectors(tmp_path, a=[1, 2], nan=[np.nan, 1], b=[3, 4])
    (tmp_path / "trials").write_text("a b\n")
    done = run("score-trials", "--backend=dot", tmp_path / "trials", table, table, "-")
    assert done.stdout == b"a b 11\n" and "failed 0" in done.stderr


def test_vectors_of_another_dimension_are_an_error_that_names_both(tmp_path):
    table = put_vectors(tmp_path, a=[1, 2], b=[3, 4, 5])
    (tmp_path / "trials").write_text("a b\n")
    done = run("score-trials", "--allow-missing", tmp_path / "trials", table, table, "-", check=False)
    assert done.returncode == 1 and "b: dimension 3, but a has 2" in done.stderr


def test_zero_vectors_have_cosine_zero_and_are_counted(tmp_path):
    table = put_vectors(tmp_path, a=[1, 2], zero=[0, 0])
    (tmp_path / "trials").write_text("a zero\na a\n")
    done = run("score-trials", tmp_path / "trials", table, table, "-")
    assert done.stdout == b"a zero 0\na a 1\n"
    assert "1 of 2 test vectors are zero" in done.stderr and "enrolment vectors are zero" not in done.stderr


def test_a_score_beyond_all_numbers_is_refused(tmp_path):
    table = save_ark(tmp_path / "big.ark", {"a": np.full(3, 1e200), "b": np.ones(3)})
    (tmp_path / "trials").write_text("a a\n")
    command = ["score-trials", "--backend=dot", tmp_path / "trials", table, table, tmp_path / "s"]
    done = run(*command, check=False)
    assert done.returncode == 1 and "the score of a a is infinite" in done.stderr
    outputs = f"ark:{tmp_path}/m.ark", tmp_path / "e", tmp_path / "t"
    done = run("score-trials", "--dense", "--backend=dot", table, table, *outputs, check=False)
    assert done.returncode == 1 and "beyond single precision" in done.stderr
    assert not (tmp_path / "m.ark").exists() and not (tmp_path / "s").exists()


def test_a_table_given_for_both_sides_is_read_once(corpus):
    folder, x, _ = corpus
    (folder / "trials").write_text("u0 u1\nu2 u0\nu1 u3\n")
    table = f"ark:echo once >> {folder}/runs; cat {folder}/v.ark |"
    run("score-trials", "--backend=dot", folder / "trials", table, table, folder / "scores")
    assert (folder / "runs").read_text() == "once\n"
    expected = [x[0] @ x[1], x[2] @ x[0], x[1] @ x[3]]
    np.testing.assert_allclose(read_scores(str(folder / "scores")).scores, expected, rtol=1e-6)


def test_what_is_missing_is_listed_only_where_it_is_allowed(corpus):
    folder, _, _ = corpus
    table = f"ark:{folder}/v.ark"
    (folder / "trials").write_text("u0 u1\nu0 v1\nv2 u1\nu0 v3\nv2 u0\n")
    command = ["score-trials", folder / "trials", table, table]
    assert run(*command, folder / "scores", check=False).returncode == 1
    assert not (folder / "scores.missing").exists()
    run(*command, folder / "scores", "--allow-missing", f"--failed-list={folder}/failed")
    listed = "v2 has no enrolment vector\nv1 has no test vector\nv3 has no test vector\n"
    assert (folder / "scores.missing").read_text() == (folder / "failed").read_text() == listed
    (folder / "trials").write_text("u0 u1\n")
    run(*command, folder / "scores", "--allow-missing")
    assert (folder / "scores.missing").read_text() == ""  # nothing of the last run stays
    before = set(folder.iterdir())
    run(*command, "-", "--allow-missing")
    run(*command, "/dev/null", "--allow-missing")
    assert set(folder.iterdir()) == before


# ---------------------------------------------------------------------------------------------- streaming


def score_in_process(folder, trials, allow_missing=False, backend=None):
    """score_list in this process, so that its blocks can be made small; (Summary, what is missing)."""
    from voxark.arrays import Device
    from voxark.scoring.enrolment import EnrolmentOptions
    from voxark.scoring.missing import Missing
    from voxark.scoring.run import VectorInputs, score_list

    missing = Missing(lambda key, reason: None, allow_missing)
    table = f"ark:{folder}/v.ark"
    backend = backend or BackendOptions(backend="dot")
    inputs = VectorInputs(table, table, backend, EnrolmentOptions(), Device(), missing)
    try:
        return score_list(str(trials), str(folder / "scores"), inputs), missing.listed
    except VoxarkError as error:
        return error, missing.listed


@pytest.fixture
def streams(monkeypatch):
    """Lists of more than three trials stream, in blocks of about as many."""
    from voxark.trials import columns
    from voxark.scoring import run as scoring

    monkeypatch.setattr(scoring, "_WHOLE_TRIALS", 3)
    monkeypatch.setattr(scoring, "_STREAM_TRIALS", 4)
    monkeypatch.setattr(columns, "BLOCK_BYTES", 20)


def test_a_list_that_streams_gives_what_one_read_whole_gives(corpus, streams, monkeypatch):
    from voxark.scoring import run as scoring

    folder, _, _ = corpus
    rng = np.random.default_rng(0)
    pairs = [f"u{p // 6} u{p % 6}\n" for p in rng.permutation(36)]
    (folder / "trials").write_text("".join(pairs))
    plda = BackendOptions(backend="plda", model=f"{folder}/plda")
    summary, _ = score_in_process(folder, folder / "trials", backend=plda)
    streamed = (folder / "scores").read_bytes()
    monkeypatch.setattr(scoring, "_WHOLE_TRIALS", 100)
    whole, _ = score_in_process(folder, folder / "trials", backend=plda)
    assert streamed == (folder / "scores").read_bytes() and streamed.count(b"\n") == 36
    assert (summary.number, whole.number) == (36, 36)
    np.testing.assert_allclose([summary.mean, summary.deviation], [whole.mean, whole.deviation], rtol=1e-12)
    scores = read_scores(str(folder / "scores")).scores
    np.testing.assert_allclose([whole.mean, whole.deviation], [scores.mean(), scores.std()], rtol=1e-6)


def test_what_is_missing_in_a_stream_is_named_once_and_all_of_it(corpus, streams):
    folder, x, _ = corpus
    pairs = ["u0 u1", "u1 u2", "u2 u3", "u3 w1", "u4 u5", "w0 u1", "u5 w1", "w0 w1", "u5 u0", "u1 w2"]
    (folder / "trials").write_text("".join(pair + "\n" for pair in pairs))
    error, listed = score_in_process(folder, folder / "trials")
    assert "missing, as named above: 3; 5 of 10 trials lack a side" in str(error)
    assert not (folder / "scores").exists()
    reasons = {"w0": "has no enrolment vector", "w1": "has no test vector", "w2": "has no test vector"}
    assert sorted(listed) == sorted(reasons.items())
    summary, listed = score_in_process(folder, folder / "trials", allow_missing=True)
    scores = read_scores(str(folder / "scores"))
    kept = [pair for pair in pairs if "w" not in pair]
    assert [scores.pair(p) for p in range(5)] == kept and summary.number == 5
    expected = [x[int(pair[1])] @ x[int(pair[4])] for pair in kept]
    np.testing.assert_allclose(scores.scores, expected, rtol=1e-6)
    assert sorted((folder / "scores.missing").read_text().splitlines()) == sorted(map(" ".join, listed))


def test_a_stream_with_nothing_to_score_is_an_error(corpus, streams):
    folder, _, _ = corpus
    (folder / "trials").write_text("".join(f"w{i} u1\n" for i in range(9)))
    error, _ = score_in_process(folder, folder / "trials", allow_missing=True)
    assert str(error) == "9 of 9 trials lack a side"


def test_repeats_are_refused_in_lists_read_whole(corpus):
    folder, _, _ = corpus
    (folder / "trials").write_text("u0 u1\nu1 u1\nu0 u1\n")
    error, _ = score_in_process(folder, folder / "trials")
    assert ":3: the pair 'u0 u1' stands already on line 1" in str(error)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=5))
def test_the_summary_is_that_of_all_scores(blocks):
    summary = Summary()
    for block in blocks:
        summary.add(np.array(block))
    together = np.concatenate(blocks)
    assert summary.number == len(together)
    np.testing.assert_allclose(summary.mean, together.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(summary.deviation, together.std(), rtol=1e-6, atol=1e-4)


# ---------------------------------------------------------------------------------------------- every pair


def dense(folder, *options, enroll=None, test=None, check=True):
    """score-trials --dense on the corpus; (matrix, row keys, column keys) or what it said."""
    table = f"ark:{folder}/v.ark"
    done = run("score-trials", "--dense", *options, enroll or table, test or table, f"ark:{folder}/m.ark",
               folder / "rows", folder / "columns", check=check)
    if done.returncode:
        return done
    (matrix,) = load_ark(folder / "m.ark").values()
    return matrix, (folder / "rows").read_text().split(), (folder / "columns").read_text().split()


@pytest.mark.parametrize("mode", ["mean", "book", "score-mean"])
def test_the_matrix_holds_what_the_list_of_all_pairs_gives(corpus, mode):
    folder, _, _ = corpus
    options = ["--backend=plda", f"--model={folder}/plda"]
    options += [f"--enroll-map=ark:{folder}/map", f"--enroll={mode}"]
    matrix, rows, columns = dense(folder, *options)
    assert rows == ["m1", "m2"] and columns == [f"u{i}" for i in range(6)] and matrix.dtype == np.float32
    (folder / "trials").write_text("".join(f"{a} {b}\n" for a in rows for b in columns))
    table = f"ark:{folder}/v.ark"
    run("score-trials", *options, folder / "trials", table, table, folder / "scores")
    assert (matrix.ravel() == np.float32(read_scores(str(folder / "scores")).scores)).all()


def test_lists_choose_and_order_rows_and_columns(corpus):
    folder, x, _ = corpus
    (folder / "some").write_text("u4\nu0\nu2\n")
    (folder / "others").write_text("u5\nu1\n")
    lists = f"--enroll-list={folder}/some", f"--test-list={folder}/others"
    matrix, rows, columns = dense(folder, "--backend=dot", *lists)
    assert rows == ["u4", "u0", "u2"] and columns == ["u5", "u1"]
    np.testing.assert_allclose(matrix, x[[4, 0, 2]] @ x[[5, 1]].T, rtol=1e-5)
    matrix, rows, columns = dense(folder, "--backend=dot", lists[1])
    assert rows == [f"u{i}" for i in range(6)] and columns == ["u5", "u1"]
    np.testing.assert_allclose(matrix, x @ x[[5, 1]].T, rtol=1e-5)


def test_what_the_matrix_lacks_is_refused_unless_allowed(corpus):
    folder, x, _ = corpus
    (folder / "some").write_text("u4\nw\nu2\n")
    (folder / "map").write_text("u4 u1 u3\nu2 u0\n")
    lists = f"--enroll-list={folder}/some", f"--test-list={folder}/some"
    done = dense(folder, "--backend=dot", *lists, check=False)
    assert done.returncode == 1 and not (folder / "m.ark").exists() and not (folder / "rows").exists()
    assert "missing, as named above: 2; 1 of 3 models and 1 of 3 tests are missing" in done.stderr
    matrix, rows, columns = dense(folder, "--backend=dot", "--allow-missing", *lists)
    assert rows == columns == ["u4", "u2"]
    assert (folder / "m.ark.missing").read_text() == "w has no enrolment vector\nw has no test vector\n"
    np.testing.assert_allclose(matrix, x[[4, 2]] @ x[[4, 2]].T, rtol=1e-5)
    (folder / "map").write_text("m u1 u3\nn u9\n")
    done = dense(folder, "--backend=dot", f"--enroll-map=ark:{folder}/map", check=False)
    assert done.returncode == 1 and "u9: enrolment utterance of n has no vector" in done.stderr
    matrix, rows, _ = dense(folder, "--backend=dot", f"--enroll-map=ark:{folder}/map", "--allow-missing")
    assert rows == ["m"]
    np.testing.assert_allclose(matrix, x[[1, 3]].mean(axis=0)[None] @ x.T, rtol=1e-5)


def test_useless_vectors_are_named_in_a_matrix_of_all_pairs(tmp_path):
    table = put_vectors(tmp_path, a=[1, 2], nan=[np.nan, 1], b=[3, 4])
    done = dense(tmp_path, "--backend=dot", enroll=table, test=table, check=False)
    assert done.returncode == 1 and "1 of 3 models and 1 of 3 tests are missing" in done.stderr
    matrix, rows, columns = dense(tmp_path, "--backend=dot", "--allow-missing", enroll=table, test=table)
    assert rows == columns == ["a", "b"] and matrix.tolist() == [[5, 11], [11, 25]]


def test_a_large_matrix_comes_in_blocks_of_rows(tmp_path, monkeypatch, small_blocks):
    from voxark.scoring import dense as module

    monkeypatch.setattr(module, "_BLOCK_BYTES", 17 * 4 * 5)
    terms = random_terms()
    summary = Summary()
    write_dense(f"ark:{tmp_path}/m.ark", module.score_dense(score.PairScorer(terms), summary))
    assert [len(block) for block in load_ark(tmp_path / "m.ark").values()] == [5, 5, 3]
    write_keys(str(tmp_path / "e"), [f"e{i}" for i in range(13)])
    write_keys(str(tmp_path / "t"), [f"t{i}" for i in range(17)])
    blocks = list(read_dense(f"ark:{tmp_path}/m.ark", str(tmp_path / "e"), str(tmp_path / "t")))
    assert [key for keys, _, _ in blocks for key in keys] == [f"e{i}" for i in range(13)]
    assert all(keys == [f"t{i}" for i in range(17)] for _, keys, _ in blocks)
    together = np.concatenate([block for _, _, block in blocks])
    np.testing.assert_allclose(together, terms.dense(), rtol=1e-6, atol=1e-6)
    assert summary.number == 13 * 17
    np.testing.assert_allclose(summary.mean, terms.dense().mean(), rtol=1e-9)


@pytest.mark.parametrize(
    "rows, columns, message",
    [
        (["a"], ["x", "y"], "has 2 rows, "),
        (["a", "b", "c"], ["x", "y"], "has 2 rows, "),
        (["a", "b"], ["x"], "rows000001 has 2 columns, "),
        (["a", "a"], ["x", "y"], ":2: a stands already on line 1"),
        (["a", "b c"], ["x", "y"], ":2: one key was expected"),
        (["a", ""], ["x", "y"], ":2: one key was expected"),
        ([], ["x", "y"], "the list is empty"),
    ],
)
def test_matrices_and_keys_that_do_not_agree_are_refused(tmp_path, rows, columns, message):
    write_dense(f"ark:{tmp_path}/m.ark", [np.zeros((2, 2), np.float32)])
    write_keys(str(tmp_path / "e"), rows)
    write_keys(str(tmp_path / "t"), columns)
    with pytest.raises(VoxarkError, match=message):
        list(read_dense(f"ark:{tmp_path}/m.ark", str(tmp_path / "e"), str(tmp_path / "t")))


def test_a_matrix_with_a_nan_is_refused(tmp_path):
    write_dense(f"ark:{tmp_path}/m.ark", [np.array([[1, np.nan]], np.float32)])
    write_keys(str(tmp_path / "e"), ["a"])
    write_keys(str(tmp_path / "t"), ["x", "y"])
    with pytest.raises(VoxarkError, match="not finite"):
        list(read_dense(f"ark:{tmp_path}/m.ark", str(tmp_path / "e"), str(tmp_path / "t")))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "wrong number of arguments"),
        (["a", "b", "c", "d", "e"], "wrong number of arguments: 4 expected without --dense, 5 given"),
        (["--dense", "a", "b", "c", "d"], "wrong number of arguments: 5 expected with --dense, 4 given"),
        (["--enroll-list=x", "a", "b", "c", "d"], "go with --dense"),
        (["--dense", "--backend=gmm", "--model=x", "a", "b", "c", "d", "e"], "are for vectors"),
    ],
)
def test_wrong_command_lines_are_explained(arguments, message):
    done = run("score-trials", *arguments, check=False)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]


# ---------------------------------------------------------------------------------------------- back-ends


def test_back_ends_from_their_options(corpus):
    folder, x, plda = corpus
    models, tests = Enrolment.of_sessions(x, [[0, 1], [2]]), x[3:]
    options = BackendOptions(backend="plda", model=f"{folder}/plda", normalize_length=False)
    np.testing.assert_allclose(
        open_backend(options)(models, tests, "book").dense(),
        plda_terms(plda, models, tests, "book", options).dense(), rtol=1e-12)
    for name in ("cosine", "dot"):
        np.testing.assert_allclose(
            open_backend(BackendOptions(backend=name))(models, tests, average_after_norm=True).dense(),
            similarity_terms(name, models, tests, average_after_norm=True).dense(), rtol=1e-12)
    for options, message in ((BackendOptions(backend="dplda"), "needs --model"),
                             (BackendOptions(backend="dot", model="x"), "no use for --model"),
                             (BackendOptions(backend="plda", model=f"{folder}/v.ark"), "v.ark")):
        with pytest.raises(VoxarkError, match=message):
            open_backend(options)


def test_sessions_of_a_table_in_the_order_that_is_asked_for(corpus):
    folder, x, _ = corpus
    failed = []
    with tables.open_reader("vec", f"ark:{folder}/v.ark") as vectors:
        sessions = {"m1": ["u1", "u9", "u0"], "m2": ["u5"]}
        enrolment, place = enrol_sessions(
            vectors, ["m2", "m0", "m1"], sessions, lambda *why: failed.append(why)
        )
    assert place.tolist() == [0, -1, 1]
    np.testing.assert_allclose(enrolment.averaged(), [x[5], (x[0] + x[1]) / 2], rtol=1e-6)
    assert failed == [("m0", "has no enrolment utterance"), ("u9", "enrolment utterance of m1 has no vector")]


# ----------------------------------------------------------------------------------------- another toolkit


def subspace_plda(x, labels, rank, iterations):
    """PLDA x = m + F h + e, e ~ N(0, S), by EM from the eigenvectors of the covariance: (m, F, S).

    The closing minimum-divergence step multiplies F by the transposed Cholesky factor, as speechbrain does.
    """
    counts = np.bincount(labels).astype(float)
    mean = x.mean(axis=0)
    centred = x - mean
    total = centred.T @ centred / len(x)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, labels, centred)
    factors, noise = np.linalg.eigh(total)[1][:, ::-1][:, :rank], total
    for _ in range(iterations):
        weights = np.linalg.solve(noise, factors)
        precision = factors.T @ weights
        hidden = np.zeros((len(counts), rank))
        squares, weighted = np.zeros((2, rank, rank))
        for count in np.unique(counts):
            mine = counts == count
            covariance = np.linalg.inv(np.eye(rank) + count * precision)
            hidden[mine] = sums[mine] @ weights @ covariance
            second = mine.sum() * covariance + hidden[mine].T @ hidden[mine]
            squares, weighted = squares + second, weighted + count * second
        cross = hidden.T @ sums
        factors = np.linalg.solve(weighted, cross).T
        noise = total - factors @ cross / len(x)
        factors = factors @ np.linalg.cholesky(squares / len(counts)).T
    return mean, factors, noise


@needs_data("embeddings/voxceleb_xvectors_speechbrain")
def test_another_toolkits_plda_scores_are_reproduced(tmp_path):
    folder = shared_data("embeddings/voxceleb_xvectors_speechbrain")
    parts = {name: np.load(folder / f"{name}.npz") for name in ("train", "enrol", "test")}
    labels = np.unique(parts["train"]["models"], return_inverse=True)[1]
    mean, factors, noise = subspace_plda(parts["train"]["x"].astype(float), labels, 100, 10)
    plda = Plda.from_covariances(mean, noise, factors @ factors.T)
    tables.write_object("plda", str(tmp_path / "plda"), plda.to_params())
    for name in ("enrol", "test"):
        save_ark(tmp_path / f"{name}.ark", dict(zip(parts[name]["utts"].tolist(), parts[name]["x"])))
    tables_ = f"ark:{tmp_path}/enrol.ark", f"ark:{tmp_path}/test.ark", f"ark:{tmp_path}/m.ark"
    run("score-trials", "--dense", "--backend=plda", "--normalize-length=false", f"--model={tmp_path}/plda",
        *tables_, tmp_path / "e", tmp_path / "t")
    (matrix,) = load_ark(tmp_path / "m.ark").values()
    expected = np.load(folder / "expected_plda_scores.npz")["scores"]
    assert np.abs(expected).max() > 600
    np.testing.assert_allclose(matrix, expected, rtol=2e-7)  # single precision; in double 4e-11
    exact = plda.llr(plda.project(parts["enrol"]["x"]), plda.project(parts["test"]["x"]))
    np.testing.assert_allclose(exact, expected, rtol=1e-9)


# ---------------------------------------------------------------------------------------------- the step


def test_the_step_hands_its_options_on(corpus):
    folder, x, plda = corpus
    mean, lda = np.array([0.1, 0.2, 0.3]), np.random.default_rng(1).standard_normal((3, 3))
    (folder / "model").mkdir()
    tables.write_object("vec", str(folder / "model/mean.vec"), mean)
    tables.write_object("mat", str(folder / "model/lda.mat"), lda)
    tables.write_object("plda", str(folder / "model/plda"), plda.to_params())
    run("plda-copy", "--to=dplda", folder / "model/plda", folder / "model/dplda")
    vectors = (x - mean) @ lda.T
    vectors *= np.sqrt(3) / np.linalg.norm(vectors, axis=1)[:, None]
    chosen = [0, 1, 0, 1], [0, 0, 1, 2]  # of the models m1, m2 and the tests u3, u4, u5
    for backend, more in (("plda", "--score-opts '--normalize-length=false --verbose=1'"), ("dplda", "")):
        options = f"--backend {backend} --enroll score-mean --enroll-map map {more}"
        shell(f"score.sh {options} trials model v.scp exp_{backend}", cwd=folder)
        models = Enrolment.of_sessions(vectors, [[0, 1], [2]])
        options = BackendOptions(backend="plda", normalize_length=False)
        expected = plda_terms(plda, models, vectors[3:], "score-mean", options).dense()[chosen]
        out = folder / f"exp_{backend}"
        np.testing.assert_allclose(read_scores(str(out / "scores")).scores, expected, rtol=1e-5, atol=1e-5)
        assert not (out / "dropped").read_text() and not (out / "scores.missing").exists()
        assert "EER" in (out / "eer").read_text()
