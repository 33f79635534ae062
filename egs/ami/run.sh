#!/usr/bin/env bash
# AMI: meetings by headsets and a distant microphone: FHVAE of over 200,000 segments, and speaker verification.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/corpus_options.sh"
annotations=
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /corpora/amicorpus --annotations /corpora/ami_public_manual_1.6.2 --nj 16

Stages:
  1 data            segments of the annotations, by headsets (ihm) and the first distant microphone (sdm); trials
                    between segments of the test meetings
$recipe_stages_help

Options:
  --corpus DIR              the folder of the meetings: ES2002a/audio/ES2002a.Headset-0.wav, ...
  --annotations DIR         the annotation release (default: a folder ami_public_manual_* in --corpus or beside it)
$corpus_options_help
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"
recipe_corpus "$@"
recipe_paths "$annotations"

stage_data() {
  "$root/local/ami/prepare_data.py" --print-args=false --partial="$partial" --annotations="$annotations" \
    "${data_options[@]}" "$corpus" "$data"
}

recipe_begin "AMI: meetings over headsets and a distant microphone"
hours=160
state=$(folder_state "$corpus")
while read -r folder; do # where preparation looks for annotations outside of --corpus
  state+=$(folder_state "$folder")
done < <(if [ -n "$annotations" ]; then echo "$annotations"; else
  find "$(dirname "$corpus")" -mindepth 1 -maxdepth 1 \( -iname 'ami_public_manual*' -o -iname 'annotations*' \) | sort
fi)
run_stage data --title "data directories" --options "$partial $data_opts $state" \
  --reads "$(echo "$root"/local/ami/*.py) $root/voxark/corpora.py $root/local/ami/meetings.txt" \
  --makes "$data/train/wav.scp $data/test/wav.scp $data/trials $data/enroll_map"
recipe_systems
