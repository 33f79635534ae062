"""All measures of latents with labels: probes, neighbours, DCI, use of dimensions, verification."""

import logging
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from voxark import tables
from voxark.backend.vector_table import VectorTable, collect_vectors
from voxark.disentanglement.dci import dci, importances
from voxark.disentanglement.latents import map_means, usage, utterance_sums
from voxark.disentanglement.probes import ProbeResult, probe
from voxark.disentanglement.purity import Purity, knn_purity
from voxark.disentanglement.splits import split_segments
from voxark.disentanglement.verification import cosine_eer
from voxark.errors import VoxarkError
from voxark.options import option
from voxark.random_numbers import seeded_rng
from voxark.trials.lists import read_trials

logger = logging.getLogger(__name__)
LATENTS = ("z1", "z2")


@dataclass
class MeasureOptions:
    """How measures are taken."""

    mu1: str = option("", "Vectors mu1 of the utterances (rspecifier); without it they come from z1")
    mu2: str = option("", "Vectors mu2 of the utterances (rspecifier); without it they come from z2")
    z1_var: str = option("", "Variances of z1 (rspecifier), for divergences")
    z2_var: str = option("", "Variances of z2 (rspecifier), for divergences")
    pz2_var: float = option(0.25, "Variance of z2 round mu2 in the model")
    pmu2_var: float = option(1.0, "Variance of mu2 in the model")
    pz1_var: float = option(1.0, "Variance of z1's prior in the model")
    trials: str = option("", "Trials of utterances with labels: the equal error rates")
    allow_missing: bool = option(False, "Leave out trials without vectors, in place of an error")
    max_segments: int = option(20000, "Segments that are drawn for a factor")
    max_classes: int = option(500, "Classes that are drawn for a factor with more")
    test_share: float = option(0.25, "Share of the utterances, or speakers, that are the test")
    srand: int = option(0, "Seed of all that is drawn")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if not all(0.0 < variance < math.inf for variance in (self.pz1_var, self.pz2_var, self.pmu2_var)):
            raise VoxarkError("--pz1-var, --pz2-var and --pmu2-var must be positive")
        if not 0.0 < self.test_share < 1.0 or self.max_segments < 1 or self.max_classes < 2:
            raise VoxarkError("--test-share is between 0 and 1, --max-segments at least 1, --max-classes 2")


class FactorMeasures(NamedTuple):
    """Of a factor: its split, and for z1, z2 and both together a ProbeResult; Purity for z1 and z2."""

    name: str
    kind: str
    disjoint: str
    classes: list
    num_train: int
    num_test: int
    left_out: dict
    probes: dict
    purity: dict

    @property
    def ratio(self):
        """The gain of the latent that ought to know the factor over that of the other; see gain_ratio."""
        own, other = ("z2", "z1") if self.kind == "sequence" else ("z1", "z2")
        return gain_ratio(self.probes[own].gain, self.probes[other].gain)


@dataclass
class Measures:
    """All that was measured; parts that were not asked for are empty."""

    num_utterances: int = 0
    num_segments: int = 0
    factors: list = field(default_factory=list)  # of FactorMeasures
    dci: object = None  # Dci of z1 and z2 together over the factors
    usage: dict = field(default_factory=dict)  # latent -> Usage
    eer: dict = field(default_factory=dict)  # vectors -> Verification
    movements: list = field(default_factory=list)  # of Moved
    num_waves: int = 0


def gain_ratio(own, other):
    """own / other; infinite where only ``own`` is above zero, NaN where neither is."""
    if other > 0:
        return own / other
    return math.inf if own > 0 else math.nan


def measure_factor(factor, segments, options):
    """The FactorMeasures of a Factor; VoxarkError where no split of its classes is possible."""
    rng = seeded_rng(options.srand, "split", factor.name)
    try:
        split = split_segments(factor.labels, factor.names, factor.groups, rng, options.test_share,
                               options.max_segments, options.max_classes)
    except VoxarkError as error:
        raise VoxarkError(f"factor {factor.name}: {error}") from None
    x = {"z1": segments.z1[split.rows], "z2": segments.z2[split.rows]}
    both = np.hstack([x["z1"], x["z2"]])
    probes: dict[str, ProbeResult] = {
        name: probe(value, split, seeded_rng(options.srand, "probe", factor.name))
        for name, value in {**x, "both": both}.items()
    }
    purity: dict[str, Purity] = {name: knn_purity(value, split) for name, value in x.items()}
    num_test = int(split.is_test.sum())
    return FactorMeasures(factor.name, factor.kind, factor.disjoint, split.names, len(split.rows) - num_test,
                          num_test, split.left_out, probes, purity)


def measure_segments(segments, factors, options, progress=lambda factors: factors):
    """The Measures of Segments for Factors; a factor that cannot be split is left out, with a warning."""
    options.check()
    found = Measures(len(segments.keys), len(segments.utterance))
    for factor in progress(factors):
        try:
            found.factors.append(measure_factor(factor, segments, options))
        except VoxarkError as error:
            logger.warning("%s", error)
            continue
        if left_out := found.factors[-1].left_out:
            first = next(iter(left_out))
            logger.warning("factor %s: %d of %d classes left out, such as %s: %s", factor.name, len(left_out),
                           len(factor.names), first, left_out[first])
    if found.factors:
        found.dci = dci(np.stack([importances(of.probes["both"].weights) for of in found.factors], axis=1))
    found.usage = _usage(segments, options)
    if options.trials:
        trials = read_trials(options.trials)
        for name, vectors in utterance_vectors(segments, options).items():
            found.eer[name] = cosine_eer(trials, vectors, options.allow_missing)
    return found


def _usage(segments, options):
    """{latent: Usage}, z1 against N(0, pz1_var), z2 against N(mu2, pz2_var) of its utterance."""
    mu2 = _estimates(segments, "z2", options)
    return {"z1": usage(segments.z1, segments.z1_var, 0.0, options.pz1_var),
            "z2": usage(segments.z2, segments.z2_var, mu2[segments.utterance], options.pz2_var)}


def _estimates(segments, name, options):
    """MAP estimates (U,D) of mu1 or mu2 from z1 or z2, or mu2 as given."""
    if name == "z2" and options.mu2:
        given = _given(options.mu2)
        rows = given.rows_of(segments.keys)
        if (rows < 0).any():
            raise VoxarkError(f"{segments.keys[int(np.argmin(rows))]}: {options.mu2} has no mu2 of it")
        if given.x.shape[1] != segments.z2.shape[1]:
            raise VoxarkError(f"{options.mu2}: dimension {given.x.shape[1]}, z2 has {segments.z2.shape[1]}")
        return given.x[rows].astype(np.float64)
    ratio = options.pz2_var / options.pmu2_var
    return map_means(getattr(segments, name), segments.utterance, len(segments.keys), ratio)


def _given(rspecifier):
    with tables.open_reader("vec", rspecifier) as reader:
        return collect_vectors(reader)


def utterance_vectors(segments, options):
    """{name: VectorTable} of mu2, mu1 and the mean of z2 of the utterances."""
    sums, counts = utterance_sums(segments.z2, segments.utterance, len(segments.keys))
    found = {}
    for name, latent, given in (("mu2", "z2", options.mu2), ("mu1", "z1", options.mu1)):
        if given:
            found[name] = _given(given)
        else:
            found[name] = VectorTable(segments.keys, _estimates(segments, latent, options))
    return {**found, "mean z2": VectorTable(segments.keys, sums / counts[:, None])}
