"""Who speaks on the two sides of each trial."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class SpeakerOptions:
    """Where the speakers of the trials' ids stand."""

    utt2spk: str = option("", "Table of the speaker of each utterance (ark:data/test/utt2spk, or the name of a file)")
    enroll_utt2spk: str = option(
        "",
        "Table of the speaker of each enrolment id, if --utt2spk does not have them; ids that are names of "
        "speakers need none",
    )


class TrialSpeakers(NamedTuple):
    """Speakers of N trials: names[enroll[p]] enrolled, names[test[p]] spoke in the test.

    enroll, test (N,) integers; ``names``: the speakers of these trials alone, sorted, so that what is drawn
    for each of them does not depend on the order of the trials.
    """

    enroll: np.ndarray
    test: np.ndarray
    names: list

    @classmethod
    def of_names(cls, enroll, test):
        """Of the speakers' names of both sides of the trials, two sequences of N strings."""
        both = np.concatenate((np.asarray(enroll), np.asarray(test)))
        names, numbers = np.unique(both, return_inverse=True)
        return cls(numbers[: len(enroll)], numbers[len(enroll) :], names.tolist())

    def select(self, chosen):
        """The speakers of the trials at ``chosen`` (indices or a mask), numbered anew."""
        enroll, test = self.enroll[chosen], self.test[chosen]
        used = np.zeros(len(self.names), bool)
        used[enroll] = used[test] = True
        number = np.cumsum(used) - 1
        return TrialSpeakers(number[enroll], number[test], [n for n, keep in zip(self.names, used) if keep])


def speakers_of(trials, options):
    """TrialSpeakers of a TrialList, by the tables that SpeakerOptions name.

    An id without a speaker, and a label that the speakers contradict, is a VoxarkError.
    """
    if not options.utt2spk:
        raise VoxarkError("--utt2spk=<table> is needed: the speaker of each utterance")
    utt2spk = tables.read_table("token", options.utt2spk)
    enroll_table = {**utt2spk, **(tables.read_table("token", options.enroll_utt2spk) if options.enroll_utt2spk else {})}
    for speaker in list(enroll_table.values()):
        enroll_table.setdefault(speaker, speaker)
    enroll_option = "--enroll-utt2spk" if options.enroll_utt2spk else "--utt2spk (or --enroll-utt2spk)"
    used = np.unique(trials.enroll), np.unique(trials.test)
    enroll = _look_up(trials.name, trials.enroll_ids, used[0], enroll_table, "enrolment", enroll_option)
    test = _look_up(trials.name, trials.test_ids, used[1], utt2spk, "test", "--utt2spk")
    # numbers by sorted name, of the ids first: there are far fewer ids than trials
    names = sorted((set(enroll) | set(test)) - {None})
    number = {name: place for place, name in enumerate(names)}
    number[None] = -1
    speakers = TrialSpeakers(
        np.array([number[name] for name in enroll])[trials.enroll],
        np.array([number[name] for name in test])[trials.test],
        names,
    )
    if trials.target is not None:
        check_labels(trials, speakers)
    return speakers


def _look_up(name, ids, used, table, side, option_name):
    """The speakers of ``ids``, None for ids that no trial uses; the first used id without one is named."""
    missing = [ids[i] for i in used.tolist() if ids[i] not in table]
    if missing:
        raise VoxarkError(
            f"{missing[0]}: {side} id of {name} without a speaker; {option_name} must give one "
            f"({len(missing)} of {len(used)} {side} ids have none)"
        )
    speakers = [None] * len(ids)
    for i in used.tolist():
        speakers[i] = table[ids[i]]
    return speakers


def check_labels(trials, speakers):
    """Raise VoxarkError where labels and speakers contradict each other, with counts and the first trial."""
    same = speakers.enroll == speakers.test
    for label, wrong, what in (
        ("target", trials.target & ~same, "two speakers"),
        ("nontarget", ~trials.target & same, "one speaker"),
    ):
        if wrong.any():
            first = int(np.argmax(wrong))
            of_both = {speakers.names[side[first]] for side in (speakers.enroll, speakers.test)}
            raise VoxarkError(
                f"{trials.name}: {np.sum(wrong)} {label} trials are of {what}, the first is "
                f"'{trials.pair(first)}' of {' and '.join(sorted(of_both))}: the labels or the speakers "
                "are wrong"
            )
