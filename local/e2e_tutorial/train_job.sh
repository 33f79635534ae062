#!/usr/bin/env bash
# Train one system of a list: train_job.sh <list> <number of the line> <configuration> <development data>
# A line is <model-dir> <data-dir> <option>...; a model that is there already is trained anew.

set -euo pipefail
if [ $# -ne 4 ]; then
  echo "Usage: $0 <list> <line> <configuration> <development-data>
e.g.: $0 exp/jobs 3 egs/e2e_tutorial/network.conf exp/data/dev" >&2
  exit 1
fi
read -r model data options < <(sed -n "$2p" "$1")
rm -rf "$model"
# shellcheck disable=SC2086  # options are several words
train-e2e-verif --config="$3" --dev-feats="scp:$4/feats.scp" --dev-utt2spk="ark:$4/utt2spk" $options \
  "scp:$data/feats.scp" "ark:$data/utt2spk" "$model"
