#!/usr/bin/env python3
"""Run a command, or an array of commands, as jobs of Slurm, with one log file a job.

Usage: slurm.py [options] [JOB=1:nj] <log-file> <command...>
e.g.: slurm.py --mem 4G exp/log/a.log compute-vad scp:feats.scp ark,scp:vad.ark,vad.scp
      slurm.py --time 1:00:00 --partition long JOB=1:40 log/x.JOB.log copy-feats
      scp:split40/JOB/feats.scp ark:x.JOB.ark

It keeps the contract of run.py: same quoting, same logs, same exit status, same --pick. An array is one submission
(sbatch --array); the script and the files of the run are in the folder q beside the logs. Members tell their end by
files there, so that squeue is asked seldom. Ctrl-C cancels the jobs. A slurm.py that was killed (SIGKILL) leaves
them running: `squeue --me -o "%A %j %k"` shows them, named after their log, with the folder they were submitted from.

Options:
  --mem 4G           memory of a job on a node (not of a core)
  --num-threads N    cores of a job, and OMP_NUM_THREADS and its kin, unless they are set (default: 1)
  --gpu N            GPUs of a job on a node (default: 0)
  --time 4:00:00     time limit, in Slurm's forms: minutes, h:mm:ss, d-h:mm:ss
  --num-nodes N      the command is run once on each of N nodes, with MASTER_ADDR and MASTER_PORT (default: 1)
  --max-jobs-run N   jobs at a time (default: all)
  --pick WHICH       all; failed: only jobs whose log does not end in success; incomplete: only jobs whose log
                     has no end. A log counts only if it begins with the very same command. (default: all)
  --retries N        how often a job is submitted again that was lost with its node, was pre-empted or vanished;
                     never one whose command failed, or that was over its time or memory (default: 1)
  --requeue BOOL     a training is asked to save before its time limit (SIGUSR1) and goes on in a new job, until it
                     has finished; that does not count as a retry (default: false)
  --save-seconds N   how long before the limit (default: 120)
  --requeue-limit N  how often a training may go on in a new job (default: 100)
  --lost-wait N      seconds to wait for the exit file of a job that has gone; raise it where the shared file
                     system is slow (default: 60)
  --query-seconds N  seconds between two questions to the controller (default: 30)
  --config FILE      maps options to those of sbatch (default: VOXARK_SLURM_CONF in the environment,
                     conf/slurm.conf here, conf/slurm.conf of voxark)
  Other options (--partition, --account, --qos, --constraint, ...) are those of the file, which may be added to.
  Options with a single dash (-p long) go to sbatch as they are.
"""

import re
import sys

import cluster
from cluster_scheduler import FINAL, Scheduler, State, call, ranges

_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "REQUEUE_FED")
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL",
          "PREEMPTED", "REVOKED")
_DEFAULT_MAX = 1000  # the highest id of an array, unless slurm.conf says otherwise (MaxArraySize, less one)
_OWN = r"SLURM_(?!CONF$|TIME_FORMAT$).*|SLURMD_.*|SRUN_.*"  # SLURM_MEM_PER_NODE and the like would get in the way


class Slurm(Scheduler):
    """Slurm's programs."""

    name, cancels = "slurm", "scancel"

    def key(self, job, task):
        """As squeue writes it."""
        return f"{job}_{task}"

    def parts(self, numbers):
        """Task ids are the members' numbers, unless they are higher than the cluster allows."""
        most = _DEFAULT_MAX
        if numbers[-1] > most:
            found = re.search(r"MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"])[1])
            most = max(1, int(found[1]) - 1) if found else most
        if numbers[-1] <= most:
            return [[(number, number) for number in numbers]]
        parts = [list(enumerate(numbers[start:start + most], 1)) for start in range(0, len(numbers), most)]
        self.settings.limit = -(-self.settings.limit // len(parts))  # of each submission
        return parts

    def submit(self, script, ids, name, output, comment):
        """One sbatch. A lost job is submitted again by the launcher, never by Slurm: two copies would run."""
        limit = f"%{self.settings.limit}" if self.settings.limit else ""
        words = [*self.words, "--parsable", "--no-requeue", f"--job-name={name}", f"--comment={comment}",
                 f"--array={ranges(ids)}{limit}", f"--output={output.replace('%', '%%')}.%A.%a"]
        if self.settings.requeue:
            words.append(f"--signal=B:USR1@{self.settings.save_seconds}")
        return self.submit_words([*words, *script], _OWN)

    def ask(self, jobs):
        """One squeue for all jobs; it knows jobs that have ended for some minutes."""
        status, out, error = call(["squeue", "--noheader", "--array", "--states=all", "--jobs=" + ",".join(jobs),
                                   "--format=%i|%T|%r"])
        if status != 0:
            return {} if re.search("invalid job id", error, re.IGNORECASE) else None
        states = {}
        for line in out.splitlines():
            key, _, rest = line.strip().partition("|")
            state, _, reason = rest.partition("|")
            states[key] = _state(state, reason)
        return states

    def history(self, jobs):
        """Of jobs that squeue no longer knows, or calls failed: sacct's states, where there is accounting."""
        status, out, _ = call(["sacct", "--noheader", "--allocations", "--parsable2", "--jobs=" + ",".join(jobs),
                               "--format=JobID,State"])
        lines = [line.partition("|") for line in out.splitlines()] if status == 0 else []
        states = {key: state.split()[0] for key, _, state in lines if state.strip()}  # CANCELLED by 1000
        return {key: state for key, state in states.items() if state in FINAL}

    def cancel(self, keys):
        """One scancel."""
        if keys:
            call(["scancel", "--quiet", *keys])


def _state(state, reason):
    if state in _WAITING:
        return State("waiting", reason)
    return State("gone", state) if state in _ENDED else State("running", "")


if __name__ == "__main__":
    sys.exit(cluster.main(Slurm, __doc__, "VOXARK_SLURM_CONF", "slurm.conf"))
