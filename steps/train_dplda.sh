#!/usr/bin/env bash
# Trains a discriminative PLDA from the back-end of train_plda.sh, on the same or on other vectors.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

cmd=run.py
dev_utt2spk=
dev_vectors=
dplda_opts=
help_message="Usage: $0 [options] <data-dir> <vectors.scp> <exp-dir>
e.g.: $0 --dplda-opts=--regularize=1,0.3,0.1 data/train exp/pooled_train/vectors.scp exp/plda
  <data-dir> has utt2spk, <exp-dir> comes from train_plda.sh: its mean.vec and lda.mat serve the vectors, and its
  plda is the start. Writes <exp-dir>/dplda (score.sh --backend dplda uses it) and <exp-dir>/dplda_steps.
Options:
  --cmd <launcher>        how to run the job (default: $cmd)
  --dev-vectors <scp>     vectors of speakers that <exp-dir> has not seen, which decide when training ends (default:
                          some of the training speakers, held out)
  --dev-utt2spk <file>    their speakers
  --dplda-opts <words>    more options of train-dplda, as in --dplda-opts=--diagonal, without quotes (default: none)"
. "$root/utils/parse_options.sh"
. "$root/utils/step_lib.sh"
if [ $# -ne 3 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 vectors=$2 dir=$3
for file in "$data/utt2spk" "$vectors" "$dir/mean.vec" "$dir/lda.mat" "$dir/plda"; do
  [[ -s $file ]] || step_die "$file is missing or empty"
done
step_plain_paths "$data" "$vectors" "$dir" "$dev_vectors" "$dev_utt2spk"
if [ -n "$dev_vectors$dev_utt2spk" ]; then
  for file in "$dev_vectors" "$dev_utt2spk"; do
    [[ -s $file ]] || step_die "--dev-vectors and --dev-utt2spk go together: '$file' is missing or empty"
  done
fi

mkdir -p "$dir/log"
rm -f "$dir/dplda" "$dir/dplda_steps"
normalise="transform-vec --mean=$dir/mean.vec --normalize-length $dir/lda.mat"
options=(--init="$dir/plda" --report-file="$dir/dplda_steps")
if [ -n "$dev_vectors" ]; then
  options+=(--dev-vectors="ark:$normalise scp:$dev_vectors ark:- |" --dev-utt2spk="ark:$dev_utt2spk")
fi
read -r -a more <<<"$dplda_opts"
options+=(${more[@]+"${more[@]}"})
$cmd "$dir/log/dplda.log" train-dplda "${options[@]}" "ark:$normalise scp:$vectors ark:- |" "ark:$data/utt2spk" \
  "$dir/dplda"
