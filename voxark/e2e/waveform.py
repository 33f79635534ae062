"""From raw samples to frames by a learned filter bank, which starts as a mel filter bank.

A filter is a complex band-pass; its output's squared modulus is smoothed by a low-pass of its own and taken
every 10 ms; then the logarithm. At the start the filters are Gabor functions on the mel scale and smoothing
makes up the 25 ms window, so that the frames resemble log mel filter-bank features (:mod:`voxark.feat.fbank`)
and have their number and their places.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from voxark.e2e.architectures import arch_options
from voxark.e2e.extractors import Extractor, build_extractor
from voxark.errors import VoxarkError
from voxark.feat.fbank import FbankOptions
from voxark.feat.frames import frame_samples, shift_samples, window_function
from voxark.feat.mel import cutoff_frequencies, inverse_mel_scale, mel_scale

STEPS_PER_FRAME = 10  # the squared modulus is taken so many times a frame shift: every millisecond
PREEMPHASIS = 0.97  # fixed, as fbank's: it keeps the offset of a recording out of the lowest filters
LEAST_SMOOTHING = 1.0  # milliseconds


def mel_centres_and_widths(opts):
    """Centres (Hz), and widths (Hz) at half of their height, of the mel bins of FbankOptions ``opts``."""
    low, high = mel_scale(cutoff_frequencies(opts))
    corners = inverse_mel_scale(np.linspace(low, high, opts.num_mel_bins + 2))
    return corners[1:-1], 0.5 * (corners[2:] - corners[:-2])


def _spread(weights, t):
    """Standard deviation of t (n,) under each row of weights (..., n), symmetric about 0."""
    return np.sqrt((weights * t**2).sum(axis=-1) / weights.sum(axis=-1))


class FilterBank(nn.Module):
    """Samples (B, N) at 16-bit scale to log energies (B, T, num_filters), T as Kaldi's fbank has it.

    ``filters``: "gabor" learns centre and width of each filter, "free" every tap. The low-pass widths and the
    floor of the logarithm are learned too. Raises VoxarkError for a sample frequency without whole steps.
    """

    def __init__(self, sample_frequency=16000, num_filters=40, filters="gabor"):
        super().__init__()
        opts = FbankOptions(sample_frequency=sample_frequency, num_mel_bins=num_filters)
        self.shift, self.length = shift_samples(opts), frame_samples(opts)
        self.step, self.rate = self.shift // STEPS_PER_FRAME, sample_frequency
        if self.step < 1 or self.shift % STEPS_PER_FRAME:
            raise VoxarkError(f"waveform: {sample_frequency} samples per second: 10 ms must be a multiple of "
                              f"{STEPS_PER_FRAME} samples")
        self.taps = self.length // self.step // 2 * 2 + 1  # of the low-pass
        self.overhang = self.step * (self.taps - 1) // 2
        centres, widths = mel_centres_and_widths(opts)
        sigma = math.sqrt(math.log(2)) / (math.pi * widths)  # of the Gaussian envelope, in seconds
        t, window = self._times().numpy(), window_function(opts)
        square = (window * np.exp(-0.5 * (t / sigma[:, None]) ** 2)) ** 2
        missing = (1e3 * _spread(window**2, t)) ** 2 - (1e3 * _spread(square, t)) ** 2
        smoothing = np.sqrt(np.maximum(missing, LEAST_SMOOTHING**2))
        self.register_buffer("window", torch.tensor(window, dtype=torch.float32), persistent=False)
        self.log_centre = nn.Parameter(torch.tensor(np.log(centres), dtype=torch.float32))
        self.log_width = nn.Parameter(torch.tensor(np.log(sigma), dtype=torch.float32))
        self.log_smoothing = nn.Parameter(torch.tensor(np.log(smoothing), dtype=torch.float32))
        self.log_floor = nn.Parameter(torch.zeros(num_filters))
        self.kernels = None
        if filters == "free":
            self.kernels = nn.Parameter(self._gabor().detach().clone())
            self.log_centre.requires_grad_(False)
            self.log_width.requires_grad_(False)

    def _times(self):
        """Times (length,) of the taps in seconds, 0 in the middle."""
        return (torch.arange(self.length, dtype=torch.float64) - (self.length - 1) / 2) / self.rate

    def _gabor(self):
        """Filters (length, 2M), real and imaginary parts, windowed as a frame and with a frame's gain."""
        t = self._times().to(self.window)
        envelope = self.window[:, None] * torch.exp(-0.5 * (t[:, None] / self.log_width.exp()) ** 2)
        envelope = envelope * (self.window.sum() / envelope.sum(dim=0))
        phase = 2 * math.pi * t[:, None] * self.log_centre.exp()
        return torch.cat([envelope * torch.cos(phase), envelope * torch.sin(phase)], dim=1)

    def _low_pass(self):
        """Smoothing filters (M, 1, taps), each with sum 1."""
        t = torch.arange(self.taps, device=self.log_smoothing.device) - (self.taps - 1) / 2
        t = t * (1e3 * self.step / self.rate)
        weights = torch.exp(-0.5 * (t / self.log_smoothing.exp()[:, None]) ** 2)
        return (weights / weights.sum(dim=1, keepdim=True))[:, None]

    def num_frames(self, num_samples):
        """Number of frames of so many samples."""
        return 0 if num_samples < self.length else 1 + (num_samples - self.length) // self.shift

    def forward(self, samples):
        """Log energies (B, T, M) of samples (B, N), N at least a frame's length."""
        emphasised = samples - PREEMPHASIS * torch.cat([samples[:, :1], samples[:, :-1]], dim=1)
        padded = F.pad(emphasised, (self.overhang, self.overhang))
        windows = padded.unfold(1, self.length, self.step)
        kernels = self._gabor() if self.kernels is None else self.kernels
        real, imaginary = torch.matmul(windows, kernels).chunk(2, dim=2)
        energy = (real * real + imaginary * imaginary).transpose(1, 2)
        smooth = F.conv1d(energy, self._low_pass(), stride=STEPS_PER_FRAME, groups=energy.shape[1])
        return torch.log(smooth + self.log_floor.exp()[:, None]).transpose(1, 2)


class WaveformExtractor(Extractor):
    """The filter bank under another architecture; takes samples (B, N) or (B, N, 1) at 16-bit scale."""

    takes_samples = True

    def __init__(self, options):
        if options.backbone == "waveform":
            raise VoxarkError("--backbone=waveform: choose what stands behind (xvector, ecapa, ...)")
        inner = {**options.backbone_options, "input_dim": options.num_filters}
        inner = arch_options(options.backbone, inner)
        backbone = build_extractor(options.backbone, inner)
        filters = FilterBank(options.sample_frequency, options.num_filters, options.filters)
        super().__init__("waveform", options, 1, backbone.embedding_dim, filters.length)
        self.filters, self.backbone = filters, backbone
        self.allows_half_products = backbone.allows_half_products
        if backbone.max_frames is not None:
            self.max_frames = filters.length + backbone.max_frames * filters.shift - 1
        if backbone.arch == "fixed-td":
            self.min_frames = filters.length + (backbone.min_frames - 1) * filters.shift

    def check_length(self, length):
        """Raise VoxarkError for a number of samples whose frames the backbone refuses."""
        super().check_length(length)
        self.backbone.check_length(self.filters.num_frames(max(length, self.filters.length)))

    def forward(self, x):
        """Embeddings (B, d) of samples (B, N) or (B, N, 1); shorter than a frame, they are lengthened."""
        return super().forward(x[:, :, None] if x.ndim == 2 else x)

    def embed(self, x):
        """Embeddings (B, d) of samples (B, N, 1)."""
        with torch.autocast(x.device.type, enabled=False):  # the logarithm of a power needs its digits
            features = self.filters(x[:, :, 0])
        return self.backbone(features)
