from voxark.scoring.dense import *  # noqa: F401,F403 - moved
