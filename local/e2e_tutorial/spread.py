"""Means of repetitions with their standard errors, and what of a trial list is computed again and again."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from voxark.errors import VoxarkError


class Mean(NamedTuple):
    """The mean of ``number`` repetitions and its standard error, NaN of one repetition."""

    value: float
    error: float
    number: int

    @classmethod
    def of(cls, values):
        """Of values (R,)."""
        values = np.asarray(values, np.float64)
        if not len(values):
            raise VoxarkError("there is no repetition to take the mean of")
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return cls(float(np.mean(values)), float(error), len(values))

    @property
    def half_width(self):
        """Half of the 95 % confidence interval, by Student's t; 0 of one repetition, which tells nothing."""
        return half_width(self.error, self.number)


def half_width(error, number):
    """Half of the 95 % confidence interval of the mean of ``number`` repetitions with a standard error."""
    return float(stdtrit(number - 1, 0.975) * error) if number > 1 else 0.0


def variance_with_error(values):
    """The variance of values (R,) and its standard error, by the fourth moment, as a Mean."""
    centred = np.asarray(values, np.float64) - np.mean(values)
    squares = centred**2 * len(values) / (len(values) - 1)
    return Mean.of(squares)


def number_of(row, name):
    """The number in a field of a row of a table; VoxarkError if there is none."""
    try:
        return float(row[name])
    except (KeyError, ValueError, TypeError):
        raise VoxarkError(f"a row of the table has no number '{name}': {row}") from None


def by_seed(rows, name, **wanted):
    """{seed: number ``name``} of the rows that have the fields ``wanted``; VoxarkError if none has."""
    found = {
        row["seed"]: number_of(row, name)
        for row in rows
        if all(row[field] == str(value) for field, value in wanted.items())
    }
    if not found:
        raise VoxarkError(f"the table has no row with {', '.join(f'{k}={v}' for k, v in wanted.items())}")
    return found


def difference(one, other):
    """The Mean of one - other, {seed: number} each, over the seeds of both."""
    return Mean.of([one[seed] - other[seed] for seed in one if seed in other])


def all_pairs(labels):
    """Every pair of N vectors once, from labels (N,): (first, second, whether of one speaker), each (T,)."""
    first, second = np.triu_indices(len(labels), 1)
    return first, second, labels[first] == labels[second]
