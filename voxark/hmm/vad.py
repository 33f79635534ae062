"""Voice activity detection by an HMM: silence and speech as Gaussian mixtures whose decisions are smoothed.

Either a model trained before decides, or one that is fitted to each recording alone, starting from its frames
of low and of high energy: what is low follows the noise of the recording, which no fixed threshold does.
"""

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.gmm.diag import DiagGmm
from voxark.gmm.em import growth_schedule
from voxark.hmm.batches import Batch
from voxark.hmm.em import HmmEStep, hmm_m_step
from voxark.hmm.model import Hmm
from voxark.hmm.train import TrainingOptions
from voxark.random_numbers import seeded_rng

STAY = {2: (0.98, 0.98), 3: (0.98, 0.9, 0.9)}  # self-loops: silence, (weak,) strong
RANKS = {2: (0.15,), 3: (0.15, 0.5)}  # shares of the frames, by energy, that the states begin with
MIN_VARIANCE = 0.01  # of features scaled to variance 1


class HmmVad:
    """Decides about one recording at a time; ``model`` is the Hmm of --hmm-model, or None."""

    def __init__(self, options, model=None):
        options.check()
        self.options, self.model = options, model
        if model is not None:
            self._silence = options.silence_states()
            if not set(self._silence) <= set(range(model.num_states)):
                raise VoxarkError(f"--hmm-silence-states={options.hmm_silence_states}: the model has "
                                  f"{model.num_states} states, from 0")
            self._step = HmmEStep(model, np.mean([pdf.mean() for pdf in model.pdfs], axis=0))

    def decide(self, x):
        """Return 1.0 for each voiced frame of x (T,D), T >= 1, 0.0 for the others: (T,) float32.

        VoxarkError for NaN and infinite features, and for features that the model does not fit.
        """
        check_finite(x, "feature")
        if self.model is None:
            y = vad_features(x, self.options)
            return self._voiced(*fit_to_recording(y, x[:, 0], self.options), y)
        if x.shape[1] != self.model.dim:
            raise VoxarkError(f"features have dimension {x.shape[1]}, the HMM {self.model.dim}")
        return self._voiced(self._step, self._silence, x)

    def _voiced(self, step, silence, y):
        found = step.posteriors(_batch(y))
        if not np.isfinite(found.log_likelihood[0]):
            raise VoxarkError("no path through the HMM")
        return (1.0 - found.gamma[:, silence].sum(axis=1) >= self.options.hmm_threshold).astype(np.float32)


def _batch(y):
    return Batch([""], np.array([len(y)]), y, None)


def vad_features(x, options):
    """Return what the HMM of a recording sees of x (T,D): (T,K) float64, columns of mean 0 and variance 1.

    Column 0 at t - context .. t + context (the ends repeated), and the other --hmm-columns.
    """
    around = np.arange(-options.hmm_context, options.hmm_context + 1)
    frames = np.clip(np.arange(len(x))[:, None] + around, 0, len(x) - 1)
    y = np.concatenate((x[frames, 0], x[:, 1 : options.hmm_columns]), axis=1).astype(np.float64)
    y -= y.mean(axis=0)
    return y / np.maximum(y.std(axis=0), 1e-3)


def fit_to_recording(y, energy, options):
    """Return (HmmEStep of the HMM fitted to features y (T,K), its silence states), given energies (T,).

    The states begin with the frames of lowest to highest energy, and silence is a chain of --hmm-min-silence
    states of one density. Transitions stay as they are: a recording has too few turns to learn them from.
    """
    num_states = options.hmm_num_states
    rank = np.argsort(np.argsort(energy, kind="stable")) / len(y)
    begins_with = np.searchsorted(RANKS[num_states], rank, side="right")
    pdfs = []
    for state in range(num_states):
        chosen = y[begins_with == state] if (begins_with == state).any() else y
        variance = np.maximum(chosen.var(axis=0), MIN_VARIANCE)
        pdfs.append(DiagGmm([1.0], chosen.mean(axis=0)[None], variance[None]))
    hmm = _chained(pdfs, options.hmm_min_silence)
    rules = TrainingOptions(update_transitions=False, min_gaussian_occupancy=0.0, min_gaussian_weight=0.0,
                            remove_low_count_gaussians=False)
    floor, offset = np.full(y.shape[1], MIN_VARIANCE), np.zeros(y.shape[1])
    for i, number in enumerate(growth_schedule(1, options.hmm_num_gauss, options.hmm_num_iters)):
        pdfs = [pdf.split(pdf.num_gauss + number, seeded_rng(0, "vad", i, state))
                for state, pdf in enumerate(hmm.pdfs)]
        hmm = Hmm(hmm.initial, hmm.transitions, hmm.final, pdfs, hmm.pdf_of)
        step = HmmEStep(hmm, offset)
        accs = step.zeros()
        step.accumulate(_batch(y), accs)
        hmm = hmm_m_step(hmm, accs, rules, floor, warn=False)
    lowest = int(np.argmin([pdf.mean()[options.hmm_context] for pdf in hmm.pdfs]))
    return HmmEStep(hmm, offset), np.flatnonzero(hmm.pdf_of == lowest)


def _chained(pdfs, min_silence):
    """Density 0 as a chain of ``min_silence`` states that must be passed, then one state for each other."""
    num_states = min_silence + len(pdfs) - 1
    pdf_of = np.concatenate((np.zeros(min_silence, int), np.arange(1, len(pdfs))))
    last = np.arange(min_silence - 1, num_states)  # the state of each density that can be left
    first = np.concatenate(([0], last[1:]))
    transitions = np.eye(num_states, k=1)
    for place, stay in enumerate(STAY[len(pdfs)]):
        transitions[last[place]] = 0.0
        transitions[last[place], first] = (1.0 - stay) / (len(pdfs) - 1)
        transitions[last[place], first[place]] = 0.0
        transitions[last[place], last[place]] = stay
    initial = np.zeros(num_states)
    initial[first] = 1.0 / len(pdfs)
    return Hmm(initial, transitions, np.ones(num_states), pdfs, pdf_of)
