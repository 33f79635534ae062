"""FHVAE training: steps, cache resets, validation, saving; ends when the bound improves no more.

Everything that the next step depends on is in :meth:`Trainer.state_dict`, and random numbers come from --srand
and the number of the step, so that a run that goes on from a saved state computes the same bits as one that was
never stopped. Workers (torchrun) have sequences and a cache of their own, and share the networks' gradients.
"""

import logging
import math
import time
from typing import NamedTuple

import torch

from voxark.errors import VoxarkError
from voxark.fhvae.cache import Cache
from voxark.fhvae.objective import sequence_log_posterior
from voxark.fhvae.validation import alarms
from voxark.nnet import distributed
from voxark.nnet.board import open_board
from voxark.nnet.stop_request import StopRequest
from voxark.random_numbers import draw

logger = logging.getLogger(__name__)

TERMS = ("loss", "bound", "log_px", "kl_z1", "kl_z2", "log_pmu2", "disc", "grad")
_KEPT = ("epoch", "step", "place", "lr", "num_broken", "sums", "history", "best_epoch", "best_step", "best_bound",
         "seconds", "reset_s", "ended")


class Outcome(NamedTuple):
    """How a run ended: the signal that stopped it, or None; steps of this process, and where its time went."""

    signum: int | None
    steps_here: int
    seconds: float
    reset_share: float
    waited_share: float


class Trainer:
    """A run over ``source`` (batches), judged by ``judge`` (a Validation), written to ``folder``.

    ``model``: an FhvaeModel on the worker's device; ``settings``: what a state must agree with.
    """

    log_posterior = staticmethod(sequence_log_posterior)  # experiments put slower forms in its place

    def __init__(self, model, source, judge, folder, options, settings, workers):
        self.model, self.source, self.judge, self.folder = model, source, judge, folder
        self.options, self.settings, self.workers = options, settings, workers
        self.lr = options.optimizer.lr
        self.flat = options.sampling.sampling == "flat"
        self.cache = Cache(source.num_rows, model, self._optimizer, options.sampling.cache_opt == "keep")
        if self.flat:
            self.cache.start_at_random(torch.Generator().manual_seed(self._seed("table")))
        self._networks = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer(self._networks, options.optimizer.weight_decay)
        self.epoch = self.step = self.place = 0  # place: steps of this epoch that are done
        self.num_broken, self.sums, self.history = 0, [0.0] * len(TERMS), []
        self.best, self.best_epoch, self.best_step, self.best_bound = None, 0, 0, -math.inf
        self.seconds = self.reset_s = 0.0
        self.steps_here, self.seconds_here, self.reset_here = 0, 0.0, 0.0
        self.ended = False
        self._saved_at, self._saved_step = time.monotonic(), 0

    def _seed(self, *words):
        return int(draw(self.options.run.srand, *words) * 2**63)

    def _optimizer(self, parameters, weight_decay=0.0):
        choice = self.options.optimizer
        return torch.optim.Adam(parameters, lr=self.lr, betas=(choice.beta1, choice.beta2), eps=choice.adam_epsilon,
                                weight_decay=weight_decay, fused=True)

    # ------------------------------------------------------------------------------------------- the run

    @property
    def finished(self):
        """Whether there is nothing left to do."""
        return self.ended or self.step >= self.options.optimizer.num_steps

    def run(self):
        """Train to the end, or until a signal comes; returns an Outcome."""
        signum = None
        self._board = open_board(self.folder, self.options.run.tensorboard, len(self.history))
        with StopRequest() as stop:
            if self.best is None:
                self._end_epoch()
            else:
                self._publish()
            while not self.finished and signum is None:
                signum = self._train_epoch(stop)
                if signum is None:
                    self.epoch, self.place = self.epoch + 1, 0
                    self._end_epoch()
        if signum is not None:
            self._save()
            distributed.barrier()  # torchrun ends the worker that saves, too, as soon as another is gone
        self.source.close()
        total = self.seconds_here or 1.0
        return Outcome(signum, self.steps_here, self.seconds_here, self.reset_here / total,
                       min(1.0, self.source.waited_s / total))

    def _train_epoch(self, stop):
        """Take the steps that are left of an epoch; returns the number of a signal that asks to end."""
        choice = self.options.optimizer
        while self.place < choice.steps_per_epoch and self.step < choice.num_steps:
            began = time.monotonic()
            batch = self.next_batch()
            terms = self.take(batch)
            self.step, self.place = self.step + 1, self.place + 1
            if terms is None:
                self._go_back_once(batch)
            else:
                self.sums = [one + other for one, other in zip(self.sums, terms, strict=True)]
            self.steps_here += 1
            self.seconds_here += time.monotonic() - began
            self.seconds += time.monotonic() - began
            if distributed.any_worker(stop.signum is not None, self.workers.device):
                return stop.signum or -1
            self._save_in_time()
        return None

    def next_batch(self):
        """The next batch, the cache reset where it begins; where it cannot be read the state is saved first."""
        try:
            batch = self.source.next(self.workers.device)
        except (VoxarkError, OSError):
            if self.step > self._saved_step and distributed.world_size() == 1:
                self._save()
            raise
        if batch.begins:
            began = time.monotonic()
            self.model.half_products = self.options.optimizer.precision == "bf16"
            self.cache.reset(self.source.block)
            self.reset_s += time.monotonic() - began
            self.reset_here += time.monotonic() - began
        return batch

    # ------------------------------------------------------------------------------------------- a step

    def take(self, batch):
        """Take the step of a Batch; returns its TERMS, or None where they are not finite."""
        self.model.half_products = self.options.optimizer.precision == "bf16"
        terms = self._backward(batch)
        self._share_gradients()
        clip = self.options.optimizer.clip
        norm = torch.nn.utils.clip_grad_norm_(self._networks, clip or math.inf, foreach=True)
        terms = torch.stack([*terms, norm.double()]).tolist()
        self.model.half_products = False
        if distributed.any_worker(not all(map(math.isfinite, terms)), self.workers.device):
            return None
        self.optimizer.step()
        self.cache.optimizer.step()
        return terms

    def _backward(self, batch):
        """Set the gradients of a batch; returns TERMS but the last, 0-dimensional tensors."""
        model, mu2 = self.model, self.cache.mu2
        generator = torch.Generator(batch.x.device)
        generator.manual_seed(self._seed("noise", self.step, self.workers.rank))
        noise = [torch.randn(len(batch.rows), dim, generator=generator, device=batch.x.device)
                 for dim in (model.z1_dim, model.z2_dim)]
        passed = model(batch.x, mu2[batch.rows], batch.num_segments, noise)
        disc = self.log_posterior(passed.q2.mean, mu2, model.pz2_var, batch.rows)
        bound = passed.bound
        loss = -(bound.total + self.options.optimizer.alpha * disc).mean()
        self.optimizer.zero_grad(set_to_none=True)
        mu2.grad = None
        loss.backward()
        values = (bound.total, *bound, disc)
        return [loss.detach().double(), *(value.detach().double().mean() for value in values)]

    def _share_gradients(self):
        """Average the networks' gradients over the workers, and those of a table that they share."""
        size = distributed.world_size()
        if size == 1:
            return
        shared = [*self._networks, *([self.cache.mu2] if self.flat else [])]
        distributed.sum_gradients(shared)
        for parameter in shared:
            parameter.grad /= size

    def _go_back_once(self, batch):
        """A loss or gradient that is not finite: once, go back to the best model and halve the rate."""
        keys = sorted({self.source.sequences.key(position) for position in batch.positions.tolist()})
        logger.warning("step %d: the loss is not finite; the batch's sequences: %s", self.step, " ".join(keys))
        self.num_broken += 1
        if self.num_broken > 1:
            raise VoxarkError(
                f"the loss is not finite for the second time, in step {self.step}; the best model, of epoch "
                f"{self.best_epoch}, is in {self.folder.path}; look at the features of the batch's sequences, "
                f"named above, or lower --lr; the first is {keys[0]}")
        self.lr *= 0.5
        logger.warning("back to the model of epoch %d, learning rate %g", self.best_epoch, self.lr)
        self._load_parameters(self.best)
        self.optimizer = self._optimizer(self._networks, self.options.optimizer.weight_decay)
        if self.flat:
            self.cache.forget_moments()
        elif self.source.block is not None:
            self.cache.reset(self.source.block)

    # ------------------------------------------------------------------------------------------- epochs

    def _end_epoch(self):
        """Judge the model, log a line, keep the best, save everything. Epoch 0 is before training."""
        began = time.monotonic()
        line = self._judge()
        bound = line["dev_exact_bound" if self.options.dev.exact_bound else "dev_bound"]
        if not math.isfinite(bound):
            raise VoxarkError(f"the bound of held-out sequences is not finite in epoch {self.epoch}, the first time "
                              f"with {self.judge.first_not_finite}: look at its features, or lower --lr")
        if bound > self.best_bound:
            self.best_bound, self.best_epoch, self.best_step = bound, self.epoch, self.step
            self.best = self._parameters()
        self.ended = self.step - self.best_step >= self.options.optimizer.patience_steps
        line.update(best_epoch=self.best_epoch, train_s=self.seconds, reset_s=self.reset_s,
                    dev_s=time.monotonic() - began)
        self._log(line, bound)
        self.history.append(line)
        self.sums = [0.0] * len(TERMS)
        self._board(line)
        self._publish()
        if self.epoch:
            self.folder.write_checkpoint(self.epoch, self.model.state_dict(), self.options.run.keep_checkpoints)
        self._save()

    def _judge(self):
        """The line of this epoch: figures by name."""
        line = {"epoch": self.epoch, "steps": self.step, "sequence_batches": self.source.num_blocks, "lr": self.lr}
        if self.place or self.epoch:
            taken = max(1, self.step - (self.history[-1]["steps"] if self.history else 0))
            line.update({f"train_{name}": value / taken for name, value in zip(TERMS, self.sums, strict=True)})
        line.update(self.judge.figures(self.model))
        for alarm in alarms(line, self.history[0] if self.history else None, len(self.judge.sequences)) \
                if self.epoch else ():
            logger.warning("epoch %d: %s", self.epoch, alarm)
        return line

    def _log(self, line, bound):
        train = f"train {line['train_bound']:.2f}, disc {line['train_disc']:.3f}; " if "train_bound" in line else ""
        logger.info("epoch %d, step %d: bound: %sdev %.2f (log p(x) %.2f, KL z1 %.2f, z2 %.2f), disc %.3f, active "
                    "z1 %d, z2 %d; %s", line["epoch"], line["steps"], train, bound, line["dev_log_px"],
                    line["dev_kl_z1"], line["dev_kl_z2"], line["dev_disc"], line["active_z1"], line["active_z2"],
                    "the best so far" if self.best_epoch == self.epoch else f"best: epoch {self.best_epoch}")

    # ------------------------------------------------------------------------------------------- the state

    def _parameters(self):
        """Copies of the model's parameters and, for the flat sampling, of the table of mu2."""
        found = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return {**found, "table": self.cache.mu2.detach().clone()} if self.flat else found

    def _load_parameters(self, parameters):
        self.model.load_state_dict({name: value for name, value in parameters.items() if name != "table"})
        if self.flat:
            self.cache.mu2.data.copy_(parameters["table"])

    def _save_in_time(self):
        """Save within an epoch when it is time to."""
        run = self.options.run
        due = self.step - self._saved_step >= run.save_interval
        late = time.monotonic() - self._saved_at > 60.0 * run.save_minutes
        if due or distributed.any_worker(late, self.workers.device):
            self._save()

    def _save(self):
        state = self.state_dict()
        self.folder.save_state(state)
        self._saved_at, self._saved_step = time.monotonic(), self.step

    def _publish(self):
        """Write what follows from the state: the best model and the lines of the epochs."""
        best = {name: value for name, value in self.best.items() if name != "table"}
        self.folder.write_model(self.model, best, self.best_epoch)
        self.folder.write_history(self.history)

    def state_dict(self):
        """All that the rest of the run depends on, for save_state; every worker has to call it."""
        return {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "workers": distributed.gather_objects({"cache": self.cache.state_dict(),
                                                   "source": self.source.state_dict()}),
            "best": self.best,
            **{name: getattr(self, name) for name in _KEPT},
        }

    def load_state_dict(self, state):
        """Take over what state_dict gave."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        own = state["workers"][self.workers.rank]
        self.cache.load_state_dict(own["cache"])
        self.source.load_state_dict(own["source"])
        self.best = {name: value.to(self.workers.device) for name, value in state["best"].items()}
        self._saved_step = self.step
