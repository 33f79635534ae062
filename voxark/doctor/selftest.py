"""Short trials of what every program needs: pipes and archives, linear algebra, features."""

import itertools
import os
import shlex
import tempfile

from voxark.doctor.findings import OK, WARNING, Finding, guarded
from voxark.errors import VoxarkError

_SECTION = "Trials"
# Log mel energies of noise(400) at 16 kHz, --num-mel-bins=8 --dither=0, as kaldi-native-fbank computes them.
FBANK = (18.2506, 19.6497, 21.3274, 22.1220, 23.3018, 24.0084, 25.0269, 25.9072)
_TOLERANCE = 1e-3


def examine(program):
    """Findings of the trials."""
    yield guarded(_SECTION, "archives", lambda: _archive("archives", "ark:{0}", "ark:{0}"), essential=True)
    yield guarded(_SECTION, "pipes", _pipes, essential=True)
    yield guarded(_SECTION, "linear algebra", _linear_algebra, essential=True)
    yield guarded(_SECTION, "features", _features, essential=True)


def noise(number):
    """Whole numbers from -4096 to 4095 that look like noise: a congruential generator, alike everywhere."""
    states = itertools.accumulate(
        range(number), lambda state, _: (1103515245 * state + 12345) % 2**31, initial=1
    )
    return [(state >> 16) % 8192 - 4096 for state in itertools.islice(states, number)]


def _archive(name, wspecifier, rspecifier):
    """Write two vectors and read them again; {0} in the specifiers is a file's name."""
    import numpy as np

    from voxark import tables

    vectors = {key: np.array(noise(50), np.float32) + number for number, key in enumerate(("a", "b"))}
    with tempfile.TemporaryDirectory(prefix="voxark-doctor.") as folder:
        path = (
            shlex.quote(os.path.join(folder, "vectors.ark")) if "|" in wspecifier else f"{folder}/vectors.ark"
        )
        with tables.open_writer("vec", wspecifier.format(path)) as out:
            for key, vector in vectors.items():
                out[key] = vector
        with tables.open_reader("vec", rspecifier.format(path)) as table:
            read = dict(table)
    if list(read) != list(vectors) or not all(np.array_equal(read[key], vectors[key]) for key in vectors):
        raise VoxarkError("what was written is not what is read")
    return Finding(_SECTION, name, OK, "two vectors written and read again", essential=True)


def _pipes():
    if os.environ.get("VOXARK_ALLOW_PIPES", "1").lower() in ("0", "false"):
        return Finding(_SECTION, "pipes", WARNING, "not tried: VOXARK_ALLOW_PIPES forbids them", "see above")
    return _archive("pipes", "ark:| cat > {0}", "ark:cat {0} |")


def _linear_algebra():
    """Whole numbers multiply exactly; the eigenvalues of a path's matrix and the FFT of a wave are known."""
    import numpy as np
    import scipy.linalg

    size = 32
    a = np.array(noise(size * size), dtype=np.float64).reshape(size, size)
    exact = [[sum(int(x) * int(y) for x, y in zip(row, column)) for column in a.T] for row in a]
    path = np.diag(np.full(size, 2.0)) - np.eye(size, k=1) - np.eye(size, k=-1)
    known = 2 - 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    wave = np.abs(np.fft.rfft(np.cos(2 * np.pi * 5 * np.arange(size) / size)))
    wrong = [
        name
        for name, bad in {
            "products (BLAS)": not np.array_equal(a @ a, np.array(exact, dtype=np.float64)),
            "eigenvalues (LAPACK)": np.abs(scipy.linalg.eigh(path, eigvals_only=True) - known).max()
            > 1e-12 * size,
            "FFT": np.abs(wave - size / 2 * (np.arange(size // 2 + 1) == 5)).max() > 1e-12 * size,
        }.items()
        if bad
    ]
    if wrong:
        raise VoxarkError(
            f"wrong results of {', '.join(wrong)}: install numpy and scipy again; with OpenBLAS try "
            "OPENBLAS_CORETYPE=Haswell"
        )
    return Finding(_SECTION, "linear algebra", OK, "products, eigenvalues and FFT are right", essential=True)


def _features():
    import numpy as np

    from voxark.feat.fbank import FbankOptions, fbank

    x = fbank(np.array(noise(400), np.float32), 16000, FbankOptions(num_mel_bins=len(FBANK), dither=0.0))
    error = np.abs(x - np.array([FBANK])).max()
    if not error < _TOLERANCE:
        raise VoxarkError(
            f"log mel energies of a known signal differ from Kaldi's by {error:.2g}: the FFT is wrong"
        )
    return Finding(
        _SECTION,
        "features",
        OK,
        f"log mel energies of a known signal as Kaldi's, within {_TOLERANCE:g}",
        essential=True,
    )
