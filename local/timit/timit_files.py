"""TIMIT's files: which there are, what lacks, and the phones and words beside a recording."""

import logging
import re
import sys
from pathlib import Path

from timit_speakers import CORE_TEST, DEV, NUM_TRAIN

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "timit_phones"))
from phones import PHONES  # noqa: E402 - the folder of the phones' programs

from voxark import corpora  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402

logger = logging.getLogger("voxark.timit")

RATE = 16000
SENTENCES = {"sx": 5, "si": 3}  # of each speaker, besides the two sa
_WANTED = re.compile(
    r"(?:.*/)?(?P<part>train|test)/(?P<dialect>dr[1-8])/(?P<speaker>[fm][a-z]{3}[0-9])/"
    r"(?P<sentence>(?P<kind>s[aix])[0-9]+)\.(?P<kind_of_file>wav|wav\.wav|phn|wrd|txt)"
)


class Utterance:
    """The files of one sentence of one speaker."""

    def __init__(self, match):
        self.part, self.dialect, self.speaker = match["part"], match["dialect"], match["speaker"]
        self.sentence, self.kind = match["sentence"], match["kind"]
        self.key, self.files = f"{self.speaker}_{self.sentence}", {}

    @property
    def audio(self):
        """The audio file, the publisher's where there is a copy of it as wav, or None."""
        return self.files.get("wav", self.files.get("wav.wav"))

    @property
    def place(self):
        """The folder of the speaker as it should be called."""
        return f"{self.part}/{self.dialect}/{self.speaker}"


def find_utterances(corpus):
    """{key: Utterance} of all that lies below a folder; VoxarkError where an utterance is there twice."""
    found, num_others = corpora.find_files(corpus, _WANTED.fullmatch)
    utterances = {}
    for relative, path in found.items():
        match = _WANTED.fullmatch(relative)
        utterance = Utterance(match)
        utterance = utterances.setdefault(utterance.key, utterance)
        twice = utterance.files.setdefault(match["kind_of_file"], path)
        if twice != path:
            raise VoxarkError(
                f"{utterance.key} is there twice: {twice} and {path}; give the folder of one copy"
            )
    if num_others:
        logger.info("%s: %d other files are ignored", corpus, num_others)
    if not utterances:
        raise VoxarkError(
            f"{corpus}: no TIMIT in this folder: there is no file like train/dr1/fcjf0/si1027.wav"
        )
    return utterances


def missing(parts):
    """What lacks on the disk, in words: regions and speakers, and sentences of speakers that are there."""
    lacking, speakers = [], {part: {} for part in parts}
    for part, utterances in parts.items():
        for utterance in utterances.values():
            speakers[part].setdefault(utterance.speaker, []).append(utterance)
    for part, lists in (("test", CORE_TEST), ("dev", DEV)):
        lacking += [
            f"test/{dialect}/{name}"
            for dialect, names in lists.items()
            for name in names
            if name not in speakers[part]
        ]
    for dialect, expected in NUM_TRAIN.items():
        number = sum(own[0].dialect == dialect for own in speakers["train"].values())
        if number != expected:
            lacking.append(f"train/{dialect} has {number} of {expected} speakers")
    for part in parts:
        for own in speakers[part].values():
            for kind, expected in SENTENCES.items():
                number = sum(utterance.kind == kind for utterance in own)
                if number != expected:
                    lacking.append(f"{own[0].place} has {number} of {expected} {kind} sentences")
    return lacking


def read_phones(path, num_samples):
    """[(start, duration, phone)] in seconds of a .phn file; VoxarkError names the line that is wrong."""
    phones, last = [], 0
    for number, line in enumerate(corpora.read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not (words[0].isdecimal() and words[1].isdecimal()):
            raise VoxarkError(f"{path}:{number}: expected `start end phone`, found '{line[:60]}'")
        start, end, phone = int(words[0]), int(words[1]), words[2].lower()
        if phone not in PHONES:
            raise VoxarkError(f"{path}:{number}: '{phone[:20]}' is none of TIMIT's 61 phones")
        if not last <= start <= end or (start >= num_samples and start < end):
            raise VoxarkError(
                f"{path}:{number}: a phone from sample {start} to {end}, after one that begins at "
                f"{last}, in a recording of {num_samples} samples"
            )
        last, end = start, min(end, num_samples)
        if end > start:
            phones.append((start / RATE, (end - start) / RATE, phone))
    if not phones:
        raise VoxarkError(f"{path}: no phone in it")
    return phones


def read_words(utterance):
    """The words of an utterance, from its .wrd file or else its .txt file; "" where there is neither."""
    if "wrd" in utterance.files:
        rows = [line.split() for line in corpora.read_lines(utterance.files["wrd"])]
        return " ".join(row[2].lower() for row in rows if len(row) == 3)
    if "txt" in utterance.files:
        words = " ".join(corpora.read_lines(utterance.files["txt"])).lower().split()
        words = [re.sub(r"[^a-z'-]", "", word).strip("-") for word in words[2:]]  # behind the sample numbers
        return " ".join(word for word in words if word)
    return ""
