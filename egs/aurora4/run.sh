#!/usr/bin/env bash
# Aurora-4: FHVAE of the development set in 14 conditions of noise and microphone, and speaker verification across them.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)

. "$root/utils/recipe_options.sh"
declare -r preset_folder=$here
preset=small
corpus=
wsj0=
partial=false
data_opts=
help_message="Usage: $0 [options] --corpus DIR
e.g.: $0 --corpus /corpora/aurora4 --preset paper --nj 8

Stages:
  1 data            the development set, 330 utterances in 14 conditions, which the paper trains on; the test set; noise
                    and microphone labels; trials
$recipe_stages_help

Options:
  --corpus DIR              Aurora-4 (sph2pipe is needed where its files are compressed)
  --preset small|paper      settings for a laptop, or those of the paper (default: $preset):
                            egs/aurora4/NAME.conf; results go to egs/aurora4/exp/NAME unless --dir is given
  --wsj0 DIR                WSJ0, for transcripts and gender (default: those in --corpus, if any)
  --partial                 take what there is of an incomplete corpus, with a warning
  --data-opts OPTIONS       more options of local/aurora4/prepare_data.py, such as --targets-per-pair=1000
$recipe_options_help"
. "$root/utils/parse_options.sh"
. "$root/utils/recipe_lib.sh"
recipe_corpus "$@"
recipe_paths "$wsj0"
read -r -a data_options <<<"$data_opts"

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
