"""Batches made ahead by threads, and what they hold: reading, repetition, normalisation."""

import threading
import time

import numpy as np
import pytest

from helpers import run
from voxark import tables
from voxark.e2e.batches import BatchOptions, BatchSampler, TrainingSet
from voxark.e2e.chunks import BatchReader, FeatureReader, NormalizeOptions
from voxark.e2e.spec_augment import SpecAugmentOptions
from voxark.errors import VoxarkError
from voxark.nnet.feature_index import FeatureIndex
from voxark.nnet.loader import BatchLoader


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    features = {
        f"u{n:02d}": rng.standard_normal((int(rng.integers(10, 90)), 6)).astype("f4") + 3 for n in range(24)
    }
    with tables.open_writer("mat", f"ark,scp:{tmp_path}/f.ark,{tmp_path}/f.scp", compression_method=2) as out:
        for key, value in features.items():
            out[key] = value
    return FeatureIndex(f"scp:{tmp_path}/f.scp"), tmp_path


def batch_reader(index, cmn="chunk", masks=None, **options):
    options = {"batch_speakers": 5, "min_chunk": 20, "max_chunk": 40, **options}
    data = TrainingSet(np.arange(len(index)), np.arange(len(index)) // 4, index.lengths)
    return BatchReader(
        BatchSampler(data, BatchOptions(**options), 1),
        FeatureReader(index, NormalizeOptions(cmn, cmn_window=25)),
        masks,
        srand=1,
    )


# ---------------------------------------------------------------------------------------------- the loader


@pytest.mark.parametrize("num_threads", [0, 1, 2, 5])
def test_batches_come_in_order_for_any_number_of_threads(corpus, num_threads):
    read = batch_reader(corpus[0], masks=SpecAugmentOptions(time_masks=2, freq_masks=1, freq_mask_bins=3))

    def slow(epoch, number):
        time.sleep(0.002 * (7 * number % 5))
        return read(epoch, number)

    with BatchLoader(slow, 4, epoch=1, number=2, num_threads=num_threads, prefetch=3) as loader:
        batches = [next(loader) for _ in range(12)]
        assert loader.place == (4, 2) == tuple(loader.state_dict().values())
        assert loader.num_batches == 12 and loader.waited_s > 0
    places = [(batch.plan.epoch, batch.plan.number) for batch in batches]
    assert places == [divmod(count, 4) for count in range(6, 18)]
    for batch in batches[::5]:
        expected = read(batch.plan.epoch, batch.plan.number)
        assert batch.keys == expected.keys and len(batch) == len(expected) == len(batch.chunks)
        assert all(np.array_equal(a, b) for a, b in zip(batch.chunks, expected.chunks, strict=True))


def test_the_rest_of_an_epoch(corpus):
    with BatchLoader(lambda *place: place, 5, number=3) as loader:
        assert list(loader.rest_of_epoch()) == [(0, 3), (0, 4)]
        assert list(loader.rest_of_epoch()) == [(1, number) for number in range(5)]
        assert loader.place == (2, 0)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_no_more_is_made_ahead_than_was_asked_for(prefetch):
    made = []
    with BatchLoader(lambda *place: made.append(place), 100, num_threads=1, prefetch=prefetch) as loader:
        for count in range(1, 5):
            next(loader)
            time.sleep(0.05)
            assert len(made) == count + prefetch


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_an_error_comes_where_its_batch_would(num_threads):
    def build(epoch, number):
        if number == 3:
            raise VoxarkError("u17: feats.ark: truncated")
        return number

    with BatchLoader(build, 10, num_threads=num_threads) as loader:
        assert [next(loader) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(VoxarkError, match="^u17: "):
            next(loader)
        assert list(loader) == []


def test_the_error_of_a_read_names_the_key(corpus):
    index, folder = corpus
    data = bytearray((folder / "f.ark").read_bytes())
    (folder / "f.ark").write_bytes(data[: len(data) // 2])
    with BatchLoader(batch_reader(index), 100) as loader:
        with pytest.raises(VoxarkError, match="^u[0-9]{2}: .*f.ark: "):
            for _ in range(100):
                next(loader)


def test_threads_stop(corpus):
    before = threading.active_count()
    loader = BatchLoader(batch_reader(corpus[0]), 10, num_threads=4)
    next(loader)
    assert threading.active_count() == before + 4
    loader.close()
    assert threading.active_count() == before
    assert list(loader) == [] and list(loader.rest_of_epoch()) == []


def test_training_does_not_wait_when_batches_are_ready():
    with BatchLoader(lambda *place: time.sleep(0.01), 100, num_threads=2, prefetch=4) as loader:
        next(loader)
        start = loader.waited_s
        for _ in range(10):
            time.sleep(0.03)  # the computation
            next(loader)
        assert loader.waited_s - start < 0.05


def test_wrong_numbers_are_refused():
    for wrong in ({"num_threads": -1}, {"prefetch": 0}, {"number": 5}, {"epoch": -1}):
        with pytest.raises(VoxarkError):
            BatchLoader(lambda *place: None, 5, **wrong)


# ---------------------------------------------------------------------------------------------- what is read


def test_chunks_are_the_frames_of_the_plan_less_their_mean(corpus):
    index = corpus[0]
    for options in ({}, {"short_utterances": "repeat"}, {"batches": "two-chunks", "min_chunk": 10}):
        batch = batch_reader(index, **options)(2, 7)
        plan = batch.plan
        assert [index.keys[n] for n in plan.utterances] == batch.keys
        assert batch.num_bytes == 4 * 6 * plan.size.sum()
        for row, x in enumerate(batch.chunks):
            whole = index.read(int(plan.utterances[row]))
            y = whole[plan.first[row] : plan.first[row] + plan.frames[row]]
            y = np.concatenate([y - y.mean(axis=0)] * 10)[: plan.size[row]]
            np.testing.assert_allclose(x, y, atol=2e-6)


def test_a_worker_reads_its_rows_alone(corpus):
    reader = batch_reader(corpus[0])
    whole = reader(0, 0)
    reader.rows_of = lambda plan: range(1, plan.num_rows, 2)
    part = reader(0, 0)
    assert part.keys == whole.keys and len(part) == len(whole)
    for row, x in enumerate(part.chunks):
        assert x is None if row % 2 == 0 else np.array_equal(x, whole.chunks[row])


@pytest.mark.parametrize("window", [1, 24, 25, 60, 500])
def test_sliding_normalisation_equals_apply_cmvn_sliding(corpus, window):
    index, folder = corpus
    run(
        "apply-cmvn-sliding",
        f"--cmn-window={window}",
        "--center=true",
        f"scp:{folder}/f.scp",
        f"ark:{folder}/n.ark",
    )
    expected = dict(tables.open_reader("mat", f"ark:{folder}/n.ark"))
    reader, rng = FeatureReader(index, NormalizeOptions("sliding", window)), np.random.default_rng(0)
    for number, key in enumerate(index.keys):
        length = int(index.lengths[number])
        first = int(rng.integers(0, length))
        last = int(rng.integers(first, length + 1))
        np.testing.assert_allclose(reader.read(number, first, last), expected[key][first:last], atol=2e-5)


def test_values_that_are_not_finite_name_the_key(tmp_path):
    x = np.zeros((30, 4), "f4")
    x[20, 2] = np.nan
    with tables.open_writer("mat", f"ark:{tmp_path}/f.ark") as out:
        out["good"], out["bad"] = x[:20], x
    reader = FeatureReader(FeatureIndex(f"ark:{tmp_path}/f.ark"))
    assert reader.read(1, 0, 20).shape == (20, 4)
    with pytest.raises(VoxarkError, match="^bad: feature at frame 5, column 2 is nan"):
        reader.read(1, 15, 25)
