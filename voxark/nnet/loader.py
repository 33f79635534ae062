"""Batches made ahead of time by threads, while the one before is trained on.

What a batch holds is decided by its place (epoch, number) alone; the threads decide only when it is ready. So
training is the same for any number of threads, and can go on from any place.
"""

import threading
import time
from typing import NamedTuple

from voxark.errors import VoxarkError


class Place(NamedTuple):
    """A batch by epoch and number in it, both from 0."""

    epoch: int
    number: int


class BatchLoader:
    """Hands out ``build(epoch, number)`` for one place after the other, built ahead by threads.

    ``place`` is the place of the batch that comes next; epochs of ``batches_per_epoch`` follow each other
    without an end. At most ``prefetch`` batches (or one a thread) are ready or under way. ``build`` is called
    from ``num_threads`` threads, several at once; with none, from the thread that asks. What it raises is
    raised where its batch would have come. ``waited_s`` sums the seconds spent waiting for batches,
    ``num_batches`` counts them. Use it in a ``with`` statement, or close it.
    """

    def __init__(self, build, batches_per_epoch, epoch=0, number=0, num_threads=2, prefetch=4):
        if batches_per_epoch < 1 or num_threads < 0 or prefetch < 1:
            raise VoxarkError(
                f"batches per epoch ({batches_per_epoch}) and prefetched batches ({prefetch}) must be "
                f"at least 1, loader threads ({num_threads}) at least 0"
            )
        if epoch < 0 or not 0 <= number < batches_per_epoch:
            raise VoxarkError(f"there is no batch {number} in epoch {epoch} of {batches_per_epoch} batches")
        self._build, self._per_epoch = build, batches_per_epoch
        self._next = self._started = epoch * batches_per_epoch + number  # counted through all epochs
        self._ready, self._condition, self._stop = {}, threading.Condition(), False
        self._prefetch = max(prefetch, num_threads)
        self.waited_s, self.num_batches = 0.0, 0
        self._threads = [
            threading.Thread(target=self._work, name=f"loader-{n}", daemon=True) for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def place(self):
        """The Place of the next batch."""
        return self._place(self._next)

    def _place(self, count):
        return Place(*divmod(count, self._per_epoch))

    def __iter__(self):
        return self

    def __next__(self):
        if self._stop:
            raise StopIteration
        start = time.perf_counter()
        batch, error = self._wait() if self._threads else self._make(self._next)
        self.waited_s += time.perf_counter() - start
        if error is not None:
            self.close()
            raise error
        with self._condition:
            self._next += 1
            self._condition.notify_all()  # there is room for another
        self.num_batches += 1
        return batch

    def rest_of_epoch(self):
        """Iterate over the batches that are left of the epoch of ``place``."""
        end = (self.place.epoch + 1) * self._per_epoch
        while self._next < end and not self._stop:
            yield next(self)

    def state_dict(self):
        """The place of the next batch, to be given to the constructor when training goes on."""
        return self.place._asdict()

    # ---- the threads

    def _make(self, count):
        try:
            return self._build(*self._place(count)), None
        except BaseException as error:  # raised where the batch is asked for
            return None, error

    def _wait(self):
        with self._condition:
            while self._next not in self._ready:
                self._condition.wait(1.0)  # with a limit, so that Ctrl-C is noticed
            return self._ready.pop(self._next)

    def _work(self):
        while (count := self._take()) is not None:
            item = self._make(count)
            with self._condition:
                self._ready[count] = item
                self._condition.notify_all()
            del item

    def _take(self):
        """The batch to be built next, once there is room for it; None at the end."""
        with self._condition:
            while not self._stop and self._started - self._next >= self._prefetch:
                self._condition.wait()
            if self._stop:
                return None
            self._started += 1
            return self._started - 1

    def close(self):
        """Stop the threads; what they have prepared is forgotten."""
        with self._condition:
            self._stop = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(5.0)  # no longer: it may wait for a file system that does not answer
        self._ready.clear()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()
