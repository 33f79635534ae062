"""Exact gradients of a loss over all pairs of N utterances, in memory that does not grow with their length.

1. Without a graph: e_i = extractor(x_i) of all utterances, chunk by chunk (utterances of one length).
2. The loss of E (N,d), its gradients g_i at the embeddings and at the parameters of scorer and classifier.
3. Chunk by chunk again, with a graph: back-propagate <g_i, e_i>. As dL/dtheta = sum_i J_i' g_i, the sum of
   the chunks' gradients is the gradient of the loss [tutorial, hands-on].

This needs the same embeddings in both passes. The state of torch's random numbers (dropout) is kept for each
chunk and set again; batch normalisation in training mode is refused, as it mixes the utterances of a chunk.

Workers (voxark.nnet.distributed): all plan the same chunks of the whole batch and embed some of them; they
exchange embeddings, compute the same loss, back-propagate through their own chunks, and **sum** the gradients
of the extractor. Those of scorer and classifier are complete on every worker and are not summed. Dropout then
needs ``seed``: the random numbers of a chunk come from the seed and the keys of its utterances, and the
chunks from the batch alone, so that no number depends on which worker has a chunk, or on how many there are.
"""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import nn

from voxark.errors import VoxarkError
from voxark.nnet import distributed

MAX_FRAMES = 16000  # of a chunk: the memory of one graph
_SAME = 1e-3  # relative difference of embeddings between the passes beyond which they are not the same
_SAME_HALF = 5e-2  # with embeddings or products in half precision


class Step(NamedTuple):
    """What a step gave: the loss, E (N,d) detached, what the loss function gave besides, number of chunks.

    Where the loss is not finite, no gradient was added anywhere.
    """

    loss: float
    embeddings: torch.Tensor
    extra: Any
    num_chunks: int

    @property
    def finite(self):
        """Whether the loss is a finite number."""
        return self.loss - self.loss == 0.0


def plan_chunks(lengths, max_frames=MAX_FRAMES, max_examples=None):
    """Lists of utterances of one length, of at most ``max_frames`` frames each (or one utterance)."""
    groups = {}
    for index, length in enumerate(lengths):
        groups.setdefault(int(length), []).append(index)
    chunks = []
    for length, members in groups.items():
        size = max(1, max_frames // max(length, 1))
        size = min(size, max_examples) if max_examples else size
        chunks += [members[begin : begin + size] for begin in range(0, len(members), size)]
    return chunks


def assign_chunks(chunks, lengths, num_workers):
    """The worker (C,) of each chunk: the longest first, each to the one with the fewest frames so far."""
    frames = [len(chunk) * int(lengths[chunk[0]]) for chunk in chunks]
    load, owner = [0] * num_workers, [0] * len(chunks)
    for c in sorted(range(len(chunks)), key=lambda c: (-frames[c], c)):
        owner[c] = min(range(num_workers), key=lambda w: (load[w], w))
        load[owner[c]] += frames[c]
    return owner


def check_extractor(extractor):
    """Raise VoxarkError if the embedding of an utterance would depend on the others of its chunk."""
    for name, module in extractor.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise VoxarkError(
                f"{name or type(module).__name__}: batch normalisation in training mode mixes the "
                "utterances of a chunk, so that the gradient would not be exact: use frozen norms"
            )


class _Batch:
    """The inputs of a step, their chunks, and torch's random numbers for each of them."""

    def __init__(self, model, inputs, lengths, keys, seed, max_frames, max_examples):
        self.extractor = getattr(model, "extractor", model)
        check_extractor(self.extractor)
        self.inputs, self.seed = inputs, seed
        self.lengths = [len(x) for x in inputs] if lengths is None else lengths
        self.keys = range(len(self.lengths)) if keys is None else keys
        if len(self.keys) != len(self.lengths) or not len(self.lengths):
            raise VoxarkError(f"a batch of {len(self.lengths)} utterances with {len(self.keys)} keys")
        self.chunks = plan_chunks(self.lengths, max_frames, max_examples)
        first = next(self.extractor.parameters(), None)
        self.device = torch.device("cpu") if first is None else first.device
        self._states, self.after, self.is_half = {}, None, False

    def embed(self, chunk):
        """Embeddings (B,d) of a chunk, with a graph if gradients are enabled."""
        x = self.inputs
        x = x[chunk] if isinstance(x, torch.Tensor) else torch.stack([torch.as_tensor(x[i]) for i in chunk])
        return self.extractor(x.to(self.device, non_blocking=True))

    def set_random(self, name, chunk=()):
        """Set the random state of ``name`` as it was the first time, or at first remember it."""
        if self.seed is not None:
            torch.manual_seed(_seed(self.seed, name, *(self.keys[i] for i in chunk)))
        elif name in self._states:
            set_random_state(self._states[name], self.device)
        else:
            self._states[name] = random_state(self.device)


def _seed(*words):
    text = "\0".join(map(str, words)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def random_state(device):
    """torch's random states on the CPU and on ``device``."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state, device):
    """Set what random_state gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def exact_step(
    model,
    inputs,
    loss_fn,
    *,
    lengths=None,
    keys=None,
    seed=None,
    outer=None,
    dtype=torch.float64,
    max_frames=MAX_FRAMES,
    max_examples=None,
):
    """Add the gradients of loss_fn(E) to the parameters of a model; returns a Step.

    model: a module with ``.extractor``, (B,T,F) to (B,d), or the extractor itself; then ``outer`` lists the
    other parameters that the loss depends on. inputs: a tensor (N,T,F) or any sequence of (T_i,F), which may
    read when it is indexed: with ``lengths`` (N,) given, a worker asks for its own utterances alone, twice.
    loss_fn: E (N,d), in ``dtype`` and in the order of the inputs, to the loss or to (loss, more). keys (N,)
    and seed: see the module; without seed the random numbers go on from where they are. One chunk on one
    worker takes one pass.
    """
    batch = _Batch(model, inputs, lengths, keys, seed, max_frames, max_examples)
    if distributed.world_size() > 1 and seed is None:
        raise VoxarkError("a step on several workers needs a seed: dropout must not depend on the worker")
    before = random_state(batch.device)
    try:
        if len(batch.chunks) == 1 and distributed.world_size() == 1:
            return _plain(batch, loss_fn, dtype)
        return _two_passes(batch, loss_fn, dtype, _outer(model, batch.extractor, outer))
    finally:
        set_random_state(batch.after or before, batch.device)


def plain_step(
    model,
    inputs,
    loss_fn,
    *,
    lengths=None,
    keys=None,
    seed=None,
    outer=None,
    dtype=torch.float64,
    max_frames=MAX_FRAMES,
    max_examples=None,
):
    """Like exact_step, with the graph of the whole batch in memory, on this worker alone."""
    batch = _Batch(model, inputs, lengths, keys, seed, max_frames, max_examples)
    before = random_state(batch.device)
    try:
        return _plain(batch, loss_fn, dtype)
    finally:
        set_random_state(batch.after or before, batch.device)


def verify(model, inputs, loss_fn, **options):
    """The largest relative difference of exact_step's gradients from plain_step's; options as theirs.

    Relative to the largest entry of the parameter's gradient, or to a thousandth of the largest entry of all
    where that is more: what is 0 but for rounding says nothing. Gradients and random numbers are left as they
    were. VoxarkError if the loss is not finite.
    """
    extractor = getattr(model, "extractor", model)
    parameters = _trainable(extractor) + _outer(model, extractor, options.get("outer"))
    device = parameters[0].device
    stashed, state = _take_gradients(parameters), random_state(device)
    found = []
    for step in (plain_step, exact_step):
        set_random_state(state, device)
        if not step(model, inputs, loss_fn, **options).finite:
            raise VoxarkError("the loss is not finite: gradients cannot be compared")
        found.append(_take_gradients(parameters))
    _add_gradients(parameters, stashed)
    pairs = [(a, b) for a, b in zip(*found) if a is not None or b is not None]
    pairs = [
        (torch.zeros_like(b) if a is None else a, torch.zeros_like(a) if b is None else b) for a, b in pairs
    ]
    largest = max((float(a.abs().max()) for a, _ in pairs), default=0.0)
    return max(
        (float((a - b).abs().max()) / max(float(a.abs().max()), 1e-3 * largest, 1e-300) for a, b in pairs),
        default=0.0,
    )


# ------------------------------------------------------------------------------------------ the passes


def _plain(batch, loss_fn, dtype):
    """One pass with the graph of all chunks."""
    rows = []
    for c, chunk in enumerate(batch.chunks):
        batch.set_random(c, chunk)
        rows.append(batch.embed(chunk))
    order = torch.tensor([i for chunk in batch.chunks for i in chunk], device=batch.device)
    embeddings = torch.cat(rows)[torch.argsort(order)].to(dtype)
    loss, extra = _loss(batch, loss_fn, embeddings)
    step = Step(loss.item(), embeddings.detach(), extra, len(batch.chunks))
    if step.finite:
        loss.backward()
    return step


def _two_passes(batch, loss_fn, dtype, outer):
    """Embed, loss, embed again with a graph."""
    workers = distributed.world_size()
    owner = assign_chunks(batch.chunks, batch.lengths, workers)
    mine = [c for c in range(len(batch.chunks)) if owner[c] == distributed.rank()]
    parameters = _trainable(batch.extractor)
    embeddings = _first_pass(batch, mine, dtype).requires_grad_()
    stashed = _take_gradients(parameters) if workers > 1 else None
    loss, extra = _loss(batch, loss_fn, embeddings)
    step = Step(loss.item(), embeddings.detach(), extra, len(batch.chunks))
    if step.finite:
        loss.backward()
        if workers > 1:  # what the loss itself adds, as for a regulariser, is complete: it is not summed
            distributed.broadcast([p.grad for p in outer if p.grad is not None])
            _add_gradients(parameters, stashed)
            stashed = _take_gradients(parameters)
        if parameters and embeddings.grad is not None:
            _second_pass(batch, mine, embeddings.detach(), embeddings.grad)
        distributed.sum_gradients(parameters)
    if workers > 1:
        _add_gradients(parameters, stashed)
    return step


def _first_pass(batch, mine, dtype):
    """E (N,d) without a graph, complete on every worker.

    Rows go into one matrix at once: small tensors kept from each chunk would hold the memory of large ones.
    """
    whole = None
    with torch.no_grad():
        for c in mine:
            batch.set_random(c, batch.chunks[c])
            part = batch.embed(batch.chunks[c])
            if whole is None:
                whole = torch.zeros(len(batch.lengths), part.shape[1], dtype=dtype, device=batch.device)
                batch.is_half = part.dtype in (torch.float16, torch.bfloat16) or getattr(
                    batch.extractor, "half_products", False)
            whole[batch.chunks[c]] = part.to(dtype)
    dim = distributed.largest(0 if whole is None else whole.shape[1], batch.device)
    if whole is None:  # more workers than chunks
        whole = torch.zeros(len(batch.lengths), dim, dtype=dtype, device=batch.device)
    return distributed.sum_tensor(whole)  # each row is one worker's, and 0 on the others: the sum is exact


def _loss(batch, loss_fn, embeddings):
    """(loss, more) of the embeddings, in their precision whatever the extractor's products have."""
    batch.set_random("loss")
    with torch.autocast(batch.device.type, enabled=False):
        result = loss_fn(embeddings)
    if batch.seed is None:
        batch.after = random_state(batch.device)
    return result if isinstance(result, tuple) else (result, None)


def _second_pass(batch, mine, embeddings, gradients):
    """Back-propagate <g, e> of this worker's chunks; VoxarkError if embeddings are not those of before."""
    difference = embeddings.new_zeros(())
    for c in mine:
        chunk = batch.chunks[c]
        batch.set_random(c, chunk)
        again = batch.embed(chunk)
        difference = torch.maximum(difference, (again.detach() - embeddings[chunk]).abs().max())
        if again.requires_grad:
            again.backward(gradients[chunk].to(again.dtype))
    allowed = (_SAME_HALF if batch.is_half else _SAME) * embeddings.abs().max()
    if difference > allowed:
        raise VoxarkError(
            f"embeddings differ by {float(difference):.2g} when they are computed again: the "
            "extractor draws random numbers that are not torch's, or changes as it runs"
        )


# ------------------------------------------------------------------------------------------ gradients


def _trainable(module):
    return [p for p in module.parameters() if p.requires_grad]


def _outer(model, extractor, outer):
    """Trainable parameters that are not the extractor's."""
    inside = {id(p) for p in extractor.parameters()}
    return [
        p for p in (model.parameters() if outer is None else outer) if p.requires_grad and id(p) not in inside
    ]


def _take_gradients(parameters):
    taken = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return taken


def _add_gradients(parameters, gradients):
    for p, gradient in zip(parameters, gradients):
        if gradient is not None:
            p.grad = gradient if p.grad is None else p.grad.add_(gradient)
