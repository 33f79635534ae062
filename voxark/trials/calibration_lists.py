from voxark.calibration.training_lists import *  # noqa: F401,F403 - moved
