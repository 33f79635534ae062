"""The table of error rates with the figure beside it, and the same in groups of trials."""

import math

from voxark.metrics.report_formats import shown, title
from voxark.report.experiment import plots
from voxark.report.experiment.parts import Cell, Figure, Heading, Mark, Section, Table, plural

_FEW = "* fewer than 30 misses or false alarms at its threshold: uncertain (rule of 30)."


def marks_of(results):
    """The legend of the systems."""
    return [
        Mark(result.system.title, plots.color_of(number), plots.dash_of(number), number)
        for number, result in enumerate(results)
    ]


# --------------------------------------------------------------------------------------------- table of rates


def measure_cell(row, name):
    """A measure of a Row as compute-eer writes it, a star if it rests on few errors, its interval below."""
    value = row.values.get(name, math.nan)
    star = " *" if any(text.endswith(f" at {title(name).removesuffix(' %')}") for text in row.few) else ""
    interval = row.intervals.get(name)
    small = ""
    if interval is not None and not math.isnan(interval.low):
        small = f"{_short_number(name, interval.low)} to {_short_number(name, interval.high)}"
    return Cell(_short_number(name, value) + star, None if math.isnan(value) else value, small)


def _short_number(name, value):
    """A measure as compute-eer writes it, but for numbers that are longer than a table has room for."""
    text = shown(name, value)
    return text if len(text) <= 10 else f"{value:.4g}"


def results_table(results, level):
    """The main table: a row each system."""
    names = [name for name in results[0].row.values if name not in ("eer_threshold", "auc")]
    rows = []
    for result in results:
        row = result.row
        counts = [Cell(f"{n:,}", n) for n in (row.num_target, row.num_nontarget, result.missing)]
        rows.append([result.system.title, *(measure_cell(row, name) for name in names), *counts])
    columns = ["System", *(f"#{title(name)}" for name in names), "#target", "#nontarget", "#missing"]
    notes = []
    if any(row.intervals for row in (result.row for result in results)):
        notes.append(f"Below each figure its {100 * level:g} % interval, by the jackknife over speakers.")
    if any(_by_rule_of_three(row) for row in (result.row for result in results)):
        notes.append("Where leaving out speakers changes nothing, it is by the rule of three.")
    notes.append(
        "EER by the ROC's convex hull; actDCF and Cllr take scores for log-likelihood ratios. Each system "
        "is measured on the trials that it has scored; missing: trials without a score."
    )
    if any(result.row.few for result in results):
        notes.append(_FEW)
    notes += [f"{result.system.title}: {result.row.note}." for result in results if result.row.note]
    return Table("Error rates and detection costs of the systems", columns, rows, " ".join(notes))


def _by_rule_of_three(row):
    """Whether an interval of a Row is of a measure that is the same in all replicates."""
    return any(
        math.isnan(interval.standard_error) and not math.isnan(interval.low)
        for interval in row.intervals.values()
    )


def rates_figure(results, level):
    """Equal error rates side by side, with their intervals."""
    places = [len(results) - number for number in range(len(results))]
    data = []
    for number, (place, result) in enumerate(zip(places, results)):
        rates, bars = eer_bars([result.row])
        hover = {"meta": number, "hovertemplate": "%{fullData.name}: EER %{x:.2f} %<extra></extra>"}
        data.append(plots.dots(rates, [place], result.system.title, *plots.style_of(number), **hover))
        data[-1] |= {"error_x": bars} if bars else {}
    names = [plots.plain(_short(result.system.title, 34)) for result in results]
    names_axis = plots.axis(
        **plots.named_ticks(places, names), range=[0.4, len(results) + 0.6], showline=False
    )
    layout = plots.layout(plots.axis("equal error rate [%]", rangemode="tozero"), names_axis)
    title_text = "Equal error rate of each system"
    if any("error_x" in trace for trace in data):
        title_text += f" with its {100 * level:g} % interval"
    listed = (f"{result.system.title} {shown('eer', result.row.values['eer'])} %" for result in results)
    alt = f"{title_text}: {'; '.join(listed)}."
    return Figure("rates", title_text, alt, data, layout, **plots.bars_shape(len(results)))


def eer_bars(rows):
    """Equal error rates of Rows in percent, and their intervals as error bars; None without any."""
    rates = [100 * row.values["eer"] for row in rows]
    bounds = [row.intervals.get("eer") for row in rows]
    known = [bound is not None and not math.isnan(bound.low) for bound in bounds]
    if not any(known):
        return rates, None
    low = [100 * bound.low if there else rate for rate, bound, there in zip(rates, bounds, known)]
    high = [100 * bound.high if there else rate for rate, bound, there in zip(rates, bounds, known)]
    return rates, plots.error_bars(rates, low, high)


def _short(text, width):
    """The beginning and the end of a long text: titles of systems often differ in their last words."""
    half = width // 2
    return text if len(text) <= width else f"{text[: width - half - 1].rstrip()}…{text[-half:].lstrip()}"


# ------------------------------------------------------------------------------------------- groups of trials


def groups_section(results, titles):
    """Error rates in groups of trials; ``titles``: {name of a grouping: its heading}."""
    section = Section("groups", "Error rates by gender, duration and condition")
    for name, heading in titles.items():
        figure = _group_figure(results, name, heading)
        figure.table = _long_table(results, name, heading)
        section.parts += [Heading(heading), figure, _group_table(results, name, heading)]
    return section


def _group_table(results, name, heading):
    """Equal error rates, a row each system and a column each group."""
    first, few = results[0].groups[name], False
    rows = []
    for result in results:
        rows.append([result.system.title, *(measure_cell(row, "eer") for row in result.groups[name])])
        few |= any(cell.text.endswith("*") for cell in rows[-1][1:])
    counts = "; ".join(
        f"{row.group}: {row.num_target:,} target, {row.num_nontarget:,} nontarget" for row in first
    )
    notes = [
        f"Trials: {counts}{'' if _same_counts(results, name) else ' (of ' + results[0].system.title + ')'}."
    ]
    if any(row.group == "cross-gender" for row in first):
        notes.append("Cross-gender nontargets are measured against the targets of all.")
    of_rows = {f"{row.group}: {row.note}" for result in results for row in result.groups[name] if row.note}
    notes += [f"{text}." for text in sorted(of_rows)[:6]] + [_FEW] * few
    return Table(
        f"EER in percent {heading.lower()}",
        ["System", *(f"#{row.group}" for row in first)],
        rows,
        " ".join(notes),
    )


def _same_counts(results, name):
    return (
        len({tuple((row.num_target, row.num_nontarget) for row in result.groups[name]) for result in results})
        == 1
    )


def _long_table(results, name, heading):
    """All measures of all groups, a row each."""
    measures = list(
        dict.fromkeys(
            key
            for result in results
            for row in result.groups[name]
            for key in row.values
            if key != "eer_threshold"
        )
    )
    rows = [
        [
            result.system.title,
            row.group,
            *(measure_cell(row, measure) for measure in measures),
            Cell(f"{row.num_target:,}", row.num_target),
            Cell(f"{row.num_nontarget:,}", row.num_nontarget),
        ]
        for result in results
        for row in result.groups[name]
    ]
    return Table(
        f"Error rates and costs {heading.lower()}",
        ["System", "Group", *(f"#{title(measure)}" for measure in measures), "#target", "#nontarget"],
        rows,
        _FEW,
    )


def _group_figure(results, name, heading):
    """Equal error rates of the groups, a colour each system."""
    data, groups = [], [row.group for row in results[0].groups[name]]
    for number, result in enumerate(results):
        offset = 0.7 * ((number + 0.5) / len(results) - 0.5)
        rows = [(place + offset, row) for place, row in enumerate(result.groups[name]) if row.values]
        rates, bars = eer_bars([row for _, row in rows])
        hover = {"meta": number, "hovertemplate": "%{text}: EER %{y:.2f} %" + plots.EXTRA_NAME}
        data.append(
            plots.dots([x for x, _ in rows], rates, result.system.title, *plots.style_of(number), **hover)
        )
        data[-1] |= {"text": [plots.plain(row.group) for _, row in rows]} | (
            {"error_y": bars} if bars else {}
        )
    ticks = plots.named_ticks(list(range(len(groups))), [plots.plain(group) for group in groups])
    layout = plots.layout(
        plots.axis(**ticks, range=[-0.5, len(groups) - 0.5]),
        plots.axis("equal error rate [%]", range=[0, _top(data)]),
    )
    alt = f"Equal error rate of each system {heading.lower()}; the table below has the numbers."
    return Figure(
        f"group-{name}",
        f"Equal error rate {heading.lower()}",
        alt,
        data,
        layout,
        2.4,
        marks_of(results),
        wide=True,
        least_rem=17,
    )


def _top(data):
    """The end of the axis: above all rates, but not above intervals that say nothing."""
    rates = [rate for trace in data for rate in trace["y"]]
    ends = [
        rate + up
        for trace in data
        if "error_y" in trace
        for rate, up in zip(trace["y"], trace["error_y"]["array"])
    ]
    return plots.rounded([1.05 * min(max(rates + ends, default=1.0), 2.0 * max(rates, default=1.0)) or 1.0])[
        0
    ]


def summary_sentence(results, num_trials, num_target, num_speakers):
    """What the experiment shows, in a sentence."""
    best = min(results, key=lambda result: result.row.values["eer"])
    interval = best.row.intervals.get("eer")
    bounds = ""
    if interval is not None and not math.isnan(interval.low):
        bounds = f" ({shown('eer', interval.low)} to {shown('eer', interval.high)} %)"
    eer = shown("eer", best.row.values["eer"])
    of = f" of {plural(num_speakers, 'speaker')}" if num_speakers else ""
    return (
        f"{plural(len(results), 'system')} on {plural(num_trials, 'trial')}{of}, {num_target:,} of them "
        f"target. The lowest equal error rate is that of {best.system.title}: {eer} %{bounds}."
    )
