#!/usr/bin/env bash
# Runs a command in a Slurm of its own: two nodes on loopback, made for the command and taken down after it.
# e.g.: tests/cluster/with_slurm.sh bash -c 'sbatch --wait --wrap=hostname; sinfo'
#       tests/cluster/with_slurm.sh egs/mini/run.sh --size tiny --cmd slurm.py

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../../path.sh"
exec python "$here/slurm_daemons.py" "$@"
