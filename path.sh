#!/usr/bin/env bash
# Source this file (`. ./path.sh`) to have voxark's programs, steps and tools on PATH, in the environment .venv of
# this checkout, which is made first if it is missing. VOXARK_VENV names another place for the environment.
# Nothing is done twice: sourcing it again is harmless and fast.

VOXARK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || return 1
VOXARK_VENV=${VOXARK_VENV:-$VOXARK_ROOT/.venv}
export VOXARK_ROOT VOXARK_VENV

"$VOXARK_ROOT/utils/make_venv.sh" "$VOXARK_VENV" || return 1

case ":$PATH:" in
  *":$VOXARK_ROOT/bin:$VOXARK_ROOT/steps:$VOXARK_ROOT/utils:$VOXARK_VENV/bin:"*) ;;
  *) PATH=$VOXARK_ROOT/bin:$VOXARK_ROOT/steps:$VOXARK_ROOT/utils:$VOXARK_VENV/bin:$PATH ;;
esac
case ":${PYTHONPATH:-}:" in
  *":$VOXARK_ROOT:"*) ;;
  *) PYTHONPATH=$VOXARK_ROOT${PYTHONPATH:+:$PYTHONPATH} ;;
esac
export PATH PYTHONPATH LC_ALL=C
