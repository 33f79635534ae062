"""Tests with real daemons: `tests/run.sh tests/cluster`. Unless it is named so, the folder is left out."""

from pathlib import Path

import pytest
from daemons import Cluster
from gridengine_daemons import GridEngine
from launching import started
from slurm_daemons import Slurm

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path, config):
    """Leave the folder out unless it, or a file in it, is asked for by name."""
    asked = [Path(config.invocation_params.dir, word.split("::")[0]).resolve() for word in config.args]
    if not any(path == HERE or HERE in path.parents for path in asked):
        return True
    return None


@pytest.fixture(scope="session")
def slurm():
    """Two nodes with more processors than there are: jobs that sleep take no place from others."""
    with started(Slurm, cpus=16) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def gridengine():
    """One host with 16 slots."""
    with started(GridEngine, slots=16) as cluster:
        yield cluster


@pytest.fixture(params=["slurm", "gridengine"])
def cluster(request) -> Cluster:
    """Each of the two."""
    return request.getfixturevalue(request.param)
