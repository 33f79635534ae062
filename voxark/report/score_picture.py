"""One picture of the scores of several systems: panels side by side, and the systems' names below."""

from dataclasses import dataclass
from typing import Literal

from voxark.errors import VoxarkError
from voxark.options import option
from voxark.report.det import MOST_SYSTEMS, color_of, draw_det, marker_of, shortened
from voxark.report.drawing import PAPER, styled_figure
from voxark.report.score_plots import draw_cross_entropy, draw_histograms, draw_reliability, draw_tippett

PANELS = ("det", "hist", "calibration", "ape", "tippett")
_WIDTH, _HEIGHT = 5.0, 5.2  # of a panel with its legend, in inches
_LETTERS = 12.5  # an inch, in the legend of the systems
_DRAW = {"calibration": draw_reliability, "ape": draw_cross_entropy, "tippett": draw_tippett}


@dataclass
class PictureOptions:
    """What the picture shows."""

    plots: str = option("det", f"Panels, with commas between them: {', '.join(PANELS)}; or all")
    rocch: bool = option(False, "DET: draw the convex hull of the ROC over each curve")
    rule_of_30: bool = option(True, "DET: lines where there are 30 errors")
    hist_scale: Literal["linear", "log"] = option("linear", "Histograms: axis of the densities")

    def panels(self):
        """The names of the panels, checked."""
        names = list(PANELS) if self.plots == "all" else self.plots.split(",")
        for name in names:
            if name not in PANELS:
                there_are = ", ".join(PANELS)
                raise VoxarkError(f"--plots={self.plots}: {name!r} is unknown; there are {there_are} and all")
        if len(set(names)) < len(names):
            raise VoxarkError(f"--plots={self.plots}: a panel is asked for twice")
        return names


def draw_scores(path, systems, points, options):
    """Draw a picture of Systems at OperatingPoints as PictureOptions say."""
    panels = options.panels()
    if len(systems) > MOST_SYSTEMS:
        raise VoxarkError(f"{len(systems)} systems: more than {MOST_SYSTEMS} cannot be told apart")
    columns = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3}[len(panels)]
    rows = -(-len(panels) // columns)
    height = max(_HEIGHT, 1.25 * len(systems) + 1.0) if "hist" in panels else _HEIGHT
    width = max(_WIDTH * columns, 5.6)
    texts = [_described(system, points, panels, int((width - 0.9) * _LETTERS)) for system in systems]
    names = 0.19 * sum(1.25 + text.count("\n") for text in texts) + 0.2
    with styled_figure(path, (width, height * rows + names), layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        grid = figure.add_gridspec(rows, columns)
        for place, name in enumerate(panels):
            _draw_panel(figure, grid[divmod(place, columns)], name, systems, points, options)
        _name_systems(figure, texts)


def _draw_panel(figure, cell, name, systems, points, options):
    if name == "hist":
        inner = cell.subgridspec(len(systems), 1)
        axes = [figure.add_subplot(inner[number, 0]) for number in range(len(systems))]
        draw_histograms(axes, systems, options.hist_scale == "log")
        return
    axes = figure.add_subplot(cell)
    if name == "det":
        draw_det(axes, systems, points, options.rocch, options.rule_of_30)
    else:
        _DRAW[name](axes, systems)


def _name_systems(figure, texts):
    """A legend of the systems, below all panels."""
    from matplotlib.lines import Line2D

    marker = {"markersize": 4.5, "markerfacecolor": PAPER}
    handles = [
        Line2D([], [], color=color_of(number), linewidth=2.0,
               **(marker | {"marker": marker_of(number)} if len(texts) > 1 else {}))
        for number in range(len(texts))
    ]  # fmt: skip
    # texts come later: a legend would take _ in front of a name, and $ in it, for instructions
    legend = figure.legend(handles, list(map(str, range(len(texts)))), loc="outside lower left",
                           handlelength=2.6, borderaxespad=0.8)  # fmt: skip
    for shown, text in zip(legend.get_texts(), texts):
        shown.set(parse_math=False)
        shown.set_text(text)


def _described(system, points, panels, width):
    """The name of a system and the measures that the panels show, in lines of so many letters."""
    name, measures = system.label, []
    if "det" in panels:
        measures.append(f"EER {100 * system.roc.eer()[0]:.3g} %")
        measures += [f"minDCF({point.name}) {system.roc.min_dcf(*point.cost)[0]:.3f}" for point in points]
    if "ape" in panels:
        measures += [f"Cllr {system.roc.cllr():.3f}", f"minCllr {system.roc.min_cllr():.3f}"]
    lines = [shortened(name, width)]
    for place, measure in enumerate(measures):
        joined = lines[-1] + (": " if place == 0 else ", ") + measure
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(measure)
    return "\n".join(lines)
