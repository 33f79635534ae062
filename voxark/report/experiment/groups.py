"""Trials in groups: by the genders of both speakers, by duration or another label of the test utterance."""

from typing import NamedTuple

import numpy as np

_PAIRS = ("f / f", "m / m", "cross-gender", "not known")
_CROSS = 2
MOST_GROUPS = 12


class Grouping(NamedTuple):
    """Trials in groups: trial p is of group names[number[p]], ``number`` (N,).

    ``with_targets``: names of groups without target trials of their own: they are measured with those of all.
    """

    names: list
    number: np.ndarray
    with_targets: tuple = ()

    def trials_of(self, name, target):
        """The mask (N,) of a group's trials; ``target`` (N,) bool."""
        mask = self.number == self.names.index(name)
        return mask | target if name in self.with_targets else mask

    def select(self, kept):
        """The Grouping of the trials at a mask (N,)."""
        return self._replace(number=self.number[kept])


def gender_groups(trials, enroll, test):
    """Grouping of a TrialList by the genders ("f", "m" or None) of its enroll_ids and test_ids; or None.

    The non-targets of two genders are measured against all targets, which never are of two. A last group
    holds the trials of which a gender is not known. None where fewer than half are known.
    """
    number, place = np.full(len(trials), 3), {"f": 0, "m": 1}
    codes = []
    for genders, column in ((enroll, trials.enroll), (test, trials.test)):
        codes.append(np.array([place.get(gender, -1) for gender in genders])[column])
    known = (codes[0] >= 0) & (codes[1] >= 0)
    number[known] = np.where(codes[0] == codes[1], codes[0], _CROSS)[known]
    if not 2 * known.sum() >= len(number) > 0:
        return None
    return _without_empty(list(_PAIRS), number)._replace(with_targets=(_PAIRS[_CROSS],))


def duration_groups(trials, seconds, most=4):
    """Grouping of a TrialList by the duration of the test utterance; ``seconds``: {id: duration}, or None.

    Bounds are the quantiles of the distinct test utterances, so that groups hold about as many of them.
    None where durations are missing, or all alike.
    """
    durations = [seconds.get(key) for key in trials.test_ids]
    if not durations or any(value is None for value in durations):
        return None
    of_ids = np.array(durations, np.float64)
    bounds = np.unique(np.quantile(of_ids, np.arange(1, most) / most).round(2))
    bounds = bounds[(bounds > of_ids.min()) & (bounds <= of_ids.max())]
    if not len(bounds):
        return None
    words = [f"{bound:g}" for bound in bounds]
    names = [f"< {words[0]} s", *(f"{a}–{b} s" for a, b in zip(words, words[1:])), f"≥ {words[-1]} s"]
    return _without_empty(names, np.searchsorted(bounds, of_ids, "right")[trials.test])


def label_groups(trials, labels):
    """Grouping of a TrialList by a label of the test utterance, {id: label}; None where labels are missing.

    None also where all have the same one, or there are more than MOST_GROUPS.
    """
    of_ids = [labels.get(key) for key in trials.test_ids]
    if None in of_ids:
        return None
    names = sorted(set(of_ids))
    if not 1 < len(names) <= MOST_GROUPS:
        return None
    place = {name: number for number, name in enumerate(names)}
    return Grouping(names, np.array([place[label] for label in of_ids])[trials.test])


def _without_empty(names, number):
    """Grouping without those that hold no trial."""
    found, places = np.unique(number, return_inverse=True)
    return Grouping([names[place] for place in found.tolist()], places)
