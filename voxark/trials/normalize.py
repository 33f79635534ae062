from voxark.scoring.normalize import *  # noqa: F401,F403 - moved
