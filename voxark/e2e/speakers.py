"""Who trains and who is held out: utterances joined with their speakers, split by speaker and by utterance.

Draws depend on --srand and the name of the speaker or the utterance alone: a split stays when data come in
another order, and a speaker who is added moves nobody else.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import draw
from voxark.trials.lists import TrialList, read_trials
from voxark.trials.make import Pairs, SamplingOptions, trial_blocks
from voxark.trials.make_sides import gather_utterances, utterance_side

logger = logging.getLogger(__name__)


@dataclass
class DevOptions:
    """What the training is judged on."""

    dev_feats: str = option(
        "",
        "Features of utterances of other speakers, to judge each epoch on (default: a split "
        "of the training data by speaker)",
    )
    dev_utt2spk: str = option(
        "", "Speakers of --dev-feats; all pairs of utterances are trials, up to --dev-max-trials of a kind"
    )
    dev_trials: str = option("", "Labelled trials between utterances of --dev-feats, in place of all pairs")
    dev_share: float = option(
        0.1, "Without --dev-feats: this share of the training speakers is held out (at least 2)"
    )
    dev_max_trials: int = option(
        200000, "Most target, and most nontarget, trials that are drawn of all pairs"
    )
    dev_max_frames: int = option(3000, "Longer utterances of the development set are cut to so many frames")
    heldout_share: float = option(
        0.05,
        "This share of the utterances of training speakers with at least 3 is held out, "
        "to measure identification on",
    )
    heldout_max: int = option(1000, "At most so many utterances are held out for identification")

    def check(self):
        """VoxarkError for options that contradict, or shares that are none."""
        if self.dev_feats and not (self.dev_utt2spk or self.dev_trials):
            raise VoxarkError("--dev-feats needs --dev-utt2spk or --dev-trials: who is who")
        if not self.dev_feats and (self.dev_utt2spk or self.dev_trials):
            raise VoxarkError("--dev-utt2spk and --dev-trials need --dev-feats")
        if not 0.0 < self.dev_share < 1.0 or not 0.0 <= self.heldout_share < 1.0:
            raise VoxarkError("--dev-share lies between 0 and 1, --heldout-share from 0 to below 1")
        if self.dev_max_trials < 1 or self.dev_max_frames < 1 or self.heldout_max < 0:
            raise VoxarkError(
                "--dev-max-trials and --dev-max-frames are at least 1, --heldout-max at least 0"
            )


class Labelled(NamedTuple):
    """Utterances of an index with speakers: numbers (N,) into the index, speaker (N,) into ``names``."""

    numbers: np.ndarray
    speaker: np.ndarray
    names: list

    def select(self, chosen):
        """The utterances at ``chosen`` (a mask (N,)); the speakers left are numbered anew, in order."""
        present, speaker = np.unique(self.speaker[chosen], return_inverse=True)
        return Labelled(self.numbers[chosen], speaker, [self.names[number] for number in present])


def read_utt2spk(rspecifier):
    """Return {utterance: speaker} of a table, or of a plain file name."""
    with tables.open_reader(
        "token", rspecifier if tables.is_specifier(rspecifier) else f"ark:{rspecifier}"
    ) as reader:
        utt2spk = dict(reader)
    if not utt2spk:
        raise VoxarkError(f"{rspecifier}: the table is empty")
    return utt2spk


def label(index, utt2spk, min_length, fail):
    """Labelled utterances of an index; ``fail(key, reason)`` is told of those that cannot take part.

    ``index`` has ``keys`` and ``lengths``; utterances are in the order of their keys, whatever the order in
    the index, and speakers in that of their names. VoxarkError if none is left.
    """
    names = sorted(set(utt2spk.values()))
    number_of = {name: number for number, name in enumerate(names)}
    lengths, keys = np.asarray(index.lengths), list(index.keys)
    rows = []
    for number, key in enumerate(keys):
        if key not in utt2spk:
            fail(key, "has no speaker in utt2spk")
        elif lengths[number] < min_length:
            fail(key, f"is too short: {lengths[number]} frames")
        else:
            rows.append(number)
    present = set(keys)
    for key in utt2spk:
        if key not in present:
            fail(key, "has no features")
    if not rows:
        raise VoxarkError("no utterance has both features and a speaker")
    rows.sort(key=keys.__getitem__)
    numbers = np.array(rows, np.int64)
    everyone = Labelled(numbers, np.array([number_of[utt2spk[keys[row]]] for row in rows], np.int64), names)
    return everyone.select(np.ones(len(rows), bool))


def split_speakers(everyone, share, srand):
    """(rest, held out): Labelled, the second of ``share`` of the speakers, those with the smallest draws.

    Speakers of one utterance give no target trial and stay; at least 2 are held out. VoxarkError when that
    leaves fewer than 2 to train on.
    """
    counts = np.bincount(everyone.speaker, minlength=len(everyone.names))
    able = np.flatnonzero(counts >= 2)
    number = max(2, round(share * len(everyone.names)))
    if len(able) < 2 or len(everyone.names) - number < 2:
        raise VoxarkError(
            f"{len(everyone.names)} speakers, {len(able)} with two utterances or more: too few to hold "
            f"{number} out for "
            "development and train on the rest; give --dev-feats and --dev-utt2spk, or more speakers"
        )
    draws = np.array([draw(srand, "dev", everyone.names[speaker]) for speaker in able])
    chosen = able[np.argsort(draws, kind="stable")[:number]]
    held = np.isin(everyone.speaker, chosen)
    return everyone.select(~held), everyone.select(held)


def hold_utterances_out(training, keys, options, srand):
    """A mask (N,) of the utterances of training speakers that identification is measured on.

    Only of speakers with at least 3, of whom 2 stay.
    """
    draws = np.array([draw(srand, "heldout", keys[number]) for number in training.numbers])
    counts = np.bincount(training.speaker, minlength=len(training.names))
    order = np.lexsort((draws, training.speaker))  # by speaker, then by draw
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(draws), np.int64)
    rank[order] = np.arange(len(draws)) - first[training.speaker[order]]
    held = (draws < options.heldout_share) & (rank < counts[training.speaker] - 2)
    if held.sum() > options.heldout_max:
        held &= draws <= np.sort(draws[held])[options.heldout_max - 1] if options.heldout_max else False
    return held


def all_pairs(utt2spk, options, srand, recordings=None):
    """A TrialList of the pairs of the utterances of a dict, at most --dev-max-trials of each kind, drawn.

    ``recordings``: {utterance: recording}; pairs of one recording are left out, unless nothing else is left.
    """
    everything = gather_utterances([utt2spk])
    side = utterance_side(everything, np.arange(len(everything.ids)))
    counts = np.unique(everything.speaker, return_counts=True)[1].astype(np.int64)
    total, targets = len(utt2spk) * (len(utt2spk) - 1) // 2, int((counts * (counts - 1) // 2).sum())
    most = options.dev_max_trials
    sampling = SamplingOptions(
        num_targets=most if targets > most else -1,
        srand=srand,
        num_nontargets=most if total - targets > most else -1,
    )
    pairs = Pairs(side, side, everything.speaker_names, unordered=True)
    blocks = list(trial_blocks(pairs, sampling))
    if not blocks:
        raise VoxarkError("the development set has no trial: two utterances or more are needed")
    parts = [np.concatenate([getattr(block, name) for block in blocks])
             for name in ("enroll", "test", "target")]
    trials = TrialList("all pairs of the development set", blocks[0].enroll_ids, blocks[0].test_ids, *parts)
    return trials if recordings is None else _between_recordings(trials, recordings)


def _between_recordings(trials, recordings):
    """The trials of two different recordings; all, with a warning, if these have no target."""
    sides = (trials.enroll_ids, trials.enroll), (trials.test_ids, trials.test)
    enroll, test = (np.array([recordings[key] for key in ids])[chosen] for ids, chosen in sides)
    apart = enroll != test
    if trials.target[apart].any():
        return trials.select(apart)
    logger.warning("no speaker of the development set has two recordings: trials within one are kept, which "
                   "are too easy")
    return trials


class DevTrials(NamedTuple):
    """P trials of U utterances: numbers (U,) into an index; enroll, test (P,) into them; target (P,) bool."""

    numbers: np.ndarray
    enroll: np.ndarray
    test: np.ndarray
    target: np.ndarray


def place_trials(trials, index):
    """DevTrials of a labelled TrialList; VoxarkError for missing labels or utterances, or one kind alone."""
    if trials.target is None:
        raise VoxarkError(
            f"{trials.name}: the development trials need labels: <enroll> <test> target|nontarget"
        )
    if trials.target.all() or not trials.target.any():
        raise VoxarkError(
            f"{trials.name}: {len(trials)} trials, all of one kind: targets and nontargets are needed"
        )
    place = {key: number for number, key in enumerate(index.keys)}
    missing = [key for key in dict.fromkeys([*trials.enroll_ids, *trials.test_ids]) if key not in place]
    if missing:
        raise VoxarkError(
            f"{trials.name}: {len(missing)} utterances of the trials have no features, e.g. {missing[0]}"
        )
    enroll, test = ([place[key] for key in ids] for ids in (trials.enroll_ids, trials.test_ids))
    numbers = np.unique(np.array(enroll + test, np.int64))
    empty = numbers[np.asarray(index.lengths)[numbers] < 1]
    if len(empty):
        raise VoxarkError(f"{trials.name}: {index.keys[int(empty[0])]} has no frames: leave its trials out")
    rows = [np.searchsorted(numbers, np.array(ids, np.int64)) for ids in (enroll, test)]
    return DevTrials(numbers, rows[0][trials.enroll], rows[1][trials.test], trials.target)


def read_dev_trials(options, index, srand, recordings=None):
    """DevTrials of --dev-trials, or all pairs of --dev-utt2spk, among the utterances of --dev-feats.

    ``recordings`` as of :func:`all_pairs`.
    """
    if options.dev_trials:
        return place_trials(read_trials(options.dev_trials), index)
    present = {key for key, length in zip(index.keys, index.lengths.tolist()) if length > 0}
    utt2spk = {key: speaker for key, speaker in read_utt2spk(options.dev_utt2spk).items() if key in present}
    if not utt2spk:
        raise VoxarkError(f"{options.dev_utt2spk}: none of its utterances is in --dev-feats")
    return place_trials(all_pairs(utt2spk, options, srand, recordings), index)
