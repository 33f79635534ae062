"""The training of an end-to-end system: epochs of batches, validation, a schedule that goes back to the best.

Everything that the next batch depends on is in :meth:`Trainer.state_dict`, and random numbers come from
--srand and the number of the batch, so that a run that goes on from a saved state computes the same bits as
one that was never stopped. Workers (torchrun) compute the same; the main one writes.
"""

import copy
import logging
import math
import time
from typing import NamedTuple

from voxark.e2e.steps import GradientSteps
from voxark.errors import VoxarkError
from voxark.nnet import distributed
from voxark.nnet.board import open_board
from voxark.nnet.schedule import Schedule
from voxark.nnet.stop_request import StopRequest

logger = logging.getLogger(__name__)

FIGURES = {"min-cllr": "min_cllr", "eer": "eer", "cllr": "cllr", "loss": "dev_loss"}  # of --best
_KEPT = ("best_epoch", "epoch", "batch", "place", "num_broken", "sums", "history", "chunks", "seconds")


class Outcome(NamedTuple):
    """How a run ended: the signal that stopped it, or None; chunks trained on in all, and by this process.

    ``seconds`` that these took, and the share of them that was waited for data.
    """

    signum: int | None
    chunks: int
    chunks_here: int
    seconds: float
    waited_share: float


class Trainer:
    """A run over ``source`` (batches), judged by ``judge`` (a Validation), written to ``folder``.

    ``model``: an E2eModel whose norms and scorer have been started, unless a state is loaded; ``objective``:
    an Objective; ``settings``: what a state must agree with; ``options``: OptimizerOptions, GradientOptions,
    E2eRunOptions as attributes optimizer, gradient, run.
    """

    def __init__(self, model, source, objective, judge, folder, options, settings, workers):
        self.model, self.source, self.objective, self.judge = model, source, objective, judge
        self.folder, self.options, self.settings, self.workers = folder, options, settings, workers
        choice = options.optimizer
        self.steps = GradientSteps(model, objective, options, workers.device)
        self.schedule = Schedule(choice.patience, choice.lr, choice.lr_factor, choice.min_lr or None)
        self.epoch, self.batch, self.place = 0, 0, 0  # place: batches of this epoch that are done
        self.history, self.sums, self.num_broken = [], {}, 0
        self.best, self.best_epoch = None, 0
        self.chunks = self.chunks_here = 0
        self.seconds = self.seconds_here = 0.0
        self._saved_at, self._saved_batch = time.monotonic(), 0

    # ------------------------------------------------------------------------------------------- the run

    @property
    def finished(self):
        """Whether there is nothing left to do."""
        return self.schedule.finished or self.epoch >= self.options.optimizer.num_epochs

    def run(self):
        """Train to the end, or until a signal comes; returns an Outcome."""
        signum = None
        known = 0 if self.best is None else self.epoch + 1  # epochs that are judged already
        self._board = open_board(self.folder, self.options.run.tensorboard, known)
        with StopRequest() as stop:
            if self.best is None:
                self._end_epoch()
            else:
                self._publish()
            while not self.finished and signum is None:
                signum = self._train_epoch(stop)
                if signum is None:
                    self.epoch, self.place = self.epoch + 1, 0
                    self.steps.end_epoch()
                    self._end_epoch()
        if signum is not None:
            self._save()
            distributed.barrier()  # torchrun ends the worker that saves, too, as soon as another is gone
        waited = getattr(self.source, "waited_s", 0.0)
        share = min(1.0, waited / self.seconds_here) if self.seconds_here else 0.0
        return Outcome(signum, self.chunks, self.chunks_here, self.seconds_here, share)

    def _train_epoch(self, stop):
        """Train on the batches that are left of an epoch; returns the number of a signal that asks to end."""
        per_epoch = self.options.batches.batches_per_epoch
        if self.place == 0:
            self.steps.begin_epoch()
        while self.place < per_epoch:
            began = time.monotonic()
            self.objective.epoch = self.epoch + self.place / per_epoch
            batch = self._next_batch()
            result = self.steps.take(batch, self.batch, self.schedule.lr)
            self.batch, self.place = self.batch + 1, self.place + 1
            if result is None:
                self._go_back_once(batch)
            else:
                for name, value in result.items():
                    total, number = self.sums.get(name, (0.0, 0))
                    self.sums[name] = (total + value, number + 1)
            self.chunks, self.chunks_here = self.chunks + len(batch), self.chunks_here + len(batch)
            self.seconds_here += time.monotonic() - began
            self.seconds += time.monotonic() - began
            if distributed.any_worker(stop.signum is not None, self.workers.device):
                return stop.signum or -1
            self._save_in_time()
        return None

    def _next_batch(self):
        """The next batch; where it cannot be read the state is saved first: mended data can go on."""
        try:
            return self.source.next()
        except (VoxarkError, OSError):
            if self.batch > self._saved_batch:
                self._save()
            raise

    def _go_back_once(self, batch):
        """A loss or gradient that is not finite: once, go back to the best model and lower the rate."""
        logger.warning("batch %d of epoch %d: the loss is not finite; its utterances: %s", self.place,
                       self.epoch + 1, " ".join(batch.keys))
        self.num_broken += 1
        if self.num_broken > 1:
            raise VoxarkError(
                f"the loss is not finite for the second time, in batch {self.place} of epoch "
                f"{self.epoch + 1}; the best model, of epoch {self.best_epoch}, is in {self.folder.path}; "
                "look at the features of the batch's utterances, named above, or lower --lr; the first is "
                f"{batch.keys[0]}")
        if self.schedule.step(math.nan) == "stop":
            raise VoxarkError("the loss is not finite, and the learning rate has reached its end")
        logger.warning("back to the model of epoch %d, learning rate %g", self.best_epoch, self.schedule.lr)
        self._restore_best()

    def _restore_best(self):
        self.model.load_state_dict(self.best)
        self.steps.reset()

    # ------------------------------------------------------------------------------------------- epochs

    def _end_epoch(self):
        """Judge the model, log a line, let the schedule decide, save everything.

        Epoch 0 is the model that training starts from: it is the best so far.
        """
        began = time.monotonic()
        line, figure = self._judge()
        verdict = self._decide(figure)
        line.update(verdict=verdict, best_epoch=self.best_epoch, train_s=self.seconds,
                    dev_s=time.monotonic() - began)
        self._log(line)
        self.history.append(line)
        self.sums = {}
        self._board(line)
        self._publish()
        if self.epoch:
            gone_back = verdict in ("back", "stop")
            self.folder.write_checkpoint(self.epoch, self.best if gone_back else self.model.state_dict(),
                                         self.options.run.keep_checkpoints)
        self._save()

    def _judge(self):
        """(figures of this epoch by name, the one that --best names)."""
        line = {"epoch": self.epoch, "batches": self.batch, "lr": self.schedule.lr}
        line.update({f"train_{name}": total / number for name, (total, number) in sorted(self.sums.items())})
        line.update(self.judge.figures(self.model, self.objective))
        figure = line[FIGURES[self.options.optimizer.best]]
        if self.best is None and not math.isfinite(figure):
            raise VoxarkError("the model's loss is not finite before it is trained: look at the features' "
                              "values")
        return line, figure

    def _decide(self, figure):
        """Let the schedule judge a figure: keep the model as the best, or go back to that; its verdict."""
        verdict = self.schedule.step(figure)
        if verdict == "best":
            self.best_epoch, self.best = self.epoch, self._snapshot()
        elif verdict in ("back", "stop"):
            self._restore_best()
        return verdict

    def _snapshot(self):
        """A copy of the parameters, with scores calibrated on the development trials if that is asked for."""
        scorer = copy.deepcopy(self.model.scorer.state_dict())
        if self.options.run.calibrate:
            self.judge.calibrate(self.model.scorer)
        found = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.scorer.load_state_dict(scorer)
        return found

    def _log(self, line):
        losses = ", ".join(f"{name} {value:.4f}" for name, value in line.items()
                           if name.startswith(("train_", "dev_")) and not name.endswith("_s"))
        then = {
            "best": "the best so far",
            "wait": "no better",
            "back": f"back to epoch {self.best_epoch}, learning rate {self.schedule.lr:g}",
            "stop": f"back to epoch {self.best_epoch}, the end",
        }[line["verdict"]]
        logger.info("epoch %d: %s; EER %.2f %%, minDCF %.3f, Cllr %.3f (min %.3f); %s", line["epoch"], losses,
                    100 * line["eer"], line["min_dcf"], line["cllr"], line["min_cllr"], then)

    # ------------------------------------------------------------------------------------------- the state

    def _save_in_time(self):
        """Save within an epoch when it is time to; the main worker alone writes."""
        run = self.options.run
        due = self.batch - self._saved_batch >= run.save_interval
        if due or time.monotonic() - self._saved_at > 60.0 * run.save_minutes:
            self._save()

    def _save(self):
        if self.folder.writes:
            self.folder.save_state(self.state_dict())
        self._saved_at, self._saved_batch = time.monotonic(), self.batch

    def _publish(self):
        """Write what follows from the state: the best model and the lines of the epochs."""
        if self.folder.writes:
            self.folder.write_model(self.model, self.best, self.best_epoch)
            self.folder.write_history(self.history)

    def state_dict(self):
        """All that the rest of the run depends on, for save_state."""
        return {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "steps": self.steps.state_dict(),
            "schedule": self.schedule.state_dict(),
            "source": self.source.state_dict(),
            "objective": vars(self.objective.empty),
            "best": self.best,
            **{name: getattr(self, name) for name in _KEPT},
        }

    def load_state_dict(self, state):
        """Take over what state_dict gave."""
        self.model.load_state_dict(state["model"])
        self.steps.load_state_dict(state["steps"])
        self.schedule.load_state_dict(state["schedule"])
        self.source.load_state_dict(state["source"])
        vars(self.objective.empty).update(state["objective"])
        for name in _KEPT:
            setattr(self, name, state[name])
        if state["best"] is not None:
            self.best = {name: value.to(self.workers.device) for name, value in state["best"].items()}
        self._saved_batch = self.batch
