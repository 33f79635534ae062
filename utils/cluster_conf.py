"""The file that maps a launcher's options to those of sbatch or qsub, in the spirit of Kaldi's queue.conf:

    command qsub -cwd -S /bin/bash        the program that submits, and options that every job has
    option mem=* -l mem_free=$0           what --mem 4G adds; $0 is the value, $1 that of one thread (mem only)
    option mem=0                          what --mem 0 adds: nothing
    default gpu=0                         as if --gpu 0 had been given first

Lines are words, split and unquoted as a shell does, but nothing is run or expanded. # begins a comment, - and _ are
alike in names. Kaldi's own slurm.conf and queue.conf are accepted.
"""

import os
import re
import shlex

import launcher

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What the launcher sees to itself, and the values these have by default; a `default` line gives others.
OWN = {
    "pick": "all",
    "retries": "1",
    "lost-wait": "60",
    "query-seconds": "30",
    "requeue": "false",
    "requeue-limit": "100",
    "save-seconds": "120",
    "max-jobs-run": "0",
    "config": "",
    "sync": "y",
}
_NUMBERS = ("retries", "lost-wait", "query-seconds", "requeue-limit", "save-seconds", "max-jobs-run", "num-threads",
            "num-nodes", "gpu")
_NOTHING = {"num-threads": "1", "num-nodes": "1", "gpu": "0", "mem": "0"}  # need no line in the file
_UNITS = {"K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}


def find(option, variable, name):
    """Return the path of the file: --config, the environment, conf/ of the current folder, or of the checkout."""
    for path in (option, os.environ.get(variable)):
        if path:
            return path
    here = os.path.join("conf", name)
    return here if os.path.isfile(here) else os.path.join(ROOT, here)


class Conf:
    """What a file says: ``command`` (words), ``options`` (name: {value or "*": words}), ``defaults`` (name: value)."""

    def __init__(self, path):
        """Read it; UsageError names the line that is wrong."""
        self.path, self.command, self.options, self.defaults = path, [], {}, {}
        try:
            with open(path, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    self._read_line(line, f"{path}:{number}")
        except (OSError, UnicodeDecodeError) as error:
            raise launcher.UsageError(f"--config {path}: {getattr(error, 'strerror', 'no text file')}") from None
        if not self.command:
            raise launcher.UsageError(f"{path}: it has no line `command ...`, the program that submits")

    def _read_line(self, line, place):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise launcher.UsageError(f"{place}: {error}: {line.strip()}") from None
        if not words:
            return
        kind, words = words[0], words[1:]
        if kind == "command" and words:
            self.command = words
            return
        name, equals, value = words[0].partition("=") if words else ("", "", "")
        name = name.replace("_", "-")
        if kind == "option" and name and equals and value:
            self.options.setdefault(name, {})[value] = words[1:]
        elif kind == "default" and name and equals and len(words) == 1:
            self.defaults[name] = value
        else:
            raise launcher.UsageError(
                f"{place}: expected `command WORDS`, `option NAME=VALUE WORDS` or `default NAME=VALUE`, "
                f"found: {line.strip()}"
            )

    def words(self, name, value, threads):
        """The words that an option adds; UsageError if the file does not know it."""
        known = self.options.get(name, {})
        for key in (value,) if name in OWN or _NOTHING.get(name) == value else (value, "*"):
            if key in known:
                return [_fill(word, name, value, threads) for word in known[key]]
        if name in OWN or _NOTHING.get(name) == value:
            return []
        if known:
            raise launcher.UsageError(f"--{name} {value}: {self.path} knows only {', '.join(known)} for it")
        raise launcher.UsageError(
            f"--{name} {value}: neither {launcher.program()} nor {self.path} knows this option; where it is one of "
            f"{self.command[0]}, add a line `option {name}=* --{name}=$0`, or as it is written there"
        )


def _fill(word, name, value, threads):
    if name == "mem":
        word = word.replace("$1", share_of_memory(value, threads))
    return word.replace("$0", value)


def memory(text):
    """--mem in Kaldi's forms (4G, 500M, 1.5g; a plain number is megabytes) as a whole number with its unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.upper())
    if match is None:
        raise launcher.UsageError(f"--mem {text}: expected a size such as 4G or 500M")
    number, unit = float(match[1]), match[2] or "M"
    if not number:
        return "0"
    if number.is_integer():
        return f"{int(number)}{unit}"
    return f"{max(1, round(number * _UNITS[unit]))}K"


def kilobytes(text):
    """A size of :func:`memory` as a number."""
    return 0 if text == "0" else int(text[:-1]) * _UNITS[text[-1]]


def share_of_memory(text, threads):
    """The memory of one of ``threads`` threads, in the same form."""
    return text if threads == 1 else f"{-(-kilobytes(text) // threads)}K"


def duration(text):
    """--time in Slurm's forms (minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s) as seconds."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise launcher.UsageError(f"--time {text}: expected h:mm:ss, minutes, or days-h:mm:ss")
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None or third is not None:
        return (days or 0) * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)
    return first * 60 + (second or 0)


def as_clock(seconds):
    """Seconds as h:mm:ss, which sbatch and qsub read alike."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Settings:
    """The options of one call."""

    def __init__(self, request, conf):
        """Put together defaults, the file's defaults and the command line's; UsageError where one is wrong."""
        given = {**OWN, **_NOTHING, **conf.defaults, **{name: str(v) for name, v in request.options.items()}}
        for name in _NUMBERS:
            if not given[name].isdigit():
                raise launcher.UsageError(f"--{name} {given[name]}: expected a number")
        if given["requeue"] not in ("true", "false"):
            raise launcher.UsageError(f"--requeue {given['requeue']}: expected true or false")
        self.threads, self.nodes = max(1, int(given["num-threads"])), max(1, int(given["num-nodes"]))
        given["mem"] = memory(given["mem"])
        self.kilobytes = kilobytes(given["mem"])
        self.seconds = duration(given["time"]) if given.get("time", "0") != "0" else None
        if self.seconds:
            given["time"] = as_clock(self.seconds)
        else:
            given.pop("time", None)
        self.given = given
        self.retries, self.lost_wait = int(given["retries"]), int(given["lost-wait"])
        self.query_seconds, self.limit = int(given["query-seconds"]), int(given["max-jobs-run"])
        self.requeue = given["requeue"] == "true"
        self.requeue_limit, self.save_seconds = int(given["requeue-limit"]), int(given["save-seconds"])
        # How often a job looks whether it is given up, and how long it gets until another may begin.
        self.revoked_seconds = min(5, max(0.2, self.lost_wait / 10))
        self.revoke_wait = 2 * self.revoked_seconds + min(2, self.lost_wait)

    def words(self, conf, passed):
        """The command that submits, with the options that the file gives, and those ``passed`` on."""
        words = [word for name, value in self.given.items() if name not in OWN
                 for word in conf.words(name, value, self.threads)]
        return [*conf.command, *words, *passed]
