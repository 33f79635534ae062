#!/usr/bin/env python3
"""Start a training of an FHVAE, take some steps, and tell their time and memory: one line of JSON.

Everything is as in train-fhvae up to the first validation. start_s: from opening the table to the first batch
being wanted; first_s: reading and encoding what the first batch needs (hierarchical: K sequences); step_s: median
of a step with its batch at hand; all in processor time. peak_mib: most memory that the process has had, idle_mib:
what it had once its modules were loaded. Where --max-memory does not do, "fits" is false.

Usage: measure_training.py [options] <feats-rspecifier> <model-dir>
e.g.: measure_training.py --sampling=flat scp:exp/data/keys.scp exp/model
See also: egs/fhvae_scaling/run.sh, measure_scaling.py, train-fhvae
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import json
import resource
import statistics
import time
from typing import Annotated

from forms import form_of
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


def peak_mib():
    """Most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def is_out_of_memory(error):
    """Whether an error says that memory was refused: torch has no class of its own for that on CPUs."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error)


def measure(feats, folder, options, form, num_steps, most_s):
    """The figures of a training, by name; steps end early when they have taken ``most_s`` seconds."""
    from voxark.fhvae.training import open_training

    began = time.process_time()
    trainer = open_training(feats, folder, options)
    trainer.log_posterior = form_of(form)
    started = time.process_time()
    batch, times = trainer.next_batch(), []
    first = time.process_time()
    while len(times) < num_steps + 1 and (len(times) < 3 or sum(times) < most_s):
        at = time.thread_time()  # of this thread: another one reads ahead
        if trainer.take(batch) is None:
            raise VoxarkError("the loss is not finite")
        times.append(time.thread_time() - at)
        batch = trainer.next_batch()
    trainer.source.close()
    return {"sequences": len(trainer.source.sequences), "start_s": started - began, "first_s": first - started,
            "step_s": statistics.median(times[1:]), "steps": len(times) - 1, "peak_mib": peak_mib()}  # fmt: skip


@cli.program
def main(
    feats_rspecifier: str,
    model_dir: str,
    *,
    form: Annotated[str, "Form of the discriminative term: product, plain or naive"] = "product",
    num_steps: Annotated[int, "Steps that count"] = 15,
    max_seconds: Annotated[float, "No further step, once they have taken so many"] = 20.0,
    max_memory: Annotated[int, "MiB of memory that the process may ask for (0: any)"] = 4096,
    model: ModelOptions,
    sampling: SamplingOptions,
    dev: DevOptions,
    inputs: InputOptions,
) -> int:
    require_torch()
    import voxark.fhvae.training  # noqa: F401 - what it loads is no part of the start

    form_of(form)
    if num_steps < 2:
        raise VoxarkError("--num-steps is at least 2")
    if max_memory:
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory << 20, max_memory << 20))
    found = {"form": form, "sampling": sampling.sampling, "idle_mib": peak_mib()}
    options = Options(model, sampling, dev, OptimizerOptions(), inputs, RunOptions(loader_threads=1))
    try:
        figures = measure(feats_rspecifier, model_dir, options, form, num_steps, max_seconds)
        found |= {"fits": True, **figures}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, VoxarkError) or not is_out_of_memory(error):
            raise
        found["fits"] = False
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    main()
