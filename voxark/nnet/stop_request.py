"""Signals that ask a long training to end, noted in place of acted upon: it saves its state first."""

import logging
import os
import signal

logger = logging.getLogger(__name__)


class StopRequest:
    """In a ``with`` statement signals that ask to end are noted in ``signum``, and nothing else happens.

    SIGTERM, SIGINT and SIGUSR1 (which Slurm sends before the time is up), and SIGHUP unless it is ignored.
    A second one acts as without this class. Outside of the main thread nothing is changed.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

    def __init__(self):
        self.signum = None
        self._previous = {}

    def __enter__(self):
        for signum in self.SIGNALS:
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue
            try:
                self._previous[signum] = signal.signal(signum, self._note)
            except ValueError:  # not the main thread
                break
        return self

    def _note(self, signum, frame):
        if self.signum is not None:
            self._restore()
            os.kill(os.getpid(), signum)
            return
        self.signum = signum
        logger.warning("%s: the state is saved behind this batch", signal.Signals(signum).name)

    def _restore(self):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def __exit__(self, kind, value, traceback):
        self._restore()
