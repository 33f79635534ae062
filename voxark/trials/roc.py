from voxark.metrics.roc import *  # noqa: F401,F403 - moved
