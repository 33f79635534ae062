"""Shell commands at the ends of pipes: started with pipefail, their exit status never ignored."""

import os
import signal
import subprocess
import time

from voxark.errors import VoxarkError

_SIGPIPE_STATUSES = (-signal.SIGPIPE, 128 + signal.SIGPIPE)
_PATIENCE = 2.0  # seconds that a command gets to end after SIGTERM, before SIGKILL


class Command:
    """A running shell command that feeds or takes a pipe; ``stream`` is our end of it, unbuffered.

    An input command gets no standard input of ours: it would eat the script or archive that we read there.
    """

    def __init__(self, command, name, is_input):
        if os.environ.get("VOXARK_ALLOW_PIPES", "1").lower() in ("0", "false"):
            why = "--allow-pipes=false or VOXARK_ALLOW_PIPES=0"
            raise VoxarkError(f"{name}: pipes are forbidden here ({why})")
        if not command.strip():
            raise VoxarkError(f"{name!r}: there is no command beside the '|'")
        self.name, self._is_input = name, is_input
        ends = ({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} if is_input
                else {"stdin": subprocess.PIPE})
        try:
            # pipefail: a failing member of the user's pipeline is an error, not only its last one.
            # Its own process group: so that the whole pipeline can be ended, and not only the shell.
            self._process = subprocess.Popen(["bash", "-o", "pipefail", "-c", command], bufsize=0,
                                             process_group=0, **ends)
        except (OSError, ValueError) as error:
            raise VoxarkError(f"{name}: the command cannot be started: {error}") from None
        self.stream = self._process.stdout if is_input else self._process.stdin

    def finish(self, may_stop_early):
        """Wait for the end; raise VoxarkError unless all went well.

        With ``may_stop_early`` a SIGPIPE inside it is no failure: a later member, or we, needed no more.
        """
        status = self._process.wait()
        if status != 0 and not (status in _SIGPIPE_STATUSES and may_stop_early):
            raise VoxarkError(f"{self.name}: {_describe(status)}")

    def reason(self):
        """What to add to the message of an error at the end of its output: a failed command is the cause."""
        try:
            status = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return ""
        return f"; {_describe(status)}" if status not in (0, *_SIGPIPE_STATUSES) else ""

    def kill(self):
        """End the whole pipeline, by force if need be.

        An input command is told first what it would have found out by itself, that nobody reads on; an output
        command must not take the end of its input for the end of our data.
        """
        if self._is_input and self._end(signal.SIGPIPE, _PATIENCE / 4):
            return
        if not self._end(signal.SIGTERM, _PATIENCE):
            self._end(signal.SIGKILL, _PATIENCE)

    def _end(self, stop, patience):
        """Send a signal to all processes of the pipeline; True when none is left."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid, stop)
            except (ProcessLookupError, PermissionError):
                return True
            self._process.poll()
            stop = 0
            time.sleep(0.002)
        return False


def _describe(status):
    if status < 0:
        return f"the command was ended by signal {-status}"
    return f"the command ended with status {status}" + (" (no such program?)" if status == 127 else "")
