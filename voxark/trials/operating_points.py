from voxark.metrics.operating_points import *  # noqa: F401,F403 - moved
