"""What convert-fhvae reads and writes: targets by name, and waveforms in a folder."""

import os
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from voxark import tables
from voxark.audio import write_wav
from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.feat.extract import ExtractOptions
from voxark.feat.fbank import FbankOptions
from voxark.feat.griffin_lim import WaveformComputer
from voxark.fhvae.convert import Target, convert, convert_encoded, encode_whole
from voxark.io.outputs import Output, open_text_output

_HELD = 1000  # utterances whose latent variables are kept


class Utterances:
    """Features of a table by key, and their latent variables; those of the last ones asked for are kept."""

    def __init__(self, model, feats, options):
        self.model, self.feats, self.options, self._held = model, feats, options, OrderedDict()

    def __call__(self, key):
        """(Encoded, number of frames) of an utterance. VoxarkError where there are no such features."""
        if key not in self._held:
            if key not in self.feats:
                raise VoxarkError(f"no features of {key} in {self.feats.name}")
            feats = self.feats[key]
            try:
                self._held[key] = encode_whole(self.model, feats, self.options), len(feats)
            except VoxarkError as error:
                raise VoxarkError(f"{key}: {error}") from None
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def target(self, name):
        """The Target that an utterance makes."""
        return Target.of_utterance(self(name)[0])


class VectorTargets:
    """Targets that are s-vectors of a table: of speakers, for example."""

    def __init__(self, rspecifier):
        self._vectors = dict(tables.open_reader("vec", rspecifier))
        self.name = rspecifier

    def target(self, name):
        """The Target of a vector. VoxarkError where there is none of this name, or a bad one."""
        if name not in self._vectors:
            raise VoxarkError(f"no vector of {name} in {self.name}")
        check_finite(self._vectors[name], f"the vector of {name}")
        return Target(self._vectors[name])


def conversions(utterances, targets, lines, options, key_of_source=False):
    """Yield (key, function) for each pair of the lines (source, [target, ...]); it gives the features (T,F).

    ``utterances`` gives the sources, ``targets`` has target(name), ``options`` are ConvertOptions. The
    functions raise VoxarkError, for their pair alone. Raises VoxarkError for a source without a target.
    """
    def compute(source, name):
        encoded, num_frames = utterances(source)
        return convert_encoded(utterances.model, encoded, num_frames, targets.target(name), options)

    for source, names in lines:
        if not names:
            raise VoxarkError(f"{source}: the line of utt2utt names no target")
        for name in names:
            key = source if key_of_source else f"{source}-to-{name}"
            yield key, partial(compute, source, name)


def reconstructions(model, feats, options):
    """Yield (key, function) for each utterance of a reader of features; it gives them reconstructed."""
    for key, value in feats:
        yield key, partial(convert, model, value, None, options)


@dataclass
class FeatureConfig:
    """All that a configuration file of compute-fbank may say."""

    fbank: FbankOptions
    extraction: ExtractOptions


def fbank_options(config, path, dimension):
    """FbankOptions of the FeatureConfig in ``path``; where that is "", the defaults with ``dimension`` bins.

    Raises VoxarkError for options that give another dimension, and for features less their mean.
    """
    if not path:
        return FbankOptions(num_mel_bins=dimension)
    if config.extraction.subtract_mean:
        raise VoxarkError(f"{path}: --subtract-mean=true takes away level and timbre: no waveform")
    given = config.fbank.num_mel_bins + bool(config.fbank.use_energy)
    if given != dimension:
        raise VoxarkError(f"{path}: features of {given} dimensions, but the model's have {dimension}")
    return config.fbank


class WavFolder:
    """Writes waveforms ``<key>.wav`` of features in a folder, and their wav.scp."""

    def __init__(self, folder, fbank, options):
        self.folder, self.computer, self._script = folder, WaveformComputer(fbank, options), None

    @contextmanager
    def opened(self):
        """Make the folder; wav.scp is there when all has gone well."""
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise VoxarkError(f"{self.folder}: cannot be made a folder: {error.strerror}") from None
        with open_text_output(os.path.join(self.folder, "wav.scp")) as self._script:
            yield self

    def write(self, key, feats):
        """Write the waveform of features (T,F)."""
        if "/" in key or key in (".", ".."):
            raise VoxarkError(f"{key}: this key cannot be the name of a file in {self.folder}")
        samples = self.computer(feats, key)
        path = os.path.join(self.folder, key + ".wav")
        with Output(path) as out:
            out.write(write_wav(int(self.computer.fbank.sample_frequency), samples))
        self._script.write(f"{key} {path}\n")
