"""What a training reads: features by offset, or audio, of which features are computed as needed."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from voxark import tables
from voxark.e2e.augment import Augmenter, AugmentOptions
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions
from voxark.options import option

_SHIFT = 0.01  # seconds: what a frame is where the network takes samples


@dataclass
class InputOptions(AugmentOptions):
    """What the first argument is, and what is done to audio."""

    audio: bool = option(
        False, "The first argument (and --dev-feats) is a table of recordings, wav.scp: FBANK features are "
               "computed as they are needed. For --arch=waveform, noise, rooms, speeds")
    segments: str = option("", "--audio: segments of the recordings")
    dev_segments: str = option("", "--audio: segments of the recordings of --dev-feats")
    fbank_config: str = option("", "--audio: options of compute-fbank, a file")
    utt2num_frames: str = option("", "Numbers of frames of the features, which spares reading their headers")
    utt2rec: str = option("", "Recordings of the utterances: two of one recording are no trial")

    fbank: ClassVar[FbankOptions | None] = None  # what the program has read from fbank_config

    def check(self):
        """VoxarkError for options that need audio without it."""
        super().check()
        if not self.audio and any((self.noise_dir, self.rir_dir, self.speed_perturb, self.segments,
                                   self.dev_segments, self.fbank_config)):
            raise VoxarkError("--noise-dir, --rir-dir, --speed-perturb, --segments, --dev-segments and "
                              "--fbank-config act on audio: give wav.scp and --audio")
        if self.audio and (self.utt2num_frames or self.utt2rec):
            name = "--utt2num-frames" if self.utt2num_frames else "--utt2rec"
            raise VoxarkError(f"{name} is for features; --audio knows it from wav.scp and segments")


class Inputs:
    """Sources of a training: ``training`` and, with --dev-feats, ``dev`` (else None), for a FeatureReader.

    ``takes_samples``: the network's input is the waveform. ``augments``: the training source takes ``draw``.
    ``num_originals``: utterances of the training source that are no copies at another speed; entry n is a
    copy of n modulo that number.
    """

    def __init__(self, feats_rspecifier, options, takes_samples, sample_frequency, dev_feats, srand):
        if takes_samples and not options.audio:
            raise VoxarkError("--arch=waveform takes audio: give wav.scp and --audio")
        self.options, self.takes_samples, self.rate = options, takes_samples, int(sample_frequency)
        self.dev, self.augments = None, False
        if not options.audio:
            from voxark.nnet.feature_index import FeatureIndex

            self.training = FeatureIndex(feats_rspecifier, options.utt2num_frames)
            self.dev = FeatureIndex(dev_feats) if dev_feats else None
            self.num_originals, self.skipped = len(self.training), list(self.training.skipped)
        else:
            self._open_audio(feats_rspecifier, dev_feats, srand)
        if self.dev is not None and self.dev.dim != self.training.dim:
            raise VoxarkError(
                f"--dev-feats: features of dimension {self.dev.dim}, {feats_rspecifier} has "
                f"{self.training.dim}"
            )

    def _open_audio(self, wav_scp, dev_wav_scp, srand):
        from voxark.e2e.waveforms import WaveformFeatures, Waveforms

        fbank = self.options.fbank or FbankOptions()
        rate = self.rate if self.takes_samples else int(fbank.sample_frequency)
        augmenter = Augmenter(self.options, rate, srand)
        self.augments = augmenter.any()
        speeds = self.options.speeds()
        sources = [
            Waveforms(
                _script(wav_scp), self.options.segments, speeds, augmenter if self.augments else None, rate
            )
        ]
        self.num_originals = len(sources[0]) // (1 + len(speeds))
        if dev_wav_scp:
            sources.append(Waveforms(_script(dev_wav_scp), self.options.dev_segments, rate=rate))
        if not self.takes_samples:
            sources = [WaveformFeatures(source, fbank) for source in sources]
        self.training, self.dev, self.skipped = sources[0], sources[1] if dev_wav_scp else None, []

    def utt2spk(self, utt2spk):
        """Speakers of all entries of the training source, copies included, by those of the originals."""
        if not self.options.audio:
            return utt2spk
        return self.training.utt2spk(utt2spk, self.options.speed_speakers == "new")

    def recordings(self, utt2rec, source):
        """Numbers (N,) of the recordings of all entries of a source; None: each is its own.

        ``utt2rec``: dict or None, of features. Numbers of two sources have nothing to do with each other.
        """
        if self.options.audio:
            return source.recordings
        if utt2rec is None:
            return None
        from voxark.e2e.batches import number_recordings

        return number_recordings(source.keys, utt2rec)

    def in_samples(self, batches, dev):
        """BatchOptions and DevOptions whose frames of 10 ms are samples where the network takes these."""
        if not self.takes_samples:
            return batches, dev
        frame = round(_SHIFT * self.rate)
        return (
            replace(batches, min_chunk=frame * batches.min_chunk, max_chunk=frame * batches.max_chunk),
            replace(dev, dev_max_frames=frame * dev.dev_max_frames),
        )

    def originals(self, numbers):
        """The entries (N,) that ``numbers`` (N,) are copies of, or themselves."""
        return np.asarray(numbers) % self.num_originals


def _script(name):
    """The file of a wav.scp, given by name or as scp:name."""
    if not tables.is_specifier(name):
        return name
    spec = tables.parse_rspecifier(name)
    if spec.scp is None:
        raise VoxarkError(f"{name}: with --audio a script is expected, wav.scp or scp:wav.scp")
    if "p" in spec.flags:
        raise VoxarkError(f"{name}: with --audio every recording must be there: leave the flag p out")
    return spec.scp
