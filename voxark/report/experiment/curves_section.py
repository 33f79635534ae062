"""Sections of the scores' curves: DET, histograms, calibration."""

import math

import numpy as np

from voxark.report import curves
from voxark.report.drawing import BLUE, VERMILLION
from voxark.report.experiment import plots
from voxark.report.experiment.parts import Cell, Chooser, Figure, Grid, Mark, Section, Table, Text
from voxark.report.experiment.results_section import marks_of
from voxark.report.experiment.scores import LOG_ODDS, QUANTILES

_AT = (
    0.001,
    0.01,
    0.05,
    0.1,
    0.2,
    0.5,
)  # false alarm rates at which the table beside the DET curves reads them
_PRIORS = (0.01, 0.1, 0.5, 0.9, 0.99)


# -------------------------------------------------------------------------------------------------------- DET


def _det_limits(results, rates):
    """((low, high) of the misses, of the false alarms) in probits: what is worth the room.

    Up to four times the largest equal error rate, 40 % at least; down to where the curves have left the other
    axis, half an error at least and 1 % at most.
    """
    high = min(0.99, max(0.4, 4 * max(result.row.values["eer"] for result in results)))
    found = []
    for side in (0, 1):
        counts = [(result.row.num_target, result.row.num_nontarget)[side] for result in results]
        lowest = min(rate[side][rate[1 - side] <= high].min(initial=1.0) for rate in rates)
        low = 0.8 * max(0.5 / max(counts), min(0.01, lowest))
        found.append((float(curves.probit(low)), float(curves.probit(high))))
    return found


def det_figure(results):
    """DET curves of all systems on probit axes, marked at the operating points."""
    rates = [result.curves.det for result in results]
    y_limits, x_limits = _det_limits(results, rates)
    both = [max(x_limits[0], y_limits[0]), min(x_limits[1], y_limits[1])]
    data = [plots.line(both, both, "equal error rate", plots.NEUTRAL, "dot", hoverinfo="skip")]
    for number, result in enumerate(results):
        data += _det_traces(number, result)
    axes = []
    for (low, high), name in ((x_limits, "false alarm probability [%]"), (y_limits, "miss probability [%]")):
        places, texts = plots.probit_ticks(low, high)
        axes.append(plots.axis(name, range=[low, high], tickmode="array", tickvals=places, ticktext=texts))
    points = ", ".join(mark.name for mark in results[0].curves.marks)
    legend = [
        Mark("equal error rate", plots.NEUTRAL, "dot"),
        Mark(f"minDCF (filled), actDCF (hollow): {points}", plots.NEUTRAL, "box"),
    ]
    return Figure(
        "det",
        "DET curves",
        "Miss against false alarm probability of each system on probit axes; "
        "lower and further left is better. The table below gives miss rates at some false alarm rates.",
        data,
        plots.layout(*axes),
        aspect=1.15,
        legend=legend,
        table=_det_table(results),
    )


def _det_traces(number, result):
    clip = [curves.rate_limits(n) for n in (result.row.num_target, result.row.num_nontarget)]

    def placed(p_miss, p_fa):
        return curves.probit(np.clip(p_fa, *clip[1])), curves.probit(np.clip(p_miss, *clip[0]))

    p_miss, p_fa = result.curves.det
    x, y = placed(p_miss, p_fa)
    keep = plots.thinned(x, y, 0.012)
    name, color = result.system.title, plots.color_of(number)
    texts = [
        f"misses {100 * a:.3g} %, false alarms {100 * b:.3g} %" for a, b in zip(p_miss[keep], p_fa[keep])
    ]
    hover = {"meta": number, "hovertemplate": "%{text}" + plots.EXTRA_NAME}
    found = [plots.line(x[keep], y[keep], name, color, plots.dash_of(number), text=texts, **hover)]
    for mark in result.curves.marks:
        for kind, rates, symbol in (("minDCF", mark.minimum, "star"), ("actDCF", mark.actual, "star-open")):
            at = placed(np.array([rates[0]]), np.array([rates[1]]))
            text = f"{kind}({mark.name}): misses {100 * rates[0]:.3g} %, false alarms {100 * rates[1]:.3g} %"
            found.append(plots.dots(*at, name, color, symbol, 11, text=[text], **hover))
    return found


def _det_table(results):
    """Miss rates at some false alarm rates."""
    at = [rate for rate in _AT if rate >= 1.0 / max(result.row.num_nontarget for result in results)]
    rows = []
    for result in results:
        p_miss, p_fa = result.curves.det
        cells = []
        for rate in at:
            value = float(p_miss[p_fa <= rate].min())
            cells.append(Cell(f"{100 * value:.2f}", value))
        rows.append([result.system.title, *cells])
    return Table(
        "Misses [%] where at most so many nontargets are accepted",
        ["System", *(f"#{100 * rate:g} %" for rate in at)],
        rows,
    )


# ------------------------------------------------------------------------------------ histograms, calibration


def histogram_figures(results):
    """The densities of both classes of each system, a small figure each."""
    return [_histogram_figure(number, result) for number, result in enumerate(results)]


def _histogram_figure(number, result):
    bins, threshold, name = result.curves.histogram, result.row.values["eer_threshold"], result.system.title
    data = [
        _densities("nontarget", bins.edges, bins.nontarget, VERMILLION),
        _densities("target", bins.edges, bins.target, BLUE),
    ]
    if bins.edges[0] <= threshold <= bins.edges[-1]:
        top, hover = (
            max(bins.target.max(), bins.nontarget.max()),
            "threshold of the EER: %{x:.4g}<extra></extra>",
        )
        data.append(
            plots.line([threshold] * 2, [0, top], "threshold", plots.NEUTRAL, "dot", hovertemplate=hover)
        )
    rows = [
        [kind, *(Cell(f"{value:.4g}", value) for value in values)]
        for kind, values in zip(("target", "nontarget"), result.curves.quantiles.tolist())
    ]
    table = Table("Quantiles of the scores", ["Class", *(f"#{100 * q:g} %" for q in QUANTILES)], rows)
    note = f"{100 * bins.outside:.2g} % of the scores are outside of the picture." if bins.outside > 0 else ""
    layout = plots.layout(plots.axis("score"), plots.axis("density", rangemode="tozero"))
    alt = f"Histograms of target and nontarget scores of {name}."
    return Figure(f"hist-{number + 1}", name, alt, data, layout, table=table, note=note, system=number)


def _densities(name, edges, heights, color):
    """The outline of a class's histogram, filled."""
    x, y = np.repeat(edges, 2), np.concatenate(([0.0], np.repeat(heights, 2), [0.0]))
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    hover = "score %{x:.4g}: density %{y:.3g}" + plots.EXTRA_NAME
    fill = {"fill": "tozeroy", "fillcolor": f"rgba({red},{green},{blue},0.28)"}
    return plots.line(x, y, name, color, hovertemplate=hover, **fill)


def reliability_figure(results):
    """The LLR that labels bear out (PAV) against the score; None where no system has a finite one."""
    data, found = [], []
    for number, result in enumerate(results):
        score, llr = result.curves.pav
        inside = np.isfinite(score) & np.isfinite(llr)
        if inside.any():
            score, llr = score[inside], llr[inside]
            keep = plots.thinned(score / max(np.ptp(score), 1e-300), llr, 0.004)
            hover = {"meta": number, "hovertemplate": "score %{x:.3g}, LLR %{y:.3g}" + plots.EXTRA_NAME}
            style = plots.color_of(number), plots.dash_of(number)
            hover |= {"mode": "lines+markers"} if np.ptp(score) == 0 else {}  # a line would have no length
            data.append(plots.line(score[keep], llr[keep], result.system.title, *style, **hover))
            found.append((score.min(), score.max(), np.abs(llr).max()))
    if not found:
        return None
    lows, highs, largest = map(np.array, zip(*found))
    low, high, top = lows.min(), highs.max(), max(0.1, largest.max())
    room = 0.03 * (high - low) or 0.5
    low, high, name = low - room, high + room, "score = LLR: calibrated"
    ends = [max(low, -1.2 * top), min(high, 1.2 * top)]
    data.insert(0, plots.line(ends, ends, name, plots.NEUTRAL, "dot", hoverinfo="skip"))
    y_axis = plots.axis("LLR that the labels bear out", range=plots.rounded([-1.15 * top, 1.15 * top]))
    layout = plots.layout(plots.axis("score", range=plots.rounded([low, high])), y_axis)
    alt = (
        "The log-likelihood ratio that the labels bear out against the score of each system; on the "
        "diagonal, scores are calibrated."
    )
    legend, table = [Mark(name, plots.NEUTRAL, "dot")], _loss_table(results)
    return Figure("reliability", "Reliability (PAV)", alt, data, layout, 1.25, legend, table)


def _loss_table(results):
    """What better calibration could gain."""
    rows = []
    for result in results:
        actual, least = result.row.values["cllr"], result.row.values["min_cllr"]
        rows.append(
            [result.system.title, *(Cell(f"{value:.3f}", value) for value in (actual, least, actual - least))]
        )
    return Table(
        "Cllr in bits, what is left after PAV, and the loss by calibration",
        ["System", "#Cllr", "#minCllr", "#loss"],
        rows,
    )


def entropy_figure(results):
    """Cross-entropy of the scores as LLRs over the prior, and what is left after PAV."""
    data, top = [], 1.05
    for number, result in enumerate(results):
        actual, least, _ = result.curves.entropies
        top = max(top, 1.1 * actual[np.isfinite(actual)].max(initial=0.0), 1.1 * least.max())
        for values, what, dash in ((actual, "actual", "solid"), (least, "least", "dash")):
            hover = f"log odds %{{x:.2f}}: {what} %{{y:.4f}} bits" + plots.EXTRA_NAME
            style = {"color": plots.color_of(number), "dash": dash, "meta": number}
            data.append(plots.line(LOG_ODDS, values, result.system.title, hovertemplate=hover, **style))
    legend = [Mark("scores as LLRs", plots.NEUTRAL), Mark("after PAV", plots.NEUTRAL, "dash")]
    legend.append(Mark("scores that say nothing", plots.NEUTRAL, "dot"))
    default = results[0].curves.entropies[2]
    data.append(plots.line(LOG_ODDS, default, legend[-1].name, plots.NEUTRAL, "dot", hoverinfo="skip"))
    x_axis = plots.axis("log odds of the prior of a target", range=[-7, 7])
    layout = plots.layout(x_axis, plots.axis("cross-entropy [bits]", range=plots.rounded([0, min(top, 1.5)])))
    alt = (
        "Cross-entropy in bits of each system's scores taken as log-likelihood ratios, over the prior of a "
        "target, and the least that calibration leaves; at log odds 0 they are Cllr and minCllr."
    )
    title = "Cross-entropy over the prior (APE)"
    return Figure("entropy", title, alt, data, layout, 1.25, legend, _entropy_table(results))


def _entropy_table(results):
    rows = []
    for result in results:
        actual, least, _ = result.curves.entropies
        cells = []
        for prior in _PRIORS:
            at = math.log(prior / (1 - prior))
            values = [float(np.interp(at, LOG_ODDS, values)) for values in (actual, least)]
            cells.append(Cell(f"{values[0]:.3f} / {values[1]:.3f}", values[0]))
        rows.append([result.system.title, *cells])
    return Table(
        "Cross-entropy in bits, actual / least, at some priors of a target",
        ["System", *(f"#{prior:g}" for prior in _PRIORS)],
        rows,
    )


# --------------------------------------------------------------------------------------------------- sections


def curves_sections(results):
    """Sections of DET curves, scores and calibration."""
    chooser = [Chooser(marks_of(results))]
    calibration = [figure for figure in (reliability_figure(results), entropy_figure(results)) if figure]
    classes = "Shaded: nontargets (orange) and targets (blue); dotted: the threshold of the EER."
    return [
        Section("det", "DET curves", [*chooser, det_figure(results)]),
        Section("scores", "Scores", [*chooser, Text(classes), Grid(histogram_figures(results))]),
        Section("calibration", "Calibration", [*chooser, Grid(calibration, 2)]),
    ]
