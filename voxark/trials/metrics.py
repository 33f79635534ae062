"""Error rates and costs of detection scores: EER, DCF, Cllr and their minima, exact with ties.

    from voxark.trials.metrics import Roc
    roc = Roc(target_scores, nontarget_scores)
    roc.eer(), roc.min_dcf(p_target=0.01), roc.act_dcf(p_target=0.01), roc.cllr(), roc.min_cllr()

The measures are in measures.py, the counting of scores in memory in roc.py, of scores in a file in selection.py,
costs and presets of evaluations in operating_points.py.
"""

from voxark.trials.hull import lower_hull
from voxark.trials.measures import ErrorCounts, Hull, Measures, normalised_cost, prior_entropy
from voxark.trials.operating_points import (
    PRESETS,
    OperatingPoint,
    OperatingPointOptions,
    check_cost,
    operating_points,
)
from voxark.trials.roc import Roc

__all__ = [
    "PRESETS",
    "ErrorCounts",
    "Hull",
    "Measures",
    "OperatingPoint",
    "OperatingPointOptions",
    "Roc",
    "check_cost",
    "lower_hull",
    "normalised_cost",
    "operating_points",
    "prior_entropy",
]
