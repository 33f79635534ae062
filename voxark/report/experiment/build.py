"""A folder of an experiment into a Page: read, measured, and put together in sections."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.report.experiment import groups, scores
from voxark.report.experiment.curves_section import curves_sections
from voxark.report.experiment.fhvae import fhvae_section
from voxark.report.experiment.folder import merged_table, read_column
from voxark.report.experiment.funnel import durations_of, funnel_section
from voxark.report.experiment.making import date_of, making_section, read_logs
from voxark.report.experiment.parts import Page, Section, Text, plural
from voxark.report.experiment.results_section import (
    groups_section,
    rates_figure,
    results_table,
    summary_sentence,
)
from voxark.report.experiment.training import training_section
from voxark.trials.joining import JoinOptions, require_labels
from voxark.trials.lists import read_trials

logger = logging.getLogger(__name__)

_MOST_WORK = 4e9  # weights of trials that the jackknife looks at in a minute or two
_LABELS = ("noise", "mic", "snr", "room")
_HEADINGS = {"gender": "By gender", "duration": "By duration of the test utterance", "noise": "By noise",
             "mic": "By microphone", "snr": "By signal-to-noise ratio", "room": "By room"}  # fmt: skip


@dataclass
class PageOptions:
    """What the page holds beyond what the experiment's folder says."""

    ci: Literal["jackknife", "none"] = option("jackknife", "Confidence intervals, over speakers")
    ci_level: float = option(0.95, "Probability with which an interval is to cover the true value")
    max_media: float = option(
        20.0, "Pictures and audio inside the page, in MB; what is more is listed by name"
    )
    allow_extra: bool = option(False, "Ignore scores of no trial, in place of an error")

    def check(self):
        """Raise VoxarkError for values that no page can be made with."""
        if not 0.0 < self.ci_level < 1.0:
            raise VoxarkError(f"--ci-level={self.ci_level:g}: a probability between 0 and 1 is expected")
        if not 0.0 <= self.max_media <= 1000.0:
            raise VoxarkError(f"--max-media={self.max_media:g}: megabytes from 0 to 1000 are expected")


def build_page(experiment, options, points, averaged=False, progress=iter):
    """The Page of an Experiment; ``points``: OperatingPoints, ``averaged``: their mean as well.

    ``progress`` wraps the list of systems. VoxarkError for scores and trials that are malformed.
    """
    trials = read_trials(str(experiment.trials))
    require_labels(trials)
    utt2spk = merged_table(experiment, "utt2spk")
    enroll_map = read_column(experiment.enroll_map, str.split) if experiment.enroll_map else {}
    names = scores.names_of_speakers(trials, utt2spk, enroll_map)
    groupings, lacking = find_groupings(experiment, trials, names)
    speakers, note = find_speakers(experiment, trials, names, options)
    measuring = scores.Measuring(points, averaged, speakers, options.ci_level, groupings)
    if speakers is not None:
        work = scores.work(len(trials), len(speakers.names), len(experiment.systems))
        measuring.in_groups = work * (1 + len(groupings)) <= _MOST_WORK
    results = scores.measure_systems(
        experiment.systems, trials, measuring, JoinOptions(True, options.allow_extra), progress
    )
    logs = read_logs(experiment)
    sections = [
        results_section(experiment, results, options.ci_level, note),
        funnel_section(experiment, results),
        *curves_sections(results),
        training_section(experiment),
    ]
    sections.append(fhvae_section(experiment, options.max_media))
    by_group = groups_section(results, {name: _HEADINGS[name] for name in groupings})
    by_group.missing += lacking
    if groupings and speakers is not None and not measuring.in_groups:
        by_group.missing.append("Groups have no intervals, which would take long for so many trials.")
    sections += [by_group, making_section(experiment, logs)]
    num_speakers = len(set(names[1]) - {None}) if None not in names[1] else 0
    summary = summary_sentence(results, len(trials), int(np.sum(trials.target)), num_speakers)
    return Page(experiment.title, facts_at_head(experiment, logs), summary, sections)


def facts_at_head(experiment, logs):
    """(name, text) of what stands at the head of the page."""
    facts = experiment.facts
    found = [
        ("Corpus", facts.get("corpus")),
        ("Preset", facts.get("preset")),
        ("Seed", facts.get("seed")),
        ("Started", date_of(experiment, logs)),
        ("Command", facts.get("command")),
        ("Trials", experiment.name_of(experiment.trials)),
        ("Folder", str(experiment.folder)),
    ]
    return [(name, text) for name, text in found if text]


def results_section(experiment, results, level, note):
    """The Section of the main table."""
    section = Section("results", "Results", [results_table(results, level), rates_figure(results, level)])
    if note:
        section.parts.insert(1, Text(note, quiet=True))
    if experiment.unscored:
        section.missing.append("No scores of: " + ", ".join(experiment.unscored) + ".")
    return section


# ---------------------------------------------------------------------------------------- speakers and groups


def find_speakers(experiment, trials, names, options):
    """(TrialSpeakers for the intervals or None, a sentence that says why there are none)."""
    if options.ci == "none":
        return None, "Without intervals (--ci=none)."
    try:
        speakers = scores.trial_speakers(trials, *names)
        scores.check_enough(trials, speakers)
    except VoxarkError as error:
        logger.warning("no intervals: %s", error)
        return None, f"No intervals: {error}."
    if scores.work(len(trials), len(speakers.names), len(experiment.systems)) > _MOST_WORK:
        return None, (
            f"No intervals: {plural(len(trials), 'trial')} of {plural(len(speakers.names), 'speaker')} "
            "would take long; compute-eer --ci=jackknife makes them."
        )
    return speakers, scores.few_speakers_note(speakers)


def find_groupings(experiment, trials, names):
    """({name: Grouping} of the labels that the test data have, sentences on those that they lack)."""
    found, lacking = {}, []
    spk2gender = merged_table(experiment, "spk2gender")
    enroll, test = ([spk2gender.get(speaker) for speaker in side] for side in names)
    of = groups.gender_groups(trials, enroll, test)
    _keep("gender", of, "by gender: spk2gender in a data directory makes them", found, lacking)
    of = groups.duration_groups(trials, durations_of(experiment))
    _keep("duration", of, "by duration: utt2dur, segments or utt2num_frames make them", found, lacking)
    for name in _LABELS:
        labels = merged_table(experiment, f"utt2{name}")
        if labels:
            _keep(
                name,
                groups.label_groups(trials, labels),
                f"by {name}: its labels are all alike, too many or missing for some utterances",
                found,
                lacking,
            )
    return found, lacking


def _keep(name, of, sentence, found, lacking):
    if of is None:
        lacking.append(f"No error rates {sentence}.")
    else:
        found[name] = of
