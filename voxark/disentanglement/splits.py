"""Splits of labelled segments into training, test and folds, by groups that are never divided.

A group is what must not be on both sides: an utterance, or a speaker. Where every group has a single class
(speakers of utterances), each class is split for itself; else (phones of speakers) groups are drawn whatever
their labels.
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

NUM_FOLDS = 3  # of the cross-validation
MIN_GROUPS = 3  # groups that a class needs: one for the test, two for the folds
MIN_TRAIN, MIN_TEST = 8, 2  # segments that a class needs on either side


class Split(NamedTuple):
    """N labelled segments of K classes, split.

    ``rows``: which of the given segments take part (N,); ``labels`` (N,) from 0 to K-1; ``names``: list of K;
    ``is_test`` (N,) bool; ``fold`` (N,) the fold of training segments, -1 for test ones; ``left_out``: dict
    of the classes that could not take part and why.
    """

    rows: np.ndarray
    labels: np.ndarray
    names: list
    is_test: np.ndarray
    fold: np.ndarray
    left_out: dict


def split_segments(labels, names, groups, rng, test_share=0.25, max_segments=20000, max_classes=500):
    """The Split of segments with ``labels`` (M,), -1 for none, and ``groups`` (M,), numbers not below 0.

    At most ``max_classes`` are drawn, and ``max_segments`` of them. Raises VoxarkError where fewer than two
    classes can be split.
    """
    rows, left_out = np.flatnonzero(labels >= 0), {}
    if len(names) > max_classes:
        drawn = np.sort(rng.choice(len(names), max_classes, replace=False))
        rows = rows[np.isin(labels[rows], drawn)]
        left_out = {names[k]: "not drawn" for k in sorted(set(range(len(names))) - set(drawn.tolist()))}
    if len(rows) > max_segments:
        rows = np.sort(rng.choice(rows, max_segments, replace=False))
    kept = np.unique(labels[rows])
    for k in sorted(set(range(len(names))) - set(kept.tolist())):
        left_out.setdefault(names[k], "no segment")
    missing = _too_few_groups(labels[rows], groups[rows], kept)
    rows, kept = _without(rows, labels, kept, left_out, names, *missing)
    if len(kept) >= 2:
        is_test = _draw_test(labels[rows], groups[rows], rng, test_share)
        missing = _too_few_segments(labels[rows], groups[rows], is_test, kept)
        before = rows
        rows, kept = _without(rows, labels, kept, left_out, names, *missing)
        is_test = is_test[np.isin(before, rows)]
    if len(kept) < 2:
        first = next(iter(left_out), None)
        why = f": {first}: {left_out[first]}" if first is not None else ""
        raise VoxarkError(f"{len(kept)} of {len(names)} classes have segments enough for training and test, "
                          f"two are needed{why}")
    number = np.searchsorted(kept, labels[rows])
    fold = _draw_folds(number, groups[rows], is_test, rng)
    return Split(rows, number, [names[k] for k in kept.tolist()], is_test, fold, left_out)


def _without(rows, labels, kept, left_out, names, bad, why):
    """Rows and classes without the classes ``bad``, of which ``left_out`` takes note."""
    for k, reason in zip(bad.tolist(), why):
        left_out[names[k]] = reason
    return rows[~np.isin(labels[rows], bad)], kept[~np.isin(kept, bad)]


def _too_few_groups(labels, groups, classes):
    counts = np.array([len(np.unique(groups[labels == k])) for k in classes.tolist()], np.int64)
    bad = counts < MIN_GROUPS
    why = [f"in {n} utterances or speakers, {MIN_GROUPS} are needed" for n in counts[bad].tolist()]
    return classes[bad], why


def _too_few_segments(labels, groups, is_test, classes):
    bad, why = [], []
    for k in classes.tolist():
        of_class = labels == k
        train, test = int(np.sum(of_class & ~is_test)), int(np.sum(of_class & is_test))
        train_groups = len(np.unique(groups[of_class & ~is_test]))
        if train < MIN_TRAIN or test < MIN_TEST or train_groups < 2:
            bad.append(k)
            why.append(f"{train} training and {test} test segments, {MIN_TRAIN} and {MIN_TEST} are needed")
    return np.array(bad, classes.dtype), why


def _groups_by_class(labels, groups):
    """Arrays of groups that are to be divided: of each class, or of all where a group has several classes."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    if len(np.unique(pairs[0])) < pairs.shape[1]:
        return [np.unique(groups)]
    return [pairs[0, pairs[1] == k] for k in np.unique(labels).tolist()]


def _draw_test(labels, groups, rng, share):
    chosen = []
    for members in _groups_by_class(labels, groups):
        number = min(max(1, round(share * len(members))), len(members) - 2)
        chosen.append(rng.permutation(members)[:number])
    return np.isin(groups, np.concatenate(chosen))


def _draw_folds(labels, groups, is_test, rng):
    """Folds (N,) of the training segments; a class with two groups has them in two folds."""
    fold = np.full(len(labels), -1)
    train = ~is_test
    for members in _groups_by_class(labels[train], groups[train]):
        drawn = rng.permutation(members)
        number = (np.arange(len(drawn)) + rng.integers(NUM_FOLDS)) % NUM_FOLDS
        order = np.argsort(drawn)
        inside = train & np.isin(groups, members)
        fold[inside] = number[order][np.searchsorted(drawn[order], groups[inside])]
    return fold
