"""Trial lists out of utt2spk: all pairs that are admissible, or an unbiased sample of them.

A pair is admissible if the two sides agree in all labels that must be the same, differ in all that must
differ, and share no utterance. Of an unordered list each pair {i, j} stands once, the id that sorts first
enrols.

A sample of K of a set of pairs is uniform over all its subsets of K pairs (all of the set, if it is smaller):
exact numbers, no pair twice. Sampled for each speaker, the set of a speaker is

- for targets, the admissible pairs of their utterances;
- for non-targets, the admissible pairs in which they enrol. In an unordered list each pair of different
  speakers belongs to one of the two by the toss of a fair coin, and the one it belongs to enrols: were it the
  one that sorts first, the first speaker would enrol against all and the last against none.

Random numbers come from ``srand``, a purpose and the speaker's name, never from the order of lines. Sets are
not written out to be sampled from: with the tests ordered by (labels, speaker, id) those of an enrolled id
are one or two ranges, in which the k-th pair is found directly.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import seeded_rng
from voxark.trials.lists import TrialList
from voxark.trials.make_sides import gather_utterances, utterance_side

logger = logging.getLogger(__name__)

_BLOCK_PAIRS = 1 << 21  # pairs looked at together
_FEW = 1 << 16  # a set of so many pairs is listed rather than drawn from


@dataclass
class SamplingOptions:
    """How many of the admissible pairs become trials."""

    num_targets: int = option(-1, "Number of target trials, drawn from all admissible ones (-1: all)")
    num_nontargets: int = option(-1, "Number of nontarget trials, drawn from all admissible ones (-1: all)")
    targets_per_speaker: int = option(
        -1, "Number of target trials of each speaker, drawn from all of theirs (-1: all)"
    )
    nontargets_per_speaker: int = option(
        -1, "Number of nontarget trials in which each speaker enrols, drawn from all of theirs (-1: all)"
    )
    srand: int = option(0, "Seed of every random choice")

    def check(self):
        """VoxarkError for options that contradict each other or ask for no trial at all."""
        for what in ("targets", "nontargets"):
            number, per_speaker = self.wanted(what)
            if min(number, per_speaker) < -1:
                raise VoxarkError(f"a number of {what} is -1 (all) or at least 0")
            if number >= 0 and per_speaker >= 0:
                raise VoxarkError(f"--num-{what} and --{what}-per-speaker exclude each other")
        if all(0 in self.wanted(what) for what in ("targets", "nontargets")):
            raise VoxarkError("neither targets nor nontargets are asked for")

    def wanted(self, what):
        """(number in all, number of each speaker) of "targets" or "nontargets"; -1: all."""
        return getattr(self, f"num_{what}"), getattr(self, f"{what}_per_speaker")


class _Ranges(NamedTuple):
    """For each enrolled id e, a set of tests: count[e] places of an order of the tests.

    They begin at start[e] and leave out the gap[e] places from skip[e] on.
    """

    start: np.ndarray
    count: np.ndarray
    skip: np.ndarray
    gap: np.ndarray

    @classmethod
    def between(cls, start, end, skip=None, gap=None):
        """From ``start`` to before ``end``, without the gap."""
        none = np.zeros_like(start)
        skip, gap = (none, none) if skip is None else (skip, gap)
        return cls(start, np.maximum(end - start - gap, 0), skip, gap)

    def places(self, e, k):
        """The place of the k-th test of e; both (P,)."""
        place = self.start[e] + k
        return place + np.where(place >= self.skip[e], self.gap[e], 0)


class Pairs:
    """All pairs of an enrolment side and a test side, two :class:`~voxark.trials.make_sides.Side`.

    ``unordered``: both are the same, and of (i, j) and (j, i) only one is a pair. ``speaker_names``: what the
    numbers of the speakers mean. Pairs are numbers e and t in the two sides.
    """

    def __init__(self, enroll, test, speaker_names, unordered):
        self.enroll, self.test, self.speaker_names, self.unordered = enroll, test, speaker_names, unordered
        self.rows_by_speaker = np.argsort(enroll.speaker, kind="stable")
        speaker = enroll.speaker[self.rows_by_speaker]
        self._speaker_rows = np.split(self.rows_by_speaker, np.flatnonzero(np.diff(speaker)) + 1)
        self._order_tests()

    def _order_tests(self):
        """Order the tests by (labels, speaker, id), and find in that order what each enrolled id may meet."""
        test, enroll, num_speakers = self.test, self.enroll, len(self.speaker_names)
        known = np.flatnonzero(test.same >= 0)
        keys = test.same[known] * num_speakers + test.speaker[known]
        sorting = np.argsort(keys, kind="stable")
        self.order, keys = known[sorting], keys[sorting]
        key, first = enroll.same * num_speakers + enroll.speaker, enroll.same * num_speakers
        speaker_begin, speaker_end = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        begin, end = np.searchsorted(keys, first, "left"), np.searchsorted(keys, first + num_speakers, "left")
        lost = enroll.same < 0
        end[lost] = begin[lost]
        gap = speaker_end - speaker_begin
        self.ordered_nontargets = _Ranges.between(begin, end, speaker_begin, gap)
        if self.unordered:
            rank = np.full(len(test.ids), speaker_end.max(initial=0))
            rank[self.order] = np.arange(len(self.order))
            self.targets = _Ranges.between(np.minimum(rank + 1, speaker_end), speaker_end)
            self.nontargets = _Ranges.between(np.minimum(speaker_end, end), end)
        else:
            self.targets = _Ranges.between(speaker_begin, speaker_end)
            self.nontargets = self.ordered_nontargets

    def admissible(self, e, t):
        """Whether pairs may be trials, as far as ranges do not see to it; e and t broadcast to any shape."""
        enroll, test = self.enroll, self.test
        fine = np.ones(np.broadcast_shapes(np.shape(e), np.shape(t)), bool)
        utterance = test.utterances[t, 0]
        for k in range(enroll.utterances.shape[1]):
            if not self.unordered:  # no pair has the same utterance twice there
                fine &= enroll.utterances[e, k] != utterance
            for label in range(test.different.shape[2]):
                value = enroll.different[e, k, label]
                fine &= (value != test.different[t, 0, label]) | (value < 0)
        return fine

    def is_target(self, e, t):
        """Whether the speakers of pairs are the same."""
        return self.enroll.speaker[e] == self.test.speaker[t]

    def speakers_without_targets(self):
        """Names of the enrolled speakers that have no target pair, whatever labels say about pairs."""
        num_tests = np.bincount(self.test.speaker, minlength=len(self.speaker_names))
        lonely = num_tests < (2 if self.test is self.enroll else 1)
        enrolled = np.unique(self.enroll.speaker)
        return [self.speaker_names[s] for s in enrolled[lonely[enrolled]]]

    # -------------------------------------------------------------------------------------------- all pairs

    def all_targets(self, rows):
        """The admissible target pairs of some enrolled ids: e, t (P,)."""
        counts = self.targets.count[rows]
        e = np.repeat(rows, counts)
        t = self.order[self.targets.places(e, _ramps(counts))]
        fine = self.admissible(e, t)
        return e[fine], t[fine]

    def all_nontargets(self, rows):
        """The admissible non-target pairs of the enrolled ids from rows[0] to rows[-1]: e, t (P,)."""
        first = rows[0] + 1 if self.unordered else 0
        e, t = rows[:, None], np.arange(first, len(self.test.ids))[None, :]
        fine = (self.enroll.same[e] == self.test.same[t]) & ~self.is_target(e, t) & (self.enroll.same[e] >= 0)
        if self.unordered:
            fine &= t > e
        fine &= self.admissible(e, t)
        row, column = np.nonzero(fine)
        return rows[row], t[0, column]

    # --------------------------------------------------------------------------------------------- sampling

    def sample(self, what, options):
        """A sample of the "targets" or "nontargets" as SamplingOptions say: codes (K,), ascending; None: all.

        The code of a pair is e * (number of tests) + t.
        """
        number, per_speaker = options.wanted(what)
        if max(number, per_speaker) < 0:
            return None
        codes, num_short = [], 0
        if number >= 0:
            rows, rng = np.arange(len(self.enroll.ids)), seeded_rng(options.srand, what)
            codes.append(self._draw(rng, getattr(self, what), rows, number, self.admissible))
            if self.unordered:
                codes[0] = self._turned(codes[0])
            if len(codes[0]) < number:
                logger.warning("%d %s were asked for: there are only %d", number, what, len(codes[0]))
        else:
            ranges, allowed = getattr(self, what), self.admissible
            if what == "nontargets" and self.unordered:
                ranges, allowed = self.ordered_nontargets, self._owned(options.srand)
            for rows in self._speaker_rows:
                name = self.speaker_names[self.enroll.speaker[rows[0]]]
                rng = seeded_rng(options.srand, what, name)
                codes.append(self._draw(rng, ranges, rows, per_speaker, allowed))
                num_short += len(codes[-1]) < per_speaker
            if num_short:
                logger.warning("%d of %d speakers have fewer than %d %s: all of theirs are taken",
                               num_short, len(codes), per_speaker, what)  # fmt: skip
        return np.sort(np.concatenate(codes))

    def _owned(self, srand):
        """The condition that a pair of two speakers is admissible, and belongs to the one who enrols."""
        tickets = seeded_rng(srand, "owner").integers(0, 1 << 64, len(self.test.ids), np.uint64)

        def owned(e, t):
            mine = _coin(tickets[np.minimum(e, t)], tickets[np.maximum(e, t)]) == (e < t)
            return mine & self.admissible(e, t)

        return owned

    def _turned(self, codes):
        """The codes with the id that sorts first as the enrolled one."""
        e, t = np.divmod(codes, len(self.test.ids))
        return np.minimum(e, t) * len(self.test.ids) + np.maximum(e, t)

    def _draw(self, rng, ranges, rows, number, allowed):
        """Codes (K,) of ``number`` of the allowed pairs of some enrolled ids, of all if there are fewer."""
        counts = ranges.count[rows]
        ends = np.cumsum(counts)

        def pairs_at(index):
            place = np.searchsorted(ends, index, "right")
            e = rows[place]
            return e, self.order[ranges.places(e, index - ends[place] + counts[place])]

        index = sample_allowed(rng, int(ends[-1]), number, lambda index: allowed(*pairs_at(index)))
        e, t = pairs_at(index)
        return e * len(self.test.ids) + t


def _ramps(counts):
    """0, 1, ..., counts[0]-1, 0, 1, ..., counts[1]-1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _coin(a, b):
    """A fair coin (P,) bool of each pair of random 64-bit numbers: the mixing steps of SplitMix64."""
    x = a * np.uint64(0x9E3779B97F4A7C15) + b
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) & np.uint64(1)).astype(bool)


def sample_allowed(rng, total, number, allowed):
    """A uniform sample, without replacement, of ``number`` of the allowed integers below ``total``.

    ``allowed(index)`` tells which of some integers (n,) are allowed. If fewer are, they are all returned. The
    first ``number`` distinct allowed ones of a sequence of independent draws are such a sample; where they
    would be long in coming, the allowed ones are listed. Memory: in proportion to ``number``, or to the
    allowed ones if those are fewer.
    """
    if number == 0 or total == 0:
        return np.empty(0, np.int64)
    chosen, num_drawn = np.empty(0, np.int64), 0
    while num_drawn < total // 4 and total > max(_FEW, 4 * number):
        fresh = rng.integers(0, total, number - len(chosen) + number // 8 + 64)
        num_drawn += len(fresh)
        pool = np.concatenate((chosen, fresh[allowed(fresh)]))
        first = np.sort(np.unique(pool, return_index=True)[1])
        chosen = pool[first[:number]]
        if len(chosen) == number:
            return chosen
    blocks = (np.arange(begin, min(begin + _BLOCK_PAIRS, total)) for begin in range(0, total, _BLOCK_PAIRS))
    chosen = np.concatenate([block[allowed(block)] for block in blocks])
    return chosen if len(chosen) <= number else rng.choice(chosen, number, replace=False, shuffle=False)


# ------------------------------------------------------------------------------------------------- the list


def trial_blocks(pairs, options):
    """Yield the trials as TrialList blocks, sorted by enrolment id, then by test id.

    ``pairs``: a :class:`Pairs`; ``options``: SamplingOptions. Memory: the sampled trials, and a block.
    """
    num_tests = len(pairs.test.ids)
    targets, nontargets = (pairs.sample(what, options) for what in ("targets", "nontargets"))
    load = np.zeros(len(pairs.enroll.ids), np.int64)
    for chosen, of_all in ((targets, pairs.targets.count), (nontargets, num_tests)):
        load += of_all if chosen is None else np.bincount(chosen // num_tests, minlength=len(load))
    block = np.cumsum(load) // _BLOCK_PAIRS
    for rows in np.split(np.arange(len(load)), np.flatnonzero(np.diff(block)) + 1):
        span = rows[0] * num_tests, (rows[-1] + 1) * num_tests
        parts = []
        for chosen, all_of in ((targets, pairs.all_targets), (nontargets, pairs.all_nontargets)):
            if chosen is None:
                e, t = all_of(rows)
                parts.append(e * num_tests + t)
            else:
                parts.append(chosen[slice(*np.searchsorted(chosen, span))])
        codes = np.sort(np.concatenate(parts), kind="stable")  # two sorted runs: merged
        if len(codes):
            e, t = np.divmod(codes, num_tests)
            yield TrialList(
                "trials",
                pairs.enroll.ids,
                pairs.test.ids,
                e.astype(np.int32),
                t.astype(np.int32),
                pairs.is_target(e, t),
            )


def all_trials(utt2spk):
    """Yield every pair of the utterances of a dict utterance -> speaker once, as trial_blocks does."""
    everything = gather_utterances([utt2spk])
    side = utterance_side(everything, np.arange(len(everything.ids)))
    return trial_blocks(Pairs(side, side, everything.speaker_names, unordered=True), SamplingOptions())
