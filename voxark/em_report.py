"""The decomposition of EM, ln p(X|eta) = Q(q,eta) + H(q) + KL(q || p(Z|X,eta)) [lecture], logged and checked.

GMM, HMM and PLDA training compute the three terms independently of each other and of ln p: twice an
iteration, after the E-step (q is the posterior, so KL = 0) and after the M-step (the same q, new parameters:
H stays, Q rises, KL opens up, and ln p rises by both).
"""

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import NamedTuple

from voxark.errors import VoxarkError
from voxark.options import option

logger = logging.getLogger(__name__)

TOLERANCE = 1e-9  # of the identity, relative to |ln p|, and of negative KL, per frame or vector


class EmTerms(NamedTuple):
    """ln p(X), Q(q,eta), H(q) and KL(q||posterior) in nats, summed over ``num`` frames or vectors."""

    log_likelihood: float
    q: float
    h: float
    kl: float
    num: float

    @property
    def gap(self):
        """ln p - (Q + H + KL): zero but for rounding."""
        return self.log_likelihood - (self.q + self.h + self.kl)


class EmReport:
    """Logs the terms of each iteration, checks the identity, and writes a line of a table for each.

    ``table`` is a text stream or None; its columns are iteration, step (E or M), ln p, Q, H, KL, number of
    frames or vectors, all summed over the data. Raises VoxarkError when the identity does not hold.
    """

    def __init__(self, table=None, tolerance=TOLERANCE):
        self._table, self._tolerance = table, tolerance
        if table is not None:
            table.write("iteration\tstep\tlnp\tQ\tH\tKL\tnum\n")

    def add(self, iteration, step, terms):
        """Report the EmTerms after step "E" or "M" of an iteration."""
        _, q, h, kl, num = terms
        logger.info("iteration %d after %s: ln p %.6f = Q %.6f + H %.6f + KL %.6g (per frame or vector; gap %.1e)",
                    iteration, step, terms.log_likelihood / num, q / num, h / num, kl / num, terms.gap / num)
        if self._table is not None:
            values = "\t".join(f"{value:.12g}" for value in terms)
            self._table.write(f"{iteration}\t{step}\t{values}\n")
        scale = max(1.0, abs(terms.log_likelihood))
        if not math.isfinite(terms.gap) or abs(terms.gap) > self._tolerance * scale:
            raise VoxarkError(f"iteration {iteration}: ln p is not Q + H + KL, but off by {terms.gap:.3g}")
        if kl < -self._tolerance * max(num, scale):
            raise VoxarkError(f"iteration {iteration}: KL is negative ({kl:.3g})")


@dataclass
class ReportOptions:
    """Whether training reports the terms of EM."""

    report: bool = option(False, "If true, log ln p = Q + H + KL after each E-step and M-step, and check it")
    report_file: str = option("", "Write the terms of --report to this file, a line a step")

    def wanted(self):
        """Return whether the terms are asked for."""
        return self.report or bool(self.report_file)

    @contextlib.contextmanager
    def open(self):
        """Give the EmReport, or None where none is asked for; its file appears at the end."""
        from voxark import tables

        if self.report_file:
            with tables.open_text_output(self.report_file) as table:
                yield EmReport(table)
        else:
            yield EmReport() if self.report else None
