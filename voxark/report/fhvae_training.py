"""Curves of FHVAE trainings, out of their metrics.jsonl."""

import json
import logging
import os

import numpy as np

from voxark.errors import VoxarkError
from voxark.report.det import MOST_SYSTEMS, color_of, marker_of, shortened
from voxark.report.drawing import INK, PAPER, picture
from voxark.trials.system_names import distinct_names

logger = logging.getLogger(__name__)

# title, names of the curve in training (dotted) and of held-out sequences (solid)
PANELS = (
    ("lower bound, nats a segment", "train_bound", "dev_bound"),
    (r"$\log\;p(x\,|\,z_1,z_2)$", "train_log_px", "dev_log_px"),
    (r"discriminative term, $\log\;p(i\,|\,\bar{z}_2)$", "train_disc", "dev_disc"),
    ("$KL$ of $z_1$, nats", "train_kl_z1", "dev_kl_z1"),
    ("$KL$ of $z_2$, nats", "train_kl_z2", "dev_kl_z2"),
    (r"$\log\;p(\mu_2)\,/\,N$", "train_log_pmu2", "dev_log_pmu2"),
    ("sequence found by $z_2$, %", "", "dev_seq_acc"),
    ("dimensions in use: $z_1$ dotted, $z_2$ solid", "active_z1", "active_z2"),
    ("norm of the gradient", "train_grad", ""),
)


def read_metrics(folder):
    """The lines (dicts) of a training's metrics.jsonl. VoxarkError where there are none, or others."""
    path = os.path.join(folder, "metrics.jsonl")
    try:
        with open(path, encoding="utf-8") as source:
            lines = [json.loads(line) for line in source if line.strip()]
    except OSError as error:
        raise VoxarkError(
            f"{path}: cannot be read: {error.strerror}: is this the folder of a training?") from None
    except (ValueError, RecursionError):
        raise VoxarkError(f"{path}: is damaged: a line is no JSON") from None
    if not lines or not all(isinstance(line, dict) and {"steps", "dev_bound", "dev_disc"} <= set(line)
                            for line in lines):  # fmt: skip
        raise VoxarkError(f"{path}: holds no lines of an FHVAE training")
    return lines


def curve(lines, name):
    """(steps (n,), values (n,) float64) of a figure where lines have it; what is null is not a number."""
    steps, values = [], []
    for line in lines:
        if name in line:
            steps.append(line["steps"])
            values.append(np.nan if line[name] is None else line[name])
    return np.array(steps, np.float64), np.array(values, np.float64)


def draw_training(path, folders):
    """Draw the curves of the trainings in ``folders`` in one picture."""
    if len(folders) > MOST_SYSTEMS:
        raise VoxarkError(f"{len(folders)} trainings: more than {MOST_SYSTEMS} cannot be told apart")
    runs = [read_metrics(folder) for folder in folders]
    with picture(path, 3, 3, size=(11.0, 8.2 + 0.19 * len(runs)), sharex=True) as (figure, axes):
        for place, (panel, (title, dotted, solid)) in enumerate(zip(axes.flat, PANELS)):
            seen = []
            for number, lines in enumerate(runs):
                seen += _draw_run(panel, number, lines, dotted, solid)
            panel.set_title(title, fontsize=10.5)
            _set_range(panel, seen + [np.zeros(1)] * (dotted == "active_z1"), dotted == "train_grad")
            if place >= 6:
                panel.set_xlabel("steps")
        _name_runs(figure, distinct_names(folders), runs)
    for folder, lines in zip(folders, runs):
        best = max(lines, key=lambda line: -np.inf if line["dev_bound"] is None else line["dev_bound"])
        logger.info("%s: %d steps; best bound %s after %d", folder, lines[-1]["steps"], best["dev_bound"],
                    best["steps"])


def _draw_run(axes, number, lines, dotted, solid):
    """Draw both curves of a run; returns the values behind epoch 0, for the range of the axis."""
    seen = []
    for name, style in ((dotted, ":"), (solid, "-")):
        steps, values = curve(lines, name)
        if name == "dev_seq_acc":
            values = 100.0 * values
        if len(values):
            few = {"marker": ".", "markersize": 4} if len(values) < 10 else {}
            axes.plot(steps, values, style, color=color_of(number), linewidth=1.5, gid=f"{name}-{number + 1}",
                      **few)  # fmt: skip
            seen.append(values[1:] if len(values) > 2 and steps[0] == 0 else values)
        if name == "dev_bound" and np.isfinite(values).any():
            best = np.nanargmax(values)
            axes.plot(steps[best], values[best], marker_of(number), color=color_of(number), markersize=6,
                      markeredgecolor=PAPER, gid=f"best-{number + 1}")  # fmt: skip
    return seen


def _set_range(axes, seen, wide):
    """The axis shows what comes behind epoch 0, whose figures may be far from all others."""
    values = np.concatenate(seen) if seen else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = values.min(), values.max()
    if wide and low > 0 and high > 30.0 * low:
        axes.set_yscale("log")
    else:
        room = 0.06 * (high - low) or 0.5
        axes.set_ylim(low - room, high + room)


def _name_runs(figure, names, runs):
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color_of(number), marker=marker_of(number), markeredgecolor=PAPER)
               for number in range(len(runs))]
    handles += [Line2D([], [], color=INK, linestyle=style, linewidth=1.3) for style in (":", "-")]
    texts = [shortened(name, 40) + " (marker: best)" for name in names] + ["training", "held-out sequences"]
    # texts come later: a legend would take _ in front of a name, and $ in it, for instructions
    legend = figure.legend(handles, list(map(str, range(len(texts)))), loc="outside lower left",
                           ncols=min(3, len(texts)), handlelength=2.4)  # fmt: skip
    for shown, text in zip(legend.get_texts(), texts):
        shown.set(parse_math=False)
        shown.set_text(text)
