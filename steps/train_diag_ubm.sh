#!/usr/bin/env bash
# Trains a UBM with diagonal covariances on MFCC with deltas and sliding mean normalisation, voiced frames: first in
# memory on a random sample of the frames, then on all frames by iterations of parallel jobs.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
num_iters=4
init=random-frames
num_frames=500000
num_iters_init=20
initial_gauss_proportion=0.5
min_gaussian_weight=0.0001
remove_low_count_gaussians=true
subsample=1
double=false
srand=0
delta_order=2
cmvn_config=$root/conf/sliding_cmvn.conf
cleanup=true
help_message="Usage: $0 [options] <data-dir> <num-gauss> <exp-dir>
e.g.: $0 --nj 8 data/train 512 exp/diag_ubm
  <data-dir> has feats.scp and vad.scp. Writes <exp-dir>/final.dubm (and final.gmm, the same model, for adapt_gmm.sh),
  and <exp-dir>/dropped: utterances left out, and why. A run that was stopped goes on behind the last finished
  iteration; other options or other data start anew. The number of jobs does not change the model.
Options:
  --nj <n>                                  jobs (default: $nj)
  --cmd <launcher>                          how to run jobs (default: $cmd)
  --num-iters <n>                           iterations on all frames (default: $num_iters)
  --init <how>                              global-split, random-frames or kmeans++ (default: $init)
  --num-frames <n>                          frames of the sample that training begins with (default: $num_frames)
  --num-iters-init <n>                      iterations on the sample (default: $num_iters_init)
  --initial-gauss-proportion <p>            Gaussians to begin with, as a part of <num-gauss>; not for
                                            global-split, which begins with one (default: $initial_gauss_proportion)
  --min-gaussian-weight <w>                 least weight of an updated Gaussian (default: $min_gaussian_weight)
  --remove-low-count-gaussians <true|false> remove the others in the end (default: $remove_low_count_gaussians)
  --subsample <n>                           use every n-th frame in the iterations on all frames (default: $subsample)
  --double <true|false>                     all products in double precision (default: $double)
  --srand <n>                               seed (default: $srand)
  --delta-order <n>                         derivatives added to the features (default: $delta_order)
  --cmvn-config <file>                      options of apply-cmvn-sliding; conf/no_cmvn.conf does without
                                            (default: conf/sliding_cmvn.conf)
  --cleanup <true|false>                    remove intermediate models and statistics (default: $cleanup)"
. "$root/utils/parse_options.sh"
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} num_gauss=$2 dir=${3%/} ext=dubm
[[ $num_gauss =~ ^[1-9][0-9]*$ ]] || step_die "<num-gauss> is $num_gauss: expected a number above zero"
cmvn_config=$(step_config "$cmvn_config")

em_check
mkdir -p "$dir"
cp "$cmvn_config" "$dir/sliding_cmvn.conf"
echo "$delta_order" >"$dir/delta_order"
em_begin diag "$num_gauss" "$num_iters" "$init" "$num_frames" "$num_iters_init" "$initial_gauss_proportion" \
  "$min_gaussian_weight" "$remove_low_count_gaussians" "$double" "$srand"

if [[ $x -lt 0 ]]; then
  num_start=$(awk -v n="$num_gauss" -v p="$initial_gauss_proportion" 'BEGIN { s = int(n * p); print s < 1 ? 1 : s }')
  if [[ $init == global-split ]]; then num_start=0; fi
  echo "$step_name: $num_gauss Gaussians on at most $num_frames frames, $num_iters_init iterations in memory"
  mkdir -p "$dir/log/init"
  $cmd "$dir/log/init.log" train-gmm-em --failed-list="$dir/log/init/failed.train" --num-gauss="$num_gauss" \
    --num-gauss-init="$num_start" --init="$init" --num-frames="$num_frames" --train-frames="$num_frames" \
    --num-iters="$num_iters_init" --min-gaussian-weight="$min_gaussian_weight" --double="$double" --srand="$srand" \
    "$(gmm_features.sh --log-dir "$dir/log/init" "$dir" "$data")" "$dir/0.$ext"
  # before the long part: too many dropped utterances end it here
  collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/init/failed.*
  x=0
fi
em_split
em_train ""
ln -sfn "final.$ext" "$dir/final.gmm"
em_end
