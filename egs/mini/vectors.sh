#!/usr/bin/env bash
# From utterance vectors to scores that can be trusted: back-ends, normalisation, calibration, fusion, intervals.

set -euo pipefail
shopt -s inherit_errexit
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

trials=
more_trials=
num_folds=3
lda_dim=0
lda_shrinkage=0.1
top_n=300
fuse=plda.raw
by=
cmd=run.py
help_message="Usage: $0 [options] --trials <list> <exp-dir> <name>=<vectors-dir> [<name>=<vectors-dir> ...]
e.g.: $0 --trials data/test/trials exp/vectors dvectors=exp/dvectors ivectors=exp/ivectors
  <vectors-dir> holds train and test, each with vectors.scp and utt2spk, and may hold cohort, vectors of other
  speakers for score normalisation (default: those of train). For each system: cosine, LDA with cosine, LDA with PLDA, each
  alone (.raw), with adaptive s-normalisation (.norm), and then calibrated (.cal).
  Calibration and fusion are learnt from trials between training speakers, scored by back-ends that were trained without
  them: fold<k>/train and fold<k>/test of <vectors-dir> if they are there (for vectors whose extractor was
  trained on train), else a split of train by speaker.
  Writes <exp-dir>/<name>/scores.<what>, <exp-dir>/results.txt and results.csv (with 95 % intervals by a jackknife
  over the test speakers) and, where matplotlib is there, scores.svg.
Options:
  --trials <list>        lines \`enroll-id test-id target|nontarget\` between the vectors of test
  --more-trials \"<list> ...\"  other lists, parts of the first, whose error rates are wanted too
  --num-folds <n>        parts of the training speakers (default: $num_folds)
  --lda-dim <n>[,<n>...] one for all systems, or one each (default: half the number of training speakers, 40 at most)
  --lda-shrinkage <a>[,<a>...]  likewise (default: $lda_shrinkage)
  --top-n <n>            cohort members that count in normalisation (default: $top_n)
  --fuse <what>          scores that are fused: cosine, lda or plda, with .raw or .norm (default: $fuse)
  --by <table>           labels of the test utterances or speakers, for a table of error rates of the fusion by label
  --cmd <launcher>       how to run jobs (default: $cmd)"
. "$root/utils/parse_options.sh"
if [ $# -lt 2 ] || [ -z "$trials" ]; then
  echo "$help_message" >&2
  exit 1
fi
fail() {
  echo "$0: ERROR: $*" >&2
  exit 1
}
see_log() { fail "a program failed, the last line of $exp/log: $(tail -n 1 "$exp/log")"; }
. "$root/path.sh"
. "$root/utils/stages.sh"
mkdir -p "$1"
exp=$(cd "$1" && pwd -P)
shift
names=("${@%%=*}")
for path in "$exp" "$@"; do [[ $path != *[[:space:]]* ]] || fail "'$path': paths with blanks do not work in pipes"; done

# keep_clear <path>: fails if the path lies in a system's folder of results, which is removed first
keep_clear() {
  local name path
  path=$(realpath -m "$1")
  for name in "${names[@]}"; do
    [[ $path/ != "$exp/$name"/* ]] ||
      fail "$1: is where the results of $name go, which are removed first: name another <exp-dir>"
  done
}

# of_system <value>[,<value>...] <number>: the value of the system of this number, from 0
of_system() {
  local values
  IFS=, read -ra values <<<"$1"
  case ${#values[@]} in
    1) echo "$1" ;;
    "${#names[@]}") echo "${values[$2]}" ;;
    *) fail "'$1': ${#names[@]} values, or one, were expected" ;;
  esac
}

for list in $trials $more_trials; do
  [ -s "$list" ] || fail "$list: no such list"
  keep_clear "$list"
done
[[ $num_folds =~ ^[1-9][0-9]*$ ]] || fail "--num-folds $num_folds: a positive number was expected"
[[ $fuse =~ ^(cosine|lda|plda)\.(raw|norm)$ ]] || fail "--fuse $fuse: cosine, lda or plda with .raw or .norm was expected"
if [ -n "$by" ] && [[ $by != ark:* && $by != scp:* ]]; then
  [ -s "$by" ] || fail "--by $by: no such table"
  keep_clear "$by"
fi
for values in "$lda_dim" "$lda_shrinkage"; do of_system "$values" 0 >/dev/null; done
for system in "$@"; do
  name=${system%%=*} given=${system#*=}
  if [[ $system != *=* ]] || [ ! -d "$given" ]; then fail "'$system': <name>=<vectors-dir> was expected"; fi
  [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "'$name': a system's name is made of letters, digits and ._-"
  for part in "" /train /test /cohort /fold1; do keep_clear "$given$part"; done
  for file in {train,test}/{vectors.scp,utt2spk}; do [ -s "$given/$file" ] || fail "$given/$file is missing or empty"; done
  [ "$num_folds" -gt 1 ] || [ -d "$given/fold1" ] || fail "--num-folds 1: at least 2 parts of the speakers are needed"
done
repeated=$(printf '%s\n' "${names[@]}" | sort | uniq -d | head -n 1)
[ -z "$repeated" ] || fail "two systems have the name $repeated"
hold_folder "$exp"
# What an earlier run left must not pass for this one's if it fails.
rm -f "$exp"/results.{txt,csv} "$exp"/{fusion,scores.fused,scores.svg}
for name in "${names[@]}"; do rm -rf "${exp:?}/$name"; done
trap 'rm -f "$exp"/results.{txt,csv}.partial' EXIT
quiet=(--print-args=false --verbose=-1)

# split_folds <vectors-dir> <out-dir>: every n-th speaker of train is for testing in one of the folds
split_folds() {
  local k part
  for k in $(seq "$num_folds"); do
    if [ -d "$1/fold$k" ]; then
      for part in train test; do
        mkdir -p "$2/fold$k/$part"
        cp "$1/fold$k/$part"/{vectors.scp,utt2spk} "$2/fold$k/$part"
      done
      continue
    fi
    mkdir -p "$2/fold$k"/{train,test}
    awk '{ print $2 }' "$1/train/utt2spk" | sort -u | awk -v k="$k" -v n="$num_folds" '(NR - 1) % n == k - 1' \
      >"$2/fold$k/held_out"
    awk 'NR == FNR { held[$1]; next } $2 in held' "$2/fold$k/held_out" "$1/train/utt2spk" >"$2/fold$k/test/utt2spk"
    awk 'NR == FNR { held[$1]; next } !($2 in held)' "$2/fold$k/held_out" "$1/train/utt2spk" >"$2/fold$k/train/utt2spk"
    for part in train test; do
      awk 'NR == FNR { kept[$1]; next } $1 in kept' "$2/fold$k/$part/utt2spk" "$1/train/vectors.scp" \
        >"$2/fold$k/$part/vectors.scp"
    done
  done
}

# score_all <train> <test> <cohort> <trials> <dir>: the six kinds of scores, in <dir>/scores.<what>; takes $dim, $shrinkage
score_all() {
  local train=$1 test=$2 cohort=$3 list=$4 dir=$5 kind backend vectors
  train_plda.sh --cmd "$cmd" --lda-dim "$dim" --shrinkage "$shrinkage" "$train" "$train/vectors.scp" "$dir/plda" \
    >>"$exp/log" 2>&1 || fail "train_plda.sh failed: see $exp/log"
  for kind in cosine lda plda; do
    backend=(--backend=cosine)
    vectors="ark:transform-vec ${quiet[*]} --mean=$dir/plda/mean.vec scp:%s/vectors.scp ark:- |"
    if [ "$kind" != cosine ]; then
      vectors="ark:transform-vec ${quiet[*]} --mean=$dir/plda/mean.vec --normalize-length $dir/plda/lda.mat scp:%s/vectors.scp ark:- |"
    fi
    if [ "$kind" = plda ]; then backend=(--backend=plda --model="$dir/plda/plda"); fi
    score-trials "${quiet[@]}" "${backend[@]}" "$list" "${vectors//%s/$test}" "${vectors//%s/$test}" "$dir/scores.$kind.raw"
    normalize-scores "${quiet[@]}" "${backend[@]}" --top-n="$top_n" --utt2spk="$test/utt2spk" --cohort-utt2spk="$cohort/utt2spk" \
      "$dir/scores.$kind.raw" "${vectors//%s/$test}" "${vectors//%s/$test}" "${vectors//%s/$cohort}" "$dir/scores.$kind.norm"
  done
}

systems=() labels=() shown=() shown_labels=()
: >"$exp/log"
: >"$exp/utt2spk"
for number in "${!names[@]}"; do
  name=${names[number]} given=${*:number+1:1}
  given=$(cd "${given#*=}" && pwd -P)
  dim=$(of_system "$lda_dim" "$number")
  shrinkage=$(of_system "$lda_shrinkage" "$number")
  dir=$exp/$name cohort=$given/train
  if [ -d "$given/cohort" ]; then cohort=$given/cohort; fi
  split_folds "$given" "$dir"
  for k in $(seq "$num_folds"); do
    fold=$dir/fold$k fold_cohort=$dir/fold$k/train
    if [ -d "$given/cohort" ]; then fold_cohort=$cohort; fi
    make-trials "${quiet[@]}" "$fold/test/utt2spk" "$fold/trials"
    score_all "$fold/train" "$fold/test" "$fold_cohort" "$fold/trials" "$fold"
  done
  for what in {cosine,lda,plda}.{raw,norm}; do cat "$dir"/fold*/"scores.$what" >"$dir/held_out.$what"; done
  cat "$dir"/fold*/trials >"$dir/held_out.trials"
  score_all "$given/train" "$given/test" "$cohort" "$trials" "$dir"
  for what in {cosine,lda,plda}.{raw,norm}; do
    calibrate-scores "${quiet[@]}" --train-trials="$dir/held_out.trials" --train-scores="$dir/held_out.$what" \
      --write-model="$dir/calibration.$what" "$dir/scores.$what" "$dir/scores.$what.cal"
    systems+=("$dir/scores.$what.cal") labels+=("$name.$what")
    if [ "$what" = "$fuse" ]; then shown+=("$dir/scores.$what.cal") shown_labels+=("$name.$what"); fi
  done
  cat "$given/test/utt2spk" >>"$exp/utt2spk"
done
sort -u -o "$exp/utt2spk" "$exp/utt2spk"
if [ ${#names[@]} -gt 1 ]; then
  first=$exp/${names[0]}
  held=() tested=()
  for name in "${names[@]}"; do held+=("$exp/$name/held_out.$fuse") tested+=("$exp/$name/scores.$fuse"); done
  fuse-scores "${quiet[@]}" --train-trials="$first/held_out.trials" --train-scores="$(IFS=,; echo "${held[*]}")" \
    --write-model="$exp/fusion" "$exp/scores.fused" "${tested[@]}"
  systems+=("$exp/scores.fused") labels+=(fused) shown+=("$exp/scores.fused") shown_labels+=(fused)
fi

evaluate=(compute-eer "${quiet[@]}" --allow-extra --ci=jackknife --utt2spk="$exp/utt2spk")
names_of_systems=$(IFS=,; echo "${labels[*]}")
{
  for list in $trials $more_trials; do
    printf '%s\n\n' "$list"
    "${evaluate[@]}" --labels="$names_of_systems" "$list" "${systems[@]}" 2>>"$exp/log" || see_log
    echo
  done
  if [ -n "$by" ]; then
    printf '%s by %s\n\n' "${labels[-1]}" "$by"
    "${evaluate[@]}" --by="$by" "$trials" "${systems[-1]}" 2>>"$exp/log" || see_log
  fi
} >"$exp/results.txt.partial"
"${evaluate[@]}" --format=csv --labels="$names_of_systems" "$trials" "${systems[@]}" >"$exp/results.csv.partial" 2>>"$exp/log" ||
  see_log
for file in results.{txt,csv}; do mv "$exp/$file.partial" "$exp/$file"; done
cat "$exp/results.txt"
if python3 -c 'import matplotlib' 2>>"$exp/log"; then
  plot-det "${quiet[@]}" --plots=all --labels="$(IFS=,; echo "${shown_labels[*]}")" "$trials" "$exp/scores.svg" "${shown[@]}" \
    2>>"$exp/log" || see_log
  echo "$exp/scores.svg"
fi
