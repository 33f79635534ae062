"""Purity of neighbourhoods: how often a segment's nearest neighbours have its class."""

from typing import NamedTuple

import numpy as np

NUM_NEIGHBOURS = 10


class Purity(NamedTuple):
    """``purity``: mean share of nearest neighbours with the segment's class; ``chance``: of random ones."""

    purity: float
    chance: float


def knn_purity(x, split, num_neighbours=NUM_NEIGHBOURS):
    """The Purity of the test segments of a Split among its training segments, by Euclidean distance.

    x (N,D): the latents of ``split.rows``, not standardised, so that dimensions without use do not count.
    Neighbours come from other utterances (or speakers) than the segment, since a split divides no group.
    """
    from voxark.disentanglement.probes import require_sklearn

    train, test, labels = x[~split.is_test], x[split.is_test], split.labels
    of_train, of_test = labels[~split.is_test], labels[split.is_test]
    number = min(num_neighbours, len(train))
    search = require_sklearn().neighbors.NearestNeighbors(n_neighbors=number, algorithm="brute").fit(train)
    nearest = search.kneighbors(test, return_distance=False)
    purity = float(np.mean(of_train[nearest] == of_test[:, None]))
    shares = [np.bincount(part, minlength=len(split.names)) / len(part) for part in (of_train, of_test)]
    return Purity(purity, float(shares[0] @ shares[1]))
