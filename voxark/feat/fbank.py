"""Log mel filter-bank features, Kaldi's FBANK [K]."""

import math
from dataclasses import dataclass

import numpy as np

from voxark.feat.fft import real_transform
from voxark.feat.frames import FLOAT_EPSILON, FrameCutter, FrameOptions, dither_generator, num_frames
from voxark.feat.mel import BandedProduct, MelOptions, mel_weights
from voxark.options import option


@dataclass
class FbankOptions(MelOptions, FrameOptions):
    """Options of FBANK features (names and defaults are Kaldi's)."""

    use_energy: bool = option(False, "Add a column with the log-energy of the frame")
    energy_floor: float = option(0.0, "Floor on the energy (not its logarithm), if above 0")
    raw_energy: bool = option(True, "Take the energy before pre-emphasis and window")
    htk_compat: bool = option(False, "Put the energy last instead of first")
    use_log_fbank: bool = option(True, "Take the logarithm of the mel energies")
    use_power: bool = option(True, "Use the power spectrum; if false, the magnitude spectrum")


class MelSpectrum:
    """Mel spectra of signals, with the frames' log-energies where wanted: what FBANK and MFCC share.

    Window, filter banks (one for each warp factor) and buffers are made once; instances are not thread-safe.
    ``dtype`` is the type of all frame-wise computation; ``fft`` names the transform's library (see fft.py).
    """

    def __init__(self, opts, dtype=np.float32, fft=None, max_rows=100):
        energy = ("raw" if opts.raw_energy else "windowed") if opts.use_energy else ""
        self.opts, self.dtype = opts, np.dtype(dtype)
        self.use_power = getattr(opts, "use_power", True)
        self._cutter = FrameCutter(opts, dtype, energy, max_rows)
        self._transform = real_transform(self._cutter.padded, max_rows, dtype, fft)
        self._banks = {}
        self._bank(1.0)  # so that wrong options are found at the start

    def _bank(self, warp):
        bank = self._banks.get(warp)
        if bank is None:
            if len(self._banks) >= 1000:  # a warp factor for each utterance must not fill the memory
                self._banks.clear()
            weights = mel_weights(self.opts, warp)
            bank = self._banks[warp] = BandedProduct(weights, self.dtype, repeat=2 if self.use_power else 1)
        return bank

    def __call__(self, samples, warp=1.0, key=""):
        """Return mel spectra (T, num_mel_bins) and log-energies (T,) or None of a signal (N,)."""
        samples = np.asarray(samples)
        bank = self._bank(warp)
        generator = dither_generator(key, self.opts.srand) if self.opts.dither else None
        total = num_frames(len(samples), self.opts)
        mel = np.empty((total, self.opts.num_mel_bins), self.dtype)
        log_energy = np.empty(total, self.dtype) if self.opts.use_energy else None
        for first, frames, energies in self._cutter.blocks(samples, generator):
            last = first + len(frames)
            spectrum = self._transform(frames)
            np.multiply(spectrum, spectrum, out=spectrum)
            if not self.use_power:
                spectrum = np.sqrt(spectrum[:, 0::2] + spectrum[:, 1::2])
            bank(spectrum, mel[first:last])
            if log_energy is not None:
                log_energy[first:last] = energies
        return mel, log_energy

    def log_mel(self, mel):
        """Floor mel spectra at Kaldi's epsilon and take their logarithm, in place."""
        np.maximum(mel, FLOAT_EPSILON, out=mel)
        return np.log(mel, out=mel)

    def floored(self, log_energy):
        """Log-energies with the floor of --energy-floor."""
        floor = self.opts.energy_floor
        return np.maximum(log_energy, math.log(floor)) if floor > 0 else log_energy


class FbankComputer:
    """Computes FBANK features of many utterances with the same options."""

    def __init__(self, opts, dtype=np.float32, **settings):
        self.opts = opts
        self._spectrum = MelSpectrum(opts, dtype, **settings)

    @property
    def dimension(self):
        """Number of columns of the features."""
        return self.opts.num_mel_bins + bool(self.opts.use_energy)

    def __call__(self, samples, warp=1.0, key=""):
        """Return features (T, dimension) of samples (N,) at --sample-frequency and 16-bit scale.

        ``warp`` is the VTLN factor; the dither's noise depends on ``key`` and --srand alone. A signal too
        short for one frame gives T = 0. Raises VoxarkError for samples that are not finite.
        """
        mel, log_energy = self._spectrum(samples, warp, key)
        if self.opts.use_log_fbank:
            self._spectrum.log_mel(mel)
        if log_energy is None:
            return mel
        energy = self._spectrum.floored(log_energy)[:, None]
        return np.hstack([mel, energy] if self.opts.htk_compat else [energy, mel])


def fbank(samples, rate, opts=None, warp=1.0, key=""):
    """FBANK features (T, dimension) float32 of samples (N,) at ``rate`` Hz and 16-bit scale.

    The rate must equal opts.sample_frequency, unless resampling is allowed. For many signals make one
    FbankComputer. Raises VoxarkError for another rate, bad options and samples that are not finite.
    """
    from voxark.feat.resample import to_rate

    opts = FbankOptions() if opts is None else opts
    return FbankComputer(opts)(to_rate(samples, rate, opts), warp, key)
