#!/usr/bin/env bash
# TIMIT: speaker verification on the 24 core test speakers, and what FHVAE know of phones and speakers.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/corpus_options.sh"
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /corpora/LDC93S1 --preset paper --nj 8

Stages:
  1 data            462 training speakers without sa sentences, 50 to validate on, 24 to test; all 18,336 pairs as
                    trials; phones as ctm
$recipe_stages_help

Options:
  --corpus DIR              TIMIT, as SPHERE or wav files, names in upper or lower case
$corpus_options_help
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"
recipe_corpus "$@"

stage_data() {
  "$root/local/timit/prepare_data.py" --print-args=false --partial="$partial" "${data_options[@]}" "$corpus" "$data"
}

recipe_begin "TIMIT: speaker verification and disentangled representations"
hours=3.8 phone_map=$root/conf/timit_phones_39.map
run_stage data --title "data directories" --options "$partial $data_opts $(folder_state "$corpus")" \
  --reads "$(echo "$root"/local/timit/*.py) $root/voxark/corpora.py $root/local/timit_phones/phones.py" \
  --makes "$data/train/wav.scp $data/test/wav.scp $data/trials $data/enroll_map"
recipe_systems
