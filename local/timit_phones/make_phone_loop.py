#!/usr/bin/env python3
"""Put models of phones together: one loop of all phones, or for each utterance the chain of its phones.

The loop has bigram probabilities from the labels, which cost --lm-scale times their logarithm, and a penalty
for each phone. Chains (--chains) are for forced alignment. Both come with a table of the phone of each state,
under the key `loop` or the utterance's.

Usage: make_phone_loop.py [options] <hmm-dir> <labels-rspecifier> <hmm-wxfilename> <phones-wspecifier>
e.g.: make_phone_loop.py exp/phones ark:labels.ark exp/loop.hmm ark:exp/loop.phones
      make_phone_loop.py --chains exp/phones ark:labels.ark ark:exp/chains.hmm ark:exp/chains.phones
See also: align-hmm, states_to_phones.py
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated

import numpy as np
from graphs import phone_chain, phone_loop, read_phone_models, sequence_of

from voxark import tables
from voxark.errors import VoxarkError
from voxark.hmm.model import write_hmm


@cli.program
def main(
    hmm_dir: str,
    labels_rspecifier: str,
    hmm_wxfilename: str,
    phones_wspecifier: str,
    *,
    chains: Annotated[bool, "Write a chain of phones for each utterance"] = False,
    lm_scale: Annotated[float, "Weight of the bigram's log-probabilities in the loop"] = 1.0,
    insertion_penalty: Annotated[float, "What each phone costs in the loop, in nats"] = 0.0,
) -> int:
    counts = cli.Counts("utterances")
    models = read_phone_models(hmm_dir)
    with tables.open_reader("ivec", labels_rspecifier) as labels:
        sequences = {key: sequence_of(numbers) for key, numbers in labels}
    with tables.open_writer("ivec", phones_wspecifier) as phones:
        if not chains:
            hmm, phone_of = phone_loop(models, sequences.values(), lm_scale, insertion_penalty)
            write_hmm(hmm_wxfilename, hmm)
            phones["loop"] = phone_of.astype(np.int32)
            counts.done(len(sequences))
            return counts.finish(labels)
        with tables.open_writer("hmm", hmm_wxfilename) as out:
            for key, sequence in sequences.items():
                try:
                    hmm, phone_of = phone_chain(models, sequence)
                except VoxarkError as error:
                    counts.fail(key, str(error))
                    continue
                out[key], phones[key] = hmm.to_params(), phone_of.astype(np.int32)
                counts.done()
    return counts.finish(labels)


if __name__ == "__main__":
    main()
