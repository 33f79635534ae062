"""Linear probes: how well a class can be told from a latent by multinomial logistic regression."""

import warnings
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, the weight of the likelihood against |w|^2 / 2
MAX_TUNING = 6000  # training segments that choose C
_MAX_ITERATIONS = 200


class ProbeResult(NamedTuple):
    """Measures on held-out segments.

    ``accuracy``; ``majority``: share of the most frequent class of the test; ``gain``: (accuracy - majority)
    / (1 - majority); ``entropy``: of the test labels, in nats; ``cross_entropy``: of the probe, in nats a
    segment; ``information``: entropy - cross_entropy, a lower bound of the mutual information of latent and
    label, below zero where the probe is worse than the class shares; ``penalty``: the C chosen; ``weights``
    (K,D): of the standardised latent, of mean 0 over the classes.
    """

    accuracy: float
    majority: float
    gain: float
    entropy: float
    cross_entropy: float
    information: float
    penalty: float
    weights: np.ndarray


def require_sklearn():
    """Return sklearn with what is used here. Raises VoxarkError, which says how to install it."""
    try:
        import sklearn.linear_model
        import sklearn.neighbors
    except ImportError as error:
        raise VoxarkError(f"probes need scikit-learn: pip install 'voxark[probe]' ({error})") from None
    return sklearn


def probe(x, split, rng):
    """Train on the training part of a Split and measure on its test: a ProbeResult.

    x (N,D): the latents of ``split.rows``. C is chosen by cross-validation over the folds, by cross-entropy.
    Raises VoxarkError for values that are not finite.
    """
    if not np.isfinite(x).all():
        raise VoxarkError("the latents hold NaN or infinite values")
    train, labels = ~split.is_test, split.labels
    mean, std = _moments(x[train])
    x = (x - mean) / std
    penalty = _choose_penalty(x[train], labels[train], split.fold[train], rng)
    weights, offsets = _fit(x[train], labels[train], [penalty])[0]
    logits = x[split.is_test] @ weights.T + offsets
    return measure(logits, labels[split.is_test], penalty, weights)


def measure(logits, labels, penalty=1.0, weights=None):
    """The ProbeResult of logits (N,K) and labels (N,), from 0 to K-1."""
    share = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    accuracy, majority = float(np.mean(np.argmax(logits, axis=1) == labels)), float(share.max())
    entropy = float(-np.sum(share[share > 0] * np.log(share[share > 0])))
    cross_entropy = _cross_entropy(logits, labels)
    gain = (accuracy - majority) / (1.0 - majority) if majority < 1.0 else 0.0
    information = entropy - cross_entropy
    return ProbeResult(accuracy, majority, gain, entropy, cross_entropy, information, penalty, weights)


def _moments(x):
    """Mean and standard deviation (D,) float64; 1 in place of a deviation of 0."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0)


def _cross_entropy(logits, labels):
    """Mean of -ln p(label), nats."""
    largest = logits.max(axis=1)
    norm = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return float(np.mean(norm - logits[np.arange(len(labels)), labels]))


def _choose_penalty(x, labels, fold, rng):
    """The C of least cross-entropy on the folds held out; classes that a fold has not seen do not count."""
    if len(x) > MAX_TUNING:
        chosen = np.sort(rng.choice(len(x), MAX_TUNING, replace=False))
        x, labels, fold = x[chosen], labels[chosen], fold[chosen]
    totals = np.zeros(len(PENALTIES))
    for held in np.unique(fold).tolist():
        seen = np.unique(labels[fold != held])
        inside, outside = fold != held, (fold == held) & np.isin(labels, seen)
        if len(seen) < 2 or not outside.any():
            continue
        number = np.searchsorted(seen, labels)
        for place, (weights, offsets) in enumerate(_fit(x[inside], number[inside], PENALTIES)):
            logits = x[outside] @ weights.T + offsets
            totals[place] += outside.sum() * _cross_entropy(logits, number[outside])
    return PENALTIES[int(np.argmin(totals))]


def _fit(x, labels, penalties):
    """(weights (K,D), offsets (K,)) for each C, in turn; each fit starts where the last one ended."""
    sklearn = require_sklearn()
    model = sklearn.linear_model.LogisticRegression(warm_start=True, max_iter=_MAX_ITERATIONS, tol=1e-3)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        for penalty in penalties:
            model.set_params(C=penalty).fit(x, labels)
            weights, offsets = np.array(model.coef_, np.float64), np.array(model.intercept_, np.float64)
            if len(weights) == 1:  # two classes: the logit of the second against the first
                weights, offsets = np.vstack([-weights, weights]) / 2.0, np.append(-offsets, offsets) / 2.0
            found.append((weights - weights.mean(axis=0), offsets - offsets.mean()))
    return found
