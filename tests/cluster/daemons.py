"""What the two clusters of the tests share: a folder, ports, processes that end with it, a command run inside.

A cluster is a context manager. Its daemons run in the foreground as children of this process, so that they
end with it even if it is killed; jobs, which the daemons detach, are found by the folder's name in their
environment.
"""

import abc
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class ClusterError(Exception):
    """A daemon is absent, does not start or does not answer."""


def missing(programs):
    """Those of the programs that are not on PATH (with the places of daemons on it)."""
    return [name for name in programs if shutil.which(name, path=daemon_path()) is None]


def daemon_path():
    """PATH with the folders of daemons, which a plain user's PATH may lack."""
    return os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])


def free_ports(count):
    """Ports on loopback that nobody listens at; below the range from which the system takes ports for callers."""
    found = []
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise ClusterError("no free ports between 20000 and 32000")


def wait_until(condition, what, seconds=30, every=0.2):
    """Poll until ``condition()`` is true; raise ClusterError that says what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds} seconds, but {what}")
        time.sleep(every)


def processes_with(text):
    """Process ids whose environment holds ``text``, but for this process and those it descends from."""
    own, pid = set(), os.getpid()
    while pid > 1:
        own.add(pid)
        pid = _parent(pid)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in own:
            with contextlib.suppress(OSError):
                if os.fsencode(text) in Path("/proc", entry, "environ").read_bytes():
                    found.append(int(entry))
    return found


def _parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def children(pid):
    """All descendants of a process that runs."""
    found, ahead = [], [pid]
    parents = {int(entry): _parent(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    while ahead:
        above = ahead.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        ahead += below
    return found


class Cluster(abc.ABC):
    """Daemons in a temporary folder. A subclass says how they are configured (:meth:`start`) and emptied."""

    title, programs, package, needs_root = "", (), "", False

    @classmethod
    def obstacle(cls):
        """Why it cannot be started here; "" if it can."""
        absent = missing(cls.programs)
        if absent:
            return f"{', '.join(absent)} not found: install {cls.package} (tests/cluster/install.sh)"
        return f"{cls.title}'s daemons start jobs as root only" if cls.needs_root and os.geteuid() != 0 else ""

    def __init__(self):
        """Nothing is started before the ``with``."""
        self.folder, self.processes, self.environment = None, {}, {}

    @abc.abstractmethod
    def start(self):
        """Write the configuration, start the daemons, return when jobs can be submitted."""

    @abc.abstractmethod
    def cancel_all(self):
        """Cancel the jobs that are left."""

    def __enter__(self):
        """Start; a start that fails leaves nothing behind."""
        if self.obstacle():
            raise ClusterError(self.obstacle())
        self.folder = Path(tempfile.mkdtemp(prefix="voxark-cluster-"))
        self.folder.chmod(0o755)
        try:
            self.start()
        except BaseException as error:
            logs = self.logs()
            self.stop()
            if isinstance(error, ClusterError):
                raise ClusterError(f"{self.title} does not start: {error}\n{logs}") from None
            raise
        return self

    def __exit__(self, *reason):
        """Take everything down."""
        with contextlib.suppress(ClusterError, OSError, subprocess.SubprocessError):
            self.cancel_all()
        self.stop()

    def env(self, **extra):
        """An environment in which the cluster's programs find their cluster."""
        return {**os.environ, "PATH": daemon_path(), **self.environment, **extra}

    def command(self, *words, check=True, timeout=30):
        """Run one of the cluster's programs; return what it printed."""
        done = subprocess.run(words, env=self.env(), capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def daemon(self, name, *words, **extra):
        """Start a daemon that stays in the foreground, with its output in a file of its name."""
        def die_with_parent():
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # there is nothing to save

        # GridEngine's hands its environment on to jobs; numbers of threads that hold for this process are not theirs.
        env = {name: value for name, value in self.env(**extra).items() if not name.endswith("_NUM_THREADS")}
        with open(self.folder / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder,
                start_new_session=True, preexec_fn=die_with_parent)

    def wait(self, condition, what, seconds=30):
        """:func:`wait_until`, which ends early if a daemon has died."""
        def checked():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"{name} ended with status {process.returncode}")
            return condition()

        wait_until(checked, what, seconds)

    def logs(self):
        """The last lines of every log, for the message of a failure."""
        texts = []
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".out", ".log") or path.name == "messages":
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
                texts.append("\n".join([f"{path}:", *lines]))
        return "\n".join(texts)

    def stop(self):
        """End daemons and jobs, gently and then not, and remove the folder."""
        for number, seconds in ((signal.SIGTERM, 2), (signal.SIGKILL, 8)):
            for pid in self._left():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            with contextlib.suppress(ClusterError):
                wait_until(lambda: not self._left(), "", seconds)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self):
        pids = [process.pid for process in self.processes.values() if process.poll() is None]
        return sorted({*pids, *processes_with(str(self.folder))})


def run_inside(cluster, argv):
    """Run a command in a cluster; return its exit status (130 after Ctrl-C: daemons are down by then)."""
    if not argv:
        print(f"Usage: {sys.argv[0]} <command> [<argument>...]  (runs it in a small {cluster.title} of its own)",
              file=sys.stderr)
        return 1

    def stop(number, frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        with cluster, subprocess.Popen(argv, env=cluster.env()) as process:
            try:
                code = process.wait()
            except SystemExit:
                process.terminate()  # a terminal's Ctrl-C has reached it already; SIGTERM has not
                process.wait()
                raise
        return code if code >= 0 else 128 - code
    except (ClusterError, OSError) as error:
        print(f"{cluster.title}: {error}", file=sys.stderr)
        return 1
