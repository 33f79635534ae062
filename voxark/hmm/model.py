"""The hidden Markov model: states, transitions, endings, and the mixtures that its states emit from.

p(X,z) = initial[z_1] prod_t transitions[z_t,z_t+1] prod_t b(x_t|z_t) final[z_T]. Two endings: with "set"
final is 1 in the states where an utterance may end and 0 elsewhere, at no cost [lecture]; with "prob" it is
the probability to leave the state for good, and each row of transitions with its final sums to 1, which makes
p a distribution over utterances of all lengths.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.io.hmm_files import ENDINGS, HmmParams


def safe_log(p):
    """Return ln p elementwise, -inf where p is 0, without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(p)


class Arcs(NamedTuple):
    """The transitions above zero, ordered by where they lead: source, target (E,) and ln of them (E,).

    ``targets`` (M,) are the states that any arc leads to, ``starts`` (M,) where the arcs of each begin, and
    ``segment`` (E,) the number of each arc's target among them.
    """

    source: np.ndarray
    target: np.ndarray
    log_prob: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    segment: np.ndarray


def _arcs(transitions):
    target, source = np.nonzero(transitions.T)
    targets, starts = np.unique(target, return_index=True)
    segment = np.repeat(np.arange(len(targets)), np.diff(np.append(starts, len(target))))
    return Arcs(source, target, np.log(transitions[source, target]), targets, starts, segment)


@dataclass(frozen=True)
class Hmm:
    """S states over P pdfs: initial (S,), transitions (S,S) (rows: from), final (S,), float64; ``ending``
    "set" or "prob"; pdfs a tuple of DiagGmm of one dimension; pdf_of (S,): which of them each state emits
    from.

    Numbers above 1 and rows that do not sum to 1 are accepted: graphs for decoding have penalties in them.
    Raises VoxarkError for shapes that disagree, negative numbers, NaN, and a model that cannot start or end.
    """

    initial: np.ndarray
    transitions: np.ndarray
    final: np.ndarray
    pdfs: tuple
    pdf_of: np.ndarray | None = None
    ending: str = "set"

    def __post_init__(self):
        for name in ("initial", "transitions", "final"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "pdfs", tuple(self.pdfs))
        pdf_of = np.arange(len(self.initial)) if self.pdf_of is None else self.pdf_of
        object.__setattr__(self, "pdf_of", np.asarray(pdf_of, dtype=np.intp))
        self._check()

    def _check(self):
        size = self.num_states
        if size == 0 or self.transitions.shape != (size, size) or self.final.shape != (size,):
            raise VoxarkError(f"HMM has {size} states, transitions of shape {self.transitions.shape} and "
                              f"{self.final.shape} final probabilities: the shapes disagree")
        if self.ending not in ENDINGS:
            raise VoxarkError(f"HMM has the ending {self.ending!r}, expected set or prob")
        for name in ("initial", "transitions", "final"):
            values = getattr(self, name)
            if not (np.isfinite(values).all() and values.min() >= 0):
                raise VoxarkError(f"HMM has {name} probabilities that are negative or not a number")
        if not (self.initial.any() and self.final.any()):
            raise VoxarkError("HMM has no state to start in, or none to end in")
        fits = self.pdf_of.shape == (size,) and 0 <= self.pdf_of.min() <= self.pdf_of.max() < len(self.pdfs)
        if not fits:
            raise VoxarkError(f"HMM has {len(self.pdfs)} pdfs, which its {size} states do not fit")
        if len({pdf.dim for pdf in self.pdfs}) > 1:
            raise VoxarkError("HMM has pdfs of different dimensions")

    @property
    def num_states(self):
        """Number of states S."""
        return len(self.initial)

    @property
    def dim(self):
        """Dimension D of the features."""
        return self.pdfs[0].dim

    @cached_property
    def arcs(self):
        """The transitions above zero as Arcs."""
        return _arcs(self.transitions)

    @cached_property
    def reverse_arcs(self):
        """The transitions above zero the other way round: grouped by where they come from."""
        return _arcs(self.transitions.T)

    @cached_property
    def shortest_path(self):
        """Number of frames of the shortest utterance that the model can emit; infinite if it emits none."""
        reached, after = self.initial > 0, 1
        while not (reached & (self.final > 0)).any():
            wider = reached | (self.transitions[reached] > 0).any(axis=0)
            if np.array_equal(wider, reached):
                return float("inf")
            reached, after = wider, after + 1
        return after

    def unnormalised(self, tolerance=1e-4):
        """Return the states (list) whose probabilities to go on (and to end, with ending "prob") miss 1.

        A state that has nowhere to go is none of them where utterances may end in it.
        """
        total = self.transitions.sum(axis=1) + (self.final if self.ending == "prob" else 0.0)
        stops = (total == 0) & (self.final > 0)
        return np.flatnonzero((np.abs(total - 1.0) > tolerance) & ~stops).tolist()

    @classmethod
    def from_params(cls, params):
        """Build the model from the contents of a file (HmmParams)."""
        transitions = np.zeros((len(params.initial),) * 2)
        for row, (to, probs) in zip(transitions, params.arcs):
            row[to] = probs
        pdfs = [DiagGmm.from_params(pdf) for pdf in params.pdfs]
        return cls(params.initial, transitions, params.final, pdfs, params.pdf_of, params.ending)

    def to_params(self, dtype=np.float32):
        """Return the contents of a file: probabilities float64, the pdfs' parameters as ``dtype``."""
        arcs = [(np.flatnonzero(row).astype(np.int32), row[row > 0]) for row in self.transitions]
        pdfs = [pdf.to_params(dtype) for pdf in self.pdfs]
        return HmmParams(self.ending, self.initial, self.final, self.pdf_of.astype(np.int32), arcs, pdfs)


def read_hmm(rxfilename):
    """Read an Hmm from a file."""
    try:
        return Hmm.from_params(tables.read_object("hmm", rxfilename))
    except VoxarkError as error:
        raise VoxarkError(str(error) if rxfilename in str(error) else f"{rxfilename}: {error}") from None


def write_hmm(wxfilename, hmm, binary=True):
    """Write an Hmm to a file."""
    tables.write_object("hmm", wxfilename, hmm.to_params(), binary=binary)
