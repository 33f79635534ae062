"""Back-ends on vectors: how models and tests come into the terms that scores are matrix products of.

Every program that scores vectors takes these options and calls :func:`open_backend`.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark.backend.cosine import cosine_terms, dot_terms
from voxark.backend.plda import Plda, PldaScoringOptions
from voxark.backend.vectors import length_normalize
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)


@dataclass
class _Choice:
    backend: Literal["cosine", "plda", "dplda", "e2e", "dot"] = option("cosine", "What scores are")
    model: str = option("", "The model of --backend=plda or dplda, or the folder of e2e")


@dataclass
class BackendOptions(PldaScoringOptions, _Choice):
    """A back-end on vectors, its model, and how PLDA takes vectors."""

    def check(self):
        """Raise VoxarkError for a back-end without its model, or a model without a back-end that has one."""
        if (self.backend in _MODELS) == bool(self.model):
            return
        what = "has no use for --model" if self.model else "needs --model=FILE"
        known = ", ".join(f"{model} for --backend={name}" for name, model in _MODELS.items())
        raise VoxarkError(f"--backend={self.backend} {what}: {known}")


_MODELS = {"plda": "a <Plda>", "dplda": "a <Dplda>", "e2e": "a folder of train-e2e-verif", "gmm": "the UBM"}


def open_backend(options):
    """Read the model of BackendOptions; returns make_terms(enrolment, tests, mode, average_after_norm).

    make_terms takes an Enrolment and test vectors (T,D) and gives PairTerms of the M models against the T
    tests. ``mode`` is "mean" (default), "book" (PLDA alone) or "score-mean"; ``average_after_norm`` averages
    the sessions of a model after the normalisation of their length. VoxarkError for options that contradict,
    for a model that cannot be read, and, from make_terms, for vectors of another dimension than the model's.
    """
    from voxark import tables

    options.check()
    if options.backend == "plda":
        plda = tables.read_model("plda", options.model, Plda.from_params).smoothed(options.smoothing)
        return lambda models, tests, mode="mean", average_after_norm=False: plda_terms(
            plda, models, tests, mode, options, average_after_norm)
    if options.backend == "dplda":
        from voxark.backend.dplda import Dplda

        dplda = tables.read_model("dplda", options.model, Dplda.from_params)
        return lambda models, tests, mode="mean", average_after_norm=False: dplda_terms(
            dplda, models, tests, mode)
    if options.backend == "e2e":
        scorer = _trained_scorer(options.model)
        return lambda models, tests, mode="mean", average_after_norm=False: e2e_terms(
            scorer, models, tests, mode, average_after_norm)
    return lambda models, tests, mode="mean", average_after_norm=False: similarity_terms(
        options.backend, models, tests, mode, average_after_norm)


def plda_terms(plda, enrolment, test, mode="mean", options=None, average_after_norm=False):
    """PairTerms of PLDA log-likelihood ratios of an Enrolment against test vectors (T,D).

    ``mode``: "mean" scores the mean of the sessions as one session, "book" as the mean of n sessions, which
    assumes that they are independent given the speaker, "score-mean" averages the sessions' scores. The mean
    is taken before PLDA's length normalisation as Kaldi takes it, or after with ``average_after_norm``.
    """
    _check_dimensions(enrolment.x, test, plda.dim, "PLDA")
    test = plda.transform_vectors(test, 1, options)
    if mode == "score-mean":
        sessions = plda.pair_terms(plda.transform_vectors(enrolment.x, 1, options), 1, test)
        return sessions.averaged(enrolment.starts)
    n = enrolment.counts if mode == "book" else 1
    if average_after_norm:
        models = enrolment.averaged(plda.transform_vectors(enrolment.x, 1, options))
    else:
        models = plda.transform_vectors(enrolment.averaged(), n, options)
    return plda.pair_terms(models, n, test)


def dplda_terms(dplda, enrolment, test, mode="mean"):
    """PairTerms of a discriminatively trained PLDA (Dplda) of an Enrolment against test vectors (T,D).

    Sessions are averaged ("mean") or their scores are ("score-mean"). "book" needs a generative model.
    """
    check_mode("dplda", mode)
    _check_dimensions(enrolment.x, test, dplda.dim, "DPLDA")
    if mode == "score-mean":
        return dplda.pair_terms(enrolment.x, test).averaged(enrolment.starts)
    return dplda.pair_terms(enrolment.averaged(), test)


def e2e_terms(scorer, enrolment, test, mode="mean", average_after_norm=False):
    """PairTerms of the scorer of an end-to-end system, as its to_dplda gives it (voxark.e2e.scorers.Exported).

    Enrolment and test vectors (T,D) are embeddings; sessions are averaged ("mean") in front of the scorer, or
    behind its normalisation of length with ``average_after_norm``, or their scores are ("score-mean").
    """
    check_mode("e2e", mode)
    if mode == "score-mean":
        return scorer.pair_terms(enrolment.x, test).averaged(enrolment.starts)
    if average_after_norm:
        models = enrolment.averaged(scorer.vectors(enrolment.x))
        return scorer.dplda.pair_terms(models, scorer.vectors(test))
    return scorer.pair_terms(enrolment.averaged(), test)


def _trained_scorer(folder):
    """The scorer of a trained end-to-end system; torch is needed to read it."""
    from voxark.nnet.needs import require_torch

    require_torch()
    from voxark.e2e.model import load_model

    model = load_model(folder)
    if model.scorer is None:
        raise VoxarkError(f"{folder}: the model has no back-end: score with --backend=cosine")
    return model.scorer.to_dplda()


def similarity_terms(backend, enrolment, test, mode="mean", average_after_norm=False):
    """PairTerms of the back-ends "cosine" and "dot" of an Enrolment against test vectors (T,D).

    Sessions are averaged ("mean"), for the cosine after normalisation to unit length with
    ``average_after_norm``, or their scores are ("score-mean"). "book" is PLDA's.
    """
    check_mode(backend, mode)
    if len(enrolment.x) and enrolment.x.shape[1] != test.shape[1]:
        raise VoxarkError(
            f"enrolment vectors have dimension {enrolment.x.shape[1]}, test vectors {test.shape[1]}"
        )
    terms = dot_terms
    if backend == "cosine":
        terms = cosine_terms
        _warn_of_zeros("enrolment", enrolment.x)
        _warn_of_zeros("test", test)
    if mode == "score-mean":
        return terms(enrolment.x, test).averaged(enrolment.starts)
    normalise_first = average_after_norm and backend == "cosine"
    return terms(enrolment.averaged(length_normalize(enrolment.x) if normalise_first else None), test)


def _warn_of_zeros(side, x):
    number = int(np.sum(~x.any(axis=1)))
    if number:
        logger.warning("%d of %d %s vectors are zero: their cosine with anything is 0", number, len(x), side)


def check_mode(backend, mode):
    """Raise VoxarkError if a back-end has no such way of scoring several sessions."""
    if mode == "book" and backend != "plda":
        raise VoxarkError(
            f"--enroll=book needs --backend=plda: {backend} does not know of the number of sessions"
        )


def _check_dimensions(enroll, test, dim, name):
    for side, x in (("enrolment", enroll), ("test", test)):
        if x.shape[1] != dim:
            raise VoxarkError(f"the {side} vectors have dimension {x.shape[1]}, the {name} model {dim}")
