"""Voice activity detection by the energy of each frame [K]."""

from dataclasses import dataclass

import numpy as np

from voxark.checks import check_finite
from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class VadOptions:
    """Energy threshold and smoothing; the names are those of Kaldi's compute-vad."""

    vad_energy_threshold: float = option(
        5.0, "Constant term in the threshold on the energy, which is column 0 (see --vad-energy-mean-scale)"
    )
    vad_energy_mean_scale: float = option(
        0.5, "If this is s, the threshold is s*m + vad-energy-threshold, m being the file's mean log-energy"
    )
    vad_frames_context: int = option(
        0, "Number of frames of context on each side of a frame, in the window for which energy is monitored"
    )
    vad_proportion_threshold: float = option(
        0.6, "Proportion of the frames within the window that need to have more energy than the threshold"
    )

    def __post_init__(self):
        if self.vad_energy_mean_scale < 0:
            raise VoxarkError(f"--vad-energy-mean-scale={self.vad_energy_mean_scale}: must not be negative")
        if self.vad_frames_context < 0:
            raise VoxarkError(f"--vad-frames-context={self.vad_frames_context}: must not be negative")
        if not 0 < self.vad_proportion_threshold < 1:
            raise VoxarkError(
                f"--vad-proportion-threshold={self.vad_proportion_threshold}: must be above 0 and below 1"
            )


def energy_vad(x, options=None):
    """Return 1.0 for each voiced frame of features x (T,D), 0.0 for the others: (T,) float32 [K].

    Column 0 must be a log-energy (or C0). Frame t is voiced if at least the proportion
    ``vad_proportion_threshold`` of the frames t-context..t+context inside the utterance has more energy than
    the threshold. Everything is compared in float32, as Kaldi does, so that borderline frames fall alike.
    Raises VoxarkError for a NaN or infinite energy. T = 0 gives no decisions.
    """
    options = options or VadOptions()
    energy = np.asarray(x, dtype=np.float32)[:, 0] if len(x) else np.zeros(0, np.float32)
    if len(energy) == 0:
        return energy
    check_finite(energy[:, None], "energy")
    num_frames = len(energy)
    threshold = np.float32(options.vad_energy_threshold)
    if options.vad_energy_mean_scale != 0:
        total = np.float32(np.sum(energy, dtype=np.float64))
        threshold += np.float32(options.vad_energy_mean_scale) * total / np.float32(num_frames)
    # above[t] = number of frames before t with more energy: a window's count is a difference of two
    above = np.concatenate(([0], np.cumsum(energy > threshold)))
    frames = np.arange(num_frames)
    first = np.maximum(frames - options.vad_frames_context, 0)
    end = np.minimum(frames + options.vad_frames_context + 1, num_frames)
    num_above = (above[end] - above[first]).astype(np.float32)
    num_needed = (end - first).astype(np.float32) * np.float32(options.vad_proportion_threshold)
    return (num_above >= num_needed).astype(np.float32)
