from voxark.scoring.backends import *  # noqa: F401,F403 - moved
