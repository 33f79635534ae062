#!/usr/bin/env bash
# Trains the model of each phone that a list names: train-hmm-em on the phone's segments.

set -euo pipefail

help_message="Usage: $0 <list> <segments-dir> <hmm-dir> [<option of train-hmm-em>...]
e.g.: $0 phones.1 exp/segments exp/phones --num-gauss=4 --topo=phone.topo --final=prob"
if [[ $# -lt 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
list=$1 segments=$2 models=$3
shift 3
mkdir -p "$models"
while read -r phone; do
  train-hmm-em "$@" "scp:$segments/$phone.scp" "$models/$phone.hmm"
done <"$list"
