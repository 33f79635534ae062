"""The model file of calibration and fusion: JSON that says what it is, read strictly and written whole.

    {"format": "voxark calibration", "version": 1, "kind": "logistic",
     "systems": ["plda", "cosine"],
     "quality": [{"name": "utt2dur", "per": "utterance", "function": "log", "columns": 2}],
     "clip": 0, "weights": [0.61, 9.8, 0.1, 0.1], "offset": -6.1, "training": {...}}

``weights`` are of the systems, then of the quality measures, enrolment before test where one is per
utterance. Kind "pav" has ``scores`` and ``llrs`` in place of weights and offset. ``clip`` limits the size of
scores, 0 does not. ``training`` (counts, priors, figures before and after) is for people.
"""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.streams import open_input, open_text_output
from voxark.calibration.pav import PavMap

FORMAT, VERSION = "voxark calibration", 1
_LONGEST = 1 << 28  # bytes: no model is as long, and a wrong file may be


@dataclass(frozen=True)
class QualityTerm:
    """A quality measure of a model: ``name`` of its table, ``per`` utterance or trial, identity or log.

    ``columns``: 2 (enrolment, test) where it is per utterance, as many as its list has where per trial.
    """

    name: str
    per: str
    function: str
    columns: int


@dataclass
class CalibrationModel:
    """What maps scores and quality measures to log-likelihood ratios; see the module for the fields."""

    kind: str
    systems: list
    quality: list = field(default_factory=list)
    clip: float = 0.0
    weights: np.ndarray | None = None
    offset: float = 0.0
    pav: PavMap | None = None
    training: dict = field(default_factory=dict)

    def apply(self, columns):
        """LLRs (N,) of columns (N,S+Q): scores of the systems, already clipped, then quality measures."""
        if self.kind == "pav":
            return self.pav.apply(columns[:, 0])
        return columns @ self.weights + self.offset


def num_quality_columns(terms):
    """How many columns the QualityTerms take."""
    return sum(term.columns for term in terms)


# ---------------------------------------------------------------------------------------------------- writing


def write_calibration(wxfilename, model):
    """Write a CalibrationModel; numbers are read back bit for bit."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": model.kind,
        "systems": model.systems,
        "quality": [asdict(term) for term in model.quality],
        "clip": float(model.clip),
    }
    if model.kind == "pav":
        content |= {"scores": model.pav.scores.tolist(), "llrs": model.pav.llrs.tolist()}
    else:
        content |= {"weights": model.weights.tolist(), "offset": float(model.offset)}
    content["training"] = model.training
    with open_text_output(wxfilename) as out:
        out.write(json.dumps(content, indent=1, allow_nan=False) + "\n")


# ---------------------------------------------------------------------------------------------------- reading


def read_calibration(rxfilename):
    """Read a CalibrationModel; VoxarkError says what is wrong with a file that is not a sound one."""
    with open_input(rxfilename) as source:
        text = source.read_some(_LONGEST)
        name = source.name
    try:
        content = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise VoxarkError(
            f"{name}: not a calibration model of calibrate-scores or fuse-scores: {error}"
        ) from None
    try:
        return _model(content)
    except VoxarkError as error:
        raise VoxarkError(f"{name}: not a sound calibration model: {error}") from None


def _distinct(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _no_number(text):
    raise ValueError(f"{text} is not a finite number")


def _require(condition, text):
    if not condition:
        raise VoxarkError(text)


def _model(content):
    """The CalibrationModel of what the JSON holds."""
    _require(isinstance(content, dict) and content.get("format") == FORMAT, f'no "format": "{FORMAT}"')
    version = content.get("version")
    _require(
        version == VERSION and version is not True,
        f"version {version!r}, this program knows version {VERSION}",
    )
    kind = content.get("kind")
    _require(kind in ("logistic", "pav"), f"unknown kind {kind!r}")
    own = {"scores", "llrs"} if kind == "pav" else {"weights", "offset"}
    wanted = {"format", "version", "kind", "systems", "quality", "clip", "training"} | own
    for text, names in (
        ("it lacks", wanted - set(content)),
        ("it has the unknown entries", set(content) - wanted),
    ):
        _require(not names, f"{text} {', '.join(sorted(names))}")
    systems, clip = content["systems"], _numbers([content["clip"]], "clip")[0]
    _require(
        isinstance(systems, list) and systems and all(isinstance(system, str) for system in systems),
        "systems must be a list of names",
    )
    _require(clip >= 0, "clip is negative")
    _require(isinstance(content["training"], dict), "training must be an object")
    model = CalibrationModel(
        kind, systems, _quality(content["quality"]), float(clip), training=content["training"]
    )
    if kind == "pav":
        model.pav = _pav(content, model)
        return model
    model.weights = _numbers(content["weights"], "weights")
    model.offset = float(_numbers([content["offset"]], "offset")[0])
    wanted = len(systems) + num_quality_columns(model.quality)
    _require(len(model.weights) == wanted, f"{len(model.weights)} weights, {wanted} are needed")
    return model


def _numbers(values, what):
    """A list of finite numbers as float64."""
    sound = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    _require(sound, f"{what} must be numbers")
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        numbers = np.array([np.inf])
    _require(np.isfinite(numbers).all(), f"{what} must be finite")
    return numbers


def _quality(terms):
    """The QualityTerms of a list of objects."""
    _require(isinstance(terms, list), "quality must be a list")
    for term in terms:
        sound = (
            isinstance(term, dict)
            and set(term) == {"name", "per", "function", "columns"}
            and isinstance(term["name"], str)
            and term["per"] in ("utterance", "trial")
            and term["function"] in ("identity", "log")
            and type(term["columns"]) is int
            and (term["columns"] == 2 if term["per"] == "utterance" else term["columns"] >= 1)
        )
        _require(sound, f"bad quality measure {term!r}")
    return [QualityTerm(**term) for term in terms]


def _pav(content, model):
    scores, llrs = _numbers(content["scores"], "scores"), _numbers(content["llrs"], "llrs")
    _require(len(model.systems) == 1 and not model.quality, "pav is of one system, without quality measures")
    _require(len(scores) == len(llrs) > 0, f"{len(scores)} scores, {len(llrs)} llrs")
    _require((np.diff(scores) > 0).all(), "scores must rise")
    _require((np.diff(llrs) >= 0).all(), "llrs must not fall")
    return PavMap(scores, llrs)
