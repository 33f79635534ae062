"""What the folder of an experiment holds, by the names that the recipes use; nothing in it is executed.

`experiment` has lines `key value...`, `systems` lines `NAME title`, `.stages/journal` lines of five columns;
each may be missing.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from voxark import datadir
from voxark.errors import VoxarkError

LARGEST_TEXT = 64 << 20  # bytes of a file that is read whole
_NO_DATA = ("log", "data", "wav")


@dataclass
class System:
    """A system: the name of its folder, its title and the files that it has."""

    name: str
    title: str
    scores: Path
    folder: Path


@dataclass
class Stage:
    """A line of the journal."""

    number: str
    name: str
    title: str
    seconds: float
    finished: str


@dataclass
class Experiment:
    """Where the parts of an experiment are; ``facts``: what its file `experiment` says, key to text."""

    folder: Path
    facts: dict
    trials: Path
    data: Path | None
    labels: list
    systems: list
    unscored: list
    stages: list
    enroll_map: Path | None = None
    data_dirs: list = field(default_factory=list)

    @property
    def title(self):
        """What the page is called."""
        return self.facts.get("title") or f"Experiment {self.folder.resolve().name}"

    def name_of(self, path):
        """The path as seen from the experiment's folder, where it lies in there."""
        return shown_path(path, self.folder)


def shown_path(path, folder):
    """``path`` relative to ``folder`` where it lies in there, else whole."""
    try:
        return str(Path(path).resolve().relative_to(Path(folder).resolve()))
    except ValueError:
        return str(path)


def read_text(path):
    """A text file of bounded size, bytes that are no UTF-8 replaced; None where it is not there."""
    try:
        with open(path, "rb") as source:
            return source.read(LARGEST_TEXT).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise VoxarkError(f"{path}: cannot be read: {error.strerror}") from None


def read_pairs(path):
    """Lines `key rest of the line` as a list of (key, rest); empty where the file is not there."""
    found = []
    for line in (read_text(path) or "").split("\n"):
        key, _, rest = line.strip().partition(" ")
        if key:
            found.append((key, rest.strip()))
    return found


def read_column(path, parse=None):
    """A table of a data directory as a dict; empty where the file is missing or has no line."""
    try:
        if os.path.getsize(path) == 0:
            return {}
    except OSError:
        return {}
    return dict(datadir.read_table(str(path), parse))


def read_experiment(folder, trials="", data="", labels="", title=""):
    """The Experiment in a folder; what is given in words wins over what its files say.

    VoxarkError where there is no such folder, no scores in it or no list of trials.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VoxarkError(f"{folder}: there is no such folder")
    facts = dict(read_pairs(folder / "experiment"))
    if title:
        facts["title"] = title
    data_dir = _data_folder(folder, data, facts)
    systems, unscored = find_systems(folder)
    if not systems:
        raise VoxarkError(f"{folder}: no scores in it: a system is a folder scores_NAME with a file scores")
    found = Experiment(
        folder,
        facts,
        _trial_list(folder, trials, facts, data_dir),
        data_dir,
        [],
        systems,
        unscored,
        read_journal(folder / ".stages" / "journal"),
    )
    found.data_dirs = find_data_dirs(data_dir) if data_dir else []
    found.labels = _label_dirs(labels, facts, found)
    beside = found.trials.parent / "enroll_map"
    found.enroll_map = beside if beside.is_file() else None
    return found


def _existing(folder, text, is_there):
    """A path of the file `experiment`: as it stands, or seen from the folder; None where neither is there."""
    for path in (Path(text), folder / text):
        if text and is_there(path):
            return path
    return None


def _data_folder(folder, data, facts):
    if data:
        if not Path(data).is_dir():
            raise VoxarkError(f"--data={data}: there is no such folder")
        return Path(data)
    found = _existing(folder, facts.get("data", ""), Path.is_dir)
    return found or (folder / "data" if (folder / "data").is_dir() else None)


def _trial_list(folder, trials, facts, data):
    if trials:
        if not Path(trials).is_file():
            raise VoxarkError(f"--trials={trials}: there is no such file")
        return Path(trials)
    found = _existing(folder, facts.get("trials", ""), Path.is_file)
    if found is None and data is not None and (data / "trials").is_file():
        found = data / "trials"
    if found is None:
        named = facts.get("trials") or f"{data or folder / 'data'}/trials"
        raise VoxarkError(f"{named}: there is no such list of trials; --trials=FILE names it")
    return found


def _label_dirs(labels, facts, found):
    """Data directories in which labels of the test data are looked for, the first one first."""
    if labels and not Path(labels).is_dir():
        raise VoxarkError(f"--labels={labels}: there is no such folder")
    given = Path(labels) if labels else _existing(found.folder, facts.get("labels", ""), Path.is_dir)
    dirs = [given] if given else []
    dirs += [path for path in found.data_dirs if path.name.startswith(("test", "eval"))]
    dirs += [path for path in found.data_dirs if path not in dirs]
    return list(dict.fromkeys(dirs))


def find_systems(folder):
    """(Systems, titles of those without scores): in the order of `systems`, others behind by name."""
    titles = dict(read_pairs(folder / "systems"))
    names = list(titles)
    names += sorted(
        path.name[len("scores_") :]
        for path in folder.glob("scores_*")
        if path.is_dir() and path.name[len("scores_") :] not in titles
    )
    found, unscored = [], []
    for name in names:
        of = folder / f"scores_{name}"
        system = System(name, titles.get(name) or name, of / "scores", of)
        if system.scores.is_file():
            found.append(system)
        elif name in titles:
            unscored.append(system.title)
    if not found and (folder / "scores").is_file():
        found.append(System(folder.resolve().name, folder.resolve().name, folder / "scores", folder))
    return found, unscored


def read_journal(path):
    """The Stages that a recipe has written down, in their order; the last run of each counts.

    VoxarkError names a line that is wrong, but for a last one that is still being written.
    """
    found, text = {}, read_text(path) or ""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if not line.strip():
            continue
        try:
            stage = Stage(fields[0], fields[1], fields[2], float(fields[3]), fields[4])
            if not math.isfinite(stage.seconds):
                raise ValueError
        except (IndexError, ValueError):
            if number == len(text.splitlines()) and not text.endswith("\n"):
                break
            raise VoxarkError(
                f"{path}:{number}: number, name, title, seconds, time were expected, with tabs between them, "
                f"found {line[:60]!r}"
            ) from None
        found.pop(stage.name, None)
        found[stage.name] = stage
    return sorted(
        found.values(),
        key=lambda stage: (not stage.number.isdigit(), int(stage.number) if stage.number.isdigit() else 0),
    )


def find_data_dirs(data):
    """The data directories in a folder and in the folders in it, sorted; not the parts that jobs work on."""
    found = [data] if _is_data_dir(data) else []
    for path in _folders(data):
        found += [inner for inner in (path, *_folders(path)) if _is_data_dir(inner)]
    return found


def _folders(path):
    """The folders in a folder, sorted, without those that jobs and programs use."""
    return [inner for inner in sorted(path.iterdir()) if inner.is_dir() and not _is_hidden(inner)]


def log_folders(experiment):
    """The folders with logs of jobs: of models, vectors and scores, one or two folders down; of the data."""
    found = [path for depth in ("*", "*/*") for path in sorted(experiment.folder.glob(f"{depth}/log"))]
    found += [path / "log" for path in experiment.data_dirs]
    return list({path.resolve(): path for path in found}.values())


def log_files(folder):
    """The logs in a folder, sorted; files only: opening a named pipe would wait for ever."""
    return [path for path in sorted(folder.glob("*.log")) if path.is_file()]


def _is_data_dir(path):
    return (path / "utt2spk").is_file()


def _is_hidden(path):
    return path.name.startswith((".", "split")) or path.name in _NO_DATA


def merged_table(experiment, name, parse=None):
    """The lines of the files of that name in all data directories; the first directory with a key counts."""
    merged = {}
    for folder in experiment.labels:
        for key, value in read_column(folder / name, parse).items():
            merged.setdefault(key, value)
    return merged
