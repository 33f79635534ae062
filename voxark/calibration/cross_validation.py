"""Cross-validation of calibration by speaker: no trial is calibrated by what its own speakers have taught.

Speakers are dealt into K groups. A trial of speakers from the groups i and j (i = j for targets) gets the
model that was trained on the trials without any speaker of either group: K(K+1)/2 models.
"""

import numpy as np

from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng


def speaker_groups(names, num_groups, srand):
    """The group, 0 to K-1, of each speaker of ``names``: sizes differ by one at most.

    It depends on the names and ``srand`` alone, not on their order. VoxarkError for fewer speakers than K.
    """
    if num_groups < 3:
        raise VoxarkError(
            f"{num_groups} groups of speakers: at least 3 are needed, as a trial can touch two of them"
        )
    if len(names) < num_groups:
        raise VoxarkError(
            f"{len(names)} speakers cannot be dealt into {num_groups} groups: lower --cross-validate"
        )
    draws = [seeded_rng(srand, "speaker groups", name).random() for name in names]
    groups = np.empty(len(names), np.int64)
    groups[sorted(range(len(names)), key=lambda place: (draws[place], names[place]))] = (
        np.arange(len(names)) % num_groups
    )
    return groups


def partitions(speakers, num_groups, srand):
    """Yield (indices of the trials to train on, indices of those to calibrate), K(K+1)/2 times at most.

    ``speakers``: TrialSpeakers of N trials. Each trial is calibrated once; no speaker is on both sides.
    """
    groups = speaker_groups(speakers.names, num_groups, srand)
    first, second = groups[speakers.enroll], groups[speakers.test]
    low, high = np.minimum(first, second), np.maximum(first, second)
    for i in range(num_groups):
        for j in range(i, num_groups):
            held_out = np.flatnonzero((low == i) & (high == j))
            if len(held_out):
                yield np.flatnonzero((low != i) & (low != j) & (high != i) & (high != j)), held_out


def cross_validate(fit, columns, target, weights, speakers, num_groups, srand):
    """LLRs (N,) of each trial by a model of other speakers, and what ``fit`` returned each time.

    ``fit(columns, target, weights)`` trains on a part of the rows of columns (N,D) and returns (model with
    ``apply(columns)``, details). VoxarkError where a part lacks a class.
    """
    llrs, details = np.empty(len(columns)), []
    for train, held_out in partitions(speakers, num_groups, srand):
        labels = target[train]
        if labels.all() or not labels.any():
            missing = "nontarget" if len(labels) and labels.all() else "target"
            raise VoxarkError(
                f"without the speakers of two of {num_groups} groups, {len(train)} trials and no {missing} "
                "are left to train on: the list needs more speakers for cross-validation"
            )
        model, detail = fit(columns[train], labels, None if weights is None else weights[train])
        llrs[held_out] = model.apply(columns[held_out])
        details.append(detail)
    return llrs, details
