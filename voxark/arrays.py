"""Where products run: numpy on the CPU, or torch on a GPU, behind one namespace of the array API.

Kernels are written once, against ``xp``: numpy itself, or torch through array-api-compat. Both take ``out=`` in
matmul, exp, add, subtract, multiply and the like, so blocks can work in buffers that stay in the cache. torch
is imported only where a device other than the CPU is asked for.
"""

from dataclasses import dataclass

import numpy as np

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class DeviceOptions:
    """Where matrix products run."""

    device: str = option("cpu", "Where the products run: cpu (numpy), cuda, cuda:N (torch on a GPU), or torch "
                                "(torch on the CPU, to check that path)")

    def open(self):
        """Return the Device; VoxarkError where it is not there."""
        return Device(self.device)


class Device:
    """A device by its name: ``xp`` is its array namespace, ``is_numpy`` true on the CPU.

    Raises VoxarkError for a name that is unknown, for a missing torch and for a GPU that is not there.
    """

    def __init__(self, name="cpu"):
        self.name, self.is_numpy = name, name == "cpu"
        if self.is_numpy:
            self.xp = np
            return
        kind = name.partition(":")[0]
        if kind not in ("cuda", "torch"):
            raise VoxarkError(f"--device={name}: expected cpu, cuda, cuda:N or torch")
        try:
            import torch
            from array_api_compat import torch as xp
        except ImportError as error:
            raise VoxarkError(f"--device={name} needs torch: pip install 'voxark[neural]' ({error})") from None
        if kind == "cuda" and not torch.cuda.is_available():
            raise VoxarkError(f"--device={name}: torch {torch.__version__} finds no CUDA device here")
        self.xp = xp
        try:
            self._torch_device = torch.device("cpu" if kind == "torch" else name)
            torch.empty(1, device=self._torch_device)
        except RuntimeError as error:
            raise VoxarkError(f"--device={name}: {str(error).splitlines()[0]}") from None
        if kind == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32: the error bounds count on it

    def asarray(self, x, dtype=None):
        """Put numpy data on the device, as ``dtype`` ("float32", "float64") where given; no copy if it fits."""
        if self.is_numpy:
            return np.asarray(x, dtype=dtype)
        x = np.ascontiguousarray(x, dtype=dtype)
        if not x.flags.writeable:
            x = x.copy()  # torch shares memory and warns of what it must not write
        return self.xp.asarray(x, device=self._torch_device)

    def empty(self, shape, dtype):
        """An array of ``shape`` and ``dtype`` ("float32", "float64") with any content."""
        if self.is_numpy:
            return np.empty(shape, dtype)
        return self.xp.empty(shape, dtype=getattr(self.xp, dtype), device=self._torch_device)

    def to_numpy(self, a):
        """Return an array of the device as a numpy array (the same one on the CPU)."""
        return a if self.is_numpy else a.detach().cpu().numpy()
