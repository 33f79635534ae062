"""Batches for training: plans, and the features of the rows of this worker, made ahead by threads."""

import numpy as np

from voxark.e2e.exact_gradient import assign_chunks, plan_chunks
from voxark.errors import VoxarkError
from voxark.nnet import distributed
from voxark.nnet.loader import BatchLoader


def part_sizes(plan, gradient):
    """How exact_step cuts the rows of a plan in parts: {max_frames, max_examples}."""
    return {"max_frames": gradient.micro_batch * int(plan.size.max()), "max_examples": gradient.micro_batch}


class BatchSource:
    """Hands out the Batch of one place after the other: ``next()``; ``close()`` it.

    ``make_reader(rows_of)`` gives a BatchReader; only rows that exact_step gives to this worker are read.
    """

    def __init__(self, make_reader, batches_per_epoch, gradient, num_threads=2):
        self._gradient = gradient
        self._reader = make_reader(self._own_rows if distributed.world_size() > 1 else None)
        self._per_epoch, self._num_threads = batches_per_epoch, num_threads
        self._loader = None
        self._place = {"epoch": 0, "number": 0}

    def _own_rows(self, plan):
        lengths = plan.size.tolist()
        parts = plan_chunks(lengths, **part_sizes(plan, self._gradient))
        owners = assign_chunks(parts, lengths, distributed.world_size())
        return [row for part, owner in zip(parts, owners) if owner == distributed.rank() for row in part]

    def first(self, number):
        """The first batches, as start_model takes them: (x (n,T,F), speakers, recordings (n,))."""
        found = []
        for batch in range(number):
            plan = self._reader.sampler.plan(*divmod(batch, self._per_epoch))
            for size in np.unique(plan.size):
                rows = np.flatnonzero(plan.size == size)
                x = np.stack([self._reader.chunk(plan, row) for row in rows.tolist()])
                recordings = self._reader.sampler.recordings_of(plan.utterances[rows])
                found.append((x, plan.speakers[rows], recordings))
        return found

    def next(self):
        """The next Batch."""
        if self._loader is None:
            self._loader = BatchLoader(
                self._reader, self._per_epoch, **self._place, num_threads=self._num_threads
            )
        return next(self._loader)

    @property
    def waited_s(self):
        """Seconds that training has waited for batches."""
        return 0.0 if self._loader is None else self._loader.waited_s

    def state_dict(self):
        """The place of the next batch, and what its plan depends on."""
        place = self._place if self._loader is None else self._loader.state_dict()
        return {"place": dict(place), "sampler": self._reader.sampler.state_dict()}

    def load_state_dict(self, state):
        """Go on from a place; before the first next()."""
        if self._loader is not None:
            raise VoxarkError("internal error: the batches have begun")
        self._reader.sampler.load_state_dict(state["sampler"])
        self._place = dict(state["place"])

    def close(self):
        """Stop the threads."""
        if self._loader is not None:
            self._loader.close()

    def __len__(self):
        """Utterances that batches are made of."""
        return len(self._reader.sampler.data)
