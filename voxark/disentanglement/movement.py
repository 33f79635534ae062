"""How far latents move when their input is changed in a known way, relative to their own spread."""

from typing import NamedTuple

import numpy as np

from voxark.disentanglement.latents import map_means
from voxark.errors import VoxarkError

NUM_PAIRS = 20000  # random pairs of segments that the spread is taken over


class Encoder(NamedTuple):
    """A model as far as it is needed here.

    ``encode(x (n,L,F))`` gives the means of z1 (n,D1) and z2 (n,D2) of segments of ``length`` = L frames;
    ``ratio``: var(z2 | mu2) / var(mu2). ``features(samples, key)`` gives the (T,F) frames of samples, and
    ``frame_shift``, ``frame_length`` are theirs in ms.
    """

    encode: object
    length: int
    ratio: float
    features: object
    frame_shift: float = 10.0
    frame_length: float = 25.0


class Latents(NamedTuple):
    """Of n segments of any utterances: input (n, L*F), z1 (n,D1), z2 (n,D2), and whose they are (n,)."""

    input: np.ndarray
    z1: np.ndarray
    z2: np.ndarray
    utterance: np.ndarray


class Moved(NamedTuple):
    """Root mean squared distances, relative to that of random pairs of segments of different utterances.

    ``input``: of the features; ``mu2``: of utterances; NaN where there is no spread.
    """

    name: str
    kind: str
    num_segments: int
    input: float
    z1: float
    z2: float
    mu2: float


def movements(waves, changes, encoder, rng, shift=20, progress=lambda waves: waves):
    """A list of Moved, one for each of the Transformations ``changes``.

    ``waves``: list of (key, samples (n,)); ``shift``: frames between segments. Segments are compared that
    have the same middle in time, before and after. Raises VoxarkError where fewer than two utterances have a
    segment.
    """
    before, pairs = [], {change.name: [] for change in changes}
    for number, (key, samples) in enumerate(progress(waves)):
        x = encoder.features(samples, key)
        starts = np.arange(0, len(x) - encoder.length + 1, shift)
        if len(starts) == 0:
            continue
        own = _latents(encoder, x, starts, number)
        before.append(own)
        for change in changes:
            pair = _pair(change, encoder, own, x, starts, number, (key, samples), rng)
            if pair is not None:
                pairs[change.name].append(pair)
    if len(before) < 2:
        raise VoxarkError(f"{len(before)} utterances have {encoder.length} frames, two are needed")
    reference = _joined(before)
    spreads = [spread(values, reference.utterance, rng) for values in reference[:3]]
    of_mu2 = _mu2(reference, encoder)
    spreads.append(spread(of_mu2, np.arange(len(of_mu2)), rng))
    return [_moved(change, pairs[change.name], encoder, spreads) for change in changes]


def _latents(encoder, x, starts, number):
    """Latents of the segments of x (T,F) that begin at ``starts``."""
    cut = np.stack([x[start : start + encoder.length] for start in starts.tolist()])
    z1, z2 = encoder.encode(cut)
    return Latents(cut.reshape(len(cut), -1), z1, z2, np.full(len(cut), number))


def _pair(change, encoder, own, x, starts, number, wave, rng):
    """(before, after): Latents of an utterance's segments that can be compared; None if there are none."""
    if change.kind == "segment" and change.shift is None:
        if len(starts) < 2:
            return None
        return own, _rows(own, (np.arange(len(starts)) + rng.integers(1, len(starts))) % len(starts))
    if change.kind == "segment":
        keep = starts + change.shift + encoder.length <= len(x)
        after, places = x, starts[keep] + change.shift
    else:
        after = encoder.features(change.wave(wave[1], wave[0]), wave[0])
        places = places_at_speed(starts, encoder, change.speed)
        keep = (places >= 0) & (places + encoder.length <= len(after))
        places = places[keep]
    if not keep.any():
        return None
    return _rows(own, keep), _latents(encoder, after, places, number)


def places_at_speed(starts, encoder, speed):
    """First frames (n,) of the segments that have, at another speed, the middles of those at ``starts``."""
    half = ((encoder.length - 1) * encoder.frame_shift + encoder.frame_length) / 2.0
    middle = (starts * encoder.frame_shift + half) / speed
    return np.round((middle - half) / encoder.frame_shift).astype(np.int64)


def _rows(latents, rows):
    return Latents(*(values[rows] for values in latents))


def _joined(parts):
    return Latents(*(np.concatenate(values) for values in zip(*parts)))


def _mu2(latents, encoder):
    """MAP estimates (U,D2) of the utterances."""
    numbers = np.unique(latents.utterance, return_inverse=True)[1]
    return map_means(latents.z2, numbers, int(numbers.max()) + 1, encoder.ratio)


def _moved(change, pairs, encoder, spreads):
    if not pairs:
        return Moved(change.name, change.kind, 0, *[float("nan")] * 4)
    if change.kind == "segment" and change.shift is None:  # mu2 of either half of the segments
        halves = [(_rows(own, slice(0, None, 2)), _rows(own, slice(1, None, 2))) for own, _ in pairs]
    else:
        halves = pairs
    before, after = (_joined(side) for side in zip(*pairs))
    of_mu2 = [_mu2(_joined(side), encoder) for side in zip(*halves)]
    distances = [distance(a, b) for a, b in zip([*before[:3], of_mu2[0]], [*after[:3], of_mu2[1]])]
    relative = [d / s if s > 0 else float("nan") for d, s in zip(distances, spreads)]
    return Moved(change.name, change.kind, len(before.z1), *relative)


def distance(a, b):
    """Root mean squared distance of the rows of a and b (n,D)."""
    difference = np.asarray(a, np.float64) - b
    return float(np.sqrt(np.mean(np.sum(difference * difference, axis=1))))


def spread(x, utterance, rng, num_pairs=NUM_PAIRS):
    """Root mean squared distance of random pairs of rows of x (n,D) that are of different utterances."""
    first, second = rng.integers(len(x), size=(2, num_pairs))
    different = utterance[first] != utterance[second]
    total, number = 0.0, int(different.sum())
    for begin in range(0, num_pairs, 2048):
        part = slice(begin, begin + 2048)
        rows = different[part]
        difference = x[first[part][rows]].astype(np.float64) - x[second[part][rows]]
        total += float(np.sum(difference * difference))
    return float(np.sqrt(total / number)) if number else 0.0
