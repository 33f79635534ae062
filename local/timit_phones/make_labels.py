#!/usr/bin/env python3
"""Label each frame with its phone (0 to 60, in alphabetical order), or as silence, closure or speech.

Frames are those of Kaldi's defaults: 25 ms every 10 ms; a frame has the label of the phone that its centre
lies in. With --classes=vad the labels are 0 silence (h#, pau, epi), 1 closures of stops, 2 all other phones.

Usage: make_labels.py [options] <phones-ctm> <lengths-rspecifier> <labels-wspecifier>
e.g.: make_labels.py data/train/phones.ctm ark:data/train/utt2num_frames ark:labels.ark
See also: egs/timit_phones/run.sh, train-hmm-em
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated, Literal

import numpy as np
from phones import CLOSURES, PHONES, SILENCES, frame_labels, read_phones

from voxark import tables


@cli.program
def main(
    phones_ctm: str,
    lengths_rspecifier: str,
    labels_wspecifier: str,
    *,
    classes: Annotated[Literal["phones", "vad"], "What the labels are"] = "phones",
) -> int:
    counts = cli.Counts("utterances")
    phones = read_phones(phones_ctm)
    of_phone = np.arange(len(PHONES), dtype=np.int32)
    if classes == "vad":
        of_phone = np.array([0 if p in SILENCES else 1 if p in CLOSURES else 2 for p in PHONES], np.int32)
    with (
        tables.open_writer("ivec", labels_wspecifier) as out,
        tables.open_reader("int", lengths_rspecifier) as lengths,
    ):
        for key, length in lengths:
            if key not in phones:
                counts.fail(key, f"{phones_ctm} has no phones for it")
                continue
            out[key] = of_phone[frame_labels(phones[key], length)]
            counts.done()
    return counts.finish(lengths)


if __name__ == "__main__":
    main()
