"""Systems measured one after the other: error rates with intervals, in groups, and curves of the scores.

Of each system only what the page shows is kept, so that memory does not grow with their number.
"""

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.metrics.error_report import Evaluation, MeasureOptions, Row, measure_functions, naming
from voxark.metrics.intervals import FEW_SPEAKERS, IntervalOptions
from voxark.report import curves
from voxark.trials.joining import join_scores, require_both_classes
from voxark.trials.speakers import TrialSpeakers, check_labels

logger = logging.getLogger(__name__)

LOG_ODDS = np.linspace(-7.0, 7.0, 57)  # of the priors of the cross-entropy, in nats
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_IN_GROUPS = ("eer", "eer_threshold", "cllr")


class Mark(NamedTuple):
    """An operating point of a system: (Pmiss, Pfa) at the smallest cost and at the Bayes threshold."""

    name: str
    minimum: tuple
    actual: tuple


class ScoreCurves(NamedTuple):
    """What is drawn of a system's scores; arrays of a few thousand numbers at most.

    ``det``: (Pmiss, Pfa) of voxark.report.curves.det_curve; ``marks``: a Mark each operating point;
    ``histogram``: a Histogram; ``pav``: (score, LLR); ``entropies``: (actual, least, default) in bits over
    LOG_ODDS; ``quantiles``: (2,Q) of targets and nontargets.
    """

    det: tuple
    marks: list
    histogram: curves.Histogram
    pav: tuple
    entropies: tuple
    quantiles: np.ndarray


@dataclass
class Result:
    """A system measured: its Row of all trials, Rows by the name of a grouping, and its ScoreCurves.

    ``missing``: number of trials without a score.
    """

    system: object
    row: object
    curves: ScoreCurves
    missing: int
    groups: dict = field(default_factory=dict)


def curves_of(roc, points):
    """The ScoreCurves of a Roc at OperatingPoints."""
    marks = [
        Mark(point.name, roc.error_rates(roc.min_dcf(*point.cost)[1]), roc.error_rates(point.threshold))
        for point in points
    ]
    ranks = [
        (np.array(QUANTILES) * (len(scores) - 1)).round().astype(np.int64)
        for scores in (roc.target, roc.nontarget)
    ]
    quantiles = np.stack([roc.target[ranks[0]], roc.nontarget[ranks[1]]]).astype(np.float64)
    return ScoreCurves(
        curves.det_curve(roc),
        marks,
        curves.histogram(roc),
        curves.pav_curve(roc),
        curves.cross_entropies(roc, LOG_ODDS),
        quantiles,
    )


# --------------------------------------------------------------------------------------------------- speakers


def enrolled_speakers(enroll_map, utt2spk):
    """{enrolment id: its speaker} of lines `<id> <utterance>...`; ids of several speakers are left out."""
    found = {}
    for key, utterances in enroll_map.items():
        speakers = {utt2spk.get(utterance) for utterance in utterances}
        if len(speakers) == 1 and None not in speakers:
            found[key] = speakers.pop()
    return found


def names_of_speakers(trials, utt2spk, enroll_map):
    """Speakers of the ids of a TrialList: (of enroll_ids, of test_ids), lists with None where nothing says.

    An enrolment id is looked for in ``enroll_map`` (dict of lists of utterances), in ``utt2spk``, and among
    the speakers themselves.
    """
    of_models, known = enrolled_speakers(enroll_map, utt2spk), set(utt2spk.values())
    enroll = [
        of_models.get(key) or utt2spk.get(key) or (key if key in known else None) for key in trials.enroll_ids
    ]
    return enroll, [utt2spk.get(key) for key in trials.test_ids]


def trial_speakers(trials, enroll, test):
    """TrialSpeakers of a TrialList from its ids' speakers; VoxarkError where one has none, or a wrong one."""
    lacking = [
        key
        for keys, names in ((trials.enroll_ids, enroll), (trials.test_ids, test))
        for key, name in zip(keys, names)
        if name is None
    ]
    if lacking:
        raise VoxarkError(
            f"utt2spk of the test data does not name the speaker of {lacking[0]}"
            + (f" and {len(lacking) - 1} more ids" if len(lacking) > 1 else "")
        )
    names = sorted(set(enroll) | set(test))
    place = {name: number for number, name in enumerate(names)}
    speakers = TrialSpeakers(
        np.array([place[name] for name in enroll])[trials.enroll],
        np.array([place[name] for name in test])[trials.test],
        names,
    )
    check_labels(trials, speakers)
    return speakers


# -------------------------------------------------------------------------------------------------- measuring


@dataclass
class Measuring:
    """What is measured of each system.

    ``points``: OperatingPoints; ``averaged``: their mean as well; ``speakers``: TrialSpeakers of the whole
    list, or None for no intervals; ``level``: of the intervals; ``groupings``: {name: Grouping of the list};
    ``in_groups``: whether groups have intervals, too.
    """

    points: list
    averaged: bool = False
    speakers: TrialSpeakers | None = None
    level: float = 0.95
    groupings: dict = field(default_factory=dict)
    in_groups: bool = True

    def functions(self):
        """Functions of a Roc by the names of the measures."""
        return measure_functions(self.points, MeasureOptions(), self.averaged)

    def evaluation(self, functions, speakers):
        """The Evaluation of some measures."""
        intervals = IntervalOptions(ci="jackknife" if speakers is not None else "none", ci_level=self.level)
        return Evaluation(functions, self.points, MeasureOptions(), intervals, speakers)

    def measure(self, system, trials, scores, kept):
        """The Result of a system with ``scores`` (M,) of the trials at ``kept`` (N,) of their list of N."""
        of_kept = trials.select(kept) if not kept.all() else trials
        speakers = self.speakers
        if speakers is not None and not kept.all():
            speakers = speakers.select(kept)
        target = of_kept.target
        functions = self.functions()
        row = self._row(system, functions, scores[:, np.newaxis], target, speakers)
        found = Result(
            system, row, curves_of(Roc(scores[target], scores[~target]), self.points), int(np.sum(~kept))
        )
        for name, grouping in self.groupings.items():
            found.groups[name] = self._group_rows(system, grouping.select(kept), scores, target, speakers)
        return found

    def _group_rows(self, system, grouping, scores, target, speakers):
        """The Rows of the groups of a Grouping."""
        functions = {
            name: measure
            for name, measure in self.functions().items()
            if name in _IN_GROUPS or name.startswith("min_dcf")
        }
        rows = []
        for name in grouping.names:
            chosen = grouping.trials_of(name, target)
            of_group = target[chosen]
            row = Row(system.title, name, int(of_group.sum()), int((~of_group).sum()))
            lacking = [
                what
                for what, number in (("target", row.num_target), ("nontarget", row.num_nontarget))
                if not number
            ]
            if lacking:
                row.note = f"no {' and no '.join(lacking)} trials"
            else:
                with_intervals = speakers is not None and self.in_groups
                of_speakers = speakers.select(chosen) if with_intervals else None
                with _without_warnings():
                    row = self._row(system, functions, scores[chosen, np.newaxis], of_group, of_speakers)
                row.group = name
            rows.append(row)
        return rows

    def _row(self, system, functions, scores, target, speakers):
        """The Row of some trials; without intervals, and with a note, where speakers are too few for them."""
        try:
            return self.evaluation(functions, speakers).rows([system.title], scores, target)[0]
        except VoxarkError as error:
            if speakers is None:
                raise
            row = self.evaluation(functions, None).rows([system.title], scores, target)[0]
            row.note = f"no interval: {error}"
            return row


@contextmanager
def _without_warnings():
    """Warnings of intervals say for each of many groups what the page says once."""
    of_intervals = logging.getLogger("voxark.metrics.intervals")
    before, of_intervals.disabled = of_intervals.disabled, True
    try:
        yield
    finally:
        of_intervals.disabled = before


@contextmanager
def _warnings_naming(name):
    """Put the name of a list in front of the warnings of its intervals."""
    of_intervals = logging.getLogger("voxark.metrics.intervals")

    def name_it(record):
        record.msg, record.args = f"{name}: {record.getMessage()}", ()
        return True

    of_intervals.addFilter(name_it)
    try:
        yield
    finally:
        of_intervals.removeFilter(name_it)


def measure_systems(systems, trials, measuring, options, progress=iter):
    """The Results of Systems on a TrialList, each on the trials that it has scored.

    ``options``: JoinOptions. VoxarkError names the file, and the line, of what is malformed.
    """
    found = []
    for system in progress(systems):
        joined = join_scores(trials, [str(system.scores)], options)
        require_both_classes(str(system.scores), len(joined.trials), np.count_nonzero(joined.trials.target))
        kept = (
            np.ones(len(trials), bool)
            if len(joined.trials) == len(trials)
            else _places(trials, joined.trials)
        )
        with naming(str(system.scores)), _warnings_naming(str(system.scores)):
            found.append(measuring.measure(system, trials, np.ascontiguousarray(joined.scores[:, 0]), kept))
    return found


def _places(trials, part):
    """The mask (N,) of the trials that are in ``part``, which has some of them in the same order."""
    return np.isin(trials.codes(), part.codes(), assume_unique=True)


def work(num_trials, num_speakers, num_systems):
    """How many weights of trials the jackknife looks at, about: of speakers, and of rounds of pairs."""
    return 2.0 * num_trials * num_speakers * num_systems


def few_speakers_note(speakers):
    """A sentence where speakers are so few that intervals over them mean little, else ""."""
    if speakers is not None and len(speakers.names) < FEW_SPEAKERS:
        return f"Only {len(speakers.names)} speakers: intervals over speakers are hardly more than a guess."
    return ""


def check_enough(trials, speakers):
    """Raise VoxarkError where there are too few speakers to leave one out."""
    for chosen, what in ((trials.target, "target"), (~trials.target, "nontarget")):
        if len(np.unique(speakers.enroll[chosen])) < 2:
            raise VoxarkError(f"intervals over speakers need at least 2 speakers with {what} trials")
