"""The loss of a batch as a function of its embeddings: identification, verification, triplets, or both first.

Scores and losses over pairs are in double precision; the classifier works in single precision.
"""

import torch

from voxark.e2e.losses import (
    EmptyClasses,
    joint_loss,
    joint_weights,
    ramped,
    triplet_loss,
    verification_loss,
)


class Trials:
    """The trials of a BatchPlan as tensors on a device.

    speakers, recordings (M,) int64; target, mask: pairs of rows (M,M), or models against rows (K,M): of one
    speaker, and whether they are a trial. ``enrolment`` (K,M) averages the rows of each model; None for pairs
    of rows.
    """

    def __init__(self, plan, device="cpu"):
        self.plan = plan
        self.speakers = torch.as_tensor(plan.speakers, dtype=torch.int64, device=device)
        self.recordings = torch.as_tensor(plan.recordings, dtype=torch.int64, device=device)
        targets, nontargets = plan.model_masks() if plan.num_models else plan.pair_masks()
        self.target = torch.as_tensor(targets, device=device)
        self.mask = torch.as_tensor(targets | nontargets, device=device)
        self.enrolment = torch.as_tensor(plan.enrolment(), device=device) if plan.num_models else None

    def scores(self, scorer, embeddings):
        """Scores of all pairs, shaped as ``target``, of embeddings (M,D); models are means of these."""
        if self.enrolment is None:
            return scorer(embeddings)
        return scorer(self.enrolment.to(embeddings.dtype) @ embeddings, embeddings)


class Objective:
    """Losses of LossOptions of a model, weighted as far as the training has come.

    ``epoch`` (a fraction counts) and ``step`` are set by the trainer. ``trial_weights`` maps Trials to
    (weights shaped as the scores, normalize) or is None for uniform ones; ``regulariser`` maps
    (scores, Trials) to a penalty or is None. ``empty`` counts batches without trials of a kind.
    """

    def __init__(self, model, options, trial_weights=None, regulariser=None):
        self.model, self.options = model, options
        self.trial_weights, self.regulariser = trial_weights, regulariser
        self.epoch, self.step, self.empty = 0.0, 0, EmptyClasses()

    def weights(self):
        """(lambda_id, lambda_ver) now."""
        return joint_weights(self.options.schedule(), self.epoch / self.options.ramp_epochs)

    def final_weights(self):
        """(lambda_id, lambda_ver) at the end of their schedule: one measure for all epochs."""
        return joint_weights(self.options.schedule(), 1.0)

    def of_batch(self, trials):
        """The loss of embeddings (M,d) of Trials, as exact_step takes it: it gives (loss, {name: float})."""

        def loss(embeddings):
            if self.options.loss == "triplet":
                total = triplet_loss(embeddings, trials.speakers, self.options.triplet_margin,
                                     self.options.triplet_mining, self.empty, trials.recordings)
                return total, {"triplet": total.item()}
            return self._joint(embeddings, trials)

        return loss

    def _joint(self, embeddings, trials):
        weights, parts = self.weights(), {}
        identification = verification = None
        if weights[0]:
            identification = self.identification(embeddings, trials.speakers)
            parts["id"] = identification.item()
        if weights[1]:
            scores = trials.scores(self.model.scorer, embeddings)
            verification = self.verification(scores, trials)
            parts["ver"] = verification.item()
        total = joint_loss(identification, verification, weights)
        if self.regulariser is not None and weights[1]:
            penalty = self.regulariser(scores, trials)
            parts["cov"] = penalty.item()
            total = total + self.options.cov_weight * penalty
        return total, parts

    def identification(self, embeddings, speakers):
        """Identification loss with the margin of this step, float64."""
        margin = ramped(self.options.margin, self.step, 0, self.options.margin_ramp)
        dtype = self.model.head.weight.dtype
        return self.model.head.loss(
            embeddings.to(dtype), speakers, self.options.scale, margin, self.empty
        ).double()

    def verification(self, scores, trials):
        """Verification loss of the scores of a batch's trials."""
        weights, normalize = (None, True) if self.trial_weights is None else self.trial_weights(trials)
        return verification_loss(
            scores, trials.target, self.options.p_target, weights, trials.mask, normalize, self.empty
        )
