"""The two sides of trials that are to be made: utterances or models of several, with speakers and labels.

Everything is numbered in the sorted order of the ids, so that nothing depends on the order of lines.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)


@dataclass
class ModelOptions:
    """How models of several utterances are made."""

    num_enroll: int = option(
        0, "Enrol models of so many utterances each; 0: every utterance is enrolled by itself"
    )
    models_per_speaker: int = option(
        1, "--num-enroll: how many models of a speaker at most, of different utterances"
    )

    def check(self):
        """VoxarkError for numbers that make no models."""
        if self.num_enroll < 0 or self.models_per_speaker < 1:
            raise VoxarkError("--num-enroll is at least 0 and --models-per-speaker at least 1")
        if self.models_per_speaker > 1 and not self.num_enroll:
            raise VoxarkError("--models-per-speaker needs --num-enroll: how many utterances a model has")


class Utterances(NamedTuple):
    """N utterances, sorted by id, with what decides which of them may form trials.

    speaker (N,): numbers of ``speaker_names``, which are sorted. same (N,): number of the values of all
    labels that must agree; -1 where one is missing. different (N,L): numbers of the values of each label that
    must differ; -1 where it is missing.
    """

    ids: list
    speaker_names: list
    speaker: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def numbers_of(self, ids):
        """The sorted numbers of some of the utterances (n,)."""
        return np.searchsorted(np.array(self.ids, object), np.array(sorted(ids), object)).astype(np.int64)


def gather_utterances(utt2spks, same=(), different=(), fail=None):
    """All utterances of some dicts utterance -> speaker, labelled.

    ``same``, ``different``: pairs (name, dict) of the labels that must agree and that must differ, by
    utterance or by speaker. ``fail(key, reason)`` is told of each utterance that lacks a label.
    """
    utt2spk = {}
    for table in utt2spks:
        for utt, speaker in table.items():
            if utt2spk.setdefault(utt, speaker) != speaker:
                raise VoxarkError(
                    f"{utt} is of speaker {utt2spk[utt]} for the enrolment, of {speaker} for the tests"
                )
    ids = sorted(utt2spk)
    names, speaker = _numbered([utt2spk[utt] for utt in ids])
    columns = [_label_column(ids, utt2spk, name, table, fail) for name, table in same]
    strata = np.zeros(len(ids), np.int64)
    for column in columns:
        strata = np.where((strata < 0) | (column < 0), -1, strata * (column.max(initial=0) + 1) + column)
        known = strata >= 0  # renumbered at each table, so that the product cannot overflow
        strata[known] = np.unique(strata[known], return_inverse=True)[1]
    others = [_label_column(ids, utt2spk, name, table, fail) for name, table in different]
    columns = np.stack(others, axis=1) if others else np.empty((len(ids), 0), np.int64)
    return Utterances(ids, names, speaker, strata, columns)


def _numbered(values):
    """The distinct values, sorted, and the number of each value among them."""
    names = sorted(set(values))
    number = {name: i for i, name in enumerate(names)}
    return names, np.fromiter((number[value] for value in values), np.int64, len(values))


def _label_column(ids, utt2spk, name, table, fail):
    """Numbers (N,) of the utterances' values in a table by utterance or by speaker; -1 where it has none."""
    values = [table.get(utt, table.get(utt2spk[utt])) for utt in ids]
    if all(value is None for value in values):
        raise VoxarkError(f"{name}: has no label of any utterance or speaker of the lists")
    for utt, value in zip(ids, values):
        if value is None:
            fail(utt, f"neither it nor its speaker {utt2spk[utt]} has a label in {name}")
    known = sorted({value for value in values if value is not None})
    number = {value: i for i, value in enumerate(known)}
    return np.fromiter((number.get(value, -1) for value in values), np.int64, len(values))


class Side(NamedTuple):
    """What stands on one side of trials: U sorted ids, of n utterances each.

    speaker (U,), utterances (U,n): numbers as in :class:`Utterances`; same (U,): -1 where labels are missing
    or the utterances of a model disagree; different (U,n,L).
    """

    ids: list
    speaker: np.ndarray
    utterances: np.ndarray
    same: np.ndarray
    different: np.ndarray

    @classmethod
    def of(cls, everything, ids, utterances):
        """Of ids (U, sorted) and the numbers of their utterances (U,n) in ``everything``."""
        same = everything.same[utterances]
        agreed = np.where((same == same[:, :1]).all(axis=1), same[:, 0], -1)
        return cls(
            ids,
            everything.speaker[utterances[:, 0]],
            utterances,
            agreed,
            everything.different[utterances],
        )


def utterance_side(everything, numbers):
    """Every utterance stands for itself; ``numbers`` (U,) ascend."""
    return Side.of(everything, [everything.ids[n] for n in numbers], numbers[:, None])


def model_side(everything, models):
    """Of models as :func:`make_models` gives them."""
    if not models:
        raise VoxarkError("no speaker has utterances enough for a model: lower --num-enroll")
    side = Side.of(everything, list(models), np.stack(list(models.values())))
    num_mixed = int(np.sum(side.same < 0))
    if num_mixed:
        logger.warning(
            "%d of %d models take no part: their labels differ or are missing", num_mixed, len(models)
        )
    return side


def make_models(everything, enroll, options, srand, keep_test):
    """Choose the utterances of models: {model id: numbers (n,) ascending}, sorted by model id.

    A speaker's utterances are shuffled, by ``srand`` and the speaker's name alone, and their models are made of
    them in turn: ``options.num_enroll`` each, so that no utterance is in two. ``enroll`` (U,): the numbers of
    the utterances to choose from. With ``keep_test`` at least one utterance of each speaker is left for
    testing. A model's id is the speaker's name, or, with more models of a speaker, that and a number. A
    speaker with too few utterances has fewer models, or none.
    """
    num_enroll, most = options.num_enroll, options.models_per_speaker
    by_speaker = enroll[np.argsort(everything.speaker[enroll], kind="stable")]
    edges = np.flatnonzero(np.diff(everything.speaker[by_speaker])) + 1
    models, num_none, num_fewer = {}, 0, 0
    for numbers in np.split(by_speaker, edges):
        name = everything.speaker_names[everything.speaker[numbers[0]]]
        number = min(most, (len(numbers) - bool(keep_test)) // num_enroll)
        num_none += number == 0
        num_fewer += 0 < number < most
        shuffled = seeded_rng(srand, "enrolment", name).permutation(numbers)
        for place in range(number):
            model = name if most == 1 else f"{name}-{place + 1}"
            if model in models:
                raise VoxarkError(f"two models would be called {model}: rename a speaker")
            models[model] = np.sort(shuffled[place * num_enroll : (place + 1) * num_enroll])
    if num_none or num_fewer:
        logger.warning(
            "%d speakers have too few utterances for any model of %d, %d for %d models; the rest is tested",
            num_none, num_enroll, num_fewer, most,
        )  # fmt: skip
    return dict(sorted(models.items()))
