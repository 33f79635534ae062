"""Training of HMMs over utterances that stream by: the first model, then EM or Viterbi training."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import UpdateOptions, growth_schedule, variance_floor
from voxark.gmm.init import cluster_moments, kmeans, summarise
from voxark.hmm.batches import Usable, batches
from voxark.hmm.em import NO_PATH, HmmEStep, hmm_m_step
from voxark.hmm.model import Hmm
from voxark.hmm.report import HmmReporter
from voxark.hmm.topology import named_topology, read_topology
from voxark.options import option
from voxark.random_numbers import seeded_rng

logger = logging.getLogger(__name__)


@dataclass
class TopologyOptions:
    """States, transitions and endings of a model to be trained, and where its densities come from."""

    num_states: int = option(3, "Number of states (with --topo=FILE the file says)")
    topo: str = option(
        "left-to-right", "Transitions: left-to-right, ergodic, or a file with lines `from to [probability]`, "
        "`initial state [probability]`, `final state [probability]`")
    final: Literal["set", "prob"] = option(
        "set", "How utterances end: in a set of states at no cost, or by an exit probability of each state")
    init: Literal["auto", "uniform", "kmeans"] = option(
        "auto", "Densities at the start: from utterances cut into equal parts, from clusters of frames, or "
        "auto: uniform for --topo=left-to-right, kmeans for others")

    def topology(self):
        """Return (initial, transitions, final)."""
        if self.topo in ("left-to-right", "ergodic"):
            return named_topology(self.topo, self.num_states, self.final)
        return read_topology(self.topo, self.final)

    def start(self):
        """Return "uniform" or "kmeans"."""
        return {"auto": "uniform" if self.topo == "left-to-right" else "kmeans"}.get(self.init, self.init)


@dataclass
class TrainingOptions(UpdateOptions):
    """Kind of training, number of iterations and of Gaussians, and the options of each M-step."""

    training: Literal["em", "viterbi", "fixed"] = option(
        "em", "em: over all paths; viterbi: the best path alone; fixed: the states of --ali throughout")
    num_gauss: int = option(
        1, "Number of Gaussians of each density; they are grown by splitting up to half of the iterations")
    num_iters: int = option(10, "Number of iterations (0, with --ali: what one pass over the labels gives)")
    update_transitions: bool = option(True, "If true, train transitions, too")
    srand: int = option(0, "Seed of the random numbers")

    def check(self):
        """Raise VoxarkError for numbers that make no sense."""
        super().check()
        if self.num_iters < 0 or self.num_gauss < 1:
            raise VoxarkError("--num-iters must be at least 0 and --num-gauss at least 1")


class _Labelled(Usable):
    """Usable utterances that have labels of the right length and range."""

    def __init__(self, features, fail, alignments, num_states):
        super().__init__(features, fail, strict=True)
        self._alignments, self._num_states = alignments, num_states

    def _check_length(self, key, x):
        super()._check_length(key, x)
        states = self._alignments.get(key)
        if states is None:
            raise VoxarkError("no labels")
        if len(states) != len(x):
            raise VoxarkError(f"{len(states)} labels for {len(x)} frames")
        if len(states) and not 0 <= states.min() <= states.max() < self._num_states:
            last = self._num_states - 1
            raise VoxarkError(f"labels from {states.min()} to {states.max()}, but states 0 to {last}")


class HmmTrainer:
    """Trains an Hmm over ``features``, (key, x (T,D)) pairs that are read anew in each pass.

    ``alignments`` {key: states (T,)} are labels (training "fixed" needs them; otherwise they only give the
    first model); ``fail(key, reason)`` hears of each utterance that cannot be used, once; ``report`` is an
    EmReport or None. After train(), ``num_utterances`` were used in the last pass.
    """

    def __init__(self, features, topology, options, alignments=None, fail=None, report=None):
        options.check()
        if options.training == "fixed" and alignments is None:
            raise VoxarkError("--training=fixed needs the labels of --ali")
        self.topology, self.options, self.alignments, self.report = topology, options, alignments, report
        self._fail = fail or (lambda key, reason: logger.warning("%s: %s", key, reason))
        self._features = features
        self.num_utterances = 0

    def train(self, initial=None):
        """Return the trained Hmm; iterations start from ``initial`` (an Hmm) where it is given."""
        if initial is None:
            initial_probs, transitions, final = self.topology.topology()
            self._make_usable(len(initial_probs))
            hmm = self._first_model(initial_probs, transitions, final)
        else:
            self._make_usable(initial.num_states)
            hmm, self._usable.dim = initial, initial.dim
            self._offset = np.mean([pdf.mean() for pdf in hmm.pdfs], axis=0)
            pooled = _pooled(hmm.pdfs)
            self._floor = variance_floor(pooled.total_variance(), self.options)
        self._usable.shortest = hmm.shortest_path
        grow = initial is None and self.options.num_gauss > 1
        added = growth_schedule(1, self.options.num_gauss, self.options.num_iters) if grow else []
        for iteration in range(1, self.options.num_iters + 1):
            if iteration <= len(added):
                hmm = self._split(hmm, added[iteration - 1], iteration)
            hmm = self._iterate(hmm, iteration)
        return hmm

    def _make_usable(self, num_states):
        if self.alignments is None:
            self._usable = Usable(self._features, self._fail, strict=True)
        else:
            self._usable = _Labelled(self._features, self._fail, self.alignments, num_states)

    def _batches(self, hmm):
        return batches(self._usable, hmm.num_states, self.alignments)

    def _pass(self, hmm, training):
        """One E-step; utterances without a path are dropped from it and from later passes."""
        step = HmmEStep(hmm, self._offset, training)
        accs = step.zeros()
        for batch in self._batches(hmm):
            usable = step.accumulate(batch, accs)
            for key, used in zip(batch.keys, usable):
                if not used:
                    labels = "its labels make a step that the model does not have"
                    self._usable.drop(key, labels if training == "fixed" else NO_PATH)
        self.num_utterances = accs.num_utterances
        return accs

    def _iterate(self, hmm, iteration):
        accs = self._pass(hmm, self.options.training)
        of_path = "" if self.options.training == "em" else " of the path"
        if accs.num_frames:
            logger.info("iteration %d: log-likelihood per frame%s %.6f over %d frames", iteration, of_path,
                        accs.log_likelihood / accs.num_frames, accs.num_frames)
        updated = hmm_m_step(hmm, accs, self.options, self._floor, ("rescue", iteration))
        if self.report is not None:
            self._report(hmm, updated, iteration)
        return updated

    def _report(self, hmm, updated, iteration):
        reporter = HmmReporter(hmm, self._offset, self.options.training)
        self.report.add(iteration, "E", reporter.terms(self._batches(hmm), hmm))
        if [pdf.num_gauss for pdf in hmm.pdfs] == [pdf.num_gauss for pdf in updated.pdfs]:
            self.report.add(iteration, "M", reporter.terms(self._batches(hmm), updated))
        else:
            logger.warning("iteration %d: Gaussians were removed; no terms after its M-step, as q has more "
                           "components than the model", iteration)

    def _split(self, hmm, number, iteration):
        pdfs = [pdf.split(pdf.num_gauss + number, seeded_rng(self.options.srand, "grow", iteration, i))
                for i, pdf in enumerate(hmm.pdfs)]
        return Hmm(hmm.initial, hmm.transitions, hmm.final, pdfs, hmm.pdf_of, hmm.ending)

    # ---------------------------------------------------------------------------------------- the first model

    def _first_model(self, initial, transitions, final):
        """One Gaussian a state: from labels, equal parts of the utterances, or clusters of frames."""
        by_clusters = self.alignments is None and self.topology.start() == "kmeans"
        summary = summarise(self._usable, 200000 if by_clusters else 0, self.options.srand)
        self._offset = summary.mean
        self._floor = variance_floor(summary.variance, self.options)
        variance = np.maximum(summary.variance, self._floor)
        num_states = len(initial)
        broad = DiagGmm(np.ones(1), summary.mean[None], variance[None])
        hmm = Hmm(initial, transitions, final, [broad] * num_states, None, self.topology.final)
        logger.info("%d frames of dimension %d; %d states (%s)", summary.num_frames, hmm.dim, num_states,
                    "labels" if self.alignments is not None else self.topology.start())
        if by_clusters:
            return _from_clusters(hmm, summary, self._floor, self.options.srand)
        if self.alignments is not None:
            accs = self._pass(hmm, "fixed")
            return hmm_m_step(hmm, accs, self.options, self._floor, ("start",))
        step = HmmEStep(hmm, self._offset, "fixed")
        accs = step.zeros()
        for batch in self._batches(hmm):
            times = np.concatenate([np.arange(t) * num_states // t for t in batch.lengths.tolist()])
            step.emissions.accumulate(batch.x, np.eye(num_states)[times], accs.gauss)
            accs.num_utterances += len(batch.keys)
        emissions_only = replace(self.options, update_transitions=False)  # equal parts say nothing about them
        return hmm_m_step(hmm, accs, emissions_only, self._floor, ("start",), warn=False)


def _from_clusters(hmm, summary, floor, srand):
    """Each state's Gaussian is that of a k-means cluster, found in units of the standard deviation."""
    scale = np.sqrt(np.maximum(summary.variance, floor))
    z = ((summary.sample - summary.mean) / scale).astype(np.float32)
    labels = kmeans(z, hmm.num_states, seeded_rng(srand, "init"))
    weights, means, variances = cluster_moments(z, labels, hmm.num_states)
    means, variances = means * scale + summary.mean, np.maximum(variances * scale**2, floor)
    pdfs = [DiagGmm(np.ones(1), mean[None], variance[None]) for mean, variance in zip(means, variances)]
    return Hmm(hmm.initial, hmm.transitions, hmm.final, pdfs, hmm.pdf_of, hmm.ending)


def _pooled(pdfs):
    """All the mixtures as one, with equal weights: its variance stands for that of the data."""
    weights, means, variances = (
        np.concatenate([getattr(pdf, name) for pdf in pdfs]) for name in ("weights", "means", "variances"))
    return DiagGmm(weights / len(pdfs), means, variances)
