#!/usr/bin/env bash
# Extracts the i-vector of each utterance of a data directory.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
max_count=0
subsample=1
help_message="Usage: $0 [options] <extractor-dir> <data-dir> <exp-dir>
e.g.: $0 --nj 8 exp/extractor data/test exp/ivectors_test
  <extractor-dir> comes from train_ivector_extractor.sh; <data-dir> has feats.scp and vad.scp. Writes
  <exp-dir>/vectors.scp (and the same as ivector.scp, Kaldi's name), for train_plda.sh and score.sh, and
  <exp-dir>/dropped: utterances left out, and why.
Options:
  --nj <n>           jobs (default: $nj)
  --cmd <launcher>   how to run jobs (default: $cmd)
  --max-count <n>    scale the posteriors of longer utterances down to this sum (default: $max_count, no limit)
  --subsample <n>    use every n-th frame (default: $subsample)"
. "$root/utils/parse_options.sh"
num_iters=1  # of em_lib.sh; it is no option of this step
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
model=${1%/} data=${2%/} dir=${3%/}
for file in final.ie final.ubm post.conf ivector.conf delta_order sliding_cmvn.conf; do
  [[ -s $model/$file ]] || step_die "$model/$file is missing or empty: is it a folder of train_ivector_extractor.sh?"
done
[[ ! $dir -ef $model ]] || step_die "$dir holds the extractor: choose another folder"
em_check

mkdir -p "$dir"
rm -rf "$dir"/vectors.* "$dir/ivector.scp" "$dir/dropped" "$dir/log"
cp "$model/delta_order" "$model/sliding_cmvn.conf" "$dir"
em_split
em_jobs extract "$dir/vectors" scp extract-ivectors --config="$model/ivector.conf" --max-count="$max_count" \
  --failed-list="$dir/log/JOB/failed.extract" "$model/final.ie" "$feats" "ark:gmm-get-post \
--config=$model/post.conf --failed-list=$dir/log/JOB/failed.post $model/final.ubm \"$feats\" ark:- |" \
  "ark,scp:$dir/vectors.JOB.ark,$dir/vectors.JOB.scp"
collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
cat "${outputs[@]}" | LC_ALL=C sort >"$dir/vectors.scp.partial"
mv "$dir/vectors.scp.partial" "$dir/vectors.scp"
ln -s vectors.scp "$dir/ivector.scp"
