"""Figures for plotly as plain dicts: axes, lines, bars, their colours and legends.

Text and axes take their colours from page.css, which knows light, dark and print; curves have colours that
stand out on both. Numbers are rounded to what can be seen, which keeps the page small.
"""

import math

import numpy as np

from voxark.report.drawing import COMPONENTS

NEUTRAL = "#7d8794"
_DASHES = ("solid", "dash", "dot", "dashdot")
EXTRA_NAME = "<extra>%{fullData.name}</extra>"  # of a hover label: the curve's name beside it
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def color_of(number):
    """The colour of a system by its number."""
    return COMPONENTS[number % len(COMPONENTS)]


def dash_of(number):
    """The dashes of a system's line: another kind each time that the colours begin anew."""
    return _DASHES[number // len(COMPONENTS) % len(_DASHES)]


def symbol_of(number):
    """The marker of a system by its number."""
    return _SYMBOLS[number % len(_SYMBOLS)]


def plain(text):
    """A text for plotly, which takes <b> and its like, and %{...}, for instructions."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("%{", "% {")


def rounded(values, digits=5):
    """Numbers for JSON, to so many significant digits; what is not finite is null."""
    return [
        None if not math.isfinite(value) else float(f"{value:.{digits}g}")
        for value in np.asarray(values, np.float64).tolist()
    ]


def line(x, y, name, color, dash="solid", **more):
    """A curve; ``more``: further settings of plotly's scatter."""
    return {"type": "scatter", "mode": "lines", "x": rounded(x), "y": rounded(y), "name": plain(name),
            "line": {"color": color, "dash": dash, "width": 1.8}, **more}  # fmt: skip


def dots(x, y, name, color, symbol="circle", size=9, **more):
    """Markers without a line."""
    return {"type": "scatter", "mode": "markers", "x": rounded(x), "y": rounded(y), "name": plain(name),
            "marker": {"color": color, "symbol": symbol, "size": size}, **more}  # fmt: skip


def style_of(number):
    """Colour and marker of a system by its number, for :func:`dots`."""
    return color_of(number), symbol_of(number)


def bars(names, values, name, color):
    """Bars that lie, the last one on top."""
    hover = "%{y}: %{x} %{fullData.name}<extra></extra>"
    return {"type": "bar", "orientation": "h", "y": names, "x": rounded(values), "name": plain(name),
            "marker": {"color": color}, "hovertemplate": hover}  # fmt: skip


def bars_shape(number):
    """Settings of a Figure of so many lines."""
    return {"aspect": max(1.6, min(4.0, 26 / (number + 2))), "wide": True, "least_rem": 4 + 1.3 * number}


def error_bars(values, low, high):
    """Error bars from ``low`` to ``high`` about values."""
    up, down = (np.subtract(a, b) for a, b in ((high, values), (values, low)))
    return {"type": "data", "symmetric": False, "array": rounded(up), "arrayminus": rounded(down),
            "thickness": 1.6, "width": 4}  # fmt: skip


def named_ticks(places, names):
    """Settings of an axis that has names in place of numbers."""
    return {"tickmode": "array", "tickvals": places, "ticktext": names, "ticks": ""}


def axis(title="", **more):
    """An axis with a title."""
    return {"title": {"text": title, "standoff": 8}, "automargin": True, "zeroline": False,
            "ticks": "outside", "ticklen": 4, "showline": True, **more}  # fmt: skip


def layout(x, y, **more):
    """The layout of a figure with two axes, whose text has room at the left and below."""
    return {"xaxis": x, "yaxis": y, "margin": {"l": 56, "r": 14, "t": 10, "b": 46}, "showlegend": False,
            "hovermode": "closest", "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13}, **more}  # fmt: skip


def thinned(x, y, step):
    """Places of points of a path (x, y) farther than ``step`` from the one kept before; both ends stay."""
    keep = [0]
    points = list(zip(np.asarray(x).tolist(), np.asarray(y).tolist()))
    for place, (a, b) in enumerate(points):
        last = points[keep[-1]]
        if abs(a - last[0]) > step or abs(b - last[1]) > step:
            if place - 1 != keep[-1]:
                keep.append(place - 1)  # the corner before a jump
            keep.append(place)
    if keep[-1] != len(points) - 1:
        keep.append(len(points) - 1)
    return np.array(keep)


def probit_ticks(low, high, most=9):
    """Percentages for a probit axis between two probits: (places, texts), as many as have room."""
    from scipy.special import ndtri

    wanted = (1, 10, 40, 0.1, 90, 99, 0.01, 99.9, 0.001, 1e-4, 5, 20, 70, 2, 0.5, 60, 80, 0.2, 95, 30, 50)
    chosen = {}
    for percent in wanted:
        place = float(ndtri(percent / 100.0))
        if low <= place <= high and all(abs(place - other) >= (high - low) / most for other in chosen):
            chosen[place] = f"{percent:g}"
    return rounded(sorted(chosen)), [chosen[place] for place in sorted(chosen)]
