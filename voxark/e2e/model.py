"""A model of end-to-end verification: extractor, classifier and scorer, and its folder.

Its folder is described in :mod:`voxark.nnet.model_folder`.
"""

import copy

from torch import nn

from voxark.e2e.architectures import arch_options
from voxark.e2e.extractors import build_extractor
from voxark.e2e.losses import IdentificationHead
from voxark.e2e.scorers import build_scorer
from voxark.errors import VoxarkError
from voxark.nnet import model_folder
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
        self.config = self.check_config(config)
        self.extractor = build_extractor(config["arch"], config["arch_options"])
        dim = self.extractor.embedding_dim
        self.head, self.scorer = None, None
        if config.get("head"):
            norm = config["arch_options"].get("norm", "frozen")
            self.head = _make(SegmentHead, "head", dim, **{"norm": norm, **config["head"]})
        if config.get("scorer"):
            self.scorer = _make(lambda dim, kind, **rest: build_scorer(kind, dim, **rest), "scorer", dim,
                                **config["scorer"])

    @staticmethod
    def check_config(config):
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


def load_model(folder, parameters="final.pt"):
    """The E2eModel of a folder: see :func:`voxark.nnet.model_folder.load_model`."""
    return model_folder.load_model(folder, E2eModel, parameters)
