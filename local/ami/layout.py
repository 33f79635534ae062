"""The AMI corpus as its publisher ships it: where recordings and annotations lie, and their sets.

    amicorpus/MEETING/audio/MEETING.Headset-N.wav    the microphone in front of one talker (IHM)
    amicorpus/MEETING/audio/MEETING.Array1-01.wav    the first microphone of the array on the table (SDM)
    ami_public_manual_1.6.2/{words,segments,corpusResources}/...
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from annotations import Words, read_meetings, read_participants, read_segments

from voxark import corpora
from voxark.errors import VoxarkError

logger = logging.getLogger("voxark.ami")

RATE = 16000
ROOMS = {"E": "edinburgh", "I": "idiap", "T": "tno"}  # by the first letter of a meeting's name
_AUDIO = re.compile(r"(?:.*/)?(\w+)/audio/(\1\.(?:headset-\d|array1-01))\.wav")
_XML = re.compile(r"([a-z]{2}\d{4}[a-z]?)\.([a-z])\.(segments|words)\.xml")


class Meeting(NamedTuple):
    """What the publisher has of a meeting; ``set`` is train, dev, test or none."""

    set: str
    num_headsets: int
    has_array: bool


def read_partition():
    """{meeting: Meeting} of meetings.txt, beside this file."""
    lines = corpora.read_lines(Path(__file__).with_name("meetings.txt"))
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name: Meeting(own_set, int(number), array == "yes") for name, own_set, number, array in rows}


def stream_of(mic, channel):
    """The name of a recording's stream: Headset-N of a talker's channel, or Array1-01."""
    return f"Headset-{channel}" if mic == "ihm" else "Array1-01"


def find_audio(corpus):
    """{meeting.stream in small letters: Path} of the recordings in ``corpus``/amicorpus or ``corpus``."""
    corpus = Path(corpus).absolute()
    if not corpus.is_dir():
        raise VoxarkError(f"{corpus}: no such folder")
    root = corpora.find_folder(corpus, "amicorpus") or corpus

    def wanted(key):
        name = key.rpartition("/")[2]
        return re.fullmatch(r"\w+\.(headset-\d|array1-01)\.wav", name) is not None

    files, num_others = corpora.find_files(root, wanted)
    audio = {}
    for key, path in files.items():
        match = _AUDIO.fullmatch(key)
        if match is None:
            raise VoxarkError(
                f"{path}: does not lie where its name says; expected MEETING/audio/MEETING.STREAM.wav"
            )
        if match[2] in audio:
            raise VoxarkError(f"{audio[match[2]]} and {path} are the same recording: remove one of them")
        audio[match[2]] = path
    if not audio:
        raise VoxarkError(
            f"{root}: holds no MEETING/audio/MEETING.Headset-N.wav and no MEETING/audio/MEETING.Array1-01"
            ".wav; local/ami/download.sh fetches them"
        )
    logger.info("%s: %d recordings, %d other files", root, len(audio), num_others)
    return audio


def find_annotations(corpus, given=""):
    """The folder with words, segments and corpusResources: ``given``, or found in ``corpus`` or beside it."""
    corpus, names = Path(corpus).absolute(), ("ami_public_manual", "annotations")
    found = [corpus]
    for place in (corpus, corpus.parent):
        inside = [path for path in place.iterdir() if path.name.lower().startswith(names)]
        found += sorted(inside, reverse=True)  # the highest version first
    for folder in [Path(given).absolute()] if given else found:
        if folder.is_dir() and all(corpora.find_folder(folder, name) for name in ("segments", "words")):
            return folder
    raise VoxarkError(
        f"{given or corpus}: no annotations there (folders segments, words and corpusResources); unpack "
        "ami_public_manual_1.6.2.zip there, or name its folder with --annotations"
    )


class Annotations:
    """The annotations of all meetings; segments and words are read when they are asked for."""

    def __init__(self, folder):
        self.folder = folder
        resources = corpora.find_folder(folder, "corpusResources") or folder / "corpusResources"
        self.meetings = read_meetings(resources / "meetings.xml")
        self.genders = read_participants(resources / "participants.xml")
        self._files = {}
        for kind in ("segments", "words"):
            for path in corpora.find_files(corpora.find_folder(folder, kind), _XML.fullmatch)[0].values():
                self._files[path.name.lower()] = path

    def gender(self, name):
        """m or f, by participants.xml, or by the first letter of the name of one who is not in there."""
        gender = self.genders.get(name, name[0].lower())
        if gender not in ("m", "f"):
            raise VoxarkError(
                f"{self.folder}: the gender of {name} stands neither in participants.xml nor in the name"
            )
        return gender

    def missing(self, meeting):
        """The files of a meeting that should be there and are not, as paths in the annotations."""
        names = [f"{kind}/{meeting}.{agent}.{kind}.xml" for kind in ("segments", "words")
                 for agent in sorted(self.meetings.get(meeting, "A"))]  # fmt: skip
        lost = [name for name in names if name.rpartition("/")[2].lower() not in self._files]
        return lost if meeting in self.meetings else [f"{meeting} in corpusResources/meetings.xml", *lost]

    def turns(self, meeting, agent):
        """[(start, end, text)] of a talker in a meeting, in seconds; none if files are missing."""
        paths = [self._files.get(f"{meeting}.{agent}.{kind}.xml".lower()) for kind in ("segments", "words")]
        if None in paths:
            return []
        words = Words(paths[1])
        return [(turn.start, turn.end, words.text_of(turn)) for turn in read_segments(paths[0])]
