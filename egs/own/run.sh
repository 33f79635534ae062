#!/usr/bin/env bash
# The smallest recipe, to begin your own with: DIR/train/SPEAKER/*.wav and DIR/test/SPEAKER/*.wav (or flac).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
. "$root/utils/recipe_options.sh"
corpus='' preset=own
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /data/voices --systems 'gmm ivector'
DIR holds train/SPEAKER/UTTERANCE.wav and test/SPEAKER/UTTERANCE.wav (or flac), with different speakers.
Stages:
  1 data            data directories; all pairs of test utterances as trials
$recipe_stages_help
Options:
  --corpus DIR              your speech; results go to egs/own/exp/own unless --dir is given
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"

stage_data() {
  for part in train test; do
    mkdir -p "$data/$part"
    find -L "$corpus/$part" -name '*.wav' -o -name '*.flac' |
      awk -F/ '{ id = $(NF - 1) "-" $NF; sub(/\.[a-z]*$/, "", id); print id, $0 }' | sort >"$data/$part/wav.scp"
    awk -F'[ /]' '{ print $1, $(NF - 1) }' "$data/$part/wav.scp" >"$data/$part/utt2spk"
    utt2spk_to_spk2utt "$data/$part/utt2spk" >"$data/$part/spk2utt"
  done
  awk '{ print $1, $1 }' "$data/test/utt2spk" >"$data/enroll_map"
  make-trials --srand="$seed" --num-nontargets=100000 "$data/test/utt2spk" "$data/trials" 2>"$dir/.stages/trials.log"
}

recipe_corpus "$@"
recipe_begin "My corpus"
run_stage data --title "data directories" --options "$(folder_state "$corpus")" --makes "$data/trials"
recipe_systems
