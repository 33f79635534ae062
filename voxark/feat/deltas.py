"""Time derivatives of features by linear regression over a window of frames [K]."""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class DeltaOptions:
    """How deltas are computed; the names are those of Kaldi's add-deltas."""

    delta_order: int = option(2, "Order of delta computation")
    delta_window: int = option(
        2, "Parameter controlling the window of delta computation (each order widens it by 2 * this)"
    )

    def __post_init__(self):
        if not 0 <= self.delta_order < 1000:
            raise VoxarkError(f"--delta-order={self.delta_order}: must be between 0 and 999")
        if not 0 < self.delta_window < 1000:
            raise VoxarkError(f"--delta-window={self.delta_window}: must be between 1 and 999")


def delta_kernels(order, window):
    """Return the regression kernels of orders 0 to ``order``: float64 arrays, kernel i has 2*i*window+1 taps.

    Kernel 1 is j / sum(j^2) for j = -window..window: the slope of the least-squares line through the window.
    Kernel i is kernel 1 convolved i-1 times with itself, to be applied to the base features directly [K].
    """
    steps = np.arange(-window, window + 1, dtype=np.float64)
    slope = steps / np.sum(steps**2)
    kernels = [np.ones(1)]
    for _ in range(order):
        kernels.append(np.convolve(kernels[-1], slope))
    return kernels


def add_deltas(x, options=None):
    """Append the deltas of orders 1 to ``delta_order`` to features x (T,D); return (T, D*(order+1)) float32.

    Beyond the ends the first and the last frame of the *base* features are repeated, for every order [K];
    near the edges this differs from taking deltas of deltas. T = 0 gives a matrix without rows.
    """
    options = options or DeltaOptions()
    x = np.asarray(x, dtype=np.float32)
    num_frames, dim = x.shape
    kernels = delta_kernels(options.delta_order, options.delta_window)
    y = np.zeros((num_frames, dim * len(kernels)), dtype=np.float32)
    y[:, :dim] = x
    if num_frames == 0:
        return y
    reach = options.delta_order * options.delta_window
    padded = np.pad(x, ((reach, reach), (0, 0)), mode="edge").astype(np.float64)
    product = np.empty((num_frames, dim))
    for i, kernel in enumerate(kernels[1:], 1):
        first = reach - i * options.delta_window  # tap k meets frame t + k - i*window
        total = np.zeros((num_frames, dim))
        for k in np.flatnonzero(kernel):
            total += np.multiply(padded[first + k : first + k + num_frames], kernel[k], out=product)
        y[:, i * dim : (i + 1) * dim] = total
    return y
