"""One clear line where torch, or the device asked for, is missing."""

from voxark.errors import VoxarkError


def require_torch():
    """Return the module torch. Raises VoxarkError, which says how to install it, where it is missing."""
    try:
        import torch
    except ImportError as error:
        raise VoxarkError(f"this needs torch: pip install 'voxark[neural]' ({error})") from None
    return torch


def network_device(name="auto"):
    """The torch.device of ``name``: cpu, cuda, cuda:N, or auto (a GPU if there is one).

    Raises VoxarkError for another name, for a missing torch and for a GPU that is not there.
    """
    torch = require_torch()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise VoxarkError(f"--device={name}: expected cpu, cuda, cuda:N or auto")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise VoxarkError(f"--device={name}: {str(error).splitlines()[0]}") from None
    return device
