#!/usr/bin/env bash
# Check a data directory; --help says more.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/data_dir.py" validate "$@"
