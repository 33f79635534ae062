#!/usr/bin/env python3
"""Draw recordings of simulated speakers: features, speakers, a vector for each, and what is true of them.

<dir> gets feats.{ark,scp}, utt2spk, vectors (mean and deviation of each recording's frames), true.vectors
(the mean of the hidden frames) and true.plda, whose scores of true.vectors are the true log-likelihood
ratios.

Usage: make_data.py [options] <dir>
e.g.: make_data.py --num-speakers=300 --utts=2-20 --srand=1 exp/data/train_1
See also: egs/e2e_tutorial/run.sh, train-e2e-verif
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from pathlib import Path
from typing import Annotated

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output
from voxark.random_numbers import seeded_rng
from world import draw_counts, make_world


def parse_range(text):
    """(least, most) of "4" or "2-20"."""
    low, _, high = text.partition("-")
    try:
        least, most = int(low), int(high or low)
    except ValueError:
        least = most = 0
    if not 1 <= least <= most:
        raise VoxarkError(f"--utts={text}: a number, or least-most, is expected")
    return least, most


@cli.program
def main(
    folder: str,
    *,
    num_speakers: Annotated[int, "Number of speakers"] = 100,
    utts: Annotated[str, "Recordings of a speaker: a number, or least-most"] = "4",
    num_frames: Annotated[int, "Frames of a recording"] = 100,
    write_feats: Annotated[bool, "Write the features; vectors are always written"] = True,
    srand: Annotated[int, "Seed of the speakers and of all that they say"] = 0,
) -> int:
    world, counts = make_world(), cli.Counts("recordings")
    if num_speakers < 2 or num_frames < 1:
        raise VoxarkError("--num-speakers is at least 2, --num-frames at least 1")
    rng = seeded_rng(srand, "speakers")
    numbers = draw_counts(num_speakers, *parse_range(utts), rng)
    means = world.speakers(num_speakers, rng)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tables.write_object("plda", f"{place}/true.plda", world.truth(num_frames).to_params())
    feats = f"ark,scp:{place}/feats.ark,{place}/feats.scp" if write_feats else "ark:/dev/null"
    with (
        tables.open_writer("mat", feats) as out,
        tables.open_writer("vec", f"ark:{place}/vectors") as vectors,
        tables.open_writer("vec", f"ark:{place}/true.vectors") as true,
        open_text_output(f"{place}/utt2spk") as utt2spk,
    ):
        for s in cli.progress(range(num_speakers)):
            y = world.recordings(
                np.repeat(means[s : s + 1], numbers[s], 0), num_frames, seeded_rng(srand, "speaker", s)
            )
            x = world.seen(y).astype(np.float32)
            speaker = f"d{srand}s{s:05d}"  # no two sets of data share a speaker
            for u in range(numbers[s]):
                key = f"{speaker}-{u:03d}"
                if write_feats:
                    out[key] = x[u]
                vectors[key] = np.concatenate([x[u].mean(axis=0), x[u].std(axis=0)])
                true[key] = y[u].mean(axis=0)
                utt2spk.write(f"{key} {speaker}\n")
                counts.done()
    return counts.finish()


if __name__ == "__main__":
    main()
