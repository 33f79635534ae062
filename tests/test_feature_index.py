"""FeatureIndex: stretches of features by offset, from every kind of table, against whole reading."""

import os
import threading
import tracemalloc

import numpy as np
import pytest

from helpers import save_ark
from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.matrix_rows import SharedFile
from voxark.nnet.feature_index import FeatureIndex
from voxark.nnet.key_list import KeyList


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {f"u{n:02d}": rng.standard_normal((int(rng.integers(1, 60)), 7)).astype("f4") for n in range(12)}


def write(folder, features, method=0, name="feats", kind="ark,scp"):
    specifier = f"{kind}:{folder}/{name}.ark,{folder}/{name}.scp"
    with tables.open_writer("mat", specifier, compression_method=method) as out:
        for key, value in features.items():
            out[key] = value
    return f"scp:{folder}/{name}.scp"


def check(index, expected):
    rng = np.random.default_rng(1)
    assert list(index.keys) == list(expected) and index.dim == 7
    for number, value in enumerate(expected.values()):
        assert index.lengths[number] == len(value)
        whole = index.read(number)
        assert whole.dtype == np.float32 and whole.flags.writeable and whole.flags.c_contiguous
        np.testing.assert_array_equal(whole, value)
        first = int(rng.integers(0, len(value)))
        last = int(rng.integers(first, len(value) + 1))
        np.testing.assert_array_equal(index.read(number, first, last), value[first:last])


@pytest.mark.parametrize("method", range(8))
@pytest.mark.parametrize("form", ["scp:{}.scp", "ark:{}.ark", "ark:cat {}.ark |"])
def test_stretches_equal_those_of_the_whole_matrix(tmp_path, features, method, form):
    script = write(tmp_path, features, method)
    index = FeatureIndex(form.format(tmp_path / "feats"))
    check(index, dict(tables.open_reader("mat", script)))


def test_double_precision_text_numpy_and_single_files(tmp_path, features):
    double = {key: value.astype("f8") for key, value in features.items()}
    check(FeatureIndex(write(tmp_path, double, name="double")), features)
    check(FeatureIndex(save_ark(tmp_path / "kaldiio.ark", features)), features)
    rounded = {key: np.round(value, 2) for key, value in features.items()}
    script = write(tmp_path, rounded, name="text", kind="ark,scp,t")
    for rspecifier in (script, f"ark:{tmp_path}/text.ark"):
        check(FeatureIndex(rspecifier), rounded)
    for key, value in features.items():
        tables.write_object("mat", f"{tmp_path}/{key}.mat", value)
    lines = [f"{key} {tmp_path}/{key}.mat\n" for key in features]
    lines[3] = f"u03 cat {tmp_path}/u03.mat |\n"
    (tmp_path / "files.scp").write_text("".join(lines))
    check(FeatureIndex(f"scp:{tmp_path}/files.scp", max_open=2), features)


def test_ranges_of_rows_and_columns(tmp_path, features):
    features = {key: np.vstack([value, value, np.ones((9, 7), "f4")]) for key, value in features.items()}
    script = write(tmp_path, features, 2)
    whole = dict(tables.open_reader("mat", script))
    lines = (tmp_path / "feats.scp").read_text().splitlines()
    lines = [line + (f"[2:{n + 3}]" if n % 2 else "") for n, line in enumerate(lines)]
    length = len(whole["u01"])
    lines[1] = lines[1].replace("[2:4]", f"[2:{length + 1}]")  # two rows too many are forgiven, as by Kaldi
    (tmp_path / "cut.scp").write_text("\n".join(lines) + "\n")
    expected = {key: value[2 : n + 4] if n % 2 else value for n, (key, value) in enumerate(whole.items())}
    expected["u01"] = whole["u01"][2:]
    check(FeatureIndex(f"scp:{tmp_path}/cut.scp"), expected)
    lines = [line.partition("[")[0] + "[1:5,2:4]" for line in lines]
    (tmp_path / "cut.scp").write_text("\n".join(lines) + "\n")
    index = FeatureIndex(f"scp:{tmp_path}/cut.scp")
    assert index.dim == 3 and set(index.lengths.tolist()) == {5}
    np.testing.assert_array_equal(index.read(4, 1, 3), whole["u04"][2:4, 2:5])
    (tmp_path / "cut.scp").write_text(lines[0].partition("[")[0] + f"[0:{len(whole['u00']) + 3}]\n")
    with pytest.raises(VoxarkError, match=r"^u00: .*does not fit"):
        FeatureIndex(f"scp:{tmp_path}/cut.scp")


@pytest.mark.parametrize("method", [0, 2, 3, 5])
def test_only_the_bytes_of_a_stretch_are_read(tmp_path, monkeypatch, method):
    x = np.random.default_rng(2).standard_normal((20000, 8)).astype("f4")
    index = FeatureIndex(write(tmp_path, {"long": x}, method))
    expected = next(iter(tables.open_reader("mat", f"ark:{tmp_path}/feats.ark")))[1][9000:9010]
    read, into = [], SharedFile.read_into
    monkeypatch.setattr(
        SharedFile, "read_into", lambda self, array, at: read.append(array.nbytes) or into(self, array, at)
    )
    np.testing.assert_array_equal(index.read(0, 9000, 9010), expected)
    assert sum(read) <= 10 * 8 * 4 + 8 * 8


def test_utt2num_frames_spares_the_headers(tmp_path, features, monkeypatch):
    script = write(tmp_path, features)
    counts = tmp_path / "utt2num_frames"
    lines = [f"{key} {len(value)}\n" for key, value in features.items()]
    counts.write_text("".join(reversed(lines)) + "other 7\n")
    peeks, peek = [], SharedFile.peek
    monkeypatch.setattr(
        SharedFile, "peek", lambda self, number, at: peeks.append(at) or peek(self, number, at)
    )
    index = FeatureIndex(script, str(counts))
    assert len(peeks) == 1
    check(index, features)
    check(FeatureIndex(script, f"ark,t:{counts}"), features)
    counts.write_text("".join(lines[:5]) + f"u05 {len(features['u05']) + 1}\n")
    index = FeatureIndex(script, str(counts))
    with pytest.raises(VoxarkError, match="^u05: .*feats.ark: the matrix at byte .* utt2num_frames"):
        index.read(5)
    np.testing.assert_array_equal(index.read(7), features["u07"])
    counts.write_text("u00 many\n")
    with pytest.raises(VoxarkError, match="u00: a number of frames was expected"):
        FeatureIndex(script, str(counts))


def test_errors_name_key_file_and_byte(tmp_path, features):
    script = write(tmp_path, features)
    index = FeatureIndex(script)
    ark = tmp_path / "feats.ark"
    lines = (tmp_path / "feats.scp").read_text().splitlines()
    offset = int(lines[-1].rpartition(":")[2])
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-5])
    with pytest.raises(
        VoxarkError, match=rf"^u11: .*feats.ark: truncated: the matrix at byte {offset} takes"
    ):
        FeatureIndex(script)
    with pytest.raises(VoxarkError, match=r"^u11: .*feats.ark: truncated: .* expected at byte"):
        index.read(11)  # cut while in use
    permissive = FeatureIndex("scp,p:" + script[4:])
    assert [key for key, _ in permissive.skipped] == ["u11"] and permissive.lengths[11] == 0
    ark.write_bytes(whole)
    (tmp_path / "bad.scp").write_text(f"a {ark}:{offset}\nb {ark}:{offset + 1}\n")
    with pytest.raises(VoxarkError, match="^b: "):
        FeatureIndex(f"scp:{tmp_path}/bad.scp")
    (tmp_path / "bad.scp").write_text(f"a {ark}:{offset}\nb {tmp_path}/no.ark:5\n")
    with pytest.raises(VoxarkError, match="^b: .*no.ark: No such file"):
        FeatureIndex(f"scp:{tmp_path}/bad.scp")
    (tmp_path / "bad.scp").write_text(f"a {ark}:{offset}\na {ark}:{offset}\n")
    with pytest.raises(VoxarkError, match="'a' occurs twice"):
        FeatureIndex(f"scp:{tmp_path}/bad.scp")
    ark.write_bytes(whole[: offset + 20])
    with pytest.raises(VoxarkError, match="^u11: "):
        FeatureIndex(f"ark:{ark}")
    with pytest.raises(VoxarkError, match="frames 5 to 99999"):
        index.read(0, 5, 100000)


def test_mixed_dimensions_and_empty_tables_are_refused(tmp_path, features):
    features["u05"] = features["u05"][:, :6]
    with pytest.raises(VoxarkError, match="^u05: .*dimension 6, but u00 has 7"):
        FeatureIndex(write(tmp_path, features))
    (tmp_path / "empty.scp").write_text("")
    with pytest.raises(VoxarkError, match="the table is empty"):
        FeatureIndex(f"scp:{tmp_path}/empty.scp")
    with pytest.raises(VoxarkError, match="all utterances are empty"):
        FeatureIndex(write(tmp_path, {"a": np.zeros((0, 0), "f4")}, name="none"))


def test_a_stream_is_held_up_to_a_limit(tmp_path, features):
    write(tmp_path, features)
    with pytest.raises(VoxarkError, match="write them with copy-feats to ark,scp:feats.ark,feats.scp"):
        FeatureIndex(f"ark:cat {tmp_path}/feats.ark |", max_held=1000)
    with pytest.raises(VoxarkError, match="status 3"):
        FeatureIndex(f"ark:cat {tmp_path}/feats.ark; exit 3 |")


def test_many_threads_read_at_once_through_few_files(tmp_path, features):
    lines = []
    for n, key in enumerate(features):
        write(tmp_path, {key: features[key]}, name=f"part{n}")
        lines += (tmp_path / f"part{n}.scp").read_text().splitlines()
    (tmp_path / "all.scp").write_text("\n".join(lines) + "\n")
    index, wrong = FeatureIndex(f"scp:{tmp_path}/all.scp", max_open=2), []
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(300):
            number = int(rng.integers(len(features)))
            if not np.array_equal(index.read(number), features[f"u{number:02d}"]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_keys_are_compact_and_found(tmp_path):
    keys = [f"speaker{n // 50:04d}-utterance-{n:06d}" for n in range(20000)]
    tracemalloc.start()
    table = KeyList(iter(keys), "keys")
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < len(keys) * (len(keys[0]) + 40)
    assert list(table) == keys and table[17] == keys[17] and table[-1] == keys[-1] and table[5:9] == keys[5:9]
    assert table.numbers([keys[9], "nobody", keys[3]]).tolist() == [9, -1, 3]
    assert "nobody" not in table and keys[7] in table and table.index(keys[8]) == 8
    assert list(KeyList(["\udcff", "ä"], "odd")) == ["\udcff", "ä"]
    with pytest.raises(VoxarkError, match="no key 'nobody'"):
        table.number("nobody")
    with pytest.raises(VoxarkError, match="'b' occurs twice"):
        KeyList(["a", "b", "c", "b"], "twice")


def test_memory_of_an_index_is_below_200_bytes_a_key(tmp_path, features):
    script = write(tmp_path, features)
    places = [line.split()[1] for line in (tmp_path / "feats.scp").read_text().splitlines()]
    number = 30000
    with open(tmp_path / "many.scp", "w") as out:
        out.writelines(
            f"speaker{n // 50:05d}-utterance{n:07d} {places[n % len(places)]}\n" for n in range(number)
        )
    FeatureIndex(script)
    tracemalloc.start()
    index = FeatureIndex(f"scp:{tmp_path}/many.scp")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == number and held < 100 * number and peak < 200 * number
