#!/usr/bin/env bash
# Scores a list of trials with one of the back-ends, and computes error rates where the trials are labelled.

set -euo pipefail

nj=2
cmd=run.py
backend=plda
enroll_map=
enroll=mean
lda=true
score_opts=
p_target=0.01
help_message="Usage: $0 [options] <trials> <model-dir> <test> <exp-dir>
e.g.: $0 --backend plda data/trials exp/plda exp/pooled_test/vectors.scp exp/scores_plda
      $0 --backend gmm data/trials exp/gmm_map data/test exp/scores_gmm
  gmm: <model-dir> comes from adapt_gmm.sh, <test> is a data directory.
  e2e: <model-dir> comes from train_e2e.sh, <test> is the scp of the embeddings of extract_embeddings.sh.
  plda, dplda, cosine, dot: <model-dir> comes from train_plda.sh, <test> is the scp of the vectors, of enrolment and
  of test; dplda takes <model-dir>/dplda.
  Writes <exp-dir>/scores; <exp-dir>/dropped: enrolment and test ids that could not be scored, and why; and
  <exp-dir>/eer when the trials have a third column target or nontarget.
Options:
  --nj <n>               jobs, of gmm (default: $nj)
  --cmd <launcher>       how to run jobs (default: $cmd)
  --backend <name>       plda, dplda, cosine, dot, e2e or gmm (default: $backend)
  --enroll-map <file>    \`<model-id> <utterance>...\`: models are made of these vectors (default: ids are utterances)
  --enroll <way>         with --enroll-map: mean, book (of plda) or score-mean, see score-trials (default: $enroll)
  --lda true|false       false: the centred vectors themselves (default: $lda); e2e has neither
  --score-opts <words>   more options of score-trials, such as \`--smoothing=0.1\`, without quotes (default: none)
  --p-target <p>         prior of a target in the detection cost (default: $p_target)"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/step_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
if [ $# -ne 4 ]; then
  echo "$help_message" >&2
  exit 1
fi
trials=$1 model=$2 test=$3 dir=$4
step_plain_paths "$trials" "$model" "$test" "$dir" "$enroll_map"
if [ ! -s "$trials" ]; then
  echo "$0: $trials is missing or empty" >&2
  exit 1
fi

mkdir -p "$dir/log"
rm -f "$dir"/scores* "$dir/eer" "$dir"/log/failed.* "$dir"/log/*/failed.*

options=(--allow-missing --backend="$backend")
read -r -a more <<<"$score_opts"
options+=(${more[@]+"${more[@]}"})

score_gmm() {
  local job feats num_tests
  num_tests=$(awk '!seen[$2]++' "$trials" | wc -l)
  if [ "$nj" -gt "$num_tests" ]; then nj=$num_tests; fi
  rm -rf "$dir/split"
  mkdir -p "$dir/split"
  # A job scores all trials of its test utterances, so that each utterance is read once.
  awk -v nj="$nj" -v base="$dir/split" \
    '!($2 in job) { job[$2] = 1 + n++ % nj } { print > (base "/trials." job[$2]) }' "$trials"
  for job in $(seq "$nj"); do
    mkdir -p "$dir/split/data.$job" "$dir/log/$job"
    awk 'NR == FNR { wanted[$2]; next } $1 in wanted' "$dir/split/trials.$job" "$test/feats.scp" \
      >"$dir/split/data.$job/feats.scp"
    cp "$test/vad.scp" "$dir/split/data.$job/vad.scp"
  done
  feats=$(gmm_features.sh --log-dir "$dir/log/1" "$model" "$dir/split/data.1")
  feats=${feats//"$dir/split/data.1/"/"$dir/split/data.JOB/"}
  feats=${feats//"$dir/log/1/"/"$dir/log/JOB/"}
  $cmd JOB=1:"$nj" "$dir/log/score.JOB.log" score-trials "${options[@]}" --failed-list="$dir/log/failed.score.JOB" \
    --model="$model/final.gmm" "$dir/split/trials.JOB" "scp:$model/models.scp" "$feats" "$dir/scores.JOB"
  for job in $(seq "$nj"); do cat "$dir/scores.$job"; done >"$dir/scores.partial"
  rm "$dir"/scores.[0-9]*
  mv "$dir/scores.partial" "$dir/scores"
  rm -r "$dir/split"
}

score_vectors() {
  local vectors
  options+=(--failed-list="$dir/log/failed.score" --enroll="$enroll")
  if [ "$backend" = e2e ]; then
    vectors="scp:$test"
  elif [ "$lda" = true ]; then
    vectors="ark:transform-vec --mean=$model/mean.vec --normalize-length $model/lda.mat scp:$test ark:- |"
  else
    vectors="ark:transform-vec --mean=$model/mean.vec scp:$test ark:- |"
  fi
  if [ -n "$enroll_map" ]; then options+=(--enroll-map="ark:$enroll_map"); fi
  case $backend in
    plda | dplda) options+=(--model="$model/$backend") ;;
    e2e) options+=(--model="$model") ;;
  esac
  $cmd "$dir/log/score.log" score-trials "${options[@]}" "$trials" "$vectors" "$vectors" "$dir/scores"
  rm -f "$dir/scores.missing" # <exp-dir>/dropped has it
}

case $backend in
  gmm) score_gmm ;;
  plda | dplda | cosine | dot | e2e) score_vectors ;;
  *)
    echo "$0: --backend $backend: expected plda, dplda, cosine, dot, e2e or gmm" >&2
    exit 1
    ;;
esac
awk '{ for (i = 1; i <= 2; i++) if (!seen[$i]++) print $i }' "$trials" >"$dir/log/ids"
collect_dropped.sh --what ids "$dir/log/ids" "$dir/dropped" "$dir"/log/failed.* "$dir"/log/*/failed.*

if awk 'NF != 3 { exit 1 }' "$trials"; then
  compute-eer --print-args=false --allow-missing --p-target="$p_target" "$trials" "$dir/scores" \
    >"$dir/eer" 2>"$dir/log/eer.log" || { cat "$dir/log/eer.log" >&2; exit 1; }
fi
