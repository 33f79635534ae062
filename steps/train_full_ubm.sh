#!/usr/bin/env bash
# Trains a UBM with full covariances from one with diagonal covariances, by iterations of parallel jobs; each frame
# has posteriors for the Gaussians that are likeliest under the first model, selected once.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
num_iters=4
num_gselect=20
min_gaussian_weight=0.0001
min_gaussian_occupancy=-1
remove_low_count_gaussians=true
subsample=1
double=false
cleanup=true
help_message="Usage: $0 [options] <data-dir> <ubm-dir> <exp-dir>
e.g.: $0 --nj 8 data/train exp/diag_ubm exp/full_ubm
  <data-dir> has feats.scp and vad.scp; <ubm-dir> comes from train_diag_ubm.sh (final.dubm), or from this step
  (final.ubm). Writes <exp-dir>/final.ubm, and <exp-dir>/dropped: utterances left out, and why. A run that was
  stopped goes on behind the last finished iteration; other options or other data start anew. The number of jobs
  does not change the model.
Options:
  --nj <n>                                  jobs (default: $nj)
  --cmd <launcher>                          how to run jobs (default: $cmd)
  --num-iters <n>                           iterations (default: $num_iters)
  --num-gselect <n>                         Gaussians selected for a frame (default: $num_gselect)
  --min-gaussian-weight <w>                 least weight of an updated Gaussian (default: $min_gaussian_weight)
  --min-gaussian-occupancy <n>              least number of frames of one that is updated (default: -1, meaning 100)
  --remove-low-count-gaussians <true|false> remove the others in the end (default: $remove_low_count_gaussians)
  --subsample <n>                           use every n-th frame (default: $subsample)
  --double <true|false>                     all products in double precision (default: $double)
  --cleanup <true|false>                    remove intermediate models, selections and statistics (default: $cleanup)"
. "$root/utils/parse_options.sh"
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} ubm=${2%/} dir=${3%/} ext=ubm
first=$ubm/final.dubm
if [[ ! -f $first && -f $ubm/final.ubm ]]; then first=$ubm/final.ubm; fi
for file in "$first" "$ubm/delta_order" "$ubm/sliding_cmvn.conf"; do
  [[ -s $file ]] || step_die "$file is missing or empty: is $ubm a folder of train_diag_ubm.sh?"
done
[[ ! $dir -ef $ubm ]] || step_die "$dir holds the model to start from: choose another folder"

em_check
mkdir -p "$dir"
cp "$ubm/delta_order" "$ubm/sliding_cmvn.conf" "$dir"
em_begin full "$num_iters" "$num_gselect" "$min_gaussian_weight" "$min_gaussian_occupancy" \
  "$remove_low_count_gaussians" "$double" "$(sha256sum <"$first")"

if [[ $x -lt 0 ]]; then
  $cmd "$dir/log/to_full.log" gmm-copy --to=full "$first" "$dir/0.$ext"
  x=0
fi
em_split
if [[ $(cat "$dir/gselect.nj" 2>/dev/null) != "$nj" ]]; then
  rm -f "$dir"/gselect.*
  echo "$step_name: selecting $num_gselect Gaussians for each frame"
  em_jobs gselect "$dir/gselect" ark gmm-gselect --failed-list="$dir/log/JOB/failed.gselect" --n="$num_gselect" \
    "$dir/0.$ext" "$feats" "ark:$dir/gselect.JOB.ark"
  collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
  echo "$nj" >"$dir/gselect.nj"
fi
em_train "--gselect=ark,s,cs:$dir/gselect.JOB.ark" --min-gaussian-occupancy="$min_gaussian_occupancy"
em_end
