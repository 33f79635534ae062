from voxark.calibration.pav import *  # noqa: F401,F403 - moved
