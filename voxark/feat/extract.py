"""From the audio of an utterance to its features: what compute-fbank and compute-mfcc share."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.audio import select_channel
from voxark.errors import VoxarkError
from voxark.feat.resample import to_rate
from voxark.options import option


@dataclass
class ExtractOptions:
    """Options of the programs beside those of the features (names and defaults are Kaldi's)."""

    subtract_mean: bool = option(False, "Subtract the mean of each utterance's features")
    channel: int = option(-1, "Channel to use (-1: expect a single one, 0: left, 1: right)")
    vtln_warp: float = option(1.0, "VTLN warp factor (where --vtln-map is not given)")
    vtln_map: str = option("", "Table of VTLN warp factors by utterance or speaker (rspecifier)")
    utt2spk: str = option("", "Table of speakers by utterance (rspecifier), for a --vtln-map by speaker")
    output_format: Literal["kaldi", "htk"] = option("kaldi", "Format of the features")
    min_duration: float = option(0.0, "Minimum duration of an utterance in seconds; shorter ones fail")
    write_utt2dur: str = option("", "Table to write each utterance's duration to, in seconds (wspecifier)")
    write_num_frames: str = option("", "Table to write each utterance's number of frames to (wspecifier)")
    compress: bool = option(False, "Write compressed matrices")
    compression_method: int = option(1, "Kaldi's method of compression, 1 to 7, with --compress=true")


class WarpFactors:
    """VTLN warp factors by utterance: of the map, through utt2spk where it is given, or one for all."""

    def __init__(self, opts):
        self._constant, self._map, self._utt2spk = opts.vtln_warp, None, None
        if opts.utt2spk and not opts.vtln_map:
            raise VoxarkError("--utt2spk is used with --vtln-map only")
        if opts.vtln_map:
            from voxark import tables

            self._map = tables.open_random("float", opts.vtln_map)
            self._utt2spk = tables.open_random("token", opts.utt2spk) if opts.utt2spk else None

    def __getitem__(self, key):
        if self._map is None:
            return self._constant
        if self._utt2spk is not None:
            if key not in self._utt2spk:
                raise VoxarkError("no speaker in the --utt2spk table")
            key = self._utt2spk[key]
        if key not in self._map:
            raise VoxarkError(f"no warp factor for {key} in the --vtln-map table")
        return float(self._map[key])


def prepare_samples(key, rate, samples, opts, frame_opts):
    """Samples (N,) of the chosen channel at --sample-frequency.

    Raises VoxarkError, naming the utterance, for what another option would cure: the rate and the channel.
    """
    try:
        return to_rate(select_channel(samples, opts.channel), rate, frame_opts)
    except VoxarkError as error:
        raise VoxarkError(f"{key}: {error}") from None


def utterance_features(computer, key, samples, duration, warps, opts):
    """Features (T, D) of one utterance. Raises VoxarkError, for this utterance only, when there are none."""
    if duration < opts.min_duration:
        raise VoxarkError(f"{duration:.3f} s are shorter than --min-duration={opts.min_duration:g}")
    features = computer(samples, warps[key], key)
    if len(features) == 0:
        raise VoxarkError(f"{len(samples)} samples are too few for one frame")
    if opts.subtract_mean:
        features -= features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    return features


def extract(computer, waves, write, counts, opts):
    """Compute features of all ``waves``, an iterable of (key, (rate, samples)), and hand them to ``write``.

    ``write(key, features, duration in s)`` is called for each utterance that went well; ``counts`` counts
    them, and the failed ones with the reason.
    """
    warps = WarpFactors(opts)
    for key, (rate, samples) in waves:
        duration = len(samples) / rate
        samples = prepare_samples(key, rate, samples, opts, computer.opts)
        try:
            features = utterance_features(computer, key, samples, duration, warps, opts)
        except VoxarkError as error:
            counts.fail(key, str(error))
            continue
        write(key, features, duration)
        counts.done()


def _feature_writer(wspecifier, opts, htk_kind):
    """Open the table of features: (its context manager, function from features to the value to write)."""
    from voxark import tables

    if opts.output_format == "htk":
        if opts.compress:
            raise VoxarkError("--compress=true applies to --output-format=kaldi only")
        return tables.open_writer("htk", wspecifier), lambda features: (features, htk_kind)
    if opts.compress and not 1 <= opts.compression_method <= 7:
        raise VoxarkError(f"--compression-method={opts.compression_method} is not one of 1 to 7")
    method = opts.compression_method if opts.compress else 0
    return tables.open_writer("mat", wspecifier, compression_method=method), lambda features: features


@contextmanager
def open_outputs(feats_wspecifier, opts, htk_kind):
    """Open the tables of features, durations and frame counts; yields ``write`` for :func:`extract`.

    ``htk_kind`` is the parameter kind for --output-format=htk (see htk.py).
    """
    from voxark import tables

    with ExitStack() as stack:
        table, value_of = _feature_writer(feats_wspecifier, opts, htk_kind)
        feats = stack.enter_context(table)
        durations, lengths = (
            stack.enter_context(tables.open_writer(kind, wspecifier)) if wspecifier else None
            for kind, wspecifier in (("float", opts.write_utt2dur), ("int", opts.write_num_frames)))

        def write(key, features, duration):
            feats[key] = value_of(features)
            if durations is not None:
                durations[key] = duration
            if lengths is not None:
                lengths[key] = len(features)

        yield write
