#!/usr/bin/env bash
# Runs a command in a GridEngine of its own: one host with four slots, made for the command and taken down after it.
# e.g.: tests/cluster/with_gridengine.sh bash -c 'qsub -sync y -b y hostname; qstat -f'
#       tests/cluster/with_gridengine.sh egs/mini/run.sh --size tiny --cmd queue.py

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../../path.sh"
exec python "$here/gridengine_daemons.py" "$@"
