#!/usr/bin/env bash
# LibriSpeech: FHVAE and speaker verification on read books, with any of its parts.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/corpus_options.sh"
train_parts="train-clean-100"
dev_parts="dev-clean dev-other"
test_parts="test-clean test-other"
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /corpora/LibriSpeech --train-parts 'train-clean-100 train-clean-360' --preset paper --nj 16

Stages:
  1 data            the parts asked for, with the speakers' gender; trials within the test parts
$recipe_stages_help

Options:
  --corpus DIR              LibriSpeech (local/librispeech/download.sh fetches it)
  --train-parts \"NAME ...\"  (default: $train_parts; the paper's 1,000 hours are these three:
                            train-clean-100 train-clean-360 train-other-500)
  --dev-parts, --test-parts \"NAME ...\"   (default: $dev_parts; $test_parts)
$corpus_options_help
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"
recipe_corpus "$@"

# hours_of <parts>: as published
hours_of() {
  local part sum=0
  for part in $1; do
    case $part in
      train-clean-100) sum=$((sum + 101)) ;;
      train-clean-360) sum=$((sum + 364)) ;;
      train-other-500) sum=$((sum + 497)) ;;
      *) sum=$((sum + 5)) ;;
    esac
  done
  echo "$sum"
}

stage_data() {
  "$root/local/librispeech/prepare_data.py" --print-args=false --partial="$partial" --train-parts="$train_parts" \
    --dev-parts="$dev_parts" --test-parts="$test_parts" "${data_options[@]}" "$corpus" "$data"
}

recipe_begin "LibriSpeech: read books"
hours="$(hours_of "$train_parts $test_parts")"
state=$(folder_state "$corpus")
run_stage data --title "data directories" \
  --makes "$data/train/wav.scp $data/test/wav.scp $data/trials $data/enroll_map" \
  --options "$partial $data_opts $train_parts; $dev_parts; $test_parts; $state" \
  --reads "$(echo "$root"/local/librispeech/*.py) $root/voxark/corpora.py"
recipe_systems
