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

# Files whose tests take long begin first, so that at the end no process waits for the other's one long file.
LONG = ("test_corpus_recipes.py", "test_mini_recipe.py", "test_cluster_launchers.py", "test_e2e_tutorial.py",
        "test_lecture_recipe.py", "test_speechocean_fhvae_recipe.py", "test_speechocean_e2e_recipe.py")  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the tests of the files LONG before the others; each file's order stays."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))
