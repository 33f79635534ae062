#!/usr/bin/env python3
"""Run a command, or an array of commands, on this machine, with one log file a job.

Usage: run.py [options] [JOB=1:nj] <log-file> <command...>
e.g.: run.py exp/log/a.log compute-vad scp:feats.scp ark,scp:vad.ark,vad.scp
      run.py JOB=1:4 log/x.JOB.log copy-feats scp:split4/JOB/feats.scp ark:- \\| add-deltas ark:-
      ark:x.JOB.ark

It keeps the contract of Kaldi's run.pl, which can take its place; launcher.py says how the command is quoted.
The whole word JOB (or another name) is replaced by the job's number. The exit status is 0 if all jobs
succeeded, 1 if one failed, 130 or 143 if run.py was interrupted or terminated; it then ends the jobs first.

Options:
  --max-jobs-run N   jobs at a time (default: as many as there are cores for them, or GPUs)
  --num-threads N    threads of a job: OMP_NUM_THREADS and its kin, unless they are set already (default: 1)
  --gpu N            GPUs of a job, handed out by CUDA_VISIBLE_DEVICES (default: 0)
  --pick WHICH       all; failed: only jobs whose log does not end in success; incomplete: only jobs whose log has
                     no end. A log counts only if it begins with the very same command. (default: all)
  Any other option and its value (--mem 4G, --time 4:00:00, ...) is for clusters (slurm.py, queue.py) and has no
  effect here.
"""

import os
import signal
import subprocess
import sys
import time

import launcher
from launcher import say

GRACE_SECONDS = 10  # what a job gets between SIGTERM and SIGKILL


def stop(jobs, bell):
    """End all jobs with their children: SIGTERM, then SIGKILL after a while or at a second signal."""
    number, bell.number = bell.number, None
    for job in [job for job in jobs if job.poll() is not None]:
        jobs.remove(job)
        job.finish()
    say(f"stopped by {signal.Signals(number).name}: ending {len(jobs)} jobs")
    for job in jobs:
        job.signal_group(signal.SIGTERM)
    deadline = time.time() + GRACE_SECONDS
    left = list(jobs)
    while left and time.time() < deadline and bell.number is None:
        bell.wait(0.05)
        left = [job for job in left if job.poll() is None or job.signal_group(0)]
    for job in left:
        job.signal_group(signal.SIGKILL)
    for job in jobs:
        job.process.wait()
        job.note_killed(number)
    return 128 + number


def visible_gpus():
    """The GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name for name in listed.split(",") if name.strip()]
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(found.stdout.splitlines()) if line.startswith(b"GPU")]


def num_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Slots:
    """How many jobs may run at a time, with how many threads, and which GPUs are free."""

    def __init__(self, options):
        self.threads = options.get("num-threads", 1)
        if options.get("num-nodes", 1) > 1:
            raise launcher.UsageError(f"--num-nodes {options['num-nodes']}: run.py has this machine only; see slurm.py")
        wanted = options.get("gpu", "0")
        if not wanted.isdigit():
            raise launcher.UsageError(f"--gpu {wanted}: expected a number")
        self.gpus_per_job = int(wanted)
        self.free_gpus = visible_gpus() if self.gpus_per_job else []
        limit = max(1, num_cores() // self.threads)
        if self.gpus_per_job:
            limit = len(self.free_gpus) // self.gpus_per_job
            if limit == 0:
                say(
                    f"WARNING: {len(self.free_gpus)} GPUs found, {wanted} asked for; one job at a time is run"
                )
                limit, self.gpus_per_job = 1, 0
        self.limit = options.get("max-jobs-run", limit)

    def start(self, number, command, log):
        """Start job ``number`` in the environment that its options ask for."""
        env = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(name, str(self.threads))
        gpus = self.free_gpus[: self.gpus_per_job]
        if gpus:  # more jobs than GPUs (by --max-jobs-run) share them as the programs see fit
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            del self.free_gpus[: len(gpus)]
        job = launcher.Job(command, log, self.threads, env)
        job.number, job.gpus = number, gpus
        return job

    def release(self, job):
        """Take back the GPUs of a job that has ended."""
        self.free_gpus += job.gpus


def run_jobs(tasks, slots, bell):
    """Run (number, command, log) tasks; return the logs of those that failed, in order, and a stop status or
    None."""
    running, failed, waiting = [], [], list(tasks)
    while (waiting or running) and bell.number is None:
        while waiting and len(running) < slots.limit and bell.number is None:
            number, command, log = waiting.pop(0)
            try:
                running.append(slots.start(number, command, log))
            except OSError as error:
                say(f"cannot start the job of {log}: {error.filename or 'bash'}: {error.strerror}")
                failed.append((number, log))
        if running and all(job.poll() is None for job in running):
            bell.wait()
        for job in [job for job in running if job.poll() is not None]:
            running.remove(job)
            slots.release(job)
            if not job.finish():
                failed.append((job.number, job.log))
    status = stop(running, bell) if bell.number is not None else None
    return [log for _, log in sorted(failed)], status


def main():
    """Parse, run, report; return the exit status."""
    try:
        request = launcher.parse(sys.argv[1:])
        if "help" in request.options:
            print(__doc__)
            return 0
        slots = Slots(request.options)
    except launcher.UsageError as error:
        print(launcher.short_help(__doc__), file=sys.stderr)
        say(f"ERROR: {error}")
        return 1
    bell = launcher.Bell()
    tasks, failed = launcher.choose(request)
    newly_failed, status = run_jobs(tasks, slots, bell)
    failed += newly_failed
    if status is not None:
        return status
    if failed:
        launcher.report(request, failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
