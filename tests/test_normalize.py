"""Score normalisation: formulas against loops, what leaves scores unchanged, cohorts, normalize-scores."""

import logging

import numpy as np
import pytest
from helpers import needs_data, run, save_ark, shared_data, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from voxark.backend.cosine import cosine_terms
from voxark.backend.plda import Plda
from voxark.errors import VoxarkError
from voxark.scoring import normalize
from voxark.scoring.backends import plda_terms
from voxark.scoring.cohort import cohort_matrix
from voxark.scoring.enrolment import Enrolment
from voxark.trials.lists import TrialList, read_scores
from voxark.scoring.normalize import METHODS, ModelScores, Normalizer, TestScores, cohort_statistics
from voxark.scoring.spool import TrialSpool

# ------------------------------------------------------------------------------------------ formulas as loops


def mean_std(values):
    mean = sum(values) / len(values)
    return mean, max(1e-6, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5)


def highest(row, top_n):
    """Numbers of the members with the highest scores, the lower number first among equals."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))[:top_n]


def standardised(score, values):
    mean, std = mean_std(values)
    return (score - mean) / std


def by_loops(method, scores, enroll, test, e_cohort, t_cohort, c_cohort, groups, top_n):
    """Normalised scores by the definitions, one trial at a time."""
    found = []
    for s, e, t in zip(scores, enroll, test):
        row_e, row_t = e_cohort[e].tolist(), t_cohort[t].tolist()
        top_e, top_t = highest(row_e, top_n), highest(row_t, top_n)
        if method == "z":
            found.append(standardised(s, row_e))
        elif method == "t":
            found.append(standardised(s, row_t))
        elif method == "s":
            found.append((standardised(s, row_e) + standardised(s, row_t)) / 2)
        elif method == "az":
            found.append(standardised(s, [row_e[c] for c in top_e]))
        elif method == "at":
            found.append(standardised(s, [row_t[c] for c in top_t]))
        elif method == "as1":
            z, t = standardised(s, [row_e[c] for c in top_e]), standardised(s, [row_t[c] for c in top_t])
            found.append((z + t) / 2)
        elif method == "as2":
            z, t = standardised(s, [row_e[c] for c in top_t]), standardised(s, [row_t[c] for c in top_e])
            found.append((z + t) / 2)
        else:
            others = [
                [c_cohort[a, b] for b in range(len(groups)) if groups[a] != groups[b]]
                for a in range(len(groups))
            ]
            impostors = [standardised(row_t[c], others[c]) for c in range(len(groups))]
            found.append(standardised(standardised(s, row_e), impostors))
    return np.array(found)


class Case:
    """Random scores of trials and with a cohort; rounded ones have ties."""

    def __init__(self, seed, models=7, tests=5, cohort=9, trials=23, rounded=False):
        rng = np.random.default_rng(seed)

        def draw(*shape):
            values = 3.0 + 2.0 * rng.standard_normal(shape)
            return np.round(values) if rounded else values

        self.scores = draw(trials)
        self.enroll, self.test = rng.integers(0, models, trials), rng.integers(0, tests, trials)
        self.e_cohort, self.t_cohort, self.c_cohort = (
            draw(models, cohort),
            draw(tests, cohort),
            draw(cohort, cohort),
        )
        self.groups = np.arange(cohort) // 2

    def mapped(self, scale, offset):
        """The same case with all scores mapped affinely."""
        other = Case(0)
        other.__dict__.update(self.__dict__)
        for name in ("scores", "e_cohort", "t_cohort", "c_cohort"):
            setattr(other, name, scale * getattr(self, name) + offset)
        return other

    def loops(self, method, top_n):
        return by_loops(
            method,
            self.scores,
            self.enroll,
            self.test,
            self.e_cohort,
            self.t_cohort,
            self.c_cohort,
            self.groups,
            top_n,
        )

    def normalised(self, method, top_n):
        of_members = None
        if method == "zt":
            source = normalize.MatrixScores(self.c_cohort)
            of_members = normalize.other_speakers_statistics(source, self.groups, self.groups)
        normalizer = Normalizer(method, self.e_cohort, self.t_cohort, top_n, of_members)
        return normalizer.normalise(self.scores, self.enroll, self.test)


@pytest.fixture(params=["gathered", "products", "small blocks"])
def way(request, monkeypatch):
    """The ways of as2, and blocks of a row or two."""
    if request.param == "small blocks":
        for name, value in (("_BLOCK_SCORES", 20), ("_TILE_SCORES", 20), ("_GATHER_VALUES", 5)):
            monkeypatch.setattr(normalize, name, value)
    else:
        monkeypatch.setattr(normalize, "_GATHER_COST", 0 if request.param == "gathered" else 10**9)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("top_n", [2, 4, 9, 300])
@pytest.mark.parametrize("method", METHODS)
def test_each_formula_against_loops(way, method, top_n, rounded):
    case = Case(top_n, rounded=rounded)
    assert np.allclose(case.normalised(method, top_n), case.loops(method, top_n), rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(
    st.sampled_from(METHODS), st.integers(0, 99), st.integers(1, 9), st.integers(1, 9), st.integers(4, 12),
    st.integers(2, 14), st.booleans(), st.sampled_from([0, 32, 10**9]), st.integers(1, 60),
)  # fmt: skip
def test_any_shape_in_any_blocks(method, seed, models, tests, cohort, top_n, rounded, cost, block):
    case = Case(seed, models, tests, cohort, 17, rounded)
    old = {name: getattr(normalize, name) for name in ("_GATHER_COST", "_BLOCK_SCORES", "_TILE_SCORES")}
    normalize._GATHER_COST, normalize._BLOCK_SCORES, normalize._TILE_SCORES = cost, block, block
    try:
        found = case.normalised(method, top_n)
    finally:
        for name, value in old.items():
            setattr(normalize, name, value)
    # rounded scores may have a standard deviation of zero, which its floor magnifies
    assert np.allclose(found, case.loops(method, top_n), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_worked_by_hand(method):
    """One trial with score 5; the model has cohort scores 0, 2, 4 (mean 2), the test 1, 1, 4 (mean 2)."""
    wide, narrow = np.sqrt(8 / 3), np.sqrt(2.0)
    expected = {
        "z": 3 / wide,
        "t": 3 / narrow,
        "s": (3 / wide + 3 / narrow) / 2,
        "az": 2.0,  # 2, 4
        "at": 2.5 / 1.5,  # 1, 4
        "as1": (2.0 + 2.5 / 1.5) / 2,
        "as2": ((5 - 2) / 2 + (5 - 2.5) / 1.5) / 2,  # the test's two are members 0 and 2, the model's 1 and 2
        "zt": (3 / wide - 2) / narrow,  # the members' own mean is 0 and deviation 1
    }[method]
    e_cohort, t_cohort = np.array([[0.0, 2, 4]]), np.array([[1.0, 1, 4]])
    of_members = normalize.Statistics(np.zeros(3), np.ones(3))
    found = Normalizer(method, e_cohort, t_cohort, 2, of_members).normalise(
        [5.0], np.array([0]), np.array([0])
    )
    assert found == pytest.approx([expected], rel=1e-12)


# --------------------------------------------------------------------------------------- what changes nothing


@pytest.mark.parametrize("method", METHODS)
def test_affine_changes_of_all_scores_change_nothing(way, method):
    case = Case(1)
    assert np.allclose(case.mapped(0.03, -70.0).normalised(method, 4), case.normalised(method, 4), atol=1e-8)


@pytest.mark.parametrize("method", ["z", "t", "s", "az", "at", "as1", "as2"])
def test_the_order_of_the_cohort_changes_nothing(way, method):
    case, order = Case(2), np.random.default_rng(0).permutation(9)
    before = case.normalised(method, 4)
    case.e_cohort, case.t_cohort = case.e_cohort[:, order], case.t_cohort[:, order]
    assert np.allclose(case.normalised(method, 4), before, rtol=1e-12)


def test_a_cohort_not_larger_than_k_is_taken_whole():
    case = Case(3)
    for adaptive, plain in (("az", "z"), ("at", "t"), ("as1", "s"), ("as2", "s")):
        assert np.allclose(case.normalised(adaptive, 9), case.normalised(plain, 300), rtol=1e-12)


def test_a_symmetric_back_end_gives_symmetric_scores():
    x, cohort = (np.random.default_rng(4).standard_normal((n, 6)) for n in (8, 20))
    enroll, test = np.divmod(np.arange(64), 8)
    scores = cosine_terms(x, x).dense().ravel()
    sides = ModelScores(cosine_terms(x, cohort)), TestScores(cosine_terms(cohort, x))
    for method in ("s", "as1", "as2"):
        found = Normalizer(method, *sides, 5).normalise(scores, enroll, test).reshape(8, 8)
        assert np.allclose(found, found.T, rtol=1e-10)


def test_z_norm_gives_the_cohort_itself_mean_0_and_deviation_1():
    scores = Case(5).e_cohort
    rows, columns = np.indices(scores.shape)
    found = (
        Normalizer("z", scores).normalise(scores.ravel(), rows.ravel(), columns.ravel()).reshape(scores.shape)
    )
    assert np.allclose(found.mean(axis=1), 0) and np.allclose(found.std(axis=1), 1)


# ------------------------------------------------------------------------------------- where scores come from


def test_blocks_of_terms_are_the_scores_of_both_sides():
    """PLDA by the book, with models of different numbers of sessions: the general case of PairTerms."""
    rng = np.random.default_rng(6)
    plda = Plda(rng.standard_normal(4), rng.standard_normal((4, 4)), rng.random(4) + 0.1)
    cohort = Enrolment.of_vectors(rng.standard_normal((6, 4)), [1, 3, 1, 2, 3, 1])
    terms = plda_terms(plda, cohort, rng.standard_normal((5, 4)), "book")
    whole = terms.dense()
    for rows in (slice(0, 2), slice(1, 5)):
        assert np.allclose(TestScores(terms).block(rows), whole.T[rows], rtol=1e-12)
        assert np.allclose(ModelScores(terms).block(rows), whole[rows], rtol=1e-12)


def test_score_matrices_are_not_written_to():
    case = Case(7)
    before = [case.e_cohort.copy(), case.t_cohort.copy(), case.c_cohort.copy()]
    for method in METHODS:
        case.normalised(method, 3)
    assert all(np.array_equal(a, b) for a, b in zip(before, (case.e_cohort, case.t_cohort, case.c_cohort)))


def test_equal_cohort_scores_meet_the_floor_and_are_named(caplog):
    scores = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    with caplog.at_level(logging.WARNING, "voxark"):
        normalizer = Normalizer("z", normalize.MatrixScores(scores, ["flat", "not"]))
    assert normalizer.normalise([2.0], np.array([0]), np.array([0])) == pytest.approx([1e6])
    assert "1 of 2 enrolment ids have the same score with all of the cohort, the first is flat" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["z", "as1", "as2"])
def test_cohort_scores_that_are_not_finite_are_named(method, bad):
    scores = Case(8).e_cohort
    scores[3, 1] = bad
    source = normalize.MatrixScores(scores, list("abcdefg"))
    with pytest.raises(VoxarkError, match="^d: scores with the cohort are NaN or infinite"):
        Normalizer(method, source, source, 4)


def test_what_has_no_standard_deviation_is_refused():
    case = Case(9)
    with pytest.raises(VoxarkError, match="the cohort has 1 member:"):
        cohort_statistics(normalize.MatrixScores(case.e_cohort[:, :1]))
    with pytest.raises(VoxarkError, match="--top-n=1"):
        case.normalised("as1", 1)
    with pytest.raises(VoxarkError, match="0 members of other speakers"):
        case.groups = np.zeros(9)
        case.normalised("zt", 4)
    with pytest.raises(VoxarkError, match="needs one cohort"):
        Normalizer("as2", case.e_cohort, case.t_cohort[:, 1:])
    with pytest.raises(VoxarkError, match="method 'x'"):
        Normalizer("x", case.e_cohort, case.t_cohort)


def test_cohort_matrices_are_found_by_key_either_way_round():
    scores = np.arange(12.0).reshape(3, 4)
    rows, columns = ["c", "a", "b"], ["z", "y", "x", "w"]
    blocks = [(rows[:2], columns, scores[:2]), (rows[2:], columns, scores[2:])]
    found = cohort_matrix(iter(blocks), {"a", "c", "missing"}, "m")
    assert (found.keys, found.members) == (["c", "a"], ["w", "x", "y", "z"])
    assert np.array_equal(found.scores, scores[:2, ::-1])
    found = cohort_matrix(iter(blocks), {"x", "z"}, "m")
    assert (found.keys, found.members) == (["z", "x"], ["a", "b", "c"])
    assert np.array_equal(found.scores, scores[[1, 2, 0]][:, [0, 2]].T)
    with pytest.raises(VoxarkError, match="holds no scores of the ids"):
        cohort_matrix(iter(blocks), {"q"}, "m")


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_a_spool_gives_the_trials_back_in_any_blocks(limit):
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 9, 50).astype(np.int32), rng.integers(0, 9, 50).astype(np.int32)
    trials = TrialList("name", list("abcdefghi"), list("rstuvwxyz"), *columns, scores=rng.standard_normal(50))
    with TrialSpool(limit) as spool:
        for part in (slice(0, 20), slice(20, 21), slice(21, 50)):
            spool.add(trials.select(part))
        blocks = list(spool.blocks(trials, 13))
    assert [len(block) for block in blocks] == [13, 13, 13, 11] and spool.num_trials == 50
    for column in ("enroll", "test", "scores"):
        assert np.array_equal(np.concatenate([getattr(b, column) for b in blocks]), getattr(trials, column))
    assert blocks[0].pair(0) == trials.pair(0)


def test_a_full_disk_is_named_by_the_spool():
    trials = TrialList("name", ["a"], ["x"], *np.zeros((2, 9), np.int32), scores=np.zeros(9))
    with TrialSpool() as spool, open("/dev/full", "wb", buffering=0) as full:
        spool._file = full
        with pytest.raises(VoxarkError, match="no room for 144 bytes of scores: No space left"):
            spool.add(trials)


# ------------------------------------------------------------------------------------------------ the program


class Files:
    """A small task in files: vectors of both sides and of a cohort, raw cosine scores in a shuffled order."""

    def __init__(self, folder, dim=5):
        rng = np.random.default_rng(10)
        self.folder = folder
        self.x = {side: {f"{side}{i}": rng.standard_normal(dim).astype(np.float32) for i in range(n)}
                  for side, n in (("e", 6), ("t", 8), ("c", 12))}  # fmt: skip
        self.e, self.t, self.c = (save_ark(folder / f"{side}.ark", x) for side, x in self.x.items())
        pairs = [(e, t) for e in self.x["e"] for t in self.x["t"]]
        pairs = [pairs[place] for place in rng.permutation(48)[:40]]
        self.scores = folder / "scores"
        self.raw = {(e, t): self.cosine([self.x["e"][e]], [self.x["t"][t]])[0, 0] for e, t in pairs}
        self.write(self.raw)

    @staticmethod
    def cosine(a, b):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.stack(a), np.stack(b)))
        return a.astype(np.float64) @ b.T.astype(np.float64)

    def write(self, scores):
        self.scores.write_text("".join(f"{e} {t} {s:.9g}\n" for (e, t), s in scores.items()))

    def expected(self, method, top_n=300, cohort=None, groups=None):
        e, t = (list(self.x[side].values()) for side in "et")
        c = list((cohort or self.x["c"]).values())
        names_e, names_t = list(self.x["e"]), list(self.x["t"])
        enroll, test = (
            [names.index(pair[side]) for pair in self.raw] for side, names in ((0, names_e), (1, names_t))
        )
        return by_loops(method, list(self.raw.values()), enroll, test, self.cosine(e, c), self.cosine(t, c),
                        self.cosine(c, c), range(len(c)) if groups is None else groups, top_n)  # fmt: skip

    def run(self, *options, check=True, cohort=None):
        return run("normalize-scores", *options, self.scores, self.e, self.t, cohort or self.c,
                   self.folder / "out", check=check)  # fmt: skip

    def out(self):
        scored = read_scores(str(self.folder / "out"))
        return {tuple(scored.pair(p).split()): scored.scores[p] for p in range(len(scored))}

    def matrix(self, name, rows, columns):
        """Scores as `score-trials --dense` writes them: two blocks, and the lists of keys."""
        scores = self.cosine(list(rows.values()), list(columns.values())).astype(np.float32)
        ark = save_ark(self.folder / f"{name}.ark", {"rows000001": scores[:3], "rows000002": scores[3:]})
        words = [ark]
        for side, keys in (("rows", rows), ("columns", columns)):
            write_lines(self.folder / f"{name}.{side}", *keys)
            words.append(str(self.folder / f"{name}.{side}"))
        return " ".join(words)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_program_on_vectors(files, method):
    done = files.run(f"--method={method}", "--top-n=4")
    assert list(files.out()) == list(files.raw)  # the same pairs in the same order
    assert np.allclose(list(files.out().values()), files.expected(method, 4), rtol=1e-5, atol=1e-5)
    assert "done 40, failed 0" in done.stderr
    assert ("cohort of 12, of which each takes 4" in done.stderr) == (method in ("az", "at", "as1", "as2"))
    assert "without --cohort-utt2spk and --utt2spk it is not checked" in done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_program_on_matrices_gives_what_vectors_give(files, method):
    x, options = files.x, []
    if method not in ("t", "at"):
        options.append("--enroll-cohort=" + files.matrix("ec", x["e"], x["c"]))
    if method not in ("z", "az"):
        options.append("--test-cohort=" + files.matrix("ct", x["c"], x["t"]))
    if method == "zt":
        options.append("--cohort-cohort=" + files.matrix("cc", x["c"], x["c"]))
    run("normalize-scores", f"--method={method}", "--top-n=4", *options, files.scores, files.folder / "out")
    assert list(files.out()) == list(files.raw)
    assert np.allclose(list(files.out().values()), files.expected(method, 4), rtol=1e-4, atol=1e-4)


def test_matrices_that_do_not_fit_are_refused(files):
    ec, ct = files.matrix("ec", files.x["e"], files.x["c"]), files.matrix("ct", files.x["c"], files.x["t"])
    fewer = files.matrix("fewer", dict(list(files.x["c"].items())[1:]), files.x["t"])
    for options, message in (
        ([f"--enroll-cohort={ec}"], "--method=as1 needs --test-cohort"),
        (
            [f"--enroll-cohort={ec}", f"--test-cohort={ct}", "--method=z"],
            "--method=z has no use for --test-cohort",
        ),
        (
            [f"--enroll-cohort={ec}", f"--test-cohort={fewer}", "--method=as2"],
            "needs one cohort for both sides: 1 mem",
        ),
        (
            [f"--enroll-cohort={ec.split()[0]}", f"--test-cohort={ct}"],
            "'<matrix-rspecifier> <row-keys> <column-keys>'",
        ),
    ):
        failed = run("normalize-scores", *options, files.scores, files.folder / "out", check=False)
        assert failed.returncode == 1 and message in failed.stderr
        assert not (files.folder / "out").exists()


def test_order_of_lines_and_of_the_cohort_does_not_matter(files):
    files.run("--method=as2", "--top-n=4")
    before = (files.folder / "out").read_text().splitlines()
    files.write(dict(reversed(files.raw.items())))
    turned = save_ark(files.folder / "turned.ark", dict(reversed(files.x["c"].items())))
    files.run("--method=as2", "--top-n=4", cohort=turned)
    assert (files.folder / "out").read_text().splitlines() == before[::-1]


def test_default_is_as1_and_a_small_cohort_is_taken_whole_and_said_so(files):
    done = files.run()
    assert "cohort of 12, not more than --top-n=300: all of it is taken" in done.stderr
    assert np.allclose(list(files.out().values()), files.expected("s"), rtol=1e-5, atol=1e-5)


def test_a_pipe_and_repeated_lines_pass_through(files):
    text = files.scores.read_text()
    done = run("normalize-scores", "-", files.e, files.t, files.c, "-", stdin=(text + text).encode())
    files.run()
    assert done.stdout.decode() == 2 * (files.folder / "out").read_text()


def test_a_cohort_of_speakers(files):
    """With --cohort-spk2utt a member is a speaker: the mean of its vectors."""
    c = files.x["c"]
    spk2utt = write_lines(files.folder / "spk2utt", *(f"s{i} c{2 * i} c{2 * i + 1}" for i in range(6)))
    means = {f"s{i}": (c[f"c{2 * i}"] + c[f"c{2 * i + 1}"]) / 2 for i in range(6)}
    for method in ("as1", "zt"):
        done = files.run(f"--method={method}", "--top-n=3", f"--cohort-spk2utt={spk2utt}")
        found = list(files.out().values())
        assert np.allclose(found, files.expected(method, 3, means), rtol=1e-5, atol=1e-5)
        assert "without --utt2spk it is not checked" in done.stderr


def test_zt_leaves_out_the_speaker_itself(files):
    utt2spk = write_lines(files.folder / "utt2spk", *(f"c{i} s{i // 3}" for i in range(12)))
    files.run("--method=zt", f"--cohort-utt2spk={utt2spk}")
    vectors = list(files.out().values())
    assert np.allclose(
        vectors, files.expected("zt", groups=[i // 3 for i in range(12)]), rtol=1e-5, atol=1e-5
    )
    x = files.x
    options = (
        f"--cohort-utt2spk={utt2spk}",
        "--enroll-cohort=" + files.matrix("ec", x["e"], x["c"]),
        "--test-cohort=" + files.matrix("ct", x["c"], x["t"]),
        "--cohort-cohort=" + files.matrix("cc", x["c"], x["c"]),
    )
    run("normalize-scores", "--method=zt", *options, files.scores, files.folder / "out")
    assert np.allclose(list(files.out().values()), vectors, rtol=1e-4, atol=1e-4)


def test_multi_session_enrolment(files):
    """Models of the means of their utterances, as score-trials enrols them."""
    utterances = {f"u{i}{k}": v + k - 0.5 for i, v in enumerate(files.x["e"].values()) for k in (0, 1)}
    spk2utt = write_lines(files.folder / "map", *(f"e{i} u{i}0 u{i}1" for i in range(6)))
    files.e = save_ark(files.folder / "u.ark", utterances)
    files.run(f"--enroll-map={spk2utt}", "--top-n=4")
    assert np.allclose(list(files.out().values()), files.expected("as1", 4), rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------------------- who is in the cohort


def with_speakers(files, cohort_speaker, trial_speaker):
    cohort = write_lines(files.folder / "c2s", "c0 " + cohort_speaker, *(f"c{i} s{i}" for i in range(1, 12)))
    names = [*files.x["e"], *files.x["t"]]
    trials = write_lines(
        files.folder / "u2s", f"{names[0]} {trial_speaker}", *(f"{k} of_{k}" for k in names[1:])
    )
    return f"--cohort-utt2spk={cohort}", f"--utt2spk={trials}"


def test_a_cohort_speaker_in_the_trials_is_refused(files):
    done = files.run(*with_speakers(files, "s0", "o0"))
    assert "not checked" not in done.stderr
    (files.folder / "out").unlink()
    failed = files.run(*with_speakers(files, "same", "same"), check=False)
    assert failed.returncode == 1 and not (files.folder / "out").exists()
    assert "same: is in the cohort and in the trials" in failed.stderr and "1 such speakers" in failed.stderr
    # an enrolment id that is a speaker's name is that speaker, without --utt2spk too
    failed = files.run(with_speakers(files, "e3", "o0")[0], check=False)
    assert failed.returncode == 1 and "e3: is in the cohort and in the trials" in failed.stderr


def test_a_cohort_vector_in_the_trials_is_refused(files):
    for key in ("e2", "t7"):
        cohort = save_ark(files.folder / "more.ark", {**files.x["c"], key: np.ones(5, np.float32)})
        failed = files.run(cohort=cohort, check=False)
        assert failed.returncode == 1 and f"{key}: is in the cohort and in the trials" in failed.stderr
    enroll_map = write_lines(files.folder / "map", *(f"e{i} u{i}" for i in range(6)))
    cohort = save_ark(files.folder / "more.ark", {**files.x["c"], "u3": np.ones(5, np.float32)})
    failed = files.run(f"--enroll-map={enroll_map}", cohort=cohort, check=False)
    assert failed.returncode == 1 and "u3: is in the cohort and in the trials" in failed.stderr
    x = files.x
    options = ["--method=z", "--enroll-cohort=" + files.matrix("ec", x["e"], {**x["c"], "t1": x["t"]["t1"]})]
    failed = run("normalize-scores", *options, files.scores, files.folder / "out", check=False)
    assert failed.returncode == 1 and "t1: is in the cohort and in the trials" in failed.stderr


def test_a_cohort_vector_without_speaker_is_an_error(files):
    cohort = write_lines(files.folder / "c2s", *(f"c{i} s{i}" for i in range(11)))
    failed = files.run(f"--cohort-utt2spk={cohort}", check=False)
    assert (
        failed.returncode == 1
        and "1 of 12 cohort vectors have no speaker there, the first is c11" in failed.stderr
    )


# ------------------------------------------------------------------------------------- what is missing or bad


def test_missing_sides_are_named_and_refused_unless_allowed(files):
    files.e = save_ark(files.folder / "fewer.ark", {k: v for k, v in files.x["e"].items() if k != "e2"})
    lacking = sum(e == "e2" for e, _ in files.raw)
    failed = files.run(check=False)
    assert failed.returncode == 1 and not (files.folder / "out").exists()
    assert (
        "e2: has no enrolment vector" in failed.stderr
        and f"{lacking} of 40 trials lack a side" in failed.stderr
    )
    done = files.run("--allow-missing")
    assert list(files.out()) == [pair for pair in files.raw if pair[0] != "e2"]
    assert f"done {40 - lacking}, failed 1" in done.stderr
    assert (files.folder / "out.missing").read_text() == "e2 has no enrolment vector\n"
    kept = [place for place, pair in enumerate(files.raw) if pair[0] != "e2"]
    assert np.allclose(list(files.out().values()), files.expected("as1")[kept], rtol=1e-5, atol=1e-5)


def test_missing_rows_of_matrices(files):
    rows = {k: v for k, v in files.x["e"].items() if k != "e2"}
    option = "--enroll-cohort=" + files.matrix("ec", rows, files.x["c"])
    failed = run("normalize-scores", "--method=z", option, files.scores, files.folder / "out", check=False)
    assert failed.returncode == 1 and "e2: has no scores with the cohort" in failed.stderr
    run("normalize-scores", "--method=z", "--allow-missing", option, files.scores, files.folder / "out")
    assert list(files.out()) == [pair for pair in files.raw if pair[0] != "e2"]


def test_a_method_needs_only_its_own_side(files):
    files.t = save_ark(files.folder / "none.ark", {"t0": files.x["t"]["t0"]})
    files.run("--method=z")
    assert np.allclose(list(files.out().values()), files.expected("z"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("e0 t0 nan\n", ":1: a score was expected, found 'nan'"),
        ("e0 t0 1\ne0 t1 inf\n", "the score of e0 t1 is infinite"),
        ("e0 t0 x\n", "a score was expected"),
        ("e0 t0\n", "3 columns were expected"),
        ("", "the list is empty"),
        ("q0 t0 1\n", "none of the 1 enrolment ids of"),
    ],
)
def test_bad_scores_are_refused(files, text, message):
    files.scores.write_text(text)
    failed = files.run(check=False)
    assert failed.returncode == 1 and message in failed.stderr and not (files.folder / "out").exists()


def test_bad_cohorts_are_refused(files):
    one = save_ark(files.folder / "one.ark", {"c0": np.ones(5, np.float32)})
    other = save_ark(
        files.folder / "other.ark", {"c0": np.ones(4, np.float32), "c1": np.zeros(4, np.float32)}
    )
    bad = save_ark(files.folder / "bad.ark", {**files.x["c"], "c3": np.full(5, np.nan, np.float32)})
    (files.folder / "empty.ark").write_bytes(b"")
    for cohort, message in (
        (one, "the cohort has 1 member:"),
        (other, "dimension 5, test vectors 4"),
        (bad, "c3: holds NaN"),
        (f"ark:{files.folder / 'empty.ark'}", "the cohort is empty"),
    ):
        failed = files.run(cohort=cohort, check=False)
        assert failed.returncode == 1 and message in failed.stderr
    done = files.run("--allow-missing", cohort=bad)
    assert "cohort of 11" in done.stderr and len(files.out()) == 40


@pytest.mark.parametrize("options", [(), ("--allow-missing",)])
def test_a_cut_cohort_leaves_an_earlier_output_as_it_was(files, options):
    whole = (files.folder / "c.ark").read_bytes()
    (files.folder / "cut.ark").write_bytes(whole[: len(whole) - 7])
    (files.folder / "out").write_text("old\n")
    before = set(files.folder.iterdir())
    failed = files.run(*options, cohort=f"ark:{files.folder}/cut.ark", check=False)
    assert failed.returncode == 1 and "cut.ark" in failed.stderr and "truncated" in failed.stderr
    assert (files.folder / "out").read_text() == "old\n" and set(files.folder.iterdir()) == before


def test_constant_cohort_scores_are_warned_of(files):
    same = save_ark(files.folder / "same.ark", {f"c{i}": np.ones(5, np.float32) for i in range(3)})
    done = files.run(cohort=same)
    assert "6 of 6 enrolment ids have the same score with all of the cohort, the first is" in done.stderr
    done = files.run("--method=as2", "--top-n=2", cohort=same)
    assert "80 standard deviations were below their floor" in done.stderr


def test_the_number_of_arguments_is_checked(files):
    for arguments in ([], [files.scores, files.e, files.folder / "out"], ["--enroll-cohort=a b c", *"abcde"]):
        failed = run("normalize-scores", *arguments, check=False)
        assert failed.returncode == 1 and "wrong number of arguments" in failed.stderr


# -------------------------------------------------------------------------------------------- recorded speech


@needs_data("embeddings")
@needs_data("speechocean762")
@pytest.mark.parametrize("cohort, gain", [("so762_dev_train", 0.012), ("librispeech_train_1utt", 0.0)])
def test_recorded_speech_is_told_apart_better_with_a_cohort(cohort, gain):
    """d-vectors of the trials of 50 speakers; a cohort like them helps more than read English."""
    from voxark.trials.lists import read_trials
    from voxark.metrics import Roc

    folder = shared_data("embeddings/ge2e_dvectors")
    tests, cohort = np.load(folder / "so762_dev_test.npz"), np.load(folder / f"{cohort}.npz")["x"]
    trials = read_trials(str(shared_data("speechocean762/test/trials")))
    row = {key: place for place, key in enumerate(tests["utts"].tolist())}
    enroll, test = (np.array([row[key] for key in ids]) for ids in (trials.enroll_ids, trials.test_ids))
    enroll, test, x = enroll[trials.enroll], test[trials.test], tests["x"]
    raw = cosine_terms(x, x).pairs(enroll, test)
    sides = ModelScores(cosine_terms(x, cohort)), TestScores(cosine_terms(cohort, x))
    for method in ("as1", "as2"):
        found = Normalizer(method, *sides, 200).normalise(raw, enroll, test)
        before, after = (Roc(s[trials.target], s[~trials.target]).eer()[0] for s in (raw, found))
        assert after < before - gain
