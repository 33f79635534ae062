"""Small trees in the layout of LibriSpeech."""

import os
from pathlib import Path

import numpy as np
from corpora import recorded, sounds

WORDS = "NOTHING COULD BE MORE PLAIN THAN THAT HE SHOULD GO BACK TO THE OLD HOUSE BEFORE NIGHT".split()
# ids of different lengths, one the beginning of another: the orders of speakers and of utterances must agree
IDS = (19, 103, 1034, 26, 27, 1040, 32, 7, 78, 83, 87, 89, 911, 118, 1181, 125, *range(2000, 2100))

_SPEAKERS_HEAD = """; Some pipe(|) separated metadata about all readers.
; The fields, from left to right: reader_id, gender, subset, duration in minutes, name
;
;ID  |SEX| SUBSET           |MINUTES| NAME
"""
_CHAPTERS_HEAD = """; The fields, from left to right: chapter_id, reader_id, duration in minutes, subset,
; project_id, book_id, chapter_title, project_title
;
;ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE
"""


def write_tree(folder, parts):
    """Write folder/LibriSpeech; returns its Path.

    ``parts``: {part: {speaker: (gender, {chapter: [(samples, words)]})}}; samples are int16 (N,), or the path
    of a flac file to link to.
    """
    root = Path(folder, "LibriSpeech")
    root.mkdir(parents=True)
    speakers, chapters = [], []
    for part, readers in parts.items():
        for speaker, (gender, own) in readers.items():
            speakers.append(f"{speaker:<4} | {gender.upper()} | {part:<16} | 25.03 | |Name of| {speaker}\n")
            for chapter, utterances in own.items():
                chapters.append(
                    f"{chapter:<6} | {speaker:<4} | 8.02 | {part:<16} | 53 | 28 | Chapter | Title\n"
                )
                _write_chapter(root / part / str(speaker) / str(chapter), f"{speaker}-{chapter}", utterances)
    (root / "SPEAKERS.TXT").write_text(_SPEAKERS_HEAD + "".join(speakers))
    (root / "CHAPTERS.TXT").write_text(_CHAPTERS_HEAD + "".join(chapters))
    for name in ("LICENSE.TXT", "README.TXT", "BOOKS.TXT"):
        (root / name).write_text(f"{name} of the corpus\n")
    return root


def _write_chapter(folder, name, utterances):
    import soundfile

    folder.mkdir(parents=True)
    lines = []
    for number, (samples, words) in enumerate(utterances):
        key = f"{name}-{number:04d}"
        if isinstance(samples, Path):
            os.link(samples, folder / f"{key}.flac")
        else:
            soundfile.write(folder / f"{key}.flac", samples, sounds.RATE)
        lines.append(f"{key} {words}\n")
    (folder / f"{name}.trans.txt").write_text("".join(lines))


def readers(number, num_utterances, shared=None, seed=0):
    """``number`` readers with two chapters each: {id: (gender, {chapter: [(samples, words)]})}.

    The utterances are 1.5 to 3 s long; pieces of real speech where ``shared``, the folder data beside the
    checkout, has librispeech_mini (and speechocean762, when those speakers are used up), else of synthetic
    voices. Their words are drawn at random.
    """
    rng = np.random.default_rng(seed)
    people = recorded.speakers(shared, "librispeech_mini/test_other", number)
    found = {}
    for place in range(number):
        seconds = rng.uniform(1.5, 3.0, num_utterances)
        if place < len(people):
            gender, samples = people[place]
            pieces = recorded.pieces_of(samples, seconds)
        else:
            gender = "mf"[place % 2]
            voice = sounds.Voice(f"{gender}{place}")
            pieces = [voice.say(seed, place, take, seconds=value)[0] for take, value in enumerate(seconds)]
        said = [(piece, " ".join(rng.choice(WORDS, 4 + len(piece) // 8000))) for piece in pieces]
        half = (num_utterances + 1) // 2
        found[IDS[place]] = gender, {1000 + 2 * place: said[:half], 127001 + 2 * place: said[half:]}
    return found


def build(folder, num_train=8, num_dev=2, num_test=4, num_utterances=6, shared=None, seed=0):
    """A tree with train-clean-100, dev-clean, test-clean and test-other; the Path of its LibriSpeech.

    ``num_test`` speakers are in test-clean and test-other together; ``shared`` as in :func:`readers`.
    """
    everyone = list(readers(num_train + num_dev + num_test, num_utterances, shared, seed).items())
    parts, begin = {}, 0
    # test speakers are taken first, so that they are of librispeech_mini, whose recordings are LibriSpeech's
    numbers = {"test-clean": (num_test + 1) // 2, "test-other": num_test // 2, "train-clean-100": num_train}
    for part, number in {**numbers, "dev-clean": num_dev}.items():
        parts[part] = dict(everyone[begin : begin + number])
        begin += number
    return write_tree(folder, parts)


def build_of_size(folder, sizes):
    """A tree in full numbers, of links to one tiny file; ``sizes``: {part: (utterances, speakers)}."""
    import soundfile

    tiny = Path(folder, "tiny.flac")
    tiny.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(tiny, np.arange(160, dtype=np.int16), sounds.RATE)
    parts, speaker = {}, 100
    for part, (num_utterances, num_speakers) in sizes.items():
        parts[part] = {}
        for number in range(num_speakers):
            share = num_utterances // num_speakers + (number < num_utterances % num_speakers)
            lines = [(tiny, "A WORD")] * share
            speaker += 1
            chapters = {7000 + speaker: lines[::2], 18000 + speaker: lines[1::2]}
            parts[part][speaker] = "mf"[number % 2], chapters
    return write_tree(folder, parts)
