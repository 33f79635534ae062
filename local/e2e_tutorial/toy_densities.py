#!/usr/bin/env python3
"""Identification against verification error of three distributions of one speaker's embeddings.

Speakers stand in a row at a distance d from each other, all with the same density of variance 1, a mixture of
two uniform ones. Identification errs where an embedding is nearer to the neighbour, P(|x| > d/2);
verification accepts a pair whose embeddings differ by less than the best threshold, and meets targets and
pairs of neighbours equally often. Errors come from densities on a grid, and once more from draws.

Usage: toy_densities.py [options] <table> <picture>
e.g.: toy_densities.py 01_densities.tsv 01_densities.svg
See also: egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated, NamedTuple

import numpy as np

from voxark.errors import VoxarkError
from voxark.random_numbers import seeded_rng
from voxark.report.drawing import BLUE, COMPONENTS, INK, ORANGE, picture
from voxark.report.rows import write_rows

DISTANCE = 2.0 * np.sqrt(3.0)
STEP = 0.0025  # of the grid


class Density(NamedTuple):
    """weight U(-ratio b, ratio b) + (1 - weight) U(-b, b), with b such that the variance is 1."""

    name: str
    weight: float
    ratio: float

    @property
    def half_width(self):
        """b: b^2 (weight ratio^2 + 1 - weight) / 3 = 1."""
        return np.sqrt(3.0 / (self.weight * self.ratio**2 + 1.0 - self.weight))

    def distribution(self, x):
        """P(X <= x) for x (N,)."""
        b = self.half_width
        wide, narrow = (np.clip((x / width + 1.0) / 2.0, 0.0, 1.0) for width in (b, b * (self.ratio or 1.0)))
        return self.weight * narrow + (1.0 - self.weight) * wide

    def draw(self, number, rng):
        """x (number,)."""
        scale = np.where(rng.random(number) < self.weight, self.ratio, 1.0)
        return rng.uniform(-1.0, 1.0, number) * scale * self.half_width


DENSITIES = (Density("peaked", 0.740, 0.17), Density("narrower", 0.680, 0.10), Density("flat", 0.0, 0.0))


def identification_error(density, distance=DISTANCE):
    """P(|x| > d/2): only the two neighbours count."""
    return float(2.0 * density.distribution(np.array([-distance / 2.0]))[0])


def grid_masses(density, step=STEP):
    """(masses (2K+1,) of cells around k * step, K), which hold all of the density."""
    reach = int(np.ceil(density.half_width / step)) + 1
    edges = (np.arange(-reach, reach + 2) - 0.5) * step
    return np.diff(density.distribution(edges)), reach


def verification_error(density, distance=DISTANCE, step=STEP):
    """(error, threshold) of accepting |difference| <= t, at the best t, by convolution on a grid."""
    mass, reach = grid_masses(density, step)
    difference = np.convolve(mass, mass[::-1])  # at the places k * step, |k| <= 2 reach
    at = np.arange(-2 * reach, 2 * reach + 1) * step
    order = np.argsort(np.abs(at), kind="stable")
    target = np.concatenate(([0.0], np.cumsum(difference[order])))
    shifted = np.abs(at + distance)
    order_of_shifted = np.argsort(shifted, kind="stable")
    accepted = np.concatenate(([0.0], np.cumsum(difference[order_of_shifted])))
    thresholds = np.concatenate(([0.0], np.abs(at[order]) + step / 2.0))
    nontarget = accepted[np.searchsorted(shifted[order_of_shifted], thresholds, side="right")]
    errors = 0.5 * (1.0 - target) + 0.5 * nontarget
    best = int(np.argmin(errors))
    return float(errors[best]), float(thresholds[best])


def drawn_errors(density, threshold, number, rng, distance=DISTANCE):
    """((identification error, its standard error), (verification error at the threshold, its)) of draws."""
    x, y = density.draw(number, rng), density.draw(number, rng)
    identified = float(np.mean(np.abs(x) > distance / 2.0))
    miss = float(np.mean(np.abs(x - y) > threshold))
    false = float(
        np.mean(np.abs(distance + density.draw(number, rng) - density.draw(number, rng)) <= threshold)
    )
    variance = [p * (1.0 - p) / number for p in (identified, miss, false)]
    return (identified, variance[0] ** 0.5), (0.5 * (miss + false), 0.5 * (variance[1] + variance[2]) ** 0.5)


def draw_density(axes, density, errors):
    """Three speakers side by side, with what identification gives to a neighbour of the middle one."""
    from matplotlib.ticker import MultipleLocator

    b = density.half_width
    x = np.linspace(-b - 0.3, b + 0.3, 1201)
    values = np.diff(density.distribution(np.append(x, x[-1] + x[1] - x[0]))) / (x[1] - x[0])
    for place, color in zip((-1, 0, 1), COMPONENTS):
        axes.plot(x + place * DISTANCE, values, color=color)
        axes.fill_between(x + place * DISTANCE, values, color=color, alpha=0.12, linewidth=0)
    wrong = np.abs(x) > DISTANCE / 2.0
    axes.fill_between(
        x, np.where(wrong, values, 0.0), color=COMPONENTS[1], alpha=0.7, linewidth=0, step="mid"
    )
    for edge in (-0.5, 0.5):
        axes.axvline(edge * DISTANCE, color=INK, linestyle=":", linewidth=1.2)
    axes.set(
        xlim=(-1.75 * DISTANCE, 1.75 * DISTANCE), ylim=(0, 1.08 * values.max()), xlabel="embedding", yticks=()
    )
    axes.xaxis.set_major_locator(MultipleLocator(2))
    axes.spines["left"].set_visible(False)
    axes.set_title(
        f"{density.name}\nidentification: {100 * errors[0]:.1f} %\nverification: {100 * errors[1]:.1f} %"
    )


def draw_bars(axes, rows):
    """Both errors of each density."""
    places = np.arange(len(rows))
    for shift, kind, color in ((-0.2, "identification", BLUE), (0.2, "verification", ORANGE)):
        values = [100 * row[kind] for row in rows]
        drawn = [100 * row[f"drawn_{kind}"] for row in rows]
        axes.bar(places + shift, values, 0.36, color=color, label=f"{kind} error")
        axes.plot(
            places + shift,
            drawn,
            "x",
            color=INK,
            markersize=6,
            markeredgewidth=1.4,
            label="from draws" if shift > 0 else None,
        )
    axes.set(xticks=places, xticklabels=[row["density"] for row in rows], ylabel="error (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14))


@cli.program
def main(
    table: str,
    picture_file: str,
    *,
    num_draws: Annotated[int, "Draws that check the grid"] = 1_000_000,
    srand: Annotated[int, "Seed of the draws"] = 0,
) -> int:
    rows, counts = [], cli.Counts("densities")
    if num_draws < 1000:
        raise VoxarkError(f"--num-draws={num_draws}: at least 1000 are expected")
    for density in DENSITIES:
        error, threshold = verification_error(density)
        identified, verified = drawn_errors(density, threshold, num_draws, seeded_rng(srand, density.name))
        rows.append({
            "density": density.name, "weight": density.weight, "ratio": density.ratio,
            "identification": identification_error(density), "verification": error, "threshold": threshold,
            "drawn_identification": identified[0], "drawn_identification_error": identified[1],
            "drawn_verification": verified[0], "drawn_verification_error": verified[1],
        })  # fmt: skip
        counts.done()
    write_rows(table, rows)
    with picture(picture_file, 1, 4, size=(10.6, 3.9), width_ratios=[1, 1, 1, 0.9]) as (_, axes):
        for plot, density, row in zip(axes, DENSITIES, rows):
            draw_density(plot, density, (row["identification"], row["verification"]))
        draw_bars(axes[3], rows)
    return counts.finish()


if __name__ == "__main__":
    main()
