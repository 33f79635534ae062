"""GMM-UBM scores: the average log-likelihood ratio of many speakers' models against the UBM on one utterance.

score = (1/T) sum_t [ln p(x_t | speaker) - ln p(x_t | UBM)], with both mixtures restricted, frame by frame,
to the components that score highest under the UBM (Reynolds, Quatieri and Dunn: the speaker's model comes
from the UBM by adaptation, so its components correspond).
"""

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.gmm.mixture import log_sum_exp

MAX_CELLS = 1 << 22  # log-likelihoods held at a time: 32 MiB


class GmmScorer:
    """Scores utterances against a fixed list of models; what can be computed once, is.

    ``models`` is an iterable of M DiagGmm adapted from ``ubm`` (they need not be kept), ``top_gauss`` the
    number of UBM components a frame (0: all, the exact ratio). Holds M x C x D float64, twice that where
    variances were adapted. Raises VoxarkError for a model of another shape than the UBM.
    """

    def __init__(self, ubm, models, top_gauss=10):
        if top_gauss < 0:
            raise VoxarkError(f"--top-gauss={top_gauss}: expected 0 (all) or a number of components")
        self.ubm = ubm
        self.num_top = min(top_gauss or ubm.num_gauss, ubm.num_gauss)
        self.offset = ubm.mean()
        ubm_g, ubm_w = ubm.exponential_form(self.offset)
        constants, differences = [], []
        for i, model in enumerate(models):
            if model.means.shape != ubm.means.shape:
                raise VoxarkError(
                    f"model {i} has {model.num_gauss} components of dimension {model.dim}, the UBM has "
                    f"{ubm.num_gauss} of dimension {ubm.dim}: it was not adapted from this UBM"
                )
            g, w = model.exponential_form(self.offset)
            with np.errstate(invalid="ignore"):
                constants.append(np.where(np.isneginf(ubm_g), 0.0, g - ubm_g))
            # Models of adapted means share the UBM's variances: their quadratic terms cancel.
            shared = np.array_equal(model.variances, ubm.variances)
            width = ubm.dim if shared else 2 * ubm.dim
            differences.append(w[:, :width] - ubm_w[:, :width])
        self.num_models = len(constants)
        self._constants = np.array(constants).reshape(self.num_models, ubm.num_gauss).T  # (C,M)
        width = max((d.shape[1] for d in differences), default=ubm.dim)
        self._differences = np.zeros((ubm.num_gauss, self.num_models, width))  # (C,M,D or 2D)
        for i, difference in enumerate(differences):
            self._differences[:, i, : difference.shape[1]] = difference
            differences[i] = None

    def scores(self, x, chosen=None):
        """Return the scores (M,) float64 of utterance x (T,D), or of the models ``chosen`` (indices) only.

        Raises VoxarkError for no frames, another dimension, and NaN or infinite features.
        """
        if len(x) == 0:
            raise VoxarkError("no frames to score")
        x = np.asarray(x)
        check_finite(x, "feature")
        component_lls = self.ubm.component_log_likelihoods(x)
        num_models = self.num_models if chosen is None else len(chosen)
        total = np.zeros(num_models)
        block = max(1, MAX_CELLS // (self.num_top * max(num_models, 1)))
        for start in range(0, len(x), block):
            frames = slice(start, start + block)
            total += self._sum_ratios(x[frames], component_lls[frames], chosen, num_models)
        return total / len(x)

    def _sum_ratios(self, x, component_lls, chosen, num_models):
        """Sum over the frames of a block of ln p(x|model) - ln p(x|UBM), (M,).

        The chosen (frame, component) pairs are ordered by component: those of one component make one product
        with all models at once, so only what was chosen is computed.
        """
        top = self._top_components(component_lls)  # (T,N)
        num_frames, num_top = top.shape
        order = np.argsort(top, axis=None, kind="stable")
        pair_frames, pair_components = order // num_top, top.ravel()[order]
        width = self._differences.shape[2]
        z = x - self.offset
        z = np.concatenate((z, np.square(z)), axis=1)[:, :width][pair_frames]
        ratios = np.empty((num_frames * num_top, num_models))  # ln [w_c N_c] of the model over the UBM's
        edges = np.flatnonzero(np.diff(pair_components, prepend=-1, append=self.ubm.num_gauss))
        for first, last in zip(edges, edges[1:]):
            c = pair_components[first]
            model_rows = slice(None) if chosen is None else chosen
            np.matmul(z[first:last], self._differences[c, model_rows].T, out=ratios[first:last])
            ratios[first:last] += self._constants[c, model_rows]
        ubm_lls = np.take_along_axis(component_lls, top, axis=1)
        ubm_total = log_sum_exp(ubm_lls, axis=1)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        log_posteriors = (ubm_lls - ubm_total[:, None])[:, :, None]
        joint = ratios[back].reshape(num_frames, num_top, num_models) + log_posteriors
        return log_sum_exp(joint, axis=1).sum(axis=0)

    def _top_components(self, component_lls):
        """The indices (T,N) of the N likeliest components of each frame, in no particular order."""
        num_frames, num_gauss = component_lls.shape
        if self.num_top == num_gauss:
            return np.broadcast_to(np.arange(num_gauss), (num_frames, num_gauss))
        return np.argpartition(component_lls, num_gauss - self.num_top, axis=1)[:, num_gauss - self.num_top :]


def gmm_llr(ubm, models, x, top_gauss=10):
    """Return the GMM-UBM scores (M,) float64 of ``models`` (M DiagGmm) on one utterance x (T,D).

    For many utterances against the same models make one GmmScorer: this makes a new one at each call.
    """
    return GmmScorer(ubm, models, top_gauss).scores(x)
