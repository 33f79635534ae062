"""The features of a table, read anew in each iteration of a training, with bounded memory."""

import logging
import os
import stat
import tempfile

from voxark import tables
from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

BYTES_PER_KEY = 256  # what an utterance costs in memory besides its features


class FeaturePasses:
    """Iterates (key, x (T,D)) over an rspecifier as often as asked; utterances without frames are left out.

    Features that fit into ``max_memory`` megabytes (0: none) stay in memory after the first pass; others are
    read again: files are reopened, a command is run again, and what can be read only once (standard input, a
    named pipe) is copied to a file in $TMPDIR first. Use it in a ``with`` statement. ``counts`` (with done()
    and fail(key, reason)) hears of each utterance once; ``progress`` wraps the reader of each pass.
    """

    def __init__(self, rspecifier, max_memory=500.0, counts=None, progress=iter):
        self.rspecifier = rspecifier
        self.skipped = []
        self._limit = max_memory * 1e6
        self._counts, self._progress = counts, progress
        self._held = self._folder = None
        self._num_passes = 0

    def __enter__(self):
        spec = tables.parse_rspecifier(self.rspecifier)
        name = (spec.scp if spec.ark is None else spec.ark).strip()
        if _readable_once(name):
            self._folder = tempfile.TemporaryDirectory(prefix="voxark-")
            try:
                self._copy(name, os.path.join(self._folder.name, "features"))
            except BaseException:
                self._folder.cleanup()
                raise
        return self

    def __exit__(self, kind, value, traceback):
        if self._folder is not None:
            self._folder.cleanup()

    def _copy(self, name, path):
        try:
            with tables.open_input(name) as source, open(path, "wb") as out:
                while chunk := source.read_some(1 << 20):
                    out.write(chunk)
                logger.debug("copied %d bytes from %s to %s", out.tell(), source.name, path)
        except OSError as error:
            reason = f"{error.strerror} (TMPDIR names another place)"
            raise VoxarkError(f"{path}: cannot be written: {reason}") from None
        self.rspecifier = f"{self.rspecifier.partition(':')[0]}:{path}"

    def __iter__(self):
        if self._held is not None:
            yield from self._held
            return
        self._num_passes += 1
        held, size = [], 0
        with tables.open_reader("mat", self.rspecifier) as reader:
            for key, x in self._progress(reader):
                if not self._count(key, x):
                    continue
                size += x.nbytes + BYTES_PER_KEY
                if size <= self._limit:
                    held.append((key, x))
                else:
                    held = None
                    self._limit = -1.0
                yield key, x
            if self._num_passes == 1:
                self.skipped = reader.skipped
        self._held = held
        if self._num_passes == 1:
            kept = "stay in memory" if held is not None else "are not kept in memory: each pass reads them"
            logger.info("the features, %.1f MB, %s (--max-memory)", size / 1e6, kept)

    def _count(self, key, x):
        """Tell the counts of an utterance in the first pass; return whether it has any frames."""
        if self._counts is not None and self._num_passes == 1:
            if len(x):
                self._counts.done()
            else:
                self._counts.fail(key, "no frames")
        return len(x) > 0


def _readable_once(name):
    """True for standard input and for files that are streams: named pipes, process substitutions, devices."""
    if name.endswith("|"):
        return False
    if name in ("", "-"):
        return True
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return False  # the reader says what is wrong with it
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
