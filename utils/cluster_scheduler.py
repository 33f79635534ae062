"""What a launcher needs of a scheduler: to submit, to cancel, and to say what has become of jobs."""

import abc
import collections
import os
import re
import subprocess

from launcher import say

State = collections.namedtuple("State", "phase reason")
State.__doc__ = """What a scheduler says of a job: phase is "waiting", "running", "stuck" or "gone"; reason its word."""

GONE = State("gone", "")

# Why a scheduler ends a job. For the first a member is submitted again; that is no use for the others.
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "VANISHED")
FINAL = (*LOST, "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "CANCELLED")

_PAUSES = (2, 5, 15, 30, 60)  # seconds between tries where the scheduler is busy
_BUSY = re.compile(r"timed? ?out|unable to contact|temporarily|connection (refused|reset)|try again|"
                   r"communication connection failure|commlib error", re.IGNORECASE)


class SubmitError(Exception):
    """The scheduler does not take a job."""


class Scheduler(abc.ABC):
    """slurm.py and grid_engine.py derive from it. ``name`` is the scheduler's, ``cancels`` its program for that.

    ``sure``: a node that is said to have failed is given up at once, as the scheduler has done.
    """

    name = cancels = ""
    sure = True

    def __init__(self, settings):
        """``settings``: cluster_conf.Settings. UsageError where the scheduler has no such jobs."""
        self.settings = settings
        self.words = []  # the program that submits, and its options
        self.pause = None  # a function of seconds that returns False if the launcher is to stop

    @abc.abstractmethod
    def submit(self, script, ids, name, output, comment):
        """Submit a script (with its arguments) as an array of the task ids ``ids``; returns the job's id.

        Tasks print to ``output``.<job>.<task>. SubmitError where the job is refused.
        """

    def warn_after(self):
        """After how many seconds a job itself is to ask its training to save; None where the scheduler does it."""
        return None

    @abc.abstractmethod
    def key(self, job, task):
        """The name of one task of a job."""

    @abc.abstractmethod
    def parts(self, numbers):
        """Split ascending member numbers into submissions: lists of (task id, number)."""

    @abc.abstractmethod
    def ask(self, jobs):
        """Return {key: State} of the tasks of jobs; None where the scheduler does not answer."""

    @abc.abstractmethod
    def history(self, jobs):
        """Return {key: reason} of tasks that are gone, by accounting, as far as it is known."""

    @abc.abstractmethod
    def cancel(self, keys):
        """Cancel tasks or whole jobs."""

    def submit_words(self, words, stale):
        """Run a program that submits; return the job's id. ``stale``: names of variables, as in :func:`submit_env`.

        It is repeated where the scheduler is busy. That the first try was taken all the same does no harm: a member
        does not run where another job has claimed it.
        """
        env = submit_env(stale)
        for seconds in (*_PAUSES, None):
            status, out, error = call(words, env)
            found = re.search(r"^(\d+)([;.]|$)", out, re.MULTILINE)
            if status == 0 and found:
                return found[1]
            said = " ".join((error or out).split()) or f"status {status}"
            if seconds is None or not (status == 124 or _BUSY.search(said)):
                break
            say(f"WARNING: {words[0]}: {said}; trying again in {seconds} s")
            if not self.pause(seconds):
                break
        if status == 127:
            raise SubmitError(f"{words[0]}: {said}: is this a machine of the cluster?")
        raise SubmitError(f"{words[0]} refuses the job: {said} ({' '.join(words)})")


def call(words, env=None, seconds=60):
    """Run a program of the scheduler; return (status, output, error text). Status 127: it is not there.

    Ctrl-C does not reach it: a submission is not cut off in the middle.
    """
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=env, timeout=seconds, start_new_session=True)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer in {seconds} seconds"
    except OSError as error:
        return 127, "", error.strerror
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()


def submit_env(stale):
    """The environment for a submission, as the job is to get it.

    Left out: exported functions and values of several lines, which GridEngine passes on broken; the GPUs of this
    machine; variables whose names match ``stale``, those of a job that the launcher itself runs in.
    """
    pattern = re.compile(rf"BASH_FUNC_.*|.*%%|.*\(\)|CUDA_VISIBLE_DEVICES|VOXARK_TASK|{stale}")
    return {name: value for name, value in os.environ.items() if not pattern.fullmatch(name) and "\n" not in value}


def ranges(ids):
    """Write ascending numbers as sbatch's --array takes them: 1-4,7,9-12."""
    parts = []
    for number in ids:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
