#!/usr/bin/env bash
# Aurora-4: FHVAE of the development set in 14 conditions of noise and microphone, and speaker verification across them.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/corpus_options.sh"
wsj0=
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /corpora/aurora4 --preset paper --nj 8

Stages:
  1 data            the development set, 330 utterances in 14 conditions, which the paper trains on; the test set; noise
                    and microphone labels; trials
$recipe_stages_help

Options:
  --corpus DIR              Aurora-4 (sph2pipe is needed where its files are compressed)
  --wsj0 DIR                WSJ0, for transcripts and gender (default: those in --corpus, if any)
$corpus_options_help
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"
recipe_corpus "$@"
recipe_paths "$wsj0"

stage_data() {
  "$root/local/aurora4/prepare_data.py" --print-args=false --partial="$partial" --wsj0="$wsj0" \
    "${data_options[@]}" "$corpus" "$data"
}

recipe_begin "Aurora-4: noise, microphones and speakers"
hours=20
run_stage data --title "data directories" --options "$partial $data_opts $wsj0 $(folder_state "$corpus")" \
  --reads "$(echo "$root"/local/aurora4/*.py) $root/voxark/corpora.py" \
  --makes "$data/train/wav.scp $data/test/wav.scp $data/trials $data/enroll_map"
recipe_systems
