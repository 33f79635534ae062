"""The machine and the shell's settings: cores, memory, GPUs, disks, limits, variables of voxark."""

import math
import os
import re
import resource
import shutil
import subprocess
import tempfile

from voxark import command_help, versions
from voxark.doctor.findings import OK, WARNING, Finding, guarded

_MACHINE, _SETTINGS = "Machine", "Settings of this shell"
_GIB = 2**30
_LEAST_MEMORY = _LEAST_DISK = 1 * _GIB
_LEAST_FILES = 256
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_UNSORTED = ("b", "A-b", "A_c", "Ab", "a", "B")


def examine(program):
    """Findings on machine and settings; ``program`` is the path of bin/voxark."""
    yield guarded(_MACHINE, "cores", _cores)
    yield guarded(_MACHINE, "processor", _processor)
    yield guarded(_MACHINE, "memory", _memory)
    yield guarded(_MACHINE, "GPUs", _gpus)
    yield guarded(_MACHINE, "current folder", lambda: _disk("current folder", os.getcwd(), False))
    yield guarded(_MACHINE, "TMPDIR", _temporary, essential=True)
    yield _programs_on_path(program)
    yield guarded(_SETTINGS, "sort order", _sort_order)
    yield _threads()
    yield _pipes_allowed()
    yield guarded(_SETTINGS, "open files", _open_files)


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def num_cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cgroup_files(name):
    """The contents of a file of this process's control groups (version 2), from its own to the outermost."""
    path = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    parts = [part for part in path.split("/") if part not in ("", "..")]
    folders = [os.path.join("/sys/fs/cgroup", *parts[:number]) for number in range(len(parts), -1, -1)]
    return [text for folder in folders if (text := _read(os.path.join(folder, name)).strip())]


def _cores():
    value = f"{num_cores()} of {os.cpu_count()} may be used here; take at most so many for --nj"
    quotas = [text.split() for text in _cgroup_files("cpu.max")]
    share = min((int(quota) / int(period) for quota, period in quotas if quota != "max"), default=math.inf)
    if share < num_cores():
        advice = f"take --nj {max(1, int(share))}"
        return Finding(
            _MACHINE, "cores", WARNING, f"{value}, but the container has the time of {share:.3g}", advice
        )
    return Finding(_MACHINE, "cores", OK, value)


def _processor():
    found = re.search(r"^flags\s*:(.*)$", _read("/proc/cpuinfo"), re.M)
    flags = set(found[1].split()) if found else set()
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    fast = "fast" if "amx_bf16" in flags else "slow"
    value = f"{versions.processor()}; {' '.join(units) or 'no known vector units'}"
    return Finding(_MACHINE, "processor", OK, f"{value}; --precision=bf16 is {fast} on it")


def _memory():
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines())
    if "MemAvailable" not in fields:
        return Finding(_MACHINE, "memory", OK, "size not known: this system has no /proc/meminfo")
    total, available = (1024 * int(fields[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    value = f"{available / _GIB:.1f} GiB of {total / _GIB:.1f} available"
    limits, used = _cgroup_files("memory.max"), _cgroup_files("memory.current")
    for limit, now in zip(limits, used):
        if limit != "max" and int(limit) < total:
            available = min(available, int(limit) - int(now))
            value += f"; the container may use {int(limit) / _GIB:.1f}, {int(now) / _GIB:.1f} are in use"
    if available < _LEAST_MEMORY:
        return Finding(_MACHINE, "memory", WARNING, value, "end other processes, take a smaller --nj")
    return Finding(_MACHINE, "memory", OK, value)


def _gpus():
    if not shutil.which("nvidia-smi"):
        return Finding(_MACHINE, "GPUs", OK, "no nvidia-smi: networks train on the processor")
    query = "--query-gpu=name,memory.total,memory.free,driver_version"
    done = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30
    )
    gpus = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not gpus:
        reason = (done.stdout + done.stderr).strip().split("\n")[0]
        return Finding(_MACHINE, "GPUs", WARNING, f"nvidia-smi: {reason}", "look after the driver")
    return Finding(_MACHINE, "GPUs", OK, "; ".join(gpus) + _visible())


def _visible():
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"


def _disk(name, folder, essential):
    """Whether a file can be made in a folder, tried; and what is left on its disk."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"voxark")
            file.flush()
    except OSError as error:
        reason = f"{folder}: cannot be written in: {error.strerror}"
        return Finding(
            _MACHINE, name, WARNING, reason, "take another folder, or look after its owner", essential
        )
    free = shutil.disk_usage(folder).free
    value = f"{folder}: can be written in, {free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK:
        return Finding(_MACHINE, name, WARNING, value, "make room, or work on another disk")
    return Finding(_MACHINE, name, OK, value, essential=essential)


def _temporary():
    """The folder of temporary files; where TMPDIR is no use Python takes another one, a shell does not."""
    wanted = os.environ.get("TMPDIR") or tempfile.gettempdir()
    return _disk("TMPDIR", wanted, True)


def _programs_on_path(program):
    here, found = os.path.dirname(os.path.realpath(program)), shutil.which("compute-fbank")
    if found is None:
        root = command_help.checkout_of(program)
        advice = f"`. {root}/path.sh`" if root else f"put {here} on PATH"
        return Finding(_SETTINGS, "PATH", WARNING, "voxark's programs are not on it", advice)
    if os.path.dirname(os.path.realpath(found)) != here:
        advice = "start a new shell and source one path.sh, or activate one environment"
        return Finding(
            _SETTINGS, "PATH", WARNING, f"programs are found in {os.path.dirname(found)}, not {here}", advice
        )
    return Finding(_SETTINGS, "PATH", OK, f"programs are found in {here}")


def _sort_order():
    """Tables are sorted by bytes: try what `sort` does here."""
    names = [name for name in ("LC_ALL", "LC_COLLATE", "LANG") if os.environ.get(name)]
    value = f"{names[0]}={os.environ[names[0]]}" if names else "no locale is set"
    done = subprocess.run(
        ["sort"], input="\n".join(_UNSORTED) + "\n", capture_output=True, text=True, timeout=20
    )
    if done.stdout.split() != sorted(_UNSORTED):
        reason = f"{value}: `sort` does not put keys in the order that Kaldi's tables need"
        return Finding(_SETTINGS, "sort order", WARNING, reason, "export LC_ALL=C (path.sh does)")
    return Finding(_SETTINGS, "sort order", OK, f"{value}: `sort` puts keys in the order of their bytes")


def _threads():
    values = {name: os.environ[name] for name in _THREAD_VARIABLES if os.environ.get(name)}
    value = ", ".join(f"{name}={number}" for name, number in values.items())
    if any(number.isdigit() and int(number) > num_cores() for number in values.values()):
        advice = f"unset them; jobs of a recipe run side by side, {num_cores()} threads in all are enough"
        return Finding(_SETTINGS, "threads", WARNING, f"{value}: more than there are cores", advice)
    return Finding(_SETTINGS, "threads", OK, value)


def _pipes_allowed():
    value = os.environ.get("VOXARK_ALLOW_PIPES")
    if value is not None and value.lower() in ("0", "false"):
        text = f"VOXARK_ALLOW_PIPES={value}: rspecifiers with commands are refused"
        return Finding(
            _SETTINGS, "pipes allowed", WARNING, text, "unset VOXARK_ALLOW_PIPES to run steps and recipes"
        )
    return Finding(
        _SETTINGS, "pipes allowed", OK, "yes (VOXARK_ALLOW_PIPES=0 or --allow-pipes=false would refuse them)"
    )


def _open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        enough = hard == resource.RLIM_INFINITY or hard >= _LEAST_FILES
        advice = f"ulimit -n {_LEAST_FILES}" if enough else "ask for a higher limit (limits.conf)"
        return Finding(_SETTINGS, "open files", WARNING, f"{soft} a process (at most {most})", advice)
    return Finding(_SETTINGS, "open files", OK, f"{soft} a process (at most {most})")
