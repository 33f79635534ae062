#!/usr/bin/env python3
"""Replace the states of alignments by the phones that they belong to.

Usage: states_to_phones.py <phones-rspecifier> <ali-rspecifier> <labels-wspecifier>
e.g.: align-hmm loop.hmm scp:feats.scp ark:- | states_to_phones.py ark:loop.phones ark:- ark:labels.ark
See also: make_phone_loop.py, align-hmm
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from voxark import tables


@cli.program
def main(phones_rspecifier: str, ali_rspecifier: str, labels_wspecifier: str) -> int:
    counts = cli.Counts("utterances")
    with tables.open_reader("ivec", phones_rspecifier) as reader:
        phones = dict(reader)
    with (
        tables.open_writer("ivec", labels_wspecifier) as out,
        tables.open_reader("ivec", ali_rspecifier) as alignments,
    ):
        for key, states in alignments:
            of_state = phones.get(key, phones.get("loop"))
            if of_state is None or states.max() >= len(of_state):
                counts.fail(key, "its states are not those of the model whose phones are given")
                continue
            out[key] = of_state[states]
            counts.done()
    return counts.finish(alignments)


if __name__ == "__main__":
    main()
