"""A GridEngine of one host on loopback in a temporary folder: sge_qmaster and sge_execd, one queue.

    with GridEngine() as cluster:
        cluster.command("qsub", "-b", "y", "hostname")
"""

import contextlib
import getpass
import os
import signal
import socket
import sys
from pathlib import Path

from daemons import Cluster, ClusterError, children, free_ports, run_inside

_TOOLS = "/usr/lib/gridengine"  # where Debian keeps what makes a cell
_DEFAULTS = "/usr/share/gridengine"

_BOOTSTRAP = """\
admin_user {user}
default_domain none
ignore_fqdn false
spooling_method classic
spooling_lib libspoolc
spooling_params {cell}/common;{folder}/spool
binary_path /usr/sbin
qmaster_spool_dir {folder}/spool
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

# What differs from Debian's configuration: the test's user may be root; reports come at once.
_CONFIGURATION = {
    "execd_spool_dir": "{folder}/execd", "min_uid": "0", "min_gid": "0", "load_report_time": "00:00:02",
    "max_unheard": "00:00:08", "reschedule_unknown": "00:00:00", "enforce_user": "auto",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 "
                        "joblog=false sharelog=00:00:00"}
_SCHEDULER = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1", "maxujobs": "0"}

_QUEUE = {"qname": "all.q", "hostlist": "{host}", "slots": "{slots}", "pe_list": "make smp", "shell": "/bin/bash",
          "shell_start_mode": "unix_behavior", "load_thresholds": "NONE", "rerun": "FALSE",
          "min_cpu_interval": "00:00:01", "notify": "00:00:05"}


def _edited(text, changes):
    """Lines `name value` with other values; names that the text lacks are an error."""
    lines, left = [], dict(changes)
    for line in text.replace("\\\n", " ").splitlines():
        name = line.split()[0] if line.split() else ""
        lines.append(f"{name} {left.pop(name)}" if name in left else line)
    if left:
        raise ClusterError(f"GridEngine's defaults have no {', '.join(left)}")
    return "\n".join(lines) + "\n"


class GridEngine(Cluster):
    """One host with ``slots`` slots, a parallel environment smp, ram_free as a resource; h_vmem is a limit."""

    title = "GridEngine"
    programs = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qdel", "qconf", "qacct")
    package = "gridengine-master, gridengine-exec and gridengine-client"
    needs_root = True

    def __init__(self, slots=4, memory="500G"):
        """Nothing is started before the ``with``."""
        super().__init__()
        self.slots, self.memory = slots, memory
        self.host = socket.gethostname()

    def start(self):
        """Make a cell, start the master, configure it, start the host's daemon."""
        ports = free_ports(2)
        self.environment = {"SGE_ROOT": str(self.folder), "SGE_CELL": "default", "SGE_CLUSTER_NAME": "voxark",
                            "SGE_QMASTER_PORT": str(ports[0]), "SGE_EXECD_PORT": str(ports[1])}
        self._make_cell()
        self._write_queue_conf()
        self.daemon("sge_qmaster", "sge_qmaster", SGE_ND="true")
        self.wait(lambda: self.host in self.command("qconf", "-sh", check=False), "sge_qmaster does not answer")
        self._configure()
        self.start_host()
        self.wait(lambda: self.states() == [""], "the queue is not free")

    def start_host(self):
        """Start the daemon that runs jobs."""
        self.daemon("sge_execd", "sge_execd", SGE_ND="true")

    def crash_host(self):
        """End the host as a failing machine does: the daemon, the shepherds and their jobs, in this order."""
        daemon = self.processes.pop("sge_execd")
        for pid in (daemon.pid, *children(daemon.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def _make_cell(self):
        cell = self.folder / "default"
        for name in (cell / "common", self.folder / "spool", self.folder / "execd"):
            name.mkdir(parents=True)
        (self.folder / "util").symlink_to(f"{_DEFAULTS}/util")
        (self.folder / "spool/job_scripts").mkdir()
        (cell / "common/bootstrap").write_text(
            _BOOTSTRAP.format(user=getpass.getuser(), cell=cell, folder=self.folder), encoding="utf-8")
        (cell / "common/act_qmaster").write_text(self.host + "\n", encoding="utf-8")
        (cell / "common/host_aliases").write_text(f"{self.host} localhost\n", encoding="utf-8")
        with open(f"{_DEFAULTS}/default-configuration", encoding="utf-8") as defaults:
            changes = {name: value.format(folder=self.folder) for name, value in _CONFIGURATION.items()}
            self._write("configuration", _edited(defaults.read(), changes))
        self.command(f"{_TOOLS}/spoolinit", "classic", "libspoolc",
                     f"{cell}/common;{self.folder}/spool", "init")
        for kind, source in (("configuration", self.folder / "configuration"),
                             ("complexes", f"{_DEFAULTS}/util/resources/centry"),
                             ("usersets", f"{_DEFAULTS}/util/resources/usersets"),
                             ("managers", getpass.getuser())):
            self.command(f"{_TOOLS}/spooldefaults", kind, str(source))

    def _write_queue_conf(self):
        """conf/queue.conf for a site whose memory is a consumable: this machine may have less than jobs ask for."""
        mapped = (Path(__file__).parents[2] / "conf/queue.conf").read_text(encoding="utf-8")
        self.environment["VOXARK_QUEUE_CONF"] = self._write("queue.conf", mapped.replace("mem_free=$0", "ram_free=$1"))

    def _write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def _configure(self):
        """The scheduler, memory as a resource, the host, the parallel environment and the queue."""
        scheduler = _edited(self.command("qconf", "-ssconf"), _SCHEDULER)
        complexes = self.command("qconf", "-sc") + "ram_free ram_free MEMORY <= YES YES 0 0\n"
        host = "".join(f"{name} {value}\n" for name, value in {
            "hostname": self.host, "complex_values": f"ram_free={self.memory}",
            **dict.fromkeys(("load_scaling", "user_lists", "xuser_lists", "projects", "xprojects", "usage_scaling",
                             "report_variables"), "NONE")}.items())
        queue = {name: value.format(host=self.host, slots=self.slots) for name, value in _QUEUE.items()}
        for option, text in (("-Msconf", scheduler), ("-Mc", complexes), ("-Ae", host)):
            self.command("qconf", option, self._write("settings", text))
        for environment in ("make", "smp"):
            self.command("qconf", "-Ap", f"{_DEFAULTS}/util/resources/pe/{environment}")
        self.command("qconf", "-Aq", self._write("settings", _edited(self.command("qconf", "-sq"), queue)))
        self.command("qconf", "-as", self.host)

    def states(self):
        """The state of each queue instance: "" is free, "au" is lost."""
        rows = [line.split() for line in self.command("qstat", "-f", check=False).splitlines()]
        return [row[5] if len(row) > 5 else "" for row in rows if row and row[0].startswith("all.q@")]

    def jobs(self):
        """Jobs (lines of qstat, one an array or running member) that have not ended."""
        return self.command("qstat", "-u", "*").splitlines()[2:]

    def cancel_all(self):
        """Cancel what is left."""
        if self.jobs():
            self.command("qdel", "-u", "*", check=False)


if __name__ == "__main__":
    sys.exit(run_inside(GridEngine(), sys.argv[1:]))
