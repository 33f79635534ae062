"""Random numbers that depend on a seed and on words (a key, a step) alone, never on the order of files."""

import hashlib

import numpy as np


def _text(words):
    return "\0".join(map(str, words)).encode("utf-8", "surrogateescape")


def seeded_rng(srand, *place):
    """Return a generator that depends on ``srand`` and on the words ``place`` (a key, a step) alone."""
    digest = hashlib.blake2b(_text((srand, *place)), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw(srand, *words):
    """A number from 0 to 1 that depends on ``srand`` and the words alone."""
    digest = hashlib.blake2b(_text((srand, *words)), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def draws(srand, *words, keys):
    """The number of :func:`draw` for each of many last words: draw(srand, *words, key), (len(keys),) float64."""
    base = hashlib.blake2b(_text((srand, *words, "")), digest_size=8)
    digests = bytearray()
    for key in keys:
        one = base.copy()
        one.update(_text((key,)))
        digests += one.digest()
    return np.frombuffer(digests, "<u8") / 2.0**64
