"""Where an "ivec-mimic" model starts: at an i-vector and PLDA system exactly, or at layers that imitate it.

Imitation is stage 1 of the method [tutorial]: f2s learns the UBM's posteriors by cross-entropy, then s2i the
vectors that the PLDA scores, by 1 - cosine, from the statistics that this f2s gives. The teacher is the exact
network. Stage 2 trains the blocks together (train-e2e-verif --init-model --init-penalty).
"""

import dataclasses
import heapq
import logging
import math
from typing import NamedTuple

import numpy as np
import torch

from voxark.checks import check_finite
from voxark.e2e.chunks import NormalizeOptions
from voxark.e2e.extractors import normalised
from voxark.e2e.model import E2eModel, model_config
from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)


class System(NamedTuple):
    """An i-vector system: DiagGmm or FullGmm, IvectorExtractor, Plda; mean (R,), LDA (d,R or R+1) or None."""

    gmm: object
    extractor: object
    plda: object
    mean: np.ndarray = None
    lda: np.ndarray = None


def exact_model(system, normalize, extraction, length_norm=True):
    """The E2eModel, in double precision, that gives the i-vectors and PLDA scores of a System.

    ``normalize``: NormalizeOptions, of the features that the system takes; ``extraction``: ExtractionOptions.
    VoxarkError where dimensions differ. All Gaussians have posteriors: the i-vectors are those without
    Gaussian selection and pruning.
    """
    num_gauss, dim, ivector_dim = system.extractor.t.shape
    options = {"form": "exact", "input_dim": dim, "num_gauss": num_gauss, "embedding_dim": ivector_dim,
               **dataclasses.asdict(extraction)}
    model = _build(options, normalize, 0 if system.lda is None else len(system.lda), length_norm).double()
    model.extractor.init_exact_(system.gmm, system.extractor)
    model.scorer.front.init_(system.mean, system.lda)
    model.scorer.init_from_plda_(system.plda)
    return model.eval()


def _build(options, normalize, front_dim, length_norm):
    scorer = {"kind": "dplda", "front_dim": front_dim, "length_norm": length_norm}
    return E2eModel(model_config("ivec-mimic", options, normalize.cmn, scorer=scorer,
                                 cmn_window=normalize.cmn_window))


class UtteranceSample:
    """A random choice of at most --max-utts utterances of features of ``dim``, normalised, held in memory.

    Which ones, and their order, depend on --srand and the keys alone.
    """

    def __init__(self, dim, normalize, options):
        self.dim, self.normalize, self.options, self._kept = dim, normalize, options, []

    def add(self, key, x):
        """Look at features x (T,dim). VoxarkError for features that cannot be used."""
        if x.ndim != 2 or x.shape[1] != self.dim or not len(x):
            raise VoxarkError(f"features have shape {x.shape}, frames of dimension {self.dim} are expected")
        check_finite(x, "feature")
        mark = seeded_rng(self.options.srand, "ivec-mimic", "utterance", key).random()
        cmn = {"chunk": "utterance"}.get(self.normalize.cmn, self.normalize.cmn)
        entry = (-mark, key, normalised(x, cmn, self.normalize.cmn_window))
        if len(self._kept) < self.options.max_utts:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def utterances(self):
        """The list of features (T,dim)."""
        return [x for _, _, x in sorted(self._kept, key=lambda entry: entry[:2])]


class Imitation(NamedTuple):
    """How well a student imitates on utterances held out; ``num_heldout`` of them.

    cross_entropy of its posteriors and entropy of the teacher's, in nats a frame; cosine: mean of the
    vectors with the teacher's; correlation: Pearson's, of all their elements less each dimension's mean.
    """

    num_heldout: int
    cross_entropy: float
    entropy: float
    cosine: float
    correlation: float


def mimic_model(teacher, system, utterances, layers, options):
    """Teach layers to imitate ``teacher``, the exact_model of ``system``; returns (E2eModel, Imitation).

    ``utterances``: list of features (T,F), normalised as the teacher takes them; ``layers``: LayerOptions;
    ``options``: MimicOptions. VoxarkError for too few utterances.
    """
    if not teacher.scorer.front.length_norm:
        raise VoxarkError("--init=mimic imitates vectors of one length: it needs --length-norm=true")
    if len(utterances) < 4:
        raise VoxarkError(f"{len(utterances)} utterances to learn from: at least 4 are needed")
    torch.manual_seed(int(seeded_rng(options.srand, "ivec-mimic", "layers").integers(2**63)))
    kept = {name: value for name, value in dataclasses.asdict(teacher.extractor.options).items()
            if name in ("input_dim", "num_gauss", "acoustic_weight", "max_count")}
    own = {"form": "mimic", "embedding_dim": teacher.scorer.dim, **dataclasses.asdict(layers)}
    student = _build({**kept, **own}, NormalizeOptions(teacher.cmn, teacher.cmn_window), 0, True)
    normalised_gmm = student.extractor.init_norm_(system.gmm)
    student.extractor.s2i.init_normalisation_(normalised_gmm)
    student.scorer.init_from_plda_(system.plda)
    teacher = _Teacher(teacher)
    order = seeded_rng(options.srand, "ivec-mimic", "held out").permutation(len(utterances))
    num_heldout = min(max(2, round(options.heldout_share * len(order))), len(order) - 2)
    heldout, training = ([torch.from_numpy(np.ascontiguousarray(utterances[i], np.float32)) for i in part]
                         for part in (order[:num_heldout], order[num_heldout:]))
    _learn_posteriors(teacher, student, training, options)
    _learn_vectors(teacher, student, training, options)
    return student.eval(), imitation(teacher, student.eval(), heldout)


class _Teacher:
    """The exact model, in double precision, for features in single."""

    def __init__(self, model):
        self.model = model.double().eval()

    @torch.no_grad()
    def posteriors(self, x):
        """Posteriors (B,T,C) of x (B,T,F)."""
        extractor = self.model.extractor
        return extractor.f2s(extractor.normalise(x.double())).exp().float()

    @torch.no_grad()
    def vectors(self, x):
        """The vectors (B,d) that the PLDA scores, of x (B,T,F)."""
        return self.model.scorer.front(self.model.extractor(x.double())).float()


def _learn_posteriors(teacher, student, training, options):
    """Train f2s by cross-entropy with the teacher's posteriors, on random stretches of utterances.

    Stretches have --mimic-frames, or the median length where that is less; shorter utterances are left out.
    """
    extractor = student.extractor
    length = min(options.mimic_frames, sorted(map(len, training))[len(training) // 2])
    long = [x for x in training if len(x) >= length]
    optimizer = torch.optim.Adam(extractor.f2s.parameters(), lr=options.mimic_lr)
    for step in range(options.num_f2s_steps):
        rng = seeded_rng(options.srand, "ivec-mimic", "f2s", step)
        chosen = rng.choice(len(long), min(options.mimic_batch, len(long)), replace=False)
        firsts = [int(rng.integers(len(long[i]) - length + 1)) for i in chosen]
        x = torch.stack([long[i][first : first + length] for i, first in zip(chosen, firsts)])
        logs = extractor.f2s(extractor.normalise(x))
        loss = -(teacher.posteriors(x) * logs).sum(dim=-1).mean()
        _step(optimizer, loss, options.mimic_lr * (1.0 - step / options.num_f2s_steps))
        if (step + 1) % max(1, options.num_f2s_steps // 5) == 0:
            logger.info("f2s, batch %d: cross-entropy %.4f nats a frame", step + 1, loss.item())


def _learn_vectors(teacher, student, training, options):
    """Train s2i by 1 - cosine with the teacher's vectors, on whole utterances and cuts of them."""
    extractor, inputs, targets = student.extractor, [], []
    with torch.no_grad():
        for i, whole in enumerate(training):
            for x in _with_cuts(whole, seeded_rng(options.srand, "ivec-mimic", "cuts", i), options):
                inputs.append(extractor.s2i.normalised(*extractor.statistics(x[None])))
                targets.append(teacher.vectors(x[None]))
    inputs, targets = torch.cat(inputs), torch.cat(targets)
    extractor.s2i.init_reduction_(inputs)
    optimizer = torch.optim.Adam(extractor.s2i.parameters(), lr=options.mimic_lr)
    for epoch in range(options.num_s2i_epochs):
        order = seeded_rng(options.srand, "ivec-mimic", "s2i", epoch).permutation(len(inputs))
        total = 0.0
        for first in range(0, len(order), options.mimic_batch):
            batch = order[first : first + options.mimic_batch]
            found = extractor.s2i.from_normalised(inputs[batch])
            loss = (1.0 - torch.cosine_similarity(found, targets[batch])).mean()
            _step(optimizer, loss, options.mimic_lr * (1.0 - epoch / options.num_s2i_epochs))
            total += loss.item() * len(batch)
        if (epoch + 1) % max(1, options.num_s2i_epochs // 5) == 0:
            logger.info("s2i, epoch %d: 1 - cosine %.4f", epoch + 1, total / len(order))


def _with_cuts(x, rng, options):
    """An utterance x (T,F) and random cuts of it of at least --mimic-frames, where it is longer."""
    yield x
    for _ in range(options.num_cuts if len(x) > options.mimic_frames else 0):
        length = int(rng.integers(options.mimic_frames, len(x)))
        first = int(rng.integers(len(x) - length + 1))
        yield x[first : first + length]


def _step(optimizer, loss, lr):
    if not math.isfinite(loss.item()):
        raise VoxarkError("the imitation's loss is not finite: lower --mimic-lr, or look at the features")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.param_groups[0]["lr"] = lr
    optimizer.step()


@torch.no_grad()
def imitation(teacher, student, utterances):
    """The Imitation of a teacher by a student (E2eModel) on utterances, a list of tensors (T,F)."""
    cross_entropy = entropy = 0.0
    vectors, extractor = [], student.extractor
    for x in utterances:
        posteriors = teacher.posteriors(x[None])
        cross_entropy -= float((posteriors * extractor.f2s(extractor.normalise(x[None]))).sum())
        entropy -= float(torch.xlogy(posteriors, posteriors).sum())
        vectors.append(torch.cat((teacher.vectors(x[None]), student.scorer.front(extractor(x[None])))))
    pairs, num_frames = torch.stack(vectors).double(), sum(map(len, utterances))
    cosine = torch.cosine_similarity(pairs[:, 0], pairs[:, 1]).mean().item()
    one, other = (pairs - pairs.mean(dim=0)).unbind(dim=1)
    correlation = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()
    return Imitation(len(utterances), cross_entropy / num_frames, entropy / num_frames, cosine, correlation)
