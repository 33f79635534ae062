#!/usr/bin/env python3
"""What a job on a cluster runs: one member of an array, with its log and its exit file.

Usage: cluster_task.py <folder-of-the-run> <attempt>   (called by the script that slurm.py and queue.py submit)

The folder holds request.json, and tasks.<attempt>, lines `<task id> <member>`. Written there are
claim.<member>.<attempt>, whose first line is the scheduler's name of the job that runs it, so that no two run the
same attempt, and at the end done.<member>.<attempt>, how it ended. A launcher that gives an attempt up writes
`revoked` into the claim: where the job still runs, on a node that was cut off, it ends.

Signals. The schedulers send SIGTERM to all processes of a job at once, and SIGKILL later. It is not passed on: a
training that is saving because of the first would die of a second. SIGUSR1, which Slurm sends to this process
alone before the time is up, is passed on to those processes that catch it.
"""

import json
import os
import re
import signal
import sys
import time

import cluster_files as files
import launcher

KILL_SECONDS = 5  # what processes get between SIGTERM and SIGKILL when an attempt is revoked
LINGER_SECONDS = 60  # what workers that save get behind the end of the command that started them
TRAP = "trap 'exit 143' TERM; "  # the command's shell stays until what it runs has ended


def job_key(scheduler):
    """Return (the scheduler's name of this job, task id): 12_3 for Slurm, 12.3 for GridEngine."""
    if scheduler == "slurm":
        task = os.environ["SLURM_ARRAY_TASK_ID"]
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}", task
    task = os.environ["SGE_TASK_ID"]
    return f"{os.environ['JOB_ID']}.{task}", task


class Member:
    """One member of an array in one attempt."""

    def __init__(self, folder, attempt):
        """Read what to run."""
        with open(os.path.join(folder, "request.json"), encoding="utf-8") as text:
            self.request = json.load(text)
        self.key, task = job_key(self.request["scheduler"])
        with open(os.path.join(folder, f"tasks.{attempt}"), encoding="utf-8") as lines:
            self.number = dict(line.split() for line in lines)[task]
        self.folder, self.attempt = folder, attempt
        line, log, name = (self.request[key] for key in ("line", "log", "job_name"))
        if name is not None:
            line, log = launcher.substitute(line, name, self.number), launcher.substitute(log, name, self.number)
        self.command, self.log = line, log
        self.token = f"{os.path.basename(folder)}/{self.number}.{attempt}"
        self.told, self.warned = None, False
        self.seen = set()

    def path(self, kind):
        """The path of a file of this attempt."""
        return os.path.join(self.folder, f"{kind}.{self.number}.{self.attempt}")

    def claim(self):
        """True if this job may run the attempt: no other runs it, and it was not given up."""
        try:
            with open(self.path("claim"), "x", encoding="utf-8") as out:
                out.write(self.key)
        except FileExistsError:
            text = files.read(self.path("claim"))
            # of the same name: the scheduler has started it again
            return text == self.key and not os.path.exists(self.path("done"))
        return True

    # ----------------------------------------------------------------------------------------------- the command

    def environment(self):
        """The environment of the command."""
        env = dict(os.environ, VOXARK_TASK=self.token)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(name, str(self.request["threads"]))
        if self.request["nodes"] > 1:
            number = int(re.sub(r"\D", "", self.key) or 0)
            env.update(MASTER_ADDR=os.uname().nodename, MASTER_PORT=str(20000 + number % 20000),
                       VOXARK_NUM_NODES=str(self.request["nodes"]), VOXARK_JOB=self.key)
        return env

    def over_nodes(self):
        """The words that run the command once on each node of the job."""
        nodes = self.request["nodes"]
        if nodes == 1:
            return []
        cores = os.environ.get("SLURM_CPUS_PER_TASK", self.request["threads"])
        # A node that ends leaves the others two minutes to save; srun does not inherit --cpus-per-task.
        return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0",
                "--wait=120", "--label", "--mpi=none", "--input=none", "--export=ALL",
                f"--cpus-per-task={cores}"]

    def processes(self):
        """The processes of this attempt on this machine, whichever group they are in (torchrun makes sessions)."""
        wanted, found = f"VOXARK_TASK={self.token}".encode(), []
        for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
        return found

    def send(self, number, only_catching=False):
        """Send a signal to the processes; with ``only_catching`` to those that have a handler for it, once each.

        Not to srun then: it would hand it to all processes of all nodes, of which torchrun has no handler and dies, and
        workers on this node would have it twice. The workers tell each other.
        """
        for pid in self.processes():
            if only_catching and (pid in self.seen or not catches(pid, number)):
                continue
            self.seen.add(pid)
            try:
                os.kill(pid, number)
            except OSError:
                continue

    # ------------------------------------------------------------------------------------------------- its course

    def run(self):
        """Run the command to its end; write the log and the exit file; return the exit status of the job."""
        bell = launcher.Bell((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        signal.signal(signal.SIGUSR1, self._warn)
        signal.signal(signal.SIGUSR2, self._warn)
        job = launcher.Job(self.command, self.log, self.request["threads"], self.environment(),
                           f"{os.uname().nodename} ({self.request['scheduler']} job {self.key})",
                           own_session=False, before=self.over_nodes(), trap=TRAP)
        limit, looked = self.request["warn_after"] or float("inf"), time.time()
        while job.poll() is None:
            left = limit - (time.time() - job.start)
            bell.wait(1 if self.warned else min(self.request["revoked_seconds"], max(0.05, left)))
            self.told = self.told or bell.number
            if left <= 0:
                self.warned = True
            if self.warned and self.told is None:
                self.send(signal.SIGUSR1, only_catching=True)
            if time.time() - looked >= self.request["revoked_seconds"]:
                looked = time.time()
                if self.told is None and files.is_revoked(files.read(self.path("claim"))):
                    self._end(job)
        self._await_own_signal(job, bell)
        self._linger()
        return self._finish(job)

    def _await_own_signal(self, job, bell):
        """A command that died of SIGTERM may have had it just before this process, which is told, too."""
        deadline = time.time() + 1
        while job.code()[0] == 128 + signal.SIGTERM and self.told is None and time.time() < deadline:
            bell.wait(deadline - time.time())
            self.told = bell.number

    def _warn(self, number, frame):
        self.warned = True

    def _end(self, job):
        """End a revoked attempt: it was given up, and another may be about to begin."""
        self.told = signal.SIGTERM
        self.send(signal.SIGTERM)
        deadline = time.time() + KILL_SECONDS
        while time.time() < deadline and (job.poll() is None or self.processes()):
            time.sleep(0.1)
        self.send(signal.SIGKILL)
        job.process.wait()

    def _linger(self):
        """Wait for workers that are still saving when what started them is gone."""
        deadline = time.time() + LINGER_SECONDS
        while (self.told or self.warned) and self.processes() and time.time() < deadline:
            time.sleep(0.2)

    def _finish(self, job):
        code, _ = job.code()
        told = None if code == 0 else self.told
        if told is None:  # or else the launcher finds out why, and writes it
            job.finish()
        job.close()
        outcome = {"code": code, "told": told, "warned": self.warned,
                   "start": job.start, "seconds": time.time() - job.start}
        files.write_once(self.path("done"), json.dumps(outcome))
        # GridEngine takes 99 and 100 for requests to run the job again, and to hold it.
        return 1 if self.request["scheduler"] == "gridengine" and code in (99, 100) else code


def catches(pid, number):
    """True if a process has a handler for a signal, and is not srun."""
    status = dict(line.split(":", 1) for line in files.read(f"/proc/{pid}/status").splitlines() if ":" in line)
    caught = int(status.get("SigCgt", "0"), 16) >> (number - 1) & 1
    return bool(caught) and status["Name"].strip() != "srun"


def main():
    """Run a member; return the job's exit status."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 1
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    member = Member(*sys.argv[1:])
    if not member.claim():
        print(f"{member.key}: member {member.number} has ended or runs elsewhere: nothing is done")
        return 0
    return member.run()


if __name__ == "__main__":
    sys.exit(main())
