#!/usr/bin/env bash
# speechocean762: end-to-end systems on real speech, several seeds, other corpora as test sets, as RESULTS.md reports.

set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

seeds="0 1 2"
systems="identification joint"
ivectors=
train_opts=
precision=float32
num_threads=2
device=cpu
nj=2
cmd=run.py
help_message="Usage: $0 [options] <data> <exp-dir>
e.g.: $0 --precision bf16 ../shared/data exp/speechocean762_e2e
  <data> holds speechocean762/{train,test}, librispeech_mini/test_other and timit_sample/all, whose features come from
  egs/mini/run.sh. For each seed an x-vector network is trained to identify the training speakers and their copies at
  other speeds (e2e_identification.conf), then that network and its discriminative PLDA together (e2e_joint.conf);
  for each <name> of --systems the options are in e2e_<name>.conf, and all but the first start from the first's model.
  Writes <exp-dir>/seed<n>/<system> (the models), <exp-dir>/results.csv and results.txt. A training that has ended is
  not done again, one that was stopped goes on. Lines \`<name> calibrated' and \`<name> +
  i-vectors' map the scores of speechocean762 by logistic regression, in which no speaker of a trial has a part.
Options:
  --seeds \"<n> ...\"       seeds (default: $seeds)
  --systems \"<name> ...\"  (default: $systems)
  --ivectors <scores>     scores for speechocean762's trials to fuse with, such as cohort_train/ivectors/scores.plda.raw
                          of speechocean762_vectors.sh (default: no fusion)
  --train-opts <options>  of train-e2e-verif, which win over the files'; another <exp-dir> for others (default: none)
  --precision <p>         of training: bf16 is faster where the processor has it (default: $precision)
  --num-threads <n>       of training (default: $num_threads)
  --device <d>            of training: cpu or cuda (default: $device)
  --nj <n>                jobs that make features (default: $nj)
  --cmd <launcher>        how to run jobs (default: $cmd)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
source=$(cd "$1" && pwd -P)
mkdir -p "$2"
exp=$(cd "$2" && pwd -P)
if [ -n "$ivectors" ]; then ivectors=$(realpath -e "$ivectors"); fi
read -r -a options <<<"$train_opts"
. "$root/path.sh"
. "$root/utils/stages.sh"
. "$root/local/mini/corpora.sh"
hold_folder "$exp"
rm -f "$exp"/results.{txt,csv} "$exp/warnings.log" # what an earlier run left must not pass for this one's if it fails

make_features "$source" "$exp/data" "$nj" "$cmd"
train=$exp/data/speechocean762/data/train

# test_system <model> <system> <seed>
test_system() {
  local corpus name out
  for corpus in $corpora; do
    name=${corpus%%/*} out=$1/$name
    mkdir -p "$out"
    quietly "$1/log" extract-embeddings "$1" "scp:$exp/data/$name/data/test_fbank/feats.scp" \
      "ark,scp:$out/vectors.ark,$out/vectors.scp"
    quietly "$1/log" score-trials --backend=e2e --model="$1" "$source/$corpus/trials" "scp:$out/vectors.scp" \
      "scp:$out/vectors.scp" "$out/scores"
    line "$2" "$3" "$name" "$out/scores" "$source/$corpus/trials"
  done
  with_samegroup "$2" "$3" "$1/speechocean762/scores"
}

with_samegroup() { line "$1" "$2" samegroup "$3" "$test/trials_samegroup"; }

# mapped <title> <seed> <out> <command...>: results of the scores that the command writes to <out>
mapped() {
  local title=$1 seed=$2 out=$3
  shift 3
  quietly "${out%/*}/log" "$@"
  line "$title" "$seed" speechocean762 "$out" "$test/trials"
  with_samegroup "$title" "$seed" "$out"
}

test=$source/speechocean762/test
# Logistic regression in which no speaker of a trial has a part.
crosswise=(--cross-validate=5 --train-trials="$test/trials" --utt2spk="$test/utt2spk")
echo "system,seed,list,eer,min_dcf,act_dcf,cllr,min_cllr" >"$exp/results.csv.partial"
if [ -n "$ivectors" ]; then
  line i-vectors - speechocean762 "$ivectors" "$test/trials"
  with_samegroup i-vectors - "$ivectors"
  mapped "i-vectors calibrated" - "$exp/ivectors" calibrate-scores "${crosswise[@]}" "$ivectors" "$exp/ivectors"
fi
first=${systems%% *}
for seed in $seeds; do
  for system in $systems; do
    model=$exp/seed$seed/$system start=()
    if [ "$system" != "$first" ]; then start=(--init-model="$exp/seed$seed/$first"); fi
    mkdir -p "$model"
    quietly "$model/log" train-e2e-verif --config="$here/e2e_$system.conf" --srand="$seed" --precision="$precision" \
      --num-threads="$num_threads" --device="$device" --resume "${start[@]}" \
      --audio --fbank-config="$root/conf/fbank.conf" "${options[@]}" "$train/wav.scp" "ark:$train/utt2spk" "$model"
    test_system "$model" "$system" "$seed"
    scores=$model/speechocean762/scores
    mapped "$system calibrated" "$seed" "$model/calibrated" calibrate-scores "${crosswise[@]}" "$scores" "$model/calibrated"
    if [ -n "$ivectors" ]; then
      mapped "$system + i-vectors" "$seed" "$model/fused" fuse-scores "${crosswise[@]}" "$model/fused" "$scores" "$ivectors"
    fi
  done
done
mv "$exp/results.csv.partial" "$exp/results.csv"
"$root/local/mini/seed_table.py" --print-args=false "$exp/results.csv" >"$exp/results.txt.partial"
mv "$exp/results.txt.partial" "$exp/results.txt"
cat "$exp/results.txt"
