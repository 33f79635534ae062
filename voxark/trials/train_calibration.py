from voxark.calibration.train import *  # noqa: F401,F403 - moved
