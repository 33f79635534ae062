"""Trials scored from end to end: text lists of any length, every pair as a matrix, lists of GMM trials."""

import logging

import numpy as np

from voxark import tables
from voxark.io.outputs import Output, check_outputs
from voxark.io.specifiers import output_files
from voxark.scoring.backends import check_mode, open_backend
from voxark.scoring.dense import read_keys, score_dense, write_dense, write_keys
from voxark.scoring.enrolment import read_sides
from voxark.trials.lists import ListWriter, TrialReader, check_distinct, read_trials
from voxark.scoring.pairs import PairScorer, score_streamed

logger = logging.getLogger(__name__)

_WHOLE_TRIALS = 4_000_000  # a longer list streams
_STREAM_TRIALS = 1 << 20  # of one block of it


class Summary:
    """Number, mean and standard deviation of scores that come in blocks."""

    def __init__(self):
        self.number, self.mean, self._scatter = 0, 0.0, 0.0

    def add(self, scores):
        """Add the scores of a contiguous float64 array, not empty; returns the sum of their squares."""
        number, mean, squares = scores.size, float(scores.mean()), float(np.vdot(scores, scores))
        step, share = mean - self.mean, number / (self.number + number)
        self._scatter += max(0.0, squares - number * mean * mean) + step * step * self.number * share
        self.mean += step * share
        self.number += number
        return squares

    @property
    def deviation(self):
        """The standard deviation of all scores so far, for a log: exact to half the digits of float64."""
        return np.sqrt(self._scatter / self.number)


# --------------------------------------------------------------------------------------------- lists, vectors


class VectorInputs:
    """Where vectors come from and how they are scored: what lists and matrices have in common.

    ``backend``: BackendOptions; ``options``: EnrolmentOptions; ``device``: a Device; ``missing``: a Missing.
    """

    def __init__(self, enroll_rspecifier, test_rspecifier, backend, options, device, missing):
        self._tables = enroll_rspecifier, test_rspecifier
        self._options, self._mode = options, options.mode()
        check_mode(backend.backend, self._mode)
        self._make_terms = open_backend(backend)
        self._device, self.missing = device, missing

    def read(self, model_ids=None, test_ids=None):
        """The Sides of these ids, or of all of both tables."""
        return read_sides(*self._tables, self._options, model_ids, test_ids)

    def scorer(self, sides, models=None, tests=None):
        """A PairScorer of Sides, or of the models and tests with these numbers, in their order."""
        terms = self._make_terms(sides.enrolment, sides.tests, self._mode, self._options.average_after_norm)
        if models is not None:
            sizes = len(terms.left), len(terms.right)
            if not (_is_count(models, sizes[0]) and _is_count(tests, sizes[1])):
                terms = terms.restricted(models, tests)
        return PairScorer(terms, self._device)


def _is_count(numbers, length):
    return len(numbers) == length and (np.diff(numbers, prepend=-1) == 1).all()


def score_list(trials_rxfilename, scores_wxfilename, inputs, progress=iter):
    """Score a text list of trials with VectorInputs; returns a Summary of the scores.

    A list of up to four million trials is read whole: a pair that stands twice is refused, only the vectors
    that it names are kept, and nothing is written if some are missing and must not be. A longer one streams
    in memory that does not grow with it, and all vectors of the tables are kept.
    """
    with TrialReader(trials_rxfilename) as reader:
        blocks, is_whole = _whole_or_blocks(reader)
        sides = inputs.read(reader.enroll_ids, reader.test_ids) if is_whole else inputs.read()
        places = _Places(sides, inputs.missing)
        scorer, summary, number = None, Summary(), 0
        with Output(scores_wxfilename) as out:
            writer = ListWriter(out)
            for block in progress(blocks):
                number += len(block)
                block, enroll, test = places.scorable(block)
                if inputs.missing.is_refused or not len(block):
                    continue  # the rest of the list is read, so that all that is missing is named
                if scorer is None:
                    scorer, sides = inputs.scorer(sides), None  # the vectors themselves are let go
                scores = scorer.pairs(enroll, test)
                writer.write_scores(block, scores)
                summary.add(scores)
            left_out = number - places.num_scorable
            inputs.missing.judge(f"{left_out} of {number} trials lack a side", left_out, summary.number)
    inputs.missing.write_list(scores_wxfilename)
    return summary


def _whole_or_blocks(reader):
    """(blocks of the list, whether that is all of it in one)."""
    parts, number, stream = [], 0, reader.parts()
    for part in stream:
        parts.append(part)
        number += len(part[0])
        if number > _WHOLE_TRIALS:
            logger.info("the list has more than %d trials: it streams, and repeats in it are not looked for",
                        _WHOLE_TRIALS)
            return _blocks(reader, parts, stream), False
    whole = reader.as_list(parts)
    check_distinct(whole)
    return [whole], True


def _blocks(reader, parts, stream):
    """The TrialLists of the parts that were read ahead, and of what follows, some million trials each."""
    yield reader.as_list(parts)
    parts, number = [], 0
    for part in stream:
        parts.append(part)
        number += len(part[0])
        if number >= _STREAM_TRIALS:
            yield reader.as_list(parts)
            parts, number = [], 0
    if parts:
        yield reader.as_list(parts)


class _Places:
    """The places among Sides of ids that are numbered as they come."""

    def __init__(self, sides, missing):
        self._sides, self._missing = (sides.models, sides.test_side), missing
        self._places = [np.zeros(0, np.int64), np.zeros(0, np.int64)]
        self.num_scorable = 0

    def scorable(self, block):
        """The trials of a block of which nothing is missing, and the numbers of their models and tests."""
        for number, ids in enumerate((block.enroll_ids, block.test_ids)):
            places = self._places[number]
            if len(ids) > len(places):
                more = self._sides[number].numbers_of(ids[len(places) :], self._missing.add)
                self._places[number] = np.append(places, more)
        enroll, test = self._places[0][block.enroll], self._places[1][block.test]
        kept = (enroll >= 0) & (test >= 0)
        if not kept.all():
            block, enroll, test = block.select(kept), enroll[kept], test[kept]
        self.num_scorable += len(block)
        return block, enroll, test


# ------------------------------------------------------------------------------------------------- every pair


def score_every_pair(inputs, options, matrix_wspecifier, enroll_keys_wxfilename, test_keys_wxfilename):
    """Score every model against every test with VectorInputs, or those of DenseOptions' lists.

    Writes the matrix and the lists of keys; returns a Summary of the scores.
    """
    check_outputs(*output_files(matrix_wspecifier), enroll_keys_wxfilename, test_keys_wxfilename)
    model_ids = read_keys(options.enroll_list) if options.enroll_list else None
    test_ids = read_keys(options.test_list) if options.test_list else None
    sides, missing = inputs.read(model_ids, test_ids), inputs.missing
    model_ids, models = _all_scorable(sides.models, model_ids, missing)
    test_ids, tests = _all_scorable(sides.test_side, test_ids, missing)
    kept_models, kept_tests = models >= 0, tests >= 0
    left_out = np.sum(~kept_models), np.sum(~kept_tests)
    missing.judge(
        f"{left_out[0]} of {len(models)} models and {left_out[1]} of {len(tests)} tests are missing",
        any(left_out), kept_models.any() and kept_tests.any())
    scorer, summary = inputs.scorer(sides, models[kept_models], tests[kept_tests]), Summary()
    write_dense(matrix_wspecifier, score_dense(scorer, summary))
    for name, keys, kept in ((enroll_keys_wxfilename, model_ids, kept_models),
                             (test_keys_wxfilename, test_ids, kept_tests)):
        write_keys(name, [key for key, keep in zip(keys, kept.tolist()) if keep])
    missing.write_list(matrix_wspecifier)
    return summary


def _all_scorable(side, ids, missing):
    """The ids, by default all of a Side, and their numbers, -1 where they are missing."""
    ids = side.keys() if ids is None else ids
    return ids, side.numbers_of(ids, missing.add)


# ------------------------------------------------------------------------------------------------------- GMMs


def score_gmm_list(trials_rxfilename, gmms_rspecifier, features_rspecifier, scores_wxfilename, model,
                   top_gauss, missing, progress=iter):
    """Score a text list of trials, held in memory, of GMMs against features; returns a Summary of the scores.

    ``model``: the UBM's file; ``top_gauss``: how many of its likeliest Gaussians of a frame count (0: all).
    """
    from voxark.gmm.diag import DiagGmm
    from voxark.gmm.score import GmmScorer

    trials = read_trials(trials_rxfilename)
    ubm, wanted = tables.read_model("diag-gmm", model, DiagGmm.from_params), set(trials.enroll_ids)
    place = {}

    def asked_for(gmms):
        """The models of the trials, one at a time: the scorer keeps a third of what they take."""
        for number, (key, gmm) in enumerate((key, gmm) for key, gmm in gmms if key in wanted):
            place[key] = number
            yield DiagGmm.from_params(gmm)

    with tables.open_reader("diag-gmm", gmms_rspecifier) as gmms:
        scorer = GmmScorer(ubm, asked_for(gmms), top_gauss)
    for key in trials.enroll_ids:
        if key not in place:
            missing.add(key, "has no GMM")
    enroll_place = np.array([place.get(key, -1) for key in trials.enroll_ids])
    with tables.open_reader("mat", features_rspecifier) as features:
        scores = score_streamed(trials, progress(features), enroll_place, scorer.scores, missing.add)
    kept = ~np.isnan(scores)
    left_out, summary = np.sum(~kept), Summary()
    missing.judge(f"{left_out} of {len(trials)} trials lack a side", left_out, kept.any())
    with Output(scores_wxfilename) as out:
        ListWriter(out).write_scores(trials.select(kept), scores[kept])
    missing.write_list(scores_wxfilename)
    summary.add(scores[kept])
    return summary
