"""Cosine and dot-product scores of vectors."""

import numpy as np

from voxark.backend.pair_terms import bilinear_terms
from voxark.backend.vectors import length_normalize


def cosine_terms(enroll, test):
    """PairTerms of the cosine between enroll (M,D) and test (T,D); a zero vector scores 0."""
    return bilinear_terms(length_normalize(enroll, scaleup=False), length_normalize(test, scaleup=False))


def dot_terms(enroll, test):
    """PairTerms of the dot product between enroll (M,D) and test (T,D)."""
    return bilinear_terms(np.asarray(enroll, np.float64), np.asarray(test, np.float64))
