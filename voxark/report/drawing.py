"""How all pictures look: colours that the colour-blind can tell apart, sizes, ellipses; how they are saved.

INK, MUTED and PAPER are colours as any in a picture's own file; a page that holds SVG pictures may turn them
into variables, so that its pictures follow the reader's choice of a light or a dark page.
"""

import io
from contextlib import contextmanager

import numpy as np

from voxark.errors import VoxarkError
from voxark.io.outputs import Output, check_outputs

FORMATS = ("svg", "png", "pdf")
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


def require_matplotlib():
    """Return matplotlib, loaded when the first picture is drawn: it is slow to load, and may be absent."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise VoxarkError(f"pictures need matplotlib: pip install 'voxark[plot]' ({error})") from None
    return matplotlib


def picture_format(path):
    """The format, svg, png or pdf, that the ending of a picture's name says; VoxarkError if it says none."""
    ending = str(path).strip().rpartition(".")[2].lower()
    if ending not in FORMATS:
        raise VoxarkError(f"{path}: a picture's name ends in .svg, .png or .pdf")
    return ending


def check_picture(path):
    """Raise VoxarkError if no picture can be made under this name: before the work that it is to show."""
    picture_format(path)
    require_matplotlib()
    check_outputs(str(path))


@contextmanager
def styled_figure(path, size, **options):
    """Yield an empty matplotlib Figure in the style of all pictures, and save it as ``path``'s ending says.

    The file appears whole or not at all. The same drawing gives the same bytes: no date, ids from a fixed
    salt.
    """
    ending = picture_format(path)
    matplotlib = require_matplotlib()
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=size, **options)
        yield figure
        drawn = io.BytesIO()
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(drawn, format=ending, metadata=undated.get(ending))
        with Output(str(path)) as out:
            out.write(drawn.getvalue())


@contextmanager
def picture(path, rows=1, columns=1, size=(9.0, 4.0), **options):
    """Yield (figure, axes) of a grid of plots, and save it as :func:`styled_figure` does."""
    with styled_figure(path, size) as figure:
        yield figure, figure.subplots(rows, columns, **options)


def ellipse(axes, mean, covariance, color, deviations=2.0, **options):
    """Draw the ellipse of so many standard deviations round ``mean`` (2,) of a ``covariance`` (2,2)."""
    from matplotlib.patches import Ellipse

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
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(color) for color in colors[: gamma.shape[1]]])
    return np.clip(gamma @ palette, 0.0, 1.0)


def density_plane(axes, ranges):
    """Set up a plane of two features with equal scales."""
    from matplotlib.ticker import MultipleLocator

    axes.set(xlim=ranges[0], ylim=ranges[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(2))


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
