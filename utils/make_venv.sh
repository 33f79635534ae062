#!/usr/bin/env bash
# Makes the Python environment of a checkout with the locked dependencies, unless it is there and up to date.
# Usage: utils/make_venv.sh [<venv-dir>]      (default: .venv in the checkout)
# e.g.:  PYTHON=python3.12 utils/make_venv.sh
# It is up to date when the stamp in it matches conf/constraints.txt and the dependencies in pyproject.toml.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
case ${1:-} in
  -*) sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
venv=${1:-$root/.venv}
stamp=$venv/.voxark-stamp
wanted=$({ cat "$root/conf/constraints.txt"; sed -n '/^dependencies/,/^\[tool/p' "$root/pyproject.toml"; } | cksum)

[ -f "$stamp" ] && [ "$(<"$stamp")" = "$wanted" ] && exit 0

log() { echo "$0: $*" >&2; }

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9 2>/dev/null || true   # two recipes started at once: the second one waits for the first (where flock exists)
[ -f "$stamp" ] && [ "$(<"$stamp")" = "$wanted" ] && exit 0

python=${PYTHON:-}
for candidate in "$python" python3 python3.14 python3.13 python3.12 python3.11; do
  if [ -z "$candidate" ] || ! command -v "$candidate" >/dev/null; then continue; fi
  "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { python=$candidate; break; }
done
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  log "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"
  exit 1
fi

# What pyproject.toml asks for, with all extras but torch, which is chosen below.
requirements=$("$python" - "$root/pyproject.toml" <<'PY'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = project["optional-dependencies"]
print("\n".join(project["dependencies"] + [item for name in ("fast", "mini", "plot", "report", "test") for item in extras[name]]))
PY
)

log "making $venv with $("$python" --version) (a minute or two, once)"
rm -rf "$venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q "$@" 9>&-; }
mapfile -t wanted_packages <<<"$requirements"
pip install -c "$root/conf/constraints.txt" "${wanted_packages[@]}"

# torch: the CPU build where there is no GPU (the default build for Linux brings gigabytes of GPU libraries).
# No program needs it yet but the neural ones, so its absence is no reason to stop.
torch=$(grep '^torch==' "$root/conf/constraints.txt")
if [ "$(uname -s)" = Linux ] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
  torch=$torch+cpu
fi
grep -v '^torch==' "$root/conf/constraints.txt" >"$venv/.constraints"
pip install -c "$venv/.constraints" "$torch" || {
  log "$torch is not in your package index, so the environment has no torch; every program here works without it."
  log "To add it, name the index of torch's CPU builds and try again: PIP_EXTRA_INDEX_URL=... $0"
}

echo "$wanted" >"$stamp"
rm -f "$venv.lock"
log "made $venv"
