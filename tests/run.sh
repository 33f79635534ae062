#!/usr/bin/env bash
# Makes the environment if it is missing and runs the tests; arguments go to pytest.
# e.g.: tests/run.sh
#       tests/run.sh tests/test_tables.py -k truncated

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./path.sh
if [ $# -eq 0 ]; then
  set -- -n 2 --dist loadfile --no-loadscope-reorder
fi
exec python -m pytest "$@"
