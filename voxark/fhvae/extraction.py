"""What extract-fhvae writes of an utterance."""

import numpy as np

from voxark.errors import VoxarkError
from voxark.fhvae.inference import check_features, decode, encode, utterance_bound
from voxark.random_numbers import seeded_rng


def extract(model, feats, names, shift=20, seed=None):
    """A dict of what ``names`` ask for, of features (T,F): float32 arrays.

    mu1, mu2 (D,); z1, z2 (N,D), z1_var, z2_var (N,D) of segments ``shift`` frames apart; reconstruction (T,F);
    bound (5,): segment bound, log p(x), KL of z1, KL of z2, log p(mu2) / N, means over segments. ``seed``, words
    that random numbers depend on, has z1 and z2 sampled. Raises VoxarkError for features that do not fit,
    and where something would not be finite.
    """
    feats = check_features(model, feats)
    rng = seeded_rng(*seed, "z") if seed else None
    encoded = encode(model, feats, shift, sample_rng=rng)
    found = {"mu1": encoded.mu1, "mu2": encoded.mu2, "z1": encoded.z1_mean, "z2": encoded.z2_mean,
             "z1_var": np.exp(encoded.z1_logvar), "z2_var": np.exp(encoded.z2_logvar)}
    if rng is not None:
        found["z2"] = encoded.z2
        found["z1"] = _sample(encoded.z1_mean, encoded.z1_logvar, rng)
    if "reconstruction" in names:
        found["reconstruction"] = reconstruct(model, feats)
    if "bound" in names:
        terms = utterance_bound(model, feats, shift)
        found["bound"] = np.array([terms.total.mean(), *(term.mean() for term in terms)], np.float32)
    for name in names:
        if not np.isfinite(found[name]).all():
            raise VoxarkError(f"{name} is not finite with these features, whose largest absolute value is "
                              f"{np.abs(feats).max():g}: look at them, they are not like those of the training")
    return {name: found[name] for name in names}


def _sample(mean, logvar, rng):
    return mean + np.exp(0.5 * logvar) * rng.standard_normal(mean.shape, np.float32)


def reconstruct(model, feats):
    """The decoder's mean (T,F) of an utterance's segments, one behind the other, the last one overlapping."""
    encoded = encode(model, feats, model.segment_length, cover=True)
    return joined(decode(model, encoded.z1_mean, encoded.z2_mean)[0], encoded.starts, len(feats))


def joined(segments, starts, num_frames):
    """Features (T,F) of segments (N,L,F) that begin at starts (N,); where they overlap the later one counts."""
    x = np.zeros((num_frames, segments.shape[2]), np.float32)
    for start, segment in zip(starts.tolist(), segments, strict=True):
        x[start : start + len(segment)] = segment
    return x
