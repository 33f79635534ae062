"""Trials in groups by labels of their ids: gender, bins of duration, noise."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class GroupOptions:
    """The labels that make the groups."""

    by: str = option(
        "",
        "Table of the label of each id (ark:utt2noise, or a file of lines `<id> <label>`): error rates of "
        "the trials of each label as well; ids that it lacks count by their speaker in --utt2spk",
    )
    by_side: Literal["test", "enroll", "both"] = option(
        "test", "Whose labels: both makes a group of each pair of labels"
    )
    by_bins: str = option("", "Bounds of bins for labels that are numbers: 2,4,8 gives <2, 2-4, 4-8 and >=8")

    def check(self):
        """Raise VoxarkError for bounds that are none, or that nothing is to be sorted into."""
        if self.by_bins:
            parse_bounds(self.by_bins)
        if not self.by and (self.by_bins or self.by_side != "test"):
            raise VoxarkError("--by-bins and --by-side are for the labels of --by, which is missing")


class Groups(NamedTuple):
    """Groups of N trials: trial p is of group names[number[p]]; ``names`` in the order of a table.

    A bin may hold no trial.
    """

    names: list
    number: np.ndarray


def read_groups(trials, options, utt2spk=""):
    """Groups of a TrialList by GroupOptions; ``utt2spk``: rspecifier of the speakers of ids without a label.

    VoxarkError for an id without a label and for what is no number where bins are asked for.
    """
    labels = tables.read_table("token", options.by)
    speakers = tables.read_table("token", utt2spk) if utt2spk else {}
    bounds = parse_bounds(options.by_bins) if options.by_bins else None
    sides = []
    for side, ids, column in (
        ("enroll", trials.enroll_ids, trials.enroll),
        ("test", trials.test_ids, trials.test),
    ):
        if options.by_side in (side, "both"):
            used = np.zeros(len(ids), bool)
            used[column] = True
            of_ids = _labels_of(ids, used, labels, speakers, options.by)
            names, numbers = _bins(of_ids, bounds, options.by) if bounds else _distinct(of_ids)
            of_id = np.full(len(ids), -1)
            of_id[used] = numbers
            sides.append((names, of_id[column]))
    if len(sides) == 1:
        return Groups(*sides[0])
    (first, of_enroll), (second, of_test) = sides
    found, number = np.unique(of_enroll * len(second) + of_test, return_inverse=True)
    return Groups(
        [f"{first[pair // len(second)]}/{second[pair % len(second)]}" for pair in found.tolist()], number
    )


def _labels_of(ids, used, labels, speakers, name):
    """The labels of the used ids, a list; an id without one is an error."""
    chosen = [key for key, wanted in zip(ids, used.tolist()) if wanted]
    found = [labels.get(key, labels.get(speakers.get(key))) for key in chosen]
    if None in found:
        raise VoxarkError(
            f"{chosen[found.index(None)]}: has no label in {name} ({found.count(None)} of {len(found)} ids "
            "have none); a table of speakers' labels needs --utt2spk"
        )
    return found


def _distinct(labels):
    """Distinct labels, in order of their values where all are numbers, and the place of each label."""
    names = sorted(set(labels))
    try:
        names.sort(key=float)
    except ValueError:
        pass
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[label] for label in labels])


def parse_bounds(text):
    """The rising, finite bounds of ``--by-bins``, as texts and as numbers: (list of str, (B,) float64)."""
    words = [word.strip() for word in text.split(",")]
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.array([np.nan])
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise VoxarkError(f"--by-bins={text}: rising numbers with commas between them are expected, as 2,4,8")
    return words, values


def _bins(labels, bounds, name):
    """Names of the bins and the bin of each label; a bin holds its lower bound."""
    words, values = bounds
    try:
        numbers = np.array([float(label) for label in labels])
        if np.isnan(numbers).any():
            raise ValueError
    except ValueError:
        raise VoxarkError(
            f"{name}: --by-bins needs labels that are numbers, '{_no_number(labels)}' is none"
        ) from None
    names = [f"<{words[0]}", *(f"{a}-{b}" for a, b in zip(words, words[1:])), f">={words[-1]}"]
    return names, np.searchsorted(values, numbers, "right")


def _no_number(labels):
    """The first label that is no number."""
    for label in labels:
        try:
            if np.isnan(float(label)):
                return label
        except ValueError:
            return label
    return None
