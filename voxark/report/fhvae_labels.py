"""Labels of segments for pictures: one of an utterance for all of its segments, or of a ctm by time."""

import re
from dataclasses import dataclass

import numpy as np

from voxark import tables
from voxark.disentanglement.factors import labels_at, segment_middles
from voxark.disentanglement.factors import read_labels as read_intervals
from voxark.errors import VoxarkError
from voxark.options import option

_WORDS = {"spk": "speaker", "mic": "microphone", "phones": "phone", "words": "word"}


@dataclass
class LabelOptions:
    """Where segments lie in their utterances, and what becomes of the labels of a ctm."""

    ctm_map: str = option("", "tsne: table label -> class for all ctm files; other labels do not count")
    segment_shift: int = option(20, "tsne with a ctm: frames from the begin of a segment to that of the next")
    segment_length: int = option(20, "tsne with a ctm: frames of a segment")
    frame_shift: float = option(10.0, "tsne with a ctm: milliseconds from frame to frame")
    frame_length: float = option(25.0, "tsne with a ctm: milliseconds of a frame's window")

    def check(self):
        """Raise VoxarkError for values that make no segments."""
        if min(self.segment_shift, self.segment_length) < 1 or min(self.frame_shift, self.frame_length) <= 0:
            raise VoxarkError(
                "--segment-shift, --segment-length, --frame-shift and --frame-length must be positive")


class UtteranceLabels:
    """Labels of utterances, given to each of their segments."""

    def __init__(self, title, labels):
        self.title, self._labels = title, labels

    def of(self, key, number):
        """The labels of the ``number`` segments of an utterance, None where there is none."""
        return [self._labels.get(key)] * number


class TimedLabels:
    """Labels of stretches of time: a segment has the label that stands at its middle."""

    def __init__(self, title, intervals, options):
        """``intervals``: {utterance: (starts (n,), ends (n,), labels)}, in seconds, by start."""
        self.title, self._intervals, self._options = title, intervals, options

    def of(self, key, number):
        """The labels of the ``number`` segments of an utterance, None where there is none."""
        if key not in self._intervals:
            return [None] * number
        return labels_at(segment_middles(np.arange(number), self._options), *self._intervals[key])


def title_of(path):
    """What a table's file is about, by its name: utt2spk is about the speaker, phones.ctm about the phone."""
    name = re.split(r"[/:]", path.strip())[-1]
    name = re.sub(r"^utt2|\.(ctm|txt|ark|scp)$", "", name)
    return _WORDS.get(name, name or "label")


def read_labels(source, options=None):
    """Labels out of ``[<name>=]<table>``: a .ctm file, or a table of lines ``<utterance> <label>``."""
    options = LabelOptions() if options is None else options
    named = re.fullmatch(r"([\w -]+)=(.+)", source)
    title, path = named.groups() if named else (title_of(source), source)
    if not path.endswith(".ctm"):
        return UtteranceLabels(title, tables.read_table("token", path))
    classes = tables.read_table("token", options.ctm_map) if options.ctm_map else None
    return TimedLabels(title, read_intervals(path, classes), options)


def check_titles(labels):
    """Raise VoxarkError if two factors have the same title."""
    titles = [factor.title for factor in labels]
    for title in titles:
        if titles.count(title) > 1:
            raise VoxarkError(f"two tables of labels are called {title!r}: name them, as <name>=<table>")
