#!/usr/bin/env bash
# Trains a diagonal-covariance GMM (a UBM) by EM on MFCC with deltas and sliding mean normalisation, voiced frames.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

cmd=run.py
num_gauss=64
num_iters=20
init=global-split
srand=0
delta_order=2
cmvn_config=$root/conf/sliding_cmvn.conf
help_message="Usage: $0 [options] <data-dir> <exp-dir>
e.g.: $0 --num-gauss 64 data/train exp/ubm
  <data-dir> has feats.scp and vad.scp. Writes <exp-dir>/final.gmm, and <exp-dir>/dropped: utterances left out, and why.
Options:
  --cmd <launcher>       how to run jobs (default: $cmd)
  --num-gauss <n>        Gaussians (default: $num_gauss)
  --num-iters <n>        EM iterations (default: $num_iters)
  --init <how>           global-split, random-frames or kmeans++ (default: $init)
  --srand <n>            seed (default: $srand)
  --delta-order <n>      derivatives added to the features (default: $delta_order)
  --cmvn-config <file>   options of apply-cmvn-sliding (default: conf/sliding_cmvn.conf)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 dir=$2

mkdir -p "$dir/log"
rm -f "$dir/final.gmm" "$dir"/log/failed.*
cp "$cmvn_config" "$dir/sliding_cmvn.conf"
echo "$delta_order" >"$dir/delta_order"
feats=$(gmm_features.sh --log-dir "$dir/log" "$dir" "$data")

$cmd "$dir/log/train_gmm.log" train-gmm-em --failed-list="$dir/log/failed.train" --num-gauss="$num_gauss" \
  --num-iters="$num_iters" --init="$init" --srand="$srand" "$feats" "$dir/final.gmm"
collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/failed.*
