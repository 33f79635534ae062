"""Asks a server of server.py to fork a program; run as a script it stands for `python3` in a recipe's PATH.

As a script (see forking.forked_environment) it has programs of bin/ and local/ forked, with its own streams, arguments,
environment and folder, and ends as the program ends. Everything else it becomes itself, by exec. A few milliseconds
count here, so it loads next to nothing.
"""

import _socket  # what socket is made of, without what that loads
import os
import sys

ROOT = os.path.abspath(__file__).rsplit("/", 3)[0]
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
WITH_TORCH = ("average-checkpoints", "convert-fhvae", "e2e-info", "evaluate.py", "extract-embeddings", "extract-fhvae",
              "fhvae-info", "init-ivec-mimic", "train-e2e-verif", "train-fhvae")


def uses_torch(command):
    """Whether a program, ``command[0]``, loads torch with the arguments that it is given."""
    return os.path.basename(command[0]) in WITH_TORCH or "--backend=e2e" in command


def can_be_forked(command, env):
    """Whether a program has no need of an interpreter of its own: it has one thread, and no other files open."""
    words = " ".join(command[1:]).replace("_", "-")
    one_thread = all(env.get(name, "1") == "1" for name in THREADS) and "--num-threads" not in words
    return one_thread and "/fd/" not in words


def is_program(path):
    """Whether a path is that of a program in bin/ or below local/."""
    return os.path.abspath(path).startswith((os.path.join(ROOT, "bin", ""), os.path.join(ROOT, "local", "")))


def count_run(folder, program):
    """How often a program was run, this run counted; ``folder`` remembers it."""
    name = "-".join(os.path.abspath(program).split("/")[-2:])
    tally = os.open(os.path.join(folder, f"{name}.runs"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(tally, b".")
    number = os.lseek(tally, 0, os.SEEK_CUR)  # behind this run's own byte
    os.close(tally)
    return number


def server_for(command, number):
    """The name of the server that forks run ``number`` of a program: of two that differ in the hashes of words."""
    return f"{'torch' if uses_torch(command) else 'plain'}{number % 2}"


def ask(server, command, cwd, env, streams):
    """Send a request to the socket ``server``; returns the connection, on which the exit status comes.

    If the connection is closed before, the program is killed.
    """
    fields = [os.fsencode(cwd), b"%d" % len(command), *map(os.fsencode, command)]
    fields += [os.fsencode(f"{name}={value}") for name, value in env.items()]
    message = b"\0".join(fields)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(server)
    numbers = b"".join(stream.to_bytes(4, sys.byteorder) for stream in streams)
    header = len(message).to_bytes(8, "big")
    connection.sendmsg([header], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
    sent = 0
    while sent < len(message):
        sent += connection.send(message[sent:])
    return connection


def answer(connection):
    """The exit status of the program; RuntimeError where the server has gone."""
    said = connection.recv(64)
    if not said:
        raise RuntimeError("the fork server has gone")
    return int(said)


def fork(command, env):
    """Have a program forked, and end as it ends; returns where it has to be started."""
    folder = env["VOXARK_TEST_FOLDER"]
    if not is_program(command[0]) or not can_be_forked(command, env):
        return
    number = count_run(folder, command[0])
    server = os.path.join(folder, server_for(command, number))
    if number == 1 or not os.path.exists(server):
        return
    status = answer(ask(server, command, os.getcwd(), env, (0, 1, 2)))
    if status < 0:
        import _signal

        if -status != _signal.SIGKILL:
            _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        fork(sys.argv[1:], dict(os.environ))
    os.execv(os.environ["VOXARK_TEST_PYTHON"], [os.environ["VOXARK_TEST_PYTHON"], *sys.argv[1:]])
