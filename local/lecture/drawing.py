"""How all pictures look: colours that the colour-blind can tell apart, sizes, ellipses; how they are saved.

INK, MUTED and PAPER are colours as any in a picture's own file; make_page.py turns them into variables,
so that the page's pictures follow the reader's choice of a light or a dark page.
"""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from voxark.errors import VoxarkError

try:
    import matplotlib
    import matplotlib.ticker

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Ellipse
except ImportError as error:
    raise SystemExit(f"ERROR: pictures need matplotlib: pip install 'voxark[plot]' ({error})") from None

INK, MUTED, PAPER = "#1b1f25", "#5d6673", "#fefefd"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b5659a",
    "#e69f00",
    "#56b4e9",
)
COMPONENTS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)  # in this order for components and states
MARKERS = ("o", "s", "^", "D", "v", "P")  # the same information a second time, for those who see no colours

STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "voxark",
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 11.0,
    "legend.fontsize": 10.0,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.labelcolor": INK,
    "mathtext.fontset": "dejavusans",
    "mathtext.default": "it",
    "savefig.dpi": 110,
}


@contextmanager
def picture(path, rows=1, columns=1, size=(9.0, 4.0), **options):
    """Yield (figure, axes) and save the picture as the ending of ``path`` says, whole or not at all.

    The same drawing gives the same bytes: no date, ids from a fixed salt.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending not in ("svg", "png", "pdf"):
        raise VoxarkError(f"{path}: a picture's name ends in .svg, .png or .pdf")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, **options)
        try:
            yield figure, axes
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial.{os.getpid()}")
            figure.savefig(partial, format=ending, metadata={"Date": None} if ending == "svg" else None)
            os.replace(partial, path)
        finally:
            plt.close(figure)


def ellipse(axes, mean, covariance, color, deviations=2.0, **options):
    """Draw the ellipse of so many standard deviations round ``mean`` (2,) of a ``covariance`` (2,2)."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2.0 * deviations * np.sqrt(values[::-1])
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    settings = {"fill": False, "edgecolor": color, "linewidth": 2.2, **options}
    axes.add_patch(Ellipse(mean, width, height, angle=angle, **settings))


def number(axes, place, text, color):
    """Write the number of a component or state at its mean, on a disc of its colour."""
    disc = {"boxstyle": "circle,pad=0.18", "facecolor": color, "edgecolor": PAPER, "linewidth": 1.2}
    axes.annotate(
        text,
        place,
        ha="center",
        va="center",
        color="white",
        fontsize=9,
        fontweight="bold",
        bbox=disc,
        annotation_clip=True,
        zorder=6,
    )


def mixed(gamma, colors=COMPONENTS):
    """Return the colours (N,3) of points whose posteriors are gamma (N,C): the components' colours mixed."""
    palette = np.array([matplotlib.colors.to_rgb(color) for color in colors[: gamma.shape[1]]])
    return np.clip(gamma @ palette, 0.0, 1.0)


def density_plane(axes, ranges):
    """Set up a plane of two features with equal scales."""
    axes.set(xlim=ranges[0], ylim=ranges[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MultipleLocator(2))


def state_strip(axes, states):
    """A strip of the colours of the states of a sequence, numbered."""
    edges = np.flatnonzero(np.diff(states)) + 1
    for start, end in zip(np.r_[0, edges], np.r_[edges, len(states)]):
        axes.axvspan(start + 0.5, end + 0.5, color=COMPONENTS[states[start]], alpha=0.85, linewidth=0)
        axes.text(
            (start + end + 1) / 2,
            0.5,
            str(states[start] + 1),
            ha="center",
            va="center",
            color="white",
            fontsize=9,
            fontweight="bold",
        )
    axes.set(ylim=(0, 1), yticks=())
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
