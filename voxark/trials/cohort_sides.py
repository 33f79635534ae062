from voxark.scoring.cohort_sides import *  # noqa: F401,F403 - moved
