from voxark.metrics.selection import *  # noqa: F401,F403 - moved
