"""What train-dplda reads: vectors, the start, the trials that do not count, and the weights of the others."""

import contextlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.backend.class_stats import accumulate
from voxark.backend.dplda import Dplda
from voxark.backend.dplda_form import start_from
from voxark.backend.dplda_objective import CountWeights
from voxark.backend.plda import Plda
from voxark.backend.plda_em import train_plda
from voxark.errors import VoxarkError
from voxark.io.kinds import KINDS, read_value
from voxark.io.outputs import open_text_output
from voxark.io.streams import open_input
from voxark.options import option
from voxark.trials.blue import nontarget_classes, target_classes
from voxark.trials.development import (
    Development,
    LabelledVectors,
    check_trainable,
    open_development,
    read_count_weights,
    read_labels,
    read_pair_weights,
    read_vectors,
)

_LONGEST_NAME = 16  # bytes from the start of a model file that its kind's name stands in


@dataclass
class TrialOptions:
    """Which pairs of vectors are trials, and how much each counts within its class."""

    exclude_same: str = option(
        "", "Table of a label of each vector (its recording): pairs that share it do not count"
    )
    trial_weights: str = option(
        "uniform",
        "uniform, blue (by --correlations or --c: least variance), or a list `<enroll> <test> <weight>` of "
        "the pairs that count",
    )
    count_weights: str = option(
        "",
        "Weights by the speakers' numbers of vectors: lines `target <n> <weight>` and "
        "`nontarget <n> <m> <weight>`",
    )

    def check(self):
        """Raise VoxarkError for options that do not go together."""
        if self.trial_weights != "uniform" and self.count_weights:
            raise VoxarkError("--trial-weights and --count-weights exclude each other")


class Inputs(NamedTuple):
    """``vectors`` to train on, ``development`` or None, ``weighting``: keyword arguments of train_dplda."""

    vectors: LabelledVectors
    development: Development | None
    weighting: dict


def read_inputs(vectors_rspecifier, utt2spk_rspecifier, options, counts, progress):
    """Read the Inputs; options: Development-, Trial-, Correlation-, DpldaTrainingOptions, a tuple."""
    development, trials, correlation, training = options
    correlations = correlation.read()
    if (correlations != (None, None)) != (trials.trial_weights == "blue"):
        raise VoxarkError(
            "--trial-weights=blue and the correlations of trials (--correlations, --c) go together"
        )
    everything = read_vectors(vectors_rspecifier, utt2spk_rspecifier, counts, progress)
    check_trainable(everything)
    vectors, judged = open_development(development, everything, training.p_target, training.srand, counts)
    weighting = {}
    if trials.exclude_same:
        weighting["same"] = read_labels(trials.exclude_same, vectors.keys, "label")
    if trials.trial_weights == "blue":
        weighting["weights"] = blue_weights(np.bincount(vectors.labels), correlations)
    elif trials.trial_weights != "uniform":
        weighting["listed"] = read_pair_weights(trials.trial_weights, vectors)
    if trials.count_weights:
        weighting["weights"] = read_count_weights(trials.count_weights)
    return Inputs(vectors, judged, weighting)


def blue_weights(counts, correlations):
    """CountWeights of all pairs of speakers with counts (S,) vectors that make the loss vary least (blue.py).

    A class whose correlations are not known has equal weights.
    """
    distinct = np.unique(counts).tolist()
    target = dict.fromkeys(distinct, 1.0)
    nontarget = {(n, m): 1.0 for n in distinct for m in distinct if n <= m}
    if correlations.target is not None:
        found = target_classes(counts, correlations.target)
        target = dict(zip(found.n.tolist(), found.relative.tolist()))
    if correlations.nontarget is not None:
        found = nontarget_classes(counts, correlations.nontarget)
        nontarget = {
            (n, m): found.relative[i, j]
            for i, n in enumerate(found.n.tolist())
            for j, m in enumerate(found.n.tolist())
            if n <= m
        }
    return CountWeights(target, nontarget)


def open_start(rxfilename, kind, plda_options, vectors, diagonal):
    """(Space, Dplda in it) to start from: of a file of a PLDA or DPLDA, or of the vectors (``kind``)."""
    source = None
    if rxfilename:
        source = read_plda_or_dplda(rxfilename)
    elif kind == "plda":
        source = train_plda(accumulate(vectors.x, vectors.labels), plda_options)
    return start_from(source, kind, vectors.x, diagonal)


def read_plda_or_dplda(rxfilename):
    """Read a Plda, or a Dplda, whichever the file or pipe holds; VoxarkError names it if it is neither."""
    with open_input(rxfilename) as source:
        head = source.peek(_LONGEST_NAME)
        kind, make = ("dplda", Dplda.from_params) if b"<Dplda>" in head else ("plda", Plda.from_params)
        params = read_value(KINDS[kind], source)
    try:
        return make(params)
    except VoxarkError as error:
        raise VoxarkError(f"{rxfilename}: {error}") from None


@contextlib.contextmanager
def report_to(wxfilename):
    """Give the text stream of a report, or None without a name; the file appears at the end."""
    if not wxfilename:
        yield None
        return
    with open_text_output(wxfilename) as table:
        yield table
