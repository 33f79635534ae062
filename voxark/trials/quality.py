from voxark.calibration.quality import *  # noqa: F401,F403 - moved
