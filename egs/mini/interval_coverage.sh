#!/usr/bin/env bash
# Are the confidence intervals of compute-eer honest? Counts how often they cover the truth of simulated scores.

set -euo pipefail
shopt -s inherit_errexit
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

models="plda effects"
num_speakers="10 20 50 100"
num_utts=3
num_simulations=500
num_differences=300
ci_replicates=200
srand=0
help_message="Usage: $0 [options] <exp-dir>
e.g.: $0 exp/interval_coverage
      $0 --num-simulations 20 --num-differences 20 --num-speakers \"10 20\" exp/quick
  Simulates scores of trials that share speakers, with known error rates, and counts how often 95 % intervals cover them,
  by the naive, percentile, bootstrap and jackknife methods; also with unequal numbers of utterances a speaker, and
  how often two equally good systems are found to differ (p < 0.05). Prints, and writes to <exp-dir>/results.md, tables
  in markdown. About an hour on one core with the defaults.
Options:
  --models \"<model> ...\"     of plda and effects (default: $models)
  --num-speakers \"<n> ...\"   (default: $num_speakers)
  --num-utts <n>             test utterances of a speaker (default: $num_utts)
  --num-simulations <n>      of intervals, for each model and number of speakers (default: $num_simulations)
  --num-differences <n>      of pairs of systems, likewise (default: $num_differences)
  --ci-replicates <n>        of all methods but the jackknife (default: $ci_replicates)
  --srand <n>                (default: $srand)"
. "$root/utils/parse_options.sh"
if [ $# -ne 1 ]; then
  echo "$help_message" >&2
  exit 1
fi
mkdir -p "$1"
exp=$(cd "$1" && pwd -P)
. "$root/path.sh"
. "$root/utils/stages.sh"
hold_folder "$exp"
# What an earlier run left must not pass for this one's if it fails.
rm -f "$exp/results.md"
trap 'rm -f "$exp/results.md.partial"' EXIT

# count <title> [options]: prints a table under a title
count() {
  printf '\n%s\n\n' "$1"
  "$root/local/mini/interval_coverage.py" --num-speakers="$num_speakers" --num-utts="$num_utts" \
    --ci-replicates="$ci_replicates" --srand="$srand" "${@:2}"
}

{
  for model in $models; do
    count "Coverage of 95 % intervals in percent (median width over the true value), scores: $model" \
      --model="$model" --num-simulations="$num_simulations"
    count "The same with unequal numbers of utterances" \
      --model="$model" --num-simulations="$num_simulations" --unequal=true --methods="naive jackknife"
    count "Equally good systems with p < 0.05 in percent" \
      --model="$model" --num-simulations="$num_differences" --what=differences --methods="naive bootstrap jackknife"
  done
} | tee "$exp/results.md.partial"
mv "$exp/results.md.partial" "$exp/results.md"
