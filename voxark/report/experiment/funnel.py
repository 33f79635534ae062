"""How many utterances each data directory has, how many every step dropped, and why."""

import re
from collections import Counter
from dataclasses import dataclass

from voxark.report.drawing import COMPONENTS
from voxark.report.experiment import plots
from voxark.report.experiment.folder import read_column, read_pairs, read_text, shown_path
from voxark.report.experiment.parts import Cell, Figure, Mark, Section, Table, share

_MOST_REASONS = 5
_FRAME = 0.01  # seconds between frames, where only their number is known


@dataclass
class Step:
    """A step over a data directory: utterances in, {reason: number} of those dropped."""

    name: str
    num_in: int
    reasons: dict

    @property
    def num_dropped(self):
        """The number of utterances that the step dropped."""
        return sum(self.reasons.values())


@dataclass
class Funnel:
    """A data directory: its name, speakers, utterances, seconds (None where nothing tells) and its Steps.

    ``by_frames``: the seconds are counted from frames of 10 ms.
    """

    name: str
    num_speakers: int
    num_utterances: int
    seconds: float | None
    by_frames: bool
    steps: list

    @property
    def num_left(self):
        """The number of utterances behind the last step."""
        return self.steps[-1].num_in - self.steps[-1].num_dropped if self.steps else self.num_utterances


def group_reasons(reasons):
    """{reason: number}, the most frequent first; reasons that differ only in names and numbers are one."""
    groups, first = Counter(), {}
    for reason in reasons:
        pattern = re.sub(r"\S*[/\d]\S*", "…", reason.strip()) or "no reason given"
        groups[pattern] += 1
        first.setdefault(pattern, reason.strip() or pattern)
    return {(first[pattern] if number == 1 else pattern): number for pattern, number in groups.most_common()}


def make_funnel(name, utt2spk, seconds, by_frames, ledgers):
    """The Funnel of a data directory.

    ``utt2spk``: dict; ``seconds``: {utterance: duration}; ``ledgers``: [(step, [(utterance, reason)])] in the
    order of the steps. What preparation dropped is not in utt2spk any more; what later steps dropped is.
    """
    prepared = [dropped for step, dropped in ledgers if step == "prepare"]
    left = len(utt2spk) + sum(len({key for key, _ in dropped} - set(utt2spk)) for dropped in prepared)
    steps = []
    for step, dropped in ledgers:
        steps.append(Step(step, left, group_reasons(reason for _, reason in dict(dropped).items())))
        left -= len(dict(dropped))
    known = [seconds[key] for key in utt2spk if key in seconds]
    total = sum(known) if known and len(known) == len(utt2spk) else None
    return Funnel(name, len(set(utt2spk.values())), len(utt2spk), total, by_frames, steps)


def read_funnel(folder, name):
    """The Funnel of a data directory on disk."""
    seconds, by_frames = _durations(folder)
    return make_funnel(name, read_column(folder / "utt2spk"), seconds, by_frames, _ledgers(folder))


def _durations(folder):
    """({utterance: seconds}, whether they are counted from frames)."""
    found = read_column(folder / "utt2dur")
    if found:
        return found, False
    segments = read_column(folder / "segments")
    if segments:
        return {key: of.end - of.start for key, of in segments.items() if of.end >= 0}, False
    found = read_column(folder / "reco2dur")
    if found:
        return found, False
    frames = read_column(folder / "utt2num_frames")
    return {key: _FRAME * number for key, number in frames.items()}, True


def _ledgers(folder):
    """[(step, [(utterance, reason)])]: preparation first, the others in the order in which they finished."""
    names = {path.name[len("dropped.") :] for path in folder.glob("dropped.*")}
    times = {}
    for path in folder.glob(".done.*"):
        words = (read_text(path) or "").partition("\n")[0].split(" ")
        times[path.name[len(".done.") :]] = int(words[-1]) if words[-1].isdigit() else 0
    order = sorted(names | set(times), key=lambda step: (step != "prepare", times.get(step, 0), step))
    return [(step, read_pairs(folder / f"dropped.{step}")) for step in order]


# ------------------------------------------------------------------------------------------------ the section


def funnel_section(experiment, results):
    """The Section of the data: a table and a picture of the funnels, and what models and scores left out."""
    section = Section("data", "Data")
    funnels = [read_funnel(path, shown_path(path, experiment.data)) for path in experiment.data_dirs]
    funnels = [funnel for funnel in funnels if funnel.num_utterances]
    if not funnels:
        section.missing.append("No data directories: --data=DIR names the folder that they lie in.")
        return section
    section.parts += [_table(funnels), _figure(funnels)]
    dropped = [(name, reasons) for name, reasons in model_ledgers(experiment, results) if reasons]
    if dropped:
        section.parts.append(
            Table(
                "Left out by models and scores",
                ["Folder", "#left out", "Why"],
                [
                    [name, Cell(f"{sum(reasons.values()):,}", sum(reasons.values())), why(reasons)]
                    for name, reasons in dropped
                ],
            )
        )
    else:
        section.missing.append("Models and scores left nothing out.")
    return section


def model_ledgers(experiment, results):
    """[(folder, {reason: number})] of the files `dropped` in the folders of models, vectors and scores."""
    found = []
    for path in sorted(experiment.folder.glob("*/dropped")):
        found.append((path.parent.name, group_reasons(reason for _, reason in read_pairs(path))))
    found += [
        (f"{result.system.folder.name}: trials", {"no score": result.missing})
        for result in results
        if result.missing
    ]
    return found


def why(reasons):
    """Reasons with their numbers, as one text."""
    listed = [f"{number:,} × {reason}" for reason, number in list(reasons.items())[:_MOST_REASONS]]
    rest = sum(list(reasons.values())[_MOST_REASONS:])
    return "; ".join(listed + ([f"{rest:,} for other reasons"] if rest else []))


def _table(funnels):
    rows = []
    for funnel in funnels:
        hours = "-" if funnel.seconds is None else f"{funnel.seconds / 3600:.2f}" + " *" * funnel.by_frames
        head = [
            funnel.name,
            Cell(f"{funnel.num_speakers:,}", funnel.num_speakers),
            Cell(hours, funnel.seconds),
        ]
        start = funnel.steps[0].num_in if funnel.steps else funnel.num_utterances
        rows.append(
            [
                *head,
                "in the corpus" if funnel.steps and funnel.steps[0].name == "prepare" else "prepared",
                "",
                Cell(f"{start:,}", start, bar=1.0),
                "",
            ]
        )
        for step in funnel.steps:
            left = step.num_in - step.num_dropped
            rows.append(
                [
                    *head,
                    step.name,
                    Cell(
                        f"{step.num_dropped:,}",
                        step.num_dropped,
                        share(step.num_dropped, step.num_in) if step.num_dropped else "",
                    ),
                    Cell(f"{left:,}", left, bar=left / start if start else 0.0),
                    why(step.reasons),
                ]
            )
    note = "* counted from frames of 10 ms." if any(funnel.by_frames for funnel in funnels) else ""
    return Table(
        "Utterances of each data directory behind each step",
        ["Directory", "#speakers", "#hours", "Step", "#dropped", "#utterances left", "Why"],
        rows,
        note,
    )


def _figure(funnels):
    """Bars of the utterances that are left, and of those that each step dropped."""
    order = funnels[::-1]
    names = [plots.plain(funnel.name) for funnel in order]
    series = [("left", [funnel.num_left for funnel in order], COMPONENTS[0])]
    steps = dict.fromkeys(step.name for funnel in funnels for step in funnel.steps if step.num_dropped)
    for number, step in enumerate(steps):
        values = [sum(s.num_dropped for s in funnel.steps if s.name == step) for funnel in order]
        series.append((f"dropped by {step}", values, COMPONENTS[1 + number % (len(COMPONENTS) - 1)]))
    data = [plots.bars(names, values, name, color) for name, values, color in series]
    names_axis = plots.axis(type="category", showline=False, ticks="")
    layout = plots.layout(
        plots.axis("utterances", rangemode="tozero"), names_axis, barmode="stack", bargap=0.35
    )
    left = "; ".join(f"{funnel.name} {funnel.num_left:,} left" for funnel in funnels)
    legend = [Mark(name, color, "box") for name, _, color in series]
    return Figure(
        "funnel",
        "Utterances left and dropped",
        f"Utterances of each data directory: {left}.",
        data,
        layout,
        legend=legend,
        **plots.bars_shape(len(funnels)),
    )


def durations_of(experiment):
    """{utterance: seconds} of all data directories with labels, by the first one that knows."""
    merged = {}
    for folder in experiment.labels:
        for key, seconds in _durations(folder)[0].items():
            merged.setdefault(key, seconds)
    return merged
