from voxark.metrics.replicates import *  # noqa: F401,F403 - moved
