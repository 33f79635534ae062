"""Waveforms, and features computed from them as they are wanted, with the interface of a FeatureIndex.

So training on audio needs no features on disk, and every epoch hears other noises and rooms. Without
augmentation and dither the features are those of compute-fbank.
"""

import threading
from dataclasses import replace

import numpy as np

from voxark.e2e.audio_table import AudioTable
from voxark.e2e.augment import read_at_speed, speed_length
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankComputer
from voxark.feat.frames import FrameCutter, first_sample, frame_samples, num_frames

_ROWS = 100  # frames of a block, as in compute-fbank
_SPAN = FrameCutter.SPAN * _ROWS


class Waveforms:
    """Samples of utterances: ``lengths`` count samples, ``dim`` is 1.

    ``speeds``: further copies of all utterances at these speeds, with keys ``sp0.9-<utterance>``, as Kaldi
    names them. ``augmenter`` (voxark.e2e.augment.Augmenter) acts where ``read`` is given a ``draw``.
    ``recordings`` (N,) int64 are equal for copies and segments of one recording.
    """

    dim = 1

    def __init__(self, wav_scp, segments="", speeds=(), augmenter=None, rate=0, channel=-1):
        self.audio = audio = AudioTable(wav_scp, segments, rate, channel)
        self.rate, self.augmenter = audio.rate, augmenter
        if augmenter is not None and augmenter.rate != audio.rate:
            raise VoxarkError(f"{wav_scp}: {audio.rate} Hz, but noises and rooms have {augmenter.rate}")
        self._speeds = (1.0, *speeds)
        self.keys = [speed_name(key, speed) for speed in self._speeds for key in audio.keys]
        self.lengths = np.concatenate(
            [
                [
                    speed_length(length, self.rate, speed) if speed != 1.0 else length
                    for length in audio.lengths.tolist()
                ]
                for speed in self._speeds
            ]
        ).astype(np.int64)
        known = {}
        recordings = [known.setdefault(audio.recording(n), len(known)) for n in range(len(audio))]
        self.recordings = np.tile(np.array(recordings, np.int64), len(self._speeds))

    def __len__(self):
        return len(self.keys)

    def utt2spk(self, utt2spk, new_speakers=True):
        """Speakers of all utterances, the copies included, by those of the originals: a dict.

        ``new_speakers``: a copy's speaker is ``sp0.9-<speaker>``; else its original's.
        """
        number = len(self.audio)
        return {
            key: speed_name(utt2spk[original], self._speeds[n // number] if new_speakers else 1.0)
            for n, key in enumerate(self.keys)
            if (original := self.audio.keys[n % number]) in utt2spk
        }

    def samples(self, number, first=0, last=None, draw=None):
        """Samples first ... last - 1 of utterance ``number``: (last - first,) int16 or float32, 16-bit scale.

        ``draw`` (words) decides, with the key, how it is augmented; None: not at all.
        """
        length = int(self.lengths[number])
        last = length if last is None else last
        if not 0 <= first <= last <= length:
            raise VoxarkError(f"{self.keys[number]}: samples {first} to {last - 1} of {length}")
        turn, original = divmod(number, len(self.audio))
        speed = self._speeds[turn]

        def read(start, end):
            if speed == 1.0:
                return self.audio.read(original, start, end)
            return read_at_speed(
                lambda a, b: self.audio.read(original, a, b),
                int(self.audio.lengths[original]),
                start,
                end,
                self.rate,
                speed,
            )

        if draw is None or self.augmenter is None:
            return read(first, last)
        return self.augmenter(self.keys[number], draw, read, length, first, last)

    def read(self, number, first=0, last=None, draw=None):
        """As :meth:`samples`, as (last - first, 1) float32."""
        return self.samples(number, first, last, draw).astype(np.float32)[:, None]


class WaveformFeatures:
    """FBANK features of Waveforms, computed for the frames that are asked for: as a FeatureIndex.

    ``options``: FbankOptions. Without dither and draw the features are those of compute-fbank to the bit;
    dither differs between stretches. Threads may read at once.
    """

    def __init__(self, waveforms, options):
        if waveforms.rate != options.sample_frequency:
            raise VoxarkError(
                f"{waveforms.audio.name}: {waveforms.rate} Hz, but --sample-frequency="
                f"{options.sample_frequency:g}"
            )
        self.waveforms, self.options = waveforms, options
        # stretches are extended at the ends of the utterance here: the computer must not do it at theirs
        self._inner = replace(options, snip_edges=True)
        self._of_thread = threading.local()
        self.keys, self.dim = waveforms.keys, FbankComputer(self._inner).dimension
        self.lengths = np.array([num_frames(n, options) for n in waveforms.lengths.tolist()], np.int64)
        self.recordings, self.utt2spk = waveforms.recordings, waveforms.utt2spk

    def __len__(self):
        return len(self.keys)

    def read(self, number, first=0, last=None, draw=None):
        """Frames first ... last - 1 (default: all) of utterance ``number``: (last - first, dim) float32."""
        length = int(self.lengths[number])
        last = length if last is None else last
        if not 0 <= first <= last <= length:
            raise VoxarkError(f"{self.keys[number]}: frames {first} to {last - 1} of {length}")
        if first == last:
            return np.zeros((0, self.dim), np.float32)
        if draw is not None:
            return self._compute(number, first, last, draw)
        # the spans that compute-fbank cuts the utterance into: float32 rounds alike in equal spans only
        size = -(-length // -(-length // _SPAN))
        low = first // size * size
        parts = [
            self._compute(number, start, min(start + size, length), None) for start in range(low, last, size)
        ]
        return np.ascontiguousarray(np.concatenate(parts)[first - low : last - low])

    def _compute(self, number, first, last, draw):
        """Features of frames first ... last - 1."""
        total, key = int(self.waveforms.lengths[number]), self.keys[number]
        start, end = (
            first_sample(first, self.options),
            first_sample(last - 1, self.options) + frame_samples(self.options),
        )
        if 0 <= start and end <= total:
            samples = self.waveforms.samples(number, start, end, draw)
        else:  # mirrored at the ends; what is mirrored may be all of a short utterance
            low = max(0, min(start, 2 * total - end))
            high = min(total, max(end, -start))
            samples = _mirror(self.waveforms.samples(number, low, high, draw), low, total, start, end)
        try:
            return self._computer()(samples, key=f"{key} {first}" if draw is None else f"{key} {draw}")
        except VoxarkError as error:
            raise VoxarkError(f"{key}: {error}") from None

    def _computer(self):
        computer = getattr(self._of_thread, "computer", None)
        if computer is None:
            computer = self._of_thread.computer = FbankComputer(self._inner, max_rows=_ROWS)
        return computer


def _mirror(samples, low, total, start, end):
    """Samples start ... end - 1 of a signal of ``total``, mirrored at its ends; ``samples`` begin at low."""
    index = np.arange(start, end) % (2 * total)
    index = np.where(index < total, index, 2 * total - 1 - index) - low
    return samples[index]


def speed_name(name, speed):
    """Name of a copy of an utterance, or speaker, at another speed [K: perturb_data_dir_speed.sh]."""
    return name if speed == 1.0 else f"sp{speed:g}-{name}"
