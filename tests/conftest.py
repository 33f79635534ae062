"""Settings of the whole suite."""

import hypothesis

hypothesis.settings.register_profile("voxark", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("voxark")
