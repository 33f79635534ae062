"""Operating points of detection costs: a prior and two costs, alone or in the combinations of evaluations.

A normalised cost divides by the cost of the better of accepting everything and rejecting everything. Presets
name what evaluation plans prescribe; where a plan averages over several points, so does
``Roc.mean_min_dcf(points)``. An evaluation's further averaging, over partitions of its trials, is not in it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option


def check_cost(p_target, c_miss, c_fa):
    """Raise VoxarkError unless 0 < p_target < 1 and both costs are positive and finite."""
    if not 0.0 < p_target < 1.0:
        raise VoxarkError(f"--p-target={p_target:g}: a probability between 0 and 1 is expected")
    for name, cost in (("c-miss", c_miss), ("c-fa", c_fa)):
        if not (cost > 0.0 and np.isfinite(cost)):
            raise VoxarkError(f"--{name}={cost:g}: a positive cost is expected")


class OperatingPoint(NamedTuple):
    """A prior of targets and the costs of both errors; ``name`` is for people, as in ``p=0.01``."""

    name: str
    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    @property
    def threshold(self):
        """The Bayes threshold of log-likelihood ratios: ln(C_fa (1-P) / (C_miss P))."""
        return float(np.log(self.c_fa * (1.0 - self.p_target) / (self.c_miss * self.p_target)))

    @property
    def effective_prior(self):
        """The prior that asks for the same decisions at equal costs: C_miss P / (C_miss P + C_fa (1-P))."""
        miss, false_alarm = self.c_miss * self.p_target, self.c_fa * (1.0 - self.p_target)
        return miss / (miss + false_alarm)

    @property
    def cost(self):
        """(p_target, c_miss, c_fa), what the methods of Roc take."""
        return self.p_target, self.c_miss, self.c_fa


def point(p_target, c_miss=1.0, c_fa=1.0):
    """A checked OperatingPoint that is named by its numbers; costs of 1 go without saying."""
    check_cost(p_target, c_miss, c_fa)
    name = f"p={p_target:g}"
    if (c_miss, c_fa) != (1.0, 1.0):
        name += f",c_miss={c_miss:g},c_fa={c_fa:g}"
    return OperatingPoint(name, float(p_target), float(c_miss), float(c_fa))


PRESETS = {
    "sre08": (point(0.01, 10.0, 1.0),),
    "sre10": (point(0.001),),
    "sre12": (point(0.01), point(0.001)),
    "sre16": (point(0.01), point(0.005)),
    "sre18-cmn2": (point(0.01), point(0.005)),
    "sre18-vast": (point(0.05),),
    "sre19-cts": (point(0.01), point(0.005)),
    "sre19-av": (point(0.05),),
    "voxceleb": (point(0.01), point(0.05)),
    "voxsrc": (point(0.05),),
}

# The plans of these evaluations average the normalised costs of their points into one figure.
AVERAGED = frozenset({"sre12", "sre16", "sre18-cmn2", "sre19-cts"})


@dataclass
class OperatingPointOptions:
    """The operating points of a program, as one gives them on its command line."""

    p_target: str = option("0.01", "Priors of a target for the detection costs, as in 0.01,0.05")
    c_miss: str = option("1", "Costs of a miss: one for all priors, or one each")
    c_fa: str = option("1", "Costs of a false alarm: one for all priors, or one each")
    preset: str = option("", f"Operating points of an evaluation, in place of these: {', '.join(PRESETS)}")

    def points(self):
        """The list of OperatingPoint."""
        return operating_points(self.p_target, self.c_miss, self.c_fa, self.preset)

    @property
    def averaged(self):
        """Whether the preset's evaluation averages the costs of its points."""
        return self.preset in AVERAGED


def operating_points(p_target="0.01", c_miss="1", c_fa="1", preset=""):
    """The OperatingPoints of lists of numbers with commas between them, or those of a preset.

    Lists have equal lengths, or the length 1, which stands for all. Raises VoxarkError for a bad list.
    """
    if preset:
        if preset not in PRESETS:
            raise VoxarkError(f"--preset={preset}: unknown; there are {', '.join(PRESETS)}")
        return list(PRESETS[preset])
    lists = {
        "p-target": _numbers("p-target", p_target),
        "c-miss": _numbers("c-miss", c_miss),
        "c-fa": _numbers("c-fa", c_fa),
    }
    number = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, number):
            raise VoxarkError(
                f"--{name}: has {len(values)} values where another list has {number}; give 1 or {number}"
            )
    return [point(*costs) for costs in zip(*(v * number if len(v) == 1 else v for v in lists.values()))]


def _numbers(name, text):
    """The numbers of a list such as 0.01,0.05; a number alone is a list of one."""
    try:
        return [float(item) for item in str(text).split(",")]
    except ValueError:
        raise VoxarkError(f"--{name}={text}: numbers with commas between them are expected") from None
