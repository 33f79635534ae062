"""What an experiment depends on besides its data and options: versions, the machine, the revision of the checkout."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from voxark import __version__

PACKAGES = (
    "numpy",
    "scipy",
    "kaldiio",
    "soundfile",
    "pyarrow",
    "torch",
    "scikit-learn",
    "matplotlib",
    "ducc0",
)


def facts():
    """{name: text} of versions and machine, "" where something is unknown or not installed."""
    return {
        "voxark": __version__,
        "revision": revision(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": str(os.cpu_count() or ""),
    }


def revision(root, dirty="-dirty"):
    """The revision of the checkout ``root``, with ``dirty`` behind it if files were changed; "" where there is none."""
    if not (Path(root) / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", f"--dirty={dirty}", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def processor():
    """The name of the processor, or else the kind of machine."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":  # lines `name text`, which recipes keep beside their results
    print("\n".join(f"{name} {text}" for name, text in facts().items() if text))
