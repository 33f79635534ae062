"""Statistics of PLDA training: parts that add up to the whole, their file, the programs acc, sum, est."""

import numpy as np
import pytest
from helpers import golden, needs_golden, run, save_ark, shell, write_lines
from hypothesis import given
from hypothesis import strategies as st

from voxark import tables
from voxark.backend.class_stats import accumulate
from voxark.backend.plda_stats import SpeakerStats, merge
from voxark.errors import VoxarkError


def labelled(num_speakers, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_speakers), rng.integers(1, 6, num_speakers)))
    x = 5 * rng.standard_normal((num_speakers, dim))[labels] + rng.standard_normal((len(labels), dim)) + 100
    return x, labels, [f"s{number:02d}" for number in rng.permutation(num_speakers)]


def of_rows(x, labels, names, rows):
    """The statistics of some rows, with the speakers that they have."""
    present, numbers = np.unique(labels[rows], return_inverse=True)
    return SpeakerStats.of(x[rows], numbers, [names[number] for number in present])


def assert_same(one, other, **tolerance):
    assert one.speakers == other.speakers
    np.testing.assert_array_equal(one.classes.counts, other.classes.counts)
    np.testing.assert_allclose(one.classes.means, other.classes.means, **tolerance)
    np.testing.assert_allclose(one.classes.scatter, other.classes.scatter, **tolerance)


@given(seed=st.integers(0, 10000), num_parts=st.integers(1, 5), num_speakers=st.integers(1, 9))
def test_any_split_of_the_vectors_gives_the_same_statistics(seed, num_parts, num_speakers):
    x, labels, names = labelled(num_speakers, seed=seed)
    jobs = np.random.default_rng(seed + 1).integers(0, num_parts, len(x))
    rows = [np.flatnonzero(jobs == job) for job in range(num_parts)]
    merged = merge([of_rows(x, labels, names, part) for part in rows if len(part)])
    assert_same(merged, SpeakerStats.of(x, labels, names), rtol=1e-11, atol=1e-10)


def test_speakers_of_one_part_only_are_taken_over_to_the_bit():
    x, labels, names = labelled(8)
    whole = SpeakerStats.of(x, labels, names)
    parts = [of_rows(x, labels, names, np.flatnonzero(labels % 2 == parity)) for parity in (0, 1)]
    merged = merge(parts)
    assert merged.speakers == sorted(names)
    assert_same(merged, whole, rtol=1e-13)
    means = {name: mean for part in parts for name, mean in zip(part.speakers, part.classes.means)}
    np.testing.assert_array_equal(merged.classes.means, [means[name] for name in merged.speakers])
    assert_same(merged, merge(parts[::-1]), rtol=1e-14)


@pytest.mark.parametrize("binary", [True, False])
def test_the_file_keeps_every_digit(tmp_path, binary):
    stats = SpeakerStats.of(*labelled(5))
    tables.write_object("plda-stats", str(tmp_path / "s"), stats.to_params(), binary=binary)
    back = SpeakerStats.from_params(tables.read_object("plda-stats", str(tmp_path / "s")))
    assert_same(back, stats, rtol=0, atol=0)
    assert (
        (tmp_path / "s")
        .read_bytes()
        .startswith(b"\0B<PldaStats> " if binary else b"<PldaStats> <Speakers> 5 s00 ")
    )


def test_keys_of_any_language(tmp_path):
    x, labels, _ = labelled(3)
    stats = SpeakerStats.of(x, labels, ["młody", "Öl", "<Counts>"])
    for binary in (True, False):
        tables.write_object("plda-stats", str(tmp_path / "s"), stats.to_params(), binary=binary)
        assert tables.read_object("plda-stats", str(tmp_path / "s")).speakers == ["<Counts>", "młody", "Öl"]


def test_bad_files_are_refused(tmp_path):
    params = SpeakerStats.of(*labelled(4)).to_params()
    name = str(tmp_path / "s")
    cases = [
        (params._replace(speakers=["a", "b", "a", "c"]), "a speaker stands twice"),
        (params._replace(counts=np.array([1, 0, 1, 1], np.int32)), "has no vector"),
        (params._replace(means=params.means[:3]), "corrupt: 4 speakers, 4 counts, means .3, 3."),
        (params._replace(scatter=params.scatter[:3]), "scatter of 3 numbers"),
    ]
    for bad, message in cases:
        tables.write_object("plda-stats", name, bad)
        with pytest.raises(VoxarkError, match=message):
            tables.read_object("plda-stats", name)
    with pytest.raises(VoxarkError, match="not finite"):
        SpeakerStats.from_params(params._replace(scatter=params.scatter * np.nan))
    tables.write_object("plda-stats", name, params)
    whole = (tmp_path / "s").read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "s").write_bytes(whole[:length])
        with pytest.raises(VoxarkError):
            tables.read_object("plda-stats", name)


def test_other_dimensions_do_not_add_up():
    with pytest.raises(VoxarkError, match="dimensions 3 and 4 do not add up"):
        merge([SpeakerStats.of(*labelled(3)), SpeakerStats.of(*labelled(3, dim=4))])


def test_blocks_and_order_do_not_matter():
    # more rows than a block, speakers across the edges of blocks, a large mean in float32
    rng = np.random.default_rng(0)
    counts = np.array([1, 3000, 2, 1100, 5])
    labels = np.repeat(np.arange(5), counts)
    x = (rng.standard_normal((len(labels), 3)) + 1000).astype(np.float32)
    order = rng.permutation(len(x))
    stats, shuffled = accumulate(x, labels), accumulate(x[order], labels[order])
    for s in range(5):
        np.testing.assert_allclose(stats.means[s], x[labels == s].mean(axis=0, dtype=np.float64), rtol=1e-14)
    centred = x - np.repeat(stats.means, counts, axis=0)
    np.testing.assert_allclose(stats.scatter, centred.T @ centred, rtol=1e-11)
    np.testing.assert_allclose(shuffled.scatter, stats.scatter, rtol=1e-11)


# ---------------------------------------------------------------------------------------------- programs


@needs_golden
@pytest.mark.parametrize("options", [[], ["--kaldi-compat"]])
def test_three_programs_give_the_model_of_one(tmp_path, options):
    # the utterances of each speaker are shared among three jobs
    vectors = f"ark:{golden('model/dvec_train.norm.ark')}"
    lines = [line.split() for line in golden("model/train.spk2utt").read_text().splitlines()]
    for job in range(3):
        parts = [[speaker, *utterances[job::3]] for speaker, *utterances in lines if utterances[job::3]]
        write_lines(tmp_path / f"spk2utt.{job}", *(" ".join(part) for part in parts))
        run(
            "acc-plda-stats",
            f"--binary={'true' if job else 'false'}",
            f"ark:{tmp_path}/spk2utt.{job}",
            vectors,
            tmp_path / f"stats.{job}",
        )
    done = run("sum-plda-stats", tmp_path / "stats", *(tmp_path / f"stats.{job}" for job in (2, 0, 1)))
    assert f"{sum(map(len, lines)) - len(lines)} vectors" in done.stderr and "done 3, failed 0" in done.stderr
    run("est-plda", *options, tmp_path / "stats", tmp_path / "ours")
    run("train-plda", *options, f"ark:{golden('model/train.spk2utt')}", vectors, tmp_path / "whole")
    ours, whole = (tables.read_object("plda", str(tmp_path / name)) for name in ("ours", "whole"))
    np.testing.assert_allclose(ours.psi, whole.psi, rtol=1e-11)
    np.testing.assert_allclose(ours.mean, whole.mean, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(ours.transform, whole.transform, rtol=1e-9, atol=1e-10)
    if options:
        np.testing.assert_allclose(
            ours.psi, tables.read_object("plda", str(golden("model/plda"))).psi, rtol=1e-10
        )


def write_inputs(tmp_path, num_speakers=8):
    x, labels, names = labelled(num_speakers)
    vectors = save_ark(tmp_path / "v.ark", {f"u{i:02d}": row.astype(np.float32) for i, row in enumerate(x)})
    lines = [
        f"{name} " + " ".join(f"u{i:02d}" for i in np.flatnonzero(labels == s))
        for s, name in enumerate(names)
    ]
    return write_lines(tmp_path / "spk2utt", *lines), vectors, len(x)


def test_programs_through_pipes_with_options_and_counts(tmp_path):
    spk2utt, vectors, number = write_inputs(tmp_path)
    with open(tmp_path / "spk2utt", "a") as out:
        out.write("late absent\n")
    done = shell(
        f"acc-plda-stats {spk2utt} {vectors} - | sum-plda-stats - - |"
        f" est-plda --dim=2 --write-transform={tmp_path}/a --report --num-em-iters=2 - {tmp_path}/plda"
    )
    assert (
        f"done {number}, failed 1" in done.stderr and "absent: utterance of late has no vector" in done.stderr
    )
    assert done.stderr.count("= Q ") == 4 and "done 8, failed 0 (speakers)" in done.stderr
    run(
        "train-plda",
        "--dim=2",
        f"--write-transform={tmp_path}/b",
        "--num-em-iters=2",
        spk2utt,
        vectors,
        tmp_path / "w",
    )
    np.testing.assert_allclose(
        *(tables.read_object("mat", str(tmp_path / name)) for name in "ab"), rtol=1e-10
    )
    np.testing.assert_allclose(
        *(tables.read_object("plda", str(tmp_path / name)).psi for name in ("plda", "w"))
    )


def test_programs_refuse_in_one_line(tmp_path):
    spk2utt, vectors, _ = write_inputs(tmp_path)
    (tmp_path / "other").write_text("\0Bnot statistics")
    done = run("sum-plda-stats", tmp_path / "s", tmp_path / "other", check=False)
    assert (
        done.returncode == 1 and "<PldaStats> was expected" in done.stderr and not (tmp_path / "s").exists()
    )
    assert run("sum-plda-stats", tmp_path / "s", check=False).returncode == 1
    write_lines(tmp_path / "one", *(f"s{i} u{i:02d}" for i in range(8)))
    run(
        "acc-plda-stats", f"ark:{tmp_path}/one", vectors, tmp_path / "s"
    )  # a job may be left with single vectors
    done = run("est-plda", tmp_path / "s", tmp_path / "plda", check=False)
    assert done.returncode == 1 and "no speaker has two vectors" in done.stderr
    done = run("acc-plda-stats", write_lines(tmp_path / "none", "s x"), vectors, tmp_path / "t", check=False)
    assert (
        done.returncode == 1 and "no vector of an utterance" in done.stderr and not (tmp_path / "t").exists()
    )


def test_statistics_that_count_twice_are_warned_about(tmp_path):
    spk2utt, vectors, number = write_inputs(tmp_path)
    run("acc-plda-stats", spk2utt, vectors, tmp_path / "s.1")
    done = run("sum-plda-stats", tmp_path / "s.2", tmp_path / "s.1", tmp_path / "s.1")
    assert "s.1 is given 2 times, and counts so often" in done.stderr
    done = run("sum-plda-stats", tmp_path / "s.2", tmp_path / "s.1", tmp_path / "s.2")
    assert "s.2 is among the statistics added up" in done.stderr and "given" not in done.stderr
    assert f"{3 * number} vectors" in done.stderr
    done = shell(f"cat {tmp_path}/s.1 | sum-plda-stats - - >{tmp_path}/s.3")
    assert "WARNING" not in done.stderr


def test_what_cannot_work_is_said_before_the_vectors_are_read(tmp_path):
    for options, out, message in (
        (["--shrinkage=2"], "plda", "--shrinkage=2: a number from 0 to 1"),
        (["--num-em-iters=-1"], "plda", "--num-em-iters=-1"),
        ([], "none/plda", "there is no directory"),
        (["--dim=2", f"--write-transform={tmp_path}/none/a"], "plda", "there is no directory"),
    ):
        for inputs in (["train-plda", "ark:absent", "ark:absent"], ["est-plda", "absent"]):
            done = run(inputs[0], *options, *inputs[1:], tmp_path / out, check=False)
            assert done.returncode == 1 and message in done.stderr and "No such file" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_bad_values_name_the_file(tmp_path):
    spk2utt, vectors, _ = write_inputs(tmp_path)
    run("acc-plda-stats", spk2utt, vectors, tmp_path / "s")
    params = tables.read_object("plda-stats", str(tmp_path / "s"))
    tables.write_object("plda-stats", str(tmp_path / "bad"), params._replace(means=params.means * np.nan))
    for command in (["est-plda", tmp_path / "bad"], ["sum-plda-stats", tmp_path / "sum", tmp_path / "s",
                                                     tmp_path / "bad"]):
        done = run(*command, *([tmp_path / "sum"] if len(command) == 2 else []), check=False)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(
            f"{tmp_path}/bad: the PLDA statistics hold values that are not finite"
        )
    assert not (tmp_path / "sum").exists()
    huge = save_ark(tmp_path / "huge.ark", {"a": np.array([1e200, 1]), "b": np.array([-1e200, 2]),
                                            "c": np.array([0.0, 1])})
    spk2utt = write_lines(tmp_path / "huge", "s a b", "t c")
    done = run("train-plda", spk2utt, huge, tmp_path / "sum", check=False)
    assert done.returncode == 1 and "variances are not finite" in done.stderr
    assert "RuntimeWarning" not in done.stderr


def step_inputs(folder, dim, bad=None):
    """A data folder and v.scp of 4 speakers with 6 vectors each; one of them holds a NaN."""
    rng = np.random.default_rng(0)
    vectors = {f"s{s}-{u}": rng.standard_normal(dim).astype(np.float32) for s in range(4) for u in range(6)}
    if bad is not None:
        vectors[bad][1] = np.nan
    (folder / "data").mkdir()
    (folder / "data/utt2spk").write_text("".join(f"{key} {key[:2]}\n" for key in vectors))
    with tables.open_writer("vec", f"ark,scp:{folder}/v.ark,{folder}/v.scp") as out:
        for key, vector in vectors.items():
            out[key] = vector


def test_step_offers_the_ways_out_that_the_message_names(tmp_path):
    step_inputs(tmp_path, 30)
    command = f"cd {tmp_path} && train_plda.sh"
    done = shell(f"{command} data v.scp exp", check=False)
    assert done.returncode == 1 and "use --pca-dim=20 or less, or --shrinkage" in done.stderr
    assert not (tmp_path / "exp/plda").exists()
    shell(f"{command} --pca-dim 20 data v.scp exp; {command} --pca-dim 1 data v.scp one; "
          f"{command} --shrinkage 0.1 data v.scp shrunk")
    for name, dim in (("exp", 2), ("one", 1), ("shrunk", 2)):  # half the number of speakers at most
        assert tables.read_object("mat", str(tmp_path / name / "lda.mat")).shape == (dim, 31)
        assert len(tables.read_object("plda", str(tmp_path / name / "plda")).psi) == dim


def test_step_names_vectors_that_cannot_be_used(tmp_path):
    step_inputs(tmp_path, 3, bad="s1-4")
    shell(f"cd {tmp_path} && train_plda.sh --nj 2 data v.scp exp")
    (line,) = (tmp_path / "exp/dropped").read_text().splitlines()
    assert line.startswith("s1-4 ") and "nan" in line


def test_step_refuses_wrong_use_in_words(tmp_path):
    step_inputs(tmp_path, 3)
    for arguments, message in (
        ("--nj x data v.scp exp", "--nj x: expected a number"),
        ("--lda-dim -3 data v.scp exp", "--lda-dim -3: expected a number"),
        ("data v.scp 'a b'", "'a b': a path with blanks"),
        ("--nj 2 data v.scp JOB", "'JOB': a path with the word JOB"),
        ("data none.scp exp", "none.scp is missing or empty"),
    ):
        done = shell(f"cd {tmp_path} && train_plda.sh {arguments}", check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "v.ark", "v.scp"]


@needs_golden
def test_step_gives_the_same_model_with_any_number_of_jobs(tmp_path):
    copied = shell(
        f"copy-vector ark:{golden('model/dvec_train.ark')} ark,scp:{tmp_path}/v.ark,{tmp_path}/v.scp"
    )
    assert "failed 0" in copied.stderr
    (tmp_path / "data").mkdir()
    (tmp_path / "data/utt2spk").write_bytes(golden("model/train.utt2spk").read_bytes())
    for nj in (1, 3):
        shell(f"cd {tmp_path} && train_plda.sh --nj {nj} --lda-dim 10 data v.scp exp{nj}")
    one, three = (tables.read_object("plda", str(tmp_path / f"exp{nj}/plda")) for nj in (1, 3))
    np.testing.assert_allclose(three.psi, one.psi, rtol=1e-9)
    np.testing.assert_allclose(three.transform, one.transform, rtol=1e-7, atol=1e-9)
    assert not (tmp_path / "exp3/split").exists()
