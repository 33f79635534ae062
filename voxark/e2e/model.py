"""A model of end-to-end verification: extractor, classifier and scorer, and its folder.

The folder holds config.json, from which the networks are built, and final.pt, a checkpoint of their
parameters (:mod:`voxark.nnet.checkpoint`): nothing in it is executed.
"""

import copy
import json
import os
import re

import torch
from torch import nn

from voxark.e2e.architectures import arch_options
from voxark.e2e.extractors import build_extractor
from voxark.e2e.losses import IdentificationHead
from voxark.e2e.scorers import build_scorer
from voxark.errors import VoxarkError
from voxark.io.outputs import Output
from voxark.nnet.checkpoint import load_state, save_state
from voxark.nnet.layers import make_norm

FORMAT, VERSION = "voxark-e2e", 1
CMN = ("none", "utterance", "chunk", "sliding")


class SegmentHead(IdentificationHead):
    """The classifier of the training speakers, with the x-vector's second segment layer in front of it.

    ReLU, norm, an affine layer to ``hidden_dim``, ReLU, norm, then logits or cosines (N,S) of embeddings
    (N,D); without ``hidden_dim`` it sees the embeddings themselves.
    """

    def __init__(self, dim, num_speakers, kind="softmax", hidden_dim=0, norm="frozen"):
        super().__init__(hidden_dim or dim, num_speakers, kind)
        self.segment = None
        if hidden_dim:
            self.segment = nn.Sequential(
                nn.ReLU(), make_norm(norm, dim, axes=0, affine=False), nn.Linear(dim, hidden_dim),
                nn.ReLU(), make_norm(norm, hidden_dim, axes=0, affine=False))

    def forward(self, x):
        """What identification_loss takes, (N,S)."""
        return super().forward(x if self.segment is None else self.segment(x.to(self.weight.dtype)))


class E2eModel(nn.Module):
    """``extractor``, ``head`` (or None), ``scorer`` (or None), and ``config``, from which they are built.

    config: {"arch", "arch_options", "features": {"input_dim", "cmn"; "cmn_window" if that
    is sliding; "sample_frequency" for waveforms},
    "head": None or {"kind", "num_speakers", "hidden_dim"}, "scorer": None or {"kind", ...}} and whatever a
    training adds; JSON can hold all of it. Raises VoxarkError for a config that says nothing sensible.
    """

    def __init__(self, config):
        super().__init__()
        self.config = _checked(config)
        self.extractor = build_extractor(config["arch"], config["arch_options"])
        dim = self.extractor.embedding_dim
        self.head, self.scorer = None, None
        if config.get("head"):
            norm = config["arch_options"].get("norm", "frozen")
            self.head = _make(SegmentHead, "head", dim, **{"norm": norm, **config["head"]})
        if config.get("scorer"):
            self.scorer = _make(lambda dim, kind, **rest: build_scorer(kind, dim, **rest), "scorer", dim,
                                **config["scorer"])

    @property
    def cmn(self):
        """Where the features' mean is subtracted: none, utterance, chunk or sliding."""
        return self.config["features"]["cmn"]

    @property
    def cmn_window(self):
        """Frames of the sliding window."""
        return self.config["features"].get("cmn_window", 300)

    def forward(self, x):
        """Embeddings (B, d) of features (B, T, F)."""
        return self.extractor(x)

    def parameters_by_part(self):
        """Number of parameters of each part that there is: a dict."""
        parts = {"extractor": self.extractor, "head": self.head, "scorer": self.scorer}
        return {name: sum(p.numel() for p in part.parameters())
                for name, part in parts.items() if part is not None}


def _make(maker, what, *arguments, **options):
    try:
        return maker(*arguments, **options)
    except TypeError as error:
        raise VoxarkError(f"the configuration of the {what} is {options}: {error}") from None


def model_config(arch, options, cmn="none", head=None, scorer=None, cmn_window=300, **more):
    """The config of a model; ``options`` as build_extractor takes them, all written out in the result."""
    options = arch_options(arch, options)
    features = {"input_dim": getattr(options, "input_dim", 1), "cmn": cmn}
    if cmn == "sliding":
        features["cmn_window"] = cmn_window
    if hasattr(options, "sample_frequency"):
        features["sample_frequency"] = options.sample_frequency
    return {"format": FORMAT, "version": VERSION, "arch": arch, "arch_options": vars(options).copy(),
            "features": features, "head": head, "scorer": scorer, **more}


def _checked(config):
    """A copy of a config; VoxarkError where it is none of ours."""
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise VoxarkError("this is no configuration of an end-to-end model")
    if config.get("version") != VERSION:
        raise VoxarkError(f"the model's version is {config.get('version')}, this program reads {VERSION}")
    for name, kind in (("arch", str), ("arch_options", dict), ("features", dict)):
        if not isinstance(config.get(name), kind):
            raise VoxarkError(f"the configuration has no proper {name!r}")
    for name in ("head", "scorer"):
        if not isinstance(config.get(name), (dict, type(None))):
            raise VoxarkError(f"the configuration has no proper {name!r}")
    if config["features"].get("cmn") not in CMN:
        raise VoxarkError(f"the configuration's cmn is {config['features'].get('cmn')!r}: expected "
                          f"{', '.join(CMN)}")
    window = config["features"].get("cmn_window", 300)
    if not isinstance(window, int) or window < 1:
        raise VoxarkError(f"the configuration's cmn_window is {window!r}: expected a number of frames")
    return copy.deepcopy(config)


# ------------------------------------------------------------------------------------------------- the folder


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


def read_config(path):
    """Read a config. Raises VoxarkError for a file that is missing, no JSON, or of something else."""
    try:
        with open(path, encoding="utf-8") as source:
            return _checked(json.load(source))
    except FileNotFoundError:
        raise VoxarkError(f"{path}: is not there: a model's folder has config.json and final.pt") from None
    except OSError as error:
        raise VoxarkError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise VoxarkError(f"{path}: is damaged: no JSON") from None
    except VoxarkError as error:
        raise VoxarkError(f"{path}: {error}") from None


def config_near(names):
    """The config of files of parameters: of the last one that has it beside it, or one folder up."""
    for name in reversed(names):
        beside = os.path.dirname(os.path.abspath(name))
        for folder in (beside, os.path.dirname(beside)):
            path = os.path.join(folder, "config.json")
            if os.path.exists(path):
                return read_config(path)
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


def load_model(folder, parameters="final.pt"):
    """The E2eModel of a folder, on the CPU, in evaluation mode; ``parameters`` names a file of it.

    Raises VoxarkError, one line, where config and parameters are missing, damaged or of different models.
    """
    config = os.path.join(folder, "config.json")
    path = os.path.join(folder, parameters)
    settings = read_config(config)
    random_state = torch.random.get_rng_state()
    try:
        model = E2eModel(settings)
    except VoxarkError as error:
        raise VoxarkError(f"{config}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), "out of memory")
        raise VoxarkError(f"{config}: the networks that it describes cannot be made: {reason}") from None
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
