#!/usr/bin/env bash
# Trains the linear back-end of utterance vectors: global mean, LDA, length normalisation, PLDA.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=1
cmd=run.py
lda_dim=0
pca_dim=0
num_em_iters=10
shrinkage=0
help_message="Usage: $0 [options] <data-dir> <vectors.scp> <exp-dir>
e.g.: $0 --lda-dim 20 data/train exp/pooled_train/vectors.scp exp/plda
  <data-dir> has utt2spk. Writes <exp-dir>/mean.vec, lda.mat and plda (score.sh uses them), and <exp-dir>/dropped:
  utterances without a vector that can be used.
Options:
  --nj <n>               jobs that read the vectors for PLDA; the model is the same for any number (default: $nj)
  --cmd <launcher>       how to run jobs (default: $cmd)
  --lda-dim <n>          dimensions that LDA keeps (default: half the number of speakers, at least 1, at most 40)
  --pca-dim <n>          LDA takes so many principal directions of the vectors first, for few vectors (default: all)
  --num-em-iters <n>     EM iterations of PLDA (default: $num_em_iters)
  --shrinkage <a>        of LDA's within-speaker covariance towards a multiple of the identity, 0 to 1
                         (default: $shrinkage)"
. "$root/utils/parse_options.sh"
. "$root/utils/step_lib.sh"
if [ $# -ne 3 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 vectors=$2 dir=$3
for file in "$data/utt2spk" "$vectors"; do
  [[ -s $file ]] || step_die "$file is missing or empty"
done
for number in nj lda_dim pca_dim num_em_iters; do
  [[ ${!number} =~ ^[0-9]+$ ]] || step_die "--${number//_/-} ${!number}: expected a number"
done
step_plain_paths "$vectors" "$dir"

mkdir -p "$dir/log"
rm -f "$dir/mean.vec" "$dir/lda.mat" "$dir/plda" "$dir"/log/failed.*
# Only utterances that have a vector take part.
awk 'NR == FNR { has[$1]; next } $1 in has' "$vectors" "$data/utt2spk" >"$dir/utt2spk"
awk 'NR == FNR { has[$1]; next } !($1 in has) { print $1, "has no vector" }' "$vectors" "$data/utt2spk" \
  >"$dir/log/failed.vectors"
collect_dropped.sh "$data/utt2spk" "$dir/dropped" "$dir/log/failed.vectors"
utt2spk_to_spk2utt "$dir/utt2spk" >"$dir/spk2utt"
num_spks=$(wc -l <"$dir/spk2utt")
if [ "$lda_dim" -eq 0 ]; then
  dim=$(copy-vector --print-args=false --verbose=-1 "scp:head -n 1 $vectors |" ark,t:- | awk '{ print NF - 3 }')
  if [ "$pca_dim" -gt 0 ]; then dim=$pca_dim; fi
  lda_dim=$((num_spks / 2))
  for limit in 40 "$dim"; do
    if [ "$lda_dim" -gt "$limit" ]; then lda_dim=$limit; fi
  done
  if [ "$lda_dim" -lt 1 ]; then lda_dim=1; fi
fi

$cmd "$dir/log/mean.log" compute-vec-mean --failed-list="$dir/log/failed.mean" "scp:$vectors" "$dir/mean.vec"
if [ -s "$dir/log/failed.mean" ]; then
  collect_dropped.sh "$data/utt2spk" "$dir/dropped" "$dir"/log/failed.{vectors,mean}
fi
$cmd "$dir/log/lda.log" train-lda --dim="$lda_dim" --pca-dim="$pca_dim" --shrinkage="$shrinkage" \
  "ark:transform-vec --mean=$dir/mean.vec scp:$vectors ark:- |" "ark:$dir/utt2spk" "$dir/lda.mat"
normalise="transform-vec --mean=$dir/mean.vec --normalize-length $dir/lda.mat"
if [ "$nj" -gt "$num_spks" ]; then nj=$num_spks; fi
if [ "$nj" -le 1 ]; then
  $cmd "$dir/log/plda.log" train-plda --num-em-iters="$num_em_iters" "ark:$dir/spk2utt" \
    "ark:$normalise scp:$vectors ark:- |" "$dir/plda"
  exit
fi
rm -rf "$dir/split"
mkdir -p "$dir/split"
awk -v nj="$nj" -v base="$dir/split/spk2utt" '{ print > (base "." 1 + NR % nj) }' "$dir/spk2utt"
all_stats=()
for job in $(seq "$nj"); do
  awk 'NR == FNR { for (i = 2; i <= NF; i++) wanted[$i]; next } $1 in wanted' "$dir/split/spk2utt.$job" "$vectors" \
    >"$dir/split/vectors.$job.scp"
  all_stats+=("$dir/split/stats.$job")
done
$cmd JOB=1:"$nj" "$dir/log/acc_plda.JOB.log" acc-plda-stats "ark:$dir/split/spk2utt.JOB" \
  "ark:$normalise scp:$dir/split/vectors.JOB.scp ark:- |" "$dir/split/stats.JOB"
$cmd "$dir/log/plda.log" est-plda --num-em-iters="$num_em_iters" "sum-plda-stats - ${all_stats[*]} |" "$dir/plda"
rm -r "$dir/split"
