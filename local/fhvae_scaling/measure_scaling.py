#!/usr/bin/env python3
"""Memory and time of training against the number M of sequences, hierarchical and flat.

For every M a process of its own (measure_training.py) trains on M keys of keys.scp in <data>, which make_sequences.py
has made. Three kinds of training: hierarchical; flat, with the discriminative term as a matrix product, and with
all differences written out (naive). A kind has come to its end when it does not fit --max-memory, or when its
step takes --factor times the hierarchical one; larger M are not tried with it.

Usage: measure_scaling.py [options] <data> <table> -- [<option of measure_training.py> ...]
e.g.: measure_scaling.py --sizes=1000,10000 exp/data scaling.tsv -- --hidden-dim=64 --num-layers=1
See also: egs/fhvae_scaling/run.sh, measure_training.py, plot_scaling.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from forms import numbers_of
from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output
from voxark.report.rows import write_rows

KINDS = (("hierarchical", "product"), ("flat", "product"), ("flat", "naive"))
HELD = 50  # sequences that are held out, beside the M
FIGURES = ("start_s", "first_s", "step_s", "steps", "idle_mib", "peak_mib")
PROGRAM = Path(__file__).with_name("measure_training.py")


def write_keys(data, size, path):
    """Write the first ``size`` keys of a folder of make_sequences.py; VoxarkError where there are fewer."""
    with open(f"{data}/keys.scp", encoding="utf-8") as lines, open_text_output(str(path)) as out:
        chosen = list(itertools.islice(lines, size))
        out.write("".join(chosen))
    if len(chosen) < size:
        raise VoxarkError(f"{data}/keys.scp: {len(chosen)} keys, but {size} are needed")


def measured(sampling, form, work, options, max_memory):
    """The figures of one training, by name; {"fits": False} where memory does not do."""
    model = work / "model"
    shutil.rmtree(model, ignore_errors=True)
    command = [
        sys.executable, str(PROGRAM), "--print-args=false", "--verbose=-1", f"--sampling={sampling}",
        f"--form={form}", "--dev-share=0.5", f"--max-dev={HELD}", f"--max-memory={max_memory}", *options,
        f"scp:{work}/keys.scp", str(model)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(model, ignore_errors=True)
    if done.returncode < 0:
        return {"fits": False}  # stopped by the system for its memory
    if done.returncode:
        raise VoxarkError(f"{PROGRAM.name} failed with {sampling} sampling, form {form}: its message is above")
    return json.loads(done.stdout)


def row_of(size, sampling, form, figures, reference, factor):
    """A row of the table; ``reference``: seconds of the hierarchical step at this size."""
    row = {"sequences": size, "sampling": sampling, "form": form}
    row |= {name: figures.get(name) for name in FIGURES}
    row["ratio"] = figures["step_s"] / reference if figures["fits"] else None
    row["end"] = "memory" if not figures["fits"] else "time" if row["ratio"] >= factor else None
    return row


@cli.program
def main(
    data: str,
    table: str,
    *more: str,
    sizes: Annotated[str, "Numbers M of training sequences"] = "1000,10000,100000,1000000",
    max_memory: Annotated[int, "MiB of memory that a training may ask for"] = 4096,
    factor: Annotated[float, "A step of so many times the hierarchical one ends a kind of training"] = 10.0,
) -> int:
    work, rows, ended, counts = Path(f"{table}.work"), [], set(), cli.Counts("trainings")
    work.mkdir(parents=True, exist_ok=True)
    for size in numbers_of(sizes, "--sizes"):
        write_keys(data, size + HELD, work / "keys.scp")
        reference = None
        for sampling, form in KINDS:
            if (sampling, form) in ended:
                continue
            figures = measured(sampling, form, work, more, max_memory)
            if sampling == "hierarchical":
                if not figures["fits"]:
                    raise VoxarkError(f"--max-memory={max_memory} does not do for hierarchical training")
                reference = figures["step_s"]
            row = row_of(size, sampling, form, figures, reference, factor)
            if row["end"]:
                ended.add((sampling, form))
            rows.append(row)
            counts.done()
            cli.logger.info("M = %d, %s, %s: %s", size, sampling, form, "does not fit" if not figures["fits"] else
                            f"{1000 * figures['step_s']:.1f} ms a step, {figures['peak_mib']:.0f} MiB")  # fmt: skip
    shutil.rmtree(work)
    write_rows(table, rows)
    return counts.finish()


if __name__ == "__main__":
    main()
