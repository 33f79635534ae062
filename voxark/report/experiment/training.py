"""How training went: likelihoods of EM out of the logs, curves of networks out of their metrics.jsonl."""

import json
import re
from typing import NamedTuple

import numpy as np

from voxark.report.experiment import plots
from voxark.report.experiment.folder import log_files, log_folders, read_text
from voxark.report.experiment.parts import Cell, Figure, Grid, Heading, Mark, Section, Table, identifier

_NUMBER = r"(-?\d[\d.]*(?:e[+-]?\d+)?)"
# What programs log, with the iteration in the line; and without, where the log's name has it.
_ITERATIONS = (
    (
        re.compile(rf"LOG \(train-[gh]mm-em\) iteration (\d+): [^\n]*? {_NUMBER} over \d+ frames"),
        "ln p per frame",
    ),
    (
        re.compile(rf"LOG \(train-ivector-extractor\) iteration (\d+): ln p [^\n]*?, {_NUMBER} a frame"),
        "ln p per frame",
    ),
    (re.compile(rf"LOG \(train-plda\) iteration (\d+): ln p per vector {_NUMBER}"), "ln p per vector"),
    (re.compile(rf"LOG \(train-dplda\) iteration (\d+): loss {_NUMBER}"), "loss"),
)
_UPDATES = (
    (
        re.compile(rf"LOG \(est-gmm\) log-likelihood per frame of the model before the update {_NUMBER} "),
        "ln p per frame",
    ),
    (re.compile(rf"LOG \(est-ivector-extractor\) ln p [^\n]*?, {_NUMBER} a frame"), "ln p per frame"),
)
_UPDATE_NAME = re.compile(r"(.*?)\.?(\d+)\.log$")
_MOST_ROWS, _MOST_CURVES = 100, 48
TRAIN, HELD_OUT = plots.color_of(0), plots.color_of(1)


class EmCurve(NamedTuple):
    """A training by iterations: ``name`` (folder and log), ``what`` its values (n,) are, iterations (n,)."""

    name: str
    what: str
    iterations: list
    values: list


def parse_iterations(text):
    """(what the values are, {iteration: value}) of a training program's log; ("", {}) where it has none."""
    for pattern, what in _ITERATIONS:
        found = {int(number): float(value) for number, value in pattern.findall(text)}
        if found:
            return what, found
    return "", {}


def parse_updates(logs):
    """[(stem, what the values are, {iteration: value})] of logs {name: text} as `update.3.log`."""
    found = {}
    for name, text in logs.items():
        number = _UPDATE_NAME.fullmatch(name)
        for pattern, what in _UPDATES:
            value = pattern.search(text)
            if number and value:
                found.setdefault((number[1], what), {})[int(number[2])] = float(value[1])
    return [(stem, what, values) for (stem, what), values in found.items()]


def read_em_curves(experiment):
    """The EmCurves of the logs of an Experiment, by folder."""
    found = []
    for logs in log_folders(experiment):
        name, updates = experiment.name_of(logs.parent), {}
        for path in log_files(logs):
            text = read_text(path) or ""
            what, values = parse_iterations(text)
            if values:
                found.append(_curve(f"{name}, {path.stem}", what, values))
            elif _UPDATE_NAME.fullmatch(path.name):
                updates[path.name] = text
        found += [_curve(f"{name}, {stem}", what, values) for stem, what, values in parse_updates(updates)]
    return [curve for curve in found if len(curve.values) > 1]


def _curve(name, what, values):
    iterations = sorted(values)
    return EmCurve(name, what, iterations, [values[number] for number in iterations])


def em_figure(curve):
    """The figure of an EmCurve."""
    table = Table(
        f"{curve.what} of each iteration",
        ["#iteration", f"#{curve.what}"],
        [
            [Cell(str(i), i), Cell(f"{value:.6f}", value)]
            for i, value in zip(curve.iterations[:_MOST_ROWS], curve.values[:_MOST_ROWS])
        ],
    )
    data = [
        plots.line(
            curve.iterations,
            curve.values,
            curve.name,
            TRAIN,
            mode="lines+markers",
            hovertemplate="iteration %{x}: %{y:.6f}<extra></extra>",
            marker={"size": 5, "color": TRAIN},
        )
    ]
    data[0]["y"] = plots.rounded(curve.values, 9)
    layout = plots.layout(plots.axis("iteration", **_whole(curve.iterations)), plots.axis(curve.what))
    span = max(curve.values) - min(curve.values)
    if span < 1e-6 * abs(curve.values[0]):  # the axis would show rounding
        middle = curve.values[0]
        layout["yaxis"]["range"] = plots.rounded([middle - 0.5, middle + 0.5], 9)
    return Figure(
        f"em-{identifier(curve.name)}",
        curve.name,
        f"{curve.name}: {curve.what} from "
        f"{curve.values[0]:.4f} to {curve.values[-1]:.4f} in {len(curve.values)} iterations.",
        data,
        layout,
        table=table,
    )


def _whole(steps):
    return {"dtick": 1} if max(steps) - min(steps) <= 10 else {}


# --------------------------------------------------------------------------------------------------- networks


class Panel(NamedTuple):
    """A figure of a training: title, names in training and of held-out data, factor of its numbers."""

    title: str
    train: str
    held_out: str
    factor: float = 1.0


FHVAE = (
    Panel("Lower bound, nats a segment", "train_bound", "dev_bound"),
    Panel("ln p(x | z1, z2), nats a segment", "train_log_px", "dev_log_px"),
    Panel("Discriminative term", "train_disc", "dev_disc"),
    Panel("KL of z1, nats", "train_kl_z1", "dev_kl_z1"),
    Panel("KL of z2, nats", "train_kl_z2", "dev_kl_z2"),
    Panel("Sequence found by z2, %", "", "dev_seq_acc", 100.0),
    Panel("Norm of the gradient", "train_grad", ""),
)
END_TO_END = (
    Panel("Loss", "train_loss", "dev_loss"),
    Panel("Verification term of the loss", "train_ver", "dev_ver"),
    Panel("Identification term of the loss", "train_id", "dev_id"),
    Panel("EER of the development trials, %", "", "eer", 100.0),
    Panel("minDCF of the development trials", "", "min_dcf"),
    Panel("Cllr of the development trials", "", "cllr"),
    Panel("Learning rate", "lr", ""),
    Panel("Norm of the gradient", "train_grad", ""),
)


def parse_metrics(text):
    """The lines of a metrics.jsonl as dicts, but a last one that is cut short; None where another is none."""
    lines, texts = [], [line for line in text.splitlines() if line.strip()]
    for number, line in enumerate(texts, 1):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            if number == 1 or number < len(texts) or text.endswith("\n"):
                return None
    if not lines or not all(isinstance(line, dict) and isinstance(line.get("epoch"), int) for line in lines):
        return None
    return lines


def panels_of(lines):
    """(kind of training, its Panels) by the names of its figures."""
    if any("dev_bound" in line for line in lines):
        return "FHVAE", FHVAE
    return "end-to-end network", END_TO_END


def curve_of(lines, name, factor=1.0):
    """(epochs, values) where lines have a figure; what is null, or no number, is left out."""
    found = [
        (line["epoch"], factor * line[name])
        for line in lines
        if isinstance(line.get(name), (int, float)) and not isinstance(line.get(name), bool)
    ]
    return [epoch for epoch, _ in found], [value for _, value in found]


def training_figures(folder, lines):
    """The figures of a training from the lines of its metrics.jsonl."""
    found = [_panel_figure(folder, lines, panel) for panel in panels_of(lines)[1]]
    return [figure for figure in found if figure is not None]


def _panel_figure(folder, lines, panel):
    """The figure of a Panel; None where the lines have none of its numbers."""
    data, legend, seen, said = [], [], [], []
    drawn = ((panel.train, "training", TRAIN, "dot"), (panel.held_out, "held out", HELD_OUT, "solid"))
    for name, label, color, dash in drawn:
        epochs, values = curve_of(lines, name, panel.factor) if name else ([], [])
        if not values:
            continue
        style = {"mode": "lines+markers", "marker": {"size": 5, "color": color}}
        hover = "epoch %{x}: %{y:.5g}" + plots.EXTRA_NAME
        data.append(plots.line(epochs, values, label, color, dash, **style, hovertemplate=hover))
        legend.append(Mark(label, color, dash))
        seen += values[1:] if len(values) > 2 and epochs[0] == 0 else values
        said.append(f"{label} {values[0]:.4g} to {values[-1]:.4g}")
    if not data:
        return None
    x_axis = plots.axis("epoch", **_whole([lines[0]["epoch"], lines[-1]["epoch"]]))
    layout = plots.layout(x_axis, plots.axis(**_axis_range(seen)))
    alt = f"{panel.title} over the epochs of {folder}: {'; '.join(said)}."
    return Figure(identifier(f"{folder} {panel.title}"), panel.title, alt, data, layout, legend=legend)


def _axis_range(values):
    """The range of an axis: of what comes behind epoch 0, whose figures may be far from all others."""
    low, high = min(values), max(values)
    if not np.isfinite([low, high]).all():
        return {}
    room = 0.06 * (high - low) or 0.5 * max(abs(high), 1e-9)
    return {"range": plots.rounded([low - room, high + room])}


def metrics_table(folder, lines):
    """The figures of a training as numbers, an epoch a row; of many epochs every so many."""
    names = list(
        dict.fromkeys(
            name
            for panel in panels_of(lines)[1]
            for name in (panel.train, panel.held_out)
            if name and any(name in line for line in lines)
        )
    )
    chosen = sorted(
        {int(place) for place in np.linspace(0, len(lines) - 1, min(len(lines), _MOST_ROWS)).round()}
    )
    rows = [[Cell(str(lines[place]["epoch"]), lines[place]["epoch"])] for place in chosen]
    for name in names:
        for row, cell in zip(rows, _cells([lines[place].get(name) for place in chosen])):
            row.append(cell)
    best = next(
        (f" The best epoch is {line['best_epoch']}." for line in reversed(lines) if "best_epoch" in line), ""
    )
    return Table(f"Epochs of {folder}", ["#epoch", *(f"#{name}" for name in names)], rows, best.strip())


def _cells(values):
    """Cells of a column, with as many decimals as its largest number leaves room for."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    largest = max(map(abs, numbers), default=0.0)
    digits = 2 if largest >= 100 else 4 if largest >= 0.1 else 6
    return [
        Cell(f"{value:.{digits}f}", value) if isinstance(value, (int, float)) else Cell("-")
        for value in values
    ]


# ------------------------------------------------------------------------------------------------ the section


def training_section(experiment):
    """The Section of all trainings."""
    section = Section("training", "Training")
    curves = read_em_curves(experiment)
    if curves:
        figures = [em_figure(curve) for curve in curves[:_MOST_CURVES]]
        section.parts += [Heading("Iterations of EM and of the discriminative PLDA"), Grid(figures)]
        if len(curves) > _MOST_CURVES:
            section.missing.append(f"{len(curves) - _MOST_CURVES} more curves of EM are left out.")
    else:
        section.missing.append(
            "No curves of EM: steps/train_diag_ubm.sh, train_ivector_extractor.sh and "
            "train_plda.sh leave them in <model>/log."
        )
    networks = sorted(
        path for depth in ("*", "*/*") for path in experiment.folder.glob(f"{depth}/metrics.jsonl")
    )
    for path in networks:
        folder = experiment.name_of(path.parent)
        lines = parse_metrics(read_text(path) or "")
        if lines is None:
            section.missing.append(
                f"{experiment.name_of(path)} is damaged: a line is no JSON, or has no epoch."
            )
            continue
        figures = training_figures(folder, lines)
        section.parts += [
            Heading(f"{folder}: {panels_of(lines)[0]}"),
            Grid(figures),
            metrics_table(folder, lines),
        ]
    if not networks:
        section.missing.append(
            "No curves of networks: train-e2e-verif and train-fhvae write metrics.jsonl into "
            "the model's folder."
        )
    return section
