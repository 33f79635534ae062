"""A Slurm of two nodes on loopback in a temporary folder: munged, slurmctld, two slurmd.

    with Slurm() as slurm:
        slurm.command("sbatch", "--wrap=hostname")
"""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

from daemons import Cluster, children, free_ports, run_inside

_CONFIGURATION = """\
ClusterName=voxark
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout={slurmd_timeout}
MessageTimeout=4
TCPTimeout=1
KillWait=2
OverTimeLimit=0
MinJobAge=300
MaxArraySize=10001
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} {node}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} {node}
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
PartitionName=second Nodes=node2 MaxTime=INFINITE State=UP
"""

_ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")  # takes root, and not in every container


class Slurm(Cluster):
    """Two nodes of ``cpus`` processors (however many the machine has) and ``memory`` MB; no accounting database."""

    title = "Slurm"
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
    package = "slurm-wlm and munge"

    def __init__(self, cpus=2, memory=500000, slurmd_timeout=6):
        """A node counts as lost ``slurmd_timeout`` seconds after it was last heard of."""
        super().__init__()
        self.cpus, self.memory, self.slurmd_timeout = cpus, memory, slurmd_timeout

    def start(self):
        """Start the daemons; return when both nodes are idle."""
        ports = free_ports(3)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        (self.folder / "state").mkdir()
        (self.folder / "plugstack.conf").touch()
        (self.folder / "slurm.conf").write_text(_CONFIGURATION.format(
            host=os.uname().nodename.split(".")[0], folder=self.folder, user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=ports[0], port1=ports[1], port2=ports[2], slurmd_timeout=self.slurmd_timeout,
            node=f"CPUs={self.cpus} RealMemory={self.memory} State=UNKNOWN"), encoding="utf-8")
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._start_munge()
        self.daemon("slurmctld", "slurmctld", "-D", "-i")
        for node in ("node1", "node2"):
            self.start_node(node)
        self.wait(lambda: self.states() == {"node1": "idle", "node2": "idle"}, "the nodes are not idle")

    def _start_munge(self):
        """Munge with a key and a socket of its own; --force: others may write to the folder that holds its own."""
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.daemon("munged", "munged", "--foreground", "--force", "--num-threads=2",
                    *[f"--{option}={self.folder}/munge.{end}" for option, end in names.items()])
        self.wait((self.folder / "munge.socket").exists, "munged has made no socket")

    def start_node(self, node):
        """Start the slurmd of a node; where the system allows it, its jobs see no processes but the node's."""
        alone = subprocess.run([*_ALONE, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
        self.daemon(f"slurmd-{node}", *(_ALONE if alone else ()), "slurmd", "-D", "-N", node)

    def crash_node(self, node):
        """End a node as a failing machine does: the slurmd, its step daemons and their jobs, in this order."""
        slurmd = self.processes.pop(f"slurmd-{node}")
        steps = [pid for pid in self._left() if self._is_step_of(pid, node)]
        below = [child for pid in steps for child in children(pid)]
        for pid in (slurmd.pid, *steps, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        slurmd.wait()

    @staticmethod
    def _is_step_of(pid, node):
        """True of a slurmstepd that has a job of this node: only the job's environment names the node."""
        mark = f"SLURMD_NODENAME={node}\0".encode()
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"slurmstepd"):
                return any(mark in Path(f"/proc/{child}/environ").read_bytes() for child in children(pid))
        return False

    def states(self):
        """The state of each node, such as idle, mixed, down*."""
        lines = self.command("sinfo", "-h", "-N", "-o", "%N %t", check=False).splitlines()
        return dict(line.split() for line in lines)

    def jobs(self, name=None):
        """Jobs (array members each) that have not ended, or those of a name: lines of squeue."""
        return self.command("squeue", "-h", "-r", "-o", "%i %T %N", *([f"--name={name}"] if name else [])).splitlines()

    def cancel_all(self):
        """Cancel what is left, and give the jobs a moment to end."""
        if self.jobs():
            self.command("scancel", "--quiet", "--user", pwd.getpwuid(os.geteuid()).pw_name)
            deadline = time.monotonic() + 5
            while self.jobs() and time.monotonic() < deadline:
                time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(run_inside(Slurm(), sys.argv[1:]))
