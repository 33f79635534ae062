#!/usr/bin/env python3
"""Draw the lower bound of EM over one mean: ln p(X|mu), and for each E-step the parabola that touches it.

Usage: plot_bound.py <table> <picture>
e.g.: plot_bound.py bound.tsv 08_bound.svg
See also: local/lecture/make_bound.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from voxark.report.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, VERMILLION, picture
from voxark.report.rows import read_rows

STEPS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE)


def points(rows, iteration, kind):
    """Return mu and value (N,) each of the lines of one iteration and kind."""
    chosen = [r for r in rows if r["iteration"] == str(iteration) and r["kind"] == kind]
    return np.array([[float(r["mu"]), float(r["value"])] for r in chosen]).reshape(-1, 2).T


def draw_steps(axes, rows, num_iters):
    """ln p, the bounds, touching points (filled) and tops of the bounds (hollow), with lines up to ln p."""
    axes.plot(*points(rows, 0, "curve"), color=INK, linewidth=3.0, label=r"$\ln p(\mathbf{X}|\mu)$")
    for iteration in range(1, num_iters + 1):
        color = STEPS[(iteration - 1) % len(STEPS)]
        axes.plot(
            *points(rows, iteration, "curve"), color=color, label=rf"$\mathcal{{L}}(q_{iteration},\mu)$"
        )
        (mu,), (value,) = points(rows, iteration, "touch")
        (top,), (bound,) = points(rows, iteration, "top")
        likelihood = points(rows, 0, "top")[1][iteration - 1]
        axes.plot([top, top], [bound, likelihood], color=color, linestyle=":", linewidth=1.6)
        axes.plot(
            top, bound, "o", color=PAPER, markeredgecolor=color, markeredgewidth=1.8, markersize=7, zorder=5
        )
        axes.plot(mu, value, "o", color=color, markersize=8, zorder=6, markeredgecolor=PAPER)


@cli.program
def main(table: str, picture_file: str) -> int:
    rows = read_rows(table)
    num_iters = max(int(row["iteration"]) for row in rows)
    touches = np.hstack([points(rows, 0, "touch"), points(rows, 0, "top")])
    curve = points(rows, 0, "curve")
    with picture(picture_file, 1, 2, size=(9.4, 4.6), width_ratios=[1.4, 1.0]) as (figure, (left, right)):
        draw_steps(left, rows, num_iters)
        span = np.ptp(curve[1])
        left.set(
            xlim=(curve[0].min(), curve[0].max()),
            ylim=(curve[1].min() - 0.35 * span, curve[1].max() + 0.1 * span),
        )
        left.set(xlabel=r"$\mu$ of one component, all else fixed", ylabel="nats per observation")
        left.set_title("each E-step: a bound that touches $\\ln p$")
        draw_steps(right, rows, num_iters)
        low, high = (touches.min(axis=1), touches.max(axis=1))
        margin = np.array([0.15, 0.12]) * (high - low)
        bottom = min(points(rows, i, "touch")[1][0] for i in range(1, num_iters + 1)) - margin[1]
        right.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(bottom, high[1] + 1.5 * margin[1]))
        right.set(xlabel=r"$\mu$")
        right.set_title("the way up, enlarged")
        left.axvspan(*right.get_xlim(), color=MUTED, alpha=0.12, linewidth=0)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=num_iters + 1)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
