"""TensorBoard files of a run, where the package is there and they are asked for."""

import importlib.util

from voxark.errors import VoxarkError


def check_board(wanted):
    """Raise VoxarkError where TensorBoard files are wanted but the package is missing."""
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise VoxarkError("--tensorboard needs the package tensorboard: pip install tensorboard")


def open_board(folder, wanted, purge_from=0):
    """A function that takes the line of an epoch (a dict) and adds its numbers to the files of a RunFolder.

    ``purge_from``: epochs from there on that the files have already, of a process that was killed, are void.
    """
    if not wanted or not folder.writes:
        return lambda line: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder.file("tensorboard"), purge_step=purge_from)

    def add(line):
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != "epoch":
                writer.add_scalar(name, value, line["epoch"])
        writer.flush()

    return add
