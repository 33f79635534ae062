"""Constants of the normalisation layers, estimated on the first data layer by layer in order [tutorial].

A layer is estimated behind layers that are already normalised. One forward pass of each batch is enough: the
passes run in step, each in a thread of its own, and wait at a layer until all have brought their moments.
"""

import logging
import threading

import torch

from voxark.errors import VoxarkError
from voxark.nnet.layers import FrozenNorm

logger = logging.getLogger(__name__)


def initialise_norms(network, batches, max_frames=100_000):
    """Estimate m and s of every FrozenNorm of ``network`` on ``batches``, inputs (B, T, F) or (B, F).

    Batches may differ in T. All their activations of one place are held at the same time, therefore at most
    about ``max_frames`` frames (B x T) are used: of too many, the first examples of every batch. The mode of
    the network and its gradients are left as they are. Returns the number of layers.
    Raises VoxarkError without batches, and where values are not finite.
    """
    layers = [module for module in network.modules() if isinstance(module, FrozenNorm)]
    if not layers:
        return 0
    batches = _limited([batch.detach() for batch in batches], max_frames)
    if not batches:
        raise VoxarkError("no data to estimate the normalisation layers on (--init-batches)")
    was_training = network.training
    network.eval()
    try:
        order = _in_step(network, layers, batches)
    finally:
        network.train(was_training)
    if len(order) < len(layers):
        logger.warning("%d of %d normalisation layers are not used", len(layers) - len(order), len(layers))
    return len(order)


def _limited(batches, max_frames):
    total = sum(len(batch) * (batch.shape[1] if batch.ndim > 2 else 1) for batch in batches)
    if total <= max_frames:
        return batches
    keep = max_frames / total
    return [batch[: max(1, round(keep * len(batch)))] for batch in batches]


class _Abandoned(BaseException):
    """Unwinds a pass whose moments nobody waits for any more."""


class _Pass(threading.Thread):
    """A forward pass that stops in front of every layer to be estimated, with the layer's moments at hand."""

    def __init__(self, network, batch):
        super().__init__(daemon=True)
        self.network, self.batch = network, batch
        self.layer = self.moments = self.error = None
        self.abandoned = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)

    def run(self):
        """Run when :meth:`advance` says so, to the end."""
        self._go.acquire()
        try:
            with torch.no_grad():
                self.network(self.batch)
        except _Abandoned:
            pass
        except BaseException as error:  # it is raised again where it is waited for
            self.error = error
        self.layer = None
        self._stopped.release()

    def stop_at(self, layer, x):
        """Called in this thread in front of a layer."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        number = x.numel() // x.shape[1]
        mean = x.mean(dim=axes, dtype=torch.float64)
        shape = [1, -1] + [1] * (x.ndim - 2)
        scatter = ((x - mean.to(x.dtype).view(shape)) ** 2).sum(dim=axes, dtype=torch.float64)
        self.layer, self.moments = layer, (number, mean, scatter)
        self._stopped.release()
        self._go.acquire()
        if self.abandoned:
            raise _Abandoned

    def advance(self):
        """Let it run to its next stop (``layer`` says which) or to its end (``layer`` is None)."""
        self._go.release()
        self._stopped.acquire()
        if self.error is not None:
            raise self.error


def _pool(moments):
    """Mean and variance (C,) of all batches from (number, mean, scatter) of each."""
    number = sum(n for n, _, _ in moments)
    mean = sum(n * m for n, m, _ in moments) / number
    scatter = sum(s + n * (m - mean) ** 2 for n, m, s in moments)
    return mean, scatter / number


def _in_step(network, layers, batches):
    """Estimate the layers in the order in which the network uses them; return them in that order."""
    passes = [_Pass(network, batch) for batch in batches]
    by_thread, seen = {}, []

    def stop(layer, inputs):
        mine = by_thread.get(threading.get_ident())
        if mine is not None and layer not in seen:
            mine.stop_at(layer, inputs[0])

    hooks = [layer.register_forward_pre_hook(stop) for layer in layers]
    try:
        for one in passes:
            one.start()
            by_thread[one.ident] = one
        while True:
            for one in passes:
                one.advance()
            layer = passes[0].layer
            if layer is None:
                return seen
            if any(one.layer is not layer for one in passes):
                raise VoxarkError("internal error: batches take different ways through the network")
            layer.set_moments(*_pool([one.moments for one in passes]))
            seen.append(layer)
    finally:
        for hook in hooks:
            hook.remove()
        for one in passes:
            if one.is_alive():
                one.abandoned = True
                one._go.release()
                one.join()
