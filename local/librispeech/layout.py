"""LibriSpeech as its publisher ships it: parts and their sizes, speakers, chapters, transcripts, audio.

    LibriSpeech/SPEAKERS.TXT, CHAPTERS.TXT                       fields between |, comments after ;
    LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac   16 kHz
    LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt   lines `SPEAKER-CHAPTER-NNNN WORDS`
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from voxark import corpora
from voxark.errors import VoxarkError

logger = logging.getLogger("voxark.librispeech")

RATE = 16000
# part: utterances and speakers (README.TXT and SPEAKERS.TXT of the corpus; Panayotov et al., ICASSP 2015)
PARTS = {
    "train-clean-100": (28539, 251),
    "train-clean-360": (104014, 921),
    "train-other-500": (148688, 1166),
    "dev-clean": (2703, 40),
    "dev-other": (2864, 33),
    "test-clean": (2620, 40),
    "test-other": (2939, 33),
}

_AUDIO = re.compile(r"(\d+)/(\d+)/(\1-\2-\d{4,})\.flac")
_TRANSCRIPT = re.compile(r"(\d+)/(\d+)/\1-\2\.trans\.txt")


class Utterance(NamedTuple):
    """One utterance; ``path`` is absolute."""

    speaker: str
    chapter: str
    path: Path
    words: str
    seconds: float


class Part(NamedTuple):
    """What one part holds: {utterance: Utterance}, and {utterance: reason} of those that cannot be used."""

    utterances: dict
    dropped: dict


def find_root(corpus):
    """The folder that holds SPEAKERS.TXT and the parts: ``corpus``/LibriSpeech, or ``corpus`` itself."""
    corpus = Path(corpus).absolute()
    if not corpus.is_dir():
        raise VoxarkError(f"{corpus}: no such folder")
    root = corpora.find_folder(corpus, "LibriSpeech") or corpus
    if _find_file(root, "SPEAKERS.TXT") is None:
        raise VoxarkError(
            f"{root}: holds no SPEAKERS.TXT; expected LibriSpeech/SPEAKERS.TXT and LibriSpeech/PART/... "
            f"below {corpus}"
        )
    return root


def _find_file(root, name):
    found = [path for path in sorted(root.iterdir()) if path.name.lower() == name.lower()]
    return found[0] if found else None


def _rows(path, num_fields):
    """(place, fields) of the lines of SPEAKERS.TXT or CHAPTERS.TXT; the last field may hold more |."""
    for number, line in enumerate(corpora.read_lines(path), 1):
        if not line.strip() or line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", num_fields - 1)]
        if len(fields) < num_fields or not fields[0].isdigit():
            raise VoxarkError(
                f"{path}:{number}: expected {num_fields} fields with | between them, found '{line[:80]}'"
            )
        yield f"{path}:{number}", fields


def read_speakers(root):
    """{speaker: (gender m or f, part)} of SPEAKERS.TXT."""
    speakers = {}
    for place, (speaker, sex, part, _, _) in _rows(_find_file(root, "SPEAKERS.TXT"), 5):
        if sex not in ("M", "F"):
            raise VoxarkError(f"{place}: the sex of speaker {speaker} is '{sex}', not M or F")
        if speaker in speakers:
            raise VoxarkError(f"{place}: speaker {speaker} is there twice")
        speakers[speaker] = sex.lower(), part
    return speakers


def read_chapters(root):
    """{(speaker, chapter): part} of CHAPTERS.TXT, which only helps to say what is missing."""
    path = _find_file(root, "CHAPTERS.TXT")
    return {} if path is None else {(row[1], row[0]): row[3] for _, row in _rows(path, 8)}


def _wanted(key):
    return key.endswith((".flac", ".trans.txt")) and not key.rpartition("/")[2].startswith(".")


def _read_transcript(path, speaker, chapter, words):
    """Add the lines of one transcript to ``words``."""
    for number, line in enumerate(corpora.read_lines(path), 1):
        utterance, _, text = line.strip().partition(" ")
        if not utterance:
            continue
        if not utterance.startswith(f"{speaker}-{chapter}-") or not text.strip():
            raise VoxarkError(
                f"{path}:{number}: expected `{speaker}-{chapter}-NNNN WORDS`, found '{line[:80]}'"
            )
        if utterance in words:
            raise VoxarkError(f"{path}:{number}: utterance {utterance} is there twice")
        words[utterance] = " ".join(text.split())


def _scan(folder):
    """{utterance: (speaker, chapter, path)} of the audio files, {utterance: words} of the transcripts."""
    files, num_others = corpora.find_files(folder, _wanted)
    audio, words = {}, {}
    for key, path in files.items():
        if match := _AUDIO.fullmatch(key):
            audio[match[3]] = match[1], match[2], path
        elif match := _TRANSCRIPT.fullmatch(key):
            _read_transcript(path, match[1], match[2], words)
        else:
            raise VoxarkError(
                f"{path}: does not lie where its name says; expected SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN"
                f".flac or SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt below {folder}"
            )
    if num_others:
        logger.info("%s: %d other files are of no interest", folder, num_others)
    return audio, words


def read_part(root, part, speakers, chapters, partial=False):
    """Read one part: a Part.

    ``speakers``, ``chapters``: what :func:`read_speakers` and :func:`read_chapters` give. Raises VoxarkError
    for numbers of utterances and speakers that are not the published ones, for transcripts without audio,
    audio without a transcript and damaged audio files; with ``partial`` these are warnings and what is whole
    is kept.
    """
    folder = corpora.find_folder(root, part)
    if folder is None:
        text = f"{root}: holds no part {part}"
        if not partial:
            raise VoxarkError(f"{text}; local/librispeech/download.sh fetches it")
        logger.warning("%s: left out", text)
        return Part({}, {})
    audio, words = _scan(folder)
    _check_speakers(folder, part, {speaker for speaker, _, _ in audio.values()}, speakers)
    no_audio, no_words = sorted(words.keys() - audio.keys()), sorted(audio.keys() - words.keys())
    dropped = {**dict.fromkeys(no_audio, "no audio file"), **dict.fromkeys(no_words, "no transcript")}
    both = sorted(audio.keys() & words.keys())
    num_utterances, num_speakers = PARTS[part]
    counts = [("utterances", len(both), num_utterances),
              ("speakers", len({audio[utterance][0] for utterance in both}), num_speakers),
              ("transcripts without an audio file", len(no_audio), 0),
              ("audio files without a transcript", len(no_words), 0)]  # fmt: skip
    missing = _missing(part, audio, speakers, chapters)
    missing += [f"audio of {key}" for key in no_audio] + [f"transcript of {key}" for key in no_words]
    corpora.check_counts(str(folder), counts, missing, partial)
    seconds = _durations(folder, {utterance: audio[utterance][2] for utterance in both}, partial)
    dropped.update((utterance, "damaged audio file") for utterance in both if utterance not in seconds)
    utterances = {key: Utterance(*audio[key], words[key], seconds[key]) for key in both if key in seconds}
    return Part(utterances, dropped)


def _check_speakers(folder, part, found, speakers):
    for speaker in sorted(found):
        if speaker not in speakers:
            raise VoxarkError(f"{folder / speaker}: SPEAKERS.TXT knows no speaker {speaker}")
        if speakers[speaker][1] != part:
            raise VoxarkError(
                f"{folder / speaker}: speaker {speaker} belongs to {speakers[speaker][1]}, says SPEAKERS.TXT"
            )


def _missing(part, audio, speakers, chapters):
    """Speakers of the part that have no audio at all, and chapters of the others that have none, as texts."""
    found = {(speaker, chapter) for speaker, chapter, _ in audio.values()}
    present = {speaker for speaker, _ in found}
    lost = [speaker for speaker, (_, own) in speakers.items() if own == part and speaker not in present]
    cut = [key for key, own in chapters.items() if own == part and key[0] in present and key not in found]
    return [f"speaker {name}" for name in sorted(lost)] + [f"chapter {'/'.join(key)}" for key in sorted(cut)]


def _durations(folder, paths, partial):
    """{utterance: seconds} from the audio files' headers, without those that are damaged."""
    seconds, problems = {}, []
    for utterance, path in paths.items():
        try:
            seconds[utterance] = corpora.inspect_audio(path, RATE).seconds
        except VoxarkError as error:
            problems.append(str(error))
    if problems:
        text = f"{folder}: {len(problems)} damaged audio files: {'; '.join(problems[:3])}"
        if not partial:
            raise VoxarkError(f"{text}. Fetch the part again, or leave them out with --partial=true")
        logger.warning("%s", text)
    return seconds
