"""What a model is judged on behind each epoch: trials between held-out speakers, and identification."""

import logging
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from voxark.e2e.backend_start import start_scorer
from voxark.e2e.extractors import embed
from voxark.e2e.losses import identification_loss
from voxark.metrics import Roc
from voxark.metrics.measures import prior_entropy
from voxark.nnet import distributed

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # trials scored at a time
_AT_ONCE = 64  # utterances held in memory


def verification_figures(scores, target, p_target):
    """Figures of LLRs (N,) of trials, target (N,) bool: a dict.

    dev_ver: the normalised verification loss at the prior ``p_target``, 1 for LLRs that are all 0 [5: L_ver];
    eer and min_dcf (prior 0.01), in 0 to 1; cllr and min_cllr in bits. NaN, all of them, for scores with NaN.
    """
    if np.isnan(scores).any():
        return dict.fromkeys(("dev_ver", "eer", "min_dcf", "cllr", "min_cllr"), math.nan)
    roc = Roc(scores[target], scores[~target])
    return {
        "dev_ver": float(roc.ece(p_target) / prior_entropy(p_target)),
        "eer": float(roc.eer()[0]),
        "min_dcf": float(roc.min_dcf(p_target=0.01)[0]),
        "cllr": float(roc.cllr()),
        "min_cllr": float(roc.min_cllr()),
    }


def score_trials(scorer, embeddings, trials):
    """Scores (P,) float64 of DevTrials between rows of embeddings (U,D), in blocks of bounded memory."""
    terms = scorer.to_terms(embeddings, embeddings)
    scores = np.empty(len(trials.enroll))
    for first in range(0, len(scores), _BLOCK):
        part = slice(first, first + _BLOCK)
        scores[part] = terms.pairs(trials.enroll[part], trials.test[part])
    return scores


class Utterances(NamedTuple):
    """Utterances of a FeatureReader to embed: numbers (N,); of longer ones the middle ``max_frames``."""

    reader: object
    numbers: np.ndarray
    max_frames: int

    def read(self, row):
        """Features (T,F) float32 of one."""
        number = int(self.numbers[row])
        length = int(self.reader.source.lengths[number])
        first = max(0, (length - self.max_frames) // 2)
        return self.reader.read(number, first, first + min(length, self.max_frames))

    def embed(self, model):
        """Embeddings (N,d) float32; workers share the utterances, and each returns all rows."""
        device = next(model.extractor.parameters()).device
        mine = np.arange(distributed.rank(), len(self.numbers), distributed.world_size())
        parts = [
            embed(model, [self.read(row) for row in mine[first : first + _AT_ONCE]])
            for first in range(0, len(mine), _AT_ONCE)
        ]
        rows = np.concatenate(parts) if parts else np.zeros((0, model.extractor.embedding_dim), np.float32)
        whole = distributed.gather_rows(
            torch.from_numpy(rows).to(device), torch.from_numpy(mine).to(device), len(self.numbers)
        )
        return whole.cpu().numpy()


class Refit(NamedTuple):
    """What a scorer is estimated on anew before it is judged: Utterances, speakers (N,), recordings (N,)."""

    utterances: Utterances
    speakers: np.ndarray
    recordings: np.ndarray
    options: object  # BackendStartOptions


class Validation:
    """Judges an E2eModel: ``figures`` gives normalised losses and error rates.

    ``trials``: DevTrials among ``utterances`` of the development set; ``heldout``: Utterances of training
    speakers, or None, with their numbers ``heldout_speakers``. ``refit``: a Refit, where no loss trains the
    scorer, or None.
    """

    def __init__(self, utterances, trials, heldout, heldout_speakers, p_target, refit=None):
        self.utterances, self.trials = utterances, trials
        self.heldout, self.heldout_speakers = heldout, heldout_speakers
        self.p_target, self.refit, self._scores = p_target, refit, None

    def figures(self, model, objective):
        """{dev_loss, dev_ver, dev_id, eer, min_dcf, cllr, min_cllr}; dev_loss has the final weights.

        Without held-out utterances, or a classifier, dev_id is absent and dev_loss is dev_ver.
        """
        if self.refit is not None:
            utterances, speakers, recordings, options = self.refit
            plain = replace(options, init_mean="", init_lda="", init_plda="")
            vectors = utterances.embed(model)
            start_scorer(model.scorer, vectors, speakers, recordings, plain, self.p_target)
        embeddings = self.utterances.embed(model)
        self._scores = score_trials(model.scorer, embeddings, self.trials)
        figures = verification_figures(self._scores, self.trials.target, self.p_target)
        weights = objective.final_weights() if objective.options.loss != "triplet" else (0.0, 1.0)
        if self.heldout is not None and model.head is not None and weights[0]:
            figures["dev_id"] = self._identification(model, objective.options)
            total = weights[0] * figures["dev_id"] + weights[1] * figures["dev_ver"]
            return {"dev_loss": total, **figures}
        return {"dev_loss": figures["dev_ver"], **figures}

    def calibrate(self, scorer):
        """Calibrate the scorer that was judged last, on the scores that it gave to the development trials."""
        if np.isfinite(self._scores).all():
            scorer.calibrate_(self._scores, self.trials.target, self.p_target)

    @torch.no_grad()
    def _identification(self, model, options):
        """Identification loss of held-out utterances, without margin: what a margin is for is training."""
        device = model.head.weight.device
        was_training = model.training
        model.eval()
        outputs = model.head(torch.from_numpy(self.heldout.embed(model)).to(device)).double()
        model.train(was_training)
        speakers = torch.from_numpy(self.heldout_speakers).to(device)
        return float(identification_loss(outputs, speakers, model.head.kind, options.scale, 0.0))


def drawn_utterances(labelled, draws, most, per_speaker=10):
    """Rows of Labelled utterances to estimate a back-end on: ``most``, up to ``per_speaker`` of a speaker.

    draws (N,) are the utterances' random numbers; speakers come in the order of their smallest one.
    """
    order = np.lexsort((draws, labelled.speaker))
    counts = np.bincount(labelled.speaker, minlength=len(labelled.names))
    first = np.cumsum(counts) - counts
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - first[labelled.speaker[order]]
    turn = np.argsort(np.argsort(draws[order[first]], kind="stable"), kind="stable")  # the speakers' order
    kept = np.flatnonzero(rank < per_speaker)
    kept = kept[np.lexsort((rank[kept], turn[labelled.speaker[kept]]))][:most]
    return np.sort(kept)
