from voxark.metrics.measures import *  # noqa: F401,F403 - moved
