#!/usr/bin/env bash
# Make a data directory of a part of the utterances; --help says more.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/data_dir.py" subset "$@"
