from voxark.calibration.model_file import *  # noqa: F401,F403 - moved
