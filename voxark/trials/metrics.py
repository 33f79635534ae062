from voxark.metrics import *  # noqa: F401,F403 - moved
