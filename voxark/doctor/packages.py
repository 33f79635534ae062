"""The packages that voxark stands on, and those of its extras."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from voxark import command_help
from voxark.doctor.findings import MISSING, OK, WARNING, Finding, guarded

_ESSENTIAL, _EXTRAS = "Packages", "Packages of the extras"
_MODULES = {
    "array-api-compat": "array_api_compat",
    "scikit-learn": "sklearn",
    "espeakng-loader": "espeakng_loader",
    "pytest-xdist": "xdist",
    "kaldi-native-fbank": "kaldi_native_fbank",
}
PURPOSES = {
    "numpy": "arrays",
    "scipy": "linear algebra, FFT",
    "kaldiio": "Kaldi's archives",
    "soundfile": "wav, flac and other audio",
    "typer": "options",
    "tqdm": "progress bars",
    "array-api-compat": "the same mathematics on GPUs",
    "pyarrow": "large lists of scores",
    "ducc0": "faster FFT of features and augmentation",
    "espeakng-loader": "the synthetic speech of egs/mini",
    "matplotlib": "pictures: plot-det, plot-fhvae",
    "torch": "end-to-end networks, FHVAE, --device",
    "scikit-learn": "probes and t-SNE of latent variables",
    "jinja2": "the page of an experiment",
    "plotly": "the curves of that page",
}
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "built": torch.version.cuda or torch.version.hip,
    "devices": [f"{d.name}, {d.total_memory / 2**30:.0f} GiB" for d in devices],
    "bf16": bool(cuda and torch.cuda.is_bf16_supported()), "sum": float(torch.ones(3).sum())}))
"""


@dataclass(frozen=True)
class Package:
    """A requirement of voxark, such as `torch>=2.4`, and the extra that asks for it ("": voxark itself)."""

    requirement: str
    extra: str = ""

    @property
    def name(self):
        """The name by which pip knows it, in lower case."""
        return re.split(r"[<>=!~\[; (]", self.requirement)[0].lower()

    @property
    def module(self):
        """The name by which Python knows it."""
        return _MODULES.get(self.name, self.name)

    def version(self):
        """The installed version, or None; whether it can be imported is not tried."""
        try:
            version = importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None
        return version if importlib.util.find_spec(self.module) else None

    def is_too_old(self, version):
        """Whether a version is below the oldest that voxark works with."""
        oldest = re.search(r">=\s*([\d.]+)", self.requirement)
        return bool(oldest) and _numbers(version) < _numbers(oldest[1])

    def is_for_this_python(self):
        """Whether the requirement holds for this version of Python."""
        below = re.search(r"python_version < [\"'](\d+)\.(\d+)[\"']", self.requirement)
        return below is None or sys.version_info[:2] < (int(below[1]), int(below[2]))


def _numbers(version):
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]


def packages(root):
    """All Package's: from pyproject.toml of the checkout ``root``, or (None) as pip installed voxark."""
    if root is not None:
        import tomllib

        with open(os.path.join(root, "pyproject.toml"), "rb") as file:
            project = tomllib.load(file)["project"]
        extras = project["optional-dependencies"].items()
        more = [Package(text, extra) for extra, texts in extras for text in texts]
        return [Package(text) for text in project["dependencies"]] + more
    found = []
    for text in importlib.metadata.requires("voxark") or []:
        extra = re.search(r"extra == [\"'](\w+)[\"']", text)
        found.append(Package(text, extra[1] if extra else ""))
    return found


def remedy(root, *missing):
    """The command that brings some packages: path.sh for a checkout without environment, else pip."""
    if root and sys.prefix == sys.base_prefix:
        return f". {root}/path.sh (makes an environment with all packages)"
    words = " ".join(f"'{package.requirement.split(';')[0].strip()}'" for package in missing)
    below = os.path.relpath(sys.executable)
    return f"{sys.executable if below.startswith('..') else below} -m pip install {words}"


def examine(program):
    """Findings on packages; ``program`` is the path of bin/voxark."""
    root = command_help.checkout_of(program)
    try:
        wanted = packages(root)
    except Exception as error:
        reason = f"the list of voxark's requirements cannot be read ({error})"
        yield Finding(_ESSENTIAL, "packages", WARNING, reason, "take voxark anew, whole", essential=True)
        return
    for package in wanted:
        if not package.extra:
            advice = f"install it again: {remedy(root, package)}"
            look = lambda package=package: _needed(package, root)  # noqa: E731 - guarded calls it at once
            yield guarded(_ESSENTIAL, package.name, look, essential=True, advice=advice)
    yield guarded(_ESSENTIAL, "BLAS", _blas)
    others = {package.name: package for package in reversed(wanted) if package.extra not in ("", "test")}
    for package in reversed(others.values()):
        yield _torch(package, root) if package.name == "torch" else _optional(package, root)
    yield _tests([package for package in wanted if package.extra == "test"], root)


def _needed(package, root):
    """A package that every voxark has: imported, since one that is there may yet be broken."""
    version = package.version()
    if version is None:
        purpose = f"for {PURPOSES.get(package.name, 'voxark')}"
        return Finding(_ESSENTIAL, package.name, MISSING, purpose, remedy(root, package), essential=True)
    if package.is_too_old(version):
        return Finding(
            _ESSENTIAL, package.name, WARNING, f"{version} is too old", remedy(root, package), True
        )
    importlib.import_module(package.module)
    return Finding(_ESSENTIAL, package.name, OK, version, essential=True)


def _optional(package, root):
    version = package.version()
    if version is None:
        text = f"for {PURPOSES.get(package.name, 'some programs')} (extra {package.extra})"
        return Finding(_EXTRAS, package.name, MISSING, text, remedy(root, package))
    if package.is_too_old(version):
        return Finding(_EXTRAS, package.name, WARNING, f"{version} is too old", remedy(root, package))
    return Finding(_EXTRAS, package.name, OK, version)


def _tests(wanted, root):
    missing = [package for package in wanted if package.is_for_this_python() and package.version() is None]
    if missing:
        names = ", ".join(package.name for package in missing)
        return Finding(_EXTRAS, "test", MISSING, f"for the tests alone: {names}", remedy(root, *missing))
    return Finding(_EXTRAS, "test", OK, "all packages of the tests")


def torch_facts():
    """What torch says in a process of its own, for it is slow and may crash; RuntimeError if it fails."""
    done = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"torch ended Python with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _torch(package, root):
    def look():
        facts = torch_facts()
        built = f"built for CUDA {facts['built']}" if facts["built"] else "built for processors only"
        if facts["devices"]:
            devices = "; ".join(facts["devices"])
            text = f"{facts['version']}; {devices}; {'bf16' if facts['bf16'] else 'no bf16'}"
            return Finding(_EXTRAS, "torch", OK, text)
        text = f"{facts['version']}, {built}; finds no GPU"
        if _has_nvidia_gpu():
            advice = "see CUDA_VISIBLE_DEVICES and the driver" if facts["built"] else "install its CUDA build"
            return Finding(_EXTRAS, "torch", WARNING, f"{text}, but nvidia-smi does", advice)
        return Finding(_EXTRAS, "torch", OK, text)

    found = _optional(package, root)
    if found.status != OK:
        return found
    return guarded(_EXTRAS, "torch", look, advice=f"install it again: {remedy(root, package)}")


def _has_nvidia_gpu():
    if not shutil.which("nvidia-smi"):
        return False
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    return done.returncode == 0 and "GPU" in done.stdout


def _blas():
    import numpy as np

    if importlib.util.find_spec("threadpoolctl"):
        import threadpoolctl

        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        texts = {
            f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', 'any processor')}), "
            f"threads: {pool['num_threads']}"
            for pool in pools
        }
        if texts:
            return Finding(_ESSENTIAL, "BLAS", OK, "; ".join(sorted(texts)))
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "1")
    return Finding(_ESSENTIAL, "BLAS", OK, f"{blas['name']} {blas['version']}, threads: {threads}")
