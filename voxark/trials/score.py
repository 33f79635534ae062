from voxark.scoring.pairs import *  # noqa: F401,F403 - moved
