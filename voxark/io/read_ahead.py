"""Reading ahead in a thread: the flag ``bg`` of an rspecifier."""

import queue
import threading


def read_ahead(entries, depth=4):
    """Run an iterator in a thread, ``depth`` values ahead; its exception is raised here."""
    pending, stop = queue.Queue(depth), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return pending.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work():
        try:
            for entry in entries:
                put((entry, None))
                if stop.is_set():
                    return
            put((None, None))
        except BaseException as error:  # handed to the reading thread, which raises it
            put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            entry, error = pending.get()
            if error is not None:
                raise error
            if entry is None:
                return
            yield entry
    finally:
        stop.set()
        thread.join(0.2)  # no longer: it may wait for input that never comes, and must not hold up a Ctrl-C
