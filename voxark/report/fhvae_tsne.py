"""t-SNE of z1 and z2, coloured by what is known of the segments (figure 3 of Hsu and Glass 2018).

Where a model disentangles, classes of what is fixed over a sequence (speaker, noise, microphone) form
clusters in z2 and not in z1, and classes of what changes from segment to segment (phones) the other way
round.
"""

import warnings
from collections import Counter
from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.report.det import color_of, marker_of, shortened
from voxark.report.drawing import MUTED, styled_figure

_PANEL, _LEGEND = 3.4, 1.75  # inches
_OTHER = "#c3c8cf"
_MOST_CLASSES = 20


@dataclass
class TsneOptions:
    """How segments are projected and drawn."""

    perplexity: float = option(30.0, "tsne: perplexity, about the number of neighbours that count")
    max_classes: int = option(
        20, "tsne: classes with a colour, the largest ones; others are grey (at most 20)")

    def check(self):
        """Raise VoxarkError for values that cannot be drawn."""
        if not self.perplexity > 0:
            raise VoxarkError(f"--perplexity={self.perplexity:g} must be above 0")
        if not 1 <= self.max_classes <= _MOST_CLASSES:
            raise VoxarkError(f"--max-classes={self.max_classes} is not one of 1 to {_MOST_CLASSES}: more "
                              "cannot be told apart")


def require_scikit_learn():
    """Load scikit-learn. Raises VoxarkError, which says how to install it, where it is missing."""
    try:
        import sklearn.manifold
    except ImportError as error:
        raise VoxarkError(f"t-SNE needs scikit-learn: pip install 'voxark[probe]' ({error})") from None
    return sklearn


def project(x, perplexity=30.0, seed=0):
    """t-SNE (van der Maaten and Hinton 2008) of x (N,D): (N,2), by scikit-learn, 1000 iterations from a PCA.

    One thread, for the same bytes. Raises VoxarkError where there are not more points than the perplexity.
    """
    manifold = require_scikit_learn().manifold
    from threadpoolctl import threadpool_limits

    if len(x) <= perplexity + 1 or x.shape[1] < 2:
        raise VoxarkError(f"{len(x)} segments of {x.shape[1]} dimensions: t-SNE of "
                          f"--perplexity={perplexity:g} needs more segments than that, and two dimensions")
    if not x.std(axis=0).any():
        raise VoxarkError("all segments have the same values: there is nothing to draw")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)


def classes_of(labels, number):
    """The ``number`` most frequent labels, sorted by name, and how many others there are."""
    counts = Counter(labels)
    chosen = sorted(counts, key=lambda label: (-counts[label], label))[:number]
    return sorted(chosen), len(counts) - len(chosen)


def draw_tsne(path, places, factors, labels, max_classes=20):
    """Draw a row for each factor, with columns z1 and z2 and a legend.

    ``places``: the projections of z1 and z2, (N,2) each; ``factors``: names; ``labels``: for each the labels
    (N,).
    """
    size = (2 * _PANEL + _LEGEND, _PANEL * len(factors) + 0.3)
    with styled_figure(path, size, layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        grid = figure.add_gridspec(len(factors), 3, width_ratios=(_PANEL, _PANEL, _LEGEND))
        for row, (factor, values) in enumerate(zip(factors, labels)):
            classes, others = classes_of(values, max_classes)
            for column, name in enumerate(("z1", "z2")):
                axes = figure.add_subplot(grid[row, column])
                _scatter(axes, places[column], values, classes, f"{name}-{row + 1}")
                axes.set_title(f"${name[0]}_{name[1]}$ by {factor.replace('$', '')}")
            _legend(figure.add_subplot(grid[row, 2]), classes, others)


def _scatter(axes, points, labels, classes, name):
    rest = [n for n, label in enumerate(labels) if label not in set(classes)]
    if rest:
        axes.scatter(*points[rest].T, s=5, color=_OTHER, linewidths=0, gid=f"{name}-other")
    for number, label in enumerate(classes):
        of_class = [n for n, other in enumerate(labels) if other == label]
        axes.scatter(*points[of_class].T, s=11, color=color_of(number), marker=marker_of(number), alpha=0.75,
                     linewidths=0, gid=f"{name}-class-{number + 1}")  # fmt: skip
    axes.set(xticks=(), yticks=())
    axes.set_aspect("equal", adjustable="datalim")
    for side in axes.spines.values():
        side.set(visible=True, color=MUTED, linewidth=0.6)


def _legend(axes, classes, others):
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    looks = [(color_of(number), marker_of(number)) for number in range(len(classes))]
    texts = [shortened(label, 16) for label in classes]
    if others:
        looks, texts = looks + [(_OTHER, "o")], texts + [f"{others} other{'s' if others > 1 else ''}"]
    handles = [Line2D([], [], linestyle="", color=color, marker=marker, markersize=5.5, markeredgewidth=0)
               for color, marker in looks]  # fmt: skip
    # texts come later: a legend would take _ in front of a name, and $ in it, for instructions
    legend = axes.legend(handles, list(map(str, range(len(texts)))), loc="center left", borderaxespad=0.0,
                         handletextpad=0.3, labelspacing=0.35,
                         fontsize=9.0 if len(texts) <= 12 else 7.0)  # fmt: skip
    for shown, text in zip(legend.get_texts(), texts):
        shown.set(parse_math=False)
        shown.set_text(text)
