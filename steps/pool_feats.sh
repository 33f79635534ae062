#!/usr/bin/env bash
# Makes a vector of each utterance: mean and standard deviation of its voiced frames.

set -euo pipefail

nj=2
cmd=run.py
pooling=mean-std
help_message="Usage: $0 [options] <data-dir> <exp-dir>
e.g.: $0 data/train exp/pooled_train
  <data-dir> has feats.scp and vad.scp. Writes <exp-dir>/vectors.scp, and <exp-dir>/dropped: utterances left out, and why.
Options:
  --nj <n>           jobs (default: $nj)
  --cmd <launcher>   how to run jobs (default: $cmd)
  --pooling <how>    mean-std or mean (default: $pooling)"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 dir=$2
for file in "$data/feats.scp" "$data/vad.scp"; do
  if [ ! -s "$file" ]; then
    echo "$0: $file is missing or empty" >&2
    exit 1
  fi
done

num_utts=$(wc -l <"$data/feats.scp")
if [ "$nj" -gt "$num_utts" ]; then nj=$num_utts; fi
rm -rf "$dir"/vectors.* "$dir"/log/failed.* "$dir/split"
mkdir -p "$dir/log" "$dir/split"
awk -v nj="$nj" -v total="$num_utts" -v base="$dir/split" \
  '{ print > (base "/feats." (1 + int((NR - 1) * nj / total)) ".scp") }' "$data/feats.scp"

# pipefail is said here, too: Kaldi's run.pl does not set it
$cmd JOB=1:"$nj" "$dir/log/pool.JOB.log" set -o pipefail \; select-voiced-frames --failed-list="$dir/log/failed.voiced.JOB" \
  "scp:$dir/split/feats.JOB.scp" "scp:$data/vad.scp" ark:- \| pool-feats --failed-list="$dir/log/failed.pool.JOB" \
  --pooling="$pooling" ark:- "ark,scp:$dir/vectors.JOB.ark,$dir/vectors.JOB.scp"
for job in $(seq "$nj"); do cat "$dir/vectors.$job.scp"; done >"$dir/vectors.scp"
rm -r "$dir/split"
collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/failed.*
