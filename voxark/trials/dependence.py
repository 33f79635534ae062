"""How far trials that share speakers or utterances are correlated, estimated from a scored list in O(N).

Products of the centred values of two trials are averaged by what the two share, over all ordered pairs of
trials, by sums over groups (:mod:`voxark.trials.sharing`); no pair of trials is ever visited. The averages,
less what the estimated mean takes from them, are fitted by components of variance that are not negative.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.trials.correlations import NontargetComponents, TargetComponents
from voxark.trials.sharing import LETTERS, TARGET_MODEL

KINDS = {  # for people
    "c1": "same speaker, one utterance shared",
    "c2": "same speaker, none shared",
    "c_us": "both speakers and one utterance shared",
    "c_ss": "both speakers shared, no utterance",
    "c_u": "one speaker shared, with the utterance",
    "c_s": "one speaker shared, other utterances",
}


@dataclass
class DependenceOptions:
    """Of what the correlations are estimated, and how sure they are."""

    on: Literal["loss", "score"] = option(
        "loss", "Correlations of the losses of scores that are log-likelihood ratios, or of the scores"
    )
    p_target: float = option(0.5, "Prior of a target (costs included) at which the loss is taken")
    num_groups: int = option(50, "Groups of speakers to leave out in turn for standard errors (0: none)")

    def check(self):
        """Refuse what is out of range."""
        if not 0.0 < self.p_target < 1.0:
            raise VoxarkError(f"--p-target={self.p_target:g}: a number between 0 and 1 is expected")
        if self.num_groups < 0 or self.num_groups == 1:
            raise VoxarkError(f"--num-groups={self.num_groups}: at least 2 groups are expected, or 0")

    def values(self, scores, is_target):
        """What is correlated (N,): the scores (N,), or their losses as trials of the class."""
        if self.on == "score":
            return np.asarray(scores, np.float64)
        return trial_losses(scores, is_target, self.p_target)


def trial_losses(scores, is_target, p_target=0.5):
    """Cross entropies (N,) of scores (N,), LLRs: ln(1 + e^-(s + t)) of targets, ln(1 + e^(s + t)) of others.

    t = ln(p / (1 - p)) of the prior p.
    """
    shifted = np.asarray(scores, np.float64) + np.log(p_target) - np.log1p(-p_target)
    return np.logaddexp(0.0, -shifted if is_target else shifted)


class Dependence(NamedTuple):
    """What was found of one class: num_trials, mean, variance of the values, and for each kind of pairs

    ``counts``: number of unordered pairs of trials; ``measured``: correlation as averaged, None without
    pairs; ``correlations``: of the fitted ``components``; ``errors``: their standard errors, or None.
    """

    num_trials: int
    mean: float
    variance: float
    counts: dict
    measured: dict
    correlations: dict
    components: tuple
    errors: dict | None

    def as_dict(self):
        """For the file of correlations."""
        return {**self._asdict(), "components": self.components._asdict()}


def estimate(sharing, values, speakers=None, num_groups=0):
    """Dependence of N trials of one class with ``values`` (N,).

    ``speakers`` (2,N): numbers of both speakers, of whom ``num_groups`` groups are left out in turn for
    standard errors. VoxarkError for values that do not vary, or trials too few.
    """
    components, moments = _fit(sharing, values)
    counts = {kind: count // 2 for kind, count in moments.counts.items() if kind != "same"}
    measured = {
        kind: moments.sums[kind] / moments.counts[kind] / moments.variance if count else None
        for kind, count in counts.items()
    }
    errors = None
    if num_groups:
        errors = jackknife(sharing, values, speakers, num_groups)
    return Dependence(
        len(sharing),
        moments.mean,
        moments.variance,
        counts,
        measured,
        components.correlations,
        components,
        errors,
    )


class _Moments(NamedTuple):
    """Sums of products and numbers of ordered pairs by kind, of centred values; their mean and variance."""

    sums: dict
    counts: dict
    mean: float
    variance: float


def _fit(sharing, values):
    """(components, _Moments) of one class."""
    if len(sharing) < 2:
        raise VoxarkError(f"correlations need more than {len(sharing)} trials of a class")
    mean = float(np.mean(values))
    centred = values - mean
    sums = sharing.pair_sums(centred)
    variance = sums["same"] / len(sharing)
    if not variance > 1e-24 * max(mean * mean, 1e-300):
        raise VoxarkError("all values of a class are the same: nothing can be said of their correlations")
    moments = _Moments(sums, sharing.pair_counts(), mean, variance)
    return fit_components(sharing, moments.sums, moments.counts), moments


def fit_components(sharing, sums, counts):
    """TargetComponents or NontargetComponents that fit sums of products of N centred values by kind.

    Values are centred by their own mean, which correlates with all of them; the expectation of the sums,
    linear in the components, allows for that. Least squares over the mean products of all kinds that
    occur, without negative components; a component whose kind of pairs does not occur is 0.
    """
    from scipy.optimize import nnls

    expected, kinds = expected_sums(sharing, counts)
    columns = _identified(sharing, counts)
    rows = [place for place, kind in enumerate(kinds) if counts[kind]]
    scale = np.array([counts[kinds[row]] for row in rows], np.float64)
    moments = np.array([sums[kinds[row]] for row in rows]) / scale
    scale_of_all = moments[0]  # that of a trial with itself
    found, _ = nnls(expected[np.ix_(rows, columns)] / scale[:, None], moments / scale_of_all)
    theta = np.zeros(expected.shape[1])
    theta[columns] = found
    total = float(np.dot(sharing.model["same"], theta))
    cls = TargetComponents if sharing.model is TARGET_MODEL else NontargetComponents
    return cls.of_components(*(theta[:-1] / total).tolist())


def expected_sums(sharing, counts):
    """(matrix (kinds, components), kinds): expected sums of products of centred values, linear in components.

    With A the ordered pairs of a kind, M_j the Gram matrix of a component and P = I - 11'/N, the entry is
    tr(A P M_j P) = tr(A M_j) - 2 1'A M_j 1 / N + (1'A1) (1'M_j 1) / N^2.
    """
    kinds, number = list(sharing.kinds), len(sharing)
    grams = sharing.gram_ones()
    pairs = np.array([sharing.kinds[kind] for kind in kinds], np.float64)  # kinds x Gram matrices
    order = [*range(1, len(grams)), 0]  # components have the identity, e, last
    products = pairs @ (grams @ grams.T)[:, order]
    sums = grams.sum(axis=1)[order]
    sizes = np.array([counts[kind] for kind in kinds], np.float64)
    model = np.array([sharing.model[kind] for kind in kinds], np.float64)
    return sizes[:, None] * model - 2.0 / number * products + np.outer(sizes, sums) / number**2, kinds


def _identified(sharing, counts):
    """The components that can be told from the single trial's: those whose kind of pairs occurs."""
    letters = [LETTERS[name] for name in (*sharing.factors, "self")]
    of_nontargets = {"u": "c_s", "v": "c_u", "p": "c_ss", "q": "c_us"}
    kind_of = {"u": "c2", "v": "c1"} if "c1" in sharing.kinds else of_nontargets
    return [place for place, letter in enumerate(letters) if letter == "e" or counts[kind_of[letter]]]


def jackknife(sharing, values, speakers, num_groups):
    """Standard errors of the correlations, {kind: error}: groups of speakers are left out in turn.

    Leaving out a speaker takes all of his trials, on either side. Speakers are dealt into the groups in
    the order of their numbers; None where fewer than three groups have any.
    """
    used = np.unique(speakers)
    group = np.zeros(int(used.max()) + 1, np.int64)
    group[used] = np.arange(len(used)) % num_groups
    group_of, replicates = group[speakers], []
    for number in range(min(num_groups, len(used))):
        kept = (group_of != number).all(axis=0)
        try:
            components, _ = _fit(sharing.select(kept), values[kept])
        except VoxarkError:  # too little is left
            continue
        replicates.append(list(components.correlations.values()))
    if len(replicates) < 3:
        return None
    spread = np.var(np.array(replicates), axis=0) * (len(replicates) - 1)
    return dict(zip(components.correlations, np.sqrt(spread).tolist()))
