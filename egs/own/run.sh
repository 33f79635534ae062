#!/usr/bin/env bash
# The smallest recipe, to begin your own with: DIR/train/SPEAKER/*.wav and DIR/test/SPEAKER/*.wav (or flac).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
. "$root/utils/recipe_options.sh"
corpus=''
declare -r preset=own # it has no other
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /data/voices --systems 'gmm ivector'
DIR holds train/SPEAKER/UTTERANCE.wav and test/SPEAKER/UTTERANCE.wav (or flac), with different speakers.
Stages:
  1 data            data directories; pairs of test utterances as trials, 100,000 nontarget ones at most
$recipe_stages_help
Options:
  --corpus DIR              your speech; results go to egs/own/exp/own unless --dir is given
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"

stage_data() {
  for part in train test; do
    rm -rf "${data:?}/$part" # what was made of a corpus that has changed since
    mkdir -p "$data/$part"
    find -L "$corpus/$part" -type f \( -iname '*.wav' -o -iname '*.flac' \) -printf '%P\n' |
      awk -F/ -v folder="$corpus/$part" 'NF != 2 || /[ \t]/ {
        print folder "/" $0 ": expected SPEAKER/UTTERANCE.wav or .flac, without blanks" >"/dev/stderr"; exit 1 }
        { id = $1 "-" $2; sub(/\.[^.]*$/, "", id); print id, folder "/" $0 }' | sort >"$data/$part/wav.scp"
    others=$(find -L "$corpus/$part" -type f ! -iname '*.wav' ! -iname '*.flac' | wc -l)
    [ "$others" -eq 0 ] || echo "$0: WARNING: $corpus/$part: $others other files than wav and flac are ignored" >&2
    [ -s "$data/$part/wav.scp" ] || fail "$corpus/$part: no SPEAKER/UTTERANCE.wav or .flac in it"
    awk -F'[ /]' '{ print $1, $(NF - 1) }' "$data/$part/wav.scp" >"$data/$part/utt2spk"
    utt2spk_to_spk2utt "$data/$part/utt2spk" >"$data/$part/spk2utt"
  done
  awk '{ print $1, $1 }' "$data/test/utt2spk" >"$data/enroll_map"
  make-trials --srand="$seed" --num-nontargets=100000 "$data/test/utt2spk" "$data/trials" 2>"$dir/.stages/trials.log" ||
    fail "$(tail -n 1 "$dir/.stages/trials.log")"
}

recipe_corpus "$@"
recipe_begin "My corpus"
run_stage data --title "data directories" --options "$seed $(folder_state "$corpus")" \
  --makes "$data/trials $data/enroll_map"
recipe_systems
