#!/usr/bin/env python3
"""Time optimiser steps of an FHVAE with caches of different size K: table 2 of Hsu and Glass 2018.

Each round takes a step with every K, in random order, so that what else the machine does befalls all alike.
A step is lines 8 to 11 of Algorithm 1, as training takes it: networks, objective, gradients, Adam of the
networks and of the cache. Features, and the entries of the cache, are standard normal. Times are processor
time on a CPU (of all threads), seconds by the clock on a GPU. Forms of the discriminative term: product
(what training uses: one matrix product, its own gradient), plain (one matrix product, softmax and gradient
by torch), naive (all differences of segments and entries written out), which is timed every fourth round.

Usage: step_times.py [options] <table>
e.g.: step_times.py --num-rounds=40 table2.tsv
      step_times.py --device=cuda --num-rounds=200 table2_gpu.tsv
See also: egs/fhvae_scaling/run.sh, plot_step_times.py, train-fhvae
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import statistics
import time
from typing import Annotated

from forms import form_of, numbers_of
from voxark.errors import VoxarkError
from voxark.fhvae.options import (
    DevOptions,
    InputOptions,
    ModelOptions,
    OptimizerOptions,
    Options,
    RunOptions,
    SamplingOptions,
)
from voxark.nnet.needs import require_torch
from voxark.random_numbers import seeded_rng
from voxark.report.rows import write_rows

FRAMES_DIM = 80
NAIVE_EVERY = 4
NAIVE_COPIES = 3  # (B,K,D) arrays that the naive form holds at once


class NoData:
    """In place of a source of batches: ``num_rows`` entries of the cache are all that a step needs of it."""

    def __init__(self, num_rows):
        self.num_rows = num_rows


class Case:
    """Steps with a cache of K entries and a form of the discriminative term; ``times``: seconds of each."""

    def __init__(self, form, size, model, options, workers):
        import torch

        from voxark.fhvae.trainer import Trainer

        self.form, self.size, self.times = form, size, []
        self.trainer = Trainer(model, NoData(size), None, None, options, {}, workers)
        self.trainer.log_posterior = form_of(form)
        generator = torch.Generator().manual_seed(size)
        self.trainer.cache.start_at_random(generator)
        self.rows = torch.randint(0, size, (options.sampling.segment_batch_size,), generator=generator)

    def step(self, x, clock):
        """Take a step on segments x (L,B,F); returns its seconds."""
        import torch

        from voxark.fhvae.sources import Batch

        batch = Batch(x, self.rows.to(x.device), torch.full((x.shape[1],), 10.0, device=x.device), None, False)
        began = clock()
        if self.trainer.take(batch) is None:
            raise VoxarkError(f"K={self.size}, {self.form}: the loss is not finite")
        return clock() - began


def clock_of(device):
    """A function that gives seconds: processor time, or by the clock when a GPU has done its work."""
    if device.type == "cpu":
        return time.process_time
    import torch

    def clock():
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def fits(form, size, options, most):
    """Whether a case's largest arrays are below ``most`` MiB."""
    copies = NAIVE_COPIES * options.model.z2_dim if form == "naive" else 4
    return copies * 4 * options.sampling.segment_batch_size * size <= most << 20


def row_of(case, first):
    """A row of the table; ``first``: the case of the same form with the smallest K."""
    ratios = [a / b for a, b in zip(case.times, first.times, strict=True)]
    return {
        "form": case.form, "K": case.size, "steps": len(case.times),
        "step_ms": 1000 * statistics.median(case.times), "least_ms": 1000 * min(case.times),
        "ratio": statistics.median(ratios),
    }  # fmt: skip


def run(cases, x, clock, num_rounds, num_warm_up):
    """Fill the times of all cases."""
    for number in range(-num_warm_up, num_rounds):
        rng = seeded_rng(0, "order", number)
        for place in rng.permutation(len(cases)).tolist():
            case = cases[place]
            if case.form == "naive" and number % NAIVE_EVERY and number != -1:
                continue
            seconds = case.step(x, clock)
            if number >= 0:
                case.times.append(seconds)


@cli.program
def main(
    table: str,
    *,
    sizes: Annotated[str, "Numbers K of entries of the cache"] = "10,100,1000,2000,5000,10000,20000",
    forms: Annotated[str, "Forms of the discriminative term: product, plain, naive"] = "product,naive",
    num_rounds: Annotated[int, "Steps with each K that count"] = 20,
    num_warm_up: Annotated[int, "... and that do not, before"] = 2,
    max_memory: Annotated[int, "MiB: a case whose largest arrays take more is left out"] = 6000,
    model: ModelOptions,
    precision: Annotated[str, "Products of the networks: float32 or bf16"] = "float32",
    segment_batch_size: Annotated[int, "Segments in a step"] = 256,
    device: Annotated[str, "cpu, cuda or cuda:N"] = "cpu",
    num_threads: Annotated[int, "Threads on the CPU"] = 1,
) -> int:
    require_torch()
    import torch

    from voxark.fhvae.model import FhvaeModel, model_config
    from voxark.nnet import distributed

    if num_rounds < 1 or num_warm_up < 0:
        raise VoxarkError("--num-rounds is at least 1, --num-warm-up at least 0")
    options = Options(model, SamplingOptions(segment_batch_size=segment_batch_size), DevOptions(),
                      OptimizerOptions(precision=precision), InputOptions(), RunOptions(device=device))  # fmt: skip
    options.check()
    workers = distributed.init(device)
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    network = FhvaeModel(model_config(model, FRAMES_DIM)).to(workers.device)
    x = torch.randn(model.segment_length, segment_batch_size, FRAMES_DIM, device=workers.device)
    wanted = [(form, size) for form in forms.split(",") for size in numbers_of(sizes, "--sizes")]
    counts = cli.Counts("steps")
    for form, size in wanted:
        if not fits(form, size, options, max_memory):
            cli.logger.warning("K = %d, %s: left out, it takes more than --max-memory=%d", size, form, max_memory)
    cases = [Case(*case, network, options, workers) for case in wanted if fits(*case, options, max_memory)]
    if not cases:
        raise VoxarkError(f"--max-memory={max_memory}: nothing fits")
    run(cases, x, clock_of(workers.device), num_rounds, num_warm_up)
    first = {case.form: case for case in reversed(cases)}
    rows = [row_of(case, first[case.form]) for case in cases]
    write_rows(table, rows)
    counts.done(sum(len(case.times) for case in cases))
    return counts.finish()


if __name__ == "__main__":
    main()
