#!/usr/bin/env bash
# speechocean762: d-vectors of a public encoder and our i-vectors through egs/mini/vectors.sh, as RESULTS.md reports.

set -euo pipefail
shopt -s inherit_errexit
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

nj=2
cmd=run.py
help_message="Usage: $0 [options] <data> <exp-dir>
e.g.: $0 ../shared/data exp/speechocean762_vectors
  <data> holds speechocean762/{train,test} and embeddings/ge2e_dvectors/*.npz. Trains i-vectors (48 Gaussians, 100
  dimensions) on all training speakers, and three times without a third of them, so that the trials that teach calibration and
  fusion are between speakers whom no part of the system has seen. About six minutes on two cores; what is done is not
  done again. Results: <exp-dir>/cohort_train (s-norm with the training set) and <exp-dir>/cohort_librispeech.
Options:
  --nj <n>          jobs (default: $nj)
  --cmd <launcher>  how to run jobs (default: $cmd)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
corpus=$(cd "$1/speechocean762" && pwd -P)
npz=$(cd "$1/embeddings/ge2e_dvectors" && pwd -P)
mkdir -p "$2"
exp=$(cd "$2" && pwd -P)
. "$root/path.sh"
. "$root/utils/stages.sh"
hold_folder "$exp"
# What an earlier run left must not pass for this one's if it fails.
rm -f "$exp"/cohort_{train,librispeech}/results.{txt,csv}

# ivectors <train> <test> <trials> <folder>: <folder>/train and test, each with vectors.scp and utt2spk
ivectors() {
  local part
  "$root/egs/mini/run.sh" --nj "$nj" --cmd "$cmd" --ivector-num-gauss 48 --ivector-dim 100 --train "$1" --test "$2" \
    --trials "$3" --dir "$4.run" --stop-stage 7
  for part in train test; do
    mkdir -p "$4/$part"
    cp "$4.run/ivectors_$part/vectors.scp" "$4.run/data/$part/utt2spk" "$4/$part"
  done
}

ivectors "$corpus/train" "$corpus/test" "$corpus/test/trials" "$exp/ivectors"
for k in 1 2 3; do
  fold=$exp/fold$k
  "$root/local/mini/hold_out_speakers.sh" --fold "$k" "$exp/ivectors.run/data/train" "$fold"
  ivectors "$fold/train" "$fold/test" "$fold/test/trials" "$exp/ivectors_fold$k"
  rm -rf "$exp/ivectors/fold$k"
  cp -r "$exp/ivectors_fold$k" "$exp/ivectors/fold$k"
done

import=("$root/local/mini/import_vectors.py" --print-args=false --verbose=-1)
for cohort in train librispeech; do
  for part in train test; do
    "${import[@]}" "$npz/so762_dev_$part.npz" "$exp/dvectors_$cohort/$part"
  done
done
# Both corpora call speakers by numbers: the prefix keeps them apart.
"${import[@]}" --spk-prefix=librispeech- "$npz/librispeech_train_1utt.npz" "$exp/dvectors_librispeech/cohort"

for cohort in train librispeech; do
  "$root/egs/mini/vectors.sh" --cmd "$cmd" --lda-dim 40,49 --lda-shrinkage 0.9,0.3 --by "$corpus/test/spk2gender" \
    --trials "$corpus/test/trials" --more-trials "$corpus/test/trials_samegroup" \
    "$exp/cohort_$cohort" "dvectors=$exp/dvectors_$cohort" "ivectors=$exp/ivectors"
done
