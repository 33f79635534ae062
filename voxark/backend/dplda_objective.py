"""The verification loss of a DPLDA over all pairs of N vectors, and its gradient, without N x N memory.

    L = [P sum_tar w softplus(-(s + tau)) + (1 - P) sum_non w softplus(s + tau)] / h(P),  sum w = 1 in each
    class, tau = ln(P/(1-P)), h(P) = -P ln P - (1-P) ln(1-P) [tutorial]: s = 0 for all pairs gives exactly 1.

Scores are S = 2 E Lambda E' + g 1' + 1 g' + k. With G = dL/dS over the pairs i < j, and r the sum of G over
the pairs that a vector is in, the gradients are matrix products:

    dL/dLambda = E'GE + E'G'E,  dL/dGamma = E' diag(r) E,  dL/dc = E' r,  dL/dk = sum G.

S and G exist a tile at a time. L is convex in (Lambda, Gamma, c, k), in which scores are linear.
"""

from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import symmetric
from voxark.backend.dplda import Dplda
from voxark.errors import VoxarkError

TILE = (256, 512)  # rows and columns of S at a time: a megabyte, which stays in the second-level cache


class Tile(NamedTuple):
    """A part of S: slices ``rows``, ``columns``; ``target`` bool (r,c), or None for nontargets alone.

    ``weight``: a number for all its pairs, or (r,c).
    """

    rows: slice
    columns: slice
    target: np.ndarray | None
    weight: np.ndarray | float


class CountWeights(NamedTuple):
    """Relative weights by the speakers' numbers of vectors: target {n: w}, nontarget {(n, m): w}, n <= m."""

    target: dict
    nontarget: dict

    def of_speakers(self, counts):
        """(weight (S,) of target pairs, distinct counts (K,), weights (K,K) of nontarget pairs)."""
        distinct = np.unique(counts)
        table = np.array(
            [
                [
                    _looked_up(self.nontarget, (min(a, b), max(a, b)), (counts == a).sum() > (a == b))
                    for b in distinct.tolist()
                ]
                for a in distinct.tolist()
            ]
        )
        target = np.array([_looked_up(self.target, n, n > 1) for n in counts.tolist()])
        return target, distinct, table


def _looked_up(table, key, needed):
    if needed and key not in table:
        what = "target trials" if isinstance(key, int) else "nontarget trials"
        numbers = key if isinstance(key, int) else " and ".join(map(str, key))
        raise VoxarkError(f"the trial weights have none for {what} of speakers with {numbers} vectors")
    return float(table.get(key, 0.0))


def log_odds(p_target):
    """tau = ln(P/(1-P))."""
    return float(np.log(p_target) - np.log1p(-p_target))


def class_shares(p_target):
    """(P/h(P), (1-P)/h(P)): the total weights of targets and of nontargets in the loss."""
    entropy = -(p_target * np.log(p_target) + (1.0 - p_target) * np.log1p(-p_target))
    return p_target / entropy, (1.0 - p_target) / entropy


def total_weights(tiles):
    """Total weights (2,) of the target and of the nontarget trials of some Tiles."""
    totals = np.zeros(2)
    for rows, columns, target, weight in tiles:
        if target is None and np.ndim(weight) == 0:
            totals[1] += weight * (rows.stop - rows.start) * (columns.stop - columns.start)
        else:
            of_targets = 0.0 if target is None else weight[target].sum()
            totals += of_targets, weight.sum() - of_targets
    return totals


class Pairs:
    """All pairs i < j of N vectors, which are sorted by speaker, and the weight of each in the loss.

    labels (N,) ascending from 0; ``target`` (S,): weight of a pair of one speaker; ``kind`` (N,) and
    ``nontarget`` (K,K) symmetric: weight of a pair of two speakers, by the kinds of its vectors; ``same``
    (N,) integers or None: pairs with the same number do not count; ``listed``: sparse (N,N) array of relative
    weights of pairs i < j that replace the others', or None. ``scale``: factors of both classes.
    """

    def __init__(self, labels, target, kind, nontarget, same=None, listed=None, scale=(1.0, 1.0), tau=0.0):
        self.labels, self.kind, self.same, self.listed = np.asarray(labels), kind, same, listed
        self.target, self.nontarget, self.scale, self.tau = target, nontarget, scale, tau
        self.constant = float(nontarget.flat[0]) if (nontarget == nontarget.flat[0]).all() else None

    @classmethod
    def of_speakers(cls, labels, p_target=0.5, weights=None, same=None, listed=None):
        """The pairs of vectors with speakers labels (N,), weighted as the loss says: 1/h(P) in all.

        ``weights``: CountWeights, or None for equal weights within each class. VoxarkError for a class
        without a pair that has a weight.
        """
        counts = np.bincount(labels)
        if weights is None:
            target, distinct = np.ones(len(counts)), np.unique(counts)
            table = np.ones((len(distinct), len(distinct)))
        else:
            target, distinct, table = weights.of_speakers(counts)
        kind = np.searchsorted(distinct, counts)[labels]
        return cls(labels, target, kind, table, same, listed).normalised(p_target)

    def normalised(self, p_target):
        """The same pairs with total weights P/h(P) of targets and (1-P)/h(P) of nontargets."""
        totals = total_weights(self.tiles())
        for total, what in zip(totals, ("target", "nontarget")):
            if not total > 0:
                raise VoxarkError(
                    f"no {what} trial among the pairs of vectors that count: two speakers are "
                    "needed, and one with two vectors (of different recordings)"
                )
        scale = tuple(share / total for share, total in zip(class_shares(p_target), totals))
        tau = log_odds(p_target)
        return Pairs(self.labels, self.target, self.kind, self.nontarget, self.same, self.listed, scale, tau)

    def tiles(self):
        """Yield the Tiles that hold all pairs i < j once."""
        number, labels = len(self.labels), self.labels
        for begin in range(0, number, TILE[0]):
            rows = slice(begin, min(begin + TILE[0], number))
            listed = None if self.listed is None else self.listed[rows].toarray()
            for first in range(begin, number, TILE[1]):
                columns = slice(first, min(first + TILE[1], number))
                near = labels[first] <= labels[rows.stop - 1]
                target = labels[rows, None] == labels[columns] if near else None
                weight = self._weight(rows, columns, target, None if listed is None else listed[:, columns])
                if first == begin:
                    weight = np.triu(weight, 1)
                yield Tile(rows, columns, target, weight)

    def _weight(self, rows, columns, target, listed):
        if listed is not None:
            weight = listed * (self.scale[1] if target is None else np.where(target, *self.scale))
        else:
            weight = self._of_kinds(rows, columns)
            if target is not None:
                of_targets = self.scale[0] * self.target[self.labels[rows], None]
                weight = np.where(target, of_targets, weight)
        if self.same is not None:
            apart = self.same[rows, None] != self.same[columns]
            if target is not None or not apart.all():
                weight = weight * apart
        return weight

    def _of_kinds(self, rows, columns):
        if self.constant is not None:
            return self.scale[1] * self.constant
        return self.scale[1] * self.nontarget[self.kind[rows, None], self.kind[columns]]


class SessionPairs:
    """Models, each the mean of some vectors of one speaker, against all vectors but these.

    labels (M,) and test_labels (N,): speakers, ascending; ``barred``: sparse (M,N) array, not zero where a
    vector is no test of a model. Within each class all trials have the same weight.
    """

    def __init__(self, labels, test_labels, barred, p_target=0.5):
        self.labels, self.test_labels, self.barred = labels, test_labels, barred
        self.tau, self.scale = log_odds(p_target), (1.0, 1.0)
        totals = total_weights(self.tiles())
        if not totals.all():
            raise VoxarkError(
                "several sessions: no speaker has a vector beside those of its models, or all "
                "vectors are of one speaker"
            )
        self.scale = tuple(share / total for share, total in zip(class_shares(p_target), totals))

    def tiles(self):
        """Yield the Tiles of all trials."""
        labels, tests = self.labels, self.test_labels
        for begin in range(0, len(labels), TILE[0]):
            rows = slice(begin, min(begin + TILE[0], len(labels)))
            barred = self.barred[rows].toarray() != 0
            for first in range(0, len(tests), TILE[1]):
                columns = slice(first, min(first + TILE[1], len(tests)))
                target, weight = labels[rows, None] == tests[columns], self.scale[1]
                free = ~barred[:, columns]
                if target.any() or not free.all():
                    weight = np.where(target, *self.scale) * free
                else:
                    target = None
                yield Tile(rows, columns, target, weight)


def softplus_and_slope(z):
    """softplus(z) = ln(1+e^z); z becomes its derivative sigmoid(z) = exp(z - softplus(z)). No overflow."""
    cost = np.abs(z)
    np.negative(cost, out=cost)
    np.exp(cost, out=cost)
    np.log1p(cost, out=cost)
    cost += np.maximum(z, 0.0)
    z -= cost
    np.exp(z, out=z)
    return cost


def _cost(z, target, weight):
    """The loss of a tile of s + tau; z becomes G = dL/dS."""
    if target is not None:
        np.negative(z, out=z, where=target)
    cost = softplus_and_slope(z)
    value = float(weight * cost.sum()) if np.ndim(weight) == 0 else float(np.vdot(weight, cost))
    z *= weight
    if target is not None:
        np.negative(z, out=z, where=target)
    return value


def verification_loss(model, pairs, x, models=None):
    """(L, its gradient as a Dplda) of a Dplda over ``pairs`` of vectors x (N,D), float64.

    ``pairs``: Pairs of x with itself, or SessionPairs of ``models`` (M,D) with x. The gradient with respect
    to the symmetric matrices is symmetric: dL = <dLambda, gradient.lam> + ... O((M + N) D) memory.
    """
    left = x if models is None else models
    tests = _with_terms(model, x)
    enrolled = tests if models is None else _with_terms(model, left)
    dim = x.shape[1]
    of_left = np.column_stack(
        [2.0 * (left @ model.lam), enrolled[:, -1] + (model.k + pairs.tau), np.ones(len(left))]
    )
    value, product, of_tests = 0.0, np.zeros((len(left), dim + 1)), np.zeros(len(x))
    for rows, columns, target, weight in pairs.tiles():
        z = of_left[rows] @ tests[columns].T
        value += _cost(z, target, weight)
        product[rows] += z @ tests[columns, : dim + 1]
        of_tests[columns] += z.sum(axis=0)
    cross = left.T @ product[:, :dim]
    of_models = product[:, dim]
    if models is None:
        of_tests += of_models
        gamma, linear = (x * of_tests[:, None]).T @ x, of_tests @ x
    else:
        gamma = (x * of_tests[:, None]).T @ x + (left * of_models[:, None]).T @ left
        linear = of_tests @ x + of_models @ left
    return value, Dplda(cross + cross.T, symmetric(gamma), linear, float(of_models.sum()))


def _with_terms(model, x):
    """[x, 1, g(x)] (N,D+2): the right factor of S, whose first D+1 columns also sum G up."""
    return np.column_stack([x, np.ones(len(x)), model.of_one(x)])
