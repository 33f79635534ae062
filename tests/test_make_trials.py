"""Trial lists out of utt2spk: against sets made with itertools, samples against chi-square, the program."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from helpers import needs_data, run, shared_data
from voxark.errors import VoxarkError
from voxark.trials.make import Pairs, SamplingOptions, all_trials, sample_allowed, trial_blocks
from voxark.trials.make_sides import (
    ModelOptions,
    gather_utterances,
    make_models,
    model_side,
    utterance_side,
)

CORPUS = {f"s{s}-u{u}": f"s{s}" for s, number in enumerate((5, 4, 1, 3, 2)) for u in range(number)}
GENDER = {"s0": "f", "s1": "m", "s2": "f", "s3": "f", "s4": "m"}
ROOM = {utt: "abc"[place * 7 % 3] for place, utt in enumerate(CORPUS)}


def fail(key, reason):
    raise AssertionError(f"{key}: {reason}")


def lines_of(blocks):
    """The trials of some blocks as tuples, in their order."""
    return [(b.enroll_ids[e], b.test_ids[t], "target" if y else "nontarget")
            for b in blocks for e, t, y in zip(b.enroll, b.test, b.target)]  # fmt: skip


def make(utt2spk=CORPUS, tests=None, same=(), different=(), unordered=True, **options):
    """Trials of one list, or of an enrolment and a test list, as tuples."""
    tables = [utt2spk] if tests is None else [utt2spk, tests]
    everything = gather_utterances(
        tables, [("same", t) for t in same], [("different", t) for t in different], fail
    )
    sides = [utterance_side(everything, everything.numbers_of(table)) for table in tables]
    unordered = unordered and tests is None
    pairs = Pairs(sides[0], sides[-1], everything.speaker_names, unordered)
    return lines_of(trial_blocks(pairs, SamplingOptions(**options)))


def labelled(utt2spk, pairs):
    return [(a, b, "target" if utt2spk[a] == utt2spk[b] else "nontarget") for a, b in pairs]


def agree(table, utt2spk, a, b):
    return table.get(a, table.get(utt2spk[a])) == table.get(b, table.get(utt2spk[b]))


# -------------------------------------------------------------------------------------------------- all pairs


def test_all_pairs():
    assert make() == labelled(CORPUS, combinations(sorted(CORPUS), 2))
    assert lines_of(all_trials(CORPUS)) == make()
    wanted = [(a, b) for a, b in product(sorted(CORPUS), repeat=2) if a != b]
    assert make(unordered=False) == labelled(CORPUS, wanted)


def test_all_pairs_of_two_lists_but_an_utterance_with_itself():
    enroll = {utt: s for utt, s in CORPUS.items() if utt[-1] in "01"}
    tests = {utt: s for utt, s in CORPUS.items() if utt[-1] in "12"}
    wanted = [(a, b) for a, b in product(sorted(enroll), sorted(tests)) if a != b]
    assert make(enroll, tests) == labelled(CORPUS, wanted)


TABLES = st.dictionaries(
    st.text("abcdxyz", min_size=1, max_size=3), st.sampled_from("PQRS"), min_size=2, max_size=14
)


@settings(max_examples=150, deadline=None)
@given(TABLES, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_labels_that_must_agree_and_differ(utt2spk, random, unordered, by_speaker):
    gender = {key: random.choice("fm") for key in (set(utt2spk.values()) if by_speaker else utt2spk)}
    noise, room, session = ({utt: random.choice("123") for utt in utt2spk} for _ in range(3))
    utts = sorted(utt2spk)
    pairs = combinations(utts, 2) if unordered else ((a, b) for a, b in product(utts, utts) if a != b)
    wanted = [
        (a, b) for a, b in pairs
        if all(agree(table, utt2spk, a, b) for table in (gender, noise))
        and not any(agree(table, utt2spk, a, b) for table in (room, session))
    ]  # fmt: skip
    wanted = labelled(utt2spk, wanted)
    found = make(utt2spk, same=(gender, noise), different=(room, session), unordered=unordered)
    assert found == wanted
    # samples larger than there are pairs, drawn from the ranges, are the same lists
    everyone = dict(num_targets=10_000, num_nontargets=10_000)
    assert (
        make(utt2spk, same=(gender, noise), different=(room, session), unordered=unordered, **everyone)
        == wanted
    )
    each = make(utt2spk, same=(gender, noise), different=(room, session), unordered=unordered,
                targets_per_speaker=10_000, nontargets_per_speaker=10_000)  # fmt: skip
    if unordered:  # the owner of a pair of different speakers enrols
        assert sorted(tuple(sorted(t[:2])) for t in each) == sorted(t[:2] for t in wanted)
    else:
        assert each == wanted


# ---------------------------------------------------------------------------------------------------- samples


def assert_uniform(found, wanted, num_runs, per_run):
    """Each of the wanted pairs was drawn equally often: chi-square, of draws without replacement."""
    assert set(found) <= set(wanted)
    counts = np.array([found[pair] for pair in wanted], float)
    assert counts.sum() == num_runs * per_run
    share = per_run / len(wanted)
    statistic = (
        ((counts - num_runs * share) ** 2).sum() / (num_runs * share * (1 - share)) * (1 - 1 / len(wanted))
    )
    degrees = len(wanted) - 1
    assert abs(statistic - degrees) < 4.0 * np.sqrt(2.0 * degrees), (statistic, degrees)


@pytest.mark.parametrize("what", ["target", "nontarget"])
@pytest.mark.parametrize("unordered", [True, False])
def test_samples_of_all_pairs_are_uniform(what, unordered):
    everyone = [t for t in make(unordered=unordered, same=(GENDER,), different=(ROOM,)) if t[2] == what]
    other = {"target": "num_nontargets", "nontarget": "num_targets"}[what]
    found = Counter()
    for srand in range(400):
        drawn = make(unordered=unordered, same=(GENDER,), different=(ROOM,), srand=srand,
                     **{f"num_{what}s": 5, other: 0})  # fmt: skip
        assert len(drawn) == len(set(drawn)) == 5 and drawn == sorted(drawn)
        found.update(drawn)
    assert_uniform(found, everyone, 400, 5)


def test_samples_of_a_speaker_are_uniform_over_the_speakers_pairs():
    everyone = make()
    found, owned = Counter(), Counter()
    for srand in range(400):
        drawn = make(srand=srand, targets_per_speaker=2, nontargets_per_speaker=6)
        targets = [t for t in drawn if t[2] == "target"]
        per_speaker = Counter(CORPUS[t[0]] for t in targets)
        assert per_speaker == {"s0": 2, "s1": 2, "s3": 2, "s4": 1}  # s4 has two utterances, s2 one
        found.update(targets)
        enrolling = Counter(CORPUS[t[0]] for t in drawn if t[2] == "nontarget")
        assert all(enrolling[s] == 6 for s in ("s0", "s1", "s3"))
        unordered = [frozenset(t[:2]) for t in drawn]
        assert len(set(unordered)) == len(unordered)  # no pair in both directions
        owned.update(t[:2] for t in drawn if t[2] == "nontarget" and CORPUS[t[0]] == "s1")
    for speaker in ("s0", "s1", "s3"):
        of_speaker = [t for t in everyone if t[2] == "target" and CORPUS[t[0]] == speaker]
        assert_uniform(
            Counter({t: n for t, n in found.items() if CORPUS[t[0]] == speaker}), of_speaker, 400, 2
        )
    wanted = [(a, b) for a, b in product(CORPUS, CORPUS) if CORPUS[a] == "s1" != CORPUS[b]]
    counts = [owned[pair] for pair in wanted]
    assert sum(counts) == 400 * 6 and chisquare(counts).pvalue > 1e-4


def test_neither_early_nor_late_speakers_enrol_more():
    utt2spk = {f"s{s:02d}-{u}": f"s{s:02d}" for s in range(20) for u in range(10)}
    wins = np.zeros(20)
    for srand in range(30):
        drawn = make(utt2spk, num_targets=0, nontargets_per_speaker=10_000, srand=srand)
        assert len(drawn) == 190 * 100  # every pair of different speakers, once
        wins += np.bincount([int(t[0][1:3]) for t in drawn], minlength=20)
    # each speaker is in 1900 pairs, half of which are his
    low, high = binom.ppf((1e-5, 1 - 1e-5), 30 * 1900, 0.5)
    assert low <= wins.min() and wins.max() <= high


def test_sampling_of_integers_is_uniform_by_either_way():
    for total, number, step in (
        (40, 5, 1),
        (300_000, 40, 30_000),
    ):  # listed; drawn, one in 30,000 allowed: listed
        wanted, found = list(range(0, total, step)), Counter()
        number = min(number, len(wanted) - 3)
        for seed in range(300 if total < 1000 else 60):
            drawn = sample_allowed(np.random.default_rng(seed), total, number, lambda i, s=step: i % s == 0)
            assert len(set(drawn.tolist())) == number
            found.update(drawn.tolist())
        assert_uniform(found, wanted, 300 if total < 1000 else 60, number)
    bins = np.zeros(50)
    for seed in range(200):  # drawn
        drawn = sample_allowed(np.random.default_rng(seed), 10**12, 1000, lambda i: i % 2 == 0)
        assert len(np.unique(drawn)) == 1000 and np.all(drawn % 2 == 0)
        bins += np.bincount(drawn // (10**12 // 50), minlength=50)
    assert chisquare(bins).pvalue > 1e-4
    assert len(sample_allowed(np.random.default_rng(0), 10**12, 0, lambda i: i > 0)) == 0
    everything = sample_allowed(np.random.default_rng(0), 10, 20, lambda i: i != 3)
    assert everything.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_other_seeds_and_other_speakers():
    first, second = (make(num_targets=4, num_nontargets=9, srand=srand) for srand in (1, 2))
    assert first != second and first == make(num_targets=4, num_nontargets=9, srand=1)
    fewer = {utt: s for utt, s in CORPUS.items() if s != "s4"}
    options = dict(num_nontargets=0, targets_per_speaker=2)
    without = [t for t in make(**options) if CORPUS[t[0]] != "s4"]
    assert make(fewer, **options) == without  # a speaker's targets depend on his utterances alone


def test_a_large_corpus_is_sampled_without_listing_its_pairs():
    utt2spk = {f"s{n % 5000:04d}-{n // 5000:02d}": f"s{n % 5000:04d}" for n in range(100_000)}  # 5e9 pairs
    drawn = make(utt2spk, num_targets=100, num_nontargets=500)
    assert Counter(t[2] for t in drawn) == {"target": 100, "nontarget": 500}
    assert all((t[0][:5] == t[1][:5]) == (t[2] == "target") and t[0] < t[1] for t in drawn)


# ----------------------------------------------------------------------------------------------------- models


@settings(max_examples=100, deadline=None)
@given(TABLES, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 5))
def test_models_share_no_utterance(utt2spk, num_enroll, most, keep_test, srand):
    everything = gather_utterances([utt2spk])
    options = ModelOptions(num_enroll, most)
    models = make_models(everything, np.arange(len(utt2spk)), options, srand, keep_test)
    used = [everything.ids[n] for chosen in models.values() for n in chosen]
    assert len(set(used)) == len(used) and list(models) == sorted(models)
    for chosen in models.values():
        assert len(chosen) == num_enroll and len({utt2spk[everything.ids[n]] for n in chosen}) == 1
    per_speaker = Counter(utt2spk[everything.ids[chosen[0]]] for chosen in models.values())
    for speaker, number in Counter(utt2spk.values()).items():
        assert per_speaker[speaker] == min(most, (number - keep_test) // num_enroll)


def test_models_against_labels_of_their_utterances():
    """Different labels: of none of the model's utterances. The same: of all of them."""
    everything = gather_utterances([CORPUS], [("gender", GENDER)], [("room", ROOM)], fail)
    models = make_models(everything, np.arange(len(CORPUS)), ModelOptions(2, 1), 0, True)
    side = model_side(everything, models)
    rest = np.setdiff1d(np.arange(len(CORPUS)), side.utterances)
    pairs = Pairs(side, utterance_side(everything, rest), everything.speaker_names, False)
    found = lines_of(trial_blocks(pairs, SamplingOptions()))
    wanted = []
    for model, chosen in models.items():
        for utt in (everything.ids[n] for n in rest):
            rooms = {ROOM[everything.ids[n]] for n in chosen}
            if GENDER[model] == GENDER[CORPUS[utt]] and ROOM[utt] not in rooms:
                wanted.append((model, utt, "target" if CORPUS[utt] == model else "nontarget"))
    assert found == wanted and Counter(t[2] for t in wanted)["target"] > 0
    mixed = gather_utterances([CORPUS], [("room", ROOM)], [], fail)
    side = model_side(mixed, models)
    for agreed, chosen in zip(side.same, models.values()):
        assert (agreed < 0) == (len({ROOM[everything.ids[n]] for n in chosen}) > 1)


# ---------------------------------------------------------------------------------------------------- program


@pytest.fixture
def corpus(tmp_path):
    for name, table in (("utt2spk", CORPUS), ("spk2gender", GENDER), ("utt2room", ROOM)):
        (tmp_path / name).write_text("".join(f"{key} {value}\n" for key, value in table.items()))
    return tmp_path


def read(path):
    return [tuple(line.split()) for line in path.read_text().splitlines()]


SETTINGS = [
    (),
    ("--num-targets=4", "--num-nontargets=11", "--srand=5"),
    ("--targets-per-speaker=1", "--nontargets-per-speaker=3", "--pairs=ordered"),
    (
        "--num-enroll=2",
        "--nontargets-per-speaker=3",
        "--write-enroll-map=ark,t:{}/map",
        "--write-enroll-utt2spk={}/spk",
    ),
]


@pytest.mark.parametrize("options", SETTINGS, ids=[" ".join(o) or "all" for o in SETTINGS])
def test_the_order_of_lines_does_not_matter(corpus, options):
    options = [option.format(corpus) for option in options]
    labels = [f"--same={corpus}/spk2gender", f"--exclude-same={corpus}/utt2room"]
    written = []
    for seed in (0, 1):
        done = run("make-trials", *options, *labels, corpus / "utt2spk", corpus / "trials")
        written.append(
            [(corpus / name).read_bytes() for name in ("trials", "map", "spk") if (corpus / name).exists()]
        )
        for name in ("utt2spk", "spk2gender", "utt2room"):
            lines = (corpus / name).read_text().splitlines(keepends=True)
            (corpus / name).write_text("".join(np.random.default_rng(seed).permutation(lines)))
    assert written[0] == written[1] and f"done {len(read(corpus / 'trials'))}, failed 0" in done.stderr


def test_the_program_writes_all_pairs(corpus):
    done = run("make-trials", f"ark:{corpus}/utt2spk", corpus / "trials")
    assert read(corpus / "trials") == labelled(CORPUS, combinations(sorted(CORPUS), 2))
    assert "1 of 5 enrolled speakers have too few utterances for a target trial: s2 first" in done.stderr
    done = run("make-trials", f"--same={corpus}/spk2gender,{corpus}/utt2room", f"cat {corpus}/utt2spk |", "-")
    wanted = [(a, b) for a, b in combinations(sorted(CORPUS), 2)
              if agree(GENDER, CORPUS, a, b) and ROOM[a] == ROOM[b]]  # fmt: skip
    assert [tuple(line.split()) for line in done.stdout.decode().splitlines()] == labelled(CORPUS, wanted)


def test_enrolment_and_test_lists(corpus):
    run("make-trials", "--num-enroll=2", "--models-per-speaker=2", f"--write-enroll-map={corpus}/map",
        f"--write-enroll-utt2spk={corpus}/spk", corpus / "utt2spk", corpus / "trials")  # fmt: skip
    enrolled = {key: utts for key, *utts in read(corpus / "map")}
    speakers = dict(read(corpus / "spk"))
    assert (
        set(enrolled) == set(speakers) == {"s0-1", "s0-2", "s1-1", "s3-1"}
    )  # one of each is left to be tested
    used = {utt for utts in enrolled.values() for utt in utts}
    assert (
        all(CORPUS[utt] == speakers[key] for key, utts in enrolled.items() for utt in utts) and len(used) == 8
    )
    wanted = [(key, utt, "target" if CORPUS[utt] == speakers[key] else "nontarget")
              for key, utt in product(sorted(enrolled), sorted(set(CORPUS) - used))]  # fmt: skip
    assert read(corpus / "trials") == wanted
    (corpus / "tests").write_text("".join(f"{utt} {s}\n" for utt, s in CORPUS.items() if utt.endswith("1")))
    write_map = f"--write-enroll-map={corpus}/map"
    run("make-trials", "--num-enroll=2", write_map, corpus / "utt2spk", corpus / "tests", corpus / "trials")
    enrolled = {key: utts for key, *utts in read(corpus / "map")}
    assert set(enrolled) == {"s0", "s1", "s3", "s4"}
    used = {utt for utts in enrolled.values() for utt in utts}
    tests = [utt for utt in sorted(CORPUS) if utt.endswith("1") and utt not in used]
    assert [t[:2] for t in read(corpus / "trials")] == list(product(sorted(enrolled), tests))


@pytest.mark.parametrize("options, said", [
    (["--num-targets=3", "--targets-per-speaker=1"], "exclude each other"),
    (["--num-targets=-2"], "is -1 (all) or at least 0"),
    (["--num-targets=0", "--num-nontargets=0"], "neither targets nor nontargets"),
    (["--models-per-speaker=2"], "needs --num-enroll"),
    (["--num-enroll=-1"], "at least 0"),
    (["--num-enroll=9"], "lower --num-enroll"),
    (["--write-enroll-map=x"], "for models of --num-enroll"),
    (["--same=DIR/missing"], "missing"),
    (["--same=DIR/partial"], "labels missing, as named above: 5"),
    (["--same=DIR/foreign"], "has no label of any"),
    (["--pairs=some"], "--pairs"),
    (["--exclude-same=DIR/constant"], "no pair of its utterances is an admissible trial"),
    (["DIR/utt2spk", "DIR/utt2spk"], "wrong number of arguments"),
    (["DIR/other"], "is of speaker"),
    (["DIR/twice"], "occurs twice"),
    (["DIR/empty"], "empty"),
])  # fmt: skip
def test_errors_say_what_is_wrong_and_leave_no_list(corpus, options, said):
    (corpus / "partial").write_text("".join(f"{utt} x\n" for utt in CORPUS if not utt.startswith("s0")))
    (corpus / "foreign").write_text("nobody x\n")
    (corpus / "constant").write_text("".join(f"{utt} x\n" for utt in CORPUS))
    (corpus / "other").write_text("s0-u0 somebody\n")
    (corpus / "twice").write_text("a x\na y\n")
    (corpus / "empty").write_text("")
    words = [option.replace("DIR", str(corpus)) for option in options]
    done = run("make-trials", *words, corpus / "utt2spk", corpus / "trials", check=False)
    assert done.returncode == 1 and said in done.stderr and not (corpus / "trials").exists()


def test_utterances_without_a_label_may_be_left_out(corpus):
    (corpus / "spk2gender").write_text("s0 f\ns1 m\ns3 f\n")
    done = run(
        "make-trials", "--allow-missing", f"--same={corpus}/spk2gender", corpus / "utt2spk", corpus / "trials"
    )
    wanted = [(a, b) for a, b in combinations(sorted(CORPUS), 2)
              if {CORPUS[a], CORPUS[b]} <= {"s0", "s3"} or CORPUS[a] == CORPUS[b] == "s1"]  # fmt: skip
    assert read(corpus / "trials") == labelled(CORPUS, wanted) and "failed 3" in done.stderr


def test_fewer_than_asked_for_is_said(corpus):
    done = run(
        "make-trials",
        "--num-targets=1000",
        "--nontargets-per-speaker=50",
        corpus / "utt2spk",
        corpus / "trials",
    )
    assert "1000 targets were asked for: there are only 20" in done.stderr
    assert "speakers have fewer than 50 nontargets" in done.stderr


def test_ids_that_are_not_utf8(corpus):
    (corpus / "raw").write_bytes(b"\xe9a s\nb s\nc r\n")
    run("make-trials", corpus / "raw", corpus / "trials")
    assert sorted((corpus / "trials").read_bytes().splitlines()) == sorted(
        [b"b \xe9a target", b"b c nontarget", b"c \xe9a nontarget"]
    )


def test_tables_that_disagree_are_refused():
    with pytest.raises(VoxarkError, match="is of speaker P for the enrolment, of Q for the tests"):
        gather_utterances([{"a": "P"}, {"a": "Q"}])


@needs_data("speechocean762")
def test_the_lists_of_a_real_corpus_are_made_again(tmp_path):
    """Its trials pair single utterances; of the same pairs, ours have the same labels."""
    folder = shared_data("speechocean762/test")
    run("make-trials", folder / "utt2spk", tmp_path / "trials")
    made = {frozenset(t[:2]): t[2] for t in read(tmp_path / "trials")}
    given_list = read(folder / "trials")
    assert len(made) == 500 * 499 // 2 and all(made[frozenset(t[:2])] == t[2] for t in given_list)
