"""Vectors of known speakers, as training takes them: a spk2utt table and a table of vectors."""

from voxark import tables
from voxark.backend.vector_table import collect_vectors, number_labels
from voxark.errors import VoxarkError


def read_spk2utt(rspecifier):
    """Return {utterance: speaker}; an utterance of two speakers is an error."""
    utt2spk = {}
    with tables.open_reader("tokens", rspecifier) as reader:
        for speaker, utterances in reader:
            for key in utterances:
                if utt2spk.setdefault(key, speaker) != speaker:
                    raise VoxarkError(
                        f"{rspecifier}: utterance {key} belongs to {utt2spk[key]} and to {speaker}"
                    )
    return utt2spk


def read_labelled(spk2utt_rspecifier, vector_rspecifier, counts, progress=lambda reader: reader):
    """Read the vectors of the utterances of a spk2utt table.

    Returns x (N,D), labels (N,), the list of speakers that these number, and the reader of the vectors, whose
    ``skipped`` the caller's counts need. ``counts`` (voxark.cli.Counts) is told of the utterances.
    VoxarkError when there are none.
    """
    utt2spk = read_spk2utt(spk2utt_rspecifier)
    with tables.open_reader("vec", vector_rspecifier) as vectors:
        table = collect_vectors(progress(vectors), utt2spk)
    counts.done(len(table.keys))
    accounted = set(table.keys).union(key for key, _ in vectors.skipped)  # finish() counts what `p` skipped
    for key, speaker in utt2spk.items():
        if key not in accounted:
            counts.fail(key, f"utterance of {speaker} has no vector")
    if not table.keys:
        raise VoxarkError(f"{vector_rspecifier}: no vector of an utterance that {spk2utt_rspecifier} has")
    labels, speakers = number_labels([utt2spk[key] for key in table.keys])
    return table.x, labels, speakers, vectors
