#!/usr/bin/env python3
"""Draw sequences of features, and tables of any length whose keys share them.

<dir> gets feats.ark and feats.scp: each of --num-utts utterances is noise that lasts some frames, one of a few
patterns every 20 frames, and what stands for speaker and channel: an offset of its own, from a space of --rank
dimensions. keys.scp has --num-keys keys, key i at the place in feats.ark of utterance i modulo --num-utts: a
million sequences take no more disk than that.

Usage: make_sequences.py [options] <dir>
e.g.: make_sequences.py --num-keys=1000000 exp/data
See also: egs/fhvae_scaling/run.sh, measure_training.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output
from voxark.random_numbers import seeded_rng

LENGTH = 20  # frames of a pattern
NUM_PATTERNS = 12


def utterance(rng, patterns, offsets, least, most):
    """Features (T,F) float32 of one utterance; ``patterns`` (P,LENGTH,F), ``offsets`` (R,F): a basis."""
    dim = patterns.shape[2]
    num_frames = int(rng.integers(least, most + 1))
    chosen = rng.integers(len(patterns), size=-(-num_frames // LENGTH))
    content = patterns[chosen].reshape(-1, dim)[:num_frames]
    offset = rng.standard_normal(len(offsets)) @ offsets
    return (content + offset + 0.3 * rng.standard_normal((num_frames, dim))).astype(np.float32)


@cli.program
def main(
    folder: str,
    *,
    num_utts: Annotated[int, "Utterances of features"] = 1000,
    num_keys: Annotated[int, "Keys in keys.scp"] = 1000,
    dim: Annotated[int, "Features of a frame"] = 80,
    min_frames: Annotated[int, "Fewest frames of an utterance"] = 60,
    max_frames: Annotated[int, "Most frames of an utterance"] = 120,
    rank: Annotated[int, "Dimensions of the space of offsets"] = 3,
    srand: Annotated[int, "Seed of all that is drawn"] = 0,
) -> int:
    if min(num_utts, num_keys, dim, rank) < 1 or not LENGTH <= min_frames <= max_frames:
        raise VoxarkError("--num-utts, --num-keys, --dim and --rank are at least 1, --min-frames at least 20 "
                          "and at most --max-frames")  # fmt: skip
    place, rng, counts = Path(folder), seeded_rng(srand, "sequences"), cli.Counts("utterances")
    place.mkdir(parents=True, exist_ok=True)
    patterns = rng.standard_normal((NUM_PATTERNS, LENGTH, dim))
    offsets = rng.standard_normal((rank, dim))
    with tables.open_writer("mat", f"ark,scp:{place}/feats.ark,{place}/feats.scp") as out:
        for number in range(num_utts):
            out[f"u{number:07d}"] = utterance(rng, patterns, offsets, min_frames, max_frames)
            counts.done()
    with open(place / "feats.scp", encoding="utf-8") as lines:
        places = [line.split(None, 1)[1] for line in lines]
    with open_text_output(f"{place}/keys.scp") as out:
        for number in range(num_keys):
            out.write(f"s{number:08d} {places[number % num_utts]}")
    return counts.finish()


if __name__ == "__main__":
    main()
