#!/usr/bin/env python3
"""Run a command, or an array of commands, as jobs of GridEngine, with one log file a job.

Usage: queue.py [options] [JOB=1:nj] <log-file> <command...>
e.g.: queue.py --mem 4G exp/log/a.log compute-vad scp:feats.scp ark,scp:vad.ark,vad.scp
      queue.py --time 1:00:00 -q long.q JOB=1:40 log/x.JOB.log copy-feats scp:split40/JOB/feats.scp ark:x.JOB.ark

It keeps the contract of run.py: same quoting, same logs, same exit status, same --pick. An array is one submission
(qsub -t); the script and the files of the run are in the folder q beside the logs. Members tell their end by files
there, so that qstat is asked seldom. Ctrl-C cancels the jobs. A queue.py that was killed (SIGKILL) leaves them
running: `qstat -u $USER` shows them, named after their log.

Options:
  --mem 4G           memory of a job; which resource that is, says the file
  --num-threads N    slots of a job (-pe), and OMP_NUM_THREADS and its kin, unless they are set (default: 1)
  --gpu N            GPUs of a job (default: 0)
  --time 4:00:00     time limit: minutes, h:mm:ss, d-h:mm:ss
  --max-jobs-run N   jobs at a time (default: all)
  --pick WHICH       all; failed: only jobs whose log does not end in success; incomplete: only jobs whose log
                     has no end. A log counts only if it begins with the very same command. (default: all)
  --retries N        how often a job is submitted again that was lost with its node or vanished; never one whose
                     command failed, or that was over its time or memory (default: 1)
  --requeue BOOL     a training is asked to save before its time limit (SIGUSR1) and goes on in a new job, until it
                     has finished; that does not count as a retry (default: false)
  --save-seconds N   how long before the limit (default: 120)
  --requeue-limit N  how often a training may go on in a new job (default: 100)
  --lost-wait N      seconds to wait for the exit file of a job that has gone; raise it where the shared file
                     system is slow (default: 60)
  --query-seconds N  seconds between two questions to the master (default: 30)
  --config FILE      maps options to those of qsub (default: VOXARK_QUEUE_CONF in the environment,
                     conf/queue.conf here, conf/queue.conf of voxark)
  Other options (--queue, --project, ...) are those of the file, which may be added to.
  Options with a single dash (-l ram_free=2G, -q long.q) go to qsub as they are.
"""

import sys

if __name__ != "__main__":
    # A script of this folder, or one that looks here first, wants Python's own module of this name.
    import importlib.machinery
    import importlib.util
    import os

    _here = os.path.dirname(os.path.abspath(__file__))
    _spec = importlib.machinery.PathFinder.find_spec(
        __name__, [path for path in sys.path if os.path.abspath(path) != _here])
    _module = importlib.util.module_from_spec(_spec)
    sys.modules[__name__] = _module
    _spec.loader.exec_module(_module)
else:
    import cluster
    from grid_engine import GridEngine

    sys.exit(cluster.main(GridEngine, __doc__, "VOXARK_QUEUE_CONF", "queue.conf"))
