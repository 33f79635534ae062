#!/usr/bin/env bash
# Sourced by egs/mini/speechocean762_*.sh: features of the corpora that they test on, and lines of results.
# The caller has set root and exp and sourced path.sh.

: "${root:?}" "${exp:?}"
# shellcheck disable=SC2034 # the caller loops over it
corpora="speechocean762/test librispeech_mini/test_other timit_sample/all"

# make_features <data> <folder> <nj> <cmd>: makes <folder>/<corpus>/data/{train,test}_fbank; train is speechocean762's
make_features() {
  local corpus
  for corpus in $corpora; do
    "$root/egs/mini/run.sh" --nj "$3" --cmd "$4" --train "$1/speechocean762/train" --test "$1/$corpus" \
      --trials "$1/$corpus/trials" --dir "$2/${corpus%%/*}" --stop-stage 3 >"$2.log" 2>&1 ||
      { tail -n 5 "$2.log" >&2; exit 1; }
  done
}

# quietly <log> <command...>: the command's messages go to the log; its last ones are shown where it fails
quietly() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 2 "$log" >&2; echo "$0: ERROR: see $log" >&2; exit 1; }
}

# line <system> <seed> <list> <scores> <trials>: adds error rates to $exp/results.csv.partial, in its columns
line() {
  local columns
  columns=$(head -n 1 "$exp/results.csv.partial")
  compute-eer --print-args=false --verbose=-1 --allow-extra --format=csv "$5" "$4" 2>>"$exp/warnings.log" |
    awk -F, -v OFS=, -v start="$1,$2,$3" -v columns="$columns" '
      BEGIN { gsub("_dcf", "_dcf(p=0.01)", columns); n = split(columns, names) }
      NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
      { text = start; for (i = 4; i <= n; i++) text = text OFS $at[names[i]]; print text }' >>"$exp/results.csv.partial"
}
