"""Vectors to train a back-end on trials with, and the trials to judge it by: given, or speakers held out.

Vectors are sorted by speaker and key, so that nothing depends on the order of the lines of the files.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.backend.dplda_objective import CountWeights
from voxark.backend.vector_table import collect_vectors
from voxark.calibration.logistic import prior_weighted_loss
from voxark.errors import VoxarkError
from voxark.io.streams import open_input
from voxark.metrics import Roc
from voxark.options import option
from voxark.random_numbers import seeded_rng
from voxark.trials.joining import require_labels
from voxark.trials.lists import read_scores, read_trials

logger = logging.getLogger(__name__)

MAX_TRIALS = 2_000_000  # of all pairs of development vectors; beyond that, a sample of the nontarget pairs
_DENSE = 4096  # vectors up to which the scores of all pairs are computed to pick from
_BLOCK = 1 << 14


class LabelledVectors(NamedTuple):
    """keys: list of N; x (N,D) float64; labels (N,) ascending: numbers of ``speakers``, a sorted list."""

    keys: list
    x: np.ndarray
    labels: np.ndarray
    speakers: list

    @classmethod
    def of(cls, keys, x, speakers):
        """Sort vectors x (N,D) with their keys and speakers' names, two lists of N."""
        order = sorted(range(len(keys)), key=lambda place: (speakers[place], keys[place]))
        names = sorted(set(speakers))
        number = {name: place for place, name in enumerate(names)}
        labels = np.array([number[speakers[place]] for place in order], np.int64)
        return cls([keys[place] for place in order], np.asarray(x, np.float64)[order], labels, names)

    def of_speakers(self, chosen):
        """The vectors of the speakers with these numbers (bool (S,)), with labels of their own."""
        rows = np.flatnonzero(chosen[self.labels])
        labels = (np.cumsum(chosen) - 1)[self.labels[rows]]
        names = [name for name, keep in zip(self.speakers, chosen.tolist()) if keep]
        return LabelledVectors([self.keys[row] for row in rows], self.x[rows], labels, names)


def read_vectors(vectors_rspecifier, utt2spk_rspecifier, counts, progress=lambda reader: reader):
    """Read LabelledVectors; ``counts`` is told of vectors without a speaker, and of what a reader skipped.

    VoxarkError where nothing is left, and for vectors that are empty, not finite or of two dimensions.
    """
    with tables.open_reader("token", utt2spk_rspecifier) as reader:
        utt2spk = dict(reader)
    with tables.open_reader("vec", vectors_rspecifier) as vectors:
        table = collect_vectors(
            progress(vectors), utt2spk, lambda key: counts.fail(key, "has no speaker in utt2spk")
        )
    counts.leave_out(len(vectors.skipped), vectors.skipped)
    if not table.keys:
        raise VoxarkError(f"{vectors_rspecifier}: no vector of an utterance that {utt2spk_rspecifier} has")
    if len(set(table.keys)) < len(table.keys):
        repeated = next(key for place, key in enumerate(table.keys) if key in table.keys[:place])
        raise VoxarkError(f"{vectors_rspecifier}: {repeated} stands there twice")
    if table.x.shape[1] == 0:
        raise VoxarkError(f"{vectors_rspecifier}: the vector of {table.keys[0]} is empty")
    return LabelledVectors.of(table.keys, table.x, [utt2spk[key] for key in table.keys])


def check_trainable(vectors):
    """Raise VoxarkError unless there are two speakers, and one with two vectors."""
    if len(vectors.speakers) < 2:
        raise VoxarkError(
            f"the vectors are of one speaker only ({vectors.speakers[0]}): at least two are needed"
        )
    if len(vectors.keys) == len(vectors.speakers):
        raise VoxarkError(
            f"no speaker has two vectors ({len(vectors.speakers)} speakers): there is no target trial"
        )


def read_labels(rspecifier, keys, what):
    """Numbers (N,) of the labels that a table gives the keys; an error names the first key without one."""
    with tables.open_reader("token", rspecifier) as reader:
        table = dict(reader)
    missing = [key for key in keys if key not in table]
    if missing:
        raise VoxarkError(
            f"{missing[0]}: {rspecifier} has no {what} of it ({len(missing)} of {len(keys)} lack one)"
        )
    return np.unique([table[key] for key in keys], return_inverse=True)[1]


def read_pair_weights(rxfilename, vectors):
    """Weights of a list `<enroll> <test> <weight>` as a sparse (N,N) array of pairs i < j of LabelledVectors.

    A pair in both orders has the sum. Pairs of other ids, and of an id with itself, are left out and counted.
    """
    from scipy import sparse

    pairs = read_scores(rxfilename)
    row = {key: place for place, key in enumerate(vectors.keys)}
    enroll, test = (
        np.array([row.get(key, -1) for key in ids], np.int64)[numbers]
        for ids, numbers in ((pairs.enroll_ids, pairs.enroll), (pairs.test_ids, pairs.test))
    )
    usable = (enroll >= 0) & (test >= 0) & (enroll != test)
    if not np.isfinite(pairs.scores[usable]).all():
        raise VoxarkError(f"{rxfilename}: weights of trials must be finite")
    logger.info("%s: %d of %d pairs are of vectors to train on", rxfilename, usable.sum(), len(pairs))
    first, second = np.minimum(enroll, test)[usable], np.maximum(enroll, test)[usable]
    shape = (len(vectors.keys),) * 2
    return sparse.coo_array((pairs.scores[usable], (first, second)), shape=shape).tocsr()


def read_count_weights(rxfilename):
    """The CountWeights of a file of lines `target <n> <weight>` and `nontarget <n> <m> <weight>`.

    n, m: numbers of vectors of the speakers that a trial is of. VoxarkError names the line that is wrong.
    """
    target, nontarget, number = {}, {}, 0
    with open_input(rxfilename) as source:
        while line := source.read_line():
            number += 1
            try:
                kind, *counts, weight = line.decode().split()
                counts, weight = tuple(sorted(map(int, counts))), float(weight)
                if (kind, len(counts)) not in (("target", 1), ("nontarget", 2)) or not np.isfinite(weight):
                    raise ValueError
            except ValueError:
                raise VoxarkError(
                    f"{source.name}:{number}: expected `target <n> <weight>` or `nontarget <n> <m> "
                    f"<weight>`, found {line.decode(errors='replace').strip()!r}"
                ) from None
            if len(counts) == 1:
                target[counts[0]] = weight
            else:
                nontarget[counts] = weight
        source.finish()
    return CountWeights(target, nontarget)


# ------------------------------------------------------------------------------------------ development data


@dataclass
class DevelopmentOptions:
    """What decides when training ends, and between values of --regularize."""

    dev_vectors: str = option("", "Vectors of other speakers (rspecifier), to judge the model by")
    dev_utt2spk: str = option("", "Their speakers (rspecifier): all pairs are trials")
    dev_trials: str = option("", "Their trials, with labels, in place of all pairs")
    dev_share: float = option(
        0.1,
        "Without --dev-vectors: the share of the speakers to hold out for it (0: train on all, to the end)",
    )

    def check(self):
        """Raise VoxarkError for options that do not go together."""
        if not 0.0 <= self.dev_share < 1.0:
            raise VoxarkError(f"--dev-share={self.dev_share:g}: a number from 0 to below 1 is expected")
        if bool(self.dev_vectors) != bool(self.dev_utt2spk or self.dev_trials):
            raise VoxarkError("--dev-vectors and --dev-utt2spk (or --dev-trials) go together")


class Figures(NamedTuple):
    """Of development trials: the loss (1 for scores 0), the equal error rate (0 to 1), Cllr."""

    loss: float
    eer: float
    cllr: float


class Development(NamedTuple):
    """x (N,D), trials of its rows ``enroll``, ``test`` (T,), ``target`` (T,) bool, at the prior p_target."""

    x: np.ndarray
    enroll: np.ndarray
    test: np.ndarray
    target: np.ndarray
    p_target: float = 0.5

    def mapped(self, space):
        """The same with the vectors in a Space (voxark.backend.dplda_form)."""
        return self._replace(x=space.to(self.x))

    def scores(self, model):
        """Scores (T,) of the trials by a Dplda."""
        terms = model.pair_terms(self.x, self.x)
        if len(self.x) <= _DENSE and len(self.target) * 8 > len(self.x) ** 2:
            return terms.dense()[self.enroll, self.test]
        blocks = [slice(begin, begin + _BLOCK) for begin in range(0, len(self.target), _BLOCK)]
        return np.concatenate([terms.pairs(self.enroll[block], self.test[block]) for block in blocks])

    def figures(self, model):
        """The Figures of a Dplda."""
        scores = self.scores(model)
        if not np.isfinite(scores).all():
            raise VoxarkError("scores of development trials are not finite")
        roc = Roc(scores[self.target], scores[~self.target])
        return Figures(prior_weighted_loss(scores, self.target, self.p_target), roc.eer()[0], roc.cllr())


def all_pairs(vectors, p_target, srand=0):
    """Development of all pairs of LabelledVectors, or of a sample of the nontarget pairs of too many."""
    labels, number = vectors.labels, len(vectors.labels)
    counts = np.bincount(labels)
    if number * (number - 1) // 2 <= MAX_TRIALS:
        enroll, test = np.triu_indices(number, 1)
    else:
        firsts = np.cumsum(counts) - counts
        of_speakers = [np.stack(np.triu_indices(n, 1)) + first for n, first in zip(counts, firsts)]
        enroll, test = np.concatenate(of_speakers, axis=1)[:, :MAX_TRIALS]
        pairs = np.sort(
            seeded_rng(srand, "development trials").integers(number, size=(2, MAX_TRIALS)), axis=0
        )
        pairs = np.unique(pairs[:, labels[pairs[0]] != labels[pairs[1]]], axis=1)
        enroll, test = np.append(enroll, pairs[0]), np.append(test, pairs[1])
    return Development(vectors.x, enroll, test, labels[enroll] == labels[test], p_target)


def listed_trials(rxfilename, table, p_target):
    """Development of a file's labelled trials, of a VectorTable; VoxarkError for an id without a vector."""
    trials = read_trials(rxfilename)
    require_labels(trials)
    sides = []
    for ids, numbers in ((trials.enroll_ids, trials.enroll), (trials.test_ids, trials.test)):
        rows = table.rows_of(ids)
        if (rows < 0).any():
            raise VoxarkError(
                f"{ids[int(np.argmin(rows))]}: is in {rxfilename}, but has no vector in --dev-vectors"
            )
        sides.append(rows[numbers])
    return Development(np.asarray(table.x, np.float64), *sides, trials.target, p_target)


def open_development(options, vectors, p_target, srand, counts):
    """(LabelledVectors to train on, Development or None) of DevelopmentOptions and all LabelledVectors."""
    if not options.dev_vectors:
        return hold_out(vectors, options.dev_share, p_target, srand)
    if options.dev_trials:
        with tables.open_reader("vec", options.dev_vectors) as reader:
            table = collect_vectors(reader)
        development = listed_trials(options.dev_trials, table, p_target)
    else:
        others = read_vectors(options.dev_vectors, options.dev_utt2spk, counts)
        check_trainable(others)
        shared = sorted(set(others.speakers) & set(vectors.speakers))
        if shared:
            logger.warning(
                "%d speakers are in both training and development data, %s first", len(shared), shared[0]
            )
        development = all_pairs(others, p_target, srand)
    if development.x.shape[1] != vectors.x.shape[1]:
        raise VoxarkError(
            f"the development vectors have dimension {development.x.shape[1]}, those to train on "
            f"{vectors.x.shape[1]}"
        )
    check_both_classes(development)
    return vectors, development


def check_both_classes(development):
    """Raise VoxarkError unless there are target and nontarget trials."""
    if development.target.all() or not development.target.any():
        raise VoxarkError(
            "the development trials are all of one kind: target and nontarget trials are needed"
        )


def hold_out(vectors, share, p_target, srand=0):
    """Split LabelledVectors by speaker: (those to train on, Development of the pairs of the others, or None).

    What a speaker draws depends on the seed and the name alone; those with the smallest numbers are held out:
    the share of all speakers, of those with two vectors, at least 2. Too few speakers: a warning, and None.
    """
    if share == 0.0:
        return vectors, None
    counts = np.bincount(vectors.labels)
    draws = np.array([seeded_rng(srand, "held out", name).random() for name in vectors.speakers])
    several = np.flatnonzero(counts > 1)
    number = max(2, round(share * len(counts)))
    chosen = several[np.argsort(draws[several], kind="stable")[:number]]
    is_out = np.zeros(len(counts), bool)
    is_out[chosen] = True
    left = np.flatnonzero(~is_out)
    if len(chosen) < 2 or len(left) < 2 or not (counts[left] > 1).any():
        logger.warning("too few speakers to hold some out: training goes on to the end of its iterations")
        return vectors, None
    logger.info("held out as development data: %s", " ".join(vectors.speakers[place] for place in chosen))
    return vectors.of_speakers(~is_out), all_pairs(vectors.of_speakers(is_out), p_target, srand)
