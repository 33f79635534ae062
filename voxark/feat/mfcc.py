"""Mel-frequency cepstral coefficients, Kaldi's MFCC [K]."""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.feat.fbank import MelSpectrum
from voxark.feat.frames import FrameOptions
from voxark.feat.mel import MelOptions
from voxark.options import option


@dataclass
class MfccOptions(MelOptions, FrameOptions):
    """Options of MFCC features (names and defaults are Kaldi's)."""

    num_ceps: int = option(13, "Number of cepstra, C0 included")
    use_energy: bool = option(True, "Use the log-energy of the frame instead of C0")
    energy_floor: float = option(0.0, "Floor on the energy (not its logarithm), if above 0")
    raw_energy: bool = option(True, "Take the energy before pre-emphasis and window")
    cepstral_lifter: float = option(22.0, "Constant of the scaling of cepstra (0: none)")
    htk_compat: bool = option(False, "Put energy or C0 last, and scale C0 by sqrt 2")


def dct_matrix(num_rows, num_columns):
    """The first rows (num_rows, num_columns) of the orthonormal DCT-II, float64 [K]."""
    k, n = np.arange(num_rows)[:, None], np.arange(num_columns)
    matrix = np.sqrt(2.0 / num_columns) * np.cos(np.pi / num_columns * (n + 0.5) * k)
    matrix[0] = np.sqrt(1.0 / num_columns)
    return matrix


def lifter(num_ceps, constant):
    """Scaling of the cepstra (num_ceps,): 1 + Q/2 sin(pi i / Q) for Q = ``constant``, ones for Q = 0 [K]."""
    if constant == 0.0:
        return np.ones(num_ceps)
    return 1.0 + 0.5 * constant * np.sin(np.pi * np.arange(num_ceps) / constant)


class MfccComputer:
    """Computes MFCC features of many utterances with the same options."""

    def __init__(self, opts, dtype=np.float32, **settings):
        if not 1 <= opts.num_ceps <= opts.num_mel_bins:
            raise VoxarkError(f"--num-ceps={opts.num_ceps} is not 1 to --num-mel-bins={opts.num_mel_bins}")
        self.opts = opts
        self._spectrum = MelSpectrum(opts, dtype, **settings)
        transform = dct_matrix(opts.num_ceps, opts.num_mel_bins)
        transform *= lifter(opts.num_ceps, opts.cepstral_lifter)[:, None]
        if opts.htk_compat:
            if not opts.use_energy:
                transform[0] *= np.sqrt(2.0)
            transform = np.roll(transform, -1, axis=0)
        self._transform = np.ascontiguousarray(transform.T, dtype)

    @property
    def dimension(self):
        """Number of columns of the features."""
        return self.opts.num_ceps

    def __call__(self, samples, warp=1.0, key=""):
        """Return features (T, num_ceps) of samples (N,) at --sample-frequency and 16-bit scale.

        ``warp`` is the VTLN factor; the dither's noise depends on ``key`` and --srand alone. A signal too
        short for one frame gives T = 0. Raises VoxarkError for samples that are not finite.
        """
        mel, log_energy = self._spectrum(samples, warp, key)
        cepstra = self._spectrum.log_mel(mel) @ self._transform
        if log_energy is not None:
            cepstra[:, -1 if self.opts.htk_compat else 0] = self._spectrum.floored(log_energy)
        return cepstra


def mfcc(samples, rate, opts=None, warp=1.0, key=""):
    """MFCC features (T, num_ceps) float32 of samples (N,) at ``rate`` Hz and 16-bit scale.

    The rate must equal opts.sample_frequency, unless resampling is allowed. For many signals make one
    MfccComputer. Raises VoxarkError for another rate, bad options and samples that are not finite.
    """
    from voxark.feat.resample import to_rate

    opts = MfccOptions() if opts is None else opts
    return MfccComputer(opts)(to_rate(samples, rate, opts), warp, key)
