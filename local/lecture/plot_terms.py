#!/usr/bin/env python3
"""Draw the decomposition of EM, ln p = Q + H + KL, after each E-step and M-step, from a --report-file.

Left each step's three terms as a way up (or down) to ln p: Q as a level, then H, then KL. Right what an
iteration gains: Q's gain and the KL that opens, which are ln p's gain together. Refuses a table whose
terms do not add up.

Usage: plot_terms.py [options] <report-table> <picture>
e.g.: plot_terms.py --num-iters=4 report.tsv 07_terms.svg
See also: egs/lecture/run.sh, train-gmm-em, train-hmm-em, train-plda
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from reading import read_terms
from voxark.em_report import TOLERANCE
from voxark.errors import VoxarkError
from voxark.report.drawing import BLUE, INK, MUTED, ORANGE, PURPLE, VERMILLION, picture

KINDS = ((BLUE, "$Q$"), (ORANGE, "$H$"), (PURPLE, "$D_{KL}$"))
WIDTH = 0.28


def check(terms, path):
    """VoxarkError unless ln p = Q + H + KL in every line."""
    for line in terms:
        if not abs(line.lnp - (line.q + line.h + line.kl)) <= TOLERANCE * max(1.0, abs(line.lnp)):
            raise VoxarkError(f"{path}: iteration {line.iteration} {line.step}: ln p is not Q + H + KL")


def draw_steps(axes, terms, unit):
    """For each step: a bar up to Q, one from there to Q + H = L, one from there to Q + H + KL, and ln p."""
    levels = np.array([[line.q, line.q + line.h, line.q + line.h + line.kl] for line in terms])
    low = levels.min() - 0.15 * np.ptp(levels)
    for place, (line, (q, bound, total)) in enumerate(zip(terms, levels)):
        bars = ((low, q), (q, bound), (bound, total))
        for shift, ((start, end), (color, name)) in enumerate(zip(bars, KINDS)):
            axes.bar(
                place + (shift - 1) * WIDTH,
                end - start,
                WIDTH,
                bottom=start,
                color=color,
                label=name if place == 0 else None,
            )
        for level, end in ((q, 0.5), (bound, 1.5)):
            axes.plot(
                place + WIDTH * np.array([end - 1.0, end + 0.0]), [level] * 2, color=MUTED, linewidth=0.8
            )
        axes.plot(
            [place - 0.45, place + 0.45],
            [line.lnp] * 2,
            color=INK,
            linewidth=2.2,
            label=r"$\ln p(\mathbf{X})$" if place == 0 else None,
        )
    axes.set_xticks(range(len(terms)), [f"{line.step}\n{line.iteration}" for line in terms])
    axes.set(ylim=(low, None), xlabel="step, iteration", ylabel=f"nats per {unit} (axis cut below)")
    axes.set_title("after each step")


def gains(terms):
    """Return the gain of ln p, of Q, and KL after the M-step for each iteration: three arrays (K,)."""
    pairs = [(e, m) for e, m in zip(terms, terms[1:]) if (e.step, m.step) == ("E", "M")]
    return np.array([[m.lnp - e.lnp, m.q - e.q, m.kl - e.kl] for e, m in pairs]).T


def draw_gains(axes, terms, unit):
    """What the M-steps gain from the second on (the first gains most): of Q, of KL, as points of ln p."""
    lnp, q, kl = gains(terms)[:, 1:]
    place = np.arange(2, len(lnp) + 2)
    axes.bar(place, q, 0.66, color=BLUE, label=r"$\Delta Q$")
    axes.bar(place, kl, 0.66, bottom=q, color=PURPLE, label="$D_{KL}$")
    axes.plot(place, lnp, "o", color=VERMILLION, markersize=6, label=r"$\Delta\ln p(\mathbf{X})$")
    axes.set(ylim=(min(0.0, lnp.min()), None), xlabel="iteration, from the second", ylabel=f"nats per {unit}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper right")
    axes.set_title(r"gain of the M-step: $\Delta\ln p=\Delta Q+D_{KL}$")


@cli.program
def main(
    report_table: str,
    picture_file: str,
    *,
    num_iters: Annotated[int, "How many iterations to show step by step."] = 4,
    unit: Annotated[str, "What the terms are divided by the number of."] = "observation",
) -> int:
    terms = read_terms(report_table)
    check(terms, report_table)
    with picture(picture_file, 1, 2, size=(9.6, 4.3), width_ratios=[1.7, 1.0]) as (figure, (left, right)):
        draw_steps(left, terms[: 2 * num_iters], unit)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        draw_gains(right, terms, unit)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
