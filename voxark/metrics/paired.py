"""Two systems on the same trials: how far apart their error rates are, and how sure that is."""

from typing import NamedTuple

import numpy as np

from voxark.metrics.replicates import replicate


class Difference(NamedTuple):
    """A measure of two systems, first - second, its interval, standard error and two-sided p-value."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    standard_error: float
    p_value: float


def paired_difference(first, second, target, speakers, measures, options, weights=None):
    """Differences of measures between two Rocs of the same trials: a dict of Difference, by name.

    Arguments as of :func:`voxark.metrics.intervals.confidence`. Both systems have the same replicates, so that
    what makes trials hard for both cancels, and so does most of the bias. The interval is d +- t s with
    Student's t; the p-value is 1 minus the level at which it begins to hold 0. Equal systems have a
    difference of 0 with p = 1. NaN where a measure is not finite.
    """
    spread = replicate([first, second], target, speakers, measures, options, weights)
    found = {}
    for number, (name, measure) in enumerate(measures.items()):
        with np.errstate(invalid="ignore"):
            of_measure = spread.map(lambda values, number=number: values[:, 0, number] - values[:, 1, number])
        found[name] = _difference(float(measure(first)), float(measure(second)), of_measure, options.ci_level)
    return found


def _difference(first, second, spread, level):
    difference = first - second
    if not (np.isfinite(difference) and np.isfinite(spread.values).all()):
        return Difference(first, second, difference, np.nan, np.nan, np.nan, np.nan)
    error = float(spread.error())
    reach = spread.quantile(level) * error
    p_value = spread.p_value(difference / error) if error > 0 else float(difference == 0)
    return Difference(first, second, difference, difference - reach, difference + reach, error, p_value)
