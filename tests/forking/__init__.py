"""Programs in processes that are forked off one that has loaded what they import, in place of started.

Loading numpy, scipy, torch and voxark is most of what a short run costs. A program that is forked has, as one that is
started, a process of its own: standard streams, arguments, environment, working directory, signals and exit status.
Only the interpreter and the modules are there before it. The first run of each program is started all the same, and
so is what a fork cannot be: a run with more threads, or with another environment for the interpreter.

VOXARK_TEST_FORKS=0 in the environment has every program started.
"""

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forking import client

LIBRARIES = ("dataclasses", "inspect", "logging", "numpy", "scipy.optimize", "scipy.special")
TORCH = (*LIBRARIES, "torch", "torch._dynamo")  # which every optimizer loads


@functools.cache
def folder():
    """The folder of the servers' sockets, and of the marks that programs have been started."""
    path = tempfile.mkdtemp(prefix="voxark")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


class ForkServer:
    """A process of server.py that has loaded ``modules``; it is started when it is first asked for."""

    def __init__(self, name, *modules):
        self.name, self.modules, self.process = name, modules, None

    def start(self, env):
        """Start it, unless it runs; returns the name of its socket."""
        path = os.path.join(folder(), self.name)
        if self.process is None:
            atexit.register(self.close)
            env = {**env, **dict.fromkeys(client.THREADS, "1")}  # what voxark.cli sets before numpy is loaded
            command = [sys.executable, str(Path(__file__).with_name("server.py")), path, *self.modules]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
            if not self.process.stdout.readline():
                said = self.process.stderr.read().decode()
                self.close()
                raise RuntimeError(f"the fork server did not start:\n{said}")
        return path

    def close(self):
        """End it."""
        if self.process is not None:
            self.process.communicate()
            self.process = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder(), self.name))

    def run(self, command, stdin, cwd, env, timeout):
        """As ``subprocess.run([sys.executable, *command], input=stdin, capture_output=True, ...)``."""
        server = self.start(env)
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = (os.pipe() for _ in range(3))
        theirs = (in_read, out_write, err_write)
        connection = client.ask(server, command, os.path.abspath(cwd or "."), env, theirs)
        for stream in theirs:
            os.close(stream)
        with ThreadPoolExecutor(3) as pool, contextlib.closing(connection):
            pool.submit(_write, in_write, stdin)
            stdout, stderr = pool.submit(_read, out_read), pool.submit(_read, err_read)
            connection.settimeout(timeout)
            try:
                status = client.answer(connection)
            except TimeoutError:
                connection.close()
                raise
        return subprocess.CompletedProcess(command, status, stdout.result(), stderr.result())


def _write(stream, data):
    with contextlib.suppress(BrokenPipeError), open(stream, "wb") as out:
        out.write(data)  # the program may not want it all


def _read(stream):
    with open(stream, "rb") as source:
        return source.read()


# Two of a kind: what depends on the hashes of words, as the order of a set does, differs between them.
_plain, _torch = ([ForkServer(f"{kind}{i}", *modules) for i in range(2)]
                  for kind, modules in (("plain", LIBRARIES), ("torch", TORCH)))  # fmt: skip
_servers = {server.name: server for server in (*_plain, *_torch)}


def server_pids():
    """The numbers of the processes that fork."""
    return {server.process.pid for server in _servers.values() if server.process is not None}


def _is_off():
    return os.environ.get("VOXARK_TEST_FORKS") == "0"


def _for_interpreter(env):
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LD_", "MALLOC_"))}


def server_for(command, usual_env, env):
    """The name of the server that forks a run; None for the first of a program, and what needs an interpreter."""
    number = client.count_run(folder(), command[0])
    can_be = client.can_be_forked(command, env) and _for_interpreter(env) == _for_interpreter(usual_env)
    return client.server_for(command, number) if can_be and number > 1 and not _is_off() else None


def run(command, usual_env, stdin, cwd, env, timeout):
    """Run a Python program, ``command[0]``, forked where it can be; returns a CompletedProcess with its output."""
    server = server_for(command, usual_env, env)
    if server is not None:
        return _servers[server].run(command, stdin, cwd, env, timeout)
    return subprocess.run([sys.executable, *command], input=stdin, capture_output=True, cwd=cwd, env=env,
                          timeout=timeout)


def forked_environment(env, with_torch=False):
    """An environment for recipes: the Python programs that they start are forked, all but the first run of each."""
    if _is_off():
        return env
    for server in _plain + _torch * with_torch:
        server.start(env)
    script = Path(folder(), "path", "python3")
    script.parent.mkdir(exist_ok=True)
    command = shlex.join([sys.executable, "-IS", client.__file__])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    variables = {"VOXARK_TEST_FOLDER": folder(), "VOXARK_TEST_PYTHON": sys.executable}
    return {**env, **variables, "PATH": f"{script.parent}:{env['PATH']}"}
