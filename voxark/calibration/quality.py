"""Quality measures beside the scores: duration and the like, of utterances or of trials, as columns.

A measure of utterances gives two columns, that of the enrolment id and that of the test id of each trial; a
list of lines `<enroll-id> <test-id> <value> ...` gives its values as they are.
"""

import os
from dataclasses import dataclass, field

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.streams import open_input
from voxark.options import option
from voxark.calibration.model_file import QualityTerm
from voxark.trials.columns import IdNumbers, read_columns
from voxark.trials.lists import TrialList, check_distinct, find_pairs

_MOST_COLUMNS = 64


@dataclass
class QualityOptions:
    """Which quality measures stand beside the scores; names are separated by commas."""

    quality: str = option(
        "",
        "Quality measures of utterances: tables `<utterance> <value>`, separated by commas, used for both "
        "sides of a trial",
    )
    log_quality: str = option("", "The same, of which the logarithm is used (--log-quality=utt2dur)")
    trial_quality: str = option(
        "", "Quality measures of trials: lists `<enroll-id> <test-id> <value> ...`, separated by commas"
    )

    def open(self):
        """Read all tables: QualityTables."""
        measures = [_UtteranceMeasure.read(name, "identity") for name in split_names(self.quality)]
        measures += [_UtteranceMeasure.read(name, "log") for name in split_names(self.log_quality)]
        measures += [_TrialMeasure.read(name) for name in split_names(self.trial_quality)]
        return QualityTables(measures)


def split_names(text):
    """The file names of a list separated by commas."""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if not all(names):
        raise VoxarkError(f"{text}: an empty name among names separated by commas")
    return names


class QualityTables:
    """The measures: ``terms``, and :meth:`columns` of trials."""

    def __init__(self, measures):
        self._measures = measures
        self.terms = [measure.term for measure in measures]

    def names(self):
        """What each column is, for messages."""
        return term_names(self.terms)

    def columns(self, trials):
        """(N,Q) float64 of a TrialList; VoxarkError names a trial that lacks a measure."""
        found = [column for measure in self._measures for column in measure.columns(trials)]
        return np.stack(found, axis=1) if found else np.empty((len(trials), 0))


def term_names(terms):
    """The names of the columns of QualityTerms."""
    names = []
    for term in terms:
        name = f"log {term.name}" if term.function == "log" else term.name
        if term.per == "utterance":
            names += [f"{name} (enrolment)", f"{name} (test)"]
        else:
            names += (
                [name] if term.columns == 1 else [f"{name} ({place})" for place in range(1, term.columns + 1)]
            )
    return names


def check_terms(model_terms, given_terms):
    """Refuse quality measures that are not, in kind and number, those that a model was trained with."""

    def kinds(terms):
        return [(term.per, term.function, term.columns) for term in terms]

    if kinds(model_terms) != kinds(given_terms):
        wanted = ", ".join(term_names(model_terms)) or "none"
        given = ", ".join(term_names(given_terms)) or "none"
        raise VoxarkError(f"the model was trained with the quality measures: {wanted}; given are: {given}")


# ---------------------------------------------------------------------------------------------- of utterances


class _Side:
    """The values of the ids of one side of trials, looked up once; the list of ids may grow between calls."""

    def __init__(self):
        self._ids, self._values = None, np.empty(0)

    def values(self, table, ids):
        if ids is not self._ids or len(ids) < len(self._values):
            self._ids, self._values = ids, np.empty(0)
        new = ids[len(self._values) :]
        if new:
            found = np.fromiter((table.get(key, np.nan) for key in new), np.float64, len(new))
            self._values = np.concatenate((self._values, found))
        return self._values


@dataclass
class _UtteranceMeasure:
    name: str
    term: QualityTerm
    table: dict
    sides: tuple = field(default_factory=lambda: (_Side(), _Side()))

    @classmethod
    def read(cls, rspecifier, function):
        from voxark import tables

        name = rspecifier if tables.is_specifier(rspecifier) else "ark:" + rspecifier
        with tables.open_reader("float", name) as reader:
            table = {key: _usable(key, value, function, rspecifier) for key, value in reader}
        return cls(rspecifier, QualityTerm(_short(rspecifier), "utterance", function, 2), table)

    def columns(self, trials):
        """The values of both sides of the trials: two columns (N,)."""
        found = []
        for side, ids, numbers in zip(
            self.sides, (trials.enroll_ids, trials.test_ids), (trials.enroll, trials.test)
        ):
            column = side.values(self.table, ids)[numbers]
            missing = np.isnan(column)
            if missing.any():
                bad = len(np.unique(numbers[missing]))
                raise VoxarkError(
                    f"{ids[numbers[np.argmax(missing)]]}: has no quality measure in {self.name}, as {bad} "
                    f"ids of {trials.name}: give every id of the trials a line there, models included"
                )
            found.append(column)
        return found


def _usable(key, value, function, name):
    """The value as it is used, or VoxarkError."""
    if not np.isfinite(value):
        raise VoxarkError(f"{key}: its quality measure in {name} is {value}: a finite number is needed")
    if function == "log" and value <= 0:
        raise VoxarkError(f"{key}: its quality measure in {name} is {value:g}, which has no logarithm")
    return float(np.log(value)) if function == "log" else float(value)


def _short(name):
    """The last part of a file name, for the model file."""
    return os.path.basename(name.strip().rstrip("|").strip())


# -------------------------------------------------------------------------------------------------- of trials


@dataclass
class _TrialMeasure:
    term: QualityTerm
    pairs: TrialList
    values: np.ndarray

    @classmethod
    def read(cls, rxfilename):
        pairs, values = read_pair_values(rxfilename)
        return cls(QualityTerm(_short(rxfilename), "trial", "identity", values.shape[1]), pairs, values)

    def columns(self, trials):
        """The values of the trials: K columns (N,)."""
        return list(values_of(trials, self.pairs, self.values, "quality measure").T)


def read_pair_values(rxfilename):
    """Read lines `<enroll-id> <test-id> <value> ...`: (TrialList of the pairs, finite values (N,K))."""
    layouts = {number + 2: ("id", "id") + ("score",) * number for number in range(1, _MOST_COLUMNS)}
    enroll_ids, test_ids, blocks = IdNumbers(), IdNumbers(), []
    with open_input(rxfilename) as source:
        for enroll, test, *values in read_columns(source, layouts):
            blocks.append((enroll_ids.renumber(*enroll), test_ids.renumber(*test), np.stack(values, axis=1)))
        name = source.name
    enroll, test, values = (np.concatenate(column) for column in zip(*blocks))
    pairs = TrialList(name, enroll_ids.ids, test_ids.ids, enroll, test)
    check_distinct(pairs)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise VoxarkError(f"{name}: the value of {pairs.pair(np.argmax(bad))} is not finite")
    return pairs, values


def values_of(trials, pairs, values, what):
    """The rows (N,K) of the values (M,K) of ``pairs`` for the trials; VoxarkError names a missing one."""
    place = find_pairs(trials, pairs)
    missing = place < 0
    if missing.any():
        first, number = trials.pair(np.argmax(missing)), int(missing.sum())
        raise VoxarkError(f"{first}: has no {what} in {pairs.name}, as {number} trials of {trials.name}")
    return values[place]
