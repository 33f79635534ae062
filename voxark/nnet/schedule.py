"""When training goes on, goes back to the best parameters with a smaller step, or ends [tutorial]."""

import math

from voxark.errors import VoxarkError

_STATE = ("patience", "lr", "factor", "lr_min", "best", "num_waited", "num_back", "num_epochs", "finished")


class Schedule:
    """Decides after each epoch, from the development loss, what is next.

    An epoch that does not improve the best loss (a tie does not) is followed by up to ``patience`` more; if
    none of these improves it either, training goes back to the best parameters, with a fresh optimizer state
    and the learning rate times ``factor``. A loss that is not finite goes back at once. When the learning
    rate falls below ``lr_min`` (a 64th of the first by default), training ends. Before the first epoch the
    parameters at the start are the best there are.
    """

    def __init__(self, patience=2, lr=0.1, factor=0.5, lr_min=None):
        if patience < 0 or not lr > 0 or not 0 < factor < 1 or (lr_min is not None and lr_min < 0):
            raise VoxarkError(
                f"schedule with patience {patience}, learning rate {lr:g}, factor {factor:g}: expected "
                "at least 0, above 0, between 0 and 1"
            )
        self.patience, self.lr, self.factor = patience, lr, factor
        self.lr_min = lr / 64 if lr_min is None else lr_min
        self.best, self.num_waited, self.num_back, self.num_epochs = math.inf, 0, 0, 0
        self.finished = False

    def step(self, dev_loss):
        """Return what is next after an epoch with this development loss.

        "best": keep the parameters as the best; "wait": go on; "back": reload the best, reset the optimizer,
        continue with ``lr``; "stop": reload the best, the training is over.
        """
        if self.finished:
            raise VoxarkError("the schedule has ended: no epoch is expected")
        self.num_epochs += 1
        if math.isfinite(dev_loss):
            if dev_loss < self.best:
                self.best, self.num_waited = dev_loss, 0
                return "best"
            self.num_waited += 1
            if self.num_waited <= self.patience:
                return "wait"
        return self._back()

    def _back(self):
        self.num_waited = 0
        self.num_back += 1
        self.lr *= self.factor
        self.finished = self.lr < self.lr_min * (1 - 1e-9)  # a 64th reached by rounding is still a 64th
        return "stop" if self.finished else "back"

    def state_dict(self):
        """Everything, for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state):
        """Take over what state_dict gave; VoxarkError if something is missing or unknown."""
        if set(state) != set(_STATE):
            raise VoxarkError(
                f"this is no state of a schedule: it holds {', '.join(sorted(map(str, state)))}"
            )
        for name in _STATE:
            setattr(self, name, state[name])
