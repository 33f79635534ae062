#!/usr/bin/env python3
"""z2 and mu2 of many sequences that are pieces of utterances: what the histogram of figure 1 is drawn of.

Segments of an utterance begin every --segment-shift frames; each --num-segments consecutive ones are a sequence
of its own, with key <utterance>-<number>. An utterance without that many gives none. Segments go through the
encoder of z2 many utterances at a time.

Usage: encode_pieces.py [options] <model-dir> <feats-rspecifier> <z2-wspecifier> <mu2-wspecifier>
e.g.: encode_pieces.py --max-pieces=100000 exp/fhvae scp:data/train/feats.scp ark:z2.ark ark:mu2.ark
See also: egs/fhvae_scaling/run.sh, plot-fhvae
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

from voxark import tables
from voxark.errors import VoxarkError
from voxark.nnet.needs import require_torch

AT_ONCE = 4096  # segments


def z2_of(model, segments):
    """Posterior means (S,D2) float32 of a list of segments (L,s,F)."""
    import torch

    with torch.no_grad():
        return model.encode_z2(torch.cat(segments, 1)).mean.numpy()


def groups(reader, model, shift, least, counts):
    """Yield ([(key, number of segments)], list of segments (L,s,F)) of some utterances at a time."""
    from voxark.fhvae.inference import check_features, segment_starts, segments

    names, found = [], []
    for key, feats in reader:
        starts = segment_starts(len(feats), model.segment_length, shift)
        if len(starts) < least:
            cli.logger.warning("%s: left out: fewer segments than a sequence has", key)
            continue
        names.append((key, len(starts)))
        found.append(segments(model, check_features(model, feats), starts))
        counts.done()
        if sum(number for _, number in names) >= AT_ONCE:
            yield names, found
            names, found = [], []
    if names:
        yield names, found


@cli.program
def main(
    model_dir: str,
    feats_rspecifier: str,
    z2_wspecifier: str,
    mu2_wspecifier: str,
    *,
    segment_shift: Annotated[int, "Frames from one segment to the next"] = 10,
    num_segments: Annotated[int, "Segments of a sequence"] = 2,
    max_pieces: Annotated[int, "End with so many sequences"] = 100_000,
    num_threads: Annotated[int, "Threads of the network"] = 1,
) -> int:
    if min(segment_shift, num_segments, max_pieces) < 1:
        raise VoxarkError("--segment-shift, --num-segments and --max-pieces are at least 1")
    require_torch()
    import torch

    from voxark.fhvae.inference import utterance_mean
    from voxark.fhvae.model import load_model

    torch.set_num_threads(num_threads)
    model, counts, number = load_model(model_dir), cli.Counts("utterances"), 0
    with (
        tables.open_reader("mat", feats_rspecifier) as reader,
        tables.open_writer("mat", z2_wspecifier) as z2_out,
        tables.open_writer("vec", mu2_wspecifier) as mu2_out,
    ):
        for names, found in groups(reader, model, segment_shift, num_segments, counts):
            z2, at = z2_of(model, found), 0
            for key, size in names:
                for place in range(min(size // num_segments, max_pieces - number)):
                    piece = z2[at + place * num_segments :][:num_segments]
                    z2_out[f"{key}-{place:04d}"], mu2_out[f"{key}-{place:04d}"] = piece, utterance_mean(model, piece)
                    number += 1
                at += size
            if number == max_pieces:
                break
    cli.logger.info("%d sequences", number)
    return counts.finish()


if __name__ == "__main__":
    main()
