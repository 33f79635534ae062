"""Settings of the whole suite."""

import os
import sys

# Before numpy and torch are loaded: two processes of pytest on two cores have one thread each, as programs have.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.dont_write_bytecode = False  # compiling voxark anew costs each of a thousand programs a tenth of a second

import hypothesis  # noqa: E402

hypothesis.settings.register_profile("voxark", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("voxark")
