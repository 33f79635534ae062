from voxark.metrics.error_report import *  # noqa: F401,F403 - moved
