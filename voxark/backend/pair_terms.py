"""The form that every back-end on vectors brings its scores into: scoring in blocks is written once."""

from typing import NamedTuple

import numpy as np


class PairTerms(NamedTuple):
    """score(i, j) = left[i] . right[j] + row[i] + column[group[i], j], for models i < M and tests j < T.

    left (M,K), right (T,K), row (M,), column (G,T), group (M,) integers below G: models that share what they
    add to a test. float64; numpy arrays, or arrays of the device that ``on`` has put them on.
    """

    left: np.ndarray
    right: np.ndarray
    row: np.ndarray
    column: np.ndarray
    group: np.ndarray

    def on(self, device):
        """The same terms on a voxark.arrays.Device."""
        return PairTerms(*(device.asarray(part) for part in self))

    def restricted(self, models, tests):
        """The terms of the models and of the tests with these numbers, (M',) and (T',), in their order."""
        return PairTerms(self.left[models], self.right[tests], self.row[models], self.column[:, tests],
                         self.group[models])

    def dense(self, models=slice(None), tests=slice(None)):
        """Scores (M',T') of the models of a slice against the tests of a slice, by default all."""
        scores = self.left[models] @ self.right[tests].T
        scores += self.row[models, None]
        scores += self.column[0, tests] if len(self.column) == 1 else self.column[self.group[models], tests]
        return scores

    def pairs(self, enroll, test, xp=np):
        """Scores (N,) of the pairs of models enroll[p] and tests test[p], index arrays (N,) of xp."""
        scores = xp.vecdot(self.left[enroll], self.right[test])
        return scores + self.row[enroll] + self.column[self.group[enroll], test]

    def averaged(self, starts):
        """Terms of models whose score is the mean of their sessions' scores.

        Model i is made of the rows starts[i] to starts[i+1]; exact, as scores are linear in (left, row). All
        rows must be of one group.
        """
        counts = np.diff(np.append(starts, len(self.left)))
        left = np.add.reduceat(self.left, starts, axis=0) / counts[:, None]
        row = np.add.reduceat(self.row, starts) / counts
        return PairTerms(left, self.right, row, self.column, np.zeros(len(starts), np.intp))


def bilinear_terms(left, right):
    """PairTerms of plain dot products left (M,K) . right (T,K)."""
    return PairTerms(
        left, right, np.zeros(len(left)), np.zeros((1, len(right))), np.zeros(len(left), np.intp)
    )
