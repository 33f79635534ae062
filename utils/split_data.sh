#!/usr/bin/env bash
# Divide a data directory for parallel jobs; --help says more.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/data_dir.py" split "$@"
