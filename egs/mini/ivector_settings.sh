#!/usr/bin/env bash
# Trains i-vector systems of several sizes with several seeds, and prints the error rates of each on several lists.

set -euo pipefail
shopt -s inherit_errexit
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

settings="64/50/40 128/100/40"
seeds="0 1 2 3 4"
tests=
num_iters_diag=4
num_iters_full=4
num_iters_extractor=5
init=random-frames
kaldi_compat=false
plda_iters=10
lda_shrinkage=0
nj=2
cmd=run.py
help_message="Usage: $0 [options] <run-dir> <exp-dir>
e.g.: $0 --settings \"64/50/40\" --seeds \"0 1\" exp/speechocean762 exp/settings
  <run-dir> is the --dir of a run of egs/mini/run.sh, at least to its stage 4: its data/train trains the systems.
  Prints, and writes to <exp-dir>/results.txt, the EER in percent for each setting and seed, then means and standard
  deviations over the seeds. What has been trained is not trained again.
Options:
  --settings \"<g>/<r>/<d> ...\"  Gaussians, dimension of i-vectors, dimension of LDA (default: $settings)
  --seeds \"<n> ...\"             (default: $seeds)
  --tests \"<run-dir>[,<trials>] ...\"  whose data/test to test on, and a list other than data/trials
                                (default: <run-dir>)
  --num-iters-diag, --num-iters-full, --num-iters-extractor <n>   (default: 4, 4, 5, as in Kaldi's measurement)
  --init <how>                  start of the diagonal UBM (default: $init)
  --kaldi-compat true|false     Kaldi's extractor in place of the centred form (default: $kaldi_compat)
  --plda-iters <n>              (default: $plda_iters)
  --lda-shrinkage <a>           (default: 0)
  --nj <n>                      jobs (default: $nj)
  --cmd <launcher>              how to run jobs (default: $cmd)"
. "$root/utils/parse_options.sh"
if [ $# -ne 2 ]; then
  echo "$help_message" >&2
  exit 1
fi
run=$(cd "$1" && pwd -P)
mkdir -p "$2"
exp=$(cd "$2" && pwd -P)
. "$root/path.sh"
data=$run/data/train
tests=${tests:-$run}

# extract <extractor> <data-dir> <folder>: once for each extractor and data directory
extract() {
  if [ -f "$3/made" ] && [ "$(<"$3/made")" = "$(cksum <"$1/final.ie") $(cksum <"$2/feats.scp")" ]; then return; fi
  extract_ivectors.sh --nj "$nj" --cmd "$cmd" "$1" "$2" "$3" >>"$exp/log"
  echo "$(cksum <"$1/final.ie") $(cksum <"$2/feats.scp")" >"$3/made"
}

# system <gaussians> <dim> <lda-dim> <seed>: prints the EER of each of the tests
system() {
  local ubm=$exp/$1.$4 ie=$exp/$1.$4/ie$2 back test dir trials number=0
  train_diag_ubm.sh --nj "$nj" --cmd "$cmd" --init "$init" --num-iters "$num_iters_diag" --srand "$4" "$data" "$1" \
    "$ubm/diag"
  train_full_ubm.sh --nj "$nj" --cmd "$cmd" --num-iters "$num_iters_full" "$data" "$ubm/diag" "$ubm/full"
  train_ivector_extractor.sh --nj "$nj" --cmd "$cmd" --ivector-dim "$2" --num-iters "$num_iters_extractor" \
    --kaldi-compat "$kaldi_compat" --srand "$4" "$data" "$ubm/full" "$ie"
  extract "$ie" "$data" "$ie/train"
  back=$ie/lda$3
  train_plda.sh --cmd "$cmd" --lda-dim "$3" --shrinkage "$lda_shrinkage" \
    --num-em-iters "$plda_iters" "$data" "$ie/train/vectors.scp" "$back"
  for test in $tests; do
    dir=${test%%,*}/data number=$((number + 1))
    trials=$dir/trials
    if [[ $test == *,* ]]; then trials=${test#*,}; fi
    extract "$ie" "$dir/test" "$ie/test.$(cksum <<<"$dir" | cut -d' ' -f1)"
    score.sh --cmd "$cmd" "$trials" "$back" "$ie/test.$(cksum <<<"$dir" | cut -d' ' -f1)/vectors.scp" \
      "$back/scores.$number"
    awk '$1 == "EER" { print $2 }' "$back/scores.$number/eer" >&3
  done
}

: >"$exp/log"
{
  number=0
  for test in $tests; do
    number=$((number + 1))
    echo "test $number: $test"
  done
  printf '%-16s %4s   EER %% on test 1, 2, ...\n' "setting" "seed"
} >"$exp/results.partial"
cat "$exp/results.partial"
for setting in $settings; do
  IFS=/ read -r gaussians dim lda_dim <<<"$setting"
  for seed in $seeds; do
    eers=$({ system "$gaussians" "$dim" "$lda_dim" "$seed" >>"$exp/log"; } 3>&1)
    # shellcheck disable=SC2086,SC2046  # a word for each number
    printf '%-16s %4s %s\n' "$setting" "$seed" "$(printf ' %6s' $eers)" | tee -a "$exp/results.partial"
  done
done
awk 'NF > 2 && $1 ~ /\// && $2 ~ /^[0-9]+$/ {
    if (!($1 in n)) order[++k] = $1
    n[$1]++
    for (i = 3; i <= NF; i++) { s[$1, i] += $i; q[$1, i] += $i * $i }
    width = NF
  }
  END { for (j = 1; j <= k; j++) { name = order[j]
    for (i = 3; i <= width; i++) mean[i] = s[name, i] / n[name]
    printf "%-16s mean", name
    for (i = 3; i <= width; i++) printf " %6.2f", mean[i]
    printf "\n%-16s   sd", name
    for (i = 3; i <= width; i++) { v = q[name, i] / n[name] - mean[i] ^ 2
      v = v > 0 && n[name] > 1 ? v * n[name] / (n[name] - 1) : 0
      printf " %6.2f", sqrt(v) }
    printf "\n" } }' "$exp/results.partial" | tee "$exp/means"
cat "$exp/means" >>"$exp/results.partial"
mv "$exp/results.partial" "$exp/results.txt"
rm "$exp/means"
