"""Random numbers that depend on a seed and on words (a key, a step) alone, never on the order of files."""

import hashlib

import numpy as np


def seeded_rng(srand, *place):
    """Return a generator that depends on ``srand`` and on the words ``place`` (a key, a step) alone."""
    words = "\0".join(str(word) for word in (srand, *place))
    digest = hashlib.blake2b(words.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw(srand, *words):
    """A number from 0 to 1 that depends on ``srand`` and the words alone."""
    text = "\0".join(map(str, (srand, *words)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64
