"""Tables: every specifier, flag and kind, in both directions, and kaldiio as an independent peer."""

import os
import subprocess

import kaldiio
import numpy as np
import pytest
from helpers import golden, needs_golden
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.errors import VoxarkError
from voxark.kaldi_files import DiagGmmParams, PldaParams

MATRICES = {f"utt{i}": np.random.default_rng(i).standard_normal((3 + i, 4)).astype("f4") for i in range(4)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(kind, wspecifier, entries, **options):
    with tables.open_writer(kind, wspecifier, **options) as out:
        for key, value in entries.items():
            out[key] = value


def read(kind, rspecifier):
    with tables.open_reader(kind, rspecifier) as entries:
        return dict(entries)


def assert_same(got, expected):
    assert list(got) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value)
        assert got[key].dtype == value.dtype


# ------------------------------------------------------------------------------------------------- specifiers


def test_all_ways_to_write_and_read_matrices(folder):
    write("mat", "ark:a.ark", MATRICES)
    write("mat", "ark,scp:b.ark,b.scp", MATRICES)
    write("mat", "ark,scp,f:c d.ark,c d.scp", MATRICES)
    write("mat", "ark:| gzip -c > d.gz", MATRICES)
    (folder / "e.scp").write_text("".join(f"{key} {key}.mat\n" for key in MATRICES))
    write("mat", "scp:e.scp", MATRICES)
    assert (
        (folder / "a.ark").read_bytes()
        == (folder / "b.ark").read_bytes()
        == (folder / "c d.ark").read_bytes()
    )
    for rspecifier in (
        "ark:a.ark",
        "scp:b.scp",
        "scp:c d.scp",
        "ark:gunzip -c d.gz |",
        "scp:e.scp",
        "ark,s,cs,o:a.ark",
        "ark,bg:a.ark",
        "scp,bg,p:b.scp",
        " ark: a.ark ",
        "ark:cat b.ark|",
        "scp:cat b.scp |",
        "ark,b:a.ark",
        "ns,np,ark,t:a.ark",
    ):
        assert_same(read("mat", rspecifier), MATRICES)
        with tables.open_random("mat", rspecifier) as reader:
            for key, value in MATRICES.items():
                assert key in reader
                np.testing.assert_array_equal(reader[key], value)
            assert "zzz" not in reader


def test_standard_output_and_input(folder, capfdbinary):
    write("mat", "ark:-", MATRICES)
    write("mat", "ark:a.ark", MATRICES)
    assert capfdbinary.readouterr().out == (folder / "a.ark").read_bytes()
    write("mat", "ark,scp:a.ark,-", MATRICES)
    assert capfdbinary.readouterr().out.startswith(b"utt0 a.ark:5\nutt1 a.ark:")


def test_text_keeps_seven_digits(folder):
    write("mat", "ark,t:a.txt", MATRICES)
    got = read("mat", "ark:a.txt")
    for key, value in MATRICES.items():
        np.testing.assert_allclose(got[key], value, rtol=5e-7)


@pytest.mark.parametrize(
    "text, ark, scp, flags",
    [
        ("ark:-", "-", None, ""),
        ("ark,t:a b", "a b", None, "t"),
        ("scp:x:y", None, "x:y", ""),
        ("s,cs,ark:gunzip -c a,b |", "gunzip -c a,b |", None, "s cs"),
        ("ark,s,ns,p:x", "x", None, "p"),
        ("scp,np,p,bg,o:x", None, "x", "p bg o"),
    ],
)
def test_rspecifiers(text, ark, scp, flags):
    spec = tables.parse_rspecifier(text)
    assert (spec.ark, spec.scp, spec.flags) == (ark, scp, set(flags.split()))
    assert tables.is_specifier(text)


@pytest.mark.parametrize(
    "text, ark, scp, flags",
    [
        ("ark,t:-", "-", None, "t"),
        ("ark,scp:a,b", "a", "b", ""),
        ("t,ark,scp,f:a,b,c", "a", "b,c", "t f"),
        ("scp,p:x", None, "x", "p"),
        ("ark,t,b:x", "x", None, ""),
        ("ark,b,t,f,nf:x", "x", None, "t"),
        ("ark:| gzip -c > x", "| gzip -c > x", None, ""),
    ],
)
def test_wspecifiers(text, ark, scp, flags):
    spec = tables.parse_wspecifier(text)
    assert (spec.ark, spec.scp, spec.flags) == (ark, scp, set(flags.split()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a.ark",
        "ark",
        "arc:x",
        "ark,:x",
        "ark,q:x",
        "ark,f:x",
        "ark,ark:x",
        "ark,scp:x,y",
        "scp,ark:x",
        "s:x",
        "ark, t:x",
    ],
)
def test_wrong_rspecifiers(text):
    with pytest.raises(VoxarkError, match="not a valid rspecifier"):
        tables.open_reader("mat", text)


@pytest.mark.parametrize(
    "text", ["", "x", "ark", "scp,ark:x,y", "ark,scp:x", "ark,cs:x", "ark,ark:x", "ark,scp,scp:x,y", "t:x"]
)
def test_wrong_wspecifiers(text, folder):
    with pytest.raises(VoxarkError, match="not a valid wspecifier"):
        tables.open_writer("mat", text)
    assert list(folder.iterdir()) == []


def test_what_is_a_file_name_and_what_a_specifier():
    for text in ("ark:x", "scp,p:x", "t,ark:-", "ark,scp:a,b"):
        assert tables.is_specifier(text)
    for text in ("x.ark", "a.ark:12", "-", "cat x |", "dark:x", "ark", "t:x", "gunzip -c ark: |"):
        assert not tables.is_specifier(text)


# ----------------------------------------------------------------------------------- scripts, ranges, offsets


def test_scripts_in_every_shape(folder):
    write("mat", "ark,scp:a.ark,a.scp", MATRICES)
    plain = (folder / "a.scp").read_bytes()
    variants = {
        "crlf": plain.replace(b"\n", b"\r\n"),
        "tabs": plain.replace(b" ", b"\t"),
        "blanks": plain.replace(b" ", b"   ").replace(b"\n", b"  \n"),
        "pipes": b"".join(
            b"%b tail -c +%d a.ark |\n" % (key.encode(), int(offset) + 1)
            for key, offset in (line.decode().replace(" a.ark:", " ").split() for line in plain.splitlines())
        ),
    }
    for name, data in variants.items():
        (folder / name).write_bytes(data)
        assert_same(read("mat", f"scp:{name}"), MATRICES)


def test_the_files_of_a_script_may_come_in_any_order(folder):
    write("mat", "ark,scp:a.ark,a.scp", MATRICES)
    write("mat", "ark,scp:b.ark,b.scp", MATRICES)
    lines = [(folder / f"{name}.scp").read_text().splitlines() for name in "ab"]
    mixed = [lines[i % 2][-1 - i // 2] for i in range(8)]
    (folder / "mixed").write_text("".join(f"k{i} {line.split()[1]}\n" for i, line in enumerate(mixed)))
    for i, value in enumerate(read("mat", "scp:mixed").values()):
        np.testing.assert_array_equal(value, MATRICES[f"utt{3 - i // 2}"])


@pytest.mark.parametrize(
    "text, rows, cols",
    [
        ("[0:1]", slice(0, 2), slice(None)),
        ("[1:1,:]", slice(1, 2), slice(None)),
        ("[:,2:3]", slice(None), slice(2, 4)),
        ("[:]", slice(None), slice(None)),
        ("[0:2,0:0]", slice(0, 3), slice(0, 1)),
        ("[2:7]", slice(2, 5), slice(None)),
    ],
)
def test_ranges(folder, text, rows, cols):
    matrix = np.arange(20, dtype="f4").reshape(5, 4)
    write("mat", "ark,scp:a.ark,a.scp", {"a": matrix})
    np.testing.assert_array_equal(tables.read_object("mat", f"a.ark:2{text}"), matrix[rows, cols])
    (folder / "r.scp").write_text(f"a a.ark:2{text}\n")
    np.testing.assert_array_equal(read("mat", "scp:r.scp")["a"], matrix[rows, cols])
    np.testing.assert_array_equal(tables.read_object("mat", f"tail -c +3 a.ark |{text}"), matrix[rows, cols])


@pytest.mark.parametrize(
    "text",
    [
        "[0:8]",
        "[5:5]",
        "[2:1]",
        "[1]",
        "[1:2:3]",
        "[0:1,0:4]",
        "[:,:,:]",
        "[,]",
        "[1:]",
        "[:1,]",
        f"[0:{'9' * 5000}]",
    ],
)
def test_ranges_that_do_not_fit(folder, text):
    write("mat", "ark:a.ark", {"a": np.zeros((5, 4), "f4")})
    with pytest.raises(VoxarkError, match=r"a\.ark:2\[.*range"):
        tables.read_object("mat", f"a.ark:2{text}")


def test_ranges_apply_to_vectors_too_and_to_nothing_else(folder):
    write("vec", "ark:a.ark", {"a": np.arange(9, dtype="f4")})
    assert tables.read_object("vec", "a.ark:2[2:4]").tolist() == [2, 3, 4]
    write("iivec", "ark:b.ark", {"a": [[1]]})
    with pytest.raises(VoxarkError, match="a range applies to matrices and vectors only"):
        tables.read_object("iivec", "b.ark:2[0:0]")
    write("vec", "ark:odd[x]", {"a": np.ones(1, "f4")})  # brackets that are no range belong to the name
    assert tables.read_object("vec", "odd[x]:2").tolist() == [1]


def test_a_growing_archive_is_read_while_it_is_written(folder):
    """A writer in another process appends; the script arrives through a pipe."""
    write("mat", "ark,scp:a.ark,a.scp", MATRICES)
    data, lines = (folder / "a.ark").read_bytes(), (folder / "a.scp").read_text().splitlines(keepends=True)
    ends = [int(line.split(":")[1]) - 5 for line in lines[1:]] + [len(data)]
    os.mkfifo(folder / "fifo")
    (folder / "a.ark").write_bytes(b"")
    code = (
        "import sys, pathlib; d = eval(sys.stdin.read()); o = open('a.ark', 'wb', 0); s = open('fifo', 'w')\n"
    )
    code += "for part, line in d:\n o.write(part); s.write(line); s.flush()"
    parts = [(data[start:end], line) for start, end, line in zip([0, *ends], ends, lines)]
    writer = subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE)
    writer.stdin.write(repr(parts).encode())
    writer.stdin.close()
    assert_same(read("mat", "scp:fifo"), MATRICES)
    assert writer.wait() == 0


# ------------------------------------------------------------------------------------------------------ flags


def test_random_access_in_every_order(folder):
    write("mat", "ark,scp:a.ark,a.scp", MATRICES)
    for rspecifier in ("ark:a.ark", "scp:a.scp", "ark,s:a.ark", "ark,p:a.ark"):
        with tables.open_random("mat", rspecifier) as reader:
            for key in ("utt3", "utt0", "utt2", "utt2", "utt1"):
                np.testing.assert_array_equal(reader[key], MATRICES[key])
            with pytest.raises(VoxarkError, match="no value for the key 'utt9'"):
                reader["utt9"]


def test_sorted_tables_are_read_no_further_than_needed(folder):
    write("mat", "ark:a.ark", MATRICES)
    with tables.open_random("mat", "ark,s,cs:cat a.ark; printf garbage |") as reader:
        assert "utt0" in reader and "utt05" not in reader and "utt1" in reader
        assert len(reader._values) == 1  # memory stays constant
        with pytest.raises(VoxarkError, match="'utt0' is asked for after 'utt1', but the flag cs"):
            reader["utt0"]
    with pytest.raises(VoxarkError, match="key"):
        with tables.open_random("mat", "ark,s:cat a.ark; printf garbage |") as reader:
            assert "utt2" in reader and "utt1" in reader and "utt25" not in reader
            assert "zzz" in reader  # now it must read on, and finds the garbage


def test_once_gives_a_value_once(folder):
    write("mat", "ark:a.ark", MATRICES)
    with tables.open_random("mat", "ark,o:a.ark") as reader:
        reader["utt1"]
        assert set(reader._values) == {"utt0"}
        with pytest.raises(VoxarkError, match="'utt1' is asked for again, but the flag o"):
            "utt1" in reader


def test_reading_ahead_ends_with_the_loop(folder):
    import threading

    write("mat", "ark:a.ark", {f"utt{i:04d}": np.zeros((2, 2), "f4") for i in range(1000)})
    before = threading.active_count()
    with tables.open_reader("mat", "ark,bg:a.ark") as entries:
        for key, _ in entries:
            break
    with pytest.raises(ZeroDivisionError):
        with tables.open_reader("mat", "ark,bg:yes |") as entries:
            raise ZeroDivisionError
    with pytest.raises(VoxarkError, match="truncated"):
        read("mat", "ark,bg:head -c 1000 a.ark |")
    assert threading.active_count() == before
    assert len(read("mat", "ark,bg:a.ark")) == 1000


def test_reading_ahead_does_not_hold_up_an_error(folder):
    with pytest.raises(ZeroDivisionError):
        with tables.open_reader("mat", "ark,bg:cat a.ark; sleep 600 |") as entries:
            write("mat", "ark:a.ark", MATRICES)
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        with tables.open_reader("mat", "ark,bg:cat a.ark; sleep 600 |") as entries:
            for _ in entries:
                raise ZeroDivisionError


def test_a_reader_is_iterated_once(folder):
    write("mat", "ark:a.ark", MATRICES)
    with tables.open_reader("mat", "ark:a.ark") as entries:
        assert len(list(entries)) == 4
        with pytest.raises(RuntimeError, match="once"):
            list(entries)


def test_scripts_of_outputs(folder):
    (folder / "out.scp").write_text("utt0 x.mat\nutt1 | cat > y.mat\n")
    with tables.open_writer("mat", "scp:out.scp") as out:
        out["utt0"] = MATRICES["utt0"]
        out["utt1"] = MATRICES["utt1"]
        with pytest.raises(VoxarkError, match="utt2: no file name for this key in out.scp"):
            out["utt2"] = MATRICES["utt2"]
    for key, name in (("utt0", "x.mat"), ("utt1", "y.mat")):
        np.testing.assert_array_equal(tables.read_object("mat", name), MATRICES[key])
    write("mat", "scp,p,t:out.scp", MATRICES)
    assert (folder / "x.mat").read_bytes().startswith(b" [\n")


# ---------------------------------------------------------------------------------------------------- writing


def test_output_may_be_its_own_input(folder):
    write("mat", "ark,scp:a.ark,a.scp", MATRICES)
    for rspecifier in ("ark:a.ark", "scp:a.scp"):
        with (
            tables.open_reader("mat", rspecifier) as entries,
            tables.open_writer("mat", "ark,scp:a.ark,a.scp") as out,
        ):
            for key, value in entries:
                out[key] = 2 * value
    assert_same(read("mat", "scp:a.scp"), {key: 4 * value for key, value in MATRICES.items()})


def test_a_value_that_cannot_be_written_leaves_the_archive_whole(folder):
    with tables.open_writer("mat", "ark,scp:a.ark,a.scp", compression_method=2) as out:
        out["a"] = MATRICES["utt0"]
        with pytest.raises(VoxarkError, match="^b: a matrix with NaN"):
            out["b"] = np.full((9, 9), np.nan, "f4")
        with pytest.raises(VoxarkError, match="^c: "):
            out["c"] = np.zeros(3, "f4")
        with pytest.raises(VoxarkError, match="'a' occurs twice"):
            out["a"] = MATRICES["utt0"]
        out["d"] = MATRICES["utt3"]
    assert list(read("mat", "ark:a.ark")) == list(read("mat", "scp:a.scp")) == ["a", "d"]


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "a\n", "a\0", "\x7f", "a\r"])
def test_what_cannot_be_a_key(folder, key):
    with tables.open_writer("float", "ark,t:a") as out:
        with pytest.raises(VoxarkError, match="cannot be a key"):
            out[key] = 1.0
    assert (folder / "a").read_bytes() == b""


def test_keys_of_any_language(folder):
    entries = {
        "日本": 1.0,
        "nb\u00a0sp": 2.0,
        "ideo\u3000graphic": 3.0,
        "latin\udce9": 4.0,
        "-": 5.0,
        "#": 6.0,
    }
    write("float", "ark,scp:a.ark,a.scp", entries)
    assert read("float", "ark:a.ark") == read("float", "scp:a.scp") == entries
    assert b"latin\xe9 " in (folder / "a.ark").read_bytes()
    with tables.open_random("float", "ark:a.ark") as reader:
        assert reader["ideo\u3000graphic"] == 3.0


def test_archive_and_script_fail_together(folder):
    (folder / "a.ark").write_bytes(b"old")
    with pytest.raises(VoxarkError, match="/dev/full"):
        write("mat", "ark,scp:a.ark,/dev/full", MATRICES)
    with pytest.raises(VoxarkError, match="no directory"):
        write("mat", "ark,scp:a.ark,no/a.scp", MATRICES)
    for wspecifier, message in (
        ("ark,scp:-,a.scp", "an archive that is a file"),
        ("ark,scp:| cat > x,a.scp", "is a file"),
        ("ark,scp:/dev/null,a.scp", "an archive that is a file"),
        ("ark,scp:a.ark,a.ark", "two outputs"),
        ("ark,scp:a.ark,./a.ark", "two outputs"),
    ):
        with pytest.raises(VoxarkError, match=message):
            write("mat", wspecifier, MATRICES)
    assert (folder / "a.ark").read_bytes() == b"old" and os.listdir(folder) == ["a.ark"]


# ------------------------------------------------------------------------------------------ kaldiio, the peer


def test_kaldiio_reads_what_we_write(folder):
    write("mat", "ark,scp:m.ark,m.scp", MATRICES)
    write("mat", "ark,t:m.txt", MATRICES)
    write("mat", "ark:m8.ark", {key: value.astype("f8") for key, value in MATRICES.items()})
    vectors = {key: value[0] for key, value in MATRICES.items()}
    write("vec", "ark,scp:v.ark,v.scp", vectors)
    write("vec", "ark,t:v.txt", vectors)
    integers = {key: np.arange(-2, 9, dtype=np.int32) for key in MATRICES}
    write("ivec", "ark:i.ark", integers)
    assert_same(dict(kaldiio.load_ark("m.ark")), MATRICES)
    assert_same(dict(kaldiio.load_scp_sequential("m.scp")), MATRICES)
    assert_same(
        dict(kaldiio.load_ark("m8.ark")), {key: value.astype("f8") for key, value in MATRICES.items()}
    )
    assert_same(dict(kaldiio.load_ark("v.ark")), vectors)
    assert_same(dict(kaldiio.load_ark("i.ark")), integers)
    for name, expected in (("m.txt", MATRICES), ("v.txt", vectors)):
        for key, value in kaldiio.load_ark(name):
            np.testing.assert_allclose(value, expected[key], rtol=6e-7)


def test_we_read_what_kaldiio_writes(folder):
    vectors = {key: value[0] for key, value in MATRICES.items()}
    integers = {key: np.arange(5, dtype=np.int32) for key in MATRICES}
    for kind, entries in (("mat", MATRICES), ("vec", vectors), ("ivec", integers)):
        kaldiio.save_ark("k.ark", entries, scp="k.scp")
        assert_same(read(kind, "ark:k.ark"), entries)
        assert_same(read(kind, "scp:k.scp"), entries)
        write(kind, "ark:ours.ark", entries)
        assert (folder / "ours.ark").read_bytes() == (folder / "k.ark").read_bytes()
        kaldiio.save_ark("k.txt", entries, text=True)
        for key, value in read(kind, "ark:k.txt").items():
            np.testing.assert_allclose(value, entries[key], rtol=6e-7)


def test_numpy_values_of_kaldiio(folder):
    doubles = {key: value.astype("f8") for key, value in MATRICES.items()}
    for kind, entries, expected in (
        ("mat", MATRICES, MATRICES),
        ("mat", doubles, doubles),
        ("mat", {"a": np.arange(6, dtype="f2").reshape(2, 3)}, {"a": np.arange(6, dtype="f4").reshape(2, 3)}),
        ("vec", {"a": np.arange(6)}, {"a": np.arange(6, dtype="f4")}),
        ("ivec", {"a": np.arange(6)}, {"a": np.arange(6, dtype="i4")}),
    ):
        with kaldiio.WriteHelper("ark,scp:n.ark,n.scp", write_function="numpy") as out:
            for key, value in entries.items():
                out(key, value)
        assert b"NPY" in (folder / "n.ark").read_bytes()
        assert_same(read(kind, "ark:n.ark"), expected)
        assert_same(read(kind, "scp:n.scp"), expected)
    with kaldiio.WriteHelper("ark:n.ark", write_function="numpy") as out:
        out("a", np.zeros(3))
        out("b", np.zeros((3, 3)))
        out("c", np.array(["x"]))
    with tables.open_reader("mat", "ark,p:n.ark") as entries:
        assert [key for key, _ in entries] == ["b"]
        assert [key for key, _ in entries.skipped] == ["a", "c"]


def test_pickles_are_refused(folder):
    with kaldiio.WriteHelper("ark:p.ark", write_function="pickle") as out:
        out("a", {"x": 1})
    assert b"PKL" in (folder / "p.ark").read_bytes()
    for kind in ("mat", "vec", "post", "diag-gmm"):
        with pytest.raises(VoxarkError, match="a: p.ark: a pickled value: it could run code"):
            read(kind, "ark:p.ark")


# -------------------------------------------------------------------------------------- round trips by chance

KEYS = st.text(
    st.characters(
        min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=["Cs"], exclude_characters="\x7f"
    ),
    min_size=1,
    max_size=12,
)
INT32 = st.integers(-(2**31), 2**31 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
WORDS = st.text(
    st.characters(
        min_codepoint=0x21, max_codepoint=0xFFFF, exclude_categories=["Cs"], exclude_characters="\x7f"
    ),
    min_size=1,
    max_size=8,
)


def _arrays(*lengths):
    return st.tuples(st.sampled_from(["f4", "f8"]), *lengths).flatmap(
        lambda shape: st.lists(
            FLOAT32, min_size=int(np.prod(shape[1:])), max_size=int(np.prod(shape[1:]))
        ).map(lambda values: np.array(values, shape[0]).reshape(shape[1:]))
    )


VALUES = {
    "mat": _arrays(st.integers(1, 4), st.integers(1, 4)),
    "vec": _arrays(st.integers(0, 9)),
    "ivec": st.lists(INT32, max_size=9),
    "iivec": st.lists(st.lists(INT32, max_size=4), max_size=4),
    "post": st.lists(st.lists(st.tuples(INT32, FLOAT32), max_size=4), max_size=4),
    "float": FLOAT32,
    "int": INT32,
    "token": WORDS,
    "tokens": st.lists(WORDS, max_size=5),
}


def _as_seven_digits(value):
    if isinstance(value, np.ndarray):
        return np.array([float(f"{x:.7g}") for x in value.ravel().tolist()], np.float32).reshape(value.shape)
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [
            [(i, float(f"{p:.7g}")) for i, p in frame] if frame and isinstance(frame[0], tuple) else frame
            for frame in value
        ]
    return value


@pytest.mark.parametrize("kind", VALUES)
def test_whatever_is_written_is_read(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)

    @given(st.dictionaries(KEYS, VALUES[kind], max_size=4))
    def check(entries):
        for flag in ("", ",t"):
            write(kind, f"ark{flag},scp:{folder}/a.ark,{folder}/a.scp", entries)
            for rspecifier in (f"ark:{folder}/a.ark", f"scp:{folder}/a.scp"):
                got = read(kind, rspecifier)
                assert list(got) == list(entries)
                for key, value in entries.items():
                    expected = _as_seven_digits(value) if flag else value
                    if isinstance(got[key], np.ndarray):
                        np.testing.assert_array_equal(got[key], expected)
                        if not flag and kind != "ivec":
                            assert got[key].dtype == value.dtype
                    else:
                        assert got[key] == expected

    check()


@needs_golden
def test_tables_of_models(folder):
    """Archives of GMMs, as MAP adaptation writes them."""
    gmm = tables.read_object("diag-gmm", str(golden("model/diag.1.gmm")))
    plda = tables.read_object("plda", str(golden("model/plda")))
    for flag in ("", ",t"):
        for kind, value, type_ in (("diag-gmm", gmm, DiagGmmParams), ("plda", plda, PldaParams)):
            write(kind, f"ark{flag},scp:a.ark,a.scp", {"one": value, "two": value})
            for rspecifier in ("ark:a.ark", "scp:a.scp"):
                got = read(kind, rspecifier)
                assert list(got) == ["one", "two"]
                for back in got.values():
                    assert isinstance(back, type_)
                    for part, expected in zip(back, value, strict=True):
                        np.testing.assert_allclose(part, expected, rtol=1e-6 if flag else 0)
