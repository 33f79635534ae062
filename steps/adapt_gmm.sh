#!/usr/bin/env bash
# Adapts a UBM by MAP to each enrolment model of one or more utterances.

set -euo pipefail

nj=2
cmd=run.py
mean_tau=16
help_message="Usage: $0 [options] <data-dir> <enroll-map> <ubm-dir> <exp-dir>
e.g.: $0 data/test data/test/spk2utt exp/ubm exp/gmm_map
  <enroll-map> lines are \`<model-id> <utterance>...\`; <ubm-dir> comes from train_diag_ubm.sh. Writes <exp-dir>/models.scp,
  a copy of the UBM, and <exp-dir>/dropped: utterances left out, and why.
Options:
  --nj <n>           jobs (default: $nj)
  --cmd <launcher>   how to run jobs (default: $cmd)
  --mean-tau <t>     relevance factor (default: $mean_tau)"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
if [ $# -ne 4 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 map=$2 ubm=$3 dir=$4

num_models=$(wc -l <"$map")
if [ "$num_models" -eq 0 ]; then
  echo "$0: $map has no model" >&2
  exit 1
fi
if [ "$nj" -gt "$num_models" ]; then nj=$num_models; fi
rm -rf "$dir"/models.* "$dir"/log/*/failed.* "$dir/split"
mkdir -p "$dir/log" "$dir/split"
cp "$ubm/final.gmm" "$ubm/delta_order" "$ubm/sliding_cmvn.conf" "$dir"

# Each job reads the features of its own models only.
awk -v nj="$nj" -v base="$dir/split" '{ print > (base "/map." (1 + (NR - 1) % nj)) }' "$map"
for job in $(seq "$nj"); do
  mkdir -p "$dir/split/data.$job" "$dir/log/$job"
  awk 'NR == FNR { for (i = 2; i <= NF; i++) wanted[$i]; next } $1 in wanted' "$dir/split/map.$job" \
    "$data/feats.scp" >"$dir/split/data.$job/feats.scp"
  cp "$data/vad.scp" "$dir/split/data.$job/vad.scp"
done
feats=$(gmm_features.sh --log-dir "$dir/log/1" "$dir" "$dir/split/data.1")
feats=${feats//"$dir/split/data.1/"/"$dir/split/data.JOB/"}
feats=${feats//"$dir/log/1/"/"$dir/log/JOB/"}

$cmd JOB=1:"$nj" "$dir/log/adapt.JOB.log" adapt-gmm-map --failed-list="$dir/log/JOB/failed.adapt" \
  --mean-tau="$mean_tau" "$dir/final.gmm" "ark:$dir/split/map.JOB" "$feats" \
  "ark,scp:$dir/models.JOB.ark,$dir/models.JOB.scp"
cat "$dir"/models.*.scp | LC_ALL=C sort >"$dir/models.scp"
rm -r "$dir/split"
awk '{ for (i = 2; i <= NF; i++) if (!seen[$i]++) print $i }' "$map" >"$dir/utterances"
collect_dropped.sh "$dir/utterances" "$dir/dropped" "$dir"/log/*/failed.*
