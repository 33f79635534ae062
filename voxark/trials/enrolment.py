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


def enrol_vectors(entries, model_ids, num_utts=None, fail=None):
    """Make models of a table of vectors, one a model.

    Returns an Enrolment and the place in it of each of ``model_ids``, int64, -1 if missing. ``num_utts``:
    dict of the number of utterances of each model, or None. ``fail(key, reason)`` is told of each model that
    has no vector or no number.
    """
    table = collect_vectors(entries, set(model_ids))
    place = table.rows_of(model_ids)
    for key, row in zip(model_ids, place.tolist()):
        if row < 0:
            fail(key, "has no enrolment vector")
    if num_utts is None:
        return Enrolment.of_vectors(table.x), place
    known = [key in num_utts for key in table.keys]
    for key, has_number in zip(table.keys, known):
        if not has_number:
            fail(key, "has no number of utterances")
        elif num_utts[key] < 1:
            raise VoxarkError(f"{key}: its number of utterances is {num_utts[key]}, at least 1 is expected")
    counts = [num_utts[key] for key in table.keys if key in num_utts]
    renumbered = np.append(np.where(known, np.cumsum(known) - 1, -1), -1)
    return Enrolment.of_vectors(table.x[np.array(known, bool)], counts), renumbered[place]


def enrol_sessions(entries, model_ids, sessions, fail):
    """Make models of the vectors of their utterances.

    Returns an Enrolment and the place in it of each of ``model_ids``, int64, -1 if missing. ``sessions``:
    dict of the list of utterances of each model. ``fail(key, reason)`` is told of each model that has none
    and of each utterance without a vector; what is left of a model is enrolled.
    """
    wanted = {utterance for key in model_ids for utterance in sessions.get(key, ())}
    table = collect_vectors(entries, wanted)
    rows = {key: row for row, key in enumerate(table.keys)}
    chosen, place = [], np.full(len(model_ids), -1)
    for number, key in enumerate(model_ids):
        utterances = sessions.get(key, ())
        if len(set(utterances)) < len(utterances):
            raise VoxarkError(f"{key}: the enrolment map gives it an utterance twice")
        for utterance in utterances:
            if utterance not in rows:
                fail(utterance, f"enrolment utterance of {key} has no vector")
        found = [rows[utterance] for utterance in utterances if utterance in rows]
        if found:
            place[number] = len(chosen)
            chosen.append(found)
        else:
            fail(key, "has no enrolment utterance")
    return Enrolment.of_sessions(table.x, chosen), place
