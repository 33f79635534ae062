"""Aurora-4's utterances by its lists, its headerless audio, and WSJ's transcripts and speakers."""

import os
import re
import struct
from typing import NamedTuple

import numpy as np

from voxark import corpora
from voxark.errors import VoxarkError

RATE = 16000
NOISES = ("clean", "car", "babble", "restaurant", "street", "airport", "train")
MICS = ("wv1", "wv2")  # the close-talking Sennheiser microphone, and one of several others
# Number of a condition -> (noise, microphone): 01 to 07 with the first microphone, 08 to 14 with the second.
CONDITIONS = {
    f"{7 * m + n + 1:02d}": (noise, mic) for m, mic in enumerate(MICS) for n, noise in enumerate(NOISES)
}
LISTS = {"train": "devtest{}_0330_16k.list", "test": "test{}_0330_16k.list"}
LIST_OF_MULTI = "training_multicondition_16k.list"

_WANTED = re.compile(r"(.*/)?([^/]+\.(wv1|wv2|wav|list|dot)|spkrinfo\.txt)")
_STEM = re.compile("[0-9a-z]{3}[a-z][0-9a-z]{4}")  # speaker, kind of session, session, sentence: 440c0201
_FOLDERS = {
    "train": re.compile(r"dev(?:test)?_?(?:0330_)?(?P<noise>[a-z]+)_(?P<mic>wv[12])(?:_16k)?"),
    "test": re.compile(r"test_?(?:0330_)?(?P<noise>[a-z]+)_(?P<mic>wv[12])(?:_16k)?"),
}


class Utterance(NamedTuple):
    """A recording: ``stem`` is the sentence as WSJ names it, the condition "" where it is not known."""

    stem: str
    condition: str
    mic: str
    path: object

    @property
    def speaker(self):
        """WSJ's name of the speaker."""
        return self.stem[:3]

    @property
    def key(self):
        """The utterance's name in data directories."""
        return f"{self.stem}_{self.condition or self.mic}"


class Tree:
    """The files below a folder."""

    def __init__(self, corpus):
        self.corpus = corpus
        self.files, self.num_others = corpora.find_files(corpus, _WANTED.fullmatch)
        self._by_name = {}
        for relative in self.files:
            self._by_name.setdefault(relative.rpartition("/")[2], []).append(relative)

    def named(self, end):
        """The files whose name in small letters ends so."""
        return [
            self.files[path] for name in self._by_name if name.endswith(end) for path in self._by_name[name]
        ]

    def find_list(self, name):
        """The path of a list, or None; VoxarkError if there are two."""
        found = [self.files[path] for path in self._by_name.get(name, [])]
        if len(found) > 1:
            raise VoxarkError(
                f"{found[0]} and {found[1]}: two lists of one name; give the folder of one copy"
            )
        return found[0] if found else None

    def find(self, entry, place):
        """The path that an entry of a list means, or None; discs have folders above those in the lists."""
        entry = entry.lower().lstrip("./")
        found = [
            path
            for path in self._by_name.get(entry.rpartition("/")[2], [])
            if f"/{path}".endswith(f"/{entry}")
        ]
        if len(found) > 1:
            raise VoxarkError(
                f"{place}: {entry} is there twice: {self.files[found[0]]} and {self.files[found[1]]}"
            )
        return self.files[found[0]] if found else None

    def read_list(self, path, condition=""):
        """({key: Utterance}, {key: why} of those not on the disk) of a list; VoxarkError for a bad line."""
        utterances, missing = {}, {}
        for number, line in enumerate(corpora.read_lines(path), 1):
            entry = line.split()[:1]
            if not entry or entry[0].startswith(";"):
                continue
            stem, _, suffix = entry[0].replace("\\", "/").lower().rpartition("/")[2].partition(".")
            if not _STEM.fullmatch(stem) or suffix not in (*MICS, "wav"):
                raise VoxarkError(
                    f"{path}:{number}: expected a path like .../440c0201.wv1, found '{line[:60]}'"
                )
            mic = CONDITIONS[condition][1] if condition else suffix
            file = self.find(entry[0].replace("\\", "/"), f"{path}:{number}")
            utterance = Utterance(stem, condition, mic, file)
            if utterance.key in utterances or utterance.key in missing:
                raise VoxarkError(f"{path}:{number}: {entry[0]} is there already")
            if file is None:
                missing[utterance.key] = f"{path}:{number}: {entry[0]} is not on the disk"
            else:
                utterances[utterance.key] = utterance
        return utterances, missing

    def read_folders(self, part):
        """{key: utterance} of a part by the names of folders, as test_car_wv2, of a tree without lists."""
        number_of, utterances = {pair: number for number, pair in CONDITIONS.items()}, {}
        for relative, path in self.files.items():
            *folders, name = relative.split("/")
            stem, _, suffix = name.partition(".")
            matches = [match for match in map(_FOLDERS[part].fullmatch, folders) if match]
            if not matches or suffix not in (*MICS, "wav") or not _STEM.fullmatch(stem):
                continue
            condition = number_of.get((matches[-1]["noise"], matches[-1]["mic"]))
            if condition is None or any(folder.endswith("_8k") for folder in folders):
                continue
            utterance = Utterance(stem, condition, CONDITIONS[condition][1], path)
            if utterance.key in utterances:
                raise VoxarkError(
                    f"{utterance.key} is there twice: {utterances[utterance.key].path} and {path}"
                )
            utterances[utterance.key] = utterance
        return utterances


# ---------------------------------------------------------------------------------------------------- audio


def inspect_audio(path):
    """(AudioInfo, order of the bytes) of a file; the order is "" for wav and SPHERE.

    Of headerless samples of 16 bits it is "big" or "little", as they look: sound changes less from one sample
    to the next if it is read in the right order.

    Raises VoxarkError, naming the file, for one that is empty, broken or cut within a sample.
    """
    try:
        with open(path, "rb") as file:
            head, size = file.read(8), os.fstat(file.fileno()).st_size
            if not head or head[:7] == b"NIST_1A" or head[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC"):
                return corpora.inspect_audio(path, RATE), ""
            if size % 2:
                raise VoxarkError(
                    f"{path}: headerless audio of {size} bytes: it is cut within a sample of two bytes"
                )
            file.seek(size // 4 * 2)
            data = file.read(16384)
    except OSError as error:
        raise VoxarkError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    change = {
        order: np.abs(np.diff(np.frombuffer(data, dtype).astype(np.float64))).sum()
        for order, dtype in (("big", ">i2"), ("little", "<i2"))
    }
    return corpora.AudioInfo(RATE, 1, size // 2), min(change, key=change.get)


def riff_header(order):
    """The header of a wav of unknown length, one channel, 16 bits, 16 kHz, to stand before raw samples."""
    first, mark = (b"RIFX", ">") if order == "big" else (b"RIFF", "<")
    unknown = 0xFFFFFFFF
    return struct.pack(
        mark + "4sI4s4sIHHIIHH4sI",
        first,
        unknown,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        RATE,
        2 * RATE,
        2,
        16,
        b"data",
        unknown,
    )


# ------------------------------------------------------------------------------------------ WSJ's documents


def read_transcripts(trees, stems):
    """{stem: words} out of WSJ's .dot files, lines `words (440c0201)`; as they were spoken, in capitals."""
    found = {}
    for path in (path for tree in trees for path in tree.named(".dot")):
        for line in corpora.read_lines(path):
            match = re.fullmatch(r"(.*)\((\w{8})\)\s*", line)
            if match and match[2].lower() in stems:
                found[match[2].lower()] = _spoken(match[1])
    return found


def _spoken(text):
    """WSJ's detailed transcription without its marks of noises, pauses, emphasis and lengthening."""
    words = []
    for word in re.sub(r"\[[^\]]*\]", " ", text).split():
        if word in (".", "~", "--"):
            continue
        word = re.sub(r"[*<>!:\\~]|^-|-$", "", word)
        if re.fullmatch(r"[^\w']\w.*", word):  # ,COMMA: a mark that was read aloud
            word = word[1:]
        if word:
            words.append(word.upper())
    return " ".join(words)


def read_genders(trees):
    """{speaker: m or f} out of WSJ's spkrinfo.txt."""
    genders = {}
    for path in (path for tree in trees for path in tree.named("spkrinfo.txt")):
        for line in corpora.read_lines(path):
            words = line.lower().split()
            if len(words) > 1 and re.fullmatch("[0-9a-z]{3}", words[0]) and words[1] in ("m", "f"):
                genders[words[0]] = words[1]
    return genders
