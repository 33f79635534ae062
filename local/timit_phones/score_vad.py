#!/usr/bin/env python3
"""Print errors of voice activity decisions in percent: miss, false alarm, total and mean.

Miss: speech frames that were judged silent. False alarm: silent frames that were judged voiced. Total: wrong
frames among all. Mean: half the sum of miss and false alarm, which does not depend on how much of the data is
speech. Label 0 is silence, all others are speech (make_labels.py --classes=vad: closures of stops are
speech).

Usage: score_vad.py <labels-rspecifier> <vad-rspecifier>
e.g.: score_vad.py ark:labels.ark ark:vad.ark
See also: compute-vad, make_labels.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError


@cli.program
def main(labels_rspecifier: str, vad_rspecifier: str) -> int:
    counts = cli.Counts("utterances")
    with tables.open_reader("vec", vad_rspecifier) as reader:
        decisions = dict(reader)
    number = np.zeros((2, 2), int)  # true speech, judged voiced
    with tables.open_reader("ivec", labels_rspecifier) as labels:
        for key, classes in labels:
            if key not in decisions or len(decisions[key]) != len(classes):
                raise VoxarkError(f"{key}: {vad_rspecifier} has no decisions, or not as many as frames")
            np.add.at(number, ((classes > 0).astype(int), (decisions[key] > 0).astype(int)), 1)
            counts.done()
    if not number.sum(axis=1).all():
        raise VoxarkError(f"{labels_rspecifier}: both speech and silence are needed")
    false_alarm, miss = number[0, 1] / number[0].sum(), number[1, 0] / number[1].sum()
    total = (number[0, 1] + number[1, 0]) / number.sum()
    print(*(f"{100 * value:.2f}" for value in (miss, false_alarm, total, (miss + false_alarm) / 2)))
    return counts.finish(labels)


if __name__ == "__main__":
    main()
