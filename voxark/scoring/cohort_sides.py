"""Both sides of trials with their cohort scores, from vectors or score matrices, for a Normalizer."""

from dataclasses import dataclass

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.scoring.cohort import (
    check_disjoint,
    cohort_groups,
    cohort_matrix,
    member_speakers,
    read_cohort,
)
from voxark.scoring.enrolment import read_sides
from voxark.scoring.normalize import (
    ENROLL_ONLY,
    TEST_ONLY,
    MatrixScores,
    ModelScores,
    TestScores,
    other_speakers_statistics,
)


@dataclass
class CohortSides:
    """Cohort scores of enrolment models and of tests, and the row in them of each id of a list (-1: missing).

    What a method has no use for is None. ``of_members``: the Statistics that zt-norm needs.
    """

    enroll: object = None
    enroll_rows: np.ndarray | None = None
    test: object = None
    test_rows: np.ndarray | None = None
    of_members: object = None

    @property
    def num_cohort(self):
        """The number of members, the larger of the two sides' if they differ."""
        return max(source.num_cohort for source in (self.enroll, self.test) if source is not None)

    def rows_of(self, trials):
        """(mask of the trials of a TrialList that lack nothing, rows of their models, rows of their tests).

        Rows are None where the method has no use for them.
        """
        kept, found = np.ones(len(trials), bool), []
        for rows, numbers in ((self.enroll_rows, trials.enroll), (self.test_rows, trials.test)):
            found.append(None if rows is None else rows[numbers])
            if rows is not None:
                kept &= found[-1] >= 0
        return kept, *(None if rows is None else rows[kept] for rows in found)


# ----------------------------------------------------------------------------------------------- from vectors


def sides_of_vectors(trials, rspecifiers, make_terms, method, enrolment, members, speakers, fail):
    """CohortSides of the ids of a TrialList, by the scores that a back-end gives to vectors.

    ``rspecifiers``: of enrolment, test and cohort vectors; ``make_terms``: what
    voxark.scoring.backends.open_backend returns; ``enrolment``, ``members`` and ``speakers``:
    EnrolmentOptions, CohortOptions and SpeakerOptions; ``fail(key, reason)`` is told of what is missing.
    VoxarkError for a cohort that is not of other speakers.
    """
    enroll_rspecifier, test_rspecifier, cohort_rspecifier = rspecifiers
    cohort = read_cohort(cohort_rspecifier, members, fail)
    sessions = tables.read_table("tokens", enrolment.enroll_map) if enrolment.enroll_map else {}
    utterances = [utterance for key in trials.enroll_ids for utterance in sessions.get(key, ())]
    check_disjoint([*cohort.keys, *cohort.utterances], cohort.speakers, trials, utterances, speakers)
    mode = enrolment.mode()

    def terms(models, tests):
        return make_terms(models, tests, mode, enrolment.average_after_norm)

    vectors = read_sides(enroll_rspecifier, test_rspecifier, enrolment, trials.enroll_ids, trials.test_ids)
    sides = CohortSides()
    if method not in TEST_ONLY:
        sides.enroll_rows = vectors.models.numbers_of(trials.enroll_ids, fail)
    if method not in ENROLL_ONLY:
        sides.test_rows = vectors.test_side.numbers_of(trials.test_ids, fail)
    for rows, side, name in ((sides.enroll_rows, "enrolment", enroll_rspecifier),
                             (sides.test_rows, "test", test_rspecifier)):  # fmt: skip
        if rows is not None and (rows < 0).all():
            raise VoxarkError(f"{name}: none of the {len(rows)} {side} ids of {trials.name} is there")
    if sides.enroll_rows is not None:
        sides.enroll = ModelScores(terms(vectors.enrolment, cohort.tests), list(vectors.models.numbers))
    if sides.test_rows is not None:
        sides.test = TestScores(terms(cohort.models, vectors.tests), list(vectors.test_side.numbers))
    if method == "zt":
        groups = np.unique(cohort.speakers or cohort.keys, return_inverse=True)[1]
        scores = ModelScores(terms(cohort.models, cohort.tests), cohort.keys)
        sides.of_members = other_speakers_statistics(scores, groups, groups)
    return sides


# ---------------------------------------------------------------------------------------------- from matrices


@dataclass
class MatrixOptions:
    """Scores with a cohort that are there already, each a text as MatrixFiles takes it."""

    enroll_cohort: str = option("", "Scores of the enrolment models with the cohort, in place of vectors")
    test_cohort: str = option("", "Scores of the tests with the cohort, in place of vectors")
    cohort_cohort: str = option("", "Scores of the cohort with itself, for --method=zt without vectors")

    def files(self):
        """MatrixFiles of the enrolment side, the test side and the cohort; None where not given."""
        return [
            MatrixFiles(text, name) if text else None
            for text, name in (
                (self.enroll_cohort, "--enroll-cohort"),
                (self.test_cohort, "--test-cohort"),
                (self.cohort_cohort, "--cohort-cohort"),
            )
        ]


class MatrixFiles:
    """The names of a score matrix and of the lists of its keys, as one option gives them.

    The text is `<matrix-rspecifier> <row-keys> <column-keys>`, as score-trials --dense writes the three.
    """

    def __init__(self, text, name):
        words = text.rsplit(maxsplit=2)
        if len(words) != 3:
            raise VoxarkError(f"{name}={text!r}: '<matrix-rspecifier> <row-keys> <column-keys>' is expected")
        self.name, self.row_keys, self.column_keys = words

    def blocks(self):
        """Iterate over (row keys, column keys, scores) of the blocks of the matrix."""
        from voxark.scoring.dense import read_dense

        return read_dense(self.name, self.row_keys, self.column_keys)


def _report(ids, place, reason, fail):
    for number in np.flatnonzero(place < 0):
        fail(ids[number], reason)


def sides_of_matrices(trials, enroll, test, cohort, method, members, speakers, fail):
    """CohortSides of the ids of a TrialList from score matrices, given as MatrixFiles (None: not given).

    ``cohort``: the scores of the test side's members (rows) with a cohort (columns), for zt. ``members``,
    ``speakers`` and ``fail`` as of sides_of_vectors. VoxarkError for a matrix that the method needs and has
    not, for sides with different cohorts where the method needs one, and for a cohort that is not of other
    speakers.
    """
    _require_matrices(enroll, test, cohort, method)
    sides, cohorts = CohortSides(), {}
    for side, files, skip, ids in (
        ("enroll", enroll, TEST_ONLY, trials.enroll_ids),
        ("test", test, ENROLL_ONLY, trials.test_ids),
    ):
        if method in skip:
            continue
        found = cohort_matrix(files.blocks(), set(ids), files.name)
        check_disjoint(found.members, member_speakers(found.members, members), trials, (), speakers)
        cohorts[side] = found
        rows = {key: row for row, key in enumerate(found.keys)}
        place = np.fromiter((rows.get(key, -1) for key in ids), np.int64, len(ids))
        _report(ids, place, f"has no scores with the cohort in {files.name}", fail)
        setattr(sides, side, MatrixScores(found.scores, found.keys))
        setattr(sides, f"{side}_rows", place)
    if method in ("as2", "zt") and cohorts["enroll"].members != cohorts["test"].members:
        _raise_different(cohorts["enroll"].members, cohorts["test"].members, method)
    if method == "zt":
        sides.of_members = _member_statistics(cohort, cohorts["test"].members, members)
    return sides


def _require_matrices(enroll, test, cohort, method):
    """Refuse the lack of a matrix that the method needs, and one that it has no use for."""
    for files, name, needed in (
        (enroll, "--enroll-cohort", method not in TEST_ONLY),
        (test, "--test-cohort", method not in ENROLL_ONLY),
        (cohort, "--cohort-cohort", method == "zt"),
    ):
        if needed != (files is not None):
            raise VoxarkError(f"--method={method} {'needs' if needed else 'has no use for'} {name}")


def _member_statistics(files, models, options):
    found = cohort_matrix(files.blocks(), set(models), files.name, rows_only=True)
    rows = {key: row for row, key in enumerate(found.keys)}
    missing = [key for key in models if key not in rows]
    if missing:
        raise VoxarkError(
            f"{files.name}: {len(missing)} members of the cohort have no row, the first is {missing[0]}"
        )
    scores = MatrixScores(found.scores[[rows[key] for key in models]], models)
    return other_speakers_statistics(scores, *cohort_groups(models, found.members, options))


def _raise_different(enroll, test, method):
    different = sorted(set(enroll) ^ set(test))
    raise VoxarkError(
        f"--method={method} needs one cohort for both sides: {len(different)} members score with one side "
        f"only, the first is {different[0]}"
    )
