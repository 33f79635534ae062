"""HTK's parameter files, the other output format of Kaldi's feature programs."""

import numpy as np

FBANK, MFCC = 7, 6  # HTK's codes of parameter kinds
ENERGY, C0 = 0o100, 0o20000  # its qualifiers _E and _0


def htk_kind(base, use_energy):
    """The parameter kind of FBANK or MFCC as Kaldi writes it: with energy, else with C0 [K]."""
    return base | (ENERGY if use_energy else C0)


def write_htk(out, features, kind):
    """Write features (T, D) in HTK's format: header (T, 10 ms, 4 D, kind), then float32, all big-endian [K].

    The frame period is always given as 10 ms, as Kaldi gives it.
    """
    header = np.array([(len(features), 100000, 4 * features.shape[1], kind)], dtype=">i4,>i4,>i2,>u2")
    out.write(header.tobytes() + np.asarray(features).astype(">f4").tobytes())
