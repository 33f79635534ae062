#!/usr/bin/env bash
# Prints the rspecifier of the features that the GMM systems work on: MFCC with deltas, less the mean of a sliding
# window (unless the model's sliding_cmvn.conf is `none`), voiced frames only. The options come from the model's folder,
# so that training, adaptation and scoring agree.

set -euo pipefail

log_dir=  # where the programs of the pipe write the keys that they drop
help_message="Usage: $0 [options] <model-dir> <data-dir>
e.g.: train-gmm-em \"\$($0 exp/ubm data/train)\" exp/ubm/final.gmm
  <model-dir> holds delta_order and sliding_cmvn.conf (train_diag_ubm.sh writes them).
Options:
  --log-dir <dir>   write <dir>/failed.{deltas,cmvn,voiced}, the keys dropped and why"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
model=$1 data=$2
for file in "$model/delta_order" "$model/sliding_cmvn.conf" "$data/feats.scp" "$data/vad.scp"; do
  if [ ! -s "$file" ]; then
    echo "$0: $file is missing or empty" >&2
    exit 1
  fi
done

failed() { if [ -n "$log_dir" ]; then echo "--failed-list=$log_dir/failed.$1 "; fi; }
cmvn="apply-cmvn-sliding $(failed cmvn)--config=$model/sliding_cmvn.conf ark:- ark:- |"
if [ "$(<"$model/sliding_cmvn.conf")" = none ]; then cmvn=; fi
echo "ark:add-deltas $(failed deltas)--delta-order=$(<"$model/delta_order") scp:$data/feats.scp ark:- |" \
  "${cmvn:+$cmvn }select-voiced-frames $(failed voiced)ark:- scp:$data/vad.scp ark:- |"
