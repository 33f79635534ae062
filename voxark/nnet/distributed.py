"""Several workers (processes, each with its GPU or its share of the cores) on one training, through torchrun.

    torchrun --standalone --nproc-per-node=4 bin/train-e2e-verif ...
    srun --nodes=2 --ntasks-per-node=1 torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d \\
        --rdzv-endpoint=$(hostname):29500 bin/train-e2e-verif ...

The first is for one machine, the second for a Slurm job of two, from its batch script. torchrun gives every
worker its number in the environment (RANK, WORLD_SIZE, LOCAL_RANK); without these there is one worker, and
every function here does nothing to what it is given. Workers talk through NCCL on GPUs and through gloo on
CPUs. How a loss over all pairs of all workers' embeddings is trained exactly: voxark.e2e.exact_gradient.
"""

import datetime
import os
from typing import NamedTuple

import torch
from torch import distributed as dist

from voxark.errors import VoxarkError


class Workers(NamedTuple):
    """Which worker this is, of how many, and its torch device."""

    rank: int
    world_size: int
    device: torch.device


def init(device="cpu", timeout_s=1800):
    """Join the workers that torchrun started; returns Workers. ``device``: "cpu", "cuda" or "cuda:N".

    With "cuda" each worker takes the GPU of its LOCAL_RANK. VoxarkError where the environment is incomplete,
    GPUs are missing, or the others cannot be reached.
    """
    wanted = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    size = _number("WORLD_SIZE", wanted["WORLD_SIZE"] or "1")
    rank = _number("RANK", wanted["RANK"] or "0")
    device = _own_device(device, _number("LOCAL_RANK", os.environ.get("LOCAL_RANK", "0")), size)
    if size == 1 or dist.is_initialized():
        return Workers(rank if size > 1 else 0, size, device)
    missing = [name for name, value in wanted.items() if value is None]
    if missing or not 0 <= rank < size:
        raise VoxarkError(
            f"WORLD_SIZE={size}, but {', '.join(missing) or f'RANK={rank}'} "
            f"{'is not set' if missing else 'is no such worker'}: start the workers with torchrun"
        )
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method="env://",
            rank=rank,
            world_size=size,
            timeout=datetime.timedelta(seconds=timeout_s),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise VoxarkError(
            f"worker {rank} of {size} cannot reach the others at {wanted['MASTER_ADDR']}:"
            f"{wanted['MASTER_PORT']}: {str(error).splitlines()[0]}"
        ) from None
    return Workers(rank, size, device)


def _number(name, text):
    try:
        return int(text)
    except ValueError:
        raise VoxarkError(
            f"{name}={text!r} in the environment: a number is expected (torchrun sets it)"
        ) from None


def _own_device(name, local_rank, size):
    try:
        device = torch.device(name)
    except RuntimeError:
        raise VoxarkError(f"--device={name}: expected cpu, cuda or cuda:N") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise VoxarkError(f"--device={name}: torch {torch.__version__} finds no CUDA device here")
    index = local_rank if device.index is None or size > 1 else device.index
    if index >= torch.cuda.device_count():
        raise VoxarkError(
            f"worker {local_rank} of this machine has no GPU of its own: there are "
            f"{torch.cuda.device_count()} (--nproc-per-node)"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def rank():
    """The number of this worker, 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """The number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main():
    """Whether this worker is the one that writes files and logs."""
    return rank() == 0


def barrier():
    """Wait for all workers."""
    if world_size() > 1:
        dist.barrier()


def shutdown():
    """Leave the workers; harmless where there are none."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast(tensors):
    """Give every worker worker 0's values of the tensors, in place."""
    if world_size() > 1:
        for _, flat, parts in _buckets(tensors):
            dist.broadcast(flat, 0)
            _scatter(flat, parts)


def broadcast_parameters(module):
    """Make all workers start from worker 0's parameters and buffers."""
    broadcast([*(p.data for p in module.parameters()), *module.buffers()])


def gather_rows(rows, index, num_rows):
    """The whole matrix (num_rows,K) on every worker, of rows (n,K) that this worker has at ``index`` (n,).

    Every row belongs to one worker: the sum with zeros of the others is exact. There is no graph.
    """
    whole = rows.new_zeros(num_rows, rows.shape[1])
    whole[index] = rows.detach()
    return sum_tensor(whole)


def sum_gradients(parameters):
    """Replace the gradients of parameters by their sums over the workers.

    For parts of one gradient: of a loss that all workers share, through the embeddings of each. A parameter
    without gradient counts as 0 where another worker has one.
    """
    if world_size() == 1:
        return
    parameters = list(parameters)
    if not parameters:
        return
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(has)
    used = [p for p, count in zip(parameters, has.tolist()) if count]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for _, flat, parts in _buckets([p.grad for p in used]):
        dist.all_reduce(flat)
        _scatter(flat, parts)


def sum_tensor(tensor):
    """Replace a tensor by its sum over the workers."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value):
    """A list of the values of all workers, by rank, on every worker."""
    if world_size() == 1:
        return [value]
    found = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def total(number, device="cpu"):
    """The sum of the workers' integers; ``device`` is the worker's."""
    return int(sum_tensor(torch.tensor([number], device=device))) if world_size() > 1 else number


def largest(number, device="cpu"):
    """The largest of the workers' integers; ``device`` is the worker's."""
    if world_size() == 1:
        return number
    value = torch.tensor([number], device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def any_worker(flag, device="cpu"):
    """Whether ``flag`` is true on at least one worker, as "a signal came"; ``device`` is the worker's."""
    return bool(largest(int(flag), device))


_BUCKET = 1 << 24  # bytes that travel together: few messages, little extra memory


def _buckets(tensors):
    """Yield (dtype, flat copy, parts) of tensors of one dtype, up to _BUCKET bytes (or one) at a time."""
    by_dtype = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for dtype, group in by_dtype.items():
        start = 0
        while start < len(group):
            end, size = start, 0
            while end < len(group) and (end == start or size + group[end].nbytes <= _BUCKET):
                size += group[end].nbytes
                end += 1
            parts = group[start:end]
            yield dtype, torch.cat([part.reshape(-1) for part in parts]), parts
            start = end


def _scatter(flat, parts):
    for part, values in zip(parts, flat.split([part.numel() for part in parts])):
        part.copy_(values.view(part.shape))
