"""Versions of voxark and of Python."""

import os
import sys

from voxark import __version__, command_help, versions
from voxark.doctor.findings import OK, WARNING, Finding

_SECTION = "Versions"
_OLDEST_PYTHON = (3, 11)


def version_line(program):
    """`voxark 0.1.0`, and in a checkout its revision; ``program`` is the path of bin/voxark."""
    root = command_help.checkout_of(program)
    if root is None:
        return f"voxark {__version__} (programs in {os.path.dirname(os.path.realpath(program))})"
    revision = versions.revision(root, ", with changes")
    return f"voxark {__version__} ({f'git {revision}' if revision else 'no git revision'}, checkout {root})"


def examine(program):
    """Findings on voxark and Python."""
    yield Finding(_SECTION, "voxark", OK, version_line(program).removeprefix("voxark "))
    value = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info >= _OLDEST_PYTHON:
        yield Finding(_SECTION, "python", OK, value, essential=True)
    else:
        advice = (
            "voxark needs Python 3.11 or newer; for a checkout: PYTHON=/path/to/python3 utils/make_venv.sh"
        )
        yield Finding(_SECTION, "python", WARNING, value, advice, essential=True)
