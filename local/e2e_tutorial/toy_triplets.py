#!/usr/bin/env python3
"""Three speakers whom triplets find perfect and verification does not.

Embeddings fill three discs evenly. Every anchor is nearer to every positive than to every negative by the
margin, so that the triplet loss is 0; yet one threshold for all must accept distances as large as the wide
disc's, and these pass the gap between the two narrow ones.

Usage: toy_triplets.py [options] <table> <picture>
e.g.: toy_triplets.py 02_triplets.tsv 02_triplets.svg
See also: egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np

from voxark.errors import VoxarkError
from voxark.metrics import Roc
from voxark.random_numbers import seeded_rng
from voxark.report.drawing import BLUE, COMPONENTS, INK, VERMILLION, picture
from voxark.report.rows import write_rows

MARGIN = 0.5
CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 6.0]])
RADII = np.array([0.25, 0.25, 1.5])
NAMES = "ABC"


def draw_disc(centre, radius, number, rng):
    """Points (number,2), even over a disc."""
    angle = rng.uniform(0.0, 2.0 * np.pi, number)
    return centre + (radius * np.sqrt(rng.random(number)))[:, None] * np.stack(
        [np.cos(angle), np.sin(angle)], 1
    )


def worst_triplet(speaker):
    """Of any points of the discs: the largest d(anchor, positive) - d(anchor, negative) + margin.

    The worst anchor lies on the line to another disc, and its positive on the other side of its own disc.
    """
    gaps = np.linalg.norm(CENTRES - CENTRES[speaker], axis=1) - RADII - RADII[speaker]
    return float(2.0 * RADII[speaker] - np.delete(gaps, speaker).min() + MARGIN)


def drawn_violations(number, rng):
    """How many triplets have a loss above 0, of ``number`` random ones of each two speakers."""
    violations = 0
    for s in range(3):
        for other in range(3):
            if other == s:
                continue
            anchor, positive = (draw_disc(CENTRES[s], RADII[s], number, rng) for _ in range(2))
            negative = draw_disc(CENTRES[other], RADII[other], number, rng)
            near, far = (np.linalg.norm(anchor - end, axis=1) for end in (positive, negative))
            violations += int(np.count_nonzero(near - far + MARGIN > 0.0))
    return violations


def draw_distances(number, rng):
    """Distances of N pairs of each speaker and of each two speakers: (target (3N,), nontarget (3N,))."""

    def distances(a, b):
        first, second = (draw_disc(CENTRES[s], RADII[s], number, rng) for s in (a, b))
        return np.linalg.norm(first - second, axis=1)

    return (
        np.concatenate([distances(s, s) for s in range(3)]),
        np.concatenate([distances(0, 1), distances(0, 2), distances(1, 2)]),
    )


def evaluate(number, srand):
    """A row of the table, and the distances it comes from."""
    target, nontarget = draw_distances(number, seeded_rng(srand, "pairs"))
    roc = Roc(-target, -nontarget)
    cost, threshold = roc.min_dcf(p_target=0.5)
    row = {
        "violations": drawn_violations(number, seeded_rng(srand, "triplets")),
        "triplets": 6 * number,
        "worst": max(worst_triplet(s) for s in range(3)),
        "min_error": cost / 2.0,
        "threshold": -threshold,
        "eer": roc.eer()[0],
        "standard_error": (0.25 * (cost / 2.0) / (3.0 * number)) ** 0.5,
    }
    return row, target, nontarget


def draw_plane(axes, row, srand):
    """The discs with some points, the worst triplet of C, and the best threshold around a point of A."""
    from matplotlib.patches import Circle

    rng = seeded_rng(srand, "points")
    for name, centre, radius, color in zip(NAMES, CENTRES, RADII, COMPONENTS):
        points = draw_disc(centre, radius, 60 if radius < 1 else 220, rng)
        axes.plot(*points.T, ".", color=color, markersize=3.5, alpha=0.75)
        axes.add_patch(Circle(centre, radius, fill=False, edgecolor=color, linewidth=2.0))
        axes.annotate(
            name, centre + [radius + 0.15, radius * 0.5], color=color, fontsize=13, fontweight="bold"
        )
    anchor, positive = CENTRES[2] - [0, RADII[2]], CENTRES[2] + [0, RADII[2]]
    away = CENTRES[0] - anchor
    negative = CENTRES[0] - away / np.linalg.norm(away) * RADII[0]
    for end, color in ((positive, BLUE), (negative, VERMILLION)):
        axes.annotate(
            "",
            end,
            anchor,
            arrowprops={"arrowstyle": "->", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0},
        )
    place = CENTRES[0] + [RADII[0], 0]
    axes.add_patch(Circle(place, row["threshold"], fill=False, edgecolor=INK, linestyle="--", linewidth=1.2))
    axes.plot(*place, "o", color=INK, markersize=4)
    axes.set(xlim=(-2.6, 4.6), ylim=(-2.5, 8.0), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    axes.set_title(f"{row['violations']} of {row['triplets']:,} triplets violated")


def draw_histograms(axes, row, target, nontarget):
    """Distances within and between speakers, and the threshold of the least error."""
    bins = np.linspace(0.0, 8.0, 161)
    for values, color, label in (
        (target, BLUE, "same speaker"),
        (nontarget, VERMILLION, "different speakers"),
    ):
        axes.hist(values, bins, density=True, histtype="stepfilled", color=color, alpha=0.45, label=label)
    axes.axvline(row["threshold"], color=INK, linestyle="--", linewidth=1.4)
    axes.set(xlabel="distance", ylabel="density", xlim=(0, 8), yscale="log", ylim=(3e-3, 6))
    axes.set_title(f"least error {100 * row['min_error']:.1f} %, EER {100 * row['eer']:.1f} %")
    axes.legend(loc="upper right")


@cli.program
def main(
    table: str,
    picture_file: str,
    *,
    num_draws: Annotated[int, "Pairs of each kind, and triplets of each kind"] = 200_000,
    srand: Annotated[int, "Seed of the draws"] = 0,
) -> int:
    if num_draws < 100:
        raise VoxarkError(f"--num-draws={num_draws}: at least 100 are expected")
    row, target, nontarget = evaluate(num_draws, srand)
    write_rows(table, [row])
    with picture(picture_file, 1, 2, size=(9.4, 4.6), width_ratios=[1.0, 1.35]) as (_, (left, right)):
        draw_plane(left, row, srand)
        draw_histograms(right, row, target, nontarget)
    counts = cli.Counts("pictures")
    counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
