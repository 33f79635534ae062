"""The kinds of values that tables hold, each with its reader and writer.

Kaldi's own formats are read and written by :mod:`voxark.kaldi_files`; numpy arrays that kaldiio wrote in its
own way are read through kaldiio.
"""

from typing import Callable, NamedTuple

import numpy as np

from voxark import kaldi_files
from voxark.io.basic_types import parse_float, parse_int, read_text_line
from voxark.errors import VoxarkError
from voxark.io import hmm_files, plda_stats_file
from voxark.io.streams import BadValue


class Codec(NamedTuple):
    """How values of one kind are read and written.

    ``line`` kinds are text without a binary mark; ``ndim`` is the number of dimensions of an array kind.
    """

    read: Callable
    write: Callable
    line: bool = False
    ndim: int | None = None


# ------------------------------------------------------------------------------------------------------ words


def _read_words(source, binary):
    return [word.decode("utf-8", "surrogateescape") for word in read_text_line(source).split()]


def _read_one_word(source, binary):
    at = source.position
    words = _read_words(source, binary)
    if len(words) != 1:
        raise source.bad(f"one word was expected behind the key, {len(words)} were found", at)
    return words[0]


def _encode(word):
    data = word.encode("utf-8", "surrogateescape")
    if len(data.split()) != 1 or data != data.strip():
        raise VoxarkError(f"{word!r} is not one word: it is empty or holds white space")
    return data


def _write_one_word(out, word, binary):
    out.write(_encode(word) + b"\n")


def _write_words(out, words, binary):
    out.write(b"".join(_encode(word) + b" " for word in words) + b"\n")


# -------------------------------------------------------------------------------------------- numbers, models


def _number_codec(read, write, parse, what):
    """A scalar stands alone on its line in text."""
    def read_number(source, binary):
        if binary:
            return read(source, True)
        at = source.position
        words = read_text_line(source).split()
        try:
            (word,) = words
            return parse(word)
        except ValueError:
            raise source.bad(f"{what} was expected on the line, found "
                             f"{b' '.join(words)[:40].decode('utf-8', 'replace')!r}", at) from None

    def write_number(out, value, binary):
        write(out, value, binary)
        if not binary:
            out.write(b"\n")

    return Codec(read_number, write_number)


def _model_codec(read, write):
    """A model consists of several values: behind a bad one of them there is more of the same model."""
    def read_model(source, binary):
        try:
            return read(source, binary)
        except BadValue as error:
            raise VoxarkError(str(error)) from None

    return Codec(read_model, write)


# ------------------------------------------------------------------------------------------------------ audio


def _write_wave(out, value, binary):
    from voxark.audio import write_wav

    out.write(write_wav(*value))


def _write_htk(out, value, binary):
    from voxark.feat.htk import write_htk

    write_htk(out, *value)


def _read_wave(source, binary):
    """A whole file, or a wave inside an archive, which must be RIFF of a stated length to have an end."""
    from voxark.audio import read_audio

    at = source.position
    if at == 0:
        data = source.read_all()
        source.finish()  # a command that failed is the reason for whatever is wrong with its output
        return read_audio(data, source.name)
    data = source.read(8 + _riff_length(source))
    try:
        return read_audio(data, source.name)
    except VoxarkError as error:
        raise BadValue(f"{error} (audio at byte {at})") from None


def _riff_length(source):
    head = source.peek(8)
    size = int.from_bytes(head[4:8], "little")
    if len(head) < 8 or head[:4] != b"RIFF" or size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        raise source.error("audio inside an archive must be RIFF wav with its length in the header")
    return size


# ------------------------------------------------------------------------------------------------ all of them

KINDS = {
    "mat": Codec(kaldi_files.read_matrix, kaldi_files.write_matrix, ndim=2),
    "vec": Codec(kaldi_files.read_vector, kaldi_files.write_vector, ndim=1),
    "ivec": Codec(kaldi_files.read_int_vector, kaldi_files.write_int_vector, ndim=1),
    "iivec": Codec(kaldi_files.read_int_lists, kaldi_files.write_int_lists),
    "gselect-arrays": Codec(kaldi_files.read_selection_arrays, kaldi_files.write_selection_arrays),
    "post": Codec(kaldi_files.read_posterior, kaldi_files.write_posterior),
    "post-arrays": Codec(kaldi_files.read_posterior_arrays, kaldi_files.write_posterior_arrays),
    "float": _number_codec(kaldi_files.read_float, kaldi_files.write_float, parse_float, "one number"),
    "int": _number_codec(kaldi_files.read_int, kaldi_files.write_int, parse_int, "one integer"),
    "token": Codec(_read_one_word, _write_one_word, line=True),
    "tokens": Codec(_read_words, _write_words, line=True),
    "wav": Codec(_read_wave, _write_wave, line=True),
    "htk": Codec(None, _write_htk, line=True),  # written only: (features, parameter kind)
    "diag-gmm": _model_codec(kaldi_files.read_diag_gmm, kaldi_files.write_diag_gmm),
    "full-gmm": _model_codec(kaldi_files.read_full_gmm, kaldi_files.write_full_gmm),
    "gmm": _model_codec(kaldi_files.read_gmm, kaldi_files.write_gmm),
    "gmm-accs": _model_codec(kaldi_files.read_gmm_accs, kaldi_files.write_gmm_accs),
    "ivector-extractor": _model_codec(kaldi_files.read_ivector_extractor,
                                      kaldi_files.write_ivector_extractor),
    "ivector-stats": _model_codec(kaldi_files.read_ivector_stats, kaldi_files.write_ivector_stats),
    "dplda": _model_codec(kaldi_files.read_dplda, kaldi_files.write_dplda),
    "plda": _model_codec(kaldi_files.read_plda, kaldi_files.write_plda),
    "plda-stats": _model_codec(plda_stats_file.read_plda_stats, plda_stats_file.write_plda_stats),
    "hmm": _model_codec(hmm_files.read_hmm, hmm_files.write_hmm),
}


def read_value(codec, source):
    """Read the binary mark, where the kind has one, and the value behind it."""
    if codec.line:
        return codec.read(source, False)
    mark = source.peek(3)
    if mark in (b"NPY", b"PKL"):
        return _read_kaldiio(codec, source, mark)
    if not mark:
        raise source.truncated("a value was expected, the input ends")
    binary = mark[:2] == b"\0B"
    if binary:
        source.read(2)
    elif mark[:1] == b"\0":
        raise source.error("corrupt: neither binary (\\0B) nor text")
    try:
        return codec.read(source, binary)
    except (ValueError, OverflowError, MemoryError) as error:  # numpy on corrupt numbers
        raise source.error(f"corrupt data ({error})") from None


class _Parts(list):
    """Takes what a codec writes."""

    write = list.append


def value_parts(codec, value, binary, **options):
    """The bytes of a value, the binary mark included, as a list; VoxarkError if it cannot be written."""
    parts = _Parts()
    if binary and not codec.line:
        parts.append(b"\0B")
    codec.write(parts, value, binary, **options)
    return parts


def _read_kaldiio(codec, source, mark):
    """Arrays that kaldiio wrote by numpy are read through it, pickles never (reading them can run code)."""
    if mark == b"PKL":
        raise source.error("a pickled value: it could run code when read, so it is refused")
    from kaldiio.matio import read_kaldi

    at = source.position
    try:
        value = read_kaldi(source)
    except VoxarkError:
        raise
    except Exception as error:  # numpy parses the header as Python text: it fails in many ways
        raise source.error(f"corrupt numpy value ({error})", at) from None
    if value.ndim != codec.ndim or value.dtype.kind not in "fiu":
        found = f"a numpy array of {value.ndim} dimensions and type {value.dtype}"
        raise source.bad(f"{found} cannot stand here", at)
    if codec.read is kaldi_files.read_int_vector:
        return value.astype(np.int32)
    return value if value.dtype in (np.float32, np.float64) else value.astype(np.float32)
