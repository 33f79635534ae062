from voxark.scoring.missing import *  # noqa: F401,F403 - moved
