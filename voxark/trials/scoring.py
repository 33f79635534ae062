from voxark.scoring.run import *  # noqa: F401,F403 - moved
