"""Error rates and costs of detection scores: EER, DCF, Cllr and their minima, exact with ties.

    from voxark.metrics import Roc
    roc = Roc(target_scores, nontarget_scores)
    roc.eer(), roc.min_dcf(p_target=0.01), roc.act_dcf(p_target=0.01), roc.cllr(), roc.min_cllr()

The measures are in measures.py, the counting of scores in memory in roc.py, of scores in a file in selection.py,
costs and presets of evaluations in operating_points.py.
"""

from voxark.metrics.hull import lower_hull
from voxark.metrics.measures import ErrorCounts, Hull, Measures, normalised_cost, prior_entropy
from voxark.metrics.operating_points import (
    PRESETS,
    OperatingPoint,
    OperatingPointOptions,
    check_cost,
    operating_points,
)
from voxark.metrics.roc import Roc

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
