#!/usr/bin/env bash
# Merge data directories; --help says more.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/data_dir.py" combine "$@"
