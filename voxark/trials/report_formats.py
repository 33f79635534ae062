from voxark.metrics.report_formats import *  # noqa: F401,F403 - moved
