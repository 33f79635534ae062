"""SpecAugment: bands of time and frequency that training does not see (Park et al. 2019, no warping)."""

from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class SpecAugmentOptions:
    """Masks on the features of training chunks."""

    time_masks: int = option(0, "Masks in time on each training chunk (SpecAugment)")
    time_mask_frames: int = option(20, "Most frames of a mask in time; each draws its width from 0 to this")
    time_mask_share: float = option(0.2, "A mask in time covers at most this share of the chunk")
    freq_masks: int = option(0, "Masks in frequency on each training chunk (SpecAugment)")
    freq_mask_bins: int = option(10, "Most bins of a mask in frequency; each draws its width from 0 to this")

    def check(self):
        """VoxarkError for numbers that make no sense."""
        if min(self.time_masks, self.freq_masks, self.time_mask_frames, self.freq_mask_bins) < 0:
            raise VoxarkError("the numbers and widths of masks must be at least 0")
        if not 0.0 <= self.time_mask_share <= 1.0:
            raise VoxarkError(f"--time-mask-share={self.time_mask_share:g} must be from 0 to 1")

    def any(self):
        """True where something is masked at all."""
        return bool(self.time_masks and self.time_mask_frames or self.freq_masks and self.freq_mask_bins)


def mask_features(x, options, rng):
    """Set bands of x (T,F) float32 to the mean of their columns, in place; returns x.

    Each mask draws its width, uniform from 0 to the largest, and then its place, uniform where it fits. The
    fill is the columns' mean of the chunk: 0 behind mean normalisation.
    """
    fill = x.mean(axis=0)
    for _ in range(options.time_masks):
        width = int(
            rng.integers(
                0, min(options.time_mask_frames, int(options.time_mask_share * len(x))), endpoint=True
            )
        )
        first = int(rng.integers(0, len(x) - width, endpoint=True))
        x[first : first + width] = fill
    for _ in range(options.freq_masks):
        width = int(rng.integers(0, min(options.freq_mask_bins, x.shape[1]), endpoint=True))
        first = int(rng.integers(0, x.shape[1] - width, endpoint=True))
        x[:, first : first + width] = fill[first : first + width]
    return x
