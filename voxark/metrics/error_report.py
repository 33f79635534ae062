"""Error rates of several systems over several groups of trials, with intervals and paired differences: rows.

A measure has a stable name, by which the formats of :mod:`voxark.metrics.report_formats` write it: ``eer`` (a
fraction of 1), ``eer_threshold``, ``min_dcf(P)`` and ``act_dcf(P)`` of each operating point P, their means
``mean_min_dcf`` and ``mean_act_dcf`` for presets that are defined so, ``cllr``, ``min_cllr`` (bits), ``auc``.
"""

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.metrics.measures import RULE_OF_30
from voxark.metrics import Roc

logger = logging.getLogger(__name__)


@dataclass
class MeasureOptions:
    """Which measures beyond the costs."""

    method: Literal["rocch", "interp", "kaldi"] = option(
        "rocch", "EER by the ROC convex hull, interpolated, or as Kaldi"
    )
    auc: bool = option(False, "The area under the ROC as well")


@dataclass
class Row:
    """One system on one group of trials (``group`` "" is all of them).

    ``values``: floats by measure, empty where ``note`` says why there are none; ``intervals`` and
    ``differences`` (to the first system): by measure, where asked for; ``effective``: numbers of independent
    trials that would be as sure as the targets and the nontargets, or None; ``few``: error counts below 30.
    """

    system: str
    group: str
    num_target: int
    num_nontarget: int
    values: dict = field(default_factory=dict)
    intervals: dict = field(default_factory=dict)
    differences: dict = field(default_factory=dict)
    effective: tuple | None = None
    few: list = field(default_factory=list)
    note: str = ""


def measure_functions(points, options, averaged=False):
    """Functions of a Roc by the names of the measures.

    ``points``: OperatingPoints; ``averaged``: whether their mean is a measure as well.
    """
    found = {
        "eer": lambda roc: roc.eer(options.method)[0],
        "eer_threshold": lambda roc: roc.eer(options.method)[1],
    }
    for point in points:
        found[f"min_dcf({point.name})"] = lambda roc, cost=point.cost: roc.min_dcf(*cost)[0]
    if averaged:
        found["mean_min_dcf"] = lambda roc: roc.mean_min_dcf(points)
    for point in points:
        found[f"act_dcf({point.name})"] = lambda roc, cost=point.cost: roc.act_dcf(*cost)
    if averaged:
        found["mean_act_dcf"] = lambda roc: roc.mean_act_dcf(points)
    found["cllr"] = lambda roc: roc.cllr()
    found["min_cllr"] = lambda roc: roc.min_cllr()
    if options.auc:
        found["auc"] = lambda roc: roc.auc()
    return found


# ---------------------------------------------------------------------------------- scores without their ids


@contextmanager
def naming(name):
    """Put the name of a list in front of the VoxarkErrors of what is computed from its arrays."""
    try:
        yield
    except VoxarkError as error:
        raise VoxarkError(f"{name}: {error}") from None


def roc_of_blocks(blocks, name):
    """The Roc of (scores (n,), target (n,) bool) blocks; ``name`` is the list's, for messages."""
    parts = [(scores[target], scores[~target]) for scores, target in blocks]
    if not parts:
        raise VoxarkError(f"{name}: the list is empty")
    target = np.concatenate([part[0] for part in parts])
    parts = [part[1] for part in parts]
    with naming(name):
        return Roc(target, np.concatenate(parts))


def kaldi_eer(roc):
    """What Kaldi's compute-eer makes of the scores of a Roc, in single precision: (eer, threshold)."""
    with np.errstate(over="ignore"):
        single = Roc(roc.target.astype(np.float32), roc.nontarget.astype(np.float32))
    eer, threshold = single.eer("kaldi")
    return float(np.float32(eer)), threshold


# --------------------------------------------------------------------------------------------- rule of thirty


def few_errors(roc, points, options):
    """Texts on errors that are fewer than 30 at the thresholds of the EER and of the smallest costs."""
    places = [("EER", roc.eer(options.method)[1])]
    places += [(f"minDCF({point.name})", roc.min_dcf(*point.cost)[1]) for point in points]
    found = []
    for name, threshold in places:
        counts = roc.rule_of_30(threshold)
        numbers = (counts.misses, "misses"), (counts.false_alarms, "false alarms")
        texts = [f"{number} {kind}" for number, kind in numbers if number < RULE_OF_30]
        if texts:
            found.append(f"{' and '.join(texts)} at {name}")
    return found


def warn_of_few(rows):
    """Warn of the rows whose measures rest on fewer errors than the rule of 30 asks for."""
    for row in rows:
        if row.few and not row.group:
            logger.warning(
                "%s: rule of 30: %s; a rate within 30 %% of the truth (90 %% confidence) needs 30 errors",
                row.system,
                ", ".join(row.few),
            )
    groups = list(dict.fromkeys(row.group for row in rows if row.few and row.group))
    if groups:
        logger.warning("rule of 30: fewer than 30 errors in the groups %s", ", ".join(groups))


# ------------------------------------------------------------------------------------------------------- rows


def row_of_roc(system, roc, functions, points, options):
    """The Row of all trials of a system from their Roc, or what has its interface."""
    return Row(
        system,
        "",
        roc.num_target,
        roc.num_nontarget,
        values={name: float(measure(roc)) for name, measure in functions.items()},
        few=few_errors(roc, points, options),
    )


class Evaluation:
    """What is asked of joined systems: rows of measures for all trials and for each group.

    functions: of :func:`measure_functions`; points, options: what they were made of; intervals:
    IntervalOptions, whose intervals of several systems bring differences to the first of them; speakers:
    TrialSpeakers of all trials, or None; weights: (N,) or None.
    """

    def __init__(self, functions, points, options, intervals, speakers=None, weights=None):
        self.functions, self.points, self.options = functions, points, options
        self.intervals, self.speakers, self.weights = intervals, speakers, weights

    def rows(self, systems, scores, target, groups=None, progress=iter):
        """Rows of the systems (names) with scores (N,S) of trials with labels ``target`` (N,) bool.

        ``groups``: Groups, or None; ``progress`` wraps the list of jobs.
        """
        if self.speakers is not None:
            from voxark.metrics.intervals import warn_of_few_speakers

            warn_of_few_speakers(self.speakers)
        jobs = [("", None)]
        if groups is not None:
            jobs += [(name, groups.number == number) for number, name in enumerate(groups.names)]
        found = []
        for name, chosen in progress(jobs):
            found += self._group(systems, name, chosen, scores, target)
        return found

    def _group(self, systems, name, chosen, scores, target):
        speakers, weights = self.speakers, self.weights
        if chosen is not None:
            scores, target = scores[chosen], target[chosen]
            weights = None if weights is None else weights[chosen]
            speakers = None if speakers is None else speakers.select(chosen)
        num_target = int(np.sum(target))
        rows = [Row(system, name, num_target, len(target) - num_target) for system in systems]
        lacking = [
            what
            for what, number in (("target", num_target), ("nontarget", len(target) - num_target))
            if not number
        ]
        if lacking and chosen is not None:
            for row in rows:
                row.note = f"no {' and no '.join(lacking)} trials"
            return rows
        first = None
        for row, of_system in zip(rows, scores.T):
            roc = self._roc(of_system, target, weights)
            self._measure(row, roc, of_system, target, speakers, weights, first)
            first = first or roc
        return rows

    @staticmethod
    def _roc(scores, target, weights):
        if weights is None:
            return Roc(scores[target], scores[~target])
        return Roc(scores[target], scores[~target], weights[target], weights[~target])

    def _measure(self, row, roc, scores, target, speakers, weights, first):
        """Fill a row; of a group without enough speakers for intervals the note says so."""
        from voxark.metrics.intervals import confidence, effective_trials
        from voxark.metrics.paired import paired_difference

        row.values = {name: float(measure(roc)) for name, measure in self.functions.items()}
        row.few = few_errors(roc, self.points, self.options)
        if self.intervals.ci == "none":
            return
        arguments = target, speakers, self.functions, self.intervals, weights
        try:
            row.intervals = confidence(roc, *arguments)
            if speakers is not None:
                row.effective = effective_trials(
                    scores, target, speakers, row.values["eer_threshold"], weights
                )
            if first is not None:
                row.differences = paired_difference(roc, first, *arguments)
        except VoxarkError as error:
            if not row.group:
                raise
            row.note = str(error)
