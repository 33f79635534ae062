"""Trials and their scores joined by key: over several systems in memory, or in step over lists of any length.

A trial without a score is missing, a score without a trial is unknown (extra); both are counted, the first is
named, and both are errors unless they are allowed.
"""

import logging
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.trials.lists import TrialList, TrialReader, check_distinct, find_pairs, read_scores, read_trials

logger = logging.getLogger(__name__)

_COLUMNS = (("enroll", np.int32), ("test", np.int32), ("target", bool), ("scores", np.float64))


@dataclass
class JoinOptions:
    """What to do about trials without scores and scores without trials."""

    allow_missing: bool = option(False, "Leave out trials that have no score, in place of an error")
    allow_extra: bool = option(False, "Ignore scores of no trial, in place of an error")


class Joined(NamedTuple):
    """Trials that have a score of each system, in the order of their list, and the scores (N,S) float64."""

    trials: TrialList
    scores: np.ndarray

    def by_key(self):
        """The same in the order of the two ids, so that sums do not depend on the order of the lines."""
        ranks = []
        for ids, numbers in (
            (self.trials.test_ids, self.trials.test),
            (self.trials.enroll_ids, self.trials.enroll),
        ):
            rank = np.empty(len(ids), np.int64)
            rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
            ranks.append(rank[numbers])
        order = np.lexsort(ranks)
        return Joined(self.trials.select(order), self.scores[order])


# ------------------------------------------------------------------------------------------------- in memory


def read_joined(trials_rxfilename, scores_rxfilenames, options, counts=None, need_labels=True):
    """Read a trial list and the score lists of S systems, and join them by key; returns a Joined.

    Trials lacking the score of a system are missing, and left out for all systems if ``options``
    (JoinOptions) allow it. ``counts`` (cli.Counts, or None) is told of the joined and of the missing trials.
    With ``need_labels`` a list without labels, or of one class, is refused. VoxarkError for what is not
    allowed.
    """
    check_one_standard_input(trials_rxfilename, *scores_rxfilenames)
    trials = read_trials(trials_rxfilename)
    if not need_labels:
        return join_scores(trials, scores_rxfilenames, options, counts)
    require_labels(trials)
    joined = join_scores(trials, scores_rxfilenames, options, counts)
    require_both_classes(trials.name, len(joined.trials), np.count_nonzero(joined.trials.target))
    return joined


def join_scores(trials, scores_rxfilenames, options, counts=None):
    """Read the score lists of S systems and join them to a TrialList: a Joined; see :func:`read_joined`."""
    join = _Join(options, counts, len(trials))
    scores = np.empty((len(trials), len(scores_rxfilenames)))
    kept = np.ones(len(trials), bool)
    for column, name in enumerate(scores_rxfilenames):
        scored = read_scores(name)
        place = find_pairs(trials, scored)
        found = place >= 0
        scores[found, column] = scored.scores[place[found]]
        join.judge(trials, scored, place, kept)
        kept &= found
        del scored, place, found
    join.finish(trials.name, int(kept.sum()))
    return Joined(trials, scores) if kept.all() else Joined(trials.select(kept), scores[kept])


def require_labels(trials):
    """Refuse a list without labels."""
    if trials.target is None:
        raise VoxarkError(f"{trials.name}: has no third column target|nontarget, which is needed here")


def require_both_classes(name, num_trials, num_target):
    """Refuse joined trials of which none is a target, or none a nontarget."""
    for number, what in ((num_target, "target"), (num_trials - num_target, "nontarget")):
        if not number:
            raise VoxarkError(
                f"{name}: no {what} trials among the {num_trials} that have a score: both classes are needed"
            )


def check_weights(trials, weights, name):
    """Refuse weights (N,) of the list ``name`` that are negative or infinite, or all zero in a class."""
    bad = ~((weights >= 0) & np.isfinite(weights))
    if bad.any():
        first = np.argmax(bad)
        raise VoxarkError(
            f"{name}: the weight of {trials.pair(first)} is {weights[first]:g}: it must be finite and not "
            "negative"
        )
    for chosen, what in ((trials.target, "target"), (~trials.target, "nontarget")):
        if not weights[chosen].any():
            raise VoxarkError(f"{name}: no {what} trials with a weight: both classes are needed")


def check_one_standard_input(*rxfilenames):
    """Refuse two inputs from standard input."""
    if sum(name.strip() == "-" for name in rxfilenames) > 1:
        raise VoxarkError("only one of the inputs can be standard input (-)")


class _Join:
    """Missing and unknown trials of some score lists: warned of, counted, and errors unless allowed.

    ``num_trials`` is the length of the whole list; ``num_before`` the number of pairs already joined, which
    stand neither in the trials nor in the scores that are judged.
    """

    def __init__(self, options, counts, num_trials, num_before=0):
        self.options, self.counts = options, counts
        self.num_trials, self.num_before = num_trials, num_before
        self.errors = []

    def judge(self, trials, scored, place, not_counted=None):
        """Look at ``place`` (N,) as find_pairs gives it; ``not_counted`` (N,) masks what is to be counted."""
        found = place >= 0
        num_missing, num_extra = int(np.sum(~found)), len(scored) - int(np.sum(found))
        if num_missing:
            self._missing(trials, scored, ~found, num_missing)
            chosen = np.flatnonzero(~found if not_counted is None else ~found & not_counted)
            reason = f"has no score in {scored.name}"
            if self.counts is not None:
                self.counts.leave_out(len(chosen), ((trials.pair(p), reason) for p in chosen))
        if num_extra:
            self._extra(trials, scored, place[found], num_extra)

    def _missing(self, trials, scored, missing, number):
        text = f"{scored.name}: {number} of {self.num_trials} trials have no score"
        logger.warning("%s, the first is '%s'", text, trials.pair(np.argmax(missing)))
        if not self.options.allow_missing:
            self.errors.append(f"{text}; --allow-missing leaves them out")

    def _extra(self, trials, scored, known_places, number):
        known = np.zeros(len(scored), bool)
        known[known_places] = True
        text = f"{scored.name}: {number} of {self.num_before + len(scored)} scores are of no trial"
        logger.warning("%s, the first is '%s'", text, scored.pair(np.argmin(known)))
        if not self.options.allow_extra:
            self.errors.append(f"{text} of {trials.name} (--allow-extra ignores them)")

    def finish(self, name, num_joined):
        """Raise what was not allowed; else tell the counts of what was joined."""
        if self.errors:
            raise VoxarkError("; ".join(self.errors))
        if not num_joined:
            raise VoxarkError(f"{name}: none of its {self.num_trials} trials has a score")
        if self.counts is not None:
            self.counts.done(num_joined)


# ---------------------------------------------------------------------------------------------------- streams


def stream_joined(trials_rxfilename, scores_rxfilename, options, counts=None, max_in_memory=1 << 25):
    """Join a labelled trial list and one score list of any length; yields (scores (n,), target (n,)) blocks.

    Blocks of both lists are joined as they come. Lists in the same order, with missing or unknown pairs in
    between or not, take constant memory beyond their ids; what has not found its partner waits in memory. If
    more than ``max_in_memory`` pairs wait, a VoxarkError asks for sorted lists. Pairs that stand twice are an
    error in lists of up to so many trials, beyond which they are not looked for (and that is said).
    Options, counts and errors as of :func:`read_joined`; the errors come when all blocks have been yielded.
    """
    check_one_standard_input(trials_rxfilename, scores_rxfilename)
    with (
        TrialReader(trials_rxfilename, "label?") as trials,
        TrialReader(scores_rxfilename, "score") as scored,
    ):
        stream = _Stream(trials, scored, max_in_memory)
        num_target = 0
        for scores, target in stream.blocks():
            num_target += np.count_nonzero(target)
            yield scores, target
        missing, extra = stream.waiting()
        join = _Join(options, counts, stream.num_joined + len(missing), stream.num_joined)
        join.judge(missing, extra, np.full(len(missing), -1))
        join.finish(trials.name, stream.num_joined)
        require_both_classes(trials.name, stream.num_joined, num_target)


class _Stream:
    """Two readers, of trials and of scores, whose blocks are joined as they come.

    ``num_joined``: pairs found so far.
    """

    def __init__(self, trials, scored, max_in_memory):
        self.readers = (trials, scored)
        self.max_in_memory = max_in_memory
        self.num_joined = 0
        self._iterators = (iter(trials), iter(scored))
        self._next = [None, None]  # blocks that have been read and not been looked at
        self._num_read, self._ended = [0, 0], [False, False]
        self._waiting = ([], [])  # blocks of pairs without a partner so far
        self._num_left = 0  # how many of them there were after the last search
        self._num_same_ids = [0, 0]
        self._seen = _Seen(max_in_memory)

    def blocks(self):
        """Yield (scores, target) of the pairs that both lists hold."""
        while self._fetch():
            joined = self._in_step()
            if joined is None:
                for side, block in enumerate(self._next):
                    if block is not None:
                        self._waiting[side].append(block)
                        self._seen.add(side, block)
                self._next = [None, None]
                if self._num_waiting() < 2 * self._num_left:
                    continue  # searching at each block would take quadratic time
                joined = self._search()
            if len(joined[0]):
                self.num_joined += len(joined[0])
                yield joined
        if self._num_waiting() and self._num_left:
            joined = self._search()
            self.num_joined += len(joined[0])
            yield joined
        for side, reader in enumerate(self.readers):
            self._seen.check(side, reader)

    def _fetch(self):
        """Read a block of each list, but none of one that is ahead already; whether there was any."""
        while not (self._ended[0] and self._ended[1]):
            for side, other in ((0, 1), (1, 0)):
                behind = self._num_read[side] <= self._num_read[other] or self._ended[other]
                if self._next[side] is None and not self._ended[side] and behind:
                    self._read(side)
            if any(block is not None for block in self._next):
                return True
        return any(block is not None for block in self._next)

    def _read(self, side):
        block = self._next[side] = next(self._iterators[side], None)
        if block is None:
            self._ended[side] = True
            if not self._num_read[side]:
                raise VoxarkError(f"{self.readers[side].name}: the list is empty")
            return
        self._num_read[side] += len(block)
        if side == 0:
            require_labels(block)

    def _in_step(self):
        """(scores, target) of the lines that both blocks have, if they are the same pairs; else None."""
        if any(block is None for block in self._next):
            return None
        number = min(map(len, self._next))
        ours, theirs = (block.select(slice(0, number)) for block in self._next)
        if not self._alike(ours, theirs):
            return None
        self._next = [
            block.select(slice(number, None)) if len(block) > number else None for block in self._next
        ]
        self._seen.add_both(ours)
        return theirs.scores, ours.target

    def _alike(self, ours, theirs):
        """Whether two blocks hold the same pairs in the same order; the names of ids are compared once."""
        for place, (column, ids) in enumerate((("enroll", "enroll_ids"), ("test", "test_ids"))):
            numbers = getattr(ours, column)
            if not np.array_equal(numbers, getattr(theirs, column)):
                return False
            new = slice(self._num_same_ids[place], int(numbers.max()) + 1)
            if getattr(ours, ids)[new] != getattr(theirs, ids)[new]:
                return False
            self._num_same_ids[place] = max(self._num_same_ids[place], new.stop)
        return True

    def _num_waiting(self):
        return sum(len(block) for blocks in self._waiting for block in blocks)

    def _search(self):
        """(scores, target) of the waiting pairs that are in both lists; the others go on waiting."""
        ours, theirs = self.waiting()
        place = find_pairs(ours, theirs)
        found = place >= 0
        partner = np.zeros(len(theirs), bool)
        partner[place[found]] = True
        joined = theirs.scores[place[found]], ours.target[found]
        self._waiting = ([ours.select(~found)], [theirs.select(~partner)])
        self._num_left = self._num_waiting()
        if self._num_left > self.max_in_memory:
            first, second = self.readers
            raise VoxarkError(
                f"{first.name} and {second.name} are in different order: more than {self.max_in_memory} "
                "lines wait for their partners; raise --max-memory, or sort both (LC_ALL=C sort -k1,1 -k2,2)"
            )
        return joined

    def waiting(self):
        """The pairs without a partner of both lists, as two TrialLists."""
        return [_whole(reader, blocks) for reader, blocks in zip(self.readers, self._waiting)]


class _Seen:
    """The pairs of two lists, held to find those that stand twice, until one list is too long for that."""

    def __init__(self, max_in_memory):
        self.max_in_memory = max_in_memory
        self._blocks, self._numbers = ([], []), [0, 0]
        self._shared = True  # both lists have been in step so far: one of them will do

    def add(self, side, block):
        """Hold a block of one list."""
        if self._shared:
            self._shared = False
            self._blocks[1].extend(self._blocks[0])
        self._hold(side, block)

    def add_both(self, block):
        """Hold a block that both lists have at the same place."""
        self._hold(0, block)
        if not self._shared:
            self._hold(1, block)

    def _hold(self, side, block):
        was_short = self._numbers[side] <= self.max_in_memory
        self._numbers[side] += len(block)
        if self._numbers[side] <= self.max_in_memory:
            self._blocks[side].append(replace(block, target=None, scores=None))
        elif was_short:
            self._blocks[side].clear()
            logger.warning(
                "%s: more than %d lines: pairs that stand twice are not looked for",
                block.name,
                self.max_in_memory,
            )

    def check(self, side, reader):
        """Refuse pairs that stand twice in a list that was held whole."""
        if self._blocks[side] and self._numbers[side] <= self.max_in_memory:
            check_distinct(_whole(reader, self._blocks[side]))


def _whole(reader, blocks):
    """One TrialList of blocks of a reader."""

    def column(name, dtype):
        columns = [getattr(block, name) for block in blocks]
        if any(part is None for part in columns):
            return None
        return np.concatenate([np.empty(0, dtype), *columns], dtype=dtype)

    columns = (column(name, dtype) for name, dtype in _COLUMNS)
    return TrialList(reader.name, reader.enroll_ids, reader.test_ids, *columns)
