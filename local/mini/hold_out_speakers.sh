#!/usr/bin/env bash
# Splits a data directory by speaker for cross-validation: every n-th speaker for testing, the others for training.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

fold=1
num_folds=3
help_message="Usage: $0 [options] <data-dir> <out-dir>
e.g.: $0 --fold 2 --num-folds 3 data/train data/fold2
  Writes <out-dir>/train, <out-dir>/test, and <out-dir>/test/trials: every pair of its utterances once, with labels.
Options:
  --num-folds <n>   number of parts (default: $num_folds)
  --fold <k>        the part for testing, 1 to <n> (default: $fold)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
data=$1 out=$2
if ! [ "$fold" -ge 1 ] || ! [ "$fold" -le "$num_folds" ]; then
  echo "$0: --fold $fold: expected 1 to $num_folds" >&2
  exit 1
fi
. "$root/path.sh"
mkdir -p "$out"
awk '!seen[$2]++ { print $2 }' "$data/utt2spk" | LC_ALL=C sort >"$out/speakers"
awk -v k="$fold" -v n="$num_folds" '(NR - 1) % n == k - 1' "$out/speakers" >"$out/test_speakers"
awk -v k="$fold" -v n="$num_folds" '(NR - 1) % n != k - 1' "$out/speakers" >"$out/train_speakers"
for part in train test; do
  "$root/utils/subset_data_dir.sh" --spk-list "$out/${part}_speakers" "$data" "$out/$part"
done
make-trials --print-args=false "$out/test/utt2spk" "$out/test/trials"
rm "$out"/{speakers,train_speakers,test_speakers}
