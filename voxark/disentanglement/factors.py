"""Factors: labels of segments, by utterance (speaker) or by time (phone), and what no split divides."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark import datadir, tables
from voxark.errors import VoxarkError
from voxark.options import option


class Factor(NamedTuple):
    """A factor of N segments.

    ``kind``: "sequence" (one label an utterance) or "segment"; ``labels`` (N,), numbers of ``names``, -1 for
    none; ``groups`` (N,): the numbers of what no split divides; ``disjoint``: what that is, for people.
    """

    name: str
    kind: str
    labels: np.ndarray
    names: list
    groups: np.ndarray
    disjoint: str


@dataclass
class FactorOptions:
    """Where labels come from, and where segments lie in their utterances."""

    utt2spk: str = option(
        "", "Table of the speaker of each utterance: the factor `speaker`, and whom --ctm keeps apart"
    )
    factors: str = option("", "Factors of utterances: name=table,... of labels by utterance, or by speaker")
    ctm: str = option("", "Factors of segments: name=file,... of utterance channel start duration label")
    ctm_map: str = option(
        "", "Table label -> class for all of --ctm, or name=table,... for those named; others are left out"
    )
    speaker_disjoint: str = option("", "Factors of utterances, name,..., that keep speakers apart, too")
    utt2uniq: str = option(
        "", "Table of what each utterance is a version of, as in other noise: versions of one are kept together"
    )
    segment_shift: int = option(20, "Frames from the begin of a segment to that of the next")
    segment_length: int = option(20, "Frames of a segment")
    frame_shift: float = option(10.0, "Milliseconds from frame to frame")
    frame_length: float = option(25.0, "Milliseconds of a frame's window (snip-edges=false: give the shift)")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if min(self.segment_shift, self.segment_length) < 1 or min(self.frame_shift, self.frame_length) <= 0:
            raise VoxarkError(
                "--segment-shift, --segment-length, --frame-shift and --frame-length must be positive"
            )


def named_files(text, name_of_option):
    """{name: file} of `name=file,name=file`; VoxarkError for anything else."""
    found = {}
    for word in filter(None, text.split(",")):
        name, equals, file = word.partition("=")
        if not (name and equals and file):
            raise VoxarkError(f"--{name_of_option}={text}: name=file,name=file is expected, found {word!r}")
        if name in found:
            raise VoxarkError(f"--{name_of_option}={text}: {name!r} stands there twice")
        found[name] = file
    return found


def read_factors(options, segments):
    """The Factors that options ask for, of Segments; VoxarkError for a table that has nothing in common."""
    options.check()
    utt2spk = tables.read_table("token", options.utt2spk) if options.utt2spk else {}
    if options.utt2spk and not utt2spk:
        raise VoxarkError(f"--utt2spk={options.utt2spk}: the table is empty")
    speakers = [utt2spk.get(key) for key in segments.keys]
    apart = set(filter(None, options.speaker_disjoint.split(",")))
    by_utterance, by_time = named_files(options.factors, "factors"), named_files(options.ctm, "ctm")
    if unknown := apart - set(by_utterance):
        raise VoxarkError(f"--speaker-disjoint: {sorted(unknown)[0]!r} is none of --factors")
    if apart and not utt2spk:
        raise VoxarkError("--speaker-disjoint needs --utt2spk")
    names = [*(["speaker"] if utt2spk else []), *by_utterance, *by_time]
    if len(set(names)) < len(names):
        raise VoxarkError(f"--factors and --ctm: {max(names, key=names.count)!r} is there twice "
                          "(--utt2spk gives the factor speaker)")
    apart_of = dict.fromkeys(apart, (speakers, "speaker"))
    versions = _versions(options.utt2uniq, segments.keys)
    found = [sequence_factor("speaker", speakers, segments, *versions)] if utt2spk else []
    for name, table in by_utterance.items():
        labels = tables.read_table("token", table)
        values = [labels.get(key, labels.get(speaker)) for key, speaker in zip(segments.keys, speakers)]
        found.append(sequence_factor(name, values, segments, *apart_of.get(name, versions)))
    for name, path in by_time.items():
        intervals = read_labels(path, _class_map(name, options))
        found.append(segment_factor(name, intervals, speakers, segments, options))
    for factor in found:
        if not (factor.labels >= 0).any():
            raise VoxarkError(
                f"factor {factor.name}: no segment has a label: are the keys those of the latents?"
            )
    return found


def _versions(table, keys):
    """(what each utterance is a version of, or None; "original"), or nothing without a table."""
    if not table:
        return ()
    originals = tables.read_table("token", table)
    found = [originals.get(key) for key in keys]
    if not any(found):
        raise VoxarkError(f"--utt2uniq={table}: none of the latents' utterances is in it")
    return found, "original"


def _class_map(name, options):
    if not options.ctm_map:
        return None
    table = options.ctm_map
    if "=" in table:
        table = named_files(table, "ctm-map").get(name)
    return tables.read_table("token", table) if table else None


def numbered(values):
    """(numbers (n,) int64, sorted list of the distinct values); None is -1."""
    names = sorted(set(values) - {None})
    number = {name: place for place, name in enumerate(names)}
    return np.array([number.get(value, -1) for value in values], np.int64), names


def sequence_factor(name, values, segments, apart=None, disjoint="speaker"):
    """The Factor of one value (or None) an utterance.

    ``apart``: what else than utterances is not divided, one value (or None) an utterance, as their speakers;
    ``disjoint``: what these are.
    """
    labels, names = numbered(values)
    if apart is None:
        groups, disjoint = np.arange(len(values)), "utterance"
    else:
        groups = _joint_groups(apart)
    return Factor(name, "sequence", labels[segments.utterance], names, groups[segments.utterance], disjoint)


def _joint_groups(values):
    """Numbers (U,) of the utterances' speakers or originals; an utterance without one is a group by itself."""
    numbers, names = numbered(values)
    return np.where(numbers >= 0, numbers, len(names) + np.arange(len(numbers)))


def segment_factor(name, intervals, speakers, segments, options):
    """The Factor of the labels that stand at the middles of segments.

    ``intervals``: {utterance: (starts (n,), ends (n,), list of n labels)}, by start; see :func:`read_labels`.
    Speakers are not divided, or, where none is known, utterances.
    """
    middle = segment_middles(segments.index, options)
    values = [None] * len(middle)
    order = np.argsort(segments.utterance, kind="stable")
    ends = np.cumsum(np.bincount(segments.utterance, minlength=len(segments.keys)))
    for key, rows in zip(segments.keys, np.split(order, ends[:-1])):
        if key in intervals:
            for row, label in zip(rows.tolist(), labels_at(middle[rows], *intervals[key])):
                values[row] = label
    labels, names = numbered(values)
    known = any(speaker is not None for speaker in speakers)
    groups = _joint_groups(speakers) if known else np.arange(len(segments.keys))
    disjoint = "speaker" if known else "utterance"
    return Factor(name, "segment", labels, names, groups[segments.utterance], disjoint)


def segment_middles(index, options):
    """Times in seconds (N,) of the middles of segments with the numbers ``index`` (N,) in their utterance.

    Frame t covers t * shift to t * shift + window; the middle is that of the first and the last frame's span.
    """
    first = np.asarray(index, np.float64) * options.segment_shift
    span = (options.segment_length - 1) * options.frame_shift + options.frame_length
    return (first * options.frame_shift + span / 2.0) / 1000.0


def labels_at(times, starts, ends, labels):
    """The label, or None, of the last interval to begin at or before each time and to end behind it."""
    place = np.searchsorted(starts, times, side="right") - 1
    return [labels[p] if p >= 0 and t < ends[p] else None for t, p in zip(times, place.tolist())]


def read_labels(path, class_map=None):
    """{utterance: (starts, ends, labels)} of a ctm file, by start; a dict, if given, makes labels classes."""
    entries = {}
    for entry in datadir.read_ctm(path):
        label = entry.label if class_map is None else class_map.get(entry.label)
        entries.setdefault(entry.key, []).append((entry.start, entry.start + entry.duration, label))
    found = {}
    for key, rows in entries.items():
        starts, ends, labels = zip(*sorted(rows, key=lambda row: row[0]))
        found[key] = np.array(starts), np.array(ends), list(labels)
    return found
