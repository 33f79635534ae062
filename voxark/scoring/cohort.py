"""Cohorts for score normalisation: vectors or score matrices, and that none of them is in the trials."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.backend.vector_table import collect_vectors, number_labels
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.scoring.enrolment import Enrolment, enrol_sessions
from voxark.trials.lists import TrialList
from voxark.scoring.normalize import MatrixScores
from voxark.trials.speakers import speakers_of

logger = logging.getLogger(__name__)


@dataclass
class CohortOptions:
    """Who the members of a cohort are."""

    cohort_utt2spk: str = option(
        "", "Table of the speaker of each cohort vector, to be compared with those of the trials"
    )
    cohort_spk2utt: str = option(
        "", "Table of the utterances of each cohort speaker: the members are speakers, not single vectors"
    )


class Cohort(NamedTuple):
    """C members in the order of their keys, whatever the order of the input.

    As models they are an Enrolment, as tests the vectors ``tests`` (C,D); ``speakers``: list of C names, or
    None if they are not known; ``utterances``: list of what the members were made of.
    """

    keys: list
    models: Enrolment
    tests: np.ndarray
    speakers: list | None
    utterances: list


def read_cohort(rspecifier, options, fail):
    """Read the vectors of a Cohort as CohortOptions say.

    ``fail(key, reason)`` is told of each member and each utterance without a vector of use; the rest is
    taken. VoxarkError for an empty cohort and for a vector without a speaker.
    """
    with tables.open_reader("vec", rspecifier) as vectors:
        if options.cohort_spk2utt:
            cohort = _cohort_of_speakers(vectors, tables.read_table("tokens", options.cohort_spk2utt), fail)
        else:
            table = collect_vectors(vectors, unusable=fail)
            order = sorted(range(len(table.keys)), key=table.keys.__getitem__)
            keys, x = [table.keys[place] for place in order], table.x[order]
            cohort = Cohort(keys, Enrolment.of_vectors(x), x, None, keys)
    if not cohort.keys:
        raise VoxarkError(f"{rspecifier}: the cohort is empty")
    if options.cohort_utt2spk and not options.cohort_spk2utt:
        cohort = cohort._replace(speakers=member_speakers(cohort.keys, options))
    return cohort


def _cohort_of_speakers(vectors, sessions, fail):
    """Members that are speakers: enrolled of their vectors as models, the mean of them as tests."""
    names = sorted(sessions)
    models, place = enrol_sessions(vectors, names, sessions, fail)
    keys = [name for name, row in zip(names, place.tolist()) if row >= 0]
    utterances = [utterance for key in keys for utterance in sessions[key]]
    tests = models.averaged() if keys else models.x
    return Cohort(keys, models, tests, keys, utterances)


def member_speakers(keys, options):
    """The speakers of cohort members by --cohort-utt2spk, or None where it is not given."""
    if not options.cohort_utt2spk:
        return None
    utt2spk = tables.read_table("token", options.cohort_utt2spk)
    missing = [key for key in keys if key not in utt2spk]
    if missing:
        raise VoxarkError(
            f"{options.cohort_utt2spk}: {len(missing)} of {len(keys)} cohort vectors have no speaker there, "
            f"the first is {missing[0]}"
        )
    return [utt2spk[key] for key in keys]


# ----------------------------------------------------------------------------------------------- who is in it


def check_disjoint(cohort_names, cohort_speakers, trials, utterances, options):
    """Refuse a cohort of which a member is in the trials: VoxarkError, with their number and the first.

    ``cohort_names``: keys of members and of their utterances; ``cohort_speakers`` or None; ``trials``: a
    TrialList whose ids count; ``utterances``: what the enrolment models are made of. With ``options``
    (SpeakerOptions) that name the trials' speakers, those are compared too; an id that is itself the name of
    a speaker counts as that speaker. What could not be compared is logged.
    """
    in_trials = {*trials.enroll_ids, *trials.test_ids, *utterances}
    if options.utt2spk:
        in_trials.update(_speakers_of_ids(trials, options))
    _refuse(set(cohort_names) & in_trials, "keys", trials.name)
    if cohort_speakers is not None:
        _refuse(set(cohort_speakers) & in_trials, "speakers", trials.name)
    if cohort_speakers is None or not options.utt2spk:
        missing = [name for name, known in (("--cohort-utt2spk", cohort_speakers is not None),
                                            ("--utt2spk", options.utt2spk)) if not known]  # fmt: skip
        logger.info(
            "without %s it is not checked that no cohort speaker is in the trials, only that no key is",
            " and ".join(missing),
        )


def _refuse(shared, what, name):
    if shared:
        raise VoxarkError(
            f"{min(shared)}: is in the cohort and in the trials of {name} ({len(shared)} such {what}): "
            "normalisation needs a cohort of other speakers"
        )


def _speakers_of_ids(trials, options):
    """Names of the speakers of all ids of a list, its trials set aside."""
    number = max(len(trials.enroll_ids), len(trials.test_ids))
    enroll, test = (np.arange(number) % len(ids) for ids in (trials.enroll_ids, trials.test_ids))
    return speakers_of(
        TrialList(trials.name, trials.enroll_ids, trials.test_ids, enroll, test), options
    ).names


def cohort_groups(row_keys, column_keys, options):
    """Numbers (N,), (C,) of the speakers (without them, of the keys) of rows and columns of cohort scores."""
    keys = [*row_keys, *column_keys]
    numbers, _ = number_labels(member_speakers(keys, options) or keys)
    return numbers[: len(row_keys)], numbers[len(row_keys) :]


# --------------------------------------------------------------------------------------------- score matrices


class CohortMatrix(NamedTuple):
    """Scores (N,C) of ``keys`` with the cohort ``members``, whose order is that of their keys."""

    keys: list
    members: list
    scores: np.ndarray

    def source(self):
        """The scores as what voxark.scoring.normalize takes."""
        return MatrixScores(self.scores, self.keys)


def cohort_matrix(blocks, ids, name, rows_only=False):
    """Collect the scores of ``ids`` (a set) with a cohort: a CohortMatrix of those that are there.

    ``blocks``: iterator over (row keys, column keys, scores (n,m)), as voxark.scoring.dense reads them. The
    ids are rows and the members of the cohort columns, or, where a column is one of the ids and unless
    ``rows_only``, the other way round. VoxarkError where none of the ids is there, and for a key that is
    there twice.
    """
    rows, parts, columns, transposed = [], [], [], False
    for block_rows, columns, block in blocks:
        if not rows:
            transposed = not rows_only and not ids.isdisjoint(columns)
        kept = range(len(block_rows)) if transposed else [i for i, key in enumerate(block_rows) if key in ids]
        rows += [block_rows[i] for i in kept]
        parts.append(np.asarray(block)[kept])
    scores = np.concatenate(parts) if parts else np.empty((0, 0))
    if transposed:
        rows, columns, scores = columns, rows, scores.T
    for keys in (rows, columns):
        if len(set(keys)) < len(keys):
            raise VoxarkError(f"{name}: the key {_repeated(keys)} is there twice")
    kept = [row for row, key in enumerate(rows) if key in ids]
    if not kept:
        raise VoxarkError(f"{name}: holds no scores of the ids that are wanted, as rows or as columns")
    order = sorted(range(len(columns)), key=columns.__getitem__)
    return CohortMatrix([rows[row] for row in kept], [columns[i] for i in order], scores[np.ix_(kept, order)])


def _repeated(keys):
    seen = set()
    return next(key for key in keys if key in seen or seen.add(key))
