"""Where the scorer of an end-to-end system starts: from files of a recipe, or estimated on first embeddings.

Estimated: the front centres (and takes LDA, where it has a matrix), a two-covariance PLDA is trained on what
leaves it, and its score is the scorer's form. In every case logistic regression sets the affine map at the
end, so that training begins with calibrated scores.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxark import tables
from voxark.backend.class_stats import accumulate
from voxark.backend.lda import LdaOptions, train_lda
from voxark.backend.plda import Plda
from voxark.backend.plda_em import PldaTrainingOptions, train_plda
from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)

MAX_CALIBRATED = 1000  # vectors whose pairs are looked at by the logistic regression


@dataclass
class BackendStartOptions:
    """The back-end: its form and where it starts."""

    backend: Literal["dplda", "diagonal", "cosine", "snyder"] = option(
        "dplda", "How two embeddings are scored: discriminative PLDA, its diagonal form (NPLDA), scaled "
                 "cosine, or the quadratic score of the first end-to-end networks")
    front_dim: int = option(
        0, "Dimensions that an affine map in front of the back-end keeps, started as LDA (0: no map, "
           "centring alone)")
    length_norm: bool = option(
        True, "dplda, diagonal: scale the vectors to one length in front of the back-end")
    init_mean: str = option("", "Mean of embeddings to start the front from (compute-vec-mean)")
    init_lda: str = option("", "LDA matrix to start the front from (train-lda); sets --front-dim")
    init_plda: str = option("", "<Plda> to start dplda or diagonal from, of vectors as the front gives them")
    init_shrinkage: float = option(
        0.2, "Shrinkage of the within-speaker covariances that LDA and PLDA are estimated with on first "
             "embeddings, 0 to 1")

    def check(self):
        """VoxarkError for options that contradict each other."""
        if self.front_dim < 0:
            raise VoxarkError("--front-dim is at least 0")
        if not 0.0 <= self.init_shrinkage <= 1.0:
            raise VoxarkError("--init-shrinkage lies between 0 and 1")
        if self.init_plda and self.backend not in ("dplda", "diagonal"):
            raise VoxarkError(f"--init-plda starts --backend=dplda or diagonal, not {self.backend}")

    def scorer_config(self):
        """What build_scorer takes besides the dimension: {kind, front_dim, length_norm}."""
        lda_rows = len(tables.read_object("mat", self.init_lda)) if self.init_lda else 0
        if lda_rows and self.front_dim not in (0, lda_rows):
            raise VoxarkError(
                f"{self.init_lda}: the matrix has {lda_rows} rows, --front-dim={self.front_dim}"
            )
        config = {"kind": self.backend, "front_dim": lda_rows or self.front_dim}
        if self.backend in ("dplda", "diagonal"):
            config["length_norm"] = self.length_norm
        return config


def start_scorer(scorer, x, labels, recordings, options, p_target):
    """Set all parameters of a scorer from BackendStartOptions and embeddings x (N,D).

    labels (N,): speakers; recordings (N,): pairs of one recording do not take part in the calibration.
    """
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    mean = tables.read_object("vec", options.init_mean) if options.init_mean else x.mean(axis=0)
    if mean.shape != x.shape[1:]:
        raise VoxarkError(f"{options.init_mean}: the mean has dimension {len(mean)}, the embeddings have "
                          f"{x.shape[1]}")
    try:
        scorer.front.init_(mean, _front_matrix(scorer, x - mean, labels, options))
    except VoxarkError as error:
        raise VoxarkError(f"{options.init_lda or '--front-dim'}: {error}") from None
    if hasattr(scorer, "init_from_plda_"):
        _start_plda(scorer, x, labels, options)
    recalibrate(scorer, x, labels, recordings, p_target)


def _start_plda(scorer, x, labels, options):
    """Set the scorer's form by the <Plda> of --init-plda, or by one of what its front makes of x (N,D)."""
    if not options.init_plda:
        plda = _estimated_plda(_through_front(scorer, x), labels, options.init_shrinkage)
        if plda is not None:
            scorer.init_from_plda_(plda)
        return
    try:
        scorer.init_from_plda_(tables.read_model("plda", options.init_plda, Plda.from_params))
    except VoxarkError as error:
        named = str(error) if options.init_plda in str(error) else f"{options.init_plda}: {error}"
        raise VoxarkError(named) from None


def recalibrate(scorer, x, labels, recordings, p_target):
    """Set the affine map of a scorer by logistic regression on pairs of vectors x (N,D), see start_scorer."""
    step = -(-len(x) // MAX_CALIBRATED)
    x, labels = np.asarray(x, np.float64)[::step], np.asarray(labels)[::step]
    recordings = np.asarray(recordings)[::step]
    trials = np.triu(recordings[:, None] != recordings[None], 1)
    target = (labels[:, None] == labels[None])[trials]
    if not target.any() or target.all():
        logger.warning("the first batches have trials of one kind alone: the scores are not calibrated")
        return
    scorer.calibrate_(scorer.score_numpy(x)[trials], target, p_target)


def _front_matrix(scorer, centred, labels, options):
    """The matrix (d,D) or (d,D+1) that the front starts as, or None where it has none."""
    if options.init_lda:
        return tables.read_object("mat", options.init_lda)
    if scorer.front.weight is None:
        return None
    dim = scorer.front.out_dim
    labels = np.unique(labels, return_inverse=True)[1]
    try:
        return train_lda(centred, labels, LdaOptions(dim=dim, shrinkage=max(options.init_shrinkage, 1e-3)))
    except VoxarkError as error:
        logger.warning("the front starts at principal directions, as LDA is refused: %s", error)
    _, _, directions = np.linalg.svd(centred, full_matrices=True)
    return directions[:dim]


def _through_front(scorer, x):
    import torch

    with torch.no_grad():
        return scorer.front(torch.as_tensor(x, device=scorer.front.bias.device)).cpu().numpy()


def _estimated_plda(x, labels, shrinkage):
    """A Plda of vectors x (N,d), with shrinkage as they are few; None, with a warning, where it fails."""
    labels = np.unique(labels, return_inverse=True)[1]
    try:
        return train_plda(accumulate(x, labels), PldaTrainingOptions(num_em_iters=5, shrinkage=shrinkage))
    except VoxarkError as error:
        logger.warning("the back-end starts without an estimate, as PLDA is refused: %s", error)
        return None
