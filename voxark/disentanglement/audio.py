"""What the transformations need of an FHVAE and of audio: an Encoder from a model's folder, utterances."""

import heapq

from voxark import tables
from voxark.disentanglement.movement import Encoder, movements
from voxark.disentanglement.transformations import transformations
from voxark.errors import VoxarkError
from voxark.feat.extract import ExtractOptions, prepare_samples
from voxark.feat.fbank import FbankComputer
from voxark.nnet.needs import require_torch
from voxark.random_numbers import draw, seeded_rng


def open_encoder(model_dir, fbank):
    """The Encoder of a model's folder; ``fbank``: FbankOptions of the features that it was trained on.

    VoxarkError where they have another dimension.
    """
    require_torch()
    from voxark.fhvae.inference import encode
    from voxark.fhvae.model import load_model

    model, computer = load_model(model_dir), FbankComputer(fbank)
    if model.input_dim != computer.dimension:
        raise VoxarkError(f"{model_dir}: the model has {model.input_dim} features, --fbank-config makes "
                          f"{computer.dimension}: give the options of the features that it was trained on")

    def of_segments(cut):
        found = encode(model, cut.reshape(-1, cut.shape[2]), shift=cut.shape[1])
        return found.z1_mean, found.z2_mean

    return Encoder(of_segments, model.segment_length, model.pz2_var / model.pmu2_var,
                   lambda samples, key: computer(samples, key=key), fbank.frame_shift, fbank.frame_length)


def draw_waves(wav_rspecifier, number, fbank, srand, counts, progress=lambda waves: waves):
    """``number`` of the utterances of a table, drawn by ``srand`` and their keys alone.

    Returns a list of (key, samples), by key, at the rate of FbankOptions ``fbank``; ``counts`` is told.
    """
    kept, options = [], ExtractOptions()
    with tables.open_reader("wav", wav_rspecifier) as waves:
        for place, (key, (rate, samples)) in enumerate(progress(waves)):
            entry = (-draw(srand, key), place, key, rate, samples)
            if len(kept) < number:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    counts.leave_out(len(waves.skipped), waves.skipped)
    kept.sort(key=lambda entry: entry[2])
    found = [(key, prepare_samples(key, rate, samples, options, fbank)) for _, _, key, rate, samples in kept]
    counts.done(len(found))
    return found


def measure_movements(model_dir, wav_rspecifier, fbank, options, shift, srand, counts,
                      progress=lambda waves: waves):
    """A list of Moved of a model on a table of audio, and the number of utterances.

    ``fbank``: FbankOptions that made the model's features; ``options``: TransformationOptions; ``shift``: frames
    between segments.
    """
    if options.max_wavs < 2:
        raise VoxarkError(f"--max-wavs={options.max_wavs}: two at least are needed")
    changes = transformations(options, int(fbank.sample_frequency), srand)
    encoder = open_encoder(model_dir, fbank)
    waves = draw_waves(wav_rspecifier, options.max_wavs, fbank, srand, counts)
    rng = seeded_rng(srand, "movements")
    return movements(waves, changes, encoder, rng, shift, progress), len(waves)
