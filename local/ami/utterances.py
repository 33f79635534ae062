"""From the annotated turns of a meeting to utterances of each microphone."""

import bisect
from typing import NamedTuple


class Utterance(NamedTuple):
    """A stretch of one talker in a recording, in seconds; ``overlap``: the part in which others talk."""

    speaker: str
    meeting: str
    mic: str
    recording: str
    start: float
    end: float
    text: str
    overlap: float

    @property
    def key(self):
        """The utterance's name: speaker, meeting, microphone, start and end in hundredths of a second.

        A hyphen sorts before letters and digits, so that names sort as speakers do.
        """
        edges = "-".join(f"{round(100 * seconds):07d}" for seconds in (self.start, self.end))
        return f"{self.speaker}-{self.meeting}-{self.mic}-{edges}"

    @property
    def stretch(self):
        """The same for all microphones."""
        return self.key.replace(f"-{self.mic}-", "-")

    @property
    def segment(self):
        """The line of segments."""
        return f"{self.recording} {self.start:.3f} {self.end:.3f}"

    @property
    def seconds(self):
        """The length in seconds."""
        return self.end - self.start


class Limits(NamedTuple):
    """Which utterances are kept."""

    min_seconds: float
    max_overlap: float
    need_words: bool


def joined(intervals):
    """Intervals (start, end) that overlap or touch made one; sorted and disjoint."""
    union = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = union[-1][0], max(end, union[-1][1])
        elif end > start:
            union.append((start, end))
    return union


def covered(start, end, union):
    """The seconds of (start, end) that lie in sorted disjoint intervals."""
    total = 0.0
    for place in range(max(bisect.bisect_right(union, (start, float("inf"))) - 1, 0), len(union)):
        if union[place][0] >= end:
            break
        total += max(0.0, min(end, union[place][1]) - max(start, union[place][0]))
    return total


def recording_of(meeting, mic, talker):
    """The key of a recording in wav.scp."""
    return f"{meeting}-{mic}-{talker.channel}" if mic == "ihm" else f"{meeting}-{mic}"


def meeting_utterances(meeting, talkers, turns, mics):
    """All Utterances of a meeting, in each microphone; others talk where they have a turn with words.

    ``talkers``: {agent: Talker}, ``turns``: {agent: [(start, end, text)]}.
    """
    found = []
    for agent, own in turns.items():
        name = talkers[agent].name
        rows = [row for other, rows in turns.items() if other != agent for row in rows]
        others = joined((start, end) for start, end, text in rows if text)
        for start, end, text in own:
            overlap = covered(start, end, others) / (end - start) if end > start else 0.0
            for mic in mics:
                recording = recording_of(meeting, mic, talkers[agent])
                found.append(Utterance(name, meeting, mic, recording, start, end, text, overlap))
    return found


def sort_out(utterances, durations, limits):
    """Those that can be used, and the others: {key: Utterance}, {key: reason}.

    Turns are cut at the end of the recording; of those that are annotated twice one is kept. ``durations``:
    {recording: seconds} of the recordings that are there.
    """
    kept, dropped = {}, {}
    for utterance in utterances:
        key, duration = utterance.key, durations.get(utterance.recording)
        if duration is None:
            dropped[key] = "no recording"
        elif limits.need_words and not utterance.text:
            dropped[key] = "no words"
        elif utterance.start >= duration:
            dropped[key] = "behind the end of the recording"
        elif (
            min(utterance.end, duration) - utterance.start < limits.min_seconds
            or utterance.end <= utterance.start
        ):
            dropped[key] = f"shorter than {limits.min_seconds:g} s"
        elif utterance.mic == "sdm" and utterance.overlap > limits.max_overlap:
            dropped[key] = f"others talk in more than {limits.max_overlap:g} of it"
        else:
            kept[key] = utterance._replace(end=min(utterance.end, duration))
    return kept, {key: reason for key, reason in dropped.items() if key not in kept}
