"""What a table gives for an utterance, checked and made into the input of a model."""

import numpy as np

from voxark.audio import select_channel
from voxark.errors import VoxarkError


def utterance_features(model, value, min_frames=1):
    """The input (T, F) float32 of an E2eModel from a matrix, or from (rate, samples) for one on waveforms.

    Raises VoxarkError for fewer than ``min_frames`` frames, another dimension or rate, values that are not
    finite.
    """
    extractor = model.extractor
    if extractor.takes_samples:
        rate, samples = value
        wanted = model.config["features"]["sample_frequency"]
        if rate != wanted:
            raise VoxarkError(f"the audio has {rate:g} samples per second, the model takes {wanted}")
        x = np.asarray(select_channel(samples), np.float32)[:, None]
    else:
        x = np.asarray(value, np.float32)
    if len(x) < min_frames:
        unit = "samples" if extractor.takes_samples else "frames"
        raise VoxarkError(f"{len(x)} {unit}, fewer than {min_frames}")
    if x.shape[1] != extractor.input_dim:
        raise VoxarkError(f"the features have dimension {x.shape[1]}, the model takes {extractor.input_dim}")
    if not np.isfinite(x).all():
        raise VoxarkError("the features have values that are not finite")
    return x
