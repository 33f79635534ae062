from voxark.calibration.logistic import *  # noqa: F401,F403 - moved
