"""The one exception of voxark."""


class VoxarkError(Exception):
    """Bad input or wrong use: one line that names key, file and place, and what to do about it."""
