"""Options of a run of training, whatever is trained: saving, going on, where it runs."""

import dataclasses
import math
from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class RunOptions:
    """The run: saving, going on."""

    srand: int = option(0, "Seed of every random number")
    resume: bool = option(False, "Go on with the run in <model-dir>, or start if there is none")
    save_interval: int = option(200, "The state is saved every so many batches, and behind each epoch")
    save_minutes: float = option(10.0, "... and when so many minutes have gone by")
    keep_checkpoints: int = option(3, "Parameters of so many last epochs are kept in checkpoints/")
    tensorboard: bool = option(
        False, "Write TensorBoard files to <model-dir>/tensorboard (needs the package tensorboard)")
    device: str = option("cpu", "Where the networks run: cpu, cuda or cuda:N (with torchrun: of the worker)")
    num_threads: int = option(1, "Threads of the networks on the CPU (of each worker)")
    loader_threads: int = option(2, "Threads that read and prepare batches ahead")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if self.num_threads < 1 or self.loader_threads < 0:
            raise VoxarkError("--num-threads is at least 1, --loader-threads at least 0")
        if self.save_interval < 1 or not self.save_minutes > 0:
            raise VoxarkError("--save-interval is at least 1, --save-minutes above 0")
        if self.keep_checkpoints < 0:
            raise VoxarkError("--keep-checkpoints is at least 0")


def settings_of(groups):
    """One dict of all values of dataclasses by name: what a run must be resumed with.

    VoxarkError for numbers that are not finite.
    """
    settings = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise VoxarkError(f"--{name.replace('_', '-')}={value}: a finite number is expected")
    return settings
