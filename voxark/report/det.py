"""The panel of DET curves: miss against false alarm probability on probit axes (Martin et al. 1997)."""

import logging
from typing import NamedTuple

import numpy as np

from voxark.report import curves
from voxark.report.drawing import COMPONENTS, INK, MARKERS, MUTED, PAPER
from voxark.metrics.measures import RULE_OF_30
from voxark.metrics import Roc

logger = logging.getLogger(__name__)

MOST_SYSTEMS = 12
_POINT_MARKERS = ("*", "X", "p", "h", "d", "8")  # of operating points; none is a system's
# Percentages for the axes, in the order in which they are preferred where there is little room.
_TICKS = (1, 10, 40, 0.1, 90, 99, 0.01, 99.9, 0.001, 1e-4, 1e-5, 1e-6, 5, 20, 70, 2, 0.5, 60, 80, 0.2, 95)
_TICKS += (0.05, 0.02, 98, 0.005, 0.002, 99.5, 30, 50)


class System(NamedTuple):
    """What is drawn in one colour: a name, and the Roc of its scores."""

    label: str
    roc: Roc


def color_of(number):
    """The colour of a system by its number."""
    return COMPONENTS[number % len(COMPONENTS)]


def marker_of(number):
    """The marker of a system by its number; colour and marker together are different for MOST_SYSTEMS."""
    return MARKERS[(number + number // len(COMPONENTS)) % len(MARKERS)]


def shortened(label, width):
    """The end of a name, which differs more often than its beginning, in at most so many letters."""
    return label if len(label) <= width else "..." + label[len(label) - width + 3 :]


def style_of(number, num_systems):
    """Settings of the line of a system: colour and, where there are several, a marker here and there."""
    style = {"color": color_of(number), "linewidth": 1.6}
    if num_systems > 1:
        place = 0.04 + 0.16 * number / num_systems
        style |= {"marker": marker_of(number), "markersize": 4.5, "markevery": (place, 0.16)}
        style |= {"markerfacecolor": PAPER, "markeredgewidth": 1.1}
    return style


def draw_det(axes, systems, points, hull=False, rule_of_30=True):
    """Draw the DET curves of Systems, marked at the OperatingPoints, in matplotlib axes.

    ``hull``: the ROC's convex hull over each curve. ``rule_of_30``: lines where there are 30 errors. Axes
    reach as low as 1/(2N), half an error, and as high as the equal error rates and the marked minima need.
    """
    floors = [min(curves.rate_limits(n)[0] for n in numbers)
              for numbers in zip(*((s.roc.num_target, s.roc.num_nontarget) for s in systems))]  # fmt: skip
    marks = [_marks(system, points) for system in systems]
    y_limits, x_limits = _limits(systems, marks, floors)
    for number, system in enumerate(systems):
        x, y = _clipped(system.roc, *curves.det_curve(system.roc))
        axes.plot(x, y, zorder=3, gid=f"det-{number + 1}", **style_of(number, len(systems)))
        if hull:
            x, y = _clipped(system.roc, *curves.hull_curve(system.roc))
            axes.plot(x, y, color=color_of(number), linewidth=0.9, linestyle=(0, (4, 2)), zorder=3,
                      gid=f"hull-{number + 1}")  # fmt: skip
        _draw_marks(axes, system, number, marks[number], (x_limits, y_limits))
    both = [max(x_limits[0], y_limits[0]), min(x_limits[1], y_limits[1])]
    axes.plot(both, both, color=MUTED, linewidth=0.8, linestyle=":", zorder=1, gid="equal-error")
    if rule_of_30:
        _draw_rule_of_30(axes, systems, x_limits, y_limits)
    _set_axis(axes, axes.xaxis, x_limits, "false alarm probability [%]")
    _set_axis(axes, axes.yaxis, y_limits, "miss probability [%]")
    axes.set(xlim=x_limits, ylim=y_limits, title="DET")
    _explain(axes, points, hull, rule_of_30)


def _clipped(roc, p_miss, p_fa):
    """Probits (x, y) of rates that are clipped to what the numbers of trials can show."""
    return (
        curves.probit(np.clip(p_fa, *curves.rate_limits(roc.num_nontarget))),
        curves.probit(np.clip(p_miss, *curves.rate_limits(roc.num_target))),
    )


def _marks(system, points):
    """[(rates at the minimum, rates at the Bayes threshold)] of a System for each OperatingPoint."""
    return [
        (system.roc.error_rates(system.roc.min_dcf(*point.cost)[1]), system.roc.error_rates(point.threshold))
        for point in points
    ]


def _limits(systems, marks, floors):
    """The probits ((low, high) of misses, (low, high) of false alarms) between which the axes go.

    Up to four times the largest equal error rate, 40 % at least, and beyond the marked minima, save those at
    1, which are not worth the room; up to 99 % where there are few trials. Low down, an axis ends where the
    curves have left the other, at 1 % at most, and at 0.8/(2N) at least.
    """
    eer = max(system.roc.eer()[0] for system in systems)
    high = []
    for side in (0, 1):
        minima = [minimum[side] for of_system in marks for minimum, _ in of_system]
        wanted = max([0.4, 4.0 * eer] + [0.5 + 0.5 * rate for rate in minima if 0.4 < rate < 1.0])
        high.append(min(wanted, 0.99) if floors[side] < 0.1 else 0.99)
    limits = []
    for side in (0, 1):
        lowest = 0.01
        for system in systems:
            rates = curves.det_curve(system.roc)
            lowest = min(lowest, rates[side][rates[1 - side] <= high[1 - side]].min(initial=1.0))
        low = 0.8 * max(floors[side], lowest)
        limits.append((float(curves.probit(low)), float(curves.probit(high[side]))))
    return limits


def _draw_marks(axes, system, number, marks, limits):
    """The minima as filled marks, the actual costs as hollow ones, if they are in the picture."""
    for place, rates in enumerate(marks):
        for kind, (p_miss, p_fa) in zip(("min", "act"), rates):
            x, y = _clipped(system.roc, np.array([p_miss]), np.array([p_fa]))
            inside = all(low <= value[0] <= high for value, (low, high) in zip((x, y), limits))
            if inside:
                axes.plot(x, y, zorder=5 if kind == "min" else 4, gid=f"{kind}-{number + 1}-{place + 1}",
                          **_mark_style(place, color_of(number), kind))  # fmt: skip
            else:
                logger.info("%s: the %sDCF point, Pmiss %.3g %% and Pfa %.3g %%, is outside of the picture",
                            system.label, kind, 100 * p_miss, 100 * p_fa)  # fmt: skip


def _mark_style(place, color, kind):
    """Settings of the mark of an operating point."""
    style = {"marker": _POINT_MARKERS[place % len(_POINT_MARKERS)], "linestyle": "none", "clip_on": False}
    if kind == "min":
        return style | {"markersize": 11, "color": color, "markeredgecolor": INK, "markeredgewidth": 0.7}
    return style | {"markersize": 13, "color": color, "markerfacecolor": "none", "markeredgewidth": 1.3}


def _draw_rule_of_30(axes, systems, x_limits, y_limits):
    """Lines where there are 30 misses or 30 false alarms: with fewer, rates are too uncertain to rely on."""
    style = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (6, 3)), "zorder": 1}
    numbers = {(s.roc.num_target, s.roc.num_nontarget) for s in systems}
    for num_target, num_nontarget in sorted(numbers):
        upright, level = (num_nontarget, x_limits, axes.axvline), (num_target, y_limits, axes.axhline)
        for number, limits, draw in (upright, level):
            rate = RULE_OF_30 / number
            if rate < 1.0 and limits[0] <= curves.probit(rate) <= limits[1]:
                draw(curves.probit(rate), gid="rule-of-30", **style)


def _set_axis(axes, axis, limits, label):
    """Percentages on a probit axis, as many as have room."""
    chosen, room = [], (limits[1] - limits[0]) / 12
    for percent in _TICKS:
        place = float(curves.probit(percent / 100.0))
        if limits[0] <= place <= limits[1] and all(abs(place - p) >= room for p, _ in chosen):
            chosen.append((place, f"{percent:g}"))
    chosen.sort()
    axis.set_ticks([place for place, _ in chosen], [text for _, text in chosen])
    axis.set_label_text(label)
    axis.grid(True, color=MUTED, alpha=0.22, linewidth=0.7)


def _explain(axes, points, hull, rule_of_30):
    """A legend, below the axes, of what is not a system's curve."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D

    handles = [tuple(Line2D([], [], **_mark_style(place, MUTED, kind)) for kind in ("min", "act"))
               for place in range(len(points))]  # fmt: skip
    labels = [f"minDCF (filled), actDCF (hollow), {point.name}" for point in points]
    if hull:
        handles.append(Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 2))))
        labels.append("ROC convex hull")
    handles.append(Line2D([], [], color=MUTED, linewidth=0.8, linestyle=":"))
    labels.append("equal error rate")
    if rule_of_30:
        handles.append(Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (6, 3))))
        labels.append("rule of 30: 30 errors, fewer beyond")
    below(axes, handles, labels, {tuple: HandlerTuple(ndivide=None, pad=0.3)})


def below(axes, handles, labels, handler_map=None):
    """Put a legend below the axes and their label, outside of the data."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(-6 / 72, -38 / 72, axes.figure.dpi_scale_trans)
    axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.0, 0.0), borderaxespad=0.0, fontsize=9.5,
                bbox_transform=axes.transAxes + down, handler_map=handler_map, handlelength=2.6)  # fmt: skip
