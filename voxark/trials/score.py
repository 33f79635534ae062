"""Scores of trial lists: vectors in a back-end's terms, and the terms scored in blocks of bounded memory."""

import numpy as np

from voxark.arrays import Device
from voxark.backend.cosine import cosine_terms, dot_terms
from voxark.backend.vectors import length_normalize
from voxark.errors import VoxarkError

_BLOCK_SCORES = 1 << 21  # scores of one dense block: 16 MiB
_BLOCK_VALUES = 1 << 20  # vector elements gathered at once for single pairs: 8 MiB a side
# A pair gathered by itself costs about as much as this many scores of a matrix product (measured, 40 to 512
# dimensions: 27 to 49).
_PAIR_COST = 32


# ---------------------------------------------------------------------------------------------- back-ends


def plda_terms(plda, enrolment, test, mode="mean", options=None, average_after_norm=False):
    """PairTerms of PLDA log-likelihood ratios of an Enrolment against test vectors (T,D).

    ``mode``: "mean" scores the mean of the sessions as one session, "book" as the mean of n sessions, which
    assumes that they are independent given the speaker, "score-mean" averages the sessions' scores. The mean
    is taken before PLDA's length normalisation as Kaldi takes it, or after with ``average_after_norm``.
    """
    for side, x in (("enrolment", enrolment.x), ("test", test)):
        if x.shape[1] != plda.dim:
            raise VoxarkError(f"the {side} vectors have dimension {x.shape[1]}, the PLDA model {plda.dim}")
    test = plda.transform_vectors(test, 1, options)
    if mode == "score-mean":
        sessions = plda.pair_terms(plda.transform_vectors(enrolment.x, 1, options), 1, test)
        return sessions.averaged(enrolment.starts)
    n = enrolment.counts if mode == "book" else np.ones(len(enrolment.counts), np.int64)
    if average_after_norm:
        models = enrolment.averaged(plda.transform_vectors(enrolment.x, 1, options))
    else:
        models = plda.transform_vectors(enrolment.averaged(), n, options)
    return plda.pair_terms(models, n, test)


def similarity_terms(backend, enrolment, test, mode="mean", average_after_norm=False):
    """PairTerms of the back-ends "cosine" and "dot" of an Enrolment against test vectors (T,D).

    Sessions are averaged ("mean"), for the cosine after normalisation to unit length with
    ``average_after_norm``, or their scores are ("score-mean"). "book" is PLDA's.
    """
    if mode == "book":
        raise VoxarkError(
            f"--enroll=book needs --backend=plda: {backend} does not know of the number of sessions"
        )
    if len(enrolment.x) and enrolment.x.shape[1] != test.shape[1]:
        raise VoxarkError(
            f"enrolment vectors have dimension {enrolment.x.shape[1]}, test vectors {test.shape[1]}"
        )
    terms = cosine_terms if backend == "cosine" else dot_terms
    if mode == "score-mean":
        return terms(enrolment.x, test).averaged(enrolment.starts)
    normalise_first = average_after_norm and backend == "cosine"
    return terms(enrolment.averaged(length_normalize(enrolment.x) if normalise_first else None), test)


# ---------------------------------------------------------------------------------------------- blocks


def score_pairs(terms, enroll, test, device=None):
    """Scores (N,) float64 of the pairs of models enroll[p] and tests test[p], integer arrays (N,).

    Pairs are taken model by model. Blocks of models that meet many of the tests are scored by a matrix
    product and the pairs picked from it; where few pairs are asked for, their vectors are gathered. Memory
    beyond the vectors and the result is bounded whatever the list. ``device``: a voxark.arrays.Device, where
    the scores come about (by default numpy's).
    """
    device = device or Device()
    terms = terms.on(device)
    num_models, num_tests = len(terms.left), len(terms.right)
    scores = np.empty(len(enroll))
    order = None if (np.diff(enroll) >= 0).all() else np.argsort(enroll, kind="stable")
    by_model = enroll if order is None else enroll[order]
    step = max(1, _BLOCK_SCORES // max(1, num_tests))
    firsts = np.arange(0, num_models, step)
    bounds = np.append(np.searchsorted(by_model, firsts), len(by_model))
    for first, begin, end in zip(firsts.tolist(), bounds[:-1].tolist(), bounds[1:].tolist()):
        if begin == end:
            continue
        chosen = slice(begin, end) if order is None else order[begin:end]
        rows = min(step, num_models - first)
        if (end - begin) * _PAIR_COST >= rows * num_tests:
            block = terms.dense(slice(first, first + rows))
            picked = block[device.asarray(enroll[chosen] - first), device.asarray(test[chosen])]
            scores[chosen] = device.to_numpy(picked)
        else:
            scores[chosen] = _gathered(terms, enroll[chosen], test[chosen], device)
    return scores


def _gathered(terms, enroll, test, device):
    step = max(1, _BLOCK_VALUES // max(1, terms.left.shape[1]))
    scores = np.empty(len(enroll))
    for begin in range(0, len(enroll), step):
        part = slice(begin, begin + step)
        pairs = terms.pairs(device.asarray(enroll[part]), device.asarray(test[part]), device.xp)
        scores[part] = device.to_numpy(pairs)
    return scores


def trials_by_test(trials):
    """Yield (test number, indices of its trials) of every test that has trials, for tests that stream by."""
    order = np.argsort(trials.test, kind="stable")
    bounds = np.flatnonzero(np.diff(trials.test[order], prepend=-1))
    for begin, end in zip(bounds, np.append(bounds[1:], len(order))):
        yield int(trials.test[order[begin]]), order[begin:end]


def score_streamed(trials, entries, enroll_place, score, fail):
    """Score trials test by test as the tests stream by: scores (N,) float64, NaN where a side is missing.

    ``entries``: (test key, value) pairs; ``score(value, models)`` returns the scores of the models with the
    numbers ``models``; ``enroll_place`` gives each enrolment id its number, -1 where there is no model.
    ``fail(key, reason)`` is told of each test that does not come or cannot be scored.
    """
    waiting = {trials.test_ids[test]: chosen for test, chosen in trials_by_test(trials)}
    scores = np.full(len(trials), np.nan)
    for key, value in entries:
        chosen = waiting.pop(key, None)
        if chosen is None:
            continue
        models = enroll_place[trials.enroll[chosen]]
        try:
            scores[chosen[models >= 0]] = score(value, models[models >= 0])
        except VoxarkError as error:
            fail(key, str(error))
    for key in waiting:
        fail(key, "is missing among the tests")
    return scores
