"""Measures of scores that went through a file are those of scores in memory, and the file leaves no trace."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import environment
from hypothesis import given
from hypothesis import strategies as st

from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.metrics.selection import ScoreSpill, SpilledRoc

tied = st.sampled_from([-np.inf, -2.0, -0.5, 0.0, 0.25, 1.0, np.inf])
finite = st.floats(-20, 20).map(lambda value: round(value, 1))
trials = st.one_of(
    st.lists(st.tuples(scores, st.booleans()), min_size=2, max_size=120) for scores in (tied, finite)
).filter(lambda found: len({label for _, label in found}) == 2)


def in_a_process(script, folder):
    """What a Python script, whose temporary files go to a folder, prints."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment(TMPDIR=str(folder)), capture_output=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    return done.stdout.decode()


def spilled(scores, target, limit, block=7):
    spill = ScoreSpill(limit)
    for start in range(0, len(scores), block):
        spill.add(scores[start : start + block], target[start : start + block])
    return spill.measures()


def assert_equal(found, expected):
    for method in ("rocch", "interp", "kaldi"):
        assert found.eer(method) == expected.eer(method)
    for cost in ((0.01,), (0.5,), (0.9, 2.0, 1.0)):
        assert found.min_dcf(*cost) == expected.min_dcf(*cost)
        assert found.act_dcf(*cost) == expected.act_dcf(*cost)
    assert found.min_cllr() == expected.min_cllr()
    assert [list(side) for side in found.hull()] == [list(side) for side in expected.hull()]
    assert [list(side) for side in found.pav_llrs()] == [list(side) for side in expected.pav_llrs()]
    assert (found.num_target, found.num_nontarget) == (expected.num_target, expected.num_nontarget)
    for threshold in (-np.inf, -0.5, 0.1, np.inf):
        assert found.error_rates(threshold) == expected.error_rates(threshold)
        assert found.rule_of_30(threshold) == expected.rule_of_30(threshold)
    sums = [(roc.cllr(), roc.ece(0.1), roc.auc()) for roc in (found, expected)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-13)


@given(trials, st.integers(2, 50), st.integers(1, 30))
def test_equals_scores_in_memory(found, limit, block):
    scores, target = np.array([s for s, _ in found]), np.array([label for _, label in found])
    measures = spilled(scores, target, limit, block)
    assert isinstance(measures, SpilledRoc if len(scores) > limit else Roc)
    assert_equal(measures, Roc(scores[target], scores[~target]))


@pytest.mark.parametrize("digits", [None, 2, 0])
@pytest.mark.parametrize("order", ["random", "ascending", "descending", "targets first"])
def test_many_scores_in_any_order(digits, order):
    rng = np.random.default_rng(0)
    target = rng.random(60_000) < 0.1
    scores = rng.standard_normal(60_000) + 2 * target
    scores = scores if digits is None else np.round(scores, digits)
    place = {"random": np.arange(60_000), "ascending": np.argsort(scores), "descending": np.argsort(-scores)}
    place = place.get(order, np.argsort(~target))
    scores, target = scores[place], target[place]
    assert_equal(spilled(scores, target, 7000, 997), Roc(scores[target], scores[~target]))


def test_one_value_with_more_copies_than_memory_holds():
    scores = np.concatenate((np.zeros(5000), np.ones(3000), [-1.0, 2.0]))
    target = np.arange(8002) % 3 == 0
    measures = spilled(scores, target, 100)
    assert_equal(measures, Roc(scores[target], scores[~target]))
    assert spilled(np.ones(5000), target[:5000], 100).eer() == (0.5, 1.0)


def test_hardly_any_memory_gives_the_same_in_a_time_that_does_not_explode():
    rng = np.random.default_rng(1)
    target = rng.random(6_000) < 0.1
    scores = np.round(rng.standard_normal(6_000) + 2 * target, 3)
    measures = spilled(scores, target, 2, 997)
    assert len(measures._runs) < 800  # where 2 scores a spill would make over 3,000
    expected = Roc(scores[target], scores[~target])
    assert (measures.eer(), measures.min_cllr()) == (expected.eer(), expected.min_cllr())


def test_nan_and_empty_classes_are_errors_with_counts():
    with pytest.raises(VoxarkError, match="no nontarget trials"):
        spilled(np.arange(50.0), np.ones(50, bool), 10)
    with pytest.raises(VoxarkError, match="no target trials"):
        ScoreSpill(10).measures()
    scores = np.arange(50.0)
    scores[[3, 30]] = np.nan
    for limit in (10, 1000):
        with pytest.raises(VoxarkError, match="2 of 40 target scores are NaN"):
            spilled(scores, np.arange(50) < 40, limit)
    with pytest.raises(VoxarkError, match="3 scores for 2 labels"):
        ScoreSpill(10).add([1.0, 2.0, 3.0], [True, False])


def test_single_precision_and_blocks_larger_than_memory():
    rng = np.random.default_rng(0)
    scores, target = rng.standard_normal(5000).astype(np.float32), rng.random(5000) < 0.3
    assert_equal(spilled(scores, target, 64, 5000), Roc(scores[target], scores[~target]))


def test_the_file_is_in_the_directory_asked_for_and_a_full_one_is_an_error(tmp_path):
    with pytest.raises(VoxarkError, match="absent: .*No such file.*TMPDIR"):
        spilled_into = ScoreSpill(10, tmp_path / "absent")
        spilled_into.add(np.arange(50.0), np.arange(50) < 9)
    # a process that may not write files beyond 4 kB finds the disk full
    script = """
        import resource, numpy as np
        from voxark.errors import VoxarkError
        from voxark.metrics.selection import ScoreSpill
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            ScoreSpill(1000).add(np.arange(5000.0), np.arange(5000) < 9)
        except VoxarkError as error:
            print(error)
    """
    said = in_a_process(script, tmp_path)
    assert said.startswith(f"{tmp_path}: no room for 40000 bytes of scores to be sorted: File too large")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system has no /proc to look into")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_leaves_no_file(tmp_path, number):
    script = """
        import sys, time, numpy as np
        from voxark.metrics.selection import ScoreSpill
        spill = ScoreSpill(1000)
        spill.add(np.arange(50_000.0), np.arange(50_000) % 2 == 0)
        print("spilled", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"spilled\n"
        held = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        assert any(str(tmp_path) in name for name in held)  # it is there, without a name
        assert os.listdir(tmp_path) == []
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert os.listdir(tmp_path) == []


def test_closing_frees_the_file(tmp_path):
    with ScoreSpill(10, tmp_path) as spill:
        spill.add(np.arange(50.0), np.arange(50) < 9)
        measures = spill.measures()
        assert measures.num_target == 9
    assert spill._file.closed


def test_memory_does_not_grow_with_the_number_of_scores(tmp_path):
    script = """
        import resource, numpy as np
        from voxark.metrics.selection import ScoreSpill
        rng = np.random.default_rng(0)
        def peak(number):
            with ScoreSpill(200_000) as spill:
                for _ in range(number // 50_000):
                    target = rng.random(50_000) < 0.1
                    spill.add(rng.standard_normal(50_000) + 2 * target, target)
                roc = spill.measures()
                roc.eer(), roc.min_dcf(), roc.cllr(), roc.min_cllr(), roc.eer("kaldi")
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(peak(600_000), peak(3_000_000))
    """
    small, large = map(int, in_a_process(script, tmp_path).split())
    assert large < small + 2000  # kilobytes; the scores alone are 24,000
