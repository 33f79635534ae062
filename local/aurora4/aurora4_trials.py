"""Trials of Aurora-4: a sample of pairs of test utterances, the same number of each pair of conditions."""

import numpy as np

from voxark.random_numbers import seeded_rng
from voxark.trials.lists import TrialList


def _numbers(values):
    return np.unique(values, return_inverse=True)[1]


def sample_trials(keys, speakers, sentences, conditions, num_targets, num_nontargets, srand=0):
    """A TrialList of pairs of N utterances, sorted by ids; the first four arguments are lists (N,) of str.

    Each unordered pair of conditions, a condition with itself among them, gives ``num_targets`` target and
    ``num_nontargets`` nontarget pairs, or as many as there are, drawn without replacement. The two utterances
    are different sentences: one recording with two noises would be no trial. A coin says which enrols.
    """
    order = np.argsort(np.array(keys))
    keys = [keys[i] for i in order]
    speaker, sentence, condition = (
        _numbers(np.array(values)[order]) for values in (speakers, sentences, conditions)
    )
    names, pairs = sorted(set(conditions)), []
    members = [np.flatnonzero(condition == c) for c in range(len(names))]
    for a, name in enumerate(names):
        for b in range(a, len(names)):
            one, other = np.meshgrid(members[a], members[b], indexing="ij")
            allowed = sentence[one] != sentence[other]
            if a == b:
                allowed &= one < other
            same = speaker[one] == speaker[other]
            rng = seeded_rng(srand, "aurora4", name, names[b])
            for mask, number in ((allowed & same, num_targets), (allowed & ~same, num_nontargets)):
                places = np.flatnonzero(mask)
                if len(places) > number:
                    places = rng.choice(places, number, replace=False, shuffle=False)
                drawn = np.stack([one.ravel()[places], other.ravel()[places]], axis=1)
                turn = rng.random(len(drawn)) < 0.5
                drawn[turn] = drawn[turn, ::-1]
                pairs.append(drawn)
    pairs = np.concatenate(pairs) if pairs else np.zeros((0, 2), int)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    enroll, test = pairs.T.astype(np.int32)
    return TrialList("trials", keys, keys, enroll, test, speaker[enroll] == speaker[test])
