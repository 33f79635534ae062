from voxark.metrics.intervals import *  # noqa: F401,F403 - moved
