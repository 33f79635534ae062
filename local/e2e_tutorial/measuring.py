"""What is measured of the scores of all pairs of test recordings, whose true LLRs are known."""

from typing import NamedTuple

import numpy as np

from spread import all_pairs
from voxark import tables
from voxark.backend.plda import Plda
from voxark.calibration.logistic import fit_logistic
from voxark.errors import VoxarkError
from voxark.metrics import Roc


def read_labels(folder, keys):
    """Numbers (N,) of the speakers of some utterances of a data directory."""
    utt2spk = tables.read_table("token", f"{folder}/utt2spk")
    return np.unique([utt2spk[key] for key in keys], return_inverse=True)[1]


def read_vectors(name):
    """(keys, x (N,D) float64) of an archive of vectors, its keys sorted."""
    table = tables.read_table("vec", str(name))
    keys = sorted(table)
    if not keys:
        raise VoxarkError(f"{name}: there are no vectors in it")
    return keys, np.stack([table[key] for key in keys]).astype(np.float64)


def pair_scores(model, x):
    """Scores (N,N) of a Plda, without length normalisation, or of a Dplda, for vectors x (N,D)."""
    if not isinstance(model, Plda):
        return model.pair_terms(x, x).dense()
    u = model.project(x)
    return model.pair_terms(u, np.ones(len(u), np.intp), u).dense()


class TestTrials(NamedTuple):
    """All pairs of N test recordings: first, second, target (T,), true (T,) log-likelihood ratios."""

    first: np.ndarray
    second: np.ndarray
    target: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, truth, x, labels):
        """Of recordings with true vectors x (N,D), the true Plda, and speakers labels (N,)."""
        first, second, target = all_pairs(labels)
        return cls(first, second, target, pair_scores(truth, x)[first, second])

    @classmethod
    def read(cls, folder):
        """(keys of the recordings, TestTrials) of a folder of make_data.py."""
        keys, x = read_vectors(f"{folder}/true.vectors")
        truth = tables.read_model("plda", f"{folder}/true.plda", Plda.from_params)
        return keys, cls.of(truth, x, read_labels(folder, keys))

    def eer(self, scores):
        """Equal error rate of scores (T,)."""
        return float(Roc(scores[self.target], scores[~self.target]).eer()[0])

    def measures(self, scores):
        """{name: number} of scores (T,) that are to be log-likelihood ratios.

        slope and offset are the calibration a s + b that logistic regression wants: 1 and 0 of calibrated
        scores; correlation and rms are with and from the true ones.
        """
        target, nontarget = scores[self.target], scores[~self.target]
        roc = Roc(target, nontarget)
        fit = fit_logistic(scores[:, None], self.target)
        return {
            "eer": float(roc.eer()[0]),
            "cllr": float(roc.cllr()),
            "min_cllr": float(roc.min_cllr()),
            "slope": float(fit.weights[0]),
            "offset": float(fit.offset),
            "correlation": float(np.corrcoef(scores, self.true)[0, 1]),
            "rms": float(np.sqrt(np.mean((scores - self.true) ** 2))),
        }
