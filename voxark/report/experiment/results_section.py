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
        small = f"{shown(name, interval.low)} to {shown(name, interval.high)}"
    return Cell(shown(name, value) + star, None if math.isnan(value) else value, small)


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
    notes.append(
        "EER by the ROC's convex hull; actDCF and Cllr take scores for log-likelihood ratios. Each system "
        "is measured on the trials that it has scored; missing: trials without a score."
    )
    if any(result.row.few for result in results):
        notes.append(_FEW)
    return Table("Error rates and detection costs of the systems", columns, rows, " ".join(notes))


def rates_figure(results, level):
    """Equal error rates side by side, with their intervals."""
    order = range(len(results))[::-1]
    data = []
    for number in order:
        row = results[number].row
        value, interval = 100 * row.values["eer"], row.intervals.get("eer")
        error = {}
        if interval is not None and not math.isnan(interval.low):
            error = {
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": plots.rounded([100 * interval.high - value]),
                    "arrayminus": plots.rounded([value - 100 * interval.low]),
                    "thickness": 2,
                    "width": 5,
                }
            }
        data.append(
            plots.dots(
                [value],
                [len(results) - number],
                results[number].system.title,
                plots.color_of(number),
                plots.symbol_of(number),
                10,
                meta=number,
                hovertemplate="%{fullData.name}: EER %{x:.2f} %<extra></extra>",
                **error,
            )
        )
    names = [plots.plain(_short(results[number].system.title, 28)) for number in order]
    layout = plots.layout(
        plots.axis("equal error rate [%]", rangemode="tozero"),
        plots.axis(
            tickmode="array",
            tickvals=[len(results) - number for number in order],
            ticktext=names,
            range=[0.4, len(results) + 0.6],
            showline=False,
            ticks="",
        ),
    )
    with_intervals = any("error_x" in trace for trace in data)
    alt = "Equal error rate of each system" + (
        f" with its {100 * level:g} % interval" if with_intervals else ""
    )
    return Figure(
        "rates",
        alt,
        f"{alt}: "
        + "; ".join(f"{result.system.title} {shown('eer', result.row.values['eer'])} %" for result in results)
        + ".",
        data,
        layout,
        aspect=max(1.6, min(4.0, 26 / (len(results) + 2))),
        wide=True,
        least_rem=4 + 1.3 * len(results),
    )


def _short(text, width):
    return text if len(text) <= width else text[: width - 1] + "…"


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
    groups = list(dict.fromkeys(row.group for result in results for row in result.groups[name]))
    data = []
    for number, result in enumerate(results):
        values, offset = {row.group: row for row in result.groups[name]}, (number + 0.5) / len(results) - 0.5
        rows = [
            (place + 0.7 * offset, values[group])
            for place, group in enumerate(groups)
            if "eer" in values[group].values
        ]
        bounds = [row.intervals.get("eer") for _, row in rows]
        eers = [100 * row.values["eer"] for _, row in rows]
        trace = plots.dots(
            [x for x, _ in rows],
            eers,
            result.system.title,
            plots.color_of(number),
            plots.symbol_of(number),
            8,
            meta=number,
            text=[row.group for _, row in rows],
            hovertemplate="%{text}: EER %{y:.2f} %" + plots.EXTRA_NAME,
        )
        if any(bounds):
            high = [0.0 if b is None else 100 * b.high - eer for b, eer in zip(bounds, eers)]
            low = [0.0 if b is None else eer - 100 * b.low for b, eer in zip(bounds, eers)]
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": plots.rounded(high),
                "thickness": 1.4,
                "arrayminus": plots.rounded(low),
                "width": 3,
            }
        data.append(trace)
    eers = [100 * row.values["eer"] for result in results for row in result.groups[name] if row.values]
    bounds = [
        100 * row.intervals["eer"].high
        for result in results
        for row in result.groups[name]
        if "eer" in row.intervals and not math.isnan(row.intervals["eer"].high)
    ]
    top = min(max([*eers, *bounds], default=1.0), 2.0 * max(eers, default=1.0))
    layout = plots.layout(
        plots.axis(
            tickmode="array",
            tickvals=list(range(len(groups))),
            ticktext=[plots.plain(g) for g in groups],
            range=[-0.5, len(groups) - 0.5],
            ticks="",
        ),
        plots.axis("equal error rate [%]", range=plots.rounded([0, 1.05 * top or 1.0])),
    )
    return Figure(
        f"group-{name}",
        f"Equal error rate {heading.lower()}",
        f"Equal error rate of each system {heading.lower()}; the table below has the numbers.",
        data,
        layout,
        2.4,
        marks_of(results),
        wide=True,
        least_rem=17,
    )


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
