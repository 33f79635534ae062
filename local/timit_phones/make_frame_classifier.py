#!/usr/bin/env python3
"""Turn an HMM with one state a class into a classifier of single frames: rows become the classes' frequency.

With equal rows the states of neighbouring frames are independent, so the best path is the best class of each
frame.

Usage: make_frame_classifier.py <hmm-rxfilename> <labels-rspecifier> <hmm-wxfilename>
e.g.: make_frame_classifier.py classes.hmm ark:labels.ark frames.hmm
See also: train-hmm-em --training=fixed, align-hmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import numpy as np

from voxark import tables
from voxark.errors import VoxarkError
from voxark.hmm.model import Hmm, read_hmm, write_hmm


@cli.program
def main(hmm_rxfilename: str, labels_rspecifier: str, hmm_wxfilename: str) -> int:
    counts = cli.Counts("utterances")
    hmm = read_hmm(hmm_rxfilename)
    number = np.zeros(hmm.num_states)
    with tables.open_reader("ivec", labels_rspecifier) as labels:
        for key, states in labels:
            if states.max() >= hmm.num_states:
                raise VoxarkError(f"{key}: label {states.max()}, but the HMM has {hmm.num_states} states")
            number += np.bincount(states, minlength=hmm.num_states)
            counts.done()
    prior = number / number.sum()
    rows = np.tile(prior, (hmm.num_states, 1))
    write_hmm(hmm_wxfilename, Hmm(prior, rows, np.ones(hmm.num_states), hmm.pdfs, hmm.pdf_of, "set"))
    return counts.finish(labels)


if __name__ == "__main__":
    main()
