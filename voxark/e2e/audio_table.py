"""Recordings by number and sample: stretches of audio files, read without what lies before and behind them.

Wav and flac files are read by place; all other entries (pipes, offsets in archives, SPHERE) are read whole
each time.
"""

import os
import wave

import numpy as np

from voxark import datadir, tables
from voxark.audio import select_channel
from voxark.errors import VoxarkError
from voxark.io.specifiers import read_script
from voxark.io.streams import where_from


class AudioTable:
    """Random access to recordings of a wav.scp, or to ``segments`` (a file) of them.

    ``keys``: list of str; ``lengths`` (N,) int64 in samples; ``rate`` Hz, the same for all. ``folders`` are
    looked through for files with relative paths that are not there as they stand. Threads may read at once.
    Raises VoxarkError naming key and file.
    """

    def __init__(self, wav_scp, segments="", rate=0, channel=-1, folders=()):
        self.name, self.rate, self.channel = wav_scp, rate, channel
        self._recordings = {key: _find(name, folders) for key, name in read_script(wav_scp)}
        if not self._recordings:
            raise VoxarkError(f"{wav_scp}: the table is empty")
        sizes = {} if segments else {key: self._measure(key, name) for key, name in self._recordings.items()}
        if not segments:
            self.keys, self._parts = list(sizes), [(key, 0) for key in sizes]
            self.lengths = np.array(list(sizes.values()), np.int64)
            return
        table = datadir.read_table(segments, datadir.parse_segment)
        self.keys, self._parts, lengths = list(table), [], []
        for key, segment in table.items():
            if segment.recording not in self._recordings:
                raise VoxarkError(f"{table.where(key)}: recording {segment.recording} is not in {wav_scp}")
            if segment.recording not in sizes:
                key = segment.recording
                sizes[key] = self._measure(key, self._recordings[key])
            first, length = _place(segment, sizes[segment.recording], self.rate)
            self._parts.append((segment.recording, first))
            lengths.append(length)
        self.lengths = np.array(lengths, np.int64)

    def __len__(self):
        return len(self.keys)

    def recording(self, number):
        """The key of the recording that entry ``number`` is cut from."""
        return self._parts[number][0]

    def read(self, number, first=0, last=None):
        """Samples first ... last - 1 (default: all) of an entry: int16, or float32 at 16-bit scale."""
        length = int(self.lengths[number])
        last = length if last is None else last
        if not 0 <= first <= last <= length:
            raise VoxarkError(f"{self.keys[number]}: {self.name}: samples {first} to {last - 1} of {length}")
        recording, start = self._parts[number]
        name = self._recordings[recording]
        try:
            samples = select_channel(_read_part(name, start + first, start + last), self.channel)
        except VoxarkError as error:
            raise VoxarkError(f"{self.keys[number]}: {error}") from None
        if len(samples) != last - first:
            raise VoxarkError(
                f"{self.keys[number]}: {name}: {last - first} samples expected from {start + first} on, "
                f"{len(samples)} found: the file has changed"
            )
        return samples

    def _measure(self, key, name):
        """Number of samples of a recording; its rate must be that of the others."""
        try:
            rate, number = _rate_and_length(name)
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}{where_from(name)}") from None
        self.rate = self.rate or rate
        if rate != self.rate:
            raise VoxarkError(f"{key}: {name}: {rate} Hz, but {self.rate} Hz are expected: convert it first")
        return number


def _place(segment, total, rate):
    """First sample and number of samples of a Segment of a recording of ``total`` samples [K]."""
    first = min(int(segment.start * rate), total)
    last = total if segment.end == -1 else min(int(segment.end * rate), total)
    return first, max(0, last - first)


def _find(name, folders):
    """The entry ``name``, a relative path looked for in ``folders`` where it is not there as it stands."""
    if name.endswith("|") or os.path.isabs(name) or os.path.exists(name):
        return name
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.exists(path)), name)


def _open_wave(name):
    """A wave.Wave_read of 16-bit PCM whose header tells its true size, or None."""
    try:
        with open(name, "rb") as file:
            if file.read(4) != b"RIFF":
                return None
        audio = wave.open(name, "rb")
    except OSError as error:
        raise VoxarkError(f"{name}: {error.strerror}") from None
    except (wave.Error, EOFError):
        return None
    size = audio.getnframes() * audio.getnchannels() * 2
    if audio.getsampwidth() != 2 or not 0 < size < os.path.getsize(name):
        audio.close()
        return None
    return audio


def _open_soundfile(name):
    """A soundfile.SoundFile that can seek, or None."""
    with open(name, "rb") as file:
        head = file.read(8)
    if head[:4] not in (b"fLaC", b"RIFF"):
        return None
    if head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 > os.path.getsize(name):
        return None  # cut, or of unknown length: libsndfile would not tell
    try:
        import soundfile

        audio = soundfile.SoundFile(name)
    except (ImportError, OSError, RuntimeError):
        return None
    return audio if audio.seekable() and audio.frames > 0 else None


def _rate_and_length(name):
    if os.path.isfile(name):
        if (audio := _open_wave(name)) is not None:
            with audio:
                return audio.getframerate(), audio.getnframes()
        if (audio := _open_soundfile(name)) is not None:
            with audio:
                return audio.samplerate, audio.frames
    rate, samples = tables.read_object("wav", name)
    return rate, len(samples)


def _read_part(name, first, last):
    """Samples first ... last - 1 of a file: (n,) or (n, channels)."""
    if os.path.isfile(name):
        if (audio := _open_wave(name)) is not None:
            with audio:
                audio.setpos(first)
                samples = np.frombuffer(audio.readframes(last - first), "<i2")
                return samples if audio.getnchannels() == 1 else samples.reshape(-1, audio.getnchannels())
        if (audio := _open_soundfile(name)) is not None:
            with audio:
                return _read_sound(audio, name, first, last)
    return tables.read_object("wav", name)[1][first:last]


def _read_sound(audio, name, first, last):
    try:
        audio.seek(first)
        if audio.subtype == "PCM_16":
            return audio.read(last - first, dtype="int16")
        return audio.read(last - first, dtype="float32") * np.float32(32768.0)
    except RuntimeError as error:
        raise VoxarkError(f"{name}: cannot be read from sample {first} on ({error})") from None
