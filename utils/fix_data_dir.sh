#!/usr/bin/env bash
# Put a data directory in order; --help says more.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/data_dir.py" fix "$@"
