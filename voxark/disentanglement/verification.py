"""Equal error rate of vectors of utterances by cosine."""

from typing import NamedTuple

import numpy as np

from voxark.backend.cosine import cosine_terms
from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.scoring.pairs import score_pairs


class Verification(NamedTuple):
    """``eer`` from 0 to 1 (convex hull), and the numbers of trials."""

    eer: float
    num_target: int
    num_nontarget: int


def cosine_eer(trials, vectors, allow_missing=False):
    """The Verification of a TrialList by ``vectors``, a VectorTable.

    Raises VoxarkError for a list without labels, and for a trial whose vector is missing, unless those are
    allowed and left out.
    """
    if trials.target is None:
        raise VoxarkError(f"{trials.name}: a third column target|nontarget is needed, the trials have none")
    rows = [vectors.rows_of(ids)[side] for ids, side in
            ((trials.enroll_ids, trials.enroll), (trials.test_ids, trials.test))]
    present = (rows[0] >= 0) & (rows[1] >= 0)
    if not present.all() and not allow_missing:
        first = int(np.argmin(present))
        number = len(present) - int(present.sum())
        raise VoxarkError(f"{trials.name}: {number} of {len(present)} trials have no vector of a side, the "
                          f"first is {trials.pair(first)!r} (see --allow-missing)")
    enroll, test, target = rows[0][present], rows[1][present], trials.target[present]
    scores = score_pairs(cosine_terms(vectors.x, vectors.x), enroll, test)
    try:
        eer, _ = Roc(scores[target], scores[~target]).eer()
    except VoxarkError as error:
        raise VoxarkError(f"{trials.name}: {error}") from None
    return Verification(float(eer), int(target.sum()), int((~target).sum()))
