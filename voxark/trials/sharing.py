"""What the trials of one class of a list share: speakers and utterances, as sums over groups.

For every factor (a speaker, an utterance, a pair of speakers, an utterance with the other speaker) let Z be
the matrix of indicators of N trials and the factor's values. Products with ZZ', and traces of it, are sums
over groups, so that all that is known of the N x N covariance of the trials costs O(N).
"""

from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

# Which multiples of the Gram matrices give the ordered pairs of trials of each kind. A trial counts for
# itself in all of them, twice where a factor has two places.
TARGET_FACTORS = ("self", "speaker", "utterance")
TARGET_KINDS = {"same": (1, 0, 0), "c1": (-2, 0, 1), "c2": (1, 1, -1)}
NONTARGET_FACTORS = ("self", "speaker", "utterance", "pair", "cross")
NONTARGET_KINDS = {
    "same": (1, 0, 0, 0, 0),
    "c_us": (-2, 0, 0, 0, 1),
    "c_ss": (1, 0, 0, 1, -1),
    "c_u": (0, 0, 1, 0, -1),
    "c_s": (0, 1, -1, -2, 1),
}
# The factor whose variance is each component, and the multiples of the components in each kind's correlation.
LETTERS = {"speaker": "u", "utterance": "v", "pair": "p", "cross": "q", "self": "e"}
TARGET_MODEL = {"same": (1, 2, 1), "c1": (1, 1, 0), "c2": (1, 0, 0)}  # u, v, e
NONTARGET_MODEL = {  # u, v, p, q, e
    "same": (2, 2, 1, 2, 1),
    "c_us": (2, 1, 1, 1, 0),
    "c_ss": (2, 0, 1, 0, 0),
    "c_u": (1, 1, 0, 0, 0),
    "c_s": (1, 0, 0, 0, 0),
}


class Factor(NamedTuple):
    """Groups of N trials: trial t is in the groups ``index[:, t]`` (1 or 2 of them) of ``size`` groups."""

    index: np.ndarray
    size: int

    def sums(self, w):
        """Z'w, the sums (size,) of w (N,) over each group."""
        total = np.bincount(self.index[0], w, self.size)
        for index in self.index[1:]:
            total += np.bincount(index, w, self.size)
        return total

    def gram(self, w):
        """ZZ'w (N,) of w (N,)."""
        sums = self.sums(w)
        product = sums[self.index[0]]
        for index in self.index[1:]:
            product += sums[index]
        return product


class Sharing:
    """N trials of one class, all different, with their factors; make it with :meth:`of_targets` or its like.

    ``factors``: {name: Factor}; ``kinds``, ``model``: the tables above for this class.
    """

    def __init__(self, number, factors, kinds, model):
        self.number, self.factors, self.kinds, self.model = number, factors, kinds, model

    @classmethod
    def of_targets(cls, utterances, speaker):
        """Of the numbers of two utterances (2,N) and of their speaker (N,) for each target trial."""
        factors = {"speaker": _factor(speaker[None]), "utterance": _factor(utterances)}
        return cls(len(speaker), factors, TARGET_KINDS, TARGET_MODEL)

    @classmethod
    def of_nontargets(cls, utterances, speakers):
        """Of the numbers of two utterances (2,N) and of their two speakers (2,N) for each nontarget trial."""
        num_speakers = int(speakers.max(initial=-1)) + 1
        low, high = np.minimum(*speakers).astype(np.int64), np.maximum(*speakers)
        cross = utterances.astype(np.int64) * num_speakers + speakers[::-1]
        factors = {
            "speaker": _factor(speakers),
            "utterance": _factor(utterances),
            "pair": _factor((low * num_speakers + high)[None]),
            "cross": _factor(cross),
        }
        return cls(speakers.shape[1], factors, NONTARGET_KINDS, NONTARGET_MODEL)

    def __len__(self):
        return self.number

    def apply(self, w, components):
        """S w (N,): the matrix of correlations that TargetComponents or NontargetComponents give, times w."""
        product = components.e * w
        for name, factor in self.factors.items():
            if component := getattr(components, LETTERS[name]):
                product += component * factor.gram(w)
        return product

    def pair_sums(self, x):
        """{kind: sum of x_t x_t'} over the ordered pairs of trials of each kind, of x (N,) float64."""
        squares = [float(x @ x)]
        for factor in self.factors.values():
            sums = factor.sums(x)
            squares.append(float(sums @ sums))
        return {kind: float(np.dot(multiples, squares)) for kind, multiples in self.kinds.items()}

    def pair_counts(self):
        """{kind: number of ordered pairs of trials of each kind}, exact."""
        squares = [self.number]
        for factor in self.factors.values():
            sums = sum(np.bincount(index, minlength=factor.size) for index in factor.index)
            is_large = sums.max(initial=0) > 1 << 26  # squares that int64 might not add up
            squares.append(int(np.sum(sums.astype(object) ** 2)) if is_large else int(sums @ sums))
        return {
            kind: sum(multiple * square for multiple, square in zip(multiples, squares))
            for kind, multiples in self.kinds.items()
        }

    def gram_ones(self):
        """Gram matrices times the vector of ones: (1+F,N) float64, the identity's first."""
        ones = np.ones(self.number)
        return np.stack([ones, *(factor.gram(ones) for factor in self.factors.values())])

    def select(self, chosen):
        """The Sharing of the trials of a mask (N,)."""
        factors = {name: Factor(each.index[:, chosen], each.size) for name, each in self.factors.items()}
        return Sharing(int(np.count_nonzero(chosen)), factors, self.kinds, self.model)


def _factor(codes):
    """A Factor of codes (J,N) >= 0, numbered anew where most of the numbers up to them are not used."""
    size = int(codes.max(initial=-1)) + 1
    if size > 4 * codes.size + 1024:
        found, index = np.unique(codes, return_inverse=True)
        codes, size = index.reshape(codes.shape), len(found)
    return Factor(codes.astype(np.int32 if size < 2**31 else np.int64), size)


class ClassOfList(NamedTuple):
    """The trials of one class of a list: ``sharing`` of the N different ones among them.

    ``places`` (M,): where they stand in the list; ``which`` (M,): the different trial that each is, for
    (a, b) and (b, a) are the same; ``speakers`` (2,N) numbers of the speakers of each different trial;
    ``utterances`` (2,N) likewise.
    """

    sharing: Sharing
    places: np.ndarray
    which: np.ndarray
    speakers: np.ndarray
    utterances: np.ndarray

    def merged(self, values):
        """Means (N,) of values (M,) over what is the same trial."""
        if len(self.which) == len(self.sharing):
            return values
        return np.bincount(self.which, values) / np.bincount(self.which)

    def spread(self, weights):
        """Weights (M,) of the list's trials that share out the weights (N,) of the different ones."""
        if len(self.which) == len(self.sharing):
            return weights
        return (weights / np.bincount(self.which))[self.which]


def classes_of_list(trials, speakers):
    """(targets, nontargets), each a ClassOfList or None, of a TrialList and its TrialSpeakers.

    The two sides of a trial have one set of ids: an id that enrols and tests is one utterance, and an
    enrolment id of several utterances is an utterance of its own. A trial of an utterance with itself is a
    VoxarkError.
    """
    # numbered by name, so that sums do not depend on the order of the lines
    number = {key: place for place, key in enumerate(sorted({*trials.enroll_ids, *trials.test_ids}))}
    sides = np.stack(
        (
            np.array([number[key] for key in trials.enroll_ids], np.int64)[trials.enroll],
            np.array([number[key] for key in trials.test_ids], np.int64)[trials.test],
        )
    )
    itself = sides[0] == sides[1]
    if itself.any():
        raise VoxarkError(
            f"{trials.name}: {itself.sum()} trials are of an utterance with itself, the first is "
            f"'{trials.pair(int(np.argmax(itself)))}': they tell nothing, take them out of the list"
        )
    same = speakers.enroll == speakers.test
    return tuple(_class_of(sides, speakers, np.flatnonzero(chosen)) for chosen in (same, ~same))


def _class_of(sides, speakers, places):
    if not len(places):
        return None
    utterances = sides[:, places]
    both = np.stack((speakers.enroll[places], speakers.test[places])).astype(np.int64)
    low, high = np.minimum(*utterances), np.maximum(*utterances)
    _, first, which = np.unique(low * (int(sides.max()) + 1) + high, return_index=True, return_inverse=True)
    if len(first) == len(places):  # keep the list's order where nothing is merged
        which = np.arange(len(places))
    else:
        utterances, both = utterances[:, first], both[:, first]
    if both[0, 0] == both[1, 0]:
        sharing = Sharing.of_targets(utterances, both[0])
    else:
        sharing = Sharing.of_nontargets(utterances, both)
    return ClassOfList(sharing, places, which, both, utterances)
