"""Trial and score lists as text: against a reader that goes line by line, in blocks of any size, both ways."""

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import environment, golden, needs_golden, shell
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.io.streams import Output
from voxark.trials import columns, lists
from voxark.trials.lists import (
    ListWriter,
    TrialList,
    TrialReader,
    find_pairs,
    read_labelled_blocks,
    read_labelled_scores,
    read_scores,
    read_trials,
    write_scores,
    write_trials,
)


def test_a_compressed_list_is_named_as_one(tmp_path):
    path = listed(tmp_path, gzip.compress(b"a x 1\n"))
    with pytest.raises(VoxarkError, match="list: is compressed: read it through a pipe"):
        read_scores(path)


class Sink:
    """Collects what is written."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


def listed(folder, text):
    path = folder / "list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the examples of a hypothesis test, each of which writes the same file anew."""
    return tmp_path_factory.mktemp("lists")


@pytest.fixture
def block_bytes():
    """A function that sets the size of the blocks of text; the old one comes back after the test."""
    old = columns.BLOCK_BYTES

    def set_size(size):
        columns.BLOCK_BYTES = size

    yield set_size
    columns.BLOCK_BYTES = old


def with_blocks(size, read, *arguments):
    """What ``read(*arguments)`` returns with blocks of ``size`` bytes of text."""
    old, columns.BLOCK_BYTES = columns.BLOCK_BYTES, size
    try:
        return read(*arguments)
    finally:
        columns.BLOCK_BYTES = old


# ------------------------------------------------------------------------------------ line by line, as defined

LABELS = {b"target": True, b"nontarget": False}
LAYOUTS = {
    read_trials: {2: "ii", 3: "iil"},
    read_scores: {3: "iis"},
    read_labelled_scores: {2: "sl"},
}


class Malformed(Exception):
    """The number of the line and what is wrong with it."""


def as_value(kind, word, number):
    if kind == "i":
        return word.decode("utf-8", "surrogateescape")
    if kind == "l":
        if word not in LABELS:
            raise Malformed(number, "'target' or 'nontarget' was expected")
        return LABELS[word]
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if np.isnan(value) or b"_" in word:
        raise Malformed(number, "a score was expected")
    return value


def reference(text, layouts):
    """Rows of values of a list, read line by line; Malformed at the first line that is wrong."""
    lines = text.split(b"\n")
    lines = lines[:-1] if lines[-1] == b"" else lines
    if not lines:
        raise Malformed(None, "the list is empty")
    rows, first_seen = [], {}
    kinds = layouts.get(len(lines[0].split()))
    for number, line in enumerate(lines, 1):
        words = line.split()
        if kinds is None or len(words) != len(kinds):
            raise Malformed(number, "columns were expected")
        rows.append([as_value(kind, word, number) for kind, word in zip(kinds, words)])
    for number, row in enumerate(rows, 1):
        if kinds.startswith("ii") and first_seen.setdefault(tuple(row[:2]), number) != number:
            raise Malformed(number, f"stands already on line {first_seen[tuple(row[:2])]} ")
    return rows


def rows_of(found):
    """The rows of what a reader returned."""
    if isinstance(found, tuple):
        return [list(row) for row in zip(found[0].tolist(), found[1].tolist())]
    third = found.target if found.target is not None else found.scores
    rows = [
        [found.enroll_ids[e], found.test_ids[t]]
        for e, t in zip(found.enroll.tolist(), found.test.tolist())
    ]
    return rows if third is None else [row + [value] for row, value in zip(rows, third.tolist())]


SPACES = [b" ", b" ", b" ", b"\t", b"  ", b" \r", b"\v", b"\f"]
IDS = [b"a", b"b", b'"', b"a,b", b"#c", b"\\", b"\xff", b"\xef\xbb\xbf", b"\0", b"\xc3\xa9", b"\x1c", b"\x85"]
NUMBERS = [b"1", b"-2.5", b"+3", b"1e-5", b"inf", b"-INF", b"infinity", b"1e400", b"1e-400", b".5", b"7.", b"0.1"]
BAD = [b"nan", b"NaN(x)", b"1_0", b"x", b"0x10", b"Target", b"1d5", b"--1"]
kinds_of_word = {
    "i": st.sampled_from(IDS) | st.binary(min_size=1, max_size=3).filter(lambda word: word.split() == [word]),
    "l": st.sampled_from([b"target", b"nontarget"]),
    "s": st.sampled_from(NUMBERS) | st.floats(allow_nan=False).map(lambda x: repr(x).encode()),
}


@st.composite
def texts(draw, kinds):
    """Text of a list of these kinds of columns, most of it well-formed: of one spacing or of many."""
    spaces = st.sampled_from(draw(st.sampled_from([[b" "], SPACES])))
    parts = []
    for _ in range(draw(st.integers(0, 12))):
        words = [draw(kinds_of_word[kind]) for kind in kinds]
        if draw(st.integers(0, 30)) == 0:
            words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(BAD))
        if draw(st.integers(0, 40)) == 0:
            words = words[: draw(st.integers(0, len(words)))] + draw(st.lists(st.just(b"x"), max_size=2))
        line = b"".join(word + (draw(spaces) if place else b" ") for place, word in enumerate(words))
        line = line if draw(st.booleans()) else line.strip()
        parts.append(line + draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n"])))
    text = b"".join(parts)
    return text[:-1] if text and draw(st.booleans()) else text


fragments = st.lists(
    st.sampled_from([b" ", b"\t", b"\n", b"\r", b"a", b"b", b"1", b"-", b"target", b"\0", b"\xff", b'"', b"\xef\xbb\xbf"])
)
reads = st.sampled_from(sorted(LAYOUTS, key=lambda read: read.__name__))


@given(read=reads, data=st.data(), block=st.integers(1, 60))
def test_any_bytes_give_what_a_line_by_line_reader_gives_or_its_error(folder, read, data, block):
    layouts = LAYOUTS[read]
    some_layout = st.sampled_from(sorted(layouts.values()))
    text = data.draw(some_layout.flatmap(texts) | fragments.map(b"".join))
    path = listed(folder, text)
    try:
        expected = reference(text, layouts)
    except Malformed as error:
        number, message = error.args
        with pytest.raises(VoxarkError) as raised:
            with_blocks(block, read, path)
        assert str(raised.value).startswith(path + (": " if number is None else f":{number}: "))
        assert message in str(raised.value) and "\n" not in str(raised.value)
        return
    assert rows_of(with_blocks(block, read, path)) == expected


@pytest.mark.parametrize("layout", ["ii", "iil", "iis", "sl"])
@given(data=st.data())
def test_each_way_of_taking_a_block_apart_gives_the_same(layout, data):
    # texts whose ids have no white space of any kind and whose numbers both take
    rows = data.draw(st.lists(st.tuples(*(kinds_of_word[kind] for kind in layout)), min_size=1, max_size=8))
    kinds = [{"i": "id", "l": "label", "s": "score"}[kind] for kind in layout]
    plain = b"".join(b" ".join(row) + b"\n" for row in rows)
    spaced = b"".join(b" \t" + b"\v \t".join(row) + b" \r\n" for row in rows)
    assert columns._single_spaced(spaced) == plain == columns._single_spaced(plain)
    parsed, by_words = columns._parse(plain, kinds), columns._parse_words("x", 1, spaced, kinds)
    if parsed is None:  # a byte order mark at the beginning is left to the words
        assert plain.startswith(b"\xef\xbb\xbf")
        return
    for kind, a, b in zip(kinds, parsed, by_words):
        if kind == "id":
            assert a[0].tolist() == b[0].tolist() and a[1] == b[1]
        else:
            assert a.dtype == b.dtype and a.tolist() == b.tolist()


# ---------------------------------------------------------------------------------------------- worked cases


def test_columns_of_a_trial_list(tmp_path):
    trials = read_trials(listed(tmp_path, "b x target\na\ty  nontarget\r\nb y target"))
    assert (trials.enroll_ids, trials.test_ids) == (["b", "a"], ["x", "y"])
    assert trials.enroll.tolist() == [0, 1, 0] and trials.test.tolist() == [0, 1, 1]
    assert trials.enroll.dtype == trials.test.dtype == np.int32
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
        ("a b\n\nb c\n", ":2: 2 columns were expected, found 0"),
        ("\na b\n", ":1: 2 or 3 columns were expected, found 0: ''"),
        ("a b target\na c Target\n", ":2: 'target' or 'nontarget' was expected, found 'Target'"),
        ("a b\na c\nb c\na c\n", ":4: the pair 'a c' stands already on line 2 (1 repeated lines in all)"),
        ("b x\na x\na x\nb x\n", ":3: the pair 'a x' stands already on line 2 (2 repeated lines in all)"),
        ("", "the list is empty"),
    ],
)
@pytest.mark.parametrize("block", [7, 1 << 23])
def test_malformed_trials_name_file_and_line(tmp_path, block_bytes, text, message, block):
    block_bytes(block)
    path = listed(tmp_path, text)
    with pytest.raises(VoxarkError) as error:
        read_trials(path)
    assert str(error.value).startswith(path) and message in str(error.value)


@pytest.mark.parametrize("word", ["nan", "-NaN", "nan(1)", "x", "1_000", "1,5", "-", "0x1p3", "target"])
def test_malformed_scores_name_file_and_line(tmp_path, word):
    with pytest.raises(VoxarkError) as error:
        read_scores(listed(tmp_path, f"a_1 b 1\na_1 c {word}\n"))
    assert str(error.value).endswith(f":2: a score was expected, found '{word}'")
    with pytest.raises(VoxarkError) as error:
        read_labelled_scores(listed(tmp_path, f"1 target\n{word} nontarget\n"))
    assert str(error.value).endswith(f":2: a score was expected, found '{word}'")


def test_numbers_as_kaldi_and_others_write_them(tmp_path):
    text = "a_ b 1e-05\na_ c -inf\na_ d inf\na_ e -3.25\na_ f +1E+2\na_ g Infinity\na_ h 1e999\n"
    numbers = read_scores(listed(tmp_path, text)).scores
    assert numbers.tolist() == [1e-5, -np.inf, np.inf, -3.25, 100, np.inf, np.inf]


def test_a_list_of_millions_of_bytes_without_a_line_is_refused_early(tmp_path):
    with pytest.raises(VoxarkError, match="a line is longer than a megabyte"):
        read_trials("head -c 1000000000 /dev/zero |")


@pytest.mark.parametrize("table_per_trial", [0, 10**6])
@given(codes=st.lists(st.integers(0, 30), min_size=1, max_size=15))
def test_repeated_pairs_are_found_in_either_way(folder, table_per_trial, codes):
    old, lists._TABLE_PER_TRIAL = lists._TABLE_PER_TRIAL, table_per_trial
    path = listed(folder, "".join(f"e{code // 6} t{code % 6}\n" for code in codes))
    try:
        repeated = len(codes) - len(set(codes))
        if not repeated:
            assert len(read_trials(path)) == len(codes)
            return
        with pytest.raises(VoxarkError, match=rf"\({repeated} repeated lines in all\)") as error:
            read_trials(path)
        second = next(place for place, code in enumerate(codes) if code in codes[:place])
        assert f":{second + 1}: " in str(error.value)
        assert f"on line {codes.index(codes[second]) + 1} (" in str(error.value)
    finally:
        lists._TABLE_PER_TRIAL = old


def test_a_list_that_stands_twice_in_a_file_is_refused_at_once(tmp_path):
    text = "".join(f"m{i % 500} t{i // 500}\n" for i in range(200000))
    with pytest.raises(VoxarkError, match=r":200001: the pair 'm0 t0' stands already on line 1 \(200000"):
        read_trials(listed(tmp_path, text + text))


# ---------------------------------------------------------------------------------------------- pipes, blocks


def test_lists_come_from_commands_and_a_failing_command_is_an_error(tmp_path, block_bytes):
    text = b"".join(b"m%d t%d target\n" % (i // 50, i % 50) for i in range(2000))
    (tmp_path / "list.gz").write_bytes(gzip.compress(text))
    (tmp_path / "list").write_bytes(text)
    for size in (100, 1 << 20):
        block_bytes(size)
        piped, plain = read_trials(f"gunzip -c {tmp_path}/list.gz |"), read_trials(f"{tmp_path}/list")
        assert rows_of(piped) == rows_of(plain)
        # whatever the command has given: nothing, whole lines, half a line
        for command in ("exit 3", f"cat {tmp_path}/list; exit 3", f"head -c 1003 {tmp_path}/list; exit 3"):
            for read in (read_trials, lambda name: list(TrialReader(name))):
                with pytest.raises(VoxarkError, match="3") as error:
                    read(f"{command} |")
                assert "exit 3" in str(error.value) and "expected" not in str(error.value)
    with pytest.raises(VoxarkError, match="status 4"):
        read_labelled_scores("echo 1 target; exit 4 |")


def test_a_failing_command_is_noticed_before_an_output_appears(tmp_path):
    # the output closes first: the reader must have spoken by then
    with pytest.raises(VoxarkError, match="status 5"):
        with TrialReader("echo a b; exit 5 |") as reader, Output(f"{tmp_path}/out") as out:
            for block in reader:
                write_trials(out, block)
    assert list(tmp_path.iterdir()) == []


def test_standard_input_is_read(tmp_path):
    program = "from voxark.trials.lists import read_trials; print(read_trials('-').enroll_ids)"
    done = subprocess.run([sys.executable, "-c", program], input=b"a b\nc d", capture_output=True, env=environment())
    assert done.stdout == b"['a', 'c']\n"


def peak_of_streaming(num_lines):
    """Peak memory in MiB of a process that reads that many lines from a command block by block and writes them."""
    program = (
        "import sys\n"
        "from voxark.trials.lists import ListWriter, TrialReader\n"
        "number = 0\n"
        "with TrialReader(sys.argv[1]) as reader, open('/dev/null', 'wb') as out:\n"
        "    writer = ListWriter(out)\n"
        "    for block in reader:\n"
        "        writer.write_trials(block)\n"
        "        number += len(block)\n"
        # not getrusage: there the memory of the process that started this one counts
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(number, int(peak.split()[1]) // 1024)\n"
    )
    command = f"yes $'model-1 test-1 target\\nmodel-2 test-2 nontarget' | head -n {num_lines} |"
    done = subprocess.run([sys.executable, "-c", program, command], capture_output=True, env=environment(), check=True)
    number, peak = map(int, done.stdout.split())
    assert number == num_lines
    return peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_streaming_takes_memory_that_does_not_grow_with_the_list():
    short, long = peak_of_streaming(2_200_000), peak_of_streaming(6_600_000)
    assert long < short + 24  # as a whole list the additional lines would take 38 MiB and more


@given(seed=st.integers(0, 50), lines=st.integers(1, 30), size=st.integers(1, 200))
def test_blocks_of_a_reader_number_ids_alike_and_make_the_whole_list(folder, seed, lines, size):
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(100)[:25]
    path = listed(folder, "".join(f"m{c // 10} t{c % 10} {'non' if c % 3 else ''}target\n" for c in chosen))
    whole = read_trials(path)
    old, lists._BLOCK_TRIALS = lists._BLOCK_TRIALS, lines
    try:
        with TrialReader(path) as reader:
            blocks = with_blocks(size, list, reader)
            assert reader.name == path
    finally:
        lists._BLOCK_TRIALS = old
    assert all(len(block) >= lines for block in blocks[:-1])
    assert (reader.enroll_ids, reader.test_ids) == (whole.enroll_ids, whole.test_ids)
    for name in ("enroll", "test", "target"):
        joined = np.concatenate([getattr(block, name) for block in blocks])
        assert joined.dtype == getattr(whole, name).dtype and (joined == getattr(whole, name)).all()
    out = Sink()
    writer = ListWriter(out)
    for block in blocks:
        writer.write_trials(block)
    assert out.data == (folder / "list").read_bytes()


def test_a_reader_keeps_to_the_third_column_it_was_told(tmp_path):
    with pytest.raises(VoxarkError, match=":1: 3 columns were expected, found 2: 'a b'"):
        list(TrialReader(listed(tmp_path, "a b\n"), "label"))
    with pytest.raises(VoxarkError, match=":1: a score was expected, found 'target'"):
        list(TrialReader(listed(tmp_path, "a b target\n"), "score"))
    (block,) = TrialReader(listed(tmp_path, "a b 2.5\n"), "score")
    assert block.scores.tolist() == [2.5] and block.target is None


def test_labelled_scores_come_in_blocks(tmp_path, block_bytes):
    rng = np.random.default_rng(0)
    scores, target = rng.standard_normal(500), rng.random(500) < 0.3
    path = listed(tmp_path, "".join(f"{s!r} {'' if t else 'non'}target\n" for s, t in zip(scores.tolist(), target)))
    block_bytes(1000)
    blocks = list(read_labelled_blocks(path))
    assert len(blocks) > 5
    for found in ([np.concatenate(column) for column in zip(*blocks)], read_labelled_scores(path)):
        assert (found[0] == scores).all() and (found[1] == target).all()
    with pytest.raises(VoxarkError, match="the list is empty"):
        list(read_labelled_blocks(listed(tmp_path, "")))


# ---------------------------------------------------------------------------------------------- writing

words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Z", "C"]), min_size=1, max_size=5
)


@given(
    pairs=st.lists(st.tuples(words, words), min_size=1, max_size=20, unique=True),
    block=st.integers(1, 60),
    lines=st.integers(1, 7),
    data=st.data(),
)
def test_what_is_written_is_read_back_in_any_blocks(folder, pairs, block, lines, data):
    number = len(pairs)
    values = np.array(data.draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                                         min_size=number, max_size=number)))
    target = np.array(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))
    enroll_ids, test_ids = (list(dict.fromkeys(side)) for side in zip(*pairs))
    trials = TrialList("x", enroll_ids, test_ids, np.array([enroll_ids.index(e) for e, _ in pairs], np.int32),
                       np.array([test_ids.index(t) for _, t in pairs], np.int32), target)
    old, lists._WRITE_LINES = lists._WRITE_LINES, lines
    out, labelled, unlabelled = Sink(), Sink(), Sink()
    try:
        write_scores(out, trials, values)
        write_trials(labelled, trials)
        write_trials(unlabelled, replace(trials, target=None))
    finally:
        lists._WRITE_LINES = old
    scored = with_blocks(block, read_scores, listed(folder, out.data))
    assert [(scored.enroll_ids[e], scored.test_ids[t]) for e, t in zip(scored.enroll, scored.test)] == pairs
    assert (scored.scores.astype(np.float32) == values.astype(np.float32)).all()
    assert all(len(line.split()[2].split(b"e")[0].strip(b"-0.").replace(b".", b"")) <= 9
               for line in out.data.splitlines())
    assert out.data.splitlines() == [f"{e} {t} ".encode() + line.split()[2]
                                     for (e, t), line in zip(pairs, out.data.splitlines())]
    assert labelled.data.decode() == "".join(
        f"{e} {t} {'target' if is_target else 'nontarget'}\n" for (e, t), is_target in zip(pairs, target)
    )
    assert unlabelled.data.decode() == "".join(f"{e} {t}\n" for e, t in pairs)


@pytest.mark.parametrize("text", [b"a\xff \xe9b 1\n", b'a"b ,\'#\\ 2\n"" \xff" -0.5\n', b"\xef\xbb\xbfa b 1\n"])
def test_ids_pass_through_whatever_their_bytes(tmp_path, text):
    scored = read_scores(listed(tmp_path, text))
    out = Sink()
    write_scores(out, scored, scored.scores)
    assert out.data == text


def test_lines_put_together_by_python_are_those_of_the_csv_writer():
    ids = columns.IdColumn().encode(["a", "b\udcff", "c,d"])
    column = np.random.default_rng(0).integers(0, 3, 40).astype(np.int32), ids
    scores = np.random.default_rng(1).standard_normal(40).astype(np.float32) * 1e6
    for given in ([column, column, scores], [column, column]):
        assert columns.columns_as_text(given, is_plain=False) == columns.columns_as_text(given)


def test_scores_keep_single_precision_and_beyond_its_range_double(tmp_path):
    trials = read_trials(listed(tmp_path, "a b\na c\n"))
    for values, text in (
        ([1 / 3, -1e-5], b"a b 0.33333334\na c -0.00001\n"),
        ([12.5, 1e-60], b"a b 12.5\na c 0\n"),
        ([1 / 3, -1e300], b"a b 0.3333333333333333\na c -1e+300\n"),
    ):
        out = Sink()
        write_scores(out, trials, np.array(values))
        assert out.data == text


@needs_golden
def test_kaldis_scores_are_written_as_the_same_numbers():
    scored = read_scores(str(golden("model/plda.scores")))
    out = Sink()
    write_scores(out, scored, scored.scores)
    ours, kaldi = out.data.split(), golden("model/plda.scores").read_bytes().split()
    assert ours[0::3] == kaldi[0::3] and ours[1::3] == kaldi[1::3]
    assert [np.float32(word) for word in ours[2::3]] == [np.float32(word) for word in kaldi[2::3]]


@pytest.mark.parametrize("value, word", [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_a_score_that_is_not_finite_is_not_written(tmp_path, value, word):
    trials = read_trials(listed(tmp_path, "a b\na c\n"))
    with pytest.raises(VoxarkError, match=f"the score of a c is {word}"):
        write_scores(Sink(), trials, np.array([1.0, value]))


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "a\n", " a"])
def test_an_id_that_would_break_a_line_is_not_written(key):
    trials = TrialList("x", ["good", key], ["t"], np.array([0], np.int32), np.array([0], np.int32))
    with pytest.raises(VoxarkError, match="cannot stand in a list") as error:
        write_trials(Sink(), trials)
    assert repr(key) in str(error.value)


def test_lists_are_written_without_loading_what_they_do_not_need(tmp_path):
    path = listed(tmp_path, "a b 1\nc d 2\n")
    program = (
        "import sys; from voxark.trials.lists import *; before = 'pyarrow' in sys.modules; "
        f"scored = read_scores({path!r}); write_scores(sys.stdout.buffer, scored, scored.scores); "
        "print(before, [name for name in ('pyarrow.compute', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = shell(f'{sys.executable} -c "{program}"')
    assert done.stdout == b"a b 1\nc d 2\nFalse []\n"


# ---------------------------------------------------------------------------------------------- joining


@pytest.mark.parametrize("table_per_trial", [0, 10**6])
@given(seed=st.integers(0, 200), drop=st.integers(0, 53))
def test_joining_finds_each_pair_wherever_it_stands(table_per_trial, seed, drop):
    rng = np.random.default_rng(seed)

    def trial_list(name, enroll_ids, test_ids, number):
        chosen = rng.permutation(len(enroll_ids) * len(test_ids))[:number].astype(np.int32)
        enroll, test = np.divmod(chosen, np.int32(len(test_ids)))
        return TrialList(name, enroll_ids, test_ids, enroll, test)

    trials = trial_list("t", [f"e{i}" for i in range(5)], [f"t{i}" for i in range(7)], 20)
    others, tests = rng.permutation(6), rng.permutation(9)  # numbered otherwise, with ids that no trial has
    others = others[others != seed % 7]  # and in most cases without one that trials have
    scored = trial_list("s", [f"e{i}" for i in others], [f"t{i}" for i in tests], 54 - drop)
    places = {scored.pair(p): p for p in range(len(scored))}
    old, lists._TABLE_PER_TRIAL = lists._TABLE_PER_TRIAL, table_per_trial
    try:
        found = find_pairs(trials, scored)
    finally:
        lists._TABLE_PER_TRIAL = old
    assert found.dtype == np.int64
    assert found.tolist() == [places.get(trials.pair(p), -1) for p in range(len(trials))]
    assert find_pairs(trials, trials).tolist() == list(range(len(trials)))
    for limit in (63, 2**62):  # code and place fit into one number, or not
        codes, order = lists._sorted_with_order(scored.codes(), limit)
        assert (codes == np.sort(scored.codes())).all() and (scored.codes()[order] == codes).all()
    nothing = scored.select(np.zeros(len(scored), bool))
    assert find_pairs(trials, nothing).tolist() == [-1] * len(trials)
    assert find_pairs(nothing, trials).tolist() == []
