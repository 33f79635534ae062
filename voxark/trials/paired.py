from voxark.metrics.paired import *  # noqa: F401,F403 - moved
