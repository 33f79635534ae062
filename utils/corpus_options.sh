# shellcheck shell=bash disable=SC2034,SC2154  # the recipe and recipe_lib.sh use them; the recipe has set root and here
# The options of the recipes of corpora, beside those of all recipes; to be sourced in place of recipe_options.sh.

. "$root/utils/recipe_options.sh"
declare -r preset_folder=$here
preset=small
corpus=
partial=false
data_opts=
corpus_name=$(basename "$here")
declare -r corpus_options_help="  --preset small|paper      settings for a laptop, or those of the paper (default: $preset):
                            egs/$corpus_name/NAME.conf; results go to egs/$corpus_name/exp/NAME unless --dir is given
  --partial                 take what there is of an incomplete corpus, with a warning
  --data-opts OPTIONS       more options of local/$corpus_name/prepare_data.py (its --help names them)"
unset -v corpus_name
