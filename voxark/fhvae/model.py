"""The model of an FHVAE: its networks, the normalisation of features, and the config that it is built from.

Its folder is described in :mod:`voxark.nnet.model_folder`.
"""

import copy
import dataclasses
import math
from typing import NamedTuple

import torch
from torch import nn

from voxark.errors import VoxarkError
from voxark.fhvae.networks import DECODERS, ENCODERS
from voxark.fhvae.objective import Bound, Gaussian, segment_bound
from voxark.fhvae.options import MAX_SIZE, ModelOptions
from voxark.nnet import model_folder

FORMAT, VERSION = "voxark-fhvae", 1


class Pass(NamedTuple):
    """What one pass through the networks gives: the terms of the bound, and the posteriors."""

    bound: Bound
    q1: Gaussian
    q2: Gaussian


class FhvaeModel(nn.Module):
    """``z2_encoder``, ``z1_encoder``, ``decoder``, and ``config``, from which they are built.

    config: {"format", "version", "input_dim", "options": the fields of ModelOptions} and whatever a training
    adds. ``feat_mean`` and ``feat_std`` (F,) normalise features, which come as they are in archives. With
    ``half_products`` the matrix products of the networks take bfloat16 and sum in float32.
    """

    def __init__(self, config):
        super().__init__()
        self.config = self.check_config(config)
        self.options = options = ModelOptions(**self.config["options"])
        self.input_dim = dim = self.config["input_dim"]
        self.z2_encoder = ENCODERS[options.arch](options, dim, 0, options.z2_dim)
        self.z1_encoder = ENCODERS[options.arch](options, dim, options.z2_dim, options.z1_dim)
        self.decoder = DECODERS[options.arch](options, options.z1_dim + options.z2_dim, dim)
        self.register_buffer("feat_mean", torch.zeros(dim))
        self.register_buffer("feat_std", torch.ones(dim))
        self.half_products = False

    segment_length = property(lambda self: self.options.segment_length)
    z1_dim = property(lambda self: self.options.z1_dim)
    z2_dim = property(lambda self: self.options.z2_dim)
    pz2_var = property(lambda self: self.options.pz2_var)
    pmu2_var = property(lambda self: self.options.pmu2_var)

    @staticmethod
    def check_config(config):
        """A copy of a config; VoxarkError where it is none of ours."""
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise VoxarkError("this is no configuration of an FHVAE")
        if config.get("version") != VERSION:
            raise VoxarkError(f"the model's version is {config.get('version')}, this program reads {VERSION}")
        if type(config.get("input_dim")) is not int or not 0 < config["input_dim"] <= MAX_SIZE:
            raise VoxarkError(f"the configuration's input_dim is {config.get('input_dim')!r}")
        options = config.get("options")
        fields = {field.name: type(field.default) for field in dataclasses.fields(ModelOptions)}
        if not isinstance(options, dict) or set(options) != set(fields):
            raise VoxarkError("the configuration's options are not those of an FHVAE")
        for name, kind in fields.items():
            value = options[name]  # true is no number here, though Python takes it for one
            if type(value) not in ((int, float) if kind is float else (kind,)) or (
                    kind is float and not math.isfinite(value)):
                raise VoxarkError(f"the configuration's {name} is {value!r}")
        if options["arch"] not in ENCODERS:
            raise VoxarkError(f"the configuration's arch is {options['arch']!r}: expected lstm or fc")
        if options["normalize"] not in ("global", "none"):
            raise VoxarkError(f"the configuration's normalize is {options['normalize']!r}: expected global or none")
        ModelOptions(**options).check()
        return copy.deepcopy(config)

    def _networks(self, network, *inputs):
        with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16, enabled=self.half_products):
            return network(*inputs)

    def normalise(self, feats):
        """Features (...,F) less the training frames' mean, over their deviation."""
        return (feats - self.feat_mean) / self.feat_std

    def encode_z2(self, x):
        """q(z2 | x): Gaussian (B,D2) of normalised segments x (L,B,F)."""
        return self._networks(self.z2_encoder, x)

    def encode_z1(self, x, z2):
        """q(z1 | x, z2): Gaussian (B,D1)."""
        return self._networks(self.z1_encoder, x, z2)

    def decode(self, z1, z2):
        """p(x | z1, z2): Gaussian (L,B,F) of normalised features."""
        return self._networks(self.decoder, torch.cat([z1, z2], 1))

    def forward(self, x, mu2, num_segments, noise=None):
        """A Pass over normalised segments x (L,B,F) of sequences with mu2 (B,D2) and num_segments (B,).

        ``noise``: (of z1 (B,D1), of z2 (B,D2)), standard normal; None takes the means.
        """
        q2 = self.encode_z2(x)
        z2 = q2.mean if noise is None else q2.sample(noise[1])
        q1 = self.encode_z1(x, z2)
        z1 = q1.mean if noise is None else q1.sample(noise[0])
        px = self.decode(z1, z2)
        return Pass(segment_bound(x, px, q1, q2, mu2, num_segments, self.options), q1, q2)

    def parameters_by_part(self):
        """Number of parameters of each network that are trained: a dict."""
        parts = {"z2_encoder": self.z2_encoder, "z1_encoder": self.z1_encoder, "decoder": self.decoder}
        return {name: sum(p.numel() for p in part.parameters() if p.requires_grad)
                for name, part in parts.items()}


def model_config(options, input_dim, **more):
    """The config of a model of ModelOptions on features of dimension ``input_dim``."""
    return {"format": FORMAT, "version": VERSION, "input_dim": input_dim,
            "options": dataclasses.asdict(options), **more}


def load_model(folder, parameters="final.pt"):
    """The FhvaeModel of a folder: see :func:`voxark.nnet.model_folder.load_model`."""
    return model_folder.load_model(folder, FhvaeModel, parameters)


def describe(model):
    """A dict: options, dimensions, number of parameters by part, the epoch that the parameters are of."""
    parts = model.parameters_by_part()
    return {"epoch": model.config.get("epoch"), "input_dim": model.input_dim, **dataclasses.asdict(model.options),
            **{f"{name}_parameters": number for name, number in parts.items()}, "parameters": sum(parts.values())}
