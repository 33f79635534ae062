"""Lists of operating points, presets, their thresholds, and the means that evaluations report."""

import math

import pytest

from voxark.errors import VoxarkError
from voxark.metrics import PRESETS, OperatingPoint, OperatingPointOptions, Roc, operating_points


def test_lists_pair_up_and_single_values_stand_for_all():
    found = operating_points("0.01,0.05", "1,10", "2")
    assert [p.cost for p in found] == [(0.01, 1.0, 2.0), (0.05, 10.0, 2.0)]
    assert [p.name for p in found] == ["p=0.01,c_miss=1,c_fa=2", "p=0.05,c_miss=10,c_fa=2"]
    assert operating_points() == [OperatingPoint("p=0.01", 0.01, 1.0, 1.0)]
    assert OperatingPointOptions(p_target="0.1").points()[0].p_target == 0.1


def test_threshold_and_effective_prior_ask_for_the_same_decisions():
    point = OperatingPoint("", 0.01, 10.0, 1.0)
    assert point.threshold == pytest.approx(math.log(0.99 / 0.1))
    assert point.effective_prior == pytest.approx(0.1 / 1.09)
    equal = OperatingPoint("", point.effective_prior, 1.0, 1.0)
    assert equal.threshold == pytest.approx(point.threshold)
    assert OperatingPoint("", 0.5, 1.0, 1.0).threshold == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("0.01,0.02", "1,2,3"), "--p-target: has 2 values where another list has 3"),
        (("0.01,x",), "--p-target=0.01,x: numbers with commas"),
        (("",), "--p-target=: numbers"),
        (("1",), "--p-target=1: a probability"),
        (("nan",), "--p-target=nan: a probability"),
        (("0.5", "-1"), "--c-miss=-1: a positive cost"),
        (("0.5", "1", "inf"), "--c-fa=inf: a positive cost"),
        (("0.5", "1", "1", "sre99"), "--preset=sre99: unknown; there are sre08"),
    ],
)
def test_bad_lists_are_refused(arguments, message):
    with pytest.raises(VoxarkError, match=message):
        operating_points(*arguments)


def test_presets_and_their_means():
    assert operating_points(preset="sre08")[0].cost == (0.01, 10.0, 1.0)
    assert [p.p_target for p in PRESETS["sre16"]] == [0.01, 0.005]
    roc = Roc([0.5, 4.0, 5.0, 6.0], [-6.0, -4.0, -1.0, 5.5])
    points = operating_points(preset="sre12")
    minima = [roc.min_dcf(*p.cost)[0] for p in points]
    assert roc.mean_min_dcf(points) == pytest.approx(sum(minima) / 2)
    actual = [roc.act_dcf(0.01), roc.act_dcf(0.001)]
    assert roc.mean_act_dcf(points) == pytest.approx(sum(actual) / 2)
    assert OperatingPointOptions(preset="sre12").averaged
    assert not OperatingPointOptions(preset="voxceleb").averaged
