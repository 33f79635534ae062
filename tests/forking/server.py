"""Forks Python programs, for those who ask: `python server.py <socket> <module>...`; see forking.

It loads the modules, and what of voxark the programs import, and says that it is ready. It ends when its standard
input does.
"""

import ast
import contextlib
import functools
import gc
import importlib
import io
import os
import runpy
import selectors
import signal
import socket
import sys
from pathlib import Path


def load(module):
    """Load a module that a program imports."""
    with contextlib.suppress(Exception):  # the program will say so itself
        importlib.import_module(module)


@functools.cache
def load_imports_of(program):
    """Load the parts of voxark that a program imports; not voxark.cli, which acts on the start of a program."""
    for node in ast.walk(ast.parse(Path(program).read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == "voxark":
            for name in {alias.name for alias in node.names} - {"cli"}:
                load(f"voxark.{name}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxark."):
            load(node.module)


def read_request(connection):
    """(standard streams, folder, command, environment) of a request; EOFError where it breaks off."""
    header, streams, *_ = socket.recv_fds(connection, 8, 3)
    size, message = int.from_bytes(header, "big"), b""
    while len(message) < size or not header:
        more = connection.recv(size - len(message))
        if not more:
            raise EOFError
        message += more
    cwd, number, *fields = message.split(b"\0")
    command = [os.fsdecode(field) for field in fields[: int(number)]]
    env = dict(field.split(b"=", 1) for field in fields[int(number) :])
    return streams, cwd, command, env


def open_streams(streams):
    """Have the three standard streams, made as Python makes them, and no other file open."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 4096)
    unbuffered = sys.stdout.write_through
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = open(number, "wb" if number else "rb", 0 if unbuffered and number else -1, closefd=False)
        old, at_once = getattr(sys, name), not unbuffered and (file.isatty() or number == 2)
        new = io.TextIOWrapper(file, old.encoding, old.errors, line_buffering=at_once, write_through=unbuffered)
        new.mode = old.mode
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def become(on_interrupt, streams, cwd, command, env):
    """Be the program: this forked process ends here."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, on_interrupt)
    open_streams(streams)
    os.chdir(cwd)
    os.environ.clear()
    os.environb.update(env)
    sys.argv, sys.path[0] = command, os.path.dirname(os.path.abspath(command[0]))
    status = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as leaving:
        status = 0 if leaving.code is None else leaving.code
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Server:
    """The connections of the programs that run, by the numbers of their processes."""

    def __init__(self, path, on_interrupt):
        self.connections, self.on_interrupt = {}, on_interrupt
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.ends, wake = os.pipe()  # a byte for each program that ends
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake)
        for source in (self.listener, self.ends, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)

    def accept(self):
        """Fork a program."""
        connection = self.listener.accept()[0]
        try:
            streams, cwd, command, env = read_request(connection)
        except (EOFError, ConnectionError):
            connection.close()  # whoever asked has gone
            return
        load_imports_of(command[0])
        child = os.fork()
        if child == 0:
            become(self.on_interrupt, streams, cwd, command, env)
        for stream in streams:
            os.close(stream)
        self.connections[child] = connection
        self.selector.register(connection, selectors.EVENT_READ, child)

    def reap(self):
        """Tell how the programs ended that have ended."""
        os.read(self.ends, 4096)
        with contextlib.suppress(ChildProcessError):  # there is none
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                connection = self.connections.pop(found[0])
                with contextlib.suppress(KeyError):  # nobody waits for it
                    self.selector.unregister(connection)
                with contextlib.suppress(ConnectionError):
                    connection.send(b"%d" % os.waitstatus_to_exitcode(found[1]))
                connection.close()

    def serve(self):
        """Fork programs until nobody can ask any more."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj == self.ends:
                    self.reap()
                elif key.data in self.connections:
                    os.kill(key.data, signal.SIGKILL)  # whoever asked for it has gone
                    self.selector.unregister(key.fileobj)


if __name__ == "__main__":
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignored already in what runs in the background
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # what is there now is left alone, and so stays shared with the processes forked
    server = Server(sys.argv[1], on_interrupt)
    print("ready", flush=True)
    server.serve()
