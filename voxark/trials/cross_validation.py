from voxark.calibration.cross_validation import *  # noqa: F401,F403 - moved
