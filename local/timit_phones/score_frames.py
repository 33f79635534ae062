#!/usr/bin/env python3
"""Print the share of frames, in percent, whose phone is right: of 61, and folded to 48, 39 and 3 classes.

Frames of the glottal stop q are not scored among 48 and 39 (Lee and Hon). With --majority each frame is given
the class that is most frequent in the labels of --majority, whatever the second table says.

Usage: score_frames.py [options] <true-labels-rspecifier> <labels-rspecifier>
e.g.: score_frames.py --without=-sa ark:true.ark ark:decoded.ark
See also: egs/timit_phones/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np
from phones import PHONES, class_numbers

from voxark import tables
from voxark.errors import VoxarkError


def collect(rspecifier, without=""):
    """Return {key: labels (T,)} of the utterances whose key does not hold ``without``."""
    with tables.open_reader("ivec", rspecifier) as reader:
        return {key: labels for key, labels in reader if not without or without not in key}


def accuracy(true, found, number):
    """Return the share of right classes, in percent, of joined labels (N,) folded to ``number`` classes."""
    classes = class_numbers(number)
    scored = classes[true] >= 0
    return 100.0 * np.mean(classes[found][scored] == classes[true][scored])


def most_frequent(labels, number):
    """Return a phone of the class that most of the labels (N,) have among ``number`` classes."""
    classes = class_numbers(number)[labels]
    largest = np.bincount(classes[classes >= 0]).argmax()
    return int(np.flatnonzero(class_numbers(number) == largest)[0])


@cli.program
def main(
    true_labels_rspecifier: str,
    labels_rspecifier: str,
    *,
    without: Annotated[str, "Leave utterances out whose key has this in it"] = "",
    majority: Annotated[str, "Labels (rspecifier) whose most frequent class is the answer throughout"] = "",
) -> int:
    counts = cli.Counts("utterances")
    true, found = collect(true_labels_rspecifier, without), collect(labels_rspecifier, without)
    for key in true:
        if key not in found or len(found[key]) != len(true[key]):
            raise VoxarkError(f"{key}: {labels_rspecifier} has no labels for it, or not as many as frames")
    if not true:
        raise VoxarkError(f"{true_labels_rspecifier}: no utterances")
    counts.done(len(true))
    joined = np.concatenate(list(true.values()))
    answer = np.concatenate([found[key] for key in true])
    seen = np.concatenate(list(collect(majority).values())) if majority else None
    values = []
    for number in (len(PHONES), 48, 39, 3):
        given = answer if seen is None else np.full_like(joined, most_frequent(seen, number))
        values.append(f"{accuracy(joined, given, number):.2f}")
    print(*values, len(joined))
    return counts.finish()


if __name__ == "__main__":
    main()
