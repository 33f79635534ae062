from voxark.scoring.spool import *  # noqa: F401,F403 - moved
