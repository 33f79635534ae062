#!/usr/bin/env python3
"""Write for each phone a script file of its segments: ranges of the rows of feature files.

A segment is a run of equal labels; its key is the utterance and its first frame.

Usage: make_segments.py <labels-rspecifier> <feats-scp> <out-dir>
e.g.: make_segments.py ark:labels.ark data/train/feats.scp exp/segments   # exp/segments/aa.scp, ...
See also: egs/timit_phones/run.sh, train-hmm-em
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import os
from collections import defaultdict

from phones import PHONES, runs

from voxark import datadir, tables


@cli.program
def main(labels_rspecifier: str, feats_scp: str, out_dir: str) -> int:
    counts = cli.Counts("utterances")
    places = dict(datadir.read_table(feats_scp, str))
    segments = defaultdict(list)
    with tables.open_reader("ivec", labels_rspecifier) as labels:
        for key, numbers in labels:
            if key not in places:
                counts.fail(key, f"{feats_scp} has no features for it")
                continue
            for start, end, phone in runs(numbers):
                segments[phone].append(f"{key}-{start:05d} {places[key]}[{start}:{end - 1}]\n")
            counts.done()
    os.makedirs(out_dir, exist_ok=True)
    for phone, lines in segments.items():
        with tables.open_text_output(os.path.join(out_dir, f"{PHONES[phone]}.scp")) as out:
            out.write("".join(lines))
    return counts.finish(labels)


if __name__ == "__main__":
    main()
