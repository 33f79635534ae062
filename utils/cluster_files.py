"""The files of a run on a cluster. Beside the logs is a folder q, and in it

    <name>.sh                     the script that is submitted
    <log>.1, <log>.2, ...         logs of jobs that were lost or went on in another job
    <name>.<time>.<pid>.run/      while it runs: request.json, jobs (ids), tasks.<attempt>, out.<job>.<task> (what jobs
                                  print outside of their logs), claim.* and done.*, which cluster_task.py describes

where <name> is that of the log without JOB.
"""

import json
import os
import re
import shlex
import shutil
import sys
import time

import launcher

_SAVED = re.compile(r"\bsaved in (\S+?);? ")

# What the daemons write into a job's output, where there is no accounting to ask.
_DAEMONS = (
    (re.compile(r"exceeded (job )?memory limit|oom[-_ ]kill|out of memory", re.IGNORECASE), "OUT_OF_MEMORY"),
    (re.compile(r"DUE TO TIME LIMIT"), "TIMEOUT"),
    (re.compile(r"DUE TO PREEMPTION"), "PREEMPTED"),
    (re.compile(r"DUE TO NODE FAILURE"), "NODE_FAIL"),
    (re.compile(r"\*\*\* .*CANCELLED AT"), "CANCELLED"),
)


def names(request):
    """Return (the folder q beside the logs, the name of this run's files in it)."""
    folder, base = os.path.split(request.log)
    name = request.job_name
    while name is not None and launcher.substitute(folder, name, 0) != folder:  # log/JOB/x.log
        folder, part = os.path.split(folder)
        base = f"{part}.{base}"
    if name is not None:
        base = re.sub(rf"[._-]?(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", "", base)
    base = re.sub(r"\.log$", "", base)
    return os.path.join(folder, "q"), re.sub(r"[^A-Za-z0-9_.-]", "_", base).strip(".") or "job"


def new_folder(q, name):
    """The path of the folder of a new run."""
    return os.path.abspath(os.path.join(q, f"{name}.{time.strftime('%y%m%d%H%M%S')}.{os.getpid()}.run"))


def write_once(path, text):
    """Write a small file that appears whole."""
    partial = f"{path}.{os.uname().nodename}.{os.getpid()}.partial"
    with open(partial, "w", encoding="utf-8", errors="surrogateescape") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def read(path, most=-1):
    """The text of a file; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return text.read(most)
    except OSError:
        return ""


def revoke(path):
    """Give up the attempt that a claim file belongs to, begun or not.

    The job reads the file again and again. It is opened, not looked for: network file systems check a file at its
    opening, and may deny for a minute that another has appeared.
    """
    with open(path, "a", encoding="utf-8") as claim:
        claim.write("\nrevoked\n")


def is_revoked(text):
    """Whether the text of a claim file says so."""
    return "revoked" in text.splitlines()[1:]


def touch(folder):
    """Change a folder, so that a network file system lists it anew."""
    path = os.path.join(folder, f"look.{os.getpid()}")
    try:
        with open(path, "w", encoding="utf-8"):
            pass
        os.unlink(path)
    except OSError:
        pass


def script_text(request):
    """The script that is submitted: it sets what a job needs whatever the scheduler passes on, and runs a member."""
    here = os.path.dirname(os.path.abspath(__file__))
    kept = re.compile(r"PATH|PYTHONPATH|LD_LIBRARY_PATH|LC_ALL|LANG|VOXARK_(?!TASK$)\w+|\w+_NUM_THREADS")
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(os.environ.items())
                      if kept.fullmatch(name))
    array = f"{request.job_name}={request.first}:{request.last} " if request.job_name else ""
    return (
        f"#!/bin/bash\n# Submitted by {launcher.program()}: {array}{request.log}\n"
        f"{launcher.comment(launcher.command_line(request.words))}\n"
        f"cd {shlex.quote(os.getcwd())} || exit 1\n{exports}"
        f"python={shlex.quote(sys.executable)}\n"
        'if [ ! -x "$python" ]; then python=python3; fi\n'
        f'exec "$python" {shlex.quote(os.path.join(here, "cluster_task.py"))} "$@"\n'
    )


def has_saved(log, start):
    """True if a log names a file as saved, and that file is younger than the job."""
    try:
        with open(log, encoding="utf-8", errors="replace") as lines:
            paths = [match[1] for line in lines for match in _SAVED.finditer(line)]
        return bool(paths) and os.path.getmtime(paths[-1]) >= start - 1
    except OSError:
        return False


def said_by_daemons(text):
    """The reason why a job was ended, by what it printed outside of its log; "" if that does not say."""
    return next((reason for pattern, reason in _DAEMONS if pattern.search(text)), "")


def refuse_leftovers(request, q, name, scheduler):
    """UsageError if jobs of an earlier launcher, which was killed, still write some of the same logs.

    Folders of runs of which no job is left are removed.
    """
    pattern = re.compile(re.escape(name) + r"\.\d+\.\d+\.run")
    logs = _logs(request.log, request.job_name, range(request.first, request.last + 1))
    for entry in sorted(os.listdir(q)) if os.path.isdir(q) else ():
        folder = os.path.join(q, entry)
        if not pattern.fullmatch(entry) or not logs & _logs_of(folder):
            continue
        jobs = read(os.path.join(folder, "jobs")).split()
        if not jobs and time.time() - os.path.getmtime(folder) < 3600:
            continue  # of a launcher that is about to submit
        states = scheduler.ask(jobs) if jobs else {}
        if states is None or any(state.phase != "gone" for state in states.values()):
            raise launcher.UsageError(f"jobs {' '.join(jobs)} of an earlier call write the same logs: wait for them, "
                                      f"or cancel them: {scheduler.cancels} {' '.join(jobs)} "
                                      f"(their folder is {folder})")
        shutil.rmtree(folder, ignore_errors=True)


def _logs_of(folder):
    """The logs of all members of a run."""
    try:
        request = json.loads(read(os.path.join(folder, "request.json")))
    except ValueError:
        return set()
    return _logs(request["log"], request["job_name"], request["members"])


def _logs(log, name, numbers):
    return {log if name is None else launcher.substitute(log, name, number) for number in numbers}
