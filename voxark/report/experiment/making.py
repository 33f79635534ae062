"""How an experiment was made: commands, versions, seeds, configuration, times, machine, revision."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from voxark import versions
from voxark.report.drawing import BLUE
from voxark.report.experiment import plots
from voxark.report.experiment.folder import log_files, log_folders, read_text
from voxark.report.experiment.parts import Cell, Figure, Heading, Listing, Section, Table

_FACTS = {"python": "Python", "system": "operating system"}  # names of versions.facts() for people

_HEAD, _TAIL = 1 << 16, 1 << 12  # bytes of a log that are looked at
_MOST_GROUPS, _MOST_LETTERS = 400, 4000


@dataclass
class Log:
    """What the launcher wrote round a job: seconds None where the job has not ended."""

    path: Path
    command: str
    host: str = ""
    started: datetime | None = None
    seconds: float | None = None
    code: str = ""


@dataclass
class Jobs:
    """The jobs of one command, as `acc.3.1.log` and `acc.3.2.log`."""

    folder: str
    name: str
    logs: list = field(default_factory=list)

    @property
    def seconds(self):
        """Seconds of all jobs together; None where nothing tells."""
        known = [log.seconds for log in self.logs if log.seconds is not None]
        return sum(known) if known else None


def parse_log(path, head, tail):
    """The Log of a job from the beginning and the end of its text; None where no launcher has written it."""
    if not head.startswith("# "):
        return None
    found = Log(path, head.partition("\n")[0][2:].strip())
    host, started = (
        re.search(r"^# Running on (.*)$", head, re.M),
        re.search(r"^# Started at (.*)$", head, re.M),
    )
    found.host = host[1].strip() if host else ""
    found.started = parse_date(started[1]) if started else None
    elapsed = re.search(r"^# Accounting: time=(\d+(?:\.\d+)?)", tail, re.M)
    ended = re.search(r"^# Ended \(code (\d+)", tail, re.M)
    found.seconds, found.code = float(elapsed[1]) if elapsed else None, ended[1] if ended else ""
    return found


def parse_date(text):
    """A date as `date` prints it (Sat Nov 21 19:44:56 UTC 2026), without its zone; None where it is none."""
    words = text.split()
    if len(words) == 6:
        del words[4]
    try:
        return datetime.strptime(" ".join(words), "%a %b %d %H:%M:%S %Y")
    except ValueError:
        return None


def read_log(path):
    """The Log in a file, of which only both ends are read; None where it is none."""
    try:
        with open(path, "rb") as source:
            head = source.read(_HEAD)
            source.seek(max(0, path.stat().st_size - _TAIL))
            tail = source.read(_TAIL)
    except OSError:
        return None
    return parse_log(path, head.decode("utf-8", "replace"), tail.decode("utf-8", "replace"))


def read_logs(experiment):
    """All Logs of the models' folders and of the data directories, by folder, in the order of their start."""
    paths = [path for folder in log_folders(experiment) for path in log_files(folder)]
    found = [log for path in paths if (log := read_log(path))]
    begun = {}
    for log in found:
        begun[log.path.parent] = min(begun.get(log.path.parent, datetime.max), log.started or datetime.max)
    return sorted(
        found,
        key=lambda log: (
            begun[log.path.parent],
            str(log.path.parent),
            log.started or datetime.max,
            log.path.name,
        ),
    )


def group_logs(logs, name_of):
    """The Jobs of Logs: those of one folder whose names differ in numbers only."""
    found = {}
    for log in logs:
        folder, stem = name_of(log.path.parent.parent), re.sub(r"(\.\d+)+$", "", log.path.stem)
        found.setdefault((folder, stem), Jobs(folder, stem)).logs.append(log)
    return list(found.values())


# ------------------------------------------------------------------------------------------------ parts of it


def commands_parts(groups):
    """A table of the commands, and their texts."""
    rows = []
    for group in groups[:_MOST_GROUPS]:
        failed = sum(log.code not in ("", "0") for log in group.logs)
        seconds = group.seconds
        rows.append(
            [
                group.folder,
                group.name,
                _program(group.logs[0].command),
                Cell(f"{len(group.logs):,}", len(group.logs)),
                Cell("-" if seconds is None else f"{seconds:,.0f}", seconds),
                Cell(str(failed), failed),
            ]
        )
    table = Table(
        "Jobs by folder",
        ["Folder", "Log", "Program", "#jobs", "#seconds", "#failed"],
        rows,
        "Seconds: of all jobs of a row together.",
    )
    lines = []
    for group in groups[:_MOST_GROUPS]:
        command = group.logs[0].command
        lines.append(
            f"# {group.folder}, {group.name}: {len(group.logs)} jobs\n"
            + (command if len(command) <= _MOST_LETTERS else command[:_MOST_LETTERS] + " ...")
        )
    found = [Heading("Commands"), table, Listing("The first command of each row", "\n\n".join(lines))]
    if len(groups) > _MOST_GROUPS:
        table.note += f" The first {_MOST_GROUPS} of {len(groups)} rows."
    return found


def _program(command):
    """The first program of a command, behind settings of the shell."""
    parts = [part.split() for part in re.split(r"[;|&(]+", command)]
    words = next((words for words in parts if words and words[0] not in ("set", "cd", "export")), [""])
    return Path(words[0]).name


def stages_parts(stages):
    """The times of the stages as a figure and a table."""
    total = sum(stage.seconds for stage in stages)
    rows = [
        [_number_cell(stage.number), stage.title, _seconds_cell(stage.seconds, total), stage.finished]
        for stage in stages
    ]
    table = Table(f"Stages, {total:,.0f} seconds in all", ["#stage", "What", "#seconds", "Finished"], rows)
    names = [plots.plain(f"{stage.number} {stage.title}"[:40]) for stage in stages]
    data = [plots.bars(names[::-1], [stage.seconds for stage in stages[::-1]], "seconds", BLUE)]
    names_axis = plots.axis(type="category", showline=False, ticks="", dtick=1)
    layout = plots.layout(plots.axis("seconds", rangemode="tozero"), names_axis, bargap=0.3)
    alt = "Seconds that each stage took; the table has the numbers."
    figure = Figure("stages", "Times of the stages", alt, data, layout, **plots.bars_shape(len(stages)))
    return [Heading("Stages"), figure, table]


def _number_cell(text):
    return Cell(text, float(text) if text.isdigit() else None)


def _seconds_cell(seconds, total):
    return Cell(f"{seconds:,.0f}", seconds, bar=seconds / total if total else 0.0)


def versions_table(facts, hosts):
    """Versions, machine and revision: as the experiment's file has them, else as they are now."""
    rows, now = [], versions.facts()
    for key in now:
        recorded = facts.get(key)
        if recorded or now[key]:
            rows.append([_FACTS.get(key, key), recorded or now[key], "run" if recorded else "now"])
    if hosts:
        rows.append(["hosts", ", ".join(hosts[:20]), "run, by the logs"])
    note = "run: as the experiment's files say; now: as of the machine that made this page, for want of that."
    return Table("Versions and machine", ["What", "Value", "As of"], rows, note)


def seeds_table(facts, groups):
    """The seeds that the commands have had; None where there is none."""
    rows = [["experiment", facts["seed"]]] if "seed" in facts else []
    for group in groups:
        found = list(dict.fromkeys(re.findall(r"--(?:srand|seed)[= ]'?(\d+)", group.logs[0].command)))
        if found:
            rows.append([f"{group.folder}, {group.name}", ", ".join(found)])
    return Table("Seeds", ["Where", "Seed"], rows) if rows else None


def configuration_parts(experiment):
    """The configuration files of the models, each text once."""
    found = {}
    for pattern in ("*/*.conf", "*/config.json"):
        for path in sorted(experiment.folder.glob(pattern)):
            text = read_text(path) or ""
            if text.strip():
                found.setdefault((path.name, text), []).append(path.parent.name)
    return [
        Listing(f"{name} of {', '.join(folders)}", text[:100_000]) for (name, text), folders in found.items()
    ]


# ------------------------------------------------------------------------------------------------ the section


def making_section(experiment, logs):
    """The Section of how it was made."""
    section = Section("making", "How it was made")
    groups = group_logs(logs, experiment.name_of)
    if experiment.stages:
        section.parts += stages_parts(experiment.stages)
    else:
        section.missing.append("No times of stages: a recipe writes .stages/journal.")
    hosts = sorted({log.host for log in logs if log.host})
    section.parts += [Heading("Versions, machine, seeds"), versions_table(experiment.facts, hosts)]
    seeds = seeds_table(experiment.facts, groups)
    section.parts += [seeds] if seeds else []
    configuration = configuration_parts(experiment)
    if configuration:
        section.parts += [Heading("Configuration"), *configuration]
    if groups:
        section.parts += commands_parts(groups)
    else:
        section.missing.append(
            "No commands: jobs that go through run.py, slurm.py or queue.py leave them in log."
        )
    return section


def date_of(experiment, logs):
    """When the experiment started: by its file, by its logs, or by its journal; "" where nothing tells."""
    if experiment.facts.get("started"):
        return experiment.facts["started"]
    times = [log.started for log in logs if log.started]
    if times:
        return min(times).strftime("%Y-%m-%d %H:%M:%S")
    return experiment.stages[0].finished if experiment.stages else ""
