"""Correlations between trials that share speakers or utterances: components, checks, file, options.

The value x (loss or score) of a trial of the utterances a and b, of the speakers A and B, is taken as a sum
of independent effects,

    target (A = B):   x = mean + U_A + V_a + V_b + e,
    nontarget:        x = mean + U_A + U_B + V_a + V_b + P_AB + Q_aB + Q_bA + e.

Their variances u, v, p, q, e, as fractions of the variance of x, give the correlation of every two trials by
what they share, and every choice that is not negative is valid for any number of speakers and utterances:

    target      c1   one utterance shared (and the speaker)      u + v
                c2   the speaker, no utterance                   u
    nontarget   c_us both speakers and one utterance             2u + v + p + q
                c_ss both speakers, no utterance                 2u + p
                c_u  one speaker with the utterance              u + v
                c_s  one speaker, other utterances               u

The file is JSON; "target" and "nontarget" hold the components, and more that is for people:

    {"format": "voxark trial correlations", "version": 1, "on": "loss",
     "target": {"components": {"u": 0.2, "v": 0.3, "e": 0.2}, ...}, "nontarget": {...}}
"""

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

from voxark.errors import VoxarkError
from voxark.io.streams import open_input, open_text_output
from voxark.options import option

FORMAT, VERSION = "voxark trial correlations", 1
_LONGEST = 1 << 24  # bytes
_TOLERANCE = 1e-9  # what rounding may take from a component


class TargetComponents(NamedTuple):
    """Fractions of the variance of a target trial, u + 2v + e = 1: speaker, utterance, the trial alone."""

    u: float
    v: float
    e: float

    @classmethod
    def of_correlations(cls, c1, c2):
        """Of the correlations c1, c2; VoxarkError names the condition that invalid ones break."""
        return _checked(cls, (c2, c1 - c2, 1.0 - 2.0 * c1 + c2), f"c1={c1:g}, c2={c2:g}", _TARGET_CONDITIONS)

    @classmethod
    def of_chain(cls, c):
        """Of the chain (c, c^2), which is valid for 0 <= c <= 1 [tutorial]."""
        if not 0.0 <= c <= 1.0:
            raise VoxarkError(f"c={c:g}: the chain (c, c^2) of target trials needs 0 <= c <= 1")
        return cls.of_correlations(c, c * c)

    @classmethod
    def of_components(cls, u, v):
        """Of u and v; the trial alone has the rest."""
        return _checked(cls, (u, v, 1.0 - u - 2.0 * v), f"u={u:g}, v={v:g}", _component_conditions("u + 2v"))

    @property
    def correlations(self):
        """{"c1": ..., "c2": ...}."""
        return {"c1": self.u + self.v, "c2": self.u}


class NontargetComponents(NamedTuple):
    """Fractions of the variance of a nontarget trial, 2u + 2v + p + 2q + e = 1.

    u: each speaker, v: each utterance, p: pair of speakers, q: each utterance with the other speaker, e: the
    trial alone.
    """

    u: float
    v: float
    p: float
    q: float
    e: float

    @classmethod
    def of_correlations(cls, c_us, c_ss, c_u, c_s):
        """Of the four correlations; VoxarkError names the condition that invalid ones break."""
        values = (c_s, c_u - c_s, c_ss - 2.0 * c_s, c_us - c_u - c_ss + c_s, 1.0 - 2.0 * c_us + c_ss)
        shown = f"c_us={c_us:g}, c_ss={c_ss:g}, c_u={c_u:g}, c_s={c_s:g}"
        return _checked(cls, values, shown, _NONTARGET_CONDITIONS)

    @classmethod
    def of_chain(cls, c):
        """Of the chain (c, c^2, c^2, c^3), which is valid for 0 <= c <= 1/2."""
        if not 0.0 <= c <= 0.5:
            raise VoxarkError(
                f"c={c:g}: the chain (c, c^2, c^2, c^3) of nontarget trials needs 0 <= c <= 0.5, beyond "
                "which c_ss < 2 c_s and the covariance is indefinite; give their components or correlations"
            )
        return cls.of_correlations(c, c * c, c * c, c**3)

    @classmethod
    def of_components(cls, u, v, p, q):
        """Of u, v, p, q; the trial alone has the rest."""
        values = (u, v, p, q, 1.0 - 2.0 * u - 2.0 * v - p - 2.0 * q)
        shown = f"u={u:g}, v={v:g}, p={p:g}, q={q:g}"
        return _checked(cls, values, shown, _component_conditions("2u + 2v + p + 2q"))

    @property
    def correlations(self):
        """{"c_us": ..., "c_ss": ..., "c_u": ..., "c_s": ...}."""
        u, v, p, q, _ = self
        return {"c_us": 2 * u + v + p + q, "c_ss": 2 * u + p, "c_u": u + v, "c_s": u}


_TARGET_CONDITIONS = {"u": "c2 >= 0", "v": "c1 >= c2", "e": "1 - 2 c1 + c2 >= 0"}
_NONTARGET_CONDITIONS = {
    "u": "c_s >= 0",
    "v": "c_u >= c_s",
    "p": "c_ss >= 2 c_s",
    "q": "c_us + c_s >= c_u + c_ss",
    "e": "1 - 2 c_us + c_ss >= 0",
}


def _component_conditions(total):
    return {**{letter: f"{letter} >= 0" for letter in "uvpq"}, "e": f"{total} <= 1"}


def _checked(cls, values, shown, conditions):
    """The components, those a hair below 0 set to 0; VoxarkError for the first that is negative."""
    for letter, value in zip(cls._fields, values):
        if not (math.isfinite(value) and value >= -_TOLERANCE):
            kind = "target" if cls is TargetComponents else "nontarget"
            raise VoxarkError(
                f"{kind} trials cannot be correlated by {shown}: {conditions[letter]} must hold, else the "
                "covariance of some list of trials is not positive semidefinite"
            )
    return cls(*(max(float(value), 0.0) for value in values))


class Correlations(NamedTuple):
    """Components of both classes; None for a class that is not known."""

    target: TargetComponents | None
    nontarget: NontargetComponents | None

    @classmethod
    def of_chain(cls, c):
        """The chains (c, c^2) and (c, c^2, c^2, c^3)."""
        return cls(TargetComponents.of_chain(c), NontargetComponents.of_chain(c))


# ------------------------------------------------------------------------------------------------------- file


def write_correlations(wxfilename, content):
    """Write {"on": ..., "target": {...}, "nontarget": {...}}; a class may be None."""
    with open_text_output(wxfilename) as out:
        content = {"format": FORMAT, "version": VERSION, **content}
        out.write(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_correlations(rxfilename):
    """Read the Correlations of a file; VoxarkError says what is wrong with it."""
    with open_input(rxfilename) as source:
        text = source.read_some(_LONGEST)
        while more := source.read_some(_LONGEST - len(text)) if len(text) < _LONGEST else b"":
            text += more
        name = source.name
    try:
        content = json.loads(text)
    except ValueError as error:
        raise VoxarkError(f"{name}: is no file of trial correlations: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise VoxarkError(f'{name}: is no file of trial correlations: "format": "{FORMAT}" is missing')
    if content.get("version") != VERSION:
        raise VoxarkError(f"{name}: version {content.get('version')} is not known here (only {VERSION})")
    kinds = (("target", TargetComponents), ("nontarget", NontargetComponents))
    return Correlations(*(_read_class(name, content.get(key), key, cls) for key, cls in kinds))


def _read_class(name, entry, key, cls):
    if entry is None:
        return None
    try:
        values = {letter: float(entry["components"][letter]) for letter in cls._fields}
    except (KeyError, TypeError, ValueError):
        wanted = ", ".join(cls._fields)
        raise VoxarkError(f'{name}: "{key}" needs "components" with the numbers {wanted}') from None
    found = cls.of_components(*(values[letter] for letter in cls._fields[:-1]))
    if abs(found.e - values["e"]) > 1e-6:
        raise VoxarkError(
            f"{name}: the components of {key} trials leave e = {found.e:g}, not {values['e']:g}"
        )
    return found


# ---------------------------------------------------------------------------------------------------- options


@dataclass
class CorrelationOptions:
    """How trials of one class are correlated; what is said of a class wins over what is said of both."""

    correlations: str = option("", "File that estimate-trial-correlations wrote")
    c: float = option(
        -1.0,
        "Correlation of two trials that share an utterance and the speakers; the others are its powers: "
        "c^2 for target trials of one speaker, c^2, c^2, c^3 for nontargets (at most 0.5 for these)",
    )
    target_correlations: str = option(
        "", "Correlations c1,c2 of target trials that share an utterance, the speaker"
    )
    nontarget_correlations: str = option(
        "",
        "Correlations c_us,c_ss,c_u,c_s of nontarget trials that share both speakers and an utterance, both "
        "speakers, an utterance, a speaker",
    )
    target_components: str = option("", "Fractions u,v of the variance of target trials: speaker, utterance")
    nontarget_components: str = option(
        "",
        "Fractions u,v,p,q of the variance of nontarget trials: a speaker, an utterance, the pair of "
        "speakers, an utterance with a speaker",
    )

    def read(self):
        """The Correlations that the options give; VoxarkError where they contradict each other."""
        if self.correlations and self.c != -1.0:
            raise VoxarkError("give either --correlations=FILE or --c, not both")
        both = read_correlations(self.correlations) if self.correlations else Correlations(None, None)
        return Correlations(
            self._of_class("target", TargetComponents, both.target),
            self._of_class("nontarget", NontargetComponents, both.nontarget),
        )

    def _of_class(self, kind, cls, default):
        correlations = getattr(self, f"{kind}_correlations")
        components = getattr(self, f"{kind}_components")
        if correlations and components:
            raise VoxarkError(f"give either --{kind}-correlations or --{kind}-components, not both")
        number = len(cls._fields) - 1
        if correlations:
            return cls.of_correlations(*_numbers(f"--{kind}-correlations", correlations, number))
        if components:
            return cls.of_components(*_numbers(f"--{kind}-components", components, number))
        return cls.of_chain(self.c) if self.c != -1.0 else default


def _numbers(name, text, number):
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != number:
        raise VoxarkError(f"{name}={text}: {number} numbers with commas between them are expected")
    return values
