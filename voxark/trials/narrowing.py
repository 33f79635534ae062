from voxark.metrics.narrowing import *  # noqa: F401,F403 - moved
