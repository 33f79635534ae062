"""GridEngine's programs, for queue.py."""

import getpass
import re
from xml.etree import ElementTree

import launcher
from cluster_scheduler import Scheduler, State, call

_OWN = (r"JOB_ID|JOB_NAME|SGE_(?!ROOT$|CELL$|QMASTER_PORT$|EXECD_PORT$|CLUSTER_NAME$).*|"
        r"NSLOTS|NHOSTS|NQUEUES|PE|PE_HOSTFILE|QUEUE|REQUEST|RESTARTED")


class GridEngine(Scheduler):
    """qsub, qstat, qacct and qdel."""

    name, cancels = "gridengine", "qdel"
    sure = False  # a node that is not heard of comes back as a rule, and its jobs still run

    def __init__(self, settings):
        """Refuse what GridEngine cannot do."""
        super().__init__(settings)
        if settings.nodes > 1:
            raise launcher.UsageError(f"--num-nodes {settings.nodes}: queue.py has jobs of one node; see slurm.py")
        if settings.requeue and (settings.seconds or 0) <= settings.save_seconds:
            raise launcher.UsageError(
                f"--requeue true needs a time limit of more than {settings.save_seconds} seconds (--time, "
                "--save-seconds): a training is asked to save so long before it")

    def key(self, job, task):
        """As qstat's columns give it."""
        return f"{job}.{task}"

    def parts(self, numbers):
        """qsub takes no sparse sets: the tasks 1 ... k stand for the members."""
        return [list(enumerate(numbers, 1))]

    def submit(self, script, ids, name, output, comment):
        """One qsub."""
        limit = self.settings.limit
        name = re.sub("^(?=[^A-Za-z])", "j", name)
        words = [*self.words, "-terse", "-r", "n", "-cwd", "-j", "y", "-N", name, "-t", f"1-{len(ids)}",
                 "-o", f":{output}.$JOB_ID.$TASK_ID", *(["-tc", str(limit)] if limit else [])]
        return self.submit_words([*words, *script], _OWN)

    def warn_after(self):
        """GridEngine's own signals before the limit go to all processes of a job, which most die of."""
        return self.settings.seconds - self.settings.save_seconds if self.settings.requeue else None

    def ask(self, jobs):
        """One qstat for all jobs; it forgets them at their end."""
        status, out, _ = call(["qstat", "-u", getpass.getuser(), "-f", "-xml"])
        try:
            tree = ElementTree.fromstring(out) if status == 0 else None
        except ElementTree.ParseError:
            tree = None
        if tree is None:
            return None
        states = {}
        for queue in tree.iter("Queue-List"):
            lost = "u" in (queue.findtext("state") or "")
            for job in queue.findall("job_list"):
                self._add(states, job, State("gone", "NODE_FAIL") if lost else None)
        for pending in tree.findall("job_info/job_list"):
            self._add(states, pending, None)
        return {key: state for key, state in states.items() if key.split(".")[0] in jobs}

    def _add(self, states, job, state):
        letters = job.findtext("state") or ""
        if state is None:
            if "E" in letters:
                state = State("stuck", self._error(job.findtext("JB_job_number")))
            elif "q" in letters or "w" in letters:
                state = State("waiting", "held" if "h" in letters else "queued (qstat -j may say why)")
            else:
                state = State("running", "")
        for task in _tasks(job.findtext("tasks") or "1"):
            states[self.key(job.findtext("JB_job_number"), task)] = state

    def _error(self, job):
        lines = call(["qstat", "-j", job])[1].splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("error reason")), "Eqw")

    def history(self, jobs):
        """What qacct knows of the tasks: over their memory or time, deleted, or failed."""
        reasons = {}
        for job in jobs:
            for entry in re.split(r"^=+\n", call(["qacct", "-j", job])[1], flags=re.MULTILINE):
                facts = dict(line.split(None, 1) for line in entry.splitlines() if len(line.split(None, 1)) == 2)
                if "taskid" in facts:
                    reasons[self.key(job, facts["taskid"].strip())] = self._reason(facts)
        return reasons

    def _reason(self, facts):
        """The reason of a task, by the fields of qacct; jobs of a lost node have no record."""
        settings, failed = self.settings, facts.get("failed", "0").split()[0]
        if failed in ("37", "100"):  # over a limit; ended by a signal, which qdel sends, too, and not we
            if _seconds(facts.get("ru_wallclock", "0")) >= (settings.seconds or float("inf")):
                return "TIMEOUT"
            if failed == "37" or 0 < settings.kilobytes <= _kilobytes(facts.get("maxvmem", "0")):
                return "OUT_OF_MEMORY"
            return "CANCELLED"
        return "VANISHED" if failed != "0" else ""

    def cancel(self, keys):
        """One qdel; a task of an array is written job.task there, too."""
        if keys:
            call(["qdel", *keys])


def _tasks(text):
    """Task ids of qstat: 3, 1-5:1, 2,7-9:1."""
    tasks = []
    for part in text.split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        tasks += range(int(first), int(last or first) + 1, int(step or 1))
    return tasks


def _seconds(text):
    return float(re.match(r"[\d.]*", text.strip())[0] or 0)


def _kilobytes(text):
    """qacct's 1.234M or 2.0GB in kilobytes."""
    match = re.match(r"([\d.]+)([KMGT]?)", text.strip())
    return float(match[1]) * {"": 1 / 1024, "K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}[match[2]] if match else 0
