"""What the job launchers share: their command line, how a command is quoted, the job's number, the state of a
log.

The contract is that of Kaldi's run.pl, queue.pl and slurm.pl:

    <launcher> [options] [JOB=1:nj] <log-file> <command...>

The words of the command are joined into one line of bash. Words without white space stay as they are, so that
'\\|', '>', '2>&1', '&&' or '\\$[JOB+1]' act in the job's shell; words with white space are quoted, so that
"ark:gunzip -c x.gz |" arrives in one piece: in double quotes ($ and ` stay active in them), or in single
quotes if they hold a double quote. Ours differs in three points: a word that cannot stand in a line of bash
by itself (an unpaired quote, a leading #) is taken literally instead of breaking the job, file names are not
expanded (* and braces reach the program as they were given), and a command fails when any of its parts does
(pipefail, errexit).
"""

import collections
import re
import shlex

Request = collections.namedtuple("Request", "options job_name first last log words")
Request.__doc__ = (
    "A parsed command line: options (dict), job variable (or None), its range, log file, command."
)

BASH = ("bash", "-o", "noglob", "+o", "braceexpand", "-o", "errexit", "-o", "pipefail", "-c")

_RANGE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]+)(?::([0-9]+))?")
_ENDED = re.compile(r"# Ended \(code (\d+)(; signal \d+)?\)")
_PICKS = ("all", "failed", "incomplete")


class UsageError(Exception):
    """The launcher's own command line is wrong."""


def _take_options(words, options):
    """Move leading options from ``words`` into ``options`` (all take a value, except -V; -pe takes two)."""
    while words and words[0].startswith("-") and words[0] != "-":
        switch = words.pop(0)
        if switch in ("--help", "-h"):
            options["help"] = True
            continue
        if switch == "-V":
            continue
        name, equals, value = switch.lstrip("-").partition("=")
        if not equals:
            if not words:
                raise UsageError(f"{switch} needs a value")
            value = words.pop(0)
            if value.startswith("--"):
                raise UsageError(f"{switch} needs a value, but is followed by {value}")
        if switch == "-pe":
            name, value = "num-threads", words.pop(0) if words else ""
        name = {"tc": "max-jobs-run"}.get(name, name.replace("_", "-"))
        if name == "max-jobs-run" and name in options:  # given twice: the smaller holds, as in Kaldi
            value = str(min(_count(name, value), _count(name, options[name])))
        options[name] = value


def _count(name, value):
    if not re.fullmatch(r"[0-9]+", value) or int(value) < 1:
        raise UsageError(f"--{name} {value}: expected a number above zero")
    return int(value)


def _take_range(words):
    """Take JOB=1:nj or JOB=n off the words; return (name, first, last) or None."""
    match = _RANGE.fullmatch(words[0]) if words else None
    if match is None:
        if words and re.fullmatch(r"[A-Za-z_]\w*=[^/ ]*:[^/ ]*", words[0]):
            raise UsageError(f"invalid job range {words[0]} (expected JOB=1:n)")
        return None
    name, first, last = match[1], int(match[2]), int(match[3] or match[2])
    if first > last or first < 1:
        raise UsageError(f"invalid job range {words[0]}: it must start at 1 or above and not run backwards")
    words.pop(0)
    return name, first, last


def parse(argv):
    """Parse a launcher's command line; raise UsageError. Options and JOB=1:nj may come in either order."""
    words, options, job_range = list(argv), {}, None
    for _ in range(2):
        _take_options(words, options)
        job_range = _take_range(words) if job_range is None else job_range
    if "help" in options:
        return Request(options, None, 1, 1, "", [])
    if len(words) < 2:
        raise UsageError("a log file and a command are needed")
    for name in ("max-jobs-run", "num-threads"):
        if name in options:
            options[name] = _count(name, options[name])
    if options.setdefault("pick", "all") not in _PICKS:
        raise UsageError(f"--pick {options['pick']}: expected one of {', '.join(_PICKS)}")
    name, first, last = job_range or (None, 1, 1)
    log, words = words[0], words[1:]
    if name is not None and last > first and substitute(log, name, 0) == log:
        raise UsageError(
            f"{last - first + 1} jobs would write to one log file: {log} holds no {name} "
            f"(as a whole word: {name}.log or x.{name}.log)"
        )
    return Request(options, name, first, last, log, words)


def substitute(text, name, number):
    """Replace the whole word ``name`` by a number: JOB, x.JOB.ark and split4/JOB/wav.scp, not JOBNAME or
    MY_JOB."""
    return re.sub(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", str(number), text)


def _stands_alone(text):
    """True if bash can read this piece of a command line without its neighbours."""
    try:
        shlex.split(text)
    except ValueError:
        return False
    return not text.startswith("#")


def quote(word):
    """Write one word of a command for bash by Kaldi's rule (see the module's description)."""
    if word and not re.search(r"\s", word):
        shown = word
    elif '"' not in word:
        shown = f'"{word}"'
    else:
        shown = shlex.quote(word)
    return shown if _stands_alone(shown) else shlex.quote(word)


def command_line(words):
    """Join the words of a command into a line of bash."""
    return " ".join(map(quote, words))


def comment(text):
    """A command as it stands at the head of a log: every line of it behind a #."""
    return "# " + text.replace("\n", "\n# ")


def log_state(path, command):
    """Say how the job that wrote a log ended: "done", "failed" or "incomplete".

    A log that is absent, has no end, or belongs to another command is incomplete.
    """
    head, code = comment(command).rstrip(), None
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            if log.read(len(head)) != head or log.readline().strip():
                return "incomplete"
            for line in log:
                match = line.startswith("#") and _ENDED.match(line)
                if match:
                    code = match[1] + (match[2] or "")
    except OSError:
        return "incomplete"
    return "incomplete" if code is None else "done" if code == "0" else "failed"
