#!/usr/bin/env bash
# Extracts the embedding of each utterance of a data directory with an end-to-end system.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

nj=4
cmd=run.py
gpu=false
chunk_frames=0
help_message="Usage: $0 [options] <model-dir> <data-dir> <exp-dir>
e.g.: $0 --nj 8 exp/xvector data/test exp/embeddings_test
  <model-dir> comes from train_e2e.sh; <data-dir> has feats.scp and vad.scp. Writes <exp-dir>/vectors.scp, for score.sh
  and train_plda.sh, and <exp-dir>/dropped: utterances left out, and why.
Options:
  --nj <n>              jobs (default: $nj)
  --cmd <launcher>      how to run jobs (default: $cmd)
  --gpu <true|false>    a GPU for each job (default: $gpu)
  --chunk-frames <n>    cut longer utterances in chunks of so many frames, whose embeddings are averaged
                        (default: $chunk_frames, never)"
. "$root/utils/parse_options.sh"
subsample=1 num_iters=1  # of em_lib.sh; they are no options of this step
. "$root/utils/step_lib.sh"
. "$root/utils/em_lib.sh"
if [[ $# -ne 3 ]]; then
  echo "$help_message" >&2
  exit 1
fi
model=${1%/} data=${2%/} dir=${3%/}
for file in final.pt config.json delta_order sliding_cmvn.conf; do
  [[ -s $model/$file ]] || step_die "$model/$file is missing or empty: is it a folder of train_e2e.sh?"
done
[[ ! $dir -ef $model ]] || step_die "$dir holds the model: choose another folder"
em_check
[[ $chunk_frames =~ ^[0-9]+$ ]] || step_die "--chunk-frames $chunk_frames: expected a number"

mkdir -p "$dir"
rm -rf "$dir"/vectors.* "$dir/dropped" "$dir/log"
cp "$model/delta_order" "$model/sliding_cmvn.conf" "$dir"
device=cpu
if [[ $gpu == true ]]; then cmd+=" --gpu 1" device=cuda; fi
em_split
em_jobs extract "$dir/vectors" scp extract-embeddings --device="$device" --chunk-frames="$chunk_frames" \
  --failed-list="$dir/log/JOB/failed.extract" "$model" "$feats" "ark,scp:$dir/vectors.JOB.ark,$dir/vectors.JOB.scp"
collect_dropped.sh "$data/feats.scp" "$dir/dropped" "$dir"/log/*/failed.*
cat "${outputs[@]}" | LC_ALL=C sort >"$dir/vectors.scp.partial"
mv "$dir/vectors.scp.partial" "$dir/vectors.scp"
