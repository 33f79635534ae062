"""Enrolment: models made of the vectors of one or more sessions."""

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from voxark.backend.vector_table import collect_vectors
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class EnrolmentOptions:
    """How models come about and how several sessions of one are scored."""

    enroll: Literal["book", "mean", "score-mean"] = option(
        "mean",
        "Several sessions of a model: score their mean as one session, score it as of n sessions (PLDA by "
        "the book), or average the scores of the sessions",
    )
    enroll_map: str = option(
        "", "Table of the utterances of each model (spk2utt), whose vectors are then enrolled"
    )
    num_utts: str = option(
        "",
        "Table of the number of utterances that each enrolment vector is the mean of (gives "
        "--enroll=book)",
    )
    average_after_norm: bool = option(
        False,
        "Average the sessions of a model after the normalisation of their length, not before as Kaldi does",
    )

    def mode(self):
        """The way of scoring: "mean", "book" or "score-mean"; VoxarkError for options that contradict."""
        if not self.num_utts:
            if self.enroll == "book" and not self.enroll_map:
                logger.warning(
                    "--enroll=book without --num-utts or --enroll-map: every model counts as one session"
                )
            return self.enroll
        if self.enroll_map:
            raise VoxarkError(
                "--num-utts and --enroll-map exclude each other: the map says how many utterances there are"
            )
        if self.enroll == "score-mean":
            raise VoxarkError(
                "--enroll=score-mean needs the sessions (--enroll-map), --num-utts says they are averaged"
            )
        return "book"


class Enrolment(NamedTuple):
    """Models of one or more session vectors.

    x (P,D): the sessions' vectors, those of model i in the rows starts[i] to starts[i+1]; counts (M,): the
    number of vectors that each model stands for, more than its rows where x holds means already.
    """

    x: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_vectors(cls, x, counts=None):
        """Each row of x (M,D) is a model, the mean of counts[i] vectors (1 by default)."""
        return cls(x, np.arange(len(x)), np.ones(len(x), np.int64) if counts is None else np.asarray(counts))

    @classmethod
    def of_sessions(cls, x, sessions):
        """Model i is made of the rows sessions[i] of x (P,D), a list of row numbers that is not empty."""
        counts = np.array([len(rows) for rows in sessions], np.int64)
        flat = np.fromiter((row for rows in sessions for row in rows), np.int64, counts.sum())
        return cls(x[flat], np.cumsum(counts) - counts, counts)

    def averaged(self, x=None):
        """The mean (M,D) float64 of each model's rows of x (P,D), by default of the vectors themselves."""
        x = self.x if x is None else x
        rows = np.diff(np.append(self.starts, len(x)))
        return np.add.reduceat(x, self.starts, axis=0, dtype=np.float64) / rows[:, None]


# ---------------------------------------------------------------------------------------------- from tables


class Side(NamedTuple):
    """One side of trials, models or tests, by key.

    ``numbers``: key -> its number, in the order of the table; ``complaints``: key -> list of (key, reason) of
    what is wrong with it or with its sessions; ``absent``: what there is to say of a key that is in neither.
    """

    numbers: dict
    complaints: dict
    absent: str

    def keys(self):
        """All keys of the table, those that cannot be scored at the end."""
        return list(dict.fromkeys([*self.numbers, *self.complaints]))

    def numbers_of(self, keys, fail):
        """The number (len(keys),) int64 of each key, -1 if missing; ``fail(key, reason)`` is told why."""
        numbers = np.fromiter((self.numbers.get(key, -1) for key in keys), np.int64, len(keys))
        if self.complaints or (numbers < 0).any():
            for key, number in zip(keys, numbers.tolist()):
                complaints = self.complaints.get(key, [(key, self.absent)] if number < 0 else ())
                for complaint in complaints:
                    fail(*complaint)
        return numbers


class Sides(NamedTuple):
    """Both sides of trials: models as an Enrolment with their keys, test vectors (T,D) with theirs."""

    enrolment: Enrolment
    models: Side
    tests: np.ndarray
    test_side: Side


def read_sides(enroll_rspecifier, test_rspecifier, options, model_ids=None, test_ids=None):
    """Read the vectors of both sides: those of ``model_ids`` and ``test_ids``, or all; returns Sides.

    Where both names are the same, the table is read, and held, once. A vector that is empty or holds NaN or
    infinities counts as missing; another dimension than that of the first vector is a VoxarkError.
    """
    from voxark import tables

    sessions = tables.read_table("tokens", options.enroll_map) if options.enroll_map else None
    num_utts = tables.read_table("int", options.num_utts) if options.num_utts else None
    wanted_models = _utterances(model_ids, sessions)
    wanted_tests = None if test_ids is None else set(test_ids)
    if enroll_rspecifier.strip() == test_rspecifier.strip():
        whole = None in (wanted_models, wanted_tests)
        table = _read_vectors(test_rspecifier, None if whole else wanted_models | wanted_tests)
        models, tests = table.restricted(wanted_models), table.restricted(wanted_tests)
    else:
        models = _read_vectors(enroll_rspecifier, wanted_models)
        tests = _read_vectors(test_rspecifier, wanted_tests)
    if sessions is not None:
        enrolment, side = _enrol_sessions(models, sessions if model_ids is None else model_ids, sessions)
    else:
        enrolment, side = _enrol_vectors(models, num_utts)
    return Sides(enrolment, side, tests.x, tests.side("has no test vector"))


def enrol_sessions(entries, model_ids, sessions, fail):
    """Make models of the vectors of their utterances.

    Returns an Enrolment and the place in it of each of ``model_ids``, int64, -1 if missing. ``sessions``:
    dict of the list of utterances of each model. ``fail(key, reason)`` is told of each model that has none
    and of each utterance without a vector; what is left of a model is enrolled.
    """
    vectors = _collect(entries, _utterances(model_ids, sessions))
    enrolment, side = _enrol_sessions(vectors, model_ids, sessions)
    return enrolment, side.numbers_of(model_ids, fail)


class _Vectors(NamedTuple):
    """Vectors x (N,D) by key, and why others of the table are of no use."""

    keys: list
    x: np.ndarray
    unusable: dict

    def restricted(self, wanted):
        """The vectors of the keys ``wanted`` (None: all), not copied where that is all of them."""
        if wanted is None or all(key in wanted for key in self.keys):
            return self
        rows = [row for row, key in enumerate(self.keys) if key in wanted]
        return _Vectors([self.keys[row] for row in rows], self.x[rows], self.unusable)

    def side(self, absent):
        """As a Side."""
        return Side({key: row for row, key in enumerate(self.keys)},
                    {key: [(key, reason)] for key, reason in self.unusable.items()}, absent)


def _read_vectors(rspecifier, wanted):
    from voxark import tables

    with tables.open_reader("vec", rspecifier) as reader:
        return _collect(reader, wanted)


def _collect(entries, wanted):
    unusable = {}
    table = collect_vectors(entries, wanted, unusable=unusable.__setitem__)
    return _Vectors(table.keys, table.x, unusable)


def _utterances(model_ids, sessions):
    """The set of the utterances whose vectors models need; None for all of the table."""
    if model_ids is None and sessions is None:
        return None
    if sessions is None:
        return set(model_ids)
    ids = sessions if model_ids is None else model_ids
    return {utterance for key in ids for utterance in sessions.get(key, ())}


def _enrol_vectors(vectors, num_utts):
    """Models that are one vector each, the mean of ``num_utts[key]`` vectors if that is given."""
    side = vectors.side("has no enrolment vector")
    if num_utts is None:
        return Enrolment.of_vectors(vectors.x), side
    known = [row for row, key in enumerate(vectors.keys) if key in num_utts]
    keys = [vectors.keys[row] for row in known]
    counts = [num_utts[key] for key in keys]
    for key, count in zip(keys, counts):
        if count < 1:
            raise VoxarkError(f"{key}: its number of utterances is {count}, at least 1 is expected")
    lacking = {key: [(key, "has no number of utterances")] for key in vectors.keys if key not in num_utts}
    x = vectors.x if len(known) == len(vectors.keys) else vectors.x[known]
    return Enrolment.of_vectors(x, counts), Side(
        {key: number for number, key in enumerate(keys)}, {**side.complaints, **lacking}, side.absent)


def _enrol_sessions(vectors, model_ids, sessions):
    """Models made of the vectors of their utterances; what is left of a model is enrolled."""
    rows = {key: row for row, key in enumerate(vectors.keys)}
    chosen, numbers, complaints = [], {}, {}
    for key in model_ids:
        utterances = sessions.get(key, ())
        if len(set(utterances)) < len(utterances):
            raise VoxarkError(f"{key}: the enrolment map gives it an utterance twice")
        wrong = [
            (utterance, f"enrolment utterance of {key} {vectors.unusable.get(utterance, 'has no vector')}")
            for utterance in utterances
            if utterance not in rows
        ]
        found = [rows[utterance] for utterance in utterances if utterance in rows]
        if found:
            numbers[key] = len(chosen)
            chosen.append(found)
        else:
            wrong.append((key, "has no enrolment utterance"))
        if wrong:
            complaints[key] = wrong
    return Enrolment.of_sessions(vectors.x, chosen), Side(numbers, complaints, "has no enrolment utterance")
