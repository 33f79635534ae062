from voxark.metrics.groups import *  # noqa: F401,F403 - moved
