from voxark.scoring.enrolment import *  # noqa: F401,F403 - moved
