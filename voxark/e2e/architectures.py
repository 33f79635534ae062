"""The architectures of extractors and their options, without torch, so that programs can show their help.

Every architecture has a dataclass of its own, whose defaults are the published sizes. ExtractorOptions is
what command lines offer: the options that all share, where 0 means "as published".
"""

import dataclasses
import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Literal

from voxark.errors import VoxarkError
from voxark.options import option

Norm = Literal["frozen", "group", "batch"]


@dataclass
class XvectorOptions:
    """TDNN with statistics pooling (Snyder et al. 2018): five frame layers, and an affine one behind them."""

    input_dim: int = option(40, "Features per frame")
    channels: int = option(512, "Width of the first four frame layers")
    pooled_channels: int = option(0, "Width of the fifth (0: 1500 at 512 channels, in proportion)")
    embedding_dim: int = option(512, "Dimension of the embedding")
    norm: Norm = option("frozen", "Normalisation layers")
    frame_norm: bool = option(True, "Normalise behind every frame layer too, not only behind the pooling")
    pool_input: bool = option(False, "Pool the features themselves, too, beside the fifth layer")
    dropout: float = option(0.0, "Share of the pooled statistics that training leaves out at random")


@dataclass
class EcapaOptions:
    """ECAPA-TDNN (Desplanques et al. 2020): SE-Res2 blocks, attentive statistics pooling."""

    input_dim: int = option(80, "Features per frame")
    channels: int = option(512, "Width of the blocks (published: 512 and 1024)")
    pooled_channels: int = option(0, "Width where the blocks are joined (0: 1536, at most 3 x channels)")
    embedding_dim: int = option(192, "Dimension of the embedding")
    bottleneck: int = option(128, "Width of the bottlenecks of attention and squeeze-excitation")
    res2_scale: int = option(8, "Groups of channels in a Res2 convolution")
    norm: Norm = option("frozen", "Normalisation layers")


@dataclass
class ResnetOptions:
    """ResNet34 on features as a picture, 32 to 256 channels, statistics pooling over time."""

    input_dim: int = option(80, "Features per frame")
    channels: int = option(32, "Channels of the first stage; the others have 2, 4 and 8 times as many")
    embedding_dim: int = option(256, "Dimension of the embedding")
    blocks: str = option("3,4,6,3", "Basic blocks of the four stages")
    norm: Norm = option("frozen", "Normalisation layers")


@dataclass
class FixedTdOptions:
    """Text-dependent, fixed duration: all frames side by side into four affine/ReLU layers (no pooling)."""

    input_dim: int = option(40, "Features per frame")
    frames: int = option(80, "Frames of an utterance")
    channels: int = option(512, "Width of the four layers")
    embedding_dim: int = option(256, "Dimension of the embedding, which has length 1")
    short_input: Literal["error", "pad"] = option("error", "Utterances with fewer frames")
    long_input: Literal["error", "crop"] = option("error", "Utterances with more frames")
    norm: Norm = option("frozen", "Normalisation layers")


@dataclass
class WaveformOptions:
    """A learned filter bank on samples, under any of the other architectures."""

    sample_frequency: int = option(16000, "Samples per second")
    num_filters: int = option(40, "Number of filters")
    filters: Literal["gabor", "free"] = option("gabor", "What is learned of a filter: centre and width, or "
                                                        "all taps")
    backbone: str = option("xvector", "Architecture behind the filter bank")
    backbone_options: dict = dataclasses.field(default_factory=dict)  # options of that architecture


_ARCHITECTURES = {  # name -> (module, options, extractor)
    "xvector": ("voxark.e2e.xvector", XvectorOptions, "XvectorExtractor"),
    "ecapa": ("voxark.e2e.ecapa", EcapaOptions, "EcapaExtractor"),
    "resnet": ("voxark.e2e.resnet", ResnetOptions, "ResnetExtractor"),
    "fixed-td": ("voxark.e2e.fixed_td", FixedTdOptions, "FixedTdExtractor"),
    "waveform": ("voxark.e2e.waveform", WaveformOptions, "WaveformExtractor"),
}


_REGISTER_THEMSELVES = {"ivec-mimic": "voxark.e2e.ivec_mimic_options"}  # modules that call register


def register(arch, module, options, extractor):
    """Add an architecture: its name, the module (imported when built), dataclass of options, class's name.

    The class is an :class:`voxark.e2e.extractors.Extractor` made from an instance of the dataclass. A module
    of _REGISTER_THEMSELVES is imported when its architecture is asked for; it does without torch.
    """
    if arch in _ARCHITECTURES:
        raise AssertionError(f"architecture {arch} is registered twice")
    _ARCHITECTURES[arch] = (module, options, extractor)


def architectures():
    """Names of the architectures."""
    return list(_ARCHITECTURES)


def _entry(arch):
    module = _REGISTER_THEMSELVES.get(arch)
    if arch not in _ARCHITECTURES and module is not None and importlib.util.find_spec(module):
        importlib.import_module(module)
    if arch not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES | _REGISTER_THEMSELVES)
        raise VoxarkError(f"--arch={arch}: expected one of {known}")
    return _ARCHITECTURES[arch]


def extractor_class(arch):
    """The class of an architecture's extractor; imports its module, and torch with it."""
    module, _, name = _entry(arch)
    return getattr(importlib.import_module(module), name)


def arch_options(arch, values):
    """The options of an architecture from a dict (as in a model's configuration), or from their dataclass.

    What the dict does not have keeps its default. Raises VoxarkError for unknown names and wrong values.
    """
    kind = _entry(arch)[1]
    if isinstance(values, kind):
        values = dataclasses.asdict(values)
    if not isinstance(values, dict):
        raise VoxarkError(f"options of {arch}: expected a dict or {kind.__name__}, not "
                          f"{type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            raise VoxarkError(f"{arch} has no option {name} (it has {', '.join(fields)})")
        _check_value(arch, fields[name], value)
    return kind(**values)


def _check_value(arch, field, value):
    declared, choices = field.type, getattr(field.type, "__args__", ())
    if choices:
        good, wanted = value in choices, " or ".join(map(str, choices))
    elif declared is int:
        good = isinstance(value, int) and not isinstance(value, bool)
        good, wanted = good and value >= (0 if field.default == 0 else 1), "a number above 0"
    else:
        good, wanted = isinstance(value, declared), declared.__name__
    if not good:
        raise VoxarkError(f"{arch}: option {field.name} is {value!r}: expected {wanted}")


def block_counts(text):
    """The four numbers of ``--blocks``-like text "3,4,6,3". Raises VoxarkError."""
    if not re.fullmatch(r"[1-9][0-9]?(,[1-9][0-9]?){3}", text):
        raise VoxarkError(f"blocks of resnet: {text!r}: expected four numbers such as 3,4,6,3")
    return [int(number) for number in text.split(",")]


@dataclass
class ExtractorOptions:
    """The extractor network."""

    arch: str = option("xvector", "Architecture: xvector, ecapa, resnet, fixed-td, waveform or ivec-mimic")
    channels: int = option(0, "Channels of the layers (0: as published; xvector and ecapa 512, resnet 32)")
    embedding_dim: int = option(0, "Dimension of the embedding (0: as published; xvector 512, ecapa 192, "
                                   "resnet 256)")
    norm: Norm = option("frozen", "Normalisation: frozen (constants estimated once), group (each example by "
                                  "itself), batch (over the batch; not with gradients in bounded memory)")
    pool_input: bool = option(False, "xvector: pool mean and deviation of the features themselves, too")
    dropout: float = option(0.0, "xvector: share of the pooled statistics that training leaves out at random")
    fixed_frames: int = option(80, "Frames of an utterance, for fixed-td")
    short_input: Literal["error", "pad"] = option("error", "What fixed-td does with shorter utterances")
    long_input: Literal["error", "crop"] = option("error", "What fixed-td does with longer utterances")
    backbone: str = option("xvector", "Architecture behind the filters of waveform")
    num_filters: int = option(40, "Number of filters of waveform")
    filters: Literal["gabor", "free"] = option("gabor", "What waveform learns of a filter: centre and "
                                                        "width, or all taps")
    sample_frequency: int = option(16000, "Samples per second of the audio, for waveform")

    def resolve(self, input_dim):
        """The options of --arch as a dict, for features of ``input_dim`` (waveform ignores it)."""
        if self.arch == "waveform":
            return {"sample_frequency": self.sample_frequency, "num_filters": self.num_filters,
                    "filters": self.filters, "backbone": self.backbone,
                    "backbone_options": self._of(self.backbone, self.num_filters)}
        return self._of(self.arch, input_dim)

    def _of(self, arch, input_dim):
        values = {"input_dim": input_dim, "channels": self.channels or None, "norm": self.norm,
                  "embedding_dim": self.embedding_dim or None, "frames": self.fixed_frames,
                  "pool_input": self.pool_input, "dropout": self.dropout,
                  "short_input": self.short_input, "long_input": self.long_input}
        names = {field.name for field in dataclasses.fields(_entry(arch)[1])}
        return {name: value for name, value in values.items() if name in names and value is not None}
