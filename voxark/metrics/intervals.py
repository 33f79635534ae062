"""Confidence intervals of error rates, which respect that trials share speakers.

Replicates in which speakers are left out or drawn again (replicates.py) give a measure's standard error s and
its bias b, both of its logarithm, since error rates are skew near zero; the interval is exp(ln x - b +- t s),
with Student's t. The bias matters: minima over thresholds and convex hulls of small sets are too good, their
replicates are too good once more, and percentiles of replicates hardly ever cover the truth of a minCllr. How
often these intervals cover it is counted by egs/mini/interval_coverage.sh.
"""

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.metrics.replicates import jackknife_variance, replicate

logger = logging.getLogger(__name__)

_FLOOR = 0.1  # of the estimate: a replicate without error counts as this much, and not as minus infinity
_COMPLEMENT = ("auc",)  # 1 minus these are error rates
_LINEAR = ("eer_threshold",)  # these are no error rates, and may be negative
_NO_RATES = ("eer_threshold", "cllr")  # a share of the trials can change these without bound
_AT_MOST_1 = ("eer", "min_dcf", "mean_min_dcf", "min_cllr")


@dataclass
class IntervalOptions:
    """Which confidence intervals, how wide, and of how many replicates."""

    ci: Literal["none", "jackknife", "bootstrap", "naive"] = option(
        "none",
        "Confidence intervals: jackknife (leaves out each speaker in turn; recommended), bootstrap (draws "
        "speakers; slower, a little wide), naive (as if trials were independent: far too narrow, only to "
        "compare)",
    )
    ci_level: float = option(0.95, "Probability with which an interval is to cover the true value")
    ci_replicates: int = option(1000, "Number of replicates of --ci=bootstrap and --ci=naive")
    srand: int = option(0, "Seed of --ci=bootstrap and --ci=naive")

    def check(self):
        """Raise VoxarkError for values that no interval can be made of."""
        if not 0.0 < self.ci_level < 1.0:
            raise VoxarkError(f"--ci-level={self.ci_level:g}: a probability between 0 and 1 is expected")
        if self.ci in ("bootstrap", "naive") and self.ci_replicates < 20:
            raise VoxarkError(f"--ci-replicates={self.ci_replicates}: at least 20 are needed, 1000 are good")


class Interval(NamedTuple):
    """An estimate, the bounds of its interval and its standard error; NaN for what cannot be said."""

    estimate: float
    low: float
    high: float
    standard_error: float


FEW_SPEAKERS = 5  # with fewer, an interval over speakers says next to nothing


def warn_of_few_speakers(speakers):
    """Log a warning where TrialSpeakers are so few that intervals over them mean little."""
    if len(speakers.names) < FEW_SPEAKERS:
        logger.warning("only %d speakers: intervals over speakers are hardly more than a guess", len(speakers.names))


def confidence(roc, target, speakers, measures, options, weights=None, spread=None):
    """Intervals of measures of a Roc: a dict of Interval, by the names in ``measures``.

    ``roc`` is made of scores[target] and scores[~target] (and their ``weights`` (N,), if any); ``target``
    (N,) bool and ``speakers`` (TrialSpeakers; None for naive intervals) are of the same N trials;
    ``measures``: dict of a function of a Roc for each name, error rates and costs, except "auc" and
    "eer_threshold"; ``spread``: what replicate() gave for the same arguments, if that is there already.
    A measure that is the same in all replicates (0 where no trial is in error) has the interval of
    :func:`bounds_if_constant`. VoxarkError if there are too few speakers.
    """
    if spread is None:
        spread = replicate([roc], target, speakers, measures, options, weights)
    found, constant = {}, []
    for number, (name, measure) in enumerate(measures.items()):
        estimate = float(measure(roc))
        of_measure = spread.map(lambda values, number=number: values[:, 0, number])
        if is_constant(name, estimate, of_measure.values):
            constant.append(name)
            of_speakers = None if options.ci == "naive" else speakers
            low, high = bounds_if_constant(roc, target, of_speakers, measure, options.ci_level, weights)
            found[name] = Interval(estimate, low, min(high, upper_limit(name)), np.nan)
        else:
            found[name] = interval_of(name, estimate, of_measure, options.ci_level)
    if constant:
        logger.warning(
            "%s: the same in all replicates, as no trial is in error or all are; the bounds are by the rule of "
            "three, as if %s independent",
            ", ".join(constant),
            "every trial were" if options.ci == "naive" else "one trial of each speaker were",
        )
    return found


def error_of(name, value):
    """The error rate that a measure is, or leaves to 1 (AUC); NaN if it is none (a threshold)."""
    if name in _LINEAR:
        return value * np.nan
    return 1.0 - value if name in _COMPLEMENT else value


def upper_limit(name):
    """The largest value that the error rate of a measure can have."""
    bounded = name in _COMPLEMENT or name.partition("(")[0] in _AT_MOST_1
    return 1.0 if bounded else np.inf


def interval_of(name, estimate, spread, level):
    """The Interval of a measure, by its name, from the Spread of its values (R,) over replicates."""
    if not (np.isfinite(estimate) and np.isfinite(spread.values).all()):
        return Interval(estimate, np.nan, np.nan, np.nan)
    standard_error = float(spread.error())
    error = error_of(name, estimate)
    if not error > 0.0 or not (error_of(name, spread.values) >= 0.0).all():  # no error rate
        centre, reach = estimate - spread.bias(estimate), spread.quantile(level) * standard_error
        return Interval(estimate, float(centre - reach), float(centre + reach), standard_error)
    logs = spread.map(lambda values: np.log(np.maximum(error_of(name, values), _FLOOR * error)))
    centre, reach = np.log(error) - logs.bias(np.log(error)), spread.quantile(level) * logs.error()
    with np.errstate(over="ignore"):  # two speakers and a high level reach to infinity
        bounds = np.minimum(np.exp([centre - reach, centre + reach]), upper_limit(name)).tolist()
    if name in _COMPLEMENT:
        bounds = [1.0 - bounds[1], 1.0 - bounds[0]]
    return Interval(estimate, *bounds, standard_error)


def is_constant(name, estimate, values):
    """Whether an error rate or cost, by its name, is the same in all replicates, or zero: values (R,)."""
    if name in _NO_RATES or not np.isfinite(estimate):
        return False
    return error_of(name, estimate) == 0.0 or bool((np.abs(values - estimate) <= 1e-12 * abs(estimate)).all())


def bounds_if_constant(roc, target, speakers, measure, level, weights=None):
    """What a measure may be that is the same in all replicates of a Roc: (low, high), the estimate within.

    With n independent trials and no error, rates up to 1 - (1-level)^(1/n) are not refuted ("rule of three":
    3/n at 95 %). Since such trials do not tell how dependent they are, n is the number of speakers of a class,
    on the side that has fewer; of trials if ``speakers`` is None. The bounds are the extreme values of the
    measure if that share of the targets, or of the non-targets, scored -inf, or +inf.
    """
    found, weights = [float(measure(roc))], np.ones(len(target)) if weights is None else weights
    for place, chosen in enumerate((target, ~target)):
        number = int(chosen.sum())
        if speakers is not None:
            number = min(len(np.unique(side[chosen])) for side in (speakers.enroll, speakers.test))
        share = -np.expm1(np.log1p(-level) / number)
        for score in (-np.inf, np.inf):
            scores, of_trials = list(roc.given_scores()), [weights[target], weights[~target]]
            scores[place] = np.append(scores[place], score)
            others = of_trials[place] * (1.0 - share) / of_trials[place].sum()
            of_trials[place] = np.append(others, share)
            found.append(float(measure(type(roc)(*scores, *of_trials))))
    return min(found), max(found)


# ---------------------------------------------------------------------------------- effective number of trials


def effective_trials(scores, target, speakers, threshold, weights=None):
    """How many independent trials would tell error rates at a threshold as exactly: (targets, nontargets).

    n_eff = p (1 - p) / Var(p) for Pmiss over the targets and Pfa over the non-targets, at most the number of
    trials, with :func:`variance_over_speakers`; NaN where a rate is 0 or 1, which tells no variance.
    """
    errors = np.where(target, scores < threshold, scores >= threshold)
    found = []
    for chosen in (target, ~target):
        of_class = None if weights is None else weights[chosen]
        wrong, sides = errors[chosen].astype(np.float64), (speakers.enroll[chosen], speakers.test[chosen])
        rate = float(np.average(wrong, weights=of_class))
        variance = variance_over_speakers(wrong, *sides, of_class) if 0.0 < rate < 1.0 else np.nan
        with np.errstate(divide="ignore"):
            found.append(float(np.minimum(np.divide(rate * (1.0 - rate), variance), len(wrong))))
    return tuple(found)


def variance_over_speakers(values, first, second, weights=None):
    """Variance of the mean of values (N,) of trials that share speakers.

    ``first``, ``second`` (N,): the numbers of their speakers. The jackknife over speakers, less the variance
    as if pairs of speakers were independent, as in the variance of dyads [Aronow, Samii and Assenova 2015],
    and never less than that. NaN if leaving out a speaker leaves nothing.
    """
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    apart, number = first != second, int(max(first.max(), second.max())) + 1

    def of_speakers(x):
        return np.bincount(first, x, number) + np.bincount(second[apart], x[apart], number)

    taking_part = of_speakers(np.ones(len(values))) > 0
    rest = (weights.sum() - of_speakers(weights))[taking_part]
    if (rest <= 1e-12 * weights.sum()).any():
        return np.nan
    mean = weights @ values / weights.sum()
    jackknife = jackknife_variance(-of_speakers(weights * (values - mean))[taking_part] / rest)
    if not apart.any():
        return float(jackknife)
    pair = np.minimum(first, second).astype(np.int64) * number + np.maximum(first, second)
    of_pairs = np.bincount(np.unique(pair, return_inverse=True)[1], weights * (values - mean)) / weights.sum()
    pairs = float(np.square(of_pairs).sum())
    return max(float(jackknife) - pairs, pairs)
