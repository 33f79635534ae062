from voxark.scoring.cohort import *  # noqa: F401,F403 - moved
