"""What the job launchers share: their command line, how a command is quoted, a job with its log, signals, reports.

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
import math
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time

Request = collections.namedtuple("Request", "options job_name first last log words passed")
Request.__doc__ = (
    "A parsed command line: options (dict), job variable (or None), its range, log file, command, and the words of "
    "options with a single dash, which are a cluster's own."
)

BASH = ("bash", "-o", "noglob", "+o", "braceexpand", "-o", "errexit", "-o", "pipefail", "-c")

_RANGE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]+)(?::([0-9]+))?")
_ENDED = re.compile(r"# Ended \(code (\d+)(; [^)]*)?\)")
_PICKS = ("all", "failed", "incomplete")


def short_help(doc):
    """The part `Usage: ... e.g.: ...` of a launcher's help: an error behind it is not lost in the options."""
    part = next((part for part in doc.split("\n\n") if part.startswith("Usage:")), doc)
    return f"{part}\n({program()} --help says more)"


class UsageError(Exception):
    """The launcher's own command line is wrong."""


def _take_options(words, options, passed):
    """Move leading options from ``words`` into ``options`` (all take a value, except -V; -pe takes two).

    An option with a single dash is one of qsub or sbatch: its words go to ``passed``.
    """
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
        elif not switch.startswith("--") and name not in ("tc", "sync"):
            passed += [switch] if equals else [switch, value]
            continue
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
    words, options, passed, job_range = list(argv), {}, [], None
    for _ in range(2):
        _take_options(words, options, passed)
        job_range = _take_range(words) if job_range is None else job_range
    if "help" in options:
        return Request(options, None, 1, 1, "", [], [])
    if len(words) < 2:
        raise UsageError("a log file and a command are needed")
    for name in ("max-jobs-run", "num-threads", "num-nodes"):
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
    return Request(options, name, first, last, log, words, passed)


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


# --------------------------------------------------------------------------------------------- what to run


def choose(request):
    """Return (tasks to run: tuples of number, command and log; logs of failed jobs that --pick leaves alone)."""
    line, tasks, left = command_line(request.words), [], []
    pick, name = request.options["pick"], request.job_name
    for number in range(request.first, request.last + 1):
        command, log = line, request.log
        if name is not None:
            command, log = substitute(line, name, number), substitute(log, name, number)
        state = "incomplete" if pick == "all" else log_state(log, command)
        if state == "incomplete" or (state == "failed" and pick == "failed"):
            tasks.append((number, command, log))
        elif state == "failed":
            left.append(log)
    return tasks, left


# ------------------------------------------------------------------------------------------------ messages


def program():
    """The launcher's name."""
    return os.path.basename(sys.argv[0])


def say(text):
    """Print a message to standard error; a closed one is no reason to leave jobs behind."""
    try:
        print(f"{program()}: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass


def now():
    """The time as `date` prints it."""
    return time.strftime("%a %b %e %H:%M:%S %Z %Y")


def last_words(log):
    """The last error that a command wrote into its log, or else its last line.

    That a command of a pipe has failed is its consequence; the cause is what that command wrote.
    """
    try:
        with open(log, "rb") as lines:
            lines.seek(max(0, os.path.getsize(log) - 4096))
            said = lines.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        return error.strerror
    ended = re.findall(r"^# Ended \((.+?)\) at ", "\n".join(said), re.MULTILINE)
    said = [line for line in said if line.strip() and not line.startswith("#")]
    errors = [line for line in said if "ERROR" in line or "Error" in line]
    causes = [line for line in errors if "the command ended with status" not in line]
    if errors and not causes:
        causes = [line for line in said if "WARNING" in line]
    said = causes or errors or said
    return said[-1].strip()[:300] if said else f"({'; '.join(['nothing', *ended[-1:]])})"


def report(request, failed, why=""):
    """Say which logs to read, in Kaldi's words, and the last line of the first of them.

    ``why`` is what the scheduler says of failed jobs, e.g. " (2 NODE_FAIL)".
    """
    num_jobs = request.last - request.first + 1
    if num_jobs == 1:
        say(f"job failed{why}, log is in {failed[0]}")
    else:
        logs = substitute(request.log, request.job_name, "*")
        say(f"{len(failed)} / {num_jobs} failed{why}, log is in {logs}")
    say(f"{failed[0]} says: {last_words(failed[0])}")


# -------------------------------------------------------------------------------------- one job, and signals


class Job:
    """One running command and its log.

    With ``own_session`` it has a process group of its own. ``place`` is where it runs, ``before`` what the command is
    run by (srun).
    """

    def __init__(self, command, log, threads, env, place=None, own_session=True, before=(), trap=""):
        """Write the head of the log and start the command."""
        self.log, self.threads, self.usage = log, threads, ""
        self.start = time.time()
        os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
        place = place or os.uname().nodename
        head = f"{comment(command)}\n# Running on {place}\n# Started at {now()}\n#\n"
        with open(log, "w", encoding="utf-8", errors="surrogateescape") as out:
            out.write(head)
        self._out = open(log, "ab", buffering=0)  # kept open: the log may be renamed while the job runs
        self.process = subprocess.Popen(
            [*before, *BASH, trap + command],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            env=env,
            start_new_session=own_session,
        )

    def _append(self, text):
        self._out.write(text.encode())

    def poll(self):
        """The command's return code, None as long as it runs; what it used is noted when it has ended."""
        if self.process.returncode is None:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.usage = usage(used)
        return self.process.returncode

    def close(self):
        """Close the log; what was written is on the disk then."""
        os.fsync(self._out.fileno())
        self._out.close()

    def code(self):
        """The command's exit status as the shell gives it, and a note on a signal that it died of."""
        code = self.process.returncode
        return (128 - code, f"; signal {-code}") if code < 0 else (code, "")

    def finish(self):
        """Write the end of the log; return True if the command succeeded."""
        code, note = self.code()
        self._append(log_end(code, note, time.time() - self.start, self.threads, self.usage))
        return code == 0

    def signal_group(self, number):
        """Send a signal to all processes of the job; return False if none is left."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def note_killed(self, number):
        """Say in the log why it has no end; without one the job counts as incomplete."""
        note_killed(self.log, number)


def usage(used):
    """Seconds of processor time of a command and its children, and memory of the largest of them, for the log."""
    mebibytes = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return f" cpu={used.ru_utime + used.ru_stime:.1f} mem={math.ceil(mebibytes)}M"


def log_end(code, note, seconds, threads, used=""):
    """The last two lines of a log; ``note`` begins with "; " if there is something to say, ``used`` as of usage()."""
    return (
        f"# Accounting: time={int(seconds)} threads={threads}{used}\n"
        f"# Ended (code {code}{note}) at {now()}, elapsed time {int(seconds)} seconds\n"
    )


def note_killed(log, number):
    """Say in a log why it has no end: the launcher was stopped by a signal."""
    with open(log, "a", encoding="utf-8") as out:
        out.write(f"# Killed at {now()}: {program()} was stopped by {signal.Signals(number).name}\n")


class Bell:
    """Wakes a loop when a signal arrives; ``number`` is the last one of ``numbers``, which ask us to stop."""

    def __init__(self, numbers=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        self.number = None
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, self._ring)

    def _ring(self, number, frame):
        self.number = number

    def wait(self, seconds=None):
        """Sleep until a signal arrives or the time is over."""
        seconds = None if seconds is None else max(0, seconds)
        if select.select([self.reader], [], [], seconds)[0]:
            os.read(self.reader, 4096)
