"""The kinds of models that a folder may hold, told apart by "format" in its config.json."""

import importlib

from voxark.errors import VoxarkError

_CLASSES = {"voxark-e2e": ("voxark.e2e.model", "E2eModel"), "voxark-fhvae": ("voxark.fhvae.model", "FhvaeModel")}


def model_class(config):
    """The class of models of a config; VoxarkError where it is none of ours."""
    name = config.get("format") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in _CLASSES:
        raise VoxarkError("this is no configuration of a model of voxark")
    module, name = _CLASSES[name]
    return getattr(importlib.import_module(module), name)


class AnyModel:
    """Stands for the class of models of whatever kind in :mod:`voxark.nnet.model_folder`."""

    def __new__(cls, config):
        """The model that a config describes."""
        return model_class(config)(config)

    @staticmethod
    def check_config(config):
        """A copy of a config; VoxarkError where it is none of ours."""
        return model_class(config).check_config(config)
