from voxark.metrics.hull import *  # noqa: F401,F403 - moved
