"""Scored trials put by while a list is read, so that all of its ids are known before the first is used."""

import tempfile
from dataclasses import replace

import numpy as np

from voxark.errors import VoxarkError
from voxark.trials.lists import TrialList, TrialReader

_RECORD = np.dtype([("enroll", np.int32), ("test", np.int32), ("score", np.float64)])
_IN_MEMORY = 1 << 28  # bytes: 16 million trials


class TrialSpool:
    """The blocks of a TrialReader of scores, kept as binary columns of 16 bytes a trial.

    They are held in memory up to 256 MiB and beyond that in a temporary file that has no name, so that a list
    of any length is read once, from a pipe too. Use it in a ``with`` statement.
    """

    def __init__(self, max_in_memory=_IN_MEMORY):
        self._file = tempfile.SpooledTemporaryFile(max_in_memory)
        self.num_trials = 0

    def read(self, rxfilename):
        """Put a list of scores by; returns a TrialList of its ids. VoxarkError for an infinite score."""
        with TrialReader(rxfilename, "score") as reader:
            for block in reader:
                infinite = ~np.isfinite(block.scores)
                if infinite.any():
                    raise VoxarkError(
                        f"{reader.name}: the score of {block.pair(np.argmax(infinite))} is infinite: "
                        "it cannot be normalised"
                    )
                self.add(block)
        none = np.empty(0, np.int32)
        return TrialList(reader.name, reader.enroll_ids, reader.test_ids, none, none)

    def add(self, trials):
        """Put a TrialList with scores by."""
        records = np.empty(len(trials), _RECORD)
        records["enroll"], records["test"], records["score"] = trials.enroll, trials.test, trials.scores
        try:
            self._file.write(records.view(np.uint8))
        except OSError as error:
            raise VoxarkError(
                f"{tempfile.gettempdir()}: no room for {_RECORD.itemsize * (self.num_trials + len(trials))} "
                f"bytes of scores: {error.strerror}; point $TMPDIR to a folder that has it"
            ) from None
        self.num_trials += len(trials)

    def blocks(self, ids, block_trials=1 << 20):
        """Iterate over TrialLists of ``block_trials`` trials, in order, with the name and ids of ``ids``."""
        self._file.seek(0)
        while data := self._file.read(block_trials * _RECORD.itemsize):
            columns = np.frombuffer(data, _RECORD)
            enroll, test, scores = (np.ascontiguousarray(columns[field]) for field in _RECORD.names)
            yield replace(ids, enroll=enroll, test=test, scores=scores)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self._file.close()
