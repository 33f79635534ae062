"""Speech of recorded speakers, out of the corpora beside the checkout."""

from pathlib import Path

import numpy as np
from corpora.sounds import RATE


def _rows(path):
    return [line.split() for line in path.read_text().splitlines()] if path.is_file() else []


def recorded(data, min_seconds=0.0, max_seconds=1e9):
    """The speakers of a data directory, whose wav.scp is relative to the folder above it.

    Returns {speaker: (gender, int16 samples (N,))}, all utterances joined, of those who have ``min_seconds``
    or more; utterances behind ``max_seconds`` are not read.
    """
    import soundfile

    data = Path(data)
    paths, genders = ({row[0]: row[1] for row in _rows(data / name)} for name in ("wav.scp", "spk2gender"))
    segments = {key: rest for key, *rest in _rows(data / "segments")} or {
        key: (key, "0", "-1") for key in paths
    }
    found = {}
    for key, speaker in _rows(data / "utt2spk"):
        pieces = found.setdefault(speaker, [])
        if sum(map(len, pieces)) >= max_seconds * RATE:
            continue
        recording, start, end = segments[key]
        last = None if float(end) < 0 else int(float(end) * RATE)
        samples, rate = soundfile.read(
            data.parent / paths[recording], start=int(float(start) * RATE), stop=last, dtype="int16"
        )
        assert rate == RATE, (paths[recording], rate)
        pieces.append(samples)
    joined = {speaker: np.concatenate(pieces) for speaker, pieces in sorted(found.items())}
    return {speaker: (genders[speaker], samples) for speaker, samples in joined.items()
            if len(samples) >= min_seconds * RATE}  # fmt: skip


def pieces_of(samples, seconds):
    """Stretches of ``seconds`` (each) out of samples (N,), one after the other, and again from the start."""
    begin, pieces = 0, []
    for number in (int(value * RATE) for value in seconds):
        if begin + number > len(samples):
            begin = 0
        pieces.append(samples[begin : begin + number])
        begin += number
    return pieces


def speakers(shared, first, number, min_seconds=5.0):
    """Gender and samples of ``number`` speakers: of the data directory ``first``, then of speechocean762.

    ``shared``: the folder data beside the checkout, or None; fewer are returned where corpora are absent.
    """
    people = []
    for name in (first, "speechocean762/train"):
        if shared and len(people) < number and Path(shared, name).is_dir():
            people += list(recorded(Path(shared, name), min_seconds, 25).values())[: number - len(people)]
    return people
