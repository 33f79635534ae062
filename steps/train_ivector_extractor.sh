#!/usr/bin/env bash
# Trains an i-vector extractor on a UBM with full covariances: the posteriors of the frames are computed once, by
# parallel jobs; then EM runs in one process, or by iterations of parallel jobs.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
ivector_dim=400
num_iters=10
srand=0
num_gselect=20
min_post=0.025
posterior_scale=1.0
gaussian_min_count=100
kaldi_compat=false
one_process=auto
max_memory=5000
subsample=1
cleanup=true
help_message="Usage: $0 [options] <data-dir> <full-ubm-dir> <exp-dir>
e.g.: $0 --nj 8 --ivector-dim 100 data/train exp/full_ubm exp/extractor
  <data-dir> has feats.scp and vad.scp; <full-ubm-dir> comes from train_full_ubm.sh (final.ubm). Writes
  <exp-dir>/final.ie, what extract_ivectors.sh needs besides, and <exp-dir>/dropped: utterances left out, and why.
  A run that was stopped goes on behind the posteriors or the iteration that were finished last; other options or
  other data start anew. The number of jobs does not change the model.
Options:
  --nj <n>                    jobs (default: $nj)
  --cmd <launcher>            how to run jobs (default: $cmd)
  --ivector-dim <n>           dimension of the i-vectors (default: $ivector_dim)
  --num-iters <n>             EM iterations (default: $num_iters)
  --srand <n>                 seed of the start (default: $srand)
  --num-gselect <n>           Gaussians evaluated for a frame (default: $num_gselect)
  --min-post <p>              posteriors below this are pruned (default: $min_post)
  --posterior-scale <a>       weight of the posteriors: neighbouring frames are alike (default: $posterior_scale)
  --gaussian-min-count <n>    least number of frames of a Gaussian that is updated (default: $gaussian_min_count)
  --kaldi-compat <true|false> Kaldi's model and its estimator (default: $kaldi_compat)
  --one-process <auto|true|false>  EM in one process, which reads the features once and keeps the statistics; false: an
                              array of jobs for each iteration, each of which reads them; auto: one process where
                              the statistics of all utterances fit into --max-memory (default: $one_process)
  --max-memory <MB>           memory of the one process (default: $max_memory)
  --subsample <n>             use every n-th frame (default: $subsample)
  --cleanup <true|false>      remove posteriors, statistics and models in between (default: $cleanup)"
. "$root/utils/parse_options.sh"
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
data=${1%/} ubm=${2%/} dir=${3%/} ext=ie
for file in "$ubm/final.ubm" "$ubm/delta_order" "$ubm/sliding_cmvn.conf"; do
  [[ -s $file ]] || step_die "$file is missing or empty: is $ubm a folder of train_full_ubm.sh?"
done
[[ ! $dir -ef $ubm ]] || step_die "$dir holds the UBM: choose another folder"

em_check
[[ $ivector_dim =~ ^[1-9][0-9]*$ ]] || step_die "--ivector-dim $ivector_dim: expected a number above zero"
[[ $one_process =~ ^(auto|true|false)$ ]] || step_die "--one-process $one_process: expected auto, true or false"
mkdir -p "$dir"
cp "$ubm/final.ubm" "$ubm/delta_order" "$ubm/sliding_cmvn.conf" "$dir"
em_begin ivector "$ivector_dim" "$num_iters" "$srand" "$num_gselect" "$min_post" "$posterior_scale" \
  "$gaussian_min_count" "$kaldi_compat" "$(sha256sum <"$ubm/final.ubm")"
printf -- '--n=%s\n--min-post=%s\n' "$num_gselect" "$min_post" >"$dir/post.conf"
echo "--acoustic-weight=$posterior_scale" >"$dir/ivector.conf"

em_split
posts_done="$nj $(<"$dir/.fingerprint")"
if [[ $(cat "$dir/post.done" 2>/dev/null) != "$posts_done" ]]; then
  rm -f "$dir"/post.+([0-9]).ark "$dir/post.done"
  echo "$step_name: computing posteriors"
  em_jobs post "$dir/post" ark gmm-get-post --config="$dir/post.conf" --failed-list="$dir/log/JOB/failed.post" \
    "$dir/final.ubm" "$feats" "ark:$dir/post.JOB.ark"
  collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
  echo "$posts_done" >"$dir/post.done"
fi

if [[ $one_process == auto ]]; then
  # C (D + 1) numbers of eight bytes an utterance: of a large corpus hundreds of gigabytes, in a file in $TMPDIR
  one_process=$(gmm-info --print-args=false "$dir/final.ubm" |
    awk -v n="$(wc -l <"$data/feats.scp")" -v most="$max_memory" '$1 == "num-gauss" { c = $2 } $1 == "dim" { d = $2 }
      END { print 8e-6 * n * c * (d + 1) <= most ? "true" : "false" }')
fi
start=(--ivector-dim="$ivector_dim" --srand="$srand" --kaldi-compat="$kaldi_compat" "$dir/final.ubm")
if [[ $one_process == true && $x -lt $num_iters ]]; then
  echo "$step_name: training in one process; $dir/log/train.log follows it"
  posts="ark:cat$(for job in $(seq "$nj"); do echo -n " $dir/post.$job.ark"; done) |"
  whole=${feats//"scp:$split/JOB/"/"scp:$data/"}
  whole=${whole//"$dir/log/JOB/"/"$dir/log/1/"}
  rm -f "$dir"/log/+([0-9])/failed.!(post)
  $cmd "$dir/log/train.log" train-ivector-extractor --config="$dir/ivector.conf" --num-iters="$num_iters" \
    --failed-list="$dir/log/1/failed.train" --gaussian-min-count="$gaussian_min_count" \
    --max-memory="$max_memory" "${start[@]}" "$whole" "$posts" "$dir/$num_iters.ie"
  x=$num_iters
elif [[ $x -lt 0 ]]; then
  $cmd "$dir/log/init.log" train-ivector-extractor --num-iters=0 "${start[@]}" ark:/dev/null ark:/dev/null \
    "$dir/0.ie"
  x=0
fi
while [[ $x -lt $num_iters ]]; do
  em_jobs "acc.$x" "$dir/$x" acc acc-ivector-stats --config="$dir/ivector.conf" \
    --failed-list="$dir/log/JOB/failed.acc" "$dir/$x.ie" "$feats" "ark:$dir/post.JOB.ark" "$dir/$x.JOB.acc"
  $cmd "$dir/log/update.$x.log" est-ivector-extractor --gaussian-min-count="$gaussian_min_count" "$dir/$x.ie" \
    "sum-ivector-stats - ${outputs[*]} |" "$dir/$((x + 1)).ie"
  if [[ $cleanup == true ]]; then rm -f "${outputs[@]}"; fi
  echo "$step_name: iteration $((x + 1)) of $num_iters:$(sed -n 's/.*(est-ivector-extractor) ln p [^:]*:/ before it/p' \
    "$dir/log/update.$x.log")"
  x=$((x + 1))
done
em_end
if [[ $cleanup == true ]]; then rm -f "$dir"/post.+([0-9]).ark "$dir/post.done"; fi
