"""Run a function for many items, each in a process of its own that starts from this one's state."""

import multiprocessing
import signal
from multiprocessing import connection

from voxark.errors import VoxarkError


def _work(function, item, sender):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # the parent cleans up and speaks; a child just ends
    try:
        sender.send((None, function(item)))
    except (VoxarkError, OSError) as error:
        sender.send((f"{item}: {error}", None))


def run_each(function, items, num_jobs):
    """Yield (item, function(item)) as they finish, at most num_jobs at a time; a dead process is an error."""
    fork = multiprocessing.get_context("fork")
    waiting, running = list(items)[::-1], {}
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                item = waiting.pop()
                receiver, sender = fork.Pipe(duplex=False)
                process = fork.Process(target=_work, args=(function, item, sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = (item, process)
            for receiver in connection.wait(list(running)):
                item, process = running.pop(receiver)
                try:
                    problem, result = receiver.recv()
                except EOFError:
                    process.join()
                    problem = f"the process that worked on {item} died (status {process.exitcode}); see above"
                if problem is not None:
                    raise VoxarkError(problem)
                process.join()
                receiver.close()
                yield item, result
    finally:
        for _, process in running.values():
            process.terminate()
