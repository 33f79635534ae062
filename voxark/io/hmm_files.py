"""The file of a hidden Markov model, in Kaldi's style: tokens, vectors and <DiagGMM> blocks, binary or text.

    <HMM> <ENDING> prob <INITIAL>  [ 1 0 ]          pi_s
    <FINAL>  [ 0 0.25 ]                             exit probabilities (prob), or 1 and 0 (set)
    <PDFS> 0 1                                      which density each state has
    <TO> 0 1                                        for each state: where it goes, and how probably
    <PROBS>  [ 0.75 0.25 ]
    <TO> 1
    <PROBS>  [ 0.75 ]
    <NUMPDFS> 2 <DiagGMM> ... </DiagGMM> <DiagGMM> ... </DiagGMM> </HMM>

The model is ours (Kaldi keeps topologies, transitions and densities in other files); the blocks are Kaldi's.
"""

from typing import NamedTuple

import numpy as np

from voxark.io.basic_types import expect_token, read_int, read_token, write_int, write_token
from voxark.kaldi_files import (
    DiagGmmParams, read_diag_gmm, read_int_vector, read_vector, write_diag_gmm, write_int_vector,
    write_vector)

ENDINGS = ("set", "prob")


class HmmParams(NamedTuple):
    """Fields of ``<HMM>``: ending "set" or "prob", initial (S,), final (S,), pdf_of (S,) int32, for each
    state the pair of its successors (n,) int32 and their probabilities (n,), and the DiagGmmParams of the P
    pdfs."""

    ending: str
    initial: np.ndarray
    final: np.ndarray
    pdf_of: np.ndarray
    arcs: list
    pdfs: list[DiagGmmParams]


def _read_field(source, binary, token, read, *arguments):
    expect_token(source, binary, token)
    return read(source, binary, *arguments)


def read_hmm(source, binary):
    """Read ``<HMM>`` into :class:`HmmParams`; VoxarkError where lengths and state numbers disagree."""
    at = source.position
    expect_token(source, binary, "<HMM>")
    ending = _read_field(source, binary, "<ENDING>", read_token)
    initial = _read_field(source, binary, "<INITIAL>", read_vector, np.float64)
    final = _read_field(source, binary, "<FINAL>", read_vector, np.float64)
    pdf_of = _read_field(source, binary, "<PDFS>", read_int_vector)
    num_states = len(initial)
    if ending not in ENDINGS or len(final) != num_states or len(pdf_of) != num_states:
        sizes = f"{num_states} initial and {len(final)} final probabilities, {len(pdf_of)} states' pdfs"
        raise source.error(f"corrupt: ending {ending[:20]!r}, {sizes}", at)
    arcs = []
    for state in range(num_states):
        to = _read_field(source, binary, "<TO>", read_int_vector)
        probs = _read_field(source, binary, "<PROBS>", read_vector, np.float64)
        if len(to) != len(probs) or (len(to) and not 0 <= to.min() <= to.max() < num_states):
            raise source.error(f"corrupt: transitions of state {state} lead to states that are not there", at)
        arcs.append((to, probs))
    num_pdfs = _read_field(source, binary, "<NUMPDFS>", read_int)
    if num_pdfs < 1 or (num_states and not 0 <= pdf_of.min() <= pdf_of.max() < num_pdfs):
        raise source.error(f"corrupt: {num_pdfs} pdfs, but states with others", at)
    pdfs = [read_diag_gmm(source, binary) for _ in range(num_pdfs)]
    expect_token(source, binary, "</HMM>")
    return HmmParams(ending, initial, final, pdf_of, arcs, pdfs)


def write_hmm(out, hmm, binary):
    """Write ``<HMM>`` from :class:`HmmParams`."""
    write_token(out, "<HMM>", binary)
    write_token(out, "<ENDING>", binary)
    write_token(out, hmm.ending, binary)
    for token, vector in (("<INITIAL>", hmm.initial), ("<FINAL>", hmm.final)):
        write_token(out, token, binary)
        write_vector(out, vector, binary)
    write_token(out, "<PDFS>", binary)
    write_int_vector(out, hmm.pdf_of, binary)
    for to, probs in hmm.arcs:
        write_token(out, "<TO>", binary)
        write_int_vector(out, to, binary)
        write_token(out, "<PROBS>", binary)
        write_vector(out, probs, binary)
    write_token(out, "<NUMPDFS>", binary)
    write_int(out, len(hmm.pdfs), binary)
    for pdf in hmm.pdfs:
        write_diag_gmm(out, pdf, binary)
    write_token(out, "</HMM>", binary)
    if not binary:
        out.write(b"\n")
