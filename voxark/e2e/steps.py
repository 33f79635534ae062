"""One batch, one step: the gradient of the objective, what is added to it, and the optimizer."""

import logging

import numpy as np
import torch

from voxark.e2e.exact_gradient import Step, exact_step, plain_step, verify
from voxark.e2e.init_penalty import InitPenalty
from voxark.e2e.objective import Trials
from voxark.e2e.source import part_sizes
from voxark.errors import VoxarkError
from voxark.nnet import distributed
from voxark.nnet.relu_repair import ReluRepair, ReluRepairOptions, relu_layers
from voxark.random_numbers import draw

logger = logging.getLogger(__name__)


class GradientSteps:
    """Takes optimizer steps on batches; ``state_dict`` holds all that later steps depend on.

    ``options`` has the attributes optimizer (OptimizerOptions), gradient (GradientOptions) and run
    (E2eRunOptions).
    """

    def __init__(self, model, objective, options, device):
        self.model, self.objective, self.options, self.device = model, objective, options, device
        choice = options.optimizer
        model.extractor.half_products = options.gradient.precision == "bf16"
        if model.extractor.half_products and not model.extractor.allows_half_products:
            raise VoxarkError(f"--precision=bf16 would spoil {model.config['arch']}: take float32")
        if choice.freeze_extractor:
            model.extractor.requires_grad_(False)
        if choice.backend_lr_factor == 0 or not objective.options.verifies:
            model.scorer.requires_grad_(False)
        if model.head is not None and not objective.options.identifies:
            model.head.requires_grad_(False)
        self.repair = None
        if choice.relu_repair > 0:
            self.repair = ReluRepair(relu_layers(model), ReluRepairOptions(scale=choice.relu_repair))
        self.start = None
        if choice.anchor > 0:
            trained = (item for item in model.named_parameters() if item[1].requires_grad)
            self.start = {name: value.detach().clone() for name, value in trained}
        self.penalty = InitPenalty(model, choice.init_penalty) if choice.init_penalty else None
        self.verified = not options.gradient.verify_grad
        self.reset()

    def reset(self):
        """Forget the optimizer's moments."""
        self.optimizer = _optimizer(self.model, self.objective.options, self.options.optimizer)

    def _pull_back(self):
        """Add the gradient of anchor |theta - theta_start|^2."""
        for name, value in self.model.named_parameters():
            if value.grad is not None and name in self.start:
                difference = value.detach() - self.start[name]
                value.grad.add_(difference, alpha=2.0 * self.options.optimizer.anchor)

    def begin_epoch(self):
        """Count the activity of rectified units anew."""
        if self.repair is not None:
            self.repair.restart()

    def end_epoch(self):
        """Log what the repair of rectified units has found."""
        if self.repair is not None:
            self.repair.log()

    def take(self, batch, number, lr):
        """Take the step of batch ``number``; returns losses by name, or None where they are not finite."""
        choice = self.options.optimizer
        self.model.train()
        self.objective.step = number
        self.optimizer.zero_grad(set_to_none=True)
        step = self._gradients(batch, number)
        if not step.finite:
            return None
        if self.start is not None:
            self._pull_back()
        if self.repair is not None:
            self.repair.add_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), choice.clip or float("inf"))
        if not torch.isfinite(norm):
            return None
        warm = min(1.0, (number + 1) / choice.warmup) if choice.warmup else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = lr * warm * group["factor"]
        self.optimizer.step()
        found = {"loss": step.loss, "grad": float(norm), **step.extra}
        if self.penalty is not None:
            self.penalty.pull(self.optimizer)
            found["init"] = self.penalty.value()
        return found

    def _parameters(self):
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def _gradients(self, batch, number):
        """Add the gradients of a batch to the parameters; returns the Step."""
        gradient = self.options.gradient
        trials = Trials(batch.plan, self.device)
        if hasattr(self.objective.trial_weights, "before_step"):
            self._learn_weights(batch, trials, number)
        loss = self.objective.of_batch(trials)
        if self.model.extractor.mixes_examples:
            return self._mixed(batch, loss, number)
        options = {"seed": f"{self.options.run.srand} {number}", "lengths": batch.plan.size.tolist()}
        options.update(part_sizes(batch.plan, gradient))
        if not self.verified:
            self._verify(batch.chunks, loss, options)
        exact = gradient.exact or len(batch) > gradient.micro_batch or distributed.world_size() > 1
        return (exact_step if exact else plain_step)(self.model, batch.chunks, loss, **options)

    def _learn_weights(self, batch, trials, number):
        if distributed.world_size() > 1:
            raise VoxarkError("--trial-weights=meta looks ahead on one worker alone: start one")
        self.objective.trial_weights.before_step(number, batch, trials, self.model, self.optimizer)

    def _mixed(self, batch, loss, number):
        """The gradient where utterances of a batch see each other (batch normalisation): all in one pass."""
        if distributed.world_size() > 1:
            raise VoxarkError(
                "--norm=batch mixes the utterances of a batch, which one worker must have all of: start one"
            )
        torch.manual_seed(int(draw(self.options.run.srand, "step", number) * 2**63))
        x = torch.from_numpy(np.stack(batch.chunks)).to(self.device)
        embeddings = self.model.extractor(x).double()
        total, extra = loss(embeddings)
        step = Step(total.item(), embeddings.detach(), extra, 1)
        if step.finite:
            total.backward()
        return step

    def _verify(self, chunks, loss, options):
        """Log the relative difference of the two ways to the gradient, once."""
        self.verified = True
        if distributed.world_size() > 1:
            raise VoxarkError(
                "--verify-grad compares with the plain way, which one worker computes: start one"
            )
        parts = {**options, "max_examples": max(1, min(options["max_examples"], len(chunks) // 2))}
        counts = vars(self.objective.empty).copy()
        difference = verify(self.model, chunks, loss, **parts)
        vars(self.objective.empty).update(counts)
        logger.info(
            "gradients in parts of %d of the %d utterances differ from the plain way's by %.3g (relative)",
            parts["max_examples"],
            len(chunks),
            difference,
        )

    def state_dict(self):
        """All that later steps depend on besides the model's parameters."""
        weights = self.objective.trial_weights
        return {
            "optimizer": self.optimizer.state_dict(),
            "weights": None if weights is None else weights.state_dict(),
            "start": self.start,
            "repair": None if self.repair is None else self.repair.state_dict(),
            "penalty": None if self.penalty is None else self.penalty.state_dict(),
        }

    def load_state_dict(self, state):
        """Take over what state_dict gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.objective.trial_weights is not None:
            self.objective.trial_weights.load_state_dict(state["weights"])
        if self.start is not None:
            self.start = {name: value.to(self.device) for name, value in state["start"].items()}
        if self.repair is not None:
            self.repair.load_state_dict(state["repair"])
        if self.penalty is not None:
            self.penalty.load_state_dict(state["penalty"])


def _optimizer(model, losses, choice):
    """The optimizer over what the loss trains: groups with the factor of their learning rate."""
    groups = [*_groups(model.extractor, 1.0, choice.weight_decay)]
    if losses.identifies:
        groups += _groups(model.head, 1.0, choice.weight_decay)
    if losses.verifies and choice.backend_lr_factor > 0:
        # All entries of a matrix (d,D) that step together move a score by D times what a single one does.
        matrices = [p for p in model.scorer.parameters() if p.ndim == 2]
        groups += _groups(
            matrices, choice.backend_lr_factor / max((p.shape[1] for p in matrices), default=1), 0.0
        )
        groups += _groups([p for p in model.scorer.parameters() if p.ndim < 2], choice.backend_lr_factor, 0.0)
    if not groups:
        raise VoxarkError(
            "nothing is left to train: --freeze-extractor needs a loss that trains the back-end or the "
            "classifier"
        )
    if choice.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=choice.lr, momentum=choice.momentum)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[choice.optimizer](groups, lr=choice.lr)


def _groups(parameters, factor, weight_decay):
    """A list of one group of the parameters, of a module or a list, that are trained; empty without any."""
    parameters = parameters.parameters() if isinstance(parameters, torch.nn.Module) else parameters
    trained = [p for p in parameters if p.requires_grad]
    return [{"params": trained, "factor": factor, "weight_decay": weight_decay}] if trained else []
