"""Checkpoints: the state of a training in one file that appears whole or not at all, with all random states.

A file of torch.save that is read with weights_only=True: it holds tensors and plain values, and nothing in it
is executed. Bytes of tensors are checked by a checksum when they are read.
"""

import io
import logging
import pickle
import random
import zipfile

import numpy as np
import torch

from voxark.errors import VoxarkError
from voxark.io.outputs import Output

logger = logging.getLogger(__name__)

_FORMAT = "voxark-checkpoint"
_VERSION = 1
_PLAIN = (str, bytes, bool, int, float, type(None))


def save_state(path, state, with_random=True):
    """Write ``state`` (dict of tensors, numbers, strings, None, lists, tuples and dicts of them) to a file.

    The file replaces an older one when it is complete. With ``with_random`` the states of the random numbers
    of python, numpy and torch (CPU and GPUs) go along. VoxarkError for what a checkpoint cannot hold, and
    where the file cannot be written.
    """
    if not isinstance(state, dict):
        raise VoxarkError(f"{path}: a checkpoint is made of a dict, not of {type(state).__name__}")
    _check(state, "state")
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "state": state,
        "random": random_states() if with_random else None,
    }
    with Output(str(path)) as output:
        torch.save(content, _Writer(output))


def load_state(path, restore_random=True, device="cpu"):
    """Read what save_state wrote; tensors come to ``device``, random numbers go on as they would have then.

    With ``restore_random`` false, or a file without their states, random numbers are left alone.

    VoxarkError, one line, for a file that is absent, no checkpoint, damaged, or cut off.
    """
    try:
        with open(path, "rb") as stream:
            _check_sums(stream)
            stream.seek(0)
            content = torch.load(stream, map_location=device, weights_only=True)
    except OSError as error:
        raise VoxarkError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile, pickle and torch raise a dozen kinds for damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values, which is not loaded"
        raise VoxarkError(
            f"{path}: no checkpoint, or a damaged one ({reason}): use an earlier one, or train anew"
        ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or "state" not in content:
        raise VoxarkError(f"{path}: not a checkpoint of voxark (a file of other parameters?)")
    if content.get("version") != _VERSION:
        raise VoxarkError(
            f"{path}: a checkpoint of version {content.get('version')}, this program reads {_VERSION}"
        )
    if restore_random and content.get("random") is not None:
        set_random_states(content["random"])
    return content["state"]


class _Writer(io.RawIOBase):
    """What torch.save takes for a file: bytes go to an Output."""

    def __init__(self, output):
        super().__init__()
        self._output = output

    def writable(self):
        """True."""
        return True

    def write(self, data):
        """Write bytes; returns their number."""
        data = memoryview(data)
        self._output.write(data)
        return data.nbytes

    def flush(self):
        """Nothing: the Output is flushed at its end."""


def _check_sums(stream):
    """Read the file against its checksums, which torch itself does not; zipfile.BadZipFile if one differs."""
    with zipfile.ZipFile(stream) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise VoxarkError(f"checksum of {bad} differs")


def _check(value, where):
    """Raise VoxarkError naming the first part that could not be read back."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, (str, int)):
                raise VoxarkError(f"checkpoint: {where} has a key {key!r}: strings and integers are expected")
            _check(part, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, part in enumerate(value):
            _check(part, f"{where}[{i}]")
    elif not (isinstance(value, torch.Tensor) or type(value) in _PLAIN):
        raise VoxarkError(
            f"checkpoint: {where} is a {type(value).__name__}: make it a tensor or a plain value"
        )


# ------------------------------------------------------------------------------------------ random states


def random_states():
    """The states of the random numbers of python, numpy's global generator and torch, as plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (
            name,
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states):
    """Go on from what random_states gave; with another number of GPUs than then, theirs are left alone."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(states["cuda"]) != num_gpus:
        logger.info(
            "the checkpoint was written with %d GPUs, here are %d: their random numbers start anew",
            len(states["cuda"]),
            num_gpus,
        )
    elif num_gpus:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
