"""The folder of a trained model: config.json, from which the networks are built, and final.pt, their parameters.

final.pt is a checkpoint (:mod:`voxark.nnet.checkpoint`); nothing in the folder is executed. A kind of model is
known by its class: ``model_class(config)`` builds the networks, ``model_class.check_config(config)`` gives a
copy of a config or raises VoxarkError.
"""

import json
import os
import re

import torch

from voxark.errors import VoxarkError
from voxark.io.outputs import Output
from voxark.nnet.checkpoint import load_state, save_state


def write_parameters(path, parameters):
    """Write a dict of tensors as a checkpoint without random states; they are moved to the CPU."""
    save_state(path, {name: value.detach().cpu() for name, value in parameters.items()}, with_random=False)


def read_parameters(path):
    """The dict of tensors in a file: final.pt, a checkpoint, or a training's state, whose "model" is one.

    Raises VoxarkError for a file that is damaged or holds something else.
    """
    value = load_state(path, restore_random=False)
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        value = value["model"]
    if not isinstance(value, dict) or not value or not all(
            isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in value.items()):
        raise VoxarkError(f"{path}: holds no parameters of a model")
    return value


def write_config(path, config):
    """Write a config as JSON."""
    with Output(path) as out:
        out.write((json.dumps(config, indent=2) + "\n").encode())


def read_config(path, model_class):
    """Read a config. Raises VoxarkError for a file that is missing, no JSON, or of something else."""
    try:
        with open(path, encoding="utf-8") as source:
            return model_class.check_config(json.load(source))
    except FileNotFoundError:
        raise VoxarkError(f"{path}: is not there: a model's folder has config.json and final.pt") from None
    except OSError as error:
        raise VoxarkError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise VoxarkError(f"{path}: is damaged: no JSON") from None
    except VoxarkError as error:
        raise VoxarkError(f"{path}: {error}") from None


def config_near(names, model_class):
    """The config of files of parameters: of the last one that has it beside it, or one folder up."""
    for name in reversed(names):
        beside = os.path.dirname(os.path.abspath(name))
        for folder in (beside, os.path.dirname(beside)):
            path = os.path.join(folder, "config.json")
            if os.path.exists(path):
                return read_config(path, model_class)
    raise VoxarkError(f"{names[-1]}: there is no config.json beside it or one folder up (name the output "
                      "*.pt to write parameters alone)")


def check_folder_name(folder):
    """VoxarkError for a name such as ark:x: arguments in another order would make odd folders."""
    if re.match(r"(ark|scp)[a-z,]*:", os.fspath(folder)):
        raise VoxarkError(f"{folder}: a folder for the model is expected here, not a table")


def save_model(folder, model):
    """Write config.json and final.pt into a folder, which is made if it is missing."""
    check_folder_name(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise VoxarkError(f"{folder}: cannot be made a model's folder: {error.strerror}") from None
    write_parameters(os.path.join(folder, "final.pt"), model.state_dict())
    write_config(os.path.join(folder, "config.json"), model.config)


def build_model(model_class, config, name):
    """The model that a config describes; VoxarkError, with ``name`` in front, where it cannot be made."""
    try:
        return model_class(config)
    except VoxarkError as error:
        raise VoxarkError(f"{name}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), "out of memory")
        raise VoxarkError(f"{name}: the networks described there cannot be made: {reason}") from None


def load_model(folder, model_class, parameters="final.pt"):
    """The model of a folder, on the CPU, in evaluation mode; ``parameters`` names a file of it.

    Raises VoxarkError, one line, where config and parameters are missing, damaged or of different models.
    """
    config = os.path.join(folder, "config.json")
    path = os.path.join(folder, parameters)
    settings = read_config(config, model_class)
    random_state = torch.random.get_rng_state()
    try:
        model = build_model(model_class, settings, config)
    finally:
        torch.random.set_rng_state(random_state)  # the random start is thrown away: nobody should notice it
    set_parameters(model, read_parameters(path), path)
    return model.eval()


def set_parameters(model, parameters, name):
    """Load a dict of tensors into a model; VoxarkError names the first that does not fit, and the file."""
    own = model.state_dict()
    for key in (*own, *parameters):
        if key not in parameters or key not in own:
            where = "is missing" if key not in parameters else "is none of this model's"
            raise VoxarkError(f"{name}: {key} {where}: the parameters are not those of config.json")
        if own[key].shape != parameters[key].shape:
            raise VoxarkError(f"{name}: {key} has shape {tuple(parameters[key].shape)}, but config.json asks "
                              f"for {tuple(own[key].shape)}")
    model.load_state_dict(parameters)


# ------------------------------------------------------------------------------------------------- averaging


class ParameterMean:
    """The mean of the parameters of several files, in double precision; whole numbers are the last file's."""

    def __init__(self):
        self.number, self._sums, self._last, self._first_name = 0, {}, {}, ""

    def add(self, parameters, name):
        """Count a dict of tensors, of the file ``name``; VoxarkError names a key that does not fit."""
        if not self.number:
            self._first_name = name
        for key in (*self._last, *parameters) if self.number else ():
            self._compare(key, self._last.get(key), parameters.get(key), name)
        for key, value in parameters.items():
            if value.is_floating_point():
                self._sums[key] = value.double() + self._sums.get(key, 0)
        self._last = parameters
        self.number += 1

    def _compare(self, key, one, other, name):
        for value, missing, present in ((one, self._first_name, name), (other, name, self._first_name)):
            if value is None:
                raise VoxarkError(f"{missing}: {key} is missing, which {present} has")
        if one.shape != other.shape:
            raise VoxarkError(f"{name}: {key} has shape {tuple(other.shape)}, but in {self._first_name} "
                              f"it has {tuple(one.shape)}")

    def result(self):
        """The dict of means, in the types of the last file."""
        return {key: (self._sums[key] / self.number).to(value.dtype) if key in self._sums else value
                for key, value in self._last.items()}
