"""Mini-batches of a DPLDA's training, whose gradients are unbiased, and models of several sessions.

Batch A: B speakers with all their vectors (or up to a cap); batch B: 2 vectors of each of B speakers
[tutorial]. A pair's weight in a batch is its weight in the whole loss over its inclusion probability
(Horvitz-Thompson), and batches are not normalised one by one: the mean over all batches is the whole loss and
its gradient.
"""

import numpy as np

from voxark.backend.dplda_objective import Pairs, SessionPairs
from voxark.errors import VoxarkError


class Batches:
    """Draws batches of the vectors of ``pairs`` (Pairs): ``num_speakers`` speakers, of each at most ``cap``.

    Speakers are drawn without replacement, then their vectors; cap 0: all. A batch without target pairs costs
    nothing by them; ``without_target`` counts such batches.
    """

    def __init__(self, pairs, num_speakers, cap, rng):
        self.pairs, self.rng, self.without_target = pairs, rng, 0
        self.counts = np.bincount(pairs.labels)
        self.firsts = np.cumsum(self.counts) - self.counts
        self.num_speakers = min(num_speakers, len(self.counts))
        self.taken = np.minimum(self.counts, cap) if cap else self.counts
        if self.num_speakers < 2:
            raise VoxarkError(f"--batch-speakers={num_speakers}: at least two are needed")
        all_speakers, share = len(self.counts), self.num_speakers / len(self.counts)
        whole, part = self.counts * (self.counts - 1.0), self.taken * (self.taken - 1.0)
        self._within = np.divide(whole, part, out=np.zeros(len(part)), where=part > 0) / share
        self._of_vectors = self.counts / self.taken
        self._between = (all_speakers - 1.0) / (self.num_speakers - 1.0) / share

    def draw(self):
        """Row numbers (n,), ascending, of a batch's vectors, and its Pairs."""
        speakers = np.sort(self.rng.choice(len(self.counts), self.num_speakers, replace=False))
        counts = self.counts[speakers]
        owner = np.repeat(np.arange(len(speakers)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.lexsort((self.rng.random(len(owner)), owner))  # shuffled within each speaker
        chosen = np.sort(order[place < self.taken[speakers][owner]])
        rows = self.firsts[speakers][owner[chosen]] + place[chosen]
        return rows, self.pairs_of(rows)

    def pairs_of(self, rows):
        """The Pairs of a batch of the vectors ``rows`` (n,), ascending, of ``num_speakers`` speakers."""
        whole = self.pairs
        speakers, labels = np.unique(whole.labels[rows], return_inverse=True)
        if not (self.taken[speakers] > 1).any():
            self.without_target += 1
        of_kind = np.ones(len(whole.nontarget))
        of_kind[whole.kind[self.firsts]] = self._of_vectors  # vectors of one kind have speakers of one count
        table = whole.nontarget * np.outer(of_kind, of_kind) * self._between
        target = whole.target[speakers] * self._within[speakers]
        same = None if whole.same is None else whole.same[rows]
        listed = None if whole.listed is None else self._listed(rows)
        return Pairs(labels, target, whole.kind[rows], table, same, listed, whole.scale, whole.tau)

    def _listed(self, rows):
        """The listed weights of the pairs of ``rows`` over their inclusion probabilities."""
        part = self.pairs.listed[rows][:, rows].tocoo()
        first, second = (self.pairs.labels[rows][side] for side in (part.row, part.col))
        apart = self._of_vectors[first] * self._of_vectors[second] * self._between
        part.data = part.data * np.where(first == second, self._within[first], apart)
        return part.tocsr()


def draw_sessions(x, labels, max_enroll, rng, p_target, same=None):
    """Models of 1 to ``max_enroll`` vectors, drawn at random: (models (M,D), SessionPairs with all x (N,D)).

    A speaker of n vectors gets n models, each the mean of k of them, k uniform from 1 to min(max_enroll, n-1)
    (1 where n = 1). A model's own vectors, and those of the same recordings (``same`` (N,)), are no tests
    of it.
    """
    from scipy import sparse

    counts = np.bincount(labels)
    firsts = np.cumsum(counts) - counts
    member_rows, model_rows = [], []
    for model, speaker in enumerate(labels.tolist()):
        number = int(counts[speaker])
        sessions = 1 + int(rng.integers(min(max_enroll, max(number - 1, 1))))
        member_rows.append(firsts[speaker] + rng.permutation(number)[:sessions])
        model_rows.append(np.full(sessions, model))
    member_rows, model_rows = np.concatenate(member_rows), np.concatenate(model_rows)
    ones = np.ones(len(member_rows))
    members = sparse.csr_array((ones, (model_rows, member_rows)), shape=(len(labels), len(labels)))
    barred = members
    if same is not None:
        in_recording = sparse.csr_array((np.ones(len(same)), (np.arange(len(same)), same)))
        barred = (members @ in_recording) @ in_recording.T
    models = (members @ x) / members.sum(axis=1)[:, None]
    return models, SessionPairs(labels, labels, barred, p_target)
