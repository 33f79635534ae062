"""The discrete Fourier transform of many real rows: by ducc0 where it is installed, else by scipy."""

import numpy as np


def _ducc0_transform(length, max_rows, dtype):
    from ducc0.fft import r2c

    complex_type = np.result_type(dtype, np.complex64)
    spectrum = np.empty((max_rows, length // 2 + 1), complex_type)
    interleaved = spectrum.view(dtype)

    def transform(rows):
        number = len(rows)
        r2c(rows, axes=(1,), out=spectrum[:number])
        return interleaved[:number]

    return transform


def _scipy_transform(length, max_rows, dtype):
    from scipy.fft import rfft

    def transform(rows):
        return rfft(rows, axis=1).view(dtype)

    return transform


def real_transform(length, max_rows, dtype=np.float32, library=None):
    """Return a function from real rows (n, length), n <= max_rows, to their spectra (n, length + 2).

    Row by row the result holds Re X_0, Im X_0, Re X_1, ..., Im X_{length/2}, unnormalised, in ``dtype``
    (float32 or float64). The caller may change it; the next call overwrites it. ``library`` is "ducc0",
    "scipy" or None (the first of the two that is installed: ducc0 is a little faster, and loads at once).
    """
    if library != "scipy":
        try:
            return _ducc0_transform(length, max_rows, dtype)
        except ImportError:
            if library == "ducc0":
                raise
    return _scipy_transform(length, max_rows, dtype)
