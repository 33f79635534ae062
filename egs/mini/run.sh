#!/usr/bin/env bash
# Speaker verification from wav.scp to error rates, on a corpus of synthetic speech made on the spot or on your data.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/recipe_options.sh"
size=small
train=
test=
trials=
enroll_map=
help_message="Usage: $0 [options]
       $0 [options] --train DIR --test DIR --trials FILE --dir DIR
e.g.: $0 --size tiny
      $0 --train ../shared/data/speechocean762/train --test ../shared/data/speechocean762/test \\
        --trials ../shared/data/speechocean762/test/trials --dir exp/speechocean762

Stages:
  1 data            the synthetic corpus, or your data; trials and models as lists
$recipe_stages_help

The synthetic corpus (speech by espeak-ng; conditions drawn at random, labels in Kaldi's files) goes to
egs/mini/data/SIZE, results to egs/mini/exp/SIZE, or all into --dir.
  --size tiny|small|large   number of speakers (default: $size)
Your own data: Kaldi data directories with wav.scp and utt2spk (and segments). Relative paths in wav.scp are looked for
in the current folder, in the data directory and beside it.
  --train DIR --test DIR    whose speakers should differ
  --trials FILE             lines \`enroll-id test-id target|nontarget\`; ids are utterances of --test
  --enroll-map FILE         lines \`enroll-id utterance...\`: models of several utterances
                            (default: enroll.spk2utt in --test, where it exists)
Options of both:
$recipe_options_help"
. "$root/utils/parse_options.sh"
if [ $# -ne 0 ]; then
  echo "$help_message" >&2
  echo "$0: ERROR: unexpected argument '$1'" >&2
  exit 1
fi
. "$root/utils/recipe_lib.sh"

own_data=false
if [ -n "$train$test$trials$enroll_map" ]; then
  own_data=true
  if [ -z "$train" ] || [ -z "$test" ] || [ -z "$trials" ] || [ -z "$dir" ]; then
    fail "your own data need all of --train, --test, --trials and --dir"
  fi
fi
case $size in
  tiny | small | large) ;;
  *) fail "--size $size: expected tiny, small or large" ;;
esac
recipe_paths "$train" "$test" "$trials" "$enroll_map"
own_folder=
if [ -z "$dir" ]; then
  name=$size
  if [ "$seed" != 0 ]; then name=${size}_seed$seed; fi
  dir=$here/exp/$name own_folder=$here/data/$name
fi

stage_data() {
  local map=()
  if [ "$own_data" = false ]; then
    "$root/local/mini/make_corpus.py" --print-args=false --size="$size" --seed="$seed" --nj="$nj" "$data/corpus"
    train=$data/corpus/train test=$data/corpus/test trials=$data/corpus/test/trials
  elif [ -n "$enroll_map" ]; then
    map=(--enroll-map="$enroll_map")
  fi
  "$root/local/mini/import_data.py" --print-args=false ${map[@]+"${map[@]}"} "$train" "$test" "$trials" "$data"
}

if [ "$own_data" = true ]; then
  recipe_begin "$(basename "$dir"): speaker verification on your own data" "$own_folder"
  labels=$test
  run_stage data --title "data directories" --options "$train $test $trials $enroll_map" --makes "$data/trials" \
    --reads "$trials $enroll_map $train/wav.scp $train/utt2spk $train/segments $test/wav.scp $test/utt2spk
             $test/segments $test/enroll.spk2utt"
else
  recipe_begin "Synthetic speech ($size): speaker verification and disentangled representations" "$own_folder"
  labels=$data/corpus/test ctm_map=$root/local/mini/phones_3.map
  if [ "$size" = tiny ]; then
    short_e2e="--num-epochs=3" short_fhvae="--hidden-dim=128 --num-steps=500 --steps-per-epoch=100"
  fi
  run_stage data --title "synthetic corpus ($size)" --options "$size $seed" \
    --reads "$(echo "$root"/local/mini/*.{py,map,txt})" --makes "$data/corpus/corpus.json $data/trials"
fi
recipe_systems
