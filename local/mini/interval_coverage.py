#!/usr/bin/env python3
"""Count how often confidence intervals of error rates cover the truth, on simulated scores.

Each simulation draws speakers, one enrolment and several test utterances of each, and scores all pairs. The
population's error rates follow from the model in closed form, so that each interval covers them or not.
- plda: vectors as a PLDA model has them, scored by that model.
- effects: scores are sums of normal effects of speakers, of pairs of speakers, of utterances and of trials.
Prints tables in markdown: coverage in percent, and in brackets the median width over the true value. With
--what=differences: how often the difference of two systems that are equally good has a p-value below 1 minus
the level, in percent.

Usage: interval_coverage.py [options]
e.g.: interval_coverage.py --model=plda --num-speakers="20 50" --num-simulations=500
See also: egs/mini/interval_coverage.sh, compute-eer
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import logging
from typing import Annotated, Literal, NamedTuple

import numpy as np

from voxark.backend.plda_info import expected_eer, llr_forms, probability_below
from voxark.errors import VoxarkError
from voxark.metrics import OperatingPoint, Roc
from voxark.metrics.intervals import IntervalOptions, confidence
from voxark.metrics.paired import paired_difference
from voxark.metrics.replicates import replicate
from voxark.random_numbers import seeded_rng
from voxark.trials.speakers import TrialSpeakers

POINTS = (OperatingPoint("0.01", 0.01, 1.0, 1.0), OperatingPoint("0.1", 0.1, 1.0, 1.0))
MEASURES = {
    "eer": lambda roc: roc.eer()[0],
    **{f"min_dcf({point.name})": lambda roc, cost=point.cost: roc.min_dcf(*cost)[0] for point in POINTS},
    **{f"act_dcf({point.name})": lambda roc, cost=point.cost: roc.act_dcf(*cost) for point in POINTS},
    "cllr": lambda roc: roc.cllr(),
    "min_cllr": lambda roc: roc.min_cllr(),
}
METHODS = ("naive", "percentile", "bootstrap", "jackknife")


# --------------------------------------------------------------------------------------------- models of scores


class Trials(NamedTuple):
    """All pairs of an enrolment utterance of each speaker and all test utterances: (S x U), flat by rows."""

    enroll: np.ndarray
    test: np.ndarray
    utterance: np.ndarray

    @classmethod
    def of_speakers(cls, counts):
        """Of counts (S,) test utterances of each speaker."""
        speaker_of = np.repeat(np.arange(len(counts)), counts)
        return cls(
            np.repeat(np.arange(len(counts)), len(speaker_of)),
            np.tile(speaker_of, len(counts)),
            np.tile(np.arange(len(speaker_of)), len(counts)),
        )

    @property
    def target(self):
        """(N,) bool."""
        return self.enroll == self.test


class PldaModel:
    """LLRs of a PLDA model of diagonal between-speaker covariance psi (D,) and identity within."""

    def __init__(self, psi=None):
        self.psi = np.linspace(4.0, 0.5, 12) if psi is None else psi

    def scores(self, rng, trials, num_systems=1):
        """(num_systems, N) LLRs; several systems share every other direction."""
        if num_systems == 1:
            return self._llrs(rng, trials, self.psi)[None]
        shared = self._llrs(rng, trials, self.psi[::2])
        return np.stack([shared + self._llrs(rng, trials, self.psi[1::2]) for _ in range(num_systems)])

    @staticmethod
    def _llrs(rng, trials, psi):
        num_speakers, num_utts = trials.enroll.max() + 1, trials.utterance.max() + 1
        speaker_of = trials.test[:num_utts]
        y = rng.standard_normal((num_speakers, len(psi))) * np.sqrt(psi)
        enroll = y + rng.standard_normal(y.shape)
        test = y[speaker_of] + rng.standard_normal((num_utts, len(psi)))
        cross, square = psi / (1.0 + 2.0 * psi), 0.5 * psi * (1.0 / (1.0 + 2.0 * psi) - 1.0 / (1.0 + psi))
        constant = 0.5 * np.log(np.square(1.0 + psi) / (1.0 + 2.0 * psi)).sum()
        llrs = (enroll * cross) @ test.T + constant
        return (llrs + (np.square(enroll) @ square)[:, None] + np.square(test) @ square).ravel()

    def rates(self, threshold):
        """(Pmiss, Pfa) of the population."""
        target, nontarget, constant = llr_forms(self.psi)
        constant = constant.sum()
        return (
            probability_below(threshold, target, constant),
            1.0 - probability_below(threshold, nontarget, constant),
        )

    def eer(self):
        """Of the population."""
        return expected_eer(self.psi)[0]


class EffectsModel:
    """Normal scores of means +-d^2/2 and variance d^2, which are LLRs, with parts of the variance shared."""

    d = 3.4
    # parts of the variance: of a target trial, and of a non-target trial
    of_target = {"speaker": 0.5, "utterance": 0.1, "trial": 0.4}
    of_nontarget = {"enrolled": 0.15, "tested": 0.15, "pair": 0.1, "utterance": 0.1, "trial": 0.5}
    both_sides = 0.6  # correlation of a speaker's effects as an enrolled and as a tested one

    def scores(self, rng, trials, num_systems=1):
        """(num_systems, N) LLRs; several systems share half of the variance of each effect."""
        if num_systems == 1:
            return self._effects(rng, trials)[None]
        shared = self._effects(rng, trials, 0.0)
        middle = np.where(trials.target, 1.0, -1.0) * 0.5 * self.d**2
        each = [np.sqrt(0.5) * (shared + self._effects(rng, trials, 0.0)) for _ in range(num_systems)]
        return middle + np.stack(each)

    def _effects(self, rng, trials, of_mean=1.0):
        num_speakers, num_utts = trials.enroll.max() + 1, trials.utterance.max() + 1
        draw = rng.standard_normal
        enrolled, utterance, trial = draw(num_speakers), draw(num_utts), draw(len(trials.enroll))
        tested = self.both_sides * enrolled + np.sqrt(1.0 - self.both_sides**2) * draw(num_speakers)
        pair, speaker = draw((num_speakers, num_speakers)), draw(num_speakers)
        effects = {
            "speaker": speaker[trials.enroll],
            "enrolled": enrolled[trials.enroll],
            "tested": tested[trials.test],
            "pair": pair[trials.enroll, trials.test],
            "utterance": utterance[trials.utterance],
            "trial": trial,
        }
        sums = [sum(np.sqrt(part) * effects[name] for name, part in parts.items())
                for parts in (self.of_target, self.of_nontarget)]
        middle = of_mean * 0.5 * self.d**2
        return np.where(trials.target, middle + self.d * sums[0], -middle + self.d * sums[1])

    def rates(self, threshold):
        """(Pmiss, Pfa) of the population."""
        from scipy.special import ndtr

        middle = 0.5 * self.d**2
        return ndtr((threshold - middle) / self.d), ndtr((-middle - threshold) / self.d)

    def eer(self):
        """Of the population."""
        return self.rates(0.0)[0]


MODELS = {"plda": PldaModel, "effects": EffectsModel}


def truth(model):
    """The population's values of MEASURES: scores are LLRs, so that actual costs are the smallest ones."""
    from scipy.integrate import quad

    costs = {}
    for point in POINTS:
        p_miss, p_fa = model.rates(point.threshold)
        costs[point.name] = p_miss + (1.0 - point.p_target) / point.p_target * p_fa
    # E ln(1+e^s) = int P(s > x) / (1+e^-x) dx for non-targets, by parts; for targets likewise with -s
    span = {"limit": 200, "epsabs": 1e-7}
    of_nontarget = quad(lambda x: model.rates(x)[1] / (1.0 + np.exp(-x)), -60.0, 60.0, points=[0.0], **span)[0]
    of_target = quad(lambda x: model.rates(x)[0] / (1.0 + np.exp(x)), -60.0, 60.0, points=[0.0], **span)[0]
    cllr = 0.5 * (of_target + of_nontarget) / np.log(2.0)
    return {
        "eer": model.eer(),
        **{f"min_dcf({name})": cost for name, cost in costs.items()},
        **{f"act_dcf({name})": cost for name, cost in costs.items()},
        "cllr": cllr,
        "min_cllr": cllr,
    }


# --------------------------------------------------------------------------------------------------- counting


def draw_trials(rng, num_speakers, num_utts, unequal):
    """Trials with num_utts test utterances of each speaker, or with geometric numbers of that mean."""
    if unequal:
        return Trials.of_speakers(rng.geometric(1.0 / num_utts, num_speakers))
    return Trials.of_speakers(np.full(num_speakers, num_utts))


def bounds_of(methods, scores, target, speakers, settings):
    """{method: {measure: (low, high)}} of scores (N,); ``settings``: keywords of IntervalOptions.

    "percentile" is what textbooks do: quantiles of the replicates of "bootstrap".
    """
    roc, found, spreads = Roc(scores[target], scores[~target]), {}, {}
    tail = 0.5 * (1.0 - settings["ci_level"])
    for method in methods:
        options = IntervalOptions(ci="bootstrap" if method == "percentile" else method, **settings)
        if options.ci not in spreads:
            spreads[options.ci] = replicate([roc], target, speakers, MEASURES, options)
        spread = spreads[options.ci]
        if method == "percentile":
            bounds = np.quantile(spread.values[:, 0], (tail, 1.0 - tail), axis=0).T
            found[method] = dict(zip(MEASURES, bounds.tolist()))
        else:
            intervals = confidence(roc, target, speakers, MEASURES, options, spread=spread)
            found[method] = {name: (interval.low, interval.high) for name, interval in intervals.items()}
    return found


def p_values_of(methods, scores, target, speakers, settings):
    """{method: {measure: p-value of the difference of two systems}} of scores (2,N)."""
    rocs, found = [Roc(of_system[target], of_system[~target]) for of_system in scores], {}
    for method in methods:
        options = IntervalOptions(ci=method, **settings)
        differences = paired_difference(*rocs, target, speakers, MEASURES, options)
        found[method] = {name: difference.p_value for name, difference in differences.items()}
    return found


def simulate(model, what, num_speakers, num_utts, unequal, methods, num_simulations, settings):
    """{method: (simulations, measures, 2) bounds}, or {method: (simulations, measures) p-values}."""
    found = {method: [] for method in methods}
    for number in cli.progress(range(num_simulations)):
        rng = seeded_rng(settings["srand"], "interval coverage", num_speakers, number)
        trials = draw_trials(rng, num_speakers, num_utts, unequal)
        speakers = TrialSpeakers(trials.enroll, trials.test, [f"{n:05d}" for n in range(num_speakers)])
        arguments = trials.target, speakers, settings
        if what == "intervals":
            of_one = bounds_of(methods, model.scores(rng, trials)[0], *arguments)
        else:
            of_one = p_values_of(methods, model.scores(rng, trials, 2), *arguments)
        for method in methods:
            found[method].append([of_one[method][name] for name in MEASURES])
    return {method: np.array(values) for method, values in found.items()}


def coverage_cells(bounds, true):
    """Texts "coverage (relative width)" for bounds (n,M,2) and true values (M,)."""
    covered = 100.0 * np.mean((bounds[:, :, 0] <= true) & (true <= bounds[:, :, 1]), axis=0)
    width = np.median(bounds[:, :, 1] - bounds[:, :, 0], axis=0) / true
    return [f"{c:.1f} ({w:.2f})" for c, w in zip(covered, width)]


def listed(text, kind, option_name):
    """The words of an option as a list of a kind."""
    try:
        return [kind(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise VoxarkError(f"--{option_name}={text}: a list of numbers was expected") from None


@cli.program
def main(
    *,
    model: Annotated[Literal["plda", "effects"], "How scores come about"] = "plda",
    what: Annotated[Literal["intervals", "differences"], "Coverage of intervals, or p-values of no difference"]
    = "intervals",
    num_speakers: Annotated[str, "Numbers of speakers"] = "10 20 50 100",
    num_utts: Annotated[int, "Test utterances of a speaker"] = 3,
    unequal: Annotated[bool, "Numbers of utterances differ between speakers, --num-utts on average"] = False,
    methods: Annotated[str, "Of naive, percentile (of drawn speakers), bootstrap, jackknife"] = " ".join(METHODS),
    num_simulations: Annotated[int, "Simulations for each number of speakers"] = 500,
    ci_replicates: Annotated[int, "Replicates of all methods but the jackknife"] = 200,
    ci_level: Annotated[float, "Probability with which intervals are to cover"] = 0.95,
    srand: Annotated[int, "Seed"] = 0,
) -> int:
    chosen = listed(methods, str, "methods")
    for name in chosen:
        if name not in METHODS or (name, what) == ("percentile", "differences"):
            raise VoxarkError(f"--methods: {name} is none for --what={what} (of {', '.join(METHODS)})")
    sizes = listed(num_speakers, int, "num-speakers")
    if num_utts < 1 or num_simulations < 1 or not sizes or min(sizes) < 3:
        raise VoxarkError("at least 3 speakers, 1 utterance and 1 simulation are needed")
    logging.getLogger("voxark.metrics.intervals").setLevel(logging.ERROR)  # which warns of sets without errors
    settings = {"ci_level": ci_level, "ci_replicates": ci_replicates, "srand": srand}
    of_scores = MODELS[model]()
    true = truth(of_scores)
    if what == "intervals":
        print("| speakers | interval |", " | ".join(MEASURES), "|")
        print("|---|---|" + "---|" * len(MEASURES))
        print("| | true value |", " | ".join(f"{value:.4f}" for value in true.values()), "|")
    else:
        print(f"| speakers | p < {1.0 - ci_level:.2g} by |", " | ".join(MEASURES), "|")
        print("|---|---|" + "---|" * len(MEASURES))
    counts = cli.Counts("simulations")
    for size in sizes:
        found = simulate(of_scores, what, size, num_utts, unequal, chosen, num_simulations, settings)
        for method, values in found.items():
            if what == "intervals":
                cells = coverage_cells(values, np.array(list(true.values())))
            else:
                cells = [f"{100.0 * rate:.1f}" for rate in np.mean(values < 1.0 - ci_level, axis=0)]
            print(f"| {size} | {method} |", " | ".join(cells), "|", flush=True)
        counts.done(num_simulations)
    return counts.finish()


if __name__ == "__main__":
    main()
