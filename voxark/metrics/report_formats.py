"""Error reports as text for people, and as JSON and CSV, exact, for programs.

CSV: one line a system and group, columns ``system,group,num_target,num_nontarget``, then of each measure M
(named as in :mod:`voxark.metrics.error_report`) ``M``, with intervals ``M_low,M_high,M_error``, with several
systems ``M_difference,M_difference_low,M_difference_high,M_p`` (to the first system), with intervals
``effective_target,effective_nontarget``, and ``note``. What is not defined is empty, infinities are ``inf``
and ``-inf``.

JSON: ``{"eer_method": ..., "ci": ..., "ci_level": ..., "rows": [...]}``, each row an object of ``system``,
``group`` ("" is all trials), ``num_target``, ``num_nontarget``, ``measures``, ``effective_target``,
``effective_nontarget``, ``few_errors`` (texts) and ``note``; ``measures`` gives each measure an object of
``estimate`` and, where there are any, ``low``, ``high``, ``error``, ``difference``, ``difference_low``,
``difference_high``, ``p``. What is not defined is null, infinities are the strings "inf" and "-inf".
"""

import csv
import json
import math


def write_report(out, rows, output_format, settings):
    """Write the rows to the text stream ``out`` as "text", "json" or "csv".

    ``settings``: dict of eer_method, ci and ci_level.
    """
    if output_format == "json":
        write_json(out, rows, settings)
    elif output_format == "csv":
        write_csv(out, rows)
    else:
        out.write("".join(line + "\n" for line in text_lines(rows, settings)))


# ---------------------------------------------------------------------------------------------- for programs


def _fields(row, name):
    """What is known of a measure, by the names of its fields."""
    found = {"": row.values.get(name, math.nan)}
    if name in row.intervals:
        interval = row.intervals[name]
        found |= {"low": interval.low, "high": interval.high, "error": interval.standard_error}
    if name in row.differences:
        of = row.differences[name]
        found |= {
            "difference": of.difference,
            "difference_low": of.low,
            "difference_high": of.high,
            "p": of.p_value,
        }
    return found


def _measure_names(rows):
    return list(dict.fromkeys(name for row in rows for name in row.values))


def _json_number(value):
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def write_json(out, rows, settings):
    """Write the rows to the text stream ``out``; ``settings``: a dict of what stands beside them."""

    def row_object(row):
        measures = {
            name: {field or "estimate": _json_number(value) for field, value in _fields(row, name).items()}
            for name in row.values
        }
        effective = row.effective or (math.nan, math.nan)
        return {
            "system": row.system,
            "group": row.group,
            "num_target": row.num_target,
            "num_nontarget": row.num_nontarget,
            "measures": measures,
            "effective_target": _json_number(effective[0]),
            "effective_nontarget": _json_number(effective[1]),
            "few_errors": row.few,
            "note": row.note,
        }

    json.dump({**settings, "rows": [row_object(row) for row in rows]}, out, indent=1, allow_nan=False)
    out.write("\n")


def write_csv(out, rows):
    """Write the rows to the text stream ``out``, with a line of column names."""
    lines, columns = [], {}
    for row in rows:
        line = {
            "system": row.system,
            "group": row.group,
            "num_target": row.num_target,
            "num_nontarget": row.num_nontarget,
        }
        for name in row.values:
            line |= {
                f"{name}_{field}" if field else name: value for field, value in _fields(row, name).items()
            }
        if row.effective is not None:
            line |= {"effective_target": row.effective[0], "effective_nontarget": row.effective[1]}
        columns |= dict.fromkeys(line)
        lines.append(line | {"note": row.note})
    writer = csv.DictWriter(out, [*_in_order(columns, rows), "note"], restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _csv_value(value) for name, value in line.items()})


def _in_order(columns, rows):
    """The columns measure by measure: differences are missing in the first row, which came first."""
    ordered = ["system", "group", "num_target", "num_nontarget"]
    for name in _measure_names(rows):
        fields = ("", "low", "high", "error", "difference", "difference_low", "difference_high", "p")
        ordered += [column for f in fields if (column := f"{name}_{f}" if f else name) in columns]
    return ordered + [column for column in columns if column.startswith("effective_")]


def _csv_value(value):
    return "" if isinstance(value, float) and math.isnan(value) else value


# ------------------------------------------------------------------------------------------------ for people

_TITLES = {
    "eer": "EER %",
    "eer_threshold": "threshold",
    "cllr": "Cllr",
    "min_cllr": "minCllr",
    "auc": "AUC",
    "mean_min_dcf": "mean minDCF",
    "mean_act_dcf": "mean actDCF",
}


def title(name):
    """A measure's name for people."""
    return _TITLES.get(name) or name.replace("min_dcf", "minDCF").replace("act_dcf", "actDCF")


def shown(name, value):
    """A measure's value for people."""
    if math.isnan(value):
        return "-"
    return (
        f"{100 * value:.2f}"
        if name == "eer"
        else f"{value:.4g}"
        if name == "eer_threshold"
        else f"{value:.3f}"
    )


def _aligned(lines, num_left):
    """Lines of cells as text: the first ``num_left`` columns to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    return [
        "  ".join(
            f"{cell:<{w}}" if i < num_left else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def text_lines(rows, settings):
    """The report for people: a list of lines without their ends; settings as of :func:`write_report`.

    One system on all trials: two lines. Several systems or groups: a line each. With intervals: lines
    for each measure, and a table of the trials.
    """
    method = settings["eer_method"]
    if len(rows) == 1 and not rows[0].intervals:
        return _short_lines(rows[0], method)
    keys = _Keys(rows)
    if not any(row.intervals for row in rows):
        return [*_value_lines(rows, keys), f"EER by {method}"]
    closing = f"{100 * settings['ci_level']:g} % intervals by {settings['ci']}; EER by {method}"
    return [*_interval_lines(rows, keys), "", *_trial_lines(rows, keys), closing]


class _Keys:
    """The columns that say of which group and system a line is, where there are several."""

    def __init__(self, rows):
        self.with_groups = any(row.group for row in rows)
        self.with_systems = len(rows) > len({row.group for row in rows})
        self.titles = ["group"] * self.with_groups + ["system"] * self.with_systems

    def of(self, row):
        """The cells of a row in these columns."""
        return [row.group or "all"] * self.with_groups + [row.system] * self.with_systems


def _short_lines(row, method):
    def listed(prefix):
        return ", ".join(f"{title(n)} {shown(n, v)}" for n, v in row.values.items() if n.startswith(prefix))

    values = row.values
    eer, threshold = (shown(name, values[name]) for name in ("eer", "eer_threshold"))
    minima = ", ".join(filter(None, (listed("min_dcf"), listed("mean_min"))))
    actual = ", ".join(filter(None, (listed("act_dcf"), listed("mean_act"))))
    area = f"; AUC {values['auc']:.4f}" if "auc" in values else ""
    return [
        f"EER {eer} % ({method}) at threshold {threshold}; {minima}; "
        f"{row.num_target} target, {row.num_nontarget} nontarget",
        f"scores as log-likelihood ratios: {actual}; Cllr {values['cllr']:.3f}, "
        f"minCllr {values['min_cllr']:.3f}{area}",
    ]


def _value_lines(rows, keys):
    """A line for each system and group; what groups lack stands at the end of theirs."""
    names = _measure_names(rows)
    lines = [[*keys.titles, "target", "nontarget", *map(title, names)]]
    for row in rows:
        values = [shown(name, row.values.get(name, math.nan)) for name in names]
        lines.append([*keys.of(row), str(row.num_target), str(row.num_nontarget), *values])
    return _with_notes(_aligned(lines, len(keys.titles)), rows)


def _interval_lines(rows, keys):
    """For each measure the estimates, intervals, and differences to the first system."""
    lines = [["measure", *keys.titles, "estimate", "low", "high"]]
    if keys.with_systems:
        lines[0] += ["difference", "low", "high", "p"]
    for name in _measure_names(rows):
        heading = title(name)
        for row in rows:
            if name in row.values:
                lines.append(
                    [heading, *keys.of(row), shown(name, row.values[name]), *_interval_cells(row, name)]
                )
                heading = ""
    return _aligned(lines, 1 + len(keys.titles))


def _interval_cells(row, name):
    interval, of = row.intervals.get(name), row.differences.get(name)
    cells = [shown(name, interval.low), shown(name, interval.high)] if interval else ["", ""]
    if of is not None and name != "eer_threshold":
        cells += [_signed(name, value) for value in (of.difference, of.low, of.high)] + [_p_value(of.p_value)]
    return cells


def _trial_lines(rows, keys):
    """Numbers of trials, and effective ones: of independent trials that would be as sure."""
    with_effective = any(row.effective for row in rows)
    lines = [
        [*keys.titles, "target", "nontarget"] + ["effective target", "effective nontarget"] * with_effective
    ]
    for row in rows:
        lines.append([*keys.of(row), str(row.num_target), str(row.num_nontarget)])
        if with_effective:
            lines[-1] += ["-" if math.isnan(n) else f"{n:.0f}" for n in row.effective or (math.nan, math.nan)]
    return _with_notes(_aligned(lines, len(keys.titles)), rows)


def _with_notes(lines, rows):
    return [lines[0], *(f"{line}  {row.note}".rstrip() for line, row in zip(lines[1:], rows))]


def _signed(name, value):
    text = shown(name, value)
    return f"+{text}" if value > 0 else text


def _p_value(p):
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
